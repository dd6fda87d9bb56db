//! Check-ins: once a local day, more for a streak.
//!
//! The day is an argument: a domain without time zones cannot know it. The account's lock guards the member's check-ins, and
//! a primary key of member and day is the second wall; so of two at once one counts, and the other gets its answer.
//!
//! A streak is kept on each row: one more than yesterday's, or 1. So neither a check-in nor "how many days in a row" counts
//! back over the rows. The price is that days come in order: a day before the latest one is refused.

use serde::{Deserialize, Serialize};

use crate::command::{Envelope, Movement};
use crate::decide::{Interrupt, Outcome};
use crate::event::EventKind;
use crate::id::{Ids, MemberId, TransactionId};
use crate::points::{Spendable, TransactionType, grant_points};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::{Calendar, Day, Timestamp};

/// A member's check-in of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn {
    /// The grant.
    #[serde(rename = "t")]
    pub transaction_id: TransactionId,
    #[serde(rename = "m")]
    pub member_id: MemberId,
    #[serde(rename = "d")]
    pub day: Day,
    /// Days in a row, this one included.
    #[serde(rename = "s")]
    pub streak: i64,
    /// All that was granted, the bonus included.
    #[serde(rename = "p")]
    pub points: i64,
    /// Of `points`, what the streak added.
    #[serde(rename = "b")]
    pub bonus: i64,
    #[serde(rename = "at")]
    pub checked_in_at: Timestamp,
}

/// Grants the day's points, once. Again on the same day, it gives the first one.
pub fn check_in(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    day: Day,
    calendar: &Calendar,
) -> Result<Outcome, Interrupt> {
    let latest = state.latest_check_in(envelope.tenant, member_id);
    if let Some(first) = latest.filter(|latest| latest.day == day) {
        return Ok(Outcome::CheckIn { check_in: Box::new(first.clone()), again: true });
    }
    let rules = state.rules_at(envelope.tenant, envelope.at);
    let rule = &rules.points;
    if !rule.enabled || !rule.check_in.enabled {
        return Err(Rejection::CheckInDisabled.into());
    }
    if let Some(latest) = latest.filter(|latest| latest.day > day) {
        return Err(Rejection::CheckInOutOfOrder { latest: latest.day }.into());
    }
    let streak = match latest {
        Some(latest) if latest.day.0 + 1 == day.0 => latest.streak + 1,
        _ => 1,
    };
    let bonuses = rule.check_in.streak_bonuses.iter().filter(|bonus| i64::from(bonus.days) == streak);
    let bonus: i64 = bonuses.map(|bonus| bonus.points).sum();
    let points = rule.check_in.points + bonus;
    let expires_at = rule.validity.expires_at(envelope.at, calendar);
    let movement =
        Movement { points, kind: TransactionType::EarnCheckin, reference: Some(day.to_string()), remark: None };
    let granted =
        grant_points(state, envelope, ids, member_id, &movement, Spendable { available_from: None, expires_at })?;
    let check_in = CheckIn {
        transaction_id: granted.id,
        member_id: member_id.clone(),
        day,
        streak,
        points,
        bonus,
        checked_in_at: envelope.at,
    };
    state.insert_check_in(envelope.tenant, check_in.clone());
    let data = format!("{{\"day\":\"{day}\",\"streak\":{streak},\"points\":{points},\"bonus\":{bonus}}}");
    let kind = EventKind::CheckedIn;
    state.record_event(envelope, ids, envelope.at, kind, granted.id.0, Some(member_id), data);
    Ok(Outcome::CheckIn { check_in: Box::new(check_in), again: false })
}
