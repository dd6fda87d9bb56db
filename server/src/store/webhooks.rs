//! Webhooks and the broker: how far each has come in the log, what waits behind a refused event, what was sent. What it means
//! is in [`crate::relay`].
//!
//! A round of deliveries is written in one transaction guarded by the webhook's progress as it was read: a node that has lost
//! its lease, or a rewind by an operator meanwhile, lets it write nothing.

use scrip_domain::event::Event;
use scrip_domain::webhook::Webhook;
use scrip_domain::{TenantId, Timestamp, WebhookId};
use uuid::Uuid;

use super::decode;
use super::read::EventPosition;
use super::table::{Change, Table, Type, Verb};
use super::value::{Param, Row};
use super::{Store, StoreError, Synced};

type Found<T> = Result<T, StoreError>;

/// How far a reader of the log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogProgress {
    /// Everything up to here is done with.
    pub position: EventPosition,
    /// Grows with every rewind.
    pub generation: i64,
    /// Whether the receiver answered nothing but refusals lately.
    pub down: bool,
}

/// An event that was refused, or one of the same subject behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    pub position: EventPosition,
    pub subject: String,
    /// How often it was refused.
    pub attempts: i64,
    /// `Timestamp::NEVER` behind another one of its subject.
    pub due_at: Timestamp,
}

/// What was sent to a webhook, and what came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: Uuid,
    /// EVENT, RESEND or TEST.
    pub kind: &'static str,
    pub event_id: Uuid,
    pub event_type: String,
    /// Where the event stands in the log; `None` for a test.
    pub position: Option<EventPosition>,
    pub attempt: i64,
    pub succeeded: bool,
    pub status: Option<i64>,
    pub error: Option<String>,
    pub response: String,
    pub latency_us: i64,
    pub created_at: Timestamp,
}

/// The kinds of deliveries.
pub const DELIVERY_KINDS: [&str; 3] = ["EVENT", "RESEND", "TEST"];

/// What a round of deliveries leaves.
#[derive(Debug, Default)]
pub struct Round {
    pub parked: Vec<Parked>,
    /// Parked events whose attempts or time have changed.
    pub delayed: Vec<Parked>,
    pub delivered: Vec<EventPosition>,
    pub log: Vec<Delivery>,
}

/// A webhook, and since when an event waits for it.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub tenant: TenantId,
    pub webhook: WebhookId,
    /// When the first event behind its progress was recorded.
    pub since: Option<Timestamp>,
    /// When its next parked event is due.
    pub due_at: Option<Timestamp>,
    pub parked_subjects: i64,
}

/// How a webhook stands, for those who look.
#[derive(Debug, Clone, Copy)]
pub struct WebhookStanding {
    pub position: EventPosition,
    pub waiting_since: Option<Timestamp>,
    pub parked_events: i64,
    pub next_attempt_at: Option<Timestamp>,
}

static PARKED: Table = Table {
    name: "webhook_parked",
    columns: &[
        ("tenant_id", Type::Uuid),
        ("webhook_id", Type::Uuid),
        ("tx", Type::Int),
        ("ordinal", Type::Int),
        ("subject", Type::Text),
        ("attempts", Type::Int),
        ("due_at", Type::Int),
    ],
    key: 4,
    fixed: 5,
    on_conflict: None,
};

static DELIVERY: Table = Table {
    name: "webhook_delivery",
    columns: &[
        ("tenant_id", Type::Uuid),
        ("webhook_id", Type::Uuid),
        ("id", Type::Uuid),
        ("kind", Type::Text),
        ("event_id", Type::Uuid),
        ("event_type", Type::Text),
        ("tx", Type::Int),
        ("ordinal", Type::Int),
        ("attempt", Type::Int),
        ("succeeded", Type::Bool),
        ("status", Type::Int),
        ("error", Type::Text),
        ("response", Type::Text),
        ("latency_us", Type::Int),
        ("created_at", Type::Int),
    ],
    key: 3,
    fixed: 15,
    on_conflict: None,
};

/// Moves a webhook on, unless it was moved otherwise meanwhile: then no row is written.
const ADVANCE: &str = "INSERT INTO webhook_progress (tenant_id, webhook_id, tx, ordinal, generation, down) \
     VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (tenant_id, webhook_id) DO UPDATE SET tx = excluded.tx, ordinal = excluded.ordinal, down = excluded.down \
     WHERE webhook_progress.tx = $7 AND webhook_progress.ordinal = $8 AND webhook_progress.generation = $9";
/// Puts a webhook elsewhere, whatever is under way.
const REWIND: &str = "INSERT INTO webhook_progress (tenant_id, webhook_id, tx, ordinal, generation, down) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, webhook_id) DO UPDATE SET tx = excluded.tx, \
     ordinal = excluded.ordinal, generation = excluded.generation, down = excluded.down \
     WHERE webhook_progress.generation < excluded.generation";

const PROGRESS: &str =
    "SELECT tx, ordinal, generation, down FROM webhook_progress WHERE tenant_id = $1 AND webhook_id = $2";
const PARKED_OF: &str = "SELECT tx, ordinal, subject, attempts, due_at FROM webhook_parked \
     WHERE tenant_id = $1 AND webhook_id = $2 ORDER BY tx, ordinal";
/// The first event behind a webhook's progress, and what is parked.
const STANDING: &str = "(SELECT v.recorded_at FROM event v WHERE v.tenant_id = w.tenant_id \
     AND (v.tx, v.ordinal) > (coalesce(p.tx, w.starts_tx), coalesce(p.ordinal, w.starts_ordinal)) \
     ORDER BY v.tx, v.ordinal LIMIT 1) AS since, \
     (SELECT min(k.due_at) FROM webhook_parked k WHERE k.tenant_id = w.tenant_id AND k.webhook_id = w.id) AS due_at";

/// A page, up to the place of its last row (as [`super::read::page_deletes`] says).
pub(super) const PURGE_DELIVERIES: &str = "DELETE FROM webhook_delivery WHERE tenant_id = $1 AND webhook_id = $2 AND id < $3 \
     AND id <= coalesce((SELECT id FROM webhook_delivery WHERE tenant_id = $1 AND webhook_id = $2 AND id < $3 \
     ORDER BY id LIMIT 1 OFFSET $4), $3)";

const FROM_WEBHOOK: &str =
    "FROM webhook w LEFT JOIN webhook_progress p ON p.tenant_id = w.tenant_id AND p.webhook_id = w.id";
const LAST_EVENT: &str = "SELECT tx, ordinal FROM event WHERE tenant_id = $1";

fn to_serve_sql() -> String {
    format!(
        "SELECT tenant_id, id, since, due_at, subjects FROM (SELECT w.tenant_id, w.id, {STANDING}, \
         (SELECT count(*) FROM webhook_parked k WHERE k.tenant_id = w.tenant_id AND k.webhook_id = w.id \
         AND k.due_at < {never}) AS subjects {FROM_WEBHOOK} \
         WHERE w.disabled_reason IS NULL AND (w.tenant_id, w.id) > ($1, $2)) s \
         WHERE since IS NOT NULL OR due_at < {never} ORDER BY tenant_id, id LIMIT $3",
        never = Timestamp::NEVER.0
    )
}

fn standing_sql() -> String {
    format!(
        "SELECT coalesce(p.tx, w.starts_tx), coalesce(p.ordinal, w.starts_ordinal), {STANDING}, \
         (SELECT count(*) FROM webhook_parked k WHERE k.tenant_id = w.tenant_id AND k.webhook_id = w.id) AS parked \
         {FROM_WEBHOOK} WHERE w.tenant_id = $1 AND w.id = $2"
    )
}

const DELIVERY_COLUMNS: &str = "id, kind, event_id, event_type, tx, ordinal, attempt, succeeded, status, error, response, \
                                latency_us, created_at";

fn list_deliveries_sql(by_success: bool) -> String {
    let (filter, limit) = if by_success { (" AND succeeded = $4", "$5") } else { ("", "$4") };
    format!(
        "SELECT {DELIVERY_COLUMNS} FROM webhook_delivery WHERE tenant_id = $1 AND webhook_id = $2 AND id < $3{filter} \
         ORDER BY id DESC LIMIT {limit}"
    )
}

/// The reads that the relay and the API ask all day, by name: for the test of the plans.
pub(super) fn hot_queries() -> Vec<(&'static str, String)> {
    vec![
        ("webhook_progress", PROGRESS.to_owned()),
        ("webhook_parked", PARKED_OF.to_owned()),
        ("webhook_standing", standing_sql()),
        ("list_deliveries", list_deliveries_sql(false)),
        ("last_event", format!("{LAST_EVENT} ORDER BY tx DESC, ordinal DESC LIMIT 1")),
    ]
}

fn delivery(row: &Row) -> Found<Delivery> {
    let kind = row.name(1, |text| DELIVERY_KINDS.into_iter().find(|kind| *kind == text))?;
    Ok(Delivery {
        id: row.uuid(0)?,
        kind,
        event_id: row.uuid(2)?,
        event_type: row.text(3)?,
        position: row.opt_int(4)?.zip(row.opt_int(5)?).map(|(tx, ordinal)| EventPosition { tx, ordinal }),
        attempt: row.int(6)?,
        succeeded: row.bool(7)?,
        status: row.opt_int(8)?,
        error: row.opt_text(9)?,
        response: row.text(10)?,
        latency_us: row.int(11)?,
        created_at: row.time(12)?,
    })
}

fn position_of(webhook: &Webhook) -> EventPosition {
    EventPosition { tx: webhook.starts_after.tx, ordinal: webhook.starts_after.ordinal }
}

fn parked_row<'a>(tenant: TenantId, webhook: WebhookId, row: &'a Parked) -> Vec<Param<'a>> {
    vec![
        tenant.into(),
        webhook.0.into(),
        row.position.tx.into(),
        row.position.ordinal.into(),
        row.subject.as_str().into(),
        row.attempts.into(),
        row.due_at.into(),
    ]
}

fn delivery_row(tenant: TenantId, webhook: WebhookId, row: &Delivery) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        webhook.0.into(),
        row.id.into(),
        row.kind.into(),
        row.event_id.into(),
        row.event_type.as_str().into(),
        row.position.map(|position| position.tx).into(),
        row.position.map(|position| position.ordinal).into(),
        row.attempt.into(),
        Param::Bool(row.succeeded),
        row.status.into(),
        row.error.as_deref().into(),
        row.response.as_str().into(),
        row.latency_us.into(),
        row.created_at.into(),
    ]
}

fn deletions<'a>(
    tenant: TenantId,
    webhook: WebhookId,
    positions: impl Iterator<Item = EventPosition>,
) -> Vec<Vec<Param<'a>>> {
    let row = |at: EventPosition| vec![tenant.into(), webhook.0.into(), at.tx.into(), at.ordinal.into()];
    positions.map(row).collect()
}

fn changes(tenant: TenantId, webhook: WebhookId, round: &Round) -> Vec<Change<'_>> {
    let parked = round.parked.iter().map(|row| parked_row(tenant, webhook, row)).collect();
    let delayed = round.delayed.iter().map(|row| {
        let mut row = parked_row(tenant, webhook, row);
        // What never changes is no part of an update.
        row.remove(4);
        row
    });
    let log = round.log.iter().map(|row| delivery_row(tenant, webhook, row)).collect();
    let all: [(&'static Table, Verb, Vec<Vec<Param<'_>>>); 4] = [
        (&PARKED, Verb::Delete, deletions(tenant, webhook, round.delivered.iter().copied())),
        (&PARKED, Verb::Update, delayed.collect()),
        (&PARKED, Verb::Insert, parked),
        (&DELIVERY, Verb::Insert, log),
    ];
    let some = all.into_iter().filter(|(_, _, rows)| !rows.is_empty());
    some.map(|(table, verb, rows)| Change { table, verb, rows }).collect()
}

impl Store {
    pub async fn find_webhook(&self, tenant: TenantId, id: WebhookId) -> Found<Option<Webhook>> {
        let columns = decode::WEBHOOK;
        let sql = format!("SELECT {columns} FROM webhook WHERE tenant_id = $1 AND id = $2");
        self.first(&sql, &[tenant.into(), id.0.into()], decode::webhook).await
    }

    /// A tenant's webhooks, oldest first.
    pub async fn list_webhooks(&self, tenant: TenantId, after: Option<WebhookId>, limit: i64) -> Found<Vec<Webhook>> {
        let columns = decode::WEBHOOK;
        let sql = format!("SELECT {columns} FROM webhook WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3");
        let after = after.map_or(Uuid::nil(), |id| id.0);
        self.query(&sql, &[tenant.into(), after.into(), limit.into()], decode::webhook).await
    }

    /// Where the tenant's log ends now, as readers see it.
    pub async fn last_position(&self, tenant: TenantId) -> Found<Option<EventPosition>> {
        let horizon = match self {
            Store::Sqlite(_) => "",
            Store::Postgres(_) => "AND tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint",
        };
        let sql = format!("{LAST_EVENT} {horizon} ORDER BY tx DESC, ordinal DESC LIMIT 1");
        let decode = |row: &Row| Ok(EventPosition { tx: row.int(0)?, ordinal: row.int(1)? });
        self.first(&sql, &[tenant.into()], decode).await
    }

    pub async fn find_event(&self, tenant: TenantId, at: EventPosition) -> Found<Option<Event>> {
        let columns = decode::EVENT;
        let sql = format!("SELECT {columns} FROM event WHERE tenant_id = $1 AND tx = $2 AND ordinal = $3");
        let found = self.first(&sql, &[tenant.into(), at.tx.into(), at.ordinal.into()], decode::event).await?;
        Ok(found.map(|(_, event)| event))
    }

    /// Webhooks for which an event waits or is parked, at most `limit`, by tenant and id.
    pub async fn webhooks_to_serve(&self, after: (TenantId, WebhookId), limit: i64) -> Found<Vec<Waiting>> {
        let decode = |row: &Row| {
            Ok(Waiting {
                tenant: row.tenant(0)?,
                webhook: WebhookId(row.uuid(1)?),
                since: row.opt_time(2)?,
                due_at: row.opt_time(3)?.and_then(Timestamp::known),
                parked_subjects: row.int(4)?,
            })
        };
        self.query(&to_serve_sql(), &[after.0.into(), after.1.0.into(), limit.into()], decode).await
    }

    pub async fn webhook_standing(&self, tenant: TenantId, id: WebhookId) -> Found<Option<WebhookStanding>> {
        let decode = |row: &Row| {
            Ok(WebhookStanding {
                position: EventPosition { tx: row.int(0)?, ordinal: row.int(1)? },
                waiting_since: row.opt_time(2)?,
                next_attempt_at: row.opt_time(3)?.and_then(Timestamp::known),
                parked_events: row.int(4)?,
            })
        };
        self.first(&standing_sql(), &[tenant.into(), id.0.into()], decode).await
    }

    pub async fn webhook_progress(&self, webhook: &Webhook, tenant: TenantId) -> Found<LogProgress> {
        let decode = |row: &Row| {
            let position = EventPosition { tx: row.int(0)?, ordinal: row.int(1)? };
            Ok(LogProgress { position, generation: row.int(2)?, down: row.bool(3)? })
        };
        let found = self.first(PROGRESS, &[tenant.into(), webhook.id.0.into()], decode).await?;
        Ok(found.unwrap_or(LogProgress { position: position_of(webhook), generation: 0, down: false }))
    }

    /// Everything that is parked for a webhook, in the order of the log.
    pub async fn parked_events(&self, tenant: TenantId, webhook: WebhookId) -> Found<Vec<Parked>> {
        let decode = |row: &Row| {
            let position = EventPosition { tx: row.int(0)?, ordinal: row.int(1)? };
            Ok(Parked { position, subject: row.text(2)?, attempts: row.int(3)?, due_at: row.time(4)? })
        };
        self.query(PARKED_OF, &[tenant.into(), webhook.0.into()], decode).await
    }

    /// Writes a round of deliveries. False when the webhook has been moved since `from` was read; then nothing is written.
    pub async fn finish_round(
        &self,
        tenant: TenantId,
        webhook: WebhookId,
        from: LogProgress,
        to: LogProgress,
        round: &Round,
    ) -> Found<bool> {
        let advance = [
            tenant.into(),
            webhook.0.into(),
            to.position.tx.into(),
            to.position.ordinal.into(),
            to.generation.into(),
            Param::Bool(to.down),
            from.position.tx.into(),
            from.position.ordinal.into(),
            from.generation.into(),
        ];
        self.write_after(ADVANCE, &advance, &changes(tenant, webhook, round), Synced::Later).await
    }

    /// Lets a webhook go on from another place in the log; what was parked is forgotten, since it comes again, or was given up.
    /// False when another rewind came first.
    pub async fn rewind_webhook(&self, tenant: TenantId, webhook: &Webhook, to: EventPosition) -> Found<bool> {
        let progress = self.webhook_progress(webhook, tenant).await?;
        let parked = self.parked_events(tenant, webhook.id).await?;
        let rewind = [
            tenant.into(),
            webhook.id.0.into(),
            to.tx.into(),
            to.ordinal.into(),
            (progress.generation + 1).into(),
            Param::Bool(false),
        ];
        let rows = deletions(tenant, webhook.id, parked.iter().map(|row| row.position));
        let changes: Vec<Change<'_>> =
            if rows.is_empty() { Vec::new() } else { vec![Change { table: &PARKED, verb: Verb::Delete, rows }] };
        self.write_after(REWIND, &rewind, &changes, Synced::AtOnce).await
    }

    /// Makes parked events due now, with all their attempts before them: for a webhook that is turned on again.
    pub async fn retry_parked(&self, tenant: TenantId, webhook: WebhookId, now: Timestamp) -> Found<()> {
        let sql = "UPDATE webhook_parked SET attempts = 0, due_at = $1 WHERE tenant_id = $2 AND webhook_id = $3 \
                   AND due_at < $4";
        let parameters = [now.into(), tenant.into(), webhook.0.into(), Timestamp::NEVER.into()];
        self.execute(sql, &parameters).await?;
        Ok(())
    }

    /// Keeps what was sent outside a round.
    pub async fn log_delivery(&self, tenant: TenantId, webhook: WebhookId, row: &Delivery) -> Found<()> {
        let columns: Vec<&str> = DELIVERY.columns.iter().map(|(name, _)| *name).collect();
        let places: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
        let sql = format!("INSERT INTO webhook_delivery ({}) VALUES ({})", columns.join(", "), places.join(", "));
        self.execute(&sql, &delivery_row(tenant, webhook, row)).await?;
        Ok(())
    }

    /// What was sent to a webhook, newest first.
    pub async fn list_deliveries(
        &self,
        tenant: TenantId,
        webhook: WebhookId,
        succeeded: Option<bool>,
        before: Option<Uuid>,
        limit: i64,
    ) -> Found<Vec<Delivery>> {
        let mut parameters = vec![tenant.into(), webhook.0.into(), before.unwrap_or(Uuid::max()).into()];
        parameters.extend(succeeded.map(Param::Bool));
        parameters.push(limit.into());
        self.query(&list_deliveries_sql(succeeded.is_some()), &parameters, delivery).await
    }

    /// Deletes what was sent before `before`, at most `limit`; how many there were.
    pub async fn purge_deliveries(
        &self,
        tenant: TenantId,
        webhook: WebhookId,
        before: Timestamp,
        limit: i64,
    ) -> Found<u64> {
        let unix_ms = u64::try_from(before.0 / 1_000).unwrap_or(0);
        let oldest = uuid::Builder::from_unix_timestamp_millis(unix_ms, &[0; 10]).into_uuid();
        let parameters = [tenant.into(), webhook.0.into(), oldest.into(), (limit - 1).into()];
        self.execute(PURGE_DELIVERIES, &parameters).await
    }

    async fn write_after(
        &self,
        guard: &str,
        parameters: &[Param<'_>],
        changes: &[Change<'_>],
        synced: Synced,
    ) -> Found<bool> {
        match self {
            Store::Sqlite(store) => store.write_after(guard, parameters, changes, synced),
            Store::Postgres(store) => store.write_after(guard, parameters, changes, synced).await,
        }
    }
}
