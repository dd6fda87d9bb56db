//! Posting what time has ended, on request. The server does the same in the background.

use std::ops::RangeInclusive;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use scrip_domain::{Command, Outcome, Rejection, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;

use super::AppState;
use super::answer::{self, SweepView};
use super::auth::Operator;
use super::extract::{Checked, Input};
use super::fields::FieldErrors;
use super::problem::Problem;
use super::schema::{IdempotencyKey, Problems};
use super::time::Time;
use crate::jobs::expire::{SweepScope, Sweeper};

const LIMITS: RangeInclusive<i64> = 1..=10_000;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpirationsRequest {
    /// How many rows of each kind at most. Default: 1000.
    #[schema(minimum = 1, maximum = 10_000)]
    limit: Option<i64>,
    /// What is due at that time; never in the future. Default: now.
    effective_at: Option<Time>,
}

impl Checked for ExpirationsRequest {
    type Value = (i64, Option<Timestamp>);

    fn check(self, errors: &mut FieldErrors, now: Timestamp) -> Option<Self::Value> {
        let limit = errors.within("limit", self.limit.unwrap_or(1_000), LIMITS);
        let effective_at = errors.effective_at(self.effective_at, now);
        Some((limit?, effective_at))
    }
}

/// Post expired coupons, locks, holds and points
///
/// They are unusable at once; this writes the fact and its events. Repeat until `done`.
#[utoipa::path(post, path = "/v1/expirations", tag = "Expirations", security(("key" = ["OPERATOR"])),
    params(IdempotencyKey), request_body = Option<ExpirationsRequest>,
    responses((status = 200, description = "What this call has posted", body = SweepView), Problems))]
pub async fn create_expirations(
    State(app): State<AppState>,
    Operator(caller): Operator,
    input: Input<ExpirationsRequest>,
) -> Result<Response, Problem> {
    let (limit, effective_at) = input.value;
    let (tenant, at) = (caller.tenant(), caller.at(effective_at, input.now)?);
    let mut sweeper = Sweeper::new(&app.store, &app.engine, tenant, Some(caller.id()), SweepScope::All);
    let Some(idempotency) = input.idempotency else {
        return answer::ok(&SweepView::from(sweeper.settle_page(at, limit).await?));
    };
    // A sweep is many commands, so its key is looked up before and recorded after. Cut off in between, its retry finds less
    // to do and says so. Of two at once the first to record is the answer of both.
    if let Some(record) = app.store.find_outcome(tenant, idempotency.key).await? {
        if record.fingerprint != idempotency.fingerprint {
            return Err(Rejection::IdempotencyKeyReused.into());
        }
        let outcome: Outcome = serde_json::from_str(&record.outcome).map_err(Problem::internal)?;
        return answer::respond(&app, tenant, &outcome, StatusCode::OK, true).await;
    }
    let command = Command::RecordSweep(sweeper.settle_page(at, limit).await?);
    let envelope = caller.envelope(command, effective_at, Some(idempotency), input.now)?;
    answer::run(&app, envelope, StatusCode::OK).await
}
