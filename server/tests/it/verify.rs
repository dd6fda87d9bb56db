//! `verify` must find what is wrong: each corruption is put into a copy of a sound store, and the check that is there for it
//! must name a row.

use std::path::Path;

use scrip_domain::Envelope;
use scrip_server::store::{Store, StoreOptions, StoreUrl};
use scrip_server::verify::verify;

use crate::generate::Generator;
use crate::harness::{Fixture, Kind};
use crate::postgres;

/// Enough for every kind of row to exist.
const COMMANDS: usize = 4_000;

/// The check that must notice, and how the rows are spoilt. The statements mean the same in both stores.
const CORRUPTIONS: &[(&str, &str)] = &[
    ("X1", "DROP INDEX idx_user_coupon_expire"),
    ("X3", "UPDATE mkt_coupon_template_use SET tenant_id = template_id"),
    ("X4", "UPDATE idempotency SET outcome = 'lost'"),
    (
        "P1",
        "UPDATE mkt_points_account SET total_points = total_points + 1 WHERE sequence = (SELECT max(sequence) FROM mkt_points_account)",
    ),
    ("P2", "UPDATE mkt_points_account SET debt = -1 WHERE sequence = (SELECT max(sequence) FROM mkt_points_account)"),
    (
        "P3",
        "UPDATE mkt_points_account SET available = available + 1, total_points = total_points + 1 WHERE sequence = (SELECT max(sequence) FROM mkt_points_account)",
    ),
    (
        "P4",
        "UPDATE mkt_points_account SET frozen = frozen + 1, used = used - 1 WHERE sequence = (SELECT max(sequence) FROM mkt_points_account)",
    ),
    (
        "P5",
        "UPDATE mkt_points_account SET used = used + 1, expired = expired - 1 WHERE sequence = (SELECT max(sequence) FROM mkt_points_account)",
    ),
    (
        "P6",
        "UPDATE mkt_points_account SET expired = expired + 1, used = used - 1 WHERE sequence = (SELECT max(sequence) FROM mkt_points_account)",
    ),
    (
        "P7",
        "UPDATE mkt_points_account SET revoked = revoked + 1, used = used - 1 WHERE sequence = (SELECT max(sequence) FROM mkt_points_account)",
    ),
    ("P8", "UPDATE mkt_points_lot SET points = points + 1 WHERE used > 0"),
    (
        "P9",
        "UPDATE mkt_points_account SET sequence = sequence + 1 WHERE sequence = (SELECT max(sequence) FROM mkt_points_account)",
    ),
    ("P10", "UPDATE mkt_points_transaction SET points = points + 1 WHERE type = 'EARN_ORDER'"),
    ("P11", "UPDATE mkt_points_transaction SET points = points - 1 WHERE type = 'USE_ORDER'"),
    ("P12", "UPDATE mkt_points_transaction SET type = 'CLAWBACK' WHERE type = 'EXPIRE'"),
    ("P13", "UPDATE mkt_points_transaction SET type = 'EXPIRE' WHERE type = 'CLAWBACK'"),
    ("P14", "UPDATE mkt_points_transaction SET points = points - 1 WHERE type = 'HOLD'"),
    ("T1", "UPDATE mkt_points_account SET available = available + 1 WHERE sequence > 0"),
    ("T2", "UPDATE mkt_points_account SET frozen = frozen + 1 WHERE sequence > 0"),
    ("T3", "UPDATE mkt_points_account SET debt = debt + 1 WHERE sequence > 0"),
    (
        "T4",
        "UPDATE mkt_points_transaction SET balance_before = balance_before + 1, balance_after = balance_after + 1 WHERE sequence = 3",
    ),
    ("T5", "DELETE FROM mkt_points_transaction WHERE sequence = 2"),
    ("T6", "UPDATE mkt_points_transaction SET balance_after = balance_after + 1 WHERE sequence = 2"),
    ("T7", "UPDATE mkt_points_transaction SET points = -points WHERE type = 'EARN_ORDER'"),
    ("T8", "UPDATE mkt_points_transaction SET allocations = '[]' WHERE type = 'USE_ORDER'"),
    ("T9", "UPDATE mkt_points_lot SET expires_at = 1 WHERE used > 0"),
    ("T10", "UPDATE mkt_points_lot SET member_id = 'nobody' WHERE used > 0"),
    ("T11", "DELETE FROM mkt_points_account WHERE sequence = (SELECT max(sequence) FROM mkt_points_account)"),
    ("T12", "UPDATE mkt_points_transaction SET reverses_id = id WHERE type = 'REFUND'"),
    ("T13", "UPDATE mkt_points_reversal SET reversed = reversed + 1"),
    ("T14", "DELETE FROM mkt_points_reversal"),
    ("T15", "UPDATE mkt_points_transaction SET lot_id = id WHERE type = 'EARN_ORDER'"),
    ("L1", "UPDATE mkt_points_lot SET remaining = remaining + 1 WHERE used > 0"),
    ("L2", "UPDATE mkt_points_lot SET open = NOT open WHERE used > 0"),
    ("L3", "UPDATE mkt_points_lot SET member_id = 'nobody' WHERE used > 0"),
    ("L4", "UPDATE mkt_points_lot SET transaction_id = id WHERE used > 0"),
    ("L5", "UPDATE mkt_points_lot SET used = used - 1, remaining = remaining + 1 WHERE used > 0"),
    ("L6", "UPDATE mkt_points_lot SET expired = expired - 1, used = used + 1 WHERE expired > 0"),
    ("L7", "UPDATE mkt_points_lot SET held = held + 1, used = used - 1 WHERE used > 0"),
    ("L8", "UPDATE mkt_points_lot SET held = held - 1, used = used + 1 WHERE held > 0"),
    ("H1", "UPDATE mkt_points_hold SET status = 'RELEASED' WHERE status = 'OPEN'"),
    ("H2", "UPDATE mkt_points_hold SET allocations = '[]'"),
    ("H3", "UPDATE mkt_points_hold SET points = points + 1"),
    ("H4", "UPDATE mkt_points_hold SET captured = captured - 1, released = released + 1 WHERE status = 'CAPTURED'"),
    ("H5", "UPDATE mkt_points_hold SET released = released - 1 WHERE status = 'RELEASED'"),
    ("H6", "UPDATE mkt_points_transaction SET hold_id = id WHERE type = 'HOLD'"),
    ("C1", "UPDATE mkt_coupon_template SET remaining_stock = remaining_stock + 1"),
    ("C2", "UPDATE mkt_coupon_template SET claimed_count = claimed_count + 1, remaining_stock = remaining_stock - 1"),
    ("C3", "UPDATE mkt_coupon_template_use SET used_count = used_count + 1"),
    ("C4", "UPDATE mkt_user_coupon SET sequence = sequence + 7 WHERE sequence = 1"),
    (
        "C5",
        "UPDATE mkt_coupon_template_version SET definition = replace(definition, '\"limit_per_member\":', '\"limit_per_member\":-')",
    ),
    ("C6", "UPDATE mkt_user_coupon SET template_version = 999 WHERE sequence = 1"),
    ("C7", "UPDATE mkt_coupon_template SET version = 999"),
    ("C8", "UPDATE mkt_user_coupon SET order_id = 'o-9' WHERE status = 'AVAILABLE'"),
    ("E1", "DELETE FROM event WHERE type = 'coupon.claimed'"),
    ("E2", "UPDATE mkt_user_coupon SET status = 'EXPIRED' WHERE status = 'AVAILABLE'"),
    ("E3", "DELETE FROM event WHERE type = 'points.granted'"),
    ("E4", "DELETE FROM event WHERE type = 'points.held'"),
    ("E5", "UPDATE event SET member_id = 'nobody' WHERE type = 'coupon.claimed'"),
    ("E6", "UPDATE event SET subject_id = id WHERE type = 'points.debited'"),
    ("E7", "UPDATE event SET member_id = 'nobody' WHERE type = 'points.held'"),
];

async fn history(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind).await;
    let mut writer = fixture.store.writer().await.expect("a writer");
    let mut generator = Generator::new(77);
    for _ in 0..COMMANDS / 4 {
        let batch: Vec<Envelope> = (0..4).map(|_| generator.next()).collect();
        let answers = writer.run(&batch).await.expect("the batch is decided");
        for (envelope, answer) in batch.iter().zip(&answers) {
            generator.learn(envelope, answer);
        }
    }
    let report = verify(&fixture.store, None, |_, _, _| {}).await.expect("verify runs");
    assert!(report.is_clean(), "{kind:?}: {}", report.summary());
    fixture
}

/// Runs verify on a spoilt copy; what went unnoticed.
async fn unnoticed(url: StoreUrl, check: &str, corruption: &str) -> Option<String> {
    let store = Store::open(&StoreOptions::new(url)).await.expect("the copy opens");
    let report = verify(&store, None, |_, _, _| {}).await.expect("verify runs");
    let found = report.checks.iter().find(|result| result.id == check).expect("the check exists");
    found.violations.is_empty().then(|| format!("{check}: {corruption}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_corruption_of_a_sqlite_store_is_named() {
    let fixture = history(Kind::Sqlite).await;
    let StoreUrl::Sqlite(path) = &fixture.url else { unreachable!("a SQLite fixture") };
    let mut missed = Vec::new();
    for (number, (check, corruption)) in CORRUPTIONS.iter().enumerate() {
        let copy = path.with_file_name(format!("copy-{number}.db"));
        copy_sqlite(path, &copy);
        let connection = rusqlite::Connection::open(&copy).expect("the copy opens");
        connection.pragma_update(None, "ignore_check_constraints", true).expect("a pragma");
        connection.pragma_update(None, "foreign_keys", false).expect("a pragma");
        let changed = connection.execute(corruption, []).unwrap_or_else(|error| panic!("{corruption}: {error}"));
        assert!(changed > 0 || corruption.starts_with("DROP"), "nothing to spoil: {corruption}");
        drop(connection);
        missed.extend(unnoticed(StoreUrl::Sqlite(copy), check, corruption).await);
    }
    assert!(missed.is_empty(), "unnoticed:\n{}", missed.join("\n"));
}

fn copy_sqlite(from: &Path, to: &Path) {
    let connection = rusqlite::Connection::open(from).expect("the store opens");
    connection.execute("VACUUM INTO ?1", [to.to_str().expect("a path of ASCII")]).expect("a copy is made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_corruption_of_a_postgres_store_is_named() {
    let fixture = history(Kind::Postgres).await;
    let StoreUrl::Postgres(url) = fixture.url.clone() else { unreachable!("a PostgreSQL fixture") };
    let (base, name) = url.rsplit_once('/').expect("a URL with a database");
    // A database is copied only while nobody is connected to it.
    drop(fixture);
    let admin = postgres::connect(&format!("{base}/postgres")).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ";
    let mut missed = Vec::new();
    for (number, (check, corruption)) in CORRUPTIONS.iter().enumerate() {
        let copy = format!("{name}_copy_{number}");
        admin.batch_execute(&format!("{end}'{name}'")).await.expect("connections end");
        admin.batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {name}")).await.expect("a copy is made");
        let client = postgres::connect(&format!("{base}/{copy}")).await;
        // What the database itself would refuse is let through: the second wall is down.
        client.batch_execute(LET_THROUGH).await.expect("constraints are dropped");
        let changed = client.execute(*corruption, &[]).await.unwrap_or_else(|error| panic!("{corruption}: {error}"));
        assert!(changed > 0 || corruption.starts_with("DROP"), "nothing to spoil: {corruption}");
        drop(client);
        missed.extend(unnoticed(StoreUrl::Postgres(format!("{base}/{copy}")), check, corruption).await);
    }
    assert!(missed.is_empty(), "unnoticed:\n{}", missed.join("\n"));
}

const LET_THROUGH: &str = "DO $$ DECLARE c record; BEGIN FOR c IN SELECT conrelid::regclass AS t, conname FROM pg_constraint \
    WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace LOOP \
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.conname); END LOOP; END $$";
