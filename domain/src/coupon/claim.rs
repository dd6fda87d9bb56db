//! A member takes a coupon of a template. The checks and their order are spec section 3's; the first failure is the answer.

use super::{Coupon, CouponSource, CouponStatus, Template, Validity};
use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{CouponId, Ids, MemberId, TemplateId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

pub fn claim(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    template_id: TemplateId,
    member_id: &MemberId,
    member_level: Option<&str>,
) -> Result<Outcome, Rejection> {
    let coupon = issue(state, envelope, ids, template_id, member_id, member_level, CouponSource::Claim, "")?;
    Ok(Outcome::Coupon(Box::new(coupon)))
}

/// Checks a claim and makes its coupon. `details` are further fields of the event's data, each after a comma.
#[expect(clippy::too_many_arguments, reason = "the parts of a claim, each of its own type")]
pub fn issue(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    template_id: TemplateId,
    member_id: &MemberId,
    member_level: Option<&str>,
    source: CouponSource,
    details: &str,
) -> Result<Coupon, Rejection> {
    let template = state.template(envelope.tenant, template_id)?;
    check_template(template, envelope.at, member_level)?;
    let claimed = state.claimed_by(envelope.tenant, template_id, member_id);
    let limit = template.definition.limit_per_member;
    if claimed >= limit {
        return Err(Rejection::ClaimLimitReached { limit, version: template.version });
    }
    if template.remaining_stock == Some(0) {
        return Err(Rejection::SoldOut { total: template.total_stock.unwrap_or_default(), version: template.version });
    }

    let (valid_from, valid_until) = match template.definition.validity {
        Validity::Fixed { starts_at, ends_at } => (starts_at, ends_at),
        Validity::Relative { days } => (envelope.at, envelope.at.plus_days(days)),
    };
    let coupon = Coupon {
        id: CouponId(ids.draw()),
        template_id,
        template_version: template.version,
        member_id: member_id.clone(),
        status: CouponStatus::Available,
        sequence: claimed + 1,
        source,
        valid_from,
        valid_until,
        order_id: None,
        by_order: false,
        locked_until: None,
        discount_amount: None,
        claimed_at: envelope.at,
        used_at: None,
    };
    state.take_from_stock(envelope.tenant, template_id);
    state.insert_coupon(envelope.tenant, coupon.clone());
    let data = format!("{{\"template_id\":\"{template_id}\",\"sequence\":{}{details}}}", coupon.sequence);
    state.record_event(envelope, ids, envelope.at, EventKind::CouponClaimed, coupon.id.0, Some(member_id), data);
    Ok(coupon)
}

/// The checks that concern the template and the claimer's level, not yet the claimer's own coupons or the stock.
fn check_template(template: &Template, at: Timestamp, member_level: Option<&str>) -> Result<(), Rejection> {
    let definition = &template.definition;
    if !template.enabled {
        return Err(Rejection::TemplateDisabled);
    }
    if !definition.distribution.has_started(at) {
        return Err(Rejection::ClaimNotStarted { starts_at: definition.distribution.starts_at });
    }
    if definition.distribution.has_ended(at) {
        return Err(Rejection::ClaimEnded { ended_at: definition.distribution.ends_at, version: template.version });
    }
    if let Validity::Fixed { ends_at, .. } = definition.validity
        && at >= ends_at
    {
        return Err(Rejection::ValidityEnded { ended_at: ends_at });
    }
    let levels = &definition.member_levels;
    if !levels.is_empty() && !member_level.is_some_and(|level| levels.iter().any(|allowed| allowed == level)) {
        return Err(Rejection::MemberLevel { allowed: levels.clone() });
    }
    Ok(())
}
