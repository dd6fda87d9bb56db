//! What a refund of some items gives back.
//!
//! A line's amounts are shared over its units by cumulative rounding: after `n` of `q` units are refunded, exactly
//! `round(amount * n / q)` has been given back, however many refunds it took. So refunds in any order and any parts add up to
//! what was paid, to the minor unit and to the point.

use serde::{Deserialize, Serialize};

use super::LineQuote;
use super::share::part_of;

/// What a refund gives back for one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRefund {
    pub item_id: String,
    pub quantity: i64,
    /// In minor units.
    pub amount: i64,
    /// Spent points that come back.
    pub points_returned: i64,
    /// Earned points that are taken back.
    pub points_clawed_back: i64,
}

/// Refunds `quantity` units of a line of which `refunded` were refunded before. Needs `refunded + quantity` of at most the
/// line's quantity.
pub fn line(quote: &LineQuote, refunded: i64, quantity: i64) -> LineRefund {
    let part =
        |value: i64| part_of(value, refunded + quantity, quote.quantity) - part_of(value, refunded, quote.quantity);
    LineRefund {
        item_id: quote.item_id.clone(),
        quantity,
        amount: part(quote.pay_amount),
        points_returned: part(quote.points_spent),
        points_clawed_back: part(quote.points_to_earn),
    }
}
