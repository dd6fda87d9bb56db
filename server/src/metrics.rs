//! What Prometheus scrapes. Handles are resolved once, at start; counting is an atomic addition afterwards.

use std::sync::Arc;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, exponential_buckets,
};

use scrip_domain::Timestamp;
use scrip_domain::job::{JobKind, JobState};

use crate::store::job::JobCount;
use crate::store::{CacheMetrics, ReplicaMetrics, Traffic};

/// Every metric of the process.
pub struct Metrics {
    /// Whether requests and commands are counted and timed, and shown.
    pub is_on: bool,
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    /// Commands decided, by operation and what became of them: accepted, replayed, refused, failed.
    pub commands: IntCounterVec,
    /// From entering a lane to the answer, by operation.
    pub operation_seconds: HistogramVec,
    /// Refusals answered from memory, without a word to the store.
    pub refused_from_memory: IntCounter,
    /// Commands waiting in the lanes.
    pub lane_depth: IntGauge,
    pub lane_batch_size: Histogram,
    /// From the start of a batch to its durable commit.
    pub lane_commit_seconds: Histogram,
    /// From entering a lane to the start of the batch.
    pub lane_wait_seconds: Histogram,
    pub batch_retries: IntCounter,
    pub batch_bisections: IntCounter,
    /// Runs of jobs, by how they ended: ok, failed (another attempt follows), dead, lost, released.
    pub jobs_run: IntCounterVec,
    pub job_run_seconds: HistogramVec,
    jobs: IntGaugeVec,
    job_oldest_seconds: GaugeVec,
    /// Claims with codes: accepted, not_accepted, or stopped by the budget of misses.
    pub code_claims: IntCounterVec,
    /// How far the read models are behind the event log; zero when they are not.
    pub projection_lag_seconds: Gauge,
    /// How long the longest waiting event has waited for a webhook.
    pub webhook_lag_seconds: Gauge,
    /// Members and objects of which an event was refused by a webhook and waits for its next attempt.
    pub webhook_parked_subjects: IntGauge,
    /// Requests to webhooks, by what became of them: ok, refused, unreachable.
    pub webhook_deliveries: IntCounterVec,
    pub webhook_delivery_seconds: Histogram,
    /// Webhooks that this node has disabled.
    pub webhooks_disabled: IntCounter,
    /// How long the oldest event has waited for the broker.
    pub broker_lag_seconds: Gauge,
    /// Whether this node publishes to the broker now.
    pub broker_connected: IntGauge,
    pub broker_published: IntCounter,
    pub broker_failures: IntCounter,
    /// What PostgreSQL itself has counted of our tables.
    pub database_scans: IntGaugeVec,
    pub database_blocks: IntGaugeVec,
}

impl Metrics {
    pub fn new() -> Arc<Metrics> {
        Metrics::switched(true)
    }

    /// Switched off, requests and commands are neither counted nor timed. What is left costs an addition for each batch or
    /// statement, and the fold of the read models looks at it ([`crate::projection`]).
    pub fn switched(is_on: bool) -> Arc<Metrics> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| keep(&registry, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            keep(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            keep(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
        };
        let seconds = || buckets(0.000_1, 2.0, 16);
        let by_route = HistogramOpts::new("scrip_http_request_seconds", "Time to answer a request").buckets(seconds());
        let by_operation =
            HistogramOpts::new("scrip_operation_seconds", "Time of a command in its lane, commit included");
        let by_operation = by_operation.buckets(seconds());
        Arc::new(Metrics {
            is_on,
            requests: counters("scrip_http_requests_total", "Requests answered", &["route", "status"]),
            request_seconds: keep(&registry, HistogramVec::new(by_route, &["route"])),
            commands: counters("scrip_commands_total", "Commands decided", &["operation", "outcome"]),
            operation_seconds: keep(&registry, HistogramVec::new(by_operation, &["operation"])),
            refused_from_memory: counter("scrip_refused_from_memory_total", "Refusals that touched no store"),
            lane_depth: keep(&registry, IntGauge::new("scrip_lane_depth", "Commands waiting in the lanes")),
            lane_batch_size: histogram("scrip_lane_batch_size", "Commands in a batch", buckets(1.0, 2.0, 12)),
            lane_commit_seconds: histogram("scrip_lane_commit_seconds", "Time of a batch, commit included", seconds()),
            lane_wait_seconds: histogram("scrip_lane_wait_seconds", "Time a command waited for its batch", seconds()),
            batch_retries: counter("scrip_batch_retries_total", "Batches decided again after a conflict"),
            batch_bisections: counter("scrip_batch_bisections_total", "Batches halved after a constraint error"),
            jobs_run: counters("scrip_jobs_total", "Runs of background jobs", &["job", "result"]),
            job_run_seconds: keep(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new("scrip_job_run_seconds", "Time of a run of a job")
                        .buckets(buckets(0.001, 4.0, 12)),
                    &["job"],
                ),
            ),
            jobs: keep(
                &registry,
                IntGaugeVec::new(Opts::new("scrip_jobs", "Jobs that wait, run or are dead"), &["job", "state"]),
            ),
            job_oldest_seconds: keep(
                &registry,
                GaugeVec::new(
                    Opts::new("scrip_job_oldest_due_seconds", "How long the longest waiting job has been due"),
                    &["job"],
                ),
            ),
            code_claims: counters("scrip_code_claims_total", "Claims with codes", &["result"]),
            projection_lag_seconds: keep(
                &registry,
                Gauge::new("scrip_projection_lag_seconds", "How far statistics and leaderboards are behind the events"),
            ),
            webhook_lag_seconds: keep(
                &registry,
                Gauge::new("scrip_webhook_lag_seconds", "How long the oldest event has waited for an enabled webhook"),
            ),
            webhook_parked_subjects: keep(
                &registry,
                IntGauge::new("scrip_webhook_parked_subjects", "Members and objects that wait for a retry"),
            ),
            webhook_deliveries: counters("scrip_webhook_deliveries_total", "Requests to webhooks", &["result"]),
            webhook_delivery_seconds: histogram(
                "scrip_webhook_delivery_seconds",
                "Time of a request to a webhook",
                buckets(0.001, 2.0, 15),
            ),
            database_scans: keep(
                &registry,
                IntGaugeVec::new(
                    Opts::new("scrip_postgres_scans", "Scans of our larger tables since the statistics were reset"),
                    &["kind"],
                ),
            ),
            database_blocks: keep(
                &registry,
                IntGaugeVec::new(
                    Opts::new("scrip_postgres_blocks", "Blocks of our tables found in memory, and read"),
                    &["kind"],
                ),
            ),
            broker_lag_seconds: keep(
                &registry,
                Gauge::new("scrip_broker_lag_seconds", "How long the oldest event has waited for the broker"),
            ),
            broker_connected: keep(
                &registry,
                IntGauge::new("scrip_broker_connected", "1 while this node publishes to the broker"),
            ),
            broker_published: counter("scrip_broker_published_total", "Events the broker has acknowledged"),
            broker_failures: counter("scrip_broker_failures_total", "Connections to the broker that failed or broke"),
            webhooks_disabled: counter("scrip_webhooks_disabled_total", "Webhooks given up after their last retry"),
            registry,
        })
    }

    /// Shows what is asked of a store. Once for each store.
    pub fn show_traffic(&self, traffic: &Traffic) {
        for counter in [&traffic.reads, &traffic.writes, &traffic.round_trips] {
            keep(&self.registry, Ok(counter.clone()));
        }
        keep(&self.registry, Ok(traffic.slow.clone()));
        keep(&self.registry, Ok(traffic.acquire_seconds.clone()));
        keep(&self.registry, Ok(traffic.connections.clone()));
        keep(&self.registry, Ok(traffic.waiting.clone()));
    }

    /// Shows what a store's caches do. Once for each store.
    pub fn show_caches(&self, caches: &CacheMetrics) {
        keep(&self.registry, Ok(caches.lookups.clone()));
        keep(&self.registry, Ok(caches.evictions.clone()));
        keep(&self.registry, Ok(caches.age_seconds.clone()));
        keep(&self.registry, Ok(caches.entries.clone()));
        keep(&self.registry, Ok(caches.unheard_seconds.clone()));
        keep(&self.registry, Ok(caches.shared_connected.clone()));
        keep(&self.registry, Ok(caches.shared_failures.clone()));
    }

    /// Shows how a store's replica does. Once for each store.
    pub fn show_replica(&self, replica: &ReplicaMetrics) {
        keep(&self.registry, Ok(replica.connected.clone()));
        keep(&self.registry, Ok(replica.lag_seconds.clone()));
        keep(&self.registry, Ok(replica.reads.clone()));
    }

    pub fn observe_request(&self, route: &'static str, status: u16, seconds: f64) {
        if !self.is_on {
            return;
        }
        self.request_seconds.with_label_values(&[route]).observe(seconds);
        self.requests.with_label_values(&[route, status_text(status)]).inc();
    }

    /// Shows how many jobs of each kind there are by state, as counted by now. What is not counted is none.
    pub fn show_jobs(&self, counts: &[JobCount], now: Timestamp) {
        for kind in JobKind::ALL {
            let name = kind.as_str().to_lowercase();
            for state in [JobState::Queued, JobState::Running, JobState::Dead] {
                let found = counts.iter().find(|count| count.kind == *kind && count.state == state);
                let state_name = state.as_str().to_lowercase();
                self.jobs.with_label_values(&[&name, &state_name]).set(found.map_or(0, |count| count.jobs));
                if state == JobState::Queued {
                    let due = found.and_then(|count| count.oldest).map_or(0, |run_at| (now.0 - run_at.0).max(0));
                    self.job_oldest_seconds.with_label_values(&[&name]).set(due as f64 / 1e6);
                }
            }
        }
    }

    /// The exposition text.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory fails only for an inconsistent registry, which is fixed at start.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn buckets(start: f64, factor: f64, count: usize) -> Vec<f64> {
    exponential_buckets(start, factor, count).expect("positive constants make buckets")
}

fn keep<M: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("metric names are constants of this file");
    registry.register(Box::new(metric.clone())).expect("metric names are unique");
    metric
}

/// The statuses this server answers, as text without an allocation.
fn status_text(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        412 => "412",
        413 => "413",
        415 => "415",
        422 => "422",
        428 => "428",
        429 => "429",
        500 => "500",
        503 => "503",
        _ => "other",
    }
}
