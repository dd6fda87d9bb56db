//! The best combination of a member's coupons for an order.
//!
//! Coupons are taken in the order in which they are computed, and each is put in or left out, depth first: so the price of a
//! combination grows coupon by coupon, and every combination that applies as a whole is met once. No coupon takes more off in
//! a combination than alone, since every benefit and every limit only shrinks with what is left; hence the discount so far and
//! the largest single discounts still to come bound what a branch can reach, and branches that cannot win are left out
//! unseen. The first combination is a greedy one, the largest single discounts first. Of coupons with equal definitions the
//! earlier go in first: the others would give the same again.
//!
//! The search ends after [`MAX_TRIED`] combinations, and looks at the [`MAX_CANDIDATES`] coupons with the largest single
//! discounts. Whether these bounds were met is told, and so whether the result is proved to be the best; in any case it is at
//! least as good as the best single coupon. Points do not count: they are the member's own.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::{Basket, Eligible, Goods, MAX_COUPONS, Offer, Pricing, Rules, computed};
use crate::coupon::Stacking;
use crate::id::CouponId;
use crate::rejection::Rejection;
use crate::time::Timestamp;

/// The most coupons that are tried in combinations.
pub const MAX_CANDIDATES: usize = 30;
/// The most combinations that are tried.
pub const MAX_TRIED: usize = 5_000;

/// An offer, and when its coupon expires: of equal combinations, the one that expires sooner is better.
pub struct Candidate<'a> {
    pub offer: Offer<'a>,
    pub valid_until: Timestamp,
}

/// What the search has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Best {
    pub coupon_ids: Vec<CouponId>,
    /// Off goods and freight.
    pub discount: i64,
    /// True when no other combination gives more; false when the bounds ended the search.
    pub exhaustive: bool,
}

/// Finds the combination with the largest discount on goods and freight; of equal ones, that of fewer coupons.
///
/// # Errors
/// As [`super::price`].
pub fn best(basket: &Basket, candidates: &[Candidate<'_>], rules: &Rules) -> Result<Best, Rejection> {
    let goods = Goods::of(basket, rules.orders)?;
    let mut choices: Vec<Choice> = candidates.iter().filter_map(|candidate| Choice::of(&goods, candidate)).collect();
    choices.sort_by_key(|choice| computed(choice.offer));
    let most = MAX_COUPONS.min(goods.rule.max_coupons_per_order as usize);
    let all_fit = leave_out(&mut choices, most);
    let mut search = Search {
        bounds: bounds(&choices, most),
        choices,
        most,
        tried: 0,
        best: Vec::new(),
        best_rank: (0, Reverse(0), Reverse(Vec::new())),
    };
    search.start_greedily(&goods);
    search.extend(&Pricing::of(&goods), &mut Vec::new(), 0);
    Ok(Best {
        coupon_ids: search.best.iter().map(|index| search.choices[*index].offer.coupon_id).collect(),
        discount: search.best_rank.0,
        exhaustive: all_fit && search.tried < MAX_TRIED,
    })
}

/// A candidate that applies alone.
struct Choice<'a, 'c> {
    offer: &'c Offer<'a>,
    valid_until: Timestamp,
    eligible: Eligible,
    /// What it takes off alone.
    alone: i64,
    /// How many choices before it have an equal definition.
    twins_before: usize,
}

impl<'a, 'c> Choice<'a, 'c> {
    fn of(goods: &Goods<'a>, candidate: &'c Candidate<'a>) -> Option<Self> {
        let offer = &candidate.offer;
        if offer.refused.is_some() {
            return None;
        }
        let eligible = goods.eligible(&offer.definition.scope);
        goods.check(offer.definition, &eligible).ok()?;
        let alone = Pricing::of(goods).apply(offer, &eligible).ok()?;
        Some(Choice { offer, valid_until: candidate.valid_until, eligible, alone, twins_before: 0 })
    }

    fn is_twin_of(&self, other: &Choice) -> bool {
        let (one, two) = (self.offer, other.offer);
        one.template_id == two.template_id
            && (std::ptr::eq(one.definition, two.definition) || one.definition == two.definition)
    }
}

/// Leaves out the choices that no combination needs, since enough of their twins are there, and then, if there still are too
/// many, those that are worth least. False when the latter was necessary.
fn leave_out(choices: &mut Vec<Choice>, most: usize) -> bool {
    for index in 0..choices.len() {
        choices[index].twins_before = (0..index).filter(|before| choices[index].is_twin_of(&choices[*before])).count();
    }
    choices.retain(|choice| {
        let combine = choice.offer.definition.stacking == Stacking::Stackable;
        choice.twins_before < if combine { most } else { 1 }
    });
    if choices.len() <= MAX_CANDIDATES {
        return true;
    }
    let mut by_worth: Vec<usize> = (0..choices.len()).collect();
    by_worth.sort_by_key(|index| Reverse(choices[*index].alone));
    let kept: HashSet<usize> = by_worth.into_iter().take(MAX_CANDIDATES).collect();
    let mut index = 0..;
    choices.retain(|_| index.next().is_some_and(|index| kept.contains(&index)));
    false
}

/// `bounds[first][count]`: the sum of the `count` largest single discounts among the choices from `first` on.
fn bounds(choices: &[Choice], most: usize) -> Vec<Vec<i64>> {
    let sums = |first: usize| {
        let mut alone: Vec<i64> = choices[first..].iter().map(|choice| choice.alone).collect();
        alone.sort_unstable_by_key(|discount| Reverse(*discount));
        alone.resize(most.max(alone.len()), 0);
        let sums = alone.iter().scan(0, |sum, discount| {
            *sum += discount;
            Some(*sum)
        });
        std::iter::once(0).chain(sums.take(most)).collect()
    };
    (0..=choices.len()).map(sums).collect()
}

/// Greater is better: the discount; then fewer coupons; then those that expire sooner, and by id.
type Rank = (i64, Reverse<usize>, Reverse<Vec<(Timestamp, CouponId)>>);

struct Search<'a, 'c> {
    choices: Vec<Choice<'a, 'c>>,
    bounds: Vec<Vec<i64>>,
    most: usize,
    tried: usize,
    /// Indexes of choices.
    best: Vec<usize>,
    best_rank: Rank,
}

impl<'a> Search<'a, '_> {
    /// Tries the choices by what they are worth alone and keeps each that raises the discount.
    fn start_greedily(&mut self, goods: &Goods<'a>) {
        let mut by_worth: Vec<usize> = (0..self.choices.len()).collect();
        by_worth.sort_by_key(|index| Reverse(self.choices[*index].alone));
        for index in by_worth {
            let mut chosen = self.best.clone();
            chosen.insert(chosen.partition_point(|other| *other < index), index);
            let mut pricing = Pricing::of(goods);
            let apply = |index: &usize| pricing.apply(self.choices[*index].offer, &self.choices[*index].eligible);
            if chosen.iter().map(apply).all(|applied| applied.is_ok()) {
                self.compare(pricing.total_discount(), &chosen);
            }
        }
    }

    /// Tries everything that adds choices from `from` on to those chosen, which `pricing` has applied.
    fn extend(&mut self, pricing: &Pricing<'a, '_>, chosen: &mut Vec<usize>, from: usize) {
        for index in from..self.choices.len() {
            let count = chosen.len();
            let reach = pricing.total_discount() + self.bounds[index][self.most.saturating_sub(count)];
            let (most_found, Reverse(fewest), _) = &self.best_rank;
            if reach < *most_found || (reach == *most_found && count + 1 > *fewest) || self.tried >= MAX_TRIED {
                return;
            }
            let choice = &self.choices[index];
            let twins_chosen = chosen.iter().filter(|other| self.choices[**other].is_twin_of(choice)).count();
            if twins_chosen < choice.twins_before {
                continue;
            }
            self.tried += 1;
            let mut with = pricing.clone();
            if with.apply(choice.offer, &choice.eligible).is_ok() {
                chosen.push(index);
                self.compare(with.total_discount(), chosen);
                self.extend(&with, chosen, index + 1);
                chosen.pop();
            }
        }
    }

    fn compare(&mut self, discount: i64, chosen: &[usize]) {
        if discount < self.best_rank.0 {
            return;
        }
        let expiry = |index: &usize| (self.choices[*index].valid_until, self.choices[*index].offer.coupon_id);
        let mut expiries: Vec<(Timestamp, CouponId)> = chosen.iter().map(expiry).collect();
        expiries.sort_unstable();
        let rank = (discount, Reverse(chosen.len()), Reverse(expiries));
        if rank > self.best_rank {
            self.best_rank = rank;
            self.best = chosen.to_vec();
        }
    }
}
