//! Every hot query is served by an index, on tables of 100,000 rows, in both stores.

use scrip_server::store::read::{gathered_statements, hot_queries, listed_queries, page_deletes};
use scrip_server::store::{StoreUrl, batch_look_ups, lane_statements};

use crate::harness::{Fixture, Kind};
use crate::postgres;

/// The brief's named indexes.
const NAMED: [&str; 11] = [
    "idx_template_tenant_status",
    "idx_template_tenant_type",
    "idx_template_distribution_time",
    "idx_user_coupon_member",
    "idx_user_coupon_template",
    "idx_user_coupon_expire",
    "idx_points_account_member",
    "idx_points_account_total",
    "idx_points_transaction_member",
    "idx_points_transaction_expire",
    "idx_points_transaction_type",
];

/// Fills the tables: `{n}` numbers the rows, `{id}` makes an id of 16 bytes from it, `{bytes}` a digest, `{t}` one of four
/// tenants.
const FILL: &[&str] = &[
    "INSERT INTO mkt_coupon_template SELECT {t}, {id}, 1, {n} >= 0, 'AMOUNT_OFF', NULL, NULL, NULL, NULL, 0, 0, 0, \
     NULL, 0, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL {from}",
    "INSERT INTO mkt_coupon_code_batch SELECT {t}, {id}, {t}, 'UNIQUE', 'n', 1, '#', 'AB', {n} < 0, 1, 0, 'ACTIVE', 1, 1, 1, 0, \
     NULL, 0, NULL, 0 {from}",
    "INSERT INTO mkt_coupon_code SELECT {t}, {bytes}, {id}, {n}, 1, 'ACTIVE', 0, NULL {from}",
    "INSERT INTO mkt_coupon_code_use SELECT {t}, {id}, {t}, {bytes} {from}",
    "INSERT INTO mkt_points_adjustment SELECT {t}, {id}, 'm', 1, 'r', NULL, NULL, {id}, 0, 'PENDING', NULL, NULL, NULL, NULL {from}",
    "INSERT INTO mkt_coupon_exchange SELECT {t}, {id}, 'm', {id}, 1 {from}",
    "INSERT INTO mkt_coupon_template_use SELECT {t}, {id}, 0, 1 {from}",
    "INSERT INTO mkt_coupon_template_version SELECT {t}, {id}, 1, '{}', 0 {from}",
    "INSERT INTO mkt_user_coupon SELECT {t}, {id}, {t}, 1, 'm-' || ({n} / 20), 'AVAILABLE', {n} + 1, 'CLAIM', 0, {n}, NULL, NULL, \
     NULL, 0, NULL, {n} < 0 {from}",
    "INSERT INTO mkt_points_account SELECT {t}, 'm-' || {n}, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, NULL, 0, 0, 0, 0, NULL {from}",
    "INSERT INTO mkt_points_lot SELECT {t}, {id}, 'm-' || ({n} / 20), 1, 1, 0, 0, 0, 0, 0, 0, {n}, {id}, 0, {n} >= 0, NULL {from}",
    "INSERT INTO mkt_points_transaction SELECT {t}, {id}, 'm-' || ({n} / 20), {n} + 1, 'EARN_ORDER', 1, 0, 1, 0, 0, NULL, NULL, \
     NULL, NULL, NULL, '[]', {n}, 0, 0, 0 > {n}, NULL, NULL, 0, NULL {from}",
    "INSERT INTO mkt_points_hold SELECT {t}, {id}, 'm-' || ({n} / 20), 1, 0, 0, 'OPEN', NULL, NULL, {n}, '[]', 0, NULL, \
     {n} < 0, {n} < 0 {from}",
    "INSERT INTO mkt_points_rule SELECT {t}, {n} + 1, {n}, '{}', 0 {from}",
    "INSERT INTO mkt_order SELECT {t}, 'o-' || {n}, {id}, 'm-' || ({n} / 20), '{}', '{}', 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, {n}, {n}, \
     CASE WHEN {n} % 2 = 0 THEN 'RESERVED' ELSE 'PAID' END, NULL, NULL, NULL, CASE WHEN {n} % 4 = 1 THEN {n} END, 0, '[]', 0, 0, 0, \
     0, {n} < 0, CASE WHEN {n} % 2 = 1 THEN {n} END, NULL, 0, NULL {from}",
    "INSERT INTO mkt_order_refund SELECT {t}, 'o-' || {n}, 'r', {id}, 'm-' || ({n} / 20), {n} < 0, '[]', 0, 0, 0, 0, 0, NULL, NULL, \
     '[]', NULL, 'REFUNDED', {n}, 0 {from}",
    "INSERT INTO mkt_coupon_refund_compensation SELECT {t}, {id}, {id}, {id}, 'm-' || ({n} / 20), 'o-' || {n}, 'NO_EXTENSION', {n}, \
     'PENDING', NULL, NULL, NULL {from}",
    "INSERT INTO mkt_points_check_in SELECT {t}, 'm-' || ({n} / 20), {n}, 1, 1, 0, {id}, 0, {n} < 0, NULL {from}",
    "INSERT INTO mkt_points_task SELECT {t}, 't-' || {n}, {id}, 1, {n} >= 0, NULL, '{}', 0, 0, NULL {from}",
    "INSERT INTO mkt_user_task_progress SELECT {t}, 'm-' || ({n} / 20), 't-' || {n}, 0, 0, 0, 0, 0, 0, 0, 0 {from}",
    "INSERT INTO mkt_user_task_completion SELECT {t}, 'm-' || ({n} / 20), 't', 'c-' || {n}, 0, 1, 1, 1, {id}, 0 {from}",
    "INSERT INTO stat_day SELECT {t}, 's-' || ({n} / 20), 'd-' || {n}, 'n', 1, 1 {from}",
    "INSERT INTO board_score SELECT {t}, 'b-' || ({n} / 20000), 'm-' || {n}, {n} {from}",
    "INSERT INTO board_owner SELECT {t}, 'm-' || {n}, 'm-0' {from}",
    "INSERT INTO board_bucket SELECT {t}, 'b-' || ({n} / 20000), {n}, 1 {from}",
    "INSERT INTO projection SELECT {id}, 1, 0, 0 {from}",
    "INSERT INTO job SELECT {t}, {id}, 'POINTS_GRANT', 'SHORT', '{}', 1, 3, NULL, 0, 'DONE', {n}, 1, 1, NULL, NULL, '{}', NULL, 0, {n} {from}",
    "INSERT INTO webhook SELECT {t}, {id}, 'u', '[]', '', NULL, 's', NULL, NULL, 0, -1, 0, 0 {from}",
    "INSERT INTO webhook_progress SELECT {t}, {id}, 1, 0, 0, {n} < 0 {from}",
    "INSERT INTO webhook_parked SELECT {t}, {id}, {n}, 0, 's', 0, {n} {from}",
    "INSERT INTO webhook_delivery SELECT {t}, {id}, {id}, 'EVENT', {id}, 'coupon.claimed', 1, 0, 1, {n} < 0, NULL, NULL, '', 1, 0 {from}",
    "INSERT INTO points_reminder SELECT {id}, 7, 0, {id} {from}",
    "INSERT INTO template_window SELECT {id}, 0 {from}",
    "INSERT INTO bulk SELECT {t}, {id}, 'POINTS_GRANTS', NULL, 1, 1, 0, NULL, 0, 'RUNNING', 0, 0, 0, 0, NULL, NULL {from}",
    "INSERT INTO bulk_chunk SELECT {t}, {id}, 0, 1, '[]', 0, NULL, 0, 0 {from}",
    "INSERT INTO event SELECT {t}, {n}, 0, {id}, 'coupon.claimed', {id}, NULL, '{}', NULL, 0, 0 {from}",
];

fn parameters(sql: &str) -> usize {
    (1..=99).rev().find(|number| sql.contains(&format!("${number}"))).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_serves_every_hot_query_and_batch_look_up_from_an_index() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let StoreUrl::Sqlite(path) = &fixture.url else { unreachable!("a SQLite fixture") };
    let connection = rusqlite::Connection::open(path).expect("the store opens");
    connection.pragma_update(None, "foreign_keys", false).expect("a pragma");
    connection.execute_batch("BEGIN").expect("a transaction");
    for text in FILL {
        let sql = text
            .replace("{n}", "value")
            .replace("{id}", "unhex(printf('%032x', value))")
            .replace("{bytes}", "unhex(printf('%032x', value))")
            .replace("{t}", "unhex(printf('%032x', value % 4))")
            .replace("{from}", "FROM numbers");
        let numbers =
            "WITH RECURSIVE numbers(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM numbers WHERE value < 99999) ";
        let (insert, select) = sql.split_once(" SELECT ").expect("an INSERT of a SELECT");
        connection.execute(&format!("{insert} {numbers} SELECT {select}"), []).expect("rows");
    }
    connection.execute_batch("COMMIT").expect("a commit");
    let mut scans = Vec::new();
    let look_ups = batch_look_ups().map(|(name, sql)| (name.to_owned(), sql.to_owned()));
    let listed = listed_queries().into_iter().map(|(name, [by_sqlite, _])| (name.to_owned(), by_sqlite));
    for (name, sql) in hot_queries().into_iter().chain(look_ups).chain(listed) {
        let sql = format!("EXPLAIN QUERY PLAN {}", sql.replace('$', "?"));
        let mut statement = connection.prepare(&sql).unwrap_or_else(|error| panic!("{name}: {error}"));
        let nothing = vec![rusqlite::types::Null; statement.parameter_count()];
        let rows =
            statement.query_map(rusqlite::params_from_iter(nothing), |row| row.get::<_, String>(3)).expect("a plan");
        for step in rows.map(|row| row.expect("a step")) {
            // A sub-select's few rows are scanned, or the one row without a table; a table must be searched.
            // What a statement has just picked to change is few as well, and so are a member's own lines under a window.
            let few = ["SCAN s", "SCAN l", "SCAN CONSTANT ROW", "SCAN due", "SCAN gone", "SCAN held", "SCAN (subquery"];
            // This index has nothing but the few rows that are looked for.
            let step = step.replace("SCAN mkt_coupon_code_batch USING INDEX idx_code_batch_open", "");
            if step.starts_with("SCAN") && !few.iter().any(|start| step.starts_with(start)) {
                scans.push(format!("{name}: {step}"));
            }
        }
    }
    assert!(scans.is_empty(), "{}", scans.join("\n"));
    for sql in late_lines() {
        let sql = format!("EXPLAIN QUERY PLAN {}", sql.replace('$', "?"));
        let mut statement = connection.prepare(&sql).expect("a statement");
        let nothing = vec![rusqlite::types::Null; statement.parameter_count()];
        let rows = statement.query_map(rusqlite::params_from_iter(nothing), |row| row.get::<_, String>(3));
        let steps: Vec<String> = rows.expect("a plan").map(|row| row.expect("a step")).collect();
        assert!(steps.iter().any(|step| step.contains(LATE)), "{steps:#?}");
    }
    for index in NAMED {
        let count: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = ?1", [index], |row| {
                row.get(0)
            })
            .expect("a count");
        assert_eq!(count, 1, "{index}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_serves_every_hot_query_and_lane_statement_from_an_index() {
    let fixture = Fixture::new(Kind::Postgres).await;
    let StoreUrl::Postgres(url) = &fixture.url else { unreachable!("a PostgreSQL fixture") };
    let client = postgres::connect(url).await;
    client.batch_execute("SET session_replication_role = replica").await.expect("foreign keys rest");
    for text in FILL {
        let sql = text
            .replace("{n}", "value")
            .replace("{id}", "lpad(to_hex(value), 32, '0')::uuid")
            .replace("{bytes}", "decode(lpad(to_hex(value), 32, '0'), 'hex')")
            .replace("{t}", "lpad(to_hex(value % 4), 32, '0')::uuid")
            .replace("{from}", "FROM generate_series(0, 99999) AS numbers(value)");
        // Literals of a SELECT have no type of their own.
        let sql = sql.replace("NULL, '[]', 0, NULL", "NULL, '[]', 0, NULL::bigint");
        let sql =
            sql.replace("'s', NULL, NULL, 0", "'s', NULL, NULL::bigint, 0").replace("< 0, NULL,", "< 0, NULL::bigint,");
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    }
    client.batch_execute("ANALYZE").await.expect("statistics");
    let mut scans = Vec::new();
    client.batch_execute("SET plan_cache_mode = force_generic_plan").await.expect("a setting");
    let listed = listed_queries().into_iter().map(|(name, [_, by_postgres])| (name.to_owned(), by_postgres));
    for (name, sql) in hot_queries().into_iter().chain(listed) {
        scans.extend(scans_of(&client, &name, &sql).await);
    }
    for sql in late_lines() {
        let plan = plan_of(&client, "late lines", &sql).await;
        assert!(plan.iter().any(|line| line.contains(LATE)), "{plan:#?}");
    }
    let (settings, statements) = lane_statements();
    client.batch_execute(settings).await.expect("the lanes' settings");
    for sql in statements {
        scans.extend(scans_of(&client, "lane", &sql).await);
    }
    for sql in gathered_statements() {
        scans.extend(scans_of(&client, "gathered", &sql).await);
    }
    assert!(scans.is_empty(), "{}", scans.join("\n"));
    for index in NAMED {
        let found = client.query("SELECT 1 FROM pg_indexes WHERE indexname = $1", &[&index]).await.expect("an answer");
        assert_eq!(found.len(), 1, "{index}");
    }
}

/// The index of lines that were written late. By the one of all lines, a statement would read on to the end of the ledger.
const LATE: &str = "idx_points_transaction_late";

/// What looks for them.
fn late_lines() -> impl Iterator<Item = String> {
    let looks = |name: &str| ["posted_balance", "ledger"].contains(&name);
    hot_queries().into_iter().filter(move |(name, _)| looks(name)).map(|(_, sql)| sql)
}

async fn scans_of(client: &tokio_postgres::Client, name: &str, sql: &str) -> Vec<String> {
    // Reference tables of a few rows may be scanned: a tenant, its keys.
    let is_scan =
        |line: &String| line.contains("Seq Scan") && !line.contains(" on tenant") && !line.contains(" on api_key");
    let scanned = plan_of(client, name, sql).await.into_iter().filter(is_scan);
    scanned.map(|line| format!("{name}: {} in {sql}", line.trim())).collect()
}

async fn plan_of(client: &tokio_postgres::Client, name: &str, sql: &str) -> Vec<String> {
    client.batch_execute(&format!("PREPARE hot AS {sql}")).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let nothing = vec!["NULL"; parameters(sql)].join(", ");
    let values = if nothing.is_empty() { String::new() } else { format!("({nothing})") };
    let plan = client.simple_query(&format!("EXPLAIN EXECUTE hot{values}")).await.expect("a plan");
    client.batch_execute("DEALLOCATE hot").await.expect("the name is free again");
    let lines = plan.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    lines.collect()
}

#[tokio::test]
async fn a_page_is_deleted_by_its_bounds_even_where_the_planner_knows_of_one_row() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let StoreUrl::Sqlite(path) = &fixture.url else { unreachable!("a SQLite fixture") };
    let connection = rusqlite::Connection::open(path).expect("the store opens");
    for (sql, column) in page_deletes() {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
        let nothing = vec![rusqlite::types::Null; statement.parameter_count()];
        let rows = statement.query_map(rusqlite::params_from_iter(nothing), |row| row.get(3)).expect("a plan");
        let plan: Vec<String> = rows.map(|row| row.expect("a step")).collect();
        let is_bounded = |step: &String| step.contains(&format!("{column}<")) || step.contains(&format!("{column}>"));
        assert!(plan.first().is_some_and(is_bounded), "{sql}: {plan:#?}");
    }

    let fixture = Fixture::new(Kind::Postgres).await;
    let StoreUrl::Postgres(url) = &fixture.url else { unreachable!("a PostgreSQL fixture") };
    let client = postgres::connect(url).await;
    let (settings, _) = lane_statements();
    client.batch_execute(settings).await.expect("the settings of all sessions");
    client.batch_execute("SET session_replication_role = replica").await.expect("foreign keys rest");
    let some_id = "'01a218bb-d860-7000-9694-420b29dec714'";
    for one in [
        format!("INSERT INTO idempotency VALUES ({some_id}, 'k', 'f', '', 1)"),
        format!("INSERT INTO bulk_chunk SELECT {some_id}, {some_id}, 0, 1, '[]', 0, NULL, 0, 0"),
        format!(
            "INSERT INTO webhook_delivery SELECT {some_id}, {some_id}, {some_id}, 'EVENT', {some_id}, 'coupon.claimed', 1, 0, 1, \
             false, NULL, NULL, '', 1, 0"
        ),
    ] {
        client.batch_execute(&one).await.unwrap_or_else(|error| panic!("{one}: {:?}", error.as_db_error()));
    }
    client.batch_execute("ANALYZE").await.expect("statistics");
    for (sql, _) in page_deletes() {
        let plan = plan_of(&client, "a page", sql).await;
        assert!(!plan.iter().any(|line| line.contains("Join")), "{plan:#?}");
        assert!(plan.iter().any(|line| line.contains("Index Cond") && line.contains("COALESCE")), "{plan:#?}");
    }
}
