//! A second, naive implementation of the rules, written from the specification: it keeps plain lists, sums them up
//! anew at every step and stores no total that can be derived. Slow and simple on purpose; what it and the domain
//! disagree on is a bug of one of them.
//!
//! Ids are the one thing it does not make: it takes those of the domain's answer. It depends on the domain's plain data
//! only, so a store's tests can include this file and compare a [`Snapshot`] of their tables with [`Model::snapshot`].

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use scrip_domain::bulk::{Bulk, BulkKind, BulkStatus, ChunkWork};
use scrip_domain::check_in::CheckIn;
use scrip_domain::command::{Command, Envelope, Movement};
use scrip_domain::coupon::{
    Code, CodeBatch, CodeDigest, CodeKind, CodeStatus, CodeUse, Compensation, CompensationReason, CompensationStatus,
    Coupon, CouponSource, CouponStatus, Definition, NewCodeBatch, Template, Validity,
};
use scrip_domain::job::{ExtensionProgress, Job, JobKind};
use scrip_domain::order::{Order, OrderStatus, Refund, RefundRequest, Reservation};
use scrip_domain::points::{
    Account, Adjustment, AdjustmentRequest, AdjustmentStatus, Allocation, Campaign, Columns, DebtPolicy, Hold,
    HoldStatus, ImportedAccount, ImportedAction, Lot, PointsValidity, Spendable, Transaction, TransactionType,
};
use scrip_domain::pricing::{self, Basket, Offer, Quote, Rules, price};
use scrip_domain::task::{self, Period, Progress, Report, Task};
use scrip_domain::time::{Calendar, Window};
use scrip_domain::webhook::{DisabledReason, Webhook, WebhookChange};
use scrip_domain::{
    AdjustmentId, Answer, BulkId, CodeBatchId, CompensationId, CompletionId, CouponId, Day, HoldId, JobId, KeyId,
    LotId, MemberId, OrderId, Outcome, RefundId, Rejection, TaskId, TaskKey, TemplateId, TenantId, Timestamp,
    TransactionId, WebhookId,
};

/// An answer as a caller sees it, in a form that can be compared and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelAnswer {
    Accepted(String),
    Replayed(String),
    /// The rejection's code.
    Refused(&'static str),
}

impl ModelAnswer {
    /// What the domain has answered.
    pub fn of(answer: &Answer) -> ModelAnswer {
        match answer {
            Answer::Refused(rejection) => ModelAnswer::Refused(rejection.code()),
            Answer::Accepted { outcome, replayed: false } => ModelAnswer::Accepted(shown(outcome)),
            Answer::Accepted { outcome, replayed: true } => ModelAnswer::Replayed(shown(outcome)),
        }
    }
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Tenant(tenant) => format!("tenant {}", tenant.id),
        Outcome::ApiKey(key) => format!("key {} revoked {:?}", key.id, key.revoked_at),
        Outcome::Template(template) => format!("{} {:?}", template.id, TemplateRow::from(&**template)),
        Outcome::Rules(version) => format!("rules {} of {}", version.rules.version, version.newest),
        Outcome::Webhook(row) => format!("{} {:?}", row.id, WebhookRow::from(&**row)),
        Outcome::Deleted => "deleted".into(),
        Outcome::Coupon(coupon) => format!("{} {:?}", coupon.id, CouponRow::from(&**coupon)),
        Outcome::Exchange(made) => {
            let (coupon, line) = (CouponRow::from(&made.coupon), LineRow::from(&made.transaction));
            format!("{} {coupon:?} {} {line:?}", made.coupon.id, made.transaction.id)
        }
        Outcome::CodeBatch(batch) => format!("{} {:?}", batch.id, BatchRow::from(&**batch)),
        Outcome::CodesAdded { batch, known } => format!("{} {:?} but {known:?}", batch.id, BatchRow::from(&**batch)),
        Outcome::Transaction(line) => format!("{} {:?}", line.id, LineRow::from(&**line)),
        Outcome::Hold { hold, available, transaction_id } => {
            format!("{transaction_id} {} {:?} available {available}", hold.id, HoldRow::from(&**hold))
        }
        Outcome::Settled(found) => format!(
            "settled {} {} {} {} {} {}",
            found.coupons_expired,
            found.locks_released,
            found.holds_released,
            found.points_expired,
            found.orders_released,
            found.points_granted
        ),
        Outcome::Order(order) => format!("{:?}", OrderRow::from(&**order)),
        Outcome::Refund(refund) => format!("{:?}", RefundRow::from(&**refund)),
        Outcome::Compensation(case) => format!("{} {:?}", case.coupon_id, CaseRow::from(&**case)),
        Outcome::Adjustment(row) => shown_adjustment(row),
        Outcome::Swept(sweep) => format!("swept {sweep:?}"),
        Outcome::Job(job) => shown_job(job),
        Outcome::Bulk(bulk) => format!("{bulk:?}"),
        Outcome::Announced(told) => format!("announced {told}"),
        Outcome::Imported(made) => format!("{} {:?}", made.member_id, made.columns),
        Outcome::Transfer(both) => {
            let line = |line: &Transaction| format!("{} {:?}", line.id, LineRow::from(line));
            format!("{} {}", line(&both.sent), line(&both.received))
        }
        Outcome::CheckIn { check_in, again } => format!("{:?} again {again}", CheckInRow::from(&**check_in)),
        Outcome::Task(task) => format!("{} {:?}", task.id, TaskRow::from(&**task)),
        Outcome::Report { report, again } => format!("{:?} again {again}", ReportRow::from(&**report)),
    }
}

fn shown_job(job: &Job) -> String {
    let progress = match job.kind {
        JobKind::ExtendCoupons => extension_shown(&serde_json::from_str(&job.progress).expect("a progress")),
        _ => String::new(),
    };
    format!("{} {} {} due {}{progress}", job.id, job.kind.as_str(), job.state.as_str(), job.run_at.0)
}

fn shown_adjustment(row: &Adjustment) -> String {
    format!("{row:?}")
}

fn extension_shown(progress: &ExtensionProgress) -> String {
    format!(
        " pages {} seen {} extended {} refused {}",
        progress.pages, progress.seen, progress.extended, progress.refused
    )
}

/// Everything observable, row by row, each under a readable key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(pub BTreeMap<String, String>);

impl Snapshot {
    pub fn template(&mut self, tenant: TenantId, row: &Template) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{:?}", TemplateRow::from(row)));
    }

    pub fn webhook(&mut self, tenant: TenantId, row: &Webhook) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{:?}", WebhookRow::from(row)));
    }

    pub fn coupon(&mut self, tenant: TenantId, row: &Coupon) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{:?}", CouponRow::from(row)));
    }

    pub fn code_batch(&mut self, tenant: TenantId, row: &CodeBatch) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{:?} {}", BatchRow::from(row), row.nonce.is_some()));
    }

    pub fn code(&mut self, tenant: TenantId, row: &Code) {
        self.0.insert(format!("{tenant} code {:?}", row.digest), format!("{row:?}"));
    }

    pub fn code_use(&mut self, tenant: TenantId, row: &CodeUse) {
        self.0.insert(format!("{tenant} use {}", row.coupon_id), format!("{row:?}"));
    }

    pub fn exchange(
        &mut self,
        tenant: TenantId,
        coupon: CouponId,
        member: &MemberId,
        paid_by: TransactionId,
        points: i64,
    ) {
        self.0.insert(format!("{tenant} exchange {coupon}"), format!("{member} {paid_by} {points}"));
    }

    pub fn account(&mut self, tenant: TenantId, row: &Account) {
        self.0.insert(format!("{tenant} account {}", row.member_id), format!("{:?}", AccountRow::from(row)));
    }

    pub fn lot(&mut self, tenant: TenantId, member: &MemberId, row: &Lot) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{member} {:?}", LotRow::from(row)));
    }

    pub fn hold(&mut self, tenant: TenantId, row: &Hold) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{} {:?}", row.member_id, HoldRow::from(row)));
    }

    pub fn transaction(&mut self, tenant: TenantId, row: &Transaction) {
        self.line(tenant, &row.member_id, &LineRow::from(row));
    }

    pub fn order(&mut self, tenant: TenantId, row: &Order) {
        self.0.insert(format!("{tenant} order {}", row.order_id), format!("{:?}", OrderRow::from(row)));
    }

    pub fn refund(&mut self, tenant: TenantId, row: &Refund) {
        let key = format!("{tenant} refund {} {}", row.order_id, row.refund_id);
        self.0.insert(key, format!("{:?}", RefundRow::from(row)));
    }

    pub fn adjustment(&mut self, tenant: TenantId, row: &Adjustment) {
        self.0.insert(format!("{tenant} {}", row.id), shown_adjustment(row));
    }

    pub fn case(&mut self, tenant: TenantId, row: &Compensation) {
        self.0.insert(format!("{tenant} case {}", row.coupon_id), format!("{:?}", CaseRow::from(row)));
    }

    pub fn rules(&mut self, tenant: TenantId, effective_from: Timestamp, rules: &Rules) {
        self.0.insert(format!("{tenant} rules {:06}", rules.version), format!("{effective_from:?} {rules:?}"));
    }

    pub fn bulk(&mut self, tenant: TenantId, row: &Bulk) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{row:?}"));
    }

    /// What came of a chunk, once it is worked off.
    pub fn chunk(&mut self, tenant: TenantId, id: BulkId, number: i64, outcomes: &str) {
        self.0.insert(format!("{tenant} {id} {number:04}"), outcomes.to_owned());
    }

    pub fn job(&mut self, tenant: TenantId, row: &Job) {
        self.0.insert(format!("{tenant} {}", row.id), shown_job(row));
    }

    /// How much of a transaction has been undone; nothing is no row.
    pub fn reversed(&mut self, tenant: TenantId, id: TransactionId, reversed: i64) {
        if reversed > 0 {
            self.0.insert(format!("{tenant} reversed {id}"), reversed.to_string());
        }
    }

    pub fn check_in(&mut self, tenant: TenantId, row: &CheckIn) {
        let key = format!("{tenant} check-in {} {}", row.member_id, row.day);
        self.0.insert(key, format!("{:?}", CheckInRow::from(row)));
    }

    pub fn task(&mut self, tenant: TenantId, row: &Task) {
        self.0.insert(format!("{tenant} task {}", row.key), format!("{} {:?}", row.id, TaskRow::from(row)));
    }

    pub fn progress(&mut self, tenant: TenantId, row: &Progress) {
        let key = format!("{tenant} progress {} {}", row.member_id, row.task_key);
        let counts = [row.period_start.0, row.steps, row.completions, row.total_completions];
        self.0.insert(key, format!("{counts:?}"));
    }

    pub fn report(&mut self, tenant: TenantId, row: &Report) {
        let key = format!("{tenant} report {} {} {}", row.member_id, row.task_key, row.completion_id);
        self.0.insert(key, format!("{:?}", ReportRow::from(row)));
    }

    fn line(&mut self, tenant: TenantId, member: &MemberId, row: &LineRow) {
        self.0.insert(format!("{tenant} ledger {member} {:06}", row.sequence), format!("{row:?}"));
    }

    /// The first few keys under which the two differ, to read in a failed test.
    pub fn differences(&self, other: &Snapshot) -> Vec<String> {
        let keys: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differing = keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key));
        differing.take(5).map(|key| format!("{key}:\n  {:?}\n  {:?}", self.0.get(key), other.0.get(key))).collect()
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct TemplateRow {
    version: i64,
    enabled: bool,
    total: Option<i64>,
    remaining: Option<i64>,
    claimed: i64,
    used: i64,
    committed: i64,
    /// The bounds of the latest day, week and month with claims under a cap of theirs, and their number.
    counts: [Option<(i64, i64, i64)>; 3],
    batches: i64,
    archived: Option<Timestamp>,
    definition: Arc<Definition>,
}

impl From<&Template> for TemplateRow {
    fn from(row: &Template) -> Self {
        TemplateRow {
            version: row.version,
            enabled: row.enabled,
            total: row.total_stock,
            remaining: row.remaining_stock,
            claimed: row.claimed_count,
            used: row.used_count,
            committed: row.committed_amount,
            counts: row
                .counts
                .map(|count| count.map(|count| (count.bounds.starts_at.0, count.bounds.ends_at.0, count.claimed))),
            batches: row.code_batch_count,
            archived: row.archived_at,
            definition: row.definition.clone(),
        }
    }
}

/// A webhook without its secrets, which no answer repeats.
#[derive(Debug, Clone)]
struct WebhookRow {
    url: String,
    types: Vec<String>,
    disabled: Option<DisabledReason>,
}

impl From<&Webhook> for WebhookRow {
    fn from(row: &Webhook) -> Self {
        WebhookRow { url: row.url.clone(), types: row.types.clone(), disabled: row.disabled }
    }
}

#[derive(Debug, Clone)]
struct CouponRow {
    template: TemplateId,
    version: i64,
    member: MemberId,
    status: CouponStatus,
    sequence: i64,
    source: CouponSource,
    valid_from: Timestamp,
    valid_until: Timestamp,
    order: Option<OrderId>,
    by_order: bool,
    deadline: Option<Timestamp>,
    discount: Option<i64>,
    claimed_at: Timestamp,
    used_at: Option<Timestamp>,
}

impl From<&Coupon> for CouponRow {
    fn from(row: &Coupon) -> Self {
        CouponRow {
            template: row.template_id,
            version: row.template_version,
            member: row.member_id.clone(),
            status: row.status,
            sequence: row.sequence,
            source: row.source,
            valid_from: row.valid_from,
            valid_until: row.valid_until,
            order: row.order_id.clone(),
            by_order: row.by_order,
            deadline: row.locked_until,
            discount: row.discount_amount,
            claimed_at: row.claimed_at,
            used_at: row.used_at,
        }
    }
}

#[derive(Debug, Clone)]
struct BatchRow {
    template: TemplateId,
    kind: CodeKind,
    status: CodeStatus,
    count: i64,
    added: i64,
    next: i64,
    claimed: i64,
    max_uses: Option<i64>,
    completed: Option<Timestamp>,
    exported: Option<Timestamp>,
}

impl From<&CodeBatch> for BatchRow {
    fn from(row: &CodeBatch) -> Self {
        BatchRow {
            template: row.template_id,
            kind: row.kind,
            status: row.status,
            count: row.code_count,
            added: row.added_count,
            next: row.next_number,
            claimed: row.claimed_count,
            max_uses: row.max_uses,
            completed: row.completed_at,
            exported: row.exported_at,
        }
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct AccountRow {
    total: i64,
    available: i64,
    frozen: i64,
    used: i64,
    expired: i64,
    revoked: i64,
    debt: i64,
    sequence: i64,
    merged: Option<MemberId>,
    /// By orders: the latest day, and points in its day, week and month.
    earned: (Day, [i64; 3]),
}

impl From<&Account> for AccountRow {
    fn from(row: &Account) -> Self {
        AccountRow {
            total: row.total_points,
            available: row.available,
            frozen: row.frozen,
            used: row.used,
            expired: row.expired,
            revoked: row.revoked,
            debt: row.debt,
            sequence: row.sequence,
            merged: row.merged_into.clone(),
            earned: (row.earned.day, row.earned.points),
        }
    }
}

#[derive(Debug, Clone)]
struct LotRow {
    points: i64,
    remaining: i64,
    held: i64,
    used: i64,
    expired: i64,
    revoked: i64,
    moved: i64,
    from: Timestamp,
    until: Timestamp,
    /// Of one that expires by inactivity: so many days after it.
    idle: Option<u32>,
    made: Timestamp,
}

impl From<&Lot> for LotRow {
    fn from(row: &Lot) -> Self {
        LotRow {
            points: row.points,
            remaining: row.remaining,
            held: row.held,
            used: row.used,
            expired: row.expired,
            revoked: row.revoked,
            moved: row.moved,
            from: row.available_from,
            until: row.expires_at,
            idle: row.idle_days,
            made: row.created_at,
        }
    }
}

impl LotRow {
    fn new(points: i64, at: Timestamp, until: Timestamp) -> LotRow {
        let (remaining, from, made) = (points, at, at);
        LotRow { points, remaining, held: 0, used: 0, expired: 0, revoked: 0, moved: 0, from, until, idle: None, made }
    }
}

#[derive(Debug, Clone)]
struct HoldRow {
    points: i64,
    captured: i64,
    released: i64,
    status: HoldStatus,
    deadline: Timestamp,
    /// The order of ours that holds them.
    order: Option<String>,
    parts: Vec<(LotId, i64)>,
    closed_at: Option<Timestamp>,
    pending: bool,
}

impl From<&Hold> for HoldRow {
    fn from(row: &Hold) -> Self {
        HoldRow {
            points: row.points,
            captured: row.captured,
            released: row.released,
            status: row.status,
            deadline: row.expires_at,
            order: row.reference.clone().filter(|_| row.by_order),
            parts: pairs(&row.allocations),
            closed_at: row.closed_at,
            pending: row.pending,
        }
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct LineRow {
    sequence: i64,
    kind: TransactionType,
    points: i64,
    before: i64,
    after: i64,
    frozen: i64,
    debt: i64,
    forgiven: i64,
    parts: Vec<(LotId, i64)>,
    /// The version of the rules that was asked for it.
    rules: Option<i64>,
    /// The order of ours that made it.
    order: Option<String>,
    at: Timestamp,
    counterpart: Option<TransactionId>,
}

impl From<&Transaction> for LineRow {
    fn from(row: &Transaction) -> Self {
        LineRow {
            sequence: row.sequence,
            kind: row.kind,
            points: row.points,
            before: row.balance_before,
            after: row.balance_after,
            frozen: row.frozen_after,
            debt: row.debt_after,
            forgiven: row.points_forgiven,
            rules: row.rules_version,
            parts: pairs(&row.allocations),
            order: row.reference.clone().filter(|_| row.by_order),
            at: row.occurred_at,
            counterpart: row.counterpart_id,
        }
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct CheckInRow {
    line: TransactionId,
    day: Day,
    streak: i64,
    points: i64,
    bonus: i64,
    at: Timestamp,
    made_up: bool,
    price_line: Option<TransactionId>,
}

impl From<&CheckIn> for CheckInRow {
    fn from(row: &CheckIn) -> Self {
        let CheckIn { transaction_id: line, day, streak, points, bonus, checked_in_at: at, made_up, .. } = *row;
        CheckInRow { line, day, streak, points, bonus, at, made_up, price_line: row.price_transaction_id }
    }
}

#[derive(Debug, Clone)]
struct TaskRow {
    version: i64,
    enabled: bool,
    deleted: bool,
    definition: Arc<task::Definition>,
}

impl From<&Task> for TaskRow {
    fn from(row: &Task) -> Self {
        let (version, enabled, definition) = (row.version, row.enabled, row.definition.clone());
        TaskRow { version, enabled, deleted: row.deleted_at.is_some(), definition }
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct ReportRow {
    line: Option<TransactionId>,
    period: Day,
    step: i64,
    target: i64,
    points: i64,
    at: Timestamp,
}

impl From<&Report> for ReportRow {
    fn from(row: &Report) -> Self {
        let Report { transaction_id: line, period_start: period, step, target, points, reported_at: at, .. } = *row;
        ReportRow { line, period, step, target, points, at }
    }
}

fn pairs(allocations: &[Allocation]) -> Vec<(LotId, i64)> {
    allocations.iter().map(|part| (part.lot_id, part.points)).collect()
}

/// An order without its ids.
/// What a limit kept back of an order's points.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct CutRow {
    kept: i64,
    by: &'static str,
    /// What each line got, and how many of its units were back by then.
    lines: Vec<(i64, i64)>,
}

#[derive(Debug, Clone)]
struct OrderRow {
    order: OrderId,
    member: MemberId,
    status: OrderStatus,
    quote: Arc<Quote>,
    rules: i64,
    deadline: Timestamp,
    hold: Option<HoldId>,
    spend: Option<TransactionId>,
    earn: Option<TransactionId>,
    due: Option<Timestamp>,
    granted: i64,
    cut: Option<CutRow>,
    quantities: Vec<i64>,
    refunded: i64,
    freight: i64,
    returned: i64,
    clawed_back: i64,
    coupons_returned: bool,
    paid_at: Option<Timestamp>,
    closed_at: Option<Timestamp>,
}

impl From<&Order> for OrderRow {
    fn from(row: &Order) -> Self {
        OrderRow {
            order: row.order_id.clone(),
            member: row.member_id.clone(),
            status: row.status,
            quote: row.quote.clone(),
            rules: row.rules_version,
            deadline: row.expires_at,
            hold: row.hold_id,
            spend: row.spend_id,
            earn: row.earn_id,
            due: row.earn_due_at,
            granted: row.points_granted,
            cut: row.earn_cut.as_ref().map(|cut| CutRow {
                kept: cut.points,
                by: cut.by.as_str(),
                lines: cut.lines.iter().map(|line| (line.points, line.refunded)).collect(),
            }),
            quantities: row.refunded_quantities.clone(),
            refunded: row.refunded_amount,
            freight: row.refunded_freight,
            returned: row.points_returned,
            clawed_back: row.points_clawed_back,
            coupons_returned: row.coupons_returned,
            paid_at: row.paid_at,
            closed_at: row.closed_at,
        }
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct RefundRow {
    full: bool,
    /// Item, units, money, spent points back, earned points taken.
    lines: Vec<(String, i64, i64, i64, i64)>,
    freight: i64,
    amount: i64,
    owed: i64,
    forgiven: i64,
    coupons: Vec<(CouponId, CouponStatus, Timestamp)>,
    status: OrderStatus,
}

impl From<&Refund> for RefundRow {
    fn from(row: &Refund) -> Self {
        let line = |line: &scrip_domain::pricing::refund::LineRefund| {
            let (item, amount) = (line.item_id.clone(), line.amount);
            (item, line.quantity, amount, line.points_returned, line.points_clawed_back)
        };
        RefundRow {
            full: row.full,
            lines: row.lines.iter().map(line).collect(),
            freight: row.freight,
            amount: row.amount,
            owed: row.points_owed,
            forgiven: row.points_forgiven,
            coupons: row.coupons.iter().map(|one| (one.coupon_id, one.status, one.valid_until)).collect(),
            status: row.order_status,
        }
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct CaseRow {
    order: OrderId,
    reason: CompensationReason,
    status: CompensationStatus,
    remark: Option<String>,
    closed_at: Option<Timestamp>,
}

impl From<&Compensation> for CaseRow {
    fn from(row: &Compensation) -> Self {
        CaseRow {
            order: row.order_id.clone(),
            reason: row.reason,
            status: row.status,
            remark: row.remark.clone(),
            closed_at: row.closed_at,
        }
    }
}

/// The ids that the domain has made for an accepted command.
#[derive(Clone)]
struct New {
    webhook: WebhookId,
    template: TemplateId,
    coupon: CouponId,
    batch: CodeBatchId,
    transaction: TransactionId,
    lot: LotId,
    hold: HoldId,
    job: JobId,
    /// An order's, or a refund's: of the points that went out or came back, and of those that came in or were taken back.
    spend: TransactionId,
    earn: TransactionId,
    cases: Vec<(CompensationId, CouponId)>,
    adjustment: AdjustmentId,
    task: TaskId,
    /// The receiver's line and lots of a transfer.
    received: TransactionId,
    lots: Vec<LotId>,
    /// Of an import: the line of each step, and the holds.
    lines: Vec<TransactionId>,
    holds: Vec<HoldId>,
    /// The version of the rules that are asked for it, and whether they forgive what a claw-back does not find.
    rules: Option<i64>,
    forgives: bool,
}

impl New {
    fn of(answer: &Answer) -> New {
        fn nil<T: FromStr<Err: std::fmt::Debug>>(prefix: &str) -> T {
            format!("{prefix}{:032}", 0).parse().expect("a nil id")
        }
        let mut new = New {
            webhook: nil(WebhookId::PREFIX),
            template: nil(TemplateId::PREFIX),
            coupon: nil(CouponId::PREFIX),
            batch: nil(CodeBatchId::PREFIX),
            transaction: nil(TransactionId::PREFIX),
            lot: nil(LotId::PREFIX),
            hold: nil(HoldId::PREFIX),
            job: nil(JobId::PREFIX),
            spend: nil(TransactionId::PREFIX),
            earn: nil(TransactionId::PREFIX),
            cases: Vec::new(),
            adjustment: nil(AdjustmentId::PREFIX),
            task: nil(TaskId::PREFIX),
            received: nil(TransactionId::PREFIX),
            lots: Vec::new(),
            lines: Vec::new(),
            holds: Vec::new(),
            rules: None,
            forgives: false,
        };
        if let Answer::Accepted { outcome, .. } = answer {
            match outcome {
                Outcome::Template(template) => new.template = template.id,
                Outcome::Webhook(webhook) => new.webhook = webhook.id,
                Outcome::Coupon(coupon) => new.coupon = coupon.id,
                Outcome::Exchange(made) => (new.coupon, new.transaction) = (made.coupon.id, made.transaction.id),
                Outcome::CodeBatch(batch) | Outcome::CodesAdded { batch, .. } => new.batch = batch.id,
                Outcome::Transaction(line) => {
                    new.transaction = line.id;
                    new.lot = line.lot_id.unwrap_or(new.lot);
                }
                Outcome::Hold { hold, transaction_id, .. } => {
                    new.hold = hold.id;
                    new.transaction = *transaction_id;
                }
                Outcome::Job(job) => new.job = job.id,
                Outcome::Order(order) => {
                    new.hold = order.hold_id.unwrap_or(new.hold);
                    new.spend = order.spend_id.unwrap_or(new.spend);
                    new.earn = order.earn_id.unwrap_or(new.earn);
                }
                Outcome::Refund(refund) => {
                    new.spend = refund.return_transaction_id.unwrap_or(new.spend);
                    new.earn = refund.clawback_transaction_id.unwrap_or(new.earn);
                    let cases = refund.coupons.iter();
                    new.cases = cases.filter_map(|one| Some((one.compensation_id?, one.coupon_id))).collect();
                }
                Outcome::Adjustment(row) => {
                    new.adjustment = row.id;
                    row.transaction_id.into_iter().for_each(|id| new.line(id));
                }
                Outcome::Settled(found) => new.earn = found.grant_id.unwrap_or(new.earn),
                Outcome::Transfer(both) => {
                    new.transaction = both.sent.id;
                    new.received = both.received.id;
                    new.lots = both.received.allocations.iter().map(|part| part.lot_id).collect();
                }
                Outcome::CheckIn { again: true, .. } | Outcome::Report { again: true, .. } => {}
                Outcome::CheckIn { check_in, .. } => {
                    new.line(check_in.transaction_id);
                    new.spend = check_in.price_transaction_id.unwrap_or(new.spend);
                }
                Outcome::Report { report, .. } => report.transaction_id.into_iter().for_each(|id| new.line(id)),
                Outcome::Task(task) => new.task = task.id,
                Outcome::Imported(made) => (new.lines, new.holds) = (made.lines.clone(), made.holds.clone()),
                Outcome::Bulk(_)
                | Outcome::Announced(_)
                | Outcome::Tenant(_)
                | Outcome::ApiKey(_)
                | Outcome::Rules(_)
                | Outcome::Compensation(_)
                | Outcome::Deleted
                | Outcome::Swept(_) => {}
            }
        }
        new
    }

    /// The same, by these rules.
    fn by(&self, rules: &Rules) -> New {
        let forgives = rules.points.debt_policy == DebtPolicy::Forgive;
        New { rules: Some(rules.version), forgives, ..self.clone() }
    }

    /// A grant, whose lot has the id of its line.
    fn line(&mut self, id: TransactionId) {
        (self.transaction, self.lot) = (id, LotId(id.0));
    }
}

/// What a command comes to: what the caller sees, or a code.
type Decided = Result<String, &'static str>;

/// The whole world of the engine, without a store.
#[derive(Default)]
pub struct Model {
    /// Days of grace for refunded points.
    tenants: BTreeMap<TenantId, u32>,
    /// Whose each program is, and its code.
    programs: BTreeMap<TenantId, (TenantId, String)>,
    keys: BTreeMap<(TenantId, KeyId), Option<Timestamp>>,
    webhooks: BTreeMap<(TenantId, WebhookId), WebhookRow>,
    templates: BTreeMap<(TenantId, TemplateId), TemplateRow>,
    /// Every definition a template ever had, by its version.
    versions: BTreeMap<(TenantId, TemplateId, i64), Arc<Definition>>,
    coupons: BTreeMap<(TenantId, CouponId), CouponRow>,
    /// With whether it still has what its codes were made from.
    batches: BTreeMap<(TenantId, CodeBatchId), (BatchRow, bool)>,
    codes: BTreeMap<(TenantId, CodeDigest), Code>,
    code_uses: BTreeMap<(TenantId, CouponId), CodeUse>,
    exchanges: BTreeMap<(TenantId, CouponId), (MemberId, TransactionId, i64)>,
    books: BTreeMap<(TenantId, MemberId), Book>,
    /// A tenant's rules in the order in which they were set, and from when they hold.
    rules: BTreeMap<TenantId, Vec<(Timestamp, Arc<Rules>)>>,
    /// Up to when issue windows were told.
    announced: BTreeMap<TenantId, Timestamp>,
    /// Up to which lot reminders were told, by how many days before.
    reminded: BTreeMap<(TenantId, u32), (Timestamp, LotId)>,
    /// State and due time; nobody runs them here.
    jobs: BTreeMap<(TenantId, JobId), (&'static str, &'static str, Timestamp)>,
    /// Until when the coupons of an extension are to live, and how far it has come.
    extensions: BTreeMap<(TenantId, JobId), (Timestamp, ExtensionProgress)>,
    bulks: BTreeMap<(TenantId, BulkId), Bulk>,
    /// What came of chunks, as the domain tells it: their ids are in no answer.
    chunks: BTreeMap<(TenantId, BulkId, i64), String>,
    orders: BTreeMap<(TenantId, OrderId), (OrderRow, Basket)>,
    refunds: BTreeMap<(TenantId, OrderId, RefundId), RefundRow>,
    cases: BTreeMap<(TenantId, CouponId), CaseRow>,
    /// Which coupon a case is about.
    case_ids: BTreeMap<(TenantId, CompensationId), CouponId>,
    adjustments: BTreeMap<(TenantId, AdjustmentId), Adjustment>,
    check_ins: BTreeMap<(TenantId, MemberId), BTreeMap<Day, CheckInRow>>,
    tasks: BTreeMap<(TenantId, TaskKey), (TaskId, TaskRow)>,
    reports: BTreeMap<(TenantId, MemberId, TaskKey), Vec<(CompletionId, ReportRow)>>,
    inherited: BTreeMap<(TenantId, MemberId, TaskKey), Vec<Inherited>>,
    replies: BTreeMap<(TenantId, [u8; 16]), ([u8; 16], String)>,
}

impl Model {
    /// Decides the command; `answer` is the domain's, for its ids.
    pub fn apply(&mut self, envelope: &Envelope, answer: &Answer) -> ModelAnswer {
        let reply = envelope.idempotency.map(|given| ((envelope.tenant, given.key), given.fingerprint));
        if let Some((key, fingerprint)) = reply
            && let Some((first, text)) = self.replies.get(&key)
        {
            let same = *first == fingerprint;
            return if same {
                ModelAnswer::Replayed(text.clone())
            } else {
                ModelAnswer::Refused("IDEMPOTENCY_KEY_REUSED")
            };
        }
        // A replay's ids are those of another command; it is answered above.
        let new = match answer {
            Answer::Accepted { replayed: true, .. } => return ModelAnswer::Refused("no such reply"),
            answer => New::of(answer),
        };
        match self.decide(envelope, &new) {
            Err(code) => ModelAnswer::Refused(code),
            Ok(text) => {
                if let Some((key, fingerprint)) = reply {
                    self.replies.insert(key, (fingerprint, text.clone()));
                }
                ModelAnswer::Accepted(text)
            }
        }
    }

    /// Tells what came of a chunk before the command that works it off is applied: for the ids in it.
    pub fn learn_chunk(&mut self, tenant: TenantId, id: BulkId, number: i64, outcomes: &str) {
        self.chunks.insert((tenant, id, number), outcomes.to_owned());
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::default();
        for (tenant, id) in self.templates.keys() {
            let row = self.counted(*tenant, *id).expect("it exists");
            all.0.insert(format!("{tenant} {id}"), format!("{row:?}"));
        }
        for ((tenant, id), row) in &self.webhooks {
            all.0.insert(format!("{tenant} {id}"), format!("{row:?}"));
        }
        for ((tenant, id), row) in &self.coupons {
            all.0.insert(format!("{tenant} {id}"), format!("{row:?}"));
        }
        for ((tenant, order), (row, _)) in &self.orders {
            all.0.insert(format!("{tenant} order {order}"), format!("{row:?}"));
        }
        for ((tenant, order, refund), row) in &self.refunds {
            all.0.insert(format!("{tenant} refund {order} {refund}"), format!("{row:?}"));
        }
        for ((tenant, coupon), row) in &self.cases {
            all.0.insert(format!("{tenant} case {coupon}"), format!("{row:?}"));
        }
        for ((tenant, _), row) in &self.adjustments {
            all.adjustment(*tenant, row);
        }
        for (tenant, versions) in &self.rules {
            versions.iter().for_each(|(from, rules)| all.rules(*tenant, *from, rules));
        }
        for ((tenant, id), (row, nonce)) in &self.batches {
            all.0.insert(format!("{tenant} {id}"), format!("{row:?} {nonce}"));
        }
        for ((tenant, _), row) in &self.codes {
            all.code(*tenant, row);
        }
        for ((tenant, _), row) in &self.code_uses {
            all.code_use(*tenant, row);
        }
        for ((tenant, coupon), (member, paid_by, points)) in &self.exchanges {
            all.exchange(*tenant, *coupon, member, *paid_by, *points);
        }
        for ((tenant, member), days) in &self.check_ins {
            for (day, row) in days {
                all.0.insert(format!("{tenant} check-in {member} {day}"), format!("{row:?}"));
            }
        }
        for ((tenant, key), (id, row)) in &self.tasks {
            all.0.insert(format!("{tenant} task {key}"), format!("{id} {row:?}"));
        }
        for ((tenant, member, key), reports) in &self.reports {
            for (id, row) in reports {
                all.0.insert(format!("{tenant} report {member} {key} {id}"), format!("{row:?}"));
            }
        }
        for (tenant, member, key) in self.reports.keys().chain(self.inherited.keys()) {
            let counts = self.counts(*tenant, member, key).expect("there are reports");
            all.0.insert(format!("{tenant} progress {member} {key}"), format!("{counts:?}"));
        }
        for ((tenant, member), book) in self.books.iter().filter(|(_, book)| !book.lines.is_empty()) {
            all.0.insert(format!("{tenant} account {member}"), format!("{:?}", book.account()));
            for (id, lot) in &book.lots {
                all.0.insert(format!("{tenant} {id}"), format!("{member} {lot:?}"));
            }
            for (id, hold) in &book.holds {
                all.0.insert(format!("{tenant} {id}"), format!("{member} {hold:?}"));
            }
            for line in &book.lines {
                all.line(*tenant, member, &line.row);
                if let Some(id) = line.id {
                    all.reversed(*tenant, id, line.reversed);
                }
            }
        }
        for ((tenant, _), row) in &self.bulks {
            all.bulk(*tenant, row);
        }
        for ((tenant, id, number), outcomes) in &self.chunks {
            all.chunk(*tenant, *id, *number, outcomes);
        }
        for (tenant, id) in self.jobs.keys() {
            all.0.insert(format!("{tenant} {id}"), self.show_job(*tenant, *id));
        }
        all
    }

    fn decide(&mut self, envelope: &Envelope, new: &New) -> Decided {
        let (tenant, at) = (envelope.tenant, envelope.at);
        match &envelope.command {
            Command::CreateTenant(row) => {
                self.tenants.insert(row.id, row.refund_grace_days);
                Ok(format!("tenant {}", row.id))
            }
            Command::CreateProgram(asked) => {
                let grace = *self.tenants.get(&tenant).ok_or("TENANT_NOT_FOUND")?;
                if self.programs.contains_key(&tenant) {
                    return Err("TENANT_IS_PROGRAM");
                }
                let siblings = || self.programs.values().filter(|(parent, _)| *parent == tenant);
                if siblings().any(|(_, code)| code == asked.code.as_str()) {
                    return Err("PROGRAM_EXISTS");
                }
                if siblings().count() == 20 {
                    return Err("PROGRAM_LIMIT_REACHED");
                }
                self.tenants.insert(asked.id, asked.refund_grace_days.unwrap_or(grace));
                self.programs.insert(asked.id, (tenant, asked.code.to_string()));
                Ok(format!("tenant {}", asked.id))
            }
            Command::CreateApiKey { key, .. } => {
                self.tenants.get(&key.tenant_id).ok_or("TENANT_NOT_FOUND")?;
                if self.programs.contains_key(&key.tenant_id) {
                    return Err("TENANT_IS_PROGRAM");
                }
                self.keys.insert((key.tenant_id, key.id), key.revoked_at);
                Ok(format!("key {} revoked {:?}", key.id, key.revoked_at))
            }
            Command::RevokeApiKey(id) => {
                let revoked = self.keys.get_mut(&(tenant, *id)).ok_or("API_KEY_NOT_FOUND")?;
                *revoked = revoked.or(Some(at));
                Ok(format!("key {id} revoked {revoked:?}"))
            }
            Command::CreateWebhook(asked) => {
                self.tenants.get(&tenant).ok_or("TENANT_NOT_FOUND")?;
                let row = WebhookRow { url: asked.url.clone(), types: asked.types.clone(), disabled: None };
                let text = format!("{} {row:?}", new.webhook);
                self.webhooks.insert((tenant, new.webhook), row);
                Ok(text)
            }
            Command::ChangeWebhook { webhook_id, change } => {
                let key = (tenant, *webhook_id);
                let row = self.webhooks.get_mut(&key).ok_or("WEBHOOK_NOT_FOUND")?;
                match &**change {
                    WebhookChange::Edit { url, types, .. } => {
                        row.url = url.clone().unwrap_or_else(|| row.url.clone());
                        row.types = types.clone().unwrap_or_else(|| row.types.clone());
                    }
                    WebhookChange::Enable => row.disabled = None,
                    WebhookChange::Disable(reason) => row.disabled = row.disabled.or(Some(*reason)),
                    WebhookChange::Rotate { .. } => {}
                    WebhookChange::Delete => {
                        self.webhooks.remove(&key);
                        return Ok("deleted".into());
                    }
                }
                Ok(format!("{webhook_id} {row:?}"))
            }
            Command::CreateTemplate { definition, total_stock } => {
                let (total, definition) = (*total_stock, Arc::new((**definition).clone()));
                let row = new_template(total, definition);
                self.versions.insert((tenant, new.template, 1), row.definition.clone());
                self.templates.insert((tenant, new.template), row);
                Ok(self.show_template(tenant, new.template))
            }
            Command::UpdateTemplate { template_id, patch } => self.edit(tenant, *template_id, |row, _| {
                if row.version != patch.expected_version {
                    return Err("COUPON_TEMPLATE_VERSION_STALE");
                }
                let changed = *row.definition != patch.definition;
                if changed && patch.definition.budget.is_some_and(|budget| budget < row.committed) {
                    return Err("COUPON_BUDGET_BELOW_COMMITTED");
                }
                row.definition = Arc::new(patch.definition.clone());
                Ok(changed)
            }),
            Command::EnableTemplate { template_id, enabled } => self.edit(tenant, *template_id, |row, _| {
                let changed = row.enabled != *enabled;
                row.enabled = *enabled;
                Ok(changed)
            }),
            Command::ChangeStock { template_id, change } => self.edit(tenant, *template_id, |row, claimed| {
                let total = row.total.ok_or("COUPON_STOCK_UNLIMITED")?;
                let wanted = i128::from(total) + i128::from(*change);
                if wanted < i128::from(claimed) || wanted > 1_000_000_000_000 {
                    return Err("COUPON_STOCK_OUT_OF_RANGE");
                }
                row.total = Some(total + change);
                Ok(true)
            }),
            Command::ArchiveTemplate(id) => {
                let mut row = self.counted(tenant, *id).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
                if row.archived.is_none() {
                    (row.archived, row.enabled, row.version) = (Some(at), false, row.version + 1);
                    self.versions.insert((tenant, *id, row.version), row.definition.clone());
                    self.templates.insert((tenant, *id), row);
                }
                Ok(self.show_template(tenant, *id))
            }
            Command::DeleteTemplate(id) => {
                let row = self.counted(tenant, *id).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
                if row.claimed > 0 {
                    return Err("COUPON_TEMPLATE_IN_USE");
                }
                if row.batches > 0 {
                    return Err("COUPON_TEMPLATE_HAS_CODES");
                }
                if !id.is_drawn() {
                    return Err("COUPON_TEMPLATE_IMPORTED");
                }
                self.templates.remove(&(tenant, *id));
                Ok("deleted".into())
            }
            Command::Exchange { template_id, member_id, member_level } => {
                let template = self.templates.get(&(tenant, *template_id)).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
                let points = template.definition.points_price.ok_or("COUPON_NOT_FOR_POINTS")?;
                let mut row = self.claim(tenant, *template_id, member_id, member_level.as_ref(), at)?;
                row.source = CouponSource::Exchange;
                let kind = TransactionType::UseCoupon;
                let movement = Movement { points, kind, reference: Some(new.coupon.to_string()), remark: None };
                let line = self.book(tenant, member_id).debit(&movement, at, new)?;
                let text = format!("{} {row:?} {line}", new.coupon);
                self.coupons.insert((tenant, new.coupon), row);
                self.exchanges.insert((tenant, new.coupon), (member_id.clone(), new.transaction, points));
                Ok(text)
            }
            Command::Claim { template_id, .. }
                if self
                    .templates
                    .get(&(tenant, *template_id))
                    .is_some_and(|template| template.definition.points_price.is_some()) =>
            {
                Err("COUPON_FOR_POINTS")
            }
            Command::Claim { template_id, member_id, member_level } => {
                let row = self.claim(tenant, *template_id, member_id, member_level.as_ref(), at)?;
                let text = format!("{} {row:?}", new.coupon);
                self.coupons.insert((tenant, new.coupon), row);
                Ok(text)
            }
            Command::ClaimCode { digest, batch_id, template_id, member_id, member_level } => {
                let batch = self.batches.get(&(tenant, *batch_id)).map(|(batch, _)| batch);
                let code = self.codes.get(&(tenant, *digest));
                let good = batch
                    .is_some_and(|batch| batch.status == CodeStatus::Active && batch.template == *template_id)
                    && code.is_some_and(|code| {
                        code.batch_id == *batch_id
                            && code.status == CodeStatus::Active
                            && code.max_uses.is_none_or(|most| code.use_count < most)
                            && (code.member_id.is_none() || code.member_id.as_ref() == Some(member_id))
                    });
                if !good {
                    return Err("COUPON_CODE_NOT_ACCEPTED");
                }
                let mut row = self.claim(tenant, *template_id, member_id, member_level.as_ref(), at)?;
                row.source = CouponSource::Code;
                let text = format!("{} {row:?}", new.coupon);
                self.coupons.insert((tenant, new.coupon), row);
                self.codes.get_mut(&(tenant, *digest)).expect("it is good").use_count += 1;
                self.batches.get_mut(&(tenant, *batch_id)).expect("it is good").0.claimed += 1;
                let code_use = CodeUse { coupon_id: new.coupon, batch_id: *batch_id, digest: *digest };
                self.code_uses.insert((tenant, new.coupon), code_use);
                Ok(text)
            }
            Command::CreateCodeBatch(wanted) => self.create_batch(tenant, wanted, at, new),
            Command::AddCodes { batch_id, from_number, digests, max_uses, holders, last } => {
                let (batch, _) = self.batches.get_mut(&(tenant, *batch_id)).ok_or("COUPON_CODE_BATCH_NOT_FOUND")?;
                if batch.completed.is_some() || batch.next != *from_number {
                    return Err("COUPON_CODE_BATCH_OUT_OF_STEP");
                }
                if batch.status == CodeStatus::Revoked {
                    return Err("COUPON_CODE_REVOKED");
                }
                let mut known = Vec::new();
                for (place, digest) in digests.iter().enumerate() {
                    let number = from_number + place as i64;
                    let max_uses = max_uses.get(place).copied().unwrap_or(batch.max_uses);
                    match self.codes.entry((tenant, *digest)) {
                        Entry::Occupied(_) => known.push(number),
                        Entry::Vacant(free) => {
                            let member_id = holders.get(place).cloned().flatten();
                            free.insert(Code { member_id, ..code(*digest, *batch_id, number, max_uses) });
                            batch.added += 1;
                        }
                    }
                }
                batch.next += digests.len() as i64;
                if if batch.kind == CodeKind::Imported { *last } else { batch.added >= batch.count } {
                    (batch.count, batch.completed) = (batch.added, Some(at));
                }
                Ok(format!("{batch_id} {batch:?} but {known:?}"))
            }
            Command::ChangeCodeBatch { batch_id, status } => {
                let (batch, nonce) = self.batches.get_mut(&(tenant, *batch_id)).ok_or("COUPON_CODE_BATCH_NOT_FOUND")?;
                if batch.status == CodeStatus::Revoked && *status != CodeStatus::Revoked {
                    return Err("COUPON_CODE_REVOKED");
                }
                batch.status = *status;
                *nonce &= *status != CodeStatus::Revoked;
                Ok(format!("{batch_id} {batch:?}"))
            }
            Command::ChangeCode { batch_id, digest, status } => {
                let (batch, _) = self.batches.get(&(tenant, *batch_id)).ok_or("COUPON_CODE_BATCH_NOT_FOUND")?;
                let code = self.codes.get_mut(&(tenant, *digest)).filter(|code| code.batch_id == *batch_id);
                let code = code.ok_or("COUPON_CODE_NOT_FOUND")?;
                if code.status == CodeStatus::Revoked && *status != CodeStatus::Revoked {
                    return Err("COUPON_CODE_REVOKED");
                }
                code.status = *status;
                Ok(format!("{batch_id} {batch:?}"))
            }
            Command::AssignCode { batch_id, digest, member_id } => {
                let (batch, _) = self.batches.get(&(tenant, *batch_id)).ok_or("COUPON_CODE_BATCH_NOT_FOUND")?;
                let code = self.codes.get_mut(&(tenant, *digest)).filter(|code| code.batch_id == *batch_id);
                let code = code.ok_or("COUPON_CODE_NOT_FOUND")?;
                match (code.member_id == *member_id, code.status, code.use_count) {
                    (true, ..) => {}
                    (_, CodeStatus::Revoked, _) => return Err("COUPON_CODE_REVOKED"),
                    (_, _, 1..) => return Err("COUPON_CODE_IN_USE"),
                    _ => code.member_id = member_id.clone(),
                }
                Ok(format!("{batch_id} {batch:?}"))
            }
            Command::SealCodeBatch(id) => {
                let (batch, nonce) = self.batches.get_mut(&(tenant, *id)).ok_or("COUPON_CODE_BATCH_NOT_FOUND")?;
                batch.exported = batch.exported.or(Some(at));
                *nonce = false;
                Ok(format!("{id} {batch:?}"))
            }
            Command::TransferCoupon { coupon_id, template_id, to_member_id, .. } => {
                let row = self.coupons.get_mut(&(tenant, *coupon_id)).ok_or("COUPON_NOT_FOUND")?;
                row.settle(at);
                if row.template != *template_id {
                    return Err("COUPON_NOT_FOUND");
                }
                row.require_available()?;
                if row.member == *to_member_id {
                    return Err("COUPON_TRANSFER_TO_HOLDER");
                }
                let mut received = row.clone();
                let limit = self.templates.get(&(tenant, *template_id)).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
                let limit = limit.definition.limit_per_member;
                let of_receiver = self.coupons.iter().filter(|((owner, _), other)| {
                    *owner == tenant && other.template == *template_id && other.member == *to_member_id
                });
                let count = of_receiver.count() as i64;
                if count >= limit {
                    return Err("COUPON_LIMIT_REACHED");
                }
                received.member = to_member_id.clone();
                received.sequence = count + 1;
                received.source = CouponSource::Transfer;
                self.coupons.get_mut(&(tenant, *coupon_id)).expect("it is there").status = CouponStatus::Revoked;
                let text = format!("{} {received:?}", new.coupon);
                self.coupons.insert((tenant, new.coupon), received);
                Ok(text)
            }
            Command::ImportTemplate { template_id, definition, total_stock, enabled } => {
                if !self.templates.contains_key(&(tenant, *template_id)) {
                    let definition = Arc::new((**definition).clone());
                    let row = TemplateRow { enabled: *enabled, ..new_template(*total_stock, definition.clone()) };
                    self.versions.insert((tenant, *template_id, 1), definition.clone());
                    let row = TemplateRow { version: if *enabled { 1 } else { 2 }, ..row };
                    self.versions.insert((tenant, *template_id, row.version), definition);
                    self.templates.insert((tenant, *template_id), row);
                }
                Ok(self.show_template(tenant, *template_id))
            }
            Command::ImportCoupon(imported) => {
                let id = imported.coupon_id;
                if let Some(row) = self.coupons.get(&(tenant, id)) {
                    return Ok(format!("{id} {row:?}"));
                }
                let template = self.counted(tenant, imported.template_id).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
                let own = self.coupons.iter().filter(|((owner, _), row)| {
                    *owner == tenant && row.template == imported.template_id && row.member == imported.member_id
                });
                let mine = own.count() as i64;
                let definition = &template.definition;
                let committed = template.committed + definition.benefit.most_off().unwrap_or(0);
                let checks = [
                    ("COUPON_LIMIT_REACHED", mine >= definition.limit_per_member),
                    ("COUPON_BUDGET_EXHAUSTED", definition.budget.is_some_and(|budget| committed > budget)),
                    ("COUPON_SOLD_OUT", template.remaining.is_some_and(|remaining| remaining <= 0)),
                ];
                if let Some((code, _)) = checks.into_iter().find(|(_, fails)| *fails) {
                    return Err(code);
                }
                let used = imported.status == CouponStatus::Used;
                let row = CouponRow {
                    by_order: false,
                    template: imported.template_id,
                    version: template.version,
                    member: imported.member_id.clone(),
                    status: imported.status,
                    sequence: mine + 1,
                    source: CouponSource::Import,
                    valid_from: imported.valid_from,
                    valid_until: imported.valid_until,
                    order: imported.order_id.clone().filter(|_| used || imported.status == CouponStatus::Locked),
                    deadline: None,
                    discount: imported.discount_amount.filter(|_| used),
                    claimed_at: imported.claimed_at,
                    used_at: imported.used_at.filter(|_| used),
                };
                let text = format!("{id} {row:?}");
                self.coupons.insert((tenant, id), row);
                Ok(text)
            }
            Command::ExtendCoupon { coupon_id, valid_until } => {
                let row = self.coupons.get_mut(&(tenant, *coupon_id)).ok_or("COUPON_NOT_FOUND")?;
                row.settle(at);
                if row.status != CouponStatus::Locked {
                    row.require_available()?;
                }
                row.valid_until = row.valid_until.max(*valid_until);
                Ok(format!("{coupon_id} {row:?}"))
            }
            Command::LockCoupon { coupon_id, .. }
            | Command::UseCoupon { coupon_id, .. }
            | Command::UnlockCoupon { coupon_id, .. }
            | Command::ReturnCoupon { coupon_id, .. }
            | Command::RevokeCoupon { coupon_id, .. } => {
                let row = self.coupons.get_mut(&(tenant, *coupon_id)).ok_or("COUPON_NOT_FOUND")?;
                row.settle(at);
                let template = self.templates.get(&(tenant, row.template));
                let reason = row.step(&envelope.command, template, at)?;
                let text = format!("{coupon_id} {row:?}");
                if let (Some(reason), Command::ReturnCoupon { order_id, .. }) = (reason, &envelope.command) {
                    self.open_case(tenant, *coupon_id, order_id, reason);
                }
                Ok(text)
            }
            Command::SettleCoupon(id) => {
                let row = self.coupons.get_mut(&(tenant, *id)).ok_or("COUPON_NOT_FOUND")?;
                let was = row.status;
                row.settle(at);
                let expired = was != CouponStatus::Expired && row.status == CouponStatus::Expired;
                let released = was == CouponStatus::Locked && row.status != CouponStatus::Locked;
                Ok(format!("settled {} {} 0 0 0 0", u32::from(expired), u32::from(released)))
            }
            Command::Grant { movement, .. }
            | Command::EnqueueGrant { movement, .. }
            | Command::Debit { movement, .. }
                if self.needs_approval(tenant, movement, envelope.now) =>
            {
                Err("POINTS_APPROVAL_NEEDED")
            }
            Command::Adjust(asked) => {
                let waits = self.approval_above(tenant, envelope.now).is_some_and(|above| asked.points.abs() > above);
                if !waits {
                    let new = new.by(&self.rules_at(tenant, envelope.now));
                    return self.adjust(tenant, asked, at, &new);
                }
                if asked.expires_at.is_some_and(|end| end <= at) {
                    return Err("DEADLINE_PASSED");
                }
                self.book(tenant, &asked.member_id).is_open()?;
                let row = Adjustment {
                    id: new.adjustment,
                    member_id: asked.member_id.clone(),
                    points: asked.points,
                    reason: asked.reason.clone(),
                    reference: asked.reference.clone(),
                    expires_at: asked.expires_at,
                    status: AdjustmentStatus::Pending,
                    requested_by: envelope.actor,
                    requested_at: envelope.now,
                    decided_by: None,
                    decided_at: None,
                    remark: None,
                    transaction_id: None,
                };
                let text = shown_adjustment(&row);
                self.adjustments.insert((tenant, row.id), row);
                Ok(text)
            }
            Command::ApproveAdjustment { adjustment_id: id, .. }
            | Command::RejectAdjustment { adjustment_id: id, .. } => {
                let approving = matches!(envelope.command, Command::ApproveAdjustment { .. });
                let mut row = self.adjustments.get(&(tenant, *id)).cloned().ok_or("POINTS_ADJUSTMENT_NOT_FOUND")?;
                let wanted = if approving { AdjustmentStatus::Approved } else { AdjustmentStatus::Rejected };
                if row.status == wanted {
                    return Ok(shown_adjustment(&row));
                }
                if row.status != AdjustmentStatus::Pending {
                    return Err("POINTS_ADJUSTMENT_CLOSED");
                }
                if approving {
                    if row.requested_by == envelope.actor {
                        return Err("POINTS_ADJUSTMENT_OWN");
                    }
                    let asked = AdjustmentRequest {
                        member_id: row.member_id.clone(),
                        points: row.points,
                        reason: row.reason.clone(),
                        reference: row.reference.clone(),
                        expires_at: row.expires_at,
                    };
                    let new = new.by(&self.rules_at(tenant, envelope.now));
                    self.adjust(tenant, &asked, at, &new)?;
                    row.transaction_id = Some(new.transaction);
                } else if let Command::RejectAdjustment { reason, .. } = &envelope.command {
                    row.remark = Some(reason.clone());
                }
                (row.status, row.decided_by, row.decided_at) = (wanted, envelope.actor, Some(envelope.now));
                let text = shown_adjustment(&row);
                self.adjustments.insert((tenant, *id), row);
                Ok(text)
            }
            Command::Grant { member_id, movement, spendable } => {
                let new = new.by(&self.rules_at(tenant, envelope.now));
                self.book(tenant, member_id).grant(movement, *spendable, at, &new)
            }
            Command::Debit { member_id, movement } => {
                let new = new.by(&self.rules_at(tenant, envelope.now));
                self.book(tenant, member_id).debit(movement, at, &new)
            }
            Command::ImportAccount(imported) => self.import(tenant, imported, at, new),
            Command::Hold { member_id, movement, expires_at } => {
                self.book(tenant, member_id).hold(movement, *expires_at, at, new)
            }
            Command::CaptureHold { member_id, hold_id, .. } | Command::ReleaseHold { member_id, hold_id }
                if self.book(tenant, member_id).holds.get(hold_id).is_some_and(|hold| hold.order.is_some()) =>
            {
                Err("ORDER_MANAGES_IT")
            }
            Command::CaptureHold { member_id, hold_id, points } => {
                self.book(tenant, member_id).end_hold(*hold_id, Some(*points), at, new)
            }
            Command::ReleaseHold { member_id, hold_id } => {
                self.book(tenant, member_id).end_hold(*hold_id, None, at, new)
            }
            Command::Reverse { member_id, transaction_id, points, .. } => {
                let grace = self.tenants.get(&tenant).copied().unwrap_or(0);
                let new = &new.by(&self.rules_at(tenant, at));
                let book = self.book(tenant, member_id);
                let line = book.lines.iter().find(|line| line.id == Some(*transaction_id));
                if line.is_some_and(|line| line.row.order.is_some()) {
                    return Err("ORDER_MANAGES_IT");
                }
                book.reverse(*transaction_id, *points, grace, at, new)
            }
            Command::ReserveOrder(asked) => self.reserve(tenant, asked, at, new),
            Command::PayOrder { member_id, order_id, calendar } => {
                let key = self.find_order(tenant, order_id, member_id)?;
                self.pay(&key, calendar, at, new)?;
                Ok(format!("{:?}", self.orders[&key].0))
            }
            Command::CancelOrder { member_id, order_id, .. } => {
                let key = self.find_order(tenant, order_id, member_id)?;
                self.cancel(&key, at)?;
                Ok(format!("{:?}", self.orders[&key].0))
            }
            Command::RefundOrder { member_id, order_id, refund } => {
                let key = self.find_order(tenant, order_id, member_id)?;
                self.refund(&key, refund, at, new)
            }
            Command::ConfirmOrder { member_id, order_id, calendar } => {
                let key = self.find_order(tenant, order_id, member_id)?;
                let row = &self.orders[&key].0;
                if matches!(row.status, OrderStatus::Reserved | OrderStatus::Cancelled | OrderStatus::Expired) {
                    return Err("ORDER_NOT_PAID");
                }
                if row.due.is_some() {
                    self.grant_earned(&key, calendar, at, new);
                }
                Ok(format!("{:?}", self.orders[&key].0))
            }
            Command::SettleOrder { member_id, order_id, calendar } => {
                let key = self.find_order(tenant, order_id, member_id)?;
                let was = self.orders[&key].0.status;
                self.release_order(&key, at);
                let row = &self.orders[&key].0;
                let released = u32::from(was != row.status);
                let mut granted = 0;
                if row.due.is_some_and(|due| due <= at) {
                    self.grant_earned(&key, calendar, at, new);
                    granted = self.orders[&key].0.granted;
                }
                Ok(format!("settled 0 0 0 0 {released} {granted}"))
            }
            Command::CloseCompensation { compensation_id, status, remark } => {
                let coupon = self.case_ids.get(&(tenant, *compensation_id)).copied();
                let coupon = coupon.ok_or("COUPON_COMPENSATION_NOT_FOUND")?;
                let case = self.cases.get_mut(&(tenant, coupon)).expect("a case with an id");
                if case.status != *status {
                    if case.status != CompensationStatus::Pending || *status == CompensationStatus::Pending {
                        return Err("COUPON_COMPENSATION_CLOSED");
                    }
                    (case.status, case.remark, case.closed_at) = (*status, Some(remark.clone()), Some(at));
                }
                Ok(format!("{coupon} {case:?}"))
            }
            Command::SetRules { expected_version, rules, effective_from } => {
                self.tenants.get(&tenant).ok_or("TENANT_NOT_FOUND")?;
                let versions = self.rules.entry(tenant).or_default();
                if *expected_version != versions.len() as i64 {
                    return Err("POINTS_RULES_VERSION_STALE");
                }
                let from = effective_from.unwrap_or(at);
                if from < at {
                    return Err("DEADLINE_PASSED");
                }
                let version = expected_version + 1;
                versions.push((from, Arc::new(Rules { version, ..(**rules).clone() })));
                Ok(format!("rules {version} of {version}"))
            }
            Command::Transfer { from, to, points, .. } => self.transfer(tenant, from, to, *points, at, new),
            Command::ReverseTransfer { from, to, transaction_id, counterpart_id, points, .. } => {
                self.reverse_transfer(tenant, from, to, *transaction_id, *counterpart_id, *points, at, new)
            }
            Command::Merge { from, into, .. } => self.merge(tenant, from, into, at, new),
            Command::CheckIn { member_id, missed, calendar } => {
                let rules = self.rules_at(tenant, at);
                match missed {
                    None => self.check_in(tenant, member_id, calendar.day, &rules, calendar, at, new),
                    Some(missed) => self.make_up(tenant, member_id, *missed, calendar.day, &rules, calendar, at, new),
                }
            }
            Command::CreateTask { key, definition } => {
                if self.tasks.contains_key(&(tenant, key.clone())) {
                    return Err("POINTS_TASK_EXISTS");
                }
                self.may_require(tenant, key, &definition.requires)?;
                let definition = Arc::new((**definition).clone());
                let row = TaskRow { version: 1, enabled: true, deleted: false, definition };
                let text = format!("{} {row:?}", new.task);
                self.tasks.insert((tenant, key.clone()), (new.task, row));
                Ok(text)
            }
            Command::UpdateTask { key, patch } => {
                let (_, row) = self.task(tenant, key)?;
                if row.version != patch.expected_version {
                    return Err("POINTS_TASK_VERSION_STALE");
                }
                if row.definition.requires != patch.definition.requires {
                    self.may_require(tenant, key, &patch.definition.requires)?;
                }
                let (id, row) = self.task(tenant, key)?;
                if row.enabled != patch.enabled || *row.definition != patch.definition {
                    row.version += 1;
                    row.enabled = patch.enabled;
                    row.definition = Arc::new(patch.definition.clone());
                }
                Ok(format!("{id} {row:?}"))
            }
            Command::DeleteTask(key) => {
                let (_, row) = self.task(tenant, key)?;
                (row.version, row.enabled, row.deleted) = (row.version + 1, false, true);
                Ok("deleted".into())
            }
            Command::CompleteTask { member_id, key, completion_id, calendar } => {
                let life = life(&self.rules_at(tenant, at), calendar, at);
                self.report(tenant, member_id, key, completion_id, calendar.day, life, at, new)
            }
            Command::RecordSweep(sweep) => Ok(format!("swept {sweep:?}")),
            Command::EnqueueGrant { spendable, .. } => {
                if spendable.expires_at.is_some_and(|end| end <= at) {
                    return Err("DEADLINE_PASSED");
                }
                self.jobs.insert((tenant, new.job), ("POINTS_GRANT", "QUEUED", envelope.now));
                Ok(self.show_job(tenant, new.job))
            }
            Command::EnqueueExtension { template_id, valid_until, .. } => {
                self.templates.get(&(tenant, *template_id)).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
                if *valid_until <= at {
                    return Err("DEADLINE_PASSED");
                }
                self.jobs.insert((tenant, new.job), ("EXTEND_COUPONS", "QUEUED", envelope.now));
                self.extensions.insert((tenant, new.job), (*valid_until, ExtensionProgress::default()));
                Ok(self.show_job(tenant, new.job))
            }
            Command::ExtendPage { job_id, page } => {
                let key = (tenant, *job_id);
                let state = self.jobs.get(&key).ok_or("JOB_NOT_FOUND")?.1;
                let (valid_until, mut progress) = self.extensions.get(&key).ok_or("JOB_NOT_FOUND")?.clone();
                if state == "CANCELLED" || progress.pages != page.number {
                    return Err("JOB_LEASE_LOST");
                }
                for id in &page.coupon_ids {
                    let row = self.coupons.get_mut(&(tenant, *id));
                    let open = row.map(|row| {
                        row.settle(at);
                        let open = row.status == CouponStatus::Locked || row.require_available().is_ok();
                        let longer = open && row.valid_until < valid_until;
                        if longer {
                            row.valid_until = valid_until;
                        }
                        (open, longer)
                    });
                    let (open, longer) = open.unwrap_or((false, false));
                    progress.extended += i64::from(longer);
                    progress.refused += i64::from(!open);
                }
                (progress.pages, progress.seen) = (progress.pages + 1, progress.seen + page.seen);
                self.extensions.insert(key, (valid_until, progress));
                Ok(self.show_job(tenant, *job_id))
            }
            Command::CreateBulk { bulk_id, template_id, staged } => {
                if let Some(id) = template_id {
                    self.templates.get(&(tenant, *id)).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
                }
                let kind = if template_id.is_some() { BulkKind::Distribution } else { BulkKind::PointsGrants };
                let bulk = Bulk {
                    id: *bulk_id,
                    kind,
                    template_id: *template_id,
                    rows: staged.rows,
                    chunks: staged.chunks,
                    skipped: staged.skipped,
                    actor: envelope.actor,
                    created_at: envelope.now,
                    status: BulkStatus::Running,
                    next_chunk: 0,
                    accepted: 0,
                    refused: 0,
                    updated_at: envelope.now,
                    finished_at: None,
                    results_dropped_at: None,
                };
                let text = format!("{bulk:?}");
                self.bulks.insert((tenant, *bulk_id), bulk);
                self.jobs.insert((tenant, JobId(bulk_id.0)), ("BULK", "QUEUED", envelope.now));
                Ok(text)
            }
            Command::WorkChunk { bulk_id, number, work } => self.work_chunk(envelope, *bulk_id, *number, work, new),
            Command::CancelBulk(id) => {
                self.bulks.get(&(tenant, *id)).ok_or("BULK_NOT_FOUND")?;
                if self.cancel_bulk(tenant, *id, envelope.now) {
                    self.jobs.get_mut(&(tenant, JobId(id.0))).expect("a bulk's job").1 = "CANCELLED";
                }
                Ok(format!("{:?}", self.bulks[&(tenant, *id)]))
            }
            Command::RetryJob(id) | Command::CancelJob(id) => {
                if matches!(envelope.command, Command::CancelJob(_)) && self.jobs.contains_key(&(tenant, *id)) {
                    self.cancel_bulk(tenant, BulkId(id.0), envelope.now);
                }
                let job = self.jobs.get_mut(&(tenant, *id)).ok_or("JOB_NOT_FOUND")?;
                match &envelope.command {
                    Command::CancelJob(_) => job.1 = "CANCELLED",
                    _ if job.1 == "CANCELLED" => *job = (job.0, "QUEUED", envelope.now),
                    _ => {}
                }
                Ok(self.show_job(tenant, *id))
            }
            Command::AnnounceWindows { from, until, templates } => {
                if self.announced.get(&tenant).is_some_and(|at| at != from) || until <= from {
                    return Err("COUPON_WINDOWS_ANNOUNCED");
                }
                self.announced.insert(tenant, *until);
                let rows = templates.iter().filter_map(|id| self.templates.get(&(tenant, *id)));
                let bounds =
                    rows.flat_map(|row| [row.definition.distribution.starts_at, row.definition.distribution.ends_at]);
                let told = bounds.flatten().filter(|at| from < at && at <= until).count();
                Ok(format!("announced {told}"))
            }
            Command::RemindExpiry(page) => {
                let key = (tenant, page.days_before);
                if self.reminded.get(&key).is_some_and(|reached| *reached != page.from) || page.until <= page.from {
                    return Err("POINTS_REMINDERS_TOLD");
                }
                self.reminded.insert(key, page.until);
                let named: std::collections::BTreeSet<&(MemberId, LotId)> = page.lots.iter().collect();
                let told = named.into_iter().filter(|(member, lot)| {
                    let own = self.books.get(&(tenant, member.clone())).into_iter().flat_map(|book| &book.lots);
                    own.filter(|(id, _)| id == lot).any(|(id, row)| {
                        let place = (row.until, *id);
                        row.remaining > 0 && row.until > at && page.from < place && place <= page.until
                    })
                });
                Ok(format!("announced {}", told.count()))
            }
            // No job runs, so no ticket holds.
            Command::Work { ticket, .. } => {
                self.jobs.get(&(tenant, ticket.job_id)).ok_or("JOB_NOT_FOUND")?;
                Err("JOB_LEASE_LOST")
            }
            Command::SettleAccount(member_id) => {
                let book = self.book(tenant, member_id);
                let open = |book: &Book| book.holds.values().filter(|hold| hold.status == HoldStatus::Open).count();
                let (holds, expired) = (open(book), book.account().expired);
                book.settle(at);
                Ok(format!("settled 0 0 {} {} 0 0", holds - open(book), book.account().expired - expired))
            }
        }
    }

    fn show_job(&self, tenant: TenantId, id: JobId) -> String {
        let (kind, state, run_at) = &self.jobs[&(tenant, id)];
        let progress = self.extensions.get(&(tenant, id)).map(|(_, progress)| extension_shown(progress));
        format!("{id} {kind} {state} due {}{}", run_at.0, progress.unwrap_or_default())
    }

    /// Row by row as single commands; a row's id is the one that the domain has told.
    fn work_chunk(&mut self, envelope: &Envelope, id: BulkId, number: i64, work: &ChunkWork, new: &New) -> Decided {
        let (tenant, at) = (envelope.tenant, envelope.at);
        let bulk = self.bulks.get(&(tenant, id)).ok_or("BULK_NOT_FOUND")?;
        if bulk.status != BulkStatus::Running || bulk.next_chunk != number {
            return Err("BULK_MOVED");
        }
        let told = self.chunks.get(&(tenant, id, number)).map_or("[]", String::as_str);
        let mut told: Vec<String> = serde_json::from_str(told).expect("a list of texts");
        told.reverse();
        let mut outcomes = Vec::new();
        let (mut accepted, mut refused) = (0, 0);
        let mut add = |outcome: Result<String, &str>| {
            *(if outcome.is_ok() { &mut accepted } else { &mut refused }) += 1;
            outcomes.push(outcome.unwrap_or_else(str::to_owned));
        };
        match work {
            ChunkWork::Issue { template_id, recipients } => {
                for one in recipients {
                    let told = told.pop().unwrap_or_default();
                    let claimed = self.claim(tenant, *template_id, &one.member_id, one.member_level.as_ref(), at);
                    let coupon = told.parse::<CouponId>().unwrap_or(CouponId(id.0));
                    if let Ok(row) = &claimed {
                        self.coupons
                            .insert((tenant, coupon), CouponRow { source: CouponSource::Distribution, ..row.clone() });
                    }
                    add(claimed.map(|_| coupon.to_string()));
                }
            }
            ChunkWork::Grant(grants) => {
                for row in grants {
                    let told = told.pop().unwrap_or_default();
                    let transaction = told.parse::<TransactionId>().unwrap_or(TransactionId(id.0));
                    let new =
                        New { transaction, lot: LotId(transaction.0), ..new.by(&self.rules_at(tenant, envelope.now)) };
                    let spendable = Spendable { expires_at: row.expires_at, ..Spendable::default() };
                    let granted = if self.needs_approval(tenant, &row.movement, envelope.now) {
                        Err("POINTS_APPROVAL_NEEDED")
                    } else {
                        self.book(tenant, &row.member_id).grant(&row.movement, spendable, at, &new)
                    };
                    add(granted.map(|_| transaction.to_string()));
                }
            }
        }
        let outcomes = serde_json::to_string(&outcomes).expect("a list of texts");
        self.chunks.insert((tenant, id, number), outcomes);
        let bulk = self.bulks.get_mut(&(tenant, id)).expect("it is there");
        bulk.next_chunk += 1;
        bulk.accepted += accepted;
        bulk.refused += refused;
        bulk.updated_at = envelope.now;
        if bulk.next_chunk == bulk.chunks {
            (bulk.status, bulk.finished_at) = (BulkStatus::Done, Some(envelope.now));
        }
        Ok(format!("{bulk:?}"))
    }

    /// Whether there was something to cancel.
    fn cancel_bulk(&mut self, tenant: TenantId, id: BulkId, now: Timestamp) -> bool {
        match self.bulks.get_mut(&(tenant, id)) {
            Some(bulk) if bulk.status == BulkStatus::Running => {
                (bulk.status, bulk.updated_at, bulk.finished_at) = (BulkStatus::Cancelled, now, Some(now));
                true
            }
            _ => false,
        }
    }

    fn find_order(
        &self,
        tenant: TenantId,
        order: &OrderId,
        member: &MemberId,
    ) -> Result<(TenantId, OrderId), &'static str> {
        let key = (tenant, order.clone());
        let found = self.orders.get(&key).filter(|(row, _)| row.member == *member);
        found.map(|_| key).ok_or("ORDER_NOT_FOUND")
    }

    fn rules_at(&self, tenant: TenantId, at: Timestamp) -> Arc<Rules> {
        let versions = self.rules.get(&tenant).into_iter().flatten().filter(|(from, _)| *from <= at);
        let last = versions.max_by_key(|(from, rules)| (*from, rules.version));
        last.map_or_else(Arc::default, |(_, rules)| rules.clone())
    }

    fn open_case(&mut self, tenant: TenantId, coupon: CouponId, order: &OrderId, reason: CompensationReason) {
        let status = CompensationStatus::Pending;
        let case = CaseRow { order: order.clone(), reason, status, remark: None, closed_at: None };
        assert!(self.cases.insert((tenant, coupon), case).is_none(), "a coupon expires once");
    }

    fn reserve(&mut self, tenant: TenantId, asked: &Reservation, at: Timestamp, new: &New) -> Decided {
        let key = (tenant, asked.order_id.clone());
        if let Some((row, basket)) = self.orders.get(&key) {
            let coupons: Vec<CouponId> = row.quote.coupons.iter().map(|one| one.coupon_id).collect();
            let same_goods = basket.lines == asked.basket.lines
                && basket.freight == asked.basket.freight
                && basket.attributes == asked.basket.attributes;
            let same_member = row.member == asked.member_id
                && basket.member_level == asked.basket.member_level
                && basket.member_attributes == asked.basket.member_attributes;
            if !same_goods || !same_member || coupons != asked.coupon_ids || row.quote.points_requested != asked.points
            {
                return Err("ORDER_EXISTS");
            }
            self.release_order(&key, at);
            return Ok(format!("{:?}", self.orders[&key].0));
        }
        if asked.expires_at <= at {
            return Err("DEADLINE_PASSED");
        }
        if asked.quoted.is_some_and(|quoted| quoted.expires_at <= at) {
            return Err("ORDER_QUOTE_EXPIRED");
        }
        let rules = match asked.quoted {
            Some(quoted) => self.rules_of(tenant, quoted.rules_version),
            None => self.rules_at(tenant, at),
        };
        let mut coupons = Vec::new();
        for (place, id) in asked.coupon_ids.iter().enumerate() {
            if asked.coupon_ids[..place].contains(id) {
                return Err("COUPON_LOCKED");
            }
            let row = self.coupons.get(&(tenant, *id)).filter(|row| row.member == asked.member_id);
            coupons.push((*id, row.ok_or("COUPON_NOT_FOUND")?));
        }
        let version = |row: &CouponRow| self.versions[&(tenant, row.template, row.version)].clone();
        let definitions: Vec<_> = coupons.iter().map(|(_, row)| version(row)).collect();
        let offers: Vec<Offer> = coupons
            .iter()
            .zip(&definitions)
            .map(|((id, row), definition)| Offer {
                coupon_id: *id,
                template_id: row.template,
                definition,
                // Which one is told below.
                refused: row.refusal(at).map(|_| Rejection::CouponRevoked),
            })
            .collect();
        let mut quote = price(&asked.basket, &offers, asked.points, &rules).map_err(|refusal| refusal.code())?;
        earn(&mut quote, &asked.basket, &rules, asked.quoted.map_or(at, |quoted| quoted.at));
        for (priced, (_, row)) in quote.coupons.iter().zip(&coupons) {
            if let Some(refusal) = &priced.refusal {
                return Err(row.refusal(at).unwrap_or(refusal.code()));
            }
        }
        let row = OrderRow {
            order: asked.order_id.clone(),
            member: asked.member_id.clone(),
            status: OrderStatus::Reserved,
            rules: rules.version,
            deadline: asked.expires_at,
            hold: None,
            spend: None,
            earn: None,
            due: None,
            granted: 0,
            cut: None,
            quantities: vec![0; quote.lines.len()],
            refunded: 0,
            freight: 0,
            returned: 0,
            clawed_back: 0,
            coupons_returned: false,
            paid_at: None,
            closed_at: None,
            quote: Arc::new(quote),
        };
        let row = OrderRow { hold: self.take(tenant, &row, asked.expires_at, at, new)?, ..row };
        let text = format!("{row:?}");
        self.orders.insert(key, (row, asked.basket.clone()));
        Ok(text)
    }

    /// Holds the points and locks the coupons, which are free.
    fn take(
        &mut self,
        tenant: TenantId,
        order: &OrderRow,
        until: Timestamp,
        at: Timestamp,
        new: &New,
    ) -> Result<Option<HoldId>, &'static str> {
        let mut held = None;
        if order.quote.points_effective > 0 {
            let movement = Movement {
                points: order.quote.points_effective,
                kind: TransactionType::Hold,
                reference: None,
                remark: None,
            };
            let book = self.book(tenant, &order.member);
            book.hold(&movement, Some(until), at, new)?;
            book.lines.last_mut().expect("just written").id = None;
            book.holds.get_mut(&new.hold).expect("just made").order = Some(order.order.to_string());
            held = Some(new.hold);
        }
        for one in &order.quote.coupons {
            let row = self.coupons.get_mut(&(tenant, one.coupon_id)).expect("a coupon that was priced");
            row.settle(at);
            (row.status, row.order, row.by_order) = (CouponStatus::Locked, Some(order.order.clone()), true);
            row.deadline = Some(until);
        }
        Ok(held)
    }

    /// Lets go of what a reservation holds, once its deadline has passed or somebody has found it passed.
    fn release_order(&mut self, key: &(TenantId, OrderId), at: Timestamp) {
        let row = self.orders[key].0.clone();
        if row.status != OrderStatus::Reserved {
            return;
        }
        let is_ours = |coupon: &CouponRow| {
            coupon.status == CouponStatus::Locked && coupon.by_order && coupon.order.as_ref() == Some(&row.order)
        };
        let coupons: Vec<CouponId> = row.quote.coupons.iter().map(|one| one.coupon_id).collect();
        let locked: Vec<CouponId> =
            coupons.iter().copied().filter(|id| is_ours(&self.coupons[&(key.0, *id)])).collect();
        let book = self.book(key.0, &row.member);
        let open = row.hold.filter(|id| book.holds[id].status == HoldStatus::Open);
        if locked.len() == coupons.len() && open == row.hold && at < row.deadline {
            return;
        }
        if let Some(id) = open {
            book.settle(at);
            if at < row.deadline {
                book.give_back(id, HoldStatus::Released, at, None);
            }
        }
        for id in locked {
            self.coupons.get_mut(&(key.0, id)).expect("a known coupon").let_go(at);
        }
        let row = &mut self.orders.get_mut(key).expect("a known order").0;
        (row.status, row.closed_at) = (OrderStatus::Expired, Some(row.deadline));
    }

    fn pay(
        &mut self,
        key: &(TenantId, OrderId),
        calendar: &Calendar,
        at: Timestamp,
        new: &New,
    ) -> Result<(), &'static str> {
        self.release_order(key, at);
        let mut row = self.orders[key].0.clone();
        match row.status {
            OrderStatus::Paid | OrderStatus::PartiallyRefunded | OrderStatus::Refunded => return Ok(()),
            OrderStatus::Cancelled => return Err("ORDER_CLOSED"),
            OrderStatus::Reserved => {}
            OrderStatus::Expired => {
                for one in &row.quote.coupons {
                    if self.coupons[&(key.0, one.coupon_id)].refusal(at).is_some() {
                        return Err("ORDER_EXPIRED");
                    }
                }
                let until = after_days(at, 1);
                row.hold = self.take(key.0, &row, until, at, new).map_err(|_| "ORDER_EXPIRED")?;
            }
        }
        if let Some(hold) = row.hold {
            let new = New { transaction: new.spend, ..new.clone() };
            let name = row.order.to_string();
            let book = self.book(key.0, &row.member);
            book.end_hold(hold, Some(None), at, &new)?;
            book.name_line(new.spend, &name);
            row.spend = Some(new.spend);
        }
        for one in &row.quote.coupons {
            let coupon = self.coupons.get_mut(&(key.0, one.coupon_id)).expect("a known coupon");
            assert!(coupon.status == CouponStatus::Locked && coupon.by_order, "{coupon:?}");
            (coupon.status, coupon.deadline) = (CouponStatus::Used, None);
            (coupon.discount, coupon.used_at) = (Some(one.discount), Some(at));
        }
        (row.status, row.paid_at, row.closed_at) = (OrderStatus::Paid, Some(at), None);
        let (earns, rules) = (row.quote.points_to_earn, row.rules);
        let delay = self.rules_of(key.0, rules).points.earn.delay_days;
        if earns > 0 && delay > 0 {
            row.due = Some(after_days(at, delay));
        }
        self.orders.get_mut(key).expect("a known order").0 = row;
        if earns > 0 && delay == 0 {
            self.grant_earned(key, calendar, at, new);
        }
        Ok(())
    }

    fn rules_of(&self, tenant: TenantId, version: i64) -> Arc<Rules> {
        let versions = self.rules.get(&tenant).into_iter().flatten();
        let found = versions.map(|(_, rules)| rules).find(|rules| rules.version == version);
        found.cloned().unwrap_or_default()
    }

    fn grant_earned(&mut self, key: &(TenantId, OrderId), calendar: &Calendar, at: Timestamp, new: &New) {
        let mut row = self.orders[key].0.clone();
        let due = row.quote.points_to_earn - row.clawed_back;
        let earn = self.rules_of(key.0, row.rules).points.earn;
        let book = self.book(key.0, &row.member);
        let (day, sums) = book.earned_on(calendar.day);
        let limits = [
            (earn.max_points_per_day, "DAY"),
            (earn.max_points_per_week, "WEEK"),
            (earn.max_points_per_month, "MONTH"),
        ];
        let mut points = due;
        for ((most, name), sum) in limits.into_iter().zip(sums) {
            let room = most.map_or(i64::MAX, |most| (most - sum).max(0));
            if room < points {
                points = room;
                row.cut = Some(CutRow { kept: 0, by: name, lines: Vec::new() });
            }
        }
        if let Some(cut) = &mut row.cut {
            cut.kept = due - points;
            let left = row.quote.lines.iter().zip(&row.quantities);
            let left = left.map(|(line, done)| {
                let left = line.points_to_earn - worth(line.points_to_earn, *done, line.quantity);
                (line.item_id.clone(), left)
            });
            let mut left: Vec<(String, i64)> = left.collect();
            left.sort();
            let weights: Vec<i64> = left.iter().map(|(_, left)| *left).collect();
            let items = left.into_iter().map(|(item, _)| item).zip(share_out(points, &weights));
            let shares: BTreeMap<String, i64> = items.collect();
            let got = row.quote.lines.iter().map(|line| shares[&line.item_id]);
            cut.lines = got.zip(row.quantities.iter().copied()).collect();
        }
        row.due = None;
        self.orders.get_mut(key).expect("a known order").0 = row.clone();
        if points == 0 {
            return;
        }
        let earned = &mut self.book(key.0, &row.member).earned;
        earned.retain(|(other, _)| day.0 - other.0 < 40);
        earned.push((day, points));
        let spendable = life(&self.rules_of(key.0, row.rules), calendar, at);
        let movement = Movement { points, kind: TransactionType::EarnOrder, reference: None, remark: None };
        let new = New { transaction: new.earn, lot: LotId(new.earn.0), ..new.clone() };
        let book = self.book(key.0, &row.member);
        book.take_in(&movement, spendable, at, &new).expect("an order's points have room");
        book.name_line(new.earn, &row.order.to_string());
        let row = &mut self.orders.get_mut(key).expect("a known order").0;
        (row.earn, row.granted) = (Some(new.earn), points);
    }

    fn cancel(&mut self, key: &(TenantId, OrderId), at: Timestamp) -> Result<(), &'static str> {
        self.release_order(key, at);
        let row = self.orders[key].0.clone();
        match row.status {
            OrderStatus::Reserved => {}
            OrderStatus::Cancelled | OrderStatus::Expired => return Ok(()),
            _ => return Err("ORDER_CLOSED"),
        }
        if let Some(hold) = row.hold {
            let book = self.book(key.0, &row.member);
            book.settle(at);
            book.give_back(hold, HoldStatus::Released, at, None);
        }
        for one in &row.quote.coupons {
            self.coupons.get_mut(&(key.0, one.coupon_id)).expect("a known coupon").let_go(at);
        }
        let row = &mut self.orders.get_mut(key).expect("a known order").0;
        (row.status, row.closed_at) = (OrderStatus::Cancelled, Some(at));
        Ok(())
    }

    fn refund(&mut self, key: &(TenantId, OrderId), asked: &RefundRequest, at: Timestamp, new: &New) -> Decided {
        let (tenant, order) = key.clone();
        let refund_key = (tenant, order.clone(), asked.refund_id.clone());
        if let Some(row) = self.refunds.get(&refund_key) {
            let units: Vec<(String, i64)> = row.lines.iter().map(|line| (line.0.clone(), line.1)).collect();
            let same = match &asked.lines {
                None => row.full,
                Some(lines) => !row.full && *lines == units && asked.freight == row.freight,
            };
            return if same { Ok(format!("{row:?}")) } else { Err("ORDER_REFUND_EXISTS") };
        }
        self.release_order(key, at);
        let mut row = self.orders[key].0.clone();
        let quote = row.quote.clone();
        if !matches!(row.status, OrderStatus::Paid | OrderStatus::PartiallyRefunded | OrderStatus::Refunded) {
            return Err("ORDER_NOT_PAID");
        }
        let freight_left = quote.freight - quote.freight_discount - row.freight;
        let (wanted, freight) = match &asked.lines {
            Some(lines) => (lines.clone(), asked.freight),
            None => {
                let left = quote.lines.iter().zip(&row.quantities).map(|(line, done)| (line, line.quantity - done));
                let left = left.filter(|(_, left)| *left > 0);
                (left.map(|(line, left)| (line.item_id.clone(), left)).collect(), freight_left)
            }
        };
        let mut lines = Vec::new();
        for (item, units) in &wanted {
            let place = quote.lines.iter().position(|line| line.item_id == *item).ok_or("ORDER_ITEM_UNKNOWN")?;
            let (line, done) = (&quote.lines[place], row.quantities[place]);
            if done + units > line.quantity {
                return Err("ORDER_REFUND_EXCEEDS");
            }
            let part = |value: i64| worth(value, done + units, line.quantity) - worth(value, done, line.quantity);
            let earned = match &row.cut {
                // All that was granted goes back with the units that were left then.
                Some(cut) if done >= cut.lines[place].1 => {
                    let (points, before) = cut.lines[place];
                    let left = line.quantity - before;
                    worth(points, done + units - before, left) - worth(points, done - before, left)
                }
                _ => part(line.points_to_earn),
            };
            lines.push((place, (item.clone(), *units, part(line.pay_amount), part(line.points_spent), earned)));
        }
        if freight > freight_left {
            return Err("ORDER_REFUND_EXCEEDS_FREIGHT");
        }
        if lines.is_empty() && freight == 0 {
            return Err("ORDER_NOTHING_TO_REFUND");
        }
        let amount = lines.iter().map(|(_, line)| line.2).sum::<i64>() + freight;
        let back: i64 = lines.iter().map(|(_, line)| line.3).sum();
        let taken: i64 = lines.iter().map(|(_, line)| line.4).sum();
        let grace = self.tenants.get(&tenant).copied().unwrap_or(0);
        let new = &new.by(&self.rules_at(tenant, at));
        let book = self.book(tenant, &row.member);
        if let Some(spend) = row.spend.filter(|_| back > 0) {
            let new = New { transaction: new.spend, lot: LotId(new.spend.0), ..new.clone() };
            book.reverse(spend, Some(back), grace, at, &new)?;
        }
        let (mut owed, mut forgiven) = (0, 0);
        if let Some(earn) = row.earn.filter(|_| taken > 0) {
            book.settle(at);
            let debt = book.debt;
            let new = New { transaction: new.earn, lot: LotId(new.earn.0), ..new.clone() };
            book.reverse(earn, Some(taken), grace, at, &new)?;
            owed = book.debt - debt;
            forgiven =
                book.lines.iter().find(|line| line.id == Some(new.transaction)).expect("just written").row.forgiven;
        }
        for (place, line) in &lines {
            row.quantities[*place] += line.1;
        }
        row.refunded += amount;
        row.freight += freight;
        row.returned += back;
        row.clawed_back += taken;
        if row.clawed_back == quote.points_to_earn {
            row.due = None;
        }
        let nothing_left = quote.lines.iter().map(|line| line.quantity).eq(row.quantities.iter().copied());
        row.status = if nothing_left { OrderStatus::Refunded } else { OrderStatus::PartiallyRefunded };
        let mut coupons = Vec::new();
        if nothing_left && !lines.is_empty() && asked.return_coupons {
            row.coupons_returned = true;
            for one in &quote.coupons {
                let coupon = self.coupons.get_mut(&(tenant, one.coupon_id)).expect("a known coupon");
                let template = self.templates.get(&(tenant, coupon.template));
                let reason = coupon.give_back(template, at)?;
                coupons.push((one.coupon_id, coupon.status, coupon.valid_until));
                if let Some(reason) = reason {
                    self.open_case(tenant, one.coupon_id, &order, reason);
                }
            }
            self.case_ids.extend(new.cases.iter().map(|(id, coupon)| ((tenant, *id), *coupon)));
        }
        let lines = lines.into_iter().map(|(_, line)| line).collect();
        let refund = RefundRow {
            full: asked.lines.is_none(),
            lines,
            freight,
            amount,
            owed,
            forgiven,
            coupons,
            status: row.status,
        };
        self.orders.get_mut(key).expect("a known order").0 = row;
        let text = format!("{refund:?}");
        self.refunds.insert(refund_key, refund);
        Ok(text)
    }
    fn task(&mut self, tenant: TenantId, key: &TaskKey) -> Result<&mut (TaskId, TaskRow), &'static str> {
        self.tasks.get_mut(&(tenant, key.clone())).filter(|(_, row)| !row.deleted).ok_or("POINTS_TASK_NOT_FOUND")
    }

    fn settle_both(
        &mut self,
        tenant: TenantId,
        from: &MemberId,
        to: &MemberId,
        at: Timestamp,
    ) -> Result<(), &'static str> {
        if from == to {
            return Err("POINTS_SAME_MEMBER");
        }
        self.book(tenant, from).settle(at);
        self.book(tenant, to).settle(at);
        Ok(())
    }

    fn has_room(&mut self, tenant: TenantId, to: &MemberId, points: i64) -> Result<(), &'static str> {
        let total = i128::from(self.book(tenant, to).account().total) + i128::from(points);
        if total > 1 << 62 { Err("POINTS_OVERFLOW") } else { Ok(()) }
    }

    fn transfer(
        &mut self,
        tenant: TenantId,
        from: &MemberId,
        to: &MemberId,
        points: i64,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        self.settle_both(tenant, from, to, at)?;
        self.book(tenant, from).is_open()?;
        self.book(tenant, to).is_open()?;
        if self.book(tenant, from).debt > 0 {
            return Err("POINTS_IN_DEBT");
        }
        let parts = self.book(tenant, from).choose(points, at)?;
        self.has_room(tenant, to, points)?;
        let text = self.hand_over(tenant, from, to, parts, 0, at, new);
        self.book(tenant, to).pay_debt(&new.lots, at);
        Ok(text)
    }

    /// Parts of lots become lots of the other; debt goes along. What the two lines show.
    #[expect(clippy::too_many_arguments)]
    fn hand_over(
        &mut self,
        tenant: TenantId,
        from: &MemberId,
        to: &MemberId,
        parts: Vec<(LotId, i64)>,
        debt: i64,
        at: Timestamp,
        new: &New,
    ) -> String {
        use TransactionType::Transfer;
        let points: i64 = parts.iter().map(|(_, part)| part).sum();
        let giver = self.book(tenant, from);
        let mut lots = Vec::new();
        for ((id, part), made) in parts.iter().zip(&new.lots) {
            let LotRow { from, until, idle, .. } = *giver.lot(*id);
            lots.push((*made, LotRow { from: from.max(at), idle, ..LotRow::new(*part, at, until) }));
        }
        giver.change(Transfer, -points, parts.clone(), at, Some(new.transaction), |book| {
            book.debt -= debt;
            for (id, part) in parts {
                let lot = book.lot(id);
                lot.remaining -= part;
                lot.moved += part;
            }
        });
        giver.last().counterpart = Some(new.received);
        let text = giver.show_line(new.transaction);
        let taker = self.book(tenant, to);
        let made = lots.iter().map(|(id, lot)| (*id, lot.points)).collect();
        taker.change(Transfer, points, made, at, Some(new.received), |book| {
            book.debt += debt;
            book.lots.extend(lots);
        });
        taker.last().counterpart = Some(new.transaction);
        format!("{text} {}", taker.show_line(new.received))
    }

    #[expect(clippy::too_many_arguments)]
    fn reverse_transfer(
        &mut self,
        tenant: TenantId,
        from: &MemberId,
        to: &MemberId,
        id: TransactionId,
        counterpart: TransactionId,
        points: Option<i64>,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        use TransactionType::Transfer;
        let find = |book: &mut Book, id| book.lines.iter().position(|line| line.id == Some(id));
        let sent = find(self.book(tenant, from), id).ok_or("POINTS_TRANSACTION_NOT_FOUND")?;
        let received = find(self.book(tenant, to), counterpart).ok_or("POINTS_TRANSACTION_NOT_FOUND")?;
        let line = &self.book(tenant, from).lines[sent];
        let (row, done, undoes) = (line.row.clone(), line.reversed, line.undoes);
        if row.kind != Transfer || row.points >= 0 || undoes || row.counterpart != Some(counterpart) {
            return Err("POINTS_NOT_REVERSIBLE");
        }
        self.settle_both(tenant, from, to, at)?;
        self.book(tenant, from).is_open()?;
        let taker = self.book(tenant, to);
        let lots: Vec<LotId> = taker.lines[received].row.parts.iter().map(|(id, _)| *id).collect();
        let unspent: i64 = lots.iter().map(|id| taker.lot(*id).remaining).sum();
        let left = unspent.min(-row.points - done);
        let points = points.unwrap_or(left);
        if points < 1 || points > left {
            return Err("POINTS_REVERSAL_EXCEEDS");
        }
        self.has_room(tenant, from, points)?;
        let taker = self.book(tenant, to);
        let (mut open, mut given, mut back) = (points, Vec::new(), Vec::new());
        for (there, (here, _)) in lots.iter().zip(&row.parts) {
            let part = open.min(taker.lot(*there).remaining);
            open -= part;
            if part > 0 {
                given.push((*there, part));
                back.push((*here, part));
            }
        }
        taker.lines[received].reversed += points;
        taker.change(Transfer, -points, given.clone(), at, Some(new.transaction), |book| {
            for (id, part) in given {
                let lot = book.lot(id);
                lot.remaining -= part;
                lot.moved += part;
            }
        });
        taker.last().counterpart = Some(new.received);
        taker.lines.last_mut().expect("just written").undoes = true;
        let text = taker.show_line(new.transaction);
        let giver = self.book(tenant, from);
        giver.lines[sent].reversed += points;
        giver.change(Transfer, points, back.clone(), at, Some(new.received), |book| {
            for (id, part) in &back {
                let lot = book.lot(*id);
                lot.moved -= part;
                lot.remaining += part;
            }
        });
        giver.last().counterpart = Some(new.transaction);
        let text = format!("{text} {}", giver.show_line(new.received));
        let lots: Vec<LotId> = back.iter().map(|(id, _)| *id).collect();
        giver.pay_debt(&lots, at);
        Ok(text)
    }

    fn merge(&mut self, tenant: TenantId, from: &MemberId, into: &MemberId, at: Timestamp, new: &New) -> Decided {
        self.settle_both(tenant, from, into, at)?;
        self.book(tenant, into).is_open()?;
        let giver = self.book(tenant, from);
        if giver.merged.as_ref().is_some_and(|other| other != into) {
            return Err("POINTS_ACCOUNT_MERGED");
        }
        let open = |hold: &HoldRow| hold.status == HoldStatus::Open;
        if giver.holds.values().any(|hold| open(hold) && !hold.pending) {
            return Err("POINTS_HOLDS_OPEN");
        }
        let kept: Vec<HoldId> = giver.holds.iter().filter(|(_, hold)| open(hold)).map(|(id, _)| *id).collect();
        let account = giver.account();
        self.has_room(tenant, into, account.available + account.frozen)?;
        let giver = self.book(tenant, from);
        for id in kept {
            giver.give_back(id, HoldStatus::Released, at, None);
        }
        giver.sort();
        let parts: Vec<(LotId, i64)> =
            giver.lots.iter().filter(|(_, lot)| lot.remaining > 0).map(|(id, lot)| (*id, lot.remaining)).collect();
        let debt = giver.debt;
        if giver.merged.replace(into.clone()).is_none() {
            self.bequeath(tenant, from, into);
        }
        let giver = self.book(tenant, from);
        let earned = std::mem::take(&mut giver.earned);
        self.book(tenant, into).earned.extend(earned);
        let text = self.hand_over(tenant, from, into, parts, debt, at, new);
        let taker = self.book(tenant, into);
        for id in &new.lots {
            if taker.lot(*id).from > at {
                taker.keep(*id, HoldId(id.0), at);
            }
        }
        taker.sort();
        let able = taker.lots.iter().filter(|(_, lot)| lot.from <= at && at < lot.until);
        let able: Vec<LotId> = able.map(|(id, _)| *id).collect();
        taker.pay_debt(&able, at);
        Ok(text)
    }

    /// Hands on what a member has done of each task, to come behind what the other has reported so far.
    fn bequeath(&mut self, tenant: TenantId, from: &MemberId, into: &MemberId) {
        let known = self.reports.keys().chain(self.inherited.keys());
        let keys: BTreeSet<TaskKey> =
            known.filter(|(owner, id, _)| *owner == tenant && id == from).map(|(_, _, key)| key.clone()).collect();
        for key in keys {
            let counts = self.counts(tenant, from, &key).expect("known");
            let heir = (tenant, into.clone(), key);
            let behind = self.reports.get(&heir).map_or(0, Vec::len);
            self.inherited.entry(heir).or_default().push((behind, counts));
        }
    }

    /// The latest period, steps since the last completion in it, completions in it and in all; of reports and of what was
    /// inherited, in their order.
    fn counts(&self, tenant: TenantId, member: &MemberId, key: &TaskKey) -> Option<[i64; 4]> {
        let key = (tenant, member.clone(), key.clone());
        let reports: &[_] = self.reports.get(&key).map_or(&[], Vec::as_slice);
        let inherited: &[_] = self.inherited.get(&key).map_or(&[], Vec::as_slice);
        let period = reports
            .iter()
            .map(|(_, row)| row.period.0)
            .chain(inherited.iter().map(|(_, [period, ..])| *period))
            .max()?;
        let [mut steps, mut completions, mut total] = [0; 3];
        for place in 0..=reports.len() {
            for (_, theirs) in inherited.iter().filter(|(behind, _)| *behind == place) {
                total += theirs[3];
                if theirs[0] == period {
                    (steps, completions) = (steps.max(theirs[1]), completions + theirs[2]);
                }
            }
            let Some((_, row)) = reports.get(place) else { break };
            let done = i64::from(row.line.is_some());
            total += done;
            if row.period.0 == period {
                (steps, completions) = ((steps + 1) * (1 - done), completions + done);
            }
        }
        Some([period, steps, completions, total])
    }

    /// Step by step on a book of its own, which counts when it comes to what was expected.
    fn import(&mut self, tenant: TenantId, imported: &ImportedAccount, at: Timestamp, new: &New) -> Decided {
        let key = (tenant, imported.member_id.clone());
        if self.books.get(&key).is_some_and(|book| !book.lines.is_empty()) {
            return Err("POINTS_ACCOUNT_EXISTS");
        }
        self.book(tenant, &imported.member_id).is_open()?;
        let mut book = Book::default();
        let mut holds: Vec<Option<HoldId>> = Vec::new();
        let mut lines: Vec<TransactionId> = Vec::new();
        let mut earliest = Timestamp(i64::MIN);
        for (place, step) in imported.steps.iter().enumerate() {
            if step.at < earliest || step.at > at {
                return Err("POINTS_IMPORT_UNRECONCILED");
            }
            earliest = step.at;
            let mut own = new.clone();
            // A refusal tells no ids; any others do until it comes here as well.
            let stand_in = uuid::Uuid::from_u128(place as u128 + 1);
            own.line(new.lines.get(place).copied().unwrap_or(TransactionId(stand_in)));
            let made = holds.iter().flatten().count();
            own.hold = new.holds.get(made).copied().unwrap_or(HoldId(stand_in));
            let line_of = |place: usize| lines.get(place).copied();
            let hold_of = |place: usize| holds.get(place).copied().flatten().ok_or("POINTS_HOLD_NOT_FOUND");
            let mut hold = None;
            let points = match &step.action {
                ImportedAction::Grant { movement, .. }
                | ImportedAction::Debit { movement }
                | ImportedAction::Hold { movement, .. } => movement.points,
                _ => 1,
            };
            if points < 1 {
                return Err("POINTS_IMPORT_UNRECONCILED");
            }
            match &step.action {
                ImportedAction::Grant { movement, expires_at } => {
                    let spendable = Spendable { expires_at: *expires_at, ..Spendable::default() };
                    book.grant(movement, spendable, step.at, &own)?;
                }
                ImportedAction::Debit { movement } => drop(book.debit(movement, step.at, &own)?),
                ImportedAction::Hold { movement, of_grant } => {
                    hold = Some(own.hold);
                    match of_grant {
                        None => book.hold(movement, None, step.at, &own)?,
                        Some(grant) => {
                            book.settle(step.at);
                            let id = line_of(*grant);
                            let line = book.lines.iter().find(|line| line.id == id && id.is_some());
                            let lot = line.and_then(|line| line.lot).ok_or("POINTS_INSUFFICIENT")?;
                            let row = book.lot(lot);
                            if row.until <= step.at || row.remaining < movement.points {
                                return Err("POINTS_INSUFFICIENT");
                            }
                            book.set_aside(movement, None, vec![(lot, movement.points)], step.at, &own)?
                        }
                    };
                }
                ImportedAction::Release { hold } => drop(book.end_hold(hold_of(*hold)?, None, step.at, &own)?),
                ImportedAction::Capture { hold } => drop(book.end_hold(hold_of(*hold)?, Some(None), step.at, &own)?),
                ImportedAction::Refund { debit, points, .. } => {
                    let id = line_of(*debit);
                    let line = book.lines.iter().find(|line| line.id == id && id.is_some());
                    if !line.ok_or("POINTS_TRANSACTION_NOT_FOUND")?.row.kind.is_debit() {
                        return Err("POINTS_NOT_REVERSIBLE");
                    }
                    book.reverse(id.expect("it is there"), Some(*points), 0, step.at, &own)?;
                }
                ImportedAction::Owe { grant, points, .. } => {
                    let id = line_of(*grant).ok_or("POINTS_TRANSACTION_NOT_FOUND")?;
                    book.owe(id, *points, step.at, &own)?;
                }
            }
            holds.push(hold);
            lines.push(own.transaction);
        }
        book.settle(at);
        let row = book.account();
        let columns = Columns {
            total_points: row.total,
            available: row.available,
            frozen: row.frozen,
            used: row.used,
            expired: row.expired,
            revoked: row.revoked,
        };
        if columns != imported.expected || imported.steps.is_empty() {
            return Err("POINTS_IMPORT_UNRECONCILED");
        }
        self.books.insert(key, book);
        Ok(format!("{} {columns:?}", imported.member_id))
    }

    #[expect(clippy::too_many_arguments)]
    fn check_in(
        &mut self,
        tenant: TenantId,
        member: &MemberId,
        day: Day,
        rules: &Rules,
        calendar: &Calendar,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        let days = self.check_ins.get(&(tenant, member.clone()));
        let latest = days.and_then(|days| days.last_key_value()).map(|(day, row)| (*day, row.clone()));
        match latest {
            Some((latest, row)) if latest == day => return Ok(format!("{row:?} again true")),
            _ if !rules.points.enabled || !rules.points.check_in.enabled => return Err("POINTS_CHECK_IN_DISABLED"),
            Some((latest, _)) if latest > day => return Err("POINTS_CHECK_IN_OUT_OF_ORDER"),
            _ => {}
        }
        // Days in a row, counted back.
        let known = |day: i64| days.is_some_and(|days| days.contains_key(&Day(day)));
        let streak = 1 + (1..).take_while(|back| known(day.0 - back)).count() as i64;
        let rule = &rules.points.check_in;
        let bonus: i64 =
            rule.streak_bonuses.iter().filter(|one| i64::from(one.days) == streak).map(|one| one.points).sum();
        let points = rule.points + bonus;
        let movement = Movement { points, kind: TransactionType::EarnCheckin, reference: None, remark: None };
        self.book(tenant, member).grant(&movement, life(rules, calendar, at), at, new)?;
        let (made_up, price_line) = (false, None);
        let row = CheckInRow { line: new.transaction, day, streak, points, bonus, at, made_up, price_line };
        let text = format!("{row:?} again false");
        self.check_ins.entry((tenant, member.clone())).or_default().insert(day, row);
        Ok(text)
    }

    #[expect(clippy::too_many_arguments)]
    fn make_up(
        &mut self,
        tenant: TenantId,
        member: &MemberId,
        missed: Day,
        today: Day,
        rules: &Rules,
        calendar: &Calendar,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        let rule = &rules.points.check_in;
        let mut days = self.check_ins.get(&(tenant, member.clone())).cloned().unwrap_or_default();
        if missed >= today {
            return Err("POINTS_CHECK_IN_DAY_NOT_PAST");
        }
        if days.keys().any(|day| *day > today) {
            return Err("POINTS_CHECK_IN_OUT_OF_ORDER");
        }
        if let Some(row) = days.get(&missed).filter(|_| today.0 - missed.0 <= 31) {
            return Ok(format!("{row:?} again true"));
        }
        if !rules.points.enabled || !rule.enabled {
            return Err("POINTS_CHECK_IN_DISABLED");
        }
        if rule.make_up_days == 0 {
            return Err("POINTS_MAKE_UP_DISABLED");
        }
        if today.0 - missed.0 > i64::from(rule.make_up_days) {
            return Err("POINTS_MAKE_UP_TOO_LATE");
        }
        let month = |day: Day| (day.civil().0, day.civil().1);
        let of_month = days.values().filter(|row| row.made_up && month(row.day) == month(missed)).count();
        if rule.make_ups_per_month.is_some_and(|limit| of_month >= limit as usize) {
            return Err("POINTS_MAKE_UP_LIMIT_REACHED");
        }
        // The run that it joins, and what its longer part was long enough for.
        let in_a_row = |step: i64| (1..).take_while(|n| days.contains_key(&Day(missed.0 + step * n))).count() as i64;
        let (before, behind) = (in_a_row(-1), in_a_row(1));
        let newly = |length: i64| length > before.max(behind) && length <= before + 1 + behind;
        let reached = rule.streak_bonuses.iter().filter(|one| newly(one.days.into()));
        let bonus: i64 = reached.map(|one| one.points).sum();
        let points = rule.points + bonus;
        let book = self.book(tenant, member);
        let mut price_line = None;
        if rule.make_up_price > 0 {
            let kind = TransactionType::UseProduct;
            let movement = Movement { points: rule.make_up_price, kind, reference: None, remark: None };
            book.debit(&movement, at, &New { transaction: new.spend, ..new.clone() })?;
            price_line = Some(new.spend);
        }
        let movement = Movement { points, kind: TransactionType::EarnCheckin, reference: None, remark: None };
        book.grant(&movement, life(rules, calendar, at), at, new)?;
        let row = CheckInRow {
            line: new.transaction,
            day: missed,
            streak: before + 1,
            points,
            bonus,
            at,
            made_up: true,
            price_line,
        };
        let text = format!("{row:?} again false");
        days.insert(missed, row);
        // Every streak anew, from the first day on.
        let mut last: Option<(Day, i64)> = None;
        for (day, row) in &mut days {
            row.streak = match last {
                Some((before, streak)) if before.0 + 1 == day.0 => streak + 1,
                _ => 1,
            };
            last = Some((*day, row.streak));
        }
        self.check_ins.insert((tenant, member.clone()), days);
        Ok(text)
    }

    fn may_require(&self, tenant: TenantId, key: &TaskKey, requires: &[TaskKey]) -> Result<(), &'static str> {
        let exists = |key: &TaskKey| self.tasks.get(&(tenant, key.clone())).is_some_and(|(_, row)| !row.deleted);
        if requires.contains(key) {
            return Err("POINTS_TASK_REQUIRES_ITSELF");
        }
        if !requires.iter().all(exists) {
            return Err("POINTS_TASK_REQUIRES_UNKNOWN");
        }
        if requires.iter().any(|required| self.leads_to(tenant, required, key)) {
            return Err("POINTS_TASK_REQUIRES_ITSELF");
        }
        Ok(())
    }

    /// By every way there is.
    fn leads_to(&self, tenant: TenantId, from: &TaskKey, to: &TaskKey) -> bool {
        let row = self.tasks.get(&(tenant, from.clone())).map(|(_, row)| row).filter(|row| !row.deleted);
        let further = row.into_iter().flat_map(|row| &row.definition.requires);
        from == to || further.into_iter().any(|next| self.leads_to(tenant, next, to))
    }

    #[expect(clippy::too_many_arguments)]
    fn report(
        &mut self,
        tenant: TenantId,
        member: &MemberId,
        key: &TaskKey,
        completion_id: &CompletionId,
        day: Day,
        life: Spendable,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        let reports = self.reports.get(&(tenant, member.clone(), key.clone())).cloned().unwrap_or_default();
        if let Some((_, first)) = reports.iter().find(|(id, _)| id == completion_id) {
            return Ok(format!("{first:?} again true"));
        }
        self.book(tenant, member).is_open()?;
        let (_, task) = self.task(tenant, key)?.clone();
        let definition = task.definition;
        if !task.enabled {
            return Err("POINTS_TASK_DISABLED");
        }
        if definition.window.starts_at.is_some_and(|start| at < start) {
            return Err("POINTS_TASK_NOT_STARTED");
        }
        if definition.window.ends_at.is_some_and(|end| end <= at) {
            return Err("POINTS_TASK_ENDED");
        }
        let so_far = self.counts(tenant, member, key);
        let own = match definition.period {
            Period::Once => Day(0),
            Period::Day => day,
            // 2026-01-05 was a Monday, and day 20458.
            Period::Week => Day(20_458 + (day.0 - 20_458).div_euclid(7) * 7),
            Period::Month => {
                let (year, month, _) = day.civil();
                (0..31).map(|back| Day(day.0 - back)).find(|day| day.civil() == (year, month, 1)).expect("a first")
            }
        };
        let [started, steps, completions, total] = so_far.unwrap_or([i64::MIN, 0, 0, 0]);
        let period = Day(started).max(own);
        let (steps, completions) = if started == period.0 { (steps, completions) } else { (0, 0) };
        if definition.total_limit.is_some_and(|limit| total >= limit) {
            return Err("POINTS_TASK_LIMIT_REACHED");
        }
        if completions >= definition.limit_per_period {
            return Err("POINTS_TASK_PERIOD_LIMIT_REACHED");
        }
        let is_missing = |required: &&TaskKey| {
            let exists = self.tasks.get(&(tenant, (*required).clone())).is_some_and(|(_, row)| !row.deleted);
            exists && self.counts(tenant, member, required).is_none_or(|[.., total]| total == 0)
        };
        if definition.requires.iter().any(|required| is_missing(&required)) {
            return Err("POINTS_TASK_PREREQUISITES_MISSING");
        }
        let (step, target) = (steps + 1, definition.target);
        let done = step >= target;
        if done {
            let (points, kind) = (definition.points, TransactionType::EarnTask);
            let movement = Movement { points, kind, reference: None, remark: None };
            self.book(tenant, member).grant(&movement, life, at, new)?;
        }
        let (line, points) = if done { (Some(new.transaction), definition.points) } else { (None, 0) };
        let row = ReportRow { line, period, step, target, points, at };
        let text = format!("{row:?} again false");
        self.reports.entry((tenant, member.clone(), key.clone())).or_default().push((completion_id.clone(), row));
        Ok(text)
    }

    fn approval_above(&self, tenant: TenantId, now: Timestamp) -> Option<i64> {
        let versions = self.rules.get(&tenant).into_iter().flatten().filter(|(from, _)| *from <= now);
        versions.max_by_key(|(from, rules)| (*from, rules.version)).and_then(|(_, rules)| rules.points.approval_above)
    }

    fn needs_approval(&self, tenant: TenantId, movement: &Movement, now: Timestamp) -> bool {
        matches!(movement.kind, TransactionType::EarnAdmin | TransactionType::DeductAdmin)
            && self.approval_above(tenant, now).is_some_and(|above| movement.points > above)
    }

    fn adjust(&mut self, tenant: TenantId, asked: &AdjustmentRequest, at: Timestamp, new: &New) -> Decided {
        let kind = if asked.points > 0 { TransactionType::EarnAdmin } else { TransactionType::DeductAdmin };
        let (reference, remark) = (asked.reference.clone(), Some(asked.reason.clone()));
        let movement = Movement { points: asked.points.abs(), kind, reference, remark };
        let book = self.book(tenant, &asked.member_id);
        if asked.points > 0 {
            book.grant(&movement, Spendable { expires_at: asked.expires_at, ..Spendable::default() }, at, new)
        } else {
            book.debit(&movement, at, new)
        }
    }

    fn book(&mut self, tenant: TenantId, member: &MemberId) -> &mut Book {
        self.books.entry((tenant, member.clone())).or_default()
    }

    /// The template with its counts, which are those of its coupons.
    fn counted(&self, tenant: TenantId, id: TemplateId) -> Option<TemplateRow> {
        let row = self.templates.get(&(tenant, id))?;
        let own = || self.coupons.iter().filter(|((owner, _), coupon)| *owner == tenant && coupon.template == id);
        let taken = || own().map(|(_, coupon)| coupon).filter(|coupon| coupon.source != CouponSource::Transfer);
        let definition = |coupon: &CouponRow| &self.versions[&(tenant, id, coupon.version)];
        let committed = taken().map(|coupon| definition(coupon).benefit.most_off().unwrap_or(0)).sum();
        let counts = [0, 1, 2].map(|unit| {
            let is_capped = |coupon: &&CouponRow| {
                coupon.source != CouponSource::Import && caps_of(definition(coupon))[unit].is_some()
            };
            let bounds = |coupon: &CouponRow| utc_bounds(coupon.claimed_at)[unit];
            let (start, end) = taken().filter(is_capped).map(bounds).max()?;
            let claimed = taken().filter(is_capped).filter(|coupon| bounds(coupon) == (start, end)).count();
            Some((start, end, claimed as i64))
        });
        let claimed = taken().count() as i64;
        let used = own().filter(|(_, coupon)| coupon.status == CouponStatus::Used).count() as i64;
        let remaining = row.total.map(|total| total - claimed);
        Some(TemplateRow { claimed, used, remaining, committed, counts, ..row.clone() })
    }

    fn show_template(&self, tenant: TenantId, id: TemplateId) -> String {
        format!("{id} {:?}", self.counted(tenant, id).expect("it exists"))
    }

    /// An operator's edit; `change` gets the template and the number of its coupons and says whether anything changed.
    fn edit(
        &mut self,
        tenant: TenantId,
        id: TemplateId,
        change: impl FnOnce(&mut TemplateRow, i64) -> Result<bool, &'static str>,
    ) -> Decided {
        let mut row = self.counted(tenant, id).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
        if row.archived.is_some() {
            return Err("COUPON_TEMPLATE_ARCHIVED");
        }
        let claimed = row.claimed;
        if change(&mut row, claimed)? {
            row.version += 1;
            self.versions.insert((tenant, id, row.version), row.definition.clone());
            self.templates.insert((tenant, id), row);
        }
        Ok(self.show_template(tenant, id))
    }

    fn create_batch(&mut self, tenant: TenantId, wanted: &NewCodeBatch, at: Timestamp, new: &New) -> Decided {
        let template = self.templates.get(&(tenant, wanted.template_id)).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
        if template.archived.is_some() {
            return Err("COUPON_TEMPLATE_ARCHIVED");
        }
        if let Some(digest) = wanted.shared {
            if self.codes.contains_key(&(tenant, digest)) {
                return Err("COUPON_CODE_TAKEN");
            }
            self.codes.insert((tenant, digest), code(digest, new.batch, 0, wanted.max_uses));
        }
        let shared = wanted.shared.is_some();
        let row = BatchRow {
            template: wanted.template_id,
            kind: wanted.kind,
            status: CodeStatus::Active,
            count: wanted.code_count,
            added: shared.into(),
            next: shared.into(),
            claimed: 0,
            max_uses: wanted.max_uses,
            completed: shared.then_some(at),
            exported: None,
        };
        let text = format!("{} {row:?}", new.batch);
        self.batches.insert((tenant, new.batch), (row, wanted.nonce.is_some()));
        self.templates.get_mut(&(tenant, wanted.template_id)).expect("it is there").batches += 1;
        Ok(text)
    }

    fn claim(
        &self,
        tenant: TenantId,
        id: TemplateId,
        member: &MemberId,
        level: Option<&String>,
        at: Timestamp,
    ) -> Result<CouponRow, &'static str> {
        let template = self.counted(tenant, id).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
        let definition = &template.definition;
        let of_member =
            self.coupons.iter().filter(|((t, _), row)| *t == tenant && row.template == id && row.member == *member);
        let mine = of_member.count() as i64;
        let window = definition.distribution;
        let ended = matches!(definition.validity, Validity::Fixed { ends_at, .. } if ends_at <= at);
        let levels = &definition.member_levels;
        let mut capped = Ok(());
        for (unit, cap) in caps_of(definition).into_iter().enumerate() {
            let Some((cap, (start, end, claimed))) = cap.zip(template.counts[unit]) else { continue };
            if at.0 < start {
                capped = capped.and(Err("COUPON_PERIOD_CLOSED"));
            } else if at.0 < end && claimed >= cap {
                capped = capped.and(Err("COUPON_CAP_REACHED"));
            }
        }
        let committed = template.committed + definition.benefit.most_off().unwrap_or(0);
        let checks = [
            ("COUPON_TEMPLATE_ARCHIVED", template.archived.is_some()),
            ("COUPON_TEMPLATE_DISABLED", !template.enabled),
            ("COUPON_CLAIM_NOT_STARTED", window.starts_at.is_some_and(|start| at < start)),
            ("COUPON_CLAIM_ENDED", window.ends_at.is_some_and(|end| end <= at)),
            ("COUPON_VALIDITY_ENDED", ended),
            ("COUPON_MEMBER_LEVEL", !levels.is_empty() && !level.is_some_and(|level| levels.contains(level))),
            ("COUPON_LIMIT_REACHED", mine >= definition.limit_per_member),
            (capped.err().unwrap_or_default(), capped.is_err()),
            ("COUPON_BUDGET_EXHAUSTED", definition.budget.is_some_and(|budget| committed > budget)),
            ("COUPON_SOLD_OUT", template.remaining.is_some_and(|remaining| remaining <= 0)),
        ];
        if let Some((code, _)) = checks.into_iter().find(|(_, fails)| *fails) {
            return Err(code);
        }
        let (valid_from, valid_until) = match definition.validity {
            Validity::Fixed { starts_at, ends_at } => (starts_at, ends_at),
            Validity::Relative { days, hours, starts_after_hours } => {
                let from = Timestamp(at.0 + i64::from(starts_after_hours) * crate::generate::HOUR);
                (from, Timestamp(after_days(from, days).0 + i64::from(hours) * crate::generate::HOUR))
            }
        };
        Ok(CouponRow {
            template: id,
            version: template.version,
            member: member.clone(),
            status: CouponStatus::Available,
            sequence: mine + 1,
            source: CouponSource::Claim,
            valid_from,
            valid_until,
            order: None,
            by_order: false,
            deadline: None,
            discount: None,
            claimed_at: at,
            used_at: None,
        })
    }
}

const DAY: i64 = 86_400_000_000;

fn new_template(total: Option<i64>, definition: Arc<Definition>) -> TemplateRow {
    TemplateRow {
        version: 1,
        enabled: true,
        total,
        remaining: total,
        claimed: 0,
        used: 0,
        committed: 0,
        counts: [None; 3],
        batches: 0,
        archived: None,
        definition,
    }
}

fn caps_of(definition: &Definition) -> [Option<i64>; 3] {
    [definition.daily_cap, definition.weekly_cap, definition.monthly_cap]
}

/// The UTC day, week and month of an instant, from the day it begins: the tenants of these tests live there.
fn utc_bounds(at: Timestamp) -> [(i64, i64); 3] {
    let day = at.0.div_euclid(DAY);
    // 2026-01-05 was a Monday, and day 20458.
    let monday = 20_458 + (day - 20_458).div_euclid(7) * 7;
    let month = |day: i64| (Day(day).civil().0, Day(day).civil().1);
    let first = (0..).map(|back| day - back).find(|other| month(*other - 1) != month(day)).expect("a first");
    let next = (1..).map(|ahead| day + ahead).find(|other| month(*other) != month(day)).expect("a next");
    [(day, day + 1), (monday, monday + 7), (first, next)].map(|(from, to)| (from * DAY, to * DAY))
}

fn code(digest: CodeDigest, batch_id: CodeBatchId, number: i64, max_uses: Option<i64>) -> Code {
    Code { digest, batch_id, number, status: CodeStatus::Active, max_uses, use_count: 0, member_id: None }
}

/// How long what is earned at `at` can be spent.
fn life(rules: &Rules, calendar: &Calendar, at: Timestamp) -> Spendable {
    let expires_at = match rules.points.validity {
        PointsValidity::Never => None,
        PointsValidity::Days { days } => Some(after_days(at, days)),
        PointsValidity::EndOfMonth { after_months } => calendar.month_ends.get(usize::from(after_months)).copied(),
        PointsValidity::EndOfYear { after_years } => calendar.year_ends.get(usize::from(after_years)).copied(),
        PointsValidity::Inactivity { days } => Some(idle_end(at, days)),
    };
    let idle_days = match rules.points.validity {
        PointsValidity::Inactivity { days } => Some(days),
        _ => None,
    };
    Spendable { available_from: None, expires_at, idle_days }
}

/// The end of the UTC day that comes so many days after.
fn idle_end(at: Timestamp, days: u32) -> Timestamp {
    Timestamp((at.0.div_euclid(DAY) + i64::from(days) + 1) * DAY)
}

/// What a merged account had come to, and behind how many reports of the member's own.
type Inherited = (usize, [i64; 4]);

/// So many days later, but not after the year 9999.
fn after_days(at: Timestamp, days: u32) -> Timestamp {
    let micros = i128::from(at.0) + i128::from(days) * 86_400_000_000;
    Timestamp(i64::try_from(micros).unwrap_or(i64::MAX).min(253_402_214_400_000_000))
}

impl CouponRow {
    /// What time does to a coupon by itself.
    fn settle(&mut self, at: Timestamp) {
        if self.status == CouponStatus::Locked && self.deadline.is_some_and(|deadline| deadline <= at) {
            self.open();
        }
        if self.status == CouponStatus::Available && self.valid_until <= at {
            self.status = CouponStatus::Expired;
        }
    }

    fn require_available(&self) -> Result<(), &'static str> {
        match self.status {
            CouponStatus::Available => Ok(()),
            CouponStatus::Locked => Err("COUPON_LOCKED"),
            CouponStatus::Used => Err("COUPON_USED"),
            CouponStatus::Expired => Err("COUPON_EXPIRED"),
            CouponStatus::Revoked => Err("COUPON_REVOKED"),
        }
    }

    fn open(&mut self) {
        self.status = CouponStatus::Available;
        (self.order, self.deadline, self.discount, self.used_at) = (None, None, None, None);
        self.by_order = false;
    }

    /// Unlocks it.
    fn let_go(&mut self, at: Timestamp) {
        self.settle(at);
        if self.status == CouponStatus::Locked {
            self.open();
            self.settle(at);
        }
    }

    /// Why no order can have it now.
    fn refusal(&self, at: Timestamp) -> Option<&'static str> {
        let mut now = self.clone();
        now.settle(at);
        match now.status {
            CouponStatus::Available if at < self.valid_from => Some("COUPON_NOT_YET_VALID"),
            CouponStatus::Available => None,
            CouponStatus::Locked => Some("COUPON_LOCKED"),
            CouponStatus::Used => Some("COUPON_USED"),
            CouponStatus::Expired => Some("COUPON_EXPIRED"),
            CouponStatus::Revoked => Some("COUPON_REVOKED"),
        }
    }

    /// Takes a use back; says why an operator must compensate the member, if so.
    fn give_back(
        &mut self,
        template: Option<&TemplateRow>,
        at: Timestamp,
    ) -> Result<Option<CompensationReason>, &'static str> {
        let template = template.ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
        if !template.definition.returnable {
            return Ok(None);
        }
        let days = template.definition.refund_extend_days;
        self.open();
        if at < self.valid_until {
            return Ok(None);
        }
        if template.enabled && days > 0 {
            self.valid_until = after_days(at, days);
            return Ok(None);
        }
        self.status = CouponStatus::Expired;
        let (ended, short) = (CompensationReason::TemplateDisabled, CompensationReason::NoExtension);
        Ok(Some(if template.enabled { short } else { ended }))
    }

    /// One step of the state machine: the pair of state and command says what happens. Says why an operator must compensate
    /// the member, if so.
    fn step(
        &mut self,
        command: &Command,
        template: Option<&TemplateRow>,
        at: Timestamp,
    ) -> Result<Option<CompensationReason>, &'static str> {
        use CouponStatus::{Available, Expired, Locked, Revoked, Used};
        let is_own = |order: &OrderId| self.order.as_ref() == Some(order);
        match (self.status, command) {
            (Locked, Command::LockCoupon { order_id, .. }) if self.by_order && is_own(order_id) => {
                return Err("ORDER_MANAGES_IT");
            }
            (
                Locked | Used,
                Command::UseCoupon { .. } | Command::UnlockCoupon { .. } | Command::ReturnCoupon { .. },
            ) if self.by_order => return Err("ORDER_MANAGES_IT"),
            (Available, Command::LockCoupon { order_id, expires_at, .. }) => {
                if at < self.valid_from {
                    return Err("COUPON_NOT_YET_VALID");
                }
                if expires_at.is_some_and(|deadline| deadline <= at) {
                    return Err("DEADLINE_PASSED");
                }
                (self.status, self.order, self.deadline) = (Locked, Some(order_id.clone()), *expires_at);
            }
            (Locked, Command::LockCoupon { order_id, .. }) if is_own(order_id) => {}
            (Locked, Command::UseCoupon { order_id, discount_amount, .. }) if is_own(order_id) => {
                (self.status, self.deadline) = (Used, None);
                (self.discount, self.used_at) = (*discount_amount, Some(at));
            }
            (Used, Command::UseCoupon { order_id, .. }) if is_own(order_id) => {}
            (Available, Command::UseCoupon { .. }) => return Err("COUPON_NOT_LOCKED"),
            (Locked, Command::UnlockCoupon { order_id, .. }) if is_own(order_id) => {
                self.open();
                self.settle(at);
            }
            (Available | Expired | Revoked, Command::UnlockCoupon { .. }) => {}
            (Used, Command::ReturnCoupon { order_id, .. }) if is_own(order_id) => {
                let reason = self.give_back(template, at)?;
                return if self.status == Used { Err("COUPON_NOT_RETURNABLE") } else { Ok(reason) };
            }
            (Available | Locked | Expired | Revoked, Command::ReturnCoupon { .. }) => return Err("COUPON_NOT_USED"),
            (Locked, Command::UseCoupon { .. } | Command::UnlockCoupon { .. })
            | (Used, Command::ReturnCoupon { .. }) => {
                return Err("COUPON_ORDER_MISMATCH");
            }
            (Available, Command::RevokeCoupon { .. }) => self.status = Revoked,
            (Revoked, Command::RevokeCoupon { .. }) => {}
            (Locked, _) => return Err("COUPON_LOCKED"),
            (Used, _) => return Err("COUPON_USED"),
            (Expired, _) => return Err("COUPON_EXPIRED"),
            (Revoked, _) => return Err("COUPON_REVOKED"),
            (Available, _) => unreachable!("no coupon command"),
        }
        Ok(None)
    }
}

/// What `n` of so many units are worth, a half rounded up: what some units are worth is the difference.
fn worth(value: i64, n: i64, quantity: i64) -> i64 {
    (value * n * 2 + quantity).div_euclid(quantity * 2)
}

/// Shares points by weights: each its quota without the fraction, what is left to the largest fractions, the earlier of equal
/// ones first.
fn share_out(points: i64, weights: &[i64]) -> Vec<i64> {
    let sum: i64 = weights.iter().sum();
    let mut shares: Vec<i64> = weights.iter().map(|weight| points * weight / sum.max(1)).collect();
    while shares.iter().sum::<i64>() < points {
        let fraction = |place: &usize| points * weights[*place] - shares[*place] * sum;
        let place = (0..weights.len()).rev().max_by_key(fraction).expect("a line");
        shares[place] += 1;
    }
    shares
}

/// What each line of a priced order earns at a time, with the campaigns that hold then, whatever the price says of it.
fn earn(quote: &mut Quote, basket: &Basket, rules: &Rules, at: Timestamp) {
    let (rule, lines) = (&rules.points.earn, &basket.lines);
    let is_of = |campaign: &Campaign, line: &pricing::Line| {
        campaign.categories.is_empty() || campaign.categories.iter().any(|one| line.category_ids.contains(one))
    };
    let holds = |campaign: &&Campaign| {
        let Window { starts_at, ends_at } = campaign.window;
        let levels = &campaign.member_levels;
        let eligible = || lines.iter().filter(|line| is_of(campaign, line));
        let amount = eligible().map(|line| line.unit_price * line.quantity).sum();
        let quantity = eligible().map(|line| line.quantity).sum();
        starts_at.is_none_or(|start| start <= at)
            && ends_at.is_none_or(|end| at < end)
            && (levels.is_empty() || basket.member_level.as_ref().is_some_and(|level| levels.contains(level)))
            && campaign.condition.as_ref().is_none_or(|condition| is_met(condition.source(), basket, amount, quantity))
    };
    let campaigns: Vec<&Campaign> = rules.points.campaigns.iter().filter(holds).collect();
    let mut earned = Vec::new();
    for (line, priced) in lines.iter().zip(&quote.lines) {
        let of_line = campaigns.iter().filter(|campaign| is_of(campaign, line));
        let percent = of_line.map(|campaign| campaign.percent).max().unwrap_or(100);
        let percent = if rules.points.enabled && rule.enabled { percent } else { 0 };
        let amount = i128::from(priced.amount - priced.coupon_discount) * i128::from(rule.ratio);
        let points = amount * i128::from(line.points_ratio) * i128::from(percent) / (i128::from(rule.base) * 10_000);
        earned.push((line.item_id.clone(), points as i64));
    }
    let most = rule.max_points_per_order.unwrap_or(i64::MAX);
    quote.points_to_earn_capped = earned.iter().map(|(_, points)| points).sum::<i64>() > most;
    if quote.points_to_earn_capped {
        earned.sort();
        let weights: Vec<i64> = earned.iter().map(|(_, points)| *points).collect();
        for ((_, points), share) in earned.iter_mut().zip(share_out(most, &weights)) {
            *points = share;
        }
    }
    let earned: BTreeMap<String, i64> = earned.into_iter().collect();
    for line in &mut quote.lines {
        line.points_to_earn = earned[&line.item_id];
    }
    quote.points_to_earn = earned.values().sum();
}

/// The conditions that the generator gives campaigns, in Rust. What an attribute leaves open is not met.
fn is_met(condition: &str, basket: &Basket, eligible_amount: i64, eligible_quantity: i64) -> bool {
    let amount: i64 = basket.lines.iter().map(|line| line.unit_price * line.quantity).sum();
    let quantity: i64 = basket.lines.iter().map(|line| line.quantity).sum();
    let has = |line: &pricing::Line, category: &str| line.category_ids.iter().any(|one| one == category);
    let channel = basket.attributes.get("channel").and_then(|channel| channel.as_str());
    match condition {
        "order.amount >= 1000" => amount >= 1_000,
        "eligible.quantity > 2 && order.freight == 0" => eligible_quantity > 2 && basket.freight == 0,
        "eligible.amount < order.amount" => eligible_amount < amount,
        "member.level == 'GOLD' || order.attributes.channel == 'app'" => {
            basket.member_level.as_deref() == Some("GOLD") || channel == Some("app")
        }
        "order.lines.exists(line, line.unit_price == 333 && 'toys' in line.category_ids)" => {
            basket.lines.iter().any(|line| line.unit_price == 333 && has(line, "toys"))
        }
        "!('books' in order.categories)" => !basket.lines.iter().any(|line| has(line, "books")),
        // Of another type, it is another.
        "order.attributes.channel != 'web'" => basket.attributes.contains_key("channel") && channel != Some("web"),
        "member.attributes.orders < 3" => {
            basket.member_attributes.get("orders").and_then(|orders| orders.as_i64()).is_some_and(|orders| orders < 3)
        }
        "2000 / (order.quantity - 3) > 0" => quantity > 3,
        other => panic!("what does {other} come to?"),
    }
}

/// A ledger line, and what is known about it beside.
struct Line {
    /// Unknown for lines that no answer tells.
    id: Option<TransactionId>,
    /// The lot that a grant made.
    lot: Option<LotId>,
    reversed: i64,
    /// Whether it undoes a transfer.
    undoes: bool,
    row: LineRow,
}

/// A member's points: everything but the debt follows from the lots.
#[derive(Default)]
struct Book {
    lots: Vec<(LotId, LotRow)>,
    holds: BTreeMap<HoldId, HoldRow>,
    lines: Vec<Line>,
    debt: i64,
    merged: Option<MemberId>,
    /// What orders granted, with the day it counts in.
    earned: Vec<(Day, i64)>,
}

impl Book {
    /// The day in which a grant of this day counts, and what counts in its day, week and month already.
    fn earned_on(&self, day: Day) -> (Day, [i64; 3]) {
        let day = self.earned.iter().map(|(day, _)| *day).fold(day, Day::max);
        let in_period = |period: fn(Day) -> i64| {
            self.earned.iter().filter(|(other, _)| period(*other) == period(day)).map(|(_, points)| points).sum()
        };
        let month = |day: Day| day.civil().0 * 12 + day.civil().1;
        (day, [in_period(|day| day.0), in_period(|day| (day.0 + 3).div_euclid(7)), in_period(month)])
    }

    fn account(&self) -> AccountRow {
        let sum = |column: fn(&LotRow) -> i64| self.lots.iter().map(|(_, lot)| column(lot)).sum::<i64>();
        AccountRow {
            total: sum(|lot| lot.points - lot.moved),
            available: sum(|lot| lot.remaining),
            frozen: sum(|lot| lot.held),
            used: sum(|lot| lot.used),
            expired: sum(|lot| lot.expired),
            revoked: sum(|lot| lot.revoked),
            debt: self.debt,
            sequence: self.lines.len() as i64,
            merged: self.merged.clone(),
            earned: self.earned_on(Day(0)),
        }
    }

    fn is_open(&self) -> Result<(), &'static str> {
        if self.merged.is_some() { Err("POINTS_ACCOUNT_MERGED") } else { Ok(()) }
    }

    fn last(&mut self) -> &mut LineRow {
        &mut self.lines.last_mut().expect("just written").row
    }

    fn lot(&mut self, id: LotId) -> &mut LotRow {
        &mut self.lots.iter_mut().find(|(lot, _)| *lot == id).expect("a known lot").1
    }

    /// Soonest-expiring first, never-expiring last, then oldest.
    fn sort(&mut self) {
        self.lots.sort_by_key(|(id, lot)| (lot.until, lot.made, *id));
    }

    /// Makes a change and writes the line for it, with the balances before and after.
    fn change(
        &mut self,
        kind: TransactionType,
        points: i64,
        parts: Vec<(LotId, i64)>,
        at: Timestamp,
        id: Option<TransactionId>,
        change: impl FnOnce(&mut Book),
    ) {
        let before = self.account().available;
        change(self);
        let now = self.account();
        let (after, frozen, debt, sequence) = (now.available, now.frozen, now.debt, now.sequence + 1);
        let row = LineRow {
            sequence,
            kind,
            points,
            before,
            after,
            frozen,
            debt,
            forgiven: 0,
            parts,
            rules: None,
            order: None,
            at,
            counterpart: None,
        };
        self.lines.push(Line { id, lot: None, reversed: 0, undoes: false, row });
    }

    /// Notes the rules that are asked whether an operator's points need an approval.
    fn name_rules(&mut self, kind: TransactionType, new: &New) {
        if matches!(kind, TransactionType::EarnAdmin | TransactionType::DeductAdmin) {
            self.last().rules = new.rules;
        }
    }

    /// Notes which order of ours wrote a line.
    fn name_line(&mut self, id: TransactionId, order: &str) {
        let line = self.lines.iter_mut().find(|line| line.id == Some(id)).expect("just written");
        line.row.order = Some(order.to_owned());
    }

    fn show_line(&self, id: TransactionId) -> String {
        let line = self.lines.iter().rev().find(|line| line.id == Some(id)).expect("just written");
        format!("{id} {:?}", line.row)
    }

    fn show_hold(&self, id: HoldId, line: TransactionId) -> String {
        format!("{line} {id} {:?} available {}", self.holds[&id], self.account().available)
    }

    /// Replays what was due up to `at`, in the order of time; at one instant lots expire before holds end.
    fn settle(&mut self, at: Timestamp) {
        loop {
            let open = self.holds.iter().filter(|(_, hold)| hold.status == HoldStatus::Open);
            let next = open.map(|(id, hold)| (hold.deadline, *id)).min().filter(|(deadline, _)| *deadline <= at);
            let Some((deadline, id)) = next else { break };
            self.expire(deadline, Timestamp(i64::MIN));
            self.give_back(id, HoldStatus::Expired, deadline, None);
            if self.holds[&id].pending {
                let lots: Vec<LotId> = self.holds[&id].parts.iter().map(|(lot, _)| *lot).collect();
                self.pay_debt(&lots, deadline);
            }
        }
        self.expire(at, Timestamp(i64::MIN));
    }

    /// Expires what lots due by `until` have left, dated at their end or at `earliest` if that is later.
    fn expire(&mut self, until: Timestamp, earliest: Timestamp) {
        self.sort();
        let due: Vec<(LotId, LotRow)> =
            self.lots.iter().filter(|(_, lot)| lot.until <= until && lot.remaining > 0).cloned().collect();
        for (id, LotRow { remaining, until, .. }) in due {
            let date = until.max(earliest);
            self.change(TransactionType::Expire, -remaining, vec![(id, remaining)], date, None, |book| {
                let lot = book.lot(id);
                lot.expired += lot.remaining;
                lot.remaining = 0;
            });
        }
    }

    /// Ends a hold; what was not captured returns to its lots, and expires there if they have.
    fn give_back(&mut self, id: HoldId, status: HoldStatus, at: Timestamp, line: Option<TransactionId>) {
        let hold = self.holds.get_mut(&id).expect("a known hold");
        hold.status = status;
        hold.closed_at = Some(at);
        hold.released = hold.points - hold.captured;
        let (released, parts) = (hold.released, range(&hold.parts, hold.captured, hold.points));
        if released > 0 {
            self.change(TransactionType::Release, released, parts.clone(), at, line, |book| {
                for (id, points) in parts {
                    let lot = book.lot(id);
                    lot.held -= points;
                    lot.remaining += points;
                }
            });
            self.expire(at, at);
        }
    }

    fn choose(&mut self, points: i64, at: Timestamp) -> Result<Vec<(LotId, i64)>, &'static str> {
        self.sort();
        let mut open = points;
        let mut parts = Vec::new();
        for (id, lot) in self.lots.iter().filter(|(_, lot)| lot.from <= at && at < lot.until) {
            let part = open.min(lot.remaining);
            open -= part;
            if part > 0 {
                parts.push((*id, part));
            }
        }
        if open > 0 { Err("POINTS_INSUFFICIENT") } else { Ok(parts) }
    }

    /// Debt is paid from these lots, one after the other.
    fn pay_debt(&mut self, lots: &[LotId], at: Timestamp) {
        let mut open = self.debt;
        let mut parts = Vec::new();
        for id in lots {
            let part = open.min(self.lot(*id).remaining);
            open -= part;
            if part > 0 {
                parts.push((*id, part));
            }
        }
        let paid = self.debt - open;
        if paid > 0 {
            self.change(TransactionType::Clawback, -paid, parts.clone(), at, None, |book| {
                book.debt -= paid;
                for (id, part) in parts {
                    let lot = book.lot(id);
                    lot.remaining -= part;
                    lot.revoked += part;
                }
            });
        }
    }

    /// Holds what a lot has until it becomes available.
    fn keep(&mut self, id: LotId, hold: HoldId, at: Timestamp) {
        let LotRow { remaining: points, from: deadline, .. } = *self.lot(id);
        let (status, parts, closed_at) = (HoldStatus::Open, vec![(id, points)], None);
        let row = HoldRow {
            points,
            captured: 0,
            released: 0,
            status,
            deadline,
            order: None,
            parts: parts.clone(),
            closed_at,
            pending: true,
        };
        self.holds.insert(hold, row);
        self.change(TransactionType::Hold, -points, parts, at, None, |book| {
            let lot = book.lot(id);
            lot.remaining -= points;
            lot.held += points;
        });
    }

    fn grant(&mut self, movement: &Movement, spendable: Spendable, at: Timestamp, new: &New) -> Decided {
        self.settle(at);
        self.is_open()?;
        self.take_in(movement, spendable, at, new)
    }

    /// A grant, closed or not: what an order earns comes to its member all the same.
    fn take_in(&mut self, movement: &Movement, spendable: Spendable, at: Timestamp, new: &New) -> Decided {
        let Spendable { available_from, expires_at, idle_days: idle } = spendable;
        self.settle(at);
        if expires_at.is_some_and(|end| end <= at) {
            return Err("DEADLINE_PASSED");
        }
        let from = available_from.unwrap_or(at).max(at);
        if from > at && expires_at.is_some_and(|end| end <= from) {
            return Err("POINTS_EXPIRES_BEFORE_AVAILABLE");
        }
        if i128::from(self.account().total) + i128::from(movement.points) > 1 << 62 {
            return Err("POINTS_OVERFLOW");
        }
        self.change(movement.kind, movement.points, Vec::new(), at, Some(new.transaction), |book| {
            let lot = LotRow::new(movement.points, at, expires_at.unwrap_or(Timestamp(i64::MAX)));
            book.lots.push((new.lot, LotRow { from, idle, ..lot }));
        });
        self.note_activity(movement.kind, at);
        self.lines.last_mut().expect("just written").lot = Some(new.lot);
        self.name_rules(movement.kind, new);
        let text = self.show_line(new.transaction);
        if from > at {
            self.keep(new.lot, HoldId(new.lot.0), at);
        } else {
            self.pay_debt(&[new.lot], at);
        }
        Ok(text)
    }

    fn debit(&mut self, movement: &Movement, at: Timestamp, new: &New) -> Decided {
        self.settle(at);
        self.is_open()?;
        let parts = self.choose(movement.points, at)?;
        let revoking = movement.kind == TransactionType::DeductAdmin;
        self.change(movement.kind, -movement.points, parts.clone(), at, Some(new.transaction), |book| {
            for (id, points) in &parts {
                let lot = book.lot(*id);
                lot.remaining -= points;
                *(if revoking { &mut lot.revoked } else { &mut lot.used }) += points;
            }
        });
        self.note_activity(movement.kind, at);
        self.name_rules(movement.kind, new);
        Ok(self.show_line(new.transaction))
    }

    /// What expires by inactivity lives on from here, if it has not expired by the account's last line in time.
    fn note_activity(&mut self, kind: TransactionType, at: Timestamp) {
        use TransactionType::{EarnCheckin, EarnOrder, EarnTask, UseCoupon, UseOrder, UseProduct};
        if !matches!(kind, EarnCheckin | EarnOrder | EarnTask | UseCoupon | UseOrder | UseProduct) {
            return;
        }
        let last = self.lines.iter().map(|line| line.row.at).max().expect("just written");
        for (_, lot) in &mut self.lots {
            if let Some(days) = lot.idle.filter(|_| lot.remaining + lot.held > 0 && lot.until > last) {
                lot.until = lot.until.max(idle_end(at, days));
            }
        }
    }

    fn hold(&mut self, movement: &Movement, deadline: Option<Timestamp>, at: Timestamp, new: &New) -> Decided {
        self.settle(at);
        self.is_open()?;
        if deadline.is_some_and(|deadline| deadline <= at) {
            return Err("DEADLINE_PASSED");
        }
        let parts = self.choose(movement.points, at)?;
        self.set_aside(movement, deadline, parts, at, new)
    }

    fn set_aside(
        &mut self,
        movement: &Movement,
        deadline: Option<Timestamp>,
        parts: Vec<(LotId, i64)>,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        let hold = HoldRow {
            points: movement.points,
            captured: 0,
            released: 0,
            status: HoldStatus::Open,
            deadline: deadline.unwrap_or(Timestamp(i64::MAX)),
            order: None,
            parts: parts.clone(),
            closed_at: None,
            pending: false,
        };
        self.holds.insert(new.hold, hold);
        self.change(TransactionType::Hold, -movement.points, parts.clone(), at, Some(new.transaction), |book| {
            for (id, points) in parts {
                let lot = book.lot(id);
                lot.remaining -= points;
                lot.held += points;
            }
        });
        Ok(self.show_hold(new.hold, new.transaction))
    }

    /// Captures (`Some`: how much, by default all) or releases (`None`) an open hold.
    fn end_hold(&mut self, id: HoldId, capture: Option<Option<i64>>, at: Timestamp, new: &New) -> Decided {
        if !self.holds.contains_key(&id) {
            return Err("POINTS_HOLD_NOT_FOUND");
        }
        self.settle(at);
        let hold = self.holds.get_mut(&id).expect("a known hold");
        match hold.status {
            HoldStatus::Open if hold.pending => return Err("POINTS_HOLD_PENDING"),
            HoldStatus::Open => {}
            HoldStatus::Expired => return Err("POINTS_HOLD_EXPIRED"),
            HoldStatus::Captured | HoldStatus::Released => return Err("POINTS_HOLD_CLOSED"),
        }
        let Some(points) = capture.map(|points| points.unwrap_or(hold.points)) else {
            self.give_back(id, HoldStatus::Released, at, Some(new.transaction));
            return Ok(self.show_hold(id, new.transaction));
        };
        if points > hold.points {
            return Err("POINTS_CAPTURE_EXCEEDS_HOLD");
        }
        hold.captured = points;
        let parts = range(&hold.parts, 0, points);
        self.change(TransactionType::UseOrder, -points, parts.clone(), at, Some(new.transaction), |book| {
            for (id, points) in parts {
                let lot = book.lot(id);
                lot.held -= points;
                lot.used += points;
            }
        });
        self.note_activity(TransactionType::UseOrder, at);
        self.give_back(id, HoldStatus::Captured, at, None);
        Ok(self.show_hold(id, new.transaction))
    }

    fn reverse(&mut self, id: TransactionId, points: Option<i64>, grace: u32, at: Timestamp, new: &New) -> Decided {
        use TransactionType::{
            DeductAdmin, EarnAdmin, EarnCheckin, EarnOrder, EarnTask, UseCoupon, UseOrder, UseProduct,
        };
        let index = self.lines.iter().position(|line| line.id == Some(id)).ok_or("POINTS_TRANSACTION_NOT_FOUND")?;
        let line = &self.lines[index];
        let (kind, lot, done, parts) = (line.row.kind, line.lot, line.reversed, line.row.parts.clone());
        let is_earn = matches!(kind, EarnOrder | EarnCheckin | EarnTask | EarnAdmin);
        if !is_earn && !matches!(kind, UseOrder | UseCoupon | UseProduct | DeductAdmin) {
            return Err("POINTS_NOT_REVERSIBLE");
        }
        let left = line.row.points.abs() - done;
        let points = points.unwrap_or(left);
        if points < 1 || points > left {
            return Err("POINTS_REVERSAL_EXCEEDS");
        }
        self.settle(at);
        self.lines[index].reversed += points;
        if is_earn {
            let lot = lot.expect("a grant makes a lot");
            let keeps = |hold: &HoldRow| {
                hold.pending && hold.status == HoldStatus::Open && hold.parts.iter().any(|(id, _)| *id == lot)
            };
            let kept = self.holds.iter().find(|(_, hold)| keeps(hold)).map(|(id, _)| *id);
            if let Some(id) = kept {
                self.give_back(id, HoldStatus::Released, at, None);
            }
            self.claw_back(lot, points, at, new);
            let text = self.show_line(new.transaction);
            if kept.is_some() && self.lot(lot).remaining > 0 {
                self.keep(lot, HoldId(new.transaction.0), at);
            }
            return Ok(text);
        } else {
            let parts = range(&parts, done, done + points);
            self.refund(&parts, points, kind == DeductAdmin, grace, at, new);
        }
        let text = self.show_line(new.transaction);
        self.expire(at, at);
        Ok(text)
    }

    fn owe(&mut self, id: TransactionId, points: i64, at: Timestamp, new: &New) -> Result<(), &'static str> {
        use TransactionType::{EarnAdmin, EarnCheckin, EarnOrder, EarnTask};
        let index = self.lines.iter().position(|line| line.id == Some(id)).ok_or("POINTS_TRANSACTION_NOT_FOUND")?;
        let line = &self.lines[index];
        if !matches!(line.row.kind, EarnOrder | EarnCheckin | EarnTask | EarnAdmin) {
            return Err("POINTS_NOT_REVERSIBLE");
        }
        if points < 1 || points > line.row.points - line.reversed {
            return Err("POINTS_REVERSAL_EXCEEDS");
        }
        self.settle(at);
        self.lines[index].reversed += points;
        self.change(TransactionType::Clawback, 0, Vec::new(), at, Some(new.transaction), |book| book.debt += points);
        Ok(())
    }

    fn claw_back(&mut self, own: LotId, points: i64, at: Timestamp, new: &New) {
        self.sort();
        let mut order: Vec<LotId> = self.lots.iter().map(|(id, _)| *id).filter(|id| *id != own).collect();
        order.insert(0, own);
        let mut open = points;
        let mut parts = Vec::new();
        for id in order {
            let lot = self.lot(id);
            let part = if id == own || (lot.from <= at && at < lot.until) { open.min(lot.remaining) } else { 0 };
            open -= part;
            if part > 0 {
                parts.push((id, part));
            }
        }
        // What a merged account has not is with another.
        let forgiven = if new.forgives && self.merged.is_none() { open } else { 0 };
        self.change(TransactionType::Clawback, open - points, parts.clone(), at, Some(new.transaction), |book| {
            for (id, part) in parts {
                let lot = book.lot(id);
                lot.remaining -= part;
                lot.revoked += part;
            }
            book.debt += open - forgiven;
        });
        let line = self.last();
        (line.forgiven, line.rules) = (forgiven, new.rules);
    }

    fn refund(&mut self, parts: &[(LotId, i64)], points: i64, revoked: bool, grace: u32, at: Timestamp, new: &New) {
        let before = self.account().available;
        let mut restored = Vec::new();
        let mut moved = 0;
        for (id, part) in parts {
            let lot = self.lot(*id);
            *(if revoked { &mut lot.revoked } else { &mut lot.used }) -= part;
            if lot.until <= at && grace > 0 {
                lot.moved += part;
                moved += part;
            } else {
                lot.remaining += part;
                restored.push((*id, *part));
            }
        }
        if moved > 0 {
            self.lots.push((new.lot, LotRow::new(moved, at, after_days(at, grace))));
            restored.push((new.lot, moved));
        }
        self.change(TransactionType::Refund, points, restored, at, Some(new.transaction), |_| {});
        self.lines.last_mut().expect("just written").row.before = before;
    }
}

/// The points number `from` to `to` of a list of parts.
fn range(parts: &[(LotId, i64)], from: i64, to: i64) -> Vec<(LotId, i64)> {
    let mut cut = Vec::new();
    let mut start = 0;
    for (id, points) in parts {
        let end = start + points;
        let inside = end.min(to) - start.max(from);
        if inside > 0 {
            cut.push((*id, inside));
        }
        start = end;
    }
    cut
}
