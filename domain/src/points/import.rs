//! An account taken over from another system: what happened to it there, step by step, as if it had happened here.
//!
//! Each step is the grant, the debit or the hold it was, at its own time, decided by the same code as any other. So ledger,
//! lots, holds and events of an imported account hold all that the rest of this module promises, and what ended by time in
//! between is written where it belongs.
//!
//! *Reconciled or not at all.* [`rehearse`] decides the steps on an account of their own. An importer shows by it what they
//! come to and compares that with the other system; [`import`] rehearses once more and refuses, before anything is written,
//! unless the account comes to the columns that the importer has seen.
//!
//! Only an account without a line is taken over: run again, an import changes nothing. What bounds it:
//! [`MAX_IMPORTED_STEPS`].

use serde::{Deserialize, Serialize};

use super::ledger::{Decision, capture, debit, grant, hold, hold_parts, refuse_merged, release, settle};
use super::reversal::{Terms, owe, reverse_with};
use super::{Account, Allocation, DebtPolicy, MAX_POINTS, Spendable};
use crate::command::{Command, Envelope, Movement};
use crate::decide::{Interrupt, Outcome};
use crate::id::{HoldId, Ids, LotId, MemberId, TransactionId};
use crate::key::Keys;
use crate::rejection::Rejection;
use crate::state::{AccountState, State};
use crate::time::Timestamp;

/// The most steps of one account.
pub const MAX_IMPORTED_STEPS: usize = 20_000;

/// An account of another system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedAccount {
    pub member_id: MemberId,
    /// In the order of time; 1 to [`MAX_IMPORTED_STEPS`].
    pub steps: Vec<ImportedStep>,
    /// What they come to at the time the import takes effect.
    pub expected: Columns,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedStep {
    pub at: Timestamp,
    pub action: ImportedAction,
}

/// What happened. A number names the step, counted from 0, that it goes back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportedAction {
    Grant {
        movement: Movement,
        expires_at: Option<Timestamp>,
    },
    Debit {
        movement: Movement,
    },
    /// Held of one grant, or in spending order; without a deadline.
    Hold {
        movement: Movement,
        of_grant: Option<usize>,
    },
    Release {
        hold: usize,
    },
    /// All of a hold.
    Capture {
        hold: usize,
    },
    /// Points of a debit go back to the lots they came from; what of them has expired meanwhile expires at once.
    Refund {
        debit: usize,
        points: i64,
        remark: Option<String>,
    },
    /// Points of a grant that should have been taken back and were not there: the member owes them.
    Owe {
        grant: usize,
        points: i64,
        remark: Option<String>,
    },
}

/// The columns of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    pub total_points: i64,
    pub available: i64,
    pub frozen: i64,
    pub used: i64,
    pub expired: i64,
    pub revoked: i64,
}

impl From<&Account> for Columns {
    fn from(account: &Account) -> Columns {
        let Account { total_points, available, frozen, used, expired, revoked, .. } = *account;
        Columns { total_points, available, frozen, used, expired, revoked }
    }
}

/// What an import has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The line of each step.
    pub lines: Vec<TransactionId>,
    pub member_id: MemberId,
    pub columns: Columns,
    /// The holds, in the order of the steps that made them.
    pub holds: Vec<HoldId>,
}

/// What the steps would come to.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    pub account: AccountState,
    pub made: Imported,
}

/// Takes an account over.
pub fn import(state: &mut State, envelope: &Envelope, ids: &mut Ids, imported: &ImportedAccount) -> Decision<Outcome> {
    let member_id = &imported.member_id;
    if state.account(envelope.tenant, member_id).account.sequence > 0 {
        return Err(Rejection::AccountExists.into());
    }
    refuse_merged(state, envelope, member_id)?;
    match rehearse(envelope, imported) {
        Err((_, rejection)) => return Err(rejection.into()),
        Ok(rehearsal) if rehearsal.made.columns != imported.expected => {
            return Err(Rejection::ImportUnreconciled.into());
        }
        Ok(_) => {}
    }
    let made = replay(state, envelope, ids, imported).map_err(|(_, interrupt)| interrupt)?;
    Ok(Outcome::Imported(Box::new(made)))
}

/// Decides the steps on an account of their own, with nothing else at hand.
///
/// # Errors
/// The place of the first step that is refused, and why.
pub fn rehearse(envelope: &Envelope, imported: &ImportedAccount) -> Result<Rehearsal, (usize, Rejection)> {
    let mut keys = Keys::default();
    keys.accounts.insert((envelope.tenant, imported.member_id.clone()));
    let mut alone = State::empty(&keys);
    let replayed = replay(&mut alone, envelope, &mut Ids::new(envelope.seed), imported);
    let made = replayed.map_err(|(place, interrupt)| match interrupt {
        Interrupt::Refused(rejection) => (place, rejection),
        Interrupt::Need(_) => (place, Rejection::ImportUnreconciled),
    })?;
    Ok(Rehearsal { account: alone.account(envelope.tenant, &imported.member_id).clone(), made })
}

fn replay(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    imported: &ImportedAccount,
) -> Result<Imported, (usize, Interrupt)> {
    let ImportedAccount { member_id, steps, .. } = imported;
    let mut then = Envelope {
        tenant: envelope.tenant,
        actor: envelope.actor,
        command: Command::SettleAccount(member_id.clone()),
        idempotency: None,
        at: envelope.at,
        now: envelope.now,
        seed: envelope.seed,
    };
    let refused = |place: usize, rejection: Rejection| (place, Interrupt::Refused(rejection));
    if steps.is_empty() || steps.len() > MAX_IMPORTED_STEPS {
        return Err(refused(0, Rejection::ImportUnreconciled));
    }
    let mut made = Made::default();
    let mut earliest = Timestamp(i64::MIN);
    for (place, step) in steps.iter().enumerate() {
        if step.at < earliest || step.at > envelope.at {
            return Err(refused(place, Rejection::ImportUnreconciled));
        }
        earliest = step.at;
        then.at = step.at;
        made.decide(state, &then, ids, member_id, &step.action).map_err(|interrupt| (place, interrupt))?;
    }
    then.at = envelope.at;
    settle(state, &then, ids, member_id).map_err(|interrupt| (steps.len() - 1, interrupt))?;
    let columns = Columns::from(&state.account(envelope.tenant, member_id).account);
    let holds = made.holds.into_iter().flatten().collect();
    Ok(Imported { member_id: member_id.clone(), columns, lines: made.lines, holds })
}

/// The steps so far: the line of each, and the hold of those that made one.
#[derive(Default)]
struct Made {
    lines: Vec<TransactionId>,
    holds: Vec<Option<HoldId>>,
}

impl Made {
    fn decide(
        &mut self,
        state: &mut State,
        then: &Envelope,
        ids: &mut Ids,
        member_id: &MemberId,
        action: &ImportedAction,
    ) -> Decision<()> {
        let outcome = match action {
            ImportedAction::Grant { movement, expires_at } => {
                check(movement, movement.kind.is_earn())?;
                let spendable = Spendable { expires_at: *expires_at, ..Spendable::default() };
                grant(state, then, ids, member_id, movement, spendable)?
            }
            ImportedAction::Debit { movement } => {
                check(movement, movement.kind.is_debit())?;
                debit(state, then, ids, member_id, movement)?
            }
            ImportedAction::Hold { movement, of_grant } => {
                check(movement, true)?;
                match of_grant {
                    None => hold(state, then, ids, member_id, movement, None)?,
                    Some(place) => {
                        settle(state, then, ids, member_id)?;
                        let parts = self.part_of(state, then, member_id, *place, movement.points)?;
                        hold_parts(state, then, ids, member_id, movement, None, vec![parts])
                    }
                }
            }
            ImportedAction::Release { hold } => release(state, then, ids, member_id, self.hold_of(*hold)?)?,
            ImportedAction::Capture { hold } => capture(state, then, ids, member_id, self.hold_of(*hold)?, None)?,
            ImportedAction::Refund { debit, points, remark } => {
                let id = self.lines.get(*debit).copied().ok_or(Rejection::TransactionNotFound)?;
                let is_debit = state.original(then.tenant, id).is_some_and(|(line, _)| line.kind.is_debit());
                if !is_debit {
                    return Err(Rejection::NotReversible.into());
                }
                let terms = Terms { grace_days: 0, debt_policy: DebtPolicy::Owe, rules_version: None };
                reverse_with(state, then, ids, member_id, id, Some(*points), remark.as_deref(), terms)?
            }
            ImportedAction::Owe { grant, points, remark } => {
                let id = self.lines.get(*grant).copied().ok_or(Rejection::TransactionNotFound)?;
                owe(state, then, ids, member_id, id, *points, remark.as_deref())?
            }
        };
        match outcome {
            Outcome::Hold { hold, transaction_id, .. } => {
                self.lines.push(transaction_id);
                self.holds.push(matches!(action, ImportedAction::Hold { .. }).then_some(hold.id));
            }
            Outcome::Transaction(line) => {
                self.lines.push(line.id);
                self.holds.push(None);
            }
            _ => return Err(Rejection::ImportUnreconciled.into()),
        }
        Ok(())
    }

    fn hold_of(&self, place: usize) -> Result<HoldId, Rejection> {
        self.holds.get(place).copied().flatten().ok_or(Rejection::HoldNotFound)
    }

    /// So many points of the lot that the grant at `place` made.
    fn part_of(
        &self,
        state: &State,
        then: &Envelope,
        member_id: &MemberId,
        place: usize,
        points: i64,
    ) -> Result<Allocation, Rejection> {
        let lot_id = self.lines.get(place).map(|line| LotId(line.0));
        let own = state.account(then.tenant, member_id);
        let lot = own.lots().find(|lot| Some(lot.id) == lot_id && lot.is_spendable_at(then.at));
        let available = lot.map_or(0, |lot| lot.remaining);
        match lot {
            Some(lot) if points <= available => Ok(Allocation { lot_id: lot.id, points }),
            _ => Err(Rejection::PointsInsufficient { available, requested: points }),
        }
    }
}

fn check(movement: &Movement, kind_fits: bool) -> Result<(), Rejection> {
    if kind_fits && (1..=MAX_POINTS).contains(&movement.points) { Ok(()) } else { Err(Rejection::ImportUnreconciled) }
}
