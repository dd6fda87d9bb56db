//! Every business "no", each with a stable code. A rejection is a value: it is decided before anything is written.
//!
//! Within a command the checks run in the order in which its function states them, and the first failure is the answer.

use crate::coupon::{CompensationStatus, CouponStatus};
use crate::id::{CouponId, OrderId};
use crate::order::OrderStatus;
use crate::points::HoldStatus;
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    // Unknown objects: another tenant's object is exactly as unknown.
    TemplateNotFound,
    CouponNotFound,
    HoldNotFound,
    TransactionNotFound,
    TenantNotFound,
    KeyNotFound,
    JobNotFound,
    WebhookNotFound,
    BulkNotFound,

    // Templates.
    TemplateVersionStale { current: i64 },
    TemplateInUse { claimed: i64 },
    TemplateHasCodes { batches: i64 },
    TemplateArchived,
    BudgetBelowCommitted { committed: i64 },
    StockUnlimited,
    StockOutOfRange { remaining: i64, max_total: i64 },

    // Claims, in order of precedence after TemplateNotFound. Those with a template `version` stay true while it does.
    TemplateDisabled,
    ClaimNotStarted { starts_at: Option<Timestamp> },
    ClaimEnded { ended_at: Option<Timestamp>, version: i64 },
    ValidityEnded { ended_at: Timestamp },
    MemberLevel { allowed: Vec<String> },
    ClaimLimitReached { limit: i64, version: i64 },
    DayClosed { since: Timestamp },
    DailyCapReached { cap: i64, ends_at: Timestamp, version: i64 },
    BudgetExhausted { budget: i64, version: i64 },
    SoldOut { total: i64, version: i64 },

    // Coupons.
    CouponExpired { valid_until: Timestamp },
    CouponNotYetValid { valid_from: Timestamp },
    CouponLocked { order_id: Option<OrderId> },
    CouponNotLocked,
    CouponUsed { order_id: Option<OrderId> },
    CouponNotUsed { status: CouponStatus },
    CouponRevoked,
    OrderMismatch,
    TransferToHolder,
    DeadlinePassed { field: &'static str },

    // Prices. These say why a coupon does not apply to an order, in order of precedence after MemberLevel; the last one
    // refuses the order itself.
    CouponOutsideHours,
    CouponOutOfScope,
    CouponQuantity { min_quantity: i64, eligible_quantity: i64 },
    CouponBelowThreshold { min_amount: i64, eligible_amount: i64 },
    CouponConditionUnmet,
    CouponConditionFailed { cause: String },
    CouponProductMissing,
    CouponNotStackable { with: CouponId },
    TooManyCoupons { most: u32 },
    CouponWithoutEffect,
    OrderTooLarge { most: i64 },
    // Codes. The first says no more than that, whatever the reason: see `coupon::code`.
    CodeNotAccepted,
    CodeNotFound,
    CodeBatchNotFound,
    CodeTaken,
    CodeRevoked,
    CodeBatchOutOfStep { generated: i64 },

    // Orders. Why one of its coupons refuses an order; a code of what cannot be taken again; what an order has taken.
    InOrder { coupon_id: CouponId, reason: Box<Rejection> },
    OrderNotFound,
    OrderExists { status: OrderStatus },
    QuoteExpired { expired_at: Timestamp },
    OrderClosed { status: OrderStatus },
    OrderExpired { expired_at: Timestamp, reason: &'static str },
    OrderNotPaid { status: OrderStatus },
    OrderItemUnknown { item_id: String },
    RefundExists,
    RefundExceeds { item_id: String, left: i64 },
    RefundExceedsFreight { left: i64 },
    NothingToRefund,
    ManagedByOrder { order_id: String },
    CompensationNotFound,
    CompensationClosed { status: CompensationStatus },

    // Points.
    PointsInsufficient { available: i64, requested: i64 },
    PointsOverflow,
    HoldClosed { status: HoldStatus },
    CaptureExceedsHold { held: i64 },
    NotReversible,
    ReversalExceeds { left: i64 },

    // Rules.
    RulesVersionStale { current: i64 },
    RulesTooManyVersions { most: i64 },
    // Jobs.
    JobLeaseLost,
    BulkMoved,
    WindowsAnnounced,

    // Requests.
    IdempotencyKeyReused,
}

impl Rejection {
    /// The stable code, as answered in `code`.
    pub fn code(&self) -> &'static str {
        match self {
            Rejection::TemplateNotFound => "COUPON_TEMPLATE_NOT_FOUND",
            Rejection::CouponNotFound => "COUPON_NOT_FOUND",
            Rejection::HoldNotFound => "POINTS_HOLD_NOT_FOUND",
            Rejection::TransactionNotFound => "POINTS_TRANSACTION_NOT_FOUND",
            Rejection::TenantNotFound => "TENANT_NOT_FOUND",
            Rejection::KeyNotFound => "API_KEY_NOT_FOUND",
            Rejection::JobNotFound => "JOB_NOT_FOUND",
            Rejection::BulkNotFound => "BULK_NOT_FOUND",
            Rejection::BulkMoved => "BULK_MOVED",
            Rejection::WindowsAnnounced => "COUPON_WINDOWS_ANNOUNCED",
            Rejection::JobLeaseLost => "JOB_LEASE_LOST",
            Rejection::WebhookNotFound => "WEBHOOK_NOT_FOUND",
            Rejection::TemplateVersionStale { .. } => "COUPON_TEMPLATE_VERSION_STALE",
            Rejection::TemplateInUse { .. } => "COUPON_TEMPLATE_IN_USE",
            Rejection::TemplateHasCodes { .. } => "COUPON_TEMPLATE_HAS_CODES",
            Rejection::TemplateArchived => "COUPON_TEMPLATE_ARCHIVED",
            Rejection::BudgetBelowCommitted { .. } => "COUPON_BUDGET_BELOW_COMMITTED",
            Rejection::StockUnlimited => "COUPON_STOCK_UNLIMITED",
            Rejection::StockOutOfRange { .. } => "COUPON_STOCK_OUT_OF_RANGE",
            Rejection::TemplateDisabled => "COUPON_TEMPLATE_DISABLED",
            Rejection::ClaimNotStarted { .. } => "COUPON_CLAIM_NOT_STARTED",
            Rejection::ClaimEnded { .. } => "COUPON_CLAIM_ENDED",
            Rejection::ValidityEnded { .. } => "COUPON_VALIDITY_ENDED",
            Rejection::MemberLevel { .. } => "COUPON_MEMBER_LEVEL",
            Rejection::ClaimLimitReached { .. } => "COUPON_LIMIT_REACHED",
            Rejection::DayClosed { .. } => "COUPON_DAY_CLOSED",
            Rejection::DailyCapReached { .. } => "COUPON_DAILY_CAP_REACHED",
            Rejection::BudgetExhausted { .. } => "COUPON_BUDGET_EXHAUSTED",
            Rejection::SoldOut { .. } => "COUPON_SOLD_OUT",
            Rejection::CouponExpired { .. } => "COUPON_EXPIRED",
            Rejection::CouponNotYetValid { .. } => "COUPON_NOT_YET_VALID",
            Rejection::CouponLocked { .. } => "COUPON_LOCKED",
            Rejection::CouponNotLocked => "COUPON_NOT_LOCKED",
            Rejection::CouponUsed { .. } => "COUPON_USED",
            Rejection::CouponNotUsed { .. } => "COUPON_NOT_USED",
            Rejection::CouponRevoked => "COUPON_REVOKED",
            Rejection::OrderMismatch => "COUPON_ORDER_MISMATCH",
            Rejection::TransferToHolder => "COUPON_TRANSFER_TO_HOLDER",
            Rejection::DeadlinePassed { .. } => "DEADLINE_PASSED",
            Rejection::CouponOutsideHours => "COUPON_OUTSIDE_HOURS",
            Rejection::CouponConditionUnmet => "COUPON_CONDITION_UNMET",
            Rejection::CouponConditionFailed { .. } => "COUPON_CONDITION_FAILED",
            Rejection::CouponOutOfScope => "COUPON_OUT_OF_SCOPE",
            Rejection::CouponQuantity { .. } => "COUPON_QUANTITY_TOO_LOW",
            Rejection::CouponBelowThreshold { .. } => "COUPON_BELOW_THRESHOLD",
            Rejection::CouponProductMissing => "COUPON_PRODUCT_MISSING",
            Rejection::CouponNotStackable { .. } => "COUPON_NOT_STACKABLE",
            Rejection::TooManyCoupons { .. } => "COUPON_TOO_MANY",
            Rejection::CouponWithoutEffect => "COUPON_WITHOUT_EFFECT",
            Rejection::OrderTooLarge { .. } => "ORDER_TOO_LARGE",
            Rejection::InOrder { reason, .. } => reason.code(),
            Rejection::OrderNotFound => "ORDER_NOT_FOUND",
            Rejection::OrderExists { .. } => "ORDER_EXISTS",
            Rejection::QuoteExpired { .. } => "ORDER_QUOTE_EXPIRED",
            Rejection::OrderClosed { .. } => "ORDER_CLOSED",
            Rejection::OrderExpired { .. } => "ORDER_EXPIRED",
            Rejection::OrderNotPaid { .. } => "ORDER_NOT_PAID",
            Rejection::OrderItemUnknown { .. } => "ORDER_ITEM_UNKNOWN",
            Rejection::RefundExists => "ORDER_REFUND_EXISTS",
            Rejection::RefundExceeds { .. } => "ORDER_REFUND_EXCEEDS",
            Rejection::RefundExceedsFreight { .. } => "ORDER_REFUND_EXCEEDS_FREIGHT",
            Rejection::NothingToRefund => "ORDER_NOTHING_TO_REFUND",
            Rejection::ManagedByOrder { .. } => "ORDER_MANAGES_IT",
            Rejection::CompensationNotFound => "COUPON_COMPENSATION_NOT_FOUND",
            Rejection::CompensationClosed { .. } => "COUPON_COMPENSATION_CLOSED",
            Rejection::CodeNotAccepted => "COUPON_CODE_NOT_ACCEPTED",
            Rejection::CodeNotFound => "COUPON_CODE_NOT_FOUND",
            Rejection::CodeBatchNotFound => "COUPON_CODE_BATCH_NOT_FOUND",
            Rejection::CodeTaken => "COUPON_CODE_TAKEN",
            Rejection::CodeRevoked => "COUPON_CODE_REVOKED",
            Rejection::CodeBatchOutOfStep { .. } => "COUPON_CODE_BATCH_OUT_OF_STEP",
            Rejection::PointsInsufficient { .. } => "POINTS_INSUFFICIENT",
            Rejection::PointsOverflow => "POINTS_OVERFLOW",
            Rejection::HoldClosed { status: HoldStatus::Expired } => "POINTS_HOLD_EXPIRED",
            Rejection::HoldClosed { .. } => "POINTS_HOLD_CLOSED",
            Rejection::CaptureExceedsHold { .. } => "POINTS_CAPTURE_EXCEEDS_HOLD",
            Rejection::NotReversible => "POINTS_NOT_REVERSIBLE",
            Rejection::ReversalExceeds { .. } => "POINTS_REVERSAL_EXCEEDS",
            Rejection::RulesVersionStale { .. } => "POINTS_RULES_VERSION_STALE",
            Rejection::RulesTooManyVersions { .. } => "POINTS_RULES_TOO_MANY_VERSIONS",
            Rejection::IdempotencyKeyReused => "IDEMPOTENCY_KEY_REUSED",
        }
    }
}
