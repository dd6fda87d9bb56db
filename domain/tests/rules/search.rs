//! The search for the best combination as it was at first: every combination is priced as a whole, and branches are bounded by
//! single discounts alone. Slow and simple; it says what the search of today must find.

use std::cmp::Reverse;

use proptest::prelude::*;
use scrip_domain::coupon::{Benefit, Stacking};
use scrip_domain::pricing::{Basket, Candidate, MAX_COUPONS, Offer, Rules, best, price, price_each};
use scrip_domain::{CouponId, TemplateId, Timestamp};
use uuid::Uuid;

use crate::generate::Random;
use crate::pricing_laws::{basket, definition, rules};

type Rank = (i64, Reverse<usize>, Reverse<Vec<(Timestamp, CouponId)>>);

struct Search<'a> {
    basket: &'a Basket,
    rules: &'a Rules,
    /// Those that apply alone, in the order in which they are computed, with what they are worth alone.
    choices: Vec<(&'a Candidate<'a>, i64)>,
    best: Vec<CouponId>,
    rank: Rank,
}

impl<'a> Search<'a> {
    fn new(basket: &'a Basket, candidates: &'a [Candidate<'a>], rules: &'a Rules) -> Self {
        let offers: Vec<Offer> = candidates.iter().map(|candidate| candidate.offer.clone()).collect();
        let alone = price_each(basket, &offers, rules).expect("a small order");
        let mut choices: Vec<(&Candidate, i64)> = candidates
            .iter()
            .zip(alone)
            .filter(|(_, quote)| quote.refusal.is_none())
            .map(|(candidate, quote)| (candidate, quote.discount))
            .collect();
        choices.sort_by_key(|(candidate, _)| {
            let Offer { coupon_id, template_id, definition, .. } = &candidate.offer;
            let rank = Benefit::KINDS.iter().position(|kind| *kind == definition.benefit.kind());
            (definition.priority, rank, *template_id, *coupon_id)
        });
        let mut search =
            Search { basket, rules, choices, best: Vec::new(), rank: (0, Reverse(0), Reverse(Vec::new())) };
        search.extend(&mut Vec::new(), 0);
        search
    }

    /// The whole discount, when all of them apply.
    fn discount(&self, chosen: &[usize]) -> Option<i64> {
        let offers: Vec<Offer> = chosen.iter().map(|index| self.choices[*index].0.offer.clone()).collect();
        let quote = price(self.basket, &offers, 0, self.rules).expect("a small order");
        quote.coupons.iter().all(|coupon| coupon.refusal.is_none()).then_some(quote.total_discount)
    }

    fn is_twin(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.choices[one].0.offer, &self.choices[other].0.offer);
        one.template_id == other.template_id && one.definition == other.definition
    }

    fn extend(&mut self, chosen: &mut Vec<usize>, from: usize) {
        let most = MAX_COUPONS.min(self.rules.orders.max_coupons_per_order as usize);
        for index in from..self.choices.len() {
            let mut alone: Vec<i64> = self.choices[index..].iter().map(|(_, alone)| *alone).collect();
            alone.sort_unstable_by_key(|discount| Reverse(*discount));
            let reach = self.discount(chosen).unwrap_or(0) + alone.iter().take(most - chosen.len()).sum::<i64>();
            let (found, Reverse(fewest), _) = &self.rank;
            if chosen.len() == most || reach < *found || (reach == *found && chosen.len() + 1 > *fewest) {
                return;
            }
            let twins = |all: &[usize]| all.iter().filter(|other| self.is_twin(**other, index)).count();
            if twins(chosen) < twins(&(0..index).collect::<Vec<_>>()) {
                continue;
            }
            chosen.push(index);
            if let Some(discount) = self.discount(chosen) {
                self.compare(discount, chosen);
                self.extend(chosen, index + 1);
            }
            chosen.pop();
        }
    }

    fn compare(&mut self, discount: i64, chosen: &[usize]) {
        let expiry = |index: &usize| {
            let candidate = self.choices[*index].0;
            (candidate.valid_until, candidate.offer.coupon_id)
        };
        let mut expiries: Vec<(Timestamp, CouponId)> = chosen.iter().map(expiry).collect();
        expiries.sort_unstable();
        let rank = (discount, Reverse(chosen.len()), Reverse(expiries));
        if rank > self.rank {
            self.rank = rank;
            self.best = chosen.iter().map(|index| self.choices[*index].0.offer.coupon_id).collect();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn the_search_finds_what_the_slow_one_finds(seed: u64) {
        let random = &mut Random::new(seed);
        let rules = rules(random);
        let basket = basket(random);
        let mut definitions: Vec<_> = (0..random.between(0, 9)).map(|_| definition(random)).collect();
        // Most random coupons exclude each other; these have more to search.
        if random.percent(50) {
            for definition in &mut definitions {
                definition.stacking = Stacking::Stackable;
                definition.min_order_amount = 0;
            }
        }
        // Coupons of one definition, and equal discounts.
        if let Some(first) = definitions.first().cloned() {
            definitions.extend((0..random.between(0, 3)).map(|_| first.clone()));
        }
        let candidates: Vec<Candidate> = definitions
            .iter()
            .enumerate()
            .map(|(index, definition)| {
                let template = if *definition == definitions[0] { 0 } else { index as u128 / 2 + 1 };
                let offer = Offer {
                    coupon_id: CouponId(Uuid::from_u128(index as u128 + 1)),
                    template_id: TemplateId(Uuid::from_u128(template)),
                    definition,
                    refused: None,
                };
                Candidate { offer, valid_until: Timestamp(random.between(1, 3)) }
            })
            .collect();
        let slow = Search::new(&basket, &candidates, &rules);
        let found = best(&basket, &candidates, &rules).expect("a small order");
        prop_assert!(found.exhaustive);
        prop_assert_eq!((found.discount, &found.coupon_ids), (slow.rank.0, &slow.best));
    }
}
