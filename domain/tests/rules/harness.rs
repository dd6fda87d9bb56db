//! A store in memory: whole rows in ordered maps, loaded by the keys of a batch and written back from the state's
//! writes, as a real store does it. After each batch it checks what a database would check by constraints, and a
//! little more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use scrip_domain::bulk::{Bulk, ChunkResult};
use scrip_domain::check_in::CheckIn;
use scrip_domain::coupon::{
    Code, CodeBatch, CodeDigest, CodeUse, Compensation, Coupon, CouponStatus, Definition, Template,
};
use scrip_domain::decide::Need;
use scrip_domain::event::Event;
use scrip_domain::exchange::Exchange;
use scrip_domain::job::Job;
use scrip_domain::key::Keys;
use scrip_domain::order::{Order, OrderStatus, Refund};
use scrip_domain::points::{Account, Adjustment, Hold, HoldStatus, Lot, Transaction, TransactionType};
use scrip_domain::rules::RulesVersion;
use scrip_domain::state::{IdempotencyRecord, LOT_PAGE, Prerequisite, Writes};
use scrip_domain::task::{Progress, Report, Task};
use scrip_domain::tenant::{ApiKey, Tenant};
use scrip_domain::time::{DayEnd, LocalPeriod, LocalPeriods, MICROS_PER_DAY};
use scrip_domain::webhook::Webhook;
use scrip_domain::{
    AdjustmentId, Answer, BulkId, CodeBatchId, CompensationId, CompletionId, CouponId, Day, Envelope, EventId, HoldId,
    JobId, KeyId, LotId, MemberId, OrderId, RefundId, State, TaskKey, TemplateId, TenantId, Timestamp, TransactionId,
    WebhookId, decide,
};

use crate::model::Snapshot;

/// Every row of every tenant.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Rows {
    pub tenants: BTreeMap<TenantId, Tenant>,
    pub api_keys: BTreeMap<(TenantId, KeyId), (ApiKey, [u8; 32])>,
    pub webhooks: BTreeMap<(TenantId, WebhookId), Webhook>,
    /// Without the uses, which are kept apart.
    pub templates: BTreeMap<(TenantId, TemplateId), Template>,
    pub versions: BTreeMap<(TenantId, TemplateId, i64), Arc<Definition>>,
    pub uses: BTreeMap<(TenantId, TemplateId), i64>,
    pub code_batches: BTreeMap<(TenantId, CodeBatchId), CodeBatch>,
    pub codes: BTreeMap<(TenantId, CodeDigest), Code>,
    pub code_uses: BTreeMap<(TenantId, CouponId), CodeUse>,
    pub exchanges: BTreeMap<(TenantId, CouponId), Exchange>,
    pub coupons: BTreeMap<(TenantId, CouponId), Coupon>,
    pub sequences: BTreeMap<(TenantId, TemplateId, MemberId), BTreeSet<i64>>,
    pub accounts: BTreeMap<(TenantId, MemberId), Account>,
    pub lots: BTreeMap<(TenantId, MemberId), BTreeMap<LotId, Lot>>,
    pub holds: BTreeMap<(TenantId, MemberId), BTreeMap<HoldId, Hold>>,
    pub transactions: BTreeMap<(TenantId, TransactionId), Transaction>,
    pub ledgers: BTreeMap<(TenantId, MemberId), Vec<TransactionId>>,
    /// The size of a transaction, and how much of it has been undone.
    pub reversals: BTreeMap<(TenantId, TransactionId), (i64, i64)>,
    pub jobs: BTreeMap<(TenantId, JobId), Job>,
    pub windows: BTreeMap<TenantId, Timestamp>,
    pub reminders: BTreeMap<(TenantId, i64), (Timestamp, LotId)>,
    pub bulks: BTreeMap<(TenantId, BulkId), Bulk>,
    pub chunks: BTreeMap<(TenantId, BulkId, i64), ChunkResult>,
    pub check_ins: BTreeMap<(TenantId, MemberId, Day), CheckIn>,
    pub tasks: BTreeMap<(TenantId, TaskKey), Task>,
    pub progress: BTreeMap<(TenantId, MemberId, TaskKey), Progress>,
    pub reports: BTreeMap<(TenantId, MemberId, TaskKey, CompletionId), Report>,
    pub events: Vec<(TenantId, Event)>,
    pub rules: BTreeMap<(TenantId, i64), RulesVersion>,
    pub orders: BTreeMap<(TenantId, OrderId), Order>,
    pub refunds: BTreeMap<(TenantId, OrderId, RefundId), Refund>,
    pub cases: BTreeMap<(TenantId, CompensationId), Compensation>,
    pub adjustments: BTreeMap<(TenantId, AdjustmentId), Adjustment>,
    pub idempotency: BTreeMap<(TenantId, [u8; 16]), IdempotencyRecord>,
}

impl Rows {
    /// Panics with the place of the first difference, if there is one.
    pub fn assert_same(&self, other: &Rows, context: &str) {
        if self == other {
            return;
        }
        let (left, right) = (format!("{self:#?}"), format!("{other:#?}"));
        let (left, right): (Vec<_>, Vec<_>) = (left.lines().collect(), right.lines().collect());
        let place = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
        let around = |lines: &[&str]| lines[place.saturating_sub(25)..lines.len().min(place + 10)].join("\n");
        panic!("{context}: rows differ\n--- one:\n{}\n--- other:\n{}", around(&left), around(&right));
    }
}

#[derive(Debug, Clone)]
pub struct Harness {
    pub rows: Rows,
    /// How many open lots of an account a batch loads at first.
    pub lot_page: usize,
    /// How often a decision has asked for more lots.
    pub asked_for_lots: usize,
    /// How often a decision has asked for the end of a day.
    pub asked_for_day_ends: usize,
    /// How often what tasks require was asked for.
    pub asked_for_prerequisites: usize,
}

impl Default for Harness {
    fn default() -> Self {
        Harness::with_lot_page(LOT_PAGE as usize)
    }
}

impl Harness {
    pub fn with_lot_page(lot_page: usize) -> Harness {
        Harness {
            rows: Rows::default(),
            lot_page,
            asked_for_lots: 0,
            asked_for_day_ends: 0,
            asked_for_prerequisites: 0,
        }
    }

    /// Decides the commands as one batch and keeps what they change.
    pub fn execute(&mut self, batch: &[Envelope]) -> Vec<Answer> {
        let mut state = self.load(batch);
        let answers = batch.iter().map(|envelope| self.decide(&mut state, batch, envelope)).collect();
        let writes = state.writes();
        assert!(!state.is_unchanged() || is_empty(&writes), "an unchanged state has nothing to write: {writes:?}");
        self.write(&writes);
        answers
    }

    /// Decides a command of a batch, and loads what that turns out to need.
    pub fn decide(&mut self, state: &mut State, batch: &[Envelope], envelope: &Envelope) -> Answer {
        let tenant = envelope.tenant;
        loop {
            let need = match decide(state, envelope) {
                Ok(answer) => return answer,
                Err(need) => need,
            };
            let written = state.writes().event_inserts.len();
            match need {
                Need::Lots(member) => {
                    self.asked_for_lots += 1;
                    for lot in self.open_lots(tenant, &member) {
                        state.load_lot(tenant, &member, lot);
                    }
                    state.set_lots_complete(tenant, &member, true);
                }
                Need::Periods(at) => state.load_periods(tenant, utc_periods(at)),
                Need::DayEnd { at, days } => {
                    self.asked_for_day_ends += 1;
                    let day = utc_periods(at)[0];
                    let ends_at = Timestamp(day.ends_at.0 + i64::from(days) * MICROS_PER_DAY);
                    state.load_day_end(tenant, days, DayEnd { day, ends_at });
                }
                Need::Tasks(asked) => {
                    let found = asked.iter().filter_map(|key| self.rows.tasks.get(&(tenant, key.clone())));
                    let found: Vec<Task> = found.cloned().collect();
                    state.load_tasks(tenant, asked, found);
                }
                Need::Prerequisites => {
                    self.asked_for_prerequisites += 1;
                    for (tenant, member, task) in state.missing_prerequisites(&Keys::of(batch)) {
                        let known = self.rows.tasks.get(&(tenant, task.clone()));
                        let progress = self.rows.progress.get(&(tenant, member.clone(), task.clone()));
                        let found = Prerequisite {
                            exists: known.is_some_and(|known| known.deleted_at.is_none()),
                            completions: progress.map_or(0, |progress| progress.total_completions),
                        };
                        state.load_prerequisite((tenant, member, task), found);
                    }
                }
            }
            assert_eq!(written, state.writes().event_inserts.len());
        }
    }

    /// The state of a batch, as loaded. Deciding on it changes nothing here.
    pub fn load(&self, batch: &[Envelope]) -> State {
        let rows = &self.rows;
        let mut keys = Keys::of(batch);
        let mut state = State::empty(&keys);
        for key in &keys.orders {
            if let Some(order) = rows.orders.get(key) {
                state.load_order(key.0, order.clone());
            }
        }
        keys.follow_orders(batch, &state);
        for tenant in keys.tenants.iter().filter_map(|id| rows.tenants.get(id)) {
            state.load_tenant(tenant.clone());
        }
        for program in rows.tenants.values().filter_map(|tenant| tenant.program.as_ref()) {
            if keys.programs.contains(&program.parent_id) {
                state.load_program(program.parent_id, program.code.clone());
            }
        }
        for (key, digest) in keys.api_keys.iter().filter_map(|id| rows.api_keys.get(id)) {
            state.load_api_key(key.clone(), *digest);
        }
        for (tenant, id) in &keys.webhooks {
            if let Some(webhook) = rows.webhooks.get(&(*tenant, *id)) {
                state.load_webhook(*tenant, webhook.clone());
            }
        }
        for (tenant, id) in keys.templates.iter().chain(&keys.template_reads) {
            if let Some(template) = self.template(*tenant, *id) {
                state.load_template(*tenant, template);
            }
        }
        for (tenant, template, member) in &keys.claimants {
            let taken = rows.sequences.get(&(*tenant, *template, member.clone())).and_then(BTreeSet::last);
            if let Some(last) = taken {
                state.load_claimed(*tenant, *template, member.clone(), *last);
            }
        }
        for (tenant, id) in &keys.code_batches {
            if let Some(batch) = rows.code_batches.get(&(*tenant, *id)) {
                state.load_code_batch(*tenant, batch.clone());
            }
        }
        for (tenant, digest) in &keys.codes {
            if let Some(code) = rows.codes.get(&(*tenant, *digest)) {
                state.load_code(*tenant, code.clone());
            }
        }
        for (tenant, id) in &keys.coupons {
            if let Some(coupon) = rows.coupons.get(&(*tenant, *id)) {
                state.load_coupon(*tenant, coupon.clone());
            }
        }
        for (tenant, id) in state.missing_templates(&keys) {
            state.load_template(tenant, self.template(tenant, id).expect("a coupon has a template"));
        }
        for (tenant, id, version) in state.missing_definitions(&keys) {
            state.load_definition(tenant, id, version, rows.versions[&(tenant, id, version)].clone());
        }
        for key in &keys.refunds {
            if let Some(refund) = rows.refunds.get(key) {
                state.load_refund(key.0, refund.clone());
            }
        }
        for key in &keys.adjustments {
            if let Some(row) = self.rows.adjustments.get(key) {
                state.load_adjustment(key.0, row.clone());
            }
        }
        for key in &keys.compensations {
            if let Some(case) = rows.cases.get(key) {
                state.load_compensation(key.0, case.clone());
            }
        }
        for key in &keys.rules_versions {
            if let Some(version) = rows.rules.get(key) {
                state.load_rules_version(key.0, version.rules.clone());
            }
        }
        for key in &keys.accounts {
            let (tenant, member) = key;
            let Some(account) = rows.accounts.get(key) else { continue };
            state.load_account(*tenant, account.clone());
            let mut open = self.open_lots(*tenant, member);
            let complete = open.len() <= self.lot_page;
            open.truncate(self.lot_page);
            for lot in open {
                state.load_lot(*tenant, member, lot);
            }
            state.set_lots_complete(*tenant, member, complete);
            let latest = keys.latest.expect("a batch with an account has a command");
            let holds = rows.holds.get(key).into_iter().flat_map(BTreeMap::values);
            for hold in holds.filter(|hold| hold.status == HoldStatus::Open && hold.expires_at <= latest) {
                state.load_hold(*tenant, hold.clone());
            }
        }
        for (tenant, id) in &keys.holds {
            let of_tenant = rows.holds.iter().filter(|((owner, _), _)| owner == tenant);
            for hold in of_tenant.filter_map(|(_, holds)| holds.get(id)) {
                state.load_hold(*tenant, hold.clone());
            }
        }
        for key in &keys.pending_holds {
            let holds = rows.holds.get(key).into_iter().flat_map(BTreeMap::values);
            for hold in holds.filter(|hold| hold.pending && hold.status == HoldStatus::Open) {
                state.load_hold(key.0, hold.clone());
            }
        }
        for ((tenant, member), wanted) in &keys.check_ins {
            let days = (*tenant, member.clone(), Day(i64::MIN))..=(*tenant, member.clone(), Day(i64::MAX));
            for (_, row) in rows.check_ins.range(days).rev().take(*wanted as usize) {
                state.load_check_in(*tenant, row.clone());
            }
        }
        for key in keys.tasks.iter().chain(&keys.task_reads) {
            if let Some(task) = rows.tasks.get(key) {
                state.load_task(key.0, task.clone());
            }
        }
        for (tenant, member) in &keys.all_progress {
            for (_, progress) in rows.progress.iter().filter(|((owner, id, _), _)| owner == tenant && id == member) {
                state.load_progress(*tenant, progress.clone());
            }
        }
        for key in &keys.task_reports {
            let (tenant, member, task, _) = key;
            if let Some(progress) = rows.progress.get(&(*tenant, member.clone(), task.clone())) {
                state.load_progress(*tenant, progress.clone());
            }
            if let Some(report) = rows.reports.get(key) {
                state.load_report(*tenant, report.clone());
            }
        }
        for key in &keys.originals {
            if let Some(original) = rows.transactions.get(key) {
                let reversed = rows.reversals.get(key).map_or(0, |(_, reversed)| *reversed);
                state.load_original(key.0, original.clone(), reversed);
            }
        }
        for (tenant, member, lot) in state.missing_lots() {
            let row = rows.lots.get(&(tenant, member.clone())).and_then(|lots| lots.get(&lot));
            state.load_lot(tenant, &member, row.expect("an allocation names a lot").clone());
        }
        assert_eq!(state.missing_lots(), []);
        for (tenant, (earliest, latest)) in &keys.rules {
            let own = || rows.rules.range((*tenant, 0)..=(*tenant, i64::MAX)).map(|(_, row)| row);
            let from = own().map(|row| row.effective_from).filter(|from| from <= earliest).max().unwrap_or(*earliest);
            for row in own().filter(|row| (from..=*latest).contains(&row.effective_from)) {
                state.load_rules(*tenant, row.effective_from, row.rules.clone());
            }
        }
        for tenant in &keys.newest_rules {
            if let Some(((_, version), _)) = rows.rules.range((*tenant, 0)..=(*tenant, i64::MAX)).next_back() {
                state.set_newest_rules(*tenant, *version);
            }
        }
        for tenant in &keys.windows {
            if let Some(until) = rows.windows.get(tenant) {
                state.load_windows(*tenant, *until);
            }
        }
        for (tenant, days) in &keys.reminders {
            if let Some(reached) = rows.reminders.get(&(*tenant, *days)) {
                state.load_reminder(*tenant, *days, *reached);
            }
        }
        for key in &keys.bulks {
            if let Some(bulk) = rows.bulks.get(key) {
                state.load_bulk(key.0, bulk.clone());
            }
        }
        for key in &keys.jobs {
            if let Some(job) = rows.jobs.get(key) {
                state.load_job(key.0, job.clone());
            }
        }
        for (tenant, key) in &keys.idempotency {
            if let Some(record) = rows.idempotency.get(&(*tenant, *key)) {
                state.load_idempotency(*tenant, *key, record.clone());
            }
        }
        state
    }

    pub fn template(&self, tenant: TenantId, id: TemplateId) -> Option<Template> {
        let used_count = self.rows.uses.get(&(tenant, id)).copied().unwrap_or(0);
        self.rows.templates.get(&(tenant, id)).map(|row| Template { used_count, ..row.clone() })
    }

    /// The account's lots that have anything left or held, in spending order.
    fn open_lots(&self, tenant: TenantId, member: &MemberId) -> Vec<Lot> {
        let lots = self.rows.lots.get(&(tenant, member.clone())).into_iter().flat_map(BTreeMap::values);
        let mut open: Vec<Lot> = lots.filter(|lot| lot.remaining > 0 || lot.held > 0).cloned().collect();
        open.sort_by_key(|lot| (lot.expires_at, lot.created_at, lot.id));
        open
    }

    pub fn ledger(&self, tenant: TenantId, member: &MemberId) -> Vec<&Transaction> {
        let ids = self.rows.ledgers.get(&(tenant, member.clone())).into_iter().flatten();
        ids.map(|id| &self.rows.transactions[&(tenant, *id)]).collect()
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::default();
        for (tenant, id) in self.rows.templates.keys() {
            all.template(*tenant, &self.template(*tenant, *id).expect("it is there"));
        }
        for ((tenant, _), coupon) in &self.rows.coupons {
            all.coupon(*tenant, coupon);
        }
        for ((tenant, _), batch) in &self.rows.code_batches {
            all.code_batch(*tenant, batch);
        }
        for ((tenant, _), code) in &self.rows.codes {
            all.code(*tenant, code);
        }
        for ((tenant, _), code_use) in &self.rows.code_uses {
            all.code_use(*tenant, code_use);
        }
        for ((tenant, coupon), Exchange { coupon: made, transaction }) in &self.rows.exchanges {
            all.exchange(*tenant, *coupon, &made.member_id, transaction.id, -transaction.points);
        }
        for ((tenant, _), row) in &self.rows.adjustments {
            all.adjustment(*tenant, row);
        }
        for ((tenant, _), account) in &self.rows.accounts {
            all.account(*tenant, account);
        }
        for ((tenant, member), lots) in &self.rows.lots {
            lots.values().for_each(|lot| all.lot(*tenant, member, lot));
        }
        for ((tenant, _), holds) in &self.rows.holds {
            holds.values().for_each(|hold| all.hold(*tenant, hold));
        }
        for ((tenant, _), webhook) in &self.rows.webhooks {
            all.webhook(*tenant, webhook);
        }
        for ((tenant, _), transaction) in &self.rows.transactions {
            all.transaction(*tenant, transaction);
        }
        for ((tenant, _), order) in &self.rows.orders {
            all.order(*tenant, order);
        }
        for ((tenant, _, _), refund) in &self.rows.refunds {
            all.refund(*tenant, refund);
        }
        for ((tenant, _), case) in &self.rows.cases {
            all.case(*tenant, case);
        }
        for ((tenant, _), bulk) in &self.rows.bulks {
            all.bulk(*tenant, bulk);
        }
        for ((tenant, id, number), chunk) in &self.rows.chunks {
            all.chunk(*tenant, *id, *number, &chunk.outcomes);
        }
        for ((tenant, _), rules) in &self.rows.rules {
            all.rules(*tenant, rules.effective_from, &rules.rules);
        }
        for ((tenant, id), (_, reversed)) in &self.rows.reversals {
            all.reversed(*tenant, *id, *reversed);
        }
        for ((tenant, _), job) in &self.rows.jobs {
            all.job(*tenant, job);
        }
        self.rows.check_ins.iter().for_each(|((tenant, ..), row)| all.check_in(*tenant, row));
        self.rows.tasks.iter().for_each(|((tenant, _), row)| all.task(*tenant, row));
        self.rows.progress.iter().for_each(|((tenant, ..), row)| all.progress(*tenant, row));
        self.rows.reports.iter().for_each(|((tenant, ..), row)| all.report(*tenant, row));
        all
    }

    /// Keeps the writes, refusing what a table would refuse: a second row under a key, an update of no row.
    fn write(&mut self, writes: &Writes<'_>) {
        let rows = &mut self.rows;
        for tenant in &writes.tenant_inserts {
            if let Some(program) = &tenant.program {
                let parent = rows.tenants.get(&program.parent_id).expect("a parent");
                assert_eq!((&parent.program, &parent.currency), (&None, &tenant.currency));
                assert!(
                    rows.tenants.values().all(|other| other.program.as_ref() != Some(program)),
                    "{program:?} twice"
                );
            }
            insert(&mut rows.tenants, tenant.id, (*tenant).clone());
        }
        for (key, digest) in &writes.api_key_inserts {
            assert!(rows.tenants.contains_key(&key.tenant_id));
            insert(&mut rows.api_keys, (key.tenant_id, key.id), (key.clone(), *digest));
        }
        for (key, _) in &writes.api_key_updates {
            let row = rows.api_keys.get_mut(&(key.tenant_id, key.id)).expect("a row to update");
            row.0 = key.clone();
        }
        assert_distinct(writes.webhook_updates.iter().map(|(tenant, row)| (*tenant, row.id)));
        for (tenant, row) in &writes.webhook_inserts {
            assert!(rows.tenants.contains_key(tenant));
            insert(&mut rows.webhooks, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.webhook_updates {
            update(&mut rows.webhooks, (*tenant, row.id), (*row).clone());
        }
        for key in &writes.webhook_deletes {
            rows.webhooks.remove(key);
        }
        assert_distinct(writes.template_updates.iter().map(|(tenant, row)| (*tenant, row.id)));
        for (tenant, row) in &writes.template_inserts {
            insert(&mut rows.templates, (*tenant, row.id), Template { used_count: 0, ..(*row).clone() });
        }
        for (tenant, row) in &writes.template_updates {
            let changed = Template { used_count: 0, ..(*row).clone() };
            update(&mut rows.templates, (*tenant, row.id), changed);
        }
        for (tenant, row) in &writes.template_versions {
            assert!(rows.templates.contains_key(&(*tenant, row.id)), "a version belongs to a template");
            insert(&mut rows.versions, (*tenant, row.id, row.version), row.definition.clone());
        }
        for key in &writes.template_deletes {
            rows.templates.remove(key);
            rows.versions.retain(|(tenant, id, _), _| (*tenant, *id) != *key);
        }
        for (tenant, row) in &writes.code_batch_inserts {
            assert!(rows.templates.contains_key(&(*tenant, row.template_id)), "a batch belongs to a template");
            insert(&mut rows.code_batches, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.code_batch_updates {
            update(&mut rows.code_batches, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.code_inserts {
            insert(&mut rows.codes, (*tenant, row.digest), (*row).clone());
        }
        for (tenant, row) in &writes.code_updates {
            update(&mut rows.codes, (*tenant, row.digest), (*row).clone());
        }
        for (tenant, row) in &writes.code_use_inserts {
            insert(&mut rows.code_uses, (*tenant, row.coupon_id), (*row).clone());
        }
        for (tenant, row) in &writes.exchange_inserts {
            assert!(writes.coupon_inserts.iter().any(|(of, coupon)| of == tenant && coupon.id == row.coupon.id));
            assert!(writes.transaction_inserts.iter().any(|(of, line)| of == tenant && **line == row.transaction));
            insert(&mut rows.exchanges, (*tenant, row.coupon.id), (*row).clone());
        }
        assert_distinct(writes.coupon_updates.iter().map(|(tenant, row)| (*tenant, row.id)));
        for (tenant, row) in &writes.coupon_inserts {
            let own = rows.sequences.entry((*tenant, row.template_id, row.member_id.clone())).or_default();
            assert!(own.insert(row.sequence), "one coupon for each (template, member, sequence)");
            assert!(rows.versions.contains_key(&(*tenant, row.template_id, row.template_version)));
            insert(&mut rows.coupons, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.coupon_updates {
            update(&mut rows.coupons, (*tenant, row.id), (*row).clone());
        }
        for (tenant, id, change) in &writes.uses {
            *rows.uses.entry((*tenant, *id)).or_default() += change;
        }
        rows.uses.retain(|_, uses| *uses != 0);
        for (tenant, row) in &writes.account_inserts {
            insert(&mut rows.accounts, (*tenant, row.member_id.clone()), (*row).clone());
        }
        for (tenant, row) in &writes.account_updates {
            update(&mut rows.accounts, (*tenant, row.member_id.clone()), (*row).clone());
        }
        for (tenant, member, row) in &writes.lot_inserts {
            insert(rows.lots.entry((*tenant, (*member).clone())).or_default(), row.id, (*row).clone());
        }
        for (tenant, member, row) in &writes.lot_updates {
            update(rows.lots.entry((*tenant, (*member).clone())).or_default(), row.id, (*row).clone());
        }
        for (tenant, row) in &writes.hold_inserts {
            insert(rows.holds.entry((*tenant, row.member_id.clone())).or_default(), row.id, (*row).clone());
        }
        for (tenant, row) in &writes.hold_updates {
            update(rows.holds.entry((*tenant, row.member_id.clone())).or_default(), row.id, (*row).clone());
        }
        for (tenant, row) in &writes.transaction_inserts {
            let ledger = rows.ledgers.entry((*tenant, row.member_id.clone())).or_default();
            ledger.push(row.id);
            assert_eq!(row.sequence, ledger.len() as i64, "account sequences have no gap");
            insert(&mut rows.transactions, (*tenant, row.id), (*row).clone());
        }
        for (tenant, id, points, reversed) in &writes.reversed {
            assert!(*reversed > 0 && reversed <= points, "undone beyond the size: {reversed} of {points}");
            assert_eq!(rows.transactions[&(*tenant, *id)].points.abs(), *points);
            rows.reversals.insert((*tenant, *id), (*points, *reversed));
        }
        rows.windows.extend(writes.windows.iter().copied());
        rows.reminders.extend(writes.reminders.iter().map(|(tenant, days, reached)| ((*tenant, *days), *reached)));
        for (tenant, row) in &writes.bulk_inserts {
            insert(&mut rows.bulks, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.bulk_updates {
            update(&mut rows.bulks, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.chunk_updates {
            insert(&mut rows.chunks, (*tenant, row.bulk_id, row.number), (*row).clone());
        }
        for (tenant, row) in &writes.job_inserts {
            insert(&mut rows.jobs, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.job_updates {
            update(&mut rows.jobs, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.check_in_inserts {
            assert!(rows.transactions.contains_key(&(*tenant, row.transaction_id)));
            insert(&mut rows.check_ins, (*tenant, row.member_id.clone(), row.day), (*row).clone());
        }
        for (tenant, row) in &writes.check_in_updates {
            update(&mut rows.check_ins, (*tenant, row.member_id.clone(), row.day), (*row).clone());
        }
        for (tenant, row) in &writes.task_inserts {
            insert(&mut rows.tasks, (*tenant, row.key.clone()), (*row).clone());
        }
        for (tenant, row) in &writes.task_updates {
            update(&mut rows.tasks, (*tenant, row.key.clone()), (*row).clone());
        }
        for (tenant, row) in &writes.progress_inserts {
            insert(&mut rows.progress, (*tenant, row.member_id.clone(), row.task_key.clone()), (*row).clone());
        }
        for (tenant, row) in &writes.progress_updates {
            update(&mut rows.progress, (*tenant, row.member_id.clone(), row.task_key.clone()), (*row).clone());
        }
        for (tenant, row) in &writes.report_inserts {
            let key = (*tenant, row.member_id.clone(), row.task_key.clone(), row.completion_id.clone());
            insert(&mut rows.reports, key, (*row).clone());
        }
        rows.events.extend(writes.event_inserts.iter().map(|(tenant, row)| (*tenant, (*row).clone())));
        for (tenant, row) in &writes.order_inserts {
            insert(&mut rows.orders, (*tenant, row.order_id.clone()), (*row).clone());
        }
        for (tenant, row) in &writes.order_updates {
            update(&mut rows.orders, (*tenant, row.order_id.clone()), (*row).clone());
        }
        for (tenant, row) in &writes.refund_inserts {
            let key = (*tenant, row.order_id.clone(), row.refund_id.clone());
            insert(&mut rows.refunds, key, (*row).clone());
        }
        for (tenant, row) in &writes.adjustment_inserts {
            insert(&mut rows.adjustments, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.adjustment_updates {
            update(&mut rows.adjustments, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.compensation_inserts {
            insert(&mut rows.cases, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.compensation_updates {
            update(&mut rows.cases, (*tenant, row.id), (*row).clone());
        }
        for (tenant, row) in &writes.rules_inserts {
            insert(&mut rows.rules, (*tenant, row.rules.version), (*row).clone());
        }
        for (tenant, key, row) in &writes.idempotency_inserts {
            insert(&mut rows.idempotency, (*tenant, *key), (*row).clone());
        }
        self.check_written(writes);
    }

    /// Checks the rows that a batch has touched.
    fn check_written(&self, writes: &Writes<'_>) {
        for (tenant, row) in writes.template_inserts.iter().chain(&writes.template_updates) {
            if self.rows.templates.contains_key(&(*tenant, row.id)) {
                self.check_template(*tenant, row.id);
            }
        }
        for (tenant, row) in writes.coupon_inserts.iter().chain(&writes.coupon_updates) {
            check_coupon(row);
            assert!(self.rows.templates.contains_key(&(*tenant, row.template_id)));
        }
        for (tenant, row) in writes.account_inserts.iter().chain(&writes.account_updates) {
            self.check_account(*tenant, &row.member_id);
        }
        for (tenant, row) in writes.order_inserts.iter().chain(&writes.order_updates) {
            self.check_order(*tenant, row);
        }
    }

    /// An order's sums, what it has taken, and what its refunds have given back.
    fn check_order(&self, tenant: TenantId, order: &Order) {
        let quote = &order.quote;
        let discounts = quote.coupon_discount + quote.freight_discount + quote.points_discount;
        assert_eq!(quote.pay_amount, quote.original_amount + quote.freight - discounts, "{order:?}");
        let sum = |part: fn(&scrip_domain::pricing::LineQuote) -> i64| quote.lines.iter().map(part).sum::<i64>();
        let freight = quote.freight - quote.freight_discount;
        assert_eq!(sum(|line| line.pay_amount) + freight, quote.pay_amount, "{order:?}");
        assert_eq!(sum(|line| line.points_spent), quote.points_effective, "{order:?}");
        assert_eq!(sum(|line| line.points_to_earn), quote.points_to_earn, "{order:?}");
        if let Some(cut) = &order.earn_cut {
            assert_eq!(cut.lines.iter().map(|line| line.points).sum::<i64>(), order.points_granted, "{order:?}");
            assert!(cut.points > 0 && order.points_granted + cut.points <= quote.points_to_earn, "{order:?}");
        }
        let refunds: Vec<&Refund> = self
            .rows
            .refunds
            .iter()
            .filter(|((owner, id, _), _)| *owner == tenant && *id == order.order_id)
            .map(|(_, refund)| refund)
            .collect();
        for refund in &refunds {
            let Refund { points_owed, points_forgiven, points_clawed_back, .. } = **refund;
            assert!(points_owed >= 0 && points_forgiven >= 0, "{refund:?}");
            assert!(points_owed + points_forgiven <= points_clawed_back, "{refund:?}");
        }
        let refunded = |part: fn(&Refund) -> i64| refunds.iter().map(|refund| part(refund)).sum::<i64>();
        assert_eq!(refunded(|refund| refund.amount), order.refunded_amount, "{order:?}");
        assert_eq!(refunded(|refund| refund.freight), order.refunded_freight, "{order:?}");
        assert_eq!(refunded(|refund| refund.points_returned), order.points_returned, "{order:?}");
        assert_eq!(refunded(|refund| refund.points_clawed_back), order.points_clawed_back, "{order:?}");
        for (place, line) in quote.lines.iter().enumerate() {
            let units = refunds.iter().flat_map(|refund| &refund.lines).filter(|part| part.item_id == line.item_id);
            assert_eq!(units.map(|part| part.quantity).sum::<i64>(), order.refunded_quantities[place], "{order:?}");
        }
        if order.status == OrderStatus::Refunded {
            assert_eq!(order.refunded_amount - order.refunded_freight, quote.pay_amount - freight, "{order:?}");
            assert_eq!(order.points_returned, quote.points_effective, "{order:?}");
            assert_eq!(order.points_clawed_back, quote.points_to_earn - order.points_cut(), "{order:?}");
        }
        let key = (tenant, order.member_id.clone());
        let hold = order.hold_id.map(|id| &self.rows.holds[&key][&id]);
        // The events of one batch are fewer.
        let recent = self.rows.events.iter().rev().take(500);
        let latest = recent.map(|(_, event)| event.occurred_at).max().unwrap_or(order.created_at);
        let paid = matches!(order.status, OrderStatus::Paid | OrderStatus::PartiallyRefunded | OrderStatus::Refunded);
        assert_eq!(paid, order.paid_at.is_some(), "{order:?}");
        assert_eq!(hold.is_some_and(|hold| hold.status == HoldStatus::Captured), paid && hold.is_some(), "{order:?}");
        assert_eq!(order.spend_id.is_some(), paid && quote.points_effective > 0, "{order:?}");
        for used in &quote.coupons {
            let coupon = &self.rows.coupons[&(tenant, used.coupon_id)];
            let is_ours = coupon.by_order && coupon.order_id.as_ref() == Some(&order.order_id);
            let expected = match order.status {
                OrderStatus::Reserved => Some(CouponStatus::Locked),
                _ if paid && !order.coupons_returned => Some(CouponStatus::Used),
                _ => None,
            };
            // A later command of the batch may have found the deadline passed.
            if order.status == OrderStatus::Reserved && !is_ours && order.expires_at <= latest {
                continue;
            }
            // Its template may have kept it.
            let was_kept = order.coupons_returned && is_ours && coupon.status == CouponStatus::Used;
            let versions = self.rows.versions.iter().filter(|((_, id, _), _)| *id == coupon.template_id);
            if was_kept && versions.map(|(_, row)| row).any(|definition| !definition.returnable) {
                continue;
            }
            assert_eq!(expected.is_some(), is_ours, "{order:?}: {coupon:?}");
            assert!(expected.is_none_or(|status| coupon.status == status), "{order:?}: {coupon:?}");
        }
        for (id, points) in [(order.spend_id, order.points_returned), (order.earn_id, order.points_clawed_back)] {
            let Some(id) = id else { continue };
            let ungranted = quote.points_to_earn - order.points_granted - order.points_cut();
            let pending = if Some(id) == order.earn_id { ungranted } else { 0 };
            let undone = self.rows.reversals.get(&(tenant, id)).map_or(0, |(_, undone)| *undone);
            assert_eq!(undone, points - pending, "{order:?}");
        }
    }

    /// Checks every row, and that ledgers and events agree with the heads.
    pub fn check_all(&self) {
        for (tenant, id) in self.rows.templates.keys() {
            self.check_template(*tenant, *id);
            let own = self.rows.coupons.iter().filter(|((owner, _), row)| owner == tenant && row.template_id == *id);
            let (mut claimed, mut used) = (0, 0);
            for (_, coupon) in own {
                check_coupon(coupon);
                claimed += i64::from(coupon.source.takes_stock());
                used += i64::from(coupon.status == CouponStatus::Used);
            }
            let template = self.template(*tenant, *id).expect("it is there");
            assert_eq!(
                (template.claimed_count, template.used_count),
                (claimed, used),
                "counts are those of the coupons"
            );
        }
        for ((_, _, member), sequences) in &self.rows.sequences {
            assert_eq!(sequences.last().copied(), Some(sequences.len() as i64), "{member}: no gap in the sequence");
        }
        for (key, batch) in &self.rows.code_batches {
            let codes = self.rows.codes.iter().filter(|((tenant, _), code)| *tenant == key.0 && code.batch_id == key.1);
            let (mut added, mut claimed) = (0, 0);
            for (_, code) in codes {
                assert!(code.max_uses.is_none_or(|most| code.use_count <= most) && code.number < batch.next_number);
                added += 1;
                claimed += code.use_count;
            }
            assert_eq!((batch.added_count, batch.claimed_count), (added, claimed), "{batch:?}");
            let uses = self.rows.code_uses.iter().filter(|((tenant, _), of)| *tenant == key.0 && of.batch_id == key.1);
            assert_eq!(uses.count() as i64, claimed, "every use of a code made one coupon");
        }
        for (tenant, member) in self.rows.accounts.keys() {
            self.check_account(*tenant, member);
            self.check_ledger(*tenant, member);
        }
        let ids: BTreeSet<EventId> = self.rows.events.iter().map(|(_, event)| event.id).collect();
        assert_eq!(ids.len(), self.rows.events.len(), "every event has its own id");
        for (_, event) in &self.rows.events {
            assert!(event.data.starts_with('{') && event.data.ends_with('}'), "{}", event.data);
        }
    }

    fn check_template(&self, tenant: TenantId, id: TemplateId) {
        let row = self.template(tenant, id).expect("it is there");
        assert_eq!(row.total_stock.is_none(), row.remaining_stock.is_none());
        assert!(row.definition.budget.is_none_or(|budget| row.committed_amount <= budget), "{row:?}");
        for count in row.counts.iter().flatten() {
            assert!(count.claimed <= count.ceiling && count.bounds.starts_at < count.bounds.ends_at, "{row:?}");
        }
        assert!(row.archived_at.is_none() || !row.enabled, "{row:?}");
        assert!(row.claimed_count >= 0 && row.used_count >= 0, "{row:?}");
        if let (Some(total), Some(remaining)) = (row.total_stock, row.remaining_stock) {
            assert!(remaining >= 0, "{row:?}");
            assert_eq!(total, remaining + row.claimed_count, "{row:?}");
        }
        assert!(self.rows.versions.contains_key(&(tenant, id, row.version)), "the current version is kept");
    }

    fn check_account(&self, tenant: TenantId, member: &MemberId) {
        let key = (tenant, member.clone());
        let row = &self.rows.accounts[&key];
        let columns = [row.available, row.frozen, row.used, row.expired, row.revoked];
        assert!(columns.iter().chain([&row.debt, &row.sequence]).all(|column| *column >= 0), "{row:?}");
        assert_eq!(
            row.total_points,
            columns.iter().sum::<i64>(),
            "total_points is what the columns add up to: {row:?}"
        );
        let mut sums = [0; 6];
        for lot in self.rows.lots.get(&key).into_iter().flat_map(BTreeMap::values) {
            let columns = [lot.remaining, lot.held, lot.used, lot.expired, lot.revoked, lot.moved];
            assert!(lot.points > 0 && columns.iter().all(|column| *column >= 0), "{lot:?}");
            assert_eq!(
                lot.points,
                columns.iter().sum::<i64>(),
                "a lot's points are what its columns add up to: {lot:?}"
            );
            assert!(self.rows.transactions.contains_key(&(tenant, lot.transaction_id)), "{lot:?}");
            let counted = [lot.remaining, lot.held, lot.used, lot.expired, lot.revoked, lot.points - lot.moved];
            sums.iter_mut().zip(counted).for_each(|(sum, column)| *sum += column);
        }
        let expected = [row.available, row.frozen, row.used, row.expired, row.revoked, row.total_points];
        assert_eq!(sums, expected, "an account is the sum of its lots: {row:?}");
        let mut held: BTreeMap<LotId, i64> = BTreeMap::new();
        for hold in self.rows.holds.get(&key).into_iter().flat_map(BTreeMap::values) {
            check_hold(hold);
            for part in hold.allocations.iter().filter(|_| hold.status == HoldStatus::Open) {
                *held.entry(part.lot_id).or_default() += part.points;
            }
        }
        for lot in self.rows.lots.get(&key).into_iter().flat_map(BTreeMap::values) {
            assert_eq!(lot.held, held.get(&lot.id).copied().unwrap_or(0), "a lot is held by its open holds: {lot:?}");
        }
    }

    /// Replays the ledger from zero: it chains without a gap and ends in the account as it stands.
    fn check_ledger(&self, tenant: TenantId, member: &MemberId) {
        let account = &self.rows.accounts[&(tenant, member.clone())];
        let (mut balance, mut earned, mut debt) = (0, 0, 0);
        let mut undone: BTreeMap<TransactionId, i64> = BTreeMap::new();
        for line in self.ledger(tenant, member) {
            assert_eq!(line.balance_before, balance, "each line starts where the last one ended: {line:?}");
            let change = line.balance_after - line.balance_before;
            assert!(change == line.points || (line.hold_id.is_some() && change == 0), "{line:?}");
            balance = line.balance_after;
            let parts: i64 = line.allocations.iter().map(|part| part.points).sum();
            if line.kind == TransactionType::Transfer {
                earned += line.points;
                let other = &self.rows.transactions[&(tenant, line.counterpart_id.expect("a transfer has two sides"))];
                assert_eq!((other.points, other.counterpart_id), (-line.points, Some(line.id)), "{line:?}");
                assert_ne!(other.member_id, line.member_id);
            }
            if line.kind.is_earn() {
                earned += line.points;
                assert!(line.lot_id.is_some() && line.allocations.is_empty());
            } else {
                assert_eq!(parts, line.points.abs(), "lot by lot, a line moves what it says: {line:?}");
            }
            if let Some(id) = line.reverses_id {
                use TransactionType::{Clawback, Refund, Transfer};
                assert!(matches!(line.kind, Refund | Clawback | Transfer));
                *undone.entry(id).or_default() += line.points.abs();
                if line.kind == Clawback {
                    let owed = line.debt_after - debt;
                    assert!(owed >= 0 && line.points_forgiven >= 0 && owed * line.points_forgiven == 0, "{line:?}");
                    *undone.entry(id).or_default() += owed + line.points_forgiven;
                }
            } else {
                assert_eq!(line.points_forgiven, 0, "{line:?}");
            }
            debt = line.debt_after;
        }
        assert_eq!((balance, earned, debt), (account.available, account.total_points, account.debt), "{account:?}");
        assert_eq!(account.sequence, self.ledger(tenant, member).len() as i64);
        for (id, undone) in undone {
            let (points, reversed) = self.rows.reversals[&(tenant, id)];
            assert!(reversed <= points);
            // A claw-back may find less than it was asked for; the rest is owed or forgiven.
            assert_eq!(undone, reversed, "{id}");
        }
    }
}

/// The tenants of these tests live in UTC.
pub fn utc_periods(at: Timestamp) -> LocalPeriods {
    let day = Day(at.0.div_euclid(MICROS_PER_DAY));
    let (monday, first) = (day.week_start(), day.month_start());
    // The 32nd of a month lies in the next one.
    let next = Day(first.0 + 31).month_start();
    let at = |day: i64| Timestamp(day * MICROS_PER_DAY);
    [(day.0, day.0 + 1), (monday.0, monday.0 + 7), (first.0, next.0)]
        .map(|(from, to)| LocalPeriod { starts_at: at(from), ends_at: at(to) })
}

fn check_coupon(row: &Coupon) {
    let has_order = matches!(row.status, CouponStatus::Locked | CouponStatus::Used);
    assert_eq!(has_order, row.order_id.is_some(), "{row:?}");
    assert_eq!(row.status == CouponStatus::Used, row.used_at.is_some(), "{row:?}");
    assert!(row.status == CouponStatus::Locked || row.locked_until.is_none(), "{row:?}");
    assert!(row.status == CouponStatus::Used || row.discount_amount.is_none(), "{row:?}");
}

fn check_hold(row: &Hold) {
    let open = row.status == HoldStatus::Open;
    assert_eq!(row.allocations.iter().map(|part| part.points).sum::<i64>(), row.points, "{row:?}");
    assert_eq!(row.captured + row.released, if open { 0 } else { row.points }, "{row:?}");
    assert_eq!(open, row.closed_at.is_none(), "{row:?}");
    assert_eq!(row.status == HoldStatus::Captured, row.captured > 0, "{row:?}");
}

fn is_empty(writes: &Writes<'_>) -> bool {
    writes.tenant_inserts.is_empty()
        && writes.api_key_inserts.is_empty()
        && writes.api_key_updates.is_empty()
        && writes.webhook_inserts.is_empty()
        && writes.webhook_updates.is_empty()
        && writes.webhook_deletes.is_empty()
        && writes.template_inserts.is_empty()
        && writes.template_updates.is_empty()
        && writes.template_deletes.is_empty()
        && writes.template_versions.is_empty()
        && writes.code_batch_inserts.is_empty()
        && writes.code_batch_updates.is_empty()
        && writes.code_inserts.is_empty()
        && writes.code_updates.is_empty()
        && writes.code_use_inserts.is_empty()
        && writes.exchange_inserts.is_empty()
        && writes.coupon_inserts.is_empty()
        && writes.coupon_updates.is_empty()
        && writes.uses.is_empty()
        && writes.account_inserts.is_empty()
        && writes.account_updates.is_empty()
        && writes.lot_inserts.is_empty()
        && writes.lot_updates.is_empty()
        && writes.hold_inserts.is_empty()
        && writes.hold_updates.is_empty()
        && writes.reversed.is_empty()
        && writes.transaction_inserts.is_empty()
        && writes.order_inserts.is_empty()
        && writes.order_updates.is_empty()
        && writes.refund_inserts.is_empty()
        && writes.adjustment_inserts.is_empty()
        && writes.adjustment_updates.is_empty()
        && writes.compensation_inserts.is_empty()
        && writes.compensation_updates.is_empty()
        && writes.rules_inserts.is_empty()
        && writes.windows.is_empty()
        && writes.reminders.is_empty()
        && writes.bulk_inserts.is_empty()
        && writes.bulk_updates.is_empty()
        && writes.chunk_updates.is_empty()
        && writes.job_inserts.is_empty()
        && writes.job_updates.is_empty()
        && writes.check_in_inserts.is_empty()
        && writes.check_in_updates.is_empty()
        && writes.task_inserts.is_empty()
        && writes.task_updates.is_empty()
        && writes.progress_inserts.is_empty()
        && writes.progress_updates.is_empty()
        && writes.report_inserts.is_empty()
        && writes.event_inserts.is_empty()
        && writes.idempotency_inserts.is_empty()
}

fn insert<K: Ord + std::fmt::Debug, V>(table: &mut BTreeMap<K, V>, key: K, row: V) {
    assert!(!table.contains_key(&key), "{key:?} exists already");
    table.insert(key, row);
}

fn update<K: Ord + std::fmt::Debug, V>(table: &mut BTreeMap<K, V>, key: K, row: V) {
    let old = table.get_mut(&key).unwrap_or_else(|| panic!("no row to update under {key:?}"));
    *old = row;
}

fn assert_distinct<K: Ord + std::fmt::Debug>(keys: impl Iterator<Item = K>) {
    let mut seen = BTreeSet::new();
    for key in keys {
        assert!(!seen.contains(&key), "{key:?} is written twice");
        seen.insert(key);
    }
}
