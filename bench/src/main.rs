//! `scrip-bench`: Scrip beside the brief's algorithm, interleaved in one run on one machine.

mod brief;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use scrip_server::app::App;
use scrip_server::bench::server::ServerProcess;
use scrip_server::bench::{Report, run_interleaved};
use scrip_server::cli::bench::{MeasureArgs, store_url, verify};
use scrip_server::config::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compare Scrip with the brief's algorithm.
#[derive(Debug, Parser)]
#[command(name = "scrip-bench", max_term_width = 100)]
enum Cli {
    /// Measure both in turn and print the ratios.
    Compare(CompareArgs),
    /// Run the server that decides claims and debits the brief's way.
    BriefServer(BriefArgs),
}

#[derive(Debug, Parser)]
struct CompareArgs {
    #[command(flatten)]
    measure: MeasureArgs,
    /// An empty PostgreSQL database for Scrip.
    #[arg(long, value_name = "URL")]
    store: String,
    /// An empty PostgreSQL database for the brief's server, on the same PostgreSQL.
    #[arg(long, value_name = "URL")]
    brief_store: String,
    /// The Redis server of the brief's lock.
    #[arg(long, value_name = "URL", default_value = "redis://127.0.0.1:6379")]
    redis: String,
    /// Connections of the brief's server to PostgreSQL. The brief has 20; twice the cores is what a pool is usually given.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    brief_connections: usize,
    /// The scrip binary.
    #[arg(long, value_name = "FILE", default_value = "target/release/scrip")]
    scrip: PathBuf,
}

#[derive(Debug, Parser)]
struct BriefArgs {
    #[arg(long)]
    listen: String,
    #[arg(long)]
    store: String,
    #[arg(long)]
    redis: String,
    #[arg(long)]
    connections: usize,
    #[arg(long, env = "SCRIP_PLATFORM_KEY", hide_env_values = true)]
    platform_key: String,
}

fn main() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Cli::parse() {
        Cli::Compare(args) => runtime.block_on(compare(args)),
        Cli::BriefServer(args) => runtime.block_on(serve(args)).map(|()| ExitCode::SUCCESS),
    }
}

async fn compare(args: CompareArgs) -> anyhow::Result<ExitCode> {
    let own = ["serve".into(), "--store".into(), args.store.clone()];
    let scrip = ServerProcess::start(args.scrip.clone(), &own).await.context("Scrip's server")?;
    let program = std::env::current_exe()?;
    let theirs = [
        "brief-server".into(),
        "--store".into(),
        args.brief_store.clone(),
        "--redis".into(),
        args.redis.clone(),
        "--connections".into(),
        args.brief_connections.to_string(),
    ];
    let brief = ServerProcess::start(program, &theirs).await.context("the brief's server")?;
    let mut other = brief.target("brief").await?;
    // Out of tries, or out of patience for the lock: no success, but what the algorithm is bound to answer.
    other.tolerated_statuses = vec![503];
    let targets = [scrip.target("scrip").await?, other];
    let mut options = args.measure.options();
    options.stores = vec![store_url(&args.store)?, store_url(&args.brief_store)?];
    let measured = tokio::task::spawn_blocking(move || -> anyhow::Result<Report> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run_interleaved(&targets, &options))
    });
    let mut report = measured.await??;
    scrip.stop().await?;
    brief.stop().await?;
    report.record_verification(verify(&args.store).await);
    args.measure.publish(&report)
}

async fn serve(args: BriefArgs) -> anyhow::Result<()> {
    let mut settings = Settings::load(None)?;
    settings.store.url.clone_from(&args.store);
    // The schema must be there before the first claim.
    let listener = tokio::net::TcpListener::bind(&args.listen).await?;
    let decider = brief::decider(&args.store, &args.redis, args.connections).await?;
    let app = App::start_with(&settings, Some(&args.platform_key), Some(decider)).await?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    app.serve(listener, async move {
        terminate.recv().await;
    })
    .await
}
