//! Single rows, each spoilt in one place: the check that is there for it must find it, and something must name the row.

use crate::harness::Kind;
use crate::verify::{Patient, check};

/// One row spoilt.
struct Corruption {
    /// The check that must notice.
    check: &'static str,
    table: &'static str,
    /// Which rows may be spoilt; the first one is.
    pick: &'static str,
    /// `SET ...`, or `DELETE`.
    change: &'static str,
    /// The prefix and the column of the id by which a violation must name it.
    names: (&'static str, &'static str),
}

const fn row(
    check: &'static str,
    table: &'static str,
    pick: &'static str,
    change: &'static str,
    names: (&'static str, &'static str),
) -> Corruption {
    Corruption { check, table, pick, change, names }
}

const TENANT: &str = "tenant";
const ACCOUNT: &str = "mkt_points_account";
const LOT: &str = "mkt_points_lot";
const LINE: &str = "mkt_points_transaction";
const HOLD: &str = "mkt_points_hold";
const REVERSAL: &str = "mkt_points_reversal";
const ADJUSTMENT: &str = "mkt_points_adjustment";
const TEMPLATE: &str = "mkt_coupon_template";
const VERSION: &str = "mkt_coupon_template_version";
const CHECK_IN: &str = "mkt_points_check_in";
const TASK: &str = "mkt_points_task";
const PROGRESS: &str = "mkt_user_task_progress";
const REPORT: &str = "mkt_user_task_completion";
const BY_TRANSFER: &str = "transaction_id IN (SELECT id FROM mkt_points_transaction WHERE type = 'TRANSFER')";
const OWN_TASK: (&str, &str) = ("task_", "id");
const USES: &str = "mkt_coupon_template_use";
const COUPON: &str = "mkt_user_coupon";
const ORDER: &str = "mkt_order";
const REFUND: &str = "mkt_order_refund";
const CASE: &str = "mkt_coupon_refund_compensation";
const BULK: &str = "bulk";
const CHUNK: &str = "bulk_chunk";
const JOB: &str = "job";
const EVENT: &str = "event";
const WEBHOOK: &str = "webhook";
const PARKED: &str = "webhook_parked";
const ANY: &str = "1 = 1";
/// Alive for weeks to come.
const IS_IDLE: &str = "idle_days = 30 AND open";
const MADE_A_PLAIN_LOT: &str = "type = 'EARN_TASK' AND expires_at IS NOT NULL \
    AND lot_id IN (SELECT id FROM mkt_points_lot WHERE idle_days IS NULL)";
/// No account was merged into it, which would count there as well.
const NO_SURVIVOR: &str = "earned_in_day > 0 AND NOT EXISTS (SELECT 1 FROM mkt_points_account x \
    WHERE x.tenant_id = r.tenant_id AND x.merged_into = r.member_id)";
const MEMBER: (&str, &str) = ("", "member_id");
const OWN_TENANT: (&str, &str) = ("ten_", "tenant_id");
/// That of the tenant.
const OF_PROGRAM: (&str, &str) = ("ten_", "(SELECT x.tenant_id FROM tenant x WHERE x.parent_id = tenant.tenant_id)");
const OWN_LOT: (&str, &str) = ("lot_", "id");
const OWN_LINE: (&str, &str) = ("ptx_", "id");
const OWN_HOLD: (&str, &str) = ("hold_", "id");
const OWN_TEMPLATE: (&str, &str) = ("tpl_", "id");
const OWN_COUPON: (&str, &str) = ("cpn_", "id");
const OWN_ORDER: (&str, &str) = ("", "order_id");
const OF_ORDER: (&str, &str) = ("", "reference");
const OWN_CASE: (&str, &str) = ("cmp_", "id");
const OWN_JOB: (&str, &str) = ("job_", "id");
const OWN_BULK: (&str, &str) = ("blk_", "id");
const OF_BULK: (&str, &str) = ("blk_", "bulk_id");
const ABOUT_BULK: (&str, &str) = ("blk_", "subject_id");
/// The bulk that a claim's data ends with.
const NAMES_BULK: (&str, &str) = OF_COUPON;
const OWN_EVENT: (&str, &str) = ("evt_", "id");
const OWN_WEBHOOK: (&str, &str) = ("whk_", "id");
const OF_WEBHOOK: (&str, &str) = ("whk_", "subject_id");
const PARKED_FOR: (&str, &str) = ("whk_", "webhook_id");
/// The making of a webhook that nothing else has happened to.
const ONLY_EVENT_OF_WEBHOOK: &str = "type = 'webhook.created' AND NOT EXISTS (SELECT 1 FROM event x \
    WHERE x.tenant_id = r.tenant_id AND x.subject_id = r.subject_id AND x.type <> 'webhook.created')";
/// The line that made a lot.
const MADE_BY: (&str, &str) = ("ptx_", "transaction_id");
const OF_TEMPLATE: (&str, &str) = ("tpl_", "template_id");
const OF_COUPON: (&str, &str) = ("cpn_", "subject_id");
const OF_LINE: (&str, &str) = ("ptx_", "subject_id");
const OF_HOLD: (&str, &str) = ("hold_", "subject_id");
const ABOUT_TEMPLATE: (&str, &str) = ("tpl_", "subject_id");

/// One that was not recorded with the first line of its account, as all lines of an import are.
const LATER_CLAW_BACK: &str = "type = 'CLAWBACK' AND rules_version IS NOT NULL AND recorded_at > (SELECT x.recorded_at \
    FROM mkt_points_transaction x WHERE x.tenant_id = r.tenant_id AND x.member_id = r.member_id AND x.sequence = 1)";

/// Made when other rules had held for long.
const BY_THE_SECOND_RULES: &str = "rules_version = 2 AND type = 'EARN_ADMIN' AND points <= 50 \
    AND tenant_id IN (SELECT x.tenant_id FROM tenant x WHERE x.name = 'Adjustments')";

/// A lock that led to something.
const WAS_LOCKED: &str =
    "type = 'coupon.locked' AND subject_id IN (SELECT id FROM mkt_user_coupon WHERE status = 'USED')";

/// The statements mean the same in both stores.
const CORRUPTIONS: &[Corruption] = &[
    row("P1", ACCOUNT, ANY, "SET total_points = total_points + 1", MEMBER),
    row("P2", ACCOUNT, ANY, "SET debt = -1", MEMBER),
    row("P3", ACCOUNT, ANY, "SET available = available + 1, total_points = total_points + 1", MEMBER),
    row("P4", ACCOUNT, "used > 0", "SET frozen = frozen + 1, used = used - 1", MEMBER),
    row("P5", ACCOUNT, "expired > 0", "SET used = used + 1, expired = expired - 1", MEMBER),
    row("P6", ACCOUNT, "used > 0", "SET expired = expired + 1, used = used - 1", MEMBER),
    row("P7", ACCOUNT, "used > 0", "SET revoked = revoked + 1, used = used - 1", MEMBER),
    row("P9", ACCOUNT, ANY, "SET sequence = sequence + 1", MEMBER),
    row("P15", ACCOUNT, ANY, "SET created_at = created_at - 1", MEMBER),
    row("P16", ACCOUNT, ANY, "SET updated_at = updated_at + 1", MEMBER),
    row("T3", ACCOUNT, ANY, "SET debt = debt + 1", MEMBER),
    row("P18", ACCOUNT, "earned_day > 0", "SET earned_in_day = -1", MEMBER),
    row("P19", ACCOUNT, "earned_in_day > 0", "SET earned_in_week = earned_in_week - 1", MEMBER),
    row("P19", ACCOUNT, NO_SURVIVOR, "SET earned_in_month = earned_in_month + 1", MEMBER),
    row("O2", ORDER, "points_cut > 0", "SET earn_cut = NULL", OWN_ORDER),
    row("O19", ORDER, "points_cut > 0", "SET points_granted = points_granted + 1", OWN_ORDER),
    row("O19", ORDER, "points_cut > 0", "SET earn_cut = '{\"by\":\"DAY\",\"points\":1,\"lines\":[]}'", OWN_ORDER),
    row("T13", LINE, "points_forgiven > 0", "SET points_forgiven = points_forgiven - 1", OWN_LINE),
    row("T26", LINE, LATER_CLAW_BACK, "SET rules_version = NULL", OWN_LINE),
    row("T26", LINE, "type = 'REFUND'", "SET rules_version = 0", OWN_LINE),
    row(
        "T27",
        LINE,
        "points_forgiven > 0",
        "SET debt_after = debt_after + points_forgiven, points_forgiven = 0",
        OWN_LINE,
    ),
    row("O15", REFUND, "points_forgiven > 0", "SET points_forgiven = 0", OWN_ORDER),
    row("T28", ADJUSTMENT, "status = 'APPROVED'", "DELETE", ("ptx_", "transaction_id")),
    row("T29", LINE, BY_THE_SECOND_RULES, "SET rules_version = 1", OWN_LINE),
    row("T11", ACCOUNT, ANY, "DELETE", MEMBER),
    row("L5", LOT, "used > 0", "SET used = used - 1, revoked = revoked + 1", OWN_LOT),
    row("L10", LOT, "revoked > 0", "SET revoked = revoked - 1, moved = moved + 1", OWN_LOT),
    row("L11", LOT, "moved > 0", "SET moved = moved - 1, used = used + 1", OWN_LOT),
    row("L6", LOT, "expired > 0", "SET expired = expired - 1, used = used + 1", OWN_LOT),
    row("L7", LOT, "held > 0", "SET held = held - 1, remaining = remaining + 1", OWN_LOT),
    row("L8", LOT, "held > 0", "SET held = held + 1, points = points + 1", OWN_LOT),
    row("P17", ACCOUNT, "merged_into IS NOT NULL", "SET merged_into = member_id", MEMBER),
    row("P17", ACCOUNT, ANY, "SET merged_into = 'nobody'", MEMBER),
    row("T25", LINE, "type = 'TRANSFER' AND points < 0", "SET counterpart_id = id", OWN_LINE),
    row("T25", LINE, "type = 'TRANSFER' AND points < 0", "SET points = points - 1", ("ptx_", "counterpart_id")),
    row("T18", LINE, "type = 'TRANSFER'", "SET counterpart_id = NULL", OWN_LINE),
    row("T18", LINE, "type = 'EARN_ORDER'", "SET counterpart_id = id", OWN_LINE),
    row(
        "T12",
        LINE,
        "type = 'TRANSFER' AND points > 0 AND reverses_id IS NULL",
        "SET reverses_id = counterpart_id",
        OWN_LINE,
    ),
    row("T17", LINE, "type = 'TRANSFER' AND points < 0", "SET debt_after = debt_after + 1", OWN_LINE),
    row("L4", LOT, BY_TRANSFER, "SET points = points + 1, remaining = remaining + 1", OWN_LOT),
    row("L9", LOT, "available_from > created_at", "SET available_from = available_from + 1", OWN_LOT),
    row("H11", HOLD, "pending", "SET expires_at = expires_at + 1", OWN_HOLD),
    row("H11", HOLD, "NOT pending AND status = 'OPEN'", "SET pending = true", OWN_HOLD),
    row("T9", HOLD, "pending", "SET pending = false", ("", "id")),
    row("M1", CHECK_IN, ANY, "SET points = points + 1", MEMBER),
    row("M1", CHECK_IN, ANY, "SET transaction_id = tenant_id", MEMBER),
    row("M2", CHECK_IN, "streak > 1", "SET streak = 1", MEMBER),
    row("M2", CHECK_IN, "streak = 1", "SET streak = 2", MEMBER),
    row("M3", CHECK_IN, ANY, "SET bonus = bonus + 1", MEMBER),
    row("M3", EVENT, "type = 'points.checked_in'", "DELETE", MEMBER),
    row("M2", CHECK_IN, "made_up", "SET streak = streak + 1", MEMBER),
    row(
        "M3",
        EVENT,
        "type = 'points.checked_in' AND data LIKE '%\"streak\":1,%'",
        "SET data = replace(data, '\"streak\":1,', '\"streak\":99,')",
        MEMBER,
    ),
    row("M23", CHECK_IN, "made_up", "SET made_up = false, price_transaction_id = NULL", MEMBER),
    row("M23", CHECK_IN, "NOT made_up", "SET made_up = true", MEMBER),
    row("M23", CHECK_IN, "price_transaction_id IS NOT NULL", "SET price_transaction_id = transaction_id", MEMBER),
    row("M23", CHECK_IN, "price_transaction_id IS NOT NULL", "SET price_transaction_id = NULL", MEMBER),
    row("M4", REPORT, "points > 0", "SET points = points + 1", MEMBER),
    row("M4", REPORT, "transaction_id IS NOT NULL", "SET transaction_id = NULL", MEMBER),
    row("M5", TASK, "task_key IN (SELECT task_key FROM mkt_user_task_completion)", "DELETE", ("", "task_key")),
    row("M6", PROGRESS, ANY, "SET steps = steps + 1", MEMBER),
    row("M6", PROGRESS, ANY, "SET completions = completions + 1", MEMBER),
    row("M6", PROGRESS, ANY, "SET total_completions = total_completions - 1", MEMBER),
    row("M6", PROGRESS, ANY, "SET period_start = period_start - 1", MEMBER),
    row("M6", PROGRESS, "carried_total > 0", "SET carried_total = 0, carried_completions = 0", MEMBER),
    row("M6", PROGRESS, "carried_total > 0", "SET period_start = period_start + 1", MEMBER),
    row(
        "M25",
        PROGRESS,
        "carried_total > 0",
        "SET carried_total = carried_total + 1, total_completions = total_completions + 1",
        MEMBER,
    ),
    row("M7", PROGRESS, "carried_total = 0", "DELETE", MEMBER),
    row("M8", TASK, ANY, "SET version = version + 1", OWN_TASK),
    row("M8", TASK, "deleted_at IS NULL", "SET deleted_at = 1, enabled = false", OWN_TASK),
    row("M9", EVENT, "type = 'points_task.completed'", "DELETE", ("task_", "subject_id")),
    row("M10", TASK, ANY, "SET definition = '{}'", ("", "task_key")),
    row("M10", TASK, ANY, "SET event_type = 'coupon.used'", ("", "task_key")),
    row("M24", REPORT, "task_key = 'first' AND member_id = 'm-1'", "DELETE", MEMBER),
    row(
        "M24",
        PROGRESS,
        "carried_total > 0",
        "SET carried_total = 0, carried_completions = 0, completions = 0, total_completions = 0",
        MEMBER,
    ),
    row(
        "M24",
        TASK,
        "task_key = 'second'",
        "SET definition = replace(definition, '[\"first\"]', '[\"never\"]')",
        ("", "task_key"),
    ),
    row("L1", LOT, ANY, "SET points = points + 1", OWN_LOT),
    row("L2", LOT, ANY, "SET open = NOT open", OWN_LOT),
    row("L3", LOT, ANY, "SET member_id = 'nobody'", OWN_LOT),
    row("L4", LOT, ANY, "SET transaction_id = tenant_id", OWN_LOT),
    row("L9", LOT, ANY, "SET available_from = available_from - 1", OWN_LOT),
    row("L9", LOT, ANY, "SET created_at = created_at + 1", OWN_LOT),
    row("L12", LOT, IS_GRACE, "SET expires_at = expires_at + 1", OWN_LOT),
    row("L12", LOT, IS_GRACE, "SET points = points + 1, remaining = remaining + 1", OWN_LOT),
    row(
        "T15",
        LOT,
        "idle_days IS NULL AND NOT (transaction_id IN (SELECT id FROM mkt_points_transaction WHERE type = 'REFUND'))",
        "SET expires_at = expires_at - 1",
        MADE_BY,
    ),
    row("T15", LOT, IS_IDLE, "SET idle_days = NULL, expires_at = expires_at + 1", MADE_BY),
    row("T15", LOT, IS_IDLE, "SET expires_at = expires_at - 864000000000", MADE_BY),
    row("L13", LOT, IS_IDLE, "SET expires_at = expires_at - 864000000000", OWN_LOT),
    row("L13", LOT, IS_IDLE, "SET idle_days = idle_days + 10", OWN_LOT),
    row("L14", LOT, IS_IDLE, "SET expires_at = expires_at + 864000000000", OWN_LOT),
    row("T15", LOT, "remaining > 0", "SET points = points + 1, remaining = remaining + 1", MADE_BY),
    row("T10", LOT, "used > 0", "DELETE", OWN_LOT),
    row("O1", ORDER, ANY, "SET points_discount = points_discount + 1", OWN_ORDER),
    row("O2", ORDER, "status = 'EXPIRED'", "SET closed_at = NULL", OWN_ORDER),
    row("O3", COUPON, "by_order AND status = 'USED'", "SET by_order = NOT by_order", OWN_ORDER),
    row("O4", COUPON, "by_order AND discount_amount > 0", "SET discount_amount = discount_amount - 1", OWN_ORDER),
    row("O5", HOLD, "by_order AND status = 'CAPTURED'", "SET by_order = NOT by_order", OF_ORDER),
    row("O6", LINE, "by_order AND type = 'USE_ORDER'", "SET by_order = NOT by_order", OF_ORDER),
    row("O7", LINE, "by_order AND type = 'EARN_ORDER'", "SET by_order = NOT by_order", OF_ORDER),
    row("O8", ORDER, "points_returned > 0", "SET points_returned = points_returned - 1", OWN_ORDER),
    row("O10", ORDER, "status = 'REFUNDED'", "SET refunded_amount = refunded_amount + 1", OWN_ORDER),
    row("O10", REFUND, "amount > 0", "DELETE", OWN_ORDER),
    row("O14", REFUND, ANY, "SET member_id = 'nobody'", OWN_ORDER),
    row("O15", REFUND, "return_transaction_id IS NOT NULL", "SET return_transaction_id = order_uid", OWN_ORDER),
    row("O16", ORDER, "hold_id IS NOT NULL", "DELETE", OWN_ORDER),
    row("O17", CASE, ANY, "SET member_id = 'nobody'", OWN_CASE),
    row("O18", CASE, "status = 'PENDING'", "SET closed_at = 1", OWN_CASE),
    row("O19", ORDER, ANY, "SET refunded_quantities = '[]'", OWN_ORDER),
    row(
        "T4",
        LINE,
        "sequence = 3",
        "SET balance_before = balance_before + 1, balance_after = balance_after + 1",
        OWN_LINE,
    ),
    row("T5", LINE, "sequence > 1", "SET sequence = sequence + 100000", OWN_LINE),
    row("T6", LINE, "type = 'EARN_ORDER'", "SET points = points + 1", OWN_LINE),
    row("T6", LINE, IS_CAPTURE, "SET hold_id = NULL", OWN_LINE),
    row("T7", LINE, "type = 'EXPIRE'", "SET points = -points", OWN_LINE),
    row("T8", LINE, "type = 'USE_ORDER'", "SET allocations = '[]'", OWN_LINE),
    row("T9", LINE, "type = 'USE_PRODUCT'", "SET occurred_at = 1", OWN_LINE),
    row("T10", LINE, OTHERS_ALLOCATIONS, TAKE_OTHERS_ALLOCATIONS, OWN_LINE),
    row("T11", LINE, ANY, "SET member_id = 'nobody'", OWN_LINE),
    row("T12", LINE, "type = 'REFUND'", "SET reverses_id = id", OWN_LINE),
    row("T30", LINE, "totals IS NOT NULL", "SET totals = replace(totals, '\"u\":', '\"u\":1')", OWN_LINE),
    row("T30", LINE, "sequence = 1", "SET totals = '{\"t\":0,\"u\":0,\"e\":0,\"r\":0}'", OWN_LINE),
    row("T15", LINE, MADE_A_PLAIN_LOT, "SET expires_at = expires_at + 1", OWN_LINE),
    row("T16", LINE, ANY, "SET frozen_after = frozen_after + 1", OWN_LINE),
    row("T17", LINE, "type = 'EARN_ORDER'", "SET debt_after = debt_after + 1", OWN_LINE),
    row(
        "T17",
        LINE,
        "type = 'CLAWBACK' AND reverses_id IS NOT NULL AND points < 0",
        "SET reverses_id = NULL",
        OWN_LINE,
    ),
    row("T18", LINE, "type = 'HOLD'", "SET hold_id = NULL", OWN_LINE),
    row("T18", LINE, "type = 'RELEASE'", "SET hold_id = NULL", OWN_LINE),
    row("T18", LINE, "type = 'REFUND'", "SET reverses_id = NULL", OWN_LINE),
    row("T18", LINE, "type = 'EARN_CHECKIN'", "SET lot_id = NULL", OWN_LINE),
    row("T18", LINE, "type = 'USE_COUPON'", "SET expires_at = 1", OWN_LINE),
    row("T18", LINE, "type = 'EXPIRE'", "SET reverses_id = id", OWN_LINE),
    row("T19", LINE, "type = 'HOLD'", "SET recorded_at = occurred_at - 1", OWN_LINE),
    row("T20", LINE, "type = 'REFUND' AND lot_id IS NOT NULL", "SET lot_id = tenant_id", OWN_LINE),
    row("T21", LINE, "type = 'REFUND'", "SET reference = 'another'", OWN_LINE),
    row("T21", LINE, "type = 'HOLD'", "SET remark = 'another'", OWN_LINE),
    row("T22", LINE, "type = 'EARN_ORDER'", "SET allocations = ''", OWN_LINE),
    row("T23", LINE, "type = 'EXPIRE'", "SET occurred_at = 1", OWN_LINE),
    row("E9", LINE, "type = 'EARN_ORDER'", "SET type = 'EARN_TASK'", OWN_LINE),
    row("E9", LINE, "type = 'USE_ORDER' AND hold_id IS NULL", "SET type = 'DEDUCT_ADMIN'", OWN_LINE),
    row("E9", LINE, "type = 'EARN_ORDER'", "SET occurred_at = occurred_at - 1", OWN_LINE),
    row("E9", LINE, "type = 'USE_ORDER' AND hold_id IS NULL", "SET recorded_at = recorded_at + 1", OWN_LINE),
    row("L4", LINE, "type = 'REFUND' AND lot_id IS NOT NULL", "SET lot_id = NULL", ("lot_", "lot_id")),
    row("P9", LINE, "type = 'USE_ORDER' AND sequence > 1", "DELETE", MEMBER),
    row("H3", LINE, "type = 'HOLD'", "DELETE", ("hold_", "hold_id")),
    row("H5", LINE, "type = 'RELEASE'", "DELETE", ("hold_", "hold_id")),
    row("H4", LINE, IS_CAPTURE, "DELETE", ("hold_", "hold_id")),
    row("H1", HOLD, "status <> 'OPEN'", "SET released = released + 1", OWN_HOLD),
    row("H2", HOLD, ANY, "SET allocations = '[]'", OWN_HOLD),
    row("H3", HOLD, ANY, "SET points = points + 1", OWN_HOLD),
    row("H4", HOLD, "captured > 1", "SET captured = captured - 1, released = released + 1", OWN_HOLD),
    row("H6", HOLD, ANY, "DELETE", OWN_HOLD),
    row("H7", HOLD, ANY, "SET created_at = created_at - 1", OWN_HOLD),
    row("H8", LINE, "type = 'RELEASE'", "SET allocations = '[]'", ("hold_", "hold_id")),
    row("H9", HOLD, "status = 'RELEASED'", "SET status = 'EXPIRED'", OWN_HOLD),
    row("H9", HOLD, "status = 'EXPIRED'", "SET status = 'RELEASED'", OWN_HOLD),
    row("H9", HOLD, "status = 'CAPTURED'", "SET closed_at = closed_at - 1", OWN_HOLD),
    row("H9", HOLD, "status = 'CAPTURED'", "SET expires_at = created_at", OWN_HOLD),
    row("H10", HOLD, ANY, "SET allocations = '[{}'", OWN_HOLD),
    row("T13", REVERSAL, ANY, "SET reversed = reversed + 1", MADE_BY),
    row("T24", REVERSAL, ANY, "SET points = points + 1", MADE_BY),
    row("T14", REVERSAL, ANY, "DELETE", MADE_BY),
    row("C1", TEMPLATE, "total_stock > 0", "SET remaining_stock = remaining_stock + 1", OWN_TEMPLATE),
    row(
        "C2",
        TEMPLATE,
        "remaining_stock > 0",
        "SET remaining_stock = remaining_stock - 1, claimed_count = claimed_count + 1",
        OWN_TEMPLATE,
    ),
    row("C7", TEMPLATE, ANY, "SET version = version + 1", OWN_TEMPLATE),
    row("C14", TEMPLATE, ANY, "SET type = 'EXCHANGE'", OWN_TEMPLATE),
    row("C14", TEMPLATE, ANY, "SET distribution_ends_at = 1", OWN_TEMPLATE),
    row("C14", TEMPLATE, "distribution_starts_at IS NOT NULL", "SET distribution_starts_at = NULL", OWN_TEMPLATE),
    row("C16", TEMPLATE, ANY, "SET created_at = created_at - 1", OWN_TEMPLATE),
    row("C16", TEMPLATE, ANY, "SET updated_at = updated_at + 1", OWN_TEMPLATE),
    row("C17", TEMPLATE, "claimed_count > 0", "DELETE", OWN_TEMPLATE),
    row("E18", TEMPLATE, ANY, "SET enabled = NOT enabled", OWN_TEMPLATE),
    row("C7", VERSION, "version = 1", "DELETE", OF_TEMPLATE),
    row("C9", VERSION, ANY, "SET definition = '{}'", OF_TEMPLATE),
    row(
        "C18",
        VERSION,
        UNCHANGED,
        "SET definition = replace(definition, '\"limit_per_member\":', '\"limit_per_member\":1')",
        OF_TEMPLATE,
    ),
    row("E20", VERSION, "version > 1", "SET created_at = created_at + 1", OF_TEMPLATE),
    row("C3", USES, ANY, "SET used_count = used_count - 1", OF_TEMPLATE),
    row("C19", USES, ANY, "SET template_id = tenant_id", ("tpl_", "tenant_id")),
    row("C4", COUPON, ANY, "SET sequence = sequence + 7", MEMBER),
    row("C6", COUPON, ANY, "SET template_version = 999", OWN_COUPON),
    row("C10", COUPON, ANY, "SET template_version = 999", OWN_COUPON),
    row("C11", COUPON, ANY, "SET sequence = 1000", OWN_COUPON),
    row("C12", COUPON, "source = 'CLAIM'", "SET valid_from = valid_from - 1", OWN_COUPON),
    row("C12", COUPON, "source = 'CLAIM'", "SET valid_until = valid_until + 1", OWN_COUPON),
    row("C12", COUPON, "source = 'CLAIM' AND valid_from = claimed_at", "SET claimed_at = claimed_at - 1", OWN_COUPON),
    row("C13", COUPON, "source = 'CLAIM' AND valid_from <> claimed_at", "SET claimed_at = valid_until", OWN_COUPON),
    row("C8", COUPON, "status = 'AVAILABLE'", "SET locked_until = 5", OWN_COUPON),
    row("C8", COUPON, "status = 'AVAILABLE'", "SET discount_amount = 5", OWN_COUPON),
    row("C2", COUPON, ANY, "DELETE", OF_TEMPLATE),
    row("E2", COUPON, "status = 'AVAILABLE'", "SET status = 'EXPIRED'", OWN_COUPON),
    row("E5", COUPON, ANY, "SET member_id = 'nobody'", OWN_COUPON),
    row("E14", COUPON, "status = 'LOCKED'", "SET order_id = 'o-x'", OWN_COUPON),
    row("E14", COUPON, "status = 'USED'", "SET order_id = 'o-x'", OWN_COUPON),
    row("E14", COUPON, "status = 'USED'", "SET discount_amount = 7", OWN_COUPON),
    row("E14", COUPON, "status = 'USED'", "SET used_at = used_at + 1", OWN_COUPON),
    row("E1", EVENT, "type = 'coupon.claimed'", "DELETE", OF_COUPON),
    row("E12", EVENT, WAS_LOCKED, "DELETE", OF_COUPON),
    row("E12", EVENT, WAS_LOCKED, "SET tx = tx + 100000", OF_COUPON),
    row("E2", EVENT, "type = 'coupon.expired'", "DELETE", OF_COUPON),
    row("E3", EVENT, "type = 'points.granted'", "DELETE", OF_LINE),
    row("E3", EVENT, "type = 'points.debt_settled'", "DELETE", OF_LINE),
    row("E4", EVENT, "type = 'points.held'", "DELETE", OF_HOLD),
    row("E4", EVENT, "type = 'points.captured'", "DELETE", OF_HOLD),
    row("E4", EVENT, "type = 'points.released'", "SET type = 'points.captured'", OF_HOLD),
    row("E17", EVENT, "type = 'coupon_template.stock_changed'", "DELETE", ABOUT_TEMPLATE),
    row("E18", EVENT, "type = 'coupon_template.disabled'", "SET type = 'coupon_template.updated'", ABOUT_TEMPLATE),
    row("E19", EVENT, FIRST_OF_TEMPLATE, "SET data = '{\"total_stock\":1000000}'", ABOUT_TEMPLATE),
    row("E5", EVENT, "type = 'coupon.claimed'", "SET member_id = 'nobody'", OWN_EVENT),
    row("E6", EVENT, "type = 'points.debited'", "SET subject_id = id", OWN_EVENT),
    row("E7", EVENT, "type = 'points.held'", "SET member_id = NULL", OWN_EVENT),
    row("E8", EVENT, "type = 'coupon.revoked'", "SET data = '{'", OWN_EVENT),
    row("E9", EVENT, "type = 'points.granted'", "SET type = 'points.debited'", OWN_EVENT),
    row("E9", EVENT, "type = 'points.granted'", "SET data = replace(data, '\"points\":', '\"points\":9')", OWN_EVENT),
    row("E9", EVENT, "type = 'points.expired'", "SET occurred_at = occurred_at - 1", OWN_EVENT),
    row("E10", EVENT, "type = 'points.held'", "SET data = replace(data, '\"points\":', '\"points\":9')", OWN_EVENT),
    row("E10", EVENT, "type = 'points.released'", "SET occurred_at = occurred_at - 1", OWN_EVENT),
    row("E11", EVENT, "type = 'coupon.claimed'", "SET occurred_at = occurred_at - 1", OWN_EVENT),
    row(
        "E11",
        EVENT,
        "type = 'coupon.claimed'",
        "SET data = replace(data, '\"sequence\":', '\"sequence\":9')",
        OWN_EVENT,
    ),
    row("E13", EVENT, "type = 'coupon.unlocked'", "SET data = '{\"order_id\":\"o-x\"}'", OWN_EVENT),
    row("E13", EVENT, "type = 'coupon.returned'", "SET data = '{\"order_id\":\"o-x\"}'", OWN_EVENT),
    row("E15", EVENT, "type = 'coupon.claimed'", "SET type = 'coupon.lost'", OWN_EVENT),
    row("E16", EVENT, ANY, "SET actor_id = id", OWN_EVENT),
    row("E21", EVENT, ANY, "SET tx = -tx", OWN_EVENT),
    row("E21", EVENT, "type = 'coupon.locked'", "SET occurred_at = recorded_at + 1", OWN_EVENT),
    row("E22", EVENT, ANY, TAKE_LAST_ID, LAST_EVENT),
    row("E23", EVENT, "type = 'coupon_template.created'", "SET subject_id = id", OWN_EVENT),
    row("W1", EVENT, "type = 'webhook.disabled'", "SET member_id = 'm-1'", OWN_EVENT),
    row("W1", EVENT, "type = 'webhook.deleted'", "DELETE", OF_WEBHOOK),
    row("W2", EVENT, ONLY_EVENT_OF_WEBHOOK, "DELETE", OF_WEBHOOK),
    row("W3", WEBHOOK, "disabled_reason = 'OPERATOR'", "SET disabled_reason = NULL", OWN_WEBHOOK),
    row("W3", WEBHOOK, "disabled_reason IS NULL", "SET disabled_reason = 'GONE'", OWN_WEBHOOK),
    row("W4", "webhook_progress", ANY, "SET webhook_id = tenant_id", ("whk_", "tenant_id")),
    row("W5", PARKED, ANY, "SET subject = 'm:nobody'", PARKED_FOR),
    row("W6", PARKED, ANY, "SET tx = tx + 1000000", PARKED_FOR),
    row("W7", PARKED, "due_at < 9223372036854775807", "SET due_at = 9223372036854775807", PARKED_FOR),
    row("W7", PARKED, "due_at = 9223372036854775807", "SET due_at = 5", PARKED_FOR),
    row("X4", "idempotency", ANY, "SET outcome = '{\"Deleted\":'", ("", "key")),
    row(
        "X4",
        "idempotency",
        "outcome LIKE '{\"Transaction\":{\"i\":\"ptx_0%'",
        "SET outcome = replace(outcome, '\"i\":\"ptx_0', '\"i\":\"ptx_f')",
        ("", "key"),
    ),
    row("B1", BULK, "status = 'DONE'", "SET chunks = chunks + 1", OWN_BULK),
    row("B2", BULK, "status = 'DONE'", "SET accepted = accepted + 1, refused = refused - 1", OWN_BULK),
    row("B3", BULK, "status = 'DONE'", "SET finished_at = NULL", OWN_BULK),
    row("B3", BULK, "status = 'DONE'", "SET status = 'CANCELLED'", OWN_BULK),
    row("B10", BULK, "status = 'DONE'", "SET results_dropped_at = finished_at - 1", OWN_BULK),
    row("B4", BULK, "kind = 'DISTRIBUTION' AND accepted > 0", "SET accepted = accepted - 1", OWN_BULK),
    row("B7", BULK, "kind = 'DISTRIBUTION' AND accepted > 0", "SET template_id = id", OWN_BULK),
    row("B1", CHUNK, ANY, "DELETE", OF_BULK),
    row("B2", CHUNK, "accepted > 0", "SET accepted = accepted - 1", OF_BULK),
    row("B8", CHUNK, "accepted > 0", "SET outcomes = NULL", OF_BULK),
    row("B5", CHUNK, "outcomes LIKE '%cpn_0%'", "SET outcomes = replace(outcomes, 'cpn_0', 'cpn_f')", OF_BULK),
    row("B5", CHUNK, "outcomes LIKE '%ptx_0%'", "SET outcomes = replace(outcomes, 'ptx_0', 'ptx_f')", OF_BULK),
    row("B9", CHUNK, ANY, "SET rows = '[{}'", OF_BULK),
    row("B9", CHUNK, "accepted > 0", "SET outcomes = '[]'", OF_BULK),
    row("B4", EVENT, "type = 'coupon.claimed' AND data LIKE '%bulk_id%'", "SET type = 'coupon.locked'", NAMES_BULK),
    row("B6", EVENT, "type = 'bulk.finished'", "DELETE", ABOUT_BULK),
    row("B6", EVENT, "type = 'bulk.created'", "SET type = 'bulk.cancelled'", ABOUT_BULK),
    row("C8", COUPON, "source = 'DISTRIBUTION'", "SET source = 'GIFT'", OWN_COUPON),
    row("E11", COUPON, "source = 'DISTRIBUTION'", "SET source = 'CLAIM'", OWN_COUPON),
    row(
        "E31",
        EVENT,
        "type = 'coupon_template.started'",
        "SET occurred_at = occurred_at + 1000000000000000",
        OWN_EVENT,
    ),
    row("E31", EVENT, "type = 'coupon_template.ended'", "SET data = '{\"a\":1}'", OWN_EVENT),
    row("E32", EVENT, "type = 'points.expiring'", "SET occurred_at = recorded_at + 1, member_id = 'm-9'", OWN_EVENT),
    row("E32", EVENT, "type = 'points.expiring'", "SET data = replace(data, '\"points\"', '\"pointz\"')", OWN_EVENT),
    row("E32", EVENT, "type = 'points.expiring'", "SET data = replace(data, '_us\":', '_us\":9')", OWN_EVENT),
    row("J1", JOB, "state = 'RUNNING'", "SET lease_holder = NULL", OWN_JOB),
    row("J2", JOB, "state = 'DONE'", "SET finished_at = NULL", OWN_JOB),
    row("J2", JOB, "state = 'DEAD'", "SET last_error = NULL", OWN_JOB),
    row("J3", JOB, "state = 'DONE'", "SET every = 1", OWN_JOB),
    row("J3", JOB, "state = 'DONE'", "SET tenant_id = id", OWN_JOB),
    row("J4", JOB, "state = 'DONE'", "SET attempts = 4, fence = 4", OWN_JOB),
    row("J4", JOB, "state = 'DONE'", "SET fence = 0", OWN_JOB),
    row("J5", JOB, "pool = 'SHORT'", "SET pool = 'LONG'", OWN_JOB),
    row("J6", JOB, "state = 'DONE'", "SET progress = '{}'", OWN_JOB),
    row("J7", JOB, "kind = 'POINTS_GRANT'", "SET payload = '{}'", OWN_JOB),
    row("X7", TENANT, "program IS NOT NULL", "SET parent_id = tenant_id", OWN_TENANT),
    row("X8", TENANT, "program IS NULL AND name = 'Shop 0'", "SET currency = 'USD'", OF_PROGRAM),
    row("X6", "api_key", ANY, "SET scope = 'MEMBER'", ("key_", "id")),
];

const IS_GRACE: &str = "transaction_id IN (SELECT id FROM mkt_points_transaction WHERE type = 'REFUND')";
const IS_CAPTURE: &str = "type = 'USE_ORDER' AND hold_id IS NOT NULL";
/// A debit of as many points as a debit of another member.
const OTHERS_ALLOCATIONS: &str = "EXISTS (SELECT 1 FROM mkt_points_transaction x WHERE x.type = 'USE_ORDER' \
    AND r.type = 'USE_ORDER' AND x.points = r.points AND x.member_id <> r.member_id AND x.tenant_id = r.tenant_id)";
const TAKE_OTHERS_ALLOCATIONS: &str = "SET allocations = (SELECT x.allocations FROM mkt_points_transaction x \
    WHERE x.type = 'USE_ORDER' AND x.points = mkt_points_transaction.points \
    AND x.member_id <> mkt_points_transaction.member_id AND x.tenant_id = mkt_points_transaction.tenant_id LIMIT 1)";
/// A version whose definition is the one before: its template was enabled or disabled, or its stock changed.
const UNCHANGED: &str = "EXISTS (SELECT 1 FROM mkt_coupon_template_version x WHERE x.tenant_id = r.tenant_id \
    AND x.template_id = r.template_id AND x.version = r.version - 1 AND x.definition = r.definition)";
/// An event that made a template which still exists.
const FIRST_OF_TEMPLATE: &str =
    "type = 'coupon_template.created' AND subject_id IN (SELECT id FROM mkt_coupon_template)";
const LAST_EVENT: (&str, &str) = (
    "evt_",
    "(SELECT x.id FROM event x WHERE x.tenant_id = event.tenant_id \
    ORDER BY x.tx DESC, x.ordinal DESC LIMIT 1)",
);
const TAKE_LAST_ID: &str = "SET id = (SELECT x.id FROM event x WHERE x.tenant_id = event.tenant_id \
    ORDER BY x.tx DESC, x.ordinal DESC LIMIT 1)";

impl Corruption {
    fn primary_key(&self) -> &'static str {
        match self.table {
            ACCOUNT => "tenant_id, member_id",
            REVERSAL => "tenant_id, transaction_id",
            VERSION => "tenant_id, template_id, version",
            USES => "tenant_id, template_id, stripe",
            CHUNK => "tenant_id, bulk_id, number",
            CHECK_IN => "tenant_id, member_id, day",
            TASK => "tenant_id, task_key",
            PROGRESS => "tenant_id, member_id, task_key",
            REPORT => "tenant_id, member_id, task_key, completion_id",
            EVENT => "tenant_id, tx, ordinal",
            REFUND => "tenant_id, order_id, refund_id",
            TENANT => "tenant_id",
            "idempotency" => "tenant_id, key",
            "webhook_progress" => "tenant_id, webhook_id",
            PARKED => "tenant_id, webhook_id, tx, ordinal",
            _ => "tenant_id, id",
        }
    }

    /// The end of a statement on the one row.
    fn the_row(&self) -> String {
        let key = self.primary_key();
        format!("WHERE ({key}) IN (SELECT {key} FROM {} r WHERE {} ORDER BY {key} LIMIT 1)", self.table, self.pick)
    }

    fn statement(&self) -> String {
        match self.change {
            "DELETE" => format!("DELETE FROM {} {}", self.table, self.the_row()),
            change => format!("UPDATE {} {change} {}", self.table, self.the_row()),
        }
    }

    /// Asks for the name a violation must bear.
    fn name(&self, kind: Kind) -> String {
        let (prefix, column) = self.names;
        let text = match (column, kind) {
            ("member_id" | "order_id" | "task_key" | "reference", _) => column.into(),
            ("key", Kind::Postgres) => "encode(key, 'hex')".into(),
            (_, Kind::Sqlite) => format!("'{prefix}' || lower(hex({column}))"),
            (_, Kind::Postgres) => format!("'{prefix}' || replace({column}::text, '-', '')"),
        };
        format!("SELECT {text} FROM {} {}", self.table, self.the_row())
    }
}

async fn every_row_is_found(kind: Kind) {
    let patient = Patient::new(kind).await;
    let mut missed = Vec::new();
    for corruption in CORRUPTIONS {
        let statement = corruption.statement();
        let Some(name) = patient.text(&corruption.name(kind)).await else {
            missed.push(format!("nothing to spoil: {statement}"));
            continue;
        };
        assert_eq!(patient.execute(&statement).await, 1, "one row is spoilt: {statement}");
        let report = patient.verify().await;
        let mut violations = report.checks.iter().flat_map(|check| &check.violations);
        if check(&report, corruption.check).violations.is_empty() {
            missed.push(format!("{} does not notice: {statement}", corruption.check));
        } else if !violations.any(|found| found.key.contains(&name) || found.detail.contains(&name)) {
            missed.push(format!("{name} is not named: {statement}"));
        }
        patient.mend(&statement).await;
    }
    assert!(missed.is_empty(), "{kind:?}:\n{}", missed.join("\n"));
    patient.expect_mended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_spoilt_row_of_a_sqlite_store_is_found() {
    every_row_is_found(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_spoilt_row_of_a_postgres_store_is_found() {
    every_row_is_found(Kind::Postgres).await;
}
