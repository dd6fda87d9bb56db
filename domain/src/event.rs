//! What happened, as told to those outside: one event for each change, in the same transaction as the change.

use uuid::Uuid;

use crate::id::{
    AdjustmentId, BulkId, CodeBatchId, CouponId, EventId, HoldId, KeyId, LotId, MemberId, OrderUid, TaskId, TemplateId,
    TenantId, TransactionId, WebhookId,
};
use crate::time::Timestamp;

macro_rules! event_kinds {
    ($($variant:ident = $name:literal, $subject:ident;)*) => {
        /// The kinds of events; stored and shown by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $($variant,)* }

        impl EventKind {
            pub const ALL: &'static [EventKind] = &[$(EventKind::$variant,)*];

            /// The name as stored and as shown.
            pub fn as_str(self) -> &'static str {
                match self { $(EventKind::$variant => $name,)* }
            }

            /// The subject's id in its public form.
            pub fn subject_text(self, subject: Uuid) -> String {
                match self { $(EventKind::$variant => $subject(subject).to_string(),)* }
            }
        }
    };
}

event_kinds! {
    TemplateCreated = "coupon_template.created", TemplateId;
    TemplateUpdated = "coupon_template.updated", TemplateId;
    TemplateEnabled = "coupon_template.enabled", TemplateId;
    TemplateDisabled = "coupon_template.disabled", TemplateId;
    TemplateStockChanged = "coupon_template.stock_changed", TemplateId;
    TemplateArchived = "coupon_template.archived", TemplateId;
    TemplateDeleted = "coupon_template.deleted", TemplateId;
    CodeBatchCreated = "code_batch.created", CodeBatchId;
    CodesAdded = "code_batch.codes_added", CodeBatchId;
    CodeBatchCompleted = "code_batch.completed", CodeBatchId;
    CodeBatchExported = "code_batch.exported", CodeBatchId;
    CodeBatchChanged = "code_batch.status_changed", CodeBatchId;
    CodeChanged = "code_batch.code_status_changed", CodeBatchId;
    CodeAssigned = "code_batch.code_assigned", CodeBatchId;
    TemplateStarted = "coupon_template.started", TemplateId;
    TemplateEnded = "coupon_template.ended", TemplateId;
    CouponClaimed = "coupon.claimed", CouponId;
    CouponLocked = "coupon.locked", CouponId;
    CouponUsed = "coupon.used", CouponId;
    CouponUnlocked = "coupon.unlocked", CouponId;
    CouponReturned = "coupon.returned", CouponId;
    CouponRevoked = "coupon.revoked", CouponId;
    CouponTransferred = "coupon.transferred", CouponId;
    CouponReceived = "coupon.received", CouponId;
    CouponExtended = "coupon.extended", CouponId;
    CouponExpired = "coupon.expired", CouponId;
    CouponCompensationNeeded = "coupon.compensation_needed", CouponId;
    CouponCompensationClosed = "coupon.compensation_closed", CouponId;
    PointsGranted = "points.granted", TransactionId;
    PointsDebited = "points.debited", TransactionId;
    PointsHeld = "points.held", HoldId;
    PointsCaptured = "points.captured", HoldId;
    PointsReleased = "points.released", HoldId;
    PointsReversed = "points.reversed", TransactionId;
    PointsExpired = "points.expired", TransactionId;
    PointsExpiring = "points.expiring", LotId;
    PointsDebtSettled = "points.debt_settled", TransactionId;
    AdjustmentRequested = "points_adjustment.requested", AdjustmentId;
    AdjustmentApproved = "points_adjustment.approved", AdjustmentId;
    AdjustmentRejected = "points_adjustment.rejected", AdjustmentId;
    OrderReserved = "order.reserved", OrderUid;
    OrderPaid = "order.paid", OrderUid;
    OrderConfirmed = "order.confirmed", OrderUid;
    OrderCancelled = "order.cancelled", OrderUid;
    OrderReleased = "order.released", OrderUid;
    OrderRefunded = "order.refunded", OrderUid;
    BulkCreated = "bulk.created", BulkId;
    BulkFinished = "bulk.finished", BulkId;
    BulkCancelled = "bulk.cancelled", BulkId;
    RulesChanged = "points_rules.changed", TenantId;
    WebhookCreated = "webhook.created", WebhookId;
    WebhookUpdated = "webhook.updated", WebhookId;
    WebhookEnabled = "webhook.enabled", WebhookId;
    WebhookDisabled = "webhook.disabled", WebhookId;
    WebhookSecretRotated = "webhook.secret_rotated", WebhookId;
    WebhookDeleted = "webhook.deleted", WebhookId;
    PointsTransferred = "points.transferred", TransactionId;
    AccountMerged = "points.account_merged", TransactionId;
    CheckedIn = "points.checked_in", TransactionId;
    TaskCreated = "points_task.created", TaskId;
    TaskUpdated = "points_task.updated", TaskId;
    TaskDeleted = "points_task.deleted", TaskId;
    TaskProgressed = "points_task.progressed", TaskId;
    TaskCompleted = "points_task.completed", TaskId;
}

impl EventKind {
    pub fn parse(text: &str) -> Option<EventKind> {
        EventKind::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

/// One event as written. Its position in the log is given by the store at commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub kind: EventKind,
    /// The object concerned; which kind of id it is follows from `kind`.
    pub subject: Uuid,
    pub member_id: Option<MemberId>,
    /// A JSON object.
    pub data: String,
    /// The API key that asked for it; `None` for the server's own jobs.
    pub actor: Option<KeyId>,
    /// When it took effect.
    pub occurred_at: Timestamp,
    /// When it was recorded; differs from `occurred_at` in imports, replays and late postings.
    pub recorded_at: Timestamp,
}
