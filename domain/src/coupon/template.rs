//! Coupon templates: what operators author, and how they change it.
//!
//! ```text
//!           disable               archive
//! ENABLED <---------> DISABLED ------------> ARCHIVED
//!    |      enable                              ^
//!    +------------------- archive --------------+
//! ```
//!
//! To disable is to pause: claims stop until the template is enabled again. To archive is to end: no claim, no edit, no stock,
//! no codes any more, and lists leave it out. Coupons already claimed go on through all of this. Deleting is for templates that
//! nobody has claimed from.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::Envelope;
use crate::condition::Condition;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{Ids, TemplateId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::{CapPeriod, LocalPeriod, Timestamp, WeeklyHours, Window};

/// The largest amount of money accepted, in minor units: sums of any order stay far from the range of `i64`.
pub const MAX_AMOUNT: i64 = 1_000_000_000_000;
/// The priorities a template may have are 0 to this.
pub const MAX_PRIORITY: i32 = 1_000;
pub const DEFAULT_PRIORITY: i32 = 100;
/// The largest budget of a template, in minor units.
pub const MAX_BUDGET: i64 = 1_000_000_000_000_000;
/// The largest stock of a template.
pub const MAX_STOCK: i64 = 1_000_000_000_000;

/// What a coupon gives. Percentages are in basis points (hundredths of a percent), so that 12.5 percent needs no fraction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Benefit {
    /// `amount` minor units off.
    AmountOff { amount: i64 },
    /// A part (1-9999 basis points) off, at most `max_amount` minor units.
    PercentOff { basis_points: u16, max_amount: Option<i64> },
    /// One unit of the product, or of one of its SKUs, free.
    Exchange { product_id: String, sku_id: Option<String> },
    /// The freight free, at most `max_amount` minor units of it.
    FreeShipping { max_amount: Option<i64> },
    /// Of every `buy_quantity + get_quantity` eligible units, the `get_quantity` cheapest reduced by a part (1-10000 basis
    /// points), `max_sets` times at most.
    BuyXGetY { buy_quantity: i64, get_quantity: i64, basis_points: u16, max_sets: Option<i64> },
    /// The highest step that the eligible goods reach, at most `max_amount` minor units.
    Tiered { steps: Vec<Step>, max_amount: Option<i64> },
    /// Eligible units cost `price` minor units each where they cost more; the dearest `max_quantity` of them at most.
    FixedPrice { price: i64, max_quantity: Option<i64> },
}

/// What goods that cost at least `min_amount` minor units get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub min_amount: i64,
    pub off: StepOff,
}

/// What a step takes off: minor units, or a part in basis points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOff {
    Amount(i64),
    BasisPoints(u16),
}

impl Benefit {
    /// The kind's name, as stored and as shown.
    pub fn kind(&self) -> &'static str {
        match self {
            Benefit::AmountOff { .. } => "AMOUNT_OFF",
            Benefit::PercentOff { .. } => "PERCENT_OFF",
            Benefit::Exchange { .. } => "EXCHANGE",
            Benefit::FreeShipping { .. } => "FREE_SHIPPING",
            Benefit::BuyXGetY { .. } => "BUY_X_GET_Y",
            Benefit::Tiered { .. } => "TIERED",
            Benefit::FixedPrice { .. } => "FIXED_PRICE",
        }
    }

    /// The most that one coupon can take off an order, in minor units; `None` when nothing bounds it.
    pub fn most_off(&self) -> Option<i64> {
        match self {
            Benefit::AmountOff { amount } => Some(*amount),
            Benefit::PercentOff { max_amount, .. }
            | Benefit::FreeShipping { max_amount }
            | Benefit::Tiered { max_amount, .. } => *max_amount,
            Benefit::Exchange { .. } | Benefit::BuyXGetY { .. } | Benefit::FixedPrice { .. } => None,
        }
    }

    /// Every kind's name, for filters, in the order in which equal priorities are computed: first what makes single units
    /// cheaper, then parts of what is left, then amounts, which therefore lose nothing to what comes after them.
    pub const KINDS: [&'static str; 7] =
        ["EXCHANGE", "FIXED_PRICE", "BUY_X_GET_Y", "PERCENT_OFF", "TIERED", "AMOUNT_OFF", "FREE_SHIPPING"];
}

/// Which other coupons may apply to the same order. Both sides must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Stacking {
    /// None.
    Exclusive,
    /// Those with another type of benefit.
    SameTypeExclusive,
    /// All.
    Stackable,
}

impl Stacking {
    pub const ALL: [Stacking; 3] = [Stacking::Exclusive, Stacking::SameTypeExclusive, Stacking::Stackable];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Stacking::Exclusive => "EXCLUSIVE",
            Stacking::SameTypeExclusive => "SAME_TYPE_EXCLUSIVE",
            Stacking::Stackable => "STACKABLE",
        }
    }
}

/// When coupons of a template are valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "UPPERCASE")]
pub enum Validity {
    /// The same interval for every coupon.
    Fixed { starts_at: Timestamp, ends_at: Timestamp },
    /// From `starts_after_hours` behind the claim, for `days` of 24 hours and `hours`, together at least an hour.
    Relative {
        days: u32,
        #[serde(skip_serializing_if = "is_zero", default)]
        hours: u32,
        #[serde(skip_serializing_if = "is_zero", default)]
        starts_after_hours: u32,
    },
}

impl Validity {
    /// `days` from the claim.
    pub fn days(days: u32) -> Validity {
        Validity::Relative { days, hours: 0, starts_after_hours: 0 }
    }

    /// `[from, until)` of a coupon claimed at `claimed_at`.
    pub fn of_claim(&self, claimed_at: Timestamp) -> (Timestamp, Timestamp) {
        match *self {
            Validity::Fixed { starts_at, ends_at } => (starts_at, ends_at),
            Validity::Relative { days, hours, starts_after_hours } => {
                let from = claimed_at.plus_hours(starts_after_hours);
                (from, from.plus_days(days).plus_hours(hours))
            }
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Which goods a coupon applies to: those of the products and of the categories (empty lists mean all) that are not excluded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub products: Vec<String>,
    pub categories: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub excluded_products: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub excluded_categories: Vec<String>,
}

/// Everything an operator authors. Immutable once stored: an edit makes a new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    pub name: String,
    pub description: String,
    pub benefit: Benefit,
    /// Least eligible subtotal, in minor units.
    pub min_order_amount: i64,
    /// Least number of eligible units.
    pub min_quantity: i64,
    /// What must remain to pay for the goods after all discounts, in minor units.
    pub min_pay_amount: i64,
    pub scope: Scope,
    /// Coupons of a lower priority are computed first.
    pub priority: i32,
    pub stacking: Stacking,
    /// Of coupons that bear the same name here, at most one applies to an order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stacking_group: Option<String>,
    /// Member levels that may claim and use; empty means all.
    pub member_levels: Vec<String>,
    /// When coupons can be used, on the clock of the tenant's place; empty means always.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub usable_hours: Vec<WeeklyHours>,
    /// Dates on which they cannot, in days since 1970-01-01.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub excluded_dates: Vec<i32>,
    /// What an order must fulfil beside all this.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub condition: Option<Condition>,
    pub validity: Validity,
    /// When coupons can be claimed.
    pub distribution: Window,
    pub limit_per_member: i64,
    /// Claims in a day, a week and a month of the tenant's calendar, at most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub daily_cap: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weekly_cap: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub monthly_cap: Option<i64>,
    /// What all coupons together may take off, in minor units; see the claim for what counts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget: Option<i64>,
    /// What a coupon costs in points; with a price, members get it by an exchange only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub points_price: Option<i64>,
    /// Whether a full refund gives a used coupon back. What the template says at the time of the refund counts.
    #[serde(skip_serializing_if = "is_yes", default = "yes")]
    pub returnable: bool,
    /// How long a coupon that expired before its refund lives again, in days.
    pub refund_extend_days: u32,
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_yes(answer: &bool) -> bool {
    *answer
}

impl Definition {
    /// A definition with the defaults of everything an operator may leave out.
    pub fn new(name: impl Into<String>, benefit: Benefit, validity: Validity) -> Self {
        Definition {
            name: name.into(),
            description: String::new(),
            benefit,
            min_order_amount: 0,
            min_quantity: 0,
            min_pay_amount: 0,
            scope: Scope::default(),
            priority: DEFAULT_PRIORITY,
            stacking: Stacking::SameTypeExclusive,
            stacking_group: None,
            member_levels: Vec::new(),
            usable_hours: Vec::new(),
            excluded_dates: Vec::new(),
            condition: None,
            validity,
            distribution: Window::default(),
            limit_per_member: 1,
            daily_cap: None,
            weekly_cap: None,
            monthly_cap: None,
            budget: None,
            points_price: None,
            returnable: true,
            refund_extend_days: 7,
            metadata: serde_json::Map::new(),
        }
    }

    /// Claims in a period, at most.
    pub fn cap(&self, period: CapPeriod) -> Option<i64> {
        match period {
            CapPeriod::Day => self.daily_cap,
            CapPeriod::Week => self.weekly_cap,
            CapPeriod::Month => self.monthly_cap,
        }
    }
}

/// A template as it stands: the current definition, its stock and its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    pub id: TemplateId,
    /// Grows with every change by an operator, never with a claim.
    pub version: i64,
    pub enabled: bool,
    /// `None` is unlimited, and then `remaining_stock` is `None` too.
    pub total_stock: Option<i64>,
    pub remaining_stock: Option<i64>,
    pub claimed_count: i64,
    pub used_count: i64,
    /// The most that the coupons claimed so far can take off, in minor units.
    #[serde(default)]
    pub committed_amount: i64,
    /// The latest day, week and month with a claim under a cap of theirs.
    #[serde(default)]
    pub counts: PeriodCounts,
    /// Batches of codes made for it.
    #[serde(default)]
    pub code_batch_count: i64,
    #[serde(default)]
    pub archived_at: Option<Timestamp>,
    pub definition: Arc<Definition>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// For each [`CapPeriod`] in its order.
pub type PeriodCounts = [Option<PeriodCount>; CapPeriod::ALL.len()];

/// How many claims a day, a week or a month has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodCount {
    pub bounds: LocalPeriod,
    pub claimed: i64,
    /// How many there may be: the cap, or what was claimed already when the cap was set below it.
    pub ceiling: i64,
}

impl Template {
    /// `committed_amount` after one more claim. Without a budget nothing stops it, so it may come to stand at its end.
    pub(crate) fn committed_with_one_more(&self) -> i64 {
        self.committed_amount.saturating_add(self.definition.benefit.most_off().unwrap_or(0))
    }
}

/// What an operator changes in one edit.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplatePatch {
    /// The version the operator has seen.
    pub expected_version: i64,
    pub definition: Definition,
}

pub fn create(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    definition: &Definition,
    total_stock: Option<i64>,
) -> Result<Outcome, Rejection> {
    let id = TemplateId(ids.draw());
    Ok(create_as(state, envelope, ids, id, definition, total_stock))
}

/// The same under an id that is known.
pub(super) fn create_as(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: TemplateId,
    definition: &Definition,
    total_stock: Option<i64>,
) -> Outcome {
    let template = Template {
        id,
        version: 1,
        enabled: true,
        total_stock,
        remaining_stock: total_stock,
        claimed_count: 0,
        used_count: 0,
        committed_amount: 0,
        counts: PeriodCounts::default(),
        code_batch_count: 0,
        archived_at: None,
        definition: Arc::new(definition.clone()),
        created_at: envelope.at,
        updated_at: envelope.at,
    };
    state.insert_template(envelope.tenant, template.clone());
    let data = total_stock.map_or_else(|| "{}".into(), |total| format!("{{\"total_stock\":{total}}}"));
    record(state, envelope, ids, &template, EventKind::TemplateCreated, data);
    Outcome::Template(Box::new(template))
}

pub fn update(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: TemplateId,
    patch: &TemplatePatch,
) -> Result<Outcome, Rejection> {
    let current = open_template(state, envelope, id)?;
    if current.version != patch.expected_version {
        return Err(Rejection::TemplateVersionStale { current: current.version });
    }
    if *current.definition == patch.definition {
        return Ok(Outcome::Template(Box::new(current.clone())));
    }
    if patch.definition.budget.is_some_and(|budget| budget < current.committed_amount) {
        return Err(Rejection::BudgetBelowCommitted { committed: current.committed_amount });
    }
    let mut changed = Template { definition: Arc::new(patch.definition.clone()), ..current.clone() };
    for (period, count) in CapPeriod::ALL.into_iter().zip(&mut changed.counts) {
        if let (Some(cap), Some(count)) = (patch.definition.cap(period), count) {
            count.ceiling = cap.max(count.claimed);
        }
    }
    Ok(save(state, envelope, ids, changed, EventKind::TemplateUpdated, "{}".into()))
}

pub fn set_enabled(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: TemplateId,
    enabled: bool,
) -> Result<Outcome, Rejection> {
    let current = open_template(state, envelope, id)?;
    if current.enabled == enabled {
        return Ok(Outcome::Template(Box::new(current.clone())));
    }
    let kind = if enabled { EventKind::TemplateEnabled } else { EventKind::TemplateDisabled };
    let changed = Template { enabled, ..current.clone() };
    Ok(save(state, envelope, ids, changed, kind, "{}".into()))
}

pub fn archive(state: &mut State, envelope: &Envelope, ids: &mut Ids, id: TemplateId) -> Result<Outcome, Rejection> {
    let current = state.template(envelope.tenant, id)?;
    if current.archived_at.is_some() {
        return Ok(Outcome::Template(Box::new(current.clone())));
    }
    let changed = Template { enabled: false, archived_at: Some(envelope.at), ..current.clone() };
    Ok(save(state, envelope, ids, changed, EventKind::TemplateArchived, "{}".into()))
}

/// The template, which must not be archived.
fn open_template<'a>(state: &'a State, envelope: &Envelope, id: TemplateId) -> Result<&'a Template, Rejection> {
    let template = state.template(envelope.tenant, id)?;
    if template.archived_at.is_some() { Err(Rejection::TemplateArchived) } else { Ok(template) }
}

/// Adds `change` to the stock (negative takes away, at most what is left).
pub fn change_stock(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: TemplateId,
    change: i64,
) -> Result<Outcome, Rejection> {
    let current = open_template(state, envelope, id)?;
    let (Some(total), Some(remaining)) = (current.total_stock, current.remaining_stock) else {
        return Err(Rejection::StockUnlimited);
    };
    let (total, remaining) = match (total.checked_add(change), remaining.checked_add(change)) {
        (Some(total), Some(left)) if left >= 0 && total <= MAX_STOCK => (total, left),
        _ => return Err(Rejection::StockOutOfRange { remaining, max_total: MAX_STOCK }),
    };
    let changed = Template { total_stock: Some(total), remaining_stock: Some(remaining), ..current.clone() };
    let data = format!("{{\"change\":{change},\"remaining_stock\":{remaining}}}");
    Ok(save(state, envelope, ids, changed, EventKind::TemplateStockChanged, data))
}

pub fn delete(state: &mut State, envelope: &Envelope, ids: &mut Ids, id: TemplateId) -> Result<Outcome, Rejection> {
    let current = state.template(envelope.tenant, id)?.clone();
    if current.claimed_count > 0 {
        return Err(Rejection::TemplateInUse { claimed: current.claimed_count });
    }
    if current.code_batch_count > 0 {
        return Err(Rejection::TemplateHasCodes { batches: current.code_batch_count });
    }
    // Imported again, it would have the same id and the same versions with other definitions; a version never changes.
    if !current.id.is_drawn() {
        return Err(Rejection::TemplateImported);
    }
    state.delete_template(envelope.tenant, id);
    record(state, envelope, ids, &current, EventKind::TemplateDeleted, "{}".into());
    Ok(Outcome::Deleted)
}

fn save(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    changed: Template,
    kind: EventKind,
    data: String,
) -> Outcome {
    let next = Template { version: changed.version + 1, updated_at: envelope.at, ..changed };
    state.save_template_version(envelope.tenant, next.clone());
    record(state, envelope, ids, &next, kind, data);
    Outcome::Template(Box::new(next))
}

fn record(state: &mut State, envelope: &Envelope, ids: &mut Ids, template: &Template, kind: EventKind, data: String) {
    state.record_event(envelope, ids, envelope.at, kind, template.id.0, None, data);
}
