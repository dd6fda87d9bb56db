//! Typed identifiers. In the API an id is a prefix and 32 hexadecimal digits; in a store it is a 16-byte UUID.
//!
//! Ids are UUIDv7 (RFC 9562), so that primary keys grow to the right and B-trees stay dense. They are made from an
//! [`IdSeed`] handed in with each command: deciding the same command twice gives the same ids, which makes a decision
//! repeatable after a conflict and a batch comparable with its commands one by one.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId {
    pub expected: &'static str,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for InvalidId {}

macro_rules! id_type {
    ($name:ident, $prefix:literal, $what:literal) => {
        #[doc = concat!("Identifies ", $what, ": `", $prefix, "` and 32 hexadecimal digits.")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = [0u8; uuid::fmt::Simple::LENGTH];
                f.write_str($prefix)?;
                f.write_str(self.0.as_simple().encode_lower(&mut buffer))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix($prefix)
                    .filter(|digits| digits.len() == 32)
                    .and_then(|digits| Uuid::try_parse(digits).ok())
                    .map($name)
                    .ok_or(InvalidId { expected: concat!($prefix, " and 32 hexadecimal digits") })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(TenantId, "ten_", "a tenant");
id_type!(KeyId, "key_", "an API key");
id_type!(TemplateId, "tpl_", "a coupon template");
id_type!(CouponId, "cpn_", "a member's coupon");
id_type!(CodeBatchId, "cdb_", "a batch of coupon codes");
id_type!(HoldId, "hold_", "a points hold");
id_type!(TransactionId, "ptx_", "a points transaction");
id_type!(LotId, "lot_", "a points lot");
id_type!(OrderUid, "ord_", "an order, beside the caller's own id of it");
id_type!(CompensationId, "cmp_", "a compensation case");
id_type!(AdjustmentId, "adj_", "an adjustment that needs an approval");
id_type!(EventId, "evt_", "an event");
id_type!(JobId, "job_", "a job");
id_type!(WebhookId, "whk_", "a webhook");
id_type!(BulkId, "blk_", "a bulk: many rows worked off in the background");
id_type!(TaskId, "task_", "a points task");

/// The longest id of a caller, in bytes.
pub const MAX_CALLER_ID_BYTES: usize = 64;

/// True for what a caller may use as an id of its own: 1 to 64 printable ASCII characters without spaces.
fn is_caller_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_CALLER_ID_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

macro_rules! caller_id_type {
    ($name:ident, $what:literal) => {
        #[doc = concat!("Names ", $what, "; chosen by the caller, 1-64 printable ASCII characters without spaces.")]
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// Maps keyed by ids are searched by texts; both hash and compare alike.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if is_caller_id(text) {
                    Ok($name(text.into()))
                } else {
                    Err(InvalidId { expected: "1-64 printable ASCII characters without spaces" })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

caller_id_type!(MemberId, "a member");
caller_id_type!(OrderId, "an order");
caller_id_type!(RefundId, "a refund of an order");
caller_id_type!(TaskKey, "a points task");
caller_id_type!(ProgramCode, "a program of a tenant");
caller_id_type!(CompletionId, "one report of a points task");

impl TemplateId {
    /// Whether [`Ids::draw`] made it, which never makes it again. An import derives it from the origin's.
    pub fn is_drawn(self) -> bool {
        self.0.get_version_num() == 7
    }
}

/// What the ids of one command are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdSeed {
    /// Milliseconds since 1970, the time part of every id.
    pub unix_ms: u64,
    /// Fresh random bits for each command.
    pub random: u128,
}

/// Hands out the ids of one command, always the same ones for the same seed.
#[derive(Debug)]
pub struct Ids {
    seed: IdSeed,
    taken: u32,
}

impl Ids {
    pub fn new(seed: IdSeed) -> Self {
        Ids { seed, taken: 0 }
    }

    /// The next id: UUIDv7 with 74 bits drawn from the seed.
    ///
    /// SplitMix64 (Steele, Lea, Flood 2014) spreads the seed over the ids of a command; distinct commands differ by their
    /// 128 random bits. The counter sits in `rand_a`, so the first 4,096 ids of a command stay in the order they were made.
    pub fn draw(&mut self) -> Uuid {
        let high = (self.seed.random >> 64) as u64;
        let low = self.seed.random as u64;
        let mixed = split_mix(high ^ split_mix(low.wrapping_add(u64::from(self.taken))));
        let mut bytes = [0u8; 10];
        bytes[..2].copy_from_slice(&(self.taken as u16).to_be_bytes());
        bytes[2..].copy_from_slice(&mixed.to_be_bytes());
        self.taken = self.taken.wrapping_add(1);
        uuid::Builder::from_unix_timestamp_millis(self.seed.unix_ms, &bytes).into_uuid()
    }
}

fn split_mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_command_are_distinct_ordered_and_repeatable() {
        let seed = IdSeed { unix_ms: 1_700_000_000_000, random: 42 };
        let draw = || {
            let mut ids = Ids::new(seed);
            (0..100).map(|_| ids.draw()).collect::<Vec<_>>()
        };
        let ids = draw();
        assert_eq!(ids, draw());
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "in the order they were made");
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        let other = Ids::new(IdSeed { random: 43, ..seed }).draw();
        assert!(!ids.contains(&other));
    }

    #[test]
    fn an_id_reads_back_and_refuses_other_prefixes() {
        let id = CouponId(Uuid::from_u128(7));
        assert_eq!(id.to_string().parse::<CouponId>(), Ok(id));
        assert!(id.to_string().parse::<TemplateId>().is_err());
        for bad in ["", "cpn_", "cpn_00", "cpn_zz000000000000000000000000000000"] {
            assert!(bad.parse::<CouponId>().is_err(), "{bad}");
        }
        assert!("cpn_00000000-0000-0000-0000-000000000000".parse::<CouponId>().is_err());
    }

    #[test]
    fn caller_ids_are_short_printable_ascii() {
        assert!("m-1:ü".parse::<MemberId>().is_err());
        assert!("a b".parse::<MemberId>().is_err());
        assert!("".parse::<OrderId>().is_err());
        assert!("x".repeat(65).parse::<OrderId>().is_err());
        assert!("x".repeat(64).parse::<OrderId>().is_ok());
    }
}
