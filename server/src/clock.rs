//! The one place that asks the operating system for the time and for randomness, and for where a local day begins; everything
//! else is handed these.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use scrip_domain::time::LocalDay;
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

/// The day that an instant belongs to in a time zone, midnight to midnight; `None` for an unknown zone.
pub fn local_day(zone: &str, at: Timestamp) -> Option<LocalDay> {
    let instant = jiff::Timestamp::from_microsecond(at.0).ok()?;
    let start = instant.to_zoned(TimeZone::get(zone).ok()?).start_of_day().ok()?;
    let end = start.tomorrow().ok()?.start_of_day().ok()?;
    let micros = |zoned: jiff::Zoned| Timestamp(zoned.timestamp().as_microsecond());
    Some(LocalDay { starts_at: micros(start), ends_at: micros(end) })
}

/// A fresh seed for the ids of one command.
pub fn seed(now: Timestamp) -> IdSeed {
    IdSeed { unix_ms: (now.0 / 1000).max(0) as u64, random: rand::random() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_microsecond())
    }

    #[test]
    fn days_are_as_long_as_clocks_make_them() {
        for (zone, instant, starts_at, ends_at) in [
            ("UTC", "2026-03-01T23:59:59.999999Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
            ("Asia/Shanghai", "2026-03-01T16:00:00Z", "2026-03-01T16:00:00Z", "2026-03-02T16:00:00Z"),
            // 23 hours when clocks go forward, 25 when they go back.
            ("Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            // A day that has no midnight begins at one.
            ("America/Santiago", "2026-09-06T12:00:00Z", "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"),
        ] {
            let day = local_day(zone, at(instant)).expect("a day");
            assert_eq!((day.starts_at, day.ends_at), (at(starts_at), at(ends_at)), "{zone} {instant}");
            assert!(day.contains(at(instant)) && !day.contains(day.ends_at));
        }
        assert_eq!(local_day("Mars/Olympus", Timestamp(0)), None);
    }
}
