//! What concerns a member beside single commands on points: check-ins, points that change hands, accounts that are merged.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use jiff::civil::Date;
use scrip_domain::check_in::CheckIn;
use scrip_domain::points::{MAX_POINTS, Transfer};
use scrip_domain::{Command, Day, MemberId, Timestamp, TransactionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{AnyKey, Operator, Service};
use super::extract::{Checked, InPath, Input, Parameters};
use super::fields::FieldErrors;
use super::points::check_remark;
use super::problem::Problem;
use super::schema::{self, IdempotencyKey, Problems};
use super::time::{LocalDate, Time};
use super::views::TransactionView;
use super::{AppState, answer};
use crate::{calendar, clock};

/// A check-in of one day.
#[derive(Serialize, ToSchema)]
#[schema(as = CheckIn)]
pub struct CheckInView<'a> {
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    /// Where the tenant is.
    #[schema(value_type = schema::LocalDate)]
    day: String,
    /// Days in a row, this one included.
    streak: i64,
    /// Granted, the bonus included.
    points: i64,
    /// Of `points`, what the streak added.
    bonus: i64,
    #[schema(value_type = schema::TransactionId)]
    transaction_id: TransactionId,
    checked_in_at: Time,
    /// Whether the day was missed and made up later.
    made_up: bool,
    /// The debit of what making it up cost; null without one.
    #[schema(value_type = Option<schema::TransactionId>, required)]
    price_transaction_id: Option<TransactionId>,
}

impl<'a> From<&'a CheckIn> for CheckInView<'a> {
    fn from(row: &'a CheckIn) -> Self {
        CheckInView {
            member_id: &row.member_id,
            day: row.day.to_string(),
            streak: row.streak,
            points: row.points,
            bonus: row.bonus,
            transaction_id: row.transaction_id,
            checked_in_at: Time(row.checked_in_at),
            made_up: row.made_up,
            price_transaction_id: row.price_transaction_id,
        }
    }
}

/// A member's check-ins of one month.
#[derive(Serialize, ToSchema)]
#[schema(as = CheckInMonth)]
pub struct CheckInMonth<'a> {
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    #[schema(example = "2026-03")]
    month: String,
    #[schema(value_type = schema::LocalDate)]
    today: String,
    checked_in_today: bool,
    /// Days in a row up to today, or up to yesterday while today is still open.
    streak: i64,
    /// Granted in the month.
    points: i64,
    /// Of the month, oldest first.
    #[schema(value_type = Vec<CheckInView<'static>>)]
    days: Vec<CheckInView<'a>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckInRequest {
    /// A missed day, to make up. Default: today is checked in.
    #[schema(value_type = Option<schema::LocalDate>)]
    day: Option<LocalDate>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for CheckInRequest {
    type Value = (Option<Day>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        Some((self.day.map(|day| Day(day.0.into())), errors.effective_at(self.effective_at, now)))
    }
}

/// Check a member in, or make a missed day up
///
/// Once a day, in the tenant's time zone: again on the same day gives the first answer, with 200. A member may check itself in.
/// With a `day`, that missed day is made up, as far as the rules allow: its price is debited, it earns what a check-in earns, and
/// the streaks behind it are counted anew.
#[utoipa::path(post, path = "/v1/members/{member_id}/check-ins", tag = "Check-ins", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), IdempotencyKey), request_body = Option<CheckInRequest>,
    responses((status = 201, description = "Checked in", body = CheckInView<'static>),
        (status = 200, description = "Checked in before", body = CheckInView<'static>), Problems))]
pub async fn create_check_in(
    State(app): State<AppState>,
    key: AnyKey,
    InPath(member_id): InPath<MemberId>,
    input: Input<CheckInRequest>,
) -> Result<Response, Problem> {
    let caller = key.on_behalf_of(&member_id)?;
    let (missed, effective_at) = input.value;
    let at = caller.at(effective_at, input.now)?;
    let zone = app.store.zone(caller.tenant()).await?;
    let calendar = Arc::new(calendar::calendar(&zone, at));
    let command = Command::CheckIn { member_id, missed, calendar };
    let envelope = caller.envelope(command, effective_at, input.idempotency, input.now)?;
    answer::run_once(&app, envelope).await
}

/// Read a member's check-ins of a month
#[utoipa::path(get, path = "/v1/members/{member_id}/check-ins", tag = "Check-ins", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path),
        ("month" = Option<String>, Query, description = "Default: this month.", example = "2026-03")),
    responses((status = 200, description = "The month", body = CheckInMonth<'static>), Problems))]
pub async fn list_check_ins(
    State(app): State<AppState>,
    key: AnyKey,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.on_behalf_of(&member_id)?.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let month = parameters.take("month", "a month, like 2026-03", |text| {
        if text.len() == 7 { format!("{text}-01").parse::<Date>().ok() } else { None }
    });
    parameters.finish()?;
    let today = calendar::day(&app.store.zone(tenant).await?, clock::now());
    let first = month.map_or(today.month_start(), calendar::day_of);
    let (latest, rows) = app.store.check_ins(tenant, &member_id, first, first.next_month_start()).await?;
    let streak = latest.as_ref().filter(|row| row.day.0 >= today.0 - 1).map_or(0, |row| row.streak);
    let (year, month, _) = first.civil();
    answer::ok(&CheckInMonth {
        member_id: &member_id,
        month: format!("{year:04}-{month:02}"),
        today: today.to_string(),
        checked_in_today: latest.is_some_and(|row| row.day == today),
        streak,
        points: rows.iter().map(|row| row.points).sum(),
        days: rows.iter().map(CheckInView::from).collect(),
    })
}

/// Points that changed hands: the line on each account.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsTransfer)]
pub struct TransferView<'a> {
    #[schema(value_type = TransactionView<'static>)]
    sent: TransactionView<'a>,
    #[schema(value_type = TransactionView<'static>)]
    received: TransactionView<'a>,
}

impl<'a> From<&'a Transfer> for TransferView<'a> {
    fn from(transfer: &'a Transfer) -> Self {
        TransferView { sent: (&transfer.sent).into(), received: (&transfer.received).into() }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// Who gets them.
    #[schema(value_type = schema::MemberId)]
    to_member_id: Option<MemberId>,
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    /// Your own reference.
    #[schema(min_length = 1, max_length = 64)]
    reference: Option<String>,
    #[schema(max_length = 500)]
    remark: Option<String>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

pub struct Given {
    to: MemberId,
    points: i64,
    reference: Option<String>,
    remark: Option<String>,
    effective_at: Option<Timestamp>,
}

impl Checked for TransferRequest {
    type Value = Given;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Given> {
        let to = errors.required("to_member_id", self.to_member_id);
        let points = errors.integer("points", self.points, 1..=MAX_POINTS);
        errors.optional_text("reference", self.reference.as_deref(), 1..=64);
        check_remark(errors, self.remark.as_deref());
        let effective_at = errors.effective_at(self.effective_at, now);
        Some(Given { to: to?, points: points?, reference: self.reference, remark: self.remark, effective_at })
    }
}

/// Give points of a member to another
///
/// Those that expire soonest go first, and keep their expiry. A reversal of the sender's transaction takes back what the other
/// has not spent.
#[utoipa::path(post, path = "/v1/members/{member_id}/points/transfers", tag = "Points", security(("key" = ["SERVICE"])),
    params(("member_id" = schema::MemberId, Path), IdempotencyKey), request_body = TransferRequest,
    responses((status = 201, description = "Transferred", body = TransferView<'static>), Problems))]
pub async fn create_transfer(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(from): InPath<MemberId>,
    input: Input<TransferRequest>,
) -> Result<Response, Problem> {
    let Given { to, points, reference, remark, effective_at } = input.value;
    let command = Command::Transfer { from, to, points, reference, remark };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeRequest {
    /// Who takes everything over.
    #[schema(value_type = schema::MemberId)]
    into_member_id: Option<MemberId>,
    #[schema(max_length = 500)]
    remark: Option<String>,
    /// Never in the future.
    effective_at: Option<Time>,
}

impl Checked for MergeRequest {
    type Value = (MemberId, Option<String>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let into = errors.required("into_member_id", self.into_member_id);
        check_remark(errors, self.remark.as_deref());
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((into?, self.remark, effective_at))
    }
}

/// Merge a member's account into another's
///
/// Moves all lots with their expiry, what is still to become available, and the debt, and closes the account for good: it refuses
/// new requests, naming the other. Refunds and reversals of what happened before are still decided on it; what comes of them
/// follows within a minute, or at once by merging again. Coupons stay where they are.
#[utoipa::path(post, path = "/v1/members/{member_id}/points/merges", tag = "Points", security(("key" = ["OPERATOR"])),
    params(("member_id" = schema::MemberId, Path), IdempotencyKey), request_body = MergeRequest,
    responses((status = 201, description = "Merged", body = TransferView<'static>), Problems))]
pub async fn create_merge(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(from): InPath<MemberId>,
    input: Input<MergeRequest>,
) -> Result<Response, Problem> {
    let (into, remark, effective_at) = input.value;
    let command = Command::Merge { from, into, remark };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::CREATED).await
}
