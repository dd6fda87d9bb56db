//! Leaderboards, statistics and the points liability: read models, which lag behind by about a second and say as of when
//! they are; except the liability, which is read from the books themselves.

use axum::http::Uri;
use axum::response::Response;
use jiff::civil::Date;
use scrip_domain::{MemberId, TemplateId, TenantId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::auth::{Operator, Service};
use super::consistency::{ConsistencyToken, Reads};
use super::extract::{Cursor, InPath, Parameters};
use super::problem::{Code, Problem};
use super::schema::{self, PageQuery, Problems};
use super::time::Time;
use crate::clock;
use crate::projection::{self, Above, Metric, POINTS, Period};
use crate::reports::Liability;
use crate::store::Statistic;
use crate::store::Store;

/// Days a report covers at most, and when nothing is said.
const MAX_DAYS: i32 = 400;
const DEFAULT_DAYS: i32 = 30;
/// Days of a template's trend, today included.
const TREND_DAYS: i32 = 7;
const MAX_AROUND: i64 = 50;

/// One place on a board.
#[derive(Serialize, ToSchema)]
pub struct BoardPlace {
    /// 1 for the highest score; equal scores share a rank.
    rank: i64,
    #[schema(value_type = schema::MemberId)]
    member_id: MemberId,
    score: i64,
}

/// A page of a board, from the top.
#[derive(Serialize, ToSchema)]
pub struct Leaderboard {
    metric: &'static str,
    period: &'static str,
    /// Members on the board.
    members: i64,
    /// Events up to then are counted.
    as_of: Time,
    data: Vec<BoardPlace>,
    next_cursor: Option<String>,
}

/// A member's place on a board, and who is around it.
#[derive(Serialize, ToSchema)]
pub struct MemberRank {
    #[schema(value_type = schema::MemberId)]
    member_id: MemberId,
    metric: &'static str,
    period: &'static str,
    /// Null for a member without a score.
    rank: Option<i64>,
    score: i64,
    members: i64,
    as_of: Time,
    /// Those just above, nearest last.
    above: Vec<BoardPlace>,
    /// Those just below, nearest first.
    below: Vec<BoardPlace>,
}

/// Which board is asked for.
struct Board {
    metric: Metric,
    period: Period,
    name: String,
}

impl Board {
    /// Takes `metric`, `period` and `date`; today, in the tenant's time zone, when no date is given.
    fn take(parameters: &mut Parameters, today: Date) -> Board {
        let metric = parameters.take("metric", "EARNED or BALANCE", Metric::parse).unwrap_or(Metric::Earned);
        let expected = match metric {
            Metric::Earned => "ALL, DAY, WEEK or MONTH",
            Metric::Balance => "ALL: a balance has no period",
        };
        let fits = |period: &Period| metric == Metric::Earned || *period == Period::All;
        let period = parameters.take("period", expected, |text| Period::parse(text).filter(fits));
        let period = period.unwrap_or(Period::All);
        let date = take_date(parameters, "date").unwrap_or(today);
        Board { metric, period, name: projection::board(metric, period, date) }
    }
}

pub fn take_date(parameters: &mut Parameters, name: &'static str) -> Option<Date> {
    parameters.take(name, "a date, like 2026-03-01", |text| text.parse().ok())
}

/// The place behind which a page of a board begins.
type BoardCursor = (i64, MemberId);

impl Cursor for BoardCursor {
    fn write(&self) -> String {
        format!("{}.{}", self.0, self.1)
    }

    fn read(text: &str) -> Option<Self> {
        let (score, member) = text.split_once('.')?;
        Some((score.parse().ok().filter(|score| *score > 0)?, member.parse().ok()?))
    }
}

async fn rank_of(store: &Store, tenant: TenantId, board: &str, score: i64) -> Result<i64, Problem> {
    Ok(1 + store.members_above(tenant, board, Above::score(score)).await?)
}

/// Gives rows in the order of a board their ranks: `first` is the first row's, `before` stand above it.
fn ranked(rows: Vec<(MemberId, i64)>, first: i64, before: i64) -> Vec<BoardPlace> {
    let mut places: Vec<BoardPlace> = Vec::with_capacity(rows.len());
    for ((member_id, score), place) in rows.into_iter().zip(before + 1..) {
        let rank = match places.last() {
            None => first,
            Some(last) if last.score == score => last.rank,
            Some(_) => place,
        };
        places.push(BoardPlace { rank, member_id, score });
    }
    places
}

/// Read a leaderboard from the top
///
/// By points earned in the period that contains `date` (default: today in the tenant's time zone), or by the balance.
/// Weeks begin on Monday.
#[utoipa::path(get, path = "/v1/points/leaderboard", tag = "Reports", security(("key" = ["SERVICE"])),
    params(("metric" = Option<schema::BoardMetric>, Query), ("period" = Option<schema::BoardPeriod>, Query),
        ("date" = Option<schema::LocalDate>, Query), PageQuery, ConsistencyToken),
    responses((status = 200, description = "A page", body = Leaderboard), Problems))]
pub async fn get_leaderboard(Service(caller): Service, reads: Reads, uri: Uri) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let today = projection::local_date(&reads.zone(tenant).await?, clock::now());
    let board = Board::take(&mut parameters, today);
    let page = parameters.page::<BoardCursor>();
    parameters.finish()?;
    let after = page.cursor.as_ref().map(|(score, member)| (*score, member));
    let mut rows = reads.board_from(tenant, &board.name, after, page.limit + 1).await?;
    let next_cursor = super::cut(&mut rows, page.limit, |(member, score)| (*score, member.clone()).write());
    let data = match rows.first() {
        None => Vec::new(),
        Some((_, score)) => {
            let first = rank_of(&reads, tenant, &board.name, *score).await?;
            // How many rows stand above the page, of those that share the first row's score too.
            let above = match after {
                Some((last, member)) if last == *score => {
                    first - 1 + reads.board_ties_before(tenant, &board.name, last, member).await?
                }
                _ => first - 1,
            };
            ranked(rows, first, above)
        }
    };
    let members = reads.board_members(tenant, &board.name).await?;
    let as_of = Time(reads.projection_progress(tenant).await?.as_of);
    let (metric, period) = (board.metric.as_str(), board.period.as_str());
    answer::ok(&Leaderboard { metric, period, members, as_of, data, next_cursor })
}

/// Read a member's rank
///
/// With `around`, also that many members above and below.
#[utoipa::path(get, path = "/v1/members/{member_id}/points/rank", tag = "Reports", security(("key" = ["SERVICE"])),
    params(("member_id" = schema::MemberId, Path), ("metric" = Option<schema::BoardMetric>, Query),
        ("period" = Option<schema::BoardPeriod>, Query), ("date" = Option<schema::LocalDate>, Query),
        ("around" = Option<i64>, Query, minimum = 0, maximum = 50), ConsistencyToken),
    responses((status = 200, description = "The rank", body = MemberRank), Problems))]
pub async fn get_rank(
    Service(caller): Service,
    reads: Reads,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let today = projection::local_date(&reads.zone(tenant).await?, clock::now());
    let board = Board::take(&mut parameters, today);
    let around = parameters.take("around", "an integer from 0 to 50", |text| {
        text.parse().ok().filter(|around| (0..=MAX_AROUND).contains(around))
    });
    parameters.finish()?;
    let around = around.unwrap_or(0);
    let score = reads.score(tenant, &board.name, &member_id).await?.unwrap_or(0);
    let (mut rank, mut above, mut below) = (None, Vec::new(), Vec::new());
    if score > 0 {
        let own = rank_of(&reads, tenant, &board.name, score).await?;
        rank = Some(own);
        if around > 0 {
            let ties = reads.board_ties_before(tenant, &board.name, score, &member_id).await?;
            let mut rows = reads.board_above(tenant, &board.name, (score, &member_id), around).await?;
            rows.reverse();
            if let Some((_, first_score)) = rows.first() {
                let first = rank_of(&reads, tenant, &board.name, *first_score).await?;
                let before = own - 1 + ties - rows.len() as i64;
                above = ranked(rows, first, before);
            }
            let after = Some((score, &member_id));
            let rows = reads.board_from(tenant, &board.name, after, around).await?;
            let place = own + ties;
            let first = if rows.first().is_some_and(|(_, next)| *next == score) { own } else { place + 1 };
            below = ranked(rows, first, place);
        }
    }
    let members = reads.board_members(tenant, &board.name).await?;
    let as_of = Time(reads.projection_progress(tenant).await?.as_of);
    let (metric, period) = (board.metric.as_str(), board.period.as_str());
    answer::ok(&MemberRank { member_id, metric, period, rank, score, members, as_of, above, below })
}

/// What happened of one kind, on one day or in all.
#[derive(Serialize, ToSchema)]
pub struct PointsStatistic {
    /// Null in totals.
    #[schema(value_type = Option<schema::LocalDate>)]
    day: Option<String>,
    /// A transaction's type; or FORGIVEN, for what claw-backs wrote off, which no transaction has moved.
    #[serde(rename = "type")]
    #[schema(value_type = schema::PointsStatisticType)]
    kind: String,
    count: i64,
    points: i64,
}

impl PointsStatistic {
    fn of(statistic: Statistic) -> Self {
        let Statistic { day, name, events, amount } = statistic;
        PointsStatistic { day: Some(day).filter(|day| !day.is_empty()), kind: name, count: events, points: amount }
    }
}

/// Points by transaction type, day by day.
#[derive(Serialize, ToSchema)]
pub struct PointsReport {
    #[schema(value_type = schema::LocalDate)]
    from: String,
    #[schema(value_type = schema::LocalDate)]
    to: String,
    as_of: Time,
    data: Vec<PointsStatistic>,
    /// Over all days there are.
    totals: Vec<PointsStatistic>,
}

/// Read points statistics by type and day
#[utoipa::path(get, path = "/v1/reports/points", tag = "Reports", security(("key" = ["OPERATOR"])),
    params(("from" = Option<schema::LocalDate>, Query), ("to" = Option<schema::LocalDate>, Query), ConsistencyToken),
    responses((status = 200, description = "The report", body = PointsReport), Problems))]
pub async fn get_points_report(Operator(caller): Operator, reads: Reads, uri: Uri) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let to = take_date(&mut parameters, "to");
    let from = take_date(&mut parameters, "from");
    parameters.finish()?;
    let today = projection::local_date(&reads.zone(tenant).await?, clock::now());
    let to = to.unwrap_or(today);
    let from = from.unwrap_or_else(|| days_before(to, DEFAULT_DAYS - 1));
    if from > to || days_before(to, MAX_DAYS) >= from {
        let remedy = format!("Send a day no later than `to`, and at most {MAX_DAYS} days in all.");
        return Err(Problem::field("from", "is out of range", remedy));
    }
    let (from, to) = (from.to_string(), to.to_string());
    let found = reads.statistics(tenant, POINTS, &from, &to).await?;
    let totals = reads.statistic_totals(tenant, POINTS).await?;
    let as_of = Time(reads.projection_progress(tenant).await?.as_of);
    let data = found.into_iter().map(PointsStatistic::of).collect();
    answer::ok(&PointsReport { from, to, as_of, data, totals: totals.into_iter().map(PointsStatistic::of).collect() })
}

fn days_before(date: Date, days: i32) -> Date {
    date.saturating_sub(jiff::Span::new().days(days))
}

/// A day of a template's life.
#[derive(Serialize, ToSchema)]
pub struct TemplateDay {
    #[schema(value_type = schema::LocalDate)]
    day: String,
    claimed: i64,
    used: i64,
    expired: i64,
    /// Given by uses on that day, in minor units.
    discount_amount: i64,
}

/// What became of a template's coupons.
#[derive(Serialize, ToSchema)]
pub struct TemplateStatistics {
    #[schema(value_type = schema::TemplateId)]
    template_id: TemplateId,
    claimed_count: i64,
    used_count: i64,
    /// `used_count` of `claimed_count`, in basis points (1/100 of a percent).
    usage_rate_bp: i64,
    expired_count: i64,
    revoked_count: i64,
    /// Given by uses and not taken back by returns, in minor units.
    discount_amount: i64,
    /// The last seven days, today included, in the tenant's time zone.
    trend: Vec<TemplateDay>,
    as_of: Time,
}

/// Read a template's statistics
#[utoipa::path(get, path = "/v1/coupon-templates/{template_id}/statistics", tag = "Reports",
    security(("key" = ["OPERATOR"])), params(("template_id" = schema::TemplateId, Path), ConsistencyToken),
    responses((status = 200, description = "The statistics", body = TemplateStatistics), Problems))]
pub async fn get_template_statistics(
    Operator(caller): Operator,
    reads: Reads,
    InPath(template_id): InPath<TemplateId>,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let template = reads.find_template(tenant, template_id).await?.ok_or(Problem::new(Code::TemplateNotFound))?;
    let Steps { totals, trend, as_of } = steps(&reads, tenant, &template_id.to_string()).await?;
    let (claimed_count, used_count) = (template.claimed_count, template.used_count);
    answer::ok(&TemplateStatistics {
        template_id,
        claimed_count,
        used_count,
        usage_rate_bp: rate_bp(used_count, claimed_count),
        expired_count: totals.expired(),
        revoked_count: totals.of("revoked").0,
        discount_amount: totals.discount_amount(),
        trend,
        as_of,
    })
}

/// What became of the coupons of all templates.
#[derive(Serialize, ToSchema)]
pub struct CouponReport {
    claimed_count: i64,
    /// Uses that stand.
    used_count: i64,
    /// `used_count` of `claimed_count`, in basis points (1/100 of a percent).
    usage_rate_bp: i64,
    expired_count: i64,
    revoked_count: i64,
    /// Given to other members.
    transferred_count: i64,
    /// Given by uses and not taken back by returns, in minor units.
    discount_amount: i64,
    /// The last seven days, today included, in the tenant's time zone.
    trend: Vec<TemplateDay>,
    as_of: Time,
}

/// Read the statistics of all coupons
#[utoipa::path(get, path = "/v1/reports/coupons", tag = "Reports", security(("key" = ["OPERATOR"])),
    params(ConsistencyToken),
    responses((status = 200, description = "The statistics", body = CouponReport), Problems))]
pub async fn get_coupon_report(Operator(caller): Operator, reads: Reads) -> Result<Response, Problem> {
    let Steps { totals, trend, as_of } = steps(&reads, caller.tenant(), projection::COUPONS).await?;
    let claimed_count = totals.of("claimed").0;
    let used_count = totals.of("used").0 - totals.of("returned").0 - totals.of("compensation_needed").0;
    answer::ok(&CouponReport {
        claimed_count,
        used_count,
        usage_rate_bp: rate_bp(used_count, claimed_count),
        expired_count: totals.expired(),
        revoked_count: totals.of("revoked").0,
        transferred_count: totals.of("transferred").0,
        discount_amount: totals.discount_amount(),
        trend,
        as_of,
    })
}

fn rate_bp(part: i64, whole: i64) -> i64 {
    (part * 10_000).checked_div(whole).unwrap_or(0)
}

/// The steps that coupons of a subject have taken: in all, and day by day.
struct Steps {
    totals: Totals,
    trend: Vec<TemplateDay>,
    as_of: Time,
}

struct Totals(Vec<crate::store::Statistic>);

impl Totals {
    /// How many, and how much in all.
    fn of(&self, name: &str) -> (i64, i64) {
        self.0.iter().find(|total| total.name == name).map_or((0, 0), |total| (total.events, total.amount))
    }

    fn expired(&self) -> i64 {
        self.of("expired").0 + self.of("compensation_needed").0
    }

    fn discount_amount(&self) -> i64 {
        self.of("used").1 - self.of("returned").1 - self.of("compensation_needed").1
    }
}

async fn steps(store: &Store, tenant: TenantId, subject: &str) -> Result<Steps, Problem> {
    let totals = Totals(store.statistic_totals(tenant, subject).await?);
    let today = projection::local_date(&store.zone(tenant).await?, clock::now());
    let from = days_before(today, TREND_DAYS - 1);
    let days = store.statistics(tenant, subject, &from.to_string(), &today.to_string()).await?;
    let trend = from.series(jiff::Span::new().days(1)).take(TREND_DAYS as usize).map(|date| {
        let day = date.to_string();
        let of = |name: &str| {
            let found = days.iter().find(|statistic| statistic.day == day && statistic.name == name);
            found.map_or((0, 0), |statistic| (statistic.events, statistic.amount))
        };
        let (used, discount_amount) = of("used");
        TemplateDay { claimed: of("claimed").0, used, expired: of("expired").0, discount_amount, day }
    });
    Ok(Steps { totals, trend: trend.collect(), as_of: Time(store.projection_progress(tenant).await?.as_of) })
}

/// Points that can still be spent and expire in one month.
#[derive(Serialize, ToSchema)]
pub struct LiabilityMonth {
    /// `2026-03`; null for points that never expire.
    #[schema(value_type = Option<String>)]
    month: Option<String>,
    points: i64,
}

/// What a tenant owes its members in points, to the point.
#[derive(Serialize, ToSchema)]
pub struct LiabilityReport {
    /// Every point ever earned.
    issued: i64,
    redeemed: i64,
    expired: i64,
    revoked: i64,
    /// Held by orders under way.
    held: i64,
    /// Spendable or held: `issued - redeemed - expired - revoked`.
    outstanding: i64,
    /// Owed by members after claw-backs.
    debt: i64,
    /// Not found by claw-backs, and not owed either (`refund.debt_policy` FORGIVE); counted above as what became of them.
    forgiven: i64,
    /// Expired of issued, in basis points (1/100 of a percent).
    breakage_rate_bp: i64,
    /// The outstanding points by the month in which they expire.
    by_month: Vec<LiabilityMonth>,
    as_of: Time,
}

/// Read the points liability
///
/// With `as_of`, what will be left then if nobody does anything; or what was left then, if nobody has done anything since.
#[utoipa::path(get, path = "/v1/reports/points-liability", tag = "Reports", security(("key" = ["OPERATOR"])),
    params(("as_of" = Option<Time>, Query, description = "Not before the last entry in the books. Default: now."),
        ConsistencyToken),
    responses((status = 200, description = "The report", body = LiabilityReport), Problems))]
pub async fn get_liability(Operator(caller): Operator, reads: Reads, uri: Uri) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let as_of = parameters.take("as_of", "a time like 2026-03-01T00:00:00Z", Time::read);
    parameters.finish()?;
    let zone = reads.zone(tenant).await?;
    let at = as_of.map_or_else(clock::now, |at| at.0);
    let liability = Liability::read(reads.store(), tenant, &zone, at).await?;
    if as_of.is_some() && at < liability.changed_at {
        let changed_at = Time(liability.changed_at);
        let remedy = format!(
            "ask for {changed_at} or later; for a member's balance of an earlier time, ask for its points with as_of"
        );
        return Err(Problem::field("as_of", "the books have changed since", remedy));
    }
    answer::ok(&report(liability, at))
}

fn report(liability: Liability, at: Timestamp) -> LiabilityReport {
    LiabilityReport {
        issued: liability.issued,
        redeemed: liability.redeemed,
        expired: liability.expired,
        revoked: liability.revoked,
        held: liability.held,
        outstanding: liability.outstanding(),
        debt: liability.debt,
        forgiven: liability.forgiven,
        breakage_rate_bp: liability.breakage_rate_bp(),
        by_month: liability
            .by_month
            .into_iter()
            .map(|(month, points)| LiabilityMonth { month: month.map(|day| day.strftime("%Y-%m").to_string()), points })
            .collect(),
        as_of: Time(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_share_a_rank() {
        let rows = [("a", 9), ("b", 7), ("c", 7), ("d", 1)].map(|(id, score)| (id.parse().expect("an id"), score));
        let ranks: Vec<i64> = ranked(rows.to_vec(), 1, 0).iter().map(|place| place.rank).collect();
        assert_eq!(ranks, [1, 2, 2, 4]);
        let ranks: Vec<i64> = ranked(rows[2..].to_vec(), 2, 2).iter().map(|place| place.rank).collect();
        assert_eq!(ranks, [2, 4], "a page that begins within a tie");
    }

    #[test]
    fn cursors_read_back() {
        let cursor = (5, "m.1".parse().expect("an id"));
        assert_eq!(BoardCursor::read(&cursor.write()), Some(cursor));
        for bad in ["", "5", "0.m", "-1.m", "5.", "5.a b"] {
            assert_eq!(BoardCursor::read(bad), None, "{bad}");
        }
    }
}
