//! Reserving: price the order, lock its coupons, hold its points.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::settle::release_if_overdue;
use super::{Decision, Order, OrderStatus, save};
use crate::command::{Envelope, Movement};
use crate::coupon;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{CouponId, HoldId, Ids, MemberId, OrderId, OrderUid, TenantId};
use crate::points::{self, TransactionType};
use crate::pricing::{Basket, Offer, Quote, Rules, price};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// What a shop asks to reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub order_id: OrderId,
    pub member_id: MemberId,
    pub basket: Basket,
    /// Each once; all must apply.
    pub coupon_ids: Vec<CouponId>,
    /// How many points the member wants to redeem; the rules may allow fewer.
    pub points: i64,
    pub expires_at: Timestamp,
    /// Set when a quote still holds: the order is priced as it was. The basket's local time must be that of the quote then.
    #[serde(default)]
    pub quoted: Option<Quoted>,
}

/// By what a quote was priced, beside what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quoted {
    pub rules_version: i64,
    pub at: Timestamp,
    /// Until when it holds.
    pub expires_at: Timestamp,
}

impl Reservation {
    /// Whether the order is what this asks for. The deadline and the time of day belong to the request, not to the order.
    fn is_of(&self, order: &Order) -> bool {
        let basket = Basket { local_time: order.basket.local_time, ..self.basket.clone() };
        order.member_id == self.member_id
            && *order.basket == basket
            && order.quote.points_requested == self.points
            && order.quote.coupons.iter().map(|coupon| coupon.coupon_id).eq(self.coupon_ids.iter().copied())
    }
}

/// Checks, in order: that the id is free, the deadline, that the quote still holds if there is one, each coupon by itself, the price, the points. Coupons that do not apply
/// refuse the order: it would cost more than the member was told.
pub fn reserve(state: &mut State, envelope: &Envelope, ids: &mut Ids, asked: &Reservation) -> Decision<Outcome> {
    let tenant = envelope.tenant;
    if let Some(order) = state.order(tenant, &asked.order_id) {
        if !asked.is_of(order) {
            return Err(Rejection::OrderExists { status: order.status_at(envelope.at) }.into());
        }
        let order = order.clone();
        let order = release_if_overdue(state, envelope, ids, order)?;
        return Ok(Outcome::Order(Box::new(order)));
    }
    if asked.expires_at <= envelope.at {
        return Err(Rejection::DeadlinePassed { field: "expires_at" }.into());
    }
    if let Some(quoted) = asked.quoted.filter(|quoted| quoted.expires_at <= envelope.at) {
        return Err(Rejection::QuoteExpired { expired_at: quoted.expires_at }.into());
    }
    let rules = match asked.quoted {
        Some(quoted) => state.rules_of(tenant, quoted.rules_version).at(quoted.at),
        None => state.rules_at(tenant, envelope.at),
    };
    let quote = quote(state, tenant, envelope.at, asked, &rules)?;
    let hold_id = take(state, envelope, ids, &asked.order_id, &asked.member_id, &quote, asked.expires_at)?;
    let order = Order {
        id: OrderUid(ids.draw()),
        order_id: asked.order_id.clone(),
        member_id: asked.member_id.clone(),
        basket: Arc::new(asked.basket.clone()),
        rules_version: rules.version,
        created_at: envelope.at,
        expires_at: asked.expires_at,
        status: OrderStatus::Reserved,
        hold_id,
        spend_id: None,
        earn_id: None,
        earn_due_at: None,
        points_granted: 0,
        earn_cut: None,
        refunded_quantities: vec![0; quote.lines.len()],
        refunded_amount: 0,
        refunded_freight: 0,
        points_returned: 0,
        points_clawed_back: 0,
        coupons_returned: false,
        paid_at: None,
        closed_at: None,
        quote: Arc::new(quote),
    };
    let Quote { pay_amount, total_discount, points_effective, .. } = &*order.quote;
    let details =
        format!(",\"pay_amount\":{pay_amount},\"total_discount\":{total_discount},\"points_spent\":{points_effective}");
    Ok(save(state, envelope, ids, order, envelope.at, EventKind::OrderReserved, &details))
}

/// The price, when every coupon applies.
fn quote(
    state: &State,
    tenant: TenantId,
    at: Timestamp,
    asked: &Reservation,
    rules: &Rules,
) -> Result<Quote, Rejection> {
    let refuse = |coupon_id: CouponId, reason: Rejection| Rejection::InOrder { coupon_id, reason: Box::new(reason) };
    let mut coupons = Vec::with_capacity(asked.coupon_ids.len());
    for (place, id) in asked.coupon_ids.iter().enumerate() {
        if asked.coupon_ids[..place].contains(id) {
            return Err(refuse(*id, Rejection::CouponLocked { order_id: Some(asked.order_id.clone()) }));
        }
        let coupon = state.coupon(tenant, *id).ok().filter(|coupon| coupon.member_id == asked.member_id);
        let coupon = coupon.ok_or_else(|| refuse(*id, Rejection::CouponNotFound))?;
        let definition = state.definition(tenant, coupon.template_id, coupon.template_version);
        coupons.push((coupon, definition.ok_or_else(|| refuse(*id, Rejection::TemplateNotFound))?));
    }
    let offers = coupons.iter().map(|(coupon, definition)| Offer {
        coupon_id: coupon.id,
        template_id: coupon.template_id,
        definition,
        refused: coupon::refusal_at(coupon, None, at),
    });
    let quote = price(&asked.basket, &offers.collect::<Vec<_>>(), asked.points, rules)?;
    match quote.coupons.iter().find_map(|coupon| Some((coupon.coupon_id, coupon.refusal.clone()?))) {
        Some((coupon_id, reason)) => Err(refuse(coupon_id, reason)),
        None => Ok(quote),
    }
}

/// Holds the points and locks the coupons of a quote whose coupons have been found free. Only the points can still refuse,
/// and they come first.
pub(super) fn take(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    order_id: &OrderId,
    member_id: &MemberId,
    quote: &Quote,
    until: Timestamp,
) -> Decision<Option<HoldId>> {
    let mut hold_id = None;
    if quote.points_effective > 0 {
        let movement = Movement {
            points: quote.points_effective,
            kind: TransactionType::Hold,
            reference: Some(order_id.as_str().to_owned()),
            remark: None,
        };
        if let Outcome::Hold { hold, .. } = points::hold(state, envelope, ids, member_id, &movement, Some(until))? {
            hold_id = Some(hold.id);
        }
    }
    for coupon in &quote.coupons {
        coupon::lock(state, envelope, ids, coupon.coupon_id, order_id, Some(until))?;
    }
    Ok(hold_id)
}
