//! One request to one receiver: signed, guarded, bounded.
//!
//! Signatures are those of Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`, one for each secret in force. The id is
//! the event's, the same in every attempt, so that a receiver can tell what it has seen.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, redirect};
use scrip_domain::webhook::{Secrets, Webhook};
use scrip_domain::{EventId, Timestamp};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP};

use super::guard::{Guard, Refused};
use crate::telemetry;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections kept for each receiver, and for how long.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of an answer is read; the rest is left unread and the connection closed.
const MAX_ANSWER_BYTES: usize = 16_384;
/// How much of an answer is kept, in characters.
const KEPT_CHARACTERS: usize = 1_024;

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The answer's status, when there was an answer.
    pub status: Option<u16>,
    /// What went wrong, in words for the operator.
    pub error: Option<String>,
    /// The beginning of the answer's body.
    pub response: String,
    pub latency: Duration,
}

impl Attempt {
    /// Only 2xx is a yes: a redirect is not followed, and so is a no.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether the receiver wants no more requests, ever.
    pub fn is_gone(&self) -> bool {
        self.status == Some(410)
    }
}

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    guard: Guard,
}

impl Sender {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(guard: Guard, timeout: Duration) -> anyhow::Result<Sender> {
        let client = Client::builder()
            .tls_backend_preconfigured(crate::tls::client_config()?)
            .user_agent(concat!("Scrip/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            // A proxy would resolve names in our place, out of the guard's sight.
            .no_proxy()
            .referer(false)
            .https_only(!guard.policy().allow_http)
            .dns_resolver(guard.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()?;
        Ok(Sender { client, guard })
    }

    /// Reads a URL that a webhook may have.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, url: &str) -> Result<(), Refused> {
        self.guard.check(url).map(drop)
    }

    /// Sends a body once.
    pub async fn send(&self, webhook: &Webhook, id: &str, body: String, now: Timestamp) -> Attempt {
        let begun = Instant::now();
        let span = telemetry::traces()
            .zip(id.parse::<EventId>().ok())
            .map(|(traces, id)| (traces, traces.begin_delivery(id.0)));
        let trace = span.as_ref().map(|(_, (_, header))| header.clone());
        let outcome = self.try_send(webhook, id, body, now, trace).await;
        if let Some((traces, (context, _))) = &span {
            traces.end_delivery(context, outcome.as_ref().ok().map(|(status, _)| *status));
        }
        let latency = begun.elapsed();
        match outcome {
            Ok((status, response)) => {
                let succeeded = (200..300).contains(&status);
                let error = match status {
                    _ if succeeded => None,
                    300..400 => {
                        Some(format!("answered {status}; redirects are not followed, give the URL they lead to"))
                    }
                    _ => Some(format!("answered {status}")),
                };
                Attempt { status: Some(status), error, response, latency }
            }
            Err(error) => Attempt { status: None, error: Some(error), response: String::new(), latency },
        }
    }

    async fn try_send(
        &self,
        webhook: &Webhook,
        id: &str,
        body: String,
        now: Timestamp,
        trace: Option<HeaderValue>,
    ) -> Result<(u16, String), String> {
        let url = self.guard.check(&webhook.url).map_err(|refused| format!("not sent: the URL {refused}"))?;
        let mut headers = headers(&webhook.secrets, id, &body, now)?;
        if let Some(trace) = trace {
            headers.insert(telemetry::TRACEPARENT, trace);
        }
        let sent = self.client.post(url).headers(headers).body(body).send().await;
        let mut answer = sent.map_err(|error| explain(&error))?;
        let status = answer.status().as_u16();
        let mut bytes = Vec::new();
        // What breaks off in the answer's body changes nothing: the status has said what became of the request.
        while let Ok(Some(chunk)) = answer.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= MAX_ANSWER_BYTES {
                break;
            }
        }
        Ok((status, kept(&bytes)))
    }
}

/// The error and its causes, without the URL, which may hold a secret of the receiver.
fn explain(error: &reqwest::Error) -> String {
    let kind = match error {
        _ if error.is_timeout() => "no answer in time",
        _ if error.is_connect() => "no connection",
        _ => "no answer",
    };
    let mut cause = std::error::Error::source(error);
    let mut text = kind.to_owned();
    while let Some(error) = cause {
        text = format!("{kind}: {error}");
        cause = error.source();
    }
    text
}

/// Text that any store and any screen can hold.
fn kept(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).take(KEPT_CHARACTERS).collect()
}

fn headers(secrets: &Secrets, id: &str, body: &str, now: Timestamp) -> Result<HeaderMap, String> {
    let seconds = now.0 / 1_000_000;
    let previous = secrets.previous.as_ref().filter(|(_, until)| now < *until).map(|(secret, _)| secret);
    let mut signatures = Vec::with_capacity(2);
    for secret in std::iter::once(&secrets.current).chain(previous) {
        let signer = standardwebhooks::Webhook::new(secret).map_err(|_| "not sent: the secret cannot be read")?;
        signatures.push(signer.sign(id, seconds, body.as_bytes()).map_err(|_| "not sent: it cannot be signed")?);
    }
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "not sent: a header cannot be written");
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static(HEADER_WEBHOOK_ID), value(id)?);
    headers.insert(HeaderName::from_static(HEADER_WEBHOOK_TIMESTAMP), value(&seconds.to_string())?);
    headers.insert(HeaderName::from_static(HEADER_WEBHOOK_SIGNATURE), value(&signatures.join(" "))?);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const SECOND: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The example of the specification, with its own figures.
    #[test]
    fn a_request_is_signed_as_the_standard_says() {
        let secrets = Secrets { current: FIRST.into(), previous: None };
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        let at = Timestamp(1_649_367_553_000_000);
        let headers = headers(&secrets, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", body, at).unwrap();
        assert_eq!(headers["webhook-signature"], "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        assert_eq!(headers["webhook-timestamp"], "1649367553");
    }

    #[test]
    fn both_secrets_sign_until_the_older_one_ends() {
        let now = crate::clock::now();
        let until = Timestamp(now.0 + 1);
        let secrets = Secrets { current: SECOND.into(), previous: Some((FIRST.into(), until)) };
        let verifies = |secret: &str, headers: &HeaderMap| {
            standardwebhooks::Webhook::new(secret).unwrap().verify(b"{}", headers).is_ok()
        };
        let during = headers(&secrets, "evt_1", "{}", now).unwrap();
        assert!(verifies(FIRST, &during) && verifies(SECOND, &during));
        let after = headers(&secrets, "evt_1", "{}", until).unwrap();
        assert!(!verifies(FIRST, &after) && verifies(SECOND, &after));
    }

    #[test]
    fn answers_are_kept_short_and_harmless() {
        assert_eq!(kept(b"a\0b\x1b[31m\nc\xff"), "a b [31m\nc\u{fffd}");
        assert_eq!(kept("é".repeat(5_000).as_bytes()).chars().count(), KEPT_CHARACTERS);
    }
}
