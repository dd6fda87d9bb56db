//! Coupon templates and the coupons claimed from them.
//!
//! A template's [`Definition`] is what operators author; every edit makes a new version, and a coupon keeps the version it
//! was claimed under: that is its snapshot. Stock and counters live beside the definition and change with each claim.
//!
//! ```text
//!              lock                use
//! AVAILABLE ---------> LOCKED ------------> USED
//!  |  |  ^              |  |                 |
//!  |  |  +-- unlock ----+  +-- unlock --+    | return: still valid, or extended by the template's
//!  |  |  +-------------------------------|---+ refund_extend_days when it expired meanwhile
//!  |  +-> EXPIRED <---------------------+    |
//!  |        ^                                |
//!  |        +--------------------------------+ return, expired and the template disabled: a compensation case
//!  +----> REVOKED
//! ```
//!
//! A transfer ends the coupon as REVOKED and makes another one, of the same version and validity, for the other member: it
//! counts against the receiver's limit, and giving away makes no room in the giver's.
//!
//! A lock is honoured until its own deadline even when the coupon's validity ends in between. Once the deadline has passed
//! the coupon behaves as unlocked; the change is written by the first command or sweep that notices.

mod claim;
mod code;
mod compensation;
mod import;
mod lifecycle;
mod template;
mod window;

pub use claim::{admit, claim, issue, make};
pub use code::{
    Code, CodeAtHand, CodeBatch, CodeDigest, CodeKind, CodeStatus, CodeUse, MAX_CODES, NewCodeBatch, add_codes,
    assign_code, change_batch, change_code, claim_code, create_batch, seal_batch,
};
pub use compensation::{Compensation, CompensationReason, CompensationStatus, resolve};
pub use import::{ImportedCoupon, import_coupon, import_template};
pub use lifecycle::{
    extend, lock, refusal_at, release, return_or_compensate, return_used, revoke, settle, transfer, use_locked,
};
pub use template::{
    Benefit, DEFAULT_PRIORITY, Definition, MAX_AMOUNT, MAX_BUDGET, MAX_PRIORITY, MAX_STOCK, PeriodCount, PeriodCounts,
    Scope, Stacking, Step, StepOff, Template, TemplatePatch, Validity, archive, change_stock, create, delete,
    set_enabled, update,
};
pub use window::announce_windows;

use serde::{Deserialize, Serialize};

use crate::id::{CouponId, MemberId, OrderId, TemplateId};
use crate::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CouponStatus {
    Available,
    Locked,
    Used,
    Expired,
    Revoked,
}

impl CouponStatus {
    pub const ALL: [CouponStatus; 5] = [
        CouponStatus::Available,
        CouponStatus::Locked,
        CouponStatus::Used,
        CouponStatus::Expired,
        CouponStatus::Revoked,
    ];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            CouponStatus::Available => "AVAILABLE",
            CouponStatus::Locked => "LOCKED",
            CouponStatus::Used => "USED",
            CouponStatus::Expired => "EXPIRED",
            CouponStatus::Revoked => "REVOKED",
        }
    }

    /// Whether a coupon with this status belongs to an order.
    pub fn has_order(self) -> bool {
        matches!(self, CouponStatus::Locked | CouponStatus::Used)
    }

    pub fn parse(text: &str) -> Option<CouponStatus> {
        CouponStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// How a coupon came to its member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CouponSource {
    Claim,
    /// Claimed with a code.
    Code,
    /// Given by another member.
    Transfer,
    /// Claimed elsewhere, and taken over.
    Import,
    /// Given by an operator, to many.
    Distribution,
    /// Paid for with points.
    Exchange,
}

impl CouponSource {
    pub const ALL: [CouponSource; 6] = [
        CouponSource::Claim,
        CouponSource::Code,
        CouponSource::Transfer,
        CouponSource::Import,
        CouponSource::Distribution,
        CouponSource::Exchange,
    ];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            CouponSource::Claim => "CLAIM",
            CouponSource::Code => "CODE",
            CouponSource::Transfer => "TRANSFER",
            CouponSource::Import => "IMPORT",
            CouponSource::Distribution => "DISTRIBUTION",
            CouponSource::Exchange => "EXCHANGE",
        }
    }

    pub fn parse(text: &str) -> Option<CouponSource> {
        CouponSource::ALL.into_iter().find(|source| source.as_str() == text)
    }

    /// Whether such a coupon was taken from the template's stock and budget. One received was taken before.
    pub fn takes_stock(self) -> bool {
        self != CouponSource::Transfer
    }
}

/// A member's copy of a template. The short serde names keep recorded outcomes small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coupon {
    #[serde(rename = "i")]
    pub id: CouponId,
    #[serde(rename = "t")]
    pub template_id: TemplateId,
    /// The template version that prices this coupon.
    #[serde(rename = "v")]
    pub template_version: i64,
    #[serde(rename = "m")]
    pub member_id: MemberId,
    #[serde(rename = "s")]
    pub status: CouponStatus,
    /// 1 for the member's first coupon of the template, 2 for the second, and so on.
    #[serde(rename = "n")]
    pub sequence: i64,
    #[serde(rename = "c")]
    pub source: CouponSource,
    #[serde(rename = "f")]
    pub valid_from: Timestamp,
    #[serde(rename = "u")]
    pub valid_until: Timestamp,
    #[serde(rename = "o", skip_serializing_if = "Option::is_none", default)]
    pub order_id: Option<OrderId>,
    /// Whether an order of ours holds it, and not one that the shop prices for itself.
    #[serde(rename = "b", skip_serializing_if = "std::ops::Not::not", default)]
    pub by_order: bool,
    /// The lock's deadline; `None` while locked means until unlocked.
    #[serde(rename = "l", skip_serializing_if = "Option::is_none", default)]
    pub locked_until: Option<Timestamp>,
    /// What the order got off, in minor units, when the caller said so.
    #[serde(rename = "d", skip_serializing_if = "Option::is_none", default)]
    pub discount_amount: Option<i64>,
    #[serde(rename = "a")]
    pub claimed_at: Timestamp,
    #[serde(rename = "x", skip_serializing_if = "Option::is_none", default)]
    pub used_at: Option<Timestamp>,
}

impl Coupon {
    /// The status that holds at `at`, whether or not a sweep has written it yet.
    pub fn status_at(&self, at: Timestamp) -> CouponStatus {
        let open = match self.status {
            CouponStatus::Available => true,
            CouponStatus::Locked => self.locked_until.is_some_and(|deadline| at >= deadline),
            _ => false,
        };
        match (open, at >= self.valid_until) {
            (false, _) => self.status,
            (true, false) => CouponStatus::Available,
            (true, true) => CouponStatus::Expired,
        }
    }
}
