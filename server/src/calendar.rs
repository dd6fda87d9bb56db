//! Where a tenant's months and years end: time zones and daylight saving, which the rules know nothing of.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan};
use scrip_domain::Timestamp;
use scrip_domain::time::Calendar;

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
    }
}

fn start_of(zone: &TimeZone, date: Date) -> Timestamp {
    date.to_zoned(zone.clone()).map_or(Timestamp::MAX, |start| Timestamp(start.timestamp().as_microsecond()))
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
        assert_eq!(calendar(&berlin, at("2026-03-31T22:00:00Z")).month_ends[0], at("2026-04-30T22:00:00Z"));
        assert_eq!(calendar(&berlin, at("2026-12-31T23:00:00Z")).year_ends[0], at("2027-12-31T23:00:00Z"));
    }

    #[test]
    fn leap_days_count_and_calendars_reach_as_far_as_they_say() {
        let leap = calendar(&TimeZone::UTC, at("2028-02-29T23:59:59Z"));
        assert_eq!(leap.month_ends[0], at("2028-03-01T00:00:00Z"));
        assert_eq!(leap.month_ends.len(), 25);
        assert_eq!(leap.year_ends.len(), 6);
    }
}
