//! The tenant's event log, to be followed from anywhere.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use scrip_domain::event::{Event, EventKind};
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::answer;
use super::auth::Service;
use super::extract::{Cursor, Parameters};
use super::problem::Problem;
use super::schema::{self, PageQuery, Problems};
use super::views::EventView;
use crate::store::read::EventPosition;

pub(super) const START: EventPosition = EventPosition { tx: 0, ordinal: -1 };

impl Cursor for EventPosition {
    fn write(&self) -> String {
        format!("{}-{}", self.tx, self.ordinal)
    }

    fn read(text: &str) -> Option<Self> {
        // The start has -1 as its ordinal.
        let (tx, ordinal) = text.split_once('-')?;
        let position = EventPosition { tx: tx.parse().ok()?, ordinal: ordinal.parse().ok()? };
        (position >= START && position.ordinal >= -1).then_some(position)
    }
}

/// An event as the API shows it, and as it is sent to webhooks and the broker.
///
/// # Errors
/// When the stored data is no JSON.
pub fn event_json(position: EventPosition, event: &Event) -> Result<String, serde_json::Error> {
    serde_json::to_string(&EventView::new(position, event)?)
}

/// A page of events.
#[derive(Serialize, ToSchema)]
pub struct EventPage<'a> {
    #[schema(value_type = Vec<EventView<'static>>)]
    data: Vec<EventView<'a>>,
    /// Always there: keep it, and ask again for what comes after.
    next_cursor: String,
}

/// Follow the events
///
/// In an order that never changes, oldest first, none skipped. With `type`, a page may have fewer events than `limit`, or
/// none, though more come later: go on while `next_cursor` changes.
#[utoipa::path(get, path = "/v1/events", tag = "Events", security(("key" = ["SERVICE"])),
    params(("type" = Option<schema::EventType>, Query), PageQuery),
    responses((status = 200, description = "A page", body = EventPage<'static>), Problems))]
pub async fn list_events(State(app): State<AppState>, Service(caller): Service, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let kind = parameters.take("type", "an event type, like coupon.claimed", EventKind::parse);
    let page = parameters.page();
    parameters.finish()?;
    let found = app.store.list_events(caller.tenant(), page.cursor.unwrap_or(START), kind, page.limit).await?;
    let data = found.events.iter().map(|(position, event)| EventView::new(*position, event));
    let data = data.collect::<Result<Vec<_>, _>>().map_err(Problem::internal)?;
    answer::ok(&EventPage { data, next_cursor: found.scanned_to.write() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back() {
        for position in [START, EventPosition { tx: 812, ordinal: 0 }, EventPosition { tx: i64::MAX, ordinal: 7 }] {
            assert_eq!(EventPosition::read(&position.write()), Some(position));
        }
        for bad in ["", "812", "-1-0", "812-", "x-1", "0--2"] {
            assert_eq!(EventPosition::read(bad), None, "{bad}");
        }
    }
}
