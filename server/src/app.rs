//! The composition root: settings -> store, engine, HTTP and background tasks; and the order in which they stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::clock;
use crate::codes::{self, Codes, KeyFile};
use crate::config::Settings;
use crate::engine::{Decider, Engine};
use crate::http::{self, AppState, HttpLimits};
use crate::jobs::runner::Runner;
use crate::jobs::{self, housekeeping};
use crate::metrics::Metrics;
use crate::projection;
use crate::relay::guard::Guard;
use crate::relay::nats::Publisher;
use crate::relay::sender::Sender;
use crate::relay::webhooks::Dispatcher;
use crate::store::{Store, StoreUrl, statistics};

/// How long a stopping server still accepts connections, while `/readyz` already says that it stops.
const DRAIN_NOTICE: Duration = Duration::from_millis(500);

/// A started server that does not listen yet.
pub struct App {
    pub store: Store,
    pub engine: Engine,
    /// The platform key's secret when it was made by this start.
    pub new_platform_key: Option<String>,
    state: AppState,
    limits: HttpLimits,
    /// Does the background jobs.
    pub runner: Runner,
    background: Vec<JoinHandle<()>>,
    /// Keeps a second server off a SQLite file.
    _lock: Option<std::fs::File>,
}

impl App {
    /// Opens the store, brings its schema up to date and starts engine and jobs.
    ///
    /// # Errors
    /// What cannot be used or reached, naming the setting.
    pub async fn start(settings: &Settings, platform_key: Option<&str>) -> anyhow::Result<App> {
        App::start_with(settings, platform_key, None).await
    }

    /// The same with another algorithm for some commands, for benchmarks.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_with(
        settings: &Settings,
        platform_key: Option<&str>,
        decider: Option<Decider>,
    ) -> anyhow::Result<App> {
        let mut options = settings.store.options()?;
        options.replica = settings.store.replica()?;
        if options.replica.is_some() && matches!(options.url, StoreUrl::Sqlite(_)) {
            anyhow::bail!(
                "store.replica_url is set, but store.url is a SQLite file, which has no replicas; leave it out"
            );
        }
        options.caches = Some(settings.cache.options()?);
        let store = Store::open(&options).await.context("store.url (--store) cannot be used")?;
        let lock = store.lock().context("store.url (--store) cannot be used")?;
        if settings.store.migrate {
            let applied = store.migrate().await.context("the schema cannot be brought up to date")?;
            if !applied.is_empty() {
                tracing::info!(migrations = ?applied, "schema brought up to date");
            }
        }
        store.ping().await.context("the schema is missing; run `scrip migrate`")?;
        let metrics = Metrics::switched(settings.telemetry.metrics);
        metrics.show_traffic(store.traffic());
        if let Some((replica, traffic)) = store.replica_metrics() {
            metrics.show_traffic(&traffic);
            metrics.show_replica(&replica);
        }
        if let Some(caches) = store.cache_metrics() {
            metrics.show_caches(&caches);
        }
        let quota = settings.quota.options()?;
        quota.refuse_programs(&store).await?;
        let engine = Engine::start_with(&store, settings.engine.options(), metrics.clone(), decider).await?;
        let (platform_digest, new_platform_key) = platform_key_of(&store, platform_key).await?;
        let limits = HttpLimits {
            max_connections: settings.server.max_connections,
            max_body_bytes: settings.server.max_body_bytes,
            max_batch_bytes: settings.server.max_batch_bytes,
            max_upload_bytes: settings.server.max_upload_bytes,
            drain: Duration::from_secs(settings.server.drain_seconds),
            quota,
        };
        let webhooks = &settings.webhooks;
        let sender = Sender::new(Guard::new(webhooks.policy()?), Duration::from_secs(webhooks.timeout_seconds))?;
        let dispatcher =
            Dispatcher::new(store.clone(), engine.clone(), sender.clone(), metrics.clone(), webhooks.options());
        let codes = Arc::new(Codes::new(KeyFile::of(&settings.codes.key_file, &options.url)));
        let state = AppState::new(
            store.clone(),
            engine.clone(),
            metrics.clone(),
            sender,
            limits.clone(),
            platform_digest,
            codes.clone(),
        );
        let (options, passes) = (settings.runner_options(), settings.housekeeping_options());
        if options.concurrency > 0 && options.recurring {
            housekeeping::ensure_passes(&store, &passes).await?;
        }
        let runner = Runner::new(store.clone(), engine.clone(), metrics.clone(), options, jobs::handler(passes));
        runner.start();
        let making_codes = codes::run(codes, store.clone(), engine.clone(), metrics.clone());
        let projection = projection::run(store.clone(), metrics.clone(), settings.projection.options());
        let mut background = vec![tokio::spawn(projection), tokio::spawn(making_codes), tokio::spawn(dispatcher.run())];
        if metrics.is_on {
            background.push(tokio::spawn(statistics::show(store.clone(), metrics.clone())));
        }
        if let Some(broker) = settings.events.broker()? {
            background.push(tokio::spawn(Publisher::new(store.clone(), metrics.clone(), broker).run()));
        }
        Ok(App { store, engine, new_platform_key, state, limits, runner, background, _lock: lock })
    }

    /// Serves until `stop` ends, then finishes what is under way.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let router = http::router(self.state.clone());
        let state = self.state.clone();
        let runner = self.runner.clone();
        let stopping = async move {
            stop.await;
            runner.stop_taking();
            tracing::info!("stopping: no new requests, finishing those under way");
            state.start_draining();
            // Long enough for a load balancer to ask /readyz once more and send its requests elsewhere.
            tokio::time::sleep(DRAIN_NOTICE).await;
        };
        let patience = self.limits.drain;
        http::serve(listener, router, self.limits, stopping).await;
        self.runner.drain(patience).await;
        self.background.iter().for_each(JoinHandle::abort);
        self.engine.drain();
        if let Err(error) = self.store.empty_log() {
            tracing::warn!(%error, "part of the store stays in the log beside its file");
        }
        Ok(())
    }

    /// The state of the HTTP layer, for tests and for servers that add routes of their own.
    pub fn state(&self) -> AppState {
        self.state.clone()
    }
}

/// The digest of the platform key: of the one given, of the one stored, or of a new one.
async fn platform_key_of(store: &Store, given: Option<&str>) -> anyhow::Result<([u8; 32], Option<String>)> {
    if let Some(secret) = given {
        return Ok((http::auth::digest(secret), None));
    }
    let (secret, digest) = http::auth::new_secret();
    if store.set_platform_digest(digest, clock::now()).await? {
        return Ok((digest, Some(secret)));
    }
    let stored = store.platform_digest().await?.context("the platform key vanished while starting")?;
    Ok((stored, None))
}
