//! PostgreSQL under the server: its backends terminated again and again, and the whole server stopped and started.

use std::time::{Duration, Instant};

use scrip_server::bench::Target;
use scrip_server::bench::server::ServerProcess;
use scrip_server::store::{Store, StoreOptions, StoreUrl};
use serde_json::json;

use super::load::{Client, Load, check, scrip, serve, until};
use crate::postgres;

const BACK_WITHIN: Duration = Duration::from_secs(2);

async fn start(url: &StoreUrl) -> (ServerProcess, Target) {
    let server = ServerProcess::start(scrip().into(), &serve(url)).await.expect("the server starts");
    let target = server.target("faults").await.expect("a tenant");
    (server, target)
}

/// The time until a new request is accepted; its effect is one that [`check`] does not count.
async fn accepts_again(target: &Target) -> Duration {
    let started_at = Instant::now();
    let mut client = Client::new(std::slice::from_ref(target));
    let body = json!({ "points": 1, "type": "EARN_TASK" });
    until("a request is accepted", async || {
        matches!(client.post("/v1/members/late/points/grants", "late", &body).await, Ok((201, _)))
    })
    .await;
    started_at.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_terminated_every_50_ms_lose_and_double_nothing() {
    let database = postgres::database().await;
    let url = StoreUrl::Postgres(database.clone());
    let (server, target) = start(&url).await;
    let load = Load::start(std::slice::from_ref(&target), 8).await;
    load.advance(50).await;
    let admin = postgres::connect(&database).await;
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND application_name = 'scrip'";
    let mut terminated = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..60 {
        ticks.tick().await;
        terminated += admin.query(terminate, &[]).await.expect("backends end").len();
    }
    let back_after = accepts_again(&target).await;
    assert!(back_after < BACK_WITHIN, "back after {back_after:?}");
    load.advance(50).await;
    let tally = load.finish().await;
    assert!(terminated >= 60, "{terminated} backends were terminated");
    assert_eq!(tally.broken, Vec::<String>::new(), "callers notice nothing but 503");
    server.stop().await.expect("the server stops");
    let store = Store::open(&StoreOptions::new(url)).await.expect("the store opens");
    check(&store, tally).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_callers_get_503_and_afterwards_service_again() {
    let mut postgres = postgres::Server::own();
    let url = StoreUrl::Postgres(postgres.database().await);
    let (server, target) = start(&url).await;
    let load = Load::start(std::slice::from_ref(&target), 8).await;
    let mut reader = Client::new(std::slice::from_ref(&target));
    // As an administrator does it, and as a crash does.
    for mode in ["fast", "immediate"] {
        load.advance(50).await;
        postgres.stop(mode);
        for path in ["/v1/members/m1/points", "/readyz"] {
            let (status, problem) = reader.get(path).await.expect("an answer");
            assert_eq!((status, &problem["code"]), (503, &json!("STORE_UNAVAILABLE")), "{mode}: {path}");
        }
        let body = json!({ "points": 1 });
        let (status, problem) = reader.post("/v1/members/m1/points/grants", "away", &body).await.expect("an answer");
        // A lane that lost its connection at COMMIT asks for ten seconds; who comes behind it waits for five.
        let code = problem["code"].as_str().unwrap_or_default();
        assert!(status == 503 && ["STORE_UNAVAILABLE", "DEADLINE_EXCEEDED"].contains(&code), "{mode}: {problem}");
        postgres.start();
        let back_after = accepts_again(&target).await;
        assert!(back_after < BACK_WITHIN, "{mode}: back after {back_after:?}");
    }
    load.advance(50).await;
    let tally = load.finish().await;
    assert!(!tally.unavailable.is_empty(), "the outage was noticed");
    server.stop().await.expect("the server stops");
    let store = Store::open(&StoreOptions::new(url)).await.expect("the store opens");
    check(&store, tally).await;
}
