//! What batches write: one [`Table`] for each kind of row, beside the function that turns a row into its columns' values.
//! The counterpart of [`super::decode`]; both stores derive their statements from here, so a column is named in one place.

use scrip_domain::bulk::{Bulk, ChunkResult};
use scrip_domain::check_in::CheckIn;
use scrip_domain::coupon::{Code, CodeBatch, CodeUse, Compensation, Coupon, Template};
use scrip_domain::event::Event;
use scrip_domain::exchange::Exchange;
use scrip_domain::job::Job;
use scrip_domain::order::{Order, Refund};
use scrip_domain::points::{Account, Adjustment, Hold, Lot, Transaction};
use scrip_domain::rules::RulesVersion;
use scrip_domain::state::{IdempotencyRecord, Writes};
use scrip_domain::task::{Progress, Report, Task};
use scrip_domain::tenant::{ApiKey, Tenant};
use scrip_domain::webhook::{DisabledReason, Webhook};
use scrip_domain::{MemberId, TemplateId, TenantId, Timestamp, TransactionId};

use super::value::Param;

/// A column's type, which PostgreSQL wants to know of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Uuid,
    Text,
    Int,
    Bool,
    Bytes,
}

/// A table as batches write it.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// The columns that identify a row, then those that never change, then those that do.
    pub columns: &'static [(&'static str, Type)],
    /// How many columns identify a row.
    pub key: usize,
    /// How many columns never change, the key included.
    pub fixed: usize,
    /// What an insert does to a row that is there already; without it, the database refuses.
    pub on_conflict: Option<&'static str>,
}

/// What is done to the rows of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Insert,
    /// Sets the changing columns of the rows with these keys.
    Update,
    Delete,
}

/// Rows of one table that are written in one way, in the order they must be locked.
pub struct Change<'a> {
    pub table: &'static Table,
    pub verb: Verb,
    /// A value for each column the verb needs ([`Table::written`]).
    pub rows: Vec<Vec<Param<'a>>>,
}

impl Table {
    /// The columns that `verb` needs the values of, in order.
    pub fn written(&self, verb: Verb) -> Vec<(&'static str, Type)> {
        match verb {
            Verb::Insert => self.columns.to_vec(),
            Verb::Update => [&self.columns[..self.key], &self.columns[self.fixed..]].concat(),
            Verb::Delete => self.columns[..self.key].to_vec(),
        }
    }

    /// The end of an insert.
    pub fn on_conflict_sql(&self) -> String {
        let Some(update) = self.on_conflict else { return String::new() };
        let key = self.columns[..self.key].iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        format!(" ON CONFLICT ({key}) DO UPDATE SET {update}")
    }
}

use Type::{Bool, Bytes, Int, Text, Uuid};

/// A table whose rows are only ever inserted.
const fn log(name: &'static str, key: usize, columns: &'static [(&'static str, Type)]) -> Table {
    Table { name, columns, key, fixed: columns.len(), on_conflict: None }
}

/// A table whose columns from `fixed` on change.
const fn table(name: &'static str, key: usize, fixed: usize, columns: &'static [(&'static str, Type)]) -> Table {
    Table { name, columns, key, fixed, on_conflict: None }
}

static TENANT: Table = log(
    "tenant",
    1,
    &[
        ("tenant_id", Uuid),
        ("name", Text),
        ("currency", Text),
        ("time_zone", Text),
        ("refund_grace_days", Int),
        ("created_at", Int),
        ("parent_id", Uuid),
        ("program", Text),
    ],
);

fn tenant(row: &Tenant) -> Vec<Param<'_>> {
    vec![
        row.id.into(),
        row.name.as_str().into(),
        row.currency.as_str().into(),
        row.time_zone.as_str().into(),
        i64::from(row.refund_grace_days).into(),
        row.created_at.into(),
        row.program.as_ref().map(|program| program.parent_id.0).into(),
        row.program.as_ref().map(|program| program.code.as_str()).into(),
    ]
}

static API_KEY: Table = table(
    "api_key",
    2,
    9,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("name", Text),
        ("scope", Text),
        ("member_id", Text),
        ("secret_digest", Bytes),
        ("expires_at", Int),
        ("created_at", Int),
        ("adjustment_limit", Int),
        ("revoked_at", Int),
    ],
);

fn api_key((row, secret_digest): &(ApiKey, [u8; 32])) -> Vec<Param<'_>> {
    vec![
        row.tenant_id.into(),
        row.id.0.into(),
        row.name.as_str().into(),
        row.scope.as_str().into(),
        row.member_id.as_ref().map(MemberId::as_str).into(),
        Param::Bytes(secret_digest),
        row.expires_at.into(),
        row.created_at.into(),
        row.adjustment_limit.into(),
        row.revoked_at.into(),
    ]
}

static WEBHOOK: Table = table(
    "webhook",
    2,
    5,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("starts_tx", Int),
        ("starts_ordinal", Int),
        ("created_at", Int),
        ("url", Text),
        ("types", Text),
        ("description", Text),
        ("disabled_reason", Text),
        ("secret", Text),
        ("previous_secret", Text),
        ("previous_until", Int),
        ("updated_at", Int),
    ],
);

fn webhook(tenant: TenantId, row: &Webhook) -> Vec<Param<'_>> {
    let previous = row.secrets.previous.as_ref();
    vec![
        tenant.into(),
        row.id.0.into(),
        row.starts_after.tx.into(),
        row.starts_after.ordinal.into(),
        row.created_at.into(),
        row.url.as_str().into(),
        json(&row.types),
        row.description.as_str().into(),
        row.disabled.map(DisabledReason::as_str).into(),
        row.secrets.current.as_str().into(),
        previous.map(|(secret, _)| secret.as_str()).into(),
        previous.map(|(_, until)| *until).into(),
        row.updated_at.into(),
    ]
}

pub static TEMPLATE: Table = table(
    "mkt_coupon_template",
    2,
    3,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("created_at", Int),
        ("version", Int),
        ("enabled", Bool),
        ("type", Text),
        ("distribution_starts_at", Int),
        ("distribution_ends_at", Int),
        ("total_stock", Int),
        ("remaining_stock", Int),
        ("claimed_count", Int),
        ("updated_at", Int),
        ("budget", Int),
        ("committed_amount", Int),
        ("code_batch_count", Int),
        ("archived_at", Int),
        ("day_starts_at", Int),
        ("day_ends_at", Int),
        ("day_claimed", Int),
        ("day_ceiling", Int),
        ("week_starts_at", Int),
        ("week_ends_at", Int),
        ("week_claimed", Int),
        ("week_ceiling", Int),
        ("month_starts_at", Int),
        ("month_ends_at", Int),
        ("month_claimed", Int),
        ("month_ceiling", Int),
    ],
);

fn template(tenant: TenantId, row: &Template) -> Vec<Param<'_>> {
    let mut values = vec![
        tenant.into(),
        row.id.0.into(),
        row.created_at.into(),
        row.version.into(),
        Param::Bool(row.enabled),
        row.definition.benefit.kind().into(),
        row.definition.distribution.starts_at.into(),
        row.definition.distribution.ends_at.into(),
        row.total_stock.into(),
        row.remaining_stock.into(),
        row.claimed_count.into(),
        row.updated_at.into(),
        row.definition.budget.into(),
        row.committed_amount.into(),
        row.code_batch_count.into(),
        row.archived_at.into(),
    ];
    for count in row.counts {
        values.push(count.map(|count| count.bounds.starts_at).into());
        values.push(count.map(|count| count.bounds.ends_at).into());
        values.push(count.map(|count| count.claimed).into());
        values.push(count.map(|count| count.ceiling).into());
    }
    values
}

static TEMPLATE_VERSION: Table = log(
    "mkt_coupon_template_version",
    3,
    &[("tenant_id", Uuid), ("template_id", Uuid), ("version", Int), ("definition", Text), ("created_at", Int)],
);

fn template_version(tenant: TenantId, row: &Template) -> Vec<Param<'_>> {
    vec![tenant.into(), row.id.0.into(), row.version.into(), json(&*row.definition), row.updated_at.into()]
}

static TEMPLATE_USE: Table = Table {
    name: "mkt_coupon_template_use",
    columns: &[("tenant_id", Uuid), ("template_id", Uuid), ("stripe", Int), ("used_count", Int)],
    key: 3,
    fixed: 3,
    on_conflict: Some("used_count = mkt_coupon_template_use.used_count + excluded.used_count"),
};

static CODE_BATCH: Table = table(
    "mkt_coupon_code_batch",
    2,
    11,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("template_id", Uuid),
        ("kind", Text),
        ("name", Text),
        ("max_uses", Int),
        ("pattern", Text),
        ("alphabet", Text),
        ("check_character", Bool),
        ("key_id", Int),
        ("created_at", Int),
        ("status", Text),
        ("code_count", Int),
        ("added_count", Int),
        ("next_number", Int),
        ("claimed_count", Int),
        ("nonce", Bytes),
        ("completed_at", Int),
        ("exported_at", Int),
        ("updated_at", Int),
    ],
);

fn code_batch(tenant: TenantId, row: &CodeBatch) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.id.0.into(),
        row.template_id.0.into(),
        row.kind.as_str().into(),
        row.name.as_str().into(),
        row.max_uses.into(),
        row.pattern.as_str().into(),
        row.alphabet.as_str().into(),
        Param::Bool(row.check_character),
        row.key_id.into(),
        row.created_at.into(),
        row.status.as_str().into(),
        row.code_count.into(),
        row.added_count.into(),
        row.next_number.into(),
        row.claimed_count.into(),
        Param::OptBytes(row.nonce.as_ref().map(|nonce| nonce.as_slice())),
        row.completed_at.into(),
        row.exported_at.into(),
        row.updated_at.into(),
    ]
}

static CODE: Table = table(
    "mkt_coupon_code",
    2,
    5,
    &[
        ("tenant_id", Uuid),
        ("digest", Bytes),
        ("batch_id", Uuid),
        ("number", Int),
        ("max_uses", Int),
        ("status", Text),
        ("use_count", Int),
        ("member_id", Text),
    ],
);

fn code(tenant: TenantId, row: &Code) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        Param::Bytes(&row.digest),
        row.batch_id.0.into(),
        row.number.into(),
        row.max_uses.into(),
        row.status.as_str().into(),
        row.use_count.into(),
        row.member_id.as_ref().map(MemberId::as_str).into(),
    ]
}

static CODE_USE: Table =
    log("mkt_coupon_code_use", 2, &[("tenant_id", Uuid), ("coupon_id", Uuid), ("batch_id", Uuid), ("digest", Bytes)]);

fn code_use(tenant: TenantId, row: &CodeUse) -> Vec<Param<'_>> {
    vec![tenant.into(), row.coupon_id.0.into(), row.batch_id.0.into(), Param::Bytes(&row.digest)]
}

static EXCHANGE: Table = log(
    "mkt_coupon_exchange",
    2,
    &[("tenant_id", Uuid), ("coupon_id", Uuid), ("member_id", Text), ("transaction_id", Uuid), ("points", Int)],
);

fn exchange(tenant: TenantId, row: &Exchange) -> Vec<Param<'_>> {
    let Exchange { coupon, transaction } = row;
    let points = transaction.points.saturating_neg();
    vec![tenant.into(), coupon.id.0.into(), (&coupon.member_id).into(), transaction.id.0.into(), points.into()]
}

pub static COUPON: Table = table(
    "mkt_user_coupon",
    2,
    9,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("template_id", Uuid),
        ("template_version", Int),
        ("member_id", Text),
        ("sequence", Int),
        ("source", Text),
        ("valid_from", Int),
        ("claimed_at", Int),
        ("status", Text),
        ("valid_until", Int),
        ("order_id", Text),
        ("by_order", Bool),
        ("locked_until", Int),
        ("discount_amount", Int),
        ("used_at", Int),
    ],
);

fn coupon(tenant: TenantId, row: &Coupon) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.id.0.into(),
        row.template_id.0.into(),
        row.template_version.into(),
        (&row.member_id).into(),
        row.sequence.into(),
        row.source.as_str().into(),
        row.valid_from.into(),
        row.claimed_at.into(),
        row.status.as_str().into(),
        row.valid_until.into(),
        row.order_id.as_ref().map(|order| order.as_str()).into(),
        Param::Bool(row.by_order),
        row.locked_until.into(),
        row.discount_amount.into(),
        row.used_at.into(),
    ]
}

pub static ACCOUNT: Table = table(
    "mkt_points_account",
    2,
    3,
    &[
        ("tenant_id", Uuid),
        ("member_id", Text),
        ("created_at", Int),
        ("total_points", Int),
        ("available", Int),
        ("frozen", Int),
        ("used", Int),
        ("expired", Int),
        ("revoked", Int),
        ("debt", Int),
        ("sequence", Int),
        ("updated_at", Int),
        ("merged_into", Text),
        ("earned_day", Int),
        ("earned_in_day", Int),
        ("earned_in_week", Int),
        ("earned_in_month", Int),
        ("idle_moved_until", Int),
    ],
);

fn account(tenant: TenantId, row: &Account) -> Vec<Param<'_>> {
    let [in_day, in_week, in_month] = row.earned.points;
    vec![
        tenant.into(),
        (&row.member_id).into(),
        row.created_at.into(),
        row.total_points.into(),
        row.available.into(),
        row.frozen.into(),
        row.used.into(),
        row.expired.into(),
        row.revoked.into(),
        row.debt.into(),
        row.sequence.into(),
        row.updated_at.into(),
        row.merged_into.as_ref().map(MemberId::as_str).into(),
        row.earned.day.0.into(),
        in_day.into(),
        in_week.into(),
        in_month.into(),
        row.idle_moved_until.into(),
    ]
}

pub static LOT: Table = table(
    "mkt_points_lot",
    2,
    8,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("member_id", Text),
        ("points", Int),
        ("available_from", Int),
        ("transaction_id", Uuid),
        ("created_at", Int),
        ("idle_days", Int),
        ("expires_at", Int),
        ("remaining", Int),
        ("held", Int),
        ("used", Int),
        ("expired", Int),
        ("revoked", Int),
        ("moved", Int),
        ("open", Bool),
    ],
);

fn lot<'a>(tenant: TenantId, member: &'a MemberId, row: &'a Lot) -> Vec<Param<'a>> {
    vec![
        tenant.into(),
        row.id.0.into(),
        member.into(),
        row.points.into(),
        row.available_from.into(),
        row.transaction_id.0.into(),
        row.created_at.into(),
        row.idle_days.map(i64::from).into(),
        row.expires_at.into(),
        row.remaining.into(),
        row.held.into(),
        row.used.into(),
        row.expired.into(),
        row.revoked.into(),
        row.moved.into(),
        Param::Bool(row.is_open()),
    ]
}

pub static TRANSACTION: Table = log(
    "mkt_points_transaction",
    2,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("member_id", Text),
        ("sequence", Int),
        ("type", Text),
        ("points", Int),
        ("balance_before", Int),
        ("balance_after", Int),
        ("frozen_after", Int),
        ("debt_after", Int),
        ("reference", Text),
        ("remark", Text),
        ("hold_id", Uuid),
        ("reverses_id", Uuid),
        ("lot_id", Uuid),
        ("allocations", Text),
        ("by_order", Bool),
        ("expires_at", Int),
        ("occurred_at", Int),
        ("recorded_at", Int),
        ("counterpart_id", Uuid),
        ("rules_version", Int),
        ("points_forgiven", Int),
        ("totals", Text),
    ],
);

fn transaction(tenant: TenantId, row: &Transaction) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.id.0.into(),
        (&row.member_id).into(),
        row.sequence.into(),
        row.kind.as_str().into(),
        row.points.into(),
        row.balance_before.into(),
        row.balance_after.into(),
        row.frozen_after.into(),
        row.debt_after.into(),
        row.reference.as_deref().into(),
        row.remark.as_deref().into(),
        row.hold_id.map(|id| id.0).into(),
        row.reverses_id.map(|id| id.0).into(),
        row.lot_id.map(|id| id.0).into(),
        json(&row.allocations),
        Param::Bool(row.by_order),
        row.expires_at.into(),
        row.occurred_at.into(),
        row.recorded_at.into(),
        row.counterpart_id.map(|id| id.0).into(),
        row.rules_version.into(),
        row.points_forgiven.into(),
        row.totals.as_ref().map_or(Param::OptText(None), json),
    ]
}

static HOLD: Table = table(
    "mkt_points_hold",
    2,
    10,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("member_id", Text),
        ("points", Int),
        ("reference", Text),
        ("remark", Text),
        ("expires_at", Int),
        ("by_order", Bool),
        ("allocations", Text),
        ("created_at", Int),
        ("pending", Bool),
        ("captured", Int),
        ("released", Int),
        ("status", Text),
        ("closed_at", Int),
    ],
);

fn hold(tenant: TenantId, row: &Hold) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.id.0.into(),
        (&row.member_id).into(),
        row.points.into(),
        row.reference.as_deref().into(),
        row.remark.as_deref().into(),
        row.expires_at.into(),
        Param::Bool(row.by_order),
        json(&row.allocations),
        row.created_at.into(),
        Param::Bool(row.pending),
        row.captured.into(),
        row.released.into(),
        row.status.as_str().into(),
        row.closed_at.into(),
    ]
}

static REVERSAL: Table = Table {
    name: "mkt_points_reversal",
    columns: &[("tenant_id", Uuid), ("transaction_id", Uuid), ("points", Int), ("reversed", Int)],
    key: 2,
    fixed: 3,
    on_conflict: Some("reversed = excluded.reversed"),
};

fn reversal((tenant, id, points, reversed): &(TenantId, TransactionId, i64, i64)) -> Vec<Param<'_>> {
    vec![(*tenant).into(), id.0.into(), (*points).into(), (*reversed).into()]
}

static ORDER: Table = table(
    "mkt_order",
    2,
    18,
    &[
        ("tenant_id", Uuid),
        ("order_id", Text),
        ("id", Uuid),
        ("member_id", Text),
        ("basket", Text),
        ("quote", Text),
        ("rules_version", Int),
        ("original_amount", Int),
        ("coupon_discount", Int),
        ("freight_discount", Int),
        ("points_discount", Int),
        ("freight", Int),
        ("pay_amount", Int),
        ("points_spent", Int),
        ("points_to_earn", Int),
        ("coupon_count", Int),
        ("created_at", Int),
        ("expires_at", Int),
        ("status", Text),
        ("hold_id", Uuid),
        ("spend_id", Uuid),
        ("earn_id", Uuid),
        ("earn_due_at", Int),
        ("points_granted", Int),
        ("points_cut", Int),
        ("earn_cut", Text),
        ("refunded_quantities", Text),
        ("refunded_amount", Int),
        ("refunded_freight", Int),
        ("points_returned", Int),
        ("points_clawed_back", Int),
        ("coupons_returned", Bool),
        ("paid_at", Int),
        ("closed_at", Int),
    ],
);

fn order(tenant: TenantId, row: &Order) -> Vec<Param<'_>> {
    let quote = &*row.quote;
    vec![
        tenant.into(),
        row.order_id.as_str().into(),
        row.id.0.into(),
        (&row.member_id).into(),
        json(&*row.basket),
        json(quote),
        row.rules_version.into(),
        quote.original_amount.into(),
        quote.coupon_discount.into(),
        quote.freight_discount.into(),
        quote.points_discount.into(),
        quote.freight.into(),
        quote.pay_amount.into(),
        quote.points_effective.into(),
        quote.points_to_earn.into(),
        (quote.coupons.len() as i64).into(),
        row.created_at.into(),
        row.expires_at.into(),
        row.status.as_str().into(),
        row.hold_id.map(|id| id.0).into(),
        row.spend_id.map(|id| id.0).into(),
        row.earn_id.map(|id| id.0).into(),
        row.earn_due_at.into(),
        row.points_granted.into(),
        row.points_cut().into(),
        row.earn_cut.as_ref().map_or(Param::OptText(None), json),
        json(&row.refunded_quantities),
        row.refunded_amount.into(),
        row.refunded_freight.into(),
        row.points_returned.into(),
        row.points_clawed_back.into(),
        Param::Bool(row.coupons_returned),
        row.paid_at.into(),
        row.closed_at.into(),
    ]
}

static REFUND: Table = log(
    "mkt_order_refund",
    3,
    &[
        ("tenant_id", Uuid),
        ("order_id", Text),
        ("refund_id", Text),
        ("order_uid", Uuid),
        ("member_id", Text),
        ("is_full", Bool),
        ("lines", Text),
        ("freight", Int),
        ("amount", Int),
        ("points_returned", Int),
        ("points_clawed_back", Int),
        ("points_owed", Int),
        ("return_transaction_id", Uuid),
        ("clawback_transaction_id", Uuid),
        ("coupons", Text),
        ("remark", Text),
        ("order_status", Text),
        ("created_at", Int),
        ("points_forgiven", Int),
    ],
);

fn refund(tenant: TenantId, row: &Refund) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.order_id.as_str().into(),
        row.refund_id.as_str().into(),
        row.order.0.into(),
        (&row.member_id).into(),
        Param::Bool(row.full),
        json(&row.lines),
        row.freight.into(),
        row.amount.into(),
        row.points_returned.into(),
        row.points_clawed_back.into(),
        row.points_owed.into(),
        row.return_transaction_id.map(|id| id.0).into(),
        row.clawback_transaction_id.map(|id| id.0).into(),
        json(&row.coupons),
        row.remark.as_deref().into(),
        row.order_status.as_str().into(),
        row.created_at.into(),
        row.points_forgiven.into(),
    ]
}

static COMPENSATION: Table = table(
    "mkt_coupon_refund_compensation",
    2,
    8,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("coupon_id", Uuid),
        ("template_id", Uuid),
        ("member_id", Text),
        ("order_id", Text),
        ("reason", Text),
        ("created_at", Int),
        ("status", Text),
        ("remark", Text),
        ("closed_by", Uuid),
        ("closed_at", Int),
    ],
);

fn compensation(tenant: TenantId, row: &Compensation) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.id.0.into(),
        row.coupon_id.0.into(),
        row.template_id.0.into(),
        (&row.member_id).into(),
        row.order_id.as_str().into(),
        row.reason.as_str().into(),
        row.created_at.into(),
        row.status.as_str().into(),
        row.remark.as_deref().into(),
        row.closed_by.map(|id| id.0).into(),
        row.closed_at.into(),
    ]
}

static ADJUSTMENT: Table = table(
    "mkt_points_adjustment",
    2,
    9,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("member_id", Text),
        ("points", Int),
        ("reason", Text),
        ("reference", Text),
        ("expires_at", Int),
        ("requested_by", Uuid),
        ("requested_at", Int),
        ("status", Text),
        ("decided_by", Uuid),
        ("decided_at", Int),
        ("remark", Text),
        ("transaction_id", Uuid),
    ],
);

fn adjustment(tenant: TenantId, row: &Adjustment) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.id.0.into(),
        (&row.member_id).into(),
        row.points.into(),
        row.reason.as_str().into(),
        row.reference.as_deref().into(),
        row.expires_at.into(),
        row.requested_by.map(|id| id.0).into(),
        row.requested_at.into(),
        row.status.as_str().into(),
        row.decided_by.map(|id| id.0).into(),
        row.decided_at.into(),
        row.remark.as_deref().into(),
        row.transaction_id.map(|id| id.0).into(),
    ]
}

static RULES: Table = log(
    "mkt_points_rule",
    2,
    &[("tenant_id", Uuid), ("version", Int), ("effective_from", Int), ("rules", Text), ("created_at", Int)],
);

fn rules(tenant: TenantId, row: &RulesVersion) -> Vec<Param<'_>> {
    vec![tenant.into(), row.rules.version.into(), row.effective_from.into(), json(&*row.rules), row.created_at.into()]
}
static CHECK_IN: Table = table(
    "mkt_points_check_in",
    3,
    9,
    &[
        ("tenant_id", Uuid),
        ("member_id", Text),
        ("day", Int),
        ("points", Int),
        ("bonus", Int),
        ("transaction_id", Uuid),
        ("checked_in_at", Int),
        ("made_up", Bool),
        ("price_transaction_id", Uuid),
        ("streak", Int),
    ],
);

fn check_in(tenant: TenantId, row: &CheckIn) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        (&row.member_id).into(),
        row.day.0.into(),
        row.points.into(),
        row.bonus.into(),
        row.transaction_id.0.into(),
        row.checked_in_at.into(),
        Param::Bool(row.made_up),
        row.price_transaction_id.map(|id| id.0).into(),
        row.streak.into(),
    ]
}

static TASK: Table = table(
    "mkt_points_task",
    2,
    4,
    &[
        ("tenant_id", Uuid),
        ("task_key", Text),
        ("id", Uuid),
        ("created_at", Int),
        ("version", Int),
        ("enabled", Bool),
        ("event_type", Text),
        ("definition", Text),
        ("updated_at", Int),
        ("deleted_at", Int),
    ],
);

fn task(tenant: TenantId, row: &Task) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.key.as_str().into(),
        row.id.0.into(),
        row.created_at.into(),
        row.version.into(),
        Param::Bool(row.enabled),
        row.definition.event_type.as_deref().into(),
        json(&*row.definition),
        row.updated_at.into(),
        row.deleted_at.into(),
    ]
}

static PROGRESS: Table = table(
    "mkt_user_task_progress",
    3,
    3,
    &[
        ("tenant_id", Uuid),
        ("member_id", Text),
        ("task_key", Text),
        ("period_start", Int),
        ("steps", Int),
        ("completions", Int),
        ("total_completions", Int),
        ("carried_steps", Int),
        ("carried_completions", Int),
        ("carried_total", Int),
        ("updated_at", Int),
    ],
);

fn progress(tenant: TenantId, row: &Progress) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        (&row.member_id).into(),
        row.task_key.as_str().into(),
        row.period_start.0.into(),
        row.steps.into(),
        row.completions.into(),
        row.total_completions.into(),
        row.carried.steps.into(),
        row.carried.completions.into(),
        row.carried.total_completions.into(),
        row.updated_at.into(),
    ]
}

static REPORT: Table = log(
    "mkt_user_task_completion",
    4,
    &[
        ("tenant_id", Uuid),
        ("member_id", Text),
        ("task_key", Text),
        ("completion_id", Text),
        ("period_start", Int),
        ("step", Int),
        ("target", Int),
        ("points", Int),
        ("transaction_id", Uuid),
        ("reported_at", Int),
    ],
);

fn report(tenant: TenantId, row: &Report) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        (&row.member_id).into(),
        row.task_key.as_str().into(),
        row.completion_id.as_str().into(),
        row.period_start.0.into(),
        row.step.into(),
        row.target.into(),
        row.points.into(),
        row.transaction_id.map(|id| id.0).into(),
        row.reported_at.into(),
    ]
}

static WINDOW: Table = Table {
    name: "template_window",
    columns: &[("tenant_id", Uuid), ("announced_until", Int)],
    key: 1,
    fixed: 1,
    on_conflict: Some("announced_until = excluded.announced_until"),
};

static REMINDER: Table = Table {
    name: "points_reminder",
    columns: &[("tenant_id", Uuid), ("days_before", Int), ("expires_at", Int), ("lot_id", Uuid)],
    key: 2,
    fixed: 2,
    on_conflict: Some("expires_at = excluded.expires_at, lot_id = excluded.lot_id"),
};

static BULK: Table = table(
    "bulk",
    2,
    9,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("kind", Text),
        ("template_id", Uuid),
        ("row_count", Int),
        ("chunks", Int),
        ("skipped", Int),
        ("actor_id", Uuid),
        ("created_at", Int),
        ("status", Text),
        ("next_chunk", Int),
        ("accepted", Int),
        ("refused", Int),
        ("updated_at", Int),
        ("finished_at", Int),
        ("results_dropped_at", Int),
    ],
);

fn bulk(tenant: TenantId, row: &Bulk) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.id.0.into(),
        row.kind.as_str().into(),
        row.template_id.map(|id| id.0).into(),
        row.rows.into(),
        row.chunks.into(),
        row.skipped.into(),
        row.actor.map(|actor| actor.0).into(),
        row.created_at.into(),
        row.status.as_str().into(),
        row.next_chunk.into(),
        row.accepted.into(),
        row.refused.into(),
        row.updated_at.into(),
        row.finished_at.into(),
        row.results_dropped_at.into(),
    ]
}

/// What came of a chunk; its rows are staged before ([`super::Store::stage_chunk`]).
static BULK_CHUNK: Table = table(
    "bulk_chunk",
    3,
    3,
    &[("tenant_id", Uuid), ("bulk_id", Uuid), ("number", Int), ("outcomes", Text), ("accepted", Int), ("refused", Int)],
);

fn chunk(tenant: TenantId, row: &ChunkResult) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.bulk_id.0.into(),
        row.number.into(),
        row.outcomes.as_str().into(),
        row.accepted.into(),
        row.refused.into(),
    ]
}

pub(super) static JOB: Table = table(
    "job",
    2,
    9,
    &[
        ("tenant_id", Uuid),
        ("id", Uuid),
        ("kind", Text),
        ("pool", Text),
        ("payload", Text),
        ("priority", Int),
        ("max_attempts", Int),
        ("every", Int),
        ("created_at", Int),
        ("state", Text),
        ("run_at", Int),
        ("attempts", Int),
        ("fence", Int),
        ("lease_holder", Uuid),
        ("lease_until", Int),
        ("progress", Text),
        ("last_error", Text),
        ("updated_at", Int),
        ("finished_at", Int),
    ],
);

pub(super) fn job(tenant: TenantId, row: &Job) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        row.id.0.into(),
        row.kind.as_str().into(),
        row.kind.pool().as_str().into(),
        row.payload.as_str().into(),
        row.priority.rank().into(),
        row.max_attempts.into(),
        row.every.into(),
        row.created_at.into(),
        row.state.as_str().into(),
        row.run_at.into(),
        row.attempts.into(),
        row.fence.into(),
        row.lease_holder.into(),
        row.lease_until.into(),
        row.progress.as_str().into(),
        row.last_error.as_deref().into(),
        row.updated_at.into(),
        row.finished_at.into(),
    ]
}

pub static EVENT: Table = log(
    "event",
    3,
    &[
        ("tenant_id", Uuid),
        ("tx", Int),
        ("ordinal", Int),
        ("id", Uuid),
        ("type", Text),
        ("subject_id", Uuid),
        ("member_id", Text),
        ("data", Text),
        ("actor_id", Uuid),
        ("occurred_at", Int),
        ("recorded_at", Int),
    ],
);

fn event(tenant: TenantId, tx: i64, ordinal: i64, row: &Event) -> Vec<Param<'_>> {
    vec![
        tenant.into(),
        tx.into(),
        ordinal.into(),
        row.id.0.into(),
        row.kind.as_str().into(),
        row.subject.into(),
        row.member_id.as_ref().map(MemberId::as_str).into(),
        row.data.as_str().into(),
        row.actor.map(|actor| actor.0).into(),
        row.occurred_at.into(),
        row.recorded_at.into(),
    ]
}

pub static IDEMPOTENCY: Table = log(
    "idempotency",
    2,
    &[("tenant_id", Uuid), ("key", Bytes), ("fingerprint", Bytes), ("outcome", Text), ("created_at", Int)],
);

fn idempotency<'a>(
    (tenant, key, record): &'a (TenantId, [u8; 16], &'a IdempotencyRecord),
    now: Timestamp,
) -> Vec<Param<'a>> {
    vec![
        (*tenant).into(),
        Param::Bytes(key),
        Param::Bytes(&record.fingerprint),
        record.outcome.as_str().into(),
        now.into(),
    ]
}

/// Every table, for stores that prepare their statements once.
pub static TABLES: &[&Table] = &[
    &TENANT,
    &API_KEY,
    &WEBHOOK,
    &TEMPLATE,
    &TEMPLATE_VERSION,
    &TEMPLATE_USE,
    &CODE_BATCH,
    &CODE,
    &CODE_USE,
    &EXCHANGE,
    &COUPON,
    &ACCOUNT,
    &LOT,
    &TRANSACTION,
    &HOLD,
    &REVERSAL,
    &ORDER,
    &REFUND,
    &COMPENSATION,
    &ADJUSTMENT,
    &RULES,
    &REMINDER,
    &WINDOW,
    &BULK,
    &BULK_CHUNK,
    &JOB,
    &CHECK_IN,
    &TASK,
    &PROGRESS,
    &REPORT,
    &EVENT,
    &IDEMPOTENCY,
];

/// Where the store places a batch: its events in the log, its uses in a stripe of the counters.
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    pub tx: i64,
    /// The ordinal of the batch's first event.
    pub first_ordinal: i64,
    /// Uses of a template are counted in several rows, so that lanes seldom wait for each other.
    pub stripe: i64,
    pub now: Timestamp,
}

/// Everything a batch has changed. What others may have locked comes in one order: orders, templates, codes, coupons, accounts
/// (which the batch has locked already), and last the counters of uses, which it has not.
pub fn changes<'a>(writes: &'a Writes<'a>, placement: Placement) -> Vec<Change<'a>> {
    let mut changes = Vec::with_capacity(16);
    let mut add = |table, verb, rows: Vec<Vec<Param<'a>>>| {
        if !rows.is_empty() {
            changes.push(Change { table, verb, rows });
        }
    };
    let Placement { tx, first_ordinal, stripe, now } = placement;
    let w = writes;
    add(&TENANT, Verb::Insert, w.tenant_inserts.iter().map(|row| tenant(row)).collect());
    add(&API_KEY, Verb::Insert, w.api_key_inserts.iter().map(|row| api_key(row)).collect());
    add(&API_KEY, Verb::Update, w.api_key_updates.iter().map(|row| api_key(row)).collect());
    add(&ORDER, Verb::Insert, w.order_inserts.iter().map(|(id, row)| order(*id, row)).collect());
    add(&ORDER, Verb::Update, w.order_updates.iter().map(|(id, row)| order(*id, row)).collect());
    add(&TEMPLATE, Verb::Insert, w.template_inserts.iter().map(|(id, row)| template(*id, row)).collect());
    add(&TEMPLATE, Verb::Update, w.template_updates.iter().map(|(id, row)| template(*id, row)).collect());
    add(&TEMPLATE, Verb::Delete, w.template_deletes.iter().map(|(id, row)| vec![(*id).into(), row.0.into()]).collect());
    add(&TEMPLATE_VERSION, Verb::Insert, w.template_versions.iter().map(|(id, r)| template_version(*id, r)).collect());
    add(&CODE_BATCH, Verb::Insert, w.code_batch_inserts.iter().map(|(id, row)| code_batch(*id, row)).collect());
    add(&CODE_BATCH, Verb::Update, w.code_batch_updates.iter().map(|(id, row)| code_batch(*id, row)).collect());
    add(&CODE, Verb::Insert, w.code_inserts.iter().map(|(id, row)| code(*id, row)).collect());
    add(&CODE, Verb::Update, w.code_updates.iter().map(|(id, row)| code(*id, row)).collect());
    add(&CODE_USE, Verb::Insert, w.code_use_inserts.iter().map(|(id, row)| code_use(*id, row)).collect());
    add(&COUPON, Verb::Insert, w.coupon_inserts.iter().map(|(id, row)| coupon(*id, row)).collect());
    add(&COUPON, Verb::Update, w.coupon_updates.iter().map(|(id, row)| coupon(*id, row)).collect());
    add(&ACCOUNT, Verb::Insert, w.account_inserts.iter().map(|(id, row)| account(*id, row)).collect());
    add(&ACCOUNT, Verb::Update, w.account_updates.iter().map(|(id, row)| account(*id, row)).collect());
    add(&LOT, Verb::Insert, w.lot_inserts.iter().map(|(id, member, row)| lot(*id, member, row)).collect());
    add(&LOT, Verb::Update, w.lot_updates.iter().map(|(id, member, row)| lot(*id, member, row)).collect());
    add(&TRANSACTION, Verb::Insert, w.transaction_inserts.iter().map(|(id, row)| transaction(*id, row)).collect());
    add(&EXCHANGE, Verb::Insert, w.exchange_inserts.iter().map(|(id, row)| exchange(*id, row)).collect());
    add(&HOLD, Verb::Insert, w.hold_inserts.iter().map(|(id, row)| hold(*id, row)).collect());
    add(&HOLD, Verb::Update, w.hold_updates.iter().map(|(id, row)| hold(*id, row)).collect());
    add(&REVERSAL, Verb::Insert, w.reversed.iter().map(reversal).collect());
    add(&REFUND, Verb::Insert, w.refund_inserts.iter().map(|(id, row)| refund(*id, row)).collect());
    let (new_cases, cases) = (w.compensation_inserts.iter(), w.compensation_updates.iter());
    add(&COMPENSATION, Verb::Insert, new_cases.map(|(id, row)| compensation(*id, row)).collect());
    add(&COMPENSATION, Verb::Update, cases.map(|(id, row)| compensation(*id, row)).collect());
    let (new_ones, decided) = (w.adjustment_inserts.iter(), w.adjustment_updates.iter());
    add(&ADJUSTMENT, Verb::Insert, new_ones.map(|(id, row)| adjustment(*id, row)).collect());
    add(&ADJUSTMENT, Verb::Update, decided.map(|(id, row)| adjustment(*id, row)).collect());
    add(&RULES, Verb::Insert, w.rules_inserts.iter().map(|(id, row)| rules(*id, row)).collect());
    let reminders = w.reminders.iter();
    let reminders =
        reminders.map(|(tenant, days, (at, lot))| vec![(*tenant).into(), (*days).into(), (*at).into(), lot.0.into()]);
    add(&REMINDER, Verb::Insert, reminders.collect());
    add(&WINDOW, Verb::Insert, w.windows.iter().map(|(id, until)| vec![(*id).into(), (*until).into()]).collect());
    add(&BULK, Verb::Insert, w.bulk_inserts.iter().map(|(id, row)| bulk(*id, row)).collect());
    add(&BULK, Verb::Update, w.bulk_updates.iter().map(|(id, row)| bulk(*id, row)).collect());
    add(&BULK_CHUNK, Verb::Update, w.chunk_updates.iter().map(|(id, row)| chunk(*id, row)).collect());
    add(&JOB, Verb::Insert, w.job_inserts.iter().map(|(id, row)| job(*id, row)).collect());
    add(&JOB, Verb::Update, w.job_updates.iter().map(|(id, row)| job(*id, row)).collect());
    add(&CHECK_IN, Verb::Insert, w.check_in_inserts.iter().map(|(id, row)| check_in(*id, row)).collect());
    add(&CHECK_IN, Verb::Update, w.check_in_updates.iter().map(|(id, row)| check_in(*id, row)).collect());
    add(&TASK, Verb::Insert, w.task_inserts.iter().map(|(id, row)| task(*id, row)).collect());
    add(&TASK, Verb::Update, w.task_updates.iter().map(|(id, row)| task(*id, row)).collect());
    add(&PROGRESS, Verb::Insert, w.progress_inserts.iter().map(|(id, row)| progress(*id, row)).collect());
    add(&PROGRESS, Verb::Update, w.progress_updates.iter().map(|(id, row)| progress(*id, row)).collect());
    add(&REPORT, Verb::Insert, w.report_inserts.iter().map(|(id, row)| report(*id, row)).collect());
    let events = w.event_inserts.iter().zip(first_ordinal..);
    add(&EVENT, Verb::Insert, events.map(|((id, row), ordinal)| event(*id, tx, ordinal, row)).collect());
    add(&WEBHOOK, Verb::Insert, w.webhook_inserts.iter().map(|(id, row)| webhook(*id, row)).collect());
    add(&WEBHOOK, Verb::Update, w.webhook_updates.iter().map(|(id, row)| webhook(*id, row)).collect());
    add(&WEBHOOK, Verb::Delete, w.webhook_deletes.iter().map(|(id, row)| vec![(*id).into(), row.0.into()]).collect());
    add(&IDEMPOTENCY, Verb::Insert, w.idempotency_inserts.iter().map(|row| idempotency(row, now)).collect());
    let uses = w.uses.iter().map(|(id, template, change)| use_count(*id, *template, stripe, *change));
    add(&TEMPLATE_USE, Verb::Insert, uses.collect());
    for change in &mut changes {
        let Table { key, fixed, columns, .. } = change.table;
        if change.verb == Verb::Update {
            debug_assert!(*fixed < columns.len(), "{} has nothing to update", change.table.name);
            change.rows.iter_mut().for_each(|row| drop(row.drain(*key..*fixed)));
        }
    }
    changes
}

fn use_count<'a>(tenant: TenantId, template: TemplateId, stripe: i64, change: i64) -> Vec<Param<'a>> {
    vec![tenant.into(), template.0.into(), stripe.into(), change.into()]
}

fn json<'a>(value: &impl serde::Serialize) -> Param<'a> {
    Param::Json(serde_json::to_string(value).expect("plain data has a JSON form"))
}
