//! Coupons, their uses, templates, the ledger of points and its balances as CSV or XLSX, however many there are.
//!
//! Rows are read in keyset pages and written as they come, so an export holds a page at a time, takes no lock, and ends only
//! with the last row; what changes meanwhile shows or not, row by row. An XLSX file is put together in a temporary file, with
//! each row flushed when the next one begins; rows beyond what a sheet can have go on in the next one.
//!
//! Texts that a spreadsheet would take for a formula get an apostrophe before them in CSV (OWASP, CSV injection); in XLSX a
//! text is a text.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::Context;
use rust_xlsxwriter::{Format as CellFormat, Workbook};
use scrip_domain::coupon::{Coupon, CouponStatus, Template};
use scrip_domain::points::{Transaction, TransactionType};
use scrip_domain::{CouponId, MemberId, TemplateId, TenantId, Timestamp, TransactionId};

use crate::clock;
use crate::store::Store;
use crate::store::read::StoredBalance;

/// Rows read at a time.
const PAGE: i64 = 1_000;
/// Rows of a sheet, its head included, at most.
const SHEET_ROWS: u32 = 1_048_576;
/// Whole numbers that a spreadsheet's cells hold exactly.
const EXACT: i64 = 1 << 53;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Csv,
    Xlsx,
}

impl Format {
    pub fn parse(text: &str) -> Option<Format> {
        match text {
            "csv" => Some(Format::Csv),
            "xlsx" => Some(Format::Xlsx),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Xlsx => "xlsx",
        }
    }
}

/// What to export.
#[derive(Debug, Clone)]
pub enum What {
    Coupons {
        template: Option<TemplateId>,
        status: Option<CouponStatus>,
    },
    Usages {
        template: Option<TemplateId>,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    },
    Templates,
    /// The ledger of all members, oldest first: lines that took effect in `[from, until)`.
    PointsTransactions {
        kind: Option<TransactionType>,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    },
    /// Every account, as it stands when the export begins: what has expired by then counts as expired, written or not.
    PointsBalances,
}

impl What {
    pub fn name(&self) -> &'static str {
        match self {
            What::Coupons { .. } => "coupons",
            What::Usages { .. } => "usages",
            What::Templates => "templates",
            What::PointsTransactions { .. } => "points-transactions",
            What::PointsBalances => "points-balances",
        }
    }

    fn columns(&self) -> &'static [&'static str] {
        match self {
            What::Coupons { .. } => &[
                "coupon_id",
                "template_id",
                "template_version",
                "name",
                "member_id",
                "status",
                "source",
                "sequence",
                "claimed_at",
                "valid_from",
                "valid_until",
                "order_id",
                "discount_amount",
                "used_at",
            ],
            What::Usages { .. } => {
                &["used_at", "coupon_id", "template_id", "name", "member_id", "order_id", "discount_amount"]
            }
            What::Templates => &[
                "template_id",
                "name",
                "type",
                "enabled",
                "archived_at",
                "total_stock",
                "remaining_stock",
                "claimed_count",
                "used_count",
                "daily_cap",
                "weekly_cap",
                "monthly_cap",
                "budget",
                "points_price",
                "committed_amount",
                "limit_per_member",
                "version",
                "created_at",
                "updated_at",
            ],
            What::PointsTransactions { .. } => LEDGER_COLUMNS,
            What::PointsBalances => &[
                "member_id",
                "available",
                "frozen",
                "used",
                "expired",
                "revoked",
                "total_points",
                "debt",
                "merged_into",
                "updated_at",
            ],
        }
    }
}

/// Those of a line of the ledger.
pub const LEDGER_COLUMNS: &[&str] = &[
    "member_id",
    "sequence",
    "transaction_id",
    "type",
    "points",
    "balance_before",
    "balance_after",
    "frozen_after",
    "debt_after",
    "points_forgiven",
    "reference",
    "remark",
    "hold_id",
    "reverses_id",
    "counterpart_id",
    "rules_version",
    "expires_at",
    "occurred_at",
    "recorded_at",
];

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Empty,
    Int(i64),
    Text(String),
}

impl Cell {
    pub fn id(id: impl std::fmt::Display) -> Cell {
        Cell::Text(id.to_string())
    }

    pub fn time(at: Timestamp) -> Cell {
        Cell::Text(jiff::Timestamp::from_microsecond(at.0).map(|time| time.to_string()).unwrap_or_default())
    }

    fn option(value: Option<i64>) -> Cell {
        value.map_or(Cell::Empty, Cell::Int)
    }

    fn text(value: Option<&str>) -> Cell {
        value.map_or(Cell::Empty, |text| Cell::Text(text.to_owned()))
    }
}

/// Reads an export page by page.
pub struct Reader {
    store: Store,
    tenant: TenantId,
    what: What,
    now: Timestamp,
    cursor: Cursor,
}

enum Cursor {
    Start,
    Id(uuid::Uuid),
    Claim(MemberId, i64),
    Use(Timestamp, CouponId),
    Member(MemberId),
    End,
}

impl Reader {
    pub fn new(store: Store, tenant: TenantId, what: What) -> Reader {
        Reader { store, tenant, what, now: clock::now(), cursor: Cursor::Start }
    }

    /// The next rows; `None` after the last.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<Vec<Cell>>>> {
        if matches!(self.cursor, Cursor::End) {
            return Ok(None);
        }
        let rows = match self.what.clone() {
            What::Coupons { template, status } => {
                let coupons = self.next_coupons(template).await?;
                let shown =
                    coupons.iter().filter(|coupon| status.is_none_or(|wanted| coupon.status_at(self.now) == wanted));
                let mut rows = Vec::with_capacity(coupons.len());
                for coupon in shown {
                    rows.push(self.coupon(coupon).await?);
                }
                rows
            }
            What::Usages { template, from, until } => {
                let after = match &self.cursor {
                    Cursor::Use(at, id) => Some((*at, *id)),
                    _ => None,
                };
                let page = self.store.list_usages(self.tenant, template, from, until, after, PAGE).await?;
                self.cursor = match page.last() {
                    Some(last) if page.len() as i64 == PAGE => Cursor::Use(last.used_at.unwrap_or(self.now), last.id),
                    _ => Cursor::End,
                };
                self.learn(&page).await?;
                let mut rows = Vec::with_capacity(page.len());
                for coupon in &page {
                    rows.push(vec![
                        coupon.used_at.map_or(Cell::Empty, Cell::time),
                        Cell::id(coupon.id),
                        Cell::id(coupon.template_id),
                        Cell::Text(self.name_of(coupon).await?),
                        Cell::id(&coupon.member_id),
                        coupon.order_id.as_ref().map_or(Cell::Empty, Cell::id),
                        Cell::option(coupon.discount_amount),
                    ]);
                }
                rows
            }
            What::Templates => {
                let after = match self.cursor {
                    Cursor::Id(id) => Some(TemplateId(id)),
                    _ => None,
                };
                let page = self.store.list_templates(self.tenant, None, None, None, after, PAGE).await?;
                self.cursor = match page.last() {
                    Some(last) if page.len() as i64 == PAGE => Cursor::Id(last.id.0),
                    _ => Cursor::End,
                };
                page.iter().map(template).collect()
            }
            What::PointsTransactions { kind, from, until } => {
                let after = match self.cursor {
                    Cursor::Id(id) => Some(TransactionId(id)),
                    _ => None,
                };
                // A line takes effect no later than it is recorded, so none of the period comes before its begin.
                let page = self.store.all_transactions(self.tenant, after, from, PAGE).await?;
                self.cursor = match page.last() {
                    Some(last) if page.len() as i64 == PAGE => Cursor::Id(last.id.0),
                    _ => Cursor::End,
                };
                let is_wanted = |line: &&Transaction| {
                    from.is_none_or(|from| from <= line.occurred_at)
                        && until.is_none_or(|until| line.occurred_at < until)
                        && kind.is_none_or(|kind| kind == line.kind)
                };
                page.iter().filter(is_wanted).map(ledger_line).collect()
            }
            What::PointsBalances => {
                let after = match &self.cursor {
                    Cursor::Member(member) => Some(member),
                    _ => None,
                };
                let page = self.store.all_balances(self.tenant, self.now, after, PAGE).await?;
                self.cursor = match page.last() {
                    Some(last) if page.len() as i64 == PAGE => Cursor::Member(last.account.member_id.clone()),
                    _ => Cursor::End,
                };
                page.iter().map(balance).collect()
            }
        };
        Ok(Some(rows))
    }

    async fn next_coupons(&mut self, template: Option<TemplateId>) -> anyhow::Result<Vec<Coupon>> {
        let page = match template {
            None => {
                let after = match self.cursor {
                    Cursor::Id(id) => Some(CouponId(id)),
                    _ => None,
                };
                self.store.scan_coupons(self.tenant, after, PAGE).await?
            }
            Some(template) => {
                let after = match &self.cursor {
                    Cursor::Claim(member, sequence) => Some((member.clone(), *sequence)),
                    _ => None,
                };
                let after = after.as_ref().map(|(member, sequence)| (member, *sequence));
                self.store.scan_coupons_of(self.tenant, template, after, PAGE).await?
            }
        };
        self.cursor = match page.last() {
            Some(last) if page.len() as i64 == PAGE && template.is_some() => {
                Cursor::Claim(last.member_id.clone(), last.sequence)
            }
            Some(last) if page.len() as i64 == PAGE => Cursor::Id(last.id.0),
            _ => Cursor::End,
        };
        self.learn(&page).await?;
        Ok(page)
    }

    async fn learn(&self, page: &[Coupon]) -> anyhow::Result<()> {
        let versions = page.iter().map(|coupon| (coupon.template_id, coupon.template_version));
        Ok(self.store.learn_definitions(self.tenant, versions).await?)
    }

    /// From memory: the page's definitions have just been learned.
    async fn name_of(&self, coupon: &Coupon) -> anyhow::Result<String> {
        let found = self.store.definition(self.tenant, coupon.template_id, coupon.template_version).await?;
        Ok(found.map(|definition| definition.name.clone()).unwrap_or_default())
    }

    async fn coupon(&self, coupon: &Coupon) -> anyhow::Result<Vec<Cell>> {
        Ok(vec![
            Cell::id(coupon.id),
            Cell::id(coupon.template_id),
            Cell::Int(coupon.template_version),
            Cell::Text(self.name_of(coupon).await?),
            Cell::id(&coupon.member_id),
            Cell::Text(coupon.status_at(self.now).as_str().to_owned()),
            Cell::Text(coupon.source.as_str().to_owned()),
            Cell::Int(coupon.sequence),
            Cell::time(coupon.claimed_at),
            Cell::time(coupon.valid_from),
            Cell::time(coupon.valid_until),
            coupon.order_id.as_ref().map_or(Cell::Empty, Cell::id),
            Cell::option(coupon.discount_amount),
            coupon.used_at.map_or(Cell::Empty, Cell::time),
        ])
    }
}

fn template(row: &Template) -> Vec<Cell> {
    vec![
        Cell::id(row.id),
        Cell::Text(row.definition.name.clone()),
        Cell::Text(row.definition.benefit.kind().to_owned()),
        Cell::Text(row.enabled.to_string()),
        row.archived_at.map_or(Cell::Empty, Cell::time),
        Cell::option(row.total_stock),
        Cell::option(row.remaining_stock),
        Cell::Int(row.claimed_count),
        Cell::Int(row.used_count),
        Cell::option(row.definition.daily_cap),
        Cell::option(row.definition.weekly_cap),
        Cell::option(row.definition.monthly_cap),
        Cell::option(row.definition.budget),
        Cell::option(row.definition.points_price),
        Cell::Int(row.committed_amount),
        Cell::Int(row.definition.limit_per_member),
        Cell::Int(row.version),
        Cell::time(row.created_at),
        Cell::time(row.updated_at),
    ]
}

/// A line of the ledger under [`LEDGER_COLUMNS`].
pub fn ledger_line(line: &Transaction) -> Vec<Cell> {
    vec![
        Cell::id(&line.member_id),
        Cell::Int(line.sequence),
        Cell::id(line.id),
        Cell::Text(line.kind.as_str().to_owned()),
        Cell::Int(line.points),
        Cell::Int(line.balance_before),
        Cell::Int(line.balance_after),
        Cell::Int(line.frozen_after),
        Cell::Int(line.debt_after),
        Cell::Int(line.points_forgiven),
        Cell::text(line.reference.as_deref()),
        Cell::text(line.remark.as_deref()),
        line.hold_id.map_or(Cell::Empty, Cell::id),
        line.reverses_id.map_or(Cell::Empty, Cell::id),
        line.counterpart_id.map_or(Cell::Empty, Cell::id),
        Cell::option(line.rules_version),
        line.expires_at.map_or(Cell::Empty, Cell::time),
        Cell::time(line.occurred_at),
        Cell::time(line.recorded_at),
    ]
}

fn balance(StoredBalance { account, overdue }: &StoredBalance) -> Vec<Cell> {
    vec![
        Cell::id(&account.member_id),
        Cell::Int(account.available - overdue),
        Cell::Int(account.frozen),
        Cell::Int(account.used),
        Cell::Int(account.expired + overdue),
        Cell::Int(account.revoked),
        Cell::Int(account.total_points),
        Cell::Int(account.debt),
        account.merged_into.as_ref().map_or(Cell::Empty, Cell::id),
        Cell::time(account.updated_at),
    ]
}

/// The head of a CSV file.
pub fn csv_head(what: &What) -> Vec<u8> {
    csv_names(what.columns())
}

/// Names of columns as a line of CSV.
pub fn csv_names(names: &[&str]) -> Vec<u8> {
    csv_rows(&[names.iter().map(|name| Cell::Text((*name).to_owned())).collect()])
}

/// Rows as lines of CSV (RFC 4180).
pub fn csv_rows(rows: &[Vec<Cell>]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for row in rows {
        for cell in row {
            // Writing to memory does not fail.
            let _ = match cell {
                Cell::Empty => writer.write_field(""),
                Cell::Int(number) => writer.write_field(number.to_string()),
                Cell::Text(text) => writer.write_field(harmless(text).as_ref()),
            };
        }
        let _ = writer.write_record(None::<&[u8]>);
    }
    writer.into_inner().unwrap_or_default()
}

/// A text that no spreadsheet takes for a formula.
fn harmless(text: &str) -> std::borrow::Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}").into() } else { text.into() }
}

/// Puts rows into sheets.
struct Sheets {
    workbook: Workbook,
    what: What,
    sheets: usize,
    /// The next row of the current sheet.
    row: u32,
    rows_per_sheet: u32,
}

impl Sheets {
    fn new(what: What, rows_per_sheet: u32) -> Sheets {
        Sheets { workbook: Workbook::new(), what, sheets: 0, row: rows_per_sheet, rows_per_sheet }
    }

    fn write(&mut self, rows: &[Vec<Cell>]) -> anyhow::Result<()> {
        for row in rows {
            if self.row >= self.rows_per_sheet {
                self.add_sheet()?;
            }
            self.write_row(row)?;
        }
        Ok(())
    }

    fn add_sheet(&mut self) -> anyhow::Result<()> {
        self.sheets += 1;
        self.row = 1;
        let name = match self.sheets {
            1 => self.what.name().to_owned(),
            number => format!("{} {number}", self.what.name()),
        };
        let bold = CellFormat::new().set_bold();
        let sheet = self.workbook.add_worksheet_with_constant_memory()?;
        sheet.set_name(&name)?;
        for (column, title) in (0..).zip(self.what.columns()) {
            sheet.write_string_with_format(0, column, *title, &bold)?;
        }
        Ok(())
    }

    fn write_row(&mut self, cells: &[Cell]) -> anyhow::Result<()> {
        let sheet = self.workbook.worksheet_from_index(self.sheets - 1)?;
        for (column, cell) in (0..).zip(cells) {
            match cell {
                Cell::Empty => {}
                Cell::Int(number) if (-EXACT..=EXACT).contains(number) => {
                    sheet.write_number(self.row, column, *number as f64)?;
                }
                Cell::Int(number) => {
                    sheet.write_string(self.row, column, number.to_string())?;
                }
                Cell::Text(text) => {
                    sheet.write_string(self.row, column, text)?;
                }
            }
        }
        self.row += 1;
        Ok(())
    }

    /// The finished file, at its beginning.
    fn finish(mut self) -> anyhow::Result<File> {
        if self.sheets == 0 {
            self.add_sheet()?;
        }
        let mut file = tempfile::tempfile().context("a temporary file cannot be made")?;
        self.workbook.save_to_writer(&mut file)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }
}

/// Puts an XLSX file together; it is deleted when the result is dropped.
///
/// # Errors
/// When the store or the temporary folder fails.
pub async fn xlsx(reader: Reader) -> anyhow::Result<File> {
    xlsx_in_sheets(reader, SHEET_ROWS).await
}

async fn xlsx_in_sheets(mut reader: Reader, rows_per_sheet: u32) -> anyhow::Result<File> {
    let mut sheets = Sheets::new(reader.what.clone(), rows_per_sheet);
    while let Some(rows) = reader.next().await? {
        // A page takes some milliseconds; others get their turn between two.
        sheets = tokio::task::spawn_blocking(move || sheets.write(&rows).map(|()| sheets)).await??;
    }
    tokio::task::spawn_blocking(move || sheets.finish()).await?
}

/// Writes an export into a file, for the command line; how many rows it has.
///
/// # Errors
/// When the store fails or the file cannot be written.
pub async fn to_file(mut reader: Reader, format: Format, path: &Path) -> anyhow::Result<u64> {
    let mut count = 0;
    let written = || format!("{} cannot be written", path.display());
    match format {
        Format::Csv => {
            let mut file = std::io::BufWriter::new(File::create(path).with_context(written)?);
            file.write_all(&csv_head(&reader.what)).with_context(written)?;
            while let Some(rows) = reader.next().await? {
                count += rows.len() as u64;
                file.write_all(&csv_rows(&rows)).with_context(written)?;
            }
            file.flush().with_context(written)?;
        }
        Format::Xlsx => {
            let mut sheets = Sheets::new(reader.what.clone(), SHEET_ROWS);
            while let Some(rows) = reader.next().await? {
                count += rows.len() as u64;
                sheets.write(&rows)?;
            }
            let mut finished = sheets.finish()?;
            let mut file = File::create(path).with_context(written)?;
            std::io::copy(&mut finished, &mut file).with_context(written)?;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_a_formula() {
        let cells = |text: &str| vec![vec![Cell::Text(text.into()), Cell::Int(-5), Cell::Empty]];
        for (text, line) in [
            ("=1+1", "'=1+1,-5,\r\n"),
            ("@SUM(A1)", "'@SUM(A1),-5,\r\n"),
            ("-2", "'-2,-5,\r\n"),
            ("\tx", "'\tx,-5,\r\n"),
            ("plain", "plain,-5,\r\n"),
            ("a,\"b\"\n", "\"a,\"\"b\"\"\n\",-5,\r\n"),
        ] {
            assert_eq!(String::from_utf8(csv_rows(&cells(text))).expect("UTF-8"), line);
        }
    }

    #[test]
    fn rows_beyond_a_sheet_go_on_in_the_next() {
        let mut sheets = Sheets::new(What::Templates, 4);
        let row = || vec![Cell::Text("=x".into()), Cell::Int(1 << 60)];
        sheets.write(&(0..7).map(|_| row()).collect::<Vec<_>>()).expect("rows");
        assert_eq!((sheets.sheets, sheets.row), (3, 2), "three rows on each sheet beside its head");
        let mut file = sheets.finish().expect("a file");
        let mut start = [0; 2];
        std::io::Read::read_exact(&mut file, &mut start).expect("a zip");
        assert_eq!(&start, b"PK");
    }
}
