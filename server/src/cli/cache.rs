//! `scrip cache`: what running servers keep in memory.

use clap::{Args, Subcommand};
use scrip_domain::{TemplateId, TenantId};

use super::StoreArgs;
use crate::store::{CacheKey, Store};

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Have every server drop what it keeps of templates and rules.
    Evict(EvictArgs),
}

#[derive(Debug, Args)]
pub struct EvictArgs {
    /// Only what belongs to this tenant.
    #[arg(long, value_name = "TENANT_ID")]
    tenant: Option<TenantId>,
    /// Only this template of the tenant.
    #[arg(long, value_name = "TEMPLATE_ID", requires = "tenant")]
    template: Option<TemplateId>,
    #[command(flatten)]
    store: StoreArgs,
}

impl CacheCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        let CacheCommand::Evict(EvictArgs { tenant, template, store }) = self;
        let store = store.open_existing().await?;
        if matches!(store, Store::Sqlite(_)) {
            println!("Nothing to drop: a server on SQLite keeps neither templates nor rules.");
            return Ok(());
        }
        store
            .evict(match (tenant, template) {
                (Some(tenant), Some(template)) => CacheKey::Template(tenant, template),
                (Some(tenant), None) => CacheKey::Tenant(tenant),
                (None, _) => CacheKey::Everything,
            })
            .await?;
        println!("Every server that is connected to this database drops them now.");
        Ok(())
    }
}
