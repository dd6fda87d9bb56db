//! Random commands on each store against the reference model of the domain's tests: equal answers, equal rows at the end.
//!
//! `SCRIP_MODEL_COMMANDS` sets how many commands run on each store (50,000 by default).

use std::collections::BTreeSet;

use scrip_domain::bulk::ChunkWork;
use scrip_domain::{BulkId, Command, Envelope, TenantId};
use scrip_server::store::{Row, Store, StoreError, decode};
use serde_json::json;

use crate::generate::{Generator, Random};
use crate::harness::{Fixture, Kind};
use crate::reference::{Model, ModelAnswer, Snapshot};

/// A seed's worth; then the generator starts anew with other tenants.
const COMMANDS_PER_SEED: usize = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_agrees_with_the_reference_model() {
    agrees(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_agrees_with_the_reference_model() {
    agrees(Kind::Postgres).await;
}

async fn agrees(kind: Kind) {
    let wanted = std::env::var("SCRIP_MODEL_COMMANDS").ok().and_then(|text| text.parse().ok()).unwrap_or(50_000);
    let fixture = Fixture::new(kind).await;
    let mut writer = fixture.store.writer().await.expect("a writer");
    for seed in 0..(wanted / COMMANDS_PER_SEED).max(1) as u64 {
        let mut generator = Generator::new(seed);
        let mut sizes = Random::new(seed ^ 0xBA7C);
        let mut model = Model::default();
        let (mut tenants, mut staged) = (Vec::new(), BTreeSet::new());
        let mut done = 0;
        while done < COMMANDS_PER_SEED {
            // The first commands make tenants and templates, which later ones of the same batch could not know of.
            let size = if done < 20 { 1 } else { sizes.between(1, 64) as usize };
            let batch: Vec<Envelope> = (0..size).map(|_| generator.next()).collect();
            stage(&fixture.store, &generator, &batch, &mut staged).await;
            let answers = writer.run(&batch).await.unwrap_or_else(|error| panic!("{kind:?}, seed {seed}: {error}"));
            for (envelope, answer) in batch.iter().zip(&answers) {
                if let Command::WorkChunk { bulk_id, number, .. } = envelope.command {
                    let chunks = fixture.store.chunks(envelope.tenant, bulk_id, number, None, 1).await.expect("chunks");
                    if let Some(outcomes) = chunks.first().and_then(|chunk| chunk.outcomes.as_ref()) {
                        model.learn_chunk(envelope.tenant, bulk_id, number, outcomes);
                    }
                }
                let expected = model.apply(envelope, answer);
                assert_eq!(ModelAnswer::of(answer), expected, "{kind:?}, seed {seed}: {envelope:?}");
                generator.learn(envelope, answer);
                if !tenants.contains(&envelope.tenant) {
                    tenants.push(envelope.tenant);
                }
            }
            done += size;
        }
        let differences = snapshot(&fixture.store, &tenants).await.expect("the rows can be read");
        let differences = differences.differences(&model.snapshot());
        assert!(differences.is_empty(), "{kind:?}, seed {seed}:\n{}", differences.join("\n"));
    }
    let report = scrip_server::verify::verify(&fixture.store, None, |_, _, _| {}).await.expect("verify runs");
    let violations: Vec<_> = report.checks.iter().filter(|check| !check.violations.is_empty()).collect();
    assert!(report.is_clean(), "{kind:?}: {violations:#?}");
}

/// Keeps the rows of the bulks that a batch begins, as a request does before.
pub async fn stage(store: &Store, generator: &Generator, batch: &[Envelope], staged: &mut BTreeSet<BulkId>) {
    for envelope in batch {
        let Command::CreateBulk { bulk_id, .. } = envelope.command else { continue };
        if !staged.insert(bulk_id) {
            continue;
        }
        let mut first_row = 1;
        for (number, work) in (0..).zip(generator.staged(bulk_id)) {
            let rows: Vec<serde_json::Value> = match work {
                ChunkWork::Issue { recipients, .. } => {
                    recipients.iter().map(|row| json!({ "m": row.member_id, "l": row.member_level })).collect()
                }
                ChunkWork::Grant(grants) => {
                    grants.iter().map(|row| json!({ "m": row.member_id, "p": row.movement.points })).collect()
                }
            };
            let text = serde_json::to_string(&rows).expect("rows");
            store.stage_chunk(envelope.tenant, bulk_id, number, first_row, &text, 0).await.expect("staged");
            first_row += rows.len() as i64;
        }
    }
}

/// Every row of the tenants, as the model shows its own.
async fn snapshot(store: &Store, tenants: &[TenantId]) -> Result<Snapshot, StoreError> {
    let mut all = Snapshot::default();
    for tenant in tenants {
        let tenant = *tenant;
        let own = [tenant.into()];
        for template in store.list_templates(tenant, None, None, None, None, i64::MAX).await? {
            all.template(tenant, &template);
        }
        for webhook in store.list_webhooks(tenant, None, i64::MAX).await? {
            all.webhook(tenant, &webhook);
        }
        let sql = format!("SELECT {} FROM mkt_user_coupon WHERE tenant_id = $1", decode::COUPON);
        for coupon in store.stream(&sql, &own, decode::coupon).await? {
            all.coupon(tenant, &coupon);
        }
        let sql = format!("SELECT {} FROM mkt_coupon_code_batch WHERE tenant_id = $1", decode::CODE_BATCH);
        for batch in store.stream(&sql, &own, decode::code_batch).await? {
            all.code_batch(tenant, &batch);
        }
        let sql = format!("SELECT {} FROM mkt_coupon_code WHERE tenant_id = $1", decode::CODE);
        for code in store.stream(&sql, &own, decode::code).await? {
            all.code(tenant, &code);
        }
        let sql = "SELECT coupon_id, batch_id, digest FROM mkt_coupon_code_use WHERE tenant_id = $1";
        let code_use = |row: &Row| {
            let (coupon_id, batch_id) = (scrip_domain::CouponId(row.uuid(0)?), scrip_domain::CodeBatchId(row.uuid(1)?));
            Ok(scrip_domain::coupon::CodeUse { coupon_id, batch_id, digest: row.bytes(2)? })
        };
        for code_use in store.stream(sql, &own, code_use).await? {
            all.code_use(tenant, &code_use);
        }
        let sql = "SELECT coupon_id, member_id, transaction_id, points FROM mkt_coupon_exchange WHERE tenant_id = $1";
        let exchange = |row: &Row| {
            let paid_by = scrip_domain::TransactionId(row.uuid(2)?);
            Ok((scrip_domain::CouponId(row.uuid(0)?), row.caller_id(1)?, paid_by, row.int(3)?))
        };
        for (coupon, member, paid_by, points) in store.stream(sql, &own, exchange).await? {
            all.exchange(tenant, coupon, &member, paid_by, points);
        }
        let sql = format!("SELECT {} FROM mkt_points_account WHERE tenant_id = $1", decode::ACCOUNT);
        for account in store.stream(&sql, &own, decode::account).await? {
            all.account(tenant, &account);
        }
        let sql = format!("SELECT {} FROM mkt_points_lot WHERE tenant_id = $1", decode::LOT);
        let with_member = |row: &Row| Ok((row.caller_id(1)?, decode::lot(row)?));
        for (member, lot) in store.stream(&sql, &own, with_member).await? {
            all.lot(tenant, &member, &lot);
        }
        let sql = format!("SELECT {} FROM mkt_points_hold WHERE tenant_id = $1", decode::HOLD);
        for hold in store.stream(&sql, &own, decode::hold).await? {
            all.hold(tenant, &hold);
        }
        let sql = format!("SELECT {} FROM mkt_points_transaction WHERE tenant_id = $1", decode::TRANSACTION);
        for transaction in store.stream(&sql, &own, decode::transaction).await? {
            all.transaction(tenant, &transaction);
        }
        for version in store.list_rules(tenant, None, i64::MAX).await? {
            all.rules(tenant, version.effective_from, &version.rules);
        }
        let sql = format!("SELECT {} FROM mkt_order WHERE tenant_id = $1", decode::ORDER);
        for order in store.stream(&sql, &own, decode::order).await? {
            all.order(tenant, &order);
        }
        let sql = format!("SELECT {} FROM mkt_order_refund WHERE tenant_id = $1", decode::REFUND);
        for refund in store.stream(&sql, &own, decode::refund).await? {
            all.refund(tenant, &refund);
        }
        let sql = format!("SELECT {} FROM mkt_coupon_refund_compensation WHERE tenant_id = $1", decode::COMPENSATION);
        for case in store.stream(&sql, &own, decode::compensation).await? {
            all.case(tenant, &case);
        }
        let sql = format!("SELECT {} FROM mkt_points_adjustment WHERE tenant_id = $1", decode::ADJUSTMENT);
        for row in store.stream(&sql, &own, decode::adjustment).await? {
            all.adjustment(tenant, &row);
        }
        let sql = format!("SELECT {} FROM job WHERE tenant_id = $1", decode::JOB);
        for job in store.stream(&sql, &own, decode::job).await? {
            all.job(tenant, &job);
        }
        let sql = format!("SELECT {} FROM bulk WHERE tenant_id = $1", decode::BULK);
        for bulk in store.stream(&sql, &own, decode::bulk).await? {
            all.bulk(tenant, &bulk);
        }
        let sql = "SELECT bulk_id, number, outcomes FROM bulk_chunk WHERE tenant_id = $1 AND outcomes IS NOT NULL";
        let chunk = |row: &Row| Ok((BulkId(row.uuid(0)?), row.int(1)?, row.text(2)?));
        for (id, number, outcomes) in store.stream(sql, &own, chunk).await? {
            all.chunk(tenant, id, number, &outcomes);
        }
        let sql = "SELECT transaction_id, reversed FROM mkt_points_reversal WHERE tenant_id = $1";
        let reversal = |row: &Row| Ok((scrip_domain::TransactionId(row.uuid(0)?), row.int(1)?));
        for (id, reversed) in store.stream(sql, &own, reversal).await? {
            all.reversed(tenant, id, reversed);
        }
        let sql = format!("SELECT {} FROM mkt_points_check_in WHERE tenant_id = $1", decode::CHECK_IN);
        for row in store.stream(&sql, &own, decode::check_in).await? {
            all.check_in(tenant, &row);
        }
        let sql = format!("SELECT {} FROM mkt_points_task WHERE tenant_id = $1", decode::TASK);
        for row in store.stream(&sql, &own, decode::task).await? {
            all.task(tenant, &row);
        }
        let sql = format!("SELECT {} FROM mkt_user_task_progress WHERE tenant_id = $1", decode::PROGRESS);
        for row in store.stream(&sql, &own, decode::progress).await? {
            all.progress(tenant, &row);
        }
        let sql = format!("SELECT {} FROM mkt_user_task_completion WHERE tenant_id = $1", decode::REPORT);
        for row in store.stream(&sql, &own, decode::report).await? {
            all.report(tenant, &row);
        }
    }
    Ok(all)
}
