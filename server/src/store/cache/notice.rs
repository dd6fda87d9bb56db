//! Word of what has changed, from node to node by PostgreSQL's NOTIFY: whoever can commit can also leave word where it commits,
//! while a bus beside it may be cut from one node only.
//!
//! A notice is a node's id and keys. A definition's is part of the transaction that changes it. Counters, which claims and uses
//! change again and again, are told at most every [`AT_MOST_EVERY`], after their commits: committing a NOTIFY takes a lock of
//! the whole PostgreSQL server, so it must not be one for each batch. A node killed in between leaves them unsaid, and others
//! show counters that are old, until the next claim or the end of the entry. While the database is away nothing is dropped; more
//! keys than [`MAX_KEYS`] become "everything".
//!
//! A node listens on a connection of its own. It hears while its own word comes back: with nothing else to say it sends its id
//! every [`PULSE`]. That also finds a listener that was cut off without knowing it, and a pool before the database that does
//! not carry notices.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::AsyncMessage;

use super::{CacheKey, Caches, Cause};
use crate::store::StoreError;
use crate::store::postgres::{Endpoint, Readers};

const AT_MOST_EVERY: Duration = Duration::from_millis(100);
const PULSE: Duration = Duration::from_secs(1);
const MAX_KEYS: usize = 10_000;
/// A notice has at most 8,000 bytes, a key at most 67.
const KEYS_PER_NOTICE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);

pub(in crate::store) const CHANNEL: &str = "scrip_changed";
/// What listeners call themselves to PostgreSQL.
pub(in crate::store) const LISTENER: &str = "scrip listener";
pub(in crate::store) const NOTIFY: &str = "SELECT pg_notify($1, $2)";
const LISTENERS: &str = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1";
/// Who speaks without listening: a command beside the servers.
const NOBODY: &str = "-";

/// What the other nodes must still be told.
pub(super) struct Outbox {
    node: String,
    keys: Mutex<BTreeSet<CacheKey>>,
    ready: Notify,
}

impl Default for Outbox {
    fn default() -> Self {
        let node = uuid::Uuid::from_u128(rand::random()).as_simple().to_string();
        Outbox { node, keys: Mutex::default(), ready: Notify::new() }
    }
}

impl Outbox {
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn tell(&self, keys: &[CacheKey]) {
        if keys.is_empty() {
            return;
        }
        let mut waiting = self.keys.lock();
        waiting.extend(keys);
        if waiting.len() > MAX_KEYS {
            *waiting = [CacheKey::Everything].into();
        }
        drop(waiting);
        self.ready.notify_one();
    }

    fn take(&self) -> Vec<CacheKey> {
        let mut waiting = self.keys.lock();
        std::iter::from_fn(|| waiting.pop_first()).take(KEYS_PER_NOTICE).collect()
    }
}

/// The notices of these keys by a node, or by nobody.
pub(super) fn notices(node: &str, keys: &[CacheKey]) -> Vec<String> {
    let text = |keys: &[CacheKey]| keys.iter().fold(node.to_owned(), |text, key| format!("{text} {key}"));
    keys.chunks(KEYS_PER_NOTICE).map(text).collect()
}

pub(in crate::store) fn of_nobody(keys: impl IntoIterator<Item = CacheKey>) -> Vec<String> {
    notices(NOBODY, &keys.into_iter().collect::<Vec<_>>())
}

/// Sends and listens until the caches are dropped.
pub(in crate::store) fn start(caches: &Arc<Caches>, endpoint: Endpoint, readers: Readers) {
    tokio::spawn(send(Arc::downgrade(caches), readers.clone()));
    tokio::spawn(listen(Arc::downgrade(caches), endpoint, readers));
}

async fn send(caches: Weak<Caches>, readers: Readers) {
    loop {
        let Some(alive) = caches.upgrade() else { return };
        let outbox = &alive.outbox;
        let _ = timeout(PULSE, outbox.ready.notified()).await;
        let keys = outbox.take();
        let said = if keys.is_empty() { outbox.node.clone() } else { notices(&outbox.node, &keys).concat() };
        match timeout(PATIENCE, readers.execute(NOTIFY, &[&CHANNEL, &said])).await {
            Ok(Ok(())) => {}
            failed => {
                if let Ok(Err(error)) = failed {
                    tracing::debug!(%error, "other nodes were not told what changed; they will be");
                }
                outbox.tell(&keys);
                sleep(PAUSE).await;
            }
        }
        let has_more = !outbox.keys.lock().is_empty();
        drop(alive);
        if !has_more {
            sleep(AT_MOST_EVERY).await;
        }
    }
}

async fn listen(caches: Weak<Caches>, endpoint: Endpoint, readers: Readers) {
    while caches.strong_count() > 0 {
        match hear(&caches, &endpoint, &readers).await {
            Ok(()) => tracing::debug!("the connection that hears of changes was closed"),
            Err(error) => tracing::debug!(%error, "no connection that hears of changes"),
        }
        if let Some(caches) = caches.upgrade() {
            caches.deafened();
        }
        sleep(PAUSE).await;
    }
}

/// Hears until the connection breaks or is silent for too long.
async fn hear(caches: &Weak<Caches>, endpoint: &Endpoint, readers: &Readers) -> Result<(), StoreError> {
    let (_client, mut messages) = endpoint.listen(CHANNEL, LISTENER).await?;
    // Asked behind the LISTEN: another that is found there has heard what this node has not.
    let listeners = readers.read(LISTENERS, &[&LISTENER]).await?.len();
    let Some(alive) = caches.upgrade() else { return Ok(()) };
    alive.begins_to_hear(listeners <= 1);
    drop(alive);
    loop {
        let Ok(message) = timeout(super::DEAF_AFTER, messages.recv()).await else { return Ok(()) };
        let (Some(message), Some(caches)) = (message, caches.upgrade()) else { return Ok(()) };
        let AsyncMessage::Notification(said) = message else { continue };
        let mut words = said.payload().split(' ');
        if words.next() == Some(caches.outbox.node()) {
            caches.heard();
            continue;
        }
        // A newer node may know of other keys; what this one does not understand, it cannot have kept.
        for key in words.filter_map(|word| word.parse().ok()) {
            caches.evict(key, Cause::Notice);
        }
    }
}
