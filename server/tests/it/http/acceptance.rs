//! The promises that a shop relies on, with everybody asking at once.

use serde_json::json;

use super::{spread, start, template, text};
use crate::harness::{KINDS, Kind};

const CONNECTIONS: usize = 32;

async fn check(kind: Kind) {
    let (_fixture, server) = start(kind).await;
    let shop = server.shop().await;
    let mut operator = server.client(&shop.operator).await;

    let mut scarce = template();
    scarce["total_stock"] = json!(10);
    let scarce = operator.post("/v1/coupon-templates", scarce).await.json(201);
    let path = format!("/v1/coupon-templates/{}", text(&scarce, "id"));
    let claims = (0..100).map(|n| (format!("{path}/claims"), json!({ "member_id": format!("m-{n}") }))).collect();
    let statuses = spread(&server, &shop.service, CONNECTIONS, claims).await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(422)), (10, 90), "{kind:?}: stock of ten");
    let left = operator.get(&path).await.json(200);
    assert_eq!((&left["remaining_stock"], &left["claimed_count"]), (&json!(0), &json!(10)));
    let refused = operator.post(&format!("{path}/claims"), json!({ "member_id": "late" })).await.json(422);
    assert_eq!(refused["code"], "COUPON_SOLD_OUT");

    let mut limited = template();
    limited["limit_per_member"] = json!(3);
    let limited = operator.post("/v1/coupon-templates", limited).await.json(201);
    let path = format!("/v1/coupon-templates/{}/claims", text(&limited, "id"));
    let claims = (0..1_000).map(|_| (path.clone(), json!({ "member_id": "one" }))).collect();
    let statuses = spread(&server, &shop.service, CONNECTIONS, claims).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 3, "{kind:?}: limit of three");
    let coupons = operator.get("/v1/members/one/coupons").await.json(200);
    assert_eq!(coupons["data"].as_array().map(Vec::len), Some(3));

    operator.post("/v1/members/rich/points/grants", json!({ "points": 1_000 })).await.json(201);
    let debits = (0..1_000).map(|_| ("/v1/members/rich/points/debits".to_owned(), json!({ "points": 10 }))).collect();
    let statuses = spread(&server, &shop.service, CONNECTIONS, debits).await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(422)), (100, 900), "{kind:?}: a thousand points");
    let balance = operator.get("/v1/members/rich/points").await.json(200);
    assert_eq!((&balance["available"], &balance["used"], &balance["debt"]), (&json!(0), &json!(1_000), &json!(0)));
    server.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_oversold_and_nothing_overspent() {
    for kind in KINDS {
        check(kind).await;
    }
}
