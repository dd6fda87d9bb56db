//! `scrip tenant`: tenants, straight on the store.

use clap::Subcommand;
use scrip_domain::tenant::Tenant;
use scrip_domain::{Answer, Command, Envelope, Outcome, TenantId};
use serde::Serialize;

use super::{StoreArgs, output};
use crate::clock;
use crate::engine::Engine;

#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Create a tenant.
    Create {
        /// What people call it.
        name: String,
        /// ISO 4217 code of its currency.
        #[arg(long, default_value = "EUR")]
        currency: String,
        /// IANA name of its time zone.
        #[arg(long, default_value = "UTC")]
        time_zone: String,
        /// Days that refunded points live when their lot has expired meanwhile.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(0..=3650))]
        refund_grace_days: u32,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List tenants.
    List {
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Serialize)]
struct Shown {
    id: String,
    name: String,
    currency: String,
    time_zone: String,
    refund_grace_days: u32,
    created_at: String,
    parent_id: Option<String>,
    program: Option<String>,
}

impl TenantCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            TenantCommand::Create { name, currency, time_zone, refund_grace_days, json, store } => {
                anyhow::ensure!((1..=100).contains(&name.chars().count()), "the name must have 1 to 100 characters");
                let is_code = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
                anyhow::ensure!(is_code, "--currency must be three capital letters, for instance EUR");
                anyhow::ensure!(
                    jiff::tz::TimeZone::get(&time_zone).is_ok(),
                    "--time-zone {time_zone:?} is not known; use an IANA name, for instance Europe/Berlin"
                );
                let (_, engine) = store.engine().await?;
                let tenant = create(&engine, name, currency, time_zone, refund_grace_days).await?;
                show(json, &[tenant])
            }
            TenantCommand::List { json, store } => {
                let store = store.open().await?;
                let mut tenants = Vec::new();
                loop {
                    let page = store.list_tenants(tenants.last().map(|tenant: &Tenant| tenant.id), 200).await?;
                    let is_last = page.len() < 200;
                    tenants.extend(page);
                    if is_last {
                        return show(json, &tenants);
                    }
                }
            }
        }
    }
}

/// Creates a tenant through the engine.
pub async fn create(
    engine: &Engine,
    name: String,
    currency: String,
    time_zone: String,
    refund_grace_days: u32,
) -> anyhow::Result<Tenant> {
    let now = clock::now();
    let id = TenantId(uuid::Uuid::now_v7());
    let tenant = Tenant { id, name, currency, time_zone, refund_grace_days, created_at: now, program: None };
    let envelope = Envelope {
        tenant: id,
        actor: None,
        command: Command::CreateTenant(tenant),
        idempotency: None,
        at: now,
        now,
        seed: clock::seed(now),
    };
    match engine.submit(envelope).await? {
        Answer::Accepted { outcome: Outcome::Tenant(tenant), .. } => Ok(*tenant),
        other => anyhow::bail!("the tenant was not created: {other:?}"),
    }
}

/// Tenants and programs, as a table or as JSON.
pub fn show(json: bool, tenants: &[Tenant]) -> anyhow::Result<()> {
    let shown: Vec<Shown> = tenants
        .iter()
        .map(|tenant| Shown {
            id: tenant.id.to_string(),
            name: tenant.name.clone(),
            currency: tenant.currency.clone(),
            time_zone: tenant.time_zone.clone(),
            refund_grace_days: tenant.refund_grace_days,
            created_at: output::time(tenant.created_at),
            parent_id: tenant.program.as_ref().map(|program| program.parent_id.to_string()),
            program: tenant.program.as_ref().map(|program| program.code.to_string()),
        })
        .collect();
    let header = ["id", "name", "currency", "time zone", "created", "program", "of"];
    output::print(json, &shown, &header, |tenant| {
        let own = [&tenant.id, &tenant.name, &tenant.currency, &tenant.time_zone, &tenant.created_at];
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        own.into_iter().cloned().chain([or_dash(&tenant.program), or_dash(&tenant.parent_id)]).collect()
    })
}
