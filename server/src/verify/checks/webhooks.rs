//! W: webhooks against their events; what is parked against the log.

use super::{Dialect, Group, check, says};

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![told(dialect), states(dialect), progress(dialect), parked(dialect)]
}

/// Every event of a webhook.
fn told(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, id, subject_id, member_id, \
        sum(CASE type WHEN 'webhook.deleted' THEN 1 ELSE 0 END) OVER (PARTITION BY tenant_id, subject_id) AS deleted, \
        sum(CASE type WHEN 'webhook.created' THEN 1 ELSE 0 END) OVER (PARTITION BY tenant_id, subject_id) AS created \
        FROM event WHERE type LIKE 'webhook.%') e \
        LEFT JOIN webhook w ON w.tenant_id = e.tenant_id AND w.id = e.subject_id";
    let checks = vec![check(
        "W1",
        "an event of a webhook names one that was made once and exists, or was deleted by one event, and no member",
        "e.created <> 1 OR e.deleted <> CASE WHEN w.id IS NULL THEN 1 ELSE 0 END OR e.member_id IS NOT NULL",
        format!(
            "{} || ' is missing, was made twice, or is there in spite of its deletion'",
            dialect.id("whk_", "e.subject_id")
        ),
    )];
    Group { with: String::new(), rows: rows.into(), owner: Some("e"), key: dialect.id("evt_", "e.id"), checks }
}

/// Every webhook beside the last event that turned it on or off.
fn states(dialect: Dialect) -> Group {
    let rows = "webhook w LEFT JOIN (SELECT tenant_id, subject_id, type, data, \
        lead(type) OVER (PARTITION BY tenant_id, subject_id ORDER BY tx, ordinal) IS NULL AS is_last FROM event \
        WHERE type IN ('webhook.created', 'webhook.enabled', 'webhook.disabled')) e \
        ON e.tenant_id = w.tenant_id AND e.subject_id = w.id AND e.is_last";
    let checks = vec![
        check("W2", "a webhook has the event that made it", "e.type IS NULL", says("no event tells of it")),
        check(
            "W3",
            "a webhook is on or off as its last event says, for the reason it says",
            "CASE WHEN e.type = 'webhook.disabled' \
             THEN e.data <> '{\"reason\":\"' || coalesce(w.disabled_reason, '') || '\"}' \
             ELSE e.type IS NOT NULL AND w.disabled_reason IS NOT NULL END",
            "coalesce(w.disabled_reason, 'enabled') || ' after ' || e.type || ' ' || e.data",
        ),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("w"), key: dialect.id("whk_", "w.id"), checks }
}

fn progress(dialect: Dialect) -> Group {
    let rows = "webhook_progress p LEFT JOIN webhook w ON w.tenant_id = p.tenant_id AND w.id = p.webhook_id";
    let checks = vec![check("W4", "progress belongs to a webhook", "w.id IS NULL", says("the webhook does not exist"))];
    Group { with: String::new(), rows: rows.into(), owner: Some("p"), key: dialect.id("whk_", "p.webhook_id"), checks }
}

/// Every parked event beside the log, the webhook's progress and the ones parked before it.
fn parked(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, webhook_id, tx, ordinal, subject, attempts, due_at, \
         row_number() OVER (PARTITION BY tenant_id, webhook_id, subject ORDER BY tx, ordinal) AS place \
         FROM webhook_parked) k \
         LEFT JOIN event e ON e.tenant_id = k.tenant_id AND e.tx = k.tx AND e.ordinal = k.ordinal \
         LEFT JOIN webhook_progress p ON p.tenant_id = k.tenant_id AND p.webhook_id = k.webhook_id";
    let subject =
        format!("CASE WHEN e.member_id IS NULL THEN {} ELSE 'm:' || e.member_id END", dialect.id("s:", "e.subject_id"));
    let never = scrip_domain::Timestamp::NEVER.0;
    let checks = vec![
        check(
            "W5",
            "a parked event is in the log, under its subject",
            format!("e.id IS NULL OR k.subject <> {subject}"),
            "k.subject || ' at ' || k.tx || ' ' || k.ordinal",
        ),
        check(
            "W6",
            "a parked event does not lie beyond the webhook's progress",
            "p.tx IS NULL OR k.tx > p.tx OR (k.tx = p.tx AND k.ordinal > p.ordinal)",
            "k.tx || ' ' || k.ordinal || ' beyond ' || coalesce(p.tx || ' ' || p.ordinal, 'nothing')",
        ),
        check(
            "W7",
            "of each subject the first parked event is due, and only that",
            format!("(k.place = 1) <> (k.due_at < {never}) OR (k.place > 1 AND k.attempts > 0)"),
            "'place ' || k.place || ', due at ' || k.due_at || ', attempts ' || k.attempts",
        ),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("k"), key: dialect.id("whk_", "k.webhook_id"), checks }
}
