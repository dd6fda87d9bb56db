//! How many statements each path costs, counted by the store itself: a number that does not grow with the rows shown, nor, on
//! PostgreSQL, with the size of a batch. A path that begins to ask once for each row fails here.
//!
//! `cargo test -p scrip-server --test it -- --nocapture statements` prints the tables of docs/PERFORMANCE.md.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use scrip_domain::command::Movement;
use scrip_domain::order::{RefundRequest, Reservation};
use scrip_domain::points::TransactionType;
use scrip_domain::pricing::{Attributes, Basket, Line, Rules};
use scrip_domain::task;
use scrip_domain::time::{Calendar, LocalTime, MICROS_PER_DAY};
use scrip_domain::{
    Answer, Command, CouponId, Day, Envelope, HoldId, Idempotency, OrderId, Outcome, TenantId, Timestamp, TransactionId,
};
use scrip_server::app::App;
use scrip_server::config::Settings;
use scrip_server::engine::EngineOptions;
use scrip_server::export::{Reader, What};
use scrip_server::store::read::LineTime;
use scrip_server::store::{Store, Traffic, Writer};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::harness::{Fixture, KINDS, Kind, address_of, definition, envelope, member, template, tenant};

const PLATFORM_KEY: &str = "a-platform-key-for-tests";
const ROWS: usize = 200;
const BATCH: usize = 500;
const REPORT_WITH_PREREQUISITES: &str = "report a task that requires two others";

/// What was asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    reads: u64,
    writes: u64,
    round_trips: u64,
}

impl Asked {
    fn so_far(traffic: &Traffic) -> Asked {
        let Traffic { reads, writes, round_trips, .. } = traffic;
        Asked { reads: reads.get(), writes: writes.get(), round_trips: round_trips.get() }
    }

    fn since(self, traffic: &Traffic) -> Asked {
        let now = Asked::so_far(traffic);
        Asked {
            reads: now.reads - self.reads,
            writes: now.writes - self.writes,
            round_trips: now.round_trips - self.round_trips,
        }
    }

    fn statements(self) -> u64 {
        self.reads + self.writes
    }
}

/// A server without a network.
struct Server {
    app: App,
    router: Router,
}

impl Server {
    async fn start(fixture: &Fixture) -> Server {
        let mut settings = Settings::load(None).expect("the defaults");
        settings.store.url = address_of(&fixture.url);
        settings.engine.lanes = 1;
        // What the background asks would be counted as well.
        settings.jobs.concurrency = 0;
        settings.webhooks.poll_ms = 0;
        settings.projection.interval_ms = 0;
        let app = App::start(&settings, Some(PLATFORM_KEY)).await.expect("the server starts");
        let router = scrip_server::http::router(app.state());
        Server { app, router }
    }

    async fn ask(&self, key: &str, method: &str, path: &str, kind: &str, body: String) -> Vec<Value> {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        let request = match body.as_str() {
            "" => request.body(Body::empty()),
            _ => request.header("content-type", kind).body(Body::from(body)),
        };
        let response = self.router.clone().oneshot(request.expect("a request")).await.expect("an answer");
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        let text = String::from_utf8_lossy(&body);
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    async fn get(&self, key: &str, path: &str) -> Value {
        self.ask(key, "GET", path, "", String::new()).await.remove(0)
    }

    async fn post(&self, key: &str, path: &str, body: &Value) -> Value {
        self.ask(key, "POST", path, "application/json", body.to_string()).await.remove(0)
    }

    /// Every line must be accepted.
    async fn batch(&self, key: &str, lines: impl IntoIterator<Item = Value>) -> Vec<Value> {
        let text = lines.into_iter().map(|line| line.to_string()).collect::<Vec<_>>().join("\n");
        let answers = self.ask(key, "POST", "/v1/batch", "application/x-ndjson", text).await;
        assert!(answers.iter().all(|answer| answer["status"] == 201 || answer["status"] == 200), "{answers:?}");
        answers
    }

    /// The least of some attempts: the caller's key is looked up anew every few seconds, and what else begins beside one of them
    /// is counted as well.
    async fn cost(&self, key: &str, path: &str) -> Asked {
        let mut least = None;
        for _ in 0..10 {
            let before = Asked::so_far(self.app.store.traffic());
            self.get(key, path).await;
            let asked = before.since(self.app.store.traffic());
            least = Some(least.map_or(asked, |least: Asked| least.min(asked)));
        }
        least.expect("an attempt")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_costs_the_same_for_one_row_and_for_two_hundred() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let server = Server::start(&fixture).await;
        let tenant = server.post(PLATFORM_KEY, "/v1/tenants", &json!({ "name": "Shop" })).await;
        let tenant = tenant["id"].as_str().expect("an id").to_owned();
        let keys = format!("/v1/tenants/{tenant}/api-keys");
        let operator = json!({ "name": "k", "scope": "OPERATOR" });
        let key = server.post(PLATFORM_KEY, &keys, &operator).await["secret"].as_str().expect("a secret").to_owned();
        for _ in 0..3 {
            server.post(PLATFORM_KEY, &keys, &operator).await;
            server.post(PLATFORM_KEY, "/v1/tenants", &json!({ "name": "Another" })).await;
        }
        for number in 0..20 {
            server.post(&key, "/v1/programs", &json!({ "code": format!("P-{number}"), "name": "n" })).await;
        }
        // A coupon of each of many templates, so that a page of coupons needs as many definitions.
        let body = json!({ "name": "t", "benefit": { "type": "AMOUNT_OFF", "amount": 1 },
                           "validity": { "type": "RELATIVE", "days": 30 } });
        let mut templates = Vec::new();
        for _ in 0..ROWS {
            let made = server.post(&key, "/v1/coupon-templates", &body).await;
            templates.push(made["id"].as_str().expect("an id").to_owned());
        }
        let claim =
            |member: &str, template: &String| json!({ "op": "claim", "member_id": member, "template_id": template });
        let coupons = server.batch(&key, templates.iter().map(|template| claim("many", template))).await;
        server.batch(&key, [claim("one", &templates[0])]).await;
        let grant = |member| json!({ "op": "grant", "member_id": member, "points": 1 });
        let grants = server.batch(&key, (0..ROWS).map(|_| grant("many"))).await;
        server.batch(&key, [grant("one")]).await;
        let hold = server.batch(&key, [json!({ "op": "hold", "member_id": "many", "points": 3 })]).await;
        let id = |answer: &Value| answer["body"]["id"].as_str().expect("an id").to_owned();

        let few_and_many = [
            ("list coupon templates", key.as_str(), "/v1/coupon-templates?limit=1", "/v1/coupon-templates?limit=200"),
            ("list a member's coupons", &key, "/v1/members/one/coupons", "/v1/members/many/coupons?limit=200"),
            ("balance", &key, "/v1/members/one/points", "/v1/members/many/points"),
            ("wallets", &key, "/v1/members/one/wallets", "/v1/members/many/wallets"),
            ("list programs", &key, "/v1/programs?limit=1", "/v1/programs?limit=200"),
            (
                "list transactions",
                &key,
                "/v1/members/one/points/transactions",
                "/v1/members/many/points/transactions?limit=200",
            ),
            ("list lots", &key, "/v1/members/one/points/lots", "/v1/members/many/points/lots?limit=200"),
            ("list events", &key, "/v1/events?limit=1", "/v1/events?limit=200"),
            ("list tenants", PLATFORM_KEY, "/v1/tenants?limit=1", "/v1/tenants?limit=200"),
            ("list API keys", PLATFORM_KEY, &format!("{keys}?limit=1"), &format!("{keys}?limit=200")),
        ];
        for (name, key, few, many) in few_and_many {
            let (few, many) = (server.cost(key, few).await, server.cost(key, many).await);
            println!("{kind:?}: {name}: {few:?}");
            assert_eq!((few.reads, few.writes), (1, 0), "{kind:?}: {name}");
            assert_eq!(few, many, "{kind:?}: {name}");
        }
        // Tasks and what they require: one statement for the page, and one for all that is required on it.
        for number in 0..30 {
            let requires: Vec<String> = (0..10).map(|one| format!("z-{one}")).filter(|_| number >= 10).collect();
            let name = if number < 10 { format!("z-{number}") } else { format!("task-{number}") };
            let task = json!({ "key": name, "name": "t", "points": 1, "requires": requires });
            server.post(&key, "/v1/points-tasks", &task).await;
        }
        let of_member = |limit: usize| format!("/v1/members/one/tasks?limit={limit}");
        let (few, many) = (server.cost(&key, &of_member(1)).await, server.cost(&key, &of_member(200)).await);
        assert_eq!((few.reads, few.writes, few), (2, 0, many), "{kind:?}: a member's tasks");

        let single = [
            ("a coupon template", format!("/v1/coupon-templates/{}", templates[0])),
            ("a coupon", format!("/v1/coupons/{}", id(&coupons[0]))),
            ("a transaction", format!("/v1/points-transactions/{}", id(&grants[0]))),
            ("a hold", format!("/v1/points-holds/{}", id(&hold[0]))),
        ];
        for (name, path) in single {
            let asked = server.cost(&key, &path).await;
            assert_eq!((asked.reads, asked.writes), (1, 0), "{kind:?}: {name}");
        }

        // Another process knows no definition yet, and no key.
        if kind == Kind::Postgres {
            let server = Server::start(&fixture).await;
            let before = Asked::so_far(server.app.store.traffic());
            server.get(&key, "/v1/members/many/coupons?limit=200").await;
            let asked = before.since(server.app.store.traffic());
            assert_eq!(asked.reads, 3, "the key, the page, and all its definitions at once");
        }
    }
}

/// peers 5.1, counts that grow with the shop (solidus#600: an outage; solidus#419: 500 ms at 700,000 promotions): a quote asks for
/// what the basket and the wallet name, never for templates. The rules, the coupons, and the balance when points are to pay: for
/// one coupon as for twenty, and for a wallet of 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quote_costs_the_same_for_one_coupon_and_for_many() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let server = Server::start(&fixture).await;
        let tenant = server.post(PLATFORM_KEY, "/v1/tenants", &json!({ "name": "Shop" })).await;
        let keys = format!("/v1/tenants/{}/api-keys", tenant["id"].as_str().expect("an id"));
        let operator = json!({ "name": "k", "scope": "OPERATOR" });
        let key = server.post(PLATFORM_KEY, &keys, &operator).await["secret"].as_str().expect("a secret").to_owned();
        let body = json!({ "name": "t", "benefit": { "type": "AMOUNT_OFF", "amount": 1 }, "stacking": "STACKABLE",
                           "validity": { "type": "RELATIVE", "days": 30 } });
        let mut templates = Vec::new();
        for _ in 0..ROWS {
            let made = server.post(&key, "/v1/coupon-templates", &body).await;
            templates.push(made["id"].as_str().expect("an id").to_owned());
        }
        let claim =
            |member: &str, template: &String| json!({ "op": "claim", "member_id": member, "template_id": template });
        let coupons = server.batch(&key, templates.iter().map(|template| claim("many", template))).await;
        let ids: Vec<&Value> = coupons.iter().map(|answer| &answer["body"]["id"]).collect();
        server.batch(&key, [json!({ "op": "grant", "member_id": "many", "points": 500 })]).await;
        let lines: Vec<Value> = (0..20)
            .map(|n| json!({ "item_id": format!("{n}"), "product_id": "p", "unit_price": 999, "quantity": 2 }))
            .collect();
        let cost = async |more: Value| {
            let mut asked = json!({ "member_id": "many", "lines": lines });
            for (name, value) in more.as_object().expect("an object") {
                asked[name] = value.clone();
            }
            let mut least = None;
            for _ in 0..3 {
                let before = Asked::so_far(server.app.store.traffic());
                server.post(&key, "/v1/quotes", &asked).await;
                let cost = before.since(server.app.store.traffic());
                least = Some(least.map_or(cost, |least: Asked| least.min(cost)));
            }
            let asked = least.expect("an attempt");
            assert_eq!(asked.writes, 0, "a quote writes nothing");
            asked.reads
        };
        // The embedded store has no round trips to save: it looks up coupon by coupon.
        let (one, twenty) = if kind == Kind::Postgres { (1, 1) } else { (1, 20) };
        assert_eq!(cost(json!({})).await, 1, "{kind:?}: the rules");
        assert_eq!(cost(json!({ "coupon_ids": ids[..1] })).await, 1 + one, "{kind:?}: and a coupon");
        assert_eq!(cost(json!({ "coupon_ids": ids[..20] })).await, 1 + twenty, "{kind:?}: and 20 coupons");
        assert_eq!(cost(json!({ "points": 100 })).await, 2, "{kind:?}: and the balance");
        assert_eq!(cost(json!({ "best": true, "points": 100 })).await, 3, "{kind:?}: and a wallet of {ROWS}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_shows_in_the_metrics() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let server = Server::start(&fixture).await;
        server.post(PLATFORM_KEY, "/v1/tenants", &json!({ "name": "Shop" })).await;
        let request = Request::get("/metrics").body(Body::empty()).expect("a request");
        let response = server.router.clone().oneshot(request).await.expect("an answer");
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        let text = String::from_utf8_lossy(&body);
        let asked = Asked::so_far(server.app.store.traffic());
        let store = server.app.store.kind();
        for (name, value) in [
            (format!("scrip_store_statements_total{{kind=\"read\",store=\"{store}\"}}"), asked.reads),
            (format!("scrip_store_statements_total{{kind=\"write\",store=\"{store}\"}}"), asked.writes),
            (format!("scrip_store_round_trips_total{{store=\"{store}\"}}"), asked.round_trips),
        ] {
            assert!(text.contains(&format!("{name} {value}\n")), "{name} {value} is not in\n{text}");
        }
        assert!(asked.reads > 0 && asked.writes > 0, "{kind:?}: {asked:?}");
    }
}

/// Runs batches and counts what they ask.
struct Batches {
    store: Store,
    writer: Writer,
    tenant: TenantId,
    next_key: u128,
}

impl Batches {
    /// Each command must be accepted.
    async fn run(&mut self, commands: Vec<Command>) -> (Vec<Outcome>, Asked) {
        let batch: Vec<Envelope> = commands.into_iter().map(|command| self.keyed(command)).collect();
        let before = Asked::so_far(self.store.traffic());
        let answers = self.writer.run(&batch).await.expect("a batch");
        let asked = before.since(self.store.traffic());
        let outcome = |answer| match answer {
            Answer::Accepted { outcome, .. } => outcome,
            Answer::Refused(rejection) => panic!("{rejection:?}"),
        };
        (answers.into_iter().map(outcome).collect(), asked)
    }

    fn keyed(&mut self, command: Command) -> Envelope {
        self.next_key += 1;
        let idempotency = Some(Idempotency { key: self.next_key.to_be_bytes(), fingerprint: [0; 16] });
        Envelope { idempotency, ..envelope(self.tenant, command) }
    }
}

/// An export of a day begins at the day, and has what was reported late; a statement's opening balance begins at a milestone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_and_a_statement_of_a_day_read_nothing_before_it() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let now = scrip_server::clock::now();
        let (then, hour) = (Timestamp(now.0 - 10 * MICROS_PER_DAY), MICROS_PER_DAY / 24);
        let own = member("long");
        let grant = |(at, now): (Timestamp, Timestamp)| {
            let movement = Movement { points: 1, kind: TransactionType::EarnOrder, reference: None, remark: None };
            let command = Command::Grant { member_id: own.clone(), movement, spendable: Default::default() };
            Envelope { at, now, seed: scrip_server::clock::seed(now), ..envelope(tenant, command) }
        };
        let mut writer = fixture.store.writer().await.expect("a writer");
        for _ in 0..5 {
            let batch: Vec<Envelope> = (0..BATCH).map(|_| grant((then, then))).collect();
            writer.run(&batch).await.expect("a batch");
        }
        let today = [grant((now, now)), grant((then, now)), grant((now, now))];
        writer.run(&today).await.expect("a batch");
        for (day, rows, reads) in [(then, 5 * BATCH + 1, 3), (now, 2, 1)] {
            let (from, until) = (Some(Timestamp(day.0 - hour)), Some(Timestamp(day.0 + hour)));
            let what = What::PointsTransactions { kind: None, from, until };
            let before = Asked::so_far(fixture.store.traffic());
            let mut reader = Reader::new(fixture.store.clone(), tenant, what);
            let mut found = 0;
            while let Some(page) = reader.next().await.expect("a page") {
                found += page.len();
            }
            let asked = before.since(fixture.store.traffic());
            assert_eq!((found, asked.reads), (rows, reads), "{kind:?}");
        }
        let (store, begins) = (&fixture.store, Timestamp(now.0 - hour));
        let before = Asked::so_far(store.traffic());
        let last = store.last_sequence(tenant, &own).await.expect("a number");
        let place = store.ledger_place(tenant, &own, begins, last).await.expect("a place");
        let opening = store.posted_balance(tenant, &own, LineTime::Occurred, begins, place).await.expect("a balance");
        assert_eq!(before.since(store.traffic()).reads, 4, "{kind:?}: the end, the place, the milestone, what follows");
        assert_eq!((place.before, place.until), (5 * BATCH as i64, 5 * BATCH as i64), "{kind:?}");
        assert_eq!((opening.lines, opening.available), (5 * BATCH as i64 + 1, 5 * BATCH as i64 + 1), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_five_hundred_costs_what_one_costs_on_postgres_and_five_hundred_times_that_at_most_on_sqlite() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let template_id = template(&engine, tenant, definition(), Some(10_000)).await;
        drop(engine);
        let (store, writer) = (fixture.store.clone(), fixture.store.writer().await.expect("a writer"));
        let mut batches = Batches { store, writer, tenant, next_key: 0 };

        let movement = |points, kind| Movement { points, kind, reference: None, remark: None };
        let claim = |n: usize| Command::Claim { template_id, member_id: member(n), member_level: None };
        let grant = |n: usize| Command::Grant {
            member_id: member(n),
            movement: movement(100, TransactionType::EarnOrder),
            spendable: Default::default(),
        };
        let debit =
            |n: usize| Command::Debit { member_id: member(n), movement: movement(10, TransactionType::UseOrder) };
        let hold = |n: usize| Command::Hold {
            member_id: member(n),
            movement: movement(10, TransactionType::Hold),
            expires_at: None,
        };
        // The first batch of a process learns the definition; the first of a member makes its account.
        batches.run(vec![claim(0)]).await;

        let mut rows = Vec::new();
        let mut compare = async |batches: &mut Batches, name, commands: Vec<Command>| {
            assert_eq!(commands.len(), BATCH + 1);
            let mut commands = commands.into_iter();
            let (mut outcomes, one) = batches.run(commands.by_ref().take(1).collect()).await;
            let (rest, all) = batches.run(commands.collect()).await;
            outcomes.extend(rest);
            rows.push((name, one, all));
            outcomes
        };
        let members = || 1..=BATCH + 1;
        // Daily cap and budget stand in the template's own row: nothing more is asked, once the day has begun.
        let limited = scrip_domain::coupon::Definition {
            daily_cap: Some(1_000_000),
            weekly_cap: Some(1_000_000),
            monthly_cap: Some(1_000_000),
            budget: Some(1_000_000_000),
            ..definition()
        };
        let create = Command::CreateTemplate { definition: Box::new(limited), total_stock: Some(10_000) };
        let (made, _) = batches.run(vec![create]).await;
        let Outcome::Template(limited) = &made[0] else { panic!("no template: {made:?}") };
        let limited = limited.id;
        let claim_limited =
            |n: usize| Command::Claim { template_id: limited, member_id: member(n), member_level: None };
        batches.run(vec![claim_limited(0)]).await;
        let claimed = compare(&mut batches, "claim", members().map(claim).collect()).await;
        let wallets: Vec<CouponId> = claimed.iter().map(coupon_of).collect();
        compare(&mut batches, "claim under a daily cap and a budget", members().map(claim_limited).collect()).await;
        let digest = |n: usize| (n as u128).to_be_bytes();
        let batch_id = make_codes(&mut batches, limited, members().map(digest).collect()).await;
        let claim_code = |n: usize| Command::ClaimCode {
            digest: digest(n),
            batch_id,
            template_id: limited,
            member_id: member(format!("coded-{n}")),
            member_level: None,
        };
        compare(&mut batches, "claim with a code", members().map(claim_code).collect()).await;
        let claim =
            |n: usize| Command::Claim { template_id, member_id: member(format!("again-{n}")), member_level: None };
        let claimed = compare(&mut batches, "claim once more", members().map(claim).collect()).await;
        let coupons: Vec<CouponId> = claimed.iter().map(coupon_of).collect();
        let order = || "o-1".parse().expect("an order id");
        let lock = |id: &CouponId| Command::LockCoupon { coupon_id: *id, order_id: order(), expires_at: None };
        compare(&mut batches, "lock a coupon", coupons.iter().map(lock).collect()).await;
        let usage = |id: &CouponId| Command::UseCoupon { coupon_id: *id, order_id: order(), discount_amount: None };
        compare(&mut batches, "use a coupon", coupons.iter().map(usage).collect()).await;
        let giving_back = |id: &CouponId| Command::ReturnCoupon { coupon_id: *id, template_id, order_id: order() };
        compare(&mut batches, "return a coupon", coupons.iter().map(giving_back).collect()).await;
        compare(&mut batches, "grant to a new member", members().map(grant).collect()).await;
        compare(&mut batches, "grant", members().map(grant).collect()).await;
        let debited = compare(&mut batches, "debit", members().map(debit).collect()).await;
        batches.run(vec![grant(0)]).await;
        compare(&mut batches, "grant, all to one account", members().map(|_| grant(0)).collect()).await;
        let held = compare(&mut batches, "hold", members().map(hold).collect()).await;
        let capture =
            |n: usize| Command::CaptureHold { member_id: member(n), hold_id: hold_of(&held[n - 1]), points: None };
        compare(&mut batches, "capture a hold", members().map(capture).collect()).await;
        let reverse = |n: usize| Command::Reverse {
            member_id: member(n),
            transaction_id: transaction_of(&debited[n - 1]),
            points: None,
            remark: None,
        };
        compare(&mut batches, "reverse", members().map(reverse).collect()).await;

        let mut rules = Rules::default();
        rules.points.check_in.make_up_days = 3;
        rules.points.check_in.make_up_price = 1;
        let effective_from = None;
        batches.run(vec![Command::SetRules { expected_version: 0, rules: Box::new(rules), effective_from }]).await;
        // Points do not expire by these rules.
        let calendar = Arc::new(Calendar::default());
        let check_in = |missed: Option<i64>, day: i64| {
            let (missed, calendar) = (missed.map(Day), Arc::new(Calendar { day: Day(day), ..Calendar::default() }));
            move |n: usize| Command::CheckIn { member_id: member(n), missed, calendar: Arc::clone(&calendar) }
        };
        compare(&mut batches, "check in", members().map(check_in(None, 100)).collect()).await;
        compare(&mut batches, "check in after a gap", members().map(check_in(None, 102)).collect()).await;
        compare(&mut batches, "make a missed day up", members().map(check_in(Some(101), 102)).collect()).await;

        // A report of a task costs what it costs without prerequisites, and one more question with them.
        let task = |requires: &[&str]| task::Definition {
            name: "Task".into(),
            description: String::new(),
            points: 1,
            period: task::Period::Once,
            limit_per_period: 1,
            total_limit: None,
            target: 1,
            event_type: None,
            window: Default::default(),
            requires: requires.iter().map(|key| key.parse().expect("a key")).collect(),
        };
        let create = |key: &str, requires: &[&str]| Command::CreateTask {
            key: key.parse().expect("a key"),
            definition: Box::new(task(requires)),
        };
        batches.run(vec![create("first", &[]), create("second", &[]), create("third", &["first", "second"])]).await;
        let report = |key: &'static str| {
            let calendar = Arc::clone(&calendar);
            move |n: usize| Command::CompleteTask {
                member_id: member(n),
                key: key.parse().expect("a key"),
                completion_id: "c".parse().expect("an id"),
                calendar: Arc::clone(&calendar),
            }
        };
        for key in ["first", "second"] {
            compare(&mut batches, "report a task", members().map(report(key)).collect()).await;
        }
        compare(&mut batches, REPORT_WITH_PREREQUISITES, members().map(report("third")).collect()).await;

        // Orders, with a coupon and points each, are locked before what they name.
        let order_id = |n: usize| format!("order-{n}").parse::<OrderId>().expect("an order id");
        let reserve = |n: usize| {
            Command::ReserveOrder(Box::new(Reservation {
                quoted: None,
                order_id: order_id(n),
                member_id: member(n),
                basket: Basket {
                    lines: vec![Line {
                        item_id: "i".into(),
                        product_id: "p".into(),
                        sku_id: None,
                        category_ids: Vec::new(),
                        unit_price: 5_000,
                        quantity: 2,
                        points_ratio: 100,
                    }],
                    freight: 0,
                    member_level: None,
                    local_time: LocalTime { day: 0, minute: 0 },
                    attributes: Attributes::default(),
                    member_attributes: Attributes::default(),
                },
                coupon_ids: vec![wallets[n - 1]],
                points: 20,
                expires_at: scrip_server::clock::now().plus_days(1),
            }))
        };
        compare(&mut batches, "reserve an order", members().map(reserve).collect()).await;
        let pay = |n: usize| Command::PayOrder {
            member_id: member(n),
            order_id: order_id(n),
            calendar: Arc::clone(&calendar),
        };
        compare(&mut batches, "pay an order", members().map(pay).collect()).await;
        let refund = |n: usize| Command::RefundOrder {
            member_id: member(n),
            order_id: order_id(n),
            refund: Box::new(RefundRequest {
                refund_id: "all".parse().expect("a refund id"),
                lines: None,
                freight: 0,
                return_coupons: true,
                remark: None,
            }),
        };
        compare(&mut batches, "refund an order", members().map(refund).collect()).await;

        let of = |wanted: &str| rows.iter().find(|(name, ..)| *name == wanted).map(|(_, one, all)| (*one, *all));
        let reports = [of("report a task"), of(REPORT_WITH_PREREQUISITES)].map(|found| found.expect("a report").0);
        if kind == Kind::Postgres {
            assert_eq!(reports[1].statements(), reports[0].statements() + 1, "one question for all that is required");
        }
        assert_eq!(of("claim"), of("claim under a daily cap and a budget"), "{kind:?}: limits cost no statement");
        for (name, one, all) in rows {
            println!("{kind:?}: {name}: {one:?} for one, {all:?} for {BATCH}");
            match kind {
                Kind::Postgres => {
                    assert_eq!(one, all, "{name}");
                    let more = name.ends_with("an order") || name == REPORT_WITH_PREREQUISITES;
                    assert_eq!(one.round_trips, 2 + u64::from(more), "{name}");
                }
                Kind::Sqlite => assert!(all.statements() <= BATCH as u64 * one.statements(), "{name}: {one:?} {all:?}"),
            }
        }
    }
}

/// A batch of unique codes with these digests.
async fn make_codes(
    batches: &mut Batches,
    template_id: scrip_domain::TemplateId,
    digests: Vec<[u8; 16]>,
) -> scrip_domain::CodeBatchId {
    let new = scrip_domain::coupon::NewCodeBatch {
        template_id,
        kind: scrip_domain::coupon::CodeKind::Unique,
        name: String::new(),
        code_count: digests.len() as i64,
        max_uses: Some(1),
        pattern: "#".into(),
        alphabet: "AB".into(),
        check_character: false,
        key_id: 1,
        nonce: Some([0; 16]),
        shared: None,
    };
    let (made, _) = batches.run(vec![Command::CreateCodeBatch(Box::new(new))]).await;
    let Outcome::CodeBatch(batch) = &made[0] else { panic!("no batch: {made:?}") };
    let batch_id = batch.id;
    let (max_uses, holders) = (Vec::new(), Vec::new());
    let add = Command::AddCodes { batch_id, from_number: 0, digests, max_uses, holders, last: true };
    batches.run(vec![add]).await;
    batch_id
}

fn coupon_of(outcome: &Outcome) -> CouponId {
    let Outcome::Coupon(coupon) = outcome else { panic!("no coupon: {outcome:?}") };
    coupon.id
}

fn hold_of(outcome: &Outcome) -> HoldId {
    let Outcome::Hold { hold, .. } = outcome else { panic!("no hold: {outcome:?}") };
    hold.id
}

fn transaction_of(outcome: &Outcome) -> TransactionId {
    let Outcome::Transaction(transaction) = outcome else { panic!("no transaction: {outcome:?}") };
    transaction.id
}
