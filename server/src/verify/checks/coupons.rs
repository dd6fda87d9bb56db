//! C: coupons against the version they were claimed under, and against the member's other coupons.

use scrip_domain::coupon::CouponSource;

use scrip_domain::time::MICROS_PER_HOUR;

use super::{Dialect, Group, check, differs, equal, plus, plus_days, says};

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![coupons(dialect), members(dialect), transfers(dialect), exchanged(dialect), exchanges(dialect)]
}

fn coupons(dialect: Dialect) -> Group {
    // Where a refund may have moved a coupon's end: any extension some version of its template gave, from the return on.
    let extended = format!(
        "(SELECT DISTINCT e.tenant_id, e.subject_id, {} AS valid_until FROM event e \
         CROSS JOIN mkt_user_coupon k CROSS JOIN \
         (SELECT DISTINCT tenant_id, template_id, refund_extend_days FROM versions WHERE refund_extend_days > 0) d \
         WHERE e.type = 'coupon.returned' AND k.tenant_id = e.tenant_id AND k.id = e.subject_id \
         AND d.tenant_id = k.tenant_id AND d.template_id = k.template_id)",
        plus_days("e.occurred_at", "d.refund_extend_days")
    );
    let until_of_event = dialect.number("data", "valid_until_unix_us");
    let rows = format!(
        "mkt_user_coupon c \
         LEFT JOIN mkt_coupon_template t ON t.tenant_id = c.tenant_id AND t.id = c.template_id \
         LEFT JOIN versions v \
         ON v.tenant_id = c.tenant_id AND v.template_id = c.template_id AND v.version = c.template_version \
         LEFT JOIN {extended} x ON x.tenant_id = c.tenant_id AND x.subject_id = c.id AND x.valid_until = c.valid_until \
         LEFT JOIN (SELECT DISTINCT tenant_id, subject_id, {until_of_event} AS valid_until FROM event \
          WHERE type = 'coupon.extended') y \
         ON y.tenant_id = c.tenant_id AND y.subject_id = c.id AND y.valid_until = c.valid_until \
         LEFT JOIN mkt_coupon_code_use u ON u.tenant_id = c.tenant_id \
         AND u.coupon_id = CASE c.source WHEN 'CODE' THEN c.id END \
         LEFT JOIN (SELECT tenant_id, subject_id, count(*) AS n FROM event \
          WHERE type IN ('coupon.claimed', 'coupon.received') \
          GROUP BY tenant_id, subject_id) e ON e.tenant_id = c.tenant_id AND e.subject_id = c.id"
    );
    let sources: Vec<String> = CouponSource::ALL.iter().map(|source| format!("'{}'", source.as_str())).collect();
    // As `Validity::of_claim`.
    let from = format!("({})", plus("c.claimed_at", "coalesce(v.starts_after_hours, 0)", MICROS_PER_HOUR));
    let until =
        format!("({})", plus(&format!("({})", plus_days(&from, "v.days")), "coalesce(v.hours, 0)", MICROS_PER_HOUR));
    let from = format!("CASE v.validity WHEN 'FIXED' THEN v.starts_at ELSE {from} END");
    let until = format!("CASE v.validity WHEN 'FIXED' THEN v.ends_at ELSE {until} END");
    let checks = vec![
        check(
            "C6",
            "a coupon's version exists",
            "v.version IS NULL",
            "'version ' || c.template_version || ' does not exist'",
        ),
        check(
            "C8",
            "a coupon's columns fit its status",
            "(c.status IN ('LOCKED', 'USED')) <> (c.order_id IS NOT NULL) OR (c.status = 'USED') <> (c.used_at IS NOT NULL) \
             OR (c.locked_until IS NOT NULL AND c.status <> 'LOCKED') \
             OR (c.by_order AND c.status NOT IN ('LOCKED', 'USED')) \
             OR (c.discount_amount IS NOT NULL AND (c.status <> 'USED' OR c.discount_amount < 0)) \
             OR c.status NOT IN ('AVAILABLE', 'LOCKED', 'USED', 'EXPIRED', 'REVOKED')"
                .to_owned()
                + &format!(" OR c.source NOT IN ({})", sources.join(", ")),
            "'its columns do not fit ' || c.status",
        ),
        check(
            "C10",
            "a coupon's version is not newer than its template's",
            "t.id IS NULL OR c.template_version > t.version",
            differs("version", "c.template_version", "coalesce(t.version, 0) || ' or older'"),
        ),
        check(
            "C11",
            "a coupon is within the limit of the version it was claimed under",
            "c.sequence > v.limit_per_member AND c.source <> 'TRANSFER'",
            differs("its number", "c.sequence", "v.limit_per_member || ' or less'"),
        ),
        check(
            "C12",
            "a coupon is valid as its version says, unless a refund or an operator extended it",
            format!(
                "v.version IS NOT NULL AND c.source NOT IN ('IMPORT', 'TRANSFER') AND (c.valid_from <> {from} \
                 OR (c.valid_until <> {until} AND x.valid_until IS NULL AND y.valid_until IS NULL))"
            ),
            differs("it", "c.valid_from || ' to ' || c.valid_until", &format!("({from}) || ' to ' || ({until})")),
        ),
        check(
            "C13",
            "a coupon was claimed while its version could be",
            "c.source NOT IN ('IMPORT', 'TRANSFER') AND (c.claimed_at < v.distribution_starts_at \
             OR c.claimed_at >= v.distribution_ends_at OR c.claimed_at >= v.ends_at)",
            "'it was claimed at ' || c.claimed_at",
        ),
        check(
            "K6",
            "a coupon claimed with a code names it",
            "c.source = 'CODE' AND u.coupon_id IS NULL",
            says("the code is unknown"),
        ),
        equal("E1", "every coupon was claimed or received by one event", "the count of events", "coalesce(e.n, 0)", "1"),
    ];
    Group { with: dialect.versions(), rows, owner: Some("c"), key: dialect.id("cpn_", "c.id"), checks }
}

/// A coupon received beside the one given: the event of the receipt names it.
fn transfers(dialect: Dialect) -> Group {
    let rows = format!(
        "mkt_user_coupon c LEFT JOIN (SELECT tenant_id, subject_id, {} AS given_id FROM event \
         WHERE type = 'coupon.received') e ON e.tenant_id = c.tenant_id AND e.subject_id = c.id \
         LEFT JOIN mkt_user_coupon g ON g.tenant_id = e.tenant_id AND g.id = e.given_id",
        dialect.id_in("data", "from_coupon_id", "cpn_")
    );
    let checks = vec![check(
        "C25",
        "a coupon received has the terms of the one given, which ended with it",
        "c.source = 'TRANSFER' AND (g.id IS NULL OR g.status <> 'REVOKED' OR g.member_id = c.member_id \
         OR g.template_id <> c.template_id OR g.template_version <> c.template_version OR g.valid_from <> c.valid_from \
         OR g.valid_until > c.valid_until OR g.claimed_at <> c.claimed_at)",
        says("the coupon given is missing, open or of other terms"),
    )];
    Group { with: String::new(), rows, owner: Some("c"), key: dialect.id("cpn_", "c.id"), checks }
}

fn exchanged(dialect: Dialect) -> Group {
    let rows = "mkt_user_coupon c LEFT JOIN mkt_coupon_exchange x ON x.tenant_id = c.tenant_id \
        AND x.coupon_id = CASE c.source WHEN 'EXCHANGE' THEN c.id END";
    let checks = vec![check(
        "C26",
        "a coupon paid for with points names its debit",
        "c.source = 'EXCHANGE' AND x.coupon_id IS NULL",
        says("the exchange is missing"),
    )];
    Group { with: String::new(), rows: rows.into(), owner: Some("c"), key: dialect.id("cpn_", "c.id"), checks }
}

/// Both sides of each exchange: the coupon and the debit.
fn exchanges(dialect: Dialect) -> Group {
    let rows = "mkt_coupon_exchange x \
        LEFT JOIN mkt_user_coupon c ON c.tenant_id = x.tenant_id AND c.id = x.coupon_id \
        LEFT JOIN versions v \
        ON v.tenant_id = c.tenant_id AND v.template_id = c.template_id AND v.version = c.template_version \
        LEFT JOIN mkt_points_transaction t ON t.tenant_id = x.tenant_id AND t.id = x.transaction_id";
    let debit = format!(
        "t.id IS NULL OR t.type <> 'USE_COUPON' OR t.points <> -x.points OR t.member_id <> x.member_id \
         OR t.reference IS DISTINCT FROM {} OR t.occurred_at IS DISTINCT FROM c.claimed_at",
        dialect.id("cpn_", "x.coupon_id")
    );
    let checks = vec![
        check(
            "C27",
            "an exchange gave its member a coupon, at the price of its version",
            "c.id IS NULL OR c.source <> 'EXCHANGE' OR c.member_id <> x.member_id \
             OR v.points_price IS DISTINCT FROM x.points",
            says("the coupon is missing, or of another member or price"),
        ),
        check("C28", "an exchange was paid for by one debit", debit, says("the debit is missing or another")),
    ];
    let with = dialect.versions();
    Group { with, rows: rows.into(), owner: Some("x"), key: dialect.id("cpn_", "x.coupon_id"), checks }
}

fn members(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, template_id, member_id, count(*) AS n, min(sequence) AS oldest, \
        max(sequence) AS newest, count(DISTINCT sequence) AS different FROM mkt_user_coupon \
        GROUP BY tenant_id, template_id, member_id) c \
        LEFT JOIN (SELECT tenant_id, template_id, max(limit_per_member) AS limit_per_member FROM versions \
        GROUP BY tenant_id, template_id) v ON v.tenant_id = c.tenant_id AND v.template_id = c.template_id";
    let checks = vec![
        check(
            "C4",
            "a member's coupons of a template are numbered without gaps",
            "c.n <> c.newest OR c.oldest <> 1 OR c.different <> c.n",
            "'has ' || c.n || ' coupons of a template, numbered ' || c.oldest || ' to ' || c.newest",
        ),
        check(
            "C5",
            "no member has more coupons than any version of the template allowed",
            "c.n > v.limit_per_member",
            differs("the count", "c.n", "v.limit_per_member || ' or less'"),
        ),
    ];
    Group { with: dialect.versions(), rows: rows.into(), owner: Some("c"), key: "c.member_id".into(), checks }
}
