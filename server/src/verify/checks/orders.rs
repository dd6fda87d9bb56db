//! O: orders against their price, their coupons, their points, their refunds and the events that told of them.

use scrip_domain::order::{EarnCut, GrantedLine, OrderStatus, earned_by};
use scrip_domain::pricing::share::part_of;
use scrip_domain::pricing::{LineQuote, Quote};

use super::{Dialect, Group, Reading, check, differs, equal, says};
use crate::store::{Row, StoreError};

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![orders(dialect), refunds(), held(), compensations(dialect), events(dialect)]
}

/// The statuses of an order that was paid.
const PAID: &str = "('PAID', 'PARTIALLY_REFUNDED', 'REFUNDED')";

fn orders(dialect: Dialect) -> Group {
    let told = |name: &str| format!("sum(CASE type WHEN 'order.{name}' THEN 1 ELSE 0 END) AS {name}");
    let told = ["reserved", "paid", "cancelled", "released", "refunded"].map(told).join(", ");
    let rows = format!(
        "mkt_order o \
         LEFT JOIN (SELECT tenant_id, order_id, count(*) AS n, sum(amount) AS amount, sum(freight) AS freight, \
          sum(points_returned) AS returned, sum(points_clawed_back) AS clawed_back FROM mkt_order_refund \
          GROUP BY tenant_id, order_id) f ON f.tenant_id = o.tenant_id AND f.order_id = o.order_id \
         LEFT JOIN (SELECT tenant_id, order_id, sum(CASE status WHEN 'LOCKED' THEN 1 ELSE 0 END) AS locked, \
          sum(CASE status WHEN 'USED' THEN 1 ELSE 0 END) AS used, sum(discount_amount) AS discount, \
          sum(CASE WHEN k.template_id IS NULL THEN 0 ELSE 1 END) AS kept \
          FROM mkt_user_coupon u LEFT JOIN (SELECT DISTINCT tenant_id, template_id FROM versions \
          WHERE CAST(returnable AS TEXT) IN ('false', '0')) k USING (tenant_id, template_id) \
          WHERE by_order GROUP BY tenant_id, order_id) c \
         ON c.tenant_id = o.tenant_id AND c.order_id = o.order_id \
         LEFT JOIN mkt_points_hold h ON h.tenant_id = o.tenant_id AND h.id = o.hold_id \
         LEFT JOIN mkt_points_transaction s ON s.tenant_id = o.tenant_id AND s.id = o.spend_id \
         LEFT JOIN mkt_points_transaction e ON e.tenant_id = o.tenant_id AND e.id = o.earn_id \
         LEFT JOIN mkt_points_reversal sr ON sr.tenant_id = o.tenant_id AND sr.transaction_id = o.spend_id \
         LEFT JOIN mkt_points_reversal er ON er.tenant_id = o.tenant_id AND er.transaction_id = o.earn_id \
         LEFT JOIN mkt_points_rule r ON r.tenant_id = o.tenant_id AND r.version = o.rules_version \
         LEFT JOIN (SELECT tenant_id, max(recorded_at) AS now FROM event GROUP BY tenant_id) n \
         ON n.tenant_id = o.tenant_id \
         LEFT JOIN (SELECT tenant_id, subject_id, {told} FROM event WHERE type LIKE 'order.%' \
          GROUP BY tenant_id, subject_id) v ON v.tenant_id = o.tenant_id AND v.subject_id = o.id"
    );
    let is_paid = format!("o.status IN {PAID}");
    // What an overdue reservation held may be gone already: expiry is a predicate first.
    let is_firm = "o.status = 'RESERVED' AND o.expires_at > n.now";
    let checks = vec![
        check(
            "O1",
            "an order's price is its goods and freight without the discounts, and nothing is negative",
            "o.pay_amount <> o.original_amount + o.freight - o.coupon_discount - o.freight_discount - o.points_discount \
             OR o.pay_amount < 0 OR o.coupon_discount < 0 OR o.freight_discount < 0 OR o.points_discount < 0 \
             OR o.coupon_discount + o.points_discount > o.original_amount OR o.freight_discount > o.freight",
            differs(
                "pay_amount",
                "o.pay_amount",
                "(o.original_amount + o.freight - o.coupon_discount - o.freight_discount - o.points_discount)",
            ),
        ),
        check(
            "O2",
            "an order's columns fit its status",
            format!(
                "({is_paid}) <> (o.paid_at IS NOT NULL) \
                 OR (o.status IN ('CANCELLED', 'EXPIRED')) <> (o.closed_at IS NOT NULL) \
                 OR (o.points_spent > 0) <> (o.hold_id IS NOT NULL) \
                 OR (o.spend_id IS NOT NULL) <> ({is_paid} AND o.points_spent > 0) \
                 OR (o.earn_id IS NOT NULL) <> (o.points_granted > 0) \
                 OR (o.earn_due_at IS NOT NULL AND (o.earn_id IS NOT NULL OR NOT {is_paid})) \
                 OR (NOT {is_paid} AND (o.refunded_amount <> 0 OR o.points_granted <> 0 OR o.coupons_returned)) \
                 OR ({is_paid} AND o.earn_id IS NULL AND o.earn_due_at IS NULL \
                  AND o.points_to_earn <> o.points_clawed_back + o.points_cut) \
                 OR (o.points_cut <> 0 AND (NOT {is_paid} OR o.earn_due_at IS NOT NULL)) \
                 OR (o.points_cut > 0) <> (o.earn_cut IS NOT NULL) OR o.points_cut < 0"
            ),
            "'its columns do not fit ' || o.status",
        ),
        check(
            "O3",
            "an order's coupons are locked while it is reserved, used when it is paid, and free otherwise, unless their template keeps them",
            format!(
                "CASE WHEN {is_firm} THEN coalesce(c.locked, 0) <> o.coupon_count \
                 WHEN o.status = 'RESERVED' THEN false \
                 WHEN {is_paid} AND NOT o.coupons_returned THEN coalesce(c.used, 0) <> o.coupon_count \
                 OR coalesce(c.locked, 0) <> 0 \
                 WHEN {is_paid} THEN coalesce(c.used, 0) > coalesce(c.kept, 0) OR coalesce(c.locked, 0) <> 0 \
                 ELSE coalesce(c.used, 0) + coalesce(c.locked, 0) <> 0 END"
            ),
            "o.status || ' with ' || o.coupon_count || ' coupons, ' || coalesce(c.locked, 0) || ' locked, ' \
             || coalesce(c.used, 0) || ' used'",
        ),
        check(
            "O4",
            "an order's coupons took off what its price says",
            format!(
                "{is_paid} AND NOT o.coupons_returned \
                 AND coalesce(c.discount, 0) <> o.coupon_discount + o.freight_discount"
            ),
            differs("the discount", "coalesce(c.discount, 0)", "(o.coupon_discount + o.freight_discount)"),
        ),
        check(
            "O5",
            "an order's hold is of its points, open while it is reserved, captured when it is paid, and given back otherwise",
            format!(
                "o.hold_id IS NOT NULL AND (h.id IS NULL OR h.member_id <> o.member_id OR h.points <> o.points_spent \
                 OR h.reference IS DISTINCT FROM o.order_id OR NOT h.by_order OR CASE WHEN {is_firm} \
                 THEN h.status <> 'OPEN' OR h.expires_at <> o.expires_at WHEN o.status = 'RESERVED' THEN false \
                 WHEN {is_paid} THEN h.status <> 'CAPTURED' OR h.captured <> o.points_spent \
                 ELSE h.status NOT IN ('RELEASED', 'EXPIRED') END)"
            ),
            "o.status || ' of ' || o.points_spent || ' with a hold of ' || coalesce(h.points, 0) || ', ' \
             || coalesce(h.status, 'missing')",
        ),
        check(
            "O6",
            "an order's points were spent by its transaction",
            "o.spend_id IS NOT NULL AND (s.id IS NULL OR s.member_id <> o.member_id OR s.points <> -o.points_spent \
             OR s.type <> 'USE_ORDER' OR s.hold_id IS DISTINCT FROM o.hold_id OR NOT s.by_order \
             OR s.reference IS DISTINCT FROM o.order_id)",
            differs("points spent", "o.points_spent", "coalesce(-s.points, 0)"),
        ),
        check(
            "O7",
            "what an order earned was granted by its transaction",
            "o.earn_id IS NOT NULL AND (e.id IS NULL OR e.member_id <> o.member_id OR e.points <> o.points_granted \
             OR e.type <> 'EARN_ORDER' OR NOT e.by_order OR e.reference IS DISTINCT FROM o.order_id \
             OR o.points_granted + o.points_cut > o.points_to_earn)",
            differs("points granted", "o.points_granted", "coalesce(e.points, 0)"),
        ),
        equal(
            "O8",
            "what an order's refunds returned is undone in the ledger",
            "points returned",
            "o.points_returned",
            "coalesce(sr.reversed, 0)",
        ),
        check(
            "O9",
            "what an order's refunds took back is undone in the ledger, but for what they left ungranted",
            "o.earn_id IS NOT NULL \
             AND coalesce(er.reversed, 0) <> o.points_clawed_back - (o.points_to_earn - o.points_granted - o.points_cut)",
            differs(
                "points taken back",
                "o.points_clawed_back",
                "(coalesce(er.reversed, 0) + o.points_to_earn - o.points_granted - o.points_cut)",
            ),
        ),
        check(
            "O10",
            "an order's refunds add up, to no more than was paid",
            "o.refunded_amount <> coalesce(f.amount, 0) OR o.refunded_freight <> coalesce(f.freight, 0) \
             OR o.points_returned <> coalesce(f.returned, 0) OR o.points_clawed_back <> coalesce(f.clawed_back, 0) \
             OR o.refunded_amount > o.pay_amount OR o.refunded_freight > o.freight - o.freight_discount \
             OR o.points_returned > o.points_spent OR o.points_clawed_back > o.points_to_earn - o.points_cut",
            differs("refunded", "o.refunded_amount", "coalesce(f.amount, 0)"),
        ),
        check(
            "O11",
            "an order with refunds says so, and no other",
            "(o.status IN ('PARTIALLY_REFUNDED', 'REFUNDED')) <> (coalesce(f.n, 0) > 0)",
            "o.status || ' with ' || coalesce(f.n, 0) || ' refunds'",
        ),
        check(
            "O12",
            "the rules that made an order exist",
            "o.rules_version < 0 OR (o.rules_version > 0 AND r.version IS NULL)",
            "'version ' || o.rules_version || ' does not exist'",
        ),
        check(
            "O13",
            "an order's steps are told by one event each",
            format!(
                "coalesce(v.reserved, 0) <> 1 OR coalesce(v.paid, 0) <> CASE WHEN {is_paid} THEN 1 ELSE 0 END \
                 OR coalesce(v.cancelled, 0) <> CASE o.status WHEN 'CANCELLED' THEN 1 ELSE 0 END \
                 OR coalesce(v.refunded, 0) <> coalesce(f.n, 0) OR CASE WHEN {is_paid} THEN coalesce(v.released, 0) > 1 \
                 ELSE coalesce(v.released, 0) <> CASE o.status WHEN 'EXPIRED' THEN 1 ELSE 0 END END"
            ),
            "o.status || ' after ' || coalesce(v.reserved, 0) || ' reserved, ' || coalesce(v.paid, 0) || ' paid, ' \
             || coalesce(v.cancelled, 0) || ' cancelled, ' || coalesce(v.released, 0) || ' released, ' \
             || coalesce(v.refunded, 0) || ' refunded events'",
        ),
    ];
    Group { with: dialect.versions(), rows, owner: Some("o"), key: "o.order_id".into(), checks }
}

fn refunds() -> Group {
    let rows = "mkt_order_refund f LEFT JOIN mkt_order o ON o.tenant_id = f.tenant_id AND o.order_id = f.order_id \
        LEFT JOIN mkt_points_transaction b ON b.tenant_id = f.tenant_id AND b.id = f.return_transaction_id \
        LEFT JOIN mkt_points_transaction k ON k.tenant_id = f.tenant_id AND k.id = f.clawback_transaction_id";
    let checks = vec![
        check(
            "O14",
            "a refund belongs to an order of its member",
            "o.id IS NULL OR o.id <> f.order_uid OR o.member_id <> f.member_id",
            says("the order does not exist, or is another"),
        ),
        check(
            "O15",
            "a refund's points are those of its transactions",
            "(f.points_returned > 0) <> (f.return_transaction_id IS NOT NULL) \
             OR (f.return_transaction_id IS NOT NULL AND (b.points IS DISTINCT FROM f.points_returned \
              OR b.type <> 'REFUND' OR b.reverses_id IS DISTINCT FROM o.spend_id)) \
             OR (f.clawback_transaction_id IS NOT NULL AND (k.points IS DISTINCT FROM \
              f.points_owed + f.points_forgiven - f.points_clawed_back OR k.points_forgiven <> f.points_forgiven \
              OR k.type <> 'CLAWBACK' OR k.reverses_id IS DISTINCT FROM o.earn_id)) \
             OR (f.clawback_transaction_id IS NULL AND f.points_owed + f.points_forgiven <> 0)",
            differs(
                "it",
                "f.points_returned || ' and ' || f.points_clawed_back",
                "coalesce(b.points, 0) || ' and ' || coalesce(-k.points, 0) || ' with ' || f.points_owed || ' owed and ' \
                 || f.points_forgiven || ' forgiven'",
            ),
        ),
    ];
    let key = "f.order_id || ' ' || f.refund_id".into();
    Group { with: String::new(), rows: rows.into(), owner: Some("f"), key, checks }
}

/// What says that an order holds it, beside that order.
fn held() -> Group {
    let rows = "(SELECT tenant_id, member_id, order_id AS order_id, 'coupon' AS kind FROM mkt_user_coupon WHERE by_order \
        UNION ALL SELECT tenant_id, member_id, reference, 'hold' FROM mkt_points_hold WHERE by_order \
        UNION ALL SELECT tenant_id, member_id, reference, 'transaction' FROM mkt_points_transaction WHERE by_order) x \
        LEFT JOIN mkt_order o ON o.tenant_id = x.tenant_id AND o.order_id = x.order_id";
    let checks = vec![check(
        "O16",
        "what an order is said to hold has that order, of the same member",
        "o.id IS NULL OR o.member_id <> x.member_id",
        "'a ' || x.kind || ' of ' || x.member_id || ' has no such order'",
    )];
    let key = "coalesce(x.order_id, 'none')".into();
    Group { with: String::new(), rows: rows.into(), owner: Some("x"), key, checks }
}

fn compensations(dialect: Dialect) -> Group {
    let rows = "mkt_coupon_refund_compensation p \
        LEFT JOIN mkt_user_coupon c ON c.tenant_id = p.tenant_id AND c.id = p.coupon_id \
        LEFT JOIN (SELECT tenant_id, subject_id, \
         sum(CASE type WHEN 'coupon.compensation_needed' THEN 1 ELSE 0 END) AS needed, \
         sum(CASE type WHEN 'coupon.compensation_closed' THEN 1 ELSE 0 END) AS closed FROM event \
         WHERE type IN ('coupon.compensation_needed', 'coupon.compensation_closed') GROUP BY tenant_id, subject_id) e \
        ON e.tenant_id = p.tenant_id AND e.subject_id = p.coupon_id";
    let checks = vec![
        check(
            "O17",
            "a compensation case is of an expired coupon of its member",
            "c.id IS NULL OR c.member_id <> p.member_id OR c.template_id <> p.template_id OR c.status <> 'EXPIRED'",
            says("the coupon does not exist, or is another, or has not expired"),
        ),
        check(
            "O18",
            "a compensation case and its end are told by one event each",
            "coalesce(e.needed, 0) <> 1 OR coalesce(e.closed, 0) <> CASE p.status WHEN 'PENDING' THEN 0 ELSE 1 END \
             OR (p.status = 'PENDING') <> (p.closed_at IS NULL)",
            "p.status || ' after ' || coalesce(e.needed, 0) || ' needed, ' || coalesce(e.closed, 0) || ' closed events'",
        ),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("p"), key: dialect.id("cmp_", "p.id"), checks }
}

fn events(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, id, subject_id, member_id, type FROM event \
        WHERE type LIKE 'order.%' OR type = 'coupon.compensation_needed') e \
        LEFT JOIN mkt_order o \
        ON o.tenant_id = e.tenant_id AND o.id = CASE WHEN e.type LIKE 'order.%' THEN e.subject_id END \
        LEFT JOIN mkt_coupon_refund_compensation p ON p.tenant_id = e.tenant_id \
        AND p.coupon_id = CASE WHEN e.type NOT LIKE 'order.%' THEN e.subject_id END";
    let checks = vec![
        check(
            "E26",
            "an event of an order names one of that member",
            "e.type LIKE 'order.%' AND (o.id IS NULL OR o.member_id IS DISTINCT FROM e.member_id)",
            says("the order is none of this member"),
        ),
        check(
            "E27",
            "an event that asks for compensation has a case",
            "e.type NOT LIKE 'order.%' AND p.id IS NULL",
            says("there is no case"),
        ),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("e"), key: dialect.id("evt_", "e.id"), checks }
}

/// The price as it is kept must be the one the columns tell, its lines must add up to it, a grant that was cut must be what its
/// lines got, and what has been refunded must be what the refunded units are worth.
pub fn reading() -> Reading {
    Reading {
        id: "O19",
        title: "an order's lines add up to its price, and its refunds to what their units are worth",
        sql:
            "SELECT tenant_id, order_id AS key, quote, refunded_quantities, status, original_amount, coupon_discount, \
              freight_discount, points_discount, freight, pay_amount, points_spent, points_to_earn, coupon_count, \
              refunded_amount - refunded_freight AS refunded_goods, points_returned, points_clawed_back, earn_cut, \
              points_granted, points_cut FROM mkt_order"
                .into(),
        judge,
    }
}

fn judge(row: &Row) -> Result<Option<String>, StoreError> {
    let (quote, quantities, cut) = match (row.json::<Quote>(2), row.json::<Vec<i64>>(3), row.opt_json::<EarnCut>(17)) {
        (Ok(quote), Ok(quantities), Ok(cut)) => (quote, quantities, cut),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            return Ok(Some(format!("it cannot be read: {error}")));
        }
    };
    let sum = |part: fn(&LineQuote) -> i64| quote.lines.iter().map(part).sum::<i64>();
    let coupons: i64 = quote.coupons.iter().map(|coupon| coupon.discount).sum();
    let told = [
        ("original_amount", quote.original_amount, 5, sum(|line| line.amount)),
        ("coupon_discount", quote.coupon_discount, 6, sum(|line| line.coupon_discount)),
        ("freight_discount", quote.freight_discount, 7, coupons - quote.coupon_discount),
        ("points_discount", quote.points_discount, 8, sum(|line| line.points_discount)),
        ("freight", quote.freight, 9, quote.freight),
        ("pay_amount", quote.pay_amount, 10, sum(|line| line.pay_amount) + quote.freight - quote.freight_discount),
        ("points_spent", quote.points_effective, 11, sum(|line| line.points_spent)),
        ("points_to_earn", quote.points_to_earn, 12, sum(|line| line.points_to_earn)),
        ("coupon_count", quote.coupons.len() as i64, 13, quote.coupons.len() as i64),
    ];
    for (name, kept, column, lines) in told {
        let told = row.int(column)?;
        if told != kept || lines != kept {
            return Ok(Some(format!("{name} is {told}, the price says {kept}, its parts make up {lines}")));
        }
    }
    let fits = |(line, quantity): (&LineQuote, &i64)| (0..=line.quantity).contains(quantity);
    if quantities.len() != quote.lines.len() || !quote.lines.iter().zip(&quantities).all(fits) {
        return Ok(Some(format!("{quantities:?} units were refunded of {} lines", quote.lines.len())));
    }
    if let Some(cut) = &cut {
        let lines = quote.lines.iter().zip(&quantities).zip(&cut.lines);
        let fits = |((line, done), got): ((&LineQuote, &i64), &GrantedLine)| {
            let left = line.points_to_earn - earned_by(line, None, got.refunded);
            (0..=*done).contains(&got.refunded) && (0..=left).contains(&got.points)
        };
        if cut.lines.len() != quote.lines.len() || !lines.clone().all(fits) {
            return Ok(Some(format!("{:?} does not fit the lines", cut.lines)));
        }
        let left: i64 = lines.map(|((line, _), got)| line.points_to_earn - earned_by(line, None, got.refunded)).sum();
        let got: i64 = cut.lines.iter().map(|line| line.points).sum();
        let told = (row.int(18)?, row.int(19)?);
        if told != (got, left - got) || cut.points != told.1 {
            return Ok(Some(format!("granted and cut {told:?}, the lines got {got} of {left}")));
        }
    }
    let all = quote.lines.iter().map(|line| line.quantity).eq(quantities.iter().copied());
    if all != (row.text(4)? == OrderStatus::Refunded.as_str()) {
        return Ok(Some(format!("{} after {quantities:?} units were refunded", row.text(4)?)));
    }
    let worth = |part: fn(&LineQuote) -> i64| {
        let units = quote.lines.iter().zip(&quantities);
        units.map(|(line, quantity)| part_of(part(line), *quantity, line.quantity)).sum::<i64>()
    };
    let granted = |place: usize| cut.as_ref().map(|cut| cut.lines[place]);
    let lines = quote.lines.iter().zip(&quantities).enumerate();
    let earned = lines.map(|(place, (line, units))| earned_by(line, granted(place), *units)).sum();
    for (name, column, worth) in [
        ("refunded for goods", 14, worth(|line| line.pay_amount)),
        ("points returned", 15, worth(|line| line.points_spent)),
        ("points taken back", 16, earned),
    ] {
        let told = row.int(column)?;
        if told != worth {
            return Ok(Some(format!("{name}: {told} where the units are worth {worth}")));
        }
    }
    Ok(None)
}
