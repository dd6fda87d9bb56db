//! A request sent again with its idempotency key has one effect and gets the first answer, byte for byte.

use serde_json::{Value, json};

use super::{Answer, Client, JSON, PLATFORM_KEY, Server, start, template, text};
use crate::harness::{Fixture, KINDS, Kind};

/// Sends the request twice under one key, and another one under the same key.
async fn twice(client: &mut Client, path: &str, body: Value) -> Answer {
    let key = format!("key-of-{path}-{body}").chars().filter(char::is_ascii_alphanumeric).take(100).collect::<String>();
    let headers = [JSON, ("idempotency-key", key.as_str())];
    let first = client.send("POST", path, &headers, body.to_string()).await;
    assert!(first.status.is_success(), "{path}: {}", String::from_utf8_lossy(&first.body));
    assert_eq!(first.header("idempotency-replayed"), None, "{path}");
    let again = client.send("POST", path, &headers, body.to_string()).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "{path}");
    assert_eq!(first.status, again.status, "{path}");
    if ["/api-keys", "/webhooks", "/rotate"].iter().any(|end| path.ends_with(end)) {
        assert_eq!(again.value()["secret"], Value::Null, "a secret is shown once");
    } else {
        assert_eq!(first.body, again.body, "{path}");
    }
    let mut other = body;
    other["effective_at"] = json!("2020-01-01T00:00:00Z");
    let other = client.send("POST", path, &headers, other.to_string()).await;
    // A request that cannot be read is refused before its key is looked at.
    assert!([400, 422].contains(&other.status.as_u16()), "{path}: {}", String::from_utf8_lossy(&other.body));
    first
}

async fn check(kind: Kind) {
    let (fixture, server) = start(kind).await;
    let shop = server.shop().await;
    let mut platform = server.client(PLATFORM_KEY).await;
    twice(&mut platform, "/v1/tenants", json!({ "name": "Other" })).await;
    let keys = format!("/v1/tenants/{}/api-keys", shop.id);
    twice(&mut platform, &keys, json!({ "name": "k", "scope": "SERVICE" })).await;

    let mut client = server.client(&shop.operator).await;
    twice(&mut client, "/v1/programs", json!({ "code": "MILES", "name": "Miles" })).await;
    let mut asked = template();
    asked["total_stock"] = json!(5);
    let made = twice(&mut client, "/v1/coupon-templates", asked).await.json(201);
    let path = format!("/v1/coupon-templates/{}", text(&made, "id"));
    for step in ["disable", "enable"] {
        twice(&mut client, &format!("{path}/{step}"), json!({})).await;
    }
    twice(&mut client, &format!("{path}/stock"), json!({ "change": 2 })).await;
    let claims = format!("{path}/claims");
    let claimed = twice(&mut client, &claims, json!({ "member_id": "m-1" })).await.json(201);
    let coupon = format!("/v1/coupons/{}", text(&claimed, "id"));
    for step in ["lock", "unlock"] {
        twice(&mut client, &format!("{coupon}/{step}"), json!({ "order_id": "o-1" })).await;
    }
    client.post(&format!("{coupon}/lock"), json!({ "order_id": "o-2" })).await.json(200);
    for step in ["use", "return"] {
        twice(&mut client, &format!("{coupon}/{step}"), json!({ "order_id": "o-2" })).await;
    }
    twice(&mut client, &format!("{coupon}/revoke"), json!({ "reason": "test" })).await;

    let points = "/v1/members/m-1/points";
    let granted = twice(&mut client, &format!("{points}/grants"), json!({ "points": 100 })).await.json(201);
    twice(&mut client, &format!("{points}/debits"), json!({ "points": 10 })).await;
    let held = twice(&mut client, &format!("{points}/holds"), json!({ "points": 20 })).await.json(201);
    twice(&mut client, &format!("/v1/points-holds/{}/capture", text(&held, "id")), json!({ "points": 5 })).await;
    let held = client.post(&format!("{points}/holds"), json!({ "points": 20 })).await.json(201);
    twice(&mut client, &format!("/v1/points-holds/{}/release", text(&held, "id")), json!({})).await;
    let reversals = format!("/v1/points-transactions/{}/reversals", text(&granted, "id"));
    twice(&mut client, &reversals, json!({ "points": 1 })).await;
    twice(&mut client, "/v1/expirations", json!({ "limit": 10 })).await;
    let many = json!({ "member_ids": ["d-1", "d-2", "d-1"], "member_levels": { "d-1": "GOLD" } });
    let given = twice(&mut client, &format!("{path}/distributions"), many).await;
    assert_eq!(given.status, 202);
    let given = format!("/v1/distributions/{}", text(&given.value(), "id"));
    twice(&mut client, &format!("{given}/cancel"), json!({})).await;
    files(&mut client, &path).await;
    let job = twice(&mut client, "/v1/members/m-2/points/grants", json!({ "points": 9, "mode": "async" })).await;
    assert_eq!(job.status, 202);
    let job = format!("/v1/jobs/{}", text(&job.value(), "id"));
    assert_eq!(client.get(&job).await.json(200)["kind"], "POINTS_GRANT");
    for step in ["cancel", "retry"] {
        twice(&mut client, &format!("{job}/{step}"), json!({})).await;
    }
    let balance = client.get(points).await.json(200);
    assert_eq!((&balance["available"], &balance["used"]), (&json!(84), &json!(15)), "each step counted once");

    let made = twice(&mut client, "/v1/webhooks", json!({ "url": "https://shop.example/" })).await.json(201);
    let path = format!("/v1/webhooks/{}", text(&made, "id"));
    for step in ["disable", "enable", "rotate"] {
        twice(&mut client, &format!("{path}/{step}"), json!({})).await;
    }

    at_once_and_after_a_restart(&fixture, server, &shop.operator).await;
}

/// A file sent again with its key is read, compared and answered as the first time.
async fn files(client: &mut Client, template: &str) {
    let ndjson = ("content-type", "application/x-ndjson");
    let rows = "{\"member_id\":\"f-1\",\"points\":3}\n";
    for (path, row) in
        [("/v1/points-grants", rows), (&format!("{template}/distributions"), "{\"member_id\":\"f-1\"}\n")]
    {
        let key = ("idempotency-key", if path.len() > 20 { "file-1" } else { "file-2" });
        let first = client.send("POST", path, &[ndjson, key], row).await;
        assert_eq!(first.status, 202, "{}", String::from_utf8_lossy(&first.body));
        let place = first.header("location").expect("a place").to_owned();
        assert!(place.ends_with(text(&first.value(), "id")), "{place}");
        let again = client.send("POST", path, &[ndjson, key], row).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (first.status, Some("true")));
        assert_eq!(again.body, first.body);
        let other = client.send("POST", path, &[ndjson, key], row.replace("f-1", "f-2")).await;
        assert_eq!(other.status, 422);
        assert_eq!(client.get(&place).await.json(200)["rows"], 1);
    }
}

async fn at_once_and_after_a_restart(fixture: &Fixture, server: Server, key: &str) {
    let path = "/v1/members/twin/points/grants";
    let headers = [JSON, ("idempotency-key", "once")];
    let mut sending = Vec::new();
    for _ in 0..20 {
        let mut client = server.client(key).await;
        sending.push(tokio::spawn(async move { client.send("POST", path, &headers, r#"{"points":7}"#).await.body }));
    }
    let mut bodies = Vec::new();
    for sent in sending {
        bodies.push(sent.await.expect("an answer"));
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "everybody gets the first answer");
    server.stop().await;
    let another = Server::on(&fixture.url).await;
    let mut client = another.client(key).await;
    let again = client.send("POST", path, &headers, r#"{"points":7}"#).await;
    assert_eq!((&again.body, again.header("idempotency-replayed")), (&bodies[0], Some("true")));
    let line = json!({ "op": "grant", "member_id": "lines", "points": 3, "idempotency_key": "l" });
    let lines = [("content-type", "application/x-ndjson")];
    let first = client.send("POST", "/v1/batch", &lines, format!("{line}\n{line}\n")).await;
    let answers: Vec<Value> =
        first.body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!((answers.len(), &answers[1]["replayed"]), (2, &json!(true)));
    assert_eq!(answers[0]["body"], answers[1]["body"]);
    assert_eq!(client.get("/v1/members/lines/points").await.json(200)["available"], 3);
    assert_eq!(client.get("/v1/members/twin/points").await.json(200)["available"], 7);
    another.assert_sound().await;
}

/// peers 5.1: retries that a client may make without asking (voucherify-ruby#49).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_post_may_be_sent_again() {
    for kind in KINDS {
        check(kind).await;
    }
}
