//! Everything that can be asked of the engine.

use serde::{Deserialize, Serialize};

use crate::coupon::{Definition, TemplatePatch};
use crate::decide::Sweep;
use crate::id::{
    CompletionId, CouponId, HoldId, IdSeed, JobId, KeyId, MemberId, OrderId, TaskKey, TemplateId, TenantId,
    TransactionId, WebhookId,
};
use crate::job::JobTicket;
use crate::points::{Spendable, TransactionType};
use crate::pricing::Rules;
use crate::task::{self, TaskPatch};
use crate::tenant::{ApiKey, Tenant};
use crate::time::{Calendar, Day, Timestamp};
use crate::webhook::{NewWebhook, WebhookChange};

/// Points moved by a grant, a debit or a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// 1 to [`crate::points::MAX_POINTS`].
    pub points: i64,
    #[serde(rename = "type")]
    pub kind: TransactionType,
    /// The caller's own reference, an order id for instance.
    pub reference: Option<String>,
    pub remark: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    CreateTenant(Tenant),
    CreateApiKey {
        key: ApiKey,
        secret_digest: [u8; 32],
    },
    RevokeApiKey(KeyId),

    CreateTemplate {
        definition: Box<Definition>,
        total_stock: Option<i64>,
    },
    UpdateTemplate {
        template_id: TemplateId,
        patch: Box<TemplatePatch>,
    },
    EnableTemplate {
        template_id: TemplateId,
        enabled: bool,
    },
    ChangeStock {
        template_id: TemplateId,
        change: i64,
    },
    DeleteTemplate(TemplateId),

    Claim {
        template_id: TemplateId,
        member_id: MemberId,
        member_level: Option<String>,
    },
    LockCoupon {
        coupon_id: CouponId,
        order_id: OrderId,
        expires_at: Option<Timestamp>,
    },
    UseCoupon {
        coupon_id: CouponId,
        order_id: OrderId,
        discount_amount: Option<i64>,
    },
    UnlockCoupon {
        coupon_id: CouponId,
        order_id: OrderId,
    },
    /// `template_id` must be the coupon's; it is looked up before, since it never changes.
    ReturnCoupon {
        coupon_id: CouponId,
        template_id: TemplateId,
        order_id: OrderId,
    },
    RevokeCoupon {
        coupon_id: CouponId,
        reason: String,
    },
    SettleCoupon(CouponId),

    Grant {
        member_id: MemberId,
        movement: Movement,
        spendable: Spendable,
    },
    Debit {
        member_id: MemberId,
        movement: Movement,
    },
    Hold {
        member_id: MemberId,
        movement: Movement,
        expires_at: Option<Timestamp>,
    },
    /// `member_id` must be the hold's; it is looked up before, since it never changes. Likewise below.
    CaptureHold {
        member_id: MemberId,
        hold_id: HoldId,
        points: Option<i64>,
    },
    ReleaseHold {
        member_id: MemberId,
        hold_id: HoldId,
    },
    Reverse {
        member_id: MemberId,
        transaction_id: TransactionId,
        points: Option<i64>,
        remark: Option<String>,
    },
    SettleAccount(MemberId),
    /// Makes a version of the tenant's rules ([`crate::rules::set`]).
    SetRules {
        expected_version: i64,
        rules: Box<Rules>,
        effective_from: Option<Timestamp>,
    },
    CreateWebhook(Box<NewWebhook>),
    ChangeWebhook {
        webhook_id: WebhookId,
        change: Box<WebhookChange>,
    },
    Transfer {
        from: MemberId,
        to: MemberId,
        points: i64,
        reference: Option<String>,
        remark: Option<String>,
    },
    /// `transaction_id` is the sender's line, `counterpart_id` the receiver's; both members are looked up before.
    ReverseTransfer {
        from: MemberId,
        to: MemberId,
        transaction_id: TransactionId,
        counterpart_id: TransactionId,
        points: Option<i64>,
        remark: Option<String>,
    },
    Merge {
        from: MemberId,
        into: MemberId,
        remark: Option<String>,
    },
    /// `day` and `calendar` are those of the time it takes effect, where the tenant is.
    CheckIn {
        member_id: MemberId,
        day: Day,
        calendar: Box<Calendar>,
    },
    CreateTask {
        key: TaskKey,
        definition: Box<task::Definition>,
    },
    UpdateTask {
        key: TaskKey,
        patch: Box<TaskPatch>,
    },
    DeleteTask(TaskKey),
    /// One step of a task, reported once under `completion_id`. `day` and `calendar` as above.
    CompleteTask {
        member_id: MemberId,
        key: TaskKey,
        completion_id: CompletionId,
        day: Day,
        calendar: Box<Calendar>,
    },
    /// Records what a sweep has done under the key it was asked with.
    RecordSweep(Sweep),

    /// The grant is made by a job, soon.
    EnqueueGrant {
        member_id: MemberId,
        movement: Movement,
        spendable: Spendable,
    },
    RetryJob(JobId),
    CancelJob(JobId),
    /// What a job does: decided only while the job runs under its ticket, which then ends, in the same transaction.
    Work {
        ticket: JobTicket,
        command: Box<Command>,
    },
}

/// A caller's key for "this request, once", and a digest of the request it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Digest of the caller's key.
    pub key: [u8; 16],
    /// Digest of the request, to notice a key used for another one.
    pub fingerprint: [u8; 16],
}

/// A command with everything its decision depends on beside the stored rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    pub tenant: TenantId,
    /// The API key that asks; `None` for the server's own jobs.
    pub actor: Option<KeyId>,
    pub command: Command,
    pub idempotency: Option<Idempotency>,
    /// The time the command takes effect; `now`, or earlier in imports and replays.
    pub at: Timestamp,
    /// The time it is recorded.
    pub now: Timestamp,
    pub seed: IdSeed,
}
