//! Members' accounts on both stores: many writers at once, balances of earlier times, and the passes that follow by themselves.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use scrip_domain::command::Movement;
use scrip_domain::points::{Account, AdjustmentRequest, MAX_POINTS, Spendable, Transaction, TransactionType};
use scrip_domain::task::{Definition, Period, TaskPatch};
use scrip_domain::time::{MICROS_PER_DAY, Window};
use scrip_domain::{Answer, Command, Envelope, HoldId, MemberId, Outcome, TaskKey, TenantId, Timestamp, TransactionId};
use scrip_server::calendar::end_of_day_after;
use scrip_server::engine::{Engine, EngineOptions};
use scrip_server::jobs::members::{follow_merges, report_events};
use scrip_server::store::read::{Balance, LineTime, Posted, StoredBalance};
use scrip_server::store::{Param, Store, decode};
use scrip_server::verify::verify;

use crate::generate::Random;
use crate::harness::{Fixture, KINDS, Kind, definition, envelope, member, template, tenant};

const HOUR: i64 = MICROS_PER_DAY / 24;

fn grant(to: &MemberId, points: i64, spendable: Spendable) -> Command {
    let movement = Movement { points, kind: TransactionType::EarnOrder, reference: None, remark: None };
    Command::Grant { member_id: to.clone(), movement, spendable }
}

fn debit(from: &MemberId, points: i64) -> Command {
    let movement = Movement { points, kind: TransactionType::UseOrder, reference: None, remark: None };
    Command::Debit { member_id: from.clone(), movement }
}

fn transfer(from: &MemberId, to: &MemberId, points: i64) -> Command {
    Command::Transfer { from: from.clone(), to: to.clone(), points, reference: None, remark: None }
}

async fn assert_sound(store: &Store, kind: Kind) {
    let report = verify(store, None, |_, _, _| {}).await.expect("verify runs");
    let broken: Vec<_> = report.checks.iter().filter(|check| !check.is_clean()).collect();
    assert!(broken.is_empty(), "{kind:?}: {broken:#?}");
}

/// Columns that follow from the books of any time; what is still to come is told of now only.
fn columns(balance: &Balance) -> [i64; 7] {
    let Balance { available, frozen, used, expired, revoked, total_points, debt, .. } = *balance;
    [available, frozen, used, expired, revoked, total_points, debt]
}

/// 64 writers grant, debit and give away; what they were told is what is there, and no point is lost or made.
async fn writers(kind: Kind, members: u64, commands: usize) {
    let fixture = Fixture::new(kind).await;
    let engine = fixture.engine(EngineOptions::default()).await;
    let tenant = tenant(&engine).await;
    let writers = (0..64u64).map(|writer| {
        let engine = engine.clone();
        async move {
            let mut random = Random::new(writer ^ 0xFACE);
            let (mut granted, mut spent) = (0, 0);
            for _ in 0..commands {
                let own = member(random.next() % members);
                // One hot account beside the others gives and takes in every fourth command.
                let other = if random.percent(25) { member(0) } else { member(random.next() % (members + 1)) };
                let points = random.between(1, 20);
                let command = match random.between(0, 9) {
                    0..5 => grant(&own, points, Spendable::default()),
                    5..7 => debit(&own, points),
                    _ => transfer(&own, &other, points),
                };
                match engine.submit(envelope(tenant, command.clone())).await.expect("an answer") {
                    Answer::Accepted { .. } => match command {
                        Command::Grant { .. } => granted += points,
                        Command::Debit { .. } => spent += points,
                        _ => {}
                    },
                    Answer::Refused(_) => {}
                }
            }
            (granted, spent)
        }
    });
    let told = join_all(writers).await;
    let (granted, spent) = told.iter().fold((0, 0), |(granted, spent), (one, other)| (granted + one, spent + other));
    let sql = "SELECT CAST(sum(total_points) AS BIGINT), CAST(sum(used) AS BIGINT), CAST(sum(available) AS BIGINT), \
               CAST(min(available) AS BIGINT) FROM mkt_points_account";
    let sums = fixture.store.stream(sql, &[], |row| Ok([row.int(0)?, row.int(1)?, row.int(2)?, row.int(3)?])).await;
    let [total, used, available, least] = sums.expect("sums")[0];
    assert_eq!((total, used, available), (granted, spent, granted - spent), "{kind:?}");
    assert!(least >= 0, "{kind:?}");
    assert_sound(&fixture.store, kind).await;
}

/// Complaint: concurrent spending doubles points or makes balances negative; one hot account slows everything (cala PR 776,
/// AI-Horde PR 536).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_writers_on_one_account_lose_and_double_nothing() {
    for kind in KINDS {
        writers(kind, 1, 40).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_writers_on_ten_thousand_accounts_lose_and_double_nothing() {
    for kind in KINDS {
        writers(kind, 10_000, 60).await;
    }
}

/// L16: the balance of an earlier time is what was shown then, through expiries, deadlines and points that come later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_as_of_then_is_the_one_shown_then() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let mut random = Random::new(7);
        let start = Timestamp(scrip_server::clock::now().0 - 60 * MICROS_PER_DAY);
        let (mut shown, mut holds, mut lines): (Vec<_>, Vec<HoldId>, Vec<TransactionId>) = Default::default();
        let own = member("own");
        let other = member("other");
        for hour in 0..240 {
            let at = Timestamp(start.0 + hour * HOUR);
            let later = |random: &mut Random, hours| Some(Timestamp(at.0 + random.between(1, hours) * HOUR));
            let points = random.between(1, 30);
            let movement = Movement { points, kind: TransactionType::Hold, reference: None, remark: None };
            let command = match random.between(0, 11) {
                0..4 => {
                    let available_from = if random.percent(30) { later(&mut random, 6) } else { None };
                    let expires_at = if random.percent(70) { later(&mut random, 40) } else { None };
                    grant(&own, points, Spendable { available_from, expires_at, ..Spendable::default() })
                }
                4 => debit(&own, points),
                5 => Command::Hold { member_id: own.clone(), movement, expires_at: later(&mut random, 8) },
                6 if !holds.is_empty() => {
                    let hold_id = holds[random.between(0, holds.len() as i64 - 1) as usize];
                    Command::CaptureHold { member_id: own.clone(), hold_id, points: None }
                }
                7 if !lines.is_empty() => {
                    let transaction_id = lines[random.between(0, lines.len() as i64 - 1) as usize];
                    Command::Reverse { member_id: own.clone(), transaction_id, points: None, remark: None }
                }
                8 => transfer(&own, &other, points),
                9 => transfer(&other, &own, 3),
                // Time passes, and nothing is written of what it decides.
                _ => {
                    shown.push((at, columns(&fixture.store.balance(tenant, &own, at, at).await.expect("a balance"))));
                    continue;
                }
            };
            let mut asked = envelope(tenant, command);
            asked.at = at;
            if let Answer::Accepted { outcome, .. } = engine.submit(asked).await.expect("an answer") {
                match outcome {
                    Outcome::Hold { hold, .. } => holds.push(hold.id),
                    Outcome::Transaction(line) => lines.push(line.id),
                    _ => {}
                }
            }
            shown.push((at, columns(&fixture.store.balance(tenant, &own, at, at).await.expect("a balance"))));
        }
        for (at, expected) in &shown {
            let past = fixture.store.past_balance(tenant, &own, *at, *at).await.expect("a balance");
            assert_eq!(columns(&past), *expected, "{kind:?} at {at:?}");
        }
        for (column, name) in [(1, "frozen"), (3, "expired"), (6, "debt")] {
            assert!(shown.iter().any(|(_, columns)| columns[column] > 0), "{name} occurred");
        }
        assert_sound(&fixture.store, kind).await;
    }
}

/// And of an account whose lots' ends an activity moves: they were alive before it with the old end as with the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_as_of_then_does_not_know_of_the_activity_after_it() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let zone = fixture.store.zone(tenant).await.expect("a zone");
        let mut random = Random::new(11);
        let mut at = Timestamp(scrip_server::clock::now().0 - 200 * MICROS_PER_DAY);
        let (mut shown, mut holds): (Vec<_>, Vec<HoldId>) = Default::default();
        let (own, other) = (member("own"), member("other"));
        for _ in 0..200 {
            // Mostly some hours later; now and then long enough for idle lots to expire.
            at = Timestamp(at.0 + HOUR * if random.percent(8) { 96 } else { random.between(1, 20) });
            let points = random.between(1, 30);
            let later = Some(Timestamp(at.0 + random.between(1, 40) * HOUR));
            let movement = Movement { points, kind: TransactionType::Hold, reference: None, remark: None };
            let command = match random.between(0, 9) {
                0..3 => {
                    let days = random.between(1, 3) as u32;
                    let (expires_at, idle_days) = (Some(end_of_day_after(&zone, at, days)), Some(days));
                    grant(&own, points, Spendable { available_from: None, expires_at, idle_days })
                }
                3 => grant(&own, points, Spendable { expires_at: later, ..Spendable::default() }),
                4 => debit(&own, points),
                5 => Command::Hold { member_id: own.clone(), movement, expires_at: later },
                6 if !holds.is_empty() => {
                    let hold_id = holds[random.between(0, holds.len() as i64 - 1) as usize];
                    Command::CaptureHold { member_id: own.clone(), hold_id, points: None }
                }
                7 => transfer(&own, &other, points),
                8 => transfer(&other, &own, 3),
                // Refused, but what time has decided is written.
                _ => debit(&own, MAX_POINTS),
            };
            let asked = Envelope { at, ..envelope(tenant, command) };
            if let Answer::Accepted { outcome: Outcome::Hold { hold, .. }, .. } =
                engine.submit(asked).await.expect("an answer")
            {
                holds.push(hold.id);
            }
            shown.push((at, columns(&fixture.store.balance(tenant, &own, at, at).await.expect("a balance"))));
        }
        for (at, expected) in &shown {
            let past = fixture.store.past_balance(tenant, &own, *at, *at).await.expect("a balance");
            assert_eq!(columns(&past), *expected, "{kind:?} at {at:?}");
        }
        for (column, name) in [(1, "frozen"), (2, "used"), (3, "expired")] {
            assert!(shown.iter().any(|(_, columns)| columns[column] > 0), "{name} occurred");
        }
        let sql = "SELECT count(*) FROM mkt_points_lot l JOIN mkt_points_transaction t ON t.tenant_id = l.tenant_id \
                   AND t.id = l.transaction_id WHERE l.idle_days IS NOT NULL AND l.expires_at > t.expires_at";
        let moved = fixture.store.stream(sql, &[], |row| row.int(0)).await.expect("a count");
        assert!(moved[0] > 5, "{kind:?}: ends moved: {moved:?}");
        assert_sound(&fixture.store, kind).await;
    }
}

async fn accept(engine: &Engine, tenant: TenantId, command: Command) -> Outcome {
    match engine.submit(envelope(tenant, command.clone())).await {
        Ok(Answer::Accepted { outcome, .. }) => outcome,
        other => panic!("{command:?}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_reports_a_task_once_however_often_the_log_is_read() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let store = &fixture.store;
        let template = template(&engine, tenant, definition(), None).await;
        let claim = |name: &str| Command::Claim { template_id: template, member_id: member(name), member_level: None };
        accept(&engine, tenant, claim("early")).await;
        store.begin_task_events(tenant).await.expect("a cursor");
        let task = Definition {
            name: "Claim a coupon".into(),
            description: String::new(),
            points: 5,
            period: Period::Once,
            limit_per_period: 1,
            total_limit: None,
            target: 1,
            event_type: Some("coupon.claimed".into()),
            window: Window::default(),
            requires: Vec::new(),
        };
        let create = |key: &str, points, requires: &[&str]| Command::CreateTask {
            key: key.parse().expect("a key"),
            definition: Box::new(Definition {
                points,
                requires: requires.iter().map(|key| key.parse().expect("a key")).collect(),
                ..task.clone()
            }),
        };
        let before = scrip_server::clock::now();
        accept(&engine, tenant, create("claim", 5, &[])).await;
        // Reported by the same event, and behind what it requires, whatever the order of their keys.
        accept(&engine, tenant, create("another", 10, &["claim"])).await;
        let never = Definition { event_type: None, ..task.clone() };
        let never = Command::CreateTask { key: "never".parse().expect("a key"), definition: Box::new(never) };
        accept(&engine, tenant, never).await;
        accept(&engine, tenant, create("unreachable", 100, &["never"])).await;
        // As of a time before the task, as an import of the past is: nothing that the task has asked for.
        let past = scrip_domain::Envelope { at: before, ..envelope(tenant, claim("past")) };
        assert!(matches!(engine.submit(past).await, Ok(Answer::Accepted { .. })), "{kind:?}");
        accept(&engine, tenant, claim("a")).await;
        accept(&engine, tenant, claim("b")).await;
        let position = store.task_cursor(tenant).await.expect("a read").expect("a cursor");
        let balance = async |name: &str| {
            let now = scrip_server::clock::now();
            store.balance(tenant, &member(name), now, now).await.expect("a balance").available
        };
        // On PostgreSQL an event shows once no older transaction of the whole server runs.
        let give_up = Instant::now() + Duration::from_secs(60);
        while balance("b").await == 0 {
            assert!(Instant::now() < give_up, "{kind:?}: the events do not show");
            let both = tokio::join!(report_events(store, &engine, tenant), report_events(store, &engine, tenant));
            both.0.and(both.1).expect("a pass");
        }
        // The log read once more from before changes nothing.
        let now = store.task_cursor(tenant).await.expect("a read").expect("a cursor");
        store.move_task_cursor(tenant, now, position).await.expect("the cursor goes back");
        report_events(store, &engine, tenant).await.expect("a pass");
        let balances = [balance("early").await, balance("past").await, balance("a").await, balance("b").await];
        assert_eq!(balances, [0, 0, 15, 15], "{kind:?}");
        assert_sound(store, kind).await;
    }
}

/// Two edits at once, each of which alone is right, and together a circle: one of them is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_edited_at_once_never_require_each_other() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        // Two engines are two nodes: neither waits for the other but in the database.
        let engine = fixture.engine(EngineOptions::default()).await;
        let other = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let task = |requires: Vec<TaskKey>| Definition {
            name: "Task".into(),
            description: String::new(),
            points: 5,
            period: Period::Once,
            limit_per_period: 1,
            total_limit: None,
            target: 1,
            event_type: None,
            window: Window::default(),
            requires,
        };
        for round in 0..20 {
            let [left, right]: [TaskKey; 2] =
                ["left", "right"].map(|side| format!("{side}-{round}").parse().expect("a key"));
            for key in [&left, &right] {
                let definition = Box::new(task(Vec::new()));
                accept(&engine, tenant, Command::CreateTask { key: key.clone(), definition }).await;
            }
            let edit = |engine: &Engine, key: &TaskKey, required: &TaskKey| {
                let definition = task(vec![required.clone()]);
                let patch = TaskPatch { expected_version: 1, enabled: true, definition };
                let command = Command::UpdateTask { key: key.clone(), patch: Box::new(patch) };
                let engine = engine.clone();
                async move { engine.submit(envelope(tenant, command)).await }
            };
            let (first, second) = tokio::join!(edit(&engine, &left, &right), edit(&other, &right, &left));
            let answers = [first.expect("an answer"), second.expect("an answer")];
            let refused: Vec<_> = answers
                .iter()
                .filter_map(|answer| match answer {
                    Answer::Refused(rejection) => Some(rejection.code()),
                    Answer::Accepted { .. } => None,
                })
                .collect();
            assert_eq!(refused, ["POINTS_TASK_REQUIRES_ITSELF"], "{kind:?}: {answers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_to_a_merged_account_goes_on_by_itself() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let (old, new) = (member("old"), member("new"));
        accept(&engine, tenant, grant(&old, 50, Spendable::default())).await;
        let Outcome::Transaction(spent) = accept(&engine, tenant, debit(&old, 30)).await else { panic!("a line") };
        let merge = Command::Merge { from: old.clone(), into: new.clone(), remark: None };
        accept(&engine, tenant, merge).await;
        follow_merges(&fixture.store, &engine, tenant).await.expect("a pass");
        let reverse =
            Command::Reverse { member_id: old.clone(), transaction_id: spent.id, points: Some(12), remark: None };
        accept(&engine, tenant, reverse).await;
        follow_merges(&fixture.store, &engine, tenant).await.expect("a pass");
        follow_merges(&fixture.store, &engine, tenant).await.expect("a pass with nothing to do");
        let now = scrip_server::clock::now();
        let balance = fixture.store.balance(tenant, &new, now, now).await.expect("a balance");
        assert_eq!((balance.available, balance.total_points), (32, 32), "{kind:?}");
        let balance = fixture.store.balance(tenant, &old, now, now).await.expect("a balance");
        assert_eq!((balance.available, balance.merged_into), (0, Some(new)), "{kind:?}");
        assert_sound(&fixture.store, kind).await;
    }
}

/// A hold past its deadline is released in the list of all balances as it is in the member's own, swept or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_balances_show_overdue_holds_as_released() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let now = scrip_server::clock::now();
        let ago = |seconds: i64| Timestamp(now.0 - seconds * 1_000_000);
        let spendable = |end| Spendable { expires_at: end, ..Spendable::default() };
        let hold = |of: &MemberId, end| {
            let movement = Movement { points: 25, kind: TransactionType::Hold, reference: None, remark: None };
            Command::Hold { member_id: of.clone(), movement, expires_at: end }
        };
        let (overdue, other, open, indebted) = (member(1), member(2), member(3), member(4));
        let submit = async |at, command| {
            let asked = scrip_domain::Envelope { at, ..envelope(tenant, command) };
            match engine.submit(asked).await {
                Ok(Answer::Accepted { outcome, .. }) => outcome,
                other => panic!("{kind:?}: {other:?}"),
            }
        };
        // Ten of the held points are of a lot that has ended meanwhile.
        for (at, command) in [
            (ago(300), grant(&overdue, 10, spendable(Some(ago(200))))),
            (ago(299), grant(&overdue, 30, spendable(None))),
            (ago(298), hold(&overdue, Some(ago(100)))),
            (ago(300), grant(&other, 5, spendable(None))),
            (ago(300), grant(&open, 30, spendable(None))),
            (ago(298), hold(&open, None)),
        ] {
            submit(at, command).await;
        }
        // Twenty points are owed, and settled by what became available since: fifteen, and five of twelve that have ended.
        let Outcome::Transaction(earned) = submit(ago(300), grant(&indebted, 20, spendable(None))).await else {
            panic!("a line")
        };
        let undone =
            Command::Reverse { member_id: indebted.clone(), transaction_id: earned.id, points: None, remark: None };
        let later = |points, from, end| {
            grant(&indebted, points, Spendable { available_from: Some(from), expires_at: end, ..Spendable::default() })
        };
        for (at, command) in [
            (ago(299), debit(&indebted, 20)),
            (ago(298), undone),
            (ago(297), later(15, ago(100), None)),
            (ago(297), later(12, ago(90), Some(ago(50)))),
        ] {
            submit(at, command).await;
        }
        let all = async || {
            let all = fixture.store.all_balances(tenant, now, None, 10).await.expect("balances");
            let shown = |one: &StoredBalance| {
                let Account { available, frozen, expired, debt, revoked, .. } = one.account;
                [available - one.overdue, frozen, expired + one.overdue, debt, revoked]
            };
            all.iter().map(shown).collect::<Vec<_>>()
        };
        let shown = all().await;
        assert_eq!(shown, [[30, 0, 10, 0, 0], [5, 0, 0, 0, 0], [5, 25, 0, 0, 0], [0, 0, 7, 0, 20]], "{kind:?}");
        for (member, shown) in [overdue, other, open, indebted].iter().zip(shown) {
            let balance = fixture.store.balance(tenant, member, now, now).await.expect("a balance");
            let Balance { available, frozen, expired, debt, revoked, .. } = balance;
            assert_eq!([available, frozen, expired, debt, revoked], shown, "{kind:?}: {member}");
            // As what is written then says.
            submit(now, Command::SettleAccount(member.clone())).await;
            let written = fixture.store.balance(tenant, member, now, now).await.expect("a balance");
            assert_eq!(columns(&written), columns(&balance), "{kind:?}: {member}");
            let past = fixture.store.past_balance(tenant, member, now, now).await.expect("a balance");
            assert_eq!(columns(&past), columns(&balance), "{kind:?}: {member}");
        }
        assert_eq!(all().await, [[30, 0, 10, 0, 0], [5, 0, 0, 0, 0], [5, 25, 0, 0, 0], [0, 0, 7, 0, 20]], "{kind:?}");
        assert_sound(&fixture.store, kind).await;
    }
}

/// What some lines of a ledger add up to, worked out line by line.
fn replayed(lines: &[Transaction], is_wanted: impl Fn(&Transaction) -> bool) -> Posted {
    let kinds: HashMap<TransactionId, TransactionType> = lines.iter().map(|line| (line.id, line.kind)).collect();
    let (mut posted, mut frozen, mut debt) = (Posted::default(), 0, 0);
    for line in lines {
        if is_wanted(line) {
            posted.lines += 1;
            posted.available += line.balance_after - line.balance_before;
            posted.frozen += line.frozen_after - frozen;
            posted.debt += line.debt_after - debt;
            let undone = line.reverses_id.map(|id| kinds[&id]);
            match line.kind {
                TransactionType::Transfer => posted.total_points += line.points,
                kind if kind.is_earn() => posted.total_points += line.points,
                TransactionType::Expire => posted.expired -= line.points,
                TransactionType::Clawback | TransactionType::DeductAdmin => posted.revoked -= line.points,
                TransactionType::Refund if undone == Some(TransactionType::DeductAdmin) => {
                    posted.revoked -= line.points
                }
                TransactionType::Hold | TransactionType::Release => {}
                _ => posted.used -= line.points,
            }
        }
        (frozen, debt) = (line.frozen_after, line.debt_after);
    }
    posted
}

/// A long ledger in which times are out of order: commands as of earlier times, expiries that are written late, and nodes whose
/// clocks differ.
async fn disordered_ledger(store: &Store, tenant: TenantId, own: &MemberId) {
    let mut writer = store.writer().await.expect("a writer");
    let mut random = Random::new(0x57A7);
    let mut now = scrip_server::clock::now().0 - 400 * MICROS_PER_DAY;
    let mut debits: Vec<TransactionId> = Vec::new();
    for _ in 0..120 {
        let mut batch = Vec::new();
        for _ in 0..1 + random.next() % 6 {
            now += (random.next() % 7) as i64 * HOUR / 2;
            // A node whose clock is half a minute behind.
            let seen = if random.percent(20) { now - HOUR / 120 } else { now };
            let late = if random.percent(25) { (random.next() % 90) as i64 * HOUR } else { 0 };
            let (at, now) = (Timestamp(seen - late), Timestamp(seen));
            let command = match random.next() % 10 {
                0..=4 => {
                    let expires_at = Timestamp(at.0 + (20 + (random.next() % 90) as i64) * HOUR);
                    let spendable = Spendable { expires_at: Some(expires_at), ..Spendable::default() };
                    grant(own, 20 + (random.next() % 50) as i64, spendable)
                }
                5 | 6 => debit(own, 1 + (random.next() % 15) as i64),
                7 => {
                    let points = -1 - (random.next() % 9) as i64;
                    let member_id = own.clone();
                    let (reason, reference, expires_at) = ("why".into(), None, None);
                    Command::Adjust(Box::new(AdjustmentRequest { member_id, points, reason, reference, expires_at }))
                }
                8 => {
                    let movement = Movement { points: 5, kind: TransactionType::Hold, reference: None, remark: None };
                    let expires_at = Some(Timestamp(at.0 + 9 * HOUR));
                    Command::Hold { member_id: own.clone(), movement, expires_at }
                }
                _ => match debits.pop() {
                    Some(transaction_id) => {
                        Command::Reverse { member_id: own.clone(), transaction_id, points: None, remark: None }
                    }
                    None => Command::SettleAccount(own.clone()),
                },
            };
            let seed = scrip_server::clock::seed(now);
            batch.push(Envelope { at, now, seed, ..envelope(tenant, command) });
        }
        for answer in writer.run(&batch).await.expect("a batch") {
            if let Answer::Accepted { outcome: Outcome::Transaction(line), .. } = answer
                && matches!(line.kind, TransactionType::UseOrder | TransactionType::DeductAdmin)
            {
                debits.push(line.id);
            }
        }
    }
}

/// Whatever time a statement begins or ends at, by whichever time: its balances are what the lines before it add up to, and its
/// lines are those between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_of_any_period_is_what_its_lines_add_up_to() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let (store, own) = (&fixture.store, member("m-long"));
        disordered_ledger(store, tenant, &own).await;
        let sql = format!(
            "SELECT {} FROM mkt_points_transaction WHERE tenant_id = $1 AND member_id = $2 ORDER BY sequence",
            decode::TRANSACTION
        );
        let parameters = [Param::Uuid(tenant.0), Param::Text(own.as_str())];
        let lines = store.stream(&sql, &parameters, decode::transaction).await.expect("the ledger");
        assert!(lines.len() > 300, "{kind:?}: {} lines", lines.len());
        let late = lines.iter().filter(|line| line.occurred_at < line.recorded_at).count();
        assert!(late > 60 && lines.len() - late > 100, "{kind:?}: {late} late lines");
        let all = lines.len() as i64;
        let mut skipped = 0;
        for basis in LineTime::ALL {
            let time = |line: &Transaction| match basis {
                LineTime::Occurred => line.occurred_at,
                LineTime::Recorded => line.recorded_at,
            };
            let ends = [Timestamp(0), Timestamp::MAX].into_iter();
            let times = ends.chain(lines.iter().step_by(3).flat_map(|line| [time(line), Timestamp(time(line).0 + 1)]));
            let mut begins = None;
            for at in times {
                for last in [all, all * 2 / 3, 40] {
                    let place = store.ledger_place(tenant, &own, at, last).await.expect("a place");
                    let posted = store.posted_balance(tenant, &own, basis, at, place).await.expect("a balance");
                    let expected = replayed(&lines, |line| line.sequence <= last && time(line) < at);
                    assert_eq!(posted, expected, "{kind:?} {basis:?} {at:?} {last}: {place:?}");
                    if last == all {
                        skipped = skipped.max(place.before);
                    }
                }
                let end = store.ledger_place(tenant, &own, at, all).await.expect("a place");
                let (start, before) = begins.replace((at, end.before)).unwrap_or((Timestamp(0), 0));
                if start > at {
                    continue;
                }
                let (mut shown, mut after) = (Vec::new(), before);
                loop {
                    let page = store.ledger(tenant, &own, basis, (start, at), (after, end), 7).await.expect("lines");
                    let Some(line) = page.last() else { break };
                    after = line.sequence;
                    shown.extend(page.into_iter().map(|line| line.sequence));
                }
                let between = lines.iter().filter(|line| start <= time(line) && time(line) < at);
                assert_eq!(shown, between.map(|line| line.sequence).collect::<Vec<_>>(), "{kind:?} {basis:?}");
            }
        }
        assert!(skipped > all - 20, "{kind:?}: nothing before line {skipped} of {all} was added up");
        assert_sound(store, kind).await;
    }
}
