//! What a run says: one JSON document with everything, one table with what matters.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::Options;
use super::load::Measured;
use super::probe::{Environment, LaneMetrics};
use super::scenario::{DurabilityCheck, Scenario};

/// Above this, latencies are recorded as this.
const MAX_LATENCY_US: u64 = 120_000_000;

/// A histogram of microseconds with three significant digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("constant bounds within what the histogram allows")
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyUs {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p95: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub p99_99: u64,
    pub max: u64,
}

impl LatencyUs {
    pub fn of(histogram: &Histogram<u64>) -> LatencyUs {
        LatencyUs {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.50),
            p90: histogram.value_at_quantile(0.90),
            p95: histogram.value_at_quantile(0.95),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            p99_99: histogram.value_at_quantile(0.9999),
            max: histogram.max(),
        }
    }
}

/// One repetition of one scenario on one target.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    pub round: u32,
    pub window_s: f64,
    /// Open loop: arrivals due in the window.
    pub offered: Option<u64>,
    pub offered_per_s: Option<f64>,
    /// Open loop: arrivals that were never sent, and those that had to wait for a connection.
    pub unsent: u64,
    pub waited_for_connection: u64,
    pub answered: u64,
    /// Successes; of a batch, its lines.
    pub operations: u64,
    /// Successful operations a second.
    pub achieved_per_s: f64,
    /// Of successes. Open loop: from the time a request was due.
    pub latency_us: LatencyUs,
    /// Of successes, from sending.
    pub service_us: LatencyUs,
    pub schedule_lag_us: Option<LatencyUs>,
    pub statuses: BTreeMap<u16, u64>,
    pub unexpected: u64,
    pub first_unexpected: Option<String>,
    pub transport_errors: u64,
    pub first_transport_error: Option<String>,
    pub server_cpu_us_per_op: Option<f64>,
    pub generator_cpu_us_per_op: Option<f64>,
    /// All processes and the kernel.
    pub machine_cpu_us_per_op: Option<f64>,
    /// Share of all cores that other processes took: a database server, or work that should not be there.
    pub others_cpu_ratio: Option<f64>,
    /// Share of all cores that the hypervisor gave to others.
    pub steal_ratio: Option<f64>,
    pub server_written_bytes_per_op: Option<f64>,
    pub server_rss_bytes: Option<u64>,
    pub server_peak_rss_bytes: Option<u64>,
    /// Of the server's lanes, warm-up included.
    pub batches: Option<f64>,
    pub mean_batch: Option<f64>,
    pub mean_commit_us: Option<f64>,
    pub mean_wait_us: Option<f64>,
    pub durability: Vec<DurabilityCheck>,
    /// Why this measurement does not count.
    pub invalid: Vec<String>,
    #[serde(skip)]
    pub latency_histogram: Histogram<u64>,
    #[serde(skip)]
    pub service_histogram: Histogram<u64>,
}

impl Measurement {
    pub fn new(
        round: u32,
        measured: Measured,
        cores: usize,
        resident_bytes: (Option<u64>, Option<u64>),
        lanes: Option<LaneMetrics>,
        durability: Vec<DurabilityCheck>,
    ) -> Measurement {
        let window_s = measured.window.as_secs_f64();
        let operations = measured.operations as f64;
        let per_operation =
            |amount: Option<u64>| amount.filter(|_| operations > 0.0).map(|sum| sum as f64 / operations);
        let usage = measured.usage;
        let cores_us = window_s * 1e6 * cores as f64;
        let others_us = || usage.machine_cpu_us?.checked_sub(usage.server_cpu_us? + usage.generator_cpu_us?);
        Measurement {
            round,
            window_s,
            offered: measured.offered,
            offered_per_s: measured.offered.map(|offered| offered as f64 / window_s),
            unsent: measured.unsent,
            waited_for_connection: measured.waited,
            answered: measured.answered,
            operations: measured.operations,
            achieved_per_s: operations / window_s,
            latency_us: LatencyUs::of(&measured.latency_us),
            service_us: LatencyUs::of(&measured.service_us),
            schedule_lag_us: measured.lag_us.as_ref().map(LatencyUs::of),
            statuses: measured.statuses,
            unexpected: measured.unexpected,
            first_unexpected: measured.first_unexpected,
            transport_errors: measured.transport_errors,
            first_transport_error: measured.first_transport_error,
            server_cpu_us_per_op: per_operation(usage.server_cpu_us),
            generator_cpu_us_per_op: per_operation(usage.generator_cpu_us),
            machine_cpu_us_per_op: per_operation(usage.machine_cpu_us),
            others_cpu_ratio: others_us().map(|others_us| others_us as f64 / cores_us),
            steal_ratio: usage.steal_us.map(|steal_us| steal_us as f64 / cores_us),
            server_written_bytes_per_op: per_operation(usage.server_written_bytes),
            server_rss_bytes: resident_bytes.0,
            server_peak_rss_bytes: resident_bytes.1,
            batches: lanes.map(|lanes| lanes.batches),
            mean_batch: lanes.and_then(|lanes| lanes.mean_batch()),
            mean_commit_us: lanes.and_then(|lanes| lanes.mean_commit_us()),
            mean_wait_us: lanes.and_then(|lanes| lanes.mean_wait_us()),
            durability,
            invalid: vec![],
            latency_histogram: measured.latency_us,
            service_histogram: measured.service_us,
        }
    }
}

/// Median, least and greatest of the repetitions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Spread { median, min, max })
    }
}

/// Mean, and the standard deviation as a share of it (0 for fewer than two values).
pub fn mean_and_cv(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mean = values.iter().sum::<f64>() / count;
    if values.len() < 2 || mean <= 0.0 {
        return (mean, 0.0);
    }
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance.sqrt() / mean)
}

/// All repetitions of one scenario on one target.
#[derive(Debug, Clone, Serialize)]
pub struct ScenarioResult {
    pub scenario: Scenario,
    pub target: String,
    /// `closed` or `open`.
    pub kind: &'static str,
    pub connections: usize,
    pub achieved_per_s: Option<Spread>,
    pub rate_cv: f64,
    /// Of all repetitions together.
    pub latency_us: LatencyUs,
    pub service_us: LatencyUs,
    pub repetitions: Vec<Measurement>,
    pub invalid: Vec<String>,
    /// What a reader should know although the figures count.
    pub flags: Vec<String>,
}

impl ScenarioResult {
    pub fn new(
        scenario: Scenario,
        target: String,
        kind: &'static str,
        options: &Options,
        repetitions: Vec<Measurement>,
    ) -> ScenarioResult {
        let rates: Vec<f64> = repetitions.iter().map(|repetition| repetition.achieved_per_s).collect();
        let merged = |histogram: fn(&Measurement) -> &Histogram<u64>| {
            let mut all = new_histogram();
            for repetition in &repetitions {
                // All histograms have the same bounds, so none is too large to add.
                let _ = all.add(histogram(repetition));
            }
            LatencyUs::of(&all)
        };
        let mut invalid: Vec<String> = Vec::new();
        let mut flags = options.gates.flags(&repetitions);
        for repetition in &repetitions {
            let name = |reason: &String| format!("round {}: {reason}", repetition.round);
            invalid.extend(repetition.invalid.iter().map(name));
            if options.smoke {
                flags.extend(options.gates.unmet_load(repetition).iter().map(name));
            }
        }
        ScenarioResult {
            scenario,
            target,
            kind,
            connections: scenario.connections(options.connections),
            achieved_per_s: Spread::of(rates.iter().copied()),
            rate_cv: mean_and_cv(&rates).1,
            latency_us: merged(|repetition| &repetition.latency_histogram),
            service_us: merged(|repetition| &repetition.service_histogram),
            repetitions,
            invalid,
            flags,
        }
    }

    fn median(&self, value: impl Fn(&Measurement) -> Option<f64>) -> Option<f64> {
        Some(Spread::of(self.repetitions.iter().filter_map(value))?.median)
    }

    /// The median as text, or nothing.
    fn cell(&self, value: fn(&Measurement) -> Option<f64>) -> String {
        self.median(value).map_or_else(String::new, short)
    }

    /// Answers of all repetitions by status.
    fn statuses(&self) -> String {
        let mut sums: BTreeMap<u16, u64> = BTreeMap::new();
        for (status, count) in self.repetitions.iter().flat_map(|run| &run.statuses) {
            *sums.entry(*status).or_default() += count;
        }
        sums.iter().map(|(status, count)| format!("{status}: {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// One result against another, repetition by repetition of the same round.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    pub of: String,
    pub to: String,
    /// Rate of the first over rate of the second.
    pub rate: Spread,
    /// P95 of the second over P95 of the first: how many times faster the first answers.
    pub p95: Spread,
    /// Both results count.
    pub valid: bool,
}

impl Ratio {
    fn new(first: &ScenarioResult, second: &ScenarioResult) -> Option<Ratio> {
        let pairs = || first.repetitions.iter().zip(&second.repetitions);
        // A rate or latency of nothing compares with nothing.
        let ratio = |over: f64, under: f64| (over > 0.0 && under > 0.0).then(|| over / under);
        Some(Ratio {
            of: format!("{} {}", first.target, first.scenario),
            to: format!("{} {}", second.target, second.scenario),
            rate: Spread::of(pairs().filter_map(|(a, b)| ratio(a.achieved_per_s, b.achieved_per_s)))?,
            p95: Spread::of(pairs().filter_map(|(a, b)| ratio(b.latency_us.p95 as f64, a.latency_us.p95 as f64)))?,
            valid: first.invalid.is_empty() && second.invalid.is_empty(),
        })
    }
}

/// What the caller's check of the store's invariants found after the run.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    pub passed: bool,
    pub text: String,
}

/// Everything about a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub environment: Environment,
    pub options: Options,
    pub results: Vec<ScenarioResult>,
    pub ratios: Vec<Ratio>,
    /// `None` until the caller has verified.
    pub verification: Option<Verification>,
}

impl Report {
    pub fn new(environment: Environment, options: Options, results: Vec<ScenarioResult>) -> Report {
        let mut ratios = Vec::new();
        for result in &results {
            // To the static answer of the same server, and of the first target to each other one.
            let compared = results.iter().filter(|other| {
                let to_static = other.scenario == Scenario::Static
                    && result.scenario != Scenario::Static
                    && other.target == result.target
                    && other.connections == result.connections
                    && [other.kind, result.kind] == ["closed"; 2];
                let to_target = other.scenario == result.scenario
                    && other.target != result.target
                    && result.target == results[0].target;
                to_static || to_target
            });
            ratios.extend(compared.filter_map(|other| Ratio::new(result, other)));
        }
        Report { environment, options, results, ratios, verification: None }
    }

    /// Records what `scrip verify` said of the store once the load was over; a failure makes the whole report invalid.
    pub fn record_verification(&mut self, outcome: anyhow::Result<String>) {
        self.verification = Some(match outcome {
            Ok(text) => Verification { passed: true, text },
            Err(error) => Verification { passed: false, text: format!("{error:#}") },
        });
    }

    /// Whether every figure counts. Callers exit with a failure otherwise.
    pub fn is_valid(&self) -> bool {
        self.results.iter().all(|result| result.invalid.is_empty())
            && self.verification.as_ref().is_none_or(|verification| verification.passed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let environment = &self.environment;
        let unknown = || "unknown".to_owned();
        writeln!(
            f,
            "{}  scrip {} ({})  {} cores, {}, kernel {}, load {}",
            environment.started_at,
            environment.version,
            environment.commit.as_deref().map_or("commit unknown", |commit| &commit[..commit.len().min(12)]),
            environment.cores,
            environment.cpu_model.as_deref().unwrap_or("processor unknown"),
            environment.kernel.clone().unwrap_or_else(unknown),
            environment.load_average_1m.map_or_else(unknown, |load| load.to_string()),
        )?;
        if let Some(fsync_us) = environment.fsync_us {
            writeln!(
                f,
                "data on {}; 4 KiB and fdatasync: P50 {} ms, P95 {} ms",
                environment.filesystem.clone().unwrap_or_else(unknown),
                ms(fsync_us.p50),
                ms(fsync_us.p95)
            )?;
        }
        let options = &self.options;
        writeln!(
            f,
            "{} x ({:.0} s warm-up, {:.0} s measured), {} connections, {} accounts; generator and server share the machine",
            options.repetitions,
            options.warmup.as_secs_f64(),
            options.duration.as_secs_f64(),
            options.connections,
            options.accounts,
        )?;
        if options.smoke {
            writeln!(f, "A smoke run: it shows that everything works; its figures mean nothing.")?;
        }
        if environment.debug_build {
            writeln!(f, "A debug build: its figures mean nothing.")?;
        }
        writeln!(f, "{}", self.table())?;
        for result in &self.results {
            for text in &result.invalid {
                writeln!(f, "INVALID {} {}: {text}", result.target, result.scenario)?;
            }
            for text in &result.flags {
                writeln!(f, "note    {} {}: {text}", result.target, result.scenario)?;
            }
        }
        if let Some(fsync_us) = environment.fsync_us {
            for result in self.results.iter().filter(|result| result.scenario == Scenario::OneCaller) {
                let above_ms = (result.latency_us.p50 as f64 - fsync_us.p50 as f64) / 1e3;
                writeln!(
                    f,
                    "{} {}: P50 is that of fdatasync and {} ms",
                    result.target,
                    result.scenario,
                    short(above_ms)
                )?;
            }
        }
        for ratio in &self.ratios {
            let rate = ratio.rate;
            let (median, min, max) = (short(rate.median), short(rate.min), short(rate.max));
            write!(f, "{} to {}: rate {median}x ({min}-{max})", ratio.of, ratio.to)?;
            let p95 = ratio.p95;
            let (median, min, max) = (short(p95.median), short(p95.min), short(p95.max));
            writeln!(f, ", P95 {median}x as fast ({min}-{max}){}", if ratio.valid { "" } else { "  INVALID" })?;
        }
        match &self.verification {
            None => write!(f, "verify: not run"),
            Some(verification) if verification.passed => write!(f, "verify: passed, {}", verification.text),
            Some(verification) => write!(f, "verify: FAILED, {}", verification.text),
        }
    }
}

impl Report {
    /// Columns that no result has anything to say in are left out.
    fn table(&self) -> Table {
        type Cell = fn(&ScenarioResult) -> String;
        const FIRST_NUMBER: usize = 3;
        let columns: [(&str, Cell); 21] = [
            ("scenario", |result| result.scenario.to_string()),
            ("target", |result| result.target.clone()),
            ("load", |result| match result.median(|run| run.offered_per_s) {
                Some(rate) => format!("{}/s", short(rate)),
                None => format!("{} conn.", result.connections),
            }),
            ("done/s", |result| result.achieved_per_s.map_or_else(String::new, |rate| short(rate.median))),
            ("min-max", |result| match result.achieved_per_s {
                Some(rate) if result.repetitions.len() > 1 => format!("{}-{}", short(rate.min), short(rate.max)),
                _ => String::new(),
            }),
            ("P50 ms", |result| ms(result.latency_us.p50)),
            ("P95", |result| ms(result.latency_us.p95)),
            ("P99", |result| ms(result.latency_us.p99)),
            ("P99.9", |result| ms(result.latency_us.p99_9)),
            ("max", |result| ms(result.latency_us.max)),
            ("service P99", |result| if result.kind == "open" { ms(result.service_us.p99) } else { String::new() }),
            ("late P99", |result| result.cell(|run| Some(run.schedule_lag_us?.p99 as f64 / 1e3))),
            ("server us/op", |result| result.cell(|run| run.server_cpu_us_per_op)),
            ("generator", |result| result.cell(|run| run.generator_cpu_us_per_op)),
            ("machine", |result| result.cell(|run| run.machine_cpu_us_per_op)),
            ("RSS MB", |result| result.cell(|run| Some(run.server_rss_bytes? as f64 / 1e6))),
            ("batch", |result| result.cell(|run| run.mean_batch)),
            ("commit ms", |result| result.cell(|run| Some(run.mean_commit_us? / 1e3))),
            ("wait ms", |result| result.cell(|run| Some(run.mean_wait_us? / 1e3))),
            ("statuses", ScenarioResult::statuses),
            ("", |result| if result.invalid.is_empty() { String::new() } else { "INVALID".to_owned() }),
        ];
        let one_target = self.results.iter().all(|result| result.target == self.results[0].target);
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        let shown: Vec<(usize, &str, Vec<String>)> = columns
            .iter()
            .enumerate()
            .map(|(index, (header, cell))| (index, *header, self.results.iter().map(cell).collect::<Vec<_>>()))
            .filter(|(_, header, cells)| {
                cells.iter().any(|cell| !cell.is_empty()) && !(one_target && *header == "target")
            })
            .collect();
        table.set_header(shown.iter().map(|(_, header, _)| *header));
        for row in 0..self.results.len() {
            table.add_row(shown.iter().map(|(_, _, cells)| cells[row].as_str()));
        }
        for (place, (index, header, _)) in shown.iter().enumerate() {
            if let Some(column) = table.column_mut(place)
                && *index >= FIRST_NUMBER
                && !matches!(*header, "statuses" | "")
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// Milliseconds with three significant digits or so.
fn ms(us: u64) -> String {
    short(us as f64 / 1e3)
}

/// Few digits: enough for figures that vary by percents.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::probe::Usage;

    /// A flawless open-loop measurement of 10 s.
    pub fn measurement(rate_per_s: f64, latency: u64) -> Measurement {
        let operations = (rate_per_s * 10.0) as u64;
        let mut latency_us = new_histogram();
        latency_us.record_n(latency, operations).unwrap();
        let measured = Measured {
            window: Duration::from_secs(10),
            offered: Some(operations),
            unsent: 0,
            waited: 0,
            answered: operations,
            operations,
            service_us: latency_us.clone(),
            latency_us,
            lag_us: Some(new_histogram()),
            statuses: BTreeMap::from([(201, operations)]),
            unexpected: 0,
            first_unexpected: None,
            transport_errors: 0,
            first_transport_error: None,
            usage: Usage { server_cpu_us: Some(5_000_000), ..Usage::default() },
        };
        let lanes = LaneMetrics { batches: 10.0, commands: 320.0, ..LaneMetrics::default() };
        Measurement::new(1, measured, 2, (Some(30_000_000), None), Some(lanes), vec![])
    }

    fn environment() -> Environment {
        Environment {
            started_at: "2026-01-01T00:00:00Z".into(),
            commit: None,
            version: "0.1.0",
            debug_build: false,
            cpu_model: None,
            cores: 2,
            memory_total_bytes: None,
            kernel: None,
            filesystem: None,
            fsync_us: None,
            load_average_1m: None,
        }
    }

    #[test]
    fn spreads_and_variation() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
        let (mean, cv) = mean_and_cv(&[90.0, 110.0]);
        assert!((mean - 100.0).abs() < 1e-9 && (cv - 0.141_421).abs() < 1e-4);
    }

    #[test]
    fn targets_are_compared_round_by_round() {
        let options = Options::default();
        let result = |target: &str, runs: &[(f64, u64)]| {
            let runs = runs.iter().map(|(rate, latency)| measurement(*rate, *latency)).collect();
            ScenarioResult::new(Scenario::HotClaim, target.into(), "closed", &options, runs)
        };
        let results = vec![
            result("scrip", &[(2_000.0, 100), (1_000.0, 100)]),
            result("brief", &[(100.0, 4_000), (100.0, 2_000)]),
        ];
        let mut report = Report::new(environment(), options.clone(), results);
        let [ratio] = &report.ratios[..] else { panic!("{:?}", report.ratios) };
        assert_eq!((ratio.of.as_str(), ratio.to.as_str()), ("scrip hot-claim", "brief hot-claim"));
        assert!((ratio.rate.median - 15.0).abs() < 0.1 && (ratio.rate.max - 20.0).abs() < 0.1, "{ratio:?}");
        assert!((ratio.p95.median - 30.0).abs() < 0.5, "{ratio:?}");
        assert!(report.is_valid());
        let text = report.to_string();
        assert!(text.contains("verify: not run") && text.contains("hot-claim"), "{text}");
        report.record_verification(Err(anyhow::anyhow!("3 accounts differ from their lots")));
        assert!(!report.is_valid());
        assert!(serde_json::to_string(&report).unwrap().contains("\"passed\":false"));
    }
}
