//! C: templates against their versions, their coupons, their uses and their events.

use scrip_domain::coupon::Definition;

use super::{Check, Dialect, Group, Reading, check, differs, equal, says};

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![templates(dialect), versions(dialect), uses(dialect)]
}

fn templates(dialect: Dialect) -> Group {
    let kind = |name: &str| format!("sum(CASE type WHEN 'coupon_template.{name}' THEN 1 ELSE 0 END)");
    let periods = [("day", "daily_cap"), ("week", "weekly_cap"), ("month", "monthly_cap")];
    let counted = periods.map(|(unit, cap)| {
        format!(
            "sum(CASE WHEN w.{cap} IS NOT NULL AND c.claimed_at >= d.{unit}_starts_at AND c.claimed_at < d.{unit}_ends_at \
             THEN 1 ELSE 0 END) AS {unit}, max(CASE WHEN w.{cap} IS NULL THEN 0 ELSE 1 END) AS any_{unit}"
        )
    });
    let counted = counted.join(", ");
    let miscounted = periods.map(|(unit, _)| {
        format!(
            "t.{unit}_claimed IS DISTINCT FROM CASE WHEN t.{unit}_starts_at IS NULL THEN NULL ELSE coalesce(y.{unit}, 0) END \
             OR (t.{unit}_starts_at IS NULL AND y.any_{unit} = 1) OR t.{unit}_claimed > t.{unit}_ceiling OR t.{unit}_starts_at >= t.{unit}_ends_at"
        )
    });
    let shown = periods.map(|(unit, _)| {
        format!(
            "coalesce(t.{unit}_claimed || ' a {unit} instead of ' || coalesce(y.{unit}, 0) || ', at most ' || t.{unit}_ceiling, \
             'none a {unit}')"
        )
    });
    let rows = format!(
        "mkt_coupon_template t \
         LEFT JOIN versions v ON v.tenant_id = t.tenant_id AND v.template_id = t.id AND v.version = t.version \
         LEFT JOIN (SELECT tenant_id, template_id, count(*) AS n, min(version) AS oldest, max(version) AS newest, \
          max(CASE version WHEN 1 THEN created_at END) AS began_at FROM mkt_coupon_template_version \
          GROUP BY tenant_id, template_id) s ON s.tenant_id = t.tenant_id AND s.template_id = t.id \
         LEFT JOIN (SELECT c.tenant_id, c.template_id, sum(CASE c.source WHEN 'TRANSFER' THEN 0 ELSE 1 END) AS claimed, \
          sum(CASE c.status WHEN 'USED' THEN 1 ELSE 0 END) AS used, \
          sum(CASE c.source WHEN 'TRANSFER' THEN 0 ELSE coalesce(w.most_off, 0) END) AS committed FROM mkt_user_coupon c \
          LEFT JOIN versions w \
          ON w.tenant_id = c.tenant_id AND w.template_id = c.template_id AND w.version = c.template_version \
          GROUP BY c.tenant_id, c.template_id) n ON n.tenant_id = t.tenant_id AND n.template_id = t.id \
         LEFT JOIN (SELECT d.tenant_id, d.id, {counted} FROM mkt_coupon_template d CROSS JOIN mkt_user_coupon c \
          CROSS JOIN versions w \
          WHERE coalesce(w.daily_cap, w.weekly_cap, w.monthly_cap) IS NOT NULL \
          AND c.tenant_id = d.tenant_id AND c.template_id = d.id AND c.source NOT IN ('TRANSFER', 'IMPORT') \
          AND w.tenant_id = c.tenant_id AND w.template_id = c.template_id AND w.version = c.template_version \
          GROUP BY d.tenant_id, d.id) y ON y.tenant_id = t.tenant_id AND y.id = t.id \
         LEFT JOIN (SELECT tenant_id, template_id, count(*) AS n FROM mkt_coupon_code_batch \
          GROUP BY tenant_id, template_id) b ON b.tenant_id = t.tenant_id AND b.template_id = t.id \
         LEFT JOIN (SELECT tenant_id, template_id, sum(used_count) AS used FROM mkt_coupon_template_use \
          GROUP BY tenant_id, template_id) u ON u.tenant_id = t.tenant_id AND u.template_id = t.id \
         LEFT JOIN (SELECT tenant_id, subject_id, count(*) AS n, {} - {} AS disabled, {} AS archived, \
          sum(CASE type WHEN 'coupon_template.created' THEN {} WHEN 'coupon_template.stock_changed' THEN {} END) AS stock, \
          max(CASE type WHEN 'coupon_template.created' THEN {} END) AS first_stock \
          FROM event WHERE type LIKE 'coupon_template.%' \
          AND type NOT IN ('coupon_template.started', 'coupon_template.ended') GROUP BY tenant_id, subject_id) e \
         ON e.tenant_id = t.tenant_id AND e.subject_id = t.id",
        kind("disabled"),
        kind("enabled"),
        kind("archived"),
        dialect.number("data", "total_stock"),
        dialect.number("data", "change"),
        dialect.number("data", "total_stock"),
    );
    let checks = vec![
        check(
            "C1",
            "stock: total = remaining + claimed, nothing negative",
            "t.remaining_stock < 0 OR t.claimed_count < 0 OR t.total_stock <> t.remaining_stock + t.claimed_count \
             OR (t.total_stock IS NULL) <> (t.remaining_stock IS NULL)",
            differs("total_stock", "t.total_stock", "(t.remaining_stock + t.claimed_count)"),
        ),
        equal("C2", "claimed_count counts the coupons", "claimed_count", "t.claimed_count", "coalesce(n.claimed, 0)"),
        equal(
            "C3",
            "the count of uses counts the used coupons",
            "used_count",
            "coalesce(u.used, 0)",
            "coalesce(n.used, 0)",
        ),
        check(
            "C7",
            "a template's versions are numbered 1 to the current one, without gaps",
            "coalesce(s.n, 0) <> t.version OR s.oldest <> 1 OR s.newest <> t.version",
            differs(
                "version",
                "t.version",
                "coalesce(s.n, 0) || ' versions, from ' || coalesce(s.oldest, 0) || ' to ' || coalesce(s.newest, 0)",
            ),
        ),
        check(
            "C14",
            "a template's columns are those of its current definition",
            "v.version IS NOT NULL AND (t.type IS DISTINCT FROM v.benefit \
             OR t.distribution_starts_at IS DISTINCT FROM v.distribution_starts_at \
             OR t.distribution_ends_at IS DISTINCT FROM v.distribution_ends_at OR t.budget IS DISTINCT FROM v.budget)",
            differs(
                "it",
                "t.type || ', ' || coalesce(t.distribution_starts_at, 0) || ' to ' || coalesce(t.distribution_ends_at, 0)",
                "v.benefit || ', ' || coalesce(v.distribution_starts_at, 0) || ' to ' \
                 || coalesce(v.distribution_ends_at, 0)",
            ),
        ),
        check(
            "C16",
            "a template began with its first version and was changed by its current one",
            "t.created_at IS DISTINCT FROM s.began_at OR t.updated_at IS DISTINCT FROM v.created_at",
            differs("its time", "t.created_at || ' to ' || t.updated_at", "s.began_at || ' to ' || v.created_at"),
        ),
        equal("E17", "every version of a template is told by one event", "version", "t.version", "coalesce(e.n, 0)"),
        equal(
            "C20",
            "committed_amount is the most that the claimed coupons can take off",
            "committed_amount",
            "t.committed_amount",
            "coalesce(n.committed, 0)",
        ),
        check(
            "C21",
            "a template's budget covers what is committed",
            "t.committed_amount < 0 OR t.committed_amount > t.budget",
            differs("committed_amount", "t.committed_amount", "t.budget || ' or less'"),
        ),
        check(
            "C22",
            "the claims of the latest day, week and month under a cap are counted, and within it",
            miscounted.join(" OR "),
            format!("'claimed: ' || {}", shown.join(" || ', ' || ")),
        ),
        equal(
            "C23",
            "code_batch_count counts the batches of codes",
            "code_batch_count",
            "t.code_batch_count",
            "coalesce(b.n, 0)",
        ),
        check(
            "C24",
            "an archived template is disabled, and archived by one event",
            "(t.archived_at IS NOT NULL AND t.enabled) \
             OR coalesce(e.archived, 0) <> CASE WHEN t.archived_at IS NULL THEN 0 ELSE 1 END",
            says("archived_at is wrong"),
        ),
        check(
            "E18",
            "a template is enabled or disabled as its events say",
            "CASE WHEN t.archived_at IS NULL THEN coalesce(e.disabled, 0) <> CASE WHEN t.enabled THEN 0 ELSE 1 END \
             ELSE t.enabled OR coalesce(e.disabled, 0) NOT IN (0, 1) END",
            says("enabled is wrong"),
        ),
        check(
            "E19",
            "a template's stock is what its events say, where they tell the first stock",
            "e.first_stock IS NOT NULL AND t.total_stock IS DISTINCT FROM e.stock",
            differs("total_stock", "t.total_stock", "e.stock"),
        ),
    ];
    Group { with: dialect.versions(), rows, owner: Some("t"), key: dialect.id("tpl_", "t.id"), checks }
}

/// Each version beside the one before it and the event that tells of it: the n-th event of a template made its version n.
fn versions(dialect: Dialect) -> Group {
    let rows = "mkt_coupon_template_version v \
        LEFT JOIN mkt_coupon_template t ON t.tenant_id = v.tenant_id AND t.id = v.template_id \
        LEFT JOIN mkt_coupon_template_version p \
        ON p.tenant_id = v.tenant_id AND p.template_id = v.template_id AND p.version = v.version - 1 \
        LEFT JOIN (SELECT tenant_id, subject_id, type, occurred_at, \
         row_number() OVER (PARTITION BY tenant_id, subject_id ORDER BY tx, ordinal) AS n FROM event \
         WHERE type LIKE 'coupon_template.%' \
          AND type NOT IN ('coupon_template.started', 'coupon_template.ended')) e \
        ON e.tenant_id = v.tenant_id AND e.subject_id = v.template_id AND e.n = v.version";
    let checks = vec![
        orphan("C17", "a version belongs to a template"),
        check(
            "C18",
            "only an update changes a definition",
            "e.type NOT IN ('coupon_template.created', 'coupon_template.updated') AND v.definition <> p.definition",
            "'the definition differs from the version before, after ' || e.type",
        ),
        check(
            "E20",
            "a version's event tells its time, and that it was created or changed",
            "e.type IS NULL OR e.occurred_at <> v.created_at OR (e.type = 'coupon_template.created') <> (v.version = 1)",
            differs("it", "v.created_at", "e.type || ' at ' || e.occurred_at"),
        ),
    ];
    let key = version_key(dialect);
    Group { with: String::new(), rows: rows.into(), owner: Some("v"), key, checks }
}

fn uses(dialect: Dialect) -> Group {
    let rows = "mkt_coupon_template_use v LEFT JOIN mkt_coupon_template t \
                ON t.tenant_id = v.tenant_id AND t.id = v.template_id";
    let checks = vec![orphan("C19", "a count of uses belongs to a template")];
    let key = dialect.id("tpl_", "v.template_id");
    Group { with: String::new(), rows: rows.into(), owner: Some("v"), key, checks }
}

fn orphan(id: &'static str, title: &'static str) -> Check {
    check(id, title, "t.id IS NULL", says("the template does not exist"))
}

fn version_key(dialect: Dialect) -> String {
    format!("{} || ' version ' || v.version", dialect.id("tpl_", "v.template_id"))
}

/// C9. Checks that look into definitions cannot judge what this one names.
pub fn reading(dialect: Dialect) -> Reading {
    let key = version_key(dialect);
    Reading {
        id: "C9",
        title: "definitions can be read",
        sql: format!("SELECT v.tenant_id, {key} AS key, v.definition FROM mkt_coupon_template_version v"),
        judge: |row| Ok(row.json::<Definition>(2).err().map(|error| error.to_string())),
    }
}
