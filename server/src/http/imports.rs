//! Imports of coupon templates, coupons and points accounts from the origin system's tables.

use axum::extract::{Request, State};
use axum::response::Response;
use jiff::tz::TimeZone;

use super::AppState;
use super::answer;
use super::auth::Operator;
use super::codes::CSV;
use super::extract::{Parameters, content_type, malformed, read_body};
use super::problem::{Code, Problem};
use super::schema::{self, Problems};
use crate::import::{self, ImportOptions, ImportReport, Percent, PointsImportReport};

/// Import coupon templates
///
/// A CSV export of the origin's `mkt_coupon_template`; docs/IMPORT.md has the mapping. Rows that are there already change nothing,
/// bad rows are reported and the others taken over.
#[utoipa::path(post, path = "/v1/imports/templates", tag = "Imports", security(("key" = ["OPERATOR"])),
    params(("percent" = Option<schema::PercentMeaning>, Query), ("time_zone" = Option<String>, Query),
        ("dry_run" = Option<bool>, Query)),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, description = "What became of the rows", body = ImportReport), Problems))]
pub async fn import_templates(
    State(app): State<AppState>,
    Operator(caller): Operator,
    request: Request,
) -> Result<Response, Problem> {
    let (options, bytes) = read(&app, &caller, request, Table::Coupons).await?;
    answer::ok(&import::templates(&app.store, &app.engine, &bytes[..], &options).await.map_err(failed)?)
}

/// Import coupons
///
/// A CSV export of the origin's `mkt_user_coupon`, after its templates.
#[utoipa::path(post, path = "/v1/imports/coupons", tag = "Imports", security(("key" = ["OPERATOR"])),
    params(("percent" = Option<schema::PercentMeaning>, Query), ("time_zone" = Option<String>, Query),
        ("dry_run" = Option<bool>, Query)),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, description = "What became of the rows", body = ImportReport), Problems))]
pub async fn import_coupons(
    State(app): State<AppState>,
    Operator(caller): Operator,
    request: Request,
) -> Result<Response, Problem> {
    let (options, bytes) = read(&app, &caller, request, Table::Coupons).await?;
    answer::ok(&import::coupons(&app.store, &app.engine, &bytes[..], &options).await.map_err(failed)?)
}

/// Import points accounts
///
/// Rows of the origin's `mkt_points_account`, `mkt_points_lot` and `mkt_points_transaction`, those of a member together; an
/// account is taken over with its lots and its history when it reconciles to the point, and refused when it does not.
#[utoipa::path(post, path = "/v1/imports/points", tag = "Imports", security(("key" = ["OPERATOR"])),
    params(("opening" = Option<bool>, Query, description = "Take over without its history what does not reconcile with it."),
        ("time_zone" = Option<String>, Query), ("dry_run" = Option<bool>, Query)),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, description = "What became of the accounts", body = PointsImportReport), Problems))]
pub async fn import_points(
    State(app): State<AppState>,
    Operator(caller): Operator,
    request: Request,
) -> Result<Response, Problem> {
    let (options, bytes) = read(&app, &caller, request, Table::Points).await?;
    answer::ok(&import::points(&app.store, &app.engine, &bytes[..], &options).await.map_err(failed)?)
}

/// What a file is of: each kind has a question of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Coupons,
    Points,
}

async fn read(
    app: &AppState,
    caller: &super::auth::Caller,
    request: Request,
    table: Table,
) -> Result<(ImportOptions, bytes::Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let mut parameters = Parameters::of(&parts.uri)?;
    let flag = |text: &str| text.parse().ok();
    let (percent, opening) = match table {
        Table::Coupons => (parameters.take("percent", "off or pay", Percent::parse), None),
        Table::Points => (None, parameters.take("opening", "true or false", flag)),
    };
    let zone = parameters.take("time_zone", "an IANA time zone like Asia/Shanghai", |text| TimeZone::get(text).ok());
    let dry_run = parameters.take("dry_run", "true or false", flag).unwrap_or(false);
    let opening = opening.unwrap_or(false);
    parameters.finish()?;
    if !content_type(&parts.headers).is_some_and(|kind| kind.eq_ignore_ascii_case(CSV)) {
        return Err(Problem::new(Code::UnsupportedMediaType).with("expected", CSV));
    }
    let tenant = caller.tenant();
    let time_zone = match zone {
        Some(zone) => zone,
        None => {
            let settings = app.store.find_tenant(tenant).await?.ok_or(Problem::new(Code::TenantNotFound))?;
            TimeZone::get(&settings.time_zone).map_err(Problem::internal)?
        }
    };
    let bytes = read_body(&parts.headers, body, app.limits.max_batch_bytes).await?;
    if bytes.is_empty() {
        return Err(malformed("it is empty"));
    }
    Ok((ImportOptions { tenant, percent, time_zone, dry_run, opening }, bytes))
}

fn failed(error: anyhow::Error) -> Problem {
    use crate::engine::SubmitError;
    use crate::store::StoreError;
    match error.downcast::<SubmitError>() {
        Ok(error) => error.into(),
        Err(error) => match error.downcast::<StoreError>() {
            Ok(error) => error.into(),
            Err(error) => Problem::internal(format!("{error:#}")),
        },
    }
}
