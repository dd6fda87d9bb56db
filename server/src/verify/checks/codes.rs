//! K: codes against their batches, the coupons claimed with them, and their events.

use super::{Dialect, Group, check, differs, equal, says};

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![batches(dialect), codes(dialect), uses(dialect), events(dialect)]
}

fn batches(dialect: Dialect) -> Group {
    let kind = |name: &str| format!("sum(CASE type WHEN 'code_batch.{name}' THEN 1 ELSE 0 END)");
    let rows = format!(
        "mkt_coupon_code_batch b \
         LEFT JOIN mkt_coupon_template t ON t.tenant_id = b.tenant_id AND t.id = b.template_id \
         LEFT JOIN (SELECT tenant_id, batch_id, count(*) AS n, max(number) AS newest, sum(use_count) AS uses \
          FROM mkt_coupon_code GROUP BY tenant_id, batch_id) c ON c.tenant_id = b.tenant_id AND c.batch_id = b.id \
         LEFT JOIN (SELECT tenant_id, batch_id, count(*) AS n FROM mkt_coupon_code_use GROUP BY tenant_id, batch_id) u \
         ON u.tenant_id = b.tenant_id AND u.batch_id = b.id \
         LEFT JOIN (SELECT tenant_id, subject_id, {} AS created, {} AS completed, {} AS exported FROM event \
          WHERE type LIKE 'code_batch.%' GROUP BY tenant_id, subject_id) e \
         ON e.tenant_id = b.tenant_id AND e.subject_id = b.id",
        kind("created"),
        kind("completed"),
        kind("exported"),
    );
    let flag = |column: &str| format!("CASE WHEN {column} IS NULL THEN 0 ELSE 1 END");
    let checks = vec![
        check("K1", "a batch of codes belongs to a template", "t.id IS NULL", says("the template does not exist")),
        equal("K2", "added_count counts the codes", "added_count", "b.added_count", "coalesce(c.n, 0)"),
        check(
            "K3",
            "claimed_count counts the coupons claimed with the codes",
            "b.claimed_count <> coalesce(c.uses, 0) OR b.claimed_count <> coalesce(u.n, 0)",
            differs(
                "claimed_count",
                "b.claimed_count",
                "coalesce(c.uses, 0) || ' uses, ' || coalesce(u.n, 0) || ' coupons'",
            ),
        ),
        check(
            "K4",
            "a batch is complete with all its codes, and keeps nothing to make them from once exported or revoked",
            "c.newest >= b.next_number OR (b.completed_at IS NOT NULL AND b.added_count <> b.code_count) \
             OR (b.nonce IS NOT NULL AND (b.exported_at IS NOT NULL OR b.status = 'REVOKED'))",
            says("its columns do not fit"),
        ),
        check(
            "K9",
            "a batch was created, completed and exported by one event each",
            format!(
                "coalesce(e.created, 0) <> 1 OR e.exported <> {} \
                 OR e.completed <> CASE WHEN b.kind = 'SHARED' THEN 0 ELSE {} END",
                flag("b.exported_at"),
                flag("b.completed_at")
            ),
            says("its events do not fit"),
        ),
    ];
    Group { with: String::new(), rows, owner: Some("b"), key: dialect.id("cdb_", "b.id"), checks }
}

fn codes(dialect: Dialect) -> Group {
    let rows = "mkt_coupon_code c \
        LEFT JOIN mkt_coupon_code_batch b ON b.tenant_id = c.tenant_id AND b.id = c.batch_id \
        LEFT JOIN (SELECT tenant_id, digest, count(*) AS n FROM mkt_coupon_code_use GROUP BY tenant_id, digest) u \
        ON u.tenant_id = c.tenant_id AND u.digest = c.digest";
    let checks = vec![
        check("K5", "a code belongs to a batch", "b.id IS NULL", says("the batch does not exist")),
        check(
            "K7",
            "a code's uses are counted, and no more than it may have",
            "c.use_count <> coalesce(u.n, 0) OR c.use_count > c.max_uses OR c.number < 0 \
             OR c.status NOT IN ('ACTIVE', 'DISABLED', 'REVOKED')",
            differs("use_count", "c.use_count", "coalesce(u.n, 0)"),
        ),
    ];
    let key = format!("{} || ' code ' || c.number", dialect.id("cdb_", "c.batch_id"));
    Group { with: String::new(), rows: rows.into(), owner: Some("c"), key, checks }
}

fn uses(dialect: Dialect) -> Group {
    let rows = "mkt_coupon_code_use u \
        LEFT JOIN mkt_user_coupon c ON c.tenant_id = u.tenant_id AND c.id = u.coupon_id \
        LEFT JOIN mkt_coupon_code k ON k.tenant_id = u.tenant_id AND k.digest = u.digest \
        LEFT JOIN mkt_coupon_code_batch b ON b.tenant_id = u.tenant_id AND b.id = u.batch_id";
    let checks = vec![check(
        "K8",
        "a use of a code names a code of its batch, and a coupon of the batch's template and of the code's holder",
        "c.id IS NULL OR c.source <> 'CODE' OR k.batch_id IS DISTINCT FROM u.batch_id \
         OR b.template_id IS DISTINCT FROM c.template_id OR c.member_id <> k.member_id",
        says("the code, its batch or its coupon is missing or another"),
    )];
    Group { with: String::new(), rows: rows.into(), owner: Some("u"), key: dialect.id("cpn_", "u.coupon_id"), checks }
}

/// Each event of a batch; the last change of its status is the status it has.
fn events(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, id, subject_id, member_id, type, data, \
        lead(id) OVER (PARTITION BY tenant_id, subject_id, type ORDER BY tx, ordinal) IS NULL AS is_last FROM event \
        WHERE type LIKE 'code_batch.%') e \
        LEFT JOIN mkt_coupon_code_batch b ON b.tenant_id = e.tenant_id AND b.id = e.subject_id";
    let checks = vec![
        check(
            "K10",
            "an event of a batch of codes names one, and no member",
            "b.id IS NULL OR e.member_id IS NOT NULL",
            says("the batch does not exist"),
        ),
        check(
            "K11",
            "a batch's status is what its last event says",
            "e.type = 'code_batch.status_changed' AND e.is_last \
             AND e.data IS DISTINCT FROM '{\"status\":\"' || b.status || '\"}'",
            differs("it", "e.data", "b.status"),
        ),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("e"), key: dialect.id("evt_", "e.id"), checks }
}
