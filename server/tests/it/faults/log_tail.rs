//! SQLite's log cut off or garbled at its end, as a power cut leaves it: what is before the damage is there, in order and
//! without a gap, and nothing half-applied.

use std::path::Path;

use scrip_server::bench::server::ServerProcess;
use scrip_server::store::{Store, StoreOptions, StoreUrl};
use serde_json::json;

use super::load::{Client, check_books, scrip, serve};

const GRANTS: usize = 40;
/// A longer log is moved into the file.
const CHECKPOINT_BYTES: usize = 4 << 20;
const DAMAGES: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_end_of_the_log_costs_no_more_than_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("scrip.db");
    let server = ServerProcess::start(scrip().into(), &serve(&StoreUrl::Sqlite(path.clone()))).await.expect("a server");
    let target = [server.target("log").await.expect("a tenant")];
    let mut client = Client::new(&target);
    let grant = async |client: &mut Client, number: usize| {
        let body = json!({ "points": 1, "reference": number.to_string() });
        let answer = client.post("/v1/members/hot/points/grants", &format!("g{number}"), &body).await;
        assert!(matches!(answer, Ok((201, _))), "{answer:?}");
    };
    for number in 0..GRANTS {
        grant(&mut client, number).await;
    }
    // While the server writes on. So short a log has not been moved into the file yet, so both can be copied one by one.
    let (database, log) = tokio::join!(copy(&path), async {
        for number in GRANTS..2 * GRANTS {
            grant(&mut client, number).await;
        }
    })
    .0;
    drop(server);
    assert!(log.len() < CHECKPOINT_BYTES, "the log was too long for this test: {}", log.len());
    assert!(granted_in(&database, &log).await >= GRANTS, "what was acknowledged before the copy is in it");
    let mut kept = Vec::new();
    for damage in 0..DAMAGES {
        let at = rand::random_range(0..log.len());
        let mut damaged = log.clone();
        if damage % 2 == 0 {
            damaged.truncate(at);
        } else {
            let end = damaged.len().min(at + 4_096);
            damaged[at..end].fill_with(rand::random);
        }
        kept.push((at, granted_in(&database, &damaged).await));
    }
    kept.sort_unstable();
    assert!(kept.is_sorted_by_key(|(_, grants)| *grants), "the later the damage the more is there: {kept:?}");
}

/// The database file and its log.
async fn copy(path: &Path) -> (Vec<u8>, Vec<u8>) {
    let database = tokio::fs::read(path).await.expect("the file");
    let log = tokio::fs::read(path.with_extension("db-wal")).await.expect("the log");
    (database, log)
}

/// Opens the files as a store: the books must be clean and the grants a beginning of those sent. How many there are.
async fn granted_in(database: &[u8], log: &[u8]) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("scrip.db");
    std::fs::write(&path, database).expect("the file");
    std::fs::write(path.with_extension("db-wal"), log).expect("the log");
    let store = Store::open(&StoreOptions::new(StoreUrl::Sqlite(path))).await.expect("the store opens");
    store.migrate().await.expect("the schema is there or made");
    let sql = "SELECT reference FROM mkt_points_transaction ORDER BY sequence";
    let references = store.stream(sql, &[], |row| row.text(0)).await.expect("the ledger");
    let expected: Vec<String> = (0..references.len()).map(|number| number.to_string()).collect();
    assert_eq!(references, expected, "a beginning of what was sent");
    check_books(&store).await;
    references.len()
}
