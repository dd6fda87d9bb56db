//! What a tenant's points are worth: how many an order earns, what they pay, how long they live.

use serde::{Deserialize, Serialize};

/// A tenant's rule. A ratio is a number of points per `base` minor units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsRule {
    /// Off, nothing is earned by orders or check-ins and nothing is redeemed by orders.
    pub enabled: bool,
    pub earn: Earn,
    pub redeem: Redeem,
    pub validity: PointsValidity,
    pub check_in: CheckIn,
}

/// `ratio` points for each `base` minor units paid for goods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earn {
    pub enabled: bool,
    pub ratio: i64,
    pub base: i64,
}

/// `ratio` points pay `base` minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeem {
    pub enabled: bool,
    pub ratio: i64,
    pub base: i64,
    pub max_points_per_order: Option<i64>,
    /// Of the order's goods at item prices, what coupons and points may pay together.
    pub max_percent: Option<u8>,
}

/// How long earned points live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "UPPERCASE")]
pub enum PointsValidity {
    Never,
    Days { days: u32 },
}

/// What a daily check-in gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn {
    pub enabled: bool,
    pub points: i64,
    /// Extra points on the day a streak reaches so many days, by days.
    pub streak_bonuses: Vec<StreakBonus>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreakBonus {
    pub days: u32,
    pub points: i64,
}

impl Default for PointsRule {
    fn default() -> Self {
        PointsRule {
            enabled: true,
            earn: Earn { enabled: true, ratio: 1, base: 100 },
            redeem: Redeem { enabled: true, ratio: 100, base: 100, max_points_per_order: None, max_percent: Some(50) },
            validity: PointsValidity::Never,
            check_in: CheckIn { enabled: true, points: 10, streak_bonuses: Vec::new() },
        }
    }
}

/// What kept an order from redeeming all the points it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedeemLimit {
    /// Redemption is switched off.
    Disabled,
    /// Points are redeemed in whole multiples of the ratio.
    WholeUnits,
    MaxPointsPerOrder,
    MaxPercent,
    /// No more goods are left to pay.
    AmountLeft,
    /// Points are not combined with coupons.
    WithCoupons,
}

impl PointsRule {
    /// The points earned by an item whose share of the order, after coupons, is `amount` minor units: one floor, so that
    /// ratios of less than a point per item are not lost twice. `percent` is the item's own ratio, 100 by default.
    pub fn earned(&self, amount: i64, percent: u16) -> i64 {
        if !self.enabled || !self.earn.enabled || amount <= 0 {
            return 0;
        }
        let points = i128::from(amount) * i128::from(self.earn.ratio) * i128::from(percent);
        let points = points / (i128::from(self.earn.base) * 100);
        i64::try_from(points).unwrap_or(i64::MAX).min(super::MAX_POINTS)
    }

    /// How many of the `requested` points are redeemed, what they pay, and what kept it from being more. `payable` is what is
    /// left of the goods; `percent_left` what the percent cap leaves, if there is one.
    pub fn redeemed(&self, requested: i64, payable: i64, percent_left: Option<i64>) -> (i64, i64, Option<RedeemLimit>) {
        let redeem = self.redeem;
        if requested == 0 {
            return (0, 0, None);
        }
        if !self.enabled || !redeem.enabled {
            return (0, 0, Some(RedeemLimit::Disabled));
        }
        let mut units = requested / redeem.ratio;
        let mut limit = (units * redeem.ratio < requested).then_some(RedeemLimit::WholeUnits);
        let mut at_most = |most: i64, why: RedeemLimit| {
            if most < units {
                units = most.max(0);
                limit = Some(why);
            }
        };
        if let Some(points) = redeem.max_points_per_order {
            at_most(points / redeem.ratio, RedeemLimit::MaxPointsPerOrder);
        }
        if let Some(money) = percent_left {
            at_most(money / redeem.base, RedeemLimit::MaxPercent);
        }
        at_most(payable / redeem.base, RedeemLimit::AmountLeft);
        (units * redeem.ratio, units * redeem.base, limit)
    }
}
