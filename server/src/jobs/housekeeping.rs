//! The server's own passes, each a job that recurs, done by one node at a time: expiry sweeps, and the purge of what is past
//! its time.

use std::time::Duration;

use scrip_domain::decide::Sweep;
use scrip_domain::job::{JobKind, JobState};
use scrip_domain::points::ReminderPage;
use scrip_domain::{Command, LotId, Outcome, TenantId, Timestamp, WebhookId};
use serde_json::json;
use uuid::Uuid;

use super::expire::{SweepError, SweepScope, Sweeper};
use super::members;
use super::runner::{Done, JobError, Run};
use crate::store::{Store, StoreError};
use crate::{calendar, clock};

/// Objects of each kind settled at a time, so that the sweep leaves room for others between its pages.
const PAGE: i64 = 500;
/// Pages a tenant gets before the next tenant has its turn.
const PAGES_PER_TURN: usize = 20;
/// Turns a tenant gets in one pass, after which the other passes have theirs: ten million objects.
const TURNS_PER_PASS: usize = 1_000;
const TENANT_PAGE: i64 = 200;
/// Lots told of at a time: their accounts are locked meanwhile.
const REMINDER_PAGE: i64 = 100;
/// Longer than any command takes from its decision to its commit.
const UNDER_WAY_MICROS: i64 = 60_000_000;
/// Old rows deleted at a time, and how often in one pass: more in a minute than a tenant makes.
const PURGE_PAGE: i64 = 2_000;
const PURGES_PER_PASS: usize = 1_000;
/// Chunks of a bulk deleted at a time: a few megabytes.
const CHUNK_PAGE: i64 = 20;
/// How long the rows of a file are kept whose request broke off; longer than any file is on its way.
const STRAY_RETENTION: Duration = Duration::from_secs(86_400);

#[derive(Debug, Clone)]
pub struct HousekeepingOptions {
    /// Between two passes; zero turns them off.
    pub interval: Duration,
    /// How long a recorded answer is kept for retries.
    pub idempotency_retention: Duration,
    /// How long jobs are kept that ended well or were cancelled.
    pub done_retention: Duration,
    pub dead_retention: Duration,
    /// How long the rows and results of distributions and imports are kept once they have ended.
    pub bulk_retention: Duration,
    /// How long the log of deliveries to webhooks is kept.
    pub delivery_retention: Duration,
}

/// Makes sure that the passes are there; their first run comes after one interval.
///
/// # Errors
/// When the store fails.
pub async fn ensure_passes(store: &Store, options: &HousekeepingOptions) -> Result<(), StoreError> {
    let every = i64::try_from(options.interval.as_micros()).unwrap_or(i64::MAX);
    let now = clock::now();
    for kind in [JobKind::Sweep, JobKind::Windows, JobKind::Purge] {
        store.ensure_recurring(kind, every, Timestamp(now.0.saturating_add(every)), now).await?;
    }
    Ok(())
}

/// Writes what time has ended, until nothing is left, and what follows from members' deeds by itself: tenants take turns, so
/// that one with a million expiries keeps nobody waiting. Its progress tells what.
///
/// # Errors
/// The first failure; what was settled before it stays settled.
pub async fn sweep_all(run: &Run) -> Result<Done, JobError> {
    let mut total = Sweep::default();
    let mut unfinished = Vec::new();
    let mut failed = None;
    let mut tenants = Tenants::new(&run.store);
    while let Some(tenant) = tenants.next().await? {
        let mut sweeper = Sweeper::new(&run.store, &run.engine, tenant, None, SweepScope::SkipImports);
        if !sweep_turn(run, &mut sweeper, &mut total).await? {
            unfinished.push(sweeper);
        }
        run.check_stopping()?;
        // What one tenant's rows make fail must not keep the next ones waiting; the pass fails in the end, and comes again.
        let reported = members::report_events(&run.store, &run.engine, tenant).await;
        let followed = members::follow_merges(&run.store, &run.engine, tenant).await;
        for error in [reported, followed].into_iter().filter_map(Result::err) {
            tracing::warn!(%tenant, %error, "what follows from members' deeds has to wait");
            failed = failed.or(Some(error));
        }
    }
    for _ in 1..TURNS_PER_PASS {
        if unfinished.is_empty() {
            break;
        }
        run.record_progress(&told(&total)).await?;
        let mut left = Vec::new();
        for mut sweeper in unfinished {
            if !sweep_turn(run, &mut sweeper, &mut total).await? {
                left.push(sweeper);
            }
        }
        unfinished = left;
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Done::With(Some(told(&total)))),
    }
}

/// Some pages of a tenant; whether nothing is left.
async fn sweep_turn(run: &Run, sweeper: &mut Sweeper<'_>, total: &mut Sweep) -> Result<bool, JobError> {
    for _ in 0..PAGES_PER_TURN {
        run.check_stopping()?;
        let swept = sweeper.settle_page(clock::now(), PAGE).await?;
        total.merge(swept);
        if swept.done {
            return Ok(true);
        }
    }
    Ok(false)
}

fn told(sweep: &Sweep) -> String {
    json!({
        "coupons_expired": sweep.coupons_expired,
        "locks_released": sweep.locks_released,
        "holds_released": sweep.holds_released,
        "accounts_settled": sweep.accounts_settled,
        "points_expired": sweep.points_expired,
        "orders_released": sweep.orders_released,
        "points_granted": sweep.points_granted,
    })
    .to_string()
}

/// Tells the beginnings and ends of issue windows, and of points that expire soon, tenant by tenant. Its progress tells how many.
///
/// # Errors
/// The first failure; what was told before it stays told.
pub async fn announce_all(run: &Run) -> Result<Done, JobError> {
    let (mut windows, mut reminders) = (0, 0);
    let mut tenants = Tenants::new(&run.store);
    while let Some(tenant) = tenants.next().await? {
        run.check_stopping()?;
        windows += announce(run, tenant).await?;
        reminders += remind(run, tenant).await?;
    }
    Ok(Done::With(Some(json!({ "windows_announced": windows, "reminders": reminders }).to_string())))
}

/// Tells of the points that expire at the end of the day that comes so many days after today, where the tenant is, or before
/// and were not told yet: page by page, each with the cursor in one transaction. What is left after some pages waits for the
/// next pass.
async fn remind(run: &Run, tenant: TenantId) -> Result<u64, JobError> {
    // What was granted before midnight is to be seen by the first look after it, under way as it may be.
    let today = Timestamp(run.now.0 - UNDER_WAY_MICROS);
    let rules = run.store.rules_at(tenant, run.now).await?;
    let mut told = 0;
    for days_before in rules.points.expiry_reminder_days.iter().copied() {
        let last = LotId(Uuid::max());
        let end = (calendar::end_of_day_after(&run.store.zone(tenant).await?, today, days_before), last);
        for _ in 0..PAGES_PER_TURN {
            run.check_stopping()?;
            // The first time, what expires from now on is told of.
            let from = run.store.reminded(tenant, days_before).await?.unwrap_or((run.now, last));
            if from >= end {
                break;
            }
            let after = from.max((run.now, last));
            let lots = run.store.expiring_lots(tenant, run.now, end.0, Some(after), REMINDER_PAGE).await?;
            let is_last = (lots.len() as i64) < REMINDER_PAGE;
            let until = lots.last().filter(|_| !is_last).map_or(end, |(_, lot)| (lot.expires_at, lot.id));
            let lots = lots.into_iter().map(|(member_id, lot)| (member_id, lot.id)).collect();
            let page = Box::new(ReminderPage { days_before, from, until, lots });
            match run.step_of(tenant, Command::RemindExpiry(page), None).await {
                Ok(Outcome::Announced(count)) => told += count,
                Ok(_) => {}
                Err(JobError::Refused(code)) if code == "POINTS_REMINDERS_TOLD" => break,
                Err(error) => return Err(error),
            }
            if is_last {
                break;
            }
        }
    }
    Ok(told)
}

async fn announce(run: &Run, tenant: TenantId) -> Result<u64, JobError> {
    // The first time there is nothing to tell: what has begun before was told to nobody, and is known.
    let announced = run.store.windows_announced(tenant).await?;
    let from = announced.unwrap_or(Timestamp(run.now.0 - 1));
    let templates = run.store.windows_between(tenant, from, run.now).await?;
    // A cursor moves only where there is something to tell, or once to begin.
    if run.now <= from || (templates.is_empty() && announced.is_some()) {
        return Ok(0);
    }
    let command = Command::AnnounceWindows { from, until: run.now, templates };
    match run.step_of(tenant, command, None).await {
        Ok(Outcome::Announced(told)) => Ok(told),
        Ok(_) => Ok(0),
        Err(JobError::Refused(code)) if code == "COUPON_WINDOWS_ANNOUNCED" => Ok(0),
        Err(error) => Err(error),
    }
}

/// Deletes what is past its time. Its progress tells how much.
///
/// # Errors
/// The first failure; the next pass goes on.
pub async fn purge_all(run: &Run, options: &HousekeepingOptions) -> Result<Done, JobError> {
    let before = |retention: Duration| {
        Timestamp(clock::now().0.saturating_sub(i64::try_from(retention.as_micros()).unwrap_or(i64::MAX)))
    };
    let (mut outcomes, mut deliveries) = (0, 0);
    let mut tenants = Tenants::new(&run.store);
    // Records of tenants being made stand under no tenant.
    let mut next = Some(TenantId(Uuid::nil()));
    while let Some(tenant) = next {
        outcomes += purge(run, Old::Outcomes(tenant), before(options.idempotency_retention)).await?;
        for webhook in run.store.list_webhooks(tenant, None, i64::MAX).await? {
            let what = Old::Deliveries(tenant, webhook.id);
            deliveries += purge(run, what, before(options.delivery_retention)).await?;
        }
        next = tenants.next().await?;
    }
    let mut jobs = 0;
    for (state, retention) in [
        (JobState::Done, options.done_retention),
        (JobState::Cancelled, options.done_retention),
        (JobState::Dead, options.dead_retention),
    ] {
        jobs += purge(run, Old::Jobs(state), before(retention)).await?;
    }
    let strays = purge(run, Old::Strays, before(STRAY_RETENTION)).await?;
    let chunks = drop_results(run, before(options.bulk_retention)).await?;
    let deleted = json!({
        "idempotency_records": outcomes,
        "jobs": jobs,
        "deliveries": deliveries,
        "stray_files": strays,
        "bulk_chunks": chunks,
    });
    Ok(Done::With(Some(deleted.to_string())))
}

/// Deletes the rows and results of bulks that ended before; how many chunks there were.
async fn drop_results(run: &Run, before: Timestamp) -> Result<u64, JobError> {
    let mut dropped = 0;
    for _ in 0..PURGES_PER_PASS {
        run.check_stopping()?;
        match run.store.drop_results(before, clock::now(), CHUNK_PAGE).await? {
            0 => break,
            chunks => dropped += chunks,
        }
    }
    Ok(dropped)
}

/// What may be past its time.
#[derive(Clone, Copy)]
enum Old {
    Outcomes(TenantId),
    Jobs(JobState),
    Deliveries(TenantId, WebhookId),
    /// Files that never became a bulk.
    Strays,
}

/// Deletes page after page until one is not full; how many rows there were.
async fn purge(run: &Run, what: Old, before: Timestamp) -> Result<u64, JobError> {
    let mut deleted = 0;
    for _ in 0..PURGES_PER_PASS {
        run.check_stopping()?;
        let page = match what {
            Old::Outcomes(tenant) => run.store.purge_idempotency(tenant, before, PURGE_PAGE).await?,
            Old::Jobs(state) => run.store.purge_jobs(state, before, PURGE_PAGE).await?,
            Old::Deliveries(tenant, webhook) => run.store.purge_deliveries(tenant, webhook, before, PURGE_PAGE).await?,
            Old::Strays => run.store.drop_strays(before, PURGE_PAGE).await?,
        };
        deleted += page;
        if page < PURGE_PAGE as u64 {
            break;
        }
    }
    Ok(deleted)
}

/// All tenants, a page at a time.
struct Tenants<'a> {
    store: &'a Store,
    page: std::vec::IntoIter<TenantId>,
    last: Option<TenantId>,
    is_last_page: bool,
}

impl Tenants<'_> {
    fn new(store: &Store) -> Tenants<'_> {
        Tenants { store, page: Vec::new().into_iter(), last: None, is_last_page: false }
    }

    async fn next(&mut self) -> Result<Option<TenantId>, StoreError> {
        loop {
            if let Some(tenant) = self.page.next() {
                return Ok(Some(tenant));
            }
            if self.is_last_page {
                return Ok(None);
            }
            let page = self.store.list_tenants(self.last, TENANT_PAGE).await?;
            self.is_last_page = (page.len() as i64) < TENANT_PAGE;
            self.last = page.last().map(|tenant| tenant.id);
            self.page = page.into_iter().map(|tenant| tenant.id).collect::<Vec<_>>().into_iter();
        }
    }
}

impl From<SweepError> for JobError {
    fn from(error: SweepError) -> Self {
        match error {
            SweepError::Store(error) => error.into(),
            SweepError::Submit(error) => error.into(),
        }
    }
}
