//! The HTTP API: what docs/API.md promises, over the engine and the store.
//!
//! A handler takes its parameters in this order: who asks ([`auth`]), the path, the body ([`extract`]); so a request without
//! a credential learns nothing else. Its first parameter is its scope: there is no other way to a tenant. Commands go to the
//! engine, reads to the store; [`answer`] and [`views`] give the objects their public form, [`problem`] the refusals.
//! [`edge`] surrounds every request, [`serve`] the connections.

mod answer;
pub mod auth;
mod batch;
mod coupons;
mod docs;
mod edge;
mod events;
mod expirations;
mod extract;
mod fields;
mod health;
mod idempotency;
mod points;
mod problem;
mod schema;
mod serve;
mod templates;
mod tenants;
mod time;
mod views;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::Method;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use serve::serve;

use crate::engine::Engine;
use crate::metrics::Metrics;
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
        // Templates.
        .routes(routes!(templates::create_coupon_template, templates::list_coupon_templates))
        .routes(routes!(
            templates::get_coupon_template,
            templates::update_coupon_template,
            templates::delete_coupon_template
        ))
        .routes(routes!(templates::enable_coupon_template))
        .routes(routes!(templates::disable_coupon_template))
        .routes(routes!(templates::change_coupon_template_stock))
        // Coupons.
        .routes(routes!(coupons::create_claim))
        .routes(routes!(coupons::get_coupon))
        .routes(routes!(coupons::list_coupons))
        .routes(routes!(coupons::lock_coupon))
        .routes(routes!(coupons::use_coupon))
        .routes(routes!(coupons::unlock_coupon))
        .routes(routes!(coupons::return_coupon))
        .routes(routes!(coupons::revoke_coupon))
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
        // The rest.
        .routes(routes!(batch::create_batch))
        .routes(routes!(expirations::create_expirations))
        .routes(routes!(events::list_events))
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
    api().into_openapi()
}

/// The same as indented JSON: the text of openapi.json.
pub fn openapi_json() -> String {
    // The document is plain data.
    openapi().to_pretty_json().unwrap_or_default() + "\n"
}

/// Method and path of every operation in openapi.json.
fn operations() -> impl Iterator<Item = (Method, String)> {
    openapi().paths.paths.into_iter().flat_map(|(path, item)| {
        [
            (Method::GET, item.get.is_some()),
            (Method::POST, item.post.is_some()),
            (Method::PATCH, item.patch.is_some()),
            (Method::DELETE, item.delete.is_some()),
        ]
        .into_iter()
        .filter(|(_, exists)| *exists)
        .map(move |(method, _)| (method, path.clone()))
    })
}

/// What a client may ask of us at most.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    pub max_connections: usize,
    pub max_body_bytes: usize,
    pub max_batch_bytes: usize,
    /// How long a stopping server waits for requests under way.
    pub drain: Duration,
}

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// The parts of [`AppState`].
pub struct Shared {
    store: Store,
    engine: Engine,
    metrics: Arc<Metrics>,
    limits: HttpLimits,
    platform_digest: [u8; 32],
    keys: auth::KeyCache,
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
        limits: HttpLimits,
        platform_digest: [u8; 32],
    ) -> Self {
        let (keys, draining) = (auth::KeyCache::new(), AtomicBool::new(false));
        AppState(Arc::new(Shared { store, engine, metrics, limits, platform_digest, keys, draining }))
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
