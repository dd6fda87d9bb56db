//! The connection breaks exactly at COMMIT. Whether the transaction took effect cannot be told from the connection; the
//! database is asked, and the caller gets the one right answer, as if nothing had happened.

use scrip_domain::command::Movement;
use scrip_domain::points::TransactionType;
use scrip_domain::{Answer, Command, Envelope, Idempotency, Outcome, TenantId};
use scrip_server::engine::{Engine, EngineOptions};
use scrip_server::metrics::Metrics;
use scrip_server::store::{Store, StoreOptions, StoreUrl};

use super::load::{check_books, until};
use super::proxy::{Cut, Proxy};
use crate::harness::{envelope, member, tenant};
use crate::postgres;

const ROUNDS: u8 = 25;

/// A store reached through a proxy, and an engine of one lane on it.
async fn behind_proxy(url: &str) -> (Proxy, Store, Engine) {
    let (credentials, rest) = url.split_once('@').expect("a user");
    let (upstream, database) = rest.split_once('/').expect("a database");
    let proxy = Proxy::start(upstream.to_owned()).await;
    let through = format!("{credentials}@{}/{database}?sslmode=disable", proxy.address);
    let store = Store::open(&StoreOptions::new(StoreUrl::Postgres(through))).await.expect("the proxy is no hindrance");
    store.migrate().await.expect("the schema is made");
    let options = EngineOptions { lanes: 1, ..EngineOptions::default() };
    let engine = Engine::start(&store, options, Metrics::new()).await.expect("the engine starts");
    (proxy, store, engine)
}

fn grant(tenant: TenantId, key: u8) -> Envelope {
    let movement = Movement { points: 1, kind: TransactionType::EarnOrder, reference: None, remark: None };
    let command = Command::Grant { member_id: member("hot"), movement, spendable: Default::default() };
    let idempotency = Some(Idempotency { key: [key; 16], fingerprint: [1; 16] });
    Envelope { idempotency, ..envelope(tenant, command) }
}

async fn total_points(store: &Store, tenant: TenantId) -> i64 {
    let now = scrip_server::clock::now();
    store.balance(tenant, &member("hot"), now, now).await.expect("a balance").total_points
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_cut_off_anywhere_is_looked_up_and_answered_right() {
    let (proxy, store, engine) = behind_proxy(&postgres::database().await).await;
    let tenant = tenant(&engine).await;
    let cuts = [Cut::Before, Cut::During, Cut::After];
    let mut granted = 0;
    for round in 0..ROUNDS {
        for (which, cut) in cuts.into_iter().enumerate() {
            let grant = grant(tenant, 3 * round + which as u8);
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
    assert_eq!(total_points(&store, tenant).await, granted, "every grant counts once");
    check_books(&store).await;
}

/// A crash may forget that a transaction ever began. Its number is then given to the next one, whose commit says nothing about
/// the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_lost_in_a_crash_is_not_mistaken_for_the_next_of_its_number() {
    let mut server = postgres::Server::own();
    let url = server.database().await;
    let (proxy, store, engine) = behind_proxy(&url).await;
    let tenant = tenant(&engine).await;
    let admin = postgres::connect(&url).await;
    // Nothing reaches the disk but what a commit waits for.
    admin.batch_execute("ALTER SYSTEM SET wal_writer_delay = '10s'").await.expect("a setting");
    server.stop("fast");
    server.start();
    for round in 0..3 {
        // A commit through the lane's new connection, up to which everything is on the disk.
        until("the lane is back", async || engine.submit(grant(tenant, 100 + round)).await.is_ok()).await;
        proxy.cut_next_commit(Cut::Before);
        proxy.close(true);
        let asked = tokio::spawn({
            let engine = engine.clone();
            async move { engine.submit(grant(tenant, round)).await }
        });
        until("the commit is cut off", async || proxy.has_cut()).await;
        server.stop("immediate");
        server.start();
        let other = postgres::connect(&url).await;
        for _ in 0..50 {
            other.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("a number");
        }
        proxy.close(false);
        let answer = asked.await.expect("the lane lives");
        assert!(matches!(answer, Ok(Answer::Accepted { replayed: false, .. })), "{answer:?}");
        assert_eq!(total_points(&store, tenant).await, 2 * i64::from(round + 1), "what is acknowledged is there");
    }
    check_books(&store).await;
}
