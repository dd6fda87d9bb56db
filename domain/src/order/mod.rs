//! Orders: coupons and points of one sale, taken and given back together.
//!
//! ```text
//!            pay              refund                refund of the rest
//! RESERVED ------> PAID ------------> PARTIALLY_REFUNDED ------------> REFUNDED
//!  |    |           ^  |                                                  ^
//!  |    | deadline  |  +-------------------- refund of all ---------------+
//!  |    +------> EXPIRED     pay, when everything is still free
//!  | cancel
//!  +----------> CANCELLED
//! ```
//!
//! [`reserve`] prices the order, locks its coupons and holds its points; [`pay`] uses both and grants what the order earns;
//! [`cancel`] gives both back, as the deadline does by itself. [`refund`] gives back money, spent points, earned points and,
//! when nothing is left, the coupons. Each is one command: all of it happens or nothing.
//!
//! The price is made once. What a refund gives back follows from it by cumulative rounding ([`crate::pricing::refund`]), so
//! any number of refunds adds up to what was paid, to the minor unit and to the point.
//!
//! Repeating a step changes nothing and answers the order as it is, so a shop may always retry: a reservation is the same
//! when it names the same goods, coupons and points, a refund when its id is.
//!
//! The deadline is a predicate first: an order past it holds nothing any more, whether or not that has been written. A
//! payment that comes later still takes everything at the price reserved when it is still free, because the member's money is
//! on its way; otherwise it is refused and says why.
//!
//! What an order has taken only the order gives back: commands on its coupons, its hold and its transactions alone are refused.
//!
//! Deliberately absent: prices of its own, taxes and stock of goods, which the shop has; and changes of a reserved order,
//! which is cancelled and reserved anew under another id.

mod refund;
mod reserve;
mod settle;

pub use refund::{Refund, RefundRequest, ReturnedCoupon, refund};
pub use reserve::{Quoted, Reservation, reserve};
pub use settle::{cancel, confirm, pay, settle};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{Command, Envelope};
use crate::condition::Facts;
use crate::decide::{Interrupt, Outcome};
use crate::event::EventKind;
use crate::id::{HoldId, Ids, MemberId, OrderId, OrderUid, TransactionId};
use crate::points::MAX_POINTS;
use crate::pricing::{Basket, LineQuote, Quote, Rules, share};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::{CapPeriod, Timestamp};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    Reserved,
    Paid,
    PartiallyRefunded,
    /// Every unit of every line has been refunded.
    Refunded,
    Cancelled,
    /// Released by its deadline.
    Expired,
}

impl OrderStatus {
    pub const ALL: [OrderStatus; 6] = [
        OrderStatus::Reserved,
        OrderStatus::Paid,
        OrderStatus::PartiallyRefunded,
        OrderStatus::Refunded,
        OrderStatus::Cancelled,
        OrderStatus::Expired,
    ];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            OrderStatus::Reserved => "RESERVED",
            OrderStatus::Paid => "PAID",
            OrderStatus::PartiallyRefunded => "PARTIALLY_REFUNDED",
            OrderStatus::Refunded => "REFUNDED",
            OrderStatus::Cancelled => "CANCELLED",
            OrderStatus::Expired => "EXPIRED",
        }
    }

    pub fn parse(text: &str) -> Option<OrderStatus> {
        OrderStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A sale with what it took of coupons and points. The basket, the quote and everything above the deadline never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub id: OrderUid,
    /// The caller's name of it.
    pub order_id: OrderId,
    pub member_id: MemberId,
    pub basket: Arc<Basket>,
    pub quote: Arc<Quote>,
    /// The version of the tenant's rules that made the quote.
    pub rules_version: i64,
    pub created_at: Timestamp,
    /// Until when it is reserved.
    pub expires_at: Timestamp,
    pub status: OrderStatus,
    /// What holds its points, or did.
    pub hold_id: Option<HoldId>,
    /// The transaction that spent its points.
    pub spend_id: Option<TransactionId>,
    /// The transaction that granted what it earned.
    pub earn_id: Option<TransactionId>,
    /// When what it earned will be granted; `None` when nothing is to come.
    pub earn_due_at: Option<Timestamp>,
    pub points_granted: i64,
    /// What the limits of a day, week or month kept back of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub earn_cut: Option<EarnCut>,
    /// How many units of each line have been refunded, in the order of the quote's lines.
    pub refunded_quantities: Vec<i64>,
    /// Of goods and freight, in minor units.
    pub refunded_amount: i64,
    /// Of it, freight.
    pub refunded_freight: i64,
    pub points_returned: i64,
    /// Of the points that the order earned, those taken back or, before they were granted, not granted.
    pub points_clawed_back: i64,
    /// Whether its coupons have gone back to the member after the refund.
    pub coupons_returned: bool,
    pub paid_at: Option<Timestamp>,
    /// When it was cancelled or released.
    pub closed_at: Option<Timestamp>,
}

/// What limits for a day, a week or a month ([`crate::points::Earn::room`]) left of an order's earnings at their grant. It is
/// shared over the lines as a limit of the order is, so that refunds take back what was granted, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarnCut {
    /// Whose limit it was.
    pub by: CapPeriod,
    /// Kept back.
    pub points: i64,
    /// In the order of the quote's lines.
    pub lines: Vec<GrantedLine>,
}

/// What a line got of a grant that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedLine {
    #[serde(rename = "p")]
    pub points: i64,
    /// How many of its units had been refunded by then, and got nothing.
    #[serde(rename = "r")]
    pub refunded: i64,
}

/// How many earned points the first `units` of a line are worth; `granted` is what a grant that was cut gave the line.
pub fn earned_by(line: &LineQuote, granted: Option<GrantedLine>, units: i64) -> i64 {
    match granted {
        Some(granted) if units > granted.refunded => {
            share::part_of(line.points_to_earn, granted.refunded, line.quantity)
                + share::part_of(granted.points, units - granted.refunded, line.quantity - granted.refunded)
        }
        _ => share::part_of(line.points_to_earn, units, line.quantity),
    }
}

impl EarnCut {
    /// Shares `room` points over what refunds have left of the lines.
    fn of(order: &Order, room: i64, by: CapPeriod) -> EarnCut {
        let lines = order.quote.lines.iter().zip(&order.refunded_quantities);
        let left = lines.map(|(line, refunded)| line.points_to_earn - earned_by(line, None, *refunded));
        let left: Vec<i64> = left.collect();
        // As limits of an order do: in whatever order the caller names the lines, each gets the same.
        let mut places: Vec<usize> = (0..left.len()).collect();
        places.sort_by_key(|place| &order.quote.lines[*place].item_id);
        let shares = share::split(room, &places.iter().map(|place| left[*place]).collect::<Vec<_>>());
        let refunded = order.refunded_quantities.iter();
        let mut lines: Vec<_> = refunded.map(|refunded| GrantedLine { points: 0, refunded: *refunded }).collect();
        for (place, points) in places.into_iter().zip(shares) {
            lines[place].points = points;
        }
        EarnCut { by, points: left.iter().sum::<i64>() - room, lines }
    }
}

impl Order {
    /// How many earned points the first `units` of a line are worth: as many as are taken back, or not granted, when these are
    /// refunded.
    pub fn earned_by(&self, line: usize, units: i64) -> i64 {
        let granted = self.earn_cut.as_ref().map(|cut| cut.lines[line]);
        earned_by(&self.quote.lines[line], granted, units)
    }

    /// Earned and kept back.
    pub fn points_cut(&self) -> i64 {
        self.earn_cut.as_ref().map_or(0, |cut| cut.points)
    }

    /// The status that holds at `at`, whether or not a sweep has written it yet.
    pub fn status_at(&self, at: Timestamp) -> OrderStatus {
        if self.is_overdue(at) { OrderStatus::Expired } else { self.status }
    }

    fn is_overdue(&self, at: Timestamp) -> bool {
        self.status == OrderStatus::Reserved && self.expires_at <= at
    }

    /// Earned points that are still to be granted.
    pub fn points_pending(&self) -> i64 {
        if self.earn_due_at.is_some() { self.quote.points_to_earn - self.points_clawed_back } else { 0 }
    }

    /// What the order's goods would have earned by other rules, at the price they were paid.
    pub fn would_earn(&self, rules: &Arc<Rules>) -> i64 {
        let rule = &rules.at(self.created_at).points;
        let amounts = self.quote.lines.iter().map(|priced| priced.amount - priced.coupon_discount);
        let facts = Facts::of(&self.basket, self.quote.original_amount);
        let (earned, _) = rule.earned(&self.basket, &facts, self.basket.lines.iter().zip(amounts));
        earned.iter().sum::<i64>().min(MAX_POINTS)
    }

    /// Freight that was paid and has not been refunded.
    fn freight_left(&self) -> i64 {
        self.quote.freight - self.quote.freight_discount - self.refunded_freight
    }
}

impl Envelope {
    /// Whether an order asks: what an order has taken, only the order gives back.
    pub(crate) fn is_of_order(&self) -> bool {
        let command = if let Command::Work { command, .. } = &self.command { &**command } else { &self.command };
        matches!(
            command,
            Command::ReserveOrder(_)
                | Command::PayOrder { .. }
                | Command::CancelOrder { .. }
                | Command::RefundOrder { .. }
                | Command::ConfirmOrder { .. }
                | Command::SettleOrder { .. }
        )
    }
}

/// A refusal, or a need for more rows; both before anything was written.
type Decision<T> = Result<T, Interrupt>;

/// The member's order; another member's is as good as unknown.
fn find(state: &State, envelope: &Envelope, member_id: &MemberId, order_id: &OrderId) -> Result<Order, Rejection> {
    let found = state.order(envelope.tenant, order_id).filter(|order| order.member_id == *member_id);
    found.cloned().ok_or(Rejection::OrderNotFound)
}

/// Keeps the order as it is now and tells of it; `details` are further fields of the event's data, each after a comma.
fn save(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    order: Order,
    at: Timestamp,
    kind: EventKind,
    details: &str,
) -> Outcome {
    // A caller's id may hold quotes.
    let order_id = serde_json::Value::String(order.order_id.as_str().to_owned());
    let data = format!("{{\"order_id\":{order_id},\"status\":\"{}\"{details}}}", order.status.as_str());
    state.record_event(envelope, ids, at, kind, order.id.0, Some(&order.member_id), data);
    state.save_order(envelope.tenant, order.clone());
    Outcome::Order(Box::new(order))
}
