//! Programs over HTTP: several currencies of points for the same members, under the same keys, apart in everything else.

use scrip_server::http::quota::QuotaOptions;
use serde_json::{Value, json};

use super::{Client, JSON, PLATFORM_KEY, Server, Shop, start, template, text};
use crate::harness::{Fixture, KINDS, Kind};
use crate::webhooks::{Receiver, near, until};

const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

/// Makes the program; a client of the key for it.
async fn program(server: &Server, shop: &Shop, code: &str) -> Client {
    let mut client = server.client(&shop.operator).await;
    let made = client.post("/v1/programs", json!({ "code": code, "name": format!("{code} of the shop") })).await;
    assert_eq!(text(&made.json(201), "code"), code);
    server.client(&shop.operator).await.of_program(code)
}

async fn set_rules(client: &mut Client, rules: Value) {
    let set = client.send("PUT", "/v1/points-rules", &[JSON, ("if-match", "\"0\"")], rules.to_string()).await;
    set.json(200);
}

async fn available(client: &mut Client, member: &str) -> i64 {
    let balance = client.get(&format!("/v1/members/{member}/points")).await.json(200);
    balance["available"].as_i64().expect("points")
}

async fn buy(client: &mut Client, order: &str) -> Value {
    let line = json!({ "item_id": "i", "product_id": "p", "unit_price": 10_000, "quantity": 1 });
    let order = json!({ "order_id": order, "member_id": "m-1", "lines": [line] });
    let made = client.post("/v1/orders", order).await.json(201);
    client.post(&format!("/v1/orders/{}/pay", text(&made, "order_id")), json!({})).await.json(200)
}

/// peers 6.7: several wallets per member, each with its own rules and books.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_has_a_wallet_in_each_program_and_none_touches_another() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut own = server.client(&shop.operator).await;
        let (mut miles, mut stars) = (program(&server, &shop, "MILES").await, program(&server, &shop, "STARS").await);
        set_rules(&mut miles, json!({ "earn": { "ratio": 3 }, "validity": { "type": "DAYS", "days": 10 } })).await;
        set_rules(&mut stars, json!({ "earn": { "enabled": false } })).await;
        assert_eq!(own.get("/v1/points-rules").await.json(200)["version"], 0, "{kind:?}: the tenant's are its own");

        // One order id, three orders: each earns where it was sent, by the rules there.
        for client in [&mut own, &mut miles, &mut stars] {
            buy(client, "o-1").await;
        }
        let balances =
            [available(&mut own, "m-1").await, available(&mut miles, "m-1").await, available(&mut stars, "m-1").await];
        assert_eq!(balances, [100, 300, 0], "{kind:?}");
        let lots = |page: Value| page["data"][0]["expires_at"].is_null();
        assert!(lots(own.get("/v1/members/m-1/points/lots").await.json(200)), "{kind:?}: for ever");
        assert!(!lots(miles.get("/v1/members/m-1/points/lots").await.json(200)), "{kind:?}: for ten days");

        // What was spent, is owed and is listed is told apart; a member seen in one is unknown in another.
        miles.post("/v1/members/m-1/points/debits", json!({ "points": 50 })).await.json(201);
        stars.post("/v1/members/m-2/points/grants", json!({ "points": 9 })).await.json(201);
        for (client, issued, redeemed) in [(&mut own, 100, 0), (&mut miles, 300, 50), (&mut stars, 9, 0)] {
            let told = client.get("/v1/reports/points-liability").await.json(200);
            assert_eq!((&told["issued"], &told["redeemed"]), (&json!(issued), &json!(redeemed)), "{kind:?}: {told}");
        }
        for (client, member, value) in [(&mut own, "m-1", 100), (&mut miles, "m-1", 300), (&mut stars, "m-2", 9)] {
            let board = until("the board", async || {
                let board = client.get("/v1/points/leaderboard").await.json(200);
                (board["data"].as_array().map(Vec::len) == Some(1)).then_some(board)
            });
            let board = board.await;
            assert_eq!(board["data"][0]["member_id"], member, "{kind:?}: {board}");
            assert_eq!(board["data"][0]["score"], value, "{kind:?}: {board}");
        }
        assert_eq!(available(&mut own, "m-2").await, 0, "{kind:?}");

        // The tenant's log has nothing of its programs.
        let of_program = |events: &Value| {
            let all = events["data"].as_array().expect("events").clone();
            all.into_iter().filter(|event| event["type"] == "points.debited").count()
        };
        until("the debit in the log of the program", async || {
            (of_program(&miles.get("/v1/events?limit=200").await.json(200)) == 1).then_some(())
        })
        .await;
        assert_eq!(of_program(&own.get("/v1/events?limit=200").await.json(200)), 0, "{kind:?}");
        server.assert_sound().await;
    }
}

/// The wallets are what each balance tells by itself: also where time has ended what nobody has written yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wallets_are_the_balances_at_one_instant() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let server = Server::with(&fixture.url, |settings| settings.jobs.concurrency = 0).await;
        let shop = server.shop().await;
        let mut own = server.client(&shop.operator).await;
        let mut programs = Vec::new();
        for code in ["STARS", "MILES"] {
            programs.push(program(&server, &shop, code).await);
        }
        // Another tenant's of the same name.
        let stranger = server.shop().await;
        let mut theirs = program(&server, &stranger, "MILES").await;
        theirs.post("/v1/members/m-1/points/grants", json!({ "points": 7_777 })).await.json(201);

        let soon = scrip_server::clock::now().plus_days(3);
        let soon = jiff::Timestamp::from_microsecond(soon.0).expect("a time").to_string();
        let (long_ago, ago) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let grants = "/v1/members/m-1/points/grants";
        own.post(grants, json!({ "points": 10, "expires_at": soon })).await.json(201);
        let [stars, miles] = &mut programs[..] else { unreachable!() };
        // Ten that have expired, and thirty that are held until a deadline that has passed; nobody writes either.
        let mut grant = json!({ "points": 10, "expires_at": ago, "effective_at": long_ago });
        stars.post(grants, grant.clone()).await.json(201);
        grant = json!({ "points": 30, "expires_at": soon, "effective_at": long_ago });
        stars.post(grants, grant).await.json(201);
        let hold = json!({ "points": 30, "expires_at": ago, "effective_at": long_ago });
        stars.post("/v1/members/m-1/points/holds", hold).await.json(201);
        miles.post(grants, json!({ "points": 5, "available_from": soon })).await.json(201);

        let told = own.get("/v1/members/m-1/wallets").await.json(200);
        let wallets = told["data"].as_array().expect("wallets");
        let codes: Vec<&Value> = wallets.iter().map(|wallet| &wallet["program"]).collect();
        assert_eq!(codes, [&Value::Null, &json!("MILES"), &json!("STARS")], "{kind:?}");
        for (wallet, client) in wallets.iter().zip([&mut own, miles, stars]) {
            let (mut found, mut alone) =
                (wallet["balance"].clone(), client.get("/v1/members/m-1/points").await.json(200));
            for balance in [&mut found, &mut alone] {
                balance.as_object_mut().expect("a balance").remove("as_of");
            }
            assert_eq!(found, alone, "{kind:?}: {}", wallet["program"]);
        }
        let stars = &wallets[2]["balance"];
        assert_eq!(
            (&stars["available"], &stars["frozen"], &stars["expired"]),
            (&json!(30), &json!(0), &json!(10)),
            "{kind:?}: {stars}"
        );
        assert_eq!((&wallets[2]["name"], &told["member_id"]), (&json!("STARS of the shop"), &json!("m-1")));

        // A member nobody knows has as many, all empty.
        let told = own.get("/v1/members/nobody/wallets").await.json(200);
        let totals: Vec<i64> = told["data"]
            .as_array()
            .expect("wallets")
            .iter()
            .map(|wallet| wallet["balance"]["total_points"].as_i64().expect("points"))
            .collect();
        assert_eq!(totals, [0, 0, 0], "{kind:?}");
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_are_made_once_listed_by_code_and_at_most_twenty() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let mut platform = server.client(PLATFORM_KEY).await;
        let asked = json!({ "name": "Tokyo", "currency": "JPY", "time_zone": "Asia/Tokyo", "refund_grace_days": 2 });
        let tenant = platform.post("/v1/tenants", asked).await.json(201);
        let id = text(&tenant, "id");
        let key = json!({ "name": "k", "scope": "OPERATOR" });
        let key = platform.post(&format!("/v1/tenants/{id}/api-keys"), key).await.json(201);
        let mut client = server.client(text(&key, "secret")).await;

        // A program that was just asked for in vain is there as soon as it is made.
        let mut early = server.client(text(&key, "secret")).await.of_program("P-00");
        assert_eq!(early.get("/v1/points-rules").await.json(404)["code"], "PROGRAM_NOT_FOUND", "{kind:?}");
        let headers = [JSON, ("idempotency-key", "p")];
        let body = json!({ "code": "P-00", "name": "First" }).to_string();
        let made = client.send("POST", "/v1/programs", &headers, body.clone()).await;
        let shown = made.json(201);
        assert_eq!(early.get("/v1/points-rules").await.status, 200, "{kind:?}");
        let expected = json!({ "code": "P-00", "name": "First", "currency": "JPY", "time_zone": "Asia/Tokyo",
            "refund_grace_days": 2, "id": shown["id"], "created_at": shown["created_at"] });
        assert_eq!(shown, expected, "{kind:?}");
        let again = client.send("POST", "/v1/programs", &headers, body).await;
        assert_eq!((again.status, &again.body), (made.status, &made.body), "{kind:?}");
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{kind:?}");
        let twice = client.post("/v1/programs", json!({ "code": "P-00", "name": "Second" })).await.json(409);
        assert_eq!(twice["code"], "PROGRAM_EXISTS", "{kind:?}");

        let own = json!({ "code": "P-01", "name": "n", "time_zone": "UTC", "refund_grace_days": 0 });
        let own = client.post("/v1/programs", own).await.json(201);
        assert_eq!((&own["time_zone"], &own["refund_grace_days"]), (&json!("UTC"), &json!(0)), "{kind:?}");
        // Many at once: as many as there is room for.
        let mut sending = Vec::new();
        for number in 2..22 {
            let mut client = server.client(text(&key, "secret")).await;
            let body = json!({ "code": format!("P-{number:02}"), "name": "n" });
            sending.push(tokio::spawn(async move { client.post("/v1/programs", body).await }));
        }
        let mut refused = 0;
        for sent in sending {
            let answer = sent.await.expect("an answer");
            if answer.status != 201 {
                assert_eq!(answer.json(422)["code"], "PROGRAM_LIMIT_REACHED", "{kind:?}");
                refused += 1;
            }
        }
        assert_eq!(refused, 2, "{kind:?}: twenty in all");
        let first = client.get("/v1/programs?limit=15").await.json(200);
        let cursor = text(&first, "next_cursor");
        let rest = client.get(&format!("/v1/programs?limit=15&cursor={cursor}")).await.json(200);
        let codes: Vec<&str> = [&first, &rest]
            .iter()
            .flat_map(|page| page["data"].as_array().expect("programs"))
            .map(|program| text(program, "code"))
            .collect();
        assert_eq!((codes.len(), rest["next_cursor"].is_null()), (20, true), "{kind:?}");
        assert!(codes.is_sorted(), "{kind:?}: {codes:?}");

        // The platform sees whose it is; keys are its tenant's.
        let program = text(&shown, "id");
        let seen = platform.get(&format!("/v1/tenants/{program}")).await.json(200);
        assert_eq!((text(&seen, "parent_id"), text(&seen, "program")), (id, "P-00"), "{kind:?}");
        assert_eq!((&tenant["parent_id"], &tenant["program"]), (&Value::Null, &Value::Null), "{kind:?}");
        let key = json!({ "name": "k", "scope": "SERVICE" });
        let refused = platform.post(&format!("/v1/tenants/{program}/api-keys"), key).await.json(422);
        assert_eq!(refused["code"], "TENANT_IS_PROGRAM", "{kind:?}");
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_program_is_named() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        program(&server, &shop, "MILES").await;
        let mut client = server.client(&shop.operator).await;
        for (body, fields) in [
            (json!({}), &["code", "name"][..]),
            (json!({ "code": "A B", "name": "n" }), &["code"]),
            (json!({ "code": "x".repeat(65), "name": "" }), &["code", "name"]),
            (json!({ "code": "A", "name": "n", "time_zone": "Mars/Base" }), &["time_zone"]),
            (json!({ "code": "A", "name": "n", "refund_grace_days": 3_651 }), &["refund_grace_days"]),
            // It is the tenant's.
            (json!({ "code": "A", "name": "n", "currency": "USD" }), &["currency"]),
        ] {
            let problem = client.post("/v1/programs", body.clone()).await.json(400);
            let mut named: Vec<&str> =
                problem["errors"].as_array().expect("errors").iter().map(|error| text(error, "field")).collect();
            named.sort_unstable();
            assert_eq!(named, fields, "{kind:?}: {body}");
        }
        for (path, field) in
            [("/v1/programs?limit=0", "limit"), ("/v1/programs?page=2", "page"), ("/v1/members/m-1/wallets?x=1", "x")]
        {
            assert_eq!(client.get(path).await.json(400)["errors"][0]["field"], field, "{kind:?}: {path}");
        }
        assert_eq!(client.get("/v1/members/a%20b/wallets").await.json(400)["errors"][0]["field"], "member_id");

        // The header.
        for bad in ["", "A B", &"x".repeat(65), "\u{e9}"] {
            let problem = client.send("GET", "/v1/points-rules", &[("scrip-program", bad)], "").await.json(400);
            assert_eq!(problem["errors"][0]["field"], "Scrip-Program", "{kind:?}: {bad:?}");
        }
        let two = [("scrip-program", "MILES"), ("scrip-program", "MILES")];
        assert_eq!(client.send("GET", "/v1/points-rules", &two, "").await.status, 400, "{kind:?}");
        for (language, word) in [("en", "GET /v1/programs"), ("zh", "积分项目 YEN")] {
            let headers = [("scrip-program", "YEN"), ("accept-language", language)];
            let problem = client.send("GET", "/v1/points-rules", &headers, "").await.json(404);
            assert_eq!(problem["code"], "PROGRAM_NOT_FOUND", "{kind:?}");
            let detail = text(&problem, "detail");
            assert!(detail.contains("Scrip-Program") && detail.contains("YEN") && detail.contains(word), "{detail}");
        }
        // A key that is none learns nothing of programs.
        let mut nobody = server.client("").await.of_program("YEN");
        assert_eq!(nobody.get("/v1/points-rules").await.status, 401, "{kind:?}");

        // What is no program's.
        let mut miles = server.client(&shop.operator).await.of_program("MILES");
        let nested = miles.post("/v1/programs", json!({ "code": "A", "name": "n" })).await;
        for answer in [nested, miles.get("/v1/programs").await, miles.get("/v1/members/m-1/wallets").await] {
            assert_eq!(answer.json(400)["code"], "PROGRAM_MISPLACED", "{kind:?}");
        }
        let mut platform = server.client(PLATFORM_KEY).await.of_program("MILES");
        for path in ["/v1/tenants".to_owned(), format!("/v1/tenants/{}/api-keys", shop.id)] {
            assert_eq!(platform.get(&path).await.json(400)["code"], "PROGRAM_MISPLACED", "{kind:?}: {path}");
        }
        // Neither the platform nor a service makes programs; a member sees its own wallets.
        let mut platform = server.client(PLATFORM_KEY).await;
        let mut service = server.client(&shop.service).await;
        for client in [&mut platform, &mut service] {
            let refused = client.post("/v1/programs", json!({ "code": "A", "name": "n" })).await.json(403);
            assert_eq!(refused["code"], "SCOPE_REQUIRED", "{kind:?}");
        }
        assert_eq!(service.get("/v1/programs").await.json(200)["data"].as_array().map(Vec::len), Some(1), "{kind:?}");
        let mut member = server.client(&shop.member).await;
        assert_eq!(member.get("/v1/members/m-1/wallets").await.json(200)["data"].as_array().map(Vec::len), Some(2));
        assert_eq!(member.get("/v1/members/m-2/wallets").await.status, 403, "{kind:?}");
        assert_eq!(member.get("/v1/programs").await.status, 403, "{kind:?}");
        server.assert_sound().await;
    }
}

/// What stands behind a request beside its handler goes by the program as well: idempotency, batches, jobs, coupons' codes, quotes,
/// approvals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_tenant_has_a_program_has() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut own = server.client(&shop.operator).await;
        let mut miles = program(&server, &shop, "MILES").await;

        // One idempotency key means two requests.
        let grants = "/v1/members/m-1/points/grants";
        let headers = [JSON, ("idempotency-key", "once")];
        for (client, points) in [(&mut own, 4), (&mut miles, 8)] {
            let body = json!({ "points": points }).to_string();
            let first = client.send("POST", grants, &headers, body.clone()).await;
            let again = client.send("POST", grants, &headers, body).await;
            assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (201, None), "{kind:?}");
            assert_eq!((again.header("idempotency-replayed"), &again.body), (Some("true"), &first.body), "{kind:?}");
        }
        let lines: String = [3, 5]
            .iter()
            .map(|points| format!("{}\n", json!({ "op": "grant", "member_id": "m-1", "points": points })))
            .collect();
        let answer = miles.send("POST", "/v1/batch", &NDJSON, lines).await;
        assert_eq!(answer.status, 200, "{kind:?}");
        assert_eq!([available(&mut own, "m-1").await, available(&mut miles, "m-1").await], [4, 16], "{kind:?}");

        // What is done later is done there.
        let job = miles.post(grants, json!({ "points": 100, "mode": "async" })).await.json(202);
        assert_eq!(own.get(&format!("/v1/jobs/{}", text(&job, "id"))).await.status, 404, "{kind:?}");
        let rows = "{\"member_id\":\"m-1\",\"points\":1000}\n";
        miles.send("POST", "/v1/points-grants", &NDJSON, rows).await.json(202);
        until("the grants", async || (available(&mut miles, "m-1").await == 1_116).then_some(())).await;
        assert_eq!(available(&mut own, "m-1").await, 4, "{kind:?}");

        // A member's key works for that member, with a code of the program.
        let made = miles.post("/v1/coupon-templates", template()).await.json(201);
        let codes = format!("/v1/coupon-templates/{}/codes", text(&made, "id"));
        miles.post(&codes, json!({ "kind": "SHARED", "code": "FLY" })).await.json(202);
        let (claim, body) = ("/v1/codes/FLY/claims", json!({ "member_id": "m-1" }));
        let mut member = server.client(&shop.member).await;
        assert_eq!(member.post(claim, body.clone()).await.json(422)["code"], "COUPON_CODE_NOT_ACCEPTED", "{kind:?}");
        let mut member = member.of_program("MILES");
        let coupon = member.post(claim, body).await.json(201);
        assert_eq!(available(&mut member, "m-1").await, 1_116, "{kind:?}");
        assert_eq!(member.get("/v1/members/m-2/points").await.status, 403, "{kind:?}");
        let coupon = format!("/v1/coupons/{}", text(&coupon, "id"));
        assert_eq!((own.get(&coupon).await.status.as_u16(), member.get(&coupon).await.status.as_u16()), (404, 200));

        // A quote is worth something where it was given.
        let line = json!({ "item_id": "i", "product_id": "p", "unit_price": 10_000, "quantity": 1 });
        let quote = json!({ "member_id": "m-1", "lines": [line] });
        let quoted = miles.post("/v1/quotes", quote.clone()).await.json(200);
        let mut order = quote;
        order["order_id"] = json!("o-1");
        order["quote_token"] = quoted["quote_token"].clone();
        assert!(order["quote_token"].is_string(), "{quoted}");
        assert_eq!(own.post("/v1/orders", order.clone()).await.status, 400, "{kind:?}");
        miles.post("/v1/orders", order).await.json(201);

        // The second pair of eyes has another key of the tenant.
        set_rules(&mut miles, json!({ "adjustments": { "approval_above": 10 } })).await;
        let large = json!({ "points": 11, "reason": "r" });
        let waits = miles.post("/v1/members/m-1/points/adjustments", large).await.json(202);
        let approve = format!("/v1/points-adjustments/{}/approve", text(&waits, "id"));
        assert_eq!(miles.post(&approve, json!({})).await.json(403)["code"], "POINTS_ADJUSTMENT_OWN", "{kind:?}");
        let mut platform = server.client(PLATFORM_KEY).await;
        let key = json!({ "name": "second", "scope": "OPERATOR" });
        let key = platform.post(&format!("/v1/tenants/{}/api-keys", shop.id), key).await.json(201);
        let second = server.client(text(&key, "secret")).await;
        second.of_program("MILES").post(&approve, json!({})).await.json(200);
        assert_eq!(available(&mut miles, "m-1").await, 1_127, "{kind:?}");
        server.assert_sound().await;
    }
}

/// A shop's programs do not multiply what it may ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_counts_a_tenant_and_its_programs_together() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let server = Server::with(&fixture.url, |settings| settings.quota.requests_per_second = 2).await;
        let shop = server.shop().await;
        let mut miles = program(&server, &shop, "MILES").await;
        let mut own = server.client(&shop.operator).await;
        let mut granted = 0;
        while miles.get("/v1/points-rules").await.status == 200 {
            granted += 1;
            assert!(granted < 1_000, "{kind:?}: no limit");
        }
        assert_eq!(own.get("/v1/points-rules").await.status, 429, "{kind:?}: the program has used it up");
        // So a rate of a program's own would be read by nobody.
        let parent = shop.id.parse().expect("a tenant's id");
        let programs = server.store.list_programs(parent, None, 1).await.expect("programs");
        for (id, is_program) in [(parent, false), (programs[0].1.id, true)] {
            let quota = QuotaOptions { tenants: [(id, 5)].into(), ..QuotaOptions::default() };
            let refused = quota.refuse_programs(&server.store).await.err().map(|error| error.to_string());
            let said = refused.as_ref().is_some_and(|said| said.contains("quota.tenants") && said.contains(&shop.id));
            assert_eq!((refused.is_some(), said), (is_program, is_program), "{kind:?}: {refused:?}");
        }
    }
}

/// Another node learns of a program within a second, and events go to the webhooks of where they happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_known_on_every_node_and_tells_its_own_webhooks() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let one = Server::with(&fixture.url, near).await;
        // SQLite has one node.
        let another = if kind == Kind::Postgres { Some(Server::with(&fixture.url, near).await) } else { None };
        let other = another.as_ref().unwrap_or(&one);
        let shop = one.shop().await;
        let mut own = other.client(&shop.operator).await;
        let mut miles = other.client(&shop.operator).await.of_program("MILES");
        // Asked for before it is there, and remembered as unknown.
        assert_eq!(miles.get("/v1/points-rules").await.status, 404, "{kind:?}");
        program(&one, &shop, "MILES").await;
        until("the program on the other node", async || {
            (miles.get("/v1/points-rules").await.status == 200).then_some(())
        })
        .await;
        let (of_tenant, of_program) = (Receiver::start().await, Receiver::start().await);
        for (client, receiver, points) in [(&mut own, &of_tenant, 5), (&mut miles, &of_program, 7)] {
            let asked = json!({ "url": receiver.url(), "types": ["points.granted"] });
            client.post("/v1/webhooks", asked).await.json(201);
            client.post("/v1/members/m-1/points/grants", json!({ "points": points })).await.json(201);
        }
        for (receiver, points) in [(&of_tenant, 5), (&of_program, 7)] {
            until("the event", async || (!receiver.taken().is_empty()).then_some(())).await;
            let told: Vec<Value> =
                receiver.taken().iter().map(|received| received.event()["data"]["points"].clone()).collect();
            assert_eq!(told, [json!(points)], "{kind:?}");
        }
        one.assert_sound().await;
    }
}
