//! `scrip program`: programs of a tenant, straight on the store.

use clap::Subcommand;
use scrip_domain::tenant::NewProgram;
use scrip_domain::{Answer, Command, Envelope, Outcome, ProgramCode, Rejection, TenantId};

use super::StoreArgs;
use super::tenant::show;
use crate::clock;

#[derive(Debug, Subcommand)]
pub enum ProgramCommand {
    /// Create a program: a further currency of points, for requests with the header Scrip-Program.
    Create {
        /// The tenant it belongs to.
        #[arg(value_name = "TENANT_ID")]
        tenant: TenantId,
        /// What requests name it by.
        code: ProgramCode,
        /// What people call it. Default: its code.
        #[arg(long)]
        name: Option<String>,
        /// IANA name of its time zone. Default: the tenant's.
        #[arg(long)]
        time_zone: Option<String>,
        /// Days that refunded points live when their lot has expired meanwhile. Default: the tenant's.
        #[arg(long, value_parser = clap::value_parser!(u32).range(0..=3650))]
        refund_grace_days: Option<u32>,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List a tenant's programs.
    List {
        #[arg(value_name = "TENANT_ID")]
        tenant: TenantId,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

impl ProgramCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            ProgramCommand::Create { tenant, code, name, time_zone, refund_grace_days, json, store } => {
                let name = name.unwrap_or_else(|| code.to_string());
                anyhow::ensure!((1..=100).contains(&name.chars().count()), "the name must have 1 to 100 characters");
                if let Some(zone) = &time_zone {
                    anyhow::ensure!(
                        jiff::tz::TimeZone::get(zone).is_ok(),
                        "--time-zone {zone:?} is not known; use an IANA name, for instance Europe/Berlin"
                    );
                }
                let (_, engine) = store.engine().await?;
                let now = clock::now();
                let id = TenantId(uuid::Uuid::now_v7());
                let new = NewProgram { id, code: code.clone(), name, time_zone, refund_grace_days };
                let command = Command::CreateProgram(Box::new(new));
                let seed = clock::seed(now);
                let envelope = Envelope { tenant, actor: None, command, idempotency: None, at: now, now, seed };
                match engine.submit(envelope).await? {
                    Answer::Accepted { outcome: Outcome::Tenant(program), .. } => show(json, &[*program]),
                    Answer::Refused(Rejection::TenantNotFound) => {
                        anyhow::bail!("there is no tenant {tenant}; `scrip tenant list` shows them")
                    }
                    Answer::Refused(Rejection::TenantIsProgram) => {
                        anyhow::bail!("{tenant} is a program itself; `scrip tenant list` shows of which tenant")
                    }
                    Answer::Refused(Rejection::ProgramExists) => {
                        anyhow::bail!("{tenant} has the program {code} already; `scrip program list {tenant}` shows it")
                    }
                    Answer::Refused(Rejection::ProgramLimitReached { most }) => {
                        anyhow::bail!("{tenant} has {most} programs, which is the limit")
                    }
                    other => anyhow::bail!("the program was not created: {other:?}"),
                }
            }
            ProgramCommand::List { tenant, json, store } => {
                let store = store.open().await?;
                anyhow::ensure!(store.find_tenant(tenant).await?.is_some(), "there is no tenant {tenant}");
                let most = scrip_domain::tenant::MAX_PROGRAMS as i64;
                let programs = store.list_programs(tenant, None, most).await?;
                show(json, &programs.into_iter().map(|(_, program)| program).collect::<Vec<_>>())
            }
        }
    }
}
