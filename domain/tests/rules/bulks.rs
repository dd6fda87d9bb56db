//! A bulk's chunk gives each row what a single command would give it, once, and only in its turn.

use std::collections::BTreeMap;

use scrip_domain::bulk::{Bulk, BulkStatus, ChunkWork, GrantRow, Recipient, Staged};
use scrip_domain::command::Movement;
use scrip_domain::coupon::CouponSource;
use scrip_domain::event::EventKind;
use scrip_domain::job::{JobKind, JobState};
use scrip_domain::points::TransactionType;
use scrip_domain::{
    Answer, BulkId, Command, Envelope, IdSeed, JobId, MemberId, Outcome, Rejection, TemplateId, TenantId, Timestamp,
};
use uuid::Uuid;

use crate::generate::{Generator, HOUR, Random};
use crate::harness::Harness;

const BULK: BulkId = BulkId(Uuid::from_u128(0xb));

/// A tenant with a few templates, as the generator opens.
fn opened(seed: u64) -> (Harness, TenantId, Vec<TemplateId>, Timestamp) {
    let mut harness = Harness::default();
    let mut generator = Generator::new(seed);
    for _ in 0..12 {
        let envelope = generator.next();
        let answer = harness.execute(std::slice::from_ref(&envelope)).remove(0);
        generator.learn(&envelope, &answer);
    }
    let tenant = *harness.rows.tenants.keys().next().expect("a tenant");
    let templates = harness.rows.templates.keys().filter(|(owner, _)| *owner == tenant).map(|(_, id)| *id).collect();
    let now = Timestamp(crate::generate::START.0 + HOUR);
    (harness, tenant, templates, now)
}

struct Shop {
    harness: Harness,
    tenant: TenantId,
    now: Timestamp,
    seed: u128,
}

impl Shop {
    fn ask(&mut self, command: Command) -> Answer {
        self.seed += 1;
        let seed = IdSeed { unix_ms: (self.now.0 / 1_000) as u64, random: self.seed };
        let (tenant, now) = (self.tenant, self.now);
        let envelope = Envelope { tenant, actor: None, command, idempotency: None, at: now, now, seed };
        self.harness.execute(&[envelope]).remove(0)
    }

    fn bulk(&mut self, command: Command) -> Bulk {
        match self.ask(command) {
            Answer::Accepted { outcome: Outcome::Bulk(bulk), .. } => *bulk,
            other => panic!("no bulk: {other:?}"),
        }
    }

    fn outcomes(&self, number: i64) -> Vec<String> {
        serde_json::from_str(&self.harness.rows.chunks[&(self.tenant, BULK, number)].outcomes).expect("a list")
    }
}

fn member(number: i64) -> MemberId {
    format!("m-{number}").parse().expect("a member")
}

fn staged(rows: i64, chunks: i64) -> Staged {
    Staged { rows, chunks, skipped: 0 }
}

/// Members in some order, a few of them more than once, with levels.
fn recipients(random: &mut Random, count: i64) -> Vec<Recipient> {
    let levels = [None, Some("GOLD"), Some("SILVER")];
    let recipient = |_| Recipient {
        member_id: member(random.between(1, 12)),
        member_level: random.pick(&levels).copied().flatten().map(str::to_owned),
    };
    (0..count).map(recipient).collect()
}

#[test]
fn a_chunk_gives_each_member_what_a_claim_would() {
    for seed in 0..60 {
        let (harness, tenant, templates, now) = opened(seed);
        let mut random = Random::new(seed);
        // One with a price is given, but not claimed.
        let free = |id: &TemplateId| {
            harness.template(tenant, *id).is_some_and(|template| template.definition.points_price.is_none())
        };
        for template_id in templates.into_iter().filter(free) {
            let rows = recipients(&mut random, 30);
            let mut alone = Shop { harness: harness.clone(), tenant, now, seed: 1_000 };
            let mut together = Shop { harness: harness.clone(), tenant, now, seed: 1_000 };
            let mut expected = Vec::new();
            for Recipient { member_id, member_level } in rows.clone() {
                expected.push(match alone.ask(Command::Claim { template_id, member_id, member_level }) {
                    Answer::Accepted { .. } => "ACCEPTED".to_owned(),
                    Answer::Refused(rejection) => rejection.code().to_owned(),
                });
            }
            together.bulk(Command::CreateBulk { bulk_id: BULK, template_id: Some(template_id), staged: staged(30, 1) });
            let work = Box::new(ChunkWork::Issue { template_id, recipients: rows });
            let bulk = together.bulk(Command::WorkChunk { bulk_id: BULK, number: 0, work });
            let shown = |outcome: String| if outcome.starts_with("cpn_") { "ACCEPTED".into() } else { outcome };
            let found: Vec<String> = together.outcomes(0).into_iter().map(shown).collect();
            assert_eq!(found, expected, "seed {seed}");
            assert_eq!(bulk.accepted, expected.iter().filter(|code| *code == "ACCEPTED").count() as i64);
            assert_eq!((bulk.accepted + bulk.refused, bulk.status), (30, BulkStatus::Done));
            let coupons = |shop: &Shop| {
                let own = shop
                    .harness
                    .rows
                    .coupons
                    .values()
                    .map(|row| ((row.member_id.clone(), row.sequence), row.valid_until));
                own.collect::<BTreeMap<_, _>>()
            };
            assert_eq!(coupons(&together), coupons(&alone), "seed {seed}");
            assert_eq!(together.harness.template(tenant, template_id), alone.harness.template(tenant, template_id));
            let by_distribution = |row: &&scrip_domain::coupon::Coupon| row.source == CouponSource::Distribution;
            let given = together.harness.rows.coupons.values().filter(by_distribution).count() as i64;
            assert_eq!(given, bulk.accepted);
            together.harness.check_all();
        }
    }
}

#[test]
fn grants_of_a_chunk_count_once_each_also_for_one_member() {
    let (harness, tenant, _, now) = opened(3);
    let mut shop = Shop { harness, tenant, now, seed: 0 };
    shop.bulk(Command::CreateBulk { bulk_id: BULK, template_id: None, staged: staged(4, 2) });
    let grant = |name: i64, points| GrantRow {
        member_id: member(name),
        movement: Movement { points, kind: TransactionType::EarnTask, reference: Some("r".into()), remark: None },
        expires_at: None,
    };
    let past = GrantRow { expires_at: Some(now), ..grant(3, 9) };
    let first = Box::new(ChunkWork::Grant(vec![grant(1, 5), grant(1, 6), past]));
    let bulk = shop.bulk(Command::WorkChunk { bulk_id: BULK, number: 0, work: first.clone() });
    assert_eq!((bulk.accepted, bulk.refused, bulk.next_chunk, bulk.status), (2, 1, 1, BulkStatus::Running));
    let outcomes = shop.outcomes(0);
    assert!(outcomes[0].starts_with("ptx_") && outcomes[1].starts_with("ptx_"), "{outcomes:?}");
    assert_eq!(outcomes[2], "DEADLINE_PASSED");
    // The same chunk again, or one out of turn, changes nothing.
    for number in [0, 2] {
        let again = Command::WorkChunk { bulk_id: BULK, number, work: first.clone() };
        assert_eq!(shop.ask(again), Answer::Refused(Rejection::BulkMoved));
    }
    assert_eq!(shop.harness.rows.accounts[&(tenant, member(1))].available, 11);
    let last = Box::new(ChunkWork::Grant(vec![grant(2, 7)]));
    let bulk = shop.bulk(Command::WorkChunk { bulk_id: BULK, number: 1, work: last });
    assert_eq!((bulk.status, bulk.finished_at), (BulkStatus::Done, Some(now)));
    let told: Vec<EventKind> = shop.harness.rows.events.iter().map(|(_, event)| event.kind).collect();
    for kind in [EventKind::BulkCreated, EventKind::BulkFinished] {
        assert_eq!(told.iter().filter(|known| **known == kind).count(), 1);
    }
    shop.harness.check_all();
}

#[test]
fn a_bulk_and_its_job_are_made_together_and_cancelled_together() {
    let (harness, tenant, templates, now) = opened(5);
    let nobody = TemplateId(Uuid::from_u128(99));
    let mut shop = Shop { harness, tenant, now, seed: 0 };
    let unknown = Command::CreateBulk { bulk_id: BULK, template_id: Some(nobody), staged: staged(1, 1) };
    assert_eq!(shop.ask(unknown), Answer::Refused(Rejection::TemplateNotFound));
    assert!(shop.harness.rows.jobs.is_empty());
    let template_id = templates[0];
    let create = Command::CreateBulk { bulk_id: BULK, template_id: Some(template_id), staged: staged(2, 2) };
    let bulk = shop.bulk(create);
    let job = &shop.harness.rows.jobs[&(tenant, bulk.job_id())];
    assert_eq!((job.kind, job.state), (JobKind::Bulk, JobState::Queued));
    for cancel in [Command::CancelBulk(BULK), Command::CancelJob(JobId(BULK.0))] {
        let mut shop = Shop { harness: shop.harness.clone(), tenant, now, seed: 50 };
        assert!(matches!(shop.ask(cancel), Answer::Accepted { .. }));
        assert_eq!(shop.harness.rows.bulks[&(tenant, BULK)].status, BulkStatus::Cancelled);
        assert_eq!(shop.harness.rows.jobs[&(tenant, JobId(BULK.0))].state, JobState::Cancelled);
        let work = Box::new(ChunkWork::Issue { template_id, recipients: Vec::new() });
        let late = Command::WorkChunk { bulk_id: BULK, number: 0, work };
        assert_eq!(shop.ask(late), Answer::Refused(Rejection::BulkMoved));
        // Cancelling again changes nothing, and is no other event.
        shop.ask(Command::CancelBulk(BULK));
        let cancelled = shop.harness.rows.events.iter().filter(|(_, event)| event.kind == EventKind::BulkCancelled);
        assert_eq!(cancelled.count(), 1);
    }
    assert_eq!(shop.ask(Command::CancelBulk(BulkId(Uuid::from_u128(77)))), Answer::Refused(Rejection::BulkNotFound));
}
