//! Orders: coupons and points of a sale reserved, then paid or cancelled, and refunded.

use std::collections::HashSet;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use scrip_domain::coupon::{Compensation, CompensationReason, CompensationStatus, CouponStatus, MAX_AMOUNT};
use scrip_domain::order::{Order, OrderStatus, Quoted, Refund, RefundRequest as Refunding, Reservation};
use scrip_domain::points::MAX_POINTS;
use scrip_domain::pricing::{Attributes, Basket, Line, MAX_LINES, MAX_QUANTITY};
use scrip_domain::time::{CapPeriod, LocalTime, MICROS_PER_DAY};
use scrip_domain::{
    Command, CompensationId, CouponId, HoldId, KeyId, MemberId, OrderId, OrderUid, RefundId, TemplateId, TenantId,
    Timestamp, TransactionId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AppState;
use super::answer;
use super::auth::{AnyKey, Caller, Operator, Service};
use super::baskets::{self, LineRequest};
use super::consistency::{ConsistencyToken, Reads};
use super::extract::{Checked, Cursor, InPath, Input, NoOptions, Object, Parameters};
use super::fields::FieldErrors;
use super::points::check_remark;
use super::problem::{Code, Problem};
use super::quote_token::{self, QuoteKey};
use super::quotes::{AmountsView, ShareView};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::time::Time;
use super::views::{CompensationPage, OrderPage, Page, RefundPage};
use crate::clock;

/// How long an order is reserved when the request does not say, in minutes.
const DEFAULT_MINUTES: i64 = 30;
/// How far ahead a deadline may lie, in days.
const MAX_DAYS_AHEAD: i64 = 30;
const MICROS_PER_MINUTE: i64 = 60_000_000;

/// What somebody buys.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReservationRequest {
    /// Unique in the tenant. The same id with the same goods, coupons and points answers the order as it stands.
    #[schema(value_type = schema::OrderId)]
    pub order_id: Option<OrderId>,
    #[schema(value_type = schema::MemberId)]
    pub member_id: Option<MemberId>,
    /// Sent, it must be one of those a coupon's template names.
    #[schema(min_length = 1, max_length = 64)]
    pub member_level: Option<String>,
    #[schema(value_type = Vec<LineRequest>, min_items = 1, max_items = 200)]
    pub lines: Option<Vec<Object<LineRequest>>>,
    /// In minor units. Default: 0.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    pub freight: Option<i64>,
    /// All of them must apply. Default: none.
    #[schema(value_type = Option<Vec<schema::CouponId>>, max_items = 20)]
    pub coupon_ids: Option<Vec<CouponId>>,
    /// To pay with; the rules may allow fewer. Default: 0.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000i64)]
    pub points: Option<i64>,
    /// Of a quote for the same member, goods, coupons and points: the order gets its price while it holds. Default: priced anew.
    #[schema(max_length = 100)]
    pub quote_token: Option<String>,
    /// Until when everything is kept for the order, 30 days ahead at most. Default: 30 minutes.
    pub expires_at: Option<Time>,
    /// What conditions of coupons ask of the order.
    #[schema(value_type = Option<schema::Attributes>)]
    pub attributes: Option<Attributes>,
    /// What conditions of coupons ask of the member.
    #[schema(value_type = Option<schema::Attributes>)]
    pub member_attributes: Option<Attributes>,
    /// Operators only; never in the future.
    pub effective_at: Option<Time>,
}

/// A reservation but for the clock of the tenant's place.
pub struct Wish {
    pub order_id: OrderId,
    pub member_id: MemberId,
    member_level: Option<String>,
    lines: Vec<Line>,
    freight: i64,
    coupon_ids: Vec<CouponId>,
    points: i64,
    expires_at: Timestamp,
    attributes: Attributes,
    member_attributes: Attributes,
    quote_token: Option<String>,
    effective_at: Option<Timestamp>,
}

impl Checked for ReservationRequest {
    type Value = Wish;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Wish> {
        let effective_at = errors.effective_at(self.effective_at, now);
        let at = effective_at.unwrap_or(now);
        let order_id = errors.required("order_id", self.order_id);
        let member_id = errors.required("member_id", self.member_id);
        errors.optional_text("member_level", self.member_level.as_deref(), 1..=64);
        let lines = baskets::check_lines(errors, self.lines);
        let freight = errors.within("freight", self.freight.unwrap_or(0), 0..=MAX_AMOUNT);
        let coupon_ids = self.coupon_ids.unwrap_or_default();
        baskets::check_coupon_ids(errors, &coupon_ids);
        let points = errors.within("points", self.points.unwrap_or(0), 0..=MAX_POINTS);
        let default = Timestamp(at.0 + DEFAULT_MINUTES * MICROS_PER_MINUTE);
        let expires_at = self.expires_at.map_or(default, |at| at.0);
        let last = Timestamp(at.0 + MAX_DAYS_AHEAD * MICROS_PER_DAY);
        if expires_at > last {
            errors.add("expires_at", "lies too far ahead", format!("Send a time up to {}.", Time(last)));
        }
        errors.optional_text("quote_token", self.quote_token.as_deref(), 1..=100);
        if self.quote_token.is_some() && effective_at.is_some() {
            errors.add("quote_token", "goes not with `effective_at`", "Leave one of them out.");
        }
        let attributes = self.attributes.unwrap_or_default();
        baskets::check_attributes(errors, "attributes", &attributes);
        let member_attributes = self.member_attributes.unwrap_or_default();
        baskets::check_attributes(errors, "member_attributes", &member_attributes);
        Some(Wish {
            order_id: order_id?,
            member_id: member_id?,
            member_level: self.member_level,
            lines: lines?,
            freight: freight?,
            coupon_ids,
            points: points?,
            expires_at,
            attributes,
            member_attributes,
            quote_token: self.quote_token,
            effective_at,
        })
    }
}

impl Wish {
    /// What the token promises, if there is one, and the basket but for the clock.
    ///
    /// # Errors
    /// When the token is not one for this.
    pub fn quoted(&self, key: &QuoteKey, tenant: TenantId) -> Result<Option<Quoted>, Problem> {
        let Some(token) = &self.quote_token else { return Ok(None) };
        let basket = self.basket(LocalTime { day: 0, minute: 0 });
        let asked = quote_token::asked(&self.member_id, &basket, self.coupon_ids.iter().copied(), self.points);
        let remedy = "Send the token of a quote for the same member, goods, coupons and points, or leave it out.";
        let quoted = key.read(tenant, token, asked);
        quoted.map(Some).ok_or_else(|| Problem::field("quote_token", "is not for this order", remedy))
    }

    fn basket(&self, local_time: LocalTime) -> Basket {
        Basket {
            lines: self.lines.clone(),
            freight: self.freight,
            member_level: self.member_level.clone(),
            local_time,
            attributes: self.attributes.clone(),
            member_attributes: self.member_attributes.clone(),
        }
    }

    /// The command, once the clock of the tenant's place is known, as it was when the order was quoted.
    pub fn command(self, local_time: LocalTime, quoted: Option<Quoted>) -> Command {
        Command::ReserveOrder(Box::new(Reservation {
            order_id: self.order_id,
            member_id: self.member_id,
            basket: Basket {
                lines: self.lines,
                freight: self.freight,
                member_level: self.member_level,
                local_time,
                attributes: self.attributes,
                member_attributes: self.member_attributes,
            },
            coupon_ids: self.coupon_ids,
            points: self.points,
            expires_at: self.expires_at,
            quoted,
        }))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// For your records.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for CancelRequest {
    type Value = (Option<String>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        errors.optional_text("reason", self.reason.as_deref(), 0..=500);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((self.reason, effective_at))
    }
}

/// Units of an item.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RefundLine)]
pub struct RefundLineRequest {
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    pub item_id: Option<String>,
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000)]
    pub quantity: Option<i64>,
}

/// What is refunded: `full`, or some `lines`, `freight`, or both.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundRequest {
    /// Unique in the order. The same id with the same contents answers that refund.
    #[schema(value_type = schema::RefundId)]
    pub refund_id: Option<RefundId>,
    /// Everything that is left, freight included.
    pub full: Option<bool>,
    #[schema(value_type = Option<Vec<RefundLineRequest>>, max_items = 200)]
    pub lines: Option<Vec<Object<RefundLineRequest>>>,
    /// How much of the freight, in minor units. Default: 0.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    pub freight: Option<i64>,
    /// Whether the coupons go back to the member when no goods are left. Default: true.
    pub return_coupons: Option<bool>,
    #[schema(max_length = 500)]
    pub remark: Option<String>,
    /// Operators only; never in the future.
    pub effective_at: Option<Time>,
}

impl Checked for RefundRequest {
    type Value = (Refunding, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let effective_at = errors.effective_at(self.effective_at, now);
        let refund_id = errors.required("refund_id", self.refund_id);
        check_remark(errors, self.remark.as_deref());
        let full = self.full.unwrap_or(false);
        let freight = errors.within("freight", self.freight.unwrap_or(0), 0..=MAX_AMOUNT);
        let lines = self.lines.map(|lines| check_refund_lines(errors, lines));
        match (full, &lines, freight) {
            (true, Some(_), _) => errors.add("lines", "goes not with `full`", "Leave one of them out."),
            (true, None, Some(1..)) => errors.add("freight", "goes not with `full`", "Leave one of them out."),
            (false, None, Some(0)) => errors.add("lines", "is required", "Send some lines, or `full`: true."),
            _ => {}
        }
        let lines = if full { None } else { Some(lines.unwrap_or_default()) };
        let refund = Refunding {
            refund_id: refund_id?,
            lines,
            freight: freight?,
            return_coupons: self.return_coupons.unwrap_or(true),
            remark: self.remark,
        };
        Some((refund, effective_at))
    }
}

fn check_refund_lines(errors: &mut FieldErrors, lines: Vec<Object<RefundLineRequest>>) -> Vec<(String, i64)> {
    if lines.is_empty() || lines.len() > MAX_LINES {
        let message = format!("has {} entries", lines.len());
        errors.add("lines", message, format!("Send 1 to {MAX_LINES} lines."));
        return Vec::new();
    }
    let mut item_ids = HashSet::with_capacity(lines.len());
    let mut checked = Vec::with_capacity(lines.len());
    for (index, Object(line)) in lines.into_iter().enumerate() {
        let field = |name: &str| format!("lines[{index}].{name}");
        let item_id = errors.required(field("item_id"), line.item_id).unwrap_or_default();
        errors.text(field("item_id"), &item_id, 1..=64);
        if !item_ids.insert(item_id.clone()) {
            errors.add(field("item_id"), "is given twice", "Add up its units in one line.");
        }
        if let Some(quantity) = errors.integer(field("quantity"), line.quantity, 1..=MAX_QUANTITY) {
            checked.push((item_id, quantity));
        }
    }
    checked
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompensationRequest {
    /// RESOLVED: the member was compensated; DISMISSED: not.
    #[schema(value_type = schema::CompensationOutcome)]
    status: Option<CompensationStatus>,
    /// What was done, or why nothing.
    #[schema(value_type = String, min_length = 1, max_length = 500)]
    remark: Option<String>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for CompensationRequest {
    type Value = (CompensationStatus, String, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let effective_at = errors.effective_at(self.effective_at, now);
        let status = errors.required("status", self.status);
        if status == Some(CompensationStatus::Pending) {
            errors.add("status", "is PENDING", "Send RESOLVED or DISMISSED.");
        }
        let remark = errors.required("remark", self.remark);
        errors.optional_text("remark", remark.as_deref(), 1..=500);
        Some((status?, remark?, effective_at))
    }
}

/// Reserve an order
///
/// Prices it as a quote does, locks its coupons and holds its points, all or nothing, until `expires_at`. Every coupon must
/// apply: a refusal names the coupon in `coupon_id`.
#[utoipa::path(post, path = "/v1/orders", tag = "Orders", security(("key" = ["SERVICE"])), params(IdempotencyKey),
    request_body = ReservationRequest,
    responses((status = 201, description = "Reserved", body = OrderView<'static>), Problems))]
pub async fn reserve_order(
    State(app): State<AppState>,
    Service(caller): Service,
    input: Input<ReservationRequest>,
) -> Result<Response, Problem> {
    let effective_at = input.value.effective_at;
    let quoted = input.value.quoted(&app.quote_key, caller.tenant())?;
    let at = caller.at(effective_at, input.now)?;
    let at = quoted.map_or(at, |quoted| quoted.at);
    let command = input.value.command(app.local_time(caller.tenant(), at).await?, quoted);
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}

/// Read an order
#[utoipa::path(get, path = "/v1/orders/{order_id}", tag = "Orders", security(("key" = ["MEMBER"])),
    params(("order_id" = schema::OrderId, Path), ConsistencyToken),
    responses((status = 200, description = "The order", body = OrderView<'static>), Problems))]
pub async fn get_order(key: AnyKey, reads: Reads, InPath(order_id): InPath<OrderId>) -> Result<Response, Problem> {
    let found = reads.find_order(key.tenant_to_search(), &order_id).await?;
    let order = found.filter(|order| key.may_see(&order.member_id)).ok_or(Problem::new(Code::OrderNotFound))?;
    answer::ok(&OrderView::at(&order, clock::now()))
}

/// List a member's orders, newest first
#[utoipa::path(get, path = "/v1/members/{member_id}/orders", tag = "Orders", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), ("status" = Option<schema::OrderStatus>, Query), PageQuery, ConsistencyToken),
    responses((status = 200, description = "A page", body = OrderPage), Problems))]
pub async fn list_orders(
    key: AnyKey,
    reads: Reads,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.on_behalf_of(&member_id)?.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let status = parameters.take("status", "an order status, like PAID", OrderStatus::parse);
    let page = parameters.page();
    parameters.finish()?;
    let (now, limit) = (clock::now(), page.limit + 1);
    let mut orders = reads.list_orders(tenant, &member_id, status, now, page.cursor, limit).await?;
    let next_cursor = super::cut(&mut orders, page.limit, |order| order.id.write());
    answer::ok(&Page { data: orders.iter().map(|order| OrderView::at(order, now)).collect(), next_cursor })
}

/// Whose order it is, which never changes.
async fn member_of(app: &AppState, caller: &Caller, order_id: &OrderId) -> Result<MemberId, Problem> {
    let mut members = app.store.members_of_orders(caller.tenant(), &[order_id]).await?;
    members.remove(order_id).ok_or(Problem::new(Code::OrderNotFound))
}

/// Pay an order
///
/// Uses its coupons, spends its points and grants what it earns, at once or when the rules say. An order past its deadline is
/// paid as well while everything it had reserved is still free; else the answer is 409 `ORDER_EXPIRED`.
#[utoipa::path(post, path = "/v1/orders/{order_id}/pay", tag = "Orders", security(("key" = ["SERVICE"])),
    params(("order_id" = schema::OrderId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Paid", body = OrderView<'static>), Problems))]
pub async fn pay_order(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(order_id): InPath<OrderId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let at = caller.at(input.value, input.now)?;
    let member_id = member_of(&app, &caller, &order_id).await?;
    let calendar = app.store.calendar(caller.tenant(), at).await?;
    let command = Command::PayOrder { member_id, order_id, calendar };
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Grant what a paid order earns before it is due
///
/// With `earn.delay_days` points come in that much later; this grants them now, when the shop knows that the goods stay. An order
/// whose points are granted, or that has none to come, is answered as it stands.
#[utoipa::path(post, path = "/v1/orders/{order_id}/confirm", tag = "Orders", security(("key" = ["SERVICE"])),
    params(("order_id" = schema::OrderId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Confirmed", body = OrderView<'static>), Problems))]
pub async fn confirm_order(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(order_id): InPath<OrderId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let at = caller.at(input.value, input.now)?;
    let member_id = member_of(&app, &caller, &order_id).await?;
    let calendar = app.store.calendar(caller.tenant(), at).await?;
    let command = Command::ConfirmOrder { member_id, order_id, calendar };
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Cancel an order that is not paid
///
/// Unlocks its coupons and releases its points. Cancelling one that was cancelled, or released by its deadline, changes nothing.
#[utoipa::path(post, path = "/v1/orders/{order_id}/cancel", tag = "Orders", security(("key" = ["SERVICE"])),
    params(("order_id" = schema::OrderId, Path), IdempotencyKey), request_body = Option<CancelRequest>,
    responses((status = 200, description = "Cancelled", body = OrderView<'static>), Problems))]
pub async fn cancel_order(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(order_id): InPath<OrderId>,
    input: Input<CancelRequest>,
) -> Result<Response, Problem> {
    let (reason, effective_at) = input.value;
    let member_id = member_of(&app, &caller, &order_id).await?;
    let command = Command::CancelOrder { member_id, order_id, reason };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Refund an order, wholly or in part
///
/// Tells how much to pay back. Spent points return to their lots, earned points are taken back; what is missing becomes debt or is
/// forgiven, as the points rules of the time say (`refund.debt_policy`). Any number of refunds adds up exactly. When no goods are left, the coupons return to the member; one that has expired
/// meanwhile lives for its template's `refund_extend_days` more, or becomes a compensation case.
#[utoipa::path(post, path = "/v1/orders/{order_id}/refunds", tag = "Orders", security(("key" = ["SERVICE"])),
    params(("order_id" = schema::OrderId, Path), IdempotencyKey), request_body = RefundRequest,
    responses((status = 201, description = "Refunded", body = RefundView<'static>), Problems))]
pub async fn refund_order(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(order_id): InPath<OrderId>,
    input: Input<RefundRequest>,
) -> Result<Response, Problem> {
    let (refund, effective_at) = input.value;
    let member_id = member_of(&app, &caller, &order_id).await?;
    let command = Command::RefundOrder { member_id, order_id, refund: Box::new(refund) };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}

/// List an order's refunds, by their ids
#[utoipa::path(get, path = "/v1/orders/{order_id}/refunds", tag = "Orders", security(("key" = ["MEMBER"])),
    params(("order_id" = schema::OrderId, Path), PageQuery, ConsistencyToken),
    responses((status = 200, description = "A page", body = RefundPage), Problems))]
pub async fn list_refunds(
    key: AnyKey,
    reads: Reads,
    InPath(order_id): InPath<OrderId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.tenant_to_search();
    let mut parameters = Parameters::of(&uri)?;
    let page = parameters.page::<RefundId>();
    parameters.finish()?;
    let member = reads.members_of_orders(tenant, &[&order_id]).await?.remove(&order_id);
    member.filter(|member| key.may_see(member)).ok_or(Problem::new(Code::OrderNotFound))?;
    let after = page.cursor.as_ref().map(|id| id.as_str());
    let mut refunds = reads.list_refunds(tenant, &order_id, after, page.limit + 1).await?;
    let next_cursor = super::cut(&mut refunds, page.limit, |refund| refund.refund_id.write());
    answer::ok(&Page { data: refunds.iter().map(RefundView::from).collect(), next_cursor })
}

/// List compensation cases, oldest first
///
/// Coupons that had expired when their order was refunded and could not be extended. An operator compensates the member by
/// hand, with points or another coupon, and closes the case.
#[utoipa::path(get, path = "/v1/coupon-compensations", tag = "Orders", security(("key" = ["OPERATOR"])),
    params(("status" = Option<schema::CompensationStatus>, Query), PageQuery, ConsistencyToken),
    responses((status = 200, description = "A page", body = CompensationPage), Problems))]
pub async fn list_compensations(Operator(caller): Operator, reads: Reads, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let status = parameters.take("status", "PENDING, RESOLVED or DISMISSED", CompensationStatus::parse);
    let page = parameters.page();
    parameters.finish()?;
    let mut cases = reads.list_compensations(caller.tenant(), status, page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut cases, page.limit, |case| case.id.write());
    answer::ok(&Page { data: cases.iter().map(CompensationView::from).collect(), next_cursor })
}

/// Close a compensation case
#[utoipa::path(post, path = "/v1/coupon-compensations/{compensation_id}/close", tag = "Orders",
    security(("key" = ["OPERATOR"])), params(("compensation_id" = schema::CompensationId, Path), IdempotencyKey),
    request_body = CompensationRequest,
    responses((status = 200, description = "Closed", body = CompensationView<'static>), Problems))]
pub async fn close_compensation(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(compensation_id): InPath<CompensationId>,
    input: Input<CompensationRequest>,
) -> Result<Response, Problem> {
    let (status, remark, effective_at) = input.value;
    let command = Command::CloseCompensation { compensation_id, status, remark };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

/// An order, with the price it was reserved at.
#[derive(Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderView<'a> {
    #[schema(value_type = schema::OrderUid)]
    id: OrderUid,
    #[schema(value_type = schema::OrderId)]
    order_id: &'a OrderId,
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    #[schema(value_type = schema::OrderStatus)]
    status: OrderStatus,
    #[serde(flatten)]
    #[schema(inline)]
    amounts: AmountsView,
    coupons: Vec<OrderCouponView>,
    #[schema(value_type = Vec<OrderLineView<'static>>)]
    lines: Vec<OrderLineView<'a>>,
    /// The version of the tenant's rules that made the price.
    rules_version: i64,
    /// What holds its points; null when it redeems none.
    #[schema(required, value_type = Option<schema::HoldId>)]
    hold_id: Option<HoldId>,
    /// The transaction that spent its points.
    #[schema(required, value_type = Option<schema::TransactionId>)]
    spend_transaction_id: Option<TransactionId>,
    /// The transaction that granted what it earned.
    #[schema(required, value_type = Option<schema::TransactionId>)]
    earn_transaction_id: Option<TransactionId>,
    points_granted: i64,
    /// Earned, and kept back at the grant by the rule's limit for a member's day, week or month.
    points_cut: i64,
    /// Whose limit it was; null when nothing was kept back.
    #[schema(required, value_type = Option<schema::CapPeriod>)]
    points_cut_by: Option<CapPeriod>,
    /// Earned and still to be granted, at `earn_due_at`.
    points_pending: i64,
    #[schema(required)]
    earn_due_at: Option<Time>,
    /// Of goods and freight.
    refunded_amount: i64,
    refunded_freight: i64,
    points_returned: i64,
    points_clawed_back: i64,
    coupons_returned: bool,
    created_at: Time,
    expires_at: Time,
    #[schema(required)]
    paid_at: Option<Time>,
    /// When it was cancelled, or released by its deadline.
    #[schema(required)]
    closed_at: Option<Time>,
}

/// A coupon of an order.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderCoupon)]
pub struct OrderCouponView {
    #[schema(value_type = schema::CouponId)]
    id: CouponId,
    #[schema(value_type = schema::TemplateId)]
    template_id: TemplateId,
    /// Off goods or freight, in minor units.
    discount: i64,
}

/// A line of an order.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderLine)]
pub struct OrderLineView<'a> {
    #[schema(value_type = String)]
    item_id: &'a str,
    #[schema(value_type = String)]
    product_id: &'a str,
    #[schema(required, value_type = Option<String>)]
    sku_id: Option<&'a str>,
    unit_price: i64,
    quantity: i64,
    refunded_quantity: i64,
    /// At item prices.
    amount: i64,
    coupon_discount: i64,
    points_discount: i64,
    points_spent: i64,
    pay_amount: i64,
    points_to_earn: i64,
    /// Of them, what was kept back at the grant.
    points_cut: i64,
    coupons: Vec<ShareView>,
}

impl<'a> OrderView<'a> {
    /// The order as a command left it.
    pub fn new(order: &'a Order) -> Self {
        let coupons = order.quote.coupons.iter().map(|coupon| OrderCouponView {
            id: coupon.coupon_id,
            template_id: coupon.template_id,
            discount: coupon.discount,
        });
        let lines = order.quote.lines.iter().zip(&order.basket.lines).zip(&order.refunded_quantities).enumerate();
        let lines = lines.map(|(place, ((quote, line), refunded))| OrderLineView {
            item_id: &line.item_id,
            product_id: &line.product_id,
            sku_id: line.sku_id.as_deref(),
            unit_price: line.unit_price,
            quantity: line.quantity,
            refunded_quantity: *refunded,
            amount: quote.amount,
            coupon_discount: quote.coupon_discount,
            points_discount: quote.points_discount,
            points_spent: quote.points_spent,
            pay_amount: quote.pay_amount,
            points_to_earn: quote.points_to_earn,
            points_cut: quote.points_to_earn - order.earned_by(place, quote.quantity),
            coupons: quote.coupons.iter().map(|(id, discount)| ShareView::new(*id, *discount)).collect(),
        });
        OrderView {
            id: order.id,
            order_id: &order.order_id,
            member_id: &order.member_id,
            status: order.status,
            amounts: AmountsView::from(&*order.quote),
            coupons: coupons.collect(),
            lines: lines.collect(),
            rules_version: order.rules_version,
            hold_id: order.hold_id,
            spend_transaction_id: order.spend_id,
            earn_transaction_id: order.earn_id,
            points_granted: order.points_granted,
            points_cut: order.points_cut(),
            points_cut_by: order.earn_cut.as_ref().map(|cut| cut.by),
            points_pending: order.points_pending(),
            earn_due_at: order.earn_due_at.map(Time),
            refunded_amount: order.refunded_amount,
            refunded_freight: order.refunded_freight,
            points_returned: order.points_returned,
            points_clawed_back: order.points_clawed_back,
            coupons_returned: order.coupons_returned,
            created_at: Time(order.created_at),
            expires_at: Time(order.expires_at),
            paid_at: order.paid_at.map(Time),
            closed_at: order.closed_at.map(Time),
        }
    }

    /// The order as it stands at `at`, whether or not a sweep has written what time has decided.
    pub fn at(order: &'a Order, at: Timestamp) -> Self {
        let view = OrderView::new(order);
        match order.status_at(at) {
            status if status == order.status => view,
            status => OrderView { status, closed_at: Some(Time(order.expires_at)), ..view },
        }
    }
}

/// What a refund gives back.
#[derive(Serialize, ToSchema)]
#[schema(as = Refund)]
pub struct RefundView<'a> {
    #[schema(value_type = schema::RefundId)]
    refund_id: &'a RefundId,
    #[schema(value_type = schema::OrderId)]
    order_id: &'a OrderId,
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    full: bool,
    /// To pay back, in minor units: `lines` and `freight`.
    amount: i64,
    freight: i64,
    #[schema(value_type = Vec<LineRefundView<'static>>)]
    lines: Vec<LineRefundView<'a>>,
    /// Spent points that came back.
    points_returned: i64,
    /// Earned points that were taken back, or will not be granted.
    points_clawed_back: i64,
    /// Of them, what the member does not have any more and owes now.
    points_owed: i64,
    /// Of them, what the member does not have any more and does not owe, as the points rules say.
    points_forgiven: i64,
    #[schema(required, value_type = Option<schema::TransactionId>)]
    return_transaction_id: Option<TransactionId>,
    #[schema(required, value_type = Option<schema::TransactionId>)]
    clawback_transaction_id: Option<TransactionId>,
    /// What became of the order's coupons, when they went back.
    coupons: Vec<ReturnedCouponView>,
    #[schema(required, value_type = Option<String>)]
    remark: Option<&'a str>,
    /// Behind this refund.
    #[schema(value_type = schema::OrderStatus)]
    order_status: OrderStatus,
    created_at: Time,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LineRefund)]
pub struct LineRefundView<'a> {
    #[schema(value_type = String)]
    item_id: &'a str,
    quantity: i64,
    amount: i64,
    points_returned: i64,
    points_clawed_back: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ReturnedCoupon)]
pub struct ReturnedCouponView {
    #[schema(value_type = schema::CouponId)]
    id: CouponId,
    /// AVAILABLE again, or EXPIRED and a compensation case.
    #[schema(value_type = schema::CouponStatus)]
    status: CouponStatus,
    valid_until: Time,
    #[schema(required, value_type = Option<schema::CompensationId>)]
    compensation_id: Option<CompensationId>,
}

impl<'a> From<&'a Refund> for RefundView<'a> {
    fn from(refund: &'a Refund) -> Self {
        let lines = refund.lines.iter().map(|line| LineRefundView {
            item_id: &line.item_id,
            quantity: line.quantity,
            amount: line.amount,
            points_returned: line.points_returned,
            points_clawed_back: line.points_clawed_back,
        });
        let coupons = refund.coupons.iter().map(|coupon| ReturnedCouponView {
            id: coupon.coupon_id,
            status: coupon.status,
            valid_until: Time(coupon.valid_until),
            compensation_id: coupon.compensation_id,
        });
        RefundView {
            refund_id: &refund.refund_id,
            order_id: &refund.order_id,
            member_id: &refund.member_id,
            full: refund.full,
            amount: refund.amount,
            freight: refund.freight,
            lines: lines.collect(),
            points_returned: refund.points_returned,
            points_clawed_back: refund.points_clawed_back,
            points_owed: refund.points_owed,
            points_forgiven: refund.points_forgiven,
            return_transaction_id: refund.return_transaction_id,
            clawback_transaction_id: refund.clawback_transaction_id,
            coupons: coupons.collect(),
            remark: refund.remark.as_deref(),
            order_status: refund.order_status,
            created_at: Time(refund.created_at),
        }
    }
}

/// A coupon whose loss an operator makes up for.
#[derive(Serialize, ToSchema)]
#[schema(as = CouponCompensation)]
pub struct CompensationView<'a> {
    #[schema(value_type = schema::CompensationId)]
    id: CompensationId,
    #[schema(value_type = schema::CouponId)]
    coupon_id: CouponId,
    #[schema(value_type = schema::TemplateId)]
    template_id: TemplateId,
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    #[schema(value_type = schema::OrderId)]
    order_id: &'a OrderId,
    #[schema(value_type = schema::CompensationReason)]
    reason: CompensationReason,
    #[schema(value_type = schema::CompensationStatus)]
    status: CompensationStatus,
    #[schema(required, value_type = Option<String>)]
    remark: Option<&'a str>,
    #[schema(required, value_type = Option<schema::KeyId>)]
    closed_by: Option<KeyId>,
    created_at: Time,
    #[schema(required)]
    closed_at: Option<Time>,
}

impl<'a> From<&'a Compensation> for CompensationView<'a> {
    fn from(case: &'a Compensation) -> Self {
        CompensationView {
            id: case.id,
            coupon_id: case.coupon_id,
            template_id: case.template_id,
            member_id: &case.member_id,
            order_id: &case.order_id,
            reason: case.reason,
            status: case.status,
            remark: case.remark.as_deref(),
            closed_by: case.closed_by,
            created_at: Time(case.created_at),
            closed_at: case.closed_at.map(Time),
        }
    }
}
