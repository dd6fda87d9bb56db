//! What servers keep in memory, at an operator's word.

use axum::extract::State;
use axum::http::StatusCode;
use scrip_domain::{TemplateId, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;

use super::AppState;
use super::auth::Operator;
use super::extract::{Checked, Input};
use super::fields::FieldErrors;
use super::problem::Problem;
use super::schema::{self, Problems};
use crate::store::CacheKey;

/// Which entries go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CacheEvictionRequest)]
pub struct EvictionRequest {
    /// Only this template's. Default: everything of the tenant.
    #[schema(value_type = Option<schema::TemplateId>)]
    template_id: Option<TemplateId>,
}

impl Checked for EvictionRequest {
    type Value = Option<TemplateId>;

    fn check(self, _: &mut FieldErrors, _: Timestamp) -> Option<Option<TemplateId>> {
        Some(self.template_id)
    }
}

/// Drop what servers keep in memory
///
/// Of templates and rules of the tenant, on every server. Changes do so by themselves; nothing that is decided depends on it.
#[utoipa::path(post, path = "/v1/cache-evictions", tag = "Caches", security(("key" = ["OPERATOR"])),
    request_body = EvictionRequest, responses((status = 204, description = "Dropped here; other servers are told"), Problems))]
pub async fn create_cache_eviction(
    State(app): State<AppState>,
    Operator(caller): Operator,
    input: Input<EvictionRequest>,
) -> Result<StatusCode, Problem> {
    let tenant = caller.tenant();
    let key = input.value.map_or(CacheKey::Tenant(tenant), |template| CacheKey::Template(tenant, template));
    app.store.evict(key).await?;
    Ok(StatusCode::NO_CONTENT)
}
