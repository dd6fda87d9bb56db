//! What users of other systems complain about, and the figures a system like this was once accepted by, each as a test that names
//! it; those that belong to a subject stand with it (codes, orders, quotes, operations).

use scrip_server::store::StoreUrl;
use serde_json::{Value, json};

use super::{Client, Server, Shop, spread, start, template, text};
use crate::harness::{Fixture, KINDS};

async fn new_template(client: &mut Client, change: Value) -> String {
    let mut body = template();
    for (name, value) in change.as_object().expect("an object") {
        body[name] = value.clone();
    }
    text(&client.post("/v1/coupon-templates", body).await.json(201), "id").to_owned()
}

fn claims(template: &str, members: impl Iterator<Item = String>) -> Vec<(String, Value)> {
    let path = format!("/v1/coupon-templates/{template}/claims");
    members.map(|member| (path.clone(), json!({ "member_id": member }))).collect()
}

/// How many of the requests, sent over 64 connections, were answered 201 and how many 422.
async fn sent(server: &Server, shop: &Shop, requests: Vec<(String, Value)>) -> (usize, usize) {
    let statuses = spread(server, &shop.service, 64, requests).await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!(count(201) + count(422), statuses.len(), "nothing but yes and no: {statuses:?}");
    (count(201), count(422))
}

/// litemall#581: a total of one, 64 claims at once, nine rows. Here one gets it and 63 hear why not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_coupon_goes_to_one_of_sixty_four() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut operator = server.client(&shop.operator).await;
        let only = new_template(&mut operator, json!({ "total_stock": 1 })).await;
        assert_eq!(sent(&server, &shop, claims(&only, (0..64).map(|n| format!("m-{n}")))).await, (1, 63), "{kind:?}");
        let path = format!("/v1/coupon-templates/{only}/claims");
        let refused = operator.post(&path, json!({ "member_id": "late" })).await;
        assert_eq!(refused.json(422)["code"], "COUPON_SOLD_OUT", "{kind:?}");
        server.assert_sound().await;
    }
}

/// woocommerce#13505, vendure PR 4660, shopware#13552, nopCommerce#6487, POSNext#198, medusa PR 13760, maho PR 1378: a limit overrun
/// by requests at once. Every limit at once, each with more claims than it lets through: stock, budget and daily cap of the
/// template, the member's, and what two codes allow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_limit_is_overrun_when_all_of_them_bind_at_once() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let keys = tempfile::tempdir().expect("a folder");
        let file = keys.path().join("codes.key");
        scrip_server::codes::key::CodeKeys::add_to(&file).expect("a key");
        let server = Server::with(&fixture.url, |settings| settings.codes.key_file = file.display().to_string()).await;
        let shop = server.shop().await;
        let mut operator = server.client(&shop.operator).await;
        // The amount is 500, so the budget is good for 33 coupons.
        for (limits, most) in [
            (json!({ "total_stock": 30, "budget": 16_500, "daily_cap": 35 }), 30),
            (json!({ "total_stock": 40, "budget": 16_500, "daily_cap": 35 }), 33),
            (json!({ "total_stock": 40, "budget": 20_000, "daily_cap": 29 }), 29),
        ] {
            let mut change = limits.clone();
            change["limit_per_member"] = json!(2);
            let capped = new_template(&mut operator, change).await;
            let code = format!("WAY-{most}");
            let asked = json!({ "kind": "SHARED", "code": code, "max_uses": 8 });
            operator.post(&format!("/v1/coupon-templates/{capped}/codes"), asked).await.json(202);
            // 20 members, each of whom asks seven times, by two ways: 40 claims would be within the members' limits.
            let mut requests = claims(&capped, (0..100).map(|n| format!("m-{}", n % 20)));
            let by_code =
                |n: usize| (format!("/v1/codes/{code}/claims"), json!({ "member_id": format!("m-{}", n % 20) }));
            for n in 0..40 {
                requests.insert(n * 3, by_code(n));
            }
            let (granted, _) = sent(&server, &shop, requests).await;
            assert_eq!(granted, most, "{kind:?}: {limits}");
            let shown = operator.get(&format!("/v1/coupon-templates/{capped}")).await.json(200);
            assert_eq!(shown["claimed_count"], most, "{kind:?}");
            for n in 0..20 {
                let path = format!("/v1/members/m-{n}/coupons?template_id={capped}");
                let own = operator.get(&path).await.json(200)["data"].as_array().map_or(0, Vec::len);
                assert!(own <= 2, "{kind:?}: m-{n} has {own}");
            }
        }
        server.assert_sound().await;
    }
}

/// Origin: 1,000 members on a stock of 500 get 500 coupons, one each; 1,000 debits of 1 from 1,000 points all succeed; of 1,000
/// debits of 10 from 5,000 points 500 do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_origins_figures_hold_over_http() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut operator = server.client(&shop.operator).await;
        let scarce = new_template(&mut operator, json!({ "total_stock": 500 })).await;
        let crowd = claims(&scarce, (0..1_000).map(|n| format!("m-{n}")));
        assert_eq!(sent(&server, &shop, crowd).await, (500, 500), "{kind:?}");
        let shown = operator.get(&format!("/v1/coupon-templates/{scarce}")).await.json(200);
        assert_eq!((&shown["remaining_stock"], &shown["claimed_count"]), (&json!(0), &json!(500)), "{kind:?}");
        for (member, granted, points, done) in [("ones", 1_000, 1, 1_000), ("tens", 5_000, 10, 500)] {
            let path = format!("/v1/members/{member}/points");
            operator.post(&format!("{path}/grants"), json!({ "points": granted })).await.json(201);
            let debits = (0..1_000).map(|_| (format!("{path}/debits"), json!({ "points": points }))).collect();
            assert_eq!(sent(&server, &shop, debits).await, (done, 1_000 - done), "{kind:?}");
            let balance = operator.get(&path).await.json(200);
            assert_eq!((&balance["available"], &balance["used"]), (&json!(0), &json!(granted)), "{kind:?}");
        }
        server.assert_sound().await;
    }
}

/// magento2#776, #12984, woocommerce#22564, shopper PR 588: a limit for each customer that guests slip through. Whoever claims has a
/// name, and the limit counts for that name, however it is written in the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_claims_without_a_name() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut operator = server.client(&shop.operator).await;
        let one_each = new_template(&mut operator, json!({})).await;
        let path = format!("/v1/coupon-templates/{one_each}/claims");
        for guest in [json!({}), json!({ "member_id": null }), json!({ "member_id": "" }), json!({ "member_id": " " })]
        {
            let refused = operator.post(&path, guest.clone()).await.json(400);
            assert_eq!(refused["errors"][0]["field"], "member_id", "{kind:?}: {guest}");
        }
        operator.post(&path, json!({ "member_id": "m-1" })).await.json(201);
        let again = operator.post(&path, json!({ "member_id": "m-1" })).await.json(422);
        assert_eq!(again["code"], "COUPON_LIMIT_REACHED", "{kind:?}");
        server.assert_sound().await;
    }
}

/// formance stack#1633: the same key twice in one bulk brought the server down; voucherify-ruby#49: retries that are not safe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_twice_in_one_batch_is_one_effect() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut operator = server.client(&shop.operator).await;
        let many = new_template(&mut operator, json!({ "limit_per_member": 5 })).await;
        let claim = |member: &str, key: &str| json!({ "op": "claim", "template_id": many, "member_id": member, "idempotency_key": key });
        let lines = [claim("m-1", "k"), claim("m-1", "k"), claim("m-2", "k"), claim("m-1", "other"), claim("m-1", "k")];
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let answer = operator.send("POST", "/v1/batch", &[("content-type", "application/x-ndjson")], body).await;
        let answers: Vec<Value> = String::from_utf8_lossy(&answer.body)
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect();
        let statuses: Vec<&Value> = answers.iter().map(|answer| &answer["status"]).collect();
        assert_eq!(statuses, [201, 201, 422, 201, 201], "{kind:?}: {answers:?}");
        assert_eq!(answers[2]["error"]["code"], "IDEMPOTENCY_KEY_REUSED", "{kind:?}");
        for repeated in [1, 4] {
            assert_eq!(
                (&answers[repeated]["replayed"], &answers[repeated]["body"]),
                (&json!(true), &answers[0]["body"])
            );
        }
        let coupons = operator.get("/v1/members/m-1/coupons").await.json(200);
        assert_eq!(coupons["data"].as_array().map(Vec::len), Some(2), "{kind:?}");
        server.assert_sound().await;
    }
}

/// vendure PR 4419, woocommerce#11357, NumberSearch#291: the same code by other letters, spaces or dashes is the same code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_the_same_however_it_is_typed() {
    let (fixture, server) = start(KINDS[0]).await;
    assert!(matches!(fixture.url, StoreUrl::Sqlite(_)), "its keys stand beside the file");
    let shop = server.shop().await;
    let mut operator = server.client(&shop.operator).await;
    let many = new_template(&mut operator, json!({})).await;
    let codes = format!("/v1/coupon-templates/{many}/codes");
    operator.post(&codes, json!({ "kind": "SHARED", "code": "Back 2 School" })).await.json(202);
    for (member, typed) in
        ["BACK2SCHOOL", "back-2-school", "b%20ack2scho%20ol", "BACK2SCH00L", "bacK_2.sch0ol"].into_iter().enumerate()
    {
        let claim = json!({ "member_id": format!("m-{member}") });
        let claimed = operator.post(&format!("/v1/codes/{typed}/claims"), claim).await;
        assert_eq!(claimed.status, 201, "{typed}: {}", String::from_utf8_lossy(&claimed.body));
    }
    let taken = operator.post(&codes, json!({ "kind": "SHARED", "code": "back-2-SCHOOL" })).await.json(409);
    assert_eq!(taken["code"], "COUPON_CODE_TAKEN");
    server.assert_sound().await;
}
