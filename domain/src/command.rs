//! Everything that can be asked of the engine.

use serde::{Deserialize, Serialize};

use crate::bulk::{ChunkWork, Staged};
use crate::coupon::{
    CodeDigest, CodeStatus, CompensationStatus, Definition, ImportedCoupon, NewCodeBatch, TemplatePatch,
};
use crate::decide::Sweep;
use crate::id::{
    AdjustmentId, BulkId, CodeBatchId, CompensationId, CompletionId, CouponId, HoldId, IdSeed, JobId, KeyId, MemberId,
    OrderId, TaskKey, TemplateId, TenantId, TransactionId, WebhookId,
};
use crate::job::{ExtensionPage, JobTicket};
use crate::order::{RefundRequest, Reservation};
use crate::points::{AdjustmentRequest, ImportedAccount, ReminderPage, Spendable, TransactionType};
use crate::pricing::Rules;
use crate::task::{self, TaskPatch};
use crate::tenant::{ApiKey, NewProgram, Tenant};
use crate::time::{Calendar, Day, Timestamp};
use crate::webhook::{NewWebhook, WebhookChange};
use std::sync::Arc;

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
    /// Makes a program of the tenant that asks.
    CreateProgram(Box<NewProgram>),
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
    /// Ends a template for good; its coupons go on.
    ArchiveTemplate(TemplateId),
    DeleteTemplate(TemplateId),

    Claim {
        template_id: TemplateId,
        member_id: MemberId,
        member_level: Option<String>,
    },
    /// Takes the template's price from the member's points, and makes a coupon.
    Exchange {
        template_id: TemplateId,
        member_id: MemberId,
        member_level: Option<String>,
    },
    /// Makes a batch of codes. A shared code comes with its digest and is complete at once.
    CreateCodeBatch(Box<NewCodeBatch>),
    /// Adds codes to a batch under generation: the `numbers` follow what the batch has.
    AddCodes {
        batch_id: CodeBatchId,
        /// Where the batch must stand; another position means that somebody else has gone on.
        from_number: i64,
        /// Those of the numbers from `from_number` on.
        digests: Vec<CodeDigest>,
        /// How often each may be claimed; `None` is the batch's.
        max_uses: Vec<Option<i64>>,
        /// Who alone may claim with each; `None` is anybody.
        holders: Vec<Option<MemberId>>,
        /// Whether nothing comes after them.
        last: bool,
    },
    ChangeCodeBatch {
        batch_id: CodeBatchId,
        status: CodeStatus,
    },
    ChangeCode {
        batch_id: CodeBatchId,
        digest: CodeDigest,
        status: CodeStatus,
    },
    /// `None` is for anybody again.
    AssignCode {
        batch_id: CodeBatchId,
        digest: CodeDigest,
        member_id: Option<MemberId>,
    },
    /// Destroys what a batch's codes could be made from once more.
    SealCodeBatch(CodeBatchId),
    /// A claim by a code. Batch and template must be the code's; they are looked up before, since they never change.
    ClaimCode {
        digest: CodeDigest,
        batch_id: CodeBatchId,
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
    /// Gives a coupon that is not in use to another member. `template_id` must be the coupon's, as above.
    TransferCoupon {
        coupon_id: CouponId,
        template_id: TemplateId,
        to_member_id: MemberId,
        reason: Option<String>,
    },
    /// Lets an open coupon live until `valid_until` if it would end before.
    ExtendCoupon {
        coupon_id: CouponId,
        valid_until: Timestamp,
    },
    /// Takes a template over from elsewhere, unless it is there already.
    ImportTemplate {
        template_id: TemplateId,
        definition: Box<Definition>,
        total_stock: Option<i64>,
        enabled: bool,
    },
    ImportCoupon(Box<ImportedCoupon>),
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
    /// Gives or takes points by hand, at once or when another key has approved.
    Adjust(Box<AdjustmentRequest>),
    /// `member_id` must be the adjustment's; it is looked up before, since it never changes.
    ApproveAdjustment {
        member_id: MemberId,
        adjustment_id: AdjustmentId,
    },
    RejectAdjustment {
        adjustment_id: AdjustmentId,
        reason: String,
    },
    /// Takes an account over from elsewhere, unless it has lines here.
    ImportAccount(Box<ImportedAccount>),
    ReserveOrder(Box<Reservation>),
    /// `member_id` must be the order's; it is looked up before, since it never changes. Likewise below. The calendar is the
    /// tenant's at the time the command takes effect.
    PayOrder {
        member_id: MemberId,
        order_id: OrderId,
        calendar: Arc<Calendar>,
    },
    CancelOrder {
        member_id: MemberId,
        order_id: OrderId,
        reason: Option<String>,
    },
    RefundOrder {
        member_id: MemberId,
        order_id: OrderId,
        refund: Box<RefundRequest>,
    },
    /// Grants at once what a paid order earns and its rule would grant later.
    ConfirmOrder {
        member_id: MemberId,
        order_id: OrderId,
        calendar: Arc<Calendar>,
    },
    SettleOrder {
        member_id: MemberId,
        order_id: OrderId,
        calendar: Arc<Calendar>,
    },
    CloseCompensation {
        compensation_id: CompensationId,
        status: CompensationStatus,
        remark: String,
    },
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
    /// `calendar` is that of the time it takes effect, where the tenant is. With a `missed` day, that one is made up instead of
    /// the calendar's.
    CheckIn {
        member_id: MemberId,
        missed: Option<Day>,
        calendar: Arc<Calendar>,
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
        calendar: Arc<Calendar>,
    },
    /// Records what a sweep has done under the key it was asked with.
    RecordSweep(Sweep),

    /// The grant is made by a job, soon.
    EnqueueGrant {
        member_id: MemberId,
        movement: Movement,
        spendable: Spendable,
    },
    /// A job lets a template's open coupons end later: those that would end before `ends_before`, or all.
    EnqueueExtension {
        template_id: TemplateId,
        valid_until: Timestamp,
        ends_before: Option<Timestamp>,
    },
    /// Lets the coupons of a page end later, for such a job; the page must be the job's next.
    ExtendPage {
        job_id: JobId,
        page: Box<ExtensionPage>,
    },
    /// Begins to work off the rows staged under `bulk_id`: a distribution of the template, or grants of points.
    CreateBulk {
        bulk_id: BulkId,
        template_id: Option<TemplateId>,
        staged: Staged,
    },
    /// The chunk's rows that are not skipped; it must be the bulk's next.
    WorkChunk {
        bulk_id: BulkId,
        number: i64,
        work: Box<ChunkWork>,
    },
    CancelBulk(BulkId),
    /// Reminds of points that expire in so many days.
    RemindExpiry(Box<ReminderPage>),
    /// Tells the bounds of issue windows between two times, of the templates that have one there.
    AnnounceWindows {
        from: Timestamp,
        until: Timestamp,
        templates: Vec<TemplateId>,
    },
    RetryJob(JobId),
    CancelJob(JobId),
    /// What a job does: decided only while the job runs under its ticket, which then ends, in the same transaction.
    Work {
        ticket: JobTicket,
        command: Box<Command>,
    },
}

impl Command {
    /// Whether it moves points as only an operator may, so that the rules on approvals are wanted.
    pub fn is_administrative(&self) -> bool {
        match self {
            Command::Adjust(_) | Command::ApproveAdjustment { .. } => true,
            Command::Grant { movement, .. }
            | Command::EnqueueGrant { movement, .. }
            | Command::Debit { movement, .. } => movement.kind.is_administrative(),
            Command::WorkChunk { work, .. } => match &**work {
                ChunkWork::Grant(rows) => rows.iter().any(|row| row.movement.kind.is_administrative()),
                ChunkWork::Issue { .. } => false,
            },
            Command::Work { command, .. } => command.is_administrative(),
            _ => false,
        }
    }

    /// The operation's name: metrics and traces call it so.
    pub fn operation(&self) -> &'static str {
        match self {
            Command::CreateTenant(_) => "create_tenant",
            Command::CreateProgram(_) => "create_program",
            Command::CreateApiKey { .. } => "create_api_key",
            Command::RevokeApiKey(_) => "revoke_api_key",
            Command::CreateTemplate { .. } => "create_coupon_template",
            Command::UpdateTemplate { .. } => "update_coupon_template",
            Command::EnableTemplate { enabled: true, .. } => "enable_coupon_template",
            Command::EnableTemplate { enabled: false, .. } => "disable_coupon_template",
            Command::ChangeStock { .. } => "change_coupon_template_stock",
            Command::DeleteTemplate(_) => "delete_coupon_template",
            Command::Claim { .. } => "claim",
            Command::Exchange { .. } => "exchange",
            Command::LockCoupon { .. } => "lock_coupon",
            Command::UseCoupon { .. } => "use_coupon",
            Command::UnlockCoupon { .. } => "unlock_coupon",
            Command::ReturnCoupon { .. } => "return_coupon",
            Command::RevokeCoupon { .. } => "revoke_coupon",
            Command::SettleCoupon(_) => "settle_coupon",
            Command::Grant { .. } => "grant",
            Command::Debit { .. } => "debit",
            Command::Hold { .. } => "hold",
            Command::CaptureHold { .. } => "capture_hold",
            Command::ReleaseHold { .. } => "release_hold",
            Command::Reverse { .. } => "reverse",
            Command::SettleAccount(_) => "settle_account",
            Command::Adjust(_) => "adjust_points",
            Command::ApproveAdjustment { .. } => "approve_points_adjustment",
            Command::RejectAdjustment { .. } => "reject_points_adjustment",
            Command::ImportAccount(_) => "import_points_account",
            Command::ReserveOrder(_) => "reserve_order",
            Command::PayOrder { .. } => "pay_order",
            Command::CancelOrder { .. } => "cancel_order",
            Command::RefundOrder { .. } => "refund_order",
            Command::ConfirmOrder { .. } => "confirm_order",
            Command::SettleOrder { .. } => "settle_order",
            Command::CloseCompensation { .. } => "close_compensation",
            Command::ArchiveTemplate(_) => "archive_coupon_template",
            Command::CreateCodeBatch(_) => "create_code_batch",
            Command::AddCodes { .. } => "add_codes",
            Command::ChangeCodeBatch { .. } => "change_code_batch",
            Command::ChangeCode { .. } => "change_code",
            Command::AssignCode { .. } => "assign_code",
            Command::SealCodeBatch(_) => "seal_code_batch",
            Command::ClaimCode { .. } => "claim_code",
            Command::TransferCoupon { .. } => "transfer_coupon",
            Command::ExtendCoupon { .. } => "extend_coupon",
            Command::ImportTemplate { .. } => "import_template",
            Command::ImportCoupon(_) => "import_coupon",
            Command::EnqueueExtension { .. } => "enqueue_extension",
            Command::ExtendPage { .. } => "extend_page",
            Command::SetRules { .. } => "set_points_rules",
            Command::CreateWebhook(_) => "create_webhook",
            Command::ChangeWebhook { .. } => "change_webhook",
            Command::RecordSweep(_) => "expire",
            Command::EnqueueGrant { .. } => "enqueue_grant",
            Command::Transfer { .. } => "transfer",
            Command::ReverseTransfer { .. } => "reverse_transfer",
            Command::Merge { .. } => "merge",
            Command::CheckIn { .. } => "check_in",
            Command::CreateTask { .. } => "create_points_task",
            Command::UpdateTask { .. } => "update_points_task",
            Command::DeleteTask(_) => "delete_points_task",
            Command::CompleteTask { .. } => "complete_points_task",
            Command::CreateBulk { .. } => "create_bulk",
            Command::WorkChunk { .. } => "work_chunk",
            Command::CancelBulk(_) => "cancel_bulk",
            Command::RemindExpiry(_) => "remind_expiry",
            Command::AnnounceWindows { .. } => "announce_windows",
            Command::RetryJob(_) => "retry_job",
            Command::CancelJob(_) => "cancel_job",
            // What it does, whoever asks.
            Command::Work { command, .. } => command.operation(),
        }
    }
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
