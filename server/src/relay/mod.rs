//! Events out: from the log to webhooks and to the broker. The log is the truth; what is here may be lost, late or repeated,
//! never skipped.
//!
//! A reader of the log, a webhook or the broker, is a position and a lease: whichever node holds the lease reads on from the
//! position, hands the events out and moves the position in the transaction that keeps what became of them. A node that dies
//! loses its lease within [`LEASE`]; the next one sends again what was under way. So every event arrives at least once, and
//! what happened to one subject (a member, or an object without one) arrives in its order.

pub mod guard;
pub mod nats;
pub mod sender;
pub mod webhooks;

use std::time::Duration;

use scrip_domain::Timestamp;
use scrip_domain::event::Event;
use uuid::Uuid;

use crate::clock;
use crate::store::job::Lease;
use crate::store::{Store, StoreError};

/// How long a node may be silent before another one takes its readers over.
const LEASE: Duration = Duration::from_secs(30);

/// What keeps its order: a member, or an object that belongs to none. Stored with parked events.
pub fn subject_of(event: &Event) -> String {
    match &event.member_id {
        Some(member) => format!("m:{member}"),
        None => format!("s:{}", event.subject.simple()),
    }
}

/// The right to work one reader, held by this node.
#[derive(Debug)]
struct Held {
    name: String,
    lease: Lease,
}

impl Held {
    /// Takes the lease of that name for this node, when it is free.
    async fn take(store: &Store, name: String, node: Uuid) -> Result<Option<Held>, StoreError> {
        let now = clock::now();
        let lease = store.acquire_lease(&name, node, now, end_of_lease(now)).await?;
        Ok(lease.map(|lease| Held { name, lease }))
    }

    /// Works while the lease is held, and gives it up afterwards. `None` when it was lost meanwhile; the work is dropped then.
    async fn work<T>(&self, store: &Store, work: impl Future<Output = T>) -> Option<T> {
        let lost = async {
            loop {
                tokio::time::sleep(LEASE / 3).await;
                let now = clock::now();
                match store.renew_lease(&self.name, self.lease, now, end_of_lease(now)).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => tracing::debug!(%error, lease = self.name, "a lease was not renewed"),
                }
            }
        };
        tokio::select! {
            done = work => {
                if let Err(error) = store.release_lease(&self.name, self.lease).await {
                    tracing::debug!(%error, lease = self.name, "a lease was not given up; it will end by itself");
                }
                Some(done)
            }
            () = lost => None,
        }
    }
}

fn end_of_lease(now: Timestamp) -> Timestamp {
    Timestamp(now.0 + LEASE.as_micros() as i64)
}
