//! SQLite: one writer at a time, many readers, write-ahead log, `synchronous=FULL`.
//!
//! What it guarantees: an acknowledged commit has been synced to the disk. What bounds it: one commit at a time, which
//! batching amortises.
//!
//! **The log** moves into the database file beside the commits, on a thread of its own, in passes. While batches go on, a pass never
//! comes to the log's end, and only a log that has moved as a whole begins anew. So the writer moves the last pages, between two
//! batches, as soon as a pass has left few of them. SQLite syncs the database file only then, so the next batch would wait for all
//! that had gathered: the thread syncs the file as well, after each pass.
//!
//! Statements name one row each: there are no round trips to save, and a prepared look-up by its key costs microseconds.

use std::fs::{File, TryLockError};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement, TransactionBehavior, params};
use scrip_domain::coupon::Definition;
use scrip_domain::decide::Need;
use scrip_domain::key::Keys;
use scrip_domain::state::{IdempotencyRecord, LOT_PAGE, Prerequisite};
use scrip_domain::{Answer, Envelope, LotId, MemberId, State, TemplateId, TenantId};
use uuid::Uuid;

use super::migrate::{self, Migration};
use super::table::{Change, Placement, Table, Type, Verb, changes};
use super::traffic::{Traffic, name_of};
use super::value::{Param, Row};
use super::{Definitions, JobsReady, StoreError, StoreOptions, Synced, decide_all, decode, local_periods};
use crate::calendar::day_end;

/// Where the writer moves the rest of the log, however much it is: 128 MiB at the default page size.
const LOG_PAGES: u32 = 32_768;
/// A log with so many pages begins anew once the writer can do that quickly: 64 MiB. Sooner, pages that change often would move
/// more often: a tenth of the claims a second at 16 MiB.
const FULL_LOG_PAGES: i64 = 16_384;
/// What a pass may have moved when the writer is to move what has come meanwhile: about as much, a millisecond's work.
const LAST_PAGES: i64 = 500;
/// Passes begin when the log's file has this many bytes.
const CHECKPOINT_BYTES: u64 = 4 << 20;
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(200);
/// Passes one after the other, each over what has come during the one before.
const PASSES: usize = 4;
/// How long to wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// More than there are statements that recur.
const STATEMENT_CACHE: usize = 256;
/// Reads are short and run on the calling thread, so more connections than this would only add memory.
const MAX_READERS: usize = 8;

pub struct SqliteStore {
    path: PathBuf,
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
    pub(super) definitions: Definitions,
    pub(super) traffic: Traffic,
    pub(super) jobs_ready: JobsReady,
    /// Whoever writes takes turns here. One connection for all: a second one's commit would empty the first one's cache of pages,
    /// and whoever finds the file locked sleeps by the millisecond. It comes back from work that ended well only: what the file holds
    /// after a failed sync is known only after opening it anew.
    writer: Mutex<Option<Connection>>,
    /// Whether the log is full and few of its pages have not moved yet.
    log_may_end: AtomicBool,
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
        let writer = open_writer(path).map_err(|error| match error {
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
            traffic: Traffic::new("sqlite", options.slow_statement),
            jobs_ready: JobsReady::default(),
            writer: Mutex::new(Some(writer)),
            log_may_end: AtomicBool::new(false),
        })
    }

    /// The same store, whose log from now on moves beside its batches.
    pub(super) fn writer(self: &Arc<Self>) -> Result<Arc<Self>, StoreError> {
        let store = Arc::downgrade(self);
        let path = self.path.clone();
        std::thread::Builder::new()
            .name("scrip-checkpoint".into())
            .spawn(move || checkpoint_while_open(&store, &path))
            .map_err(|error| StoreError::Fault(format!("cannot start the checkpoint thread: {error}")))?;
        Ok(self.clone())
    }

    pub(super) fn migrate(&self) -> Result<Vec<&'static str>, StoreError> {
        self.write(|connection| {
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
                transaction.execute(migrate::INSERT_APPLIED, params![migration.number, migration.name, checksum])?;
            }
            transaction.commit()?;
            Ok(pending.iter().map(|migration| migration.name).collect())
        })
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

    /// Moves the whole log into the database file.
    pub(super) fn empty_log(&self) -> Result<(), StoreError> {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        match self.write(|connection| Ok(connection.query_row(sql, [], |row| row.get::<_, bool>(0))?))? {
            false => Ok(()),
            true => Err(StoreError::Conflict("somebody reads from the log".into())),
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

    /// Readers that work now, that do not, and callers that wait for one, which is not known.
    pub(super) fn readers_in_use(&self) -> (usize, usize, usize) {
        let in_use = self.readers.iter().filter(|reader| reader.is_locked()).count();
        (in_use, self.readers.len() - in_use, 0)
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        let first = self.next_reader.fetch_add(1, Ordering::Relaxed);
        let count = self.readers.len();
        (0..count).find_map(|step| self.readers[(first + step) % count].try_lock()).unwrap_or_else(|| {
            let begun = Instant::now();
            let reader = self.readers[first % count].lock();
            self.traffic.acquire_seconds.observe(begun.elapsed().as_secs_f64());
            reader
        })
    }

    /// Works on the connection that writes.
    fn write<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut place = self.writer.lock();
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => open_writer(&self.path)?,
        };
        let result = work(&mut connection);
        if !matches!(result, Err(StoreError::Unavailable(_) | StoreError::Corrupt(_))) {
            *place = Some(connection);
        }
        result
    }

    pub(super) fn run(&self, batch: &[Envelope]) -> Result<Vec<Answer>, StoreError> {
        self.write(|connection| run(connection, self, batch))
    }

    /// Moves the log's last pages if few are left, so that it begins anew.
    pub(super) fn end_log(&self) {
        if !self.log_may_end.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.write(|connection| Ok(move_log(connection)?)) {
            // The log goes on, to its bound at most.
            tracing::debug!(%error, "the log did not begin anew");
        }
    }

    /// Writes one statement outside any batch: what no command touches.
    pub(super) fn execute(&self, sql: &str, parameters: &[Param<'_>]) -> Result<u64, StoreError> {
        self.traffic.writes.inc();
        self.write(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            bind(&mut statement, parameters)?;
            Ok(statement.raw_execute()? as u64)
        })
    }

    /// The same for a statement that returns the rows it has written.
    pub(super) fn execute_returning<T>(
        &self,
        sql: &str,
        parameters: &[Param<'_>],
        decode: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.traffic.writes.inc();
        self.write(|connection| query(connection, sql, parameters, decode))
    }

    /// Writes the changes in one transaction if `guard` writes a row, and nothing otherwise; whether it did.
    pub(super) fn write_after(
        &self,
        guard: &str,
        parameters: &[Param<'_>],
        changes: &[Change<'_>],
        synced: Synced,
    ) -> Result<bool, StoreError> {
        self.write(|connection| {
            if synced == Synced::Later {
                connection.pragma_update(None, "synchronous", "NORMAL")?;
            }
            let written = write_after(connection, &self.traffic, guard, parameters, changes);
            connection.pragma_update(None, "synchronous", "FULL")?;
            written
        })
    }

    /// Connections in read transactions of the same state: nobody writes while they begin. What their statements sort or
    /// keep may outgrow memory, so it goes to files beyond the cache.
    pub(super) fn snapshots(&self, count: usize) -> Result<Vec<Connection>, StoreError> {
        self.write(|writer| {
            // Other processes may write as well.
            let nobody_writes = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut connections = Vec::with_capacity(count);
            for _ in 0..count {
                let connection = open_reader(&self.path)?;
                connection.pragma_update(None, "temp_store", "FILE")?;
                // A read transaction begins with its first read.
                connection.execute_batch("BEGIN; SELECT 1 FROM sqlite_master LIMIT 1")?;
                connections.push(connection);
            }
            nobody_writes.rollback()?;
            Ok(connections)
        })
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

fn write_after(
    connection: &mut Connection,
    traffic: &Traffic,
    guard: &str,
    parameters: &[Param<'_>],
    changes: &[Change<'_>],
) -> Result<bool, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut guard = transaction.prepare_cached(guard)?;
    bind(&mut guard, parameters)?;
    if guard.raw_execute()? == 0 {
        return Ok(false);
    }
    drop(guard);
    let session = Session { connection: &transaction, traffic };
    for change in changes {
        session.write(change)?;
    }
    transaction.commit()?;
    Ok(true)
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
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
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

/// How far a log has moved into the database file, in pages.
struct Moved {
    log: i64,
    moved: i64,
}

/// Moves what can move without anybody waiting.
fn move_log(connection: &Connection) -> rusqlite::Result<Moved> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok(Moved { log: row.get(1)?, moved: row.get(2)? }))
}

/// Moves the log into the database file in passes, which never block the writer, until the store is dropped.
fn checkpoint_while_open(store: &Weak<SqliteStore>, path: &Path) {
    let log = beside(path, "-wal");
    let Ok(connection) = open_writer(path) else { return };
    // Never closed: to close any descriptor of the file would give up SQLite's own locks, which are the process's.
    let mut file: Option<ManuallyDrop<File>> = None;
    let mut moved_before = 0;
    while store.strong_count() > 0 {
        std::thread::sleep(CHECKPOINT_INTERVAL);
        if std::fs::metadata(&log).map_or(0, |meta| meta.len()) < CHECKPOINT_BYTES {
            continue;
        }
        for _ in 0..PASSES {
            let Moved { log, moved } = match move_log(&connection) {
                Ok(moved) => moved,
                Err(error) => {
                    tracing::debug!(%error, "a background checkpoint did not run");
                    break;
                }
            };
            // A server that has nothing to do leaves the disk alone.
            if moved == moved_before {
                break;
            }
            let in_this_pass = if moved > moved_before { moved - moved_before } else { moved };
            moved_before = moved;
            if file.is_none() {
                file = File::open(path).ok().map(ManuallyDrop::new);
            }
            if let Some(Err(error)) = file.as_ref().map(|file| file.sync_data()) {
                // It costs the writer time, and nothing else: SQLite syncs by itself what it must.
                tracing::debug!(%error, "the database file was not synced");
            }
            if log < FULL_LOG_PAGES {
                break;
            }
            if in_this_pass <= LAST_PAGES {
                if let Some(store) = store.upgrade() {
                    store.log_may_end.store(true, Ordering::Relaxed);
                }
                break;
            }
        }
    }
}

/// The file of the same name with this ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// SQLite takes `$1` for a name and numbers it by where it first appears; what is meant is the first of the parameters.
fn bind(statement: &mut Statement<'_>, parameters: &[Param<'_>]) -> Result<(), StoreError> {
    for index in 1..=statement.parameter_count() {
        let number = statement.parameter_name(index).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
        let parameter = number.and_then(|number| parameters.get(number.checked_sub(1)?));
        let parameter =
            parameter.ok_or_else(|| StoreError::Fault(format!("parameter {index} of a statement has no value")))?;
        statement.raw_bind_parameter(index, parameter)?;
    }
    Ok(())
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
        let begun = Instant::now();
        let rows = query(self.connection, sql, parameters, decode)?;
        self.traffic.watch(begun, rows.len(), || name_of(sql));
        Ok(rows)
    }

    /// Writes the rows one by one: SQLite has no round trips to save.
    fn write(&self, change: &Change<'_>) -> Result<(), StoreError> {
        let sql = sql(change.table, change.verb);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let begun = Instant::now();
        for row in &change.rows {
            self.traffic.writes.inc();
            let rows = statement.execute(rusqlite::params_from_iter(row))?;
            // Anything else means that the statement has missed the row it was meant for.
            if rows != 1 {
                return Err(StoreError::corrupt(format!("{rows} rows instead of one were written by: {sql}")));
            }
        }
        self.traffic.watch(begun, change.rows.len(), || format!("{:?} {}", change.verb, change.table.name));
        Ok(())
    }
}

pub(super) fn query<T>(
    connection: &Connection,
    sql: &str,
    parameters: &[Param<'_>],
    decode: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    bind(&mut statement, parameters)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(decode(&Row::Sqlite(row))?);
    }
    Ok(found)
}

/// Hands every row of a statement to `visit`, one at a time.
pub(super) fn scan(
    connection: &Connection,
    sql: &str,
    mut visit: impl FnMut(&Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(&Row::Sqlite(row))?;
    }
    Ok(())
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

fn run(connection: &mut Connection, store: &SqliteStore, batch: &[Envelope]) -> Result<Vec<Answer>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let session = Session { connection: &transaction, traffic: &store.traffic };
    let mut keys = Keys::of(batch);
    let mut state = load(&session, batch, &mut keys, &store.definitions)?;
    let mut answers = Vec::with_capacity(batch.len());
    while let Err(need) = decide_all(&mut state, batch, &mut answers) {
        let tenant = batch[answers.len()].tenant;
        match need {
            Need::Lots(member) => load_lots(&session, &mut state, tenant, &member, i64::MAX)?,
            Need::Periods(at) => {
                let found = session.query(&LOOK_UPS.tenant, &[tenant.into()], decode::tenant)?;
                state.load_periods(tenant, local_periods(found.first(), at)?);
            }
            Need::DayEnd { at, days } => {
                let zone = match store.definitions.zone(tenant) {
                    Some(zone) => zone,
                    None => {
                        let found = session.query(&LOOK_UPS.tenant, &[tenant.into()], decode::tenant)?;
                        store.definitions.learn_zone(tenant, found.first())?
                    }
                };
                state.load_day_end(tenant, days, day_end(&zone, at, days));
            }
            Need::Tasks(asked) => {
                let mut found = Vec::new();
                for key in &asked {
                    found.extend(session.query(&LOOK_UPS.task, &[tenant.into(), key.as_str().into()], decode::task)?);
                }
                state.load_tasks(tenant, asked, found);
            }
            Need::Prerequisites => {
                for key in state.missing_prerequisites(&keys) {
                    let (tenant, member, task) = &key;
                    let parameters = [(*tenant).into(), member.into(), task.as_str().into()];
                    let decode = |row: &Row| Ok(Prerequisite { completions: row.int(0)?, exists: row.bool(1)? });
                    for found in session.query(&LOOK_UPS.prerequisite, &parameters, decode)? {
                        state.load_prerequisite(key.clone(), found);
                    }
                }
            }
        }
    }
    if state.is_unchanged() {
        return Ok(answers);
    }
    store.traffic.writes.inc();
    let tx = transaction
        .prepare_cached("UPDATE commit_sequence SET tx = tx + 1 WHERE id = 1 RETURNING tx")?
        .query_row([], |row| row.get(0))?;
    let placement = Placement { tx, first_ordinal: 0, stripe: 0, now: crate::clock::now() };
    for change in changes(&state.writes(), placement) {
        session.write(&change)?;
    }
    transaction.commit()?;
    if state.enqueues() {
        store.jobs_ready.notify();
    }
    Ok(answers)
}

/// The texts by which a batch finds its rows.
struct LookUps {
    tenant: String,
    programs: String,
    api_key: String,
    webhook: String,
    template: String,
    template_uses: String,
    definition: String,
    claimed: String,
    code_batch: String,
    code: String,
    coupon: String,
    account: String,
    open_lots: String,
    due_holds: String,
    hold: String,
    pending_holds: String,
    check_ins: String,
    task: String,
    progress: String,
    all_progress: String,
    prerequisite: String,
    report: String,
    original: String,
    lot: String,
    order: String,
    refund: String,
    compensation: String,
    adjustment: String,
    rules_version: String,
    rules: String,
    newest_rules: String,
    window: String,
    reminder: String,
    bulk: String,
    job: String,
    idempotency: String,
}

static LOOK_UPS: LazyLock<LookUps> = LazyLock::new(|| {
    let by_id = |columns: &str, table: &str| format!("SELECT {columns} FROM {table} WHERE tenant_id = $1 AND id = $2");
    let by_member =
        |columns: &str, table: &str| format!("SELECT {columns} FROM {table} WHERE tenant_id = $1 AND member_id = $2");
    let reversed = "(SELECT r.reversed FROM mkt_points_reversal r \
                    WHERE r.tenant_id = t.tenant_id AND r.transaction_id = t.id)";
    LookUps {
        tenant: format!("SELECT {} FROM tenant WHERE tenant_id = $1", decode::TENANT),
        programs: "SELECT program FROM tenant WHERE parent_id = $1".to_owned(),
        api_key: by_id(&format!("{}, secret_digest", decode::API_KEY), "api_key"),
        webhook: by_id(decode::WEBHOOK, "webhook"),
        template: by_id(decode::TEMPLATE, "mkt_coupon_template t"),
        template_uses: "SELECT coalesce(sum(used_count), 0) FROM mkt_coupon_template_use \
                        WHERE tenant_id = $1 AND template_id = $2"
            .to_owned(),
        definition: "SELECT definition FROM mkt_coupon_template_version \
                     WHERE tenant_id = $1 AND template_id = $2 AND version = $3"
            .to_owned(),
        claimed: "SELECT sequence FROM mkt_user_coupon WHERE tenant_id = $1 AND template_id = $2 AND member_id = $3 \
                  ORDER BY sequence DESC LIMIT 1"
            .to_owned(),
        code_batch: by_id(decode::CODE_BATCH, "mkt_coupon_code_batch"),
        code: format!("SELECT {} FROM mkt_coupon_code WHERE tenant_id = $1 AND digest = $2", decode::CODE),
        coupon: by_id(decode::COUPON, "mkt_user_coupon"),
        account: by_member(decode::ACCOUNT, "mkt_points_account"),
        open_lots: by_member(decode::LOT, "mkt_points_lot") + " AND open ORDER BY expires_at, created_at, id LIMIT $3",
        due_holds: by_member(decode::HOLD, "mkt_points_hold") + " AND status = 'OPEN' AND expires_at <= $3",
        hold: by_id(decode::HOLD, "mkt_points_hold"),
        pending_holds: by_member(decode::HOLD, "mkt_points_hold") + " AND status = 'OPEN' AND pending",
        check_ins: by_member(decode::CHECK_IN, "mkt_points_check_in") + " ORDER BY day DESC LIMIT $3",
        task: format!("SELECT {} FROM mkt_points_task WHERE tenant_id = $1 AND task_key = $2", decode::TASK),
        progress: by_member(decode::PROGRESS, "mkt_user_task_progress") + " AND task_key = $3",
        all_progress: by_member(decode::PROGRESS, "mkt_user_task_progress"),
        prerequisite: "SELECT coalesce((SELECT total_completions FROM mkt_user_task_progress \
                       WHERE tenant_id = $1 AND member_id = $2 AND task_key = $3), 0), \
                       coalesce((SELECT deleted_at IS NULL FROM mkt_points_task WHERE tenant_id = $1 AND task_key = $3), 0)"
            .to_owned(),
        report: by_member(decode::REPORT, "mkt_user_task_completion") + " AND task_key = $3 AND completion_id = $4",
        original: by_id(&format!("{}, {reversed}", decode::TRANSACTION), "mkt_points_transaction t"),
        lot: by_id(decode::LOT, "mkt_points_lot"),
        order: format!("SELECT {} FROM mkt_order WHERE tenant_id = $1 AND order_id = $2", decode::ORDER),
        refund: format!(
            "SELECT {} FROM mkt_order_refund WHERE tenant_id = $1 AND order_id = $2 AND refund_id = $3",
            decode::REFUND
        ),
        compensation: by_id(decode::COMPENSATION, "mkt_coupon_refund_compensation"),
        adjustment: by_id(decode::ADJUSTMENT, "mkt_points_adjustment"),
        rules_version: format!("SELECT {} FROM mkt_points_rule WHERE tenant_id = $1 AND version = $2", decode::RULES),
        rules: format!(
            "SELECT {} FROM mkt_points_rule WHERE tenant_id = $1 AND effective_from <= $3 AND effective_from >= coalesce(\
             (SELECT p.effective_from FROM mkt_points_rule p WHERE p.tenant_id = $1 AND p.effective_from <= $2 \
             ORDER BY p.effective_from DESC, p.version DESC LIMIT 1), $2)",
            decode::RULES
        ),
        newest_rules: "SELECT version FROM mkt_points_rule WHERE tenant_id = $1 ORDER BY version DESC LIMIT 1"
            .to_owned(),
        window: "SELECT announced_until FROM template_window WHERE tenant_id = $1".to_owned(),
        reminder: "SELECT expires_at, lot_id FROM points_reminder WHERE tenant_id = $1 AND days_before = $2".to_owned(),
        bulk: by_id(decode::BULK, "bulk"),
        job: by_id(decode::JOB, "job"),
        idempotency: "SELECT fingerprint, outcome FROM idempotency WHERE tenant_id = $1 AND key = $2".to_owned(),
    }
});

/// How a batch finds its rows, by name: for the test of the plans.
pub fn batch_look_ups() -> [(&'static str, &'static str); 36] {
    let texts = &*LOOK_UPS;
    [
        ("tenant", &texts.tenant),
        ("programs", &texts.programs),
        ("api_key", &texts.api_key),
        ("webhook", &texts.webhook),
        ("template", &texts.template),
        ("template_uses", &texts.template_uses),
        ("definition", &texts.definition),
        ("claimed", &texts.claimed),
        ("code_batch", &texts.code_batch),
        ("code", &texts.code),
        ("coupon", &texts.coupon),
        ("account", &texts.account),
        ("open_lots", &texts.open_lots),
        ("due_holds", &texts.due_holds),
        ("hold", &texts.hold),
        ("pending_holds", &texts.pending_holds),
        ("check_ins", &texts.check_ins),
        ("task", &texts.task),
        ("progress", &texts.progress),
        ("all_progress", &texts.all_progress),
        ("prerequisite", &texts.prerequisite),
        ("report", &texts.report),
        ("original", &texts.original),
        ("lot", &texts.lot),
        ("order", &texts.order),
        ("refund", &texts.refund),
        ("compensation", &texts.compensation),
        ("adjustment", &texts.adjustment),
        ("rules_version", &texts.rules_version),
        ("rules", &texts.rules),
        ("newest_rules", &texts.newest_rules),
        ("window", &texts.window),
        ("reminder", &texts.reminder),
        ("bulk", &texts.bulk),
        ("job", &texts.job),
        ("idempotency", &texts.idempotency),
    ]
}

/// Loads what the keys name; to these it adds what only the orders of the batch can tell.
fn load(session: &Session<'_>, batch: &[Envelope], keys: &mut Keys, known: &Definitions) -> Result<State, StoreError> {
    let texts = &*LOOK_UPS;
    let mut state = State::empty(keys);
    for (tenant, id) in &keys.orders {
        for order in session.query(&texts.order, &[(*tenant).into(), id.as_str().into()], decode::order)? {
            state.load_order(*tenant, order);
        }
    }
    if !keys.orders.is_empty() {
        keys.follow_orders(batch, &state);
    }
    let keys = &*keys;
    for tenant in &keys.tenants {
        for row in session.query(&texts.tenant, &[(*tenant).into()], decode::tenant)? {
            state.load_tenant(row);
        }
    }
    for tenant in &keys.programs {
        for code in session.query(&texts.programs, &[(*tenant).into()], |row| row.caller_id(0))? {
            state.load_program(*tenant, code);
        }
    }
    for (tenant, id) in &keys.api_keys {
        let decode = |row: &Row| Ok((decode::api_key(row)?, row.bytes(decode::API_KEY_COLUMNS)?));
        for (key, digest) in session.query(&texts.api_key, &[(*tenant).into(), id.0.into()], decode)? {
            state.load_api_key(key, digest);
        }
    }
    for (tenant, id) in &keys.webhooks {
        for webhook in session.query(&texts.webhook, &[(*tenant).into(), id.0.into()], decode::webhook)? {
            state.load_webhook(*tenant, webhook);
        }
    }
    for (tenant, id) in keys.templates.iter().chain(&keys.template_reads) {
        load_template(session, &mut state, keys, known, *tenant, *id)?;
    }
    for (tenant, template, member) in &keys.claimants {
        let parameters = [(*tenant).into(), template.0.into(), member.into()];
        for count in session.query(&texts.claimed, &parameters, |row| row.int(0))? {
            state.load_claimed(*tenant, *template, member.clone(), count);
        }
    }
    for (tenant, id) in &keys.code_batches {
        for batch in session.query(&texts.code_batch, &[(*tenant).into(), id.0.into()], decode::code_batch)? {
            state.load_code_batch(*tenant, batch);
        }
    }
    for (tenant, digest) in &keys.codes {
        for code in session.query(&texts.code, &[(*tenant).into(), Param::Bytes(digest)], decode::code)? {
            state.load_code(*tenant, code);
        }
    }
    for (tenant, id) in &keys.coupons {
        for coupon in session.query(&texts.coupon, &[(*tenant).into(), id.0.into()], decode::coupon)? {
            state.load_coupon(*tenant, coupon);
        }
    }
    for (tenant, id) in state.missing_templates(keys) {
        load_template(session, &mut state, keys, known, tenant, id)?;
    }
    for (tenant, id, version) in state.missing_definitions(keys) {
        state.load_definition(tenant, id, version, known_definition(session, known, tenant, id, version)?);
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
    for (tenant, member) in &keys.pending_holds {
        for hold in session.query(&texts.pending_holds, &[(*tenant).into(), member.into()], decode::hold)? {
            state.load_hold(*tenant, hold);
        }
    }
    for ((tenant, member), wanted) in &keys.check_ins {
        let parameters = [(*tenant).into(), member.into(), (*wanted).into()];
        for row in session.query(&texts.check_ins, &parameters, decode::check_in)? {
            state.load_check_in(*tenant, row);
        }
    }
    for (tenant, key) in keys.tasks.iter().chain(&keys.task_reads) {
        for row in session.query(&texts.task, &[(*tenant).into(), key.as_str().into()], decode::task)? {
            state.load_task(*tenant, row);
        }
    }
    for (tenant, member) in &keys.all_progress {
        for row in session.query(&texts.all_progress, &[(*tenant).into(), member.into()], decode::progress)? {
            state.load_progress(*tenant, row);
        }
    }
    for (tenant, member, key, completion_id) in &keys.task_reports {
        let parameters = [(*tenant).into(), member.into(), key.as_str().into(), completion_id.as_str().into()];
        for row in session.query(&texts.progress, &parameters[..3], decode::progress)? {
            state.load_progress(*tenant, row);
        }
        for row in session.query(&texts.report, &parameters, decode::report)? {
            state.load_report(*tenant, row);
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
    for (tenant, order, refund) in &keys.refunds {
        let parameters = [(*tenant).into(), order.as_str().into(), refund.as_str().into()];
        for refund in session.query(&texts.refund, &parameters, decode::refund)? {
            state.load_refund(*tenant, refund);
        }
    }
    for (tenant, id) in &keys.adjustments {
        for adjustment in session.query(&texts.adjustment, &[(*tenant).into(), id.0.into()], decode::adjustment)? {
            state.load_adjustment(*tenant, adjustment);
        }
    }
    for (tenant, id) in &keys.compensations {
        for case in session.query(&texts.compensation, &[(*tenant).into(), id.0.into()], decode::compensation)? {
            state.load_compensation(*tenant, case);
        }
    }
    for (tenant, version) in &keys.rules_versions {
        if let Some(rules) = known.rules(*tenant, *version) {
            state.load_rules_version(*tenant, rules);
            continue;
        }
        let parameters = [(*tenant).into(), (*version).into()];
        for (_, rules) in session.query(&texts.rules_version, &parameters, |row| decode::rules(row, known))? {
            state.load_rules_version(*tenant, rules);
        }
    }
    for (tenant, (earliest, latest)) in &keys.rules {
        let parameters = [(*tenant).into(), (*earliest).into(), (*latest).into()];
        for (effective_from, rules) in session.query(&texts.rules, &parameters, |row| decode::rules(row, known))? {
            state.load_rules(*tenant, effective_from, rules);
        }
    }
    for tenant in &keys.newest_rules {
        for version in session.query(&texts.newest_rules, &[(*tenant).into()], |row| row.int(0))? {
            state.set_newest_rules(*tenant, version);
        }
    }
    for tenant in &keys.windows {
        for until in session.query(&texts.window, &[(*tenant).into()], |row| row.time(0))? {
            state.load_windows(*tenant, until);
        }
    }
    for (tenant, days) in &keys.reminders {
        let decode = |row: &Row| Ok((row.time(0)?, LotId(row.uuid(1)?)));
        for reached in session.query(&texts.reminder, &[(*tenant).into(), (*days).into()], decode)? {
            state.load_reminder(*tenant, *days, reached);
        }
    }
    for (tenant, id) in &keys.bulks {
        for bulk in session.query(&texts.bulk, &[(*tenant).into(), id.0.into()], decode::bulk)? {
            state.load_bulk(*tenant, bulk);
        }
    }
    for (tenant, id) in &keys.jobs {
        for job in session.query(&texts.job, &[(*tenant).into(), id.0.into()], decode::job)? {
            state.load_job(*tenant, job);
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

fn load_template(
    session: &Session<'_>,
    state: &mut State,
    keys: &Keys,
    known: &Definitions,
    tenant: TenantId,
    id: TemplateId,
) -> Result<(), StoreError> {
    let used = if keys.template_uses.contains(&(tenant, id)) { used_count(session, tenant, id.0)? } else { 0 };
    let decode = |row: &Row| {
        let definition = known_definition(session, known, tenant, id, row.int(2)?)?;
        decode::template(row, definition, used)
    };
    for template in session.query(&LOOK_UPS.template, &[tenant.into(), id.0.into()], decode)? {
        state.load_template(tenant, template);
    }
    Ok(())
}

/// From memory after the first time.
fn known_definition(
    session: &Session<'_>,
    known: &Definitions,
    tenant: TenantId,
    id: TemplateId,
    version: i64,
) -> Result<Arc<Definition>, StoreError> {
    if let Some(definition) = known.get(tenant, id, version) {
        return Ok(definition);
    }
    let definition = Arc::new(definition(session, tenant, id.0, version)?);
    known.insert(tenant, id, version, definition.clone());
    Ok(definition)
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

fn sql(table: &Table, verb: Verb) -> String {
    let Table { name, key, .. } = table;
    let written = table.written(verb);
    let numbered = |columns: &[(&str, Type)], first: usize, separator: &str| {
        let parts = columns.iter().zip(first..).map(|((column, _), number)| format!("{column} = ?{number}"));
        parts.collect::<Vec<_>>().join(separator)
    };
    let identified = numbered(&written[..*key], 1, " AND ");
    match verb {
        Verb::Insert => {
            let columns = written.iter().map(|(column, _)| *column).collect::<Vec<_>>().join(", ");
            let values = (1..=written.len()).map(|number| format!("?{number}")).collect::<Vec<_>>().join(", ");
            let on_conflict = table.on_conflict_sql();
            format!("INSERT INTO {name} ({columns}) VALUES ({values}){on_conflict}")
        }
        Verb::Update => {
            format!("UPDATE {name} SET {} WHERE {identified}", numbered(&written[*key..], key + 1, ", "))
        }
        Verb::Delete => format!("DELETE FROM {name} WHERE {identified}"),
    }
}
