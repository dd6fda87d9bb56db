//! Every business "no", each with a stable code. A rejection is a value: it is decided before anything is written.
//!
//! Within a command the checks run in the order in which its function states them, and the first failure is the answer.

use crate::coupon::CouponStatus;
use crate::id::{CouponId, MemberId, OrderId};
use crate::points::HoldStatus;
use crate::time::{Day, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    // Unknown objects: another tenant's object is exactly as unknown.
    TemplateNotFound,
    CouponNotFound,
    HoldNotFound,
    TransactionNotFound,
    TaskNotFound,
    TenantNotFound,
    KeyNotFound,
    JobNotFound,
    WebhookNotFound,

    // Templates.
    TemplateVersionStale { current: i64 },
    TemplateInUse { claimed: i64 },
    StockUnlimited,
    StockOutOfRange { remaining: i64, max_total: i64 },

    // Claims, in order of precedence after TemplateNotFound. Those with a template `version` stay true while it does.
    TemplateDisabled,
    ClaimNotStarted { starts_at: Option<Timestamp> },
    ClaimEnded { ended_at: Option<Timestamp>, version: i64 },
    ValidityEnded { ended_at: Timestamp },
    MemberLevel { allowed: Vec<String> },
    ClaimLimitReached { limit: i64, version: i64 },
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

    // Points.
    PointsInsufficient { available: i64, requested: i64 },
    PointsOverflow,
    HoldClosed { status: HoldStatus },
    CaptureExceedsHold { held: i64 },
    NotReversible,
    ReversalExceeds { left: i64 },
    HoldPending { available_from: Timestamp },
    ExpiresBeforeAvailable,
    AccountMerged { into: MemberId },
    SameMember,
    InDebt { debt: i64 },
    HoldsOpen { points: i64 },

    // Check-ins and tasks.
    CheckInDisabled,
    CheckInOutOfOrder { latest: Day },
    TaskExists,
    TaskVersionStale { current: i64 },
    TaskDisabled,
    TaskNotStarted { starts_at: Option<Timestamp> },
    TaskEnded { ended_at: Option<Timestamp> },
    TaskPeriodLimitReached { limit: i64 },
    TaskLimitReached { limit: i64 },

    // Rules.
    RulesVersionStale { current: i64 },
    RulesTooManyVersions { most: i64 },
    // Jobs.
    JobLeaseLost,

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
            Rejection::JobLeaseLost => "JOB_LEASE_LOST",
            Rejection::WebhookNotFound => "WEBHOOK_NOT_FOUND",
            Rejection::TemplateVersionStale { .. } => "COUPON_TEMPLATE_VERSION_STALE",
            Rejection::TemplateInUse { .. } => "COUPON_TEMPLATE_IN_USE",
            Rejection::StockUnlimited => "COUPON_STOCK_UNLIMITED",
            Rejection::StockOutOfRange { .. } => "COUPON_STOCK_OUT_OF_RANGE",
            Rejection::TemplateDisabled => "COUPON_TEMPLATE_DISABLED",
            Rejection::ClaimNotStarted { .. } => "COUPON_CLAIM_NOT_STARTED",
            Rejection::ClaimEnded { .. } => "COUPON_CLAIM_ENDED",
            Rejection::ValidityEnded { .. } => "COUPON_VALIDITY_ENDED",
            Rejection::MemberLevel { .. } => "COUPON_MEMBER_LEVEL",
            Rejection::ClaimLimitReached { .. } => "COUPON_LIMIT_REACHED",
            Rejection::SoldOut { .. } => "COUPON_SOLD_OUT",
            Rejection::CouponExpired { .. } => "COUPON_EXPIRED",
            Rejection::CouponNotYetValid { .. } => "COUPON_NOT_YET_VALID",
            Rejection::CouponLocked { .. } => "COUPON_LOCKED",
            Rejection::CouponNotLocked => "COUPON_NOT_LOCKED",
            Rejection::CouponUsed { .. } => "COUPON_USED",
            Rejection::CouponNotUsed { .. } => "COUPON_NOT_USED",
            Rejection::CouponRevoked => "COUPON_REVOKED",
            Rejection::OrderMismatch => "COUPON_ORDER_MISMATCH",
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
            Rejection::PointsInsufficient { .. } => "POINTS_INSUFFICIENT",
            Rejection::PointsOverflow => "POINTS_OVERFLOW",
            Rejection::HoldClosed { status: HoldStatus::Expired } => "POINTS_HOLD_EXPIRED",
            Rejection::HoldClosed { .. } => "POINTS_HOLD_CLOSED",
            Rejection::CaptureExceedsHold { .. } => "POINTS_CAPTURE_EXCEEDS_HOLD",
            Rejection::NotReversible => "POINTS_NOT_REVERSIBLE",
            Rejection::ReversalExceeds { .. } => "POINTS_REVERSAL_EXCEEDS",
            Rejection::RulesVersionStale { .. } => "POINTS_RULES_VERSION_STALE",
            Rejection::RulesTooManyVersions { .. } => "POINTS_RULES_TOO_MANY_VERSIONS",
            Rejection::TaskNotFound => "POINTS_TASK_NOT_FOUND",
            Rejection::HoldPending { .. } => "POINTS_HOLD_PENDING",
            Rejection::ExpiresBeforeAvailable => "POINTS_EXPIRES_BEFORE_AVAILABLE",
            Rejection::AccountMerged { .. } => "POINTS_ACCOUNT_MERGED",
            Rejection::SameMember => "POINTS_SAME_MEMBER",
            Rejection::InDebt { .. } => "POINTS_IN_DEBT",
            Rejection::HoldsOpen { .. } => "POINTS_HOLDS_OPEN",
            Rejection::CheckInDisabled => "POINTS_CHECK_IN_DISABLED",
            Rejection::CheckInOutOfOrder { .. } => "POINTS_CHECK_IN_OUT_OF_ORDER",
            Rejection::TaskExists => "POINTS_TASK_EXISTS",
            Rejection::TaskVersionStale { .. } => "POINTS_TASK_VERSION_STALE",
            Rejection::TaskDisabled => "POINTS_TASK_DISABLED",
            Rejection::TaskNotStarted { .. } => "POINTS_TASK_NOT_STARTED",
            Rejection::TaskEnded { .. } => "POINTS_TASK_ENDED",
            Rejection::TaskPeriodLimitReached { .. } => "POINTS_TASK_PERIOD_LIMIT_REACHED",
            Rejection::TaskLimitReached { .. } => "POINTS_TASK_LIMIT_REACHED",
            Rejection::IdempotencyKeyReused => "IDEMPOTENCY_KEY_REUSED",
        }
    }
}
