//! Points tasks: authored by operators, reported by services, shown to members with their progress.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use scrip_domain::event::EventKind;
use scrip_domain::points::MAX_POINTS;
use scrip_domain::task::{Definition, MAX_REQUIRED, Period, Progress, Report, Task, TaskPatch};
use scrip_domain::time::Window;
use scrip_domain::{Command, CompletionId, MemberId, TaskId, TaskKey, Timestamp, TransactionId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::AppState;
use super::answer::{self, etag};
use super::auth::{AnyKey, Operator, Service};
use super::extract::{Checked, Cursor, InPath, Input, Object, Parameters, parse_value};
use super::fields::FieldErrors;
use super::problem::{Code, Problem};
use super::schema::{self, EditProblems, IdempotencyKey, PageQuery, Problems};
use super::templates::{WindowRequest, check_order, merge, version_of};
use super::time::Time;
use super::views::{Page, WindowView};
use crate::{calendar, clock};

const MAX_TIMES: i64 = 1_000_000;

/// Whether such events can report a task: something a member has done, and nothing that a task's own grant brings about.
fn can_report(kind: EventKind) -> bool {
    use EventKind::{
        CheckedIn, CouponClaimed, CouponLocked, CouponUsed, PointsCaptured, PointsDebited, PointsHeld,
        PointsTransferred,
    };
    matches!(
        kind,
        CheckedIn
            | CouponClaimed
            | CouponLocked
            | CouponUsed
            | PointsCaptured
            | PointsDebited
            | PointsHeld
            | PointsTransferred
    )
}

/// How an operator describes a task.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRequest {
    /// Yours, and for good.
    #[schema(value_type = schema::TaskKey)]
    key: Option<TaskKey>,
    #[schema(value_type = String, min_length = 1, max_length = 100)]
    name: Option<String>,
    #[schema(max_length = 500)]
    description: Option<String>,
    /// Granted for each completion.
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000_000_000_000i64)]
    points: Option<i64>,
    /// How often it may be done anew. Default: ONCE.
    #[schema(value_type = Option<schema::TaskPeriod>)]
    period: Option<Period>,
    /// Completions of a member in a period. Default: 1.
    #[schema(minimum = 1, maximum = 1_000_000)]
    limit_per_period: Option<i64>,
    /// Completions of a member in all. Null: no limit.
    #[schema(minimum = 1, maximum = 1_000_000)]
    total_limit: Option<i64>,
    /// How many reports make a completion. Default: 1.
    #[schema(minimum = 1, maximum = 1_000_000)]
    target: Option<i64>,
    /// Events of this type report the task for their member. Null: only the API does.
    #[schema(value_type = Option<schema::TaskEventType>)]
    event_type: Option<String>,
    /// When it can be done. Default: always.
    #[schema(value_type = Option<WindowRequest>)]
    window: Option<Object<WindowRequest>>,
    /// The keys of tasks that a member must have completed before, each at least once. Default: none.
    #[schema(value_type = Option<Vec<schema::TaskKey>>, max_items = 10)]
    requires: Option<Vec<TaskKey>>,
    /// Only to be edited; a new task is enabled.
    enabled: Option<bool>,
}

pub struct Authored {
    key: TaskKey,
    enabled: bool,
    definition: Definition,
}

impl Checked for TaskRequest {
    type Value = Authored;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<Authored> {
        let key = errors.required("key", self.key);
        let name = errors.required("name", self.name);
        errors.optional_text("name", name.as_deref(), 1..=100);
        let description = self.description.unwrap_or_default();
        errors.text("description", &description, 0..=500);
        let points = errors.integer("points", self.points, 1..=MAX_POINTS);
        let period = self.period.unwrap_or(Period::Once);
        let limit = errors.within("limit_per_period", self.limit_per_period.unwrap_or(1), 1..=MAX_TIMES);
        if period == Period::Once && limit.is_some_and(|limit| limit > 1) {
            errors.add("limit_per_period", "is more than 1 for a task done once", "Send 1, or another period.");
        }
        let total_limit = self.total_limit.map(|limit| errors.within("total_limit", limit, 1..=MAX_TIMES));
        let target = errors.within("target", self.target.unwrap_or(1), 1..=MAX_TIMES);
        if let Some(name) = &self.event_type
            && !EventKind::parse(name).is_some_and(can_report)
        {
            let known: Vec<_> = event_types().collect();
            errors.add("event_type", "cannot report a task", format!("Send one of: {}.", known.join(", ")));
        }
        let window = self.window.unwrap_or_default().0.read();
        if let (Some(start), Some(end)) = (window.starts_at, window.ends_at) {
            check_order(errors, "window.ends_at", start, end);
        }
        let requires = self.requires.unwrap_or_default();
        check_requires(errors, key.as_ref(), &requires);
        let total_limit = match total_limit {
            Some(checked) => Some(checked?),
            None => None,
        };
        let definition = Definition {
            name: name?,
            description,
            points: points?,
            period,
            limit_per_period: limit?,
            total_limit,
            target: target?,
            event_type: self.event_type,
            window,
            requires,
        };
        Some(Authored { key: key?, enabled: self.enabled.unwrap_or(true), definition })
    }
}

/// What can be told from the list alone; whether there are such tasks, the decision knows.
fn check_requires(errors: &mut FieldErrors, key: Option<&TaskKey>, requires: &[TaskKey]) {
    if requires.len() > MAX_REQUIRED {
        errors.add("requires", format!("has {} keys", requires.len()), format!("Send at most {MAX_REQUIRED}."));
        return;
    }
    for (index, required) in requires.iter().enumerate() {
        if key == Some(required) {
            errors.add(format!("requires[{index}]"), "is the task itself", "Leave it out.");
        } else if requires[..index].contains(required) {
            errors.add(format!("requires[{index}]"), "is there twice", "Name each task once.");
        }
    }
}

/// The events that may report a task.
pub fn event_types() -> impl Iterator<Item = &'static str> {
    EventKind::ALL.iter().filter(|kind| can_report(**kind)).map(|kind| kind.as_str())
}

/// A JSON merge patch (RFC 7396) over what [`TaskRequest`] describes.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct TaskEdit(Map<String, Value>);

impl utoipa::PartialSchema for TaskEdit {
    fn schema() -> RefOr<Schema> {
        let mut schema = <TaskRequest as utoipa::PartialSchema>::schema();
        if let RefOr::T(Schema::Object(edit)) = &mut schema {
            edit.description = Some("A JSON merge patch (RFC 7396): null restores the default.".into());
            edit.required.clear();
            edit.properties.shift_remove("key");
        }
        schema
    }
}

impl ToSchema for TaskEdit {}

impl Checked for TaskEdit {
    type Value = Map<String, Value>;

    fn check(self, errors: &mut FieldErrors, _: Timestamp) -> Option<Self::Value> {
        if self.0.contains_key("key") {
            errors.add("key", "cannot be edited", "Leave it out; make another task.");
        }
        // What else is wrong with an edit shows only when it is merged.
        Some(self.0)
    }
}

/// What a shop rewards beside orders.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsTask)]
pub struct TaskView<'a> {
    #[schema(value_type = schema::TaskId)]
    id: TaskId,
    #[schema(value_type = schema::TaskKey)]
    key: &'a TaskKey,
    #[schema(value_type = String)]
    name: &'a str,
    #[schema(value_type = String)]
    description: &'a str,
    points: i64,
    #[schema(value_type = schema::TaskPeriod)]
    period: Period,
    limit_per_period: i64,
    #[schema(required)]
    total_limit: Option<i64>,
    target: i64,
    #[schema(required, value_type = Option<schema::TaskEventType>)]
    event_type: Option<&'a str>,
    window: WindowView,
    /// What a member must have completed before; a task that was deleted is required no more.
    #[schema(value_type = Vec<schema::TaskKey>)]
    requires: &'a [TaskKey],
    enabled: bool,
    /// Grows with every edit. The ETag.
    version: i64,
    created_at: Time,
    updated_at: Time,
}

impl<'a> From<&'a Task> for TaskView<'a> {
    fn from(task: &'a Task) -> Self {
        let definition = &*task.definition;
        TaskView {
            id: task.id,
            key: &task.key,
            name: &definition.name,
            description: &definition.description,
            points: definition.points,
            period: definition.period,
            limit_per_period: definition.limit_per_period,
            total_limit: definition.total_limit,
            target: definition.target,
            event_type: definition.event_type.as_deref(),
            window: WindowView::from(&definition.window),
            requires: &definition.requires,
            enabled: task.enabled,
            version: task.version,
            created_at: Time(task.created_at),
            updated_at: Time(task.updated_at),
        }
    }
}

/// How far a member is with a task, in the period that today belongs to.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsTaskProgress)]
pub struct ProgressView {
    /// Reports towards the next completion, of `target`.
    steps: i64,
    /// Completions in this period, of `limit_per_period`.
    completions: i64,
    total_completions: i64,
    /// Whether no limit is reached.
    open: bool,
    #[schema(value_type = schema::LocalDate)]
    period_start: String,
}

/// A task as a member sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = MemberPointsTask)]
pub struct MemberTaskView<'a> {
    #[schema(value_type = TaskView<'static>)]
    task: TaskView<'a>,
    progress: ProgressView,
    /// Whether a report would count now: no limit is reached and nothing is missing.
    available: bool,
    /// What the task requires and the member has not completed yet.
    #[schema(value_type = Vec<schema::TaskKey>)]
    missing: Vec<&'a TaskKey>,
}

/// One report of a task.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsTaskCompletion)]
pub struct ReportView<'a> {
    #[schema(value_type = schema::MemberId)]
    member_id: &'a MemberId,
    #[schema(value_type = schema::TaskKey)]
    task_key: &'a TaskKey,
    #[schema(value_type = schema::CompletionId)]
    completion_id: &'a CompletionId,
    #[schema(value_type = schema::LocalDate)]
    period_start: String,
    /// Which of `target` reports it was.
    step: i64,
    target: i64,
    /// Whether it completed the task.
    completed: bool,
    /// Granted; 0 unless it completed the task.
    points: i64,
    #[schema(required, value_type = Option<schema::TransactionId>)]
    transaction_id: Option<TransactionId>,
    reported_at: Time,
}

impl<'a> From<&'a Report> for ReportView<'a> {
    fn from(report: &'a Report) -> Self {
        ReportView {
            member_id: &report.member_id,
            task_key: &report.task_key,
            completion_id: &report.completion_id,
            period_start: report.period_start.to_string(),
            step: report.step,
            target: report.target,
            completed: report.transaction_id.is_some(),
            points: report.points,
            transaction_id: report.transaction_id,
            reported_at: Time(report.reported_at),
        }
    }
}

/// Create a points task
#[utoipa::path(post, path = "/v1/points-tasks", tag = "Tasks", security(("key" = ["OPERATOR"])),
    params(IdempotencyKey), request_body = TaskRequest,
    responses((status = 201, description = "Created", body = TaskView<'static>, headers(("ETag" = String))), Problems))]
pub async fn create_points_task(
    State(app): State<AppState>,
    Operator(caller): Operator,
    input: Input<TaskRequest>,
) -> Result<Response, Problem> {
    let Authored { key, enabled, definition } = input.value;
    if !enabled {
        return Err(Problem::field("enabled", "is false for a new task", "Leave it out, and edit the task later."));
    }
    if definition.event_type.is_some() {
        // Before the task is there, so that no event after it is missed.
        app.store.begin_task_events(caller.tenant()).await?;
    }
    let command = Command::CreateTask { key, definition: Box::new(definition) };
    answer::run(&app, caller.envelope(command, None, input.idempotency, input.now)?, StatusCode::CREATED).await
}

/// List the points tasks
#[utoipa::path(get, path = "/v1/points-tasks", tag = "Tasks", security(("key" = ["SERVICE"])), params(PageQuery),
    responses((status = 200, description = "A page", body = super::views::PointsTaskPage), Problems))]
pub async fn list_points_tasks(
    State(app): State<AppState>,
    Service(caller): Service,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let page = parameters.page::<TaskKey>();
    parameters.finish()?;
    let mut tasks = app.store.list_tasks(caller.tenant(), page.cursor.as_ref(), page.limit + 1).await?;
    let next_cursor = super::cut(&mut tasks, page.limit, |task| task.key.write());
    answer::ok(&Page { data: tasks.iter().map(TaskView::from).collect(), next_cursor })
}

/// Read a points task
#[utoipa::path(get, path = "/v1/points-tasks/{task_key}", tag = "Tasks", security(("key" = ["SERVICE"])),
    params(("task_key" = schema::TaskKey, Path)),
    responses((status = 200, description = "The task", body = TaskView<'static>, headers(("ETag" = String))), Problems))]
pub async fn get_points_task(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(task_key): InPath<TaskKey>,
) -> Result<Response, Problem> {
    let task = app.store.find_task(caller.tenant(), &task_key).await?.ok_or(Problem::new(Code::TaskNotFound))?;
    let mut response = answer::ok(&TaskView::from(&task))?;
    response.headers_mut().insert(header::ETAG, etag(task.version));
    Ok(response)
}

/// Edit a points task
///
/// A JSON merge patch (RFC 7396). Progress so far stands; what is reported from now on follows the new definition.
#[utoipa::path(patch, path = "/v1/points-tasks/{task_key}", tag = "Tasks", security(("key" = ["OPERATOR"])),
    params(("task_key" = schema::TaskKey, Path), ("If-Match" = String, Header, description = "The ETag as read.")),
    request_body(content((TaskEdit = "application/merge-patch+json"), (TaskEdit = "application/json"))),
    responses((status = 200, description = "Edited", body = TaskView<'static>, headers(("ETag" = String))),
        Problems, EditProblems))]
pub async fn update_points_task(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(task_key): InPath<TaskKey>,
    headers: HeaderMap,
    input: Input<TaskEdit>,
) -> Result<Response, Problem> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Err(Problem::new(Code::PreconditionRequired)) };
    let task = app.store.find_task(caller.tenant(), &task_key).await?.ok_or(Problem::new(Code::TaskNotFound))?;
    let expected_version = tag.to_str().ok().and_then(version_of);
    let Some(expected_version) = expected_version.filter(|version| *version == task.version) else {
        return Err(scrip_domain::Rejection::TaskVersionStale { current: task.version }.into());
    };
    let mut value = serde_json::to_value(TaskView::from(&task)).map_err(Problem::internal)?;
    if let Some(fields) = value.as_object_mut() {
        for shown_only in ["id", "version", "created_at", "updated_at"] {
            fields.remove(shown_only);
        }
    }
    merge(&mut value, Value::Object(input.value));
    let Authored { enabled, definition, .. } = parse_value::<TaskRequest>(value, FieldErrors::default(), input.now)?;
    if definition.event_type.is_some() {
        app.store.begin_task_events(caller.tenant()).await?;
    }
    let patch = Box::new(TaskPatch { expected_version, enabled, definition });
    let command = Command::UpdateTask { key: task_key, patch };
    // If-Match makes a retry harmless; keys are for POST.
    answer::run(&app, caller.envelope(command, None, None, input.now)?, StatusCode::OK).await
}

/// Delete a points task
///
/// What members have completed stays; the key stays taken.
#[utoipa::path(delete, path = "/v1/points-tasks/{task_key}", tag = "Tasks", security(("key" = ["OPERATOR"])),
    params(("task_key" = schema::TaskKey, Path)),
    responses((status = 204, description = "Deleted"), Problems))]
pub async fn delete_points_task(
    State(app): State<AppState>,
    Operator(caller): Operator,
    InPath(task_key): InPath<TaskKey>,
) -> Result<Response, Problem> {
    let envelope = caller.envelope(Command::DeleteTask(task_key), None, None, clock::now())?;
    answer::run(&app, envelope, StatusCode::NO_CONTENT).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompletionRequest {
    /// Your id of what was done: an order's, a review's. It counts once.
    #[schema(value_type = schema::CompletionId)]
    completion_id: Option<CompletionId>,
    /// Operators only; never in the future.
    effective_at: Option<Time>,
}

impl Checked for CompletionRequest {
    type Value = (CompletionId, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let completion_id = errors.required("completion_id", self.completion_id);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((completion_id?, effective_at))
    }
}

/// Report a task for a member
///
/// Each `completion_id` counts once: the same again gives its first answer, with 200. The report that reaches the target
/// completes the task and grants its points, in one step. A task that requires others counts reports only when the member has
/// completed all of these.
#[utoipa::path(post, path = "/v1/members/{member_id}/tasks/{task_key}/completions", tag = "Tasks",
    security(("key" = ["SERVICE"])),
    params(("member_id" = schema::MemberId, Path), ("task_key" = schema::TaskKey, Path), IdempotencyKey),
    request_body = CompletionRequest,
    responses((status = 201, description = "Counted", body = ReportView<'static>),
        (status = 200, description = "Counted before", body = ReportView<'static>), Problems))]
pub async fn create_completion(
    State(app): State<AppState>,
    Service(caller): Service,
    InPath(member_id): InPath<MemberId>,
    InPath(key): InPath<TaskKey>,
    input: Input<CompletionRequest>,
) -> Result<Response, Problem> {
    let (completion_id, effective_at) = input.value;
    let at = caller.at(effective_at, input.now)?;
    let zone = app.store.zone(caller.tenant()).await?;
    let calendar = Arc::new(calendar::calendar(&zone, at));
    let command = Command::CompleteTask { member_id, key, completion_id, calendar };
    let envelope = caller.envelope(command, effective_at, input.idempotency, input.now)?;
    answer::run_once(&app, envelope).await
}

/// List the tasks with a member's progress
///
/// Those that are enabled and within their window, available or not.
#[utoipa::path(get, path = "/v1/members/{member_id}/tasks", tag = "Tasks", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), PageQuery),
    responses((status = 200, description = "A page", body = super::views::MemberPointsTaskPage), Problems))]
pub async fn list_member_tasks(
    State(app): State<AppState>,
    key: AnyKey,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.on_behalf_of(&member_id)?.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let page = parameters.page::<TaskKey>();
    parameters.finish()?;
    let now = clock::now();
    let today = calendar::day(&app.store.zone(tenant).await?, now);
    let mut found = app.store.list_member_tasks(tenant, &member_id, page.cursor.as_ref(), page.limit + 1).await?;
    let next_cursor = super::cut(&mut found, page.limit, |(task, _)| task.key.write());
    let is_current = |window: &Window| window.has_started(now) && !window.has_ended(now);
    found.retain(|(task, _)| task.enabled && is_current(&task.definition.window));
    let required = found.iter().flat_map(|(task, _)| &task.definition.requires).collect();
    let missing = app.store.tasks_not_completed(tenant, &member_id, &required).await?;
    let data = found
        .iter()
        .map(|(task, progress)| {
            let definition = &task.definition;
            let start = definition.period.start(today);
            let progress: Option<Progress> = progress.clone().map(|progress| progress.in_period(start));
            let (steps, completions, total, start) = progress.map_or((0, 0, 0, start), |progress| {
                (progress.steps, progress.completions, progress.total_completions, progress.period_start)
            });
            let open =
                completions < definition.limit_per_period && definition.total_limit.is_none_or(|limit| total < limit);
            let progress =
                ProgressView { steps, completions, total_completions: total, open, period_start: start.to_string() };
            let missing: Vec<&TaskKey> = definition.requires.iter().filter(|key| missing.contains(*key)).collect();
            MemberTaskView { task: TaskView::from(task), progress, available: open && missing.is_empty(), missing }
        })
        .collect();
    answer::ok(&Page { data, next_cursor })
}
