//! Distributions through the API: under way at once, followed to the end, read row by row.

use serde_json::{Value, json};

use super::{Client, start, template, text};
use crate::harness::{KINDS, Kind};

async fn done(client: &mut Client, path: &str) -> Value {
    let give_up_at = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let bulk = client.get(path).await.json(200);
        if bulk["status"] == "DONE" {
            return bulk;
        }
        assert!(std::time::Instant::now() < give_up_at, "{bulk}");
        tokio::task::yield_now().await;
    }
}

async fn check(kind: Kind) {
    let (_fixture, server) = start(kind).await;
    let shop = server.shop().await;
    let mut client = server.client(&shop.operator).await;
    let mut asked = template();
    asked["total_stock"] = json!(450);
    let made = client.post("/v1/coupon-templates", asked).await.json(201);
    let members: Vec<String> = (0..500).map(|n| format!("m-{}", n % 490)).collect();
    let path = format!("/v1/coupon-templates/{}/distributions", text(&made, "id"));
    let begun = client.post(&path, json!({ "member_ids": members })).await;
    assert_eq!(begun.status, 202, "{kind:?}");
    let path = begun.header("location").expect("where to follow it").to_owned();
    let bulk = done(&mut client, &path).await;
    assert_eq!(
        (&bulk["rows"], &bulk["accepted"], &bulk["refused"], &bulk["skipped"], &bulk["pending"]),
        (&json!(500), &json!(450), &json!(40), &json!(10), &json!(0)),
        "{kind:?}"
    );
    // Page by page, every row once and in order.
    let mut rows = Vec::new();
    let mut next = format!("{path}/results?limit=70");
    loop {
        let page = client.get(&next).await.json(200);
        rows.extend(page["data"].as_array().expect("rows").clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        next = format!("{path}/results?limit=70&cursor={cursor}");
    }
    let numbers: Vec<i64> = rows.iter().filter_map(|row| row["row"].as_i64()).collect();
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>(), "{kind:?}");
    assert_eq!((&rows[0]["outcome"], &rows[0]["reason"]), (&json!("ACCEPTED"), &json!(null)));
    let coupon = client.get(&format!("/v1/coupons/{}", text(&rows[0], "made"))).await.json(200);
    assert_eq!((&coupon["member_id"], &coupon["source"]), (&json!("m-0"), &json!("DISTRIBUTION")));
    let refused = client.get(&format!("{path}/results?outcome=REFUSED&limit=200")).await.json(200);
    let refused = refused["data"].as_array().expect("rows").clone();
    assert_eq!(refused.len(), 40, "{kind:?}");
    assert!(refused.iter().all(|row| row["reason"] == "COUPON_SOLD_OUT" && row["made"].is_null()), "{kind:?}");
    // The same as a file.
    let file = client.get(&format!("{path}/results?format=csv")).await;
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    let lines = String::from_utf8(file.body.to_vec()).expect("text");
    assert_eq!(lines.lines().count(), 501, "{kind:?}");
    assert!(lines.starts_with("row,member_id,outcome,made,reason\n1,m-0,ACCEPTED,cpn_"), "{lines:.80}");
    let file = client.get(&format!("{path}/results?format=csv&outcome=DUPLICATE")).await;
    assert_eq!(String::from_utf8_lossy(&file.body).lines().count(), 11, "{kind:?}");

    let rows = "member_id,points,reference\nm-1,5,r-1\nm-1,7,\n=cmd,1,\n";
    let begun = client.send("POST", "/v1/points-grants", &[("content-type", "text/csv; charset=utf-8")], rows).await;
    assert_eq!(begun.status, 202, "{kind:?}: {}", String::from_utf8_lossy(&begun.body));
    let path = begun.header("location").expect("where to follow it").to_owned();
    let bulk = done(&mut client, &path).await;
    assert_eq!((&bulk["accepted"], &bulk["template_id"]), (&json!(3), &json!(null)), "{kind:?}");
    assert_eq!(client.get("/v1/members/m-1/points").await.json(200)["available"], 12, "{kind:?}");
    let file = client.get(&format!("{path}/results?format=csv")).await;
    assert!(String::from_utf8_lossy(&file.body).contains("3,'=cmd,ACCEPTED"), "no spreadsheet runs a member's id");
    let listed = client.get("/v1/points-grants").await.json(200);
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "{kind:?}");
    assert_eq!(client.get("/v1/distributions").await.json(200)["data"].as_array().map(Vec::len), Some(1), "{kind:?}");
    let other = path.replace("points-grants", "distributions");
    assert_eq!(client.get(&other).await.status, 404, "{kind:?}: an import is no distribution");
    // What its job has come to is told by the job.
    let job = client.get(&format!("/v1/jobs/{}", text(&bulk, "job_id"))).await.json(200);
    assert_eq!(job["kind"], "BULK", "{kind:?}");
    server.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distribution_is_followed_to_its_end_and_read_row_by_row() {
    for kind in KINDS {
        check(kind).await;
    }
}
