//! `scrip import`: coupon templates and coupons from the origin system's tables, straight into the store.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use scrip_domain::TenantId;

use super::{StoreArgs, output};
use crate::import::{self, ImportOptions, Percent};

#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Coupon templates, from a CSV export of mkt_coupon_template.
    Templates(ImportArgs),
    /// Coupons, from a CSV export of mkt_user_coupon; their templates come first.
    Coupons(ImportArgs),
}

/// Takes rows over that are not there yet; docs/IMPORT.md has the mapping. Exits 1 when a row was not taken over.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[arg(long, value_name = "TENANT_ID")]
    tenant: TenantId,
    /// What discount_percent means: `off` (10 is ten percent off) or `pay` (90 is ninety percent to pay).
    #[arg(long, value_parser = parse_percent)]
    percent: Option<Percent>,
    /// The time zone of times without an offset. Default: the tenant's.
    #[arg(long)]
    time_zone: Option<String>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

fn parse_percent(text: &str) -> Result<Percent, String> {
    Percent::parse(text).ok_or_else(|| "expected off or pay".into())
}

impl ImportCommand {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let (is_coupons, args) = match self {
            ImportCommand::Templates(args) => (false, args),
            ImportCommand::Coupons(args) => (true, args),
        };
        let ImportArgs { file, tenant, percent, time_zone, dry_run, json, store } = args;
        let (store, engine) = store.engine().await?;
        let settings = store.find_tenant(tenant).await?.with_context(|| format!("there is no tenant {tenant}"))?;
        let zone = time_zone.unwrap_or(settings.time_zone);
        let time_zone = TimeZone::get(&zone).with_context(|| format!("--time-zone: {zone} is none"))?;
        let rows = File::open(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let options = ImportOptions { tenant, percent, time_zone, dry_run };
        let report = match is_coupons {
            true => import::coupons(&store, &engine, rows, &options).await?,
            false => import::templates(&store, &engine, rows, &options).await?,
        };
        if json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            output::print(false, &report.errors, &["line", "id", "why not"], |row| {
                vec![row.line.to_string(), row.id.clone(), row.message.clone()]
            })?;
            println!(
                "{} rows: {} {}, {} there already, {} refused.",
                report.lines,
                report.imported,
                if dry_run { "would be imported" } else { "imported" },
                report.existing,
                report.bad
            );
        }
        Ok(if report.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
