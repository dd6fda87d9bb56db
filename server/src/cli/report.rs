//! `scrip report` and `scrip rebuild`: figures straight from the store, and the read models made anew.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use jiff::tz::TimeZone;
use scrip_domain::{TenantId, Timestamp};

use super::{StoreArgs, output};
use crate::projection;
use crate::reports::Liability;
use crate::{clock, store::Store};

#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// What a tenant owes its members in points: issued, redeemed, expired, outstanding by the month of expiry.
    Liability {
        tenant: TenantId,
        /// What is left at this time if nobody does anything; not before the last entry in the books. Default: now.
        #[arg(long, value_name = "TIME")]
        as_of: Option<jiff::Timestamp>,
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Write to a file instead of the terminal.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    Text,
    Csv,
    /// A bar chart of the outstanding points.
    Svg,
}

impl ReportCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        let ReportCommand::Liability { tenant, as_of, format, output, store } = self;
        let store = store.open_existing().await?;
        let settings = store.find_tenant(tenant).await?.with_context(|| format!("there is no tenant {tenant}"))?;
        let zone = TimeZone::get(&settings.time_zone)?;
        let at = as_of.map_or_else(clock::now, |at| Timestamp(at.as_microsecond()));
        let liability = Liability::read(&store, tenant, &zone, at).await?;
        anyhow::ensure!(
            as_of.is_none() || at >= liability.changed_at,
            "--as-of: the books have changed since; ask for {} or later",
            jiff::Timestamp::from_microsecond(liability.changed_at.0)?
        );
        let report = match format {
            Format::Text => {
                format!("Points liability of {} as of {}\n\n{}", settings.name, output::time(at), liability.to_text())
            }
            Format::Csv => liability.to_csv(),
            Format::Svg => liability.to_svg(),
        };
        match output {
            Some(path) => std::fs::write(&path, report).with_context(|| format!("cannot write {}", path.display()))?,
            None => print!("{report}"),
        }
        Ok(())
    }
}

/// Deletes statistics and leaderboards and folds them anew from the first event. A running server may go on meanwhile.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Only this tenant's; all by default.
    #[arg(long, value_name = "TENANT_ID")]
    tenant: Option<TenantId>,
    #[command(flatten)]
    store: StoreArgs,
}

impl RebuildArgs {
    pub async fn run(self) -> anyhow::Result<()> {
        let store = self.store.open_existing().await?;
        let Some(tenant) = self.tenant else {
            let mut last = None;
            loop {
                let page = store.list_tenants(last, 200).await?;
                let Some(end) = page.last() else { return Ok(()) };
                last = Some(end.id);
                for tenant in &page {
                    rebuild(&store, tenant.id).await?;
                }
            }
        };
        store.find_tenant(tenant).await?.with_context(|| format!("there is no tenant {tenant}"))?;
        rebuild(&store, tenant).await
    }
}

async fn rebuild(store: &Store, tenant: TenantId) -> anyhow::Result<()> {
    store.forget_read_models(tenant).await?;
    projection::catch_up(store, tenant).await?;
    println!("{tenant}: statistics and leaderboards are up to date.");
    Ok(())
}
