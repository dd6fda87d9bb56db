//! Pages of every size show each row once, also while others are added; edits are guarded by entity tags.

use std::collections::HashSet;

use serde_json::json;

use super::{Client, JSON, start, template, text};
use crate::harness::{KINDS, Kind};

/// Every row of a list, page by page; `between` runs after the first page.
async fn walk(
    client: &mut Client,
    path: &str,
    limit: usize,
    between: Option<(&str, serde_json::Value)>,
) -> Vec<String> {
    let join = if path.contains('?') { '&' } else { '?' };
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    let mut between = between;
    loop {
        let page = client.get(&format!("{path}{join}limit={limit}&cursor={cursor}")).await.json(200);
        let rows = page["data"].as_array().expect("rows");
        assert!(rows.len() <= limit);
        ids.extend(rows.iter().map(|row| text(row, "id").to_owned()));
        if let Some((path, body)) = between.take() {
            client.post(path, body).await.json(201);
        }
        match page["next_cursor"].as_str() {
            // The event log always has a next cursor; it ends with an empty page.
            Some(next) if !rows.is_empty() => cursor = next.to_owned(),
            _ => return ids,
        }
    }
}

async fn check(kind: Kind) {
    let (_fixture, server) = start(kind).await;
    let shop = server.shop().await;
    let mut client = server.client(&shop.operator).await;
    for _ in 0..15 {
        client.post("/v1/members/m-1/points/grants", json!({ "points": 5 })).await.json(201);
        client.post("/v1/members/m-1/points/holds", json!({ "points": 1 })).await.json(201);
        let made = client.post("/v1/coupon-templates", template()).await.json(201);
        let claims = format!("/v1/coupon-templates/{}/claims", text(&made, "id"));
        client.post(&claims, json!({ "member_id": "m-1" })).await.json(201);
    }
    let made = client.post("/v1/coupon-templates", template()).await.json(201);
    let claims = format!("/v1/coupon-templates/{}/claims", text(&made, "id"));
    let grants = "/v1/members/m-1/points/grants";
    for (path, adding, body, rows) in [
        ("/v1/coupon-templates", "/v1/coupon-templates", template(), 16),
        ("/v1/members/m-1/coupons", claims.as_str(), json!({ "member_id": "m-1" }), 15),
        ("/v1/members/m-1/coupons?status=AVAILABLE", grants, json!({ "points": 1 }), 16),
        ("/v1/members/m-1/points/transactions", grants, json!({ "points": 1 }), 31),
        ("/v1/members/m-1/points/lots", grants, json!({ "points": 1 }), 17),
        ("/v1/members/m-1/points/holds", "/v1/members/m-1/points/holds", json!({ "points": 1 }), 15),
        ("/v1/members/m-1/points/holds?status=OPEN", grants, json!({ "points": 1 }), 16),
    ] {
        let before: HashSet<String> = walk(&mut client, path, 200, None).await.into_iter().collect();
        assert_eq!(before.len(), rows, "{kind:?} {path}");
        for (limit, between) in [(1, None), (7, Some((adding, body.clone())))] {
            let seen = walk(&mut client, path, limit, between).await;
            let distinct: HashSet<String> = seen.iter().cloned().collect();
            assert_eq!(distinct.len(), seen.len(), "{kind:?} {path} in pages of {limit}: a row came twice");
            assert!(before.is_subset(&distinct), "{kind:?} {path} in pages of {limit}: a row was skipped");
        }
    }
    let seen = walk(&mut client, "/v1/events", 9, None).await;
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len());
    for bad in ["cursor=x", "limit=0", "limit=201", "limit=x", "page=2", "limit=1&limit=2"] {
        let refused = client.get(&format!("/v1/coupon-templates?{bad}")).await.json(400);
        assert_eq!(refused["code"], "INVALID_REQUEST", "{bad}");
    }

    let path = format!("/v1/coupon-templates/{}", text(&made, "id"));
    let read = client.get(&path).await;
    let tag = read.header("etag").expect("a tag").to_owned();
    let unchanged = client.send("GET", &path, &[("if-none-match", &tag)], "").await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    let patch = json!({ "name": "renamed" }).to_string();
    let without = client.send("PATCH", &path, &[JSON], patch.clone()).await.json(428);
    assert_eq!(without["code"], "PRECONDITION_REQUIRED");
    let changed = client.send("PATCH", &path, &[JSON, ("if-match", &tag)], patch.clone()).await;
    assert_eq!((changed.json(200)["name"].as_str(), changed.header("etag") == Some(&tag)), (Some("renamed"), false));
    let stale = client.send("PATCH", &path, &[JSON, ("if-match", &tag)], patch).await.json(412);
    assert_eq!(stale["code"], "COUPON_TEMPLATE_VERSION_STALE");
    server.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_every_row_once_and_edits_need_the_version_seen() {
    for kind in KINDS {
        check(kind).await;
    }
}
