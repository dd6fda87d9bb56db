//! P, T1-T3: an account against its lots, its ledger and its last line.

use super::{EARN, Group, USE, check, differs, equal, says};

const OF_LOTS: &str = "(SELECT tenant_id, member_id, sum(remaining) AS available, sum(held) AS frozen, sum(used) AS used, \
    sum(expired) AS expired, sum(revoked) AS revoked, sum(points - moved) AS total_points \
    FROM mkt_points_lot GROUP BY tenant_id, member_id)";

/// What the lines of an account add up to. A refund gives back to `revoked` what an operator had deducted, else to `used`.
fn of_ledger() -> String {
    format!(
        "(SELECT t.tenant_id, t.member_id, count(*) AS lines, max(t.sequence) AS last, \
         max(CASE t.sequence WHEN 1 THEN t.occurred_at END) AS began_at, max(t.occurred_at) AS latest_at, \
         sum(CASE WHEN t.type IN {EARN} OR t.type = 'TRANSFER' THEN t.points ELSE 0 END) AS total_points, \
         sum(CASE WHEN t.type IN {USE} OR (t.type = 'REFUND' AND o.id IS NULL) THEN -t.points ELSE 0 END) AS used, \
         sum(CASE WHEN t.type = 'EXPIRE' THEN -t.points ELSE 0 END) AS expired, \
         sum(CASE WHEN t.type IN ('CLAWBACK', 'DEDUCT_ADMIN') OR (t.type = 'REFUND' AND o.id IS NOT NULL) \
             THEN -t.points ELSE 0 END) AS revoked, \
         sum(CASE WHEN t.type IN ('HOLD', 'RELEASE') THEN -t.points \
             WHEN t.type IN {USE} AND t.hold_id IS NOT NULL THEN t.points ELSE 0 END) AS frozen \
         FROM mkt_points_transaction t LEFT JOIN mkt_points_transaction o \
         ON o.tenant_id = t.tenant_id AND o.id = t.reverses_id AND o.type = 'DEDUCT_ADMIN' \
         GROUP BY t.tenant_id, t.member_id)"
    )
}

pub fn group() -> Group {
    let rows = format!(
        "mkt_points_account a \
         LEFT JOIN {OF_LOTS} l ON l.tenant_id = a.tenant_id AND l.member_id = a.member_id \
         LEFT JOIN {} t ON t.tenant_id = a.tenant_id AND t.member_id = a.member_id \
         LEFT JOIN mkt_points_transaction z \
         ON z.tenant_id = a.tenant_id AND z.member_id = a.member_id AND z.sequence = a.sequence \
         LEFT JOIN mkt_points_account m ON m.tenant_id = a.tenant_id AND m.member_id = a.merged_into",
        of_ledger()
    );
    let parts = "(a.available + a.frozen + a.used + a.expired + a.revoked)";
    let sum = |id, title, name: &str, of: &str| {
        equal(id, title, name, &format!("a.{name}"), &format!("coalesce({of}.{name}, 0)"))
    };
    let checks = vec![
        equal("P1", "total_points = available + frozen + used + expired + revoked", "the sum", parts, "a.total_points"),
        check(
            "P2",
            "no column of an account is negative",
            "a.available < 0 OR a.frozen < 0 OR a.used < 0 OR a.expired < 0 OR a.revoked < 0 OR a.debt < 0",
            says("a column is negative"),
        ),
        sum("P3", "available = sum of the lots' remaining", "available", "l"),
        sum("P4", "frozen = sum of the lots' held", "frozen", "l"),
        sum("P5", "used = sum of the lots' used", "used", "l"),
        sum("P6", "expired = sum of the lots' expired", "expired", "l"),
        sum("P7", "revoked = sum of the lots' revoked", "revoked", "l"),
        sum("P8", "total_points = sum of the lots, without what was moved", "total_points", "l"),
        check(
            "P9",
            "the sequence counts the account's transactions, without gaps",
            "a.sequence <> coalesce(t.lines, 0) OR a.sequence <> coalesce(t.last, 0)",
            differs("sequence", "a.sequence", "coalesce(t.lines, 0) || ' transactions up to ' || coalesce(t.last, 0)"),
        ),
        check(
            "P17",
            "a merged account names another that took it over",
            "a.merged_into IS NOT NULL AND (m.member_id IS NULL OR m.member_id = a.member_id)",
            "'merged into ' || a.merged_into",
        ),
        sum("P10", "total_points = what the ledger earned, and got from others", "total_points", "t"),
        sum("P11", "used = what the ledger used and did not refund", "used", "t"),
        sum("P12", "expired = what the ledger expired", "expired", "t"),
        sum("P13", "revoked = what the ledger took back", "revoked", "t"),
        sum("P14", "frozen = what the ledger holds", "frozen", "t"),
        equal("P15", "an account begins with its first transaction", "created_at", "a.created_at", "t.began_at"),
        equal("P16", "an account was changed by its latest transaction", "updated_at", "a.updated_at", "t.latest_at"),
        equal("T1", "available = the last transaction's balance", "available", "a.available", "z.balance_after"),
        equal("T2", "frozen = the last transaction's", "frozen", "a.frozen", "z.frozen_after"),
        equal("T3", "debt = the last transaction's", "debt", "a.debt", "z.debt_after"),
    ];
    Group { with: String::new(), rows, owner: Some("a"), key: "a.member_id".into(), checks }
}
