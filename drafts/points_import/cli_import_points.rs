//! `scrip import points`: accounts and lots from the tables of another system, reconciled to the point.
//!
//! Three CSV files, each with a heading; columns may come in any order, others are ignored:
//!
//! ```text
//! --accounts      member_id, total_points, available_points, frozen_points, used_points, expired_points
//! --lots          member_id, total_amount, available_amount, frozen_amount, consumed_amount, expired_amount, expire_time, create_time
//! --transactions  member_id, type, amount
//! ```
//!
//! Without lots each account gets one that never expires. Every account is checked before it is taken over: its columns must add
//! up, and its lots to its columns; the history must add up to what was earned. What does not is refused and reported, line by
//! line, and nothing of that account is written. An account that is here already is compared, not touched, so a second run
//! changes nothing. `--dry-run` does all of it but the writing.
//!
//! What bounds it: accounts and sums per account are held in memory; lots are a few dozen bytes each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use scrip_domain::points::{ImportedLot, MAX_POINTS};
use scrip_domain::{Answer, Command, Envelope, MemberId, Outcome, TenantId, Timestamp};
use serde::Deserialize;

use super::StoreArgs;
use crate::clock;
use crate::engine::Engine;
use crate::store::Store;

/// Accounts decided in one go.
const BATCH: usize = 500;
/// Problems shown; those beyond are counted.
const SHOWN: usize = 50;

#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Take over points accounts and lots from another system's tables.
    Points(PointsArgs),
}

impl ImportCommand {
    pub async fn run(self) -> anyhow::Result<std::process::ExitCode> {
        let ImportCommand::Points(args) = self;
        args.run().await
    }
}

#[derive(Debug, Args)]
pub struct PointsArgs {
    tenant: TenantId,
    /// CSV of the accounts.
    #[arg(long, value_name = "FILE")]
    accounts: PathBuf,
    /// CSV of the lots. Without it, each account gets one lot that never expires.
    #[arg(long, value_name = "FILE")]
    lots: Option<PathBuf>,
    /// CSV of the ledger: what was earned must add up to the accounts' totals.
    #[arg(long, value_name = "FILE")]
    transactions: Option<PathBuf>,
    /// Check and report, and write nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Deserialize)]
struct AccountRow {
    member_id: String,
    total_points: i64,
    available_points: i64,
    frozen_points: i64,
    used_points: i64,
    expired_points: i64,
}

#[derive(Debug, Deserialize)]
struct LotRow {
    member_id: String,
    total_amount: i64,
    available_amount: i64,
    frozen_amount: i64,
    consumed_amount: i64,
    expired_amount: i64,
    expire_time: String,
    create_time: String,
}

#[derive(Debug, Deserialize)]
struct TransactionRow {
    member_id: String,
    r#type: String,
    amount: i64,
}

/// What an account must come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Columns {
    total: i64,
    available: i64,
    frozen: i64,
    used: i64,
    expired: i64,
}

impl Columns {
    fn add(&mut self, other: Columns) {
        self.total += other.total;
        self.available += other.available;
        self.frozen += other.frozen;
        self.used += other.used;
        self.expired += other.expired;
    }

    fn shown(&self) -> String {
        let Columns { total, available, frozen, used, expired } = self;
        format!("total {total}, available {available}, frozen {frozen}, used {used}, expired {expired}")
    }
}

#[derive(Debug, Default)]
struct Taken {
    columns: Columns,
    lots: Vec<ImportedLot>,
    earned: i64,
}

#[derive(Debug, Default)]
pub struct ImportReport {
    pub accounts: usize,
    pub imported: usize,
    /// Here already, with the same columns.
    pub unchanged: usize,
    pub problems: Vec<String>,
    source: Columns,
    books: Columns,
}

impl ImportReport {
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.source == self.books
    }

    pub fn to_text(&self, dry_run: bool) -> String {
        let mut text = format!(
            "accounts   {}\n{}   {}\nunchanged  {}\nproblems   {}\n\nthere      {}\nhere       {}\n",
            self.accounts,
            if dry_run { "to import" } else { "imported " },
            self.imported,
            self.unchanged,
            self.problems.len(),
            self.source.shown(),
            self.books.shown()
        );
        for problem in self.problems.iter().take(SHOWN) {
            text.push_str(&format!("  {problem}\n"));
        }
        if self.problems.len() > SHOWN {
            text.push_str(&format!("  and {} more\n", self.problems.len() - SHOWN));
        }
        text.push_str(if self.is_clean() { "\nReconciled to the point.\n" } else { "\nNOT reconciled.\n" });
        text
    }
}

impl PointsArgs {
    async fn run(self) -> anyhow::Result<std::process::ExitCode> {
        let store = self.store.open_existing().await?;
        store.find_tenant(self.tenant).await?.with_context(|| format!("there is no tenant {}", self.tenant))?;
        let _lock = store.lock()?;
        let engine = Engine::start(&store, Default::default(), crate::metrics::Metrics::new()).await?;
        let files = Files { accounts: &self.accounts, lots: self.lots.as_deref(), transactions: self.transactions.as_deref() };
        let report = import(&store, &engine, self.tenant, &files, self.dry_run).await?;
        print!("{}", report.to_text(self.dry_run));
        Ok(if report.is_clean() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE })
    }
}

pub struct Files<'a> {
    pub accounts: &'a Path,
    pub lots: Option<&'a Path>,
    pub transactions: Option<&'a Path>,
}

/// Reads, checks and takes over.
///
/// # Errors
/// Files that cannot be read, naming the line; a store that fails. What does not reconcile is in the report.
pub async fn import(
    store: &Store,
    engine: &Engine,
    tenant: TenantId,
    files: &Files<'_>,
    dry_run: bool,
) -> anyhow::Result<ImportReport> {
    let now = clock::now();
    let mut report = ImportReport::default();
    let mut accounts = read(files, now, &mut report)?;
    report.accounts = accounts.len();
    let source = accounts.values().fold(Columns::default(), |mut sum, taken| {
        sum.add(taken.columns);
        sum
    });
    report.source = source;
    accounts.retain(|member, taken| match check(taken, files.transactions.is_some()) {
        Ok(()) => true,
        Err(problem) => {
            report.problems.push(format!("{member}: {problem}"));
            false
        }
    });
    let mut pending = Vec::with_capacity(BATCH);
    let mut rest = accounts.into_iter().peekable();
    while let Some((member, taken)) = rest.next() {
        let balance = store.balance(tenant, &member, now, now).await?;
        if balance.total_points > 0 {
            let here = Columns {
                total: balance.total_points,
                available: balance.available,
                frozen: balance.frozen,
                used: balance.used,
                expired: balance.expired,
            };
            report.books.add(here);
            if here == taken.columns {
                report.unchanged += 1;
            } else {
                let (here, there) = (here.shown(), taken.columns.shown());
                report.problems.push(format!("{member}: is here already with {here}; there it has {there}"));
            }
        } else if taken.columns == Columns::default() {
            report.unchanged += 1;
        } else {
            pending.push((member, taken));
        }
        if pending.len() == BATCH || rest.peek().is_none() {
            take_over(engine, tenant, std::mem::take(&mut pending), now, dry_run, &mut report).await?;
        }
    }
    Ok(report)
}

async fn take_over(
    engine: &Engine,
    tenant: TenantId,
    accounts: Vec<(MemberId, Taken)>,
    now: Timestamp,
    dry_run: bool,
    report: &mut ImportReport,
) -> anyhow::Result<()> {
    if dry_run {
        for (_, taken) in accounts {
            report.imported += 1;
            report.books.add(taken.columns);
        }
        return Ok(());
    }
    let (known, commands): (Vec<_>, Vec<_>) = accounts
        .into_iter()
        .map(|(member_id, taken)| {
            let command = Command::ImportAccount { member_id: member_id.clone(), lots: taken.lots };
            let envelope =
                Envelope { tenant, actor: None, command, idempotency: None, at: now, now, seed: clock::seed(now) };
            ((member_id, taken.columns), envelope)
        })
        .unzip();
    for ((member, there), answer) in known.into_iter().zip(engine.submit_all(commands).await) {
        match answer? {
            Answer::Accepted { outcome: Outcome::Imported { available, frozen, used, expired, total_points, .. }, .. } => {
                let here = Columns { total: total_points, available, frozen, used, expired };
                report.imported += 1;
                report.books.add(here);
                if here != there {
                    report.problems.push(format!("{member}: came to {}, there it has {}", here.shown(), there.shown()));
                }
            }
            other => report.problems.push(format!("{member}: {other:?}")),
        }
    }
    Ok(())
}

fn read(files: &Files<'_>, now: Timestamp, report: &mut ImportReport) -> anyhow::Result<BTreeMap<MemberId, Taken>> {
    let mut accounts: BTreeMap<MemberId, Taken> = BTreeMap::new();
    rows(files.accounts, |row: AccountRow| {
        let member = member_of(&row.member_id)?;
        let columns = Columns {
            total: row.total_points,
            available: row.available_points,
            frozen: row.frozen_points,
            used: row.used_points,
            expired: row.expired_points,
        };
        let taken = Taken { columns, ..Taken::default() };
        anyhow::ensure!(accounts.insert(member, taken).is_none(), "the member {} comes twice", row.member_id);
        Ok(())
    })?;
    if let Some(path) = files.lots {
        rows(path, |row: LotRow| {
            let member = member_of(&row.member_id)?;
            let created_at = time(&row.create_time)?.context("create_time is missing")?;
            let expires_at = time(&row.expire_time)?;
            let lot = ImportedLot {
                points: row.total_amount,
                used: row.consumed_amount,
                held: row.frozen_amount,
                expired: row.expired_amount,
                expires_at,
                created_at,
                reference: Some("import".into()),
            };
            let left = row.total_amount - row.consumed_amount - row.frozen_amount - row.expired_amount;
            anyhow::ensure!(left == row.available_amount, "its amounts do not add up to total_amount");
            match accounts.get_mut(&member) {
                Some(taken) => taken.lots.push(lot),
                None => report.problems.push(format!("{member}: has a lot and no account")),
            }
            Ok(())
        })?;
    } else {
        for taken in accounts.values_mut().filter(|taken| taken.columns.total > 0) {
            let Columns { total, frozen, used, expired, .. } = taken.columns;
            let lot = |points, used, held, expired, expires_at| ImportedLot {
                points,
                used,
                held,
                expired,
                expires_at,
                created_at: Timestamp(now.0 - 1),
                reference: Some("import".into()),
            };
            // What had expired there was of lots that nobody knows any more.
            if expired > 0 {
                taken.lots.push(lot(expired, 0, 0, expired, Some(now)));
            }
            if total > expired {
                taken.lots.push(lot(total - expired, used, frozen, 0, None));
            }
        }
    }
    if let Some(path) = files.transactions {
        rows(path, |row: TransactionRow| {
            let member = member_of(&row.member_id)?;
            match accounts.get_mut(&member) {
                Some(taken) if row.r#type.starts_with("EARN") => taken.earned += row.amount,
                Some(_) => {}
                None => report.problems.push(format!("{member}: has a transaction and no account")),
            }
            Ok(())
        })?;
    }
    // What has expired there by now without being written is written here.
    for taken in accounts.values_mut() {
        let due = taken.lots.iter().filter(|lot| lot.expires_at.is_some_and(|end| end <= now));
        let overdue: i64 = due.map(|lot| lot.points - lot.used - lot.held - lot.expired).sum();
        taken.columns.available -= overdue;
        taken.columns.expired += overdue;
    }
    Ok(accounts)
}

/// What must hold before an account is taken over.
fn check(taken: &Taken, with_history: bool) -> Result<(), String> {
    let Columns { total, available, frozen, used, expired } = taken.columns;
    if [total, available, frozen, used, expired].iter().any(|column| *column < 0) {
        return Err(format!("a column is negative: {}", taken.columns.shown()));
    }
    if total != available + frozen + used + expired {
        return Err(format!("its columns do not add up: {}", taken.columns.shown()));
    }
    let mut of_lots = Columns::default();
    for lot in &taken.lots {
        let parts = [lot.used, lot.held, lot.expired];
        if !(1..=MAX_POINTS).contains(&lot.points) || parts.iter().any(|part| *part < 0) {
            return Err(format!("a lot of {} points is out of range", lot.points));
        }
        if lot.expired > 0 && lot.expires_at.is_none() {
            return Err("a lot that never expires has expired points".to_owned());
        }
        if lot.expires_at.is_some_and(|end| end <= lot.created_at) {
            return Err("a lot expires before it begins".to_owned());
        }
        let is_over = lot.expires_at.is_some_and(|end| end <= clock::now());
        if lot.expired > 0 && !is_over {
            return Err("a lot has expired points before its end".to_owned());
        }
        let left = lot.points - lot.used - lot.held - lot.expired;
        if left < 0 {
            return Err(format!("a lot of {} points gave more than it had", lot.points));
        }
        let (available, expired) = if is_over { (0, lot.expired + left) } else { (left, lot.expired) };
        of_lots.add(Columns { total: lot.points, available, frozen: lot.held, used: lot.used, expired });
    }
    if of_lots != taken.columns {
        return Err(format!("its lots come to {}; the account has {}", of_lots.shown(), taken.columns.shown()));
    }
    if with_history && taken.earned != total {
        return Err(format!("its history earned {}, the account {total}", taken.earned));
    }
    Ok(())
}

/// Every row of a CSV file, each with its line in what goes wrong.
fn rows<T: for<'de> Deserialize<'de>>(
    path: &Path,
    mut take: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    for row in reader.deserialize() {
        let place = || format!("{}", path.display());
        let row: T = row.with_context(place)?;
        take(row).with_context(place)?;
    }
    Ok(())
}

fn member_of(text: &str) -> anyhow::Result<MemberId> {
    text.parse().map_err(|error| anyhow::anyhow!("member_id {text:?}: {error}"))
}

/// RFC 3339, or `2026-03-01 10:00:00` as databases write it, in UTC; nothing is never.
fn time(text: &str) -> anyhow::Result<Option<Timestamp>> {
    if text.is_empty() || text.eq_ignore_ascii_case("null") {
        return Ok(None);
    }
    let at = match text.parse::<jiff::Timestamp>() {
        Ok(at) => at,
        Err(_) => text
            .parse::<jiff::civil::DateTime>()
            .and_then(|local| local.to_zoned(jiff::tz::TimeZone::UTC))
            .map(|zoned| zoned.timestamp())
            .with_context(|| format!("{text:?} is no time"))?,
    };
    Ok(Some(Timestamp(at.as_microsecond())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_databases_write_them() {
        let expected = Some(Timestamp(1_772_359_200_000_000));
        for text in ["2026-03-01T10:00:00Z", "2026-03-01T11:00:00+01:00", "2026-03-01 10:00:00", "2026-03-01T10:00:00"] {
            assert_eq!(time(text).expect(text), expected, "{text}");
        }
        assert_eq!((time("").expect("never"), time("NULL").expect("never")), (None, None));
        assert!(time("yesterday").is_err());
    }
}
