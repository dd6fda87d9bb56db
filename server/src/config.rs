//! Typed settings. The default file, compiled in, is also the manual: see `config.default.toml`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use config::{Config, ConfigError, Environment, File, FileFormat};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::engine::EngineOptions;
use crate::http::quota::QuotaOptions;
use crate::jobs::housekeeping::HousekeepingOptions;
use crate::jobs::runner::RunnerOptions;
use crate::projection::ProjectionOptions;
use crate::relay::guard::Policy;
use crate::relay::nats::BrokerOptions;
use crate::relay::webhooks::WebhookOptions;
use crate::store::{CacheOptions, ReplicaOptions, StoreOptions, StoreUrl};
use crate::telemetry::{LogOptions, TelemetryOptions};

/// The text of every setting's default.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub server: ServerSettings,
    pub store: StoreSettings,
    pub cache: CacheSettings,
    pub engine: EngineSettings,
    pub quota: QuotaSettings,
    pub housekeeping: HousekeepingSettings,
    pub jobs: JobsSettings,
    pub codes: CodesSettings,
    pub projection: ProjectionSettings,
    pub webhooks: WebhookSettings,
    pub events: EventSettings,
    pub telemetry: TelemetrySettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    pub listen: String,
    pub max_connections: usize,
    pub drain_seconds: u64,
    pub max_body_bytes: usize,
    pub max_batch_bytes: usize,
    pub max_upload_bytes: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    pub url: String,
    pub read_connections: usize,
    pub acquire_seconds: u64,
    pub statement_seconds: u64,
    pub slow_statement_ms: u64,
    pub migrate: bool,
    pub replica_url: Option<String>,
    pub replica_lag_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    pub template_seconds: u64,
    pub rules_seconds: u64,
    pub redis_url: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    pub lanes: usize,
    pub queue_max: usize,
    pub batch_max: usize,
    pub deadline_seconds: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaSettings {
    pub requests_per_second: u32,
    pub tenants: HashMap<String, u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HousekeepingSettings {
    pub interval_seconds: u64,
    pub idempotency_days: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobsSettings {
    pub concurrency: usize,
    pub long_concurrency: usize,
    pub poll_ms: u64,
    pub lease_seconds: u64,
    pub done_days: u64,
    pub bulk_days: u64,
    pub dead_days: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodesSettings {
    pub key_file: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionSettings {
    pub interval_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    pub poll_ms: u64,
    pub concurrency: usize,
    pub timeout_seconds: u64,
    pub retry_seconds: Vec<u64>,
    pub delivery_days: u64,
    pub allow_http: bool,
    pub allow: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventSettings {
    pub nats_url: Option<String>,
    pub nats_credentials: Option<PathBuf>,
    pub nats_stream: String,
    pub nats_replicas: usize,
    pub nats_days: u64,
    pub poll_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    pub metrics: bool,
    pub otlp_endpoint: Option<String>,
    pub traces_per_mille: u32,
    pub sentry_dsn: Option<String>,
    pub environment: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Settings {
    /// Defaults, then the file, then the environment.
    ///
    /// # Errors
    /// Names the setting that is unknown, of the wrong kind or out of range.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Settings> {
        let settings: Settings = read(file)?;
        settings.check()?;
        Ok(settings)
    }

    /// Every setting as it holds, in the form of a configuration file; passwords are left out.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn show(file: Option<&Path>) -> anyhow::Result<String> {
        Settings::load(file)?;
        let sections: BTreeMap<String, BTreeMap<String, Value>> = read(file)?;
        let mut text = String::new();
        for (section, settings) in sections {
            text.push_str(&format!("[{section}]\n"));
            for (name, value) in settings.iter().filter(|(_, value)| !value.is_null()) {
                text.push_str(&format!("{name} = {}\n", toml_of(value)));
            }
            text.push('\n');
        }
        Ok(text)
    }

    fn check(&self) -> anyhow::Result<()> {
        let Settings {
            server,
            store,
            cache,
            engine,
            quota,
            housekeeping,
            jobs,
            codes: _,
            projection,
            webhooks,
            events,
            telemetry,
            log: _,
        } = self;
        let ranges = [
            ("server.max_connections", server.max_connections as u64, 1..=1_000_000),
            ("server.drain_seconds", server.drain_seconds, 0..=3_600),
            ("server.max_body_bytes", server.max_body_bytes as u64, 1_024..=1 << 30),
            ("server.max_batch_bytes", server.max_batch_bytes as u64, 1_024..=1 << 30),
            ("server.max_upload_bytes", server.max_upload_bytes as u64, 1_024..=1 << 34),
            ("store.read_connections", store.read_connections as u64, 1..=10_000),
            ("store.acquire_seconds", store.acquire_seconds, 1..=3_600),
            ("store.statement_seconds", store.statement_seconds, 1..=86_400),
            ("store.slow_statement_ms", store.slow_statement_ms, 1..=3_600_000),
            ("store.replica_lag_ms", store.replica_lag_ms, 50..=3_600_000),
            ("cache.template_seconds", cache.template_seconds, 0..=86_400),
            ("cache.rules_seconds", cache.rules_seconds, 0..=86_400),
            ("telemetry.traces_per_mille", telemetry.traces_per_mille.into(), 0..=1_000),
            ("engine.lanes", engine.lanes as u64, 1..=1_000),
            ("engine.queue_max", engine.queue_max as u64, 1..=1_000_000),
            ("engine.batch_max", engine.batch_max as u64, 1..=100_000),
            ("engine.deadline_seconds", engine.deadline_seconds, 1..=3_600),
            ("housekeeping.interval_seconds", housekeeping.interval_seconds, 0..=86_400),
            ("jobs.concurrency", jobs.concurrency as u64, 0..=10_000),
            ("jobs.long_concurrency", jobs.long_concurrency as u64, 0..=1_000),
            ("jobs.poll_ms", jobs.poll_ms, 10..=3_600_000),
            ("jobs.lease_seconds", jobs.lease_seconds, 1..=3_600),
            ("jobs.done_days", jobs.done_days, 1..=3_650),
            ("jobs.bulk_days", jobs.bulk_days, 1..=3_650),
            ("jobs.dead_days", jobs.dead_days, 1..=3_650),
            ("projection.interval_ms", projection.interval_ms, 0..=3_600_000),
            ("housekeeping.idempotency_days", housekeeping.idempotency_days, 1..=3_650),
            ("events.poll_ms", events.poll_ms, 1..=3_600_000),
            ("events.nats_replicas", events.nats_replicas as u64, 1..=5),
            ("events.nats_days", events.nats_days, 0..=3_650),
            ("webhooks.poll_ms", webhooks.poll_ms, 0..=3_600_000),
            ("webhooks.concurrency", webhooks.concurrency as u64, 1..=256),
            ("webhooks.timeout_seconds", webhooks.timeout_seconds, 1..=30),
            ("webhooks.delivery_days", webhooks.delivery_days, 0..=3_650),
        ];
        let outside = ranges.into_iter().filter(|(_, value, range)| !range.contains(value));
        let mut problems: Vec<String> = outside
            .map(|(name, value, range)| {
                format!("{name} is {value}; it must be from {} to {}", range.start(), range.end())
            })
            .collect();
        if let Err(error) = quota.options() {
            problems.push(error.to_string());
        }
        if let Err(error) = store.replica() {
            problems.push(error.to_string());
        }
        if let Err(error) = cache.options() {
            problems.push(error.to_string());
        }
        if let Err(error) = webhooks.policy() {
            problems.push(error.to_string());
        }
        if let Err(error) = telemetry.options() {
            problems.push(error.to_string());
        }
        if let Err(error) = events.broker() {
            problems.push(error.to_string());
        }
        let retries = &webhooks.retry_seconds;
        if !(1..=20).contains(&retries.len()) || retries.iter().any(|delay| !(1..=604_800).contains(delay)) {
            problems.push("webhooks.retry_seconds must have 1 to 20 delays, each from 1 to 604800".to_owned());
        }
        anyhow::ensure!(problems.is_empty(), "the configuration cannot be used:\n  {}", problems.join("\n  "));
        Ok(())
    }
}

/// The settings' sources in the form asked for.
fn read<T: DeserializeOwned>(file: Option<&Path>) -> anyhow::Result<T> {
    let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some(path) = file {
        anyhow::ensure!(path.is_file(), "the configuration file {} does not exist", path.display());
        builder = builder.add_source(File::from(path).format(FileFormat::Toml));
    }
    let environment = Environment::with_prefix("SCRIP").prefix_separator("_").separator("__").try_parsing(true);
    // Only SCRIP_SECTION__SETTING are settings; SCRIP_PLATFORM_KEY and the like are not.
    let own = std::env::vars().filter(|(name, _)| name.starts_with("SCRIP_") && name.contains("__")).collect();
    builder = builder.add_source(environment.source(Some(own)));
    let read = builder.build().and_then(Config::try_deserialize);
    read.map_err(|error| explain(&error)).with_context(|| match file {
        Some(path) => format!("the configuration ({}, environment) cannot be used", path.display()),
        None => "the configuration (environment) cannot be used".to_owned(),
    })
}

/// A value as TOML writes it; of URLs what is secret is left out.
fn toml_of(value: &Value) -> String {
    match value {
        Value::String(text) => Value::String(without_secrets(text)).to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name:?} = {}", toml_of(value));
            format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A URL without its user and password and without what stands behind its question mark; other texts as they are.
fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    match (rest.rsplit_once('@'), rest.split_once('?')) {
        // Part of a password, or in front of parameters with an @ of their own: it cannot be told.
        (Some((before, _)), Some(_)) if before.contains('?') => format!("{scheme}://***"),
        (Some((_, place)), _) => match place.split_once('?') {
            Some((place, _)) => format!("{scheme}://***@{place}?***"),
            None => format!("{scheme}://***@{place}"),
        },
        (None, Some((place, _))) => format!("{scheme}://{place}?***"),
        (None, None) => text.to_owned(),
    }
}

/// What is wrong, without the line of the file that a parser quotes: there may be a password in it.
fn explain(error: &ConfigError) -> anyhow::Error {
    let text = error.to_string();
    let is_quoted = |line: &str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    let said: Vec<&str> = text.lines().filter(|line| !is_quoted(line)).map(str::trim).collect();
    anyhow::Error::msg(said.join(" "))
}

impl StoreSettings {
    /// # Errors
    /// When `url` is no store URL.
    pub fn options(&self) -> anyhow::Result<StoreOptions> {
        let url: StoreUrl =
            self.url.parse().map_err(|error| anyhow::anyhow!("store.url (--store) cannot be used: {error}"))?;
        Ok(StoreOptions {
            read_connections: self.read_connections,
            acquire_timeout: Duration::from_secs(self.acquire_seconds),
            statement_timeout: Duration::from_secs(self.statement_seconds),
            slow_statement: Duration::from_millis(self.slow_statement_ms),
            ..StoreOptions::new(url)
        })
    }

    /// The replica that reads may be answered by, when there is one.
    ///
    /// # Errors
    /// When its URL is none of PostgreSQL.
    pub fn replica(&self) -> anyhow::Result<Option<ReplicaOptions>> {
        let Some(text) = &self.replica_url else { return Ok(None) };
        let url = text.parse().map_err(|error| anyhow::anyhow!("store.replica_url cannot be used: {error}"))?;
        let StoreUrl::Postgres(url) = url else {
            anyhow::bail!(
                "store.replica_url cannot be used: only PostgreSQL has replicas (postgres://USER@HOST/DATABASE)"
            );
        };
        Ok(Some(ReplicaOptions { url, lag_limit: Duration::from_millis(self.replica_lag_ms) }))
    }
}

impl CacheSettings {
    /// # Errors
    /// When the shared store's URL is none.
    pub fn options(&self) -> anyhow::Result<CacheOptions> {
        let shared = self.redis_url.as_deref().map(str::parse).transpose();
        Ok(CacheOptions {
            templates_for: Duration::from_secs(self.template_seconds),
            rules_for: Duration::from_secs(self.rules_seconds),
            shared: shared.map_err(|error| anyhow::anyhow!("cache.redis_url cannot be used: {error}"))?,
        })
    }
}

impl EngineSettings {
    pub fn options(&self) -> EngineOptions {
        EngineOptions {
            lanes: self.lanes,
            queue_max: self.queue_max,
            batch_max: self.batch_max,
            deadline: Duration::from_secs(self.deadline_seconds),
        }
    }
}

impl QuotaSettings {
    /// # Errors
    /// When a tenant's id is none.
    pub fn options(&self) -> anyhow::Result<QuotaOptions> {
        let of_tenant = |(id, rate): (&String, &u32)| {
            let tenant =
                id.parse().map_err(|error| anyhow::anyhow!("quota.tenants: {id:?} is no tenant id: {error}"))?;
            Ok((tenant, *rate))
        };
        let tenants = self.tenants.iter().map(of_tenant).collect::<anyhow::Result<_>>()?;
        Ok(QuotaOptions { requests_per_second: self.requests_per_second, tenants })
    }
}

impl ProjectionSettings {
    pub fn options(&self) -> ProjectionOptions {
        ProjectionOptions { interval: Duration::from_millis(self.interval_ms) }
    }
}

impl WebhookSettings {
    /// Where webhooks may send to.
    ///
    /// # Errors
    /// When `allow` has what is neither a name nor an address nor a network.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        Policy::new(self.allow_http, &self.allow).map_err(|entry| {
            anyhow::anyhow!(
                "webhooks.allow: {entry:?} is neither a host name nor an address nor a network like 10.0.0.0/8"
            )
        })
    }

    pub fn options(&self) -> WebhookOptions {
        WebhookOptions {
            poll: Duration::from_millis(self.poll_ms),
            concurrency: self.concurrency,
            retries: self.retry_seconds.iter().map(|delay| Duration::from_secs(*delay)).collect(),
        }
    }
}

impl TelemetrySettings {
    /// Where traces and errors go.
    ///
    /// # Errors
    /// When the endpoint is no URL, or the DSN is none.
    pub fn options(&self) -> anyhow::Result<TelemetryOptions> {
        let endpoint = self.otlp_endpoint.as_deref().map(|text| {
            let url =
                text.parse::<url::Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            url.context("telemetry.otlp_endpoint is no URL; give a collector's, like http://127.0.0.1:4318")
        });
        let dsn = self.sentry_dsn.as_deref().map(|text| {
            let dsn = text.parse::<sentry::types::Dsn>().ok();
            dsn.context("telemetry.sentry_dsn is no DSN; Sentry shows it under the project's client keys")
        });
        Ok(TelemetryOptions {
            otlp_endpoint: endpoint.transpose()?,
            traces_per_mille: self.traces_per_mille,
            sentry_dsn: dsn.transpose()?,
            environment: self.environment.clone(),
        })
    }
}

impl LogSettings {
    pub fn options(&self) -> LogOptions {
        LogOptions { filter: self.filter.clone(), json: self.format == LogFormat::Json }
    }
}

impl EventSettings {
    /// The broker, when there is one.
    ///
    /// # Errors
    /// When its address or the stream's name cannot be used.
    pub fn broker(&self) -> anyhow::Result<Option<BrokerOptions>> {
        let Some(text) = &self.nats_url else { return Ok(None) };
        let url = text.parse().map_err(|error| anyhow::anyhow!("events.nats_url cannot be used: {error}"))?;
        let name = &self.nats_stream;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        anyhow::ensure!(
            (1..=64).contains(&name.len()) && name.bytes().all(is_name),
            "events.nats_stream is {name:?}; it must have 1 to 64 letters, digits, _ and -"
        );
        Ok(Some(BrokerOptions {
            url,
            credentials: self.nats_credentials.clone(),
            stream: name.clone(),
            replicas: self.nats_replicas,
            retention: Duration::from_secs(self.nats_days.saturating_mul(86_400)),
            poll: Duration::from_millis(self.poll_ms),
        }))
    }
}

impl Settings {
    /// How this node does background work.
    pub fn runner_options(&self) -> RunnerOptions {
        RunnerOptions {
            concurrency: self.jobs.concurrency,
            long_concurrency: self.jobs.long_concurrency,
            recurring: self.housekeeping.interval_seconds > 0,
            poll: Duration::from_millis(self.jobs.poll_ms),
            lease: Duration::from_secs(self.jobs.lease_seconds),
        }
    }

    /// What the server's own passes keep, and how often they come.
    pub fn housekeeping_options(&self) -> HousekeepingOptions {
        let days = |days: u64| Duration::from_secs(days.saturating_mul(86_400));
        HousekeepingOptions {
            interval: Duration::from_secs(self.housekeeping.interval_seconds),
            idempotency_retention: days(self.housekeeping.idempotency_days),
            done_retention: days(self.jobs.done_days),
            bulk_retention: days(self.jobs.bulk_days),
            dead_retention: days(self.jobs.dead_days),
            delivery_retention: days(self.webhooks.delivery_days),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_their_secrets() {
        for (text, expected) in [
            ("sqlite:data/scrip.db", "sqlite:data/scrip.db"),
            ("https://collector:4318/v1", "https://collector:4318/v1"),
            ("postgres://u:p@db/scrip", "postgres://***@db/scrip"),
            ("postgres://u:p@q@db/scrip?sslmode=require", "postgres://***@db/scrip?***"),
            ("postgres://db/scrip?password=p", "postgres://db/scrip?***"),
            ("postgres://db/scrip?password=p@q", "postgres://***"),
            ("postgres://u:p?q@db/scrip", "postgres://***"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }
}
