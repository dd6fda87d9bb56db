//! `scrip export`: coupons, uses, templates, the ledger of points and its balances into a file.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use scrip_domain::coupon::CouponStatus;
use scrip_domain::{TemplateId, TenantId};

use super::StoreArgs;
use crate::export::{self, Format, Reader, What};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Coupons,
    Usages,
    Templates,
    PointsTransactions,
    PointsBalances,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileFormat {
    Csv,
    Xlsx,
}

/// Writes coupons, their uses, templates, the ledger of points or its balances into a file, however many there are. A server may
/// go on meanwhile.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[arg(value_enum)]
    kind: Kind,
    #[arg(value_name = "TENANT_ID")]
    tenant: TenantId,
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[arg(long, value_enum, default_value = "csv")]
    format: FileFormat,
    /// Only coupons or uses of this template.
    #[arg(long, value_name = "TEMPLATE_ID")]
    template: Option<TemplateId>,
    /// Only coupons with this status.
    #[arg(long, value_parser = parse_status)]
    status: Option<CouponStatus>,
    #[command(flatten)]
    store: StoreArgs,
}

fn parse_status(text: &str) -> Result<CouponStatus, String> {
    let parsed = CouponStatus::parse(&text.to_uppercase());
    parsed.ok_or_else(|| "expected AVAILABLE, LOCKED, USED, EXPIRED or REVOKED".into())
}

impl ExportArgs {
    pub async fn run(self) -> anyhow::Result<()> {
        let store = self.store.open_existing().await?;
        store.find_tenant(self.tenant).await?.with_context(|| format!("there is no tenant {}", self.tenant))?;
        let template = self.template;
        let what = match self.kind {
            Kind::Coupons => What::Coupons { template, status: self.status },
            Kind::Usages => What::Usages { template, from: None, until: None },
            Kind::Templates => What::Templates,
            Kind::PointsTransactions => What::PointsTransactions { kind: None, from: None, until: None },
            Kind::PointsBalances => What::PointsBalances,
        };
        let format = match self.format {
            FileFormat::Csv => Format::Csv,
            FileFormat::Xlsx => Format::Xlsx,
        };
        let rows = export::to_file(Reader::new(store, self.tenant, what), format, &self.output).await?;
        println!("{rows} rows are in {}.", self.output.display());
        Ok(())
    }
}
