//! Word of what has changed, from node to node by PostgreSQL's NOTIFY.
//!
//! A notice is this node's id and the keys. What changes again and again, as the stock of a template on sale does, is told at most
//! every [`AT_MOST_EVERY`]: committing a NOTIFY takes a lock of the whole PostgreSQL server, so it must not be one for each batch.
//! Nothing is dropped while the database is away; more keys than [`MAX_KEYS`] become "everything".
//!
//! A node listens on a connection of its own. It hears while its own word comes back: with nothing else to say it sends its id every
//! [`PULSE`]. That also finds a listener that was cut off without knowing it, and a pool before the database that does not
//! carry notices.

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
/// A notice has at most 8,000 bytes.
pub(in crate::store) const KEYS_PER_NOTICE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);

pub(in crate::store) const CHANNEL: &str = "scrip_changed";
pub(in crate::store) const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// What the other nodes must still be told.
#[derive(Default)]
pub(in crate::store) struct Outbox {
    keys: Mutex<BTreeSet<CacheKey>>,
    ready: Notify,
}

impl Outbox {
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
        let mut taken = Vec::with_capacity(KEYS_PER_NOTICE.min(waiting.len()));
        while taken.len() < KEYS_PER_NOTICE
            && let Some(key) = waiting.pop_first()
        {
            taken.push(key);
        }
        taken
    }
}

/// The notice of these keys by that node.
pub(in crate::store) fn notice(node: &str, keys: &[CacheKey]) -> String {
    let mut text = node.to_owned();
    for key in keys {
        text.push(' ');
        text.push_str(&key.to_string());
    }
    text
}

/// Sends and listens until the caches are dropped.
pub(in crate::store) fn start(caches: &Arc<Caches>, endpoint: Endpoint, readers: Readers) {
    let node: Arc<str> = uuid::Uuid::from_u128(rand::random()).as_simple().to_string().into();
    // What a node left unsaid that was killed.
    caches.outbox.tell(&[CacheKey::Everything]);
    tokio::spawn(send(Arc::downgrade(caches), readers, node.clone()));
    tokio::spawn(listen(Arc::downgrade(caches), endpoint, node));
}

async fn send(caches: Weak<Caches>, readers: Readers, node: Arc<str>) {
    loop {
        let Some(alive) = caches.upgrade() else { return };
        let _ = timeout(PULSE, alive.outbox.ready.notified()).await;
        let keys = alive.outbox.take();
        let text = notice(&node, &keys);
        match timeout(PATIENCE, readers.execute(NOTIFY, &[&CHANNEL, &text])).await {
            Ok(Ok(())) => {}
            failed => {
                if let Ok(Err(error)) = failed {
                    tracing::debug!(%error, "other nodes were not told what changed; they will be");
                }
                alive.outbox.tell(&keys);
                sleep(PAUSE).await;
            }
        }
        let more = !alive.outbox.keys.lock().is_empty();
        drop(alive);
        if !more {
            sleep(AT_MOST_EVERY).await;
        }
    }
}

async fn listen(caches: Weak<Caches>, endpoint: Endpoint, node: Arc<str>) {
    while caches.strong_count() > 0 {
        match hear(&caches, &endpoint, &node).await {
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
async fn hear(caches: &Weak<Caches>, endpoint: &Endpoint, node: &str) -> Result<(), StoreError> {
    let (_client, mut messages) = endpoint.listen(CHANNEL).await?;
    loop {
        let Ok(message) = timeout(super::DEAF_AFTER, messages.recv()).await else { return Ok(()) };
        let (Some(message), Some(caches)) = (message, caches.upgrade()) else { return Ok(()) };
        let AsyncMessage::Notification(said) = message else { continue };
        let mut words = said.payload().split(' ');
        if words.next() == Some(node) {
            caches.heard();
            continue;
        }
        for word in words {
            // A newer node may know of other keys; what it does not understand, it cannot have kept.
            if let Ok(key) = word.parse() {
                caches.evict(key, Cause::Notice);
            }
        }
    }
}
