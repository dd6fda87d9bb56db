//! A tenant's rules for points and orders: read, set in versions, looked back at.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use scrip_domain::check_in::MAX_MAKE_UP_DAYS;
use scrip_domain::condition::Condition;
use scrip_domain::coupon::MAX_AMOUNT;
use scrip_domain::points::{
    Campaign, CheckIn, DebtPolicy, Earn, Earned, MAX_CAMPAIGN_CONDITIONS, MAX_CAMPAIGN_PERCENT, MAX_CAMPAIGNS,
    MAX_POINTS, MAX_REMINDER_DAYS, MAX_REMINDERS, PointsRule, PointsValidity, Redeem, StreakBonus,
};
use scrip_domain::pricing::{MAX_COUPONS, OrderRule, PercentBase, Rounding, Rules};
use scrip_domain::rules::RulesVersion;
use scrip_domain::time::{Calendar, MICROS_PER_DAY, Window};
use scrip_domain::{Command, MemberId, Rejection, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AppState;
use super::answer::{self, etag};
use super::auth::{Operator, Service};
use super::consistency::{ConsistencyToken, Reads};
use super::extract::{Checked, Cursor, Input, Object, Parameters};
use super::fields::FieldErrors;
use super::problem::{Code, Problem};
use super::schema::{self, EditProblems, PageQuery, Problems};
use super::templates::version_of;
use super::time::Time;
use super::views::{Page, RulesPage, WindowView};
use crate::{calendar, clock};

/// The largest ratio of points to money, in points for each `base`.
const MAX_RATIO: i64 = 1_000_000;
const MAX_DAYS: i64 = 3_650;
/// How many days back a simulation goes when the request does not say, and over how many orders.
const SIMULATED_DAYS: i64 = 30;
const SIMULATED_ORDERS: i64 = 1_000;
const MAX_SIMULATED_ORDERS: i64 = 10_000;
const MAX_STREAK_BONUSES: usize = 50;
const BASES: RangeInclusive<i64> = 1..=MAX_AMOUNT;

/// All rules. What is left out takes its default, not what holds now.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PointsRulesRequest)]
pub struct RulesRequest {
    /// Off, nothing is earned by orders or check-ins and nothing is redeemed by orders. Default: true.
    enabled: Option<bool>,
    #[schema(value_type = Option<EarnRequest>)]
    earn: Option<Object<EarnRequest>>,
    #[schema(value_type = Option<RedeemRequest>)]
    redeem: Option<Object<RedeemRequest>>,
    #[schema(value_type = Option<PointsValidityView>)]
    validity: Option<Object<ValidityRequest>>,
    #[schema(value_type = Option<CheckInRequest>)]
    check_in: Option<Object<CheckInRequest>>,
    /// What multiplies the points of orders. Default: nothing.
    #[schema(value_type = Option<Vec<CampaignRequest>>, max_items = 100)]
    campaigns: Option<Vec<Object<CampaignRequest>>>,
    /// How many days before points expire an event `points.expiring` tells of them, each once. Default: none.
    #[schema(max_items = 5)]
    expiry_reminder_days: Option<Vec<i64>>,
    #[schema(value_type = Option<AdjustmentsRequest>)]
    adjustments: Option<Object<AdjustmentsRequest>>,
    #[schema(value_type = Option<RefundRuleRequest>)]
    refund: Option<Object<RefundRuleRequest>>,
    #[schema(value_type = Option<OrderRuleRequest>)]
    orders: Option<Object<OrderRuleRequest>>,
    /// From when the rules hold. Default: at once.
    effective_from: Option<Time>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

/// Points that operators move by hand.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PointsAdjustmentsRequest)]
pub struct AdjustmentsRequest {
    /// More points than this at a time need the approval of another key. Default: none do.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000i64)]
    approval_above: Option<i64>,
}

/// Grants that are taken back: by refunds of orders, and by reversals.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PointsRefundRuleRequest)]
pub struct RefundRuleRequest {
    /// What becomes of points that the account does not have any more: OWE, a debt that later grants settle first; FORGIVE, they
    /// are written off. The rules of the time at which they are taken back count. Default: OWE.
    #[schema(value_type = Option<schema::DebtPolicy>)]
    debt_policy: Option<DebtPolicy>,
}

/// `ratio` points for each `base` minor units paid for goods after coupons.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PointsEarnRequest)]
pub struct EarnRequest {
    /// Default: true.
    enabled: Option<bool>,
    /// Default: 1.
    #[schema(minimum = 1, maximum = 1_000_000)]
    ratio: Option<i64>,
    /// Default: 100.
    #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
    base: Option<i64>,
    /// How many days after the payment the points come in; what is refunded by then is never earned. Default: 0, at once.
    #[schema(minimum = 0, maximum = 3650)]
    delay_days: Option<i64>,
    /// The most that an order earns, whatever its goods and campaigns. Default: any number.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000i64)]
    max_points_per_order: Option<i64>,
    /// The most that all orders of a member are granted in a day of the tenant's time zone. What goes beyond is cut when an
    /// order is granted its points. Default: any number.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    max_points_per_day: Option<i64>,
    /// The same in a week, which begins on Monday. Default: any number.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    max_points_per_week: Option<i64>,
    /// The same in a month. Default: any number.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    max_points_per_month: Option<i64>,
}

/// `ratio` points pay `base` minor units.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PointsRedeemRequest)]
pub struct RedeemRequest {
    /// Default: true.
    enabled: Option<bool>,
    /// Default: 100.
    #[schema(minimum = 1, maximum = 1_000_000)]
    ratio: Option<i64>,
    /// Default: 100.
    #[schema(minimum = 1, maximum = 1_000_000_000_000i64)]
    base: Option<i64>,
    /// Default: any number.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000i64)]
    max_points_per_order: Option<i64>,
    /// Of the goods at item prices, how much coupons and points may pay together. Default: 50.
    #[schema(minimum = 1, maximum = 100)]
    max_percent: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidityRequest {
    r#type: Option<ValidityKind>,
    days: Option<i64>,
    after_months: Option<i64>,
    after_years: Option<i64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ValidityKind {
    Never,
    Days,
    EndOfMonth,
    EndOfYear,
    Inactivity,
}

/// What a daily check-in gives.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckInRequest {
    /// Default: true.
    enabled: Option<bool>,
    /// Default: 10.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    /// Extra points on the day a streak reaches so many days. Default: none.
    #[schema(value_type = Option<Vec<StreakBonusView>>, max_items = 50)]
    streak_bonuses: Option<Vec<Object<StreakBonusRequest>>>,
    /// How many days back a missed day can be made up. Default: 0, not at all.
    #[schema(minimum = 0, maximum = 31)]
    make_up_days: Option<i64>,
    /// What making a day up costs, in points. Default: 0.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000i64)]
    make_up_price: Option<i64>,
    /// How many days of a month can be made up. Null: all.
    #[schema(minimum = 1, maximum = 31)]
    make_ups_per_month: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreakBonusRequest {
    days: Option<i64>,
    points: Option<i64>,
}

/// Multiplies what orders earn. Of several that hold for a line, the best counts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PointsCampaignRequest)]
pub struct CampaignRequest {
    #[schema(value_type = String, min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Default: no beginning.
    starts_at: Option<Time>,
    /// Default: no end.
    ends_at: Option<Time>,
    /// Categories of goods. Default: all goods.
    #[schema(max_items = 1000)]
    categories: Option<Vec<String>>,
    /// Default: all members.
    #[schema(max_items = 1000)]
    member_levels: Option<Vec<String>>,
    /// A CEL expression over the order and the member, as in coupon templates; `eligible` are the goods of the categories.
    /// What cannot be told, for want of an attribute, does not hold. Default: any order.
    #[schema(min_length = 1, max_length = 500)]
    condition: Option<String>,
    /// Of the usual points: 200 doubles them, 0 gives none.
    #[schema(value_type = i64, minimum = 0, maximum = 1000)]
    percent: Option<i64>,
}

/// How coupons and points combine in an order.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderRuleRequest {
    /// Default: 5.
    #[schema(minimum = 0, maximum = 20)]
    max_coupons_per_order: Option<i64>,
    /// Of the goods at item prices, what all coupons may take together. Default: 100.
    #[schema(minimum = 1, maximum = 100)]
    max_total_percent: Option<i64>,
    /// The same in minor units. Default: any amount.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64)]
    max_total_amount: Option<i64>,
    /// Whether points may be redeemed beside coupons. Default: true.
    points_with_coupons: Option<bool>,
    /// Whether a line that one coupon has made cheaper is left alone by the others. Default: false.
    one_coupon_per_line: Option<bool>,
    /// Whether percentages are of what earlier coupons have left, or of item prices. Default: REMAINING.
    #[schema(value_type = Option<schema::PercentBase>)]
    percent_base: Option<PercentBase>,
    /// Of percentages off, to the minor unit. Default: HALF_UP.
    #[schema(value_type = Option<schema::Rounding>)]
    rounding: Option<Rounding>,
}

/// Rules that keep all limits, and when they hold.
pub struct Authored {
    pub rules: Rules,
    pub effective_from: Option<Timestamp>,
    pub effective_at: Option<Timestamp>,
}

impl Checked for RulesRequest {
    type Value = Authored;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Authored> {
        let effective_at = errors.effective_at(self.effective_at, now);
        let rules = self.check_rules(errors)?;
        Some(Authored { rules: rules.0, effective_from: rules.1, effective_at })
    }
}

impl RulesRequest {
    fn check_rules(self, errors: &mut FieldErrors) -> Option<(Rules, Option<Timestamp>)> {
        let defaults = PointsRule::default();
        let earn = self.earn.unwrap_or_default().0.check(errors, defaults.earn);
        let redeem = self.redeem.unwrap_or_default().0.check(errors, defaults.redeem);
        let validity = match self.validity {
            Some(validity) => validity.0.check(errors),
            None => Some(defaults.validity),
        };
        let check_in = self.check_in.unwrap_or_default().0.check(errors, defaults.check_in);
        let campaigns = check_campaigns(errors, self.campaigns.unwrap_or_default());
        let reminders = check_reminders(errors, self.expiry_reminder_days.unwrap_or_default());
        let approval_above = self.adjustments.unwrap_or_default().0.approval_above;
        if let Some(above) = approval_above {
            errors.within("adjustments.approval_above", above, 0..=MAX_POINTS);
        }
        let debt_policy = self.refund.unwrap_or_default().0.debt_policy.unwrap_or(defaults.debt_policy);
        let orders = self.orders.unwrap_or_default().0.check(errors, OrderRule::default());
        let points = PointsRule {
            enabled: self.enabled.unwrap_or(defaults.enabled),
            earn: earn?,
            redeem: redeem?,
            validity: validity?,
            check_in: check_in?,
            campaigns: campaigns?,
            expiry_reminder_days: reminders?,
            approval_above,
            debt_policy,
        };
        let rules = Rules { version: 0, points, orders: orders? };
        Some((rules, self.effective_from.map(|at| at.0)))
    }
}

impl EarnRequest {
    fn check(self, errors: &mut FieldErrors, defaults: Earn) -> Option<Earn> {
        let ratio = errors.within("earn.ratio", self.ratio.unwrap_or(defaults.ratio), 1..=MAX_RATIO);
        let base = errors.within("earn.base", self.base.unwrap_or(defaults.base), BASES);
        let delay_days = errors.within("earn.delay_days", self.delay_days.unwrap_or(0), 0..=MAX_DAYS);
        let enabled = self.enabled.unwrap_or(defaults.enabled);
        if let Some(most) = self.max_points_per_order {
            errors.within("earn.max_points_per_order", most, 0..=MAX_POINTS);
        }
        for (field, most) in [
            ("earn.max_points_per_day", self.max_points_per_day),
            ("earn.max_points_per_week", self.max_points_per_week),
            ("earn.max_points_per_month", self.max_points_per_month),
        ] {
            if let Some(most) = most {
                errors.within(field, most, 1..=MAX_POINTS);
            }
        }
        let delay_days = u32::try_from(delay_days?).ok()?;
        Some(Earn {
            enabled,
            ratio: ratio?,
            base: base?,
            delay_days,
            max_points_per_order: self.max_points_per_order,
            max_points_per_day: self.max_points_per_day,
            max_points_per_week: self.max_points_per_week,
            max_points_per_month: self.max_points_per_month,
        })
    }
}

impl RedeemRequest {
    fn check(self, errors: &mut FieldErrors, defaults: Redeem) -> Option<Redeem> {
        let ratio = errors.within("redeem.ratio", self.ratio.unwrap_or(defaults.ratio), 1..=MAX_RATIO);
        let base = errors.within("redeem.base", self.base.unwrap_or(defaults.base), BASES);
        if let Some(most) = self.max_points_per_order {
            errors.within("redeem.max_points_per_order", most, 0..=MAX_POINTS);
        }
        let max_percent = match self.max_percent {
            Some(percent) => u8::try_from(errors.within("redeem.max_percent", percent, 1..=100)?).ok(),
            None => defaults.max_percent,
        };
        Some(Redeem {
            enabled: self.enabled.unwrap_or(defaults.enabled),
            ratio: ratio?,
            base: base?,
            max_points_per_order: self.max_points_per_order,
            max_percent,
        })
    }
}

impl ValidityRequest {
    fn check(self, errors: &mut FieldErrors) -> Option<PointsValidity> {
        let kind = errors.required("validity.type", self.r#type)?;
        let fields = [
            ("validity.days", self.days.is_some(), matches!(kind, ValidityKind::Days | ValidityKind::Inactivity)),
            ("validity.after_months", self.after_months.is_some(), matches!(kind, ValidityKind::EndOfMonth)),
            ("validity.after_years", self.after_years.is_some(), matches!(kind, ValidityKind::EndOfYear)),
        ];
        for (field, _, _) in fields.iter().filter(|(_, given, own)| *given && !own) {
            errors.add(*field, "does not belong to this type", "Leave it out.");
        }
        match kind {
            ValidityKind::Never => Some(PointsValidity::Never),
            ValidityKind::Days => {
                let days = errors.integer("validity.days", self.days, 1..=MAX_DAYS)?;
                Some(PointsValidity::Days { days: u32::try_from(days).ok()? })
            }
            ValidityKind::EndOfMonth => {
                let most = i64::from(Calendar::MONTHS_AHEAD);
                let after = errors.within("validity.after_months", self.after_months.unwrap_or(0), 0..=most)?;
                Some(PointsValidity::EndOfMonth { after_months: u8::try_from(after).ok()? })
            }
            ValidityKind::EndOfYear => {
                let most = i64::from(Calendar::YEARS_AHEAD);
                let after = errors.within("validity.after_years", self.after_years.unwrap_or(0), 0..=most)?;
                Some(PointsValidity::EndOfYear { after_years: u8::try_from(after).ok()? })
            }
            ValidityKind::Inactivity => {
                let days = errors.integer("validity.days", self.days, 1..=MAX_DAYS)?;
                Some(PointsValidity::Inactivity { days: u32::try_from(days).ok()? })
            }
        }
    }
}

impl CheckInRequest {
    fn check(self, errors: &mut FieldErrors, defaults: CheckIn) -> Option<CheckIn> {
        let points = errors.within("check_in.points", self.points.unwrap_or(defaults.points), 1..=MAX_POINTS);
        let bonuses = self.streak_bonuses.unwrap_or_default();
        if bonuses.len() > MAX_STREAK_BONUSES {
            let message = format!("has {} entries", bonuses.len());
            errors.add("check_in.streak_bonuses", message, format!("Send at most {MAX_STREAK_BONUSES}."));
        }
        let mut streak_bonuses: Vec<StreakBonus> = Vec::with_capacity(bonuses.len().min(MAX_STREAK_BONUSES));
        for (index, Object(bonus)) in bonuses.into_iter().enumerate().take(MAX_STREAK_BONUSES) {
            let at = |name: &str| format!("check_in.streak_bonuses[{index}].{name}");
            let days = within(errors, at("days"), bonus.days, 2..=MAX_DAYS);
            let points = within(errors, at("points"), bonus.points, 1..=MAX_POINTS);
            let (Some(days), Some(points)) = (days, points) else { continue };
            let days = u32::try_from(days).ok()?;
            if streak_bonuses.last().is_some_and(|last| last.days >= days) {
                errors.add(at("days"), "is not more than that before it", "Send them in the order of their days.");
            }
            streak_bonuses.push(StreakBonus { days, points });
        }
        let days = errors.within("check_in.make_up_days", self.make_up_days.unwrap_or(0), 0..=MAX_MAKE_UP_DAYS.into());
        let price = errors.within("check_in.make_up_price", self.make_up_price.unwrap_or(0), 0..=MAX_POINTS);
        let per_month = self
            .make_ups_per_month
            .and_then(|limit| errors.within("check_in.make_ups_per_month", limit, 1..=MAX_MAKE_UP_DAYS.into()));
        Some(CheckIn {
            enabled: self.enabled.unwrap_or(defaults.enabled),
            points: points?,
            streak_bonuses,
            make_up_days: u32::try_from(days?).ok()?,
            make_up_price: price?,
            make_ups_per_month: per_month.and_then(|limit| u32::try_from(limit).ok()),
        })
    }
}

fn check_campaigns(errors: &mut FieldErrors, requests: Vec<Object<CampaignRequest>>) -> Option<Vec<Campaign>> {
    if requests.len() > MAX_CAMPAIGNS {
        let message = format!("has {} entries", requests.len());
        errors.add("campaigns", message, format!("Send at most {MAX_CAMPAIGNS}; leave past ones out."));
    }
    let conditions = requests.iter().filter(|Object(request)| request.condition.is_some()).count();
    if conditions > MAX_CAMPAIGN_CONDITIONS {
        let message = format!("has {conditions} entries with a condition");
        errors.add(
            "campaigns",
            message,
            format!("Give at most {MAX_CAMPAIGN_CONDITIONS} a condition; leave past ones out."),
        );
    }
    let mut campaigns = Vec::with_capacity(requests.len().min(MAX_CAMPAIGNS));
    for (index, Object(request)) in requests.into_iter().enumerate().take(MAX_CAMPAIGNS) {
        let at = |name: &str| format!("campaigns[{index}].{name}");
        match &request.name {
            Some(name) => errors.text(at("name"), name, 1..=100),
            None => errors.add(at("name"), "is required", "Send it."),
        }
        let window = Window { starts_at: request.starts_at.map(|at| at.0), ends_at: request.ends_at.map(|at| at.0) };
        if let (Some(start), Some(end)) = (window.starts_at, window.ends_at)
            && start >= end
        {
            errors.add(at("ends_at"), "is not after the start", format!("Send a time after {}.", Time(start)));
        }
        let categories = request.categories.unwrap_or_default();
        errors.names(at("categories"), &categories);
        let member_levels = request.member_levels.unwrap_or_default();
        errors.names(at("member_levels"), &member_levels);
        let condition = request.condition.as_deref().and_then(|source| errors.condition(at("condition"), source));
        let percent = within(errors, at("percent"), request.percent, 0..=i64::from(MAX_CAMPAIGN_PERCENT));
        let (Some(name), Some(percent)) = (request.name, percent) else { continue };
        let percent = u16::try_from(percent).ok()?;
        campaigns.push(Campaign { name, window, categories, member_levels, condition, percent });
    }
    Some(campaigns)
}

/// Numbers of days, each once, in their order.
fn check_reminders(errors: &mut FieldErrors, days: Vec<i64>) -> Option<Vec<u32>> {
    if days.len() > MAX_REMINDERS {
        errors.add("expiry_reminder_days", "has too many entries", format!("Send {MAX_REMINDERS} at most."));
        return None;
    }
    let mut checked = Vec::with_capacity(days.len());
    for (index, days) in days.into_iter().enumerate() {
        let field = format!("expiry_reminder_days[{index}]");
        let days = u32::try_from(within(errors, field.clone(), Some(days), 1..=i64::from(MAX_REMINDER_DAYS))?).ok()?;
        if checked.contains(&days) {
            errors.add(field, "is there before", "Send each number once.");
            return None;
        }
        checked.push(days);
    }
    checked.sort_unstable();
    Some(checked)
}

/// The number of a list's entry, when it is there and lies in the range.
fn within(errors: &mut FieldErrors, field: String, value: Option<i64>, range: RangeInclusive<i64>) -> Option<i64> {
    let (least, most) = (range.start(), range.end());
    match value {
        Some(value) if range.contains(&value) => return Some(value),
        Some(value) => {
            errors.add(field, format!("is {value}"), format!("Send an integer from {least} to {most}."));
        }
        None => errors.add(field, "is required", "Send it."),
    }
    None
}

impl OrderRuleRequest {
    fn check(self, errors: &mut FieldErrors, defaults: OrderRule) -> Option<OrderRule> {
        let most = self.max_coupons_per_order.unwrap_or(defaults.max_coupons_per_order.into());
        let most = errors.within("orders.max_coupons_per_order", most, 0..=MAX_COUPONS as i64);
        let percent = self.max_total_percent.unwrap_or(defaults.max_total_percent.into());
        let percent = errors.within("orders.max_total_percent", percent, 1..=100);
        if let Some(amount) = self.max_total_amount {
            errors.within("orders.max_total_amount", amount, 0..=MAX_AMOUNT);
        }
        Some(OrderRule {
            max_coupons_per_order: u32::try_from(most?).ok()?,
            max_total_percent: u8::try_from(percent?).ok()?,
            max_total_amount: self.max_total_amount,
            points_with_coupons: self.points_with_coupons.unwrap_or(defaults.points_with_coupons),
            one_coupon_per_line: self.one_coupon_per_line.unwrap_or(defaults.one_coupon_per_line),
            percent_base: self.percent_base.unwrap_or(defaults.percent_base),
            rounding: self.rounding.unwrap_or(defaults.rounding),
        })
    }
}

/// A version of the rules.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsRules)]
pub struct RulesView<'a> {
    /// 0 until rules are set.
    version: i64,
    /// The newest version there is, which may not hold yet. The ETag.
    newest_version: i64,
    effective_from: Time,
    enabled: bool,
    earn: EarnView,
    redeem: RedeemView,
    validity: PointsValidityView,
    check_in: CheckInView,
    #[schema(value_type = Vec<CampaignView<'static>>)]
    campaigns: Vec<CampaignView<'a>>,
    #[schema(value_type = Vec<u32>)]
    expiry_reminder_days: &'a [u32],
    adjustments: AdjustmentsView,
    refund: RefundRuleView,
    orders: OrderRuleView,
    created_at: Time,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PointsAdjustmentsRule)]
pub struct AdjustmentsView {
    /// More points than this at a time need the approval of another key; null: none do.
    #[schema(required)]
    approval_above: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PointsRefundRule)]
pub struct RefundRuleView {
    #[schema(value_type = schema::DebtPolicy)]
    debt_policy: DebtPolicy,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PointsEarn)]
pub struct EarnView {
    enabled: bool,
    ratio: i64,
    base: i64,
    delay_days: u32,
    #[schema(required)]
    max_points_per_order: Option<i64>,
    #[schema(required)]
    max_points_per_day: Option<i64>,
    #[schema(required)]
    max_points_per_week: Option<i64>,
    #[schema(required)]
    max_points_per_month: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PointsRedeem)]
pub struct RedeemView {
    enabled: bool,
    ratio: i64,
    base: i64,
    #[schema(required)]
    max_points_per_order: Option<i64>,
    max_percent: u8,
}

/// How long earned points live.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = PointsValidity)]
pub enum PointsValidityView {
    Never,
    /// Days of 24 hours.
    Days {
        #[schema(minimum = 1, maximum = 3650)]
        days: u32,
    },
    /// To the end of the month in which they come in, or of a later one, in the tenant's time zone.
    EndOfMonth {
        #[schema(minimum = 0, maximum = 24)]
        after_months: u8,
    },
    /// To the end of the year in which they come in, or of a later one, in the tenant's time zone.
    EndOfYear {
        #[schema(minimum = 0, maximum = 5)]
        after_years: u8,
    },
    /// To the end of the day, in the tenant's time zone, that comes so many days after the member's last activity: to earn by an
    /// order, a check-in or a task, or to spend.
    Inactivity {
        #[schema(minimum = 1, maximum = 3650)]
        days: u32,
    },
}

#[derive(Serialize, ToSchema)]
#[schema(as = CheckInRule)]
pub struct CheckInView {
    enabled: bool,
    points: i64,
    streak_bonuses: Vec<StreakBonusView>,
    make_up_days: u32,
    make_up_price: i64,
    #[schema(required)]
    make_ups_per_month: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = StreakBonus)]
pub struct StreakBonusView {
    #[schema(minimum = 2, maximum = 3650)]
    days: u32,
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PointsCampaign)]
pub struct CampaignView<'a> {
    #[schema(value_type = String)]
    name: &'a str,
    #[serde(flatten)]
    #[schema(inline)]
    window: WindowView,
    #[schema(value_type = Vec<String>)]
    categories: &'a [String],
    #[schema(value_type = Vec<String>)]
    member_levels: &'a [String],
    #[schema(required)]
    condition: Option<&'a str>,
    percent: u16,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OrderRule)]
pub struct OrderRuleView {
    max_coupons_per_order: u32,
    max_total_percent: u8,
    #[schema(required)]
    max_total_amount: Option<i64>,
    points_with_coupons: bool,
    one_coupon_per_line: bool,
    #[schema(value_type = schema::PercentBase)]
    percent_base: PercentBase,
    #[schema(value_type = schema::Rounding)]
    rounding: Rounding,
}

impl<'a> From<&'a RulesVersion> for RulesView<'a> {
    fn from(version: &'a RulesVersion) -> Self {
        let Rules { points, orders, .. } = &*version.rules;
        let bonuses = points.check_in.streak_bonuses.iter();
        RulesView {
            version: version.rules.version,
            newest_version: version.newest,
            effective_from: Time(version.effective_from),
            enabled: points.enabled,
            earn: EarnView {
                enabled: points.earn.enabled,
                ratio: points.earn.ratio,
                base: points.earn.base,
                delay_days: points.earn.delay_days,
                max_points_per_order: points.earn.max_points_per_order,
                max_points_per_day: points.earn.max_points_per_day,
                max_points_per_week: points.earn.max_points_per_week,
                max_points_per_month: points.earn.max_points_per_month,
            },
            redeem: RedeemView {
                enabled: points.redeem.enabled,
                ratio: points.redeem.ratio,
                base: points.redeem.base,
                max_points_per_order: points.redeem.max_points_per_order,
                max_percent: points.redeem.max_percent.unwrap_or(100),
            },
            validity: match points.validity {
                PointsValidity::Never => PointsValidityView::Never,
                PointsValidity::Days { days } => PointsValidityView::Days { days },
                PointsValidity::EndOfMonth { after_months } => PointsValidityView::EndOfMonth { after_months },
                PointsValidity::EndOfYear { after_years } => PointsValidityView::EndOfYear { after_years },
                PointsValidity::Inactivity { days } => PointsValidityView::Inactivity { days },
            },
            check_in: CheckInView {
                enabled: points.check_in.enabled,
                points: points.check_in.points,
                streak_bonuses: bonuses.map(|one| StreakBonusView { days: one.days, points: one.points }).collect(),
                make_up_days: points.check_in.make_up_days,
                make_up_price: points.check_in.make_up_price,
                make_ups_per_month: points.check_in.make_ups_per_month,
            },
            campaigns: points.campaigns.iter().map(CampaignView::from).collect(),
            expiry_reminder_days: &points.expiry_reminder_days,
            adjustments: AdjustmentsView { approval_above: points.approval_above },
            refund: RefundRuleView { debt_policy: points.debt_policy },
            orders: OrderRuleView {
                max_coupons_per_order: orders.max_coupons_per_order,
                max_total_percent: orders.max_total_percent,
                max_total_amount: orders.max_total_amount,
                points_with_coupons: orders.points_with_coupons,
                one_coupon_per_line: orders.one_coupon_per_line,
                percent_base: orders.percent_base,
                rounding: orders.rounding,
            },
            created_at: Time(version.created_at),
        }
    }
}

impl<'a> From<&'a Campaign> for CampaignView<'a> {
    fn from(campaign: &'a Campaign) -> Self {
        CampaignView {
            name: &campaign.name,
            window: WindowView::from(&campaign.window),
            categories: &campaign.categories,
            member_levels: &campaign.member_levels,
            condition: campaign.condition.as_ref().map(Condition::source),
            percent: campaign.percent,
        }
    }
}

/// Read the rules of points and orders
///
/// Those that hold now, or at `at`. The ETag is the newest version, which may be one that holds later. Operators, and whoever
/// brings a consistency token, see the store; others what it was a moment ago.
#[utoipa::path(get, path = "/v1/points-rules", tag = "Rules", security(("key" = ["SERVICE"])),
    params(("at" = Option<String>, Query, description = "A time in RFC 3339. Default: now."), ConsistencyToken),
    responses((status = 200, description = "The rules", body = RulesView<'static>, headers(("ETag" = String))), Problems))]
pub async fn get_points_rules(
    State(app): State<AppState>,
    Service(caller): Service,
    reads: Reads,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let at = parameters.take("at", "a time in RFC 3339, like 2026-03-01T00:00:00Z", |text| {
        serde_json::from_value::<Time>(text.into()).ok()
    });
    parameters.finish()?;
    let (tenant, at) = (caller.tenant(), at.map_or_else(clock::now, |at| at.0));
    let found = if reads.may_be_recent(&caller) {
        app.store.recent_rules(tenant, at).await?
    } else {
        reads.find_rules(tenant, at).await?
    };
    let mut response = answer::ok(&RulesView::from(&found))?;
    response.headers_mut().insert(header::ETAG, etag(found.newest));
    Ok(response)
}

/// Set the rules of points and orders
///
/// Makes a version, which holds from `effective_from` and never changes; orders keep the one that made them. To replace a
/// version that does not hold yet, set another with the same `effective_from`.
#[utoipa::path(put, path = "/v1/points-rules", tag = "Rules", security(("key" = ["OPERATOR"])),
    params(("If-Match" = String, Header, description = "The ETag as read.")), request_body = RulesRequest,
    responses((status = 200, description = "Set", body = RulesView<'static>, headers(("ETag" = String))), Problems,
        EditProblems))]
pub async fn set_points_rules(
    State(app): State<AppState>,
    Operator(caller): Operator,
    headers: HeaderMap,
    input: Input<RulesRequest>,
) -> Result<Response, Problem> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Err(Problem::new(Code::PreconditionRequired)) };
    let Authored { rules, effective_from, effective_at } = input.value;
    let Some(expected_version) = tag.to_str().ok().and_then(version_of) else {
        let current = app.store.find_rules(caller.tenant(), input.now).await?.newest;
        return Err(Rejection::RulesVersionStale { current }.into());
    };
    let command = Command::SetRules { expected_version, rules: Box::new(rules), effective_from };
    // If-Match makes a retry harmless; keys are for POST.
    answer::run(&app, caller.envelope(command, effective_at, None, input.now)?, StatusCode::OK).await
}

/// List the versions of the rules, newest first
#[utoipa::path(get, path = "/v1/points-rules/versions", tag = "Rules", security(("key" = ["SERVICE"])),
    params(PageQuery, ConsistencyToken), responses((status = 200, description = "A page", body = RulesPage), Problems))]
pub async fn list_points_rules_versions(Service(caller): Service, reads: Reads, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let page = parameters.page::<i64>();
    parameters.finish()?;
    let mut found = reads.list_rules(caller.tenant(), page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut found, page.limit, |version| version.rules.version.write());
    answer::ok(&Page { data: found.iter().map(RulesView::from).collect(), next_cursor })
}

/// Rules to try on orders that were paid.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PointsSimulationRequest)]
pub struct SimulationRequest {
    /// As they would be set; `effective_from` is not looked at.
    #[schema(value_type = RulesRequest)]
    rules: Option<Object<RulesRequest>>,
    /// Orders paid from then on. Default: 30 days ago.
    since: Option<Time>,
    /// At most so many of the newest. Default: 1,000.
    #[schema(minimum = 1, maximum = 10_000)]
    limit: Option<i64>,
}

/// What is tried, and on which orders.
pub struct Trial {
    rules: Rules,
    since: Timestamp,
    limit: i64,
}

impl Checked for SimulationRequest {
    type Value = Trial;

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Trial> {
        let default = Timestamp(now.0 - SIMULATED_DAYS * MICROS_PER_DAY);
        let limit = errors.within("limit", self.limit.unwrap_or(SIMULATED_ORDERS), 1..=MAX_SIMULATED_ORDERS);
        let rules = errors.required("rules", self.rules)?.0.check_rules(errors)?.0;
        Some(Trial { rules, since: self.since.map_or(default, |at| at.0), limit: limit? })
    }
}

/// What orders earned, and would have earned.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsSimulation)]
pub struct SimulationView {
    since: Time,
    until: Time,
    orders: i64,
    /// Orders that would have earned something else.
    orders_changed: i64,
    /// By the rules that made them, before refunds.
    points_earned: i64,
    /// As if none of their members had earned anything in the day, week and month of the first.
    points_simulated: i64,
    /// False when there are more such orders than `limit`.
    complete: bool,
}

/// Try rules on recent orders
///
/// Changes nothing. Prices stay as they were paid; only what they earn is reckoned anew, with the campaigns of the time of each
/// order. Limits for a day, a week or a month see the orders that are looked at, and none before.
#[utoipa::path(post, path = "/v1/points-rules/simulations", tag = "Rules", security(("key" = ["OPERATOR"])),
    request_body = SimulationRequest,
    responses((status = 200, description = "What they would have earned", body = SimulationView), Problems))]
pub async fn simulate_points_rules(
    State(app): State<AppState>,
    Operator(caller): Operator,
    input: Input<SimulationRequest>,
) -> Result<Response, Problem> {
    let Trial { rules, since, limit } = input.value;
    let until = input.now;
    let mut orders = app.store.recent_orders(caller.tenant(), since, until, limit + 1).await?;
    let complete = orders.len() as i64 <= limit;
    orders.truncate(limit as usize);
    let zone = app.store.zone(caller.tenant()).await?;
    // Conditions of campaigns, over thousands of orders: no work for a thread that others wait for.
    let simulated = tokio::task::spawn_blocking(move || {
        let rules = Arc::new(rules);
        let mut view = SimulationView {
            since: Time(since),
            until: Time(until),
            orders: orders.len() as i64,
            orders_changed: 0,
            points_earned: 0,
            points_simulated: 0,
            complete,
        };
        let mut earned_so_far: HashMap<&MemberId, Earned> = HashMap::new();
        // They come newest first.
        for order in orders.iter().rev() {
            let granted_at = order.paid_at.unwrap_or(order.created_at).plus_days(rules.points.earn.delay_days);
            let of_member = earned_so_far.entry(&order.member_id).or_default();
            *of_member = of_member.on(calendar::day(&zone, granted_at));
            let room = rules.points.earn.room(of_member).map_or(i64::MAX, |(room, _)| room);
            let (earned, simulated) =
                (order.quote.points_to_earn - order.points_cut(), order.would_earn(&rules).min(room));
            *of_member = of_member.plus(simulated);
            view.orders_changed += i64::from(earned != simulated);
            view.points_earned = view.points_earned.saturating_add(earned);
            view.points_simulated = view.points_simulated.saturating_add(simulated);
        }
        view
    });
    answer::ok(&simulated.await.map_err(Problem::internal)?)
}

#[cfg(test)]
mod tests {
    use super::super::extract::parse_value;
    use super::super::problem::Language;
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<Rules, Vec<String>> {
        parse_value::<RulesRequest>(value, FieldErrors::default(), Timestamp(0)).map(|authored| authored.rules).map_err(
            |problem| {
                let body = serde_json::to_value(problem.body(Language::English, "r")).unwrap();
                let list = body["errors"].as_array().unwrap();
                list.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
            },
        )
    }

    #[test]
    fn what_is_left_out_takes_its_default() {
        assert_eq!(read(json!({})), Ok(Rules::default()));
        let earn = read(json!({ "earn": { "ratio": 2 } })).unwrap().points.earn;
        assert_eq!((earn.enabled, earn.ratio, earn.base, earn.delay_days), (true, 2, 100, 0));
    }

    #[test]
    fn what_is_shown_can_be_sent() {
        let rules = read(json!({
            "enabled": false,
            "earn": { "enabled": false, "ratio": 3, "base": 500, "delay_days": 14, "max_points_per_order": 100,
                "max_points_per_day": 200, "max_points_per_week": 300, "max_points_per_month": 400 },
            "redeem": { "ratio": 50, "base": 1, "max_points_per_order": 5000, "max_percent": 100 },
            "validity": { "type": "END_OF_YEAR", "after_years": 1 },
            "check_in": { "points": 5, "streak_bonuses": [{ "days": 3, "points": 5 }, { "days": 7, "points": 20 }],
                "make_up_days": 7, "make_up_price": 30, "make_ups_per_month": 2 },
            "campaigns": [{ "name": "double", "starts_at": "2026-11-11T00:00:00Z", "ends_at": null,
                "categories": ["c"], "member_levels": ["GOLD"], "percent": 200 }],
            "expiry_reminder_days": [1, 7, 30],
            "refund": { "debt_policy": "FORGIVE" },
            "orders": { "max_coupons_per_order": 2, "max_total_percent": 80, "max_total_amount": 5000,
                "points_with_coupons": false, "one_coupon_per_line": true, "percent_base": "INITIAL", "rounding": "HALF_EVEN" },
        }))
        .unwrap();
        let (at, rules) = (Timestamp(0), Arc::new(rules));
        let version = RulesVersion { rules: rules.clone(), effective_from: at, created_at: at, newest: 0 };
        let mut shown = serde_json::to_value(RulesView::from(&version)).unwrap();
        for field in ["version", "newest_version", "effective_from", "created_at"] {
            shown.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(read(shown).as_ref(), Ok(&*rules));
    }

    #[test]
    fn every_limit_is_kept_and_told() {
        for (body, field) in [
            (json!({ "earn": { "ratio": 0 } }), "earn.ratio"),
            (json!({ "earn": { "base": 0 } }), "earn.base"),
            (json!({ "earn": { "delay_days": -1 } }), "earn.delay_days"),
            (json!({ "earn": { "max_points_per_order": -1 } }), "earn.max_points_per_order"),
            (json!({ "earn": { "max_points_per_day": 0 } }), "earn.max_points_per_day"),
            (json!({ "earn": { "max_points_per_week": MAX_POINTS + 1 } }), "earn.max_points_per_week"),
            (json!({ "earn": { "max_points_per_month": -1 } }), "earn.max_points_per_month"),
            (json!({ "redeem": { "ratio": 0 } }), "redeem.ratio"),
            (json!({ "redeem": { "base": MAX_AMOUNT + 1 } }), "redeem.base"),
            (json!({ "redeem": { "max_points_per_order": -1 } }), "redeem.max_points_per_order"),
            (json!({ "redeem": { "max_percent": 101 } }), "redeem.max_percent"),
            (json!({ "validity": {} }), "validity.type"),
            (json!({ "validity": { "type": "DAYS" } }), "validity.days"),
            (json!({ "validity": { "type": "NEVER", "days": 3 } }), "validity.days"),
            (json!({ "validity": { "type": "END_OF_MONTH", "after_months": 25 } }), "validity.after_months"),
            (json!({ "validity": { "type": "END_OF_YEAR", "after_years": 6 } }), "validity.after_years"),
            (json!({ "check_in": { "points": 0 } }), "check_in.points"),
            (json!({ "check_in": { "make_up_days": 32 } }), "check_in.make_up_days"),
            (json!({ "check_in": { "make_up_price": -1 } }), "check_in.make_up_price"),
            (json!({ "check_in": { "make_ups_per_month": 0 } }), "check_in.make_ups_per_month"),
            (
                json!({ "check_in": { "streak_bonuses": [{ "days": 1, "points": 1 }] } }),
                "check_in.streak_bonuses[0].days",
            ),
            (
                json!({ "check_in": { "streak_bonuses": [{ "days": 3, "points": 1 }, { "days": 3, "points": 2 }] } }),
                "check_in.streak_bonuses[1].days",
            ),
            (json!({ "adjustments": { "approval_above": -1 } }), "adjustments.approval_above"),
            (json!({ "refund": { "debt_policy": "X" } }), "refund.debt_policy"),
            (json!({ "refund": { "debt_policy": 3 } }), "refund.debt_policy"),
            (json!({ "refund": { "debt_policy": "forgive" } }), "refund.debt_policy"),
            (json!({ "refund": { "policy": "OWE" } }), "refund.policy"),
            (json!({ "expiry_reminder_days": [7, 0] }), "expiry_reminder_days[1]"),
            (json!({ "expiry_reminder_days": [366] }), "expiry_reminder_days[0]"),
            (json!({ "expiry_reminder_days": [7, 7] }), "expiry_reminder_days[1]"),
            (json!({ "expiry_reminder_days": [1, 2, 3, 4, 5, 6] }), "expiry_reminder_days"),
            (json!({ "campaigns": [{ "percent": 200 }] }), "campaigns[0].name"),
            (json!({ "campaigns": [{ "name": "n" }] }), "campaigns[0].percent"),
            (json!({ "campaigns": [{ "name": "n", "percent": 1001 }] }), "campaigns[0].percent"),
            (json!({ "campaigns": [{ "name": "n", "percent": 1, "condition": "" }] }), "campaigns[0].condition"),
            (
                json!({ "campaigns": vec![json!({ "name": "n", "percent": 1, "condition": "order.amount > 1" }); 21] }),
                "campaigns",
            ),
            (
                json!({ "campaigns": [{ "name": "n", "percent": 1, "condition": "order.total > 1" }] }),
                "campaigns[0].condition",
            ),
            (
                json!({ "campaigns": [{ "name": "n", "percent": 200, "starts_at": "2026-01-02T00:00:00Z",
                    "ends_at": "2026-01-02T00:00:00Z" }] }),
                "campaigns[0].ends_at",
            ),
            (json!({ "orders": { "max_coupons_per_order": 21 } }), "orders.max_coupons_per_order"),
            (json!({ "orders": { "max_total_percent": 0 } }), "orders.max_total_percent"),
            (json!({ "orders": { "max_total_amount": -1 } }), "orders.max_total_amount"),
            (json!({ "orders": { "percent_base": "LIST" } }), "orders.percent_base"),
            (json!({ "orders": { "rounding": "UP" } }), "orders.rounding"),
            (json!({ "order": {} }), "order"),
        ] {
            assert_eq!(read(body.clone()), Err(vec![field.to_owned()]), "{body}");
        }
    }
}
