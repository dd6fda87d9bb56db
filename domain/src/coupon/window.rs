//! The beginnings and ends of issue windows, told as events: once each, when they have passed.
//!
//! A tenant has one cursor: everything up to it is told. The command that moves it on names the templates concerned, and is
//! refused unless it starts where the cursor stands; so of two nodes only one tells. A bound that lies behind the cursor when
//! an operator sets it is in force at once and is not told.

use crate::command::Envelope;
use crate::decide::Outcome;
use crate::event::EventKind;
use crate::id::{Ids, TemplateId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// Tells the bounds after `from` and up to `until` of these templates, in the order of time, and moves the tenant's cursor.
///
/// # Errors
/// [`Rejection::WindowsAnnounced`] when the cursor is not at `from`: somebody else has told them.
pub fn announce_windows(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    from: Timestamp,
    until: Timestamp,
    templates: &[TemplateId],
) -> Result<Outcome, Rejection> {
    if state.windows_announced(envelope.tenant).unwrap_or(from) != from || until <= from {
        return Err(Rejection::WindowsAnnounced);
    }
    let mut bounds = Vec::new();
    for id in templates {
        // Deleted meanwhile, perhaps.
        let Ok(template) = state.template(envelope.tenant, *id) else { continue };
        let window = template.definition.distribution;
        for (kind, at) in [(EventKind::TemplateStarted, window.starts_at), (EventKind::TemplateEnded, window.ends_at)] {
            bounds.extend(at.filter(|at| from < *at && *at <= until).map(|at| (at, *id, kind)));
        }
    }
    bounds.sort_by_key(|(at, id, kind)| (*at, *id, kind.as_str()));
    for (at, id, kind) in &bounds {
        state.record_event(envelope, ids, *at, *kind, id.0, None, "{}".into());
    }
    state.set_windows_announced(envelope.tenant, until);
    Ok(Outcome::Announced(bounds.len() as u64))
}
