import re
def sub(f,a,b,cnt=1):
    s=open(f).read()
    assert s.count(a)==cnt,(f,a,s.count(a))
    open(f,'w').write(s.replace(a,b))
e='server/src/export.rs'
sub(e,'//! Coupons, their uses and templates as CSV or XLSX, however many there are.','//! Coupons, their uses, templates, the ledger and the balances of points as CSV or XLSX, however many there are.')
sub(e,'''use scrip_domain::coupon::{Coupon, CouponStatus, Template};
use scrip_domain::{CouponId, MemberId, TemplateId, TenantId, Timestamp};
''','''use scrip_domain::coupon::{Coupon, CouponStatus, Template};
use scrip_domain::points::{Transaction, TransactionType};
use scrip_domain::{CouponId, MemberId, TemplateId, TenantId, Timestamp, TransactionId};
''')
sub(e,'''use crate::store::Store;
''','''use crate::store::Store;
use crate::store::read::StoredBalance;
''')
sub(e,'''    Templates,
}

impl What {''','''    Templates,
    /// The ledger of all members, oldest first: lines that took effect in `[from, until)`.
    PointsTransactions { kind: Option<TransactionType>, from: Option<Timestamp>, until: Option<Timestamp> },
    /// Every account; what has expired by now counts as expired, written or not.
    PointsBalances,
}

impl What {''')
sub(e,'''            What::Templates => "templates",
        }''','''            What::Templates => "templates",
            What::PointsTransactions { .. } => "points-transactions",
            What::PointsBalances => "points-balances",
        }''')
sub(e,'''                "created_at",
                "updated_at",
            ],
        }''','''                "created_at",
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
        }''')
sub(e,'''/// A value of a row.
''','''pub const LEDGER_COLUMNS: &[&str] = &[
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

/// A value of a row.
''')
sub(e,'    fn id(id: impl std::fmt::Display) -> Cell {','    pub fn id(id: impl std::fmt::Display) -> Cell {')
sub(e,'    fn time(at: Timestamp) -> Cell {','    pub fn time(at: Timestamp) -> Cell {')
sub(e,'    Use(Timestamp, CouponId),\n','    Use(Timestamp, CouponId),\n    Member(MemberId),\n')
sub(e,'''                page.iter().map(template).collect()
            }
        };''','''                page.iter().map(template).collect()
            }
            What::PointsTransactions { kind, from, until } => self.next_transactions(kind, from, until).await?,
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
        };''')
sub(e,'''    async fn learn(&self''','''    /// No line is recorded before it takes effect, and ids begin with the time of recording: what is older than `from` need
    /// not be read.
    async fn next_transactions(
        &mut self,
        kind: Option<TransactionType>,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> anyhow::Result<Vec<Vec<Cell>>> {
        let after = match self.cursor {
            Cursor::Id(id) => Some(TransactionId(id)),
            _ => from.map(|from| TransactionId(first_id(from))),
        };
        let page = self.store.all_transactions(self.tenant, after, PAGE).await?;
        self.cursor = match page.last() {
            Some(last) if page.len() as i64 == PAGE => Cursor::Id(last.id.0),
            _ => Cursor::End,
        };
        let is_wanted = |line: &&Transaction| {
            from.is_none_or(|from| from <= line.occurred_at)
                && until.is_none_or(|until| line.occurred_at < until)
                && kind.is_none_or(|kind| kind == line.kind)
        };
        Ok(page.iter().filter(is_wanted).map(ledger_line).collect())
    }

    async fn learn(&self''')
sub(e,'''/// The head of a CSV file.
pub fn csv_head(what: &What) -> Vec<u8> {
    csv_rows(&[what.columns().iter().map(|name| Cell::Text((*name).to_owned())).collect()])
}
''','''/// A line of the ledger under [`LEDGER_COLUMNS`].
pub fn ledger_line(line: &Transaction) -> Vec<Cell> {
    let text = |text: &Option<String>| text.clone().map_or(Cell::Empty, Cell::Text);
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
        text(&line.reference),
        text(&line.remark),
        line.hold_id.map_or(Cell::Empty, Cell::id),
        line.reverses_id.map_or(Cell::Empty, Cell::id),
        line.counterpart_id.map_or(Cell::Empty, Cell::id),
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

/// No id of a row recorded at `at` or later comes before this one (UUIDv7, RFC 9562: it begins with the milliseconds).
fn first_id(at: Timestamp) -> uuid::Uuid {
    let millis = u64::try_from(at.0.div_euclid(1_000)).unwrap_or(0);
    uuid::Uuid::from_u128(u128::from(millis.min((1 << 48) - 1)) << 80)
}

/// The head of a CSV file.
pub fn csv_head(what: &What) -> Vec<u8> {
    csv_names(what.columns())
}

/// Names of columns as a line of CSV.
pub fn csv_names(names: &[&str]) -> Vec<u8> {
    csv_rows(&[names.iter().map(|name| Cell::Text((*name).to_owned())).collect()])
}
''')
x='server/src/http/exports.rs'
sub(x,'''fn format_of(parameters''','''/// Export the ledger of points
///
/// Lines of all members that took effect between `from` and `until`, in the order in which they were recorded.
#[utoipa::path(get, path = "/v1/exports/points-transactions", tag = "Exports", security(("key" = ["OPERATOR"])),
    params(("format" = Option<schema::ExportFormat>, Query), ("type" = Option<schema::TransactionType>, Query),
        ("from" = Option<Time>, Query), ("until" = Option<Time>, Query)),
    responses((status = 200, description = "A line for each transaction", content((String = "text/csv"),
        (String = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))), Problems))]
pub async fn export_points_transactions(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let format = format_of(&mut parameters);
    let kind = parameters.take("type", "a transaction type", TransactionType::parse);
    let from = parameters.time("from");
    let until = parameters.time("until");
    parameters.finish()?;
    respond(&app, caller.tenant(), What::PointsTransactions { kind, from, until }, format).await
}

/// Export the balances of points
///
/// Of all members. What has expired by now counts as expired, written or not.
#[utoipa::path(get, path = "/v1/exports/points-balances", tag = "Exports", security(("key" = ["OPERATOR"])),
    params(("format" = Option<schema::ExportFormat>, Query)),
    responses((status = 200, description = "A line for each account", content((String = "text/csv"),
        (String = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))), Problems))]
pub async fn export_points_balances(
    State(app): State<AppState>,
    Operator(caller): Operator,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(&uri)?;
    let format = format_of(&mut parameters);
    parameters.finish()?;
    respond(&app, caller.tenant(), What::PointsBalances, format).await
}

fn format_of(parameters''')
sub(x,'use scrip_domain::coupon::CouponStatus;\n','use scrip_domain::coupon::CouponStatus;\nuse scrip_domain::points::TransactionType;\n')
m='server/src/http/mod.rs'
sub(m,'''        .routes(routes!(statements::export_transactions))
        .routes(routes!(statements::export_balances))
''','')
sub(m,'''        .routes(routes!(exports::export_templates))
''','''        .routes(routes!(exports::export_templates))
        .routes(routes!(exports::export_points_transactions))
        .routes(routes!(exports::export_points_balances))
''')
s='server/src/http/statements.rs'
t=open(s).read()
# tables -> export
i=t.index("/// Lines of CSV (RFC 4180).\nstruct Table"); j=t.index("/// A line of CSV that is no transaction")
t=t[:i]+t[j:]
i=t.index("/// A line of CSV that is no transaction"); j=t.index("struct Lines {")
t=t[:i]+'''/// A line of CSV that is no transaction: what the account was before or after.
fn position_cells(member_id: &MemberId, name: &str, posted: &Posted, at: Timestamp) -> Vec<Cell> {
    let mut cells = vec![Cell::Empty; export::LEDGER_COLUMNS.len()];
    let mut set = |column: &str, cell: Cell| {
        if let Some(place) = export::LEDGER_COLUMNS.iter().position(|name| *name == column) {
            cells[place] = cell;
        }
    };
    set("member_id", Cell::id(member_id));
    set("type", Cell::Text(name.to_owned()));
    set("balance_after", Cell::Int(posted.available));
    set("frozen_after", Cell::Int(posted.frozen));
    set("debt_after", Cell::Int(posted.debt));
    set("occurred_at", Cell::time(at));
    cells
}

'''+t[j:]
t=t.replace('''            let mut table = Table::new();
            table.add(LINE_COLUMNS.map(Cell::name))?;
            table.add(position_cells(&self.member_id, "OPENING", &self.opening, self.period.start))?;
            return table.bytes();
''','''            let opening = position_cells(&self.member_id, "OPENING", &self.opening, self.period.start);
            return [export::csv_names(export::LEDGER_COLUMNS), export::csv_rows(&[opening])].concat();
''')
t=t.replace('''    fn head(&self) -> Result<Vec<u8>, Problem> {''','''    fn head(&self) -> Vec<u8> {''')
t=t.replace('''        text.push_str(",\\"lines\\":[");
        Ok(text.into_bytes())''','''        text.push_str(",\\"lines\\":[");
        text.into_bytes()''')
t=t.replace('''    fn tail(&self) -> Result<Vec<u8>, Problem> {
        if self.format == Format::Json {
            return Ok(b"]}".to_vec());
        }
        let mut table = Table::new();
        table.add(position_cells(&self.member_id, "CLOSING", &self.closing, self.period.end))?;
        table.bytes()
    }''','''    fn tail(&self) -> Vec<u8> {
        if self.format == Format::Json {
            return b"]}".to_vec();
        }
        export::csv_rows(&[position_cells(&self.member_id, "CLOSING", &self.closing, self.period.end)])
    }''')
t=t.replace("return Ok(Some((self.head()?, self)));","return Ok(Some((self.head(), self)));")
t=t.replace("let tail = self.tail()?;","let tail = self.tail();")
t=t.replace('''            Format::Csv => {
                let mut table = Table::new();
                lines.iter().try_for_each(|line| table.add(line_cells(line)))?;
                table.bytes()?
            }
''','''            Format::Csv => export::csv_rows(&lines.iter().map(export::ledger_line).collect::<Vec<_>>()),
''')
i=t.index("/// Where an export of a tenant's ledger stands."); j=t.index("/// Points that expire soon.")
t=t[:i]+t[j:]
i=t.index("    #[test]\n    fn a_table_quotes"); j=t.index("    #[test]\n    fn cursors_read_back")
t=t[:i]+t[j:]
t=t.replace("use crate::{calendar, clock};","use crate::export::{self, Cell};\nuse crate::{calendar, clock};") if "use crate::export" not in t else t
open(s,'w').write(t)
c='server/src/cli/export.rs'
sub(c,'//! `scrip export`: coupons, uses and templates into a file.','//! `scrip export`: coupons, uses, templates, the ledger and the balances of points into a file.')
sub(c,'    Templates,\n}','    Templates,\n    PointsTransactions,\n    PointsBalances,\n}')
sub(c,'/// Writes coupons, their uses or templates into a file, however many there are.','/// Writes coupons, their uses, templates, the ledger or the balances of points into a file, however many there are.')
sub(c,'            Kind::Templates => What::Templates,\n','            Kind::Templates => What::Templates,\n            Kind::PointsTransactions => What::PointsTransactions { kind: None, from: None, until: None },\n            Kind::PointsBalances => What::PointsBalances,\n')
