//! Reads that show what their caller has written, wherever they are answered.
//!
//! With a replica, the answer to everything but a read carries a token: how far the store was when it was given. A read that
//! brings the token sees at least that; without one, what was there a moment ago (`store.replica_lag_ms`). A handler that takes
//! [`Reads`] says that the replica may answer it; credentials and whatever a command needs to know are read from the primary.

use std::ops::Deref;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::auth::Caller;
use super::problem::Problem;
use super::{AppState, schema};
use crate::store::{Position, Store};

static TOKEN: HeaderName = HeaderName::from_static("scrip-consistency-token");

/// The store as this request may read it. Goes behind who asks.
pub struct Reads {
    store: Store,
    has_token: bool,
}

impl Reads {
    /// Whether what was there a moment ago will do: operators look at what they change, and a token says what was seen.
    pub fn may_be_recent(&self, caller: &Caller) -> bool {
        !self.has_token && !caller.is_operator()
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl Deref for Reads {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl FromRequestParts<AppState> for Reads {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let token = token(&parts.headers)?;
        Ok(Reads { store: app.store.for_reads(token).await, has_token: token.is_some() })
    }
}

fn token(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(value) = headers.get(&TOKEN) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| text.parse().ok());
    let malformed =
        || Problem::field("Scrip-Consistency-Token", "is malformed", "Send it as an answer gave it, or not at all.");
    token.map(Some).ok_or_else(malformed)
}

/// Adds the token to the answer of what may have written.
pub fn write_token(app: &AppState, method: &Method, headers: &mut HeaderMap) {
    if method.is_safe() {
        return;
    }
    let Some(written) = app.store.written() else { return };
    if let Ok(value) = HeaderValue::try_from(written.to_string()) {
        headers.insert(TOKEN.clone(), value);
    }
}

/// The header of a read that a replica may answer.
pub struct ConsistencyToken;

impl IntoParams for ConsistencyToken {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![schema::header(
            "Scrip-Consistency-Token",
            "As the answer to your last write gave it: what you have written is seen.",
            "^[0-9a-f]{16}$",
        )]
    }
}
