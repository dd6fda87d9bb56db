//! Load generator and scenarios, over HTTP alone: they know the server by its contract and can measure any other that
//! keeps it, such as a baseline with another algorithm behind the same routes.
//!
//! **Method.** Without a rate, a scenario runs as a closed loop, which finds the highest rate a number of connections can
//! get; with one, as an open loop, which offers that rate whatever the server does and counts latency from the time each
//! request was due, so that a stall is paid by all who would have arrived in it ([`load`] says how). Rounds go through all
//! scenarios and targets and start over, every other round in reverse, so that a drift of the machine meets all alike;
//! ratios are taken within a round. The data are written to the disk before the first round; each measurement
//! waits until the machine is quiet, and a warm-up precedes it.
//!
//! **What is measured.** Successes a second, never refusals (except where refusing is the scenario); latency percentiles of
//! successes; for an open loop also the service time and how late the generator itself was; CPU time per operation of the
//! server, of the generator and of the whole machine, which travel better between machines than rates do; memory and
//! bytes written; batch sizes and commit times as the server's own metrics tell them.
//!
//! **When it counts.** [`gates`] refuse a run whose answers were wrong, whose acknowledged successes are not exactly what
//! the server shows afterwards, or whose load was not the one asked for. Verifying the store's invariants is up to
//! the caller, who has the store: [`Report::record_verification`].
//!
//! **What is absent on purpose.** No pipelining and no connection for each request: real callers do neither. No replays:
//! each request has its own idempotency key. No TLS and no network: the server's cost is measured, not the way to it.
//! No correction of figures for the generator's own share of the cores: it is shown instead.
//!
//! **Where to run it.** Generator and server should be separate processes, and a caller of [`run`] should be inside a
//! single-threaded runtime of its own (`tokio::runtime::Builder::new_current_thread`): on shared cores each further
//! generator thread takes time from the server and adds wake-ups. An open loop starts one thread besides.

pub mod client;
pub mod gates;
pub mod load;
pub mod probe;
mod quote;
pub mod report;
pub mod scenario;
pub mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Serialize, Serializer};

use self::gates::Gates;
use self::load::{Arrivals, Plan, closed_loop, open_loop};
use self::probe::{Environment, LaneMetrics, Usage, resident_bytes};
use self::report::{Measurement, ScenarioResult};
use self::scenario::Prepared;

use crate::store::{Store, StoreOptions, StoreUrl};

pub use self::report::Report;
pub use self::scenario::Scenario;

/// Less of the cores busy than this, for so long, is quiet.
const QUIET_RATIO: f64 = 0.05;
const QUIET_FOR: Duration = Duration::from_secs(3);
/// A million accounts that were just made keep a server busy for minutes.
const QUIET_WITHIN: Duration = Duration::from_secs(600);

/// A server to measure.
#[derive(Debug, Clone)]
pub struct Target {
    /// What reports call it.
    pub name: String,
    pub addr: SocketAddr,
    /// The secret of an operator key; all data are made within its tenant.
    pub operator_key: String,
    /// The secret that reads are asked with: a service's, as a shop's backend has one.
    pub service_key: String,
    /// The server's process, for its CPU time and memory; must run on this machine.
    pub pid: Option<u32>,
    /// Statuses that count as failures of the server without making the run invalid, as a baseline may run out of retries.
    pub tolerated_statuses: Vec<u16>,
}

impl Target {
    pub fn new(name: impl Into<String>, addr: SocketAddr, operator_key: impl Into<String>) -> Target {
        let operator_key = operator_key.into();
        let service_key = operator_key.clone();
        Target { name: name.into(), addr, operator_key, service_key, pid: None, tolerated_statuses: vec![] }
    }

    /// The same, asked with the service's key.
    fn as_service(&self) -> Target {
        Target { operator_key: self.service_key.clone(), ..self.clone() }
    }
}

/// What to measure and for how long.
#[derive(Debug, Clone, Serialize)]
pub struct Options {
    pub scenarios: Vec<Scenario>,
    /// The measured window of each repetition.
    #[serde(rename = "duration_s", serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Load before each window.
    #[serde(rename = "warmup_s", serialize_with = "as_seconds")]
    pub warmup: Duration,
    /// The least rest before each warm-up. It goes on until the machine is quiet: after a load servers fold events into
    /// read models and stores vacuum, which would be counted against whoever is measured next.
    #[serde(rename = "pause_s", serialize_with = "as_seconds")]
    pub pause: Duration,
    pub repetitions: u32,
    /// Connections of a closed loop; the most requests under way in an open loop.
    pub connections: usize,
    /// `Some` makes scenarios that allow it an open loop.
    pub rate_per_s: Option<f64>,
    pub arrivals: Arrivals,
    /// Accounts that uniform debits and reads are spread over. They are made when missing and kept for later runs.
    pub accounts: u64,
    /// Templates of the zipf scenario.
    pub zipf_templates: u32,
    /// Lines of one batch request.
    pub batch_lines: u32,
    /// Where the store keeps its files; the sync probe writes there for a moment.
    #[serde(skip)]
    pub data_dir: Option<PathBuf>,
    /// The stores of the targets: what making the data has left in memory is written out before anything is measured.
    #[serde(skip)]
    pub stores: Vec<StoreUrl>,
    pub gates: Gates,
    /// A run that only shows that everything works: load that could not be kept up is noted, not refused.
    pub smoke: bool,
    /// Show progress on standard error.
    pub progress: bool,
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Default for Options {
    fn default() -> Options {
        Options {
            scenarios: Scenario::ALL.to_vec(),
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(3),
            pause: Duration::from_secs(1),
            repetitions: 3,
            connections: 64,
            rate_per_s: None,
            arrivals: Arrivals::Poisson,
            accounts: 1_000_000,
            zipf_templates: 1_000,
            batch_lines: 1_000,
            data_dir: None,
            stores: vec![],
            gates: Gates::default(),
            smoke: false,
            progress: true,
        }
    }
}

impl Options {
    /// Everything once and briefly.
    pub fn smoke() -> Options {
        Options {
            duration: Duration::from_secs(1),
            warmup: Duration::from_millis(200),
            pause: Duration::from_millis(100),
            repetitions: 1,
            connections: 16,
            accounts: 20_000,
            zipf_templates: 50,
            batch_lines: 200,
            smoke: true,
            ..Options::default()
        }
    }
}

/// Measures one server.
pub async fn run(target: &Target, options: &Options) -> Result<Report> {
    run_interleaved(std::slice::from_ref(target), options).await
}

/// Measures several servers in turn, and the first one against each of the others.
///
/// An error means that the data could not be made or the server not be reached; runs that do not count are in the report.
pub async fn run_interleaved(targets: &[Target], options: &Options) -> Result<Report> {
    ensure!(!targets.is_empty() && !options.scenarios.is_empty(), "nothing to measure");
    ensure!(options.repetitions > 0 && !options.duration.is_zero(), "no time to measure in");
    let environment = Environment::observe(options.data_dir.as_deref())?;
    let progress = if options.progress { ProgressBar::new(0) } else { ProgressBar::hidden() };
    progress.set_style(ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}").context("progress bar")?);

    let mut prepared = Vec::new();
    for scenario in &options.scenarios {
        for target in targets {
            let made = Prepared::new(*scenario, target, options, &progress).await;
            prepared.push(made.with_context(|| format!("preparing {scenario} on {}", target.name))?);
        }
    }

    if !options.smoke {
        progress.set_message("waiting until the read models have caught up");
        until_quiet(environment.cores, &progress).await;
    }
    progress.set_message("writing the data out");
    settle(&options.stores, &progress).await?;

    progress.set_length(prepared.len() as u64 * u64::from(options.repetitions));
    progress.set_position(0);
    let mut repetitions: Vec<Vec<Measurement>> = prepared.iter().map(|_| vec![]).collect();
    for round in 1..=options.repetitions {
        let mut order: Vec<usize> = (0..prepared.len()).collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for index in order {
            let prepared = &prepared[index];
            progress.set_message(format!("{} {}, round {round}", prepared.target().name, prepared.scenario()));
            tokio::time::sleep(options.pause).await;
            if !options.smoke {
                until_quiet(environment.cores, &progress).await;
            }
            let measured = measure(prepared, options, round, environment.cores).await;
            let measured =
                measured.with_context(|| format!("measuring {} on {}", prepared.scenario(), prepared.target().name))?;
            repetitions[index].push(measured);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();

    let results = prepared.iter().zip(repetitions).map(|(prepared, repetitions)| {
        let kind = if open_rate(prepared.scenario(), options).is_some() { "open" } else { "closed" };
        ScenarioResult::new(prepared.scenario(), prepared.target().name.clone(), kind, options, repetitions)
    });
    Ok(Report::new(environment, options.clone(), results.collect()))
}

/// Lets the disk have what making a million accounts has left in memory. Otherwise the kernel writes it half a minute later,
/// a gigabyte at once, and every commit of whichever target is being measured then waits for it.
///
/// Comes when the read models have caught up: PostgreSQL's checkpoint keeps the log's files to write over, and what is written
/// afterwards uses them up. On a server that runs for days there always are some; making a new one stops all commits for 50 ms.
async fn settle(stores: &[StoreUrl], progress: &ProgressBar) -> Result<()> {
    for url in stores {
        if let Err(error) = Store::open(&StoreOptions::new(url.clone())).await?.checkpoint().await {
            progress.println(format!("no checkpoint before measuring, rates may wander: {error}"));
        }
    }
    let synced = tokio::process::Command::new("sync").status().await.context("running sync")?;
    ensure!(synced.success(), "sync ended with {synced}");
    Ok(())
}

/// Returns when the machine has had next to nothing to do for a moment, or has been busy for too long to wait.
async fn until_quiet(cores: usize, progress: &ProgressBar) {
    let give_up_at = Instant::now() + QUIET_WITHIN;
    while Instant::now() < give_up_at {
        let (before, begun) = (Usage::sample(None), Instant::now());
        tokio::time::sleep(QUIET_FOR).await;
        let Some(busy_us) = Usage::sample(None).since(&before).machine_cpu_us else { return };
        if (busy_us as f64) < QUIET_RATIO * cores as f64 * begun.elapsed().as_micros() as f64 {
            return;
        }
    }
    progress.println(format!("measuring on a machine that has been busy for {QUIET_WITHIN:?}"));
}

fn open_rate(scenario: Scenario, options: &Options) -> Option<f64> {
    options.rate_per_s.filter(|_| scenario.may_be_open_loop())
}

async fn measure(prepared: &Prepared, options: &Options, round: u32, cores: usize) -> Result<Measurement> {
    let target = prepared.target();
    let before = prepared.shown().await?;
    let tally = prepared.tally();
    let lanes_before = LaneMetrics::scrape(target).await?.unwrap_or_default();
    let plan = Plan {
        addr: target.addr,
        connections: prepared.scenario().connections(options.connections),
        warmup: options.warmup,
        duration: options.duration,
        server_pid: target.pid,
        tolerated_statuses: target.tolerated_statuses.clone(),
        tally: tally.clone(),
    };
    let measured = match open_rate(prepared.scenario(), options) {
        Some(rate_per_s) => open_loop(plan, rate_per_s, options.arrivals, prepared.maker(0)).await?,
        None => closed_loop(plan, |index| prepared.maker(index)).await?,
    };
    let resident_bytes = target.pid.map_or((None, None), resident_bytes);
    let lanes = LaneMetrics::scrape(target).await?.map(|lanes| lanes.since(&lanes_before));
    let durability = prepared.check(&before, &prepared.shown().await?, &tally);
    let mut measurement = Measurement::new(round, measured, cores, resident_bytes, lanes, durability);
    measurement.invalid = options.gates.wrong(&measurement);
    if !options.smoke {
        measurement.invalid.extend(options.gates.unmet_load(&measurement));
    }
    Ok(measurement)
}
