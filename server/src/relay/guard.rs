//! Where a webhook may send to. Its URL is written by a tenant, its requests leave from inside our network: without a guard,
//! a tenant could reach what only we can reach (server-side request forgery).
//!
//! The guard stands in two places. [`Guard::check`] reads the URL, when it is saved and again before each request: the scheme,
//! the port, no credentials, no address that is not public in whatever notation. [`Resolve`] hands the connector only the
//! public ones of a name's addresses, and the connector connects to those and asks nobody again: what a name server answers a
//! moment later (DNS rebinding) is never used. Redirects are not followed, and no proxy of the environment is asked.
//!
//! Deliberately absent: a list of bad names. What a name stands for decides, at the moment of connecting.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 2_048;

/// How a name is looked up: the system's resolver, or a test's.
pub type LookUp = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// What is allowed beyond public addresses over HTTPS.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Whether plain HTTP may be spoken.
    pub allow_http: bool,
    /// Names whose every address is allowed.
    pub hosts: Vec<String>,
    /// Networks that are allowed though they are not public.
    pub networks: Vec<IpNet>,
}

impl Policy {
    /// Reads entries such as `receiver.internal`, `10.1.2.3` and `fd00::/8`.
    ///
    /// # Errors
    /// The first entry that is none of these.
    pub fn new(allow_http: bool, entries: &[String]) -> Result<Policy, String> {
        let mut policy = Policy { allow_http, ..Policy::default() };
        for entry in entries {
            if let Ok(network) = entry.parse::<IpNet>() {
                policy.networks.push(network);
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                policy.networks.push(IpNet::from(address));
            } else if let Ok(Host::Domain(name)) = Host::parse(entry) {
                policy.hosts.push(name);
            } else {
                return Err(entry.clone());
            }
        }
        Ok(policy)
    }
}

/// Why a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("is no URL")]
    Unreadable,
    #[error("has more than {MAX_URL_BYTES} bytes")]
    TooLong,
    #[error("has the scheme {0}; only https is allowed here")]
    Scheme(String),
    #[error("carries a user name or a password")]
    Credentials,
    #[error("has a fragment, which no server sees")]
    Fragment,
    #[error("has the port {0}; allowed are 80, 443 and those from 1024")]
    Port(u16),
    #[error("leads to {0}, which is not a public address")]
    Private(IpAddr),
    #[error("leads to {0}, which is a name of this machine or network")]
    LocalName(String),
}

/// Judges URLs and addresses by a policy.
#[derive(Clone)]
pub struct Guard {
    policy: Arc<Policy>,
    look_up: LookUp,
}

impl Guard {
    pub fn new(policy: Policy) -> Guard {
        Guard::with_look_up(policy, Arc::new(|name| Box::pin(system_look_up(name))))
    }

    /// With another way of looking names up.
    pub fn with_look_up(policy: Policy, look_up: LookUp) -> Guard {
        Guard { policy: Arc::new(policy), look_up }
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Reads a URL that requests may be sent to, as far as its text tells.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, text: &str) -> Result<Url, Refused> {
        if text.len() > MAX_URL_BYTES {
            return Err(Refused::TooLong);
        }
        let url = Url::parse(text).map_err(|_| Refused::Unreadable)?;
        match url.scheme() {
            "https" => {}
            "http" if self.policy.allow_http => {}
            other => return Err(Refused::Scheme(other.to_owned())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        if url.fragment().is_some() {
            return Err(Refused::Fragment);
        }
        match url.host() {
            None => return Err(Refused::Unreadable),
            // The connector asks no resolver about these.
            Some(Host::Ipv4(address)) => self.check_address(IpAddr::V4(address))?,
            Some(Host::Ipv6(address)) => self.check_address(IpAddr::V6(address))?,
            Some(Host::Domain(name)) if self.is_allowed_name(name) => return Ok(url),
            Some(Host::Domain(name)) if is_local_name(name) => return Err(Refused::LocalName(name.to_owned())),
            Some(Host::Domain(_)) => {}
        }
        match url.port_or_known_default() {
            Some(80 | 443 | 1024..) => Ok(url),
            other => Err(Refused::Port(other.unwrap_or(0))),
        }
    }

    fn check_address(&self, address: IpAddr) -> Result<(), Refused> {
        if self.admits(address) { Ok(()) } else { Err(Refused::Private(address)) }
    }

    /// Whether a connection to the address may be made.
    pub fn admits(&self, address: IpAddr) -> bool {
        is_public(address) || self.policy.networks.iter().any(|network| network.contains(&address))
    }

    fn is_allowed_name(&self, name: &str) -> bool {
        self.policy.hosts.iter().any(|host| host == name.trim_end_matches('.'))
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found = (guard.look_up)(name.clone()).await?;
            let any = guard.is_allowed_name(&name);
            let allowed: Vec<SocketAddr> = found
                .iter()
                .filter(|address| any || guard.admits(**address))
                .map(|address| SocketAddr::new(*address, 0))
                .collect();
            if allowed.is_empty() {
                let why = match found.first() {
                    Some(address) => format!("{name} leads to {address}, which is not a public address"),
                    None => format!("{name} has no address"),
                };
                return Err(why.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

async fn system_look_up(name: String) -> io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
}

/// Names that never lead outside, so that a typing error is found when the URL is saved.
fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    let of = |zone: &str| name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'));
    ["localhost", "local", "internal", "localdomain", "home.arpa"].into_iter().any(of)
}

/// Whether an address belongs to the public internet, by IANA's special-purpose registries (RFC 6890 and its successors).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    const RESERVED: [(Ipv4Addr, u32); 14] = [
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        // Behind a carrier's network address translation; some clouds serve metadata there.
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 0, 0, 0), 24),
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(192, 88, 99, 0), 24),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
        // Multicast, and everything above.
        (Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    let bits = address.to_bits();
    !RESERVED.into_iter().any(|(network, length)| (bits ^ network.to_bits()) >> (32 - length) == 0)
}

/// Only global unicast, without what is set aside in it or stands for an IPv4 address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    const GLOBAL: (u128, u32) = (0x2000 << 112, 3);
    const RESERVED: [(u128, u32); 4] = [
        // Protocol assignments, Teredo and benchmarks among them.
        (0x2001 << 112, 23),
        (0x2001_0db8 << 96, 32),
        // 6to4: an IPv4 address in disguise.
        (0x2002 << 112, 16),
        (0x3fff << 112, 20),
    ];
    let bits = address.to_bits();
    let within = |(network, length): (u128, u32)| (bits ^ network) >> (128 - length) == 0;
    within(GLOBAL) && !RESERVED.into_iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow_http: bool, entries: &[&str]) -> Guard {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        Guard::new(Policy::new(allow_http, &entries).expect("a policy"))
    }

    #[test]
    fn public_addresses_are_public() {
        for text in
            ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "223.255.255.255"]
                .into_iter()
                .chain([
                    "198.17.255.255",
                    "198.20.0.0",
                    "2606:4700::1111",
                    "2a00:1450:4001::1",
                    "2001:200::1",
                    "::ffff:1.1.1.1",
                ])
        {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn special_addresses_are_not() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn a_url_is_https_to_a_public_place() {
        let guard = guard(false, &[]);
        for good in
            ["https://shop.example/hooks", "https://shop.example:8443/a?b=c", "https://1.1.1.1/", "https://例え.jp/"]
        {
            assert!(guard.check(good).is_ok(), "{good}");
        }
        let refused = |text: &str| guard.check(text).expect_err(text);
        assert_eq!(refused("http://shop.example/"), Refused::Scheme("http".into()));
        assert_eq!(refused("ftp://shop.example/"), Refused::Scheme("ftp".into()));
        assert_eq!(refused("file:///etc/passwd"), Refused::Scheme("file".into()));
        assert_eq!(refused("shop.example"), Refused::Unreadable);
        assert_eq!(refused("https://u:p@shop.example/"), Refused::Credentials);
        assert_eq!(refused("https://shop.example/#x"), Refused::Fragment);
        assert_eq!(refused("https://shop.example:22/"), Refused::Port(22));
        assert_eq!(refused("https://localhost/"), Refused::LocalName("localhost".into()));
        assert_eq!(refused("https://a.INTERNAL./"), Refused::LocalName("a.internal.".into()));
        assert_eq!(refused("https://2130706433/"), Refused::Private(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(refused(&format!("https://shop.example/{}", "x".repeat(2_048))), Refused::TooLong);
    }

    #[test]
    fn what_a_policy_names_is_allowed() {
        let guard = guard(true, &["receiver.internal", "10.1.0.0/16", "::1"]);
        for good in ["http://receiver.internal:22/", "http://10.1.2.3/", "http://[::1]:8080/"] {
            assert!(guard.check(good).is_ok(), "{good}");
        }
        for bad in ["http://10.2.0.1/", "http://127.0.0.1/", "http://other.internal/"] {
            assert!(guard.check(bad).is_err(), "{bad}");
        }
        assert_eq!(Policy::new(false, &["not a host".into()]).expect_err("no entry"), "not a host");
    }
}
