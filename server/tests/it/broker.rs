//! Events to a real NATS server, which is killed, restarted and wiped: its stream has every event once, in the order of its
//! subject, and commands notice nothing.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use async_nats::jetstream;
use futures_util::StreamExt;
use scrip_server::config::Settings;
use serde_json::{Value, json};

use crate::certificate::Certificate;
use crate::harness::{Fixture, KINDS, Kind, address_of};
use crate::http::{Client, Server, text};
use crate::postgres::free_port;
use crate::webhooks::until;

/// Messages asked for at once.
const AT_A_TIME: usize = 64;

/// A NATS server of the test's own, killed when dropped.
pub struct Nats {
    pub port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Nats {
    pub async fn start() -> Nats {
        let mut nats =
            Nats { port: free_port(), folder: tempfile::tempdir().expect("a temporary folder"), child: None };
        nats.up().await;
        nats
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it on what its folder holds.
    pub async fn up(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let data = self.folder.path().join("data");
        let child = Command::new(server_binary())
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-js", "-sd"])
            .arg(data)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts; `make deps` installs it");
        self.child = Some(child);
        let url = self.url();
        until("NATS", async || async_nats::connect(&url).await.ok()).await;
    }

    /// One that speaks TLS only, and keeps nothing.
    pub async fn behind_tls(certificate: &Certificate) -> Nats {
        let port = free_port();
        let child = Command::new(server_binary())
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "--tls", "--tlscert"])
            .arg(certificate.path())
            .arg("--tlskey")
            .arg(certificate.key_path())
            .stderr(Stdio::null())
            .spawn();
        let child = Some(child.expect("nats-server starts; `make deps` installs it"));
        until("NATS", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        Nats { port, folder: tempfile::tempdir().expect("a temporary folder"), child }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Forgets everything it kept.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "it is down");
        let _ = std::fs::remove_dir_all(self.folder.path().join("data"));
    }

    /// Every message of the stream, in its order: the subject, the message's id and the event. `None` while it is not there.
    pub async fn messages(&self) -> Option<Vec<(String, String, Value)>> {
        self.messages_from(1).await
    }

    /// The same from a place in the stream on, which counts from 1.
    pub async fn messages_from(&self, first: u64) -> Option<Vec<(String, String, Value)>> {
        let client = async_nats::connect(self.url()).await.ok()?;
        let mut stream = jetstream::new(client).get_stream("SCRIP").await.ok()?;
        let state = stream.info().await.ok()?.state.clone();
        let stream = &stream;
        let sequences = futures_util::stream::iter(state.first_sequence.max(first)..=state.last_sequence);
        let mut found = sequences.map(|sequence| stream.get_raw_message(sequence)).buffered(AT_A_TIME);
        let mut messages = Vec::new();
        while let Some(message) = found.next().await {
            let message = message.ok()?;
            let id = message.headers.get("Nats-Msg-Id").map(ToString::to_string).unwrap_or_default();
            let event = serde_json::from_slice(&message.payload).expect("a JSON payload");
            messages.push((message.subject.to_string(), id, event));
        }
        Some(messages)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Debian keeps it where only root looks.
fn server_binary() -> &'static str {
    if Path::new("/usr/sbin/nats-server").is_file() { "/usr/sbin/nats-server" } else { "nats-server" }
}

fn with_broker(url: &str) -> impl FnOnce(&mut Settings) {
    let url = url.to_owned();
    move |settings| {
        settings.events.nats_url = Some(url);
        settings.events.poll_ms = 20;
    }
}

/// Grants to members, from `from` on.
async fn grants(client: &mut Client, from: usize, count: usize) {
    for number in from..from + count {
        let path = format!("/v1/members/m-{}/points/grants", number % 7);
        client.post(&path, json!({ "points": 1, "reference": format!("r-{number}") })).await.json(201);
    }
}

async fn log(client: &mut Client) -> Vec<Value> {
    let (mut events, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/events?limit=200&cursor={cursor}")).await.json(200);
        let rows = page["data"].as_array().expect("events").clone();
        if rows.is_empty() {
            return events;
        }
        events.extend(rows);
        cursor = text(&page, "next_cursor").to_owned();
    }
}

fn by_subject<'a>(events: impl Iterator<Item = &'a Value>) -> BTreeMap<String, Vec<String>> {
    let mut by_subject: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        let subject = event["member_id"].as_str().unwrap_or_else(|| text(event, "subject_id"));
        by_subject.entry(subject.to_owned()).or_default().push(text(event, "id").to_owned());
    }
    by_subject
}

/// The stream has each event of the log once, in the order of its subject, under its id.
async fn assert_published(nats: &Nats, server: &Server, client: &mut Client, tenant: &str) {
    let expected = until("the whole log", async || {
        let log = log(client).await;
        let messages = nats.messages().await?;
        // On PostgreSQL an event shows once nothing older is under way, in other tests' databases too.
        (log.len() == server.event_count().await && messages.len() >= log.len()).then_some(log)
    })
    .await;
    let messages = nats.messages().await.expect("the stream");
    assert_eq!(messages.len(), expected.len(), "nothing twice");
    let ids: HashSet<&str> = messages.iter().map(|(_, id, _)| id.as_str()).collect();
    assert_eq!(ids.len(), messages.len());
    for (subject, id, event) in &messages {
        assert_eq!(id, text(event, "id"));
        assert_eq!(*subject, format!("scrip.{tenant}.{}", text(event, "type")));
    }
    assert_eq!(by_subject(messages.iter().map(|(_, _, event)| event)), by_subject(expected.iter()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_wiped_loses_nothing() {
    for kind in KINDS {
        let mut nats = Nats::start().await;
        let fixture = Fixture::new(kind).await;
        let server = Server::with(&fixture.url, with_broker(&nats.url())).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        grants(&mut client, 0, 40).await;
        // In the middle of the stream; commands go on as if nothing were.
        nats.kill();
        grants(&mut client, 40, 40).await;
        let metrics = async |client: &mut Client, name: &str| {
            let text = String::from_utf8(client.get("/metrics").await.body.to_vec()).expect("text");
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect("the metric").to_owned();
            line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
        };
        until("a lag that shows", async || {
            (metrics(&mut client, "scrip_broker_lag_seconds").await > 0.0).then_some(())
        })
        .await;
        nats.up().await;
        assert_published(&nats, &server, &mut client, &shop.id).await;
        // Everything is gone; the log is not.
        nats.kill();
        nats.wipe();
        nats.up().await;
        let replay = Command::new(env!("CARGO_BIN_EXE_scrip"))
            .args(["events", "replay", "--from", "start", "--tenant", &shop.id, "--store", &address_of(&fixture.url)])
            .output()
            .expect("the command runs");
        assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
        grants(&mut client, 80, 20).await;
        assert_published(&nats, &server, &mut client, &shop.id).await;
        assert!(metrics(&mut client, "scrip_broker_published_total").await >= 180.0);
        until("no lag", async || (metrics(&mut client, "scrip_broker_lag_seconds").await == 0.0).then_some(())).await;
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_publish_as_one() {
    let nats = Nats::start().await;
    let fixture = Fixture::new(Kind::Postgres).await;
    let first = Server::with(&fixture.url, with_broker(&nats.url())).await;
    let second = Server::with(&fixture.url, with_broker(&nats.url())).await;
    let shop = first.shop().await;
    let mut client = second.client(&shop.operator).await;
    grants(&mut client, 0, 50).await;
    assert_published(&nats, &second, &mut client, &shop.id).await;
    first.stop().await;
    grants(&mut client, 50, 30).await;
    assert_published(&nats, &second, &mut client, &shop.id).await;
    second.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_its_broker_serves_and_says_which_setting() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let server = Server::with(&fixture.url, with_broker(&format!("nats://u:secret@{closed}"))).await;
    let shop = server.shop().await;
    let mut client = server.client(&shop.operator).await;
    grants(&mut client, 0, 5).await;
    until("failures that are counted", async || {
        let text = String::from_utf8(client.get("/metrics").await.body.to_vec()).expect("text");
        let failures = text.lines().find_map(|line| line.strip_prefix("scrip_broker_failures_total "))?.to_owned();
        (failures.parse::<u64>().ok()? > 1).then_some(())
    })
    .await;
    server.stop().await;

    for url in ["http://broker", "nats://u:secret@"] {
        let checked = Command::new(env!("CARGO_BIN_EXE_scrip"))
            .args(["config", "check"])
            .env("SCRIP_EVENTS__NATS_URL", url)
            .output()
            .expect("the command runs");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && said.contains("events.nats_url") && !said.contains("secret"), "{said}");
    }
}
