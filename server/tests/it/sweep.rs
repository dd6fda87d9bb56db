//! The pass that writes expiries when very much expires at once, as it does at the end of a month, beside a sale that goes on.
//!
//! `make sweep-test` shows how long a million take and what the claims beside them feel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use scrip_domain::command::Movement;
use scrip_domain::coupon::Definition;
use scrip_domain::job::JobKind;
use scrip_domain::points::{Spendable, TransactionType};
use scrip_domain::{Answer, Command, TemplateId, TenantId, Timestamp};
use scrip_server::clock;
use scrip_server::engine::{Engine, EngineOptions};
use scrip_server::jobs;
use scrip_server::jobs::expire::{SweepScope, Sweeper};
use scrip_server::jobs::housekeeping::{HousekeepingOptions, ensure_passes};
use scrip_server::jobs::runner::{Runner, RunnerOptions};
use scrip_server::metrics::Metrics;
use scrip_server::store::StoreUrl;
use scrip_server::store::job::NO_TENANT;
use scrip_server::verify::verify;

use crate::harness::{Fixture, KINDS, Kind, definition, envelope, member, template, tenant};
use crate::postgres;

/// More than a tenant gets in one turn.
const LOTS_IN_A_TEST: usize = 12_000;
const POINTS: i64 = 7;
const SEED_BATCH: usize = 2_000;
/// Between two claims of the sale.
const CLAIM_EVERY: Duration = Duration::from_millis(2);
const CLAIMS_BEFORE: usize = 1_000;

fn lots() -> usize {
    std::env::var("SCRIP_SWEEP_LOTS").map_or(LOTS_IN_A_TEST, |text| text.parse().expect("SCRIP_SWEEP_LOTS is a number"))
}

fn passes(interval: Duration) -> HousekeepingOptions {
    let day = Duration::from_secs(86_400);
    HousekeepingOptions {
        interval,
        idempotency_retention: day,
        delivery_retention: day,
        done_retention: day,
        bulk_retention: day,
        dead_retention: day,
    }
}

async fn grant(engine: &Engine, tenant: TenantId, members: std::ops::Range<usize>, expires_at: Timestamp) {
    let spendable = Spendable { expires_at: Some(expires_at), ..Spendable::default() };
    let commands = members.map(|number| {
        let movement = Movement { points: POINTS, kind: TransactionType::EarnTask, reference: None, remark: None };
        let command = Command::Grant { member_id: member(number), movement, spendable };
        envelope(tenant, command)
    });
    for answer in engine.submit_all(commands.collect()).await {
        assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{answer:?}");
    }
}

/// Claims at a fixed pace until told to stop; how long each one took.
async fn sell(engine: Engine, tenant: TenantId, template_id: TemplateId, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut pace = tokio::time::interval(CLAIM_EVERY);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let member_id = member(format!("buyer-{}", uuid::Uuid::now_v7()));
        let begun = Instant::now();
        let answer =
            engine.submit(envelope(tenant, Command::Claim { template_id, member_id, member_level: None })).await;
        assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{answer:?}");
        took.push(begun.elapsed());
    }
    took
}

fn percentile(took: &mut [Duration], percent: usize) -> Duration {
    took.sort_unstable();
    took[(took.len() * percent / 100).min(took.len() - 1)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pass_writes_all_that_expires_at_once_while_a_sale_goes_on() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let template_id = template(&engine, tenant, Definition { limit_per_member: 1, ..definition() }, None).await;
        let count = lots();
        // Long enough for the grants, at a modest rate.
        let expires_at = Timestamp(clock::now().0 + 2_000_000 + count as i64 * 150);
        for first in (0..count).step_by(SEED_BATCH) {
            grant(&engine, tenant, first..count.min(first + SEED_BATCH), expires_at).await;
        }
        while clock::now() <= expires_at {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }

        let stop = Arc::new(AtomicBool::new(false));
        let quiet = tokio::spawn(sell(engine.clone(), tenant, template_id, stop.clone()));
        tokio::time::sleep(CLAIM_EVERY * CLAIMS_BEFORE as u32).await;
        stop.store(true, Ordering::Relaxed);
        let mut before = quiet.await.expect("the sale before");

        let options = passes(Duration::from_secs(1));
        ensure_passes(&fixture.store, &options).await.expect("the passes are there");
        let runner_options = RunnerOptions {
            concurrency: 1,
            long_concurrency: 1,
            recurring: true,
            poll: Duration::from_millis(20),
            lease: Duration::from_secs(30),
        };
        let handler = jobs::handler(options);
        let runner = Runner::new(fixture.store.clone(), engine.clone(), Metrics::new(), runner_options, handler);
        let stop = Arc::new(AtomicBool::new(false));
        let busy = tokio::spawn(sell(engine.clone(), tenant, template_id, stop.clone()));
        let begun = Instant::now();
        let due = Timestamp(clock::now().0 + 2_000_000);
        let runs = runner.run_due(due, 3).await.expect("the passes");
        let took = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        let mut beside = busy.await.expect("the sale beside the pass");
        assert_eq!(runs, 3, "{kind:?}: each pass once");

        let rate = count as f64 / took.as_secs_f64();
        println!(
            "{kind:?}: {count} lots expired in {took:.1?}, {rate:.0} a second; a claim every {CLAIM_EVERY:?}: \
             P50 {:.1?}, P99 {:.1?} before, {:.1?}, {:.1?} beside it",
            percentile(&mut before, 50),
            percentile(&mut before, 99),
            percentile(&mut beside, 50),
            percentile(&mut beside, 99),
        );
        let sweeps = fixture.store.list_jobs(NO_TENANT, None, Some(JobKind::Sweep), None, 1).await.expect("a list");
        let told: serde_json::Value = serde_json::from_str(&sweeps[0].progress).expect("a JSON object");
        assert_eq!(told["points_expired"], count as i64 * POINTS, "{kind:?}: all of it in one pass, nothing twice");
        assert_eq!(told["accounts_settled"], count as i64, "{kind:?}");
        let now = clock::now();
        for number in [0, count / 2, count - 1] {
            let balance = fixture.store.balance(tenant, &member(number), now, now).await.expect("a balance");
            assert_eq!((balance.available, balance.expired), (0, POINTS), "{kind:?}");
        }
        let report = verify(&fixture.store, None, |_, _, _| {}).await.expect("verify runs");
        assert!(report.is_clean(), "{kind:?}: {}", report.summary());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_expiries_are_settled_while_a_lane_waits() {
    const LOTS: usize = 40;
    let fixture = Fixture::new(Kind::Postgres).await;
    let engine = fixture.engine(EngineOptions { lanes: 1, ..EngineOptions::default() }).await;
    let tenant = tenant(&engine).await;
    let template_id = template(&engine, tenant, definition(), None).await;
    let expires_at = Timestamp(clock::now().0 + 500_000);
    grant(&engine, tenant, 0..LOTS, expires_at).await;
    while clock::now() <= expires_at {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let StoreUrl::Postgres(url) = &fixture.url else { unreachable!("a PostgreSQL fixture") };
    let other = postgres::connect(url).await;
    other.batch_execute("BEGIN; SELECT 1 FROM mkt_coupon_template FOR UPDATE").await.expect("the template is locked");
    let claim = Command::Claim { template_id, member_id: member("buyer"), member_level: None };
    let claim = tokio::spawn({
        let engine = engine.clone();
        async move { engine.submit(envelope(tenant, claim)).await }
    });
    let mut sweeper = Sweeper::new(&fixture.store, &engine, tenant, None, SweepScope::All);
    let swept = sweeper.settle_page(clock::now(), 500);
    let swept = tokio::time::timeout(Duration::from_secs(20), swept).await.expect("it waits for no lane");
    assert_eq!(swept.expect("the pass").accounts_settled, LOTS as u64);
    assert!(!claim.is_finished(), "the lane still waits for the template");
    other.batch_execute("ROLLBACK").await.expect("the template is free");
    let answer = claim.await.expect("the claim ends");
    assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_pass_goes_on_behind_the_last_lot_of_a_page_though_all_end_at_one_instant() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let expires_at = Timestamp(clock::now().0 + 400_000);
        grant(&engine, tenant, 0..5, expires_at).await;
        while clock::now() <= expires_at {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Nothing is settled in between: only the place tells the pages apart.
        let (mut members, mut after) = (Vec::new(), None);
        for size in [2, 2, 1, 0] {
            let page = fixture.store.due(tenant, clock::now(), after, 2, false).await.expect("a page of what is due");
            assert_eq!((page.members.len(), page.last_lot.is_some()), (size, size > 0), "{kind:?}");
            members.extend(page.members);
            after = page.last_lot;
        }
        members.sort_unstable();
        assert_eq!(members, [0, 1, 2, 3, 4].map(member), "{kind:?}: each once");

        let mut sweeper = Sweeper::new(&fixture.store, &engine, tenant, None, SweepScope::All);
        let mut pages = Vec::new();
        for _ in 0..4 {
            let page = sweeper.settle_page(clock::now(), 2).await.expect("a page");
            pages.push((page.accounts_settled, page.done));
        }
        assert_eq!(pages, [(2, false), (2, false), (1, false), (0, true)], "{kind:?}");
        let due = fixture.store.due(tenant, clock::now(), None, 100, false).await.expect("what is due");
        assert!(due.members.is_empty(), "{kind:?}: {due:?}");
    }
}

#[tokio::test]
async fn a_member_with_many_lots_counts_as_many_in_a_piece() {
    const MEMBERS: usize = 150;
    const LOTS_EACH: usize = 8;
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let metrics = Metrics::new();
        let engine = Engine::start(&fixture.store, EngineOptions::default(), metrics.clone()).await.expect("it starts");
        let tenant = tenant(&engine).await;
        let expires_at = Timestamp(clock::now().0 + 3_000_000);
        for _ in 0..LOTS_EACH {
            grant(&engine, tenant, 0..MEMBERS, expires_at).await;
        }
        while clock::now() <= expires_at {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sizes = || (metrics.lane_batch_size.get_sample_count(), metrics.lane_batch_size.get_sample_sum() as usize);
        let before = sizes();
        let mut sweeper = Sweeper::new(&fixture.store, &engine, tenant, None, SweepScope::All);
        let swept = sweeper.settle_page(clock::now(), (MEMBERS * LOTS_EACH) as i64).await.expect("the pass");
        assert_eq!(swept.accounts_settled, MEMBERS as u64, "{kind:?}");
        assert_eq!(swept.points_expired, (MEMBERS * LOTS_EACH) as i64 * POINTS, "{kind:?}");
        let after = sizes();
        let (pieces, commands) = ((after.0 - before.0) as usize, after.1 - before.1);
        assert_eq!(commands, MEMBERS, "{kind:?}: one command settles all lots of a member");
        // The first piece cannot know; those behind it are of as many lots as one of lone lots would be.
        let piece = engine.settling_piece();
        assert_eq!(pieces, 1 + (MEMBERS - piece).div_ceil(piece / LOTS_EACH), "{kind:?}");
    }
}
