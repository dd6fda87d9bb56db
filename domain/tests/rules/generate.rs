//! Random commands from a seed: mostly valid, over few objects, small stocks and near deadlines, so that commands meet.
//!
//! Time moves in whole hours and so does every deadline: many commands come at the very instant something ends. Answers
//! feed the pools of ids ([`Generator::learn`]); ids are reused long after their object is closed, and now and then
//! under another tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use scrip_domain::bulk::{Bulk, ChunkWork, GrantRow, Recipient, Staged};
use scrip_domain::command::{Command, Envelope, Idempotency, Movement};
use scrip_domain::condition::Condition;
use scrip_domain::coupon::{
    Benefit, CodeDigest, CodeKind, CodeStatus, CompensationStatus, CouponStatus, Definition, ImportedCoupon,
    NewCodeBatch, TemplatePatch, Validity,
};
use scrip_domain::id::IdSeed;
use scrip_domain::job::{ExtensionPage, ExtensionProgress, JobKind, JobTicket};
use scrip_domain::order::{Quoted, RefundRequest, Reservation};
use scrip_domain::points::{
    AdjustmentRequest, AdjustmentStatus, Campaign, Columns, DebtPolicy, ImportedAccount, ImportedAction, ImportedStep,
    PointsValidity, ReminderPage, Spendable, StreakBonus, TransactionType, rehearse,
};
use scrip_domain::pricing::{Attributes, Basket, Line, Rules};
use scrip_domain::task::{self, Period, TaskPatch};
use scrip_domain::tenant::{ApiKey, NewProgram, Scope, Tenant};
use scrip_domain::time::{Calendar, LocalTime, Window};
use scrip_domain::webhook::{DisabledReason, LogPosition, NewWebhook, WebhookChange};
use scrip_domain::{
    AdjustmentId, Answer, BulkId, CodeBatchId, CompensationId, CouponId, Day, HoldId, JobId, KeyId, LotId, MemberId,
    OrderId, Outcome, TaskKey, TemplateId, TenantId, Timestamp, TransactionId, WebhookId,
};

pub const HOUR: i64 = 3_600_000_000;
/// 2026-01-01T00:00:00Z.
pub const START: Timestamp = Timestamp(1_767_225_600_000_000);

/// What campaigns ask of orders: each fact, unknown attributes, and what cannot be computed for some orders. The model knows by itself
/// what each comes to.
const CAMPAIGN_CONDITIONS: &[&str] = &[
    "order.amount >= 1000",
    "eligible.quantity > 2 && order.freight == 0",
    "eligible.amount < order.amount",
    "member.level == 'GOLD' || order.attributes.channel == 'app'",
    "order.lines.exists(line, line.unit_price == 333 && 'toys' in line.category_ids)",
    "!('books' in order.categories)",
    "order.attributes.channel != 'web'",
    "member.attributes.orders < 3",
    "2000 / (order.quantity - 3) > 0",
];

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

/// The day in UTC, with months of 30 days and years of 365 from then on.
fn calendar_at(at: Timestamp) -> std::sync::Arc<Calendar> {
    let ends = |days: i64, count: i64| (1..=count).map(|n| Timestamp(at.0 + n * days * 24 * HOUR)).collect();
    Calendar { month_ends: ends(30, 25), year_ends: ends(365, 6), day: Day(at.0.div_euclid(24 * HOUR)) }.into()
}

fn on_day(calendar: std::sync::Arc<Calendar>, day: Day) -> std::sync::Arc<Calendar> {
    Calendar { day, ..(*calendar).clone() }.into()
}

/// Calendars are those of the time as of which a request is decided.
pub fn set_calendar(command: &mut Command, at: Timestamp) {
    if let Command::PayOrder { calendar, .. }
    | Command::ConfirmOrder { calendar, .. }
    | Command::SettleOrder { calendar, .. } = command
    {
        *calendar = calendar_at(at);
    }
    // Of which day these are is theirs to say: some come late.
    if let Command::CheckIn { calendar, .. } | Command::CompleteTask { calendar, .. } = command {
        *calendar = on_day(calendar_at(at), calendar.day);
    }
}

/// What is known of one tenant.
#[derive(Debug, Default, Clone)]
struct Pools {
    webhooks: Vec<WebhookId>,
    templates: Vec<TemplateId>,
    coupons: Vec<(CouponId, TemplateId)>,
    /// With its template, and the number of its next code.
    batches: Vec<(CodeBatchId, TemplateId, i64)>,
    codes: Vec<(CodeDigest, CodeBatchId, TemplateId)>,
    holds: Vec<(HoldId, MemberId)>,
    transactions: Vec<(TransactionId, MemberId)>,
    newest_rules: i64,
    adjustments: Vec<(AdjustmentId, MemberId)>,
    /// Those of operators.
    keys: Vec<KeyId>,
    jobs: Vec<JobId>,
    /// With the number of its next page.
    extensions: Vec<(JobId, i64)>,
    bulks: Vec<Bulk>,
    owned: Vec<(CouponId, MemberId)>,
    orders: Vec<Reservation>,
    cases: Vec<CompensationId>,
    announced: Option<Timestamp>,
    reminded: Option<(Timestamp, LotId)>,
    /// Sender's and receiver's line.
    transfers: Vec<[(TransactionId, MemberId); 2]>,
    /// How many guests were merged into members.
    merged: u32,
    /// How many members came from elsewhere.
    imported: u32,
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
    /// The chunks of every bulk that was asked for.
    staged: BTreeMap<BulkId, Vec<ChunkWork>>,
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
            staged: BTreeMap::new(),
            backdated: true,
            random,
            tenants,
        };
        for (index, tenant) in generator.tenants.clone().into_iter().enumerate() {
            // One tenant gives no grace at all.
            let (name, refund_grace_days) = (format!("Shop {index}"), index as u32);
            // The last is a program of the first, whose keys ask for both.
            let owner = if index == 2 { generator.tenants[0] } else { tenant };
            let create = if owner == tenant {
                Command::CreateTenant(Tenant {
                    id: tenant,
                    name,
                    currency: "EUR".into(),
                    time_zone: "UTC".into(),
                    refund_grace_days,
                    created_at: START,
                    program: None,
                })
            } else {
                let (code, grace) = ("MILES".parse().expect("a code"), Some(refund_grace_days));
                Command::CreateProgram(Box::new(NewProgram {
                    id: tenant,
                    code,
                    name,
                    time_zone: None,
                    refund_grace_days: grace,
                }))
            };
            let create = generator.envelope(owner, create);
            generator.opening.push(create);
            for name in ["desk", "till"] {
                let key = ApiKey {
                    id: id(KeyId::PREFIX, generator.random.wide()),
                    tenant_id: owner,
                    name: name.into(),
                    scope: Scope::Operator,
                    member_id: None,
                    expires_at: None,
                    revoked_at: None,
                    created_at: START,
                    adjustment_limit: None,
                };
                generator.pools[index].keys.push(key.id);
                let mut secret_digest = [0; 32];
                secret_digest[..16].copy_from_slice(&generator.random.wide().to_be_bytes());
                let create = generator.envelope(owner, Command::CreateApiKey { key, secret_digest });
                generator.opening.push(create);
            }
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
        if let Command::Adjust(_) | Command::ApproveAdjustment { .. } | Command::RejectAdjustment { .. } =
            envelope.command
        {
            let keys = self.pools[index].keys.clone();
            envelope.actor = self.random.pick(&keys).copied();
        }
        if self.backdated && self.random.percent(3) {
            envelope.at.0 -= HOUR * self.random.between(1, 30);
            set_calendar(&mut envelope.command, envelope.at);
        }
        if self.random.percent(30) {
            let fingerprint = self.random.wide().to_be_bytes();
            envelope.idempotency = Some(Idempotency { key: self.random.wide().to_be_bytes(), fingerprint });
            self.pools[index].keyed.push(envelope.clone());
        }
        envelope
    }

    /// What was staged for a bulk: a store must have it before the bulk is made.
    pub fn staged(&self, id: BulkId) -> &[ChunkWork] {
        self.staged.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Remembers the ids that an answer tells.
    pub fn learn(&mut self, envelope: &Envelope, answer: &Answer) {
        let Some(index) = self.tenants.iter().position(|tenant| *tenant == envelope.tenant) else { return };
        let pools = &mut self.pools[index];
        let Answer::Accepted { outcome, replayed: false } = answer else { return };
        match outcome {
            Outcome::Template(row) if !pools.templates.contains(&row.id) => pools.templates.push(row.id),
            Outcome::Webhook(row) if !pools.webhooks.contains(&row.id) => pools.webhooks.push(row.id),
            Outcome::Order(row) => {
                if let Command::ReserveOrder(asked) = &envelope.command {
                    pools.orders.push((**asked).clone());
                }
                // What an order has taken is named by other commands as well, which must be refused.
                pools.holds.extend(row.hold_id.map(|id| (id, row.member_id.clone())));
                let lines = [row.spend_id, row.earn_id].into_iter().flatten();
                pools.transactions.extend(lines.map(|id| (id, row.member_id.clone())));
            }
            Outcome::Refund(row) => {
                pools.cases.extend(row.coupons.iter().filter_map(|coupon| coupon.compensation_id));
            }
            Outcome::Coupon(row) if !pools.coupons.contains(&(row.id, row.template_id)) => {
                pools.owned.push((row.id, row.member_id.clone()));
                pools.coupons.push((row.id, row.template_id));
            }
            Outcome::Exchange(made) if !pools.coupons.contains(&(made.coupon.id, made.coupon.template_id)) => {
                pools.owned.push((made.coupon.id, made.coupon.member_id.clone()));
                pools.coupons.push((made.coupon.id, made.coupon.template_id));
                pools.transactions.push((made.transaction.id, made.coupon.member_id.clone()));
            }
            Outcome::Rules(version) => pools.newest_rules = version.newest,
            Outcome::Announced(_) => {
                if let Command::AnnounceWindows { until, .. } = &envelope.command {
                    pools.announced = Some(*until);
                }
                if let Command::RemindExpiry(page) = &envelope.command {
                    pools.reminded = Some(page.until);
                }
            }
            Outcome::Job(row) => {
                if !pools.jobs.contains(&row.id) {
                    pools.jobs.push(row.id);
                }
                if row.kind == JobKind::ExtendCoupons {
                    let progress: ExtensionProgress = serde_json::from_str(&row.progress).expect("a progress");
                    pools.extensions.retain(|(id, _)| *id != row.id);
                    pools.extensions.push((row.id, progress.pages));
                }
            }
            Outcome::Bulk(row) => {
                if !pools.jobs.contains(&row.job_id()) {
                    pools.jobs.push(row.job_id());
                }
                pools.bulks.retain(|bulk| bulk.id != row.id);
                pools.bulks.push((**row).clone());
            }
            Outcome::CodeBatch(row) => {
                if let Command::CreateCodeBatch(new) = &envelope.command {
                    pools.batches.push((row.id, row.template_id, row.next_number));
                    pools.codes.extend(new.shared.map(|digest| (digest, row.id, row.template_id)));
                }
            }
            Outcome::CodesAdded { batch, .. } => {
                if let Some(known) = pools.batches.iter_mut().find(|(id, ..)| *id == batch.id) {
                    known.2 = batch.next_number;
                }
                if let Command::AddCodes { digests, .. } = &envelope.command {
                    pools.codes.extend(digests.iter().map(|digest| (*digest, batch.id, batch.template_id)));
                }
            }
            Outcome::Transaction(row) => pools.transactions.push((row.id, row.member_id.clone())),
            Outcome::Adjustment(row) => {
                if row.status == AdjustmentStatus::Pending {
                    pools.adjustments.push((row.id, row.member_id.clone()));
                }
                pools.transactions.extend(row.transaction_id.map(|id| (id, row.member_id.clone())));
            }
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
            Outcome::Imported(made) => {
                let lines = made.lines.iter().map(|id| (*id, made.member_id.clone()));
                pools.transactions.extend(lines);
                pools.holds.extend(made.holds.iter().map(|id| (*id, made.member_id.clone())));
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
        set_calendar(&mut again.command, again.at);
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
        if self.random.percent(30) {
            return self.order_command(index).unwrap_or_else(|| self.reserve(index));
        }
        let chosen = match self.random.between(0, 99) {
            0..2 => self.webhook_command(index),
            2..6 => self.bulk_command(index),
            6..45 => self.coupon_command(index),
            45..82 => self.points_command(index),
            _ => self.member_command(index),
        };
        // Until there is something to act on, points come in.
        chosen.unwrap_or_else(|| self.grant())
    }

    fn order_command(&mut self, index: usize) -> Option<Command> {
        let choice = self.random.between(0, 99);
        if choice < 35 {
            return Some(self.reserve(index));
        }
        if choice >= 96 {
            let status = *self.random.pick(&[CompensationStatus::Resolved, CompensationStatus::Dismissed])?;
            let compensation_id = *self.random.pick_recent(&self.pools[index].cases)?;
            return Some(Command::CloseCompensation { compensation_id, status, remark: "as agreed".into() });
        }
        let asked = self.random.pick_recent(&self.pools[index].orders)?.clone();
        let (order_id, mut member_id) = (asked.order_id.clone(), asked.member_id.clone());
        if self.random.percent(2) {
            member_id = self.member();
        }
        Some(match choice {
            35..62 => Command::PayOrder { member_id, order_id, calendar: self.calendar() },
            62..70 => {
                let reason = self.random.percent(50).then(|| "changed \"their\" mind".into());
                Command::CancelOrder { member_id, order_id, reason }
            }
            70..90 => Command::RefundOrder { member_id, order_id, refund: Box::new(self.refund(&asked)) },
            90..93 => {
                // Once more, or something else under the same id.
                let mut again = asked;
                again.basket.freight += i64::from(self.random.percent(30));
                Command::ReserveOrder(Box::new(again))
            }
            93..96 => Command::ConfirmOrder { member_id, order_id, calendar: self.calendar() },
            _ => Command::SettleOrder { member_id, order_id, calendar: self.calendar() },
        })
    }

    fn calendar(&self) -> std::sync::Arc<Calendar> {
        calendar_at(self.now)
    }

    fn reserve(&mut self, index: usize) -> Command {
        // Some by members who are merged into others sooner or later.
        let guest = self.random.between(0, i64::from(self.pools[index].merged));
        let member_id =
            if self.random.percent(10) { format!("g-{guest}").parse().expect("a member") } else { self.member() };
        let own = self.pools[index].owned.iter().filter(|(_, owner)| *owner == member_id).map(|(id, _)| *id);
        let mut own: Vec<CouponId> = own.collect();
        let mut coupon_ids = Vec::new();
        let wanted = *self.random.pick(&[0, 1, 1, 2]).expect("some counts");
        while coupon_ids.len() < wanted && !own.is_empty() {
            let recent = own.len().saturating_sub(4) as i64;
            let place = self.random.between(recent, own.len() as i64 - 1) as usize;
            coupon_ids.push(own.swap_remove(place));
        }
        if self.random.percent(3) {
            coupon_ids.extend(self.random.pick(&self.pools[index].owned).map(|(id, _)| *id));
        }
        let lines = (0..self.random.between(1, 3)).map(|n| Line {
            item_id: format!("i-{n}"),
            product_id: format!("p-{n}"),
            sku_id: None,
            category_ids: self.categories(),
            unit_price: *self.random.pick(&[0, 99, 250, 333, 1_000]).expect("some prices"),
            quantity: self.random.between(1, 4),
            points_ratio: *self.random.pick(&[100, 100, 50, 0, 300]).expect("some ratios"),
        });
        let lines: Vec<Line> = lines.collect();
        let number = self.pools[index].orders.len() as i64 + self.random.between(0, 2);
        let basket = Basket {
            lines,
            freight: *self.random.pick(&[0, 0, 500]).expect("some freight"),
            member_level: self.random.percent(30).then(|| "GOLD".into()),
            local_time: LocalTime { day: 0, minute: 0 },
            attributes: self.attributes("channel", &["app".into(), "app".into(), "web".into(), 7.into()]),
            member_attributes: self.attributes("orders", &[0.into(), 2.into(), 3.into(), "many".into()]),
        };
        let points = if self.random.percent(60) { self.random.between(1, 60) } else { 0 };
        let expires_at = self.deadline(12).unwrap_or(Timestamp(self.now.0 + 6 * HOUR));
        let order_id = format!("b-{number}").parse().expect("an order");
        // As quoted a while ago, by rules that held then.
        let quoted = self.random.percent(15).then(|| {
            let rules_version = self.random.between(0, self.pools[index].newest_rules);
            let expires_at = Timestamp(self.now.0 + HOUR * self.random.between(0, 6));
            Quoted { rules_version, at: Timestamp(self.now.0 - HOUR), expires_at }
        });
        let reservation = Reservation { order_id, member_id, basket, coupon_ids, points, expires_at, quoted };
        Command::ReserveOrder(Box::new(reservation))
    }

    fn categories(&mut self) -> Vec<String> {
        let all = ["books", "toys"];
        all.into_iter().filter(|_| self.random.percent(40)).map(str::to_owned).collect()
    }

    /// One of the values, half of the time.
    fn attributes(&mut self, name: &str, values: &[serde_json::Value]) -> Attributes {
        let value = self.random.percent(50).then(|| self.random.pick(values).expect("some values").clone());
        value.into_iter().map(|value| (name.to_owned(), value)).collect()
    }

    fn campaign(&mut self) -> Campaign {
        let now = self.now.0;
        let condition = self.random.pick(CAMPAIGN_CONDITIONS).filter(|_| self.random.percent(70));
        Campaign {
            name: format!("Campaign {}", self.random.between(1, 9)),
            window: Window {
                starts_at: self.random.percent(30).then(|| Timestamp(now + HOUR * self.random.between(-2, 24))),
                ends_at: self.random.percent(30).then(|| Timestamp(now + HOUR * self.random.between(24, 200))),
            },
            categories: self.categories(),
            member_levels: if self.random.percent(20) { vec!["GOLD".into()] } else { Vec::new() },
            condition: condition.map(|source| Condition::compile(source).expect("a condition")),
            percent: *self.random.pick(&[0, 50, 150, 200, 300, 1_000]).expect("some factors"),
        }
    }

    fn refund(&mut self, asked: &Reservation) -> RefundRequest {
        let mut lines = Vec::new();
        for line in &asked.basket.lines {
            if self.random.percent(60) {
                lines.push((line.item_id.clone(), self.random.between(1, 2)));
            }
        }
        if self.random.percent(2) {
            lines.push(("i-9".into(), 1));
        }
        let full = self.random.percent(35);
        RefundRequest {
            refund_id: format!("r-{}", self.random.between(1, 6)).parse().expect("a refund"),
            freight: if full || self.random.percent(80) { 0 } else { self.random.between(1, 300) },
            lines: (!full).then_some(lines),
            return_coupons: self.random.percent(90),
            remark: None,
        }
    }

    fn set_rules(&mut self, index: usize) -> Command {
        let mut rules = Rules::default();
        rules.points.earn.ratio = self.random.between(1, 5);
        rules.points.earn.delay_days = self.random.percent(30).into();
        let mut most = |of: i64, from: i64, to: i64| self.random.percent(of).then(|| self.random.between(from, to));
        rules.points.earn.max_points_per_order = most(15, 0, 60);
        rules.points.earn.max_points_per_day = most(30, 1, 80);
        rules.points.earn.max_points_per_week = most(20, 20, 200);
        rules.points.earn.max_points_per_month = most(20, 50, 400);
        rules.points.campaigns = (0..self.random.between(0, 4)).map(|_| self.campaign()).collect();
        rules.points.redeem.ratio = *self.random.pick(&[1, 3, 10]).expect("some ratios");
        rules.points.redeem.base = 100;
        rules.points.redeem.max_percent = self.random.percent(50).then_some(60);
        rules.points.check_in.enabled = self.random.percent(90);
        rules.points.approval_above = self.random.percent(50).then(|| self.random.between(20, 60));
        rules.points.debt_policy = *self.random.pick(&DebtPolicy::ALL).expect("some policies");
        rules.points.check_in.streak_bonuses =
            vec![StreakBonus { days: 2, points: 3 }, StreakBonus { days: 4, points: self.random.between(1, 9) }];
        rules.points.check_in.make_up_days = *self.random.pick(&[0, 3, 3, 10, 31]).expect("some days");
        rules.points.check_in.make_up_price = if self.random.percent(50) { self.random.between(1, 20) } else { 0 };
        rules.points.check_in.make_ups_per_month = self.random.percent(30).then(|| self.random.between(1, 5) as u32);
        rules.points.validity = match self.random.between(0, 6) {
            0 => PointsValidity::Days { days: 2 },
            1 => PointsValidity::EndOfMonth { after_months: 1 },
            2 => PointsValidity::EndOfYear { after_years: 0 },
            3 | 4 => PointsValidity::Inactivity { days: self.random.between(1, 4) as u32 },
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

    /// Commands on codes: few codes, so that they meet again.
    fn code_command(&mut self, index: usize) -> Option<Command> {
        let statuses = [CodeStatus::Active, CodeStatus::Disabled, CodeStatus::Active, CodeStatus::Revoked];
        let choice = self.random.between(0, 99);
        if choice < 20 {
            let template_id = *self.random.pick(&self.pools[index].templates)?;
            return Some(Command::CreateCodeBatch(Box::new(self.new_batch(template_id))));
        }
        if choice < 50 {
            let (digest, batch_id, template_id) = *self.random.pick_recent(&self.pools[index].codes)?;
            let Command::Claim { member_id, member_level, .. } = self.claim(template_id) else { return None };
            return Some(Command::ClaimCode { digest, batch_id, template_id, member_id, member_level });
        }
        let (batch_id, _, next) = *self.random.pick_recent(&self.pools[index].batches)?;
        Some(match choice {
            50..80 => {
                let count = self.random.between(0, 4);
                let digests: Vec<CodeDigest> = (0..count).map(|_| self.digest()).collect();
                let max_uses = if self.random.percent(30) { vec![Some(2); digests.len()] } else { Vec::new() };
                let mut distinct = digests.clone();
                distinct.sort_unstable();
                distinct.dedup();
                // A page has each code once: whoever makes it has seen to that.
                let digests = if distinct.len() == digests.len() { digests } else { distinct };
                let from_number = if self.random.percent(90) { next } else { self.random.between(0, 5) };
                let mut holders = Vec::new();
                if self.random.percent(30) {
                    holders = digests.iter().map(|_| Some(self.member())).collect();
                }
                Command::AddCodes { batch_id, from_number, digests, max_uses, holders, last: self.random.percent(40) }
            }
            80..86 => Command::ChangeCodeBatch { batch_id, status: *self.random.pick(&statuses)? },
            86..90 => {
                let (digest, batch_id, _) = *self.random.pick(&self.pools[index].codes)?;
                let member_id = if self.random.percent(60) { Some(self.member()) } else { None };
                Command::AssignCode { batch_id, digest, member_id }
            }
            90..96 => {
                let (digest, batch_id, _) = *self.random.pick(&self.pools[index].codes)?;
                Command::ChangeCode { batch_id, digest, status: *self.random.pick(&statuses)? }
            }
            _ => Command::SealCodeBatch(batch_id),
        })
    }

    fn import_command(&mut self, index: usize) -> Option<Command> {
        if self.random.percent(10) {
            let (total_stock, enabled) = (Some(self.random.between(1, 9)), self.random.percent(70));
            let template_id =
                id(TemplateId::PREFIX, (index << 24) as u128 + 0xA000 + self.random.between(0, 3) as u128);
            let definition = Box::new(self.definition());
            return Some(Command::ImportTemplate { template_id, definition, total_stock, enabled });
        }
        let status = *self.random.pick(&CouponStatus::ALL)?;
        let hours = |random: &mut Random, from, to| Timestamp(HOUR * random.between(from, to));
        let claimed_at = Timestamp(self.now.0 - hours(&mut self.random, 10, 50).0);
        let valid_until = match status {
            CouponStatus::Expired => Timestamp(claimed_at.0 + hours(&mut self.random, 1, 10).0),
            _ => Timestamp(self.now.0 + hours(&mut self.random, 1, 60).0),
        };
        Some(Command::ImportCoupon(Box::new(ImportedCoupon {
            coupon_id: id(CouponId::PREFIX, (index << 24) as u128 + 0xB000 + self.random.between(0, 40) as u128),
            template_id: *self.random.pick(&self.pools[index].templates)?,
            member_id: self.member(),
            status,
            claimed_at,
            valid_from: claimed_at,
            valid_until,
            order_id: Some(self.random.pick(&self.orders)?.clone()),
            used_at: Some(Timestamp(claimed_at.0 + HOUR)),
            discount_amount: Some(100),
        })))
    }

    fn digest(&mut self) -> CodeDigest {
        let mut digest = [0xC0; 16];
        digest[0] = self.random.between(0, 255) as u8;
        digest
    }

    fn new_batch(&mut self, template_id: TemplateId) -> NewCodeBatch {
        let kind = *self.random.pick(&CodeKind::ALL).expect("some kinds");
        let max_uses = match kind {
            CodeKind::Shared => self.random.percent(50).then(|| self.random.between(1, 3)),
            CodeKind::Unique | CodeKind::Imported => Some(1),
        };
        NewCodeBatch {
            template_id,
            kind,
            name: "Codes".into(),
            code_count: match kind {
                CodeKind::Shared => 1,
                CodeKind::Unique => self.random.between(1, 6),
                CodeKind::Imported => 0,
            },
            max_uses,
            pattern: "####".into(),
            alphabet: "ABC".into(),
            check_character: false,
            key_id: 1,
            nonce: (kind == CodeKind::Unique).then_some([7; 16]),
            shared: (kind == CodeKind::Shared).then(|| self.digest()),
        }
    }

    fn coupon_command(&mut self, index: usize) -> Option<Command> {
        if self.random.percent(15) {
            return self.code_command(index);
        }
        if self.random.percent(2) {
            return self.import_command(index);
        }
        let choice = self.random.between(0, 99);
        let template_id = match choice {
            0..45 => *self.random.pick(&self.pools[index].templates)?,
            _ => id(TemplateId::PREFIX, 0),
        };
        if choice < 45 {
            return Some(match choice {
                0..28 => self.claim(template_id),
                28..33 => {
                    let Command::Claim { template_id, member_id, member_level } = self.claim(template_id) else {
                        return None;
                    };
                    Command::Exchange { template_id, member_id, member_level }
                }
                33..36 => self.create_template(),
                36..39 => Command::EnableTemplate { template_id, enabled: self.random.percent(70) },
                39..42 => Command::ChangeStock { template_id, change: self.random.between(-3, 5) },
                42 if self.random.percent(10) => Command::ArchiveTemplate(template_id),
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
            93..94 => {
                let to_member_id = self.member();
                Command::TransferCoupon { coupon_id, template_id, to_member_id, reason: Some("a \"gift\"".into()) }
            }
            94..95 => {
                let valid_until = Timestamp(self.now.0 + HOUR * self.random.between(-5, 80));
                Command::ExtendCoupon { coupon_id, valid_until }
            }
            95..96 => Command::RevokeCoupon { coupon_id, reason: "by \"mistake\"".into() },
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
            98 => self.import_account(index),
            _ => Command::SettleAccount(member_id),
        })
    }

    /// A member of elsewhere with a short life: mostly one that could have been, of a new member, told as it was.
    fn import_account(&mut self, index: usize) -> Command {
        use TransactionType::{DeductAdmin, EarnAdmin, EarnOrder, Hold, UseOrder};
        let mut at = Timestamp(self.now.0 - HOUR * self.random.between(10, 90));
        let mut steps = Vec::new();
        for place in 0..self.random.between(1, 9) as usize {
            let earlier = |random: &mut Random| random.between(0, place as i64) as usize;
            let action = match self.random.between(0, 99) {
                choice if choice < 35 || place == 0 => {
                    let kind = *self.random.pick(&[EarnOrder, EarnAdmin]).expect("some kinds");
                    let life = self.random.percent(60).then(|| self.random.between(1, 120));
                    let expires_at = life.map(|hours| Timestamp(at.0 + HOUR * hours));
                    ImportedAction::Grant { movement: self.movement(kind, 90), expires_at }
                }
                0..60 => {
                    let kind = *self.random.pick(&[UseOrder, UseOrder, DeductAdmin]).expect("some kinds");
                    ImportedAction::Debit { movement: self.movement(kind, 25) }
                }
                60..75 => {
                    let of_grant = self.random.percent(50).then(|| earlier(&mut self.random));
                    ImportedAction::Hold { movement: self.movement(Hold, 25), of_grant }
                }
                // What comes just before is what most steps go back to.
                75..82 => ImportedAction::Release { hold: place - 1 },
                82..89 => ImportedAction::Capture { hold: place - 1 },
                89..92 => {
                    let (grant, points) = (earlier(&mut self.random), self.random.between(1, 30));
                    ImportedAction::Owe { grant, points, remark: None }
                }
                _ => {
                    let points = self.random.between(1, 12);
                    ImportedAction::Refund { debit: place - 1, points, remark: Some("returned".into()) }
                }
            };
            steps.push(ImportedStep { at, action });
            at.0 = (at.0 + HOUR * self.random.between(-1, 12).max(0)).min(self.now.0);
        }
        let number = self.pools[index].imported;
        self.pools[index].imported += 1;
        let member_id =
            if self.random.percent(10) { self.member() } else { format!("e-{number}").parse().expect("a member") };
        let mut imported = ImportedAccount { member_id, steps, expected: Columns::default() };
        // What cannot have been is left out, most times.
        let envelope = self.envelope(self.tenants[index], Command::SettleAccount(imported.member_id.clone()));
        let rehearsal = loop {
            match rehearse(&envelope, &imported) {
                Err((place, _)) if self.random.percent(97) && imported.steps.len() > 1 => {
                    imported.steps.truncate(place.max(1));
                }
                result => break result,
            }
        };
        imported.expected = rehearsal.map_or(Columns::default(), |rehearsal| rehearsal.made.columns);
        if self.random.percent(5) {
            imported.expected.available += 1;
        }
        Command::ImportAccount(Box::new(imported))
    }

    /// Bulks of few rows and chunks, and extensions of few pages: many end, and some are met again behind their end.
    fn bulk_command(&mut self, index: usize) -> Option<Command> {
        let choice = self.random.between(0, 99);
        if choice < 30 {
            return Some(self.create_bulk(index));
        }
        if choice < 40 {
            let template_id = *self.random.pick(&self.pools[index].templates)?;
            let valid_until = Timestamp(self.now.0 + HOUR * self.random.between(0, 90));
            return Some(Command::EnqueueExtension { template_id, valid_until, ends_before: None });
        }
        if choice < 55 {
            let (job_id, pages) = *self.random.pick_recent(&self.pools[index].extensions)?;
            let coupons = self.pools[index].coupons.len() as i64;
            let first = self.random.between(0, coupons) as usize;
            let coupon_ids: Vec<CouponId> =
                self.pools[index].coupons[first..].iter().take(4).map(|(id, _)| *id).collect();
            let page = ExtensionPage {
                number: if self.random.percent(90) { pages } else { self.random.between(0, 3) },
                seen: coupon_ids.len() as i64 + 1,
                coupon_ids,
                last: (self.member(), 1),
            };
            return Some(Command::ExtendPage { job_id, page: Box::new(page) });
        }
        let bulk = self.random.pick_recent(&self.pools[index].bulks)?.clone();
        if choice < 58 {
            return Some(Command::CancelBulk(bulk.id));
        }
        let number = if self.random.percent(90) { bulk.next_chunk } else { self.random.between(0, 3) };
        let work = self.staged(bulk.id).get(number as usize)?.clone();
        Some(Command::WorkChunk { bulk_id: bulk.id, number, work: Box::new(work) })
    }

    fn create_bulk(&mut self, index: usize) -> Command {
        let bulk_id = BulkId(uuid::Uuid::from_u128(self.random.wide()));
        let template_id = self.random.percent(60).then(|| self.random.pick(&self.pools[index].templates).copied());
        let template_id = template_id.flatten();
        let mut chunks = Vec::new();
        for _ in 0..self.random.between(1, 3) {
            let rows = 0..self.random.between(1, 6);
            chunks.push(match template_id {
                Some(template_id) => {
                    let recipients = rows.map(|_| Recipient {
                        member_id: self.member(),
                        member_level: self.random.percent(50).then(|| "GOLD".into()),
                    });
                    ChunkWork::Issue { template_id, recipients: recipients.collect() }
                }
                None => ChunkWork::Grant(
                    rows.map(|_| GrantRow {
                        member_id: self.member(),
                        movement: self.movement(TransactionType::EarnTask, 30),
                        expires_at: self.deadline(72),
                    })
                    .collect(),
                ),
            });
        }
        let rows = |work: &ChunkWork| match work {
            ChunkWork::Issue { recipients, .. } => recipients.len() as i64,
            ChunkWork::Grant(grants) => grants.len() as i64,
        };
        let staged = Staged { rows: chunks.iter().map(rows).sum(), chunks: chunks.len() as i64, skipped: 0 };
        self.staged.insert(bulk_id, chunks);
        Command::CreateBulk { bulk_id, template_id, staged }
    }

    /// Of any recent lines: what is no lot, or none that expires then, is passed over.
    fn remind(&mut self, index: usize) -> Command {
        let nil = LotId(uuid::Uuid::nil());
        let from = self.pools[index].reminded.unwrap_or((self.now, nil));
        let from = if self.random.percent(10) { (Timestamp(from.0.0 - 1), from.1) } else { from };
        let until = (Timestamp(self.now.0 + HOUR * self.random.between(0, 72)), nil);
        let recent = self.pools[index].transactions.iter().rev().take(20);
        let lots = recent.map(|(id, member)| (member.clone(), LotId(id.0))).collect();
        Command::RemindExpiry(Box::new(ReminderPage { days_before: 1, from, until, lots }))
    }

    fn job_command(&mut self, index: usize) -> Command {
        if self.random.percent(15) {
            return self.remind(index);
        }
        if self.random.percent(30) {
            let from = self.pools[index].announced.unwrap_or(Timestamp(self.now.0 - HOUR));
            let from = if self.random.percent(10) { Timestamp(from.0 - 1) } else { from };
            let templates: BTreeSet<TemplateId> = self.pools[index].templates.iter().copied().collect();
            return Command::AnnounceWindows { from, until: self.now, templates: templates.into_iter().collect() };
        }
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
                let spendable = Spendable { expires_at: self.deadline(72), ..Spendable::default() };
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
                let spendable = Spendable {
                    available_from: self.deadline(24),
                    expires_at: self.deadline(72),
                    ..Spendable::default()
                };
                Command::Grant { member_id: guest, movement, spendable }
            }
            40..48 => {
                let points =
                    if self.random.percent(65) { self.random.between(1, 90) } else { -self.random.between(1, 90) };
                let expires_at = if points > 0 { self.deadline(72) } else { None };
                let (reason, reference) = ("as \"agreed\"".into(), self.random.percent(30).then(|| "r-3".into()));
                Command::Adjust(Box::new(AdjustmentRequest { member_id, points, reason, reference, expires_at }))
            }
            48..54 => {
                let (adjustment_id, member_id) = self.random.pick_recent(&self.pools[index].adjustments)?.clone();
                if self.random.percent(25) {
                    Command::RejectAdjustment { adjustment_id, reason: "not agreed".into() }
                } else {
                    Command::ApproveAdjustment { member_id, adjustment_id }
                }
            }
            54..70 => {
                let day = if self.random.percent(5) { Day(day.0 - 1) } else { day };
                let missed = self.random.percent(30).then(|| Day(day.0 - self.random.between(0, 5)));
                Command::CheckIn { member_id, missed, calendar: on_day(self.calendar(), day) }
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
                        let calendar = on_day(self.calendar(), day);
                        Command::CompleteTask { member_id, key, completion_id, calendar }
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
            requires: if self.random.percent(30) { self.required() } else { Vec::new() },
        }
    }

    /// Perhaps none that there is, or the task itself, or one that requires it.
    fn required(&mut self) -> Vec<TaskKey> {
        let keys: BTreeSet<i64> = (0..2).map(|_| self.random.between(1, 4)).collect();
        keys.into_iter().map(|number| format!("t-{number}").parse().expect("a task")).collect()
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
        let spendable = Spendable { available_from, expires_at: self.deadline(72), ..Spendable::default() };
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
            Validity::Relative {
                days: self.random.between(1, 3) as u32,
                hours: self.random.between(0, 2) as u32,
                starts_after_hours: if self.random.percent(20) { self.random.between(1, 4) as u32 } else { 0 },
            }
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
            daily_cap: self.random.percent(20).then(|| self.random.between(1, 4)),
            weekly_cap: self.random.percent(10).then(|| self.random.between(2, 6)),
            monthly_cap: self.random.percent(10).then(|| self.random.between(3, 8)),
            budget: self.random.percent(20).then(|| 500 * self.random.between(1, 8)),
            points_price: self.random.percent(20).then(|| self.random.between(1, 30)),
            returnable: self.random.percent(80),
            refund_extend_days: self.random.between(0, 2) as u32,
            ..Definition::new(name, Benefit::AmountOff { amount: 500 }, validity)
        }
    }
}

/// An id of any type from a number.
fn id<T: FromStr<Err: std::fmt::Debug>>(prefix: &str, number: u128) -> T {
    format!("{prefix}{number:032x}").parse().expect("a well-formed id")
}
