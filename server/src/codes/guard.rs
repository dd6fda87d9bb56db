//! Against guessing: how many codes that are not accepted a member, an API key and a tenant may send.
//!
//! Each has an allowance that fills up again at a steady rate (the generic cell rate algorithm, as in `http::quota`). A claim
//! takes from all three before anything is looked up and gives back when its code is good, so many guesses at once get no
//! further than one after the other, and a good code costs nothing. Whoever has nothing left is told when to come back and
//! learns nothing of the code. The tenant's rate is the one by which the length of unique codes is reckoned
//! ([`super::text::GUESSES_PER_SECOND`]).
//!
//! Each node counts for itself: with more of them, so many times more can be guessed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use scrip_domain::{KeyId, MemberId, TenantId};

use super::text::GUESSES_PER_SECOND;

/// Members, keys and tenants remembered; a forgotten one starts with a full allowance.
const CAPACITY: usize = 200_000;

#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Misses at once.
    burst: i64,
    /// Until one more is allowed.
    every: Duration,
}

const OF_MEMBER: Rate = Rate { burst: 10, every: Duration::from_secs(60) };
const OF_KEY: Rate = Rate { burst: 3_000, every: Duration::from_millis(200) };
const OF_TENANT: Rate = Rate { burst: 6_000, every: Duration::from_millis(1_000 / GUESSES_PER_SECOND as u64) };

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Tenant(TenantId),
    Key(KeyId),
    Member(TenantId, MemberId),
}

pub struct Guard {
    /// When everything taken so far would have been taken at the steady rate, in nanoseconds since `started`.
    arrivals: Cache<Who, Arc<AtomicI64>>,
    started: Instant,
}

impl Default for Guard {
    fn default() -> Self {
        Guard { arrivals: Cache::new(CAPACITY), started: Instant::now() }
    }
}

/// What a claim has taken; kept when its code was no good.
pub struct Attempt(Vec<(Arc<AtomicI64>, i64)>);

impl Attempt {
    /// Gives back what was taken: the code is good.
    pub fn give_back(self) {
        for (arrival, cost_ns) in self.0 {
            arrival.fetch_sub(cost_ns, Ordering::Relaxed);
        }
    }
}

impl Guard {
    /// Takes one guess of each allowance.
    ///
    /// # Errors
    /// How long to wait when one of them is used up; nothing is taken then.
    pub fn take(&self, tenant: TenantId, key: KeyId, member: &MemberId) -> Result<Attempt, Duration> {
        let now_ns = i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.take_at(tenant, key, member, now_ns)
    }

    fn take_at(&self, tenant: TenantId, key: KeyId, member: &MemberId, now_ns: i64) -> Result<Attempt, Duration> {
        let all = [
            (Who::Member(tenant, member.clone()), OF_MEMBER),
            (Who::Key(key), OF_KEY),
            (Who::Tenant(tenant), OF_TENANT),
        ];
        let mut taken = Attempt(Vec::with_capacity(all.len()));
        for (who, rate) in all {
            let cost_ns = i64::try_from(rate.every.as_nanos()).unwrap_or(i64::MAX);
            let most_ns = cost_ns.saturating_mul(rate.burst - 1);
            let arrival = self.arrivals.get_or_insert_with(&who, || Ok::<_, ()>(Arc::default())).unwrap_or_default();
            let moved = arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrival_ns| {
                let from_ns = arrival_ns.max(now_ns);
                (from_ns - now_ns <= most_ns).then(|| from_ns.saturating_add(cost_ns))
            });
            match moved {
                Ok(_) => taken.0.push((arrival, cost_ns)),
                Err(arrival_ns) => {
                    taken.give_back();
                    return Err(Duration::from_nanos((arrival_ns - now_ns - most_ns).max(0).unsigned_abs()));
                }
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    struct Guesser(Guard);

    impl Guesser {
        fn guess(&self, tenant: u128, key: u128, member: &str, now_ns: i64) -> Result<Attempt, Duration> {
            let (tenant, key) = (TenantId(uuid::Uuid::from_u128(tenant)), KeyId(uuid::Uuid::from_u128(key)));
            self.0.take_at(tenant, key, &member.parse().expect("a member"), now_ns)
        }

        fn misses(&self, count: usize, tenant: u128, key: u128, member: &str, now_ns: i64) -> usize {
            (0..count).filter(|_| self.guess(tenant, key, member, now_ns).is_ok()).count()
        }
    }

    #[test]
    fn a_member_has_ten_misses_and_then_one_a_minute() {
        let guesser = Guesser(Guard::default());
        assert_eq!(guesser.misses(50, 1, 1, "m", SECOND), 10);
        assert_eq!(guesser.guess(1, 1, "m", SECOND).err(), Some(Duration::from_secs(60)));
        assert_eq!(guesser.misses(50, 1, 1, "m", 61 * SECOND), 1);
        assert_eq!(guesser.misses(50, 1, 1, "other", SECOND), 10, "another member has an allowance of its own");
        assert_eq!(guesser.misses(50, 2, 2, "m", SECOND), 10, "and so has the same name at another shop");
    }

    #[test]
    fn good_codes_cost_nothing() {
        let guesser = Guesser(Guard::default());
        for _ in 0..1_000 {
            guesser.guess(1, 1, "m", SECOND).expect("an allowance").give_back();
        }
        assert_eq!(guesser.misses(50, 1, 1, "m", SECOND), 10);
    }

    #[test]
    fn many_guesses_at_once_get_no_further() {
        let guesser = Guesser(Guard::default());
        let under_way: Vec<_> = (0..50).map(|_| guesser.guess(1, 1, "m", SECOND)).collect();
        assert_eq!(under_way.iter().filter(|attempt| attempt.is_ok()).count(), 10);
    }

    #[test]
    fn a_key_and_a_tenant_are_bounded_whatever_members_they_name() {
        let guesser = Guesser(Guard::default());
        let by_key = (0..4_000).filter(|n| guesser.guess(1, 1, &format!("m{n}"), SECOND).is_ok()).count();
        assert_eq!(by_key, 3_000);
        let by_tenant: usize = (2..6)
            .map(|key| (0..4_000).filter(|n| guesser.guess(1, key, &format!("m{key}-{n}"), SECOND).is_ok()).count())
            .sum();
        assert_eq!(by_key + by_tenant, 6_000);
        // Ten a second from then on.
        let later = (0..100).filter(|n| guesser.guess(1, 9, &format!("l{n}"), 2 * SECOND).is_ok()).count();
        assert_eq!(later, 10);
    }
}
