//! A member takes a coupon of a template. The checks run in a fixed order and the first failure is the answer: enabled, within
//! the issue window, not past a fixed validity, the member's level, the member's limit, the daily cap, the budget, the stock.
//!
//! **Daily cap.** Claims are counted in days of the tenant's calendar, one day at a time: the template's row has the bounds of
//! the latest day with a claim under a cap, and the count. A claim as of an earlier day is refused, since that day's count is
//! closed. Nothing is counted without a cap. Changing the cap on a day whose count is above it lets no more through.
//!
//! **Budget.** What counts is the commitment: the most that a coupon can take off, summed over all coupons ever claimed. It is
//! committed with the claim and never given back, whatever becomes of the coupon, just like stock; so the template can never
//! cost more than its budget, and a coupon once given can always be used. A benefit without a bound (an exchange, a percentage
//! without a maximum) commits nothing, which is why a budget needs one with a bound.

use super::{Coupon, CouponSource, CouponStatus, PeriodCount, PeriodCounts, Template, Validity};
use crate::command::Envelope;
use crate::decide::{Interrupt, Need, Outcome};
use crate::event::EventKind;
use crate::id::{CouponId, Ids, MemberId, TemplateId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::{CapPeriod, Timestamp};

pub fn claim(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    template_id: TemplateId,
    member_id: &MemberId,
    member_level: Option<&str>,
) -> Result<Outcome, Interrupt> {
    if let Some(price) = state.template(envelope.tenant, template_id)?.definition.points_price {
        return Err(Rejection::TemplateForPoints { price }.into());
    }
    let coupon = issue(state, envelope, ids, template_id, member_id, member_level, CouponSource::Claim, "")?;
    Ok(Outcome::Coupon(Box::new(coupon)))
}

/// Checks a claim and makes its coupon. `details` are further fields of the event's data, each after a comma.
///
/// # Errors
/// A rejection, or [`Need::Periods`] for the first claim of a day, week or month under a cap; nothing is changed then.
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
) -> Result<Coupon, Interrupt> {
    let admission = admit(state, envelope, template_id, member_id, member_level)?;
    let id = CouponId(ids.draw());
    Ok(make(state, envelope, ids, id, template_id, member_id, admission, source, details))
}

/// What a claim that passed its checks will write.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    version: i64,
    sequence: i64,
    valid_from: Timestamp,
    valid_until: Timestamp,
    committed: i64,
    counts: PeriodCounts,
}

/// All checks of a claim, in their order; it changes nothing.
///
/// # Errors
/// As [`issue`].
pub fn admit(
    state: &State,
    envelope: &Envelope,
    template_id: TemplateId,
    member_id: &MemberId,
    member_level: Option<&str>,
) -> Result<Admission, Interrupt> {
    let template = state.template(envelope.tenant, template_id)?;
    check_template(template, envelope.at, member_level)?;
    let claimed = state.claimed_by(envelope.tenant, template_id, member_id);
    let limit = template.definition.limit_per_member;
    if claimed >= limit {
        return Err(Rejection::ClaimLimitReached { limit, version: template.version }.into());
    }
    let counts = count_periods(state, envelope, template)?;
    let committed = template.committed_with_one_more();
    if let Some(budget) = template.definition.budget.filter(|budget| committed > *budget) {
        return Err(Rejection::BudgetExhausted { budget, version: template.version }.into());
    }
    if template.remaining_stock == Some(0) {
        let total = template.total_stock.unwrap_or_default();
        return Err(Rejection::SoldOut { total, version: template.version }.into());
    }

    let (valid_from, valid_until) = template.definition.validity.of_claim(envelope.at);
    Ok(Admission { version: template.version, sequence: claimed + 1, valid_from, valid_until, committed, counts })
}

/// Makes the coupon of a claim that was admitted just now.
#[expect(clippy::too_many_arguments, reason = "the parts of a claim, each of its own type")]
pub fn make(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CouponId,
    template_id: TemplateId,
    member_id: &MemberId,
    admission: Admission,
    source: CouponSource,
    details: &str,
) -> Coupon {
    let Admission { version, sequence, valid_from, valid_until, committed, counts } = admission;
    let coupon = Coupon {
        id,
        template_id,
        template_version: version,
        member_id: member_id.clone(),
        status: CouponStatus::Available,
        sequence,
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
    state.take_from_stock(envelope.tenant, template_id, committed, counts);
    state.insert_coupon(envelope.tenant, coupon.clone());
    let data = format!("{{\"template_id\":\"{template_id}\",\"sequence\":{}{details}}}", coupon.sequence);
    state.record_event(envelope, ids, envelope.at, EventKind::CouponClaimed, coupon.id.0, Some(member_id), data);
    coupon
}

/// The template's counts with this claim, where it has caps.
fn count_periods(state: &State, envelope: &Envelope, template: &Template) -> Result<PeriodCounts, Interrupt> {
    let (at, version) = (envelope.at, template.version);
    let mut counts = template.counts;
    for (period, count) in CapPeriod::ALL.into_iter().zip(&mut counts) {
        let Some(cap) = template.definition.cap(period) else { continue };
        let counted = match *count {
            Some(latest) if latest.bounds.contains(at) => latest,
            Some(latest) if at < latest.bounds.starts_at => {
                return Err(Rejection::PeriodClosed { period, since: latest.bounds.starts_at }.into());
            }
            _ => {
                let bounds = state.period(envelope.tenant, period, at).ok_or(Interrupt::Need(Need::Periods(at)))?;
                PeriodCount { bounds, claimed: 0, ceiling: cap }
            }
        };
        if counted.claimed >= counted.ceiling {
            return Err(Rejection::CapReached { period, cap, ends_at: counted.bounds.ends_at, version }.into());
        }
        *count = Some(PeriodCount { claimed: counted.claimed + 1, ..counted });
    }
    Ok(counts)
}

/// The checks that concern the template and the claimer's level, not yet the claimer's own coupons or the stock.
fn check_template(template: &Template, at: Timestamp, member_level: Option<&str>) -> Result<(), Rejection> {
    let definition = &template.definition;
    if template.archived_at.is_some() {
        return Err(Rejection::TemplateArchived);
    }
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
