//! What a tenant's clocks show, and where its months and years end: time zones and daylight saving, which the rules know nothing of.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan};
use scrip_domain::time::{Calendar, DayEnd, LocalPeriod, LocalTime};
use scrip_domain::{Day, Timestamp};

/// The calendar of a place at an instant. A day that begins with a gap of the clock begins behind it.
pub fn calendar(zone: &TimeZone, at: Timestamp) -> Calendar {
    let local = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default().to_zoned(zone.clone());
    let (month, year) = (local.date().first_of_month(), local.date().first_of_year());
    let ends = |first: Date, step: fn(i32) -> Span, ahead: u8| {
        (0..=i32::from(ahead)).map(|after| start_of(zone, first.saturating_add(step(after + 1)))).collect()
    };
    Calendar {
        month_ends: ends(month, |months| months.months(), Calendar::MONTHS_AHEAD),
        year_ends: ends(year, |years| years.years(), Calendar::YEARS_AHEAD),
        day: day_of(local.date()),
    }
}

fn start_of(zone: &TimeZone, date: Date) -> Timestamp {
    date.to_zoned(zone.clone()).map_or(Timestamp::MAX, |start| Timestamp(start.timestamp().as_microsecond()))
}

/// An instant as clocks and calendars show it in a time zone.
pub fn local_time(zone: &TimeZone, at: Timestamp) -> LocalTime {
    let instant = jiff::Timestamp::from_microsecond(at.0).unwrap_or(jiff::Timestamp::MAX);
    let local = zone.to_datetime(instant);
    let day = jiff::civil::date(1970, 1, 1).until(local.date()).map_or(i32::MAX, |span| span.get_days());
    let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
    LocalTime { day, minute: u16::try_from(minute).unwrap_or_default() }
}

/// The day that a place has at an instant.
pub fn day(zone: &TimeZone, at: Timestamp) -> Day {
    day_of(jiff::Timestamp::from_microsecond(at.0).unwrap_or_default().to_zoned(zone.clone()).date())
}

pub fn day_of(date: Date) -> Day {
    let epoch = Date::constant(1970, 1, 1);
    Day(epoch.until(date).map_or(0, |span| i64::from(span.get_days())))
}

/// When a day begins at a place: where clocks skip midnight, at the first instant after it.
pub fn start_of_day(zone: &TimeZone, day: Day) -> Timestamp {
    let span = jiff::Span::new().try_days(day.0).ok();
    let date = span.and_then(|span| Date::constant(1970, 1, 1).checked_add(span).ok());
    date.map_or(Timestamp::MAX, |date| start_of(zone, date).min(Timestamp::MAX))
}

/// The end of the day that comes so many days after that of `at`.
pub fn end_of_day_after(zone: &TimeZone, at: Timestamp, days: u32) -> Timestamp {
    start_of_day(zone, Day(day(zone, at).0 + i64::from(days) + 1))
}

/// The day of `at`, and the end of the one so many days after it.
pub fn day_end(zone: &TimeZone, at: Timestamp, days: u32) -> DayEnd {
    let today = day(zone, at);
    let day = LocalPeriod { starts_at: start_of_day(zone, today), ends_at: start_of_day(zone, Day(today.0 + 1)) };
    DayEnd { day, ends_at: end_of_day_after(zone, at, days) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_microsecond())
    }

    #[test]
    fn months_and_years_end_by_the_local_clock() {
        let berlin = TimeZone::get("Europe/Berlin").expect("a known zone");
        // Summer time begins on the 29th: the month ends at 22:00 UTC, not at 23:00.
        let march = calendar(&berlin, at("2026-03-15T12:00:00Z"));
        assert_eq!(march.month_ends[0], at("2026-03-31T22:00:00Z"));
        assert_eq!(march.month_ends[7], at("2026-10-31T23:00:00Z"), "winter time again");
        assert_eq!((march.year_ends[0], march.year_ends[1]), (at("2026-12-31T23:00:00Z"), at("2027-12-31T23:00:00Z")));
        // Already April in Berlin.
        let april = calendar(&berlin, at("2026-03-31T22:00:00Z"));
        assert_eq!((april.month_ends[0], &*april.day.to_string()), (at("2026-04-30T22:00:00Z"), "2026-04-01"));
        assert_eq!(calendar(&berlin, at("2026-12-31T23:00:00Z")).year_ends[0], at("2027-12-31T23:00:00Z"));
    }

    #[test]
    fn leap_days_count_and_calendars_reach_as_far_as_they_say() {
        let leap = calendar(&TimeZone::UTC, at("2028-02-29T23:59:59Z"));
        assert_eq!(leap.month_ends[0], at("2028-03-01T00:00:00Z"));
        assert_eq!(leap.month_ends.len(), 25);
        assert_eq!(leap.year_ends.len(), 6);
    }

    #[test]
    fn local_times_follow_the_zone_and_its_summer() {
        let local = |zone: &str, text: &str| {
            let at = text.parse::<jiff::Timestamp>().expect("a time");
            let zone = TimeZone::get(zone).expect("a known zone");
            let local = local_time(&zone, Timestamp(at.as_microsecond()));
            (local.day, local.minute / 60, local.minute % 60, local.weekday().as_str())
        };
        assert_eq!(local("UTC", "1970-01-01T00:00:00Z"), (0, 0, 0, "THURSDAY"));
        assert_eq!(local("Asia/Shanghai", "2026-11-25T16:00:00Z"), (20_783, 0, 0, "THURSDAY"));
        assert_eq!(local("Europe/Berlin", "2026-03-28T22:59:59Z"), (20_540, 23, 59, "SATURDAY"));
        assert_eq!(local("Europe/Berlin", "2026-03-29T00:59:59Z"), (20_541, 1, 59, "SUNDAY"));
        assert_eq!(local("Europe/Berlin", "2026-03-29T01:00:00Z"), (20_541, 3, 0, "SUNDAY"));
        assert_eq!(local("America/New_York", "1970-01-01T00:00:00Z"), (-1, 19, 0, "WEDNESDAY"));
        let last = local_time(&TimeZone::UTC, Timestamp::MAX);
        assert!(last.day >= 2_932_895, "the last instant has a date: {last:?}");
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
        assert_eq!(start_of_day(&shanghai, day(&shanghai, after)), at("2026-02-28T16:00:00Z"));
    }
}
