//! The caller's "this request, once": its key and the request it came with, both as digests.

use axum::http::request::Parts;
use scrip_domain::Idempotency;
use sha2::{Digest, Sha256};

use super::problem::Problem;

pub const HEADER: &str = "idempotency-key";
const LONGEST: usize = 128;

/// The request's idempotency, when it has a key.
///
/// # Errors
/// A malformed key is a bad field.
pub fn of_request(parts: &Parts, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    Ok(begin(parts)?.map(|mut fingerprint| {
        fingerprint.update(body);
        fingerprint.finish()
    }))
}

/// The idempotency of a request whose body is still on its way, when it has a key.
///
/// # Errors
/// A malformed key is a bad field.
pub fn begin(parts: &Parts) -> Result<Option<Fingerprint>, Problem> {
    let Some(key) = parts.headers.get(HEADER) else { return Ok(None) };
    if !is_key(key.as_bytes()) {
        return Err(Problem::field("Idempotency-Key", "is malformed", "Send 1-128 printable ASCII characters."));
    }
    let request = Sha256::new()
        .chain_update(parts.method.as_str())
        .chain_update(b"\n")
        .chain_update(parts.uri.path())
        .chain_update(b"\n");
    Ok(Some(Fingerprint { key: digest(Sha256::new().chain_update(key)), request }))
}

/// A key, and the digest of as much of its request as has come.
#[derive(Clone)]
pub struct Fingerprint {
    key: [u8; 16],
    request: Sha256,
}

impl Fingerprint {
    pub fn key(&self) -> [u8; 16] {
        self.key
    }

    pub fn update(&mut self, piece: &[u8]) {
        self.request.update(piece);
    }

    pub fn finish(self) -> Idempotency {
        Idempotency { key: self.key, fingerprint: digest(self.request) }
    }
}

/// That of a line of a batch.
pub fn of_line(key: &str, line: &[u8]) -> Idempotency {
    let fingerprint = digest(Sha256::new().chain_update(b"LINE\n").chain_update(line));
    Idempotency { key: digest(Sha256::new().chain_update(key)), fingerprint }
}

pub fn is_key(key: &[u8]) -> bool {
    (1..=LONGEST).contains(&key.len()) && key.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The first half of the digest: 128 bits keep accidents away, and no one gains by forging his own key.
fn digest(hasher: Sha256) -> [u8; 16] {
    let full: [u8; 32] = hasher.finalize().into();
    std::array::from_fn(|index| full[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str, key: &str, body: &str) -> Option<Idempotency> {
        let request = axum::http::Request::builder().method(method).uri(path).header(HEADER, key).body(()).unwrap();
        of_request(&request.into_parts().0, body.as_bytes()).ok().flatten()
    }

    #[test]
    fn the_fingerprint_covers_method_path_and_body() {
        let first = of("POST", "/a", "k", "{}").unwrap();
        assert_eq!(of("POST", "/a", "k", "{}"), Some(first));
        for (method, path, body) in [("PATCH", "/a", "{}"), ("POST", "/b", "{}"), ("POST", "/a", "{ }")] {
            let other = of(method, path, "k", body).unwrap();
            assert_eq!(other.key, first.key);
            assert_ne!(other.fingerprint, first.fingerprint);
        }
        assert_ne!(of("POST", "/a", "l", "{}").unwrap().key, first.key);
        assert_eq!(of_line("k", b"{}").key, first.key);
    }

    #[test]
    fn keys_are_short_and_printable() {
        assert!(is_key(b"k") && is_key(&[b'x'; 128]) && is_key(b"a b"));
        assert!(!is_key(b"") && !is_key(&[b'x'; 129]) && !is_key("é".as_bytes()) && !is_key(b"a\tb"));
    }
}
