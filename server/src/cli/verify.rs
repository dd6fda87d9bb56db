//! `scrip verify`: the invariants, check by check.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use scrip_domain::TenantId;

use super::{StoreArgs, output};
use crate::verify::{CheckResult, verify};

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only this tenant's rows.
    #[arg(long, value_name = "TENANT_ID")]
    tenant: Option<TenantId>,
    /// The whole report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

impl VerifyArgs {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.store.open_existing().await?;
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed}  {msg}")?);
        let report = verify(&store, self.tenant, |title, done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(title);
        })
        .await?;
        bar.finish_and_clear();
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            let header = ["check", "what must hold", "seconds", "violations"];
            output::print(false, &report.checks, &header, |check: &CheckResult| {
                let seconds = format!("{:.2}", check.seconds);
                let found = if check.fault.is_some() { "not checked".into() } else { check.count.to_string() };
                vec![check.id.into(), check.title.into(), seconds, found]
            })?;
            for check in report.checks.iter().filter(|check| !check.is_clean()) {
                println!("\n{} {}:", check.id, check.title);
                for violation in &check.violations {
                    println!("  {} {}: {}", violation.tenant_id, violation.key, violation.detail);
                }
                let listed = check.violations.len() as u64;
                if let Some(fault) = &check.fault {
                    println!("  could not be carried out: {fault}");
                } else if check.count > listed {
                    println!("  and {} more", check.count - listed);
                }
            }
            println!("\n{}", report.summary());
        }
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
