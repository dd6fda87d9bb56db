//! Coupons: claimed by members, then locked, used, unlocked, returned by the shop's backend, revoked by operators.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use scrip_domain::coupon::{Coupon, CouponStatus, Definition, MAX_AMOUNT};
use scrip_domain::exchange::Exchange;
use scrip_domain::{Command, CouponId, MemberId, OrderId, TemplateId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AppState;
use super::answer;
use super::auth::{AnyKey, Operator, Service};
use super::consistency::{ConsistencyToken, Reads};
use super::extract::{Checked, Cursor, InPath, Input, Parameters};
use super::fields::FieldErrors;
use super::problem::{Code, Problem};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::time::Time;
use super::views::{CouponPage, CouponView, JobView, Page, TransactionView, UsagePage, UsageView};
use crate::clock;

/// Who claims.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    #[schema(value_type = schema::MemberId)]
    member_id: Option<MemberId>,
    /// Needed when the template names levels.
    #[schema(min_length = 1, max_length = 64)]
    member_level: Option<String>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

pub struct Claim {
    pub member_id: MemberId,
    pub member_level: Option<String>,
    pub effective_at: Option<Timestamp>,
}

impl Checked for ClaimRequest {
    type Value = Claim;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Claim> {
        let member_id = errors.required("member_id", self.member_id);
        errors.optional_text("member_level", self.member_level.as_deref(), 1..=64);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some(Claim { member_id: member_id?, member_level: self.member_level, effective_at })
    }
}

/// An order, for which a coupon is unlocked or returned.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    #[schema(value_type = schema::OrderId)]
    order_id: Option<OrderId>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for OrderRequest {
    type Value = (OrderId, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let order_id = errors.required("order_id", self.order_id);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((order_id?, effective_at))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRequest {
    #[schema(value_type = schema::OrderId)]
    order_id: Option<OrderId>,
    /// The lock's deadline. Null: until unlocked.
    expires_at: Option<Time>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for LockRequest {
    type Value = (OrderId, Option<Timestamp>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let order_id = errors.required("order_id", self.order_id);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((order_id?, self.expires_at.map(|at| at.0), effective_at))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UseRequest {
    #[schema(value_type = schema::OrderId)]
    order_id: Option<OrderId>,
    /// What the order got off, in minor units.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    discount_amount: Option<i64>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for UseRequest {
    type Value = (OrderId, Option<i64>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let order_id = errors.required("order_id", self.order_id);
        check_discount(errors, self.discount_amount);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((order_id?, self.discount_amount, effective_at))
    }
}

/// A discount is a small amount of money, or nothing.
pub fn check_discount(errors: &mut FieldErrors, amount: Option<i64>) {
    if let Some(amount) = amount {
        errors.within("discount_amount", amount, 0..=MAX_AMOUNT);
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    #[schema(value_type = String, min_length = 1, max_length = 500)]
    reason: Option<String>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for RevokeRequest {
    type Value = (String, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let reason = errors.required("reason", self.reason);
        errors.optional_text("reason", reason.as_deref(), 1..=500);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((reason?, effective_at))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    #[schema(value_type = schema::MemberId)]
    to_member_id: Option<MemberId>,
    #[schema(min_length = 1, max_length = 500)]
    reason: Option<String>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for TransferRequest {
    type Value = (MemberId, Option<String>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let to_member_id = errors.required("to_member_id", self.to_member_id);
        errors.optional_text("reason", self.reason.as_deref(), 1..=500);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((to_member_id?, self.reason, effective_at))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendRequest {
    /// When the coupon ends from now on. A coupon that ends later already stays as it is.
    #[schema(value_type = Time)]
    valid_until: Option<Time>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for ExtendRequest {
    type Value = (Timestamp, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let valid_until = errors.required("valid_until", self.valid_until);
        if let Some(end) = valid_until.filter(|end| end.0 <= now) {
            errors.add("valid_until", format!("is {end}"), format!("Send a time after now, which is {}.", Time(now)));
        }
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((valid_until?.0, effective_at))
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkExtendRequest {
    /// When the coupons end from now on. Those that end later already stay as they are.
    #[schema(value_type = Time)]
    valid_until: Option<Time>,
    /// Only coupons that would end before. Null or missing is all.
    ends_before: Option<Time>,
}

impl Checked for BulkExtendRequest {
    type Value = (Timestamp, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let valid_until = errors.required("valid_until", self.valid_until);
        if let Some(end) = valid_until.filter(|end| end.0 <= now) {
            errors.add("valid_until", format!("is {end}"), format!("Send a time after now, which is {}.", Time(now)));
        }
        Some((valid_until?.0, self.ends_before.map(|end| end.0)))
    }
}

/// Let a template's coupons end later
///
/// The answer is a job, which extends the open coupons (AVAILABLE or LOCKED) there are by then, one after another; its
/// progress tells how many it has `seen`, `extended` and had `refused`, because they were used or over in between.
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/extensions", tag = "Coupons",
    security(("key" = ["OPERATOR"])), params(("template_id" = schema::TemplateId, Path), IdempotencyKey),
    request_body = BulkExtendRequest,
    responses((status = 202, description = "Will be extended", body = JobView<'static>), Problems))]
pub async fn create_extension(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    input: Input<BulkExtendRequest>,
) -> Result<Response, Problem> {
    let (valid_until, ends_before) = input.value;
    let command = Command::EnqueueExtension { template_id, valid_until, ends_before };
    answer::run(&app, caller.envelope(command, None, input.idempotency, input.now)?, StatusCode::ACCEPTED).await
}

/// Claim a coupon
///
/// Checked in this order, the first failure is the answer: the template exists, is enabled, can be claimed from now, is not
/// past its validity; the member's level, the member's limit, the daily cap, the budget, the stock.
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/claims", tag = "Coupons",
    security(("key" = ["MEMBER"])), params(("template_id" = schema::TemplateId, Path), IdempotencyKey),
    request_body = ClaimRequest,
    responses((status = 201, description = "Claimed", body = CouponView<'static>), Problems))]
pub async fn create_claim(
    State(app): State<AppState>,
    key: AnyKey,
    InPath(template_id): InPath<TemplateId>,
    input: Input<ClaimRequest>,
) -> Result<Response, Problem> {
    let Claim { member_id, member_level, effective_at } = input.value;
    let caller = key.on_behalf_of(&member_id)?;
    let command = Command::Claim { template_id, member_id, member_level };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}

/// A coupon, and the debit that paid for it.
#[derive(Serialize, ToSchema)]
#[schema(as = CouponExchange)]
pub struct ExchangeView<'a> {
    #[schema(value_type = CouponView<'static>)]
    coupon: CouponView<'a>,
    #[schema(value_type = TransactionView<'static>)]
    transaction: TransactionView<'a>,
}

impl<'a> ExchangeView<'a> {
    pub fn new(made: &'a Exchange, definition: &'a Definition) -> Self {
        ExchangeView {
            coupon: CouponView::new(&made.coupon, definition),
            transaction: TransactionView::from(&made.transaction),
        }
    }
}

/// Pay points for a coupon
///
/// Takes the template's `points_price` from the member's points and makes the coupon: both, or neither. The checks of a claim come
/// first, in their order, then whether the points suffice. The points stay spent when the coupon expires or is revoked; reversing
/// the transaction gives them back.
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/exchanges", tag = "Coupons",
    security(("key" = ["MEMBER"])), params(("template_id" = schema::TemplateId, Path), IdempotencyKey),
    request_body = ClaimRequest,
    responses((status = 201, description = "Exchanged", body = ExchangeView<'static>), Problems))]
pub async fn create_exchange(
    State(app): State<AppState>,
    key: AnyKey,
    InPath(template_id): InPath<TemplateId>,
    input: Input<ClaimRequest>,
) -> Result<Response, Problem> {
    let Claim { member_id, member_level, effective_at } = input.value;
    let caller = key.on_behalf_of(&member_id)?;
    let command = Command::Exchange { template_id, member_id, member_level };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}

/// Read a coupon
#[utoipa::path(get, path = "/v1/coupons/{coupon_id}", tag = "Coupons", security(("key" = ["MEMBER"])),
    params(("coupon_id" = schema::CouponId, Path), ConsistencyToken),
    responses((status = 200, description = "The coupon", body = CouponView<'static>), Problems))]
pub async fn get_coupon(
    State(app): State<AppState>,
    key: AnyKey,
    reads: Reads,
    InPath(coupon_id): InPath<CouponId>,
) -> Result<Response, Problem> {
    let found = reads.find_coupon(key.tenant_to_search(), coupon_id).await?;
    let Some(coupon) = found.filter(|coupon| key.may_see(&coupon.member_id)) else {
        return Err(Problem::new(Code::CouponNotFound));
    };
    let caller = key.on_behalf_of(&coupon.member_id)?;
    let definition = definition_of(&app, &caller, &coupon).await?;
    answer::ok(&CouponView::at(&coupon, &definition, clock::now()))
}

/// List a member's coupons, newest first
#[utoipa::path(get, path = "/v1/members/{member_id}/coupons", tag = "Coupons", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), ("status" = Option<schema::CouponStatus>, Query),
        ("template_id" = Option<schema::TemplateId>, Query), PageQuery, ConsistencyToken),
    responses((status = 200, description = "A page", body = CouponPage), Problems))]
pub async fn list_coupons(
    State(app): State<AppState>,
    key: AnyKey,
    reads: Reads,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let caller = key.on_behalf_of(&member_id)?;
    let mut parameters = Parameters::of(&uri)?;
    let status = parameters.take("status", "AVAILABLE, LOCKED, USED, EXPIRED or REVOKED", CouponStatus::parse);
    let template = parameters.take("template_id", "a template id", |text| text.parse().ok());
    let page = parameters.page();
    parameters.finish()?;
    let (tenant, now, limit) = (caller.tenant(), clock::now(), page.limit + 1);
    let mut coupons = reads.list_coupons(tenant, &member_id, status, template, now, page.cursor, limit).await?;
    let next_cursor = super::cut(&mut coupons, page.limit, |coupon| coupon.id.write());
    let versions = coupons.iter().map(|coupon| (coupon.template_id, coupon.template_version));
    reads.learn_definitions(caller.tenant(), versions).await?;
    let mut definitions = Vec::with_capacity(coupons.len());
    for coupon in &coupons {
        // From memory, nearly always: a version never changes.
        definitions.push(definition_of(&app, &caller, coupon).await?);
    }
    let data = coupons.iter().zip(&definitions).map(|(coupon, definition)| CouponView::at(coupon, definition, now));
    answer::ok(&Page { data: data.collect(), next_cursor })
}

async fn definition_of(
    app: &AppState,
    caller: &super::auth::Caller,
    coupon: &Coupon,
) -> Result<Arc<Definition>, Problem> {
    let (template, version) = (coupon.template_id, coupon.template_version);
    let found = app.store.definition(caller.tenant(), template, version).await?;
    found.ok_or_else(|| Problem::internal(format!("version {version} of the template {template} is missing")))
}

/// Where a page of uses ends: its instant in microseconds, and its coupon.
struct UseCursor(Timestamp, CouponId);

impl Cursor for UseCursor {
    fn write(&self) -> String {
        format!("{}.{}", self.0.0, self.1)
    }

    fn read(text: &str) -> Option<Self> {
        let (at, id) = text.split_once('.')?;
        Some(UseCursor(Timestamp(at.parse().ok()?), id.parse().ok()?))
    }
}

/// List the uses of coupons, newest first
///
/// Those that stand: a use taken back by a return is none. GET /v1/exports/usages gives all of them as a file.
#[utoipa::path(get, path = "/v1/coupon-usages", tag = "Coupons", security(("key" = ["SERVICE"])),
    params(("template_id" = Option<schema::TemplateId>, Query), ("from" = Option<Time>, Query),
        ("until" = Option<Time>, Query), PageQuery, ConsistencyToken),
    responses((status = 200, description = "A page", body = UsagePage), Problems))]
pub async fn list_usages(
    State(app): State<AppState>,
    Service(caller): Service,
    uri: Uri,
    reads: Reads,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let template = parameters.take("template_id", "a template id", |text| text.parse().ok());
    let from = parameters.time("from");
    let until = parameters.time("until");
    let page = parameters.page::<UseCursor>();
    parameters.finish()?;
    let after = page.cursor.map(|UseCursor(at, id)| (at, id));
    let (tenant, limit) = (caller.tenant(), page.limit + 1);
    let mut coupons = reads.list_usages(tenant, template, from, until, after, limit).await?;
    let next_cursor = super::cut(&mut coupons, page.limit, |coupon| {
        UseCursor(coupon.used_at.unwrap_or(Timestamp(0)), coupon.id).write()
    });
    let versions = coupons.iter().map(|coupon| (coupon.template_id, coupon.template_version));
    reads.learn_definitions(tenant, versions).await?;
    let mut definitions = Vec::with_capacity(coupons.len());
    for coupon in &coupons {
        definitions.push(definition_of(&app, &caller, coupon).await?);
    }
    let data = coupons.iter().zip(&definitions).map(|(coupon, definition)| UsageView::new(coupon, definition));
    answer::ok(&Page { data: data.collect(), next_cursor })
}

/// Lock a coupon for an order
///
/// The lock is honoured until its deadline, even when the coupon's validity ends in between.
#[utoipa::path(post, path = "/v1/coupons/{coupon_id}/lock", tag = "Coupons", security(("key" = ["SERVICE"])),
    params(("coupon_id" = schema::CouponId, Path), IdempotencyKey), request_body = LockRequest,
    responses((status = 200, description = "Locked by the order", body = CouponView<'static>), Problems))]
pub async fn lock_coupon(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(coupon_id): InPath<CouponId>,
    input: Input<LockRequest>,
) -> Result<Response, Problem> {
    let (order_id, expires_at, effective_at) = input.value;
    let command = Command::LockCoupon { coupon_id, order_id, expires_at };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Use a coupon that the order has locked
#[utoipa::path(post, path = "/v1/coupons/{coupon_id}/use", tag = "Coupons", security(("key" = ["SERVICE"])),
    params(("coupon_id" = schema::CouponId, Path), IdempotencyKey), request_body = UseRequest,
    responses((status = 200, description = "Used by the order", body = CouponView<'static>), Problems))]
pub async fn use_coupon(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(coupon_id): InPath<CouponId>,
    input: Input<UseRequest>,
) -> Result<Response, Problem> {
    let (order_id, discount_amount, effective_at) = input.value;
    let command = Command::UseCoupon { coupon_id, order_id, discount_amount };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Unlock a coupon of an order that was cancelled
#[utoipa::path(post, path = "/v1/coupons/{coupon_id}/unlock", tag = "Coupons", security(("key" = ["SERVICE"])),
    params(("coupon_id" = schema::CouponId, Path), IdempotencyKey), request_body = OrderRequest,
    responses((status = 200, description = "Not locked", body = CouponView<'static>), Problems))]
pub async fn unlock_coupon(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(coupon_id): InPath<CouponId>,
    input: Input<OrderRequest>,
) -> Result<Response, Problem> {
    let (order_id, effective_at) = input.value;
    let command = Command::UnlockCoupon { coupon_id, order_id };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Return a used coupon after the order's full refund
#[utoipa::path(post, path = "/v1/coupons/{coupon_id}/return", tag = "Coupons", security(("key" = ["SERVICE"])),
    params(("coupon_id" = schema::CouponId, Path), IdempotencyKey), request_body = OrderRequest,
    responses((status = 200, description = "Returned", body = CouponView<'static>), Problems))]
pub async fn return_coupon(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(coupon_id): InPath<CouponId>,
    input: Input<OrderRequest>,
) -> Result<Response, Problem> {
    let (order_id, effective_at) = input.value;
    let templates = app.store.templates_of_coupons(caller.tenant(), &[coupon_id]).await?;
    let template_id = *templates.get(&coupon_id).ok_or(Problem::new(Code::CouponNotFound))?;
    let command = Command::ReturnCoupon { coupon_id, template_id, order_id };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Revoke a coupon
#[utoipa::path(post, path = "/v1/coupons/{coupon_id}/revoke", tag = "Coupons", security(("key" = ["OPERATOR"])),
    params(("coupon_id" = schema::CouponId, Path), IdempotencyKey), request_body = RevokeRequest,
    responses((status = 200, description = "Revoked", body = CouponView<'static>), Problems))]
pub async fn revoke_coupon(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(coupon_id): InPath<CouponId>,
    input: Input<RevokeRequest>,
) -> Result<Response, Problem> {
    let (reason, effective_at) = input.value;
    let command = Command::RevokeCoupon { coupon_id, reason };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Give a coupon to another member
///
/// The coupon ends as REVOKED; the other member gets one of the same terms, which is the answer. It counts against that
/// member's limit, and makes no room in the giver's.
#[utoipa::path(post, path = "/v1/coupons/{coupon_id}/transfer", tag = "Coupons", security(("key" = ["SERVICE"])),
    params(("coupon_id" = schema::CouponId, Path), IdempotencyKey), request_body = TransferRequest,
    responses((status = 201, description = "The other member's coupon", body = CouponView<'static>), Problems))]
pub async fn transfer_coupon(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(coupon_id): InPath<CouponId>,
    input: Input<TransferRequest>,
) -> Result<Response, Problem> {
    let (to_member_id, reason, effective_at) = input.value;
    let templates = app.store.templates_of_coupons(caller.tenant(), &[coupon_id]).await?;
    let template_id = *templates.get(&coupon_id).ok_or(Problem::new(Code::CouponNotFound))?;
    let command = Command::TransferCoupon { coupon_id, template_id, to_member_id, reason };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}

/// Let a coupon end later
#[utoipa::path(post, path = "/v1/coupons/{coupon_id}/extend", tag = "Coupons", security(("key" = ["OPERATOR"])),
    params(("coupon_id" = schema::CouponId, Path), IdempotencyKey), request_body = ExtendRequest,
    responses((status = 200, description = "Extended", body = CouponView<'static>), Problems))]
pub async fn extend_coupon(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(coupon_id): InPath<CouponId>,
    input: Input<ExtendRequest>,
) -> Result<Response, Problem> {
    let (valid_until, effective_at) = input.value;
    let command = Command::ExtendCoupon { coupon_id, valid_until };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}
