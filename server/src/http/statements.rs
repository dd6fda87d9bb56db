//! The books to take away: a member's statement of a period, and whole ledgers and balances as CSV.
//!
//! What is answered has no limit of rows, so it is sent as it is read, page by page in the order of an index: a page is all
//! that is ever held. Once the answer has begun, a store that fails can only break it off; a client sees that the body has
//! no end.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use scrip_domain::points::{Lot, Transaction, TransactionType};
use scrip_domain::{Day, LotId, MemberId, TenantId, Timestamp, TransactionId};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{AnyKey, Operator};
use super::extract::{Cursor, InPath, Parameters};
use super::problem::Problem;
use super::schema::{self, PageQuery, Problems};
use super::time::Time;
use super::views::{Page, TransactionView};
use super::{AppState, answer, reports};
use crate::store::read::{LineTime, Posted, StoredBalance};
use crate::{calendar, clock};

/// Rows read at a time.
const PAGE: i64 = 1_000;
const CSV: &str = "text/csv; charset=utf-8";

/// What an account's columns were.
#[derive(Serialize, ToSchema)]
#[schema(as = PointsPosition)]
pub struct Position {
    available: i64,
    frozen: i64,
    used: i64,
    expired: i64,
    revoked: i64,
    total_points: i64,
    debt: i64,
}

impl From<Posted> for Position {
    fn from(posted: Posted) -> Self {
        let Posted { available, frozen, used, expired, revoked, total_points, debt, .. } = posted;
        Position { available, frozen, used, expired, revoked, total_points, debt }
    }
}

/// A member's ledger of a period.
#[derive(ToSchema)]
#[schema(as = PointsStatement)]
#[expect(dead_code, reason = "describes what is written line by line")]
pub struct Statement {
    #[schema(value_type = schema::MemberId)]
    member_id: String,
    #[schema(value_type = schema::LocalDate)]
    from: String,
    #[schema(value_type = schema::LocalDate)]
    to: String,
    #[schema(value_type = schema::StatementBasis)]
    basis: String,
    /// Before the first line.
    opening: Position,
    /// After the last line.
    closing: Position,
    /// In the order in which they were written.
    #[schema(value_type = Vec<TransactionView<'static>>)]
    lines: Vec<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
}

fn take_format(parameters: &mut Parameters) -> Format {
    let format = parameters.take("format", "json or csv", |text| match text {
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        _ => None,
    });
    format.unwrap_or(Format::Json)
}

/// The days from `from` to `to` as instants `[start, end)`.
fn take_period(parameters: &mut Parameters, zone: &TimeZone, from: Date, to: Date) -> Result<Period, Problem> {
    let from = reports::take_date(parameters, "from").unwrap_or(from);
    let to = reports::take_date(parameters, "to").unwrap_or(to);
    if from > to {
        return Err(Problem::field("from", "lies after `to`", "Send a day up to `to`."));
    }
    let (first, last) = (calendar::day_of(from), calendar::day_of(to));
    Ok(Period {
        first,
        last,
        start: calendar::start_of_day(zone, first),
        end: calendar::start_of_day(zone, Day(last.0 + 1)),
    })
}

struct Period {
    first: Day,
    last: Day,
    start: Timestamp,
    end: Timestamp,
}

/// An answer of pieces, each read when the one before is on its way.
fn streamed<S, F>(
    content_type: &'static str,
    file: &str,
    state: S,
    next: impl Fn(S) -> F + Clone + Send + 'static,
) -> Response
where
    S: Send + 'static,
    F: Future<Output = Result<Option<(Vec<u8>, S)>, Problem>> + Send + 'static,
{
    let pieces = stream::try_unfold(Some(state), move |state| {
        let next = next.clone();
        async move {
            let Some(state) = state else { return Ok(None) };
            match next(state).await {
                Ok(Some((piece, state))) => Ok(Some((Bytes::from(piece), Some(state)))),
                Ok(None) => Ok(None),
                Err(problem) => {
                    problem.log_cause("a streamed answer");
                    Err(std::io::Error::other("the answer broke off"))
                }
            }
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if content_type == CSV
        && let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename=\"{file}\""))
    {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}

/// Lines of CSV (RFC 4180).
struct Table(csv::Writer<Vec<u8>>);

impl Table {
    fn new() -> Table {
        Table(csv::WriterBuilder::new().flexible(true).from_writer(Vec::new()))
    }

    fn add<'a>(&mut self, cells: impl IntoIterator<Item = Cell<'a>>) -> Result<(), Problem> {
        let cells: Vec<Cell<'_>> = cells.into_iter().collect();
        self.0.write_record(cells.iter().map(|cell| cell.0.as_bytes())).map_err(Problem::internal)
    }

    fn bytes(self) -> Result<Vec<u8>, Problem> {
        self.0.into_inner().map_err(|error| Problem::internal(error.error()))
    }
}

struct Cell<'a>(std::borrow::Cow<'a, str>);

impl Cell<'_> {
    fn number(value: i64) -> Cell<'static> {
        Cell(value.to_string().into())
    }

    fn time(at: Option<Timestamp>) -> Cell<'static> {
        Cell(at.map_or_else(String::new, |at| Time(at).to_string()).into())
    }

    fn id(value: Option<impl ToString>) -> Cell<'static> {
        Cell(value.map_or_else(String::new, |value| value.to_string()).into())
    }

    /// A caller's text. What a spreadsheet would take for a formula gets an apostrophe before it.
    fn text(value: &str) -> Cell<'_> {
        if value.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            Cell(format!("'{value}").into())
        } else {
            Cell(value.into())
        }
    }

    fn name(value: &'static str) -> Cell<'static> {
        Cell(value.into())
    }
}

const LINE_COLUMNS: [&str; 17] = [
    "member_id",
    "sequence",
    "transaction_id",
    "type",
    "points",
    "balance_before",
    "balance_after",
    "frozen_after",
    "debt_after",
    "reference",
    "remark",
    "hold_id",
    "reverses_id",
    "counterpart_id",
    "expires_at",
    "occurred_at",
    "recorded_at",
];

fn line_cells(line: &Transaction) -> [Cell<'_>; 17] {
    [
        Cell::text(line.member_id.as_str()),
        Cell::number(line.sequence),
        Cell::id(Some(line.id)),
        Cell::name(line.kind.as_str()),
        Cell::number(line.points),
        Cell::number(line.balance_before),
        Cell::number(line.balance_after),
        Cell::number(line.frozen_after),
        Cell::number(line.debt_after),
        Cell::text(line.reference.as_deref().unwrap_or_default()),
        Cell::text(line.remark.as_deref().unwrap_or_default()),
        Cell::id(line.hold_id),
        Cell::id(line.reverses_id),
        Cell::id(line.counterpart_id),
        Cell::time(line.expires_at),
        Cell::time(Some(line.occurred_at)),
        Cell::time(Some(line.recorded_at)),
    ]
}

/// A line of CSV that is no transaction: what the account was before or after.
fn position_cells<'a>(member_id: &'a MemberId, name: &'static str, posted: &Posted, at: Timestamp) -> [Cell<'a>; 17] {
    let empty = || Cell::name("");
    [
        Cell::text(member_id.as_str()),
        empty(),
        empty(),
        Cell::name(name),
        empty(),
        empty(),
        Cell::number(posted.available),
        Cell::number(posted.frozen),
        Cell::number(posted.debt),
        empty(),
        empty(),
        empty(),
        empty(),
        empty(),
        empty(),
        Cell::time(Some(at)),
        empty(),
    ]
}

struct Lines {
    app: AppState,
    tenant: TenantId,
    member_id: MemberId,
    basis: LineTime,
    format: Format,
    period: Period,
    opening: Posted,
    closing: Posted,
    /// The last line of the account when the answer began: those that come meanwhile are left out.
    last: i64,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    After(i64),
    Done,
}

impl Lines {
    fn head(&self) -> Result<Vec<u8>, Problem> {
        if self.format == Format::Csv {
            let mut table = Table::new();
            table.add(LINE_COLUMNS.map(Cell::name))?;
            table.add(position_cells(&self.member_id, "OPENING", &self.opening, self.period.start))?;
            return table.bytes();
        }
        let head = serde_json::json!({
            "member_id": self.member_id,
            "from": self.period.first.to_string(),
            "to": self.period.last.to_string(),
            "basis": self.basis.as_str(),
            "opening": Position::from(self.opening),
            "closing": Position::from(self.closing),
        });
        let mut text = head.to_string();
        text.pop();
        text.push_str(",\"lines\":[");
        Ok(text.into_bytes())
    }

    fn tail(&self) -> Result<Vec<u8>, Problem> {
        if self.format == Format::Json {
            return Ok(b"]}".to_vec());
        }
        let mut table = Table::new();
        table.add(position_cells(&self.member_id, "CLOSING", &self.closing, self.period.end))?;
        table.bytes()
    }

    async fn next(mut self) -> Result<Option<(Vec<u8>, Lines)>, Problem> {
        let after = match self.stage {
            Stage::Done => return Ok(None),
            Stage::Head => {
                self.stage = Stage::After(0);
                return Ok(Some((self.head()?, self)));
            }
            Stage::After(sequence) => sequence,
        };
        let between = (self.period.start, self.period.end);
        let (store, member) = (&self.app.store, &self.member_id);
        let lines = store.ledger(self.tenant, member, self.basis, between, (after, self.last), PAGE).await?;
        let Some(last) = lines.last().map(|line| line.sequence) else {
            let tail = self.tail()?;
            self.stage = Stage::Done;
            return Ok(Some((tail, self)));
        };
        let piece = match self.format {
            Format::Csv => {
                let mut table = Table::new();
                lines.iter().try_for_each(|line| table.add(line_cells(line)))?;
                table.bytes()?
            }
            Format::Json => {
                let mut piece = Vec::with_capacity(lines.len() * 512);
                for (index, line) in lines.iter().enumerate() {
                    if after > 0 || index > 0 {
                        piece.push(b',');
                    }
                    serde_json::to_writer(&mut piece, &TransactionView::from(line)).map_err(Problem::internal)?;
                }
                piece
            }
        };
        self.stage = Stage::After(last);
        Ok(Some((piece, self)))
    }
}

/// Read a member's statement of a period
///
/// Opening balance, lines, closing balance, of whole days in the tenant's time zone (default: this month up to today). By when a line
/// took effect; `basis=RECORDED`: by when it was written, which never changes for a period that is over.
#[utoipa::path(get, path = "/v1/members/{member_id}/points/statement", tag = "Points", security(("key" = ["MEMBER"])),
    params(("member_id" = schema::MemberId, Path), ("from" = Option<schema::LocalDate>, Query),
        ("to" = Option<schema::LocalDate>, Query), ("basis" = Option<schema::StatementBasis>, Query),
        ("format" = Option<schema::FileFormat>, Query)),
    responses((status = 200, description = "The statement", content((Statement = "application/json"), (String = "text/csv"))),
        Problems))]
pub async fn get_statement(
    State(app): State<AppState>,
    key: AnyKey,
    InPath(member_id): InPath<MemberId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = key.on_behalf_of(&member_id)?.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let zone = app.store.zone(tenant).await?;
    let today = crate::projection::local_date(&zone, clock::now());
    let basis = parameters.take("basis", "OCCURRED or RECORDED", LineTime::parse).unwrap_or(LineTime::Occurred);
    let format = take_format(&mut parameters);
    let period = take_period(&mut parameters, &zone, today.first_of_month(), today)?;
    parameters.finish()?;
    let last = app.store.last_sequence(tenant, &member_id).await?;
    let opening = app.store.posted_balance(tenant, &member_id, basis, period.start, last).await?;
    let closing = app.store.posted_balance(tenant, &member_id, basis, period.end, last).await?;
    let file = format!("statement-{}-{}.csv", period.first, period.last);
    let content_type = if format == Format::Csv { CSV } else { "application/json" };
    let stage = Stage::Head;
    let lines = Lines { app, tenant, member_id, basis, format, period, opening, closing, last, stage };
    Ok(streamed(content_type, &file, lines, Lines::next))
}

/// Where an export of a tenant's ledger stands.
struct Ledger {
    app: AppState,
    tenant: TenantId,
    kind: Option<TransactionType>,
    period: Period,
    after: Option<TransactionId>,
}

impl Ledger {
    async fn next(mut self) -> Result<Option<(Vec<u8>, Ledger)>, Problem> {
        let mut table = Table::new();
        if self.after.is_none() {
            table.add(LINE_COLUMNS.map(Cell::name))?;
        }
        let between = (self.period.start, self.period.end);
        let mut read = 0;
        // A page may have nothing of the period; a few of them make a piece.
        for _ in 0..16 {
            let page = self.app.store.all_transactions(self.tenant, self.after, PAGE).await?;
            read = page.len();
            let Some(last) = page.last() else { break };
            self.after = Some(last.id);
            let is_wanted = |line: &&Transaction| {
                (between.0..between.1).contains(&line.occurred_at) && self.kind.is_none_or(|kind| kind == line.kind)
            };
            let mut wanted = page.iter().filter(is_wanted).peekable();
            let found = wanted.peek().is_some();
            wanted.try_for_each(|line| table.add(line_cells(line)))?;
            if found {
                break;
            }
        }
        let piece = table.bytes()?;
        if read == 0 && piece.is_empty() {
            return Ok(None);
        }
        // The heading stands for a page, so that it is sent once.
        self.after = self.after.or(Some(TransactionId(uuid::Uuid::nil())));
        Ok(Some((piece, self)))
    }
}

/// Export the ledger of all members
///
/// As CSV without a limit of rows, oldest first: the lines that took effect on these days (default: all days up to today).
#[utoipa::path(get, path = "/v1/exports/points-transactions", tag = "Exports", security(("key" = ["OPERATOR"])),
    params(("from" = Option<schema::LocalDate>, Query), ("to" = Option<schema::LocalDate>, Query),
        ("type" = Option<schema::TransactionType>, Query)),
    responses((status = 200, description = "The ledger", content_type = "text/csv", body = String), Problems))]
pub async fn export_transactions(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let zone = app.store.zone(tenant).await?;
    let today = crate::projection::local_date(&zone, clock::now());
    let kind = parameters.take("type", "a transaction type", TransactionType::parse);
    let period = take_period(&mut parameters, &zone, Date::constant(1970, 1, 2), today)?;
    parameters.finish()?;
    let file = format!("points-transactions-{}-{}.csv", period.first, period.last);
    Ok(streamed(CSV, &file, Ledger { app, tenant, kind, period, after: None }, Ledger::next))
}

const BALANCE_COLUMNS: [&str; 10] = [
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
];

struct Balances {
    app: AppState,
    tenant: TenantId,
    at: Timestamp,
    after: Option<MemberId>,
}

impl Balances {
    async fn next(mut self) -> Result<Option<(Vec<u8>, Balances)>, Problem> {
        let is_first = self.after.is_none();
        let page = self.app.store.all_balances(self.tenant, self.at, self.after.as_ref(), PAGE).await?;
        if page.is_empty() && !is_first {
            return Ok(None);
        }
        let mut table = Table::new();
        if is_first {
            table.add(BALANCE_COLUMNS.map(Cell::name))?;
        }
        for StoredBalance { account, overdue } in &page {
            table.add([
                Cell::text(account.member_id.as_str()),
                Cell::number(account.available - overdue),
                Cell::number(account.frozen),
                Cell::number(account.used),
                Cell::number(account.expired + overdue),
                Cell::number(account.revoked),
                Cell::number(account.total_points),
                Cell::number(account.debt),
                Cell::text(account.merged_into.as_ref().map_or("", MemberId::as_str)),
                Cell::time(Some(account.updated_at)),
            ])?;
        }
        match page.last() {
            Some(last) => self.after = Some(last.account.member_id.clone()),
            // Only the heading: nothing can come after a member of this name.
            None => self.after = "~".repeat(64).parse().ok(),
        }
        Ok(Some((table.bytes()?, self)))
    }
}

/// Export the balances of all members
///
/// As CSV without a limit of rows, by member. What has expired by now counts as expired, written or not.
#[utoipa::path(get, path = "/v1/exports/points-balances", tag = "Exports", security(("key" = ["OPERATOR"])),
    responses((status = 200, description = "The balances", content_type = "text/csv", body = String), Problems))]
pub async fn export_balances(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    Parameters::of(&uri)?.finish()?;
    let balances = Balances { app, tenant: caller.tenant(), at: clock::now(), after: None };
    Ok(streamed(CSV, "points-balances.csv", balances, Balances::next))
}

/// Points that expire soon.
#[derive(Serialize, ToSchema)]
#[schema(as = ExpiringLot)]
pub struct ExpiringLot {
    #[schema(value_type = schema::LotId)]
    lot_id: LotId,
    #[schema(value_type = schema::MemberId)]
    member_id: MemberId,
    /// What is left and not held.
    points: i64,
    expires_at: Time,
}

impl From<(MemberId, Lot)> for ExpiringLot {
    fn from((member_id, lot): (MemberId, Lot)) -> Self {
        ExpiringLot { lot_id: lot.id, member_id, points: lot.remaining, expires_at: Time(lot.expires_at) }
    }
}

/// Where a page of expiring lots ends.
type ExpiringCursor = (Timestamp, LotId);

impl Cursor for ExpiringCursor {
    fn write(&self) -> String {
        format!("{}.{}", self.0.0, self.1)
    }

    fn read(text: &str) -> Option<Self> {
        let (at, id) = text.split_once('.')?;
        Some((Timestamp(at.parse().ok()?), id.parse().ok()?))
    }
}

const MAX_EXPIRING_DAYS: i64 = 3_650;

/// List points that expire soon, of all members
///
/// Soonest first: what expires before the end of the day, in the tenant's time zone, that comes so many days after today.
#[utoipa::path(get, path = "/v1/points/expiring", tag = "Reports", security(("key" = ["OPERATOR"])),
    params(("within_days" = Option<i64>, Query, minimum = 0, maximum = 3650, description = "Default: 30."), PageQuery),
    responses((status = 200, description = "A page", body = super::views::ExpiringLotPage), Problems))]
pub async fn list_expiring(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = caller.tenant();
    let mut parameters = Parameters::of(&uri)?;
    let days = parameters.take("within_days", "an integer from 0 to 3650", |text| {
        text.parse().ok().filter(|days| (0..=MAX_EXPIRING_DAYS).contains(days))
    });
    let page = parameters.page::<ExpiringCursor>();
    parameters.finish()?;
    let now = clock::now();
    let days = u32::try_from(days.unwrap_or(30)).unwrap_or_default();
    let until = calendar::end_of_day_after(&app.store.zone(tenant).await?, now, days);
    let mut lots = app.store.expiring_lots(tenant, now, until, page.cursor, page.limit + 1).await?;
    let next_cursor = super::cut(&mut lots, page.limit, |(_, lot)| (lot.expires_at, lot.id).write());
    answer::ok(&Page { data: lots.into_iter().map(ExpiringLot::from).collect(), next_cursor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_quotes_what_it_must_and_disarms_formulas() {
        let mut table = Table::new();
        table
            .add([Cell::text("=1+1"), Cell::text("a,\"b\"\nc"), Cell::number(-5), Cell::text("+49"), Cell::name("")])
            .unwrap();
        let text = String::from_utf8(table.bytes().unwrap()).unwrap();
        assert_eq!(text, "'=1+1,\"a,\"\"b\"\"\nc\",-5,'+49,\n");
    }

    #[test]
    fn cursors_read_back() {
        let cursor = (Timestamp(5), LotId(uuid::Uuid::from_u128(9)));
        assert_eq!(ExpiringCursor::read(&cursor.write()), Some(cursor));
        for bad in ["", "5", "x.lot_00000000000000000000000000000009", "5.lot_9"] {
            assert_eq!(ExpiringCursor::read(bad), None, "{bad}");
        }
    }
}
