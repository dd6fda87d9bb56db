//! Tenants and their API keys, for the holder of the platform key.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use scrip_domain::points::MAX_POINTS;
use scrip_domain::tenant::{ApiKey, Scope, Tenant};
use scrip_domain::{Answer, Command, Envelope, Idempotency, Ids, KeyId, MemberId, Outcome, TenantId, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::{Platform, new_secret};
use super::extract::{Checked, Cursor, InPath, Input, Parameters};
use super::fields::FieldErrors;
use super::problem::{Code, Problem};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::time::Time;
use super::views::{ApiKeyPage, ApiKeyView, NewApiKeyView, Page, TenantPage, TenantView};
use super::{AppState, answer};
use crate::clock;

const DEFAULT_CURRENCY: &str = "EUR";
const DEFAULT_TIME_ZONE: &str = "UTC";

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    #[schema(value_type = String, min_length = 1, max_length = 100)]
    name: Option<String>,
    /// ISO 4217; all amounts are in its minor unit. Default: EUR.
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: Option<String>,
    /// An IANA name. Default: UTC.
    #[schema(example = "Europe/Berlin")]
    time_zone: Option<String>,
    /// How long refunded points live when they have expired meanwhile. Default: 7; 0 lets them expire at once.
    #[schema(minimum = 0, maximum = 3650)]
    refund_grace_days: Option<i64>,
}

pub struct NewTenant {
    name: String,
    currency: String,
    time_zone: String,
    refund_grace_days: u32,
}

impl Checked for TenantRequest {
    type Value = NewTenant;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<NewTenant> {
        let name = errors.required("name", self.name);
        errors.optional_text("name", name.as_deref(), 1..=100);
        let currency = self.currency.unwrap_or_else(|| DEFAULT_CURRENCY.into());
        let is_code = |code: &String| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        if !is_code(&currency) {
            errors.add("currency", "is no currency code", "Send the three letters of ISO 4217, like EUR.");
        }
        let time_zone = self.time_zone.unwrap_or_else(|| DEFAULT_TIME_ZONE.into());
        check_zone(errors, &time_zone);
        let days = errors.within("refund_grace_days", self.refund_grace_days.unwrap_or(7), 0..=3_650);
        let refund_grace_days = u32::try_from(days?).ok()?;
        Some(NewTenant { name: name?, currency, time_zone, refund_grace_days })
    }
}

pub fn check_zone(errors: &mut FieldErrors, name: &str) {
    if name.len() > 64 || jiff::tz::TimeZone::get(name).is_err() {
        errors.add("time_zone", "is not known", "Send an IANA name, like Europe/Berlin or UTC.");
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyRequest {
    #[schema(value_type = String, min_length = 1, max_length = 100)]
    name: Option<String>,
    #[schema(value_type = schema::KeyScope)]
    scope: Option<ScopeName>,
    /// For the scope MEMBER, and only for it.
    #[schema(value_type = Option<schema::MemberId>)]
    member_id: Option<MemberId>,
    /// Null: never.
    expires_at: Option<Time>,
    /// For the scope OPERATOR: the most points one administrative grant or debit may move. Null: unlimited.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000i64)]
    adjustment_limit: Option<i64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ScopeName {
    Operator,
    Service,
    Member,
}

pub struct NewKey {
    name: String,
    scope: Scope,
    member_id: Option<MemberId>,
    expires_at: Option<Timestamp>,
    adjustment_limit: Option<i64>,
}

impl Checked for ApiKeyRequest {
    type Value = NewKey;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<NewKey> {
        let name = errors.required("name", self.name);
        errors.optional_text("name", name.as_deref(), 1..=100);
        let scope = errors.required("scope", self.scope).map(|scope| match scope {
            ScopeName::Operator => Scope::Operator,
            ScopeName::Service => Scope::Service,
            ScopeName::Member => Scope::Member,
        });
        match (scope, &self.member_id) {
            (Some(Scope::Member), None) => errors.add("member_id", "is required", "Send the member the key acts for."),
            (Some(Scope::Operator | Scope::Service), Some(_)) => {
                errors.add("member_id", "does not belong to this scope", "Leave it out, or send the scope MEMBER.");
            }
            _ => {}
        }
        let expires_at = self.expires_at.map(|at| at.0);
        if expires_at.is_some_and(|at| at <= now) {
            errors.add("expires_at", "lies in the past", format!("Send a time after {}, or null.", Time(now)));
        }
        let adjustment_limit = self.adjustment_limit;
        if let Some(limit) = adjustment_limit {
            errors.within("adjustment_limit", limit, 0..=MAX_POINTS);
            if matches!(scope, Some(Scope::Service | Scope::Member)) {
                errors.add("adjustment_limit", "does not belong to this scope", "Leave it out: only OPERATOR adjusts.");
            }
        }
        Some(NewKey { name: name?, scope: scope?, member_id: self.member_id, expires_at, adjustment_limit })
    }
}

fn envelope(tenant: TenantId, command: Command, idempotency: Option<Idempotency>, now: Timestamp) -> Envelope {
    Envelope { tenant, actor: None, command, idempotency, at: now, now, seed: clock::seed(now) }
}

/// Create a tenant
#[utoipa::path(post, path = "/v1/tenants", tag = "Tenants", security(("key" = ["PLATFORM"])),
    params(IdempotencyKey), request_body = TenantRequest,
    responses((status = 201, description = "Created", body = TenantView<'static>), Problems))]
pub async fn create_tenant(
    State(app): State<AppState>,
    _: Platform,
    input: Input<TenantRequest>,
) -> Result<Response, Problem> {
    let NewTenant { name, currency, time_zone, refund_grace_days } = input.value;
    let id = TenantId(Ids::new(clock::seed(input.now)).draw());
    let tenant = Tenant { id, name, currency, time_zone, refund_grace_days, created_at: input.now, program: None };
    // A retry cannot know the id of the first time, so the record of the key stands under no tenant.
    let command = Command::CreateTenant(tenant);
    let envelope = envelope(TenantId(Uuid::nil()), command, input.idempotency, input.now);
    answer::run(&app, envelope, StatusCode::CREATED).await
}

/// List the tenants
#[utoipa::path(get, path = "/v1/tenants", tag = "Tenants", security(("key" = ["PLATFORM"])), params(PageQuery),
    responses((status = 200, description = "A page", body = TenantPage), Problems))]
pub async fn list_tenants(State(app): State<AppState>, _: Platform, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let page = parameters.page();
    parameters.finish()?;
    let mut found = app.store.list_tenants(page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut found, page.limit, |tenant| tenant.id.write());
    answer::ok(&Page { data: found.iter().map(TenantView::from).collect(), next_cursor })
}

/// Read a tenant
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}", tag = "Tenants", security(("key" = ["PLATFORM"])),
    params(("tenant_id" = schema::TenantId, Path)),
    responses((status = 200, description = "The tenant", body = TenantView<'static>), Problems))]
pub async fn get_tenant(
    State(app): State<AppState>,
    _: Platform,
    InPath(tenant_id): InPath<TenantId>,
) -> Result<Response, Problem> {
    let tenant = app.store.find_tenant(tenant_id).await?.ok_or(Problem::new(Code::TenantNotFound))?;
    answer::ok(&TenantView::from(&tenant))
}

/// Create an API key of a tenant
///
/// The secret is shown in this answer only. A replayed answer has null in its place.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/api-keys", tag = "Tenants", security(("key" = ["PLATFORM"])),
    params(("tenant_id" = schema::TenantId, Path), IdempotencyKey), request_body = ApiKeyRequest,
    responses((status = 201, description = "Created", body = NewApiKeyView<'static>), Problems))]
pub async fn create_api_key(
    State(app): State<AppState>,
    _: Platform,
    InPath(tenant_id): InPath<TenantId>,
    input: Input<ApiKeyRequest>,
) -> Result<Response, Problem> {
    let NewKey { name, scope, member_id, expires_at, adjustment_limit } = input.value;
    let (secret, secret_digest) = new_secret();
    let id = KeyId(Ids::new(clock::seed(input.now)).draw());
    let created_at = input.now;
    let revoked_at = None;
    let key = ApiKey { id, tenant_id, name, scope, member_id, expires_at, revoked_at, created_at, adjustment_limit };
    let command = Command::CreateApiKey { key, secret_digest };
    match app.engine.submit(envelope(tenant_id, command, input.idempotency, input.now)).await? {
        Answer::Refused(rejection) => Err(rejection.into()),
        Answer::Accepted { outcome: Outcome::ApiKey(key), replayed } => {
            let view = NewApiKeyView { key: ApiKeyView::from(&*key), secret: (!replayed).then_some(secret) };
            let mut response = answer::json(StatusCode::CREATED, &view)?;
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            answer::mark_replayed(&mut response, replayed);
            Ok(response)
        }
        Answer::Accepted { .. } => Err(Problem::internal("a new key has another outcome")),
    }
}

/// List the API keys of a tenant
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/api-keys", tag = "Tenants", security(("key" = ["PLATFORM"])),
    params(("tenant_id" = schema::TenantId, Path), PageQuery),
    responses((status = 200, description = "A page", body = ApiKeyPage), Problems))]
pub async fn list_api_keys(
    State(app): State<AppState>,
    _: Platform,
    InPath(tenant_id): InPath<TenantId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let page = parameters.page();
    parameters.finish()?;
    let mut found = app.store.list_keys(tenant_id, page.cursor, page.limit + 1).await?;
    if found.is_empty() && app.store.find_tenant(tenant_id).await?.is_none() {
        return Err(Problem::new(Code::TenantNotFound));
    }
    let next_cursor = super::cut(&mut found, page.limit, |key| key.id.write());
    answer::ok(&Page { data: found.iter().map(ApiKeyView::from).collect(), next_cursor })
}

/// Revoke an API key
///
/// At once on the server that is asked, within five seconds on the others.
#[utoipa::path(delete, path = "/v1/tenants/{tenant_id}/api-keys/{key_id}", tag = "Tenants",
    security(("key" = ["PLATFORM"])),
    params(("tenant_id" = schema::TenantId, Path), ("key_id" = schema::KeyId, Path)),
    responses((status = 204, description = "Revoked"), Problems))]
pub async fn revoke_api_key(
    State(app): State<AppState>,
    _: Platform,
    InPath(tenant_id): InPath<TenantId>,
    InPath(key_id): InPath<KeyId>,
) -> Result<Response, Problem> {
    let envelope = envelope(tenant_id, Command::RevokeApiKey(key_id), None, clock::now());
    let response = answer::run(&app, envelope, StatusCode::NO_CONTENT).await?;
    app.keys.forget(key_id);
    Ok(response)
}
