//! The API through real sockets, on both stores.

mod acceptance;
mod bad_input;
mod bulks;
mod codes;
mod complaints;
mod events;
mod imports;
mod members;
mod mutations;
mod operations;
mod orders;
mod paging;
mod programs;
mod quotes;
mod replays;
mod rules;
mod tenancy;

use std::net::SocketAddr;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use scrip_server::app::App;
use scrip_server::config::Settings;
use scrip_server::store::{Store, StoreUrl};
use scrip_server::verify::verify;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::harness::{Fixture, Kind};

pub const PLATFORM_KEY: &str = "platform-key-of-the-tests";

/// A server of this process on a port of its own; drains when dropped.
pub struct Server {
    pub addr: SocketAddr,
    pub store: Store,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    /// On a store that may have other servers as well.
    pub async fn on(url: &StoreUrl) -> Server {
        Server::with(url, |_| {}).await
    }

    pub async fn with(url: &StoreUrl, adjust: impl FnOnce(&mut Settings)) -> Server {
        let mut settings = Settings::load(None).expect("the defaults are usable");
        settings.store.url = match url {
            StoreUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
            StoreUrl::Postgres(url) => url.clone(),
        };
        if matches!(url, StoreUrl::Postgres(_)) {
            settings.codes.key_file = code_keys();
        }
        adjust(&mut settings);
        let app = App::start(&settings, Some(PLATFORM_KEY)).await.expect("the server starts");
        let store = app.store.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(app.serve(listener, async move {
            let _ = stopped.await;
        }));
        Server { addr, store, stop, task }
    }

    /// Answers what is under way and ends.
    pub async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("the server ends").expect("it was served to the end");
    }

    pub async fn client(&self, key: &str) -> Client {
        Client::to(self.addr, key).await
    }

    /// A tenant with a key of each scope.
    pub async fn shop(&self) -> Shop {
        let mut platform = self.client(PLATFORM_KEY).await;
        let tenant = platform.post("/v1/tenants", json!({ "name": "Shop" })).await.json(201);
        let id = tenant["id"].as_str().expect("an id").to_owned();
        let mut key = async |scope: &str, member: Option<&str>| {
            let asked = json!({ "name": scope, "scope": scope, "member_id": member });
            let made = platform.post(&format!("/v1/tenants/{id}/api-keys"), asked).await.json(201);
            made["secret"].as_str().expect("a secret").to_owned()
        };
        let operator = key("OPERATOR", None).await;
        let service = key("SERVICE", None).await;
        let member = key("MEMBER", Some("m-1")).await;
        Shop { id: id.clone(), operator, service, member }
    }

    /// How many events there are in the store: the log itself may show the last ones a moment later.
    pub async fn event_count(&self) -> usize {
        let found = self.store.stream("SELECT count(*) FROM event", &[], |row| row.int(0)).await.expect("a count");
        usize::try_from(found[0]).expect("a count")
    }

    pub async fn assert_sound(&self) {
        let report = verify(&self.store, None, |_, _, _| {}).await.expect("verify runs");
        let broken: Vec<_> = report.checks.iter().filter(|check| !check.is_clean()).collect();
        assert!(broken.is_empty(), "{broken:?}");
    }
}

/// The file of code keys that all servers of this process share: PostgreSQL has no file to put one beside.
fn code_keys() -> String {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        scrip_server::codes::key::CodeKeys::add_to(&folder.path().join("codes.key")).expect("a key");
        folder
    });
    folder.path().join("codes.key").display().to_string()
}

/// A tenant's id and keys; the member key is m-1's.
pub struct Shop {
    pub id: String,
    pub operator: String,
    pub service: String,
    pub member: String,
}

/// A store and a server on it.
pub async fn start(kind: Kind) -> (Fixture, Server) {
    let fixture = Fixture::new(kind).await;
    let server = Server::on(&fixture.url).await;
    (fixture, server)
}

async fn connect(addr: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(addr).await.expect("a connection");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

/// One connection with one key; a new one when the server has closed it, as after a body that it did not read.
pub struct Client {
    addr: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    key: String,
    /// What its requests are of.
    program: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body, which must come with this status.
    pub fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.value()
    }

    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

pub const JSON: (&str, &str) = ("content-type", "application/json");

impl Client {
    pub async fn to(addr: SocketAddr, key: &str) -> Client {
        Client { addr, sender: connect(addr).await, key: key.to_owned(), program: None }
    }

    /// The same for a program of the key's tenant.
    pub fn of_program(self, code: &str) -> Client {
        Client { program: Some(code.to_owned()), ..self }
    }

    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "scrip");
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        if let Some(code) = &self.program {
            request = request.header("scrip-program", code);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let sent = match self.sender.ready().await {
            Ok(()) => self.sender.send_request(request.clone()).await,
            Err(closed) => Err(closed),
        };
        let response = match sent {
            Ok(response) => response,
            Err(_) => {
                self.sender = connect(self.addr).await;
                let again = self.sender.send_request(request).await;
                again.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
            }
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], Bytes::new()).await
    }

    pub async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[JSON], body.to_string()).await
    }
}

pub fn template() -> Value {
    json!({ "name": "t", "benefit": { "type": "AMOUNT_OFF", "amount": 500 }, "validity": { "type": "RELATIVE", "days": 30 } })
}

/// The text of a field that is one.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// Sends the requests over several connections at once; their statuses.
pub async fn spread(server: &Server, key: &str, connections: usize, requests: Vec<(String, Value)>) -> Vec<StatusCode> {
    let mut clients = Vec::new();
    for number in 0..connections {
        let share: Vec<_> = requests.iter().skip(number).step_by(connections).cloned().collect();
        let mut client = server.client(key).await;
        clients.push(tokio::spawn(async move {
            let mut statuses = Vec::with_capacity(share.len());
            for (path, body) in share {
                statuses.push(client.post(&path, body).await.status);
            }
            statuses
        }));
    }
    let mut statuses = Vec::new();
    for client in clients {
        statuses.extend(client.await.expect("the client ends"));
    }
    statuses
}
