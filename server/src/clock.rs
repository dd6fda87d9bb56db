//! The one place that asks the operating system for the time and for randomness; everything else is handed both.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scrip_domain::{IdSeed, Timestamp};

/// The current time, to the microsecond. A clock before 1970 reads as 1970.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}

/// How long ago an instant was; zero for one to come.
pub fn since(at: Timestamp) -> Duration {
    Duration::from_micros(now().0.saturating_sub(at.0).try_into().unwrap_or(0))
}

/// A fresh seed for the ids of one command.
pub fn seed(now: Timestamp) -> IdSeed {
    IdSeed { unix_ms: (now.0 / 1000).max(0) as u64, random: rand::random() }
}
