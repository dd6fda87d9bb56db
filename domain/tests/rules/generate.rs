//! Random commands from a seed: mostly valid, over few objects, small stocks and near deadlines, so that commands meet.
//!
//! Time moves in whole hours and so does every deadline: many commands come at the very instant something ends. Answers
//! feed the pools of ids ([`Generator::learn`]); ids are reused long after their object is closed, and now and then
//! under another tenant.

use std::str::FromStr;

use scrip_domain::command::{Command, Envelope, Idempotency, Movement};
use scrip_domain::coupon::{Benefit, Definition, TemplatePatch, Validity};
use scrip_domain::id::IdSeed;
use scrip_domain::job::JobTicket;
use scrip_domain::points::{PointsValidity, Spendable, StreakBonus, TransactionType};
use scrip_domain::pricing::Rules;
use scrip_domain::task::{self, Period, TaskPatch};
use scrip_domain::tenant::Tenant;
use scrip_domain::time::{Calendar, Window};
use scrip_domain::webhook::{DisabledReason, LogPosition, NewWebhook, WebhookChange};
use scrip_domain::{
    Answer, CouponId, Day, HoldId, JobId, MemberId, OrderId, Outcome, TemplateId, TenantId, Timestamp, TransactionId,
    WebhookId,
};

pub const HOUR: i64 = 3_600_000_000;
/// 2026-01-01T00:00:00Z.
pub const START: Timestamp = Timestamp(1_767_225_600_000_000);

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// A number of `from..=to`.
    pub fn between(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() % (to - from + 1) as u64) as i64
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: i64) -> bool {
        self.between(0, 99) < percent
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.between(0, all.len() as i64 - 1) as usize) }
    }

    /// Mostly one of the last few, else any.
    fn pick_recent<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let recent = all.len().saturating_sub(8);
        let from = if self.percent(80) { recent } else { 0 };
        self.pick(&all[from..])
    }
}

/// What is known of one tenant.
#[derive(Debug, Default, Clone)]
struct Pools {
    webhooks: Vec<WebhookId>,
    templates: Vec<TemplateId>,
    coupons: Vec<(CouponId, TemplateId)>,
    holds: Vec<(HoldId, MemberId)>,
    transactions: Vec<(TransactionId, MemberId)>,
    newest_rules: i64,
    jobs: Vec<JobId>,
    /// Sender's and receiver's line.
    transfers: Vec<[(TransactionId, MemberId); 2]>,
    /// How many guests were merged into members.
    merged: u32,
    /// Requests sent with an idempotency key.
    keyed: Vec<Envelope>,
}

#[derive(Debug, Clone)]
pub struct Generator {
    random: Random,
    now: Timestamp,
    tenants: Vec<TenantId>,
    pools: Vec<Pools>,
    members: Vec<MemberId>,
    orders: Vec<OrderId>,
    /// Commands that come first: the tenants and a few templates.
    opening: Vec<Envelope>,
    /// Whether some commands take effect before the time they are recorded.
    pub backdated: bool,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        let mut random = Random::new(seed);
        let tenants: Vec<TenantId> = (0..3).map(|_| id(TenantId::PREFIX, random.wide())).collect();
        let named = |prefix: &str, count: u32| (1..=count).map(|n| format!("{prefix}-{n}")).collect::<Vec<_>>();
        let mut generator = Generator {
            now: START,
            pools: vec![Pools::default(); tenants.len()],
            members: named("m", 5).iter().map(|text| text.parse().expect("a member")).collect(),
            orders: named("o", 6).iter().map(|text| text.parse().expect("an order")).collect(),
            opening: Vec::new(),
            backdated: true,
            random,
            tenants,
        };
        for (index, tenant) in generator.tenants.clone().into_iter().enumerate() {
            let row = Tenant {
                id: tenant,
                name: format!("Shop {index}"),
                currency: "EUR".into(),
                time_zone: "UTC".into(),
                // One tenant gives no grace at all.
                refund_grace_days: index as u32,
                created_at: START,
            };
            let create = generator.envelope(tenant, Command::CreateTenant(row));
            generator.opening.push(create);
            for _ in 0..3 {
                let command = generator.create_template();
                let envelope = generator.envelope(tenant, command);
                generator.opening.push(envelope);
            }
        }
        generator.opening.reverse();
        generator
    }

    /// The next command.
    pub fn next(&mut self) -> Envelope {
        if let Some(envelope) = self.opening.pop() {
            return envelope;
        }
        if self.random.percent(40) {
            self.now.0 += HOUR * self.random.between(0, 3);
        }
        let index = self.random.between(0, self.tenants.len() as i64 - 1) as usize;
        if self.random.percent(5)
            && let Some(again) = self.repeat(index)
        {
            return again;
        }
        // A few commands name objects of another tenant.
        let source = if self.random.percent(3) { (index + 1) % self.tenants.len() } else { index };
        let command = self.command(source);
        let mut envelope = self.envelope(self.tenants[index], command);
        if self.backdated && self.random.percent(3) {
            envelope.at.0 -= HOUR * self.random.between(1, 30);
        }
        if self.random.percent(30) {
            let fingerprint = self.random.wide().to_be_bytes();
            envelope.idempotency = Some(Idempotency { key: self.random.wide().to_be_bytes(), fingerprint });
            self.pools[index].keyed.push(envelope.clone());
        }
        envelope
    }

    /// Remembers the ids that an answer tells.
    pub fn learn(&mut self, envelope: &Envelope, answer: &Answer) {
        let Some(index) = self.tenants.iter().position(|tenant| *tenant == envelope.tenant) else { return };
        let pools = &mut self.pools[index];
        let Answer::Accepted { outcome, replayed: false } = answer else { return };
        match outcome {
            Outcome::Template(row) if !pools.templates.contains(&row.id) => pools.templates.push(row.id),
            Outcome::Webhook(row) if !pools.webhooks.contains(&row.id) => pools.webhooks.push(row.id),
            Outcome::Coupon(row) if matches!(envelope.command, Command::Claim { .. }) => {
                pools.coupons.push((row.id, row.template_id));
            }
            Outcome::Rules(version) => pools.newest_rules = version.newest,
            Outcome::Job(row) if !pools.jobs.contains(&row.id) => pools.jobs.push(row.id),
            Outcome::Transaction(row) => pools.transactions.push((row.id, row.member_id.clone())),
            Outcome::Transfer(both) => {
                let sides = [&both.sent, &both.received].map(|line| (line.id, line.member_id.clone()));
                if let Command::Merge { .. } = envelope.command {
                    pools.merged += 1;
                } else if pools.transfers.iter().all(|known| known[0] != sides[0]) {
                    pools.transfers.push(sides.clone());
                }
                // Neither side can be reversed alone.
                pools.transactions.extend(sides);
            }
            Outcome::CheckIn { check_in, again: false } => {
                pools.transactions.push((check_in.transaction_id, check_in.member_id.clone()));
            }
            Outcome::Report { report, again: false } => {
                pools.transactions.extend(report.transaction_id.map(|id| (id, report.member_id.clone())));
            }
            Outcome::Hold { hold, transaction_id, .. } => {
                pools.transactions.push((*transaction_id, hold.member_id.clone()));
                if matches!(envelope.command, Command::Hold { .. }) {
                    pools.holds.push((hold.id, hold.member_id.clone()));
                }
            }
            _ => {}
        }
    }

    /// An earlier request once more: the same, or another one under its key.
    fn repeat(&mut self, index: usize) -> Option<Envelope> {
        let earlier = self.random.pick_recent(&self.pools[index].keyed)?.clone();
        let mut again = self.envelope(earlier.tenant, earlier.command);
        again.idempotency = earlier.idempotency;
        if self.random.percent(20) {
            again.command = self.command(index);
            again.idempotency.as_mut()?.fingerprint = self.random.wide().to_be_bytes();
        }
        Some(again)
    }

    fn envelope(&mut self, tenant: TenantId, command: Command) -> Envelope {
        let seed = IdSeed { unix_ms: (self.now.0 / 1000) as u64, random: self.random.wide() };
        Envelope { tenant, actor: None, command, idempotency: None, at: self.now, now: self.now, seed }
    }

    fn command(&mut self, index: usize) -> Command {
        if self.random.percent(1) {
            return self.set_rules(index);
        }
        let chosen = match self.random.between(0, 99) {
            0..2 => self.webhook_command(index),
            2..45 => self.coupon_command(index),
            45..82 => self.points_command(index),
            _ => self.member_command(index),
        };
        // Until there is something to act on, points come in.
        chosen.unwrap_or_else(|| self.grant())
    }

    fn set_rules(&mut self, index: usize) -> Command {
        let mut rules = Rules::default();
        rules.points.earn.ratio = self.random.between(1, 5);
        rules.points.earn.delay_days = self.random.percent(30).into();
        rules.points.redeem.ratio = *self.random.pick(&[1, 3, 10]).expect("some ratios");
        rules.points.redeem.base = 100;
        rules.points.redeem.max_percent = self.random.percent(50).then_some(60);
        rules.points.check_in.enabled = self.random.percent(90);
        rules.points.check_in.streak_bonuses =
            vec![StreakBonus { days: 2, points: 3 }, StreakBonus { days: 4, points: self.random.between(1, 9) }];
        rules.points.validity = match self.random.between(0, 3) {
            0 => PointsValidity::Days { days: 2 },
            1 => PointsValidity::EndOfMonth { after_months: 1 },
            2 => PointsValidity::EndOfYear { after_years: 0 },
            _ => PointsValidity::Never,
        };
        let stale = i64::from(self.random.percent(10));
        Command::SetRules {
            expected_version: self.pools[index].newest_rules + stale,
            rules: Box::new(rules),
            effective_from: self.deadline(24),
        }
    }
    fn webhook_command(&mut self, index: usize) -> Option<Command> {
        let all = ["coupon.claimed", "points.granted", "coupon.used"];
        let types =
            |random: &mut Random| all[..random.between(0, 3) as usize].iter().map(|&name| name.into()).collect();
        let url = format!("https://shop.example/{}", self.random.between(1, 3));
        if self.random.percent(30) {
            return Some(Command::CreateWebhook(Box::new(NewWebhook {
                url,
                types: types(&mut self.random),
                description: String::new(),
                secret: format!("s{}", self.random.between(1, 9)),
                starts_after: LogPosition { tx: 0, ordinal: -1 },
            })));
        }
        let webhook_id = *self.random.pick_recent(&self.pools[index].webhooks)?;
        let change = match self.random.between(0, 99) {
            0..30 => {
                let types = self.random.percent(50).then(|| types(&mut self.random));
                WebhookChange::Edit { url: self.random.percent(50).then_some(url), types, description: None }
            }
            30..50 => WebhookChange::Enable,
            50..70 => WebhookChange::Disable(*self.random.pick(&DisabledReason::ALL)?),
            70..90 => WebhookChange::Rotate { secret: "new".into(), previous_until: self.deadline(12) },
            _ => WebhookChange::Delete,
        };
        Some(Command::ChangeWebhook { webhook_id, change: Box::new(change) })
    }

    fn coupon_command(&mut self, index: usize) -> Option<Command> {
        let choice = self.random.between(0, 99);
        let template_id = match choice {
            0..45 => *self.random.pick(&self.pools[index].templates)?,
            _ => id(TemplateId::PREFIX, 0),
        };
        if choice < 45 {
            return Some(match choice {
                0..33 => self.claim(template_id),
                33..36 => self.create_template(),
                36..39 => Command::EnableTemplate { template_id, enabled: self.random.percent(70) },
                39..42 => Command::ChangeStock { template_id, change: self.random.between(-3, 5) },
                42..44 => {
                    let patch =
                        TemplatePatch { expected_version: self.random.between(1, 4), definition: self.definition() };
                    Command::UpdateTemplate { template_id, patch: Box::new(patch) }
                }
                _ => Command::DeleteTemplate(template_id),
            });
        }
        let (coupon_id, template_id) = *self.random.pick_recent(&self.pools[index].coupons)?;
        // Each coupon has a favourite order, so that steps often fit together.
        let favourite = coupon_id.0.as_u128() as usize % self.orders.len();
        let chance = self.random.percent(90);
        let order_id = if chance { self.orders[favourite].clone() } else { self.random.pick(&self.orders)?.clone() };
        Some(match choice {
            45..63 => Command::LockCoupon { coupon_id, order_id, expires_at: self.deadline(12) },
            63..78 => {
                let discount_amount = self.random.percent(50).then_some(500);
                Command::UseCoupon { coupon_id, order_id, discount_amount }
            }
            78..85 => Command::UnlockCoupon { coupon_id, order_id },
            85..93 => Command::ReturnCoupon { coupon_id, template_id, order_id },
            93..96 => Command::RevokeCoupon { coupon_id, reason: "by \"mistake\"".into() },
            _ => Command::SettleCoupon(coupon_id),
        })
    }

    fn points_command(&mut self, index: usize) -> Option<Command> {
        let choice = self.random.between(0, 99);
        let member_id = self.member();
        Some(match choice {
            0..28 => self.grant(),
            28..52 => {
                use TransactionType::{DeductAdmin, UseCoupon, UseOrder, UseProduct};
                let kind = *self.random.pick(&[UseOrder, UseOrder, UseCoupon, UseProduct, DeductAdmin])?;
                Command::Debit { member_id, movement: self.movement(kind, 60) }
            }
            52..66 => {
                let movement = self.movement(TransactionType::Hold, 60);
                Command::Hold { member_id, movement, expires_at: self.deadline(12) }
            }
            66..74 => {
                let (hold_id, member_id) = self.random.pick_recent(&self.pools[index].holds)?.clone();
                let points = self.random.percent(60).then(|| self.random.between(1, 40));
                Command::CaptureHold { member_id, hold_id, points }
            }
            74..80 => {
                let (hold_id, member_id) = self.random.pick_recent(&self.pools[index].holds)?.clone();
                Command::ReleaseHold { member_id, hold_id }
            }
            80..97 => {
                let (transaction_id, mut member_id) = self.random.pick_recent(&self.pools[index].transactions)?.clone();
                if self.random.percent(3) {
                    member_id = self.member();
                }
                let points = self.random.percent(60).then(|| self.random.between(1, 40));
                Command::Reverse { member_id, transaction_id, points, remark: Some("returned".into()) }
            }
            97 => self.job_command(index),
            _ => Command::SettleAccount(member_id),
        })
    }

    fn job_command(&mut self, index: usize) -> Command {
        let job = self.random.pick_recent(&self.pools[index].jobs).copied();
        match (job, self.random.between(0, 3)) {
            (Some(id), 1) => Command::CancelJob(id),
            (Some(id), 2) => Command::RetryJob(id),
            (Some(job_id), 3) => {
                let command = Box::new(self.grant());
                Command::Work { ticket: JobTicket { job_id, fence: 1 }, command }
            }
            _ => {
                let movement = self.movement(TransactionType::EarnTask, 100);
                let spendable = Spendable { available_from: None, expires_at: self.deadline(72) };
                Command::EnqueueGrant { member_id: self.member(), movement, spendable }
            }
        }
    }
    fn member_command(&mut self, index: usize) -> Option<Command> {
        let choice = self.random.between(0, 99);
        let merged = self.pools[index].merged;
        // Guests come one after the other, and each is merged into a member sooner or later.
        let guest: MemberId = format!("g-{merged}").parse().expect("a member");
        let day = Day(self.now.0.div_euclid(24 * HOUR));
        let member_id = if self.random.percent(15) { guest.clone() } else { self.member() };
        Some(match choice {
            0..18 => {
                let (from, points) = (self.member(), self.random.between(1, 60));
                let (reference, remark) = (Some("r-2".into()), Some("a \"gift\"".into()));
                Command::Transfer { from, to: member_id, points, reference, remark }
            }
            18..28 => {
                let [(transaction_id, from), (counterpart_id, mut to)] =
                    self.random.pick_recent(&self.pools[index].transfers)?.clone();
                if self.random.percent(3) {
                    to = self.member();
                }
                let points = self.random.percent(60).then(|| self.random.between(1, 20));
                Command::ReverseTransfer { from, to, transaction_id, counterpart_id, points, remark: None }
            }
            28..32 => Command::Merge { from: guest, into: self.member(), remark: None },
            32..36 if merged > 0 => {
                // One that is merged already: more may have come to it.
                let number = self.random.between(0, i64::from(merged) - 1);
                let from = format!("g-{number}").parse().expect("a member");
                Command::Merge { from, into: self.member(), remark: Some("again".into()) }
            }
            36..40 => {
                let movement = self.movement(TransactionType::EarnOrder, 50);
                let spendable = Spendable { available_from: self.deadline(24), expires_at: self.deadline(72) };
                Command::Grant { member_id: guest, movement, spendable }
            }
            40..70 => {
                let day = if self.random.percent(5) { Day(day.0 - 1) } else { day };
                Command::CheckIn { member_id, day, calendar: Box::new(calendar(self.now)) }
            }
            _ => {
                let key = format!("t-{}", self.random.between(1, 4)).parse().expect("a task");
                match choice {
                    70..74 => Command::CreateTask { key, definition: Box::new(self.task()) },
                    74..78 => {
                        let (expected_version, enabled) = (self.random.between(1, 4), self.random.percent(70));
                        let patch = TaskPatch { expected_version, enabled, definition: self.task() };
                        Command::UpdateTask { key, patch: Box::new(patch) }
                    }
                    78 if self.random.percent(10) => Command::DeleteTask(key),
                    _ => {
                        let completion_id = format!("c-{}", self.random.between(1, 30)).parse().expect("an id");
                        let calendar = Box::new(calendar(self.now));
                        Command::CompleteTask { member_id, key, completion_id, day, calendar }
                    }
                }
            }
        })
    }

    fn task(&mut self) -> task::Definition {
        let now = self.now.0;
        task::Definition {
            name: format!("Task {}", self.random.between(1, 3)),
            description: String::new(),
            points: self.random.between(1, 30),
            period: *self.random.pick(&Period::ALL).expect("some periods"),
            limit_per_period: self.random.between(1, 3),
            total_limit: self.random.percent(30).then(|| self.random.between(2, 8)),
            target: self.random.between(1, 3),
            event_type: None,
            window: Window {
                starts_at: self.random.percent(10).then(|| Timestamp(now + HOUR * self.random.between(-2, 12))),
                ends_at: self.random.percent(10).then(|| Timestamp(now + HOUR * self.random.between(12, 96))),
            },
        }
    }

    fn member(&mut self) -> MemberId {
        let members = self.members.clone();
        self.random.pick(&members).expect("some members").clone()
    }

    fn grant(&mut self) -> Command {
        use TransactionType::{EarnAdmin, EarnCheckin, EarnOrder, EarnTask};
        let kind = *self.random.pick(&[EarnOrder, EarnCheckin, EarnTask, EarnAdmin]).expect("some kinds");
        let movement = self.movement(kind, 100);
        let available_from = if self.random.percent(15) { self.deadline(24) } else { None };
        let spendable = Spendable { available_from, expires_at: self.deadline(72) };
        Command::Grant { member_id: self.member(), movement, spendable }
    }

    fn movement(&mut self, kind: TransactionType, most: i64) -> Movement {
        let points = self.random.between(1, most);
        Movement { points, kind, reference: Some("r-1".into()), remark: None }
    }

    /// None, an instant within so many hours, or (seldom) now or before.
    fn deadline(&mut self, hours: i64) -> Option<Timestamp> {
        match self.random.between(0, 99) {
            0..25 => None,
            25..28 => Some(Timestamp(self.now.0 - HOUR * self.random.between(0, 1))),
            _ => Some(Timestamp(self.now.0 + HOUR * self.random.between(1, hours))),
        }
    }

    fn claim(&mut self, template_id: TemplateId) -> Command {
        let member_level = match self.random.between(0, 2) {
            0 => None,
            1 => Some("SILVER".into()),
            _ => Some("GOLD".into()),
        };
        Command::Claim { template_id, member_id: self.member(), member_level }
    }

    fn create_template(&mut self) -> Command {
        let total_stock = self.random.percent(80).then(|| self.random.between(1, 12));
        Command::CreateTemplate { definition: Box::new(self.definition()), total_stock }
    }

    fn definition(&mut self) -> Definition {
        let now = self.now.0;
        let validity = if self.random.percent(50) {
            Validity::Relative { days: self.random.between(1, 3) as u32 }
        } else {
            let starts_at = now + HOUR * self.random.between(-24, 24);
            let ends_at = starts_at + HOUR * self.random.between(1, 96);
            Validity::Fixed { starts_at: Timestamp(starts_at), ends_at: Timestamp(ends_at) }
        };
        let starts_at = self.random.percent(30).then(|| Timestamp(now + HOUR * self.random.between(-2, 12)));
        let ends_at = self.random.percent(30).then(|| Timestamp(now + HOUR * self.random.between(12, 96)));
        let member_levels = if self.random.percent(20) { vec!["GOLD".into()] } else { Vec::new() };
        let name = format!("Template {}", self.random.between(1, 3));
        Definition {
            member_levels,
            distribution: Window { starts_at, ends_at },
            limit_per_member: self.random.between(1, 6),
            refund_extend_days: self.random.between(0, 2) as u32,
            ..Definition::new(name, Benefit::AmountOff { amount: 500 }, validity)
        }
    }
}

/// A calendar of months of 30 days and years of 360.
pub fn calendar(at: Timestamp) -> Calendar {
    let ends = |hours: i64, ahead: u8| {
        let current = at.0.div_euclid(hours * HOUR);
        (1..=i64::from(ahead) + 1).map(|after| Timestamp((current + after) * hours * HOUR)).collect()
    };
    Calendar { month_ends: ends(30 * 24, Calendar::MONTHS_AHEAD), year_ends: ends(360 * 24, Calendar::YEARS_AHEAD) }
}

/// An id of any type from a number.
fn id<T: FromStr<Err: std::fmt::Debug>>(prefix: &str, number: u128) -> T {
    format!("{prefix}{number:032x}").parse().expect("a well-formed id")
}
