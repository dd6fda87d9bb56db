//! The connection breaks exactly at COMMIT. Whether the transaction took effect cannot be told from the connection; the
//! database is asked, and the caller gets the one right answer, as if nothing had happened.

use scrip_domain::command::Movement;
use scrip_domain::points::TransactionType;
use scrip_domain::{Answer, Command, Idempotency, Outcome};
use scrip_server::engine::{Engine, EngineOptions};
use scrip_server::metrics::Metrics;
use scrip_server::store::{Store, StoreOptions, StoreUrl};

use super::load::check_books;
use super::proxy::{Cut, Proxy};
use crate::harness::{Fixture, Kind, envelope, member, tenant};

const ROUNDS: u8 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_cut_off_anywhere_is_looked_up_and_answered_right() {
    let fixture = Fixture::new(Kind::Postgres).await;
    let StoreUrl::Postgres(url) = &fixture.url else { unreachable!("a PostgreSQL fixture") };
    let (credentials, rest) = url.split_once('@').expect("a user");
    let (upstream, database) = rest.split_once('/').expect("a database");
    let proxy = Proxy::start(upstream.to_owned()).await;
    let through = format!("{credentials}@{}/{database}?sslmode=disable", proxy.address);
    let store = Store::open(&StoreOptions::new(StoreUrl::Postgres(through))).await.expect("the proxy is no hindrance");
    let options = EngineOptions { lanes: 1, ..EngineOptions::default() };
    let engine = Engine::start(&store, options, Metrics::new()).await.expect("the engine starts");
    let tenant = tenant(&engine).await;
    let cuts = [Cut::BeforeCommit, Cut::DuringCommit, Cut::AfterCommit];
    let mut granted = 0;
    for round in 0..ROUNDS {
        for (which, cut) in cuts.into_iter().enumerate() {
            let movement = Movement {
                points: 1,
                kind: TransactionType::EarnOrder,
                reference: Some(format!("{granted}")),
                remark: None,
            };
            let mut grant = envelope(tenant, Command::Grant { member_id: member("hot"), movement, expires_at: None });
            grant.idempotency = Some(Idempotency { key: [3 * round + which as u8; 16], fingerprint: [1; 16] });
            proxy.cut_next_commit(cut);
            let first = engine.submit(grant.clone()).await;
            assert!(proxy.has_cut(), "{cut:?}: the commit was cut off");
            let Ok(Answer::Accepted { outcome, replayed: false }) = first else {
                panic!("{cut:?}, round {round}: {first:?}");
            };
            granted += 1;
            let Outcome::Transaction(row) = &outcome else { panic!("{outcome:?}") };
            assert_eq!((row.sequence, row.balance_after), (granted, granted), "{cut:?}, round {round}");
            // The caller who asks again is told the same.
            let again = engine.submit(grant).await;
            assert_eq!(again, Ok(Answer::Accepted { outcome, replayed: true }), "{cut:?}, round {round}");
        }
    }
    let now = scrip_server::clock::now();
    let balance = fixture.store.balance(tenant, &member("hot"), now, now).await.expect("a balance");
    assert_eq!(balance.total_points, granted, "every grant counts once");
    check_books(&fixture.store).await;
}
