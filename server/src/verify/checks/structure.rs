//! X: what the schema promises is still there: indexes, constraints, owners.

use scrip_domain::tenant::MAX_PROGRAMS;

use super::{Check, Dialect, Group, check, differs, says};
use crate::store::StoreError;
use crate::store::migrate::MIGRATIONS;

/// The tables whose rows are verified.
pub const TABLES: &[&str] = &[
    "tenant",
    "api_key",
    "mkt_coupon_template",
    "mkt_coupon_template_version",
    "mkt_coupon_template_use",
    "mkt_coupon_code_batch",
    "mkt_coupon_code",
    "mkt_coupon_code_use",
    "mkt_coupon_exchange",
    "mkt_points_adjustment",
    "mkt_user_coupon",
    "mkt_points_account",
    "mkt_points_lot",
    "mkt_points_transaction",
    "mkt_points_hold",
    "mkt_points_reversal",
    "mkt_points_rule",
    "job",
    "mkt_order",
    "mkt_order_refund",
    "mkt_coupon_refund_compensation",
    "template_window",
    "points_reminder",
    "bulk",
    "bulk_chunk",
    "mkt_points_check_in",
    "mkt_points_task",
    "mkt_user_task_progress",
    "mkt_user_task_completion",
    "event",
    "idempotency",
    "webhook",
    "webhook_progress",
    "webhook_parked",
    "webhook_delivery",
    "broker_progress",
];

/// The indexes that hot queries and uniqueness rest on.
const INDEXES: &[&str] = &[
    "uq_api_key_secret",
    "uq_tenant_program",
    "idx_template_tenant_status",
    "idx_template_tenant_type",
    "idx_template_distribution_time",
    "uq_user_coupon_sequence",
    "idx_user_coupon_member",
    "idx_user_coupon_template",
    "idx_user_coupon_expire",
    "idx_user_coupon_lock",
    "idx_points_account_member",
    "idx_points_account_total",
    "idx_points_lot_open",
    "idx_points_lot_expire",
    "idx_points_transaction_member",
    "idx_points_transaction_type",
    "idx_points_transaction_expire",
    "idx_points_transaction_late",
    "idx_points_hold_member",
    "idx_points_hold_expire",
    "idx_points_rule_date",
    "uq_order_id",
    "idx_order_member",
    "idx_order_deadline",
    "idx_order_paid",
    "idx_order_earn",
    "uq_compensation_coupon",
    "idx_compensation_status",
    "idx_points_hold_pending",
    "idx_points_hold_status",
    "idx_points_account_merged",
    "uq_points_task_id",
    "idx_idempotency_created",
    "idx_job_due",
    "idx_job_lease",
    "idx_job_state",
    "idx_job_finished",
    "idx_webhook_parked_due",
    "idx_code_batch_template",
    "idx_code_batch_open",
    "uq_code_number",
    "idx_code_use_batch",
    "uq_exchange_transaction",
    "idx_adjustment_status",
    "uq_adjustment_transaction",
    "idx_user_coupon_used",
    "idx_user_coupon_used_template",
    "idx_template_distribution_end",
    "idx_bulk_kind",
    "idx_bulk_chunk_first",
];

pub fn groups(dialect: Dialect) -> Result<Vec<Group>, StoreError> {
    Ok(vec![indexes(dialect), soundness(dialect), tenants(), constraints(dialect)?, keys(dialect), programs(dialect)])
}

fn indexes(dialect: Dialect) -> Group {
    let existing = match dialect {
        Dialect::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'index'",
        Dialect::Postgres => {
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND i.indisvalid AND i.indisready"
        }
    };
    let broken = format!("w.name NOT IN ({existing})");
    let checks = vec![check("X1", "every index exists and is valid", broken, says("the index is missing or invalid"))];
    of_schema(named(INDEXES.iter().copied()), "w.name", checks)
}

fn soundness(dialect: Dialect) -> Group {
    match dialect {
        Dialect::Sqlite => of_schema(
            "pragma_integrity_check w".into(),
            "'integrity_check'",
            vec![check("X2", "the database file is sound", "w.integrity_check <> 'ok'", "w.integrity_check")],
        ),
        Dialect::Postgres => of_schema(
            "pg_constraint w".into(),
            "CAST(w.conname AS text)",
            vec![check(
                "X2",
                "every constraint is validated",
                "w.connamespace = CAST(current_schema() AS regnamespace) AND NOT w.convalidated",
                says("the constraint is not validated"),
            )],
        ),
    }
}

fn tenants() -> Group {
    // An outcome may belong to no tenant; events and jobs have checks of their own.
    let tables = TABLES.iter().filter(|table| !matches!(**table, "tenant" | "idempotency" | "event" | "job"));
    let owners: Vec<String> =
        tables.map(|table| format!("SELECT DISTINCT tenant_id, '{table}' AS name FROM {table}")).collect();
    let rows = format!("({}) r LEFT JOIN tenant t ON t.tenant_id = r.tenant_id", owners.join(" UNION ALL "));
    let broken = "t.tenant_id IS NULL";
    let checks =
        vec![check("X3", "every row belongs to a tenant", broken, says("rows of a tenant that does not exist"))];
    Group { with: String::new(), rows, owner: Some("r"), key: "r.name".into(), checks }
}

/// SQLite keeps a table's text, so it must be the one that the migrations make. PostgreSQL keeps constraints by name.
fn constraints(dialect: Dialect) -> Result<Group, StoreError> {
    let title = "every table has the keys and constraints it was made with";
    if dialect == Dialect::Postgres {
        let broken = "w.name NOT IN (SELECT conname FROM pg_constraint \
                      WHERE connamespace = CAST(current_schema() AS regnamespace))";
        let checks = vec![check("X5", title, broken, says("the constraint is missing"))];
        return Ok(of_schema(named(CONSTRAINTS.iter().flat_map(|names| names.split_whitespace())), "w.name", checks));
    }
    let model = rusqlite::Connection::open_in_memory()?;
    for migration in MIGRATIONS {
        model.execute_batch(migration.sqlite)?;
    }
    let mut tables = model.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'table'")?;
    let tables = tables
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .map(|table| table.map(|(name, sql)| format!("SELECT '{name}' AS name, '{}' AS sql", sql.replace('\'', "''"))))
        .collect::<Result<Vec<_>, _>>()?;
    let rows =
        format!("({}) w LEFT JOIN sqlite_master m ON m.type = 'table' AND m.name = w.name", tables.join(" UNION ALL "));
    let checks = vec![check("X5", title, "m.sql IS DISTINCT FROM w.sql", says("the table is missing or another"))];
    Ok(of_schema(rows, "w.name", checks))
}

fn keys(dialect: Dialect) -> Group {
    let checks = vec![check(
        "X6",
        "a key that names a member is a member's key, and the other way round",
        "k.scope NOT IN ('OPERATOR', 'SERVICE', 'MEMBER') OR (k.scope = 'MEMBER') <> (k.member_id IS NOT NULL)",
        "k.scope || ' of ' || coalesce(k.member_id, 'nobody')",
    )];
    Group { with: String::new(), rows: "api_key k".into(), owner: Some("k"), key: dialect.id("key_", "k.id"), checks }
}

fn programs(dialect: Dialect) -> Group {
    let checks = vec![
        check(
            "X7",
            "a program belongs to a tenant that is none",
            "t.parent_id IS NOT NULL AND (p.tenant_id IS NULL OR p.parent_id IS NOT NULL)",
            "t.program || ' of ' || coalesce(p.program, 'a tenant that does not exist')",
        ),
        check(
            "X8",
            "a program has its tenant's currency",
            "p.currency <> t.currency",
            differs("it", "t.currency", "p.currency"),
        ),
        check(
            "X9",
            "a tenant has no more programs than it may, and a program no keys",
            format!(
                "(SELECT count(*) FROM tenant o WHERE o.parent_id = t.tenant_id) > {MAX_PROGRAMS} \
                 OR (t.parent_id IS NOT NULL AND EXISTS (SELECT 1 FROM api_key k WHERE k.tenant_id = t.tenant_id))"
            ),
            says("too many programs, or keys of a program"),
        ),
    ];
    let rows = "tenant t LEFT JOIN tenant p ON p.tenant_id = t.parent_id".into();
    Group { with: String::new(), rows, owner: Some("t"), key: dialect.id("ten_", "t.tenant_id"), checks }
}

/// Checks of what belongs to no tenant.
fn of_schema(rows: String, key: &str, checks: Vec<Check>) -> Group {
    Group { with: String::new(), rows, owner: None, key: key.into(), checks }
}

/// The names as the relation `w`.
fn named<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("SELECT '{name}' AS name")).collect();
    format!("({}) w", names.join(" UNION ALL "))
}

/// PostgreSQL's names: a constraint without one of its own is called after its table and column.
const CONSTRAINTS: &[&str] = &[
    "tenant_pkey tenant_refund_grace_days_check tenant_parent_id_fkey ck_tenant_program",
    "api_key_adjustment_limit_check api_key_pkey api_key_check api_key_scope_check api_key_tenant_id_fkey",
    "platform_key_pkey platform_key_id_check",
    "mkt_coupon_template_pkey ck_template_stock mkt_coupon_template_claimed_count_check \
     mkt_coupon_template_remaining_stock_check mkt_coupon_template_version_check mkt_coupon_template_tenant_id_fkey",
    "ck_template_budget ck_template_day ck_template_week ck_template_month ck_template_code_batches ck_template_archived",
    "code_key_pkey code_key_id_check",
    "mkt_coupon_code_batch_pkey ck_code_batch_counts ck_code_batch_sealed mkt_coupon_code_batch_kind_check \
     mkt_coupon_code_batch_max_uses_check mkt_coupon_code_batch_status_check mkt_coupon_code_batch_claimed_count_check",
    "mkt_coupon_code_pkey ck_code_uses mkt_coupon_code_number_check mkt_coupon_code_status_check",
    "mkt_points_adjustment_pkey ck_adjustment_decided ck_adjustment_transaction ck_adjustment_rejected ck_adjustment_second \
     mkt_points_adjustment_points_check mkt_points_adjustment_status_check",
    "mkt_coupon_code_use_pkey mkt_coupon_exchange_pkey mkt_coupon_exchange_points_check",
    "mkt_coupon_template_version_pkey mkt_coupon_template_version_tenant_id_template_id_fkey",
    "mkt_coupon_template_use_pkey",
    "mkt_user_coupon_pkey ck_user_coupon_order ck_user_coupon_used mkt_user_coupon_discount_amount_check \
     mkt_user_coupon_sequence_check mkt_user_coupon_status_check",
    "idx_points_account_member ck_account_total mkt_points_account_available_check mkt_points_account_frozen_check \
     mkt_points_account_used_check mkt_points_account_expired_check mkt_points_account_revoked_check \
     mkt_points_account_debt_check mkt_points_account_sequence_check ck_account_earned",
    "mkt_points_lot_pkey ck_lot_points ck_lot_open ck_lot_idle mkt_points_lot_points_check mkt_points_lot_remaining_check \
     mkt_points_lot_held_check mkt_points_lot_used_check mkt_points_lot_expired_check mkt_points_lot_revoked_check \
     mkt_points_lot_moved_check",
    "mkt_points_transaction_pkey ck_transaction_balance mkt_points_transaction_sequence_check \
     mkt_points_transaction_balance_before_check mkt_points_transaction_balance_after_check \
     mkt_points_transaction_frozen_after_check mkt_points_transaction_debt_after_check \
     ck_transaction_forgiven",
    "mkt_points_hold_pkey ck_hold_points ck_hold_closed mkt_points_hold_points_check mkt_points_hold_captured_check \
     mkt_points_hold_released_check mkt_points_hold_status_check",
    "mkt_points_reversal_pkey ck_reversal_bound",
    "mkt_points_rule_pkey mkt_points_rule_version_check mkt_points_rule_tenant_id_fkey",
    "bulk_pkey ck_bulk_template ck_bulk_rows ck_bulk_finished ck_bulk_done ck_bulk_results bulk_kind_check bulk_row_count_check \
     bulk_chunks_check bulk_skipped_check bulk_status_check bulk_next_chunk_check bulk_accepted_check bulk_refused_check",
    "template_window_pkey points_reminder_pkey points_reminder_days_before_check",
    "bulk_chunk_pkey bulk_chunk_number_check bulk_chunk_first_row_check bulk_chunk_skipped_check \
     bulk_chunk_accepted_check bulk_chunk_refused_check",
    "job_pkey ck_job_fence ck_job_lease ck_job_finished job_pool_check job_priority_check job_max_attempts_check \
     job_every_check job_state_check job_attempts_check lease_pkey lease_token_check",
    "mkt_order_pkey ck_order_total ck_order_paid ck_order_closed ck_order_earned ck_order_refunded ck_order_cut \
     mkt_order_original_amount_check mkt_order_coupon_discount_check mkt_order_freight_discount_check \
     mkt_order_points_discount_check mkt_order_freight_check mkt_order_pay_amount_check mkt_order_points_spent_check \
     mkt_order_points_to_earn_check mkt_order_coupon_count_check mkt_order_status_check mkt_order_points_granted_check",
    "mkt_order_refund_pkey mkt_order_refund_freight_check mkt_order_refund_check mkt_order_refund_points_returned_check \
     mkt_order_refund_points_clawed_back_check mkt_order_refund_check1 mkt_order_refund_order_status_check \
     ck_refund_forgiven",
    "mkt_coupon_refund_compensation_pkey ck_compensation_closed mkt_coupon_refund_compensation_reason_check \
     mkt_coupon_refund_compensation_status_check",
    "mkt_points_check_in_pkey ck_check_in_points ck_check_in_price mkt_points_task_pkey ck_task_deleted mkt_points_task_version_check \
     mkt_user_task_progress_pkey ck_task_progress ck_progress_carried_steps ck_progress_carried ck_progress_carried_total \
     mkt_user_task_completion_pkey ck_task_completion task_cursor_pkey",
    "event_pkey idempotency_pkey schema_migration_pkey",
    "webhook_pkey ck_webhook_previous webhook_disabled_reason_check webhook_tenant_id_fkey webhook_progress_pkey \
     webhook_progress_tenant_id_webhook_id_fkey webhook_parked_pkey webhook_parked_attempts_check \
     webhook_parked_tenant_id_webhook_id_fkey webhook_delivery_pkey webhook_delivery_attempt_check \
     webhook_delivery_tenant_id_webhook_id_fkey broker_progress_pkey",
];
