//! A tenant's rules for orders and points, in versions with dates.
//!
//! A version never changes, so orders keep the number of the one that made them. Which version holds at a time follows from
//! the dates alone: of those whose `effective_from` has come, the latest; of equal ones, the one made last. So a change may be
//! scheduled, and a scheduled one replaced by another of the same date. Until a tenant sets rules, version 0 holds, which is
//! [`Rules::default`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::Ids;
use crate::pricing::Rules;
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// The most versions a tenant may make in its life.
pub const MAX_VERSIONS: i64 = 10_000;

/// A version of a tenant's rules; its number is in the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesVersion {
    pub rules: Arc<Rules>,
    pub effective_from: Timestamp,
    pub created_at: Timestamp,
    /// The newest version there is, which may not hold yet.
    pub newest: i64,
}

impl Rules {
    /// The rules as orders of that time see them: with the campaigns that hold then, and no others.
    pub fn at(self: &Arc<Self>, at: Timestamp) -> Arc<Rules> {
        if self.points.campaigns.iter().all(|campaign| campaign.holds_at(at)) {
            return self.clone();
        }
        let mut rules = Rules::clone(self);
        rules.points.campaigns.retain(|campaign| campaign.holds_at(at));
        Arc::new(rules)
    }
}

/// Makes a version that holds from `effective_from`, or from now. `expected_version` is the newest version that the operator
/// has seen; the version in `rules` is not looked at.
pub fn set(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    expected_version: i64,
    rules: &Rules,
    effective_from: Option<Timestamp>,
) -> Result<Outcome, Rejection> {
    let tenant = envelope.tenant;
    state.tenant(tenant)?;
    let newest = state.newest_rules(tenant);
    if newest != expected_version {
        return Err(Rejection::RulesVersionStale { current: newest });
    }
    let starts_at = effective_from.unwrap_or(envelope.at);
    if starts_at < envelope.at {
        return Err(Rejection::DeadlinePassed { field: "effective_from" });
    }
    if newest >= MAX_VERSIONS {
        return Err(Rejection::RulesTooManyVersions { most: MAX_VERSIONS });
    }
    let rules = Arc::new(Rules { version: newest + 1, ..rules.clone() });
    let version = RulesVersion { rules, effective_from: starts_at, created_at: envelope.at, newest: newest + 1 };
    state.insert_rules(tenant, version.clone());
    let data = format!("{{\"version\":{}}}", newest + 1);
    state.record_event(envelope, ids, envelope.at, EventKind::RulesChanged, tenant.0, None, data);
    Ok(Outcome::Rules(Box::new(version)))
}
