//! Clients that repeat each request with its idempotency key until it is acknowledged; and the count of what came of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scrip_server::bench::Target;
use scrip_server::bench::client::{JSON, request_bytes};
use scrip_server::store::{Store, StoreUrl};
use scrip_server::verify::verify;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::harness::address_of;

/// Longer than any fault of these tests; whoever waits this long waits in vain.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts at the same request.
pub const PAUSE: Duration = Duration::from_millis(5);

/// The program under test.
pub fn scrip() -> String {
    env!("CARGO_BIN_EXE_scrip").to_owned()
}

/// `scrip serve` on a store.
pub fn serve(url: &StoreUrl) -> [String; 3] {
    ["serve".to_owned(), "--store".to_owned(), address_of(url)]
}

/// A fixed address for a server that comes back: of the ports that no outgoing connection is given in between.
pub fn fixed_address() -> SocketAddr {
    let mut candidates =
        std::iter::repeat_with(|| SocketAddr::from(([127, 0, 0, 1], rand::random_range(15_000..30_000))));
    candidates.find(|address| std::net::TcpListener::bind(address).is_ok()).expect("a free port")
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let give_up_at = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < give_up_at, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// A client of one or more servers: it stays with one until that one refuses connections.
pub struct Client {
    targets: Vec<Target>,
    current: usize,
    connection: Option<TcpStream>,
}

/// An answer of HTTP/1.1.
pub struct Response {
    pub status: u16,
    /// Status line and headers, in lower case.
    head: String,
    body: Vec<u8>,
}

impl Response {
    /// Reads the answer to the one request under way.
    pub async fn read(stream: &mut TcpStream) -> std::io::Result<Response> {
        let mut read = Vec::new();
        loop {
            if stream.read_buf(&mut read).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let mut response = Response { status: 0, head, body: Vec::new() };
            let length: usize = response.header("content-length").and_then(|text| text.parse().ok()).expect("a length");
            if read.len() == end + 4 + length {
                response.status = response.head[9..12].parse().expect("a status");
                response.body = read.split_off(end + 4);
                return Ok(response);
            }
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").skip(1);
        lines.filter_map(|line| line.split_once(": ")).find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nobody listens there: nothing was sent.
    Refused,
    /// The connection broke under the request.
    Broken(String),
}

impl Client {
    pub fn new(targets: &[Target]) -> Client {
        Client { targets: targets.to_vec(), current: 0, connection: None }
    }

    /// One attempt: the status and the body.
    pub async fn post(&mut self, path: &str, key: &str, body: &Value) -> Result<(u16, Value), NoAnswer> {
        self.call("POST", path, Some(key), Some(body)).await
    }

    pub async fn get(&mut self, path: &str) -> Result<(u16, Value), NoAnswer> {
        self.call("GET", path, None, None).await
    }

    async fn call(
        &mut self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(u16, Value), NoAnswer> {
        let target = &self.targets[self.current];
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match TcpStream::connect(target.addr).await {
                Ok(connection) => connection,
                Err(_) => {
                    self.current = (self.current + 1) % self.targets.len();
                    return Err(NoAnswer::Refused);
                }
            },
        };
        let text = body.map(Value::to_string);
        let bytes = request_bytes(target, method, path, key, text.as_deref().map(|text| (JSON, text)));
        let exchange = async {
            connection.write_all(&bytes).await?;
            Response::read(&mut connection).await
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer, whatever it is");
        let answer = answer.map_err(|error| NoAnswer::Broken(error.to_string()))?;
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        let body = if answer.body.starts_with(b"{") {
            serde_json::from_slice(&answer.body).expect("JSON")
        } else {
            Value::Null
        };
        Ok((answer.status, body))
    }
}

/// What happened to the requests of a load.
#[derive(Debug, Default)]
pub struct Tally {
    /// The keys of acknowledged grants and of acknowledged claims.
    pub grants: Vec<String>,
    pub claims: Vec<String>,
    /// Answers with 503, by code.
    pub unavailable: BTreeMap<String, u64>,
    /// Connections refused, and connections broken under a request.
    pub refused: u64,
    pub broken: Vec<String>,
    /// Every other answer than 201 and 503.
    pub unexpected: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.grants.extend(other.grants);
        self.claims.extend(other.claims);
        for (code, count) in other.unavailable {
            *self.unavailable.entry(code).or_default() += count;
        }
        self.refused += other.refused;
        self.broken.extend(other.broken);
        self.unexpected.extend(other.unexpected);
    }
}

/// Clients at work, half of their requests grants to few members, half claims of one template.
pub struct Load {
    progress: Arc<Progress>,
    clients: Vec<JoinHandle<Tally>>,
}

#[derive(Default)]
struct Progress {
    stopped: AtomicBool,
    acknowledged: AtomicU64,
    /// Answers with 503 since the last acknowledgement.
    turned_away: AtomicU64,
}

/// A template that anybody may claim from; its id.
pub async fn template(target: &Target) -> String {
    let body = json!({ "name": "t", "benefit": { "type": "AMOUNT_OFF", "amount": 1 },
                       "validity": { "type": "RELATIVE", "days": 30 }, "total_stock": 1_000_000 });
    let mut client = Client::new(std::slice::from_ref(target));
    let (status, template) = client.post("/v1/coupon-templates", "template", &body).await.expect("an answer");
    assert_eq!(status, 201, "{template}");
    template["id"].as_str().expect("an id").to_owned()
}

impl Load {
    /// Starts `count` clients, the first servers of which are spread over `targets`.
    pub async fn start(targets: &[Target], count: usize) -> Load {
        let template = template(&targets[0]).await;
        let progress = Arc::new(Progress::default());
        let clients = (0..count).map(|number| {
            let mut client = Client::new(targets);
            client.current = number % targets.len();
            let (template, progress) = (template.clone(), progress.clone());
            tokio::spawn(async move {
                let mut tally = Tally::default();
                for step in 0.. {
                    if progress.stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    send(&mut client, &template, number, step, &progress, &mut tally).await;
                }
                tally
            })
        });
        Load { clients: clients.collect(), progress }
    }

    /// Waits for this many more acknowledgements.
    pub async fn advance(&self, count: u64) {
        let acknowledged = || self.progress.acknowledged.load(Ordering::Relaxed);
        let wanted = acknowledged() + count;
        until("acknowledgements", async || acknowledged() >= wanted).await;
    }

    /// Waits until this many requests in a row were turned away.
    pub async fn turned_away(&self, count: u64) {
        until("refusals", async || self.progress.turned_away.load(Ordering::Relaxed) >= count).await;
    }

    /// Lets each client finish its request, and adds up.
    pub async fn finish(self) -> Tally {
        self.progress.stopped.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            all.add(client.await.expect("the client ends"));
        }
        all
    }
}

/// Sends one request until it is acknowledged. Grants go to few members, so that batches meet the same rows.
async fn send(client: &mut Client, template: &str, number: usize, step: u64, progress: &Progress, tally: &mut Tally) {
    let key = format!("k{number}-{step}");
    let is_grant = step.is_multiple_of(2);
    let (path, body) = if is_grant {
        let member = number % 3;
        (format!("/v1/members/m{member}/points/grants"), json!({ "points": 1, "reference": key }))
    } else {
        (format!("/v1/coupon-templates/{template}/claims"), json!({ "member_id": key }))
    };
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        match client.post(&path, &key, &body).await {
            Ok((201, _)) => break,
            Ok((503, problem)) => {
                let code = problem["code"].as_str().expect("a code").to_owned();
                *tally.unavailable.entry(code).or_default() += 1;
                progress.turned_away.fetch_add(1, Ordering::Relaxed);
            }
            Ok((status, problem)) => tally.unexpected.push(format!("{status} {problem}")),
            Err(NoAnswer::Refused) => tally.refused += 1,
            Err(NoAnswer::Broken(why)) => tally.broken.push(why),
        }
        assert!(Instant::now() < give_up_at, "{key} was not acknowledged within {PATIENCE:?}: {tally:?}");
        tokio::time::sleep(PAUSE).await;
    }
    progress.acknowledged.fetch_add(1, Ordering::Relaxed);
    progress.turned_away.store(0, Ordering::Relaxed);
    if is_grant { tally.grants.push(key) } else { tally.claims.push(key) }
}

/// Each acknowledged key has exactly one effect, there is no other effect, and the books are clean.
pub async fn check(store: &Store, mut tally: Tally) {
    assert_eq!(tally.unexpected, Vec::<String>::new());
    let sql = "SELECT reference FROM mkt_points_transaction WHERE type = 'EARN_ORDER'";
    let mut granted = store.stream(sql, &[], |row| row.text(0)).await.expect("the ledger");
    let sql = "SELECT member_id FROM mkt_user_coupon";
    let mut claimed = store.stream(sql, &[], |row| row.text(0)).await.expect("the coupons");
    for keys in [&mut granted, &mut claimed, &mut tally.grants, &mut tally.claims] {
        keys.sort_unstable();
    }
    assert_eq!(granted, tally.grants, "grants that have happened and grants acknowledged");
    assert_eq!(claimed, tally.claims, "claims that have happened and claims acknowledged");
    check_books(store).await;
}

pub async fn check_books(store: &Store) {
    let report = verify(store, None, |_, _, _| {}).await.expect("verify runs");
    let violations: Vec<_> = report.checks.iter().filter(|check| !check.violations.is_empty()).collect();
    assert!(report.is_clean(), "{violations:#?}");
}
