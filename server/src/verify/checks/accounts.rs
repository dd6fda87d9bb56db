//! P, T1-T3: an account against its lots, its ledger and its last line; and what orders earned it of late against their grants.

use jiff::tz::TimeZone;
use scrip_domain::points::Earned;
use scrip_domain::{Day, Timestamp};

use super::{EARN, Group, Reading, USE, check, differs, equal, says};
use crate::calendar;
use crate::store::{Row, StoreError};

const OF_LOTS: &str = "(SELECT tenant_id, member_id, sum(remaining) AS available, sum(held) AS frozen, sum(used) AS used, \
    sum(expired) AS expired, sum(revoked) AS revoked, sum(points - moved) AS total_points \
    FROM mkt_points_lot GROUP BY tenant_id, member_id)";

/// What lines `t` of an account add up to, each beside the deduction `o` that it reverses, if it does. A refund gives back to
/// `revoked` what an operator had deducted, else to `used`.
pub fn sums() -> String {
    format!(
        "sum(CASE WHEN t.type IN {EARN} OR t.type = 'TRANSFER' THEN t.points ELSE 0 END) AS total_points, \
         sum(CASE WHEN t.type IN {USE} OR (t.type = 'REFUND' AND o.id IS NULL) THEN -t.points ELSE 0 END) AS used, \
         sum(CASE WHEN t.type = 'EXPIRE' THEN -t.points ELSE 0 END) AS expired, \
         sum(CASE WHEN t.type IN ('CLAWBACK', 'DEDUCT_ADMIN') OR (t.type = 'REFUND' AND o.id IS NOT NULL) \
             THEN -t.points ELSE 0 END) AS revoked"
    )
}

fn of_ledger() -> String {
    format!(
        "(SELECT t.tenant_id, t.member_id, count(*) AS lines, max(t.sequence) AS last, \
         max(CASE t.sequence WHEN 1 THEN t.occurred_at END) AS began_at, max(t.occurred_at) AS latest_at, {}, \
         sum(CASE WHEN t.type IN ('HOLD', 'RELEASE') THEN -t.points \
             WHEN t.type IN {USE} AND t.hold_id IS NOT NULL THEN t.points ELSE 0 END) AS frozen \
         FROM mkt_points_transaction t LEFT JOIN mkt_points_transaction o \
         ON o.tenant_id = t.tenant_id AND o.id = t.reverses_id AND o.type = 'DEDUCT_ADMIN' \
         GROUP BY t.tenant_id, t.member_id)",
        sums()
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
        check(
            "P18",
            "what orders earned in a day is not negative, and no more than in its week and its month",
            "a.earned_in_day < 0 OR a.earned_in_week < a.earned_in_day OR a.earned_in_month < a.earned_in_day",
            "a.earned_in_day || ', ' || a.earned_in_week || ' and ' || a.earned_in_month",
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

/// More days than a month has, and than any time zone shifts.
const RECENT_DAYS: i64 = 40;

/// P19: what orders earned in the latest day, week and month, from the lines of their grants in the order they were written.
/// Those written so long before the latest day cannot be of its month. A closed account begins anew with each pass of its
/// merge; the one that took it over has more than its own lines say.
pub fn reading() -> Reading {
    let lines = format!(
        "(SELECT t.tenant_id, t.member_id, \
         string_agg('[' || t.occurred_at || ',' || t.points || ']', ',' ORDER BY t.sequence) AS grants \
         FROM mkt_points_transaction t CROSS JOIN mkt_points_account b \
         WHERE t.type = 'EARN_ORDER' AND t.by_order AND b.tenant_id = t.tenant_id AND b.member_id = t.member_id \
         AND t.recorded_at >= (b.earned_day - {RECENT_DAYS}) * {} \
         AND (b.merged_into IS NULL OR t.sequence > (SELECT max(x.sequence) FROM mkt_points_transaction x \
          WHERE x.tenant_id = b.tenant_id AND x.member_id = b.member_id AND x.type = 'TRANSFER' AND x.points <= 0 \
          AND x.reverses_id IS NULL)) GROUP BY t.tenant_id, t.member_id)",
        scrip_domain::time::MICROS_PER_DAY
    );
    Reading {
        id: "P19",
        title: "what orders earned in the latest day, week and month is what they granted there",
        sql: format!(
            "SELECT a.tenant_id, a.member_id AS key, a.earned_day, a.earned_in_day, a.earned_in_week, a.earned_in_month, \
             z.time_zone, '[' || coalesce(g.grants, '') || ']' AS grants, s.merged_into IS NOT NULL AS is_survivor \
             FROM mkt_points_account a JOIN tenant z ON z.tenant_id = a.tenant_id \
             LEFT JOIN {lines} g ON g.tenant_id = a.tenant_id AND g.member_id = a.member_id \
             LEFT JOIN (SELECT DISTINCT tenant_id, merged_into FROM mkt_points_account WHERE merged_into IS NOT NULL) s \
             ON s.tenant_id = a.tenant_id AND s.merged_into = a.member_id \
             WHERE g.grants IS NOT NULL OR a.earned_day <> 0 OR a.earned_in_week <> 0 OR a.earned_in_month <> 0"
        ),
        judge,
    }
}

fn judge(row: &Row) -> Result<Option<String>, StoreError> {
    let kept = Earned { day: Day(row.int(2)?), points: [row.int(3)?, row.int(4)?, row.int(5)?] };
    let zone = row.text(6)?;
    let (Ok(zone), Ok(grants)) = (TimeZone::get(&zone), row.json::<Vec<(i64, i64)>>(7)) else {
        return Ok(Some(format!("it cannot be read: in {zone}")));
    };
    let granted = grants
        .iter()
        .fold(Earned::default(), |earned, (at, points)| earned.on(calendar::day(&zone, Timestamp(*at))).plus(*points));
    let is_right = if row.bool(8)? {
        let own = granted.on(kept.day);
        own.day == kept.day && own.points.iter().zip(kept.points).all(|(own, kept)| *own <= kept)
    } else {
        granted == kept
    };
    Ok((!is_right).then(|| format!("{kept:?} is kept, the grants make {granted:?}")))
}
