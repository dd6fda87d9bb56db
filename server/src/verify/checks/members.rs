//! M: check-ins and tasks against the grants they made, the events that told of them, and each other.

use scrip_domain::task::Definition;

use super::{Dialect, Group, Reading, check, differs, equal, says};

pub fn groups(dialect: Dialect) -> Vec<Group> {
    vec![check_ins(dialect), reports(), prerequisites(dialect), progress(), tasks(dialect), adjustments(dialect)]
}

/// Every check-in beside the one before.
fn check_ins(dialect: Dialect) -> Group {
    let rows = "(SELECT tenant_id, member_id, day, streak, points, bonus, transaction_id, checked_in_at, made_up, \
        price_transaction_id, lag(day) OVER w AS prior_day, lag(streak) OVER w AS prior_streak, \
        sum(CASE WHEN made_up THEN 1 ELSE 0 END) OVER w - CASE WHEN made_up THEN 1 ELSE 0 END AS made_up_before \
        FROM mkt_points_check_in WINDOW w AS (PARTITION BY tenant_id, member_id ORDER BY day)) c \
        LEFT JOIN mkt_points_transaction t ON t.tenant_id = c.tenant_id AND t.id = c.transaction_id \
        LEFT JOIN mkt_points_transaction d ON d.tenant_id = c.tenant_id AND d.id = c.price_transaction_id \
        LEFT JOIN (SELECT tenant_id, subject_id, count(*) AS n, max(data) AS data FROM event \
         WHERE type = 'points.checked_in' GROUP BY tenant_id, subject_id) e \
        ON e.tenant_id = c.tenant_id AND e.subject_id = c.transaction_id";
    let number = |name| dialect.number("e.data", name);
    let told = number("streak");
    let checks = vec![
        check(
            "M1",
            "a check-in names its grant",
            "t.id IS NULL OR t.member_id <> c.member_id OR t.type <> 'EARN_CHECKIN' OR t.points <> c.points \
             OR t.occurred_at <> c.checked_in_at",
            differs("its points", "c.points", "t.points"),
        ),
        check(
            "M2",
            "a streak is one more than yesterday's, or 1",
            "c.streak <> CASE WHEN c.prior_day = c.day - 1 THEN c.prior_streak + 1 ELSE 1 END",
            "'a streak of ' || c.streak || ' on day ' || c.day || ' after ' || coalesce(c.prior_streak, 0)",
        ),
        check(
            "M3",
            "a check-in is told by one event",
            // A streak was shorter when it was told, if a day before it was made up since.
            format!(
                "coalesce(e.n, 0) <> 1 OR {told} IS NULL OR {told} > c.streak OR (c.made_up_before = 0 AND {told} <> c.streak) \
                 OR {} IS DISTINCT FROM c.points OR {} IS DISTINCT FROM c.bonus",
                number("points"),
                number("bonus")
            ),
            "coalesce(e.n, 0) || ' events, the data is ' || coalesce(e.data, 'none')",
        ),
        check(
            "M23",
            "a day that was made up is told as such, with the debit of its price, and no other has one",
            format!(
                "(e.data LIKE '%\"made_up\":true%') IS DISTINCT FROM c.made_up \
                 OR (NOT c.made_up AND c.price_transaction_id IS NOT NULL) \
                 OR (c.made_up AND coalesce({price}, 0) > 0) <> (c.price_transaction_id IS NOT NULL) \
                 OR (c.price_transaction_id IS NOT NULL AND (d.id IS NULL OR d.member_id <> c.member_id \
                  OR d.type <> 'USE_PRODUCT' OR d.points <> -{price} OR d.occurred_at <> c.checked_in_at))",
                price = number("price")
            ),
            "'its price is ' || coalesce(-d.points, 0) || ', the data is ' || coalesce(e.data, 'none')",
        ),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("c"), key: "c.member_id".into(), checks }
}

/// Adjustments that needed an approval, each beside the line that it made and the events that told of it. That a line has one
/// approval is the unique index's word (X1).
fn adjustments(dialect: Dialect) -> Group {
    let rows = "mkt_points_adjustment a \
        LEFT JOIN mkt_points_transaction t ON t.tenant_id = a.tenant_id AND t.id = a.transaction_id \
        LEFT JOIN (SELECT tenant_id, subject_id, \
         sum(CASE type WHEN 'points_adjustment.requested' THEN 1 ELSE 0 END) AS requested, \
         sum(CASE type WHEN 'points_adjustment.approved' THEN 1 ELSE 0 END) AS approved, \
         sum(CASE type WHEN 'points_adjustment.rejected' THEN 1 ELSE 0 END) AS rejected FROM event \
         WHERE type LIKE 'points_adjustment.%' GROUP BY tenant_id, subject_id) e \
        ON e.tenant_id = a.tenant_id AND e.subject_id = a.id";
    let checks = vec![
        check(
            "M20",
            "an approved adjustment has its line, and no other has one",
            "(a.status = 'APPROVED') <> (a.transaction_id IS NOT NULL) OR (a.transaction_id IS NOT NULL AND (t.id IS NULL \
             OR t.member_id <> a.member_id OR t.points <> a.points OR t.remark IS DISTINCT FROM a.reason \
             OR t.reference IS DISTINCT FROM a.reference OR t.recorded_at <> a.decided_at \
             OR t.type <> CASE WHEN a.points > 0 THEN 'EARN_ADMIN' ELSE 'DEDUCT_ADMIN' END))",
            differs("its points", "a.points", "t.points"),
        ),
        check(
            "M21",
            "an adjustment's columns fit its status, and two keys stand behind an approved one",
            "a.status NOT IN ('PENDING', 'APPROVED', 'REJECTED') OR a.points = 0 \
             OR (a.status = 'PENDING') <> (a.decided_at IS NULL) OR (a.status = 'REJECTED') <> (a.remark IS NOT NULL) \
             OR (a.status = 'PENDING' AND a.decided_by IS NOT NULL) \
             OR (a.status = 'APPROVED' AND a.decided_by IS NOT DISTINCT FROM a.requested_by)",
            "'its columns do not fit ' || a.status",
        ),
        check(
            "M22",
            "an adjustment and its end are told by one event each",
            "coalesce(e.requested, 0) <> 1 OR coalesce(e.approved, 0) <> CASE a.status WHEN 'APPROVED' THEN 1 ELSE 0 END \
             OR coalesce(e.rejected, 0) <> CASE a.status WHEN 'REJECTED' THEN 1 ELSE 0 END",
            "coalesce(e.requested, 0) || ', ' || coalesce(e.approved, 0) || ' and ' || coalesce(e.rejected, 0) || ' events'",
        ),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("a"), key: dialect.id("adj_", "a.id"), checks }
}

/// Every report of a task.
fn reports() -> Group {
    let rows = "mkt_user_task_completion r \
        LEFT JOIN mkt_points_transaction t ON t.tenant_id = r.tenant_id AND t.id = r.transaction_id \
        LEFT JOIN mkt_points_task k ON k.tenant_id = r.tenant_id AND k.task_key = r.task_key \
        LEFT JOIN mkt_user_task_progress p \
        ON p.tenant_id = r.tenant_id AND p.member_id = r.member_id AND p.task_key = r.task_key";
    let checks = vec![
        check(
            "M4",
            "a report that completed a task names its grant, and no other does",
            "(r.points > 0) <> (r.transaction_id IS NOT NULL) OR (r.transaction_id IS NOT NULL AND (t.id IS NULL \
             OR t.member_id <> r.member_id OR t.type <> 'EARN_TASK' OR t.points <> r.points \
             OR t.occurred_at <> r.reported_at))",
            differs("its points", "r.points", "t.points"),
        ),
        check("M5", "a report is of a task that exists", "k.id IS NULL", "'no task ' || r.task_key"),
        check("M7", "a report is counted", "p.member_id IS NULL", says("the progress is missing")),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("r"), key: "r.member_id".into(), checks }
}

/// Each completion beside each task that its task requires, where both are told: a definition that was edited since, or less
/// than [`SETTLED_MICROS`] before, says nothing of it, and a required task that was deleted had perhaps lapsed by then. Nor does
/// it say when a member took over what a merged account had completed.
fn prerequisites(dialect: Dialect) -> Group {
    let listed = match dialect {
        Dialect::Sqlite => {
            "CROSS JOIN json_each(CASE WHEN json_valid(k.definition) THEN coalesce(k.definition -> '$.requires', '[]') \
             ELSE '[]' END) v"
        }
        Dialect::Postgres => {
            "CROSS JOIN LATERAL json_array_elements_text(CASE WHEN k.definition LIKE '%\"requires\":[%' \
             THEN CAST(k.definition AS json) -> 'requires' END) v"
        }
    };
    let with = format!(
        "WITH required AS MATERIALIZED \
         (SELECT k.tenant_id, k.id, k.task_key, v.value AS required FROM mkt_points_task k {listed})"
    );
    let rows = "required q \
        JOIN mkt_points_task o ON o.tenant_id = q.tenant_id AND o.task_key = q.required AND o.deleted_at IS NULL \
        JOIN mkt_user_task_completion r ON r.tenant_id = q.tenant_id AND r.task_key = q.task_key \
        JOIN mkt_points_transaction t ON t.tenant_id = r.tenant_id AND t.id = r.transaction_id \
        JOIN (SELECT c.tenant_id, c.subject_id, max(c.recorded_at) AS at FROM event c \
         JOIN (SELECT DISTINCT tenant_id, id FROM required) w ON w.tenant_id = c.tenant_id AND w.id = c.subject_id \
         WHERE c.type IN ('points_task.created', 'points_task.updated') GROUP BY c.tenant_id, c.subject_id) e \
        ON e.tenant_id = q.tenant_id AND e.subject_id = q.id \
        LEFT JOIN (SELECT c.tenant_id, c.member_id, c.task_key, min(s.sequence) AS sequence FROM mkt_user_task_completion c \
         JOIN (SELECT DISTINCT tenant_id, required FROM required) w \
         ON w.tenant_id = c.tenant_id AND w.required = c.task_key \
         JOIN mkt_points_transaction s ON s.tenant_id = c.tenant_id AND s.id = c.transaction_id \
         GROUP BY c.tenant_id, c.member_id, c.task_key) a \
        ON a.tenant_id = r.tenant_id AND a.member_id = r.member_id AND a.task_key = q.required \
        LEFT JOIN mkt_user_task_progress p \
        ON p.tenant_id = r.tenant_id AND p.member_id = r.member_id AND p.task_key = q.required AND p.carried_total > 0";
    let checks = vec![check(
        "M24",
        "a completion follows one of each task that its task requires",
        format!(
            "t.recorded_at > e.at + {SETTLED_MICROS} AND p.member_id IS NULL \
             AND (a.sequence IS NULL OR a.sequence > t.sequence)"
        ),
        "r.task_key || ' was completed before ' || q.required",
    )];
    Group { with, rows: rows.into(), owner: Some("q"), key: "r.member_id".into(), checks }
}

/// How long after an edit a report may still be decided by what was before: longer than any batch takes, and than nodes'
/// clocks differ.
const SETTLED_MICROS: i64 = 60_000_000;

/// A completion takes all steps before it, so the steps that are left are the reports without those of completions, and what
/// came with merged accounts. Those of a later period may have begun it.
fn progress() -> Group {
    let rows = "mkt_user_task_progress p \
        LEFT JOIN (SELECT tenant_id, member_id, task_key, max(period_start) AS period_start, \
         sum(CASE WHEN transaction_id IS NULL THEN 0 ELSE 1 END) AS completions \
         FROM mkt_user_task_completion GROUP BY tenant_id, member_id, task_key) a \
        ON a.tenant_id = p.tenant_id AND a.member_id = p.member_id AND a.task_key = p.task_key \
        LEFT JOIN (SELECT tenant_id, member_id, task_key, period_start, \
         sum(CASE WHEN transaction_id IS NULL THEN 0 ELSE 1 END) AS completions, \
         count(*) - sum(CASE WHEN transaction_id IS NULL THEN 0 ELSE step END) AS steps \
         FROM mkt_user_task_completion GROUP BY tenant_id, member_id, task_key, period_start) r \
        ON r.tenant_id = p.tenant_id AND r.member_id = p.member_id AND r.task_key = p.task_key \
        AND r.period_start = p.period_start \
        LEFT JOIN (SELECT s.tenant_id, s.merged_into AS member_id, x.task_key, max(x.period_start) AS period_start, \
         sum(x.total_completions) AS completions FROM mkt_points_account s \
         JOIN mkt_user_task_progress x ON x.tenant_id = s.tenant_id AND x.member_id = s.member_id \
         WHERE s.merged_into IS NOT NULL GROUP BY s.tenant_id, s.merged_into, x.task_key) m \
        ON m.tenant_id = p.tenant_id AND m.member_id = p.member_id AND m.task_key = p.task_key";
    let shown = "p.period_start || ' ' || p.steps || ' ' || p.completions || ' ' || p.total_completions";
    let expected = "CASE WHEN p.carried_steps + p.carried_total > 0 AND (a.period_start IS NULL OR m.period_start > a.period_start) \
         THEN m.period_start ELSE a.period_start END \
         || ' ' || (coalesce(r.steps, 0) + p.carried_steps) || ' ' || (coalesce(r.completions, 0) + p.carried_completions) \
         || ' ' || (coalesce(a.completions, 0) + p.carried_total)";
    let checks = vec![
        equal("M6", "progress is what the reports add up to, and what was carried over", "progress", shown, expected),
        check(
            "M25",
            "a member carries over no more than the merged accounts had completed",
            "p.carried_total > coalesce(m.completions, 0)",
            differs("what was carried", "p.carried_total", "m.completions"),
        ),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("p"), key: "p.member_id".into(), checks }
}

fn tasks(dialect: Dialect) -> Group {
    let rows = "mkt_points_task k \
        LEFT JOIN (SELECT tenant_id, subject_id, sum(CASE type WHEN 'points_task.created' THEN 1 ELSE 0 END) AS created, \
         sum(CASE type WHEN 'points_task.updated' THEN 1 ELSE 0 END) AS updated, \
         sum(CASE type WHEN 'points_task.deleted' THEN 1 ELSE 0 END) AS deleted, \
         sum(CASE WHEN type IN ('points_task.progressed', 'points_task.completed') THEN 1 ELSE 0 END) AS reports \
         FROM event WHERE type LIKE 'points_task.%' GROUP BY tenant_id, subject_id) e \
        ON e.tenant_id = k.tenant_id AND e.subject_id = k.id \
        LEFT JOIN (SELECT tenant_id, task_key, count(*) AS n FROM mkt_user_task_completion \
         GROUP BY tenant_id, task_key) r ON r.tenant_id = k.tenant_id AND r.task_key = k.task_key";
    let checks = vec![
        check(
            "M8",
            "a task's version and end are what its events say",
            "coalesce(e.created, 0) <> 1 OR k.version <> 1 + e.updated + e.deleted \
             OR (k.deleted_at IS NOT NULL) <> (e.deleted = 1)",
            "'version ' || k.version || ' after ' || coalesce(e.updated, 0) || ' edits'",
        ),
        equal("M9", "every report is told by one event", "events", "coalesce(e.reports, 0)", "coalesce(r.n, 0)"),
    ];
    Group { with: String::new(), rows: rows.into(), owner: Some("k"), key: dialect.id("task_", "k.id"), checks }
}

/// M10: what operators have authored must be readable, and the column by which events find a task must say the same.
pub fn reading() -> Reading {
    Reading {
        id: "M10",
        title: "a task's definition can be read, and its event type is that of its row",
        sql: "SELECT tenant_id, task_key AS key, definition, event_type FROM mkt_points_task".into(),
        judge: |row| {
            let definition = match row.json::<Definition>(2) {
                Ok(definition) => definition,
                Err(error) => return Ok(Some(format!("the definition cannot be read: {error}"))),
            };
            let of_row = row.opt_text(3)?;
            Ok((definition.event_type != of_row).then(|| format!("event type {of_row:?}")))
        },
    }
}
