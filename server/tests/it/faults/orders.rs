//! Many orders at once over few coupons and accounts, while the server is killed again and again: every sequence comes to its
//! end, and when all is given back, all is as it was.

use std::time::{Duration, Instant};

use scrip_server::bench::Target;
use scrip_server::bench::server::ServerProcess;
use scrip_server::verify::verify;
use serde_json::{Value, json};

use super::load::{Client, NoAnswer, PATIENCE, PAUSE, fixed_address, scrip, serve};
use crate::harness::{Fixture, KINDS};

const CLIENTS: usize = 64;
const SEQUENCES: usize = 4;
const MEMBERS: usize = 8;
const COUPONS: usize = 3;
const POINTS: i64 = 10_000;
const KILLS: usize = 3;

/// What became of a client's sequences.
#[derive(Debug, Default)]
struct Ended {
    cancelled: usize,
    refunded: usize,
    /// The coupon belonged to another order just then.
    refused: usize,
}

/// Repeats a request until it is answered by more than 503.
async fn answered(client: &mut Client, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        match client.post(path, key, body).await {
            Ok((503, _)) | Err(NoAnswer::Refused | NoAnswer::Broken(_)) => {}
            Ok(answer) => return answer,
        }
        assert!(Instant::now() < give_up_at, "waited {PATIENCE:?} in vain: {path}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn accepted(client: &mut Client, path: &str, key: &str, body: &Value) -> Value {
    let (status, answer) = answered(client, path, key, body).await;
    assert!(status == 200 || status == 201, "{path} {body}: {status} {answer}");
    answer
}

/// Reserves, and then cancels, or pays and refunds at once or in two parts.
async fn shop(target: Target, number: usize, coupons: Vec<String>) -> Ended {
    let mut client = Client::new(std::slice::from_ref(&target));
    let mut ended = Ended::default();
    for sequence in 0..SEQUENCES {
        let order_id = format!("o-{number}-{sequence}");
        let key = |step: &str| format!("{step}-{order_id}");
        let lines = json!([{ "item_id": "i", "product_id": "p", "unit_price": 5_000, "quantity": 2 }]);
        let order = json!({ "order_id": order_id, "member_id": format!("m-{}", number % MEMBERS), "lines": lines,
                            "coupon_ids": [coupons[(number / MEMBERS + sequence) % COUPONS]], "points": 100 });
        let (status, answer) = answered(&mut client, "/v1/orders", &key("reserve"), &order).await;
        if status != 201 {
            let belongs_to_another = answer["code"] == "COUPON_LOCKED" || answer["code"] == "COUPON_USED";
            assert!(status == 409 && belongs_to_another, "{status} {answer}");
            ended.refused += 1;
            continue;
        }
        let at = |step: &str| format!("/v1/orders/{order_id}/{step}");
        if sequence % 3 == 0 {
            accepted(&mut client, &at("cancel"), &key("cancel"), &json!({})).await;
            ended.cancelled += 1;
            continue;
        }
        accepted(&mut client, &at("pay"), &key("pay"), &json!({})).await;
        let one = json!({ "refund_id": "one", "lines": [{ "item_id": "i", "quantity": 1 }] });
        let rest = json!({ "refund_id": "rest", "full": true });
        for refund in [one, rest].iter().skip(sequence % 2) {
            let name = refund["refund_id"].as_str().expect("an id");
            accepted(&mut client, &at("refunds"), &key(name), refund).await;
        }
        ended.refunded += 1;
    }
    ended
}

/// Members with points and coupons; the coupons of each.
async fn stock(target: &Target) -> Vec<Vec<String>> {
    let mut client = Client::new(std::slice::from_ref(target));
    let template = json!({ "name": "t", "benefit": { "type": "AMOUNT_OFF", "amount": 1_000 },
                           "validity": { "type": "RELATIVE", "days": 30 }, "limit_per_member": COUPONS });
    let template = accepted(&mut client, "/v1/coupon-templates", "template", &template).await;
    let claims = format!("/v1/coupon-templates/{}/claims", template["id"].as_str().expect("an id"));
    let mut coupons = vec![Vec::new(); MEMBERS];
    for (number, own) in coupons.iter_mut().enumerate() {
        let grants = format!("/v1/members/m-{number}/points/grants");
        accepted(&mut client, &grants, &format!("points-{number}"), &json!({ "points": POINTS })).await;
        for coupon in 0..COUPONS {
            let claim = json!({ "member_id": format!("m-{number}") });
            let claimed = accepted(&mut client, &claims, &format!("coupon-{number}-{coupon}"), &claim).await;
            own.push(claimed["id"].as_str().expect("an id").to_owned());
        }
    }
    coupons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_at_once_over_shared_coupons_survive_crashes_and_leave_all_as_it_was() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let address = fixed_address();
        let arguments = serve(&fixture.url);
        let start = || ServerProcess::start_at(address, scrip().into(), &arguments);
        let mut server = start().await.expect("the server starts");
        let target = server.target("orders").await.expect("a tenant");
        let coupons = stock(&target).await;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| tokio::spawn(shop(target.clone(), number, coupons[number % MEMBERS].clone())))
            .collect();
        for _ in 0..KILLS {
            // Not for synchronisation: the moment of the kill is meant to be arbitrary.
            tokio::time::sleep(Duration::from_millis(rand::random_range(20..150))).await;
            drop(server);
            server = start().await.expect("the server starts again");
        }
        let mut all = Ended::default();
        for client in clients {
            let ended = client.await.expect("the client ends");
            all.cancelled += ended.cancelled;
            all.refunded += ended.refunded;
            all.refused += ended.refused;
        }
        assert_eq!(all.cancelled + all.refunded + all.refused, CLIENTS * SEQUENCES, "{kind:?}");
        assert!(all.cancelled > 0 && all.refunded > 0 && all.refused > 0, "{kind:?}: they meet: {all:?}");

        let mut client = Client::new(std::slice::from_ref(&target));
        for (number, own) in coupons.iter().enumerate() {
            let (_, balance) = client.get(&format!("/v1/members/m-{number}/points")).await.expect("a balance");
            let columns = ["available", "frozen", "used", "debt"].map(|column| balance[column].as_i64());
            assert_eq!(columns, [Some(POINTS), Some(0), Some(0), Some(0)], "{kind:?}: {balance}");
            for id in own {
                let (_, coupon) = client.get(&format!("/v1/coupons/{id}")).await.expect("a coupon");
                assert_eq!(coupon["status"], "AVAILABLE", "{kind:?}: {coupon}");
            }
        }
        drop(server);
        let report = verify(&fixture.store, None, |_, _, _| {}).await.expect("verify runs");
        assert!(report.is_clean(), "{kind:?}: {}", report.summary());
    }
}
