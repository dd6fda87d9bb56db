//! An account taken over from another system: its lots as they stand there, made into a ledger that adds up to them.
//!
//! Each lot becomes a grant, and what became of it there becomes lines on that very lot: used, held for an order, expired. So
//! the account's columns are those of the other system to the point, and the ledger, its lots and its holds agree as if all had
//! happened here. What the other system cannot tell, when a lot was used and for what, is dated at the lot's beginning.
//!
//! Only an account without a ledger can be taken over: a second run changes nothing.

use super::ledger::{Decision, Note, expire_lots, post, post_hold, record};
use super::{Allocation, Hold, HoldStatus, Lot, MAX_TOTAL_POINTS, TransactionType};
use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{HoldId, Ids, LotId, MemberId, TransactionId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// A lot of another system. `used + held + expired` is at most `points`; the rest can be spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedLot {
    pub points: i64,
    pub used: i64,
    /// For orders under way there: an open hold here.
    pub held: i64,
    /// Only of a lot that has expired.
    pub expired: i64,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub reference: Option<String>,
}

/// Takes an account over; `lots` in any order.
pub fn import(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    lots: &[ImportedLot],
) -> Decision<Outcome> {
    if state.account(envelope.tenant, member_id).account.sequence > 0 {
        return Err(Rejection::AccountNotEmpty.into());
    }
    let total = lots.iter().try_fold(0_i64, |sum, lot| sum.checked_add(lot.points));
    if total.is_none_or(|total| total > MAX_TOTAL_POINTS) {
        return Err(Rejection::PointsOverflow.into());
    }
    let mut lots: Vec<&ImportedLot> = lots.iter().collect();
    lots.sort_by_key(|lot| lot.created_at);
    for lot in lots {
        // What had expired by then is written before, so that lines follow in the order of time.
        expire_lots(state, envelope, ids, member_id, lot.created_at, Timestamp(i64::MIN));
        add(state, envelope, ids, member_id, lot);
    }
    expire_lots(state, envelope, ids, member_id, envelope.at, Timestamp(i64::MIN));
    let account = &state.account(envelope.tenant, member_id).account;
    Ok(Outcome::Imported {
        member_id: member_id.clone(),
        available: account.available,
        frozen: account.frozen,
        used: account.used,
        expired: account.expired,
        total_points: account.total_points,
    })
}

fn add(state: &mut State, envelope: &Envelope, ids: &mut Ids, member_id: &MemberId, imported: &ImportedLot) {
    let (at, reference) = (imported.created_at, imported.reference.as_deref());
    let (lot_id, transaction_id) = (LotId(ids.draw()), TransactionId(ids.draw()));
    let own = state.account_mut(envelope.tenant, member_id);
    own.insert_lot(Lot {
        id: lot_id,
        points: imported.points,
        remaining: imported.points,
        held: 0,
        used: 0,
        expired: 0,
        revoked: 0,
        moved: 0,
        available_from: at,
        expires_at: imported.expires_at.unwrap_or(Timestamp::NEVER),
        transaction_id,
        created_at: at,
    });
    own.account.total_points += imported.points;
    own.account.available += imported.points;
    let note = Note { reference, lot_id: Some(lot_id), expires_at: imported.expires_at, ..Note::default() };
    let kind = TransactionType::EarnAdmin;
    let granted = post(state, envelope, transaction_id, member_id, at, kind, imported.points, note);
    record(state, envelope, ids, EventKind::PointsGranted, &granted);
    if imported.used > 0 {
        let allocations = vec![Allocation { lot_id, points: imported.used }];
        let own = state.account_mut(envelope.tenant, member_id);
        let lot = own.lot_mut(lot_id);
        lot.remaining -= imported.used;
        lot.used += imported.used;
        own.account.available -= imported.used;
        own.account.used += imported.used;
        let note = Note { reference, allocations, ..Note::default() };
        let (id, kind) = (TransactionId(ids.draw()), TransactionType::UseOrder);
        let posted = post(state, envelope, id, member_id, at, kind, -imported.used, note);
        record(state, envelope, ids, EventKind::PointsDebited, &posted);
    }
    if imported.held > 0 {
        let own = state.account_mut(envelope.tenant, member_id);
        let lot = own.lot_mut(lot_id);
        lot.remaining -= imported.held;
        lot.held += imported.held;
        own.account.available -= imported.held;
        own.account.frozen += imported.held;
        let hold = Hold {
            id: HoldId(ids.draw()),
            member_id: member_id.clone(),
            points: imported.held,
            captured: 0,
            released: 0,
            status: HoldStatus::Open,
            reference: imported.reference.clone(),
            remark: None,
            expires_at: Timestamp::NEVER,
            allocations: vec![Allocation { lot_id, points: imported.held }],
            created_at: at,
            closed_at: None,
            pending: false,
        };
        post_hold(state, envelope, ids, hold, at);
    }
}
