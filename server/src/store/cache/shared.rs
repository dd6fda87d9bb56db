//! Entries shared by all nodes, in Redis or Valkey: a node that starts, or asks for a key the first time, need not ask the database.
//!
//! It may be gone, empty or slow, and costs nothing but speed then. Reads are tried once and given up after [`PATIENCE`]: the
//! database answers sooner than a second try would. What must be taken away is kept until it is (at most [`MAX_PENDING`] keys, or
//! "all of it"), tried [`TRIES`] times with growing pauses, and before anything is read again after a connection was lost.
//! Connections are tried again after min(50 n, 2000) ms. Deliberately absent: TLS (a tunnel does it), clusters.
//!
//! Values carry the version of their form; one of another version is none.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;

use super::{CacheKey, CacheMetrics};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_millis(100);
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
const AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// Requests under way at most; a read beyond them asks the database.
const MAX_UNDER_WAY: usize = 256;
/// Keys waiting to be taken away at most.
const MAX_PENDING: usize = 10_000;
/// Keys taken away by one request.
const KEYS_AT_ONCE: usize = 100;
const PREFIX: &str = "scrip:1:";

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

pub(super) struct Shared(Arc<Inner>);

struct Inner {
    url: SharedUrl,
    /// `None` while it is not reached, or has not forgotten yet what it must.
    connection: Mutex<Option<MultiplexedConnection>>,
    under_way: Semaphore,
    pending: Mutex<Pending>,
    ready: Notify,
    is_dropped: AtomicBool,
    metrics: CacheMetrics,
}

#[derive(Default)]
struct Pending {
    names: HashSet<String>,
    /// Beginnings of names; the empty one is everything.
    prefixes: HashSet<String>,
}

impl Pending {
    fn take_some(&mut self) -> Pending {
        let names: HashSet<String> = self.names.iter().take(KEYS_AT_ONCE).cloned().collect();
        self.names.retain(|name| !names.contains(name));
        Pending { names, prefixes: std::mem::take(&mut self.prefixes) }
    }

    fn give_back(&mut self, taken: Pending) {
        self.names.extend(taken.names);
        self.prefixes.extend(taken.prefixes);
    }

    async fn remove(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        for prefix in &self.prefixes {
            remove_all(connection, prefix).await?;
        }
        if !self.names.is_empty() {
            let names: Vec<String> = self.names.iter().map(|name| format!("{PREFIX}{name}")).collect();
            redis::cmd("UNLINK").arg(names).query_async::<()>(connection).await?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.prefixes.is_empty()
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
            pending: Mutex::default(),
            ready: Notify::new(),
            is_dropped: AtomicBool::new(false),
            metrics,
        });
        tokio::spawn(inner.clone().work());
        Shared(inner)
    }

    pub(super) async fn get<V: DeserializeOwned>(&self, name: &str) -> Option<V> {
        let mut connection = self.0.connection.lock().clone()?;
        let _permit = self.0.under_way.try_acquire().ok()?;
        let asked: Result<Option<Vec<u8>>, RedisError> =
            redis::cmd("GET").arg(format!("{PREFIX}{name}")).query_async(&mut connection).await;
        match asked {
            // What cannot be read is as good as not there.
            Ok(found) => serde_json::from_slice(&found?).ok(),
            Err(error) => {
                self.0.lost(&error);
                None
            }
        }
    }

    pub(super) async fn put(&self, name: &str, value: &impl Serialize, kept_for: Duration) {
        let Some(mut connection) = self.0.connection.lock().clone() else { return };
        let (Ok(_permit), Ok(bytes)) = (self.0.under_way.try_acquire(), serde_json::to_vec(value)) else { return };
        let kept_ms = u64::try_from(kept_for.as_millis()).unwrap_or(u64::MAX);
        let set = redis::cmd("SET").arg(format!("{PREFIX}{name}")).arg(bytes).arg("PX").arg(kept_ms).to_owned();
        if let Err(error) = set.query_async::<()>(&mut connection).await {
            self.0.lost(&error);
            // Perhaps it arrived.
            self.take_back(name);
        }
    }

    pub(super) fn take_back(&self, name: &str) {
        let mut pending = self.0.pending.lock();
        pending.names.insert(name.to_owned());
        if pending.names.len() > MAX_PENDING {
            pending.names.clear();
            pending.prefixes = [String::new()].into();
        }
        drop(pending);
        self.0.ready.notify_one();
    }

    pub(super) fn remove(&self, key: CacheKey) {
        match key {
            CacheKey::Template(..) | CacheKey::Rules(_) => self.take_back(&key.to_string()),
            CacheKey::Tenant(tenant) => {
                let tenant = tenant.0.as_simple();
                self.0.pending.lock().prefixes.extend([format!("t:{tenant}"), format!("r:{tenant}")]);
                self.0.ready.notify_one();
            }
            CacheKey::Everything => {
                self.0.pending.lock().prefixes.insert(String::new());
                self.0.ready.notify_one();
            }
        }
    }
}

impl Inner {
    /// One late answer is enough: the next one would be waited for as well.
    fn lost(&self, error: &RedisError) {
        self.metrics.shared_failures.inc();
        self.disconnect(error);
    }

    fn disconnect(&self, error: &RedisError) {
        if self.connection.lock().take().is_some() {
            tracing::warn!(url = %self.url, %error, "cache.redis_url: the shared cache is lost; nodes do without it");
        }
        self.metrics.shared_connected.set(0);
        self.ready.notify_one();
    }

    /// Connects, again and again, and takes away what must go.
    async fn work(self: Arc<Self>) {
        let mut failures: u32 = 0;
        while !self.is_dropped.load(Ordering::SeqCst) {
            let is_connected = self.connection.lock().is_some();
            if is_connected && self.pending.lock().is_empty() {
                self.ready.notified().await;
                continue;
            }
            match self.clean().await {
                Ok(()) => {
                    failures = 0;
                    // What changes again and again is taken away so often at most.
                    sleep(AT_MOST_EVERY).await;
                }
                Err(error) => {
                    self.metrics.shared_failures.inc();
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(url = %self.url, %error, "cache.redis_url: the shared cache does not answer");
                    }
                    if failures >= TRIES {
                        self.disconnect(&error);
                    }
                    sleep(Duration::from_millis(u64::from(failures).saturating_mul(50).min(2_000))).await;
                }
            }
        }
    }

    /// Takes away all that is pending, on a new connection if need be; only then others may use that.
    async fn clean(&self) -> Result<(), RedisError> {
        let known = self.connection.lock().clone();
        let mut connection = match known {
            Some(connection) => connection,
            None => self.url.connect().await?,
        };
        loop {
            // Taken out before: what is dropped again meanwhile must be taken away again.
            let taken = self.pending.lock().take_some();
            if taken.is_empty() {
                break;
            }
            if let Err(error) = taken.remove(&mut connection).await {
                self.pending.lock().give_back(taken);
                return Err(error);
            }
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

async fn remove_all(connection: &mut MultiplexedConnection, prefix: &str) -> Result<(), RedisError> {
    let mut cursor: u64 = 0;
    loop {
        let (next, names): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{PREFIX}{prefix}*"))
            .arg("COUNT")
            .arg(1_000)
            .query_async(connection)
            .await?;
        if !names.is_empty() {
            redis::cmd("UNLINK").arg(names).query_async::<()>(connection).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}
