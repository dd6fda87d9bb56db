//! What a job may do to its row, and that its work counts once.

use scrip_domain::command::Movement;
use scrip_domain::coupon::{Benefit, Definition, Validity};
use scrip_domain::event::EventKind;
use scrip_domain::job::{ExtensionPage, ExtensionProgress, Job, JobKind, JobState, JobTicket, PointsGrant};
use scrip_domain::points::TransactionType;
use scrip_domain::{Answer, Command, Envelope, IdSeed, JobId, MemberId, Outcome, Rejection, TenantId, Timestamp};
use uuid::Uuid;

use crate::harness::Harness;

const TENANT: TenantId = TenantId(Uuid::from_u128(1));
const NOW: Timestamp = Timestamp(1_000_000_000);

fn ask(harness: &mut Harness, seed: u128, command: Command) -> Answer {
    let seed = IdSeed { unix_ms: 1_000, random: seed };
    let envelope = Envelope { tenant: TENANT, actor: None, command, idempotency: None, at: NOW, now: NOW, seed };
    harness.execute(&[envelope]).remove(0)
}

fn alice() -> MemberId {
    "alice".parse().expect("a member")
}

fn movement(points: i64) -> Movement {
    Movement { points, kind: TransactionType::EarnTask, reference: None, remark: None }
}

fn enqueued(harness: &mut Harness) -> Job {
    let command = Command::EnqueueGrant { member_id: alice(), movement: movement(5), spendable: Default::default() };
    match ask(harness, 1, command) {
        Answer::Accepted { outcome: Outcome::Job(job), .. } => *job,
        other => panic!("{other:?}"),
    }
}

/// Claims the job as a store does.
fn claim(harness: &mut Harness, id: JobId) -> JobTicket {
    let job = harness.rows.jobs.get_mut(&(TENANT, id)).expect("the job");
    job.state = JobState::Running;
    job.attempts += 1;
    job.fence += 1;
    job.lease_holder = Some(Uuid::from_u128(9));
    job.lease_until = Some(Timestamp(NOW.0 + 1));
    JobTicket { job_id: id, fence: job.fence }
}

fn work(ticket: JobTicket, points: i64) -> Command {
    let command = Command::Debit {
        member_id: alice(),
        movement: Movement { kind: TransactionType::UseOrder, ..movement(points) },
    };
    let grant = Command::Grant { member_id: alice(), movement: movement(points), spendable: Default::default() };
    Command::Work { ticket, command: Box::new(if points > 100 { command } else { grant }) }
}

fn row(harness: &Harness, id: JobId) -> &Job {
    &harness.rows.jobs[&(TENANT, id)]
}

#[test]
fn a_grant_that_was_asked_for_is_a_job_that_says_what_to_do() {
    let mut harness = Harness::default();
    let job = enqueued(&mut harness);
    assert_eq!((job.kind, job.state, job.max_attempts), (JobKind::PointsGrant, JobState::Queued, 3));
    let grant: PointsGrant = serde_json::from_str(&job.payload).expect("a payload");
    assert_eq!((grant.member_id, grant.movement), (alice(), movement(5)));
    assert!(harness.rows.events.is_empty(), "nothing was granted yet");
    let late = scrip_domain::points::Spendable { expires_at: Some(NOW), ..scrip_domain::points::Spendable::default() };
    let late = Command::EnqueueGrant { member_id: alice(), movement: movement(5), spendable: late };
    assert_eq!(ask(&mut harness, 2, late), Answer::Refused(Rejection::DeadlinePassed { field: "expires_at" }));
}

#[test]
fn the_work_of_a_job_counts_once_and_ends_it() {
    let mut harness = Harness::default();
    let id = enqueued(&mut harness).id;
    let stale = claim(&mut harness, id);
    let ticket = claim(&mut harness, id);
    assert_eq!(ask(&mut harness, 3, work(stale, 5)), Answer::Refused(Rejection::JobLeaseLost));
    let Answer::Accepted { outcome: Outcome::Transaction(granted), .. } = ask(&mut harness, 4, work(ticket, 5)) else {
        panic!("the grant is made")
    };
    let done = row(&harness, id);
    assert_eq!((done.state, done.lease_holder, done.finished_at), (JobState::Done, None, Some(NOW)));
    assert_eq!(done.progress, format!("{{\"transaction_id\":\"{}\"}}", granted.id));
    assert_eq!(ask(&mut harness, 5, work(ticket, 5)), Answer::Refused(Rejection::JobLeaseLost));
    let grants = harness.rows.events.iter().filter(|(_, event)| event.kind == EventKind::PointsGranted).count();
    assert_eq!(grants, 1);
    harness.check_all();
}

/// A run that breaks off behind a page, and another that begins before it: each coupon counts once, and the counts are whole.
#[test]
fn the_pages_of_an_extension_count_once_wherever_a_run_breaks_off() {
    let mut harness = Harness::default();
    let definition = Definition {
        limit_per_member: 10,
        ..Definition::new("t", Benefit::AmountOff { amount: 5 }, Validity::days(1))
    };
    let create = Command::CreateTemplate { definition: Box::new(definition), total_stock: None };
    let Answer::Accepted { outcome: Outcome::Template(template), .. } = ask(&mut harness, 1, create) else {
        panic!("a template")
    };
    let mut coupons = Vec::new();
    for seed in 2..8 {
        let claim = Command::Claim { template_id: template.id, member_id: alice(), member_level: None };
        match ask(&mut harness, seed, claim) {
            Answer::Accepted { outcome: Outcome::Coupon(coupon), .. } => coupons.push(coupon.id),
            other => panic!("{other:?}"),
        }
    }
    ask(&mut harness, 20, Command::RevokeCoupon { coupon_id: coupons[1], reason: "gone".into() });
    let valid_until = Timestamp(NOW.0 + 90 * 86_400_000_000);
    let enqueue = Command::EnqueueExtension { template_id: template.id, valid_until, ends_before: None };
    let Answer::Accepted { outcome: Outcome::Job(job), .. } = ask(&mut harness, 21, enqueue) else { panic!("a job") };
    let page = |number: i64| {
        let coupon_ids = coupons[number as usize * 3..][..3].to_vec();
        let page = ExtensionPage { number, coupon_ids, seen: 3, last: (alice(), number * 3 + 3) };
        Command::ExtendPage { job_id: job.id, page: Box::new(page) }
    };
    let progress = |harness: &Harness| -> ExtensionProgress {
        serde_json::from_str(&row(harness, job.id).progress).expect("a progress")
    };
    claim(&mut harness, job.id);
    ask(&mut harness, 22, page(0));
    let after = Some((alice(), 3));
    assert_eq!(progress(&harness), ExtensionProgress { pages: 1, seen: 3, extended: 2, refused: 1, after });
    // The runner has gone; the next one goes on from the page that is noted, the first one is no use any more.
    claim(&mut harness, job.id);
    assert_eq!(row(&harness, job.id).attempts, 2);
    assert_eq!(ask(&mut harness, 23, page(0)), Answer::Refused(Rejection::JobLeaseLost));
    ask(&mut harness, 24, page(1));
    let done = progress(&harness);
    assert_eq!((done.pages, done.seen, done.extended, done.refused), (2, 6, 5, 1));
    assert_eq!(row(&harness, job.id).attempts, 1, "it moves on");
    let told = harness.rows.events.iter().filter(|(_, event)| event.kind == EventKind::CouponExtended).count();
    assert_eq!(told, 5);
    ask(&mut harness, 25, Command::CancelJob(job.id));
    assert_eq!(ask(&mut harness, 26, page(0)), Answer::Refused(Rejection::JobLeaseLost));
    harness.check_all();
}

#[test]
fn refused_work_leaves_a_dead_job_with_its_reason() {
    let mut harness = Harness::default();
    let id = enqueued(&mut harness).id;
    let ticket = claim(&mut harness, id);
    let refused = ask(&mut harness, 6, work(ticket, 500));
    assert!(matches!(refused, Answer::Refused(Rejection::PointsInsufficient { .. })), "{refused:?}");
    let dead = row(&harness, id);
    assert_eq!((dead.state, dead.last_error.as_deref()), (JobState::Dead, Some("POINTS_INSUFFICIENT")));
    // An operator gives it its attempts anew.
    ask(&mut harness, 7, Command::RetryJob(id));
    let queued = row(&harness, id);
    assert_eq!((queued.state, queued.attempts, queued.finished_at), (JobState::Queued, 0, None));
    let ticket = claim(&mut harness, id);
    assert!(matches!(ask(&mut harness, 8, work(ticket, 5)), Answer::Accepted { .. }));
}

#[test]
fn a_cancelled_job_does_nothing_more_until_it_is_retried() {
    let mut harness = Harness::default();
    let id = enqueued(&mut harness).id;
    let ticket = claim(&mut harness, id);
    ask(&mut harness, 9, Command::CancelJob(id));
    assert_eq!(row(&harness, id).state, JobState::Cancelled);
    assert_eq!(ask(&mut harness, 10, work(ticket, 5)), Answer::Refused(Rejection::JobLeaseLost));
    ask(&mut harness, 11, Command::RetryJob(id));
    let ticket = claim(&mut harness, id);
    ask(&mut harness, 12, work(ticket, 5));
    // What is done stays done.
    for command in [Command::CancelJob(id), Command::RetryJob(id)] {
        ask(&mut harness, 13, command);
        assert_eq!(row(&harness, id).state, JobState::Done);
    }
    let nobody = JobId(Uuid::from_u128(77));
    assert_eq!(ask(&mut harness, 14, Command::CancelJob(nobody)), Answer::Refused(Rejection::JobNotFound));
}
