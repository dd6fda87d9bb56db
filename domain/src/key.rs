//! Which rows a batch of commands touches: what the store must lock and load before they can be decided.

use std::collections::{BTreeMap, BTreeSet};

use crate::bulk::ChunkWork;
use crate::check_in::CHECK_INS_AT_HAND;
use crate::command::{Command, Envelope};
use crate::coupon::CodeDigest;
use crate::id::{
    AdjustmentId, BulkId, CodeBatchId, CompensationId, CompletionId, CouponId, HoldId, JobId, KeyId, MemberId, OrderId,
    RefundId, TaskKey, TemplateId, TenantId, TransactionId, WebhookId,
};
use crate::state::State;
use crate::time::Timestamp;

/// The keys of a batch, each set sorted: every store locks in this order, so that batches cannot deadlock.
/// The order between the sets is that of the fields.
///
/// Orders come first and by themselves: only their rows say which coupons, holds and transactions belong to them
/// ([`Keys::follow_orders`]).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Keys {
    /// To read: settings, and whether it exists.
    pub tenants: BTreeSet<TenantId>,
    /// To lock, before everything else.
    pub orders: BTreeSet<(TenantId, OrderId)>,
    /// To lock: their stock or definition changes.
    pub templates: BTreeSet<(TenantId, TemplateId)>,
    /// To read only.
    pub template_reads: BTreeSet<(TenantId, TemplateId)>,
    /// Templates whose count of uses is wanted as well.
    pub template_uses: BTreeSet<(TenantId, TemplateId)>,
    /// How many coupons of the template the member has claimed; guarded by the template's lock.
    pub claimants: BTreeSet<(TenantId, TemplateId, MemberId)>,
    /// To lock: how many of their codes there are, and were claimed.
    pub code_batches: BTreeSet<(TenantId, CodeBatchId)>,
    /// To lock: how often they were claimed. To be added as well: a code is in one batch only.
    pub codes: BTreeSet<(TenantId, CodeDigest)>,
    pub coupons: BTreeSet<(TenantId, CouponId)>,
    /// Coupons that price an order: the definitions of their versions are wanted as well.
    pub priced: BTreeSet<(TenantId, CouponId)>,
    /// Coupons that a refund may return: their templates are wanted as well.
    pub returned: BTreeSet<(TenantId, CouponId)>,
    /// To lock; the lock also guards the member's lots, holds and reversals.
    pub accounts: BTreeSet<(TenantId, MemberId)>,
    pub holds: BTreeSet<(TenantId, HoldId)>,
    /// Accounts of which the open pending holds are wanted.
    pub pending_holds: BTreeSet<(TenantId, MemberId)>,
    /// Transactions to be reversed.
    pub originals: BTreeSet<(TenantId, TransactionId)>,
    pub refunds: BTreeSet<(TenantId, OrderId, RefundId)>,
    /// To lock.
    pub compensations: BTreeSet<(TenantId, CompensationId)>,
    /// To lock.
    pub adjustments: BTreeSet<(TenantId, AdjustmentId)>,
    /// Members of whom so many of the latest check-ins are wanted; guarded by the account's lock.
    pub check_ins: BTreeMap<(TenantId, MemberId), i64>,
    /// To lock: their definition changes.
    pub tasks: BTreeSet<(TenantId, TaskKey)>,
    /// To read only.
    pub task_reads: BTreeSet<(TenantId, TaskKey)>,
    /// To lock: tenants whose tasks' prerequisites change, or that get programs. One change at a time, so that none of two makes
    /// a circle of the other's, or the last program there may be.
    pub locked_tenants: BTreeSet<TenantId>,
    /// Tenants that get programs: those they have; guarded by the tenant's lock.
    pub programs: BTreeSet<TenantId>,
    /// Members of whom the progress with every task is wanted; guarded by the account's lock.
    pub all_progress: BTreeSet<(TenantId, MemberId)>,
    /// How far a member is with a task, and an earlier report of this id; guarded by the account's lock.
    pub task_reports: BTreeSet<(TenantId, MemberId, TaskKey, CompletionId)>,
    pub api_keys: BTreeSet<(TenantId, KeyId)>,
    /// Tenants whose rules are wanted, between the earliest and the latest time at which some command takes effect.
    pub rules: BTreeMap<TenantId, (Timestamp, Timestamp)>,
    /// Versions of rules by which orders were made.
    pub rules_versions: BTreeSet<(TenantId, i64)>,
    /// Tenants that make a version of their rules, which needs the newest one's number.
    pub newest_rules: BTreeSet<TenantId>,
    /// To lock.
    pub jobs: BTreeSet<(TenantId, JobId)>,
    pub webhooks: BTreeSet<(TenantId, WebhookId)>,
    /// Tenants whose issue windows are announced: their cursors, to lock.
    pub windows: BTreeSet<TenantId>,
    /// How far members were reminded so many days before, to lock.
    pub reminders: BTreeSet<(TenantId, i64)>,
    /// To lock.
    pub bulks: BTreeSet<(TenantId, BulkId)>,
    pub idempotency: BTreeSet<(TenantId, [u8; 16])>,
    /// The latest time any command of the batch takes effect: holds due by then must be loaded.
    pub latest: Option<Timestamp>,
}

impl Keys {
    pub fn of<'a>(envelopes: impl IntoIterator<Item = &'a Envelope>) -> Keys {
        let mut keys = Keys::default();
        for envelope in envelopes {
            keys.add(envelope);
        }
        keys.leave_out_locked();
        keys
    }

    fn leave_out_locked(&mut self) {
        let locked = &self.templates;
        self.template_reads.retain(|key| !locked.contains(key));
        let locked = &self.tasks;
        self.task_reads.retain(|key| !locked.contains(key));
    }

    /// Adds what the orders of the batch have taken, once their rows are at hand.
    pub fn follow_orders(&mut self, batch: &[Envelope], state: &State) {
        let refunded: BTreeSet<(TenantId, &OrderId)> = batch
            .iter()
            .filter_map(|envelope| match &envelope.command {
                Command::RefundOrder { order_id, .. } => Some((envelope.tenant, order_id)),
                _ => None,
            })
            .collect();
        for (tenant, order_id) in self.orders.clone() {
            let Some(order) = state.order(tenant, &order_id) else { continue };
            let coupons = order.quote.coupons.iter().map(|coupon| (tenant, coupon.coupon_id));
            self.coupons.extend(coupons);
            self.holds.extend(order.hold_id.map(|id| (tenant, id)));
            self.rules_versions.insert((tenant, order.rules_version));
            if refunded.contains(&(tenant, &order_id)) {
                self.originals.extend([order.spend_id, order.earn_id].into_iter().flatten().map(|id| (tenant, id)));
                let templates = order.quote.coupons.iter().map(|coupon| (tenant, coupon.template_id));
                self.template_reads.extend(templates);
            }
        }
        // An order reserved and refunded in one batch has no row yet.
        for envelope in batch {
            if let Command::ReserveOrder(asked) = &envelope.command
                && refunded.contains(&(envelope.tenant, &asked.order_id))
            {
                self.returned.extend(asked.coupon_ids.iter().map(|id| (envelope.tenant, *id)));
            }
        }
        self.leave_out_locked();
    }

    fn add(&mut self, envelope: &Envelope) {
        let tenant = envelope.tenant;
        if let Some(idempotency) = envelope.idempotency {
            self.idempotency.insert((tenant, idempotency.key));
        }
        self.latest = self.latest.max(Some(envelope.at));
        self.add_command(tenant, &envelope.command, envelope.at);
        if envelope.command.is_administrative() {
            self.want_rules(tenant, envelope.now);
        }
    }

    fn add_command(&mut self, tenant: TenantId, command: &Command, at: Timestamp) {
        match command {
            Command::CreateTenant(_)
            | Command::CreateTemplate { .. }
            | Command::RecordSweep(_)
            | Command::EnqueueGrant { .. } => {}
            Command::RetryJob(id) => {
                self.jobs.insert((tenant, *id));
            }
            Command::ExtendPage { job_id, page } => {
                self.jobs.insert((tenant, *job_id));
                self.coupons.extend(page.coupon_ids.iter().map(|id| (tenant, *id)));
            }
            // A bulk and its job have one id, and are cancelled together.
            Command::CancelJob(JobId(id)) | Command::CancelBulk(BulkId(id)) => {
                self.jobs.insert((tenant, JobId(*id)));
                self.bulks.insert((tenant, BulkId(*id)));
            }
            Command::CreateBulk { template_id, .. } => {
                self.template_reads.extend(template_id.map(|id| (tenant, id)));
            }
            Command::AnnounceWindows { templates, .. } => {
                self.windows.insert(tenant);
                self.template_reads.extend(templates.iter().map(|id| (tenant, *id)));
            }
            Command::RemindExpiry(page) => {
                self.reminders.insert((tenant, page.days_before.into()));
                self.accounts.extend(page.lots.iter().map(|(member_id, _)| (tenant, member_id.clone())));
            }
            Command::WorkChunk { bulk_id, work, .. } => {
                self.bulks.insert((tenant, *bulk_id));
                match &**work {
                    ChunkWork::Issue { template_id, recipients } => {
                        self.templates.insert((tenant, *template_id));
                        let claimant = |member: &MemberId| (tenant, *template_id, member.clone());
                        self.claimants.extend(recipients.iter().map(|row| claimant(&row.member_id)));
                    }
                    ChunkWork::Grant(grants) => {
                        self.accounts.extend(grants.iter().map(|row| (tenant, row.member_id.clone())));
                    }
                }
            }
            Command::Work { ticket, command } => {
                self.jobs.insert((tenant, ticket.job_id));
                self.add_command(tenant, command, at);
            }
            Command::CreateApiKey { key, .. } => {
                self.tenants.insert(key.tenant_id);
            }
            Command::CreateProgram(_) => {
                self.tenants.insert(tenant);
                self.locked_tenants.insert(tenant);
                self.programs.insert(tenant);
            }
            Command::CreateWebhook(_) => {
                self.tenants.insert(tenant);
            }
            Command::ChangeWebhook { webhook_id, .. } => {
                self.webhooks.insert((tenant, *webhook_id));
            }
            Command::RevokeApiKey(id) => {
                self.api_keys.insert((tenant, *id));
            }
            Command::UpdateTemplate { template_id, .. }
            | Command::EnableTemplate { template_id, .. }
            | Command::ChangeStock { template_id, .. }
            | Command::ArchiveTemplate(template_id)
            | Command::DeleteTemplate(template_id) => {
                self.templates.insert((tenant, *template_id));
                self.template_uses.insert((tenant, *template_id));
            }
            Command::EnqueueExtension { template_id, .. } => {
                self.templates.insert((tenant, *template_id));
            }
            Command::Claim { template_id, member_id, .. } => {
                self.templates.insert((tenant, *template_id));
                self.claimants.insert((tenant, *template_id, member_id.clone()));
            }
            Command::Exchange { template_id, member_id, .. } => {
                self.templates.insert((tenant, *template_id));
                self.claimants.insert((tenant, *template_id, member_id.clone()));
                self.accounts.insert((tenant, member_id.clone()));
            }
            Command::CreateCodeBatch(new) => {
                self.templates.insert((tenant, new.template_id));
                self.codes.extend(new.shared.iter().map(|digest| (tenant, *digest)));
            }
            Command::AddCodes { batch_id, digests, .. } => {
                self.code_batches.insert((tenant, *batch_id));
                self.codes.extend(digests.iter().map(|digest| (tenant, *digest)));
            }
            Command::ChangeCodeBatch { batch_id, .. } | Command::SealCodeBatch(batch_id) => {
                self.code_batches.insert((tenant, *batch_id));
            }
            Command::ChangeCode { batch_id, digest, .. } | Command::AssignCode { batch_id, digest, .. } => {
                self.code_batches.insert((tenant, *batch_id));
                self.codes.insert((tenant, *digest));
            }
            Command::ClaimCode { digest, batch_id, template_id, member_id, .. } => {
                self.templates.insert((tenant, *template_id));
                self.claimants.insert((tenant, *template_id, member_id.clone()));
                self.code_batches.insert((tenant, *batch_id));
                self.codes.insert((tenant, *digest));
            }
            Command::ImportTemplate { template_id, .. } => {
                // One that is there already is answered as it is.
                self.template_uses.insert((tenant, *template_id));
                self.templates.insert((tenant, *template_id));
            }
            Command::ImportCoupon(imported) => {
                self.templates.insert((tenant, imported.template_id));
                self.claimants.insert((tenant, imported.template_id, imported.member_id.clone()));
                self.coupons.insert((tenant, imported.coupon_id));
            }
            Command::TransferCoupon { coupon_id, template_id, to_member_id, .. } => {
                self.templates.insert((tenant, *template_id));
                self.claimants.insert((tenant, *template_id, to_member_id.clone()));
                self.coupons.insert((tenant, *coupon_id));
            }
            Command::LockCoupon { coupon_id, .. }
            | Command::UseCoupon { coupon_id, .. }
            | Command::UnlockCoupon { coupon_id, .. }
            | Command::RevokeCoupon { coupon_id, .. }
            | Command::ExtendCoupon { coupon_id, .. }
            | Command::SettleCoupon(coupon_id) => {
                self.coupons.insert((tenant, *coupon_id));
            }
            Command::ReturnCoupon { coupon_id, template_id, .. } => {
                self.coupons.insert((tenant, *coupon_id));
                self.template_reads.insert((tenant, *template_id));
            }
            Command::Grant { member_id, .. }
            | Command::Debit { member_id, .. }
            | Command::Hold { member_id, .. }
            | Command::SettleAccount(member_id) => {
                self.accounts.insert((tenant, member_id.clone()));
            }
            Command::ImportAccount(imported) => {
                self.accounts.insert((tenant, imported.member_id.clone()));
            }
            Command::CaptureHold { member_id, hold_id, .. } | Command::ReleaseHold { member_id, hold_id } => {
                self.accounts.insert((tenant, member_id.clone()));
                self.holds.insert((tenant, *hold_id));
            }
            Command::ReserveOrder(asked) => {
                self.orders.insert((tenant, asked.order_id.clone()));
                self.coupons.extend(asked.coupon_ids.iter().map(|id| (tenant, *id)));
                self.priced.extend(asked.coupon_ids.iter().map(|id| (tenant, *id)));
                self.accounts.insert((tenant, asked.member_id.clone()));
                self.rules_versions.extend(asked.quoted.map(|quoted| (tenant, quoted.rules_version)));
                self.want_rules(tenant, at);
            }
            Command::PayOrder { member_id, order_id, .. }
            | Command::CancelOrder { member_id, order_id, .. }
            | Command::ConfirmOrder { member_id, order_id, .. }
            | Command::SettleOrder { member_id, order_id, .. } => {
                self.orders.insert((tenant, order_id.clone()));
                self.accounts.insert((tenant, member_id.clone()));
            }
            Command::RefundOrder { member_id, order_id, refund } => {
                self.tenants.insert(tenant);
                self.want_rules(tenant, at);
                self.orders.insert((tenant, order_id.clone()));
                self.refunds.insert((tenant, order_id.clone(), refund.refund_id.clone()));
                self.accounts.insert((tenant, member_id.clone()));
            }
            Command::CloseCompensation { compensation_id, .. } => {
                self.compensations.insert((tenant, *compensation_id));
            }
            Command::Adjust(asked) => {
                self.accounts.insert((tenant, asked.member_id.clone()));
            }
            Command::ApproveAdjustment { member_id, adjustment_id } => {
                self.accounts.insert((tenant, member_id.clone()));
                self.adjustments.insert((tenant, *adjustment_id));
            }
            Command::RejectAdjustment { adjustment_id, .. } => {
                self.adjustments.insert((tenant, *adjustment_id));
            }
            Command::SetRules { .. } => {
                self.tenants.insert(tenant);
                self.newest_rules.insert(tenant);
            }
            Command::Reverse { member_id, transaction_id, .. } => {
                self.tenants.insert(tenant);
                self.want_rules(tenant, at);
                self.accounts.insert((tenant, member_id.clone()));
                self.originals.insert((tenant, *transaction_id));
                self.pending_holds.insert((tenant, member_id.clone()));
            }
            Command::Transfer { from, to, .. } => {
                self.accounts.insert((tenant, from.clone()));
                self.accounts.insert((tenant, to.clone()));
            }
            Command::ReverseTransfer { from, to, transaction_id, counterpart_id, .. } => {
                self.accounts.insert((tenant, from.clone()));
                self.accounts.insert((tenant, to.clone()));
                self.originals.insert((tenant, *transaction_id));
                self.originals.insert((tenant, *counterpart_id));
            }
            Command::Merge { from, into, .. } => {
                self.accounts.insert((tenant, from.clone()));
                self.accounts.insert((tenant, into.clone()));
                self.pending_holds.insert((tenant, from.clone()));
                self.all_progress.extend([(tenant, from.clone()), (tenant, into.clone())]);
            }
            Command::CheckIn { member_id, missed, .. } => {
                self.accounts.insert((tenant, member_id.clone()));
                let wanted = if missed.is_some() { CHECK_INS_AT_HAND } else { 1 };
                let most = self.check_ins.entry((tenant, member_id.clone())).or_default();
                *most = wanted.max(*most);
                self.want_rules(tenant, at);
            }
            Command::CreateTask { key, .. } | Command::DeleteTask(key) => {
                self.tasks.insert((tenant, key.clone()));
            }
            Command::UpdateTask { key, patch } => {
                self.tasks.insert((tenant, key.clone()));
                if !patch.definition.requires.is_empty() {
                    self.locked_tenants.insert(tenant);
                }
            }
            Command::CompleteTask { member_id, key, completion_id, .. } => {
                self.task_reads.insert((tenant, key.clone()));
                self.accounts.insert((tenant, member_id.clone()));
                self.task_reports.insert((tenant, member_id.clone(), key.clone(), completion_id.clone()));
                self.want_rules(tenant, at);
            }
        }
    }

    fn want_rules(&mut self, tenant: TenantId, at: Timestamp) {
        let (earliest, latest) = self.rules.entry(tenant).or_insert((at, at));
        *earliest = at.min(*earliest);
        *latest = at.max(*latest);
    }
}
