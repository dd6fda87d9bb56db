//! The HTTP API: what docs/API.md promises, over the engine and the store.
//!
//! A handler takes its parameters in this order: who asks (`auth`), the path, the body (`extract`); so a request without
//! a credential learns nothing else. Its first parameter is its scope: there is no other way to a tenant. Commands go to the
//! engine, reads to the store; `answer` and `views` give the objects their public form, `problem` the refusals.
//! `edge` surrounds every request, `serve` the connections.

mod adjustments;
mod answer;
pub mod auth;
mod baskets;
mod batch;
mod bulks;
mod caches;
mod codes;
mod consistency;
mod coupons;
mod docs;
mod edge;
mod events;
mod expirations;
mod exports;
mod extract;
mod fields;
mod health;
mod idempotency;
mod imports;
mod jobs;
mod members;
mod orders;
mod percent;
mod points;
mod problem;
mod programs;
pub mod quota;
mod quote_token;
mod quotes;
mod reports;
mod rules;
mod schema;
mod serve;
mod statements;
mod tasks;
mod templates;
mod tenants;
mod time;
mod views;
mod webhooks;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::Method;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use events::event_json;
pub use serve::serve;

use crate::codes::Codes;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::relay::sender::Sender;
use crate::store::Store;

/// Every path with its methods. What a handler admits is its first parameter: `Platform`, `Operator`, `Service`, `AnyKey`;
/// the handlers of [`health`] have none and are public.
fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(schema::document())
        // Platform.
        .routes(routes!(tenants::create_tenant, tenants::list_tenants))
        .routes(routes!(tenants::get_tenant))
        .routes(routes!(tenants::create_api_key, tenants::list_api_keys))
        .routes(routes!(tenants::revoke_api_key))
        // Programs.
        .routes(routes!(programs::create_program, programs::list_programs))
        .routes(routes!(programs::list_wallets))
        // Templates.
        .routes(routes!(templates::create_coupon_template, templates::list_coupon_templates))
        .routes(routes!(
            templates::get_coupon_template,
            templates::update_coupon_template,
            templates::delete_coupon_template
        ))
        .routes(routes!(templates::enable_coupon_template))
        .routes(routes!(templates::disable_coupon_template))
        .routes(routes!(templates::archive_coupon_template))
        .routes(routes!(templates::clone_coupon_template))
        .routes(routes!(templates::change_coupon_template_stock))
        // Coupons.
        .routes(routes!(coupons::create_claim))
        .routes(routes!(coupons::create_exchange))
        .routes(routes!(coupons::get_coupon))
        .routes(routes!(coupons::list_coupons))
        .routes(routes!(coupons::lock_coupon))
        .routes(routes!(coupons::use_coupon))
        .routes(routes!(coupons::unlock_coupon))
        .routes(routes!(coupons::return_coupon))
        .routes(routes!(coupons::revoke_coupon))
        // Quotes.
        .routes(routes!(quotes::create_quote))
        .routes(routes!(coupons::transfer_coupon))
        .routes(routes!(coupons::extend_coupon))
        .routes(routes!(coupons::create_extension))
        .routes(routes!(coupons::list_usages))
        // Codes.
        .routes(routes!(codes::create_codes))
        .routes(routes!(codes::import_codes))
        .routes(routes!(codes::list_code_batches))
        .routes(routes!(codes::get_code_batch))
        .routes(routes!(codes::enable_code_batch))
        .routes(routes!(codes::disable_code_batch))
        .routes(routes!(codes::revoke_code_batch))
        .routes(routes!(codes::export_codes))
        .routes(routes!(codes::get_code))
        .routes(routes!(codes::enable_code))
        .routes(routes!(codes::disable_code))
        .routes(routes!(codes::revoke_code))
        .routes(routes!(codes::assign_code))
        .routes(routes!(codes::unassign_code))
        .routes(routes!(codes::create_code_claim))
        // Points.
        .routes(routes!(points::get_points))
        .routes(routes!(points::create_grant))
        .routes(routes!(points::create_debit))
        .routes(routes!(points::create_hold))
        .routes(routes!(points::get_hold))
        .routes(routes!(points::capture_hold))
        .routes(routes!(points::release_hold))
        .routes(routes!(points::get_transaction))
        .routes(routes!(points::create_reversal))
        .routes(routes!(points::list_transactions))
        .routes(routes!(points::list_lots))
        .routes(routes!(points::list_holds))
        // Orders.
        .routes(routes!(orders::reserve_order))
        .routes(routes!(orders::get_order))
        .routes(routes!(orders::list_orders))
        .routes(routes!(orders::pay_order))
        .routes(routes!(orders::confirm_order))
        .routes(routes!(orders::cancel_order))
        .routes(routes!(orders::refund_order, orders::list_refunds))
        .routes(routes!(orders::list_compensations))
        .routes(routes!(orders::close_compensation))
        // Rules.
        .routes(routes!(rules::get_points_rules, rules::set_points_rules))
        .routes(routes!(rules::list_points_rules_versions))
        .routes(routes!(rules::simulate_points_rules))
        .routes(routes!(members::create_transfer))
        .routes(routes!(members::create_merge))
        .routes(routes!(adjustments::create_adjustment))
        .routes(routes!(adjustments::list_adjustments))
        .routes(routes!(adjustments::get_adjustment))
        .routes(routes!(adjustments::approve_adjustment))
        .routes(routes!(adjustments::reject_adjustment))
        .routes(routes!(statements::get_statement))
        .routes(routes!(statements::list_expiring))
        // Check-ins and tasks.
        .routes(routes!(members::create_check_in, members::list_check_ins))
        .routes(routes!(tasks::create_points_task, tasks::list_points_tasks))
        .routes(routes!(tasks::get_points_task, tasks::update_points_task, tasks::delete_points_task))
        .routes(routes!(tasks::create_completion))
        .routes(routes!(tasks::list_member_tasks))
        // Reports.
        .routes(routes!(reports::get_leaderboard))
        .routes(routes!(reports::get_rank))
        .routes(routes!(reports::get_points_report))
        .routes(routes!(reports::get_liability))
        .routes(routes!(reports::get_template_statistics))
        .routes(routes!(reports::get_coupon_report))
        // Bulks.
        .routes(routes!(bulks::create_distribution))
        .routes(routes!(bulks::list_distributions))
        .routes(routes!(bulks::get_distribution))
        .routes(routes!(bulks::list_distribution_results))
        .routes(routes!(bulks::cancel_distribution))
        .routes(routes!(bulks::create_points_grants, bulks::list_points_grants))
        .routes(routes!(bulks::get_points_grants))
        .routes(routes!(bulks::list_points_grant_results))
        .routes(routes!(bulks::cancel_points_grants))
        // Jobs.
        .routes(routes!(jobs::list_jobs, jobs::purge_jobs))
        .routes(routes!(jobs::get_job))
        .routes(routes!(jobs::retry_job))
        .routes(routes!(jobs::cancel_job))
        // Caches.
        .routes(routes!(caches::create_cache_eviction))
        // Exports.
        .routes(routes!(exports::export_coupons))
        .routes(routes!(exports::export_usages))
        .routes(routes!(exports::export_templates))
        .routes(routes!(exports::export_points_transactions))
        .routes(routes!(exports::export_points_balances))
        // Imports.
        .routes(routes!(imports::import_templates))
        .routes(routes!(imports::import_coupons))
        .routes(routes!(imports::import_points))
        // The rest.
        .routes(routes!(batch::create_batch))
        .routes(routes!(expirations::create_expirations))
        .routes(routes!(events::list_events))
        // Webhooks.
        .routes(routes!(webhooks::create_webhook, webhooks::list_webhooks))
        .routes(routes!(webhooks::get_webhook, webhooks::update_webhook, webhooks::delete_webhook))
        .routes(routes!(webhooks::enable_webhook))
        .routes(routes!(webhooks::disable_webhook))
        .routes(routes!(webhooks::rotate_webhook))
        .routes(routes!(webhooks::replay_webhook))
        .routes(routes!(webhooks::resend_webhook))
        .routes(routes!(webhooks::test_webhook))
        .routes(routes!(webhooks::list_webhook_deliveries))
        .routes(routes!(health::get_health))
        .routes(routes!(health::get_readiness))
        .routes(routes!(health::get_metrics))
}

/// The server as a service.
pub fn router(app: AppState) -> Router {
    let (api, _) = api().split_for_parts();
    api.merge(docs::routes())
        .fallback(edge::no_such_path)
        .method_not_allowed_fallback(edge::no_such_method)
        .layer(edge::EdgeLayer(app.clone()))
        .with_state(app)
}

/// The API's description.
pub fn openapi() -> OpenApi {
    let mut document = api().into_openapi();
    schema::close_variants(&mut document);
    document
}

/// The same as indented JSON: the text of openapi.json but for its last line break.
pub fn openapi_json() -> String {
    // The document is plain data.
    openapi().to_pretty_json().unwrap_or_default()
}

/// Method and path of every operation in openapi.json.
#[cfg(test)]
fn operations() -> impl Iterator<Item = (Method, String)> {
    named_operations().map(|(method, path, _)| (method, path))
}

/// The same with the operation's id.
fn named_operations() -> impl Iterator<Item = (Method, String, String)> {
    openapi().paths.paths.into_iter().flat_map(|(path, item)| {
        let all = [
            (Method::GET, item.get),
            (Method::POST, item.post),
            (Method::PUT, item.put),
            (Method::PATCH, item.patch),
            (Method::DELETE, item.delete),
        ];
        all.into_iter().filter_map(move |(method, operation)| {
            let id = operation?.operation_id.unwrap_or_default();
            Some((method, path.clone(), id))
        })
    })
}

/// What a client may ask of us at most.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    pub max_connections: usize,
    pub max_body_bytes: usize,
    pub max_batch_bytes: usize,
    pub max_upload_bytes: usize,
    /// How long a stopping server waits for requests under way.
    pub drain: Duration,
    pub quota: quota::QuotaOptions,
}

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// The parts of [`AppState`].
pub struct Shared {
    store: Store,
    engine: Engine,
    metrics: Arc<Metrics>,
    sender: Sender,
    limits: HttpLimits,
    platform_digest: [u8; 32],
    quote_key: quote_token::QuoteKey,
    keys: auth::KeyCache,
    programs: programs::ProgramCache,
    codes: Arc<Codes>,
    quotas: quota::Quotas,
    draining: AtomicBool,
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    pub fn new(
        store: Store,
        engine: Engine,
        metrics: Arc<Metrics>,
        sender: Sender,
        limits: HttpLimits,
        platform_digest: [u8; 32],
        codes: Arc<Codes>,
    ) -> Self {
        let (keys, draining) = (auth::KeyCache::new(), AtomicBool::new(false));
        let quotas = quota::Quotas::new(limits.quota.clone());
        AppState(Arc::new(Shared {
            store,
            engine,
            metrics,
            sender,
            limits,
            platform_digest,
            quote_key: quote_token::QuoteKey::new(&platform_digest),
            keys,
            programs: programs::ProgramCache::new(),
            codes,
            quotas,
            draining,
        }))
    }

    /// Lets `/readyz` say that this server is about to stop; it goes on answering.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Cuts what was read beyond the page, and gives the cursor to what follows if there was any.
fn cut<T>(rows: &mut Vec<T>, limit: i64, cursor: impl Fn(&T) -> String) -> Option<String> {
    let limit = usize::try_from(limit).unwrap_or_default();
    if rows.len() <= limit {
        return None;
    }
    rows.truncate(limit);
    rows.last().map(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode, header};
    use axum::response::Response;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use crate::codes::KeyFile;
    use crate::engine::EngineOptions;
    use crate::relay::guard::{Guard, Policy};
    use crate::store::{StoreOptions, StoreUrl};

    /// The paths that need no credential.
    const PUBLIC: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

    struct Server {
        app: AppState,
        platform: String,
        _folder: tempfile::TempDir,
    }

    async fn server() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(StoreUrl::Sqlite(folder.path().join("scrip.db")));
        let store = Store::open(&options).await.unwrap();
        store.migrate().await.unwrap();
        let metrics = Metrics::new();
        let engine = Engine::start(&store, EngineOptions::default(), metrics.clone()).await.unwrap();
        let limits = HttpLimits {
            max_connections: 10,
            max_body_bytes: 65_536,
            max_batch_bytes: 8 * 1024 * 1024,
            max_upload_bytes: 8 * 1024 * 1024,
            drain: Duration::from_secs(1),
            quota: quota::QuotaOptions::default(),
        };
        let (platform, digest) = auth::new_secret();
        let sender = Sender::new(Guard::new(Policy::default()), Duration::from_secs(1)).unwrap();
        let codes = Arc::new(Codes::new(KeyFile::Beside(folder.path().join("codes.key"))));
        let app = AppState::new(store, engine, metrics, sender, limits, digest, codes);
        Server { app, platform, _folder: folder }
    }

    impl Server {
        async fn send(&self, request: Request<Body>) -> Response {
            router(self.app.clone()).oneshot(request).await.unwrap()
        }

        async fn ask(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
            let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
            let request = match body {
                Some(body) => {
                    request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()
                }
                None => request.body(Body::empty()).unwrap(),
            };
            let response = self.send(request).await;
            (response.status(), body_of(response).await)
        }

        async fn key(&self, scope: &str, member: Option<&str>) -> String {
            let tenant = json!({"name":"Shop","currency":"EUR","time_zone":"UTC"});
            let (status, tenant) = self.ask(&self.platform, "POST", "/v1/tenants", Some(tenant)).await;
            assert_eq!(status, 201, "{tenant}");
            self.key_of(tenant["id"].as_str().unwrap(), scope, member).await
        }

        async fn key_of(&self, tenant: &str, scope: &str, member: Option<&str>) -> String {
            let path = format!("/v1/tenants/{tenant}/api-keys");
            let key = json!({"name":"k","scope":scope,"member_id":member});
            let (status, key) = self.ask(&self.platform, "POST", &path, Some(key)).await;
            assert_eq!(status, 201, "{key}");
            key["secret"].as_str().unwrap().to_owned()
        }
    }

    async fn body_of(response: Response) -> Value {
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
    }

    fn filled(path: &str) -> String {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        parts.collect::<Vec<_>>().join("/")
    }

    #[tokio::test]
    async fn nothing_but_the_public_paths_answers_without_a_credential() {
        let server = server().await;
        let wrong =
            ["", "Basic x", "Bearer", "Bearer x", &format!("Bearer scrip_{}", "0".repeat(72))].map(str::to_owned);
        let stranger = format!("Bearer {}", auth::new_secret().0);
        for (method, path) in operations() {
            for credential in wrong.iter().chain([&stranger]) {
                let mut request = Request::builder().method(method.clone()).uri(filled(&path));
                if !credential.is_empty() {
                    request = request.header("authorization", credential);
                }
                let response = server.send(request.body(Body::from("nonsense")).unwrap()).await;
                if PUBLIC.contains(&path.as_str()) {
                    assert_eq!(response.status(), 200, "{method} {path}");
                } else {
                    assert_eq!(response.status(), 401, "{method} {path} with {credential:?}");
                    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
                    let id = response.headers()["x-request-id"].clone();
                    assert_eq!(body_of(response).await["request_id"], id.to_str().unwrap());
                }
            }
        }
    }

    #[tokio::test]
    async fn every_operation_admits_the_scope_it_declares_and_none_below() {
        let server = server().await;
        let keys = [
            ("MEMBER", server.key("MEMBER", Some("x")).await),
            ("SERVICE", server.key("SERVICE", None).await),
            ("OPERATOR", server.key("OPERATOR", None).await),
            ("PLATFORM", server.platform.clone()),
        ];
        let rank = |scope: &str| keys.iter().position(|(name, _)| *name == scope).unwrap();
        let document: Value = serde_json::from_str(&openapi_json()).unwrap();
        for (method, path) in operations() {
            let operation = &document["paths"][&path][method.as_str().to_lowercase()];
            if PUBLIC.contains(&path.as_str()) {
                assert!(operation["security"].is_null(), "{path}");
                continue;
            }
            let declared = operation["security"][0]["key"][0].as_str().expect("a declared scope");
            for (scope, key) in &keys {
                let admitted = if declared == "PLATFORM" || *scope == "PLATFORM" {
                    *scope == declared
                } else {
                    rank(scope) >= rank(declared)
                };
                let (status, body) = server.ask(key, method.as_str(), &filled(&path), None).await;
                assert_eq!(status != 403, admitted, "{method} {path} with {scope}: {body}");
                assert_ne!(status, 401);
            }
        }
    }

    #[tokio::test]
    async fn a_members_key_reaches_only_its_own() {
        let server = server().await;
        let tenant = json!({"name":"Shop","currency":"EUR","time_zone":"UTC"});
        let (_, tenant) = server.ask(&server.platform, "POST", "/v1/tenants", Some(tenant)).await;
        let tenant = tenant["id"].as_str().unwrap();
        let operator = server.key_of(tenant, "OPERATOR", None).await;
        let own = server.key_of(tenant, "MEMBER", Some("m-1")).await;
        let other = server.key_of(tenant, "MEMBER", Some("m-2")).await;
        let template =
            json!({"name":"n","benefit":{"type":"AMOUNT_OFF","amount":1},"validity":{"type":"RELATIVE","days":1}});
        let (status, template) = server.ask(&operator, "POST", "/v1/coupon-templates", Some(template)).await;
        assert_eq!(status, 201, "{template}");
        let claims = format!("/v1/coupon-templates/{}/claims", template["id"].as_str().unwrap());
        let claim = json!({"member_id":"m-1"});
        assert_eq!(server.ask(&other, "POST", &claims, Some(claim.clone())).await.0, 403);
        let (status, coupon) = server.ask(&own, "POST", &claims, Some(claim)).await;
        assert_eq!(status, 201, "{coupon}");
        let path = format!("/v1/coupons/{}", coupon["id"].as_str().unwrap());
        assert_eq!(server.ask(&own, "GET", &path, None).await, (StatusCode::OK, coupon));
        assert_eq!(server.ask(&other, "GET", &path, None).await.0, 404);
        let stranger = server.key("OPERATOR", None).await;
        assert_eq!(server.ask(&stranger, "GET", &path, None).await.0, 404);
        assert_eq!(server.ask(&own, "GET", "/v1/members/m-1/points", None).await.0, 200);
        assert_eq!(server.ask(&own, "GET", "/v1/members/m-2/points", None).await.0, 403);
        let early = json!({"member_id":"m-1","effective_at":"2020-01-01T00:00:00Z"});
        assert_eq!(server.ask(&own, "POST", &claims, Some(early)).await.0, 403);
    }

    #[tokio::test]
    async fn what_is_not_there_or_not_readable_is_a_problem() {
        let server = server().await;
        let operator = server.key("OPERATOR", None).await;
        let cases = [
            ("GET", "/nowhere", None, 404, "NOT_FOUND"),
            ("PUT", "/v1/tenants", None, 405, "METHOD_NOT_ALLOWED"),
            ("GET", "/v1/coupons/cpn_1", None, 404, "COUPON_NOT_FOUND"),
            ("GET", "/v1/coupons/%FF", None, 404, "COUPON_NOT_FOUND"),
            ("GET", "/v1/members/a%20b/points", None, 400, "INVALID_REQUEST"),
            ("GET", "/v1/events?limit=0", None, 400, "INVALID_REQUEST"),
            ("POST", "/v1/coupon-templates", Some(json!([])), 400, "INVALID_REQUEST"),
            ("POST", "/v1/coupon-templates", Some(json!("x".repeat(70_000))), 413, "BODY_TOO_LARGE"),
            ("POST", "/v1/batch", Some(json!({})), 415, "UNSUPPORTED_MEDIA_TYPE"),
            ("PATCH", "/v1/coupon-templates/tpl_00000000000000000000000000000001", None, 428, "PRECONDITION_REQUIRED"),
        ];
        for (method, path, body, status, code) in cases {
            let (answered, body) = server.ask(&operator, method, path, body).await;
            assert_eq!(answered, status, "{method} {path}: {body}");
            assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)), "{method} {path}");
        }
        let request = Request::builder().method("POST").uri("/v1/expirations");
        let request = request.header("authorization", format!("Bearer {operator}")).header("accept-language", "zh");
        let request = request.header("content-type", "text/plain").header("x-request-id", "mine");
        let response = server.send(request.body(Body::from("{}")).unwrap()).await;
        assert_eq!(response.status(), 415);
        assert_eq!(response.headers()[header::CONTENT_LANGUAGE], "zh");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()["x-request-id"], "mine");
        assert_eq!(body_of(response).await["title"], "不支持的媒体类型");
    }

    #[tokio::test]
    async fn a_revoked_key_is_refused_at_once() {
        let server = server().await;
        let tenant = json!({"name":"Shop","currency":"EUR","time_zone":"UTC"});
        let (_, tenant) = server.ask(&server.platform, "POST", "/v1/tenants", Some(tenant)).await;
        let tenant = tenant["id"].as_str().unwrap();
        let service = server.key_of(tenant, "SERVICE", None).await;
        assert_eq!(server.ask(&service, "GET", "/v1/events", None).await.0, 200);
        let path = format!("/v1/tenants/{tenant}/api-keys");
        let (_, keys) = server.ask(&server.platform, "GET", &path, None).await;
        let path = format!("{path}/{}", keys["data"][0]["id"].as_str().unwrap());
        assert_eq!(server.ask(&server.platform, "DELETE", &path, None).await.0, 204);
        assert_eq!(server.ask(&service, "GET", "/v1/events", None).await.0, 401);
    }

    #[tokio::test]
    async fn the_documentation_is_served_and_the_metrics_name_routes() {
        let server = server().await;
        for (path, kind) in [
            ("/openapi.json", "application/json"),
            ("/docs/", "text/html"),
            ("/docs/swagger-ui-bundle.js", "text/javascript"),
            ("/docs/errors", "text/html; charset=utf-8"),
        ] {
            let response = server.send(Request::get(path).body(Body::empty()).unwrap()).await;
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], kind, "{path}");
        }
        server.app.start_draining();
        assert_eq!(server.ask("", "GET", "/readyz", None).await.0, 503);
        let (_, metrics) = server.ask("", "GET", "/metrics", None).await;
        let metrics = metrics.as_str().unwrap();
        for label in ["GET /docs", "GET /readyz"] {
            assert!(metrics.contains(&format!("route=\"{label}\"")), "{label}: {metrics}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_problem() {
        let server = server().await;
        let broken = Router::new()
            .route(
                "/",
                axum::routing::get(|| async {
                    if true {
                        panic!("oops")
                    }
                }),
            )
            .layer(edge::EdgeLayer(server.app.clone()));
        let response = broken.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(body_of(response).await["code"], "INTERNAL");
    }

    /// `openapi.json` in the repository is what the code says: `UPDATE_OPENAPI=1 cargo test` writes it anew.
    #[test]
    fn openapi_json_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.json");
        let text = openapi_json() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == text,
            "openapi.json is stale; run: UPDATE_OPENAPI=1 cargo test -p scrip-server openapi_json"
        );
    }

    #[test]
    fn operations_are_named_after_what_they_do() {
        let document: Value = serde_json::from_str(&openapi_json()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let mut names = Vec::new();
        for (method, path) in operations() {
            let operation = &document["paths"][&path][method.as_str().to_lowercase()];
            let name = operation["operationId"].as_str().unwrap().to_owned();
            assert!(name.split_once('_').is_some(), "{name} is no verb_resource");
            assert!(operation["summary"].is_string(), "{name} has no summary");
            names.push(name);
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        // Every reference leads somewhere.
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference} is missing");
        }
    }
}
