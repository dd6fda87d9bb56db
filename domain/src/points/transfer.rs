//! Points that change hands: a part to another member, or everything to the account a member is merged into.
//!
//! Each part of a lot that leaves becomes a lot of the other account, with the expiry it had: what was about to expire still
//! is, whoever holds it. Both accounts are locked by the batch, in key order; the two lines of a transfer name each other.
//! `total_points` moves along, so that the sum over a tenant's accounts stays what was issued.
//!
//! A transfer is undone by the same lots going back, as far as they have not been spent meanwhile.
//!
//! A merge closes an account for good: it refuses new business, naming the account that took it over, which goes on with its
//! tasks ([`crate::task`]). What concerns its past (a refund, a claw-back) is still decided on it, and merging once more moves
//! what came of that, a debt included. It waits for holds of orders under way, since those must end on the account they began on.

use serde::{Deserialize, Serialize};

use super::ledger::{
    Decision, Note, allocate, close, post, record, refuse_merged, require_lots, set_aside, settle, settle_debt,
};
use super::{Allocation, Hold, HoldStatus, Lot, MAX_TOTAL_POINTS, Transaction, TransactionType};
use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{HoldId, Ids, LotId, MemberId, TransactionId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::task;

/// The two lines of points that changed hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    #[serde(rename = "s")]
    pub sent: Transaction,
    #[serde(rename = "r")]
    pub received: Transaction,
}

/// Who gives and who gets.
#[derive(Debug, Clone, Copy)]
struct Sides<'a> {
    from: &'a MemberId,
    to: &'a MemberId,
}

/// What a transfer carries beside its points.
#[derive(Debug, Clone, Copy, Default)]
struct Words<'a> {
    reference: Option<&'a str>,
    remark: Option<&'a str>,
}

/// Gives `points` of one member to another, soonest-expiring first.
#[expect(clippy::too_many_arguments, reason = "the parts of the command")]
pub fn transfer(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    from: &MemberId,
    to: &MemberId,
    points: i64,
    reference: Option<&str>,
    remark: Option<&str>,
) -> Decision<Outcome> {
    if from == to {
        return Err(Rejection::SameMember.into());
    }
    require_lots(state, envelope, from, points)?;
    require_lots(state, envelope, to, 0)?;
    settle(state, envelope, ids, from)?;
    settle(state, envelope, ids, to)?;
    refuse_merged(state, envelope, from)?;
    refuse_merged(state, envelope, to)?;
    let debt = state.account(envelope.tenant, from).account.debt;
    if debt > 0 {
        return Err(Rejection::InDebt { debt }.into());
    }
    let parts = allocate(state, envelope, from, points)?;
    refuse_overflow(state, envelope, to, points)?;
    let sides = Sides { from, to };
    let (transfer, lots) = move_parts(state, envelope, ids, sides, parts, Words { reference, remark }, 0);
    settle_debt(state, envelope, ids, to, &lots, envelope.at);
    Ok(Outcome::Transfer(Box::new(transfer)))
}

/// Moves everything of one account, debt included, to another, and closes it.
pub fn merge(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    from: &MemberId,
    into: &MemberId,
    remark: Option<&str>,
) -> Decision<Outcome> {
    if from == into {
        return Err(Rejection::SameMember.into());
    }
    let debts = [from, into].map(|member| state.account(envelope.tenant, member).account.debt);
    require_lots(state, envelope, from, i64::MAX)?;
    require_lots(state, envelope, into, debts[0] + debts[1])?;
    settle(state, envelope, ids, from)?;
    settle(state, envelope, ids, into)?;
    refuse_merged(state, envelope, into)?;
    let own = state.account(envelope.tenant, from);
    if let Some(other) = own.account.merged_into.as_ref().filter(|other| *other != into) {
        return Err(Rejection::AccountMerged { into: other.clone() }.into());
    }
    let mut pending: Vec<Hold> =
        own.holds().filter(|hold| hold.pending && hold.status == HoldStatus::Open).cloned().collect();
    pending.sort_by_key(|hold| hold.id);
    let kept: i64 = pending.iter().map(|hold| hold.points).sum();
    if own.account.frozen > kept {
        return Err(Rejection::HoldsOpen { points: own.account.frozen - kept }.into());
    }
    refuse_overflow(state, envelope, into, own.account.available + kept)?;
    for hold in pending {
        close(state, envelope, ids, from, hold, HoldStatus::Released, envelope.at);
    }
    let own = state.account(envelope.tenant, from);
    let debt = own.account.debt;
    let parts: Vec<Allocation> = own
        .lots()
        .filter(|lot| lot.remaining > 0)
        .map(|lot| Allocation { lot_id: lot.id, points: lot.remaining })
        .collect();
    let words = Words { reference: None, remark };
    let (transfer, lots) = move_parts(state, envelope, ids, Sides { from, to: into }, parts, words, debt);
    let closed = &mut state.account_mut(envelope.tenant, from).account;
    let was_open = closed.merged_into.replace(into.clone()).is_none();
    // Two accounts of one member must not have a limit each; what is moved now is not moved by the next pass.
    let earned = std::mem::take(&mut closed.earned);
    let survivor = &mut state.account_mut(envelope.tenant, into).account;
    survivor.earned = survivor.earned.with(earned);
    if was_open {
        task::carry_over(state, envelope, from, into);
    }
    let data = serde_json::json!({ "into": into.as_str(), "points": transfer.received.points }).to_string();
    state.record_event(envelope, ids, envelope.at, EventKind::AccountMerged, transfer.sent.id.0, Some(from), data);
    let own = state.account(envelope.tenant, into);
    let waiting: Vec<LotId> = lots.into_iter().filter(|id| own.lot(*id).available_from > envelope.at).collect();
    for lot_id in waiting {
        set_aside(state, envelope, ids, HoldId(lot_id.0), lot_id, &transfer.received);
    }
    let own = state.account(envelope.tenant, into);
    let payers: Vec<LotId> = own.lots().filter(|lot| lot.is_spendable_at(envelope.at)).map(|lot| lot.id).collect();
    settle_debt(state, envelope, ids, into, &payers, envelope.at);
    Ok(Outcome::Transfer(Box::new(transfer)))
}

/// Undoes a transfer, wholly or in part: its lots go back as far as nothing was spent of them. `id` is the sender's line,
/// `counterpart` the receiver's.
#[expect(clippy::too_many_arguments, reason = "the parts of the command")]
pub fn reverse_transfer(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    from: &MemberId,
    to: &MemberId,
    id: TransactionId,
    counterpart: TransactionId,
    points: Option<i64>,
    remark: Option<&str>,
) -> Decision<Outcome> {
    let original = |id, member: &MemberId| match state.original(envelope.tenant, id) {
        Some((line, reversed)) if line.member_id == *member => Ok((line.clone(), reversed)),
        _ => Err(Rejection::TransactionNotFound),
    };
    let (sent, reversed) = original(id, from)?;
    let (received, _) = original(counterpart, to)?;
    let is_transfer = sent.kind == TransactionType::Transfer && sent.points < 0 && sent.reverses_id.is_none();
    if !is_transfer || sent.counterpart_id != Some(counterpart) {
        return Err(Rejection::NotReversible.into());
    }
    require_lots(state, envelope, from, 0)?;
    require_lots(state, envelope, to, 0)?;
    settle(state, envelope, ids, from)?;
    settle(state, envelope, ids, to)?;
    refuse_merged(state, envelope, from)?;
    let own = state.account(envelope.tenant, to);
    let unspent = |part: &Allocation| own.lot(part.lot_id).remaining;
    let left = received.allocations.iter().map(unspent).sum::<i64>().min(sent.reversible_points() - reversed);
    let points = points.unwrap_or(left);
    if points > left || points < 1 {
        return Err(Rejection::ReversalExceeds { left }.into());
    }
    refuse_overflow(state, envelope, from, points)?;
    let (mut given, mut restored, mut open) = (Vec::new(), Vec::new(), points);
    for (there, here) in received.allocations.iter().zip(&sent.allocations) {
        let part = open.min(state.account(envelope.tenant, to).lot(there.lot_id).remaining);
        if part == 0 {
            continue;
        }
        open -= part;
        let lot = state.account_mut(envelope.tenant, to).lot_mut(there.lot_id);
        lot.remaining -= part;
        lot.moved += part;
        let lot = state.account_mut(envelope.tenant, from).lot_mut(here.lot_id);
        lot.moved -= part;
        lot.remaining += part;
        let is_idle = lot.idle_days.is_some();
        if is_idle {
            state.account_mut(envelope.tenant, from).account.look_again_at_idle_lots();
        }
        given.push(Allocation { lot_id: there.lot_id, points: part });
        restored.push(Allocation { lot_id: here.lot_id, points: part });
    }
    state.save_reversed(envelope.tenant, id, reversed + points);
    state.save_reversed(envelope.tenant, counterpart, reversed + points);
    let words = Words { reference: sent.reference.as_deref(), remark };
    let back = Sides { from: to, to: from };
    let lots: Vec<LotId> = restored.iter().map(|part| part.lot_id).collect();
    let line_ids = (TransactionId(ids.draw()), TransactionId(ids.draw()));
    let transfer =
        post_both(state, envelope, ids, back, line_ids, (given, restored), words, (Some(counterpart), Some(id)), 0);
    settle_debt(state, envelope, ids, from, &lots, envelope.at);
    Ok(Outcome::Transfer(Box::new(transfer)))
}

fn refuse_overflow(state: &State, envelope: &Envelope, member: &MemberId, points: i64) -> Result<(), Rejection> {
    let total = state.account(envelope.tenant, member).account.total_points.checked_add(points);
    if total.is_some_and(|total| total <= MAX_TOTAL_POINTS) { Ok(()) } else { Err(Rejection::PointsOverflow) }
}

/// Moves parts of lots, and `debt` beside them; the lines, and the lots that were made.
fn move_parts(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    sides: Sides<'_>,
    parts: Vec<Allocation>,
    words: Words<'_>,
    debt: i64,
) -> (Transfer, Vec<LotId>) {
    let line_ids = (TransactionId(ids.draw()), TransactionId(ids.draw()));
    let mut received = Vec::with_capacity(parts.len());
    for part in &parts {
        let lot = state.account_mut(envelope.tenant, sides.from).lot_mut(part.lot_id);
        lot.remaining -= part.points;
        lot.moved += part.points;
        let (available_from, expires_at) = (lot.available_from.max(envelope.at), lot.expires_at);
        let idle_days = lot.idle_days;
        let id = LotId(ids.draw());
        let own = state.account_mut(envelope.tenant, sides.to);
        if idle_days.is_some() {
            own.account.look_again_at_idle_lots();
        }
        own.insert_lot(Lot {
            id,
            points: part.points,
            remaining: part.points,
            held: 0,
            used: 0,
            expired: 0,
            revoked: 0,
            moved: 0,
            available_from,
            expires_at,
            idle_days,
            transaction_id: line_ids.1,
            created_at: envelope.at,
        });
        received.push(Allocation { lot_id: id, points: part.points });
    }
    let lots = received.iter().map(|part| part.lot_id).collect();
    (post_both(state, envelope, ids, sides, line_ids, (parts, received), words, (None, None), debt), lots)
}

/// Moves the accounts' columns and writes the line of each side. The lots must already show their effect.
#[expect(clippy::too_many_arguments, reason = "private; the parts of two lines")]
fn post_both(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    sides: Sides<'_>,
    (sent_id, received_id): (TransactionId, TransactionId),
    (given, received): (Vec<Allocation>, Vec<Allocation>),
    words: Words<'_>,
    reverses: (Option<TransactionId>, Option<TransactionId>),
    debt: i64,
) -> Transfer {
    let points: i64 = given.iter().map(|part| part.points).sum();
    let mut line = |member: &MemberId, id, counterpart, points: i64, debt: i64, allocations, reverses_id| {
        let account = &mut state.account_mut(envelope.tenant, member).account;
        account.available += points;
        account.total_points += points;
        account.debt += debt;
        let Words { reference, remark } = words;
        let counterpart_id = Some(counterpart);
        let note = Note { reference, remark, counterpart_id, allocations, reverses_id, ..Note::default() };
        let posted = post(state, envelope, id, member, envelope.at, TransactionType::Transfer, points, note);
        record(state, envelope, ids, EventKind::PointsTransferred, &posted);
        posted
    };
    let sent = line(sides.from, sent_id, received_id, -points, -debt, given, reverses.0);
    let received = line(sides.to, received_id, sent_id, points, debt, received, reverses.1);
    Transfer { sent, received }
}
