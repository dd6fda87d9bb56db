//! What the server tells of itself, beside metrics: logs, traces over OTLP, errors to Sentry. Traces and Sentry are off until
//! the configuration names a place for them, and then cost nothing.
//!
//! **Operations.** One span for each operation, named `marketing.<operation>`: for a request after [`operation_name`], for each
//! command of a batch below the batch's own, for a run of a background job `marketing.run_job` with a span below it for each
//! command it has decided, for a delivery to a webhook `marketing.deliver_webhook`. A request's `traceparent` (W3C Trace
//! Context) is its span's parent; the span's own goes out with what the request or the job has caused: the deliveries to
//! webhooks of its events, as long as the node that decided them also delivers, and soon ([`Traces::remember`]); other
//! deliveries begin traces of their own, and so do jobs, which may run long after their cause and on another node.
//!
//! **Fields.** [`FIELDS`] is the vocabulary of the structured logs; a test holds every log line to it.
//!
//! What bounds it: the SDK's queue of spans (2,048; more are dropped and counted by it), [`REMEMBERED`] events, Sentry's own queue.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use quick_cache::sync::Cache;
use scrip_domain::job::Job;
use scrip_domain::{Answer, Envelope, IdSeed, Ids};
use sentry::protocol::{Event, Level as SentryLevel, Value};
use sentry::transports::ReqwestHttpTransportOptions;
use sentry::types::Dsn;
use sentry::{ClientInitGuard, ClientOptions, Transport, TransportFactory, TransportOptions};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};
use uuid::Uuid;

use crate::engine::SubmitError;

/// Spans of the commands of one batch; the SDK's queue has room for twice as many.
const MAX_PARTS: usize = 1_000;

/// The fields of log lines, and what each means.
pub const FIELDS: &[(&str, &str)] = &[
    ("address", "where this server listens"),
    ("after", "how long something was waited for"),
    ("attempt", "the number of a try, from 1"),
    ("attempts", "tries so far"),
    ("batch", "a batch of codes"),
    ("cause", "why a request failed, for the operator only"),
    ("constraint", "the name of a database constraint"),
    ("detail", "what the database said"),
    ("duration_ms", "how long something took, in milliseconds"),
    ("elapsed", "how long a request took"),
    ("end", "how a job's run ended"),
    ("error", "what went wrong, with its causes"),
    ("event_id", "an event"),
    ("job", "a background job"),
    ("kind", "the kind of a job"),
    ("lease", "the name of a lease"),
    ("migrations", "names of migrations"),
    ("other", "the one found instead"),
    ("pause", "how long until the next try"),
    ("reason", "why a webhook was disabled"),
    ("request_id", "the id that the caller saw"),
    ("route", "method and path as declared"),
    ("rows", "rows that a statement read or wrote"),
    ("size", "commands in a batch"),
    ("state", "a job's state"),
    ("statement", "the name of a statement"),
    ("status", "an HTTP status"),
    ("store", "the store's URL without its password"),
    ("stream", "the broker's stream"),
    ("tenant", "a tenant"),
    ("url", "an address without its password"),
    ("webhook_id", "a webhook"),
    ("xid", "the number of a database transaction"),
];

/// Events whose trace is remembered until they are delivered.
const REMEMBERED: usize = 10_000;
/// How many of the ids that a command draws may be events: it draws them for its rows as well.
const IDS_OF_A_COMMAND: usize = 8;
/// How long an export may take, and how long a stopping server waits for the last one.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where traces and errors go.
#[derive(Debug, Clone, Default)]
pub struct TelemetryOptions {
    /// An OTLP/HTTP collector, without `/v1/traces`.
    pub otlp_endpoint: Option<url::Url>,
    /// Of a thousand traces that begin here, how many are exported.
    pub traces_per_mille: u32,
    pub sentry_dsn: Option<Dsn>,
    /// `production`, `staging`: told to both.
    pub environment: String,
}

/// How logs are written.
#[derive(Debug, Clone)]
pub struct LogOptions {
    pub filter: String,
    pub json: bool,
}

/// The operation's name after which a request's span is called: that of the command it runs, else of its route.
pub fn operation_name(operation_id: &str) -> &str {
    // The routes whose command has another name. `Command::operation` has the same words.
    const NAMES: &[(&str, &str)] = &[
        ("create_claim", "claim"),
        ("create_grant", "grant"),
        ("create_debit", "debit"),
        ("create_hold", "hold"),
        ("create_reversal", "reverse"),
        ("create_batch", "batch"),
        ("create_expirations", "expire"),
    ];
    NAMES.iter().find(|(id, _)| *id == operation_id).map_or(operation_id, |(_, name)| name)
}

/// Keeps logs, traces and error reports going; sends what is left when it is dropped.
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    _sentry: Option<ClientInitGuard>,
}

impl Telemetry {
    /// Starts everything that the options name. Once in a process; from within a runtime.
    ///
    /// # Errors
    /// When a setting cannot be used; it is named.
    pub fn start(log: &LogOptions, options: &TelemetryOptions) -> anyhow::Result<Telemetry> {
        let filter = EnvFilter::try_new(&log.filter)
            .with_context(|| format!("log.filter {:?} is no filter; try info", log.filter))?;
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines: Box<dyn Layer<Registry> + Send + Sync> = if log.json {
            lines.json().with_filter(filter).boxed()
        } else {
            lines.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed()
        };
        let sentry = options.sentry_dsn.as_ref().map(|dsn| start_sentry(dsn, &options.environment)).transpose()?;
        let errors = sentry.is_some().then(|| Errors.with_filter(tracing_subscriber::filter::LevelFilter::ERROR));
        tracing_subscriber::registry().with(lines).with(errors).init();
        let provider = options.otlp_endpoint.as_ref().map(|endpoint| start_traces(endpoint, options)).transpose()?;
        if let Some(provider) = &provider {
            // A second start in one process has failed above already.
            let _ = TRACES.set(Traces::new(provider));
        }
        Ok(Telemetry { provider, _sentry: sentry })
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // On a thread of its own: the export needs this runtime to go on.
            let flushing = std::thread::spawn(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT));
            if let Ok(Err(error)) = tokio::task::block_in_place(|| flushing.join()) {
                eprintln!("scrip: telemetry.otlp_endpoint: the last spans were not sent: {error}");
            }
        }
    }
}

static TRACES: OnceLock<Traces> = OnceLock::new();

/// What makes spans, when the configuration wants any.
pub fn traces() -> Option<&'static Traces> {
    TRACES.get()
}

/// Makes spans.
pub struct Traces {
    tracer: SdkTracer,
    events: Cache<Uuid, SpanContext>,
}

impl Traces {
    fn new(provider: &SdkTracerProvider) -> Traces {
        Traces { tracer: provider.tracer("scrip"), events: Cache::new(REMEMBERED) }
    }

    /// Begins the span of a request.
    pub fn begin(&self, operation: &'static str, route: &'static str, headers: &HeaderMap) -> Context {
        let parent = headers.get(TRACEPARENT).and_then(|value| parse_traceparent(value.to_str().ok()?));
        let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let span = self
            .tracer
            .span_builder(operation)
            .with_kind(SpanKind::Server)
            .with_attributes([KeyValue::new("http.route", route)])
            .start_with_context(&self.tracer, &parent);
        parent.with_span(span)
    }

    /// Ends the span of a request.
    pub fn end(&self, context: &Context, status: u16, request_id: &str) {
        let span = context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        span.set_attribute(KeyValue::new("request_id", request_id.to_owned()));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// Begins spans for commands of the batch or the job under way, when its trace is exported: one for each, but
    /// [`MAX_PARTS`] at most.
    pub fn begin_parts(&self, batch: &[Envelope]) -> Option<Parts<'_>> {
        let parent = Context::current();
        if !parent.span().span_context().is_sampled() {
            return None;
        }
        let operations = batch.iter().take(MAX_PARTS).map(|envelope| envelope.command.operation()).collect();
        Some(Parts { tracer: &self.tracer, parent, begun: SystemTime::now(), operations })
    }

    /// Begins the span of a job's run.
    pub fn begin_run(&self, job: &Job) -> Context {
        let attributes = [
            KeyValue::new("scrip.job_kind", job.kind.as_str()),
            KeyValue::new("scrip.job_id", job.id.to_string()),
            KeyValue::new("scrip.job_attempt", job.attempts),
        ];
        let span = self.tracer.span_builder("marketing.run_job").with_attributes(attributes);
        let nobody = Context::new();
        let span = span.start_with_context(&self.tracer, &nobody);
        nobody.with_span(span)
    }

    /// Ends the span of a run, with the word for its end that the metrics have.
    pub fn end_run(&self, context: &Context, end: &'static str) {
        let span = context.span();
        span.set_attribute(KeyValue::new("scrip.job_end", end));
        if end == "failed" || end == "dead" {
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// Remembers that the events of a command belong to the request or the job under way, when its trace is exported.
    pub fn remember(&self, seed: IdSeed) {
        let cause = Context::current().span().span_context().clone();
        if cause.is_sampled() {
            let mut ids = Ids::new(seed);
            for _ in 0..IDS_OF_A_COMMAND {
                self.events.insert(ids.draw(), cause.clone());
            }
        }
    }

    /// Begins the span of a delivery; its `traceparent` is to be sent along.
    pub fn begin_delivery(&self, event: Uuid) -> (Context, HeaderValue) {
        let parent = self.events.get(&event);
        let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let span = self
            .tracer
            .span_builder("marketing.deliver_webhook")
            .with_kind(SpanKind::Client)
            .start_with_context(&self.tracer, &parent);
        let header = traceparent(span.span_context());
        (parent.with_span(span), header)
    }

    pub fn end_delivery(&self, context: &Context, status: Option<u16>) {
        let span = context.span();
        match status {
            Some(status) => span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status))),
            None => span.set_status(Status::error("no answer")),
        }
        span.end();
    }
}

/// The commands of a batch or a job on their way.
pub struct Parts<'a> {
    tracer: &'a SdkTracer,
    parent: Context,
    begun: SystemTime,
    operations: Vec<&'static str>,
}

impl Parts<'_> {
    /// Ends their spans, each with how it was answered.
    pub fn end(self, answers: &[Result<Answer, SubmitError>]) {
        for (line, (operation, answer)) in self.operations.iter().zip(answers).enumerate() {
            let outcome = match answer {
                Ok(Answer::Accepted { replayed: false, .. }) => "accepted",
                Ok(Answer::Accepted { replayed: true, .. }) => "replayed",
                Ok(Answer::Refused(_)) => "refused",
                Err(_) => "failed",
            };
            let attributes = [KeyValue::new("scrip.command", line as i64), KeyValue::new("scrip.outcome", outcome)];
            let span = self.tracer.span_builder(format!("marketing.{operation}"));
            let span = span.with_start_time(self.begun).with_attributes(attributes);
            span.start_with_context(self.tracer, &self.parent).end();
        }
    }
}

pub const TRACEPARENT: &str = "traceparent";

/// Reads `00-<trace>-<span>-<flags>`; anything else begins a new trace, as the standard asks.
fn parse_traceparent(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    // A later version may have further parts, which this one must not have.
    let well_formed = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    if !well_formed || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

fn traceparent(context: &SpanContext) -> HeaderValue {
    let text = format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

fn start_traces(endpoint: &url::Url, options: &TelemetryOptions) -> anyhow::Result<SdkTracerProvider> {
    let client = Collector { client: client()?, runtime: tokio::runtime::Handle::current() };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT_TIMEOUT)
        .with_endpoint(format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/')))
        .build()
        .context("telemetry.otlp_endpoint cannot be used")?;
    let ratio = f64::from(options.traces_per_mille) / 1_000.0;
    let resource = Resource::builder()
        .with_service_name("scrip")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("deployment.environment.name", options.environment.clone()),
        ])
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_resource(resource)
        .build())
}

fn client() -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(crate::tls::client_config()?);
    Ok(builder.timeout(EXPORT_TIMEOUT).build()?)
}

/// Sends spans from the SDK's own thread, where no runtime is, by way of ours.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: axum::http::Request<Bytes>) -> Result<axum::http::Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let sent = self.client.post(parts.uri.to_string()).headers(parts.headers).body(body);
        let answered = self.runtime.spawn(async move {
            let answer = sent.send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        });
        let (status, body) = match answered.await? {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "telemetry.otlp_endpoint: spans were not sent");
                return Err(error.into());
            }
        };
        if !status.is_success() {
            tracing::debug!(status = status.as_u16(), "telemetry.otlp_endpoint: spans were not taken");
        }
        Ok(axum::http::Response::builder().status(status).body(body)?)
    }
}

fn start_sentry(dsn: &Dsn, environment: &str) -> anyhow::Result<ClientInitGuard> {
    let options = ClientOptions::new()
        .dsn(&dsn.to_string())
        .release(concat!("scrip@", env!("CARGO_PKG_VERSION")))
        .environment(environment.to_owned())
        .send_default_pii(false)
        .attach_stacktrace(true)
        .before_send(|event| Some(scrubbed(event)))
        .transport(OverHttp(client()?))
        .shutdown_timeout(FLUSH_TIMEOUT);
    Ok(sentry::init(options))
}

/// Sentry's transport on a client whose TLS is ours.
struct OverHttp(reqwest::Client);

impl TransportFactory for OverHttp {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        Arc::new(ReqwestHttpTransportOptions::from(options).with_client(self.0.clone()).build())
    }
}

/// Hands log lines of the level ERROR to Sentry. Panics come by its own hook.
struct Errors;

impl<S: tracing::Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        sentry::capture_event(Event {
            level: SentryLevel::Error,
            logger: Some(event.metadata().target().to_owned()),
            message: Some(said.message),
            extra: said.fields,
            ..Event::default()
        });
    }
}

/// A log line's message and fields.
#[derive(Default)]
struct Said {
    message: String,
    fields: std::collections::BTreeMap<String, Value>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.insert(field.name().to_owned(), text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

/// Takes secrets out of everything an event says.
fn scrubbed(mut event: Event<'static>) -> Event<'static> {
    event.message = event.message.map(|text| scrub(&text));
    for exception in &mut event.exception {
        exception.value = exception.value.take().map(|text| scrub(&text));
    }
    for value in event.extra.values_mut() {
        if let Value::String(text) = value {
            *text = scrub(text);
        }
    }
    event
}

/// Replaces API keys, webhook secrets, and passwords in URLs and settings.
fn scrub(text: &str) -> String {
    const HIDDEN: &str = "[hidden]";
    let mut clean = String::with_capacity(text.len());
    for (number, word) in text.split(' ').enumerate() {
        if number > 0 {
            clean.push(' ');
        }
        let lower = word.to_ascii_lowercase();
        let marked = ["scrip_", "whsec_"].into_iter().filter_map(|mark| word.find(mark)).min();
        let assigned = ["password=", "secret=", "token="]
            .into_iter()
            .filter_map(|name| lower.find(name).map(|at| at + name.len()))
            .min();
        match (marked, word.find("://"), assigned) {
            (Some(at), ..) => {
                clean.push_str(&word[..at]);
                clean.push_str(HIDDEN);
            }
            // user:password@ of a URL; a password may have an @ itself.
            (None, Some(scheme), None) if word.rfind('@').is_some_and(|at| at > scheme) => {
                clean.push_str(&word[..scheme + 3]);
                clean.push_str(HIDDEN);
                clean.push_str(&word[word.rfind('@').unwrap_or(0)..]);
            }
            (None, _, Some(at)) => {
                clean.push_str(&word[..at]);
                clean.push_str(HIDDEN);
            }
            _ => clean.push_str(word),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_stays() {
        for (text, expected) in [
            ("nothing to hide", "nothing to hide"),
            ("the key scrip_0123456789abcdef was refused", "the key [hidden] was refused"),
            ("\"whsec_C2FVsBQIhrscChlQ\" cannot be read", "\"[hidden] cannot be read"),
            ("cannot connect to postgres://scrip:s3cret@db/scrip", "cannot connect to postgres://[hidden]@db/scrip"),
            ("postgres://u:a@b@db/x", "postgres://[hidden]@db/x"),
            ("host=db password=s3cret user=u", "host=db password=[hidden] user=u"),
            ("mail a@b.example", "mail a@b.example"),
        ] {
            assert_eq!(scrub(text), expected);
        }
    }

    #[test]
    fn traceparents_are_read_strictly() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = parse_traceparent(good).expect("the standard's own example");
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(traceparent(&context), good);
        assert!(parse_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more").is_some());
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert!(parse_traceparent(bad).is_none(), "{bad}");
        }
    }

    /// Every field of every log line of the sources is in the vocabulary.
    #[test]
    fn logs_speak_one_language() {
        let mut unknown = Vec::new();
        let mut found = std::collections::BTreeSet::new();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders = vec![root];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("the sources").map(|entry| entry.expect("an entry").path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else if entry.extension().is_some_and(|ending| ending == "rs") {
                    let text = std::fs::read_to_string(&entry).expect("a source");
                    for name in fields_of(&text) {
                        if !FIELDS.iter().any(|(known, _)| *known == name) {
                            unknown.push(format!("{}: {name}", entry.display()));
                        }
                        found.insert(name);
                    }
                }
            }
        }
        assert!(unknown.is_empty(), "fields that telemetry::FIELDS does not have:\n{}", unknown.join("\n"));
        let unused: Vec<_> = FIELDS.iter().filter(|(name, _)| !found.contains(*name)).collect();
        assert!(unused.is_empty(), "fields that no log line has: {unused:?}");
    }

    /// The names of the fields in the calls of tracing's macros.
    fn fields_of(text: &str) -> Vec<String> {
        let mut names = Vec::new();
        for level in ["error", "warn", "info", "debug", "trace"] {
            let call = format!("tracing::{level}!(");
            for (at, _) in text.match_indices(&call) {
                let rest = &text[at + call.len()..];
                // Up to the message, which comes last.
                let fields = rest.split('"').next().unwrap_or_default();
                for part in fields.split(',') {
                    let name = part.split('=').next().unwrap_or_default().trim().trim_start_matches(['%', '?']);
                    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                        names.push(name.to_owned());
                    }
                }
            }
        }
        names
    }
}
