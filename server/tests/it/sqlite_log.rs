//! SQLite's log while commits never pause.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scrip_domain::coupon::Definition;
use scrip_domain::{Answer, Command};
use scrip_server::engine::EngineOptions;
use scrip_server::store::StoreUrl;

use crate::harness::{Fixture, Kind, definition, envelope, member, template, tenant};

/// Where the writer moves all that is left of it, while a batch waits.
const BOUND: u64 = 128 << 20;
/// Grown so far, it does not begin anew by itself: no pass comes to its end.
const GROWN: u64 = 12 << 20;

/// How often the log has begun anew: the fourth number of its header, by SQLite's description of the file.
fn beginnings(log: &Path) -> u32 {
    let mut header = [0; 16];
    File::open(log).and_then(|mut file| file.read_exact(&mut header)).expect("the log has a header");
    let [.., a, b, c, d] = header;
    u32::from_be_bytes([a, b, c, d])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_begins_anew_between_two_batches_long_before_its_bound() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let StoreUrl::Sqlite(path) = &fixture.url else { unreachable!("a SQLite store") };
    let log = path.with_extension("db-wal");
    let engine = fixture.engine(EngineOptions::default()).await;
    let tenant = tenant(&engine).await;
    let template_id = template(&engine, tenant, Definition { limit_per_member: 1, ..definition() }, None).await;
    let stop = Arc::new(AtomicBool::new(false));
    // There is always a batch under way and another one waiting.
    let callers = ["a", "b", "c", "d"].map(|caller| {
        let (engine, stop) = (engine.clone(), stop.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let claim =
                    Command::Claim { template_id, member_id: member(format!("{caller}-{number}")), member_level: None };
                let answer = engine.submit(envelope(tenant, claim)).await;
                assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{answer:?}");
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        })
    });
    let size = || std::fs::metadata(&log).expect("the log").len();
    let pause = || tokio::time::sleep(Duration::from_millis(5));
    while size() < GROWN {
        pause().await;
    }
    let first = beginnings(&log);
    while beginnings(&log) == first && size() < BOUND {
        pause().await;
    }
    assert!(size() < BOUND / 4 * 3, "it has grown to {} bytes", size());
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("its claims");
    }
}
