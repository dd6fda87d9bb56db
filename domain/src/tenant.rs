//! Tenants, their programs and their API keys, as the rules see them.
//!
//! A program is a tenant under another's credentials: one more currency of points for the same members. All else about it is what
//! it is for any tenant, so no other rule knows of programs.

use serde::{Deserialize, Serialize};

use crate::command::Envelope;
use crate::decide::Outcome;
use crate::id::{KeyId, MemberId, ProgramCode, TenantId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// How many programs a tenant may have.
pub const MAX_PROGRAMS: usize = 20;

/// A shop: the owner of everything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    /// ISO 4217 code; amounts are in its minor unit.
    pub currency: String,
    /// IANA name; decides where a local day begins.
    pub time_zone: String,
    /// How long refunded points live when their lot has expired meanwhile, in days; 0 lets them expire at once.
    pub refund_grace_days: u32,
    pub created_at: Timestamp,
    /// Whose program this is, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
}

/// What makes a tenant a program: a tenant that is none itself, and by what name that tenant's keys ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub parent_id: TenantId,
    /// Unique within the parent.
    pub code: ProgramCode,
}

/// A program to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProgram {
    pub id: TenantId,
    pub code: ProgramCode,
    pub name: String,
    /// `None`: the parent's.
    pub time_zone: Option<String>,
    /// `None`: the parent's.
    pub refund_grace_days: Option<u32>,
}

/// Makes a program of the tenant that asks, in that tenant's currency.
///
/// # Errors
/// `TenantNotFound`; `TenantIsProgram`: a program has none of its own; `ProgramExists` with this code; `ProgramLimitReached`.
pub(crate) fn create_program(state: &mut State, envelope: &Envelope, new: &NewProgram) -> Result<Outcome, Rejection> {
    let parent = state.tenant(envelope.tenant)?;
    if parent.program.is_some() {
        return Err(Rejection::TenantIsProgram);
    }
    let codes = state.program_codes(parent.id);
    if codes.is_some_and(|codes| codes.contains(&new.code)) {
        return Err(Rejection::ProgramExists);
    }
    if codes.is_some_and(|codes| codes.len() >= MAX_PROGRAMS) {
        return Err(Rejection::ProgramLimitReached { most: MAX_PROGRAMS });
    }
    let made = Tenant {
        id: new.id,
        name: new.name.clone(),
        currency: parent.currency.clone(),
        time_zone: new.time_zone.clone().unwrap_or_else(|| parent.time_zone.clone()),
        refund_grace_days: new.refund_grace_days.unwrap_or(parent.refund_grace_days),
        created_at: envelope.now,
        program: Some(Program { parent_id: parent.id, code: new.code.clone() }),
    };
    state.insert_tenant(made.clone());
    Ok(Outcome::Tenant(Box::new(made)))
}

/// Makes an API key.
///
/// # Errors
/// `TenantNotFound`; `TenantIsProgram`: its parent's keys are its own.
pub(crate) fn create_api_key(state: &mut State, key: &ApiKey, secret_digest: [u8; 32]) -> Result<Outcome, Rejection> {
    if state.tenant(key.tenant_id)?.program.is_some() {
        return Err(Rejection::TenantIsProgram);
    }
    state.insert_api_key(key.clone(), secret_digest);
    Ok(Outcome::ApiKey(Box::new(key.clone())))
}

/// What an API key may do within its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scope {
    Member,
    Service,
    Operator,
}

impl Scope {
    pub const ALL: [Scope; 3] = [Scope::Member, Scope::Service, Scope::Operator];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Member => "MEMBER",
            Scope::Service => "SERVICE",
            Scope::Operator => "OPERATOR",
        }
    }

    pub fn parse(text: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// An API key without its secret, of which only a SHA-256 digest is ever kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: KeyId,
    pub tenant_id: TenantId,
    pub name: String,
    pub scope: Scope,
    /// Set for, and only for, `Scope::Member`.
    pub member_id: Option<MemberId>,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// The most points one administrative grant or debit by this key may move; `None` is unlimited.
    #[serde(default)]
    pub adjustment_limit: Option<i64>,
}

impl ApiKey {
    pub fn is_valid_at(&self, at: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| at < end)
    }
}
