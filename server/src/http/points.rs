//! Points: granted, debited, held, reversed; and a member's balance, ledger and lots.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use jiff::tz::TimeZone;
use scrip_domain::command::Movement;
use scrip_domain::points::{HoldStatus, MAX_POINTS, Spendable, TransactionType};
use scrip_domain::{Command, HoldId, LotId, MemberId, Timestamp, TransactionId};
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::{AnyKey, Service};
use super::consistency::{ConsistencyToken, Reads};
use super::extract::{Checked, Cursor, InPath, Input, NoOptions, Parameters};
use super::fields::FieldErrors;
use super::problem::{Code, Problem};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::time::Time;
use super::views::{
    BalanceView, HoldView, JobView, LotView, Page, PointsHoldPage, PointsLotPage, PointsTransactionPage,
    TransactionView,
};
use super::{AppState, answer};
use crate::{calendar, clock};

/// How far ahead a balance looks for points that expire.
pub const EXPIRING_WITHIN_DAYS: u32 = 30;
const MAX_LIFE_DAYS: i64 = 36_500;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    /// Default: EARN_ORDER. EARN_ADMIN is for operators.
    #[schema(value_type = Option<schema::GrantType>)]
    r#type: Option<String>,
    /// Your own reference, an order id for instance.
    #[schema(min_length = 1, max_length = 64)]
    reference: Option<String>,
    #[schema(max_length = 500)]
    remark: Option<String>,
    /// When they can be spent; until then they are frozen. Null, or a time that has come: at once.
    available_from: Option<Time>,
    /// Null: never.
    expires_at: Option<Time>,
    /// In place of `expires_at`: at the end of the day, in the tenant's time zone, that comes so many days after they are available.
    #[schema(minimum = 0, maximum = 36_500)]
    expires_in_days: Option<i64>,
    /// `async` answers 202 with the job that will make the grant, soon and once. Default: sync.
    #[schema(value_type = Option<schema::GrantMode>)]
    mode: Option<GrantMode>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

/// When a grant is made: before the answer, or after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantMode {
    #[default]
    Sync,
    Async,
}

/// When granted points can be spent, as far as the request tells it.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    spendable: Spendable,
    days: Option<u32>,
}

impl Life {
    pub fn check(
        errors: &mut FieldErrors,
        available_from: Option<Time>,
        expires_at: Option<Time>,
        expires_in_days: Option<i64>,
    ) -> Life {
        let days = expires_in_days.and_then(|days| errors.within("expires_in_days", days, 0..=MAX_LIFE_DAYS));
        if expires_in_days.is_some() && expires_at.is_some() {
            errors.add("expires_in_days", "stands beside `expires_at`", "Send one of the two.");
        }
        let spendable = Spendable {
            available_from: available_from.map(|at| at.0),
            expires_at: expires_at.map(|at| at.0),
            ..Spendable::default()
        };
        Life { spendable, days: days.and_then(|days| u32::try_from(days).ok()) }
    }

    /// Whether the tenant's time zone is needed to tell the end.
    pub fn needs_zone(&self) -> bool {
        self.days.is_some()
    }

    /// The whole of it, for points granted at `at`.
    pub fn of(self, at: Timestamp, zone: Option<&TimeZone>) -> Spendable {
        let (Some(days), Some(zone)) = (self.days, zone) else { return self.spendable };
        let from = self.spendable.available_from.map_or(at, |from| from.max(at));
        Spendable { expires_at: Some(calendar::end_of_day_after(zone, from, days)), ..self.spendable }
    }
}

impl Checked for GrantRequest {
    type Value = (Movement, Life, GrantMode, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let note = Note { kind: self.r#type, reference: self.reference, remark: self.remark };
        let movement = movement(errors, Direction::Grant, self.points, note);
        let life = Life::check(errors, self.available_from, self.expires_at, self.expires_in_days);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((movement?, life, self.mode.unwrap_or_default(), effective_at))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DebitRequest {
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    /// Default: USE_ORDER. DEDUCT_ADMIN is for operators.
    #[schema(value_type = Option<schema::DebitType>)]
    r#type: Option<String>,
    /// Your own reference, an order id for instance.
    #[schema(min_length = 1, max_length = 64)]
    reference: Option<String>,
    #[schema(max_length = 500)]
    remark: Option<String>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for DebitRequest {
    type Value = (Movement, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let note = Note { kind: self.r#type, reference: self.reference, remark: self.remark };
        let movement = movement(errors, Direction::Debit, self.points, note);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((movement?, effective_at))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    /// Your own reference, an order id for instance.
    #[schema(min_length = 1, max_length = 64)]
    reference: Option<String>,
    #[schema(max_length = 500)]
    remark: Option<String>,
    /// When the points are released by themselves. Null: never.
    expires_at: Option<Time>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for HoldRequest {
    type Value = (Movement, Option<Timestamp>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let note = Note { kind: None, reference: self.reference, remark: self.remark };
        let movement = movement(errors, Direction::Hold, self.points, note);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((movement?, self.expires_at.map(|at| at.0), effective_at))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// Default: all of the hold. The rest is released.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for CaptureRequest {
    type Value = (Option<i64>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        check_points(errors, self.points);
        Some((self.points, errors.effective_at(self.effective_at, now)))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReversalRequest {
    /// Default: all that is left.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    #[schema(max_length = 500)]
    remark: Option<String>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for ReversalRequest {
    type Value = (Option<i64>, Option<String>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        check_points(errors, self.points);
        check_remark(errors, self.remark.as_deref());
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((self.points, self.remark, effective_at))
    }
}

/// Which way points move.
#[derive(Debug, Clone, Copy)]
pub enum Direction {
    Grant,
    Debit,
    Hold,
}

impl Direction {
    fn usual_type(self) -> TransactionType {
        match self {
            Direction::Grant => TransactionType::EarnOrder,
            Direction::Debit => TransactionType::UseOrder,
            Direction::Hold => TransactionType::Hold,
        }
    }

    fn admits(self, kind: TransactionType) -> bool {
        match self {
            Direction::Grant => kind.is_earn(),
            Direction::Debit => kind.is_debit(),
            Direction::Hold => kind == TransactionType::Hold,
        }
    }
}

/// What the caller says beside the points.
pub struct Note {
    pub kind: Option<String>,
    pub reference: Option<String>,
    pub remark: Option<String>,
}

/// A movement that keeps all limits.
pub fn movement(errors: &mut FieldErrors, direction: Direction, points: Option<i64>, note: Note) -> Option<Movement> {
    let points = errors.integer("points", points, 1..=MAX_POINTS);
    errors.optional_text("reference", note.reference.as_deref(), 1..=64);
    check_remark(errors, note.remark.as_deref());
    let kind = match note.kind.as_deref() {
        None => Some(direction.usual_type()),
        Some(name) => TransactionType::parse(name).filter(|kind| direction.admits(*kind)),
    };
    if kind.is_none() {
        let admitted = TransactionType::ALL.into_iter().filter(|kind| direction.admits(*kind));
        let admitted: Vec<_> = admitted.map(TransactionType::as_str).collect();
        errors.add("type", "is not a type of this command", format!("Send one of: {}.", admitted.join(", ")));
    }
    Some(Movement { points: points?, kind: kind?, reference: note.reference, remark: note.remark })
}

pub fn check_points(errors: &mut FieldErrors, points: Option<i64>) {
    if let Some(points) = points {
        errors.within("points", points, 1..=MAX_POINTS);
    }
}

pub fn check_remark(errors: &mut FieldErrors, remark: Option<&str>) {
    errors.optional_text("remark", remark, 0..=500);
}

/// Read a member's balance
///
/// Zeros for a member never seen. What has expired by now counts as expired, written or not. With `as_of`, the balance at that
/// time, as the books tell it today.
#[utoipa::path(get, path = "/v1/members/{member_id}/points", tag = "Points", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), ConsistencyToken,
        ("as_of" = Option<Time>, Query, description = "Never in the future. Default: now.")),
    responses((status = 200, description = "The balance", body = BalanceView<'static>), Problems))]
pub async fn get_points(
    key: AnyKey,
    reads: Reads,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.on_behalf_of(&member_id)?.tenant();
    let now = clock::now();
    let mut parameters = Parameters::of(&uri)?;
    let as_of = parameters
        .take("as_of", "a time up to now, like 2026-03-01T00:00:00Z", |text| Time::read(text).filter(|at| at.0 <= now));
    parameters.finish()?;
    let at = as_of.map_or(now, |at| at.0);
    let horizon = at.plus_days(EXPIRING_WITHIN_DAYS);
    let balance = match as_of {
        None => reads.balance(tenant, &member_id, at, horizon).await?,
        Some(_) => reads.past_balance(tenant, &member_id, at, horizon).await?,
    };
    answer::ok(&BalanceView::new(&member_id, &balance, EXPIRING_WITHIN_DAYS, at))
}

/// Grant points
///
/// With `"mode":"async"` the answer is 202 with a job, which makes the grant soon, and once: it is tried 3 times, from 2
/// seconds on after each failure twice as long after, and then waits dead for an operator (`GET /v1/jobs?state=DEAD`).
#[utoipa::path(post, path = "/v1/members/{member_id}/points/grants", tag = "Points", security(("key" = ["SERVICE"])),
    params(("member_id" = schema::MemberId, Path), IdempotencyKey), request_body = GrantRequest,
    responses((status = 201, description = "Granted", body = TransactionView<'static>),
        (status = 202, description = "Will be granted", body = JobView<'static>), Problems))]
pub async fn create_grant(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(member_id): InPath<MemberId>,
    input: Input<GrantRequest>,
) -> Result<Response, Problem> {
    let (movement, life, mode, effective_at) = input.value;
    let at = caller.at(effective_at, input.now)?;
    let zone = if life.needs_zone() { Some(app.store.zone(caller.tenant()).await?) } else { None };
    let spendable = life.of(at, zone.as_ref());
    let (command, accepted) = match mode {
        GrantMode::Sync => (Command::Grant { member_id, movement, spendable }, StatusCode::CREATED),
        GrantMode::Async => (Command::EnqueueGrant { member_id, movement, spendable }, StatusCode::ACCEPTED),
    };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, accepted).await
}

/// Debit points
///
/// The points that expire soonest go first.
#[utoipa::path(post, path = "/v1/members/{member_id}/points/debits", tag = "Points", security(("key" = ["SERVICE"])),
    params(("member_id" = schema::MemberId, Path), IdempotencyKey), request_body = DebitRequest,
    responses((status = 201, description = "Debited", body = TransactionView<'static>), Problems))]
pub async fn create_debit(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(member_id): InPath<MemberId>,
    input: Input<DebitRequest>,
) -> Result<Response, Problem> {
    let (movement, effective_at) = input.value;
    let command = Command::Debit { member_id, movement };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}

/// Set points aside for an order
#[utoipa::path(post, path = "/v1/members/{member_id}/points/holds", tag = "Points", security(("key" = ["SERVICE"])),
    params(("member_id" = schema::MemberId, Path), IdempotencyKey), request_body = HoldRequest,
    responses((status = 201, description = "Held", body = HoldView<'static>), Problems))]
pub async fn create_hold(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(member_id): InPath<MemberId>,
    input: Input<HoldRequest>,
) -> Result<Response, Problem> {
    let (movement, expires_at, effective_at) = input.value;
    let command = Command::Hold { member_id, movement, expires_at };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}

/// Read a hold
#[utoipa::path(get, path = "/v1/points-holds/{hold_id}", tag = "Points", security(("key" = ["MEMBER"])),
    params(("hold_id" = schema::HoldId, Path), ConsistencyToken),
    responses((status = 200, description = "The hold", body = HoldView<'static>), Problems))]
pub async fn get_hold(key: AnyKey, reads: Reads, InPath(hold_id): InPath<HoldId>) -> Result<Response, Problem> {
    let found = reads.find_hold(key.tenant_to_search(), hold_id).await?;
    let hold = found.filter(|hold| key.may_see(&hold.member_id)).ok_or(Problem::new(Code::HoldNotFound))?;
    answer::ok(&HoldView::at(&hold, clock::now()))
}

/// List a member's holds, newest first
///
/// `status` is the one that holds now: past its deadline a hold is EXPIRED, written or not.
#[utoipa::path(get, path = "/v1/members/{member_id}/points/holds", tag = "Points", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), ("status" = Option<schema::HoldStatus>, Query), PageQuery,
        ConsistencyToken),
    responses((status = 200, description = "A page", body = PointsHoldPage), Problems))]
pub async fn list_holds(
    key: AnyKey,
    reads: Reads,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.on_behalf_of(&member_id)?.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let status = parameters.take("status", "OPEN, CAPTURED, RELEASED or EXPIRED", HoldStatus::parse);
    let page = parameters.page::<HoldId>();
    parameters.finish()?;
    let now = clock::now();
    let mut holds = reads.list_holds(tenant, &member_id, status, now, page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut holds, page.limit, |hold| hold.id.write());
    answer::ok(&Page { data: holds.iter().map(|hold| HoldView::at(hold, now)).collect(), next_cursor })
}

/// Use held points, and release the rest
#[utoipa::path(post, path = "/v1/points-holds/{hold_id}/capture", tag = "Points", security(("key" = ["SERVICE"])),
    params(("hold_id" = schema::HoldId, Path), IdempotencyKey), request_body = Option<CaptureRequest>,
    responses((status = 200, description = "Captured", body = HoldView<'static>), Problems))]
pub async fn capture_hold(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(hold_id): InPath<HoldId>,
    input: Input<CaptureRequest>,
) -> Result<Response, Problem> {
    let (points, effective_at) = input.value;
    let mut members = app.store.members_of_holds(caller.tenant(), &[hold_id]).await?;
    let member_id = members.remove(&hold_id).ok_or(Problem::new(Code::HoldNotFound))?;
    let command = Command::CaptureHold { member_id, hold_id, points };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Give held points back
#[utoipa::path(post, path = "/v1/points-holds/{hold_id}/release", tag = "Points", security(("key" = ["SERVICE"])),
    params(("hold_id" = schema::HoldId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "Released", body = HoldView<'static>), Problems))]
pub async fn release_hold(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(hold_id): InPath<HoldId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let mut members = app.store.members_of_holds(caller.tenant(), &[hold_id]).await?;
    let member_id = members.remove(&hold_id).ok_or(Problem::new(Code::HoldNotFound))?;
    let command = Command::ReleaseHold { member_id, hold_id };
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Read a transaction
#[utoipa::path(get, path = "/v1/points-transactions/{transaction_id}", tag = "Points", security(("key" = ["MEMBER"])),
    params(("transaction_id" = schema::TransactionId, Path), ConsistencyToken),
    responses((status = 200, description = "The transaction", body = TransactionView<'static>), Problems))]
pub async fn get_transaction(
    key: AnyKey,
    reads: Reads,
    InPath(transaction_id): InPath<TransactionId>,
) -> Result<Response, Problem> {
    let found = reads.find_transaction(key.tenant_to_search(), transaction_id).await?;
    let found = found.filter(|transaction| key.may_see(&transaction.member_id));
    let transaction = found.ok_or(Problem::new(Code::TransactionNotFound))?;
    answer::ok(&TransactionView::from(&transaction))
}

/// Reverse a grant or a debit, wholly or in part
///
/// Reversing a debit restores the original lots with their expiry. Reversing a grant takes back what is left; the rest becomes
/// debt, which later grants settle first, or is forgiven, as the points rules say (`refund.debt_policy`). Reversing a transfer moves back what the other member has not spent, and
/// answers with both transactions.
#[utoipa::path(post, path = "/v1/points-transactions/{transaction_id}/reversals", tag = "Points",
    security(("key" = ["SERVICE"])), params(("transaction_id" = schema::TransactionId, Path), IdempotencyKey),
    request_body = Option<ReversalRequest>,
    responses((status = 201, description = "Reversed", body = Reversed), Problems))]
pub async fn create_reversal(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(transaction_id): InPath<TransactionId>,
    input: Input<ReversalRequest>,
) -> Result<Response, Problem> {
    let (points, remark, effective_at) = input.value;
    let find = async |id| {
        let found = app.store.find_transaction(caller.tenant(), id).await?;
        found.ok_or(Problem::new(Code::TransactionNotFound))
    };
    let original = find(transaction_id).await?;
    let command = match original.counterpart_id {
        None => Command::Reverse { member_id: original.member_id, transaction_id, points, remark },
        // Either line stands for the transfer.
        Some(counterpart_id) => {
            let other = find(counterpart_id).await?;
            let (sent, received) = if original.points < 0 { (original, other) } else { (other, original) };
            let (transaction_id, counterpart_id) = (sent.id, received.id);
            let (from, to) = (sent.member_id, received.member_id);
            Command::ReverseTransfer { from, to, transaction_id, counterpart_id, points, remark }
        }
    };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}

/// The answer to a reversal.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered")]
pub enum Reversed {
    Transaction(Box<TransactionView<'static>>),
    Transfer(Box<super::members::TransferView<'static>>),
}

/// Where a page of a ledger ends: before this sequence.
impl Cursor for i64 {
    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|sequence| *sequence > 0)
    }
}

/// List a member's transactions, newest first
#[utoipa::path(get, path = "/v1/members/{member_id}/points/transactions", tag = "Points",
    security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), ("type" = Option<schema::TransactionType>, Query), PageQuery, ConsistencyToken),
    responses((status = 200, description = "A page", body = PointsTransactionPage), Problems))]
pub async fn list_transactions(
    key: AnyKey,
    reads: Reads,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.on_behalf_of(&member_id)?.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let kind = parameters.take("type", "a transaction type", TransactionType::parse);
    let page = parameters.page();
    parameters.finish()?;
    let mut found = reads.list_transactions(tenant, &member_id, kind, page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut found, page.limit, |transaction| transaction.sequence.write());
    answer::ok(&Page { data: found.iter().map(TransactionView::from).collect(), next_cursor })
}

/// Where a page of lots ends: after this one, in spending order.
type LotCursor = (Timestamp, Timestamp, LotId);

impl Cursor for LotCursor {
    fn write(&self) -> String {
        format!("{}.{}.{}", self.0.0, self.1.0, self.2)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut time = || parts.next()?.parse().ok().map(Timestamp);
        let (expires_at, created_at) = (time()?, time()?);
        let id = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some((expires_at, created_at, id))
    }
}

/// List a member's lots with points left, soonest expiring first
#[utoipa::path(get, path = "/v1/members/{member_id}/points/lots", tag = "Points", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), PageQuery, ConsistencyToken),
    responses((status = 200, description = "A page", body = PointsLotPage), Problems))]
pub async fn list_lots(
    key: AnyKey,
    reads: Reads,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.on_behalf_of(&member_id)?.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let page = parameters.page::<LotCursor>();
    parameters.finish()?;
    let mut lots = reads.list_lots(tenant, &member_id, page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut lots, page.limit, |lot| lot.spending_order().write());
    // What has expired is gone, whether or not a sweep has written it; a hold protects its part.
    let now = clock::now();
    for lot in lots.iter_mut().filter(|lot| lot.expires_at <= now) {
        lot.expired += std::mem::take(&mut lot.remaining);
    }
    lots.retain(|lot| lot.remaining > 0 || lot.held > 0);
    answer::ok(&Page { data: lots.iter().map(LotView::from).collect(), next_cursor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back() {
        let cursor = (Timestamp::NEVER, Timestamp(-5), LotId(uuid::Uuid::from_u128(9)));
        assert_eq!(LotCursor::read(&cursor.write()), Some(cursor));
        assert_eq!(i64::read(&7.write()), Some(7));
        for bad in ["", "1.2", "1.2.lot_", "x.2.lot_00000000000000000000000000000009", &format!("{}.1", cursor.write())]
        {
            assert_eq!(LotCursor::read(bad), None, "{bad}");
        }
        assert_eq!(i64::read("-1"), None);
    }

    #[test]
    fn types_fit_their_command() {
        let of = |direction, kind: Option<&str>| {
            let note = Note { kind: kind.map(str::to_owned), reference: None, remark: None };
            let mut errors = FieldErrors::default();
            movement(&mut errors, direction, Some(1), note).map(|movement| movement.kind).filter(|_| errors.is_empty())
        };
        assert_eq!(of(Direction::Grant, None), Some(TransactionType::EarnOrder));
        assert_eq!(of(Direction::Debit, None), Some(TransactionType::UseOrder));
        assert_eq!(of(Direction::Hold, None), Some(TransactionType::Hold));
        assert_eq!(of(Direction::Grant, Some("EARN_ADMIN")), Some(TransactionType::EarnAdmin));
        assert_eq!(of(Direction::Grant, Some("USE_ORDER")), None);
        assert_eq!(of(Direction::Debit, Some("HOLD")), None);
        assert_eq!(of(Direction::Debit, Some("earn_order")), None);
    }
}
