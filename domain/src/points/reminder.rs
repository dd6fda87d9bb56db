//! Reminders of points that expire soon, told as events: once for each lot and number of days before.
//!
//! A tenant has a cursor for each number of days: lots up to it, in the order of expiry, were told. The command that moves it on
//! names the lots concerned, and is refused unless it starts where the cursor stands; so of two nodes only one tells. What a lot
//! has left is read under its account's lock, and a lot that has nothing left by then is passed over.
//!
//! Deliberately absent: a reminder of a lot that is made when fewer days are left, by a grant, a transfer or a merge. What made it
//! tells when it expires.

use crate::command::Envelope;
use crate::decide::{Interrupt, Need, Outcome};
use crate::event::EventKind;
use crate::id::{Ids, LotId, MemberId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// The most days before, and how many numbers of them a rule may have.
pub const MAX_REMINDER_DAYS: u32 = 365;
pub const MAX_REMINDERS: usize = 5;

/// A place in the order of expiry.
pub type ExpiryPlace = (Timestamp, LotId);

/// The lots after `from` and up to `until` that a command tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReminderPage {
    /// 1 to [`MAX_REMINDER_DAYS`].
    pub days_before: u32,
    pub from: ExpiryPlace,
    pub until: ExpiryPlace,
    pub lots: Vec<(MemberId, LotId)>,
}

/// Tells of the page's lots, in the order of expiry, and moves the cursor.
pub fn remind(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    page: &ReminderPage,
) -> Result<Outcome, Interrupt> {
    let (tenant, ReminderPage { days_before, from, until, .. }) = (envelope.tenant, page);
    if state.reminded(tenant, *days_before).unwrap_or(*from) != *from || until <= from {
        return Err(Rejection::RemindersTold.into());
    }
    let mut told = Vec::new();
    for (member_id, lot_id) in &page.lots {
        let own = state.account(tenant, member_id);
        match own.lots().find(|lot| lot.id == *lot_id) {
            None if !own.lots_complete => return Err(Interrupt::Need(Need::Lots(member_id.clone()))),
            Some(lot) if lot.remaining > 0 && lot.expires_at > envelope.at => {
                let place = (lot.expires_at, lot.id);
                if *from < place && place <= *until {
                    told.push((place, member_id, lot.remaining));
                }
            }
            _ => {}
        }
    }
    told.sort();
    told.dedup();
    for ((expires_at, lot_id), member_id, points) in &told {
        let data =
            format!("{{\"days_before\":{days_before},\"expires_at_unix_us\":{},\"points\":{points}}}", expires_at.0);
        state.record_event(envelope, ids, envelope.at, EventKind::PointsExpiring, lot_id.0, Some(member_id), data);
    }
    state.set_reminded(tenant, *days_before, *until);
    Ok(Outcome::Announced(told.len() as u64))
}
