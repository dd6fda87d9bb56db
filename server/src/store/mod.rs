//! Where everything is kept: SQLite in one file, or PostgreSQL.
//!
//! Two narrow faces. Writing goes through [`Writer::run`]: lock and load the rows of a batch of commands, let the domain
//! decide, commit rows, events and idempotency results in one transaction. Reading is [`read`]: one SQL text and one
//! decoder for both stores. The same contract suite runs on both.
//!
//! Shared by both writers: the batch is decided by [`decide_all`], and what can go wrong is a [`BatchFailure`], which tells
//! the engine whether to retry, to bisect or to give up.

mod broker;
pub mod bulk;
mod cache;
mod codes;
pub mod decode;
pub mod definitions;
mod gather;
pub mod job;
pub mod migrate;
mod orders;
mod postgres;
mod projection;
pub mod read;
mod replica;
mod sqlite;
pub mod statistics;
mod table;
mod traffic;
mod value;
mod webhooks;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use scrip_domain::decide::Need;
use scrip_domain::tenant::Tenant;
use scrip_domain::time::LocalPeriods;
use scrip_domain::{Answer, Envelope, State, Timestamp, decide};

use cache::Caches;
pub use cache::{CacheKey, CacheMetrics, CacheOptions, SharedUrl};
pub use definitions::Definitions;
pub use job::JobsReady;
pub use postgres::{PostgresStore, PostgresWriter, lane_statements};
pub use projection::{Folded, Progress, Statistic};
pub use replica::{Position, ReplicaMetrics, ReplicaOptions, ReplicaStanding, examine_replica};
pub use sqlite::{SqliteStore, batch_look_ups};
pub use traffic::Traffic;
pub use value::{Param, Row};
pub use webhooks::{DELIVERY_KINDS, Delivery, LogProgress, Parked, Round, Waiting, WebhookStanding};

/// Whether what is written has reached the disk when the write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Synced {
    AtOnce,
    /// With what is written next: for what is done again when the power takes it.
    Later,
}

/// A store's fault, as opposed to a rejection: the caller did nothing wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or takes no work now; a later attempt may succeed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// A constraint refused what the rules had allowed.
    #[error("constraint {0} refused a write")]
    Constraint(String),
    /// Two transactions collided; deciding again settles it.
    #[error("transactions collided: {0}")]
    Conflict(String),
    /// A stored value that this version cannot read.
    #[error("a stored value cannot be read: {0}")]
    Corrupt(String),
    #[error("{0}")]
    Fault(String),
}

impl StoreError {
    pub fn corrupt(detail: impl Into<String>) -> Self {
        StoreError::Corrupt(detail.into())
    }
}

/// Why a batch was not committed. Nothing of it has taken effect, except as `Unknown` says.
#[derive(Debug, thiserror::Error)]
pub enum BatchFailure {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The connection was lost at COMMIT and the database does not say in time what became of it.
    #[error("the outcome of the commit is unknown")]
    Unknown,
}

/// Where and how to keep things.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `sqlite:PATH` or `postgres://...`.
    pub url: StoreUrl,
    /// Connections that read, at most.
    pub read_connections: usize,
    /// How long to wait for a read connection.
    pub acquire_timeout: Duration,
    /// How long one statement may run.
    pub statement_timeout: Duration,
    /// Statements that take longer are logged and counted.
    pub slow_statement: Duration,
    /// How long to keep asking what became of a commit whose connection was lost.
    pub resolve_timeout: Duration,
    /// Answers reads in the primary's place (PostgreSQL).
    pub replica: Option<ReplicaOptions>,
    /// What a server keeps in memory of templates and rules (PostgreSQL).
    pub caches: Option<CacheOptions>,
}

impl StoreOptions {
    pub fn new(url: StoreUrl) -> Self {
        StoreOptions {
            url,
            read_connections: 20,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            slow_statement: Duration::from_millis(100),
            resolve_timeout: Duration::from_secs(10),
            replica: None,
            caches: None,
        }
    }
}

/// A parsed store URL. Its `Display` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    Sqlite(PathBuf),
    Postgres(String),
}

impl std::str::FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("name a file after sqlite:, for instance sqlite:data/scrip.db".into())
            } else {
                Ok(StoreUrl::Sqlite(path.into()))
            };
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return match text.parse::<tokio_postgres::Config>() {
                Ok(_) => Ok(StoreUrl::Postgres(text.into())),
                // The cause names the part that is wrong, not its value.
                Err(error) => {
                    let cause =
                        std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                    Err(format!("not a PostgreSQL URL: {error}{cause}"))
                }
            };
        }
        Err("expected sqlite:PATH or postgres://USER@HOST/DATABASE".into())
    }
}

impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            StoreUrl::Postgres(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
                // A password may itself have an @ or a ?, and may stand among the options as well.
                let place = rest.split_once('@').map_or(rest, |(_, place)| place);
                let place = place.split('?').next().unwrap_or(place);
                let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
                write!(f, "{scheme}://{place}")
            }
        }
    }
}

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// An open store. Cheap to clone.
#[derive(Clone)]
pub enum Store {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl Store {
    /// Opens the store; its schema may still be missing ([`Store::migrate`]).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be reached, with what to do about it.
    pub async fn open(options: &StoreOptions) -> Result<Store, StoreError> {
        match &options.url {
            StoreUrl::Sqlite(path) => Ok(Store::Sqlite(Arc::new(SqliteStore::open(path, options)?))),
            StoreUrl::Postgres(url) => Ok(Store::Postgres(Arc::new(PostgresStore::open(url, options).await?))),
        }
    }

    /// What decides batches: on PostgreSQL over a connection of its own, on SQLite over the one that writes, in turn with all others.
    pub async fn writer(&self) -> Result<Writer, StoreError> {
        match self {
            Store::Sqlite(store) => Ok(Writer::Sqlite(store.writer()?)),
            Store::Postgres(store) => Ok(Writer::Postgres(Box::new(store.writer().await?))),
        }
    }

    /// Makes sure of being the only server on a SQLite file until the result is dropped. PostgreSQL takes any number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when another server works on the file.
    pub fn lock(&self) -> Result<Option<std::fs::File>, StoreError> {
        match self {
            Store::Sqlite(store) => store.lock().map(Some),
            Store::Postgres(_) => Ok(None),
        }
    }

    /// Has SQLite move its whole log into the database file, so that the file by itself is the store. For the end of a server:
    /// whoever copies the file then gets everything.
    ///
    /// # Errors
    /// When somebody still reads from the log, or the store fails; nothing is lost by that.
    pub fn empty_log(&self) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(store) => store.empty_log(),
            Store::Postgres(_) => Ok(()),
        }
    }

    /// Has PostgreSQL write what it keeps in memory to the disk, which takes a superuser or `pg_checkpoint`. SQLite does so by
    /// itself, all the time.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(_) => Ok(()),
            Store::Postgres(store) => store.checkpoint().await,
        }
    }

    /// Which kind of store this is, for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Store::Sqlite(_) => "sqlite",
            Store::Postgres(_) => "postgres",
        }
    }

    /// How much this process has asked of the store.
    pub fn traffic(&self) -> &Traffic {
        match self {
            Store::Sqlite(store) => &store.traffic,
            Store::Postgres(store) => &store.traffic,
        }
    }

    /// Says when a job has become ready on this node, so that its runner need not wait for its next look.
    pub fn jobs_ready(&self) -> &JobsReady {
        match self {
            Store::Sqlite(store) => &store.jobs_ready,
            Store::Postgres(store) => &store.jobs_ready,
        }
    }

    /// Brings the figures of the pools up to date, to be shown.
    pub fn show_gauges(&self) {
        let replica = self.replica_metrics();
        let pools = match self {
            Store::Sqlite(store) => [Some(store.readers_in_use()), None],
            Store::Postgres(store) => store.pool_status(),
        };
        let of_pools = [Some(self.traffic()), replica.as_ref().map(|(_, traffic)| traffic)];
        for (status, traffic) in pools.into_iter().zip(of_pools) {
            let (Some((in_use, idle, waiting)), Some(traffic)) = (status, traffic) else { continue };
            traffic.connections.with_label_values(&["in_use"]).set(in_use as i64);
            traffic.connections.with_label_values(&["idle"]).set(idle as i64);
            traffic.waiting.set(waiting as i64);
        }
        if let Some(caches) = self.caches() {
            caches.show();
        }
    }

    /// The figures of the caches, when there are any.
    pub fn cache_metrics(&self) -> Option<CacheMetrics> {
        Some(self.caches()?.metrics.clone())
    }

    fn caches(&self) -> Option<&Caches> {
        match self {
            Store::Sqlite(_) => None,
            Store::Postgres(store) => store.caches.as_deref(),
        }
    }

    /// Has every server on this store drop entries of its caches.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn evict(&self, key: CacheKey) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(_) => Ok(()),
            Store::Postgres(store) => store.evict(key).await,
        }
    }

    /// The store to read from, by a caller that has seen up to `seen`: this one, or the same whose reads ask the replica.
    pub async fn for_reads(&self, seen: Option<Position>) -> Store {
        match self {
            Store::Postgres(store) => Store::Postgres(store.for_reads(seen).await.unwrap_or(store).clone()),
            Store::Sqlite(_) => self.clone(),
        }
    }

    /// What a caller whose write was just answered has seen, to be brought along with its reads; `None` without a replica.
    pub fn written(&self) -> Option<Position> {
        match self {
            Store::Sqlite(_) => None,
            Store::Postgres(store) => store.written(),
        }
    }

    /// The figures of the replica and of its pool, when there is one.
    pub fn replica_metrics(&self) -> Option<(ReplicaMetrics, Traffic)> {
        match self {
            Store::Sqlite(_) => None,
            Store::Postgres(store) => store.replica_metrics(),
        }
    }

    /// The definitions known to this process.
    pub fn definitions(&self) -> &Definitions {
        match self {
            Store::Sqlite(store) => &store.definitions,
            Store::Postgres(store) => &store.definitions,
        }
    }
}

/// Runs batches, one at a time.
pub enum Writer {
    Sqlite(Arc<SqliteStore>),
    Postgres(Box<PostgresWriter>),
}

impl Writer {
    /// Decides the commands in order and commits what they change, all in one transaction.
    ///
    /// # Errors
    /// A [`BatchFailure`]; then no command of the batch has taken effect, unless it is `Unknown`.
    pub async fn run(&mut self, batch: &[Envelope]) -> Result<Vec<Answer>, BatchFailure> {
        match self {
            Writer::Sqlite(store) => Ok(store.run(batch)?),
            Writer::Postgres(writer) => writer.run(batch).await,
        }
    }

    /// Does what is better done between two batches than in one.
    pub fn rest(&self) {
        if let Writer::Sqlite(store) = self {
            store.end_log();
        }
    }
}

/// Decides the commands that have no answer yet. Stops at one that needs something more; call again once it is loaded.
fn decide_all(state: &mut State, batch: &[Envelope], answers: &mut Vec<Answer>) -> Result<(), Need> {
    for envelope in &batch[answers.len()..] {
        answers.push(decide(state, envelope)?);
    }
    Ok(())
}

/// The day, week and month of a tenant's calendar at an instant, for a decision that has asked for them ([`Need::Periods`]).
fn local_periods(tenant: Option<&Tenant>, at: Timestamp) -> Result<LocalPeriods, StoreError> {
    let tenant = tenant.ok_or_else(|| StoreError::corrupt("a template belongs to a tenant that does not exist"))?;
    crate::clock::local_periods(&tenant.time_zone, at)
        .ok_or_else(|| StoreError::corrupt(format!("the tenant's time zone {:?} is unknown", tenant.time_zone)))
}
