//! Grants, debits, holds and expiry. Each function settles the account first, checks, and only then moves points.

use serde::{Deserialize, Serialize};

use super::adjustment::rules_asked;
use super::idle::{move_ends, require_activity};
use super::{
    Account, Allocation, Hold, HoldStatus, Lot, MAX_TOTAL_POINTS, MILESTONE, Totals, Transaction, TransactionType,
};
use crate::command::{Envelope, Movement};
use crate::decide::{Interrupt, Need, Outcome};
use crate::event::EventKind;
use crate::id::{HoldId, Ids, LotId, MemberId, TenantId, TransactionId};
use crate::rejection::Rejection;
use crate::state::{AccountState, State};
use crate::time::Timestamp;

/// A refusal, or a need for more rows; both before anything was written.
pub(super) type Decision<T> = Result<T, Interrupt>;

/// What a transaction carries beside its points.
#[derive(Default)]
pub(super) struct Note<'a> {
    pub reference: Option<&'a str>,
    pub remark: Option<&'a str>,
    pub hold_id: Option<HoldId>,
    pub reverses_id: Option<TransactionId>,
    pub counterpart_id: Option<TransactionId>,
    pub lot_id: Option<LotId>,
    pub allocations: Vec<Allocation>,
    pub expires_at: Option<Timestamp>,
    pub points_forgiven: i64,
    pub rules_version: Option<i64>,
}

/// When granted points can be spent: from one instant to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spendable {
    /// `None`, or an instant that has come: at once.
    pub available_from: Option<Timestamp>,
    /// `None`: for ever.
    pub expires_at: Option<Timestamp>,
    /// The lot is an idle one ([`Lot::idle_days`]), with the end for an activity now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub idle_days: Option<u32>,
}

/// Points come in: a new lot, from which debt is settled first, as soon as it is available.
pub fn grant(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    movement: &Movement,
    spendable: Spendable,
) -> Decision<Outcome> {
    let granted = grant_points(state, envelope, ids, member_id, movement, spendable)?;
    Ok(Outcome::Transaction(Box::new(granted)))
}

/// The same, for a decision of which the grant is a part.
pub(crate) fn grant_points(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    movement: &Movement,
    spendable: Spendable,
) -> Decision<Transaction> {
    if movement.kind.is_activity() {
        require_activity(state, envelope, member_id, spendable.idle_days)?;
    }
    settle(state, envelope, ids, member_id)?;
    // What an order earns comes to the account it was made on, and goes on from there with the next merge.
    if !envelope.is_of_order() {
        refuse_merged(state, envelope, member_id)?;
    }
    let Spendable { available_from, expires_at, idle_days } = spendable;
    let available_from = available_from.filter(|at| *at > envelope.at);
    if expires_at.is_some_and(|end| end <= envelope.at) {
        return Err(Rejection::DeadlinePassed { field: "expires_at" }.into());
    }
    if available_from.is_some() && expires_at.is_some_and(|end| Some(end) <= available_from) {
        return Err(Rejection::ExpiresBeforeAvailable.into());
    }
    let total = check_room(state, envelope.tenant, member_id, movement.points)?;
    let day = idle_days.and_then(|days| state.day_end(envelope.tenant, days, envelope.at)).map(|end| end.day);

    let transaction_id = TransactionId(ids.draw());
    let lot_id = LotId(transaction_id.0);
    let own = state.account_mut(envelope.tenant, member_id);
    own.insert_lot(Lot {
        id: lot_id,
        points: movement.points,
        remaining: movement.points,
        held: 0,
        used: 0,
        expired: 0,
        revoked: 0,
        moved: 0,
        available_from: available_from.unwrap_or(envelope.at),
        expires_at: expires_at.unwrap_or(Timestamp::NEVER),
        idle_days,
        transaction_id,
        created_at: envelope.at,
    });
    own.account.total_points = total;
    own.account.available += movement.points;
    if let Some(day) = day {
        own.account.add_idle_lot(day.ends_at);
    }
    let note = Note {
        reference: movement.reference.as_deref(),
        remark: movement.remark.as_deref(),
        lot_id: Some(lot_id),
        expires_at,
        rules_version: rules_asked(state, envelope, movement.kind),
        ..Note::default()
    };
    let granted = post(state, envelope, transaction_id, member_id, envelope.at, movement.kind, movement.points, note);
    record(state, envelope, ids, EventKind::PointsGranted, &granted);
    if movement.kind.is_activity() {
        move_ends(state, envelope, member_id);
    }
    if available_from.is_some() {
        set_aside(state, envelope, ids, HoldId(lot_id.0), lot_id, &granted);
    } else {
        settle_debt(state, envelope, ids, member_id, &[lot_id], envelope.at);
    }
    Ok(granted)
}

/// What the account will have earned in its life with `points` more, if it can take them.
pub(crate) fn check_room(state: &State, tenant: TenantId, member_id: &MemberId, points: i64) -> Result<i64, Rejection> {
    let total = state.account(tenant, member_id).account.total_points.checked_add(points);
    total.filter(|total| *total <= MAX_TOTAL_POINTS).ok_or(Rejection::PointsOverflow)
}

/// Keeps what is in a lot until the lot becomes available. `source` is the line the points come from, which lends its
/// reference and remark.
pub(super) fn set_aside(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    hold_id: HoldId,
    lot_id: LotId,
    source: &Transaction,
) {
    let member_id = &source.member_id;
    let own = state.account_mut(envelope.tenant, member_id);
    let lot = own.lot_mut(lot_id);
    let (points, available_from) = (lot.remaining, lot.available_from);
    lot.remaining -= points;
    lot.held += points;
    own.account.available -= points;
    own.account.frozen += points;
    let hold = Hold {
        id: hold_id,
        member_id: member_id.clone(),
        points,
        captured: 0,
        released: 0,
        status: HoldStatus::Open,
        reference: source.reference.clone(),
        remark: source.remark.clone(),
        expires_at: available_from,
        by_order: false,
        allocations: vec![Allocation { lot_id, points }],
        created_at: envelope.at,
        closed_at: None,
        pending: true,
    };
    post_hold(state, envelope, ids, hold);
}

/// Settles a claw-back's debt from what has just come in.
pub(super) fn settle_debt(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    lots: &[LotId],
    at: Timestamp,
) {
    let own = state.account_mut(envelope.tenant, member_id);
    let mut allocations = Vec::new();
    let mut settled = 0;
    for lot_id in lots {
        let points = own.lot(*lot_id).remaining.min(own.account.debt - settled);
        if points > 0 {
            let lot = own.lot_mut(*lot_id);
            lot.remaining -= points;
            lot.revoked += points;
            settled += points;
            allocations.push(Allocation { lot_id: *lot_id, points });
        }
    }
    if settled == 0 {
        return;
    }
    own.account.available -= settled;
    own.account.revoked += settled;
    own.account.debt -= settled;
    let note = Note { allocations, ..Note::default() };
    let id = TransactionId(ids.draw());
    let posted = post(state, envelope, id, member_id, at, TransactionType::Clawback, -settled, note);
    record(state, envelope, ids, EventKind::PointsDebtSettled, &posted);
}

/// What comes to a closed account must go to the one it was merged into.
pub(crate) fn refuse_merged(state: &State, envelope: &Envelope, member_id: &MemberId) -> Result<(), Rejection> {
    match &state.account(envelope.tenant, member_id).account.merged_into {
        Some(into) => Err(Rejection::AccountMerged { into: into.clone() }),
        None => Ok(()),
    }
}

/// Points go out: used by the member, or revoked by an operator (DEDUCT_ADMIN).
pub fn debit(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    movement: &Movement,
) -> Decision<Outcome> {
    let debited = debit_points(state, envelope, ids, member_id, movement)?;
    Ok(Outcome::Transaction(Box::new(debited)))
}

/// The same, for a decision of which the debit is a part.
pub(crate) fn debit_points(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    movement: &Movement,
) -> Decision<Transaction> {
    let points = movement.points;
    require_lots(state, envelope, member_id, points)?;
    if movement.kind.is_activity() {
        require_activity(state, envelope, member_id, None)?;
    }
    settle(state, envelope, ids, member_id)?;
    refuse_merged(state, envelope, member_id)?;
    let allocations = allocate(state, envelope, member_id, points)?;
    let own = state.account_mut(envelope.tenant, member_id);
    let revoking = movement.kind == TransactionType::DeductAdmin;
    for part in &allocations {
        let lot = own.lot_mut(part.lot_id);
        lot.remaining -= part.points;
        *(if revoking { &mut lot.revoked } else { &mut lot.used }) += part.points;
    }
    own.account.available -= points;
    *(if revoking { &mut own.account.revoked } else { &mut own.account.used }) += points;
    let note = Note {
        reference: movement.reference.as_deref(),
        remark: movement.remark.as_deref(),
        allocations,
        rules_version: rules_asked(state, envelope, movement.kind),
        ..Note::default()
    };
    let id = TransactionId(ids.draw());
    let posted = post(state, envelope, id, member_id, envelope.at, movement.kind, -points, note);
    record(state, envelope, ids, EventKind::PointsDebited, &posted);
    if movement.kind.is_activity() {
        move_ends(state, envelope, member_id);
    }
    Ok(posted)
}

/// Sets points aside until captured, released or past the deadline.
pub fn hold(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    movement: &Movement,
    expires_at: Option<Timestamp>,
) -> Decision<Outcome> {
    let points = movement.points;
    require_lots(state, envelope, member_id, points)?;
    settle(state, envelope, ids, member_id)?;
    refuse_merged(state, envelope, member_id)?;
    if expires_at.is_some_and(|end| end <= envelope.at) {
        return Err(Rejection::DeadlinePassed { field: "expires_at" }.into());
    }
    let allocations = allocate(state, envelope, member_id, points)?;
    Ok(hold_parts(state, envelope, ids, member_id, movement, expires_at, allocations))
}

/// Sets these parts of lots aside, which can be spent.
pub(super) fn hold_parts(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    movement: &Movement,
    expires_at: Option<Timestamp>,
    allocations: Vec<Allocation>,
) -> Outcome {
    let points = movement.points;
    let hold = Hold {
        id: HoldId(ids.draw()),
        member_id: member_id.clone(),
        points,
        captured: 0,
        released: 0,
        status: HoldStatus::Open,
        reference: movement.reference.clone(),
        remark: movement.remark.clone(),
        expires_at: expires_at.unwrap_or(Timestamp::NEVER),
        by_order: envelope.is_of_order(),
        allocations,
        created_at: envelope.at,
        closed_at: None,
        pending: false,
    };
    let own = state.account_mut(envelope.tenant, member_id);
    for part in &hold.allocations {
        let lot = own.lot_mut(part.lot_id);
        lot.remaining -= part.points;
        lot.held += part.points;
    }
    own.account.available -= points;
    own.account.frozen += points;
    let posted = post_hold(state, envelope, ids, hold.clone());
    held(state, envelope, hold, &posted)
}

/// Adds a new hold with its line. The account and the lots must already show its effect.
fn post_hold(state: &mut State, envelope: &Envelope, ids: &mut Ids, hold: Hold) -> Transaction {
    let note = Note {
        reference: hold.reference.as_deref(),
        remark: hold.remark.as_deref(),
        hold_id: Some(hold.id),
        allocations: hold.allocations.clone(),
        ..Note::default()
    };
    let id = TransactionId(ids.draw());
    let kind = TransactionType::Hold;
    let posted = post(state, envelope, id, &hold.member_id, envelope.at, kind, -hold.points, note);
    record_hold(state, envelope, ids, EventKind::PointsHeld, &hold, envelope.at, 0);
    state.account_mut(envelope.tenant, &hold.member_id.clone()).insert_hold(hold);
    posted
}

/// Uses `points` of an open hold (all of it by default) and releases the rest.
pub fn capture(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    hold_id: HoldId,
    points: Option<i64>,
) -> Decision<Outcome> {
    require_activity(state, envelope, member_id, None)?;
    let mut hold = open_hold(state, envelope, ids, member_id, hold_id)?;
    let points = points.unwrap_or(hold.points);
    if points < 1 || points > hold.points {
        return Err(Rejection::CaptureExceedsHold { held: hold.points }.into());
    }
    let (captured, rest) = split(&hold.allocations, 0, points);
    let own = state.account_mut(envelope.tenant, member_id);
    for part in &captured {
        let lot = own.lot_mut(part.lot_id);
        lot.held -= part.points;
        lot.used += part.points;
    }
    own.account.frozen -= points;
    own.account.used += points;
    hold.captured = points;
    hold.released = hold.points - points;
    hold.status = HoldStatus::Captured;
    hold.closed_at = Some(envelope.at);
    own.save_hold(hold.clone());
    let note = Note {
        reference: hold.reference.as_deref(),
        remark: hold.remark.as_deref(),
        hold_id: Some(hold_id),
        allocations: captured,
        ..Note::default()
    };
    let id = TransactionId(ids.draw());
    let posted = post(state, envelope, id, member_id, envelope.at, TransactionType::UseOrder, -points, note);
    record_hold(state, envelope, ids, EventKind::PointsCaptured, &hold, envelope.at, hold.released);
    move_ends(state, envelope, member_id);
    if !rest.is_empty() {
        give_back(state, envelope, ids, member_id, hold_id, rest, envelope.at);
    }
    Ok(held(state, envelope, hold, &posted))
}

/// Gives back all of an open hold.
pub fn release(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    hold_id: HoldId,
) -> Decision<Outcome> {
    let hold = open_hold(state, envelope, ids, member_id, hold_id)?;
    let (hold, posted) = close(state, envelope, ids, member_id, hold, HoldStatus::Released, envelope.at);
    Ok(held(state, envelope, hold, &posted))
}

/// Writes what time has decided: holds past their deadline are released, lots past their expiry lose what remains.
pub fn settle(state: &mut State, envelope: &Envelope, ids: &mut Ids, member_id: &MemberId) -> Decision<()> {
    require_lots(state, envelope, member_id, 0)?;
    let own = state.account(envelope.tenant, member_id);
    let mut overdue: Vec<Hold> = own.holds().filter(|hold| hold.is_overdue(envelope.at)).cloned().collect();
    overdue.sort_by_key(|hold| (hold.expires_at, hold.id));
    // In the order of time, so that the ledger reads as if each had been written when it was due.
    for hold in overdue {
        let deadline = hold.expires_at;
        let became_available: Vec<LotId> =
            hold.allocations.iter().filter(|_| hold.pending).map(|part| part.lot_id).collect();
        expire_lots(state, envelope, ids, member_id, deadline, Timestamp(i64::MIN));
        close(state, envelope, ids, member_id, hold, HoldStatus::Expired, deadline);
        settle_debt(state, envelope, ids, member_id, &became_available, deadline);
    }
    expire_lots(state, envelope, ids, member_id, envelope.at, Timestamp(i64::MIN));
    Ok(())
}

/// Asks for all of the account's lots unless those at hand show every overdue one and can pay `points`.
///
/// A batch loads the first [`crate::state::LOT_PAGE`] lots of an account, which nearly always suffice. Asking comes
/// before any change, so that the command can be decided again from the start.
pub(crate) fn require_lots(state: &State, envelope: &Envelope, member_id: &MemberId, points: i64) -> Decision<()> {
    let own = state.account(envelope.tenant, member_id);
    let last_is_open = own.lots_without_gap().last().is_some_and(|lot| lot.expires_at > envelope.at);
    if own.lots_complete || (last_is_open && sum_spendable(own.lots_without_gap(), envelope.at) >= points) {
        Ok(())
    } else {
        Err(Interrupt::Need(Need::Lots(member_id.clone())))
    }
}

/// Posts the expiry of every lot due by `until`. Points that a hold had protected, or a refund brought back, expire at that
/// moment (`not_before`), not before.
pub(super) fn expire_lots(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    until: Timestamp,
    not_before: Timestamp,
) {
    let overdue: Vec<(LotId, i64, Timestamp)> = state
        .account(envelope.tenant, member_id)
        .lots()
        .take_while(|lot| lot.expires_at <= until)
        .filter(|lot| lot.remaining > 0)
        .map(|lot| (lot.id, lot.remaining, lot.expires_at))
        .collect();
    for (lot_id, points, expires_at) in overdue {
        let own = state.account_mut(envelope.tenant, member_id);
        let lot = own.lot_mut(lot_id);
        lot.remaining = 0;
        lot.expired += points;
        own.account.available -= points;
        own.account.expired += points;
        let note = Note { allocations: vec![Allocation { lot_id, points }], ..Note::default() };
        let id = TransactionId(ids.draw());
        let at = expires_at.max(not_before);
        let posted = post(state, envelope, id, member_id, at, TransactionType::Expire, -points, note);
        record(state, envelope, ids, EventKind::PointsExpired, &posted);
    }
}

/// The hold, open and not overdue, after settling its account.
fn open_hold(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    hold_id: HoldId,
) -> Decision<Hold> {
    let Some(hold) = state.account(envelope.tenant, member_id).hold(hold_id) else {
        return Err(Rejection::HoldNotFound.into());
    };
    if hold.by_order && !envelope.is_of_order() {
        return Err(Rejection::ManagedByOrder { order_id: hold.reference.clone().unwrap_or_default() }.into());
    }
    settle(state, envelope, ids, member_id)?;
    match state.account(envelope.tenant, member_id).hold(hold_id) {
        None => Err(Rejection::HoldNotFound.into()),
        Some(hold) if hold.status != HoldStatus::Open => Err(Rejection::HoldClosed { status: hold.status }.into()),
        Some(hold) if hold.pending => Err(Rejection::HoldPending { available_from: hold.expires_at }.into()),
        Some(hold) => Ok(hold.clone()),
    }
}

pub(super) fn close(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    mut hold: Hold,
    status: HoldStatus,
    at: Timestamp,
) -> (Hold, Transaction) {
    hold.released = hold.points;
    hold.status = status;
    hold.closed_at = Some(at);
    state.account_mut(envelope.tenant, member_id).save_hold(hold.clone());
    record_hold(state, envelope, ids, EventKind::PointsReleased, &hold, at, hold.points);
    let posted = give_back(state, envelope, ids, member_id, hold.id, hold.allocations.clone(), at);
    (hold, posted)
}

/// Returns held points to their lots; those whose lot has expired meanwhile expire at once.
fn give_back(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    hold_id: HoldId,
    parts: Vec<Allocation>,
    at: Timestamp,
) -> Transaction {
    let own = state.account_mut(envelope.tenant, member_id);
    let mut points = 0;
    for part in &parts {
        let lot = own.lot_mut(part.lot_id);
        lot.held -= part.points;
        lot.remaining += part.points;
        points += part.points;
    }
    own.account.frozen -= points;
    own.account.available += points;
    let note = Note { hold_id: Some(hold_id), allocations: parts, ..Note::default() };
    let id = TransactionId(ids.draw());
    let posted = post(state, envelope, id, member_id, at, TransactionType::Release, points, note);
    expire_lots(state, envelope, ids, member_id, at, at);
    posted
}

/// Chooses the lots that pay `points`, soonest-expiring first, without changing them.
pub(super) fn allocate(
    state: &State,
    envelope: &Envelope,
    member_id: &MemberId,
    points: i64,
) -> Decision<Vec<Allocation>> {
    let own = state.account(envelope.tenant, member_id);
    let mut open = points;
    let mut parts = Vec::new();
    for lot in own.lots().filter(|lot| lot.remaining > 0 && lot.is_spendable_at(envelope.at)) {
        let taken = open.min(lot.remaining);
        parts.push(Allocation { lot_id: lot.id, points: taken });
        open -= taken;
        if open == 0 {
            return Ok(parts);
        }
    }
    Err(Rejection::PointsInsufficient { available: points - open, requested: points }.into())
}

/// What could be spent at `at` of the lots known here.
pub fn spendable(own: &AccountState, at: Timestamp) -> i64 {
    sum_spendable(own.lots(), at)
}

fn sum_spendable<'a>(lots: impl Iterator<Item = &'a Lot>, at: Timestamp) -> i64 {
    lots.filter(|lot| lot.is_spendable_at(at)).map(|lot| lot.remaining).sum()
}

/// Cuts `skip` and then `take` points off the front of the allocations: the taken part, and all that comes after it.
pub(super) fn split(allocations: &[Allocation], skip: i64, take: i64) -> (Vec<Allocation>, Vec<Allocation>) {
    let (mut skip, mut take) = (skip, take);
    let (mut taken, mut rest) = (Vec::new(), Vec::new());
    for part in allocations {
        let skipped = skip.min(part.points);
        skip -= skipped;
        let points = take.min(part.points - skipped);
        take -= points;
        if points > 0 {
            taken.push(Allocation { points, ..*part });
        }
        let left = part.points - skipped - points;
        if left > 0 {
            rest.push(Allocation { points: left, ..*part });
        }
    }
    (taken, rest)
}

/// Appends a transaction to the account's ledger. The account's columns must already show its effect.
#[expect(clippy::too_many_arguments, reason = "a ledger line has that many parts; a struct would only rename them")]
pub(super) fn post(
    state: &mut State,
    envelope: &Envelope,
    id: TransactionId,
    member_id: &MemberId,
    occurred_at: Timestamp,
    kind: TransactionType,
    points: i64,
    note: Note<'_>,
) -> Transaction {
    let account: &mut Account = &mut state.account_mut(envelope.tenant, member_id).account;
    if account.sequence == 0 {
        account.created_at = occurred_at;
    }
    account.sequence += 1;
    account.updated_at = account.updated_at.max(occurred_at);
    let captures_a_hold = note.hold_id.is_some() && kind.is_debit();
    let change = if captures_a_hold { 0 } else { points };
    let transaction = Transaction {
        id,
        member_id: member_id.clone(),
        sequence: account.sequence,
        kind,
        points,
        balance_before: account.available - change,
        balance_after: account.available,
        frozen_after: account.frozen,
        debt_after: account.debt,
        points_forgiven: note.points_forgiven,
        reference: note.reference.map(str::to_owned),
        remark: note.remark.map(str::to_owned),
        hold_id: note.hold_id,
        reverses_id: note.reverses_id,
        counterpart_id: note.counterpart_id,
        lot_id: note.lot_id,
        allocations: note.allocations,
        by_order: envelope.is_of_order() && (kind.is_earn() || kind.is_debit()),
        rules_version: note.rules_version,
        expires_at: note.expires_at,
        occurred_at,
        recorded_at: envelope.now,
        totals: (account.sequence % MILESTONE == 0).then_some(Totals {
            total_points: account.total_points,
            used: account.used,
            expired: account.expired,
            revoked: account.revoked,
        }),
    };
    state.insert_transaction(envelope.tenant, transaction.clone());
    transaction
}

pub(super) fn record(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    kind: EventKind,
    transaction: &Transaction,
) {
    let forgiven = match transaction.points_forgiven {
        0 => String::new(),
        points => format!(",\"points_forgiven\":{points}"),
    };
    let data = format!(
        "{{\"type\":\"{}\",\"points\":{},\"balance_after\":{},\"sequence\":{}{forgiven}}}",
        transaction.kind.as_str(),
        transaction.points,
        transaction.balance_after,
        transaction.sequence
    );
    let member = Some(&transaction.member_id);
    state.record_event(envelope, ids, transaction.occurred_at, kind, transaction.id.0, member, data);
}

/// Records an event of the hold. `returning` points are about to go back to the balance, which the event shows already.
fn record_hold(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    kind: EventKind,
    hold: &Hold,
    at: Timestamp,
    returning: i64,
) {
    let balance_after = state.account(envelope.tenant, &hold.member_id).account.available + returning;
    let data = format!(
        "{{\"status\":\"{}\",\"points\":{},\"captured\":{},\"released\":{},\"balance_after\":{balance_after}}}",
        hold.status.as_str(),
        hold.points,
        hold.captured,
        hold.released
    );
    state.record_event(envelope, ids, at, kind, hold.id.0, Some(&hold.member_id), data);
}

/// The answer to a hold's commands. What is available now may differ from the transaction's balance: a part may have been
/// given back after it, and some of that may have expired at once.
fn held(state: &State, envelope: &Envelope, hold: Hold, transaction: &Transaction) -> Outcome {
    let available = state.account(envelope.tenant, &hold.member_id).account.available;
    Outcome::Hold { available, transaction_id: transaction.id, hold: Box::new(hold) }
}
