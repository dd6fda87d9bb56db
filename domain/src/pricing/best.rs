//! The best combination of a member's coupons for an order.
//!
//! Coupons that apply alone are tried in every combination that applies as a whole, depth first, the largest single discount
//! first. Leaving a coupon out never makes another apply less, so a combination that does not apply as a whole needs no
//! extension. The search ends after [`MAX_PRICED`] combinations and then tells so; what it has found by then starts from the
//! largest single discounts, so it is at least as good as the best single coupon.

use std::cmp::Reverse;

use super::{Basket, Offer, Rules, price};
use crate::id::CouponId;
use crate::rejection::Rejection;
use crate::time::Timestamp;

/// The most coupons that are tried in combinations, those with the largest single discounts.
const MAX_CANDIDATES: usize = 20;
/// The most combinations that are priced.
const MAX_PRICED: usize = 5_000;

/// What the search has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Best {
    pub coupon_ids: Vec<CouponId>,
    /// False when the bounds ended the search, and something better may exist.
    pub exhaustive: bool,
}

struct Search<'a> {
    basket: &'a Basket,
    rules: &'a Rules,
    candidates: Vec<(Offer<'a>, Timestamp)>,
    priced: usize,
    best: Vec<usize>,
    best_rank: Rank,
}

/// Greater is better: the discount; then fewer coupons; then those that expire sooner; then by id.
type Rank = (i64, Reverse<usize>, Reverse<Vec<(Timestamp, CouponId)>>);

/// Finds the combination with the largest discount on goods and freight. Each offer comes with the time its coupon expires.
///
/// # Errors
/// As [`price`].
pub fn best(basket: &Basket, offers: &[(Offer<'_>, Timestamp)], rules: &Rules) -> Result<Best, Rejection> {
    let mut alone = Vec::new();
    for (offer, valid_until) in offers {
        let quote = price(basket, std::slice::from_ref(offer), 0, rules)?;
        if quote.total_discount > 0 {
            alone.push((quote.total_discount, offer.clone(), *valid_until));
        }
    }
    alone.sort_by_key(|(discount, offer, valid_until)| (Reverse(*discount), *valid_until, offer.coupon_id));
    let all_tried = alone.len() <= MAX_CANDIDATES;
    let candidates = alone.into_iter().take(MAX_CANDIDATES).map(|(_, offer, until)| (offer, until)).collect();
    let nothing = (0, Reverse(0), Reverse(Vec::new()));
    let mut search = Search { basket, rules, candidates, priced: 0, best: Vec::new(), best_rank: nothing };
    search.extend(&mut Vec::new(), 0)?;
    let coupon_ids = search.best.iter().map(|index| search.candidates[*index].0.coupon_id).collect();
    Ok(Best { coupon_ids, exhaustive: all_tried && search.priced < MAX_PRICED })
}

impl Search<'_> {
    fn extend(&mut self, chosen: &mut Vec<usize>, from: usize) -> Result<(), Rejection> {
        for index in from..self.candidates.len() {
            if self.priced >= MAX_PRICED {
                return Ok(());
            }
            self.priced += 1;
            chosen.push(index);
            let offers: Vec<Offer> = chosen.iter().map(|index| self.candidates[*index].0.clone()).collect();
            let quote = price(self.basket, &offers, 0, self.rules)?;
            if quote.coupons.iter().all(|coupon| coupon.refusal.is_none()) {
                let mut expiries: Vec<(Timestamp, CouponId)> = chosen
                    .iter()
                    .map(|index| (self.candidates[*index].1, self.candidates[*index].0.coupon_id))
                    .collect();
                expiries.sort_unstable();
                let rank = (quote.total_discount, Reverse(chosen.len()), Reverse(expiries));
                if rank > self.best_rank {
                    self.best_rank = rank;
                    self.best.clone_from(chosen);
                }
                self.extend(chosen, index + 1)?;
            }
            chosen.pop();
        }
        Ok(())
    }
}
