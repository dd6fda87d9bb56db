//! `scrip import`: coupon templates, coupons and points accounts from the origin system's tables, straight into the store.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use scrip_domain::TenantId;
use serde::Serialize;

use super::{StoreArgs, output};
use crate::import::{self, BadRow, ImportOptions, ImportReport, ImportedColumns, Percent, PointsImportReport};

#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Coupon templates, from a CSV export of mkt_coupon_template.
    Templates(CouponArgs),
    /// Coupons, from a CSV export of mkt_user_coupon; their templates come first.
    Coupons(CouponArgs),
    /// Points accounts with their lots and their history, from a CSV export of mkt_points_account, mkt_points_lot,
    /// mkt_points_transaction and mkt_points_debt.
    Points(PointsArgs),
}

#[derive(Debug, Args)]
pub struct CouponArgs {
    /// What discount_percent means: `off` (10 is ten percent off) or `pay` (90 is ninety percent to pay).
    #[arg(long, value_parser = parse_percent)]
    percent: Option<Percent>,
    #[command(flatten)]
    common: ImportArgs,
}

#[derive(Debug, Args)]
pub struct PointsArgs {
    /// Take an account whose history does not reconcile over without it: its open lots, and one of the past.
    #[arg(long)]
    opening: bool,
    #[command(flatten)]
    common: ImportArgs,
}

/// Takes over what is not there yet; docs/IMPORT.md has the mapping. Exits 1 when a row was not taken over.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[arg(long, value_name = "TENANT_ID")]
    tenant: TenantId,
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

#[derive(Clone, Copy)]
enum Table {
    Templates,
    Coupons,
    Points,
}

impl ImportCommand {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let (table, args, percent, opening) = match self {
            ImportCommand::Templates(args) => (Table::Templates, args.common, args.percent, false),
            ImportCommand::Coupons(args) => (Table::Coupons, args.common, args.percent, false),
            ImportCommand::Points(args) => (Table::Points, args.common, None, args.opening),
        };
        let ImportArgs { file, tenant, time_zone, dry_run, json, store } = args;
        let (store, engine) = store.engine().await?;
        let settings = store.find_tenant(tenant).await?.with_context(|| format!("there is no tenant {tenant}"))?;
        let zone = time_zone.unwrap_or(settings.time_zone);
        let time_zone = TimeZone::get(&zone).with_context(|| format!("--time-zone: {zone} is none"))?;
        let rows = File::open(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let options = ImportOptions { tenant, percent, time_zone, dry_run, opening };
        let bad = match table {
            Table::Templates => show(&import::templates(&store, &engine, rows, &options).await?, json)?,
            Table::Coupons => show(&import::coupons(&store, &engine, rows, &options).await?, json)?,
            Table::Points => show_points(&import::points(&store, &engine, rows, &options).await?, json)?,
        };
        Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Prints a report; how many rows were refused.
fn show(report: &ImportReport, json: bool) -> anyhow::Result<u64> {
    if json {
        return print_json(report, report.bad);
    }
    show_rows(&report.errors, "why not")?;
    println!(
        "{} rows: {} {}, {} there already, {} refused.",
        report.lines,
        report.imported,
        done(report.dry_run),
        report.existing,
        report.bad
    );
    Ok(report.bad)
}

fn show_points(report: &PointsImportReport, json: bool) -> anyhow::Result<u64> {
    if json {
        return print_json(report, report.bad);
    }
    show_rows(&report.errors, "why not")?;
    show_rows(&report.openings, "why without its history")?;
    let columns = [("there", report.there), ("here", report.here)];
    output::print(false, &columns, &["", "total", "available", "frozen", "used", "expired"], |(name, columns)| {
        let ImportedColumns { total_points, available, frozen, used, expired } = columns;
        let figures = [total_points, available, frozen, used, expired].map(ToString::to_string);
        std::iter::once((*name).to_owned()).chain(figures).collect()
    })?;
    println!(
        "{} accounts: {} {} ({} without a history), {} there already, {} empty, {} refused. {} points were overdue, {} are owed.",
        report.accounts,
        report.imported,
        done(report.dry_run),
        report.opened,
        report.existing,
        report.empty,
        report.bad,
        report.overdue,
        report.debt
    );
    Ok(report.bad)
}

fn done(dry_run: bool) -> &'static str {
    if dry_run { "would be imported" } else { "imported" }
}

fn print_json(report: &impl Serialize, bad: u64) -> anyhow::Result<u64> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(bad)
}

fn show_rows(rows: &[BadRow], why: &str) -> anyhow::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    output::print(false, rows, &["line", "id", why], |row| {
        vec![row.line.to_string(), row.id.clone(), row.message.clone()]
    })
}
