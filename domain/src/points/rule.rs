//! What a tenant's points are worth: how many an order earns, what they pay, how long they live.

use serde::{Deserialize, Serialize};

use super::Earned;
use crate::condition::{Condition, Facts};
use crate::pricing::{Basket, Line, share};
use crate::time::{Calendar, CapPeriod, Timestamp, Window};

/// The largest factor of a campaign, in percent: ten times the usual points.
pub const MAX_CAMPAIGN_PERCENT: u16 = 1_000;
/// The most campaigns of a rule, past ones included.
pub const MAX_CAMPAIGNS: usize = 100;
/// How many of them may have a condition: as many as an order may name coupons, for it asks each.
pub const MAX_CAMPAIGN_CONDITIONS: usize = 20;

/// A tenant's rule. A ratio is a number of points per `base` minor units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsRule {
    /// Off, nothing is earned by orders or check-ins and nothing is redeemed by orders.
    pub enabled: bool,
    pub earn: Earn,
    pub redeem: Redeem,
    pub validity: PointsValidity,
    pub check_in: CheckIn,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub campaigns: Vec<Campaign>,
    /// How many days before points expire their members are reminded: each number once.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub expiry_reminder_days: Vec<u32>,
    /// An adjustment of more points than this needs the approval of another key; `None`: none does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approval_above: Option<i64>,
    #[serde(default)]
    pub debt_policy: DebtPolicy,
}

/// What becomes of the points of a grant that a claw-back is to take and the account does not have any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DebtPolicy {
    /// The member owes them: later grants settle the debt first.
    #[default]
    Owe,
    /// They are written off.
    Forgive,
}

impl DebtPolicy {
    pub const ALL: [DebtPolicy; 2] = [DebtPolicy::Owe, DebtPolicy::Forgive];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            DebtPolicy::Owe => "OWE",
            DebtPolicy::Forgive => "FORGIVE",
        }
    }
}

/// Multiplies what orders earn, for a time, for some goods and members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    pub name: String,
    pub window: Window,
    /// Categories of goods; empty means all goods.
    pub categories: Vec<String>,
    /// Levels of members; empty means all members.
    pub member_levels: Vec<String>,
    /// What must be true of the order; its `eligible` goods are those of the categories.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub condition: Option<Condition>,
    /// Of the usual points: 200 doubles them.
    pub percent: u16,
}

impl Campaign {
    pub fn holds_at(&self, at: Timestamp) -> bool {
        self.window.has_started(at) && !self.window.has_ended(at)
    }

    fn is_of(&self, categories: &[String]) -> bool {
        self.categories.is_empty() || categories.iter().any(|one| self.categories.contains(one))
    }

    /// Whether it is for the order's member, and its condition true. A condition that cannot be told, for want of an
    /// attribute for instance, is not.
    fn is_for(&self, basket: &Basket, facts: &Facts<'_>) -> bool {
        let levels = &self.member_levels;
        let of_member = levels.is_empty() || basket.member_level.as_ref().is_some_and(|level| levels.contains(level));
        of_member
            && self.condition.as_ref().is_none_or(|condition| {
                let eligible = basket.lines.iter().filter(|line| self.is_of(&line.category_ids));
                let (amount, quantity) = eligible.fold((0, 0), |(amount, quantity), line| {
                    (amount + line.unit_price * line.quantity, quantity + line.quantity)
                });
                condition.holds(facts, amount, quantity).unwrap_or(false)
            })
    }
}

/// `ratio` points for each `base` minor units paid for goods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earn {
    pub enabled: bool,
    pub ratio: i64,
    pub base: i64,
    /// How long after the payment the points come in, in days; 0 is at once. What is refunded by then is never earned.
    #[serde(default)]
    pub delay_days: u32,
    /// Of an order, whatever its lines and campaigns.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_points_per_order: Option<i64>,
    /// Of all orders of a member in a day, a week and a month of the tenant's calendar, at least 1 each. An order's own rule is
    /// asked when its points are granted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_points_per_day: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_points_per_week: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_points_per_month: Option<i64>,
}

impl Earn {
    /// How many points more a member may get by orders in the periods at hand, and which limit leaves no more; `None` without
    /// limits. Of limits that leave the same the shortest period counts.
    pub fn room(&self, earned: &Earned) -> Option<(i64, CapPeriod)> {
        let most = [self.max_points_per_day, self.max_points_per_week, self.max_points_per_month];
        let limits = CapPeriod::ALL.into_iter().zip(most);
        let left = limits.filter_map(|(period, most)| Some(((most? - earned.points[period as usize]).max(0), period)));
        left.min_by_key(|(left, _)| *left)
    }
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
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PointsValidity {
    Never,
    /// Days of 24 hours from the grant.
    Days {
        days: u32,
    },
    /// To the end of the month of the grant where the tenant is, or of a later one.
    EndOfMonth {
        after_months: u8,
    },
    /// To the end of the year of the grant where the tenant is, or of a later one.
    EndOfYear {
        after_years: u8,
    },
    /// To the end of the day, where the tenant is, that comes so many days after the member's last activity.
    Inactivity {
        days: u32,
    },
}

impl PointsValidity {
    /// When points granted at `at` expire; `calendar` is the tenant's at that time, and `day_end` tells when a day ends that comes
    /// so many days after.
    ///
    /// # Errors
    /// That of `day_end`.
    pub fn expires_at<E>(
        self,
        at: Timestamp,
        calendar: &Calendar,
        day_end: impl FnOnce(u32) -> Result<Timestamp, E>,
    ) -> Result<Option<Timestamp>, E> {
        Ok(match self {
            PointsValidity::Never => None,
            PointsValidity::Days { days } => Some(at.plus_days(days)),
            PointsValidity::EndOfMonth { after_months } => calendar.month_ends.get(usize::from(after_months)).copied(),
            PointsValidity::EndOfYear { after_years } => calendar.year_ends.get(usize::from(after_years)).copied(),
            PointsValidity::Inactivity { days } => Some(day_end(days)?),
        })
    }

    /// After how many days without an activity points expire, when that is how they do.
    pub fn idle_days(self) -> Option<u32> {
        match self {
            PointsValidity::Inactivity { days } => Some(days),
            _ => None,
        }
    }
}

/// What a daily check-in gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn {
    pub enabled: bool,
    pub points: i64,
    /// Extra points on the day a streak reaches so many days, by days.
    pub streak_bonuses: Vec<StreakBonus>,
    /// How many days back a missed day can be made up; 0: not at all.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub make_up_days: u32,
    /// What making a day up costs, in points.
    #[serde(skip_serializing_if = "is_free", default)]
    pub make_up_price: i64,
    /// How many days of a month can be made up; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub make_ups_per_month: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(days: &u32) -> bool {
    *days == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_free(price: &i64) -> bool {
    *price == 0
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
            earn: Earn {
                enabled: true,
                ratio: 1,
                base: 100,
                delay_days: 0,
                max_points_per_order: None,
                max_points_per_day: None,
                max_points_per_week: None,
                max_points_per_month: None,
            },
            redeem: Redeem { enabled: true, ratio: 100, base: 100, max_points_per_order: None, max_percent: Some(50) },
            validity: PointsValidity::Never,
            check_in: CheckIn {
                enabled: true,
                points: 10,
                streak_bonuses: Vec::new(),
                make_up_days: 0,
                make_up_price: 0,
                make_ups_per_month: None,
            },
            campaigns: Vec::new(),
            expiry_reminder_days: Vec::new(),
            approval_above: None,
            debt_policy: DebtPolicy::Owe,
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
    /// The member has no more.
    Balance,
}

impl RedeemLimit {
    pub const ALL: [RedeemLimit; 7] = [
        RedeemLimit::Disabled,
        RedeemLimit::WholeUnits,
        RedeemLimit::MaxPointsPerOrder,
        RedeemLimit::MaxPercent,
        RedeemLimit::AmountLeft,
        RedeemLimit::WithCoupons,
        RedeemLimit::Balance,
    ];

    /// The name as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            RedeemLimit::Disabled => "DISABLED",
            RedeemLimit::WholeUnits => "WHOLE_UNITS",
            RedeemLimit::MaxPointsPerOrder => "MAX_POINTS_PER_ORDER",
            RedeemLimit::MaxPercent => "MAX_PERCENT",
            RedeemLimit::AmountLeft => "AMOUNT_LEFT",
            RedeemLimit::WithCoupons => "WITH_COUPONS",
            RedeemLimit::Balance => "BALANCE",
        }
    }
}

impl PointsRule {
    /// What each of an order's lines earns, with its share of the order after coupons in minor units; and whether
    /// [`Earn::max_points_per_order`] has cut it, which is shared in proportion to what they would earn without. Each line has
    /// one floor, so that ratios of less than a point per item are not lost twice. Campaigns do not add up: of those that hold
    /// for a line the best one counts.
    pub fn earned<'l>(
        &self,
        basket: &Basket,
        facts: &Facts<'_>,
        lines: impl Iterator<Item = (&'l Line, i64)>,
    ) -> (Vec<i64>, bool) {
        let lines: Vec<(&Line, i64)> = lines.collect();
        if !self.enabled || !self.earn.enabled {
            return (vec![0; lines.len()], false);
        }
        let campaigns: Vec<&Campaign> = self
            .campaigns
            .iter()
            .filter(|campaign| lines.iter().any(|(line, _)| campaign.is_of(&line.category_ids)))
            .filter(|campaign| campaign.is_for(basket, facts))
            .collect();
        let of_line = |(line, amount): &(&Line, i64)| {
            let factors = campaigns.iter().filter(|campaign| campaign.is_of(&line.category_ids));
            let factor = factors.map(|campaign| campaign.percent).max().unwrap_or(100);
            self.earned_by(*amount, line.points_ratio, factor)
        };
        let earned: Vec<i64> = lines.iter().map(of_line).collect();
        match self.earn.max_points_per_order {
            Some(most) if earned.iter().sum::<i64>() > most => (share::split(most, &earned), true),
            _ => (earned, false),
        }
    }

    /// `percent` is the item's own ratio, 100 by default; `campaign_percent` the factor of campaigns.
    fn earned_by(&self, amount: i64, percent: u16, campaign_percent: u16) -> i64 {
        if amount <= 0 {
            return 0;
        }
        let factor = i128::from(percent) * i128::from(campaign_percent);
        let points = i128::from(amount) * i128::from(self.earn.ratio) * factor;
        let points = points / (i128::from(self.earn.base) * 100 * 100);
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
