//! An account taken over from another system: its lots and what was spent of them, made into a ledger that adds up to them.
//!
//! Each lot becomes a grant when it began there, each spending a line on the lots it took from, a frozen part an open hold, and
//! what a lot had left at its end an expiry, all in the order of time. So the account's columns are those of the other system to
//! the point, and ledger, lots and holds agree as if all had happened here.
//!
//! Only an account without a ledger is taken over: run again, an import changes nothing.

use super::ledger::{Decision, Note, check_room, expire_lots, post, post_hold, record, settle};
use super::{Allocation, Hold, HoldStatus, Lot, TransactionType};
use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{HoldId, Ids, LotId, MemberId, TransactionId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// An account of another system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedAccount {
    pub member_id: MemberId,
    pub lots: Vec<ImportedLot>,
    pub uses: Vec<ImportedUse>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedLot {
    /// 1 to [`super::MAX_POINTS`].
    pub points: i64,
    /// One of those that earn.
    pub kind: TransactionType,
    /// Frozen there, for an order under way: an open hold here, which ends by command only.
    pub held: i64,
    pub created_at: Timestamp,
    /// What is neither spent nor held by then expires.
    pub expires_at: Option<Timestamp>,
    pub reference: Option<String>,
    pub remark: Option<String>,
}

/// Points that were spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedUse {
    /// One of those that spend.
    pub kind: TransactionType,
    pub at: Timestamp,
    /// Places of lots in the account, each with what it gave.
    pub parts: Vec<(usize, i64)>,
    pub reference: Option<String>,
    pub remark: Option<String>,
}

impl ImportedAccount {
    /// Whether every lot gave no more than it had, to uses while it lived, and nothing is of the future.
    pub fn is_consistent(&self, now: Timestamp) -> bool {
        let mut left: Vec<i64> = self.lots.iter().map(|lot| lot.points - lot.held).collect();
        let lots_hold = self.lots.iter().zip(&left).all(|(lot, left)| {
            (1..=super::MAX_POINTS).contains(&lot.points)
                && lot.held >= 0
                && *left >= 0
                && lot.kind.is_earn()
                && lot.created_at <= now
                && lot.expires_at.is_none_or(|end| end > lot.created_at)
        });
        let uses_hold = self.uses.iter().all(|spent| {
            let parts_hold = spent.parts.iter().all(|(place, points)| {
                let (Some(lot), Some(left)) = (self.lots.get(*place), left.get_mut(*place)) else { return false };
                *left = left.saturating_sub(*points);
                let lives = lot.created_at <= spent.at && lot.expires_at.is_none_or(|end| spent.at < end);
                *points >= 1 && *left >= 0 && lives
            });
            parts_hold && !spent.parts.is_empty() && spent.kind.is_use() && spent.at <= now
        });
        lots_hold && uses_hold
    }
}

/// What happened to the account there, one thing after the other.
#[derive(Clone, Copy)]
enum Step<'a> {
    Lot(usize, &'a ImportedLot),
    Use(&'a ImportedUse),
}

/// Takes an account over.
pub fn import(state: &mut State, envelope: &Envelope, ids: &mut Ids, imported: &ImportedAccount) -> Decision<Outcome> {
    let (tenant, member_id) = (envelope.tenant, &imported.member_id);
    if state.account(tenant, member_id).account.sequence > 0 {
        return Err(Rejection::AccountExists.into());
    }
    if !imported.is_consistent(envelope.at) {
        return Err(Rejection::ImportInconsistent.into());
    }
    let total = imported.lots.iter().try_fold(0_i64, |sum, lot| sum.checked_add(lot.points));
    check_room(state, tenant, member_id, total.ok_or(Rejection::PointsOverflow)?)?;
    let lots = imported.lots.iter().enumerate().map(|(place, lot)| (lot.created_at, Step::Lot(place, lot)));
    let mut steps: Vec<(Timestamp, Step<'_>)> = lots.collect();
    steps.extend(imported.uses.iter().map(|spent| (spent.at, Step::Use(spent))));
    // Stable: of one instant, lots come before what is taken from them.
    steps.sort_by_key(|(at, _)| *at);
    let mut lot_ids = vec![LotId(uuid::Uuid::nil()); imported.lots.len()];
    for (at, step) in steps {
        // What had ended by then is written before.
        expire_lots(state, envelope, ids, member_id, at, Timestamp(i64::MIN));
        match step {
            Step::Lot(place, lot) => lot_ids[place] = add_lot(state, envelope, ids, member_id, lot),
            Step::Use(spent) => {
                let part = |(place, points): &(usize, i64)| Allocation { lot_id: lot_ids[*place], points: *points };
                let allocations = spent.parts.iter().map(part).collect();
                add_use(state, envelope, ids, member_id, spent, allocations);
            }
        }
    }
    settle(state, envelope, ids, member_id)?;
    let account = &state.account(tenant, member_id).account;
    Ok(Outcome::Imported {
        member_id: member_id.clone(),
        total_points: account.total_points,
        available: account.available,
        frozen: account.frozen,
        used: account.used,
        expired: account.expired,
    })
}

fn add_lot(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    imported: &ImportedLot,
) -> LotId {
    let (at, reference) = (imported.created_at, imported.reference.as_deref());
    let transaction_id = TransactionId(ids.draw());
    let lot_id = LotId(transaction_id.0);
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
    let (remark, expires_at) = (imported.remark.as_deref(), imported.expires_at);
    let note = Note { reference, remark, lot_id: Some(lot_id), expires_at, ..Note::default() };
    let granted = post(state, envelope, transaction_id, member_id, at, imported.kind, imported.points, note);
    record(state, envelope, ids, EventKind::PointsGranted, &granted);
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
            remark: imported.remark.clone(),
            expires_at: Timestamp::NEVER,
            by_order: false,
            allocations: vec![Allocation { lot_id, points: imported.held }],
            created_at: at,
            closed_at: None,
            pending: false,
        };
        post_hold(state, envelope, ids, hold);
    }
    lot_id
}

fn add_use(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    spent: &ImportedUse,
    allocations: Vec<Allocation>,
) {
    let own = state.account_mut(envelope.tenant, member_id);
    let mut points = 0;
    for part in &allocations {
        let lot = own.lot_mut(part.lot_id);
        lot.remaining -= part.points;
        lot.used += part.points;
        points += part.points;
    }
    own.account.available -= points;
    own.account.used += points;
    let (reference, remark) = (spent.reference.as_deref(), spent.remark.as_deref());
    let note = Note { reference, remark, allocations, ..Note::default() };
    let id = TransactionId(ids.draw());
    let posted = post(state, envelope, id, member_id, spent.at, spent.kind, -points, note);
    record(state, envelope, ids, EventKind::PointsDebited, &posted);
}
