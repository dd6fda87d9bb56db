//! Which rows a batch of commands touches: what the store must lock and load before they can be decided.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Command, Envelope};
use crate::id::{
    CompletionId, CouponId, HoldId, JobId, KeyId, MemberId, TaskKey, TemplateId, TenantId, TransactionId, WebhookId,
};
use crate::time::Timestamp;

/// The keys of a batch, each set sorted: every store locks in this order, so that batches cannot deadlock.
/// The order between the sets is that of the fields.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Keys {
    /// To read: settings, and whether it exists.
    pub tenants: BTreeSet<TenantId>,
    /// To lock: their stock or definition changes.
    pub templates: BTreeSet<(TenantId, TemplateId)>,
    /// To read only.
    pub template_reads: BTreeSet<(TenantId, TemplateId)>,
    /// Templates whose count of uses is wanted as well.
    pub template_uses: BTreeSet<(TenantId, TemplateId)>,
    /// How many coupons of the template the member has claimed; guarded by the template's lock.
    pub claimants: BTreeSet<(TenantId, TemplateId, MemberId)>,
    pub coupons: BTreeSet<(TenantId, CouponId)>,
    /// To lock; the lock also guards the member's lots, holds and reversals.
    pub accounts: BTreeSet<(TenantId, MemberId)>,
    pub holds: BTreeSet<(TenantId, HoldId)>,
    /// Accounts of which the open pending holds are wanted.
    pub pending_holds: BTreeSet<(TenantId, MemberId)>,
    /// Transactions to be reversed.
    pub originals: BTreeSet<(TenantId, TransactionId)>,
    /// Members of whom the latest check-in is wanted; guarded by the account's lock.
    pub check_ins: BTreeSet<(TenantId, MemberId)>,
    /// To lock: their definition changes.
    pub tasks: BTreeSet<(TenantId, TaskKey)>,
    /// To read only.
    pub task_reads: BTreeSet<(TenantId, TaskKey)>,
    /// How far a member is with a task, and an earlier report of this id; guarded by the account's lock.
    pub task_reports: BTreeSet<(TenantId, MemberId, TaskKey, CompletionId)>,
    pub api_keys: BTreeSet<(TenantId, KeyId)>,
    /// Tenants whose rules are wanted, between the earliest and the latest time at which some command takes effect.
    pub rules: BTreeMap<TenantId, (Timestamp, Timestamp)>,
    /// Tenants that make a version of their rules, which needs the newest one's number.
    pub newest_rules: BTreeSet<TenantId>,
    /// To lock.
    pub jobs: BTreeSet<(TenantId, JobId)>,
    pub webhooks: BTreeSet<(TenantId, WebhookId)>,
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
        let locked = &keys.templates;
        keys.template_reads.retain(|key| !locked.contains(key));
        let locked = &keys.tasks;
        keys.task_reads.retain(|key| !locked.contains(key));
        keys
    }

    fn add(&mut self, envelope: &Envelope) {
        let tenant = envelope.tenant;
        if let Some(idempotency) = envelope.idempotency {
            self.idempotency.insert((tenant, idempotency.key));
        }
        self.latest = self.latest.max(Some(envelope.at));
        self.add_command(tenant, &envelope.command);
    }

    fn add_command(&mut self, tenant: TenantId, command: &Command) {
        match command {
            Command::CreateTenant(_)
            | Command::CreateTemplate { .. }
            | Command::RecordSweep(_)
            | Command::EnqueueGrant { .. } => {}
            Command::RetryJob(id) | Command::CancelJob(id) => {
                self.jobs.insert((tenant, *id));
            }
            Command::Work { ticket, command } => {
                self.jobs.insert((tenant, ticket.job_id));
                self.add_command(tenant, command);
            }
            Command::CreateApiKey { key, .. } => {
                self.tenants.insert(key.tenant_id);
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
            | Command::DeleteTemplate(template_id) => {
                self.templates.insert((tenant, *template_id));
                self.template_uses.insert((tenant, *template_id));
            }
            Command::Claim { template_id, member_id, .. } => {
                self.templates.insert((tenant, *template_id));
                self.claimants.insert((tenant, *template_id, member_id.clone()));
            }
            Command::LockCoupon { coupon_id, .. }
            | Command::UseCoupon { coupon_id, .. }
            | Command::UnlockCoupon { coupon_id, .. }
            | Command::RevokeCoupon { coupon_id, .. }
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
            Command::CaptureHold { member_id, hold_id, .. } | Command::ReleaseHold { member_id, hold_id } => {
                self.accounts.insert((tenant, member_id.clone()));
                self.holds.insert((tenant, *hold_id));
            }
            Command::SetRules { .. } => {
                self.tenants.insert(tenant);
                self.newest_rules.insert(tenant);
            }
            Command::Reverse { member_id, transaction_id, .. } => {
                self.tenants.insert(tenant);
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
            }
            Command::CheckIn { member_id, .. } => {
                self.accounts.insert((tenant, member_id.clone()));
                self.check_ins.insert((tenant, member_id.clone()));
                self.want_rules(envelope);
            }
            Command::CreateTask { key, .. } | Command::UpdateTask { key, .. } | Command::DeleteTask(key) => {
                self.tasks.insert((tenant, key.clone()));
            }
            Command::CompleteTask { member_id, key, completion_id, .. } => {
                self.task_reads.insert((tenant, key.clone()));
                self.accounts.insert((tenant, member_id.clone()));
                self.task_reports.insert((tenant, member_id.clone(), key.clone(), completion_id.clone()));
                self.want_rules(envelope);
            }
        }
    }

    fn want_rules(&mut self, envelope: &Envelope) {
        let (earliest, latest) = self.rules.entry(envelope.tenant).or_insert((envelope.at, envelope.at));
        *earliest = envelope.at.min(*earliest);
        *latest = envelope.at.max(*latest);
    }
}
