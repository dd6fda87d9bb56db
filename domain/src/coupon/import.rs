//! Templates and coupons that lived elsewhere before, under ids that their importer derives from the old ones: one that is
//! there already is answered as it is, so an import may be repeated.

use super::lifecycle::{discount_data, order_data, quoted, record};
use super::template::{create_as, set_enabled};
use super::{Coupon, CouponSource, CouponStatus, Definition};
use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{CouponId, Ids, MemberId, OrderId, TemplateId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// A coupon as it stood elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedCoupon {
    pub coupon_id: CouponId,
    pub template_id: TemplateId,
    pub member_id: MemberId,
    pub status: CouponStatus,
    pub claimed_at: Timestamp,
    pub valid_from: Timestamp,
    pub valid_until: Timestamp,
    /// Of a coupon that is locked or used.
    pub order_id: Option<OrderId>,
    /// Of a used one.
    pub used_at: Option<Timestamp>,
    pub discount_amount: Option<i64>,
}

pub fn import_template(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: TemplateId,
    definition: &Definition,
    total_stock: Option<i64>,
    enabled: bool,
) -> Result<Outcome, Rejection> {
    if let Ok(existing) = state.template(envelope.tenant, id) {
        return Ok(Outcome::Template(Box::new(existing.clone())));
    }
    let created = create_as(state, envelope, ids, id, definition, total_stock);
    if enabled { Ok(created) } else { set_enabled(state, envelope, ids, id, false) }
}

/// Makes the coupon with the steps that led to where it stands. It is taken from the stock, the budget and the member's limit like
/// a claim; what a claim's time allowed then is not asked again.
pub fn import_coupon(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    imported: &ImportedCoupon,
) -> Result<Outcome, Rejection> {
    let (tenant, template_id, member_id) = (envelope.tenant, imported.template_id, &imported.member_id);
    if let Ok(existing) = state.coupon(tenant, imported.coupon_id) {
        return Ok(Outcome::Coupon(Box::new(existing.clone())));
    }
    let template = state.template(tenant, template_id)?;
    let (limit, version) = (template.definition.limit_per_member, template.version);
    let claimed = state.claimed_by(tenant, template_id, member_id);
    if claimed >= limit {
        return Err(Rejection::ClaimLimitReached { limit, version });
    }
    let (committed, counts) = (template.committed_with_one_more(), template.counts);
    if let Some(budget) = template.definition.budget.filter(|budget| committed > *budget) {
        return Err(Rejection::BudgetExhausted { budget, version });
    }
    if template.remaining_stock == Some(0) {
        return Err(Rejection::SoldOut { total: template.total_stock.unwrap_or_default(), version });
    }
    let coupon = Coupon {
        id: imported.coupon_id,
        template_id,
        template_version: version,
        member_id: member_id.clone(),
        status: imported.status,
        sequence: claimed + 1,
        source: CouponSource::Import,
        valid_from: imported.valid_from,
        valid_until: imported.valid_until,
        order_id: imported.order_id.clone().filter(|_| imported.status.has_order()),
        locked_until: None,
        by_order: false,
        discount_amount: imported.discount_amount.filter(|_| imported.status == CouponStatus::Used),
        claimed_at: imported.claimed_at,
        used_at: imported.used_at.filter(|_| imported.status == CouponStatus::Used),
    };
    state.take_from_stock(tenant, template_id, committed, counts);
    state.insert_coupon(tenant, coupon.clone());
    let data = format!(",\"sequence\":{}", coupon.sequence);
    record(state, envelope, ids, coupon.claimed_at, &coupon, EventKind::CouponClaimed, data);
    let order = coupon.order_id.as_ref().map(order_data).unwrap_or_default();
    match coupon.status {
        CouponStatus::Available => {}
        CouponStatus::Locked => {
            record(state, envelope, ids, coupon.claimed_at, &coupon, EventKind::CouponLocked, order)
        }
        CouponStatus::Used => {
            let at = coupon.used_at.unwrap_or(coupon.claimed_at);
            record(state, envelope, ids, at, &coupon, EventKind::CouponLocked, order.clone());
            let data = order + &discount_data(coupon.discount_amount);
            record(state, envelope, ids, at, &coupon, EventKind::CouponUsed, data);
            state.count_use(tenant, template_id, 1);
        }
        CouponStatus::Expired => {
            let at = coupon.valid_until.max(coupon.claimed_at);
            record(state, envelope, ids, at, &coupon, EventKind::CouponExpired, String::new());
        }
        CouponStatus::Revoked => {
            let data = format!(",\"reason\":{}", quoted("imported"));
            record(state, envelope, ids, coupon.claimed_at, &coupon, EventKind::CouponRevoked, data);
        }
    }
    Ok(Outcome::Coupon(Box::new(coupon)))
}
