//! From a command to its answer: submit, then render the outcome. A replayed answer is rendered from the recorded outcome by
//! the same code, and so has the same bytes.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use scrip_domain::bulk::BulkKind;
use scrip_domain::coupon::{Coupon, Definition};
use scrip_domain::decide::Sweep;
use scrip_domain::{Answer, Envelope, Outcome, TenantId};
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::adjustments::AdjustmentView;
use super::coupons::ExchangeView;
use super::members::{CheckInView, TransferView};
use super::orders::{CompensationView, OrderView, RefundView};
use super::problem::Problem;
use super::rules::RulesView;
use super::tasks::{ReportView, TaskView};
use super::views::{
    BulkView, CodeBatchView, CouponView, HoldView, JobView, ProgramView, TemplateView, TenantView, TransactionView,
};
use super::webhooks::WebhookView;

const REPLAYED: &str = "idempotency-replayed";
/// Most answers fit; a larger one grows once or twice.
const TYPICAL_BYTES: usize = 1024;

/// A JSON answer.
pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let mut bytes = Vec::with_capacity(TYPICAL_BYTES);
    serde_json::to_writer(&mut bytes, body).map_err(Problem::internal)?;
    Ok(json_bytes(status, bytes))
}

pub fn ok(body: &impl Serialize) -> Result<Response, Problem> {
    json(StatusCode::OK, body)
}

fn json_bytes(status: StatusCode, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Has the command decided and answers with its outcome, under `accepted` when it is one.
pub async fn run(app: &AppState, envelope: Envelope, accepted: StatusCode) -> Result<Response, Problem> {
    let tenant = envelope.tenant;
    match app.engine.submit(envelope).await? {
        Answer::Refused(rejection) => Err(rejection.into()),
        Answer::Accepted { outcome, replayed } => respond(app, tenant, &outcome, accepted, replayed).await,
    }
}

/// The same for what can be done once: 201 for what was made now, 200 for what had been there before.
pub async fn run_once(app: &AppState, envelope: Envelope) -> Result<Response, Problem> {
    let tenant = envelope.tenant;
    match app.engine.submit(envelope).await? {
        Answer::Refused(rejection) => Err(rejection.into()),
        Answer::Accepted { outcome, replayed } => {
            let again = matches!(outcome, Outcome::CheckIn { again: true, .. } | Outcome::Report { again: true, .. });
            let status = if again { StatusCode::OK } else { StatusCode::CREATED };
            respond(app, tenant, &outcome, status, replayed).await
        }
    }
}

/// The same for what may have to wait: 202 and the place of what waits.
pub async fn run_or_wait(app: &AppState, envelope: Envelope) -> Result<Response, Problem> {
    let tenant = envelope.tenant;
    match app.engine.submit(envelope).await? {
        Answer::Refused(rejection) => Err(rejection.into()),
        Answer::Accepted { outcome, replayed } => {
            let waits = matches!(outcome, Outcome::Adjustment(_));
            let status = if waits { StatusCode::ACCEPTED } else { StatusCode::CREATED };
            respond(app, tenant, &outcome, status, replayed).await
        }
    }
}

/// The answer of an accepted command.
pub async fn respond(
    app: &AppState,
    tenant: TenantId,
    outcome: &Outcome,
    accepted: StatusCode,
    replayed: bool,
) -> Result<Response, Problem> {
    let mut response = if accepted == StatusCode::NO_CONTENT {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = accepted;
        response
    } else {
        let mut bytes = Vec::with_capacity(TYPICAL_BYTES);
        write(app, tenant, outcome, &mut bytes).await?;
        json_bytes(accepted, bytes)
    };
    let headers = response.headers_mut();
    match outcome {
        Outcome::Template(template) => drop(headers.insert(header::ETAG, etag(template.version))),
        Outcome::Rules(rules) => drop(headers.insert(header::ETAG, etag(rules.newest))),
        Outcome::Job(job) if accepted == StatusCode::ACCEPTED => {
            drop(headers.insert(header::LOCATION, place(format!("/v1/jobs/{}", job.id))?));
        }
        Outcome::Bulk(bulk) if accepted == StatusCode::ACCEPTED => {
            let resource = match bulk.kind {
                BulkKind::Distribution => "distributions",
                BulkKind::PointsGrants => "points-grants",
            };
            drop(headers.insert(header::LOCATION, place(format!("/v1/{resource}/{}", bulk.id))?));
        }
        Outcome::Adjustment(row) if accepted == StatusCode::ACCEPTED => {
            drop(headers.insert(header::LOCATION, place(format!("/v1/points-adjustments/{}", row.id))?));
        }
        Outcome::Task(task) => drop(headers.insert(header::ETAG, etag(task.version))),
        _ => {}
    }
    mark_replayed(&mut response, replayed);
    Ok(response)
}

fn place(path: String) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(path).map_err(Problem::internal)
}

pub fn mark_replayed(response: &mut Response, replayed: bool) {
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
}

/// The version as an entity tag.
pub fn etag(version: i64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Writes an outcome as the API shows it.
pub async fn write(app: &AppState, tenant: TenantId, outcome: &Outcome, out: &mut Vec<u8>) -> Result<(), Problem> {
    let written = match outcome {
        Outcome::Coupon(coupon) => {
            let definition = definition_of(app, tenant, coupon).await?;
            serde_json::to_writer(out, &CouponView::new(coupon, &definition))
        }
        Outcome::Exchange(made) => {
            let definition = definition_of(app, tenant, &made.coupon).await?;
            serde_json::to_writer(out, &ExchangeView::new(made, &definition))
        }
        Outcome::Transaction(transaction) => serde_json::to_writer(out, &TransactionView::from(&**transaction)),
        Outcome::Hold { hold, available, transaction_id } => {
            serde_json::to_writer(out, &HoldView::new(hold, Some((*available, *transaction_id))))
        }
        Outcome::Template(template) => serde_json::to_writer(out, &TemplateView::from(&**template)),
        Outcome::Order(order) => serde_json::to_writer(out, &OrderView::new(order)),
        Outcome::Refund(refund) => serde_json::to_writer(out, &RefundView::from(&**refund)),
        Outcome::Adjustment(row) => serde_json::to_writer(out, &AdjustmentView::from(&**row)),
        Outcome::Compensation(case) => serde_json::to_writer(out, &CompensationView::from(&**case)),
        Outcome::Rules(rules) => serde_json::to_writer(out, &RulesView::from(&**rules)),
        Outcome::Webhook(webhook) => serde_json::to_writer(out, &WebhookView::from(&**webhook)),
        Outcome::CodeBatch(batch) | Outcome::CodesAdded { batch, .. } => {
            serde_json::to_writer(out, &CodeBatchView::from(&**batch))
        }
        Outcome::Tenant(made) => match &made.program {
            Some(program) => serde_json::to_writer(out, &ProgramView::new(&program.code, made)),
            None => serde_json::to_writer(out, &TenantView::from(&**made)),
        },
        Outcome::Bulk(bulk) => serde_json::to_writer(out, &BulkView::from(&**bulk)),
        Outcome::Job(job) => serde_json::to_writer(out, &JobView::new(job)?),
        Outcome::Transfer(transfer) => serde_json::to_writer(out, &TransferView::from(&**transfer)),
        Outcome::CheckIn { check_in, .. } => serde_json::to_writer(out, &CheckInView::from(&**check_in)),
        Outcome::Task(task) => serde_json::to_writer(out, &TaskView::from(&**task)),
        Outcome::Report { report, .. } => serde_json::to_writer(out, &ReportView::from(&**report)),
        Outcome::Swept(sweep) => serde_json::to_writer(out, &SweepView::from(*sweep)),
        Outcome::ApiKey(_) | Outcome::Announced(_) | Outcome::Deleted | Outcome::Imported(_) | Outcome::Settled(_) => {
            return Err(Problem::internal("this outcome has no body"));
        }
    };
    written.map_err(Problem::internal)
}

async fn definition_of(app: &AppState, tenant: TenantId, coupon: &Coupon) -> Result<Arc<Definition>, Problem> {
    let (id, version) = (coupon.template_id, coupon.template_version);
    let found = app.store.definition(tenant, id, version).await?;
    found.ok_or_else(|| Problem::internal(format!("version {version} of the template {id} is missing")))
}

/// What a call has posted of what time had ended.
#[derive(Serialize, ToSchema)]
#[schema(as = Sweep)]
pub struct SweepView {
    coupons_expired: u64,
    locks_released: u64,
    holds_released: u64,
    accounts_settled: u64,
    points_expired: i64,
    orders_released: u64,
    /// Earned by orders that were paid a while ago.
    points_granted: i64,
    /// False when more may be due: ask again.
    done: bool,
}

impl From<Sweep> for SweepView {
    fn from(sweep: Sweep) -> Self {
        SweepView {
            coupons_expired: sweep.coupons_expired,
            locks_released: sweep.locks_released,
            holds_released: sweep.holds_released,
            accounts_settled: sweep.accounts_settled,
            points_expired: sweep.points_expired,
            orders_released: sweep.orders_released,
            points_granted: sweep.points_granted,
            done: sweep.done,
        }
    }
}
