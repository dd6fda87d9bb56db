//! Webhooks against receivers that the tests start: every event once in effect, in the order of its subject, whatever the
//! receiver does; nothing to a place that is not public.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use scrip_domain::webhook::{LogPosition, Secrets, Webhook};
use scrip_domain::{Timestamp, WebhookId};
use scrip_server::config::Settings;
use scrip_server::relay::guard::{Guard, Policy};
use scrip_server::relay::sender::Sender;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Fixture, KINDS, Kind};
use crate::http::{Client, Server, Shop, template, text};

const PATIENCE: Duration = Duration::from_secs(60);

/// A request as the receiver got it.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    fn verifies(&self, secret: &str) -> bool {
        let verifier = standardwebhooks::Webhook::new(secret).expect("a secret");
        verifier.verify(&self.body, &self.headers).is_ok()
    }
}

type Judge = Box<dyn FnMut(&Received) -> StatusCode + Send>;

/// A server that keeps what it gets and answers what its judge says.
pub struct Receiver {
    pub addr: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    judge: Arc<Mutex<Judge>>,
}

impl Receiver {
    pub async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let judge: Arc<Mutex<Judge>> = Arc::new(Mutex::new(Box::new(|_| StatusCode::OK)));
        let (keep, ask) = (received.clone(), judge.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (keep, ask) = (keep.clone(), ask.clone());
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (keep, ask) = (keep.clone(), ask.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        let got = Received { headers: parts.headers, body };
                        let status = ask.lock()(&got);
                        if status.is_success() {
                            keep.lock().push(got);
                        }
                        let answer = Response::builder().status(status).header("location", "http://127.0.0.1:1/");
                        Ok::<_, Infallible>(answer.body(Full::new(Bytes::from("thanks"))).expect("an answer"))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Receiver { addr, received, judge }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    pub fn judge(&self, judge: impl FnMut(&Received) -> StatusCode + Send + 'static) {
        *self.judge.lock() = Box::new(judge);
    }

    /// What it has taken so far.
    pub fn taken(&self) -> Vec<Received> {
        self.received.lock().clone()
    }
}

/// Settings under which this machine may receive, and retries come soon.
pub fn near(settings: &mut Settings) {
    settings.webhooks.poll_ms = 20;
    settings.webhooks.allow_http = true;
    settings.webhooks.allow = vec!["127.0.0.1".into()];
    settings.webhooks.retry_seconds = vec![1; 20];
}

async fn start(kind: Kind, adjust: impl FnOnce(&mut Settings)) -> (Fixture, Server, Shop) {
    let fixture = Fixture::new(kind).await;
    let server = Server::with(&fixture.url, |settings| {
        near(settings);
        adjust(settings);
    })
    .await;
    let shop = server.shop().await;
    (fixture, server, shop)
}

/// Waits until something is so.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn webhook(client: &mut Client, asked: Value) -> (String, String) {
    let made = client.post("/v1/webhooks", asked).await.json(201);
    (format!("/v1/webhooks/{}", text(&made, "id")), text(&made, "secret").to_owned())
}

/// All events there are. On PostgreSQL one shows once nothing older is under way, in other tests' databases too.
async fn log(server: &Server, client: &mut Client) -> Vec<Value> {
    until("the whole log", async || {
        let (mut events, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = client.get(&format!("/v1/events?limit=200&cursor={cursor}")).await.json(200);
            let rows = page["data"].as_array().expect("events");
            if rows.is_empty() {
                break;
            }
            events.extend(rows.iter().cloned());
            cursor = text(&page, "next_cursor").to_owned();
        }
        (events.len() == server.event_count().await).then_some(events)
    })
    .await
}

fn subject(event: &Value) -> String {
    event["member_id"].as_str().unwrap_or_else(|| text(event, "subject_id")).to_owned()
}

/// The first copy of each event taken is in the order of its subject, and nothing is missing.
fn assert_complete(log: &[Value], taken: &[Received]) {
    let mut seen = HashSet::new();
    let mut by_subject: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in taken.iter().map(Received::event) {
        if seen.insert(text(&event, "id").to_owned()) {
            by_subject.entry(subject(&event)).or_default().push(text(&event, "id").to_owned());
        }
    }
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in log {
        expected.entry(subject(event)).or_default().push(text(event, "id").to_owned());
    }
    assert_eq!(by_subject, expected);
}

async fn grants(client: &mut Client, members: usize, rounds: usize) {
    for round in 0..rounds {
        for member in 0..members {
            let path = format!("/v1/members/m-{member}/points/grants");
            client.post(&path, json!({ "points": 1, "reference": format!("r-{round}") })).await.json(201);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_signed_and_in_order() {
    for kind in KINDS {
        let receiver = Receiver::start().await;
        let (_fixture, server, shop) = start(kind, |_| {}).await;
        let mut client = server.client(&shop.operator).await;
        // Before the webhook: not sent unless asked for. A webhook begins at the end of what the log shows, so it must show this.
        client.post("/v1/coupon-templates", template()).await.json(201);
        log(&server, &mut client).await;
        let (path, secret) = webhook(&mut client, json!({ "url": receiver.url() })).await;
        // Another's, which may have sent something before it is turned off, changes nothing here.
        let elsewhere = Receiver::start().await;
        let (all, _) = webhook(&mut client, json!({ "url": elsewhere.url(), "after": "0--1" })).await;
        client.post(&format!("{all}/disable"), json!({})).await.json(200);
        grants(&mut client, 5, 10).await;
        let expected = log(&server, &mut client).await;
        let expected: Vec<Value> = expected.into_iter().skip(1).collect();
        until("the last event", async || (receiver.taken().len() >= expected.len()).then_some(())).await;
        let taken = receiver.taken();
        assert_complete(&expected, &taken);
        for received in &taken {
            assert!(received.verifies(&secret), "{kind:?}: {received:?}");
            let event = received.event();
            assert_eq!(received.headers["webhook-id"], text(&event, "id"));
            let shown = expected.iter().find(|one| one["id"] == event["id"]);
            assert_eq!(shown, Some(&event), "the body is what /v1/events shows");
        }
        let standing = until("the end of the log", async || {
            let standing = client.get(&path).await.json(200);
            standing["waiting_since"].is_null().then_some(standing)
        })
        .await;
        assert_eq!((&standing["parked_events"], &standing["enabled"]), (&json!(0), &json!(true)));
        let deliveries = client.get(&format!("{path}/deliveries?limit=200")).await.json(200);
        let rows = deliveries["data"].as_array().expect("rows");
        assert_eq!(rows.len(), expected.len());
        assert!(rows.iter().all(|row| row["status"] == 200 && row["attempt"] == 1 && row["response"] == "thanks"));
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subject_waits_in_its_order_and_the_others_go_on() {
    for kind in KINDS {
        let receiver = Receiver::start().await;
        let (_fixture, server, shop) = start(kind, |_| {}).await;
        let mut client = server.client(&shop.operator).await;
        let (path, _) = webhook(&mut client, json!({ "url": receiver.url(), "types": ["points.granted"] })).await;
        let ill = Arc::new(AtomicUsize::new(1));
        let healing = ill.clone();
        receiver.judge(move |received| {
            let is_ill = healing.load(Ordering::SeqCst) == 1 && received.event()["member_id"] == "m-1";
            if is_ill { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
        });
        grants(&mut client, 4, 6).await;
        let of_others = |taken: &[Received]| taken.iter().filter(|one| one.event()["member_id"] != "m-1").count();
        until("the others' events", async || (of_others(&receiver.taken()) >= 18).then_some(())).await;
        assert_eq!(receiver.taken().len(), 18, "{kind:?}: nothing of the refused member goes by");
        let standing = until("six parked events", async || {
            let standing = client.get(&path).await.json(200);
            (standing["parked_events"] == 6).then_some(standing)
        })
        .await;
        assert!(standing["next_attempt_at"].is_string(), "{standing}");
        let failed = client.get(&format!("{path}/deliveries?succeeded=false")).await.json(200);
        let row = &failed["data"][0];
        assert_eq!(
            (&row["status"], &row["error"], &row["response"]),
            (&json!(500), &json!("answered 500"), &json!("thanks"))
        );
        server.assert_sound().await;
        ill.store(0, Ordering::SeqCst);
        until("all events", async || (receiver.taken().len() >= 24).then_some(())).await;
        let expected: Vec<Value> =
            log(&server, &mut client).await.into_iter().filter(|event| event["type"] == "points.granted").collect();
        assert_complete(&expected, &receiver.taken());
        until("nothing parked", async || (client.get(&path).await.json(200)["parked_events"] == 0).then_some(())).await;
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_refuses_to_the_end_is_given_up_and_goes_on_where_it_stopped() {
    for kind in KINDS {
        let receiver = Receiver::start().await;
        let (_fixture, server, shop) = start(kind, |settings| settings.webhooks.retry_seconds = vec![1, 1]).await;
        let mut client = server.client(&shop.operator).await;
        let (path, _) = webhook(&mut client, json!({ "url": receiver.url(), "types": ["points.granted"] })).await;
        let (second, _) = webhook(&mut client, json!({ "url": receiver.url(), "types": ["webhook.disabled"] })).await;
        receiver.judge(|received| match received.event()["type"].as_str() {
            Some("webhook.disabled") => StatusCode::NO_CONTENT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        });
        grants(&mut client, 3, 2).await;
        let told = until("the news of the end", async || receiver.taken().first().map(Received::event)).await;
        assert_eq!((&told["type"], &told["data"]["reason"]), (&json!("webhook.disabled"), &json!("EXHAUSTED")));
        let standing = client.get(&path).await.json(200);
        assert_eq!((&standing["enabled"], &standing["disabled_reason"]), (&json!(false), &json!("EXHAUSTED")));
        let rows = client.get(&format!("{path}/deliveries?limit=200")).await.json(200);
        let attempts = rows["data"].as_array().expect("rows").iter().filter_map(|row| row["attempt"].as_i64()).max();
        assert_eq!(attempts, Some(3), "{kind:?}: the first attempt and two retries");
        let metrics = String::from_utf8(client.get("/metrics").await.body.to_vec()).expect("text");
        assert!(metrics.contains("scrip_webhooks_disabled_total 1"), "{metrics}");
        receiver.judge(|_| StatusCode::OK);
        client.post(&format!("{path}/enable"), json!({})).await.json(200);
        until("what was refused", async || (receiver.taken().len() > 6).then_some(())).await;
        let granted: Vec<Received> =
            receiver.taken().into_iter().filter(|one| one.event()["type"] == "points.granted").collect();
        let expected: Vec<Value> =
            log(&server, &mut client).await.into_iter().filter(|event| event["type"] == "points.granted").collect();
        assert_complete(&expected, &granted);
        // 410: at once.
        receiver.judge(|_| StatusCode::GONE);
        client.send("DELETE", &second, &[], Bytes::new()).await;
        grants(&mut client, 1, 1).await;
        until("the end by 410", async || {
            (client.get(&path).await.json(200)["disabled_reason"] == "GONE").then_some(())
        })
        .await;
        server.assert_sound().await;
    }
}

/// The last test event: events of the log arrive when they will.
fn last_test(receiver: &Receiver) -> Received {
    let taken = receiver.taken();
    taken.into_iter().rfind(|one| one.event()["type"] == "webhook.test").expect("a test")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_test_resend_replay_and_rotate() {
    for kind in KINDS {
        let receiver = Receiver::start().await;
        let (_fixture, server, shop) = start(kind, |_| {}).await;
        let mut client = server.client(&shop.operator).await;
        let (path, first) = webhook(&mut client, json!({ "url": receiver.url() })).await;
        let tested = client.post(&format!("{path}/test"), json!({})).await.json(200);
        assert_eq!(
            (&tested["kind"], &tested["status"], &tested["position"]),
            (&json!("TEST"), &json!(200), &json!(null))
        );
        until("the creation", async || (receiver.taken().len() >= 2).then_some(())).await;
        assert!(receiver.taken().iter().any(|one| one.event()["type"] == "webhook.test" && one.verifies(&first)));

        let rotated = client.post(&format!("{path}/rotate"), json!({ "overlap_seconds": 3600 })).await.json(200);
        let second = text(&rotated, "secret").to_owned();
        assert!(rotated["previous_secret_until"].is_string());
        client.post(&format!("{path}/test"), json!({})).await.json(200);
        let last = last_test(&receiver);
        assert!(last.verifies(&first) && last.verifies(&second), "both secrets sign");
        client.post(&format!("{path}/rotate"), json!({ "overlap_seconds": 0 })).await.json(200);
        client.post(&format!("{path}/test"), json!({})).await.json(200);
        let last = last_test(&receiver);
        assert!(!last.verifies(&first) && !last.verifies(&second), "the old ones have ended");

        grants(&mut client, 2, 2).await;
        let all = log(&server, &mut client).await;
        until("all events", async || (client.get(&path).await.json(200)["waiting_since"].is_null()).then_some(()))
            .await;
        let before = receiver.taken().len();
        let granted = all.iter().find(|event| event["type"] == "points.granted").expect("a grant");
        let resent = client.post(&format!("{path}/resend"), json!({ "position": granted["position"] })).await.json(200);
        assert_eq!((&resent["kind"], &resent["event_id"]), (&json!("RESEND"), &granted["id"]));
        assert_eq!(receiver.taken().len(), before + 1);
        assert_eq!(receiver.taken()[before].event(), *granted, "byte for byte what it was");
        client.post(&format!("{path}/resend"), json!({ "position": "9999999-0" })).await.json(400);

        let replayed = client.post(&format!("{path}/replay"), json!({ "after": null })).await.json(200);
        assert_eq!(replayed["position"], "0--1");
        until("everything again", async || (receiver.taken().len() >= before + 1 + all.len()).then_some(())).await;
        assert_complete(&all, &receiver.taken()[before + 1..]);
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_send_once_and_one_takes_over() {
    let receiver = Receiver::start().await;
    let (fixture, server, shop) = start(Kind::Postgres, |_| {}).await;
    let other = Server::with(&fixture.url, near).await;
    let mut client = server.client(&shop.operator).await;
    let (path, _) = webhook(&mut client, json!({ "url": receiver.url() })).await;
    grants(&mut client, 4, 10).await;
    let expected = log(&server, &mut client).await;
    until("all events", async || (receiver.taken().len() >= expected.len()).then_some(())).await;
    until("the end", async || client.get(&path).await.json(200)["waiting_since"].is_null().then_some(())).await;
    assert_eq!(receiver.taken().len(), expected.len(), "two nodes share no webhook");
    assert_complete(&expected, &receiver.taken());
    drop(client);
    server.stop().await;
    let mut client = other.client(&shop.operator).await;
    grants(&mut client, 4, 2).await;
    let expected = log(&other, &mut client).await;
    until("the other node's", async || (receiver.taken().len() >= expected.len()).then_some(())).await;
    assert_complete(&expected, &receiver.taken());
    other.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_webhooks_are_refused_by_name() {
    let (_fixture, server, shop) = start(Kind::Sqlite, |settings| settings.webhooks.allow_http = false).await;
    let mut client = server.client(&shop.operator).await;
    for (asked, field) in [
        (json!({}), "url"),
        (json!({ "url": "http://shop.example/" }), "url"),
        (json!({ "url": "https://10.0.0.1/" }), "url"),
        (json!({ "url": "https://shop.example/", "types": ["coupon.lost"] }), "types[0]"),
        (json!({ "url": "https://shop.example/", "after": "x" }), "after"),
        (json!({ "url": "https://shop.example/", "secret": "x" }), "secret"),
    ] {
        let problem = client.post("/v1/webhooks", asked).await.json(400);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    let (path, _) = webhook(&mut client, json!({ "url": "https://shop.example/" })).await;
    client.send("PATCH", &path, &[crate::http::JSON], r#"{"url":"https://[::1]/"}"#).await.json(400);
    let edited = client.send("PATCH", &path, &[crate::http::JSON], r#"{"description":"d"}"#).await.json(200);
    assert_eq!((&edited["description"], &edited["url"]), (&json!("d"), &json!("https://shop.example/")));
    for _ in 1..50 {
        webhook(&mut client, json!({ "url": "https://shop.example/" })).await;
    }
    let problem = client.post("/v1/webhooks", json!({ "url": "https://shop.example/" })).await.json(422);
    assert_eq!(problem["code"], "WEBHOOK_LIMIT_REACHED");
}

/// Forms of this machine's own addresses and of others that are not public. `{p}` is the port of a server that counts.
const FORMS: [&str; 74] = [
    "http://127.0.0.1:{p}/",
    "https://127.0.0.1:{p}/",
    "http://127.1:{p}/",
    "http://127.0.1:{p}/",
    "http://2130706433:{p}/",
    "http://0x7f000001:{p}/",
    "http://0x7f.0.0.1:{p}/",
    "http://0x7f.1:{p}/",
    "http://017700000001:{p}/",
    "http://0177.0.0.1:{p}/",
    "http://0177.0.0.01:{p}/",
    "http://127.000.000.001:{p}/",
    "http://127.0.0.1.:{p}/",
    "http://127.255.255.254:{p}/",
    "http://0.0.0.0:{p}/",
    "http://0:{p}/",
    "http://0x0:{p}/",
    "http://00000000:{p}/",
    "http://①②⑦.⓪.⓪.①:{p}/",
    "http://１２７.０.０.１:{p}/",
    "http://127。0。0。1:{p}/",
    "http://127%2e0%2e0%2e1:{p}/",
    "http://%31%32%37.0.0.1:{p}/",
    "http://[::1]:{p}/",
    "http://[0:0:0:0:0:0:0:1]:{p}/",
    "http://[::]:{p}/",
    "http://[::ffff:127.0.0.1]:{p}/",
    "http://[::ffff:7f00:1]:{p}/",
    "http://[::127.0.0.1]:{p}/",
    "http://[::ffff:0:127.0.0.1]:{p}/",
    "http://[64:ff9b::127.0.0.1]:{p}/",
    "http://[64:ff9b:1::7f00:1]:{p}/",
    "http://[2002:7f00:1::]:{p}/",
    "http://[2001:0:7f00:1::1]:{p}/",
    "http://[fe80::1]:{p}/",
    "http://[fc00::1]:{p}/",
    "http://[fd00:ec2::254]:{p}/",
    "http://[ff02::1]:{p}/",
    "http://[2001:db8::1]:{p}/",
    "http://localhost:{p}/",
    "http://LOCALHOST:{p}/",
    "http://localhost.:{p}/",
    "http://a.localhost:{p}/",
    "http://localhost.localdomain:{p}/",
    "http://ip6-localhost:{p}/",
    "http://ip6-loopback:{p}/",
    "http://metadata.google.internal:{p}/",
    "http://printer.local:{p}/",
    "http://10.0.0.1:{p}/",
    "http://172.16.0.1:{p}/",
    "http://172.31.255.255:{p}/",
    "http://192.168.0.1:{p}/",
    "http://169.254.169.254:{p}/",
    "http://2852039166:{p}/",
    "http://0xa9fea9fe:{p}/",
    "http://100.64.0.1:{p}/",
    "http://192.0.0.192:{p}/",
    "http://198.18.0.1:{p}/",
    "http://224.0.0.1:{p}/",
    "http://255.255.255.255:{p}/",
    "http://240.0.0.1:{p}/",
    "http://user@127.0.0.1:{p}/",
    "http://shop.example@127.0.0.1:{p}/",
    "http://127.0.0.1:{p}@shop.example/",
    "http://127.0.0.1:{p}#@shop.example/",
    "http://127.0.0.1:{p}\\@shop.example/",
    "http:\\\\127.0.0.1:{p}\\",
    "http:127.0.0.1:{p}/",
    "http:////127.0.0.1:{p}/",
    " http://127.0.0.1:{p}/",
    "http://127.0.0.1\t:{p}/",
    "http://\u{ad}localhost:{p}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{p}/_x",
];

/// Names that resolve to what is not public: at once, later (rebinding), or beside a public address.
const NAMES: [(&str, &[&str]); 8] = [
    ("loopback.example", &["127.0.0.1"]),
    ("loopback6.example", &["::1"]),
    ("mapped.example", &["::ffff:127.0.0.1"]),
    ("metadata.example", &["169.254.169.254"]),
    ("private.example", &["10.0.0.1", "192.168.1.1"]),
    ("zero.example", &["0.0.0.0"]),
    ("nat64.example", &["64:ff9b::7f00:1"]),
    ("nowhere.example", &[]),
];

fn hook(url: &str) -> Webhook {
    Webhook {
        id: WebhookId(uuid::Uuid::nil()),
        url: url.into(),
        types: Vec::new(),
        description: String::new(),
        disabled: None,
        secrets: Secrets { current: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".into(), previous: None },
        starts_after: LogPosition { tx: 0, ordinal: -1 },
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    }
}

/// A listener that counts connections.
async fn counting(address: &str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_to_a_place_that_is_not_public() {
    let (port, connections) = counting("0.0.0.0:0").await;
    let policy = Policy { allow_http: true, ..Policy::default() };
    let sender = Sender::new(Guard::new(policy.clone()), Duration::from_secs(2)).expect("a sender");
    let now = scrip_server::clock::now();
    for form in FORMS {
        let url = form.replace("{p}", &port.to_string());
        let attempt = sender.send(&hook(&url), "evt_1", "{}".into(), now).await;
        assert!(attempt.status.is_none() && attempt.error.is_some(), "{url}: {attempt:?}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);

    let found = |name: &str| NAMES.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, found)| *found);
    let look_up = move |name: String| {
        let addresses: Vec<IpAddr> = found(&name).iter().map(|text| text.parse().expect("an address")).collect();
        std::future::ready(Ok(addresses)).boxed()
    };
    let sender =
        Sender::new(Guard::with_look_up(policy.clone(), Arc::new(look_up)), Duration::from_secs(2)).expect("a sender");
    for (name, _) in NAMES {
        let attempt = sender.send(&hook(&format!("http://{name}:{port}/")), "evt_1", "{}".into(), now).await;
        let error = attempt.error.expect("an error");
        assert!(error.contains("not a public address") || error.contains("has no address"), "{name}: {error}");
    }
    // A name server that answers a public address first, and this machine's afterwards, in one answer or the next: what was
    // judged is what is connected to. 198.51.100.1 leads nowhere, and stands for a public place by way of the policy.
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let rebinding = move |_: String| {
        let first = counter.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        let answer: &[&str] = if first { &["198.51.100.1", "127.0.0.1"] } else { &["127.0.0.1"] };
        let addresses: Vec<IpAddr> = answer.iter().map(|text| text.parse().expect("an address")).collect();
        std::future::ready(Ok(addresses)).boxed()
    };
    let policy = Policy::new(true, &["198.51.100.1".into()]).expect("a policy");
    let sender =
        Sender::new(Guard::with_look_up(policy, Arc::new(rebinding)), Duration::from_millis(300)).expect("a sender");
    for _ in 0..6 {
        let attempt = sender.send(&hook(&format!("http://rebinding.example:{port}/")), "evt_1", "{}".into(), now).await;
        assert_eq!(attempt.status, None, "{attempt:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 6, "each connection asks once");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    // The counter counts: allowed, the same machine is reached.
    let policy = Policy::new(true, &["127.0.0.1".into()]).expect("a policy");
    let sender = Sender::new(Guard::new(policy), Duration::from_millis(300)).expect("a sender");
    sender.send(&hook(&format!("http://127.0.0.1:{port}/")), "evt_1", "{}".into(), now).await;
    // Whoever counts may come to it only after the sender has given up.
    let give_up_at = Instant::now() + Duration::from_secs(10);
    while connections.load(Ordering::SeqCst) == 0 && Instant::now() < give_up_at {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_not_followed() {
    let (port, connections) = counting("127.0.0.1:0").await;
    let receiver = Receiver::start().await;
    receiver.judge(|_| StatusCode::TEMPORARY_REDIRECT);
    let policy = Policy::new(true, &["127.0.0.1".into()]).expect("a policy");
    let sender = Sender::new(Guard::new(policy), Duration::from_secs(2)).expect("a sender");
    let attempt = sender.send(&hook(&receiver.url()), "evt_1", "{}".into(), scrip_server::clock::now()).await;
    assert_eq!(attempt.status, Some(307));
    assert!(!attempt.succeeded() && attempt.error.is_some_and(|error| error.contains("redirects are not followed")));
    assert_eq!(connections.load(Ordering::SeqCst), 0, "{port}");
}
