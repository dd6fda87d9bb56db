//! What each kind of benefit wants to take off, before any limit.

use std::cmp::Reverse;

use super::share::part_of;
use super::{Eligible, Pricing};
use crate::coupon::{Benefit, Step, StepOff};
use crate::rejection::Rejection;

/// A discount before limits.
pub(super) enum Wanted {
    /// Off the goods, shared in proportion to `weights` (one for each line; their sum is at least `amount`).
    Goods {
        weights: Vec<i64>,
        amount: i64,
    },
    Freight {
        amount: i64,
    },
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

impl Pricing<'_, '_> {
    /// What the benefit takes off the eligible goods.
    pub(super) fn wanted(&self, benefit: &Benefit, eligible: &Eligible) -> Result<Wanted, Rejection> {
        let indexes = &eligible.indexes[..];
        match benefit {
            Benefit::AmountOff { amount } => Ok(self.off_all(indexes, |left| left.min(*amount))),
            Benefit::PercentOff { basis_points, max_amount } => {
                Ok(self.off_all(indexes, |left| capped(part(left, *basis_points), *max_amount)))
            }
            Benefit::Exchange { product_id, sku_id } => self.exchange(indexes, product_id, sku_id.as_deref()),
            Benefit::FreeShipping { max_amount } => {
                let left = self.goods.basket.freight - self.freight_discount;
                Ok(Wanted::Freight { amount: capped(left, *max_amount) })
            }
            Benefit::BuyXGetY { buy_quantity, get_quantity, basis_points, max_sets } => {
                let sets = (eligible.quantity / (buy_quantity + get_quantity)).min(max_sets.unwrap_or(i64::MAX));
                if sets == 0 {
                    let min_quantity = buy_quantity + get_quantity;
                    return Err(Rejection::CouponQuantity { min_quantity, eligible_quantity: eligible.quantity });
                }
                let mut cheapest_first = indexes.to_vec();
                cheapest_first.sort_by_key(|index| self.goods.lines[*index].unit_price);
                Ok(self.off_units(cheapest_first, sets * get_quantity, |left, _| part(left, *basis_points)))
            }
            Benefit::Tiered { steps, max_amount } => {
                let step = reached(steps, eligible.subtotal)?;
                Ok(self.off_all(indexes, |left| {
                    let off = match step.off {
                        StepOff::Amount(amount) => amount.min(left),
                        StepOff::BasisPoints(basis_points) => part(left, basis_points),
                    };
                    capped(off, *max_amount)
                }))
            }
            Benefit::FixedPrice { price, max_quantity } => {
                let mut dearest_first = indexes.to_vec();
                dearest_first.sort_by_key(|index| Reverse(self.goods.lines[*index].unit_price));
                let most = max_quantity.unwrap_or(i64::MAX);
                Ok(self.off_units(dearest_first, most, |left, units| (left - price * units).max(0)))
            }
        }
    }

    /// Off everything eligible: `discount` tells how much of what is left of it.
    fn off_all(&self, eligible: &[usize], discount: impl Fn(i64) -> i64) -> Wanted {
        let mut weights = vec![0; self.left.len()];
        for index in eligible {
            weights[*index] = self.left[*index];
        }
        let amount = discount(weights.iter().sum());
        Wanted::Goods { weights, amount }
    }

    /// One unit free: of the matching lines, the one with the cheapest unit.
    fn exchange(&self, eligible: &[usize], product_id: &str, sku_id: Option<&str>) -> Result<Wanted, Rejection> {
        let lines = &self.goods.lines;
        let matching = eligible.iter().copied().filter(|index| {
            let line = lines[*index];
            line.product_id == product_id && sku_id.is_none_or(|sku| line.sku_id.as_deref() == Some(sku))
        });
        let cheapest = matching.min_by_key(|index| lines[*index].unit_price).ok_or(Rejection::CouponProductMissing)?;
        Ok(self.off_units(vec![cheapest], 1, |left, _| left))
    }

    /// Off `most` units, those of the lines that come first: `discount` tells how much of what is left of so many units.
    /// Works line by line, whatever the quantities.
    fn off_units(&self, lines: Vec<usize>, most: i64, discount: impl Fn(i64, i64) -> i64) -> Wanted {
        let mut units_left = most;
        let mut weights = vec![0; self.left.len()];
        for index in lines {
            let quantity = self.goods.lines[index].quantity;
            let units = units_left.min(quantity);
            weights[index] = discount(part_of(self.left[index], units, quantity), units);
            units_left -= units;
        }
        Wanted::Goods { amount: weights.iter().sum(), weights }
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

/// Basis points of an amount, a half rounded up.
fn part(amount: i64, basis_points: u16) -> i64 {
    part_of(amount, basis_points.into(), 10_000)
}

fn capped(amount: i64, most: Option<i64>) -> i64 {
    amount.min(most.unwrap_or(i64::MAX))
}
