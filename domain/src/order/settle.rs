//! How a reservation ends: paid, cancelled, or released by its deadline; and the grant that comes later, when it is due or when the
//! shop confirms the order.

use super::reserve::take;
use super::{Decision, EarnCut, Order, OrderStatus, find, save};
use crate::command::{Envelope, Movement};
use crate::coupon::{self, CouponStatus};
use crate::decide::{Interrupt, Outcome, Settled};
use crate::event::EventKind;
use crate::id::{CouponId, HoldId, Ids, MemberId, OrderId};
use crate::points::{self, HoldStatus, TransactionType};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Calendar;

/// RESERVED -> PAID: uses the coupons, spends the held points and grants what the order earns, at once or when the rule says.
///
/// An order past its deadline is paid as well when everything it had taken is still free.
pub fn pay(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    order_id: &OrderId,
    calendar: &Calendar,
) -> Decision<Outcome> {
    let mut order = find(state, envelope, member_id, order_id)?;
    let quote = order.quote.clone();
    // Asked for before anything changes; what follows finds enough.
    points::require_lots(state, envelope, member_id, quote.points_effective)?;
    require_activity(state, envelope, &order, calendar)?;
    order = release_if_overdue(state, envelope, ids, order)?;
    match order.status {
        OrderStatus::Paid | OrderStatus::PartiallyRefunded | OrderStatus::Refunded => {
            return Ok(Outcome::Order(Box::new(order)));
        }
        OrderStatus::Cancelled => return Err(Rejection::OrderClosed { status: order.status }.into()),
        OrderStatus::Reserved | OrderStatus::Expired => {}
    }
    points::check_room(state, envelope.tenant, member_id, quote.points_to_earn)?;
    if order.status == OrderStatus::Expired {
        order.hold_id = take_again(state, envelope, ids, &order)?;
    }
    if let Some(hold_id) = order.hold_id
        && let Outcome::Hold { transaction_id, .. } = points::capture(state, envelope, ids, member_id, hold_id, None)?
    {
        order.spend_id = Some(transaction_id);
    }
    for used in &quote.coupons {
        coupon::use_locked(state, envelope, ids, used.coupon_id, order_id, Some(used.discount))?;
    }
    order.status = OrderStatus::Paid;
    order.paid_at = Some(envelope.at);
    order.closed_at = None;
    if quote.points_to_earn > 0 {
        let delay_days = state.rules_of(envelope.tenant, order.rules_version).points.earn.delay_days;
        if delay_days == 0 {
            grant(state, envelope, ids, &mut order, calendar)?;
        } else {
            order.earn_due_at = Some(envelope.at.plus_days(delay_days));
        }
    }
    let details = format!(
        ",\"pay_amount\":{},\"points_spent\":{},\"points_granted\":{},\"points_cut\":{}",
        quote.pay_amount,
        quote.points_effective,
        order.points_granted,
        order.points_cut()
    );
    Ok(save(state, envelope, ids, order, envelope.at, EventKind::OrderPaid, &details))
}

/// Takes everything once more for an order that its deadline has released.
fn take_again(state: &mut State, envelope: &Envelope, ids: &mut Ids, order: &Order) -> Decision<Option<HoldId>> {
    let gone = |reason: &Rejection| Rejection::OrderExpired { expired_at: order.expires_at, reason: reason.code() };
    for coupon in &order.quote.coupons {
        let found = state.coupon(envelope.tenant, coupon.coupon_id);
        let refusal = found.map_or_else(Some, |coupon| coupon::refusal_at(coupon, None, envelope.at));
        if let Some(reason) = refusal {
            return Err(gone(&reason).into());
        }
    }
    // Taken and used in one: the lock ends with this command.
    let until = envelope.at.plus_days(1);
    let taken = take(state, envelope, ids, &order.order_id, &order.member_id, &order.quote, until);
    taken.map_err(|interrupt| match interrupt {
        Interrupt::Refused(reason) => gone(&reason).into(),
        other => other,
    })
}

/// Grants what the order has earned and still earns, as far as the limits of its rule for the member's day, week and month
/// leave room. They are asked here and not by the quote: another order may take the room before this one is paid.
fn grant(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    order: &mut Order,
    calendar: &Calendar,
) -> Decision<()> {
    let due = order.quote.points_to_earn - order.points_clawed_back;
    let rules = state.rules_of(envelope.tenant, order.rules_version);
    let earned = state.account(envelope.tenant, &order.member_id).account.earned.on(calendar.day);
    let cut = rules.points.earn.room(&earned).filter(|(room, _)| *room < due);
    order.earn_due_at = None;
    order.earn_cut = cut.map(|(room, by)| EarnCut::of(order, room, by));
    let points = cut.map_or(due, |(room, _)| room);
    if points == 0 {
        return Ok(());
    }
    let movement = Movement {
        points,
        kind: TransactionType::EarnOrder,
        reference: Some(order.order_id.as_str().to_owned()),
        remark: None,
    };
    let spendable = points::life(state, envelope, rules.points.validity, calendar)?;
    let granted = points::grant_points(state, envelope, ids, &order.member_id, &movement, spendable)?;
    state.account_mut(envelope.tenant, &order.member_id).account.earned = earned.plus(points);
    order.earn_id = Some(granted.id);
    order.points_granted = points;
    Ok(())
}

/// Asks for what it takes to spend and to earn by the order.
fn require_activity(state: &State, envelope: &Envelope, order: &Order, calendar: &Calendar) -> Decision<()> {
    let validity = state.rules_of(envelope.tenant, order.rules_version).points.validity;
    let earned = points::life(state, envelope, validity, calendar)?;
    points::require_activity(state, envelope, &order.member_id, earned.idle_days)
}

/// RESERVED -> CANCELLED: unlocks the coupons and releases the points. Cancelling what holds nothing changes nothing.
pub fn cancel(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    order_id: &OrderId,
    reason: Option<&str>,
) -> Decision<Outcome> {
    let order = find(state, envelope, member_id, order_id)?;
    let mut order = release_if_overdue(state, envelope, ids, order)?;
    match order.status {
        OrderStatus::Reserved => {}
        OrderStatus::Cancelled | OrderStatus::Expired => return Ok(Outcome::Order(Box::new(order))),
        status => return Err(Rejection::OrderClosed { status }.into()),
    }
    if let Some(hold_id) = order.hold_id {
        points::release(state, envelope, ids, member_id, hold_id)?;
    }
    for coupon in &order.quote.coupons {
        coupon::release(state, envelope, ids, coupon.coupon_id, order_id)?;
    }
    order.status = OrderStatus::Cancelled;
    order.closed_at = Some(envelope.at);
    let reason = reason.map(|reason| format!(",\"reason\":{}", serde_json::Value::String(reason.to_owned())));
    let details = reason.unwrap_or_default();
    Ok(save(state, envelope, ids, order, envelope.at, EventKind::OrderCancelled, &details))
}

/// Writes what time has decided: the release of an order past its deadline, the grant of what it earned when that is due.
pub fn settle(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    order_id: &OrderId,
    calendar: &Calendar,
) -> Decision<Outcome> {
    let order = find(state, envelope, member_id, order_id)?;
    let was_reserved = order.status == OrderStatus::Reserved;
    let mut order = release_if_overdue(state, envelope, ids, order)?;
    let mut settled = Settled {
        orders_released: u32::from(was_reserved && order.status == OrderStatus::Expired),
        ..Settled::default()
    };
    if order.earn_due_at.is_some_and(|due| due <= envelope.at) {
        grant_what_waits(state, envelope, ids, &mut order, calendar)?;
        (settled.points_granted, settled.grant_id) = (order.points_granted, order.earn_id);
        save_confirmed(state, envelope, ids, order);
    }
    Ok(Outcome::Settled(settled))
}

/// Grants what a paid order earns before it is due. One that waits for nothing is answered as it stands.
pub fn confirm(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    order_id: &OrderId,
    calendar: &Calendar,
) -> Decision<Outcome> {
    let mut order = find(state, envelope, member_id, order_id)?;
    if !matches!(order.status, OrderStatus::Paid | OrderStatus::PartiallyRefunded | OrderStatus::Refunded) {
        return Err(Rejection::OrderNotPaid { status: order.status_at(envelope.at) }.into());
    }
    if order.earn_due_at.is_none() {
        return Ok(Outcome::Order(Box::new(order)));
    }
    grant_what_waits(state, envelope, ids, &mut order, calendar)?;
    Ok(save_confirmed(state, envelope, ids, order))
}

fn grant_what_waits(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    order: &mut Order,
    calendar: &Calendar,
) -> Decision<()> {
    points::require_lots(state, envelope, &order.member_id, 0)?;
    require_activity(state, envelope, order, calendar)?;
    points::check_room(state, envelope.tenant, &order.member_id, order.points_pending())?;
    grant(state, envelope, ids, order, calendar)
}

fn save_confirmed(state: &mut State, envelope: &Envelope, ids: &mut Ids, order: Order) -> Outcome {
    let details = format!(",\"points_granted\":{},\"points_cut\":{}", order.points_granted, order.points_cut());
    save(state, envelope, ids, order, envelope.at, EventKind::OrderConfirmed, &details)
}

/// Releases an order past its deadline, as of the deadline.
///
/// A command that takes effect before the deadline may still come after others have found it passed and have taken what the
/// order held: then the rest goes too.
pub(super) fn release_if_overdue(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    mut order: Order,
) -> Decision<Order> {
    let tenant = envelope.tenant;
    let hold = order.hold_id.filter(|id| {
        let hold = state.account(tenant, &order.member_id).hold(*id);
        hold.is_some_and(|hold| hold.status == HoldStatus::Open)
    });
    let is_locked = |state: &State, id: CouponId| {
        let coupon = state.coupon(tenant, id);
        coupon.is_ok_and(|coupon| {
            coupon.status == CouponStatus::Locked
                && coupon.by_order
                && coupon.order_id.as_ref() == Some(&order.order_id)
        })
    };
    let locked: Vec<CouponId> = order.quote.coupons.iter().map(|coupon| coupon.coupon_id).collect();
    let locked: Vec<CouponId> = locked.into_iter().filter(|id| is_locked(state, *id)).collect();
    let is_whole = hold == order.hold_id && locked.len() == order.quote.coupons.len();
    if order.status != OrderStatus::Reserved || (is_whole && envelope.at < order.expires_at) {
        return Ok(order);
    }
    // The hold and the locks have the deadline of the order: settling them releases them.
    if let Some(hold_id) = hold {
        points::settle(state, envelope, ids, &order.member_id)?;
        if envelope.at < order.expires_at {
            points::release(state, envelope, ids, &order.member_id, hold_id)?;
        }
    }
    for id in locked {
        coupon::release(state, envelope, ids, id, &order.order_id)?;
    }
    order.status = OrderStatus::Expired;
    order.closed_at = Some(order.expires_at);
    let at = order.expires_at;
    save(state, envelope, ids, order.clone(), at, EventKind::OrderReleased, "");
    Ok(order)
}
