//! What happens to a coupon after its claim. Every function first settles what time has already decided.
//!
//! Repeating a step for the same order changes nothing and answers the coupon as it is, so a shop may always retry.

use super::{CompensationReason, Coupon, CouponSource, CouponStatus, compensation};
use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{CompensationId, CouponId, Ids, MemberId, OrderId, TemplateId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// AVAILABLE -> LOCKED for an order, until `locked_until` (`None`: until unlocked).
pub fn lock(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CouponId,
    order_id: &OrderId,
    locked_until: Option<Timestamp>,
) -> Result<Outcome, Rejection> {
    let mut coupon = settle(state, envelope, ids, id)?;
    if coupon.status == CouponStatus::Locked && coupon.order_id.as_ref() == Some(order_id) {
        require_free(envelope, &coupon)?;
        return Ok(Outcome::Coupon(Box::new(coupon)));
    }
    if let Some(refusal) = refusal_at(&coupon, None, envelope.at) {
        return Err(refusal);
    }
    if locked_until.is_some_and(|deadline| deadline <= envelope.at) {
        return Err(Rejection::DeadlinePassed { field: "expires_at" });
    }
    coupon.status = CouponStatus::Locked;
    coupon.order_id = Some(order_id.clone());
    coupon.by_order = envelope.is_of_order();
    coupon.locked_until = locked_until;
    Ok(save(state, envelope, ids, coupon, EventKind::CouponLocked, order_data(order_id)))
}

/// LOCKED -> USED by the order that locked it.
pub fn use_locked(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CouponId,
    order_id: &OrderId,
    discount_amount: Option<i64>,
) -> Result<Outcome, Rejection> {
    let mut coupon = settle(state, envelope, ids, id)?;
    require_free(envelope, &coupon)?;
    match coupon.status {
        CouponStatus::Used if coupon.order_id.as_ref() == Some(order_id) => {
            return Ok(Outcome::Coupon(Box::new(coupon)));
        }
        CouponStatus::Locked => require_order(&coupon, order_id)?,
        CouponStatus::Available => return Err(Rejection::CouponNotLocked),
        _ => require_available(&coupon)?,
    }
    coupon.status = CouponStatus::Used;
    coupon.locked_until = None;
    coupon.discount_amount = discount_amount;
    coupon.used_at = Some(envelope.at);
    state.count_use(envelope.tenant, coupon.template_id, 1);
    let data = order_data(order_id) + &discount_data(discount_amount);
    Ok(save(state, envelope, ids, coupon, EventKind::CouponUsed, data))
}

/// LOCKED -> AVAILABLE, or EXPIRED when its validity has ended. Unlocking what is not locked changes nothing.
pub fn release(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CouponId,
    order_id: &OrderId,
) -> Result<Outcome, Rejection> {
    let coupon = settle(state, envelope, ids, id)?;
    require_free(envelope, &coupon)?;
    match coupon.status {
        CouponStatus::Locked => {
            require_order(&coupon, order_id)?;
            let coupon = open_again(state, envelope, ids, coupon, envelope.at);
            Ok(Outcome::Coupon(Box::new(expire_if_over(state, envelope, ids, coupon, envelope.at))))
        }
        CouponStatus::Used => Err(used(&coupon)),
        _ => Ok(Outcome::Coupon(Box::new(coupon))),
    }
}

/// USED -> AVAILABLE after a full refund, when the template's coupons are returnable.
///
/// A coupon that expired meanwhile lives for the template's `refund_extend_days` more when the template is enabled;
/// otherwise it ends EXPIRED and an event asks an operator to compensate the member.
pub fn return_used(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CouponId,
    order_id: &OrderId,
) -> Result<Outcome, Rejection> {
    let (coupon, _) = return_or_compensate(state, envelope, ids, id, order_id)?;
    if coupon.status == CouponStatus::Used {
        return Err(Rejection::CouponNotReturnable);
    }
    Ok(Outcome::Coupon(Box::new(coupon)))
}

/// The same, with the case that asks an operator, if there is one; a coupon that is not returnable stays USED.
pub fn return_or_compensate(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CouponId,
    order_id: &OrderId,
) -> Result<(Coupon, Option<CompensationId>), Rejection> {
    let mut coupon = settle(state, envelope, ids, id)?;
    require_free(envelope, &coupon)?;
    if coupon.status != CouponStatus::Used {
        return Err(Rejection::CouponNotUsed { status: coupon.status });
    }
    require_order(&coupon, order_id)?;
    let template = state.template(envelope.tenant, coupon.template_id)?;
    if !template.definition.returnable {
        return Ok((coupon, None));
    }
    let extension = template.enabled.then_some(template.definition.refund_extend_days).filter(|days| *days > 0);
    let enabled = template.enabled;
    coupon.order_id = None;
    coupon.by_order = false;
    coupon.used_at = None;
    let data = order_data(order_id) + &discount_data(coupon.discount_amount.take());
    state.count_use(envelope.tenant, coupon.template_id, -1);
    let mut case = None;
    let kind = if envelope.at < coupon.valid_until {
        coupon.status = CouponStatus::Available;
        EventKind::CouponReturned
    } else if let Some(days) = extension {
        coupon.status = CouponStatus::Available;
        coupon.valid_until = envelope.at.plus_days(days);
        EventKind::CouponReturned
    } else {
        coupon.status = CouponStatus::Expired;
        let reason = if enabled { CompensationReason::NoExtension } else { CompensationReason::TemplateDisabled };
        case = Some(compensation::open(state, envelope, ids, &coupon, order_id, reason));
        EventKind::CouponCompensationNeeded
    };
    save(state, envelope, ids, coupon.clone(), kind, data);
    Ok((coupon, case))
}

/// AVAILABLE -> REVOKED by an operator.
pub fn revoke(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CouponId,
    reason: &str,
) -> Result<Outcome, Rejection> {
    let mut coupon = settle(state, envelope, ids, id)?;
    if coupon.status == CouponStatus::Revoked {
        return Ok(Outcome::Coupon(Box::new(coupon)));
    }
    require_available(&coupon)?;
    coupon.status = CouponStatus::Revoked;
    let data = format!(",\"reason\":{}", quoted(reason));
    Ok(save(state, envelope, ids, coupon, EventKind::CouponRevoked, data))
}

/// AVAILABLE -> REVOKED, and an AVAILABLE one of the same terms for `to`, within the limit of that member.
pub fn transfer(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CouponId,
    template_id: TemplateId,
    to: &MemberId,
    reason: Option<&str>,
) -> Result<Outcome, Rejection> {
    let mut given = settle(state, envelope, ids, id)?;
    if given.template_id != template_id {
        return Err(Rejection::CouponNotFound);
    }
    require_available(&given)?;
    if given.member_id == *to {
        return Err(Rejection::TransferToHolder);
    }
    let template = state.template(envelope.tenant, template_id)?;
    let limit = template.definition.limit_per_member;
    let version = template.version;
    let claimed = state.claimed_by(envelope.tenant, template_id, to);
    if claimed >= limit {
        return Err(Rejection::ClaimLimitReached { limit, version });
    }
    let received = Coupon {
        id: CouponId(ids.draw()),
        member_id: to.clone(),
        sequence: claimed + 1,
        source: CouponSource::Transfer,
        ..given.clone()
    };
    given.status = CouponStatus::Revoked;
    let mut data = format!(",\"to_coupon_id\":\"{}\",\"to_member_id\":{}", received.id, quoted(to.as_str()));
    if let Some(reason) = reason {
        data += &format!(",\"reason\":{}", quoted(reason));
    }
    record(state, envelope, ids, envelope.at, &given, EventKind::CouponTransferred, data);
    let data = format!(",\"sequence\":{},\"from_coupon_id\":\"{}\"", received.sequence, given.id);
    record(state, envelope, ids, envelope.at, &received, EventKind::CouponReceived, data);
    state.save_coupon(envelope.tenant, given);
    state.insert_coupon(envelope.tenant, received.clone());
    Ok(Outcome::Coupon(Box::new(received)))
}

/// Lets an open coupon, AVAILABLE or LOCKED, end later. One that ends later already stays as it is, so a retry is harmless.
pub fn extend(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CouponId,
    valid_until: Timestamp,
) -> Result<Outcome, Rejection> {
    let mut coupon = settle(state, envelope, ids, id)?;
    if coupon.status != CouponStatus::Locked {
        require_available(&coupon)?;
    }
    if coupon.valid_until >= valid_until {
        return Ok(Outcome::Coupon(Box::new(coupon)));
    }
    coupon.valid_until = valid_until;
    let data = format!(",\"valid_until_unix_us\":{}", valid_until.0);
    Ok(save(state, envelope, ids, coupon, EventKind::CouponExtended, data))
}

/// Writes what time has decided: a lock past its deadline is released, an open coupon past its validity expires.
pub fn settle(state: &mut State, envelope: &Envelope, ids: &mut Ids, id: CouponId) -> Result<Coupon, Rejection> {
    let mut coupon = state.coupon(envelope.tenant, id)?.clone();
    let mut open_since = coupon.claimed_at;
    if coupon.status == CouponStatus::Locked
        && let Some(deadline) = coupon.locked_until.filter(|deadline| *deadline <= envelope.at)
    {
        coupon = open_again(state, envelope, ids, coupon, deadline);
        open_since = deadline;
    }
    Ok(expire_if_over(state, envelope, ids, coupon, open_since))
}

fn open_again(state: &mut State, envelope: &Envelope, ids: &mut Ids, mut coupon: Coupon, at: Timestamp) -> Coupon {
    let data = coupon.order_id.as_ref().map(order_data).unwrap_or_default();
    coupon.status = CouponStatus::Available;
    coupon.order_id = None;
    coupon.by_order = false;
    coupon.locked_until = None;
    record(state, envelope, ids, at, &coupon, EventKind::CouponUnlocked, data);
    state.save_coupon(envelope.tenant, coupon.clone());
    coupon
}

/// Expires an open coupon whose validity has ended: then, or when its lock ended, whichever is later.
fn expire_if_over(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    mut coupon: Coupon,
    open_since: Timestamp,
) -> Coupon {
    if coupon.status == CouponStatus::Available && envelope.at >= coupon.valid_until {
        let at = coupon.valid_until.max(open_since);
        coupon.status = CouponStatus::Expired;
        record(state, envelope, ids, at, &coupon, EventKind::CouponExpired, String::new());
        state.save_coupon(envelope.tenant, coupon.clone());
    }
    coupon
}

/// Why the coupon cannot be used by this order (or by an order not named yet) at `at`, if so. One that the order itself has
/// locked can.
pub fn refusal_at(coupon: &Coupon, order_id: Option<&OrderId>, at: Timestamp) -> Option<Rejection> {
    let settled = Coupon { status: coupon.status_at(at), ..coupon.clone() };
    match settled.status {
        CouponStatus::Locked if order_id.is_some() && coupon.order_id.as_ref() == order_id => None,
        CouponStatus::Available if at < coupon.valid_from => {
            Some(Rejection::CouponNotYetValid { valid_from: coupon.valid_from })
        }
        _ => require_available(&settled).err(),
    }
}

fn require_available(coupon: &Coupon) -> Result<(), Rejection> {
    match coupon.status {
        CouponStatus::Available => Ok(()),
        CouponStatus::Locked => Err(Rejection::CouponLocked { order_id: coupon.order_id.clone() }),
        CouponStatus::Used => Err(used(coupon)),
        CouponStatus::Expired => Err(Rejection::CouponExpired { valid_until: coupon.valid_until }),
        CouponStatus::Revoked => Err(Rejection::CouponRevoked),
    }
}

fn used(coupon: &Coupon) -> Rejection {
    Rejection::CouponUsed { order_id: coupon.order_id.clone() }
}

/// What an order of ours holds, only that order uses, unlocks and returns.
fn require_free(envelope: &Envelope, coupon: &Coupon) -> Result<(), Rejection> {
    match &coupon.order_id {
        Some(order_id) if coupon.by_order && !envelope.is_of_order() => {
            Err(Rejection::ManagedByOrder { order_id: order_id.as_str().to_owned() })
        }
        _ => Ok(()),
    }
}

fn require_order(coupon: &Coupon, order_id: &OrderId) -> Result<(), Rejection> {
    if coupon.order_id.as_ref() == Some(order_id) { Ok(()) } else { Err(Rejection::OrderMismatch) }
}

fn save(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    coupon: Coupon,
    kind: EventKind,
    details: String,
) -> Outcome {
    record(state, envelope, ids, envelope.at, &coupon, kind, details);
    state.save_coupon(envelope.tenant, coupon.clone());
    Outcome::Coupon(Box::new(coupon))
}

/// Records an event of the coupon; `details` are further fields of its data, each after a comma.
pub(super) fn record(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    at: Timestamp,
    coupon: &Coupon,
    kind: EventKind,
    details: String,
) {
    let data = format!("{{\"template_id\":\"{}\"{details}}}", coupon.template_id);
    state.record_event(envelope, ids, at, kind, coupon.id.0, Some(&coupon.member_id), data);
}

pub(super) fn order_data(order_id: &OrderId) -> String {
    // A caller's id may hold quotes.
    format!(",\"order_id\":{}", quoted(order_id.as_str()))
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> serde_json::Value {
    serde_json::Value::String(text.to_owned())
}

pub(super) fn discount_data(amount: Option<i64>) -> String {
    amount.map(|amount| format!(",\"discount_amount\":{amount}")).unwrap_or_default()
}
