//! Distributions and imports of grants, from the file to the last row: on both stores, through kills, once.
//!
//! `SCRIP_DISTRIBUTION_ROWS` sets how many members the killed distribution has (20,000 by default; `make distribution-test` runs
//! 990,000, which with a hundredth sent twice is the most a file may have, and prints rows a second).

use std::fmt::Write;
use std::time::{Duration, Instant};

use scrip_domain::bulk::{Bulk, BulkKind, BulkStatus};
use scrip_domain::command::Movement;
use scrip_domain::points::{Spendable, TransactionType};
use scrip_domain::{Answer, BulkId, Command, JobId, Outcome, TemplateId, TenantId};
use scrip_server::bench::Target;
use scrip_server::bench::client::Api;
use scrip_server::bench::server::ServerProcess;
use scrip_server::bulk::{FileReader, Format, RowOutcome, RowResult, StageError, Stager, results_of};
use scrip_server::engine::{Engine, EngineOptions};
use scrip_server::jobs::housekeeping::HousekeepingOptions;
use scrip_server::jobs::runner::{Runner, RunnerOptions};
use scrip_server::metrics::Metrics;
use scrip_server::store::Store;
use scrip_server::verify::verify;
use scrip_server::{clock, jobs};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Fixture, KINDS, Kind, address_of, definition, envelope, member, template, tenant};

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

    fn runner(&self) -> Runner {
        let options = RunnerOptions {
            concurrency: 4,
            long_concurrency: 1,
            recurring: false,
            poll: Duration::from_millis(20),
            lease: Duration::from_secs(30),
        };
        let day = Duration::from_secs(86_400);
        let passes = HousekeepingOptions {
            interval: Duration::ZERO,
            idempotency_retention: day,
            delivery_retention: day,
            done_retention: day,
            bulk_retention: day,
            dead_retention: day,
        };
        let (store, engine) = (self.store().clone(), self.engine.clone());
        Runner::new(store, engine, Metrics::new(), options, jobs::handler(passes))
    }

    async fn stage(&self, kind: BulkKind, format: Format, file: &str, piece: usize) -> Result<Bulk, StageError> {
        self.stage_for(kind, None, format, file, piece).await
    }

    async fn stage_for(
        &self,
        kind: BulkKind,
        template_id: Option<TemplateId>,
        format: Format,
        file: &str,
        piece: usize,
    ) -> Result<Bulk, StageError> {
        let bulk_id = BulkId(Uuid::now_v7());
        let mut reader = FileReader::new(Stager::new(self.store(), self.tenant, bulk_id, kind), format);
        for piece in file.as_bytes().chunks(piece) {
            reader.feed(piece).await?;
        }
        let staged = reader.finish().await?;
        let command = Command::CreateBulk { bulk_id, template_id, staged };
        match self.engine.submit(envelope(self.tenant, command)).await {
            Ok(Answer::Accepted { outcome: Outcome::Bulk(bulk), .. }) => Ok(*bulk),
            other => panic!("no bulk: {other:?}"),
        }
    }

    async fn bulk(&self, id: BulkId) -> Bulk {
        self.store().find_bulk(self.tenant, id).await.expect("a look-up").expect("the bulk")
    }

    async fn results(&self, id: BulkId) -> Vec<RowResult> {
        let chunks = self.store().chunks(self.tenant, id, 0, None, i64::MAX).await.expect("chunks");
        chunks.iter().flat_map(|chunk| results_of(chunk).expect("results")).collect()
    }

    async fn assert_sound(&self) {
        let report = verify(self.store(), None, |_, _, _| {}).await.expect("verify runs");
        assert!(report.is_clean(), "{}: {:?}", report.summary(), report.checks.iter().find(|check| !check.is_clean()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_of_a_distribution_gets_its_result() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let gold = scrip_domain::coupon::Definition { member_levels: vec!["GOLD".into()], ..definition() };
        let template = template(&shop.engine, shop.tenant, gold, Some(3)).await;
        let claim =
            Command::Claim { template_id: template, member_id: member("early"), member_level: Some("GOLD".into()) };
        shop.engine.submit(envelope(shop.tenant, claim)).await.expect("a claim");
        let file = "\u{feff}member_level,Member_ID\r\nGOLD,a\r\n\"GOLD\",b\nSILVER,c\n,d\nGOLD,a\nGOLD,no good\nGOLD,early\n\
                    GOLD,e\nGOLD\nGOLD,f";
        // However the file is cut on its way.
        for piece in [1, 7, 1_000] {
            let bulk = shop.stage_for(BulkKind::Distribution, Some(template), Format::Csv, file, piece).await;
            let bulk = bulk.expect("it is staged");
            assert_eq!((bulk.rows, bulk.skipped, bulk.chunks), (10, 3, 1), "{kind:?}, {piece}");
            if piece < 1_000 {
                let cancel = Command::CancelBulk(bulk.id);
                shop.engine.submit(envelope(shop.tenant, cancel)).await.expect("it is cancelled");
                continue;
            }
            assert_eq!(shop.runner().run_due(clock::now(), 10).await.expect("it runs"), 1, "{kind:?}");
            let results = shop.results(bulk.id).await;
            let shown: Vec<(i64, &str, RowOutcome, Option<&str>)> = results
                .iter()
                .map(|result| (result.row, result.member_id.as_str(), result.outcome, result.reason.as_deref()))
                .collect();
            use RowOutcome::{Accepted, Duplicate, Invalid, Refused};
            let spaces = "member_id: expected 1-64 printable ASCII characters without spaces";
            assert_eq!(
                shown,
                [
                    (1, "a", Accepted, None),
                    (2, "b", Accepted, None),
                    (3, "c", Refused, Some("COUPON_MEMBER_LEVEL")),
                    (4, "d", Refused, Some("COUPON_MEMBER_LEVEL")),
                    (5, "a", Duplicate, None),
                    (6, "GOLD,no good", Invalid, Some(spaces)),
                    (7, "early", Refused, Some("COUPON_LIMIT_REACHED")),
                    (8, "e", Refused, Some("COUPON_SOLD_OUT")),
                    (9, "GOLD", Invalid, Some("it has 1 cells, the header 2")),
                    (10, "f", Refused, Some("COUPON_SOLD_OUT")),
                ],
                "{kind:?}"
            );
            let done = shop.bulk(bulk.id).await;
            assert_eq!(
                (done.status, done.accepted, done.refused, done.skipped),
                (BulkStatus::Done, 2, 5, 3),
                "{kind:?}"
            );
            let made = results[0].made.as_deref().expect("a coupon").parse().expect("its id");
            let coupon = shop.store().find_coupon(shop.tenant, made).await.expect("a look-up").expect("the coupon");
            assert_eq!((coupon.member_id, coupon.source.as_str()), (member("a"), "DISTRIBUTION"), "{kind:?}");
        }
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_of_a_file_are_made_once_each_and_bad_rows_are_told() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let mut file = String::new();
        for n in 0..1_200 {
            let _ =
                writeln!(file, r#"{{"member_id":"m-{}","points":2,"type":"EARN_TASK","reference":"r-{n}"}}"#, n % 100);
        }
        file.push_str("\n{\"member_id\":\"m-1\",\"points\":0}\nnonsense\n{\"member_id\":\"m-1\"}\n{\"member_id\":\"m-1\",\"points\":1,\"x\":2}\n");
        file.push_str("{\"member_id\":\"m-1\",\"points\":1,\"expires_at\":\"2020-01-01T00:00:00Z\"}");
        let bulk = shop.stage(BulkKind::PointsGrants, Format::Ndjson, &file, 100).await.expect("it is staged");
        assert_eq!((bulk.rows, bulk.skipped, bulk.chunks), (1_205, 4, 3), "{kind:?}");
        // Two nodes at once refuse each other's chunks, and go on.
        let nodes = [shop.runner(), shop.runner()];
        let now = clock::now();
        futures_util::future::join_all(nodes.iter().map(|node| node.run_due(now, 10))).await;
        let done = shop.bulk(bulk.id).await;
        assert_eq!((done.status, done.accepted, done.refused), (BulkStatus::Done, 1_200, 1), "{kind:?}");
        for n in [0, 57, 99] {
            let name = member(format!("m-{n}"));
            let balance = shop.store().balance(shop.tenant, &name, now, now).await.expect("a balance");
            assert_eq!(balance.total_points, 24, "{kind:?}");
        }
        let bad = shop.results(bulk.id).await.split_off(1_200);
        let reasons: Vec<&str> = bad.iter().filter_map(|result| result.reason.as_deref()).collect();
        assert!(reasons[0].starts_with("points is 0; send an integer"), "{reasons:?}");
        assert_eq!(&reasons[1..3], ["send a JSON object on each line", "points is required"]);
        assert!(reasons[3].contains("unknown field `x`"), "{reasons:?}");
        assert_eq!(reasons[4], "DEADLINE_PASSED");
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_used_leaves_nothing() {
    let shop = Shop::new(Kind::Sqlite).await;
    let stage = async |kind, format, file: &str| shop.stage(kind, format, file, 10).await.expect_err("it is refused");
    for file in ["member\na\n", "member_id,points\n", "member_id,member_id\n", "\n", "member_level\nGOLD\n"] {
        let error = stage(BulkKind::Distribution, Format::Csv, file).await;
        assert!(matches!(error, StageError::Header { .. } | StageError::Empty), "{file:?}: {error}");
    }
    let error = stage(BulkKind::PointsGrants, Format::Csv, "member_id\nm\n").await;
    assert!(error.to_string().contains("member_id, points"), "{error}");
    let endless = format!("member_id\n\"{}", "x".repeat(9_000));
    assert!(matches!(stage(BulkKind::Distribution, Format::Csv, &endless).await, StageError::RowTooLong(1)));
    let endless = "x".repeat(9_000);
    assert!(matches!(stage(BulkKind::Distribution, Format::Ndjson, &endless).await, StageError::RowTooLong(1)));
    assert!(matches!(stage(BulkKind::Distribution, Format::Ndjson, " \n\n").await, StageError::Empty));
    // Rows whose bulk was never made are forgotten after their time, and only those.
    let template = template(&shop.engine, shop.tenant, definition(), None).await;
    let kept = shop.stage_for(BulkKind::Distribution, Some(template), Format::Csv, "member_id\na\n", 100).await;
    let kept = kept.expect("a bulk").id;
    let stray = BulkId(Uuid::now_v7());
    let mut stager = Stager::new(shop.store(), shop.tenant, stray, BulkKind::Distribution);
    stager.add_member(&member("a"), None).await.expect("a row");
    stager.finish().await.expect("a chunk");
    let now = clock::now();
    let later = scrip_domain::Timestamp(now.0 + 10_000);
    assert_eq!(shop.store().drop_strays(scrip_domain::Timestamp(now.0 - 60_000_000), 10).await.expect("none"), 0);
    assert_eq!(shop.store().drop_strays(later, 10).await.expect("one"), 1);
    for (id, chunks) in [(kept, 1), (stray, 0)] {
        let found = shop.store().chunks(shop.tenant, id, 0, None, 10).await.expect("chunks");
        assert_eq!(found.len(), chunks);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_results_go_after_their_time_and_the_counts_stay() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let template = template(&shop.engine, shop.tenant, definition(), None).await;
        let file = (0..5_000).fold("member_id\n".to_owned(), |text, n| text + &format!("m-{n}\n"));
        let bulk = shop.stage_for(BulkKind::Distribution, Some(template), Format::Csv, &file, 65_536).await;
        let bulk = bulk.expect("a bulk");
        let soon = scrip_domain::Timestamp(clock::now().0 + 600_000_000);
        let drop = async |before, chunks| shop.store().drop_results(before, soon, chunks).await.expect("a purge");
        assert_eq!(drop(soon, 10).await, 0, "{kind:?}: it has not ended");
        assert_eq!(shop.runner().run_due(clock::now(), 10).await.expect("it runs"), 1, "{kind:?}");
        let done = shop.bulk(bulk.id).await;
        assert_eq!((done.status, done.chunks, done.results_dropped_at), (BulkStatus::Done, 3, None), "{kind:?}");
        assert_eq!(drop(done.created_at, 10).await, 0, "{kind:?}: its time has not come");
        // A purge that is cut off between two pages goes on with the next one, and every state between is sound.
        for (chunks, left) in [(2, 1), (1, 0), (0, 0)] {
            assert_eq!(drop(soon, 2).await, chunks, "{kind:?}");
            let chunks = shop.store().chunks(shop.tenant, bulk.id, 0, None, 10).await.expect("chunks");
            assert_eq!(chunks.len(), left, "{kind:?}");
            shop.assert_sound().await;
        }
        let kept = shop.bulk(bulk.id).await;
        assert_eq!((kept.accepted, kept.rows, kept.results_dropped_at), (5_000, 5_000, Some(soon)), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distribution_left_off_goes_on_and_a_cancelled_one_does_not() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let template = template(&shop.engine, shop.tenant, definition(), None).await;
        let file = (0..9_000).fold("member_id\n".to_owned(), |mut text, n| {
            let _ = writeln!(text, "m-{n}");
            text
        });
        let bulk =
            shop.stage_for(BulkKind::Distribution, Some(template), Format::Csv, &file, 4_096).await.expect("a bulk");
        assert_eq!(bulk.chunks, 5);
        // A runner that stops gives the job back where it stands.
        let stopping = shop.runner();
        stopping.start();
        while shop.bulk(bulk.id).await.next_chunk < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stopping.drain(Duration::from_secs(20)).await;
        let left = shop.bulk(bulk.id).await;
        assert!((2..=5).contains(&left.next_chunk), "{kind:?}");
        let grant = Command::EnqueueGrant {
            member_id: member("other"),
            movement: Movement { points: 1, kind: TransactionType::EarnTask, reference: None, remark: None },
            spendable: Spendable::default(),
        };
        shop.engine.submit(envelope(shop.tenant, grant)).await.expect("another job");
        shop.runner().run_due(clock::now(), 10).await.expect("it goes on");
        let done = shop.bulk(bulk.id).await;
        assert_eq!((done.status, done.accepted), (BulkStatus::Done, 9_000), "{kind:?}");
        let claimed = shop.store().find_template(shop.tenant, template).await.expect("a look-up").expect("it");
        assert_eq!(claimed.claimed_count, 9_000, "{kind:?}");

        let again =
            shop.stage_for(BulkKind::Distribution, Some(template), Format::Csv, &file, 4_096).await.expect("a bulk");
        shop.engine.submit(envelope(shop.tenant, Command::CancelJob(JobId(again.id.0)))).await.expect("cancelled");
        assert_eq!(shop.runner().run_due(clock::now(), 10).await.expect("nothing"), 0, "{kind:?}");
        let cancelled = shop.bulk(again.id).await;
        assert_eq!((cancelled.status, cancelled.accepted), (BulkStatus::Cancelled, 0), "{kind:?}");
        assert!(shop.results(again.id).await.iter().all(|result| result.outcome == RowOutcome::Pending));
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distribution_killed_three_times_is_completed_once_on_sqlite() {
    killed_three_times(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distribution_killed_three_times_is_completed_once_on_postgres() {
    killed_three_times(Kind::Postgres).await;
}

/// The most memory of its own a server may have, whatever the number of rows.
const MEMORY_MAX: u64 = 512 << 20;

async fn killed_three_times(kind: Kind) {
    let rows: usize =
        std::env::var("SCRIP_DISTRIBUTION_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let fixture = Fixture::new(kind).await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("scrip.toml");
    // The jobs of a killed server are taken up soon.
    std::fs::write(&config, "[jobs]\nlease_seconds = 1\n[projection]\ninterval_ms = 0\n").expect("a file");
    let config = config.to_str().expect("a path").to_owned();
    let arguments = ["serve".into(), "--store".into(), address_of(&fixture.url), "--config".into(), config];
    let program = || env!("CARGO_BIN_EXE_scrip").into();
    let mut server = ServerProcess::start(program(), &arguments).await.expect("the server starts");
    let first = server.target("distribution").await.expect("a tenant");
    let mut api = Api::connect(&first).await.expect("a connection");
    let (stock, doubled) = (rows - 100, rows / 100);
    let asked = json!({ "name": "t", "benefit": { "type": "AMOUNT_OFF", "amount": 1 },
                        "validity": { "type": "RELATIVE", "days": 30 }, "total_stock": stock });
    let made = api.post("/v1/coupon-templates", &asked).await.and_then(|answer| answer.json(201)).expect("a template");
    let path = format!("/v1/coupon-templates/{}", made["id"].as_str().expect("an id"));
    let mut file = String::with_capacity(rows * 32);
    for n in 0..rows {
        let _ = writeln!(file, "{{\"member_id\":\"m-{n}\"}}");
        if n < doubled {
            let _ = writeln!(file, "{{\"member_id\":\"m-{n}\"}}");
        }
    }
    let began = Instant::now();
    let answer = api.post_lines(&format!("{path}/distributions"), &file).await.and_then(|answer| answer.json(202));
    let made = answer.expect("it is under way");
    println!("{kind:?}: {} rows uploaded in {:.1?}", rows + doubled, began.elapsed());
    let path = format!("/v1/distributions/{}", made["id"].as_str().expect("an id"));
    let (mut kills, mut memory) = (0, 0);
    let mut working = Duration::ZERO;
    let mut seen = (0, Instant::now());
    let done = loop {
        let target = Target { addr: server.addr, ..first.clone() };
        let mut api = Api::connect(&target).await.expect("a connection");
        let bulk = api.get(&path).await.and_then(|answer| answer.json(200)).expect("the distribution");
        memory = memory.max(own_memory(&server));
        let pending = bulk["pending"].as_u64().expect("a number") as usize;
        let worked = rows + doubled - pending;
        if worked > seen.0 && seen.0 > doubled {
            working += seen.1.elapsed();
        }
        seen = (worked, Instant::now());
        if bulk["status"] == "DONE" {
            break bulk;
        }
        if kills < 3 && worked > doubled + (kills + 1) * rows / 5 {
            // kill -9.
            drop(server);
            kills += 1;
            server = ServerProcess::start(program(), &arguments).await.expect("the server starts again");
            seen = (0, Instant::now());
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(kills, 3, "{kind:?}: it was over too soon to be killed; give it more rows");
    assert_eq!((&done["accepted"], &done["refused"], &done["skipped"]), (&json!(stock), &json!(100), &json!(doubled)));
    let rate = rows as f64 / working.as_secs_f64().max(0.001);
    println!(
        "{kind:?}: {rows} members, killed {kills} times, {rate:.0} rows/s while working, {} MB of memory",
        memory >> 20
    );
    assert!(memory < MEMORY_MAX, "{kind:?}: {} MB", memory >> 20);
    drop(server);
    let report = verify(&fixture.store, None, |_, _, _| {}).await.expect("verify runs");
    assert!(report.is_clean(), "{kind:?}: {}", report.summary());
    println!("{kind:?}: {}", report.summary());
}

/// What the process has for itself, in bytes: files that it maps are not counted.
fn own_memory(server: &ServerProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1_024
}

/// Runs the program on the store; what it prints.
fn scrip(fixture: &Fixture, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_scrip"));
    command.args(arguments).args(["--store", &address_of(&fixture.url)]);
    let output = command.output().expect("the program runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    out.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_distributes_grants_and_shows_the_jobs() {
    for kind in KINDS {
        let shop = Shop::new(kind).await;
        let template = template(&shop.engine, shop.tenant, definition(), Some(40)).await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
        let (members, grants, failures) = (file("members.csv"), file("grants.ndjson"), file("failures.csv"));
        let rows = (0..50).map(|n| format!("m-{}\n", n % 45)).collect::<String>();
        std::fs::write(&members, format!("member_id\n{rows}")).expect("a file");
        std::fs::write(&grants, "{\"member_id\":\"m-1\",\"points\":5}\n{\"points\":5}\n").expect("a file");
        let (tenant, template) = (shop.tenant.to_string(), template.to_string());
        let own = ["--tenant", tenant.as_str()];
        let distribute = ["distribute", &members, "--template", &template, "--failures", &failures];
        let out = scrip(&shop.fixture, &[&distribute[..], &own].concat());
        assert!(out.contains("DONE: 50 rows, 40 accepted, 5 refused, 5 skipped"), "{kind:?}: {out}");
        let told = std::fs::read_to_string(&failures).expect("the failures");
        assert_eq!(told.lines().count(), 11, "{kind:?}: {told}");
        assert!(told.contains("41,m-40,REFUSED,COUPON_SOLD_OUT"), "{kind:?}: {told}");
        let out = scrip(&shop.fixture, &[&["grant", &grants, "--json"][..], &own].concat());
        let bulk: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((&bulk["accepted"], &bulk["skipped"], &bulk["status"]), (&json!(1), &json!(1), &json!("DONE")));
        // Only enqueued, then cancelled, retried and deleted.
        let out = scrip(&shop.fixture, &[&["grant", &grants, "--no-wait", "--json"][..], &own].concat());
        let id =
            serde_json::from_str::<serde_json::Value>(&out).expect("JSON")["id"].as_str().expect("an id").to_owned();
        let id = id.replace("blk_", "job_");
        let out = scrip(&shop.fixture, &[&["jobs", "cancel", &id][..], &own].concat());
        assert!(out.contains("CANCELLED"), "{kind:?}: {out}");
        let out = scrip(&shop.fixture, &[&["jobs", "list", "--state", "done", "--json"][..], &own].concat());
        let listed: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "{kind:?}: {out}");
        assert!(scrip(&shop.fixture, &[&["jobs", "show", &id][..], &own].concat()).contains("bulk_id"), "{kind:?}");
        let out = scrip(&shop.fixture, &[&["jobs", "purge", "--state", "cancelled"][..], &own].concat());
        assert!(out.contains("1 jobs deleted"), "{kind:?}: {out}");
        shop.assert_sound().await;
    }
}
