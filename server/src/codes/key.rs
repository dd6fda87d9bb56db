//! The keys that codes are hashed with, and made from.
//!
//! They live in a file of the server, never in the database: whoever reads the database alone can neither tell a code from
//! its digest nor try codes out. One key a line, `number:64 hexadecimal digits`; the one with the largest number makes new
//! batches, all of them look codes up. `scrip codes new-key` makes the file, or adds a key to it.
//!
//! The database remembers a check value of every key that was ever used, so a server with another key, or with one missing,
//! says so instead of making codes that no other server knows.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use hmac::{Hmac, KeyInit, Mac};
use scrip_domain::TenantId;
use scrip_domain::coupon::CodeDigest;
use sha2::Sha256;

type HmacSha256 = Hmac<Sha256>;

const SECRET_BYTES: usize = 32;
/// What keeps the uses of one key apart.
const DIGEST: &[u8] = b"scrip code digest\0";
const BATCH: &[u8] = b"scrip code batch\0";
const CHECK: &[u8] = b"scrip code key check\0";

/// A pseudo-random function with its key scheduled once.
#[derive(Clone)]
pub struct Keyed(HmacSha256);

impl Keyed {
    fn new(secret: &[u8]) -> Keyed {
        // HMAC takes keys of any length.
        Keyed(HmacSha256::new_from_slice(secret).expect("HMAC takes any key"))
    }

    pub fn of(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

pub struct CodeKey {
    pub id: i64,
    keyed: Keyed,
}

impl CodeKey {
    /// What is kept of a code: of its normal form, in its tenant.
    pub fn digest(&self, tenant: TenantId, normal: &str) -> CodeDigest {
        first_half(self.keyed.of(&[DIGEST, tenant.0.as_bytes(), normal.as_bytes()]))
    }

    /// What the codes of a batch are made from.
    pub fn of_batch(&self, nonce: &[u8; 16]) -> Keyed {
        Keyed::new(&self.keyed.of(&[BATCH, nonce]))
    }

    /// By which the key is recognised; it tells nothing of the key.
    pub fn check_value(&self) -> [u8; 16] {
        first_half(self.keyed.of(&[CHECK]))
    }
}

fn first_half(full: [u8; 32]) -> [u8; 16] {
    std::array::from_fn(|place| full[place])
}

/// Every key of a server, oldest first; at least one.
pub struct CodeKeys(Vec<CodeKey>);

impl CodeKeys {
    /// # Errors
    /// When the file cannot be read or is no list of keys. No error repeats what is in it.
    pub fn read(path: &Path) -> anyhow::Result<CodeKeys> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = key_of(line).with_context(|| format!("{} line {number} is no key", path.display()))?;
            ensure!(
                keys.iter().all(|known: &CodeKey| known.id != key.id),
                "{} line {number}: the number {} is there already",
                path.display(),
                key.id
            );
            keys.push(key);
        }
        ensure!(!keys.is_empty(), "{} has no key; make one with `scrip codes new-key`", path.display());
        keys.sort_unstable_by_key(|key| key.id);
        Ok(CodeKeys(keys))
    }

    /// Makes the file with one key, or adds one to it; the number of the new key.
    ///
    /// # Errors
    /// When it cannot be written, or is there but no list of keys.
    pub fn add_to(path: &Path) -> anyhow::Result<i64> {
        let id = if path.exists() { CodeKeys::read(path)?.newest().id + 1 } else { 1 };
        // Only its owner reads it.
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        let secret: [u8; SECRET_BYTES] = rand::random();
        let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        file.write_all(format!("{id}:{digits}\n").as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(id)
    }

    pub fn newest(&self) -> &CodeKey {
        self.0.last().expect("there is at least one key")
    }

    pub fn get(&self, id: i64) -> Option<&CodeKey> {
        self.0.iter().find(|key| key.id == id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &CodeKey> {
        self.0.iter()
    }
}

fn key_of(line: &str) -> anyhow::Result<CodeKey> {
    let Some((id, digits)) = line.split_once(':') else { bail!("it has no colon") };
    let id: i64 = id.trim().parse().ok().filter(|id| *id >= 1).context("its number is none from 1 on")?;
    let digits = digits.trim();
    ensure!(
        digits.len() == SECRET_BYTES * 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "it has no 64 hexadecimal digits"
    );
    let byte = |place: usize| u8::from_str_radix(&digits[place * 2..place * 2 + 2], 16);
    let secret: Vec<u8> = (0..SECRET_BYTES).map(byte).collect::<Result<_, _>>()?;
    Ok(CodeKey { id, keyed: Keyed::new(&secret) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_key_file_is_made_added_to_and_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        assert_eq!(CodeKeys::add_to(&path).expect("a key"), 1);
        let first = CodeKeys::read(&path).expect("keys").newest().check_value();
        assert_eq!(CodeKeys::add_to(&path).expect("a key"), 2);
        let keys = CodeKeys::read(&path).expect("keys");
        assert_eq!((keys.newest().id, keys.get(1).expect("the first").check_value()), (2, first));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_bad_key_file_is_refused_without_repeating_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let good = "ab".repeat(32);
        for bad in
            ["", "# nothing\n", "secretsecret", "1:secretsecret", &format!("0:{good}"), &format!("1:{good}\n1:{good}")]
        {
            std::fs::write(&path, bad).expect("a file");
            let error = format!("{:#}", CodeKeys::read(&path).err().expect(bad));
            assert!(!error.contains("secret") && !error.contains(&good), "{error}");
        }
        assert!(CodeKeys::read(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn digests_differ_by_key_tenant_and_text() {
        let keys: Vec<CodeKey> = ["1:", "2:"]
            .iter()
            .zip(["ab", "cd"])
            .map(|(id, digits)| key_of(&format!("{id}{}", digits.repeat(32))).expect("a key"))
            .collect();
        let digest = keys[0].digest(tenant(1), "ABCD");
        assert_eq!(digest, keys[0].digest(tenant(1), "ABCD"));
        assert_ne!(digest, keys[1].digest(tenant(1), "ABCD"));
        assert_ne!(digest, keys[0].digest(tenant(2), "ABCD"));
        assert_ne!(digest, keys[0].digest(tenant(1), "ABCE"));
    }
}
