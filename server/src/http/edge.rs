//! What happens around every request, in one layer: its id, its time, its metrics, a caught panic, the body of a problem, and
//! word to the client when this server is about to stop.

use std::any::Any;
use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::Either;
use opentelemetry::context::FutureExt as _;
use tower::{Layer, Service};

use super::problem::{Code, Language, Problem};
use super::quota::AllowanceSlot;
use super::{AppState, consistency, docs};
use crate::clock;
use crate::telemetry;

pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_REQUEST_ID: usize = 64;

#[derive(Clone)]
pub struct EdgeLayer(pub AppState);

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge { inner, app: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct Edge<S> {
    inner: S,
    app: AppState,
}

impl<S> Service<Request> for Edge<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let started = Instant::now();
        let route = route_of(&request);
        let (method, version) = (request.method().clone(), request.version());
        let id = request_id(request.headers_mut());
        let allowance = self.app.quotas.are_set().then(AllowanceSlot::default);
        if let Some(slot) = &allowance {
            request.extensions_mut().insert(slot.clone());
        }
        let language = request.headers().get(header::ACCEPT_LANGUAGE).cloned();
        let span =
            telemetry::traces().map(|traces| (traces, traces.begin(&route.operation, &route.label, request.headers())));
        let called = self.inner.call(request);
        let called = match &span {
            Some((_, context)) => Either::Left(called.with_context(context.clone())),
            None => Either::Right(called),
        };
        let answered = AssertUnwindSafe(called).catch_unwind();
        let app = self.app.clone();
        Box::pin(async move {
            let mut response = match answered.await {
                Ok(Ok(response)) => response,
                Err(panic) => Problem::internal(panic_text(&*panic)).into_response(),
            };
            if let Some(problem) = response.extensions_mut().remove::<Problem>() {
                write_problem(&mut response, &problem, Language::of(language.as_ref()), &id);
            }
            if let Some(slot) = &allowance {
                slot.write(response.headers_mut());
            }
            let status = response.status().as_u16();
            let elapsed = started.elapsed();
            app.metrics.observe_request(&route.label, status, elapsed.as_secs_f64());
            if let Some((traces, context)) = &span {
                traces.end(context, status, id.to_str().unwrap_or_default());
            }
            tracing::debug!(
                request_id = id.to_str().unwrap_or_default(),
                route = route.label.as_str(),
                status,
                ?elapsed,
                "answered"
            );
            let headers = response.headers_mut();
            headers.insert(REQUEST_ID.clone(), id);
            consistency::write_token(&app, &method, headers);
            // A client must not send its next request on a connection that is about to be closed. HTTP/2 says so itself.
            if version < Version::HTTP_2 && app.draining.load(Ordering::Relaxed) {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

/// A route as metrics and traces call it.
struct Route {
    /// Method and path as declared, so that metrics stay few whatever is asked.
    label: String,
    /// `marketing.` and the operation.
    operation: String,
}

fn route_of(request: &Request) -> &'static Route {
    static UNMATCHED: LazyLock<Route> =
        LazyLock::new(|| Route { label: "unmatched".into(), operation: "marketing.unmatched".into() });
    static ROUTES: LazyLock<HashMap<String, Vec<(Method, Route)>>> = LazyLock::new(|| {
        let mut routes: HashMap<String, Vec<(Method, Route)>> = HashMap::new();
        for (method, path, id) in super::named_operations() {
            let operation = format!("marketing.{}", telemetry::operation_name(&id));
            let route = Route { label: format!("{method} {path}"), operation };
            routes.entry(path).or_default().push((method, route));
        }
        for path in docs::PATHS {
            routes
                .entry(path.to_owned())
                .or_default()
                .push((Method::GET, Route { label: "GET /docs".into(), operation: "marketing.docs".into() }));
        }
        routes
    });
    let Some(path) = request.extensions().get::<MatchedPath>() else { return &UNMATCHED };
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let routes = ROUTES.get(path.as_str()).map_or(&[][..], Vec::as_slice);
    routes.iter().find(|(known, _)| known == method).map_or(&UNMATCHED, |(_, route)| route)
}

/// The caller's request id, or a new one; the request carries it on to its handler.
fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    let is_usable = |id: &HeaderValue| {
        (1..=LONGEST_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if let Some(id) = headers.get(&REQUEST_ID).filter(|id| is_usable(id)) {
        return id.clone();
    }
    let mut text = [0; uuid::fmt::Simple::LENGTH];
    let random = uuid::Uuid::from_u128(clock::seed(clock::now()).random);
    let text = random.as_simple().encode_lower(&mut text);
    let id = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"));
    headers.insert(REQUEST_ID.clone(), id.clone());
    id
}

fn write_problem(response: &mut Response, problem: &Problem, language: Language, id: &HeaderValue) {
    let id = id.to_str().unwrap_or_default();
    problem.log_cause(id);
    let body = problem.body(language, id);
    // Plain data with text keys always serializes.
    let bytes = serde_json::to_vec(&body).unwrap_or_default();
    *response.body_mut() = Body::from(bytes);
    let status = response.status();
    let headers = response.headers_mut();
    // That of the empty body before.
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
    problem.add_headers(status, headers);
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a handler panicked: {}", text.unwrap_or("without a message"))
}

/// For paths that do not exist.
pub async fn no_such_path() -> Problem {
    Problem::new(Code::RouteNotFound)
}

/// For paths that exist, but not with this method.
pub async fn no_such_method() -> Problem {
    Problem::new(Code::MethodNotAllowed)
}
