//! SQLite's log while commits never pause.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use scrip_domain::coupon::Definition;
use scrip_domain::{Answer, Command};
use scrip_server::engine::EngineOptions;
use scrip_server::store::StoreUrl;

use crate::harness::{Fixture, Kind, definition, envelope, member, template, tenant};

/// What the writer would let it come to before it moves all of it while a batch waits.
const BOUND: u64 = 128 << 20;

/// How often the log has begun anew: the fourth number of its header, by the format of SQLite's file.
fn beginnings(log: &Path) -> u32 {
    let mut header = [0; 16];
    File::open(log).and_then(|mut file| file.read_exact(&mut header)).expect("the log has a header");
    let [.., a, b, c, d] = header;
    u32::from_be_bytes([a, b, c, d])
}

#[tokio::test]
async fn the_log_begins_anew_between_two_batches_long_before_its_bound() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let StoreUrl::Sqlite(path) = &fixture.url else { unreachable!("a SQLite store") };
    let log = path.with_extension("db-wal");
    let engine = fixture.engine(EngineOptions::default()).await;
    let tenant = tenant(&engine).await;
    let template_id = template(&engine, tenant, Definition { limit_per_member: 1, ..definition() }, None).await;
    let size = || std::fs::metadata(&log).expect("the log").len();
    let first = beginnings(&log);
    let mut claims = 0;
    while beginnings(&log) == first && size() < BOUND {
        let claim = Command::Claim { template_id, member_id: member(claims), member_level: None };
        let answer = engine.submit(envelope(tenant, claim)).await;
        assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{answer:?}");
        claims += 1;
    }
    assert!(size() < BOUND / 2, "it has grown to {} bytes over {claims} claims", size());
}
