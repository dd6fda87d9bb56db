//! Points that expire by inactivity: they live to the end of the tenant's local day that comes so many days after the member's
//! last activity, which is to earn by an order, a check-in or a task, or to spend. What operators, transfers, merges and
//! refunds do to an account is no activity of its member.
//!
//! A lot of such points ([`Lot::idle_days`]) has an end like any other, and that alone says whether it can be spent; an activity
//! moves the end, always to later. A lot that has ended by the account's latest line stays ended, whatever is told late. So
//! the balance at a time before an activity is the same with and without it: the lot was alive then either way.
//!
//! Ends are ends of days, so a day's first activity moves them and the others find them moved. The account keeps until when
//! that is so ([`Account::idle_moved_until`]); until then, and always when it has no such lots, an activity loads and writes
//! nothing more than without. Whatever brings such a lot in, or back, makes the next activity look again.

use super::ledger::Decision;
use super::{Account, Lot, PointsValidity, Spendable, TransactionType};
use crate::command::Envelope;
use crate::decide::{Interrupt, Need};
use crate::id::{LotId, MemberId};
use crate::state::State;
use crate::time::{Calendar, DayEnd, Timestamp};

impl TransactionType {
    /// A line by which the member shows to be active.
    pub fn is_activity(self) -> bool {
        (self.is_earn() || self.is_debit()) && !self.is_administrative()
    }
}

impl Account {
    /// Makes the next activity look at the account's idle lots, whatever its day.
    pub(super) fn look_again_at_idle_lots(&mut self) {
        self.idle_moved_until = Some(Timestamp(i64::MIN));
    }

    /// Notes a new idle lot whose end is right for a day that ends at `day_ends_at`.
    pub(super) fn add_idle_lot(&mut self, day_ends_at: Timestamp) {
        match self.idle_moved_until {
            None => self.idle_moved_until = Some(day_ends_at),
            // Told late: it has not seen the activities of later days, so the next one must move it.
            Some(until) if until > day_ends_at => self.look_again_at_idle_lots(),
            Some(_) => {}
        }
    }
}

/// How long points live that are earned now.
///
/// # Errors
/// [`Need::DayEnd`], before anything has changed.
pub(crate) fn life(
    state: &State,
    envelope: &Envelope,
    validity: PointsValidity,
    calendar: &Calendar,
) -> Decision<Spendable> {
    let idle_end = |days| day_end(state, envelope, days).map(|end| end.ends_at);
    let expires_at = validity.expires_at(envelope.at, calendar, idle_end)?;
    Ok(Spendable { available_from: None, expires_at, idle_days: validity.idle_days() })
}

fn day_end(state: &State, envelope: &Envelope, days: u32) -> Decision<DayEnd> {
    let found = state.day_end(envelope.tenant, days, envelope.at);
    found.ok_or(Interrupt::Need(Need::DayEnd { at: envelope.at, days }))
}

/// Asks for what moving ends takes: all of the account's lots, and where the days end. `idle_days` are those of the lot that the
/// activity is about to make, if any.
///
/// # Errors
/// A [`Need`], so this must come before the command has changed anything.
pub(crate) fn require_activity(
    state: &State,
    envelope: &Envelope,
    member_id: &MemberId,
    idle_days: Option<u32>,
) -> Decision<()> {
    let made = idle_days.map(|days| day_end(state, envelope, days)).transpose()?;
    let own = state.account(envelope.tenant, member_id);
    let Some(moved_until) = own.account.idle_moved_until else { return Ok(()) };
    let is_late = made.is_some_and(|made| moved_until > made.day.ends_at);
    if moved_until > envelope.at && !is_late {
        return Ok(());
    }
    if !own.lots_complete {
        return Err(Interrupt::Need(Need::Lots(member_id.clone())));
    }
    for lot in own.lots().filter(|lot| lot.is_open() && lot.expires_at > envelope.at) {
        lot.idle_days.map(|days| day_end(state, envelope, days)).transpose()?;
    }
    Ok(())
}

/// Moves the ends of the account's idle lots after an activity, unless one of this day has. Its line must have been posted,
/// and [`require_activity`] asked.
pub(super) fn move_ends(state: &mut State, envelope: &Envelope, member_id: &MemberId) {
    let own = state.account(envelope.tenant, member_id);
    let account = &own.account;
    if account.idle_moved_until.is_none_or(|until| until > envelope.at) {
        return;
    }
    let is_alive = |lot: &&Lot| lot.is_open() && lot.expires_at > account.updated_at;
    let alive = own.lots().filter(is_alive).filter_map(|lot| Some((lot.id, lot.expires_at, lot.idle_days?)));
    let ends = alive.map(|(id, expires_at, days)| {
        let found = state.day_end(envelope.tenant, days, envelope.at);
        (id, expires_at, found.expect("asked for before anything changed"))
    });
    let ends: Vec<(LotId, Timestamp, DayEnd)> = ends.collect();
    let own = state.account_mut(envelope.tenant, member_id);
    own.account.idle_moved_until = ends.first().map(|(_, _, end)| end.day.ends_at);
    for (lot_id, expires_at, end) in ends {
        if end.ends_at > expires_at {
            own.move_end(lot_id, end.ends_at);
        }
    }
}
