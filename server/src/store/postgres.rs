//! PostgreSQL: several lanes, each on a connection of its own, and a pool for reads.
//!
//! A batch takes two round trips. The first pipelines BEGIN, the locks (templates, coupons, accounts; each set in key order,
//! so that no two batches can deadlock) and every look-up that needs no answer of another; READ COMMITTED gives each
//! statement behind a lock a snapshot that includes what the lock waited for. The second pipelines all writes and COMMIT.
//! A third, between them, comes only when a lot named by a hold or a reversal, or a definition, is not at hand yet.
//!
//! Statements take arrays, so one prepared plan serves every batch size; `UNNEST ... LATERAL` keeps the look-ups on the
//! primary keys whatever the planner believes about a fresh table.
//!
//! When the connection is lost at COMMIT, the database itself is asked what became of the transaction
//! (`pg_xact_status`), and whether the transaction of that number is really ours (its first event is there), so an outcome
//! is never guessed: a crash may forget that a transaction began and give its number to another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::StreamExt;
use futures_util::future::join_all;
use scrip_domain::coupon::Definition;
use scrip_domain::key::Keys;
use scrip_domain::state::{IdempotencyRecord, LOT_PAGE};
use scrip_domain::{Answer, Envelope, LotId, MemberId, State, TemplateId, TenantId, Timestamp};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type as PgType, to_sql_checked};
use tokio_postgres::{Client, Config, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::migrate::{self, Migration};
use super::table::{Change, Placement, TABLES, Table, Type, Verb, changes};
use super::traffic::{Pipeline, Traffic};
use super::value::{Param, Row};
use super::{BatchFailure, Definitions, StoreError, StoreOptions, decide_all, decode};

/// Guards migrations across nodes; any number will do, as long as it stays the same.
const MIGRATION_LOCK: i64 = 0x5343_5249_5000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub struct PostgresStore {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    pool: Pool,
    options: StoreOptions,
    pub(super) definitions: Definitions,
    pub(super) traffic: Traffic,
}

impl PostgresStore {
    pub(super) async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
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
        let tls = (config.get_ssl_mode() != tokio_postgres::config::SslMode::Disable).then(tls).transpose()?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &tls {
            Some(tls) => Manager::from_config(config.clone(), tls.clone(), recycling),
            None => Manager::from_config(config.clone(), NoTls, recycling),
        };
        let pool = Pool::builder(manager)
            .max_size(options.read_connections.max(1))
            .wait_timeout(Some(options.acquire_timeout))
            .create_timeout(Some(options.acquire_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Fault(error.to_string()))?;
        let store = PostgresStore {
            config,
            tls,
            pool,
            options: options.clone(),
            definitions: Definitions::default(),
            traffic: Traffic::new("postgres"),
        };
        store.connect().await?;
        Ok(store)
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let unavailable = |error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            StoreError::Unavailable(format!("cannot connect to {}: {error}{cause}", self.options.url))
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

    pub(super) async fn writer(self: &Arc<Self>) -> Result<PostgresWriter, StoreError> {
        let lane = Lane::open(self).await?;
        Ok(PostgresWriter { store: self.clone(), lane: Some(lane), stripe: rand::random_range(0..STRIPES) })
    }

    pub(super) async fn migrate(&self) -> Result<Vec<&'static str>, StoreError> {
        let mut client = self.connect().await?;
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

    /// A connection for one SELECT.
    async fn reader(&self) -> Result<deadpool_postgres::Object, StoreError> {
        let client = self.pool.get().await?;
        self.traffic.reads.inc();
        self.traffic.round_trips.inc();
        Ok(client)
    }

    pub(super) async fn query<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let client = self.reader().await?;
        let statement = client.prepare_cached(sql).await?;
        let rows = client.query(&statement, &borrowed(parameters)).await?;
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
        let client = self.reader().await?;
        let statement = client.prepare_cached(sql).await?;
        let rows = client.query(&statement, &[&tenant.0, &ids]).await?;
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
        let client = self.reader().await?;
        let statement = client.prepare_cached(sql).await?;
        let (ids, numbers): (Vec<Uuid>, Vec<i64>) = versions.iter().map(|(id, version)| (id.0, *version)).unzip();
        let rows = client.query(&statement, &[&tenant.0, &ids, &numbers]).await?;
        let decode = |row: &Row| Ok((TemplateId(row.uuid(0)?), row.int(1)?, row.json(2)?));
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    pub(super) async fn execute(&self, sql: &str, parameters: &[Param<'_>]) -> Result<u64, StoreError> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(sql).await?;
        self.traffic.writes.inc();
        self.traffic.round_trips.inc();
        Ok(client.execute(&statement, &borrowed(parameters)).await?)
    }

    /// Rows by two arrays of texts, as one statement.
    pub(super) async fn query_texts<T>(
        &self,
        sql: &str,
        tenant: TenantId,
        first: &[&str],
        second: &[&str],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(sql).await?;
        let rows = client.query(&statement, &[&tenant.0, &first, &second]).await?;
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    /// Writes the changes in one transaction if `guard` writes a row, and nothing otherwise; whether it did. What is written
    /// so can be made anew, and does not wait for the disk.
    pub(super) async fn write_after(
        &self,
        guard: &str,
        parameters: &[Param<'_>],
        changes: &[Change<'_>],
    ) -> Result<bool, StoreError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        transaction.batch_execute("SET LOCAL synchronous_commit = off").await?;
        let guard = transaction.prepare_cached(guard).await?;
        if transaction.execute(&guard, &borrowed(parameters)).await? == 0 {
            return Ok(false);
        }
        for change in changes {
            let statement = transaction.prepare_cached(&change_sql(change.table, change.verb)).await?;
            let columns = columns(change);
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
            let client = self.connect().await?;
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
        let client = self.connect().await?;
        client.batch_execute("SET statement_timeout = 0").await?;
        let rows = client.query(sql, &borrowed(parameters)).await?;
        rows.iter().map(|row| decode(&Row::Postgres(row))).collect()
    }

    /// Read connections: open, idle, waiting for one.
    pub fn pool_status(&self) -> (usize, usize, usize) {
        let status = self.pool.status();
        (status.size, status.available, status.waiting)
    }

    /// What became of a transaction whose connection was lost.
    async fn fate_of(&self, lost: &LostCommit) -> Result<Fate, StoreError> {
        let client = self.connect().await?;
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

/// Statements over whole tables must take time in proportion to the rows even where the planner knows nothing of them,
/// which a nested loop does not. Compiling them would take longer than most of them run.
const FOR_WHOLE_TABLES: &str = "SET LOCAL enable_nestloop = off; SET LOCAL jit = off; SET LOCAL work_mem = '64MB'";

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

/// Certificates are checked against the system's roots.
fn tls() -> Result<MakeRustlsConnect, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Fault(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// A stand-by that has not been promoted yet; a transaction that stood still for so long that the server ended it.
const GOES_BY: [SqlState; 2] = [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT];

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(fault) = error.as_db_error() else {
            let cause = StdError::source(&error);
            let lost = error.is_closed() || cause.is_some_and(|cause| cause.is::<std::io::Error>());
            let text = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
            return if lost { StoreError::Unavailable(text) } else { StoreError::Fault(text) };
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
    changes: HashMap<(&'static str, Verb), Statement>,
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

    async fn execute(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, tokio_postgres::Error> {
        let _under_way = self.pipeline.send();
        self.traffic.writes.inc();
        self.client.execute(statement, parameters).await
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

/// What a lane asks, each for all keys of a batch at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lookup {
    Tenants,
    ApiKeys,
    LockedTemplates,
    Templates,
    TemplateUses,
    Claimed,
    LockedCoupons,
    LockedAccounts,
    /// The first page of an account's open lots.
    OpenLots,
    DueHolds,
    Holds,
    Originals,
    /// The rules that hold at the times of a batch.
    Rules,
    NewestRules,
    Records,
    Place,
    // In a further round trip, when they turn out to be needed.
    AllOpenLots,
    Lots,
    Definitions,
}

impl Lookup {
    const ALL: [Lookup; 19] = [
        Lookup::Tenants,
        Lookup::ApiKeys,
        Lookup::LockedTemplates,
        Lookup::Templates,
        Lookup::TemplateUses,
        Lookup::Claimed,
        Lookup::LockedCoupons,
        Lookup::LockedAccounts,
        Lookup::OpenLots,
        Lookup::DueHolds,
        Lookup::Holds,
        Lookup::Originals,
        Lookup::Rules,
        Lookup::NewestRules,
        Lookup::Records,
        Lookup::Place,
        Lookup::AllOpenLots,
        Lookup::Lots,
        Lookup::Definitions,
    ];

    /// Keys come as arrays, one for each of their columns: `k`. What is found under them is `r`.
    fn sql(self) -> String {
        let tenants = &unnested("k", &[("tenant_id", Type::Uuid)]);
        let ids = &unnested("k", &[("tenant_id", Type::Uuid), ("id", Type::Uuid)]);
        let members = &unnested("k", &[("tenant_id", Type::Uuid), ("member_id", Type::Text)]);
        let by_id = "r.tenant_id = k.tenant_id AND r.id = k.id";
        let by_member = "r.tenant_id = k.tenant_id AND r.member_id = k.member_id";
        let open_lots = format!("{by_member} AND r.open ORDER BY r.expires_at, r.created_at, r.id");
        match self {
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
                &unnested("k", &[("tenant_id", Type::Uuid), ("template_id", Type::Uuid), ("member_id", Type::Text)]),
                "mkt_user_coupon",
                &format!("{by_member} AND r.template_id = k.template_id ORDER BY r.sequence DESC LIMIT 1"),
            ),
            Lookup::LockedCoupons => found(decode::COUPON, ids, "mkt_user_coupon", &format!("{by_id} FOR UPDATE")),
            Lookup::LockedAccounts => {
                found(decode::ACCOUNT, members, "mkt_points_account", &format!("{by_member} FOR UPDATE"))
            }
            Lookup::OpenLots => found(decode::LOT, members, "mkt_points_lot", &format!("{open_lots} LIMIT {LOT_PAGE}")),
            Lookup::AllOpenLots => found(decode::LOT, members, "mkt_points_lot", &open_lots),
            Lookup::Lots => found(decode::LOT, ids, "mkt_points_lot", by_id),
            Lookup::DueHolds => found(
                decode::HOLD,
                &unnested("k", &[("tenant_id", Type::Uuid), ("member_id", Type::Text), ("latest", Type::Int)]),
                "mkt_points_hold",
                &format!("{by_member} AND r.status = 'OPEN' AND r.expires_at <= k.latest"),
            ),
            Lookup::Holds => found(decode::HOLD, ids, "mkt_points_hold", by_id),
            Lookup::Originals => format!(
                "SELECT {}, (SELECT v.reversed FROM mkt_points_reversal v WHERE v.tenant_id = r.tenant_id \
                 AND v.transaction_id = r.id) FROM {ids} CROSS JOIN LATERAL \
                 (SELECT * FROM mkt_points_transaction r WHERE {by_id}) r",
                decode::of("r", decode::TRANSACTION)
            ),
            Lookup::Rules => found(
                decode::RULES,
                "unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS k(tenant_id, earliest, latest)",
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
            Lookup::Records => found(
                "tenant_id, key, fingerprint, outcome",
                &unnested("k", &[("tenant_id", Type::Uuid), ("key", Type::Bytes)]),
                "idempotency",
                "r.tenant_id = k.tenant_id AND r.key = k.key",
            ),
            Lookup::Definitions => found(
                "tenant_id, template_id, version, definition",
                &unnested("k", &[("tenant_id", Type::Uuid), ("template_id", Type::Uuid), ("version", Type::Int)]),
                "mkt_coupon_template_version",
                "r.tenant_id = k.tenant_id AND r.template_id = k.template_id AND r.version = k.version",
            ),
            Lookup::Place => "SELECT pg_current_xact_id()::text::bigint, \
                              greatest(pg_current_xact_id()::text::bigint, \
                              pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1), \
                              nextval('event_batch')"
                .to_owned(),
        }
    }
}

/// Looks each key up by itself: LATERAL keeps it on the index whatever the planner believes about a fresh table.
fn found(columns: &str, keys: &str, table: &str, condition: &str) -> String {
    let columns = decode::of("r", columns);
    format!("SELECT {columns} FROM {keys} CROSS JOIN LATERAL (SELECT * FROM {table} r WHERE {condition}) r")
}

/// Rows that come as arrays, one for each column. Unnested side by side in a list of results, they are handed on one by one; in
/// FROM, each array would be copied into a store of its own first.
fn unnested(name: &str, columns: &[(&str, Type)]) -> String {
    let arrays = columns.iter().zip(1..);
    let unnested = arrays.map(|((column, ty), number)| format!("unnest(${number}::{}[]) AS {column}", type_name(*ty)));
    format!("(SELECT {}) AS {name}", unnested.collect::<Vec<_>>().join(", "))
}

/// Writes rows that come as arrays, one for each column.
fn change_sql(table: &Table, verb: Verb) -> String {
    let Table { name, key, .. } = table;
    let written = table.written(verb);
    let rows = unnested("u", &written);
    let names: Vec<&str> = written.iter().map(|(column, _)| *column).collect();
    let columns = names.join(", ");
    let joined = |names: &[&str], before: &str, separator: &str| {
        names.iter().map(|column| format!("{before}{column} = u.{column}")).collect::<Vec<_>>().join(separator)
    };
    let identified = joined(&names[..*key], "r.", " AND ");
    match verb {
        Verb::Insert => {
            format!("INSERT INTO {name} ({columns}) SELECT * FROM {rows}{}", table.on_conflict_sql())
        }
        Verb::Update => format!(
            "UPDATE {name} r SET {} FROM {rows} WHERE {identified}",
            joined(&names[*key..], "", ", ")
        ),
        Verb::Delete => format!("DELETE FROM {name} r USING {rows} WHERE {identified}"),
    }
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

/// Every way in which a lane may write, with its text.
fn change_statements() -> Vec<((&'static str, Verb), String)> {
    let mut statements = Vec::new();
    for table in TABLES {
        statements.push(((table.name, Verb::Insert), change_sql(table, Verb::Insert)));
        statements.push(((table.name, Verb::Delete), change_sql(table, Verb::Delete)));
        if table.fixed < table.columns.len() {
            statements.push(((table.name, Verb::Update), change_sql(table, Verb::Update)));
        }
    }
    statements
}

/// What a lane asks, and the settings it asks under: for the test of the plans.
pub fn lane_statements() -> (&'static str, Vec<String>) {
    let lookups = Lookup::ALL.into_iter().map(Lookup::sql);
    (LANE_SETTINGS, lookups.chain(change_statements().into_iter().map(|(_, sql)| sql)).collect())
}

/// A lane only ever looks rows up by their full key, in the order of an index. The planner does not know that of a fresh
/// table: it would rather scan it, or take any index that begins with the tenant and sort, and then keep that plan while
/// the table grows. With these settings only the index that fits is left. They hold for the lane's session only.
const LANE_SETTINGS: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; \
                             SET enable_hashjoin = off; SET enable_mergejoin = off; \
                             SET plan_cache_mode = force_generic_plan; SET jit = off; \
                             SET idle_in_transaction_session_timeout = '30s'; SET synchronous_commit = on";

impl Lane {
    async fn open(store: &PostgresStore) -> Result<Lane, StoreError> {
        let client = store.connect().await?;
        client.batch_execute(LANE_SETTINGS).await?;
        let lookups = join_all(Lookup::ALL.map(|lookup| {
            let client = &client;
            async move { Ok::<_, StoreError>((lookup, client.prepare(&lookup.sql()).await?)) }
        }));
        let changes = join_all(change_statements().into_iter().map(|(key, sql)| {
            let client = &client;
            async move { Ok::<_, StoreError>((key, client.prepare(&sql).await?)) }
        }));
        let (lookups, changes) = tokio::join!(lookups, changes);
        let (lookups, changes) =
            (lookups.into_iter().collect::<Result<_, _>>()?, changes.into_iter().collect::<Result<_, _>>()?);
        Ok(Lane { client: Counted::new(client, &store.traffic), lookups, changes })
    }
}

impl PostgresWriter {
    pub(super) async fn run(&mut self, batch: &[Envelope]) -> Result<Vec<Answer>, BatchFailure> {
        let lane = match &mut self.lane {
            Some(lane) if !lane.client.is_closed() => lane,
            lane => lane.insert(Lane::open(&self.store).await?),
        };
        let result = lane.run(&self.store.definitions, batch, self.stripe).await;
        match result {
            Ok(answers) => Ok(answers),
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
                self.resolve(*lost).await
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
    async fn run(&self, known: &Definitions, batch: &[Envelope], stripe: i64) -> Result<Vec<Answer>, Interrupted> {
        let keys = Keys::of(batch);
        let (mut state, place) = self.load(&keys, known).await?;
        let mut answers = Vec::with_capacity(batch.len());
        while let Err(needed) = decide_all(&mut state, batch, &mut answers) {
            let tenant = batch[answers.len()].tenant;
            let account = KeyColumns::members(std::iter::once((tenant, &needed.0)));
            let lots = self.look_up(Lookup::AllOpenLots, &account).await?;
            for row in &lots {
                state.load_lot(tenant, &needed.0, decode::lot(&Row::Postgres(row))?);
            }
            state.set_lots_complete(tenant, &needed.0, true);
        }
        if state.is_unchanged() {
            self.client.batch_execute("ROLLBACK").await?;
            return Ok(answers);
        }
        let writes = state.writes();
        let (tx, first_ordinal) = (place.tx, place.first_ordinal());
        let changes = changes(&writes, Placement { tx, first_ordinal, stripe, now: crate::clock::now() });
        let written = changes.iter().map(|change| async {
            let columns: Vec<Column> = columns(change);
            let parameters: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
            self.client.execute(&self.changes[&(change.table.name, change.verb)], &parameters).await
        });
        let round_trip = self.client.pipeline.send();
        // Polled in this order, so COMMIT leaves last; behind an error it rolls back.
        let (written, committed) = tokio::join!(biased; join_all(written), self.client.batch_execute("COMMIT"));
        drop(round_trip);
        let first_event = writes.event_inserts.first().map(|(tenant, event)| (*tenant, event.id.0));
        let at_commit = |answers, error: tokio_postgres::Error| {
            Interrupted::AtCommit(Box::new(LostCommit { place, first_event, answers, error: error.into() }))
        };
        for (result, change) in written.into_iter().zip(&changes) {
            match result {
                Ok(rows) if rows == change.rows.len() as u64 => {}
                // An UPDATE has not found a row that this transaction has locked: COMMIT went through with the others.
                Ok(rows) => {
                    let detail = format!("{rows} of {} rows were written to {}", change.rows.len(), change.table.name);
                    return Err(Interrupted::Refused(StoreError::Corrupt(detail)));
                }
                // Whether COMMIT arrived before the connection broke cannot be told from here.
                Err(error) if is_lost(&error) => return Err(at_commit(answers, error)),
                Err(error) => return Err(error.into()),
            }
        }
        match committed {
            Ok(()) => Ok(answers),
            Err(error) if is_lost(&error) => Err(at_commit(answers, error)),
            Err(error) => Err(error.into()),
        }
    }

    async fn look_up(&self, lookup: Lookup, keys: &KeyColumns<'_>) -> Rows {
        let parameters: Vec<&(dyn ToSql + Sync)> = keys.0.iter().map(|column| column as _).collect();
        self.client.query(&self.lookups[&lookup], &parameters).await
    }

    /// The first round trip: locks and look-ups.
    async fn load(&self, keys: &Keys, known: &Definitions) -> Result<(State, Place), StoreError> {
        let latest = keys.latest.map_or(0, |time| time.0);
        let asked = [
            (Lookup::Tenants, KeyColumns::tenants(&keys.tenants)),
            (Lookup::ApiKeys, KeyColumns::ids(keys.api_keys.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::LockedTemplates, KeyColumns::ids(keys.templates.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::Templates, KeyColumns::ids(keys.template_reads.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::TemplateUses, KeyColumns::ids(keys.template_uses.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::Claimed, KeyColumns::claimants(&keys.claimants)),
            (Lookup::LockedCoupons, KeyColumns::ids(keys.coupons.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::LockedAccounts, KeyColumns::accounts(&keys.accounts)),
            (Lookup::OpenLots, KeyColumns::accounts(&keys.accounts)),
            (Lookup::DueHolds, KeyColumns::accounts(&keys.accounts).and_all(latest)),
            (Lookup::Holds, KeyColumns::ids(keys.holds.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::Originals, KeyColumns::ids(keys.originals.iter().map(|(tenant, id)| (*tenant, id.0)))),
            (Lookup::Rules, KeyColumns::rules(&keys.rules)),
            (Lookup::NewestRules, KeyColumns::tenants(&keys.newest_rules)),
            (Lookup::Records, KeyColumns::records(&keys.idempotency)),
            (Lookup::Place, KeyColumns(Vec::new())),
        ];
        let asked: Vec<&(Lookup, KeyColumns<'_>)> = asked.iter().filter(|(_, keys)| !keys.is_empty()).collect();
        let round_trip = self.client.pipeline.send();
        let begun = self.client.batch_execute("BEGIN");
        let answers = join_all(asked.iter().map(|(lookup, keys)| self.look_up(*lookup, keys)));
        // Polled in this order, so BEGIN leaves first and Place, which must see every lock gained, last.
        let (begun, answers) = tokio::join!(biased; begun, answers);
        drop(round_trip);
        begun?;
        let mut state = State::empty(keys);
        let mut place = Place::default();
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
            for row in &rows {
                let row = Row::Postgres(row);
                match lookup {
                    Lookup::Tenants => state.load_tenant(decode::tenant(&row)?),
                    Lookup::ApiKeys => state.load_api_key(decode::api_key(&row)?, row.bytes(8)?),
                    Lookup::TemplateUses => {
                        uses.insert((row.tenant(0)?, row.uuid(1)?), row.int(2)?);
                    }
                    Lookup::Claimed => {
                        state.load_claimed(row.tenant(0)?, TemplateId(row.uuid(1)?), row.caller_id(2)?, row.int(3)?);
                    }
                    Lookup::LockedCoupons => state.load_coupon(row.tenant(0)?, decode::coupon(&row)?),
                    Lookup::LockedAccounts => state.load_account(row.tenant(0)?, decode::account(&row)?),
                    Lookup::OpenLots => lots.push((row.tenant(0)?, row.caller_id::<MemberId>(1)?, decode::lot(&row)?)),
                    Lookup::DueHolds | Lookup::Holds => state.load_hold(row.tenant(0)?, decode::hold(&row)?),
                    Lookup::Originals => {
                        let reversed = row.opt_int(decode::TRANSACTION_COLUMNS)?.unwrap_or(0);
                        state.load_original(row.tenant(0)?, decode::transaction(&row)?, reversed);
                    }
                    Lookup::Rules => {
                        let (effective_from, rules) = decode::rules(&row, known)?;
                        state.load_rules(row.tenant(0)?, effective_from, rules);
                    }
                    Lookup::NewestRules => state.set_newest_rules(row.tenant(0)?, row.int(1)?),
                    Lookup::Records => {
                        let record = IdempotencyRecord { fingerprint: row.bytes(2)?, outcome: row.text(3)? };
                        state.load_idempotency(row.tenant(0)?, row.bytes(1)?, record);
                    }
                    Lookup::Place => place = Place { xid: row.int(0)?, tx: row.int(1)?, batch: row.int(2)? },
                    Lookup::LockedTemplates
                    | Lookup::Templates
                    | Lookup::AllOpenLots
                    | Lookup::Lots
                    | Lookup::Definitions => {}
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
        self.load_named_lots(&mut state).await?;
        self.load_definitions(known, &templates).await?;
        for row in &templates {
            let row = Row::Postgres(row);
            let (tenant, id, version) = version_of(&row)?;
            let definition = known
                .get(tenant, id, version)
                .ok_or_else(|| StoreError::corrupt("a template lacks the definition of its version"))?;
            let used_count = uses.get(&(tenant, id.0)).copied().unwrap_or(0);
            state.load_template(tenant, decode::template(&row, definition, used_count)?);
        }
        Ok((state, place))
    }

    async fn load_named_lots(&self, state: &mut State) -> Result<(), StoreError> {
        let missing: Vec<(TenantId, MemberId, LotId)> = state.missing_lots();
        if missing.is_empty() {
            return Ok(());
        }
        let ids = KeyColumns::ids(missing.iter().map(|(tenant, _, id)| (*tenant, id.0)));
        for row in &self.look_up(Lookup::Lots, &ids).await? {
            let row = Row::Postgres(row);
            state.load_lot(row.tenant(0)?, &row.caller_id::<MemberId>(1)?, decode::lot(&row)?);
        }
        Ok(())
    }

    /// Learns the definitions that are not in memory yet: once for each version and node.
    async fn load_definitions(&self, known: &Definitions, templates: &[tokio_postgres::Row]) -> Result<(), StoreError> {
        let mut unknown = Vec::new();
        for row in templates {
            let (tenant, id, version) = version_of(&Row::Postgres(row))?;
            if known.get(tenant, id, version).is_none() {
                unknown.push((tenant, id, version));
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
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
enum Column<'a> {
    Uuid(Vec<Option<Uuid>>),
    Text(Vec<Option<&'a str>>),
    Int(Vec<Option<i64>>),
    Bool(Vec<Option<bool>>),
    Bytes(Vec<Option<&'a [u8]>>),
}

impl ToSql for Column<'_> {
    fn to_sql(&self, ty: &PgType, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Column::Uuid(values) => values.to_sql(ty, out),
            Column::Text(values) => values.to_sql(ty, out),
            Column::Int(values) => values.to_sql(ty, out),
            Column::Bool(values) => values.to_sql(ty, out),
            Column::Bytes(values) => values.to_sql(ty, out),
        }
    }

    // Whether a column fits is known only from its values; the variants above check it when they write.
    fn accepts(_: &PgType) -> bool {
        true
    }

    to_sql_checked!();
}

/// The rows of a change, column by column.
fn columns<'a>(change: &'a Change<'a>) -> Vec<Column<'a>> {
    let written = change.table.written(change.verb);
    let column = |(index, (_, ty)): (usize, &(_, Type))| {
        let values = change.rows.iter().map(|row| &row[index]);
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

    fn claimants(keys: &'a BTreeSet<(TenantId, TemplateId, MemberId)>) -> Self {
        let mut columns = KeyColumns::ids(keys.iter().map(|(tenant, template, _)| (*tenant, template.0)));
        columns.0.push(Column::Text(keys.iter().map(|(_, _, member)| Some(member.as_str())).collect()));
        columns
    }

    fn rules(keys: &BTreeMap<TenantId, (Timestamp, Timestamp)>) -> Self {
        let mut columns = KeyColumns(vec![Column::Uuid(keys.keys().map(|tenant| Some(tenant.0)).collect())]);
        columns.0.push(Column::Int(keys.values().map(|(earliest, _)| Some(earliest.0)).collect()));
        columns.0.push(Column::Int(keys.values().map(|(_, latest)| Some(latest.0)).collect()));
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
        }
    }
}
