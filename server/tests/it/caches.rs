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

fn with_redis(url: String) -> impl Fn(&mut Settings) {
    move |settings| settings.cache.redis_url = Some(url.clone())
}

/// Two nodes on one store, and a shop.
struct Nodes {
    first: Server,
    second: Server,
    shop: Shop,
    fixture: Fixture,
}

impl Nodes {
    async fn new() -> Nodes {
        Nodes::with(|_| {}).await
    }

    async fn with(adjust: impl Fn(&mut Settings)) -> Nodes {
        let fixture = Fixture::new(Kind::Postgres).await;
        let (first, second) = (Server::with(&fixture.url, &adjust).await, Server::with(&fixture.url, &adjust).await);
        for server in [&first, &second] {
            hears(server).await;
        }
        let shop = first.shop().await;
        Nodes { first, second, shop, fixture }
    }

    /// An operator at the first node, a service at each.
    async fn clients(&self) -> (Client, Client, Client) {
        let Shop { operator, service, .. } = &self.shop;
        (self.first.client(operator).await, self.first.client(service).await, self.second.client(service).await)
    }

    async fn admin(&self) -> tokio_postgres::Client {
        let StoreUrl::Postgres(url) = &self.fixture.url else { unreachable!("a PostgreSQL fixture") };
        postgres::connect(url).await
    }
}

async fn hears(server: &Server) {
    until("a node that hears", async || (metric(server, "scrip_cache_unheard_seconds").await < 3.0).then_some(()))
        .await;
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
    let nodes = Nodes::new().await;
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
async fn new_rules_show_on_every_node_and_price_quotes_at_once() {
    let nodes = Nodes::new().await;
    let (mut operator, mut first, mut second) = nodes.clients().await;
    let ratio = async |client: &mut Client| shown(client, "/v1/points-rules").await["earn"]["ratio"].as_i64();
    let quote = json!({ "member_id": "m", "lines": [{ "item_id": "1", "product_id": "p", "unit_price": 10_000, "quantity": 1 }] });
    for version in 0..3 {
        let known = ratio(&mut first).await;
        assert_eq!(ratio(&mut second).await, known, "both show the same before it is changed");
        let rules = json!({ "earn": { "enabled": true, "ratio": 7 + version, "base": 100 } });
        let headers = [JSON, ("if-match", &*format!("\"{version}\""))];
        operator.send("PUT", "/v1/points-rules", &headers, rules.to_string()).await.json(200);
        // A quote whose token holds its price is made by the store's rules, whatever the node shows.
        let quoted = second.post("/v1/quotes", quote.clone()).await.json(200);
        assert_eq!(quoted["points_to_earn"], json!(100 * (7 + version)));
        assert_eq!(ratio(&mut first).await, Some(7 + version), "at once where they were set");
        until("the rules", async || (ratio(&mut second).await == Some(7 + version)).then_some(())).await;
    }
    // Those of other times, and of later ones, come from the same entry.
    let before = (lookups(&nodes.second, "rules", "hit").await, lookups(&nodes.second, "rules", "miss").await);
    let early = shown(&mut second, "/v1/points-rules?at=2020-01-01T00:00:00Z").await;
    assert_eq!(
        (early["version"].clone(), second.get("/v1/points-rules").await.header("etag")),
        (json!(0), Some("\"3\""))
    );
    let after = (lookups(&nodes.second, "rules", "hit").await, lookups(&nodes.second, "rules", "miss").await);
    assert_eq!(after, (before.0 + 2, before.1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_at_once_cost_one_statement() {
    let nodes = Nodes::new().await;
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
    let nodes = Nodes::new().await;
    let (mut operator, _, mut second) = nodes.clients().await;
    let path = make(&mut operator, 10).await;
    shown(&mut second, &path).await;
    let admin = nodes.admin().await;
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

const LISTENERS: &str =
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'scrip listener'";

/// The processes of the database that tell the nodes of changes, stopped: the nodes hear nothing and do not know it yet.
struct Silence(Vec<i32>);

impl Silence {
    async fn over(nodes: &Nodes) -> Silence {
        let rows = nodes.admin().await.query(LISTENERS, &[]).await.expect("listeners");
        assert_eq!(rows.len(), 2);
        let silence = Silence(rows.iter().map(|row| row.get(0)).collect());
        silence.signal("-STOP");
        silence
    }

    fn signal(&self, signal: &str) {
        let ids = self.0.iter().map(ToString::to_string);
        assert!(Command::new("kill").arg(signal).args(ids).status().expect("kill runs").success());
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

/// What happens to a template at the first node, and how the second must refuse a claim from then on.
const ATTACKS: [(&str, &str); 3] =
    [("sell out", "COUPON_SOLD_OUT"), ("disable", "COUPON_TEMPLATE_DISABLED"), ("edit", "COUPON_LIMIT_REACHED")];

/// Whatever B believes of a template, it issues what there is and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_and_shows_what_was_never_issues_too_much() {
    let mut redis = Redis::start().await;
    let nodes = Nodes::with(with_redis(redis.url())).await;
    let (mut operator, mut first, mut second) = nodes.clients().await;
    for (number, (attack, code)) in ATTACKS.into_iter().enumerate() {
        // Redis answers nobody, then is gone, then is there and empty.
        match number {
            0 => redis.freeze(),
            1 => redis.kill(),
            _ => redis.up().await,
        }
        // Again, should the nodes have noticed that they are cut off before they were asked.
        until("a node that shows what was", async || {
            let path = make(&mut operator, 3).await;
            let claims = format!("{path}/claims");
            let claim = |member: String| json!({ "member_id": member });
            second.post(&claims, claim("m".to_owned())).await.json(201);
            for server in [&nodes.first, &nodes.second] {
                hears(server).await;
            }
            shows(&mut second, &path, "claimed_count", json!(1)).await;
            let silence = Silence::over(&nodes).await;
            match attack {
                "sell out" => {
                    for member in 0..2 {
                        first.post(&claims, claim(format!("a-{member}"))).await.json(201);
                    }
                }
                "disable" => {
                    operator.post(&format!("{path}/disable"), json!({})).await.json(200);
                }
                _ => {
                    let headers = [("content-type", "application/merge-patch+json"), ("if-match", "\"1\"")];
                    let edit = json!({ "limit_per_member": 1 }).to_string();
                    operator.send("PATCH", &path, &headers, edit).await.json(200);
                }
            }
            let view = shown(&mut second, &path).await;
            let is_stale =
                view["claimed_count"] == json!(1) && view["enabled"] == json!(true) && view["version"] == json!(1);
            for _ in 0..10 {
                let refused = second.post(&claims, claim("m".to_owned())).await.json(422);
                assert_eq!(refused["code"], code, "{attack}");
            }
            drop(silence);
            // What has become of it shows once the node hears, whatever Redis has kept.
            let truth = operator.get(&path).await.json(200);
            shows(&mut second, &path, "version", truth["version"].clone()).await;
            shows(&mut second, &path, "claimed_count", truth["claimed_count"].clone()).await;
            is_stale.then_some(())
        })
        .await;
        if number == 0 {
            redis.thaw();
        }
    }
    nodes.first.assert_sound().await;
}

/// The name of a template's entry in the shared store.
fn name_of(nodes: &Nodes, path: &str) -> String {
    let (tenant, id) = (nodes.shop.id.trim_start_matches("ten_"), path.rsplit("tpl_").next().expect("an id"));
    format!("scrip:{}:t:{tenant}:{id}", env!("CARGO_PKG_VERSION"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_has_read_the_other_has_from_redis_until_it_changes() {
    let mut redis = Redis::start().await;
    let nodes = Nodes::with(with_redis(redis.url())).await;
    for server in [&nodes.first, &nodes.second] {
        connected(server, true).await;
    }
    let (mut operator, mut first, mut second) = nodes.clients().await;
    let path = make(&mut operator, 10).await;
    let entry = name_of(&nodes, &path);
    let mut kept = redis.connection().await.expect("a connection");
    assert_eq!(shown(&mut first, &path).await["name"], "t");
    let old: String = redis::cmd("GET").arg(&entry).query_async(&mut kept).await.expect("an entry");
    assert_eq!(shown(&mut second, &path).await["name"], "t");
    assert_eq!(lookups(&nodes.second, "templates", "shared").await, 1);
    // A connection that breaks is made anew, within the same read.
    until("a read over a new connection", async || {
        let path = make(&mut operator, 10).await;
        shown(&mut first, &path).await;
        let before = lookups(&nodes.second, "templates", "shared").await;
        redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .query_async::<i64>(&mut kept)
            .await
            .expect("a count");
        shown(&mut second, &path).await;
        (lookups(&nodes.second, "templates", "shared").await == before + 1).then_some(())
    })
    .await;
    // An edit buries the entry, and who has read the old one can not put it back.
    let edit = json!({ "name": "renamed" }).to_string();
    let headers = [("content-type", "application/merge-patch+json"), ("if-match", "\"1\"")];
    operator.send("PATCH", &path, &headers, edit).await.json(200);
    assert_eq!(shown(&mut first, &path).await["name"], "renamed");
    shows(&mut second, &path, "name", json!("renamed")).await;
    until("a gravestone", async || {
        let found: Option<String> = redis::cmd("GET").arg(&entry).query_async(&mut kept).await.expect("an answer");
        (found.as_deref() == Some("-")).then_some(())
    })
    .await;
    let put: Option<String> =
        redis::cmd("SET").arg(&entry).arg(&old).arg("NX").query_async(&mut kept).await.expect("an answer");
    assert_eq!(put, None);
    // Whatever stood there while nobody could bury it is buried before anything is read again.
    let () = redis::cmd("SET").arg(&entry).arg(&old).query_async(&mut kept).await.expect("an answer");
    redis.freeze();
    for server in [&nodes.first, &nodes.second] {
        until("a Redis that is given up", async || {
            let path = make(&mut operator, 10).await;
            server.client(&nodes.shop.service).await.get(&path).await.json(200);
            (metric(server, "scrip_cache_shared_connected").await < 0.5).then_some(())
        })
        .await;
    }
    let headers = [("content-type", "application/merge-patch+json"), ("if-match", "\"2\"")];
    operator.send("PATCH", &path, &headers, json!({ "name": "again" }).to_string()).await.json(200);
    shows(&mut second, &path, "name", json!("again")).await;
    redis.thaw();
    for server in [&nodes.first, &nodes.second] {
        connected(server, true).await;
    }
    let found: Option<String> = redis::cmd("GET").arg(&entry).query_async(&mut kept).await.expect("an answer");
    assert_ne!(found, Some(old));
    // Gone for good, and nothing changes but speed; then there again, and empty.
    redis.kill();
    for member in 0..3 {
        second.post(&format!("{path}/claims"), json!({ "member_id": format!("m-{member}") })).await.json(201);
    }
    assert_eq!(shown(&mut second, &path).await["claimed_count"], json!(3));
    shows(&mut first, &path, "claimed_count", json!(3)).await;
    connected(&nodes.first, false).await;
    redis.up().await;
    connected(&nodes.first, true).await;
    nodes.first.assert_sound().await;
}

async fn connected(server: &Server, expected: bool) {
    until("the shared cache", async || {
        ((metric(server, "scrip_cache_shared_connected").await > 0.5) == expected).then_some(())
    })
    .await;
}

/// Servers that are killed leave no old entry behind: the first that hears again forgets what is shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_heard_is_not_found_in_redis_either() {
    let redis = Redis::start().await;
    let Nodes { first, second, shop, fixture } = Nodes::with(with_redis(redis.url())).await;
    let mut operator = first.client(&shop.operator).await;
    let path = make(&mut operator, 10).await;
    connected(&first, true).await;
    first.client(&shop.service).await.get(&path).await.json(200);
    first.stop().await;
    second.stop().await;
    let StoreUrl::Postgres(url) = &fixture.url else { unreachable!("a PostgreSQL fixture") };
    let admin = postgres::connect(url).await;
    until("silence", async || admin.query(LISTENERS, &[]).await.expect("an answer").is_empty().then_some(())).await;
    admin.batch_execute(ADD_ONE).await.expect("an update");
    let third = Server::with(&fixture.url, with_redis(redis.url())).await;
    connected(&third, true).await;
    hears(&third).await;
    let mut service = third.client(&shop.service).await;
    assert_eq!(shown(&mut service, &path).await["total_stock"], json!(11));
}
