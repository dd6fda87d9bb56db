//! Distributions and imports of grants: many rows in one request, worked off in the background.
//!
//! A body of JSON is a list; a body of CSV or NDJSON is a file, read as it arrives. Its rows are staged first; then one command
//! makes the bulk and its job, so a request that breaks off leaves nothing but rows that are forgotten after a day.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use futures_util::stream;
use http_body_util::BodyExt;
use scrip_domain::bulk::{Bulk, BulkKind, Staged};
use scrip_domain::id::Ids;
use scrip_domain::{BulkId, Command, Idempotency, MemberId, Outcome, Rejection, TemplateId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::AppState;
use super::answer;
use super::auth::{Caller, Operator};
use super::extract::{
    Checked, Cursor, InPath, Input, NoOptions, Parameters, content_type, malformed, parse, read_body,
};
use super::fields::FieldErrors;
use super::idempotency::{self, Fingerprint};
use super::problem::{Code, Problem};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::views::{BulkPage, BulkView, Page};
use crate::bulk::{FileReader, Format, RowOutcome, RowResult, StageError, Stager, cell, chunk_rows, results_of};
use crate::clock;
use crate::store::Store;

const MAX_MEMBERS: usize = 10_000;
const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";
/// Files read at a time: each holds up to some 30 MB for finding duplicates.
static READING: Semaphore = Semaphore::const_new(4);
/// How long a file may stand still on its way.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// Chunks looked at for one page of results.
const CHUNKS_PER_PAGE: i64 = 4;

/// Who gets a coupon.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DistributionRequest {
    /// 1 to 10,000 members; one named twice gets one coupon.
    #[schema(value_type = Vec<schema::MemberId>, min_items = 1, max_items = 10_000)]
    member_ids: Option<Vec<String>>,
    /// The members' levels by id, where the template names levels.
    #[schema(value_type = Option<HashMap<String, String>>)]
    member_levels: Option<HashMap<String, String>>,
}

impl Checked for DistributionRequest {
    type Value = Vec<(MemberId, Option<String>)>;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<Self::Value> {
        let ids = errors.required("member_ids", self.member_ids)?;
        if !(1..=MAX_MEMBERS).contains(&ids.len()) {
            let remedy = format!("Send 1 to {MAX_MEMBERS}, or a file of CSV or NDJSON.");
            errors.add("member_ids", format!("has {} entries", ids.len()), remedy);
            return None;
        }
        let mut levels = self.member_levels.unwrap_or_default();
        for (member, level) in &levels {
            errors.text(format!("member_levels.{member}"), level, 1..=64);
        }
        let mut members = Vec::with_capacity(ids.len());
        for (index, id) in ids.into_iter().enumerate() {
            match id.parse::<MemberId>() {
                Ok(member) => members.push((member, levels.get(&id).cloned())),
                Err(_) => errors.add(
                    format!("member_ids[{index}]"),
                    "is no member id",
                    "Send 1-64 printable ASCII characters without spaces.",
                ),
            }
        }
        levels.retain(|member, _| !members.iter().any(|(known, _)| known.as_str() == member));
        for member in levels.keys() {
            errors.add(
                format!("member_levels.{member}"),
                "is not among `member_ids`",
                "Name the member there as well.",
            );
        }
        Some(members)
    }
}

/// A row of a file of members.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read row by row")]
pub struct DistributionRow {
    #[schema(value_type = schema::MemberId)]
    member_id: String,
    member_level: Option<String>,
}

/// A row of a file of grants.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read row by row")]
pub struct PointsGrantRow {
    #[schema(value_type = schema::MemberId)]
    member_id: String,
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: i64,
    #[schema(value_type = Option<schema::GrantType>)]
    r#type: Option<String>,
    reference: Option<String>,
    remark: Option<String>,
    expires_at: Option<super::time::Time>,
}

/// Give coupons to many members
///
/// To a list in a JSON body, or to a file of up to 1,000,000 rows: `text/csv` with a header (`member_id`, `member_level`) or
/// `application/x-ndjson`. Answers at once; the work goes on in the background, by the rules of a claim, and each row gets a
/// result. A member named twice gets one coupon. Refused rows do not hurt others.
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/distributions", tag = "Distributions",
    security(("key" = ["OPERATOR"])), params(("template_id" = schema::TemplateId, Path), IdempotencyKey),
    request_body(content((DistributionRequest = "application/json"), (String = "text/csv"),
        (DistributionRow = "application/x-ndjson"))),
    responses((status = 202, description = "Under way", body = BulkView), Problems))]
pub async fn create_distribution(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    request: Request,
) -> Result<Response, Problem> {
    if app.store.find_template(caller.tenant(), template_id).await?.is_none() {
        return Err(Rejection::TemplateNotFound.into());
    }
    let (parts, body) = request.into_parts();
    match format_of(&parts) {
        Some(format) => upload(&app, &caller, Some(template_id), parts, body, format).await,
        None if content_type(&parts.headers).is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) => {
            let bytes = read_body(&parts.headers, body, app.limits.max_batch_bytes).await?;
            let idempotency = idempotency::of_request(&parts, &bytes)?;
            let now = clock::now();
            let members = parse::<DistributionRequest>(&bytes, now)?;
            if let Some(answered) = answered_before(&app, caller.tenant(), idempotency).await? {
                return Ok(answered);
            }
            let id = new_id(now);
            let mut stager = Stager::new(&app.store, caller.tenant(), id, BulkKind::Distribution);
            for (member, level) in &members {
                stager.add_member(member, level.clone()).await?;
            }
            let staged = stager.finish().await?;
            begin(&app, &caller, id, Some(template_id), staged, idempotency).await
        }
        None => Err(unsupported("application/json, text/csv or application/x-ndjson")),
    }
}

/// Credit points to many members
///
/// A file of up to 1,000,000 rows: `text/csv` with a header (`member_id`, `points`; `type`, `reference`, `remark`, `expires_at`) or
/// `application/x-ndjson`. Answers at once; the work goes on in the background, by the rules of a grant. Every row counts, also
/// of a member named twice.
#[utoipa::path(post, path = "/v1/points-grants", tag = "Points", security(("key" = ["OPERATOR"])), params(IdempotencyKey),
    request_body(content((String = "text/csv"), (PointsGrantRow = "application/x-ndjson"))),
    responses((status = 202, description = "Under way", body = BulkView), Problems))]
pub async fn create_points_grants(
    State(app): State<AppState>,
    Operator(caller): Operator,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let format = format_of(&parts).ok_or_else(|| unsupported("text/csv or application/x-ndjson"))?;
    upload(&app, &caller, None, parts, body, format).await
}

fn format_of(parts: &Parts) -> Option<Format> {
    match content_type(&parts.headers)?.to_ascii_lowercase().as_str() {
        CSV => Some(Format::Csv),
        NDJSON => Some(Format::Ndjson),
        _ => None,
    }
}

fn unsupported(expected: &'static str) -> Problem {
    Problem::new(Code::UnsupportedMediaType).with("expected", expected)
}

fn new_id(now: Timestamp) -> BulkId {
    BulkId(Ids::new(clock::seed(now)).draw())
}

/// Stages the rows of a file as they arrive.
async fn upload(
    app: &AppState,
    caller: &Caller,
    template_id: Option<TemplateId>,
    parts: Parts,
    body: Body,
    format: Format,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let Ok(_place) = READING.try_acquire() else { return Err(Problem::new(Code::Busy)) };
    let fingerprint = idempotency::begin(&parts)?;
    // A key that is known already: the rows need not be kept again, only compared.
    if let Some(fingerprint) = &fingerprint
        && app.store.find_outcome(tenant, fingerprint.key()).await?.is_some()
    {
        let idempotency = digest(app, body, fingerprint.clone()).await?;
        if let Some(answered) = answered_before(app, tenant, Some(idempotency)).await? {
            return Ok(answered);
        }
        return Err(Problem::new(Code::StoreUnavailable));
    }
    let kind = if template_id.is_some() { BulkKind::Distribution } else { BulkKind::PointsGrants };
    let id = new_id(clock::now());
    let stager = Stager::new(&app.store, tenant, id, kind).limited(caller.adjustment_limit());
    match stage(app, stager, body, format, fingerprint).await {
        Ok((staged, idempotency)) => begin(app, caller, id, template_id, staged, idempotency).await,
        Err(problem) => {
            app.store.drop_staged(tenant, id).await?;
            Err(problem)
        }
    }
}

async fn stage(
    app: &AppState,
    stager: Stager<'_>,
    body: Body,
    format: Format,
    mut fingerprint: Option<Fingerprint>,
) -> Result<(Staged, Option<Idempotency>), Problem> {
    let mut pieces = Pieces::new(app, body);
    let mut reader = FileReader::new(stager, format);
    while let Some(piece) = pieces.next().await? {
        if let Some(fingerprint) = &mut fingerprint {
            fingerprint.update(&piece);
        }
        reader.feed(&piece).await?;
    }
    Ok((reader.finish().await?, fingerprint.map(Fingerprint::finish)))
}

async fn digest(app: &AppState, body: Body, mut fingerprint: Fingerprint) -> Result<Idempotency, Problem> {
    let mut pieces = Pieces::new(app, body);
    while let Some(piece) = pieces.next().await? {
        fingerprint.update(&piece);
    }
    Ok(fingerprint.finish())
}

/// The pieces of a body, which together are no longer than a file may be, and none of which keeps us waiting for long.
struct Pieces {
    body: Body,
    left: usize,
    limit: usize,
}

impl Pieces {
    fn new(app: &AppState, body: Body) -> Pieces {
        let limit = app.limits.max_upload_bytes;
        Pieces { body, left: limit, limit }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = tokio::time::timeout(PIECE_TIMEOUT, self.body.frame()).await;
            let timed_out = || Problem::new(Code::RequestTimeout).with("seconds", PIECE_TIMEOUT.as_secs());
            let Some(frame) = frame.map_err(|_| timed_out())? else { return Ok(None) };
            // Trailers say nothing here.
            let Ok(piece) = frame.map_err(|_| malformed("it broke off"))?.into_data() else { continue };
            let too_large = || Problem::new(Code::BodyTooLarge).with("limit", format!("{} MiB", self.limit >> 20));
            self.left = self.left.checked_sub(piece.len()).ok_or_else(too_large)?;
            return Ok(Some(piece));
        }
    }
}

/// The answer to an earlier request with this key, if there was one.
async fn answered_before(
    app: &AppState,
    tenant: TenantId,
    idempotency: Option<Idempotency>,
) -> Result<Option<Response>, Problem> {
    let Some(idempotency) = idempotency else { return Ok(None) };
    let Some(record) = app.store.find_outcome(tenant, idempotency.key).await? else { return Ok(None) };
    if record.fingerprint != idempotency.fingerprint {
        return Err(Rejection::IdempotencyKeyReused.into());
    }
    let outcome: Outcome = serde_json::from_str(&record.outcome).map_err(Problem::internal)?;
    Ok(Some(answer::respond(app, tenant, &outcome, StatusCode::ACCEPTED, true).await?))
}

/// Makes the bulk whose rows are staged.
async fn begin(
    app: &AppState,
    caller: &Caller,
    id: BulkId,
    template_id: Option<TemplateId>,
    staged: Staged,
    idempotency: Option<Idempotency>,
) -> Result<Response, Problem> {
    let command = Command::CreateBulk { bulk_id: id, template_id, staged };
    let envelope = caller.envelope(command, None, idempotency, clock::now())?;
    let answered = answer::run(app, envelope, StatusCode::ACCEPTED).await;
    // Of two requests with one key at once the second is answered with the bulk of the first.
    if app.store.find_bulk(caller.tenant(), id).await?.is_none() {
        app.store.drop_staged(caller.tenant(), id).await?;
    }
    answered
}

impl From<StageError> for Problem {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Store(error) => error.into(),
            StageError::TooManyRows => Problem::new(Code::BodyTooLarge).with("limit", "1,000,000 rows"),
            StageError::Header { expected, found } => {
                Problem::field("header", format!("is {found:?}"), format!("Let the first line name {expected}."))
            }
            StageError::RowTooLong(row) => {
                Problem::field("body", format!("has a row longer than 8 KiB, row {row}"), "Put each row on a line.")
            }
            StageError::Empty => Problem::field("body", "has no rows", "Send at least one."),
        }
    }
}

/// List the distributions, newest first
#[utoipa::path(get, path = "/v1/distributions", tag = "Distributions", security(("key" = ["OPERATOR"])), params(PageQuery),
    responses((status = 200, description = "A page", body = BulkPage), Problems))]
pub async fn list_distributions(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    list(&app, &caller, BulkKind::Distribution, &uri).await
}

/// List the imports of grants, newest first
#[utoipa::path(get, path = "/v1/points-grants", tag = "Points", security(("key" = ["OPERATOR"])), params(PageQuery),
    responses((status = 200, description = "A page", body = BulkPage), Problems))]
pub async fn list_points_grants(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    list(&app, &caller, BulkKind::PointsGrants, &uri).await
}

async fn list(app: &AppState, caller: &Caller, kind: BulkKind, uri: &Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(uri)?;
    let page = parameters.page();
    parameters.finish()?;
    let mut bulks = app.store.list_bulks(caller.tenant(), kind, page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut bulks, page.limit, |bulk| bulk.id.write());
    answer::ok(&Page { data: bulks.iter().map(BulkView::from).collect(), next_cursor })
}

/// Read a distribution and how far it has come
#[utoipa::path(get, path = "/v1/distributions/{bulk_id}", tag = "Distributions", security(("key" = ["OPERATOR"])),
    params(("bulk_id" = schema::BulkId, Path)),
    responses((status = 200, description = "The distribution", body = BulkView), Problems))]
pub async fn get_distribution(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<BulkId>,
) -> Result<Response, Problem> {
    answer::ok(&BulkView::from(&find(&app, &caller, BulkKind::Distribution, id).await?))
}

/// Read an import of grants and how far it has come
#[utoipa::path(get, path = "/v1/points-grants/{bulk_id}", tag = "Points", security(("key" = ["OPERATOR"])),
    params(("bulk_id" = schema::BulkId, Path)),
    responses((status = 200, description = "The import", body = BulkView), Problems))]
pub async fn get_points_grants(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<BulkId>,
) -> Result<Response, Problem> {
    answer::ok(&BulkView::from(&find(&app, &caller, BulkKind::PointsGrants, id).await?))
}

async fn find(app: &AppState, caller: &Caller, kind: BulkKind, id: BulkId) -> Result<Bulk, Problem> {
    let found = app.store.find_bulk(caller.tenant(), id).await?;
    found.filter(|bulk| bulk.kind == kind).ok_or(Problem::new(Code::BulkNotFound))
}

/// Cancel a distribution
///
/// Coupons it has given stay given. One that is over is left as it is.
#[utoipa::path(post, path = "/v1/distributions/{bulk_id}/cancel", tag = "Distributions", security(("key" = ["OPERATOR"])),
    params(("bulk_id" = schema::BulkId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "The distribution", body = BulkView), Problems))]
pub async fn cancel_distribution(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<BulkId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    cancel(&app, &caller, BulkKind::Distribution, id, input).await
}

/// Cancel an import of grants
///
/// Points it has credited stay credited. One that is over is left as it is.
#[utoipa::path(post, path = "/v1/points-grants/{bulk_id}/cancel", tag = "Points", security(("key" = ["OPERATOR"])),
    params(("bulk_id" = schema::BulkId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "The import", body = BulkView), Problems))]
pub async fn cancel_points_grants(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<BulkId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    cancel(&app, &caller, BulkKind::PointsGrants, id, input).await
}

async fn cancel(
    app: &AppState,
    caller: &Caller,
    kind: BulkKind,
    id: BulkId,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    find(app, caller, kind, id).await?;
    let command = Command::CancelBulk(id);
    answer::run(app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// What came of a row.
#[derive(Serialize, ToSchema)]
#[schema(as = RowResult)]
pub struct ResultView {
    /// From 1; the header of a CSV is not counted.
    row: i64,
    member_id: String,
    #[schema(value_type = schema::RowOutcome)]
    outcome: &'static str,
    /// The coupon or the points transaction.
    made: Option<String>,
    /// The code of the refusal, or why the row cannot be read.
    reason: Option<String>,
}

impl From<RowResult> for ResultView {
    fn from(result: RowResult) -> Self {
        let RowResult { row, member_id, outcome, made, reason } = result;
        ResultView { row, member_id, outcome: outcome.as_str(), made, reason }
    }
}

/// A page of results.
#[derive(Serialize, ToSchema)]
#[schema(as = RowResultPage)]
pub struct ResultPage {
    data: Vec<ResultView>,
    /// Null at the end. With `outcome`, a page may be short, or empty, though more follows.
    next_cursor: Option<String>,
}

/// Read what came of each row of a distribution
///
/// In the order of the rows. With `format=csv`, all of them as a file.
#[utoipa::path(get, path = "/v1/distributions/{bulk_id}/results", tag = "Distributions", security(("key" = ["OPERATOR"])),
    params(("bulk_id" = schema::BulkId, Path), ("outcome" = Option<schema::RowOutcome>, Query),
        ("format" = Option<schema::ResultFormat>, Query), PageQuery),
    responses((status = 200, description = "A page, or the file",
        content((ResultPage = "application/json"), (String = "text/csv"))), Problems))]
pub async fn list_distribution_results(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<BulkId>,
    uri: Uri,
) -> Result<Response, Problem> {
    results(&app, &caller, BulkKind::Distribution, id, &uri).await
}

/// Read what came of each row of an import of grants
///
/// In the order of the rows. With `format=csv`, all of them as a file.
#[utoipa::path(get, path = "/v1/points-grants/{bulk_id}/results", tag = "Points", security(("key" = ["OPERATOR"])),
    params(("bulk_id" = schema::BulkId, Path), ("outcome" = Option<schema::RowOutcome>, Query),
        ("format" = Option<schema::ResultFormat>, Query), PageQuery),
    responses((status = 200, description = "A page, or the file",
        content((ResultPage = "application/json"), (String = "text/csv"))), Problems))]
pub async fn list_points_grant_results(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(id): InPath<BulkId>,
    uri: Uri,
) -> Result<Response, Problem> {
    results(&app, &caller, BulkKind::PointsGrants, id, &uri).await
}

/// After which row a page begins.
struct AfterRow(i64);

impl Cursor for AfterRow {
    fn write(&self) -> String {
        self.0.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|row| *row >= 0).map(AfterRow)
    }
}

async fn results(app: &AppState, caller: &Caller, kind: BulkKind, id: BulkId, uri: &Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(uri)?;
    let outcomes = "ACCEPTED, REFUSED, DUPLICATE, INVALID or PENDING";
    let outcome = parameters.take("outcome", outcomes, RowOutcome::parse);
    let format =
        parameters.take("format", "json or csv", |text| ["json", "csv"].into_iter().find(|name| *name == text));
    let page = parameters.page::<AfterRow>();
    parameters.finish()?;
    let bulk = find(app, caller, kind, id).await?;
    if bulk.results_dropped_at.is_some() {
        return Err(Problem::new(Code::BulkResultsDropped));
    }
    if format == Some("csv") {
        return Ok(file_of_results(app.store.clone(), caller.tenant(), bulk, outcome));
    }
    let after = page.cursor.map_or(0, |after| after.0);
    let number = after / chunk_rows(kind);
    let chunks = app.store.chunks(caller.tenant(), id, number, outcome, CHUNKS_PER_PAGE).await?;
    let mut seen = after;
    let mut data = Vec::new();
    'page: for chunk in &chunks {
        for result in results_of(chunk)?.into_iter().filter(|result| result.row > after) {
            if data.len() as i64 == page.limit {
                break 'page;
            }
            seen = result.row;
            if outcome.is_none_or(|wanted| wanted == result.outcome) {
                data.push(ResultView::from(result));
            }
        }
    }
    let may_follow = seen < bulk.rows && !chunks.is_empty();
    answer::ok(&ResultPage { data, next_cursor: may_follow.then(|| AfterRow(seen).write()) })
}

/// All results as CSV, read chunk by chunk while they are sent.
fn file_of_results(store: Store, tenant: TenantId, bulk: Bulk, outcome: Option<RowOutcome>) -> Response {
    let name = format!("attachment; filename=\"{}.csv\"", bulk.id);
    let pieces = stream::unfold(Some(0), move |next: Option<i64>| {
        let (store, id) = (store.clone(), bulk.id);
        async move {
            let number = next?;
            match store.chunks(tenant, id, number, outcome, 1).await {
                Err(error) => Some((Err(error), None)),
                Ok(chunks) => {
                    let head = if number == 0 { "row,member_id,outcome,made,reason\n" } else { "" };
                    let Some(chunk) = chunks.first() else {
                        return (!head.is_empty()).then(|| (Ok(head.to_owned()), None));
                    };
                    let piece = results_of(chunk).map(|results| csv(head, &results, outcome));
                    let next = piece.is_ok().then_some(chunk.number + 1);
                    Some((piece, next))
                }
            }
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    response
}

fn csv(head: &str, results: &[RowResult], outcome: Option<RowOutcome>) -> String {
    let mut text = head.to_owned();
    for result in results.iter().filter(|result| outcome.is_none_or(|wanted| wanted == result.outcome)) {
        let (made, reason) = (result.made.as_deref().unwrap_or_default(), result.reason.as_deref().unwrap_or_default());
        let (member, reason) = (cell(&result.member_id), cell(reason));
        text.push_str(&format!("{},{member},{},{made},{reason}\n", result.row, result.outcome.as_str()));
    }
    text
}
