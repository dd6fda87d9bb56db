//! Reads on a real streaming replica, which is paused, stopped, killed, promoted and exchanged for another: nobody who brings
//! the token of a write misses it, nobody sees what is older than the limit, and no read fails.

use std::time::{Duration, Instant};

use scrip_server::config::Settings;
use scrip_server::store::{Store, StoreOptions, StoreUrl};
use serde_json::{Value, json};

use crate::http::{Answer, Client, PLATFORM_KEY, Server, text};
use crate::postgres;
use crate::webhooks::until;

const TOKEN: &str = "scrip-consistency-token";
const LAG_LIMIT_MS: u64 = 500;

/// A primary with a replica, and a server that knows both.
struct Setting {
    url: StoreUrl,
    replica: postgres::Replica,
    server: Server,
    _primary: postgres::Server,
}

fn with_replica(url: String) -> impl FnOnce(&mut Settings) {
    move |settings| {
        settings.store.replica_url = Some(url);
        settings.store.replica_lag_ms = LAG_LIMIT_MS;
    }
}

impl Setting {
    async fn new() -> Setting {
        let primary = postgres::Server::own();
        let url = primary.database().await;
        let replica = postgres::Replica::of(&primary);
        let server = Server::with(&StoreUrl::Postgres(url.clone()), with_replica(replica.url_of(&url))).await;
        Setting { url: StoreUrl::Postgres(url), replica, server, _primary: primary }
    }

    /// How many reads were answered so.
    async fn reads(&self, answered_by: &str) -> u64 {
        let name = format!("scrip_replica_reads_total{{answered_by=\"{answered_by}\"}}");
        metric(&self.server, &name).await as u64
    }

    async fn connected(&self) {
        until("the replica", async || (metric(&self.server, "scrip_replica_connected").await > 0.5).then_some(()))
            .await;
    }

    async fn away(&self) {
        until("its loss", async || (metric(&self.server, "scrip_replica_connected").await < 0.5).then_some(())).await;
    }
}

/// 0 until it is shown.
async fn metric(server: &Server, name: &str) -> f64 {
    let mut client = server.client("").await;
    let shown = String::from_utf8(client.get("/metrics").await.body.to_vec()).expect("text");
    let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

async fn grant(client: &mut Client) -> String {
    let answer = client.post("/v1/members/m-1/points/grants", json!({ "points": 1 })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header(TOKEN).expect("a token").to_owned()
}

async fn read(client: &mut Client, token: Option<&str>) -> Answer {
    let headers: Vec<(&str, &str)> = token.map(|token| (TOKEN, token)).into_iter().collect();
    client.send("GET", "/v1/members/m-1/points", &headers, "").await
}

async fn available(client: &mut Client, token: Option<&str>) -> i64 {
    read(client, token).await.json(200)["available"].as_i64().expect("points")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_with_its_token_sees_its_writes_whatever_becomes_of_the_replica() {
    let mut setting = Setting::new().await;
    let shop = setting.server.shop().await;
    let mut client = setting.server.client(&shop.service).await;
    setting.connected().await;
    // Keeping up: the replica answers in the end.
    let mut granted = 0;
    until("reads by the replica", async || {
        let token = grant(&mut client).await;
        granted += 1;
        assert_eq!(available(&mut client, Some(&token)).await, granted);
        (setting.reads("replica").await > 10).then_some(())
    })
    .await;

    // Paused: it has not got what was written, and says so.
    setting.replica.ask("SELECT pg_wal_replay_pause()").await;
    let token = grant(&mut client).await;
    granted += 1;
    assert_eq!(available(&mut client, Some(&token)).await, granted);
    assert!(setting.reads("primary_behind").await + setting.reads("primary_lagging").await > 0);
    // Without a token what it has may be seen until it is too old; then the primary answers.
    let paused_at = Instant::now();
    until("the newest balance", async || (available(&mut client, None).await == granted).then_some(())).await;
    assert!(setting.reads("primary_lagging").await > 0, "{:?}", paused_at.elapsed());
    until("a lag that shows", async || {
        let lag_ms = metric(&setting.server, "scrip_replica_lag_seconds").await * 1e3;
        (lag_ms > LAG_LIMIT_MS as f64).then_some(())
    })
    .await;
    setting.replica.ask("SELECT pg_wal_replay_resume()").await;
    let before = setting.reads("replica").await;
    until("reads by the replica again", async || {
        assert_eq!(available(&mut client, Some(&token)).await, granted);
        (setting.reads("replica").await > before).then_some(())
    })
    .await;

    // Stopped as in a crash, in the middle of reads: none fails.
    let mut readers = Vec::new();
    for _ in 0..4 {
        let (mut client, token) = (setting.server.client(&shop.service).await, token.clone());
        readers.push(tokio::spawn(async move {
            for _ in 0..500 {
                assert_eq!(available(&mut client, Some(&token)).await, granted);
            }
        }));
    }
    setting.replica.stop("immediate");
    for reader in readers {
        reader.await.expect("every read is answered");
    }
    setting.away().await;
    let token = grant(&mut client).await;
    granted += 1;
    assert_eq!(available(&mut client, None).await, granted, "the primary answers at once");
    setting.replica.start();
    setting.connected().await;
    let before = setting.reads("replica").await;
    until("reads by the replica that came back", async || {
        assert_eq!(available(&mut client, Some(&token)).await, granted);
        (setting.reads("replica").await > before).then_some(())
    })
    .await;

    // Promoted, it goes ways of its own and is asked no more.
    setting.replica.ask("SELECT pg_promote(true)").await;
    setting.away().await;
    let token = grant(&mut client).await;
    assert_eq!(available(&mut client, Some(&token)).await, granted + 1);
    setting.server.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_holds_at_every_node_and_a_retry_has_one_that_covers_the_first_answer() {
    let setting = Setting::new().await;
    let shop = setting.server.shop().await;
    // A node without writes of its own.
    let StoreUrl::Postgres(url) = &setting.url else { unreachable!("a PostgreSQL store") };
    let other = Server::with(&setting.url, with_replica(setting.replica.url_of(url))).await;
    let mut first = setting.server.client(&shop.service).await;
    let mut second = other.client(&shop.service).await;
    setting.connected().await;
    setting.replica.ask("SELECT pg_wal_replay_pause()").await;
    for step in 1..=20 {
        let headers = [crate::http::JSON, ("idempotency-key", &*format!("k-{step}"))];
        let body = json!({ "points": 1 }).to_string();
        let done = first.send("POST", "/v1/members/m-1/points/grants", &headers, body.clone()).await;
        let token = done.header(TOKEN).expect("a token").to_owned();
        assert_eq!(available(&mut second, Some(&token)).await, step, "read at the other node");
        let again = second.send("POST", "/v1/members/m-1/points/grants", &headers, body).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        let token = again.header(TOKEN).expect("a token").to_owned();
        assert_eq!(available(&mut second, Some(&token)).await, step, "after a retry");
    }
    setting.replica.ask("SELECT pg_wal_replay_resume()").await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_shows_the_same_through_the_replica() {
    let setting = Setting::new().await;
    let shop = setting.server.shop().await;
    let mut operator = setting.server.client(&shop.operator).await;
    let made = operator.post("/v1/coupon-templates", crate::http::template()).await.json(201);
    let template = text(&made, "id");
    let claims = format!("/v1/coupon-templates/{template}/claims");
    let coupon = operator.post(&claims, json!({ "member_id": "m-1" })).await.json(201);
    let coupon = text(&coupon, "id");
    let credit = operator.post("/v1/members/m-1/points/grants", json!({ "points": 500 })).await.json(201);
    let hold = operator.post("/v1/members/m-1/points/holds", json!({ "points": 10 })).await.json(201);
    let line = json!({ "item_id": "1", "product_id": "p", "unit_price": 9_000, "quantity": 1 });
    let order = json!({ "order_id": "o-1", "member_id": "m-1", "lines": [line], "coupon_ids": [coupon] });
    let reserved = operator.post("/v1/orders", order.clone()).await;
    assert_eq!(reserved.status, 201, "{reserved:?}");
    let token = reserved.header(TOKEN).expect("a token").to_owned();
    setting.connected().await;
    let plain = Server::on(&setting.url).await;
    let mut primary = plain.client(&shop.operator).await;
    let gets = [
        format!("/v1/coupon-templates/{template}"),
        "/v1/coupon-templates".to_owned(),
        format!("/v1/coupons/{coupon}"),
        "/v1/members/m-1/coupons".to_owned(),
        "/v1/members/m-1/points".to_owned(),
        "/v1/members/m-1/points/transactions".to_owned(),
        "/v1/members/m-1/points/lots".to_owned(),
        format!("/v1/points-transactions/{}", text(&credit, "id")),
        format!("/v1/points-holds/{}", text(&hold, "id")),
        "/v1/orders/o-1".to_owned(),
        "/v1/members/m-1/orders".to_owned(),
        "/v1/orders/o-1/refunds".to_owned(),
        "/v1/points-rules".to_owned(),
        "/v1/coupon-compensations".to_owned(),
    ];
    let before = setting.reads("replica").await;
    until("the replica to have it all", async || {
        operator.send("GET", &gets[0], &[(TOKEN, &token)], "").await.json(200);
        (setting.reads("replica").await > before).then_some(())
    })
    .await;
    for path in &gets {
        let before = setting.reads("replica").await;
        let seen = operator.send("GET", path, &[(TOKEN, &token)], "").await;
        let (mut seen, mut expected) = (seen.json(200), primary.get(path).await.json(200));
        for body in [&mut seen, &mut expected] {
            body.as_object_mut().and_then(|body| body.remove("as_of"));
        }
        assert_eq!(seen, expected, "{path}");
        assert!(setting.reads("replica").await > before, "{path} was answered by the primary");
    }
    let quote = json!({ "member_id": "m-1", "lines": [order["lines"][0]], "points": 100 });
    let headers = [crate::http::JSON, (TOKEN, &*token)];
    let mut seen = operator.send("POST", "/v1/quotes", &headers, quote.to_string()).await.json(200);
    let expected = primary.post("/v1/quotes", quote).await;
    assert_eq!(expected.header(TOKEN), None, "without a replica there is no token");
    let mut expected = expected.json(200);
    for quote in [&mut seen, &mut expected] {
        quote["as_of"] = Value::Null;
    }
    assert_eq!(seen, expected);
    let malformed = operator.send("GET", &gets[0], &[(TOKEN, "0/16B3748")], "").await.json(400);
    assert_eq!(malformed["errors"][0]["field"], "Scrip-Consistency-Token", "{malformed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_no_replica_of_the_store_is_never_asked() {
    let primary = postgres::Server::own();
    let url = primary.database().await;
    // Another cluster, with another store under the same schema.
    let stranger = postgres::database().await;
    let options = StoreOptions::new(StoreUrl::Postgres(stranger.clone()));
    Store::open(&options).await.expect("the store opens").migrate().await.expect("the schema is made");
    let server = Server::with(&StoreUrl::Postgres(url), with_replica(stranger)).await;
    let shop = server.shop().await;
    let mut client = server.client(&shop.service).await;
    let token = grant(&mut client).await;
    let until_looked_at = Instant::now() + Duration::from_millis(3 * LAG_LIMIT_MS);
    while Instant::now() < until_looked_at {
        assert_eq!(available(&mut client, Some(&token)).await, 1);
        assert_eq!(available(&mut client, None).await, 1);
    }
    assert!(metric(&server, "scrip_replica_reads_total{answered_by=\"replica\"}").await < 0.5);
    let mut platform = server.client(PLATFORM_KEY).await;
    assert!(platform.post("/v1/tenants", json!({ "name": "x" })).await.header(TOKEN).is_some());
}
