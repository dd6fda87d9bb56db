//! What members do beside orders, through the API on both stores: points that come later, change hands or accounts, the balance
//! of an earlier time, check-ins, tasks, adjustments.

use futures_util::future::join_all;
use jiff::tz::TimeZone;
use scrip_domain::TenantId;
use scrip_server::reports::Liability;
use serde_json::{Value, json};

use super::{Client, JSON, PLATFORM_KEY, Server, Shop, start, template, text};
use crate::harness::KINDS;

async fn balance(client: &mut Client, member: &str) -> Value {
    client.get(&format!("/v1/members/{member}/points")).await.json(200)
}

async fn grant(client: &mut Client, member: &str, body: Value) -> Value {
    client.post(&format!("/v1/members/{member}/points/grants"), body).await.json(201)
}

/// An operator's key that may adjust so many points at a time.
async fn limited_key(server: &Server, shop: &Shop, limit: i64) -> String {
    let mut platform = server.client(PLATFORM_KEY).await;
    let asked = json!({ "name": "desk", "scope": "OPERATOR", "adjustment_limit": limit });
    let made = platform.post(&format!("/v1/tenants/{}/api-keys", shop.id), asked).await.json(201);
    assert_eq!(made["adjustment_limit"], limit);
    text(&made, "secret").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_granted_for_later_show_as_pending_and_cannot_be_spent() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        let later =
            json!({ "points": 100, "available_from": "2036-01-01T00:00:00Z", "expires_at": "2037-01-01T00:00:00Z" });
        let granted = grant(&mut client, "m-1", later).await;
        grant(&mut client, "m-1", json!({ "points": 30 })).await;
        let shown = balance(&mut client, "m-1").await;
        assert_eq!(
            (&shown["available"], &shown["frozen"], &shown["total_points"]),
            (&json!(30), &json!(100), &json!(130))
        );
        assert_eq!(shown["pending"], json!({ "points": 100, "next_available_at": "2036-01-01T00:00:00Z" }));
        let refused = client.post("/v1/members/m-1/points/debits", json!({ "points": 31 })).await.json(422);
        assert_eq!(refused["code"], "POINTS_INSUFFICIENT");
        // The hold that keeps them is there to be seen, and for nothing else.
        let lot = text(&granted, "lot_id");
        let hold = lot.replace("lot_", "hold_");
        let kept = client.get(&format!("/v1/points-holds/{hold}")).await.json(200);
        assert_eq!((&kept["pending"], &kept["points"], &kept["status"]), (&json!(true), &json!(100), &json!("OPEN")));
        for end in ["capture", "release"] {
            let refused = client.post(&format!("/v1/points-holds/{hold}/{end}"), json!({})).await.json(409);
            assert_eq!(refused["code"], "POINTS_HOLD_PENDING");
        }
        let reversal = format!("/v1/points-transactions/{}/reversals", text(&granted, "id"));
        let back = client.post(&reversal, json!({ "points": 40 })).await.json(201);
        assert_eq!((&back["points"], &back["debt_after"]), (&json!(-40), &json!(0)));
        let shown = balance(&mut client, "m-1").await;
        assert_eq!((&shown["available"], &shown["pending"]["points"]), (&json!(30), &json!(60)));
        // Granted as of a time long ago, they have become available meanwhile.
        let past =
            json!({ "points": 7, "effective_at": "2026-01-01T00:00:00Z", "available_from": "2026-01-02T00:00:00Z" });
        grant(&mut client, "m-2", past).await;
        assert_eq!(balance(&mut client, "m-2").await["available"], 7);
        let at = client.get("/v1/members/m-2/points?as_of=2026-01-01T12:00:00Z").await.json(200);
        assert_eq!((&at["available"], &at["frozen"]), (&json!(0), &json!(7)));
        server.assert_sound().await;
    }
}

/// Complaint: points vanish at noon, or a day early, because days were counted in UTC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_in_days_is_the_end_of_a_day_where_the_tenant_is() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let mut platform = server.client(PLATFORM_KEY).await;
        let asked = json!({ "name": "Berlin", "time_zone": "Europe/Berlin" });
        let tenant = platform.post("/v1/tenants", asked).await.json(201);
        let keys = format!("/v1/tenants/{}/api-keys", text(&tenant, "id"));
        let key = platform.post(&keys, json!({ "name": "o", "scope": "OPERATOR" })).await.json(201);
        let mut client = server.client(text(&key, "secret")).await;
        // The clocks change on 2026-03-29: that day ends at 22:00 UTC, the one before at 23:00.
        for (days, ends) in [(0, "2026-03-28T23:00:00Z"), (1, "2026-03-29T22:00:00Z")] {
            let asked = json!({ "points": 5, "effective_at": "2026-03-28T11:00:00Z", "expires_in_days": days });
            assert_eq!(grant(&mut client, "m-1", asked).await["expires_at"], ends, "{kind:?}");
        }
        let line = json!({ "op": "grant", "member_id": "m-2", "points": 1, "expires_in_days": 0,
            "effective_at": "2026-10-25T09:00:00Z" });
        let answer =
            client.send("POST", "/v1/batch", &[("content-type", "application/x-ndjson")], line.to_string()).await;
        assert_eq!(answer.json(200)["body"]["expires_at"], "2026-10-25T23:00:00Z", "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_change_hands_and_go_back() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        grant(&mut client, "m-1", json!({ "points": 50, "expires_at": "2036-01-01T00:00:00Z" })).await;
        let asked = json!({ "to_member_id": "m-2", "points": 20, "reference": "gift", "remark": "for you" });
        let sent = client.post("/v1/members/m-1/points/transfers", asked).await.json(201);
        assert_eq!((&sent["sent"]["points"], &sent["received"]["points"]), (&json!(-20), &json!(20)));
        assert_eq!(sent["sent"]["counterpart_id"], sent["received"]["id"]);
        assert_eq!(sent["received"]["counterpart_id"], sent["sent"]["id"]);
        let lots = client.get("/v1/members/m-2/points/lots").await.json(200);
        assert_eq!(lots["data"][0]["expires_at"], "2036-01-01T00:00:00Z", "{kind:?}");
        // Either line names the transfer.
        let path = format!("/v1/points-transactions/{}/reversals", text(&sent["received"], "id"));
        let back = client.post(&path, json!({ "points": 5 })).await.json(201);
        assert_eq!((&back["sent"]["member_id"], &back["received"]["points"]), (&json!("m-2"), &json!(5)));
        client.post("/v1/members/m-2/points/debits", json!({ "points": 12 })).await.json(201);
        let refused = client.post(&path, json!({ "points": 4 })).await.json(422);
        assert_eq!(refused["code"], "POINTS_REVERSAL_EXCEEDS");
        client.post(&path, json!({})).await.json(201);
        assert_eq!(balance(&mut client, "m-1").await["available"], 38);
        assert_eq!(balance(&mut client, "m-2").await["available"], 0);
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merged_account_names_the_one_that_took_it_over() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        grant(&mut client, "old", json!({ "points": 50 })).await;
        let spent = client.post("/v1/members/old/points/debits", json!({ "points": 30 })).await.json(201);
        let asked = json!({ "into_member_id": "new", "remark": "same person" });
        let merged = client.post("/v1/members/old/points/merges", asked.clone()).await.json(201);
        assert_eq!(merged["received"]["points"], 20);
        let refused = client.post("/v1/members/old/points/grants", json!({ "points": 1 })).await.json(409);
        assert_eq!(refused["code"], "POINTS_ACCOUNT_MERGED");
        assert!(text(&refused, "detail").contains("new"), "{refused}");
        assert_eq!(balance(&mut client, "old").await["merged_into"], "new");
        // An order of before is refunded; what comes back follows.
        let path = format!("/v1/points-transactions/{}/reversals", text(&spent, "id"));
        client.post(&path, json!({})).await.json(201);
        assert_eq!(balance(&mut client, "old").await["available"], 30);
        client.post("/v1/members/old/points/merges", asked).await.json(201);
        assert_eq!(balance(&mut client, "new").await["available"], 50);
        let stranger = server.client(&shop.service).await.post("/v1/members/a/points/merges", json!({})).await;
        assert_eq!(stranger.status, 403, "merging is for operators");
        server.assert_sound().await;
    }
}

/// Complaint: signing in twice at once gives the points twice (blessing-skin#68, Neuro-OJ PR 78).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_check_ins_at_once_one_counts_and_all_get_its_answer() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let attempts = (0..16).map(|_| async {
            let mut client = server.client(&shop.member).await;
            let answer = client.post("/v1/members/m-1/check-ins", json!({})).await;
            (answer.status.as_u16(), answer.value())
        });
        let answers = join_all(attempts).await;
        assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1, "{kind:?}: {answers:?}");
        assert!(answers.iter().all(|(status, body)| *status < 300 && *body == answers[0].1), "{kind:?}: {answers:?}");
        let mut client = server.client(&shop.operator).await;
        assert_eq!(balance(&mut client, "m-1").await["available"], 10);
        let refused = server.client(&shop.member).await.post("/v1/members/m-2/check-ins", json!({})).await;
        assert_eq!(refused.status, 403);
        server.assert_sound().await;
    }
}

/// Complaint: signed in at 23:59 and at 00:01, counted as one day (zhenxun PR 1426).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_in_belongs_to_the_day_that_the_tenants_clock_shows() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let mut platform = server.client(PLATFORM_KEY).await;
        let asked = json!({ "name": "Shanghai", "time_zone": "Asia/Shanghai" });
        let tenant = platform.post("/v1/tenants", asked).await.json(201);
        let keys = format!("/v1/tenants/{}/api-keys", text(&tenant, "id"));
        let key = platform.post(&keys, json!({ "name": "o", "scope": "OPERATOR" })).await.json(201);
        let mut client = server.client(text(&key, "secret")).await;
        let path = "/v1/members/m-1/check-ins";
        let mut check_in = async |at: &str, status: u16| {
            let answer = client.post(path, json!({ "effective_at": at })).await.json(status);
            (answer["day"].clone(), answer["streak"].clone())
        };
        assert_eq!(check_in("2024-02-28T15:59:00Z", 201).await, (json!("2024-02-28"), json!(1)));
        assert_eq!(check_in("2024-02-28T16:01:00Z", 201).await, (json!("2024-02-29"), json!(2)));
        assert_eq!(check_in("2024-02-29T15:59:59Z", 200).await, (json!("2024-02-29"), json!(2)));
        assert_eq!(check_in("2024-02-29T16:00:00Z", 201).await, (json!("2024-03-01"), json!(3)));
    }
}

/// Complaint: a make-up day was added a day off, so the streak stayed broken (nexusphp#228). Here across the night on which the
/// clocks change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_day_is_made_up_where_it_was_and_the_streak_comes_back() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let mut platform = server.client(PLATFORM_KEY).await;
        let asked = json!({ "name": "Berlin", "time_zone": "Europe/Berlin" });
        let tenant = platform.post("/v1/tenants", asked).await.json(201);
        let keys = format!("/v1/tenants/{}/api-keys", text(&tenant, "id"));
        let key = platform.post(&keys, json!({ "name": "o", "scope": "OPERATOR" })).await.json(201);
        let mut client = server.client(text(&key, "secret")).await;
        let rules = json!({ "check_in": { "points": 10, "streak_bonuses": [{ "days": 4, "points": 40 }],
            "make_up_days": 2, "make_up_price": 5, "make_ups_per_month": 1 }, "effective_at": "2026-03-01T00:00:00Z" });
        let tagged = [JSON, ("if-match", "\"0\"")];
        let set = client.send("PUT", "/v1/points-rules", &tagged, rules.to_string()).await.json(200);
        assert_eq!(set["check_in"]["make_up_days"], 2);
        let path = "/v1/members/m-1/check-ins";
        let mut post = async |body: Value, status: u16| client.post(path, body).await.json(status);
        // 2026-03-29 has 23 hours there. It is missed; ten minutes past midnight the next day begins.
        post(json!({ "effective_at": "2026-03-27T12:00:00Z" }), 201).await;
        post(json!({ "effective_at": "2026-03-28T22:59:59Z" }), 201).await;
        let after = post(json!({ "effective_at": "2026-03-29T22:10:00Z" }), 201).await;
        assert_eq!((&after["day"], &after["streak"]), (&json!("2026-03-30"), &json!(1)), "{kind:?}");
        let missed = |at: &str| json!({ "day": "2026-03-29", "effective_at": at });
        let early = post(missed("2026-03-29T21:59:59Z"), 422).await;
        assert_eq!(early["code"], "POINTS_CHECK_IN_DAY_NOT_PAST");
        assert!(text(&early, "detail").contains("2026-03-29"), "{early}");
        let late = post(missed("2026-03-31T22:00:00Z"), 422).await;
        assert_eq!(late["code"], "POINTS_MAKE_UP_TOO_LATE");
        assert!(text(&late, "detail").contains("2026-03-30"), "{late}");
        let made_up = post(missed("2026-03-31T21:59:59Z"), 201).await;
        let shown = ["day", "streak", "points", "bonus", "made_up"].map(|name| made_up[name].clone());
        assert_eq!(shown, [json!("2026-03-29"), json!(3), json!(50), json!(40), json!(true)], "{kind:?}");
        assert_eq!(post(missed("2026-03-31T21:59:59Z"), 200).await, made_up, "again is the first answer");
        let second = post(json!({ "day": "2026-03-31", "effective_at": "2026-04-01T12:00:00Z" }), 422).await;
        assert_eq!(second["code"], "POINTS_MAKE_UP_LIMIT_REACHED");
        let march = client.get(&format!("{path}?month=2026-03")).await.json(200);
        let days: Vec<_> = march["days"].as_array().expect("days").iter().collect();
        let shown: Vec<_> =
            days.iter().map(|day| (text(day, "day"), day["streak"].clone(), day["made_up"].clone())).collect();
        let expected = [("27", 1, false), ("28", 2, false), ("29", 3, true), ("30", 4, false)];
        let expected = expected.map(|(day, streak, made_up)| (format!("2026-03-{day}"), json!(streak), json!(made_up)));
        assert_eq!(shown, expected.each_ref().map(|(day, streak, made_up)| (&**day, streak.clone(), made_up.clone())));
        assert_eq!(march["points"], 80);
        // 80 earned, and the price of the day.
        assert_eq!(balance(&mut client, "m-1").await["available"], 75, "{kind:?}");
        let lines = client.get("/v1/members/m-1/points/transactions?type=USE_PRODUCT").await.json(200);
        let (paid, line) = (&made_up["price_transaction_id"], &lines["data"][0]);
        assert_eq!((&line["id"], &line["points"], &line["reference"]), (paid, &json!(-5), &json!("2026-03-29")));
        let told = server
            .store
            .stream("SELECT data FROM event WHERE type = 'points.checked_in' AND data LIKE '%29%'", &[], |row| {
                row.text(0)
            })
            .await
            .expect("an event");
        let data = "{\"day\":\"2026-03-29\",\"streak\":3,\"points\":50,\"bonus\":40,\"made_up\":true,\"price\":5}";
        assert_eq!(told, [data]);
        server.assert_sound().await;
    }
}

/// Two devices, one button each: the day is paid for once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_make_a_day_up_at_once_one_counts_and_all_get_its_answer() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        let rules = json!({ "check_in": { "make_up_days": 3, "make_up_price": 7 } });
        client.send("PUT", "/v1/points-rules", &[JSON, ("if-match", "\"0\"")], rules.to_string()).await.json(200);
        grant(&mut client, "m-1", json!({ "points": 100 })).await;
        let path = "/v1/members/m-1/check-ins";
        let month = client.get(path).await.json(200);
        let today: jiff::civil::Date = text(&month, "today").parse().expect("a date");
        let missed = json!({ "day": today.yesterday().expect("a day").to_string() });
        let attempts = (0..16).map(|number| {
            let (server, shop, missed) = (&server, &shop, &missed);
            async move {
                let mut client = server.client(&shop.member).await;
                // Some check in for today at the same time.
                let body = if number % 4 == 0 { json!({}) } else { missed.clone() };
                let answer = client.post(path, body).await;
                (answer.status.as_u16(), answer.value()["made_up"].clone())
            }
        });
        let answers = join_all(attempts).await;
        let counted = |made_up: bool| answers.iter().filter(|answer| **answer == (201, json!(made_up))).count();
        assert_eq!((counted(true), counted(false)), (1, 1), "{kind:?}: {answers:?}");
        assert!(answers.iter().all(|(status, _)| *status < 300), "{kind:?}: {answers:?}");
        assert_eq!(balance(&mut client, "m-1").await["available"], 100 - 7 + 10 + 10, "{kind:?}");
        let month = client.get(path).await.json(200);
        assert_eq!(month["streak"], 2, "{kind:?}: {month}");
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_of_check_ins_shows_its_days_and_the_streak() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        for at in ["2026-02-27T10:00:00Z", "2026-02-28T10:00:00Z", "2026-03-01T10:00:00Z", "2026-03-03T10:00:00Z"] {
            client.post("/v1/members/m-1/check-ins", json!({ "effective_at": at })).await.json(201);
        }
        let march = client.get("/v1/members/m-1/check-ins?month=2026-03").await.json(200);
        let days: Vec<_> = march["data"].as_array().or(march["days"].as_array()).expect("days").iter().collect();
        let shown: Vec<_> =
            days.iter().map(|day| (text(day, "day"), day["streak"].as_i64().expect("a streak"))).collect();
        assert_eq!(shown, [("2026-03-01", 3), ("2026-03-03", 1)], "{kind:?}");
        assert_eq!(
            (&march["points"], &march["streak"], &march["checked_in_today"]),
            (&json!(20), &json!(0), &json!(false))
        );
        client.post("/v1/members/m-1/check-ins", json!({})).await.json(201);
        let now = client.get("/v1/members/m-1/check-ins").await.json(200);
        assert_eq!((&now["checked_in_today"], &now["streak"]), (&json!(true), &json!(1)));
        let refused = client.post("/v1/members/m-1/check-ins", json!({ "effective_at": "2026-03-04T10:00:00Z" })).await;
        assert_eq!(refused.json(409)["code"], "POINTS_CHECK_IN_OUT_OF_ORDER");
        server.assert_sound().await;
    }
}

/// Complaint: clients that report a task themselves, or twice at once, mint points.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_reported_by_the_shop_and_each_report_counts_once() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        let asked =
            json!({ "key": "review", "name": "Write a review", "points": 15, "period": "DAY", "limit_per_period": 2 });
        let task = client.post("/v1/points-tasks", asked.clone()).await;
        assert_eq!(task.header("etag"), Some("\"1\""));
        task.json(201);
        assert_eq!(client.post("/v1/points-tasks", asked).await.json(409)["code"], "POINTS_TASK_EXISTS");
        let path = "/v1/members/m-1/tasks/review/completions";
        let own = server.client(&shop.member).await.post(path, json!({ "completion_id": "r-1" })).await;
        assert_eq!(own.status, 403, "a member cannot reward itself");
        let attempts = (0..12).map(|_| async {
            let mut client = server.client(&shop.service).await;
            let answer = client.post(path, json!({ "completion_id": "r-1" })).await;
            (answer.status.as_u16(), answer.value())
        });
        let answers = join_all(attempts).await;
        assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1, "{kind:?}: {answers:?}");
        assert!(answers.iter().all(|(_, body)| *body == answers[0].1), "{kind:?}");
        assert_eq!((&answers[0].1["completed"], &answers[0].1["points"]), (&json!(true), &json!(15)));
        client.post(path, json!({ "completion_id": "r-2" })).await.json(201);
        let refused = client.post(path, json!({ "completion_id": "r-3" })).await.json(422);
        assert_eq!(refused["code"], "POINTS_TASK_PERIOD_LIMIT_REACHED");
        let shown = server.client(&shop.member).await.get("/v1/members/m-1/tasks").await.json(200);
        assert_eq!(shown["data"][0]["progress"]["completions"], 2, "{shown}");
        assert_eq!(shown["data"][0]["progress"]["open"], false);
        // An edit needs the version as read.
        let path = "/v1/points-tasks/review";
        let edit = async |client: &mut Client, tag: &str, body: Value| {
            client.send("PATCH", path, &[super::JSON, ("if-match", tag)], body.to_string()).await
        };
        assert_eq!(client.send("PATCH", path, &[super::JSON], "{}").await.status, 428);
        assert_eq!(edit(&mut client, "\"7\"", json!({})).await.status, 412);
        let edited = edit(&mut client, "\"1\"", json!({ "points": 20, "enabled": false })).await.json(200);
        assert_eq!((&edited["version"], &edited["points"], &edited["enabled"]), (&json!(2), &json!(20), &json!(false)));
        assert_eq!(client.get("/v1/members/m-1/tasks").await.json(200)["data"], json!([]));
        assert_eq!(client.send("DELETE", path, &[], "").await.status, 204);
        assert_eq!(client.get(path).await.status, 404);
        assert_eq!(client.get("/v1/points-tasks").await.json(200)["data"], json!([]));
        assert_eq!(balance(&mut client, "m-1").await["available"], 30);
        server.assert_sound().await;
    }
}

/// peers 6.11: a task that waits for others says so before it is reported, and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_requires_others_says_what_is_missing() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        let task =
            |key: &str, requires: Value| json!({ "key": key, "name": "Task", "points": 5, "requires": requires });
        let unknown = client.post("/v1/points-tasks", task("review", json!(["visit", "buy"]))).await.json(422);
        assert_eq!(unknown["code"], "POINTS_TASK_REQUIRES_UNKNOWN");
        assert!(text(&unknown, "detail").contains("`requires`") && text(&unknown, "detail").contains("visit, buy"));
        for key in ["visit", "buy"] {
            assert_eq!(client.post("/v1/points-tasks", task(key, Value::Null)).await.json(201)["requires"], json!([]));
        }
        let made = client.post("/v1/points-tasks", task("review", json!(["visit", "buy"]))).await.json(201);
        assert_eq!(made["requires"], json!(["visit", "buy"]));
        let edit = async |client: &mut Client, key: &str, tag: &str, requires: Value| {
            let body = json!({ "requires": requires }).to_string();
            client.send("PATCH", &format!("/v1/points-tasks/{key}"), &[super::JSON, ("if-match", tag)], body).await
        };
        let circle = edit(&mut client, "visit", "\"1\"", json!(["review"])).await.json(422);
        assert_eq!(circle["code"], "POINTS_TASK_REQUIRES_ITSELF");
        assert!(text(&circle, "detail").contains("review"), "{circle}");
        let own = edit(&mut client, "visit", "\"1\"", json!(["visit"])).await.json(400);
        assert_eq!(own["errors"][0]["field"], "requires[0]");

        let mut member = server.client(&shop.member).await;
        let shown = async |member: &mut Client| {
            let list = member.get("/v1/members/m-1/tasks").await.json(200);
            let rows = list["data"].as_array().expect("tasks").iter();
            rows.map(|row| (text(&row["task"], "key").to_owned(), row["available"] == true, row["missing"].clone()))
                .collect::<Vec<_>>()
        };
        let row = |key: &str, available, missing: Value| (key.to_owned(), available, missing);
        let expected =
            [row("buy", true, json!([])), row("review", false, json!(["visit", "buy"])), row("visit", true, json!([]))];
        assert_eq!(shown(&mut member).await, expected, "{kind:?}");
        let report = async |client: &mut Client, key: &str| {
            let path = format!("/v1/members/m-1/tasks/{key}/completions");
            client.post(&path, json!({ "completion_id": "c-1" })).await
        };
        report(&mut client, "visit").await.json(201);
        let early = report(&mut client, "review").await.json(422);
        assert_eq!(early["code"], "POINTS_TASK_PREREQUISITES_MISSING");
        assert!(text(&early, "detail").contains("buy") && !text(&early, "detail").contains("visit"), "{early}");
        let chinese = [super::JSON, ("accept-language", "zh")];
        let path = "/v1/members/m-1/tasks/review/completions";
        let early = client.send("POST", path, &chinese, "{\"completion_id\":\"c-1\"}").await.json(422);
        assert!(text(&early, "detail").contains("尚未完成：buy"), "{early}");
        // Done once, it has no room for more, and is none that is missing.
        let expected =
            [row("buy", true, json!([])), row("review", false, json!(["buy"])), row("visit", false, json!([]))];
        assert_eq!(shown(&mut member).await, expected, "{kind:?}");
        // What is deleted lapses.
        assert_eq!(client.send("DELETE", "/v1/points-tasks/buy", &[], "").await.status, 204);
        let expected = [row("review", true, json!([])), row("visit", false, json!([]))];
        assert_eq!(shown(&mut member).await, expected, "{kind:?}");
        report(&mut client, "review").await.json(201);
        let left = edit(&mut client, "review", "\"1\"", Value::Null).await.json(200);
        assert_eq!(left["requires"], json!([]));
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adjustment_has_a_reason_a_limit_and_a_name() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let key = limited_key(&server, &shop, 100).await;
        let mut client = server.client(&key).await;
        let path = "/v1/members/m-1/points/adjustments";
        let given = client.post(path, json!({ "points": 100, "reason": "goodwill" })).await.json(201);
        assert_eq!((&given["type"], &given["remark"]), (&json!("EARN_ADMIN"), &json!("goodwill")));
        let taken = client.post(path, json!({ "points": -40, "reason": "mistake" })).await.json(201);
        assert_eq!((&taken["type"], &taken["points"]), (&json!("DEDUCT_ADMIN"), &json!(-40)));
        for body in [json!({ "points": 101, "reason": "r" }), json!({ "points": -101, "reason": "r" })] {
            assert_eq!(client.post(path, body).await.json(403)["code"], "POINTS_ADJUSTMENT_LIMIT");
        }
        // There is no way around it.
        let grant = json!({ "points": 101, "type": "EARN_ADMIN" });
        assert_eq!(
            client.post("/v1/members/m-1/points/grants", grant).await.json(403)["code"],
            "POINTS_ADJUSTMENT_LIMIT"
        );
        let later = json!({ "points": 101, "type": "EARN_ADMIN", "mode": "async" });
        assert_eq!(
            client.post("/v1/members/m-1/points/grants", later).await.json(403)["code"],
            "POINTS_ADJUSTMENT_LIMIT"
        );
        let file = "member_id,points,type\nm-9,101,EARN_ADMIN\nm-9,100,EARN_ADMIN\nm-9,500,EARN_ORDER\n";
        let begun = client.send("POST", "/v1/points-grants", &[("content-type", "text/csv")], file).await.json(202);
        assert_eq!((&begun["rows"], &begun["skipped"]), (&json!(3), &json!(1)), "{begun}");
        let unlimited = server.client(&shop.operator).await.post(path, json!({ "points": 5000, "reason": "r" })).await;
        assert_eq!(unlimited.status, 201);
        let page = server
            .store
            .stream("SELECT count(*) FROM event WHERE type = 'points.granted' AND member_id = 'm-1' AND actor_id IS NOT NULL", &[], |row| {
                row.int(0)
            })
            .await
            .expect("a count");
        assert_eq!(page, [2], "the log says who did it");
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_leads_from_its_opening_to_its_closing_line_by_line() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        let mut lines = vec![
            json!({ "op": "grant", "member_id": "m-1", "points": 1000, "effective_at": "2026-02-27T10:00:00Z" })
                .to_string(),
        ];
        // More than a page of lines in March.
        for minute in 0..1_200 {
            let at = format!("2026-03-{:02}T{:02}:{:02}:00Z", 1 + minute / 600, minute % 600 / 60, minute % 60);
            let line = json!({ "op": "grant", "member_id": "m-1", "points": 1, "remark": "=1+1", "effective_at": at });
            lines.push(line.to_string());
        }
        lines.push(
            json!({ "op": "debit", "member_id": "m-1", "points": 700, "effective_at": "2026-04-01T00:00:00Z" })
                .to_string(),
        );
        let sent =
            client.send("POST", "/v1/batch", &[("content-type", "application/x-ndjson")], lines.join("\n")).await;
        assert_eq!(sent.status, 200);
        let path = "/v1/members/m-1/points/statement?from=2026-03-01&to=2026-03-31";
        let march = client.get(path).await.json(200);
        assert_eq!((&march["opening"]["available"], &march["closing"]["available"]), (&json!(1000), &json!(2200)));
        let shown = march["lines"].as_array().expect("lines");
        assert_eq!(shown.len(), 1_200, "{kind:?}");
        let chained = shown.windows(2).all(|pair| pair[0]["balance_after"] == pair[1]["balance_before"]);
        assert!(chained && shown[0]["balance_before"] == 1000);
        let csv = client.get(&format!("{path}&format=csv")).await;
        assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
        let text = String::from_utf8(csv.body.to_vec()).expect("UTF-8");
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 1 + 1 + 1_200 + 1, "a heading, the opening, the lines, the closing");
        assert!(rows[1].contains(",OPENING,") && rows[rows.len() - 1].contains(",CLOSING,"), "{kind:?}");
        assert!(rows[2].contains(",'=1+1,"), "a spreadsheet must not run what a member wrote: {}", rows[2]);
        // By when they were written, all lines are of today.
        let recorded = client.get(&format!("{path}&basis=RECORDED")).await.json(200);
        assert_eq!((&recorded["lines"], &recorded["closing"]["available"]), (&json!([]), &json!(0)));
        let export = client.get("/v1/exports/points-transactions?type=USE_ORDER").await;
        assert_eq!(String::from_utf8_lossy(&export.body).lines().count(), 2, "{kind:?}");
        let export = client.get("/v1/exports/points-transactions").await;
        assert_eq!(String::from_utf8_lossy(&export.body).lines().count(), 1 + 1_202, "{kind:?}");
        let export = client.get("/v1/exports/points-balances").await;
        let text = String::from_utf8_lossy(&export.body).into_owned();
        assert!(text.contains("\nm-1,1500,0,700,0,0,2200,0,,"), "{text}");
        let one_day = client.get("/v1/exports/points-transactions?from=2026-04-01&to=2026-04-01").await;
        assert_eq!(String::from_utf8_lossy(&one_day.body).lines().count(), 2, "{kind:?}: the head and the debit");
        for name in ["points-transactions", "points-balances"] {
            let sheet = client.get(&format!("/v1/exports/{name}?format=xlsx")).await;
            assert!(sheet.body.starts_with(b"PK"), "{kind:?}: {name}");
            let disposition = format!("attachment; filename=\"{name}.xlsx\"");
            assert_eq!(sheet.header("content-disposition"), Some(&*disposition), "{kind:?}");
        }
        let none = client.get("/v1/members/nobody/points/statement").await.json(200);
        assert_eq!((&none["lines"], &none["opening"]["available"]), (&json!([]), &json!(0)));
        server.assert_sound().await;
    }
}

/// Complaint: no report of what will expire (kademi#2860), nor of what is left of each credit (tachiya#142).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_soon_is_listed_soonest_first_page_by_page() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        let own: Vec<String> = (0..25).map(|number| format!("m-{number}")).collect();
        for member in &own {
            // All at one instant: the end of a day.
            grant(&mut client, member, json!({ "points": 5, "expires_in_days": 3 })).await;
        }
        grant(&mut client, "m-late", json!({ "points": 5, "expires_in_days": 40 })).await;
        grant(&mut client, "m-never", json!({ "points": 5 })).await;
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page =
                client.get(&format!("/v1/points/expiring?within_days=30&limit=7&cursor={cursor}")).await.json(200);
            for lot in page["data"].as_array().expect("a page") {
                assert_eq!(lot["points"], 5);
                seen.push(text(lot, "member_id").to_owned());
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        seen.sort();
        let mut expected = own.clone();
        expected.sort();
        assert_eq!(seen, expected, "{kind:?}");
        server.assert_sound().await;
    }
}

/// A task that its own grant reported would grant for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_completed_task_brings_about_can_report_a_task() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        // A debt, which the task's points settle.
        let granted = grant(&mut client, "m-1", json!({ "points": 10 })).await;
        client.post("/v1/members/m-1/points/debits", json!({ "points": 10 })).await.json(201);
        let reversal = format!("/v1/points-transactions/{}/reversals", text(&granted, "id"));
        client.post(&reversal, json!({})).await.json(201);
        let task =
            |key: &str, event: Option<&str>| json!({ "key": key, "name": "Task", "points": 20, "event_type": event });
        client.post("/v1/points-tasks", task("own", None)).await.json(201);
        let done = "/v1/members/m-1/tasks/own/completions";
        client.post(done, json!({ "completion_id": "c-1" })).await.json(201);
        // On PostgreSQL an event shows once no older transaction of the whole server runs.
        let give_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let types = loop {
            let events = client.get("/v1/events?limit=100").await.json(200);
            let types = events["data"].as_array().expect("events").iter().map(|event| text(event, "type").to_owned());
            let types: Vec<String> = types.skip_while(|name| name != "points_task.created").skip(1).collect();
            if types.iter().any(|name| name == "points_task.completed") {
                break types;
            }
            assert!(std::time::Instant::now() < give_up, "{kind:?}: the events do not show");
        };
        for name in ["points.granted", "points.debt_settled"] {
            assert!(types.iter().any(|other| other == name), "{kind:?}: {types:?}");
        }
        for name in types {
            let refused = client.post("/v1/points-tasks", task("fed", Some(&name))).await.json(400);
            assert_eq!(refused["errors"][0]["field"], "event_type", "{kind:?}: {name}");
        }
        client.post("/v1/points-tasks", task("fed", Some("points.debited"))).await.json(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_are_listed_by_the_status_they_have_now() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        grant(&mut client, "m-1", json!({ "points": 100, "effective_at": "2026-01-01T00:00:00Z" })).await;
        let holds = "/v1/members/m-1/points/holds";
        let mut made = Vec::new();
        // Of the first two, only one deadline has come; no sweep runs in between.
        for body in [
            json!({ "points": 1, "effective_at": "2026-01-02T00:00:00Z", "expires_at": "2037-01-01T00:00:00Z" }),
            json!({ "points": 2, "effective_at": "2026-01-03T00:00:00Z", "expires_at": "2026-01-04T00:00:00Z" }),
            json!({ "points": 3 }),
            json!({ "points": 4 }),
        ] {
            made.push(text(&client.post(holds, body).await.json(201), "id").to_owned());
        }
        client.post(&format!("/v1/points-holds/{}/capture", made[2]), json!({})).await.json(200);
        client.post(&format!("/v1/points-holds/{}/release", made[3]), json!({})).await.json(200);
        for (status, expected) in [
            ("", vec![3, 2, 1, 0]),
            ("?status=OPEN", vec![0]),
            ("?status=EXPIRED", vec![1]),
            ("?status=CAPTURED", vec![2]),
            ("?status=RELEASED", vec![3]),
        ] {
            let page = client.get(&format!("{holds}{status}")).await.json(200);
            let rows = page["data"].as_array().expect("holds");
            let shown: Vec<&str> = rows.iter().map(|row| text(row, "id")).collect();
            let expected: Vec<&str> = expected.into_iter().map(|place: usize| made[place].as_str()).collect();
            assert_eq!(shown, expected, "{kind:?} {status}");
            for row in rows {
                assert!(status.is_empty() || status.ends_with(text(row, "status")), "{kind:?} {status}: {row}");
            }
        }
        let none = client.get("/v1/members/m-2/points/holds").await.json(200);
        assert_eq!(none["data"], json!([]), "{kind:?}");
        let refused = client.get(&format!("{holds}?status=open")).await.json(400);
        assert_eq!(refused["errors"][0]["field"], "status", "{kind:?}");
        // A member sees its own, nobody else's.
        let mut own = server.client(&shop.member).await;
        assert_eq!(own.get("/v1/members/m-9/points/holds").await.status, 403, "{kind:?}");
        server.assert_sound().await;
    }
}

/// An auditor's page: what was earned is spent, expired, revoked or owed, by the month in which it would expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_liability_tells_what_is_owed_until_when() {
    for kind in KINDS {
        let (fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        let mut lots = Vec::new();
        for (member, points, expires_at) in [
            ("m-1", 100, json!("2090-03-31T23:59:59Z")),
            ("m-2", 40, json!("2090-03-01T00:00:00Z")),
            ("m-2", 7, json!("2091-01-15T12:00:00Z")),
            ("m-1", 5, json!(null)),
        ] {
            let grant = json!({ "points": points, "expires_at": expires_at });
            lots.push(client.post(&format!("/v1/members/{member}/points/grants"), grant).await.json(201));
        }
        client.post("/v1/members/m-1/points/debits", json!({ "points": 30, "type": "USE_ORDER" })).await.json(201);
        client.post("/v1/members/m-2/points/holds", json!({ "points": 45 })).await.json(201);
        let path = format!("/v1/points-transactions/{}/reversals", text(&lots[3], "id"));
        client.post(&path, json!({ "points": 2 })).await.json(201);
        let owed = |months: &[(Option<&str>, i64)]| -> Value {
            months.iter().map(|(month, points)| json!({ "month": month, "points": points })).collect()
        };
        let read = client.get("/v1/reports/points-liability").await.json(200);
        let expected =
            [("issued", 152), ("redeemed", 30), ("expired", 0), ("revoked", 2), ("held", 45), ("outstanding", 120)];
        for (name, points) in expected {
            assert_eq!(read[name], points, "{kind:?} {name}: {read}");
        }
        let by_month = [(Some("2090-03"), 110), (Some("2091-01"), 7), (None, 3)];
        assert_eq!(read["by_month"], owed(&by_month), "{kind:?}");
        // What is held does not expire; the rest does, whether or not anybody has written so.
        let later = client.get("/v1/reports/points-liability?as_of=2090-04-01T00:00:00Z").await.json(200);
        assert_eq!((&later["expired"], &later["outstanding"]), (&json!(70), &json!(50)), "{kind:?}: {later}");
        assert_eq!(later["by_month"], owed(&[(Some("2090-03"), 40), (Some("2091-01"), 7), (None, 3)]), "{kind:?}");
        assert_eq!(later["breakage_rate_bp"], 70 * 10_000 / 152, "{kind:?}");
        // What a claw-back writes off is told beside the others, whose sum stays.
        let forgive = json!({ "refund": { "debt_policy": "FORGIVE" } });
        let headers = [JSON, ("if-match", "\"0\"")];
        assert_eq!(client.send("PUT", "/v1/points-rules", &headers, forgive.to_string()).await.status, 200, "{kind:?}");
        let earned = client.post("/v1/members/m-3/points/grants", json!({ "points": 9 })).await.json(201);
        client.post("/v1/members/m-3/points/debits", json!({ "points": 6 })).await.json(201);
        let path = format!("/v1/points-transactions/{}/reversals", text(&earned, "id"));
        assert_eq!(client.post(&path, json!({})).await.json(201)["points_forgiven"], 6, "{kind:?}");
        let read = client.get("/v1/reports/points-liability").await.json(200);
        let expected = [
            ("issued", 161),
            ("redeemed", 36),
            ("expired", 0),
            ("revoked", 5),
            ("outstanding", 120),
            ("debt", 0),
            ("forgiven", 6),
        ];
        for (name, points) in expected {
            assert_eq!(read[name], points, "{kind:?} {name}: {read}");
        }
        let tenant: TenantId = shop.id.parse().expect("an id");
        let liability = Liability::read(&fixture.store, tenant, &TimeZone::UTC, scrip_server::clock::now())
            .await
            .expect("a report");
        assert_eq!(liability.forgiven, 6, "{kind:?}");
        assert!(liability.to_csv().contains("\nforgiven,6\n"), "{kind:?}: {}", liability.to_csv());
        assert!(liability.to_text().lines().any(|line| line.split_whitespace().eq(["forgiven", "6"])), "{kind:?}");
        assert!(liability.to_svg().contains("outstanding 120   forgiven 6<"), "{kind:?}");
        // The past is another question.
        let early = client.get("/v1/reports/points-liability?as_of=2020-01-01T00:00:00Z").await.json(400);
        assert_eq!(early["errors"][0]["field"], "as_of", "{kind:?}: {early}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_are_exchanged_for_a_coupon_once_and_both_sides_name_each_other() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut client = server.client(&shop.operator).await;
        let mut body = template();
        body["points_price"] = json!(40);
        body["limit_per_member"] = json!(5);
        let made = client.post("/v1/coupon-templates", body).await.json(201);
        assert_eq!(made["points_price"], 40, "{kind:?}");
        let path = format!("/v1/coupon-templates/{}", text(&made, "id"));
        grant(&mut client, "m-1", json!({ "points": 100 })).await;
        let free = client.post(&format!("{path}/claims"), json!({ "member_id": "m-1" })).await.json(422);
        assert_eq!(free["code"], "COUPON_FOR_POINTS", "{kind:?}");
        // The member pays for itself; the same request again is the same coupon.
        let mut own = server.client(&shop.member).await;
        let exchanges = format!("{path}/exchanges");
        let key = [JSON, ("idempotency-key", "exchange-1")];
        let asked = json!({ "member_id": "m-1" }).to_string();
        let first = own.send("POST", &exchanges, &key, asked.clone()).await.json(201);
        let again = own.send("POST", &exchanges, &key, asked).await.json(201);
        assert_eq!(first, again, "{kind:?}");
        let (coupon, line) = (&first["coupon"], &first["transaction"]);
        assert_eq!((&coupon["source"], &coupon["member_id"]), (&json!("EXCHANGE"), &json!("m-1")), "{kind:?}");
        assert_eq!((&line["type"], &line["points"]), (&json!("USE_COUPON"), &json!(-40)), "{kind:?}");
        assert_eq!(line["reference"], coupon["id"], "{kind:?}");
        assert_eq!(line["balance_after"], 60, "{kind:?}");
        own.post(&exchanges, json!({ "member_id": "m-2" })).await.json(403);
        // As a line of a batch it is the same.
        let line_of = json!({ "op": "exchange", "template_id": made["id"], "member_id": "m-1" });
        let lines = format!("{line_of}\n{line_of}");
        let batch = client.send("POST", "/v1/batch", &[("content-type", "application/x-ndjson")], lines).await;
        let lines = batch.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines: Vec<Value> = lines.map(|line| serde_json::from_slice(line).expect("a line")).collect();
        assert_eq!((&lines[0]["status"], &lines[1]["status"]), (&json!(201), &json!(422)), "{kind:?}: {lines:?}");
        assert_eq!(lines[0]["body"]["transaction"]["balance_after"], 20, "{kind:?}");
        assert_eq!(lines[1]["error"]["code"], "POINTS_INSUFFICIENT", "{kind:?}");
        let now = client.get(&path).await.json(200);
        assert_eq!(now["claimed_count"], 2, "{kind:?}");
        // What is owed to the member is given back by its transaction.
        let revoke = format!("/v1/coupons/{}/revoke", text(coupon, "id"));
        client.post(&revoke, json!({ "reason": "broken" })).await.json(200);
        let back = format!("/v1/points-transactions/{}/reversals", text(line, "id"));
        client.post(&back, json!({})).await.json(201);
        let balance = client.get("/v1/members/m-1/points").await.json(200);
        assert_eq!((&balance["available"], &balance["used"]), (&json!(60), &json!(40)), "{kind:?}");
        // Without a price it is claimed again, and not exchanged.
        let edit = json!({ "points_price": null }).to_string();
        client.send("PATCH", &path, &[JSON, ("if-match", "\"1\"")], edit).await.json(200);
        let refused = client.post(&exchanges, json!({ "member_id": "m-1" })).await.json(422);
        assert_eq!(refused["code"], "COUPON_NOT_FOR_POINTS", "{kind:?}");
        client.post(&format!("{path}/claims"), json!({ "member_id": "m-1" })).await.json(201);
        server.assert_sound().await;
    }
}

/// Above the number that the rules name, points moved by hand wait for a second key, and no other way leads around it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_adjustment_waits_for_the_approval_of_another_key() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut desk = server.client(&shop.operator).await;
        let rules = json!({ "adjustments": { "approval_above": 100 } }).to_string();
        let set = desk.send("PUT", "/v1/points-rules", &[JSON, ("if-match", "\"0\"")], rules).await.json(200);
        assert_eq!(set["adjustments"]["approval_above"], 100, "{kind:?}");
        let path = "/v1/members/m-1/points/adjustments";
        desk.post(path, json!({ "points": 100, "reason": "small" })).await.json(201);
        let asked = json!({ "points": 500, "reason": "goodwill", "reference": "t-1" });
        let key = [JSON, ("idempotency-key", "adjust-1")];
        let waits = desk.send("POST", path, &key, asked.to_string()).await;
        let place = waits.header("location").expect("a place").to_owned();
        let waits = waits.json(202);
        let again = desk.send("POST", path, &key, asked.to_string()).await.json(202);
        assert_eq!(waits, again, "{kind:?}: one request is one adjustment");
        assert_eq!((&waits["status"], &waits["transaction_id"]), (&json!("PENDING"), &Value::Null), "{kind:?}");
        assert_eq!(balance(&mut desk, "m-1").await["available"], 100, "{kind:?}: nothing has moved");
        assert_eq!(desk.get(&place).await.json(200), waits, "{kind:?}");
        for (path, body) in [
            ("/v1/members/m-1/points/grants", json!({ "points": 101, "type": "EARN_ADMIN" })),
            ("/v1/members/m-1/points/grants", json!({ "points": 101, "type": "EARN_ADMIN", "mode": "async" })),
            ("/v1/members/m-1/points/debits", json!({ "points": 101, "type": "DEDUCT_ADMIN" })),
        ] {
            let refused = desk.post(path, body).await.json(403);
            assert_eq!(refused["code"], "POINTS_APPROVAL_NEEDED", "{kind:?}");
            assert!(text(&refused, "detail").contains("/points/adjustments"), "{kind:?}: {refused}");
        }
        let lines = json!({ "op": "grant", "member_id": "m-1", "points": 101, "type": "EARN_ADMIN" }).to_string();
        let batch = desk.send("POST", "/v1/batch", &[("content-type", "application/x-ndjson")], lines).await;
        assert!(String::from_utf8_lossy(&batch.body).contains("POINTS_APPROVAL_NEEDED"), "{kind:?}");
        let approve = format!("{place}/approve");
        let own = desk.post(&approve, json!({})).await.json(403);
        assert_eq!(own["code"], "POINTS_ADJUSTMENT_OWN", "{kind:?}");
        let limited = limited_key(&server, &shop, 499).await;
        let limited = server.client(&limited).await.post(&approve, json!({})).await.json(403);
        assert_eq!(limited["code"], "POINTS_ADJUSTMENT_LIMIT", "{kind:?}");
        // Many approve at once: one line.
        let second = limited_key(&server, &shop, 500).await;
        let approvals = (0..8).map(|_| async {
            let mut client = server.client(&second).await;
            client.post(&approve, json!({})).await.json(200)
        });
        let approved = join_all(approvals).await;
        assert!(
            approved.iter().all(|one| one == &approved[0] && one["status"] == "APPROVED"),
            "{kind:?}: {approved:?}"
        );
        let line = format!("/v1/points-transactions/{}", text(&approved[0], "transaction_id"));
        let line = desk.get(&line).await.json(200);
        assert_eq!((&line["type"], &line["points"]), (&json!("EARN_ADMIN"), &json!(500)), "{kind:?}");
        assert_eq!((&line["remark"], &line["reference"]), (&json!("goodwill"), &json!("t-1")), "{kind:?}");
        assert_eq!(balance(&mut desk, "m-1").await["available"], 600, "{kind:?}");
        let late = desk.post(&format!("{place}/reject"), json!({ "reason": "late" })).await.json(409);
        assert_eq!(late["code"], "POINTS_ADJUSTMENT_CLOSED", "{kind:?}");
        // One that is not approved ends by a rejection, with its reason.
        let other = desk.post(path, json!({ "points": -101, "reason": "mistake" })).await.json(202);
        let reject = format!("/v1/points-adjustments/{}/reject", text(&other, "id"));
        let bare = desk.post(&reject, json!({})).await.json(400);
        assert_eq!(bare["errors"][0]["field"], "reason", "{kind:?}");
        let rejected = desk.post(&reject, json!({ "reason": "no mistake" })).await.json(200);
        assert_eq!((&rejected["status"], &rejected["remark"]), (&json!("REJECTED"), &json!("no mistake")), "{kind:?}");
        for (status, count) in [("", 2), ("?status=PENDING", 0), ("?status=APPROVED", 1), ("?status=REJECTED", 1)] {
            let page = desk.get(&format!("/v1/points-adjustments{status}")).await.json(200);
            assert_eq!(page["data"].as_array().expect("rows").len(), count, "{kind:?} {status}");
        }
        server.client(&shop.service).await.get("/v1/points-adjustments").await.json(403);
        let told = "SELECT count(*) FROM event WHERE type LIKE 'points_adjustment.%' AND actor_id IS NOT NULL";
        let told = server.store.stream(told, &[], |row| row.int(0)).await.expect("a count");
        assert_eq!(told, [4], "{kind:?}: requested, approved, requested, rejected");
        server.assert_sound().await;
    }
}
