//! The points ledger: accounts, lots, holds and append-only transactions.
//!
//! Every credit makes a lot. Debits and holds take from lots, soonest-expiring first (never-expiring last), then oldest,
//! and keep the allocation, so that each can be undone lot by lot.
//!
//! What holds after every command, and is a CHECK in every store:
//!
//! ```text
//! account: total_points = available + frozen + used + expired + revoked        all >= 0
//! lot:     points = remaining + held + used + expired + revoked + moved        all >= 0
//! account.available = sum of its lots' remaining; account.frozen = sum of held; total_points = sum of (points - moved)
//! ```
//!
//! Expiry is a predicate first: a lot past `expires_at`, or a hold past its deadline, is judged as such at once. It is a
//! posting second: the first command that touches the account, or the sweep, writes it ([`settle`]). So a balance written
//! in a transaction is always the spendable one. Lots under a hold are protected until the hold ends.
//!
//! A grant that becomes available later ([`Lot::available_from`]) is set aside at once by a hold that ends by itself at that
//! time: a *pending* hold. Until then its points are frozen, and no command can spend or release them; a claw-back takes
//! them first. So no identity, no sweep and no index knows of a second kind of balance.
//!
//! Points may expire by inactivity: their lots' ends move with what the member does ([`Lot::idle_days`]), never to earlier.
//!
//! Points move between members by [`transfer`] and [`merge`]: parts of lots leave one account (`moved`) and become lots of the
//! other with the expiry they had. A line of type TRANSFER on each side names the other.
//!
//! Deliberately absent: a negative balance. What a claw-back cannot take becomes `debt`, which later grants settle first, or is
//! forgiven, as the tenant's rules say ([`DebtPolicy`]).

mod adjustment;
mod earned;
mod idle;
mod import;
mod ledger;
mod reminder;
mod reversal;
mod rule;
mod transfer;

pub(crate) use adjustment::refuse_unapproved;
pub use adjustment::{Adjustment, AdjustmentRequest, AdjustmentStatus, adjust, approve, reject};
pub use earned::Earned;
pub(crate) use idle::{life, require_activity};
pub use import::{
    Columns, Imported, ImportedAccount, ImportedAction, ImportedStep, MAX_IMPORTED_STEPS, Rehearsal, import, rehearse,
};
pub use ledger::{Spendable, capture, debit, grant, hold, release, settle, spendable};
pub(crate) use ledger::{check_room, debit_points, grant_points, refuse_merged, require_lots};
pub use reminder::{ExpiryPlace, MAX_REMINDER_DAYS, MAX_REMINDERS, ReminderPage, remind};
pub use reversal::reverse;
pub use rule::{
    Campaign, CheckIn, DebtPolicy, Earn, MAX_CAMPAIGN_CONDITIONS, MAX_CAMPAIGN_PERCENT, MAX_CAMPAIGNS, PointsRule,
    PointsValidity, Redeem, RedeemLimit, StreakBonus,
};
pub use transfer::{Transfer, merge, reverse_transfer, transfer};

use serde::{Deserialize, Serialize};

use crate::id::{HoldId, LotId, MemberId, TransactionId};
use crate::time::Timestamp;

/// The most points one command may move.
pub const MAX_POINTS: i64 = 1_000_000_000_000_000;
/// The most points an account may earn in its life; half the range of `i64`, so that no sum of two can wrap.
pub const MAX_TOTAL_POINTS: i64 = 1 << 62;

/// The head of a member's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub member_id: MemberId,
    /// Lifetime earned, with what other members gave and without what they got; refunds never raise it.
    pub total_points: i64,
    pub available: i64,
    pub frozen: i64,
    pub used: i64,
    pub expired: i64,
    pub revoked: i64,
    /// Owed after a claw-back that found too little.
    pub debt: i64,
    /// The sequence of the last transaction.
    pub sequence: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Closed: everything it had, or may still get back, belongs to this member.
    pub merged_into: Option<MemberId>,
    /// By orders, in the latest day, week and month with such a grant.
    pub earned: Earned,
    /// Until when the ends of its idle lots are where activity has moved them to; the first activity from then on moves them
    /// again. `None`: it has no idle lots that are open and alive.
    pub idle_moved_until: Option<Timestamp>,
}

impl Account {
    /// The account of a member never seen.
    pub fn empty(member_id: MemberId, at: Timestamp) -> Account {
        Account {
            member_id,
            total_points: 0,
            available: 0,
            frozen: 0,
            used: 0,
            expired: 0,
            revoked: 0,
            debt: 0,
            sequence: 0,
            created_at: at,
            updated_at: at,
            merged_into: None,
            earned: Earned::default(),
            idle_moved_until: None,
        }
    }
}

/// Points that came in together and expire together. A grant's lot, and a grace lot, bear the id of the transaction that made
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    pub id: LotId,
    pub points: i64,
    pub remaining: i64,
    pub held: i64,
    pub used: i64,
    pub expired: i64,
    pub revoked: i64,
    /// Went on in another lot: a refund's grace lot, because this one had expired, or a lot of another member.
    pub moved: i64,
    pub available_from: Timestamp,
    /// [`Timestamp::NEVER`] when it does not expire.
    pub expires_at: Timestamp,
    /// An idle lot, one that expires by inactivity: an activity of the member moves its end to that of the day that comes so
    /// many days later, unless it has ended.
    pub idle_days: Option<u32>,
    /// The transaction that made it.
    pub transaction_id: TransactionId,
    pub created_at: Timestamp,
}

impl Lot {
    /// The order in which lots are spent.
    pub fn spending_order(&self) -> (Timestamp, Timestamp, LotId) {
        (self.expires_at, self.created_at, self.id)
    }

    /// Whether anything is left or held.
    pub fn is_open(&self) -> bool {
        self.remaining > 0 || self.held > 0
    }

    pub fn is_spendable_at(&self, at: Timestamp) -> bool {
        self.available_from <= at && at < self.expires_at
    }
}

/// What a transaction or a hold took from, or gave to, one lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    #[serde(rename = "l")]
    pub lot_id: LotId,
    #[serde(rename = "p")]
    pub points: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TransactionType {
    EarnOrder,
    EarnCheckin,
    EarnTask,
    EarnAdmin,
    UseOrder,
    UseCoupon,
    UseProduct,
    Hold,
    Release,
    Expire,
    Refund,
    Clawback,
    DeductAdmin,
    Transfer,
}

impl TransactionType {
    pub const ALL: [TransactionType; 14] = [
        TransactionType::EarnOrder,
        TransactionType::EarnCheckin,
        TransactionType::EarnTask,
        TransactionType::EarnAdmin,
        TransactionType::UseOrder,
        TransactionType::UseCoupon,
        TransactionType::UseProduct,
        TransactionType::Hold,
        TransactionType::Release,
        TransactionType::Expire,
        TransactionType::Refund,
        TransactionType::Clawback,
        TransactionType::DeductAdmin,
        TransactionType::Transfer,
    ];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            TransactionType::EarnOrder => "EARN_ORDER",
            TransactionType::EarnCheckin => "EARN_CHECKIN",
            TransactionType::EarnTask => "EARN_TASK",
            TransactionType::EarnAdmin => "EARN_ADMIN",
            TransactionType::UseOrder => "USE_ORDER",
            TransactionType::UseCoupon => "USE_COUPON",
            TransactionType::UseProduct => "USE_PRODUCT",
            TransactionType::Hold => "HOLD",
            TransactionType::Release => "RELEASE",
            TransactionType::Expire => "EXPIRE",
            TransactionType::Refund => "REFUND",
            TransactionType::Clawback => "CLAWBACK",
            TransactionType::DeductAdmin => "DEDUCT_ADMIN",
            TransactionType::Transfer => "TRANSFER",
        }
    }

    pub fn parse(text: &str) -> Option<TransactionType> {
        TransactionType::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// A type a grant may carry.
    pub fn is_earn(self) -> bool {
        use TransactionType::{EarnAdmin, EarnCheckin, EarnOrder, EarnTask};
        matches!(self, EarnOrder | EarnCheckin | EarnTask | EarnAdmin)
    }

    /// A type a debit may carry.
    pub fn is_debit(self) -> bool {
        use TransactionType::{DeductAdmin, UseCoupon, UseOrder, UseProduct};
        matches!(self, UseOrder | UseCoupon | UseProduct | DeductAdmin)
    }

    /// A type only an operator may ask for.
    pub fn is_administrative(self) -> bool {
        matches!(self, TransactionType::EarnAdmin | TransactionType::DeductAdmin)
    }
}

/// One line of a member's ledger. Never changed once written. The short serde names keep recorded outcomes small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    #[serde(rename = "i")]
    pub id: TransactionId,
    #[serde(rename = "m")]
    pub member_id: MemberId,
    /// 1 for the account's first transaction, without gaps.
    #[serde(rename = "n")]
    pub sequence: i64,
    #[serde(rename = "t")]
    pub kind: TransactionType,
    /// Signed. The change of `available`, except for a capture, which takes points that a hold had already taken out.
    #[serde(rename = "p")]
    pub points: i64,
    #[serde(rename = "b")]
    pub balance_before: i64,
    #[serde(rename = "a")]
    pub balance_after: i64,
    #[serde(rename = "f")]
    pub frozen_after: i64,
    #[serde(rename = "d")]
    pub debt_after: i64,
    /// Of a claw-back: what was to be taken, was not there, and is not owed either.
    #[serde(rename = "g", skip_serializing_if = "is_zero", default)]
    pub points_forgiven: i64,
    #[serde(rename = "r", skip_serializing_if = "Option::is_none", default)]
    pub reference: Option<String>,
    #[serde(rename = "k", skip_serializing_if = "Option::is_none", default)]
    pub remark: Option<String>,
    #[serde(rename = "h", skip_serializing_if = "Option::is_none", default)]
    pub hold_id: Option<HoldId>,
    /// The transaction this one undoes, wholly or in part.
    #[serde(rename = "u", skip_serializing_if = "Option::is_none", default)]
    pub reverses_id: Option<TransactionId>,
    /// Of a transfer: the line on the other member's account.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none", default)]
    pub counterpart_id: Option<TransactionId>,
    /// The lot a credit made.
    #[serde(rename = "o", skip_serializing_if = "Option::is_none", default)]
    pub lot_id: Option<LotId>,
    /// Lot by lot, what a debit or a transfer took, or a refund or a transfer gave.
    #[serde(rename = "l", skip_serializing_if = "Vec::is_empty", default)]
    pub allocations: Vec<Allocation>,
    /// Whether an order of ours made it, which alone may undo it.
    #[serde(rename = "bo", skip_serializing_if = "std::ops::Not::not", default)]
    pub by_order: bool,
    /// The version of the tenant's rules that was asked whether, and how, it may be made: of a claw-back of a grant, and of points
    /// that an operator gave or took. None was asked of an account that was imported.
    #[serde(rename = "v", skip_serializing_if = "Option::is_none", default)]
    pub rules_version: Option<i64>,
    /// When a credit expires; of an idle lot, as it was then.
    #[serde(rename = "e", skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
    #[serde(rename = "at")]
    pub occurred_at: Timestamp,
    #[serde(rename = "rt")]
    pub recorded_at: Timestamp,
    /// What the account's other columns are after a line whose sequence is a multiple of [`MILESTONE`]: whoever adds up the
    /// ledger to some line begins at the milestone before it.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none", default)]
    pub totals: Option<Totals>,
}

/// From one milestone of an account's ledger to the next.
pub const MILESTONE: i64 = 32;

/// The columns of an account that its lines do not bear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    #[serde(rename = "t")]
    pub total_points: i64,
    #[serde(rename = "u")]
    pub used: i64,
    #[serde(rename = "e")]
    pub expired: i64,
    #[serde(rename = "r")]
    pub revoked: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(points: &i64) -> bool {
    *points == 0
}

impl Transaction {
    /// How many points can be undone in all: the size of a grant, a debit or a transfer.
    pub fn reversible_points(&self) -> i64 {
        let can_be_undone = self.kind.is_earn() || self.kind.is_debit() || self.kind == TransactionType::Transfer;
        if can_be_undone { self.points.abs() } else { 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HoldStatus {
    Open,
    /// Captured, wholly or in part; the rest was released.
    Captured,
    Released,
    /// Released by its deadline.
    Expired,
}

impl HoldStatus {
    pub const ALL: [HoldStatus; 4] =
        [HoldStatus::Open, HoldStatus::Captured, HoldStatus::Released, HoldStatus::Expired];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            HoldStatus::Open => "OPEN",
            HoldStatus::Captured => "CAPTURED",
            HoldStatus::Released => "RELEASED",
            HoldStatus::Expired => "EXPIRED",
        }
    }

    pub fn parse(text: &str) -> Option<HoldStatus> {
        HoldStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Points set aside for an order. It ends once: captured, released or expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    #[serde(rename = "i")]
    pub id: HoldId,
    #[serde(rename = "m")]
    pub member_id: MemberId,
    #[serde(rename = "p")]
    pub points: i64,
    #[serde(rename = "c")]
    pub captured: i64,
    #[serde(rename = "e")]
    pub released: i64,
    #[serde(rename = "s")]
    pub status: HoldStatus,
    #[serde(rename = "r", skip_serializing_if = "Option::is_none", default)]
    pub reference: Option<String>,
    #[serde(rename = "k", skip_serializing_if = "Option::is_none", default)]
    pub remark: Option<String>,
    /// The deadline; [`Timestamp::NEVER`] when it has none.
    #[serde(rename = "x")]
    pub expires_at: Timestamp,
    /// Whether an order of ours holds them, which alone may end it.
    #[serde(rename = "b", skip_serializing_if = "std::ops::Not::not", default)]
    pub by_order: bool,
    #[serde(rename = "l")]
    pub allocations: Vec<Allocation>,
    #[serde(rename = "a")]
    pub created_at: Timestamp,
    #[serde(rename = "z", skip_serializing_if = "Option::is_none", default)]
    pub closed_at: Option<Timestamp>,
    /// Keeps a grant until its points become available; ends by its deadline or with the grant's reversal, by nothing else.
    #[serde(rename = "w", skip_serializing_if = "std::ops::Not::not", default)]
    pub pending: bool,
}

impl Hold {
    pub fn is_overdue(&self, at: Timestamp) -> bool {
        self.status == HoldStatus::Open && self.expires_at <= at
    }

    /// Keeps this lot's points until they become available.
    pub fn keeps(&self, lot_id: LotId) -> bool {
        self.pending && self.status == HoldStatus::Open && self.allocations.iter().any(|part| part.lot_id == lot_id)
    }
}
