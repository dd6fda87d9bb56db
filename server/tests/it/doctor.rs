//! `scrip doctor` finds what is wrong, and nothing where nothing is.

use std::process::Command;

use scrip_server::store::{Store, StoreOptions, StoreUrl};
use serde_json::Value;

use crate::broker::Nats;
use crate::certificate::Certificate;
use crate::harness::{Fixture, KINDS, Kind};
use crate::postgres;
use crate::redis::Redis;

/// Whether the doctor is content, and its findings.
fn examine(store: &str) -> (bool, Vec<Value>) {
    examine_with(store, &[])
}

fn examine_with(store: &str, settings: &[(&str, &str)]) -> (bool, Vec<Value>) {
    let arguments = ["doctor", "--json", "--store", store];
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_scrip"));
    let output = doctor.args(arguments).envs(settings.iter().copied()).output().expect("scrip runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn finding<'a>(findings: &'a [Value], what: &str) -> &'a Value {
    findings.iter().find(|finding| finding["what"] == what).unwrap_or_else(|| panic!("{what}: {findings:?}"))
}

fn text_of(url: &StoreUrl) -> String {
    match url {
        StoreUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
        StoreUrl::Postgres(url) => url.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_index_and_a_missing_migration_are_failures() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let url = text_of(&fixture.url);
        let (content, findings) = examine(&url);
        assert!(content, "{kind:?}: {findings:?}");
        let spoil = "DROP INDEX idx_user_coupon_expire; DELETE FROM schema_migration WHERE number = 2";
        match &fixture.url {
            StoreUrl::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).expect("the store opens");
                connection.execute_batch(spoil).expect("it is spoilt");
            }
            StoreUrl::Postgres(url) => postgres::connect(url).await.batch_execute(spoil).await.expect("it is spoilt"),
        }
        let (content, findings) = examine(&url);
        assert!(!content);
        let indexes = finding(&findings, "indexes");
        assert_eq!(indexes["level"], "FAILURE");
        assert!(indexes["found"].as_str().is_some_and(|found| found.contains("idx_user_coupon_expire")), "{indexes}");
        let schema = finding(&findings, "schema");
        assert_eq!((&schema["level"], &schema["remedy"]), (&"FAILURE".into(), &"Run `scrip migrate`.".into()));
        if kind == Kind::Postgres {
            for what in ["fsync", "autovacuum", "version", "clock", "transaction numbers"] {
                assert_eq!(finding(&findings, what)["level"], "OK", "{what}");
            }
        }
    }
}

#[test]
fn a_store_that_cannot_be_reached_is_a_failure_and_its_password_stays_secret() {
    let (content, findings) = examine("postgres://scrip:secret@127.0.0.1:1/scrip");
    assert!(!content);
    assert_eq!(finding(&findings, "store")["level"], "FAILURE");
    assert!(!format!("{findings:?}").contains("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_code_keys_are_a_failure() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let url = text_of(&fixture.url);
        let (_, findings) = examine(&url);
        assert_eq!(finding(&findings, "code keys")["level"], "OK", "{kind:?}");
        fixture.store.remember_code_key(1, [7; 16], scrip_domain::Timestamp(0)).await.expect("a key is remembered");
        let (content, findings) = examine(&url);
        let found = finding(&findings, "code keys");
        assert!(!content && found["level"] == "FAILURE", "{kind:?}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_a_broker_are_looked_at_and_may_be_gone() {
    let primary = postgres::Server::own();
    let url = primary.database().await;
    Store::open(&StoreOptions::new(StoreUrl::Postgres(url.clone())))
        .await
        .expect("the store opens")
        .migrate()
        .await
        .expect("the schema is made");
    let (_, findings) = examine(&url);
    assert_eq!(finding(&findings, "min_wal_size")["level"], "WARNING", "as PostgreSQL comes: 80 MB");
    // A statement each: ALTER SYSTEM cannot be part of a transaction.
    let server = postgres::connect(&url).await;
    for statement in ["ALTER SYSTEM SET min_wal_size = '1GB'", "SELECT pg_reload_conf()"] {
        server.batch_execute(statement).await.expect("it is set");
    }
    let replica = postgres::Replica::of(&primary);
    let (nats, redis) = (Nats::start().await, Redis::start().await);
    let there = [
        ("SCRIP_STORE__REPLICA_URL", &*replica.url_of(&url)),
        ("SCRIP_EVENTS__NATS_URL", &*nats.url()),
        ("SCRIP_CACHE__REDIS_URL", &*redis.url()),
    ];
    let (content, findings) = examine_with(&url, &there);
    assert!(content, "{findings:?}");
    for what in ["replica", "broker", "shared cache", "min_wal_size"] {
        assert_eq!(finding(&findings, what)["level"], "OK", "{findings:?}");
    }
    let stranger = postgres::database().await;
    let closed = "127.0.0.1:1";
    for (its_url, said) in [(stranger, "no replica"), (format!("postgres://scrip:secret@{closed}/scrip"), closed)] {
        let (nats_url, redis_url) =
            (format!("nats://scrip:secret@{closed}"), format!("redis://scrip:secret@{closed}/0"));
        let gone = [
            ("SCRIP_STORE__REPLICA_URL", &*its_url),
            ("SCRIP_EVENTS__NATS_URL", &*nats_url),
            ("SCRIP_CACHE__REDIS_URL", &*redis_url),
        ];
        let (content, findings) = examine_with(&url, &gone);
        assert!(content, "a server serves without them: {findings:?}");
        for (what, said, setting) in [
            ("replica", said, "store.replica_url"),
            ("broker", closed, "events.nats_url"),
            ("shared cache", closed, "cache.redis_url"),
        ] {
            let found = finding(&findings, what);
            assert_eq!(found["level"], "WARNING", "{found}");
            assert!(found["found"].as_str().is_some_and(|found| found.contains(said)), "{found}");
            assert!(found["remedy"].as_str().is_some_and(|remedy| remedy.contains(setting)), "{found}");
        }
        assert!(!format!("{findings:?}").contains("secret"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_an_expired_certificate_are_told_as_such() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let postgres = Fixture::new(Kind::Postgres).await;
    let redis = Redis::start().await;
    let mut admin = redis.connection().await.expect("a connection");
    let guard = ::redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("right").query_async::<()>(&mut admin).await;
    guard.expect("a password is set");
    let with_password = |password: &str| redis.url().replace("redis://", &format!("redis://:{password}@"));
    let certificate = Certificate::expired();
    let nats = Nats::behind_tls(&certificate).await;
    let (trust, trusted) = certificate.trusting();
    for (password, level, said) in [("right", "OK", ""), ("hunter2", "WARNING", "Password authentication failed")] {
        let settings = [("SCRIP_CACHE__REDIS_URL", &*with_password(password))];
        let (_, findings) = examine_with(&text_of(&postgres.url), &settings);
        let found = finding(&findings, "shared cache");
        assert_eq!(found["level"], level, "{found}");
        assert!(found["found"].as_str().is_some_and(|found| found.contains(said)), "{found}");
        assert!(!format!("{findings:?}").contains("hunter2"));
    }
    let settings = [("SCRIP_EVENTS__NATS_URL", &*nats.url().replace("nats://", "tls://")), (trust, &*trusted)];
    let (_, findings) = examine_with(&text_of(&fixture.url), &settings);
    let found = finding(&findings, "broker");
    assert_eq!(found["level"], "WARNING", "{found}");
    for said in ["certificate expired", "renew the server's certificate"] {
        assert!(found["found"].as_str().is_some_and(|found| found.contains(said)), "{found}");
    }
}
