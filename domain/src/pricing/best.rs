//! The best combination of a member's coupons for an order.
//!
//! Coupons are taken in the order in which they are computed, and each is put in or left out, depth first: so the price of a
//! combination grows coupon by coupon, and every combination that applies as a whole is met once. No coupon takes more off in
//! a combination than alone, since every benefit and every limit only shrinks with what is left; hence the discount so far and
//! the largest single discounts of those still to come that go with all chosen bound what a branch can reach, and branches that
//! cannot win are left out unseen. The first combination is a greedy one, the largest single discounts first. Of coupons with
//! equal definitions the earlier go in first: the others would give the same again.
//!
//! What a coupon would take off is a sum over its lines; its shares are worked out only where a further coupon may follow.
//!
//! The search ends after [`MAX_TRIED`] combinations, and looks at the [`MAX_CANDIDATES`] coupons with the largest single
//! discounts. Whether these bounds were met is told, and so whether the result is proved to be the best; in any case it is at
//! least as good as the best single coupon. Points do not count: they are the member's own.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::benefit::{Left, Plan};
use super::{Basket, CouponQuote, Goods, MAX_COUPONS, Offer, Pricing, Rules, computed, stack};
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
    /// What each candidate does on its own, in their order.
    pub alone: Vec<CouponQuote>,
}

/// Finds the combination with the largest discount on goods and freight; of equal ones, that of fewer coupons.
///
/// # Errors
/// As [`super::price`].
pub fn best(basket: &Basket, candidates: &[Candidate<'_>], rules: &Rules) -> Result<Best, Rejection> {
    let goods = Goods::of(basket, rules.orders)?;
    let mut choices = Vec::new();
    let mut alone = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let (choice, quote) = Choice::of(&goods, candidate);
        choices.extend(choice);
        alone.push(quote);
    }
    choices.sort_by_key(|choice| computed(choice.offer));
    let most = MAX_COUPONS.min(goods.rule.max_coupons_per_order as usize);
    let all_fit = leave_out(&mut choices, most);
    let mut search = Search::new(&goods, choices, most);
    let (left, everything) = (Left::all_of(&goods), search.everything);
    search.start_greedily(&left);
    if most > 0 {
        search.extend(&left, everything, &mut Vec::new());
    }
    Ok(Best {
        coupon_ids: search.best.iter().map(|index| search.choices[*index].offer.coupon_id).collect(),
        discount: search.best_rank.0,
        exhaustive: all_fit && search.tried < MAX_TRIED,
        alone,
    })
}

/// A candidate that applies alone.
struct Choice<'a, 'c> {
    offer: &'c Offer<'a>,
    valid_until: Timestamp,
    plan: Plan,
    /// What it takes off alone.
    alone: i64,
    /// How many choices before it have an equal definition.
    twins_before: usize,
}

impl<'a, 'c> Choice<'a, 'c> {
    /// None when it does not apply alone; and what it does alone.
    fn of(goods: &Goods<'a>, candidate: &'c Candidate<'a>) -> (Option<Self>, CouponQuote) {
        let offer = &candidate.offer;
        let prospect = goods.assess(offer);
        let (plan, result) = match prospect.plan {
            Ok(plan) => {
                let result = Pricing::of(goods).apply(offer, &plan);
                (Some(plan), result)
            }
            Err(refusal) => (None, Err(refusal)),
        };
        let choice = plan.zip(result.as_ref().ok()).map(|(plan, alone)| Choice {
            offer,
            valid_until: candidate.valid_until,
            plan,
            alone: *alone,
            twins_before: 0,
        });
        (choice, CouponQuote::of(offer, prospect.subtotal, result))
    }

    fn is_twin_of(&self, other: &Choice) -> bool {
        let (one, two) = (self.offer, other.offer);
        one.template_id == two.template_id
            && (std::ptr::eq(one.definition, two.definition) || one.definition == two.definition)
    }

    fn min_pay_amount(&self) -> i64 {
        self.offer.definition.min_pay_amount
    }
}

/// Leaves out the choices that no combination needs, since enough of their twins are there, and then, if there still are too
/// many, those that are worth least. False when the latter was necessary.
fn leave_out(choices: &mut Vec<Choice>, most: usize) -> bool {
    for index in 0..choices.len() {
        choices[index].twins_before = (0..index).filter(|before| choices[index].is_twin_of(&choices[*before])).count();
    }
    choices.retain(|choice| {
        let definition = choice.offer.definition;
        let combine = definition.stacking == Stacking::Stackable && definition.stacking_group.is_none();
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

/// Greater is better: the discount; then fewer coupons; then those that expire sooner, and by id.
type Rank = (i64, Reverse<usize>, Reverse<Vec<(Timestamp, CouponId)>>);

/// A set of choices, a bit for each.
type Set = u32;

const _: () = assert!(MAX_CANDIDATES <= Set::BITS as usize);

struct Search<'a, 'c, 'g> {
    goods: &'g Goods<'a>,
    choices: Vec<Choice<'a, 'c>>,
    everything: Set,
    /// For each choice, those that may apply to the same order.
    go_with: Vec<Set>,
    /// For each choice, those of its definition, itself included.
    twins: Vec<Set>,
    /// For each choice, a name that it shares with choices of which one order takes one at most, if there are any.
    rivals: Vec<Option<usize>>,
    /// All choices, the largest single discounts first.
    by_worth: Vec<usize>,
    most: usize,
    tried: usize,
    /// Indexes of choices.
    best: Vec<usize>,
    best_rank: Rank,
}

impl<'a, 'c, 'g> Search<'a, 'c, 'g> {
    fn new(goods: &'g Goods<'a>, choices: Vec<Choice<'a, 'c>>, most: usize) -> Self {
        let set = |fits: &dyn Fn(usize) -> bool| -> Set {
            (0..choices.len()).filter(|index| fits(*index)).map(|index| 1 << index).sum()
        };
        let definition = |index: usize| choices[index].offer.definition;
        let all = 0..choices.len();
        let go_with =
            all.clone().map(|one| set(&|other| other != one && stack(definition(one), definition(other)))).collect();
        let twins = all.clone().map(|one| set(&|other| choices[one].is_twin_of(&choices[other]))).collect();
        let rivals = all.clone().map(|one| {
            let is_rival = |other: usize| {
                let (one, other) = (definition(one), definition(other));
                match &one.stacking_group {
                    Some(_) => one.stacking_group == other.stacking_group,
                    None => {
                        other.stacking_group.is_none()
                            && one.stacking == Stacking::SameTypeExclusive
                            && other.stacking == Stacking::SameTypeExclusive
                            && one.benefit.kind() == other.benefit.kind()
                    }
                }
            };
            all.clone().find(|other| is_rival(*other))
        });
        let mut by_worth: Vec<usize> = all.clone().collect();
        by_worth.sort_by_key(|index| Reverse(choices[*index].alone));
        Search {
            goods,
            everything: set(&|_| true),
            go_with,
            twins,
            rivals: rivals.collect(),
            by_worth,
            most,
            tried: 0,
            best: Vec::new(),
            best_rank: (0, Reverse(0), Reverse(Vec::new())),
            choices,
        }
    }

    /// Tries the choices by what they are worth alone and keeps each that raises the discount.
    fn start_greedily(&mut self, all_left: &Left) {
        for index in self.by_worth.clone() {
            if self.best.len() >= self.most || self.best.iter().any(|other| self.go_with[*other] & (1 << index) == 0) {
                continue;
            }
            let mut chosen = self.best.clone();
            chosen.insert(chosen.partition_point(|other| *other < index), index);
            let mut left = all_left.clone();
            if chosen.iter().all(|index| self.take(&mut left, *index)) {
                self.compare(left.total_discount(), &chosen);
            }
        }
    }

    /// Takes off what a choice gives; false when that is nothing.
    fn take(&self, left: &mut Left, index: usize) -> bool {
        let choice = &self.choices[index];
        let discount = left.discount(self.goods, &choice.plan, choice.min_pay_amount());
        if discount > 0 {
            left.take(self.goods, &choice.plan, choice.min_pay_amount(), discount);
        }
        discount > 0
    }

    /// Tries everything that adds some of `open` to those chosen, of which `left` is left. All of `open` go with all chosen, and
    /// come after them.
    fn extend(&mut self, left: &Left, open: Set, chosen: &mut Vec<usize>) {
        let mut open = open;
        while open != 0 && self.tried < MAX_TRIED {
            let so_far = left.total_discount();
            if !self.can_win(so_far + self.reach(left, open, self.most - chosen.len()), chosen.len() + 1) {
                return;
            }
            let index = open.trailing_zeros() as usize;
            open &= open - 1;
            let choice = &self.choices[index];
            let twins_chosen = chosen.iter().filter(|other| self.twins[index] & (1 << **other) != 0).count();
            if twins_chosen < choice.twins_before {
                continue;
            }
            self.tried += 1;
            let discount = left.discount(self.goods, &choice.plan, choice.min_pay_amount());
            if discount == 0 {
                continue;
            }
            chosen.push(index);
            self.compare(so_far + discount, chosen);
            let (then, more) = (open & self.go_with[index], self.most - chosen.len());
            if then != 0 && more > 0 {
                let reach = so_far + discount + self.reach(left, then, more);
                if self.can_win(reach, chosen.len() + 1) {
                    let (choice, mut left) = (&self.choices[index], left.clone());
                    left.take(self.goods, &choice.plan, choice.min_pay_amount(), discount);
                    self.extend(&left, then, chosen);
                }
            }
            chosen.pop();
        }
    }

    /// Whether a combination of at least `count` coupons and at most this discount could be better than what is found.
    fn can_win(&self, discount: i64, count: usize) -> bool {
        let (found, Reverse(fewest), _) = &self.best_rank;
        discount > *found || (discount == *found && count <= *fewest)
    }

    /// The most that `count` of these choices can add: the sum of the largest single discounts, one of each kind of rivals, within
    /// what the tenant's limits leave.
    fn reach(&self, left: &Left, of: Set, count: usize) -> i64 {
        let (mut sum, mut taken, mut rivals): (i64, usize, Set) = (0, 0, 0);
        // One that goes with none of the others.
        let mut single = 0;
        for index in self.by_worth.iter().copied().filter(|index| of & (1 << index) != 0) {
            if taken == count {
                break;
            }
            let alone = self.choices[index].alone;
            if self.go_with[index] & of == 0 {
                single = alone.max(single);
                continue;
            }
            if let Some(name) = self.rivals[index] {
                if rivals & (1 << name) != 0 {
                    continue;
                }
                rivals |= 1 << name;
            }
            sum += alone;
            taken += 1;
        }
        let freight = self.goods.basket.freight - left.freight_discount;
        sum.max(single).min(left.goods_limit(self.goods, 0).max(0) + freight)
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
