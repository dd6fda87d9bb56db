//! L: a lot against what made it and against everything the ledger took from it and gave back.

use super::{Check, Dialect, Group, USE, check, differs, equal, plus_days, says};

/// For each lot what lines took from it and gave back to it; `made` is what a refund put into a grace lot of its own.
fn taken(dialect: Dialect) -> String {
    let columns = "t.tenant_id, t.type, t.points, t.hold_id, t.reverses_id, t.lot_id";
    format!(
        "(SELECT x.tenant_id, x.lot_part, \
         sum(CASE WHEN x.type IN {USE} THEN x.part ELSE 0 END) AS used, \
         sum(CASE WHEN x.type IN ('DEDUCT_ADMIN', 'CLAWBACK') THEN x.part ELSE 0 END) AS revoked, \
         sum(CASE WHEN x.type = 'EXPIRE' THEN x.part ELSE 0 END) AS expired, \
         sum(CASE WHEN x.type = 'HOLD' THEN x.part WHEN x.type = 'RELEASE' THEN -x.part \
             WHEN x.type IN {USE} AND x.hold_id IS NOT NULL THEN -x.part ELSE 0 END) AS held, \
         sum(CASE WHEN x.type = 'REFUND' AND x.lot_id IS DISTINCT FROM x.lot_part THEN x.part ELSE 0 END) AS restored, \
         sum(CASE WHEN x.type = 'REFUND' AND x.lot_id = x.lot_part THEN x.part ELSE 0 END) AS made, \
         sum(CASE WHEN x.type = 'TRANSFER' AND x.points > 0 AND x.reverses_id IS NULL THEN x.part ELSE 0 END) AS got, \
         sum(CASE WHEN x.type <> 'TRANSFER' THEN 0 WHEN x.points < 0 THEN x.part \
             WHEN x.reverses_id IS NOT NULL THEN -x.part ELSE 0 END) AS given \
         FROM {} x GROUP BY x.tenant_id, x.lot_part)",
        dialect.allocations(columns, "mkt_points_transaction")
    )
}

/// For each lot what refunds undid of the debits that took from it. A debit is undone from its first allocation on, so what
/// all its refunds undid of one part is what they leave once the parts before it are undone.
fn undone(dialect: Dialect) -> String {
    let refunded = "(SELECT o.tenant_id, o.id, o.type, o.allocations, f.points FROM \
        (SELECT tenant_id, reverses_id, sum(points) AS points FROM mkt_points_transaction WHERE type = 'REFUND' \
         GROUP BY tenant_id, reverses_id) f CROSS JOIN mkt_points_transaction o \
        WHERE o.tenant_id = f.tenant_id AND o.id = f.reverses_id)";
    format!(
        "(SELECT y.tenant_id, y.lot_part, sum(CASE y.type WHEN 'DEDUCT_ADMIN' THEN 0 ELSE y.undone END) AS used, \
         sum(CASE y.type WHEN 'DEDUCT_ADMIN' THEN y.undone ELSE 0 END) AS revoked FROM \
         (SELECT x.tenant_id, x.lot_part, x.type, CASE WHEN x.points >= x.upto THEN x.part \
          WHEN x.points <= x.upto - x.part THEN 0 ELSE x.points - (x.upto - x.part) END AS undone FROM \
          (SELECT tenant_id, lot_part, type, points, part, \
           sum(part) OVER (PARTITION BY tenant_id, id ORDER BY place) AS upto FROM {} z) x) y \
         GROUP BY y.tenant_id, y.lot_part)",
        dialect.allocations("t.tenant_id, t.id, t.type, t.points", refunded)
    )
}

/// The last activity of every member that has had idle lots.
const ACTIVE: &str = "(SELECT x.tenant_id, x.member_id, max(x.occurred_at) AS at FROM \
    (SELECT DISTINCT tenant_id, member_id FROM mkt_points_lot WHERE idle_days IS NOT NULL) d \
    CROSS JOIN mkt_points_transaction x WHERE x.tenant_id = d.tenant_id AND x.member_id = d.member_id \
    AND x.type IN ('EARN_ORDER', 'EARN_CHECKIN', 'EARN_TASK', 'USE_ORDER', 'USE_COUPON', 'USE_PRODUCT') \
    GROUP BY x.tenant_id, x.member_id)";

pub fn group(dialect: Dialect) -> Group {
    let open_holds = "(SELECT * FROM mkt_points_hold WHERE status = 'OPEN')";
    let rows = format!(
        "mkt_points_lot l \
         LEFT JOIN mkt_points_account a ON a.tenant_id = l.tenant_id AND a.member_id = l.member_id \
         LEFT JOIN mkt_points_transaction t ON t.tenant_id = l.tenant_id AND t.id = l.transaction_id \
         LEFT JOIN tenant n ON n.tenant_id = l.tenant_id \
         LEFT JOIN {} s ON s.tenant_id = l.tenant_id AND s.lot_part = l.id \
         LEFT JOIN {} u ON u.tenant_id = l.tenant_id AND u.lot_part = l.id \
         LEFT JOIN (SELECT tenant_id, lot_part, sum(part) AS held FROM {} h GROUP BY tenant_id, lot_part) h \
         ON h.tenant_id = l.tenant_id AND h.lot_part = l.id \
         LEFT JOIN (SELECT tenant_id, lot_part, max(expires_at) AS until FROM {} k GROUP BY tenant_id, lot_part) k \
         ON k.tenant_id = l.tenant_id AND k.lot_part = l.id \
         LEFT JOIN {ACTIVE} v ON v.tenant_id = l.tenant_id AND v.member_id = l.member_id",
        taken(dialect),
        undone(dialect),
        dialect.allocations("t.tenant_id", open_holds),
        dialect.allocations("t.tenant_id, t.expires_at", "(SELECT * FROM mkt_points_hold WHERE pending)")
    );
    let total = "(l.remaining + l.held + l.used + l.expired + l.revoked + l.moved)";
    let lot = |id, title, column: &str, expected: &str| -> Check {
        equal(id, title, column, &format!("l.{column}"), expected)
    };
    let grace_end = plus_days("l.created_at", "n.refund_grace_days");
    let checks = vec![
        check(
            "L1",
            "points = remaining + held + used + expired + revoked + moved, none negative",
            format!(
                "l.points <> {total} OR l.remaining < 0 OR l.held < 0 OR l.used < 0 OR l.expired < 0 OR l.revoked < 0 \
                 OR l.moved < 0"
            ),
            differs("points", "l.points", total),
        ),
        check(
            "L2",
            "a lot is open while anything is left or held",
            "l.open <> (l.remaining > 0 OR l.held > 0)",
            says("open is wrong"),
        ),
        check("L3", "a lot has an account", "a.member_id IS NULL", "'member ' || l.member_id || ' has no account'"),
        check(
            "L4",
            "a lot names the transaction that made it",
            "t.id IS NULL OR t.member_id <> l.member_id OR (t.type <> 'TRANSFER' AND t.lot_id IS DISTINCT FROM l.id) \
             OR (t.type = 'TRANSFER' AND coalesce(s.got, 0) <> l.points)",
            says("no transaction made it"),
        ),
        lot(
            "L5",
            "used is what debits used and refunds did not undo",
            "used",
            "(coalesce(s.used, 0) - coalesce(u.used, 0))",
        ),
        lot("L6", "expired is what the ledger expired", "expired", "coalesce(s.expired, 0)"),
        lot("L7", "held is what the ledger holds", "held", "coalesce(s.held, 0)"),
        lot("L8", "held is what open holds hold", "held", "coalesce(h.held, 0)"),
        check(
            "L9",
            "a lot begins with the transaction that made it, or is kept until it becomes available",
            "l.created_at <> t.occurred_at OR (l.available_from <> t.occurred_at AND l.available_from IS DISTINCT FROM k.until)",
            differs("its begin", "l.created_at || ', available from ' || l.available_from", "t.occurred_at"),
        ),
        lot(
            "L10",
            "revoked is what the ledger took back and refunds did not undo",
            "revoked",
            "(coalesce(s.revoked, 0) - coalesce(u.revoked, 0))",
        ),
        lot(
            "L11",
            "moved is what refunds undid and put elsewhere, and what went to other members",
            "moved",
            "(coalesce(u.used, 0) + coalesce(u.revoked, 0) - coalesce(s.restored, 0) + coalesce(s.given, 0))",
        ),
        check(
            "L12",
            "a grace lot has the refund's points and the tenant's days of grace",
            format!(
                "t.type = 'REFUND' AND (l.points <> coalesce(s.made, 0) OR l.expires_at IS DISTINCT FROM {grace_end})"
            ),
            "l.points || ' points until ' || l.expires_at || ', moved here were ' || coalesce(s.made, 0)",
        ),
        check(
            "L13",
            "a living idle lot ends no earlier than the activity that its account has noted lets it",
            format!(
                "l.idle_days IS NOT NULL AND l.open AND l.expires_at > a.updated_at \
                 AND (a.idle_moved_until IS NULL OR l.expires_at < {})",
                plus_days("a.idle_moved_until", "(l.idle_days - 1)")
            ),
            differs("its end", "l.expires_at", "l.idle_days || ' days after ' || coalesce(a.idle_moved_until, 0)"),
        ),
        check(
            "L14",
            "an idle lot that was earned ends no later than the member's last activity lets it",
            format!(
                "l.idle_days IS NOT NULL AND t.type <> 'TRANSFER' AND (v.at IS NULL OR l.expires_at > {})",
                plus_days("v.at", "(l.idle_days + 2)")
            ),
            differs("its end", "l.expires_at", "l.idle_days || ' days after ' || coalesce(v.at, 0)"),
        ),
    ];
    Group { with: String::new(), rows, owner: Some("l"), key: dialect.id("lot_", "l.id"), checks }
}
