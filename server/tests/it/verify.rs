//! `verify` must find what is wrong: whole tables spoilt (here) and single rows ([`crate::verify_rows`]), in a store whose own
//! constraints have been taken down. Each corruption is undone before the next one.

use std::str::FromStr;
use std::sync::Arc;

use jiff::tz::TimeZone;
use scrip_domain::bulk::BulkKind;
use scrip_domain::command::Movement;
use scrip_domain::coupon::{Benefit, Definition, Validity};
use scrip_domain::job::{JobPool, JobTicket};
use scrip_domain::order::{RefundRequest, Reservation};
use scrip_domain::points::{AdjustmentRequest, DebtPolicy, MAX_POINTS, ReminderPage, Spendable, TransactionType};
use scrip_domain::pricing::{Attributes, Basket, Line, Rules};
use scrip_domain::task;
use scrip_domain::tenant::{ApiKey, Scope, Tenant};
use scrip_domain::time::{LocalTime, MICROS_PER_DAY, Window};
use scrip_domain::webhook::{DisabledReason, LogPosition, NewWebhook, WebhookChange};
use scrip_domain::{Answer, BulkId, Command, Envelope, KeyId, LotId, MemberId, OrderId, Outcome, TenantId, Timestamp};
use scrip_server::bulk::{FileReader, Format, Stager, work_of};
use scrip_server::calendar::end_of_day_after;
use scrip_server::engine::EngineOptions;
use scrip_server::relay::subject_of;
use scrip_server::store::job::JobEnd;
use scrip_server::store::{LogProgress, Parked, Round, Store, StoreUrl, Writer};
use scrip_server::verify::{CheckResult, VerifyReport, verify};

use crate::generate::Generator;
use crate::harness::{Fixture, KINDS, Kind, definition, envelope, member};
use crate::postgres;
use crate::webhooks::until;

/// Enough for every kind of row to exist.
const COMMANDS: usize = 8_000;

/// The check that must notice, and how the rows are spoilt. The statements mean the same in both stores.
const CORRUPTIONS: &[(&str, &str)] = &[
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
    ("T15", "UPDATE mkt_points_transaction SET lot_id = tenant_id WHERE type = 'EARN_ORDER'"),
    ("L1", "UPDATE mkt_points_lot SET remaining = remaining + 1 WHERE used > 0"),
    ("L2", "UPDATE mkt_points_lot SET open = NOT open WHERE used > 0"),
    ("L3", "UPDATE mkt_points_lot SET member_id = 'nobody' WHERE used > 0"),
    ("L4", "UPDATE mkt_points_lot SET transaction_id = tenant_id WHERE used > 0"),
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
    ("R1", "DELETE FROM mkt_points_rule WHERE version = 1"),
    ("R2", "DELETE FROM event WHERE type = 'points_rules.changed'"),
    ("R3", "UPDATE mkt_points_rule SET effective_from = created_at - 1"),
    ("R4", "UPDATE mkt_points_rule SET rules = replace(rules, 'version', 'vision')"),
    ("E25", "UPDATE event SET subject_id = id WHERE type = 'points_rules.changed'"),
    ("C20", "UPDATE mkt_coupon_template SET committed_amount = committed_amount + 1"),
    ("C21", "UPDATE mkt_coupon_template SET budget = 1 WHERE committed_amount > 1"),
    ("C22", "UPDATE mkt_coupon_template SET day_claimed = day_claimed + 1 WHERE day_claimed IS NOT NULL"),
    ("C22", "UPDATE mkt_coupon_template SET week_claimed = week_claimed - 1 WHERE week_claimed IS NOT NULL"),
    (
        "C22",
        "UPDATE mkt_coupon_template SET month_starts_at = NULL, month_ends_at = NULL, month_claimed = NULL, \
             month_ceiling = NULL WHERE month_claimed IS NOT NULL",
    ),
    ("C23", "UPDATE mkt_coupon_template SET code_batch_count = code_batch_count + 1"),
    ("C24", "UPDATE mkt_coupon_template SET archived_at = 1 WHERE archived_at IS NULL"),
    ("C25", "UPDATE mkt_user_coupon SET valid_from = valid_from + 1 WHERE source = 'TRANSFER'"),
    ("P18", "UPDATE mkt_points_account SET earned_in_day = earned_in_week + 1"),
    ("P18", "UPDATE mkt_points_account SET earned_in_month = earned_in_day - 1"),
    ("P19", "UPDATE mkt_points_account SET earned_in_month = earned_in_month + 1"),
    ("P19", "UPDATE mkt_points_account SET earned_in_week = earned_in_week + 1 WHERE earned_day > 0"),
    ("P19", "UPDATE mkt_points_account SET earned_day = earned_day + 1 WHERE earned_day > 0"),
    ("O2", "UPDATE mkt_order SET points_cut = 1 WHERE status = 'RESERVED'"),
    ("O2", "UPDATE mkt_order SET earn_cut = NULL WHERE points_cut > 0"),
    ("O7", "UPDATE mkt_order SET points_cut = points_to_earn WHERE earn_id IS NOT NULL"),
    ("O9", "UPDATE mkt_order SET points_cut = points_cut - 1 WHERE points_cut > 0 AND earn_id IS NOT NULL"),
    ("O10", "UPDATE mkt_order SET points_cut = points_to_earn WHERE points_clawed_back > 0"),
    ("O19", "UPDATE mkt_order SET earn_cut = replace(earn_cut, '\"r\":0', '\"r\":1') WHERE points_cut > 0"),
    ("O19", "UPDATE mkt_order SET earn_cut = replace(earn_cut, '\"p\":', '\"p\":1') WHERE points_cut > 0"),
    ("O19", "UPDATE mkt_order SET earn_cut = '{' WHERE points_cut > 0"),
    ("T13", "UPDATE mkt_points_transaction SET points_forgiven = points_forgiven + 1 WHERE points_forgiven > 0"),
    ("T26", "UPDATE mkt_points_transaction SET rules_version = NULL WHERE rules_version IS NOT NULL"),
    (
        "T26",
        "UPDATE mkt_points_transaction SET rules_version = 999 WHERE type = 'CLAWBACK' AND reverses_id IS NOT NULL",
    ),
    ("T26", "UPDATE mkt_points_transaction SET rules_version = 0 WHERE type = 'EARN_TASK'"),
    ("T27", "UPDATE mkt_points_rule SET rules = replace(rules, '\"FORGIVE\"', '\"OWE\"')"),
    ("T27", "UPDATE mkt_points_rule SET rules = replace(rules, '\"OWE\"', '\"FORGIVE\"')"),
    (
        "T27",
        "UPDATE mkt_points_transaction SET debt_after = debt_after + points_forgiven, points_forgiven = 0 WHERE points_forgiven > 0",
    ),
    ("T27", "UPDATE mkt_points_transaction SET points_forgiven = 1 WHERE type = 'EARN_ORDER'"),
    ("O15", "UPDATE mkt_order_refund SET points_forgiven = points_forgiven - 1 WHERE points_forgiven > 0"),
    ("O15", "UPDATE mkt_order_refund SET points_owed = points_forgiven, points_forgiven = 0 WHERE points_forgiven > 0"),
    (
        "E9",
        "UPDATE event SET data = replace(data, 'points_forgiven', 'points_forgotten') WHERE type = 'points.reversed'",
    ),
    ("T28", "DELETE FROM mkt_points_adjustment WHERE status = 'APPROVED'"),
    ("T28", "UPDATE mkt_points_adjustment SET status = 'PENDING' WHERE status = 'APPROVED'"),
    ("T28", "UPDATE mkt_points_rule SET rules = replace(rules, '\"approval_above\":50', '\"approval_above\":5')"),
    ("T28", "UPDATE mkt_points_transaction SET points = points + 50 WHERE type = 'EARN_ADMIN' AND rules_version = 2"),
    ("T29", "UPDATE mkt_points_transaction SET rules_version = 1 WHERE rules_version = 2 AND type = 'DEDUCT_ADMIN'"),
    ("T29", "UPDATE mkt_points_rule SET effective_from = 9000000000000000"),
    ("T29", "UPDATE event SET recorded_at = recorded_at + 99999999999999 WHERE type = 'points_rules.changed'"),
    ("M20", "UPDATE mkt_points_adjustment SET points = points + 1 WHERE status = 'APPROVED'"),
    ("M20", "UPDATE mkt_points_adjustment SET transaction_id = id WHERE status = 'APPROVED'"),
    ("M21", "UPDATE mkt_points_adjustment SET decided_by = requested_by WHERE status = 'APPROVED'"),
    ("M21", "UPDATE mkt_points_adjustment SET remark = NULL WHERE status = 'REJECTED'"),
    ("M22", "UPDATE event SET type = 'points_adjustment.rejected' WHERE type = 'points_adjustment.approved'"),
    ("C26", "DELETE FROM mkt_coupon_exchange"),
    ("C27", "UPDATE mkt_coupon_exchange SET points = points + 1"),
    ("C27", "UPDATE mkt_coupon_exchange SET member_id = 'somebody else'"),
    ("C28", "UPDATE mkt_coupon_exchange SET transaction_id = coupon_id"),
    ("K1", "UPDATE mkt_coupon_code_batch SET template_id = id"),
    ("K2", "UPDATE mkt_coupon_code_batch SET added_count = added_count + 1, next_number = next_number + 1"),
    ("K3", "UPDATE mkt_coupon_code_batch SET claimed_count = claimed_count + 1"),
    ("K4", "UPDATE mkt_coupon_code_batch SET next_number = 0 WHERE added_count > 0"),
    (
        "K5",
        "UPDATE mkt_coupon_code SET batch_id = tenant_id WHERE digest = (SELECT digest FROM mkt_coupon_code ORDER BY digest LIMIT 1)",
    ),
    ("K6", "DELETE FROM mkt_coupon_code_use"),
    ("K7", "UPDATE mkt_coupon_code SET use_count = use_count + 1"),
    ("K8", "UPDATE mkt_coupon_code_use SET batch_id = coupon_id"),
    ("K8", "UPDATE mkt_coupon_code SET member_id = 'somebody else'"),
    ("K9", "DELETE FROM event WHERE type = 'code_batch.completed'"),
    ("K10", "UPDATE event SET subject_id = id WHERE type = 'code_batch.codes_added'"),
    ("K11", "UPDATE mkt_coupon_code_batch SET status = 'DISABLED' WHERE status = 'REVOKED'"),
    ("O1", "UPDATE mkt_order SET pay_amount = pay_amount + 1"),
    ("O2", "UPDATE mkt_order SET paid_at = NULL WHERE status = 'PAID'"),
    ("O3", "UPDATE mkt_order SET coupon_count = coupon_count + 1 WHERE status = 'PAID'"),
    ("O4", "UPDATE mkt_user_coupon SET discount_amount = discount_amount + 1 WHERE by_order AND status = 'USED'"),
    ("O5", "UPDATE mkt_points_hold SET reference = 'another' WHERE by_order"),
    ("O6", "UPDATE mkt_points_transaction SET points = points - 1 WHERE by_order AND type = 'USE_ORDER'"),
    ("O7", "UPDATE mkt_points_transaction SET type = 'EARN_TASK' WHERE by_order AND type = 'EARN_ORDER'"),
    ("O8", "UPDATE mkt_order SET points_returned = points_returned + 1 WHERE spend_id IS NOT NULL"),
    ("O9", "UPDATE mkt_order SET points_clawed_back = points_clawed_back + 1 WHERE earn_id IS NOT NULL"),
    ("O10", "UPDATE mkt_order_refund SET amount = amount + 1"),
    ("O11", "UPDATE mkt_order SET status = 'PAID' WHERE status = 'PARTIALLY_REFUNDED'"),
    ("O12", "UPDATE mkt_order SET rules_version = 999"),
    ("O13", "DELETE FROM event WHERE type = 'order.reserved'"),
    ("O14", "UPDATE mkt_order_refund SET order_uid = tenant_id"),
    ("O15", "UPDATE mkt_order_refund SET points_returned = points_returned + 1"),
    ("O16", "UPDATE mkt_user_coupon SET by_order = NOT by_order WHERE status = 'USED'"),
    ("O17", "UPDATE mkt_coupon_refund_compensation SET template_id = tenant_id"),
    ("O18", "UPDATE mkt_coupon_refund_compensation SET status = 'DISMISSED' WHERE status = 'PENDING'"),
    ("O19", "UPDATE mkt_order SET quote = replace(quote, '\"points_discount\":', '\"points_discount\":1')"),
    ("X7", "UPDATE tenant SET parent_id = tenant_id WHERE program IS NOT NULL"),
    ("X8", "UPDATE tenant SET currency = 'USD' WHERE program IS NOT NULL"),
    ("X9", "UPDATE api_key SET tenant_id = (SELECT x.tenant_id FROM tenant x WHERE x.program IS NOT NULL)"),
    ("E26", "UPDATE event SET member_id = 'nobody' WHERE type = 'order.reserved'"),
    ("E27", "DELETE FROM mkt_coupon_refund_compensation"),
    ("E1", "DELETE FROM event WHERE type = 'coupon.claimed'"),
    ("E2", "UPDATE mkt_user_coupon SET status = 'EXPIRED' WHERE status = 'AVAILABLE'"),
    ("E3", "DELETE FROM event WHERE type = 'points.granted'"),
    ("E4", "DELETE FROM event WHERE type = 'points.held'"),
    ("E5", "UPDATE event SET member_id = 'nobody' WHERE type = 'coupon.claimed'"),
    ("E6", "UPDATE event SET subject_id = id WHERE type = 'points.debited'"),
    ("E7", "UPDATE event SET member_id = 'nobody' WHERE type = 'points.held'"),
];

/// A store with a random history, and the means to spoil its rows and to mend them.
pub struct Patient {
    pub fixture: Fixture,
    connection: Connection,
}

enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
}

impl Patient {
    pub async fn new(kind: Kind) -> Patient {
        let fixture = history(kind).await;
        let connection = match &fixture.url {
            StoreUrl::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).expect("the store opens");
                connection.pragma_update(None, "ignore_check_constraints", true).expect("a pragma");
                connection.pragma_update(None, "foreign_keys", false).expect("a pragma");
                connection.pragma_update(None, "synchronous", "OFF").expect("a pragma");
                Connection::Sqlite(connection)
            }
            StoreUrl::Postgres(url) => {
                let client = postgres::connect(url).await;
                // What the database itself would refuse is let through: the second wall is down.
                client.batch_execute(LET_THROUGH).await.expect("constraints are dropped");
                Connection::Postgres(client)
            }
        };
        let patient = Patient { fixture, connection };
        for table in TABLES {
            patient.execute(&format!("CREATE TABLE sound_{table} AS SELECT * FROM {table}")).await;
        }
        patient
    }

    /// Runs a statement; how many rows it changed.
    pub async fn execute(&self, sql: &str) -> u64 {
        match &self.connection {
            Connection::Sqlite(connection) => {
                connection.execute(sql, []).unwrap_or_else(|error| panic!("{sql}: {error}")) as u64
            }
            Connection::Postgres(client) => {
                client.execute(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
            }
        }
    }

    /// The text a statement gives, if any.
    pub async fn text(&self, sql: &str) -> Option<String> {
        match &self.connection {
            Connection::Sqlite(connection) => {
                let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
                statement.query_row([], |row| row.get(0)).ok()
            }
            Connection::Postgres(client) => {
                let found = client.query_opt(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
                found.map(|row| row.get(0))
            }
        }
    }

    /// Puts back the rows that a statement changed.
    pub async fn mend(&self, sql: &str) {
        let table = TABLES.iter().find(|table| sql.contains(&format!("{table} ")) || sql.ends_with(*table));
        let table = table.unwrap_or_else(|| panic!("which table? {sql}"));
        let empty = match self.connection {
            Connection::Sqlite(_) => "DELETE FROM",
            Connection::Postgres(_) => "TRUNCATE",
        };
        self.execute(&format!("{empty} {table}")).await;
        self.execute(&format!("INSERT INTO {table} SELECT * FROM sound_{table}")).await;
    }

    pub async fn verify(&self) -> VerifyReport {
        verify(&self.fixture.store, None, |_, _, _| {}).await.expect("verify runs")
    }

    /// After everything has been mended, only the constraints taken down here may be missing.
    pub async fn expect_mended(&self) {
        let report = self.verify().await;
        let broken: Vec<&CheckResult> =
            report.checks.iter().filter(|check| check.id != "X5" && !check.is_clean()).collect();
        assert!(broken.is_empty(), "{broken:?}");
    }
}

/// What is spoilt; longer names before those they begin with.
const TABLES: &[&str] = &[
    "api_key",
    "mkt_coupon_template_version",
    "mkt_coupon_template_use",
    "mkt_coupon_template",
    "mkt_coupon_code_batch",
    "mkt_coupon_code_use",
    "mkt_coupon_code",
    "mkt_coupon_exchange",
    "mkt_points_adjustment",
    "mkt_user_coupon",
    "mkt_points_account",
    "mkt_points_check_in",
    "mkt_points_task",
    "mkt_user_task_progress",
    "mkt_user_task_completion",
    "mkt_points_lot",
    "mkt_points_transaction",
    "mkt_points_hold",
    "mkt_points_reversal",
    "mkt_points_rule",
    "mkt_order_refund",
    "mkt_order",
    "mkt_coupon_refund_compensation",
    "idempotency",
    "job",
    "bulk_chunk",
    "bulk",
    "event",
    "webhook_parked",
    "webhook_progress",
    "webhook",
    "tenant",
];

const LET_THROUGH: &str = "DO $$ DECLARE c record; BEGIN FOR c IN SELECT conrelid::regclass AS t, conname FROM pg_constraint \
    WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace LOOP \
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.conname); END LOOP; END $$";

/// A store with the rows of many random commands, which is clean: partial refunds, holds and expiries among them.
async fn history(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind).await;
    let mut writer = fixture.store.writer().await.expect("a writer");
    let (mut generator, mut staged) = (Generator::new(77), std::collections::BTreeSet::new());
    let (mut tenant, mut programs) = (None, Vec::new());
    for _ in 0..COMMANDS / 8 {
        let batch: Vec<Envelope> = (0..8).map(|_| generator.next()).collect();
        crate::model::stage(&fixture.store, &generator, &batch, &mut staged).await;
        let answers = writer.run(&batch).await.expect("the batch is decided");
        for (envelope, answer) in batch.iter().zip(&answers) {
            generator.learn(envelope, answer);
            if let Command::CreateProgram(new) = &envelope.command {
                programs.push(new.id);
            }
            // One that can have keys.
            if !programs.contains(&envelope.tenant) {
                tenant = Some(envelope.tenant);
            }
        }
    }
    let tenant = tenant.expect("some commands");
    finish(&mut writer, tenant).await;
    orders(&mut writer).await;
    forgiven(&mut writer).await;
    adjustments(&mut writer).await;
    prerequisites(&mut writer).await;
    jobs(&fixture, tenant).await;
    park(&mut writer, &fixture.store, tenant).await;
    bulks(&fixture, tenant).await;
    windows(&fixture, tenant).await;
    let report = verify(&fixture.store, None, |_, _, _| {}).await.expect("verify runs");
    let broken: Vec<&CheckResult> = report.checks.iter().filter(|check| !check.is_clean()).collect();
    assert!(broken.is_empty(), "{kind:?}: {broken:?}");
    fixture
}

/// What the random history may not leave: a key, a coupon that is used, one that is locked and one that was given away, webhooks and parked events.
async fn finish(writer: &mut Writer, tenant: TenantId) {
    let key = ApiKey {
        id: KeyId(uuid::Uuid::now_v7()),
        tenant_id: tenant,
        name: "shop".into(),
        scope: Scope::Service,
        member_id: None,
        expires_at: None,
        revoked_at: None,
        adjustment_limit: None,
        created_at: Timestamp(0),
    };
    run(writer, tenant, Command::CreateApiKey { key, secret_digest: [7; 32] }).await;
    let create = Command::CreateTemplate { definition: Box::new(definition()), total_stock: Some(4) };
    let Outcome::Template(template) = run(writer, tenant, create).await else { unreachable!("a template is made") };
    let caps = Definition { daily_cap: Some(3), weekly_cap: Some(5), monthly_cap: Some(9), ..definition() };
    let capped = Definition { budget: Some(20_000), ..caps };
    let create = Command::CreateTemplate { definition: Box::new(capped), total_stock: None };
    let Outcome::Template(capped) = run(writer, tenant, create).await else { unreachable!("a template is made") };
    let claim = Command::Claim { template_id: capped.id, member_id: member("m-4"), member_level: None };
    run(writer, tenant, claim).await;
    let order: OrderId = "a-\"quoted\"-order".parse().expect("an order");
    let given = Command::Claim { template_id: template.id, member_id: member("m-4"), member_level: None };
    let Outcome::Coupon(coupon) = run(writer, tenant, given).await else { unreachable!("a coupon is claimed") };
    let (coupon_id, template_id, to_member_id) = (coupon.id, template.id, member("m-5"));
    run(writer, tenant, Command::TransferCoupon { coupon_id, template_id, to_member_id, reason: None }).await;
    // An idle lot whose end has moved.
    let now = scrip_server::clock::now();
    let then = Timestamp(now.0 - 3 * MICROS_PER_DAY);
    let movement = |kind, points| Movement { points, kind, reference: None, remark: None };
    let earned = Command::Grant {
        member_id: member("m-idle"),
        movement: movement(TransactionType::EarnTask, 9),
        spendable: Spendable {
            available_from: None,
            expires_at: Some(end_of_day_after(&TimeZone::UTC, then, 30)),
            idle_days: Some(30),
        },
    };
    run_at(writer, tenant, earned, then).await;
    let movement = movement(TransactionType::UseProduct, 1);
    run_at(writer, tenant, Command::Debit { member_id: member("m-idle"), movement }, now).await;
    for name in ["m-1", "m-2", "m-3"] {
        let claim = Command::Claim { template_id: template.id, member_id: member(name), member_level: None };
        let Outcome::Coupon(coupon) = run(writer, tenant, claim).await else { unreachable!("a coupon is claimed") };
        let (coupon_id, order_id) = (coupon.id, order.clone());
        run(writer, tenant, Command::LockCoupon { coupon_id, order_id, expires_at: None }).await;
        if name != "m-2" {
            let (order_id, discount_amount) = (order.clone(), Some(500));
            run(writer, tenant, Command::UseCoupon { coupon_id, order_id, discount_amount }).await;
        }
        if name == "m-3" {
            let (order_id, template_id) = (order.clone(), template.id);
            run(writer, tenant, Command::ReturnCoupon { coupon_id, template_id, order_id }).await;
        }
    }
}

/// A job in each state that a runner gives.
async fn jobs(fixture: &Fixture, tenant: TenantId) {
    let engine = fixture.engine(EngineOptions::default()).await;
    let movement = |points| Movement { points, kind: TransactionType::EarnTask, reference: None, remark: None };
    for points in [5, MAX_POINTS, 7] {
        let command = Command::EnqueueGrant {
            member_id: member("m-1"),
            movement: movement(points),
            spendable: Default::default(),
        };
        engine.submit(envelope(tenant, command)).await.expect("an answer");
    }
    let store = &fixture.store;
    let (now, holder) = (scrip_server::clock::now(), uuid::Uuid::now_v7());
    let until = Timestamp(now.0 + 1_000_000_000);
    let claimed = store.claim_jobs(JobPool::Short, holder, now, until, i64::MAX).await.expect("jobs");
    let mut own: Vec<_> = claimed.into_iter().filter(|claimed| claimed.tenant == tenant).collect();
    own.sort_by_key(|claimed| claimed.job.created_at);
    let [done, dead, _running] = own.split_off(own.len() - 3).try_into().expect("three jobs");
    let ticket = JobTicket { job_id: done.job.id, fence: done.job.fence };
    let grant = Command::Grant { member_id: member("m-1"), movement: movement(5), spendable: Spendable::default() };
    let answer = engine.submit(envelope(tenant, Command::Work { ticket, command: Box::new(grant) })).await;
    assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{answer:?}");
    assert!(store.end_job(&dead, &JobEnd::Dead("too often".into()), now).await.expect("an end"));
}
/// A webhook that is off, one that is gone, and one that two events of a member wait for.
async fn park(writer: &mut Writer, store: &Store, tenant: TenantId) {
    let new = NewWebhook {
        url: "https://shop.example/".into(),
        types: Vec::new(),
        description: String::new(),
        secret: "s".into(),
        starts_after: LogPosition { tx: 0, ordinal: -1 },
    };
    let mut made = Vec::new();
    for change in [Some(WebhookChange::Disable(DisabledReason::Operator)), Some(WebhookChange::Delete), None] {
        let Outcome::Webhook(webhook) = run(writer, tenant, Command::CreateWebhook(Box::new(new.clone()))).await else {
            unreachable!("a webhook is made")
        };
        if let Some(change) = change {
            run(writer, tenant, Command::ChangeWebhook { webhook_id: webhook.id, change: Box::new(change) }).await;
        }
        made.push(webhook);
    }
    let webhook = made.pop().expect("the last one");
    let from = store.webhook_progress(&webhook, tenant).await.expect("its progress");
    // On PostgreSQL an event shows once no older transaction of the whole server runs, another test's among them.
    let (page, member) = until("two events of a member", async || {
        let page = store.list_events(tenant, from.position, None, 100).await.expect("events");
        let member = page.events.iter().find_map(|(_, event)| event.member_id.clone())?;
        let own = page.events.iter().filter(|(_, event)| event.member_id.as_ref() == Some(&member)).count();
        (own >= 2).then_some((page, member))
    })
    .await;
    let own = page.events.iter().filter(|(_, event)| event.member_id.as_ref() == Some(&member)).take(2);
    let parked = own.zip([Timestamp(1), Timestamp::NEVER]).map(|((position, event), due_at)| {
        let attempts = i64::from(due_at < Timestamp::NEVER);
        Parked { position: *position, subject: subject_of(event), attempts, due_at }
    });
    let round = Round { parked: parked.collect(), ..Round::default() };
    assert_eq!(round.parked.len(), 2);
    let to = LogProgress { position: page.scanned_to, ..from };
    assert!(store.finish_round(tenant, webhook.id, from, to, &round).await.expect("the round is kept"));
}

/// Small adjustments, and large ones: one that another key approved, one that it rejected, one that waits.
async fn adjustments(writer: &mut Writer) {
    let tenant = made_tenant(writer, "Adjustments").await;
    let mut keys = Vec::new();
    for (name, digest) in [("desk", 1), ("till", 2)] {
        let key = ApiKey {
            id: KeyId(uuid::Uuid::now_v7()),
            tenant_id: tenant,
            name: name.into(),
            scope: Scope::Operator,
            member_id: None,
            expires_at: None,
            revoked_at: None,
            adjustment_limit: None,
            created_at: Timestamp(0),
        };
        keys.push(key.id);
        run(writer, tenant, Command::CreateApiKey { key, secret_digest: [digest; 32] }).await;
    }
    // A number that held before, and the one that holds.
    for (expected_version, hours, above) in [(0, 3, 500), (1, 2, 50)] {
        let mut rules = Rules::default();
        rules.points.approval_above = Some(above);
        let rules = Command::SetRules { expected_version, rules: Box::new(rules), effective_from: None };
        let then = Timestamp(scrip_server::clock::now().0 - hours * MICROS_PER_DAY / 24);
        run_envelope(writer, Envelope { at: then, now: then, ..envelope(tenant, rules) }).await;
    }
    let small = |points| AdjustmentRequest {
        member_id: member("m-1"),
        points,
        reason: "as agreed".into(),
        reference: None,
        expires_at: None,
    };
    for points in [30, -20] {
        run_as(writer, tenant, keys[0], Command::Adjust(Box::new(small(points)))).await;
    }
    for decision in ["approve", "reject", "wait"] {
        let large = Command::Adjust(Box::new(small(100)));
        let Outcome::Adjustment(asked) = run_as(writer, tenant, keys[0], large).await else {
            unreachable!("it waits for an approval")
        };
        let (member_id, adjustment_id) = (asked.member_id.clone(), asked.id);
        let decided = match decision {
            "approve" => Command::ApproveAdjustment { member_id, adjustment_id },
            "reject" => Command::RejectAdjustment { adjustment_id, reason: "not agreed".into() },
            _ => continue,
        };
        run_as(writer, tenant, keys[1], decided).await;
    }
}

/// A task that requires another, completed behind it by a member who never did a third one, and by one into whose account that of
/// somebody was merged who had completed the first.
async fn prerequisites(writer: &mut Writer) {
    let tenant = made_tenant(writer, "Tasks").await;
    let task = |requires: &[&str]| task::Definition {
        name: "Task".into(),
        description: String::new(),
        points: 5,
        period: task::Period::Once,
        limit_per_period: 1,
        total_limit: None,
        target: 1,
        event_type: None,
        window: Window::default(),
        requires: requires.iter().map(|key| key.parse().expect("a key")).collect(),
    };
    let now = scrip_server::clock::now();
    // An hour ago, so that what is reported now is surely decided by this.
    let then = Timestamp(now.0 - 3_600_000_000);
    for (key, requires) in [("never", &[][..]), ("first", &[]), ("second", &["first"])] {
        let command = Command::CreateTask { key: key.parse().expect("a key"), definition: Box::new(task(requires)) };
        let made = Envelope { at: then, now: then, ..envelope(tenant, command) };
        let answer = writer.run(&[made]).await.expect("the batch is decided").remove(0);
        assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    }
    let calendar = Arc::new(scrip_server::calendar::calendar(&jiff::tz::TimeZone::UTC, now));
    for (member_id, key) in [("m-1", "first"), ("m-1", "second"), ("m-2", "first"), ("m-3", "second")] {
        if member_id == "m-3" {
            run(writer, tenant, Command::Merge { from: member("m-2"), into: member("m-3"), remark: None }).await;
        }
        let (completion_id, calendar) = ("done".parse().expect("an id"), calendar.clone());
        let (member_id, key) = (member(member_id), key.parse().expect("a key"));
        run(writer, tenant, Command::CompleteTask { member_id, key, completion_id, calendar }).await;
    }
}

async fn made_tenant(writer: &mut Writer, name: &str) -> TenantId {
    let tenant = TenantId(uuid::Uuid::now_v7());
    let made = Tenant {
        id: tenant,
        name: name.into(),
        currency: "EUR".into(),
        time_zone: "UTC".into(),
        refund_grace_days: 7,
        created_at: Timestamp(0),
        program: None,
    };
    run(writer, TenantId(uuid::Uuid::nil()), Command::CreateTenant(made)).await;
    tenant
}

/// An order that is reserved, one refunded in part, one whose coupon had expired before its refund, and one that a limit of the
/// week cut, refunded in part.
async fn orders(writer: &mut Writer) {
    let tenant = made_tenant(writer, "Orders").await;
    let now = scrip_server::clock::now();
    let days_ago = |days: i64| Timestamp(now.0 - days * MICROS_PER_DAY);
    let benefit = Benefit::AmountOff { amount: 500 };
    let definition = Definition::new("5 off", benefit, Validity::days(30));
    let create = Command::CreateTemplate { definition: Box::new(definition), total_stock: None };
    let Outcome::Template(template) = run_at(writer, tenant, create, days_ago(40)).await else { unreachable!() };
    let calendar_at = |at| Arc::new(scrip_server::calendar::calendar(&jiff::tz::TimeZone::UTC, at));
    let orders = [("a", days_ago(2), false), ("b", days_ago(39), true), ("c", days_ago(39), true), ("d", now, true)];
    for (name, at, is_paid) in orders {
        if name == "d" {
            let mut rules = Rules::default();
            rules.points.earn.max_points_per_week = Some(60);
            run(writer, tenant, Command::EnableTemplate { template_id: template.id, enabled: true }).await;
            let rules = Command::SetRules { expected_version: 0, rules: Box::new(rules), effective_from: None };
            run_at(writer, tenant, rules, at).await;
        }
        let (member_id, order_id) = (member(name), OrderId::from_str(name).expect("an order id"));
        let movement = Movement { points: 300, kind: TransactionType::EarnTask, reference: None, remark: None };
        let grant = Command::Grant { member_id: member_id.clone(), movement, spendable: Spendable::default() };
        run_at(writer, tenant, grant, at).await;
        let claim = Command::Claim { template_id: template.id, member_id: member_id.clone(), member_level: None };
        let Outcome::Coupon(coupon) = run_at(writer, tenant, claim, at).await else { unreachable!() };
        let line = Line {
            item_id: "i".into(),
            product_id: "p".into(),
            sku_id: None,
            category_ids: Vec::new(),
            unit_price: 5_000,
            quantity: 2,
            points_ratio: 100,
        };
        let reserve = Command::ReserveOrder(Box::new(Reservation {
            quoted: None,
            order_id: order_id.clone(),
            member_id: member_id.clone(),
            basket: Basket {
                lines: vec![line],
                freight: 0,
                member_level: None,
                local_time: LocalTime { day: 0, minute: 0 },
                attributes: Attributes::default(),
                member_attributes: Attributes::default(),
            },
            coupon_ids: vec![coupon.id],
            points: 200,
            expires_at: now.plus_days(7),
        }));
        run_at(writer, tenant, reserve, at).await;
        if is_paid {
            let (member_id, order_id, calendar) = (member_id.clone(), order_id.clone(), calendar_at(at));
            run_at(writer, tenant, Command::PayOrder { member_id, order_id, calendar }, at).await;
        }
        let lines = match name {
            "b" | "d" => Some(vec![("i".to_owned(), 1)]),
            "c" => None,
            _ => continue,
        };
        if name == "c" {
            run(writer, tenant, Command::EnableTemplate { template_id: template.id, enabled: false }).await;
        }
        let refund_id = "r".parse().expect("a refund id");
        let refund = RefundRequest { refund_id, lines, freight: 0, return_coupons: true, remark: None };
        run(writer, tenant, Command::RefundOrder { member_id, order_id, refund: Box::new(refund) }).await;
    }
}

/// An order of which all that it earned was spent before its refund, and a grant alike, where what is not there is forgiven.
async fn forgiven(writer: &mut Writer) {
    let tenant = made_tenant(writer, "Forgiving").await;
    let mut rules = Rules::default();
    rules.points.debt_policy = DebtPolicy::Forgive;
    run(writer, tenant, Command::SetRules { expected_version: 0, rules: Box::new(rules), effective_from: None }).await;
    let member_id = member("m-1");
    let movement = |points, kind| Movement { points, kind, reference: None, remark: None };
    let order_id = OrderId::from_str("o").expect("an order id");
    let line = Line {
        item_id: "i".into(),
        product_id: "p".into(),
        sku_id: None,
        category_ids: Vec::new(),
        unit_price: 5_000,
        quantity: 2,
        points_ratio: 100,
    };
    let now = scrip_server::clock::now();
    let reserve = Command::ReserveOrder(Box::new(Reservation {
        quoted: None,
        order_id: order_id.clone(),
        member_id: member_id.clone(),
        basket: Basket {
            lines: vec![line],
            freight: 0,
            member_level: None,
            local_time: LocalTime { day: 0, minute: 0 },
            attributes: Attributes::default(),
            member_attributes: Attributes::default(),
        },
        coupon_ids: Vec::new(),
        points: 0,
        expires_at: now.plus_days(7),
    }));
    run(writer, tenant, reserve).await;
    let calendar = Arc::new(scrip_server::calendar::calendar(&jiff::tz::TimeZone::UTC, now));
    let pay = Command::PayOrder { member_id: member_id.clone(), order_id: order_id.clone(), calendar };
    run(writer, tenant, pay).await;
    let movements = (movement(50, TransactionType::EarnTask), movement(130, TransactionType::UseProduct));
    let grant = Command::Grant { member_id: member_id.clone(), movement: movements.0, spendable: Spendable::default() };
    let Outcome::Transaction(granted) = run(writer, tenant, grant).await else { unreachable!("it is a grant") };
    run(writer, tenant, Command::Debit { member_id: member_id.clone(), movement: movements.1 }).await;
    let lines = Some(vec![("i".to_owned(), 1)]);
    let refund_id = "r".parse().expect("a refund id");
    let refund = Box::new(RefundRequest { refund_id, lines, freight: 0, return_coupons: true, remark: None });
    run(writer, tenant, Command::RefundOrder { member_id: member_id.clone(), order_id, refund }).await;
    let reverse = Command::Reverse { member_id, transaction_id: granted.id, points: None, remark: None };
    run(writer, tenant, reverse).await;
}

/// Issue windows that have begun and ended, told.
async fn windows(fixture: &Fixture, tenant: TenantId) {
    let mut writer = fixture.store.writer().await.expect("a writer");
    let now = scrip_server::clock::now();
    let from = fixture.store.windows_announced(tenant).await.expect("a look-up");
    let from = from.unwrap_or(Timestamp(now.0 - 10_000_000));
    let distribution = Window { starts_at: Some(Timestamp(now.0 - 2_000)), ends_at: Some(Timestamp(now.0 - 1_000)) };
    let definition = Box::new(Definition { distribution, ..definition() });
    let create = Command::CreateTemplate { definition, total_stock: None };
    let Outcome::Template(template) = run(&mut writer, tenant, create).await else {
        unreachable!("a template is made")
    };
    let announce = Command::AnnounceWindows { from, until: now, templates: vec![template.id] };
    assert_eq!(run(&mut writer, tenant, announce).await, Outcome::Announced(2));
    // Somebody who owes nothing, or the grant would go there.
    let member_id: MemberId = "m-reminded".parse().expect("a member");
    let movement = Movement { points: 5, kind: TransactionType::EarnTask, reference: None, remark: None };
    let end = Timestamp(now.0 + 1_000_000_000);
    let spendable = Spendable { expires_at: Some(end), ..Spendable::default() };
    let grant = Command::Grant { member_id: member_id.clone(), movement, spendable };
    let Outcome::Transaction(granted) = run(&mut writer, tenant, grant).await else { unreachable!("it is a grant") };
    let lots = vec![(member_id, granted.lot_id.expect("a lot"))];
    let (from, until) = ((now, LotId(uuid::Uuid::nil())), (end, LotId(uuid::Uuid::max())));
    let remind = Command::RemindExpiry(Box::new(ReminderPage { days_before: 7, from, until, lots }));
    assert_eq!(run(&mut writer, tenant, remind).await, Outcome::Announced(1));
}

/// A distribution and an import of grants that are done, with rows of every outcome; and a distribution under way.
async fn bulks(fixture: &Fixture, tenant: TenantId) {
    let mut writer = fixture.store.writer().await.expect("a writer");
    let create = Command::CreateTemplate { definition: Box::new(definition()), total_stock: Some(2) };
    let Outcome::Template(template) = run(&mut writer, tenant, create).await else {
        unreachable!("a template is made")
    };
    for (template_id, file) in [
        (Some(template.id), "member_id\nm-1\nm-1\nm-2\nm-3\nno good\n"),
        (None, "member_id,points\nm-1,5\nm-2,0\n"),
        (Some(template.id), "member_id\nm-4\n"),
    ] {
        let bulk_id = BulkId(uuid::Uuid::now_v7());
        let kind = if template_id.is_some() { BulkKind::Distribution } else { BulkKind::PointsGrants };
        let mut reader = FileReader::new(Stager::new(&fixture.store, tenant, bulk_id, kind), Format::Csv);
        reader.feed(file.as_bytes()).await.expect("rows");
        let staged = reader.finish().await.expect("a chunk");
        run(&mut writer, tenant, Command::CreateBulk { bulk_id, template_id, staged }).await;
        if file.contains("m-4") {
            continue;
        }
        let chunk = fixture.store.chunks(tenant, bulk_id, 0, None, 1).await.expect("chunks").remove(0);
        let work = Box::new(work_of(&chunk, template_id).expect("work"));
        run(&mut writer, tenant, Command::WorkChunk { bulk_id, number: 0, work }).await;
    }
}

async fn run(writer: &mut Writer, tenant: TenantId, command: Command) -> Outcome {
    run_at(writer, tenant, command, scrip_server::clock::now()).await
}

async fn run_at(writer: &mut Writer, tenant: TenantId, command: Command, at: Timestamp) -> Outcome {
    run_envelope(writer, Envelope { at, ..envelope(tenant, command) }).await
}

async fn run_as(writer: &mut Writer, tenant: TenantId, actor: KeyId, command: Command) -> Outcome {
    run_envelope(writer, Envelope { actor: Some(actor), ..envelope(tenant, command) }).await
}

async fn run_envelope(writer: &mut Writer, envelope: Envelope) -> Outcome {
    let answers = writer.run(&[envelope]).await.expect("the command is decided");
    match answers.into_iter().next() {
        Some(Answer::Accepted { outcome, .. }) => outcome,
        other => panic!("refused: {other:?}"),
    }
}

pub fn check<'a>(report: &'a VerifyReport, id: &str) -> &'a CheckResult {
    report.checks.iter().find(|check| check.id == id).unwrap_or_else(|| panic!("there is no check {id}"))
}

async fn every_corruption_is_named(kind: Kind) {
    let patient = Patient::new(kind).await;
    let mut missed = Vec::new();
    for (id, corruption) in CORRUPTIONS {
        assert!(patient.execute(corruption).await > 0, "nothing to spoil: {corruption}");
        if check(&patient.verify().await, id).violations.is_empty() {
            missed.push(format!("{id}: {corruption}"));
        }
        patient.mend(corruption).await;
    }
    assert!(missed.is_empty(), "unnoticed:\n{}", missed.join("\n"));
    patient.expect_mended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_corruption_of_a_sqlite_store_is_named() {
    every_corruption_is_named(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_corruption_of_a_postgres_store_is_named() {
    every_corruption_is_named(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_indexes_and_constraints_are_named() {
    for kind in KINDS {
        let patient = Patient::new(kind).await;
        patient.execute("DROP INDEX idx_user_coupon_expire").await;
        let lost = match kind {
            Kind::Sqlite => {
                patient.execute("ALTER TABLE mkt_points_lot RENAME TO away").await;
                patient.execute("CREATE TABLE mkt_points_lot AS SELECT * FROM away").await;
                "mkt_points_lot"
            }
            // Taken down already.
            Kind::Postgres => "ck_lot_points",
        };
        let report = patient.verify().await;
        let names = |id: &str, key: &str| check(&report, id).violations.iter().any(|found| found.key == key);
        assert!(names("X1", "idx_user_coupon_expire"), "{kind:?}");
        assert!(names("X5", lost), "{kind:?}: {:?}", check(&report, "X5"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_named_and_the_other_checks_go_on() {
    for kind in KINDS {
        let patient = Patient::new(kind).await;
        let checks = patient.verify().await.checks.len();
        for (id, spoil) in [
            ("T22", "UPDATE mkt_points_transaction SET allocations = '[{\"l\":' WHERE sequence = 2"),
            ("H10", "UPDATE mkt_points_hold SET allocations = '[\"abc\", 1'"),
            ("C9", "UPDATE mkt_coupon_template_version SET definition = '{\"name\":'"),
            ("E8", "UPDATE event SET data = '{\"order_id\"' WHERE type LIKE 'coupon%'"),
            ("E9", "UPDATE event SET data = '}' WHERE type LIKE 'points%'"),
            ("X4", "UPDATE idempotency SET outcome = '{\"Coupon\":'"),
        ] {
            patient.execute(spoil).await;
            let report = patient.verify().await;
            assert!(check(&report, id).count > 0, "{kind:?}: {id}: {spoil}");
            assert_eq!(report.checks.len(), checks, "{kind:?}: every check is reported");
            assert!(!report.is_clean());
            patient.mend(spoil).await;
        }
        patient.expect_mended().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn violations_are_counted_beyond_the_first_hundred_and_told_by_tenant() {
    for kind in KINDS {
        let patient = Patient::new(kind).await;
        let spoilt = patient.execute("UPDATE event SET recorded_at = occurred_at - 1").await;
        let report = patient.verify().await;
        let found = check(&report, "E21");
        assert_eq!((found.count, found.violations.len()), (spoilt, 100), "{kind:?}");
        let tenant = &found.violations[0].tenant_id;
        let only = verify(&patient.fixture.store, tenant.parse().ok(), |_, _, _| {}).await.expect("verify runs");
        let own = check(&only, "E21");
        assert!(own.count > 0 && own.count < spoilt, "{kind:?}: {} of {spoilt}", own.count);
        assert!(own.violations.iter().all(|found| found.tenant_id == *tenant), "{kind:?}");
    }
}
