//! Webhooks: where a tenant wants its events sent, how that goes, and what to do when it does not.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use base64::Engine as _;
use scrip_domain::event::EventKind;
use scrip_domain::webhook::{DisabledReason, LogPosition, NewWebhook, Webhook, WebhookChange};
use scrip_domain::{Answer, Command, EventId, Idempotency, Outcome, TenantId, Timestamp, WebhookId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::AppState;
use super::answer;
use super::auth::{Caller, Operator};
use super::events::{START, event_json};
use super::extract::{Checked, Cursor, InPath, Input, NoOptions, Parameters};
use super::fields::FieldErrors;
use super::problem::{Code, Problem};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::time::Time;
use super::views::Page;
use crate::clock;
use crate::relay::webhooks::delivery;
use crate::store::read::EventPosition;
use crate::store::{Delivery, WebhookStanding};

/// Webhooks of one tenant, at most.
const MAX_WEBHOOKS: i64 = 50;
/// Bytes of a secret; the standard asks for 24 to 64.
const SECRET_BYTES: usize = 32;
/// How long the old secret may go on, in seconds.
const LONGEST_OVERLAP: i64 = 7 * 86_400;
const DEFAULT_OVERLAP: i64 = 86_400;
const MAX_DESCRIPTION: usize = 500;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// Where to send events: https, to a public address.
    #[schema(value_type = String, max_length = 2048, example = "https://shop.example/scrip")]
    url: Option<String>,
    /// Which events; an empty list means all.
    #[schema(value_type = Option<Vec<schema::EventType>>)]
    types: Option<Vec<String>>,
    #[schema(max_length = 500)]
    description: Option<String>,
    /// A position or cursor of /v1/events: send what comes after it. Default: only what happens from now on.
    #[schema(example = "812-0")]
    after: Option<String>,
}

pub struct CheckedWebhook {
    url: String,
    types: Vec<String>,
    description: String,
    after: Option<EventPosition>,
}

impl Checked for WebhookRequest {
    type Value = CheckedWebhook;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<CheckedWebhook> {
        let url = errors.required("url", self.url);
        let types = self.types.unwrap_or_default();
        check_types(errors, &types);
        let description = self.description.unwrap_or_default();
        errors.text("description", &description, 0..=MAX_DESCRIPTION);
        let after = position(errors, "after", self.after.as_deref());
        Some(CheckedWebhook { url: url?, types, description, after })
    }
}

fn check_types(errors: &mut FieldErrors, types: &[String]) {
    for (index, name) in types.iter().enumerate() {
        if EventKind::parse(name).is_none() {
            let remedy = "Send types as GET /v1/events shows them, like coupon.claimed.";
            errors.add(format!("types[{index}]"), format!("is no event type: {name:?}"), remedy);
        }
    }
    if types.len() > EventKind::ALL.len() {
        errors.add("types", "names types more than once", "Name each once, or send an empty list for all.");
    }
}

fn position(errors: &mut FieldErrors, field: &'static str, text: Option<&str>) -> Option<EventPosition> {
    let read = text.map(EventPosition::read)?;
    if read.is_none() {
        errors.add(field, "is no position", "Send a position of an event, or a next_cursor, of /v1/events.");
    }
    read
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookPatch {
    #[schema(max_length = 2048)]
    url: Option<String>,
    #[schema(value_type = Option<Vec<schema::EventType>>)]
    types: Option<Vec<String>>,
    #[schema(max_length = 500)]
    description: Option<String>,
}

impl Checked for WebhookPatch {
    type Value = WebhookPatch;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<WebhookPatch> {
        check_types(errors, self.types.as_deref().unwrap_or_default());
        errors.optional_text("description", self.description.as_deref(), 0..=MAX_DESCRIPTION);
        Some(self)
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotationRequest {
    /// How long the secret so far goes on signing as well. Default: a day; 0 ends it at once.
    #[schema(minimum = 0, maximum = 604_800)]
    overlap_seconds: Option<i64>,
}

impl Checked for RotationRequest {
    type Value = i64;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<i64> {
        errors.within("overlap_seconds", self.overlap_seconds.unwrap_or(DEFAULT_OVERLAP), 0..=LONGEST_OVERLAP)
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// A position or cursor of /v1/events: send again what comes after it. Null: everything.
    #[schema(required, example = "812-0")]
    after: Option<String>,
}

impl Checked for ReplayRequest {
    type Value = EventPosition;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<EventPosition> {
        match self.after {
            Some(text) => position(errors, "after", Some(&text)),
            None => Some(START),
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResendRequest {
    /// The position of the event.
    #[schema(value_type = String, example = "812-0")]
    position: Option<String>,
}

impl Checked for ResendRequest {
    type Value = EventPosition;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<EventPosition> {
        let text = errors.required("position", self.position)?;
        position(errors, "position", Some(&text))
    }
}

/// A receiver of events.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct WebhookView<'a> {
    #[schema(value_type = schema::WebhookId)]
    id: WebhookId,
    #[schema(value_type = String)]
    url: &'a str,
    /// Empty: all.
    #[schema(value_type = Vec<schema::EventType>)]
    types: &'a [String],
    #[schema(value_type = String)]
    description: &'a str,
    enabled: bool,
    #[schema(required, value_type = Option<schema::DisabledReason>)]
    disabled_reason: Option<&'static str>,
    /// Until when the secret before the present one signs as well.
    #[schema(required)]
    previous_secret_until: Option<Time>,
    created_at: Time,
    updated_at: Time,
}

impl<'a> From<&'a Webhook> for WebhookView<'a> {
    fn from(row: &'a Webhook) -> Self {
        WebhookView {
            id: row.id,
            url: &row.url,
            types: &row.types,
            description: &row.description,
            enabled: row.disabled.is_none(),
            disabled_reason: row.disabled.map(DisabledReason::as_str),
            previous_secret_until: row.secrets.previous.as_ref().map(|(_, until)| Time(*until)),
            created_at: Time(row.created_at),
            updated_at: Time(row.updated_at),
        }
    }
}

/// A webhook and how its deliveries stand.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookStanding)]
pub struct StandingView<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    webhook: WebhookView<'a>,
    /// Events up to here were delivered, or are parked.
    #[schema(value_type = String, example = "812-0")]
    position: String,
    /// When the first event beyond it was recorded; null when there is none.
    #[schema(required)]
    waiting_since: Option<Time>,
    /// Events that were refused, and those of the same member or object behind them.
    parked_events: i64,
    /// When the next of them is tried again.
    #[schema(required)]
    next_attempt_at: Option<Time>,
}

impl<'a> StandingView<'a> {
    fn new(webhook: &'a Webhook, standing: &WebhookStanding) -> Self {
        StandingView {
            webhook: webhook.into(),
            position: standing.position.write(),
            waiting_since: standing.waiting_since.map(Time),
            parked_events: standing.parked_events,
            next_attempt_at: standing.next_attempt_at.map(Time),
        }
    }
}

/// A webhook with a new secret.
#[derive(Serialize, ToSchema)]
#[schema(as = NewWebhook)]
pub struct NewWebhookView<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    webhook: WebhookView<'a>,
    /// Shown this once: what the signatures are made with. Null in a replayed answer.
    #[schema(required, example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    secret: Option<String>,
}

/// One request and its answer.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
pub struct DeliveryView<'a> {
    #[schema(value_type = String)]
    id: String,
    /// EVENT: as it happened; RESEND and TEST: on request.
    #[schema(value_type = schema::DeliveryKind)]
    kind: &'static str,
    #[schema(value_type = String)]
    event_id: EventId,
    #[schema(value_type = String, example = "coupon.claimed")]
    event_type: &'a str,
    /// Where the event stands in the log; null for a test.
    #[schema(required, example = "812-0")]
    position: Option<String>,
    /// Counts from 1.
    attempt: i64,
    succeeded: bool,
    /// The answer's status; null when there was no answer.
    #[schema(required)]
    status: Option<i64>,
    /// Why it did not succeed.
    #[schema(required, value_type = Option<String>)]
    error: Option<&'a str>,
    /// The beginning of the answer's body.
    #[schema(value_type = String)]
    response: &'a str,
    latency_ms: i64,
    created_at: Time,
}

impl<'a> From<&'a Delivery> for DeliveryView<'a> {
    fn from(row: &'a Delivery) -> Self {
        DeliveryView {
            id: DeliveryId(row.id).write(),
            kind: row.kind,
            event_id: EventId(row.event_id),
            event_type: &row.event_type,
            position: row.position.map(|position| position.write()),
            attempt: row.attempt,
            succeeded: row.succeeded,
            status: row.status,
            error: row.error.as_deref(),
            response: &row.response,
            latency_ms: row.latency_us / 1_000,
            created_at: Time(row.created_at),
        }
    }
}

/// A delivery's place in the list, and its id.
struct DeliveryId(Uuid);

impl Cursor for DeliveryId {
    fn write(&self) -> String {
        format!("dlv_{}", self.0.simple())
    }

    fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("dlv_").filter(|digits| digits.len() == 32)?;
        Uuid::try_parse(digits).ok().map(DeliveryId)
    }
}

fn new_secret() -> String {
    let bytes: [u8; SECRET_BYTES] = rand::random();
    format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn check_url(app: &AppState, url: &str) -> Result<(), Problem> {
    let remedy = "Send an https URL of a public server, without credentials.";
    app.sender.check(url).map_err(|refused| Problem::field("url", refused.to_string(), remedy))
}

async fn find(app: &AppState, tenant: TenantId, id: WebhookId) -> Result<Webhook, Problem> {
    app.store.find_webhook(tenant, id).await?.ok_or(Problem::new(Code::WebhookNotFound))
}

async fn change(
    app: &AppState,
    caller: &Caller,
    webhook_id: WebhookId,
    change: WebhookChange,
    idempotency: Option<Idempotency>,
    now: Timestamp,
) -> Result<(Webhook, bool), Problem> {
    let command = Command::ChangeWebhook { webhook_id, change: Box::new(change) };
    submit(app, caller, command, idempotency, now).await
}

async fn submit(
    app: &AppState,
    caller: &Caller,
    command: Command,
    idempotency: Option<Idempotency>,
    now: Timestamp,
) -> Result<(Webhook, bool), Problem> {
    match app.engine.submit(caller.envelope(command, None, idempotency, now)?).await? {
        Answer::Refused(rejection) => Err(rejection.into()),
        Answer::Accepted { outcome: Outcome::Webhook(webhook), replayed } => Ok((*webhook, replayed)),
        Answer::Accepted { .. } => Err(Problem::internal("a webhook has another outcome")),
    }
}

/// An answer that shows a secret: no cache may keep it.
fn with_secret(status: StatusCode, webhook: &Webhook, secret: String, replayed: bool) -> Result<Response, Problem> {
    let view = NewWebhookView { webhook: webhook.into(), secret: (!replayed).then_some(secret) };
    let mut response = answer::json(status, &view)?;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer::mark_replayed(&mut response, replayed);
    Ok(response)
}

fn shown(webhook: &Webhook, replayed: bool) -> Result<Response, Problem> {
    let mut response = answer::ok(&WebhookView::from(webhook))?;
    answer::mark_replayed(&mut response, replayed);
    Ok(response)
}

/// Create a webhook
///
/// The secret is shown in this answer only. A replayed answer has null in its place.
#[utoipa::path(post, path = "/v1/webhooks", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(IdempotencyKey), request_body = WebhookRequest,
    responses((status = 201, description = "Created", body = NewWebhookView<'static>), Problems))]
pub async fn create_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    input: Input<WebhookRequest>,
) -> Result<Response, Problem> {
    let CheckedWebhook { url, types, description, after } = input.value;
    check_url(&app, &url)?;
    let tenant = caller.tenant();
    if app.store.list_webhooks(tenant, None, MAX_WEBHOOKS).await?.len() as i64 >= MAX_WEBHOOKS {
        return Err(Problem::new(Code::WebhookLimit).with("limit", MAX_WEBHOOKS));
    }
    let after = match after {
        Some(after) => after,
        None => app.store.last_position(tenant).await?.unwrap_or(START),
    };
    let starts_after = LogPosition { tx: after.tx, ordinal: after.ordinal };
    let secret = new_secret();
    let new = NewWebhook { url, types, description, secret: secret.clone(), starts_after };
    let command = Command::CreateWebhook(Box::new(new));
    let (webhook, replayed) = submit(&app, &caller, command, input.idempotency, input.now).await?;
    with_secret(StatusCode::CREATED, &webhook, secret, replayed)
}

/// List the webhooks
#[utoipa::path(get, path = "/v1/webhooks", tag = "Webhooks", security(("key" = ["OPERATOR"])), params(PageQuery),
    responses((status = 200, description = "A page", body = super::views::WebhookPage), Problems))]
pub async fn list_webhooks(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let page = parameters.page();
    parameters.finish()?;
    let mut found = app.store.list_webhooks(caller.tenant(), page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut found, page.limit, |webhook| webhook.id.write());
    answer::ok(&Page { data: found.iter().map(WebhookView::from).collect(), next_cursor })
}

/// Read a webhook and how its deliveries stand
#[utoipa::path(get, path = "/v1/webhooks/{webhook_id}", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path)),
    responses((status = 200, description = "The webhook", body = StandingView<'static>), Problems))]
pub async fn get_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
) -> Result<Response, Problem> {
    standing(&app, caller.tenant(), id).await
}

async fn standing(app: &AppState, tenant: TenantId, id: WebhookId) -> Result<Response, Problem> {
    let webhook = find(app, tenant, id).await?;
    let standing = app.store.webhook_standing(tenant, id).await?.ok_or(Problem::new(Code::WebhookNotFound))?;
    answer::ok(&StandingView::new(&webhook, &standing))
}

/// Change a webhook
///
/// Fields that are missing stay as they are. Takes effect with the next round of deliveries.
#[utoipa::path(patch, path = "/v1/webhooks/{webhook_id}", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path), IdempotencyKey), request_body = WebhookPatch,
    responses((status = 200, description = "Changed", body = WebhookView<'static>), Problems))]
pub async fn update_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
    input: Input<WebhookPatch>,
) -> Result<Response, Problem> {
    let WebhookPatch { url, types, description } = input.value;
    if let Some(url) = &url {
        check_url(&app, url)?;
    }
    let edit = WebhookChange::Edit { url, types, description };
    let (webhook, replayed) = change(&app, &caller, id, edit, input.idempotency, input.now).await?;
    shown(&webhook, replayed)
}

/// Delete a webhook
///
/// With its log of deliveries.
#[utoipa::path(delete, path = "/v1/webhooks/{webhook_id}", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path)),
    responses((status = 204, description = "Deleted"), Problems))]
pub async fn delete_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
) -> Result<Response, Problem> {
    const PAGE: i64 = 2_000;
    let (tenant, now) = (caller.tenant(), clock::now());
    find(&app, tenant, id).await?;
    // Before the webhook itself, so that its transaction is short.
    while app.store.purge_deliveries(tenant, id, Timestamp::MAX, PAGE).await? == PAGE as u64 {}
    let change = Box::new(WebhookChange::Delete);
    let command = Command::ChangeWebhook { webhook_id: id, change };
    answer::run(&app, caller.envelope(command, None, None, now)?, StatusCode::NO_CONTENT).await
}

/// Enable a webhook
///
/// It goes on where it stopped; what was refused is tried again at once, with all attempts before it.
#[utoipa::path(post, path = "/v1/webhooks/{webhook_id}/enable", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Enabled", body = WebhookView<'static>), Problems))]
pub async fn enable_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let (tenant, now) = (caller.tenant(), input.now);
    if find(&app, tenant, id).await?.disabled.is_some() {
        // While it is disabled nobody else writes these.
        app.store.retry_parked(tenant, id, now).await?;
    }
    let (webhook, replayed) = change(&app, &caller, id, WebhookChange::Enable, input.idempotency, now).await?;
    shown(&webhook, replayed)
}

/// Disable a webhook
///
/// Nothing is lost: enabled again, it goes on where it stopped.
#[utoipa::path(post, path = "/v1/webhooks/{webhook_id}/disable", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Disabled", body = WebhookView<'static>), Problems))]
pub async fn disable_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let disable = WebhookChange::Disable(DisabledReason::Operator);
    let (webhook, replayed) = change(&app, &caller, id, disable, input.idempotency, input.now).await?;
    shown(&webhook, replayed)
}

/// Give a webhook a new secret
///
/// The one so far signs as well until the overlap ends, so that a receiver can change over without a gap.
#[utoipa::path(post, path = "/v1/webhooks/{webhook_id}/rotate", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path), IdempotencyKey), request_body = Option<RotationRequest>,
    responses((status = 200, description = "The new secret", body = NewWebhookView<'static>), Problems))]
pub async fn rotate_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
    input: Input<RotationRequest>,
) -> Result<Response, Problem> {
    let overlap_us = input.value * 1_000_000;
    let previous_until = (overlap_us > 0).then(|| Timestamp(input.now.0 + overlap_us));
    let secret = new_secret();
    let rotate = WebhookChange::Rotate { secret: secret.clone(), previous_until };
    let (webhook, replayed) = change(&app, &caller, id, rotate, input.idempotency, input.now).await?;
    with_secret(StatusCode::OK, &webhook, secret, replayed)
}

/// Send events again from a position on
///
/// What was parked is forgotten: it comes again, or, when it lies before the position, is given up.
#[utoipa::path(post, path = "/v1/webhooks/{webhook_id}/replay", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path)), request_body = ReplayRequest,
    responses((status = 200, description = "How it stands now", body = StandingView<'static>), Problems))]
pub async fn replay_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
    input: Input<ReplayRequest>,
) -> Result<Response, Problem> {
    const TRIES: usize = 5;
    let tenant = caller.tenant();
    let webhook = find(&app, tenant, id).await?;
    for _ in 0..TRIES {
        if app.store.rewind_webhook(tenant, &webhook, input.value).await? {
            return standing(&app, tenant, id).await;
        }
    }
    Err(Problem::new(Code::Busy))
}

/// Send one event again
///
/// At once and once, whether or not the webhook is enabled; the answer tells what came back.
#[utoipa::path(post, path = "/v1/webhooks/{webhook_id}/resend", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path)), request_body = ResendRequest,
    responses((status = 200, description = "What came back", body = DeliveryView<'static>), Problems))]
pub async fn resend_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
    input: Input<ResendRequest>,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let webhook = find(&app, tenant, id).await?;
    let position = input.value;
    let event = app.store.find_event(tenant, position).await?;
    let event = event
        .ok_or_else(|| Problem::field("position", "is no event's", "Send a position as GET /v1/events shows it."))?;
    let body = event_json(position, &event).map_err(Problem::internal)?;
    send(&app, tenant, &webhook, "RESEND", event.id, event.kind.as_str(), Some(position), body).await
}

/// Send a test event
///
/// Of the type webhook.test, which is in no log. At once and once; the answer tells what came back.
#[utoipa::path(post, path = "/v1/webhooks/{webhook_id}/test", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path)), request_body = Option<NoOptions>,
    responses((status = 200, description = "What came back", body = DeliveryView<'static>), Problems))]
pub async fn test_webhook(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let webhook = find(&app, tenant, id).await?;
    let event_id = EventId(scrip_domain::Ids::new(clock::seed(input.now)).draw());
    let body = json!({
        "id": event_id, "position": null, "type": "webhook.test", "subject_id": id, "member_id": null, "data": {},
        "actor": caller.id(), "occurred_at": Time(input.now), "recorded_at": Time(input.now),
    });
    send(&app, tenant, &webhook, "TEST", event_id, "webhook.test", None, body.to_string()).await
}

#[expect(clippy::too_many_arguments, reason = "what is sent has that many parts")]
async fn send(
    app: &AppState,
    tenant: TenantId,
    webhook: &Webhook,
    kind: &'static str,
    event_id: EventId,
    event_type: &str,
    position: Option<EventPosition>,
    body: String,
) -> Result<Response, Problem> {
    let now = clock::now();
    let attempt = app.sender.send(webhook, &event_id.to_string(), body, now).await;
    let row = delivery(kind, event_id.0, event_type, position, 1, &attempt, now);
    app.store.log_delivery(tenant, webhook.id, &row).await?;
    answer::ok(&DeliveryView::from(&row))
}

/// List what was sent to a webhook
///
/// Newest first, for as long as `webhooks.delivery_days` says.
#[utoipa::path(get, path = "/v1/webhooks/{webhook_id}/deliveries", tag = "Webhooks", security(("key" = ["OPERATOR"])),
    params(("webhook_id" = schema::WebhookId, Path), ("succeeded" = Option<bool>, Query), PageQuery),
    responses((status = 200, description = "A page", body = super::views::WebhookDeliveryPage), Problems))]
pub async fn list_webhook_deliveries(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<WebhookId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let succeeded = parameters.take("succeeded", "true or false", |text| text.parse().ok());
    let page = parameters.page::<DeliveryId>();
    parameters.finish()?;
    let tenant = caller.tenant();
    find(&app, tenant, id).await?;
    let before = page.cursor.map(|cursor| cursor.0);
    let mut found = app.store.list_deliveries(tenant, id, succeeded, before, page.limit + 1).await?;
    let next_cursor = super::cut(&mut found, page.limit, |row| DeliveryId(row.id).write());
    answer::ok(&Page { data: found.iter().map(DeliveryView::from).collect(), next_cursor })
}
