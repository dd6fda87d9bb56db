//! Points that an operator gives or takes by hand, and the second pair of eyes that large ones need.
//!
//! ```text
//! PENDING -- approved by another key --> APPROVED, with its transaction
//!    |
//!    +---- rejected by any operator ---> REJECTED, with a reason
//! ```
//!
//! The tenant's rules say above how many points (`approval_above`) an adjustment is not made but waits. Which rules hold is asked of
//! the time at which it is recorded, not of the one at which it takes effect: an earlier effective time is no way around. The
//! approval makes the transaction in the decision that closes the adjustment, so an approved one has its line, and only one. Every
//! other way to move administrative points is bound by the same number and refused above it, but for the history of an account that is
//! imported. Each line keeps the version of the rules that held, so that an auditor finds one above its number without an approval.
//!
//! Deliberately absent: an approval that reserves. What is taken away on approval must be there then; else the approval is refused,
//! and the adjustment goes on waiting.

use serde::{Deserialize, Serialize};

use super::ledger::{Decision, Spendable, debit_points, grant_points};
use super::{Transaction, TransactionType};
use crate::command::{Envelope, Movement};
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{AdjustmentId, Ids, KeyId, MemberId, TransactionId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AdjustmentStatus {
    Pending,
    Approved,
    Rejected,
}

impl AdjustmentStatus {
    pub const ALL: [AdjustmentStatus; 3] =
        [AdjustmentStatus::Pending, AdjustmentStatus::Approved, AdjustmentStatus::Rejected];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            AdjustmentStatus::Pending => "PENDING",
            AdjustmentStatus::Approved => "APPROVED",
            AdjustmentStatus::Rejected => "REJECTED",
        }
    }

    pub fn parse(text: &str) -> Option<AdjustmentStatus> {
        AdjustmentStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdjustmentRequest {
    pub member_id: MemberId,
    /// More than 0: given; less: taken away.
    pub points: i64,
    pub reason: String,
    pub reference: Option<String>,
    /// Of points given.
    pub expires_at: Option<Timestamp>,
}

/// An adjustment that needed an approval. It is decided once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    #[serde(rename = "i")]
    pub id: AdjustmentId,
    #[serde(rename = "m")]
    pub member_id: MemberId,
    #[serde(rename = "p")]
    pub points: i64,
    #[serde(rename = "r")]
    pub reason: String,
    #[serde(rename = "f")]
    pub reference: Option<String>,
    #[serde(rename = "x")]
    pub expires_at: Option<Timestamp>,
    #[serde(rename = "s")]
    pub status: AdjustmentStatus,
    /// The key that asked; `None` is the command line.
    #[serde(rename = "k")]
    pub requested_by: Option<KeyId>,
    #[serde(rename = "a")]
    pub requested_at: Timestamp,
    #[serde(rename = "d")]
    pub decided_by: Option<KeyId>,
    #[serde(rename = "z")]
    pub decided_at: Option<Timestamp>,
    /// Why it was rejected.
    #[serde(rename = "w")]
    pub remark: Option<String>,
    #[serde(rename = "t")]
    pub transaction_id: Option<TransactionId>,
}

/// Makes an adjustment, or lets it wait when it is above what the rules let one key do alone.
pub fn adjust(state: &mut State, envelope: &Envelope, ids: &mut Ids, asked: &AdjustmentRequest) -> Decision<Outcome> {
    if approval_above(state, envelope).is_none_or(|above| asked.points.abs() <= above) {
        return Ok(Outcome::Transaction(Box::new(make(state, envelope, ids, asked)?)));
    }
    let AdjustmentRequest { member_id, points, reason, reference, expires_at } = asked.clone();
    if expires_at.is_some_and(|end| end <= envelope.at) {
        return Err(Rejection::DeadlinePassed { field: "expires_at" }.into());
    }
    super::refuse_merged(state, envelope, &member_id)?;
    let adjustment = Adjustment {
        id: AdjustmentId(ids.draw()),
        member_id,
        points,
        reason,
        reference,
        expires_at,
        status: AdjustmentStatus::Pending,
        requested_by: envelope.actor,
        requested_at: envelope.now,
        decided_by: None,
        decided_at: None,
        remark: None,
        transaction_id: None,
    };
    state.insert_adjustment(envelope.tenant, adjustment.clone());
    record(state, envelope, ids, EventKind::AdjustmentRequested, &adjustment);
    Ok(Outcome::Adjustment(Box::new(adjustment)))
}

/// PENDING -> APPROVED, by another key than the one that asked. Approved once more, it stays as it is.
pub fn approve(state: &mut State, envelope: &Envelope, ids: &mut Ids, id: AdjustmentId) -> Decision<Outcome> {
    let mut adjustment = state.adjustment(envelope.tenant, id)?.clone();
    match adjustment.status {
        AdjustmentStatus::Approved => return Ok(Outcome::Adjustment(Box::new(adjustment))),
        AdjustmentStatus::Rejected => return Err(Rejection::AdjustmentClosed { status: adjustment.status }.into()),
        AdjustmentStatus::Pending => {}
    }
    if envelope.actor == adjustment.requested_by {
        return Err(Rejection::OwnAdjustment.into());
    }
    let asked = AdjustmentRequest {
        member_id: adjustment.member_id.clone(),
        points: adjustment.points,
        reason: adjustment.reason.clone(),
        reference: adjustment.reference.clone(),
        expires_at: adjustment.expires_at,
    };
    let made = make(state, envelope, ids, &asked)?;
    adjustment.transaction_id = Some(made.id);
    decided(&mut adjustment, envelope, AdjustmentStatus::Approved);
    state.save_adjustment(envelope.tenant, adjustment.clone());
    record(state, envelope, ids, EventKind::AdjustmentApproved, &adjustment);
    Ok(Outcome::Adjustment(Box::new(adjustment)))
}

/// PENDING -> REJECTED. Rejected once more, it stays as it is.
pub fn reject(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: AdjustmentId,
    reason: &str,
) -> Result<Outcome, Rejection> {
    let mut adjustment = state.adjustment(envelope.tenant, id)?.clone();
    match adjustment.status {
        AdjustmentStatus::Rejected => return Ok(Outcome::Adjustment(Box::new(adjustment))),
        AdjustmentStatus::Approved => return Err(Rejection::AdjustmentClosed { status: adjustment.status }),
        AdjustmentStatus::Pending => {}
    }
    adjustment.remark = Some(reason.to_owned());
    decided(&mut adjustment, envelope, AdjustmentStatus::Rejected);
    state.save_adjustment(envelope.tenant, adjustment.clone());
    record(state, envelope, ids, EventKind::AdjustmentRejected, &adjustment);
    Ok(Outcome::Adjustment(Box::new(adjustment)))
}

/// Refuses administrative points, other than by an adjustment, above what one key may do alone.
pub(crate) fn refuse_unapproved(state: &State, envelope: &Envelope, movement: &Movement) -> Result<(), Rejection> {
    if !movement.kind.is_administrative() {
        return Ok(());
    }
    match approval_above(state, envelope).filter(|above| movement.points > *above) {
        Some(above) => Err(Rejection::ApprovalNeeded { above }),
        None => Ok(()),
    }
}

/// The version of the rules that says how many points one key may move alone, for a line of this type; `None` where nobody asks: for
/// types that are not an operator's, and for what an import brings.
pub(super) fn rules_asked(state: &State, envelope: &Envelope, kind: TransactionType) -> Option<i64> {
    let asks = kind.is_administrative() && envelope.command.is_administrative();
    asks.then(|| state.rules_at(envelope.tenant, envelope.now).version)
}

fn approval_above(state: &State, envelope: &Envelope) -> Option<i64> {
    state.rules_at(envelope.tenant, envelope.now).points.approval_above
}

fn make(state: &mut State, envelope: &Envelope, ids: &mut Ids, asked: &AdjustmentRequest) -> Decision<Transaction> {
    let AdjustmentRequest { member_id, points, reason, reference, expires_at } = asked;
    let gives = *points > 0;
    let kind = if gives { TransactionType::EarnAdmin } else { TransactionType::DeductAdmin };
    let movement = Movement { points: points.abs(), kind, reference: reference.clone(), remark: Some(reason.clone()) };
    if gives {
        let spendable = Spendable { expires_at: *expires_at, ..Spendable::default() };
        grant_points(state, envelope, ids, member_id, &movement, spendable)
    } else {
        debit_points(state, envelope, ids, member_id, &movement)
    }
}

fn decided(adjustment: &mut Adjustment, envelope: &Envelope, status: AdjustmentStatus) {
    adjustment.status = status;
    adjustment.decided_by = envelope.actor;
    adjustment.decided_at = Some(envelope.now);
}

fn record(state: &mut State, envelope: &Envelope, ids: &mut Ids, kind: EventKind, adjustment: &Adjustment) {
    let data = format!("{{\"status\":\"{}\",\"points\":{}}}", adjustment.status.as_str(), adjustment.points);
    let member = Some(&adjustment.member_id);
    state.record_event(envelope, ids, envelope.at, kind, adjustment.id.0, member, data);
}
