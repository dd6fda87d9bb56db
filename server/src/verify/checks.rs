//! The invariants, each as a statement that returns its violations: `tenant_id`, `key`, `detail`.

use uuid::Uuid;

/// Where the stores' SQL differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

/// One invariant.
pub struct Check {
    pub id: &'static str,
    pub title: &'static str,
    pub sql: String,
}

pub(super) const TABLES: [&str; 13] = [
    "tenant",
    "api_key",
    "mkt_coupon_template",
    "mkt_coupon_template_version",
    "mkt_coupon_template_use",
    "mkt_user_coupon",
    "mkt_points_account",
    "mkt_points_lot",
    "mkt_points_transaction",
    "mkt_points_hold",
    "mkt_points_reversal",
    "event",
    "idempotency",
];

/// The indexes that hot queries and uniqueness rest on.
const INDEXES: [&str; 18] = [
    "idx_template_tenant_status",
    "idx_template_tenant_type",
    "idx_template_distribution_time",
    "uq_user_coupon_sequence",
    "idx_user_coupon_member",
    "idx_user_coupon_template",
    "idx_user_coupon_expire",
    "idx_user_coupon_lock",
    "idx_points_account_member",
    "idx_points_account_total",
    "idx_points_lot_open",
    "idx_points_lot_expire",
    "idx_points_transaction_member",
    "idx_points_transaction_type",
    "idx_points_transaction_expire",
    "idx_points_hold_member",
    "idx_points_hold_expire",
    "idx_idempotency_created",
];

impl Dialect {
    /// A UUID column as an id's public text.
    fn id(self, prefix: &str, column: &str) -> String {
        match self {
            Dialect::Sqlite => format!("'{prefix}' || lower(hex({column}))"),
            Dialect::Postgres => format!("'{prefix}' || replace({column}::text, '-', '')"),
        }
    }

    pub(super) fn literal(self, id: Uuid) -> String {
        match self {
            Dialect::Sqlite => format!("x'{}'", id.simple()),
            Dialect::Postgres => format!("'{id}'::uuid"),
        }
    }

    /// A relation of allocations: every column of `table` as `t.*`, beside `lot_id` and `part`.
    fn allocations(self, table: &str) -> String {
        match self {
            Dialect::Sqlite => format!(
                "(SELECT t.*, unhex(substr(a.value ->> 'l', 5)) AS lot_part, a.value ->> 'p' AS part \
                 FROM {table} t, json_each(t.allocations) a)"
            ),
            Dialect::Postgres => format!(
                "(SELECT t.*, substr(a.value ->> 'l', 5)::uuid AS lot_part, (a.value ->> 'p')::bigint AS part \
                 FROM {table} t CROSS JOIN LATERAL json_array_elements(t.allocations::json) AS a(value))"
            ),
        }
    }

    /// A number inside a definition.
    fn limit_of(self, column: &str) -> String {
        match self {
            Dialect::Sqlite => format!("({column} ->> 'limit_per_member')"),
            Dialect::Postgres => format!("({column}::json ->> 'limit_per_member')::bigint"),
        }
    }
}

const EARN: &str = "('EARN_ORDER', 'EARN_CHECKIN', 'EARN_TASK', 'EARN_ADMIN')";
const USE: &str = "('USE_ORDER', 'USE_COUPON', 'USE_PRODUCT')";

/// Every check, cheap ones first.
///
/// Inner joins are written `CROSS JOIN ... WHERE`: to PostgreSQL that is the same, while SQLite then keeps the order, which
/// it would otherwise turn round to walk all of a tenant's rows for each row.
pub fn checks(dialect: Dialect) -> Vec<Check> {
    let mut all = Vec::new();
    let mut add = |id, title, sql: String| all.push(Check { id, title, sql });
    structure(dialect, &mut add);
    accounts(&mut add);
    ledger(dialect, &mut add);
    lots(dialect, &mut add);
    holds(dialect, &mut add);
    coupons(dialect, &mut add);
    events(dialect, &mut add);
    all
}

type Add<'a> = &'a mut dyn FnMut(&'static str, &'static str, String);

/// "`left` is there, `right` was expected", for a detail column.
fn differs(name: &str, left: &str, right: &str) -> String {
    format!("'{name} is ' || {left} || ', expected ' || {right}")
}

fn structure(dialect: Dialect, add: Add<'_>) {
    let names = INDEXES.map(|name| format!("SELECT '{name}' AS name")).join(" UNION ALL ");
    let nobody = match dialect {
        Dialect::Sqlite => "NULL",
        Dialect::Postgres => "NULL::uuid",
    };
    let existing = match dialect {
        Dialect::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'index'",
        Dialect::Postgres => {
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND i.indisvalid AND i.indisready"
        }
    };
    add(
        "X1",
        "every index exists and is valid",
        format!(
            "SELECT {nobody} AS tenant_id, w.name AS key, 'the index is missing or invalid' AS detail \
             FROM ({names}) w WHERE w.name NOT IN ({existing})"
        ),
    );
    if dialect == Dialect::Sqlite {
        add(
            "X2",
            "the database file is sound",
            "SELECT NULL AS tenant_id, 'integrity_check' AS key, integrity_check AS detail \
             FROM pragma_integrity_check WHERE integrity_check <> 'ok'"
                .into(),
        );
    } else {
        add(
            "X2",
            "every constraint is validated",
            "SELECT NULL::uuid AS tenant_id, conname::text AS key, 'the constraint is not validated' AS detail \
             FROM pg_constraint WHERE connamespace = current_schema()::regnamespace AND NOT convalidated"
                .into(),
        );
    }
    let orphans = TABLES.iter().filter(|table| !matches!(**table, "tenant" | "idempotency" | "event")).map(|table| {
        format!(
            "SELECT DISTINCT r.tenant_id, '{table}' AS key, 'rows of a tenant that does not exist' AS detail \
             FROM {table} r WHERE NOT EXISTS (SELECT 1 FROM tenant t WHERE t.tenant_id = r.tenant_id)"
        )
    });
    add("X3", "every row belongs to a tenant", orphans.collect::<Vec<_>>().join(" UNION ALL "));
    add(
        "X4",
        "recorded outcomes are readable",
        "SELECT tenant_id, 'created at ' || created_at AS key, 'the recorded outcome is no outcome' AS detail \
         FROM idempotency WHERE outcome NOT LIKE '{\"%}' AND outcome <> '\"Deleted\"'"
            .into(),
    );
}

fn accounts(add: Add<'_>) {
    add(
        "P1",
        "total_points = available + frozen + used + expired + revoked",
        format!(
            "SELECT tenant_id, member_id AS key, {} AS detail FROM mkt_points_account \
             WHERE total_points <> available + frozen + used + expired + revoked",
            differs("total_points", "total_points", "(available + frozen + used + expired + revoked)")
        ),
    );
    add(
        "P2",
        "no column of an account is negative",
        "SELECT tenant_id, member_id AS key, 'a column is negative' AS detail FROM mkt_points_account \
         WHERE available < 0 OR frozen < 0 OR used < 0 OR expired < 0 OR revoked < 0 OR debt < 0"
            .into(),
    );
    let sums = "(SELECT tenant_id, member_id, sum(remaining) AS available, sum(held) AS frozen, sum(used) AS used, \
                sum(expired) AS expired, sum(revoked) AS revoked, sum(points - moved) AS total_points \
                FROM mkt_points_lot GROUP BY tenant_id, member_id)";
    let of_lots = [
        ("P3", "available = sum of the lots' remaining", "available"),
        ("P4", "frozen = sum of the lots' held", "frozen"),
        ("P5", "used = sum of the lots' used", "used"),
        ("P6", "expired = sum of the lots' expired", "expired"),
        ("P7", "revoked = sum of the lots' revoked", "revoked"),
        ("P8", "total_points = sum of the lots, without what was moved", "total_points"),
    ];
    for (id, title, column) in of_lots {
        let expected = format!("coalesce(l.{column}, 0)");
        let detail = differs(column, &format!("a.{column}"), &expected);
        add(
            id,
            title,
            format!(
                "SELECT a.tenant_id, a.member_id AS key, {detail} AS detail FROM mkt_points_account a \
                 LEFT JOIN {sums} l ON l.tenant_id = a.tenant_id AND l.member_id = a.member_id \
                 WHERE a.{column} <> {expected}"
            ),
        );
    }
    add(
        "P9",
        "the sequence counts the account's transactions, without gaps",
        format!(
            "SELECT a.tenant_id, a.member_id AS key, {} AS detail FROM mkt_points_account a LEFT JOIN \
             (SELECT tenant_id, member_id, count(*) AS n, max(sequence) AS last FROM mkt_points_transaction \
              GROUP BY tenant_id, member_id) t ON t.tenant_id = a.tenant_id AND t.member_id = a.member_id \
             WHERE a.sequence <> coalesce(t.n, 0) OR a.sequence <> coalesce(t.last, 0)",
            differs("sequence", "a.sequence", "coalesce(t.n, 0) || ' transactions up to ' || coalesce(t.last, 0)")
        ),
    );
    let by_type = format!(
        "(SELECT t.tenant_id, t.member_id, \
          sum(CASE WHEN t.type IN {EARN} THEN t.points ELSE 0 END) AS total_points, \
          sum(CASE WHEN t.type IN {USE} THEN -t.points WHEN t.type = 'REFUND' AND o.type <> 'DEDUCT_ADMIN' \
              THEN -t.points ELSE 0 END) AS used, \
          sum(CASE WHEN t.type = 'EXPIRE' THEN -t.points ELSE 0 END) AS expired, \
          sum(CASE WHEN t.type IN ('CLAWBACK', 'DEDUCT_ADMIN') THEN -t.points \
              WHEN t.type = 'REFUND' AND o.type = 'DEDUCT_ADMIN' THEN -t.points ELSE 0 END) AS revoked, \
          sum(CASE WHEN t.type IN ('HOLD', 'RELEASE') THEN -t.points \
              WHEN t.type IN {USE} AND t.hold_id IS NOT NULL THEN t.points ELSE 0 END) AS frozen \
          FROM mkt_points_transaction t LEFT JOIN mkt_points_transaction o \
          ON o.tenant_id = t.tenant_id AND o.id = t.reverses_id GROUP BY t.tenant_id, t.member_id)"
    );
    let of_ledger = [
        ("P10", "total_points = what the ledger earned", "total_points"),
        ("P11", "used = what the ledger used and did not refund", "used"),
        ("P12", "expired = what the ledger expired", "expired"),
        ("P13", "revoked = what the ledger took back", "revoked"),
        ("P14", "frozen = what the ledger holds", "frozen"),
    ];
    for (id, title, column) in of_ledger {
        let expected = format!("coalesce(t.{column}, 0)");
        let detail = differs(column, &format!("a.{column}"), &expected);
        add(
            id,
            title,
            format!(
                "SELECT a.tenant_id, a.member_id AS key, {detail} AS detail FROM mkt_points_account a \
                 LEFT JOIN {by_type} t ON t.tenant_id = a.tenant_id AND t.member_id = a.member_id \
                 WHERE a.{column} <> {expected}"
            ),
        );
    }
}

fn ledger(dialect: Dialect, add: Add<'_>) {
    let key = dialect.id("ptx_", "t.id");
    let last = "FROM mkt_points_account a CROSS JOIN mkt_points_transaction t \
                WHERE t.tenant_id = a.tenant_id AND t.member_id = a.member_id AND t.sequence = a.sequence";
    for (id, title, column, after) in [
        ("T1", "available = the last transaction's balance", "available", "balance_after"),
        ("T2", "frozen = the last transaction's", "frozen", "frozen_after"),
        ("T3", "debt = the last transaction's", "debt", "debt_after"),
    ] {
        let detail = differs(column, &format!("a.{column}"), &format!("t.{after}"));
        let sql =
            format!("SELECT a.tenant_id, a.member_id AS key, {detail} AS detail {last} AND a.{column} <> t.{after}");
        add(id, title, sql);
    }
    let chain = "(SELECT tenant_id, id, member_id, sequence, type, points, balance_before, balance_after, debt_after, \
                 hold_id, reverses_id, \
                 lag(balance_after, 1, 0) OVER w AS previous, lag(debt_after, 1, 0) OVER w AS previous_debt, \
                 lag(sequence, 1, 0) OVER w AS previous_sequence FROM mkt_points_transaction \
                 WINDOW w AS (PARTITION BY tenant_id, member_id ORDER BY sequence))";
    add(
        "T4",
        "each balance continues the one before",
        format!(
            "SELECT t.tenant_id, {key} AS key, {} AS detail FROM {chain} t WHERE t.balance_before <> t.previous",
            differs("balance_before", "t.balance_before", "t.previous")
        ),
    );
    add(
        "T5",
        "sequences have no gaps",
        format!(
            "SELECT t.tenant_id, {key} AS key, {} AS detail FROM {chain} t WHERE t.sequence <> t.previous_sequence + 1",
            differs("sequence", "t.sequence", "(t.previous_sequence + 1)")
        ),
    );
    add(
        "T6",
        "the balance changes by the points, except for a capture",
        format!(
            "SELECT t.tenant_id, {key} AS key, {} AS detail FROM mkt_points_transaction t \
             WHERE t.balance_after - t.balance_before <> \
             CASE WHEN t.hold_id IS NOT NULL AND t.type IN {USE} THEN 0 ELSE t.points END",
            differs("the change", "(t.balance_after - t.balance_before)", "t.points")
        ),
    );
    add(
        "T7",
        "points come in positive and go out negative",
        format!(
            "SELECT t.tenant_id, {key} AS key, t.type || ' of ' || t.points AS detail FROM mkt_points_transaction t \
             WHERE (t.type IN {EARN} AND t.points <= 0) OR (t.type IN ('RELEASE', 'REFUND') AND t.points <= 0) \
             OR (t.type IN {USE} AND t.points >= 0) OR (t.type IN ('HOLD', 'EXPIRE', 'DEDUCT_ADMIN') AND t.points >= 0) \
             OR (t.type = 'CLAWBACK' AND t.points > 0)"
        ),
    );
    let allocated = dialect.allocations("mkt_points_transaction");
    add(
        "T8",
        "a transaction's allocations add up to its points",
        format!(
            "SELECT t.tenant_id, {key} AS key, {} AS detail FROM mkt_points_transaction t LEFT JOIN \
             (SELECT x.tenant_id, x.id, sum(x.part) AS parts FROM {allocated} x GROUP BY x.tenant_id, x.id) s \
             ON s.tenant_id = t.tenant_id AND s.id = t.id \
             WHERE t.type NOT IN {EARN} AND coalesce(s.parts, 0) <> abs(t.points)",
            differs("the sum of allocations", "coalesce(s.parts, 0)", "abs(t.points)")
        ),
    );
    add(
        "T9",
        "points are taken from lots that could be spent then",
        format!(
            "SELECT t.tenant_id, {key} AS key, 'a lot was not spendable at that time' AS detail FROM {allocated} t \
             CROSS JOIN mkt_points_lot l WHERE l.tenant_id = t.tenant_id AND l.id = t.lot_part \
             AND t.points < 0 AND t.type NOT IN ('EXPIRE', 'CLAWBACK') \
             AND NOT (t.hold_id IS NOT NULL AND t.type IN {USE}) \
             AND (l.expires_at <= t.occurred_at OR l.available_from > t.occurred_at)"
        ),
    );
    add(
        "T10",
        "allocations name lots of the same member",
        format!(
            "SELECT t.tenant_id, {key} AS key, 'an allocation names no lot of this member' AS detail \
             FROM {allocated} t LEFT JOIN mkt_points_lot l ON l.tenant_id = t.tenant_id AND l.id = t.lot_part \
             WHERE l.id IS NULL OR l.member_id <> t.member_id"
        ),
    );
    add(
        "T11",
        "a transaction has an account",
        format!(
            "SELECT t.tenant_id, {key} AS key, 'member ' || t.member_id || ' has no account' AS detail \
             FROM mkt_points_transaction t LEFT JOIN mkt_points_account a \
             ON a.tenant_id = t.tenant_id AND a.member_id = t.member_id WHERE a.member_id IS NULL"
        ),
    );
    add(
        "T12",
        "a reversal names a transaction of the same member that can be reversed",
        format!(
            "SELECT t.tenant_id, {key} AS key, 'it reverses nothing that can be reversed' AS detail \
             FROM mkt_points_transaction t LEFT JOIN mkt_points_transaction o \
             ON o.tenant_id = t.tenant_id AND o.id = t.reverses_id WHERE t.reverses_id IS NOT NULL \
             AND (o.id IS NULL OR o.member_id <> t.member_id OR NOT (\
              (t.type = 'CLAWBACK' AND o.type IN {EARN}) OR \
              (t.type = 'REFUND' AND (o.type IN {USE} OR o.type = 'DEDUCT_ADMIN'))))"
        ),
    );
    let of_reversal = dialect.id("ptx_", "r.transaction_id");
    add(
        "T13",
        "what was reversed is what the reversals undid, debt included, and never more than there was",
        format!(
            "SELECT r.tenant_id, {of_reversal} AS key, {} AS detail FROM mkt_points_reversal r LEFT JOIN \
             (SELECT t.tenant_id, t.reverses_id, sum(abs(t.points) + CASE WHEN t.type = 'CLAWBACK' \
              THEN t.debt_after - t.previous_debt ELSE 0 END) AS undone FROM {chain} t \
              WHERE t.reverses_id IS NOT NULL GROUP BY t.tenant_id, t.reverses_id) u \
             ON u.tenant_id = r.tenant_id AND u.reverses_id = r.transaction_id \
             LEFT JOIN mkt_points_transaction o ON o.tenant_id = r.tenant_id AND o.id = r.transaction_id \
             WHERE r.reversed <> coalesce(u.undone, 0) OR o.id IS NULL OR r.points <> abs(o.points) \
             OR r.reversed > r.points",
            differs("reversed", "r.reversed", "coalesce(u.undone, 0)")
        ),
    );
    add(
        "T14",
        "every reversal is counted",
        format!(
            "SELECT t.tenant_id, {key} AS key, 'its original has no count of what was reversed' AS detail \
             FROM mkt_points_transaction t LEFT JOIN mkt_points_reversal r \
             ON r.tenant_id = t.tenant_id AND r.transaction_id = t.reverses_id \
             WHERE t.reverses_id IS NOT NULL AND r.transaction_id IS NULL"
        ),
    );
    add(
        "T15",
        "a grant names the lot it made",
        format!(
            "SELECT t.tenant_id, {key} AS key, 'its lot is missing or another' AS detail FROM mkt_points_transaction t \
             LEFT JOIN mkt_points_lot l ON l.tenant_id = t.tenant_id AND l.id = t.lot_id \
             WHERE t.type IN {EARN} AND (l.id IS NULL OR l.transaction_id <> t.id OR l.points <> t.points \
             OR l.member_id <> t.member_id OR coalesce(t.expires_at, {never}) <> l.expires_at)",
            never = i64::MAX
        ),
    );
}

fn lots(dialect: Dialect, add: Add<'_>) {
    let key = dialect.id("lot_", "l.id");
    add(
        "L1",
        "points = remaining + held + used + expired + revoked + moved, none negative",
        format!(
            "SELECT l.tenant_id, {key} AS key, {} AS detail FROM mkt_points_lot l \
             WHERE l.points <> l.remaining + l.held + l.used + l.expired + l.revoked + l.moved OR l.remaining < 0 \
             OR l.held < 0 OR l.used < 0 OR l.expired < 0 OR l.revoked < 0 OR l.moved < 0",
            differs("points", "l.points", "(l.remaining + l.held + l.used + l.expired + l.revoked + l.moved)")
        ),
    );
    add(
        "L2",
        "a lot is open while anything is left or held",
        format!(
            "SELECT l.tenant_id, {key} AS key, 'open is wrong' AS detail FROM mkt_points_lot l \
             WHERE l.open <> (l.remaining > 0 OR l.held > 0)"
        ),
    );
    add(
        "L3",
        "a lot has an account",
        format!(
            "SELECT l.tenant_id, {key} AS key, 'member ' || l.member_id || ' has no account' AS detail \
             FROM mkt_points_lot l LEFT JOIN mkt_points_account a \
             ON a.tenant_id = l.tenant_id AND a.member_id = l.member_id WHERE a.member_id IS NULL"
        ),
    );
    add(
        "L4",
        "a lot names the transaction that made it",
        format!(
            "SELECT l.tenant_id, {key} AS key, 'no transaction made it' AS detail FROM mkt_points_lot l \
             LEFT JOIN mkt_points_transaction t ON t.tenant_id = l.tenant_id AND t.id = l.transaction_id \
             WHERE t.id IS NULL OR t.lot_id IS NULL OR t.lot_id <> l.id OR t.member_id <> l.member_id"
        ),
    );
    let allocated = dialect.allocations("mkt_points_transaction");
    let by_lot = format!(
        "(SELECT x.tenant_id, x.lot_part, \
          sum(CASE WHEN x.type IN {USE} OR x.type IN ('DEDUCT_ADMIN', 'CLAWBACK') THEN x.part \
              WHEN x.type = 'REFUND' AND (x.lot_id IS NULL OR x.lot_id <> x.lot_part) THEN -x.part ELSE 0 END) AS gone, \
          sum(CASE WHEN x.type = 'EXPIRE' THEN x.part ELSE 0 END) AS expired, \
          sum(CASE WHEN x.type = 'HOLD' THEN x.part WHEN x.type = 'RELEASE' THEN -x.part \
              WHEN x.type IN {USE} AND x.hold_id IS NOT NULL THEN -x.part ELSE 0 END) AS held \
          FROM {allocated} x GROUP BY x.tenant_id, x.lot_part)"
    );
    for (id, title, column, sum) in [
        (
            "L5",
            "used, revoked and moved are what the ledger took and did not give back",
            "(l.used + l.revoked + l.moved)",
            "gone",
        ),
        ("L6", "expired is what the ledger expired", "l.expired", "expired"),
        ("L7", "held is what the ledger holds", "l.held", "held"),
    ] {
        let expected = format!("coalesce(s.{sum}, 0)");
        add(
            id,
            title,
            format!(
                "SELECT l.tenant_id, {key} AS key, {} AS detail FROM mkt_points_lot l LEFT JOIN {by_lot} s \
                 ON s.tenant_id = l.tenant_id AND s.lot_part = l.id WHERE {column} <> {expected}",
                differs(sum, column, &expected)
            ),
        );
    }
    let holds = dialect.allocations("mkt_points_hold");
    add(
        "L8",
        "held is what open holds hold",
        format!(
            "SELECT l.tenant_id, {key} AS key, {} AS detail FROM mkt_points_lot l LEFT JOIN \
             (SELECT h.tenant_id, h.lot_part, sum(h.part) AS held FROM {holds} h WHERE h.status = 'OPEN' \
              GROUP BY h.tenant_id, h.lot_part) s ON s.tenant_id = l.tenant_id AND s.lot_part = l.id \
             WHERE l.held <> coalesce(s.held, 0)",
            differs("held", "l.held", "coalesce(s.held, 0)")
        ),
    );
}

fn holds(dialect: Dialect, add: Add<'_>) {
    let key = dialect.id("hold_", "h.id");
    add(
        "H1",
        "a hold ends once: captured and released make up its points",
        format!(
            "SELECT h.tenant_id, {key} AS key, h.status || ', captured ' || h.captured || ', released ' || h.released \
             AS detail FROM mkt_points_hold h WHERE (h.status = 'OPEN' AND (h.captured <> 0 OR h.released <> 0 \
             OR h.closed_at IS NOT NULL)) OR (h.status <> 'OPEN' AND (h.captured + h.released <> h.points \
             OR h.closed_at IS NULL)) OR (h.status IN ('RELEASED', 'EXPIRED') AND h.captured <> 0) \
             OR (h.status = 'CAPTURED' AND h.captured = 0)"
        ),
    );
    let allocated = dialect.allocations("mkt_points_hold");
    add(
        "H2",
        "a hold's allocations add up to its points",
        format!(
            "SELECT h.tenant_id, {key} AS key, {} AS detail FROM mkt_points_hold h LEFT JOIN \
             (SELECT x.tenant_id, x.id, sum(x.part) AS parts FROM {allocated} x GROUP BY x.tenant_id, x.id) s \
             ON s.tenant_id = h.tenant_id AND s.id = h.id WHERE h.points <> coalesce(s.parts, 0)",
            differs("the sum of allocations", "coalesce(s.parts, 0)", "h.points")
        ),
    );
    let lines = format!(
        "(SELECT t.tenant_id, t.hold_id, \
          sum(CASE WHEN t.type = 'HOLD' THEN -t.points ELSE 0 END) AS points, \
          sum(CASE WHEN t.type IN {USE} THEN -t.points ELSE 0 END) AS captured, \
          sum(CASE WHEN t.type = 'RELEASE' THEN t.points ELSE 0 END) AS released \
          FROM mkt_points_transaction t WHERE t.hold_id IS NOT NULL GROUP BY t.tenant_id, t.hold_id)"
    );
    for (id, title, column) in [
        ("H3", "a hold's points are in the ledger", "points"),
        ("H4", "what a hold captured is in the ledger", "captured"),
        ("H5", "what a hold released is in the ledger", "released"),
    ] {
        let expected = format!("coalesce(s.{column}, 0)");
        add(
            id,
            title,
            format!(
                "SELECT h.tenant_id, {key} AS key, {} AS detail FROM mkt_points_hold h LEFT JOIN {lines} s \
                 ON s.tenant_id = h.tenant_id AND s.hold_id = h.id WHERE h.{column} <> {expected}",
                differs(column, &format!("h.{column}"), &expected)
            ),
        );
    }
    let line = dialect.id("ptx_", "t.id");
    add(
        "H6",
        "a transaction's hold exists and is the same member's",
        format!(
            "SELECT t.tenant_id, {line} AS key, 'it names no hold of this member' AS detail \
             FROM mkt_points_transaction t LEFT JOIN mkt_points_hold h ON h.tenant_id = t.tenant_id AND h.id = t.hold_id \
             WHERE t.hold_id IS NOT NULL AND (h.id IS NULL OR h.member_id <> t.member_id)"
        ),
    );
}

fn coupons(dialect: Dialect, add: Add<'_>) {
    let template = dialect.id("tpl_", "t.id");
    let coupon = dialect.id("cpn_", "c.id");
    add(
        "C1",
        "stock: total = remaining + claimed, nothing negative",
        format!(
            "SELECT t.tenant_id, {template} AS key, {} AS detail FROM mkt_coupon_template t \
             WHERE t.remaining_stock < 0 OR t.total_stock <> t.remaining_stock + t.claimed_count \
             OR (t.total_stock IS NULL) <> (t.remaining_stock IS NULL)",
            differs(
                "total_stock",
                "coalesce(t.total_stock, -1)",
                "(coalesce(t.remaining_stock, -1) + t.claimed_count)"
            )
        ),
    );
    let counts = "(SELECT tenant_id, template_id, count(*) AS claimed, \
                  sum(CASE WHEN status = 'USED' THEN 1 ELSE 0 END) AS used \
                  FROM mkt_user_coupon GROUP BY tenant_id, template_id)";
    add(
        "C2",
        "claimed_count counts the coupons",
        format!(
            "SELECT t.tenant_id, {template} AS key, {} AS detail FROM mkt_coupon_template t LEFT JOIN {counts} n \
             ON n.tenant_id = t.tenant_id AND n.template_id = t.id WHERE t.claimed_count <> coalesce(n.claimed, 0)",
            differs("claimed_count", "t.claimed_count", "coalesce(n.claimed, 0)")
        ),
    );
    add(
        "C3",
        "the count of uses counts the used coupons",
        format!(
            "SELECT t.tenant_id, {template} AS key, {} AS detail FROM mkt_coupon_template t LEFT JOIN {counts} n \
             ON n.tenant_id = t.tenant_id AND n.template_id = t.id LEFT JOIN \
             (SELECT tenant_id, template_id, sum(used_count) AS used FROM mkt_coupon_template_use \
              GROUP BY tenant_id, template_id) u ON u.tenant_id = t.tenant_id AND u.template_id = t.id \
             WHERE coalesce(u.used, 0) <> coalesce(n.used, 0)",
            differs("used_count", "coalesce(u.used, 0)", "coalesce(n.used, 0)")
        ),
    );
    let limit = dialect.limit_of("definition");
    add(
        "C4",
        "a member's coupons of a template are numbered without gaps",
        "SELECT tenant_id, member_id AS key, 'has ' || count(*) || ' coupons of a template, numbered up to ' || \
         max(sequence) AS detail FROM mkt_user_coupon GROUP BY tenant_id, template_id, member_id \
         HAVING count(*) <> max(sequence) OR min(sequence) <> 1 OR count(DISTINCT sequence) <> count(*)"
            .into(),
    );
    add(
        "C5",
        "no member has more coupons than any version of the template allowed",
        format!(
            "SELECT c.tenant_id, c.member_id AS key, 'has ' || c.n || ' coupons, allowed are ' || v.allowed AS detail \
             FROM (SELECT tenant_id, template_id, member_id, count(*) AS n FROM mkt_user_coupon \
             GROUP BY tenant_id, template_id, member_id) c JOIN (SELECT tenant_id, template_id, max({limit}) AS allowed \
             FROM mkt_coupon_template_version GROUP BY tenant_id, template_id) v \
             ON v.tenant_id = c.tenant_id AND v.template_id = c.template_id WHERE c.n > v.allowed"
        ),
    );
    add(
        "C6",
        "a coupon's version exists",
        format!(
            "SELECT c.tenant_id, {coupon} AS key, 'version ' || c.template_version || ' does not exist' AS detail \
             FROM mkt_user_coupon c LEFT JOIN mkt_coupon_template_version v ON v.tenant_id = c.tenant_id \
             AND v.template_id = c.template_id AND v.version = c.template_version WHERE v.version IS NULL"
        ),
    );
    add(
        "C7",
        "a template's current version exists",
        format!(
            "SELECT t.tenant_id, {template} AS key, 'version ' || t.version || ' does not exist' AS detail \
             FROM mkt_coupon_template t LEFT JOIN mkt_coupon_template_version v ON v.tenant_id = t.tenant_id \
             AND v.template_id = t.id AND v.version = t.version WHERE v.version IS NULL"
        ),
    );
    add(
        "C8",
        "a coupon's columns fit its status",
        format!(
            "SELECT c.tenant_id, {coupon} AS key, 'the order or the time of use does not fit ' || c.status AS detail \
             FROM mkt_user_coupon c WHERE (c.status IN ('LOCKED', 'USED')) <> (c.order_id IS NOT NULL) \
             OR (c.status = 'USED') <> (c.used_at IS NOT NULL) \
             OR (c.locked_until IS NOT NULL AND c.status <> 'LOCKED')"
        ),
    );
}

fn events(dialect: Dialect, add: Add<'_>) {
    let coupon = dialect.id("cpn_", "c.id");
    let line = dialect.id("ptx_", "t.id");
    let hold = dialect.id("hold_", "h.id");
    let counted = |kind: &str| {
        format!(
            "(SELECT tenant_id, subject_id, count(*) AS n FROM event WHERE type {kind} GROUP BY tenant_id, subject_id)"
        )
    };
    add(
        "E1",
        "every coupon was claimed by one event",
        format!(
            "SELECT c.tenant_id, {coupon} AS key, coalesce(e.n, 0) || ' claimed events' AS detail \
             FROM mkt_user_coupon c LEFT JOIN {} e ON e.tenant_id = c.tenant_id AND e.subject_id = c.id \
             WHERE coalesce(e.n, 0) <> 1",
            counted("= 'coupon.claimed'")
        ),
    );
    let last = "(SELECT tenant_id, subject_id, type, row_number() OVER (PARTITION BY tenant_id, subject_id \
                ORDER BY tx DESC, ordinal DESC) AS n FROM event WHERE type LIKE 'coupon.%')";
    add(
        "E2",
        "a coupon's status is what its last event says",
        format!(
            "SELECT c.tenant_id, {coupon} AS key, c.status || ' after ' || e.type AS detail FROM mkt_user_coupon c \
             JOIN {last} e ON e.tenant_id = c.tenant_id AND e.subject_id = c.id AND e.n = 1 WHERE c.status <> \
             CASE e.type WHEN 'coupon.claimed' THEN 'AVAILABLE' WHEN 'coupon.locked' THEN 'LOCKED' \
             WHEN 'coupon.used' THEN 'USED' WHEN 'coupon.unlocked' THEN 'AVAILABLE' \
             WHEN 'coupon.returned' THEN 'AVAILABLE' WHEN 'coupon.revoked' THEN 'REVOKED' ELSE 'EXPIRED' END"
        ),
    );
    let told =
        counted("IN ('points.granted', 'points.debited', 'points.expired', 'points.reversed', 'points.debt_settled')");
    add(
        "E3",
        "every transaction outside holds is told by one event",
        format!(
            "SELECT t.tenant_id, {line} AS key, coalesce(e.n, 0) || ' events tell of it' AS detail \
             FROM mkt_points_transaction t LEFT JOIN {told} e ON e.tenant_id = t.tenant_id AND e.subject_id = t.id \
             WHERE coalesce(e.n, 0) <> CASE WHEN t.hold_id IS NULL THEN 1 ELSE 0 END"
        ),
    );
    add(
        "E4",
        "every hold is told by one event, and its end by another",
        format!(
            "SELECT h.tenant_id, {hold} AS key, coalesce(e.n, 0) || ' events tell of it' AS detail \
             FROM mkt_points_hold h LEFT JOIN {} e ON e.tenant_id = h.tenant_id AND e.subject_id = h.id \
             WHERE coalesce(e.n, 0) <> CASE WHEN h.status = 'OPEN' THEN 1 ELSE 2 END",
            counted("IN ('points.held', 'points.captured', 'points.released')")
        ),
    );
    let event = dialect.id("evt_", "e.id");
    for (id, title, kinds, table) in [
        ("E5", "an event of a coupon names one of that member", "LIKE 'coupon.%'", "mkt_user_coupon"),
        (
            "E6",
            "an event of a transaction names one of that member",
            "IN ('points.granted', 'points.debited', 'points.expired', 'points.reversed', 'points.debt_settled')",
            "mkt_points_transaction",
        ),
        (
            "E7",
            "an event of a hold names one of that member",
            "IN ('points.held', 'points.captured', 'points.released')",
            "mkt_points_hold",
        ),
    ] {
        add(
            id,
            title,
            format!(
                "SELECT e.tenant_id, {event} AS key, e.type || ' names nothing of this member' AS detail FROM event e \
                 LEFT JOIN {table} r ON r.tenant_id = e.tenant_id AND r.id = e.subject_id \
                 WHERE e.type {kinds} AND (r.id IS NULL OR r.member_id <> e.member_id)"
            ),
        );
    }
}
