//! How much a tenant may ask: a rate for each, by the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! One number is kept for a tenant: the time at which everything asked so far would have been asked at the allowed rate. A
//! request moves it on; one that would move it further than [`BURST`] ahead of now is refused with the time to wait. A batch
//! counts its lines; one larger than the burst is let in when nothing is owed, and the debt is waited off afterwards.
//!
//! A tenant answers for its programs: what they are asked counts with what it is asked.
//!
//! Each node counts for itself. Deliberately absent: shared counters, which would make every request wait for a network.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use quick_cache::sync::Cache;
use scrip_domain::TenantId;

use super::problem::{Code, Problem};
use crate::store::Store;

/// A tenant may ask this much of its rate at once.
const BURST: Duration = Duration::from_secs(1);
/// Tenants remembered; a forgotten one starts with a full allowance.
const CAPACITY: usize = 100_000;

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Commands and reads a second, for each tenant. Zero is no limit.
#[derive(Debug, Clone, Default)]
pub struct QuotaOptions {
    pub requests_per_second: u32,
    /// Tenants with a rate of their own.
    pub tenants: HashMap<TenantId, u32>,
}

/// What is counted of a request.
#[derive(Debug, Clone, Copy)]
pub enum Counted {
    Request,
    /// The lines of a batch, whose request was counted already.
    Lines(usize),
}

impl QuotaOptions {
    /// # Errors
    /// When a program has a rate of its own, or the store cannot be read.
    pub async fn refuse_programs(&self, store: &Store) -> anyhow::Result<()> {
        for id in self.tenants.keys() {
            if let Some(program) = store.find_tenant(*id).await?.and_then(|tenant| tenant.program) {
                let parent = program.parent_id;
                anyhow::bail!(
                    "quota.tenants: {id} is a program, which counts with its tenant; set a rate for {parent}"
                );
            }
        }
        Ok(())
    }
}

pub struct Quotas {
    options: QuotaOptions,
    /// The theoretical arrival times, in nanoseconds since `started`.
    arrivals: Cache<TenantId, Arc<AtomicI64>>,
    started: Instant,
}

/// What is left of a tenant's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    per_second: u32,
    remaining: u32,
    /// Until the whole burst is there again; for a refused request, until it will be let in.
    wait: Duration,
    granted: bool,
}

/// Carries a request's allowance from where its tenant is known to the edge, which writes the headers.
#[derive(Clone, Default)]
pub struct AllowanceSlot(Arc<OnceLock<Allowance>>);

impl Quotas {
    pub fn new(options: QuotaOptions) -> Self {
        Quotas { options, arrivals: Cache::new(CAPACITY), started: Instant::now() }
    }

    /// Whether any tenant has a limit.
    pub fn are_set(&self) -> bool {
        self.options.requests_per_second > 0 || self.options.tenants.values().any(|rate| *rate > 0)
    }

    /// Counts what a tenant asks.
    ///
    /// # Errors
    /// 429 when the tenant has asked for too much lately.
    pub fn admit(&self, tenant: TenantId, what: Counted, parts: &Parts) -> Result<(), Problem> {
        let now_ns = i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let Some(allowance) = self.take(tenant, what, now_ns) else { return Ok(()) };
        if allowance.granted {
            if let Some(AllowanceSlot(slot)) = parts.extensions.get() {
                let _ = slot.set(allowance);
            }
            return Ok(());
        }
        Err(Problem::new(Code::QuotaExceeded)
            .with("per_second", allowance.per_second)
            .with("seconds", seconds(allowance.wait)))
    }

    fn take(&self, tenant: TenantId, what: Counted, now_ns: i64) -> Option<Allowance> {
        let per_second = *self.options.tenants.get(&tenant).unwrap_or(&self.options.requests_per_second);
        if per_second == 0 {
            return None;
        }
        let burst_ns = BURST.as_nanos() as i64;
        let interval_ns = (burst_ns / i64::from(per_second)).max(1);
        let cost_ns = match what {
            Counted::Request => interval_ns,
            Counted::Lines(count) => i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(interval_ns),
        };
        // One less than the burst for lines: their request itself has been counted before.
        let needed_ns = match what {
            Counted::Request => interval_ns,
            Counted::Lines(_) => cost_ns.min(burst_ns - interval_ns),
        };
        let arrival = self.arrivals.get_or_insert_with(&tenant, || Ok::<_, ()>(Arc::default())).unwrap_or_default();
        let ahead = |arrival_ns: i64| arrival_ns.saturating_sub(now_ns).max(0);
        let moved = arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrival_ns| {
            let fits = ahead(arrival_ns) <= burst_ns - needed_ns;
            fits.then(|| arrival_ns.max(now_ns).saturating_add(cost_ns))
        });
        let (ahead_ns, wait_ns, granted) = match moved {
            Ok(before) => {
                let ahead_ns = ahead(before.max(now_ns).saturating_add(cost_ns));
                (ahead_ns, ahead_ns, true)
            }
            Err(arrival_ns) => (burst_ns, ahead(arrival_ns) - (burst_ns - needed_ns), false),
        };
        let remaining = u32::try_from((burst_ns - ahead_ns).max(0) / interval_ns).unwrap_or(u32::MAX);
        let wait = Duration::from_nanos(wait_ns.max(0).unsigned_abs());
        Some(Allowance { per_second, remaining, wait, granted })
    }
}

impl AllowanceSlot {
    /// Tells the caller what is left (draft-ietf-httpapi-ratelimit-headers).
    pub fn write(&self, headers: &mut HeaderMap) {
        let Some(allowance) = self.0.get() else { return };
        let Allowance { per_second, remaining, wait, .. } = *allowance;
        let policy = format!("\"tenant\";q={per_second};w={}", BURST.as_secs());
        let limit = format!("\"tenant\";r={remaining};t={}", seconds(wait));
        for (name, text) in [(&POLICY, policy), (&LIMIT, limit)] {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// Whole seconds, rounded up: who waits that long has waited long enough.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::Counted::{Lines, Request};
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn tenant(number: u128) -> TenantId {
        TenantId(uuid::Uuid::from_u128(number))
    }

    fn quotas(rate: u32) -> Quotas {
        Quotas::new(QuotaOptions { requests_per_second: rate, tenants: [(tenant(9), 0)].into() })
    }

    fn granted(quotas: &Quotas, who: u128, what: Counted, now_ns: i64) -> bool {
        quotas.take(tenant(who), what, now_ns).expect("a limit").granted
    }

    #[test]
    fn a_second_of_requests_may_come_at_once_and_then_at_the_rate() {
        let quotas = quotas(10);
        assert_eq!((0..20).filter(|_| granted(&quotas, 1, Request, SECOND)).count(), 10);
        let refused = quotas.take(tenant(1), Request, SECOND).expect("a limit");
        assert_eq!((refused.granted, refused.wait), (false, Duration::from_millis(100)));
        assert!(!granted(&quotas, 1, Request, SECOND + SECOND / 11));
        assert!(granted(&quotas, 1, Request, SECOND + SECOND / 10));
        assert!(granted(&quotas, 2, Request, SECOND), "another tenant has a quota of its own");
        assert!(quotas.take(tenant(9), Request, SECOND).is_none(), "no limit");
    }

    #[test]
    fn a_request_tells_what_is_left() {
        let quotas = quotas(4);
        let left: Vec<u32> = (0..4).map(|_| quotas.take(tenant(1), Request, 0).expect("a limit").remaining).collect();
        assert_eq!(left, [3, 2, 1, 0]);
    }

    #[test]
    fn a_large_batch_is_let_in_when_nothing_is_owed_and_owes_afterwards() {
        let quotas = quotas(10);
        assert!(granted(&quotas, 1, Request, 0) && granted(&quotas, 1, Lines(49), 0), "the request, then its lines");
        assert!(!granted(&quotas, 1, Request, 4 * SECOND));
        assert!(granted(&quotas, 1, Request, 5 * SECOND - SECOND / 2));
        assert!(!granted(&quotas, 1, Lines(50), 5 * SECOND - SECOND / 2));
    }
}
