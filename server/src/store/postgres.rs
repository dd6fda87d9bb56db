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

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::future::join_all;
use scrip_domain::coupon::{Coupon, Definition};
use scrip_domain::key::Keys;
use scrip_domain::points::{Account, Lot};
use scrip_domain::state::{IdempotencyRecord, LOT_PAGE, Writes};
use scrip_domain::{Answer, Envelope, LotId, MemberId, State, TemplateId, TenantId};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::migrate::{self, Migration};
use super::sqlite::to_json;
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

    /// A connection of its own in a read transaction, without a statement timeout.
    pub(super) async fn snapshot(&self) -> Result<Client, StoreError> {
        let client = self.connect().await?;
        client.batch_execute("SET statement_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        Ok(client)
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
        let row = client.query_one("SELECT pg_xact_status($1::text::xid8)", &[&lost.tx.to_string()]).await?;
        match row.get(0) {
            Some("aborted") => return Ok(Fate::Aborted),
            Some("committed") => {}
            Some(_) => return Ok(Fate::InProgress),
            None => return Ok(Fate::Forgotten),
        }
        let Some((tenant, event)) = lost.first_event else { return Ok(Fate::Committed) };
        // A statement of its own, so that it sees what is committed by now.
        let sql = "SELECT 1 FROM event WHERE tenant_id = $1 AND tx = $2 AND ordinal = 0 AND id = $3";
        let is_ours = client.query_opt(sql, &[&tenant.0, &lost.tx, &event]).await?.is_some();
        Ok(if is_ours { Fate::Committed } else { Fate::Aborted })
    }
}

/// A batch whose connection was lost at COMMIT.
struct LostCommit {
    tx: i64,
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
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            return StoreError::Unavailable(format!("{error}{cause}"));
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

/// Uses of a template are counted in this many rows, so that lanes seldom wait for each other.
const STRIPES: i64 = 8;

/// A lane's connection with its statements prepared.
pub struct PostgresWriter {
    store: Arc<PostgresStore>,
    lane: Option<Lane>,
    stripe: i64,
}

struct Lane {
    client: Counted,
    statements: Statements,
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

/// Everything a lane ever asks, prepared once. The text is in [`Statements::prepare`].
struct Statements {
    begin_tx: Statement,
    tenants: Statement,
    api_keys: Statement,
    lock_templates: Statement,
    read_templates: Statement,
    definitions: Statement,
    template_uses: Statement,
    claimed: Statement,
    lock_coupons: Statement,
    lock_accounts: Statement,
    open_lots: Statement,
    all_lots: Statement,
    lots: Statement,
    due_holds: Statement,
    holds: Statement,
    originals: Statement,
    idempotency: Statement,
    insert_tenant: Statement,
    insert_api_key: Statement,
    revoke_api_key: Statement,
    insert_template: Statement,
    update_template: Statement,
    delete_template: Statement,
    insert_version: Statement,
    add_uses: Statement,
    insert_coupons: Statement,
    update_coupons: Statement,
    insert_accounts: Statement,
    update_accounts: Statement,
    insert_lots: Statement,
    update_lots: Statement,
    insert_transactions: Statement,
    insert_holds: Statement,
    update_holds: Statement,
    reversals: Statement,
    insert_events: Statement,
    insert_idempotency: Statement,
}

impl Statements {
    /// The texts, in the order of the fields.
    fn texts() -> Vec<String> {
        let t = "tenant_id";
        let by_key = "FROM unnest($1::uuid[], $2::uuid[]) AS k(tenant_id, id)";
        let columns = |list: &str, alias: &str| {
            let names = list.split(", ").map(|name| format!("{alias}.{}", name.trim()));
            names.collect::<Vec<_>>().join(", ")
        };
        let template = decode::TEMPLATE;
        let (coupon, account) = (columns(decode::COUPON, "r"), columns(decode::ACCOUNT, "r"));
        let (lot, hold) = (columns(decode::LOT, "r"), columns(decode::HOLD, "r"));
        let transaction = columns(decode::TRANSACTION, "r");
        let lots_of_accounts = |limit: &str| {
            format!(
                "SELECT {lot} FROM unnest($1::uuid[], $2::text[]) AS k(tenant_id, member_id) CROSS JOIN LATERAL \
                 (SELECT * FROM mkt_points_lot l WHERE l.tenant_id = k.tenant_id AND l.member_id = k.member_id \
                  AND l.open ORDER BY l.expires_at, l.created_at, l.id {limit}) r"
            )
        };
        let update = |table: &str, key: &str, types: &[(&str, &str)], key_type: &str| {
            let arrays = types.iter().enumerate();
            let unnest = arrays.map(|(i, (_, ty))| format!(", ${}::{ty}[]", i + 3)).collect::<String>();
            let names = types.iter().map(|(name, _)| format!(", {name}")).collect::<String>();
            let set = types.iter().map(|(name, _)| format!("{name} = u.{name}")).collect::<Vec<_>>().join(", ");
            format!(
                "UPDATE {table} r SET {set} FROM unnest($1::uuid[], $2::{key_type}[]{unnest}) AS u({t}, {key}{names}) \
                 WHERE r.{t} = u.{t} AND r.{key} = u.{key}"
            )
        };
        let insert = |table: &str, types: &[(&str, &str)]| {
            let names = types.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            let arrays = types.iter().enumerate();
            let unnest = arrays.map(|(i, (_, ty))| format!("${}::{ty}[]", i + 1)).collect::<Vec<_>>().join(", ");
            format!("INSERT INTO {table} ({names}) SELECT * FROM unnest({unnest})")
        };
        let account_columns = [
            ("total_points", "bigint"),
            ("available", "bigint"),
            ("frozen", "bigint"),
            ("used", "bigint"),
            ("expired", "bigint"),
            ("revoked", "bigint"),
            ("debt", "bigint"),
            ("sequence", "bigint"),
            ("created_at", "bigint"),
            ("updated_at", "bigint"),
        ];
        let keyed = |key: (&'static str, &'static str), rest: &[(&'static str, &'static str)]| {
            [&[(t, "uuid"), key], rest].concat()
        };
        vec![
            "SELECT pg_current_xact_id()::text::bigint".to_owned(),
            format!("SELECT {} FROM tenant WHERE {t} = ANY($1::uuid[])", decode::TENANT),
            format!(
                "SELECT {}, r.secret_digest {by_key} JOIN api_key r USING ({t}, id)",
                columns(decode::API_KEY, "r")
            ),
            format!(
                "SELECT {template} {by_key} CROSS JOIN LATERAL (SELECT * FROM mkt_coupon_template r \
                 WHERE r.{t} = k.{t} AND r.id = k.id FOR UPDATE) t"
            ),
            format!(
                "SELECT {template} {by_key} CROSS JOIN LATERAL (SELECT * FROM mkt_coupon_template r \
                 WHERE r.{t} = k.{t} AND r.id = k.id) t"
            ),
            format!(
                "SELECT r.{t}, r.template_id, r.version, r.definition FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) \
                 AS k({t}, template_id, version) CROSS JOIN LATERAL (SELECT * FROM mkt_coupon_template_version v \
                 WHERE v.{t} = k.{t} AND v.template_id = k.template_id AND v.version = k.version) r"
            ),
            format!(
                "SELECT k.{t}, k.id, (SELECT coalesce(sum(r.used_count), 0)::bigint FROM mkt_coupon_template_use r \
                 WHERE r.{t} = k.{t} AND r.template_id = k.id) {by_key}"
            ),
            format!(
                "SELECT k.{t}, k.template_id, k.member_id, r.sequence \
                 FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS k({t}, template_id, member_id) \
                 CROSS JOIN LATERAL (SELECT c.sequence FROM mkt_user_coupon c WHERE c.{t} = k.{t} \
                 AND c.template_id = k.template_id AND c.member_id = k.member_id \
                 ORDER BY c.sequence DESC LIMIT 1) r"
            ),
            format!(
                "SELECT {coupon} {by_key} CROSS JOIN LATERAL (SELECT * FROM mkt_user_coupon c \
                 WHERE c.{t} = k.{t} AND c.id = k.id FOR UPDATE) r"
            ),
            format!(
                "SELECT {account} FROM unnest($1::uuid[], $2::text[]) AS k({t}, member_id) CROSS JOIN LATERAL \
                 (SELECT * FROM mkt_points_account a WHERE a.{t} = k.{t} AND a.member_id = k.member_id FOR UPDATE) r"
            ),
            lots_of_accounts(&format!("LIMIT {LOT_PAGE}")),
            lots_of_accounts(""),
            format!(
                "SELECT {lot} {by_key} CROSS JOIN LATERAL (SELECT * FROM mkt_points_lot l \
                 WHERE l.{t} = k.{t} AND l.id = k.id) r"
            ),
            format!(
                "SELECT {hold} FROM unnest($1::uuid[], $2::text[]) AS k({t}, member_id) CROSS JOIN LATERAL \
                 (SELECT * FROM mkt_points_hold h WHERE h.{t} = k.{t} AND h.member_id = k.member_id \
                 AND h.status = 'OPEN' AND h.expires_at <= $3) r"
            ),
            format!(
                "SELECT {hold} {by_key} CROSS JOIN LATERAL (SELECT * FROM mkt_points_hold h \
                 WHERE h.{t} = k.{t} AND h.id = k.id) r"
            ),
            format!(
                "SELECT {transaction}, (SELECT v.reversed FROM mkt_points_reversal v \
                 WHERE v.{t} = r.{t} AND v.transaction_id = r.id) {by_key} CROSS JOIN LATERAL \
                 (SELECT * FROM mkt_points_transaction p WHERE p.{t} = k.{t} AND p.id = k.id) r"
            ),
            format!(
                "SELECT r.{t}, r.key, r.fingerprint, r.outcome FROM unnest($1::uuid[], $2::bytea[]) AS k({t}, key) \
                 CROSS JOIN LATERAL (SELECT * FROM idempotency i WHERE i.{t} = k.{t} AND i.key = k.key) r"
            ),
            format!("INSERT INTO tenant ({}) VALUES ($1, $2, $3, $4, $5, $6)", decode::TENANT),
            format!(
                "INSERT INTO api_key ({}, secret_digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                decode::API_KEY
            ),
            format!("UPDATE api_key SET revoked_at = $3 WHERE {t} = $1 AND id = $2"),
            "INSERT INTO mkt_coupon_template (tenant_id, id, version, enabled, type, distribution_starts_at, \
             distribution_ends_at, total_stock, remaining_stock, claimed_count, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
                .to_owned(),
            "UPDATE mkt_coupon_template SET version = $3, enabled = $4, type = $5, distribution_starts_at = $6, \
             distribution_ends_at = $7, total_stock = $8, remaining_stock = $9, claimed_count = $10, updated_at = $11 \
             WHERE tenant_id = $1 AND id = $2"
                .to_owned(),
            format!("DELETE FROM mkt_coupon_template WHERE {t} = $1 AND id = $2"),
            "INSERT INTO mkt_coupon_template_version (tenant_id, template_id, version, definition, created_at) \
             VALUES ($1, $2, $3, $4, $5)"
                .to_owned(),
            "INSERT INTO mkt_coupon_template_use AS r (tenant_id, template_id, stripe, used_count) \
             SELECT u.tenant_id, u.template_id, $4::bigint, u.change \
             FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS u(tenant_id, template_id, change) \
             ON CONFLICT (tenant_id, template_id, stripe) DO UPDATE SET used_count = r.used_count + excluded.used_count"
                .to_owned(),
            insert("mkt_user_coupon", &COUPON_TYPES),
            update(
                "mkt_user_coupon",
                "id",
                &[
                    ("status", "text"),
                    ("valid_until", "bigint"),
                    ("order_id", "text"),
                    ("locked_until", "bigint"),
                    ("discount_amount", "bigint"),
                    ("used_at", "bigint"),
                ],
                "uuid",
            ),
            insert("mkt_points_account", &keyed(("member_id", "text"), &account_columns)),
            update("mkt_points_account", "member_id", &account_columns, "text"),
            insert("mkt_points_lot", &LOT_TYPES),
            update(
                "mkt_points_lot",
                "id",
                &[
                    ("remaining", "bigint"),
                    ("held", "bigint"),
                    ("used", "bigint"),
                    ("expired", "bigint"),
                    ("revoked", "bigint"),
                    ("moved", "bigint"),
                    ("open", "boolean"),
                ],
                "uuid",
            ),
            insert("mkt_points_transaction", &TRANSACTION_TYPES),
            insert("mkt_points_hold", &HOLD_TYPES),
            update(
                "mkt_points_hold",
                "id",
                &[("captured", "bigint"), ("released", "bigint"), ("status", "text"), ("closed_at", "bigint")],
                "uuid",
            ),
            "INSERT INTO mkt_points_reversal (tenant_id, transaction_id, points, reversed) \
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) \
             ON CONFLICT (tenant_id, transaction_id) DO UPDATE SET reversed = excluded.reversed"
                .to_owned(),
            "INSERT INTO event (tenant_id, tx, ordinal, id, type, subject_id, member_id, data, actor_id, occurred_at, \
             recorded_at) SELECT u.t, $1, u.n, u.id, u.type, u.subject, u.member, u.data, u.actor, u.occurred, \
             u.recorded FROM unnest($2::uuid[], $3::bigint[], $4::uuid[], $5::text[], $6::uuid[], $7::text[], \
             $8::text[], $9::uuid[], $10::bigint[], $11::bigint[]) \
             AS u(t, n, id, type, subject, member, data, actor, occurred, recorded)"
                .to_owned(),
            "INSERT INTO idempotency (tenant_id, key, fingerprint, outcome, created_at) \
             SELECT u.t, u.key, u.fingerprint, u.outcome, $5 \
             FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::text[]) AS u(t, key, fingerprint, outcome)"
                .to_owned(),
        ]
    }

    async fn prepare(client: &Client) -> Result<Statements, StoreError> {
        let sql = Statements::texts();
        let prepared = join_all(sql.iter().map(|text| client.prepare(text))).await;
        let mut prepared = prepared.into_iter();
        let mut take = || prepared.next().expect("one statement for each field");
        Ok(Statements {
            begin_tx: take()?,
            tenants: take()?,
            api_keys: take()?,
            lock_templates: take()?,
            read_templates: take()?,
            definitions: take()?,
            template_uses: take()?,
            claimed: take()?,
            lock_coupons: take()?,
            lock_accounts: take()?,
            open_lots: take()?,
            all_lots: take()?,
            lots: take()?,
            due_holds: take()?,
            holds: take()?,
            originals: take()?,
            idempotency: take()?,
            insert_tenant: take()?,
            insert_api_key: take()?,
            revoke_api_key: take()?,
            insert_template: take()?,
            update_template: take()?,
            delete_template: take()?,
            insert_version: take()?,
            add_uses: take()?,
            insert_coupons: take()?,
            update_coupons: take()?,
            insert_accounts: take()?,
            update_accounts: take()?,
            insert_lots: take()?,
            update_lots: take()?,
            insert_transactions: take()?,
            insert_holds: take()?,
            update_holds: take()?,
            reversals: take()?,
            insert_events: take()?,
            insert_idempotency: take()?,
        })
    }
}

/// What a lane asks, and the settings it asks under: for the test of the plans.
pub fn lane_statements() -> (&'static str, Vec<String>) {
    (LANE_SETTINGS, Statements::texts())
}

const COUPON_TYPES: [(&str, &str); 15] = [
    ("tenant_id", "uuid"),
    ("id", "uuid"),
    ("template_id", "uuid"),
    ("template_version", "bigint"),
    ("member_id", "text"),
    ("status", "text"),
    ("sequence", "bigint"),
    ("source", "text"),
    ("valid_from", "bigint"),
    ("valid_until", "bigint"),
    ("order_id", "text"),
    ("locked_until", "bigint"),
    ("discount_amount", "bigint"),
    ("claimed_at", "bigint"),
    ("used_at", "bigint"),
];

const LOT_TYPES: [(&str, &str); 15] = [
    ("tenant_id", "uuid"),
    ("member_id", "text"),
    ("id", "uuid"),
    ("points", "bigint"),
    ("remaining", "bigint"),
    ("held", "bigint"),
    ("used", "bigint"),
    ("expired", "bigint"),
    ("revoked", "bigint"),
    ("moved", "bigint"),
    ("available_from", "bigint"),
    ("expires_at", "bigint"),
    ("transaction_id", "uuid"),
    ("created_at", "bigint"),
    ("open", "boolean"),
];

const TRANSACTION_TYPES: [(&str, &str); 19] = [
    ("tenant_id", "uuid"),
    ("id", "uuid"),
    ("member_id", "text"),
    ("sequence", "bigint"),
    ("type", "text"),
    ("points", "bigint"),
    ("balance_before", "bigint"),
    ("balance_after", "bigint"),
    ("frozen_after", "bigint"),
    ("debt_after", "bigint"),
    ("reference", "text"),
    ("remark", "text"),
    ("hold_id", "uuid"),
    ("reverses_id", "uuid"),
    ("lot_id", "uuid"),
    ("allocations", "text"),
    ("expires_at", "bigint"),
    ("occurred_at", "bigint"),
    ("recorded_at", "bigint"),
];

const HOLD_TYPES: [(&str, &str); 13] = [
    ("tenant_id", "uuid"),
    ("id", "uuid"),
    ("member_id", "text"),
    ("points", "bigint"),
    ("captured", "bigint"),
    ("released", "bigint"),
    ("status", "text"),
    ("reference", "text"),
    ("remark", "text"),
    ("expires_at", "bigint"),
    ("allocations", "text"),
    ("created_at", "bigint"),
    ("closed_at", "bigint"),
];

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
        let statements = Statements::prepare(&client).await?;
        Ok(Lane { client: Counted::new(client, &store.traffic), statements })
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
                let LostCommit { tx, error, .. } = &*lost;
                tracing::warn!(%error, tx, "the connection was lost at COMMIT; asking what became of it");
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
type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a>>;

impl Lane {
    async fn run(&self, known: &Definitions, batch: &[Envelope], stripe: i64) -> Result<Vec<Answer>, Interrupted> {
        let keys = Keys::of(batch);
        let (mut state, tx) = self.load(&keys, known).await?;
        let mut answers = Vec::with_capacity(batch.len());
        while let Err(needed) = decide_all(&mut state, batch, &mut answers) {
            let tenant = batch[answers.len()].tenant;
            let (tenants, members) = ([tenant.0], [needed.0.as_str()]);
            let parameters: [&(dyn ToSql + Sync); 2] = [&tenants.as_slice(), &members.as_slice()];
            let lots = self.client.query(&self.statements.all_lots, &parameters).await?;
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
        let changes = changes(&self.statements, &writes, tx, stripe);
        let written = changes.iter().map(|change| async {
            let parameters: Vec<&(dyn ToSql + Sync)> =
                change.parameters.iter().map(|array| &**array as &(dyn ToSql + Sync)).collect();
            self.client.execute(change.statement, &parameters).await
        });
        // Polled in this order, so COMMIT leaves last; behind an error it rolls back.
        let (written, committed) = tokio::join!(biased; join_all(written), self.client.batch_execute("COMMIT"));
        let first_event = writes.event_inserts.first().map(|(tenant, event)| (*tenant, event.id.0));
        let at_commit = |answers, error: tokio_postgres::Error| {
            Interrupted::AtCommit(Box::new(LostCommit { tx, first_event, answers, error: error.into() }))
        };
        for (result, change) in written.into_iter().zip(&changes) {
            match result {
                Ok(rows) if rows == change.rows => {}
                // An UPDATE has not found a row that this transaction has locked: COMMIT went through with the others.
                Ok(rows) => {
                    let detail = format!("{rows} of {} rows were written", change.rows);
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

    /// Adds a look-up to the first round trip unless it has no keys.
    fn ask<'a>(
        &'a self,
        asked: &mut Asked<'a>,
        what: Load,
        statement: &'a Statement,
        has_keys: bool,
        parameters: Vec<&'a (dyn ToSql + Sync)>,
    ) {
        if has_keys {
            asked.push((what, Box::pin(async move { self.client.query(statement, &parameters).await })));
        }
    }

    /// The first round trip: locks and look-ups.
    async fn load(&self, keys: &Keys, known: &Definitions) -> Result<(State, i64), StoreError> {
        let s = &self.statements;
        let tenants: Vec<Uuid> = keys.tenants.iter().map(|tenant| tenant.0).collect();
        let api_keys = pairs(keys.api_keys.iter().map(|(tenant, id)| (*tenant, id.0)));
        let locked = pairs(keys.templates.iter().map(|(tenant, id)| (*tenant, id.0)));
        let read = pairs(keys.template_reads.iter().map(|(tenant, id)| (*tenant, id.0)));
        let used = pairs(keys.template_uses.iter().map(|(tenant, id)| (*tenant, id.0)));
        let claimants = &keys.claimants;
        let claim_tenants: Vec<Uuid> = claimants.iter().map(|(tenant, _, _)| tenant.0).collect();
        let claim_templates: Vec<Uuid> = claimants.iter().map(|(_, template, _)| template.0).collect();
        let claim_members: Vec<&str> = claimants.iter().map(|(_, _, member)| member.as_str()).collect();
        let coupons = pairs(keys.coupons.iter().map(|(tenant, id)| (*tenant, id.0)));
        let account_tenants: Vec<Uuid> = keys.accounts.iter().map(|(tenant, _)| tenant.0).collect();
        let account_members: Vec<&str> = keys.accounts.iter().map(|(_, member)| member.as_str()).collect();
        let latest = keys.latest.map_or(0, |time| time.0);
        let holds = pairs(keys.holds.iter().map(|(tenant, id)| (*tenant, id.0)));
        let originals = pairs(keys.originals.iter().map(|(tenant, id)| (*tenant, id.0)));
        let record_tenants: Vec<Uuid> = keys.idempotency.iter().map(|(tenant, _)| tenant.0).collect();
        let record_keys: Vec<&[u8]> = keys.idempotency.iter().map(|(_, key)| key.as_slice()).collect();

        let mut asked: Asked<'_> = Vec::with_capacity(16);
        let begin = async { self.client.batch_execute("BEGIN").await.map(|()| Vec::new()) };
        asked.push((Load::Nothing, Box::pin(begin)));
        let by_claimant: Vec<&(dyn ToSql + Sync)> = vec![&claim_tenants, &claim_templates, &claim_members];
        let has_accounts = !keys.accounts.is_empty();
        self.ask(&mut asked, Load::Tx, &s.begin_tx, true, vec![]);
        self.ask(&mut asked, Load::Tenant, &s.tenants, !tenants.is_empty(), vec![&tenants]);
        self.ask(&mut asked, Load::ApiKey, &s.api_keys, !keys.api_keys.is_empty(), vec![&api_keys.0, &api_keys.1]);
        self.ask(&mut asked, Load::Template, &s.lock_templates, !keys.templates.is_empty(), vec![&locked.0, &locked.1]);
        self.ask(
            &mut asked,
            Load::Template,
            &s.read_templates,
            !keys.template_reads.is_empty(),
            vec![&read.0, &read.1],
        );
        self.ask(&mut asked, Load::Uses, &s.template_uses, !keys.template_uses.is_empty(), vec![&used.0, &used.1]);
        self.ask(&mut asked, Load::Claimed, &s.claimed, !claimants.is_empty(), by_claimant);
        self.ask(&mut asked, Load::Coupon, &s.lock_coupons, !keys.coupons.is_empty(), vec![&coupons.0, &coupons.1]);
        self.ask(&mut asked, Load::Account, &s.lock_accounts, has_accounts, vec![&account_tenants, &account_members]);
        self.ask(&mut asked, Load::Lot, &s.open_lots, has_accounts, vec![&account_tenants, &account_members]);
        self.ask(&mut asked, Load::Hold, &s.due_holds, has_accounts, vec![&account_tenants, &account_members, &latest]);
        self.ask(&mut asked, Load::Hold, &s.holds, !keys.holds.is_empty(), vec![&holds.0, &holds.1]);
        self.ask(
            &mut asked,
            Load::Original,
            &s.originals,
            !keys.originals.is_empty(),
            vec![&originals.0, &originals.1],
        );
        self.ask(
            &mut asked,
            Load::Record,
            &s.idempotency,
            !keys.idempotency.is_empty(),
            vec![&record_tenants, &record_keys],
        );

        let (kinds, futures): (Vec<Load>, Vec<_>) = asked.into_iter().unzip();
        let results: Vec<Rows> = join_all(futures).await;
        let mut state = State::empty(keys);
        let mut tx = 0;
        let mut templates = Vec::new();
        let mut uses = std::collections::HashMap::new();
        let mut lots = Vec::new();
        for (kind, rows) in kinds.into_iter().zip(results) {
            let rows = rows?;
            if matches!(kind, Load::Template) {
                templates.extend(rows);
                continue;
            }
            for row in &rows {
                let row = Row::Postgres(row);
                match kind {
                    Load::Nothing => {}
                    Load::Tx => tx = row.int(0)?,
                    Load::Tenant => state.load_tenant(decode::tenant(&row)?),
                    Load::ApiKey => state.load_api_key(decode::api_key(&row)?, row.bytes(8)?),
                    // Decoded below, when their definitions are at hand.
                    Load::Template => {}
                    Load::Uses => {
                        uses.insert((row.tenant(0)?, row.uuid(1)?), row.int(2)?);
                    }
                    Load::Claimed => {
                        state.load_claimed(row.tenant(0)?, TemplateId(row.uuid(1)?), row.caller_id(2)?, row.int(3)?);
                    }
                    Load::Coupon => state.load_coupon(row.tenant(0)?, decode::coupon(&row)?),
                    Load::Account => state.load_account(row.tenant(0)?, decode::account(&row)?),
                    Load::Lot => lots.push((row.tenant(0)?, row.caller_id::<MemberId>(1)?, decode::lot(&row)?)),
                    Load::Hold => state.load_hold(row.tenant(0)?, decode::hold(&row)?),
                    Load::Original => {
                        let reversed = row.opt_int(decode::TRANSACTION_COLUMNS)?.unwrap_or(0);
                        state.load_original(row.tenant(0)?, decode::transaction(&row)?, reversed);
                    }
                    Load::Record => {
                        let record = IdempotencyRecord { fingerprint: row.bytes(2)?, outcome: row.text(3)? };
                        state.load_idempotency(row.tenant(0)?, row.bytes(1)?, record);
                    }
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
        Ok((state, tx))
    }

    async fn load_named_lots(&self, state: &mut State) -> Result<(), StoreError> {
        let missing: Vec<(TenantId, MemberId, LotId)> = state.missing_lots();
        if missing.is_empty() {
            return Ok(());
        }
        let ids = pairs(missing.iter().map(|(tenant, _, id)| (*tenant, id.0)));
        for row in &self.client.query(&self.statements.lots, &[&ids.0, &ids.1]).await? {
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
        let ids = pairs(unknown.iter().map(|(tenant, id, _)| (*tenant, id.0)));
        let versions: Vec<i64> = unknown.iter().map(|(_, _, version)| *version).collect();
        for row in &self.client.query(&self.statements.definitions, &[&ids.0, &ids.1, &versions]).await? {
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

/// The statements of the first round trip, in the order they are sent.
type Asked<'a> = Vec<(Load, Pending<'a, Vec<tokio_postgres::Row>>)>;

/// What a look-up of the first round trip was for.
#[derive(Clone, Copy)]
enum Load {
    Nothing,
    Tx,
    Tenant,
    ApiKey,
    Template,
    Uses,
    Claimed,
    Coupon,
    Account,
    Lot,
    Hold,
    Original,
    Record,
}

fn pairs(keys: impl Iterator<Item = (TenantId, Uuid)>) -> (Vec<Uuid>, Vec<Uuid>) {
    keys.map(|(tenant, id)| (tenant.0, id)).unzip()
}

/// One statement of the second round trip, with its parameters and how many rows it must write.
struct Change<'a> {
    statement: &'a Statement,
    parameters: Vec<Box<dyn ToSql + Send + Sync + 'a>>,
    rows: u64,
}

/// Collects one column of the rows as an array parameter.
fn array<'a, R, T: ToSql + Send + Sync + 'a>(
    rows: &'a [R],
    column: impl Fn(&'a R) -> T,
) -> Box<dyn ToSql + Send + Sync + 'a>
where
    Vec<T>: ToSql,
{
    Box::new(rows.iter().map(column).collect::<Vec<T>>())
}

fn changes<'a>(s: &'a Statements, writes: &'a Writes<'a>, tx: i64, stripe: i64) -> Vec<Change<'a>> {
    let mut changes = Vec::with_capacity(16);
    add_definitions(&mut changes, s, writes);
    add_coupons(&mut changes, s, writes);
    add_accounts(&mut changes, s, writes);
    add_holds(&mut changes, s, writes);
    let rows = &writes.event_inserts;
    if !rows.is_empty() {
        let ordinals: Vec<i64> = (0..rows.len() as i64).collect();
        changes.push(Change {
            statement: &s.insert_events,
            parameters: vec![
                Box::new(tx),
                array(rows, |(tenant, _)| tenant.0),
                Box::new(ordinals),
                array(rows, |(_, event)| event.id.0),
                array(rows, |(_, event)| event.kind.as_str()),
                array(rows, |(_, event)| event.subject),
                array(rows, |(_, event)| event.member_id.as_ref().map(MemberId::as_str)),
                array(rows, |(_, event)| event.data.as_str()),
                array(rows, |(_, event)| event.actor.map(|actor| actor.0)),
                array(rows, |(_, event)| event.occurred_at.0),
                array(rows, |(_, event)| event.recorded_at.0),
            ],
            rows: rows.len() as u64,
        });
    }
    let rows = &writes.idempotency_inserts;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.insert_idempotency,
            parameters: vec![
                array(rows, |(tenant, _, _)| tenant.0),
                array(rows, |(_, key, _)| key.as_slice()),
                array(rows, |(_, _, record)| record.fingerprint.as_slice()),
                array(rows, |(_, _, record)| record.outcome.as_str()),
                Box::new(crate::clock::now().0),
            ],
            rows: rows.len() as u64,
        });
    }
    // The counters of uses come last: every lane locks them after everything else, in key order.
    let rows = &writes.uses;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.add_uses,
            parameters: vec![
                array(rows, |(tenant, _, _)| tenant.0),
                array(rows, |(_, template, _)| template.0),
                array(rows, |(_, _, change)| *change),
                Box::new(stripe),
            ],
            rows: rows.len() as u64,
        });
    }
    changes
}

/// Tenants, keys and templates: few rows at a time, one statement each.
fn add_definitions<'a>(changes: &mut Vec<Change<'a>>, s: &'a Statements, writes: &'a Writes<'a>) {
    for tenant in &writes.tenant_inserts {
        changes.push(Change {
            statement: &s.insert_tenant,
            parameters: vec![
                Box::new(tenant.id.0),
                Box::new(&tenant.name),
                Box::new(&tenant.currency),
                Box::new(&tenant.time_zone),
                Box::new(i64::from(tenant.refund_grace_days)),
                Box::new(tenant.created_at.0),
            ],
            rows: 1,
        });
    }
    for (key, digest) in &writes.api_key_inserts {
        changes.push(Change {
            statement: &s.insert_api_key,
            parameters: vec![
                Box::new(key.tenant_id.0),
                Box::new(key.id.0),
                Box::new(&key.name),
                Box::new(key.scope.as_str()),
                Box::new(key.member_id.as_ref().map(MemberId::as_str)),
                Box::new(key.expires_at.map(|time| time.0)),
                Box::new(key.revoked_at.map(|time| time.0)),
                Box::new(key.created_at.0),
                Box::new(digest.as_slice()),
            ],
            rows: 1,
        });
    }
    for key in &writes.api_key_updates {
        changes.push(Change {
            statement: &s.revoke_api_key,
            parameters: vec![
                Box::new(key.tenant_id.0),
                Box::new(key.id.0),
                Box::new(key.revoked_at.map(|time| time.0)),
            ],
            rows: 1,
        });
    }
    for (tenant, template) in &writes.template_inserts {
        changes.push(Change {
            statement: &s.insert_template,
            parameters: vec![
                Box::new(tenant.0),
                Box::new(template.id.0),
                Box::new(template.version),
                Box::new(template.enabled),
                Box::new(template.definition.benefit.kind()),
                Box::new(template.definition.distribution.starts_at.map(|time| time.0)),
                Box::new(template.definition.distribution.ends_at.map(|time| time.0)),
                Box::new(template.total_stock),
                Box::new(template.remaining_stock),
                Box::new(template.claimed_count),
                Box::new(template.created_at.0),
                Box::new(template.updated_at.0),
            ],
            rows: 1,
        });
    }
    for (tenant, template) in &writes.template_updates {
        changes.push(Change {
            statement: &s.update_template,
            parameters: vec![
                Box::new(tenant.0),
                Box::new(template.id.0),
                Box::new(template.version),
                Box::new(template.enabled),
                Box::new(template.definition.benefit.kind()),
                Box::new(template.definition.distribution.starts_at.map(|time| time.0)),
                Box::new(template.definition.distribution.ends_at.map(|time| time.0)),
                Box::new(template.total_stock),
                Box::new(template.remaining_stock),
                Box::new(template.claimed_count),
                Box::new(template.updated_at.0),
            ],
            rows: 1,
        });
    }
    for (tenant, template_id) in &writes.template_deletes {
        let parameters: Vec<Box<dyn ToSql + Send + Sync>> = vec![Box::new(tenant.0), Box::new(template_id.0)];
        changes.push(Change { statement: &s.delete_template, parameters, rows: 1 });
    }
    for (tenant, template) in &writes.template_versions {
        changes.push(Change {
            statement: &s.insert_version,
            parameters: vec![
                Box::new(tenant.0),
                Box::new(template.id.0),
                Box::new(template.version),
                Box::new(to_json(&*template.definition)),
                Box::new(template.updated_at.0),
            ],
            rows: 1,
        });
    }
}

fn add_coupons<'a>(changes: &mut Vec<Change<'a>>, s: &'a Statements, writes: &'a Writes<'a>) {
    let rows = &writes.coupon_inserts;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.insert_coupons,
            parameters: vec![
                array(rows, |(tenant, _)| tenant.0),
                array(rows, |(_, coupon)| coupon.id.0),
                array(rows, |(_, coupon)| coupon.template_id.0),
                array(rows, |(_, coupon)| coupon.template_version),
                array(rows, |(_, coupon)| coupon.member_id.as_str()),
                array(rows, |(_, coupon)| coupon.status.as_str()),
                array(rows, |(_, coupon)| coupon.sequence),
                array(rows, |(_, coupon)| coupon.source.as_str()),
                array(rows, |(_, coupon)| coupon.valid_from.0),
                array(rows, |(_, coupon)| coupon.valid_until.0),
                array(rows, |(_, coupon)| order_of(coupon)),
                array(rows, |(_, coupon)| coupon.locked_until.map(|time| time.0)),
                array(rows, |(_, coupon)| coupon.discount_amount),
                array(rows, |(_, coupon)| coupon.claimed_at.0),
                array(rows, |(_, coupon)| coupon.used_at.map(|time| time.0)),
            ],
            rows: rows.len() as u64,
        });
    }
    let rows = &writes.coupon_updates;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.update_coupons,
            parameters: vec![
                array(rows, |(tenant, _)| tenant.0),
                array(rows, |(_, coupon)| coupon.id.0),
                array(rows, |(_, coupon)| coupon.status.as_str()),
                array(rows, |(_, coupon)| coupon.valid_until.0),
                array(rows, |(_, coupon)| order_of(coupon)),
                array(rows, |(_, coupon)| coupon.locked_until.map(|time| time.0)),
                array(rows, |(_, coupon)| coupon.discount_amount),
                array(rows, |(_, coupon)| coupon.used_at.map(|time| time.0)),
            ],
            rows: rows.len() as u64,
        });
    }
}

fn add_accounts<'a>(changes: &mut Vec<Change<'a>>, s: &'a Statements, writes: &'a Writes<'a>) {
    let lists = [(&s.insert_accounts, &writes.account_inserts), (&s.update_accounts, &writes.account_updates)];
    for (statement, rows) in lists {
        if rows.is_empty() {
            continue;
        }
        changes.push(Change {
            statement,
            parameters: vec![
                array(rows, |(tenant, _)| tenant.0),
                array(rows, |(_, account): &(_, &Account)| account.member_id.as_str()),
                array(rows, |(_, account)| account.total_points),
                array(rows, |(_, account)| account.available),
                array(rows, |(_, account)| account.frozen),
                array(rows, |(_, account)| account.used),
                array(rows, |(_, account)| account.expired),
                array(rows, |(_, account)| account.revoked),
                array(rows, |(_, account)| account.debt),
                array(rows, |(_, account)| account.sequence),
                array(rows, |(_, account)| account.created_at.0),
                array(rows, |(_, account)| account.updated_at.0),
            ],
            rows: rows.len() as u64,
        });
    }
    let is_open = |lot: &Lot| lot.remaining > 0 || lot.held > 0;
    let rows = &writes.lot_inserts;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.insert_lots,
            parameters: vec![
                array(rows, |(tenant, _, _)| tenant.0),
                array(rows, |(_, member, _)| member.as_str()),
                array(rows, |(_, _, lot)| lot.id.0),
                array(rows, |(_, _, lot)| lot.points),
                array(rows, |(_, _, lot)| lot.remaining),
                array(rows, |(_, _, lot)| lot.held),
                array(rows, |(_, _, lot)| lot.used),
                array(rows, |(_, _, lot)| lot.expired),
                array(rows, |(_, _, lot)| lot.revoked),
                array(rows, |(_, _, lot)| lot.moved),
                array(rows, |(_, _, lot)| lot.available_from.0),
                array(rows, |(_, _, lot)| lot.expires_at.0),
                array(rows, |(_, _, lot)| lot.transaction_id.0),
                array(rows, |(_, _, lot)| lot.created_at.0),
                array(rows, |(_, _, lot)| is_open(lot)),
            ],
            rows: rows.len() as u64,
        });
    }
    let rows = &writes.lot_updates;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.update_lots,
            parameters: vec![
                array(rows, |(tenant, _, _)| tenant.0),
                array(rows, |(_, _, lot)| lot.id.0),
                array(rows, |(_, _, lot)| lot.remaining),
                array(rows, |(_, _, lot)| lot.held),
                array(rows, |(_, _, lot)| lot.used),
                array(rows, |(_, _, lot)| lot.expired),
                array(rows, |(_, _, lot)| lot.revoked),
                array(rows, |(_, _, lot)| lot.moved),
                array(rows, |(_, _, lot)| is_open(lot)),
            ],
            rows: rows.len() as u64,
        });
    }
    let rows = &writes.transaction_inserts;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.insert_transactions,
            parameters: vec![
                array(rows, |(tenant, _)| tenant.0),
                array(rows, |(_, row)| row.id.0),
                array(rows, |(_, row)| row.member_id.as_str()),
                array(rows, |(_, row)| row.sequence),
                array(rows, |(_, row)| row.kind.as_str()),
                array(rows, |(_, row)| row.points),
                array(rows, |(_, row)| row.balance_before),
                array(rows, |(_, row)| row.balance_after),
                array(rows, |(_, row)| row.frozen_after),
                array(rows, |(_, row)| row.debt_after),
                array(rows, |(_, row)| row.reference.as_deref()),
                array(rows, |(_, row)| row.remark.as_deref()),
                array(rows, |(_, row)| row.hold_id.map(|id| id.0)),
                array(rows, |(_, row)| row.reverses_id.map(|id| id.0)),
                array(rows, |(_, row)| row.lot_id.map(|id| id.0)),
                array(rows, |(_, row)| to_json(&row.allocations)),
                array(rows, |(_, row)| row.expires_at.map(|time| time.0)),
                array(rows, |(_, row)| row.occurred_at.0),
                array(rows, |(_, row)| row.recorded_at.0),
            ],
            rows: rows.len() as u64,
        });
    }
}

fn add_holds<'a>(changes: &mut Vec<Change<'a>>, s: &'a Statements, writes: &'a Writes<'a>) {
    let rows = &writes.hold_inserts;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.insert_holds,
            parameters: vec![
                array(rows, |(tenant, _)| tenant.0),
                array(rows, |(_, hold)| hold.id.0),
                array(rows, |(_, hold)| hold.member_id.as_str()),
                array(rows, |(_, hold)| hold.points),
                array(rows, |(_, hold)| hold.captured),
                array(rows, |(_, hold)| hold.released),
                array(rows, |(_, hold)| hold.status.as_str()),
                array(rows, |(_, hold)| hold.reference.as_deref()),
                array(rows, |(_, hold)| hold.remark.as_deref()),
                array(rows, |(_, hold)| hold.expires_at.0),
                array(rows, |(_, hold)| to_json(&hold.allocations)),
                array(rows, |(_, hold)| hold.created_at.0),
                array(rows, |(_, hold)| hold.closed_at.map(|time| time.0)),
            ],
            rows: rows.len() as u64,
        });
    }
    let rows = &writes.hold_updates;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.update_holds,
            parameters: vec![
                array(rows, |(tenant, _)| tenant.0),
                array(rows, |(_, hold)| hold.id.0),
                array(rows, |(_, hold)| hold.captured),
                array(rows, |(_, hold)| hold.released),
                array(rows, |(_, hold)| hold.status.as_str()),
                array(rows, |(_, hold)| hold.closed_at.map(|time| time.0)),
            ],
            rows: rows.len() as u64,
        });
    }
    let rows = &writes.reversed;
    if !rows.is_empty() {
        changes.push(Change {
            statement: &s.reversals,
            parameters: vec![
                array(rows, |(tenant, ..)| tenant.0),
                array(rows, |(_, id, ..)| id.0),
                array(rows, |(_, _, points, _)| *points),
                array(rows, |(.., reversed)| *reversed),
            ],
            rows: rows.len() as u64,
        });
    }
}

fn order_of(coupon: &Coupon) -> Option<&str> {
    coupon.order_id.as_ref().map(|order| order.as_str())
}
