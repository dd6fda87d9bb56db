//! The server's own passes, each a job that recurs, done by one node at a time: expiry sweeps, and the purge of what is past
//! its time.

use std::time::Duration;

use scrip_domain::decide::Sweep;
use scrip_domain::job::{JobKind, JobState};
use scrip_domain::{TenantId, Timestamp, WebhookId};
use serde_json::json;
use uuid::Uuid;

use super::expire::{SweepError, SweepScope, sweep};
use super::members;
use super::runner::{Done, JobError, Run};
use crate::clock;
use crate::store::{Store, StoreError};

/// Objects of each kind settled at a time, so that the sweep leaves room for others between its pages.
const PAGE: i64 = 500;
/// Pages a tenant gets in one pass; what is left waits for the next pass, and other tenants for nothing.
const PAGES_PER_PASS: usize = 20;
const TENANT_PAGE: i64 = 200;
/// Old rows deleted at a time, and how often in one pass: more in a minute than a tenant makes.
const PURGE_PAGE: i64 = 2_000;
const PURGES_PER_PASS: usize = 1_000;

#[derive(Debug, Clone)]
pub struct HousekeepingOptions {
    /// Between two passes; zero turns them off.
    pub interval: Duration,
    /// How long a recorded answer is kept for retries.
    pub idempotency_retention: Duration,
    /// How long jobs are kept that ended well or were cancelled.
    pub done_retention: Duration,
    pub dead_retention: Duration,
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
    for kind in [JobKind::Sweep, JobKind::Purge] {
        store.ensure_recurring(kind, every, Timestamp(now.0.saturating_add(every)), now).await?;
    }
    Ok(())
}

/// Writes what time has ended, and what follows from members' deeds by itself, tenant by tenant. Its progress tells what.
///
/// # Errors
/// The first failure; what was settled before it stays settled.
pub async fn sweep_all(run: &Run) -> Result<Done, JobError> {
    let mut total = Sweep::default();
    let mut tenants = Tenants::new(&run.store);
    while let Some(tenant) = tenants.next().await? {
        for _ in 0..PAGES_PER_PASS {
            run.check_stopping()?;
            let at = clock::now();
            let swept = sweep(&run.store, &run.engine, tenant, at, PAGE, None, SweepScope::SkipImports).await?;
            total.merge(swept);
            if swept.done {
                break;
            }
        }
        run.check_stopping()?;
        members::report_events(&run.store, &run.engine, tenant).await?;
        members::follow_merges(&run.store, &run.engine, tenant).await?;
    }
    let told = json!({
        "coupons_expired": total.coupons_expired,
        "locks_released": total.locks_released,
        "holds_released": total.holds_released,
        "accounts_settled": total.accounts_settled,
        "points_expired": total.points_expired,
    });
    Ok(Done::With(Some(told.to_string())))
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
    Ok(Done::With(Some(json!({ "idempotency_records": outcomes, "jobs": jobs, "deliveries": deliveries }).to_string())))
}

/// What may be past its time.
#[derive(Clone, Copy)]
enum Old {
    Outcomes(TenantId),
    Jobs(JobState),
    Deliveries(TenantId, WebhookId),
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
