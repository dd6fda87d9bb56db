//! The one place that asks the operating system for the time and for randomness, and for where local days, weeks and months begin; everything
//! else is handed these.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::ToSpan;
use jiff::tz::TimeZone;
use scrip_domain::time::{CapPeriod, LocalPeriod, LocalPeriods};
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

/// The day, week and month that an instant belongs to in a time zone, from midnight to midnight; `None` for an unknown zone.
pub fn local_periods(zone: &str, at: Timestamp) -> Option<LocalPeriods> {
    let instant = jiff::Timestamp::from_microsecond(at.0).ok()?;
    let zone = TimeZone::get(zone).ok()?;
    let day = instant.to_zoned(zone.clone()).date();
    let start_of =
        |day: jiff::civil::Date| Some(Timestamp(day.to_zoned(zone.clone()).ok()?.timestamp().as_microsecond()));
    let bounds = |period| {
        let (first, next) = match period {
            CapPeriod::Day => (day, day.tomorrow().ok()?),
            CapPeriod::Week => {
                let monday = day.checked_sub(day.weekday().to_monday_zero_offset().days()).ok()?;
                (monday, monday.checked_add(1.week()).ok()?)
            }
            CapPeriod::Month => (day.first_of_month(), day.last_of_month().tomorrow().ok()?),
        };
        Some(LocalPeriod { starts_at: start_of(first)?, ends_at: start_of(next)? })
    };
    Some([bounds(CapPeriod::Day)?, bounds(CapPeriod::Week)?, bounds(CapPeriod::Month)?])
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
            let [day, ..] = local_periods(zone, at(instant)).expect("a day");
            assert_eq!((day.starts_at, day.ends_at), (at(starts_at), at(ends_at)), "{zone} {instant}");
            assert!(day.contains(at(instant)) && !day.contains(day.ends_at));
        }
        assert_eq!(local_periods("Mars/Olympus", Timestamp(0)), None);
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first_at_midnight_of_the_place() {
        for (zone, instant, week, month) in [
            // A Sunday, the last day of both; then the Monday, the first of both.
            (
                "UTC",
                "2026-05-31T23:59:59.999999Z",
                ["2026-05-25T00:00:00Z", "2026-06-01T00:00:00Z"],
                ["2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z"],
            ),
            (
                "UTC",
                "2026-06-01T00:00:00Z",
                ["2026-06-01T00:00:00Z", "2026-06-08T00:00:00Z"],
                ["2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z"],
            ),
            // Clocks go forward on the last Sunday of March.
            (
                "Europe/Berlin",
                "2026-03-31T12:00:00Z",
                ["2026-03-29T22:00:00Z", "2026-04-05T22:00:00Z"],
                ["2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"],
            ),
            (
                "Asia/Shanghai",
                "2026-12-31T15:59:59Z",
                ["2026-12-27T16:00:00Z", "2027-01-03T16:00:00Z"],
                ["2026-11-30T16:00:00Z", "2026-12-31T16:00:00Z"],
            ),
        ] {
            let [_, found_week, found_month] = local_periods(zone, at(instant)).expect("periods");
            for (found, expected) in [(found_week, week), (found_month, month)] {
                assert_eq!([found.starts_at, found.ends_at], expected.map(at), "{zone} {instant}");
            }
        }
    }
}
