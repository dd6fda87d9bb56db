//! Tenants and their API keys, as the rules see them.

use serde::{Deserialize, Serialize};

use crate::id::{KeyId, MemberId, TenantId};
use crate::time::Timestamp;

/// A shop: the owner of everything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    /// ISO 4217 code; amounts are in its minor unit.
    pub currency: String,
    /// IANA name; decides where a local day begins.
    pub time_zone: String,
    /// How long refunded points live when their lot has expired meanwhile, in days; 0 lets them expire at once.
    pub refund_grace_days: u32,
    pub created_at: Timestamp,
}

/// What an API key may do within its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scope {
    Member,
    Service,
    Operator,
}

impl Scope {
    pub const ALL: [Scope; 3] = [Scope::Member, Scope::Service, Scope::Operator];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Member => "MEMBER",
            Scope::Service => "SERVICE",
            Scope::Operator => "OPERATOR",
        }
    }

    pub fn parse(text: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// An API key without its secret, of which only a SHA-256 digest is ever kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: KeyId,
    pub tenant_id: TenantId,
    pub name: String,
    pub scope: Scope,
    /// Set for, and only for, `Scope::Member`.
    pub member_id: Option<MemberId>,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// The most points one administrative grant or debit by this key may move; `None` is unlimited.
    #[serde(default)]
    pub adjustment_limit: Option<i64>,
}

impl ApiKey {
    pub fn is_valid_at(&self, at: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| at < end)
    }
}
