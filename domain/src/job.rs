//! Work for later. A job is enqueued in the transaction of its cause, so it exists if and only if its cause does; a runner
//! outside of this crate claims it under a lease, and what it does is committed together with the job's end or with a
//! cursor of its own. So a job may begin any number of times, and takes effect once.
//!
//! ```text
//!            claimed                ended well
//! QUEUED ---------------> RUNNING ---------------> DONE
//!  ^  ^                   |  |  |
//!  |  +--- failed, again -+  |  +--- refused, or failed too often ---> DEAD ---+
//!  |                         +--- cancelled (from QUEUED as well) ---> CANCELLED
//!  +------------------------------- retried by an operator --------------------+
//! ```
//!
//! `attempts` counts the claims since the job last made progress. `fence` grows with every claim: a runner that has lost its
//! lease shows an old one, and its writes miss.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::{Envelope, Movement};
use crate::decide::Outcome;
use crate::id::{Ids, JobId, KeyId, MemberId};
use crate::points::Spendable;
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// Claims of a job before it is dead, unless its kind says otherwise.
pub const MAX_ATTEMPTS: i64 = 3;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$of])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The name as stored and as shown.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            pub fn parse(text: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|name| name.as_str() == text)
            }
        }
    };
}

names! {
    /// What a job does.
    JobKind {
        /// Writes what time has ended, in every tenant; recurs.
        Sweep = "SWEEP",
        /// Deletes records and jobs past their retention; recurs.
        Purge = "PURGE",
        /// Grants points that were asked for with `mode: async`.
        PointsGrant = "POINTS_GRANT",
    }
}

names! {
    /// How far a job has come.
    JobState {
        Queued = "QUEUED",
        Running = "RUNNING",
        Done = "DONE",
        Dead = "DEAD",
        Cancelled = "CANCELLED",
    }
}

names! {
    /// Which slots of a node a job takes: long work never keeps short work waiting.
    JobPool {
        /// A command or a request: over within seconds.
        Short = "SHORT",
        /// Minutes, in steps that are each committed.
        Long = "LONG",
        /// The server's own passes.
        Recurring = "RECURRING",
    }
}

impl JobKind {
    pub fn pool(self) -> JobPool {
        match self {
            JobKind::PointsGrant => JobPool::Short,
            JobKind::Sweep | JobKind::Purge => JobPool::Recurring,
        }
    }
}

/// Of jobs that are due, which go first; within one, the longest due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

impl Priority {
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    pub fn as_str(self) -> &'static str {
        match self {
            Priority::High => "HIGH",
            Priority::Normal => "NORMAL",
            Priority::Low => "LOW",
        }
    }

    /// As stored: the smaller goes first.
    pub fn rank(self) -> i64 {
        self as i64
    }

    pub fn of_rank(rank: i64) -> Option<Priority> {
        Priority::ALL.into_iter().find(|priority| priority.rank() == rank)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub kind: JobKind,
    /// A JSON object: what to do.
    pub payload: String,
    pub priority: Priority,
    pub max_attempts: i64,
    /// Microseconds between the end of a run and the next one, of a job that recurs.
    pub every: Option<i64>,
    pub created_at: Timestamp,
    pub state: JobState,
    /// Not before.
    pub run_at: Timestamp,
    /// Claims since it last made progress.
    pub attempts: i64,
    /// Claims in all.
    pub fence: i64,
    /// The runner that has it, and until when; set for, and only for, `JobState::Running`.
    pub lease_holder: Option<Uuid>,
    pub lease_until: Option<Timestamp>,
    /// A JSON object: how far it has come, or what came of it.
    pub progress: String,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    pub updated_at: Timestamp,
    /// Set for, and only for, the states that end a job.
    pub finished_at: Option<Timestamp>,
}

impl Job {
    /// A job that can run at once, with the usual attempts and priority.
    pub fn new(id: JobId, kind: JobKind, payload: String, now: Timestamp) -> Job {
        Job {
            id,
            kind,
            payload,
            priority: Priority::default(),
            max_attempts: MAX_ATTEMPTS,
            every: None,
            created_at: now,
            state: JobState::Queued,
            run_at: now,
            attempts: 0,
            fence: 0,
            lease_holder: None,
            lease_until: None,
            progress: "{}".into(),
            last_error: None,
            updated_at: now,
            finished_at: None,
        }
    }

    pub fn is_finished(&self) -> bool {
        self.finished_at.is_some()
    }

    /// Ends the job, whoever had it.
    fn end(&mut self, state: JobState, now: Timestamp) {
        self.state = state;
        self.lease_holder = None;
        self.lease_until = None;
        self.updated_at = now;
        self.finished_at = Some(now);
    }
}

/// Shows that a command is a job's doing: the job must still run under this fence, and ends with the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobTicket {
    pub job_id: JobId,
    pub fence: i64,
}

/// What a `PointsGrant` is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsGrant {
    pub member_id: MemberId,
    #[serde(flatten)]
    pub movement: Movement,
    pub spendable: Spendable,
    /// The time it takes effect; when it runs, by default.
    pub effective_at: Option<Timestamp>,
    /// Who asked.
    pub actor: Option<KeyId>,
}

/// Enqueues a grant: the answer says that it will be done, not that it was.
pub fn enqueue_grant(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    member_id: &MemberId,
    movement: &Movement,
    spendable: Spendable,
) -> Result<Outcome, Rejection> {
    if spendable.expires_at.is_some_and(|end| end <= envelope.at) {
        return Err(Rejection::DeadlinePassed { field: "expires_at" });
    }
    let grant = PointsGrant {
        member_id: member_id.clone(),
        movement: movement.clone(),
        spendable,
        effective_at: (envelope.at != envelope.now).then_some(envelope.at),
        actor: envelope.actor,
    };
    let payload = serde_json::to_string(&grant).expect("plain data has a JSON form");
    let job = Job::new(JobId(ids.draw()), JobKind::PointsGrant, payload, envelope.now);
    state.insert_job(envelope.tenant, job.clone());
    Ok(Outcome::Job(Box::new(job)))
}

/// DEAD or CANCELLED -> QUEUED, with its attempts given anew. One that is under way or done is left as it is.
pub fn retry(state: &mut State, envelope: &Envelope, id: JobId) -> Result<Outcome, Rejection> {
    let mut job = state.job(envelope.tenant, id)?.clone();
    if matches!(job.state, JobState::Dead | JobState::Cancelled) {
        job.state = JobState::Queued;
        job.run_at = envelope.now;
        job.attempts = 0;
        job.updated_at = envelope.now;
        job.finished_at = None;
        state.save_job(envelope.tenant, job.clone());
    }
    Ok(Outcome::Job(Box::new(job)))
}

/// QUEUED or RUNNING -> CANCELLED. What it has done already stays done; one that is over is left as it is.
pub fn cancel(state: &mut State, envelope: &Envelope, id: JobId) -> Result<Outcome, Rejection> {
    let mut job = state.job(envelope.tenant, id)?.clone();
    if !job.is_finished() {
        job.end(JobState::Cancelled, envelope.now);
        state.save_job(envelope.tenant, job.clone());
    }
    Ok(Outcome::Job(Box::new(job)))
}

/// The job of the ticket, if that still holds.
pub fn under_ticket(state: &State, envelope: &Envelope, ticket: JobTicket) -> Result<Job, Rejection> {
    let job = state.job(envelope.tenant, ticket.job_id)?;
    if job.state != JobState::Running || job.fence != ticket.fence {
        return Err(Rejection::JobLeaseLost);
    }
    Ok(job.clone())
}

/// Ends the job with what came of its command: done, or dead when the command was refused, since it would be again.
pub fn conclude(state: &mut State, envelope: &Envelope, mut job: Job, result: Result<&Outcome, &Rejection>) {
    match result {
        Ok(outcome) => {
            job.end(JobState::Done, envelope.now);
            job.last_error = None;
            if let Outcome::Transaction(transaction) = outcome {
                job.progress = format!("{{\"transaction_id\":\"{}\"}}", transaction.id);
            }
        }
        Err(rejection) => {
            job.end(JobState::Dead, envelope.now);
            job.last_error = Some(rejection.code().to_owned());
        }
    }
    state.save_job(envelope.tenant, job);
}
