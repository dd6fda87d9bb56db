//! What follows from members' deeds by itself: tasks that events report, and what comes back to accounts that were merged.
//!
//! Both go through the engine like any request, page by page, and may run any number of times, on many nodes at once. An event
//! reports a task under its own id, which counts once; the cursor over the log only saves looking at events again, and moves
//! after the reports are durable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::tz::TimeZone;
use scrip_domain::event::Event;
use scrip_domain::task::Task;
use scrip_domain::{Command, CompletionId, Envelope, TaskKey, TenantId, Timestamp};

use super::expire::SweepError;
use crate::engine::Engine;
use crate::store::Store;
use crate::{calendar, clock};

/// Events looked at, and accounts merged again, at a time.
const PAGE: i64 = 500;
/// Pages a tenant gets in one pass; what is left waits for the next.
const PAGES_PER_PASS: usize = 100;

/// Reports tasks by the events since the last pass.
///
/// # Errors
/// The first failure; what was reported before it stays so, and is reported once.
pub async fn report_events(store: &Store, engine: &Engine, tenant: TenantId) -> Result<(), SweepError> {
    let Some(mut position) = store.task_cursor(tenant).await? else { return Ok(()) };
    // Asked before the tasks are: a task made meanwhile finds its events after this.
    let end = store.last_event(tenant).await?;
    let mut by_event: HashMap<String, Vec<Task>> = HashMap::new();
    for task in required_first(store.tasks_by_event(tenant).await?) {
        if let Some(kind) = &task.definition.event_type {
            by_event.entry(kind.clone()).or_default().push(task);
        }
    }
    if by_event.is_empty() {
        if let Some(end) = end.filter(|end| *end > position) {
            store.move_task_cursor(tenant, position, end).await?;
        }
        return Ok(());
    }
    let zone = store.zone(tenant).await?;
    for _ in 0..PAGES_PER_PASS {
        let page = store.list_events(tenant, position, None, PAGE).await?;
        if page.events.is_empty() {
            break;
        }
        let now = clock::now();
        let mut commands = Vec::new();
        for (_, event) in &page.events {
            for task in by_event.get(event.kind.as_str()).into_iter().flatten() {
                commands.extend(report(tenant, &zone, task, event, now));
            }
        }
        // A refusal is an answer: the limit is reached, the task's window is over, what it requires is not done.
        for answer in engine.submit_all(commands).await {
            answer?;
        }
        store.move_task_cursor(tenant, position, page.scanned_to).await?;
        position = page.scanned_to;
    }
    Ok(())
}

/// The tasks behind those that they require: an event that reports both counts for both, whenever it is looked at.
fn required_first(tasks: Vec<Task>) -> Vec<Task> {
    let mut ordered = Vec::with_capacity(tasks.len());
    let mut waiting = tasks;
    while !waiting.is_empty() {
        let keys: HashSet<TaskKey> = waiting.iter().map(|task| task.key.clone()).collect();
        let is_ready = |task: &Task| !task.definition.requires.iter().any(|required| keys.contains(required));
        let (ready, behind): (Vec<Task>, Vec<Task>) = waiting.into_iter().partition(is_ready);
        // No task requires itself, so some are always ready; a list that says otherwise is taken as it stands.
        waiting = if ready.is_empty() { Vec::new() } else { behind.clone() };
        ordered.extend(if ready.is_empty() { behind } else { ready });
    }
    ordered
}

fn report(tenant: TenantId, zone: &TimeZone, task: &Task, event: &Event, now: Timestamp) -> Option<Envelope> {
    // What was before the task, an import of the past for instance, is nothing that it has asked for.
    if event.occurred_at < task.created_at {
        return None;
    }
    let member_id = event.member_id.clone()?;
    let completion_id: CompletionId = event.id.to_string().parse().ok()?;
    let at = event.occurred_at.min(now);
    let calendar = Arc::new(calendar::calendar(zone, at));
    let command = Command::CompleteTask { member_id, key: task.key.clone(), completion_id, calendar };
    Some(Envelope { tenant, actor: None, command, idempotency: None, at, now, seed: clock::seed(now) })
}

/// Moves what came back to merged accounts on to those that took them over.
///
/// # Errors
/// The first failure; what was moved before it stays so.
pub async fn follow_merges(store: &Store, engine: &Engine, tenant: TenantId) -> Result<(), SweepError> {
    let merged = store.merged_accounts_to_clear(tenant, PAGE).await?;
    let now = clock::now();
    let commands = merged.into_iter().map(|(from, into)| Envelope {
        tenant,
        actor: None,
        command: Command::Merge { from, into, remark: None },
        idempotency: None,
        at: now,
        now,
        seed: clock::seed(now),
    });
    // One with open holds is refused until they have ended.
    for answer in engine.submit_all(commands.collect()).await {
        answer?;
    }
    Ok(())
}
