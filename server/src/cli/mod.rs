//! The command line: one file per subcommand.
//!
//! Commands that work on a store take `--store` and run the same commands through the same engine as the server; tables for
//! people, `--json` for scripts, progress on stderr.

mod backup;
pub mod bench;
mod bulk;
mod cache;
mod codes;
mod demo;
mod doctor;
mod events;
mod export;
mod import;
mod jobs;
mod key;
mod output;
mod program;
mod report;
mod serve;
mod tenant;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::config::Settings;
use crate::engine::{Engine, EngineOptions};
use crate::metrics::Metrics;
use crate::store::{Store, StoreUrl};

/// Coupons and loyalty points that never lie.
///
/// Start with `scrip serve`: it needs nothing, keeps its data in ./data/scrip.db and prints how to go on.
#[derive(Debug, Parser)]
#[command(name = "scrip", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::ServeArgs),
    /// Bring the store's schema up to date and stop.
    Migrate(StoreArgs),
    /// Create and list tenants.
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Create and list programs of a tenant.
    #[command(subcommand)]
    Program(program::ProgramCommand),
    /// Create, list and revoke API keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Recompute every invariant from the rows; name each row that breaks one. Exits 1 unless clean.
    ///
    /// Reads one consistent snapshot, so it may run beside a busy server.
    Verify(verify::VerifyArgs),
    /// Copy a SQLite store into one file while it serves.
    Backup(backup::BackupArgs),
    /// Put a backup in the place of a SQLite store.
    Restore(backup::RestoreArgs),
    /// Look for what would lose data, slow everything down or stop a server.
    Doctor(doctor::DoctorArgs),
    /// Give coupons of a template to every member of a file.
    Distribute(bulk::DistributeArgs),
    /// Credit points to the members of a file.
    Grant(bulk::GrantArgs),
    /// List, retry, cancel and delete background jobs.
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// What running servers keep in memory.
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Keys of coupon codes.
    #[command(subcommand)]
    Codes(codes::CodesCommand),
    /// Write coupons, uses, templates, the ledger of points or its balances into a CSV or XLSX file.
    Export(export::ExportArgs),
    /// Take coupon templates, coupons or points accounts over from the origin system's tables.
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Print a report.
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// What goes out of the event log.
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Make statistics and leaderboards anew from the event log.
    Rebuild(report::RebuildArgs),
    /// Measure this machine: start a server on a temporary store, load it over HTTP, print the figures.
    Bench(bench::BenchArgs),
    /// Fill a running server with a small shop and show what it does.
    Demo(demo::DemoArgs),
    /// Show or check the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the OpenAPI description.
    Openapi,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every setting with its default and what it means.
    Defaults,
    /// Print every setting as it holds, without passwords.
    Show(ConfigArgs),
    /// Check a configuration file and the environment without starting anything.
    Check(ConfigArgs),
}

/// Where settings come from.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// A configuration file; see `scrip config defaults`.
    #[arg(long, value_name = "FILE", env = "SCRIP_CONFIG")]
    config: Option<PathBuf>,
}

/// Which store to work on.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The store: sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE. Default: the configuration's.
    #[arg(long, value_name = "URL", env = "SCRIP_STORE", hide_env_values = true)]
    store: Option<String>,
}

impl StoreArgs {
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings::load(self.config.config.as_deref())?;
        if let Some(url) = &self.store {
            settings.store.url.clone_from(url);
        }
        Ok(settings)
    }

    /// Opens a store that is there already, as it is.
    async fn open_existing(&self) -> anyhow::Result<Store> {
        let options = self.settings()?.store.options()?;
        if let StoreUrl::Sqlite(path) = &options.url {
            anyhow::ensure!(path.is_file(), "there is no store at {}; name one with --store", path.display());
        }
        let store = Store::open(&options).await?;
        store.ping().await.with_context(|| format!("{} has no schema; run `scrip migrate`", options.url))?;
        Ok(store)
    }

    /// Opens the store with its schema up to date.
    async fn open(&self) -> anyhow::Result<Store> {
        let options = self.settings()?.store.options()?;
        let store = Store::open(&options).await?;
        store.migrate().await.with_context(|| format!("the schema of {} cannot be brought up to date", options.url))?;
        Ok(store)
    }

    /// Opens the store with an engine of its own, for single commands.
    async fn engine(&self) -> anyhow::Result<(Store, Engine)> {
        let store = self.open().await?;
        let options = EngineOptions { lanes: 1, ..EngineOptions::default() };
        let engine = Engine::start(&store, options, Metrics::new()).await?;
        Ok((store, engine))
    }
}

impl Cli {
    /// # Errors
    /// What went wrong, in words for the person at the terminal.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            match self.command {
                Command::Serve(args) => args.run().await?,
                Command::Migrate(args) => migrate(&args).await?,
                Command::Tenant(command) => command.run().await?,
                Command::Program(command) => command.run().await?,
                Command::Key(command) => command.run().await?,
                Command::Verify(args) => return args.run().await,
                Command::Backup(args) => args.run().await?,
                Command::Restore(args) => args.run().await?,
                Command::Doctor(args) => return args.run().await,
                Command::Distribute(args) => args.run().await?,
                Command::Grant(args) => args.run().await?,
                Command::Jobs(command) => command.run().await?,
                Command::Cache(command) => command.run().await?,
                Command::Codes(command) => command.run()?,
                Command::Export(args) => args.run().await?,
                Command::Import(command) => return command.run().await,
                Command::Report(command) => command.run().await?,
                Command::Events(command) => command.run().await?,
                Command::Rebuild(args) => args.run().await?,
                Command::Bench(args) => return args.run().await,
                Command::Demo(args) => args.run().await?,
                Command::Config(ConfigCommand::Defaults) => print!("{}", crate::config::DEFAULTS),
                Command::Config(ConfigCommand::Show(args)) => print!("{}", Settings::show(args.config.as_deref())?),
                Command::Config(ConfigCommand::Check(args)) => {
                    let settings = Settings::load(args.config.as_deref())?;
                    let options = settings.store.options()?;
                    println!(
                        "The configuration is usable. Store: {}. Listening on {}.",
                        options.url, settings.server.listen
                    );
                }
                Command::Openapi => println!("{}", crate::http::openapi_json()),
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

async fn migrate(args: &StoreArgs) -> anyhow::Result<()> {
    let options = args.settings()?.store.options()?;
    let store = Store::open(&options).await?;
    match store.migrate().await?.as_slice() {
        [] => println!("{} is up to date.", options.url),
        applied => println!("{}: applied {}.", options.url, applied.join(", ")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
