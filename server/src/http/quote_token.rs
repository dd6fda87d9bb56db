//! Quotes that can be relied on for a while: a token says by which rules and at what time the price was made, and for what, and a
//! reservation that brings it gets that price though rules or the hour have changed since.
//!
//! Nothing is stored. The token is 41 bytes and a truncated HMAC-SHA256 over them and the tenant, in base64url; what was asked for
//! is in it as a digest, so it fits no other goods, coupons, points or member. The key follows from the platform key, which all
//! nodes share. It promises a price, not that coupons and points are still there.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use scrip_domain::order::Quoted;
use scrip_domain::pricing::Basket;
use scrip_domain::{CouponId, MemberId, TenantId, Timestamp};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// How long a quote holds.
pub const VALID_MINUTES: i64 = 15;
const FORM: u8 = 1;
const LENGTH: usize = 41;
const MAC: usize = 16;

pub struct QuoteKey(Hmac<Sha256>);

impl QuoteKey {
    pub fn new(platform_digest: &[u8; 32]) -> Self {
        let mut derive = hmac(platform_digest);
        derive.update(b"quote tokens");
        let key: [u8; 32] = derive.finalize().into_bytes().into();
        QuoteKey(hmac(&key))
    }

    fn mac(&self, tenant: TenantId, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(tenant.0.as_bytes());
        mac.update(bytes);
        mac
    }

    /// The token of a quote for what `asked` is the digest of.
    pub fn sign(&self, tenant: TenantId, quoted: Quoted, asked: [u8; 16]) -> String {
        let mut bytes = Vec::with_capacity(LENGTH + MAC);
        bytes.push(FORM);
        for number in [quoted.rules_version, quoted.at.0, quoted.expires_at.0] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(asked);
        let mac: [u8; 32] = self.mac(tenant, &bytes).finalize().into_bytes().into();
        bytes.extend(&mac[..MAC]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What the token promises, when it is one of ours, of this tenant, and for what is asked.
    pub fn read(&self, tenant: TenantId, token: &str, asked: [u8; 16]) -> Option<Quoted> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok().filter(|bytes| bytes.len() == LENGTH + MAC)?;
        let (said, mac) = bytes.split_at(LENGTH);
        self.mac(tenant, said).verify_truncated_left(mac).ok()?;
        let number = |at: usize| said.get(at..at + 8)?.try_into().ok().map(i64::from_be_bytes);
        let quoted =
            Quoted { rules_version: number(1)?, at: Timestamp(number(9)?), expires_at: Timestamp(number(17)?) };
        (said[0] == FORM && said[25..] == asked).then_some(quoted)
    }
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes any key")
}

/// A digest of what is bought, by whom and with what; the order of coupons does not count.
pub fn asked(member: &MemberId, basket: &Basket, coupon_ids: impl Iterator<Item = CouponId>, points: i64) -> [u8; 16] {
    let mut coupons: Vec<CouponId> = coupon_ids.collect();
    coupons.sort_unstable();
    let sorted = |attributes: &serde_json::Map<String, Value>| -> BTreeMap<String, Value> {
        attributes.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let all = (
        member,
        &basket.lines,
        basket.freight,
        &basket.member_level,
        sorted(&basket.attributes),
        sorted(&basket.member_attributes),
        coupons,
        points,
    );
    let text = serde_json::to_vec(&all).expect("plain data has a JSON form");
    let digest: [u8; 32] = Sha256::digest(&text).into();
    digest[..16].try_into().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_its_tenant_key_and_request_and_of_no_other() {
        let key = QuoteKey::new(&[1; 32]);
        let (tenant, other) = (TenantId(uuid::Uuid::from_u128(1)), TenantId(uuid::Uuid::from_u128(2)));
        let quoted = Quoted { rules_version: 3, at: Timestamp(5), expires_at: Timestamp(7) };
        let token = key.sign(tenant, quoted, [9; 16]);
        assert_eq!(token.len(), 76);
        assert_eq!(key.read(tenant, &token, [9; 16]), Some(quoted));
        assert_eq!(key.read(tenant, &token, [8; 16]), None, "other goods");
        assert_eq!(key.read(other, &token, [9; 16]), None, "another tenant");
        assert_eq!(QuoteKey::new(&[2; 32]).read(tenant, &token, [9; 16]), None, "another installation");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap();
        for place in 0..bytes.len() {
            let mut spoilt = bytes.clone();
            spoilt[place] ^= 1;
            assert_eq!(key.read(tenant, &BASE64_URL_SAFE_NO_PAD.encode(spoilt), [9; 16]), None, "byte {place}");
        }
        for bad in ["", "x", "=====", &token[1..], &(token.clone() + "A")] {
            assert_eq!(key.read(tenant, bad, [9; 16]), None, "{bad}");
        }
    }
}
