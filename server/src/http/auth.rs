//! Who asks, as types: a handler's parameter says which keys it admits, and is the only source of its tenant.
//!
//! A key is `scrip_`, 64 hexadecimal digits of randomness and 8 of a CRC-32 over them, so that a mistyped one is refused
//! without a look-up and a leaked one is found by a scanner. Only its SHA-256 digest is kept: 256 random bits need no slow
//! hash. The platform key may be of any form, since operators set it themselves.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use quick_cache::sync::Cache;
use scrip_domain::tenant::{ApiKey, Scope};
use scrip_domain::{Command, Envelope, Idempotency, KeyId, MemberId, TenantId, Timestamp};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::AppState;
use super::problem::{Code, Problem};
use super::programs;
use super::quota::Counted;
use crate::clock;
use crate::store::Store;

const PREFIX: &str = "scrip_";
const RANDOM_DIGITS: usize = 64;
const CHECK_DIGITS: usize = 8;

/// A new key's secret and its digest.
pub fn new_secret() -> (String, [u8; 32]) {
    let now = clock::now();
    let mut digits = String::with_capacity(RANDOM_DIGITS);
    // Two seeds of 128 bits each, from the operating system's generator like every other.
    for _ in 0..2 {
        let _ = write!(digits, "{:032x}", clock::seed(now).random);
    }
    let secret = format!("{PREFIX}{digits}{:08x}", crc32fast::hash(digits.as_bytes()));
    let digest = digest(&secret);
    (secret, digest)
}

/// What is kept of a secret.
pub fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether a text that claims to be a tenant's key can be one.
fn is_well_formed(secret: &str) -> bool {
    let Some(digits) = secret.strip_prefix(PREFIX) else { return false };
    if digits.len() != RANDOM_DIGITS + CHECK_DIGITS || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return false;
    }
    let (random, check) = digits.split_at(RANDOM_DIGITS);
    u32::from_str_radix(check, 16) == Ok(crc32fast::hash(random.as_bytes()))
}

/// How long a key found, or not found, is taken for so. A revocation on this node shows at once, on others within this time.
const FOUND_FOR: Duration = Duration::from_secs(5);
const MISSED_FOR: Duration = Duration::from_secs(1);
/// While one request asks again, the others go by what was known, for this long at most.
const ASKING_FOR: Duration = Duration::from_secs(1);
const CAPACITY: usize = 10_000;

/// Keys by digest, for a few seconds.
pub(super) struct KeyCache(Cache<[u8; 32], Known>);

#[derive(Clone)]
struct Known {
    key: Option<Arc<ApiKey>>,
    until: Instant,
}

impl KeyCache {
    pub(super) fn new() -> Self {
        KeyCache(Cache::new(CAPACITY))
    }

    async fn find(&self, store: &Store, digest: [u8; 32]) -> Result<Option<Arc<ApiKey>>, Problem> {
        if let Some(known) = self.0.get(&digest) {
            let now = Instant::now();
            if now < known.until {
                return Ok(known.key);
            }
            self.0.insert(digest, Known { until: now + ASKING_FOR, ..known });
        }
        let key = store.find_key(digest).await?.map(Arc::new);
        let trusted = if key.is_some() { FOUND_FOR } else { MISSED_FOR };
        self.0.insert(digest, Known { key: key.clone(), until: Instant::now() + trusted });
        Ok(key)
    }

    /// Forgets a key that was revoked.
    pub(super) fn forget(&self, id: KeyId) {
        self.0.retain(|_, known| known.key.as_ref().is_none_or(|key| key.id != id));
    }
}

enum Credential {
    Platform,
    Tenant(Caller),
}

async fn authenticate(parts: &Parts, app: &AppState) -> Result<Credential, Problem> {
    let Some(header) = parts.headers.get(AUTHORIZATION) else { return Err(Problem::new(Code::KeyMissing)) };
    let invalid = || Problem::new(Code::KeyInvalid);
    let (scheme, secret) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(invalid)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(invalid());
    }
    let secret = secret.trim();
    let digest = digest(secret);
    if bool::from(digest.ct_eq(&app.platform_digest)) {
        return Ok(Credential::Platform);
    }
    if !is_well_formed(secret) {
        return Err(invalid());
    }
    match app.keys.find(&app.store, digest).await? {
        Some(key) if key.is_valid_at(clock::now()) => Ok(Credential::Tenant(Caller { tenant: key.tenant_id, key })),
        _ => Err(invalid()),
    }
}

/// A tenant's key of at least the given scope, for the program that the request is one of, if it is.
async fn tenant_key(parts: &Parts, app: &AppState, least: Scope) -> Result<Caller, Problem> {
    match authenticate(parts, app).await? {
        Credential::Tenant(mut caller) if caller.key.scope >= least => {
            app.quotas.admit(caller.owner(), Counted::Request, parts)?;
            if let Some(code) = programs::asked_for(&parts.headers)? {
                caller.tenant = app.programs.find(&app.store, caller.owner(), code).await?;
            }
            Ok(caller)
        }
        Credential::Tenant(caller) => Err(caller.lacks(&format!("an {} key", least.as_str()))),
        Credential::Platform => {
            let needed = format!("a tenant's {} key", least.as_str());
            Err(Problem::new(Code::ScopeRequired).with("needed", needed).with("scope", "PLATFORM"))
        }
    }
}

/// Who asks, for a handler that may know its tenant.
#[derive(Clone)]
pub struct Caller {
    key: Arc<ApiKey>,
    /// The key's, or a program of that.
    tenant: TenantId,
}

impl Caller {
    /// Whose data is asked for.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Whose key it is: who answers for how much is asked, in all programs together.
    pub fn owner(&self) -> TenantId {
        self.key.tenant_id
    }

    /// The tenant, for what no program has of its own.
    ///
    /// # Errors
    /// 400 when the request is one of a program.
    pub fn own_tenant(&self) -> Result<TenantId, Problem> {
        if self.tenant == self.owner() { Ok(self.tenant) } else { Err(Problem::new(Code::ProgramMisplaced)) }
    }

    pub fn is_operator(&self) -> bool {
        self.key.scope == Scope::Operator
    }

    pub fn id(&self) -> KeyId {
        self.key.id
    }

    /// The most points one administrative adjustment may move.
    pub fn adjustment_limit(&self) -> Option<i64> {
        self.key.adjustment_limit
    }

    fn lacks(&self, needed: &str) -> Problem {
        Problem::new(Code::ScopeRequired).with("needed", needed).with("scope", self.key.scope.as_str())
    }

    /// # Errors
    /// 403 when a time is given and this is no operator.
    pub fn at(&self, effective_at: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Problem> {
        self.operators_time("effective_at", effective_at, now)
    }

    /// The time of a field that only operators may send; now when it is not sent.
    ///
    /// # Errors
    /// 403 when it is given and this is no operator.
    pub fn operators_time(
        &self,
        field: &'static str,
        at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Timestamp, Problem> {
        match at {
            Some(_) if self.key.scope != Scope::Operator => Err(self.lacks(&format!("an OPERATOR key for `{field}`"))),
            at => Ok(at.unwrap_or(now)),
        }
    }

    /// # Errors
    /// 403 when the key may not move so many administrative points at a time.
    pub fn check_limit(&self, points: i64) -> Result<(), Problem> {
        match self.key.adjustment_limit.filter(|limit| points > *limit) {
            Some(limit) => Err(Problem::new(Code::AdjustmentLimit).with("limit", limit)),
            None => Ok(()),
        }
    }

    /// Makes a command ready to submit.
    ///
    /// # Errors
    /// 403 for what only operators may ask: another effective time, and administrative points types; and for more
    /// administrative points than the key may move at a time.
    pub fn envelope(
        &self,
        command: Command,
        effective_at: Option<Timestamp>,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<Envelope, Problem> {
        let at = self.at(effective_at, now)?;
        if let Command::Grant { movement, .. }
        | Command::EnqueueGrant { movement, .. }
        | Command::Debit { movement, .. } = &command
            && movement.kind.is_administrative()
        {
            if self.key.scope != Scope::Operator {
                return Err(self.lacks(&format!("an OPERATOR key for the type {}", movement.kind.as_str())));
            }
            self.check_limit(movement.points)?;
        }
        let (tenant, actor, seed) = (self.tenant(), Some(self.id()), clock::seed(now));
        Ok(Envelope { tenant, actor, command, idempotency, at, now, seed })
    }
}

/// Admits the platform key.
pub struct Platform(());

impl FromRequestParts<AppState> for Platform {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        match authenticate(parts, app).await? {
            Credential::Platform => match programs::asked_for(&parts.headers)? {
                Some(_) => Err(Problem::new(Code::ProgramMisplaced)),
                None => Ok(Platform(())),
            },
            Credential::Tenant(caller) => Err(caller.lacks("the platform key")),
        }
    }
}

/// Admits operator keys.
pub struct Operator(pub Caller);

impl FromRequestParts<AppState> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        Ok(Operator(tenant_key(parts, app, Scope::Operator).await?))
    }
}

/// Admits service and operator keys.
pub struct Service(pub Caller);

impl FromRequestParts<AppState> for Service {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        Ok(Service(tenant_key(parts, app, Scope::Service).await?))
    }
}

/// Admits every key of a tenant; a member's key only for what is that member's.
pub struct AnyKey(Caller);

impl AnyKey {
    /// The caller, once it is said whose data is asked for.
    ///
    /// # Errors
    /// 403 when the key is bound to another member.
    pub fn on_behalf_of(self, member: &MemberId) -> Result<Caller, Problem> {
        if self.may_see(member) { Ok(self.0) } else { Err(self.0.lacks("a key of that member")) }
    }

    /// The tenant in which to look an object up whose member is not known yet.
    pub fn tenant_to_search(&self) -> TenantId {
        self.0.tenant()
    }

    /// Whether the key may see what belongs to the member. What it may not see is as good as unknown.
    pub fn may_see(&self, member: &MemberId) -> bool {
        self.0.key.scope > Scope::Member || self.0.key.member_id.as_ref() == Some(member)
    }
}

impl FromRequestParts<AppState> for AnyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        Ok(AnyKey(tenant_key(parts, app, Scope::Member).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_its_typos() {
        let (secret, of_secret) = new_secret();
        assert!(is_well_formed(&secret), "{secret}");
        assert_eq!(secret.len(), 6 + 64 + 8);
        assert_eq!(digest(&secret), of_secret);
        assert_ne!(new_secret().0, secret);
        for at in 0..secret.len() {
            let mut typo = secret.clone().into_bytes();
            typo[at] = if typo[at] == b'0' { b'1' } else { b'0' };
            assert!(!is_well_formed(std::str::from_utf8(&typo).unwrap()), "typo at {at}");
        }
        for bad in ["", "scrip_", "scrip_00", &secret[..77], &secret.to_uppercase(), &format!("{secret}0")] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn scopes_contain_each_other() {
        assert!(Scope::Operator > Scope::Service && Scope::Service > Scope::Member);
    }
}
