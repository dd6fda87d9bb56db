//! Coupon codes: made, imported, switched and written out by operators; claimed with by members.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use scrip_domain::coupon::{
    Code as CouponCode, CodeAtHand, CodeBatch, CodeDigest, CodeKind, CodeStatus, MAX_CODES, NewCodeBatch,
};
use scrip_domain::{Answer, CodeBatchId, Command, MemberId, Outcome, Rejection, TemplateId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;
use uuid::Uuid;

use super::AppState;
use super::answer;
use super::auth::{AnyKey, Caller, Operator};
use super::coupons::ClaimRequest;
use super::extract::{Checked, Cursor, InPath, Input, NoOptions, Parameters, PathParameter, content_type, read_body};
use super::fields::FieldErrors;
use super::problem::{Code, Problem};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::time::Time;
use super::views::{CodeBatchPage, CodeBatchView, CouponView, Page};
use crate::clock;
use crate::codes::text::{self, BadPattern, Pattern};
use crate::codes::{self, Writer, envelope, key::CodeKeys};

const MAX_USES: i64 = 1_000_000_000_000;
pub const CSV: &str = "text/csv";
/// Codes written out between two chances for other requests.
const EXPORT_PAGE: i64 = 10_000;
/// Pages that wait for a slow client, at most.
const PAGES_AHEAD: usize = 2;
/// Codes of a batch of commands looked up at a time.
const CODES_AT_A_TIME: usize = 1_000;
/// Bad lines that a report lists; those beyond are counted.
const LISTED: usize = 100;

/// A code as somebody has typed it.
pub struct CodeText(String);

impl std::str::FromStr for CodeText {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(CodeText(text.to_owned()))
    }
}

impl PathParameter for CodeText {
    const NAME: &'static str = "code";

    fn unreadable() -> Problem {
        Problem::new(Code::CouponCodeNotAccepted)
    }
}

/// The codes to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodesRequest {
    /// UNIQUE (the default): `count` codes, each for one claim. SHARED: one `code` for many members.
    #[schema(value_type = Option<NewCodeKind>)]
    kind: Option<NewCodeKind>,
    /// For people. Default: empty.
    #[schema(max_length = 100)]
    name: Option<String>,
    /// UNIQUE: how many.
    #[schema(minimum = 1, maximum = 10_000_000)]
    count: Option<i64>,
    /// UNIQUE: how they look, `#` for each random character, as in `VIP-####-####-######`; in place of `prefix` and `length`.
    #[schema(max_length = 64)]
    pattern: Option<String>,
    /// UNIQUE: what every code begins with.
    #[schema(max_length = 20)]
    prefix: Option<String>,
    /// UNIQUE: random characters, without the check character. Default: 14.
    #[schema(minimum = 1, maximum = 24)]
    length: Option<i64>,
    /// UNIQUE: what they are drawn from. Default: digits and capitals without 0, O, 1, I and L.
    #[schema(max_length = 36)]
    alphabet: Option<String>,
    /// UNIQUE: whether the last character is Luhn's sum over the random ones. Default: false.
    check_character: Option<bool>,
    /// SHARED: the text.
    #[schema(min_length = 3, max_length = 64)]
    code: Option<String>,
    /// SHARED: how many coupons can be claimed with it. Null or missing is any number.
    #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
    max_uses: Option<i64>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum NewCodeKind {
    Unique,
    Shared,
}

/// What to make, checked.
pub struct Wanted {
    name: String,
    what: What,
    effective_at: Option<Timestamp>,
}

enum What {
    Unique { count: i64, pattern: Pattern, check_character: bool },
    Shared { code: String, normal: String, max_uses: Option<i64> },
}

impl Checked for CodesRequest {
    type Value = Wanted;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Wanted> {
        let effective_at = errors.effective_at(self.effective_at, now);
        let name = self.name.clone().unwrap_or_default();
        errors.text("name", &name, 0..=100);
        let kind = self.kind.unwrap_or(NewCodeKind::Unique);
        let foreign = match kind {
            NewCodeKind::Unique => vec![("code", self.code.is_some()), ("max_uses", self.max_uses.is_some())],
            NewCodeKind::Shared => vec![
                ("count", self.count.is_some()),
                ("pattern", self.pattern.is_some()),
                ("prefix", self.prefix.is_some()),
                ("length", self.length.is_some()),
                ("alphabet", self.alphabet.is_some()),
                ("check_character", self.check_character.is_some()),
            ],
        };
        for (field, _) in foreign.iter().filter(|(_, given)| *given) {
            errors.add(*field, "does not belong to this kind", "Leave it out.");
        }
        let what = match kind {
            NewCodeKind::Unique => self.unique(errors)?,
            NewCodeKind::Shared => self.shared(errors)?,
        };
        Some(Wanted { name, what, effective_at })
    }
}

impl CodesRequest {
    fn unique(self, errors: &mut FieldErrors) -> Option<What> {
        let count = errors.integer("count", self.count, 1..=MAX_CODES);
        let check_character = self.check_character.unwrap_or(false);
        let alphabet = self.alphabet.as_deref().unwrap_or(text::DEFAULT_ALPHABET);
        let pattern = match &self.pattern {
            Some(pattern) => {
                for (field, given) in [("prefix", self.prefix.is_some()), ("length", self.length.is_some())] {
                    if given {
                        errors.add(field, "does not go with a pattern", "Leave it out, or leave the pattern out.");
                    }
                }
                pattern.clone()
            }
            None => {
                let length = self.length.unwrap_or(text::DEFAULT_LENGTH as i64);
                let length = errors.within("length", length, 1..=text::MAX_LENGTH as i64);
                let prefix = self.prefix.unwrap_or_default();
                errors.text("prefix", &prefix, 0..=20);
                Pattern::of_length(prefix.trim_end_matches('-'), length?.unsigned_abs() as usize, check_character)
            }
        };
        let field = if self.pattern.is_some() { "pattern" } else { "prefix" };
        let pattern = match Pattern::new(&pattern, alphabet, check_character) {
            Ok(pattern) => pattern,
            Err(bad @ BadPattern::Alphabet(_)) => {
                errors.add("alphabet", bad.to_string(), "Send 2 to 36 letters and digits that no one mistakes.");
                return None;
            }
            Err(bad @ BadPattern::Text(_)) => {
                errors.add(
                    field,
                    bad.to_string(),
                    "Send # for random characters; letters, digits and - stand for themselves.",
                );
                return None;
            }
        };
        let count = count?;
        let least = text::least_length(count, pattern.base());
        if pattern.length() < least {
            let field = if self.pattern.is_some() { "pattern" } else { "length" };
            let (bits, needed) = (pattern.bits().floor(), text::least_bits(count).ceil());
            errors.add(
                field,
                format!("leaves codes that can be guessed: {bits} random bits, where {count} codes need {needed}"),
                format!(
                    "Use {least} random characters or more of this alphabet of {}{}.",
                    pattern.base(),
                    if check_character { ", the check character not counted" } else { "" }
                ),
            );
            return None;
        }
        Some(What::Unique { count, pattern, check_character })
    }

    fn shared(self, errors: &mut FieldErrors) -> Option<What> {
        let code = errors.required("code", self.code)?;
        if let Some(uses) = self.max_uses {
            errors.within("max_uses", uses, 1..=MAX_USES);
        }
        errors.text("code", &code, 3..=text::MAX_CHARACTERS);
        match text::normalise(&code).filter(|normal| normal.len() >= 3) {
            Some(normal) => Some(What::Shared { code: code.trim().to_owned(), normal, max_uses: self.max_uses }),
            None => {
                let remedy = "Send 3 to 64 letters and digits; spaces, -, _ and . among them do not count.";
                errors.add("code", "is no code", remedy);
                None
            }
        }
    }
}

/// The keys of codes, or the problem that they are not there.
async fn keys_of(app: &AppState) -> Result<std::sync::Arc<CodeKeys>, Problem> {
    app.codes.keys(&app.store).await.map_err(|error| {
        tracing::error!(error = format!("{error:#}"), "coupon codes cannot be used");
        Problem::new(Code::CodesUnavailable)
    })
}

/// Make coupon codes
///
/// Unique codes are made in the background: the batch tells how far it is. A length that leaves codes to be guessed is
/// refused. Kept is a keyed hash of each code; the one export shows their texts.
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/codes", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("template_id" = schema::TemplateId, Path), IdempotencyKey), request_body = CodesRequest,
    responses((status = 202, description = "Being made; a shared code is there", body = CodeBatchView<'static>), Problems))]
pub async fn create_codes(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    input: Input<CodesRequest>,
) -> Result<Response, Problem> {
    let Wanted { name, what, effective_at } = input.value;
    let keys = keys_of(&app).await?;
    let key = keys.newest();
    let new = match what {
        What::Unique { count, pattern, check_character } => NewCodeBatch {
            template_id,
            kind: CodeKind::Unique,
            name,
            code_count: count,
            max_uses: Some(1),
            pattern: pattern.text().to_owned(),
            alphabet: pattern.alphabet().to_owned(),
            check_character,
            key_id: key.id,
            nonce: Some(clock::seed(input.now).random.to_be_bytes()),
            shared: None,
        },
        What::Shared { code, normal, max_uses } => {
            // Another key may have made the same code before.
            let digests = codes::digests(&keys, caller.tenant(), &code).unwrap_or_default();
            let is_known =
                app.store.find_code(caller.tenant(), digests.get(1..).unwrap_or_default(), None).await?.is_some();
            if is_known {
                return Err(Rejection::CodeTaken.into());
            }
            NewCodeBatch {
                template_id,
                kind: CodeKind::Shared,
                name,
                code_count: 1,
                max_uses,
                pattern: code,
                alphabet: String::new(),
                check_character: false,
                key_id: key.id,
                nonce: None,
                shared: Some(key.digest(caller.tenant(), &normal)),
            }
        }
    };
    let command = Command::CreateCodeBatch(Box::new(new));
    let envelope = caller.envelope(command, effective_at, input.idempotency, input.now)?;
    let response = answer::run(&app, envelope, StatusCode::ACCEPTED).await?;
    app.codes.wake();
    Ok(response)
}

/// List batches of codes, newest first
#[utoipa::path(get, path = "/v1/code-batches", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("template_id" = Option<schema::TemplateId>, Query), PageQuery),
    responses((status = 200, description = "A page", body = CodeBatchPage), Problems))]
pub async fn list_code_batches(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let template = parameters.take("template_id", "a template id", |text| text.parse().ok());
    let page = parameters.page();
    parameters.finish()?;
    let mut found = app.store.list_code_batches(caller.tenant(), template, page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut found, page.limit, |batch: &CodeBatch| batch.id.write());
    answer::ok(&Page { data: found.iter().map(CodeBatchView::from).collect(), next_cursor })
}

/// Read a batch of codes
#[utoipa::path(get, path = "/v1/code-batches/{batch_id}", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("batch_id" = schema::CodeBatchId, Path)),
    responses((status = 200, description = "The batch", body = CodeBatchView<'static>), Problems))]
pub async fn get_code_batch(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(batch_id): InPath<CodeBatchId>,
) -> Result<Response, Problem> {
    let batch = find_batch(&app, caller.tenant(), batch_id).await?;
    answer::ok(&CodeBatchView::from(&batch))
}

async fn find_batch(app: &AppState, tenant: TenantId, id: CodeBatchId) -> Result<CodeBatch, Problem> {
    app.store.find_code_batch(tenant, id).await?.ok_or(Problem::new(Code::BatchNotFound))
}

async fn switch_batch(
    app: AppState,
    caller: Caller,
    batch_id: CodeBatchId,
    input: Input<NoOptions>,
    status: CodeStatus,
) -> Result<Response, Problem> {
    let command = Command::ChangeCodeBatch { batch_id, status };
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Let a batch's codes be claimed with again
#[utoipa::path(post, path = "/v1/code-batches/{batch_id}/enable", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("batch_id" = schema::CodeBatchId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Enabled", body = CodeBatchView<'static>), Problems))]
pub async fn enable_code_batch(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(batch_id): InPath<CodeBatchId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    switch_batch(app, caller, batch_id, input, CodeStatus::Active).await
}

/// Stop the claims with a batch's codes
#[utoipa::path(post, path = "/v1/code-batches/{batch_id}/disable", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("batch_id" = schema::CodeBatchId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Disabled", body = CodeBatchView<'static>), Problems))]
pub async fn disable_code_batch(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(batch_id): InPath<CodeBatchId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    switch_batch(app, caller, batch_id, input, CodeStatus::Disabled).await
}

/// Revoke a batch of codes for good
#[utoipa::path(post, path = "/v1/code-batches/{batch_id}/revoke", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("batch_id" = schema::CodeBatchId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Revoked", body = CodeBatchView<'static>), Problems))]
pub async fn revoke_code_batch(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(batch_id): InPath<CodeBatchId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    switch_batch(app, caller, batch_id, input, CodeStatus::Revoked).await
}

/// Write a batch's codes out, once
///
/// A line for each code, behind the line `code`. An export that broke off may be repeated; the end of a whole one destroys what
/// the codes were made from, and nobody can read them again.
#[utoipa::path(post, path = "/v1/code-batches/{batch_id}/export", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("batch_id" = schema::CodeBatchId, Path)),
    responses((status = 200, description = "The codes", body = String, content_type = "text/csv"), Problems))]
pub async fn export_codes(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(batch_id): InPath<CodeBatchId>,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let batch = find_batch(&app, tenant, batch_id).await?;
    let refusal = match &batch {
        CodeBatch { kind: CodeKind::Shared | CodeKind::Imported, .. } => Some(Code::CodesNotMadeHere),
        CodeBatch { status: CodeStatus::Revoked, .. } => Some(Code::CouponCodeRevoked),
        CodeBatch { exported_at: Some(_), .. } => Some(Code::CodesExported),
        CodeBatch { completed_at: None, .. } => Some(Code::CodesNotReady),
        _ => None,
    };
    if let Some(code) = refusal {
        return Err(Problem::new(code).with("added", batch.added_count).with("count", batch.code_count));
    }
    let writer = Writer::of(&batch, &*keys_of(&app).await?).map_err(Problem::internal)?;
    let seal = caller.envelope(Command::SealCodeBatch(batch_id), None, None, clock::now())?;
    let (send, pages) = mpsc::channel(PAGES_AHEAD);
    tokio::spawn(async move {
        if let Err(error) = write_codes(&app, tenant, batch_id, &writer, &send).await {
            tracing::warn!(error = format!("{error:#}"), "an export of codes broke off");
            let _ = send.send(Err(std::io::Error::other("the export broke off"))).await;
            return;
        }
        // The client has taken every page: nothing waits in the channel any more.
        let Ok(_room) = send.reserve_many(PAGES_AHEAD).await else { return };
        match app.engine.submit(seal).await {
            Ok(Answer::Accepted { .. }) => {}
            other => tracing::warn!(?other, "exported codes could not be sealed"),
        }
    });
    Ok(csv_response(pages, &format!("codes-{batch_id}.csv")))
}

async fn write_codes(
    app: &AppState,
    tenant: TenantId,
    batch_id: CodeBatchId,
    writer: &Writer,
    send: &mpsc::Sender<Result<Bytes, std::io::Error>>,
) -> anyhow::Result<()> {
    let mut page = String::from("code\r\n");
    let mut after = -1;
    loop {
        let numbers = app.store.code_numbers(tenant, batch_id, after, EXPORT_PAGE).await?;
        for number in &numbers {
            writer.write(*number, &mut page);
            page.push_str("\r\n");
        }
        send.send(Ok(std::mem::take(&mut page).into())).await?;
        match numbers.last() {
            Some(last) if numbers.len() as i64 == EXPORT_PAGE => after = *last,
            _ => return Ok(()),
        }
    }
}

/// A body of pages as they come.
pub fn csv_response(pages: mpsc::Receiver<Result<Bytes, std::io::Error>>, name: &str) -> Response {
    let stream = futures_util::stream::unfold(pages, |mut pages| async move { Some((pages.recv().await?, pages)) });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

/// One code, as an operator sees it. Its text is the one that was asked with.
#[derive(Serialize, ToSchema)]
#[schema(as = CouponCode)]
pub struct CodeView {
    #[schema(value_type = schema::CodeBatchId)]
    batch_id: CodeBatchId,
    #[schema(value_type = schema::TemplateId)]
    template_id: TemplateId,
    #[schema(value_type = schema::CodeStatus)]
    status: CodeStatus,
    #[schema(value_type = schema::CodeStatus)]
    batch_status: CodeStatus,
    use_count: i64,
    #[schema(required)]
    max_uses: Option<i64>,
    /// Who alone may claim with it; null is anybody.
    #[schema(required, value_type = Option<String>)]
    member_id: Option<MemberId>,
    /// Whether a coupon can be claimed with it, as far as the code goes.
    accepted: bool,
}

/// As the store decides for a claim ([`Store::find_code`](crate::store::Store::find_code)).
fn is_accepted(code: &CouponCode, batch: &CodeBatch) -> bool {
    code.status == CodeStatus::Active && batch.status == CodeStatus::Active && !code.is_used_up()
}

async fn look_up(
    app: &AppState,
    tenant: TenantId,
    text: &CodeText,
    usable_by: Option<&MemberId>,
) -> Result<Option<(CouponCode, CodeBatch)>, Problem> {
    let keys = keys_of(app).await?;
    // What cannot be a code is looked up as well, under a digest that nothing has: it takes as long.
    let digests = codes::digests(&keys, tenant, &text.0).unwrap_or_else(|| keys.iter().map(|_| [0; 16]).collect());
    Ok(app.store.find_code(tenant, &digests, usable_by).await?)
}

/// The code that an operator names.
async fn find_code(app: &AppState, caller: &Caller, text: &CodeText) -> Result<(CouponCode, CodeBatch), Problem> {
    let found = look_up(app, caller.tenant(), text, None).await?;
    found.ok_or(Problem::new(Code::CouponCodeNotFound))
}

/// Look a code up
#[utoipa::path(get, path = "/v1/codes/{code}", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("code" = String, Path)),
    responses((status = 200, description = "The code", body = CodeView), Problems))]
pub async fn get_code(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(text): InPath<CodeText>,
) -> Result<Response, Problem> {
    let (code, batch) = find_code(&app, &caller, &text).await?;
    answer::ok(&CodeView {
        batch_id: batch.id,
        template_id: batch.template_id,
        status: code.status,
        batch_status: batch.status,
        use_count: code.use_count,
        max_uses: code.max_uses,
        accepted: is_accepted(&code, &batch),
        member_id: code.member_id,
    })
}

async fn switch_code(
    app: AppState,
    caller: Caller,
    text: CodeText,
    input: Input<NoOptions>,
    status: CodeStatus,
) -> Result<Response, Problem> {
    let (code, batch) = find_code(&app, &caller, &text).await?;
    let command = Command::ChangeCode { batch_id: batch.id, digest: code.digest, status };
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Let one code be claimed with again
#[utoipa::path(post, path = "/v1/codes/{code}/enable", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("code" = String, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Enabled; its batch", body = CodeBatchView<'static>), Problems))]
pub async fn enable_code(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(text): InPath<CodeText>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    switch_code(app, caller, text, input, CodeStatus::Active).await
}

/// Stop the claims with one code
#[utoipa::path(post, path = "/v1/codes/{code}/disable", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("code" = String, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Disabled; its batch", body = CodeBatchView<'static>), Problems))]
pub async fn disable_code(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(text): InPath<CodeText>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    switch_code(app, caller, text, input, CodeStatus::Disabled).await
}

/// Revoke one code for good
#[utoipa::path(post, path = "/v1/codes/{code}/revoke", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("code" = String, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Revoked; its batch", body = CodeBatchView<'static>), Problems))]
pub async fn revoke_code(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(text): InPath<CodeText>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    switch_code(app, caller, text, input, CodeStatus::Revoked).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CodeAssignment)]
pub struct AssignRequest {
    /// Who alone may claim with it.
    #[schema(value_type = String, required, min_length = 1, max_length = 64)]
    member_id: Option<MemberId>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for AssignRequest {
    type Value = (MemberId, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let member_id = errors.required("member_id", self.member_id);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((member_id?, effective_at))
    }
}

/// Let one member alone claim with a code
///
/// To everybody else it looks like a code that nobody made. One that was claimed with already cannot be assigned.
#[utoipa::path(post, path = "/v1/codes/{code}/assign", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("code" = String, Path), IdempotencyKey), request_body = AssignRequest,
    responses((status = 200, description = "Assigned; its batch", body = CodeBatchView<'static>), Problems))]
pub async fn assign_code(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(text): InPath<CodeText>,
    input: Input<AssignRequest>,
) -> Result<Response, Problem> {
    let (code, batch) = find_code(&app, &caller, &text).await?;
    let (member_id, effective_at) = input.value;
    let command = Command::AssignCode { batch_id: batch.id, digest: code.digest, member_id: Some(member_id) };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Let everybody claim with a code again
#[utoipa::path(post, path = "/v1/codes/{code}/unassign", tag = "Codes", security(("key" = ["OPERATOR"])),
    params(("code" = String, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Anybody's; its batch", body = CodeBatchView<'static>), Problems))]
pub async fn unassign_code(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(text): InPath<CodeText>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let (code, batch) = find_code(&app, &caller, &text).await?;
    let command = Command::AssignCode { batch_id: batch.id, digest: code.digest, member_id: None };
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Claim a coupon with a code
///
/// Case, spaces, dashes and look-alikes (O and 0; I, L and 1) do not count. A code that is unknown, used up, switched off or
/// revoked is refused by one answer, COUPON_CODE_NOT_ACCEPTED; after that come the checks of every claim. Who sends too many
/// codes that are not accepted is answered 429, whatever the code: a member 10 in ten minutes.
#[utoipa::path(post, path = "/v1/codes/{code}/claims", tag = "Codes", security(("key" = ["MEMBER"])),
    params(("code" = String, Path), IdempotencyKey), request_body = ClaimRequest,
    responses((status = 201, description = "Claimed", body = CouponView<'static>), Problems))]
pub async fn create_code_claim(
    State(app): State<AppState>,
    key: AnyKey,
    InPath(text): InPath<CodeText>,
    input: Input<ClaimRequest>,
) -> Result<Response, Problem> {
    let claim = input.value;
    let caller = key.on_behalf_of(&claim.member_id)?;
    let attempt = guess(&app, &caller, &claim.member_id)?;
    let tenant = caller.tenant();
    let good = look_up(&app, tenant, &text, Some(&claim.member_id)).await?;
    // A claim that was granted has used its code up; its retry must get the first answer. Asked whatever was found.
    let replay = match input.idempotency {
        Some(idempotency) if good.is_none() => app.store.find_outcome(tenant, idempotency.key).await?,
        _ => None,
    };
    if let (Some(record), Some(idempotency)) = (replay, input.idempotency) {
        attempt.give_back();
        if record.fingerprint != idempotency.fingerprint {
            return Err(Rejection::IdempotencyKeyReused.into());
        }
        let outcome: Outcome = serde_json::from_str(&record.outcome).map_err(Problem::internal)?;
        return answer::respond(&app, tenant, &outcome, StatusCode::CREATED, true).await;
    }
    let Some((code, batch)) = good else {
        app.metrics.code_claims.with_label_values(&["not_accepted"]).inc();
        return Err(Rejection::CodeNotAccepted.into());
    };
    let command = Command::ClaimCode {
        digest: code.digest,
        batch_id: batch.id,
        template_id: batch.template_id,
        member_id: claim.member_id,
        member_level: claim.member_level,
    };
    let envelope = caller.envelope(command, claim.effective_at, input.idempotency, input.now)?;
    let answered = answer::run(&app, envelope, StatusCode::CREATED).await;
    // Somebody else may have used it up in between, which is a miss like any other.
    if !matches!(&answered, Err(problem) if problem.code == Code::CouponCodeNotAccepted) {
        attempt.give_back();
        app.metrics.code_claims.with_label_values(&["accepted"]).inc();
    }
    answered
}

fn guess(app: &AppState, caller: &Caller, member: &MemberId) -> Result<codes::guard::Attempt, Problem> {
    app.codes.guard.take(caller.tenant(), caller.id(), member).map_err(|wait| stopped(app, wait))
}

fn stopped(app: &AppState, wait: Duration) -> Problem {
    app.metrics.code_claims.with_label_values(&["stopped"]).inc();
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(Code::GuessesExceeded).with("seconds", seconds)
}

/// A claim by code, of many.
pub struct AskedCode<'a> {
    pub text: &'a str,
    pub member_id: &'a MemberId,
    /// The digest of its idempotency key.
    pub key: Option<[u8; 16]>,
}

/// What codes stand for, or why their claims are refused, in their order: a few look-ups for many of them. Each claim takes from
/// the allowances against guessing, as a single one does, and gives back when its code is good.
pub async fn find_codes(
    app: &AppState,
    caller: &Caller,
    asked: &[AskedCode<'_>],
) -> Result<Vec<Result<CodeAtHand, Problem>>, Problem> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let Ok(keys) = keys_of(app).await else {
        return Ok(asked.iter().map(|_| Err(Problem::new(Code::CodesUnavailable))).collect());
    };
    let tenant = caller.tenant();
    let mut found: Vec<Result<CodeAtHand, Problem>> = Vec::with_capacity(asked.len());
    let mut waiting = Vec::new();
    for (place, one) in asked.iter().enumerate() {
        let mut attempt = app.codes.guard.take(tenant, caller.id(), one.member_id);
        // Good codes that wait for their look-up must not stop others.
        if waiting.len() == CODES_AT_A_TIME || (attempt.is_err() && !waiting.is_empty()) {
            look_up_all(app, tenant, asked, std::mem::take(&mut waiting), &mut found).await?;
            attempt = attempt.or_else(|_| app.codes.guard.take(tenant, caller.id(), one.member_id));
        }
        match attempt {
            Ok(attempt) => {
                let digests = codes::digests(&keys, tenant, one.text);
                waiting.push((place, attempt, digests.unwrap_or_else(|| keys.iter().map(|_| [0; 16]).collect())));
                found.push(Err(Rejection::CodeNotAccepted.into()));
            }
            Err(wait) => found.push(Err(stopped(app, wait))),
        }
    }
    look_up_all(app, tenant, asked, waiting, &mut found).await?;
    Ok(found)
}

type Waiting = Vec<(usize, codes::guard::Attempt, Vec<CodeDigest>)>;

async fn look_up_all(
    app: &AppState,
    tenant: TenantId,
    asked: &[AskedCode<'_>],
    waiting: Waiting,
    found: &mut [Result<CodeAtHand, Problem>],
) -> Result<(), Problem> {
    let digests: Vec<CodeDigest> = waiting.iter().flat_map(|(_, _, digests)| digests.iter().copied()).collect();
    let usable = app.store.find_usable_codes(tenant, &digests).await?;
    let keys: Vec<[u8; 16]> = waiting.iter().filter_map(|(place, ..)| asked[*place].key).collect();
    let answered = app.store.answered_keys(tenant, &keys).await?;
    for (place, attempt, digests) in waiting {
        let code = digests.iter().find_map(|digest| usable.get(digest));
        // Answered before, it is answered so again, whatever has become of the code: the engine has the record.
        let replay = asked[place].key.is_some_and(|key| answered.contains(&key));
        let result = match code {
            Some((code, holder)) if holder.as_ref().is_none_or(|holder| holder == asked[place].member_id) => *code,
            _ if replay => {
                CodeAtHand { digest: [0; 16], batch_id: CodeBatchId(Uuid::nil()), template_id: TemplateId(Uuid::nil()) }
            }
            _ => {
                app.metrics.code_claims.with_label_values(&["not_accepted"]).inc();
                continue;
            }
        };
        attempt.give_back();
        if code.is_some() {
            app.metrics.code_claims.with_label_values(&["accepted"]).inc();
        }
        found[place] = Ok(result);
    }
    Ok(())
}

/// A line of a file that was not taken over, and why.
#[derive(Debug, Serialize, ToSchema)]
pub struct BadLine {
    /// From 1, the line of names included.
    line: u64,
    message: String,
}

/// What became of a file of codes.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeImportReport)]
pub struct ImportReport<'a> {
    /// Null when nothing was taken over.
    #[schema(required, value_type = Option<CodeBatchView<'static>>)]
    batch: Option<CodeBatchView<'a>>,
    dry_run: bool,
    lines: u64,
    imported: u64,
    /// Those that stand in the file before already, by their normal form.
    duplicates: u64,
    /// Those that exist already in this tenant.
    existing: u64,
    bad: u64,
    /// The first 100 bad lines and duplicates.
    errors: Vec<BadLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeLine {
    code: String,
    #[serde(default)]
    max_uses: Option<i64>,
    #[serde(default)]
    member_id: Option<String>,
}

/// Import codes that exist already
///
/// A CSV file with the columns `code` and, optionally, `max_uses` (default: 1) and `member_id`, who alone may claim with it. Codes that exist are left out, so the same file
/// may be sent again. `dry_run=true` only reports.
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/codes/imports", tag = "Codes",
    security(("key" = ["OPERATOR"])),
    params(("template_id" = schema::TemplateId, Path), ("dry_run" = Option<bool>, Query), ("name" = Option<String>, Query)),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, description = "What became of it", body = ImportReport<'static>), Problems))]
pub async fn import_codes(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut parameters = Parameters::of(&parts.uri)?;
    let dry_run = parameters.take("dry_run", "true or false", |text| text.parse().ok()).unwrap_or(false);
    let name = parameters.take("name", "at most 100 characters", |text| (text.len() <= 100).then(|| text.to_owned()));
    parameters.finish()?;
    if !content_type(&parts.headers).is_some_and(|kind| kind.eq_ignore_ascii_case(CSV)) {
        return Err(Problem::new(Code::UnsupportedMediaType).with("expected", CSV));
    }
    let tenant = caller.tenant();
    let template = app.store.find_template(tenant, template_id).await?.ok_or(Problem::new(Code::TemplateNotFound))?;
    if template.archived_at.is_some() {
        return Err(Rejection::TemplateArchived.into());
    }
    let bytes = read_body(&parts.headers, body, app.limits.max_batch_bytes).await?;
    let keys = keys_of(&app).await?;
    let mut read = read_codes(&bytes, &keys, tenant)?;
    // Codes of older keys count as well.
    let mut all: Vec<CodeDigest> = read.codes.iter().flat_map(|line| line.digests.iter().copied()).collect();
    let known: HashSet<CodeDigest> = app.store.known_codes(tenant, &all).await?;
    all.clear();
    let before = read.codes.len();
    read.codes.retain(|line| !line.digests.iter().any(|digest| known.contains(digest)));
    let mut existing = (before - read.codes.len()) as u64;
    let mut imported = read.codes.len() as u64;
    let mut batch = None;
    if !dry_run && !read.codes.is_empty() {
        let new = NewCodeBatch {
            template_id,
            kind: CodeKind::Imported,
            name: name.unwrap_or_default(),
            code_count: 0,
            max_uses: Some(1),
            pattern: String::new(),
            alphabet: String::new(),
            check_character: false,
            key_id: keys.newest().id,
            nonce: None,
            shared: None,
        };
        let create = caller.envelope(Command::CreateCodeBatch(Box::new(new)), None, None, clock::now())?;
        let mut current = batch_of(app.engine.submit(create).await?)?.0;
        let pages = read.codes.len().div_ceil(codes::PAGE as usize);
        for (page, lines) in (1..).zip(read.codes.chunks(codes::PAGE as usize)) {
            let command = Command::AddCodes {
                batch_id: current.id,
                from_number: current.next_number,
                digests: lines.iter().map(|line| line.digests[0]).collect(),
                max_uses: lines.iter().map(|line| Some(line.max_uses)).collect(),
                holders: lines.iter().map(|line| line.member_id.clone()).collect(),
                last: page == pages,
            };
            let (added, known) = batch_of(app.engine.submit(envelope(tenant, command)).await?)?;
            // Somebody else has brought them meanwhile.
            existing += known;
            imported -= known;
            current = added;
        }
        batch = Some(current);
    }
    answer::ok(&ImportReport {
        batch: batch.as_deref().map(CodeBatchView::from),
        dry_run,
        lines: read.lines,
        imported,
        duplicates: read.duplicates,
        existing,
        bad: read.bad,
        errors: read.errors,
    })
}

/// The batch of an accepted command, and how many codes were there already.
fn batch_of(answer: Answer) -> Result<(Box<CodeBatch>, u64), Problem> {
    match answer {
        Answer::Accepted { outcome: Outcome::CodeBatch(batch), .. } => Ok((batch, 0)),
        Answer::Accepted { outcome: Outcome::CodesAdded { batch, known }, .. } => Ok((batch, known.len() as u64)),
        Answer::Refused(rejection) => Err(rejection.into()),
        Answer::Accepted { outcome, .. } => Err(Problem::internal(format!("an unexpected outcome: {outcome:?}"))),
    }
}

struct CodeRead {
    /// Under every key, the newest first.
    digests: Vec<CodeDigest>,
    max_uses: i64,
    member_id: Option<MemberId>,
}

struct CodesRead {
    codes: Vec<CodeRead>,
    lines: u64,
    duplicates: u64,
    bad: u64,
    errors: Vec<BadLine>,
}

impl CodesRead {
    fn note(&mut self, line: u64, message: String) {
        if self.errors.len() < LISTED {
            self.errors.push(BadLine { line, message });
        }
    }
}

fn read_codes(bytes: &[u8], keys: &CodeKeys, tenant: TenantId) -> Result<CodesRead, Problem> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let headers = reader.headers().map_err(super::extract::malformed)?;
    if !headers.iter().any(|name| name.trim_start_matches('\u{feff}') == "code") {
        return Err(Problem::field(
            "body",
            "has no column `code`",
            "Send CSV whose first line names the columns: code,max_uses,member_id.",
        ));
    }
    let headers: csv::StringRecord = headers.iter().map(|name| name.trim_start_matches('\u{feff}')).collect();
    reader.set_headers(headers);
    let mut read = CodesRead { codes: Vec::new(), lines: 0, duplicates: 0, bad: 0, errors: Vec::new() };
    let mut seen: HashMap<CodeDigest, u64> = HashMap::new();
    for result in reader.deserialize::<CodeLine>() {
        read.lines += 1;
        let line = read.lines + 1;
        let checked = result.map_err(|error| error.to_string()).and_then(|row| {
            let digests = codes::digests(keys, tenant, &row.code);
            let digests = digests.ok_or("is no code: 1 to 64 letters and digits, spaces, -, _ and . left out")?;
            let max_uses = row.max_uses.unwrap_or(1);
            if !(1..=MAX_USES).contains(&max_uses) {
                return Err("max_uses is out of range".into());
            }
            let holder = row.member_id.as_deref().filter(|member| !member.is_empty()).map(str::parse);
            let member_id = holder.transpose().map_err(|error| format!("member_id {error}"))?;
            Ok(CodeRead { digests, max_uses, member_id })
        });
        match checked {
            Err(message) => {
                read.bad += 1;
                read.note(line, message);
            }
            Ok(code) => {
                if let Some(first) = seen.insert(code.digests[0], line) {
                    seen.insert(code.digests[0], first);
                    read.duplicates += 1;
                    read.note(line, format!("is the code of line {first} once more"));
                } else {
                    read.codes.push(code);
                }
            }
        }
    }
    Ok(read)
}
