//! kill -9 under load, again and again: nothing acknowledged is lost or doubled, and the books verify.
//!
//! `SCRIP_KILL_CYCLES` sets how often on each store (3 by default; `make kill-test` runs 200).

use std::time::Duration;

use scrip_server::bench::Target;
use scrip_server::bench::client::{Answer, Api};
use scrip_server::bench::server::ServerProcess;
use scrip_server::verify::verify;
use serde_json::{Value, json};

use crate::harness::{Fixture, Kind, address_of};

/// Batches of one client in one life of the server; the server is killed long before they are all answered.
const REQUESTS: u32 = 2_000;
const CLIENTS: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_loses_and_doubles_nothing_on_sqlite() {
    survive(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_loses_and_doubles_nothing_on_postgres() {
    survive(Kind::Postgres).await;
}

/// A batch of lines and, when it came, the answer to each.
type Asked = (String, Option<Vec<Value>>);

async fn survive(kind: Kind) {
    let cycles = std::env::var("SCRIP_KILL_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let fixture = Fixture::new(kind).await;
    let arguments = ["serve".to_owned(), "--store".to_owned(), address_of(&fixture.url)];
    let program = || env!("CARGO_BIN_EXE_scrip").into();
    let mut server = ServerProcess::start(program(), &arguments).await.expect("the server starts");
    let first = server.target("kill").await.expect("a tenant");
    let mut api = Api::connect(&first).await.expect("a connection");
    let template = json!({ "name": "t", "benefit": { "type": "AMOUNT_OFF", "amount": 1 },
                           "validity": { "type": "RELATIVE", "days": 30 }, "total_stock": 1_000_000 });
    let template = api.post("/v1/coupon-templates", &template).await.and_then(|answer| answer.json(201));
    let template = template.expect("a template")["id"].as_str().expect("an id").to_owned();
    let start = json!({ "points": 1_000 });
    let granted = api.post("/v1/members/buyer/points/grants", &start).await.and_then(|answer| answer.json(201));
    granted.expect("points to pay with");
    let mut sent = 0;
    for cycle in 0..cycles {
        let target = Target { addr: server.addr, ..first.clone() };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| tokio::spawn(load(target.clone(), template.clone(), format!("{cycle}-{client}"))))
            .collect();
        // Not for synchronisation: the moment of the kill is meant to be arbitrary.
        tokio::time::sleep(Duration::from_millis(rand::random_range(50..250))).await;
        drop(server);
        let mut batches: Vec<Asked> = Vec::new();
        for client in clients {
            batches.extend(client.await.expect("the client ends"));
        }
        server = ServerProcess::start(program(), &arguments).await.expect("the server starts again");
        let target = Target { addr: server.addr, ..first.clone() };
        let mut api = Api::connect(&target).await.expect("a connection");
        for (lines, answered) in &batches {
            let answers = answers(&api.post_lines("/v1/batch", lines).await.expect("an answer"));
            for (number, answer) in answers.iter().enumerate() {
                assert!(is_accepted(answer), "{kind:?}: {lines}: {answer}");
                let Some(first) = answered else { continue };
                assert_eq!(answer["replayed"], true, "{kind:?}: an acknowledged effect was lost: {lines}");
                assert_eq!(answer["body"], first[number]["body"], "{kind:?}: another answer than the first");
            }
        }
        sent += batches.len();
    }
    let mut api = Api::connect(&Target { addr: server.addr, ..first.clone() }).await.expect("a connection");
    let balance = api.get("/v1/members/hot/points").await.and_then(|answer| answer.json(200)).expect("a balance");
    let (total, used) = (&balance["total_points"], &balance["used"]);
    assert_eq!((total, used), (&json!(3 * sent), &json!(2 * sent)), "{kind:?}: every grant and debit counts once");
    let balance = api.get("/v1/members/buyer/points").await.and_then(|answer| answer.json(200)).expect("a balance");
    let columns = ["available", "frozen", "used", "debt", "revoked"].map(|column| balance[column].as_i64());
    let taken_back = Some(100 * sent as i64);
    assert_eq!(
        columns,
        [Some(1_000), Some(0), Some(0), Some(0), taken_back],
        "{kind:?}: every refund undoes its order"
    );
    let found = api.get(&format!("/v1/coupon-templates/{template}")).await.and_then(|answer| answer.json(200));
    assert_eq!(found.expect("the template")["claimed_count"], sent, "{kind:?}: every claim counts once");
    drop(server);
    let report = verify(&fixture.store, None, |_, _, _| {}).await.expect("verify runs");
    assert!(report.is_clean(), "{kind:?}: {}", report.summary());
}

/// Sends one batch after the other until the server is gone. The last one has no answer: any of its lines may or may not have
/// happened.
async fn load(target: Target, template: String, name: String) -> Vec<Asked> {
    let mut batches = Vec::new();
    let Ok(mut api) = Api::connect(&target).await else { return batches };
    for number in 0..REQUESTS {
        let key = format!("{name}-{number}");
        let lines = [
            json!({ "op": "claim", "template_id": template, "member_id": key, "idempotency_key": format!("c-{key}") }),
            json!({ "op": "grant", "member_id": "hot", "points": 3, "idempotency_key": format!("g-{key}") }),
            json!({ "op": "debit", "member_id": "hot", "points": 2, "idempotency_key": format!("d-{key}") }),
            json!({ "op": "reserve", "order_id": key, "member_id": "buyer", "points": 100, "lines": [
                { "item_id": "i", "product_id": "p", "unit_price": 10_000, "quantity": 1 }],
                "idempotency_key": format!("r-{key}") }),
            json!({ "op": "pay", "order_id": key, "idempotency_key": format!("p-{key}") }),
            json!({ "op": "refund", "order_id": key, "refund_id": "all", "full": true,
                "idempotency_key": format!("f-{key}") }),
        ];
        let lines = lines.map(|line| line.to_string()).join("\n");
        let Ok(answer) = api.post_lines("/v1/batch", &lines).await else {
            batches.push((lines, None));
            return batches;
        };
        let answers = answers(&answer);
        for answer in &answers {
            assert!(is_accepted(answer), "{answer}");
        }
        batches.push((lines, Some(answers)));
    }
    batches
}

fn is_accepted(answer: &Value) -> bool {
    answer["status"] == 200 || answer["status"] == 201
}

/// The lines of an answer.
fn answers(answer: &Answer) -> Vec<Value> {
    let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a line")).collect()
}
