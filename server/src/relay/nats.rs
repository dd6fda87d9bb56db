//! The broker: every event published to NATS JetStream under `scrip.<tenant>.<type>`, for whoever wants to follow by
//! subscription.
//!
//! One node at a time publishes, by a lease. It reads a tenant's next page of the log, publishes each subject's events one after
//! the other and those of different subjects side by side, awaits the acknowledgement of every one, and only then moves the
//! position. A page that was not acknowledged to the end is published again; `Nats-Msg-Id` is the event's id, so JetStream
//! drops what it has already ([`DUPLICATE_WINDOW`]), and what is published again later carries the same id for the readers.
//!
//! What it guarantees: every event at least once, those of one subject in their order; the broker may be away, restarted or
//! wiped without a loss, since the log is the truth. A wiped broker gets the past again with `scrip events replay`.
//!
//! What bounds it: a page of events in memory, [`WINDOW`] publications under way, [`ACK_TIMEOUT`] for each, a pause that doubles
//! up to [`MAX_PAUSE`] between attempts to connect.
//!
//! Deliberately absent: any effect on commands. With the broker gone only the lag grows.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::context::{Context, GetStreamErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream;
use async_nats::{ConnectOptions, ServerAddr};
use futures_util::{StreamExt, TryStreamExt};
use scrip_domain::TenantId;
use scrip_domain::event::Event;
use uuid::Uuid;

use super::{Held, subject_of};
use crate::clock;
use crate::http::event_json;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::read::EventPosition;

/// Events published and acknowledged before the position moves.
const PAGE: i64 = 500;
/// Subjects published side by side.
const WINDOW: usize = 256;
/// Pages of one tenant before the next one's turn.
const PAGES_IN_TURN: usize = 20;
const TENANTS_PER_PASS: i64 = 200;
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long JetStream remembers the ids it has seen, to drop doubles.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A server's address. Its `Display` hides user and password.
#[derive(Clone)]
pub struct BrokerUrl(ServerAddr);

impl std::str::FromStr for BrokerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The parser's own words may quote the address, and there may be a password in it.
        let address: ServerAddr =
            text.parse().map_err(|_| "expected nats://HOST:PORT or tls://HOST:PORT".to_owned())?;
        let url = address.clone().into_inner();
        if url.host_str().is_none_or(str::is_empty) || !matches!(url.scheme(), "nats" | "tls") {
            return Err("expected nats://HOST:PORT or tls://HOST:PORT".to_owned());
        }
        Ok(BrokerUrl(address))
    }
}

impl std::fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.0.clone().into_inner();
        let port = url.port().unwrap_or(4222);
        write!(f, "{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default())
    }
}

impl std::fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone)]
pub struct BrokerOptions {
    pub url: BrokerUrl,
    /// A credentials file, as NATS's own tools make it.
    pub credentials: Option<PathBuf>,
    /// The stream's name; it takes everything under `scrip.>`.
    pub stream: String,
    /// Servers that keep each message.
    pub replicas: usize,
    /// How long the stream keeps events; zero is for ever.
    pub retention: Duration,
    /// Between two looks for new events.
    pub poll: Duration,
}

impl BrokerOptions {
    async fn connect(&self) -> anyhow::Result<Context> {
        let mut options = ConnectOptions::new()
            .name("scrip")
            .connection_timeout(CONNECT_TIMEOUT)
            .tls_client_config(crate::tls::client_config()?)
            .require_tls(self.url.0.clone().into_inner().scheme() == "tls");
        if let Some(path) = &self.credentials {
            options = options
                .credentials_file(path)
                .await
                .with_context(|| format!("events.nats_credentials: {} cannot be read", path.display()))?;
        }
        let client = options.connect(self.url.0.clone()).await.context("no connection")?;
        let mut context = async_nats::jetstream::new(client);
        context.set_timeout(ACK_TIMEOUT);
        Ok(context)
    }

    /// Whether the broker is there and what its stream holds; makes nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn examine(&self) -> anyhow::Result<String> {
        let context = self.connect().await?;
        match context.get_stream(&self.stream).await {
            Ok(mut stream) => {
                let messages = stream.info().await?.state.messages;
                Ok(format!("{}, stream {}: {messages} messages", self.url, self.stream))
            }
            Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => {
                Ok(format!("{}, no stream {} yet", self.url, self.stream))
            }
            Err(error) => Err(error).context("JetStream does not answer; run NATS with it turned on"),
        }
    }
}

/// Publishes until it is dropped.
pub struct Publisher {
    store: Store,
    metrics: Arc<Metrics>,
    options: BrokerOptions,
    node: Uuid,
}

impl Publisher {
    pub fn new(store: Store, metrics: Arc<Metrics>, options: BrokerOptions) -> Publisher {
        Publisher { store, metrics, options, node: Uuid::from_u128(rand::random()) }
    }

    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.measure().await;
            let held = match Held::take(&self.store, "broker".to_owned(), self.node).await {
                Ok(held) => held,
                Err(error) => {
                    tracing::debug!(%error, "the broker's lease was not taken");
                    None
                }
            };
            let Some(held) = held else {
                tokio::time::sleep(self.options.poll.max(FIRST_PAUSE)).await;
                continue;
            };
            let mut reached = false;
            let ended = held.work(&self.store, Box::pin(self.publish(&mut reached))).await;
            self.metrics.broker_connected.set(0);
            if reached {
                pause = FIRST_PAUSE;
            }
            if let Some(Err(error)) = ended {
                self.metrics.broker_failures.inc();
                let (url, error) = (&self.options.url, format!("{error:#}"));
                tracing::warn!(%url, error, ?pause, "events.nats_url: events are not published; the log keeps them");
            }
            tokio::time::sleep(pause + pause.mul_f64(rand::random_range(0.0..0.2))).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Connects and publishes for as long as all goes well.
    async fn publish(&self, reached: &mut bool) -> anyhow::Result<()> {
        let context = self.connect().await?;
        *reached = true;
        self.metrics.broker_connected.set(1);
        loop {
            let mut any = false;
            for (tenant, _) in self.store.tenants_to_publish(TENANTS_PER_PASS).await? {
                for _ in 0..PAGES_IN_TURN {
                    if !self.publish_page(&context, tenant).await? {
                        break;
                    }
                    any = true;
                }
            }
            self.measure().await;
            if !any {
                tokio::time::sleep(self.options.poll).await;
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<Context> {
        let context = self.options.connect().await?;
        let BrokerOptions { stream, replicas, retention, .. } = &self.options;
        if let Err(error) = context.get_stream(stream).await {
            tracing::info!(stream, %error, "the stream is not there; it is made. A broker that was wiped gets the past again \
                with: scrip events replay --from start");
        }
        let config = stream::Config {
            name: stream.clone(),
            description: Some("Scrip's events".to_owned()),
            subjects: vec!["scrip.>".to_owned()],
            num_replicas: *replicas,
            max_age: *retention,
            duplicate_window: DUPLICATE_WINDOW,
            ..stream::Config::default()
        };
        context
            .get_or_create_stream(config)
            .await
            .with_context(|| format!("events.nats_stream: the stream {stream} cannot be made or read"))?;
        Ok(context)
    }

    /// Publishes a tenant's next events; false when there were none, or a rewind came between.
    async fn publish_page(&self, context: &Context, tenant: TenantId) -> anyhow::Result<bool> {
        let from = self.store.broker_progress(tenant).await?;
        let page = self.store.list_events(tenant, from.position, None, PAGE).await?;
        if page.events.is_empty() {
            return Ok(false);
        }
        let count = page.events.len() as u64;
        let mut queues: HashMap<String, Vec<(EventPosition, Event)>> = HashMap::new();
        for (position, event) in page.events {
            queues.entry(subject_of(&event)).or_default().push((position, event));
        }
        let publishing = queues.into_values().map(|queue| async move {
            for (position, event) in queue {
                let subject = format!("scrip.{tenant}.{}", event.kind.as_str());
                let payload = event_json(position, &event)?;
                let message = PublishMessage::build().message_id(event.id.to_string()).payload(payload.into());
                context.send_publish(subject, message).await?.await?;
            }
            anyhow::Ok(())
        });
        futures_util::stream::iter(publishing).buffer_unordered(WINDOW).try_collect::<()>().await?;
        self.metrics.broker_published.inc_by(count);
        Ok(self.store.move_broker(tenant, from, page.scanned_to).await?)
    }

    /// Shows how long the oldest event has waited, connected or not.
    async fn measure(&self) {
        match self.store.tenants_to_publish(TENANTS_PER_PASS).await {
            Ok(waiting) => {
                let lag = waiting.into_iter().map(|(_, since)| clock::since(since)).max().unwrap_or_default();
                self.metrics.broker_lag_seconds.set(lag.as_secs_f64());
            }
            Err(error) => tracing::debug!(%error, "the broker's lag was not measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::BrokerUrl;

    #[test]
    fn an_address_hides_its_password() {
        let shown = |text: &str| text.parse::<BrokerUrl>().map(|url| url.to_string());
        assert_eq!(shown("nats://user:secret@broker:4333").as_deref(), Ok("nats://broker:4333"));
        assert_eq!(shown("broker").as_deref(), Ok("nats://broker:4222"));
        assert_eq!(shown("tls://token@broker").as_deref(), Ok("tls://broker:4222"));
        for bad in ["", "http://broker", "ws://broker", "nats://", "nats://user:pw@"] {
            assert!(shown(bad).is_err_and(|error| !error.contains("pw")), "{bad}");
        }
    }
}
