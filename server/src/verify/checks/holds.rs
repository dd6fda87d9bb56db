//! H: a hold against the lines of the ledger that made and ended it, and the events that told of it.

use super::{Dialect, Group, USE, check, differs, equal, says};

/// What the lines of a hold say in all. Its own line is the one of type HOLD; those that end it take place at once.
fn lines() -> String {
    format!(
        "(SELECT tenant_id, hold_id, sum(CASE type WHEN 'HOLD' THEN 1 ELSE 0 END) AS began, \
         sum(CASE type WHEN 'HOLD' THEN 0 ELSE 1 END) AS ended, \
         sum(CASE type WHEN 'HOLD' THEN -points ELSE 0 END) AS held, \
         sum(CASE WHEN type IN {USE} THEN -points ELSE 0 END) AS captured, \
         sum(CASE type WHEN 'RELEASE' THEN points ELSE 0 END) AS released, \
         max(CASE type WHEN 'HOLD' THEN allocations END) AS allocations, \
         max(CASE type WHEN 'HOLD' THEN occurred_at END) AS began_at, \
         min(CASE type WHEN 'HOLD' THEN NULL ELSE occurred_at END) AS first_end, \
         max(CASE type WHEN 'HOLD' THEN NULL ELSE occurred_at END) AS last_end \
         FROM mkt_points_transaction WHERE hold_id IS NOT NULL GROUP BY tenant_id, hold_id)"
    )
}

/// The holds whose lines leave something of a lot set aside, or free more of it than was.
fn uneven(dialect: Dialect) -> String {
    let lines = "(SELECT * FROM mkt_points_transaction WHERE hold_id IS NOT NULL)";
    format!(
        "(SELECT tenant_id, hold_id, count(*) AS lots FROM (SELECT tenant_id, hold_id, lot_part FROM {} x \
         GROUP BY tenant_id, hold_id, lot_part HAVING sum(CASE type WHEN 'HOLD' THEN part ELSE -part END) <> 0) y \
         GROUP BY tenant_id, hold_id)",
        dialect.allocations("t.tenant_id, t.hold_id, t.type", lines)
    )
}

pub fn group(dialect: Dialect) -> Group {
    let rows = format!(
        "mkt_points_hold h \
         LEFT JOIN {} s ON s.tenant_id = h.tenant_id AND s.hold_id = h.id \
         LEFT JOIN {} u ON u.tenant_id = h.tenant_id AND u.hold_id = h.id \
         LEFT JOIN (SELECT tenant_id, subject_id, sum(CASE type WHEN 'points.held' THEN 1 ELSE 0 END) AS held, \
          sum(CASE type WHEN 'points.captured' THEN 1 ELSE 0 END) AS captured, \
          sum(CASE type WHEN 'points.released' THEN 1 ELSE 0 END) AS released FROM event \
          WHERE type IN ('points.held', 'points.captured', 'points.released') GROUP BY tenant_id, subject_id) e \
         ON e.tenant_id = h.tenant_id AND e.subject_id = h.id \
         LEFT JOIN (SELECT x.tenant_id, x.id, count(*) AS lots FROM {} x CROSS JOIN mkt_points_lot l \
          WHERE l.tenant_id = x.tenant_id AND l.id = x.lot_part AND l.available_from <> x.expires_at \
          GROUP BY x.tenant_id, x.id) k ON k.tenant_id = h.tenant_id AND k.id = h.id",
        lines(),
        uneven(dialect),
        dialect.allocations("t.tenant_id, t.id, t.expires_at", "(SELECT * FROM mkt_points_hold WHERE pending)")
    );
    let checks = vec![
        check(
            "H1",
            "a hold ends once: captured and released make up its points",
            "CASE h.status WHEN 'OPEN' THEN h.captured <> 0 OR h.released <> 0 OR h.closed_at IS NOT NULL \
             WHEN 'CAPTURED' THEN h.captured < 1 OR h.captured + h.released <> h.points OR h.closed_at IS NULL \
             ELSE h.status NOT IN ('RELEASED', 'EXPIRED') OR h.captured <> 0 OR h.released <> h.points \
             OR h.closed_at IS NULL END",
            "h.status || ', captured ' || h.captured || ', released ' || h.released || ' of ' || h.points",
        ),
        equal(
            "H2",
            "a hold's allocations add up to its points",
            "the sum of allocations",
            &dialect.allocated("h"),
            "h.points",
        ),
        equal("H3", "the ledger set the hold's points aside", "points", "h.points", "coalesce(s.held, 0)"),
        equal("H4", "captured is what the ledger captured", "captured", "h.captured", "coalesce(s.captured, 0)"),
        equal("H5", "released is what the ledger released", "released", "h.released", "coalesce(s.released, 0)"),
        check(
            "H7",
            "a hold began with one transaction, of the same lots and time",
            "coalesce(s.began, 0) <> 1 OR s.allocations <> h.allocations OR s.began_at <> h.created_at",
            differs(
                "it",
                "h.created_at || ' ' || h.allocations",
                "coalesce(s.began, 0) || ' of ' || s.began_at || ' ' || s.allocations",
            ),
        ),
        check(
            "H8",
            "a hold that has ended leaves nothing of any lot set aside",
            "h.status <> 'OPEN' AND u.lots IS NOT NULL",
            "u.lots || ' lots got back more or less than was held'",
        ),
        check(
            "H9",
            "a hold ended when its transactions say, and by its deadline",
            "h.closed_at IS DISTINCT FROM s.first_end OR h.closed_at IS DISTINCT FROM s.last_end \
             OR h.created_at >= h.expires_at OR (h.status = 'EXPIRED') <> coalesce(h.closed_at >= h.expires_at, false) \
             OR h.closed_at > h.expires_at",
            differs("closed_at", "h.closed_at", "s.last_end"),
        ),
        check(
            "H11",
            "a pending hold ends when its lot becomes available, and is used by nobody",
            "h.pending AND (k.lots IS NOT NULL OR h.status = 'CAPTURED')",
            "'until ' || h.expires_at || ', ' || h.status",
        ),
        check(
            "H10",
            "a hold's allocations can be read",
            format!("NOT ({})", dialect.is_allocations("h.allocations")),
            says("its allocations are no list of lots and points"),
        ),
        check(
            "E4",
            "every hold is told by one event, and its end by another",
            "coalesce(e.held, 0) <> 1 OR coalesce(e.captured, 0) <> CASE h.status WHEN 'CAPTURED' THEN 1 ELSE 0 END \
             OR coalesce(e.released, 0) <> CASE WHEN h.status IN ('RELEASED', 'EXPIRED') THEN 1 ELSE 0 END",
            "h.status || ' after ' || coalesce(e.held, 0) || ' held, ' || coalesce(e.captured, 0) || ' captured, ' \
             || coalesce(e.released, 0) || ' released events'",
        ),
    ];
    Group { with: String::new(), rows, owner: Some("h"), key: dialect.id("hold_", "h.id"), checks }
}
