//! Webhooks: each one's events, at least once, in the order of their subject, without one refused event holding up the rest.
//!
//! **A round** takes the next page of the log and what is due of the parked events, sorts them into a queue for each subject,
//! and works the queues side by side, each in its order. An event that is refused ends its queue for now: it is *parked*, and
//! so is everything of its subject that comes behind it, until it is delivered. Parked is only the place in the log, never
//! a copy of the event. Then one transaction keeps the new position, what is parked and the log of deliveries.
//!
//! **Retries** follow [`WebhookOptions::retries`], each a little later by chance. When the last one fails, or the receiver
//! answers 410, the webhook is disabled, with an event and a metric; enabling it again goes on where it stopped. A receiver
//! that refused everything and then takes one event is back: whatever waits for a later attempt is tried at once.
//!
//! What bounds it: subjects and events that may be parked ([`MAX_BLOCKED`], [`MAX_PARKED`]; beyond them the log is not read
//! on, and nothing is lost), requests at a time, the time of a request, the time of a round.
//!
//! Deliberately absent: a row for each event and webhook, which would write every event as often as somebody listens.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use parking_lot::Mutex;
use scrip_domain::event::Event;
use scrip_domain::webhook::{DisabledReason, Webhook, WebhookChange};
use scrip_domain::{Command, Envelope, TenantId, Timestamp, WebhookId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::sender::{Attempt, Sender};
use super::{Held, subject_of};
use crate::clock;
use crate::engine::Engine;
use crate::http::event_json;
use crate::metrics::Metrics;
use crate::store::read::EventPosition;
use crate::store::{Delivery, Parked, Round, Store};

/// Events read from the log in a round.
const PAGE: i64 = 500;
/// Subjects that may wait for a retry; beyond them the log is not read on.
const MAX_BLOCKED: usize = 100;
/// Events that may be parked; beyond them the log is not read on.
const MAX_PARKED: usize = 10_000;
/// After this time a round begins no further request, so that a slow receiver of one subject holds up the others for no longer.
const ROUND_TIME: Duration = Duration::from_secs(20);
/// Webhooks served at a time by one node.
const WEBHOOKS_AT_ONCE: usize = 64;
const LIST_PAGE: i64 = 200;
/// Retries come up to this part of their delay later.
const JITTER_PERCENT: i64 = 10;

#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// Between two looks for events that wait; zero sends nothing from this node.
    pub poll: Duration,
    /// Requests at a time to one webhook.
    pub concurrency: usize,
    /// The delays before the second attempt and those that follow.
    pub retries: Vec<Duration>,
}

/// Sends events to webhooks until it is dropped.
pub struct Dispatcher {
    store: Store,
    engine: Engine,
    sender: Sender,
    metrics: Arc<Metrics>,
    options: WebhookOptions,
    /// This node, as the holder of leases.
    node: Uuid,
    serving: Mutex<HashSet<WebhookId>>,
    places: Arc<Semaphore>,
}

/// What is to be sent of one subject, in order.
struct Queue {
    subject: String,
    parked: Vec<Parked>,
    fresh: Vec<(EventPosition, Event)>,
}

/// What became of a queue.
#[derive(Default)]
struct Worked {
    round: Round,
    succeeded: usize,
    failed: usize,
    stop: Option<DisabledReason>,
}

impl Dispatcher {
    pub fn new(
        store: Store,
        engine: Engine,
        sender: Sender,
        metrics: Arc<Metrics>,
        options: WebhookOptions,
    ) -> Arc<Dispatcher> {
        let node = Uuid::from_u128(rand::random());
        let places = Arc::new(Semaphore::new(WEBHOOKS_AT_ONCE));
        Arc::new(Dispatcher { store, engine, sender, metrics, options, node, serving: Mutex::default(), places })
    }

    /// Looks for webhooks that have something to send and serves them, side by side.
    pub async fn run(self: Arc<Self>) {
        if self.options.poll.is_zero() {
            return;
        }
        // Dropped with this task, and with it every round under way: what it has sent is sent again.
        let mut workers = JoinSet::new();
        loop {
            tokio::time::sleep(self.options.poll).await;
            while workers.try_join_next().is_some() {}
            if let Err(error) = self.pass(&mut workers).await {
                tracing::warn!(%error, "webhooks were not looked through; the next pass goes on");
            }
        }
    }

    async fn pass(self: &Arc<Self>, workers: &mut JoinSet<()>) -> anyhow::Result<()> {
        let mut after = (TenantId(Uuid::nil()), WebhookId(Uuid::nil()));
        let (mut lag, mut blocked) = (Duration::ZERO, 0);
        loop {
            let waiting = self.store.webhooks_to_serve(after, LIST_PAGE).await?;
            let now = clock::now();
            for one in &waiting {
                lag = lag.max(one.since.map_or(Duration::ZERO, clock::since));
                blocked += one.parked_subjects;
                let is_due = one.due_at.is_some_and(|due| due <= now);
                let may_read_on = one.since.is_some() && one.parked_subjects < MAX_BLOCKED as i64;
                if (is_due || may_read_on) && !self.serving.lock().contains(&one.webhook) {
                    self.start(workers, one.tenant, one.webhook).await?;
                }
            }
            match waiting.last() {
                Some(last) if waiting.len() as i64 == LIST_PAGE => after = (last.tenant, last.webhook),
                _ => break,
            }
        }
        self.metrics.webhook_lag_seconds.set(lag.as_secs_f64());
        self.metrics.webhook_parked_subjects.set(blocked);
        Ok(())
    }

    /// Serves a webhook in a task of its own, if there is room and no other node does.
    async fn start(self: &Arc<Self>, workers: &mut JoinSet<()>, tenant: TenantId, id: WebhookId) -> anyhow::Result<()> {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return Ok(()) };
        let Some(held) = Held::take(&self.store, format!("webhook:{id}"), self.node).await? else { return Ok(()) };
        self.serving.lock().insert(id);
        let this = self.clone();
        workers.spawn(async move {
            let _place = place;
            let _serving = Serving(&this.serving, id);
            match held.work(&this.store, this.serve(tenant, id)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(webhook_id = %id, error = format!("{error:#}"), "a webhook was left; the next pass goes on");
                }
                None => tracing::info!(webhook_id = %id, "another node has taken a webhook over"),
            }
        });
        Ok(())
    }

    /// Works rounds until there is nothing to do.
    async fn serve(&self, tenant: TenantId, id: WebhookId) -> anyhow::Result<()> {
        loop {
            // Read anew for each round, so that an edit takes effect with the next one.
            let Some(webhook) = self.store.find_webhook(tenant, id).await? else { return Ok(()) };
            if webhook.disabled.is_some() || !self.round(tenant, &webhook).await? {
                return Ok(());
            }
        }
    }

    /// One round; false when there was nothing to do, or the webhook is not ours to serve any more.
    async fn round(&self, tenant: TenantId, webhook: &Webhook) -> anyhow::Result<bool> {
        let from = self.store.webhook_progress(webhook, tenant).await?;
        let parked = self.store.parked_events(tenant, webhook.id).await?;
        let now = clock::now();
        let due: HashSet<String> =
            parked.iter().filter(|row| row.due_at <= now).map(|row| row.subject.clone()).collect();
        let blocked: HashSet<String> = parked.iter().map(|row| row.subject.clone()).collect();
        let (mut queues, mut round) = (Vec::<Queue>::new(), Round::default());
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut queue_of = |queues: &mut Vec<Queue>, subject: String| {
            *places.entry(subject.clone()).or_insert_with(|| {
                queues.push(Queue { subject, parked: Vec::new(), fresh: Vec::new() });
                queues.len() - 1
            })
        };
        let may_read_on = blocked.len() < MAX_BLOCKED && parked.len() < MAX_PARKED;
        let waiting_heads: Vec<Parked> =
            parked.iter().filter(|row| row.due_at < Timestamp::NEVER && !due.contains(&row.subject)).cloned().collect();
        for row in parked.into_iter().filter(|row| due.contains(&row.subject)) {
            let place = queue_of(&mut queues, row.subject.clone());
            queues[place].parked.push(row);
        }
        let mut to = from;
        if may_read_on {
            let page = self.store.list_events(tenant, from.position, None, PAGE).await?;
            to.position = page.scanned_to;
            for (position, event) in page.events.into_iter().filter(|(_, event)| webhook.wants(event.kind)) {
                let subject = subject_of(&event);
                if blocked.contains(&subject) && !due.contains(&subject) {
                    round.parked.push(Parked { position, subject, attempts: 0, due_at: Timestamp::NEVER });
                } else {
                    let place = queue_of(&mut queues, subject);
                    queues[place].fresh.push((position, event));
                }
            }
        }
        if queues.is_empty() && to.position == from.position {
            return Ok(false);
        }
        let ends_at = Instant::now() + ROUND_TIME;
        let work = queues.into_iter().map(|queue| self.work(tenant, webhook, queue, ends_at));
        let mut working = futures_util::stream::iter(work).buffer_unordered(self.options.concurrency);
        let (mut succeeded, mut failed, mut stop) = (0, 0, None);
        while let Some(worked) = working.next().await {
            let worked = worked?;
            succeeded += worked.succeeded;
            failed += worked.failed;
            stop = stop.or(worked.stop);
            round.parked.extend(worked.round.parked);
            round.delayed.extend(worked.round.delayed);
            round.delivered.extend(worked.round.delivered);
            round.log.extend(worked.round.log);
        }
        if succeeded + failed > 0 {
            to.down = succeeded == 0;
        }
        if from.down && succeeded > 0 {
            // The receiver is back. The attempt to come counts for the one it replaces.
            let now = clock::now();
            let sooner = |row: Parked| Parked { attempts: (row.attempts - 1).max(0), due_at: now, ..row };
            round.delayed.extend(waiting_heads.into_iter().map(sooner));
        }
        if !self.store.finish_round(tenant, webhook.id, from, to, &round).await? {
            return Ok(false);
        }
        if let Some(reason) = stop {
            self.disable(tenant, webhook.id, reason).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Sends a queue's events one after the other, up to the first that is refused.
    async fn work(
        &self,
        tenant: TenantId,
        webhook: &Webhook,
        queue: Queue,
        ends_at: Instant,
    ) -> anyhow::Result<Worked> {
        let Queue { subject, parked, fresh } = queue;
        let mut worked = Worked::default();
        let mut is_open = true;
        for (number, row) in parked.into_iter().enumerate() {
            if Instant::now() >= ends_at {
                is_open = false;
                // The first one is due already.
                if number > 0 {
                    worked.round.delayed.push(Parked { attempts: 0, due_at: clock::now(), ..row });
                }
                break;
            }
            let event = self.store.find_event(tenant, row.position).await?;
            // Not wanted any more: as good as delivered.
            let Some(event) = event.filter(|event| webhook.wants(event.kind)) else {
                worked.round.delivered.push(row.position);
                continue;
            };
            let attempts = row.attempts + 1;
            if self.attempt(webhook, row.position, &event, attempts, &mut worked).await? {
                worked.round.delivered.push(row.position);
            } else {
                is_open = false;
                let due_at = self.next_attempt(attempts, &mut worked);
                worked.round.delayed.push(Parked { attempts, due_at, ..row });
                break;
            }
        }
        for (position, event) in fresh {
            let mut row = Parked { position, subject: subject.clone(), attempts: 0, due_at: Timestamp::NEVER };
            if is_open && Instant::now() >= ends_at {
                is_open = false;
                row.due_at = clock::now();
            } else if is_open {
                if self.attempt(webhook, position, &event, 1, &mut worked).await? {
                    continue;
                }
                is_open = false;
                row.attempts = 1;
                row.due_at = self.next_attempt(1, &mut worked);
            }
            worked.round.parked.push(row);
        }
        Ok(worked)
    }

    async fn attempt(
        &self,
        webhook: &Webhook,
        position: EventPosition,
        event: &Event,
        number: i64,
        worked: &mut Worked,
    ) -> anyhow::Result<bool> {
        let body = event_json(position, event)?;
        let now = clock::now();
        let attempt = self.sender.send(webhook, &event.id.to_string(), body, now).await;
        let succeeded = attempt.succeeded();
        let result = match (succeeded, attempt.status) {
            (true, _) => "ok",
            (false, Some(_)) => "refused",
            (false, None) => "unreachable",
        };
        self.metrics.webhook_deliveries.with_label_values(&[result]).inc();
        self.metrics.webhook_delivery_seconds.observe(attempt.latency.as_secs_f64());
        if succeeded {
            worked.succeeded += 1;
        } else {
            worked.failed += 1;
            tracing::debug!(webhook_id = %webhook.id, event_id = %event.id, attempt = number, status = attempt.status,
                error = attempt.error, "a webhook did not take an event");
        }
        if attempt.is_gone() {
            worked.stop = Some(DisabledReason::Gone);
        }
        worked.round.log.push(delivery(
            "EVENT",
            event.id.0,
            event.kind.as_str(),
            Some(position),
            number,
            &attempt,
            now,
        ));
        Ok(succeeded)
    }

    /// When to try again after so many attempts. After the last one the webhook is to be disabled.
    fn next_attempt(&self, attempts: i64, worked: &mut Worked) -> Timestamp {
        let retries = &self.options.retries;
        let number = usize::try_from(attempts - 1).unwrap_or(usize::MAX);
        if number >= retries.len() {
            worked.stop = worked.stop.or(Some(DisabledReason::Exhausted));
        }
        let delay = retries.get(number).or(retries.last()).map_or(0, |delay| delay.as_micros() as i64);
        let jitter = rand::random_range(0..=delay / 100 * JITTER_PERCENT);
        Timestamp(clock::now().0.saturating_add(delay + jitter))
    }

    async fn disable(&self, tenant: TenantId, id: WebhookId, reason: DisabledReason) -> anyhow::Result<()> {
        let now = clock::now();
        let change = Box::new(WebhookChange::Disable(reason));
        let command = Command::ChangeWebhook { webhook_id: id, change };
        let seed = clock::seed(now);
        self.engine.submit(Envelope { tenant, actor: None, command, idempotency: None, at: now, now, seed }).await?;
        self.metrics.webhooks_disabled.inc();
        tracing::warn!(webhook_id = %id, reason = reason.as_str(), "a webhook was disabled");
        Ok(())
    }
}

/// Remembers that a webhook is served, while it is.
struct Serving<'a>(&'a Mutex<HashSet<WebhookId>>, WebhookId);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// The record of an attempt.
pub fn delivery(
    kind: &'static str,
    event_id: Uuid,
    event_type: &str,
    position: Option<EventPosition>,
    attempt_number: i64,
    attempt: &Attempt,
    at: Timestamp,
) -> Delivery {
    Delivery {
        id: scrip_domain::Ids::new(clock::seed(at)).draw(),
        kind,
        event_id,
        event_type: event_type.to_owned(),
        position,
        attempt: attempt_number,
        succeeded: attempt.succeeded(),
        status: attempt.status.map(i64::from),
        error: attempt.error.clone(),
        response: attempt.response.clone(),
        latency_us: i64::try_from(attempt.latency.as_micros()).unwrap_or(i64::MAX),
        created_at: at,
    }
}
