//! `scrip bench`: measures this machine. The comparison with the brief's algorithm is `make bench`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::bench::server::ServerProcess;
use crate::bench::{Options, Report, Scenario, run};
use crate::store::{Store, StoreOptions, StoreUrl};

/// What to measure; shared with the comparison tool.
#[derive(Debug, Clone, Args)]
pub struct MeasureArgs {
    /// Scenarios, by name; all by default.
    #[arg(long = "scenario", value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Requests a second to offer (open loop). Without it, a closed loop finds the highest rate.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Measured seconds of each repetition.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Repetitions of each scenario.
    #[arg(long, default_value_t = 3)]
    repetitions: u32,
    /// Connections of a closed loop.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Points accounts that uniform scenarios are spread over.
    #[arg(long, default_value_t = 1_000_000)]
    accounts: u64,
    /// Everything once and briefly: shows that it works, not how fast.
    #[arg(long)]
    smoke: bool,
    /// Also write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl MeasureArgs {
    pub fn options(&self) -> Options {
        let base = if self.smoke { Options::smoke() } else { Options::default() };
        let scenarios = if self.scenarios.is_empty() { base.scenarios.clone() } else { self.scenarios.clone() };
        let options = Options { scenarios, rate_per_s: self.rate, ..base };
        if self.smoke {
            return options;
        }
        Options {
            duration: Duration::from_secs_f64(self.seconds.max(0.1)),
            repetitions: self.repetitions.max(1),
            connections: self.connections.max(1),
            accounts: self.accounts.max(1),
            ..options
        }
    }

    /// Prints the report and says whether it counts.
    pub fn publish(&self, report: &Report) -> anyhow::Result<ExitCode> {
        println!("{report}");
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(report)?;
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(if report.is_valid() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    measure: MeasureArgs,
    /// The store to measure; it should be empty. Default: SQLite in a temporary folder of the working directory.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

impl BenchArgs {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        // Not in /tmp: that may be memory, which would make every sync free.
        let folder = PathBuf::from(format!("scrip-bench-{}", std::process::id()));
        let url = self.store.clone().unwrap_or_else(|| format!("sqlite:{}/scrip.db", folder.display()));
        let program = std::env::current_exe()?;
        let arguments = ["serve".to_owned(), "--store".to_owned(), url.clone()];
        let server = ServerProcess::start(program, &arguments).await?;
        let target = server.target("scrip").await?;
        let mut options = self.measure.options();
        options.data_dir = folder.is_dir().then(|| folder.clone());
        options.stores = vec![store_url(&url)?];
        // The generator gets a thread of its own and nothing else, as the module says.
        let measured = tokio::task::spawn_blocking(move || -> anyhow::Result<Report> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(&target, &options))
        });
        let mut report = measured.await??;
        server.stop().await?;
        report.record_verification(verify(&url).await);
        let code = self.measure.publish(&report)?;
        if self.store.is_none() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        Ok(code)
    }
}

/// # Errors
/// When the text is no store URL; says what one looks like.
pub fn store_url(text: &str) -> anyhow::Result<StoreUrl> {
    text.parse().map_err(anyhow::Error::msg)
}

/// Verifies the store a run has left; one line for the report.
pub async fn verify(url: &str) -> anyhow::Result<String> {
    let store = Store::open(&StoreOptions::new(store_url(url)?)).await?;
    let report = crate::verify::verify(&store, None, |_, _, _| {}).await?;
    anyhow::ensure!(report.is_clean(), "verify found {} violations", report.violation_count());
    Ok(report.summary())
}
