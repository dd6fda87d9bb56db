//! Everything together, on real servers: two nodes on one PostgreSQL with a replica, Redis and NATS, under load. Each of them is
//! taken away in turn, backends are terminated every 50 ms, connections cut at COMMIT, and the nodes stopped and killed; then the
//! books are verified and the effects counted.
//!
//! `SCRIP_NODES_ROUNDS` sets how often all of it happens (1 by default; `make nodes-test` makes 20).

use std::time::Duration;

use scrip_server::bench::Target;
use scrip_server::bench::server::ServerProcess;
use scrip_server::store::{Store, StoreOptions, StoreUrl};

use super::load::{Client, Load, check, fixed_address, scrip, serve, until};
use crate::broker::Nats;
use crate::postgres;
use crate::redis::Redis;

use super::proxy::{Cut, Proxy};

/// What one fault lasts under load, in acknowledged requests.
const WHILE: u64 = 60;

struct World {
    primary: postgres::Server,
    replica: postgres::Replica,
    redis: Redis,
    nats: Nats,
    url: StoreUrl,
    /// Between the first node and PostgreSQL.
    proxy: Proxy,
    /// How each node is started.
    arguments: [Vec<String>; 2],
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> World {
        let primary = postgres::Server::own();
        let database = primary.database().await;
        let replica = postgres::Replica::of(&primary);
        let (redis, nats) = (Redis::start().await, Nats::start().await);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("scrip.toml");
        let text = format!(
            "[store]\nreplica_url = \"{}\"\nreplica_lag_ms = 500\n[cache]\nredis_url = \"{}\"\n[events]\nnats_url = \"{}\"\n",
            replica.url_of(&database),
            redis.url(),
            nats.url()
        );
        std::fs::write(&config, text).expect("a configuration");
        let (credentials, rest) = database.split_once('@').expect("a user");
        let (upstream, name) = rest.split_once('/').expect("a database");
        let proxy = Proxy::start(upstream.to_owned()).await;
        let through = StoreUrl::Postgres(format!("{credentials}@{}/{name}?sslmode=disable", proxy.address));
        let url = StoreUrl::Postgres(database.clone());
        let arguments = [&through, &url].map(|url| {
            let mut arguments = serve(url).to_vec();
            arguments.extend(["--config".to_owned(), config.display().to_string()]);
            arguments
        });
        World { primary, replica, redis, nats, url, proxy, arguments, _folder: folder }
    }

    async fn node(&self, number: usize, address: std::net::SocketAddr) -> ServerProcess {
        ServerProcess::start_at(address, scrip().into(), &self.arguments[number]).await.expect("a node starts")
    }
}

/// Reads through both nodes until it is stopped: templates, balances, coupons and quotes. Each must be answered with 200, but for
/// 503 while PostgreSQL is away and refused connections while a node is.
fn readers(targets: &[Target], stop: &tokio::sync::watch::Receiver<bool>) -> Vec<tokio::task::JoinHandle<u64>> {
    let paths =
        ["/v1/members/m1/points", "/v1/members/m1/coupons", "/v1/coupon-templates", "/v1/members/m1/points/lots"];
    let readers = (0..4).map(|number| {
        let (mut client, stop, path) = (Client::new(targets), stop.clone(), paths[number]);
        tokio::spawn(async move {
            let mut answered = 0;
            while !*stop.borrow() {
                match client.get(path).await {
                    Ok((200, _)) => answered += 1,
                    Ok((503, _)) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Ok((status, body)) => panic!("{path}: {status} {body}"),
                }
            }
            answered
        })
    });
    readers.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_with_everything_taken_away_in_turn_lose_nothing() {
    let rounds = std::env::var("SCRIP_NODES_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut world = World::new().await;
    let addresses = [fixed_address(), fixed_address()];
    let mut nodes = [Some(world.node(0, addresses[0]).await), Some(world.node(1, addresses[1]).await)];
    let first = nodes[0].as_ref().expect("a node").target("nodes").await.expect("a tenant");
    let targets = addresses.map(|addr| Target { addr, ..first.clone() });
    let load = Load::start(&targets, 8).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let readers = readers(&targets, &stopped);
    let StoreUrl::Postgres(database) = world.url.clone() else { unreachable!("a PostgreSQL store") };
    for round in 0..rounds {
        load.advance(WHILE).await;
        // Redis and NATS, killed in the middle of the sale; back, and empty.
        world.redis.kill();
        load.advance(WHILE).await;
        world.nats.kill();
        load.advance(WHILE).await;
        world.redis.up().await;
        world.nats.up().await;
        load.advance(WHILE).await;
        // Redis that answers nobody.
        world.redis.freeze();
        load.advance(WHILE).await;
        world.redis.thaw();
        // The replica: paused, and gone as in a crash.
        world.replica.ask("SELECT pg_wal_replay_pause()").await;
        load.advance(WHILE).await;
        world.replica.ask("SELECT pg_wal_replay_resume()").await;
        world.replica.stop("immediate");
        load.advance(WHILE).await;
        world.replica.start();
        // Backends of both nodes, every 50 ms.
        let admin = postgres::connect(&database).await;
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                         WHERE datname = current_database() AND application_name LIKE 'scrip%'";
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..20 {
            ticks.tick().await;
            admin.query(terminate, &[]).await.expect("backends end");
        }
        drop(admin);
        load.advance(WHILE).await;
        // The connection of a node, at COMMIT.
        for cut in [Cut::Before, Cut::During, Cut::After] {
            world.proxy.cut_next_commit(cut);
            until("a commit that is cut off", async || world.proxy.has_cut()).await;
            load.advance(WHILE).await;
        }
        // The primary, as in a crash.
        world.primary.stop("immediate");
        load.turned_away(4).await;
        world.primary.start();
        load.advance(WHILE).await;
        // Each node: told to stop, and killed.
        for (number, node) in nodes.iter_mut().enumerate() {
            let running = node.take().expect("a node");
            if (round + number) % 2 == 0 {
                running.stop().await.expect("exit code 0");
            } else {
                drop(running);
            }
            load.advance(WHILE).await;
            *node = Some(world.node(number, addresses[number]).await);
        }
    }
    load.advance(WHILE).await;
    let tally = load.finish().await;
    stop.send(true).expect("readers listen");
    let mut answered = 0;
    for reader in readers {
        answered += reader.await.expect("no read was answered wrongly");
    }
    assert!(answered > 100, "{answered} reads");
    // What was acknowledged is what a reader at either node finds, and NATS has every event.
    for target in &targets {
        let mut client = Client::new(std::slice::from_ref(target));
        until("the whole balance", async || {
            let mut sum = 0;
            for member in 0..3 {
                let Ok((200, balance)) = client.get(&format!("/v1/members/m{member}/points")).await else {
                    return false;
                };
                sum += balance["total_points"].as_u64().expect("points");
            }
            sum == tally.grants.len() as u64
        })
        .await;
    }
    let store = Store::open(&StoreOptions::new(world.url.clone())).await.expect("the store opens");
    let events = store.stream("SELECT count(*) FROM event", &[], |row| row.int(0)).await.expect("a count")[0];
    let (mut ids, mut seen) = (std::collections::HashSet::new(), 0);
    until("every event at the broker", async || {
        let messages = world.nats.messages_from(seen + 1).await.unwrap_or_default();
        seen += messages.len() as u64;
        ids.extend(messages.into_iter().map(|(_, id, _)| id));
        ids.len() as i64 >= events
    })
    .await;
    for node in nodes.into_iter().flatten() {
        node.stop().await.expect("exit code 0");
    }
    println!(
        "{rounds} rounds: {} grants, {} claims, {answered} reads; {events} events",
        tally.grants.len(),
        tally.claims.len()
    );
    check(&store, tally).await;
}
