//! A second, naive implementation of the rules, written from the specification: it keeps plain lists, sums them up
//! anew at every step and stores no total that can be derived. Slow and simple on purpose; what it and the domain
//! disagree on is a bug of one of them.
//!
//! Ids are the one thing it does not make: it takes those of the domain's answer. It depends on the domain's plain data
//! only, so a store's tests can include this file and compare a [`Snapshot`] of their tables with [`Model::snapshot`].

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use scrip_domain::check_in::CheckIn;
use scrip_domain::command::{Command, Envelope, Movement};
use scrip_domain::coupon::{Coupon, CouponStatus, Definition, Template, Validity};
use scrip_domain::job::Job;
use scrip_domain::points::{
    Account, Allocation, Hold, HoldStatus, Lot, PointsValidity, Spendable, Transaction, TransactionType,
};
use scrip_domain::pricing::Rules;
use scrip_domain::task::{self, Period, Progress, Report, Task};
use scrip_domain::time::Calendar;
use scrip_domain::webhook::{DisabledReason, Webhook, WebhookChange};
use scrip_domain::{
    Answer, CompletionId, CouponId, Day, HoldId, IdSeed, Ids, JobId, KeyId, LotId, MemberId, OrderId, Outcome, TaskId,
    TaskKey, TemplateId, TenantId, Timestamp, TransactionId, WebhookId,
};

/// An answer as a caller sees it, in a form that can be compared and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelAnswer {
    Accepted(String),
    Replayed(String),
    /// The rejection's code.
    Refused(&'static str),
}

impl ModelAnswer {
    /// What the domain has answered.
    pub fn of(answer: &Answer) -> ModelAnswer {
        match answer {
            Answer::Refused(rejection) => ModelAnswer::Refused(rejection.code()),
            Answer::Accepted { outcome, replayed: false } => ModelAnswer::Accepted(shown(outcome)),
            Answer::Accepted { outcome, replayed: true } => ModelAnswer::Replayed(shown(outcome)),
        }
    }
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Tenant(tenant) => format!("tenant {}", tenant.id),
        Outcome::ApiKey(key) => format!("key {} revoked {:?}", key.id, key.revoked_at),
        Outcome::Template(template) => format!("{} {:?}", template.id, TemplateRow::from(&**template)),
        Outcome::Rules(version) => format!("rules {} of {}", version.rules.version, version.newest),
        Outcome::Webhook(row) => format!("{} {:?}", row.id, WebhookRow::from(&**row)),
        Outcome::Deleted => "deleted".into(),
        Outcome::Coupon(coupon) => format!("{} {:?}", coupon.id, CouponRow::from(&**coupon)),
        Outcome::Transaction(line) => format!("{} {:?}", line.id, LineRow::from(&**line)),
        Outcome::Hold { hold, available, transaction_id } => {
            format!("{transaction_id} {} {:?} available {available}", hold.id, HoldRow::from(&**hold))
        }
        Outcome::Settled(found) => format!(
            "settled {} {} {} {}",
            found.coupons_expired, found.locks_released, found.holds_released, found.points_expired
        ),
        Outcome::Swept(sweep) => format!("swept {sweep:?}"),
        Outcome::Job(job) => shown_job(job),
        Outcome::Transfer(both) => {
            let line = |line: &Transaction| format!("{} {:?}", line.id, LineRow::from(line));
            format!("{} {}", line(&both.sent), line(&both.received))
        }
        Outcome::CheckIn { check_in, again } => format!("{:?} again {again}", CheckInRow::from(&**check_in)),
        Outcome::Task(task) => format!("{} {:?}", task.id, TaskRow::from(&**task)),
        Outcome::Report { report, again } => format!("{:?} again {again}", ReportRow::from(&**report)),
    }
}

fn shown_job(job: &Job) -> String {
    format!("{} {} {} due {}", job.id, job.kind.as_str(), job.state.as_str(), job.run_at.0)
}

/// Everything observable, row by row, each under a readable key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(pub BTreeMap<String, String>);

impl Snapshot {
    pub fn template(&mut self, tenant: TenantId, row: &Template) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{:?}", TemplateRow::from(row)));
    }

    pub fn webhook(&mut self, tenant: TenantId, row: &Webhook) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{:?}", WebhookRow::from(row)));
    }

    pub fn coupon(&mut self, tenant: TenantId, row: &Coupon) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{:?}", CouponRow::from(row)));
    }

    pub fn account(&mut self, tenant: TenantId, row: &Account) {
        self.0.insert(format!("{tenant} account {}", row.member_id), format!("{:?}", AccountRow::from(row)));
    }

    pub fn lot(&mut self, tenant: TenantId, member: &MemberId, row: &Lot) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{member} {:?}", LotRow::from(row)));
    }

    pub fn hold(&mut self, tenant: TenantId, row: &Hold) {
        self.0.insert(format!("{tenant} {}", row.id), format!("{} {:?}", row.member_id, HoldRow::from(row)));
    }

    pub fn transaction(&mut self, tenant: TenantId, row: &Transaction) {
        self.line(tenant, &row.member_id, &LineRow::from(row));
    }

    pub fn rules(&mut self, tenant: TenantId, effective_from: Timestamp, rules: &Rules) {
        self.0.insert(format!("{tenant} rules {:06}", rules.version), format!("{effective_from:?} {rules:?}"));
    }

    /// How much of a transaction has been undone; nothing is no row.
    pub fn job(&mut self, tenant: TenantId, row: &Job) {
        self.0.insert(format!("{tenant} {}", row.id), shown_job(row));
    }

    pub fn reversed(&mut self, tenant: TenantId, id: TransactionId, reversed: i64) {
        if reversed > 0 {
            self.0.insert(format!("{tenant} reversed {id}"), reversed.to_string());
        }
    }

    pub fn check_in(&mut self, tenant: TenantId, row: &CheckIn) {
        let key = format!("{tenant} check-in {} {}", row.member_id, row.day);
        self.0.insert(key, format!("{:?}", CheckInRow::from(row)));
    }

    pub fn task(&mut self, tenant: TenantId, row: &Task) {
        self.0.insert(format!("{tenant} task {}", row.key), format!("{} {:?}", row.id, TaskRow::from(row)));
    }

    pub fn progress(&mut self, tenant: TenantId, row: &Progress) {
        let key = format!("{tenant} progress {} {}", row.member_id, row.task_key);
        let counts = [row.period_start.0, row.steps, row.completions, row.total_completions];
        self.0.insert(key, format!("{counts:?}"));
    }

    pub fn report(&mut self, tenant: TenantId, row: &Report) {
        let key = format!("{tenant} report {} {} {}", row.member_id, row.task_key, row.completion_id);
        self.0.insert(key, format!("{:?}", ReportRow::from(row)));
    }

    fn line(&mut self, tenant: TenantId, member: &MemberId, row: &LineRow) {
        self.0.insert(format!("{tenant} ledger {member} {:06}", row.sequence), format!("{row:?}"));
    }

    /// The first few keys under which the two differ, to read in a failed test.
    pub fn differences(&self, other: &Snapshot) -> Vec<String> {
        let keys: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differing = keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key));
        differing.take(5).map(|key| format!("{key}:\n  {:?}\n  {:?}", self.0.get(key), other.0.get(key))).collect()
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct TemplateRow {
    version: i64,
    enabled: bool,
    total: Option<i64>,
    remaining: Option<i64>,
    claimed: i64,
    used: i64,
    definition: Arc<Definition>,
}

impl From<&Template> for TemplateRow {
    fn from(row: &Template) -> Self {
        TemplateRow {
            version: row.version,
            enabled: row.enabled,
            total: row.total_stock,
            remaining: row.remaining_stock,
            claimed: row.claimed_count,
            used: row.used_count,
            definition: row.definition.clone(),
        }
    }
}

/// A webhook without its secrets, which no answer repeats.
#[derive(Debug, Clone)]
struct WebhookRow {
    url: String,
    types: Vec<String>,
    disabled: Option<DisabledReason>,
}

impl From<&Webhook> for WebhookRow {
    fn from(row: &Webhook) -> Self {
        WebhookRow { url: row.url.clone(), types: row.types.clone(), disabled: row.disabled }
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct CouponRow {
    template: TemplateId,
    version: i64,
    member: MemberId,
    status: CouponStatus,
    sequence: i64,
    valid_from: Timestamp,
    valid_until: Timestamp,
    order: Option<OrderId>,
    deadline: Option<Timestamp>,
    discount: Option<i64>,
    claimed_at: Timestamp,
    used_at: Option<Timestamp>,
}

impl From<&Coupon> for CouponRow {
    fn from(row: &Coupon) -> Self {
        CouponRow {
            template: row.template_id,
            version: row.template_version,
            member: row.member_id.clone(),
            status: row.status,
            sequence: row.sequence,
            valid_from: row.valid_from,
            valid_until: row.valid_until,
            order: row.order_id.clone(),
            deadline: row.locked_until,
            discount: row.discount_amount,
            claimed_at: row.claimed_at,
            used_at: row.used_at,
        }
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct AccountRow {
    total: i64,
    available: i64,
    frozen: i64,
    used: i64,
    expired: i64,
    revoked: i64,
    debt: i64,
    sequence: i64,
    merged: Option<MemberId>,
}

impl From<&Account> for AccountRow {
    fn from(row: &Account) -> Self {
        AccountRow {
            total: row.total_points,
            available: row.available,
            frozen: row.frozen,
            used: row.used,
            expired: row.expired,
            revoked: row.revoked,
            debt: row.debt,
            sequence: row.sequence,
            merged: row.merged_into.clone(),
        }
    }
}

#[derive(Debug, Clone)]
struct LotRow {
    points: i64,
    remaining: i64,
    held: i64,
    used: i64,
    expired: i64,
    revoked: i64,
    moved: i64,
    from: Timestamp,
    until: Timestamp,
    made: Timestamp,
}

impl From<&Lot> for LotRow {
    fn from(row: &Lot) -> Self {
        LotRow {
            points: row.points,
            remaining: row.remaining,
            held: row.held,
            used: row.used,
            expired: row.expired,
            revoked: row.revoked,
            moved: row.moved,
            from: row.available_from,
            until: row.expires_at,
            made: row.created_at,
        }
    }
}

impl LotRow {
    fn new(points: i64, at: Timestamp, until: Timestamp) -> LotRow {
        let (remaining, from, made) = (points, at, at);
        LotRow { points, remaining, held: 0, used: 0, expired: 0, revoked: 0, moved: 0, from, until, made }
    }
}

#[derive(Debug, Clone)]
struct HoldRow {
    points: i64,
    captured: i64,
    released: i64,
    status: HoldStatus,
    deadline: Timestamp,
    parts: Vec<(LotId, i64)>,
    closed_at: Option<Timestamp>,
    pending: bool,
}

impl From<&Hold> for HoldRow {
    fn from(row: &Hold) -> Self {
        HoldRow {
            points: row.points,
            captured: row.captured,
            released: row.released,
            status: row.status,
            deadline: row.expires_at,
            parts: pairs(&row.allocations),
            closed_at: row.closed_at,
            pending: row.pending,
        }
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct LineRow {
    sequence: i64,
    kind: TransactionType,
    points: i64,
    before: i64,
    after: i64,
    frozen: i64,
    debt: i64,
    parts: Vec<(LotId, i64)>,
    at: Timestamp,
    counterpart: Option<TransactionId>,
}

impl From<&Transaction> for LineRow {
    fn from(row: &Transaction) -> Self {
        LineRow {
            sequence: row.sequence,
            kind: row.kind,
            points: row.points,
            before: row.balance_before,
            after: row.balance_after,
            frozen: row.frozen_after,
            debt: row.debt_after,
            parts: pairs(&row.allocations),
            at: row.occurred_at,
            counterpart: row.counterpart_id,
        }
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct CheckInRow {
    line: TransactionId,
    day: Day,
    streak: i64,
    points: i64,
    at: Timestamp,
}

impl From<&CheckIn> for CheckInRow {
    fn from(row: &CheckIn) -> Self {
        let CheckIn { transaction_id: line, day, streak, points, checked_in_at: at, .. } = *row;
        CheckInRow { line, day, streak, points, at }
    }
}

#[derive(Debug, Clone)]
struct TaskRow {
    version: i64,
    enabled: bool,
    deleted: bool,
    definition: Arc<task::Definition>,
}

impl From<&Task> for TaskRow {
    fn from(row: &Task) -> Self {
        let (version, enabled, definition) = (row.version, row.enabled, row.definition.clone());
        TaskRow { version, enabled, deleted: row.deleted_at.is_some(), definition }
    }
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "some columns are read through Debug only")]
struct ReportRow {
    line: Option<TransactionId>,
    period: Day,
    step: i64,
    target: i64,
    points: i64,
    at: Timestamp,
}

impl From<&Report> for ReportRow {
    fn from(row: &Report) -> Self {
        let Report { transaction_id: line, period_start: period, step, target, points, reported_at: at, .. } = *row;
        ReportRow { line, period, step, target, points, at }
    }
}

fn pairs(allocations: &[Allocation]) -> Vec<(LotId, i64)> {
    allocations.iter().map(|part| (part.lot_id, part.points)).collect()
}

/// The ids that the domain has made for an accepted command.
struct New {
    webhook: WebhookId,
    template: TemplateId,
    coupon: CouponId,
    transaction: TransactionId,
    lot: LotId,
    hold: HoldId,
    job: JobId,
    task: TaskId,
    /// The receiver's line and lots of a transfer.
    received: TransactionId,
    lots: Vec<LotId>,
}

impl New {
    fn of(answer: &Answer, seed: IdSeed) -> New {
        fn nil<T: FromStr<Err: std::fmt::Debug>>(prefix: &str) -> T {
            format!("{prefix}{:032}", 0).parse().expect("a nil id")
        }
        let mut new = New {
            webhook: nil(WebhookId::PREFIX),
            template: nil(TemplateId::PREFIX),
            coupon: nil(CouponId::PREFIX),
            transaction: nil(TransactionId::PREFIX),
            lot: nil(LotId::PREFIX),
            hold: nil(HoldId::PREFIX),
            job: nil(JobId::PREFIX),
            task: nil(TaskId::PREFIX),
            received: nil(TransactionId::PREFIX),
            lots: Vec::new(),
        };
        if let Answer::Accepted { outcome, .. } = answer {
            match outcome {
                Outcome::Template(template) => new.template = template.id,
                Outcome::Webhook(webhook) => new.webhook = webhook.id,
                Outcome::Coupon(coupon) => new.coupon = coupon.id,
                Outcome::Transaction(line) => {
                    new.transaction = line.id;
                    new.lot = line.lot_id.unwrap_or(new.lot);
                }
                Outcome::Hold { hold, transaction_id, .. } => {
                    new.hold = hold.id;
                    new.transaction = *transaction_id;
                }
                Outcome::Job(job) => new.job = job.id,
                Outcome::Transfer(both) => {
                    new.transaction = both.sent.id;
                    new.received = both.received.id;
                    new.lots = both.received.allocations.iter().map(|part| part.lot_id).collect();
                }
                Outcome::CheckIn { again: true, .. } | Outcome::Report { again: true, .. } => {}
                Outcome::CheckIn { check_in, .. } => new.line(check_in.transaction_id, seed),
                Outcome::Report { report, .. } => {
                    report.transaction_id.into_iter().for_each(|id| new.line(id, seed));
                }
                Outcome::Task(task) => new.task = task.id,
                Outcome::Tenant(_)
                | Outcome::ApiKey(_)
                | Outcome::Rules(_)
                | Outcome::Deleted
                | Outcome::Settled(_)
                | Outcome::Swept(_) => {}
            }
        }
        new
    }

    /// A grant that the answer names by its line alone: its lot has the id drawn just before.
    fn line(&mut self, id: TransactionId, seed: IdSeed) {
        self.transaction = id;
        let mut ids = Ids::new(seed);
        let mut before = ids.draw();
        for _ in 0..10_000 {
            let drawn = ids.draw();
            if drawn == id.0 {
                self.lot = LotId(before);
                return;
            }
            before = drawn;
        }
        panic!("{id} is not of this command");
    }
}

/// What a command comes to: what the caller sees, or a code.
type Decided = Result<String, &'static str>;

/// The whole world of the engine, without a store.
#[derive(Default)]
pub struct Model {
    /// Days of grace for refunded points.
    tenants: BTreeMap<TenantId, u32>,
    keys: BTreeMap<(TenantId, KeyId), Option<Timestamp>>,
    webhooks: BTreeMap<(TenantId, WebhookId), WebhookRow>,
    templates: BTreeMap<(TenantId, TemplateId), TemplateRow>,
    coupons: BTreeMap<(TenantId, CouponId), CouponRow>,
    books: BTreeMap<(TenantId, MemberId), Book>,
    /// A tenant's rules in the order in which they were set, and from when they hold.
    rules: BTreeMap<TenantId, Vec<(Timestamp, Rules)>>,
    /// State and due time; nobody runs them here.
    jobs: BTreeMap<(TenantId, JobId), (&'static str, Timestamp)>,
    check_ins: BTreeMap<(TenantId, MemberId), BTreeMap<Day, CheckInRow>>,
    tasks: BTreeMap<(TenantId, TaskKey), (TaskId, TaskRow)>,
    reports: BTreeMap<(TenantId, MemberId, TaskKey), Vec<(CompletionId, ReportRow)>>,
    replies: BTreeMap<(TenantId, [u8; 16]), ([u8; 16], String)>,
}

impl Model {
    /// Decides the command; `answer` is the domain's, for its ids.
    pub fn apply(&mut self, envelope: &Envelope, answer: &Answer) -> ModelAnswer {
        let reply = envelope.idempotency.map(|given| ((envelope.tenant, given.key), given.fingerprint));
        if let Some((key, fingerprint)) = reply
            && let Some((first, text)) = self.replies.get(&key)
        {
            let same = *first == fingerprint;
            return if same {
                ModelAnswer::Replayed(text.clone())
            } else {
                ModelAnswer::Refused("IDEMPOTENCY_KEY_REUSED")
            };
        }
        // A replay's ids are those of another command; it is answered above.
        let new = match answer {
            Answer::Accepted { replayed: true, .. } => return ModelAnswer::Refused("no such reply"),
            answer => New::of(answer, envelope.seed),
        };
        match self.decide(envelope, &new) {
            Err(code) => ModelAnswer::Refused(code),
            Ok(text) => {
                if let Some((key, fingerprint)) = reply {
                    self.replies.insert(key, (fingerprint, text.clone()));
                }
                ModelAnswer::Accepted(text)
            }
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::default();
        for (tenant, id) in self.templates.keys() {
            let row = self.counted(*tenant, *id).expect("it exists");
            all.0.insert(format!("{tenant} {id}"), format!("{row:?}"));
        }
        for ((tenant, id), row) in &self.webhooks {
            all.0.insert(format!("{tenant} {id}"), format!("{row:?}"));
        }
        for ((tenant, id), row) in &self.coupons {
            all.0.insert(format!("{tenant} {id}"), format!("{row:?}"));
        }
        for (tenant, versions) in &self.rules {
            versions.iter().for_each(|(from, rules)| all.rules(*tenant, *from, rules));
        }
        for ((tenant, member), days) in &self.check_ins {
            for (day, row) in days {
                all.0.insert(format!("{tenant} check-in {member} {day}"), format!("{row:?}"));
            }
        }
        for ((tenant, key), (id, row)) in &self.tasks {
            all.0.insert(format!("{tenant} task {key}"), format!("{id} {row:?}"));
        }
        for ((tenant, member, key), reports) in &self.reports {
            for (id, row) in reports {
                all.0.insert(format!("{tenant} report {member} {key} {id}"), format!("{row:?}"));
            }
            let counts = counts(reports).expect("there are reports");
            all.0.insert(format!("{tenant} progress {member} {key}"), format!("{counts:?}"));
        }
        for ((tenant, member), book) in self.books.iter().filter(|(_, book)| !book.lines.is_empty()) {
            all.0.insert(format!("{tenant} account {member}"), format!("{:?}", book.account()));
            for (id, lot) in &book.lots {
                all.0.insert(format!("{tenant} {id}"), format!("{member} {lot:?}"));
            }
            for (id, hold) in &book.holds {
                all.0.insert(format!("{tenant} {id}"), format!("{member} {hold:?}"));
            }
            for line in &book.lines {
                all.line(*tenant, member, &line.row);
                if let Some(id) = line.id {
                    all.reversed(*tenant, id, line.reversed);
                }
            }
        }
        for (tenant, id) in self.jobs.keys() {
            all.0.insert(format!("{tenant} {id}"), self.show_job(*tenant, *id));
        }
        all
    }

    fn decide(&mut self, envelope: &Envelope, new: &New) -> Decided {
        let (tenant, at) = (envelope.tenant, envelope.at);
        match &envelope.command {
            Command::CreateTenant(row) => {
                self.tenants.insert(row.id, row.refund_grace_days);
                Ok(format!("tenant {}", row.id))
            }
            Command::CreateApiKey { key, .. } => {
                self.tenants.get(&key.tenant_id).ok_or("TENANT_NOT_FOUND")?;
                self.keys.insert((key.tenant_id, key.id), key.revoked_at);
                Ok(format!("key {} revoked {:?}", key.id, key.revoked_at))
            }
            Command::RevokeApiKey(id) => {
                let revoked = self.keys.get_mut(&(tenant, *id)).ok_or("API_KEY_NOT_FOUND")?;
                *revoked = revoked.or(Some(at));
                Ok(format!("key {id} revoked {revoked:?}"))
            }
            Command::CreateWebhook(asked) => {
                self.tenants.get(&tenant).ok_or("TENANT_NOT_FOUND")?;
                let row = WebhookRow { url: asked.url.clone(), types: asked.types.clone(), disabled: None };
                let text = format!("{} {row:?}", new.webhook);
                self.webhooks.insert((tenant, new.webhook), row);
                Ok(text)
            }
            Command::ChangeWebhook { webhook_id, change } => {
                let key = (tenant, *webhook_id);
                let row = self.webhooks.get_mut(&key).ok_or("WEBHOOK_NOT_FOUND")?;
                match &**change {
                    WebhookChange::Edit { url, types, .. } => {
                        row.url = url.clone().unwrap_or_else(|| row.url.clone());
                        row.types = types.clone().unwrap_or_else(|| row.types.clone());
                    }
                    WebhookChange::Enable => row.disabled = None,
                    WebhookChange::Disable(reason) => row.disabled = row.disabled.or(Some(*reason)),
                    WebhookChange::Rotate { .. } => {}
                    WebhookChange::Delete => {
                        self.webhooks.remove(&key);
                        return Ok("deleted".into());
                    }
                }
                Ok(format!("{webhook_id} {row:?}"))
            }
            Command::CreateTemplate { definition, total_stock } => {
                let (total, definition) = (*total_stock, Arc::new((**definition).clone()));
                let (version, enabled, remaining, claimed, used) = (1, true, total, 0, 0);
                let row = TemplateRow { version, enabled, total, remaining, claimed, used, definition };
                self.templates.insert((tenant, new.template), row);
                Ok(self.show_template(tenant, new.template))
            }
            Command::UpdateTemplate { template_id, patch } => self.edit(tenant, *template_id, |row, _| {
                if row.version != patch.expected_version {
                    return Err("COUPON_TEMPLATE_VERSION_STALE");
                }
                let changed = *row.definition != patch.definition;
                row.definition = Arc::new(patch.definition.clone());
                Ok(changed)
            }),
            Command::EnableTemplate { template_id, enabled } => self.edit(tenant, *template_id, |row, _| {
                let changed = row.enabled != *enabled;
                row.enabled = *enabled;
                Ok(changed)
            }),
            Command::ChangeStock { template_id, change } => self.edit(tenant, *template_id, |row, claimed| {
                let total = row.total.ok_or("COUPON_STOCK_UNLIMITED")?;
                let wanted = i128::from(total) + i128::from(*change);
                if wanted < i128::from(claimed) || wanted > 1_000_000_000_000 {
                    return Err("COUPON_STOCK_OUT_OF_RANGE");
                }
                row.total = Some(total + change);
                Ok(true)
            }),
            Command::DeleteTemplate(id) => {
                let row = self.counted(tenant, *id).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
                if row.claimed > 0 {
                    return Err("COUPON_TEMPLATE_IN_USE");
                }
                self.templates.remove(&(tenant, *id));
                Ok("deleted".into())
            }
            Command::Claim { template_id, member_id, member_level } => {
                let row = self.claim(tenant, *template_id, member_id, member_level.as_ref(), at)?;
                let text = format!("{} {row:?}", new.coupon);
                self.coupons.insert((tenant, new.coupon), row);
                Ok(text)
            }
            Command::LockCoupon { coupon_id, .. }
            | Command::UseCoupon { coupon_id, .. }
            | Command::UnlockCoupon { coupon_id, .. }
            | Command::ReturnCoupon { coupon_id, .. }
            | Command::RevokeCoupon { coupon_id, .. } => {
                let row = self.coupons.get_mut(&(tenant, *coupon_id)).ok_or("COUPON_NOT_FOUND")?;
                row.settle(at);
                let template = self.templates.get(&(tenant, row.template));
                row.step(&envelope.command, template, at)?;
                Ok(format!("{coupon_id} {row:?}"))
            }
            Command::SettleCoupon(id) => {
                let row = self.coupons.get_mut(&(tenant, *id)).ok_or("COUPON_NOT_FOUND")?;
                let was = row.status;
                row.settle(at);
                let expired = was != CouponStatus::Expired && row.status == CouponStatus::Expired;
                let released = was == CouponStatus::Locked && row.status != CouponStatus::Locked;
                Ok(format!("settled {} {} 0 0", u32::from(expired), u32::from(released)))
            }
            Command::Grant { member_id, movement, spendable } => {
                self.book(tenant, member_id).grant(movement, *spendable, at, new)
            }
            Command::Debit { member_id, movement } => {
                let book = self.book(tenant, member_id);
                book.settle(at);
                book.is_open()?;
                let parts = book.choose(movement.points, at)?;
                let revoking = movement.kind == TransactionType::DeductAdmin;
                book.change(movement.kind, -movement.points, parts.clone(), at, Some(new.transaction), |book| {
                    for (id, points) in &parts {
                        let lot = book.lot(*id);
                        lot.remaining -= points;
                        *(if revoking { &mut lot.revoked } else { &mut lot.used }) += points;
                    }
                });
                Ok(book.show_line(new.transaction))
            }
            Command::Hold { member_id, movement, expires_at } => {
                self.book(tenant, member_id).hold(movement, *expires_at, at, new)
            }
            Command::CaptureHold { member_id, hold_id, points } => {
                self.book(tenant, member_id).end_hold(*hold_id, Some(*points), at, new)
            }
            Command::ReleaseHold { member_id, hold_id } => {
                self.book(tenant, member_id).end_hold(*hold_id, None, at, new)
            }
            Command::Reverse { member_id, transaction_id, points, .. } => {
                let grace = self.tenants.get(&tenant).copied().unwrap_or(0);
                self.book(tenant, member_id).reverse(*transaction_id, *points, grace, at, new)
            }
            Command::SetRules { expected_version, rules, effective_from } => {
                self.tenants.get(&tenant).ok_or("TENANT_NOT_FOUND")?;
                let versions = self.rules.entry(tenant).or_default();
                if *expected_version != versions.len() as i64 {
                    return Err("POINTS_RULES_VERSION_STALE");
                }
                let from = effective_from.unwrap_or(at);
                if from < at {
                    return Err("DEADLINE_PASSED");
                }
                let version = expected_version + 1;
                versions.push((from, Rules { version, ..(**rules).clone() }));
                Ok(format!("rules {version} of {version}"))
            }
            Command::Transfer { from, to, points, .. } => self.transfer(tenant, from, to, *points, at, new),
            Command::ReverseTransfer { from, to, transaction_id, counterpart_id, points, .. } => {
                self.reverse_transfer(tenant, from, to, *transaction_id, *counterpart_id, *points, at, new)
            }
            Command::Merge { from, into, .. } => self.merge(tenant, from, into, at, new),
            Command::CheckIn { member_id, day, calendar } => {
                let rules = self.rules_at(tenant, at);
                self.check_in(tenant, member_id, *day, &rules, calendar, at, new)
            }
            Command::CreateTask { key, definition } => {
                if self.tasks.contains_key(&(tenant, key.clone())) {
                    return Err("POINTS_TASK_EXISTS");
                }
                let definition = Arc::new((**definition).clone());
                let row = TaskRow { version: 1, enabled: true, deleted: false, definition };
                let text = format!("{} {row:?}", new.task);
                self.tasks.insert((tenant, key.clone()), (new.task, row));
                Ok(text)
            }
            Command::UpdateTask { key, patch } => {
                let (id, row) = self.task(tenant, key)?;
                if row.version != patch.expected_version {
                    return Err("POINTS_TASK_VERSION_STALE");
                }
                if row.enabled != patch.enabled || *row.definition != patch.definition {
                    row.version += 1;
                    row.enabled = patch.enabled;
                    row.definition = Arc::new(patch.definition.clone());
                }
                Ok(format!("{id} {row:?}"))
            }
            Command::DeleteTask(key) => {
                let (_, row) = self.task(tenant, key)?;
                (row.version, row.enabled, row.deleted) = (row.version + 1, false, true);
                Ok("deleted".into())
            }
            Command::CompleteTask { member_id, key, completion_id, day, calendar } => {
                let life = life(&self.rules_at(tenant, at), calendar, at);
                self.report(tenant, member_id, key, completion_id, *day, life, at, new)
            }
            Command::RecordSweep(sweep) => Ok(format!("swept {sweep:?}")),
            Command::EnqueueGrant { spendable, .. } => {
                if spendable.expires_at.is_some_and(|end| end <= at) {
                    return Err("DEADLINE_PASSED");
                }
                self.jobs.insert((tenant, new.job), ("QUEUED", envelope.now));
                Ok(self.show_job(tenant, new.job))
            }
            Command::RetryJob(id) | Command::CancelJob(id) => {
                let job = self.jobs.get_mut(&(tenant, *id)).ok_or("JOB_NOT_FOUND")?;
                match &envelope.command {
                    Command::CancelJob(_) => job.0 = "CANCELLED",
                    _ if job.0 == "CANCELLED" => *job = ("QUEUED", envelope.now),
                    _ => {}
                }
                Ok(self.show_job(tenant, *id))
            }
            // No job runs, so no ticket holds.
            Command::Work { ticket, .. } => {
                self.jobs.get(&(tenant, ticket.job_id)).ok_or("JOB_NOT_FOUND")?;
                Err("JOB_LEASE_LOST")
            }
            Command::SettleAccount(member_id) => {
                let book = self.book(tenant, member_id);
                let open = |book: &Book| book.holds.values().filter(|hold| hold.status == HoldStatus::Open).count();
                let (holds, expired) = (open(book), book.account().expired);
                book.settle(at);
                Ok(format!("settled 0 0 {} {}", holds - open(book), book.account().expired - expired))
            }
        }
    }

    fn show_job(&self, tenant: TenantId, id: JobId) -> String {
        let (state, run_at) = &self.jobs[&(tenant, id)];
        format!("{id} POINTS_GRANT {state} due {}", run_at.0)
    }
    fn task(&mut self, tenant: TenantId, key: &TaskKey) -> Result<&mut (TaskId, TaskRow), &'static str> {
        self.tasks.get_mut(&(tenant, key.clone())).filter(|(_, row)| !row.deleted).ok_or("POINTS_TASK_NOT_FOUND")
    }

    fn settle_both(
        &mut self,
        tenant: TenantId,
        from: &MemberId,
        to: &MemberId,
        at: Timestamp,
    ) -> Result<(), &'static str> {
        if from == to {
            return Err("POINTS_SAME_MEMBER");
        }
        self.book(tenant, from).settle(at);
        self.book(tenant, to).settle(at);
        Ok(())
    }

    fn has_room(&mut self, tenant: TenantId, to: &MemberId, points: i64) -> Result<(), &'static str> {
        let total = i128::from(self.book(tenant, to).account().total) + i128::from(points);
        if total > 1 << 62 { Err("POINTS_OVERFLOW") } else { Ok(()) }
    }

    fn transfer(
        &mut self,
        tenant: TenantId,
        from: &MemberId,
        to: &MemberId,
        points: i64,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        self.settle_both(tenant, from, to, at)?;
        self.book(tenant, from).is_open()?;
        self.book(tenant, to).is_open()?;
        if self.book(tenant, from).debt > 0 {
            return Err("POINTS_IN_DEBT");
        }
        let parts = self.book(tenant, from).choose(points, at)?;
        self.has_room(tenant, to, points)?;
        let text = self.hand_over(tenant, from, to, parts, 0, at, new);
        self.book(tenant, to).pay_debt(&new.lots, at);
        Ok(text)
    }

    /// Parts of lots become lots of the other; debt goes along. What the two lines show.
    #[expect(clippy::too_many_arguments)]
    fn hand_over(
        &mut self,
        tenant: TenantId,
        from: &MemberId,
        to: &MemberId,
        parts: Vec<(LotId, i64)>,
        debt: i64,
        at: Timestamp,
        new: &New,
    ) -> String {
        use TransactionType::Transfer;
        let points: i64 = parts.iter().map(|(_, part)| part).sum();
        let giver = self.book(tenant, from);
        let mut lots = Vec::new();
        for ((id, part), made) in parts.iter().zip(&new.lots) {
            let LotRow { from, until, .. } = *giver.lot(*id);
            lots.push((*made, LotRow { from: from.max(at), ..LotRow::new(*part, at, until) }));
        }
        giver.change(Transfer, -points, parts.clone(), at, Some(new.transaction), |book| {
            book.debt -= debt;
            for (id, part) in parts {
                let lot = book.lot(id);
                lot.remaining -= part;
                lot.moved += part;
            }
        });
        giver.last().counterpart = Some(new.received);
        let text = giver.show_line(new.transaction);
        let taker = self.book(tenant, to);
        let made = lots.iter().map(|(id, lot)| (*id, lot.points)).collect();
        taker.change(Transfer, points, made, at, Some(new.received), |book| {
            book.debt += debt;
            book.lots.extend(lots);
        });
        taker.last().counterpart = Some(new.transaction);
        format!("{text} {}", taker.show_line(new.received))
    }

    #[expect(clippy::too_many_arguments)]
    fn reverse_transfer(
        &mut self,
        tenant: TenantId,
        from: &MemberId,
        to: &MemberId,
        id: TransactionId,
        counterpart: TransactionId,
        points: Option<i64>,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        use TransactionType::Transfer;
        let find = |book: &mut Book, id| book.lines.iter().position(|line| line.id == Some(id));
        let sent = find(self.book(tenant, from), id).ok_or("POINTS_TRANSACTION_NOT_FOUND")?;
        let received = find(self.book(tenant, to), counterpart).ok_or("POINTS_TRANSACTION_NOT_FOUND")?;
        let line = &self.book(tenant, from).lines[sent];
        let (row, done, undoes) = (line.row.clone(), line.reversed, line.undoes);
        if row.kind != Transfer || row.points >= 0 || undoes || row.counterpart != Some(counterpart) {
            return Err("POINTS_NOT_REVERSIBLE");
        }
        self.settle_both(tenant, from, to, at)?;
        self.book(tenant, from).is_open()?;
        let taker = self.book(tenant, to);
        let lots: Vec<LotId> = taker.lines[received].row.parts.iter().map(|(id, _)| *id).collect();
        let unspent: i64 = lots.iter().map(|id| taker.lot(*id).remaining).sum();
        let left = unspent.min(-row.points - done);
        let points = points.unwrap_or(left);
        if points < 1 || points > left {
            return Err("POINTS_REVERSAL_EXCEEDS");
        }
        self.has_room(tenant, from, points)?;
        let taker = self.book(tenant, to);
        let (mut open, mut given, mut back) = (points, Vec::new(), Vec::new());
        for (there, (here, _)) in lots.iter().zip(&row.parts) {
            let part = open.min(taker.lot(*there).remaining);
            open -= part;
            if part > 0 {
                given.push((*there, part));
                back.push((*here, part));
            }
        }
        taker.lines[received].reversed += points;
        taker.change(Transfer, -points, given.clone(), at, Some(new.transaction), |book| {
            for (id, part) in given {
                let lot = book.lot(id);
                lot.remaining -= part;
                lot.moved += part;
            }
        });
        taker.last().counterpart = Some(new.received);
        taker.lines.last_mut().expect("just written").undoes = true;
        let text = taker.show_line(new.transaction);
        let giver = self.book(tenant, from);
        giver.lines[sent].reversed += points;
        giver.change(Transfer, points, back.clone(), at, Some(new.received), |book| {
            for (id, part) in &back {
                let lot = book.lot(*id);
                lot.moved -= part;
                lot.remaining += part;
            }
        });
        giver.last().counterpart = Some(new.transaction);
        let text = format!("{text} {}", giver.show_line(new.received));
        let lots: Vec<LotId> = back.iter().map(|(id, _)| *id).collect();
        giver.pay_debt(&lots, at);
        Ok(text)
    }

    fn merge(&mut self, tenant: TenantId, from: &MemberId, into: &MemberId, at: Timestamp, new: &New) -> Decided {
        self.settle_both(tenant, from, into, at)?;
        self.book(tenant, into).is_open()?;
        let giver = self.book(tenant, from);
        if giver.merged.as_ref().is_some_and(|other| other != into) {
            return Err("POINTS_ACCOUNT_MERGED");
        }
        let open = |hold: &HoldRow| hold.status == HoldStatus::Open;
        if giver.holds.values().any(|hold| open(hold) && !hold.pending) {
            return Err("POINTS_HOLDS_OPEN");
        }
        let kept: Vec<HoldId> = giver.holds.iter().filter(|(_, hold)| open(hold)).map(|(id, _)| *id).collect();
        let account = giver.account();
        self.has_room(tenant, into, account.available + account.frozen)?;
        let giver = self.book(tenant, from);
        for id in kept {
            giver.give_back(id, HoldStatus::Released, at, None);
        }
        giver.sort();
        let parts: Vec<(LotId, i64)> =
            giver.lots.iter().filter(|(_, lot)| lot.remaining > 0).map(|(id, lot)| (*id, lot.remaining)).collect();
        let debt = giver.debt;
        giver.merged = Some(into.clone());
        let text = self.hand_over(tenant, from, into, parts, debt, at, new);
        let taker = self.book(tenant, into);
        for id in &new.lots {
            if taker.lot(*id).from > at {
                taker.keep(*id, HoldId(id.0), at);
            }
        }
        taker.sort();
        let able = taker.lots.iter().filter(|(_, lot)| lot.from <= at && at < lot.until);
        let able: Vec<LotId> = able.map(|(id, _)| *id).collect();
        taker.pay_debt(&able, at);
        Ok(text)
    }

    fn rules_at(&self, tenant: TenantId, at: Timestamp) -> Rules {
        let versions = self.rules.get(&tenant).into_iter().flatten();
        let holding = versions.filter(|(from, _)| *from <= at).max_by_key(|(from, rules)| (*from, rules.version));
        holding.map_or_else(Rules::default, |(_, rules)| rules.clone())
    }

    #[expect(clippy::too_many_arguments)]
    fn check_in(
        &mut self,
        tenant: TenantId,
        member: &MemberId,
        day: Day,
        rules: &Rules,
        calendar: &Calendar,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        let days = self.check_ins.get(&(tenant, member.clone()));
        let latest = days.and_then(|days| days.last_key_value()).map(|(day, row)| (*day, row.clone()));
        match latest {
            Some((latest, row)) if latest == day => return Ok(format!("{row:?} again true")),
            _ if !rules.points.enabled || !rules.points.check_in.enabled => return Err("POINTS_CHECK_IN_DISABLED"),
            Some((latest, _)) if latest > day => return Err("POINTS_CHECK_IN_OUT_OF_ORDER"),
            _ => {}
        }
        // Days in a row, counted back.
        let known = |day: i64| days.is_some_and(|days| days.contains_key(&Day(day)));
        let streak = 1 + (1..).take_while(|back| known(day.0 - back)).count() as i64;
        let rule = &rules.points.check_in;
        let bonus: i64 =
            rule.streak_bonuses.iter().filter(|one| i64::from(one.days) == streak).map(|one| one.points).sum();
        let points = rule.points + bonus;
        let movement = Movement { points, kind: TransactionType::EarnCheckin, reference: None, remark: None };
        self.book(tenant, member).grant(&movement, life(rules, calendar, at), at, new)?;
        let row = CheckInRow { line: new.transaction, day, streak, points, at };
        let text = format!("{row:?} again false");
        self.check_ins.entry((tenant, member.clone())).or_default().insert(day, row);
        Ok(text)
    }

    #[expect(clippy::too_many_arguments)]
    fn report(
        &mut self,
        tenant: TenantId,
        member: &MemberId,
        key: &TaskKey,
        completion_id: &CompletionId,
        day: Day,
        life: Spendable,
        at: Timestamp,
        new: &New,
    ) -> Decided {
        let reports = self.reports.get(&(tenant, member.clone(), key.clone())).cloned().unwrap_or_default();
        if let Some((_, first)) = reports.iter().find(|(id, _)| id == completion_id) {
            return Ok(format!("{first:?} again true"));
        }
        self.book(tenant, member).is_open()?;
        let (_, task) = self.task(tenant, key)?.clone();
        let definition = task.definition;
        if !task.enabled {
            return Err("POINTS_TASK_DISABLED");
        }
        if definition.window.starts_at.is_some_and(|start| at < start) {
            return Err("POINTS_TASK_NOT_STARTED");
        }
        if definition.window.ends_at.is_some_and(|end| end <= at) {
            return Err("POINTS_TASK_ENDED");
        }
        let started = reports.iter().map(|(_, row)| row.period).max();
        let own = match definition.period {
            Period::Once => Day(0),
            Period::Day => day,
            // 2026-01-05 was a Monday, and day 20458.
            Period::Week => Day(20_458 + (day.0 - 20_458).div_euclid(7) * 7),
            Period::Month => {
                let (year, month, _) = day.civil();
                (0..31).map(|back| Day(day.0 - back)).find(|day| day.civil() == (year, month, 1)).expect("a first")
            }
        };
        let period = started.map_or(own, |started| started.max(own));
        let [_, steps, completions, total] = counts(&reports).unwrap_or_default();
        let (steps, completions) = if started == Some(period) { (steps, completions) } else { (0, 0) };
        if definition.total_limit.is_some_and(|limit| total >= limit) {
            return Err("POINTS_TASK_LIMIT_REACHED");
        }
        if completions >= definition.limit_per_period {
            return Err("POINTS_TASK_PERIOD_LIMIT_REACHED");
        }
        let (step, target) = (steps + 1, definition.target);
        let done = step >= target;
        if done {
            let (points, kind) = (definition.points, TransactionType::EarnTask);
            let movement = Movement { points, kind, reference: None, remark: None };
            self.book(tenant, member).grant(&movement, life, at, new)?;
        }
        let (line, points) = if done { (Some(new.transaction), definition.points) } else { (None, 0) };
        let row = ReportRow { line, period, step, target, points, at };
        let text = format!("{row:?} again false");
        self.reports.entry((tenant, member.clone(), key.clone())).or_default().push((completion_id.clone(), row));
        Ok(text)
    }

    fn book(&mut self, tenant: TenantId, member: &MemberId) -> &mut Book {
        self.books.entry((tenant, member.clone())).or_default()
    }

    /// The template with its counts, which are those of its coupons.
    fn counted(&self, tenant: TenantId, id: TemplateId) -> Option<TemplateRow> {
        let row = self.templates.get(&(tenant, id))?;
        let own = || self.coupons.iter().filter(|((owner, _), coupon)| *owner == tenant && coupon.template == id);
        let claimed = own().count() as i64;
        let used = own().filter(|(_, coupon)| coupon.status == CouponStatus::Used).count() as i64;
        Some(TemplateRow { claimed, used, remaining: row.total.map(|total| total - claimed), ..row.clone() })
    }

    fn show_template(&self, tenant: TenantId, id: TemplateId) -> String {
        format!("{id} {:?}", self.counted(tenant, id).expect("it exists"))
    }

    /// An operator's edit; `change` gets the template and the number of its coupons and says whether anything changed.
    fn edit(
        &mut self,
        tenant: TenantId,
        id: TemplateId,
        change: impl FnOnce(&mut TemplateRow, i64) -> Result<bool, &'static str>,
    ) -> Decided {
        let mut row = self.counted(tenant, id).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
        let claimed = row.claimed;
        if change(&mut row, claimed)? {
            row.version += 1;
            self.templates.insert((tenant, id), row);
        }
        Ok(self.show_template(tenant, id))
    }

    fn claim(
        &self,
        tenant: TenantId,
        id: TemplateId,
        member: &MemberId,
        level: Option<&String>,
        at: Timestamp,
    ) -> Result<CouponRow, &'static str> {
        let template = self.counted(tenant, id).ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
        let definition = &template.definition;
        let of_member =
            self.coupons.iter().filter(|((t, _), row)| *t == tenant && row.template == id && row.member == *member);
        let mine = of_member.count() as i64;
        let window = definition.distribution;
        let ended = matches!(definition.validity, Validity::Fixed { ends_at, .. } if ends_at <= at);
        let levels = &definition.member_levels;
        let checks = [
            ("COUPON_TEMPLATE_DISABLED", !template.enabled),
            ("COUPON_CLAIM_NOT_STARTED", window.starts_at.is_some_and(|start| at < start)),
            ("COUPON_CLAIM_ENDED", window.ends_at.is_some_and(|end| end <= at)),
            ("COUPON_VALIDITY_ENDED", ended),
            ("COUPON_MEMBER_LEVEL", !levels.is_empty() && !level.is_some_and(|level| levels.contains(level))),
            ("COUPON_LIMIT_REACHED", mine >= definition.limit_per_member),
            ("COUPON_SOLD_OUT", template.remaining.is_some_and(|remaining| remaining <= 0)),
        ];
        if let Some((code, _)) = checks.into_iter().find(|(_, fails)| *fails) {
            return Err(code);
        }
        let (valid_from, valid_until) = match definition.validity {
            Validity::Fixed { starts_at, ends_at } => (starts_at, ends_at),
            Validity::Relative { days } => (at, after_days(at, days)),
        };
        Ok(CouponRow {
            template: id,
            version: template.version,
            member: member.clone(),
            status: CouponStatus::Available,
            sequence: mine + 1,
            valid_from,
            valid_until,
            order: None,
            deadline: None,
            discount: None,
            claimed_at: at,
            used_at: None,
        })
    }
}

/// How long what is earned at `at` can be spent.
fn life(rules: &Rules, calendar: &Calendar, at: Timestamp) -> Spendable {
    let expires_at = match rules.points.validity {
        PointsValidity::Never => None,
        PointsValidity::Days { days } => Some(after_days(at, days)),
        PointsValidity::EndOfMonth { after_months } => calendar.month_ends.get(usize::from(after_months)).copied(),
        PointsValidity::EndOfYear { after_years } => calendar.year_ends.get(usize::from(after_years)).copied(),
    };
    Spendable { available_from: None, expires_at }
}

/// Of reports in their order: the latest period, steps since the last completion in it, completions in it and in all.
fn counts(reports: &[(CompletionId, ReportRow)]) -> Option<[i64; 4]> {
    let period = reports.iter().map(|(_, row)| row.period).max()?;
    let total = reports.iter().filter(|(_, row)| row.line.is_some()).count() as i64;
    let own: Vec<&ReportRow> = reports.iter().map(|(_, row)| row).filter(|row| row.period == period).collect();
    let completions = own.iter().filter(|row| row.line.is_some()).count() as i64;
    let steps = own.iter().rev().take_while(|row| row.line.is_none()).count() as i64;
    Some([period.0, steps, completions, total])
}

/// So many days later, but not after the year 9999.
fn after_days(at: Timestamp, days: u32) -> Timestamp {
    let micros = i128::from(at.0) + i128::from(days) * 86_400_000_000;
    Timestamp(i64::try_from(micros).unwrap_or(i64::MAX).min(253_402_214_400_000_000))
}

impl CouponRow {
    /// What time does to a coupon by itself.
    fn settle(&mut self, at: Timestamp) {
        if self.status == CouponStatus::Locked && self.deadline.is_some_and(|deadline| deadline <= at) {
            self.open();
        }
        if self.status == CouponStatus::Available && self.valid_until <= at {
            self.status = CouponStatus::Expired;
        }
    }

    fn open(&mut self) {
        self.status = CouponStatus::Available;
        (self.order, self.deadline, self.discount, self.used_at) = (None, None, None, None);
    }

    /// One step of the state machine: the pair of state and command says what happens.
    fn step(&mut self, command: &Command, template: Option<&TemplateRow>, at: Timestamp) -> Result<(), &'static str> {
        use CouponStatus::{Available, Expired, Locked, Revoked, Used};
        let is_own = |order: &OrderId| self.order.as_ref() == Some(order);
        match (self.status, command) {
            (Available, Command::LockCoupon { order_id, expires_at, .. }) => {
                if at < self.valid_from {
                    return Err("COUPON_NOT_YET_VALID");
                }
                if expires_at.is_some_and(|deadline| deadline <= at) {
                    return Err("DEADLINE_PASSED");
                }
                (self.status, self.order, self.deadline) = (Locked, Some(order_id.clone()), *expires_at);
            }
            (Locked, Command::LockCoupon { order_id, .. }) if is_own(order_id) => {}
            (Locked, Command::UseCoupon { order_id, discount_amount, .. }) if is_own(order_id) => {
                (self.status, self.deadline) = (Used, None);
                (self.discount, self.used_at) = (*discount_amount, Some(at));
            }
            (Used, Command::UseCoupon { order_id, .. }) if is_own(order_id) => {}
            (Available, Command::UseCoupon { .. }) => return Err("COUPON_NOT_LOCKED"),
            (Locked, Command::UnlockCoupon { order_id, .. }) if is_own(order_id) => {
                self.open();
                self.settle(at);
            }
            (Available | Expired | Revoked, Command::UnlockCoupon { .. }) => {}
            (Used, Command::ReturnCoupon { order_id, .. }) if is_own(order_id) => {
                let template = template.ok_or("COUPON_TEMPLATE_NOT_FOUND")?;
                let days = template.definition.refund_extend_days;
                self.open();
                if at >= self.valid_until {
                    if template.enabled && days > 0 {
                        self.valid_until = after_days(at, days);
                    } else {
                        self.status = Expired;
                    }
                }
            }
            (Available | Locked | Expired | Revoked, Command::ReturnCoupon { .. }) => return Err("COUPON_NOT_USED"),
            (Locked, Command::UseCoupon { .. } | Command::UnlockCoupon { .. })
            | (Used, Command::ReturnCoupon { .. }) => {
                return Err("COUPON_ORDER_MISMATCH");
            }
            (Available, Command::RevokeCoupon { .. }) => self.status = Revoked,
            (Revoked, Command::RevokeCoupon { .. }) => {}
            (Locked, _) => return Err("COUPON_LOCKED"),
            (Used, _) => return Err("COUPON_USED"),
            (Expired, _) => return Err("COUPON_EXPIRED"),
            (Revoked, _) => return Err("COUPON_REVOKED"),
            (Available, _) => unreachable!("no coupon command"),
        }
        Ok(())
    }
}

/// A ledger line, and what is known about it beside.
struct Line {
    /// Unknown for lines that no answer tells.
    id: Option<TransactionId>,
    /// The lot that a grant made.
    lot: Option<LotId>,
    reversed: i64,
    /// Whether it undoes a transfer.
    undoes: bool,
    row: LineRow,
}

/// A member's points: everything but the debt follows from the lots.
#[derive(Default)]
struct Book {
    lots: Vec<(LotId, LotRow)>,
    holds: BTreeMap<HoldId, HoldRow>,
    lines: Vec<Line>,
    debt: i64,
    merged: Option<MemberId>,
}

impl Book {
    fn account(&self) -> AccountRow {
        let sum = |column: fn(&LotRow) -> i64| self.lots.iter().map(|(_, lot)| column(lot)).sum::<i64>();
        AccountRow {
            total: sum(|lot| lot.points - lot.moved),
            available: sum(|lot| lot.remaining),
            frozen: sum(|lot| lot.held),
            used: sum(|lot| lot.used),
            expired: sum(|lot| lot.expired),
            revoked: sum(|lot| lot.revoked),
            debt: self.debt,
            sequence: self.lines.len() as i64,
            merged: self.merged.clone(),
        }
    }

    fn is_open(&self) -> Result<(), &'static str> {
        if self.merged.is_some() { Err("POINTS_ACCOUNT_MERGED") } else { Ok(()) }
    }

    fn last(&mut self) -> &mut LineRow {
        &mut self.lines.last_mut().expect("just written").row
    }

    fn lot(&mut self, id: LotId) -> &mut LotRow {
        &mut self.lots.iter_mut().find(|(lot, _)| *lot == id).expect("a known lot").1
    }

    /// Soonest-expiring first, never-expiring last, then oldest.
    fn sort(&mut self) {
        self.lots.sort_by_key(|(id, lot)| (lot.until, lot.made, *id));
    }

    /// Makes a change and writes the line for it, with the balances before and after.
    fn change(
        &mut self,
        kind: TransactionType,
        points: i64,
        parts: Vec<(LotId, i64)>,
        at: Timestamp,
        id: Option<TransactionId>,
        change: impl FnOnce(&mut Book),
    ) {
        let before = self.account().available;
        change(self);
        let now = self.account();
        let (after, frozen, debt, sequence) = (now.available, now.frozen, now.debt, now.sequence + 1);
        let row = LineRow { sequence, kind, points, before, after, frozen, debt, parts, at, counterpart: None };
        self.lines.push(Line { id, lot: None, reversed: 0, undoes: false, row });
    }

    fn show_line(&self, id: TransactionId) -> String {
        let line = self.lines.iter().rev().find(|line| line.id == Some(id)).expect("just written");
        format!("{id} {:?}", line.row)
    }

    fn show_hold(&self, id: HoldId, line: TransactionId) -> String {
        format!("{line} {id} {:?} available {}", self.holds[&id], self.account().available)
    }

    /// Replays what was due up to `at`, in the order of time; at one instant lots expire before holds end.
    fn settle(&mut self, at: Timestamp) {
        loop {
            let open = self.holds.iter().filter(|(_, hold)| hold.status == HoldStatus::Open);
            let next = open.map(|(id, hold)| (hold.deadline, *id)).min().filter(|(deadline, _)| *deadline <= at);
            let Some((deadline, id)) = next else { break };
            self.expire(deadline, Timestamp(i64::MIN));
            self.give_back(id, HoldStatus::Expired, deadline, None);
            if self.holds[&id].pending {
                let lots: Vec<LotId> = self.holds[&id].parts.iter().map(|(lot, _)| *lot).collect();
                self.pay_debt(&lots, deadline);
            }
        }
        self.expire(at, Timestamp(i64::MIN));
    }

    /// Expires what lots due by `until` have left, dated at their end or at `earliest` if that is later.
    fn expire(&mut self, until: Timestamp, earliest: Timestamp) {
        self.sort();
        let due: Vec<(LotId, LotRow)> =
            self.lots.iter().filter(|(_, lot)| lot.until <= until && lot.remaining > 0).cloned().collect();
        for (id, LotRow { remaining, until, .. }) in due {
            let date = until.max(earliest);
            self.change(TransactionType::Expire, -remaining, vec![(id, remaining)], date, None, |book| {
                let lot = book.lot(id);
                lot.expired += lot.remaining;
                lot.remaining = 0;
            });
        }
    }

    /// Ends a hold; what was not captured returns to its lots, and expires there if they have.
    fn give_back(&mut self, id: HoldId, status: HoldStatus, at: Timestamp, line: Option<TransactionId>) {
        let hold = self.holds.get_mut(&id).expect("a known hold");
        hold.status = status;
        hold.closed_at = Some(at);
        hold.released = hold.points - hold.captured;
        let (released, parts) = (hold.released, range(&hold.parts, hold.captured, hold.points));
        if released > 0 {
            self.change(TransactionType::Release, released, parts.clone(), at, line, |book| {
                for (id, points) in parts {
                    let lot = book.lot(id);
                    lot.held -= points;
                    lot.remaining += points;
                }
            });
            self.expire(at, at);
        }
    }

    fn choose(&mut self, points: i64, at: Timestamp) -> Result<Vec<(LotId, i64)>, &'static str> {
        self.sort();
        let mut open = points;
        let mut parts = Vec::new();
        for (id, lot) in self.lots.iter().filter(|(_, lot)| lot.from <= at && at < lot.until) {
            let part = open.min(lot.remaining);
            open -= part;
            if part > 0 {
                parts.push((*id, part));
            }
        }
        if open > 0 { Err("POINTS_INSUFFICIENT") } else { Ok(parts) }
    }

    /// Debt is paid from these lots, one after the other.
    fn pay_debt(&mut self, lots: &[LotId], at: Timestamp) {
        let mut open = self.debt;
        let mut parts = Vec::new();
        for id in lots {
            let part = open.min(self.lot(*id).remaining);
            open -= part;
            if part > 0 {
                parts.push((*id, part));
            }
        }
        let paid = self.debt - open;
        if paid > 0 {
            self.change(TransactionType::Clawback, -paid, parts.clone(), at, None, |book| {
                book.debt -= paid;
                for (id, part) in parts {
                    let lot = book.lot(id);
                    lot.remaining -= part;
                    lot.revoked += part;
                }
            });
        }
    }

    /// Holds what a lot has until it becomes available.
    fn keep(&mut self, id: LotId, hold: HoldId, at: Timestamp) {
        let LotRow { remaining: points, from: deadline, .. } = *self.lot(id);
        let (status, parts, closed_at) = (HoldStatus::Open, vec![(id, points)], None);
        let row = HoldRow {
            points,
            captured: 0,
            released: 0,
            status,
            deadline,
            parts: parts.clone(),
            closed_at,
            pending: true,
        };
        self.holds.insert(hold, row);
        self.change(TransactionType::Hold, -points, parts, at, None, |book| {
            let lot = book.lot(id);
            lot.remaining -= points;
            lot.held += points;
        });
    }

    fn grant(&mut self, movement: &Movement, spendable: Spendable, at: Timestamp, new: &New) -> Decided {
        let Spendable { available_from, expires_at } = spendable;
        self.settle(at);
        self.is_open()?;
        if expires_at.is_some_and(|end| end <= at) {
            return Err("DEADLINE_PASSED");
        }
        let from = available_from.unwrap_or(at).max(at);
        if from > at && expires_at.is_some_and(|end| end <= from) {
            return Err("POINTS_EXPIRES_BEFORE_AVAILABLE");
        }
        if i128::from(self.account().total) + i128::from(movement.points) > 1 << 62 {
            return Err("POINTS_OVERFLOW");
        }
        self.change(movement.kind, movement.points, Vec::new(), at, Some(new.transaction), |book| {
            let lot = LotRow::new(movement.points, at, expires_at.unwrap_or(Timestamp(i64::MAX)));
            book.lots.push((new.lot, LotRow { from, ..lot }));
        });
        self.lines.last_mut().expect("just written").lot = Some(new.lot);
        let text = self.show_line(new.transaction);
        if from > at {
            self.keep(new.lot, HoldId(new.lot.0), at);
        } else {
            self.pay_debt(&[new.lot], at);
        }
        Ok(text)
    }

    fn hold(&mut self, movement: &Movement, deadline: Option<Timestamp>, at: Timestamp, new: &New) -> Decided {
        self.settle(at);
        self.is_open()?;
        if deadline.is_some_and(|deadline| deadline <= at) {
            return Err("DEADLINE_PASSED");
        }
        let parts = self.choose(movement.points, at)?;
        let hold = HoldRow {
            points: movement.points,
            captured: 0,
            released: 0,
            status: HoldStatus::Open,
            deadline: deadline.unwrap_or(Timestamp(i64::MAX)),
            parts: parts.clone(),
            closed_at: None,
            pending: false,
        };
        self.holds.insert(new.hold, hold);
        self.change(TransactionType::Hold, -movement.points, parts.clone(), at, Some(new.transaction), |book| {
            for (id, points) in parts {
                let lot = book.lot(id);
                lot.remaining -= points;
                lot.held += points;
            }
        });
        Ok(self.show_hold(new.hold, new.transaction))
    }

    /// Captures (`Some`: how much, by default all) or releases (`None`) an open hold.
    fn end_hold(&mut self, id: HoldId, capture: Option<Option<i64>>, at: Timestamp, new: &New) -> Decided {
        if !self.holds.contains_key(&id) {
            return Err("POINTS_HOLD_NOT_FOUND");
        }
        self.settle(at);
        let hold = self.holds.get_mut(&id).expect("a known hold");
        match hold.status {
            HoldStatus::Open if hold.pending => return Err("POINTS_HOLD_PENDING"),
            HoldStatus::Open => {}
            HoldStatus::Expired => return Err("POINTS_HOLD_EXPIRED"),
            HoldStatus::Captured | HoldStatus::Released => return Err("POINTS_HOLD_CLOSED"),
        }
        let Some(points) = capture.map(|points| points.unwrap_or(hold.points)) else {
            self.give_back(id, HoldStatus::Released, at, Some(new.transaction));
            return Ok(self.show_hold(id, new.transaction));
        };
        if points > hold.points {
            return Err("POINTS_CAPTURE_EXCEEDS_HOLD");
        }
        hold.captured = points;
        let parts = range(&hold.parts, 0, points);
        self.change(TransactionType::UseOrder, -points, parts.clone(), at, Some(new.transaction), |book| {
            for (id, points) in parts {
                let lot = book.lot(id);
                lot.held -= points;
                lot.used += points;
            }
        });
        self.give_back(id, HoldStatus::Captured, at, None);
        Ok(self.show_hold(id, new.transaction))
    }

    fn reverse(&mut self, id: TransactionId, points: Option<i64>, grace: u32, at: Timestamp, new: &New) -> Decided {
        use TransactionType::{
            DeductAdmin, EarnAdmin, EarnCheckin, EarnOrder, EarnTask, UseCoupon, UseOrder, UseProduct,
        };
        let index = self.lines.iter().position(|line| line.id == Some(id)).ok_or("POINTS_TRANSACTION_NOT_FOUND")?;
        let line = &self.lines[index];
        let (kind, lot, done, parts) = (line.row.kind, line.lot, line.reversed, line.row.parts.clone());
        let is_earn = matches!(kind, EarnOrder | EarnCheckin | EarnTask | EarnAdmin);
        if !is_earn && !matches!(kind, UseOrder | UseCoupon | UseProduct | DeductAdmin) {
            return Err("POINTS_NOT_REVERSIBLE");
        }
        let left = line.row.points.abs() - done;
        let points = points.unwrap_or(left);
        if points < 1 || points > left {
            return Err("POINTS_REVERSAL_EXCEEDS");
        }
        self.settle(at);
        self.lines[index].reversed += points;
        if is_earn {
            let lot = lot.expect("a grant makes a lot");
            let keeps = |hold: &HoldRow| {
                hold.pending && hold.status == HoldStatus::Open && hold.parts.iter().any(|(id, _)| *id == lot)
            };
            let kept = self.holds.iter().find(|(_, hold)| keeps(hold)).map(|(id, _)| *id);
            if let Some(id) = kept {
                self.give_back(id, HoldStatus::Released, at, None);
            }
            self.claw_back(lot, points, at, new.transaction);
            let text = self.show_line(new.transaction);
            if kept.is_some() && self.lot(lot).remaining > 0 {
                self.keep(lot, HoldId(new.transaction.0), at);
            }
            return Ok(text);
        } else {
            let parts = range(&parts, done, done + points);
            self.refund(&parts, points, kind == DeductAdmin, grace, at, new);
        }
        let text = self.show_line(new.transaction);
        self.expire(at, at);
        Ok(text)
    }

    fn claw_back(&mut self, own: LotId, points: i64, at: Timestamp, id: TransactionId) {
        self.sort();
        let mut order: Vec<LotId> = self.lots.iter().map(|(id, _)| *id).filter(|id| *id != own).collect();
        order.insert(0, own);
        let mut open = points;
        let mut parts = Vec::new();
        for id in order {
            let lot = self.lot(id);
            let part = if id == own || (lot.from <= at && at < lot.until) { open.min(lot.remaining) } else { 0 };
            open -= part;
            if part > 0 {
                parts.push((id, part));
            }
        }
        self.change(TransactionType::Clawback, open - points, parts.clone(), at, Some(id), |book| {
            for (id, part) in parts {
                let lot = book.lot(id);
                lot.remaining -= part;
                lot.revoked += part;
            }
            book.debt += open;
        });
    }

    fn refund(&mut self, parts: &[(LotId, i64)], points: i64, revoked: bool, grace: u32, at: Timestamp, new: &New) {
        let before = self.account().available;
        let mut restored = Vec::new();
        let mut moved = 0;
        for (id, part) in parts {
            let lot = self.lot(*id);
            *(if revoked { &mut lot.revoked } else { &mut lot.used }) -= part;
            if lot.until <= at && grace > 0 {
                lot.moved += part;
                moved += part;
            } else {
                lot.remaining += part;
                restored.push((*id, *part));
            }
        }
        if moved > 0 {
            self.lots.push((new.lot, LotRow::new(moved, at, after_days(at, grace))));
            restored.push((new.lot, moved));
        }
        self.change(TransactionType::Refund, points, restored, at, Some(new.transaction), |_| {});
        self.lines.last_mut().expect("just written").row.before = before;
    }
}

/// The points number `from` to `to` of a list of parts.
fn range(parts: &[(LotId, i64)], from: i64, to: i64) -> Vec<(LotId, i64)> {
    let mut cut = Vec::new();
    let mut start = 0;
    for (id, points) in parts {
        let end = start + points;
        let inside = end.min(to) - start.max(from);
        if inside > 0 {
            cut.push((*id, inside));
        }
        start = end;
    }
    cut
}
