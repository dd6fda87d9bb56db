//! Coupon templates: authored and edited by operators, read by services as well.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use scrip_domain::coupon::{
    Benefit, DEFAULT_PRIORITY, Definition, MAX_AMOUNT, MAX_BUDGET, MAX_PRIORITY, MAX_STOCK, Scope, Stacking, Step,
    StepOff, TemplatePatch, Validity,
};
use scrip_domain::points::MAX_POINTS;
use scrip_domain::pricing::MAX_QUANTITY;
use scrip_domain::time::{Weekday, WeeklyHours, Window};
use scrip_domain::{Command, Rejection, TemplateId, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object as ObjectSchema, Schema, Type};

use super::AppState;
use super::answer::{self, etag};
use super::auth::{Operator, Service};
use super::consistency::{ConsistencyToken, Reads};
use super::extract::{Checked, Cursor, InPath, Input, NoOptions, Object, Parameters, parse_value};
use super::fields::FieldErrors;
use super::percent::Percent;
use super::problem::{Code, Problem};
use super::schema::{self, EditProblems, IdempotencyKey, PageQuery, Problems};
use super::time::{LocalDate, Time, TimeOfDay};
use super::views::{BenefitView, CouponTemplatePage, DefinitionView, HoursView, Page, TemplateView, ValidityView};
use crate::clock;

const MAX_DAYS: i64 = 3_650;
const MAX_HOURS_OF_VALIDITY: i64 = 24 * MAX_DAYS;
const MAX_PER_MEMBER: i64 = 1_000_000;
const MAX_METADATA_BYTES: usize = 4_096;
const AMOUNTS: RangeInclusive<i64> = 0..=MAX_AMOUNT;
const POSITIVE_AMOUNTS: RangeInclusive<i64> = 1..=MAX_AMOUNT;
const QUANTITIES: RangeInclusive<i64> = 1..=MAX_QUANTITY;
/// Of units in one set of BUY_X_GET_Y.
const SET_QUANTITIES: RangeInclusive<i64> = 1..=1_000;
/// In basis points.
const PARTS: RangeInclusive<i64> = 1..=9_999;
const PARTS_OR_ALL: RangeInclusive<i64> = 1..=10_000;
const MAX_STEPS: usize = 20;
const MAX_HOURS: usize = 20;
const MAX_DATES: usize = 400;

/// How an operator describes a template.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateRequest {
    #[schema(value_type = String, min_length = 1, max_length = 100)]
    name: Option<String>,
    #[schema(max_length = 500)]
    description: Option<String>,
    #[schema(value_type = BenefitView<'static>)]
    benefit: Option<Object<BenefitRequest>>,
    /// Least eligible subtotal, in minor units. Default: 0.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    min_order_amount: Option<i64>,
    /// Least number of eligible units. Default: 0.
    #[schema(minimum = 0, maximum = 1_000_000)]
    min_quantity: Option<i64>,
    /// What must remain to pay for the goods after all discounts, in minor units. Default: 0.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    min_pay_amount: Option<i64>,
    /// Default: all goods.
    #[schema(value_type = Option<ScopeRequest>)]
    scope: Option<Object<ScopeRequest>>,
    /// Coupons of a lower priority are computed first. Default: 100.
    #[schema(minimum = 0, maximum = 1000)]
    priority: Option<i64>,
    /// Which other coupons may apply to the same order; both sides must agree. Default: SAME_TYPE_EXCLUSIVE.
    #[schema(value_type = Option<schema::Stacking>)]
    stacking: Option<Stacking>,
    /// Of coupons whose templates bear the same name here, at most one applies to an order. Default: none.
    #[schema(min_length = 1, max_length = 64)]
    stacking_group: Option<String>,
    /// Member levels that may claim and use. Default: all.
    #[schema(max_items = 1000)]
    member_levels: Option<Vec<String>>,
    /// When coupons can be used, on the clock of the tenant's place. Default: always.
    #[schema(value_type = Option<Vec<HoursView>>, max_items = 20)]
    usable_hours: Option<Vec<Object<HoursRequest>>>,
    /// Dates on which they cannot, where the tenant is. Default: none.
    #[schema(value_type = Option<Vec<schema::LocalDate>>, max_items = 400)]
    excluded_dates: Option<Vec<LocalDate>>,
    /// A CEL expression over order, member and eligible that must hold, like `order.amount > 10000`. Default: none.
    #[schema(max_length = 500)]
    condition: Option<String>,
    #[schema(value_type = ValidityView)]
    validity: Option<Object<ValidityRequest>>,
    /// When coupons can be claimed. Default: always.
    #[schema(value_type = Option<WindowRequest>)]
    distribution: Option<Object<WindowRequest>>,
    /// Null or missing is unlimited.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    total_stock: Option<i64>,
    /// Default: 1.
    #[schema(minimum = 1, maximum = 1_000_000)]
    limit_per_member: Option<i64>,
    /// Claims in a day of the tenant's calendar, at most. Default: no cap.
    #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
    daily_cap: Option<i64>,
    /// Claims in a week, which begins on Monday. Default: no cap.
    #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
    weekly_cap: Option<i64>,
    /// Claims in a month. Default: no cap.
    #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
    monthly_cap: Option<i64>,
    /// What all coupons together may take off, in minor units: the most that each can, added up as they are claimed. Needs a
    /// benefit with a bound. Default: no budget.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    budget: Option<i64>,
    /// What a coupon costs in points. With a price, members get it by an exchange (`POST .../exchanges`), not by a claim; operators
    /// still give it away by distributions and codes. Default: not for points.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points_price: Option<i64>,
    /// Whether a full refund gives a used coupon back; what the template says at the time of the refund counts. Default:
    /// true.
    returnable: Option<bool>,
    /// How long a coupon that expired before its refund lives again. Default: 7.
    #[schema(minimum = 0, maximum = 3650)]
    refund_extend_days: Option<i64>,
    #[schema(value_type = Option<schema::Metadata>)]
    metadata: Option<Map<String, Value>>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

/// Every kind's fields; which belong together is said by `type`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenefitRequest {
    r#type: Option<BenefitKind>,
    amount: Option<i64>,
    percent_off: Option<Percent>,
    max_amount: Option<i64>,
    product_id: Option<String>,
    sku_id: Option<String>,
    buy_quantity: Option<i64>,
    get_quantity: Option<i64>,
    max_sets: Option<i64>,
    steps: Option<Vec<Object<StepRequest>>>,
    price: Option<i64>,
    max_quantity: Option<i64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum BenefitKind {
    AmountOff,
    PercentOff,
    Exchange,
    FreeShipping,
    #[serde(rename = "BUY_X_GET_Y")]
    BuyXGetY,
    Tiered,
    FixedPrice,
}

impl BenefitKind {
    fn fields(self) -> &'static [&'static str] {
        match self {
            BenefitKind::AmountOff => &["benefit.amount"],
            BenefitKind::PercentOff => &["benefit.percent_off", "benefit.max_amount"],
            BenefitKind::Exchange => &["benefit.product_id", "benefit.sku_id"],
            BenefitKind::FreeShipping => &["benefit.max_amount"],
            BenefitKind::BuyXGetY => {
                &["benefit.buy_quantity", "benefit.get_quantity", "benefit.percent_off", "benefit.max_sets"]
            }
            BenefitKind::Tiered => &["benefit.steps", "benefit.max_amount"],
            BenefitKind::FixedPrice => &["benefit.price", "benefit.max_quantity"],
        }
    }
}

/// What goods from `min_amount` on get: exactly one of `amount` and `percent_off`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRequest {
    min_amount: Option<i64>,
    amount: Option<i64>,
    percent_off: Option<Percent>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeRequest {
    #[schema(max_items = 1000)]
    products: Option<Vec<String>>,
    #[schema(max_items = 1000)]
    categories: Option<Vec<String>>,
    #[schema(max_items = 1000)]
    excluded_products: Option<Vec<String>>,
    #[schema(max_items = 1000)]
    excluded_categories: Option<Vec<String>>,
}

/// From a time of day up to, not including, another, on these days of the week.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoursRequest {
    weekdays: Option<Vec<Weekday>>,
    from: Option<TimeOfDay>,
    to: Option<TimeOfDay>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidityRequest {
    r#type: Option<ValidityKind>,
    starts_at: Option<Time>,
    ends_at: Option<Time>,
    days: Option<i64>,
    hours: Option<i64>,
    starts_after_hours: Option<i64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ValidityKind {
    Fixed,
    Relative,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowRequest {
    starts_at: Option<Time>,
    ends_at: Option<Time>,
}

impl WindowRequest {
    pub fn read(&self) -> Window {
        Window { starts_at: self.starts_at.map(|at| at.0), ends_at: self.ends_at.map(|at| at.0) }
    }
}

/// A definition that keeps all limits, and what stands beside it.
pub struct Authored {
    definition: Definition,
    total_stock: Option<i64>,
    effective_at: Option<Timestamp>,
}

impl Checked for TemplateRequest {
    type Value = Authored;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Authored> {
        let name = errors.required("name", self.name);
        errors.optional_text("name", name.as_deref(), 1..=100);
        let description = self.description.unwrap_or_default();
        errors.text("description", &description, 0..=500);
        let benefit = errors.required("benefit", self.benefit).and_then(|benefit| benefit.0.check(errors));
        let validity = errors.required("validity", self.validity).and_then(|validity| validity.0.check(errors));
        let scope = self.scope.unwrap_or_default().0;
        let scope = Scope {
            products: scope.products.unwrap_or_default(),
            categories: scope.categories.unwrap_or_default(),
            excluded_products: scope.excluded_products.unwrap_or_default(),
            excluded_categories: scope.excluded_categories.unwrap_or_default(),
        };
        errors.names("scope.products", &scope.products);
        errors.names("scope.categories", &scope.categories);
        errors.names("scope.excluded_products", &scope.excluded_products);
        errors.names("scope.excluded_categories", &scope.excluded_categories);
        let priority = self.priority.unwrap_or(DEFAULT_PRIORITY.into());
        let priority = errors.within("priority", priority, 0..=MAX_PRIORITY.into());
        errors.optional_text("stacking_group", self.stacking_group.as_deref(), 1..=64);
        let member_levels = self.member_levels.unwrap_or_default();
        errors.names("member_levels", &member_levels);
        let usable_hours = check_hours(errors, self.usable_hours.unwrap_or_default());
        let mut excluded_dates: Vec<i32> =
            self.excluded_dates.unwrap_or_default().into_iter().map(|date| date.0).collect();
        excluded_dates.sort_unstable();
        excluded_dates.dedup();
        if excluded_dates.len() > MAX_DATES {
            let message = format!("has {} entries", excluded_dates.len());
            errors.add("excluded_dates", message, format!("Send at most {MAX_DATES}."));
        }
        let condition = self.condition.as_deref().and_then(|source| errors.condition("condition", source));
        let distribution = self.distribution.unwrap_or_default().0.read();
        if let (Some(start), Some(end)) = (distribution.starts_at, distribution.ends_at) {
            check_order(errors, "distribution.ends_at", start, end);
        }
        let metadata = self.metadata.unwrap_or_default();
        check_metadata(errors, &metadata);
        let total_stock = self.total_stock.map(|stock| errors.within("total_stock", stock, 0..=MAX_STOCK));
        let min_order_amount = errors.within("min_order_amount", self.min_order_amount.unwrap_or(0), AMOUNTS);
        let min_quantity = errors.within("min_quantity", self.min_quantity.unwrap_or(0), 0..=MAX_QUANTITY);
        let min_pay_amount = errors.within("min_pay_amount", self.min_pay_amount.unwrap_or(0), AMOUNTS);
        let limit = errors.within("limit_per_member", self.limit_per_member.unwrap_or(1), 1..=MAX_PER_MEMBER);
        for (field, cap) in
            [("daily_cap", self.daily_cap), ("weekly_cap", self.weekly_cap), ("monthly_cap", self.monthly_cap)]
        {
            if let Some(cap) = cap {
                errors.within(field, cap, 1..=MAX_STOCK);
            }
        }
        if let Some(budget) = self.budget {
            errors.within("budget", budget, 1..=MAX_BUDGET);
            if let Some(benefit) = benefit.as_ref().filter(|benefit| benefit.most_off().is_none()) {
                let message = format!("cannot be kept: nothing bounds what a {} takes off", benefit.kind());
                errors.add("budget", message, "Give the benefit a `max_amount`, or leave the budget out.");
            }
        }
        if let Some(price) = self.points_price {
            errors.within("points_price", price, 1..=MAX_POINTS);
        }
        let extend_days = errors.within("refund_extend_days", self.refund_extend_days.unwrap_or(7), 0..=MAX_DAYS);
        let effective_at = errors.effective_at(self.effective_at, now);
        let definition = Definition {
            name: name?,
            description,
            benefit: benefit?,
            min_order_amount: min_order_amount?,
            min_quantity: min_quantity?,
            min_pay_amount: min_pay_amount?,
            scope,
            priority: i32::try_from(priority?).ok()?,
            stacking: self.stacking.unwrap_or(Stacking::SameTypeExclusive),
            stacking_group: self.stacking_group,
            member_levels,
            usable_hours,
            excluded_dates,
            condition,
            validity: validity?,
            distribution,
            limit_per_member: limit?,
            daily_cap: self.daily_cap,
            weekly_cap: self.weekly_cap,
            monthly_cap: self.monthly_cap,
            budget: self.budget,
            points_price: self.points_price,
            returnable: self.returnable.unwrap_or(true),
            refund_extend_days: u32::try_from(extend_days?).ok()?,
            metadata,
        };
        let total_stock = match total_stock {
            Some(checked) => Some(checked?),
            None => None,
        };
        Some(Authored { definition, total_stock, effective_at })
    }
}

fn check_hours(errors: &mut FieldErrors, hours: Vec<Object<HoursRequest>>) -> Vec<WeeklyHours> {
    if hours.len() > MAX_HOURS {
        let message = format!("has {} entries", hours.len());
        errors.add("usable_hours", message, format!("Send at most {MAX_HOURS}."));
    }
    let mut checked = Vec::with_capacity(hours.len());
    for (index, Object(hours)) in hours.into_iter().enumerate() {
        let field = |name: &str| format!("usable_hours[{index}].{name}");
        let (from, to) = (errors.required(field("from"), hours.from), errors.required(field("to"), hours.to));
        let (Some(from), Some(to)) = (from, to) else { continue };
        if from.0 >= to.0 {
            let remedy = "Send a time after `from`, up to 24:00; hours over midnight are two entries.";
            errors.add(field("to"), "is not after the start", remedy);
        }
        let mut weekdays = hours.weekdays.unwrap_or_default();
        weekdays.sort_unstable();
        weekdays.dedup();
        checked.push(WeeklyHours { weekdays, from_minute: from.0, to_minute: to.0 });
    }
    checked
}

impl BenefitRequest {
    fn check(self, errors: &mut FieldErrors) -> Option<Benefit> {
        let kind = errors.required("benefit.type", self.r#type)?;
        let given = [
            ("benefit.amount", self.amount.is_some()),
            ("benefit.percent_off", self.percent_off.is_some()),
            ("benefit.max_amount", self.max_amount.is_some()),
            ("benefit.product_id", self.product_id.is_some()),
            ("benefit.sku_id", self.sku_id.is_some()),
            ("benefit.buy_quantity", self.buy_quantity.is_some()),
            ("benefit.get_quantity", self.get_quantity.is_some()),
            ("benefit.max_sets", self.max_sets.is_some()),
            ("benefit.steps", self.steps.is_some()),
            ("benefit.price", self.price.is_some()),
            ("benefit.max_quantity", self.max_quantity.is_some()),
        ];
        refuse_foreign(errors, given.iter().filter(|(field, _)| !kind.fields().contains(field)));
        if let (true, Some(most)) = (kind.fields().contains(&"benefit.max_amount"), self.max_amount) {
            errors.within("benefit.max_amount", most, POSITIVE_AMOUNTS);
        }
        let max_amount = self.max_amount;
        match kind {
            BenefitKind::AmountOff => {
                Some(Benefit::AmountOff { amount: errors.integer("benefit.amount", self.amount, POSITIVE_AMOUNTS)? })
            }
            BenefitKind::PercentOff => {
                let percent_off = errors.required("benefit.percent_off", self.percent_off)?;
                let basis_points = errors.percent("benefit.percent_off", percent_off, PARTS)?;
                Some(Benefit::PercentOff { basis_points, max_amount })
            }
            BenefitKind::Exchange => {
                let product_id = errors.required("benefit.product_id", self.product_id);
                errors.optional_text("benefit.product_id", product_id.as_deref(), 1..=64);
                errors.optional_text("benefit.sku_id", self.sku_id.as_deref(), 1..=64);
                Some(Benefit::Exchange { product_id: product_id?, sku_id: self.sku_id })
            }
            BenefitKind::FreeShipping => Some(Benefit::FreeShipping { max_amount }),
            BenefitKind::BuyXGetY => {
                let buy_quantity = errors.integer("benefit.buy_quantity", self.buy_quantity, SET_QUANTITIES);
                let get_quantity = errors.integer("benefit.get_quantity", self.get_quantity, SET_QUANTITIES);
                let percent_off = self.percent_off.unwrap_or(Percent(10_000));
                let basis_points = errors.percent("benefit.percent_off", percent_off, PARTS_OR_ALL);
                if let Some(most) = self.max_sets {
                    errors.within("benefit.max_sets", most, QUANTITIES);
                }
                Some(Benefit::BuyXGetY {
                    buy_quantity: buy_quantity?,
                    get_quantity: get_quantity?,
                    basis_points: basis_points?,
                    max_sets: self.max_sets,
                })
            }
            BenefitKind::Tiered => {
                let steps = errors.required("benefit.steps", self.steps)?;
                Some(Benefit::Tiered { steps: check_steps(errors, steps)?, max_amount })
            }
            BenefitKind::FixedPrice => {
                let price = errors.integer("benefit.price", self.price, AMOUNTS);
                if let Some(most) = self.max_quantity {
                    errors.within("benefit.max_quantity", most, QUANTITIES);
                }
                Some(Benefit::FixedPrice { price: price?, max_quantity: self.max_quantity })
            }
        }
    }
}

fn check_steps(errors: &mut FieldErrors, steps: Vec<Object<StepRequest>>) -> Option<Vec<Step>> {
    if steps.is_empty() || steps.len() > MAX_STEPS {
        let message = format!("has {} entries", steps.len());
        errors.add("benefit.steps", message, format!("Send 1 to {MAX_STEPS} steps."));
        return None;
    }
    let mut checked: Vec<Step> = Vec::with_capacity(steps.len());
    for (index, Object(step)) in steps.iter().enumerate() {
        let field = |name: &str| format!("benefit.steps[{index}].{name}");
        let min_amount = errors.integer(field("min_amount"), step.min_amount, AMOUNTS);
        let off = match (step.amount, step.percent_off) {
            (Some(amount), None) => errors.within(field("amount"), amount, POSITIVE_AMOUNTS).map(StepOff::Amount),
            (None, Some(percent)) => {
                errors.percent(field("percent_off"), percent, PARTS_OR_ALL).map(StepOff::BasisPoints)
            }
            _ => {
                let remedy = "Send exactly one of amount and percent_off.";
                errors.add(format!("benefit.steps[{index}]"), "does not say what it takes off", remedy);
                None
            }
        };
        let (Some(min_amount), Some(off)) = (min_amount, off) else { continue };
        if let Some(before) = checked.last().filter(|before| before.min_amount >= min_amount) {
            let remedy = format!("Send steps from low to high: more than {} here.", before.min_amount);
            errors.add(field("min_amount"), format!("is {min_amount}"), remedy);
        }
        checked.push(Step { min_amount, off });
    }
    Some(checked)
}

impl ValidityRequest {
    fn check(self, errors: &mut FieldErrors) -> Option<Validity> {
        match errors.required("validity.type", self.r#type)? {
            ValidityKind::Fixed => {
                let lengths = [
                    ("validity.days", self.days.is_some()),
                    ("validity.hours", self.hours.is_some()),
                    ("validity.starts_after_hours", self.starts_after_hours.is_some()),
                ];
                refuse_foreign(errors, &lengths);
                let starts_at = errors.required("validity.starts_at", self.starts_at);
                let ends_at = errors.required("validity.ends_at", self.ends_at);
                let (starts_at, ends_at) = (starts_at?.0, ends_at?.0);
                check_order(errors, "validity.ends_at", starts_at, ends_at);
                Some(Validity::Fixed { starts_at, ends_at })
            }
            ValidityKind::Relative => {
                let times =
                    [("validity.starts_at", self.starts_at.is_some()), ("validity.ends_at", self.ends_at.is_some())];
                refuse_foreign(errors, &times);
                if self.days.is_none() && self.hours.is_none() {
                    errors.add("validity.days", "is missing, and so is hours", "Send days, hours or both.");
                    return None;
                }
                let days = errors.within("validity.days", self.days.unwrap_or(0), 0..=MAX_DAYS);
                let hours = errors.within("validity.hours", self.hours.unwrap_or(0), 0..=MAX_HOURS_OF_VALIDITY);
                let delay = self.starts_after_hours.unwrap_or(0);
                let delay = errors.within("validity.starts_after_hours", delay, 0..=MAX_HOURS_OF_VALIDITY);
                let (days, hours, delay) = (days?, hours?, delay?);
                if days == 0 && hours == 0 {
                    errors.add("validity.days", "is 0, and so is hours", "Send at least one hour or day.");
                    return None;
                }
                Some(Validity::Relative {
                    days: u32::try_from(days).ok()?,
                    hours: u32::try_from(hours).ok()?,
                    starts_after_hours: u32::try_from(delay).ok()?,
                })
            }
        }
    }
}

fn refuse_foreign<'a>(errors: &mut FieldErrors, fields: impl IntoIterator<Item = &'a (&'static str, bool)>) {
    for (field, _) in fields.into_iter().filter(|(_, given)| *given) {
        errors.add(*field, "does not belong to this type", "Leave it out; in an edit, send null for it.");
    }
}

pub fn check_order(errors: &mut FieldErrors, field: &'static str, start: Timestamp, end: Timestamp) {
    if start >= end {
        errors.add(field, "is not after the start", format!("Send a time after {}.", Time(start)));
    }
}

fn check_metadata(errors: &mut FieldErrors, metadata: &Map<String, Value>) {
    // A serializer that only counts would be longer than the object, which is small.
    let bytes = serde_json::to_vec(metadata).map_or(usize::MAX, |text| text.len());
    if bytes > MAX_METADATA_BYTES {
        let message = format!("has {bytes} bytes as JSON");
        errors.add("metadata", message, format!("Send at most {MAX_METADATA_BYTES}."));
    }
}

/// A JSON merge patch (RFC 7396) over what [`TemplateRequest`] describes.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct TemplateEdit(Map<String, Value>);

impl utoipa::PartialSchema for TemplateEdit {
    fn schema() -> RefOr<Schema> {
        let mut schema = <TemplateRequest as utoipa::PartialSchema>::schema();
        if let RefOr::T(Schema::Object(edit)) = &mut schema {
            edit.description = Some("A JSON merge patch (RFC 7396): null restores the default.".into());
            edit.required.clear();
            edit.properties.retain(|name, _| EDITABLE.contains(&name.as_str()));
            // Parts of these are enough.
            for name in ["benefit", "validity"] {
                edit.properties.insert(name.into(), ObjectSchema::with_type(Type::Object).into());
            }
        }
        schema
    }
}

impl ToSchema for TemplateEdit {}

const EDITABLE: &[&str] = &[
    "name",
    "description",
    "benefit",
    "min_order_amount",
    "min_quantity",
    "min_pay_amount",
    "scope",
    "priority",
    "stacking",
    "stacking_group",
    "member_levels",
    "usable_hours",
    "excluded_dates",
    "condition",
    "validity",
    "distribution",
    "limit_per_member",
    "daily_cap",
    "weekly_cap",
    "monthly_cap",
    "budget",
    "points_price",
    "returnable",
    "refund_extend_days",
    "metadata",
];

impl Checked for TemplateEdit {
    type Value = Map<String, Value>;

    fn check(self, _: &mut FieldErrors, _: Timestamp) -> Option<Self::Value> {
        // What is wrong with an edit shows only when it is merged.
        Some(self.0)
    }
}

/// Takes out what an edit cannot change, and says what can.
fn refuse_uneditable(edit: &mut Map<String, Value>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    edit.retain(|name, _| {
        let (message, remedy) = match name.as_str() {
            name if EDITABLE.contains(&name) => return true,
            "total_stock" | "remaining_stock" => {
                ("cannot be edited", "POST /v1/coupon-templates/{template_id}/stock adds or takes away.".into())
            }
            "enabled" => ("cannot be edited", "POST /v1/coupon-templates/{template_id}/enable or /disable.".into()),
            _ => ("is not a known field", format!("Leave it out. Known are: {}.", EDITABLE.join(", "))),
        };
        errors.add(name.clone(), message, remedy);
        false
    });
    errors
}

/// RFC 7396: objects are merged, null removes, everything else replaces.
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// The version that an `If-Match` names; `None` for a tag that no version of ours has.
pub fn version_of(tag: &str) -> Option<i64> {
    tag.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// How much stock to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StockRequest {
    /// Negative takes stock away, at most what is left.
    #[schema(value_type = i64, example = 500)]
    change: Option<i64>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for StockRequest {
    type Value = (i64, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let change = errors.integer("change", self.change, -MAX_STOCK..=MAX_STOCK);
        if change == Some(0) {
            errors.add("change", "is 0", "Send how many to add, or less than 0 to take away.");
        }
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((change?, effective_at))
    }
}

/// Create a coupon template
#[utoipa::path(post, path = "/v1/coupon-templates", tag = "Coupon templates", security(("key" = ["OPERATOR"])),
    params(IdempotencyKey), request_body = TemplateRequest,
    responses((status = 201, description = "Created", body = TemplateView<'static>, headers(("ETag" = String))), Problems))]
pub async fn create_coupon_template(
    State(app): State<AppState>,
    Operator(caller): Operator,
    input: Input<TemplateRequest>,
) -> Result<Response, Problem> {
    let Authored { definition, total_stock, effective_at } = input.value;
    let command = Command::CreateTemplate { definition: Box::new(definition), total_stock };
    let envelope = caller.envelope(command, effective_at, input.idempotency, input.now)?;
    answer::run(&app, envelope, StatusCode::CREATED).await
}

/// List coupon templates, newest first
#[utoipa::path(get, path = "/v1/coupon-templates", tag = "Coupon templates", security(("key" = ["SERVICE"])),
    params(("enabled" = Option<bool>, Query), ("type" = Option<schema::BenefitType>, Query),
        ("archived" = Option<bool>, Query, description = "true lists the archived ones, which are left out otherwise."),
        PageQuery, ConsistencyToken),
    responses((status = 200, description = "A page", body = CouponTemplatePage), Problems))]
pub async fn list_coupon_templates(Service(caller): Service, reads: Reads, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let enabled = parameters.take("enabled", "true or false", |text| text.parse().ok());
    let kind = parameters.take("type", &format!("one of {}", Benefit::KINDS.join(", ")), |text| {
        Benefit::KINDS.into_iter().find(|kind| *kind == text)
    });
    let archived = parameters.take("archived", "true or false", |text| text.parse().ok()).unwrap_or(false);
    let page = parameters.page();
    parameters.finish()?;
    let (tenant, limit) = (caller.tenant(), page.limit + 1);
    let mut found = reads.list_templates(tenant, enabled, kind, Some(archived), page.cursor, limit).await?;
    let next_cursor = super::cut(&mut found, page.limit, |template| template.id.write());
    answer::ok(&Page { data: found.iter().map(TemplateView::from).collect(), next_cursor })
}

/// Read a coupon template
///
/// The ETag is the version: a 304 says that the definition is unchanged, not the counters. Operators, and whoever brings a
/// consistency token, see the store; others what it was a moment ago.
#[utoipa::path(get, path = "/v1/coupon-templates/{template_id}", tag = "Coupon templates",
    security(("key" = ["SERVICE"])),
    params(("template_id" = schema::TemplateId, Path), ("If-None-Match" = Option<String>, Header), ConsistencyToken),
    responses((status = 200, description = "The template", body = TemplateView<'static>, headers(("ETag" = String))),
        (status = 304, description = "Unchanged"), Problems))]
pub async fn get_coupon_template(
    State(app): State<AppState>,
    Service(caller): Service,
    reads: Reads,
    InPath(template_id): InPath<TemplateId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let found = if reads.may_be_recent(&caller) {
        app.store.recent_template(tenant, template_id).await?
    } else {
        reads.find_template(tenant, template_id).await?.map(Arc::new)
    };
    let template = found.ok_or(Problem::new(Code::TemplateNotFound))?;
    let tag = etag(template.version);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let is_known = known.is_some_and(|tags| {
        tags.split(',').map(|known| known.trim().trim_start_matches("W/")).any(|known| known == "*" || tag == known)
    });
    let mut response =
        if is_known { StatusCode::NOT_MODIFIED.into_response() } else { answer::ok(&TemplateView::from(&*template))? };
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// Edit a coupon template
///
/// A JSON merge patch (RFC 7396): what is sent replaces, null restores the default, the rest stays. An edit makes a new
/// version; coupons already claimed keep theirs.
#[utoipa::path(patch, path = "/v1/coupon-templates/{template_id}", tag = "Coupon templates",
    security(("key" = ["OPERATOR"])),
    params(("template_id" = schema::TemplateId, Path), ("If-Match" = String, Header, description = "The ETag as read.")),
    request_body(content((TemplateEdit = "application/merge-patch+json"), (TemplateEdit = "application/json"))),
    responses((status = 200, description = "Edited", body = TemplateView<'static>, headers(("ETag" = String))),
        Problems, EditProblems))]
pub async fn update_coupon_template(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    headers: HeaderMap,
    input: Input<TemplateEdit>,
) -> Result<Response, Problem> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Err(Problem::new(Code::PreconditionRequired)) };
    let found = app.store.find_template(caller.tenant(), template_id).await?;
    let template = found.ok_or(Problem::new(Code::TemplateNotFound))?;
    let expected_version = tag.to_str().ok().and_then(version_of);
    let Some(expected_version) = expected_version.filter(|version| *version == template.version) else {
        return Err(Rejection::TemplateVersionStale { current: template.version }.into());
    };
    let mut value = serde_json::to_value(DefinitionView::from(&*template.definition)).map_err(Problem::internal)?;
    let mut edit = input.value;
    let errors = refuse_uneditable(&mut edit);
    merge(&mut value, Value::Object(edit));
    let Authored { definition, .. } = parse_value::<TemplateRequest>(value, errors, input.now)?;
    let patch = Box::new(TemplatePatch { expected_version, definition });
    let command = Command::UpdateTemplate { template_id, patch };
    // If-Match makes a retry harmless; keys are for POST.
    answer::run(&app, caller.envelope(command, None, None, input.now)?, StatusCode::OK).await
}

/// Delete a coupon template nobody has claimed from
#[utoipa::path(delete, path = "/v1/coupon-templates/{template_id}", tag = "Coupon templates",
    security(("key" = ["OPERATOR"])), params(("template_id" = schema::TemplateId, Path)),
    responses((status = 204, description = "Deleted"), Problems))]
pub async fn delete_coupon_template(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
) -> Result<Response, Problem> {
    let envelope = caller.envelope(Command::DeleteTemplate(template_id), None, None, clock::now())?;
    answer::run(&app, envelope, StatusCode::NO_CONTENT).await
}

/// Let coupons of the template be claimed again
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/enable", tag = "Coupon templates",
    security(("key" = ["OPERATOR"])), params(("template_id" = schema::TemplateId, Path), IdempotencyKey),
    request_body = Option<NoOptions>,
    responses((status = 200, description = "Enabled", body = TemplateView<'static>, headers(("ETag" = String))), Problems))]
pub async fn enable_coupon_template(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let command = Command::EnableTemplate { template_id, enabled: true };
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Stop the claims of a template
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/disable", tag = "Coupon templates",
    security(("key" = ["OPERATOR"])), params(("template_id" = schema::TemplateId, Path), IdempotencyKey),
    request_body = Option<NoOptions>,
    responses((status = 200, description = "Disabled", body = TemplateView<'static>, headers(("ETag" = String))), Problems))]
pub async fn disable_coupon_template(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let command = Command::EnableTemplate { template_id, enabled: false };
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Archive a coupon template
///
/// For good: it is disabled, cannot be edited any more, and lists leave it out. Coupons already claimed go on.
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/archive", tag = "Coupon templates",
    security(("key" = ["OPERATOR"])), params(("template_id" = schema::TemplateId, Path), IdempotencyKey),
    request_body = Option<NoOptions>,
    responses((status = 200, description = "Archived", body = TemplateView<'static>, headers(("ETag" = String))), Problems))]
pub async fn archive_coupon_template(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let command = Command::ArchiveTemplate(template_id);
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// What the copy of a template differs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneRequest {
    /// Default: that of the original.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Default: that of the original, where it has one.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    total_stock: Option<i64>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for CloneRequest {
    type Value = (Option<String>, Option<i64>, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        errors.optional_text("name", self.name.as_deref(), 1..=100);
        if let Some(stock) = self.total_stock {
            errors.within("total_stock", stock, 0..=MAX_STOCK);
        }
        Some((self.name, self.total_stock, errors.effective_at(self.effective_at, now)))
    }
}

/// Make a new coupon template of this one
///
/// With the current definition, archived or not; nothing of what was claimed, used or counted.
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/clone", tag = "Coupon templates",
    security(("key" = ["OPERATOR"])), params(("template_id" = schema::TemplateId, Path), IdempotencyKey),
    request_body = Option<CloneRequest>,
    responses((status = 201, description = "Created", body = TemplateView<'static>, headers(("ETag" = String))), Problems))]
pub async fn clone_coupon_template(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    input: Input<CloneRequest>,
) -> Result<Response, Problem> {
    let (name, total_stock, effective_at) = input.value;
    let found = app.store.find_template(caller.tenant(), template_id).await?;
    let original = found.ok_or(Problem::new(Code::TemplateNotFound))?;
    let definition =
        Definition { name: name.unwrap_or_else(|| original.definition.name.clone()), ..(*original.definition).clone() };
    let total_stock = total_stock.or(original.total_stock);
    let command = Command::CreateTemplate { definition: Box::new(definition), total_stock };
    let envelope = caller.envelope(command, effective_at, input.idempotency, input.now)?;
    answer::run(&app, envelope, StatusCode::CREATED).await
}

/// Add stock to a template, or take it away
#[utoipa::path(post, path = "/v1/coupon-templates/{template_id}/stock", tag = "Coupon templates",
    security(("key" = ["OPERATOR"])), params(("template_id" = schema::TemplateId, Path), IdempotencyKey),
    request_body = StockRequest,
    responses((status = 200, description = "Changed", body = TemplateView<'static>, headers(("ETag" = String))), Problems))]
pub async fn change_coupon_template_stock(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(template_id): InPath<TemplateId>,
    input: Input<StockRequest>,
) -> Result<Response, Problem> {
    let (change, effective_at) = input.value;
    let command = Command::ChangeStock { template_id, change };
    answer::run(&app, caller.envelope(command, effective_at, input.idempotency, input.now)?, StatusCode::OK).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging_follows_rfc_7396() {
        // The examples of its appendix A.
        for (target, patch, expected) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, expected, "{target} with {patch}");
        }
    }

    fn minimal() -> Value {
        json!({"name":"n","benefit":{"type":"AMOUNT_OFF","amount":1},"validity":{"type":"RELATIVE","days":30}})
    }

    fn bad_fields(value: Value) -> Vec<String> {
        match parse_value::<TemplateRequest>(value, FieldErrors::default(), Timestamp(0)) {
            Ok(_) => Vec::new(),
            Err(problem) => {
                let body = serde_json::to_value(problem.body(super::super::problem::Language::English, "r")).unwrap();
                let list = body["errors"].as_array().unwrap();
                list.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
            }
        }
    }

    #[test]
    fn defaults_are_as_documented() {
        let authored = parse_value::<TemplateRequest>(minimal(), FieldErrors::default(), Timestamp(0)).unwrap();
        let definition = authored.definition;
        assert_eq!(authored.total_stock, None);
        assert_eq!((definition.limit_per_member, definition.refund_extend_days), (1, 7));
        let expected = Definition::new("n", Benefit::AmountOff { amount: 1 }, Validity::days(30));
        assert_eq!(definition, expected);
    }

    #[test]
    fn a_definition_survives_an_empty_edit() {
        for benefit in [
            json!({"type":"PERCENT_OFF","percent_off":10,"max_amount":null,"amount":null}),
            json!({"type":"PERCENT_OFF","percent_off":12.35,"max_amount":5,"amount":null}),
            json!({"type":"AMOUNT_OFF","amount":1}),
            json!({"type":"EXCHANGE","amount":null,"product_id":"p","sku_id":"s"}),
            json!({"type":"FREE_SHIPPING","amount":null}),
            json!({"type":"BUY_X_GET_Y","amount":null,"buy_quantity":2,"get_quantity":1,"percent_off":50.5,"max_sets":3}),
            json!({"type":"TIERED","amount":null,"max_amount":9,
                "steps":[{"min_amount":0,"amount":1},{"min_amount":5,"percent_off":0.01}]}),
            json!({"type":"FIXED_PRICE","amount":null,"price":0,"max_quantity":1}),
        ] {
            let mut value = minimal();
            merge(
                &mut value,
                json!({
                    "benefit":benefit, "priority":7, "stacking":"STACKABLE", "stacking_group":"g", "min_quantity":2,
                    "usable_hours":[{"weekdays":["SUNDAY","MONDAY"],"from":"09:30","to":"24:00"},{"from":"00:00","to":"00:01"}],
                    "excluded_dates":["2026-12-24","1969-12-31","2028-02-29"],
                    "condition":"member.level == 'GOLD' || order.amount > 1",
                    "validity":{"type":"FIXED","days":null,"starts_at":"2026-01-01T00:00:00Z","ends_at":"2026-02-01T00:00:00.5Z"},
                    "scope":{"products":["p"],"excluded_categories":["c"]},"metadata":{"k":[1,null]},
                }),
            );
            let read = |value| parse_value::<TemplateRequest>(value, FieldErrors::default(), Timestamp(0));
            let first = read(value).unwrap_or_else(|problem| panic!("{benefit}: {problem:?}")).definition;
            let shown = serde_json::to_value(DefinitionView::from(&first)).unwrap();
            let mut names: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
            let mut editable = EDITABLE.to_vec();
            names.sort_unstable();
            editable.sort_unstable();
            assert_eq!(names, editable);
            assert_eq!(read(shown).unwrap().definition, first);
        }
    }

    fn buy_x(more: Value) -> Value {
        let mut benefit = json!({"type": "BUY_X_GET_Y", "amount": null, "buy_quantity": 2, "get_quantity": 1});
        merge(&mut benefit, more);
        json!({ "benefit": benefit })
    }

    fn tiered(steps: Value) -> Value {
        json!({"benefit": {"type": "TIERED", "amount": null, "steps": steps}})
    }

    #[test]
    fn every_limit_is_kept_and_told() {
        let text = |length: usize| "x".repeat(length);
        for (patch, field) in [
            (json!({"name": ""}), "name"),
            (json!({"name": text(101)}), "name"),
            (json!({"name": "nul\u{0}"}), "name"),
            (json!({"description": text(501)}), "description"),
            (json!({"benefit": {"amount": 0}}), "benefit.amount"),
            (json!({"benefit": {"amount": MAX_AMOUNT + 1}}), "benefit.amount"),
            (json!({"benefit": {"type": "PERCENT_OFF", "amount": null, "percent_off": 100}}), "benefit.percent_off"),
            (json!({"benefit": {"type": "PERCENT_OFF", "percent_off": 10}}), "benefit.amount"),
            (json!({"benefit": {"type": "EXCHANGE", "amount": null, "product_id": ""}}), "benefit.product_id"),
            (json!({"benefit": {"type": "EXCHANGE", "amount": null}}), "benefit.product_id"),
            (json!({"benefit": {"type": "FREE"}}), "benefit.type"),
            (json!({"benefit": {"type": "PERCENT_OFF", "amount": null, "percent_off": 0.001}}), "benefit.percent_off"),
            (json!({"benefit": {"type": "PERCENT_OFF", "amount": null, "percent_off": 99.995}}), "benefit.percent_off"),
            (json!({"benefit": {"type": "FREE_SHIPPING", "amount": null, "max_amount": 0}}), "benefit.max_amount"),
            (json!({"benefit": {"type": "FREE_SHIPPING"}}), "benefit.amount"),
            (json!({"benefit": {"type": "FIXED_PRICE", "amount": null, "price": -1}}), "benefit.price"),
            (
                json!({"benefit": {"type": "FIXED_PRICE", "amount": null, "price": 1, "max_quantity": 0}}),
                "benefit.max_quantity",
            ),
            (buy_x(json!({"get_quantity": 0})), "benefit.get_quantity"),
            (buy_x(json!({"buy_quantity": 1_001})), "benefit.buy_quantity"),
            (buy_x(json!({"percent_off": 100.01})), "benefit.percent_off"),
            (buy_x(json!({"max_sets": 0})), "benefit.max_sets"),
            (buy_x(json!({"steps": []})), "benefit.steps"),
            (tiered(json!([])), "benefit.steps"),
            (tiered(json!(vec![json!({"min_amount": 1, "amount": 1}); 21])), "benefit.steps"),
            (tiered(json!([{"min_amount": 1}])), "benefit.steps[0]"),
            (tiered(json!([{"min_amount": 1, "amount": 1, "percent_off": 1}])), "benefit.steps[0]"),
            (tiered(json!([{"amount": 1}])), "benefit.steps[0].min_amount"),
            (tiered(json!([{"min_amount": 1, "amount": 0}])), "benefit.steps[0].amount"),
            (tiered(json!([{"min_amount": 1, "percent_off": 101}])), "benefit.steps[0].percent_off"),
            (
                tiered(json!([{"min_amount": 2, "amount": 1}, {"min_amount": 2, "amount": 2}])),
                "benefit.steps[1].min_amount",
            ),
            (tiered(json!([{"min_amount": 2, "amount": 1, "more": 1}])), "benefit.steps[0].more"),
            (json!({"usable_hours": [{"from": "09:00"}]}), "usable_hours[0].to"),
            (json!({"usable_hours": [{"from": "09:00", "to": "09:00"}]}), "usable_hours[0].to"),
            (json!({"usable_hours": [{"from": "9:00", "to": "10:00"}]}), "usable_hours[0].from"),
            (json!({"usable_hours": [{"from": "23:00", "to": "24:01"}]}), "usable_hours[0].to"),
            (json!({"usable_hours": [{"from": "00:60", "to": "24:00"}]}), "usable_hours[0].from"),
            (
                json!({"usable_hours": [{"weekdays": ["monday"], "from": "00:00", "to": "24:00"}]}),
                "usable_hours[0].weekdays[0]",
            ),
            (json!({"usable_hours": vec![json!({"from": "00:00", "to": "24:00"}); 21]}), "usable_hours"),
            (json!({"excluded_dates": ["2026-02-29"]}), "excluded_dates[0]"),
            (
                json!({"excluded_dates": (0..401).map(|day| format!("{}-01-01", 2000 + day)).collect::<Vec<_>>()}),
                "excluded_dates",
            ),
            (json!({"condition": ""}), "condition"),
            (json!({"condition": "order.total > 1"}), "condition"),
            (json!({"condition": "order.amount"}), "condition"),
            (json!({"condition": "x".repeat(501)}), "condition"),
            (json!({"condition": 1}), "condition"),
            (json!({"min_quantity": -1}), "min_quantity"),
            (json!({"daily_cap": 0}), "daily_cap"),
            (json!({"weekly_cap": 0}), "weekly_cap"),
            (json!({"monthly_cap": -1}), "monthly_cap"),
            (json!({"returnable": 1}), "returnable"),
            (json!({"validity": {"days": null}}), "validity.days"),
            (json!({"validity": {"days": 0, "hours": 0}}), "validity.days"),
            (json!({"validity": {"hours": 87_601}}), "validity.hours"),
            (json!({"validity": {"starts_after_hours": -1}}), "validity.starts_after_hours"),
            (json!({"validity": {"starts_at": "2026-01-01T00:00:00Z"}}), "validity.starts_at"),
            (json!({"priority": 1_001}), "priority"),
            (json!({"scope": {"excluded_products": [""]}}), "scope.excluded_products[0]"),
            (json!({"scope": {"excluded_categories": 1}}), "scope.excluded_categories"),
            (json!({"benefit": null}), "benefit"),
            (json!({"min_order_amount": -1}), "min_order_amount"),
            (json!({"min_pay_amount": MAX_AMOUNT + 1}), "min_pay_amount"),
            (json!({"scope": {"products": [text(65)]}}), "scope.products[0]"),
            (json!({"scope": {"categories": vec!["c"; 1001]}}), "scope.categories"),
            (json!({"member_levels": [""]}), "member_levels[0]"),
            (json!({"validity": {"days": 0}}), "validity.days"),
            (json!({"validity": {"days": 3651}}), "validity.days"),
            (json!({"validity": {"ends_at": "2026-01-01T00:00:00Z"}}), "validity.ends_at"),
            (
                json!({"distribution": {"starts_at": "2026-01-02T00:00:00Z", "ends_at": "2026-01-02T00:00:00Z"}}),
                "distribution.ends_at",
            ),
            (json!({"total_stock": -1}), "total_stock"),
            (json!({"limit_per_member": 0}), "limit_per_member"),
            (json!({"limit_per_member": 1_000_001}), "limit_per_member"),
            (json!({"daily_cap": 0}), "daily_cap"),
            (json!({"budget": 0}), "budget"),
            (json!({"points_price": 0}), "points_price"),
            (json!({"budget": 1_000_000_000_000_001i64}), "budget"),
            (json!({"budget": 5, "benefit": {"type": "PERCENT_OFF", "amount": null, "percent_off": 10}}), "budget"),
            (json!({"refund_extend_days": 3651}), "refund_extend_days"),
            (json!({"metadata": {"k": text(4096)}}), "metadata"),
            (json!({"metadata": []}), "metadata"),
            (json!({"effective_at": "2026-01-01T00:00:00Z"}), "effective_at"),
            (json!({"stacking": "x"}), "stacking"),
            (json!({"stacking_group": ""}), "stacking_group"),
            (json!({"stacking_group": text(65)}), "stacking_group"),
        ] {
            let mut value = minimal();
            merge(&mut value, patch.clone());
            assert_eq!(bad_fields(value), [field], "{patch}");
        }
        let all = bad_fields(json!({"name":"","limit_per_member":0,"benefit":{"type":"AMOUNT_OFF"},"oops":1}));
        assert_eq!(all, ["oops", "name", "benefit.amount", "validity", "limit_per_member"]);
    }

    #[test]
    fn a_condition_that_is_none_is_told_with_its_place() {
        let mut value = minimal();
        merge(&mut value, json!({"condition": "order.amount > 100 && order.total > 1"}));
        let read = parse_value::<TemplateRequest>(value, FieldErrors::default(), Timestamp(0));
        let problem = read.err().expect("a bad condition");
        let body = serde_json::to_value(problem.body(super::super::problem::Language::English, "r")).unwrap();
        assert_eq!(
            body["errors"][0],
            json!({
                "field": "condition", "message": "at character 29: `total` is no field of order",
                "remedy": "Known are: amount, freight, quantity, hour, weekday, products, categories, lines, attributes.",
            })
        );
    }

    #[test]
    fn an_edit_names_what_it_cannot_change() {
        let Value::Object(mut edit) = json!({"total_stock":5,"enabled":false,"foo":null,"name":""}) else { return };
        let errors = refuse_uneditable(&mut edit).into_list();
        assert_eq!(errors.iter().map(|error| &*error.field).collect::<Vec<_>>(), ["enabled", "foo", "total_stock"]);
        assert_eq!(edit.len(), 1);
    }

    #[test]
    fn entity_tags_name_versions() {
        assert_eq!(version_of("\"3\""), Some(3));
        for bad in ["3", "W/\"3\"", "\"x\"", "*", "\"1\", \"2\""] {
            assert_eq!(version_of(bad), None, "{bad}");
        }
    }
}
