//! Nobody reaches what belongs to another tenant or member. The routes come from the served description, so none is forgotten.

use axum::body::Bytes;
use scrip_domain::TenantId;
use serde_json::{Value, json};

use super::{Client, JSON, Server, template, text};
use crate::harness::{Fixture, KINDS, Kind};

/// Ids of real objects of one tenant, by the name of the path parameter that takes them.
async fn objects(client: &mut Client, tenant: &str) -> Vec<(&'static str, String)> {
    let made = client.post("/v1/coupon-templates", template()).await.json(201);
    let id = text(&made, "id").to_owned();
    let coupon =
        client.post(&format!("/v1/coupon-templates/{id}/claims"), json!({ "member_id": "m-1" })).await.json(201);
    let grant = client.post("/v1/members/m-1/points/grants", json!({ "points": 100 })).await.json(201);
    let hold = client.post("/v1/members/m-1/points/holds", json!({ "points": 10 })).await.json(201);
    let many = json!({ "member_ids": ["m-1", "m-2"] });
    let bulk = client.post(&format!("/v1/coupon-templates/{id}/distributions"), many).await.json(202);
    let later = json!({ "points": 10, "mode": "async" });
    let job = client.post("/v1/members/m-1/points/grants", later).await.json(202);
    let webhook = client.post("/v1/webhooks", json!({ "url": "https://shop.example/" })).await.json(201);
    let line = json!({ "item_id": "i", "product_id": "p", "unit_price": 5, "quantity": 1 });
    let order = json!({ "order_id": "own-order", "member_id": "m-1", "lines": [line] });
    client.post("/v1/orders", order).await.json(201);
    let codes = format!("/v1/coupon-templates/{id}/codes");
    let batch = client.post(&codes, json!({ "kind": "SHARED", "code": "OWN-CODE" })).await.json(202);
    let task = json!({ "key": "task-of-this-tenant", "name": "t", "points": 5 });
    let task = client.post("/v1/points-tasks", task).await.json(201);
    let limited = json!({ "adjustments": { "approval_above": 10 } }).to_string();
    client.send("PUT", "/v1/points-rules", &[JSON, ("if-match", "\"0\"")], limited).await;
    let large = json!({ "points": 11, "reason": "r" });
    let waits = client.post("/v1/members/m-1/points/adjustments", large).await.json(202);
    let adjustment = text(&waits, "id").to_owned();
    vec![
        ("task_key", text(&task, "key").to_owned()),
        ("webhook_id", text(&webhook, "id").to_owned()),
        ("batch_id", text(&batch, "id").to_owned()),
        ("code", "OWN-CODE".to_owned()),
        ("template_id", id),
        ("coupon_id", text(&coupon, "id").to_owned()),
        ("transaction_id", text(&grant, "id").to_owned()),
        ("hold_id", text(&hold, "id").to_owned()),
        ("order_id", "own-order".to_owned()),
        ("adjustment_id", adjustment),
        ("compensation_id", format!("cmp_{}", "0".repeat(32))),
        ("job_id", text(&job, "id").to_owned()),
        ("bulk_id", text(&bulk, "id").to_owned()),
        ("member_id", "m-1".to_owned()),
        ("tenant_id", tenant.to_owned()),
        ("key_id", format!("key_{}", "0".repeat(32))),
    ]
}

/// A body that an operation accepts, as far as its form goes.
fn body(path: &str) -> Value {
    match path.rsplit('/').next().unwrap_or_default() {
        "revoke" if path.contains("code") => json!({}),
        "codes" => json!({ "kind": "SHARED", "code": "THEIRS" }),
        "transfer" => json!({ "to_member_id": "m-2" }),
        "extend" | "extensions" => json!({ "valid_until": "2037-01-01T00:00:00Z" }),
        "distributions" => json!({ "member_ids": ["m-1"] }),
        "claims" | "exchanges" => json!({ "member_id": "m-1" }),
        "lock" | "use" | "unlock" | "return" => json!({ "order_id": "o-1" }),
        "reject" => json!({ "reason": "r" }),
        "adjustments" => json!({ "points": 1, "reason": "r" }),
        "revoke" => json!({ "reason": "r" }),
        "stock" => json!({ "change": 1 }),
        "grants" | "debits" | "holds" => json!({ "points": 1 }),
        "orders" => json!({ "order_id": "o-2", "member_id": "m-1",
            "lines": [{ "item_id": "i", "product_id": "p", "unit_price": 5, "quantity": 1 }] }),
        "refunds" => json!({ "refund_id": "r", "full": true }),
        "close" => json!({ "status": "RESOLVED", "remark": "r" }),
        "simulations" => json!({ "rules": {} }),
        "points-rules" => json!({ "earn": { "ratio": 2 } }),
        "assign" => json!({ "member_id": "m-1" }),
        "completions" => json!({ "completion_id": "r-1" }),
        "coupon-templates" => template(),
        "webhooks" => json!({ "url": "https://shop.example/" }),
        "replay" => json!({ "after": null }),
        "resend" => json!({ "position": "1-0" }),
        _ => json!({}),
    }
}

fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &Value)| {
        let methods = item
            .as_object()
            .expect("an item")
            .keys()
            .filter(|key| ["get", "post", "put", "patch", "delete"].contains(&key.as_str()));
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

async fn ask(client: &mut Client, method: &str, path: &str, template: &str) -> (u16, Value) {
    let headers: &[(&str, &str)] = match method {
        "GET" => &[],
        _ if template.contains("/imports") => &[("content-type", "text/csv")],
        _ => &[JSON, ("if-match", "\"1\"")],
    };
    let body = if method == "GET" { Bytes::new() } else { body(template).to_string().into() };
    let answer = client.send(method, path, headers, body).await;
    (answer.status.as_u16(), answer.value())
}

/// The path with these objects in it.
fn filled(path: &str, objects: &[(&'static str, String)]) -> String {
    let filled = objects.iter().fold(path.to_owned(), |path, (name, id)| path.replace(&format!("{{{name}}}"), id));
    assert!(!filled.contains('{'), "{path}: a parameter that this test does not know");
    filled
}

/// Asks for objects that are not the client's.
async fn assert_out_of_reach(client: &mut Client, method: &str, path: &str, objects: &[(&'static str, String)]) {
    let named = objects.iter().filter(|(name, _)| path.contains(&format!("{{{name}}}"))).map(|(name, _)| *name);
    let names_object = named.clone().any(|name| !["member_id"].contains(&name));
    let (status, answer) = ask(client, method, &filled(path, objects), path).await;
    assert!(status < 500, "{method} {path}: {answer}");
    if path.contains("{code}") {
        // As good as unknown, in the words for what is unknown.
        assert!([403, 404].contains(&status) || answer["code"] == "COUPON_CODE_NOT_ACCEPTED", "{path}: {answer}");
    } else if names_object {
        assert!([403, 404].contains(&status), "{method} {path} reached another tenant's object: {answer}");
    }
    let shown = answer.to_string();
    for (name, id) in objects.iter().filter(|(name, _)| *name != "member_id") {
        let echoed = answer["detail"].as_str().is_some_and(|detail| detail.contains(id.as_str()));
        assert!(!shown.contains(id.as_str()) || echoed, "{method} {path} shows another tenant's {name}");
    }
}

async fn check(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    // What is asked for later stays undone, so that nothing changes by itself.
    let server = Server::with(&fixture.url, |settings| settings.jobs.concurrency = 0).await;
    let (own, stranger) = (server.shop().await, server.shop().await);
    let mut operator = server.client(&own.operator).await;
    let objects = objects(&mut operator, &own.id).await;
    let mut nobody = server.client("").await;
    let mut unknown = server.client(&format!("scrip_{}", "0".repeat(72))).await;
    let mut other = server.client(&stranger.operator).await;
    let mut member = server.client(&stranger.member).await;
    let document = other.get("/openapi.json").await.json(200);
    let before = books(&mut operator).await;
    let mut tried = 0;
    for (method, path) in operations(&document) {
        let filled = filled(&path, &objects);
        if document["paths"][&path][method.to_lowercase()]["security"].is_null() {
            continue;
        }
        for client in [&mut nobody, &mut unknown] {
            assert_eq!(ask(client, &method, &filled, &path).await.0, 401, "{method} {path}");
        }
        for client in [&mut other, &mut member] {
            assert_out_of_reach(client, &method, &path, &objects).await;
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried} attempts");
    assert_eq!(books(&mut operator).await, before, "{kind:?}: nothing of the tenant was changed");
    server.assert_sound().await;
}

/// What the tenant's own operator sees.
async fn books(client: &mut Client) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in [
        "/v1/code-batches",
        "/v1/coupon-templates",
        "/v1/members/m-1/coupons",
        "/v1/members/m-1/points/transactions",
        "/v1/members/m-1/orders",
        "/v1/orders/own-order",
        "/v1/points-rules",
    ] {
        seen.push(client.get(path).await.json(200));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_reaches_another_tenant() {
    for kind in KINDS {
        check(kind).await;
    }
}

/// A program is as far from everybody else as a tenant, its own tenant's requests without the header among them.
async fn check_programs(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let server = Server::with(&fixture.url, |settings| settings.jobs.concurrency = 0).await;
    let (own, stranger) = (server.shop().await, server.shop().await);
    for shop in [&own, &stranger] {
        for code in ["MILES", "STARS"] {
            let mut operator = server.client(&shop.operator).await;
            operator.post("/v1/programs", json!({ "code": code, "name": "n" })).await.json(201);
        }
    }
    let mut operator = server.client(&own.operator).await;
    operator.post("/v1/programs", json!({ "code": "OURS", "name": "n" })).await.json(201);
    let mut miles = server.client(&own.operator).await.of_program("MILES");
    let objects = objects(&mut miles, &own.id).await;
    let before = books(&mut miles).await;
    // The tenant itself, another program of it, and a program of the same code of another tenant.
    let mut outside = [
        server.client(&own.operator).await,
        server.client(&own.operator).await.of_program("STARS"),
        server.client(&stranger.operator).await.of_program("MILES"),
    ];
    // Of no tenant of theirs.
    let mut unknown = server.client(&stranger.operator).await.of_program("OURS");
    let document = operator.get("/openapi.json").await.json(200);
    for (method, path) in operations(&document) {
        let scope = &document["paths"][&path][method.to_lowercase()]["security"];
        if scope.is_null() {
            continue;
        }
        for client in &mut outside {
            assert_out_of_reach(client, &method, &path, &objects).await;
        }
        let (status, answer) = ask(&mut unknown, &method, &filled(&path, &objects), &path).await;
        let expected = if scope[0]["key"][0] == "PLATFORM" { "SCOPE_REQUIRED" } else { "PROGRAM_NOT_FOUND" };
        assert_eq!((status, &answer["code"]), (if expected == "SCOPE_REQUIRED" { 403 } else { 404 }, &json!(expected)));
    }
    assert_eq!(books(&mut miles).await, before, "{kind:?}: nothing of the program was changed");
    server.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_reaches_a_program_but_by_its_tenants_key_and_its_code() {
    for kind in KINDS {
        check_programs(kind).await;
    }
}

/// Requests to each store; `SCRIP_TENANCY_ATTEMPTS` asks for more.
const ATTEMPTS: usize = 5_000;
/// In the names and remarks of one tenant, and nowhere else.
const MARK: &str = "not-for-others";

/// Something of these, where there is something.
fn any<T>(of: &[T]) -> Option<&T> {
    (!of.is_empty()).then(|| &of[rand::random_range(0..of.len())])
}

/// Ids that callers choose: whatever is sent is somebody's own, and may come back.
const CHOSEN: [&str; 4] = ["member_id", "order_id", "task_key", "code"];

/// Ids for the parameter of this name: mostly objects of the other tenant, sometimes one's own or one of another kind.
fn id_for(name: &str, theirs: &[(&'static str, String)], own: &[(&'static str, String)]) -> String {
    let from = if rand::random_ratio(1, 8) { own } else { theirs };
    let fitting: Vec<&String> = from.iter().filter(|(kind, _)| *kind == name).map(|(_, id)| id).collect();
    match any(&fitting).filter(|_| CHOSEN.contains(&name) || !rand::random_ratio(1, 10)) {
        Some(id) => (*id).clone(),
        None => any(theirs).expect("there are objects").1.clone(),
    }
}

/// A request in which everything that can name an object names one.
fn generated(path: &str, theirs: &[(&'static str, String)], own: &[(&'static str, String)]) -> (String, String) {
    let id = |name: &str| id_for(name, theirs, own);
    let mut filled = path.to_owned();
    while let (Some(start), Some(end)) = (filled.find('{'), filled.find('}')) {
        let name = filled[start + 1..end].to_owned();
        filled.replace_range(start..=end, &id(&name));
    }
    match rand::random_range(0..4) {
        0 => filled += &format!("?template_id={}", id("template_id")),
        1 => filled += &format!("?around={}", id("member_id")),
        _ => {}
    }
    let line = json!({ "item_id": "i", "product_id": "p", "unit_price": 5_000, "quantity": 1 });
    let basket = json!({ "order_id": format!("o-{}", rand::random::<u32>()), "member_id": "m-1", "lines": [line],
        "coupon_ids": [id("coupon_id")], "points": rand::random_range(0..5) });
    let body = match path {
        "/v1/orders" => basket.to_string(),
        "/v1/quotes" => {
            let mut quote = basket;
            quote["best"] = json!(false);
            quote.to_string()
        }
        "/v1/batch" => [
            json!({ "op": "claim", "template_id": id("template_id"), "member_id": "m-1" }),
            json!({ "op": "claim_code", "code": id("code"), "member_id": "m-1" }),
            json!({ "op": "transfer", "coupon_id": id("coupon_id"), "to_member_id": "m-2" }),
            json!({ "op": "lock", "coupon_id": id("coupon_id"), "order_id": "o-1" }),
            json!({ "op": "capture", "hold_id": id("hold_id"), "points": 1 }),
            json!({ "op": "reverse", "transaction_id": id("transaction_id") }),
        ]
        .map(|line| line.to_string())
        .join("\n"),
        _ if path.ends_with("/transfers") => json!({ "to_member_id": "m-2", "points": 1 }).to_string(),
        _ => body(path).to_string(),
    };
    (filled, body)
}

async fn check_generated(kind: Kind, attempts: usize) {
    let fixture = Fixture::new(kind).await;
    let server = Server::with(&fixture.url, |settings| settings.jobs.concurrency = 0).await;
    let (victim, stranger) = (server.shop().await, server.shop().await);
    let mut operator = server.client(&victim.operator).await;
    operator.post("/v1/programs", json!({ "code": "MILES", "name": MARK })).await.json(201);
    let mut theirs = objects(&mut operator, &victim.id).await;
    let mut named = template();
    named["name"] = json!(MARK);
    let named = operator.post("/v1/coupon-templates", named).await.json(201);
    let claims = format!("/v1/coupon-templates/{}/claims", text(&named, "id"));
    let coupon = operator.post(&claims, json!({ "member_id": "m-1" })).await.json(201);
    let grant = json!({ "points": 5, "remark": MARK, "reference": MARK });
    let grant = operator.post("/v1/members/m-1/points/grants", grant).await.json(201);
    theirs.push(("template_id", text(&named, "id").to_owned()));
    theirs.push(("coupon_id", text(&coupon, "id").to_owned()));
    theirs.push(("transaction_id", text(&grant, "id").to_owned()));
    let own = objects(&mut server.client(&stranger.operator).await, &stranger.id).await;
    let mut strangers = [
        server.client(&stranger.operator).await,
        server.client(&stranger.service).await,
        server.client(&stranger.member).await,
        server.client(&stranger.operator).await.of_program("MILES"),
    ];
    let document = operator.get("/openapi.json").await.json(200);
    let mut operations = operations(&document);
    operations.retain(|(method, path)| !document["paths"][path][method.to_lowercase()]["security"].is_null());
    let events = "SELECT count(*) FROM event WHERE tenant_id = $1";
    let tenant = victim.id.parse::<TenantId>().expect("a tenant");
    let count = async || server.store.stream(events, &[tenant.into()], |row| row.int(0)).await.expect("a count")[0];
    let before = (books(&mut operator).await, count().await);
    let mut answered = 0;
    for _ in 0..attempts {
        let (method, path) = any(&operations).expect("operations");
        let (filled, body) = generated(path, &theirs, &own);
        let client = &mut strangers[rand::random_range(0..4)];
        let headers: &[(&str, &str)] = match method.as_str() {
            "GET" => &[],
            _ if path == "/v1/batch" => &[("content-type", "application/x-ndjson")],
            _ if path.contains("/imports") => &[("content-type", "text/csv")],
            _ => &[JSON, ("if-match", "\"1\"")],
        };
        let sent = if method == "GET" { Bytes::new() } else { body.clone().into() };
        let answer = client.send(method, &filled, headers, sent).await;
        let shown = String::from_utf8_lossy(&answer.body);
        let status = answer.status.as_u16();
        assert!(status < 500, "{method} {filled} {body}: {shown}");
        assert!(!shown.contains(MARK), "{method} {filled} {body} shows what is another tenant's: {shown}");
        // What the request itself has named may be named in the answer, and ids that callers choose are the same for both.
        let is_known = |id: &str| filled.contains(id) || body.contains(id) || own.iter().any(|(_, own)| own == id);
        let leaked = |id: &str| shown.contains(id) && !is_known(id);
        if let Some((name, id)) = theirs.iter().find(|(_, id)| leaked(id)) {
            panic!("{method} {filled} {body} shows another tenant's {name} {id}: {shown}");
        }
        answered += usize::from(status < 300);
    }
    assert!(answered > attempts / 50, "{answered} of {attempts} were well enough formed to be answered");
    assert_eq!((books(&mut operator).await, count().await), before, "{kind:?}: nothing of the tenant was changed");
    println!("{kind:?}: {attempts} attempts, {answered} of them answered with what is the stranger's own");
    server.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_generated_requests_reach_nothing_of_another_tenant() {
    let asked = std::env::var("SCRIP_TENANCY_ATTEMPTS").ok();
    let attempts = asked.map_or(ATTEMPTS, |text| text.parse().expect("SCRIP_TENANCY_ATTEMPTS is a number"));
    for kind in KINDS {
        check_generated(kind, attempts).await;
    }
}
