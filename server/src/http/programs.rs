//! Programs: further currencies of points of a tenant, each a tenant of its own under the same keys.
//!
//! A request with the header `Scrip-Program` is one of that program: authentication puts its id in the place of the tenant's
//! ([`super::auth::Caller::tenant`]), so that no handler knows of programs. Which program a code means is looked up once and
//! kept: a program never changes its tenant or its code and is never deleted. A code that names none is asked for again after a
//! second, so a program that another node has just made may be unknown here for that long. Bounded by count.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::Response;
use quick_cache::sync::Cache;
use scrip_domain::tenant::NewProgram;
use scrip_domain::{Command, Ids, MemberId, ProgramCode, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{AnyKey, Operator, Service};
use super::consistency::{ConsistencyToken, Reads};
use super::extract::{Checked, Cursor, InPath, Input, Parameters};
use super::fields::FieldErrors;
use super::points::EXPIRING_WITHIN_DAYS;
use super::problem::{Code, Problem};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::views::{BalanceView, Page, ProgramPage, ProgramView};
use super::{AppState, answer, tenants};
use crate::clock;
use crate::store::Store;
use crate::store::read::Wallet;

static HEADER: HeaderName = HeaderName::from_static("scrip-program");
/// How often a code that names no program is asked for.
const MISSED_FOR: Duration = Duration::from_secs(1);
const CAPACITY: usize = 10_000;

/// The program that the request is one of, if it is.
///
/// # Errors
/// A code that cannot be one is a bad field; so are two of them.
pub fn asked_for(headers: &HeaderMap) -> Result<Option<ProgramCode>, Problem> {
    let mut values = headers.get_all(&HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let code = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|_| values.next().is_none());
    let malformed = || {
        let remedy =
            "Send one program's code, 1-64 printable ASCII characters without spaces; or leave the header out.";
        Problem::field("Scrip-Program", "is malformed", remedy)
    };
    code.map(Some).ok_or_else(malformed)
}

/// Programs by whose they are and by what code.
pub struct ProgramCache(Cache<(TenantId, ProgramCode), Known>);

#[derive(Clone, Copy)]
enum Known {
    Program(TenantId),
    NoneUntil(Instant),
}

impl ProgramCache {
    pub fn new() -> Self {
        ProgramCache(Cache::new(CAPACITY))
    }

    /// # Errors
    /// 404 when the tenant has no such program.
    pub async fn find(&self, store: &Store, parent: TenantId, code: ProgramCode) -> Result<TenantId, Problem> {
        let unknown = |code: &ProgramCode| Problem::new(Code::ProgramNotFound).with("program", code);
        let key = (parent, code);
        match self.0.get(&key) {
            Some(Known::Program(id)) => return Ok(id),
            Some(Known::NoneUntil(end)) if Instant::now() < end => return Err(unknown(&key.1)),
            _ => {}
        }
        let found = store.find_program(parent, &key.1).await?;
        let known = found.map_or_else(|| Known::NoneUntil(Instant::now() + MISSED_FOR), Known::Program);
        self.0.insert(key.clone(), known);
        found.ok_or_else(|| unknown(&key.1))
    }

    /// Forgets that there was no such program.
    fn forget(&self, parent: TenantId, code: ProgramCode) {
        self.0.remove(&(parent, code));
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramRequest {
    /// What the header `Scrip-Program` names it by; unique within the tenant and for good.
    #[schema(value_type = schema::ProgramCode)]
    code: Option<ProgramCode>,
    #[schema(value_type = String, min_length = 1, max_length = 100)]
    name: Option<String>,
    /// An IANA name. Default: the tenant's.
    #[schema(example = "Europe/Berlin")]
    time_zone: Option<String>,
    /// How long refunded points live when they have expired meanwhile. Default: the tenant's; 0 lets them expire at once.
    #[schema(minimum = 0, maximum = 3650)]
    refund_grace_days: Option<i64>,
}

pub struct Asked {
    code: ProgramCode,
    name: String,
    time_zone: Option<String>,
    refund_grace_days: Option<u32>,
}

impl Checked for ProgramRequest {
    type Value = Asked;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<Asked> {
        let code = errors.required("code", self.code);
        let name = errors.required("name", self.name);
        errors.optional_text("name", name.as_deref(), 1..=100);
        if let Some(time_zone) = &self.time_zone {
            tenants::check_zone(errors, time_zone);
        }
        let days = self.refund_grace_days.and_then(|days| errors.within("refund_grace_days", days, 0..=3_650));
        let refund_grace_days = days.and_then(|days| u32::try_from(days).ok());
        Some(Asked { code: code?, name: name?, time_zone: self.time_zone, refund_grace_days })
    }
}

/// Create a program
///
/// A further currency of points: requests with the header `Scrip-Program: <code>` are of the program, which has everything that a
/// tenant has, under the tenant's keys. Its currency of money is the tenant's. At most 20; a program is never deleted.
#[utoipa::path(post, path = "/v1/programs", tag = "Programs", security(("key" = ["OPERATOR"])),
    params(IdempotencyKey), request_body = ProgramRequest,
    responses((status = 201, description = "Created", body = ProgramView<'static>), Problems))]
pub async fn create_program(
    State(app): State<AppState>,
    Operator(caller): Operator,
    input: Input<ProgramRequest>,
) -> Result<Response, Problem> {
    let parent = caller.own_tenant()?;
    let Asked { code, name, time_zone, refund_grace_days } = input.value;
    let id = TenantId(Ids::new(clock::seed(input.now)).draw());
    let new = NewProgram { id, code: code.clone(), name, time_zone, refund_grace_days };
    let command = Command::CreateProgram(Box::new(new));
    let envelope = caller.envelope(command, None, input.idempotency, input.now)?;
    let response = answer::run(&app, envelope, StatusCode::CREATED).await?;
    app.programs.forget(parent, code);
    Ok(response)
}

/// List the programs
#[utoipa::path(get, path = "/v1/programs", tag = "Programs", security(("key" = ["SERVICE"])), params(PageQuery),
    responses((status = 200, description = "A page, by code", body = ProgramPage), Problems))]
pub async fn list_programs(
    State(app): State<AppState>,
    Service(caller): Service,
    uri: Uri,
) -> Result<Response, Problem> {
    let parent = caller.own_tenant()?;
    let mut parameters = Parameters::of(&uri)?;
    let page = parameters.page();
    parameters.finish()?;
    let mut found = app.store.list_programs(parent, page.cursor.as_ref(), page.limit + 1).await?;
    let next_cursor = super::cut(&mut found, page.limit, |(code, _)| code.write());
    let data = found.iter().map(|(code, program)| ProgramView::new(code, program)).collect();
    answer::ok(&Page { data, next_cursor })
}

/// A member's points in one program.
#[derive(Serialize, ToSchema)]
#[schema(as = Wallet)]
pub struct WalletView<'a> {
    /// Null: the tenant itself, asked without the header `Scrip-Program`.
    #[schema(required, value_type = Option<schema::ProgramCode>)]
    program: Option<&'a ProgramCode>,
    #[schema(value_type = String)]
    name: &'a str,
    balance: BalanceView<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Wallets)]
pub struct WalletsView<'a> {
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    /// The tenant's own first, then its programs by code; zeros where the member has never been seen.
    data: Vec<WalletView<'a>>,
}

/// Read a member's wallets
///
/// The balances in the tenant and in every program of it, as of one instant.
#[utoipa::path(get, path = "/v1/members/{member_id}/wallets", tag = "Programs", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), ConsistencyToken),
    responses((status = 200, description = "The balances", body = WalletsView<'static>), Problems))]
pub async fn list_wallets(
    key: AnyKey,
    reads: Reads,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.on_behalf_of(&member_id)?.own_tenant()?;
    Parameters::of(&uri)?.finish()?;
    let at = clock::now();
    let wallets = reads.wallets(tenant, &member_id, at, at.plus_days(EXPIRING_WITHIN_DAYS)).await?;
    let data = wallets.iter().map(|Wallet { program, name, balance }| WalletView {
        program: program.as_ref(),
        name,
        balance: BalanceView::new(&member_id, balance, EXPIRING_WITHIN_DAYS, at),
    });
    answer::ok(&WalletsView { member_id: &member_id, data: data.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_one_code_or_none() {
        let of = |values: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&HEADER, axum::http::HeaderValue::from_bytes(value).unwrap());
            }
            asked_for(&headers).map(|code| code.map(|code| code.to_string())).map_err(|problem| problem.code)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[b"MILES"]), Ok(Some("MILES".into())));
        let long = &[b'x'; 65];
        for bad in [&[b"" as &[u8]][..], &[b"A B"], &["\u{e9}".as_bytes()], &[long], &[b"A", b"A"]] {
            assert_eq!(of(bad), Err(Code::InvalidRequest), "{bad:?}");
        }
    }
}
