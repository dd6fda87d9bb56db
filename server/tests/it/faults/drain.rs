//! SIGTERM under load: what was sent is answered, and of two nodes restarted in turn one always serves.
//!
//! `SCRIP_RESTARTS` sets how many restarts there are (10 by default; `make restart-test` makes 100).

use std::time::{Duration, Instant};

use scrip_server::bench::Target;
use scrip_server::bench::server::ServerProcess;
use scrip_server::store::{Store, StoreOptions, StoreUrl};

use super::load::{Load, check, fixed_address, scrip, serve};
use crate::harness::{Fixture, KINDS, Kind};
use crate::postgres;

/// Far below `server.drain_seconds`: requests are short, so stopping is.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_answers_what_is_under_way_and_exits_with_0() {
    for kind in KINDS {
        let (url, _folder) = match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                (StoreUrl::Sqlite(folder.path().join("scrip.db")), Some(folder))
            }
            Kind::Postgres => (StoreUrl::Postgres(postgres::database().await), None),
        };
        let address = fixed_address();
        let start = async || ServerProcess::start_at(address, scrip().into(), &serve(&url)).await;
        let server = start().await.expect("the server starts");
        let target = server.target("stopped").await.expect("a tenant");
        let load = Load::start(&[target], 16).await;
        load.advance(100).await;
        let told_at = Instant::now();
        server.stop().await.expect("exit code 0");
        let took = told_at.elapsed();
        assert!(took < STOPS_WITHIN, "{kind:?}: stopped after {took:?}");
        if let StoreUrl::Sqlite(path) = &url {
            let log = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len());
            assert_eq!(log, 0, "the file by itself is the store");
        }
        let server = start().await.expect("the server starts again");
        load.advance(50).await;
        let tally = load.finish().await;
        assert_eq!(tally.broken, Vec::<String>::new(), "{kind:?}: every request that was sent is answered");
        assert!(tally.unavailable.is_empty(), "{kind:?}: and not with {:?}", tally.unavailable);
        server.stop().await.expect("the server stops");
        let store = Store::open(&StoreOptions::new(url)).await.expect("the store opens");
        check(&store, tally).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_restarted_in_turn_fail_no_request() {
    let restarts = std::env::var("SCRIP_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let fixture = Fixture::new(Kind::Postgres).await;
    let addresses = [fixed_address(), fixed_address()];
    let arguments = serve(&fixture.url);
    let start =
        async |address| ServerProcess::start_at(address, scrip().into(), &arguments).await.expect("a node starts");
    let mut nodes = [Some(start(addresses[0]).await), Some(start(addresses[1]).await)];
    let first = nodes[0].as_ref().expect("a node").target("rolling").await.expect("a tenant");
    let targets = addresses.map(|addr| Target { addr, ..first.clone() });
    let load = Load::start(&targets, 8).await;
    for restart in 0..restarts {
        load.advance(50).await;
        let node = &mut nodes[restart % 2];
        node.take().expect("a node").stop().await.expect("exit code 0");
        load.advance(20).await;
        *node = Some(start(addresses[restart % 2]).await);
    }
    let tally = load.finish().await;
    assert_eq!(tally.broken, Vec::<String>::new(), "no request is lost on the way");
    assert!(tally.unavailable.is_empty(), "none is turned away: {:?}", tally.unavailable);
    assert!(tally.refused > 0, "clients have moved from node to node");
    for node in nodes.into_iter().flatten() {
        node.stop().await.expect("exit code 0");
    }
    check(&fixture.store, tally).await;
}
