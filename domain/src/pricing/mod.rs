//! Prices an order: coupons first, then points, over lines of goods; freight apart. Quotes and orders use the same code.
//!
//! Lines are taken in the order of their item ids, coupons by (priority, benefit, template, coupon), so the result does not
//! depend on the order in which a caller names them. For each coupon: its scope gives the eligible lines; threshold and
//! quantity are tested on them at item prices, so that one coupon never spoils another's threshold; the discount is computed
//! on what earlier coupons left of them (or as the tenant's rule says); limits cut it; the largest-remainder method shares it over the lines. A coupon that
//! does not apply leaves no trace but its reason. Points then pay what is left, within the tenant's rule.
//!
//! Guarantees: every discount lies between 0 and what is left of its eligible lines; lines add up to the totals to the minor
//! unit; `pay_amount = original_amount + freight - total_discount`; a free unit is always the cheapest that qualifies.
//! Bounded by lines * coupons. Absent: taxes, several currencies in one order, prices of its own (the shop's are taken).

mod benefit;
mod best;
pub mod refund;
pub mod share;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use self::benefit::{Left, Plan};
pub use self::share::Rounding;
use crate::condition::Facts;
use crate::coupon::{Definition, Scope, Stacking};
use crate::id::{CouponId, TemplateId};
use crate::points::{PointsRule, RedeemLimit};
use crate::rejection::Rejection;
use crate::time::LocalTime;

pub use best::{Best, Candidate, best};

/// The most lines of an order.
pub const MAX_LINES: usize = 200;
/// The largest quantity of a line.
pub const MAX_QUANTITY: i64 = 1_000_000;
/// The largest sum of an order's goods, in minor units.
pub const MAX_ORDER_AMOUNT: i64 = 1_000 * crate::coupon::MAX_AMOUNT;
/// An item's ratio of earned points, in percent, at most.
pub const MAX_POINTS_RATIO: u16 = 1_000;
/// The most coupons one order may name.
pub const MAX_COUPONS: usize = 20;

/// A line of goods, as the shop sells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The caller's name of the line, unique in the order.
    pub item_id: String,
    pub product_id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sku_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub category_ids: Vec<String>,
    /// In minor units.
    pub unit_price: i64,
    pub quantity: i64,
    /// How much of the usual points the item earns, in percent (0-1000).
    pub points_ratio: u16,
}

/// What is bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basket {
    pub lines: Vec<Line>,
    /// In minor units.
    pub freight: i64,
    /// Known, it must be one of those a coupon's template names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member_level: Option<String>,
    /// When it is bought, on the clock of the tenant's place.
    pub local_time: LocalTime,
    /// What the caller knows of the order and of the member beside all this, for the conditions of coupons and campaigns.
    #[serde(skip_serializing_if = "Attributes::is_empty", default)]
    pub attributes: Attributes,
    #[serde(skip_serializing_if = "Attributes::is_empty", default)]
    pub member_attributes: Attributes,
}

/// Names with texts, integers or truth values.
pub type Attributes = serde_json::Map<String, serde_json::Value>;

/// How coupons and points combine in a tenant's orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRule {
    pub max_coupons_per_order: u32,
    /// Of the goods at item prices, what all coupons may take together (1-100).
    pub max_total_percent: u8,
    /// The same in minor units.
    #[serde(default)]
    pub max_total_amount: Option<i64>,
    pub points_with_coupons: bool,
    /// Whether goods that one coupon has made cheaper are left alone by all others.
    #[serde(default)]
    pub one_coupon_per_line: bool,
    #[serde(default)]
    pub percent_base: PercentBase,
    /// Of percentages off.
    #[serde(default)]
    pub rounding: Rounding,
}

impl Default for OrderRule {
    fn default() -> Self {
        OrderRule {
            max_coupons_per_order: 5,
            max_total_percent: 100,
            max_total_amount: None,
            points_with_coupons: true,
            one_coupon_per_line: false,
            percent_base: PercentBase::Remaining,
            rounding: Rounding::HalfUp,
        }
    }
}

/// What percentages off are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PercentBase {
    /// What the coupons computed before have left of the eligible goods.
    #[default]
    Remaining,
    /// The eligible goods at item prices.
    Initial,
}

impl PercentBase {
    pub const ALL: [PercentBase; 2] = [PercentBase::Remaining, PercentBase::Initial];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            PercentBase::Remaining => "REMAINING",
            PercentBase::Initial => "INITIAL",
        }
    }
}

/// A tenant's rules, versioned together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rules {
    /// 0 until they are set for the first time.
    pub version: i64,
    pub points: PointsRule,
    pub orders: OrderRule,
}

/// A coupon offered for an order.
#[derive(Debug, Clone)]
pub struct Offer<'a> {
    pub coupon_id: CouponId,
    pub template_id: TemplateId,
    pub definition: &'a Definition,
    /// Why its state forbids it, if so.
    pub refused: Option<Rejection>,
}

/// What an order costs and why. Amounts in minor units.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quote {
    /// The goods at item prices.
    pub original_amount: i64,
    /// Off the goods.
    pub coupon_discount: i64,
    pub freight_discount: i64,
    pub points_discount: i64,
    pub total_discount: i64,
    /// Before `freight_discount`.
    pub freight: i64,
    pub pay_amount: i64,
    pub points_requested: i64,
    pub points_effective: i64,
    /// What kept `points_effective` below `points_requested`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub points_limited_by: Option<RedeemLimit>,
    pub points_to_earn: i64,
    /// Whether the rule's limit for an order has made `points_to_earn` less.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub points_to_earn_capped: bool,
    /// In the caller's order.
    pub coupons: Vec<CouponQuote>,
    /// In the caller's order.
    pub lines: Vec<LineQuote>,
}

/// What a coupon does for an order, or why nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouponQuote {
    pub coupon_id: CouponId,
    pub template_id: TemplateId,
    /// Off goods or freight; 0 when it does not apply.
    pub discount: i64,
    /// Why it does not apply. Not stored: the coupons of an order do.
    #[serde(skip)]
    pub refusal: Option<Rejection>,
    /// By how much the eligible goods would have to cost more for the coupon to apply, or to reach its next step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unlock_amount: Option<i64>,
}

impl CouponQuote {
    /// `result` is what the offer takes off goods of which `subtotal` is eligible.
    fn of(offer: &Offer<'_>, subtotal: i64, result: Result<i64, Rejection>) -> Self {
        let next = match &result {
            Err(Rejection::CouponBelowThreshold { min_amount, .. }) => Some(*min_amount),
            Ok(_) => offer.definition.benefit.next_step(subtotal),
            Err(_) => None,
        };
        CouponQuote {
            coupon_id: offer.coupon_id,
            template_id: offer.template_id,
            discount: *result.as_ref().unwrap_or(&0),
            refusal: result.err(),
            unlock_amount: next.map(|amount| amount - subtotal),
        }
    }
}

/// A line's part of everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineQuote {
    pub item_id: String,
    pub quantity: i64,
    /// At item prices.
    pub amount: i64,
    pub coupon_discount: i64,
    pub points_discount: i64,
    /// The points that paid `points_discount`.
    pub points_spent: i64,
    pub pay_amount: i64,
    pub points_to_earn: i64,
    /// What each coupon takes off this line.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub coupons: Vec<(CouponId, i64)>,
}

/// What does not change while coupons apply. Lines stand in the order of their item ids.
struct Goods<'a> {
    lines: Vec<&'a Line>,
    /// Each line's place in the caller's order.
    places: Vec<usize>,
    amounts: Vec<i64>,
    original_amount: i64,
    basket: &'a Basket,
    rule: OrderRule,
    /// By the rule, what all coupons may take off the goods together.
    most_off: i64,
    by_product: HashMap<&'a str, Vec<usize>>,
    by_category: HashMap<&'a str, Vec<usize>>,
    facts: Facts<'a>,
}

/// The goods a coupon applies to.
struct Eligible {
    /// Of lines.
    indexes: Vec<usize>,
    /// At item prices.
    subtotal: i64,
    quantity: i64,
}

/// What an offer finds in the goods, whatever other coupons there are.
struct Prospect {
    /// Of the eligible goods.
    subtotal: i64,
    plan: Result<Plan, Rejection>,
}

/// An order half priced.
struct Pricing<'a, 'g> {
    goods: &'g Goods<'a>,
    left: Left,
    applied: Vec<Applied<'a>>,
}

struct Applied<'a> {
    coupon_id: CouponId,
    definition: &'a Definition,
    /// One for each line.
    shares: Vec<i64>,
}

/// Prices a basket. Numbers must lie within this module's limits; a caller checks them field by field.
///
/// # Errors
/// [`Rejection::OrderTooLarge`] when the goods add up to more than [`MAX_ORDER_AMOUNT`].
pub fn price(basket: &Basket, offers: &[Offer<'_>], points_requested: i64, rules: &Rules) -> Result<Quote, Rejection> {
    let goods = Goods::of(basket, rules.orders)?;
    let mut pricing = Pricing::of(&goods);
    let mut order: Vec<usize> = (0..offers.len()).collect();
    order.sort_by_key(|index| computed(&offers[*index]));
    let mut coupons: Vec<(usize, CouponQuote)> =
        order.into_iter().map(|index| (index, pricing.offer(&offers[index]))).collect();
    coupons.sort_unstable_by_key(|(index, _)| *index);
    let coupons = coupons.into_iter().map(|(_, quote)| quote).collect();
    Ok(pricing.finish(coupons, points_requested, &rules.points))
}

/// The same for a member who has `available` points: no more are redeemed.
///
/// # Errors
/// As [`price`].
pub fn price_within(
    basket: &Basket,
    offers: &[Offer<'_>],
    points_requested: i64,
    available: i64,
    rules: &Rules,
) -> Result<Quote, Rejection> {
    let mut quote = price(basket, offers, points_requested.min(available.max(0)), rules)?;
    if quote.points_requested < points_requested {
        quote.points_requested = points_requested;
        // A limit below the balance says more than the balance; what the balance leaves of a unit does not.
        if matches!(quote.points_limited_by, None | Some(RedeemLimit::WholeUnits)) {
            quote.points_limited_by = Some(RedeemLimit::Balance);
        }
    }
    Ok(quote)
}

/// What each offer does for the basket on its own, in their order.
///
/// # Errors
/// As [`price`].
pub fn price_each(basket: &Basket, offers: &[Offer<'_>], rules: &Rules) -> Result<Vec<CouponQuote>, Rejection> {
    let goods = Goods::of(basket, rules.orders)?;
    Ok(offers.iter().map(|offer| Pricing::of(&goods).offer(offer)).collect())
}

/// Coupons are computed in this order.
fn computed(offer: &Offer<'_>) -> (i32, usize, TemplateId, CouponId) {
    (offer.definition.priority, offer.definition.benefit.rank(), offer.template_id, offer.coupon_id)
}

impl<'a> Goods<'a> {
    fn of(basket: &'a Basket, rule: OrderRule) -> Result<Self, Rejection> {
        let mut places: Vec<usize> = (0..basket.lines.len()).collect();
        places.sort_by_key(|place| &basket.lines[*place].item_id);
        let lines: Vec<&Line> = places.iter().map(|place| &basket.lines[*place]).collect();
        let amounts: Option<Vec<i64>> = lines.iter().map(|line| line.unit_price.checked_mul(line.quantity)).collect();
        let original = amounts.as_ref().and_then(|all| all.iter().try_fold(0i64, |sum, one| sum.checked_add(*one)));
        let (Some(amounts), Some(original_amount)) = (amounts, original.filter(|sum| *sum <= MAX_ORDER_AMOUNT)) else {
            return Err(Rejection::OrderTooLarge { most: MAX_ORDER_AMOUNT });
        };
        let mut by_product: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut by_category: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, line) in lines.iter().enumerate() {
            by_product.entry(&line.product_id).or_default().push(index);
            for category in &line.category_ids {
                by_category.entry(category).or_default().push(index);
            }
        }
        let facts = Facts::of(basket, original_amount);
        let percent = i128::from(original_amount) * i128::from(rule.max_total_percent) / 100;
        let most_off = rule.max_total_amount.unwrap_or(i64::MAX).min(percent as i64);
        Ok(Goods { lines, places, amounts, original_amount, basket, rule, most_off, by_product, by_category, facts })
    }

    /// The lines of the scope's products and of its categories that it does not exclude.
    fn eligible(&self, scope: &Scope) -> Eligible {
        let mark = |marks: &mut [bool], known: &HashMap<&str, Vec<usize>>, names: &[String], value: bool| {
            for index in names.iter().filter_map(|name| known.get(name.as_str())).flatten() {
                marks[*index] = value;
            }
        };
        let mut included = vec![scope.products.is_empty(); self.lines.len()];
        mark(&mut included, &self.by_product, &scope.products, true);
        mark(&mut included, &self.by_product, &scope.excluded_products, false);
        mark(&mut included, &self.by_category, &scope.excluded_categories, false);
        let mut in_categories = vec![scope.categories.is_empty(); self.lines.len()];
        mark(&mut in_categories, &self.by_category, &scope.categories, true);
        let indexes: Vec<usize> =
            (0..self.lines.len()).filter(|index| included[*index] && in_categories[*index]).collect();
        Eligible {
            subtotal: indexes.iter().map(|index| self.amounts[*index]).sum(),
            quantity: indexes.iter().map(|index| self.lines[*index].quantity).sum(),
            indexes,
        }
    }

    /// What a coupon asks of the order alone, whatever other coupons there are. Checks, in order: the member's level, dates
    /// and hours, the scope, the quantity, the threshold, the condition.
    fn check(&self, definition: &Definition, eligible: &Eligible) -> Result<(), Rejection> {
        let levels = &definition.member_levels;
        let level = self.basket.member_level.as_ref();
        if level.is_some_and(|level| !levels.is_empty() && !levels.contains(level)) {
            return Err(Rejection::MemberLevel { allowed: levels.clone() });
        }
        let local_time = self.basket.local_time;
        let hours = &definition.usable_hours;
        if definition.excluded_dates.contains(&local_time.day)
            || !(hours.is_empty() || hours.iter().any(|hours| hours.include(local_time)))
        {
            return Err(Rejection::CouponOutsideHours);
        }
        if eligible.indexes.is_empty() {
            return Err(Rejection::CouponOutOfScope);
        }
        if eligible.quantity < definition.min_quantity {
            let min_quantity = definition.min_quantity;
            return Err(Rejection::CouponQuantity { min_quantity, eligible_quantity: eligible.quantity });
        }
        if eligible.subtotal < definition.min_order_amount {
            let min_amount = definition.min_order_amount;
            return Err(Rejection::CouponBelowThreshold { min_amount, eligible_amount: eligible.subtotal });
        }
        if let Some(condition) = &definition.condition {
            match condition.holds(&self.facts, eligible.subtotal, eligible.quantity) {
                Ok(true) => {}
                Ok(false) => return Err(Rejection::CouponConditionUnmet),
                Err(cause) => return Err(Rejection::CouponConditionFailed { cause }),
            }
        }
        Ok(())
    }

    fn assess(&self, offer: &Offer<'_>) -> Prospect {
        let eligible = self.eligible(&offer.definition.scope);
        let subtotal = eligible.subtotal;
        let plan = match &offer.refused {
            Some(refusal) => Err(refusal.clone()),
            None => {
                self.check(offer.definition, &eligible).and_then(|()| self.plan(&offer.definition.benefit, eligible))
            }
        };
        Prospect { subtotal, plan }
    }

    /// Basis points of an amount, rounded as the tenant wants.
    fn part(&self, amount: i64, basis_points: u16) -> i64 {
        self.rule.rounding.part_of(amount, basis_points.into(), 10_000)
    }
}

impl<'a, 'g> Pricing<'a, 'g> {
    fn of(goods: &'g Goods<'a>) -> Self {
        Pricing { goods, left: Left::all_of(goods), applied: Vec::new() }
    }

    fn offer(&mut self, offer: &Offer<'a>) -> CouponQuote {
        let Prospect { subtotal, plan } = self.goods.assess(offer);
        let result = plan.and_then(|plan| self.apply(offer, &plan));
        CouponQuote::of(offer, subtotal, result)
    }

    /// Applies a coupon with a plan and tells its discount. Checks, in order: how it stacks, how many there are, whether anything
    /// is left to give.
    fn apply(&mut self, offer: &Offer<'a>, plan: &Plan) -> Result<i64, Rejection> {
        let definition = offer.definition;
        if let Some(other) = self.applied.iter().find(|other| !stack(definition, other.definition)) {
            return Err(Rejection::CouponNotStackable { with: other.coupon_id });
        }
        let most = self.goods.rule.max_coupons_per_order;
        if self.applied.len() >= most as usize {
            return Err(Rejection::TooManyCoupons { most });
        }
        let discount = self.left.discount(self.goods, plan, definition.min_pay_amount);
        if discount == 0 {
            return Err(Rejection::CouponWithoutEffect);
        }
        let shares = self.left.take(self.goods, plan, definition.min_pay_amount, discount);
        self.applied.push(Applied { coupon_id: offer.coupon_id, definition, shares });
        Ok(discount)
    }

    fn finish(self, coupons: Vec<CouponQuote>, points_requested: i64, rule: &PointsRule) -> Quote {
        let (goods, left) = (self.goods, &self.left);
        let goods_left = goods.original_amount - left.coupon_discount;
        let payable = (goods_left - left.must_remain).max(0);
        let percent_left = rule.redeem.max_percent.map(|percent| {
            let cap = i128::from(goods.original_amount) * i128::from(percent) / 100;
            (cap as i64 - left.coupon_discount).max(0)
        });
        let separate = !goods.rule.points_with_coupons && !self.applied.is_empty() && points_requested > 0;
        let (points_effective, points_discount, points_limited_by) = if separate {
            (0, 0, Some(RedeemLimit::WithCoupons))
        } else {
            rule.redeemed(points_requested, payable, percent_left)
        };
        let by_points = share::split(points_discount, left.lines());
        let spent = share::split(points_effective, &by_points);
        let earning = goods.lines.iter().copied().zip(left.lines().iter().copied());
        let (earned, points_to_earn_capped) = rule.earned(goods.basket, &goods.facts, earning);
        let line = |index: usize| {
            let (line, amount, left) = (goods.lines[index], goods.amounts[index], left.lines()[index]);
            let shares = self.applied.iter().map(|coupon| (coupon.coupon_id, coupon.shares[index]));
            LineQuote {
                item_id: line.item_id.clone(),
                quantity: line.quantity,
                amount,
                coupon_discount: amount - left,
                points_discount: by_points[index],
                points_spent: spent[index],
                pay_amount: left - by_points[index],
                points_to_earn: earned[index],
                coupons: shares.filter(|(_, share)| *share > 0).collect(),
            }
        };
        let mut lines: Vec<(usize, LineQuote)> =
            goods.places.iter().enumerate().map(|(index, place)| (*place, line(index))).collect();
        lines.sort_unstable_by_key(|(place, _)| *place);
        let lines: Vec<LineQuote> = lines.into_iter().map(|(_, line)| line).collect();
        let total_discount = left.total_discount() + points_discount;
        let freight = goods.basket.freight;
        Quote {
            original_amount: goods.original_amount,
            coupon_discount: left.coupon_discount,
            freight_discount: left.freight_discount,
            points_discount,
            total_discount,
            freight,
            pay_amount: goods.original_amount + freight - total_discount,
            points_requested,
            points_effective,
            points_limited_by,
            points_to_earn: lines.iter().map(|line| line.points_to_earn).sum(),
            points_to_earn_capped,
            coupons,
            lines,
        }
    }
}

/// Whether two coupons may apply to one order.
fn stack(one: &Definition, other: &Definition) -> bool {
    if one.stacking_group.is_some() && one.stacking_group == other.stacking_group {
        return false;
    }
    let kinds_differ = one.benefit.kind() != other.benefit.kind();
    [one.stacking, other.stacking].iter().all(|stacking| match stacking {
        Stacking::Exclusive => false,
        Stacking::SameTypeExclusive => kinds_differ,
        Stacking::Stackable => true,
    })
}
