//! The disk is full: the server may not make any file longer than a limit. Callers are told so, readers are served, nothing is
//! half-applied; with room again everything acknowledged is there.

use scrip_server::bench::server::ServerProcess;
use scrip_server::store::{Store, StoreOptions, StoreUrl};
use serde_json::json;

use super::load::{Client, Load, check, fixed_address, scrip};

/// In the shell's blocks of 512 bytes: room for the schema and some hundreds of requests.
const BLOCKS: u32 = 3_000;

/// Without a handler for SIGXFSZ a write beyond the limit would end the process; ignored, the write fails.
const LIMITED: &str = r#"trap '' XFSZ; ulimit -f "$0"; exec "$@""#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_serves_reads_and_harms_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("scrip.db");
    let store = format!("sqlite:{}", path.display());
    let address = fixed_address();
    let limited = ["-c", LIMITED, &BLOCKS.to_string(), &scrip(), "serve", "--store", &store].map(str::to_owned);
    let server = ServerProcess::start_at(address, "sh".into(), &limited).await.expect("the server starts");
    let target = [server.target("full").await.expect("a tenant")];
    let load = Load::start(&target, 8).await;
    load.turned_away(200).await;
    let mut client = Client::new(&target);
    for attempt in 0..20 {
        let (status, _) = client.get("/v1/members/m1/points").await.expect("an answer");
        assert_eq!(status, 200, "reads go on");
        let body = json!({ "points": 1, "remark": "x".repeat(200) });
        let (status, problem) = client.post("/v1/members/m1/points/grants", "full", &body).await.expect("an answer");
        let code = problem["code"].as_str().unwrap_or_default();
        assert_eq!(status, 503, "attempt {attempt}: {problem}");
        assert!(["STORE_DISK_FULL", "STORE_UNAVAILABLE"].contains(&code), "{problem}");
    }
    // What the clients could not get through they go on trying, on a server without the limit.
    drop(server);
    let unlimited = ["serve".to_owned(), "--store".to_owned(), store];
    let server = ServerProcess::start_at(address, scrip().into(), &unlimited).await.expect("the server starts again");
    load.advance(50).await;
    let tally = load.finish().await;
    server.stop().await.expect("the server stops");
    let store = Store::open(&StoreOptions::new(StoreUrl::Sqlite(path))).await.expect("the store opens");
    check(&store, tally).await;
}
