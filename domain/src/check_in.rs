//! Check-ins: once a local day, more for a streak; a missed day may be made up.
//!
//! The day is an argument: a domain without time zones cannot know it. The account's lock guards the member's check-ins, and
//! a primary key of member and day is the second wall; so of two at once one counts, and the other gets its answer.
//!
//! A streak is kept on each row: one more than yesterday's, or 1. So neither a check-in nor "how many days in a row" counts
//! back over the rows. The price is that days come in order: a day before the latest one is refused, unless it is made up.
//!
//! A day that is made up joins the run of days before it with the run behind it, whose streaks are written anew. Both lie
//! within [`MAX_MAKE_UP_DAYS`] of the day of the command, so at most as many rows change, and the latest
//! [`CHECK_INS_AT_HAND`] rows hold all that the decision looks at. The day earns what a check-in earns, and the bonuses that
//! only the joined run is long enough for: so every run of days has had each bonus up to its length, none is given twice for
//! one day's joining, and none is taken back.

use serde::{Deserialize, Serialize};

use crate::command::{Envelope, Movement};
use crate::decide::{Interrupt, Outcome};
use crate::event::EventKind;
use crate::id::{Ids, MemberId, TransactionId};
use crate::points::{self, Spendable, StreakBonus, TransactionType, check_room, debit_points, grant_points};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::{Calendar, Day, Timestamp};

/// How many days back a missed day can be made up at most, whatever the rules say.
pub const MAX_MAKE_UP_DAYS: u32 = 31;
/// How many of the latest check-ins making a day up looks at: the day, the one before it, and the month it is in.
pub const CHECK_INS_AT_HAND: i64 = 2 * MAX_MAKE_UP_DAYS as i64 + 1;

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
    /// Whether the day was missed, and made up on a later one.
    #[serde(rename = "u", skip_serializing_if = "std::ops::Not::not", default)]
    pub made_up: bool,
    /// The debit of what making it up cost, if anything.
    #[serde(rename = "x", skip_serializing_if = "Option::is_none", default)]
    pub price_transaction_id: Option<TransactionId>,
}

/// Grants the day's points, once. Again on the same day, it gives the first one.
pub fn check_in(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    calendar: &Calendar,
) -> Result<Outcome, Interrupt> {
    let day = calendar.day;
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
    let bonus = bonuses(&rule.check_in, streak..=streak);
    let (points, life) = (rule.check_in.points + bonus, points::life(state, envelope, rule.validity, calendar)?);
    let granted = grant(state, envelope, ids, member_id, day, points, life)?;
    let check_in = CheckIn {
        transaction_id: granted,
        member_id: member_id.clone(),
        day,
        streak,
        points,
        bonus,
        checked_in_at: envelope.at,
        made_up: false,
        price_transaction_id: None,
    };
    Ok(save(state, envelope, ids, check_in, 0))
}

/// Makes up a day that was missed: takes its price, grants its points, and joins the days before it with those behind.
/// A day that is there already gives what it was given.
///
/// # Errors
/// A rejection, or what is not at hand; nothing is changed then but what time had decided.
pub fn make_up(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    missed: Day,
    calendar: &Calendar,
) -> Result<Outcome, Interrupt> {
    let (tenant, today) = (envelope.tenant, calendar.day);
    if missed >= today {
        return Err(Rejection::CheckInDayNotPast { today }.into());
    }
    // What is at hand are the latest rows: whoever acts as of a day before them sees too little.
    if let Some(latest) = state.latest_check_in(tenant, member_id).filter(|latest| latest.day > today) {
        return Err(Rejection::CheckInOutOfOrder { latest: latest.day }.into());
    }
    let reach = |days: u32| Day(today.0 - i64::from(days));
    if missed >= reach(MAX_MAKE_UP_DAYS)
        && let Some(first) = state.check_in(tenant, member_id, missed)
    {
        return Ok(Outcome::CheckIn { check_in: Box::new(first.clone()), again: true });
    }
    let rules = state.rules_at(tenant, envelope.at);
    let rule = &rules.points.check_in;
    if !rules.points.enabled || !rule.enabled {
        return Err(Rejection::CheckInDisabled.into());
    }
    if rule.make_up_days == 0 {
        return Err(Rejection::MakeUpDisabled.into());
    }
    let earliest = reach(rule.make_up_days.min(MAX_MAKE_UP_DAYS));
    if missed < earliest {
        return Err(Rejection::MakeUpTooLate { earliest }.into());
    }
    if let Some(limit) = rule.make_ups_per_month {
        let (month, next) = (missed.month_start(), missed.next_month_start());
        let made_up = state.check_ins(tenant, member_id, month..next).filter(|row| row.made_up).count();
        if made_up >= limit as usize {
            return Err(Rejection::MakeUpLimitReached { limit: limit.into() }.into());
        }
    }
    let before = state.check_in(tenant, member_id, Day(missed.0 - 1)).map_or(0, |row| row.streak);
    let behind = state.check_ins(tenant, member_id, Day(missed.0 + 1)..Day(today.0 + 1));
    let behind: Vec<CheckIn> =
        behind.zip(missed.0 + 1..).take_while(|(row, day)| row.day.0 == *day).map(|(row, _)| row.clone()).collect();
    let (streak, length) = (before + 1, before + 1 + behind.len() as i64);
    let bonus = bonuses(rule, before.max(behind.len() as i64) + 1..=length);
    let points = rule.points + bonus;
    check_room(state, tenant, member_id, points)?;
    // What the grant needs is asked for before the price changes anything.
    let life = points::life(state, envelope, rules.points.validity, calendar)?;
    points::require_activity(state, envelope, member_id, life.idle_days)?;
    let price = rule.make_up_price;
    let price_transaction_id = if price > 0 {
        let reference = Some(missed.to_string());
        let movement = Movement { points: price, kind: TransactionType::UseProduct, reference, remark: None };
        Some(debit_points(state, envelope, ids, member_id, &movement)?.id)
    } else {
        None
    };
    let granted = grant(state, envelope, ids, member_id, missed, points, life)?;
    for row in behind {
        state.save_check_in(tenant, CheckIn { streak: row.streak + streak, ..row });
    }
    let check_in = CheckIn {
        transaction_id: granted,
        member_id: member_id.clone(),
        day: missed,
        streak,
        points,
        bonus,
        checked_in_at: envelope.at,
        made_up: true,
        price_transaction_id,
    };
    Ok(save(state, envelope, ids, check_in, price))
}

/// What the ladder gives for reaching these lengths.
fn bonuses(rule: &points::CheckIn, lengths: std::ops::RangeInclusive<i64>) -> i64 {
    let reached = |bonus: &&StreakBonus| lengths.contains(&i64::from(bonus.days));
    rule.streak_bonuses.iter().filter(reached).map(|bonus| bonus.points).sum()
}

fn grant(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    day: Day,
    points: i64,
    life: Spendable,
) -> Result<TransactionId, Interrupt> {
    let movement =
        Movement { points, kind: TransactionType::EarnCheckin, reference: Some(day.to_string()), remark: None };
    Ok(grant_points(state, envelope, ids, member_id, &movement, life)?.id)
}

fn save(state: &mut State, envelope: &Envelope, ids: &mut Ids, check_in: CheckIn, price: i64) -> Outcome {
    state.insert_check_in(envelope.tenant, check_in.clone());
    let CheckIn { day, streak, points, bonus, made_up, .. } = &check_in;
    let data = format!(
        "{{\"day\":\"{day}\",\"streak\":{streak},\"points\":{points},\"bonus\":{bonus},\"made_up\":{made_up},\"price\":{price}}}"
    );
    let (kind, subject) = (EventKind::CheckedIn, check_in.transaction_id.0);
    state.record_event(envelope, ids, envelope.at, kind, subject, Some(&check_in.member_id), data);
    Outcome::CheckIn { check_in: Box::new(check_in), again: false }
}
