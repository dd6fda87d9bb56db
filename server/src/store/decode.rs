//! Column lists and the decoders that read them: one pair for each kind of row, used by reads and batches of both stores.

use scrip_domain::bulk::{Bulk, BulkKind, BulkStatus};
use scrip_domain::check_in::CheckIn;
use scrip_domain::coupon::{
    Code, CodeBatch, CodeKind, CodeStatus, Compensation, CompensationReason, CompensationStatus, Coupon, CouponSource,
    CouponStatus, Definition, PeriodCount, Template,
};
use scrip_domain::event::{Event, EventKind};
use scrip_domain::job::{Job, JobKind, JobState, Priority};
use scrip_domain::order::{Order, OrderStatus, Refund};
use scrip_domain::points::{
    Account, Adjustment, AdjustmentStatus, Earned, Hold, HoldStatus, Lot, Transaction, TransactionType,
};
use scrip_domain::pricing::Rules;
use scrip_domain::task::{Carried, Progress, Report, Task};
use scrip_domain::tenant::{ApiKey, Program, Scope, Tenant};
use scrip_domain::time::LocalPeriod;
use scrip_domain::webhook::{DisabledReason, LogPosition, Secrets, Webhook};
use scrip_domain::{
    AdjustmentId, BulkId, CodeBatchId, CompensationId, CouponId, Day, EventId, HoldId, JobId, KeyId, LotId, OrderUid,
    TaskId, TemplateId, TenantId, Timestamp, TransactionId, WebhookId,
};
use std::sync::Arc;

use super::value::Row;
use super::{Definitions, StoreError};

type Decoded<T> = Result<T, StoreError>;

/// The columns of one table among several.
pub fn of(alias: &str, columns: &str) -> String {
    columns.split(", ").map(|column| format!("{alias}.{}", column.trim())).collect::<Vec<_>>().join(", ")
}

pub const TENANT: &str = "tenant_id, name, currency, time_zone, refund_grace_days, created_at, parent_id, program";

pub fn tenant(row: &Row) -> Decoded<Tenant> {
    let program = match (row.opt_uuid(6)?, row.opt_caller_id(7)?) {
        (Some(parent_id), Some(code)) => Some(Program { parent_id: TenantId(parent_id), code }),
        _ => None,
    };
    Ok(Tenant {
        id: row.tenant(0)?,
        name: row.text(1)?,
        currency: row.text(2)?,
        time_zone: row.text(3)?,
        refund_grace_days: row.int(4)?.try_into().unwrap_or(0),
        created_at: row.time(5)?,
        program,
    })
}

pub const API_KEY: &str = "tenant_id, id, name, scope, member_id, expires_at, revoked_at, created_at, adjustment_limit";
pub const API_KEY_COLUMNS: usize = 9;

pub fn api_key(row: &Row) -> Decoded<ApiKey> {
    Ok(ApiKey {
        tenant_id: row.tenant(0)?,
        id: KeyId(row.uuid(1)?),
        name: row.text(2)?,
        scope: row.name(3, Scope::parse)?,
        member_id: row.opt_caller_id(4)?,
        expires_at: row.opt_time(5)?,
        revoked_at: row.opt_time(6)?,
        created_at: row.time(7)?,
        adjustment_limit: row.opt_int(8)?,
    })
}

pub const WEBHOOK: &str = "tenant_id, id, url, types, description, disabled_reason, secret, previous_secret, previous_until, \
                           starts_tx, starts_ordinal, created_at, updated_at";
pub const WEBHOOK_COLUMNS: usize = 13;

pub fn webhook(row: &Row) -> Decoded<Webhook> {
    let disabled = row.opt_text(5)?.map(|text| {
        DisabledReason::parse(&text).ok_or_else(|| StoreError::corrupt(format!("unknown reason {text:?}")))
    });
    Ok(Webhook {
        id: WebhookId(row.uuid(1)?),
        url: row.text(2)?,
        types: row.json(3)?,
        description: row.text(4)?,
        disabled: disabled.transpose()?,
        secrets: Secrets { current: row.text(6)?, previous: row.opt_text(7)?.zip(row.opt_time(8)?) },
        starts_after: LogPosition { tx: row.int(9)?, ordinal: row.int(10)? },
        created_at: row.time(11)?,
        updated_at: row.time(12)?,
    })
}

pub const TEMPLATE: &str = "tenant_id, id, version, enabled, total_stock, remaining_stock, claimed_count, created_at, updated_at, \
     committed_amount, code_batch_count, archived_at, day_starts_at, day_ends_at, day_claimed, day_ceiling, \
     week_starts_at, week_ends_at, week_claimed, week_ceiling, month_starts_at, month_ends_at, month_claimed, month_ceiling";
pub const TEMPLATE_COLUMNS: usize = 24;

/// A template whose definition and count of uses are known already.
pub fn template(row: &Row, definition: Arc<Definition>, used_count: i64) -> Decoded<Template> {
    Ok(Template {
        id: TemplateId(row.uuid(1)?),
        version: row.int(2)?,
        enabled: row.bool(3)?,
        total_stock: row.opt_int(4)?,
        remaining_stock: row.opt_int(5)?,
        claimed_count: row.int(6)?,
        used_count,
        committed_amount: row.int(9)?,
        code_batch_count: row.int(10)?,
        archived_at: row.opt_time(11)?,
        counts: [period_count(row, 12)?, period_count(row, 16)?, period_count(row, 20)?],
        definition,
        created_at: row.time(7)?,
        updated_at: row.time(8)?,
    })
}

/// The four columns of a count, from `first` on.
fn period_count(row: &Row, first: usize) -> Decoded<Option<PeriodCount>> {
    let columns = (row.opt_time(first)?, row.opt_time(first + 1)?, row.opt_int(first + 2)?, row.opt_int(first + 3)?);
    Ok(match columns {
        (Some(starts_at), Some(ends_at), Some(claimed), Some(ceiling)) => {
            Some(PeriodCount { bounds: LocalPeriod { starts_at, ends_at }, claimed, ceiling })
        }
        _ => None,
    })
}

pub const CODE_BATCH: &str = "tenant_id, id, template_id, kind, name, max_uses, pattern, alphabet, check_character, key_id, \
                              created_at, status, code_count, added_count, next_number, claimed_count, nonce, \
                              completed_at, exported_at, updated_at";

pub fn code_batch(row: &Row) -> Decoded<CodeBatch> {
    code_batch_from(row, 0)
}

/// The same, behind so many columns of other tables.
pub fn code_batch_from(row: &Row, first: usize) -> Decoded<CodeBatch> {
    Ok(CodeBatch {
        id: CodeBatchId(row.uuid(first + 1)?),
        template_id: TemplateId(row.uuid(first + 2)?),
        kind: row.name(first + 3, CodeKind::parse)?,
        name: row.text(first + 4)?,
        max_uses: row.opt_int(first + 5)?,
        pattern: row.text(first + 6)?,
        alphabet: row.text(first + 7)?,
        check_character: row.bool(first + 8)?,
        key_id: row.int(first + 9)?,
        created_at: row.time(first + 10)?,
        status: row.name(first + 11, CodeStatus::parse)?,
        code_count: row.int(first + 12)?,
        added_count: row.int(first + 13)?,
        next_number: row.int(first + 14)?,
        claimed_count: row.int(first + 15)?,
        nonce: row.opt_bytes(first + 16)?,
        completed_at: row.opt_time(first + 17)?,
        exported_at: row.opt_time(first + 18)?,
        updated_at: row.time(first + 19)?,
    })
}

pub const CODE: &str = "tenant_id, digest, batch_id, number, max_uses, status, use_count, member_id";
pub const CODE_COLUMNS: usize = 8;

pub fn code(row: &Row) -> Decoded<Code> {
    Ok(Code {
        digest: row.bytes(1)?,
        batch_id: CodeBatchId(row.uuid(2)?),
        number: row.int(3)?,
        max_uses: row.opt_int(4)?,
        status: row.name(5, CodeStatus::parse)?,
        use_count: row.int(6)?,
        member_id: row.opt_caller_id(7)?,
    })
}

pub const COUPON: &str = "tenant_id, id, template_id, template_version, member_id, status, sequence, source, valid_from, \
                          valid_until, order_id, locked_until, discount_amount, claimed_at, used_at, by_order";

pub fn coupon(row: &Row) -> Decoded<Coupon> {
    Ok(Coupon {
        id: CouponId(row.uuid(1)?),
        template_id: TemplateId(row.uuid(2)?),
        template_version: row.int(3)?,
        member_id: row.caller_id(4)?,
        status: row.name(5, CouponStatus::parse)?,
        sequence: row.int(6)?,
        source: row.name(7, CouponSource::parse)?,
        valid_from: row.time(8)?,
        valid_until: row.time(9)?,
        order_id: row.opt_caller_id(10)?,
        locked_until: row.opt_time(11)?,
        discount_amount: row.opt_int(12)?,
        claimed_at: row.time(13)?,
        used_at: row.opt_time(14)?,
        by_order: row.bool(15)?,
    })
}

pub const ACCOUNT: &str = "tenant_id, member_id, total_points, available, frozen, used, expired, revoked, debt, sequence, \
                           created_at, updated_at, merged_into, earned_day, earned_in_day, earned_in_week, earned_in_month, \
                           idle_moved_until";
pub const ACCOUNT_COLUMNS: usize = 18;

pub fn account(row: &Row) -> Decoded<Account> {
    Ok(Account {
        member_id: row.caller_id(1)?,
        total_points: row.int(2)?,
        available: row.int(3)?,
        frozen: row.int(4)?,
        used: row.int(5)?,
        expired: row.int(6)?,
        revoked: row.int(7)?,
        debt: row.int(8)?,
        sequence: row.int(9)?,
        created_at: row.time(10)?,
        updated_at: row.time(11)?,
        merged_into: row.opt_caller_id(12)?,
        earned: Earned { day: Day(row.int(13)?), points: [row.int(14)?, row.int(15)?, row.int(16)?] },
        idle_moved_until: row.opt_time(17)?,
    })
}

pub const LOT: &str = "tenant_id, member_id, id, points, remaining, held, used, expired, revoked, moved, available_from, \
                       expires_at, transaction_id, created_at, idle_days";

pub fn lot(row: &Row) -> Decoded<Lot> {
    Ok(Lot {
        id: LotId(row.uuid(2)?),
        points: row.int(3)?,
        remaining: row.int(4)?,
        held: row.int(5)?,
        used: row.int(6)?,
        expired: row.int(7)?,
        revoked: row.int(8)?,
        moved: row.int(9)?,
        available_from: row.time(10)?,
        expires_at: row.time(11)?,
        transaction_id: TransactionId(row.uuid(12)?),
        created_at: row.time(13)?,
        idle_days: row.opt_int(14)?.map(|days| u32::try_from(days).unwrap_or(u32::MAX)),
    })
}

pub const TRANSACTION: &str = "tenant_id, id, member_id, sequence, type, points, balance_before, balance_after, \
                               frozen_after, debt_after, reference, remark, hold_id, reverses_id, lot_id, allocations, \
                               expires_at, occurred_at, recorded_at, by_order, counterpart_id, rules_version, \
                               points_forgiven, totals";
pub const TRANSACTION_COLUMNS: usize = 24;

pub fn transaction(row: &Row) -> Decoded<Transaction> {
    Ok(Transaction {
        id: TransactionId(row.uuid(1)?),
        member_id: row.caller_id(2)?,
        sequence: row.int(3)?,
        kind: row.name(4, TransactionType::parse)?,
        points: row.int(5)?,
        balance_before: row.int(6)?,
        balance_after: row.int(7)?,
        frozen_after: row.int(8)?,
        debt_after: row.int(9)?,
        reference: row.opt_text(10)?,
        remark: row.opt_text(11)?,
        hold_id: row.opt_uuid(12)?.map(HoldId),
        reverses_id: row.opt_uuid(13)?.map(TransactionId),
        lot_id: row.opt_uuid(14)?.map(LotId),
        allocations: row.json(15)?,
        expires_at: row.opt_time(16)?,
        occurred_at: row.time(17)?,
        recorded_at: row.time(18)?,
        by_order: row.bool(19)?,
        counterpart_id: row.opt_uuid(20)?.map(TransactionId),
        rules_version: row.opt_int(21)?,
        points_forgiven: row.int(22)?,
        totals: row.opt_json(23)?,
    })
}

pub const HOLD: &str = "tenant_id, id, member_id, points, captured, released, status, reference, remark, expires_at, \
                        allocations, created_at, closed_at, by_order, pending";

pub fn hold(row: &Row) -> Decoded<Hold> {
    Ok(Hold {
        id: HoldId(row.uuid(1)?),
        member_id: row.caller_id(2)?,
        points: row.int(3)?,
        captured: row.int(4)?,
        released: row.int(5)?,
        status: row.name(6, HoldStatus::parse)?,
        reference: row.opt_text(7)?,
        remark: row.opt_text(8)?,
        expires_at: row.time(9)?,
        allocations: row.json(10)?,
        created_at: row.time(11)?,
        closed_at: row.opt_time(12)?,
        by_order: row.bool(13)?,
        pending: row.bool(14)?,
    })
}

pub const ORDER: &str = "tenant_id, order_id, id, member_id, basket, quote, rules_version, created_at, expires_at, status, \
                         hold_id, spend_id, earn_id, earn_due_at, points_granted, refunded_quantities, \
                         refunded_amount, refunded_freight, points_returned, points_clawed_back, coupons_returned, \
                         paid_at, closed_at, earn_cut";

pub fn order(row: &Row) -> Decoded<Order> {
    Ok(Order {
        order_id: row.caller_id(1)?,
        id: OrderUid(row.uuid(2)?),
        member_id: row.caller_id(3)?,
        basket: Arc::new(row.json(4)?),
        quote: Arc::new(row.json(5)?),
        rules_version: row.int(6)?,
        created_at: row.time(7)?,
        expires_at: row.time(8)?,
        status: row.name(9, OrderStatus::parse)?,
        hold_id: row.opt_uuid(10)?.map(HoldId),
        spend_id: row.opt_uuid(11)?.map(TransactionId),
        earn_id: row.opt_uuid(12)?.map(TransactionId),
        earn_due_at: row.opt_time(13)?,
        points_granted: row.int(14)?,
        refunded_quantities: row.json(15)?,
        refunded_amount: row.int(16)?,
        refunded_freight: row.int(17)?,
        points_returned: row.int(18)?,
        points_clawed_back: row.int(19)?,
        coupons_returned: row.bool(20)?,
        paid_at: row.opt_time(21)?,
        closed_at: row.opt_time(22)?,
        earn_cut: row.opt_json(23)?,
    })
}

pub const REFUND: &str = "tenant_id, order_id, refund_id, order_uid, member_id, is_full, lines, freight, amount, \
                          points_returned, points_clawed_back, points_owed, return_transaction_id, \
                          clawback_transaction_id, coupons, remark, order_status, created_at, points_forgiven";

pub fn refund(row: &Row) -> Decoded<Refund> {
    Ok(Refund {
        order_id: row.caller_id(1)?,
        refund_id: row.caller_id(2)?,
        order: OrderUid(row.uuid(3)?),
        member_id: row.caller_id(4)?,
        full: row.bool(5)?,
        lines: row.json(6)?,
        freight: row.int(7)?,
        amount: row.int(8)?,
        points_returned: row.int(9)?,
        points_clawed_back: row.int(10)?,
        points_owed: row.int(11)?,
        return_transaction_id: row.opt_uuid(12)?.map(TransactionId),
        clawback_transaction_id: row.opt_uuid(13)?.map(TransactionId),
        coupons: row.json(14)?,
        remark: row.opt_text(15)?,
        order_status: row.name(16, OrderStatus::parse)?,
        created_at: row.time(17)?,
        points_forgiven: row.int(18)?,
    })
}

pub const COMPENSATION: &str = "tenant_id, id, coupon_id, template_id, member_id, order_id, reason, created_at, status, remark, \
                                closed_by, closed_at";

pub fn compensation(row: &Row) -> Decoded<Compensation> {
    Ok(Compensation {
        id: CompensationId(row.uuid(1)?),
        coupon_id: CouponId(row.uuid(2)?),
        template_id: TemplateId(row.uuid(3)?),
        member_id: row.caller_id(4)?,
        order_id: row.caller_id(5)?,
        reason: row.name(6, CompensationReason::parse)?,
        created_at: row.time(7)?,
        status: row.name(8, CompensationStatus::parse)?,
        remark: row.opt_text(9)?,
        closed_by: row.opt_uuid(10)?.map(KeyId),
        closed_at: row.opt_time(11)?,
    })
}

pub const ADJUSTMENT: &str = "tenant_id, id, member_id, points, reason, reference, expires_at, requested_by, requested_at, status, \
                              decided_by, decided_at, remark, transaction_id";

pub fn adjustment(row: &Row) -> Decoded<Adjustment> {
    Ok(Adjustment {
        id: AdjustmentId(row.uuid(1)?),
        member_id: row.caller_id(2)?,
        points: row.int(3)?,
        reason: row.text(4)?,
        reference: row.opt_text(5)?,
        expires_at: row.opt_time(6)?,
        requested_by: row.opt_uuid(7)?.map(KeyId),
        requested_at: row.time(8)?,
        status: row.name(9, AdjustmentStatus::parse)?,
        decided_by: row.opt_uuid(10)?.map(KeyId),
        decided_at: row.opt_time(11)?,
        remark: row.opt_text(12)?,
        transaction_id: row.opt_uuid(13)?.map(TransactionId),
    })
}

pub const CHECK_IN: &str = "tenant_id, member_id, day, streak, points, bonus, transaction_id, checked_in_at, made_up, \
                            price_transaction_id";

pub fn check_in(row: &Row) -> Decoded<CheckIn> {
    Ok(CheckIn {
        member_id: row.caller_id(1)?,
        day: Day(row.int(2)?),
        streak: row.int(3)?,
        points: row.int(4)?,
        bonus: row.int(5)?,
        transaction_id: TransactionId(row.uuid(6)?),
        checked_in_at: row.time(7)?,
        made_up: row.bool(8)?,
        price_transaction_id: row.opt_uuid(9)?.map(TransactionId),
    })
}

pub const TASK: &str = "tenant_id, task_key, id, version, enabled, definition, created_at, updated_at, deleted_at";
pub const TASK_COLUMNS: usize = 9;

pub fn task(row: &Row) -> Decoded<Task> {
    Ok(Task {
        key: row.caller_id(1)?,
        id: TaskId(row.uuid(2)?),
        version: row.int(3)?,
        enabled: row.bool(4)?,
        definition: Arc::new(row.json(5)?),
        created_at: row.time(6)?,
        updated_at: row.time(7)?,
        deleted_at: row.opt_time(8)?,
    })
}

pub const PROGRESS: &str = "tenant_id, member_id, task_key, period_start, steps, completions, total_completions, \
                            carried_steps, carried_completions, carried_total, updated_at";

pub fn progress(row: &Row) -> Decoded<Progress> {
    Ok(Progress {
        member_id: row.caller_id(1)?,
        task_key: row.caller_id(2)?,
        period_start: Day(row.int(3)?),
        steps: row.int(4)?,
        completions: row.int(5)?,
        total_completions: row.int(6)?,
        carried: Carried { steps: row.int(7)?, completions: row.int(8)?, total_completions: row.int(9)? },
        updated_at: row.time(10)?,
    })
}

pub const REPORT: &str = "tenant_id, member_id, task_key, completion_id, period_start, step, target, points, \
                          transaction_id, reported_at";

pub fn report(row: &Row) -> Decoded<Report> {
    Ok(Report {
        member_id: row.caller_id(1)?,
        task_key: row.caller_id(2)?,
        completion_id: row.caller_id(3)?,
        period_start: Day(row.int(4)?),
        step: row.int(5)?,
        target: row.int(6)?,
        points: row.int(7)?,
        transaction_id: row.opt_uuid(8)?.map(TransactionId),
        reported_at: row.time(9)?,
    })
}

pub const RULES: &str = "tenant_id, version, effective_from, rules, created_at";
pub const RULES_COLUMNS: usize = 5;

/// A version of a tenant's rules and the time from which it holds. One that is known already is not read again.
pub fn rules(row: &Row, known: &Definitions) -> Decoded<(Timestamp, Arc<Rules>)> {
    let (tenant, version) = (row.tenant(0)?, row.int(1)?);
    let rules = match known.rules(tenant, version) {
        Some(rules) => rules,
        None => {
            let rules: Arc<Rules> = Arc::new(row.json(3)?);
            known.insert_rules(tenant, rules.clone());
            rules
        }
    };
    Ok((row.time(2)?, rules))
}

pub const BULK: &str = "tenant_id, id, kind, template_id, row_count, chunks, skipped, actor_id, created_at, status, next_chunk, \
                        accepted, refused, updated_at, finished_at, results_dropped_at";

pub fn bulk(row: &Row) -> Decoded<Bulk> {
    Ok(Bulk {
        id: BulkId(row.uuid(1)?),
        kind: row.name(2, BulkKind::parse)?,
        template_id: row.opt_uuid(3)?.map(TemplateId),
        rows: row.int(4)?,
        chunks: row.int(5)?,
        skipped: row.int(6)?,
        actor: row.opt_uuid(7)?.map(KeyId),
        created_at: row.time(8)?,
        status: row.name(9, BulkStatus::parse)?,
        next_chunk: row.int(10)?,
        accepted: row.int(11)?,
        refused: row.int(12)?,
        updated_at: row.time(13)?,
        finished_at: row.opt_time(14)?,
        results_dropped_at: row.opt_time(15)?,
    })
}

pub const JOB: &str = "tenant_id, id, kind, payload, priority, max_attempts, every, created_at, state, run_at, attempts, \
                       fence, lease_holder, lease_until, progress, last_error, updated_at, finished_at";

pub fn job(row: &Row) -> Decoded<Job> {
    let rank = row.int(4)?;
    Ok(Job {
        id: JobId(row.uuid(1)?),
        kind: row.name(2, JobKind::parse)?,
        payload: row.text(3)?,
        priority: Priority::of_rank(rank).ok_or_else(|| StoreError::corrupt(format!("priority {rank} is none")))?,
        max_attempts: row.int(5)?,
        every: row.opt_int(6)?,
        created_at: row.time(7)?,
        state: row.name(8, JobState::parse)?,
        run_at: row.time(9)?,
        attempts: row.int(10)?,
        fence: row.int(11)?,
        lease_holder: row.opt_uuid(12)?,
        lease_until: row.opt_time(13)?,
        progress: row.text(14)?,
        last_error: row.opt_text(15)?,
        updated_at: row.time(16)?,
        finished_at: row.opt_time(17)?,
    })
}

pub const EVENT: &str = "tx, ordinal, id, type, subject_id, member_id, data, actor_id, occurred_at, recorded_at";

/// Where an event stands in its tenant's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPosition {
    pub tx: i64,
    pub ordinal: i64,
}

pub fn event(row: &Row) -> Decoded<(EventPosition, Event)> {
    let position = EventPosition { tx: row.int(0)?, ordinal: row.int(1)? };
    let event = Event {
        id: EventId(row.uuid(2)?),
        kind: row.name(3, EventKind::parse)?,
        subject: row.uuid(4)?,
        member_id: row.opt_caller_id(5)?,
        data: row.text(6)?,
        actor: row.opt_uuid(7)?.map(KeyId),
        occurred_at: row.time(8)?,
        recorded_at: row.time(9)?,
    };
    Ok((position, event))
}
