//! The recurring passes of a server: expiry sweeps and the purge of old idempotency records, tenant by tenant.

use std::time::Duration;

use scrip_domain::{TenantId, Timestamp};

use super::expire::{SweepError, SweepScope, sweep};
use crate::clock;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::store::Store;

/// Objects of each kind settled at a time, so that the sweep leaves room for others between its pages.
const PAGE: i64 = 500;
/// Pages a tenant gets in one pass; what is left waits for the next pass, and other tenants for nothing.
const PAGES_PER_PASS: usize = 20;
const TENANT_PAGE: i64 = 200;
/// Old idempotency records deleted at a time, and how often in one pass: more in a minute than a tenant makes.
const PURGE_PAGE: i64 = 2_000;
const PURGES_PER_PASS: usize = 1_000;

#[derive(Debug, Clone)]
pub struct HousekeepingOptions {
    /// Between two passes; zero turns them off.
    pub interval: Duration,
    /// How long a recorded answer is kept for retries.
    pub idempotency_retention: Duration,
}

/// Runs passes until the task is dropped.
pub async fn run(store: Store, engine: Engine, metrics: std::sync::Arc<Metrics>, options: HousekeepingOptions) {
    if options.interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(options.interval).await;
        let result = pass(&store, &engine, &options).await;
        let label = if result.is_ok() { "ok" } else { "failed" };
        metrics.jobs_run.with_label_values(&["housekeeping", label]).inc();
        if let Err(error) = result {
            tracing::warn!(%error, "a housekeeping pass failed; the next one goes on");
        }
    }
}

async fn pass(store: &Store, engine: &Engine, options: &HousekeepingOptions) -> Result<(), SweepError> {
    let mut after = None;
    loop {
        let tenants = store.list_tenants(after, TENANT_PAGE).await?;
        for tenant in &tenants {
            sweep_tenant(store, engine, tenant.id).await?;
            purge(store, tenant.id, options.idempotency_retention).await?;
        }
        match tenants.last() {
            Some(last) if tenants.len() as i64 == TENANT_PAGE => after = Some(last.id),
            _ => break,
        }
    }
    // Records of tenants being made stand under no tenant.
    purge(store, TenantId(uuid::Uuid::nil()), options.idempotency_retention).await
}

async fn sweep_tenant(store: &Store, engine: &Engine, tenant: TenantId) -> Result<(), SweepError> {
    for _ in 0..PAGES_PER_PASS {
        let at = clock::now();
        if sweep(store, engine, tenant, at, PAGE, None, SweepScope::SkipImports).await?.done {
            break;
        }
    }
    Ok(())
}

async fn purge(store: &Store, tenant: TenantId, retention: Duration) -> Result<(), SweepError> {
    let retention_us = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    let before = Timestamp(clock::now().0.saturating_sub(retention_us));
    for _ in 0..PURGES_PER_PASS {
        if store.purge_idempotency(tenant, before, PURGE_PAGE).await? < PURGE_PAGE as u64 {
            break;
        }
    }
    Ok(())
}
