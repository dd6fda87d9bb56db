//! Refunds: of everything, or of some units of some items; any number of them, which add up exactly.
//!
//! Spent points go back to the lots they came from before earned points are taken back, so a member who has spent what the
//! order earned pays with what the order spent, and owes only the rest. Whether that is owed or forgiven is a matter of the rules
//! that hold at the refund, as it is of any reversal; what the order earned, and so what is taken back, of those that made it.

use serde::{Deserialize, Serialize};

use super::settle::release_if_overdue;
use super::{Decision, Order, OrderStatus, find, save};
use crate::command::Envelope;
use crate::coupon::{self, CouponStatus};
use crate::decide::{Interrupt, Outcome};
use crate::event::EventKind;
use crate::id::{CompensationId, CouponId, Ids, MemberId, OrderId, OrderUid, RefundId, TransactionId};
use crate::points;
use crate::pricing::refund::{LineRefund, line};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// What is to be refunded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundRequest {
    pub refund_id: RefundId,
    /// Items, each once, with how many units of them (at least 1). `None`: everything that is left, freight included.
    pub lines: Option<Vec<(String, i64)>>,
    /// Beside some lines, in minor units.
    pub freight: i64,
    /// Whether the coupons go back when nothing is left of the order.
    pub return_coupons: bool,
    pub remark: Option<String>,
}

/// A refund as made. Never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    pub order: OrderUid,
    pub order_id: OrderId,
    pub refund_id: RefundId,
    pub member_id: MemberId,
    /// Whether everything that was left was asked for.
    pub full: bool,
    pub lines: Vec<LineRefund>,
    pub freight: i64,
    /// Of lines and freight, in minor units: what the shop pays back.
    pub amount: i64,
    pub points_returned: i64,
    pub points_clawed_back: i64,
    /// Of the points clawed back, those that the member did not have any more and owes now.
    pub points_owed: i64,
    /// Of them, those that the member did not have any more and does not owe.
    #[serde(default)]
    pub points_forgiven: i64,
    /// The transactions that returned and took back points.
    pub return_transaction_id: Option<TransactionId>,
    pub clawback_transaction_id: Option<TransactionId>,
    /// What became of the order's coupons, when they went back.
    pub coupons: Vec<ReturnedCoupon>,
    pub remark: Option<String>,
    /// The order's status behind it.
    pub order_status: OrderStatus,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnedCoupon {
    pub coupon_id: CouponId,
    /// AVAILABLE again; or EXPIRED, and then an operator is asked to compensate the member; or USED still, as its template
    /// says.
    pub status: CouponStatus,
    pub valid_until: Timestamp,
    /// The case, when an operator is asked.
    pub compensation_id: Option<CompensationId>,
}

impl RefundRequest {
    /// Whether `refund` is what this asks for.
    fn is_of(&self, refund: &Refund) -> bool {
        match &self.lines {
            None => refund.full,
            Some(lines) => {
                let refunded = refund.lines.iter().map(|line| (&line.item_id, line.quantity));
                !refund.full
                    && self.freight == refund.freight
                    && lines.iter().map(|(item_id, quantity)| (item_id, *quantity)).eq(refunded)
            }
        }
    }
}

pub fn refund(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    order_id: &OrderId,
    asked: &RefundRequest,
) -> Decision<Outcome> {
    let tenant = envelope.tenant;
    let order = find(state, envelope, member_id, order_id)?;
    if let Some(refund) = state.refund(tenant, order_id, &asked.refund_id) {
        return if asked.is_of(refund) {
            Ok(Outcome::Refund(Box::new(refund.clone())))
        } else {
            Err(Rejection::RefundExists.into())
        };
    }
    let mut order = release_if_overdue(state, envelope, ids, order)?;
    if !matches!(order.status, OrderStatus::Paid | OrderStatus::PartiallyRefunded | OrderStatus::Refunded) {
        return Err(Rejection::OrderNotPaid { status: order.status }.into());
    }
    let lines = lines_of(&order, asked)?;
    let freight = if asked.lines.is_some() { asked.freight } else { order.freight_left() };
    if freight > order.freight_left() {
        return Err(Rejection::RefundExceedsFreight { left: order.freight_left() }.into());
    }
    if lines.is_empty() && freight == 0 {
        return Err(Rejection::NothingToRefund.into());
    }
    let sum = |part: fn(&LineRefund) -> i64| lines.iter().map(|(_, line)| part(line)).sum::<i64>();
    let (amount, returned, clawed_back) =
        (sum(|line| line.amount), sum(|line| line.points_returned), sum(|line| line.points_clawed_back));
    let from_lots = if order.earn_id.is_some() { clawed_back } else { 0 };
    if returned > 0 || from_lots > 0 {
        points::require_lots(state, envelope, member_id, from_lots)?;
    }

    let remark = asked.remark.as_deref();
    let undo = |state: &mut State, ids: &mut Ids, id: Option<TransactionId>, points: i64| match id {
        Some(id) if points > 0 => match points::reverse(state, envelope, ids, member_id, id, Some(points), remark)? {
            Outcome::Transaction(line) => Ok::<_, Interrupt>(Some(line)),
            _ => Ok(None),
        },
        _ => Ok(None),
    };
    let returning = undo(state, ids, order.spend_id, returned)?;
    let clawback = undo(state, ids, order.earn_id, clawed_back)?;
    let points_forgiven = clawback.as_ref().map_or(0, |line| line.points_forgiven);
    // The line takes what was there, as a negative number.
    let points_owed = clawback.as_ref().map_or(0, |line| clawed_back + line.points - line.points_forgiven);

    for (index, line) in &lines {
        order.refunded_quantities[*index] += line.quantity;
    }
    order.refunded_amount += amount + freight;
    order.refunded_freight += freight;
    order.points_returned += returned;
    order.points_clawed_back += clawed_back;
    if order.points_pending() == 0 {
        order.earn_due_at = None;
    }
    let units = order.quote.lines.iter().map(|line| line.quantity);
    let all = units.eq(order.refunded_quantities.iter().copied());
    let coupons = if all && !lines.is_empty() && asked.return_coupons {
        order.coupons_returned = true;
        return_coupons(state, envelope, ids, &order)?
    } else {
        Vec::new()
    };
    order.status = if all { OrderStatus::Refunded } else { OrderStatus::PartiallyRefunded };
    let refund = Refund {
        order: order.id,
        order_id: order_id.clone(),
        refund_id: asked.refund_id.clone(),
        member_id: member_id.clone(),
        full: asked.lines.is_none(),
        lines: lines.into_iter().map(|(_, line)| line).collect(),
        freight,
        amount: amount + freight,
        points_returned: returned,
        points_clawed_back: clawed_back,
        points_owed,
        points_forgiven,
        return_transaction_id: returning.map(|line| line.id),
        clawback_transaction_id: clawback.map(|line| line.id),
        coupons,
        remark: asked.remark.clone(),
        order_status: order.status,
        created_at: envelope.at,
    };
    let details = format!(
        ",\"refund_id\":{},\"amount\":{},\"points_returned\":{returned},\"points_clawed_back\":{clawed_back},\
         \"points_forgiven\":{points_forgiven}",
        serde_json::Value::String(refund.refund_id.as_str().to_owned()),
        refund.amount
    );
    save(state, envelope, ids, order, envelope.at, EventKind::OrderRefunded, &details);
    state.insert_refund(tenant, refund.clone());
    Ok(Outcome::Refund(Box::new(refund)))
}

/// What the request takes of each line, with the line's place in the quote.
fn lines_of(order: &Order, asked: &RefundRequest) -> Result<Vec<(usize, LineRefund)>, Rejection> {
    let of = |index: usize, quantity: i64| {
        let refunded = order.refunded_quantities[index];
        let earned = order.earned_by(index, refunded + quantity) - order.earned_by(index, refunded);
        (index, LineRefund { points_clawed_back: earned, ..line(&order.quote.lines[index], refunded, quantity) })
    };
    let left = |index: usize| order.quote.lines[index].quantity - order.refunded_quantities[index];
    let Some(lines) = &asked.lines else {
        let all = (0..order.quote.lines.len()).filter(|index| left(*index) > 0);
        return Ok(all.map(|index| of(index, left(index))).collect());
    };
    let mut refunds = Vec::with_capacity(lines.len());
    for (item_id, quantity) in lines {
        let index = order.quote.lines.iter().position(|line| line.item_id == *item_id);
        let index = index.ok_or_else(|| Rejection::OrderItemUnknown { item_id: item_id.clone() })?;
        if *quantity > left(index) {
            return Err(Rejection::RefundExceeds { item_id: item_id.clone(), left: left(index) });
        }
        refunds.push(of(index, *quantity));
    }
    Ok(refunds)
}

fn return_coupons(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    order: &Order,
) -> Result<Vec<ReturnedCoupon>, Rejection> {
    let mut returned = Vec::with_capacity(order.quote.coupons.len());
    for used in &order.quote.coupons {
        let (coupon, compensation_id) =
            coupon::return_or_compensate(state, envelope, ids, used.coupon_id, &order.order_id)?;
        let (status, valid_until) = (coupon.status, coupon.valid_until);
        returned.push(ReturnedCoupon { coupon_id: coupon.id, status, valid_until, compensation_id });
    }
    Ok(returned)
}
