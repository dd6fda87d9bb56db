//! What nodes keep in memory: changes show on every node, and whatever a cache holds, nothing is decided by it.

use std::process::Command;

use scrip_server::config::Settings;
use scrip_server::store::StoreUrl;
use serde_json::{Value, json};

use crate::harness::{Fixture, Kind, address_of};
use crate::http::{Client, JSON, Server, Shop, template, text};
use crate::postgres;
use crate::redis::Redis;
use crate::webhooks::until;

fn with_redis(url: String) -> impl FnOnce(&mut Settings) {
    move |settings| settings.cache.redis_url = Some(url)
}

/// Two nodes on one store, and a shop.
struct Nodes {
    first: Server,
    second: Server,
    shop: Shop,
    fixture: Fixture,
}

impl Nodes {
    async fn new(redis: Option<[String; 2]>) -> Nodes {
        let fixture = Fixture::new(Kind::Postgres).await;
        let (first, second) = match redis {
            None => (Server::on(&fixture.url).await, Server::on(&fixture.url).await),
            Some([first, second]) => (
                Server::with(&fixture.url, with_redis(first)).await,
                Server::with(&fixture.url, with_redis(second)).await,
            ),
        };
        for server in [&first, &second] {
            until("a node that hears", async || {
                (metric(server, "scrip_cache_unheard_seconds").await < 3.0).then_some(())
            })
            .await;
        }
        let shop = first.shop().await;
        Nodes { first, second, shop, fixture }
    }

    /// An operator at the first node, a service at each.
    async fn clients(&self) -> (Client, Client, Client) {
        let Shop { operator, service, .. } = &self.shop;
        (self.first.client(operator).await, self.first.client(service).await, self.second.client(service).await)
    }
}

async fn metric(server: &Server, name: &str) -> f64 {
    let mut client = server.client("").await;
    let shown = String::from_utf8(client.get("/metrics").await.body.to_vec()).expect("text");
    let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(f64::NAN, |value| value.parse().expect("a number"))
}

async fn lookups(server: &Server, cache: &str, result: &str) -> u64 {
    let name = format!("scrip_cache_lookups_total{{cache=\"{cache}\",result=\"{result}\"}}");
    let shown = metric(server, &name).await;
    if shown.is_nan() { 0 } else { shown as u64 }
}

async fn make(operator: &mut Client, stock: i64) -> String {
    let mut body = template();
    body["total_stock"] = json!(stock);
    body["limit_per_member"] = json!(1_000);
    let made = operator.post("/v1/coupon-templates", body).await.json(201);
    format!("/v1/coupon-templates/{}", text(&made, "id"))
}

async fn shown(client: &mut Client, path: &str) -> Value {
    client.get(path).await.json(200)
}

async fn shows(client: &mut Client, path: &str, field: &str, value: Value) {
    until("the change", async || (shown(client, path).await[field] == value).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_shows_on_its_node_at_once_and_soon_on_the_others() {
    let nodes = Nodes::new(None).await;
    let (mut operator, mut first, mut second) = nodes.clients().await;
    let path = make(&mut operator, 10).await;
    for client in [&mut first, &mut second] {
        assert_eq!(shown(client, &path).await["name"], "t");
    }
    // From memory, once word of its making has come.
    until("reads from memory", async || {
        let before =
            (lookups(&nodes.second, "templates", "hit").await, lookups(&nodes.second, "templates", "miss").await);
        for _ in 0..20 {
            shown(&mut second, &path).await;
        }
        let after =
            (lookups(&nodes.second, "templates", "hit").await, lookups(&nodes.second, "templates", "miss").await);
        (after == (before.0 + 20, before.1)).then_some(())
    })
    .await;
    // An edit, a claim, a disabling: the caller's node shows each at once.
    let edit = json!({ "name": "renamed" }).to_string();
    let headers = [("content-type", "application/merge-patch+json"), ("if-match", "\"1\"")];
    operator.send("PATCH", &path, &headers, edit).await.json(200);
    assert_eq!(shown(&mut first, &path).await["name"], "renamed");
    shows(&mut second, &path, "name", json!("renamed")).await;
    for claimed in 1..=3 {
        first.post(&format!("{path}/claims"), json!({ "member_id": "m" })).await.json(201);
        assert_eq!(shown(&mut first, &path).await["claimed_count"], json!(claimed));
    }
    shows(&mut second, &path, "claimed_count", json!(3)).await;
    operator.post(&format!("{path}/disable"), json!({})).await.json(200);
    assert_eq!(shown(&mut first, &path).await["enabled"], json!(false));
    shows(&mut second, &path, "enabled", json!(false)).await;
    // What was not there and is made.
    let absent = "/v1/coupon-templates/tpl_0190f3a1c6de7a53b0a1c2d3e4f50617";
    for _ in 0..3 {
        assert_eq!(second.get(absent).await.status, 404);
    }
    assert_eq!(lookups(&nodes.second, "templates", "absent").await, 2);
    // Another tenant's stays unknown, whoever has asked for it.
    let stranger = nodes.first.shop().await;
    let mut stranger = nodes.second.client(&stranger.service).await;
    assert_eq!(stranger.get(&path).await.status, 404);
    nodes.first.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_rules_price_quotes_on_every_node() {
    let nodes = Nodes::new(None).await;
    let mut operator = nodes.first.client(&nodes.shop.operator).await;
    let mut first = nodes.first.client(&nodes.shop.operator).await;
    let mut second = nodes.second.client(&nodes.shop.operator).await;
    let line = json!({ "item_id": "1", "product_id": "p", "unit_price": 10_000, "quantity": 1 });
    let quote = json!({ "member_id": "m", "lines": [line], "as_of": "2031-01-01T00:00:00Z" });
    let earned = async |client: &mut Client| {
        client.post("/v1/quotes", quote.clone()).await.json(200)["points_to_earn"].as_i64().expect("points")
    };
    let before = (earned(&mut first).await, earned(&mut second).await);
    assert_eq!(before.0, before.1);
    let current = operator.get("/v1/points-rules").await;
    let etag = current.header("etag").expect("an ETag").to_owned();
    let rules = json!({ "earn": { "enabled": true, "ratio": 7, "base": 100 } });
    let set = operator.send("PUT", "/v1/points-rules", &[JSON, ("if-match", &etag)], rules.to_string()).await;
    assert!(set.status.is_success(), "{set:?}");
    assert_eq!(earned(&mut first).await, 700, "at once where it was set");
    until("the rules", async || (earned(&mut second).await == 700).then_some(())).await;
    assert!(lookups(&nodes.first, "rules", "hit").await + lookups(&nodes.first, "rules", "miss").await >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_at_once_cost_one_statement() {
    let nodes = Nodes::new(None).await;
    let (mut operator, ..) = nodes.clients().await;
    let path = make(&mut operator, 10).await;
    let mut asking = Vec::new();
    for _ in 0..16 {
        let (mut client, path) = (nodes.second.client(&nodes.shop.service).await, path.clone());
        asking.push(tokio::spawn(async move { shown(&mut client, &path).await }));
    }
    for asked in asking {
        asked.await.expect("an answer");
    }
    // Two when word of the template's making comes in between.
    let (misses, hits) =
        (lookups(&nodes.second, "templates", "miss").await, lookups(&nodes.second, "templates", "hit").await);
    assert!(misses <= 2 && misses + hits == 16, "{misses} misses, {hits} hits");
}

const ADD_ONE: &str =
    "UPDATE mkt_coupon_template SET total_stock = total_stock + 1, remaining_stock = remaining_stock + 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_drops_entries_by_request_and_by_command() {
    let nodes = Nodes::new(None).await;
    let (mut operator, _, mut second) = nodes.clients().await;
    let path = make(&mut operator, 10).await;
    shown(&mut second, &path).await;
    // Behind the server's back.
    let StoreUrl::Postgres(url) = &nodes.fixture.url else { unreachable!("a PostgreSQL fixture") };
    let admin = postgres::connect(url).await;
    // Changed behind the servers' back, of which nobody hears: the old value is still shown.
    let unheard = async |second: &mut Client| {
        until("a stale entry", async || {
            let before = shown(second, &path).await["total_stock"].as_i64().expect("a stock");
            admin.batch_execute(ADD_ONE).await.expect("an update");
            (shown(second, &path).await["total_stock"] == json!(before)).then_some(before)
        })
        .await
    };
    let before = unheard(&mut second).await;
    let id = path.rsplit('/').next().expect("an id");
    let evicted = operator.post("/v1/cache-evictions", json!({ "template_id": id })).await;
    assert_eq!(evicted.status, 204, "{evicted:?}");
    shows(&mut second, &path, "total_stock", json!(before + 1)).await;
    let before = unheard(&mut second).await;
    let evict = Command::new(env!("CARGO_BIN_EXE_scrip"))
        .args(["cache", "evict", "--tenant", &nodes.shop.id, "--store", &address_of(&nodes.fixture.url)])
        .output()
        .expect("the command runs");
    assert!(evict.status.success(), "{}", String::from_utf8_lossy(&evict.stderr));
    shows(&mut second, &path, "total_stock", json!(before + 1)).await;
    let mut service = nodes.first.client(&nodes.shop.service).await;
    assert_eq!(service.post("/v1/cache-evictions", json!({})).await.status, 403);
}

/// Ends the connections that hear of changes.
async fn deaf(admin: &tokio_postgres::Client) {
    let listeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                     AND query LIKE 'LISTEN%'";
    admin.query(listeners, &[]).await.expect("listeners end");
}

/// Whatever B believes of a template, it issues what there is and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_from_redis_with_everything_stale_never_issues_too_much() {
    let mut redis = Redis::start().await;
    let mut second_redis = Redis::start().await;
    // Each has its own: what is taken away from the first's is not from the second's.
    let nodes = Nodes::new(Some([redis.url(), second_redis.url()])).await;
    let (mut operator, mut first, mut second) = nodes.clients().await;
    let path = make(&mut operator, 10).await;
    let claims = format!("{path}/claims");
    // Every eviction of B is prevented: it hears nothing, and its Redis answers with what was.
    let StoreUrl::Postgres(url) = &nodes.fixture.url else { unreachable!("a PostgreSQL fixture") };
    let admin = postgres::connect(url).await;
    let (tenant, id) = (nodes.shop.id.trim_start_matches("ten_"), path.rsplit("tpl_").next().expect("an id"));
    let name = format!("scrip:1:t:{tenant}:{id}");
    let mut kept = second_redis.connection().await.expect("a connection");
    until("the shared store to have it", async || {
        let found: Option<String> = redis::cmd("GET").arg(&name).query_async(&mut kept).await.expect("an answer");
        shown(&mut second, &path).await;
        // In memory alone, while it has just been made; so let another node's word drop it.
        if found.is_none() {
            deaf(&admin).await;
        }
        found
    })
    .await;
    // Sold out on A, 10 in all; B believes that all are left.
    second_redis.freeze();
    deaf(&admin).await;
    for member in 0..10 {
        first.post(&claims, json!({ "member_id": format!("m-{member}") })).await.json(201);
    }
    for member in 0..20 {
        deaf(&admin).await;
        let refused = second.post(&claims, json!({ "member_id": format!("n-{member}") })).await.json(422);
        assert_eq!(refused["code"], "COUPON_SOLD_OUT");
    }
    // More stock, then disabled on A.
    operator.post(&format!("{path}/stock"), json!({ "change": 10 })).await.json(200);
    // What it remembers as sold out it may refuse for a second more, which issues too little, never too much.
    until("the new stock", async || {
        let claimed = second.post(&claims, json!({ "member_id": "late" })).await;
        (claimed.status == 201).then_some(())
    })
    .await;
    operator.post(&format!("{path}/disable"), json!({})).await.json(200);
    for member in 0..20 {
        deaf(&admin).await;
        let refused = second.post(&claims, json!({ "member_id": format!("o-{member}") })).await;
        assert_eq!(refused.status, 422, "{refused:?}");
    }
    // Changed on A: another limit.
    operator.post(&format!("{path}/enable"), json!({})).await.json(200);
    let version = operator.get(&path).await.header("etag").expect("an ETag").to_owned();
    let headers = [("content-type", "application/merge-patch+json"), ("if-match", &*version)];
    operator.send("PATCH", &path, &headers, json!({ "limit_per_member": 1 }).to_string()).await.json(200);
    second.post(&claims, json!({ "member_id": "once" })).await.json(201);
    let refused = second.post(&claims, json!({ "member_id": "once" })).await.json(422);
    assert_eq!(refused["code"], "COUPON_LIMIT_REACHED");
    let before = operator.get(&path).await.json(200);
    assert_eq!(before["claimed_count"], json!(12));

    // It all comes back: B shows what there is.
    second_redis.thaw();
    shows(&mut second, &path, "claimed_count", json!(12)).await;
    // And with both gone for good nothing changes but speed.
    redis.kill();
    second_redis.kill();
    first.post(&claims, json!({ "member_id": "gone-1" })).await.json(201);
    second.post(&claims, json!({ "member_id": "gone-2" })).await.json(201);
    shows(&mut first, &path, "claimed_count", json!(14)).await;
    shows(&mut second, &path, "claimed_count", json!(14)).await;
    redis.up().await;
    until("the shared cache again", async || {
        (metric(&nodes.first, "scrip_cache_shared_connected").await > 0.5).then_some(())
    })
    .await;
    nodes.first.assert_sound().await;
}
