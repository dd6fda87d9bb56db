//! The runner: takes due jobs under a lease, does them, and says how they ended.
//!
//! What it guarantees. *None is lost*: a job is a row from the commit of its cause to its end; a runner that dies loses its
//! lease, and another takes the job up. *None counts twice*: what a job does is committed together with its end, or with a
//! cursor of its own, under a fence that only the newest claim has. *None spoils the others*: each runs as a task of its own,
//! so a panic is a failed attempt; short work, long work and the server's own passes have slots of their own.
//!
//! A failed attempt is made again after [`backoff`], `max_attempts` times in all since the job last made progress; then the
//! job is dead, with its reason, until an operator retries it. A refusal is final at once: no attempt would change it.
//!
//! What bounds it: the slots; a claim takes no more jobs than there are slots for. A job enqueued on this node starts at once,
//! others within [`RunnerOptions::poll`].

use std::any::Any;
use std::collections::HashMap;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Either, join_all};
use opentelemetry::context::FutureExt as _;
use parking_lot::Mutex;
use scrip_domain::job::{Job, JobPool, JobState, JobTicket};
use scrip_domain::{Answer, Command, Envelope, JobId, KeyId, Outcome, Rejection, TenantId, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle};
use uuid::Uuid;

use crate::clock;
use crate::engine::{Engine, SubmitError};
use crate::metrics::Metrics;
use crate::store::job::{Claimed, JobEnd};
use crate::store::{Store, StoreError};
use crate::telemetry;

#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// Short jobs at a time; zero turns the runner off.
    pub concurrency: usize,
    /// Long jobs at a time.
    pub long_concurrency: usize,
    /// Whether this node takes part in the server's own passes.
    pub recurring: bool,
    /// Between two looks for due jobs while nothing says that there are any.
    pub poll: Duration,
    /// How long a job is a runner's before another may take it; extended all the while.
    pub lease: Duration,
}

impl RunnerOptions {
    fn slots(&self, pool: JobPool) -> usize {
        match pool {
            JobPool::Short => self.concurrency,
            JobPool::Long => self.long_concurrency,
            // They take turns: a pass over all tenants is heavy enough.
            JobPool::Recurring => usize::from(self.recurring),
        }
    }
}

/// The first wait after a failure; each further one is twice as long.
pub const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const LONGEST_BACKOFF: Duration = Duration::from_secs(3_600);
/// Heartbeats in the time of a lease: so many may fail before it ends.
const BEATS_PER_LEASE: u32 = 4;
/// Jobs taken from vanished runners at a time.
const REAP_PAGE: i64 = 500;
/// Between two counts for the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// How long to wait after the n-th failed attempt: 2 s, 4 s, 8 s ... and up to a quarter more at random, so that what failed
/// together does not come back together.
pub fn backoff(attempts: i64) -> Duration {
    let doublings = u32::try_from((attempts - 1).clamp(0, 20)).unwrap_or(0);
    let base = FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF);
    base + base.mul_f64(rand::random_range(0.0..0.25))
}

/// How a run ended well.
#[derive(Debug)]
pub enum Done {
    /// The runner is to note it, with what came of it as a JSON object.
    With(Option<String>),
    /// The job's effect has ended it, in the same transaction.
    Already,
}

/// Why a run did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Another attempt may succeed.
    #[error("{0}")]
    Failed(String),
    /// No attempt will.
    #[error("{0}")]
    Refused(String),
    /// The lease has passed on, or the job was cancelled: whoever has it now goes on.
    #[error("the lease was lost")]
    Lost,
    /// This server stops; another goes on from where this one has come.
    #[error("the server stops")]
    Stopping,
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        JobError::Failed(error.to_string())
    }
}

impl From<SubmitError> for JobError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Draining => JobError::Stopping,
            error => JobError::Failed(error.to_string()),
        }
    }
}

/// A run of a job, as the code that does it sees it.
#[derive(Clone)]
pub struct Run {
    pub store: Store,
    pub engine: Engine,
    pub claimed: Claimed,
    /// The time the runner takes it to be.
    pub now: Timestamp,
    stopping: watch::Receiver<bool>,
    has_progressed: Arc<AtomicBool>,
}

impl Run {
    pub fn tenant(&self) -> TenantId {
        self.claimed.tenant
    }

    pub fn job(&self) -> &Job {
        &self.claimed.job
    }

    /// Reads what the job is to do.
    ///
    /// # Errors
    /// [`JobError::Refused`]: a payload that cannot be read stays so.
    pub fn payload<T: serde::de::DeserializeOwned>(&self) -> Result<T, JobError> {
        serde_json::from_str(&self.job().payload)
            .map_err(|error| JobError::Refused(format!("its payload cannot be read: {error}")))
    }

    /// Long work asks this between its steps.
    ///
    /// # Errors
    /// [`JobError::Stopping`] when it is time to leave off.
    pub fn check_stopping(&self) -> Result<(), JobError> {
        if *self.stopping.borrow() { Err(JobError::Stopping) } else { Ok(()) }
    }

    /// Notes how far the job has come, as a JSON object: its attempts count anew from here.
    ///
    /// # Errors
    /// [`JobError::Lost`] when somebody else has the job by now.
    pub async fn record_progress(&self, progress: &str) -> Result<(), JobError> {
        let kept = self.store.record_progress(&self.claimed, progress, clock::now()).await?;
        self.has_progressed();
        if kept { Ok(()) } else { Err(JobError::Lost) }
    }

    /// Says that the job has moved on, by a step that noted its progress itself: attempts count anew from here.
    pub fn has_progressed(&self) {
        self.has_progressed.store(true, Ordering::Relaxed);
    }

    /// Has a command decided that is all the job does: the job ends with it, in the same transaction.
    ///
    /// # Errors
    /// [`JobError`]; a refusal has made the job dead already.
    pub async fn conclude(
        &self,
        command: Command,
        actor: Option<KeyId>,
        effective_at: Option<Timestamp>,
    ) -> Result<Done, JobError> {
        let ticket = JobTicket { job_id: self.job().id, fence: self.job().fence };
        let command = Command::Work { ticket, command: Box::new(command) };
        match self.submit(self.tenant(), command, actor, effective_at).await? {
            Answer::Accepted { .. } => Ok(Done::Already),
            Answer::Refused(Rejection::JobLeaseLost | Rejection::JobNotFound) => Err(JobError::Lost),
            Answer::Refused(rejection) => Err(JobError::Refused(rejection.code().to_owned())),
        }
    }

    /// Has a step decided: a command with a cursor of its own.
    ///
    /// # Errors
    /// [`JobError::Refused`] with the refusal's code.
    pub async fn step(&self, command: Command, actor: Option<KeyId>) -> Result<Outcome, JobError> {
        self.step_of(self.tenant(), command, actor).await
    }

    /// The same for a tenant of the server's own passes.
    ///
    /// # Errors
    /// As [`Run::step`].
    pub async fn step_of(&self, tenant: TenantId, command: Command, actor: Option<KeyId>) -> Result<Outcome, JobError> {
        match self.submit(tenant, command, actor, None).await? {
            Answer::Accepted { outcome, .. } => Ok(outcome),
            Answer::Refused(rejection) => Err(JobError::Refused(rejection.code().to_owned())),
        }
    }

    async fn submit(
        &self,
        tenant: TenantId,
        command: Command,
        actor: Option<KeyId>,
        effective_at: Option<Timestamp>,
    ) -> Result<Answer, JobError> {
        let now = clock::now();
        let at = effective_at.unwrap_or(now);
        let seed = clock::seed(now);
        let envelope = Envelope { tenant, actor, command, idempotency: None, at, now, seed };
        let span = telemetry::traces().and_then(|traces| traces.begin_parts(slice::from_ref(&envelope)));
        let answer = self.engine.submit(envelope).await;
        if let Some(span) = span {
            span.end(slice::from_ref(&answer));
        }
        Ok(answer?)
    }
}

/// Does what a job says.
pub type Handler = Arc<dyn Fn(Run) -> BoxFuture<'static, Result<Done, JobError>> + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

struct Inner {
    store: Store,
    engine: Engine,
    metrics: Arc<Metrics>,
    options: RunnerOptions,
    handler: Handler,
    /// This runner's name on its leases.
    holder: Uuid,
    stopping: watch::Sender<bool>,
    /// What is under way, and how to end it.
    running: Mutex<HashMap<(TenantId, JobId), (i64, AbortHandle)>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    slots: HashMap<JobPool, Arc<Semaphore>>,
}

impl Runner {
    /// A runner that does nothing yet.
    pub fn new(
        store: Store,
        engine: Engine,
        metrics: Arc<Metrics>,
        options: RunnerOptions,
        handler: Handler,
    ) -> Runner {
        let slots = JobPool::ALL.iter().map(|pool| (*pool, Arc::new(Semaphore::new(options.slots(*pool))))).collect();
        Runner(Arc::new(Inner {
            store,
            engine,
            metrics,
            options,
            handler,
            holder: Uuid::from_u128(clock::seed(clock::now()).random),
            stopping: watch::Sender::new(false),
            running: Mutex::default(),
            tasks: Mutex::default(),
            slots,
        }))
    }

    /// Begins to take jobs.
    pub fn start(&self) {
        if self.0.options.concurrency == 0 {
            return;
        }
        let mut tasks = self.0.tasks.lock();
        for pool in JobPool::ALL.iter().copied().filter(|pool| self.0.options.slots(*pool) > 0) {
            tasks.push(tokio::spawn(self.clone().take_jobs(pool)));
        }
        tasks.push(tokio::spawn(self.clone().keep_leases()));
        tasks.push(tokio::spawn(self.clone().count()));
    }

    /// Keeps the leases of what [`Runner::run_job`] has claimed, without taking jobs.
    pub fn start_leases(&self) {
        self.0.tasks.lock().push(tokio::spawn(self.clone().keep_leases()));
    }

    /// Takes no more jobs, and asks long ones to leave off.
    pub fn stop_taking(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Takes no more jobs, lets those under way end for so long, and gives back what is left.
    pub async fn drain(&self, patience: Duration) {
        self.stop_taking();
        let give_up_at = Instant::now() + patience;
        while !self.0.running.lock().is_empty() && Instant::now() < give_up_at {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        tasks.iter().for_each(JoinHandle::abort);
        let left: Vec<_> = self.0.running.lock().drain().collect();
        for ((tenant, id), (fence, task)) in left {
            task.abort();
            let released = self.give_back(tenant, id, fence).await;
            if let Err(error) = released {
                tracing::warn!(%error, job = %id, "a job was not given back; its lease will end");
            }
        }
    }

    /// Runs what is due as of `now` until nothing is left that is, or `limit` runs were made; how many were. Runs of one pool
    /// at a time, a slot's worth at once.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run_due(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut runs = 0;
        while runs < limit {
            let mut claimed = Vec::new();
            for pool in JobPool::ALL {
                let slots = self.0.options.slots(*pool).min(limit - runs) as i64;
                claimed.extend(self.claim(*pool, now, slots).await?);
            }
            if claimed.is_empty() {
                break;
            }
            runs += claimed.len();
            join_all(claimed.into_iter().map(|job| self.run(job, Some(now)))).await;
        }
        Ok(runs)
    }

    /// Runs one job now, if it is queued and due; false when it is not.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run_job(&self, tenant: TenantId, id: JobId) -> Result<bool, StoreError> {
        let now = clock::now();
        let claimed = self.0.store.claim_job(tenant, id, self.0.holder, now, self.lease_end(now)).await?;
        let Some(claimed) = claimed else { return Ok(false) };
        // Nobody closes the semaphore.
        let Ok(permit) = self.0.slots[&claimed.job.kind.pool()].clone().acquire_owned().await else { return Ok(false) };
        // How it ended is noted already.
        let _ = self.spawn(claimed, permit).await;
        Ok(true)
    }

    /// Takes jobs from runners that are gone as of `now`: queued again, or dead; how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reap(&self, now: Timestamp) -> Result<usize, StoreError> {
        let run_at = plus(now, backoff(1));
        let reaped = self.0.store.reap_jobs(self.0.holder, now, run_at, REAP_PAGE).await?;
        for Claimed { tenant, job } in &reaped {
            tracing::warn!(%tenant, job = %job.id, kind = job.kind.as_str(), state = job.state.as_str(),
                "a job's runner is gone");
            self.count_end(job, "lost");
            if job.state == JobState::Dead {
                self.count_end(job, "dead");
            }
        }
        Ok(reaped.len())
    }

    fn lease_end(&self, now: Timestamp) -> Timestamp {
        plus(now, self.0.options.lease)
    }

    async fn claim(&self, pool: JobPool, now: Timestamp, limit: i64) -> Result<Vec<Claimed>, StoreError> {
        if limit < 1 {
            return Ok(Vec::new());
        }
        self.0.store.claim_jobs(pool, self.0.holder, now, self.lease_end(now), limit).await
    }

    /// Fills the slots of a pool as jobs become due.
    async fn take_jobs(self, pool: JobPool) {
        let slots = self.0.slots[&pool].clone();
        let total = self.0.options.slots(pool);
        let mut ready = self.0.store.jobs_ready().subscribe();
        let mut stopping = self.0.stopping.subscribe();
        // While there is plenty to do, a claim waits for a good number of slots, so that it costs few statements.
        let mut least = 1;
        while !*stopping.borrow() {
            let permits = tokio::select! {
                permits = slots.clone().acquire_many_owned(least as u32) => permits,
                _ = stopping.changed() => break,
            };
            // Nobody closes the semaphore.
            let Ok(mut permits) = permits else { break };
            while let Ok(another) = slots.clone().try_acquire_owned() {
                permits.merge(another);
            }
            ready.mark_unchanged();
            let wanted = permits.num_permits();
            let claimed = match self.claim(pool, clock::now(), wanted as i64).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::warn!(%error, "jobs could not be claimed; the next look tries again");
                    Vec::new()
                }
            };
            let count = claimed.len();
            for job in claimed {
                let Some(permit) = permits.split(1) else { break };
                drop(self.spawn(job, permit));
            }
            drop(permits);
            least = if count == wanted { total.div_ceil(2) } else { 1 };
            if count == 0 {
                tokio::select! {
                    () = tokio::time::sleep(self.0.options.poll) => {}
                    _ = ready.changed() => {}
                    _ = stopping.changed() => {}
                }
            }
        }
    }

    /// Runs a claimed job as a task that this runner knows of.
    fn spawn(&self, claimed: Claimed, permit: OwnedSemaphorePermit) -> JoinHandle<()> {
        let key = (claimed.tenant, claimed.job.id);
        let fence = claimed.job.fence;
        let runner = self.clone();
        // Held until the task is known, so that its end does not come first.
        let mut running = self.0.running.lock();
        let task = tokio::spawn(async move {
            let _permit = permit;
            runner.run(claimed, None).await;
            runner.0.running.lock().remove(&key);
        });
        running.insert(key, (fence, task.abort_handle()));
        task
    }

    /// Runs a claimed job and notes how it ended. `at` stands for the time, when it is not now.
    async fn run(&self, mut claimed: Claimed, at: Option<Timestamp>) {
        let began = Instant::now();
        let has_progressed = Arc::new(AtomicBool::new(false));
        let run = Run {
            store: self.0.store.clone(),
            engine: self.0.engine.clone(),
            claimed: claimed.clone(),
            now: at.unwrap_or_else(clock::now),
            stopping: self.0.stopping.subscribe(),
            has_progressed: has_progressed.clone(),
        };
        // A task of its own, so that a panic ends nothing but this run; gone with this one, should that be aborted.
        let span = telemetry::traces().map(|traces| (traces, traces.begin_run(&claimed.job)));
        let work = (self.0.handler)(run);
        let work = match &span {
            Some((_, context)) => Either::Left(work.with_context(context.clone())),
            None => Either::Right(work),
        };
        let mut task = AbortOnDrop(tokio::spawn(work));
        let result = match (&mut task.0).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(JobError::Failed(panic_text(&*error.into_panic()))),
            Err(_) => Err(JobError::Stopping),
        };
        if has_progressed.load(Ordering::Relaxed) {
            claimed.job.attempts = 1;
        }
        let job = &claimed.job;
        self.0.metrics.job_run_seconds.with_label_values(&[job.kind.as_str()]).observe(began.elapsed().as_secs_f64());
        let now = at.unwrap_or_else(clock::now);
        let (label, end) = judge(job, result, now);
        self.count_end(job, label);
        if let Some((traces, context)) = &span {
            traces.end_run(context, label);
        }
        if label == "dead" || label == "failed" {
            tracing::warn!(tenant = %claimed.tenant, job = %job.id, kind = job.kind.as_str(), attempts = job.attempts,
                ?end, "a job failed");
        }
        let Some(end) = end else { return };
        match self.0.store.end_job(&claimed, &end, now).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!(job = %job.id, "the job was somebody else's by its end"),
            // Its lease ends by itself; the effect is fenced or recorded, so another run does no harm.
            Err(error) => tracing::warn!(%error, job = %job.id, "the end of a job could not be noted"),
        }
    }

    /// Extends the leases, stops what has been lost, takes up what others have left.
    async fn keep_leases(self) {
        let beat = self.0.options.lease / BEATS_PER_LEASE;
        loop {
            if let Err(error) = self.beat().await {
                tracing::warn!(%error, "the leases of jobs could not be extended; the next heartbeat tries again");
            }
            tokio::time::sleep(beat).await;
        }
    }

    async fn beat(&self) -> Result<(), StoreError> {
        let under_way: Vec<_> =
            self.0.running.lock().iter().map(|((tenant, id), (fence, _))| (*tenant, *id, *fence)).collect();
        if !under_way.is_empty() {
            let held = self.0.store.extend_leases(self.0.holder, self.lease_end(clock::now())).await?;
            for (tenant, id, fence) in under_way.into_iter().filter(|known| !held.contains(known)) {
                // It may be in the hands of a batch at this very moment: only what the row says counts.
                let found = self.0.store.find_job(tenant, id).await?;
                if !found.is_some_and(|job| job.state == JobState::Running && job.fence == fence)
                    && let Some((_, task)) = self.0.running.lock().remove(&(tenant, id))
                {
                    tracing::info!(job = %id, "a job was cancelled, or taken by another runner");
                    task.abort();
                }
            }
        }
        self.reap(clock::now()).await?;
        Ok(())
    }

    async fn give_back(&self, tenant: TenantId, id: JobId, fence: i64) -> Result<(), StoreError> {
        if let Some(job) = self.0.store.find_job(tenant, id).await?.filter(|job| job.fence == fence) {
            self.0.store.end_job(&Claimed { tenant, job }, &JobEnd::Release, clock::now()).await?;
        }
        Ok(())
    }

    /// Shows how many jobs wait, run and are dead.
    async fn count(self) {
        loop {
            match self.0.store.count_jobs().await {
                Ok(counts) => self.0.metrics.show_jobs(&counts, clock::now()),
                Err(error) => tracing::debug!(%error, "the jobs could not be counted"),
            }
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    fn count_end(&self, job: &Job, label: &str) {
        self.0.metrics.jobs_run.with_label_values(&[&job.kind.as_str().to_lowercase(), label]).inc();
    }
}

/// Aborts the task when nobody waits for it any more.
struct AbortOnDrop(JoinHandle<Result<Done, JobError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The label of a run's end, and what to note of it.
fn judge(job: &Job, result: Result<Done, JobError>, now: Timestamp) -> (&'static str, Option<JobEnd>) {
    let next = |wait: Duration| plus(now, wait);
    let every = job.every.map(|every| Duration::from_micros(every.unsigned_abs()));
    match (result, every) {
        (Ok(Done::Already), _) => ("ok", None),
        (Ok(Done::With(progress)), None) => ("ok", Some(JobEnd::Done(progress))),
        (Ok(Done::With(progress)), Some(every)) => {
            ("ok", Some(JobEnd::Recur { run_at: next(every), progress, error: None }))
        }
        (Err(JobError::Lost), _) => ("lost", None),
        (Err(JobError::Stopping), _) => ("released", Some(JobEnd::Release)),
        // What recurs comes again in any case: soon after the first failures, then at its usual time.
        (Err(error), Some(every)) => {
            let wait = if job.attempts < job.max_attempts { backoff(job.attempts).min(every) } else { every };
            ("failed", Some(JobEnd::Recur { run_at: next(wait), progress: None, error: Some(error.to_string()) }))
        }
        (Err(JobError::Failed(error)), None) if job.attempts < job.max_attempts => {
            ("failed", Some(JobEnd::Retry { run_at: next(backoff(job.attempts)), error }))
        }
        (Err(JobError::Failed(error) | JobError::Refused(error)), None) => ("dead", Some(JobEnd::Dead(error))),
    }
}

fn plus(at: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use scrip_domain::job::JobKind;

    #[test]
    fn waits_double_from_two_seconds_and_differ() {
        for (attempts, seconds) in [(1, 2), (2, 4), (3, 8), (4, 16)] {
            for _ in 0..100 {
                let wait = backoff(attempts);
                let least = Duration::from_secs(seconds);
                assert!((least..least + least / 4).contains(&wait), "{attempts}: {wait:?}");
            }
        }
        assert!(backoff(1_000) <= LONGEST_BACKOFF + LONGEST_BACKOFF / 4);
        assert!((0..100).any(|_| backoff(1) != backoff(1)));
    }

    #[test]
    fn a_third_failure_is_the_last_and_a_refusal_the_first() {
        let now = Timestamp(1_000_000);
        let job = |attempts| Job {
            attempts,
            ..Job::new(JobId(Uuid::nil()), JobKind::PointsGrant, "{}".into(), Timestamp(0))
        };
        let failed = || Err(JobError::Failed("no".into()));
        for attempts in 1..=2 {
            let (label, end) = judge(&job(attempts), failed(), now);
            assert_eq!(label, "failed");
            assert!(matches!(end, Some(JobEnd::Retry { run_at, .. }) if run_at.0 >= now.0 + 2_000_000 * attempts));
        }
        assert_eq!(judge(&job(3), failed(), now), ("dead", Some(JobEnd::Dead("no".into()))));
        let refused = Err(JobError::Refused("COUPON_SOLD_OUT".into()));
        assert_eq!(judge(&job(1), refused, now), ("dead", Some(JobEnd::Dead("COUPON_SOLD_OUT".into()))));
        assert_eq!(judge(&job(1), Err(JobError::Stopping), now).1, Some(JobEnd::Release));
        assert_eq!(judge(&job(1), Err(JobError::Lost), now).1, None);
        let recurring = Job { every: Some(60_000_000), ..job(3) };
        let (label, end) = judge(&recurring, failed(), now);
        assert_eq!(label, "failed");
        let usual = Timestamp(now.0 + 60_000_000);
        assert!(matches!(end, Some(JobEnd::Recur { run_at, error: Some(_), .. }) if run_at == usual));
    }
}
