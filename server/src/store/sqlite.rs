//! SQLite: one writer at a time, many readers, write-ahead log, `synchronous=FULL`.
//!
//! What it guarantees: an acknowledged commit has been synced to the disk. What bounds it: one commit at a time, which
//! batching amortises. Checkpoints run on a connection of their own, off the commit path; the writer's own automatic
//! checkpoint is only a backstop that keeps the log below [`WAL_BACKSTOP_PAGES`].
//!
//! Statements name one row each: there are no round trips to save, and a prepared look-up by its key costs microseconds.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use scrip_domain::coupon::{Coupon, Definition};
use scrip_domain::key::Keys;
use scrip_domain::state::{IdempotencyRecord, LOT_PAGE, Writes};
use scrip_domain::{Answer, Envelope, MemberId, State, TenantId};
use uuid::Uuid;

use super::decode;
use super::migrate::{self, Migration};
use super::traffic::Traffic;
use super::value::{Param, Row};
use super::{Definitions, StoreError, StoreOptions, decide_all};

/// 64 MiB of log at the default page size.
const WAL_BACKSTOP_PAGES: u32 = 16_384;
/// The background checkpoint starts when the log has this many bytes.
const WAL_CHECKPOINT_BYTES: u64 = 4 << 20;
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(200);
/// How long to wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENT_CACHE: usize = 128;
/// Reads are short and run on the calling thread, so more connections than this would only add memory.
const MAX_READERS: usize = 8;

pub struct SqliteStore {
    path: PathBuf,
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
    pub(super) definitions: Definitions,
    pub(super) traffic: Traffic,
}

impl SqliteStore {
    pub(super) fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        if path.is_dir() {
            return Err(StoreError::Unavailable(format!("{} is a folder; name a file", path.display())));
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| StoreError::Unavailable(format!("cannot create {}: {error}", folder.display())))?;
        }
        // Opening for writing first creates the file and turns on the log; readers could do neither.
        open_writer(path).map_err(|error| match error {
            StoreError::Corrupt(_) => {
                StoreError::Unavailable(format!("{} is there but is no SQLite database", path.display()))
            }
            other => other,
        })?;
        let readers = (0..options.read_connections.clamp(1, MAX_READERS))
            .map(|_| open_reader(path).map(Mutex::new))
            .collect::<Result<_, _>>()?;
        Ok(SqliteStore {
            path: path.to_owned(),
            readers,
            next_reader: AtomicUsize::new(0),
            definitions: Definitions::default(),
            traffic: Traffic::new("sqlite"),
        })
    }

    pub(super) fn writer(self: &Arc<Self>) -> Result<SqliteWriter, StoreError> {
        let connection = open_writer(&self.path)?;
        let store = Arc::downgrade(self);
        let path = self.path.clone();
        std::thread::Builder::new()
            .name("scrip-checkpoint".into())
            .spawn(move || checkpoint_while_open(&store, &path))
            .map_err(|error| StoreError::Fault(format!("cannot start the checkpoint thread: {error}")))?;
        Ok(SqliteWriter { store: self.clone(), connection: Some(connection) })
    }

    pub(super) fn migrate(&self) -> Result<Vec<&'static str>, StoreError> {
        let mut connection = open_writer(&self.path)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migrate::CREATE_TABLE)?;
        let applied = transaction
            .prepare(migrate::SELECT_APPLIED)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<Vec<(i64, String)>, _>>()?;
        let pending = migrate::pending(&applied, sql_of)?;
        for migration in &pending {
            transaction.execute_batch(sql_of(migration))?;
            let checksum = migrate::checksum(sql_of(migration));
            transaction
                .execute(&numbered(migrate::INSERT_APPLIED), params![migration.number, migration.name, checksum])?;
        }
        transaction.commit()?;
        Ok(pending.iter().map(|migration| migration.name).collect())
    }

    /// Makes sure of being the only server on the file until the result is dropped, or the process is gone.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let unavailable = |problem: String| StoreError::Unavailable(format!("{}: {problem}", self.path.display()));
        // Not on the file itself: closing it would give up SQLite's own locks.
        let file = File::create(beside(&self.path, ".lock"))
            .map_err(|error| unavailable(format!("its lock file cannot be made: {error}")))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                Err(unavailable("another server works on it; stop that one, or use PostgreSQL for many nodes".into()))
            }
            Err(TryLockError::Error(error)) => Err(unavailable(format!("it cannot be locked: {error}"))),
        }
    }

    /// Runs a query on the calling thread: it answers in microseconds from memory, a thread hop would cost more.
    pub(super) fn query<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        Session { connection: &self.reader(), traffic: &self.traffic }.query(sql, parameters, decode)
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        let first = self.next_reader.fetch_add(1, Ordering::Relaxed);
        let count = self.readers.len();
        (0..count)
            .find_map(|step| self.readers[(first + step) % count].try_lock())
            .unwrap_or_else(|| self.readers[first % count].lock())
    }

    /// Writes one statement outside any batch: definitions that no command touches.
    pub(super) fn execute(&self, sql: &str, parameters: &[Param<'_>]) -> Result<u64, StoreError> {
        let connection = open_writer(&self.path)?;
        self.traffic.writes.inc();
        Ok(connection.execute(&numbered(sql), rusqlite::params_from_iter(parameters.iter()))? as u64)
    }

    /// A connection of its own in a read transaction.
    pub(super) fn snapshot(&self) -> Result<Connection, StoreError> {
        let connection = open_reader(&self.path)?;
        connection.execute_batch("BEGIN")?;
        Ok(connection)
    }

    /// A connection of its own, for long reads.
    pub(super) fn stream<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        query(&open_reader(&self.path)?, sql, parameters, decode)
    }
}

fn sql_of(migration: &Migration) -> &'static str {
    migration.sqlite
}

fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path).map_err(|error| {
        StoreError::Unavailable(format!(
            "cannot open {} for writing; may its folder be written? {error}",
            path.display()
        ))
    })?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_BACKSTOP_PAGES)?;
    configure(&connection)?;
    Ok(connection)
}

fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display())))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    configure(&connection)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.pragma_update(None, "mmap_size", 1_i64 << 30)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Plans must not depend on the values bound: otherwise a statement is prepared anew whenever a value changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok(())
}

/// Moves the log into the database file in passive steps, which never block the writer, until the store is dropped.
fn checkpoint_while_open(store: &Weak<SqliteStore>, path: &Path) {
    let log = beside(path, "-wal");
    let Ok(connection) = open_writer(path) else { return };
    while store.strong_count() > 0 {
        std::thread::sleep(CHECKPOINT_INTERVAL);
        let log_bytes = std::fs::metadata(&log).map_or(0, |meta| meta.len());
        if log_bytes >= WAL_CHECKPOINT_BYTES
            && let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        {
            tracing::debug!(%error, "a background checkpoint did not run");
        }
    }
}

/// The file of the same name with this ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// SQLite numbers `$1` by where it first appears, but `?1` by its number, which is what is meant.
fn numbered(sql: &str) -> String {
    sql.replace('$', "?")
}

/// A connection whose statements are counted.
struct Session<'a> {
    connection: &'a Connection,
    traffic: &'a Traffic,
}

impl Session<'_> {
    fn query<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.traffic.reads.inc();
        query(self.connection, sql, parameters, decode)
    }

    /// Writes one row. Anything else means that the statement has missed the row it was meant for.
    fn write_row(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<(), StoreError> {
        self.traffic.writes.inc();
        match self.connection.prepare_cached(sql)?.execute(parameters)? {
            1 => Ok(()),
            rows => Err(StoreError::corrupt(format!("{rows} rows instead of one were written by: {sql}"))),
        }
    }
}

pub(super) fn query<T>(
    connection: &Connection,
    sql: &str,
    parameters: &[Param<'_>],
    decode: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(&numbered(sql))?;
    let mut rows = statement.query(rusqlite::params_from_iter(parameters.iter()))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(decode(&Row::Sqlite(row))?);
    }
    Ok(found)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        let rusqlite::Error::SqliteFailure(failure, _) = &error else { return StoreError::Fault(text) };
        match failure.code {
            ErrorCode::DiskFull => StoreError::DiskFull(text),
            ErrorCode::ConstraintViolation => StoreError::Constraint(text),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Conflict(text),
            ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure => StoreError::Unavailable(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(text),
            _ => StoreError::Fault(text),
        }
    }
}

/// The connection that writes.
pub struct SqliteWriter {
    store: Arc<SqliteStore>,
    /// Dropped after a failed sync: what the file holds then is known only after opening it anew.
    connection: Option<Connection>,
}

impl SqliteWriter {
    pub(super) fn run(&mut self, batch: &[Envelope]) -> Result<Vec<Answer>, StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(open_writer(&self.store.path)?),
        };
        let result = run(connection, &self.store, batch);
        if matches!(result, Err(StoreError::Unavailable(_) | StoreError::Corrupt(_))) {
            self.connection = None;
        }
        result
    }
}

fn run(connection: &mut Connection, store: &SqliteStore, batch: &[Envelope]) -> Result<Vec<Answer>, StoreError> {
    let keys = Keys::of(batch);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let session = Session { connection: &transaction, traffic: &store.traffic };
    let mut state = load(&session, &keys, &store.definitions)?;
    let mut answers = Vec::with_capacity(batch.len());
    while let Err(needed) = decide_all(&mut state, batch, &mut answers) {
        load_lots(&session, &mut state, batch[answers.len()].tenant, &needed.0, i64::MAX)?;
    }
    if state.is_unchanged() {
        return Ok(answers);
    }
    store.traffic.writes.inc();
    let tx = transaction
        .prepare_cached("UPDATE commit_sequence SET tx = tx + 1 WHERE id = 1 RETURNING tx")?
        .query_row([], |row| row.get(0))?;
    write(&session, &state.writes(), tx)?;
    transaction.commit()?;
    Ok(answers)
}

/// The texts by which a batch finds its rows.
struct LookUps {
    tenant: String,
    api_key: String,
    template: String,
    template_uses: String,
    definition: String,
    claimed: String,
    coupon: String,
    account: String,
    open_lots: String,
    due_holds: String,
    hold: String,
    original: String,
    lot: String,
    idempotency: String,
}

static LOOK_UPS: LazyLock<LookUps> = LazyLock::new(|| {
    let by_id = |columns: &str, table: &str| format!("SELECT {columns} FROM {table} WHERE tenant_id = ?1 AND id = ?2");
    let by_member =
        |columns: &str, table: &str| format!("SELECT {columns} FROM {table} WHERE tenant_id = ?1 AND member_id = ?2");
    let reversed = "(SELECT r.reversed FROM mkt_points_reversal r \
                    WHERE r.tenant_id = t.tenant_id AND r.transaction_id = t.id)";
    LookUps {
        tenant: format!("SELECT {} FROM tenant WHERE tenant_id = ?1", decode::TENANT),
        api_key: by_id(&format!("{}, secret_digest", decode::API_KEY), "api_key"),
        template: by_id(decode::TEMPLATE, "mkt_coupon_template t"),
        template_uses: "SELECT coalesce(sum(used_count), 0) FROM mkt_coupon_template_use \
                        WHERE tenant_id = ?1 AND template_id = ?2"
            .to_owned(),
        definition: "SELECT definition FROM mkt_coupon_template_version \
                     WHERE tenant_id = ?1 AND template_id = ?2 AND version = ?3"
            .to_owned(),
        claimed: "SELECT sequence FROM mkt_user_coupon WHERE tenant_id = ?1 AND template_id = ?2 AND member_id = ?3 \
                  ORDER BY sequence DESC LIMIT 1"
            .to_owned(),
        coupon: by_id(decode::COUPON, "mkt_user_coupon"),
        account: by_member(decode::ACCOUNT, "mkt_points_account"),
        open_lots: by_member(decode::LOT, "mkt_points_lot") + " AND open ORDER BY expires_at, created_at, id LIMIT ?3",
        due_holds: by_member(decode::HOLD, "mkt_points_hold") + " AND status = 'OPEN' AND expires_at <= ?3",
        hold: by_id(decode::HOLD, "mkt_points_hold"),
        original: by_id(&format!("{}, {reversed}", decode::TRANSACTION), "mkt_points_transaction t"),
        lot: by_id(decode::LOT, "mkt_points_lot"),
        idempotency: "SELECT fingerprint, outcome FROM idempotency WHERE tenant_id = ?1 AND key = ?2".to_owned(),
    }
});

/// How a batch finds its rows, by name: for the test of the plans.
pub fn batch_look_ups() -> [(&'static str, &'static str); 14] {
    let texts = &*LOOK_UPS;
    [
        ("tenant", &texts.tenant),
        ("api_key", &texts.api_key),
        ("template", &texts.template),
        ("template_uses", &texts.template_uses),
        ("definition", &texts.definition),
        ("claimed", &texts.claimed),
        ("coupon", &texts.coupon),
        ("account", &texts.account),
        ("open_lots", &texts.open_lots),
        ("due_holds", &texts.due_holds),
        ("hold", &texts.hold),
        ("original", &texts.original),
        ("lot", &texts.lot),
        ("idempotency", &texts.idempotency),
    ]
}

fn load(session: &Session<'_>, keys: &Keys, known: &Definitions) -> Result<State, StoreError> {
    let texts = &*LOOK_UPS;
    let mut state = State::empty(keys);
    for tenant in &keys.tenants {
        for row in session.query(&texts.tenant, &[(*tenant).into()], decode::tenant)? {
            state.load_tenant(row);
        }
    }
    for (tenant, id) in &keys.api_keys {
        let decode = |row: &Row| Ok((decode::api_key(row)?, row.bytes(8)?));
        for (key, digest) in session.query(&texts.api_key, &[(*tenant).into(), id.0.into()], decode)? {
            state.load_api_key(key, digest);
        }
    }
    for (tenant, id) in keys.templates.iter().chain(&keys.template_reads) {
        let wants_uses = keys.template_uses.contains(&(*tenant, *id));
        let used = if wants_uses { used_count(session, *tenant, id.0)? } else { 0 };
        let decode = |row: &Row| {
            let version = row.int(2)?;
            let definition = match known.get(*tenant, *id, version) {
                Some(definition) => definition,
                None => {
                    let definition = Arc::new(definition(session, *tenant, id.0, version)?);
                    known.insert(*tenant, *id, version, definition.clone());
                    definition
                }
            };
            decode::template(row, definition, used)
        };
        for template in session.query(&texts.template, &[(*tenant).into(), id.0.into()], decode)? {
            state.load_template(*tenant, template);
        }
    }
    for (tenant, template, member) in &keys.claimants {
        let parameters = [(*tenant).into(), template.0.into(), member.into()];
        for count in session.query(&texts.claimed, &parameters, |row| row.int(0))? {
            state.load_claimed(*tenant, *template, member.clone(), count);
        }
    }
    for (tenant, id) in &keys.coupons {
        for coupon in session.query(&texts.coupon, &[(*tenant).into(), id.0.into()], decode::coupon)? {
            state.load_coupon(*tenant, coupon);
        }
    }
    for (tenant, member) in &keys.accounts {
        for account in session.query(&texts.account, &[(*tenant).into(), member.into()], decode::account)? {
            state.load_account(*tenant, account);
            load_lots(session, &mut state, *tenant, member, LOT_PAGE)?;
            let latest = keys.latest.map_or(0, |time| time.0);
            let parameters = [(*tenant).into(), member.into(), latest.into()];
            for hold in session.query(&texts.due_holds, &parameters, decode::hold)? {
                state.load_hold(*tenant, hold);
            }
        }
    }
    for (tenant, id) in &keys.holds {
        for hold in session.query(&texts.hold, &[(*tenant).into(), id.0.into()], decode::hold)? {
            state.load_hold(*tenant, hold);
        }
    }
    for (tenant, id) in &keys.originals {
        let decode =
            |row: &Row| Ok((decode::transaction(row)?, row.opt_int(decode::TRANSACTION_COLUMNS)?.unwrap_or(0)));
        for (original, reversed) in session.query(&texts.original, &[(*tenant).into(), id.0.into()], decode)? {
            state.load_original(*tenant, original, reversed);
        }
    }
    for (tenant, member, id) in state.missing_lots() {
        for lot in session.query(&texts.lot, &[tenant.into(), id.0.into()], decode::lot)? {
            state.load_lot(tenant, &member, lot);
        }
    }
    for (tenant, key) in &keys.idempotency {
        let decode = |row: &Row| Ok(IdempotencyRecord { fingerprint: row.bytes(0)?, outcome: row.text(1)? });
        for record in session.query(&texts.idempotency, &[(*tenant).into(), Param::Bytes(key)], decode)? {
            state.load_idempotency(*tenant, *key, record);
        }
    }
    Ok(state)
}

fn definition(session: &Session<'_>, tenant: TenantId, id: Uuid, version: i64) -> Result<Definition, StoreError> {
    let parameters = [tenant.into(), id.into(), version.into()];
    let found = session.query(&LOOK_UPS.definition, &parameters, |row| row.json(0))?;
    found.into_iter().next().ok_or_else(|| StoreError::corrupt("a template lacks the definition of its version"))
}

fn used_count(session: &Session<'_>, tenant: TenantId, id: Uuid) -> Result<i64, StoreError> {
    let found = session.query(&LOOK_UPS.template_uses, &[tenant.into(), id.into()], |row| row.int(0))?;
    Ok(found.into_iter().next().unwrap_or(0))
}

fn load_lots(
    session: &Session<'_>,
    state: &mut State,
    tenant: TenantId,
    member: &MemberId,
    limit: i64,
) -> Result<(), StoreError> {
    let parameters = [tenant.into(), member.into(), limit.into()];
    let lots = session.query(&LOOK_UPS.open_lots, &parameters, decode::lot)?;
    let complete = (lots.len() as i64) < limit;
    for lot in lots {
        state.load_lot(tenant, member, lot);
    }
    state.set_lots_complete(tenant, member, complete);
    Ok(())
}

fn write(session: &Session<'_>, writes: &Writes<'_>, tx: i64) -> Result<(), StoreError> {
    for tenant in &writes.tenant_inserts {
        let sql = ["INSERT INTO tenant (", decode::TENANT, ") VALUES (?1, ?2, ?3, ?4, ?5, ?6)"].concat();
        session.write_row(
            &sql,
            params![
                id(tenant.id.0),
                tenant.name,
                tenant.currency,
                tenant.time_zone,
                i64::from(tenant.refund_grace_days),
                tenant.created_at.0
            ],
        )?;
    }
    for (key, digest) in &writes.api_key_inserts {
        let columns = decode::API_KEY;
        let sql = format!("INSERT INTO api_key ({columns}, secret_digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
        session.write_row(
            &sql,
            params![
                id(key.tenant_id.0),
                id(key.id.0),
                key.name,
                key.scope.as_str(),
                key.member_id.as_ref().map(MemberId::as_str),
                key.expires_at.map(|time| time.0),
                key.revoked_at.map(|time| time.0),
                key.created_at.0,
                digest
            ],
        )?;
    }
    for key in &writes.api_key_updates {
        let sql = "UPDATE api_key SET revoked_at = ?3 WHERE tenant_id = ?1 AND id = ?2";
        let revoked_at = key.revoked_at.map(|time| time.0);
        session.write_row(sql, params![id(key.tenant_id.0), id(key.id.0), revoked_at])?;
    }
    write_templates(session, writes)?;
    write_coupons(session, writes)?;
    write_accounts(session, writes)?;
    for (ordinal, (tenant, event)) in writes.event_inserts.iter().enumerate() {
        let columns = decode::EVENT;
        let sql =
            format!("INSERT INTO event (tenant_id, {columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)");
        session.write_row(
            &sql,
            params![
                id(tenant.0),
                tx,
                ordinal as i64,
                id(event.id.0),
                event.kind.as_str(),
                id(event.subject),
                event.member_id.as_ref().map(MemberId::as_str),
                event.data,
                event.actor.map(|actor| id(actor.0)),
                event.occurred_at.0,
                event.recorded_at.0
            ],
        )?;
    }
    let created_at = crate::clock::now().0;
    for (tenant, key, record) in &writes.idempotency_inserts {
        let sql = "INSERT INTO idempotency (tenant_id, key, fingerprint, outcome, created_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        session.write_row(sql, params![id(tenant.0), key, record.fingerprint, record.outcome, created_at])?;
    }
    Ok(())
}

fn write_templates(session: &Session<'_>, writes: &Writes<'_>) -> Result<(), StoreError> {
    for (tenant, template) in &writes.template_inserts {
        let sql = "INSERT INTO mkt_coupon_template (tenant_id, id, version, enabled, type, distribution_starts_at, \
                   distribution_ends_at, total_stock, remaining_stock, claimed_count, created_at, updated_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        session.write_row(
            sql,
            params![
                id(tenant.0),
                id(template.id.0),
                template.version,
                template.enabled,
                template.definition.benefit.kind(),
                template.definition.distribution.starts_at.map(|time| time.0),
                template.definition.distribution.ends_at.map(|time| time.0),
                template.total_stock,
                template.remaining_stock,
                template.claimed_count,
                template.created_at.0,
                template.updated_at.0
            ],
        )?;
    }
    for (tenant, template) in &writes.template_updates {
        let sql = "UPDATE mkt_coupon_template SET version = ?3, enabled = ?4, type = ?5, distribution_starts_at = ?6, \
                   distribution_ends_at = ?7, total_stock = ?8, remaining_stock = ?9, claimed_count = ?10, \
                   updated_at = ?11 WHERE tenant_id = ?1 AND id = ?2";
        session.write_row(
            sql,
            params![
                id(tenant.0),
                id(template.id.0),
                template.version,
                template.enabled,
                template.definition.benefit.kind(),
                template.definition.distribution.starts_at.map(|time| time.0),
                template.definition.distribution.ends_at.map(|time| time.0),
                template.total_stock,
                template.remaining_stock,
                template.claimed_count,
                template.updated_at.0
            ],
        )?;
    }
    for (tenant, template_id) in &writes.template_deletes {
        let sql = "DELETE FROM mkt_coupon_template WHERE tenant_id = ?1 AND id = ?2";
        session.write_row(sql, params![id(tenant.0), id(template_id.0)])?;
    }
    for (tenant, template) in &writes.template_versions {
        let sql = "INSERT INTO mkt_coupon_template_version (tenant_id, template_id, version, definition, created_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        session.write_row(
            sql,
            params![
                id(tenant.0),
                id(template.id.0),
                template.version,
                to_json(&*template.definition),
                template.updated_at.0
            ],
        )?;
    }
    for (tenant, template_id, change) in &writes.uses {
        let sql = "INSERT INTO mkt_coupon_template_use (tenant_id, template_id, stripe, used_count) \
                   VALUES (?1, ?2, 0, ?3) ON CONFLICT (tenant_id, template_id, stripe) \
                   DO UPDATE SET used_count = used_count + excluded.used_count";
        session.write_row(sql, params![id(tenant.0), id(template_id.0), change])?;
    }
    Ok(())
}

fn write_coupons(session: &Session<'_>, writes: &Writes<'_>) -> Result<(), StoreError> {
    let columns = decode::COUPON;
    let insert = format!(
        "INSERT INTO mkt_user_coupon ({columns}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    );
    for (tenant, coupon) in &writes.coupon_inserts {
        session.write_row(
            &insert,
            params![
                id(tenant.0),
                id(coupon.id.0),
                id(coupon.template_id.0),
                coupon.template_version,
                coupon.member_id.as_str(),
                coupon.status.as_str(),
                coupon.sequence,
                coupon.source.as_str(),
                coupon.valid_from.0,
                coupon.valid_until.0,
                order_of(coupon),
                coupon.locked_until.map(|time| time.0),
                coupon.discount_amount,
                coupon.claimed_at.0,
                coupon.used_at.map(|time| time.0)
            ],
        )?;
    }
    for (tenant, coupon) in &writes.coupon_updates {
        let sql = "UPDATE mkt_user_coupon SET status = ?3, valid_until = ?4, order_id = ?5, locked_until = ?6, \
                   discount_amount = ?7, used_at = ?8 WHERE tenant_id = ?1 AND id = ?2";
        session.write_row(
            sql,
            params![
                id(tenant.0),
                id(coupon.id.0),
                coupon.status.as_str(),
                coupon.valid_until.0,
                order_of(coupon),
                coupon.locked_until.map(|time| time.0),
                coupon.discount_amount,
                coupon.used_at.map(|time| time.0)
            ],
        )?;
    }
    Ok(())
}

fn write_accounts(session: &Session<'_>, writes: &Writes<'_>) -> Result<(), StoreError> {
    let columns = decode::ACCOUNT;
    let insert = format!(
        "INSERT INTO mkt_points_account ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
    );
    let update = "UPDATE mkt_points_account SET total_points = ?3, available = ?4, frozen = ?5, used = ?6, \
                  expired = ?7, revoked = ?8, debt = ?9, sequence = ?10, created_at = ?11, updated_at = ?12 \
                  WHERE tenant_id = ?1 AND member_id = ?2";
    for (sql, rows) in [(insert.as_str(), &writes.account_inserts), (update, &writes.account_updates)] {
        for (tenant, account) in rows {
            session.write_row(
                sql,
                params![
                    id(tenant.0),
                    account.member_id.as_str(),
                    account.total_points,
                    account.available,
                    account.frozen,
                    account.used,
                    account.expired,
                    account.revoked,
                    account.debt,
                    account.sequence,
                    account.created_at.0,
                    account.updated_at.0
                ],
            )?;
        }
    }
    let columns = decode::LOT;
    let insert = format!(
        "INSERT INTO mkt_points_lot ({columns}, open) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    );
    for (tenant, member, lot) in &writes.lot_inserts {
        session.write_row(
            &insert,
            params![
                id(tenant.0),
                member.as_str(),
                id(lot.id.0),
                lot.points,
                lot.remaining,
                lot.held,
                lot.used,
                lot.expired,
                lot.revoked,
                lot.moved,
                lot.available_from.0,
                lot.expires_at.0,
                id(lot.transaction_id.0),
                lot.created_at.0,
                lot.remaining > 0 || lot.held > 0
            ],
        )?;
    }
    for (tenant, _, lot) in &writes.lot_updates {
        let sql = "UPDATE mkt_points_lot SET remaining = ?3, held = ?4, used = ?5, expired = ?6, revoked = ?7, \
                   moved = ?8, open = ?9 WHERE tenant_id = ?1 AND id = ?2";
        session.write_row(
            sql,
            params![
                id(tenant.0),
                id(lot.id.0),
                lot.remaining,
                lot.held,
                lot.used,
                lot.expired,
                lot.revoked,
                lot.moved,
                lot.remaining > 0 || lot.held > 0
            ],
        )?;
    }
    let columns = decode::TRANSACTION;
    let insert = format!(
        "INSERT INTO mkt_points_transaction ({columns}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)"
    );
    for (tenant, row) in &writes.transaction_inserts {
        session.write_row(
            &insert,
            params![
                id(tenant.0),
                id(row.id.0),
                row.member_id.as_str(),
                row.sequence,
                row.kind.as_str(),
                row.points,
                row.balance_before,
                row.balance_after,
                row.frozen_after,
                row.debt_after,
                row.reference,
                row.remark,
                row.hold_id.map(|hold| id(hold.0)),
                row.reverses_id.map(|reversed| id(reversed.0)),
                row.lot_id.map(|lot| id(lot.0)),
                to_json(&row.allocations),
                row.expires_at.map(|time| time.0),
                row.occurred_at.0,
                row.recorded_at.0
            ],
        )?;
    }
    write_holds(session, writes)
}

fn write_holds(session: &Session<'_>, writes: &Writes<'_>) -> Result<(), StoreError> {
    let columns = decode::HOLD;
    let insert = format!(
        "INSERT INTO mkt_points_hold ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    );
    for (tenant, hold) in &writes.hold_inserts {
        session.write_row(
            &insert,
            params![
                id(tenant.0),
                id(hold.id.0),
                hold.member_id.as_str(),
                hold.points,
                hold.captured,
                hold.released,
                hold.status.as_str(),
                hold.reference,
                hold.remark,
                hold.expires_at.0,
                to_json(&hold.allocations),
                hold.created_at.0,
                hold.closed_at.map(|time| time.0)
            ],
        )?;
    }
    for (tenant, hold) in &writes.hold_updates {
        let sql = "UPDATE mkt_points_hold SET captured = ?3, released = ?4, status = ?5, closed_at = ?6 \
                   WHERE tenant_id = ?1 AND id = ?2";
        session.write_row(
            sql,
            params![
                id(tenant.0),
                id(hold.id.0),
                hold.captured,
                hold.released,
                hold.status.as_str(),
                hold.closed_at.map(|time| time.0)
            ],
        )?;
    }
    for (tenant, transaction_id, points, reversed) in &writes.reversed {
        let sql = "INSERT INTO mkt_points_reversal (tenant_id, transaction_id, points, reversed) \
                   VALUES (?1, ?2, ?3, ?4) ON CONFLICT (tenant_id, transaction_id) \
                   DO UPDATE SET reversed = excluded.reversed";
        session.write_row(sql, params![id(tenant.0), id(transaction_id.0), points, reversed])?;
    }
    Ok(())
}

fn id(id: Uuid) -> [u8; 16] {
    id.into_bytes()
}

fn order_of(coupon: &Coupon) -> Option<&str> {
    coupon.order_id.as_ref().map(|order| order.as_str())
}

pub(super) fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data has a JSON form")
}
