//! How much a store is asked: so that a path that begins to ask once for each row shows, in a test and on a dashboard.
//!
//! Counted is what requests and jobs ask. Not counted: opening a connection and preparing its statements, migrations, and
//! verification, which reads on connections of its own.
//!
//! A statement that takes longer than [`Traffic::slow_after`] is logged with its name, its time and its rows, and counted under
//! its name. In a lane, statements are sent together: the time of one includes those before it and the locks it waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::StoreOptions;

/// The counters of one store, since its start. Cheap to clone.
#[derive(Clone)]
pub struct Traffic {
    /// SELECTs, those that lock included.
    pub reads: IntCounter,
    /// INSERTs, UPDATEs and DELETEs.
    pub writes: IntCounter,
    /// Waits for the database's answer; what is sent together waits once. SQLite has none.
    pub round_trips: IntCounter,
    /// Slow statements, by name.
    pub slow: IntCounterVec,
    /// How long a caller waited for a connection of the pool.
    pub acquire_seconds: Histogram,
    /// Connections of the pool, in use and idle; shown when asked for ([`super::Store::show_gauges`]).
    pub connections: IntGaugeVec,
    /// Callers that wait for one.
    pub waiting: IntGauge,
    /// Statements that take longer are slow.
    slow_after: Duration,
    /// Whether anything is counted at all.
    pub(super) is_counting: bool,
}

impl Traffic {
    pub(super) fn new(store: &'static str, options: &StoreOptions) -> Traffic {
        let statements = |kind| {
            let opts =
                Opts::new("scrip_store_statements_total", "Statements the store was asked").const_label("kind", kind);
            counter(opts.const_label("store", store))
        };
        let round_trips = Opts::new("scrip_store_round_trips_total", "Waits for the database's answer");
        let slow = Opts::new("scrip_store_slow_statements_total", "Statements that took longer than allowed, by name");
        let acquire = HistogramOpts::new("scrip_store_acquire_seconds", "Time to get a connection of the pool")
            .const_label("store", store)
            .buckets(vec![0.000_1, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0]);
        let connections = Opts::new("scrip_store_connections", "Connections of the pool").const_label("store", store);
        let waiting =
            Opts::new("scrip_store_waiting", "Callers that wait for a connection").const_label("store", store);
        Traffic {
            slow: known(IntCounterVec::new(slow.const_label("store", store), &["statement"])),
            acquire_seconds: known(Histogram::with_opts(acquire)),
            connections: known(IntGaugeVec::new(connections, &["state"])),
            waiting: known(IntGauge::with_opts(waiting)),
            slow_after: options.slow_statement,
            is_counting: options.count,
            reads: statements("read"),
            writes: statements("write"),
            round_trips: counter(round_trips.const_label("store", store)),
        }
    }
}

impl Traffic {
    pub(super) fn count_read(&self) {
        if self.is_counting {
            self.reads.inc();
        }
    }

    pub(super) fn count_write(&self) {
        if self.is_counting {
            self.writes.inc();
        }
    }

    pub(super) fn count_round_trip(&self) {
        if self.is_counting {
            self.round_trips.inc();
        }
    }

    /// A connection was waited for since `begun`.
    pub(super) fn acquired(&self, begun: Instant) {
        if self.is_counting {
            self.acquire_seconds.observe(begun.elapsed().as_secs_f64());
        }
    }

    /// Looks at how long a statement took since `begun`.
    pub(super) fn watch(&self, begun: Instant, rows: usize, name: impl FnOnce() -> String) {
        let took = begun.elapsed();
        if took >= self.slow_after {
            let (statement, duration_ms) = (name(), took.as_millis() as u64);
            tracing::warn!(statement, duration_ms, rows, "a slow statement");
            if self.is_counting {
                self.slow.with_label_values(&[&statement]).inc();
            }
        }
    }
}

/// What a statement does, to which table: `SELECT mkt_user_coupon`.
pub(super) fn name_of(sql: &str) -> String {
    let mut words = sql.split([' ', '\n', '(']).filter(|word| !word.is_empty());
    let verb = words.next().unwrap_or_default();
    let verb = if verb == "WITH" { "SELECT" } else { verb };
    let mut is_next = verb == "UPDATE";
    for word in words {
        let is_table = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_next && is_table && word != "unnest" {
            return format!("{verb} {word}");
        }
        is_next = matches!(word, "FROM" | "INTO" | "JOIN" | "LATERAL");
    }
    verb.to_owned()
}

fn counter(opts: Opts) -> IntCounter {
    known(IntCounter::with_opts(opts))
}

fn known<M>(metric: prometheus::Result<M>) -> M {
    metric.expect("metric names are constants of this file")
}

/// Counts the round trips of one connection: a statement sent while another is under way shares its trip.
pub(super) struct Pipeline {
    traffic: Traffic,
    under_way: Arc<AtomicUsize>,
}

impl Pipeline {
    pub(super) fn new(traffic: Traffic) -> Pipeline {
        Pipeline { traffic, under_way: Arc::default() }
    }

    /// To be held until the answer is there.
    pub(super) fn send(&self) -> UnderWay {
        if self.under_way.fetch_add(1, Ordering::Relaxed) == 0 {
            self.traffic.count_round_trip();
        }
        UnderWay(self.under_way.clone())
    }
}

pub(super) struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreUrl;

    #[test]
    fn statements_are_named_after_what_they_do() {
        for (sql, name) in [
            ("SELECT a, b FROM event WHERE tenant_id = $1", "SELECT event"),
            ("SELECT * FROM (SELECT x FROM mkt_user_coupon WHERE y) AS s", "SELECT mkt_user_coupon"),
            (
                "SELECT r.a FROM unnest($1::uuid[]) AS k(id) CROSS JOIN LATERAL (SELECT * FROM mkt_points_lot r)",
                "SELECT mkt_points_lot",
            ),
            ("INSERT INTO lease (name) VALUES ($1)", "INSERT lease"),
            ("UPDATE webhook_parked SET attempts = 0", "UPDATE webhook_parked"),
            ("DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency)", "DELETE idempotency"),
            ("SELECT 1", "SELECT"),
        ] {
            assert_eq!(name_of(sql), name, "{sql}");
        }
    }

    #[test]
    fn only_slow_statements_are_counted() {
        let slow_after =
            |slow_statement| StoreOptions { slow_statement, ..StoreOptions::new(StoreUrl::Sqlite("unused.db".into())) };
        let traffic = Traffic::new("sqlite", &slow_after(Duration::from_secs(3_600)));
        traffic.watch(Instant::now(), 1, || unreachable!("its name is not asked for"));
        let traffic = Traffic::new("sqlite", &slow_after(Duration::ZERO));
        traffic.watch(Instant::now(), 1, || "SELECT event".to_owned());
        assert_eq!(traffic.slow.with_label_values(&["SELECT event"]).get(), 1);
    }
}
