//! `scrip verify`: recomputes every invariant from the rows and names each row that breaks one.
//!
//! A check is a condition on the rows of a relation. Checks of the same relation share one statement, which returns only the
//! rows that break one of them, so a clean store answers with nothing and this process holds only what it reports: at most
//! [`LISTED`] violations of a check, and the count of all. All statements, on several connections, read one snapshot
//! (PostgreSQL: exported; SQLite: read transactions that begin while nobody writes), so a store may be verified while it is
//! written.
//!
//! A check that cannot be carried out, because a row holds what no store of ours writes, is reported as such and the others
//! go on. Nothing is repaired: a store that does not verify is evidence.
//!
//! What no row tells cannot be verified: the reason of a revocation, a tenant's name, or a row deleted together with all that
//! speaks of it.

mod checks;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use scrip_domain::TenantId;
use serde::Serialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::store::read::Snapshot;
use crate::store::{Row, Store, StoreError};
use checks::{Check, Dialect, Group, Reading, TABLES, groups, readings};

/// Violations listed for each check; those beyond are counted.
const LISTED: usize = 100;
/// Each may sort and hash beside the others, so this bounds memory as well.
const MAX_CONNECTIONS: usize = 4;

/// A row that breaks an invariant.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    pub tenant_id: String,
    /// Which row: an id, or a member.
    pub key: String,
    /// What is there, and what should be.
    pub detail: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct CheckResult {
    pub id: &'static str,
    pub title: &'static str,
    /// An equal share of the time of the statement that served this check and others.
    pub seconds: f64,
    /// How many rows break the invariant.
    pub count: u64,
    /// The first of them, 100 at most.
    pub violations: Vec<Violation>,
    /// Why the check could not be carried out.
    pub fault: Option<String>,
}

impl CheckResult {
    fn new(id: &'static str, title: &'static str) -> CheckResult {
        CheckResult { id, title, seconds: 0.0, count: 0, violations: Vec::new(), fault: None }
    }

    pub fn is_clean(&self) -> bool {
        self.count == 0 && self.fault.is_none()
    }

    fn add(&mut self, row: &Row, detail: String) -> Result<(), StoreError> {
        self.count += 1;
        if self.violations.len() < LISTED {
            let tenant_id = row.opt_uuid(0)?.map_or_else(|| "-".into(), |id| TenantId(id).to_string());
            self.violations.push(Violation { tenant_id, key: row.text(1)?, detail });
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    pub checks: Vec<CheckResult>,
    /// Rows in the tables looked at.
    pub rows: i64,
    pub seconds: f64,
}

impl VerifyReport {
    pub fn is_clean(&self) -> bool {
        self.checks.iter().all(CheckResult::is_clean)
    }

    pub fn violation_count(&self) -> u64 {
        self.checks.iter().map(|check| check.count).sum()
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let faults = self.checks.iter().filter(|check| check.fault.is_some()).count();
        let found = match (self.violation_count(), faults) {
            (0, 0) => "clean".to_owned(),
            (count, 0) => format!("{count} violations"),
            (count, faults) => format!("{count} violations, {faults} checks could not be carried out"),
        };
        let rate = self.rows as f64 / self.seconds.max(0.001);
        let checks = self.checks.len();
        format!("{found}: {checks} checks over {} rows in {:.1} s ({rate:.0} rows/s)", self.rows, self.seconds)
    }
}

/// Runs every check, on as many connections as there are cores, [`MAX_CONNECTIONS`] at most. `progress` hears the title of a
/// check whenever a statement is done, how many checks are done and how many there are.
///
/// Must run on a runtime of several threads.
///
/// # Errors
/// When the store cannot be read at all; a statement that fails is the fault of its check.
pub async fn verify(
    store: &Store,
    tenant: Option<TenantId>,
    progress: impl Fn(&'static str, usize, usize),
) -> Result<VerifyReport, StoreError> {
    let dialect = match store {
        Store::Sqlite(_) => Dialect::Sqlite,
        Store::Postgres(_) => Dialect::Postgres,
    };
    let started = Instant::now();
    let mut statements: Vec<Statement> = groups(dialect)?.into_iter().map(Statement::Group).collect();
    statements.extend(readings(dialect).into_iter().map(Statement::Reading));
    let total = statements.iter().map(Statement::check_count).sum();
    let work = Arc::new(Work { statements, next: AtomicUsize::new(0), dialect, tenant: tenant.map(|tenant| tenant.0) });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (send, mut done) = mpsc::unbounded_channel();
    for snapshot in store.snapshots(cores.min(MAX_CONNECTIONS)).await? {
        tokio::spawn(run(snapshot, work.clone(), send.clone()));
    }
    drop(send);
    let mut results: Vec<(usize, Vec<CheckResult>)> = Vec::with_capacity(work.statements.len());
    let mut rows = 0;
    let mut checked = 0;
    while let Some(message) = done.recv().await {
        match message? {
            Done::Checked(place, found) => {
                checked += found.len();
                progress(found[0].title, checked, total);
                results.push((place, found));
            }
            Done::Counted(counted) => rows = counted,
        }
    }
    // A check that panicked has sent nothing; silence must not pass for cleanliness.
    if results.len() < work.statements.len() {
        return Err(StoreError::Fault("a check has ended without a result".into()));
    }
    results.sort_by_key(|(place, _)| *place);
    let checks = results.into_iter().flat_map(|(_, found)| found).collect();
    Ok(VerifyReport { checks, rows, seconds: started.elapsed().as_secs_f64() })
}

enum Statement {
    Group(Group),
    Reading(Reading),
}

impl Statement {
    fn check_count(&self) -> usize {
        match self {
            Statement::Group(group) => group.checks.len(),
            Statement::Reading(_) => 1,
        }
    }
}

/// What all connections work on: each takes the next statement.
struct Work {
    statements: Vec<Statement>,
    next: AtomicUsize,
    dialect: Dialect,
    tenant: Option<Uuid>,
}

enum Done {
    /// What the checks of the n-th statement found.
    Checked(usize, Vec<CheckResult>),
    Counted(i64),
}

/// Runs statements until none is left. Nobody listening means that another connection has failed.
async fn run(snapshot: Snapshot, work: Arc<Work>, done: mpsc::UnboundedSender<Result<Done, StoreError>>) {
    let run = Run { snapshot, dialect: work.dialect, tenant: work.tenant };
    loop {
        let place = work.next.fetch_add(1, Ordering::Relaxed);
        let finished = match work.statements.get(place) {
            Some(Statement::Group(group)) => run.group(group).await.map(|found| Done::Checked(place, found)),
            Some(Statement::Reading(reading)) => {
                run.reading(reading).await.map(|found| Done::Checked(place, vec![found]))
            }
            None if place == work.statements.len() => run.count_rows().await.map(Done::Counted),
            None => return,
        };
        let failed = finished.is_err();
        if done.send(finished).is_err() || failed {
            return;
        }
    }
}

struct Run {
    snapshot: Snapshot,
    dialect: Dialect,
    tenant: Option<Uuid>,
}

impl Run {
    /// One statement for all checks of the group. When it fails, each check gets one of its own, to tell which are at fault.
    async fn group(&self, group: &Group) -> Result<Vec<CheckResult>, StoreError> {
        let (mut results, fault) = self.checks(group, &group.checks).await?;
        if fault.is_some() {
            results.clear();
            for check in group.checks.chunks(1) {
                let (alone, fault) = self.checks(group, check).await?;
                results.extend(alone.into_iter().map(|result| CheckResult { fault: fault.clone(), ..result }));
            }
        }
        Ok(results)
    }

    async fn checks(&self, group: &Group, checks: &[Check]) -> Result<(Vec<CheckResult>, Option<String>), StoreError> {
        let began = Instant::now();
        let mut results: Vec<CheckResult> =
            checks.iter().map(|check| CheckResult::new(check.id, check.title)).collect();
        let sql = group.sql(self.dialect, checks, self.tenant);
        let scanned = self.snapshot.scan(&sql, |row| {
            for (place, result) in results.iter_mut().enumerate() {
                if let Some(detail) = row.opt_text(place + 2)? {
                    result.add(row, detail)?;
                }
            }
            Ok(())
        });
        let fault = fault_of(scanned.await)?;
        share(&mut results, began.elapsed());
        Ok((results, fault))
    }

    async fn reading(&self, reading: &Reading) -> Result<CheckResult, StoreError> {
        let began = Instant::now();
        let mut result = CheckResult::new(reading.id, reading.title);
        let sql = reading.sql(self.dialect, self.tenant);
        let scanned = self.snapshot.scan(&sql, |row| match (reading.judge)(row)? {
            Some(detail) => result.add(row, detail),
            None => Ok(()),
        });
        result.fault = fault_of(scanned.await)?;
        result.seconds = began.elapsed().as_secs_f64();
        Ok(result)
    }

    async fn count_rows(&self) -> Result<i64, StoreError> {
        let counts: Vec<String> = TABLES.iter().map(|table| format!("(SELECT count(*) FROM {table})")).collect();
        let mut rows = 0;
        self.snapshot
            .scan(&format!("SELECT {}", counts.join(" + ")), |row| {
                rows = row.int(0)?;
                Ok(())
            })
            .await?;
        Ok(rows)
    }
}

/// What a failed statement says of the rows it read; an error when the store itself has gone.
fn fault_of(scanned: Result<(), StoreError>) -> Result<Option<String>, StoreError> {
    match scanned {
        Ok(()) => Ok(None),
        Err(error @ (StoreError::Unavailable(_) | StoreError::DiskFull(_) | StoreError::Conflict(_))) => Err(error),
        Err(error) => Ok(Some(error.to_string())),
    }
}

fn share(results: &mut [CheckResult], time: Duration) {
    let share = time.as_secs_f64() / results.len().max(1) as f64;
    for result in results {
        result.seconds = share;
    }
}
