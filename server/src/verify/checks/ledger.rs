//! T: the lines of the ledger, each against the one before it, and against what it names.

use scrip_domain::points::MILESTONE;

use super::accounts::sums;
use super::events::TOLD;
use super::{Dialect, EARN, Group, USE, check, differs, equal, says};

/// Every line beside what stood before it. Read in the index's order, so nothing is sorted.
const CHAIN: &str = "(SELECT tenant_id, id, member_id, sequence, type, points, balance_before, balance_after, frozen_after, \
    debt_after, points_forgiven, rules_version, reference, remark, hold_id, reverses_id, counterpart_id, lot_id, allocations, \
    expires_at, occurred_at, recorded_at, \
    coalesce(lead(balance_after) OVER w, 0) AS balance, coalesce(lead(frozen_after) OVER w, 0) AS frozen, \
    coalesce(lead(debt_after) OVER w, 0) AS debt, coalesce(lead(sequence) OVER w, 0) AS preceding \
    FROM mkt_points_transaction WINDOW w AS (PARTITION BY tenant_id, member_id ORDER BY sequence DESC))";

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![lines(dialect), milestones(dialect), allocations(dialect), reversals(dialect)]
}

/// True for what takes points that a hold had set aside.
fn is_capture() -> String {
    format!("(t.type IN {USE} AND t.hold_id IS NOT NULL)")
}

/// True for a claw-back of a grant, which asks the tenant's rules.
const OF_GRANT: &str = "(t.type = 'CLAWBACK' AND t.reverses_id IS NOT NULL)";

const OF_OPERATOR: &str = "(t.type IN ('EARN_ADMIN', 'DEDUCT_ADMIN'))";

/// When the rules are asked for that hold for a line.
const ASKED_AT: &str = "(CASE t.type WHEN 'CLAWBACK' THEN t.occurred_at ELSE t.recorded_at END)";

/// How long a command may have waited between its time and its decision, by the clocks of two nodes: whoever asked the rules in
/// between may have got those before, in microseconds.
const PATIENCE: i64 = 600_000_000;

/// Every version of rules, the one before all others included, with when it was made known and from when another held in its place:
/// of those that come after it in the order of `rules_at`, the first that was known and effective.
fn known_rules(dialect: Dialect) -> String {
    format!(
        "WITH known AS MATERIALIZED (SELECT tenant_id, version, effective_from, rules, known_at, \
         min(CASE WHEN effective_from > known_at THEN effective_from ELSE known_at END) \
          OVER (PARTITION BY tenant_id ORDER BY effective_from DESC, version DESC \
          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS superseded_at FROM \
         (SELECT r.tenant_id, r.version, r.effective_from, r.rules, coalesce(e.recorded_at, {never}) AS known_at \
          FROM mkt_points_rule r LEFT JOIN (SELECT tenant_id, {version} AS version, max(recorded_at) AS recorded_at FROM event \
           WHERE type = 'points_rules.changed' GROUP BY tenant_id, {version}) e \
          ON e.tenant_id = r.tenant_id AND e.version = r.version \
          UNION ALL SELECT tenant_id, 0, -{never}, '', -{never} FROM tenant) r)",
        never = i64::MAX,
        version = dialect.number("data", "version")
    )
}

/// True for rules by which a claw-back forgives what it does not find.
const FORGIVES: &str = r#"(coalesce(v.rules, '') LIKE '%"debt_policy":"FORGIVE"%')"#;

fn lines(dialect: Dialect) -> Group {
    let rows = format!(
        "{CHAIN} t \
         LEFT JOIN mkt_points_account a ON a.tenant_id = t.tenant_id AND a.member_id = t.member_id \
         LEFT JOIN mkt_points_transaction o ON o.tenant_id = t.tenant_id AND o.id = t.reverses_id \
         LEFT JOIN mkt_points_reversal r ON r.tenant_id = t.tenant_id AND r.transaction_id = t.reverses_id \
         LEFT JOIN mkt_points_hold h ON h.tenant_id = t.tenant_id AND h.id = t.hold_id \
         LEFT JOIN mkt_points_lot l ON l.tenant_id = t.tenant_id AND l.id = t.lot_id \
         LEFT JOIN mkt_points_transaction c ON c.tenant_id = t.tenant_id AND c.id = t.counterpart_id \
         LEFT JOIN mkt_points_transaction p ON p.tenant_id = c.tenant_id AND p.member_id = c.member_id \
          AND p.sequence = c.sequence - 1 \
         LEFT JOIN known v ON v.tenant_id = t.tenant_id AND v.version = t.rules_version \
         LEFT JOIN mkt_points_transaction b ON b.tenant_id = t.tenant_id AND b.member_id = t.member_id \
          AND b.sequence = CASE WHEN ({OF_GRANT} OR {OF_OPERATOR}) AND t.rules_version IS NULL THEN 1 END \
         LEFT JOIN mkt_points_adjustment d ON d.tenant_id = t.tenant_id AND d.status = 'APPROVED' \
          AND d.transaction_id = CASE WHEN {OF_OPERATOR} THEN t.id END \
         LEFT JOIN (SELECT tenant_id, subject_id, count(*) AS n FROM event WHERE type IN {TOLD} \
          GROUP BY tenant_id, subject_id) e ON e.tenant_id = t.tenant_id AND e.subject_id = t.id"
    );
    let capture = is_capture();
    let change = format!("(CASE WHEN {capture} THEN 0 ELSE t.points END)");
    let frozen = format!(
        "(t.frozen + CASE WHEN t.type IN ('HOLD', 'RELEASE') THEN -t.points WHEN {capture} THEN t.points ELSE 0 END)"
    );
    // How many points one key may move alone; NULL for any number.
    let limit = match dialect {
        Dialect::Sqlite => "(CASE WHEN json_valid(v.rules) THEN v.rules ->> '$.points.approval_above' END)".to_owned(),
        Dialect::Postgres => dialect.number("v.rules", "approval_above"),
    };
    let allocated = dialect.allocated("t");
    let expected_parts = format!("(CASE WHEN t.type IN {EARN} THEN 0 ELSE abs(t.points) END)");
    let checks = vec![
        equal("T4", "each balance continues the one before", "balance_before", "t.balance_before", "t.balance"),
        equal("T5", "sequences have no gaps", "sequence", "t.sequence", "(t.preceding + 1)"),
        equal(
            "T6",
            "the balance changes by the points, except for a capture",
            "the change",
            "(t.balance_after - t.balance_before)",
            &change,
        ),
        check(
            "T7",
            "points come in positive and go out negative",
            format!(
                "CASE WHEN t.type IN {EARN} OR t.type IN ('RELEASE', 'REFUND') THEN t.points <= 0 \
                 WHEN t.type = 'CLAWBACK' THEN t.points > 0 WHEN t.type = 'TRANSFER' THEN false \
                 WHEN t.type IN {USE} OR t.type IN ('HOLD', 'EXPIRE', 'DEDUCT_ADMIN') THEN t.points >= 0 ELSE true END"
            ),
            "t.type || ' of ' || t.points",
        ),
        equal(
            "T8",
            "a transaction's allocations add up to its points",
            "the sum of allocations",
            &allocated,
            &expected_parts,
        ),
        check(
            "T11",
            "a transaction has an account",
            "a.member_id IS NULL",
            "'member ' || t.member_id || ' has no account'",
        ),
        check(
            "T12",
            "a reversal names a transaction of the same member that can be reversed",
            format!(
                "t.reverses_id IS NOT NULL AND (o.id IS NULL OR o.member_id <> t.member_id OR NOT (\
                 (t.type = 'CLAWBACK' AND o.type IN {EARN}) OR \
                 (t.type = 'REFUND' AND (o.type IN {USE} OR o.type = 'DEDUCT_ADMIN')) OR \
                 (t.type = 'TRANSFER' AND o.type = 'TRANSFER' AND o.reverses_id IS NULL AND (o.points < 0) = (t.points > 0))))"
            ),
            says("it reverses nothing that can be reversed"),
        ),
        check(
            "T14",
            "every reversal is counted",
            "t.reverses_id IS NOT NULL AND r.transaction_id IS NULL",
            format!("'no count of what was reversed of ' || {}", dialect.id("ptx_", "t.reverses_id")),
        ),
        check(
            "T15",
            "a grant names the lot it made",
            format!(
                "t.type IN {EARN} AND (l.id IS NULL OR l.transaction_id <> t.id OR l.points <> t.points \
                 OR l.member_id <> t.member_id OR coalesce(t.expires_at, {never}) > l.expires_at \
                 OR (l.idle_days IS NULL AND coalesce(t.expires_at, {never}) < l.expires_at))",
                never = i64::MAX
            ),
            format!("'its lot is missing or another: ' || {}", dialect.id("lot_", "t.lot_id")),
        ),
        equal("T16", "each frozen balance continues the one before", "frozen_after", "t.frozen_after", &frozen),
        check(
            "T17",
            "debt grows only by a claw-back of a grant, shrinks only by settling it, and goes along in a merge",
            "CASE WHEN t.type = 'CLAWBACK' AND t.reverses_id IS NOT NULL THEN t.debt_after < t.debt \
             WHEN t.type = 'CLAWBACK' THEN t.debt_after <> t.debt + t.points \
             WHEN t.type = 'TRANSFER' AND c.id IS NOT NULL \
             THEN t.debt_after - t.debt <> coalesce(p.debt_after, 0) - c.debt_after ELSE t.debt_after <> t.debt END",
            "'debt_after is ' || t.debt_after || ' after ' || t.debt",
        ),
        check(
            "T18",
            "a transaction names what its type requires, and nothing else",
            format!(
                "(t.lot_id IS NULL AND t.type IN {EARN}) \
                 OR (t.lot_id IS NOT NULL AND t.type NOT IN {EARN} AND t.type <> 'REFUND') \
                 OR (t.hold_id IS NULL AND t.type IN ('HOLD', 'RELEASE')) \
                 OR (t.hold_id IS NOT NULL AND t.type NOT IN ('HOLD', 'RELEASE') AND t.type NOT IN {USE}) \
                 OR (t.reverses_id IS NULL AND (t.type = 'REFUND' OR (t.type = 'CLAWBACK' AND t.points = 0))) \
                 OR (t.reverses_id IS NOT NULL AND t.type NOT IN ('REFUND', 'CLAWBACK', 'TRANSFER')) \
                 OR (t.counterpart_id IS NOT NULL) <> (t.type = 'TRANSFER') \
                 OR (t.expires_at IS NOT NULL AND t.type NOT IN {EARN})"
            ),
            "'a ' || t.type || ' lacks a reference, or has one too many'",
        ),
        check(
            "T25",
            "the two lines of a transfer name each other, and one gives what the other gets",
            "t.counterpart_id IS NOT NULL AND (c.id IS NULL OR c.counterpart_id IS DISTINCT FROM t.id \
             OR c.points <> -t.points OR c.member_id = t.member_id OR c.occurred_at <> t.occurred_at \
             OR (c.reverses_id IS NULL) <> (t.reverses_id IS NULL))",
            differs("the points of the other line", "c.points", "-t.points"),
        ),
        check(
            "T19",
            "nothing is recorded before it happens",
            "t.recorded_at < t.occurred_at",
            differs("recorded_at", "t.recorded_at", "t.occurred_at || ' or later'"),
        ),
        check(
            "T20",
            "a refund names the grace lot it made",
            "t.type = 'REFUND' AND t.lot_id IS NOT NULL \
             AND (l.id IS NULL OR l.transaction_id <> t.id OR l.member_id <> t.member_id)",
            says("its grace lot is missing or another"),
        ),
        check(
            "T21",
            "a line of a hold or of a reversal carries its reference",
            format!(
                "(t.type = 'HOLD' OR {capture}) AND h.id IS NOT NULL \
                 AND (t.reference IS DISTINCT FROM h.reference OR t.remark IS DISTINCT FROM h.remark) \
                 OR o.id IS NOT NULL AND t.reference IS DISTINCT FROM o.reference"
            ),
            differs("reference", "t.reference", "coalesce(h.reference, o.reference)"),
        ),
        check(
            "T22",
            "a transaction's allocations can be read",
            format!("NOT ({})", dialect.is_allocations("t.allocations")),
            says("its allocations are no list of lots and points"),
        ),
        check(
            "T26",
            "a claw-back of a grant, and what an operator moved, name the rules they asked, unless imported; nothing else does",
            // All lines of an import were recorded with its first.
            format!(
                "CASE WHEN t.rules_version IS NULL THEN ({OF_GRANT} OR {OF_OPERATOR}) \
                 AND b.recorded_at IS DISTINCT FROM t.recorded_at \
                 ELSE NOT ({OF_GRANT} OR {OF_OPERATOR}) OR v.version IS NULL END"
            ),
            differs("its version of the rules", "t.rules_version", "'another'"),
        ),
        check(
            "T27",
            "what a claw-back did not find is forgiven or owed, as its rules say; of a merged account it is owed",
            format!(
                "CASE WHEN t.points_forgiven <> 0 THEN t.points_forgiven < 0 OR NOT {OF_GRANT} OR NOT {FORGIVES} \
                 OR t.debt_after <> t.debt WHEN {OF_GRANT} AND t.debt_after > t.debt \
                 THEN {FORGIVES} AND a.merged_into IS NULL ELSE false END"
            ),
            "t.points_forgiven || ' forgiven, ' || (t.debt_after - t.debt) || ' owed, by version ' \
             || coalesce(t.rules_version, 0)",
        ),
        check(
            "T28",
            "what an operator moved is no more than the rules let one key move alone, or another key has approved it",
            format!("{OF_OPERATOR} AND d.id IS NULL AND abs(t.points) > {limit}"),
            format!("t.points || ' without an approval, which is needed above ' || {limit}"),
        ),
        check(
            "T29",
            "the rules that a line has asked were known, and held",
            format!(
                "v.effective_from > {ASKED_AT} OR v.known_at > t.recorded_at + {PATIENCE} \
                 OR v.superseded_at < {ASKED_AT} - {PATIENCE}"
            ),
            format!(
                "'version ' || t.rules_version || ', asked at ' || {ASKED_AT} || ', holds from ' || v.effective_from \
                 || ' to ' || coalesce(v.superseded_at, {})",
                i64::MAX
            ),
        ),
        equal(
            "E3",
            "every transaction outside holds is told by one event",
            "the count of events",
            "coalesce(e.n, 0)",
            "CASE WHEN t.hold_id IS NULL THEN 1 ELSE 0 END",
        ),
        check(
            "H6",
            "a transaction's hold exists and is the same member's",
            "t.hold_id IS NOT NULL AND (h.id IS NULL OR h.member_id <> t.member_id)",
            format!("{} || ' is no hold of this member'", dialect.id("hold_", "t.hold_id")),
        ),
    ];
    Group { with: known_rules(dialect), rows, owner: Some("t"), key: dialect.id("ptx_", "t.id"), checks }
}

/// The lines that bear totals, beside what all lines up to them add up to. One that lacks them costs time, and is no fault.
fn milestones(dialect: Dialect) -> Group {
    let number = |name: &str| format!("CAST(sum(b.{name}) OVER w AS BIGINT)");
    let rows = format!(
        "mkt_points_transaction t LEFT JOIN (SELECT b.tenant_id, b.member_id, b.sequence, {} AS total_points, {} AS used, \
         {} AS expired, {} AS revoked FROM (SELECT t.tenant_id, t.member_id, max(t.sequence) AS sequence, {} \
          FROM mkt_points_transaction t LEFT JOIN mkt_points_transaction o \
          ON o.tenant_id = t.tenant_id AND o.id = t.reverses_id AND o.type = 'DEDUCT_ADMIN' \
          GROUP BY t.tenant_id, t.member_id, (t.sequence - 1) / {MILESTONE}) b \
         WINDOW w AS (PARTITION BY b.tenant_id, b.member_id ORDER BY b.sequence)) s \
         ON s.tenant_id = t.tenant_id AND s.member_id = t.member_id AND s.sequence = t.sequence",
        number("total_points"),
        number("used"),
        number("expired"),
        number("revoked"),
        sums(),
    );
    let shown =
        "'{\"t\":' || s.total_points || ',\"u\":' || s.used || ',\"e\":' || s.expired || ',\"r\":' || s.revoked || '}'";
    let checks = vec![check(
        "T30",
        "a milestone bears what the lines up to it add up to",
        format!(
            "t.totals IS NOT NULL AND (t.sequence % {MILESTONE} <> 0 OR s.sequence IS NULL OR t.totals <> {shown})"
        ),
        differs("the totals", "t.totals", shown),
    )];
    Group { with: String::new(), rows, owner: Some("t"), key: dialect.id("ptx_", "t.id"), checks }
}

fn allocations(dialect: Dialect) -> Group {
    let columns = "t.tenant_id, t.id, t.member_id, t.type, t.points, t.hold_id, t.occurred_at";
    let rows = format!(
        "{} t LEFT JOIN mkt_points_lot l ON l.tenant_id = t.tenant_id AND l.id = t.lot_part \
         LEFT JOIN mkt_points_hold h ON h.tenant_id = t.tenant_id AND h.id = CASE t.type WHEN 'HOLD' THEN t.hold_id END",
        dialect.allocations(columns, "mkt_points_transaction")
    );
    let spends = format!("((t.type IN {USE} AND t.hold_id IS NULL) OR t.type IN ('HOLD', 'DEDUCT_ADMIN'))");
    let checks = vec![
        check(
            "T9",
            "points are taken from lots that could be spent then",
            format!(
                "({spends} AND (l.expires_at <= t.occurred_at \
                 OR (l.available_from > t.occurred_at AND NOT coalesce(h.pending, false)))) \
                 OR (t.type = 'TRANSFER' AND t.points < 0 AND l.expires_at <= t.occurred_at)"
            ),
            says("a lot was not spendable at that time"),
        ),
        check(
            "T10",
            "allocations name lots of the same member",
            "l.id IS NULL OR l.member_id <> t.member_id",
            format!("{} || ' is no lot of this member'", dialect.id("lot_", "t.lot_part")),
        ),
        check(
            "T23",
            "points expire from lots that had expired",
            "t.type = 'EXPIRE' AND l.expires_at > t.occurred_at",
            says("the lot had not expired then"),
        ),
    ];
    Group { with: String::new(), rows, owner: Some("t"), key: dialect.id("ptx_", "t.id"), checks }
}

fn reversals(dialect: Dialect) -> Group {
    // What a claw-back could not take it has forgiven, or it became debt: the difference to the line before.
    let rows = format!(
        "mkt_points_reversal r LEFT JOIN \
         (SELECT t.tenant_id, t.reverses_id, sum(abs(t.points) + CASE t.type WHEN 'CLAWBACK' \
          THEN t.debt_after - coalesce(p.debt_after, 0) + t.points_forgiven ELSE 0 END) AS points \
          FROM mkt_points_transaction t LEFT JOIN mkt_points_transaction p \
          ON p.tenant_id = t.tenant_id AND p.member_id = t.member_id AND p.sequence = t.sequence - 1 \
          WHERE t.reverses_id IS NOT NULL GROUP BY t.tenant_id, t.reverses_id) u \
         ON u.tenant_id = r.tenant_id AND u.reverses_id = r.transaction_id \
         LEFT JOIN mkt_points_transaction o ON o.tenant_id = r.tenant_id AND o.id = r.transaction_id \
         AND (o.type IN {EARN} OR o.type IN {USE} OR o.type IN ('DEDUCT_ADMIN', 'TRANSFER'))"
    );
    let checks = vec![
        check(
            "T13",
            "what was reversed is what the reversals undid, what is owed or forgiven included, and never more than there was",
            "r.reversed <> coalesce(u.points, 0) OR r.reversed > r.points",
            differs("reversed", "r.reversed", "coalesce(u.points, 0) || ' of ' || r.points"),
        ),
        equal("T24", "a count of reversals bears its original's points", "points", "r.points", "abs(o.points)"),
    ];
    Group { with: String::new(), rows, owner: Some("r"), key: dialect.id("ptx_", "r.transaction_id"), checks }
}
