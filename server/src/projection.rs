//! Read models folded from the event log: what happened on each day, and leaderboards with exact ranks.
//!
//! A pass takes a tenant's next events, adds them up in memory and writes the sums together with the new position in one
//! transaction. Two nodes may fold at once: the second finds the position moved and drops its work, so every event counts
//! exactly once without a lease. The models hold nothing that the log does not; `scrip rebuild` deletes them and the fold
//! makes them anew. They lag behind the log by about [`ProjectionOptions::interval`], longer in a rush; answers say as of when
//! they are.
//!
//! **Ranks.** A board keeps a score for each member and, in buckets, how many members have about which score. Buckets come in
//! two widths: at most 1/256 of the score, exact below 512, so that a board has a few thousand of them at most; and 1/16 of
//! that, at most 16 of them in each wide one. A rank is one plus the members in higher wide buckets, in higher narrow ones of
//! the same wide one, and with a higher score in the same narrow one: three short index ranges, however many members there
//! are and however alike their scores ([`Above`]). Equal scores share a rank.
//!
//! **Merged members.** What a member earned belongs to the member its account was merged into, on every board, those of days gone by
//! included: a board says who owns what was earned then. So the fold keeps for each merged member its owner. A merge moves the
//! scores of the past; what is told of the closed account afterwards (an order it had under way) counts for its owner at once,
//! and its balance, which a pass moves on, is on no board. Statistics count what happened, whoever owns it now. A page asks for
//! owners, scores and the closed accounts' places on all boards in one statement each, however many merges it tells of.
//!
//! Deliberately absent: decisions. Nothing that moves stock or points reads these tables.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use scrip_domain::event::{Event, EventKind};
use scrip_domain::{MemberId, TenantId, Timestamp};
use serde::Deserialize;

use crate::clock;
use crate::metrics::Metrics;
use crate::store::{Folded, Progress, Store};

/// Events folded in one transaction: short, because SQLite's writer waits for it.
const PAGE: i64 = 2_000;
/// After each page the fold rests this many times as long as the page took, so that it never takes more than a tenth of a
/// core from the decisions it tells of; a fiftieth while many commands wait. In a rush it falls behind, and catches up
/// afterwards: while nothing is decided it does not rest.
const REST: u32 = 9;
const REST_IN_A_RUSH: u32 = 49;
/// A page that had to wait for the writer has not worked all that time: a rest of fifty times as long would be a standstill.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// So many commands waiting in the lanes are a rush.
const RUSH: i64 = 64;
/// Pages a tenant gets in one pass, and tenants a pass looks at; the rest waits for the next pass.
const PAGES_PER_PASS: usize = 50;
const TENANTS_PER_PASS: i64 = 200;

/// The subject of a tenant's points statistics.
pub const POINTS: &str = "points";

/// The name under which claw-backs that wrote points off are counted, beside that of their lines.
pub const FORGIVEN: &str = "FORGIVEN";

/// That of the coupons of all its templates.
pub const COUPONS: &str = "coupons";

#[derive(Debug, Clone)]
pub struct ProjectionOptions {
    /// Between two passes; zero turns them off.
    pub interval: Duration,
}

/// What a board ranks by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Points earned.
    Earned,
    /// Points available.
    Balance,
}

impl Metric {
    pub const ALL: [Metric; 2] = [Metric::Earned, Metric::Balance];

    pub fn as_str(self) -> &'static str {
        match self {
            Metric::Earned => "EARNED",
            Metric::Balance => "BALANCE",
        }
    }

    pub fn parse(text: &str) -> Option<Metric> {
        Metric::ALL.into_iter().find(|metric| metric.as_str() == text)
    }
}

/// Over which time points count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    All,
    Day,
    /// From Monday.
    Week,
    Month,
}

impl Period {
    pub const ALL: [Period; 4] = [Period::All, Period::Day, Period::Week, Period::Month];

    pub fn as_str(self) -> &'static str {
        match self {
            Period::All => "ALL",
            Period::Day => "DAY",
            Period::Week => "WEEK",
            Period::Month => "MONTH",
        }
    }

    pub fn parse(text: &str) -> Option<Period> {
        Period::ALL.into_iter().find(|period| period.as_str() == text)
    }

    /// The period's first day.
    fn start(self, date: Date) -> Option<Date> {
        match self {
            Period::All => None,
            Period::Day => Some(date),
            Period::Week => Some(date.saturating_sub(jiff::Span::new().days(date.weekday().to_monday_zero_offset()))),
            Period::Month => Some(date.first_of_month()),
        }
    }
}

/// The name of the board of a metric in the period that contains `date`.
pub fn board(metric: Metric, period: Period, date: Date) -> String {
    match period.start(date) {
        None => format!("{}:ALL", metric.as_str()),
        Some(start) => format!("{}:{}:{start}", metric.as_str(), period.as_str()),
    }
}

/// The tenant's local date at an instant.
pub fn local_date(zone: &TimeZone, at: Timestamp) -> Date {
    let instant = jiff::Timestamp::from_microsecond(at.0).unwrap_or(jiff::Timestamp::MAX);
    zone.to_datetime(instant).date()
}

/// Leading bits of a score that tell its bucket, the first one apart.
const WIDE_BITS: u32 = 8;
const NARROW_BITS: u32 = 12;
/// The number of the first narrow bucket; wide ones are below.
pub const FIRST_NARROW: i64 = 1 << 32;

/// The bucket of a score, and the score at which the next one begins. Both grow with the score.
fn bucket(score: i64, exact_bits: u32) -> (i64, i64) {
    let score = score.max(0);
    let bits = i64::BITS - score.leading_zeros();
    let shift = bits.saturating_sub(exact_bits + 1);
    let top = score >> shift;
    ((i64::from(shift) << exact_bits) + top, (top + 1).checked_shl(shift).filter(|end| *end > 0).unwrap_or(i64::MAX))
}

/// The numbers of the two buckets that count a score.
fn buckets(score: i64) -> [i64; 2] {
    [bucket(score, WIDE_BITS).0, FIRST_NARROW + bucket(score, NARROW_BITS).0]
}

/// What of a board is above a score, in three ranges that meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Above {
    /// In wide buckets after this one.
    pub wide: i64,
    /// In narrow buckets after the first of these and before the second.
    pub narrow: (i64, i64),
    /// With a score above the first of these and below the second.
    pub scores: (i64, i64),
}

impl Above {
    pub fn score(score: i64) -> Above {
        let [wide, own] = buckets(score);
        let (_, wide_end) = bucket(score, WIDE_BITS);
        let [_, next] = buckets(wide_end);
        Above { wide, narrow: (own, next), scores: (score, bucket(score, NARROW_BITS).1) }
    }
}

/// The fields of an event's data that are folded.
#[derive(Debug, Default, Deserialize)]
struct Data {
    #[serde(rename = "type")]
    kind: Option<String>,
    points: Option<i64>,
    captured: Option<i64>,
    released: Option<i64>,
    points_forgiven: Option<i64>,
    balance_after: Option<i64>,
    template_id: Option<String>,
    discount_amount: Option<i64>,
    into: Option<MemberId>,
}

/// Sums of events, before the scores of the members concerned are known.
#[derive(Debug, Default)]
struct Sums {
    statistics: HashMap<(String, String, String), (i64, i64)>,
    earned: HashMap<(String, MemberId), i64>,
    balances: HashMap<(String, MemberId), i64>,
    /// Members whose accounts were merged, and into whose.
    merged: HashMap<MemberId, MemberId>,
}

impl Sums {
    fn add(&mut self, zone: &TimeZone, event: &Event) -> anyhow::Result<()> {
        let data: Data =
            serde_json::from_str(&event.data).with_context(|| format!("the data of the event {}", event.id))?;
        let date = local_date(zone, event.occurred_at);
        if let Some((name, amount)) = points_moved(event.kind, &data) {
            self.count(POINTS.to_owned(), date, name, amount);
            if let Some(member) = &event.member_id {
                if event.kind == EventKind::PointsGranted {
                    for period in Period::ALL {
                        let key = (board(Metric::Earned, period, date), member.clone());
                        *self.earned.entry(key).or_default() += amount;
                    }
                }
                if let Some(balance) = data.balance_after {
                    self.balances.insert((board(Metric::Balance, Period::All, date), member.clone()), balance);
                }
            }
        }
        if let (EventKind::PointsReversed, Some(points)) = (event.kind, data.points_forgiven) {
            self.count(POINTS.to_owned(), date, FORGIVEN.to_owned(), points);
        }
        if let (EventKind::AccountMerged, Some(from), Some(into)) = (event.kind, &event.member_id, data.into) {
            self.merged.insert(from.clone(), into);
        }
        if let (Some(name), Some(template)) = (coupon_step(event.kind), data.template_id) {
            let amount = data.discount_amount.unwrap_or(0);
            self.count(COUPONS.to_owned(), date, name.to_owned(), amount);
            self.count(template, date, name.to_owned(), amount);
        }
        Ok(())
    }

    fn count(&mut self, subject: String, date: Date, name: String, amount: i64) {
        let (events, total) = self.statistics.entry((subject, date.to_string(), name)).or_default();
        *events += 1;
        *total += amount;
    }
}

/// Whose points those of merged members are.
struct Owners {
    by_member: HashMap<MemberId, MemberId>,
}

impl Owners {
    /// Of the members that the sums name, however often they were merged on. An account is merged once, into one that is open
    /// then: what the sums say of it comes first.
    async fn of(store: &Store, tenant: TenantId, sums: &Sums) -> anyhow::Result<Owners> {
        let named = sums.earned.keys().chain(sums.balances.keys()).map(|(_, member)| member);
        let wanted: BTreeSet<&MemberId> = named.chain(sums.merged.values()).collect();
        let mut by_member = store.board_owners(tenant, &wanted).await?;
        by_member.extend(sums.merged.clone());
        Ok(Owners { by_member })
    }

    fn of_member<'a>(&'a self, member: &'a MemberId) -> &'a MemberId {
        let mut owner = member;
        while let Some(next) = self.by_member.get(owner) {
            owner = next;
        }
        owner
    }
}

/// What a points event moved: the transaction's type, and how many points.
fn points_moved(kind: EventKind, data: &Data) -> Option<(String, i64)> {
    let named = |name: &str, points: Option<i64>| Some((name.to_owned(), points.unwrap_or(0)));
    match kind {
        EventKind::PointsHeld => named("HOLD", data.points),
        EventKind::PointsCaptured => named("USE_ORDER", data.captured),
        EventKind::PointsReleased => named("RELEASE", data.released),
        _ if kind.as_str().starts_with("points.") => {
            Some((data.kind.clone()?, data.points.unwrap_or(0).saturating_abs()))
        }
        _ => None,
    }
}

/// The step of a coupon's life, as counted for its template.
fn coupon_step(kind: EventKind) -> Option<&'static str> {
    kind.as_str().strip_prefix("coupon.")
}

/// Runs passes until the task is dropped.
pub async fn run(store: Store, metrics: std::sync::Arc<Metrics>, options: ProjectionOptions) {
    if options.interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(options.interval).await;
        match pass(&store, &metrics).await {
            Ok(lag) => metrics.projection_lag_seconds.set(lag.as_secs_f64()),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "a fold failed; the next pass goes on"),
        }
    }
}

/// Folds what is there, tenant by tenant; how far behind the last of them still is.
async fn pass(store: &Store, metrics: &Metrics) -> anyhow::Result<Duration> {
    let mut behind = Duration::ZERO;
    for tenant in store.tenants_to_fold(TENANTS_PER_PASS).await? {
        for _ in 0..PAGES_PER_PASS {
            let (begun, batches) = (Instant::now(), metrics.lane_batch_size.get_sample_count());
            if !fold_page(store, tenant).await? {
                break;
            }
            let rest = if metrics.lane_depth.get() > RUSH {
                REST_IN_A_RUSH
            } else if metrics.lane_batch_size.get_sample_count() > batches {
                REST
            } else {
                0
            };
            tokio::time::sleep((begun.elapsed() * rest).min(LONGEST_REST)).await;
        }
        let progress = store.projection_progress(tenant).await?;
        let newer = store.list_events(tenant, progress.position, None, 1).await?;
        if !newer.events.is_empty() {
            behind = behind.max(clock::since(progress.as_of));
        }
    }
    Ok(behind)
}

/// Folds everything a tenant has now: for tests, and for whoever waits for a report.
///
/// # Errors
/// When the store fails, or an event cannot be read.
pub async fn catch_up(store: &Store, tenant: TenantId) -> anyhow::Result<()> {
    while fold_page(store, tenant).await? {}
    Ok(())
}

/// Folds the next events; false when there were none.
async fn fold_page(store: &Store, tenant: TenantId) -> anyhow::Result<bool> {
    let progress = store.projection_progress(tenant).await?;
    let page = store.list_events(tenant, progress.position, None, PAGE).await?;
    let Some((position, last)) = page.events.last() else { return Ok(false) };
    let settings = store.find_tenant(tenant).await?.context("the tenant of these events is missing")?;
    let zone = TimeZone::get(&settings.time_zone).context("the tenant's time zone")?;
    let mut sums = Sums::default();
    for (_, event) in &page.events {
        sums.add(&zone, event)?;
    }
    let owners = Owners::of(store, tenant, &sums).await?;
    let mut before = HashMap::new();
    let mut earned: HashMap<(String, MemberId), i64> = HashMap::new();
    let mut replaced: HashMap<(String, MemberId), i64> = HashMap::new();
    for ((name, member), points) in sums.earned {
        *earned.entry((name, owners.of_member(&member).clone())).or_default() += points;
    }
    for ((name, member), balance) in sums.balances {
        // A closed account's balance is on its way to its owner.
        if !owners.by_member.contains_key(&member) {
            replaced.insert((name, member), balance);
        }
    }
    if !sums.merged.is_empty() {
        before = store.scores_everywhere(tenant, &sums.merged.keys().collect()).await?;
        for ((name, member), score) in &before {
            if name.starts_with(Metric::Earned.as_str()) {
                *earned.entry((name.clone(), owners.of_member(member).clone())).or_default() += score;
            }
            replaced.insert((name.clone(), member.clone()), 0);
        }
    }
    let keys: BTreeSet<&(String, MemberId)> =
        earned.keys().chain(replaced.keys()).filter(|key| !before.contains_key(*key)).collect();
    before.extend(store.scores(tenant, &keys).await?);
    let mut folded = Folded { statistics: sums.statistics, owners: sums.merged, ..Folded::default() };
    let earned = earned.into_iter().map(|(key, points)| {
        let score = before.get(&key).copied().unwrap_or(0).saturating_add(points);
        (key, score)
    });
    for (key, score) in earned.chain(replaced) {
        let old = before.get(&key).copied().unwrap_or(0);
        for (score, change) in [(old, -1), (score, 1)] {
            if score > 0 {
                for bucket in buckets(score) {
                    *folded.buckets.entry((key.0.clone(), bucket)).or_default() += change;
                }
            }
        }
        folded.scores.insert(key, score);
    }
    let to = Progress { position: *position, as_of: last.recorded_at };
    store.fold(tenant, progress.position, to, &folded).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_with_the_score_and_are_narrow() {
        for bits in [WIDE_BITS, NARROW_BITS] {
            let (exact, share) = (2 << bits, 1 << bits);
            let mut last = (0, 1);
            assert_eq!(bucket(0, bits), last);
            for score in (1..100_000).chain([1 << 40, (1 << 40) + 1, i64::MAX / 2, i64::MAX]) {
                let (number, end) = bucket(score, bits);
                assert!(score < end || end == i64::MAX, "{score} lies below the end of its bucket");
                assert!(number == last.0 || number > last.0 && score >= last.1, "{score} follows");
                assert!(score < exact || end - score <= score / share + 1, "{score} has a narrow bucket");
                last = (number, end);
            }
            assert!(last.0 < 64 << bits && last.0 < FIRST_NARROW);
        }
    }

    #[test]
    fn what_is_above_a_score_is_counted_once() {
        let scores: Vec<i64> =
            (0..6_000).chain((13..62).flat_map(|bits| [-1, 0, 1, 77].map(|by| (1 << bits) + by))).collect();
        for score in scores.iter().copied() {
            let above = Above::score(score);
            for other in scores.iter().copied() {
                let [wide, narrow] = buckets(other);
                let within = |value, (after, before)| after < value && value < before;
                let counts =
                    [wide > above.wide, within(narrow, above.narrow), within(other, above.scores)].map(usize::from);
                assert_eq!(
                    counts.iter().sum::<usize>(),
                    usize::from(other > score),
                    "{other} above {score}: {counts:?}"
                );
            }
            let narrow = above.narrow.1 - above.narrow.0;
            assert!(narrow <= 16, "{score}: {narrow} narrow buckets are read");
        }
    }

    #[test]
    fn periods_begin_where_calendars_say() {
        let date = jiff::civil::date(2026, 3, 1);
        let names = Period::ALL.map(|period| board(Metric::Earned, period, date));
        assert_eq!(names, ["EARNED:ALL", "EARNED:DAY:2026-03-01", "EARNED:WEEK:2026-02-23", "EARNED:MONTH:2026-03-01"]);
    }

    #[test]
    fn a_local_day_follows_daylight_saving() {
        let zone = TimeZone::get("Europe/Berlin").expect("a known zone");
        let at = |text: &str| Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_microsecond());
        assert_eq!(local_date(&zone, at("2026-03-28T22:59:59Z")).to_string(), "2026-03-28");
        assert_eq!(local_date(&zone, at("2026-03-28T23:00:00Z")).to_string(), "2026-03-29");
        assert_eq!(local_date(&zone, at("2026-03-29T21:59:59Z")).to_string(), "2026-03-29");
        assert_eq!(local_date(&zone, at("2026-03-29T22:00:00Z")).to_string(), "2026-03-30");
    }
}
