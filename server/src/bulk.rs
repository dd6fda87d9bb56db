//! The rows of bulks: read from NDJSON, CSV or a list, checked, staged in chunks; and shown again beside what came of them.
//!
//! A file is read as it arrives and never held: at any time there are one chunk of rows and, for a distribution, 16 bytes for
//! each different member, which find the duplicates. A row that cannot be used is kept with the reason and skipped; only what
//! makes the whole file unreadable (its header, a row without an end, too many rows) refuses it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use scrip_domain::bulk::{BulkKind, ChunkWork, GrantRow, MAX_ROWS, Recipient, Staged};
use scrip_domain::command::Movement;
use scrip_domain::points::{MAX_POINTS, TransactionType};
use scrip_domain::{BulkId, MemberId, TemplateId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::store::bulk::StoredChunk;
use crate::store::{Store, StoreError};

/// The longest row, in bytes.
const MAX_ROW_BYTES: usize = 8_192;
/// How much of a row that cannot be read is shown again, in characters.
const SHOWN: usize = 100;

/// Rows of a chunk, each worked off in one transaction: enough that a transaction costs little for each, few enough that
/// others wait for none of them long.
pub fn chunk_rows(kind: BulkKind) -> i64 {
    match kind {
        BulkKind::Distribution => 2_000,
        BulkKind::PointsGrants => 500,
    }
}

/// Why rows cannot be staged at all.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("the header must name {expected}; it is {found:?}")]
    Header { expected: String, found: String },
    #[error("row {0} is longer than 8 KiB; is there a line break missing?")]
    RowTooLong(i64),
    #[error("there are more than 1,000,000 rows; send the rest as another file")]
    TooManyRows,
    #[error("there are no rows")]
    Empty,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Ndjson,
    /// With a header, which names the columns in any order.
    Csv,
}

/// A row as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedRow {
    /// The member; of a row that cannot be read, as much of it as is shown again.
    #[serde(rename = "m")]
    pub member_id: String,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    member_level: Option<String>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    points: Option<i64>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    kind: Option<TransactionType>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<Skip>,
}

impl StagedRow {
    fn within(self, adjustment_limit: Option<i64>) -> Result<StagedRow, String> {
        match adjustment_limit {
            Some(limit)
                if self.kind.is_some_and(TransactionType::is_administrative) && self.points > adjustment_limit =>
            {
                Err(format!("points is more than the {limit} that the key may adjust at a time"))
            }
            _ => Ok(self),
        }
    }
}

/// Why a row is not worked off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Skip {
    #[serde(rename = "d")]
    Duplicate,
    #[serde(rename = "i")]
    Invalid(String),
}

/// A row of a file, before it is checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    member_id: Option<String>,
    member_level: Option<String>,
    points: Option<i64>,
    r#type: Option<String>,
    reference: Option<String>,
    remark: Option<String>,
    expires_at: Option<String>,
}

/// The columns of a kind; the first `required` of them must be there.
fn columns(kind: BulkKind) -> (&'static [&'static str], usize) {
    match kind {
        BulkKind::Distribution => (&["member_id", "member_level"], 1),
        BulkKind::PointsGrants => (&["member_id", "points", "type", "reference", "remark", "expires_at"], 2),
    }
}

impl RawRow {
    fn set(&mut self, column: &str, text: &str) -> Result<(), String> {
        // An empty cell is none.
        if text.is_empty() {
            return Ok(());
        }
        let place = match column {
            "member_id" => &mut self.member_id,
            "member_level" => &mut self.member_level,
            "type" => &mut self.r#type,
            "reference" => &mut self.reference,
            "remark" => &mut self.remark,
            "expires_at" => &mut self.expires_at,
            _ => {
                self.points = Some(text.parse().map_err(|_| "points: send an integer".to_owned())?);
                return Ok(());
            }
        };
        *place = Some(text.to_owned());
        Ok(())
    }

    /// # Errors
    /// What is wrong with the first bad field.
    fn check(self, kind: BulkKind) -> Result<StagedRow, String> {
        let member_id = self.member_id.ok_or("member_id is required")?;
        member_id.parse::<MemberId>().map_err(|error| format!("member_id: {error}"))?;
        let is_grant = kind == BulkKind::PointsGrants;
        let given = [
            ("points", self.points.is_some(), is_grant),
            ("type", self.r#type.is_some(), is_grant),
            ("reference", self.reference.is_some(), is_grant),
            ("remark", self.remark.is_some(), is_grant),
            ("expires_at", self.expires_at.is_some(), is_grant),
            ("member_level", self.member_level.is_some(), !is_grant),
        ];
        if let Some((field, ..)) = given.iter().find(|(_, given, belongs)| *given && !belongs) {
            return Err(format!("{field} does not belong here"));
        }
        text("member_level", self.member_level.as_deref(), 1, 64)?;
        text("reference", self.reference.as_deref(), 1, 64)?;
        text("remark", self.remark.as_deref(), 0, 500)?;
        let mut row = StagedRow { member_id, member_level: self.member_level, ..StagedRow::default() };
        if is_grant {
            let points = self.points.ok_or("points is required")?;
            if !(1..=MAX_POINTS).contains(&points) {
                return Err(format!("points is {points}; send an integer from 1 to {MAX_POINTS}"));
            }
            let name = self.r#type.as_deref().unwrap_or("EARN_ORDER");
            let kind = TransactionType::parse(name).filter(|kind| kind.is_earn());
            row.points = Some(points);
            row.kind = Some(kind.ok_or_else(|| format!("type is {name}; send a type of grant, like EARN_ORDER"))?);
            row.reference = self.reference;
            row.remark = self.remark;
            row.expires_at = self.expires_at.as_deref().map(time).transpose()?;
        }
        Ok(row)
    }
}

fn text(field: &str, text: Option<&str>, least: usize, most: usize) -> Result<(), String> {
    let Some(text) = text else { return Ok(()) };
    if !(least..=most).contains(&text.chars().count()) {
        return Err(format!("{field}: send {least} to {most} characters"));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(format!("{field} has control characters"));
    }
    Ok(())
}

fn time(text: &str) -> Result<Timestamp, String> {
    let parsed = text.parse::<jiff::Timestamp>().ok().map(|time| Timestamp(time.as_microsecond()));
    let in_range = parsed.filter(|at| (Timestamp(0)..=Timestamp::MAX).contains(at));
    in_range.ok_or_else(|| "expires_at: send a time with an offset, like 2027-03-01T00:00:00Z".to_owned())
}

/// Puts rows into chunks and the chunks into the store, where they wait for their bulk to be made.
pub struct Stager<'a> {
    store: &'a Store,
    tenant: TenantId,
    id: BulkId,
    kind: BulkKind,
    chunk: Vec<StagedRow>,
    skipped_in_chunk: i64,
    staged: Staged,
    /// Digests of the members seen, under keys of this process's own: nobody can choose two that collide.
    seen: HashSet<u128>,
    hashers: [RandomState; 2],
    adjustment_limit: Option<i64>,
}

impl<'a> Stager<'a> {
    pub fn new(store: &'a Store, tenant: TenantId, id: BulkId, kind: BulkKind) -> Self {
        Stager {
            store,
            tenant,
            id,
            kind,
            chunk: Vec::new(),
            skipped_in_chunk: 0,
            staged: Staged { rows: 0, chunks: 0, skipped: 0 },
            seen: HashSet::new(),
            hashers: [RandomState::new(), RandomState::new()],
            adjustment_limit: None,
        }
    }

    /// Skips administrative grants of more than so many points: as many as the key that asks may move at a time.
    pub fn limited(self, adjustment_limit: Option<i64>) -> Self {
        Stager { adjustment_limit, ..self }
    }

    /// Adds a member of a list.
    ///
    /// # Errors
    /// [`StageError`]
    pub async fn add_member(&mut self, member_id: &MemberId, level: Option<String>) -> Result<(), StageError> {
        let row = StagedRow { member_id: member_id.as_str().into(), member_level: level, ..StagedRow::default() };
        self.add(Ok(row), "").await
    }

    async fn add(&mut self, row: Result<StagedRow, String>, text: &str) -> Result<(), StageError> {
        if self.staged.rows == MAX_ROWS {
            return Err(StageError::TooManyRows);
        }
        self.staged.rows += 1;
        let row = row.and_then(|row| row.within(self.adjustment_limit));
        let mut row = row.unwrap_or_else(|reason| StagedRow {
            member_id: text.chars().filter(|c| !c.is_control()).take(SHOWN).collect(),
            skip: Some(Skip::Invalid(reason)),
            ..StagedRow::default()
        });
        if self.kind == BulkKind::Distribution && row.skip.is_none() {
            let [low, high] = self.hashers.each_ref().map(|hasher| hasher.hash_one(&row.member_id));
            if !self.seen.insert(u128::from(high) << 64 | u128::from(low)) {
                row.skip = Some(Skip::Duplicate);
            }
        }
        self.skipped_in_chunk += i64::from(row.skip.is_some());
        self.chunk.push(row);
        if self.chunk.len() as i64 == chunk_rows(self.kind) { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), StageError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let rows = serde_json::to_string(&self.chunk).expect("plain data has a JSON form");
        let first_row = self.staged.rows - self.chunk.len() as i64 + 1;
        let (number, skipped) = (self.staged.chunks, self.skipped_in_chunk);
        self.store.stage_chunk(self.tenant, self.id, number, first_row, &rows, skipped).await?;
        self.staged.chunks += 1;
        self.staged.skipped += skipped;
        self.skipped_in_chunk = 0;
        self.chunk.clear();
        Ok(())
    }

    /// Stages the last chunk; what was staged in all.
    ///
    /// # Errors
    /// [`StageError::Empty`] when there was no row.
    pub async fn finish(mut self) -> Result<Staged, StageError> {
        self.flush().await?;
        if self.staged.rows == 0 { Err(StageError::Empty) } else { Ok(self.staged) }
    }
}

/// Reads a file that arrives in pieces.
pub struct FileReader<'a> {
    stager: Stager<'a>,
    form: Form,
}

enum Form {
    Ndjson { line: Vec<u8> },
    Csv(Box<CsvState>),
}

struct CsvState {
    reader: csv_core::Reader,
    record: Box<[u8; MAX_ROW_BYTES]>,
    length: usize,
    ends: [usize; 32],
    fields: usize,
    /// The columns of the header, once it is read.
    header: Option<Vec<&'static str>>,
}

impl<'a> FileReader<'a> {
    pub fn new(stager: Stager<'a>, format: Format) -> Self {
        let form = match format {
            Format::Ndjson => Form::Ndjson { line: Vec::new() },
            Format::Csv => Form::Csv(Box::new(CsvState {
                reader: csv_core::Reader::new(),
                record: Box::new([0; MAX_ROW_BYTES]),
                length: 0,
                ends: [0; 32],
                fields: 0,
                header: None,
            })),
        };
        FileReader { stager, form }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// [`StageError`]
    pub async fn feed(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        match &mut self.form {
            Form::Ndjson { line } => {
                let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
                while let Some(piece) = pieces.next() {
                    if line.len() + piece.len() > MAX_ROW_BYTES {
                        return Err(StageError::RowTooLong(self.stager.staged.rows + 1));
                    }
                    // Without a line break the rest comes with the next piece.
                    if pieces.peek().is_none() {
                        line.extend_from_slice(piece);
                    } else if line.is_empty() {
                        add_line(&mut self.stager, piece).await?;
                    } else {
                        line.extend_from_slice(piece);
                        add_line(&mut self.stager, line).await?;
                        line.clear();
                    }
                }
                Ok(())
            }
            Form::Csv(csv) => csv.feed(&mut self.stager, bytes).await,
        }
    }

    /// Reads what has no line break behind it, and stages the last chunk.
    ///
    /// # Errors
    /// [`StageError`]
    pub async fn finish(mut self) -> Result<Staged, StageError> {
        match &mut self.form {
            Form::Ndjson { line } => add_line(&mut self.stager, line).await?,
            // An empty piece is the end.
            Form::Csv(csv) => csv.feed(&mut self.stager, &[]).await?,
        }
        self.stager.finish().await
    }
}

async fn add_line(stager: &mut Stager<'_>, line: &[u8]) -> Result<(), StageError> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(());
    }
    let row = if line.starts_with(b"{") {
        serde_json::from_slice::<RawRow>(line).map_err(|error| error.to_string())
    } else {
        Err("send a JSON object on each line".to_owned())
    };
    let row = row.and_then(|row| row.check(stager.kind));
    stager.add(row, &String::from_utf8_lossy(line)).await
}

impl CsvState {
    async fn feed(&mut self, stager: &mut Stager<'_>, mut bytes: &[u8]) -> Result<(), StageError> {
        use csv_core::ReadRecordResult::{End, InputEmpty, OutputEndsFull, OutputFull, Record};
        loop {
            let (record, ends) = (&mut self.record[self.length..], &mut self.ends[self.fields..]);
            let (result, read, written, fields) = self.reader.read_record(bytes, record, ends);
            bytes = &bytes[read..];
            self.length += written;
            self.fields += fields;
            match result {
                InputEmpty | End => return Ok(()),
                OutputFull | OutputEndsFull => return Err(StageError::RowTooLong(stager.staged.rows + 1)),
                Record => {
                    self.record(stager).await?;
                    (self.length, self.fields) = (0, 0);
                }
            }
        }
    }

    async fn record(&mut self, stager: &mut Stager<'_>) -> Result<(), StageError> {
        let bytes = &self.record[..self.length];
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let cells: Vec<&[u8]> = starts.zip(&self.ends[..self.fields]).map(|(start, end)| &bytes[start..*end]).collect();
        let Some(header) = &self.header else {
            self.header = Some(header(&cells, stager.kind)?);
            return Ok(());
        };
        let shown = String::from_utf8_lossy(&cells.join(&b',')).into_owned();
        let row = if cells.len() == header.len() {
            let mut row = RawRow::default();
            let set = header.iter().zip(&cells).try_for_each(|(column, cell)| {
                let text = std::str::from_utf8(cell).map_err(|_| format!("{column} is no UTF-8"))?;
                row.set(column, text.trim())
            });
            set.and_then(|()| row.check(stager.kind))
        } else {
            Err(format!("it has {} cells, the header {}", cells.len(), header.len()))
        };
        stager.add(row, &shown).await
    }
}

fn header(cells: &[&[u8]], kind: BulkKind) -> Result<Vec<&'static str>, StageError> {
    let (known, required) = columns(kind);
    let names: Vec<String> = cells
        .iter()
        .map(|cell| String::from_utf8_lossy(cell).trim_start_matches('\u{feff}').trim().to_lowercase())
        .collect();
    let found: Option<Vec<&'static str>> =
        names.iter().map(|name| known.iter().copied().find(|column| column == name)).collect();
    let is_complete = |found: &Vec<&'static str>| {
        let distinct: HashSet<_> = found.iter().collect();
        distinct.len() == found.len() && known[..required].iter().all(|column| found.contains(column))
    };
    found.filter(is_complete).ok_or_else(|| {
        let optional = &known[required..];
        let expected = format!("{} (and may name {})", known[..required].join(", "), optional.join(", "));
        StageError::Header { expected, found: names.join(",").chars().take(SHOWN).collect() }
    })
}

/// What came of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOutcome {
    Accepted,
    Refused,
    Duplicate,
    Invalid,
    /// Not worked off yet; or never, when the bulk was cancelled.
    Pending,
}

impl RowOutcome {
    pub const ALL: [RowOutcome; 5] =
        [RowOutcome::Accepted, RowOutcome::Refused, RowOutcome::Duplicate, RowOutcome::Invalid, RowOutcome::Pending];

    pub fn as_str(self) -> &'static str {
        match self {
            RowOutcome::Accepted => "ACCEPTED",
            RowOutcome::Refused => "REFUSED",
            RowOutcome::Duplicate => "DUPLICATE",
            RowOutcome::Invalid => "INVALID",
            RowOutcome::Pending => "PENDING",
        }
    }

    pub fn parse(text: &str) -> Option<RowOutcome> {
        RowOutcome::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// A row beside what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowResult {
    /// From 1, the header not counted.
    pub row: i64,
    pub member_id: String,
    pub outcome: RowOutcome,
    /// The coupon or transaction that was made.
    pub made: Option<String>,
    /// The code of the refusal, or why the row cannot be read.
    pub reason: Option<String>,
}

/// The rows of a chunk, read.
///
/// # Errors
/// [`StoreError::Corrupt`]
pub fn rows_of(chunk: &StoredChunk) -> Result<Vec<StagedRow>, StoreError> {
    serde_json::from_str(&chunk.rows).map_err(|error| StoreError::corrupt(format!("rows of a chunk: {error}")))
}

/// Every row of a chunk beside what came of it.
///
/// # Errors
/// [`StoreError::Corrupt`]
pub fn results_of(chunk: &StoredChunk) -> Result<Vec<RowResult>, StoreError> {
    let outcomes: Option<Vec<String>> = chunk
        .outcomes
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| StoreError::corrupt(format!("results of a chunk: {error}")))?;
    let is_pending = outcomes.is_none();
    let mut outcomes = outcomes.unwrap_or_default().into_iter();
    let result = |(row, number): (StagedRow, i64)| {
        let mut result =
            RowResult { row: number, member_id: row.member_id, outcome: RowOutcome::Pending, made: None, reason: None };
        match row.skip {
            Some(Skip::Duplicate) => result.outcome = RowOutcome::Duplicate,
            Some(Skip::Invalid(reason)) => {
                (result.outcome, result.reason) = (RowOutcome::Invalid, Some(reason));
            }
            None if is_pending => {}
            None => {
                let outcome = outcomes.next().ok_or_else(|| StoreError::corrupt("a row of a chunk has no result"))?;
                // Ids begin with a small prefix, codes are upper case.
                if outcome.starts_with(|c: char| c.is_ascii_lowercase()) {
                    (result.outcome, result.made) = (RowOutcome::Accepted, Some(outcome));
                } else {
                    (result.outcome, result.reason) = (RowOutcome::Refused, Some(outcome));
                }
            }
        }
        Ok(result)
    };
    rows_of(chunk)?.into_iter().zip(chunk.first_row..).map(result).collect()
}

/// What is to be done with a chunk.
///
/// # Errors
/// [`StoreError::Corrupt`]
pub fn work_of(chunk: &StoredChunk, template_id: Option<TemplateId>) -> Result<ChunkWork, StoreError> {
    let rows = rows_of(chunk)?.into_iter().filter(|row| row.skip.is_none());
    let member = |row: &StagedRow| {
        row.member_id.parse::<MemberId>().map_err(|error| StoreError::corrupt(format!("a staged member: {error}")))
    };
    Ok(match template_id {
        Some(template_id) => {
            let recipients = rows.map(|row| Ok(Recipient { member_id: member(&row)?, member_level: row.member_level }));
            ChunkWork::Issue { template_id, recipients: recipients.collect::<Result<_, StoreError>>()? }
        }
        None => {
            let grants = rows.map(|row| {
                let movement = Movement {
                    points: row.points.unwrap_or_default(),
                    kind: row.kind.unwrap_or(TransactionType::EarnOrder),
                    reference: row.reference.clone(),
                    remark: row.remark.clone(),
                };
                Ok(GrantRow { member_id: member(&row)?, movement, expires_at: row.expires_at })
            });
            ChunkWork::Grant(grants.collect::<Result<_, StoreError>>()?)
        }
    })
}

/// A text as a cell of CSV. What a spreadsheet would take for a formula is kept from it by a quote mark before it.
pub fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
