//! `scrip jobs`: background work, straight on the store. Servers notice what is retried or cancelled here within a second or
//! a heartbeat.

use clap::{Args, Subcommand};
use scrip_domain::job::{Job, JobKind, JobState};
use scrip_domain::{Answer, Command, Envelope, JobId, Outcome, TenantId, Timestamp};
use serde::Serialize;

use super::{StoreArgs, output};
use crate::clock;
use crate::store::Store;
use crate::store::job::NO_TENANT;

/// Jobs shown or deleted at a time.
const PAGE: i64 = 200;
const PURGE_PAGE: i64 = 2_000;

#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List jobs, newest first. Without --tenant: the server's own passes.
    List {
        #[command(flatten)]
        of: Owner,
        #[arg(long, value_parser = parse_state)]
        state: Option<JobState>,
        #[arg(long, value_parser = parse_kind)]
        kind: Option<JobKind>,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
        limit: i64,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Show a job with all it carries.
    Show {
        id: JobId,
        #[command(flatten)]
        of: Owner,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Queue a job again that is dead or was cancelled; with --all-dead, all that are dead.
    Retry {
        #[arg(required_unless_present = "all_dead", conflicts_with = "all_dead")]
        id: Option<JobId>,
        #[arg(long)]
        all_dead: bool,
        #[command(flatten)]
        of: Owner,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Cancel a job. What it has done already stays done.
    Cancel {
        id: JobId,
        #[command(flatten)]
        of: Owner,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Delete jobs that are over.
    Purge {
        #[command(flatten)]
        of: Owner,
        /// DONE, DEAD or CANCELLED.
        #[arg(long, value_parser = parse_final_state)]
        state: JobState,
        /// Only those that have been over for so many days.
        #[arg(long, default_value_t = 0)]
        older_than_days: u32,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Whose jobs.
#[derive(Debug, Clone, Copy, Args)]
pub struct Owner {
    /// The tenant that owns them. Default: the server itself.
    #[arg(long, value_name = "TENANT_ID")]
    tenant: Option<TenantId>,
}

impl Owner {
    async fn find(self, store: &Store) -> anyhow::Result<TenantId> {
        let Some(tenant) = self.tenant else { return Ok(NO_TENANT) };
        anyhow::ensure!(store.find_tenant(tenant).await?.is_some(), "there is no tenant {tenant}");
        Ok(tenant)
    }
}

fn parse_state(text: &str) -> Result<JobState, String> {
    JobState::parse(&text.to_uppercase()).ok_or_else(|| "expected QUEUED, RUNNING, DONE, DEAD or CANCELLED".into())
}

fn parse_final_state(text: &str) -> Result<JobState, String> {
    parse_state(text)
        .ok()
        .filter(|state| !matches!(state, JobState::Queued | JobState::Running))
        .ok_or_else(|| "expected DONE, DEAD or CANCELLED".into())
}

fn parse_kind(text: &str) -> Result<JobKind, String> {
    let names: Vec<&str> = JobKind::ALL.iter().map(|kind| kind.as_str()).collect();
    JobKind::parse(&text.to_uppercase()).ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

#[derive(Serialize)]
struct Shown {
    id: String,
    kind: &'static str,
    state: &'static str,
    priority: &'static str,
    run_at: String,
    attempts: i64,
    max_attempts: i64,
    payload: serde_json::Value,
    progress: serde_json::Value,
    last_error: Option<String>,
    created_at: String,
    finished_at: Option<String>,
}

impl From<&Job> for Shown {
    fn from(job: &Job) -> Self {
        Shown {
            id: job.id.to_string(),
            kind: job.kind.as_str(),
            state: job.state.as_str(),
            priority: job.priority.as_str(),
            run_at: output::time(job.run_at),
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            payload: serde_json::from_str(&job.payload).unwrap_or_default(),
            progress: serde_json::from_str(&job.progress).unwrap_or_default(),
            last_error: job.last_error.clone(),
            created_at: output::time(job.created_at),
            finished_at: job.finished_at.map(output::time),
        }
    }
}

fn show(json: bool, jobs: &[Job]) -> anyhow::Result<()> {
    let shown: Vec<Shown> = jobs.iter().map(Shown::from).collect();
    output::print(json, &shown, &["job", "kind", "state", "run at", "attempts", "progress", "error"], |job| {
        let attempts = format!("{}/{}", job.attempts, job.max_attempts);
        let progress = if job.progress == serde_json::json!({}) { String::new() } else { job.progress.to_string() };
        let error = job.last_error.clone().unwrap_or_default();
        vec![job.id.clone(), job.kind.into(), job.state.into(), job.run_at.clone(), attempts, progress, error]
    })
}

impl JobsCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            JobsCommand::List { of, state, kind, limit, json, store } => {
                let store = store.open_existing().await?;
                let tenant = of.find(&store).await?;
                show(json, &list(&store, tenant, state, kind, limit).await?)
            }
            JobsCommand::Show { id, of, json, store } => {
                let store = store.open_existing().await?;
                let tenant = of.find(&store).await?;
                let job = store.find_job(tenant, id).await?;
                let job = job.ok_or_else(|| anyhow::anyhow!("there is no job {id}; is it another --tenant's?"))?;
                if json {
                    return show(true, &[job]);
                }
                println!("{}", serde_json::to_string_pretty(&Shown::from(&job))?);
                Ok(())
            }
            JobsCommand::Retry { id, all_dead: _, of, json, store } => {
                let (store, engine) = store.engine().await?;
                let tenant = of.find(&store).await?;
                let ids = match id {
                    Some(id) => vec![id],
                    None => {
                        let dead = list(&store, tenant, Some(JobState::Dead), None, i64::MAX).await?;
                        dead.into_iter().map(|job| job.id).collect()
                    }
                };
                let mut jobs = Vec::with_capacity(ids.len());
                for page in ids.chunks(PAGE as usize) {
                    let commands = page.iter().map(|id| envelope(tenant, Command::RetryJob(*id))).collect();
                    for answer in engine.submit_all(commands).await {
                        jobs.push(job_of(answer?)?);
                    }
                }
                show(json, &jobs)
            }
            JobsCommand::Cancel { id, of, json, store } => {
                let (store, engine) = store.engine().await?;
                let tenant = of.find(&store).await?;
                show(json, &[job_of(engine.submit(envelope(tenant, Command::CancelJob(id))).await?)?])
            }
            JobsCommand::Purge { of, state, older_than_days, json, store } => {
                let store = store.open_existing().await?;
                let tenant = of.find(&store).await?;
                let days = i64::from(older_than_days) * scrip_domain::time::MICROS_PER_DAY;
                let before = Timestamp(clock::now().0.saturating_sub(days));
                let mut purged = 0;
                loop {
                    let page = store.purge_tenant_jobs(tenant, state, before, PURGE_PAGE).await?;
                    purged += page;
                    if page < PURGE_PAGE as u64 {
                        break;
                    }
                }
                if json {
                    println!("{}", serde_json::json!({ "purged": purged }));
                } else {
                    println!("{purged} jobs deleted.");
                }
                Ok(())
            }
        }
    }
}

async fn list(
    store: &Store,
    tenant: TenantId,
    state: Option<JobState>,
    kind: Option<JobKind>,
    limit: i64,
) -> anyhow::Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        let wanted = (limit - jobs.len() as i64).min(PAGE);
        let page = store.list_jobs(tenant, state, kind, jobs.last().map(|job| job.id), wanted).await?;
        let is_last = (page.len() as i64) < wanted;
        jobs.extend(page);
        if is_last || jobs.len() as i64 == limit {
            return Ok(jobs);
        }
    }
}

fn envelope(tenant: TenantId, command: Command) -> Envelope {
    let now = clock::now();
    Envelope { tenant, actor: None, command, idempotency: None, at: now, now, seed: clock::seed(now) }
}

fn job_of(answer: Answer) -> anyhow::Result<Job> {
    match answer {
        Answer::Accepted { outcome: Outcome::Job(job), .. } => Ok(*job),
        Answer::Accepted { .. } => anyhow::bail!("the job was answered with something else"),
        Answer::Refused(rejection) => anyhow::bail!("refused: {}", rejection.code()),
    }
}
