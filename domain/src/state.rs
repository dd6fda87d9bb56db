//! The rows of a batch in memory: loaded by a store, read and changed by decisions, handed back as [`Writes`].
//!
//! Each row is kept once per key and changed in place, so several commands on one row fold into one write: an array
//! statement that names a row twice would lose one of the changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::bulk::{Bulk, ChunkResult};
use crate::check_in::CheckIn;
use crate::command::{Envelope, Idempotency};
use crate::coupon::{Code, CodeBatch, CodeDigest, CodeUse, Compensation, Coupon, Definition, PeriodCounts, Template};
use crate::event::{Event, EventKind};
use crate::exchange::Exchange;
use crate::id::{
    AdjustmentId, BulkId, CodeBatchId, CompensationId, CompletionId, CouponId, EventId, HoldId, Ids, JobId, KeyId,
    LotId, MemberId, OrderId, ProgramCode, RefundId, TaskKey, TemplateId, TenantId, TransactionId, WebhookId,
};
use crate::job::{Job, JobState};
use crate::key::Keys;
use crate::order::{Order, Refund};
use crate::points::{Account, Adjustment, ExpiryPlace, Hold, Lot, Transaction};
use crate::pricing::Rules;
use crate::rejection::Rejection;
use crate::rules::RulesVersion;
use crate::task::{Progress, Report, Task};
use crate::tenant::{ApiKey, Tenant};
use crate::time::{CapPeriod, Day, DayEnd, LocalPeriod, LocalPeriods, Timestamp};
use crate::webhook::Webhook;

/// How many open lots of an account a batch loads at first, soonest-expiring first.
pub const LOT_PAGE: i64 = 256;

/// What must be written for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Insert,
    Update,
    Delete,
}

#[derive(Debug, Clone)]
struct Row<T> {
    value: T,
    change: Change,
}

impl<T> Row<T> {
    fn loaded(value: T) -> Self {
        Row { value, change: Change::None }
    }

    fn inserted(value: T) -> Self {
        Row { value, change: Change::Insert }
    }

    fn changed(&mut self) -> &mut T {
        if self.change == Change::None {
            self.change = Change::Update;
        }
        &mut self.value
    }
}

/// An account with the lots and holds at hand.
#[derive(Debug, Clone)]
pub struct AccountState {
    pub account: Account,
    /// Whether every open lot is at hand, or only the first [`LOT_PAGE`] in spending order.
    pub lots_complete: bool,
    /// While lots are missing: the place of the page's last lot. Lots behind it may be at hand as well (a hold names them,
    /// or this batch made them), but others between them may not.
    page_end: Option<(Timestamp, Timestamp, LotId)>,
    exists: bool,
    touched: bool,
    /// In spending order.
    lots: Vec<Row<Lot>>,
    holds: Vec<Row<Hold>>,
}

impl AccountState {
    fn empty(member_id: MemberId) -> Self {
        AccountState {
            account: Account::empty(member_id, Timestamp(0)),
            lots_complete: true,
            page_end: None,
            exists: false,
            touched: false,
            lots: Vec::new(),
            holds: Vec::new(),
        }
    }

    /// The lots at hand, in spending order.
    pub fn lots(&self) -> impl Iterator<Item = &Lot> {
        self.lots.iter().map(|row| &row.value)
    }

    /// The lots at hand up to the first one that may be missing, in spending order.
    pub fn lots_without_gap(&self) -> impl Iterator<Item = &Lot> {
        self.lots().take_while(|lot| self.lots_complete || self.page_end.is_some_and(|end| lot.spending_order() <= end))
    }

    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().map(|row| &row.value)
    }

    pub fn hold(&self, id: HoldId) -> Option<&Hold> {
        self.holds().find(|hold| hold.id == id)
    }

    /// A lot that an allocation names. The store has loaded every such lot ([`State::missing_lots`]).
    pub fn lot(&self, id: LotId) -> &Lot {
        self.lots().find(|lot| lot.id == id).expect("allocated lots are loaded")
    }

    pub fn lot_mut(&mut self, id: LotId) -> &mut Lot {
        self.touched = true;
        let row = self.lots.iter_mut().find(|row| row.value.id == id).expect("allocated lots are loaded");
        row.changed()
    }

    pub fn insert_lot(&mut self, lot: Lot) {
        let at = self.place_of(&lot);
        self.lots.insert(at, Row::inserted(lot));
    }

    /// Moves the end of a lot, and with it the lot's place. All lots must be at hand: the loading of more goes by their places.
    pub(crate) fn move_end(&mut self, id: LotId, expires_at: Timestamp) {
        let place = self.lots.iter().position(|row| row.value.id == id).expect("the lot is at hand");
        let mut row = self.lots.remove(place);
        row.changed().expires_at = expires_at;
        self.lots.insert(self.place_of(&row.value), row);
    }

    fn place_of(&self, lot: &Lot) -> usize {
        let order = lot.spending_order();
        self.lots.partition_point(|other| other.value.spending_order() < order)
    }

    pub fn insert_hold(&mut self, hold: Hold) {
        self.holds.push(Row::inserted(hold));
    }

    pub fn save_hold(&mut self, hold: Hold) {
        if let Some(row) = self.holds.iter_mut().find(|row| row.value.id == hold.id) {
            *row.changed() = hold;
        }
    }

    fn knows_lot(&self, id: LotId) -> bool {
        self.lots().any(|lot| lot.id == id)
    }
}

/// A recorded answer: what the first request with this key was, and what it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    pub fingerprint: [u8; 16],
    /// The outcome as JSON.
    pub outcome: String,
}

/// What is at hand of a tenant's rules.
#[derive(Debug, Default, Clone)]
struct KnownRules {
    /// By the time from which they hold; of equal ones the last counts.
    by_date: Vec<(Timestamp, Arc<Rules>)>,
    by_version: HashMap<i64, Arc<Rules>>,
    newest: i64,
}

/// A task that another requires, for a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prerequisite {
    /// False for one that was deleted: it lapses.
    pub exists: bool,
    /// Of the member, in all.
    pub completions: i64,
}

type Keyed<K, T> = HashMap<(TenantId, K), Row<T>>;

/// The rows of a batch.
#[derive(Debug, Default, Clone)]
pub struct State {
    tenants: HashMap<TenantId, Row<Tenant>>,
    /// Of the tenants that get more of them.
    program_codes: HashMap<TenantId, HashSet<ProgramCode>>,
    api_keys: Keyed<KeyId, (ApiKey, [u8; 32])>,
    webhooks: Keyed<WebhookId, Webhook>,
    templates: Keyed<TemplateId, Template>,
    template_versions: Vec<(TenantId, Template)>,
    claimed: HashMap<TenantId, HashMap<(TemplateId, MemberId), i64>>,
    uses: HashMap<(TenantId, TemplateId), i64>,
    /// Days of tenants' calendars, where a decision has asked for them.
    periods: Vec<(TenantId, LocalPeriods)>,
    /// Likewise, by tenant and how many days after.
    day_ends: HashMap<(TenantId, u32), Vec<DayEnd>>,
    code_batches: Keyed<CodeBatchId, CodeBatch>,
    codes: Keyed<CodeDigest, Code>,
    code_uses: Vec<(TenantId, CodeUse)>,
    exchanges: Vec<(TenantId, Exchange)>,
    coupons: Keyed<CouponId, Coupon>,
    /// By version: those at hand, and those by which coupons price orders.
    definitions: HashMap<(TenantId, TemplateId, i64), Arc<Definition>>,
    compensations: Keyed<CompensationId, Compensation>,
    adjustments: Keyed<AdjustmentId, Adjustment>,
    orders: Keyed<OrderId, Order>,
    refunds: Keyed<(OrderId, RefundId), Refund>,
    accounts: HashMap<TenantId, HashMap<MemberId, AccountState>>,
    originals: HashMap<(TenantId, TransactionId), (Transaction, i64)>,
    reversed: HashMap<(TenantId, TransactionId), (i64, i64)>,
    transactions: Vec<(TenantId, Transaction)>,
    jobs: Keyed<JobId, Job>,
    bulks: Keyed<BulkId, Bulk>,
    windows: HashMap<TenantId, Row<Timestamp>>,
    reminders: Keyed<i64, ExpiryPlace>,
    chunks: Vec<(TenantId, ChunkResult)>,
    /// The latest of each member, by day.
    check_ins: HashMap<(TenantId, MemberId), BTreeMap<Day, Row<CheckIn>>>,
    tasks: Keyed<TaskKey, Task>,
    /// Tasks that were looked for and are not there.
    absent_tasks: HashSet<(TenantId, TaskKey)>,
    /// Whether a task is there, and the member has completed it, when it was looked up as a prerequisite.
    prerequisites: HashMap<(TenantId, MemberId, TaskKey), Prerequisite>,
    progress: Keyed<(MemberId, TaskKey), Progress>,
    reports: HashMap<(TenantId, MemberId, TaskKey, CompletionId), Report>,
    new_reports: Vec<(TenantId, Report)>,
    events: Vec<(TenantId, Event)>,
    rules: HashMap<TenantId, KnownRules>,
    new_rules: Vec<(TenantId, RulesVersion)>,
    idempotency: HashMap<(TenantId, [u8; 16]), IdempotencyRecord>,
    new_idempotency: Vec<(TenantId, [u8; 16])>,
}

/// Loading, by a store.
impl State {
    /// A state in which nothing exists yet; the store adds what it finds under `keys`.
    pub fn empty(keys: &Keys) -> State {
        let mut state = State::default();
        for (tenant, member) in &keys.accounts {
            let accounts = state.accounts.entry(*tenant).or_default();
            accounts.insert(member.clone(), AccountState::empty(member.clone()));
        }
        state
    }

    pub fn load_tenant(&mut self, tenant: Tenant) {
        self.tenants.insert(tenant.id, Row::loaded(tenant));
    }

    /// Adds a program that the tenant has.
    pub fn load_program(&mut self, parent: TenantId, code: ProgramCode) {
        self.program_codes.entry(parent).or_default().insert(code);
    }

    pub fn load_api_key(&mut self, key: ApiKey, secret_digest: [u8; 32]) {
        self.api_keys.insert((key.tenant_id, key.id), Row::loaded((key, secret_digest)));
    }

    pub fn load_webhook(&mut self, tenant: TenantId, webhook: Webhook) {
        self.webhooks.insert((tenant, webhook.id), Row::loaded(webhook));
    }

    pub fn load_template(&mut self, tenant: TenantId, template: Template) {
        self.load_definition(tenant, template.id, template.version, template.definition.clone());
        self.templates.insert((tenant, template.id), Row::loaded(template));
    }

    pub fn load_claimed(&mut self, tenant: TenantId, template: TemplateId, member: MemberId, count: i64) {
        self.claimed.entry(tenant).or_default().insert((template, member), count);
    }

    pub fn load_periods(&mut self, tenant: TenantId, periods: LocalPeriods) {
        self.periods.push((tenant, periods));
    }

    pub fn load_day_end(&mut self, tenant: TenantId, days: u32, end: DayEnd) {
        self.day_ends.entry((tenant, days)).or_default().push(end);
    }

    pub fn load_code_batch(&mut self, tenant: TenantId, batch: CodeBatch) {
        self.code_batches.insert((tenant, batch.id), Row::loaded(batch));
    }

    pub fn load_code(&mut self, tenant: TenantId, code: Code) {
        self.codes.insert((tenant, code.digest), Row::loaded(code));
    }

    pub fn load_coupon(&mut self, tenant: TenantId, coupon: Coupon) {
        self.coupons.insert((tenant, coupon.id), Row::loaded(coupon));
    }

    /// Adds the definition that coupons of a version have.
    pub fn load_definition(&mut self, tenant: TenantId, template: TemplateId, version: i64, row: Arc<Definition>) {
        self.definitions.insert((tenant, template, version), row);
    }

    pub fn load_compensation(&mut self, tenant: TenantId, case: Compensation) {
        self.compensations.insert((tenant, case.id), Row::loaded(case));
    }

    pub fn load_adjustment(&mut self, tenant: TenantId, adjustment: Adjustment) {
        self.adjustments.insert((tenant, adjustment.id), Row::loaded(adjustment));
    }

    pub fn load_order(&mut self, tenant: TenantId, order: Order) {
        self.orders.insert((tenant, order.order_id.clone()), Row::loaded(order));
    }

    pub fn load_refund(&mut self, tenant: TenantId, refund: Refund) {
        let key = (refund.order_id.clone(), refund.refund_id.clone());
        self.refunds.insert((tenant, key), Row::loaded(refund));
    }

    /// The versions that price the coupons of `keys` and are not at hand; each once.
    pub fn missing_definitions(&self, keys: &Keys) -> Vec<(TenantId, TemplateId, i64)> {
        let priced = keys.priced.iter().filter_map(|(tenant, id)| Some((*tenant, self.coupon(*tenant, *id).ok()?)));
        let versions = priced.map(|(tenant, coupon)| (tenant, coupon.template_id, coupon.template_version));
        let mut missing: Vec<_> = versions.filter(|version| !self.definitions.contains_key(version)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The templates of coupons of `keys` that a refund may return, when they are not at hand; each once.
    pub fn missing_templates(&self, keys: &Keys) -> Vec<(TenantId, TemplateId)> {
        let returned = keys.returned.iter().filter_map(|(tenant, id)| Some((*tenant, self.coupon(*tenant, *id).ok()?)));
        let templates = returned.map(|(tenant, coupon)| (tenant, coupon.template_id));
        let mut missing: Vec<_> = templates.filter(|template| !self.templates.contains_key(template)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    pub fn load_account(&mut self, tenant: TenantId, account: Account) {
        let own = self.own(tenant, &account.member_id);
        own.account = account;
        own.exists = true;
    }

    /// Adds a lot that is not at hand yet; one at hand is newer and stays.
    pub fn load_lot(&mut self, tenant: TenantId, member: &MemberId, lot: Lot) {
        let own = self.own(tenant, member);
        // The spending order ends with the id, so a lot at hand stands exactly where this one would go.
        let at = own.place_of(&lot);
        if own.lots.get(at).is_none_or(|row| row.value.id != lot.id) {
            own.lots.insert(at, Row::loaded(lot));
        }
    }

    /// Says whether the lots loaded so far are all the open ones, or the first page of them. To be called when the page is
    /// loaded and before the lots that allocations name ([`State::missing_lots`]): the last lot at hand ends the page.
    pub fn set_lots_complete(&mut self, tenant: TenantId, member: &MemberId, complete: bool) {
        let own = self.own(tenant, member);
        own.lots_complete = complete;
        own.page_end = if complete { None } else { own.lots().last().map(Lot::spending_order) };
    }

    /// How many lots of the account are at hand.
    pub fn lot_count(&self, tenant: TenantId, member: &MemberId) -> usize {
        self.account(tenant, member).lots.len()
    }

    /// Adds a hold; one whose account was not asked for belongs to somebody else and is left out.
    pub fn load_hold(&mut self, tenant: TenantId, hold: Hold) {
        if let Some(own) = self.accounts.get_mut(&tenant).and_then(|all| all.get_mut(&hold.member_id))
            && own.hold(hold.id).is_none()
        {
            own.holds.push(Row::loaded(hold));
        }
    }

    pub fn load_original(&mut self, tenant: TenantId, transaction: Transaction, reversed: i64) {
        self.originals.insert((tenant, transaction.id), (transaction, reversed));
    }

    /// Adds a version of the tenant's rules and the time from which it holds.
    pub fn load_rules(&mut self, tenant: TenantId, effective_from: Timestamp, rules: Arc<Rules>) {
        let known = self.rules.entry(tenant).or_default();
        known.by_version.insert(rules.version, rules.clone());
        known.by_date.push((effective_from, rules));
    }

    /// Adds a version of the tenant's rules that some order was made by.
    pub fn load_rules_version(&mut self, tenant: TenantId, rules: Arc<Rules>) {
        self.rules.entry(tenant).or_default().by_version.insert(rules.version, rules);
    }

    /// Says which version of the tenant's rules is the newest.
    pub fn set_newest_rules(&mut self, tenant: TenantId, version: i64) {
        self.rules.entry(tenant).or_default().newest = version;
    }

    pub fn load_check_in(&mut self, tenant: TenantId, check_in: CheckIn) {
        let days = self.check_ins.entry((tenant, check_in.member_id.clone())).or_default();
        days.insert(check_in.day, Row::loaded(check_in));
    }

    pub fn load_task(&mut self, tenant: TenantId, task: Task) {
        self.tasks.insert((tenant, task.key.clone()), Row::loaded(task));
    }

    /// Adds tasks that a decision has asked for; those of `asked` that are not among them are not there.
    pub fn load_tasks(&mut self, tenant: TenantId, asked: Vec<TaskKey>, found: impl IntoIterator<Item = Task>) {
        found.into_iter().for_each(|task| self.load_task(tenant, task));
        let absent = asked.into_iter().map(|key| (tenant, key)).filter(|key| !self.tasks.contains_key(key));
        self.absent_tasks.extend(absent);
    }

    /// What the tasks that the batch reports require, where it is not at hand; each once.
    pub fn missing_prerequisites(&self, keys: &Keys) -> BTreeSet<(TenantId, MemberId, TaskKey)> {
        let reports = keys.task_reports.iter();
        let required = reports.flat_map(|(tenant, member, key, _)| {
            let requires = self.task(*tenant, key).into_iter().flat_map(|task| &task.definition.requires);
            requires.map(move |required| (*tenant, member.clone(), required.clone()))
        });
        required.filter(|prerequisite| !self.prerequisites.contains_key(prerequisite)).collect()
    }

    pub fn load_prerequisite(&mut self, key: (TenantId, MemberId, TaskKey), found: Prerequisite) {
        self.prerequisites.insert(key, found);
    }

    pub fn load_progress(&mut self, tenant: TenantId, progress: Progress) {
        let key = (progress.member_id.clone(), progress.task_key.clone());
        self.progress.insert((tenant, key), Row::loaded(progress));
    }

    pub fn load_report(&mut self, tenant: TenantId, report: Report) {
        let key = (tenant, report.member_id.clone(), report.task_key.clone(), report.completion_id.clone());
        self.reports.insert(key, report);
    }

    pub fn load_windows(&mut self, tenant: TenantId, announced_until: Timestamp) {
        self.windows.insert(tenant, Row::loaded(announced_until));
    }

    pub fn load_reminder(&mut self, tenant: TenantId, days_before: i64, reached: ExpiryPlace) {
        self.reminders.insert((tenant, days_before), Row::loaded(reached));
    }

    pub fn load_bulk(&mut self, tenant: TenantId, bulk: Bulk) {
        self.bulks.insert((tenant, bulk.id), Row::loaded(bulk));
    }

    pub fn load_job(&mut self, tenant: TenantId, job: Job) {
        self.jobs.insert((tenant, job.id), Row::loaded(job));
    }

    pub fn load_idempotency(&mut self, tenant: TenantId, key: [u8; 16], record: IdempotencyRecord) {
        self.idempotency.insert((tenant, key), record);
    }

    /// The lots that loaded holds and originals name but that are not at hand. They may be empty by now, so the search
    /// for open lots has not found them.
    pub fn missing_lots(&self) -> Vec<(TenantId, MemberId, LotId)> {
        let mut missing = Vec::new();
        for (tenant, accounts) in &self.accounts {
            for (member, own) in accounts {
                let named = own.holds().flat_map(|hold| &hold.allocations);
                for part in named.filter(|part| !own.knows_lot(part.lot_id)) {
                    missing.push((*tenant, member.clone(), part.lot_id));
                }
            }
        }
        for ((tenant, _), (original, _)) in &self.originals {
            let Some(own) = self.accounts.get(tenant).and_then(|all| all.get(&original.member_id)) else { continue };
            let named = original.allocations.iter().map(|part| part.lot_id).chain(original.lot_id);
            for lot_id in named.filter(|lot_id| !own.knows_lot(*lot_id)) {
                missing.push((*tenant, original.member_id.clone(), lot_id));
            }
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn own(&mut self, tenant: TenantId, member: &MemberId) -> &mut AccountState {
        self.accounts
            .get_mut(&tenant)
            .and_then(|all| all.get_mut(member))
            .expect("the keys of a batch name every account it touches")
    }
}

/// Reading and changing, by decisions.
impl State {
    pub fn tenant(&self, id: TenantId) -> Result<&Tenant, Rejection> {
        self.tenants.get(&id).map(|row| &row.value).ok_or(Rejection::TenantNotFound)
    }

    /// The codes of the tenant's programs; `None` when it has none. To be asked for those of [`Keys::programs`] only.
    pub(crate) fn program_codes(&self, parent: TenantId) -> Option<&HashSet<ProgramCode>> {
        self.program_codes.get(&parent)
    }

    pub(crate) fn insert_tenant(&mut self, tenant: Tenant) {
        if let Some(program) = &tenant.program {
            self.load_program(program.parent_id, program.code.clone());
        }
        self.tenants.insert(tenant.id, Row::inserted(tenant));
    }

    /// How long refunded points live when their lot has expired; 0 for a tenant that is not loaded.
    pub(crate) fn refund_grace_days(&self, tenant: TenantId) -> u32 {
        self.tenants.get(&tenant).map_or(0, |row| row.value.refund_grace_days)
    }

    pub(crate) fn insert_api_key(&mut self, key: ApiKey, secret_digest: [u8; 32]) {
        self.api_keys.insert((key.tenant_id, key.id), Row::inserted((key, secret_digest)));
    }

    pub(crate) fn revoke_api_key(&mut self, tenant: TenantId, id: KeyId, at: Timestamp) -> Result<ApiKey, Rejection> {
        let row = self.api_keys.get_mut(&(tenant, id)).ok_or(Rejection::KeyNotFound)?;
        if row.value.0.revoked_at.is_none() {
            row.changed().0.revoked_at = Some(at);
        }
        Ok(row.value.0.clone())
    }

    pub fn webhook(&self, tenant: TenantId, id: WebhookId) -> Result<&Webhook, Rejection> {
        match self.webhooks.get(&(tenant, id)) {
            Some(row) if row.change != Change::Delete => Ok(&row.value),
            _ => Err(Rejection::WebhookNotFound),
        }
    }

    pub(crate) fn insert_webhook(&mut self, tenant: TenantId, webhook: Webhook) {
        self.webhooks.insert((tenant, webhook.id), Row::inserted(webhook));
    }

    pub(crate) fn save_webhook(&mut self, tenant: TenantId, webhook: Webhook) {
        if let Some(row) = self.webhooks.get_mut(&(tenant, webhook.id)) {
            *row.changed() = webhook;
        }
    }

    pub(crate) fn delete_webhook(&mut self, tenant: TenantId, id: WebhookId) {
        if let Some(row) = self.webhooks.get_mut(&(tenant, id)) {
            row.change = Change::Delete;
        }
    }

    pub fn template(&self, tenant: TenantId, id: TemplateId) -> Result<&Template, Rejection> {
        match self.templates.get(&(tenant, id)) {
            Some(row) if row.change != Change::Delete => Ok(&row.value),
            _ => Err(Rejection::TemplateNotFound),
        }
    }

    pub(crate) fn insert_template(&mut self, tenant: TenantId, template: Template) {
        self.load_definition(tenant, template.id, template.version, template.definition.clone());
        self.template_versions.push((tenant, template.clone()));
        self.templates.insert((tenant, template.id), Row::inserted(template));
    }

    pub(crate) fn save_template_version(&mut self, tenant: TenantId, template: Template) {
        self.load_definition(tenant, template.id, template.version, template.definition.clone());
        self.template_versions.push((tenant, template.clone()));
        if let Some(row) = self.templates.get_mut(&(tenant, template.id)) {
            *row.changed() = template;
        }
    }

    pub(crate) fn delete_template(&mut self, tenant: TenantId, id: TemplateId) {
        if let Some(row) = self.templates.get_mut(&(tenant, id)) {
            row.change = Change::Delete;
        }
    }

    /// Takes one coupon: from the stock, the budget, and the day's cap where there is one.
    pub(crate) fn take_from_stock(
        &mut self,
        tenant: TenantId,
        id: TemplateId,
        committed_amount: i64,
        counts: PeriodCounts,
    ) {
        if let Some(row) = self.templates.get_mut(&(tenant, id)) {
            let template = row.changed();
            template.claimed_count += 1;
            template.remaining_stock = template.remaining_stock.map(|left| left - 1);
            template.committed_amount = committed_amount;
            template.counts = counts;
        }
    }

    /// Counts one more batch of codes of the template.
    pub(crate) fn count_code_batch(&mut self, tenant: TenantId, id: TemplateId) {
        if let Some(row) = self.templates.get_mut(&(tenant, id)) {
            row.changed().code_batch_count += 1;
        }
    }

    /// The day, week or month of the tenant's calendar at this instant, if it is at hand.
    pub(crate) fn period(&self, tenant: TenantId, period: CapPeriod, at: Timestamp) -> Option<LocalPeriod> {
        let of_tenant = self.periods.iter().filter(|(owner, _)| *owner == tenant);
        of_tenant.map(|(_, periods)| periods[period as usize]).find(|bounds| bounds.contains(at))
    }

    /// The tenant's day at this instant, and the end of the one so many days after, if it is at hand.
    pub(crate) fn day_end(&self, tenant: TenantId, days: u32, at: Timestamp) -> Option<DayEnd> {
        self.day_ends.get(&(tenant, days))?.iter().find(|end| end.day.contains(at)).copied()
    }

    pub fn code_batch(&self, tenant: TenantId, id: CodeBatchId) -> Result<&CodeBatch, Rejection> {
        self.code_batches.get(&(tenant, id)).map(|row| &row.value).ok_or(Rejection::CodeBatchNotFound)
    }

    pub(crate) fn insert_code_batch(&mut self, tenant: TenantId, batch: CodeBatch) {
        self.code_batches.insert((tenant, batch.id), Row::inserted(batch));
    }

    pub(crate) fn save_code_batch(&mut self, tenant: TenantId, batch: CodeBatch) {
        if let Some(row) = self.code_batches.get_mut(&(tenant, batch.id)) {
            *row.changed() = batch;
        }
    }

    pub fn code(&self, tenant: TenantId, digest: CodeDigest) -> Option<&Code> {
        self.codes.get(&(tenant, digest)).map(|row| &row.value)
    }

    pub(crate) fn insert_code(&mut self, tenant: TenantId, code: Code) {
        self.codes.insert((tenant, code.digest), Row::inserted(code));
    }

    pub(crate) fn save_code(&mut self, tenant: TenantId, code: Code) {
        if let Some(row) = self.codes.get_mut(&(tenant, code.digest)) {
            *row.changed() = code;
        }
    }

    pub(crate) fn insert_code_use(&mut self, tenant: TenantId, code_use: CodeUse) {
        self.code_uses.push((tenant, code_use));
    }

    pub(crate) fn insert_exchange(&mut self, tenant: TenantId, exchange: Exchange) {
        self.exchanges.push((tenant, exchange));
    }

    pub(crate) fn claimed_by(&self, tenant: TenantId, template: TemplateId, member: &MemberId) -> i64 {
        let key = (template, member.clone());
        self.claimed.get(&tenant).and_then(|all| all.get(&key)).copied().unwrap_or(0)
    }

    pub(crate) fn insert_coupon(&mut self, tenant: TenantId, coupon: Coupon) {
        let key = (coupon.template_id, coupon.member_id.clone());
        *self.claimed.entry(tenant).or_default().entry(key).or_default() += 1;
        self.coupons.insert((tenant, coupon.id), Row::inserted(coupon));
    }

    pub fn coupon(&self, tenant: TenantId, id: CouponId) -> Result<&Coupon, Rejection> {
        self.coupons.get(&(tenant, id)).map(|row| &row.value).ok_or(Rejection::CouponNotFound)
    }

    pub(crate) fn save_coupon(&mut self, tenant: TenantId, coupon: Coupon) {
        if let Some(row) = self.coupons.get_mut(&(tenant, coupon.id)) {
            *row.changed() = coupon;
        }
    }

    /// The definition of a version that prices some coupon of the batch.
    pub(crate) fn definition(&self, tenant: TenantId, template: TemplateId, version: i64) -> Option<Arc<Definition>> {
        self.definitions.get(&(tenant, template, version)).cloned()
    }

    pub(crate) fn compensation(&self, tenant: TenantId, id: CompensationId) -> Result<&Compensation, Rejection> {
        self.compensations.get(&(tenant, id)).map(|row| &row.value).ok_or(Rejection::CompensationNotFound)
    }

    pub(crate) fn insert_compensation(&mut self, tenant: TenantId, case: Compensation) {
        self.compensations.insert((tenant, case.id), Row::inserted(case));
    }

    pub(crate) fn save_compensation(&mut self, tenant: TenantId, case: Compensation) {
        if let Some(row) = self.compensations.get_mut(&(tenant, case.id)) {
            *row.changed() = case;
        }
    }

    pub(crate) fn adjustment(&self, tenant: TenantId, id: AdjustmentId) -> Result<&Adjustment, Rejection> {
        self.adjustments.get(&(tenant, id)).map(|row| &row.value).ok_or(Rejection::AdjustmentNotFound)
    }

    pub(crate) fn insert_adjustment(&mut self, tenant: TenantId, adjustment: Adjustment) {
        self.adjustments.insert((tenant, adjustment.id), Row::inserted(adjustment));
    }

    pub(crate) fn save_adjustment(&mut self, tenant: TenantId, adjustment: Adjustment) {
        if let Some(row) = self.adjustments.get_mut(&(tenant, adjustment.id)) {
            *row.changed() = adjustment;
        }
    }

    pub fn order(&self, tenant: TenantId, id: &OrderId) -> Option<&Order> {
        self.orders.get(&(tenant, id.clone())).map(|row| &row.value)
    }

    pub(crate) fn save_order(&mut self, tenant: TenantId, order: Order) {
        match self.orders.get_mut(&(tenant, order.order_id.clone())) {
            Some(row) => *row.changed() = order,
            None => drop(self.orders.insert((tenant, order.order_id.clone()), Row::inserted(order))),
        }
    }

    pub(crate) fn refund(&self, tenant: TenantId, order: &OrderId, id: &RefundId) -> Option<&Refund> {
        self.refunds.get(&(tenant, (order.clone(), id.clone()))).map(|row| &row.value)
    }

    pub(crate) fn insert_refund(&mut self, tenant: TenantId, refund: Refund) {
        let key = (refund.order_id.clone(), refund.refund_id.clone());
        self.refunds.insert((tenant, key), Row::inserted(refund));
    }

    /// Counts a use of the template (-1 for one taken back). Stores keep the count apart from the template's row, which
    /// therefore is not changed by it; one at hand still shows it to the commands that follow.
    pub(crate) fn count_use(&mut self, tenant: TenantId, template: TemplateId, change: i64) {
        if let Some(row) = self.templates.get_mut(&(tenant, template)) {
            row.value.used_count += change;
        }
        *self.uses.entry((tenant, template)).or_default() += change;
    }

    pub fn account(&self, tenant: TenantId, member: &MemberId) -> &AccountState {
        self.accounts
            .get(&tenant)
            .and_then(|all| all.get(member))
            .expect("the keys of a batch name every account it touches")
    }

    pub(crate) fn account_mut(&mut self, tenant: TenantId, member: &MemberId) -> &mut AccountState {
        let own = self.own(tenant, member);
        own.touched = true;
        own
    }

    /// A transaction to be reversed, and how much of it already was.
    pub(crate) fn original(&self, tenant: TenantId, id: TransactionId) -> Option<(&Transaction, i64)> {
        if let Some((transaction, reversed)) = self.originals.get(&(tenant, id)) {
            return Some((transaction, *reversed));
        }
        let made_here = self.transactions.iter().find(|(owner, made)| *owner == tenant && made.id == id);
        let reversed = self.reversed.get(&(tenant, id)).map_or(0, |(_, reversed)| *reversed);
        made_here.map(|(_, transaction)| (transaction, reversed))
    }

    pub(crate) fn save_reversed(&mut self, tenant: TenantId, id: TransactionId, reversed: i64) {
        let points = self.original(tenant, id).map_or(0, |(original, _)| original.reversible_points());
        self.reversed.insert((tenant, id), (points, reversed));
        if let Some((_, known)) = self.originals.get_mut(&(tenant, id)) {
            *known = reversed;
        }
    }

    pub(crate) fn insert_transaction(&mut self, tenant: TenantId, transaction: Transaction) {
        self.transactions.push((tenant, transaction));
    }

    /// Up to when the tenant's issue windows are announced; `None` when none ever was.
    pub(crate) fn windows_announced(&self, tenant: TenantId) -> Option<Timestamp> {
        self.windows.get(&tenant).map(|row| row.value)
    }

    pub(crate) fn set_windows_announced(&mut self, tenant: TenantId, until: Timestamp) {
        match self.windows.get_mut(&tenant) {
            Some(row) => *row.changed() = until,
            None => drop(self.windows.insert(tenant, Row::inserted(until))),
        }
    }

    /// Up to where lots were told so many days before; `None` when none ever was.
    pub(crate) fn reminded(&self, tenant: TenantId, days_before: u32) -> Option<ExpiryPlace> {
        self.reminders.get(&(tenant, days_before.into())).map(|row| row.value)
    }

    pub(crate) fn set_reminded(&mut self, tenant: TenantId, days_before: u32, until: ExpiryPlace) {
        let key = (tenant, days_before.into());
        match self.reminders.get_mut(&key) {
            Some(row) => *row.changed() = until,
            None => drop(self.reminders.insert(key, Row::inserted(until))),
        }
    }

    pub fn bulk(&self, tenant: TenantId, id: BulkId) -> Result<&Bulk, Rejection> {
        self.bulks.get(&(tenant, id)).map(|row| &row.value).ok_or(Rejection::BulkNotFound)
    }

    pub(crate) fn insert_bulk(&mut self, tenant: TenantId, bulk: Bulk) {
        self.bulks.insert((tenant, bulk.id), Row::inserted(bulk));
    }

    pub(crate) fn save_bulk(&mut self, tenant: TenantId, bulk: Bulk) {
        if let Some(row) = self.bulks.get_mut(&(tenant, bulk.id)) {
            *row.changed() = bulk;
        }
    }

    pub(crate) fn record_chunk(&mut self, tenant: TenantId, result: ChunkResult) {
        self.chunks.push((tenant, result));
    }

    pub fn job(&self, tenant: TenantId, id: JobId) -> Result<&Job, Rejection> {
        self.jobs.get(&(tenant, id)).map(|row| &row.value).ok_or(Rejection::JobNotFound)
    }

    pub(crate) fn insert_job(&mut self, tenant: TenantId, job: Job) {
        self.jobs.insert((tenant, job.id), Row::inserted(job));
    }

    pub(crate) fn save_job(&mut self, tenant: TenantId, job: Job) {
        if let Some(row) = self.jobs.get_mut(&(tenant, job.id)) {
            *row.changed() = job;
        }
    }

    pub(crate) fn latest_check_in(&self, tenant: TenantId, member: &MemberId) -> Option<&CheckIn> {
        self.check_ins.get(&(tenant, member.clone()))?.last_key_value().map(|(_, row)| &row.value)
    }

    pub(crate) fn check_in(&self, tenant: TenantId, member: &MemberId, day: Day) -> Option<&CheckIn> {
        self.check_ins.get(&(tenant, member.clone()))?.get(&day).map(|row| &row.value)
    }

    /// Those of some days, in the order of the days.
    pub(crate) fn check_ins(
        &self,
        tenant: TenantId,
        member: &MemberId,
        days: std::ops::Range<Day>,
    ) -> impl Iterator<Item = &CheckIn> {
        let own = self.check_ins.get(&(tenant, member.clone()));
        own.into_iter().flat_map(move |own| own.range(days.clone())).map(|(_, row)| &row.value)
    }

    pub(crate) fn insert_check_in(&mut self, tenant: TenantId, check_in: CheckIn) {
        let days = self.check_ins.entry((tenant, check_in.member_id.clone())).or_default();
        days.insert(check_in.day, Row::inserted(check_in));
    }

    pub(crate) fn save_check_in(&mut self, tenant: TenantId, check_in: CheckIn) {
        let days = self.check_ins.get_mut(&(tenant, check_in.member_id.clone()));
        if let Some(row) = days.and_then(|days| days.get_mut(&check_in.day)) {
            *row.changed() = check_in;
        }
    }

    /// A task, deleted ones included.
    pub(crate) fn task(&self, tenant: TenantId, key: &TaskKey) -> Option<&Task> {
        self.tasks.get(&(tenant, key.clone())).map(|row| &row.value)
    }

    /// Whether it is known if the task is there.
    pub(crate) fn knows_task(&self, tenant: TenantId, key: &TaskKey) -> bool {
        let key = (tenant, key.clone());
        self.tasks.contains_key(&key) || self.absent_tasks.contains(&key)
    }

    /// Whether the member has completed a required task, or it is there no more; `None` when that is not at hand. What the
    /// batch itself has changed counts.
    pub(crate) fn has_met(&self, tenant: TenantId, member: &MemberId, key: &TaskKey) -> Option<bool> {
        let known = self.prerequisites.get(&(tenant, member.clone(), key.clone()))?;
        let exists = self.task(tenant, key).map_or(known.exists, |task| task.deleted_at.is_none());
        let progress = self.progress(tenant, member, key);
        let completions = progress.map_or(known.completions, |progress| progress.total_completions);
        Some(!exists || completions > 0)
    }

    pub(crate) fn save_task(&mut self, tenant: TenantId, task: Task) {
        match self.tasks.get_mut(&(tenant, task.key.clone())) {
            Some(row) => *row.changed() = task,
            None => _ = self.tasks.insert((tenant, task.key.clone()), Row::inserted(task)),
        }
    }

    pub(crate) fn progress(&self, tenant: TenantId, member: &MemberId, key: &TaskKey) -> Option<&Progress> {
        self.progress.get(&(tenant, (member.clone(), key.clone()))).map(|row| &row.value)
    }

    /// With every task, as far as the batch has asked for it ([`crate::key::Keys::all_progress`]).
    pub(crate) fn progress_of(&self, tenant: TenantId, member: &MemberId) -> Vec<Progress> {
        let own = self.progress.iter().filter(|((owner, (id, _)), _)| *owner == tenant && id == member);
        own.map(|(_, row)| row.value.clone()).collect()
    }

    pub(crate) fn save_progress(&mut self, tenant: TenantId, progress: Progress) {
        let key = (tenant, (progress.member_id.clone(), progress.task_key.clone()));
        match self.progress.get_mut(&key) {
            Some(row) => *row.changed() = progress,
            None => _ = self.progress.insert(key, Row::inserted(progress)),
        }
    }

    pub(crate) fn reported(
        &self,
        tenant: TenantId,
        member: &MemberId,
        key: &TaskKey,
        id: &CompletionId,
    ) -> Option<&Report> {
        self.reports.get(&(tenant, member.clone(), key.clone(), id.clone()))
    }

    pub(crate) fn insert_report(&mut self, tenant: TenantId, report: Report) {
        self.load_report(tenant, report.clone());
        self.new_reports.push((tenant, report));
    }

    #[expect(clippy::too_many_arguments, reason = "an event has that many parts; a struct would only rename them")]
    pub(crate) fn record_event(
        &mut self,
        envelope: &Envelope,
        ids: &mut Ids,
        occurred_at: Timestamp,
        kind: EventKind,
        subject: Uuid,
        member_id: Option<&MemberId>,
        data: String,
    ) {
        let event = Event {
            id: EventId(ids.draw()),
            kind,
            subject,
            member_id: member_id.cloned(),
            data,
            actor: envelope.actor,
            occurred_at,
            recorded_at: envelope.now,
        };
        self.events.push((envelope.tenant, event));
    }

    /// The rules that hold at `at`, for what happens at that time.
    pub fn rules_at(&self, tenant: TenantId, at: Timestamp) -> Arc<Rules> {
        let known = self.rules.get(&tenant).into_iter().flat_map(|known| &known.by_date);
        let holding = known.filter(|(from, _)| *from <= at).max_by_key(|(from, rules)| (*from, rules.version));
        holding.map_or_else(|| Arc::new(Rules::default()), |(_, rules)| rules.at(at))
    }

    /// The rules that an order was made by.
    pub(crate) fn rules_of(&self, tenant: TenantId, version: i64) -> Arc<Rules> {
        let known = self.rules.get(&tenant).and_then(|known| known.by_version.get(&version));
        known.map_or_else(|| Arc::new(Rules::default()), Arc::clone)
    }

    pub(crate) fn newest_rules(&self, tenant: TenantId) -> i64 {
        self.rules.get(&tenant).map_or(0, |known| known.newest)
    }

    pub(crate) fn insert_rules(&mut self, tenant: TenantId, version: RulesVersion) {
        let known = self.rules.entry(tenant).or_default();
        known.by_date.push((version.effective_from, version.rules.clone()));
        known.by_version.insert(version.rules.version, version.rules.clone());
        known.newest = version.rules.version;
        self.new_rules.push((tenant, version));
    }

    pub(crate) fn recorded(&self, tenant: TenantId, key: [u8; 16]) -> Option<&IdempotencyRecord> {
        self.idempotency.get(&(tenant, key))
    }

    pub(crate) fn record_outcome(&mut self, tenant: TenantId, idempotency: Idempotency, outcome: String) {
        let record = IdempotencyRecord { fingerprint: idempotency.fingerprint, outcome };
        self.idempotency.insert((tenant, idempotency.key), record);
        self.new_idempotency.push((tenant, idempotency.key));
    }
}

/// What a batch has changed, one entry for each row. Accounts come before their lots, templates before their coupons.
#[derive(Debug, Default)]
pub struct Writes<'a> {
    pub tenant_inserts: Vec<&'a Tenant>,
    pub api_key_inserts: Vec<&'a (ApiKey, [u8; 32])>,
    pub api_key_updates: Vec<&'a (ApiKey, [u8; 32])>,
    pub webhook_inserts: Vec<(TenantId, &'a Webhook)>,
    pub webhook_updates: Vec<(TenantId, &'a Webhook)>,
    pub webhook_deletes: Vec<(TenantId, WebhookId)>,
    pub template_inserts: Vec<(TenantId, &'a Template)>,
    pub template_updates: Vec<(TenantId, &'a Template)>,
    pub template_deletes: Vec<(TenantId, TemplateId)>,
    /// New versions of definitions, for the templates inserted or updated here.
    pub template_versions: Vec<(TenantId, &'a Template)>,
    pub code_batch_inserts: Vec<(TenantId, &'a CodeBatch)>,
    pub code_batch_updates: Vec<(TenantId, &'a CodeBatch)>,
    pub code_inserts: Vec<(TenantId, &'a Code)>,
    pub code_updates: Vec<(TenantId, &'a Code)>,
    pub code_use_inserts: Vec<(TenantId, &'a CodeUse)>,
    pub exchange_inserts: Vec<(TenantId, &'a Exchange)>,
    pub coupon_inserts: Vec<(TenantId, &'a Coupon)>,
    pub coupon_updates: Vec<(TenantId, &'a Coupon)>,
    /// How many more coupons of a template are used now.
    pub uses: Vec<(TenantId, TemplateId, i64)>,
    pub account_inserts: Vec<(TenantId, &'a Account)>,
    pub account_updates: Vec<(TenantId, &'a Account)>,
    pub lot_inserts: Vec<(TenantId, &'a MemberId, &'a Lot)>,
    pub lot_updates: Vec<(TenantId, &'a MemberId, &'a Lot)>,
    pub hold_inserts: Vec<(TenantId, &'a Hold)>,
    pub hold_updates: Vec<(TenantId, &'a Hold)>,
    /// Transaction, its size, and how much of it has been reversed in all.
    pub reversed: Vec<(TenantId, TransactionId, i64, i64)>,
    pub transaction_inserts: Vec<(TenantId, &'a Transaction)>,
    /// Up to when issue windows are announced.
    pub windows: Vec<(TenantId, Timestamp)>,
    /// Up to where lots were told so many days before they expire.
    pub reminders: Vec<(TenantId, i64, ExpiryPlace)>,
    pub bulk_inserts: Vec<(TenantId, &'a Bulk)>,
    pub bulk_updates: Vec<(TenantId, &'a Bulk)>,
    pub chunk_updates: Vec<(TenantId, &'a ChunkResult)>,
    pub job_inserts: Vec<(TenantId, &'a Job)>,
    pub job_updates: Vec<(TenantId, &'a Job)>,
    pub check_in_inserts: Vec<(TenantId, &'a CheckIn)>,
    pub check_in_updates: Vec<(TenantId, &'a CheckIn)>,
    pub task_inserts: Vec<(TenantId, &'a Task)>,
    pub task_updates: Vec<(TenantId, &'a Task)>,
    pub progress_inserts: Vec<(TenantId, &'a Progress)>,
    pub progress_updates: Vec<(TenantId, &'a Progress)>,
    pub report_inserts: Vec<(TenantId, &'a Report)>,
    pub event_inserts: Vec<(TenantId, &'a Event)>,
    pub order_inserts: Vec<(TenantId, &'a Order)>,
    pub order_updates: Vec<(TenantId, &'a Order)>,
    pub refund_inserts: Vec<(TenantId, &'a Refund)>,
    pub compensation_inserts: Vec<(TenantId, &'a Compensation)>,
    pub compensation_updates: Vec<(TenantId, &'a Compensation)>,
    pub adjustment_inserts: Vec<(TenantId, &'a Adjustment)>,
    pub adjustment_updates: Vec<(TenantId, &'a Adjustment)>,
    pub rules_inserts: Vec<(TenantId, &'a RulesVersion)>,
    pub idempotency_inserts: Vec<(TenantId, [u8; 16], &'a IdempotencyRecord)>,
}

impl State {
    /// True when nothing has to be written.
    pub fn is_unchanged(&self) -> bool {
        self.events.is_empty()
            && self.new_idempotency.is_empty()
            && self.jobs.values().all(|row| row.change == Change::None)
            && self.bulks.values().all(|row| row.change == Change::None)
            && self.windows.values().all(|row| row.change == Change::None)
            && self.reminders.values().all(|row| row.change == Change::None)
            && self.tenants.values().all(|row| row.change == Change::None)
            && self.api_keys.values().all(|row| row.change == Change::None)
    }

    /// True when a job can run that could not before.
    pub fn enqueues(&self) -> bool {
        self.jobs.values().any(|row| row.change != Change::None && row.value.state == JobState::Queued)
    }

    /// What must be written, every list in key order where the rows may be contended.
    pub fn writes(&self) -> Writes<'_> {
        let mut writes = Writes::default();
        for row in self.tenants.values().filter(|row| row.change == Change::Insert) {
            writes.tenant_inserts.push(&row.value);
        }
        // A program refers to its parent.
        writes.tenant_inserts.sort_by_key(|row| row.program.is_some());
        for row in self.api_keys.values() {
            match row.change {
                Change::Insert => writes.api_key_inserts.push(&row.value),
                Change::Update => writes.api_key_updates.push(&row.value),
                Change::None | Change::Delete => {}
            }
        }
        for ((tenant, id), row) in &self.webhooks {
            match row.change {
                Change::None => {}
                Change::Insert => writes.webhook_inserts.push((*tenant, &row.value)),
                Change::Update => writes.webhook_updates.push((*tenant, &row.value)),
                Change::Delete => writes.webhook_deletes.push((*tenant, *id)),
            }
        }
        for ((tenant, id), row) in &self.templates {
            match row.change {
                Change::None => {}
                Change::Insert => writes.template_inserts.push((*tenant, &row.value)),
                Change::Update => writes.template_updates.push((*tenant, &row.value)),
                Change::Delete => writes.template_deletes.push((*tenant, *id)),
            }
        }
        let surviving = |(tenant, template): &&(TenantId, Template)| self.template(*tenant, template.id).is_ok();
        let versions = self.template_versions.iter().filter(surviving);
        writes.template_versions = versions.map(|(tenant, template)| (*tenant, template)).collect();
        for ((tenant, _), row) in &self.code_batches {
            match row.change {
                Change::Insert => writes.code_batch_inserts.push((*tenant, &row.value)),
                Change::Update => writes.code_batch_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        for ((tenant, _), row) in &self.codes {
            match row.change {
                Change::Insert => writes.code_inserts.push((*tenant, &row.value)),
                Change::Update => writes.code_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        writes.code_use_inserts = self.code_uses.iter().map(|(tenant, row)| (*tenant, row)).collect();
        writes.exchange_inserts = self.exchanges.iter().map(|(tenant, row)| (*tenant, row)).collect();
        for ((tenant, _), row) in &self.coupons {
            match row.change {
                Change::Insert => writes.coupon_inserts.push((*tenant, &row.value)),
                Change::Update => writes.coupon_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        for ((tenant, _), row) in &self.orders {
            match row.change {
                Change::Insert => writes.order_inserts.push((*tenant, &row.value)),
                Change::Update => writes.order_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        let new_refunds = self.refunds.iter().filter(|(_, row)| row.change == Change::Insert);
        writes.refund_inserts = new_refunds.map(|((tenant, _), row)| (*tenant, &row.value)).collect();
        for ((tenant, _), row) in &self.compensations {
            match row.change {
                Change::Insert => writes.compensation_inserts.push((*tenant, &row.value)),
                Change::Update => writes.compensation_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        for ((tenant, _), row) in &self.adjustments {
            match row.change {
                Change::Insert => writes.adjustment_inserts.push((*tenant, &row.value)),
                Change::Update => writes.adjustment_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        let uses = self.uses.iter().filter(|(_, change)| **change != 0);
        writes.uses = uses.map(|((tenant, template), change)| (*tenant, *template, *change)).collect();
        for (tenant, accounts) in &self.accounts {
            for own in accounts.values().filter(|own| own.touched) {
                writes.add_account(*tenant, own);
            }
        }
        let reversed = self.reversed.iter();
        writes.reversed = reversed.map(|((tenant, id), (points, done))| (*tenant, *id, *points, *done)).collect();
        writes.transaction_inserts = self.transactions.iter().map(|(tenant, row)| (*tenant, row)).collect();
        let announced = self.windows.iter().filter(|(_, row)| row.change != Change::None);
        let reminded = self.reminders.iter().filter(|(_, row)| row.change != Change::None);
        writes.reminders = reminded.map(|((tenant, days), row)| (*tenant, *days, row.value)).collect();
        writes.windows = announced.map(|(tenant, row)| (*tenant, row.value)).collect();
        for ((tenant, _), row) in &self.bulks {
            match row.change {
                Change::Insert => writes.bulk_inserts.push((*tenant, &row.value)),
                Change::Update => writes.bulk_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        writes.chunk_updates = self.chunks.iter().map(|(tenant, row)| (*tenant, row)).collect();
        for ((tenant, _), row) in &self.jobs {
            match row.change {
                Change::Insert => writes.job_inserts.push((*tenant, &row.value)),
                Change::Update => writes.job_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        for ((tenant, _), row) in self.check_ins.iter().flat_map(|(key, days)| days.values().map(move |row| (key, row)))
        {
            match row.change {
                Change::Insert => writes.check_in_inserts.push((*tenant, &row.value)),
                Change::Update => writes.check_in_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        for ((tenant, _), row) in &self.tasks {
            match row.change {
                Change::Insert => writes.task_inserts.push((*tenant, &row.value)),
                Change::Update => writes.task_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        for ((tenant, _), row) in &self.progress {
            match row.change {
                Change::Insert => writes.progress_inserts.push((*tenant, &row.value)),
                Change::Update => writes.progress_updates.push((*tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        writes.report_inserts = self.new_reports.iter().map(|(tenant, row)| (*tenant, row)).collect();
        writes.event_inserts = self.events.iter().map(|(tenant, row)| (*tenant, row)).collect();
        writes.rules_inserts = self.new_rules.iter().map(|(tenant, row)| (*tenant, row)).collect();
        let recorded = self.new_idempotency.iter();
        writes.idempotency_inserts =
            recorded.map(|(tenant, key)| (*tenant, *key, &self.idempotency[&(*tenant, *key)])).collect();
        writes.sort();
        writes
    }
}

impl<'a> Writes<'a> {
    fn add_account(&mut self, tenant: TenantId, own: &'a AccountState) {
        if own.exists {
            self.account_updates.push((tenant, &own.account));
        } else {
            self.account_inserts.push((tenant, &own.account));
        }
        for row in &own.lots {
            match row.change {
                Change::Insert => self.lot_inserts.push((tenant, &own.account.member_id, &row.value)),
                Change::Update => self.lot_updates.push((tenant, &own.account.member_id, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
        for row in &own.holds {
            match row.change {
                Change::Insert => self.hold_inserts.push((tenant, &row.value)),
                Change::Update => self.hold_updates.push((tenant, &row.value)),
                Change::None | Change::Delete => {}
            }
        }
    }

    /// Sorts what comes out of hash maps: inserts by key keep B-trees dense, and contended rows keep one order.
    fn sort(&mut self) {
        self.template_updates.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.code_batch_updates.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.code_inserts.sort_by_key(|(tenant, row)| (*tenant, row.digest));
        self.code_updates.sort_by_key(|(tenant, row)| (*tenant, row.digest));
        self.coupon_inserts.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.coupon_updates.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.order_inserts.sort_by(|(a, left), (b, right)| (a, &left.order_id).cmp(&(b, &right.order_id)));
        self.order_updates.sort_by(|(a, left), (b, right)| (a, &left.order_id).cmp(&(b, &right.order_id)));
        self.refund_inserts.sort_by(|(a, left), (b, right)| {
            (a, &left.order_id, &left.refund_id).cmp(&(b, &right.order_id, &right.refund_id))
        });
        self.compensation_inserts.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.compensation_updates.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.adjustment_inserts.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.adjustment_updates.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.uses.sort_unstable();
        self.account_inserts.sort_by(|(a, left), (b, right)| (a, &left.member_id).cmp(&(b, &right.member_id)));
        self.account_updates.sort_by(|(a, left), (b, right)| (a, &left.member_id).cmp(&(b, &right.member_id)));
        self.lot_inserts.sort_by_key(|(tenant, _, row)| (*tenant, row.id));
        self.lot_updates.sort_by_key(|(tenant, _, row)| (*tenant, row.id));
        self.hold_inserts.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.hold_updates.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.reversed.sort_unstable();
        self.windows.sort_unstable();
        self.reminders.sort_unstable();
        self.bulk_updates.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.job_inserts.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.job_updates.sort_by_key(|(tenant, row)| (*tenant, row.id));
        self.check_in_inserts.sort_by_key(|(tenant, row)| (*tenant, &row.member_id, row.day));
        self.check_in_updates.sort_by_key(|(tenant, row)| (*tenant, &row.member_id, row.day));
        self.task_inserts.sort_by_key(|(tenant, row)| (*tenant, &row.key));
        self.task_updates.sort_by_key(|(tenant, row)| (*tenant, &row.key));
        self.progress_inserts.sort_by_key(|(tenant, row)| (*tenant, &row.member_id, &row.task_key));
        self.progress_updates.sort_by_key(|(tenant, row)| (*tenant, &row.member_id, &row.task_key));
    }
}
