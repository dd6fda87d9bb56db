//! Entries shared by all nodes, in Redis or Valkey: what one node has read, another need not ask the database for.
//!
//! **What has changed is buried**: every node that commits a change or hears of one puts a gravestone in the key's place, and
//! does not look there until it stands. It stays for [`BURIED_FOR`]; an entry is only put where nothing stands, within
//! [`FRESH_FOR`] of the moment its look-up began. So whoever was slow finds the gravestone, and what changes all the time
//! is not shared.
//!
//! It may be gone, empty, full of old entries or slow, and costs nothing but speed then. A command is tried [`RETRIES`] times
//! more, all within [`PATIENCE`]: later the database is as quick. What must be buried waits until it is (at most [`MAX_WAITING`]
//! keys, else everything), and goes before anything else on a new connection. Connecting is tried again after min(50 n, 2000) ms.
//! Deliberately absent: TLS (a tunnel does it), clusters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout_at};

use super::{CacheKey, CacheMetrics};
use crate::clock;

/// How long one command may take, with its retries.
const PATIENCE: Duration = Duration::from_millis(100);
const RETRIES: u32 = 3;
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
const AT_MOST_EVERY: Duration = Duration::from_millis(100);
const BURIED_FOR: Duration = Duration::from_secs(10);
const FRESH_FOR: Duration = Duration::from_secs(5);
/// Commands under way at most; a read beyond them asks the database.
const MAX_UNDER_WAY: usize = 256;
const MAX_WAITING: usize = 10_000;
/// Keys buried by one round trip.
const KEYS_AT_ONCE: usize = 100;
/// Nodes of another release keep entries of another form.
const PREFIX: &str = concat!("scrip:", env!("CARGO_PKG_VERSION"), ":");
const GRAVESTONE: &[u8] = b"-";

/// Where the shared store is. Its `Display` hides the password.
#[derive(Clone)]
pub struct SharedUrl(redis::ConnectionInfo);

impl std::str::FromStr for SharedUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "expected redis://USER:PASSWORD@HOST:6379/0";
        // The parser's own words may quote the address, and there may be a password in it.
        let info = text.into_connection_info().map_err(|_| form.to_owned())?;
        match info.addr() {
            ConnectionAddr::Tcp(host, _) if !host.is_empty() => Ok(SharedUrl(info)),
            _ => Err(form.to_owned()),
        }
    }
}

impl std::fmt::Display for SharedUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.addr().fmt(f)
    }
}

impl std::fmt::Debug for SharedUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl SharedUrl {
    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        Client::open(self.0.clone())?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Whether it is there, for the doctor.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn examine(&self) -> Result<(), String> {
        let mut connection = self.connect().await.map_err(|error| error.to_string())?;
        redis::cmd("PING").query_async::<()>(&mut connection).await.map_err(|error| error.to_string())
    }
}

/// What is kept of an entry, with the time at which it was read from the database.
#[derive(Serialize, Deserialize)]
struct Kept<V> {
    read_at: i64,
    value: V,
}

pub(super) struct Shared(Arc<Inner>);

struct Inner {
    url: SharedUrl,
    /// `None` while it is not reached, or has not buried yet what it must.
    connection: Mutex<Option<MultiplexedConnection>>,
    under_way: Semaphore,
    dead: Mutex<Dead>,
    ready: Notify,
    is_dropped: AtomicBool,
    metrics: CacheMetrics,
}

/// Keys that must be buried, each with the number of its last change.
#[derive(Default)]
struct Dead {
    keys: BTreeMap<CacheKey, u64>,
    changes: u64,
}

impl Dead {
    fn add(&mut self, key: CacheKey) {
        self.changes += 1;
        if self.keys.len() >= MAX_WAITING {
            self.keys = [(CacheKey::Everything, self.changes)].into();
        }
        self.keys.insert(key, self.changes);
    }

    fn has(&self, key: CacheKey) -> bool {
        key.and_above().any(|key| self.keys.contains_key(&key))
    }

    /// Some of those that changed up to then.
    fn some(&self, changes: u64) -> Vec<(CacheKey, u64)> {
        let until_then = self.keys.iter().filter(|(_, change)| **change <= changes);
        until_then.take(KEYS_AT_ONCE).map(|(key, change)| (*key, *change)).collect()
    }

    /// Those that have not changed again meanwhile need no more.
    fn are_buried(&mut self, buried: &[(CacheKey, u64)]) {
        for (key, change) in buried {
            if self.keys.get(key) == Some(change) {
                self.keys.remove(key);
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.is_dropped.store(true, Ordering::SeqCst);
        self.0.ready.notify_one();
    }
}

impl Shared {
    pub(super) fn start(url: &SharedUrl, metrics: CacheMetrics) -> Shared {
        let inner = Arc::new(Inner {
            url: url.clone(),
            connection: Mutex::new(None),
            under_way: Semaphore::new(MAX_UNDER_WAY),
            dead: Mutex::default(),
            ready: Notify::new(),
            is_dropped: AtomicBool::new(false),
            metrics,
        });
        tokio::spawn(inner.clone().work());
        Shared(inner)
    }

    /// An entry and its age, when there is one that is not known to be old.
    pub(super) async fn get<V: DeserializeOwned>(&self, key: CacheKey) -> Option<(V, Duration)> {
        if self.0.dead.lock().has(key) {
            return None;
        }
        let found: Option<Vec<u8>> = self.0.ask(redis::cmd("GET").arg(name(key))).await?;
        // What cannot be read, like a gravestone, is as good as not there.
        let kept: Kept<V> = serde_json::from_slice(&found?).ok()?;
        let age = u64::try_from(clock::now().0 - kept.read_at).unwrap_or(0);
        Some((kept.value, Duration::from_micros(age)))
    }

    /// Keeps an entry whose look-up began at `asked_at`, unless something is in its place.
    pub(super) async fn put(&self, key: CacheKey, value: &impl Serialize, kept_for: Duration, asked_at: Instant) {
        let age = asked_at.elapsed();
        if age > FRESH_FOR || self.0.dead.lock().has(key) {
            return;
        }
        let read_at = clock::now().0 - i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let Ok(bytes) = serde_json::to_vec(&Kept { read_at, value }) else { return };
        let _: Option<()> =
            self.0.ask(redis::cmd("SET").arg(name(key)).arg(bytes).arg("NX").arg("PX").arg(ms(kept_for))).await;
    }

    pub(super) fn bury(&self, key: CacheKey) {
        self.0.dead.lock().add(key);
        self.0.ready.notify_one();
    }
}

impl Inner {
    /// The answer to a command, if there is one soon.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let mut connection = self.connection.lock().clone();
        let _permit = self.under_way.try_acquire().ok()?;
        let give_up_at = tokio::time::Instant::now() + PATIENCE;
        for attempt in 0..=RETRIES {
            // Without a connection from the start, the next is not waited for.
            let mut asked = connection.take()?;
            match timeout_at(give_up_at, command.query_async(&mut asked)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) if !error.is_timeout() => self.lost(&error),
                // It has had all the time there is.
                _ => {
                    self.lost(&RedisError::from((redis::ErrorKind::Io, "no answer in time")));
                    return None;
                }
            }
            sleep(Duration::from_millis(5 << attempt)).await;
            connection = self.connection.lock().clone();
        }
        None
    }

    fn lost(&self, error: &RedisError) {
        self.metrics.shared_failures.inc();
        if self.connection.lock().take().is_some() {
            tracing::warn!(url = %self.url, %error, "cache.redis_url: the shared cache is lost; nodes do without it");
        }
        self.metrics.shared_connected.set(0);
        self.ready.notify_one();
    }

    /// Connects, again and again, and buries what must be.
    async fn work(self: Arc<Self>) {
        let mut failures: u64 = 0;
        while !self.is_dropped.load(Ordering::SeqCst) {
            let is_connected = self.connection.lock().is_some();
            if is_connected && self.dead.lock().keys.is_empty() {
                self.ready.notified().await;
                continue;
            }
            match self.bury_all().await {
                Ok(()) => {
                    failures = 0;
                    // What changes again and again is buried so often at most.
                    sleep(AT_MOST_EVERY).await;
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 && !is_connected {
                        tracing::warn!(url = %self.url, %error, "cache.redis_url: the shared cache does not answer");
                    }
                    self.lost(&error);
                    sleep(Duration::from_millis((50 * failures).min(2_000))).await;
                }
            }
        }
    }

    /// Buries all that has changed so far, on a new connection if need be; only then others may use that.
    async fn bury_all(&self) -> Result<(), RedisError> {
        let known = self.connection.lock().clone();
        let mut connection = match known {
            Some(connection) => connection,
            None => self.url.connect().await?,
        };
        let changes = self.dead.lock().changes;
        loop {
            let some = self.dead.lock().some(changes);
            if some.is_empty() {
                break;
            }
            let mut graves = redis::pipe();
            for (key, _) in &some {
                match key {
                    CacheKey::Template(..) | CacheKey::Rules(_) => graves.add_command(gravestone(&name(*key))).ignore(),
                    CacheKey::Tenant(tenant) => {
                        let tenant = tenant.0.as_simple();
                        bury_matching(&mut connection, &format!("{PREFIX}t:{tenant}:*")).await?;
                        graves.add_command(gravestone(&format!("{PREFIX}r:{tenant}"))).ignore()
                    }
                    CacheKey::Everything => {
                        bury_matching(&mut connection, &format!("{PREFIX}*")).await?;
                        &mut graves
                    }
                };
            }
            if !graves.is_empty() {
                graves.query_async::<()>(&mut connection).await?;
            }
            self.dead.lock().are_buried(&some);
        }
        let mut shown = self.connection.lock();
        if shown.is_none() {
            tracing::info!(url = %self.url, "the shared cache answers");
        }
        *shown = Some(connection);
        self.metrics.shared_connected.set(1);
        Ok(())
    }
}

fn name(key: CacheKey) -> String {
    format!("{PREFIX}{key}")
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn gravestone(name: &str) -> Cmd {
    redis::cmd("SET").arg(name).arg(GRAVESTONE).arg("PX").arg(ms(BURIED_FOR)).to_owned()
}

/// Buries all entries there are whose names match.
async fn bury_matching(connection: &mut MultiplexedConnection, pattern: &str) -> Result<(), RedisError> {
    let mut cursor: u64 = 0;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1_000);
        let (next, names): (u64, Vec<String>) = scan.query_async(connection).await?;
        let mut graves = redis::pipe();
        for name in &names {
            graves.add_command(gravestone(name)).ignore();
        }
        if !graves.is_empty() {
            graves.query_async::<()>(connection).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}
