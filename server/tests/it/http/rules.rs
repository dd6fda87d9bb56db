//! Rules of points and orders: set in versions, scheduled, looked back at.

use jiff::tz::TimeZone;
use scrip_server::calendar::end_of_day_after;
use serde_json::{Value, json};

use super::{Answer, Client, JSON, start, text};
use crate::harness::{KINDS, Kind};

async fn put(client: &mut Client, tag: &str, body: Value) -> Answer {
    client.send("PUT", "/v1/points-rules", &[JSON, ("if-match", tag)], body.to_string()).await
}

async fn check(kind: Kind) {
    let (_fixture, server) = start(kind).await;
    let shop = server.shop().await;
    let mut operator = server.client(&shop.operator).await;
    let unset = operator.get("/v1/points-rules").await;
    assert_eq!(unset.header("etag"), Some("\"0\""));
    let unset = unset.json(200);
    assert_eq!(
        (&unset["version"], &unset["earn"]["base"], &unset["redeem"]["max_percent"]),
        (&json!(0), &json!(100), &json!(50))
    );

    let first = put(&mut operator, "\"0\"", json!({ "earn": { "ratio": 2 } })).await;
    assert_eq!(first.header("etag"), Some("\"1\""));
    assert_eq!(first.json(200)["earn"]["ratio"], 2);
    let stale = put(&mut operator, "\"0\"", json!({ "earn": { "ratio": 3 } })).await.json(412);
    assert_eq!(stale["code"], "POINTS_RULES_VERSION_STALE");
    let foreign = put(&mut operator, "W/\"x\"", json!({})).await.json(412);
    assert!(text(&foreign, "detail").contains('1'), "{foreign}");

    // A scheduled version holds from its date, not before, and shows in the tag.
    let later = json!({ "earn": { "ratio": 5 }, "effective_from": "2099-01-01T00:00:00Z" });
    assert_eq!(put(&mut operator, "\"1\"", later).await.json(200)["version"], 2);
    let now = operator.get("/v1/points-rules").await;
    assert_eq!(now.header("etag"), Some("\"2\""));
    let now = now.json(200);
    assert_eq!((&now["version"], &now["newest_version"], &now["earn"]["ratio"]), (&json!(1), &json!(2), &json!(2)));
    let then = operator.get("/v1/points-rules?at=2099-01-01T00:00:00Z").await.json(200);
    assert_eq!((&then["version"], &then["earn"]["ratio"]), (&json!(2), &json!(5)));
    let before = operator.get("/v1/points-rules?at=2098-12-31T23:59:59.999999Z").await.json(200);
    assert_eq!(before["version"], 1);

    // Another of the same date takes its place.
    let instead = json!({ "earn": { "ratio": 7 }, "effective_from": "2099-01-01T00:00:00Z" });
    assert_eq!(put(&mut operator, "\"2\"", instead).await.json(200)["version"], 3);
    let then = operator.get("/v1/points-rules?at=2100-01-01T00:00:00Z").await.json(200);
    assert_eq!((&then["version"], &then["earn"]["ratio"]), (&json!(3), &json!(7)));

    let past = json!({ "effective_from": "2020-01-01T00:00:00Z" });
    assert_eq!(put(&mut operator, "\"3\"", past).await.json(422)["code"], "DEADLINE_PASSED");

    let page = operator.get("/v1/points-rules/versions?limit=2").await.json(200);
    let numbers =
        |page: &Value| page["data"].as_array().unwrap().iter().map(|one| one["version"].clone()).collect::<Vec<_>>();
    assert_eq!(numbers(&page), [json!(3), json!(2)]);
    let rest =
        operator.get(&format!("/v1/points-rules/versions?cursor={}", text(&page, "next_cursor"))).await.json(200);
    assert_eq!(numbers(&rest), [json!(1)]);
    assert_eq!(rest["next_cursor"], Value::Null);

    let mut service = server.client(&shop.service).await;
    assert_eq!(service.get("/v1/points-rules").await.status, 200);
    assert_eq!(put(&mut service, "\"3\"", json!({})).await.status, 403);
    let mut other = server.client(&server.shop().await.operator).await;
    assert_eq!(other.get("/v1/points-rules").await.json(200)["version"], 0, "another tenant has its own");
    server.assert_sound().await;
}

/// Seen from outside: what is earned under the rule says so, and what an operator gives has the end that it was given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_may_expire_by_inactivity() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let mut operator = server.client(&shop.operator).await;
        let rules = json!({ "validity": { "type": "INACTIVITY", "days": 90 } });
        let set = put(&mut operator, "\"0\"", rules.clone()).await.json(200);
        assert_eq!(set["validity"], rules["validity"], "{kind:?}");
        let zone = TimeZone::get("UTC").expect("a zone");
        let ends = || end_of_day_after(&zone, scrip_server::clock::now(), 90);
        let before = ends();
        let made = operator.post("/v1/members/m-1/check-ins", json!({})).await;
        assert_eq!(made.status, 201, "{kind:?}");
        let by_hand = json!({ "points": 5, "type": "EARN_ADMIN", "expires_at": "2099-01-01T00:00:00Z" });
        assert_eq!(operator.post("/v1/members/m-1/points/grants", by_hand).await.status, 201, "{kind:?}");
        assert_eq!(
            operator.post("/v1/members/m-1/points/debits", json!({ "points": 1 })).await.status,
            201,
            "{kind:?}"
        );
        let time =
            |shown: &Value| text(shown, "expires_at").parse::<jiff::Timestamp>().expect("a time").as_microsecond();
        let lots = operator.get("/v1/members/m-1/points/lots").await.json(200)["data"].clone();
        assert_eq!((&lots[0]["idle_days"], &lots[0]["remaining"]), (&json!(90), &json!(9)), "{kind:?}: {lots}");
        // The day may have ended in between.
        assert!((before.0..=ends().0).contains(&time(&lots[0])), "{kind:?}: {lots}");
        assert_eq!((&lots[1]["idle_days"], &lots[1]["remaining"]), (&Value::Null, &json!(5)), "{kind:?}: {lots}");
        let lines = operator.get("/v1/members/m-1/points/transactions?type=EARN_CHECKIN").await.json(200);
        assert!((before.0..=time(&lots[0])).contains(&time(&lines["data"][0])), "{kind:?}: {lines}");
        server.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_set_in_versions_that_never_change() {
    for kind in KINDS {
        check(kind).await;
    }
}

/// Two operators at once: one wins, the other is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_changes_at_once_one_is_told_to_read_again() {
    for kind in KINDS {
        let (_fixture, server) = start(kind).await;
        let shop = server.shop().await;
        let (server, shop) = (&server, &shop);
        let setting = (1..9).map(|ratio| async move {
            let mut client = server.client(&shop.operator).await;
            put(&mut client, "\"0\"", json!({ "earn": { "ratio": ratio } })).await.status.as_u16()
        });
        let mut statuses = futures_util::future::join_all(setting).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412], "{kind:?}");
        server.assert_sound().await;
    }
}
