//! What a server sends to those who watch it: spans to a collector, errors to Sentry, each a receiver that the test starts.

use axum::http::StatusCode;
use scrip_server::bench::server::ServerProcess;
use scrip_server::telemetry::{LogOptions, Telemetry, TelemetryOptions};
use serde_json::json;

use crate::harness::{Fixture, KINDS};
use crate::http::{Client, JSON, Server, template, text};
use crate::webhooks::{Received, Receiver, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A server of its own process, since telemetry is a process's: the store's file, and a client with an operator's key.
struct Watched {
    _folder: tempfile::TempDir,
    store: std::path::PathBuf,
    server: ServerProcess,
    client: Client,
}

async fn start(settings: &str) -> Watched {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, store) = (folder.path().join("scrip.toml"), folder.path().join("scrip.db"));
    std::fs::write(&config, settings).expect("a configuration file");
    let arguments =
        ["serve", "--config", &config.display().to_string(), "--store", &format!("sqlite:{}", store.display())]
            .map(str::to_owned);
    let server = ServerProcess::start(env!("CARGO_BIN_EXE_scrip").into(), &arguments).await.expect("it starts");
    let target = server.target("watched").await.expect("a tenant");
    let client = Client::to(server.addr, &target.operator_key).await;
    Watched { _folder: folder, store, server, client }
}

fn contains(received: &Received, needle: &[u8]) -> bool {
    received.body.windows(needle.len()).any(|window| window == needle)
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_the_request_to_the_collector_and_on_to_the_webhook() {
    let (collector, receiver) = (Receiver::start().await, Receiver::start().await);
    let settings = format!(
        "[telemetry]\notlp_endpoint = \"http://{}\"\ntraces_per_mille = 0\n\
         [webhooks]\npoll_ms = 20\nallow_http = true\nallow = [\"127.0.0.1\"]\n",
        collector.addr
    );
    let Watched { server, mut client, _folder, .. } = start(&settings).await;
    let made = client.post("/v1/coupon-templates", template()).await.json(201);
    let claims = format!("/v1/coupon-templates/{}/claims", text(&made, "id"));
    client.post("/v1/webhooks", json!({ "url": receiver.url(), "types": ["coupon.claimed"] })).await.json(201);
    // Not sampled: no trace begins here, at 0 of a thousand.
    client.post(&claims, json!({ "member_id": "m-1" })).await.json(201);
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [JSON, ("traceparent", traceparent.as_str())];
    client.send("POST", &claims, &headers, json!({ "member_id": "m-2" }).to_string()).await.json(201);
    let lines = [
        "{\"op\":\"debit\",\"member_id\":\"m-1\",\"points\":1}",
        "{\"op\":\"grant\",\"member_id\":\"m-1\",\"points\":1}",
    ];
    let headers = [("content-type", "application/x-ndjson"), ("traceparent", traceparent.as_str())];
    assert_eq!(client.send("POST", "/v1/batch", &headers, lines.join("\n")).await.status, 200);
    let delivered = until("both deliveries", async || {
        let taken = receiver.taken();
        (taken.len() == 2).then_some(taken)
    })
    .await;
    let header = |member: &str| {
        let one = delivered.iter().find(|one| one.event()["member_id"] == member).expect("its delivery");
        one.headers["traceparent"].to_str().expect("text").to_owned()
    };
    assert!(header("m-2").starts_with(&format!("00-{TRACE}-")) && header("m-2").ends_with("-01"), "{}", header("m-2"));
    assert!(!header("m-1").contains(TRACE) && header("m-1").ends_with("-00"), "{}", header("m-1"));
    assert!(!header("m-2").contains(PARENT), "the delivery has a span of its own");
    // What is left is sent when the server stops.
    drop(client);
    server.stop().await.expect("it stops");
    let exported = collector.taken();
    let all = |needle: &[u8]| exported.iter().any(|one| contains(one, needle));
    assert!(exported.iter().all(|one| one.headers["content-type"] == "application/x-protobuf"), "{exported:?}");
    let of_the_batch = ["marketing.batch", "marketing.debit", "marketing.grant", "refused", "accepted"];
    for name in ["marketing.claim", "marketing.deliver_webhook", "scrip", "http.route"].into_iter().chain(of_the_batch)
    {
        assert!(all(name.as_bytes()), "{name} in {} exports", exported.len());
    }
    assert!(all(&bytes_of(TRACE)) && all(&bytes_of(PARENT)), "the span has its parent");
    assert!(!all(b"marketing.create_coupon_template"), "what was not sampled is not sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_has_a_trace_with_what_it_decides_and_the_delivery_of_its_events() {
    let (collector, receiver) = (Receiver::start().await, Receiver::start().await);
    let settings = format!(
        "[telemetry]\notlp_endpoint = \"http://{}\"\ntraces_per_mille = 1000\n\
         [webhooks]\npoll_ms = 20\nallow_http = true\nallow = [\"127.0.0.1\"]\n",
        collector.addr
    );
    let Watched { server, mut client, _folder, .. } = start(&settings).await;
    client.post("/v1/webhooks", json!({ "url": receiver.url(), "types": ["points.granted"] })).await.json(201);
    client.post("/v1/members/m-1/points/grants", json!({ "points": 5, "mode": "async" })).await.json(202);
    let granted = until("the grant's delivery", async || receiver.taken().pop()).await;
    let traceparent = granted.headers["traceparent"].to_str().expect("text").to_owned();
    let trace = bytes_of(traceparent.split('-').nth(1).expect("a trace"));
    drop(client);
    server.stop().await.expect("it stops");
    let exported = collector.taken();
    for part in ["marketing.run_job", "scrip.job_kind", "POINTS_GRANT", "marketing.grant", "scrip.job_end"] {
        assert!(exported.iter().any(|one| contains(one, part.as_bytes())), "{part} in {} exports", exported.len());
    }
    let spans = |one: &Received| one.body.windows(trace.len()).filter(|window| *window == trace).count();
    let of_the_trace: usize = exported.iter().map(spans).sum();
    assert!(of_the_trace >= 3, "the run, its grant and the delivery: {of_the_trace}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_go_to_sentry_without_secrets() {
    let sentry = Receiver::start().await;
    sentry.judge(|_| StatusCode::OK);
    let settings =
        format!("[telemetry]\nsentry_dsn = \"http://publickey@{}/42\"\nenvironment = \"test\"\n", sentry.addr);
    let Watched { server, mut client, store, _folder } = start(&settings).await;
    let made = client.post("/v1/coupon-templates", template()).await.json(201);
    let path = format!("/v1/coupon-templates/{}", text(&made, "id"));
    let spoil = rusqlite::Connection::open(&store).expect("the store opens");
    let broken = "UPDATE mkt_coupon_template_version SET definition = '{\"name\": scrip_0123456789abcdef'";
    spoil.execute(broken, []).expect("a row is spoilt");
    let failed = client.get(&path).await.json(500);
    let request_id = text(&failed, "request_id").to_owned();
    let told =
        until("the news", async || sentry.taken().into_iter().find(|one| contains(one, request_id.as_bytes()))).await;
    for part in ["a request failed", "scrip@", "\"environment\":\"test\"", "cannot be read"] {
        assert!(contains(&told, part.as_bytes()), "{part}: {}", String::from_utf8_lossy(&told.body));
    }
    assert!(!contains(&told, b"0123456789abcdef"));
    assert!(told.headers["x-sentry-auth"].to_str().expect("text").contains("publickey"));
    drop(client);
    server.stop().await.expect("it stops");
}

/// Where the process that panics finds its receiver.
const PANIC_DSN: &str = "SCRIP_TEST_PANIC_DSN";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_goes_to_sentry_with_its_backtrace() {
    if let Ok(dsn) = std::env::var(PANIC_DSN) {
        // This very test again, in a process of its own: what catches panics is a process's.
        let options = TelemetryOptions {
            otlp_endpoint: None,
            traces_per_mille: 0,
            sentry_dsn: Some(dsn.parse().expect("a DSN")),
            environment: "test".to_owned(),
        };
        let log = LogOptions { filter: "error".to_owned(), json: false };
        let telemetry = Telemetry::start(&log, &options).expect("telemetry starts");
        let panicked = tokio::spawn(async { panic!("the key was scrip_{}", "ab".repeat(36)) }).await;
        assert!(panicked.is_err_and(|error| error.is_panic()));
        drop(telemetry);
        return;
    }
    let sentry = Receiver::start().await;
    sentry.judge(|_| StatusCode::OK);
    let again = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "telemetry::a_panic_goes_to_sentry_with_its_backtrace"])
        .env(PANIC_DSN, format!("http://publickey@{}/42", sentry.addr))
        .output();
    let again = tokio::task::block_in_place(|| again).expect("it runs");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
    let told = until("the news", async || sentry.taken().into_iter().find(|one| contains(one, b"the key was"))).await;
    for part in ["\"stacktrace\"", "\"panic\"", "scrip@"] {
        assert!(contains(&told, part.as_bytes()), "{part}: {}", String::from_utf8_lossy(&told.body));
    }
    assert!(!contains(&told, b"abababab"), "secrets are taken out of panics as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_may_be_turned_off() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        for is_on in [false, true] {
            let server = Server::with(&fixture.url, |settings| settings.telemetry.metrics = is_on).await;
            let mut client = server.client(&server.shop().await.operator).await;
            client.get("/v1/coupon-templates").await.json(200);
            assert_eq!(client.get("/readyz").await.status, 200);
            let shown = client.get("/metrics").await;
            assert_eq!(shown.status, if is_on { 200 } else { 404 }, "{kind:?}");
            for name in ["scrip_commands_total{", "scrip_http_requests_total{", "scrip_operation_seconds_count{"] {
                assert_eq!(String::from_utf8_lossy(&shown.body).contains(name), is_on, "{kind:?}: {name}");
            }
            drop(client);
            server.stop().await;
        }
    }
}

#[test]
fn bad_settings_are_named() {
    for (name, value, expected) in [
        ("SCRIP_TELEMETRY__OTLP_ENDPOINT", "collector", "telemetry.otlp_endpoint"),
        ("SCRIP_TELEMETRY__SENTRY_DSN", "https://sentry.example", "telemetry.sentry_dsn"),
        ("SCRIP_TELEMETRY__TRACES_PER_MILLE", "1001", "telemetry.traces_per_mille"),
        ("SCRIP_STORE__SLOW_STATEMENT_MS", "0", "store.slow_statement_ms"),
        ("SCRIP_WEBHOOKS__TIMEOUT_SECONDS", "0", "webhooks.timeout_seconds"),
    ] {
        let checked = std::process::Command::new(env!("CARGO_BIN_EXE_scrip"))
            .args(["config", "check"])
            .env(name, value)
            .output()
            .expect("the command runs");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && said.contains(expected), "{name}: {said}");
    }
}
