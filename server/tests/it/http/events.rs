//! A reader that follows the log while many write sees every event once, and what happened to one object in its order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Server, Shop, start, template, text};
use crate::harness::{Fixture, KINDS, Kind};

const WRITERS: usize = 8;
const ROUNDS: usize = 25;
const PATIENCE: Duration = Duration::from_secs(60);

/// Claims, locks and uses a coupon of its own, and grants to everybody's member, again and again.
async fn write(server: &Server, shop: &Shop, claims: String, name: usize) {
    let mut client = server.client(&shop.operator).await;
    for round in 0..ROUNDS {
        let coupon = client.post(&claims, json!({ "member_id": format!("m-{name}-{round}") })).await.json(201);
        let path = format!("/v1/coupons/{}", text(&coupon, "id"));
        client.post(&format!("{path}/lock"), json!({ "order_id": "o" })).await.json(200);
        client.post("/v1/members/hot/points/grants", json!({ "points": 1 })).await.json(201);
        client.post(&format!("{path}/use"), json!({ "order_id": "o" })).await.json(200);
    }
}

/// Two nodes fight over one coupon: each locks and unlocks it for its own order.
async fn fight(server: &Server, shop: &Shop, coupon: String, order: String) {
    let mut client = server.client(&shop.operator).await;
    for _ in 0..ROUNDS {
        for step in ["lock", "unlock"] {
            client.post(&format!("/v1/coupons/{coupon}/{step}"), json!({ "order_id": order })).await;
        }
    }
}

/// Follows the log until all that was written has come. On PostgreSQL the end may take a moment: an event shows once nothing
/// older is under way, in other tests' databases too.
async fn follow(server: &Server, shop: &Shop, finished: Arc<AtomicBool>) -> Vec<Value> {
    let mut client = server.client(&shop.service).await;
    let (mut seen, mut cursor, begun) = (Vec::new(), String::new(), Instant::now());
    loop {
        let written = if finished.load(Ordering::SeqCst) { Some(server.event_count().await) } else { None };
        assert!(begun.elapsed() < PATIENCE, "{} of {written:?} events have come", seen.len());
        let page = client.get(&format!("/v1/events?limit=37&cursor={cursor}")).await.json(200);
        let rows = page["data"].as_array().expect("events");
        cursor = text(&page, "next_cursor").to_owned();
        seen.extend(rows.iter().cloned());
        if written.is_some_and(|written| seen.len() >= written) {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

async fn check(fixture: &Fixture, servers: Vec<Server>, kind: Kind) {
    let servers = Arc::new(servers);
    let shop = Arc::new(servers[0].shop().await);
    let mut client = servers[0].client(&shop.operator).await;
    let made = client.post("/v1/coupon-templates", template()).await.json(201);
    let claims = format!("/v1/coupon-templates/{}/claims", text(&made, "id"));
    let contested = client.post(&claims, json!({ "member_id": "contested" })).await.json(201);
    let contested = text(&contested, "id").to_owned();
    let finished = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (servers, shop, finished) = (servers.clone(), shop.clone(), finished.clone());
        async move { follow(&servers[0], &shop, finished).await }
    });
    let mut writers = Vec::new();
    for name in 0..WRITERS {
        let (servers, shop, claims, contested) = (servers.clone(), shop.clone(), claims.clone(), contested.clone());
        writers.push(tokio::spawn(async move {
            let server = &servers[name % servers.len()];
            tokio::join!(write(server, &shop, claims, name), fight(server, &shop, contested, format!("o-{name}")));
        }));
    }
    for writer in writers {
        writer.await.expect("the writer ends");
    }
    finished.store(true, Ordering::SeqCst);
    let events = reader.await.expect("the reader ends");

    let distinct: HashSet<&str> = events.iter().map(|event| text(event, "id")).collect();
    assert_eq!(distinct.len(), events.len(), "{kind:?}: an event came twice");
    let count = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    let all = WRITERS * ROUNDS;
    assert_eq!((count("coupon.used"), count("points.granted")), (all, all), "{kind:?}: an event was skipped");
    assert_eq!(count("coupon.claimed"), all + 1);
    let sequences: Vec<i64> = events
        .iter()
        .filter(|event| event["type"] == "points.granted")
        .map(|event| event["data"]["sequence"].as_i64().expect("a sequence"))
        .collect();
    assert!(sequences.is_sorted(), "{kind:?}: the grants of one member in their order");
    let mut last: HashMap<&str, &str> = HashMap::new();
    for event in events.iter().filter(|event| text(event, "type").starts_with("coupon.")) {
        let (subject, step) = (text(event, "subject_id"), text(event, "type"));
        let before = last.insert(subject, step);
        let follows = match step {
            "coupon.claimed" => before.is_none(),
            "coupon.locked" => matches!(before, Some("coupon.claimed" | "coupon.unlocked")),
            _ => before == Some("coupon.locked"),
        };
        assert!(follows, "{kind:?}: {step} of {subject} after {before:?}");
    }
    servers[0].assert_sound().await;
    drop(servers);
    let _ = fixture;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_every_event_once_and_in_order() {
    for kind in KINDS {
        let (fixture, server) = start(kind).await;
        check(&fixture, vec![server], kind).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_holds_across_nodes() {
    let fixture = Fixture::new(Kind::Postgres).await;
    let servers = vec![Server::on(&fixture.url).await, Server::on(&fixture.url).await];
    check(&fixture, servers, Kind::Postgres).await;
}
