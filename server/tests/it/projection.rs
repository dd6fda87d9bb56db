//! Read models against the books they are folded from, after a random history, on both stores.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use scrip_domain::command::Movement;
use scrip_domain::points::{Spendable, TransactionType};
use scrip_domain::time::MICROS_PER_DAY;
use scrip_domain::{Answer, Command, Envelope, MemberId, TenantId, Timestamp};
use scrip_server::engine::EngineOptions;
use scrip_server::projection::{Above, FORGIVEN, Metric, POINTS, Period, board, catch_up, local_date};
use scrip_server::store::read::EventPosition;
use scrip_server::store::{Param, Store};

use crate::generate::Generator;
use crate::harness::{Fixture, KINDS, Kind, envelope, member, tenant};
use crate::model::stage;

const COMMANDS: usize = 3_000;

async fn history(store: &Store, seed: u64, commands: usize) -> Vec<TenantId> {
    let mut writer = store.writer().await.expect("a writer");
    let (mut generator, mut staged) = (Generator::new(seed), BTreeSet::new());
    for _ in 0..commands / 4 {
        let batch: Vec<Envelope> = (0..4).map(|_| generator.next()).collect();
        stage(store, &generator, &batch, &mut staged).await;
        let answers = writer.run(&batch).await.expect("the batch is decided");
        for (envelope, answer) in batch.iter().zip(&answers) {
            generator.learn(envelope, answer);
        }
    }
    store.list_tenants(None, 200).await.expect("tenants").iter().map(|tenant| tenant.id).collect()
}

/// Every member's column of an account, from the books.
async fn books(store: &Store, tenant: TenantId, column: &str) -> HashMap<MemberId, i64> {
    members(store, tenant, &format!("SELECT member_id, {column} FROM mkt_points_account WHERE tenant_id = $1")).await
}

/// What each member was granted; what members gave each other is no earning.
async fn earnings(store: &Store, tenant: TenantId) -> HashMap<MemberId, i64> {
    let sql = "SELECT member_id, CAST(sum(points) AS BIGINT) FROM mkt_points_transaction \
               WHERE tenant_id = $1 AND type IN ('EARN_ORDER', 'EARN_CHECKIN', 'EARN_TASK', 'EARN_ADMIN') GROUP BY member_id";
    members(store, tenant, sql).await
}

async fn members(store: &Store, tenant: TenantId, sql: &str) -> HashMap<MemberId, i64> {
    let rows = store.stream(sql, &[Param::Uuid(tenant.0)], |row| Ok((row.caller_id(0)?, row.int(1)?))).await;
    rows.expect("members").into_iter().collect()
}

/// Waits until every event shows: on PostgreSQL, when the older transactions of the whole server have ended.
async fn wait_for_events(store: &Store, tenant: TenantId) {
    let sql = "SELECT count(*) FROM event WHERE tenant_id = $1";
    let all = store.stream(sql, &[Param::Uuid(tenant.0)], |row| row.int(0)).await.expect("a count")[0] as usize;
    let give_up_at = Instant::now() + Duration::from_secs(60);
    loop {
        let (mut position, mut shown) = (EventPosition { tx: 0, ordinal: -1 }, 0);
        loop {
            let page = store.list_events(tenant, position, None, 1_000).await.expect("a page of events");
            let Some((last, _)) = page.events.last() else { break };
            position = *last;
            shown += page.events.len();
        }
        if shown == all || Instant::now() > give_up_at {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn check(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let store = &fixture.store;
    let tenants = history(store, 5, COMMANDS).await;
    let mut compared = 0;
    for tenant in tenants {
        wait_for_events(store, tenant).await;
        // Two nodes fold at once; then one goes on alone, and a third begins anew.
        let (first, second) = tokio::join!(catch_up(store, tenant), catch_up(store, tenant));
        first.expect("a fold");
        second.expect("a fold");
        compared += compare(store, tenant).await;
        store.forget_read_models(tenant).await.expect("a rebuild");
        catch_up(store, tenant).await.expect("a fold");
        compare(store, tenant).await;
    }
    assert!(compared > 10, "{kind:?}: there is something to compare");
}

/// Who owns the points of each merged member: itself an open account, however often they were merged on.
async fn owners(store: &Store, tenant: TenantId) -> HashMap<MemberId, MemberId> {
    let sql = "SELECT member_id, merged_into FROM mkt_points_account WHERE tenant_id = $1 AND merged_into IS NOT NULL";
    let rows = store.stream(sql, &[Param::Uuid(tenant.0)], |row| Ok((row.caller_id(0)?, row.caller_id(1)?))).await;
    let next: HashMap<MemberId, MemberId> = rows.expect("merged accounts").into_iter().collect();
    let last = |mut owner: MemberId| {
        while let Some(further) = next.get(&owner) {
            owner = further.clone();
        }
        owner
    };
    next.iter().map(|(member, into)| (member.clone(), last(into.clone()))).collect()
}

/// Compares boards and statistics with the accounts; how many members there are.
async fn compare(store: &Store, tenant: TenantId) -> usize {
    let today = jiff::civil::date(2026, 1, 1);
    let owners = owners(store, tenant).await;
    let mut earned: HashMap<MemberId, i64> = HashMap::new();
    for (member, points) in earnings(store, tenant).await {
        *earned.entry(owners.get(&member).unwrap_or(&member).clone()).or_default() += points;
    }
    let mut balances = books(store, tenant, "available").await;
    balances.retain(|member, _| !owners.contains_key(member));
    let of_metrics = [(Metric::Earned, earned), (Metric::Balance, balances)];
    for (metric, books) in of_metrics {
        let name = board(metric, Period::All, today);
        let mut expected: Vec<(MemberId, i64)> =
            books.iter().filter(|(_, score)| **score > 0).map(|(member, score)| (member.clone(), *score)).collect();
        expected.sort_by(|(a, x), (b, y)| y.cmp(x).then(a.cmp(b)));
        let shown = store.board_from(tenant, &name, None, 10_000).await.expect("a board");
        assert_eq!(shown, expected, "{name}");
        assert_eq!(store.board_members(tenant, &name).await.expect("a count"), expected.len() as i64, "{name}");
        for (member, score) in &expected {
            let above = store.members_above(tenant, &name, Above::score(*score)).await.expect("a rank");
            let higher = expected.iter().filter(|(_, other)| other > score).count();
            assert_eq!(above, higher as i64, "{name}: {member}");
        }
    }
    let totals = store.statistic_totals(tenant, POINTS).await.expect("totals");
    let of = |names: &[&str]| -> i64 {
        totals.iter().filter(|total| names.contains(&total.name.as_str())).map(|total| total.amount).sum()
    };
    let sum = |books: HashMap<MemberId, i64>| books.values().sum::<i64>();
    let earned = of(&["EARN_ORDER", "EARN_CHECKIN", "EARN_TASK", "EARN_ADMIN"]);
    assert_eq!(earned, sum(books(store, tenant, "total_points").await));
    assert_eq!(of(&["EXPIRE"]), sum(books(store, tenant, "expired").await));
    let forgiven = "SELECT member_id, CAST(sum(points_forgiven) AS BIGINT) FROM mkt_points_transaction \
                    WHERE tenant_id = $1 GROUP BY member_id";
    assert_eq!(of(&[FORGIVEN]), sum(members(store, tenant, forgiven).await));
    let templates = store.list_templates(tenant, None, None, None, None, 200).await.expect("templates");
    for template in templates {
        let totals = store.statistic_totals(tenant, &template.id.to_string()).await.expect("totals");
        let of = |name: &str| totals.iter().filter(|total| total.name == name).map(|total| total.events).sum::<i64>();
        assert_eq!(of("claimed"), template.claimed_count);
        assert_eq!(of("used") - of("returned") - of("compensation_needed"), template.used_count);
    }
    books(store, tenant, "sequence").await.len()
}

/// Complaint: reports that leave expired points out of the debits (kademi#4304), or do not show breakage (autorenta#63).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boards_and_statistics_agree_with_the_books() {
    for kind in KINDS {
        check(kind).await;
    }
}

/// A merged member's points are its owner's on every board, past periods too, and the closed account is on none; whether the fold
/// goes event by event, in pages, or anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boards_show_who_owns_the_points_after_a_merge() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let store = &fixture.store;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let day = |day: i64| Timestamp((20_000 + day) * MICROS_PER_DAY);
        let members = ["m-old", "m-mid", "m-new", "m-other"].map(member);
        let [old, mid, new, other] = &members;
        let grant = |to: &MemberId, points, reference: Option<&str>| {
            let reference = reference.map(str::to_owned);
            let movement = Movement { points, kind: TransactionType::EarnOrder, reference, remark: None };
            Command::Grant { member_id: to.clone(), movement, spendable: Spendable::default() }
        };
        let merge =
            |from: &MemberId, into: &MemberId| Command::Merge { from: from.clone(), into: into.clone(), remark: None };
        let debit = Movement { points: 15, kind: TransactionType::UseOrder, reference: None, remark: None };
        let spent = Command::Debit { member_id: old.clone(), movement: debit };
        let steps = [
            (day(0), grant(old, 40, None)),
            (day(0), grant(other, 50, None)),
            (day(1), grant(mid, 7, None)),
            (day(1), spent),
            (day(1), grant(new, 1, None)),
            (day(31), merge(old, mid)),
            (day(31), grant(mid, 5, None)),
            (day(62), merge(mid, new)),
            (day(62), grant(new, 2, None)),
        ];
        let date = |day: i64| local_date(&jiff::tz::TimeZone::UTC, Timestamp((20_000 + day) * MICROS_PER_DAY));
        let shown = async |metric, period, at: i64| {
            let name = board(metric, period, date(at));
            let rows = store.board_from(tenant, &name, None, 10).await.expect("a board");
            assert_eq!(
                store.board_members(tenant, &name).await.expect("a count"),
                rows.len() as i64,
                "{kind:?} {name}"
            );
            rows.into_iter().map(|(member, score)| (member.to_string(), score)).collect::<Vec<_>>()
        };
        let rows = |rows: &[(&MemberId, i64)]| {
            rows.iter().map(|(member, score)| (member.to_string(), *score)).collect::<Vec<_>>()
        };
        let check = async |how: &str| {
            for (metric, period, at, expected) in [
                (Metric::Earned, Period::All, 0, rows(&[(new, 55), (other, 50)])),
                (Metric::Earned, Period::Day, 0, rows(&[(other, 50), (new, 40)])),
                (Metric::Earned, Period::Day, 1, rows(&[(new, 8)])),
                (Metric::Earned, Period::Day, 31, rows(&[(new, 5)])),
                (Metric::Earned, Period::Day, 62, rows(&[(new, 2)])),
                (Metric::Balance, Period::All, 0, rows(&[(other, 50), (new, 40)])),
            ] {
                assert_eq!(shown(metric, period, at).await, expected, "{kind:?} {how}: {metric:?} {period:?} {at}");
            }
            for closed in [old, mid] {
                for name in [board(Metric::Earned, Period::All, date(0)), board(Metric::Balance, Period::All, date(0))]
                {
                    let score = store.score(tenant, &name, closed).await.expect("a score");
                    assert_eq!(score.unwrap_or(0), 0, "{kind:?} {how}: {closed} has no rank");
                }
            }
        };
        for (at, command) in steps {
            let asked = Envelope { at, ..envelope(tenant, command) };
            let answer = engine.submit(asked).await;
            assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{kind:?}: {answer:?}");
            // Each merge is folded by itself, after what it moves.
            wait_for_events(store, tenant).await;
            catch_up(store, tenant).await.expect("a fold");
        }
        check("step by step").await;
        store.forget_read_models(tenant).await.expect("a rebuild");
        catch_up(store, tenant).await.expect("a fold");
        check("in one page").await;
    }
}

/// Many merges told by one page, some of them one after the other, move what was earned on every board, and ask the store no more than
/// one merge does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_many_merges_costs_what_one_costs() {
    const DAYS: i64 = 5;
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let store = &fixture.store;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let day = |day: i64| Timestamp((20_000 + day) * MICROS_PER_DAY);
        let date = |at: i64| local_date(&jiff::tz::TimeZone::UTC, day(at));
        let submit = async |at: i64, command| {
            let answer = engine.submit(Envelope { at: day(at), ..envelope(tenant, command) }).await;
            assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{kind:?}: {answer:?}");
        };
        let mut costs = Vec::new();
        for merges in [1, 12] {
            let name = |side: &str, number: i64| member(format!("{side}-{merges}-{number}"));
            for number in 0..merges {
                for at in 0..DAYS {
                    let movement =
                        Movement { points: 10, kind: TransactionType::EarnOrder, reference: None, remark: None };
                    let grant = |member_id| {
                        let (movement, spendable) = (movement.clone(), Spendable::default());
                        Command::Grant { member_id, movement, spendable }
                    };
                    submit(at, grant(name("old", number))).await;
                    submit(at, grant(name("new", number))).await;
                }
            }
            wait_for_events(store, tenant).await;
            catch_up(store, tenant).await.expect("a fold");
            // The second half goes on to the owners of the first.
            for number in 0..merges {
                let (from, into) = (name("old", number), name("new", number));
                submit(DAYS, Command::Merge { from, into, remark: None }).await;
                if number >= 6 {
                    let (from, into) = (name("new", number), name("new", number - 6));
                    submit(DAYS, Command::Merge { from, into, remark: None }).await;
                }
            }
            wait_for_events(store, tenant).await;
            let before = store.traffic().reads.get();
            catch_up(store, tenant).await.expect("a fold");
            costs.push(store.traffic().reads.get() - before);
            for how in ["in one page", "anew"] {
                for at in 0..DAYS {
                    let board = board(Metric::Earned, Period::Day, date(at));
                    for number in 0..merges {
                        let has_gone_on = number >= 6;
                        let expected = if has_gone_on { 0 } else { 10 * if merges > 6 { 4 } else { 2 } };
                        for (side, expected) in [("old", 0), ("new", expected)] {
                            let score = store.score(tenant, &board, &name(side, number)).await.expect("a score");
                            assert_eq!(score.unwrap_or(0), expected, "{kind:?} {how}: {board} {side}-{number}");
                        }
                    }
                }
                store.forget_read_models(tenant).await.expect("a rebuild");
                catch_up(store, tenant).await.expect("a fold");
            }
        }
        assert_eq!(costs[0], costs[1], "{kind:?}: {costs:?}");
    }
}
