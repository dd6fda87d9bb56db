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

use crate::bulk;
use crate::command::{Envelope, Movement};
use crate::coupon;
use crate::decide::Outcome;
use crate::id::{BulkId, CouponId, Ids, JobId, KeyId, MemberId, TemplateId};
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
        /// Tells the beginnings and ends of issue windows, and of points that expire soon, in every tenant; recurs.
        Windows = "WINDOWS",
        /// Deletes records and jobs past their retention; recurs.
        Purge = "PURGE",
        /// Grants points that were asked for with `mode: async`.
        PointsGrant = "POINTS_GRANT",
        /// Lets the open coupons of a template end later.
        ExtendCoupons = "EXTEND_COUPONS",
        /// Works off many rows: a distribution, or an import of grants.
        Bulk = "BULK",
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
            JobKind::Bulk | JobKind::ExtendCoupons => JobPool::Long,
            JobKind::Sweep | JobKind::Windows | JobKind::Purge => JobPool::Recurring,
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

/// What an `ExtendCoupons` is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouponExtension {
    pub template_id: TemplateId,
    pub valid_until: Timestamp,
    /// Only coupons that would end before.
    pub ends_before: Option<Timestamp>,
    /// Who asked.
    pub actor: Option<KeyId>,
}

/// How far an `ExtendCoupons` has come, as the job shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtensionProgress {
    /// Pages worked off: the number of the next one.
    pub pages: i64,
    /// Coupons looked at.
    pub seen: i64,
    pub extended: i64,
    /// Those that were used, revoked or over by the time their turn came.
    pub refused: i64,
    /// The last coupon looked at, by its member and its number among the member's coupons of the template.
    pub after: Option<(MemberId, i64)>,
}

/// Some of a template's coupons, next to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionPage {
    pub number: i64,
    /// Those to extend.
    pub coupon_ids: Vec<CouponId>,
    pub seen: i64,
    pub last: (MemberId, i64),
}

/// Enqueues the extension of a template's coupons, which goes page by page ([`extend_page`]).
pub fn enqueue_extension(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    template_id: TemplateId,
    valid_until: Timestamp,
    ends_before: Option<Timestamp>,
) -> Result<Outcome, Rejection> {
    state.template(envelope.tenant, template_id)?;
    if valid_until <= envelope.at {
        return Err(Rejection::DeadlinePassed { field: "valid_until" });
    }
    let extension = CouponExtension { template_id, valid_until, ends_before, actor: envelope.actor };
    let payload = serde_json::to_string(&extension).expect("plain data has a JSON form");
    let job = Job::new(JobId(ids.draw()), JobKind::ExtendCoupons, payload, envelope.now);
    state.insert_job(envelope.tenant, job.clone());
    Ok(Outcome::Job(Box::new(job)))
}

/// Works off one page of an extension, which must be the next: its coupons, the counts and the cursor are one transaction, so every
/// coupon counts once however often the job begins.
///
/// # Errors
/// [`Rejection::JobLeaseLost`] when it is not the next, or the job is over; then somebody else has gone on, or it was cancelled.
pub fn extend_page(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: JobId,
    page: &ExtensionPage,
) -> Result<Outcome, Rejection> {
    let mut job = state.job(envelope.tenant, id)?.clone();
    let Ok(extension) = serde_json::from_str::<CouponExtension>(&job.payload) else {
        return Err(Rejection::JobNotFound);
    };
    let mut progress: ExtensionProgress = serde_json::from_str(&job.progress).unwrap_or_default();
    if job.is_finished() || progress.pages != page.number {
        return Err(Rejection::JobLeaseLost);
    }
    for coupon_id in &page.coupon_ids {
        let before = state.coupon(envelope.tenant, *coupon_id).map_or(Timestamp::MAX, |coupon| coupon.valid_until);
        match coupon::extend(state, envelope, ids, *coupon_id, extension.valid_until) {
            Ok(_) => progress.extended += i64::from(before < extension.valid_until),
            Err(_) => progress.refused += 1,
        }
    }
    progress.pages += 1;
    progress.seen += page.seen;
    progress.after = Some(page.last.clone());
    job.progress = serde_json::to_string(&progress).expect("plain data has a JSON form");
    // It moves on: its attempts count anew from here.
    job.attempts = job.attempts.min(1);
    job.last_error = None;
    job.updated_at = envelope.now;
    state.save_job(envelope.tenant, job.clone());
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

/// QUEUED or RUNNING -> CANCELLED. What it has done already stays done; one that is over is left as it is. With the job of a
/// bulk, the bulk is cancelled.
pub fn cancel(state: &mut State, envelope: &Envelope, ids: &mut Ids, id: JobId) -> Result<Outcome, Rejection> {
    let mut job = state.job(envelope.tenant, id)?.clone();
    if job.kind == JobKind::Bulk {
        bulk::cancel(state, envelope, ids, BulkId(id.0))?;
    }
    stop(state, envelope, &mut job);
    Ok(Outcome::Job(Box::new(job)))
}

/// Cancels the job unless it is over.
pub(crate) fn stop(state: &mut State, envelope: &Envelope, job: &mut Job) {
    if !job.is_finished() {
        job.end(JobState::Cancelled, envelope.now);
        state.save_job(envelope.tenant, job.clone());
    }
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
