//! A member's statement of a period to take away, and what expires soon.
//!
//! A statement has no limit of rows, so it is sent as it is read, page by page in the order of an index: a page is all
//! that is ever held. Nothing before the period is read, however long the ledger: where the period begins is searched for by
//! halves, and its opening balance begins at the milestone before it ([`scrip_domain::points::MILESTONE`]). Once the answer has begun, a store that fails can only break it off; a client sees that the body has
//! no end.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use scrip_domain::points::Lot;
use scrip_domain::{Day, LotId, MemberId, TenantId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{AnyKey, Operator};
use super::extract::{Cursor, InPath, Parameters};
use super::problem::Problem;
use super::schema::{self, PageQuery, Problems};
use super::time::Time;
use super::views::{Page, TransactionView};
use super::{AppState, answer, reports};
use crate::export::{Cell, LEDGER_COLUMNS, csv_names, csv_rows, ledger_line};
use crate::store::read::{LedgerPlace, LineTime, Posted};
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
pub fn take_period(parameters: &mut Parameters, zone: &TimeZone, from: Date, to: Date) -> Result<Period, Problem> {
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

pub struct Period {
    first: Day,
    last: Day,
    pub start: Timestamp,
    pub end: Timestamp,
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

/// A line of CSV that is no transaction: what the account was before or after.
fn position_cells(member_id: &MemberId, name: &str, posted: &Posted, at: Timestamp) -> Vec<Cell> {
    let cell = |column: &&str| match *column {
        "member_id" => Cell::id(member_id),
        "type" => Cell::Text(name.to_owned()),
        "balance_after" => Cell::Int(posted.available),
        "frozen_after" => Cell::Int(posted.frozen),
        "debt_after" => Cell::Int(posted.debt),
        "occurred_at" => Cell::time(at),
        _ => Cell::Empty,
    };
    LEDGER_COLUMNS.iter().map(cell).collect()
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
    /// Lines before this one are not of the period.
    first_after: i64,
    /// Where the period ends; lines that come meanwhile are left out.
    end: LedgerPlace,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    First,
    After(i64),
    Done,
}

impl Lines {
    fn head(&self) -> Vec<u8> {
        if self.format == Format::Csv {
            let opening = position_cells(&self.member_id, "OPENING", &self.opening, self.period.start);
            return [csv_names(LEDGER_COLUMNS), csv_rows(&[opening])].concat();
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
        text.into_bytes()
    }

    fn tail(&self) -> Vec<u8> {
        if self.format == Format::Json {
            return b"]}".to_vec();
        }
        csv_rows(&[position_cells(&self.member_id, "CLOSING", &self.closing, self.period.end)])
    }

    async fn next(mut self) -> Result<Option<(Vec<u8>, Lines)>, Problem> {
        let after = match self.stage {
            Stage::Done => return Ok(None),
            Stage::Head => {
                self.stage = Stage::First;
                return Ok(Some((self.head(), self)));
            }
            Stage::First => self.first_after,
            Stage::After(sequence) => sequence,
        };
        let between = (self.period.start, self.period.end);
        let (store, member) = (&self.app.store, &self.member_id);
        let lines = store.ledger(self.tenant, member, self.basis, between, (after, self.end), PAGE).await?;
        let Some(last) = lines.last().map(|line| line.sequence) else {
            let tail = self.tail();
            self.stage = Stage::Done;
            return Ok(Some((tail, self)));
        };
        let piece = match self.format {
            Format::Csv => csv_rows(&lines.iter().map(ledger_line).collect::<Vec<_>>()),
            Format::Json => {
                let mut piece = Vec::with_capacity(lines.len() * 512);
                for (index, line) in lines.iter().enumerate() {
                    if self.stage != Stage::First || index > 0 {
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
    let start = app.store.ledger_place(tenant, &member_id, period.start, last).await?;
    let end = app.store.ledger_place(tenant, &member_id, period.end, last).await?;
    let opening = app.store.posted_balance(tenant, &member_id, basis, period.start, start).await?;
    let closing = app.store.posted_balance(tenant, &member_id, basis, period.end, end).await?;
    let file = format!("statement-{}-{}.csv", period.first, period.last);
    let content_type = if format == Format::Csv { CSV } else { "application/json" };
    let (first_after, stage) = (start.before, Stage::Head);
    let lines = Lines { app, tenant, member_id, basis, format, period, opening, closing, first_after, end, stage };
    Ok(streamed(content_type, &file, lines, Lines::next))
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
    fn cursors_read_back() {
        let cursor = (Timestamp(5), LotId(uuid::Uuid::from_u128(9)));
        assert_eq!(ExpiringCursor::read(&cursor.write()), Some(cursor));
        for bad in ["", "5", "x.lot_00000000000000000000000000000009", "5.lot_9"] {
            assert_eq!(ExpiringCursor::read(bad), None, "{bad}");
        }
    }
}
