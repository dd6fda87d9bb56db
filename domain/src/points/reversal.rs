//! Undoing a transaction, wholly or in parts, never beyond its size.
//!
//! A debit's reversal restores the lots it took from, in the order it took them; a lot that has expired meanwhile passes its
//! points to a grace lot (or lets them expire at once when the tenant gives no grace). Lifetime earned never moves.
//! A grant's reversal takes back what is left, from the grant's own lot first and then in spending order. What is missing
//! becomes debt, or is forgiven, as the rules say that hold when the reversal takes effect; either way it is undone, so that no later
//! reversal asks for it again. Of an account that was merged nothing is forgiven: its points are the other member's now, and the
//! debt follows them with the next merge.

use super::ledger::{Decision, Note, close, expire_lots, post, record, require_lots, set_aside, settle, split};
use super::{Allocation, DebtPolicy, HoldStatus, Lot, TransactionType};
use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{HoldId, Ids, LotId, MemberId, TransactionId};
use crate::rejection::Rejection;
use crate::state::State;

/// What a tenant has laid down for reversals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// How long refunded points live when their lot has expired.
    pub grace_days: u32,
    pub debt_policy: DebtPolicy,
    /// Whose policy it is; `None` when no rules were asked.
    pub rules_version: Option<i64>,
}

pub fn reverse(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    id: TransactionId,
    points: Option<i64>,
    remark: Option<&str>,
) -> Decision<Outcome> {
    let rules = state.rules_at(envelope.tenant, envelope.at);
    let terms = Terms {
        grace_days: state.refund_grace_days(envelope.tenant),
        debt_policy: rules.points.debt_policy,
        rules_version: Some(rules.version),
    };
    reverse_with(state, envelope, ids, member_id, id, points, remark, terms)
}

/// The same, on terms of its own.
#[expect(clippy::too_many_arguments, reason = "the parts of the command")]
pub(super) fn reverse_with(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    id: TransactionId,
    points: Option<i64>,
    remark: Option<&str>,
    terms: Terms,
) -> Decision<Outcome> {
    let Some((original, reversed)) = state.original(envelope.tenant, id) else {
        return Err(Rejection::TransactionNotFound.into());
    };
    let original = original.clone();
    if original.member_id != *member_id {
        return Err(Rejection::TransactionNotFound.into());
    }
    // A transfer is undone on both sides at once: `reverse_transfer`.
    if original.reversible_points() == 0 || original.kind == TransactionType::Transfer {
        return Err(Rejection::NotReversible.into());
    }
    if original.by_order && !envelope.is_of_order() {
        return Err(Rejection::ManagedByOrder { order_id: original.reference.unwrap_or_default() }.into());
    }
    let left = original.reversible_points() - reversed;
    let points = points.unwrap_or(left);
    if points > left || points < 1 {
        return Err(Rejection::ReversalExceeds { left }.into());
    }
    let from_lots = if original.kind.is_earn() { points } else { 0 };
    require_lots(state, envelope, member_id, from_lots)?;
    settle(state, envelope, ids, member_id)?;

    if original.kind.is_earn() {
        let own_lot = original.lot_id;
        // What the grant still keeps for later goes first; the rest of it is kept again.
        let own = state.account(envelope.tenant, member_id);
        let waiting = own.holds().find(|hold| own_lot.is_some_and(|lot_id| hold.keeps(lot_id))).cloned();
        let is_waiting = waiting.is_some();
        if let Some(hold) = waiting {
            close(state, envelope, ids, member_id, hold, HoldStatus::Released, envelope.at);
        }
        let (taken, shortfall) = take_back(state, envelope, member_id, own_lot, points);
        let own = state.account_mut(envelope.tenant, member_id);
        let taken_points = points - shortfall;
        let forgives = terms.debt_policy == DebtPolicy::Forgive && own.account.merged_into.is_none();
        let points_forgiven = if forgives { shortfall } else { 0 };
        for part in &taken {
            let lot = own.lot_mut(part.lot_id);
            lot.remaining -= part.points;
            lot.revoked += part.points;
        }
        own.account.available -= taken_points;
        own.account.revoked += taken_points;
        own.account.debt += shortfall - points_forgiven;
        let note = Note {
            reference: original.reference.as_deref(),
            remark,
            reverses_id: Some(id),
            allocations: taken,
            points_forgiven,
            rules_version: terms.rules_version,
            ..Note::default()
        };
        let posted_id = TransactionId(ids.draw());
        let kind = TransactionType::Clawback;
        let posted = post(state, envelope, posted_id, member_id, envelope.at, kind, -taken_points, note);
        let outcome = finish(state, envelope, ids, &original.id, reversed + points, posted);
        if let (true, Some(lot_id)) = (is_waiting, own_lot)
            && state.account(envelope.tenant, member_id).lot(lot_id).remaining > 0
        {
            set_aside(state, envelope, ids, HoldId(posted_id.0), lot_id, &original);
        }
        return Ok(outcome);
    }

    let (parts, _) = split(&original.allocations, reversed, points);
    let revoked = original.kind == TransactionType::DeductAdmin;
    let posted_id = TransactionId(ids.draw());
    let restored = restore(state, envelope, member_id, &parts, revoked, terms.grace_days, posted_id);
    let account = &mut state.account_mut(envelope.tenant, member_id).account;
    account.available += points;
    *(if revoked { &mut account.revoked } else { &mut account.used }) -= points;
    let note = Note {
        reference: original.reference.as_deref(),
        remark,
        reverses_id: Some(id),
        lot_id: restored.grace_lot,
        allocations: restored.allocations,
        ..Note::default()
    };
    let kind = TransactionType::Refund;
    let posted = post(state, envelope, posted_id, member_id, envelope.at, kind, points, note);
    let outcome = finish(state, envelope, ids, &original.id, reversed + points, posted);
    // Without grace the restored part of an expired lot is overdue already.
    expire_lots(state, envelope, ids, member_id, envelope.at, envelope.at);
    Ok(outcome)
}

/// Records as debt what was to be taken back of a grant elsewhere, and was not there.
pub(super) fn owe(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    id: TransactionId,
    points: i64,
    remark: Option<&str>,
) -> Decision<Outcome> {
    let Some((original, reversed)) = state.original(envelope.tenant, id) else {
        return Err(Rejection::TransactionNotFound.into());
    };
    let original = original.clone();
    if !original.kind.is_earn() {
        return Err(Rejection::NotReversible.into());
    }
    let left = original.reversible_points() - reversed;
    if points > left || points < 1 {
        return Err(Rejection::ReversalExceeds { left }.into());
    }
    settle(state, envelope, ids, member_id)?;
    state.account_mut(envelope.tenant, member_id).account.debt += points;
    let note = Note { reference: original.reference.as_deref(), remark, reverses_id: Some(id), ..Note::default() };
    let posted_id = TransactionId(ids.draw());
    let posted = post(state, envelope, posted_id, member_id, envelope.at, TransactionType::Clawback, 0, note);
    Ok(finish(state, envelope, ids, &original.id, reversed + points, posted))
}

fn finish(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    original: &TransactionId,
    reversed: i64,
    posted: super::Transaction,
) -> Outcome {
    state.save_reversed(envelope.tenant, *original, reversed);
    record(state, envelope, ids, EventKind::PointsReversed, &posted);
    Outcome::Transaction(Box::new(posted))
}

/// Which lots give back up to `points`, and how many points no lot can give.
fn take_back(
    state: &State,
    envelope: &Envelope,
    member_id: &MemberId,
    own_lot: Option<LotId>,
    points: i64,
) -> (Vec<Allocation>, i64) {
    let own = state.account(envelope.tenant, member_id);
    let mut open = points;
    let mut parts = Vec::new();
    let first = own.lots().filter(|lot| Some(lot.id) == own_lot);
    let others = own.lots().filter(|lot| Some(lot.id) != own_lot && lot.is_spendable_at(envelope.at));
    for lot in first.chain(others).filter(|lot| lot.remaining > 0) {
        if open == 0 {
            break;
        }
        let taken = open.min(lot.remaining);
        parts.push(Allocation { lot_id: lot.id, points: taken });
        open -= taken;
    }
    (parts, open)
}

struct Restored {
    allocations: Vec<Allocation>,
    grace_lot: Option<LotId>,
}

fn restore(
    state: &mut State,
    envelope: &Envelope,
    member_id: &MemberId,
    parts: &[Allocation],
    revoked: bool,
    grace_days: u32,
    transaction_id: TransactionId,
) -> Restored {
    let own = state.account_mut(envelope.tenant, member_id);
    let mut allocations = Vec::with_capacity(parts.len());
    let mut grace_points = 0;
    for part in parts {
        let lot = own.lot_mut(part.lot_id);
        *(if revoked { &mut lot.revoked } else { &mut lot.used }) -= part.points;
        if lot.expires_at <= envelope.at && grace_days > 0 {
            lot.moved += part.points;
            grace_points += part.points;
        } else {
            lot.remaining += part.points;
            allocations.push(*part);
            if lot.idle_days.is_some() {
                own.account.look_again_at_idle_lots();
            }
        }
    }
    if grace_points == 0 {
        return Restored { allocations, grace_lot: None };
    }
    let grace_lot = LotId(transaction_id.0);
    own.insert_lot(Lot {
        id: grace_lot,
        points: grace_points,
        remaining: grace_points,
        held: 0,
        used: 0,
        expired: 0,
        revoked: 0,
        moved: 0,
        available_from: envelope.at,
        expires_at: envelope.at.plus_days(grace_days),
        idle_days: None,
        transaction_id,
        created_at: envelope.at,
    });
    allocations.push(Allocation { lot_id: grace_lot, points: grace_points });
    Restored { allocations, grace_lot: Some(grace_lot) }
}
