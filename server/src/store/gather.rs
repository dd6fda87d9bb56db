//! One statement for many callers: reads that are asked all day, gathered on PostgreSQL as the lanes gather commands.
//!
//! A reader takes all that waits, sends one statement for each kind of read with the callers' parameters as arrays, and hands
//! each caller its own rows; meanwhile the next ones gather. It never waits for more: a lone read is sent at once, and a
//! thousand at a time share a message, a plan and a snapshot. The statement is the lone read's own, set behind the arrays:
//! `SELECT r.*, k.n FROM (SELECT unnest($1) AS p1, ..., unnest($m) AS n) k CROSS JOIN LATERAL (the read) r`.
//!
//! What it guarantees: a read sees all that was committed before it was asked, as its statement begins afterwards. What
//! cannot be gathered (no connection is open, too many wait, the connection broke, the statement failed) is asked by itself,
//! and its error is the one that is told: nobody waits for a server that is away.
//!
//! What bounds it: [`MAX_WAITING`] reads in the queue, [`READERS`] connections beside those of the pool, first opened when
//! the first read comes, and a pause between attempts that doubles from [`FIRST_PAUSE`] to [`MAX_PAUSE`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::StoreError;
use super::postgres::{Column, Endpoint, INDEXES_ONLY};
use super::traffic::{Traffic, name_of};
use super::value::Param;

const READERS: usize = 2;
/// Reads that may wait; more are asked by themselves, where the pool bounds them.
const MAX_WAITING: usize = 1_000;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Gathers the reads of one server. Its readers end when the last clone is gone.
#[derive(Clone)]
pub(super) struct Gatherer(Arc<Handle>);

struct Handle(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    traffic: Traffic,
    queue: Mutex<Queue>,
    ready: Notify,
}

#[derive(Default)]
struct Queue {
    /// By the text of the lone read.
    waiting: HashMap<String, Vec<Asked>>,
    len: usize,
    has_readers: bool,
    /// Readers whose connection is open.
    connected: usize,
    is_closed: bool,
}

struct Asked {
    parameters: Vec<Value>,
    reply: oneshot::Sender<Vec<Row>>,
}

/// A parameter that outlives its caller's patience.
enum Value {
    Uuid(Uuid),
    Text(String),
    Int(i64),
}

impl Value {
    /// `None` for what no gathered read takes.
    fn of(parameter: &Param<'_>) -> Option<Value> {
        match parameter {
            Param::Uuid(value) => Some(Value::Uuid(*value)),
            Param::Text(value) => Some(Value::Text((*value).to_owned())),
            Param::Int(value) => Some(Value::Int(*value)),
            _ => None,
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Value::Uuid(_) => "uuid",
            Value::Text(_) => "text",
            Value::Int(_) => "bigint",
        }
    }
}

impl Gatherer {
    pub(super) fn new(endpoint: Endpoint, traffic: Traffic) -> Gatherer {
        Gatherer(Arc::new(Handle(Arc::new(Shared {
            endpoint,
            traffic,
            queue: Mutex::default(),
            ready: Notify::new(),
        }))))
    }

    /// The rows of a SELECT; `None` when it must be asked by itself.
    pub(super) async fn ask(&self, sql: &str, parameters: &[Param<'_>]) -> Option<Vec<Row>> {
        let parameters = parameters.iter().map(Value::of).collect::<Option<Vec<Value>>>()?;
        let shared = &self.0.0;
        let (reply, rows) = oneshot::channel();
        {
            let mut queue = shared.queue.lock();
            if !queue.has_readers {
                queue.has_readers = true;
                for _ in 0..READERS {
                    tokio::spawn(shared.clone().read());
                }
            }
            if queue.connected == 0 || queue.len >= MAX_WAITING {
                return None;
            }
            queue.len += 1;
            let asked = Asked { parameters, reply };
            match queue.waiting.get_mut(sql) {
                Some(waiting) => waiting.push(asked),
                None => drop(queue.waiting.insert(sql.to_owned(), vec![asked])),
            }
        }
        shared.ready.notify_one();
        rows.await.ok()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.lock().is_closed = true;
        self.0.ready.notify_waiters();
        // For a reader that is about to wait.
        self.0.ready.notify_one();
    }
}

impl Shared {
    /// Keeps a connection and answers over it what is asked, until nobody can ask any more.
    async fn read(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        while !self.queue.lock().is_closed {
            match Connection::open(&self.endpoint).await {
                Ok(connection) => {
                    pause = FIRST_PAUSE;
                    self.answer_over(connection).await;
                }
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    /// Until the connection breaks, or nobody can ask any more. What waits for the last connection is asked by itself.
    async fn answer_over(&self, mut connection: Connection) {
        self.queue.lock().connected += 1;
        while let Some(gathered) = self.next().await {
            if connection.client.is_closed() {
                break;
            }
            connection.answer(gathered, &self.traffic).await;
        }
        let mut queue = self.queue.lock();
        queue.connected -= 1;
        if queue.connected == 0 {
            queue.waiting.clear();
            queue.len = 0;
        }
    }

    /// What waits, as soon as anything does; `None` at the end.
    async fn next(&self) -> Option<HashMap<String, Vec<Asked>>> {
        loop {
            {
                let mut queue = self.queue.lock();
                if queue.len > 0 {
                    queue.len = 0;
                    return Some(std::mem::take(&mut queue.waiting));
                }
                if queue.is_closed {
                    // The other one may be waiting for the same word.
                    self.ready.notify_one();
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }
}

struct Connection {
    client: Client,
    /// By the text of the lone read.
    statements: HashMap<String, Statement>,
}

impl Connection {
    async fn open(endpoint: &Endpoint) -> Result<Connection, StoreError> {
        let client = endpoint.connect().await?;
        client.batch_execute(INDEXES_ONLY).await?;
        Ok(Connection { client, statements: HashMap::new() })
    }

    /// Sends a statement for each kind of read, all at once, and hands the rows to those who asked. A statement that fails
    /// drops their replies.
    async fn answer(&mut self, gathered: HashMap<String, Vec<Asked>>, traffic: &Traffic) {
        for (sql, asked) in &gathered {
            if !self.statements.contains_key(sql) {
                let types: Vec<&str> = asked[0].parameters.iter().map(Value::type_name).collect();
                if let Ok(statement) = self.client.prepare(&gathered_sql(sql, &types)).await {
                    self.statements.insert(sql.clone(), statement);
                }
            }
        }
        let (client, statements) = (&self.client, &self.statements);
        traffic.count_round_trip();
        join_all(gathered.into_iter().map(|(sql, asked)| async move {
            let Some(statement) = statements.get(&sql) else { return };
            traffic.count_read();
            let columns = columns(&asked);
            let columns: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
            let begun = Instant::now();
            let Ok(rows) = client.query(statement, &columns).await else { return };
            traffic.watch(begun, rows.len(), || format!("gathered {}", name_of(&sql)));
            let mut shares: Vec<Vec<Row>> = asked.iter().map(|_| Vec::new()).collect();
            for row in rows {
                let number: i64 = row.get(row.len() - 1);
                shares[number as usize].push(row);
            }
            for (asked, share) in asked.into_iter().zip(shares) {
                // Whoever asked may be gone.
                let _ = asked.reply.send(share);
            }
        }))
        .await;
    }
}

/// The callers' parameters, column by column; the last one numbers the callers.
fn columns(asked: &[Asked]) -> Vec<Column<'_>> {
    let each = |index: usize| asked.iter().map(move |asked| &asked.parameters[index]);
    let mut columns: Vec<Column<'_>> = (0..asked[0].parameters.len())
        .map(|index| match &asked[0].parameters[index] {
            Value::Uuid(_) => Column::Uuid(each(index).map(Value::uuid).collect()),
            Value::Text(_) => Column::Text(each(index).map(Value::text).collect()),
            Value::Int(_) => Column::Int(each(index).map(Value::int).collect()),
        })
        .collect();
    columns.push(Column::Int((0..asked.len() as i64).map(Some).collect()));
    columns
}

/// A value as the type of its column. The parameters of one statement have the same types whoever asks; another would make
/// the row unknown, never a wrong one: nothing is found under NULL.
impl Value {
    fn uuid(&self) -> Option<Uuid> {
        if let Value::Uuid(value) = self { Some(*value) } else { None }
    }

    fn text(&self) -> Option<&str> {
        if let Value::Text(value) = self { Some(value) } else { None }
    }

    fn int(&self) -> Option<i64> {
        if let Value::Int(value) = self { Some(*value) } else { None }
    }
}

/// The lone read set behind arrays of its parameters.
pub(super) fn gathered_sql(sql: &str, types: &[&str]) -> String {
    let mut lateral = String::with_capacity(sql.len() + 32);
    for (number, part) in sql.split('$').enumerate() {
        if number > 0 {
            lateral.push_str("k.p");
        }
        lateral.push_str(part);
    }
    let arrays = types.iter().zip(1..).map(|(ty, number)| format!("unnest(${number}::{ty}[]) AS p{number}, "));
    let arrays: String = arrays.collect();
    let last = types.len() + 1;
    format!(
        "SELECT r.*, k.n FROM (SELECT {arrays}unnest(${last}::bigint[]) AS n) k CROSS JOIN LATERAL ({sql}) r",
        sql = lateral
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_read_is_set_behind_the_arrays_of_its_parameters() {
        let sql = "SELECT a FROM t WHERE b = $1 AND c < $2 AND d > $1 LIMIT $10";
        assert_eq!(
            gathered_sql(sql, &["uuid", "text"]),
            "SELECT r.*, k.n FROM (SELECT unnest($1::uuid[]) AS p1, unnest($2::text[]) AS p2, unnest($3::bigint[]) AS n) k \
             CROSS JOIN LATERAL (SELECT a FROM t WHERE b = k.p1 AND c < k.p2 AND d > k.p1 LIMIT k.p10) r"
        );
    }
}
