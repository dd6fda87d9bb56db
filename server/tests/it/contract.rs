//! What every store must do, run on each.

use scrip_domain::command::Movement;
use scrip_domain::coupon::Definition;
use scrip_domain::points::{DebtPolicy, TransactionType};
use scrip_domain::pricing::Rules;
use scrip_domain::{Answer, Command, Idempotency, MemberId, Outcome, Rejection, TenantId, Timestamp, WebhookId};
use scrip_server::engine::EngineOptions;
use scrip_server::store::{Store, StoreOptions, StoreUrl};

use crate::harness::{Fixture, KINDS, Kind, definition, envelope, member, template, tenant};
use crate::postgres;

fn movement(points: i64, kind: TransactionType) -> Movement {
    Movement { points, kind, reference: Some("o-1".into()), remark: None }
}

fn grant(member_id: &MemberId, points: i64) -> Command {
    Command::Grant {
        member_id: member_id.clone(),
        movement: movement(points, TransactionType::EarnOrder),
        spendable: Default::default(),
    }
}

fn debit(member_id: &MemberId, points: i64) -> Command {
    Command::Debit { member_id: member_id.clone(), movement: movement(points, TransactionType::UseOrder) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_members_on_a_stock_of_ten_get_exactly_ten() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let template = template(&engine, tenant, definition(), Some(10)).await;
        let claims = (0..100).map(|n| {
            let command = Command::Claim { template_id: template, member_id: member(n), member_level: None };
            engine.submit(envelope(tenant, command))
        });
        let answers = futures_util::future::join_all(claims).await;
        let accepted = answers.iter().filter(|answer| matches!(answer, Ok(Answer::Accepted { .. }))).count();
        let sold_out = |answer: &&Result<Answer, _>| matches!(answer, Ok(Answer::Refused(Rejection::SoldOut { .. })));
        assert_eq!((accepted, answers.iter().filter(sold_out).count()), (10, 90), "{kind:?}");
        let found = fixture.store.find_template(tenant, template).await.unwrap().unwrap();
        assert_eq!((found.remaining_stock, found.claimed_count), (Some(0), 10), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_exchanges_for_a_stock_of_ten_are_ten_coupons_and_ten_debits() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let priced = Definition { points_price: Some(30), limit_per_member: 4, ..definition() };
        let template_id = template(&engine, tenant, priced, Some(10)).await;
        // Each of 16 members asks four times, and has points for three.
        for n in 0..16 {
            engine.submit(envelope(tenant, grant(&member(n), 100))).await.expect("an answer");
        }
        let asked = (0..64).map(|n| {
            let command = Command::Exchange { template_id, member_id: member(n % 16), member_level: None };
            engine.submit(envelope(tenant, command))
        });
        let mut told = std::collections::BTreeMap::new();
        for answer in futures_util::future::join_all(asked).await {
            let name = match answer.expect("an answer") {
                Answer::Accepted { .. } => "made",
                Answer::Refused(rejection) => rejection.code(),
            };
            *told.entry(name).or_insert(0) += 1;
        }
        assert_eq!(told.get("made"), Some(&10), "{kind:?}: {told:?}");
        assert_eq!(told.values().sum::<i32>(), 64, "{kind:?}: {told:?}");
        let count = async |sql: &str| fixture.store.stream(sql, &[], |row| row.int(0)).await.expect("a count")[0];
        let coupons = count("SELECT count(*) FROM mkt_user_coupon WHERE source = 'EXCHANGE'").await;
        let debits =
            count("SELECT count(*) FROM mkt_points_transaction WHERE type = 'USE_COUPON' AND points = -30").await;
        let used = count("SELECT CAST(sum(used) AS BIGINT) FROM mkt_points_account").await;
        assert_eq!((coupons, debits, used), (10, 10, 300), "{kind:?}");
        let report = scrip_server::verify::verify(&fixture.store, None, |_, _, _| {}).await.expect("verify runs");
        let broken: Vec<_> = report.checks.iter().filter(|check| !check.is_clean()).collect();
        assert!(broken.is_empty(), "{kind:?}: {broken:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_debits_of_ten_from_a_thousand_points_leave_nothing_and_owe_nothing() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let alice = member("alice");
        engine.submit(envelope(tenant, grant(&alice, 1_000))).await.unwrap();
        let debits = (0..1_000).map(|_| engine.submit(envelope(tenant, debit(&alice, 10))));
        let answers = futures_util::future::join_all(debits).await;
        let accepted = answers.iter().filter(|answer| matches!(answer, Ok(Answer::Accepted { .. }))).count();
        assert_eq!(accepted, 100, "{kind:?}");
        let now = scrip_server::clock::now();
        let balance = fixture.store.balance(tenant, &alice, now, now).await.unwrap();
        assert_eq!((balance.available, balance.used, balance.total_points), (0, 1_000, 1_000), "{kind:?}");
        let ledger = fixture.store.list_transactions(tenant, &alice, None, None, 200).await.unwrap();
        assert_eq!(ledger.len(), 101, "{kind:?}");
        assert_eq!(ledger[0].sequence, 101, "newest first, {kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_gets_the_first_answer_and_another_request_with_the_key_is_refused() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let bob = member("bob");
        let mut first = envelope(tenant, grant(&bob, 5));
        first.idempotency = Some(Idempotency { key: [1; 16], fingerprint: [2; 16] });
        let Ok(Answer::Accepted { outcome, replayed: false }) = engine.submit(first.clone()).await else {
            panic!("{kind:?}: the first request is accepted")
        };
        let mut again = envelope(tenant, grant(&bob, 5));
        again.idempotency = first.idempotency;
        assert_eq!(engine.submit(again.clone()).await, Ok(Answer::Accepted { outcome, replayed: true }), "{kind:?}");
        again.idempotency = Some(Idempotency { key: [1; 16], fingerprint: [3; 16] });
        assert_eq!(engine.submit(again).await, Ok(Answer::Refused(Rejection::IdempotencyKeyReused)), "{kind:?}");
        let now = scrip_server::clock::now();
        assert_eq!(fixture.store.balance(tenant, &bob, now, now).await.unwrap().total_points, 5, "{kind:?}");
    }
}

/// Complaint: a redemption out of thousands of lots (ProgrammerZamanNow/qna#983).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_reversals_and_many_lots_survive_the_store() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let carol = member("carol");
        // More lots than a batch loads at first.
        let grants = (0..600).map(|_| envelope(tenant, grant(&carol, 1))).collect();
        assert!(engine.submit_all(grants).await.iter().all(Result::is_ok), "{kind:?}");
        let answer = engine.submit(envelope(tenant, debit(&carol, 500))).await;
        let Ok(Answer::Accepted { outcome: Outcome::Transaction(spent), .. }) = answer else {
            panic!("{kind:?}: {answer:?}")
        };
        assert_eq!(spent.allocations.len(), 500, "{kind:?}");
        let hold =
            Command::Hold { member_id: carol.clone(), movement: movement(60, TransactionType::Hold), expires_at: None };
        let answer = engine.submit(envelope(tenant, hold)).await;
        let Ok(Answer::Accepted { outcome: Outcome::Hold { hold, available: 40, .. }, .. }) = answer else {
            panic!("{kind:?}: {answer:?}")
        };
        let capture = Command::CaptureHold { member_id: carol.clone(), hold_id: hold.id, points: Some(45) };
        let answer = engine.submit(envelope(tenant, capture)).await;
        assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{kind:?}: {answer:?}");
        let reverse =
            |points| Command::Reverse { member_id: carol.clone(), transaction_id: spent.id, points, remark: None };
        let answer = engine.submit(envelope(tenant, reverse(Some(200)))).await;
        assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{kind:?}: {answer:?}");
        let answer = engine.submit(envelope(tenant, reverse(Some(301)))).await;
        assert_eq!(answer, Ok(Answer::Refused(Rejection::ReversalExceeds { left: 300 })), "{kind:?}");
        let now = scrip_server::clock::now();
        let balance = fixture.store.balance(tenant, &carol, now, now).await.unwrap();
        assert_eq!((balance.available, balance.frozen, balance.used), (255, 0, 345), "{kind:?}");
        let stored = fixture.store.find_hold(tenant, hold.id).await.unwrap().unwrap();
        assert_eq!((stored.captured, stored.released), (45, 15), "{kind:?}");
    }
}

/// Odd parts of a grant taken back at once, of which the member has spent most: each point is taken once or forgiven once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claw_backs_at_once_take_or_forgive_every_point_once() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let dave = member("dave");
        let mut rules = Rules::default();
        rules.points.debt_policy = DebtPolicy::Forgive;
        let rules = Command::SetRules { expected_version: 0, rules: Box::new(rules), effective_from: None };
        engine.submit(envelope(tenant, rules)).await.expect("an answer");
        let answer = engine.submit(envelope(tenant, grant(&dave, 640))).await;
        let Ok(Answer::Accepted { outcome: Outcome::Transaction(granted), .. }) = answer else {
            panic!("{kind:?}: {answer:?}")
        };
        engine.submit(envelope(tenant, debit(&dave, 605))).await.expect("an answer");
        let reversals = (0..64).map(|_| {
            let (member_id, points) = (dave.clone(), Some(11));
            let reverse = Command::Reverse { member_id, transaction_id: granted.id, points, remark: None };
            engine.submit(envelope(tenant, reverse))
        });
        let (mut taken, mut forgiven, mut refused) = (0, 0, 0);
        for answer in futures_util::future::join_all(reversals).await {
            match answer {
                Ok(Answer::Accepted { outcome: Outcome::Transaction(line), .. }) => {
                    assert_eq!((line.debt_after, line.rules_version), (0, Some(1)), "{kind:?}: {line:?}");
                    let stored = fixture.store.find_transaction(tenant, line.id).await.unwrap().unwrap();
                    assert_eq!(*line, stored, "{kind:?}");
                    taken -= line.points;
                    forgiven += line.points_forgiven;
                }
                Ok(Answer::Refused(Rejection::ReversalExceeds { left: 2 })) => refused += 1,
                other => panic!("{kind:?}: {other:?}"),
            }
        }
        assert_eq!((taken, forgiven, refused), (35, 603, 6), "{kind:?}");
        let now = scrip_server::clock::now();
        let balance = fixture.store.balance(tenant, &dave, now, now).await.unwrap();
        assert_eq!((balance.available, balance.used, balance.revoked, balance.debt), (0, 605, 35, 0), "{kind:?}");
        let report = scrip_server::verify::verify(&fixture.store, None, |_, _, _| {}).await.expect("verify runs");
        assert!(report.is_clean(), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_goes_through_its_life_and_every_step_is_an_event() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let template = template(&engine, tenant, definition(), None).await;
        let dora = member("dora");
        let claim = Command::Claim { template_id: template, member_id: dora.clone(), member_level: None };
        let answer = engine.submit(envelope(tenant, claim)).await;
        let Ok(Answer::Accepted { outcome: Outcome::Coupon(coupon), .. }) = answer else {
            panic!("{kind:?}: {answer:?}")
        };
        let order = || "o-1".parse().unwrap();
        let steps = [
            Command::LockCoupon { coupon_id: coupon.id, order_id: order(), expires_at: None },
            Command::UseCoupon { coupon_id: coupon.id, order_id: order(), discount_amount: Some(2_000) },
            Command::ReturnCoupon { coupon_id: coupon.id, template_id: template, order_id: order() },
            Command::RevokeCoupon { coupon_id: coupon.id, reason: "test".into() },
        ];
        for step in steps {
            let answer = engine.submit(envelope(tenant, step)).await;
            assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{kind:?}: {answer:?}");
        }
        let expected = [
            "coupon_template.created",
            "coupon.claimed",
            "coupon.locked",
            "coupon.used",
            "coupon.returned",
            "coupon.revoked",
        ];
        let events = fixture.first_events(tenant, expected.len()).await;
        let names: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(names, expected, "{kind:?}");
        assert_eq!(fixture.store.find_template(tenant, template).await.unwrap().unwrap().used_count, 0, "{kind:?}");
        let listed =
            fixture.store.list_coupons(tenant, &dora, None, None, scrip_server::clock::now(), None, 10).await.unwrap();
        assert_eq!(listed.len(), 1, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_asked_at_once_share_statements_and_each_gets_its_own_rows() {
    const MEMBERS: usize = 300;
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let template_id = template(&engine, tenant, Definition { limit_per_member: 3, ..definition() }, None).await;
        let grants = (0..MEMBERS).map(|number| envelope(tenant, grant(&member(number), number as i64 + 1)));
        let claims = (0..MEMBERS).flat_map(|number| {
            let claim = move |_| Command::Claim { template_id, member_id: member(number), member_level: None };
            (0..number % 4).map(claim).map(|command| envelope(tenant, command))
        });
        for answer in engine.submit_all(grants.chain(claims).collect()).await {
            assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{kind:?}: {answer:?}");
        }
        let store = &fixture.store;
        let now = scrip_server::clock::now();
        let all_at_once = async || {
            let asked = (0..MEMBERS).map(async |number| {
                let id = member(number);
                let (balance, coupons, found) = tokio::join!(
                    store.balance(tenant, &id, now, now),
                    store.list_coupons(tenant, &id, None, None, now, None, 2),
                    store.find_template(tenant, template_id),
                );
                assert_eq!(balance.expect("a balance").available, number as i64 + 1, "{kind:?}");
                let coupons = coupons.expect("coupons");
                assert_eq!(coupons.len(), (number % 4).min(2), "{kind:?}: as many as there are, at most the limit");
                assert!(coupons.iter().all(|coupon| coupon.member_id == id), "{kind:?}: of nobody else");
                assert!(coupons.is_sorted_by(|one, next| one.id > next.id), "{kind:?}: newest first");
                assert_eq!(found.expect("a look-up").map(|found| found.id), Some(template_id), "{kind:?}");
            });
            futures_util::future::join_all(asked).await;
        };
        all_at_once().await;
        let StoreUrl::Postgres(url) = &fixture.url else { continue };
        let mut statements = u64::MAX;
        // The first reads are asked by themselves while they open the connections.
        for _ in 0..20 {
            let before = store.traffic().reads.get();
            all_at_once().await;
            statements = statements.min(store.traffic().reads.get() - before);
        }
        assert!(
            statements <= 3 * MEMBERS as u64 / 10,
            "{statements} statements for {MEMBERS} callers' three reads each"
        );
        // Connections that break cost no read.
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                         WHERE datname = current_database() AND pid <> pg_backend_pid()";
        postgres::connect(url).await.query(terminate, &[]).await.expect("backends end");
        store.balance(tenant, &member("nobody"), now, now).await.expect("another connection is asked");
        all_at_once().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_learned_in_one_go_and_remembered() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let mut versions = Vec::new();
        for _ in 0..5 {
            versions.push((template(&engine, tenant, definition(), None).await, 1));
        }
        // Another process knows none of them yet.
        let other = Store::open(&StoreOptions::new(fixture.url.clone())).await.unwrap();
        other.learn_definitions(tenant, versions.iter().copied()).await.unwrap();
        for (template, version) in versions {
            let known = other.definitions().get(tenant, template, version);
            assert_eq!(known.as_deref(), Some(&definition()), "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_is_deleted_in_pages_and_nothing_else() {
    let tenant = TenantId(uuid::Uuid::from_u128(7));
    let webhook = WebhookId(uuid::Uuid::from_u128(8));
    // The first 48 bits of a delivery's id are its time.
    let delivery_at = |ms: u128, number: u128| uuid::Uuid::from_u128((ms << 80) | number);
    let (records, deliveries) = ([1, 2, 2, 3, 9], [(1, 1), (1, 2), (2, 1), (3, 1), (9, 1)]);
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let id = |id: uuid::Uuid| match kind {
            Kind::Sqlite => format!("x'{}'", id.simple()),
            Kind::Postgres => format!("'{id}'"),
        };
        let key = |number: usize| match kind {
            Kind::Sqlite => format!("x'0{number}'"),
            Kind::Postgres => format!("'\\x0{number}'"),
        };
        let (of_tenant, of_webhook) = (id(tenant.0), id(webhook.0));
        let mut rows = String::new();
        for (number, ms) in records.into_iter().enumerate() {
            let (key, at) = (key(number), ms * 1_000);
            rows.push_str(&format!("INSERT INTO idempotency VALUES ({of_tenant}, {key}, {key}, '', {at});"));
        }
        for (ms, number) in deliveries {
            let id = id(delivery_at(ms, number));
            rows.push_str(&format!(
                "INSERT INTO webhook_delivery SELECT {of_tenant}, {of_webhook}, {id}, 'EVENT', {id}, 'coupon.claimed', 1, 0, 1, \
                 1 < 0, NULL, NULL, '', 1, 0;"
            ));
        }
        match &fixture.url {
            StoreUrl::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).expect("the store opens");
                connection.execute_batch("PRAGMA foreign_keys = off").expect("foreign keys rest");
                connection.execute_batch(&rows).expect("the rows are there");
            }
            StoreUrl::Postgres(url) => {
                let client = postgres::connect(url).await;
                client.batch_execute("SET session_replication_role = replica").await.expect("foreign keys rest");
                client.batch_execute(&rows).await.expect("the rows are there");
            }
        }
        let before = Timestamp(5_000);
        let (mut purged, mut deleted) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            purged.push(fixture.store.purge_idempotency(tenant, before, 2).await.expect("a page of records"));
            deleted
                .push(fixture.store.purge_deliveries(tenant, webhook, before, 2).await.expect("a page of deliveries"));
        }
        assert_eq!(purged, [3, 1, 0], "{kind:?}: those of one instant go together");
        assert_eq!(deleted, [2, 2, 0], "{kind:?}");
        let ever = Timestamp(1_000_000);
        let rest = (
            fixture.store.purge_idempotency(tenant, ever, 2).await.expect("the rest"),
            fixture.store.purge_deliveries(tenant, webhook, ever, 2).await.expect("the rest"),
        );
        assert_eq!(rest, (1, 1), "{kind:?}: what was not old was still there");
        // Without end: what the deletion of a webhook asks for.
        assert_eq!(
            fixture.store.purge_deliveries(tenant, webhook, Timestamp::MAX, 2).await.expect("none"),
            0,
            "{kind:?}"
        );
    }
}
