//! Jobs as runners see them, and leases by name. Decisions about jobs are commands like any other; what is here moves a job
//! between its owner's hands, one statement each, and commits by itself.
//!
//! Every write of a runner names the fence it has claimed the job under, so one that comes late, from a runner whose lease
//! has ended, finds no row. Times are those of the asking node: nodes whose clocks differ by more than a lease would take
//! jobs from each other, and lose no more by it than a second attempt, since effects are fenced.

use scrip_domain::job::{Job, JobKind, JobPool, JobState, Priority};
use scrip_domain::{JobId, TenantId, Timestamp};
use tokio::sync::watch;
use uuid::Uuid;

use super::table::{JOB, job};
use super::value::{Param, Row};
use super::{Store, StoreError, decode};

type Found<T> = Result<T, StoreError>;

/// Jobs of the server itself belong to no tenant.
pub const NO_TENANT: TenantId = TenantId(Uuid::nil());

/// Counts the times that a job became ready on this node.
#[derive(Debug)]
pub struct JobsReady(watch::Sender<u64>);

impl Default for JobsReady {
    fn default() -> Self {
        JobsReady(watch::Sender::new(0))
    }
}

impl JobsReady {
    pub(super) fn notify(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// A job in the hands of a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub tenant: TenantId,
    pub job: Job,
}

/// How a run of a job ended, for those that do not end it themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// DONE; what came of it, as a JSON object, when there is something to say.
    Done(Option<String>),
    /// QUEUED again, for another attempt then; the error is that of the last one.
    Retry {
        run_at: Timestamp,
        error: String,
    },
    /// QUEUED again as if it had not been claimed.
    Release,
    /// QUEUED for the next run of a job that recurs, with the error of this one if it failed.
    Recur {
        run_at: Timestamp,
        progress: Option<String>,
        error: Option<String>,
    },
    Dead(String),
}

/// The right to do what only one node may do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Grows with every holder: give it along with what is written under the lease, to refuse what comes late.
    pub token: i64,
}

/// How many jobs of a kind are in a state, and since when the first of them is due, or over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCount {
    pub kind: JobKind,
    pub state: JobState,
    pub jobs: i64,
    pub oldest: Option<Timestamp>,
}

/// Takes what is due first; those that others have locked are being taken by them.
fn claim_sql(skip_locked: &str) -> String {
    format!(
        "WITH due(t, i) AS MATERIALIZED (SELECT tenant_id, id FROM job WHERE state = 'QUEUED' AND pool = $1 \
         AND priority = $2 AND run_at <= $3 ORDER BY run_at LIMIT $4 {skip_locked}) \
         UPDATE job SET state = 'RUNNING', attempts = attempts + 1, fence = fence + 1, lease_holder = $5, \
         lease_until = $6, updated_at = $7 FROM due WHERE job.tenant_id = due.t AND job.id = due.i RETURNING {}",
        decode::JOB
    )
}

/// For each priority whether a job is due: a look that locks nothing, which is all that an idle runner asks.
fn due_sql() -> String {
    let of = |priority: Priority| {
        format!(
            "EXISTS (SELECT 1 FROM job WHERE state = 'QUEUED' AND pool = $1 AND priority = {} AND run_at <= $2)",
            priority.rank()
        )
    };
    format!("SELECT {}", Priority::ALL.map(of).join(", "))
}

const IS_GONE: &str =
    "SELECT fence FROM job WHERE state = 'RUNNING' AND lease_until <= $1 AND lease_holder <> $2 LIMIT 1";

/// Those whose lease has ended: their runner is gone, or so slow that it counts as gone.
fn reap_sql(skip_locked: &str) -> String {
    format!(
        "WITH gone(t, i) AS MATERIALIZED (SELECT tenant_id, id FROM job WHERE state = 'RUNNING' AND lease_until <= $1 \
         AND lease_holder <> $2 ORDER BY lease_until LIMIT $3 {skip_locked}) \
         UPDATE job SET state = CASE WHEN attempts < max_attempts OR every IS NOT NULL THEN 'QUEUED' ELSE 'DEAD' END, \
         finished_at = CASE WHEN attempts < max_attempts OR every IS NOT NULL THEN NULL ELSE CAST($4 AS bigint) END, \
         run_at = $5, lease_holder = NULL, lease_until = NULL, updated_at = $6, \
         last_error = 'its runner went away in the middle' \
         FROM gone WHERE job.tenant_id = gone.t AND job.id = gone.i RETURNING {}",
        decode::JOB
    )
}

/// Rows that a batch has locked are about to end or change hands; the next heartbeat finds out.
fn extend_sql(skip_locked: &str) -> String {
    format!(
        "WITH held(t, i) AS MATERIALIZED (SELECT tenant_id, id FROM job WHERE state = 'RUNNING' AND lease_until > 0 \
         AND lease_holder = $1 {skip_locked}) \
         UPDATE job SET lease_until = $2 FROM held WHERE job.tenant_id = held.t AND job.id = held.i \
         RETURNING tenant_id, id, fence"
    )
}

const COUNTS: [&str; 3] = [
    "SELECT kind, state, count(*), min(run_at) FROM job WHERE state = 'QUEUED' GROUP BY kind, state",
    "SELECT kind, state, count(*), min(updated_at) FROM job WHERE state = 'RUNNING' GROUP BY kind, state",
    "SELECT kind, state, count(*), min(finished_at) FROM job WHERE finished_at IS NOT NULL AND state = 'DEAD' \
     GROUP BY kind, state",
];

fn list_sql(by_state: bool, by_kind: bool) -> String {
    let mut filter = String::new();
    let mut next = 3;
    for (wanted, column) in [(by_state, "state"), (by_kind, "kind")] {
        if wanted {
            filter.push_str(&format!(" AND {column} = ${next}"));
            next += 1;
        }
    }
    format!("SELECT {} FROM job WHERE tenant_id = $1 AND id < $2{filter} ORDER BY id DESC LIMIT ${next}", decode::JOB)
}

fn find_sql() -> String {
    format!("SELECT {} FROM job WHERE tenant_id = $1 AND id = $2", decode::JOB)
}

/// The statements of a busy runner and of operators, by name: for the test of their plans.
pub(super) fn hot_queries() -> Vec<(String, String)> {
    let mut all = vec![
        ("due_jobs".to_owned(), due_sql()),
        ("claim_jobs".to_owned(), claim_sql("")),
        ("gone_runners".to_owned(), IS_GONE.to_owned()),
        ("reap_jobs".to_owned(), reap_sql("")),
        ("extend_leases".to_owned(), extend_sql("")),
        ("find_job".to_owned(), find_sql()),
    ];
    for (state, kind) in [(false, false), (true, false), (true, true)] {
        all.push((format!("list_jobs {state} {kind}"), list_sql(state, kind)));
    }
    all
}

impl Store {
    async fn execute_returning<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Found<T>,
    ) -> Found<Vec<T>> {
        match self {
            Store::Sqlite(store) => store.execute_returning(sql, parameters, decode),
            Store::Postgres(store) => store.execute_returning(sql, parameters, decode).await,
        }
    }

    /// PostgreSQL's word for leaving alone what others have locked; SQLite has one writer at a time.
    fn skip_locked(&self) -> &'static str {
        match self {
            Store::Sqlite(_) => "",
            Store::Postgres(_) => "FOR UPDATE SKIP LOCKED",
        }
    }

    /// Hands at most `limit` jobs that are due at `now` to `holder`, urgent ones first. No other runner gets them before
    /// `lease_until`.
    pub async fn claim_jobs(
        &self,
        pool: JobPool,
        holder: Uuid,
        now: Timestamp,
        lease_until: Timestamp,
        limit: i64,
    ) -> Found<Vec<Claimed>> {
        let decode = |row: &Row| Ok([row.bool(0)?, row.bool(1)?, row.bool(2)?]);
        let due = self.first(&due_sql(), &[pool.as_str().into(), now.into()], decode).await?.unwrap_or_default();
        let sql = claim_sql(self.skip_locked());
        let mut claimed = Vec::new();
        for (priority, is_due) in Priority::ALL.into_iter().zip(due) {
            let left = limit - claimed.len() as i64;
            if !is_due || left <= 0 {
                continue;
            }
            let parameters = [
                pool.as_str().into(),
                priority.rank().into(),
                now.into(),
                left.into(),
                Param::Uuid(holder),
                lease_until.into(),
                now.into(),
            ];
            claimed.extend(self.execute_returning(&sql, &parameters, claimed_job).await?);
        }
        Ok(claimed)
    }

    /// Hands one job to `holder`, when it is queued and due.
    pub async fn claim_job(
        &self,
        tenant: TenantId,
        id: JobId,
        holder: Uuid,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Found<Option<Claimed>> {
        let sql = format!(
            "UPDATE job SET state = 'RUNNING', attempts = attempts + 1, fence = fence + 1, lease_holder = $1, \
             lease_until = $2, updated_at = $3 WHERE tenant_id = $4 AND id = $5 AND state = 'QUEUED' AND run_at <= $6 \
             RETURNING {}",
            decode::JOB
        );
        let parameters = [Param::Uuid(holder), lease_until.into(), now.into(), tenant.into(), id.0.into(), now.into()];
        Ok(self.execute_returning(&sql, &parameters, claimed_job).await?.into_iter().next())
    }

    /// Extends the leases of all jobs that `holder` has; which those are, with their fences.
    pub async fn extend_leases(&self, holder: Uuid, until: Timestamp) -> Found<Vec<(TenantId, JobId, i64)>> {
        let sql = extend_sql(self.skip_locked());
        let decode = |row: &Row| Ok((row.tenant(0)?, JobId(row.uuid(1)?), row.int(2)?));
        self.execute_returning(&sql, &[Param::Uuid(holder), until.into()], decode).await
    }

    /// Takes jobs from runners other than `holder` whose lease has ended by `now`: they are queued again at `run_at`, or dead
    /// when that was their last attempt.
    pub async fn reap_jobs(&self, holder: Uuid, now: Timestamp, run_at: Timestamp, limit: i64) -> Found<Vec<Claimed>> {
        if self.first(IS_GONE, &[now.into(), Param::Uuid(holder)], |row| row.int(0)).await?.is_none() {
            return Ok(Vec::new());
        }
        let sql = reap_sql(self.skip_locked());
        let parameters = [now.into(), Param::Uuid(holder), limit.into(), now.into(), run_at.into(), now.into()];
        self.execute_returning(&sql, &parameters, claimed_job).await
    }

    /// Notes how far a job has come; its attempts count anew from here. False when the lease is lost.
    pub async fn record_progress(&self, claimed: &Claimed, progress: &str, now: Timestamp) -> Found<bool> {
        let sql = "UPDATE job SET progress = $1, attempts = 1, last_error = NULL, updated_at = $2 \
                   WHERE tenant_id = $3 AND id = $4 AND state = 'RUNNING' AND fence = $5";
        let Claimed { tenant, job } = claimed;
        let parameters = [progress.into(), now.into(), (*tenant).into(), job.id.0.into(), job.fence.into()];
        Ok(self.execute(sql, &parameters).await? == 1)
    }

    /// Ends a run. False when the lease is lost, or the job's own effect has ended it.
    pub async fn end_job(&self, claimed: &Claimed, end: &JobEnd, now: Timestamp) -> Found<bool> {
        let Claimed { tenant, job } = claimed;
        let (state, run_at, attempts, progress, error) = match end {
            JobEnd::Done(progress) => (JobState::Done, job.run_at, job.attempts, progress.as_deref(), None),
            JobEnd::Retry { run_at, error } => (JobState::Queued, *run_at, job.attempts, None, Some(error.as_str())),
            JobEnd::Release => (JobState::Queued, job.run_at, job.attempts - 1, None, job.last_error.as_deref()),
            JobEnd::Recur { run_at, progress, error } => {
                let attempts = if error.is_some() { job.attempts } else { 0 };
                (JobState::Queued, *run_at, attempts, progress.as_deref(), error.as_deref())
            }
            JobEnd::Dead(error) => (JobState::Dead, job.run_at, job.attempts, None, Some(error.as_str())),
        };
        let finished_at = (state != JobState::Queued).then_some(now);
        let sql = "UPDATE job SET state = $1, run_at = $2, attempts = $3, progress = coalesce($4, progress), \
                   last_error = $5, updated_at = $6, finished_at = $7, lease_holder = NULL, lease_until = NULL \
                   WHERE tenant_id = $8 AND id = $9 AND state = 'RUNNING' AND fence = $10";
        let parameters = [
            state.as_str().into(),
            run_at.into(),
            attempts.into(),
            Param::OptText(progress),
            Param::OptText(error),
            now.into(),
            finished_at.into(),
            (*tenant).into(),
            job.id.0.into(),
            job.fence.into(),
        ];
        Ok(self.execute(sql, &parameters).await? == 1)
    }

    /// Makes sure that a job that recurs is there, first run at `run_at`, and recurs as it should by now.
    pub async fn ensure_recurring(&self, kind: JobKind, every: i64, run_at: Timestamp, now: Timestamp) -> Found<()> {
        let id = recurring_id(kind);
        let made = Job { every: Some(every), run_at, ..Job::new(id, kind, "{}".into(), now) };
        let columns: Vec<&str> = JOB.columns.iter().map(|(name, _)| *name).collect();
        let values: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
        let next = columns.len() + 1;
        // One that waits longer than the new interval is brought forward.
        let sql = format!(
            "INSERT INTO job ({}) VALUES ({}) ON CONFLICT (tenant_id, id) DO UPDATE SET every = excluded.every, \
             run_at = CASE WHEN job.run_at > ${next} THEN excluded.run_at ELSE job.run_at END",
            columns.join(", "),
            values.join(", ")
        );
        let mut parameters = job(NO_TENANT, &made);
        parameters.push(Timestamp(now.0.saturating_add(every)).into());
        self.execute(&sql, &parameters).await?;
        Ok(())
    }

    pub async fn find_job(&self, tenant: TenantId, id: JobId) -> Found<Option<Job>> {
        self.first(&find_sql(), &[tenant.into(), id.0.into()], decode::job).await
    }

    /// A tenant's jobs, newest first.
    pub async fn list_jobs(
        &self,
        tenant: TenantId,
        state: Option<JobState>,
        kind: Option<JobKind>,
        after: Option<JobId>,
        limit: i64,
    ) -> Found<Vec<Job>> {
        let sql = list_sql(state.is_some(), kind.is_some());
        let mut parameters = vec![tenant.into(), after.map_or(Uuid::max(), |id| id.0).into()];
        parameters.extend(state.map(|state| Param::Text(state.as_str())));
        parameters.extend(kind.map(|kind| Param::Text(kind.as_str())));
        parameters.push(limit.into());
        self.query(&sql, &parameters, decode::job).await
    }

    /// Deletes jobs of all tenants that were over in that state before `before`, at most `limit`; how many there were.
    pub async fn purge_jobs(&self, state: JobState, before: Timestamp, limit: i64) -> Found<u64> {
        let sql = "DELETE FROM job WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM job \
                   WHERE finished_at IS NOT NULL AND state = $1 AND finished_at < $2 ORDER BY finished_at LIMIT $3)";
        self.execute(sql, &[state.as_str().into(), before.into(), limit.into()]).await
    }

    /// Deletes a tenant's jobs that were over in that state before `before`, at most `limit`; how many there were.
    pub async fn purge_tenant_jobs(
        &self,
        tenant: TenantId,
        state: JobState,
        before: Timestamp,
        limit: i64,
    ) -> Found<u64> {
        let sql = "DELETE FROM job WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM job \
                   WHERE tenant_id = $1 AND state = $2 AND finished_at < $3 ORDER BY id LIMIT $4)";
        self.execute(sql, &[tenant.into(), state.as_str().into(), before.into(), limit.into()]).await
    }

    /// How many jobs wait, run and are dead, by kind, over all tenants.
    pub async fn count_jobs(&self) -> Found<Vec<JobCount>> {
        let mut counts = Vec::new();
        for sql in COUNTS {
            let decode = |row: &Row| {
                Ok(JobCount {
                    kind: row.name(0, JobKind::parse)?,
                    state: row.name(1, JobState::parse)?,
                    jobs: row.int(2)?,
                    oldest: row.opt_time(3)?,
                })
            };
            counts.extend(self.query(sql, &[], decode).await?);
        }
        Ok(counts)
    }

    /// Takes the lease of that name when it is free at `now`, or is `holder`'s already; `None` when somebody else has it.
    pub async fn acquire_lease(
        &self,
        name: &str,
        holder: Uuid,
        now: Timestamp,
        until: Timestamp,
    ) -> Found<Option<Lease>> {
        let sql = "INSERT INTO lease (name, holder, token, until) VALUES ($1, $2, 1, $3) \
                   ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = lease.token + 1, \
                   until = excluded.until WHERE lease.until <= $4 OR lease.holder = excluded.holder RETURNING token";
        let parameters = [name.into(), Param::Uuid(holder), until.into(), now.into()];
        let taken = self.execute_returning(sql, &parameters, |row| Ok(Lease { token: row.int(0)? })).await?;
        Ok(taken.into_iter().next())
    }

    /// Keeps a lease for longer. False when it has ended, or passed on, meanwhile.
    pub async fn renew_lease(&self, name: &str, lease: Lease, now: Timestamp, until: Timestamp) -> Found<bool> {
        let sql = "UPDATE lease SET until = $1 WHERE name = $2 AND token = $3 AND until > $4";
        Ok(self.execute(sql, &[until.into(), name.into(), lease.token.into(), now.into()]).await? == 1)
    }

    /// Gives a lease up. The row stays, so that its token goes on growing.
    pub async fn release_lease(&self, name: &str, lease: Lease) -> Found<()> {
        let sql = "UPDATE lease SET until = 0 WHERE name = $1 AND token = $2";
        self.execute(sql, &[name.into(), lease.token.into()]).await?;
        Ok(())
    }
}

fn claimed_job(row: &Row) -> Found<Claimed> {
    Ok(Claimed { tenant: row.tenant(0)?, job: decode::job(row)? })
}

/// Always the same id for a kind, so that every node finds the same row.
pub fn recurring_id(kind: JobKind) -> JobId {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(kind.as_str().bytes()).for_each(|(place, byte)| *place = byte);
    JobId(Uuid::from_bytes(bytes))
}
