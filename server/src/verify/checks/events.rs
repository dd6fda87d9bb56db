//! E: events against what they tell of. The data of an event is compared as the text the domain writes, which needs no
//! parsing and lets nothing through.

use scrip_domain::event::EventKind;

use super::{Dialect, EARN, Group, check, differs, says};

/// The kinds that tell of a transaction.
pub const TOLD: &str = "('points.granted', 'points.debited', 'points.expired', 'points.reversed', 'points.debt_settled', 'points.transferred')";
const OF_HOLDS: &str = "('points.held', 'points.captured', 'points.released')";

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![each(dialect), steps(dialect), of_templates(dialect), windows(dialect), reminders(dialect), ids(dialect)]
}

/// Every event beside what it tells of, which is a transaction, a hold or a coupon.
fn each(dialect: Dialect) -> Group {
    let rows = format!(
        "event e \
         LEFT JOIN mkt_points_transaction t \
         ON t.tenant_id = e.tenant_id AND t.id = CASE WHEN e.type IN {TOLD} THEN e.subject_id END \
         LEFT JOIN mkt_points_hold h \
         ON h.tenant_id = e.tenant_id AND h.id = CASE WHEN e.type IN {OF_HOLDS} THEN e.subject_id END \
         LEFT JOIN mkt_user_coupon c \
         ON c.tenant_id = e.tenant_id AND c.id = CASE WHEN e.type LIKE 'coupon.%' THEN e.subject_id END \
         LEFT JOIN mkt_coupon_code_use u \
         ON u.tenant_id = e.tenant_id AND u.coupon_id = CASE WHEN e.type = 'coupon.claimed' THEN e.subject_id END \
         LEFT JOIN mkt_coupon_exchange x \
         ON x.tenant_id = e.tenant_id AND x.coupon_id = CASE WHEN e.type = 'coupon.claimed' THEN e.subject_id END \
         LEFT JOIN tenant o ON o.tenant_id = e.tenant_id \
         LEFT JOIN api_key k ON k.tenant_id = coalesce(o.parent_id, e.tenant_id) AND k.id = e.actor_id"
    );
    let kinds: Vec<String> = EventKind::ALL.iter().map(|kind| format!("'{}'", kind.as_str())).collect();
    let last_commit = match dialect {
        Dialect::Sqlite => " OR e.tx > (SELECT tx FROM commit_sequence)",
        // Its transaction numbers start anew after a logical restore.
        Dialect::Postgres => "",
    };
    let kind_of_line = format!(
        "CASE WHEN t.type IN {EARN} THEN 'points.granted' WHEN t.type = 'TRANSFER' THEN 'points.transferred' WHEN t.type = 'EXPIRE' THEN 'points.expired' \
         WHEN t.reverses_id IS NOT NULL THEN 'points.reversed' WHEN t.type = 'CLAWBACK' THEN 'points.debt_settled' \
         ELSE 'points.debited' END"
    );
    let line = "'{\"type\":\"' || t.type || '\",\"points\":' || t.points || ',\"balance_after\":' || t.balance_after \
                || ',\"sequence\":' || t.sequence || CASE WHEN t.points_forgiven = 0 THEN '' \
                ELSE ',\"points_forgiven\":' || t.points_forgiven END || '}'";
    let hold = "'{\"status\":\"' || CASE e.type WHEN 'points.held' THEN 'OPEN' ELSE h.status END || '\",\"points\":' \
                || h.points || ',\"captured\":' || CASE e.type WHEN 'points.held' THEN 0 ELSE h.captured END \
                || ',\"released\":' || CASE e.type WHEN 'points.held' THEN 0 ELSE h.released END || ',\"balance_after\":'";
    let hold_time = "CASE e.type WHEN 'points.held' THEN h.created_at ELSE h.closed_at END";
    let template = format!("'{{\"template_id\":\"' || {} || '\"'", dialect.id("tpl_", "c.template_id"));
    // The bulk's id ends the data; that it is one, and how many coupons it gave, is checked with the bulks.
    let claim = format!(
        "{template} || ',\"sequence\":' || c.sequence || CASE c.source WHEN 'DISTRIBUTION' \
         THEN ',\"bulk_id\":\"blk_' || substr(e.data, length(e.data) - 33, 32) || '\"' ELSE '' END \
         || CASE WHEN u.batch_id IS NULL THEN '' ELSE ',\"code_batch_id\":\"' || {} || '\"' END \
         || CASE WHEN x.transaction_id IS NULL THEN '' ELSE ',\"transaction_id\":\"' || {} || '\"' END || '}}'",
        dialect.id("cdb_", "u.batch_id"),
        dialect.id("ptx_", "x.transaction_id")
    );
    let receipt = format!("{template} || ',\"sequence\":' || c.sequence || ',\"from_coupon_id\":\"cpn_'");
    let extension = dialect.number("e.data", "valid_until_unix_us");
    let never = scrip_domain::Timestamp::NEVER.0;
    let stranger =
        |prefix| format!("e.type || ': ' || {} || ' is none of this member'", dialect.id(prefix, "e.subject_id"));
    let told = |prefix, data: &str, time: &str| {
        let subject = dialect.id(prefix, "e.subject_id");
        format!(
            "{subject} || ': ' || {}",
            differs("it", "e.data || ' at ' || e.occurred_at", &format!("{data} || ' at ' || {time}"))
        )
    };
    let checks = vec![
        check(
            "E5",
            "an event of a coupon names one of that member",
            "e.type LIKE 'coupon.%' AND (c.id IS NULL OR c.member_id IS DISTINCT FROM e.member_id)",
            stranger("cpn_"),
        ),
        check(
            "E6",
            "an event of a transaction names one of that member",
            format!("e.type IN {TOLD} AND (t.id IS NULL OR t.member_id IS DISTINCT FROM e.member_id)"),
            stranger("ptx_"),
        ),
        check(
            "E7",
            "an event of a hold names one of that member",
            format!("e.type IN {OF_HOLDS} AND (h.id IS NULL OR h.member_id IS DISTINCT FROM e.member_id)"),
            stranger("hold_"),
        ),
        check(
            "E8",
            "an event's data can be read",
            // What is compared as text needs no look at its form.
            format!("e.type NOT IN {TOLD} AND NOT ({})", dialect.is_event_data("e.data")),
            says("its data is no JSON object"),
        ),
        check(
            "E9",
            "an event of a transaction tells its type, points, balance and times",
            format!(
                "t.id IS NOT NULL AND (e.type <> {kind_of_line} OR e.data <> {line} OR e.occurred_at <> t.occurred_at \
                 OR e.recorded_at <> t.recorded_at)"
            ),
            told("ptx_", line, "t.occurred_at"),
        ),
        check(
            "E10",
            "an event of a hold tells its points and when it began or ended",
            format!(
                "h.id IS NOT NULL AND (substr(e.data, 1, length({hold})) <> {hold} OR e.occurred_at IS DISTINCT FROM {hold_time})"
            ),
            told("hold_", hold, hold_time),
        ),
        check(
            "E11",
            "a coupon's claim and end are told with their time",
            format!(
                "CASE e.type WHEN 'coupon.claimed' THEN e.data <> {claim} OR e.occurred_at <> c.claimed_at \
                 WHEN 'coupon.received' THEN substr(e.data, 1, length({receipt})) <> {receipt} \
                 WHEN 'coupon.extended' THEN coalesce({extension}, {never}) > c.valid_until \
                 WHEN 'coupon.expired' THEN e.data <> {template} || '}}' OR e.occurred_at < c.valid_until \
                 WHEN 'coupon.compensation_needed' THEN e.occurred_at < c.valid_until ELSE false END"
            ),
            differs("it", "e.data || ' at ' || e.occurred_at", "c.claimed_at || ' to ' || c.valid_until"),
        ),
        check(
            "E24",
            "an event of a coupon names its template",
            format!("c.id IS NOT NULL AND substr(e.data, 1, length({template})) <> {template}"),
            differs("it", "e.data", &template),
        ),
        check("E15", "every kind of event is known", format!("e.type NOT IN ({})", kinds.join(", ")), "e.type"),
        check(
            "E16",
            "an event's actor is a key of its tenant, or of the tenant whose program that is",
            "e.actor_id IS NOT NULL AND k.id IS NULL",
            says("the key does not exist"),
        ),
        check(
            "E21",
            "an event has a position in the log, and was not recorded before it happened",
            format!("e.tx < 1 OR e.ordinal < 0 OR e.recorded_at < e.occurred_at{last_commit}"),
            "'position ' || e.tx || ' ' || e.ordinal || ', occurred at ' || e.occurred_at || ', recorded at ' \
             || e.recorded_at",
        ),
    ];
    Group { with: String::new(), rows, owner: Some("e"), key: dialect.id("evt_", "e.id"), checks }
}

/// A coupon's life, without its extensions: each of its events beside the one before, and the coupon the last one leaves.
fn steps(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, id, subject_id, type, data, occurred_at, lag(type) OVER w AS prior, \
        lag(data) OVER w AS prior_data, lead(id) OVER w IS NULL AS is_last FROM event \
        WHERE type LIKE 'coupon.%' AND type <> 'coupon.extended' \
        WINDOW w AS (PARTITION BY tenant_id, subject_id ORDER BY tx, ordinal)) e \
        LEFT JOIN mkt_user_coupon c ON c.tenant_id = e.tenant_id AND c.id = e.subject_id";
    let event = dialect.id("evt_", "e.id");
    let order = format!(
        "'{{\"template_id\":\"' || {} || '\",\"order_id\":' || {} \
         || coalesce(',\"discount_amount\":' || c.discount_amount, '') || '}}'",
        dialect.id("tpl_", "c.template_id"),
        dialect.quoted("c.order_id")
    );
    let checks = vec![
        check(
            "E2",
            "a coupon's status is what its last event says",
            "e.is_last AND c.status <> CASE e.type WHEN 'coupon.locked' THEN 'LOCKED' WHEN 'coupon.used' THEN 'USED' \
             WHEN 'coupon.revoked' THEN 'REVOKED' WHEN 'coupon.transferred' THEN 'REVOKED' WHEN 'coupon.expired' THEN 'EXPIRED' \
             WHEN 'coupon.compensation_needed' THEN 'EXPIRED' WHEN 'coupon.compensation_closed' THEN 'EXPIRED' ELSE 'AVAILABLE' END",
            "c.status || ' after ' || e.type",
        ),
        check(
            "E12",
            "a coupon takes only the steps it may take",
            "CASE e.type WHEN 'coupon.claimed' THEN e.prior IS NOT NULL WHEN 'coupon.received' THEN e.prior IS NOT NULL \
             WHEN 'coupon.used' THEN e.prior IS DISTINCT FROM 'coupon.locked' \
             WHEN 'coupon.unlocked' THEN e.prior IS DISTINCT FROM 'coupon.locked' \
             WHEN 'coupon.returned' THEN e.prior IS DISTINCT FROM 'coupon.used' \
             WHEN 'coupon.compensation_needed' THEN e.prior IS DISTINCT FROM 'coupon.used' \
             WHEN 'coupon.compensation_closed' THEN e.prior IS DISTINCT FROM 'coupon.compensation_needed' \
             ELSE e.prior IS NULL OR e.prior NOT IN ('coupon.claimed', 'coupon.received', 'coupon.unlocked', 'coupon.returned') END",
            format!("{event} || ': ' || e.type || ' after ' || coalesce(e.prior, 'nothing')"),
        ),
        check(
            "E13",
            "a coupon is used, unlocked and returned for the order it was locked for",
            // The template and the order but for the last brace: a use may go on with a discount.
            "CASE WHEN e.prior = 'coupon.locked' THEN \
             substr(e.data, 1, length(e.prior_data) - 1) <> substr(e.prior_data, 1, length(e.prior_data) - 1) \
             OR (e.type = 'coupon.unlocked' AND e.data <> e.prior_data) \
             WHEN e.prior = 'coupon.used' THEN \
             substr(e.prior_data, 1, length(e.data) - 1) <> substr(e.data, 1, length(e.data) - 1) ELSE false END",
            format!("{event} || ': ' || e.data || ' after ' || e.prior_data"),
        ),
        check(
            "E14",
            "a locked or used coupon's last event tells its order, its discount and the time of use",
            format!(
                "e.is_last AND c.status IN ('LOCKED', 'USED') AND (e.data <> {order} OR e.occurred_at <> c.used_at)"
            ),
            format!("{event} || ': ' || {}", differs("it", "e.data || ' at ' || e.occurred_at", &order)),
        ),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("e"), key: dialect.id("cpn_", "e.subject_id"), checks }
}

fn of_templates(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, id, subject_id, member_id, \
        sum(CASE type WHEN 'coupon_template.deleted' THEN 1 ELSE 0 END) OVER (PARTITION BY tenant_id, subject_id) AS deleted \
        FROM event WHERE type LIKE 'coupon_template.%') e \
        LEFT JOIN mkt_coupon_template t ON t.tenant_id = e.tenant_id AND t.id = e.subject_id";
    let checks = vec![check(
        "E23",
        "an event of a template names one that exists, or was deleted by one event, and no member",
        "e.deleted <> CASE WHEN t.id IS NULL THEN 1 ELSE 0 END OR e.member_id IS NOT NULL",
        says("its template is missing, or there in spite of its deletion"),
    )];
    Group { with: String::new(), rows: rows.into(), owner: Some("e"), key: dialect.id("evt_", "e.id"), checks }
}

/// The bounds of issue windows: each told once, when it had passed.
fn windows(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, min(id) AS id, subject_id, type, occurred_at, count(*) AS n, \
        min(recorded_at) AS recorded_at, max(data) AS data FROM event \
        WHERE type IN ('coupon_template.started', 'coupon_template.ended') \
        GROUP BY tenant_id, subject_id, type, occurred_at) e \
        LEFT JOIN template_window w ON w.tenant_id = e.tenant_id";
    let rows = match dialect {
        Dialect::Sqlite => rows.to_owned(),
        Dialect::Postgres => rows.replace("min(id) AS id", "min(id::text)::uuid AS id"),
    };
    let checks = vec![check(
        "E31",
        "a bound of an issue window is told once, after it and up to the cursor",
        "e.n <> 1 OR e.data <> '{}' OR w.announced_until IS NULL OR e.occurred_at > w.announced_until",
        "e.type || ' at ' || e.occurred_at || ', told ' || e.n || ' times'",
    )];
    Group { with: String::new(), rows, owner: Some("e"), key: dialect.id("evt_", "e.id"), checks }
}

/// Lots that were told of before they expired.
fn reminders(dialect: Dialect) -> Group {
    let (days, ends) = (dialect.number("data", "days_before"), dialect.number("data", "expires_at_unix_us"));
    let rows = format!(
        "(SELECT tenant_id, min(id) AS id, subject_id, {days} AS days, {ends} AS ends, count(*) AS n, max(member_id) AS member_id, \
         max(data) AS data, max(occurred_at) AS occurred_at FROM event WHERE type = 'points.expiring' \
         GROUP BY tenant_id, subject_id, {days}, {ends}) e \
         LEFT JOIN mkt_points_lot l ON l.tenant_id = e.tenant_id AND l.id = e.subject_id \
         LEFT JOIN points_reminder r ON r.tenant_id = e.tenant_id AND r.days_before = e.days"
    );
    let rows = match dialect {
        Dialect::Sqlite => rows,
        Dialect::Postgres => rows.replace("min(id) AS id", "min(id::text)::uuid AS id"),
    };
    let told = "'{\"days_before\":' || e.days || ',\"expires_at_unix_us\":' || e.ends || ',\"points\":'";
    let checks = vec![check(
        "E32",
        "a reminder tells of a member's lot before it expires, once for each end it has had, and up to the cursor",
        format!(
            "e.n <> 1 OR l.id IS NULL OR l.member_id IS DISTINCT FROM e.member_id OR e.ends IS NULL \
             OR e.ends > l.expires_at OR (l.idle_days IS NULL AND e.ends < l.expires_at) OR e.occurred_at >= e.ends \
             OR r.expires_at IS NULL OR r.expires_at < e.ends OR substr(e.data, 1, length({told})) <> {told}"
        ),
        format!("{} || ': ' || e.data || ', told ' || e.n || ' times'", dialect.id("lot_", "e.subject_id")),
    )];
    Group { with: String::new(), rows, owner: Some("e"), key: dialect.id("evt_", "e.id"), checks }
}

fn ids(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, id, count(*) AS n FROM event GROUP BY tenant_id, id) e";
    let checks = vec![check("E22", "an event's id is its own", "e.n <> 1", "e.n || ' events have it'")];
    Group { with: String::new(), rows: rows.into(), owner: Some("e"), key: dialect.id("evt_", "e.id"), checks }
}
