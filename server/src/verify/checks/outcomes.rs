//! X4: the answers recorded under idempotency keys.

use scrip_domain::Outcome;

use super::{Dialect, Reading};

/// Every outcome must be readable, or a retry could not be answered; and what it names must exist, but for a template
/// or webhook that was deleted since.
pub fn reading(dialect: Dialect) -> Reading {
    // An outcome's JSON begins with its kind and the id of what it names: {"Coupon":{"i":"cpn_... Both are taken out once
    // for each row: without its end, the inner statement would become part of every join.
    let (key, kind, named, once) = match dialect {
        Dialect::Sqlite => (
            "lower(hex(i.key))",
            "substr(outcome, 3, instr(outcome, '\":') - 3)",
            "unhex(substr(outcome, instr(outcome, '_') + 1, 32))",
            "LIMIT -1",
        ),
        Dialect::Postgres => (
            "encode(i.key, 'hex')",
            "substr(outcome, 3, greatest(strpos(outcome, '\":') - 3, 0))",
            "CASE WHEN substr(outcome, strpos(outcome, '_') + 1, 32) ~ '^[0-9a-f]{32}$' \
             THEN CAST(substr(outcome, strpos(outcome, '_') + 1, 32) AS uuid) END",
            "OFFSET 0",
        ),
    };
    // Grouped, SQLite makes a relation of it and looks up; else it would walk the events for each outcome.
    let deleted = "(SELECT tenant_id, subject_id FROM event WHERE type IN ('coupon_template.deleted', 'webhook.deleted') \
                   GROUP BY tenant_id, subject_id)";
    let tables = [
        ("Coupon", "mkt_user_coupon", "id"),
        ("Exchange", "mkt_user_coupon", "id"),
        ("Adjustment", "mkt_points_adjustment", "id"),
        ("Transaction", "mkt_points_transaction", "id"),
        ("Hold", "mkt_points_hold", "id"),
        ("Transfer", "mkt_points_transaction", "id"),
        ("Imported", "mkt_points_transaction", "id"),
        ("CheckIn", "mkt_points_transaction", "id"),
        ("Report", "mkt_points_transaction", "id"),
        ("Task", "mkt_points_task", "id"),
        ("Template", "mkt_coupon_template", "id"),
        ("Template", deleted, "subject_id"),
        ("Order", "mkt_order", "id"),
        ("Refund", "mkt_order", "id"),
        ("Compensation", "mkt_coupon_refund_compensation", "id"),
        ("ApiKey", "api_key", "id"),
        ("Webhook", "webhook", "id"),
        ("Webhook", deleted, "subject_id"),
        ("CodeBatch", "mkt_coupon_code_batch", "id"),
        ("CodesAdded", "mkt_coupon_code_batch", "id"),
        ("Bulk", "bulk", "id"),
        // A tenant is made under no tenant, a program under its parent.
        ("Tenant", "tenant", "tenant_id"),
    ];
    let mut joins = String::new();
    let mut found = Vec::new();
    for (number, (kind, table, column)) in tables.iter().enumerate() {
        let owner = if *kind == "Tenant" { String::new() } else { format!("r{number}.tenant_id = i.tenant_id AND ") };
        joins += &format!(
            " LEFT JOIN {table} r{number} \
             ON {owner}r{number}.{column} = CASE i.kind WHEN '{kind}' THEN i.named END"
        );
        found.push(format!("r{number}.{column}"));
    }
    Reading {
        id: "X4",
        title: "recorded outcomes can be read, and what they name exists",
        sql: format!(
            "SELECT i.tenant_id, {key} AS key, i.outcome, coalesce({}) IS NOT NULL AS found FROM \
             (SELECT tenant_id, key, outcome, {kind} AS kind, {named} AS named FROM idempotency {once}) i{joins}",
            found.join(", ")
        ),
        judge: |row| {
            let outcome = match row.json::<Outcome>(2) {
                Ok(outcome) => outcome,
                Err(error) => return Ok(Some(format!("the recorded outcome cannot be read: {error}"))),
            };
            // A job is deleted after its time, perhaps before the outcome.
            let names_nothing = match &outcome {
                Outcome::Rules(_)
                | Outcome::Deleted
                | Outcome::Settled(_)
                | Outcome::Swept(_)
                | Outcome::Job(_)
                | Outcome::Announced(_) => true,
                Outcome::Report { report, .. } => report.transaction_id.is_none(),
                _ => false,
            };
            let is_found = names_nothing || row.bool(3)?;
            Ok((!is_found).then(|| "what the recorded outcome names does not exist".to_owned()))
        },
    }
}
