//! Points accounts with their lots, their history and their debts from the tables of the system that Scrip replaces.
//!
//! The file has a line for each row of the four tables, those of a member together and in the order of time
//! (docs/IMPORT.md has the statement that writes it), so that no more than one member's rows are held at a time.
//!
//! An account is taken over when it reconciles to the point, and refused with the row at fault when it does not:
//!
//! - its columns add up, and so do those of each lot; what its lots have left is what the account has;
//! - each transaction continues the balance of the one before, and the last one leaves the account's balance;
//! - the history, decided once more by the rules of this ledger, comes to the account's columns, and its lots to those there,
//!   by when they expire. What had ended there without having been written counts as expired.
//!
//! Without a history the account's lots are taken over as they stand, and what was spent or had expired before as one lot of
//! the past. With the option `opening`, so is an account whose history does not reconcile; each such case is told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Read;

use anyhow::Context;
use scrip_domain::command::Movement;
use scrip_domain::points::{
    Columns, ImportedAccount, ImportedAction, ImportedStep, MAX_IMPORTED_STEPS, MAX_POINTS, TransactionType, rehearse,
};
use scrip_domain::{Answer, Command, Envelope, MemberId, Rejection, Timestamp};
use serde::{Deserialize, Serialize};

use super::{BadRow, Checked, ImportOptions, LISTED, reader, unreadable};
use crate::clock;
use crate::engine::Engine;
use crate::store::Store;

/// Accounts decided together, unless their steps are too many.
const PAGE: usize = 200;
const STEPS_PER_PAGE: usize = 5_000;
const REFERENCE_CHARS: usize = 128;
const REMARK_CHARS: usize = 500;

/// What became of the accounts of a file.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub struct PointsImportReport {
    pub dry_run: bool,
    pub lines: u64,
    pub accounts: u64,
    /// Taken over now; in a dry run, what would be tried.
    pub imported: u64,
    /// Of those, the ones without their history, because it does not reconcile or there is none.
    pub opened: u64,
    /// There already, with lines here, and not changed.
    pub existing: u64,
    /// Without points, so without anything to take over.
    pub empty: u64,
    /// Not taken over.
    pub bad: u64,
    /// The columns of the accounts taken over, as they were there.
    pub there: ImportedColumns,
    /// The same accounts here.
    pub here: ImportedColumns,
    /// What had ended there and was still counted as available: it is expired here.
    pub overdue: i64,
    /// What members owe by open debts, and owe here now.
    pub debt: i64,
    /// The first 1,000 rows that kept an account from being taken over.
    pub errors: Vec<BadRow>,
    /// The first 1,000 rows for which an account was taken over without its history.
    pub openings: Vec<BadRow>,
}

/// Sums over accounts, as the origin counts: what was revoked is among the used.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ImportedColumns {
    pub total_points: i64,
    pub available: i64,
    pub frozen: i64,
    pub used: i64,
    pub expired: i64,
}

impl ImportedColumns {
    fn add(&mut self, other: ImportedColumns) {
        self.total_points += other.total_points;
        self.available += other.available;
        self.frozen += other.frozen;
        self.used += other.used;
        self.expired += other.expired;
    }

    fn of(columns: Columns) -> ImportedColumns {
        let Columns { total_points, available, frozen, used, expired, revoked } = columns;
        ImportedColumns { total_points, available, frozen, used: used + revoked, expired }
    }
}

impl PointsImportReport {
    fn refuse(&mut self, fault: Fault) {
        if self.errors.len() < LISTED {
            self.errors.push(fault.0);
        }
    }
}

/// A row that does not reconcile.
#[derive(Debug)]
struct Fault(BadRow);

fn fault(line: u64, id: &str, message: impl Into<String>) -> Fault {
    Fault(BadRow { line, id: id.to_owned(), message: message.into() })
}

/// A line of the file: which table the row is of, and the row as JSON.
#[derive(Debug, Deserialize)]
struct FileLine {
    member_id: String,
    table: String,
    row: String,
}

#[derive(Debug, Deserialize)]
struct AccountRow {
    total_points: i64,
    available_points: i64,
    frozen_points: i64,
    used_points: i64,
    expired_points: i64,
    #[serde(default)]
    create_time: Option<String>,
}

#[derive(Debug, Deserialize)]
struct LotRow {
    id: String,
    total_amount: i64,
    available_amount: i64,
    frozen_amount: i64,
    consumed_amount: i64,
    expired_amount: i64,
    #[serde(default)]
    expire_time: Option<String>,
    create_time: String,
    #[serde(default)]
    source_transaction_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TransactionRow {
    id: String,
    r#type: String,
    amount: i64,
    balance_before: i64,
    balance_after: i64,
    #[serde(default)]
    related_id: Option<String>,
    #[serde(default)]
    remark: Option<String>,
    #[serde(default)]
    expire_time: Option<String>,
    #[serde(default)]
    status: Option<String>,
    create_time: String,
}

#[derive(Debug, Deserialize)]
struct DebtRow {
    id: String,
    status: String,
    debt_amount: i64,
    #[serde(default)]
    source_transaction_id: Option<String>,
    #[serde(default)]
    related_id: Option<String>,
    #[serde(default)]
    remark: Option<String>,
}

impl DebtRow {
    fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "OPEN" | "PARTIAL")
    }
}

/// A row with its line in the file.
#[derive(Debug)]
struct Placed<T> {
    line: u64,
    row: T,
}

/// The rows of one member.
#[derive(Debug, Default)]
struct Rows {
    member: String,
    first_line: u64,
    account: Option<Placed<AccountRow>>,
    lots: Vec<Placed<LotRow>>,
    transactions: Vec<Placed<TransactionRow>>,
    debts: Vec<Placed<DebtRow>>,
    faults: Vec<Fault>,
}

/// A lot, checked.
struct Lot {
    line: u64,
    id: String,
    available: i64,
    frozen: i64,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

/// An account that may be sent.
struct Plan {
    line: u64,
    imported: ImportedAccount,
    there: ImportedColumns,
    debt: i64,
    opening: Option<Fault>,
}

/// Imports accounts with what belongs to them.
///
/// # Errors
/// When the file cannot be read as CSV, or the store fails; what was imported before stays, and is found by the next run.
pub async fn points(
    store: &Store,
    engine: &Engine,
    file: impl Read,
    options: &ImportOptions,
) -> anyhow::Result<PointsImportReport> {
    let mut report = PointsImportReport { dry_run: options.dry_run, ..PointsImportReport::default() };
    let mut page = Page::default();
    let mut rows = Rows::default();
    let mut file = reader(file);
    if let Some(message) = lacks_columns(&mut file)? {
        report.bad = 1;
        report.refuse(fault(1, "", message));
        return Ok(report);
    }
    for (line, read) in (2..).zip(file.deserialize::<FileLine>()) {
        report.lines += 1;
        let read = match read {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), csv::ErrorKind::Io(_)) => {
                return Err(error).context("the file cannot be read");
            }
            Err(error) => {
                report.bad += 1;
                report.refuse(fault(line, "", unreadable(error)));
                continue;
            }
        };
        if read.member_id != rows.member {
            let done = std::mem::replace(&mut rows, Rows::begin(&read.member_id, line));
            page.add(options, done, &mut report);
            if page.is_full() {
                page.send(store, engine, options, &mut report).await?;
            }
        }
        rows.add(line, &read);
    }
    page.add(options, rows, &mut report);
    page.send(store, engine, options, &mut report).await?;
    report.errors.sort_by_key(|row| row.line);
    Ok(report)
}

/// Why a file is none of ours, by its first line: told once, not for every line.
fn lacks_columns(file: &mut csv::Reader<impl Read>) -> anyhow::Result<Option<String>> {
    let head = match file.headers() {
        Ok(head) => head.clone(),
        Err(error) if matches!(error.kind(), csv::ErrorKind::Io(_)) => {
            return Err(error).context("the file cannot be read");
        }
        Err(_) => csv::StringRecord::new(),
    };
    let missing: Vec<&str> =
        ["member_id", "table", "row"].into_iter().filter(|name| head.iter().all(|column| column != *name)).collect();
    let message =
        || format!("the first line must name the columns member_id, table and row; {} not there", missing.join(", "));
    Ok((!missing.is_empty()).then(message))
}

impl Rows {
    fn begin(member: &str, line: u64) -> Rows {
        Rows { member: member.to_owned(), first_line: line, ..Rows::default() }
    }

    fn add(&mut self, line: u64, read: &FileLine) {
        let is_full = self.lots.len() + self.transactions.len() + self.debts.len() >= MAX_IMPORTED_STEPS;
        let bad = |error: serde_json::Error| fault(line, &read.member_id, format!("row: {error}"));
        let result = match read.table.as_str() {
            "mkt_points_account" => serde_json::from_str(&read.row).map_err(bad).and_then(|row| {
                let earlier = self.account.replace(Placed { line, row });
                match earlier {
                    None => Ok(()),
                    Some(first) => {
                        Err(fault(line, &read.member_id, format!("the account is on line {} as well", first.line)))
                    }
                }
            }),
            _ if is_full => Err(fault(
                line,
                &read.member_id,
                format!(
                    "the member has more than {MAX_IMPORTED_STEPS} lots and transactions: leave its transactions out"
                ),
            )),
            "mkt_points_lot" => {
                serde_json::from_str(&read.row).map_err(bad).map(|row| self.lots.push(Placed { line, row }))
            }
            "mkt_points_transaction" => {
                serde_json::from_str(&read.row).map_err(bad).map(|row| self.transactions.push(Placed { line, row }))
            }
            "mkt_points_debt" => {
                serde_json::from_str(&read.row).map_err(bad).map(|row| self.debts.push(Placed { line, row }))
            }
            other => Err(fault(
                line,
                &read.member_id,
                format!(
                    "the table {other} is none of mkt_points_account, mkt_points_lot, mkt_points_transaction, mkt_points_debt"
                ),
            )),
        };
        // One fault is enough to refuse an account; a file of another kind must not fill the memory with them.
        if let Err(fault) = result
            && self.faults.len() < LISTED
        {
            self.faults.push(fault);
        }
    }
}

/// Accounts on their way to the engine.
#[derive(Default)]
struct Page {
    plans: Vec<Plan>,
    steps: usize,
}

impl Page {
    fn add(&mut self, options: &ImportOptions, rows: Rows, report: &mut PointsImportReport) {
        if rows.first_line == 0 {
            return;
        }
        report.accounts += 1;
        match options.plan(rows, clock::now()) {
            Ok(Some(plan)) => {
                self.steps += plan.imported.steps.len();
                self.plans.push(plan);
            }
            Ok(None) => report.empty += 1,
            Err(faults) => {
                report.bad += 1;
                faults.into_iter().for_each(|fault| report.refuse(fault));
            }
        }
    }

    fn is_full(&self) -> bool {
        self.plans.len() >= PAGE || self.steps >= STEPS_PER_PAGE
    }

    /// Decides the accounts; those with lines here already are counted apart.
    async fn send(
        &mut self,
        store: &Store,
        engine: &Engine,
        options: &ImportOptions,
        report: &mut PointsImportReport,
    ) -> anyhow::Result<()> {
        let plans = std::mem::take(self).plans;
        let members: Vec<MemberId> = plans.iter().map(|plan| plan.imported.member_id.clone()).collect();
        let existing = store.members_with_accounts(options.tenant, &members).await?;
        let mut sent = Vec::with_capacity(plans.len());
        let mut envelopes = Vec::with_capacity(plans.len());
        for plan in plans {
            if existing.contains(&plan.imported.member_id) {
                report.existing += 1;
                continue;
            }
            if options.dry_run {
                report.count(plan.there, plan.imported.expected, plan.debt, plan.opening);
                continue;
            }
            let Plan { line, imported, there, debt, opening } = plan;
            sent.push((line, imported.member_id.clone(), there, imported.expected, debt, opening));
            envelopes.push(options.envelope(Command::ImportAccount(Box::new(imported)), clock::now()));
        }
        for ((line, member_id, there, expected, debt, opening), answer) in
            sent.into_iter().zip(engine.submit_all(envelopes).await)
        {
            match answer.context("the import stopped; run it again: what is there is not changed")? {
                Answer::Accepted { .. } => report.count(there, expected, debt, opening),
                Answer::Refused(Rejection::AccountExists) => report.existing += 1,
                Answer::Refused(rejection) => {
                    report.bad += 1;
                    report.refuse(fault(line, member_id.as_str(), format!("is refused: {}", rejection.code())));
                }
            }
        }
        Ok(())
    }
}

impl PointsImportReport {
    fn count(&mut self, there: ImportedColumns, expected: Columns, debt: i64, opening: Option<Fault>) {
        let here = ImportedColumns::of(expected);
        self.imported += 1;
        self.there.add(there);
        self.here.add(here);
        self.overdue += here.expired - there.expired;
        self.debt += debt;
        if let Some(fault) = opening {
            self.opened += 1;
            if self.openings.len() < LISTED {
                self.openings.push(fault.0);
            }
        }
    }
}

impl ImportOptions {
    fn envelope(&self, command: Command, at: Timestamp) -> Envelope {
        Envelope { tenant: self.tenant, actor: None, command, idempotency: None, at, now: at, seed: clock::seed(at) }
    }

    /// What to send of an account, if it reconciles and has anything.
    fn plan(&self, mut rows: Rows, now: Timestamp) -> Result<Option<Plan>, Vec<Fault>> {
        let first_line = rows.first_line;
        let shown = std::mem::take(&mut rows.member);
        let one = |line: u64, message: String| vec![fault(line, &shown, message)];
        let member_id: MemberId = shown.parse().map_err(|error| one(first_line, format!("member_id: {error}")))?;
        if !rows.faults.is_empty() {
            return Err(rows.faults);
        }
        let Some(account) = rows.account else {
            let message = "the member has no account row, or its rows are not together: sort the file by member_id";
            return Err(one(first_line, message.to_owned()));
        };
        let there = account.row.columns().map_err(|message| one(account.line, message))?;
        let began_at = match &account.row.create_time {
            Some(text) => Some(self.time("create_time", text).map_err(|message| one(account.line, message))?),
            None => None,
        };
        let lots = self.lots(&rows.lots, now)?;
        if !lots.is_empty() {
            let sums = (lots.iter().map(|lot| lot.available).sum::<i64>(), lots.iter().map(|lot| lot.frozen).sum());
            if sums != (there.available, there.frozen) {
                let (available, frozen) = sums;
                let message = format!(
                    "its lots have {available} available and {frozen} frozen, the account {} and {}",
                    there.available, there.frozen
                );
                return Err(one(account.line, message));
            }
        }
        let owes = rows.debts.iter().any(|debt| debt.row.is_open());
        if there.total_points == 0 && rows.transactions.is_empty() && !owes {
            return Ok(None);
        }
        // The transaction that made each step, where the steps are those of the history.
        let mut made_by = Vec::new();
        let history = match rows.transactions.is_empty() {
            true if lots.is_empty() && there.available + there.frozen > 0 => Err(fault(
                account.line,
                &shown,
                "it has neither lots nor a history, so nobody knows when its points end",
            )),
            true => Ok(None),
            false => {
                let of_lots: HashMap<&str, Option<Timestamp>> = rows
                    .lots
                    .iter()
                    .zip(&lots)
                    .filter_map(|(placed, lot)| Some((placed.row.source_transaction_id.as_deref()?, lot.expires_at)))
                    .collect();
                let replayed = self.history(&rows.transactions, &of_lots, now).and_then(|history| {
                    let last = rows.transactions.last().map_or(first_line, |last| last.line);
                    made_by = history.lines.iter().map(|(_, id)| id.clone()).collect();
                    self.reconcile(&member_id, history, (there, last), &lots, now)
                });
                replayed.map(Some)
            }
        };
        let opened = || self.opening(&member_id, there, &lots, began_at, now);
        let (mut imported, opening) = match history {
            Ok(Some(imported)) => (imported, None),
            Ok(None) => (opened(), None),
            Err(fault) if self.opening => {
                made_by.clear();
                (opened(), Some(fault))
            }
            Err(fault) => return Err(vec![fault]),
        };
        let debt = owe(&mut imported.steps, &made_by, &rows.debts, now).map_err(|fault| vec![fault])?;
        // The last word on every way: the same decision, and the same columns.
        let rehearsal = rehearse(&self.envelope(Command::SettleAccount(member_id.clone()), now), &imported)
            .map_err(|(_, rejection)| one(account.line, format!("cannot be taken over: {}", rejection.code())))?;
        let imported = ImportedAccount { expected: rehearsal.made.columns, ..imported };
        if rehearsal.account.account.debt != debt {
            let message = format!("comes to a debt of {}, not of {debt}", rehearsal.account.account.debt);
            return Err(one(account.line, message));
        }
        let here = ImportedColumns::of(imported.expected);
        let same = here.total_points == there.total_points
            && here.frozen == there.frozen
            && here.used == there.used
            && here.available + here.expired == there.available + there.expired
            && here.expired >= there.expired;
        if !same {
            return Err(one(account.line, format!("comes to {here:?}, the account has {there:?}")));
        }
        Ok(Some(Plan { line: account.line, imported, there, debt, opening }))
    }

    fn lots(&self, rows: &[Placed<LotRow>], now: Timestamp) -> Result<Vec<Lot>, Vec<Fault>> {
        let mut lots = Vec::with_capacity(rows.len());
        let mut faults = Vec::new();
        for Placed { line, row } in rows {
            match self.lot(*line, row, now) {
                Ok(lot) => lots.push(lot),
                Err(message) => faults.push(fault(*line, &row.id, message)),
            }
        }
        if faults.is_empty() { Ok(lots) } else { Err(faults) }
    }

    fn lot(&self, line: u64, row: &LotRow, now: Timestamp) -> Checked<Lot> {
        let parts = [row.available_amount, row.frozen_amount, row.consumed_amount, row.expired_amount];
        let sum = parts.iter().try_fold(0_i64, |sum, part| sum.checked_add(*part));
        if parts.iter().any(|part| *part < 0) || sum != Some(row.total_amount) {
            return Err(format!("total_amount {} is not the sum of its parts {parts:?}", row.total_amount));
        }
        if row.total_amount > MAX_POINTS {
            return Err(format!("total_amount is more than {MAX_POINTS}"));
        }
        let created_at = self.time("create_time", &row.create_time)?;
        let expires_at = super::filled(&row.expire_time).map(|text| self.time("expire_time", &text)).transpose()?;
        if created_at > now {
            return Err("create_time lies in the future".into());
        }
        if expires_at.is_some_and(|end| end <= created_at) {
            return Err("expire_time is not after create_time".into());
        }
        let (available, frozen) = (row.available_amount, row.frozen_amount);
        Ok(Lot { line, id: row.id.clone(), available, frozen, created_at, expires_at })
    }

    /// The transactions as steps.
    fn history(
        &self,
        rows: &[Placed<TransactionRow>],
        of_lots: &HashMap<&str, Option<Timestamp>>,
        now: Timestamp,
    ) -> Result<History, Fault> {
        let mut history = History::default();
        let mut balance = 0;
        for (at, Placed { line, row }) in self.in_order(rows, now)? {
            let refused = |message: String| fault(*line, &row.id, message);
            // What settles a hold leaves the balance as it is.
            let settles = row.balance_before == row.balance_after && row.r#type.starts_with("USE_");
            let change = if settles { 0 } else { row.amount };
            if row.balance_before != balance {
                let message =
                    format!("balance_before is {}, the transaction before left {balance}", row.balance_before);
                return Err(refused(message));
            }
            if row.balance_before.checked_add(change) != Some(row.balance_after) {
                let message =
                    format!("balance_after is {}, not {} and {change}", row.balance_after, row.balance_before);
                return Err(refused(message));
            }
            balance = row.balance_after;
            let expires_at = match of_lots.get(row.id.as_str()) {
                Some(of_lot) => *of_lot,
                None => super::filled(&row.expire_time)
                    .map(|text| self.time("expire_time", &text))
                    .transpose()
                    .map_err(refused)?,
            };
            history.add(at, row, settles, expires_at).map_err(refused)?;
            history.lines.resize(history.steps.len(), (*line, row.id.clone()));
        }
        history.balance = balance;
        Ok(history)
    }

    /// In the order of time; of one instant, each as it continues the balance of the one before.
    fn in_order<'a>(
        &self,
        rows: &'a [Placed<TransactionRow>],
        now: Timestamp,
    ) -> Result<Vec<(Timestamp, &'a Placed<TransactionRow>)>, Fault> {
        let mut by_time: BTreeMap<Timestamp, VecDeque<&Placed<TransactionRow>>> = BTreeMap::new();
        for placed in rows {
            let at = self.time("create_time", &placed.row.create_time);
            let at = at.map_err(|message| fault(placed.line, &placed.row.id, message))?;
            if at > now {
                return Err(fault(placed.line, &placed.row.id, "create_time lies in the future"));
            }
            by_time.entry(at).or_default().push_back(placed);
        }
        let mut ordered = Vec::with_capacity(rows.len());
        let mut balance = 0;
        for (at, mut group) in by_time {
            while !group.is_empty() {
                let next = group.iter().position(|placed| placed.row.balance_before == balance).unwrap_or(0);
                let Some(placed) = group.remove(next) else { break };
                balance = placed.row.balance_after;
                ordered.push((at, placed));
            }
        }
        Ok(ordered)
    }

    /// Compares what the history comes to with the account and its lots.
    fn reconcile(
        &self,
        member_id: &MemberId,
        history: History,
        (there, last): (ImportedColumns, u64),
        lots: &[Lot],
        now: Timestamp,
    ) -> Result<ImportedAccount, Fault> {
        let History { steps, lines, balance, .. } = history;
        if balance != there.available {
            let message = format!("the history leaves {balance}, the account has {} available", there.available);
            return Err(fault(last, member_id.as_str(), message));
        }
        let imported = ImportedAccount { member_id: member_id.clone(), steps, expected: Columns::default() };
        let envelope = self.envelope(Command::SettleAccount(member_id.clone()), now);
        let rehearsal = rehearse(&envelope, &imported).map_err(|(place, rejection)| {
            let (line, id) = lines.get(place).cloned().unwrap_or((last, member_id.to_string()));
            fault(line, &id, format!("could not have been: {}", rejection.code()))
        })?;
        let here = ImportedColumns::of(rehearsal.made.columns);
        for (name, here, there) in [
            ("total_points", here.total_points, there.total_points),
            ("frozen_points", here.frozen, there.frozen),
            ("used_points", here.used, there.used),
            ("available_points and expired_points", here.available + here.expired, there.available + there.expired),
        ] {
            if here != there {
                let message = format!("the history comes to {here} {name}, the account has {there}");
                return Err(fault(last, member_id.as_str(), message));
            }
        }
        if here.expired < there.expired {
            let message = format!("{} points expired there, by when its lots end {} have", there.expired, here.expired);
            return Err(fault(last, member_id.as_str(), message));
        }
        if !lots.is_empty() {
            // What is left, by when it ends; what a hold keeps of a lot that has ended counts for that end.
            let mut left: BTreeMap<Timestamp, (i64, u64, &str)> = BTreeMap::new();
            for lot in lots {
                let end = lot.expires_at.unwrap_or(Timestamp::NEVER);
                let open = lot.frozen + if end > now { lot.available } else { 0 };
                let entry = left.entry(end).or_insert((0, lot.line, &lot.id));
                entry.0 += open;
            }
            let mut made: BTreeMap<Timestamp, i64> = BTreeMap::new();
            for lot in rehearsal.account.lots() {
                *made.entry(lot.expires_at).or_default() += lot.remaining + lot.held;
            }
            for (end, (points, line, id)) in left {
                let here = made.remove(&end).unwrap_or(0);
                if here != points {
                    let message = format!("lots that end with it have {points} left, by the history {here}");
                    return Err(fault(line, id, message));
                }
            }
            if let Some((_, points)) = made.into_iter().find(|(_, points)| *points > 0) {
                let message = format!("by the history {points} points are left in a lot that the file does not have");
                return Err(fault(last, member_id.as_str(), message));
            }
        }
        Ok(imported)
    }

    /// The account as it stands: its open lots, and what was spent or had expired before.
    fn opening(
        &self,
        member_id: &MemberId,
        there: ImportedColumns,
        lots: &[Lot],
        began_at: Option<Timestamp>,
        now: Timestamp,
    ) -> ImportedAccount {
        let earliest = lots.iter().map(|lot| lot.created_at).chain(began_at).min();
        // Room for what had expired to end before anything else begins.
        let began_at = earliest.unwrap_or(now).min(Timestamp(now.0 - 2));
        let movement = |points, kind, reference: Option<&str>, remark: &str| Movement {
            points,
            kind,
            reference: reference.map(|text| cut(text, REFERENCE_CHARS)),
            remark: Some(remark.to_owned()),
        };
        let mut steps = Vec::new();
        let mut add = |at, action| steps.push(ImportedStep { at, action });
        let grant = |points, reference, remark: &str, expires_at| ImportedAction::Grant {
            movement: movement(points, TransactionType::EarnAdmin, reference, remark),
            expires_at,
        };
        if there.used > 0 {
            add(began_at, grant(there.used, None, "spent before the import", None));
            let movement = movement(there.used, TransactionType::UseOrder, None, "spent before the import");
            add(began_at, ImportedAction::Debit { movement });
        }
        if there.expired > 0 {
            let end = Some(Timestamp(began_at.0 + 1));
            add(began_at, grant(there.expired, None, "expired before the import", end));
        }
        let whole = Lot {
            line: 0,
            id: String::new(),
            available: there.available,
            frozen: there.frozen,
            created_at: Timestamp(began_at.0 + 1),
            expires_at: None,
        };
        let mut open: Vec<&Lot> = if lots.is_empty() { vec![&whole] } else { lots.iter().collect() };
        open.sort_by_key(|lot| lot.created_at);
        let mut places = usize::from(there.used > 0) * 2 + usize::from(there.expired > 0);
        for lot in open.into_iter().filter(|lot| lot.available + lot.frozen > 0) {
            let reference = (!lot.id.is_empty()).then_some(lot.id.as_str());
            add(lot.created_at, grant(lot.available + lot.frozen, reference, "imported", lot.expires_at));
            if lot.frozen > 0 {
                let movement = movement(lot.frozen, TransactionType::Hold, reference, "frozen before the import");
                add(lot.created_at, ImportedAction::Hold { movement, of_grant: Some(places) });
                places += 1;
            }
            places += 1;
        }
        ImportedAccount { member_id: member_id.clone(), steps, expected: Columns::default() }
    }
}

/// Adds what the member owes behind all else, so that nothing earned there settles it; how much in all. Each debt is of the grant
/// that its row names, by the transaction or by what that was for; of an account without its history, of what had been spent.
fn owe(
    steps: &mut Vec<ImportedStep>,
    made_by: &[String],
    debts: &[Placed<DebtRow>],
    now: Timestamp,
) -> Result<i64, Fault> {
    let at = steps.last().map_or(now, |step| step.at);
    let mut left: Vec<i64> = steps
        .iter()
        .map(|step| match &step.action {
            ImportedAction::Grant { movement, .. } => movement.points,
            _ => 0,
        })
        .collect();
    let mut owed = 0_i64;
    for Placed { line, row } in debts {
        let refused = |message: String| fault(*line, &row.id, message);
        if !row.is_open() {
            if !matches!(row.status.as_str(), "RESOLVED" | "CANCELLED") {
                return Err(refused(format!("its status is {}", row.status)));
            }
            continue;
        }
        let points = row.debt_amount;
        if !(1..=MAX_POINTS).contains(&points) {
            return Err(refused(format!("a debt of {points} is none")));
        }
        let (source, related) = (super::filled(&row.source_transaction_id), super::filled(&row.related_id));
        let by_id = made_by.iter().position(|id| Some(id) == source.as_ref());
        let is_for = |step: &ImportedStep| match &step.action {
            ImportedAction::Grant { movement, .. } => related.is_some() && movement.reference == related,
            _ => false,
        };
        let found = match by_id.filter(|place| left[*place] > 0) {
            None if made_by.is_empty() => left.iter().position(|left| *left >= points),
            None => steps.iter().position(is_for),
            found => found,
        };
        let Some(grant) = found else {
            return Err(refused(format!(
                "{points} points are owed of no grant in the file: neither source_transaction_id nor related_id names one"
            )));
        };
        if left[grant] < points {
            return Err(refused(format!("{points} points are owed of a grant of which {} can be", left[grant])));
        }
        left[grant] -= points;
        owed += points;
        let remark = super::filled(&row.remark).map(|text| cut(&text, REMARK_CHARS));
        steps.push(ImportedStep { at, action: ImportedAction::Owe { grant, points, remark } });
        left.push(0);
    }
    Ok(owed)
}

/// A history on its way to steps.
#[derive(Default)]
struct History {
    steps: Vec<ImportedStep>,
    /// The line and the id of the transaction that made each step.
    lines: Vec<(u64, String)>,
    balance: i64,
    /// Holds that have not ended: step, points and what they are for.
    holds: Vec<(usize, i64, Option<String>)>,
    /// Debits with what of them was not returned, by what they are for.
    debits: HashMap<String, VecDeque<(usize, i64)>>,
}

impl History {
    fn add(
        &mut self,
        at: Timestamp,
        row: &TransactionRow,
        settles: bool,
        expires_at: Option<Timestamp>,
    ) -> Result<(), String> {
        if !matches!(row.status.as_deref(), None | Some("COMPLETED" | "CANCELLED")) {
            return Err(format!("its status is {}", row.status.as_deref().unwrap_or_default()));
        }
        let place = self.steps.len();
        let related = super::filled(&row.related_id);
        let comes_in = row.r#type.starts_with("EARN_") || matches!(row.r#type.as_str(), "REFUND" | "UNFREEZE");
        let points = if comes_in { row.amount } else { row.amount.saturating_neg() };
        if !(1..=MAX_POINTS).contains(&points) {
            return Err(format!("an amount of {} does not fit {}", row.amount, row.r#type));
        }
        let movement = |kind| Movement {
            points,
            kind,
            reference: related.as_deref().map(|text| cut(text, REFERENCE_CHARS)),
            remark: super::filled(&row.remark).map(|text| cut(&text, REMARK_CHARS)),
        };
        let action = match row.r#type.as_str() {
            "EARN_ORDER" => ImportedAction::Grant { movement: movement(TransactionType::EarnOrder), expires_at },
            "EARN_SIGNIN" => ImportedAction::Grant { movement: movement(TransactionType::EarnCheckin), expires_at },
            "EARN_TASK" => ImportedAction::Grant { movement: movement(TransactionType::EarnTask), expires_at },
            "EARN_ADMIN" => ImportedAction::Grant { movement: movement(TransactionType::EarnAdmin), expires_at },
            "FREEZE" => {
                self.holds.push((place, points, related.clone()));
                ImportedAction::Hold { movement: movement(TransactionType::Hold), of_grant: None }
            }
            "UNFREEZE" => ImportedAction::Release { hold: self.end_hold(points, &related)? },
            "USE_ORDER" | "USE_COUPON" | "USE_PRODUCT" if settles => {
                let hold = self.end_hold(points, &related)?;
                self.debits.entry(related.unwrap_or_default()).or_default().push_back((place, points));
                ImportedAction::Capture { hold }
            }
            "USE_ORDER" | "USE_COUPON" | "USE_PRODUCT" | "DEDUCT_ADMIN" => {
                let kind = TransactionType::parse(&row.r#type).unwrap_or(TransactionType::UseOrder);
                let action = ImportedAction::Debit { movement: movement(kind) };
                self.debits.entry(related.unwrap_or_default()).or_default().push_back((place, points));
                action
            }
            "REFUND" => return self.refund(at, row, points, related.unwrap_or_default()),
            // Lots end by themselves here; how much had expired is compared at the end.
            "EXPIRE" => return Ok(()),
            other => return Err(format!("the type {other} is not known")),
        };
        self.steps.push(ImportedStep { at, action });
        Ok(())
    }

    /// The open hold for this, of so many points.
    fn end_hold(&mut self, points: i64, related: &Option<String>) -> Result<usize, String> {
        let found = self.holds.iter().position(|(_, held, of)| *held == points && of == related);
        let found = found.ok_or_else(|| format!("there is no open FREEZE of {points} with its related_id"))?;
        Ok(self.holds.remove(found).0)
    }

    /// Returns points to the debits for the same, oldest first.
    fn refund(&mut self, at: Timestamp, row: &TransactionRow, points: i64, related: String) -> Result<(), String> {
        let mut open = points;
        while open > 0 {
            let debits = self.debits.get_mut(&related);
            let Some((debit, left)) = debits.and_then(|debits| debits.front_mut()) else {
                return Err(format!("{open} points return that were not spent with its related_id"));
            };
            let (debit, part) = (*debit, open.min(*left));
            *left -= part;
            open -= part;
            if *left == 0
                && let Some(debits) = self.debits.get_mut(&related)
            {
                debits.pop_front();
            }
            let remark = super::filled(&row.remark).map(|text| cut(&text, REMARK_CHARS));
            self.steps.push(ImportedStep { at, action: ImportedAction::Refund { debit, points: part, remark } });
        }
        Ok(())
    }
}

impl AccountRow {
    fn columns(&self) -> Checked<ImportedColumns> {
        let columns = ImportedColumns {
            total_points: self.total_points,
            available: self.available_points,
            frozen: self.frozen_points,
            used: self.used_points,
            expired: self.expired_points,
        };
        let parts = [columns.available, columns.frozen, columns.used, columns.expired];
        let sum = parts.iter().try_fold(0_i64, |sum, part| sum.checked_add(*part));
        if parts.iter().any(|part| *part < 0) || sum != Some(columns.total_points) {
            return Err(format!("total_points {} is not the sum of its parts {parts:?}", columns.total_points));
        }
        if columns.total_points > MAX_POINTS {
            return Err(format!("total_points is more than {MAX_POINTS}"));
        }
        Ok(columns)
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
