//! Local days: what a tenant's clock and calendar show. The rules know no time zones, so days are worked out here and handed
//! to them.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use scrip_domain::{Day, Timestamp};

/// The day that a place has at an instant.
pub fn day(zone: &TimeZone, at: Timestamp) -> Day {
    day_of(jiff::Timestamp::from_microsecond(at.0).unwrap_or_default().to_zoned(zone.clone()).date())
}

pub fn day_of(date: Date) -> Day {
    let epoch = Date::constant(1970, 1, 1);
    Day(epoch.until(date).map_or(0, |span| i64::from(span.get_days())))
}

/// When a day begins at a place: where clocks skip midnight, at the first instant after it.
pub fn start_of(zone: &TimeZone, day: Day) -> Timestamp {
    let span = jiff::Span::new().try_days(day.0).ok();
    let date = span.and_then(|span| Date::constant(1970, 1, 1).checked_add(span).ok());
    let start = date.and_then(|date| date.to_zoned(zone.clone()).ok());
    start.map_or(Timestamp::MAX, |start| Timestamp(start.timestamp().as_microsecond()).min(Timestamp::MAX))
}

/// The end of the day that comes so many days after that of `at`.
pub fn end_of_day_after(zone: &TimeZone, at: Timestamp, days: u32) -> Timestamp {
    start_of(zone, Day(day(zone, at).0 + i64::from(days) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_microsecond())
    }

    #[test]
    fn days_end_by_the_local_clock_whatever_it_does() {
        let berlin = TimeZone::get("Europe/Berlin").expect("a zone");
        // On 2026-03-29 the clock skips an hour, on 2026-10-25 it shows one twice.
        for (granted, days, ends) in [
            ("2026-03-28T12:00:00Z", 0, "2026-03-28T23:00:00Z"),
            ("2026-03-28T12:00:00Z", 1, "2026-03-29T22:00:00Z"),
            ("2026-03-28T23:30:00Z", 0, "2026-03-29T22:00:00Z"),
            ("2026-10-24T12:00:00Z", 1, "2026-10-25T23:00:00Z"),
            ("2028-02-28T12:00:00Z", 1, "2028-02-29T23:00:00Z"),
            ("2025-11-25T07:00:00Z", 365, "2026-11-25T23:00:00Z"),
        ] {
            assert_eq!(end_of_day_after(&berlin, at(granted), days), at(ends), "{granted} and {days} days");
        }
        // In Beirut, clocks skip from 0:00 to 1:00.
        let beirut = TimeZone::get("Asia/Beirut").expect("a zone");
        assert_eq!(end_of_day_after(&beirut, at("2026-03-28T12:00:00Z"), 0), at("2026-03-28T22:00:00Z"));
        assert_eq!(end_of_day_after(&berlin, Timestamp::MAX, 4_000_000), Timestamp::MAX);
    }

    #[test]
    fn a_minute_before_and_after_midnight_are_two_days() {
        let shanghai = TimeZone::get("Asia/Shanghai").expect("a zone");
        let (before, after) = (at("2026-02-28T15:59:00Z"), at("2026-02-28T16:01:00Z"));
        assert_eq!(day(&shanghai, before).to_string(), "2026-02-28");
        assert_eq!(day(&shanghai, after).to_string(), "2026-03-01");
        assert_eq!(day(&TimeZone::UTC, after).to_string(), "2026-02-28");
        assert_eq!(start_of(&shanghai, day(&shanghai, after)), at("2026-02-28T16:00:00Z"));
    }
}
