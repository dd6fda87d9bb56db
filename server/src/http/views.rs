//! What the API answers: the domain's objects in their public form. Borrowed throughout, and written to bytes once.

use scrip_domain::bulk::Bulk;
use scrip_domain::condition::Condition;
use scrip_domain::coupon::{
    Benefit, CodeBatch, CodeKind, CodeStatus, Coupon, CouponSource, CouponStatus, Definition, PeriodCount, Stacking,
    Step, StepOff, Template, Validity,
};
use scrip_domain::event::Event;
use scrip_domain::job::Job;
use scrip_domain::points::{Hold, HoldStatus, Lot, Transaction, TransactionType};
use scrip_domain::tenant::{ApiKey, Scope, Tenant};
use scrip_domain::time::{Weekday, WeeklyHours, Window};
use scrip_domain::{
    BulkId, CodeBatchId, CouponId, EventId, HoldId, JobId, KeyId, LotId, MemberId, OrderId, ProgramCode, TemplateId,
    TenantId, Timestamp, TransactionId,
};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::orders::{CompensationView, OrderView, RefundView};
use super::percent::Percent;
use super::problem::Problem;
use super::rules::RulesView;
use super::schema;
use super::time::{LocalDate, Time, TimeOfDay};
use super::webhooks::{DeliveryView, WebhookView};
use crate::store::read::{Balance, EventPosition};

pub fn time(at: Option<Timestamp>) -> Option<Time> {
    at.map(Time)
}

/// A page of a list.
#[derive(Serialize)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// `None` on the last page.
    pub next_cursor: Option<String>,
}

macro_rules! pages {
    ($($name:ident of $view:ty;)*) => {$(
        /// Describes a page of these; a derived schema would repeat the whole object in place of a reference to it.
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let nullable = SchemaType::Array(vec![Type::String, Type::Null]);
                let cursor = ObjectBuilder::new().schema_type(nullable).description(Some("Null on the last page."));
                ObjectBuilder::new()
                    .property("data", ArrayBuilder::new().items(Ref::from_schema_name(<$view>::name())))
                    .required("data")
                    .property("next_cursor", cursor)
                    .required("next_cursor")
                    .into()
            }
        }

        impl ToSchema for $name {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                schemas.push((<$view>::name().into_owned(), <$view>::schema()));
                <$view>::schemas(schemas);
            }
        }
    )*};
}

pages! {
    TenantPage of TenantView<'static>;
    ProgramPage of ProgramView<'static>;
    ApiKeyPage of ApiKeyView<'static>;
    CouponTemplatePage of TemplateView<'static>;
    CouponPage of CouponView<'static>;
    CodeBatchPage of CodeBatchView<'static>;
    UsagePage of UsageView<'static>;
    PointsTransactionPage of TransactionView<'static>;
    PointsLotPage of LotView;
    PointsHoldPage of HoldView<'static>;
    AdjustmentPage of super::adjustments::AdjustmentView<'static>;
    RulesPage of RulesView<'static>;
    JobPage of JobView<'static>;
    WebhookPage of WebhookView<'static>;
    WebhookDeliveryPage of DeliveryView<'static>;
    OrderPage of OrderView<'static>;
    RefundPage of RefundView<'static>;
    CompensationPage of CompensationView<'static>;
    BulkPage of BulkView;
    ExpiringLotPage of super::statements::ExpiringLot;
    PointsTaskPage of super::tasks::TaskView<'static>;
    MemberPointsTaskPage of super::tasks::MemberTaskView<'static>;
}

#[derive(Serialize, ToSchema)]
#[schema(as = Tenant)]
pub struct TenantView<'a> {
    #[schema(value_type = schema::TenantId)]
    id: TenantId,
    #[schema(value_type = String)]
    name: &'a str,
    #[schema(value_type = String, example = "EUR")]
    currency: &'a str,
    #[schema(value_type = String, example = "Europe/Berlin")]
    time_zone: &'a str,
    refund_grace_days: u32,
    created_at: Time,
    /// Whose program it is; null for a tenant that is none.
    #[schema(required, value_type = Option<schema::TenantId>)]
    parent_id: Option<TenantId>,
    /// The program's code; null for a tenant that is none.
    #[schema(required, value_type = Option<schema::ProgramCode>)]
    program: Option<&'a ProgramCode>,
}

impl<'a> From<&'a Tenant> for TenantView<'a> {
    fn from(tenant: &'a Tenant) -> Self {
        TenantView {
            id: tenant.id,
            name: &tenant.name,
            currency: &tenant.currency,
            time_zone: &tenant.time_zone,
            refund_grace_days: tenant.refund_grace_days,
            created_at: Time(tenant.created_at),
            parent_id: tenant.program.as_ref().map(|program| program.parent_id),
            program: tenant.program.as_ref().map(|program| &program.code),
        }
    }
}

/// A further currency of points of the tenant.
#[derive(Serialize, ToSchema)]
#[schema(as = Program)]
pub struct ProgramView<'a> {
    /// What the header `Scrip-Program` names it by.
    #[schema(value_type = schema::ProgramCode)]
    code: &'a ProgramCode,
    /// Its own id as a tenant, which subjects of the broker and the command line name.
    #[schema(value_type = schema::TenantId)]
    id: TenantId,
    #[schema(value_type = String)]
    name: &'a str,
    #[schema(value_type = String, example = "EUR")]
    currency: &'a str,
    #[schema(value_type = String, example = "Europe/Berlin")]
    time_zone: &'a str,
    refund_grace_days: u32,
    created_at: Time,
}

impl<'a> ProgramView<'a> {
    pub fn new(code: &'a ProgramCode, row: &'a Tenant) -> Self {
        ProgramView {
            code,
            id: row.id,
            name: &row.name,
            currency: &row.currency,
            time_zone: &row.time_zone,
            refund_grace_days: row.refund_grace_days,
            created_at: Time(row.created_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct ApiKeyView<'a> {
    #[schema(value_type = schema::KeyId)]
    id: KeyId,
    #[schema(value_type = String)]
    name: &'a str,
    #[schema(value_type = schema::KeyScope)]
    scope: Scope,
    #[schema(required, value_type = Option<schema::MemberId>)]
    member_id: Option<&'a MemberId>,
    #[schema(required)]
    expires_at: Option<Time>,
    #[schema(required)]
    revoked_at: Option<Time>,
    created_at: Time,
    /// The most points one administrative grant or debit by this key may move; null is unlimited.
    #[schema(required)]
    adjustment_limit: Option<i64>,
}

impl<'a> From<&'a ApiKey> for ApiKeyView<'a> {
    fn from(key: &'a ApiKey) -> Self {
        ApiKeyView {
            id: key.id,
            name: &key.name,
            scope: key.scope,
            member_id: key.member_id.as_ref(),
            expires_at: time(key.expires_at),
            revoked_at: time(key.revoked_at),
            created_at: Time(key.created_at),
            adjustment_limit: key.adjustment_limit,
        }
    }
}

/// A new key.
#[derive(Serialize, ToSchema)]
#[schema(as = NewApiKey)]
pub struct NewApiKeyView<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    pub key: ApiKeyView<'a>,
    /// Shown this once: only its digest is kept. Null in a replayed answer.
    #[schema(required)]
    pub secret: Option<String>,
}

/// What a coupon gives.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = Benefit)]
pub enum BenefitView<'a> {
    /// `amount` minor units off.
    AmountOff {
        #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
        amount: i64,
    },
    /// `percent_off` percent (of up to two decimals) off, at most `max_amount` minor units.
    PercentOff {
        #[schema(value_type = f64, minimum = 0.01, maximum = 99.99, example = 12.5)]
        percent_off: Percent,
        #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
        max_amount: Option<i64>,
    },
    /// One unit of the product, or of one of its SKUs, free.
    Exchange {
        #[schema(value_type = String, min_length = 1, max_length = 64)]
        product_id: &'a str,
        #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
        sku_id: Option<&'a str>,
    },
    /// The freight free, at most `max_amount` minor units of it.
    FreeShipping {
        #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
        max_amount: Option<i64>,
    },
    /// Of every `buy_quantity + get_quantity` eligible units, the `get_quantity` cheapest reduced by `percent_off` (default:
    /// 100, free), `max_sets` times at most.
    #[serde(rename = "BUY_X_GET_Y")]
    BuyXGetY {
        #[schema(minimum = 1, maximum = 1000)]
        buy_quantity: i64,
        #[schema(minimum = 1, maximum = 1000)]
        get_quantity: i64,
        #[schema(value_type = Option<f64>, minimum = 0.01, maximum = 100)]
        percent_off: Percent,
        #[schema(minimum = 1, maximum = 1_000_000)]
        max_sets: Option<i64>,
    },
    /// The highest step that the eligible goods reach, at most `max_amount` minor units.
    Tiered {
        #[schema(min_items = 1, max_items = 20)]
        steps: Vec<StepView>,
        #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
        max_amount: Option<i64>,
    },
    /// Eligible units cost `price` minor units each where they cost more; the dearest `max_quantity` of them at most.
    FixedPrice {
        #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
        price: i64,
        #[schema(minimum = 1, maximum = 1_000_000)]
        max_quantity: Option<i64>,
    },
}

/// What eligible goods from `min_amount` minor units on get: exactly one of `amount` and `percent_off`. Steps go from low to
/// high.
#[derive(Serialize, ToSchema)]
#[schema(as = Step)]
pub struct StepView {
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    min_amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
    amount: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0.01, maximum = 100)]
    percent_off: Option<Percent>,
}

impl From<&Step> for StepView {
    fn from(step: &Step) -> Self {
        let (amount, percent_off) = match step.off {
            StepOff::Amount(amount) => (Some(amount), None),
            StepOff::BasisPoints(basis_points) => (None, Some(Percent(basis_points.into()))),
        };
        StepView { min_amount: step.min_amount, amount, percent_off }
    }
}

impl<'a> From<&'a Benefit> for BenefitView<'a> {
    fn from(benefit: &'a Benefit) -> Self {
        match benefit {
            Benefit::AmountOff { amount } => BenefitView::AmountOff { amount: *amount },
            Benefit::PercentOff { basis_points, max_amount } => {
                let percent_off = Percent((*basis_points).into());
                BenefitView::PercentOff { percent_off, max_amount: *max_amount }
            }
            Benefit::Exchange { product_id, sku_id } => BenefitView::Exchange { product_id, sku_id: sku_id.as_deref() },
            Benefit::FreeShipping { max_amount } => BenefitView::FreeShipping { max_amount: *max_amount },
            Benefit::BuyXGetY { buy_quantity, get_quantity, basis_points, max_sets } => BenefitView::BuyXGetY {
                buy_quantity: *buy_quantity,
                get_quantity: *get_quantity,
                percent_off: Percent((*basis_points).into()),
                max_sets: *max_sets,
            },
            Benefit::Tiered { steps, max_amount } => {
                BenefitView::Tiered { steps: steps.iter().map(StepView::from).collect(), max_amount: *max_amount }
            }
            Benefit::FixedPrice { price, max_quantity } => {
                BenefitView::FixedPrice { price: *price, max_quantity: *max_quantity }
            }
        }
    }
}

/// Which goods a coupon applies to: those of the products and of the categories (empty lists mean all) that are not excluded.
#[derive(Serialize, ToSchema)]
#[schema(as = Scope)]
pub struct ScopeView<'a> {
    #[schema(value_type = Vec<String>)]
    products: &'a [String],
    #[schema(value_type = Vec<String>)]
    categories: &'a [String],
    #[schema(value_type = Vec<String>)]
    excluded_products: &'a [String],
    #[schema(value_type = Vec<String>)]
    excluded_categories: &'a [String],
}

/// When coupons of a template are valid.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "UPPERCASE")]
#[schema(as = Validity)]
pub enum ValidityView {
    /// The same interval for every coupon.
    Fixed { starts_at: Time, ends_at: Time },
    /// From `starts_after_hours` behind the claim (left out: at once), for `days` of 24 hours and `hours` (left out: 0),
    /// together at least an hour.
    Relative {
        #[schema(minimum = 0, maximum = 3650)]
        days: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 1, maximum = 87600)]
        hours: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 1, maximum = 87600)]
        starts_after_hours: Option<u32>,
    },
}

impl From<&Validity> for ValidityView {
    fn from(validity: &Validity) -> Self {
        match *validity {
            Validity::Fixed { starts_at, ends_at } => {
                ValidityView::Fixed { starts_at: Time(starts_at), ends_at: Time(ends_at) }
            }
            Validity::Relative { days, hours, starts_after_hours } => ValidityView::Relative {
                days,
                hours: Some(hours).filter(|hours| *hours > 0),
                starts_after_hours: Some(starts_after_hours).filter(|hours| *hours > 0),
            },
        }
    }
}

/// From a time of day up to, not including, another, on these days of the week (none means every day).
#[derive(Serialize, ToSchema)]
#[schema(as = WeeklyHours)]
pub struct HoursView<'a> {
    #[schema(value_type = Vec<schema::Weekday>)]
    weekdays: &'a [Weekday],
    from: TimeOfDay,
    to: TimeOfDay,
}

impl<'a> From<&'a WeeklyHours> for HoursView<'a> {
    fn from(hours: &'a WeeklyHours) -> Self {
        HoursView { weekdays: &hours.weekdays, from: TimeOfDay(hours.from_minute), to: TimeOfDay(hours.to_minute) }
    }
}

fn usable_hours(definition: &Definition) -> Vec<HoursView<'_>> {
    definition.usable_hours.iter().map(HoursView::from).collect()
}

fn excluded_dates(definition: &Definition) -> Vec<LocalDate> {
    definition.excluded_dates.iter().map(|day| LocalDate(*day)).collect()
}

/// `[starts_at, ends_at)`; null is open.
#[derive(Serialize, ToSchema)]
#[schema(as = Window)]
pub struct WindowView {
    #[schema(required)]
    starts_at: Option<Time>,
    #[schema(required)]
    ends_at: Option<Time>,
}

/// What an operator authors, in the form in which it is edited.
#[derive(Serialize)]
pub struct DefinitionView<'a> {
    name: &'a str,
    description: &'a str,
    benefit: BenefitView<'a>,
    min_order_amount: i64,
    min_quantity: i64,
    min_pay_amount: i64,
    scope: ScopeView<'a>,
    priority: i32,
    stacking: Stacking,
    stacking_group: Option<&'a str>,
    member_levels: &'a [String],
    usable_hours: Vec<HoursView<'a>>,
    excluded_dates: Vec<LocalDate>,
    condition: Option<&'a str>,
    validity: ValidityView,
    distribution: WindowView,
    limit_per_member: i64,
    daily_cap: Option<i64>,
    weekly_cap: Option<i64>,
    monthly_cap: Option<i64>,
    budget: Option<i64>,
    points_price: Option<i64>,
    returnable: bool,
    refund_extend_days: u32,
    metadata: &'a serde_json::Map<String, serde_json::Value>,
}

impl<'a> From<&'a Definition> for DefinitionView<'a> {
    fn from(definition: &'a Definition) -> Self {
        DefinitionView {
            name: &definition.name,
            description: &definition.description,
            benefit: (&definition.benefit).into(),
            min_order_amount: definition.min_order_amount,
            min_quantity: definition.min_quantity,
            min_pay_amount: definition.min_pay_amount,
            scope: scope(definition),
            priority: definition.priority,
            stacking: definition.stacking,
            stacking_group: definition.stacking_group.as_deref(),
            member_levels: &definition.member_levels,
            usable_hours: usable_hours(definition),
            excluded_dates: excluded_dates(definition),
            condition: definition.condition.as_ref().map(Condition::source),
            validity: (&definition.validity).into(),
            distribution: distribution(definition),
            limit_per_member: definition.limit_per_member,
            daily_cap: definition.daily_cap,
            weekly_cap: definition.weekly_cap,
            monthly_cap: definition.monthly_cap,
            budget: definition.budget,
            points_price: definition.points_price,
            returnable: definition.returnable,
            refund_extend_days: definition.refund_extend_days,
            metadata: &definition.metadata,
        }
    }
}

fn scope(definition: &Definition) -> ScopeView<'_> {
    let scope = &definition.scope;
    ScopeView {
        products: &scope.products,
        categories: &scope.categories,
        excluded_products: &scope.excluded_products,
        excluded_categories: &scope.excluded_categories,
    }
}

fn distribution(definition: &Definition) -> WindowView {
    (&definition.distribution).into()
}

impl From<&Window> for WindowView {
    fn from(window: &Window) -> Self {
        WindowView { starts_at: time(window.starts_at), ends_at: time(window.ends_at) }
    }
}

/// Claims of one day, week or month.
#[derive(Serialize, ToSchema)]
#[schema(as = TemplatePeriodCount)]
pub struct PeriodView {
    starts_at: Time,
    ends_at: Time,
    claimed: i64,
}

impl From<PeriodCount> for PeriodView {
    fn from(count: PeriodCount) -> Self {
        let (starts_at, ends_at) = (Time(count.bounds.starts_at), Time(count.bounds.ends_at));
        PeriodView { starts_at, ends_at, claimed: count.claimed }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = CouponTemplate)]
pub struct TemplateView<'a> {
    #[schema(value_type = schema::TemplateId)]
    id: TemplateId,
    #[schema(value_type = String)]
    name: &'a str,
    #[schema(value_type = String)]
    description: &'a str,
    #[schema(value_type = BenefitView<'static>)]
    benefit: BenefitView<'a>,
    min_order_amount: i64,
    min_quantity: i64,
    min_pay_amount: i64,
    #[schema(value_type = ScopeView<'static>)]
    scope: ScopeView<'a>,
    /// Coupons of a lower priority are computed first.
    priority: i32,
    #[schema(value_type = schema::Stacking)]
    stacking: Stacking,
    #[schema(required, value_type = Option<String>)]
    stacking_group: Option<&'a str>,
    #[schema(value_type = Vec<String>)]
    member_levels: &'a [String],
    #[schema(value_type = Vec<HoursView<'static>>)]
    usable_hours: Vec<HoursView<'a>>,
    #[schema(value_type = Vec<schema::LocalDate>)]
    excluded_dates: Vec<LocalDate>,
    #[schema(required, value_type = Option<String>)]
    condition: Option<&'a str>,
    validity: ValidityView,
    distribution: WindowView,
    /// Null is unlimited.
    #[schema(required)]
    total_stock: Option<i64>,
    limit_per_member: i64,
    /// Claims in a day, a week (from Monday) and a month of the tenant's calendar, at most.
    #[schema(required)]
    daily_cap: Option<i64>,
    #[schema(required)]
    weekly_cap: Option<i64>,
    #[schema(required)]
    monthly_cap: Option<i64>,
    /// What all its coupons together may take off, in minor units.
    #[schema(required)]
    budget: Option<i64>,
    /// What a coupon costs in points; with a price, members get it by an exchange only.
    #[schema(required)]
    points_price: Option<i64>,
    /// Whether a full refund gives a used coupon back.
    returnable: bool,
    refund_extend_days: u32,
    #[schema(value_type = schema::Metadata)]
    metadata: &'a serde_json::Map<String, serde_json::Value>,
    enabled: bool,
    /// Null when the stock is unlimited.
    #[schema(required)]
    remaining_stock: Option<i64>,
    claimed_count: i64,
    used_count: i64,
    /// The most that the coupons claimed so far can take off; never above `budget`.
    committed_amount: i64,
    /// The latest day, week and month with a claim under a cap of theirs.
    #[schema(required)]
    day: Option<PeriodView>,
    #[schema(required)]
    week: Option<PeriodView>,
    #[schema(required)]
    month: Option<PeriodView>,
    code_batch_count: i64,
    /// Archived templates stay as they are.
    #[schema(required)]
    archived_at: Option<Time>,
    /// Grows with every change by an operator, never with a claim. The ETag.
    version: i64,
    created_at: Time,
    updated_at: Time,
}

impl<'a> From<&'a Template> for TemplateView<'a> {
    fn from(template: &'a Template) -> Self {
        let definition = &*template.definition;
        let [day, week, month] = template.counts.map(|count| count.map(PeriodView::from));
        TemplateView {
            id: template.id,
            name: &definition.name,
            description: &definition.description,
            benefit: (&definition.benefit).into(),
            min_order_amount: definition.min_order_amount,
            min_quantity: definition.min_quantity,
            min_pay_amount: definition.min_pay_amount,
            scope: scope(definition),
            priority: definition.priority,
            stacking: definition.stacking,
            stacking_group: definition.stacking_group.as_deref(),
            member_levels: &definition.member_levels,
            usable_hours: usable_hours(definition),
            excluded_dates: excluded_dates(definition),
            condition: definition.condition.as_ref().map(Condition::source),
            validity: (&definition.validity).into(),
            distribution: distribution(definition),
            total_stock: template.total_stock,
            limit_per_member: definition.limit_per_member,
            daily_cap: definition.daily_cap,
            weekly_cap: definition.weekly_cap,
            monthly_cap: definition.monthly_cap,
            budget: definition.budget,
            points_price: definition.points_price,
            returnable: definition.returnable,
            refund_extend_days: definition.refund_extend_days,
            metadata: &definition.metadata,
            enabled: template.enabled,
            remaining_stock: template.remaining_stock,
            claimed_count: template.claimed_count,
            used_count: template.used_count,
            committed_amount: template.committed_amount,
            day,
            week,
            month,
            code_batch_count: template.code_batch_count,
            archived_at: time(template.archived_at),
            version: template.version,
            created_at: Time(template.created_at),
            updated_at: Time(template.updated_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Coupon)]
pub struct CouponView<'a> {
    #[schema(value_type = schema::CouponId)]
    id: CouponId,
    #[schema(value_type = schema::TemplateId)]
    template_id: TemplateId,
    /// The version it was claimed under, which prices it.
    template_version: i64,
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    #[schema(value_type = String)]
    name: &'a str,
    #[schema(value_type = BenefitView<'static>)]
    benefit: BenefitView<'a>,
    min_order_amount: i64,
    min_quantity: i64,
    min_pay_amount: i64,
    #[schema(value_type = ScopeView<'static>)]
    scope: ScopeView<'a>,
    /// Coupons of a lower priority are computed first.
    priority: i32,
    #[schema(value_type = schema::Stacking)]
    stacking: Stacking,
    #[schema(required, value_type = Option<String>)]
    stacking_group: Option<&'a str>,
    #[schema(value_type = schema::CouponStatus)]
    status: CouponStatus,
    /// 1 for the member's first coupon of the template.
    sequence: i64,
    #[schema(value_type = schema::CouponSource)]
    source: CouponSource,
    valid_from: Time,
    valid_until: Time,
    #[schema(required, value_type = Option<schema::OrderId>)]
    order_id: Option<&'a OrderId>,
    #[schema(required)]
    locked_until: Option<Time>,
    #[schema(required)]
    discount_amount: Option<i64>,
    claimed_at: Time,
    #[schema(required)]
    used_at: Option<Time>,
}

impl<'a> CouponView<'a> {
    /// The coupon as a command left it.
    pub fn new(coupon: &'a Coupon, definition: &'a Definition) -> Self {
        CouponView {
            id: coupon.id,
            template_id: coupon.template_id,
            template_version: coupon.template_version,
            member_id: &coupon.member_id,
            name: &definition.name,
            benefit: (&definition.benefit).into(),
            min_order_amount: definition.min_order_amount,
            min_quantity: definition.min_quantity,
            min_pay_amount: definition.min_pay_amount,
            scope: scope(definition),
            priority: definition.priority,
            stacking: definition.stacking,
            stacking_group: definition.stacking_group.as_deref(),
            status: coupon.status,
            sequence: coupon.sequence,
            source: coupon.source,
            valid_from: Time(coupon.valid_from),
            valid_until: Time(coupon.valid_until),
            order_id: coupon.order_id.as_ref(),
            locked_until: time(coupon.locked_until),
            discount_amount: coupon.discount_amount,
            claimed_at: Time(coupon.claimed_at),
            used_at: time(coupon.used_at),
        }
    }

    /// The coupon as it stands at `at`, whether or not a sweep has written what time has decided.
    pub fn at(coupon: &'a Coupon, definition: &'a Definition, at: Timestamp) -> Self {
        let view = CouponView::new(coupon, definition);
        match coupon.status_at(at) {
            status if status == coupon.status => view,
            status => CouponView { status, order_id: None, locked_until: None, ..view },
        }
    }
}

/// Coupon codes that were made together. Their texts are shown by the one export only.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeBatch)]
pub struct CodeBatchView<'a> {
    #[schema(value_type = schema::CodeBatchId)]
    id: CodeBatchId,
    #[schema(value_type = schema::TemplateId)]
    template_id: TemplateId,
    #[schema(value_type = schema::CodeKind)]
    kind: CodeKind,
    #[schema(value_type = String)]
    name: &'a str,
    #[schema(value_type = schema::CodeStatus)]
    status: CodeStatus,
    /// How many codes it is to have.
    code_count: i64,
    /// How many it has by now.
    added_count: i64,
    /// Coupons claimed with them.
    claimed_count: i64,
    /// How often each can be claimed with; null is any number of times.
    #[schema(required)]
    max_uses: Option<i64>,
    /// How the texts look; of a shared code the text itself.
    #[schema(value_type = String)]
    pattern: &'a str,
    /// What the places `#` of the pattern are drawn from.
    #[schema(value_type = String)]
    alphabet: &'a str,
    check_character: bool,
    /// Since when all its codes are there.
    #[schema(required)]
    completed_at: Option<Time>,
    /// Since when nobody can make its codes again.
    #[schema(required)]
    exported_at: Option<Time>,
    created_at: Time,
    updated_at: Time,
}

impl<'a> From<&'a CodeBatch> for CodeBatchView<'a> {
    fn from(batch: &'a CodeBatch) -> Self {
        CodeBatchView {
            id: batch.id,
            template_id: batch.template_id,
            kind: batch.kind,
            name: &batch.name,
            status: batch.status,
            code_count: batch.code_count,
            added_count: batch.added_count,
            claimed_count: batch.claimed_count,
            max_uses: batch.max_uses,
            pattern: &batch.pattern,
            alphabet: &batch.alphabet,
            check_character: batch.check_character,
            completed_at: time(batch.completed_at),
            exported_at: time(batch.exported_at),
            created_at: Time(batch.created_at),
            updated_at: Time(batch.updated_at),
        }
    }
}

/// A use of a coupon that stands: one taken back by a return is none.
#[derive(Serialize, ToSchema)]
#[schema(as = CouponUsage)]
pub struct UsageView<'a> {
    #[schema(value_type = schema::CouponId)]
    coupon_id: CouponId,
    #[schema(value_type = schema::TemplateId)]
    template_id: TemplateId,
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    #[schema(value_type = String)]
    name: &'a str,
    #[schema(required, value_type = Option<schema::OrderId>)]
    order_id: Option<&'a OrderId>,
    /// What the order got off, in minor units, where the caller said so.
    #[schema(required)]
    discount_amount: Option<i64>,
    #[schema(required)]
    used_at: Option<Time>,
}

impl<'a> UsageView<'a> {
    pub fn new(coupon: &'a Coupon, definition: &'a Definition) -> Self {
        UsageView {
            coupon_id: coupon.id,
            template_id: coupon.template_id,
            member_id: &coupon.member_id,
            name: &definition.name,
            order_id: coupon.order_id.as_ref(),
            discount_amount: coupon.discount_amount,
            used_at: time(coupon.used_at),
        }
    }
}

/// What expires soon.
#[derive(Serialize, ToSchema)]
pub struct Expiring {
    points: i64,
    within_days: u32,
    #[schema(required)]
    next_expires_at: Option<Time>,
}

/// What becomes available later: granted already, and frozen until then.
#[derive(Serialize, ToSchema)]
pub struct Pending {
    points: i64,
    #[schema(required)]
    next_available_at: Option<Time>,
}

/// A member's points. `total_points` = `available` + `frozen` + `used` + `expired` + `revoked`.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsBalance)]
pub struct BalanceView<'a> {
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    available: i64,
    frozen: i64,
    used: i64,
    expired: i64,
    revoked: i64,
    total_points: i64,
    debt: i64,
    /// Part of `frozen`.
    pending: Pending,
    expiring: Expiring,
    /// Set once the account was merged into that member's.
    #[schema(required, value_type = Option<schema::MemberId>)]
    merged_into: Option<&'a MemberId>,
    as_of: Time,
}

impl<'a> BalanceView<'a> {
    pub fn new(member_id: &'a MemberId, balance: &'a Balance, within_days: u32, at: Timestamp) -> Self {
        let next_expires_at = time(balance.next_expires_at);
        BalanceView {
            member_id,
            available: balance.available,
            frozen: balance.frozen,
            used: balance.used,
            expired: balance.expired,
            revoked: balance.revoked,
            total_points: balance.total_points,
            debt: balance.debt,
            pending: Pending { points: balance.pending_points, next_available_at: time(balance.next_available_at) },
            merged_into: balance.merged_into.as_ref(),
            expiring: Expiring { points: balance.expiring_points, within_days, next_expires_at },
            as_of: Time(at),
        }
    }
}

/// What a transaction took from, or gave to, one lot.
#[derive(Serialize, ToSchema)]
#[schema(as = Allocation)]
pub struct AllocationView {
    #[schema(value_type = schema::LotId)]
    lot_id: LotId,
    points: i64,
}

/// One line of a member's ledger.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsTransaction)]
pub struct TransactionView<'a> {
    #[schema(value_type = schema::TransactionId)]
    id: TransactionId,
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    /// 1 for the account's first, without gaps.
    sequence: i64,
    #[serde(rename = "type")]
    #[schema(value_type = schema::TransactionType)]
    kind: TransactionType,
    /// Signed.
    points: i64,
    balance_before: i64,
    balance_after: i64,
    frozen_after: i64,
    debt_after: i64,
    /// Of a CLAWBACK: what was to be taken back, was not there, and is not owed.
    points_forgiven: i64,
    #[schema(required, value_type = Option<String>)]
    reference: Option<&'a str>,
    #[schema(required, value_type = Option<String>)]
    remark: Option<&'a str>,
    #[schema(required, value_type = Option<schema::HoldId>)]
    hold_id: Option<HoldId>,
    #[schema(required, value_type = Option<schema::TransactionId>)]
    reverses_id: Option<TransactionId>,
    /// Of a TRANSFER: the transaction on the other member's account.
    #[schema(required, value_type = Option<schema::TransactionId>)]
    counterpart_id: Option<TransactionId>,
    #[schema(required, value_type = Option<schema::LotId>)]
    lot_id: Option<LotId>,
    allocations: Vec<AllocationView>,
    /// The version of the points rules that was asked: of a CLAWBACK of a grant what becomes of points that are not there, of
    /// EARN_ADMIN and DEDUCT_ADMIN whether they need an approval. Null for other types, and for what was imported.
    #[schema(required)]
    rules_version: Option<i64>,
    #[schema(required)]
    expires_at: Option<Time>,
    occurred_at: Time,
    recorded_at: Time,
}

impl<'a> From<&'a Transaction> for TransactionView<'a> {
    fn from(line: &'a Transaction) -> Self {
        let parts = line.allocations.iter().map(|part| AllocationView { lot_id: part.lot_id, points: part.points });
        TransactionView {
            id: line.id,
            member_id: &line.member_id,
            sequence: line.sequence,
            kind: line.kind,
            points: line.points,
            balance_before: line.balance_before,
            balance_after: line.balance_after,
            frozen_after: line.frozen_after,
            debt_after: line.debt_after,
            points_forgiven: line.points_forgiven,
            reference: line.reference.as_deref(),
            remark: line.remark.as_deref(),
            hold_id: line.hold_id,
            reverses_id: line.reverses_id,
            counterpart_id: line.counterpart_id,
            lot_id: line.lot_id,
            allocations: parts.collect(),
            rules_version: line.rules_version,
            expires_at: time(line.expires_at),
            occurred_at: Time(line.occurred_at),
            recorded_at: Time(line.recorded_at),
        }
    }
}

/// Points set aside for an order.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsHold)]
pub struct HoldView<'a> {
    #[schema(value_type = schema::HoldId)]
    id: HoldId,
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    points: i64,
    captured: i64,
    released: i64,
    #[schema(value_type = schema::HoldStatus)]
    status: HoldStatus,
    #[schema(required, value_type = Option<String>)]
    reference: Option<&'a str>,
    #[schema(required, value_type = Option<String>)]
    remark: Option<&'a str>,
    #[schema(required)]
    expires_at: Option<Time>,
    /// Keeps a grant until its points become available, at `expires_at`; ends by itself.
    pending: bool,
    /// The member's available points after the command; null when the hold is only read.
    #[schema(required)]
    available: Option<i64>,
    /// The transaction the command has written; null when the hold is only read.
    #[schema(required, value_type = Option<schema::TransactionId>)]
    transaction_id: Option<TransactionId>,
    created_at: Time,
    #[schema(required)]
    closed_at: Option<Time>,
}

impl<'a> HoldView<'a> {
    /// The hold as a command left it.
    pub fn new(hold: &'a Hold, command: Option<(i64, TransactionId)>) -> Self {
        HoldView {
            id: hold.id,
            member_id: &hold.member_id,
            points: hold.points,
            captured: hold.captured,
            released: hold.released,
            status: hold.status,
            reference: hold.reference.as_deref(),
            remark: hold.remark.as_deref(),
            expires_at: time(hold.expires_at.known()),
            pending: hold.pending,
            available: command.map(|(available, _)| available),
            transaction_id: command.map(|(_, transaction_id)| transaction_id),
            created_at: Time(hold.created_at),
            closed_at: time(hold.closed_at),
        }
    }

    /// The hold as it stands at `at`, whether or not its end by the deadline has been written.
    pub fn at(hold: &'a Hold, at: Timestamp) -> Self {
        let view = HoldView::new(hold, None);
        if hold.is_overdue(at) {
            let closed_at = Some(Time(hold.expires_at));
            HoldView { status: HoldStatus::Expired, released: hold.points, closed_at, ..view }
        } else {
            view
        }
    }
}

/// Points that came in together and expire together.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsLot)]
pub struct LotView {
    #[schema(value_type = schema::LotId)]
    id: LotId,
    points: i64,
    remaining: i64,
    held: i64,
    used: i64,
    expired: i64,
    revoked: i64,
    /// Went on in another lot: after a refund, because this one had expired, or of another member.
    moved: i64,
    available_from: Time,
    #[schema(required)]
    expires_at: Option<Time>,
    /// Expires by inactivity: `expires_at` moves to the end of the day that comes so many days after what the member does.
    #[schema(required)]
    idle_days: Option<u32>,
    created_at: Time,
}

impl From<&Lot> for LotView {
    fn from(lot: &Lot) -> Self {
        LotView {
            id: lot.id,
            points: lot.points,
            remaining: lot.remaining,
            held: lot.held,
            used: lot.used,
            expired: lot.expired,
            revoked: lot.revoked,
            moved: lot.moved,
            available_from: Time(lot.available_from),
            expires_at: time(lot.expires_at.known()),
            idle_days: lot.idle_days,
            created_at: Time(lot.created_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView<'a> {
    #[schema(value_type = schema::EventId)]
    id: EventId,
    /// Where it stands in the log.
    #[schema(value_type = String, example = "812-0")]
    position: String,
    #[serde(rename = "type")]
    #[schema(value_type = schema::EventType)]
    kind: &'static str,
    /// The object concerned, of the kind that `type` begins with.
    subject_id: String,
    #[schema(required, value_type = Option<schema::MemberId>)]
    member_id: Option<&'a MemberId>,
    #[schema(value_type = Object)]
    data: &'a RawValue,
    /// The API key that asked for it; null for the server itself.
    #[schema(required, value_type = Option<schema::KeyId>)]
    actor: Option<KeyId>,
    occurred_at: Time,
    recorded_at: Time,
}

impl<'a> EventView<'a> {
    /// # Errors
    /// When the stored data is no JSON.
    pub fn new(position: EventPosition, event: &'a Event) -> Result<Self, serde_json::Error> {
        let data: &RawValue = serde_json::from_str(&event.data)?;
        Ok(EventView {
            id: event.id,
            position: format!("{}-{}", position.tx, position.ordinal),
            kind: event.kind.as_str(),
            subject_id: event.kind.subject_text(event.subject),
            member_id: event.member_id.as_ref(),
            data,
            actor: event.actor,
            occurred_at: Time(event.occurred_at),
            recorded_at: Time(event.recorded_at),
        })
    }
}

/// Work for later.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView<'a> {
    #[schema(value_type = schema::JobId)]
    id: JobId,
    #[schema(value_type = schema::JobKind)]
    kind: &'static str,
    #[schema(value_type = schema::JobState)]
    state: &'static str,
    #[schema(value_type = String, example = "NORMAL")]
    priority: &'static str,
    /// It runs no earlier.
    run_at: Time,
    /// Tries since it last made progress, and how many it may have.
    attempts: i64,
    max_attempts: i64,
    /// What it is to do.
    #[schema(value_type = Object)]
    payload: Value,
    /// How far it has come, or what came of it.
    #[schema(value_type = Object)]
    progress: Value,
    /// Why the last attempt failed.
    #[schema(required, value_type = Option<String>)]
    last_error: Option<&'a str>,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    finished_at: Option<Time>,
}

impl<'a> JobView<'a> {
    /// # Errors
    /// When what is stored is no JSON.
    pub fn new(job: &'a Job) -> Result<Self, Problem> {
        let mut payload: Value = serde_json::from_str(&job.payload).map_err(Problem::internal)?;
        // Inside, times are numbers.
        for (name, value) in payload.as_object_mut().into_iter().flatten() {
            if let (true, Some(micros)) = (name.ends_with("_at"), value.as_i64()) {
                *value = Time(Timestamp(micros)).to_string().into();
            }
        }
        Ok(JobView {
            id: job.id,
            kind: job.kind.as_str(),
            state: job.state.as_str(),
            priority: job.priority.as_str(),
            run_at: Time(job.run_at),
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            payload,
            progress: serde_json::from_str(&job.progress).map_err(Problem::internal)?,
            last_error: job.last_error.as_deref(),
            created_at: Time(job.created_at),
            updated_at: Time(job.updated_at),
            finished_at: time(job.finished_at),
        })
    }
}

/// Many rows worked off in the background.
#[derive(Serialize, ToSchema)]
#[schema(as = Bulk)]
pub struct BulkView {
    #[schema(value_type = schema::BulkId)]
    id: BulkId,
    #[schema(value_type = schema::BulkKind)]
    kind: &'static str,
    /// Of a distribution.
    #[schema(required, value_type = Option<schema::TemplateId>)]
    template_id: Option<TemplateId>,
    #[schema(value_type = schema::BulkStatus)]
    status: &'static str,
    rows: i64,
    /// Rows that had their effect.
    accepted: i64,
    /// Rows that the rules refused.
    refused: i64,
    /// Duplicates, and rows that cannot be read.
    skipped: i64,
    /// Rows not worked off yet; of a cancelled one, never.
    pending: i64,
    /// The job that does the work: it has the reason when the work stands still.
    #[schema(value_type = schema::JobId)]
    job_id: JobId,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    finished_at: Option<Time>,
    /// When its results went, after their time.
    #[schema(required)]
    results_dropped_at: Option<Time>,
}

impl From<&Bulk> for BulkView {
    fn from(bulk: &Bulk) -> Self {
        BulkView {
            id: bulk.id,
            kind: bulk.kind.as_str(),
            template_id: bulk.template_id,
            status: bulk.status.as_str(),
            rows: bulk.rows,
            accepted: bulk.accepted,
            refused: bulk.refused,
            skipped: bulk.skipped,
            pending: bulk.rows - bulk.accepted - bulk.refused - bulk.skipped,
            job_id: bulk.job_id(),
            created_at: Time(bulk.created_at),
            updated_at: Time(bulk.updated_at),
            finished_at: time(bulk.finished_at),
            results_dropped_at: time(bulk.results_dropped_at),
        }
    }
}
