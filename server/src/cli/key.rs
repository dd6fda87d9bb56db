//! `scrip key`: API keys, straight on the store.

use clap::Subcommand;
use scrip_domain::tenant::{ApiKey, Scope};
use scrip_domain::{Answer, Command, Envelope, KeyId, MemberId, Outcome, Rejection, TenantId};
use serde::Serialize;

use super::{StoreArgs, output};
use crate::clock;
use crate::engine::Engine;
use crate::http::auth::new_secret;

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create an API key and print its secret, once.
    Create {
        /// The tenant it belongs to.
        #[arg(value_name = "TENANT_ID")]
        tenant: TenantId,
        /// What it is for.
        #[arg(long, default_value = "created by the command line")]
        name: String,
        /// OPERATOR (everything), SERVICE (the shop's backend) or MEMBER (one member).
        #[arg(long, value_parser = parse_scope)]
        scope: Scope,
        /// The member of a MEMBER key.
        #[arg(long)]
        member_id: Option<MemberId>,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List a tenant's keys.
    List {
        #[arg(value_name = "TENANT_ID")]
        tenant: TenantId,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Revoke a key; a running server notices within 5 seconds.
    Revoke {
        #[arg(value_name = "TENANT_ID")]
        tenant: TenantId,
        #[arg(value_name = "KEY_ID")]
        key: KeyId,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(&text.to_uppercase()).ok_or_else(|| "expected OPERATOR, SERVICE or MEMBER".into())
}

#[derive(Serialize)]
struct Shown {
    id: String,
    name: String,
    scope: &'static str,
    member_id: Option<String>,
    created_at: String,
    revoked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl KeyCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            KeyCommand::Create { tenant, name, scope, member_id, json, store } => {
                anyhow::ensure!(
                    (scope == Scope::Member) == member_id.is_some(),
                    "--member-id belongs to, and only to, --scope MEMBER"
                );
                let (_, engine) = store.engine().await?;
                let (key, secret) = create(&engine, tenant, name, scope, member_id).await?;
                show(json, &[key], Some(secret))
            }
            KeyCommand::List { tenant, json, store } => {
                let store = store.open().await?;
                anyhow::ensure!(store.find_tenant(tenant).await?.is_some(), "there is no tenant {tenant}");
                let mut keys = Vec::new();
                loop {
                    let page = store.list_keys(tenant, keys.last().map(|key: &ApiKey| key.id), 200).await?;
                    let is_last = page.len() < 200;
                    keys.extend(page);
                    if is_last {
                        return show(json, &keys, None);
                    }
                }
            }
            KeyCommand::Revoke { tenant, key, json, store } => {
                let (_, engine) = store.engine().await?;
                match submit(&engine, tenant, Command::RevokeApiKey(key)).await? {
                    Answer::Accepted { outcome: Outcome::ApiKey(key), .. } => show(json, &[*key], None),
                    _ => anyhow::bail!("tenant {tenant} has no key {key}; `scrip key list {tenant}` shows its keys"),
                }
            }
        }
    }
}

/// Creates a key through the engine; the key and its secret.
pub async fn create(
    engine: &Engine,
    tenant: TenantId,
    name: String,
    scope: Scope,
    member_id: Option<MemberId>,
) -> anyhow::Result<(ApiKey, String)> {
    let (secret, secret_digest) = new_secret();
    let key = ApiKey {
        id: KeyId(uuid::Uuid::now_v7()),
        tenant_id: tenant,
        name,
        scope,
        member_id,
        expires_at: None,
        revoked_at: None,
        adjustment_limit: None,
        created_at: clock::now(),
    };
    match submit(engine, tenant, Command::CreateApiKey { key, secret_digest }).await? {
        Answer::Accepted { outcome: Outcome::ApiKey(key), .. } => Ok((*key, secret)),
        Answer::Refused(Rejection::TenantIsProgram) => anyhow::bail!(
            "{tenant} is a program: the keys of its tenant ask for it with the header Scrip-Program; `scrip tenant list` shows which"
        ),
        _ => anyhow::bail!("there is no tenant {tenant}; `scrip tenant list` shows them"),
    }
}

async fn submit(engine: &Engine, tenant: TenantId, command: Command) -> anyhow::Result<Answer> {
    let now = clock::now();
    let seed = clock::seed(now);
    Ok(engine.submit(Envelope { tenant, actor: None, command, idempotency: None, at: now, now, seed }).await?)
}

fn show(json: bool, keys: &[ApiKey], secret: Option<String>) -> anyhow::Result<()> {
    let shown: Vec<Shown> = keys
        .iter()
        .map(|key| Shown {
            id: key.id.to_string(),
            name: key.name.clone(),
            scope: key.scope.as_str(),
            member_id: key.member_id.as_ref().map(MemberId::to_string),
            created_at: output::time(key.created_at),
            revoked_at: key.revoked_at.map(output::time),
            secret: secret.clone(),
        })
        .collect();
    let header = ["id", "name", "scope", "member", "created", "revoked"];
    output::print(json, &shown, &header, |key| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let (member, revoked) = (or_dash(&key.member_id), or_dash(&key.revoked_at));
        vec![key.id.clone(), key.name.clone(), key.scope.into(), member, key.created_at.clone(), revoked]
    })?;
    if let (false, Some(secret)) = (json, secret) {
        println!("\nThe secret, shown this once:\n  {secret}");
    }
    Ok(())
}
