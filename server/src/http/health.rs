//! For those who run the server: is it alive, does it serve, and how does it do.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::problem::{Code, Problem};
use super::schema::{Unmeasured, Unready};

/// A store that takes longer is as good as gone.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The process lives
#[utoipa::path(get, path = "/healthz", tag = "Health",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
pub async fn get_health() -> &'static str {
    "ok\n"
}

/// Requests are served
#[utoipa::path(get, path = "/readyz", tag = "Health",
    responses((status = 200, description = "They are", body = String, content_type = "text/plain"),
        Unready))]
pub async fn get_readiness(State(app): State<AppState>) -> Result<&'static str, Problem> {
    if app.draining.load(Ordering::Relaxed) {
        return Err(Problem::new(Code::Draining));
    }
    match tokio::time::timeout(PING_TIMEOUT, app.store.ping()).await {
        Ok(answered) => answered?,
        Err(_) => return Err(Problem::new(Code::StoreUnavailable)),
    }
    Ok("ready\n")
}

/// Metrics for Prometheus
///
/// Not found when `telemetry.metrics` is off.
#[utoipa::path(get, path = "/metrics", tag = "Health",
    responses((status = 200, description = "The exposition text", body = String, content_type = "text/plain"), Unmeasured))]
pub async fn get_metrics(State(app): State<AppState>) -> Result<Response, Problem> {
    if !app.metrics.is_on {
        return Err(Problem::new(Code::RouteNotFound));
    }
    app.store.show_gauges();
    let exposition = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, exposition)], app.metrics.render()).into_response())
}
