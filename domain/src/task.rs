//! Points tasks: what a shop rewards beside orders, so many times in a period, once for each report.
//!
//! A task is done by reports, from the shop's backend or from an event of the log; a member cannot report itself. Each
//! report has an id of the caller's and counts once, whatever is sent twice or at once: the account's lock guards the
//! member's reports and its progress, and their primary keys are the second wall. The report that reaches the target grants
//! the points, in the same transaction.
//!
//! Progress starts anew with each period. A late report, of a period before the one already begun, counts in that one: so a
//! limit holds whatever order reports come in.
//!
//! When an account is merged into another, the member goes on from where both were: what either completed counts against
//! every limit, and for the tasks that require it. The closed account keeps its own counts, as the record of what was carried.
//!
//! A task may require others: a member reports it only when each of them was completed by that member, at least once, in
//! whatever period. A required task that was deleted lapses, since nobody could complete it any more. What is required is
//! looked up when a report gets that far ([`Need::Prerequisites`]), for all reports of the batch at once; a report sees what
//! those before it in the batch have completed, and the account's lock guards the rest.
//!
//! No task requires itself, through however many others. Only an edit could bring that about, as a new task is required by
//! none; so an edit that names tasks to require locks the tenant's prerequisites ([`crate::key::Keys::locked_tenants`]) and
//! walks over what lies behind them, level by level ([`Need::Tasks`]), at most [`MAX_WALK`] tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{Envelope, Movement};
use crate::decide::{Interrupt, Need, Outcome};
use crate::event::EventKind;
use crate::id::{CompletionId, Ids, MemberId, TaskId, TaskKey, TenantId, TransactionId};
use crate::points::{self, TransactionType, grant_points, refuse_merged};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::{Calendar, Day, Timestamp, Window};

/// How many tasks one may require at most.
pub const MAX_REQUIRED: usize = 10;
/// How many tasks a task may require at most, counting what those require, and so on.
pub const MAX_WALK: usize = 100;

/// How often a task may be done anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Period {
    Once,
    Day,
    /// From Monday.
    Week,
    Month,
}

impl Period {
    pub const ALL: [Period; 4] = [Period::Once, Period::Day, Period::Week, Period::Month];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Period::Once => "ONCE",
            Period::Day => "DAY",
            Period::Week => "WEEK",
            Period::Month => "MONTH",
        }
    }

    pub fn parse(text: &str) -> Option<Period> {
        Period::ALL.into_iter().find(|period| period.as_str() == text)
    }

    /// The first day of the period with this day; all days share that of `Once`.
    pub fn start(self, day: Day) -> Day {
        match self {
            Period::Once => Day(0),
            Period::Day => day,
            Period::Week => day.week_start(),
            Period::Month => day.month_start(),
        }
    }
}

/// What an operator authors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    pub name: String,
    pub description: String,
    /// Granted for each completion; at least 1.
    pub points: i64,
    pub period: Period,
    /// Completions of a member in one period, at most.
    pub limit_per_period: i64,
    /// Completions of a member in all, at most.
    pub total_limit: Option<i64>,
    /// How many reports make a completion.
    pub target: i64,
    /// The kind of event that reports the task for its member.
    pub event_type: Option<String>,
    pub window: Window,
    /// What a member must have completed before: at most [`MAX_REQUIRED`], each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<TaskKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    #[serde(rename = "i")]
    pub id: TaskId,
    pub key: TaskKey,
    /// Grows with every edit.
    pub version: i64,
    pub enabled: bool,
    pub definition: Arc<Definition>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Its key stays taken.
    pub deleted_at: Option<Timestamp>,
}

/// An operator's edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPatch {
    pub expected_version: i64,
    pub enabled: bool,
    pub definition: Definition,
}

/// How far a member is with a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub member_id: MemberId,
    pub task_key: TaskKey,
    /// The first day of the period that the counts are of.
    pub period_start: Day,
    /// Reports towards the next completion.
    pub steps: i64,
    /// Completions in the period.
    pub completions: i64,
    /// Completions in all.
    pub total_completions: i64,
    /// What of these counts no report of the member's has made.
    pub carried: Carried,
    pub updated_at: Timestamp,
}

/// What came with accounts that were merged into the member's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    pub steps: i64,
    pub completions: i64,
    pub total_completions: i64,
}

impl Progress {
    fn none(member_id: &MemberId, task_key: &TaskKey) -> Progress {
        Progress {
            member_id: member_id.clone(),
            task_key: task_key.clone(),
            period_start: Day(i64::MIN),
            steps: 0,
            completions: 0,
            total_completions: 0,
            carried: Carried::default(),
            updated_at: Timestamp(0),
        }
    }

    /// As it stands in the period that begins with `start`.
    pub fn in_period(self, start: Day) -> Progress {
        if start > self.period_start {
            let carried = Carried { steps: 0, completions: 0, ..self.carried };
            Progress { period_start: start, steps: 0, completions: 0, carried, ..self }
        } else {
            self
        }
    }

    /// Together with that of a member whose account is merged into this one's: completions add up, so that two accounts have no
    /// limit each; of the steps towards the next, those of whoever is further count.
    fn joined(self, other: Progress, at: Timestamp) -> Progress {
        let period_start = self.period_start.max(other.period_start);
        let (own, other) = (self.in_period(period_start), other.in_period(period_start));
        let steps = own.steps.max(other.steps);
        Progress {
            steps,
            completions: own.completions + other.completions,
            total_completions: own.total_completions + other.total_completions,
            carried: Carried {
                steps: own.carried.steps + steps - own.steps,
                completions: own.carried.completions + other.completions,
                total_completions: own.carried.total_completions + other.total_completions,
            },
            updated_at: at,
            ..own
        }
    }
}

/// One step of a task, or the last one, which completes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The grant, when it completed the task.
    #[serde(rename = "t")]
    pub transaction_id: Option<TransactionId>,
    #[serde(rename = "m")]
    pub member_id: MemberId,
    #[serde(rename = "k")]
    pub task_key: TaskKey,
    #[serde(rename = "c")]
    pub completion_id: CompletionId,
    #[serde(rename = "d")]
    pub period_start: Day,
    /// Which of `target` steps it was.
    #[serde(rename = "s")]
    pub step: i64,
    #[serde(rename = "g")]
    pub target: i64,
    /// Granted; 0 unless it completed the task.
    #[serde(rename = "p")]
    pub points: i64,
    #[serde(rename = "at")]
    pub reported_at: Timestamp,
}

pub fn create(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    key: &TaskKey,
    definition: &Definition,
) -> Result<Outcome, Interrupt> {
    if state.task(envelope.tenant, key).is_some() {
        return Err(Rejection::TaskExists.into());
    }
    check_required(state, envelope.tenant, key, &definition.requires)?;
    let task = Task {
        id: TaskId(ids.draw()),
        key: key.clone(),
        version: 1,
        enabled: true,
        definition: Arc::new(definition.clone()),
        created_at: envelope.at,
        updated_at: envelope.at,
        deleted_at: None,
    };
    Ok(save(state, envelope, ids, EventKind::TaskCreated, task))
}

pub fn update(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    key: &TaskKey,
    patch: &TaskPatch,
) -> Result<Outcome, Interrupt> {
    let task = known(state, envelope, key)?;
    if task.version != patch.expected_version {
        return Err(Rejection::TaskVersionStale { current: task.version }.into());
    }
    if task.enabled == patch.enabled && *task.definition == patch.definition {
        return Ok(Outcome::Task(Box::new(task)));
    }
    // Those that stay may have been deleted meanwhile, which is no reason to refuse an edit of something else.
    if task.definition.requires != patch.definition.requires {
        check_required(state, envelope.tenant, key, &patch.definition.requires)?;
    }
    let changed = Task {
        version: task.version + 1,
        enabled: patch.enabled,
        definition: Arc::new(patch.definition.clone()),
        updated_at: envelope.at,
        ..task
    };
    Ok(save(state, envelope, ids, EventKind::TaskUpdated, changed))
}

pub fn delete(state: &mut State, envelope: &Envelope, ids: &mut Ids, key: &TaskKey) -> Result<Outcome, Rejection> {
    let task = known(state, envelope, key)?;
    let (version, at) = (task.version + 1, envelope.at);
    let deleted = Task { version, enabled: false, updated_at: at, deleted_at: Some(at), ..task };
    save(state, envelope, ids, EventKind::TaskDeleted, deleted);
    Ok(Outcome::Deleted)
}

/// Refuses tasks that are unknown or lead back to the one that is to require them.
fn check_required(state: &State, tenant: TenantId, key: &TaskKey, requires: &[TaskKey]) -> Result<(), Interrupt> {
    // Each beside the one of `requires` that leads to it.
    let mut level: Vec<(TaskKey, &TaskKey)> = requires.iter().map(|required| (required.clone(), required)).collect();
    let mut walked: BTreeSet<TaskKey> = requires.iter().cloned().collect();
    let mut unknown = Vec::new();
    while !level.is_empty() {
        if let Some((_, through)) = level.iter().find(|(reached, _)| reached == key) {
            return Err(Rejection::TaskRequiresItself { through: (*through).clone() }.into());
        }
        if walked.len() > MAX_WALK {
            return Err(Rejection::TaskRequiresTooMany { most: MAX_WALK }.into());
        }
        let ask = level.iter().map(|(reached, _)| reached).filter(|reached| !state.knows_task(tenant, reached));
        let ask: Vec<TaskKey> = ask.cloned().collect();
        if !ask.is_empty() {
            return Err(Interrupt::Need(Need::Tasks(ask)));
        }
        let mut behind = Vec::new();
        for (reached, through) in level {
            match state.task(tenant, &reached).filter(|task| task.deleted_at.is_none()) {
                Some(task) => {
                    let further = task.definition.requires.iter().filter(|further| walked.insert((*further).clone()));
                    behind.extend(further.map(|further| (further.clone(), through)));
                }
                None if reached == *through => unknown.push(reached),
                // It lapses where it is required.
                None => {}
            }
        }
        if !unknown.is_empty() {
            return Err(Rejection::TaskRequiresUnknown { missing: unknown }.into());
        }
        level = behind;
    }
    Ok(())
}

/// Which of the required tasks the member has not completed yet.
fn missing(
    state: &State,
    tenant: TenantId,
    member_id: &MemberId,
    requires: &[TaskKey],
) -> Result<Vec<TaskKey>, Interrupt> {
    let mut missing = Vec::new();
    for key in requires {
        match state.has_met(tenant, member_id, key) {
            Some(true) => {}
            Some(false) => missing.push(key.clone()),
            None => return Err(Interrupt::Need(Need::Prerequisites)),
        }
    }
    Ok(missing)
}

fn known(state: &State, envelope: &Envelope, key: &TaskKey) -> Result<Task, Rejection> {
    let task = state.task(envelope.tenant, key).filter(|task| task.deleted_at.is_none());
    task.cloned().ok_or(Rejection::TaskNotFound)
}

fn save(state: &mut State, envelope: &Envelope, ids: &mut Ids, kind: EventKind, task: Task) -> Outcome {
    let data = serde_json::json!({ "key": task.key.as_str(), "version": task.version }).to_string();
    state.record_event(envelope, ids, envelope.at, kind, task.id.0, None, data);
    state.save_task(envelope.tenant, task.clone());
    Outcome::Task(Box::new(task))
}

/// Lets a member go on from where another is with each task, when that one's account is merged into this member's.
pub(crate) fn carry_over(state: &mut State, envelope: &Envelope, from: &MemberId, into: &MemberId) {
    for progress in state.progress_of(envelope.tenant, from) {
        let key = &progress.task_key;
        let own = state.progress(envelope.tenant, into, key).cloned().unwrap_or_else(|| Progress::none(into, key));
        state.save_progress(envelope.tenant, own.joined(progress, envelope.at));
    }
}

/// Counts one report of a task. One known already gives its first answer.
pub fn report(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    key: &TaskKey,
    completion_id: &CompletionId,
    calendar: &Calendar,
) -> Result<Outcome, Interrupt> {
    let day = calendar.day;
    if let Some(first) = state.reported(envelope.tenant, member_id, key, completion_id) {
        return Ok(Outcome::Report { report: Box::new(first.clone()), again: true });
    }
    refuse_merged(state, envelope, member_id)?;
    let task = known(state, envelope, key)?;
    let definition = task.definition.clone();
    if !task.enabled {
        return Err(Rejection::TaskDisabled.into());
    }
    if !definition.window.has_started(envelope.at) {
        return Err(Rejection::TaskNotStarted { starts_at: definition.window.starts_at }.into());
    }
    if definition.window.has_ended(envelope.at) {
        return Err(Rejection::TaskEnded { ended_at: definition.window.ends_at }.into());
    }
    let progress = state.progress(envelope.tenant, member_id, key).cloned();
    let progress = progress.unwrap_or_else(|| Progress::none(member_id, key));
    let mut progress = progress.in_period(definition.period.start(day));
    if let Some(limit) = definition.total_limit.filter(|limit| progress.total_completions >= *limit) {
        return Err(Rejection::TaskLimitReached { limit }.into());
    }
    if progress.completions >= definition.limit_per_period {
        return Err(Rejection::TaskPeriodLimitReached { limit: definition.limit_per_period }.into());
    }
    let missing = missing(state, envelope.tenant, member_id, &definition.requires)?;
    if !missing.is_empty() {
        return Err(Rejection::TaskPrerequisitesMissing { missing }.into());
    }
    let step = progress.steps + 1;
    let completes = step >= definition.target;
    let mut report = Report {
        transaction_id: None,
        member_id: member_id.clone(),
        task_key: key.clone(),
        completion_id: completion_id.clone(),
        period_start: progress.period_start,
        step,
        target: definition.target,
        points: 0,
        reported_at: envelope.at,
    };
    if completes {
        let reference = Some(key.as_str().to_owned());
        let movement = Movement { points: definition.points, kind: TransactionType::EarnTask, reference, remark: None };
        let rules = state.rules_at(envelope.tenant, envelope.at);
        let spendable = points::life(state, envelope, rules.points.validity, calendar)?;
        let granted = grant_points(state, envelope, ids, member_id, &movement, spendable)?;
        report.transaction_id = Some(granted.id);
        report.points = definition.points;
        progress.completions += 1;
        progress.total_completions += 1;
    }
    progress.steps = if completes { 0 } else { step };
    progress.updated_at = envelope.at;
    state.save_progress(envelope.tenant, progress);
    state.insert_report(envelope.tenant, report.clone());
    let data = serde_json::json!({
        "key": key.as_str(), "completion_id": completion_id.as_str(), "step": step, "target": definition.target,
        "points": report.points,
    });
    let kind = if completes { EventKind::TaskCompleted } else { EventKind::TaskProgressed };
    state.record_event(envelope, ids, envelope.at, kind, task.id.0, Some(member_id), data.to_string());
    Ok(Outcome::Report { report: Box::new(report), again: false })
}
