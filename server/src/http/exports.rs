//! Exports without a limit of rows: CSV as it is read, XLSX from a temporary file.

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use jiff::civil::Date;
use scrip_domain::TenantId;
use scrip_domain::coupon::CouponStatus;
use scrip_domain::points::TransactionType;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::auth::Operator;
use super::codes::csv_response;
use super::extract::Parameters;
use super::problem::Problem;
use super::schema::{self, Problems};
use super::time::Time;
use super::{AppState, statements};
use crate::clock;
use crate::export::{self, Format, Reader, What};

/// Exports under way at a time; further ones wait. Each reads a page at a time.
static EXPORTS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(4));
/// Pages that wait for a slow client, at most.
const PAGES_AHEAD: usize = 2;
const CHUNK_BYTES: usize = 64 * 1024;
const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// Export coupons
///
/// All of the tenant, or a template's; `status` is the one that holds now. Rows are read one after the other while others may
/// change: an export is no snapshot.
#[utoipa::path(get, path = "/v1/exports/coupons", tag = "Exports", security(("key" = ["OPERATOR"])),
    params(("format" = Option<schema::ExportFormat>, Query), ("template_id" = Option<schema::TemplateId>, Query),
        ("status" = Option<schema::CouponStatus>, Query)),
    responses((status = 200, description = "A line for each coupon", content((String = "text/csv"),
        (String = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))), Problems))]
pub async fn export_coupons(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let format = format_of(&mut parameters);
    let template = parameters.take("template_id", "a template id", |text| text.parse().ok());
    let status = parameters.take("status", "AVAILABLE, LOCKED, USED, EXPIRED or REVOKED", CouponStatus::parse);
    parameters.finish()?;
    respond(&app, caller.tenant(), What::Coupons { template, status }, format).await
}

/// Export the uses of coupons
#[utoipa::path(get, path = "/v1/exports/usages", tag = "Exports", security(("key" = ["OPERATOR"])),
    params(("format" = Option<schema::ExportFormat>, Query), ("template_id" = Option<schema::TemplateId>, Query),
        ("from" = Option<Time>, Query), ("until" = Option<Time>, Query)),
    responses((status = 200, description = "A line for each use that stands, newest first", content((String = "text/csv"),
        (String = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))), Problems))]
pub async fn export_usages(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let format = format_of(&mut parameters);
    let template = parameters.take("template_id", "a template id", |text| text.parse().ok());
    let from = parameters.time("from");
    let until = parameters.time("until");
    parameters.finish()?;
    respond(&app, caller.tenant(), What::Usages { template, from, until }, format).await
}

/// Export coupon templates
#[utoipa::path(get, path = "/v1/exports/templates", tag = "Exports", security(("key" = ["OPERATOR"])),
    params(("format" = Option<schema::ExportFormat>, Query)),
    responses((status = 200, description = "A line for each template, archived ones included", content((String = "text/csv"),
        (String = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))), Problems))]
pub async fn export_templates(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let format = format_of(&mut parameters);
    parameters.finish()?;
    respond(&app, caller.tenant(), What::Templates, format).await
}

/// Export the ledger of all members
///
/// Oldest first: the lines that took effect on these days (default: all days up to today), in the tenant's time zone.
#[utoipa::path(get, path = "/v1/exports/points-transactions", tag = "Exports", security(("key" = ["OPERATOR"])),
    params(("format" = Option<schema::ExportFormat>, Query), ("type" = Option<schema::TransactionType>, Query),
        ("from" = Option<schema::LocalDate>, Query), ("to" = Option<schema::LocalDate>, Query)),
    responses((status = 200, description = "A line for each transaction", content((String = "text/csv"),
        (String = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))), Problems))]
pub async fn export_points_transactions(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let format = format_of(&mut parameters);
    let kind = parameters.take("type", "a transaction type", TransactionType::parse);
    let zone = app.store.zone(tenant).await?;
    let today = crate::projection::local_date(&zone, clock::now());
    let period = statements::take_period(&mut parameters, &zone, Date::constant(1970, 1, 2), today)?;
    parameters.finish()?;
    let what = What::PointsTransactions { kind, from: Some(period.start), until: Some(period.end) };
    respond(&app, tenant, what, format).await
}

/// Export the balances of all members
///
/// By member. What has expired by now counts as expired, and what a hold past its deadline had set aside as free, written or
/// not.
#[utoipa::path(get, path = "/v1/exports/points-balances", tag = "Exports", security(("key" = ["OPERATOR"])),
    params(("format" = Option<schema::ExportFormat>, Query)),
    responses((status = 200, description = "A line for each account", content((String = "text/csv"),
        (String = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))), Problems))]
pub async fn export_points_balances(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let format = format_of(&mut parameters);
    parameters.finish()?;
    respond(&app, caller.tenant(), What::PointsBalances, format).await
}

fn format_of(parameters: &mut Parameters) -> Format {
    parameters.take("format", "csv or xlsx", Format::parse).unwrap_or(Format::Csv)
}

async fn respond(app: &AppState, tenant: TenantId, what: What, format: Format) -> Result<Response, Problem> {
    let permit = EXPORTS.acquire().await.map_err(Problem::internal)?;
    let name = format!("{}.{}", what.name(), format.as_str());
    let reader = Reader::new(app.store.clone(), tenant, what.clone());
    let (send, pages) = mpsc::channel(PAGES_AHEAD);
    match format {
        Format::Csv => {
            tokio::spawn(send_csv(reader, what, send, permit));
            Ok(csv_response(pages, &name))
        }
        Format::Xlsx => {
            let file = export::xlsx(reader).await.map_err(|error| Problem::internal(format!("{error:#}")))?;
            tokio::spawn(send_file(file, send, permit));
            let mut response = csv_response(pages, &name);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(XLSX));
            Ok(response)
        }
    }
}

type Pages = mpsc::Sender<Result<Bytes, std::io::Error>>;

async fn send_csv(mut reader: Reader, what: What, send: Pages, _permit: SemaphorePermit<'static>) {
    let mut page = export::csv_head(&what);
    loop {
        if send.send(Ok(page.into())).await.is_err() {
            return;
        }
        match reader.next().await {
            Ok(Some(rows)) => page = export::csv_rows(&rows),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "an export broke off");
                // The client must not take a part for the whole.
                let _ = send.send(Err(std::io::Error::other("the export broke off"))).await;
                return;
            }
        }
    }
}

async fn send_file(file: std::fs::File, send: Pages, _permit: SemaphorePermit<'static>) {
    let mut file = tokio::fs::File::from_std(file);
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        match (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await {
            Ok(0) => return,
            Ok(_) if send.send(Ok(chunk.into())).await.is_ok() => {}
            Ok(_) => return,
            Err(error) => {
                let _ = send.send(Err(error)).await;
                return;
            }
        }
    }
}
