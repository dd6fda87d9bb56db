//! PostgreSQL: several lanes, each on a connection of its own, and a pool for reads; another on a replica ([`replica`]).
//!
//! A batch takes two round trips, one more when it names orders: these are locked first and by themselves, since only their
//! rows say what else belongs to them. The first pipelines BEGIN, the locks (templates, codes, coupons, accounts; each set in key order,
//! so that no two batches can deadlock) and every look-up that needs no answer of another; READ COMMITTED gives each
//! statement behind a lock a snapshot that includes what the lock waited for. The second pipelines all writes and COMMIT.
//! A third, between them, comes only when a lot named by a hold or a reversal, a definition, or what a reported task requires is
//! not at hand yet.
//!
//! Statements take arrays, so one prepared plan serves every batch size; `UNNEST ... LATERAL` keeps the look-ups on the
//! primary keys whatever the planner believes about a fresh table. Rows that a batch has locked are updated at the place
//! where they were found ([`RowPlace`]), without a second search; what is nearly always written together is one statement
//! ([`GROUPS`]), because each statement costs a message to and from the server.
//!
//! When the connection is lost at COMMIT, the database itself is asked what became of the transaction
//! (`pg_xact_status`), and whether the transaction of that number is really ours (its first event is there), so an outcome
//! is never guessed: a crash may forget that a transaction began and give its number to another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::StreamExt;
use futures_util::future::join_all;
use scrip_domain::coupon::Definition;
use scrip_domain::decide::Need;
use scrip_domain::key::Keys;
use scrip_domain::state::{IdempotencyRecord, LOT_PAGE, Prerequisite};
use scrip_domain::{
    Answer, CompletionId, Envelope, LotId, MemberId, OrderId, RefundId, State, TaskKey, TemplateId, TenantId, Timestamp,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type as PgType, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::cache::{CacheKey, Caches, Changed, notice};
use super::gather::Gatherer;
use super::migrate::{self, Migration};
use super::replica::{self, Position, Replica, ReplicaMetrics, ReplicaOptions};
use super::table::{
    ACCOUNT, COUPON, Change, EVENT, IDEMPOTENCY, LOT, Placement, TABLES, TEMPLATE, TRANSACTION, Table, Type, Verb,
    changes,
};
use super::traffic::{Pipeline, Traffic, name_of};
use super::value::{Param, Row};
use super::{
    BatchFailure, Definitions, JobsReady, StoreError, StoreOptions, StoreUrl, Synced, decide_all, decode, local_periods,
};
use crate::calendar::day_end;
use crate::tls;

/// Guards migrations across nodes; any number will do, as long as it stays the same.
const MIGRATION_LOCK: i64 = 0x5343_5249_5000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub struct PostgresStore {
    endpoint: Endpoint,
    readers: Readers,
    options: StoreOptions,
    pub(super) definitions: Arc<Definitions>,
    pub(super) traffic: Traffic,
    pub(super) jobs_ready: Arc<JobsReady>,
    replica: Option<Arc<Replica>>,
    /// The same store, whose SELECTs ask the replica first.
    through_replica: Option<Arc<PostgresStore>>,
    asks_replica: bool,
    /// In a server; without them, all word of changes is part of their transactions.
    pub(super) caches: Option<Arc<Caches>>,
}

/// A server, and how to connect to it. Its `Display` hides the password.
#[derive(Clone)]
pub(super) struct Endpoint {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    url: StoreUrl,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.url.fmt(f)
    }
}

impl Endpoint {
    pub(super) fn new(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let mut config: Config = url.parse().map_err(|error| StoreError::Fault(format!("store URL: {error}")))?;
        config.application_name("scrip");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        let statement_timeout = format!("-c statement_timeout={}", options.statement_timeout.as_millis());
        config.options(match config.get_options() {
            Some(own) => format!("{statement_timeout} {own}"),
            None => statement_timeout,
        });
        let tls =
            (config.get_ssl_mode() != tokio_postgres::config::SslMode::Disable).then(connect_by_tls).transpose()?;
        Ok(Endpoint { config, tls, url: StoreUrl::Postgres(url.to_owned()) })
    }

    pub(super) async fn connect(&self) -> Result<Client, StoreError> {
        let unavailable = |error: tokio_postgres::Error| {
            let cause = StdError::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            let remedy = tls::remedy(&error).map_or_else(String::new, |remedy| format!("; {remedy}"));
            StoreError::Unavailable(format!("cannot connect to {self}: {error}{cause}{remedy}"))
        };
        let client = match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await.map_err(unavailable)?;
                tokio::spawn(connection);
                client
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(unavailable)?;
                tokio::spawn(connection);
                client
            }
        };
        Ok(client)
    }

    /// A connection that hears what is said on a channel, as long as the first of the pair is kept.
    pub(super) async fn listen(
        &self,
        channel: &str,
        application: &str,
    ) -> Result<(Client, mpsc::Receiver<AsyncMessage>), StoreError> {
        let mut config = self.config.clone();
        config.application_name(application);
        let (client, heard) = match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                (client, messages(connection))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, messages(connection))
            }
        };
        client.batch_execute(&format!("LISTEN {channel}")).await?;
        Ok((client, heard))
    }

    /// A pool of connections that are opened as they are needed.
    fn readers(&self, options: &StoreOptions, traffic: Traffic) -> Result<Readers, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &self.tls {
            Some(tls) => Manager::from_config(self.config.clone(), tls.clone(), recycling),
            None => Manager::from_config(self.config.clone(), NoTls, recycling),
        };
        let pool = Pool::builder(manager)
            .max_size(options.read_connections.max(1))
            .wait_timeout(Some(options.acquire_timeout))
            .create_timeout(Some(options.acquire_timeout))
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move { client.batch_execute(INDEXES_ONLY).await.map_err(HookError::Backend) })
            }))
            .build()
            .map_err(|error| StoreError::Fault(error.to_string()))?;
        let gatherer = Gatherer::new(self.clone(), traffic.clone());
        Ok(Readers { pool, gatherer, traffic })
    }
}

/// What a server has said unasked and nobody has taken yet; beyond it, it waits.
const MAX_UNHEARD: usize = 1_000;

/// Drives a connection and hands on what the server says unasked.
fn messages<S, T>(mut connection: Connection<S, T>) -> mpsc::Receiver<AsyncMessage>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(MAX_UNHEARD);
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if sender.send(message).await.is_err() {
                break;
            }
        }
    });
    receiver
}

/// The connections to one server that read. Cheap to clone.
#[derive(Clone)]
pub(super) struct Readers {
    pool: Pool,
    gatherer: Gatherer,
    traffic: Traffic,
}

impl Readers {
    /// A connection of the pool.
    async fn acquire(&self) -> Result<deadpool_postgres::Object, StoreError> {
        let begun = Instant::now();
        let client = self.pool.get().await;
        self.traffic.acquire_seconds.observe(begun.elapsed().as_secs_f64());
        Ok(client?)
    }

    /// The rows of one SELECT. A connection that broke while it was idle says nothing of the server: a new one is asked, and
    /// the other idle ones, which most likely broke with it, are let go.
    pub(super) async fn read(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let client = self.acquire().await?;
        match self.read_over(&client, sql, parameters).await {
            Err(error) if is_disconnection(&error) => {
                drop(deadpool_postgres::Object::take(client));
                self.pool.retain(|_, _| false);
                Ok(self.read_over(&*self.acquire().await?, sql, parameters).await?)
            }
            rows => Ok(rows?),
        }
    }

    async fn read_over(
        &self,
        client: &deadpool_postgres::ClientWrapper,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        self.traffic.reads.inc();
        self.traffic.round_trips.inc();
        let statement = client.prepare_cached(sql).await?;
        let begun = Instant::now();
        let rows = client.query(&statement, parameters).await?;
        self.traffic.watch(begun, rows.len(), || name_of(sql));
        Ok(rows)
    }

    /// The same for a read that is asked all day: together with those of other callers, if that can be.
    async fn read_gathered(&self, sql: &str, parameters: &[Param<'_>]) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        match self.gatherer.ask(sql, parameters).await {
            Some(rows) => Ok(rows),
            None => self.read(sql, &borrowed(parameters)).await,
        }
    }

    /// Runs what has nothing to answer.
    pub(super) async fn execute(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<(), StoreError> {
        let client = self.acquire().await?;
        let statement = client.prepare_cached(sql).await?;
        client.execute(&statement, parameters).await?;
        Ok(())
    }

    /// The number a statement without parameters answers with.
    pub(super) async fn number(&self, sql: &str) -> Result<Option<u64>, StoreError> {
        replica::number(&*self.acquire().await?, sql).await
    }

    /// Connections in use and idle, and callers that wait for one.
    fn status(&self) -> (usize, usize, usize) {
        let status = self.pool.status();
        (status.size.saturating_sub(status.available), status.available, status.waiting)
    }
}

impl PostgresStore {
    pub(super) async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let traffic = Traffic::new("postgres", options.slow_statement);
        let endpoint = Endpoint::new(url, options)?;
        let mut store = PostgresStore {
            readers: endpoint.readers(options, traffic.clone())?,
            endpoint,
            options: options.clone(),
            definitions: Arc::default(),
            traffic,
            jobs_ready: Arc::default(),
            replica: None,
            through_replica: None,
            asks_replica: false,
            caches: None,
        };
        store.endpoint.connect().await?;
        if let Some(options) = &options.caches {
            let caches = Arc::new(Caches::new(options));
            notice::start(&caches, store.endpoint.clone(), store.readers.clone());
            store.caches = Some(caches);
        }
        if let Some(ReplicaOptions { url, lag_limit }) = &options.replica {
            let its = Endpoint::new(url, options)?;
            let readers = its.readers(options, Traffic::new("replica", options.slow_statement))?;
            let primary = (store.endpoint.clone(), store.readers.clone());
            let replica = Replica::start((its, readers), primary, *lag_limit);
            store.through_replica = Some(Arc::new(PostgresStore {
                endpoint: store.endpoint.clone(),
                readers: store.readers.clone(),
                options: options.clone(),
                definitions: store.definitions.clone(),
                traffic: store.traffic.clone(),
                jobs_ready: store.jobs_ready.clone(),
                replica: Some(replica.clone()),
                through_replica: None,
                asks_replica: true,
                caches: store.caches.clone(),
            }));
            store.replica = Some(replica);
        }
        Ok(store)
    }

    /// The store to read from, by a caller that has seen up to `seen`; `None` for this one.
    pub(super) async fn for_reads(&self, seen: Option<Position>) -> Option<&Arc<PostgresStore>> {
        let (Some(replica), Some(through)) = (&self.replica, &self.through_replica) else { return None };
        replica.may_answer(seen).await.then_some(through)
    }

    /// What a caller whose write was just answered has seen; `None` without a replica.
    pub(super) fn written(&self) -> Option<Position> {
        Some(self.replica.as_ref()?.written())
    }

    /// Notes that something was written, or found written, that [`PostgresStore::written`] must cover.
    pub(super) async fn has_written(&self, on: Option<&Client>) {
        if let Some(replica) = &self.replica {
            replica.has_written(on).await;
        }
    }

    /// The word that belongs into the transaction of such a commit.
    fn notices(&self, changed: &Changed) -> Vec<String> {
        match &self.caches {
            Some(caches) => caches.notices(changed),
            None => notice::of_nobody(changed.all()),
        }
    }

    /// Drops what a commit has made old.
    fn has_changed(&self, changed: &Changed) {
        if let Some(caches) = &self.caches {
            caches.has_committed(changed);
        }
    }

    /// Has all servers on this database drop these entries.
    pub(super) async fn evict(&self, key: CacheKey) -> Result<(), StoreError> {
        if let Some(caches) = &self.caches {
            caches.evict_everywhere(key);
            return Ok(());
        }
        for said in notice::of_nobody([key]) {
            self.readers.execute(notice::NOTIFY, &[&notice::CHANNEL, &said]).await?;
        }
        Ok(())
    }

    /// The figures of the replica and of its pool, when there is one.
    pub(super) fn replica_metrics(&self) -> Option<(ReplicaMetrics, Traffic)> {
        let replica = self.replica.as_ref()?;
        Some((replica.metrics.clone(), replica.readers.traffic.clone()))
    }

    pub(super) async fn writer(self: &Arc<Self>) -> Result<PostgresWriter, StoreError> {
        let lane = Lane::open(self).await?;
        Ok(PostgresWriter { store: self.clone(), lane: Some(lane), stripe: rand::random_range(0..STRIPES) })
    }

    pub(super) async fn migrate(&self) -> Result<Vec<&'static str>, StoreError> {
        let mut client = self.endpoint.connect().await?;
        let transaction = client.transaction().await?;
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
        transaction.batch_execute(migrate::CREATE_TABLE).await?;
        let rows = transaction.query(migrate::SELECT_APPLIED, &[]).await?;
        let applied: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let pending = migrate::pending(&applied, sql_of)?;
        for migration in &pending {
            transaction.batch_execute(sql_of(migration)).await?;
            let checksum = migrate::checksum(sql_of(migration));
            transaction.execute(migrate::INSERT_APPLIED, &[&migration.number, &migration.name, &checksum]).await?;
        }
        transaction.commit().await?;
        Ok(pending.iter().map(|migration| migration.name).collect())
    }

    /// The rows of one SELECT: of the replica if this store asks it and it can tell, else of the primary.
    async fn read(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        if let Some(replica) = self.replica_to_ask()
            && let Some(rows) = replica.try_read(replica.readers.read(sql, parameters)).await
        {
            return Ok(rows);
        }
        self.readers.read(sql, parameters).await
    }

    async fn read_gathered(&self, sql: &str, parameters: &[Param<'_>]) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        if let Some(replica) = self.replica_to_ask()
            && let Some(rows) = replica.try_read(replica.readers.read_gathered(sql, parameters)).await
        {
            return Ok(rows);
        }
        self.readers.read_gathered(sql, parameters).await
    }

    fn replica_to_ask(&self) -> Option<&Replica> {
        self.replica.as_deref().filter(|_| self.asks_replica)
    }

    /// The same for a read that is asked all day ([`super::gather`]).
    pub(super) async fn query_gathered<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.read_gathered(sql, parameters).await?;
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    pub(super) async fn query<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.read(sql, &borrowed(parameters)).await?;
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    /// Rows by an array of keys, as one statement.
    pub(super) async fn query_ids<T>(
        &self,
        sql: &str,
        tenant: TenantId,
        ids: &[Uuid],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.read(sql, &[&tenant.0, &ids]).await?;
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    /// The definitions of many versions, as one statement.
    pub(super) async fn query_definitions(
        &self,
        tenant: TenantId,
        versions: &[(TemplateId, i64)],
    ) -> Result<Vec<(TemplateId, i64, Definition)>, StoreError> {
        let sql = "SELECT r.template_id, r.version, r.definition FROM unnest($2::uuid[], $3::bigint[]) \
                   AS k(template_id, version) CROSS JOIN LATERAL (SELECT * FROM mkt_coupon_template_version v \
                   WHERE v.tenant_id = $1 AND v.template_id = k.template_id AND v.version = k.version) r";
        let (ids, numbers): (Vec<Uuid>, Vec<i64>) = versions.iter().map(|(id, version)| (id.0, *version)).unzip();
        let rows = self.read(sql, &[&tenant.0, &ids, &numbers]).await?;
        let decode = |row: &Row| Ok((TemplateId(row.uuid(0)?), row.int(1)?, row.json(2)?));
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    pub(super) async fn execute(&self, sql: &str, parameters: &[Param<'_>]) -> Result<u64, StoreError> {
        let client = self.readers.acquire().await?;
        let statement = client.prepare_cached(sql).await?;
        self.traffic.writes.inc();
        self.traffic.round_trips.inc();
        let begun = Instant::now();
        let rows = client.execute(&statement, &borrowed(parameters)).await?;
        self.traffic.watch(begun, rows as usize, || name_of(sql));
        Ok(rows)
    }

    /// The same for a statement that returns the rows it has written.
    pub(super) async fn execute_returning<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let client = self.readers.acquire().await?;
        let statement = client.prepare_cached(sql).await?;
        self.traffic.writes.inc();
        self.traffic.round_trips.inc();
        let begun = Instant::now();
        let rows = client.query(&statement, &borrowed(parameters)).await?;
        self.traffic.watch(begun, rows.len(), || name_of(sql));
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    /// Rows by an array of digests, as one statement.
    pub(super) async fn query_digests<T>(
        &self,
        sql: &str,
        tenant: TenantId,
        digests: &[&[u8]],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.read(sql, &[&tenant.0, &digests]).await?;
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    /// Writes the changes in one transaction if `guard` writes a row, and nothing otherwise; whether it did. What is written
    /// so can be made anew, and does not wait for the disk.
    pub(super) async fn write_after(
        &self,
        guard: &str,
        parameters: &[Param<'_>],
        changes: &[Change<'_>],
        synced: Synced,
    ) -> Result<bool, StoreError> {
        let mut client = self.readers.acquire().await?;
        let transaction = client.transaction().await?;
        if synced == Synced::Later {
            transaction.batch_execute("SET LOCAL synchronous_commit = off").await?;
        }
        let guard = transaction.prepare_cached(guard).await?;
        if transaction.execute(&guard, &borrowed(parameters)).await? == 0 {
            return Ok(false);
        }
        for change in changes {
            let statement = transaction.prepare_cached(&change_sql(change.table, change.verb, 1)).await?;
            let columns = columns(change.table, change.verb, Some(change));
            let parameters: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
            transaction.execute(&statement, &parameters).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Connections in read transactions of the same state, for statements that read whole tables.
    pub(super) async fn snapshots(&self, count: usize) -> Result<Vec<Client>, StoreError> {
        let mut clients: Vec<Client> = Vec::with_capacity(count);
        let mut adopt = String::new();
        for _ in 0..count {
            let client = self.endpoint.connect().await?;
            client.batch_execute(&format!("{BEGIN_SNAPSHOT}; {adopt}{FOR_WHOLE_TABLES}")).await?;
            if clients.is_empty() {
                let name: String = client.query_one("SELECT pg_export_snapshot()", &[]).await?.get(0);
                adopt = format!("SET TRANSACTION SNAPSHOT '{name}'; ");
            }
            clients.push(client);
        }
        Ok(clients)
    }

    /// A connection of its own without a statement timeout, for long reads.
    pub(super) async fn stream<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let client = self.endpoint.connect().await?;
        client.batch_execute("SET statement_timeout = 0").await?;
        let rows = client.query(sql, &borrowed(parameters)).await?;
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    pub(super) async fn checkpoint(&self) -> Result<(), StoreError> {
        let client = self.endpoint.connect().await?;
        Ok(client.batch_execute("SET statement_timeout = 0; CHECKPOINT").await?)
    }

    /// Read connections in use and idle, and callers that wait for one; those of the replica behind.
    pub(super) fn pool_status(&self) -> [Option<(usize, usize, usize)>; 2] {
        [Some(self.readers.status()), self.replica.as_ref().map(|replica| replica.readers.status())]
    }

    /// What became of a transaction whose connection was lost.
    async fn fate_of(&self, lost: &LostCommit) -> Result<Fate, StoreError> {
        let client = self.endpoint.connect().await?;
        let row = client.query_one("SELECT pg_xact_status($1::text::xid8)", &[&lost.place.xid.to_string()]).await?;
        match row.get(0) {
            Some("aborted") => return Ok(Fate::Aborted),
            Some("committed") => {}
            Some(_) => return Ok(Fate::InProgress),
            None => return Ok(Fate::Forgotten),
        }
        let Some((tenant, event)) = lost.first_event else { return Ok(Fate::Committed) };
        // A statement of its own, so that it sees what is committed by now.
        let sql = "SELECT 1 FROM event WHERE tenant_id = $1 AND tx = $2 AND ordinal = $3 AND id = $4";
        let Place { tx, .. } = lost.place;
        let is_ours = client.query_opt(sql, &[&tenant.0, &tx, &lost.place.first_ordinal(), &event]).await?.is_some();
        Ok(if is_ours { Fate::Committed } else { Fate::Aborted })
    }
}

/// A batch whose connection was lost at COMMIT.
struct LostCommit {
    place: Place,
    /// Its tenant and id. Only the making of tenants and keys records none.
    first_event: Option<(TenantId, Uuid)>,
    answers: Vec<Answer>,
    changed: Changed,
    error: StoreError,
}

enum Fate {
    Committed,
    Aborted,
    InProgress,
    /// Too long ago for the database to know.
    Forgotten,
}

fn sql_of(migration: &Migration) -> &'static str {
    migration.postgres
}

pub(super) fn borrowed<'a>(parameters: &'a [Param<'_>]) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect()
}

const BEGIN_SNAPSHOT: &str = "SET statement_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Statements over whole tables must take time in proportion to the rows even where the planner knows nothing of them, which
/// only hash joins do: a nested loop does not, nor does a merge join of what it takes for a few groups, by the tenant alone.
/// Compiling them would take longer than most of them run.
const FOR_WHOLE_TABLES: &str = "SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off; \
                                SET LOCAL work_mem = '64MB'";

/// Hands every row of a statement to `visit` as it arrives.
pub(super) async fn scan(
    client: &Client,
    sql: &str,
    mut visit: impl FnMut(&Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let nothing: [&(dyn ToSql + Sync); 0] = [];
    let mut rows = pin!(client.query_raw(sql, nothing).await?);
    while let Some(row) = rows.next().await {
        visit(&Row::Postgres(&row?))?;
    }
    Ok(())
}

fn connect_by_tls() -> Result<MakeRustlsConnect, StoreError> {
    let config = tls::client_config().map_err(|error| StoreError::Fault(format!("TLS: {error}")))?;
    Ok(MakeRustlsConnect::new(config))
}

/// A stand-by that has not been promoted yet; a transaction that stood still for so long that the server ended it.
const GOES_BY: [SqlState; 2] = [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT];

/// Whether the connection ended, rather than the statement on it.
fn is_disconnection(error: &tokio_postgres::Error) -> bool {
    let ends = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    error.is_closed()
        || error.code().is_some_and(|code| ends.contains(code))
        || StdError::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(fault) = error.as_db_error() else {
            let cause = StdError::source(&error);
            let text = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
            return if is_disconnection(&error) { StoreError::Unavailable(text) } else { StoreError::Fault(text) };
        };
        let text = format!("{} ({})", fault.message(), fault.code().code());
        let code = fault.code();
        match &code.code()[..2] {
            "23" => StoreError::Constraint(fault.constraint().unwrap_or("(unnamed)").to_owned()),
            "40" => StoreError::Conflict(text),
            "08" | "57" => StoreError::Unavailable(text),
            "53" if *code == SqlState::DISK_FULL => StoreError::DiskFull(text),
            "53" => StoreError::Unavailable(text),
            "25" if GOES_BY.contains(code) => StoreError::Unavailable(text),
            _ => StoreError::Fault(text),
        }
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            other => StoreError::Unavailable(format!("no read connection: {other}")),
        }
    }
}

/// How many rows count the uses of a template ([`Placement::stripe`]).
const STRIPES: i64 = 8;

/// Numbers that are free for the events of one batch; the number of the batch stands in the bits above.
const EVENTS_PER_BATCH_BITS: u32 = 24;

/// Where a batch's events stand in the log, told when all of its rows are locked.
///
/// Two things must hold. *What happened to an object stands in the order in which it happened*: a batch that waited for
/// another's lock asks after the other has committed, so its `tx` (the newest transaction that has ended by then, or its own
/// number when that is larger) is no smaller, and where the two are equal its `batch`, drawn from a sequence, is larger. A
/// transaction's own number alone would not do: it is drawn at the first lock, perhaps long before the last one is gained.
/// *Nothing appears behind a reader*: `tx` is never below the transaction's own number, and readers only see what is below
/// the oldest transaction still running. *Nothing stays hidden*: `tx` is the number of a transaction that has ended, so the
/// last event shows without waiting for the next one.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    /// The transaction's own number: what to ask about when the connection breaks at COMMIT.
    xid: i64,
    tx: i64,
    batch: i64,
}

impl Place {
    /// The ordinal of the batch's first event.
    fn first_ordinal(self) -> i64 {
        self.batch << EVENTS_PER_BATCH_BITS
    }
}

/// A lane's connection with its statements prepared.
pub struct PostgresWriter {
    store: Arc<PostgresStore>,
    lane: Option<Lane>,
    stripe: i64,
}

struct Lane {
    client: Counted,
    lookups: HashMap<Lookup, Statement>,
    writes: Vec<WriteStatement>,
    notify: Statement,
}

/// A prepared statement that writes some changes.
struct WriteStatement {
    parts: Vec<Part>,
    statement: Statement,
}

/// A connection whose statements and round trips are counted.
struct Counted {
    client: Client,
    traffic: Traffic,
    pipeline: Pipeline,
}

impl Counted {
    fn new(client: Client, traffic: &Traffic) -> Counted {
        Counted { client, traffic: traffic.clone(), pipeline: Pipeline::new(traffic.clone()) }
    }

    async fn query(&self, statement: &Statement, parameters: &[&(dyn ToSql + Sync)]) -> Rows {
        let _under_way = self.pipeline.send();
        self.traffic.reads.inc();
        self.client.query(statement, parameters).await
    }

    async fn write(&self, asked: &AskedWrite<'_>, parameters: &[&(dyn ToSql + Sync)]) -> Result<(), WriteError> {
        let _under_way = self.pipeline.send();
        self.traffic.writes.inc();
        let WriteStatement { parts, statement } = asked.write;
        let rows: Vec<i64> = if parts.len() == 1 {
            vec![self.client.execute(statement, parameters).await? as i64]
        } else if asked.expected.is_empty() {
            self.client.execute(statement, parameters).await?;
            Vec::new()
        } else {
            let counts = self.client.query_one(statement, parameters).await?;
            (0..counts.len()).map(|column| counts.get(column)).collect()
        };
        // An UPDATE has not found a row that this transaction has locked.
        if rows != asked.expected {
            let tables: Vec<&str> = parts.iter().map(|(table, _)| table.name).collect();
            let (tables, expected) = (tables.join(", "), &asked.expected);
            return Err(WriteError::Missed(format!("{rows:?} rows instead of {expected:?} were written to {tables}")));
        }
        Ok(())
    }

    /// BEGIN, COMMIT and ROLLBACK: they count as no statement.
    async fn batch_execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let _under_way = self.pipeline.send();
        self.client.batch_execute(sql).await
    }

    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

/// A statement that writes, with its parameters.
struct AskedWrite<'a> {
    write: &'a WriteStatement,
    columns: Vec<Column<'a>>,
    /// How many rows its updates, or its only part, must write.
    expected: Vec<i64>,
}

enum WriteError {
    Failed(tokio_postgres::Error),
    Missed(String),
}

impl From<tokio_postgres::Error> for WriteError {
    fn from(error: tokio_postgres::Error) -> Self {
        WriteError::Failed(error)
    }
}

/// Where a row version stands in its table: PostgreSQL's `ctid`. It stays while the transaction that found it holds the lock
/// that guards the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowPlace {
    block: u32,
    offset: u16,
}

impl<'a> FromSql<'a> for RowPlace {
    fn from_sql(_: &PgType, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        let raw: [u8; 6] = raw.try_into()?;
        let [a, b, c, d, e, f] = raw;
        Ok(RowPlace { block: u32::from_be_bytes([a, b, c, d]), offset: u16::from_be_bytes([e, f]) })
    }

    fn accepts(ty: &PgType) -> bool {
        *ty == PgType::TID
    }
}

impl ToSql for RowPlace {
    fn to_sql(&self, _: &PgType, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.block.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &PgType) -> bool {
        *ty == PgType::TID
    }

    to_sql_checked!();
}

/// Where the rows stand that a batch may update.
#[derive(Debug, Default)]
struct RowPlaces {
    by_id: HashMap<(&'static str, TenantId, Uuid), RowPlace>,
    accounts: HashMap<TenantId, HashMap<MemberId, RowPlace>>,
}

impl RowPlaces {
    fn insert(
        &mut self,
        table: &Table,
        tenant: TenantId,
        id: Uuid,
        row: &tokio_postgres::Row,
    ) -> Result<(), StoreError> {
        self.by_id.insert((table.name, tenant, id), row.try_get(row.len() - 1)?);
        Ok(())
    }

    fn insert_account(
        &mut self,
        tenant: TenantId,
        member: &MemberId,
        row: &tokio_postgres::Row,
    ) -> Result<(), StoreError> {
        self.accounts.entry(tenant).or_default().insert(member.clone(), row.try_get(row.len() - 1)?);
        Ok(())
    }

    /// The places of a change's rows, in their order.
    fn of(&self, change: Option<&Change<'_>>) -> Result<Vec<RowPlace>, StoreError> {
        let Some(change) = change else { return Ok(Vec::new()) };
        let name = change.table.name;
        let place = |row: &Vec<Param<'_>>| {
            let tenant = TenantId(row[0].as_uuid()?);
            match &row[1] {
                Param::Uuid(id) => self.by_id.get(&(name, tenant, *id)),
                member => self.accounts.get(&tenant)?.get(member.as_text()?),
            }
        };
        let places = change.rows.iter().map(|row| place(row).copied());
        places.collect::<Option<_>>().ok_or_else(|| StoreError::Fault(format!("a row of {name} was not looked up")))
    }
}

/// What a lane asks, each for all keys of a batch at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lookup {
    /// In a round trip before all others.
    LockedOrders,
    Tenants,
    ApiKeys,
    LockedTemplates,
    Templates,
    TemplateUses,
    Claimed,
    LockedCodeBatches,
    LockedCodes,
    LockedCoupons,
    LockedAccounts,
    LockedWebhooks,
    /// The first page of an account's open lots.
    OpenLots,
    DueHolds,
    Holds,
    PendingHolds,
    CheckIns,
    LockedTenants,
    /// The programs of tenants that get more of them.
    Programs,
    LockedTasks,
    Tasks,
    AllProgress,
    TaskProgress,
    TaskReports,
    Originals,
    Refunds,
    LockedCompensations,
    LockedAdjustments,
    RulesVersions,
    /// The rules that hold at the times of a batch.
    Rules,
    NewestRules,
    LockedJobs,
    LockedBulks,
    LockedWindows,
    LockedReminders,
    /// The batch's place in the event log, and beside it the recorded answers. The last look-up.
    PlaceAndRecords,
    // In a further round trip, when they turn out to be needed.
    AllOpenLots,
    Lots,
    Definitions,
    Prerequisites,
}

impl Lookup {
    const ALL: &[Lookup] = &[
        Lookup::LockedOrders,
        Lookup::Tenants,
        Lookup::ApiKeys,
        Lookup::LockedTemplates,
        Lookup::Templates,
        Lookup::TemplateUses,
        Lookup::Claimed,
        Lookup::LockedCodeBatches,
        Lookup::LockedCodes,
        Lookup::LockedCoupons,
        Lookup::LockedAccounts,
        Lookup::LockedWebhooks,
        Lookup::OpenLots,
        Lookup::DueHolds,
        Lookup::Holds,
        Lookup::PendingHolds,
        Lookup::CheckIns,
        Lookup::LockedTenants,
        Lookup::Programs,
        Lookup::LockedTasks,
        Lookup::Tasks,
        Lookup::AllProgress,
        Lookup::TaskProgress,
        Lookup::TaskReports,
        Lookup::Originals,
        Lookup::Refunds,
        Lookup::LockedCompensations,
        Lookup::LockedAdjustments,
        Lookup::RulesVersions,
        Lookup::Rules,
        Lookup::NewestRules,
        Lookup::LockedJobs,
        Lookup::LockedBulks,
        Lookup::LockedWindows,
        Lookup::LockedReminders,
        Lookup::PlaceAndRecords,
        Lookup::AllOpenLots,
        Lookup::Lots,
        Lookup::Definitions,
        Lookup::Prerequisites,
    ];

    /// Keys come as arrays, one for each of their columns: `k`. What is found under them is `r`.
    fn sql(self) -> String {
        let tenants = &unnested("k", &[("tenant_id", "uuid")], 1);
        let ids = &unnested("k", &[("tenant_id", "uuid"), ("id", "uuid")], 1);
        let members = &unnested("k", &[("tenant_id", "uuid"), ("member_id", "text")], 1);
        let tasks = &unnested("k", &[("tenant_id", "uuid"), ("task_key", "text")], 1);
        let reports = &unnested(
            "k",
            &[("tenant_id", "uuid"), ("member_id", "text"), ("task_key", "text"), ("completion_id", "text")],
            1,
        );
        let by_task = "r.tenant_id = k.tenant_id AND r.task_key = k.task_key";
        let by_id = "r.tenant_id = k.tenant_id AND r.id = k.id";
        let by_member = "r.tenant_id = k.tenant_id AND r.member_id = k.member_id";
        let open_lots = format!("{by_member} AND r.open ORDER BY r.expires_at, r.created_at, r.id");
        match self {
            Lookup::LockedOrders => found(
                decode::ORDER,
                "unnest($1::uuid[], $2::text[]) AS k(tenant_id, order_id)",
                "mkt_order",
                "r.tenant_id = k.tenant_id AND r.order_id = k.order_id FOR UPDATE",
            ),
            Lookup::Refunds => found(
                decode::REFUND,
                "unnest($1::uuid[], $2::text[], $3::text[]) AS k(tenant_id, order_id, refund_id)",
                "mkt_order_refund",
                "r.tenant_id = k.tenant_id AND r.order_id = k.order_id AND r.refund_id = k.refund_id",
            ),
            Lookup::LockedCompensations => {
                found(decode::COMPENSATION, ids, "mkt_coupon_refund_compensation", &format!("{by_id} FOR UPDATE"))
            }
            Lookup::LockedAdjustments => {
                found(decode::ADJUSTMENT, ids, "mkt_points_adjustment", &format!("{by_id} FOR UPDATE"))
            }
            Lookup::RulesVersions => found(
                decode::RULES,
                "unnest($1::uuid[], $2::bigint[]) AS k(tenant_id, version)",
                "mkt_points_rule",
                "r.tenant_id = k.tenant_id AND r.version = k.version",
            ),
            Lookup::Tenants => found(decode::TENANT, tenants, "tenant", "r.tenant_id = k.tenant_id"),
            Lookup::ApiKeys => found(&format!("{}, secret_digest", decode::API_KEY), ids, "api_key", by_id),
            Lookup::LockedTemplates => {
                found(decode::TEMPLATE, ids, "mkt_coupon_template", &format!("{by_id} FOR UPDATE"))
            }
            Lookup::Templates => found(decode::TEMPLATE, ids, "mkt_coupon_template", by_id),
            Lookup::TemplateUses => format!(
                "SELECT k.tenant_id, k.id, (SELECT coalesce(sum(r.used_count), 0)::bigint \
                 FROM mkt_coupon_template_use r WHERE r.tenant_id = k.tenant_id AND r.template_id = k.id) FROM {ids}"
            ),
            Lookup::Claimed => found(
                "tenant_id, template_id, member_id, sequence",
                &unnested("k", &[("tenant_id", "uuid"), ("template_id", "uuid"), ("member_id", "text")], 1),
                "mkt_user_coupon",
                &format!("{by_member} AND r.template_id = k.template_id ORDER BY r.sequence DESC LIMIT 1"),
            ),
            Lookup::LockedCodeBatches => {
                found(decode::CODE_BATCH, ids, "mkt_coupon_code_batch", &format!("{by_id} FOR UPDATE"))
            }
            Lookup::LockedCodes => found(
                decode::CODE,
                &unnested("k", &[("tenant_id", "uuid"), ("digest", "bytea")], 1),
                "mkt_coupon_code",
                "r.tenant_id = k.tenant_id AND r.digest = k.digest FOR UPDATE",
            ),
            Lookup::LockedCoupons => placed(decode::COUPON, ids, "mkt_user_coupon", &format!("{by_id} FOR UPDATE")),
            Lookup::LockedAccounts => {
                placed(decode::ACCOUNT, members, "mkt_points_account", &format!("{by_member} FOR UPDATE"))
            }
            Lookup::OpenLots => {
                placed(decode::LOT, members, "mkt_points_lot", &format!("{open_lots} LIMIT {LOT_PAGE}"))
            }
            Lookup::AllOpenLots => placed(decode::LOT, members, "mkt_points_lot", &open_lots),
            Lookup::Lots => placed(decode::LOT, ids, "mkt_points_lot", by_id),
            Lookup::LockedWebhooks => found(decode::WEBHOOK, ids, "webhook", &format!("{by_id} FOR UPDATE")),
            Lookup::DueHolds => found(
                decode::HOLD,
                &unnested("k", &[("tenant_id", "uuid"), ("member_id", "text"), ("latest", "bigint")], 1),
                "mkt_points_hold",
                &format!("{by_member} AND r.status = 'OPEN' AND r.expires_at <= k.latest"),
            ),
            Lookup::Holds => found(decode::HOLD, ids, "mkt_points_hold", by_id),
            Lookup::PendingHolds => {
                let condition = format!("{by_member} AND r.status = 'OPEN' AND r.pending");
                found(decode::HOLD, members, "mkt_points_hold", &condition)
            }
            Lookup::CheckIns => {
                let keys = &[("tenant_id", "uuid"), ("member_id", "text"), ("wanted", "bigint")];
                let condition = format!("{by_member} ORDER BY r.day DESC LIMIT k.wanted");
                found(decode::CHECK_IN, &unnested("k", keys, 1), "mkt_points_check_in", &condition)
            }
            // Not against what only refers to the tenant.
            Lookup::LockedTenants => {
                found("tenant_id", tenants, "tenant", "r.tenant_id = k.tenant_id FOR NO KEY UPDATE")
            }
            Lookup::Programs => found("parent_id, program", tenants, "tenant", "r.parent_id = k.tenant_id"),
            Lookup::LockedTasks => found(decode::TASK, tasks, "mkt_points_task", &format!("{by_task} FOR UPDATE")),
            Lookup::Tasks => found(decode::TASK, tasks, "mkt_points_task", by_task),
            Lookup::AllProgress => found(decode::PROGRESS, members, "mkt_user_task_progress", by_member),
            Lookup::TaskProgress => {
                let condition = format!("{by_member} AND r.task_key = k.task_key");
                found(decode::PROGRESS, reports, "mkt_user_task_progress", &condition)
            }
            Lookup::TaskReports => {
                let condition =
                    format!("{by_member} AND r.task_key = k.task_key AND r.completion_id = k.completion_id");
                found(decode::REPORT, reports, "mkt_user_task_completion", &condition)
            }
            Lookup::Prerequisites => {
                let keys = unnested("k", &[("tenant_id", "uuid"), ("member_id", "text"), ("task_key", "text")], 1);
                format!(
                    "SELECT k.tenant_id, k.member_id, k.task_key, coalesce((SELECT r.total_completions \
                     FROM mkt_user_task_progress r WHERE {by_member} AND r.task_key = k.task_key), 0), \
                     coalesce((SELECT r.deleted_at IS NULL FROM mkt_points_task r WHERE {by_task}), false) FROM {keys}"
                )
            }
            Lookup::Originals => format!(
                "SELECT {}, (SELECT v.reversed FROM mkt_points_reversal v WHERE v.tenant_id = r.tenant_id \
                 AND v.transaction_id = r.id) FROM {ids} CROSS JOIN LATERAL \
                 (SELECT * FROM mkt_points_transaction r WHERE {by_id}) r",
                decode::of("r", decode::TRANSACTION)
            ),
            Lookup::Rules => found(
                decode::RULES,
                &unnested("k", &[("tenant_id", "uuid"), ("earliest", "bigint"), ("latest", "bigint")], 1),
                "mkt_points_rule",
                "r.tenant_id = k.tenant_id AND r.effective_from <= k.latest AND r.effective_from >= coalesce(\
                 (SELECT p.effective_from FROM mkt_points_rule p WHERE p.tenant_id = k.tenant_id \
                 AND p.effective_from <= k.earliest ORDER BY p.effective_from DESC, p.version DESC LIMIT 1), k.earliest)",
            ),
            Lookup::NewestRules => found(
                "tenant_id, version",
                tenants,
                "mkt_points_rule",
                "r.tenant_id = k.tenant_id ORDER BY r.version DESC LIMIT 1",
            ),
            Lookup::LockedWindows => {
                found("tenant_id, announced_until", tenants, "template_window", "r.tenant_id = k.tenant_id FOR UPDATE")
            }
            Lookup::LockedReminders => found(
                "tenant_id, days_before, expires_at, lot_id",
                "unnest($1::uuid[], $2::bigint[]) AS k(tenant_id, days_before)",
                "points_reminder",
                "r.tenant_id = k.tenant_id AND r.days_before = k.days_before FOR UPDATE",
            ),
            Lookup::LockedBulks => found(decode::BULK, ids, "bulk", &format!("{by_id} FOR UPDATE")),
            Lookup::LockedJobs => found(decode::JOB, ids, "job", &format!("{by_id} FOR UPDATE")),
            Lookup::Definitions => found(
                "tenant_id, template_id, version, definition",
                &unnested("k", &[("tenant_id", "uuid"), ("template_id", "uuid"), ("version", "bigint")], 1),
                "mkt_coupon_template_version",
                "r.tenant_id = k.tenant_id AND r.template_id = k.template_id AND r.version = k.version",
            ),
            Lookup::PlaceAndRecords => {
                let records = found(
                    "tenant_id, key, fingerprint, outcome",
                    &unnested("k", &[("tenant_id", "uuid"), ("key", "bytea")], 1),
                    "idempotency",
                    "r.tenant_id = k.tenant_id AND r.key = k.key",
                );
                format!(
                    "WITH p AS MATERIALIZED (SELECT pg_current_xact_id()::text::bigint AS xid, \
                     greatest(pg_current_xact_id()::text::bigint, \
                     pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1) AS tx, nextval('event_batch') AS batch) \
                     SELECT p.xid, p.tx, p.batch, r.* FROM p LEFT JOIN ({records}) r ON true"
                )
            }
        }
    }
}

/// Looks each key up by itself: LATERAL keeps it on the index whatever the planner believes about a fresh table.
fn found(columns: &str, keys: &str, table: &str, condition: &str) -> String {
    let columns = decode::of("r", columns);
    format!("SELECT {columns} FROM {keys} CROSS JOIN LATERAL (SELECT * FROM {table} r WHERE {condition}) r")
}

/// The same for rows that the batch may change: the last column is where the row stands.
fn placed(columns: &str, keys: &str, table: &str, condition: &str) -> String {
    let columns = decode::of("r", columns);
    format!(
        "SELECT {columns}, r.place FROM {keys} CROSS JOIN LATERAL \
         (SELECT *, r.ctid AS place FROM {table} r WHERE {condition}) r"
    )
}

/// Rows that come as arrays, one for each column, from parameter `first` on. Unnested side by side in a list of results,
/// they are handed on one by one; in FROM, each array would be copied into a store of its own first.
fn unnested(name: &str, columns: &[(&str, &str)], first: usize) -> String {
    let arrays = columns.iter().zip(first..);
    let unnested = arrays.map(|((column, ty), number)| format!("unnest(${number}::{ty}[]) AS {column}"));
    format!("(SELECT {}) AS {name}", unnested.collect::<Vec<_>>().join(", "))
}

/// Tables whose rows are only updated after a look-up of the same batch has locked them, or the account they belong to: they
/// are updated at their place.
const PLACED: [&str; 3] = ["mkt_user_coupon", "mkt_points_account", "mkt_points_lot"];

fn is_placed(table: &Table, verb: Verb) -> bool {
    verb == Verb::Update && PLACED.contains(&table.name)
}

/// The columns of a change's arrays with their types; the place comes last.
fn written(table: &Table, verb: Verb) -> Vec<(&'static str, &'static str)> {
    let mut columns: Vec<_> = table.written(verb).into_iter().map(|(name, ty)| (name, type_name(ty))).collect();
    if is_placed(table, verb) {
        columns.push(("place", "tid"));
    }
    columns
}

/// Writes rows that come as arrays, one for each column, from parameter `first` on.
fn change_sql(table: &Table, verb: Verb, first: usize) -> String {
    let Table { name, key, .. } = table;
    let rows = unnested("u", &written(table, verb), first);
    let names: Vec<&str> = table.written(verb).iter().map(|(column, _)| *column).collect();
    let columns = names.join(", ");
    let joined = |names: &[&str], before: &str, separator: &str| {
        names.iter().map(|column| format!("{before}{column} = u.{column}")).collect::<Vec<_>>().join(separator)
    };
    let identified = joined(&names[..*key], "r.", " AND ");
    match verb {
        Verb::Insert => format!("INSERT INTO {name} ({columns}) SELECT * FROM {rows}{}", table.on_conflict_sql()),
        Verb::Update => {
            let set = joined(&names[*key..], "", ", ");
            // The key is compared as well: a row that is not where it should be is missed, and noticed, not spoilt.
            let at_place = if is_placed(table, verb) { "r.ctid = u.place AND " } else { "" };
            format!("UPDATE {name} r SET {set} FROM {rows} WHERE {at_place}{identified}")
        }
        Verb::Delete => format!("DELETE FROM {name} r USING {rows} WHERE {identified}"),
    }
}

/// What is nearly always written together, as one statement with a part for each change; parts without rows do nothing.
/// Inserts that may meet a row that is there already stay alone: only a statement's own rows are locked in a known order.
static GROUPS: [&[Part]; 3] = [
    &[(&TEMPLATE, Verb::Update), (&COUPON, Verb::Insert)],
    &[(&ACCOUNT, Verb::Update), (&LOT, Verb::Update), (&LOT, Verb::Insert), (&TRANSACTION, Verb::Insert)],
    &[(&EVENT, Verb::Insert), (&IDEMPOTENCY, Verb::Insert)],
];

type Part = (&'static Table, Verb);

/// One statement for all parts; it answers with one row: how many rows each of its updates has written.
fn group_sql(parts: &[Part]) -> String {
    let mut first = 1;
    let mut steps = Vec::with_capacity(parts.len());
    let mut counts = Vec::new();
    for (number, (table, verb)) in parts.iter().enumerate() {
        let returning = if *verb == Verb::Update { " RETURNING 1" } else { "" };
        steps.push(format!("w{number} AS ({}{returning})", change_sql(table, *verb, first)));
        first += written(table, *verb).len();
        if *verb == Verb::Update {
            counts.push(format!("(SELECT count(*) FROM w{number})"));
        }
    }
    let counts = if counts.is_empty() { "1".to_owned() } else { counts.join(", ") };
    format!("WITH {} SELECT {counts}", steps.join(", "))
}

fn type_name(ty: Type) -> &'static str {
    match ty {
        Type::Uuid => "uuid",
        Type::Text => "text",
        Type::Int => "bigint",
        Type::Bool => "boolean",
        Type::Bytes => "bytea",
    }
}

/// Every statement by which a lane may write, with the changes it takes: the groups, then each change by itself.
fn change_statements() -> Vec<(Vec<Part>, String)> {
    let mut statements: Vec<_> = GROUPS.iter().map(|parts| (parts.to_vec(), group_sql(parts))).collect();
    let grouped: Vec<(&str, Verb)> = GROUPS.concat().iter().map(|(table, verb)| (table.name, *verb)).collect();
    for table in TABLES {
        for verb in [Verb::Insert, Verb::Update, Verb::Delete] {
            let changes_nothing = verb == Verb::Update && table.fixed == table.columns.len();
            if !changes_nothing && !grouped.contains(&(table.name, verb)) {
                statements.push((vec![(table, verb)], change_sql(table, verb, 1)));
            }
        }
    }
    statements
}

/// What a lane asks, and the settings it asks under: for the test of the plans.
pub fn lane_statements() -> (&'static str, Vec<String>) {
    let lookups = Lookup::ALL.iter().map(|lookup| lookup.sql());
    (INDEXES_ONLY, lookups.chain(change_statements().into_iter().map(|(_, sql)| sql)).collect())
}

/// Lanes and reads only ever look rows up by a key, in the order of an index. The planner does not know that of a fresh table: it
/// would rather scan it, or take any index that begins with the tenant and sort, and then keep that plan while the table
/// grows. With these settings only the index that fits is left. What reads whole tables has sessions of its own without them.
pub(super) const INDEXES_ONLY: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; \
                                       SET enable_hashjoin = off; SET enable_mergejoin = off; \
                                       SET plan_cache_mode = force_generic_plan; SET jit = off";

const LANE_SETTINGS: &str = "SET idle_in_transaction_session_timeout = '30s'; SET synchronous_commit = on";

impl Lane {
    async fn open(store: &PostgresStore) -> Result<Lane, StoreError> {
        let client = store.endpoint.connect().await?;
        client.batch_execute(INDEXES_ONLY).await?;
        client.batch_execute(LANE_SETTINGS).await?;
        let lookups = join_all(Lookup::ALL.iter().map(|lookup| {
            let client = &client;
            async move { Ok::<_, StoreError>((*lookup, client.prepare(&lookup.sql()).await?)) }
        }));
        let writes = join_all(change_statements().into_iter().map(|(parts, sql)| {
            let client = &client;
            async move { Ok::<_, StoreError>(WriteStatement { parts, statement: client.prepare(&sql).await? }) }
        }));
        let (lookups, writes) = tokio::join!(lookups, writes);
        let (lookups, writes) =
            (lookups.into_iter().collect::<Result<_, _>>()?, writes.into_iter().collect::<Result<_, _>>()?);
        let notify = client.prepare(notice::NOTIFY).await?;
        Ok(Lane { client: Counted::new(client, &store.traffic), lookups, writes, notify })
    }
}

impl PostgresWriter {
    pub(super) async fn run(&mut self, batch: &[Envelope]) -> Result<Vec<Answer>, BatchFailure> {
        let lane = match &mut self.lane {
            Some(lane) if !lane.client.is_closed() => lane,
            lane => lane.insert(Lane::open(&self.store).await?),
        };
        let result = lane.run(&self.store, batch, self.stripe).await;
        match result {
            Ok(answers) => {
                self.store.has_written(Some(&lane.client.client)).await;
                Ok(answers)
            }
            Err(Interrupted::Refused(error)) => {
                // A dropped connection rolls back; a living one is told to.
                if lane.client.is_closed() || lane.client.batch_execute("ROLLBACK").await.is_err() {
                    self.lane = None;
                }
                Err(error.into())
            }
            Err(Interrupted::AtCommit(lost)) => {
                self.lane = None;
                let LostCommit { place: Place { xid, .. }, error, .. } = &*lost;
                tracing::warn!(%error, xid, "the connection was lost at COMMIT; asking what became of it");
                let changed = lost.changed.clone();
                let resolved = self.resolve(*lost).await;
                // Whatever became of it.
                self.store.has_changed(&changed);
                self.store.has_written(None).await;
                resolved
            }
        }
    }

    /// Finds out what became of a commit whose connection was lost.
    async fn resolve(&self, lost: LostCommit) -> Result<Vec<Answer>, BatchFailure> {
        let give_up_at = Instant::now() + self.store.options.resolve_timeout;
        loop {
            match self.store.fate_of(&lost).await {
                Ok(Fate::Committed) => return Ok(lost.answers),
                Ok(Fate::Aborted) => return Err(StoreError::Conflict("the commit was aborted".into()).into()),
                Ok(Fate::Forgotten) => return Err(BatchFailure::Unknown),
                // Or the database is not back yet.
                Ok(Fate::InProgress) | Err(_) if Instant::now() < give_up_at => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(Fate::InProgress) | Err(_) => return Err(BatchFailure::Unknown),
            }
        }
    }
}

enum Interrupted {
    /// Nothing was committed.
    Refused(StoreError),
    AtCommit(Box<LostCommit>),
}

impl<E: Into<StoreError>> From<E> for Interrupted {
    fn from(error: E) -> Self {
        Interrupted::Refused(error.into())
    }
}

type Rows = Result<Vec<tokio_postgres::Row>, tokio_postgres::Error>;

impl Lane {
    async fn run(&self, store: &PostgresStore, batch: &[Envelope], stripe: i64) -> Result<Vec<Answer>, Interrupted> {
        let mut keys = Keys::of(batch);
        let (mut state, place, mut row_places) = self.load(batch, &mut keys, &store.definitions).await?;
        let mut answers = Vec::with_capacity(batch.len());
        while let Err(need) = decide_all(&mut state, batch, &mut answers) {
            let tenant = batch[answers.len()].tenant;
            match need {
                Need::Lots(member) => {
                    let account = KeyColumns::members(std::iter::once((tenant, &member)));
                    for row in &self.look_up(Lookup::AllOpenLots, &account).await? {
                        let lot = decode::lot(&Row::Postgres(row))?;
                        row_places.insert(&LOT, tenant, lot.id.0, row)?;
                        state.load_lot(tenant, &member, lot);
                    }
                    state.set_lots_complete(tenant, &member, true);
                }
                Need::Periods(at) => {
                    let found = self.look_up(Lookup::Tenants, &KeyColumns::tenants(&[tenant].into())).await?;
                    let found = found.first().map(|row| decode::tenant(&Row::Postgres(row))).transpose()?;
                    state.load_periods(tenant, local_periods(found.as_ref(), at)?);
                }
                Need::DayEnd { at, days } => {
                    let zone = match store.definitions.zone(tenant) {
                        Some(zone) => zone,
                        None => {
                            let found = self.look_up(Lookup::Tenants, &KeyColumns::tenants(&[tenant].into())).await?;
                            let found = found.first().map(|row| decode::tenant(&Row::Postgres(row))).transpose()?;
                            store.definitions.learn_zone(tenant, found.as_ref())?
                        }
                    };
                    state.load_day_end(tenant, days, day_end(&zone, at, days));
                }
                Need::Tasks(asked) => {
                    let keys = asked.iter().map(|key| (tenant, key.clone())).collect();
                    let rows = self.look_up(Lookup::Tasks, &KeyColumns::tasks(&keys)).await?;
                    let found = rows.iter().map(|row| decode::task(&Row::Postgres(row)));
                    let found = found.collect::<Result<Vec<_>, _>>()?;
                    state.load_tasks(tenant, asked, found);
                }
                Need::Prerequisites => {
                    let missing = state.missing_prerequisites(&keys);
                    let rows = self.look_up(Lookup::Prerequisites, &KeyColumns::prerequisites(&missing)).await?;
                    for row in &rows {
                        let row = Row::Postgres(row);
                        let key = (row.tenant(0)?, row.caller_id(1)?, row.caller_id(2)?);
                        let found = Prerequisite { completions: row.int(3)?, exists: row.bool(4)? };
                        state.load_prerequisite(key, found);
                    }
                }
            }
        }
        if state.is_unchanged() {
            self.client.batch_execute("ROLLBACK").await?;
            return Ok(answers);
        }
        let writes = state.writes();
        let changed = Changed::by(&writes);
        let notices = store.notices(&changed);
        let (tx, first_ordinal) = (place.tx, place.first_ordinal());
        let changes = changes(&writes, Placement { tx, first_ordinal, stripe, now: crate::clock::now() });
        let asked = self.asked(&changes, &row_places)?;
        let written = asked.iter().map(|asked| async {
            let parameters: Vec<&(dyn ToSql + Sync)> = asked.columns.iter().map(|column| column as _).collect();
            let begun = Instant::now();
            let written = self.client.write(asked, &parameters).await;
            let rows = asked.expected.iter().sum::<i64>();
            self.client.traffic.watch(begun, usize::try_from(rows).unwrap_or_default(), || {
                let parts = asked.write.parts.iter().map(|(table, verb)| format!("{verb:?} {}", table.name));
                format!("lane {}", parts.collect::<Vec<_>>().join(", "))
            });
            written
        });
        let round_trip = self.client.pipeline.send();
        let told = notices.iter().map(|said| async {
            let parameters: [&(dyn ToSql + Sync); 2] = [&notice::CHANNEL, said];
            self.client.query(&self.notify, &parameters).await.map(drop).map_err(WriteError::Failed)
        });
        // Polled in this order, so COMMIT leaves last; behind an error it rolls back.
        let (written, told, committed) =
            tokio::join!(biased; join_all(written), join_all(told), self.client.batch_execute("COMMIT"));
        drop(round_trip);
        let first_event = writes.event_inserts.first().map(|(tenant, event)| (*tenant, event.id.0));
        let at_commit = |answers, changed, error: tokio_postgres::Error| {
            Interrupted::AtCommit(Box::new(LostCommit { place, first_event, answers, changed, error: error.into() }))
        };
        for result in written.into_iter().chain(told) {
            match result {
                Ok(()) => {}
                // COMMIT went through with the others.
                Err(WriteError::Missed(detail)) => return Err(Interrupted::Refused(StoreError::Corrupt(detail))),
                // Whether COMMIT arrived before the connection broke cannot be told from here.
                Err(WriteError::Failed(error)) if is_lost(&error) => return Err(at_commit(answers, changed, error)),
                Err(WriteError::Failed(error)) => return Err(error.into()),
            }
        }
        match committed {
            Ok(()) => {
                if state.enqueues() {
                    store.jobs_ready.notify();
                }
                store.has_changed(&changed);
                Ok(answers)
            }
            Err(error) if is_lost(&error) => Err(at_commit(answers, changed, error)),
            Err(error) => Err(error.into()),
        }
    }

    /// The statements that write the changes, in the order of the first change of each, with their parameters.
    fn asked<'a>(&'a self, changes: &'a [Change<'a>], places: &RowPlaces) -> Result<Vec<AskedWrite<'a>>, StoreError> {
        let mut asked: Vec<AskedWrite<'a>> = Vec::with_capacity(changes.len());
        for change in changes {
            let writes = |part: &Part| part.0.name == change.table.name && part.1 == change.verb;
            if asked.iter().any(|earlier| earlier.write.parts.iter().any(writes)) {
                continue;
            }
            let write = self.writes.iter().find(|write| write.parts.iter().any(writes)).ok_or_else(|| {
                StoreError::Fault(format!("{:?} of {} was not prepared", change.verb, change.table.name))
            })?;
            let mut next = AskedWrite { write, columns: Vec::new(), expected: Vec::new() };
            for (table, verb) in &write.parts {
                let of_part = changes.iter().find(|change| change.table.name == table.name && change.verb == *verb);
                next.columns.extend(columns(table, *verb, of_part));
                if is_placed(table, *verb) {
                    next.columns.push(Column::Place(places.of(of_part)?));
                }
                if *verb == Verb::Update || write.parts.len() == 1 {
                    next.expected.push(of_part.map_or(0, |change| change.rows.len()) as i64);
                }
            }
            asked.push(next);
        }
        Ok(asked)
    }

    async fn look_up(&self, lookup: Lookup, keys: &KeyColumns<'_>) -> Rows {
        let parameters: Vec<&(dyn ToSql + Sync)> = keys.0.iter().map(|column| column as _).collect();
        let begun = Instant::now();
        let rows = self.client.query(&self.lookups[&lookup], &parameters).await?;
        self.client.traffic.watch(begun, rows.len(), || format!("lane {lookup:?}"));
        Ok(rows)
    }

    /// The first round trip: locks and look-ups; before it, the orders, which add to the keys what only they can tell.
    async fn load(
        &self,
        batch: &[Envelope],
        keys: &mut Keys,
        known: &Definitions,
    ) -> Result<(State, Place, RowPlaces), StoreError> {
        let mut state = State::empty(keys);
        let mut begun = false;
        if !keys.orders.is_empty() {
            self.load_orders(keys, &mut state).await?;
            keys.follow_orders(batch, &state);
            begun = true;
        }
        let keys = &*keys;
        let rules_versions =
            keys.rules_versions.iter().filter(|(tenant, version)| match known.rules(*tenant, *version) {
                Some(rules) => {
                    state.load_rules_version(*tenant, rules);
                    false
                }
                None => true,
            });
        let rules_versions: Vec<(TenantId, i64)> = rules_versions.copied().collect();
        let reminders: Vec<(TenantId, i64)> = keys.reminders.iter().copied().collect();
        let latest = keys.latest.map_or(0, |time| time.0);
        let asked = [
            (Lookup::Tenants, KeyColumns::tenants(&keys.tenants)),
            (Lookup::ApiKeys, KeyColumns::ids(keys.api_keys.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::LockedTemplates, KeyColumns::ids(keys.templates.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::Templates, KeyColumns::ids(keys.template_reads.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::TemplateUses, KeyColumns::ids(keys.template_uses.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::Claimed, KeyColumns::claimants(&keys.claimants)),
            (Lookup::LockedCodeBatches, KeyColumns::ids(keys.code_batches.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::LockedCodes, KeyColumns::records(&keys.codes)),
            (Lookup::LockedCoupons, KeyColumns::ids(keys.coupons.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::LockedAccounts, KeyColumns::accounts(&keys.accounts)),
            (Lookup::LockedWebhooks, KeyColumns::ids(keys.webhooks.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::OpenLots, KeyColumns::accounts(&keys.accounts)),
            (Lookup::DueHolds, KeyColumns::accounts(&keys.accounts).and_all(latest)),
            (Lookup::Holds, KeyColumns::ids(keys.holds.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::PendingHolds, KeyColumns::accounts(&keys.pending_holds)),
            (Lookup::CheckIns, KeyColumns::check_ins(&keys.check_ins)),
            (Lookup::LockedTenants, KeyColumns::tenants(&keys.locked_tenants)),
            (Lookup::Programs, KeyColumns::tenants(&keys.programs)),
            (Lookup::LockedTasks, KeyColumns::tasks(&keys.tasks)),
            (Lookup::Tasks, KeyColumns::tasks(&keys.task_reads)),
            (Lookup::AllProgress, KeyColumns::accounts(&keys.all_progress)),
            (Lookup::TaskProgress, KeyColumns::reports(&keys.task_reports)),
            (Lookup::TaskReports, KeyColumns::reports(&keys.task_reports)),
            (Lookup::Originals, KeyColumns::ids(keys.originals.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::Refunds, KeyColumns::refunds(&keys.refunds)),
            (
                Lookup::LockedCompensations,
                KeyColumns::ids(keys.compensations.iter().map(|(tenant, id)| (*tenant, id.0))),
            ),
            (Lookup::LockedAdjustments, KeyColumns::ids(keys.adjustments.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::RulesVersions, KeyColumns::numbers(&rules_versions)),
            (Lookup::Rules, KeyColumns::rules(&keys.rules)),
            (Lookup::NewestRules, KeyColumns::tenants(&keys.newest_rules)),
            (Lookup::LockedWindows, KeyColumns::tenants(&keys.windows)),
            (Lookup::LockedReminders, KeyColumns::numbers(&reminders)),
            (Lookup::LockedBulks, KeyColumns::ids(keys.bulks.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::LockedJobs, KeyColumns::ids(keys.jobs.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::PlaceAndRecords, KeyColumns::records(&keys.idempotency)),
        ];
        let is_asked =
            |(lookup, keys): &&(Lookup, KeyColumns<'_>)| *lookup == Lookup::PlaceAndRecords || !keys.is_empty();
        let asked: Vec<&(Lookup, KeyColumns<'_>)> = asked.iter().filter(is_asked).collect();
        let round_trip = self.client.pipeline.send();
        let begin = async { if begun { Ok(()) } else { self.client.batch_execute("BEGIN").await } };
        let answers = join_all(asked.iter().map(|(lookup, keys)| self.look_up(*lookup, keys)));
        // Polled in this order, so BEGIN leaves first and the place, which must see every lock gained, last.
        let (begun, answers) = tokio::join!(biased; begin, answers);
        drop(round_trip);
        begun?;
        let mut place = Place::default();
        let mut places = RowPlaces::default();
        let mut templates = Vec::new();
        let mut uses = std::collections::HashMap::new();
        let mut lots = Vec::new();
        for ((lookup, _), rows) in asked.into_iter().zip(answers) {
            let rows = rows?;
            if matches!(lookup, Lookup::LockedTemplates | Lookup::Templates) {
                // Decoded below, when their definitions are at hand.
                templates.extend(rows);
                continue;
            }
            for found in &rows {
                let row = Row::Postgres(found);
                match lookup {
                    Lookup::Tenants => state.load_tenant(decode::tenant(&row)?),
                    Lookup::ApiKeys => {
                        state.load_api_key(decode::api_key(&row)?, row.bytes(decode::API_KEY_COLUMNS)?);
                    }
                    Lookup::TemplateUses => {
                        uses.insert((row.tenant(0)?, row.uuid(1)?), row.int(2)?);
                    }
                    Lookup::Claimed => {
                        state.load_claimed(row.tenant(0)?, TemplateId(row.uuid(1)?), row.caller_id(2)?, row.int(3)?);
                    }
                    Lookup::LockedCodeBatches => state.load_code_batch(row.tenant(0)?, decode::code_batch(&row)?),
                    Lookup::LockedCodes => state.load_code(row.tenant(0)?, decode::code(&row)?),
                    Lookup::LockedCoupons => {
                        let (tenant, coupon) = (row.tenant(0)?, decode::coupon(&row)?);
                        places.insert(&COUPON, tenant, coupon.id.0, found)?;
                        state.load_coupon(tenant, coupon);
                    }
                    Lookup::LockedAccounts => {
                        let (tenant, account) = (row.tenant(0)?, decode::account(&row)?);
                        places.insert_account(tenant, &account.member_id, found)?;
                        state.load_account(tenant, account);
                    }
                    Lookup::OpenLots => {
                        let (tenant, lot) = (row.tenant(0)?, decode::lot(&row)?);
                        places.insert(&LOT, tenant, lot.id.0, found)?;
                        lots.push((tenant, row.caller_id::<MemberId>(1)?, lot));
                    }
                    Lookup::LockedWebhooks => state.load_webhook(row.tenant(0)?, decode::webhook(&row)?),
                    Lookup::CheckIns => state.load_check_in(row.tenant(0)?, decode::check_in(&row)?),
                    Lookup::LockedTasks | Lookup::Tasks => state.load_task(row.tenant(0)?, decode::task(&row)?),
                    Lookup::AllProgress | Lookup::TaskProgress => {
                        state.load_progress(row.tenant(0)?, decode::progress(&row)?)
                    }
                    Lookup::TaskReports => state.load_report(row.tenant(0)?, decode::report(&row)?),
                    Lookup::DueHolds | Lookup::Holds | Lookup::PendingHolds => {
                        state.load_hold(row.tenant(0)?, decode::hold(&row)?);
                    }
                    Lookup::Originals => {
                        let reversed = row.opt_int(decode::TRANSACTION_COLUMNS)?.unwrap_or(0);
                        state.load_original(row.tenant(0)?, decode::transaction(&row)?, reversed);
                    }
                    Lookup::Refunds => state.load_refund(row.tenant(0)?, decode::refund(&row)?),
                    Lookup::LockedCompensations => {
                        state.load_compensation(row.tenant(0)?, decode::compensation(&row)?);
                    }
                    Lookup::LockedAdjustments => {
                        state.load_adjustment(row.tenant(0)?, decode::adjustment(&row)?);
                    }
                    Lookup::RulesVersions => {
                        state.load_rules_version(row.tenant(0)?, decode::rules(&row, known)?.1);
                    }
                    Lookup::Rules => {
                        let (effective_from, rules) = decode::rules(&row, known)?;
                        state.load_rules(row.tenant(0)?, effective_from, rules);
                    }
                    Lookup::NewestRules => state.set_newest_rules(row.tenant(0)?, row.int(1)?),
                    Lookup::LockedWindows => state.load_windows(row.tenant(0)?, row.time(1)?),
                    Lookup::LockedReminders => {
                        state.load_reminder(row.tenant(0)?, row.int(1)?, (row.time(2)?, LotId(row.uuid(3)?)));
                    }
                    Lookup::LockedBulks => state.load_bulk(row.tenant(0)?, decode::bulk(&row)?),
                    Lookup::LockedJobs => state.load_job(row.tenant(0)?, decode::job(&row)?),
                    Lookup::PlaceAndRecords => {
                        place = Place { xid: row.int(0)?, tx: row.int(1)?, batch: row.int(2)? };
                        if let Some(tenant) = row.opt_uuid(3)? {
                            let record = IdempotencyRecord { fingerprint: row.bytes(5)?, outcome: row.text(6)? };
                            state.load_idempotency(TenantId(tenant), row.bytes(4)?, record);
                        }
                    }
                    Lookup::Programs => state.load_program(row.tenant(0)?, row.caller_id(1)?),
                    // The lock is all.
                    Lookup::LockedTenants => {}
                    Lookup::LockedOrders
                    | Lookup::LockedTemplates
                    | Lookup::Templates
                    | Lookup::AllOpenLots
                    | Lookup::Lots
                    | Lookup::Definitions
                    | Lookup::Prerequisites => {}
                }
            }
        }
        for (tenant, member, lot) in lots {
            state.load_lot(tenant, &member, lot);
        }
        for (tenant, member) in &keys.accounts {
            let complete = (state.lot_count(*tenant, member) as i64) < LOT_PAGE;
            state.set_lots_complete(*tenant, member, complete);
        }
        self.load_named_lots(&mut state, &mut places).await?;
        let returned: Vec<(TenantId, TemplateId)> = state.missing_templates(keys);
        if !returned.is_empty() {
            let ids = KeyColumns::ids(returned.iter().map(|(tenant, id)| (*tenant, id.0)));
            templates.extend(self.look_up(Lookup::Templates, &ids).await?);
        }
        let priced = state.missing_definitions(keys);
        self.load_definitions(known, &templates, &priced).await?;
        for (tenant, id, version) in priced {
            if let Some(definition) = known.get(tenant, id, version) {
                state.load_definition(tenant, id, version, definition);
            }
        }
        for row in &templates {
            let row = Row::Postgres(row);
            let (tenant, id, version) = version_of(&row)?;
            let definition = known
                .get(tenant, id, version)
                .ok_or_else(|| StoreError::corrupt("a template lacks the definition of its version"))?;
            let used_count = uses.get(&(tenant, id.0)).copied().unwrap_or(0);
            state.load_template(tenant, decode::template(&row, definition, used_count)?);
        }
        Ok((state, place, places))
    }

    /// Begins the transaction and locks the orders.
    async fn load_orders(&self, keys: &Keys, state: &mut State) -> Result<(), StoreError> {
        let orders = KeyColumns::orders(&keys.orders);
        let round_trip = self.client.pipeline.send();
        let begun = self.client.batch_execute("BEGIN");
        let (begun, rows) = tokio::join!(biased; begun, self.look_up(Lookup::LockedOrders, &orders));
        drop(round_trip);
        begun?;
        for row in &rows? {
            let row = Row::Postgres(row);
            state.load_order(row.tenant(0)?, decode::order(&row)?);
        }
        Ok(())
    }

    async fn load_named_lots(&self, state: &mut State, places: &mut RowPlaces) -> Result<(), StoreError> {
        let missing: Vec<(TenantId, MemberId, LotId)> = state.missing_lots();
        if missing.is_empty() {
            return Ok(());
        }
        let ids = KeyColumns::ids(missing.iter().map(|(tenant, _, id)| (*tenant, id.0)));
        for found in &self.look_up(Lookup::Lots, &ids).await? {
            let row = Row::Postgres(found);
            let (tenant, lot) = (row.tenant(0)?, decode::lot(&row)?);
            places.insert(&LOT, tenant, lot.id.0, found)?;
            state.load_lot(tenant, &row.caller_id::<MemberId>(1)?, lot);
        }
        Ok(())
    }

    /// Learns the definitions that are not in memory yet: once for each version and node.
    async fn load_definitions(
        &self,
        known: &Definitions,
        templates: &[tokio_postgres::Row],
        priced: &[(TenantId, TemplateId, i64)],
    ) -> Result<(), StoreError> {
        let is_unknown =
            |(tenant, id, version): &&(TenantId, TemplateId, i64)| known.get(*tenant, *id, *version).is_none();
        let mut unknown: Vec<_> = priced.iter().filter(is_unknown).copied().collect();
        for row in templates {
            let (tenant, id, version) = version_of(&Row::Postgres(row))?;
            if known.get(tenant, id, version).is_none() {
                unknown.push((tenant, id, version));
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.sort_unstable();
        unknown.dedup();
        let mut versions = KeyColumns::ids(unknown.iter().map(|(tenant, id, _)| (*tenant, id.0)));
        versions.0.push(Column::Int(unknown.iter().map(|(_, _, version)| Some(*version)).collect()));
        for row in &self.look_up(Lookup::Definitions, &versions).await? {
            let row = Row::Postgres(row);
            let definition: Arc<Definition> = Arc::new(row.json(3)?);
            known.insert(row.tenant(0)?, TemplateId(row.uuid(1)?), row.int(2)?, definition);
        }
        Ok(())
    }
}

/// A template row's tenant, id and version.
fn version_of(row: &Row) -> Result<(TenantId, TemplateId, i64), StoreError> {
    Ok((row.tenant(0)?, TemplateId(row.uuid(1)?), row.int(2)?))
}

/// True when the server may or may not have received what was sent: the connection broke, or the backend was told to go.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none_or(|fault| fault.code().code().starts_with("57P"))
}

/// A statement's array parameter: one column of its keys or rows.
#[derive(Debug)]
pub(super) enum Column<'a> {
    Uuid(Vec<Option<Uuid>>),
    Text(Vec<Option<&'a str>>),
    Int(Vec<Option<i64>>),
    Bool(Vec<Option<bool>>),
    Bytes(Vec<Option<&'a [u8]>>),
    Place(Vec<RowPlace>),
}

impl ToSql for Column<'_> {
    fn to_sql(&self, ty: &PgType, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Column::Uuid(values) => values.to_sql(ty, out),
            Column::Text(values) => values.to_sql(ty, out),
            Column::Int(values) => values.to_sql(ty, out),
            Column::Bool(values) => values.to_sql(ty, out),
            Column::Bytes(values) => values.to_sql(ty, out),
            Column::Place(values) => values.to_sql(ty, out),
        }
    }

    // Whether a column fits is known only from its values; the variants above check it when they write.
    fn accepts(_: &PgType) -> bool {
        true
    }

    to_sql_checked!();
}

/// The rows of a change, column by column; empty columns without one.
fn columns<'a>(table: &Table, verb: Verb, change: Option<&'a Change<'a>>) -> Vec<Column<'a>> {
    let written = table.written(verb);
    let column = |(index, (_, ty)): (usize, &(_, Type))| {
        let values = change.into_iter().flat_map(|change| &change.rows).map(|row| &row[index]);
        match ty {
            Type::Uuid => Column::Uuid(values.map(Param::as_uuid).collect()),
            Type::Text => Column::Text(values.map(Param::as_text).collect()),
            Type::Int => Column::Int(values.map(Param::as_int).collect()),
            Type::Bool => Column::Bool(values.map(Param::as_bool).collect()),
            Type::Bytes => Column::Bytes(values.map(Param::as_bytes).collect()),
        }
    };
    written.iter().enumerate().map(column).collect()
}

/// The keys of a look-up, column by column.
struct KeyColumns<'a>(Vec<Column<'a>>);

impl<'a> KeyColumns<'a> {
    fn tenants(keys: &BTreeSet<TenantId>) -> Self {
        KeyColumns(vec![Column::Uuid(keys.iter().map(|tenant| Some(tenant.0)).collect())])
    }

    fn ids(keys: impl Iterator<Item = (TenantId, Uuid)>) -> Self {
        let (tenants, ids) = keys.map(|(tenant, id)| (Some(tenant.0), Some(id))).unzip();
        KeyColumns(vec![Column::Uuid(tenants), Column::Uuid(ids)])
    }

    fn members(keys: impl Iterator<Item = (TenantId, &'a MemberId)>) -> Self {
        let (tenants, members) = keys.map(|(tenant, member)| (Some(tenant.0), Some(member.as_str()))).unzip();
        KeyColumns(vec![Column::Uuid(tenants), Column::Text(members)])
    }

    fn accounts(keys: &'a BTreeSet<(TenantId, MemberId)>) -> Self {
        KeyColumns::members(keys.iter().map(|(tenant, member)| (*tenant, member)))
    }

    fn check_ins(keys: &'a BTreeMap<(TenantId, MemberId), i64>) -> Self {
        let mut columns = KeyColumns::members(keys.keys().map(|(tenant, member)| (*tenant, member)));
        columns.0.push(Column::Int(keys.values().map(|wanted| Some(*wanted)).collect()));
        columns
    }

    fn claimants(keys: &'a BTreeSet<(TenantId, TemplateId, MemberId)>) -> Self {
        let mut columns = KeyColumns::ids(keys.iter().map(|(tenant, template, _)| (*tenant, template.0)));
        columns.0.push(Column::Text(keys.iter().map(|(_, _, member)| Some(member.as_str())).collect()));
        columns
    }

    fn orders(keys: &'a BTreeSet<(TenantId, OrderId)>) -> Self {
        let (tenants, ids) = keys.iter().map(|(tenant, id)| (Some(tenant.0), Some(id.as_str()))).unzip();
        KeyColumns(vec![Column::Uuid(tenants), Column::Text(ids)])
    }

    fn refunds(keys: &'a BTreeSet<(TenantId, OrderId, RefundId)>) -> Self {
        let (tenants, orders) = keys.iter().map(|(tenant, order, _)| (Some(tenant.0), Some(order.as_str()))).unzip();
        let refunds = keys.iter().map(|(_, _, refund)| Some(refund.as_str())).collect();
        KeyColumns(vec![Column::Uuid(tenants), Column::Text(orders), Column::Text(refunds)])
    }

    fn numbers(keys: &[(TenantId, i64)]) -> Self {
        let (tenants, numbers) = keys.iter().map(|(tenant, number)| (Some(tenant.0), Some(*number))).unzip();
        KeyColumns(vec![Column::Uuid(tenants), Column::Int(numbers)])
    }

    fn rules(keys: &BTreeMap<TenantId, (Timestamp, Timestamp)>) -> Self {
        let mut columns = KeyColumns(vec![Column::Uuid(keys.keys().map(|tenant| Some(tenant.0)).collect())]);
        columns.0.push(Column::Int(keys.values().map(|(earliest, _)| Some(earliest.0)).collect()));
        columns.0.push(Column::Int(keys.values().map(|(_, latest)| Some(latest.0)).collect()));
        columns
    }

    fn tasks(keys: &'a BTreeSet<(TenantId, TaskKey)>) -> Self {
        let (tenants, keys) = keys.iter().map(|(tenant, key)| (Some(tenant.0), Some(key.as_str()))).unzip();
        KeyColumns(vec![Column::Uuid(tenants), Column::Text(keys)])
    }

    fn prerequisites(keys: &'a BTreeSet<(TenantId, MemberId, TaskKey)>) -> Self {
        let mut columns = KeyColumns::members(keys.iter().map(|(tenant, member, _)| (*tenant, member)));
        columns.0.push(Column::Text(keys.iter().map(|(_, _, task)| Some(task.as_str())).collect()));
        columns
    }

    fn reports(keys: &'a BTreeSet<(TenantId, MemberId, TaskKey, CompletionId)>) -> Self {
        let mut columns = KeyColumns::members(keys.iter().map(|(tenant, member, ..)| (*tenant, member)));
        columns.0.push(Column::Text(keys.iter().map(|(_, _, task, _)| Some(task.as_str())).collect()));
        columns.0.push(Column::Text(keys.iter().map(|(_, _, _, id)| Some(id.as_str())).collect()));
        columns
    }

    fn records(keys: &'a BTreeSet<(TenantId, [u8; 16])>) -> Self {
        let (tenants, digests) = keys.iter().map(|(tenant, key)| (Some(tenant.0), Some(key.as_slice()))).unzip();
        KeyColumns(vec![Column::Uuid(tenants), Column::Bytes(digests)])
    }

    /// The same number beside every key.
    fn and_all(mut self, number: i64) -> Self {
        let count = self.0.first().map_or(0, Column::len);
        self.0.push(Column::Int(vec![Some(number); count]));
        self
    }

    /// A look-up without keys has nothing to find, unless it needs none.
    fn is_empty(&self) -> bool {
        self.0.first().is_some_and(|column| column.len() == 0)
    }
}

impl Column<'_> {
    fn len(&self) -> usize {
        match self {
            Column::Uuid(values) => values.len(),
            Column::Text(values) => values.len(),
            Column::Int(values) => values.len(),
            Column::Bool(values) => values.len(),
            Column::Bytes(values) => values.len(),
            Column::Place(values) => values.len(),
        }
    }
}
