//! Background jobs on both stores: none lost, none twice, each tried as often as it may be. Time is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use scrip_domain::command::Movement;
use scrip_domain::job::{Job, JobKind, JobPool, JobState};
use scrip_domain::points::{PointsRule, Spendable, TransactionType};
use scrip_domain::pricing::Rules;
use scrip_domain::{Answer, Command, Day, JobId, Outcome, Rejection, TenantId, Timestamp};
use scrip_server::engine::{Engine, EngineOptions};
use scrip_server::jobs::housekeeping::{HousekeepingOptions, ensure_passes};
use scrip_server::jobs::runner::{Done, Handler, JobError, Runner, RunnerOptions};
use scrip_server::metrics::Metrics;
use scrip_server::store::Store;
use scrip_server::store::job::NO_TENANT;
use scrip_server::verify::verify;
use scrip_server::{calendar, clock};
use uuid::Uuid;

use crate::harness::{Fixture, KINDS, Kind, envelope, member, tenant};

fn options() -> RunnerOptions {
    RunnerOptions {
        concurrency: 16,
        long_concurrency: 2,
        recurring: true,
        poll: Duration::from_millis(20),
        lease: Duration::from_secs(30),
    }
}

fn passes() -> HousekeepingOptions {
    let day = Duration::from_secs(86_400);
    HousekeepingOptions {
        delivery_retention: Duration::from_secs(3_600),
        interval: Duration::from_secs(60),
        idempotency_retention: day,
        done_retention: day,
        bulk_retention: day,
        dead_retention: day * 2,
    }
}

fn seconds(count: i64) -> i64 {
    count * 1_000_000
}

fn later(at: Timestamp, micros: i64) -> Timestamp {
    Timestamp(at.0 + micros)
}

/// A store with a tenant, and what works on it.
struct Shop {
    fixture: Fixture,
    engine: Engine,
    tenant: TenantId,
}

impl Shop {
    async fn new(kind: Kind) -> Shop {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        Shop { fixture, engine, tenant }
    }

    fn store(&self) -> &Store {
        &self.fixture.store
    }

    fn runner(&self, handler: Handler) -> Runner {
        Runner::new(self.store().clone(), self.engine.clone(), Metrics::new(), options(), handler)
    }

    /// The runner of a server.
    fn real_runner(&self) -> Runner {
        self.runner(scrip_server::jobs::handler(passes()))
    }

    async fn enqueue(&self, name: &str, points: i64) -> Job {
        let movement = Movement { points, kind: TransactionType::EarnTask, reference: None, remark: None };
        let command = Command::EnqueueGrant { member_id: member(name), movement, spendable: Default::default() };
        self.ask(command).await
    }

    async fn ask(&self, command: Command) -> Job {
        match self.engine.submit(envelope(self.tenant, command)).await {
            Ok(Answer::Accepted { outcome: Outcome::Job(job), .. }) => *job,
            other => panic!("no job: {other:?}"),
        }
    }

    async fn job(&self, id: JobId) -> Job {
        self.store().find_job(self.tenant, id).await.expect("a look-up").expect("the job")
    }

    async fn balance(&self, name: &str) -> i64 {
        let now = clock::now();
        self.store().balance(self.tenant, &member(name), now, now).await.expect("a balance").available
    }

    async fn assert_sound(&self) {
        let report = verify(self.store(), None, |_, _, _| {}).await.expect("verify runs");
        assert!(report.is_clean(), "{}: {:?}", report.summary(), report.checks.iter().find(|check| !check.is_clean()));
    }
}

/// What each run of a job did, by job.
type Runs = Arc<Mutex<HashMap<JobId, i64>>>;

/// A handler that counts its runs and ends as it is told.
fn counting(runs: &Runs, end: impl Fn() -> Result<Done, JobError> + Send + Sync + 'static) -> Handler {
    let (runs, end) = (runs.clone(), Arc::new(end));
    Arc::new(move |run| {
        let (runs, end) = (runs.clone(), end.clone());
        Box::pin(async move {
            *runs.lock().entry(run.job().id).or_default() += 1;
            end()
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_asked_for_are_done_once_by_two_nodes_at_once() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let asked = join_all((0..300).map(|n| shop.enqueue(["a", "b", "c"][n % 3], 2))).await;
        let nodes = [shop.real_runner(), shop.real_runner()];
        let now = clock::now();
        let done = join_all(nodes.iter().map(|node| node.run_due(now, usize::MAX))).await;
        let done: usize = done.into_iter().map(|count| count.expect("they run")).sum();
        assert_eq!(done, 300, "{kind:?}: each job had one run");
        for name in ["a", "b", "c"] {
            assert_eq!(shop.balance(name).await, 200, "{kind:?}");
        }
        let first = shop.job(asked[0].id).await;
        assert_eq!((first.state, first.attempts, first.fence), (JobState::Done, 1, 1), "{kind:?}");
        assert!(first.progress.contains("ptx_"), "{kind:?}: {}", first.progress);
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_wakes_the_runner_of_its_node() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let (send, mut done) = tokio::sync::mpsc::unbounded_channel();
        let handler: Handler = Arc::new(move |run| {
            let send = send.clone();
            Box::pin(async move {
                let _ = send.send(run.job().id);
                Ok(Done::With(None))
            })
        });
        // Without the wake-up it would be an hour.
        let patient = RunnerOptions { poll: Duration::from_secs(3_600), ..options() };
        let runner = Runner::new(shop.store().clone(), shop.engine.clone(), Metrics::new(), patient, handler);
        runner.start();
        for _ in 0..3 {
            let job = shop.enqueue("a", 1).await;
            let ran = tokio::time::timeout(Duration::from_secs(20), done.recv()).await;
            assert_eq!(ran, Ok(Some(job.id)), "{kind:?}");
        }
        runner.drain(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_failures_from_two_seconds_on_make_a_dead_letter_that_can_be_redriven() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let runs = Runs::default();
        let runner = shop.runner(counting(&runs, || Err(JobError::Failed("no luck".into()))));
        let id = shop.enqueue("a", 1).await.id;
        let mut now = clock::now();
        for (attempt, least) in [(1, 2), (2, 4)] {
            assert_eq!(runner.run_due(now, 100).await.expect("a run"), 1, "{kind:?}, attempt {attempt}");
            let job = shop.job(id).await;
            assert_eq!((job.state, job.attempts), (JobState::Queued, attempt), "{kind:?}");
            assert_eq!(job.last_error.as_deref(), Some("no luck"));
            let wait = job.run_at.0 - now.0;
            assert!((seconds(least)..=seconds(least) * 5 / 4).contains(&wait), "{kind:?}: {wait}");
            // Not a microsecond early.
            assert_eq!(runner.run_due(later(job.run_at, -1), 100).await.expect("no run"), 0, "{kind:?}");
            now = job.run_at;
        }
        assert_eq!(runner.run_due(now, 100).await.expect("a run"), 1);
        let dead = shop.job(id).await;
        assert_eq!((dead.state, dead.attempts), (JobState::Dead, 3), "{kind:?}");
        assert_eq!(dead.finished_at, Some(now));
        assert_eq!(runner.run_due(later(now, seconds(100_000)), 100).await.expect("no run"), 0, "{kind:?}");
        let listed = shop.store().list_jobs(shop.tenant, Some(JobState::Dead), None, None, 10).await.expect("a list");
        assert_eq!(listed, [dead], "{kind:?}");
        // Redriven, it has all its attempts again, and this time it works.
        let redriven = shop.ask(Command::RetryJob(id)).await;
        assert_eq!((redriven.state, redriven.attempts), (JobState::Queued, 0), "{kind:?}");
        assert_eq!(shop.real_runner().run_due(clock::now(), 100).await.expect("a run"), 1, "{kind:?}");
        assert_eq!((shop.job(id).await.state, shop.balance("a").await), (JobState::Done, 1), "{kind:?}");
        assert_eq!(runs.lock()[&id], 3, "{kind:?}");
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final_and_a_panic_is_a_failed_attempt_of_its_own() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        // The rules refuse what would exceed an account's life.
        let most = scrip_domain::points::MAX_POINTS;
        let now = clock::now();
        let grant = |points| {
            let movement = Movement { points, kind: TransactionType::EarnTask, reference: None, remark: None };
            Command::Grant { member_id: member("a"), movement, spendable: Default::default() }
        };
        let fill = (0..4_611).map(|_| envelope(shop.tenant, grant(most))).collect();
        assert!(shop.engine.submit_all(fill).await.iter().all(Result::is_ok));
        let refused = shop.enqueue("a", most).await.id;
        assert_eq!(shop.real_runner().run_due(later(now, seconds(60)), 100).await.expect("a run"), 1, "{kind:?}");
        let dead = shop.job(refused).await;
        assert_eq!((dead.state, dead.attempts), (JobState::Dead, 1), "{kind:?}: no attempt would change it");
        assert_eq!(dead.last_error.as_deref(), Some("POINTS_OVERFLOW"), "{kind:?}");

        let spoilt = shop.enqueue("b", 1).await.id;
        let fine = shop.enqueue("c", 1).await.id;
        let real = scrip_server::jobs::handler(passes());
        let handler: Handler = Arc::new(move |run| {
            let real = real.clone();
            Box::pin(async move {
                assert!(run.job().id != spoilt, "this one panics");
                real(run).await
            })
        });
        let runner = shop.runner(handler);
        assert_eq!(runner.run_due(clock::now(), 2).await.expect("both run"), 2, "{kind:?}");
        let job = shop.job(spoilt).await;
        assert_eq!((job.state, job.attempts), (JobState::Queued, 1), "{kind:?}");
        assert!(job.last_error.expect("an error").contains("this one panics"), "{kind:?}");
        assert_eq!(shop.job(fine).await.state, JobState::Done, "{kind:?}: its neighbour is unharmed");
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_of_a_vanished_runner_is_taken_up_and_its_late_work_misses() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let id = shop.enqueue("a", 5).await.id;
        let (now, gone) = (clock::now(), Uuid::now_v7());
        let until = later(now, seconds(30));
        let claimed = shop.store().claim_jobs(JobPool::Short, gone, now, until, 10).await.expect("a claim");
        assert_eq!(claimed.len(), 1, "{kind:?}");
        let runner = shop.real_runner();
        assert_eq!(runner.reap(later(until, -1)).await.expect("a look"), 0, "{kind:?}: the lease still holds");
        assert_eq!(runner.run_due(now, 10).await.expect("no run"), 0, "{kind:?}");
        assert_eq!(runner.reap(until).await.expect("a look"), 1, "{kind:?}");
        let job = shop.job(id).await;
        assert_eq!((job.state, job.attempts, job.lease_holder), (JobState::Queued, 1, None), "{kind:?}");
        assert_eq!(runner.run_due(job.run_at, 10).await.expect("a run"), 1, "{kind:?}");
        // The first runner comes back: its ticket is stale, and so is its word on how the job ended.
        let ticket = scrip_domain::job::JobTicket { job_id: id, fence: claimed[0].job.fence };
        let movement = Movement { points: 5, kind: TransactionType::EarnTask, reference: None, remark: None };
        let grant = Command::Grant { member_id: member("a"), movement, spendable: Default::default() };
        let late = Command::Work { ticket, command: Box::new(grant) };
        let answer = shop.engine.submit(envelope(shop.tenant, late)).await;
        assert_eq!(answer, Ok(Answer::Refused(Rejection::JobLeaseLost)), "{kind:?}");
        let end = scrip_server::store::job::JobEnd::Dead("late".into());
        assert!(!shop.store().end_job(&claimed[0], &end, clock::now()).await.expect("no row"), "{kind:?}");
        assert!(!shop.store().record_progress(&claimed[0], "{}", clock::now()).await.expect("no row"), "{kind:?}");
        assert_eq!((shop.job(id).await.state, shop.balance("a").await), (JobState::Done, 5), "{kind:?}");
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_runner_vanishes_three_times_is_dead_unless_it_made_progress() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let (unlucky, slow) = (shop.enqueue("a", 5).await.id, shop.enqueue("b", 5).await.id);
        let runner = shop.real_runner();
        let mut now = clock::now();
        for attempt in 1..=3 {
            let until = later(now, seconds(30));
            let claimed =
                shop.store().claim_jobs(JobPool::Short, Uuid::now_v7(), now, until, 10).await.expect("claims");
            assert_eq!(claimed.len(), 2, "{kind:?}, attempt {attempt}");
            let slow = claimed.iter().find(|claimed| claimed.job.id == slow).expect("the slow one");
            assert!(shop.store().record_progress(slow, "{\"rows\":1}", now).await.expect("progress"));
            assert_eq!(runner.reap(until).await.expect("a look"), 2);
            now = later(until, seconds(10));
        }
        assert_eq!(shop.job(unlucky).await.state, JobState::Dead, "{kind:?}");
        let slow = shop.job(slow).await;
        assert_eq!((slow.state, slow.attempts, slow.fence), (JobState::Queued, 1, 3), "{kind:?}");
        assert_eq!(slow.progress, "{\"rows\":1}", "{kind:?}");
        shop.assert_sound().await;
    }
}

/// Tells when it is dropped.
struct Gone(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_never_runs_and_a_running_one_is_stopped() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let queued = shop.enqueue("a", 1).await.id;
        assert_eq!(shop.ask(Command::CancelJob(queued)).await.state, JobState::Cancelled, "{kind:?}");
        assert_eq!(shop.real_runner().run_due(later(clock::now(), seconds(9)), 10).await.expect("none"), 0, "{kind:?}");

        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let (gone, mut is_gone) = tokio::sync::mpsc::unbounded_channel();
        let handler: Handler = Arc::new(move |_| {
            let (begun, gone) = (begun.clone(), Gone(gone.clone()));
            Box::pin(async move {
                let _gone = gone;
                let _ = begun.send(());
                std::future::pending().await
            })
        });
        // Heartbeats come often.
        let quick = RunnerOptions { lease: Duration::from_millis(200), ..options() };
        let runner = Runner::new(shop.store().clone(), shop.engine.clone(), Metrics::new(), quick, handler);
        runner.start();
        let id = shop.enqueue("a", 1).await.id;
        has_begun.recv().await.expect("it runs");
        assert_eq!(shop.ask(Command::CancelJob(id)).await.state, JobState::Cancelled, "{kind:?}");
        let stopped = tokio::time::timeout(Duration::from_secs(20), is_gone.recv()).await;
        assert_eq!(stopped, Ok(Some(())), "{kind:?}: the run is stopped");
        runner.drain(Duration::from_secs(1)).await;
        assert_eq!(shop.job(id).await.state, JobState::Cancelled, "{kind:?}");
        assert_eq!(shop.balance("a").await, 0, "{kind:?}");
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_runner_gives_back_what_it_cannot_finish() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let handler: Handler = Arc::new(move |_| {
            let begun = begun.clone();
            Box::pin(async move {
                let _ = begun.send(());
                std::future::pending().await
            })
        });
        let runner = shop.runner(handler);
        runner.start();
        let id = shop.enqueue("a", 3).await.id;
        has_begun.recv().await.expect("it runs");
        runner.drain(Duration::from_millis(10)).await;
        let job = shop.job(id).await;
        assert_eq!((job.state, job.attempts), (JobState::Queued, 0), "{kind:?}: as if it had not been claimed");
        assert_eq!(shop.real_runner().run_due(clock::now(), 10).await.expect("a run"), 1, "{kind:?}");
        assert_eq!(shop.balance("a").await, 3, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_own_passes_recur_on_one_node_at_a_time() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        for _ in 0..2 {
            ensure_passes(shop.store(), &passes()).await.expect("the passes are there");
        }
        let listed = shop.store().list_jobs(NO_TENANT, None, None, None, 10).await.expect("a list");
        assert_eq!(listed.len(), 3, "{kind:?}: each pass once, whoever starts");
        let nodes = [shop.real_runner(), shop.real_runner()];
        let due = later(clock::now(), seconds(61));
        let runs = join_all(nodes.iter().map(|node| node.run_due(due, 10))).await;
        let runs: usize = runs.into_iter().map(|count| count.expect("they run")).sum();
        assert_eq!(runs, 3, "{kind:?}: both nodes together, one run of each");
        for job in shop.store().list_jobs(NO_TENANT, None, None, None, 10).await.expect("a list") {
            assert_eq!((job.state, job.run_at), (JobState::Queued, later(due, seconds(60))), "{kind:?}");
            assert_ne!(job.progress, "{}", "{kind:?}: {:?} tells what it did", job.kind);
        }
        // One that fails comes again at once at first, and never dies.
        let failing = shop.runner(counting(&Runs::default(), || Err(JobError::Failed("no".into()))));
        let mut now = later(due, seconds(60));
        for _ in 0..5 {
            assert_eq!(failing.run_due(now, 10).await.expect("they run"), 3, "{kind:?}");
            now = later(now, seconds(61));
        }
        let sweep = shop.store().list_jobs(NO_TENANT, None, Some(JobKind::Sweep), None, 1).await.expect("a list");
        assert_eq!((sweep[0].state, sweep[0].last_error.as_deref()), (JobState::Queued, Some("no")), "{kind:?}");
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_jobs_are_deleted_after_their_time_and_dead_ones_later() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let done = shop.enqueue("a", 1).await.id;
        shop.real_runner().run_due(clock::now(), 10).await.expect("a run");
        let cancelled = shop.enqueue("a", 1).await.id;
        shop.ask(Command::CancelJob(cancelled)).await;
        let waiting = shop.enqueue("a", 1).await.id;
        let after = later(clock::now(), 1);
        for (state, count) in [(JobState::Done, 1), (JobState::Cancelled, 1), (JobState::Dead, 0)] {
            let deleted = shop.store().purge_jobs(state, after, 100).await.expect("a purge");
            assert_eq!(deleted, count, "{kind:?} {state:?}");
        }
        for (id, is_there) in [(done, false), (cancelled, false), (waiting, true)] {
            let found = shop.store().find_job(shop.tenant, id).await.expect("a look-up");
            assert_eq!(found.is_some(), is_there, "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_jobs_go_first_and_then_those_that_are_due_longest() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let ids: Vec<JobId> = join_all((0..4).map(|_| shop.enqueue("a", 1))).await.iter().map(|job| job.id).collect();
        let now = clock::now();
        for (number, (id, priority)) in ids.iter().zip([1, 2, 0, 1]).enumerate() {
            let sql = "UPDATE job SET priority = $1, run_at = $2 WHERE id = $3";
            let due = Timestamp(now.0 - 10 * number as i64);
            shop.write(sql, priority, due, *id).await;
        }
        let mut order = Vec::new();
        let until = later(now, seconds(30));
        while let Some(claimed) =
            shop.store().claim_jobs(JobPool::Short, Uuid::now_v7(), now, until, 1).await.expect("a claim").pop()
        {
            order.push(ids.iter().position(|id| *id == claimed.job.id).expect("one of them"));
        }
        assert_eq!(order, [2, 3, 0, 1], "{kind:?}");
    }
}

impl Shop {
    /// Changes a row as no command does.
    async fn write(&self, sql: &str, priority: i64, run_at: Timestamp, id: JobId) {
        match &self.fixture.url {
            scrip_server::store::StoreUrl::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).expect("the store opens");
                let parameters = rusqlite::params![priority, run_at.0, id.0.as_bytes()];
                assert_eq!(connection.execute(&sql.replace('$', "?"), parameters).expect("a write"), 1);
            }
            scrip_server::store::StoreUrl::Postgres(url) => {
                let client = crate::postgres::connect(url).await;
                assert_eq!(client.execute(sql, &[&priority, &run_at.0, &id.0]).await.expect("a write"), 1);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_one_holder_and_its_token_grows() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let store = &fixture.store;
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let at = Timestamp;
        let first = store.acquire_lease("relay", a, at(100), at(200)).await.unwrap().expect("it is free");
        assert_eq!(store.acquire_lease("relay", b, at(199), at(300)).await.unwrap(), None, "{kind:?}");
        assert!(store.acquire_lease("other", b, at(199), at(300)).await.unwrap().is_some(), "{kind:?}");
        assert!(store.renew_lease("relay", first, at(150), at(250)).await.unwrap(), "{kind:?}");
        assert_eq!(store.acquire_lease("relay", b, at(249), at(300)).await.unwrap(), None, "{kind:?}");
        let second = store.acquire_lease("relay", b, at(250), at(300)).await.unwrap().expect("it has ended");
        assert!(second.token > first.token, "{kind:?}");
        assert!(!store.renew_lease("relay", first, at(251), at(900)).await.unwrap(), "{kind:?}: passed on");
        store.release_lease("relay", first).await.unwrap();
        assert_eq!(store.acquire_lease("relay", a, at(260), at(400)).await.unwrap(), None, "{kind:?}");
        store.release_lease("relay", second).await.unwrap();
        let third = store.acquire_lease("relay", a, at(260), at(400)).await.unwrap().expect("it was given up");
        assert!(third.token > second.token, "{kind:?}");
        assert!(!store.renew_lease("relay", third, at(400), at(900)).await.unwrap(), "{kind:?}: it has ended");
        // Of many at once, one gets it.
        let all = join_all((10..30).map(|n| store.acquire_lease("rush", Uuid::from_u128(n), at(1), at(2)))).await;
        assert_eq!(all.into_iter().filter(|got| got.as_ref().unwrap().is_some()).count(), 1, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_windows_that_begin_and_end_are_told_once_when_they_have() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let now = later(clock::now(), -seconds(1_000));
        let window = |from: i64, to: i64| scrip_domain::coupon::Definition {
            distribution: scrip_domain::time::Window {
                starts_at: Some(later(now, seconds(from))),
                ends_at: Some(later(now, seconds(to))),
            },
            ..crate::harness::definition()
        };
        let mut templates = Vec::new();
        for (from, to) in [(-50, 100), (60, 120), (200, 300)] {
            templates.push(crate::harness::template(&shop.engine, shop.tenant, window(from, to), None).await);
        }
        let every = seconds(60);
        shop.store().ensure_recurring(JobKind::Windows, every, now, now).await.expect("the pass is there");
        let nodes = [shop.real_runner(), shop.real_runner()];
        let told = async |count: usize| {
            // Beside the making of each template.
            let events = shop.fixture.first_events(shop.tenant, templates.len() + count).await;
            let of_windows = events
                .iter()
                .filter(|event| ["coupon_template.started", "coupon_template.ended"].contains(&event.kind.as_str()));
            let place = |id| templates.iter().position(|template| template.0 == id).expect("one of them");
            let shown = of_windows.map(|event| {
                (
                    event.kind.as_str().rsplit('.').next().expect("a name").to_owned(),
                    place(event.subject),
                    event.occurred_at,
                )
            });
            shown.collect::<Vec<_>>()
        };
        // The first pass only begins: what had begun before is told to nobody.
        for (at, count) in [(61, 0), (121, 2), (190, 2), (400, 4)] {
            for node in &nodes {
                node.run_due(later(now, seconds(at)), 10).await.expect("they run");
            }
            assert_eq!(told(count).await.len(), count, "{kind:?} at {at}");
        }
        let expected = [("ended", 0, 100), ("ended", 1, 120), ("started", 2, 200), ("ended", 2, 300)];
        let all = told(4).await;
        for (name, template, at) in expected {
            let bound = (name.to_owned(), template, later(now, seconds(at)));
            assert_eq!(all.iter().filter(|told| **told == bound).count(), 1, "{kind:?}: {bound:?} of {all:?}");
        }
        shop.assert_sound().await;
    }
}

/// For each number of days before, on the day by the tenant's clock, and once, whatever the nodes and the passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_reminded_of_points_that_expire_once_for_each_number_of_days() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let zone = shop.store().zone(shop.tenant).await.expect("its zone");
        let (day, hour) = (seconds(86_400), seconds(3_600));
        let start_of = |day| calendar::start_of_day(&zone, Day(day));
        // Tomorrow, so that no pass comes before what it tells of.
        let first = calendar::day(&zone, clock::now()).0 + 1;
        let rules = Rules {
            points: PointsRule { expiry_reminder_days: vec![1, 7], ..PointsRule::default() },
            ..Rules::default()
        };
        let set = Command::SetRules { expected_version: 0, rules: Box::new(rules), effective_from: None };
        shop.engine.submit(envelope(shop.tenant, set)).await.expect("rules");
        let mut lots = HashMap::new();
        for days in [1, 2, 7, 8, 40] {
            let movement = Movement { points: days, kind: TransactionType::EarnTask, reference: None, remark: None };
            let spendable = Spendable { expires_at: Some(start_of(first + days + 1)), ..Spendable::default() };
            let grant = Command::Grant { member_id: member("m-1"), movement, spendable };
            let answer = shop.engine.submit(envelope(shop.tenant, grant)).await.expect("an answer");
            let Answer::Accepted { outcome: Outcome::Transaction(line), .. } = answer else { panic!("{answer:?}") };
            lots.insert(line.lot_id.expect("a lot").0, days);
        }
        let before = 1 + lots.len();
        let nodes = [shop.real_runner(), shop.real_runner()];
        let mut seen = 0;
        for (at, expected) in [
            (0, vec![(7, 1), (7, 2), (7, 7), (1, 1)]),
            (hour, vec![]),
            // The lot of eight days is told of when its day begins, not before.
            (day - hour, vec![]),
            (day + hour, vec![(1, 2), (7, 8)]),
            (7 * day + hour, vec![(1, 7), (1, 8)]),
            (34 * day + hour, vec![(7, 40)]),
        ] {
            let at = later(start_of(first), at + hour / 2);
            shop.store().ensure_recurring(JobKind::Windows, seconds(60), at, at).await.expect("the pass is there");
            for node in &nodes {
                node.run_due(at, 10).await.expect("they run");
            }
            let events = shop.fixture.first_events(shop.tenant, before + seen + expected.len()).await;
            let reminders = events.iter().filter(|event| event.kind.as_str() == "points.expiring").skip(seen);
            let mut told: Vec<(i64, i64)> = reminders
                .map(|event| {
                    let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                    assert_eq!(event.member_id, Some(member("m-1")));
                    let days = lots[&event.subject];
                    assert_eq!(data["points"], days, "{kind:?}: what the lot has left");
                    assert_eq!(data["expires_at_unix_us"], start_of(first + days + 1).0, "{kind:?}");
                    (data["days_before"].as_i64().expect("a number"), days)
                })
                .collect();
            let mut expected = expected;
            told.sort_unstable();
            expected.sort_unstable();
            assert_eq!(told, expected, "{kind:?} at {at:?}");
            seen += told.len();
        }
        let report = verify(shop.store(), None, |_, _, _| {}).await.expect("verify runs");
        let broken: Vec<_> = report.checks.iter().filter(|check| !check.is_clean()).collect();
        assert!(broken.is_empty(), "{kind:?}: {broken:?}");
    }
}
