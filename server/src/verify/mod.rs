//! `scrip verify`: recomputes every invariant from the rows and names each row that breaks one.
//!
//! Each check is one statement that returns a row for every violation, so a clean store answers with nothing and this
//! process holds only what it reports. All checks read one snapshot (PostgreSQL: REPEATABLE READ; SQLite: one read
//! transaction), so a store may be verified while it is written. Nothing is repaired: a store that does not verify is
//! evidence, and each check says what it means.

mod checks;

use std::time::Instant;

use scrip_domain::TenantId;
use serde::Serialize;

use crate::store::{Row, Store, StoreError};
pub use checks::{Check, Dialect, checks};

/// Violations listed for each check; beyond them only the fact that there are more is told.
const LISTED: usize = 100;

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
    pub seconds: f64,
    pub violations: Vec<Violation>,
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
        self.violation_count() == 0
    }

    pub fn violation_count(&self) -> usize {
        self.checks.iter().map(|check| check.violations.len()).sum()
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let found = match self.violation_count() {
            0 => "clean".to_owned(),
            count => format!("{count} violations"),
        };
        let rate = self.rows as f64 / self.seconds.max(0.001);
        let checks = self.checks.len();
        format!("{found}: {checks} checks over {} rows in {:.1} s ({rate:.0} rows/s)", self.rows, self.seconds)
    }
}

/// Runs every check. `progress` hears which one begins, how many are done and how many there are.
///
/// # Errors
/// When the store cannot be read.
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
    let snapshot = store.snapshot().await?;
    let all = checks(dialect);
    let total = all.len();
    let mut results = Vec::with_capacity(total);
    for (done, check) in all.into_iter().enumerate() {
        progress(check.title, done, total);
        let begun = Instant::now();
        let of_tenant = match tenant {
            Some(tenant) => format!("WHERE v.tenant_id = {}", dialect.literal(tenant.0)),
            None => String::new(),
        };
        let sql = format!("SELECT v.tenant_id, v.key, v.detail FROM ({}) AS v {of_tenant} LIMIT {LISTED}", check.sql);
        let violations = snapshot.query(&sql, &[], violation).await?;
        results.push(CheckResult {
            id: check.id,
            title: check.title,
            seconds: begun.elapsed().as_secs_f64(),
            violations,
        });
    }
    let mut rows = 0;
    for table in checks::TABLES {
        let counted = snapshot.query(&format!("SELECT count(*) FROM {table}"), &[], |row| row.int(0)).await?;
        rows += counted.into_iter().sum::<i64>();
    }
    Ok(VerifyReport { checks: results, rows, seconds: started.elapsed().as_secs_f64() })
}

fn violation(row: &Row) -> Result<Violation, StoreError> {
    let tenant_id = row.opt_uuid(0)?.map_or_else(|| "-".into(), |id| TenantId(id).to_string());
    Ok(Violation { tenant_id, key: row.text(1)?, detail: row.text(2)? })
}
