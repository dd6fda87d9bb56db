//! Webhooks: where a tenant wants its events sent. What is sent, when and how often is the server's business; here stands
//! what an operator may change, and what the change leaves in the event log.
//!
//! Secrets are no part of a recorded outcome: a replayed answer cannot show them again.

use serde::{Deserialize, Serialize};

use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{Ids, WebhookId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// Why a webhook sends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DisabledReason {
    /// An operator has said so.
    Operator,
    /// An event was refused until its last attempt.
    Exhausted,
    /// The receiver answered 410: it does not want to be called again.
    Gone,
}

impl DisabledReason {
    pub const ALL: [DisabledReason; 3] = [DisabledReason::Operator, DisabledReason::Exhausted, DisabledReason::Gone];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            DisabledReason::Operator => "OPERATOR",
            DisabledReason::Exhausted => "EXHAUSTED",
            DisabledReason::Gone => "GONE",
        }
    }

    pub fn parse(text: &str) -> Option<DisabledReason> {
        DisabledReason::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// A place in the event log, as the store numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    pub tx: i64,
    pub ordinal: i64,
}

/// What signs the requests. `previous` signs as well until its end, so that a receiver can change over without a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    pub current: String,
    pub previous: Option<(String, Timestamp)>,
}

/// A receiver of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    pub id: WebhookId,
    pub url: String,
    /// Names of the kinds of events wanted; empty means all.
    pub types: Vec<String>,
    pub description: String,
    /// `None` while it is enabled.
    pub disabled: Option<DisabledReason>,
    #[serde(skip)]
    pub secrets: Secrets,
    /// Events up to here came before the webhook and are not sent.
    pub starts_after: LogPosition,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Webhook {
    /// Whether it wants events of this kind.
    pub fn wants(&self, kind: EventKind) -> bool {
        self.types.is_empty() || self.types.iter().any(|name| name == kind.as_str())
    }
}

/// A webhook to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    pub url: String,
    pub types: Vec<String>,
    pub description: String,
    pub secret: String,
    pub starts_after: LogPosition,
}

/// What is done to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookChange {
    /// `None` leaves a part as it is.
    Edit {
        url: Option<String>,
        types: Option<Vec<String>>,
        description: Option<String>,
    },
    Enable,
    Disable(DisabledReason),
    /// The secret so far goes on signing until `previous_until`; `None` ends it at once.
    Rotate {
        secret: String,
        previous_until: Option<Timestamp>,
    },
    Delete,
}

pub fn create(state: &mut State, envelope: &Envelope, ids: &mut Ids, new: &NewWebhook) -> Result<Outcome, Rejection> {
    state.tenant(envelope.tenant)?;
    let NewWebhook { url, types, description, secret, starts_after } = new.clone();
    let webhook = Webhook {
        id: WebhookId(ids.draw()),
        url,
        types,
        description,
        disabled: None,
        secrets: Secrets { current: secret, previous: None },
        starts_after,
        created_at: envelope.at,
        updated_at: envelope.at,
    };
    state.insert_webhook(envelope.tenant, webhook.clone());
    record(state, envelope, ids, webhook.id, EventKind::WebhookCreated, "{}".into());
    Ok(Outcome::Webhook(Box::new(webhook)))
}

/// Applies the change. One that leaves everything as it is changes nothing and tells nobody.
pub fn change(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: WebhookId,
    change: &WebhookChange,
) -> Result<Outcome, Rejection> {
    let current = state.webhook(envelope.tenant, id)?.clone();
    let mut next = current.clone();
    let (kind, data) = match change {
        WebhookChange::Edit { url, types, description } => {
            next.url = url.clone().unwrap_or(next.url);
            next.types = types.clone().unwrap_or(next.types);
            next.description = description.clone().unwrap_or(next.description);
            (EventKind::WebhookUpdated, "{}".to_owned())
        }
        WebhookChange::Enable => {
            next.disabled = None;
            (EventKind::WebhookEnabled, "{}".to_owned())
        }
        // The first reason stays: what an operator has turned off does not become exhausted.
        WebhookChange::Disable(reason) => {
            next.disabled = Some(current.disabled.unwrap_or(*reason));
            (EventKind::WebhookDisabled, format!("{{\"reason\":\"{}\"}}", reason.as_str()))
        }
        WebhookChange::Rotate { secret, previous_until } => {
            let previous = previous_until.map(|until| (current.secrets.current.clone(), until));
            next.secrets = Secrets { current: secret.clone(), previous };
            (EventKind::WebhookSecretRotated, "{}".to_owned())
        }
        WebhookChange::Delete => {
            state.delete_webhook(envelope.tenant, id);
            record(state, envelope, ids, id, EventKind::WebhookDeleted, "{}".into());
            return Ok(Outcome::Deleted);
        }
    };
    if next == current {
        return Ok(Outcome::Webhook(Box::new(current)));
    }
    next.updated_at = envelope.at;
    state.save_webhook(envelope.tenant, next.clone());
    record(state, envelope, ids, id, kind, data);
    Ok(Outcome::Webhook(Box::new(next)))
}

fn record(state: &mut State, envelope: &Envelope, ids: &mut Ids, id: WebhookId, kind: EventKind, data: String) {
    state.record_event(envelope, ids, envelope.at, kind, id.0, None, data);
}
