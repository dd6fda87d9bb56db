//! A tenant's background jobs: seen, retried, cancelled, deleted. They are enqueued by the operations whose work they do.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use scrip_domain::job::{JobKind, JobState};
use scrip_domain::{Command, JobId};
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::answer;
use super::auth::Operator;
use super::extract::{InPath, Input, NoOptions, Parameters};
use super::problem::{Code, Problem};
use super::schema::{self, IdempotencyKey, PageQuery, Problems};
use super::time::Time;
use super::views::{JobPage, JobView, Page};
use crate::clock;

/// Jobs deleted by one request, at most.
const PURGE_MAX: i64 = 10_000;

/// List the jobs, newest first
///
/// With `state=DEAD`: what has failed for good, each with its reason.
#[utoipa::path(get, path = "/v1/jobs", tag = "Jobs", security(("key" = ["OPERATOR"])),
    params(("state" = Option<schema::JobState>, Query), ("kind" = Option<schema::JobKind>, Query), PageQuery),
    responses((status = 200, description = "A page", body = JobPage), Problems))]
pub async fn list_jobs(State(app): State<AppState>, Operator(caller): Operator, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let state = parameters.take("state", "QUEUED, RUNNING, DONE, DEAD or CANCELLED", JobState::parse);
    let kind = parameters.take("kind", "a kind of job, like POINTS_GRANT", JobKind::parse);
    let page = parameters.page();
    parameters.finish()?;
    let mut jobs = app.store.list_jobs(caller.tenant(), state, kind, page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut jobs, page.limit, |job| job.id.to_string());
    let data = jobs.iter().map(JobView::new).collect::<Result<Vec<_>, _>>()?;
    answer::ok(&Page { data, next_cursor })
}

/// Read a job
#[utoipa::path(get, path = "/v1/jobs/{job_id}", tag = "Jobs", security(("key" = ["OPERATOR"])),
    params(("job_id" = schema::JobId, Path)),
    responses((status = 200, description = "The job", body = JobView<'static>), Problems))]
pub async fn get_job(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(job_id): InPath<JobId>,
) -> Result<Response, Problem> {
    let found = app.store.find_job(caller.tenant(), job_id).await?;
    answer::ok(&JobView::new(&found.ok_or(Problem::new(Code::JobNotFound))?)?)
}

/// Retry a job that is dead or was cancelled
///
/// It gets its attempts anew. One that waits, runs or is done is left as it is.
#[utoipa::path(post, path = "/v1/jobs/{job_id}/retry", tag = "Jobs", security(("key" = ["OPERATOR"])),
    params(("job_id" = schema::JobId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "The job, queued again", body = JobView<'static>), Problems))]
pub async fn retry_job(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(job_id): InPath<JobId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let command = Command::RetryJob(job_id);
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// Cancel a job
///
/// What it has done already stays done. One that is over is left as it is.
#[utoipa::path(post, path = "/v1/jobs/{job_id}/cancel", tag = "Jobs", security(("key" = ["OPERATOR"])),
    params(("job_id" = schema::JobId, Path), IdempotencyKey), request_body = Option<NoOptions>,
    responses((status = 200, description = "The job, cancelled", body = JobView<'static>), Problems))]
pub async fn cancel_job(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(job_id): InPath<JobId>,
    input: Input<NoOptions>,
) -> Result<Response, Problem> {
    let command = Command::CancelJob(job_id);
    answer::run(&app, caller.envelope(command, input.value, input.idempotency, input.now)?, StatusCode::OK).await
}

/// What a purge has deleted.
#[derive(Serialize, ToSchema)]
#[schema(as = JobPurge)]
pub struct PurgeView {
    purged: u64,
    /// False when more may be there: ask again.
    done: bool,
}

/// Delete jobs that are over
///
/// At most 10,000 at a time: repeat until `done`. The server deletes them by itself in the end (see `jobs.done_days` and
/// `jobs.dead_days`).
#[utoipa::path(delete, path = "/v1/jobs", tag = "Jobs", security(("key" = ["OPERATOR"])),
    params(("state" = schema::FinishedJobState, Query, description = "Only jobs in this state."),
        ("finished_before" = Option<Time>, Query, description = "Only jobs that were over by then. Default: now.")),
    responses((status = 200, description = "What was deleted", body = PurgeView), Problems))]
pub async fn purge_jobs(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    const STATES: &str = "DONE, DEAD or CANCELLED";
    let mut parameters = Parameters::of(&uri)?;
    let is_final = |state: &JobState| !matches!(state, JobState::Queued | JobState::Running);
    let state = parameters.take("state", STATES, |text| JobState::parse(text).filter(is_final));
    let before = parameters.take("finished_before", "a time like 2026-03-01T00:00:00Z", Time::read);
    parameters.finish()?;
    let state = state.ok_or_else(|| Problem::field("state", "is required", format!("Send {STATES}.")))?;
    let before = before.map_or_else(clock::now, |time| time.0);
    let purged = app.store.purge_tenant_jobs(caller.tenant(), state, before, PURGE_MAX).await?;
    answer::ok(&PurgeView { purged, done: purged < PURGE_MAX as u64 })
}
