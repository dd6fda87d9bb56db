//! What is asked of the server: each scenario's data, its requests, and the count that must come out right.
//!
//! Every POST carries an idempotency key of its own, so that no run measures replays, and every claim a member of its own,
//! so that no run measures refusals by accident. Numbers come from one counter per scenario and go into fixed places of
//! prepared bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::ProgressBar;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::client::{Api, JSON, NDJSON, Pattern, SLOT, excerpt, request_bytes};
use super::{Options, Target, quote};

/// Points a seeded account starts with at least; runs take single points from it.
const SEED_POINTS: u64 = 1_000_000;
/// Below this a seeded account is granted points again before a run.
const LOW_POINTS: u64 = 100_000;
const HOT_ACCOUNT_POINTS: u64 = 1_000_000_000_000;
/// More than any run can claim, yet counted like any stock.
const HUGE_STOCK: u64 = 1_000_000_000;
const SEED_LINES: u64 = 5_000;
const SEED_CONNECTIONS: u64 = 4;
/// Accounts whose used points are compared after a run over uniform accounts.
const CHECKED_ACCOUNTS: u64 = 10_000;
const CHECK_CONNECTIONS: usize = 8;
/// Accounts looked at to find out whether seeding is needed.
const SEED_SAMPLES: u64 = 50;
const LIST_LIMIT: u32 = 20;
/// Seeded accounts differ by so much, so that a leaderboard of them has ranks.
const POINTS_SPREAD: u64 = 500_000;
/// How long a leaderboard may stand still while it is being folded.
const BOARD_PATIENCE: Duration = Duration::from_secs(30);

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// `GET /healthz`: what the HTTP layer and the generator can do at all. Other scenarios are given as a ratio to it.
    Static,
    /// Claims of one template with stock for all.
    HotClaim,
    /// Claims of one template whose stock is gone; the refusal is the expected answer.
    SoldOut,
    /// Claims over many templates, their popularity falling as 1/rank.
    ZipfClaims,
    /// Debits of one point from uniformly chosen accounts.
    DebitUniform,
    /// Debits of one point from one account.
    DebitHot,
    /// A member's coupons, a member's balance and a template, in equal parts, uniformly chosen members.
    Reads,
    /// 70 % reads as above, 20 % claims of one template, 10 % debits from uniform accounts.
    Mix,
    /// `POST /v1/batch` with claims of one template; an operation is a line. Always closed loop, few connections.
    BatchApi,
    /// The first 100 of the leaderboard of all earned points, and a member's rank with two neighbours on each side, in equal
    /// parts, among all accounts.
    Boards,
    /// `POST /v1/quotes`: the best of 20 coupons for 20 lines, over a few hundred members.
    Quote,
    /// Claims of one template by a single caller that waits for each answer: commit time plus everything around it.
    OneCaller,
}

impl Scenario {
    pub const ALL: [Scenario; 12] = [
        Scenario::Static,
        Scenario::HotClaim,
        Scenario::SoldOut,
        Scenario::ZipfClaims,
        Scenario::DebitUniform,
        Scenario::DebitHot,
        Scenario::Reads,
        Scenario::Mix,
        Scenario::BatchApi,
        Scenario::Boards,
        Scenario::Quote,
        Scenario::OneCaller,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Scenario::Static => "static",
            Scenario::HotClaim => "hot-claim",
            Scenario::SoldOut => "sold-out",
            Scenario::ZipfClaims => "zipf-claims",
            Scenario::DebitUniform => "debit-uniform",
            Scenario::DebitHot => "debit-hot",
            Scenario::Reads => "reads",
            Scenario::Mix => "mix",
            Scenario::BatchApi => "batch-api",
            Scenario::Boards => "boards",
            Scenario::Quote => "quote",
            Scenario::OneCaller => "one-caller",
        }
    }

    /// Whether a given rate applies; the others are defined by waiting for answers.
    pub fn may_be_open_loop(self) -> bool {
        !matches!(self, Scenario::BatchApi | Scenario::OneCaller)
    }

    /// Connections of a closed loop, or the most requests outstanding in an open loop.
    pub fn connections(self, wanted: usize) -> usize {
        match self {
            Scenario::OneCaller => 1,
            // A batch keeps the server busy for milliseconds: a few in flight fill every core.
            Scenario::BatchApi => wanted.min(4),
            _ => wanted,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Scenario> {
        Scenario::ALL
            .into_iter()
            .find(|scenario| scenario.name() == text)
            .ok_or_else(|| anyhow!("no scenario {text:?}; there are {}", Scenario::ALL.map(Scenario::name).join(", ")))
    }
}

impl Serialize for Scenario {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a request must be answered with, and what it then has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    pub status: u16,
    pub effect: Effect,
}

/// What a successful request leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    Claim,
    HotDebit,
    Debit {
        account: u32,
    },
    /// A batch of claims, one operation a line.
    Claims {
        lines: u32,
    },
}

impl Effect {
    pub fn operations(self) -> u64 {
        match self {
            Effect::Claims { lines } => u64::from(lines),
            _ => 1,
        }
    }
}

impl Expectation {
    /// Whether the answer is the expected one. Of a batch, every line must be a success.
    pub fn is_met(self, status: u16, body: &[u8]) -> bool {
        if status != self.status {
            return false;
        }
        match self.effect {
            Effect::Claims { lines } => successful_lines(body) == lines,
            _ => true,
        }
    }
}

/// Lines `{"line":n,"status":201,...`; only the beginning of each line is looked at.
fn successful_lines(body: &[u8]) -> u32 {
    const BEGINNING_BYTES: usize = 40;
    const SUCCESS: &[u8] = b"\"status\":201";
    body.split(|byte| *byte == b'\n')
        .filter(|line| line[..line.len().min(BEGINNING_BYTES)].windows(SUCCESS.len()).any(|part| part == SUCCESS))
        .count() as u32
}

/// Everything acknowledged during one measurement, warm-up included, to be compared with what the server then shows.
#[derive(Debug, Default)]
pub struct Tally {
    claims: AtomicU64,
    hot_debits: AtomicU64,
    debits: Vec<AtomicU32>,
}

impl Tally {
    pub fn add(&self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Claim => {
                self.claims.fetch_add(1, Ordering::Relaxed);
            }
            Effect::Claims { lines } => {
                self.claims.fetch_add(u64::from(lines), Ordering::Relaxed);
            }
            Effect::HotDebit => {
                self.hot_debits.fetch_add(1, Ordering::Relaxed);
            }
            Effect::Debit { account } => {
                self.debits[account as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Appends the next request to the buffer and says what to expect of it.
pub type Maker = Box<dyn FnMut(&mut Vec<u8>) -> Expectation + Send>;

/// Acknowledged successes against what the server shows afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DurabilityCheck {
    pub what: &'static str,
    pub acknowledged: u64,
    pub durable: u64,
    /// Counters or accounts whose own two figures differ: sums alone could hide one effect lost and another doubled.
    pub differing: u64,
}

impl DurabilityCheck {
    fn of(what: &'static str, acknowledged: u64, durable: u64) -> DurabilityCheck {
        DurabilityCheck { what, acknowledged, durable, differing: u64::from(acknowledged != durable) }
    }

    pub fn holds(&self) -> bool {
        self.differing == 0
    }
}

/// A scenario whose data exist on a server, ready to be measured any number of times.
#[derive(Debug)]
pub struct Prepared {
    scenario: Scenario,
    target: Target,
    /// Marks this run's keys and members, so that runs on the same data never meet.
    run: String,
    accounts: u64,
    batch_lines: u32,
    sequence: Arc<AtomicU64>,
    templates: Vec<String>,
    /// Accounts whose debits are checked.
    checked_accounts: Vec<u64>,
}

/// What a server shows of a scenario's effects at some time.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Claims of all the scenario's templates.
    claims: u64,
    /// Points used by the hot account.
    hot_debits: u64,
    /// Points used by each checked account.
    account_debits: Vec<u64>,
}

impl Prepared {
    /// Makes the templates and accounts the scenario needs, or finds those of an earlier run.
    pub async fn new(scenario: Scenario, target: &Target, options: &Options, progress: &ProgressBar) -> Result<Self> {
        ensure!((1..=u64::from(u32::MAX)).contains(&options.accounts), "accounts: {}", options.accounts);
        ensure!((1..=10_000).contains(&options.batch_lines), "batch lines: {}", options.batch_lines);
        ensure!(options.zipf_templates > 0, "zipf templates: 0");
        let mut api = Api::connect(target).await?;
        let run = format!("{:08x}", rand::random::<u32>());
        let uses_accounts =
            matches!(scenario, Scenario::DebitUniform | Scenario::Reads | Scenario::Mix | Scenario::Boards);
        let reads_coupons = matches!(scenario, Scenario::Reads | Scenario::Mix);
        if uses_accounts {
            seed_accounts(&mut api, target, options.accounts, reads_coupons, &run, progress).await?;
        }
        let templates = match scenario {
            Scenario::Static | Scenario::DebitUniform | Scenario::DebitHot | Scenario::Boards => vec![],
            Scenario::SoldOut => vec![create_template(&mut api, "bench sold out", 1).await?],
            Scenario::Quote => fill_wallets(&mut api, target, &run, progress).await?,
            Scenario::ZipfClaims => {
                let mut ids = Vec::new();
                for rank in 1..=options.zipf_templates {
                    ids.push(create_template(&mut api, &format!("bench rank {rank}"), HUGE_STOCK).await?);
                }
                ids
            }
            _ => vec![create_template(&mut api, &format!("bench {scenario}"), HUGE_STOCK).await?],
        };
        let prepared = Prepared {
            scenario,
            target: target.clone(),
            run,
            accounts: options.accounts,
            batch_lines: options.batch_lines,
            sequence: Arc::new(AtomicU64::new(0)),
            templates,
            checked_accounts: checked_accounts(scenario, options.accounts),
        };
        match scenario {
            Scenario::SoldOut => prepared.sell_out(&mut api).await?,
            Scenario::DebitHot => {
                let path = format!("/v1/members/{}/points/grants", prepared.hot_member());
                api.post(&path, &json!({"points": HOT_ACCOUNT_POINTS, "reference": "bench"})).await?.json(201)?;
            }
            Scenario::Boards => await_board(&mut api, options.accounts, progress).await?,
            _ => {}
        }
        Ok(prepared)
    }

    pub fn scenario(&self) -> Scenario {
        self.scenario
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// An empty tally for one measurement.
    pub fn tally(&self) -> Arc<Tally> {
        let debited = if self.checked_accounts.is_empty() { 0 } else { self.accounts };
        Arc::new(Tally { debits: (0..debited).map(|_| AtomicU32::new(0)).collect(), ..Tally::default() })
    }

    /// Claims the only coupon and makes sure that the next refusal is the one that is meant.
    async fn sell_out(&self, api: &mut Api) -> Result<()> {
        let path = format!("/v1/coupon-templates/{}/claims", self.templates[0]);
        api.post(&path, &json!({"member_id": format!("first-{}", self.run)})).await?.json(201)?;
        let refusal = api.post(&path, &json!({"member_id": format!("second-{}", self.run)})).await?;
        let code = refusal.json(422)?["code"].clone();
        ensure!(code == "COUPON_SOLD_OUT", "a sold-out template refuses with {code}: {}", excerpt(&refusal.body));
        Ok(())
    }

    /// A source of requests for one connection; `index` only keeps the random choices of connections apart.
    pub fn maker(&self, index: u64) -> Maker {
        let sequence = self.sequence.clone();
        let next = move || sequence.fetch_add(1, Ordering::Relaxed);
        let mut rng = SmallRng::seed_from_u64(rand::random::<u64>() ^ index);
        let accounts = self.accounts;
        match self.scenario {
            Scenario::Static => {
                let pattern = self.get("/healthz");
                Box::new(move |out| {
                    pattern.write(out, |_| 0);
                    Expectation { status: 200, effect: Effect::Nothing }
                })
            }
            Scenario::HotClaim | Scenario::OneCaller => {
                let pattern = self.claim(&self.templates[0]);
                Box::new(move |out| {
                    let number = next();
                    pattern.write(out, |_| number);
                    Expectation { status: 201, effect: Effect::Claim }
                })
            }
            Scenario::SoldOut => {
                let pattern = self.claim(&self.templates[0]);
                Box::new(move |out| {
                    let number = next();
                    pattern.write(out, |_| number);
                    Expectation { status: 422, effect: Effect::Nothing }
                })
            }
            Scenario::ZipfClaims => {
                let patterns: Vec<Pattern> = self.templates.iter().map(|template| self.claim(template)).collect();
                let cumulated = zipf(patterns.len());
                Box::new(move |out| {
                    let number = next();
                    let draw: f64 = rng.random();
                    let rank = cumulated.partition_point(|up_to| *up_to < draw);
                    patterns[rank.min(patterns.len() - 1)].write(out, |_| number);
                    Expectation { status: 201, effect: Effect::Claim }
                })
            }
            Scenario::DebitUniform => {
                let pattern = self.debit(&account_pattern());
                Box::new(move |out| uniform_debit(out, &pattern, rng.random_range(0..accounts), next()))
            }
            Scenario::DebitHot => {
                let pattern = self.debit(&self.hot_member());
                Box::new(move |out| {
                    let number = next();
                    pattern.write(out, |_| number);
                    Expectation { status: 201, effect: Effect::HotDebit }
                })
            }
            Scenario::Reads => {
                let reads = self.reads();
                Box::new(move |out| read(out, &reads, &mut rng, accounts))
            }
            Scenario::Mix => {
                let reads = self.reads();
                let claim = self.claim(&self.templates[0]);
                let debit = self.debit(&account_pattern());
                Box::new(move |out| match rng.random_range(0..10) {
                    0..7 => read(out, &reads, &mut rng, accounts),
                    7..9 => {
                        let number = next();
                        claim.write(out, |_| number);
                        Expectation { status: 201, effect: Effect::Claim }
                    }
                    _ => uniform_debit(out, &debit, rng.random_range(0..accounts), next()),
                })
            }
            Scenario::Boards => {
                let first = self.get("/v1/points/leaderboard?limit=100");
                let rank = self.get(&format!("/v1/members/{}/points/rank?around=2", account_pattern()));
                Box::new(move |out| {
                    let account = rng.random_range(0..accounts);
                    if rng.random_bool(0.5) { &first } else { &rank }.write(out, |_| account);
                    Expectation { status: 200, effect: Effect::Nothing }
                })
            }
            Scenario::Quote => {
                let body = quote::body(&self.run);
                let request = request_bytes(&self.target, "POST", "/v1/quotes", None, Some((JSON, &body)));
                let pattern = Pattern::new(request);
                Box::new(move |out| {
                    let member = rng.random_range(0..quote::MEMBERS);
                    pattern.write(out, |_| member);
                    Expectation { status: 200, effect: Effect::Nothing }
                })
            }
            Scenario::BatchApi => {
                let pattern = self.batch();
                let lines = self.batch_lines;
                Box::new(move |out| {
                    // Each line has two places, its member and its key, and one number for both.
                    let mut number = 0;
                    pattern.write(out, |place| {
                        if place % 2 == 0 {
                            number = next();
                        }
                        number
                    });
                    Expectation { status: 200, effect: Effect::Claims { lines } }
                })
            }
        }
    }

    fn get(&self, path: &str) -> Pattern {
        Pattern::new(request_bytes(&self.target.as_service(), "GET", path, None, None))
    }

    fn claim(&self, template_id: &str) -> Pattern {
        let path = format!("/v1/coupon-templates/{template_id}/claims");
        let body = format!(r#"{{"member_id":"b{}-{SLOT}"}}"#, self.run);
        let key = format!("{}-{SLOT}", self.run);
        Pattern::new(request_bytes(&self.target, "POST", &path, Some(&key), Some((JSON, &body))))
    }

    /// Places in their order: the member's where it has one, the key's, the reference's.
    fn debit(&self, member: &str) -> Pattern {
        let path = format!("/v1/members/{member}/points/debits");
        let body = format!(r#"{{"points":1,"reference":"{}-{SLOT}"}}"#, self.run);
        let key = format!("{}-{SLOT}", self.run);
        Pattern::new(request_bytes(&self.target, "POST", &path, Some(&key), Some((JSON, &body))))
    }

    fn batch(&self) -> Pattern {
        let (run, template_id) = (&self.run, &self.templates[0]);
        let line = format!(
            "{{\"op\":\"claim\",\"template_id\":\"{template_id}\",\"member_id\":\"b{run}-{SLOT}\",\
             \"idempotency_key\":\"{run}-{SLOT}\"}}\n"
        );
        let lines = line.repeat(self.batch_lines as usize);
        Pattern::new(request_bytes(&self.target, "POST", "/v1/batch", None, Some((NDJSON, &lines))))
    }

    fn reads(&self) -> [Pattern; 3] {
        [
            self.get(&format!("/v1/members/{}/coupons?limit={LIST_LIMIT}", account_pattern())),
            self.get(&format!("/v1/members/{}/points", account_pattern())),
            self.get(&format!("/v1/coupon-templates/{}", self.templates[0])),
        ]
    }

    fn hot_member(&self) -> String {
        format!("hot-{}", self.run)
    }

    /// What the server shows now; called before and after a measurement.
    pub async fn shown(&self) -> Result<Shown> {
        let mut api = Api::connect(&self.target).await?;
        let mut shown = Shown::default();
        for id in &self.templates {
            let template = api.get(&format!("/v1/coupon-templates/{id}")).await?.json(200)?;
            shown.claims += number(&template, "claimed_count")?;
        }
        if self.scenario == Scenario::DebitHot {
            shown.hot_debits = used(&mut api, &self.hot_member()).await?;
        }
        shown.account_debits = used_points(&self.target, &self.checked_accounts).await?;
        Ok(shown)
    }

    /// Compares what was acknowledged with what has changed on the server.
    pub fn check(&self, before: &Shown, after: &Shown, tally: &Tally) -> Vec<DurabilityCheck> {
        let mut checks = Vec::new();
        if !self.templates.is_empty() {
            let acknowledged = tally.claims.load(Ordering::Relaxed);
            checks.push(DurabilityCheck::of("claims", acknowledged, after.claims.saturating_sub(before.claims)));
        }
        if self.scenario == Scenario::DebitHot {
            let acknowledged = tally.hot_debits.load(Ordering::Relaxed);
            let durable = after.hot_debits.saturating_sub(before.hot_debits);
            checks.push(DurabilityCheck::of("debits of the hot account", acknowledged, durable));
        }
        if !self.checked_accounts.is_empty() {
            let mut check = DurabilityCheck::of("debits of sampled accounts", 0, 0);
            let shown = before.account_debits.iter().zip(&after.account_debits);
            for (account, (before, after)) in self.checked_accounts.iter().zip(shown) {
                let acknowledged = u64::from(tally.debits[*account as usize].load(Ordering::Relaxed));
                let durable = after.saturating_sub(*before);
                check.acknowledged += acknowledged;
                check.durable += durable;
                check.differing += u64::from(acknowledged != durable);
            }
            checks.push(check);
        }
        checks
    }
}

/// Evenly spread accounts with a random first one, for the scenarios that debit them.
fn checked_accounts(scenario: Scenario, accounts: u64) -> Vec<u64> {
    if !matches!(scenario, Scenario::DebitUniform | Scenario::Mix) {
        return vec![];
    }
    let step = (accounts / CHECKED_ACCOUNTS).max(1);
    (rand::random_range(0..step)..accounts).step_by(step as usize).collect()
}

fn uniform_debit(out: &mut Vec<u8>, pattern: &Pattern, account: u64, number: u64) -> Expectation {
    pattern.write(out, |place| if place == 0 { account } else { number });
    Expectation { status: 201, effect: Effect::Debit { account: account as u32 } }
}

fn read(out: &mut Vec<u8>, reads: &[Pattern; 3], rng: &mut SmallRng, accounts: u64) -> Expectation {
    let account = rng.random_range(0..accounts);
    reads[rng.random_range(0..reads.len())].write(out, |_| account);
    Expectation { status: 200, effect: Effect::Nothing }
}

/// The shares of all ranks up to each one, where rank r has a share proportional to 1/r.
fn zipf(ranks: usize) -> Vec<f64> {
    let total: f64 = (1..=ranks).map(|rank| 1.0 / rank as f64).sum();
    (1..=ranks)
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64 / total;
            Some(*sum)
        })
        .collect()
}

fn account_pattern() -> String {
    format!("acc-{SLOT}")
}

/// As the pattern above writes it.
fn account_member(account: u64) -> String {
    format!("acc-{account:010}")
}

fn number(object: &Value, field: &str) -> Result<u64> {
    object[field].as_u64().with_context(|| format!("{field} is missing in {object}"))
}

async fn used(api: &mut Api, member: &str) -> Result<u64> {
    number(&api.get(&format!("/v1/members/{member}/points")).await?.json(200)?, "used")
}

/// The points used by each of the accounts, in their order.
async fn used_points(target: &Target, accounts: &[u64]) -> Result<Vec<u64>> {
    let mut parts = JoinSet::new();
    for (part, accounts) in accounts.chunks(accounts.len().div_ceil(CHECK_CONNECTIONS).max(1)).enumerate() {
        let (target, accounts) = (target.clone(), accounts.to_vec());
        parts.spawn(async move {
            let mut api = Api::connect(&target).await?;
            let mut points = Vec::with_capacity(accounts.len());
            for account in accounts {
                points.push(used(&mut api, &account_member(account)).await?);
            }
            Ok::<_, anyhow::Error>((part, points))
        });
    }
    let mut found = Vec::new();
    while let Some(part) = parts.join_next().await {
        found.push(part.context("reading balances")??);
    }
    found.sort_unstable_by_key(|(part, _)| *part);
    Ok(found.into_iter().flat_map(|(_, points)| points).collect())
}

async fn create_template(api: &mut Api, name: &str, stock: u64) -> Result<String> {
    let template = json!({
        "name": name,
        "benefit": {"type": "AMOUNT_OFF", "amount": 2000},
        "min_order_amount": 10000,
        "validity": {"type": "RELATIVE", "days": 30},
        "total_stock": stock,
        "limit_per_member": 1,
    });
    let created = api.post("/v1/coupon-templates", &template).await?.json(201)?;
    Ok(created["id"].as_str().context("a template without id")?.to_owned())
}

/// Waits until the leaderboard, which is folded from the event log, knows all accounts.
async fn await_board(api: &mut Api, accounts: u64, progress: &ProgressBar) -> Result<()> {
    progress.set_message("folding the leaderboard");
    progress.set_length(accounts);
    let mut known = 0;
    let mut last_moved = Instant::now();
    loop {
        let board = api.get("/v1/points/leaderboard?limit=1").await?.json(200)?;
        let members = number(&board, "members")?;
        if members >= accounts {
            return Ok(());
        }
        if members > known {
            (known, last_moved) = (members, Instant::now());
        }
        progress.set_position(members);
        ensure!(
            last_moved.elapsed() < BOARD_PATIENCE,
            "the leaderboard stands still at {members} of {accounts} members"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Gives every member of the quote scenario a coupon of each of its templates; the templates' ids.
async fn fill_wallets(api: &mut Api, target: &Target, run: &str, progress: &ProgressBar) -> Result<Vec<String>> {
    let templates = quote::create_templates(api).await?;
    let (ids, member) = (templates.clone(), quote::member_prefix(run));
    let coupons = quote::MEMBERS * templates.len() as u64;
    seed(target, coupons, progress, "filling wallets", move |number| {
        let (template, number) = (&ids[(number / quote::MEMBERS) as usize], number % quote::MEMBERS);
        format!(r#"{{"op":"claim","template_id":"{template}","member_id":"{member}{number:010}"}}"#)
    })
    .await?;
    Ok(templates)
}

/// Makes sure that accounts `0..accounts` have points, and a coupon each when `with_coupons`.
///
/// Samples decide whether an earlier run has done it already, since a million grants take a while.
async fn seed_accounts(
    api: &mut Api,
    target: &Target,
    accounts: u64,
    with_coupons: bool,
    run: &str,
    progress: &ProgressBar,
) -> Result<()> {
    let mut have_points = true;
    let mut have_coupons = true;
    // Evenly spread and with the last account among them, which an interrupted seeding does not reach.
    for sample in 1..=SEED_SAMPLES {
        let member = account_member((accounts * sample).div_ceil(SEED_SAMPLES) - 1);
        let points = api.get(&format!("/v1/members/{member}/points")).await?.json(200)?;
        have_points &= number(&points, "available")? >= LOW_POINTS;
        if with_coupons && have_coupons {
            let coupons = api.get(&format!("/v1/members/{member}/coupons?limit=1")).await?.json(200)?;
            have_coupons = coupons["data"].as_array().is_some_and(|list| !list.is_empty());
        }
    }
    if !have_points {
        seed(target, accounts, progress, "granting points", move |account| {
            let (member, points) = (account_member(account), SEED_POINTS + account * 7_919 % POINTS_SPREAD);
            format!(r#"{{"op":"grant","member_id":"{member}","points":{points},"reference":"bench"}}"#)
        })
        .await?;
    }
    if with_coupons && !have_coupons {
        let template = create_template(api, &format!("bench accounts {run}"), HUGE_STOCK).await?;
        seed(target, accounts, progress, "handing out coupons", move |account| {
            let member = account_member(account);
            format!(r#"{{"op":"claim","template_id":"{template}","member_id":"{member}"}}"#)
        })
        .await?;
    }
    Ok(())
}

/// Sends one batch line for each account, over a few connections.
async fn seed(
    target: &Target,
    accounts: u64,
    progress: &ProgressBar,
    what: &'static str,
    line: impl Fn(u64) -> String + Send + Sync + 'static,
) -> Result<()> {
    progress.set_length(accounts);
    progress.set_position(0);
    progress.set_message(what);
    let line = Arc::new(line);
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..SEED_CONNECTIONS {
        let (target, line, next, progress) = (target.clone(), line.clone(), next.clone(), progress.clone());
        workers.spawn(async move {
            let mut api = Api::connect(&target).await?;
            loop {
                let first = next.fetch_add(SEED_LINES, Ordering::Relaxed);
                if first >= accounts {
                    return Ok(());
                }
                let members = first..accounts.min(first + SEED_LINES);
                let count = members.end - members.start;
                let lines: String = members.map(|account| line(account) + "\n").collect();
                let answer = api.post_lines("/v1/batch", &lines).await?;
                ensure!(
                    answer.status == 200 && u64::from(successful_lines(&answer.body)) == count,
                    "{what}: status {}, {} of {count} lines accepted: {}",
                    answer.status,
                    successful_lines(&answer.body),
                    excerpt(&answer.body)
                );
                progress.inc(count);
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.context(what)??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse::<Scenario>().unwrap(), scenario);
        }
        assert!("nothing".parse::<Scenario>().unwrap_err().to_string().contains("hot-claim"));
    }

    #[test]
    fn batch_answers_count_by_line() {
        let body = b"{\"line\":1,\"status\":201,\"body\":{\"status\":\"AVAILABLE\"}}\n\
            {\"line\":2,\"status\":422,\"error\":{\"detail\":\"................... \\\"status\\\":201\"}}\n\
            {\"line\":3,\"status\":201,\"body\":{}}\n";
        assert_eq!(successful_lines(body), 2);
        let all = |lines| Expectation { status: 200, effect: Effect::Claims { lines } };
        assert!(all(2).is_met(200, body));
        assert!(!all(3).is_met(200, body));
        assert!(!all(2).is_met(503, body));
    }

    #[test]
    fn zipf_is_a_distribution() {
        let cumulated = zipf(100);
        assert!((cumulated[99] - 1.0).abs() < 1e-9);
        assert!((cumulated[0] / (cumulated[1] - cumulated[0]) - 2.0).abs() < 1e-9);
        assert!(cumulated.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn effects_are_compared_account_by_account() {
        let prepared = Prepared {
            scenario: Scenario::DebitUniform,
            target: Target::new("test", "127.0.0.1:1".parse().unwrap(), "secret"),
            run: String::new(),
            accounts: 3,
            batch_lines: 1,
            sequence: Arc::default(),
            templates: vec![],
            checked_accounts: vec![0, 1, 2],
        };
        let tally = prepared.tally();
        for account in [0, 2, 2] {
            tally.add(Effect::Debit { account });
        }
        let shown = |points: [u64; 3]| Shown { account_debits: points.to_vec(), ..Shown::default() };
        let check = |after| prepared.check(&shown([5, 5, 5]), &shown(after), &tally).remove(0);
        assert!(check([6, 5, 7]).holds());
        // The sum is right, yet one account lost a debit and another has one too many.
        let wrong = check([6, 6, 6]);
        assert_eq!((wrong.acknowledged, wrong.durable, wrong.differing), (3, 3, 2));
        assert!(!wrong.holds());
    }

    #[test]
    fn every_request_is_unique_and_complete() {
        let mut prepared = Prepared {
            scenario: Scenario::HotClaim,
            target: Target::new("test", "127.0.0.1:1".parse().unwrap(), "secret"),
            run: "0badcafe".into(),
            accounts: 50,
            batch_lines: 3,
            sequence: Arc::default(),
            templates: vec!["tpl_1".into(), "tpl_2".into()],
            checked_accounts: vec![],
        };
        for scenario in Scenario::ALL {
            prepared.scenario = scenario;
            let mut maker = prepared.maker(1);
            let mut keys = std::collections::HashSet::new();
            for _ in 0..50 {
                let mut out = Vec::new();
                let expectation = maker(&mut out);
                let text = String::from_utf8(out).unwrap();
                assert!(!text.contains('#'), "{text}");
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                if head.starts_with("POST") {
                    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{text}");
                }
                // A quote leaves nothing behind and needs no key.
                if head.starts_with("POST") && scenario != Scenario::Quote {
                    for line in body.lines() {
                        let body: Value = serde_json::from_str(line).unwrap();
                        let key = match head.split_once("Idempotency-Key: ") {
                            Some((_, rest)) => rest.lines().next().unwrap().to_owned(),
                            None => body["idempotency_key"].as_str().unwrap().to_owned(),
                        };
                        assert!(key.starts_with("0badcafe-") && keys.insert(key.clone()), "{key} again");
                    }
                }
                if let Effect::Debit { account } = expectation.effect {
                    assert!(head.contains(&format!("/v1/members/{}/points/debits ", account_member(account.into()))));
                }
            }
        }
    }
}
