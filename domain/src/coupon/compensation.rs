//! Cases for an operator: a coupon whose order was refunded had expired meanwhile and could not be extended, so the member is
//! to be compensated by hand. How, is the operator's choice: points, another coupon, or nothing.

use serde::{Deserialize, Serialize};

use super::Coupon;
use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{CompensationId, CouponId, Ids, KeyId, MemberId, OrderId, TemplateId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CompensationReason {
    TemplateDisabled,
    /// The template's `refund_extend_days` are 0.
    NoExtension,
}

impl CompensationReason {
    pub const ALL: [CompensationReason; 2] = [CompensationReason::TemplateDisabled, CompensationReason::NoExtension];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            CompensationReason::TemplateDisabled => "TEMPLATE_DISABLED",
            CompensationReason::NoExtension => "NO_EXTENSION",
        }
    }

    pub fn parse(text: &str) -> Option<CompensationReason> {
        CompensationReason::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CompensationStatus {
    Pending,
    /// The member was compensated.
    Resolved,
    /// The member was not.
    Dismissed,
}

impl CompensationStatus {
    pub const ALL: [CompensationStatus; 3] =
        [CompensationStatus::Pending, CompensationStatus::Resolved, CompensationStatus::Dismissed];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            CompensationStatus::Pending => "PENDING",
            CompensationStatus::Resolved => "RESOLVED",
            CompensationStatus::Dismissed => "DISMISSED",
        }
    }

    pub fn parse(text: &str) -> Option<CompensationStatus> {
        CompensationStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A case. It ends once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compensation {
    pub id: CompensationId,
    pub coupon_id: CouponId,
    pub template_id: TemplateId,
    pub member_id: MemberId,
    pub order_id: OrderId,
    pub reason: CompensationReason,
    pub created_at: Timestamp,
    pub status: CompensationStatus,
    /// What the operator did, or why nothing.
    pub remark: Option<String>,
    /// The key that closed it.
    pub closed_by: Option<KeyId>,
    pub closed_at: Option<Timestamp>,
}

pub(super) fn open(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    coupon: &Coupon,
    order_id: &OrderId,
    reason: CompensationReason,
) -> CompensationId {
    let case = Compensation {
        id: CompensationId(ids.draw()),
        coupon_id: coupon.id,
        template_id: coupon.template_id,
        member_id: coupon.member_id.clone(),
        order_id: order_id.clone(),
        reason,
        created_at: envelope.at,
        status: CompensationStatus::Pending,
        remark: None,
        closed_by: None,
        closed_at: None,
    };
    let id = case.id;
    state.insert_compensation(envelope.tenant, case);
    id
}

/// PENDING -> RESOLVED or DISMISSED, by an operator. Once more with the same status changes nothing.
pub fn resolve(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CompensationId,
    status: CompensationStatus,
    remark: &str,
) -> Result<Outcome, Rejection> {
    let mut case = state.compensation(envelope.tenant, id)?.clone();
    if case.status == status {
        return Ok(Outcome::Compensation(Box::new(case)));
    }
    if case.status != CompensationStatus::Pending || status == CompensationStatus::Pending {
        return Err(Rejection::CompensationClosed { status: case.status });
    }
    case.status = status;
    case.remark = Some(remark.to_owned());
    case.closed_by = envelope.actor;
    case.closed_at = Some(envelope.at);
    let data = format!("{{\"template_id\":\"{}\",\"status\":\"{}\"}}", case.template_id, status.as_str());
    let (kind, member) = (EventKind::CouponCompensationClosed, case.member_id.clone());
    state.record_event(envelope, ids, envelope.at, kind, case.coupon_id.0, Some(&member), data);
    state.save_compensation(envelope.tenant, case.clone());
    Ok(Outcome::Compensation(Box::new(case)))
}
