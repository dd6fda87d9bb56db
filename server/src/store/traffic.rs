//! How much a store is asked: so that a path that begins to ask once for each row shows, in a test and on a dashboard.
//!
//! Counted is what requests and jobs ask. Not counted: opening a connection and preparing its statements, migrations, and
//! verification, which reads on connections of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::{IntCounter, Opts};

/// The counters of one store, since its start. Cheap to clone.
#[derive(Clone)]
pub struct Traffic {
    /// SELECTs, those that lock included.
    pub reads: IntCounter,
    /// INSERTs, UPDATEs and DELETEs.
    pub writes: IntCounter,
    /// Waits for the database's answer; what is sent together waits once. SQLite has none.
    pub round_trips: IntCounter,
}

impl Traffic {
    pub(super) fn new(store: &'static str) -> Traffic {
        let statements = |kind| {
            let opts =
                Opts::new("scrip_store_statements_total", "Statements the store was asked").const_label("kind", kind);
            counter(opts.const_label("store", store))
        };
        let round_trips = Opts::new("scrip_store_round_trips_total", "Waits for the database's answer");
        Traffic {
            reads: statements("read"),
            writes: statements("write"),
            round_trips: counter(round_trips.const_label("store", store)),
        }
    }
}

fn counter(opts: Opts) -> IntCounter {
    IntCounter::with_opts(opts).expect("metric names are constants of this file")
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
            self.traffic.round_trips.inc();
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
