//! Many commands in one request, one JSON object a line, each answered as its single endpoint would.
//!
//! Every line has the same fields as far as serde is concerned, all optional, and is read in one pass; which belong to its
//! command is a table. What lines name but do not say (a hold's member, say) is looked up for all of them at once.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use jiff::tz::TimeZone;
use scrip_domain::command::Movement;
use scrip_domain::coupon::CodeAtHand;
use scrip_domain::order::RefundRequest as Refunding;
use scrip_domain::pricing::Attributes;
use scrip_domain::{
    Answer, Command, CouponId, Envelope, HoldId, Idempotency, MemberId, OrderId, RefundId, Rejection, TemplateId,
    TenantId, Timestamp, TransactionId,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::AppState;
use super::answer;
use super::auth::{Caller, Service};
use super::baskets::{self, LineRequest};
use super::codes::{AskedCode, find_codes};
use super::coupons::check_discount;
use super::edge::REQUEST_ID;
use super::extract::{Checked, Object, content_type, malformed, parse, read_body};
use super::fields::FieldErrors;
use super::idempotency;
use super::orders::{RefundRequest, ReservationRequest, Wish};
use super::points::{Direction, Life, Note, check_points, check_remark, movement};
use super::problem::{Code, Language, Problem};
use super::quota::Counted;
use super::schema::{self, Problems};
use super::time::Time;
use crate::engine::SubmitError;
use crate::telemetry;
use crate::{calendar, clock};

const MAX_LINES: usize = 10_000;
const NDJSON: &str = "application/x-ndjson";
/// Lines read or written between two chances for other requests.
const LINES_AT_A_TIME: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BatchOp)]
enum Op {
    Claim,
    ClaimCode,
    Exchange,
    Transfer,
    Lock,
    Use,
    Unlock,
    Return,
    Grant,
    Debit,
    Hold,
    Capture,
    Release,
    Reverse,
    Reserve,
    Pay,
    Confirm,
    Cancel,
    Refund,
}

impl Op {
    /// The status of its single endpoint's answer.
    fn accepted(self) -> u16 {
        match self {
            Op::Claim
            | Op::ClaimCode
            | Op::Exchange
            | Op::Transfer
            | Op::Grant
            | Op::Debit
            | Op::Hold
            | Op::Reverse
            | Op::Reserve
            | Op::Refund => 201,
            Op::Lock
            | Op::Use
            | Op::Unlock
            | Op::Return
            | Op::Capture
            | Op::Release
            | Op::Pay
            | Op::Confirm
            | Op::Cancel => 200,
        }
    }

    /// The fields of its lines, beside those that every line may have.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Op::Claim | Op::Exchange => &["template_id", "member_id", "member_level"],
            Op::ClaimCode => &["code", "member_id", "member_level"],
            Op::Transfer => &["coupon_id", "to_member_id", "reason"],
            Op::Lock => &["coupon_id", "order_id", "expires_at"],
            Op::Use => &["coupon_id", "order_id", "discount_amount"],
            Op::Unlock | Op::Return => &["coupon_id", "order_id"],
            Op::Grant => &[
                "member_id",
                "points",
                "type",
                "reference",
                "remark",
                "available_from",
                "expires_at",
                "expires_in_days",
            ],
            Op::Debit => &["member_id", "points", "type", "reference", "remark"],
            Op::Hold => &["member_id", "points", "reference", "remark", "expires_at"],
            Op::Capture => &["hold_id", "points"],
            Op::Release => &["hold_id"],
            Op::Reverse => &["transaction_id", "points", "remark"],
            Op::Reserve => &[
                "order_id",
                "member_id",
                "member_level",
                "lines",
                "freight",
                "coupon_ids",
                "points",
                "expires_at",
                "quote_token",
                "attributes",
                "member_attributes",
            ],
            Op::Pay | Op::Confirm => &["order_id"],
            Op::Cancel => &["order_id", "reason"],
            Op::Refund => &["order_id", "refund_id", "full", "lines", "freight", "return_coupons", "remark"],
        }
    }
}

/// A line of a batch: `op`, that command's ids and body fields, and optionally `idempotency_key` and `effective_at`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BatchLine)]
pub struct Line {
    #[schema(value_type = Op)]
    op: Option<Op>,
    #[schema(value_type = Option<schema::TemplateId>)]
    template_id: Option<TemplateId>,
    #[schema(value_type = Option<schema::MemberId>)]
    member_id: Option<MemberId>,
    member_level: Option<String>,
    code: Option<String>,
    quote_token: Option<String>,
    #[schema(value_type = Option<schema::MemberId>)]
    to_member_id: Option<MemberId>,
    #[schema(value_type = Option<schema::CouponId>)]
    coupon_id: Option<CouponId>,
    #[schema(value_type = Option<schema::OrderId>)]
    order_id: Option<OrderId>,
    discount_amount: Option<i64>,
    #[schema(value_type = Option<schema::HoldId>)]
    hold_id: Option<HoldId>,
    #[schema(value_type = Option<schema::TransactionId>)]
    transaction_id: Option<TransactionId>,
    points: Option<i64>,
    r#type: Option<String>,
    reference: Option<String>,
    remark: Option<String>,
    available_from: Option<Time>,
    expires_at: Option<Time>,
    #[schema(value_type = Option<Vec<LineRequest>>)]
    lines: Option<Vec<Object<LineRequest>>>,
    freight: Option<i64>,
    #[schema(value_type = Option<Vec<schema::CouponId>>)]
    coupon_ids: Option<Vec<CouponId>>,
    #[schema(value_type = Option<schema::Attributes>)]
    attributes: Option<Attributes>,
    #[schema(value_type = Option<schema::Attributes>)]
    member_attributes: Option<Attributes>,
    #[schema(value_type = Option<schema::RefundId>)]
    refund_id: Option<RefundId>,
    full: Option<bool>,
    return_coupons: Option<bool>,
    reason: Option<String>,
    expires_in_days: Option<i64>,
    idempotency_key: Option<String>,
    effective_at: Option<Time>,
}

/// A command that may still lack what is to be looked up.
enum Draft {
    Ready(Command),
    ClaimCode { code: String, member_id: MemberId, member_level: Option<String> },
    Transfer { coupon_id: CouponId, to_member_id: MemberId, reason: Option<String> },
    Grant { member_id: MemberId, movement: Movement, life: Life },
    Return { coupon_id: CouponId, order_id: OrderId },
    Capture { hold_id: HoldId, points: Option<i64> },
    Release { hold_id: HoldId },
    Reverse { transaction_id: TransactionId, points: Option<i64>, remark: Option<String> },
    Reserve(Box<Wish>),
    Pay { order_id: OrderId },
    Confirm { order_id: OrderId },
    Cancel { order_id: OrderId, reason: Option<String> },
    Refund { order_id: OrderId, refund: Box<Refunding> },
}

pub struct Ordered {
    op: Op,
    draft: Draft,
    idempotency_key: Option<String>,
    effective_at: Option<Timestamp>,
}

impl Checked for Line {
    type Value = Ordered;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Ordered> {
        let effective_at = errors.effective_at(self.effective_at, now);
        if self.idempotency_key.as_ref().is_some_and(|key| !idempotency::is_key(key.as_bytes())) {
            errors.add("idempotency_key", "is malformed", "Send 1-128 printable ASCII characters.");
        }
        let op = errors.required("op", self.op)?;
        self.refuse_foreign(op, errors);
        let expires_at = self.expires_at.map(|at| at.0);
        let note = Note { kind: self.r#type, reference: self.reference, remark: self.remark };
        let draft = match op {
            Op::Claim | Op::Exchange => {
                let template_id = errors.required("template_id", self.template_id);
                let member_id = errors.required("member_id", self.member_id);
                errors.optional_text("member_level", self.member_level.as_deref(), 1..=64);
                let (template_id, member_id, member_level) = (template_id?, member_id?, self.member_level);
                Draft::Ready(match op {
                    Op::Claim => Command::Claim { template_id, member_id, member_level },
                    _ => Command::Exchange { template_id, member_id, member_level },
                })
            }
            Op::ClaimCode => {
                let code = errors.required("code", self.code);
                let member_id = errors.required("member_id", self.member_id);
                errors.optional_text("member_level", self.member_level.as_deref(), 1..=64);
                Draft::ClaimCode { code: code?, member_id: member_id?, member_level: self.member_level }
            }
            Op::Transfer => {
                let coupon_id = errors.required("coupon_id", self.coupon_id);
                let to_member_id = errors.required("to_member_id", self.to_member_id);
                errors.optional_text("reason", self.reason.as_deref(), 1..=500);
                Draft::Transfer { coupon_id: coupon_id?, to_member_id: to_member_id?, reason: self.reason }
            }
            Op::Lock | Op::Use | Op::Unlock | Op::Return => {
                let coupon_id = errors.required("coupon_id", self.coupon_id);
                let order_id = errors.required("order_id", self.order_id);
                let discount_amount = self.discount_amount;
                check_discount(errors, discount_amount);
                let (coupon_id, order_id) = (coupon_id?, order_id?);
                match op {
                    Op::Lock => Draft::Ready(Command::LockCoupon { coupon_id, order_id, expires_at }),
                    Op::Use => Draft::Ready(Command::UseCoupon { coupon_id, order_id, discount_amount }),
                    Op::Unlock => Draft::Ready(Command::UnlockCoupon { coupon_id, order_id }),
                    _ => Draft::Return { coupon_id, order_id },
                }
            }
            Op::Grant => {
                let member_id = errors.required("member_id", self.member_id);
                let movement = movement(errors, Direction::Grant, self.points, note);
                let life = Life::check(errors, self.available_from, self.expires_at, self.expires_in_days);
                Draft::Grant { member_id: member_id?, movement: movement?, life }
            }
            Op::Debit => {
                let member_id = errors.required("member_id", self.member_id);
                let movement = movement(errors, Direction::Debit, self.points, note);
                Draft::Ready(Command::Debit { member_id: member_id?, movement: movement? })
            }
            Op::Hold => {
                let member_id = errors.required("member_id", self.member_id);
                // A type was refused above.
                let movement = movement(errors, Direction::Hold, self.points, Note { kind: None, ..note });
                Draft::Ready(Command::Hold { member_id: member_id?, movement: movement?, expires_at })
            }
            Op::Capture => {
                check_points(errors, self.points);
                Draft::Capture { hold_id: errors.required("hold_id", self.hold_id)?, points: self.points }
            }
            Op::Release => Draft::Release { hold_id: errors.required("hold_id", self.hold_id)? },
            Op::Reverse => {
                check_points(errors, self.points);
                check_remark(errors, note.remark.as_deref());
                let transaction_id = errors.required("transaction_id", self.transaction_id)?;
                Draft::Reverse { transaction_id, points: self.points, remark: note.remark }
            }
            Op::Reserve => {
                let request = ReservationRequest {
                    order_id: self.order_id,
                    member_id: self.member_id,
                    member_level: self.member_level,
                    lines: self.lines,
                    freight: self.freight,
                    coupon_ids: self.coupon_ids,
                    points: self.points,
                    quote_token: self.quote_token,
                    expires_at: self.expires_at,
                    attributes: self.attributes,
                    member_attributes: self.member_attributes,
                    effective_at: self.effective_at,
                };
                Draft::Reserve(Box::new(request.check(errors, now)?))
            }
            Op::Pay => Draft::Pay { order_id: errors.required("order_id", self.order_id)? },
            Op::Confirm => Draft::Confirm { order_id: errors.required("order_id", self.order_id)? },
            Op::Cancel => {
                errors.optional_text("reason", self.reason.as_deref(), 0..=500);
                Draft::Cancel { order_id: errors.required("order_id", self.order_id)?, reason: self.reason }
            }
            Op::Refund => {
                let order_id = errors.required("order_id", self.order_id);
                let request = RefundRequest {
                    refund_id: self.refund_id,
                    full: self.full,
                    lines: self.lines.map(|lines| baskets::check_units(errors, lines)),
                    freight: self.freight,
                    return_coupons: self.return_coupons,
                    remark: note.remark,
                    effective_at: None,
                };
                let (refund, _) = request.check(errors, now)?;
                Draft::Refund { order_id: order_id?, refund: Box::new(refund) }
            }
        };
        Some(Ordered { op, draft, idempotency_key: self.idempotency_key, effective_at })
    }
}

impl Line {
    fn refuse_foreign(&self, op: Op, errors: &mut FieldErrors) {
        let given = [
            ("template_id", self.template_id.is_some()),
            ("member_id", self.member_id.is_some()),
            ("member_level", self.member_level.is_some()),
            ("code", self.code.is_some()),
            ("quote_token", self.quote_token.is_some()),
            ("to_member_id", self.to_member_id.is_some()),
            ("coupon_id", self.coupon_id.is_some()),
            ("order_id", self.order_id.is_some()),
            ("discount_amount", self.discount_amount.is_some()),
            ("hold_id", self.hold_id.is_some()),
            ("transaction_id", self.transaction_id.is_some()),
            ("points", self.points.is_some()),
            ("type", self.r#type.is_some()),
            ("reference", self.reference.is_some()),
            ("remark", self.remark.is_some()),
            ("available_from", self.available_from.is_some()),
            ("expires_at", self.expires_at.is_some()),
            ("lines", self.lines.is_some()),
            ("freight", self.freight.is_some()),
            ("coupon_ids", self.coupon_ids.is_some()),
            ("attributes", self.attributes.is_some()),
            ("member_attributes", self.member_attributes.is_some()),
            ("refund_id", self.refund_id.is_some()),
            ("full", self.full.is_some()),
            ("return_coupons", self.return_coupons.is_some()),
            ("reason", self.reason.is_some()),
            ("expires_in_days", self.expires_in_days.is_some()),
        ];
        let own = op.fields();
        for (field, _) in given.iter().filter(|(field, given)| *given && !own.contains(field)) {
            errors.add(*field, "does not belong to this op", format!("Leave it out. Known are: {}.", own.join(", ")));
        }
    }
}

/// A line on its way: its number, and what to do or why not.
struct Asked<'a> {
    number: usize,
    text: &'a [u8],
    ordered: Result<Ordered, Problem>,
}

/// What drafts name but do not say.
struct Owners {
    templates: HashMap<CouponId, TemplateId>,
    of_holds: HashMap<HoldId, MemberId>,
    of_transactions: HashMap<TransactionId, MemberId>,
    of_orders: HashMap<OrderId, MemberId>,
    /// What the codes of lines stand for, or why a line is refused, by the line's number.
    codes: HashMap<usize, Result<CodeAtHand, Problem>>,
    /// The tenant's, where a line needs it.
    zone: Option<TimeZone>,
}

impl Owners {
    /// At most one look-up of each kind, however many lines there are.
    async fn of(app: &AppState, caller: &Caller, lines: &[Asked<'_>]) -> Result<Owners, Problem> {
        let (mut coupons, mut holds, mut transactions) = (Vec::new(), Vec::new(), Vec::new());
        // An order may be reserved by one line and paid by the next.
        let (mut orders, mut reserved) = (Vec::new(), HashMap::new());
        let (mut numbers, mut codes) = (Vec::new(), Vec::new());
        let mut needs_zone = false;
        for line in lines {
            match &line.ordered {
                Ok(Ordered { draft: Draft::Grant { life, .. }, .. }) => needs_zone |= life.needs_zone(),
                Ok(Ordered { draft: Draft::Return { coupon_id, .. } | Draft::Transfer { coupon_id, .. }, .. }) => {
                    coupons.push(*coupon_id);
                }
                Ok(Ordered { draft: Draft::ClaimCode { code, member_id, .. }, idempotency_key, .. }) => {
                    let key = idempotency_key.as_deref().map(|key| idempotency::of_line(key, line.text).key);
                    numbers.push(line.number);
                    codes.push(AskedCode { text: code, member_id, key });
                }
                Ok(Ordered { draft: Draft::Capture { hold_id, .. } | Draft::Release { hold_id }, .. }) => {
                    holds.push(*hold_id);
                }
                Ok(Ordered { draft: Draft::Reverse { transaction_id, .. }, .. }) => transactions.push(*transaction_id),
                Ok(Ordered { draft: Draft::Reserve(wish), .. }) => {
                    reserved.entry(wish.order_id.clone()).or_insert_with(|| wish.member_id.clone());
                }
                Ok(Ordered {
                    draft:
                        Draft::Pay { order_id }
                        | Draft::Confirm { order_id }
                        | Draft::Cancel { order_id, .. }
                        | Draft::Refund { order_id, .. },
                    ..
                }) => orders.push(order_id),
                _ => {}
            }
        }
        let tenant = caller.tenant();
        needs_zone |= !(orders.is_empty() && reserved.is_empty());
        let zone = if needs_zone { Some(app.store.zone(tenant).await?) } else { None };
        // What is in the store already counts more than what these lines would make of it.
        let mut of_orders = reserved;
        of_orders.extend(app.store.members_of_orders(tenant, &orders).await?);
        let codes = find_codes(app, caller, &codes).await?;
        Ok(Owners {
            of_orders,
            codes: numbers.into_iter().zip(codes).collect(),
            zone,
            templates: app.store.templates_of_coupons(tenant, &coupons).await?,
            of_holds: app.store.members_of_holds(tenant, &holds).await?,
            of_transactions: app.store.members_of_transactions(tenant, &transactions).await?,
        })
    }

    fn complete(
        &mut self,
        app: &AppState,
        tenant: TenantId,
        number: usize,
        draft: Draft,
        at: Timestamp,
    ) -> Result<Command, Problem> {
        let of_order = |id: &OrderId| self.of_orders.get(id).cloned().ok_or(Rejection::OrderNotFound);
        let zone = || self.zone.as_ref().ok_or(Rejection::TenantNotFound);
        let of_hold = |id: &HoldId| self.of_holds.get(id).cloned().ok_or(Rejection::HoldNotFound);
        Ok(match draft {
            Draft::Ready(command) => command,
            Draft::ClaimCode { member_id, member_level, .. } => {
                let found = self.codes.remove(&number).unwrap_or(Err(Rejection::CodeNotAccepted.into()))?;
                let CodeAtHand { digest, batch_id, template_id } = found;
                Command::ClaimCode { digest, batch_id, template_id, member_id, member_level }
            }
            Draft::Transfer { coupon_id, to_member_id, reason } => {
                let template_id = *self.templates.get(&coupon_id).ok_or(Rejection::CouponNotFound)?;
                Command::TransferCoupon { coupon_id, template_id, to_member_id, reason }
            }
            Draft::Grant { member_id, movement, life } => {
                Command::Grant { member_id, movement, spendable: life.of(at, self.zone.as_ref()) }
            }
            Draft::Return { coupon_id, order_id } => {
                let template_id = *self.templates.get(&coupon_id).ok_or(Rejection::CouponNotFound)?;
                Command::ReturnCoupon { coupon_id, template_id, order_id }
            }
            Draft::Capture { hold_id, points } => {
                Command::CaptureHold { member_id: of_hold(&hold_id)?, hold_id, points }
            }
            Draft::Release { hold_id } => Command::ReleaseHold { member_id: of_hold(&hold_id)?, hold_id },
            Draft::Reverse { transaction_id, points, remark } => {
                let member_id = self.of_transactions.get(&transaction_id).cloned();
                let member_id = member_id.ok_or(Rejection::TransactionNotFound)?;
                Command::Reverse { member_id, transaction_id, points, remark }
            }
            Draft::Reserve(wish) => {
                let quoted = wish.quoted(&app.quote_key, tenant)?;
                let at = quoted.map_or(at, |quoted| quoted.at);
                wish.command(calendar::local_time(zone()?, at), quoted)
            }
            Draft::Pay { order_id } => {
                let calendar = Arc::new(calendar::calendar(zone()?, at));
                Command::PayOrder { member_id: of_order(&order_id)?, order_id, calendar }
            }
            Draft::Confirm { order_id } => {
                let calendar = Arc::new(calendar::calendar(zone()?, at));
                Command::ConfirmOrder { member_id: of_order(&order_id)?, order_id, calendar }
            }
            Draft::Cancel { order_id, reason } => {
                Command::CancelOrder { member_id: of_order(&order_id)?, order_id, reason }
            }
            Draft::Refund { order_id, refund } => {
                Command::RefundOrder { member_id: of_order(&order_id)?, order_id, refund }
            }
        })
    }
}

/// Send many commands at once
///
/// One JSON object a line (NDJSON), at most 10,000 lines. Lines on the same template, coupon or member take effect in their
/// order; one refused line never affects another. The answer has one line for each, in the same order:
/// `{"line":1,"status":201,"body":{...}}` (with `"replayed":true` when it is one) or
/// `{"line":2,"status":422,"error":{...problem...}}`. Empty lines are skipped.
#[utoipa::path(post, path = "/v1/batch", tag = "Batch", security(("key" = ["SERVICE"])),
    request_body(content = Line, content_type = "application/x-ndjson"),
    responses((status = 200, description = "A line for each line", body = BatchAnswer,
        content_type = "application/x-ndjson"), Problems))]
pub async fn create_batch(
    State(app): State<AppState>,
    Service(caller): Service,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if !content_type(&parts.headers).is_some_and(|kind| kind.eq_ignore_ascii_case(NDJSON)) {
        return Err(Problem::new(Code::UnsupportedMediaType).with("expected", NDJSON));
    }
    let bytes = read_body(&parts.headers, body, app.limits.max_batch_bytes).await?;
    let now = clock::now();
    let lines = read_lines(&bytes, now).await?;
    // The first line was counted with the request.
    app.quotas.admit(caller.owner(), Counted::Lines(lines.len().saturating_sub(1)), &parts)?;
    let mut owners = Owners::of(&app, &caller, &lines).await?;

    let mut envelopes = Vec::with_capacity(lines.len());
    let mut pending = Vec::with_capacity(lines.len());
    for line in lines {
        let (number, text) = (line.number, line.text);
        let envelope = line
            .ordered
            .and_then(|ordered| Ok((ordered.op, envelope(&app, number, ordered, text, &mut owners, &caller, now)?)));
        pending.push(match envelope {
            Ok((op, envelope)) => {
                envelopes.push(envelope);
                (number, Ok(op))
            }
            Err(problem) => (number, Err(problem)),
        });
    }
    let spans = telemetry::traces().and_then(|traces| traces.begin_parts(&envelopes));
    let answers = app.engine.submit_all(envelopes).await;
    if let Some(spans) = spans {
        spans.end(&answers);
    }
    let answers = VecDeque::from(answers);

    let language = Language::of(parts.headers.get(header::ACCEPT_LANGUAGE));
    let request_id = parts.headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let out = write_answers(&app, &caller, pending, answers, language, request_id).await?;
    let mut response = Response::new(Body::from(out));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    Ok(response)
}

async fn read_lines(bytes: &[u8], now: Timestamp) -> Result<Vec<Asked<'_>>, Problem> {
    let mut lines = Vec::new();
    for (index, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if lines.len() == MAX_LINES {
            return Err(Problem::new(Code::BodyTooLarge).with("limit", format!("{MAX_LINES} lines")));
        }
        if lines.len() % LINES_AT_A_TIME == LINES_AT_A_TIME - 1 {
            tokio::task::yield_now().await;
        }
        lines.push(Asked { number: index + 1, text, ordered: parse::<Line>(text, now) });
    }
    let is_malformed =
        |line: &Asked<'_>| line.ordered.as_ref().is_err_and(|problem| problem.code == Code::MalformedBody);
    if lines.iter().all(is_malformed) {
        return Err(malformed("it has no line that is a JSON object"));
    }
    Ok(lines)
}

fn envelope(
    app: &AppState,
    number: usize,
    ordered: Ordered,
    text: &[u8],
    owners: &mut Owners,
    caller: &Caller,
    now: Timestamp,
) -> Result<Envelope, Problem> {
    let idempotency: Option<Idempotency> =
        ordered.idempotency_key.as_deref().map(|key| idempotency::of_line(key, text));
    let command = owners.complete(app, caller.tenant(), number, ordered.draft, ordered.effective_at.unwrap_or(now))?;
    caller.envelope(command, ordered.effective_at, idempotency, now)
}

/// Writes a line for each line, in their order, into one buffer.
async fn write_answers(
    app: &AppState,
    caller: &Caller,
    pending: Vec<(usize, Result<Op, Problem>)>,
    mut answers: VecDeque<Result<Answer, SubmitError>>,
    language: Language,
    request_id: &str,
) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(pending.len() * 600);
    for (index, (number, op)) in pending.into_iter().enumerate() {
        if index % LINES_AT_A_TIME == LINES_AT_A_TIME - 1 {
            tokio::task::yield_now().await;
        }
        let problem = match op {
            Err(problem) => problem,
            Ok(op) => match answers.pop_front() {
                Some(Ok(Answer::Accepted { outcome, replayed })) => {
                    let start = out.len();
                    let _ = write!(out, "{{\"line\":{number},\"status\":{},\"body\":", op.accepted());
                    match answer::write(app, caller.tenant(), &outcome, &mut out).await {
                        Ok(()) => {
                            out.extend_from_slice(if replayed { b",\"replayed\":true}\n" } else { b"}\n" });
                            continue;
                        }
                        Err(problem) => {
                            out.truncate(start);
                            problem
                        }
                    }
                }
                Some(Ok(Answer::Refused(rejection))) => rejection.into(),
                Some(Err(error)) => error.into(),
                None => Problem::internal("a line of a batch got no answer"),
            },
        };
        problem.log_cause(request_id);
        let body = problem.body(language, request_id);
        let status = problem.code.entry().status.as_u16();
        let _ = write!(out, "{{\"line\":{number},\"status\":{status},\"error\":");
        serde_json::to_writer(&mut out, &body).map_err(Problem::internal)?;
        out.extend_from_slice(b"}\n");
    }
    Ok(out)
}

/// A line of the answer.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is written by hand")]
pub struct BatchAnswer {
    /// The number of the line answered, from 1.
    line: u64,
    /// That of the single endpoint's answer.
    status: u16,
    /// The single endpoint's answer when it was accepted.
    #[schema(value_type = Option<Object>)]
    body: Option<()>,
    /// Present and true when the answer is that of an earlier request with this key.
    replayed: Option<bool>,
    /// Why it was not.
    #[schema(value_type = Option<super::problem::ProblemBody<'static>>)]
    error: Option<()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &str = "00000000000000000000000000000001";

    fn read(line: &str) -> Result<Ordered, Problem> {
        parse::<Line>(line.as_bytes(), Timestamp(1_000_000_000_000_000))
    }

    fn bad_fields(line: &str) -> Vec<String> {
        let problem = read(line).err().expect(line);
        let body = serde_json::to_value(problem.body(Language::English, "r")).unwrap();
        let list = body["errors"].as_array().unwrap();
        list.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_documented_line_is_read() {
        for line in [
            format!(
                r#"{{"op":"claim","template_id":"tpl_{IDS}","member_id":"m-1","member_level":null,"idempotency_key":"k1","effective_at":null}}"#
            ),
            r#"{"op":"claim_code","code":"SUMMER-26","member_id":"m-1","member_level":"GOLD"}"#.into(),
            format!(r#"{{"op":"transfer","coupon_id":"cpn_{IDS}","to_member_id":"m-2","reason":"a gift"}}"#),
            format!(r#"{{"op":"lock","coupon_id":"cpn_{IDS}","order_id":"o-1"}}"#),
            format!(r#"{{"op":"use","coupon_id":"cpn_{IDS}","order_id":"o-1","discount_amount":5}}"#),
            format!(r#"{{"op":"unlock","coupon_id":"cpn_{IDS}","order_id":"o-1"}}"#),
            format!(r#"{{"op":"return","coupon_id":"cpn_{IDS}","order_id":"o-1"}}"#),
            r#"{"op":"grant","member_id":"m-1","points":10,"reference":"o-1","expires_at":"2030-01-01T00:00:00Z"}"#
                .into(),
            r#"{"op":"debit","member_id":"m-1","points":10,"type":"USE_COUPON"}"#.into(),
            r#"{"op":"hold","member_id":"m-1","points":10}"#.into(),
            format!(r#"{{"op":"capture","hold_id":"hold_{IDS}","points":60}}"#),
            format!(r#"{{"op":"release","hold_id":"hold_{IDS}"}}"#),
            format!(r#"{{"op":"reverse","transaction_id":"ptx_{IDS}","points":5}}"#),
        ] {
            assert!(read(&line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_bad_line_names_all_its_fields() {
        assert_eq!(bad_fields(r#"{"op":"claim"}"#), ["template_id", "member_id"]);
        assert_eq!(bad_fields(r#"{"op":"claim_code","template_id":null}"#), ["code", "member_id"]);
        assert_eq!(bad_fields(r#"{"op":"transfer","reason":""}"#), ["coupon_id", "to_member_id", "reason"]);
        assert_eq!(bad_fields("{}"), ["op"]);
        assert_eq!(bad_fields(r#"{"op":"mint"}"#), ["op"]);
        assert_eq!(bad_fields(r#"{"op":"hold","member_id":"m","points":1,"type":"EARN_ORDER"}"#), ["type"]);
        assert_eq!(
            bad_fields(r#"{"op":"grant","member_id":"m","points":0,"order_id":"o","idempotency_key":"","x":1}"#),
            ["x", "idempotency_key", "order_id", "points"]
        );
    }

    #[tokio::test]
    async fn lines_keep_their_numbers_and_only_nonsense_is_refused_whole() {
        let now = Timestamp(0);
        let lines = read_lines(b"\n{\"op\":\"hold\"}\r\n\nnope\n", now).await.unwrap();
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 4]);
        for bad in ["", "\n\n", "nope", "[1]x\n\"y", "\u{0}"] {
            assert_eq!(read_lines(bad.as_bytes(), now).await.err().map(|p| p.code), Some(Code::MalformedBody), "{bad}");
        }
        let many = "{}\n".repeat(MAX_LINES + 1);
        assert_eq!(read_lines(many.as_bytes(), now).await.err().map(|p| p.code), Some(Code::BodyTooLarge));
    }
}
