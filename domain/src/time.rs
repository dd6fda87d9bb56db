//! Instants as microseconds since 1970-01-01T00:00:00Z, and half-open windows. "Now" is always an argument.

use serde::{Deserialize, Serialize};

/// An instant, in microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

pub const MICROS_PER_DAY: i64 = 86_400_000_000;
pub const MICROS_PER_HOUR: i64 = 3_600_000_000;

impl Timestamp {
    /// Stands for "never": later than every real instant. Stores keep it as is, so that one index order serves lots
    /// with and without an expiry; the API shows it as null.
    pub const NEVER: Timestamp = Timestamp(i64::MAX);

    /// The last instant the API accepts, 9999-12-31T00:00:00Z; beyond it RFC 3339 has no form.
    pub const MAX: Timestamp = Timestamp(253_402_214_400_000_000);

    /// This instant plus whole days of 24 hours, or [`Timestamp::MAX`] when that lies beyond it.
    pub fn plus_days(self, days: u32) -> Timestamp {
        self.plus_micros(i64::from(days).saturating_mul(MICROS_PER_DAY))
    }

    /// This instant plus hours, or [`Timestamp::MAX`] when that lies beyond it.
    pub fn plus_hours(self, hours: u32) -> Timestamp {
        self.plus_micros(i64::from(hours).saturating_mul(MICROS_PER_HOUR))
    }

    fn plus_micros(self, micros: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(micros)).min(Timestamp::MAX)
    }

    /// The instant, or `None` when it is "never".
    pub fn known(self) -> Option<Timestamp> {
        (self != Timestamp::NEVER).then_some(self)
    }
}

/// A calendar day as days since 1970-01-01. Which instants it covers depends on a time zone, which only callers know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub i64);

impl Day {
    /// The Monday on or before.
    pub fn week_start(self) -> Day {
        // 1970-01-01 was a Thursday.
        Day(self.0 - (self.0 + 3).rem_euclid(7))
    }

    /// The first of the month.
    pub fn month_start(self) -> Day {
        let (_, _, day) = self.civil();
        Day(self.0 - day + 1)
    }

    /// The first of the month after.
    pub fn next_month_start(self) -> Day {
        // Any day of the next month will do to find its first.
        Day(self.month_start().0 + 31).month_start()
    }

    /// Year, month and day (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    pub fn civil(self) -> (i64, i64, i64) {
        let shifted = self.0 + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        (era * 400 + year_of_era + i64::from(month <= 2), month, day)
    }
}

/// `2026-03-01`
impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// `[starts_at, ends_at)`; a missing bound is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub starts_at: Option<Timestamp>,
    pub ends_at: Option<Timestamp>,
}

impl Window {
    pub fn has_started(&self, at: Timestamp) -> bool {
        self.starts_at.is_none_or(|start| at >= start)
    }

    pub fn has_ended(&self, at: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| at >= end)
    }
}

/// The day of an instant at some place, and where months and years end there from then on. Which place is the caller's to
/// know: the rules have no time zones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calendar {
    /// The end of the instant's month, then of the months that follow.
    pub month_ends: Vec<Timestamp>,
    /// The end of the instant's year, then of the years that follow.
    pub year_ends: Vec<Timestamp>,
    /// The instant's own day.
    pub day: Day,
}

impl Calendar {
    /// How many months and years ahead a calendar reaches.
    pub const MONTHS_AHEAD: u8 = 24;
    pub const YEARS_AHEAD: u8 = 5;
}

/// The day of an instant at some place, and the end of the day that comes some number of days after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayEnd {
    pub day: LocalPeriod,
    pub ends_at: Timestamp,
}

/// An instant as clocks and calendars show it at some place. Which place is the caller's to know: the rules have no time zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTime {
    /// The date, in days since 1970-01-01.
    pub day: i32,
    /// Since midnight, as the clock shows it.
    pub minute: u16,
}

impl LocalTime {
    pub fn weekday(self) -> Weekday {
        // 1970-01-01 was a Thursday.
        Weekday::ALL[(i64::from(self.day) + 3).rem_euclid(7) as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    pub const ALL: [Weekday; 7] = [
        Weekday::Monday,
        Weekday::Tuesday,
        Weekday::Wednesday,
        Weekday::Thursday,
        Weekday::Friday,
        Weekday::Saturday,
        Weekday::Sunday,
    ];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Weekday::Monday => "MONDAY",
            Weekday::Tuesday => "TUESDAY",
            Weekday::Wednesday => "WEDNESDAY",
            Weekday::Thursday => "THURSDAY",
            Weekday::Friday => "FRIDAY",
            Weekday::Saturday => "SATURDAY",
            Weekday::Sunday => "SUNDAY",
        }
    }
}

/// `[from_minute, to_minute)` since midnight, on these days of the week (none means every day).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeeklyHours {
    pub weekdays: Vec<Weekday>,
    pub from_minute: u16,
    /// Up to 1440, the end of the day.
    pub to_minute: u16,
}

impl WeeklyHours {
    pub fn include(&self, local: LocalTime) -> bool {
        (self.weekdays.is_empty() || self.weekdays.contains(&local.weekday()))
            && (self.from_minute..self.to_minute).contains(&local.minute)
    }
}

/// A unit of a calendar in which something is counted. Weeks begin on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CapPeriod {
    Day,
    Week,
    Month,
}

impl CapPeriod {
    pub const ALL: [CapPeriod; 3] = [CapPeriod::Day, CapPeriod::Week, CapPeriod::Month];

    /// The name as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            CapPeriod::Day => "DAY",
            CapPeriod::Week => "WEEK",
            CapPeriod::Month => "MONTH",
        }
    }

    /// The first day of the period with this day.
    pub fn start(self, day: Day) -> Day {
        match self {
            CapPeriod::Day => day,
            CapPeriod::Week => day.week_start(),
            CapPeriod::Month => day.month_start(),
        }
    }
}

/// The day, the week and the month of an instant: for each [`CapPeriod`] in its order.
pub type LocalPeriods = [LocalPeriod; CapPeriod::ALL.len()];

/// A day, week or month of a tenant's calendar as the instants `[starts_at, ends_at)`; a day is 23 to 25 hours long where
/// clocks change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPeriod {
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
}

impl LocalPeriod {
    pub fn contains(&self, at: Timestamp) -> bool {
        self.starts_at <= at && at < self.ends_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_half_open() {
        let window = Window { starts_at: Some(Timestamp(10)), ends_at: Some(Timestamp(20)) };
        assert!(!window.has_started(Timestamp(9)));
        assert!(window.has_started(Timestamp(10)) && !window.has_ended(Timestamp(19)));
        assert!(window.has_ended(Timestamp(20)));
    }

    #[test]
    fn days_know_their_week_and_month() {
        for (day, text, week, month) in [
            (0, "1970-01-01", "1969-12-29", "1970-01-01"),
            (-1, "1969-12-31", "1969-12-29", "1969-12-01"),
            (11_016, "2000-02-29", "2000-02-28", "2000-02-01"),
            (20_512, "2026-02-28", "2026-02-23", "2026-02-01"),
            (20_513, "2026-03-01", "2026-02-23", "2026-03-01"),
            (20_514, "2026-03-02", "2026-03-02", "2026-03-01"),
        ] {
            let day = Day(day);
            let shown = [day, day.week_start(), day.month_start()].map(|day| day.to_string());
            assert_eq!(shown, [text, week, month]);
        }
    }

    #[test]
    fn days_stop_at_the_last_instant() {
        assert_eq!(Timestamp(0).plus_days(1), Timestamp(MICROS_PER_DAY));
        assert_eq!(Timestamp(1).plus_days(u32::MAX), Timestamp::MAX);
        assert_eq!(Timestamp(MICROS_PER_HOUR).plus_hours(23), Timestamp(MICROS_PER_DAY));
        assert_eq!(Timestamp(i64::MAX).plus_hours(u32::MAX), Timestamp::MAX);
    }

    #[test]
    fn weekdays_follow_the_calendar() {
        let weekday = |day| LocalTime { day, minute: 0 }.weekday();
        assert_eq!(weekday(0), Weekday::Thursday);
        assert_eq!(weekday(-1), Weekday::Wednesday);
        // 2026-11-25.
        assert_eq!(weekday(20_782), Weekday::Wednesday);
        assert_eq!(weekday(i32::MAX), Weekday::ALL[(i64::from(i32::MAX) + 3).rem_euclid(7) as usize]);
    }
}
