//! Points that an operator gives or takes by hand, and the approvals that large ones need.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use scrip_domain::points::{Adjustment, AdjustmentRequest as Asked, AdjustmentStatus, MAX_POINTS};
use scrip_domain::{AdjustmentId, Command, KeyId, MemberId, Timestamp, TransactionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Operator;
use super::extract::{Checked, Cursor, InPath, Input, NoOptions, Parameters};
use super::fields::FieldErrors;
use super::problem::{Code, Problem};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::time::Time;
use super::views::{AdjustmentPage, Page, TransactionView, time};
use super::{AppState, answer};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdjustmentRequest {
    /// More than 0: given; less: taken away.
    #[schema(value_type = i64, minimum = -1_000_000_000_000_000i64, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    /// Why; kept as the transaction's remark.
    #[schema(value_type = String, min_length = 1, max_length = 500)]
    reason: Option<String>,
    /// Your own reference, a ticket's number for instance.
    #[schema(min_length = 1, max_length = 64)]
    reference: Option<String>,
    /// Of points given. Null: never.
    expires_at: Option<Time>,
    /// Never in the future.
    effective_at: Option<Time>,
}

pub struct Wanted {
    points: i64,
    reason: String,
    reference: Option<String>,
    expires_at: Option<Timestamp>,
    effective_at: Option<Timestamp>,
}

impl Checked for AdjustmentRequest {
    type Value = Wanted;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Wanted> {
        let points = errors.integer("points", self.points, -MAX_POINTS..=MAX_POINTS);
        if points == Some(0) {
            errors.add("points", "is 0", "Send a positive number to give, a negative one to take away.");
        }
        let reason = errors.required("reason", self.reason);
        errors.optional_text("reason", reason.as_deref(), 1..=500);
        errors.optional_text("reference", self.reference.as_deref(), 1..=64);
        if points.is_none_or(|points| points <= 0) && self.expires_at.is_some() {
            errors.add("expires_at", "belongs to points that are given", "Leave it out.");
        }
        let effective_at = errors.effective_at(self.effective_at, now);
        let (reference, expires_at) = (self.reference, self.expires_at.map(|at| at.0));
        Some(Wanted { points: points?, reason: reason?, reference, expires_at, effective_at })
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AdjustmentRejection)]
pub struct RejectRequest {
    /// Why not.
    #[schema(value_type = String, min_length = 1, max_length = 500)]
    reason: Option<String>,
}

impl Checked for RejectRequest {
    type Value = String;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<String> {
        let reason = errors.required("reason", self.reason);
        errors.optional_text("reason", reason.as_deref(), 1..=500);
        reason
    }
}

/// An adjustment that needed an approval.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsAdjustment)]
pub struct AdjustmentView<'a> {
    #[schema(value_type = schema::AdjustmentId)]
    id: AdjustmentId,
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    /// More than 0: given; less: taken away.
    points: i64,
    #[schema(value_type = String)]
    reason: &'a str,
    #[schema(required, value_type = Option<String>)]
    reference: Option<&'a str>,
    #[schema(required)]
    expires_at: Option<Time>,
    #[schema(value_type = schema::AdjustmentStatus)]
    status: AdjustmentStatus,
    /// The key that asked; another one must approve.
    #[schema(required, value_type = Option<schema::KeyId>)]
    requested_by: Option<KeyId>,
    requested_at: Time,
    #[schema(required, value_type = Option<schema::KeyId>)]
    decided_by: Option<KeyId>,
    #[schema(required)]
    decided_at: Option<Time>,
    /// Why it was rejected.
    #[schema(required, value_type = Option<String>)]
    remark: Option<&'a str>,
    /// Of an approved one: what it made.
    #[schema(required, value_type = Option<schema::TransactionId>)]
    transaction_id: Option<TransactionId>,
}

impl<'a> From<&'a Adjustment> for AdjustmentView<'a> {
    fn from(row: &'a Adjustment) -> Self {
        AdjustmentView {
            id: row.id,
            member_id: &row.member_id,
            points: row.points,
            reason: &row.reason,
            reference: row.reference.as_deref(),
            expires_at: time(row.expires_at),
            status: row.status,
            requested_by: row.requested_by,
            requested_at: Time(row.requested_at),
            decided_by: row.decided_by,
            decided_at: time(row.decided_at),
            remark: row.remark.as_deref(),
            transaction_id: row.transaction_id,
        }
    }
}

/// Adjust a member's points by hand
///
/// With a reason, and at most as many points at a time as the key may move (`adjustment_limit`). The event names the key. Above what
/// the rules let one key do alone (`adjustments.approval_above`) nothing moves yet: the answer is 202 with an adjustment that waits
/// for the approval of another key.
#[utoipa::path(post, path = "/v1/members/{member_id}/points/adjustments", tag = "Points",
    security(("key" = ["OPERATOR"])),
    params(("member_id" = schema::MemberId, Path), IdempotencyKey), request_body = AdjustmentRequest,
    responses((status = 201, description = "Adjusted", body = TransactionView<'static>),
        (status = 202, description = "Waits for an approval", body = AdjustmentView<'static>), Problems))]
pub async fn create_adjustment(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(member_id): InPath<MemberId>,
    input: Input<AdjustmentRequest>,
) -> Result<Response, Problem> {
    let Wanted { points, reason, reference, expires_at, effective_at } = input.value;
    caller.check_limit(points.abs())?;
    let command = Command::Adjust(Box::new(Asked { member_id, points, reason, reference, expires_at }));
    answer::run_or_wait(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?).await
}

/// List adjustments that needed an approval, oldest first
#[utoipa::path(get, path = "/v1/points-adjustments", tag = "Points", security(("key" = ["OPERATOR"])),
    params(("status" = Option<schema::AdjustmentStatus>, Query), PageQuery),
    responses((status = 200, description = "A page", body = AdjustmentPage), Problems))]
pub async fn list_adjustments(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let status = parameters.take("status", "PENDING, APPROVED or REJECTED", AdjustmentStatus::parse);
    let page = parameters.page::<AdjustmentId>();
    parameters.finish()?;
    let mut rows = app.store.list_adjustments(caller.tenant(), status, page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut rows, page.limit, |row| row.id.write());
    answer::ok(&Page { data: rows.iter().map(AdjustmentView::from).collect(), next_cursor })
}

/// Read an adjustment that needed an approval
#[utoipa::path(get, path = "/v1/points-adjustments/{adjustment_id}", tag = "Points", security(("key" = ["OPERATOR"])),
    params(("adjustment_id" = schema::AdjustmentId, Path)),
    responses((status = 200, description = "The adjustment", body = AdjustmentView<'static>), Problems))]
pub async fn get_adjustment(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(adjustment_id): InPath<AdjustmentId>,
) -> Result<Response, Problem> {
    let found = app.store.find_adjustment(caller.tenant(), adjustment_id).await?;
    answer::ok(&AdjustmentView::from(&found.ok_or(Problem::new(Code::AdjustmentNotFound))?))
}

/// Approve an adjustment
///
/// By another key than the one that asked, and with a limit that admits so many points. Makes the transaction; approved once more, the
/// adjustment is answered as it is. When the member has too few points by now, it goes on waiting.
#[utoipa::path(post, path = "/v1/points-adjustments/{adjustment_id}/approve", tag = "Points",
    security(("key" = ["OPERATOR"])), params(("adjustment_id" = schema::AdjustmentId, Path), IdempotencyKey),
    request_body = Option<NoOptions>,
    responses((status = 200, description = "Approved", body = AdjustmentView<'static>), Problems))]
pub async fn approve_adjustment(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(adjustment_id): InPath<AdjustmentId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let found = app.store.find_adjustment(caller.tenant(), adjustment_id).await?;
    let Adjustment { member_id, points, .. } = found.ok_or(Problem::new(Code::AdjustmentNotFound))?;
    caller.check_limit(points.abs())?;
    let command = Command::ApproveAdjustment { member_id, adjustment_id };
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Reject an adjustment
#[utoipa::path(post, path = "/v1/points-adjustments/{adjustment_id}/reject", tag = "Points",
    security(("key" = ["OPERATOR"])), params(("adjustment_id" = schema::AdjustmentId, Path), IdempotencyKey),
    request_body = RejectRequest,
    responses((status = 200, description = "Rejected", body = AdjustmentView<'static>), Problems))]
pub async fn reject_adjustment(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(adjustment_id): InPath<AdjustmentId>,
    input: Input<RejectRequest>,
) -> Result<Response, Problem> {
    let command = Command::RejectAdjustment { adjustment_id, reason: input.value };
    answer::run(&app, caller.envelope(command, None, input.idempotency, input.now)?, StatusCode::OK).await
}
