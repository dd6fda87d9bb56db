//! What each kind of benefit takes off.
//!
//! A [`Plan`] is worked out once for a coupon and an order; what it gives then depends only on what other coupons have left
//! ([`Left`]), and is cheap to ask many times, as the search for the best combination does.

use std::cmp::Reverse;

use super::share::{self, part_of};
use super::{Eligible, Goods, PercentBase};
use crate::coupon::{Benefit, Step, StepOff};
use crate::rejection::Rejection;

/// What a benefit does with the goods at hand, as far as other coupons do not matter.
pub(super) enum Plan {
    /// Off these lines together.
    Together {
        lines: Vec<usize>,
        off: StepOff,
        max_amount: Option<i64>,
    },
    /// Off so many units of each of these lines.
    Units {
        lines: Vec<(usize, i64)>,
        off: UnitsOff,
    },
    Freight {
        max_amount: Option<i64>,
    },
}

pub(super) enum UnitsOff {
    BasisPoints(u16),
    /// Down to this price each.
    Price(i64),
}

impl Benefit {
    /// The order of computation among equal priorities.
    pub(super) fn rank(&self) -> usize {
        Benefit::KINDS.iter().position(|kind| *kind == self.kind()).unwrap_or(Benefit::KINDS.len())
    }

    /// The next step's amount, when the benefit has steps and goods of `subtotal` do not reach the last.
    pub(super) fn next_step(&self, subtotal: i64) -> Option<i64> {
        let Benefit::Tiered { steps, .. } = self else { return None };
        steps.iter().map(|step| step.min_amount).filter(|amount| *amount > subtotal).min()
    }
}

impl Goods<'_> {
    /// # Errors
    /// What the benefit itself asks of the eligible goods, when they lack it.
    pub(super) fn plan(&self, benefit: &Benefit, eligible: Eligible) -> Result<Plan, Rejection> {
        let lines = eligible.indexes;
        match benefit {
            Benefit::AmountOff { amount } => {
                Ok(Plan::Together { lines, off: StepOff::Amount(*amount), max_amount: None })
            }
            Benefit::PercentOff { basis_points, max_amount } => {
                Ok(Plan::Together { lines, off: StepOff::BasisPoints(*basis_points), max_amount: *max_amount })
            }
            Benefit::Exchange { product_id, sku_id } => {
                let matching = lines.into_iter().filter(|index| {
                    let line = self.lines[*index];
                    line.product_id == *product_id
                        && sku_id.as_ref().is_none_or(|sku| line.sku_id.as_ref() == Some(sku))
                });
                let cheapest = matching.min_by_key(|index| self.lines[*index].unit_price);
                let cheapest = cheapest.ok_or(Rejection::CouponProductMissing)?;
                Ok(Plan::Units { lines: vec![(cheapest, 1)], off: UnitsOff::Price(0) })
            }
            Benefit::FreeShipping { max_amount } => Ok(Plan::Freight { max_amount: *max_amount }),
            Benefit::BuyXGetY { buy_quantity, get_quantity, basis_points, max_sets } => {
                let sets = (eligible.quantity / (buy_quantity + get_quantity)).min(max_sets.unwrap_or(i64::MAX));
                if sets == 0 {
                    let min_quantity = buy_quantity + get_quantity;
                    return Err(Rejection::CouponQuantity { min_quantity, eligible_quantity: eligible.quantity });
                }
                let mut cheapest_first = lines;
                cheapest_first.sort_by_key(|index| self.lines[*index].unit_price);
                let lines = self.first_units(cheapest_first, sets * get_quantity);
                Ok(Plan::Units { lines, off: UnitsOff::BasisPoints(*basis_points) })
            }
            Benefit::Tiered { steps, max_amount } => {
                let off = reached(steps, eligible.subtotal)?.off;
                Ok(Plan::Together { lines, off, max_amount: *max_amount })
            }
            Benefit::FixedPrice { price, max_quantity } => {
                let mut dearest_first = lines;
                dearest_first.sort_by_key(|index| Reverse(self.lines[*index].unit_price));
                let lines = self.first_units(dearest_first, max_quantity.unwrap_or(i64::MAX));
                Ok(Plan::Units { lines, off: UnitsOff::Price(*price) })
            }
        }
    }

    /// How many of `most` units fall to each line, when those of the lines that come first are taken first. Works line by line,
    /// whatever the quantities.
    fn first_units(&self, lines: Vec<usize>, most: i64) -> Vec<(usize, i64)> {
        let mut left = most;
        let units = lines.into_iter().map(|index| {
            let units = left.min(self.lines[index].quantity);
            left -= units;
            (index, units)
        });
        units.take_while(|(_, units)| *units > 0).collect()
    }
}

/// What coupons have left of an order.
#[derive(Clone)]
pub(super) struct Left {
    /// To pay for each line.
    lines: Vec<i64>,
    pub freight_discount: i64,
    pub coupon_discount: i64,
    /// What coupons that apply want to remain of the goods.
    pub must_remain: i64,
}

impl Left {
    pub(super) fn all_of(goods: &Goods<'_>) -> Self {
        Left { lines: goods.amounts.clone(), freight_discount: 0, coupon_discount: 0, must_remain: 0 }
    }

    pub(super) fn lines(&self) -> &[i64] {
        &self.lines
    }

    pub(super) fn total_discount(&self) -> i64 {
        self.coupon_discount + self.freight_discount
    }

    /// What the plan of a coupon that wants `min_pay_amount` to remain takes off now, within all limits.
    pub(super) fn discount(&self, goods: &Goods<'_>, plan: &Plan, min_pay_amount: i64) -> i64 {
        let limit = self.goods_limit(goods, min_pay_amount);
        let wanted = match plan {
            Plan::Together { lines, off, max_amount } => {
                let left: i64 = lines.iter().map(|index| self.of_line(goods, *index)).sum();
                let off = match off {
                    StepOff::Amount(amount) => *amount,
                    StepOff::BasisPoints(basis_points) => {
                        let base = match goods.rule.percent_base {
                            // Lines that are left alone count for nothing, and the others cost what they did at first.
                            PercentBase::Initial if !goods.rule.one_coupon_per_line => {
                                lines.iter().map(|index| goods.amounts[*index]).sum()
                            }
                            _ => left,
                        };
                        goods.part(base, *basis_points)
                    }
                };
                capped(off, *max_amount).min(left)
            }
            Plan::Units { lines, off } => {
                lines.iter().map(|(index, units)| self.off_units(goods, *index, *units, off)).sum()
            }
            // Freight is not of the goods, but of goods that cost less than the coupon wants to remain it asks too much.
            Plan::Freight { max_amount } => {
                let left = goods.basket.freight - self.freight_discount;
                return if limit < 0 { 0 } else { capped(left, *max_amount) };
            }
        };
        wanted.min(limit).max(0)
    }

    /// Takes off what [`Left::discount`] has told, and tells each line's share.
    pub(super) fn take(&mut self, goods: &Goods<'_>, plan: &Plan, min_pay_amount: i64, discount: i64) -> Vec<i64> {
        self.must_remain = self.must_remain.max(min_pay_amount);
        let mut weights = vec![0; self.lines.len()];
        match plan {
            Plan::Together { lines, .. } => {
                for index in lines {
                    weights[*index] = self.of_line(goods, *index);
                }
            }
            Plan::Units { lines, off } => {
                for (index, units) in lines {
                    weights[*index] = self.off_units(goods, *index, *units, off);
                }
            }
            Plan::Freight { .. } => {
                self.freight_discount += discount;
                return weights;
            }
        }
        let shares = share::split(discount, &weights);
        self.coupon_discount += discount;
        for (left, share) in self.lines.iter_mut().zip(&shares) {
            *left -= share;
        }
        shares
    }

    /// What a coupon may still take off a line.
    fn of_line(&self, goods: &Goods<'_>, index: usize) -> i64 {
        let left = self.lines[index];
        if goods.rule.one_coupon_per_line && left < goods.amounts[index] { 0 } else { left }
    }

    fn off_units(&self, goods: &Goods<'_>, index: usize, units: i64, off: &UnitsOff) -> i64 {
        let (left, quantity) = (self.of_line(goods, index), goods.lines[index].quantity);
        match off {
            UnitsOff::BasisPoints(basis_points) => {
                let base = match goods.rule.percent_base {
                    PercentBase::Remaining => left,
                    PercentBase::Initial => goods.amounts[index],
                };
                goods.part(part_of(base, units, quantity), *basis_points).min(left)
            }
            UnitsOff::Price(price) => (part_of(left, units, quantity) - price * units).max(0),
        }
    }

    /// What one more coupon may take off the goods, whatever it is worth.
    pub(super) fn goods_limit(&self, goods: &Goods<'_>, min_pay_amount: i64) -> i64 {
        let left = goods.original_amount - self.coupon_discount - self.must_remain.max(min_pay_amount);
        left.min(goods.most_off - self.coupon_discount)
    }
}

/// The highest step that goods of `subtotal` reach.
fn reached(steps: &[Step], subtotal: i64) -> Result<&Step, Rejection> {
    let step = steps.iter().filter(|step| step.min_amount <= subtotal).max_by_key(|step| step.min_amount);
    step.ok_or_else(|| {
        let min_amount = steps.iter().map(|step| step.min_amount).min().unwrap_or(0);
        Rejection::CouponBelowThreshold { min_amount, eligible_amount: subtotal }
    })
}

fn capped(amount: i64, most: Option<i64>) -> i64 {
    amount.min(most.unwrap_or(i64::MAX))
}
