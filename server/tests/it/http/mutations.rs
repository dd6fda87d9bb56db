//! Requests spoilt at random are answered, never with a fault of the server, and change nothing by halves.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{Client, start, template, text};
use crate::harness::{KINDS, Kind};

const REQUESTS: usize = 1_500;

/// Well-formed requests of every kind, over real objects.
async fn requests(client: &mut Client) -> Vec<(&'static str, String, Value)> {
    let made = client.post("/v1/coupon-templates", template()).await.json(201);
    let path = format!("/v1/coupon-templates/{}", text(&made, "id"));
    let coupon = client.post(&format!("{path}/claims"), json!({ "member_id": "m-1" })).await.json(201);
    let coupon = format!("/v1/coupons/{}", text(&coupon, "id"));
    let grant = client.post("/v1/members/m-1/points/grants", json!({ "points": 1_000_000 })).await.json(201);
    let hold = client.post("/v1/members/m-1/points/holds", json!({ "points": 10 })).await.json(201);
    let hold = format!("/v1/points-holds/{}", text(&hold, "id"));
    let goods = json!({ "item_id": "i", "product_id": "p", "unit_price": 999, "quantity": 3 });
    let order = json!({ "order_id": "own-order", "member_id": "m-1", "lines": [goods], "freight": 9 });
    client.post("/v1/orders", order).await.json(201);
    client.post("/v1/orders/own-order/pay", json!({})).await.json(200);
    let mut full = template();
    full["scope"] = json!({ "products": ["p"], "categories": ["c"] });
    full["metadata"] = json!({ "a": [1, { "b": null }] });
    full["benefit"] = json!({ "type": "TIERED", "steps": [{ "min_amount": 1, "percent_off": 12.5 }], "max_amount": 9 });
    full["usable_hours"] = json!([{ "weekdays": ["MONDAY"], "from": "09:00", "to": "24:00" }]);
    full["excluded_dates"] = json!(["2026-12-24"]);
    full["condition"] = json!("order.amount > 100 && order.lines.exists(l, l.quantity in [1, 2])");
    let line = json!({ "item_id": "i", "product_id": "p", "sku_id": "s", "category_ids": ["c"], "unit_price": 999,
        "quantity": 3, "points_ratio": 50 });
    full["validity"] =
        json!({ "type": "FIXED", "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2036-01-01T00:00:00Z" });
    let webhook = client.post("/v1/webhooks", json!({ "url": "https://shop.example/" })).await.json(201);
    let webhook = format!("/v1/webhooks/{}", text(&webhook, "id"));
    let id = coupon.rsplit('/').next().unwrap_or_default().to_owned();
    vec![
        (
            "POST",
            "/v1/webhooks".into(),
            json!({ "url": "https://shop.example/", "types": ["coupon.claimed"], "description": "d", "after": "0--1" }),
        ),
        ("PATCH", webhook.clone(), json!({ "url": "https://shop.example/", "types": [], "description": "d" })),
        ("POST", format!("{webhook}/rotate"), json!({ "overlap_seconds": 60 })),
        ("POST", format!("{webhook}/replay"), json!({ "after": "0--1" })),
        ("POST", format!("{webhook}/resend"), json!({ "position": "0-0" })),
        ("POST", format!("{webhook}/disable"), json!({})),
        ("POST", "/v1/coupon-templates".into(), full),
        (
            "POST",
            "/v1/quotes".into(),
            json!({ "order_id": "o-1", "member_id": "m-1", "member_level": "gold", "lines": [line], "freight": 5,
                "coupon_ids": [id], "points": 100, "best": true, "attributes": { "a": 1, "b": "x", "c": true },
                "member_attributes": { "age": 5 }, "as_of": "2030-01-01T00:00:00Z" }),
        ),
        (
            "POST",
            "/v1/orders".into(),
            json!({ "order_id": "o-2", "member_id": "m-1", "lines": [goods], "freight": 5, "coupon_ids": [id],
                "points": 100, "expires_at": "2036-01-01T00:00:00Z", "attributes": { "a": 1 } }),
        ),
        ("POST", "/v1/orders/own-order/pay".into(), json!({ "effective_at": "2026-01-01T00:00:00Z" })),
        ("POST", "/v1/orders/own-order/cancel".into(), json!({ "reason": "r" })),
        (
            "POST",
            "/v1/orders/own-order/refunds".into(),
            json!({ "refund_id": "r", "lines": [{ "item_id": "i", "quantity": 1 }], "freight": 1,
                "return_coupons": true, "remark": "k" }),
        ),
        (
            "POST",
            format!("/v1/coupon-compensations/cmp_{}/close", "0".repeat(32)),
            json!({ "status": "RESOLVED", "remark": "r" }),
        ),
        ("PATCH", path.clone(), json!({ "name": "x", "metadata": { "k": 1 } })),
        ("POST", format!("{path}/stock"), json!({ "change": 5 })),
        ("POST", format!("{path}/claims"), json!({ "member_id": "m-2", "member_level": "gold" })),
        ("POST", format!("{path}/exchanges"), json!({ "member_id": "m-2", "member_level": "gold" })),
        ("POST", format!("{coupon}/lock"), json!({ "order_id": "o-1", "expires_at": "2036-01-01T00:00:00Z" })),
        ("POST", format!("{coupon}/use"), json!({ "order_id": "o-1", "discount_amount": 5 })),
        ("POST", format!("{coupon}/unlock"), json!({ "order_id": "o-1" })),
        ("POST", format!("{coupon}/return"), json!({ "order_id": "o-1" })),
        ("POST", format!("{coupon}/transfer"), json!({ "to_member_id": "m-3", "reason": "why" })),
        ("POST", format!("{coupon}/extend"), json!({ "valid_until": "2037-01-01T00:00:00Z" })),
        ("POST", format!("{coupon}/revoke"), json!({ "reason": "why" })),
        ("POST", format!("{path}/clone"), json!({ "name": "x", "total_stock": 5 })),
        ("POST", format!("{path}/codes"), json!({ "kind": "SHARED", "code": "SUMMER", "max_uses": 5, "name": "n" })),
        (
            "POST",
            format!("{path}/codes"),
            json!({ "count": 2, "prefix": "A", "length": 20, "alphabet": "ABCDEFGHJK", "check_character": true }),
        ),
        ("POST", "/v1/codes/SUMMER/claims".into(), json!({ "member_id": "m-4", "member_level": "gold" })),
        (
            "POST",
            "/v1/members/m-1/points/grants".into(),
            json!({ "points": 5, "type": "EARN_ORDER", "reference": "r",
            "remark": "k", "expires_at": "2036-01-01T00:00:00Z", "effective_at": "2026-01-01T00:00:00Z" }),
        ),
        ("POST", "/v1/members/m-1/points/debits".into(), json!({ "points": 5, "type": "USE_ORDER", "reference": "r" })),
        ("POST", "/v1/members/m-1/points/holds".into(), json!({ "points": 5, "expires_at": "2036-01-01T00:00:00Z" })),
        ("POST", format!("{hold}/capture"), json!({ "points": 5 })),
        ("POST", format!("{hold}/release"), json!({})),
        (
            "POST",
            format!("/v1/points-transactions/{}/reversals", text(&grant, "id")),
            json!({ "points": 1, "remark": "r" }),
        ),
        (
            "PUT",
            "/v1/points-rules".into(),
            json!({ "enabled": true, "earn": { "ratio": 1, "base": 100, "delay_days": 3, "max_points_per_day": 9, "max_points_per_month": 90 },
                "redeem": { "ratio": 1, "base": 1, "max_points_per_order": 100, "max_percent": 50 },
                "validity": { "type": "END_OF_MONTH", "after_months": 1 },
                "check_in": { "points": 1, "streak_bonuses": [{ "days": 2, "points": 1 }], "make_up_days": 3,
                    "make_up_price": 1, "make_ups_per_month": 2 },
                "campaigns": [{ "name": "n", "starts_at": "2026-01-01T00:00:00Z", "categories": ["c"], "percent": 200 }],
                "orders": { "max_coupons_per_order": 3 }, "effective_from": "2036-01-01T00:00:00Z" }),
        ),
        (
            "POST",
            "/v1/members/m-1/points/grants".into(),
            json!({ "points": 5, "available_from": "2036-01-01T00:00:00Z", "expires_in_days": 3 }),
        ),
        (
            "POST",
            "/v1/members/m-1/points/transfers".into(),
            json!({ "to_member_id": "m-2", "points": 5, "reference": "r", "remark": "k" }),
        ),
        ("POST", "/v1/members/m-9/points/merges".into(), json!({ "into_member_id": "m-2", "remark": "k" })),
        ("POST", "/v1/members/m-1/points/adjustments".into(), json!({ "points": -5, "reason": "r", "reference": "f" })),
        ("POST", format!("/v1/points-adjustments/adj_{}/approve", "0".repeat(32)), json!({})),
        ("POST", format!("/v1/points-adjustments/adj_{}/reject", "0".repeat(32)), json!({ "reason": "r" })),
        ("POST", "/v1/members/m-1/check-ins".into(), json!({ "effective_at": "2026-01-01T00:00:00Z" })),
        ("POST", "/v1/members/m-1/check-ins".into(), json!({ "day": "2026-01-01" })),
        (
            "POST",
            "/v1/points-tasks".into(),
            json!({ "key": "share", "name": "n", "description": "d", "points": 5, "period": "WEEK",
            "limit_per_period": 2, "total_limit": 9, "target": 2, "event_type": "coupon.used",
            "window": { "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2036-01-01T00:00:00Z" } }),
        ),
        (
            "POST",
            "/v1/points-tasks".into(),
            json!({ "key": "praise", "name": "n", "points": 5, "requires": ["share"] }),
        ),
        ("PATCH", "/v1/points-tasks/share".into(), json!({ "points": 6, "enabled": true })),
        ("POST", "/v1/members/m-1/tasks/share/completions".into(), json!({ "completion_id": "c-1" })),
        ("POST", "/v1/expirations".into(), json!({ "limit": 10 })),
        ("POST", "/v1/batch".into(), json!({ "op": "grant", "member_id": "m-1", "points": 5, "idempotency_key": "k" })),
    ]
}

fn odd_value(random: &mut StdRng) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!(1e300),
        json!(""),
        json!("x".repeat(5_000)),
        json!("\u{0}"),
        json!("'; DROP TABLE event; --"),
        json!("\u{202e}\u{1f4a9}ü"),
        json!("9999-12-31T23:59:60Z"),
        json!("-0001-01-01T00:00:00Z"),
        json!([]),
        json!([[[[[[[[]]]]]]]]),
        json!({}),
        json!({ "type": {} }),
    ];
    values[random.random_range(0..values.len())].clone()
}

/// Replaces, adds or removes something somewhere in the value.
fn spoil(random: &mut StdRng, value: &mut Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() && random.random_bool(0.9) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = &names[random.random_range(0..names.len())];
            match random.random_range(0..6) {
                0 => drop(fields.remove(name)),
                1 => drop(fields.insert(format!("{name}x"), json!(1))),
                2 | 3 => spoil(random, &mut fields[name]),
                _ => drop(fields.insert(name.clone(), odd_value(random))),
            }
        }
        other => *other = odd_value(random),
    }
}

/// The body as sent: mostly what the value says, sometimes no JSON any more.
fn bytes(random: &mut StdRng, value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    match random.random_range(0..12) {
        0 => bytes.truncate(random.random_range(0..=bytes.len())),
        1 => bytes = (0..random.random_range(0..200)).map(|_| random.random()).collect(),
        2 => bytes = [bytes.clone(), bytes].concat(),
        3 => bytes = "[".repeat(random.random_range(1..20_000)).into_bytes(),
        _ => {}
    }
    bytes
}

async fn check(kind: Kind) {
    let (_fixture, server) = start(kind).await;
    let shop = server.shop().await;
    let mut client = server.client(&shop.operator).await;
    let requests = requests(&mut client).await;
    let mut random = StdRng::seed_from_u64(20_261_124);
    let mut refused = 0;
    for number in 0..REQUESTS {
        let (method, path, body) = &requests[number % requests.len()];
        let mut body = body.clone();
        for _ in 0..random.random_range(1..4) {
            spoil(&mut random, &mut body);
        }
        let bytes = bytes(&mut random, &body);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        let mut path = path.clone();
        if random.random_bool(0.1) {
            path.push_str(["/%00", "?limit=%FF", "/../..", "?cursor=-1", "/x"][random.random_range(0..5)]);
        }
        let kind_of_body = if path.starts_with("/v1/batch") { "application/x-ndjson" } else { "application/json" };
        let headers = [("content-type", kind_of_body), ("if-match", "\"1\"")];
        let answer = client.send(method, &path, &headers, bytes).await;
        let status = answer.status.as_u16();
        assert!(status < 500, "{kind:?} {method} {path} {shown}: {}", String::from_utf8_lossy(&answer.body));
        if status >= 400 {
            refused += 1;
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {path} {shown}");
            let problem = answer.value();
            assert!(!text(&problem, "code").is_empty() && !text(&problem, "request_id").is_empty());
        }
    }
    assert!(refused > REQUESTS / 2, "{refused} of {REQUESTS} were refused: the spoiling works");
    assert_eq!(client.get("/readyz").await.status, 200);
    server.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoilt_requests_are_no_fault_of_the_server() {
    for kind in KINDS {
        check(kind).await;
    }
}
