//! Quotes: what an order would cost, why, and with which coupons it costs the least.

use serde_json::{Value, json};

use super::{Answer, Client, JSON, PLATFORM_KEY, Server, Shop, start, text};
use crate::harness::{Fixture, KINDS, Kind};

/// A shop with its clients.
struct Till {
    _fixture: Fixture,
    server: Server,
    shop: Shop,
    operator: Client,
    service: Client,
}

impl Till {
    async fn open(kind: Kind) -> Till {
        let (fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let (operator, service) = (server.client(&shop.operator).await, server.client(&shop.service).await);
        Till { _fixture: fixture, server, shop, operator, service }
    }

    /// A template with this benefit and these terms.
    async fn template(&mut self, benefit: Value, terms: Value) -> String {
        let mut body = json!({ "name": "t", "benefit": benefit, "limit_per_member": 50,
                               "validity": { "type": "RELATIVE", "days": 3650 } });
        for (name, value) in terms.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let made = self.operator.post("/v1/coupon-templates", body).await.json(201);
        text(&made, "id").to_owned()
    }

    async fn claim(&mut self, template: &str, member: &str) -> String {
        let path = format!("/v1/coupon-templates/{template}/claims");
        let coupon = self.service.post(&path, json!({ "member_id": member })).await.json(201);
        text(&coupon, "id").to_owned()
    }

    /// A coupon of m-1 with this benefit and these terms.
    async fn coupon(&mut self, benefit: Value, terms: Value) -> String {
        let template = self.template(benefit, terms).await;
        self.claim(&template, "m-1").await
    }

    async fn quote(&mut self, body: Value) -> Value {
        self.service.post("/v1/quotes", body).await.json(200)
    }

    async fn close(self) {
        self.server.assert_sound().await;
        self.server.stop().await;
    }
}

fn amount_off(amount: i64) -> Value {
    json!({ "type": "AMOUNT_OFF", "amount": amount })
}

fn line(item: &str, unit_price: i64, quantity: i64) -> Value {
    json!({ "item_id": item, "product_id": item, "unit_price": unit_price, "quantity": quantity })
}

/// The coupons of an answer: whether each applied, its discount and its code.
fn told(quote: &Value) -> Vec<(bool, i64, Option<&str>)> {
    let coupons = quote["coupons"].as_array().expect("coupons");
    coupons
        .iter()
        .map(|one| (one["applied"] == true, one["discount"].as_i64().expect("a discount"), one["code"].as_str()))
        .collect()
}

/// The origin's acceptance figures: 2 x 100.00, 10.00 off, 100 points: 189.00; and 200.00, 20.00 off, 100 points: 179.00.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quote_tells_the_whole_price() {
    for kind in KINDS {
        let mut till = Till::open(kind).await;
        let ten = till.coupon(amount_off(1_000), json!({ "name": "10 off" })).await;
        let twenty = till.coupon(amount_off(2_000), json!({})).await;
        let grant = json!({ "points": 250, "type": "EARN_ADMIN" });
        till.operator.post("/v1/members/m-1/points/grants", grant).await.json(201);
        let events = till.server.event_count().await;

        let quote = till
            .quote(
                json!({ "member_id": "m-1", "lines": [line("shirt", 10_000, 2)], "coupon_ids": [ten], "points": 100 }),
            )
            .await;
        let expected = json!({
            "original_amount": 20_000, "coupon_discount": 1_000, "freight_discount": 0, "points_discount": 100,
            "total_discount": 1_100, "freight": 0, "pay_amount": 18_900,
            "points_requested": 100, "points_effective": 100, "points_limited_by": null, "points_to_earn": 190, "points_to_earn_capped": false,
            "coupons": [{ "id": ten, "template_id": quote["coupons"][0]["template_id"], "name": "10 off", "applied": true,
                "discount": 1_000, "code": null, "reason": null, "params": {}, "unlock_amount": null }],
            "lines": [{ "item_id": "shirt", "quantity": 2, "amount": 20_000, "coupon_discount": 1_000, "points_discount": 100,
                "points_spent": 100, "pay_amount": 18_900, "points_to_earn": 190, "coupons": [{ "id": ten, "discount": 1_000 }] }],
            "best": null, "rules_version": 0, "as_of": quote["as_of"], "quote_token": quote["quote_token"],
            "expires_at": quote["expires_at"],
        });
        assert!(quote["quote_token"].as_str().is_some_and(|token| token.len() == 76), "{kind:?}: {quote}");
        assert_eq!(quote, expected, "{kind:?}");

        let asked =
            json!({ "member_id": "m-1", "lines": [line("shirt", 20_000, 1)], "coupon_ids": [twenty], "points": 100 });
        assert_eq!(till.quote(asked).await["pay_amount"], 17_900);

        // More points than the member has: whole units of what there is.
        let asked = json!({ "member_id": "m-1", "lines": [line("shirt", 20_000, 1)], "points": 300 });
        let quote = till.quote(asked.clone()).await;
        assert_eq!((&quote["points_effective"], &quote["points_limited_by"]), (&json!(200), &json!("BALANCE")));
        // The tenant's own rules, when there are some.
        let rules = json!({ "redeem": { "ratio": 10, "base": 1, "max_points_per_order": 50 }, "earn": { "ratio": 3 } });
        let set =
            till.operator.send("PUT", "/v1/points-rules", &[JSON, ("if-match", "\"0\"")], rules.to_string()).await;
        set.json(200);
        let quote = till.quote(asked).await;
        assert_eq!(
            [
                &quote["points_effective"],
                &quote["points_discount"],
                &quote["points_limited_by"],
                &quote["points_to_earn"]
            ],
            [&json!(50), &json!(5), &json!("MAX_POINTS_PER_ORDER"), &json!(600)]
        );
        assert_eq!(quote["rules_version"], 1);
        assert_eq!(till.server.event_count().await, events + 1, "only the new rules have left a trace");
        till.close().await;
    }
}

/// peers 5.1, say why (spree PR 14569: accepted silently; shopware#17269; reaction#6727: name the one in the way; EDD#1916;
/// nopCommerce#1845: only the first was looked at): every coupon that does not apply says so, with code, words and values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_coupon_that_does_not_apply_says_why() {
    for kind in KINDS {
        let mut till = Till::open(kind).await;
        let first = till.coupon(amount_off(500), json!({})).await;
        let second = till.coupon(amount_off(700), json!({})).await;
        let below = till.coupon(json!({ "type": "FREE_SHIPPING" }), json!({ "min_order_amount": 12_250 })).await;
        let elsewhere = till.coupon(amount_off(500), json!({ "scope": { "products": ["hat"] } })).await;
        let few = till.coupon(json!({ "type": "BUY_X_GET_Y", "buy_quantity": 2, "get_quantity": 1 }), json!({})).await;
        let condition = json!({ "condition": "order.attributes.channel == 'app'" });
        let channel = till.coupon(json!({ "type": "PERCENT_OFF", "percent_off": 12.5 }), condition).await;
        let template = till.template(amount_off(1), json!({})).await;
        let foreign = till.claim(&template, "m-2").await;
        let unknown = format!("cpn_{}", "0".repeat(32));
        let ids = [&first, &second, &below, &elsewhere, &few, &channel, &foreign, &unknown];
        let mut asked =
            json!({ "member_id": "m-1", "lines": [line("shirt", 10_000, 1)], "freight": 500, "coupon_ids": ids });
        let quote = till.quote(asked.clone()).await;
        let expected = [
            (true, 500, None),
            (false, 0, Some("COUPON_NOT_STACKABLE")),
            (false, 0, Some("COUPON_BELOW_THRESHOLD")),
            (false, 0, Some("COUPON_OUT_OF_SCOPE")),
            (false, 0, Some("COUPON_QUANTITY_TOO_LOW")),
            (false, 0, Some("COUPON_CONDITION_FAILED")),
            (false, 0, Some("COUPON_NOT_FOUND")),
            (false, 0, Some("COUPON_NOT_FOUND")),
        ];
        assert_eq!(told(&quote), expected, "{kind:?}: {quote}");
        assert_eq!(quote["pay_amount"], 10_000);
        let coupon = |index: usize| &quote["coupons"][index];
        assert_eq!(coupon(1)["params"], json!({ "with": first }));
        assert!(text(coupon(1), "reason").contains(&first));
        assert_eq!(coupon(2)["params"], json!({ "min_amount": "12250", "eligible_amount": "10000" }));
        assert_eq!(coupon(2)["unlock_amount"], 2_250, "spend 22.50 more");
        assert_eq!(coupon(5)["params"], json!({ "cause": "the attribute `channel` is missing" }));
        assert_eq!((&coupon(6)["template_id"], &coupon(7)["template_id"]), (&Value::Null, &Value::Null));

        asked["attributes"] = json!({ "channel": "app" });
        let in_chinese = [JSON, ("accept-language", "zh-CN")];
        let quote = till.service.send("POST", "/v1/quotes", &in_chinese, asked.to_string()).await.json(200);
        assert_eq!(told(&quote)[5], (true, 1_250, None), "12.5 percent of 100.00");
        assert!(
            text(&quote["coupons"][2], "reason").contains("未达")
                || text(&quote["coupons"][2], "reason").contains("满")
        );
        till.close().await;
    }
}

/// Flaw F-30 of the origin: anybody could spend any coupon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quote_is_for_the_member_and_the_coupons_of_nobody_else() {
    for kind in KINDS {
        let mut till = Till::open(kind).await;
        let own = till.coupon(amount_off(500), json!({})).await;
        let asked = |member: &str| json!({ "member_id": member, "lines": [line("a", 1_000, 1)], "coupon_ids": [own] });
        let mut member = till.server.client(&till.shop.member).await;
        let quote = member.post("/v1/quotes", asked("m-1")).await.json(200);
        assert_eq!(quote["pay_amount"], 500);
        assert_eq!(member.post("/v1/quotes", asked("m-2")).await.json(403)["code"], "SCOPE_REQUIRED");
        assert_eq!(told(&till.quote(asked("m-2")).await), [(false, 0, Some("COUPON_NOT_FOUND"))]);
        let mut stranger = till.server.client(&till.server.shop().await.operator).await;
        assert_eq!(
            told(&stranger.post("/v1/quotes", asked("m-1")).await.json(200)),
            [(false, 0, Some("COUPON_NOT_FOUND"))]
        );
        let mut early = asked("m-1");
        early["as_of"] = json!("2027-01-01T00:00:00Z");
        assert_eq!(till.service.post("/v1/quotes", early).await.json(403)["code"], "SCOPE_REQUIRED");
        assert_eq!(till.server.client("").await.post("/v1/quotes", asked("m-1")).await.status, 401);
        till.close().await;
    }
}

/// peers 5.1: the last unit wrongly refused (solidus#3205: an order counted against itself), and a coupon's state told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_locked_by_the_order_itself_applies_to_it() {
    for kind in KINDS {
        let mut till = Till::open(kind).await;
        let coupon = till.coupon(amount_off(500), json!({})).await;
        let lock = format!("/v1/coupons/{coupon}/lock");
        till.service.post(&lock, json!({ "order_id": "o-1" })).await.json(200);
        let mut asked = json!({ "member_id": "m-1", "lines": [line("a", 1_000, 1)], "coupon_ids": [coupon] });
        let quote = till.quote(asked.clone()).await;
        assert_eq!(told(&quote), [(false, 0, Some("COUPON_LOCKED"))]);
        assert_eq!(quote["coupons"][0]["params"], json!({ "order_id": "o-1" }));
        asked["order_id"] = json!("o-2");
        assert_eq!(told(&till.quote(asked.clone()).await), [(false, 0, Some("COUPON_LOCKED"))]);
        asked["order_id"] = json!("o-1");
        assert_eq!(told(&till.quote(asked.clone()).await), [(true, 500, None)]);
        till.service.post(&format!("/v1/coupons/{coupon}/use"), json!({ "order_id": "o-1" })).await.json(200);
        assert_eq!(told(&till.quote(asked).await), [(false, 0, Some("COUPON_USED"))]);
        till.close().await;
    }
}

/// A coupon keeps the terms it was claimed under, whatever becomes of its template.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_the_template_changes_no_coupon() {
    for kind in KINDS {
        let mut till = Till::open(kind).await;
        let template = till.template(json!({ "type": "PERCENT_OFF", "percent_off": 10 }), json!({})).await;
        let old = till.claim(&template, "m-1").await;
        let edit = json!({ "benefit": { "percent_off": 50.25 }, "stacking": "STACKABLE", "priority": 1 }).to_string();
        let path = format!("/v1/coupon-templates/{template}");
        let edited = till.operator.send("PATCH", &path, &[JSON, ("if-match", "\"1\"")], edit).await.json(200);
        assert_eq!(edited["benefit"]["percent_off"], 50.25);
        let new = till.claim(&template, "m-1").await;
        for (coupon, discount) in [(old, 1_000), (new, 5_025)] {
            let asked = json!({ "member_id": "m-1", "lines": [line("a", 10_000, 1)], "coupon_ids": [coupon] });
            assert_eq!(told(&till.quote(asked).await), [(true, discount, None)]);
        }
        till.close().await;
    }
}

async fn as_of(operator: &mut Client, coupon: &str, at: &str) -> Answer {
    let asked = json!({ "member_id": "m-1", "lines": [line("a", 1_000, 1)], "coupon_ids": [coupon], "as_of": at });
    operator.post("/v1/quotes", asked).await
}

/// peers 5.1: preview of a promotion to come (Setono CatalogPromotion#67); time zones and inclusive ends
/// (woocommerce-ios#6254, s2member#612, OpenMage PR 4409): days are the tenant's, also on the day the clocks change, and
/// intervals are half-open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_looks_ahead_on_the_clock_of_the_shop() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let mut platform = server.client(PLATFORM_KEY).await;
        let tenant =
            platform.post("/v1/tenants", json!({ "name": "Berlin", "time_zone": "Europe/Berlin" })).await.json(201);
        let keys = format!("/v1/tenants/{}/api-keys", text(&tenant, "id"));
        let key = platform.post(&keys, json!({ "name": "o", "scope": "OPERATOR" })).await.json(201);
        let mut operator = server.client(text(&key, "secret")).await;
        let mut coupon = async |validity: Value, hours: Value| {
            let body = json!({ "name": "t", "benefit": { "type": "AMOUNT_OFF", "amount": 100 }, "validity": validity,
                               "usable_hours": hours, "excluded_dates": ["2027-12-24"] });
            let template = operator.post("/v1/coupon-templates", body).await.json(201);
            let path = format!("/v1/coupon-templates/{}/claims", text(&template, "id"));
            let coupon = operator.post(&path, json!({ "member_id": "m-1" })).await.json(201);
            text(&coupon, "id").to_owned()
        };
        let days = json!({ "type": "RELATIVE", "days": 3650 });
        let sundays = coupon(days, json!([{ "weekdays": ["SUNDAY"], "from": "00:00", "to": "24:00" }])).await;
        let fixed = json!({ "type": "FIXED", "starts_at": "2027-03-28T00:00:00+01:00", "ends_at": "2027-03-29T00:00:00+02:00" });
        let one_day = coupon(fixed, json!([])).await;
        // On 2027-03-28 summer time begins in Berlin: that day has 23 hours.
        for (at, on_sundays, that_day) in [
            ("2027-03-27T22:59:59Z", Some("COUPON_OUTSIDE_HOURS"), Some("COUPON_NOT_YET_VALID")),
            ("2027-03-27T23:00:00Z", None, None),
            ("2027-03-28T21:59:59.999999Z", None, None),
            ("2027-03-28T22:00:00Z", Some("COUPON_OUTSIDE_HOURS"), Some("COUPON_EXPIRED")),
            ("2027-12-23T23:00:00Z", Some("COUPON_OUTSIDE_HOURS"), Some("COUPON_EXPIRED")),
        ] {
            for (coupon, code) in [(&sundays, on_sundays), (&one_day, that_day)] {
                let quote = as_of(&mut operator, coupon, at).await.json(200);
                assert_eq!(quote["coupons"][0]["code"].as_str(), code, "{kind:?}, {at}: {quote}");
            }
        }
        server.assert_sound().await;
    }
}

/// peers 6.4: the coupons of the wallet that are usable for the basket, by what they save, and the best of their
/// combinations, proved to be so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_best_coupons_are_found_and_the_others_explained() {
    for kind in KINDS {
        let mut till = Till::open(kind).await;
        let exclusive = till.coupon(amount_off(1_400), json!({ "stacking": "EXCLUSIVE", "name": "exclusive" })).await;
        let percent = json!({ "type": "PERCENT_OFF", "percent_off": 10 });
        let percent = till.coupon(percent, json!({ "stacking": "STACKABLE", "name": "percent" })).await;
        let amount = till.coupon(amount_off(500), json!({ "stacking": "STACKABLE", "name": "amount" })).await;
        let later = till.coupon(amount_off(9_000), json!({ "min_order_amount": 50_000, "name": "later" })).await;
        let asked = json!({ "member_id": "m-1", "lines": [line("a", 10_000, 1)], "best": true });
        let quote = till.quote(asked.clone()).await;
        assert_eq!(quote["coupon_discount"], 1_500, "{kind:?}: {quote}");
        let names = |list: &Value| {
            let all = list.as_array().expect("a list").iter();
            all.map(|one| (text(one, "name").to_owned(), one["discount"].as_i64().expect("a discount")))
                .collect::<Vec<_>>()
        };
        let pair = |name: &str, discount| (name.to_owned(), discount);
        let mut chosen = names(&quote["coupons"]);
        chosen.sort();
        assert_eq!(chosen, [pair("amount", 500), pair("percent", 1_000)]);
        let best = &quote["best"];
        assert_eq!((&best["exhaustive"], &best["considered"]), (&json!(true), &json!(4)));
        let alone = [pair("exclusive", 1_400), pair("percent", 1_000), pair("amount", 500), pair("later", 0)];
        assert_eq!(names(&best["candidates"]), alone);
        let last = &best["candidates"][3];
        assert_eq!((&last["code"], &last["unlock_amount"]), (&json!("COUPON_BELOW_THRESHOLD"), &json!(40_000)));

        // Among the named ones only.
        let mut among = asked.clone();
        among["coupon_ids"] = json!([exclusive, amount, later]);
        let quote = till.quote(among).await;
        assert_eq!(names(&quote["coupons"]), [pair("exclusive", 1_400)]);
        // What is used is no candidate.
        for coupon in [&percent, &amount] {
            till.service.post(&format!("/v1/coupons/{coupon}/lock"), json!({ "order_id": "o-1" })).await.json(200);
        }
        let quote = till.quote(asked).await;
        assert_eq!(names(&quote["coupons"]), [pair("exclusive", 1_400)]);
        assert_eq!(quote["best"]["considered"], 2);
        till.close().await;
    }
}

/// peers 6.4: later redemption honours the quoted amount. Rules change between the quote and the order; with the quote's token the
/// order costs what was quoted, for exactly what was quoted, and as long as it holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_with_a_quotes_token_costs_what_was_quoted() {
    for kind in KINDS {
        let mut till = Till::open(kind).await;
        let percent = json!({ "type": "PERCENT_OFF", "percent_off": 50 });
        let coupon = till.coupon(percent, json!({ "name": "half" })).await;
        let mut asked = json!({ "member_id": "m-1", "lines": [line("a", 999, 1)], "coupon_ids": [coupon] });
        let quote = till.operator.post("/v1/quotes", asked.clone()).await.json(200);
        assert_eq!((&quote["pay_amount"], &quote["rules_version"]), (&json!(499), &json!(0)), "{kind:?}");
        let rules = json!({ "orders": { "rounding": "DOWN", "max_total_percent": 10 } }).to_string();
        let set = till.operator.send("PUT", "/v1/points-rules", &[JSON, ("if-match", "\"0\"")], rules).await;
        set.json(200);
        let anew = till.operator.post("/v1/quotes", asked.clone()).await.json(200);
        assert_eq!((&anew["pay_amount"], &anew["rules_version"]), (&json!(900), &json!(1)), "{kind:?}");

        asked["quote_token"] = quote["quote_token"].clone();
        let order = |id: &str, change: Value| {
            let mut order = asked.clone();
            order["order_id"] = json!(id);
            for (name, value) in change.as_object().expect("an object") {
                order[name] = value.clone();
            }
            order
        };
        for change in [
            json!({ "lines": [line("a", 998, 1)] }),
            json!({ "freight": 1 }),
            json!({ "coupon_ids": [] }),
            json!({ "points": 1 }),
            json!({ "member_id": "m-2" }),
            json!({ "member_level": "GOLD" }),
            json!({ "quote_token": "AAAA" }),
            json!({ "effective_at": "2026-01-01T00:00:00Z" }),
        ] {
            let refused = till.operator.post("/v1/orders", order("o-0", change.clone())).await.json(400);
            assert_eq!(refused["errors"][0]["field"], "quote_token", "{kind:?}: {change}: {refused}");
        }
        let reserved = till.operator.post("/v1/orders", order("o-1", json!({}))).await.json(201);
        assert_eq!((&reserved["pay_amount"], &reserved["rules_version"]), (&json!(499), &json!(0)), "{kind:?}");
        // Repeated, it is the same order; without the token, a new one has today's price.
        let again = till.operator.post("/v1/orders", order("o-1", json!({}))).await.json(201);
        assert_eq!(again["id"], reserved["id"], "{kind:?}");
        till.operator.post("/v1/orders/o-1/cancel", json!({})).await.json(200);
        let today = till.operator.post("/v1/orders", order("o-2", json!({ "quote_token": null }))).await.json(201);
        assert_eq!(today["pay_amount"], 900, "{kind:?}");
        till.operator.post("/v1/orders/o-2/cancel", json!({})).await.json(200);
        // As a line of a batch.
        let mut line = order("o-3", json!({}));
        line["op"] = json!("reserve");
        let mut other = order("o-4", json!({ "freight": 7 }));
        other["op"] = json!("reserve");
        let ndjson = [("content-type", "application/x-ndjson")];
        let answer = till.operator.send("POST", "/v1/batch", &ndjson, format!("{line}\n{other}\n")).await;
        let answers: Vec<Value> = String::from_utf8_lossy(&answer.body)
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect();
        assert_eq!((&answers[0]["status"], &answers[0]["body"]["pay_amount"]), (&json!(201), &json!(499)), "{kind:?}");
        assert_eq!(answers[1]["error"]["errors"][0]["field"], "quote_token", "{kind:?}: {answers:?}");
        till.close().await;
    }
}

/// peers 5.1: negative totals (mall#1003: minus 824 to pay), and rounding: every line adds up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_costs_less_than_nothing_and_every_cent_is_accounted_for() {
    for kind in KINDS {
        let mut till = Till::open(kind).await;
        let large = till.coupon(amount_off(1_000_000), json!({ "stacking": "STACKABLE" })).await;
        let odd = till.coupon(amount_off(1_000), json!({ "stacking": "STACKABLE" })).await;
        let lines: Vec<Value> = ["a", "b", "c"].iter().map(|item| line(item, 500, 1)).collect();
        let mut asked = json!({ "member_id": "m-1", "lines": lines, "freight": 300, "coupon_ids": [large, odd] });
        let quote = till.quote(asked.clone()).await;
        assert_eq!(told(&quote), [(true, 1_500, None), (false, 0, Some("COUPON_WITHOUT_EFFECT"))]);
        assert_eq!(quote["pay_amount"], 300, "the freight");
        asked["coupon_ids"] = json!([odd]);
        let quote = till.quote(asked).await;
        let shares: Vec<i64> =
            (0..3).map(|index| quote["lines"][index]["coupon_discount"].as_i64().expect("a share")).collect();
        assert_eq!(shares, [334, 333, 333]);
        till.close().await;
    }
}

/// The largest order with the most coupons is answered; one line more is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_order_is_priced() {
    for kind in KINDS {
        let mut till = Till::open(kind).await;
        let template = till.template(amount_off(7), json!({ "stacking": "STACKABLE" })).await;
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(till.claim(&template, "m-1").await);
        }
        let mut lines: Vec<Value> = (0..200).map(|index| line(&format!("item-{index}"), 999, 3)).collect();
        let quote = till.quote(json!({ "member_id": "m-1", "lines": lines, "coupon_ids": ids })).await;
        assert_eq!(quote["coupon_discount"], 5 * 7, "five coupons an order by default");
        assert_eq!(told(&quote).iter().filter(|one| one.2 == Some("COUPON_TOO_MANY")).count(), 15);
        let quote = till.quote(json!({ "member_id": "m-1", "lines": lines, "best": true })).await;
        assert_eq!((&quote["coupon_discount"], &quote["best"]["exhaustive"]), (&json!(35), &json!(true)));
        lines.push(line("more", 1, 1));
        let refused = till.service.post("/v1/quotes", json!({ "member_id": "m-1", "lines": lines })).await.json(400);
        assert_eq!(refused["errors"][0]["field"], "lines");
        let huge: Vec<Value> = (0..2).map(|index| line(&format!("{index}"), 1_000_000_000_000, 1_000_000)).collect();
        let refused = till.service.post("/v1/quotes", json!({ "member_id": "m-1", "lines": huge })).await.json(422);
        assert_eq!(refused["code"], "ORDER_TOO_LARGE");
        till.close().await;
    }
}
