//! `scrip serve`: the server, from settings to the last answer.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use scrip_domain::tenant::Scope;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{StoreArgs, key, tenant};
use crate::app::App;
use crate::engine::Engine;
use crate::store::{Store, StoreUrl};
use crate::telemetry::Telemetry;

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen, for instance 0.0.0.0:8080. Default: the configuration's, 127.0.0.1:8080.
    #[arg(long, value_name = "ADDR", env = "SCRIP_LISTEN")]
    listen: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// On an empty store, create a demo tenant with an operator key; print the key and a first request.
    ///
    /// Beside a SQLite file the key is kept in demo.key, so that later starts can print it again.
    #[arg(long)]
    demo: bool,
    /// The key that manages tenants. Default: one is made and printed at the first start.
    #[arg(long, value_name = "SECRET", env = "SCRIP_PLATFORM_KEY", hide_env_values = true, hide = true)]
    platform_key: Option<String>,
}

impl ServeArgs {
    pub async fn run(self) -> anyhow::Result<()> {
        let mut settings = self.store.settings()?;
        if let Some(listen) = &self.listen {
            settings.server.listen.clone_from(listen);
        }
        if let Some(secret) = &self.platform_key {
            anyhow::ensure!(
                secret.len() >= 16 && secret.bytes().all(|byte| byte.is_ascii_graphic()),
                "SCRIP_PLATFORM_KEY must have at least 16 printable ASCII characters and no spaces"
            );
        }
        // To the end of this function: what is left to send is sent then.
        let _telemetry = Telemetry::start(&settings.log.options(), &settings.telemetry.options()?)?;
        let listen = settings.server.listen.clone();
        let listener = TcpListener::bind(&listen).await.map_err(|error| cannot_listen(&listen, &error))?;
        let address = listener.local_addr()?;
        let url = settings.store.options()?.url;
        let app = App::start(&settings, self.platform_key.as_deref()).await?;
        tracing::info!(%address, store = %url, "scrip is ready");
        println!("Scrip {} listens on http://{address}  (store: {url})", env!("CARGO_PKG_VERSION"));
        if let Some(secret) = &app.new_platform_key {
            println!("\nPlatform key, made now and shown this once (it manages tenants):\n  {secret}");
        }
        if self.demo
            && let Some(secret) = demo_key(&app.store, &app.engine, &url).await?
        {
            println!("\nDemo tenant, operator key:\n  {secret}\n\nTry it:\n  export SCRIP_KEY={secret}");
            println!("  curl -s http://{address}/v1/coupon-templates -H \"Authorization: Bearer $SCRIP_KEY\" \\");
            println!("    -H 'Content-Type: application/json' \\");
            println!(
                "    -d '{{\"name\":\"20 off 100\",\"benefit\":{{\"type\":\"AMOUNT_OFF\",\"amount\":2000}},\
                 \"min_order_amount\":10000,\"validity\":{{\"type\":\"RELATIVE\",\"days\":30}},\"total_stock\":100}}'"
            );
        }
        println!("\nReference: http://{address}/docs   Stop: Ctrl-C");
        app.serve(listener, stopped()).await
    }
}

fn cannot_listen(address: &str, error: &std::io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => "another server is there; stop it or choose another address with --listen",
        _ => "choose an address of this machine with --listen, for instance 0.0.0.0:8080",
    };
    anyhow::anyhow!("cannot listen on {address} (server.listen): {error}; {remedy}")
}

/// Ends when the process is told to stop.
async fn stopped() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be watched; only Ctrl-C will stop gracefully");
            let _ = tokio::signal::ctrl_c().await;
            return;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// The demo tenant's key: made on an empty store, read again where an earlier start kept it.
async fn demo_key(store: &Store, engine: &Engine, url: &StoreUrl) -> anyhow::Result<Option<String>> {
    let kept = kept_at(url);
    if !store.list_tenants(None, 1).await?.is_empty() {
        return Ok(kept.and_then(|path| std::fs::read_to_string(path).ok()).map(|text| text.trim().to_owned()));
    }
    let tenant = tenant::create(engine, "Demo shop".into(), "EUR".into(), "UTC".into(), 7).await?;
    let (_, secret) = key::create(engine, tenant.id, "demo".into(), Scope::Operator, None).await?;
    if let Some(path) = kept {
        keep(&path, &secret).with_context(|| format!("the demo key cannot be kept in {}", path.display()))?;
    }
    Ok(Some(secret))
}

fn kept_at(url: &StoreUrl) -> Option<PathBuf> {
    match url {
        StoreUrl::Sqlite(path) => Some(path.with_file_name("demo.key")),
        StoreUrl::Postgres(_) => None,
    }
}

/// Only its owner may read it.
fn keep(path: &std::path::Path, secret: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")
}
