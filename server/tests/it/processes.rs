//! Four server processes on one PostgreSQL decide as one.

use scrip_server::bench::Target;
use scrip_server::bench::client::Api;
use scrip_server::bench::server::ServerProcess;
use scrip_server::store::StoreUrl;
use serde_json::{Value, json};

use crate::harness::{Fixture, Kind};

const PROCESSES: usize = 4;
const CLIENTS_PER_PROCESS: usize = 8;

struct Servers {
    _processes: Vec<ServerProcess>,
    targets: Vec<Target>,
    _fixture: Fixture,
}

async fn start() -> Servers {
    let fixture = Fixture::new(Kind::Postgres).await;
    let StoreUrl::Postgres(url) = fixture.url.clone() else { unreachable!("a PostgreSQL fixture") };
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        let arguments = ["serve".to_owned(), "--store".to_owned(), url.clone()];
        let started = ServerProcess::start(env!("CARGO_BIN_EXE_scrip").into(), &arguments).await;
        processes.push(started.expect("a server starts"));
    }
    // One tenant, made through the first server, asked through all.
    let first = processes[0].target("first").await.expect("a tenant");
    let targets = processes.iter().map(|server| Target { addr: server.addr, ..first.clone() }).collect();
    Servers { _processes: processes, targets, _fixture: fixture }
}

/// Sends the requests through all processes at once; how many were answered with each status.
async fn spread(targets: &[Target], requests: Vec<(String, Value)>) -> Vec<u16> {
    let clients = PROCESSES * CLIENTS_PER_PROCESS;
    let shares = (0..clients).map(|client| {
        let share: Vec<_> = requests.iter().skip(client).step_by(clients).cloned().collect();
        let target = targets[client % PROCESSES].clone();
        tokio::spawn(async move {
            let mut api = Api::connect(&target).await.expect("a connection");
            let mut statuses = Vec::new();
            for (path, body) in share {
                statuses.push(api.post(&path, &body).await.expect("an answer").status);
            }
            statuses
        })
    });
    let mut statuses = Vec::new();
    for share in shares.collect::<Vec<_>>() {
        statuses.extend(share.await.expect("the client ends"));
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_points_pay_five_hundred_of_a_thousand_debits_of_ten() {
    let servers = start().await;
    let mut api = Api::connect(&servers.targets[0]).await.expect("a connection");
    let path = "/v1/members/hot/points";
    api.post(&format!("{path}/grants"), &json!({ "points": 5_000 })).await.and_then(|a| a.json(201)).expect("a grant");
    let debits = (0..1_000).map(|_| (format!("{path}/debits"), json!({ "points": 10 }))).collect();
    let statuses = spread(&servers.targets, debits).await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(422)), (500, 500));
    let balance = api.get(path).await.and_then(|answer| answer.json(200)).expect("a balance");
    assert_eq!((&balance["available"], &balance["used"]), (&json!(0), &json!(5_000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_of_ten_gives_ten_coupons_to_a_hundred_members() {
    let servers = start().await;
    let mut api = Api::connect(&servers.targets[0]).await.expect("a connection");
    let template = json!({ "name": "t", "benefit": { "type": "AMOUNT_OFF", "amount": 1 },
                           "validity": { "type": "RELATIVE", "days": 30 }, "total_stock": 10 });
    let made =
        api.post("/v1/coupon-templates", &template).await.and_then(|answer| answer.json(201)).expect("a template");
    let path = format!("/v1/coupon-templates/{}", made["id"].as_str().expect("an id"));
    let claims = (0..100).map(|n| (format!("{path}/claims"), json!({ "member_id": format!("m-{n}") }))).collect();
    let statuses = spread(&servers.targets, claims).await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(422)), (10, 90));
    // Limit 3, one member, a thousand claims.
    let template = json!({ "name": "u", "benefit": { "type": "AMOUNT_OFF", "amount": 1 }, "limit_per_member": 3,
                           "validity": { "type": "RELATIVE", "days": 30 } });
    let made =
        api.post("/v1/coupon-templates", &template).await.and_then(|answer| answer.json(201)).expect("a template");
    let path = format!("/v1/coupon-templates/{}/claims", made["id"].as_str().expect("an id"));
    let statuses =
        spread(&servers.targets, (0..1_000).map(|_| (path.clone(), json!({ "member_id": "one" }))).collect()).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 3);
}
