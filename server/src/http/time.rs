//! Times as the API writes and reads them: RFC 3339, UTC on the way out, to the microsecond.

use std::fmt;

use scrip_domain::Timestamp;
use scrip_domain::time::MICROS_PER_DAY;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// An instant on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Time(at)
    }
}

/// `2026-03-01T00:00:00.000000Z`
const LONGEST: usize = 27;

impl Time {
    /// Writes the text into `buffer`. Done by hand: an answer carries several times, and this costs a few divisions.
    fn write(self, buffer: &mut [u8; LONGEST]) -> &str {
        // Nothing later is ever shown; a fifth digit of the year would have no place.
        let micros = self.0.0.clamp(0, Timestamp::MAX.0);
        let (year, month, day) = civil(micros / MICROS_PER_DAY);
        let of_day = micros % MICROS_PER_DAY;
        let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
        digits(&mut buffer[0..4], year);
        buffer[4] = b'-';
        digits(&mut buffer[5..7], month);
        buffer[7] = b'-';
        digits(&mut buffer[8..10], day);
        buffer[10] = b'T';
        digits(&mut buffer[11..13], seconds / 3_600);
        buffer[13] = b':';
        digits(&mut buffer[14..16], seconds / 60 % 60);
        buffer[16] = b':';
        digits(&mut buffer[17..19], seconds % 60);
        let length = if fraction == 0 {
            buffer[19] = b'Z';
            20
        } else {
            buffer[19] = b'.';
            digits(&mut buffer[20..26], fraction);
            buffer[26] = b'Z';
            LONGEST
        };
        std::str::from_utf8(&buffer[..length]).unwrap_or_default()
    }
}

fn digits(place: &mut [u8], mut number: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write(&mut [0; LONGEST]))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.write(&mut [0; LONGEST]))
    }
}

impl Time {
    /// Reads RFC 3339 with an offset, between 1970 and 9999.
    pub fn read(text: &str) -> Option<Time> {
        let parsed: jiff::Timestamp = text.parse().ok()?;
        let at = Timestamp(parsed.as_microsecond());
        (Timestamp(0)..=Timestamp::MAX).contains(&at).then_some(Time(at))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let expected = "expected a time in RFC 3339 with an offset, like 2026-03-01T00:00:00Z, between 1970 and 9999";
        Time::read(&text).ok_or_else(|| serde::de::Error::custom(expected))
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339 with an offset; answers are in UTC."))
            .examples(["2026-03-01T00:00:00Z"])
            .into()
    }
}

impl ToSchema for Time {}

/// A date on a calendar, in days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalDate(pub i32);

/// The first and the last date with a year of four digits.
const DATES: std::ops::RangeInclusive<i32> = -719_528..=2_932_896;

impl LocalDate {
    fn epoch() -> jiff::civil::Date {
        jiff::civil::date(1970, 1, 1)
    }
}

impl fmt::Display for LocalDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = jiff::Span::new().try_days(self.0).unwrap_or_default();
        LocalDate::epoch().saturating_add(days).fmt(f)
    }
}

impl Serialize for LocalDate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LocalDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let expected = || serde::de::Error::custom("expected a date like 2026-03-01");
        if text.len() != 10 {
            return Err(expected());
        }
        let date: jiff::civil::Date = text.parse().map_err(|_| expected())?;
        let days = LocalDate::epoch().until(date).map_err(|_| expected())?.get_days();
        if DATES.contains(&days) { Ok(LocalDate(days)) } else { Err(expected()) }
    }
}

/// A time of day in minutes since midnight; 24:00 is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOfDay(pub u16);

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:02}:{:02}", self.0 / 60, self.0 % 60))
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let read = || {
            let (hour, minute) = text.split_once(':')?;
            let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 2);
            let (hour, minute) = (number(hour)?, number(minute)?);
            let of_day = hour * 60 + minute;
            (minute < 60 && of_day <= 1_440).then_some(TimeOfDay(of_day))
        };
        read().ok_or_else(|| serde::de::Error::custom("expected a time of day from 00:00 to 24:00"))
    }
}

impl PartialSchema for TimeOfDay {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$"))
            .examples(["09:30"])
            .into()
    }
}

impl ToSchema for TimeOfDay {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_jiff_writes_them() {
        let day = MICROS_PER_DAY;
        let samples =
            [0, 1, 999_999, day - 1, 58 * day, 59 * day, 11_016 * day + 86_399_000_001, 1_772_323_200_000_000];
        for micros in samples.into_iter().chain((0..40_000).map(|n| n * 73 * day + n * 1_234_567)) {
            let Ok(expected) = jiff::Timestamp::from_microsecond(micros) else { continue };
            let text = Time(Timestamp(micros)).to_string();
            assert_eq!(text.parse::<jiff::Timestamp>().unwrap(), expected, "{text}");
        }
        assert_eq!(Time(Timestamp(0)).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Time(Timestamp(1)).to_string(), "1970-01-01T00:00:00.000001Z");
        assert_eq!(Time(Timestamp::MAX).to_string(), "9999-12-31T00:00:00Z");
        assert_eq!(Time(Timestamp::NEVER).to_string(), "9999-12-31T00:00:00Z");
    }

    #[test]
    fn times_need_an_offset_and_a_sane_year() {
        let read = |text: &str| serde_json::from_value::<Time>(text.into());
        assert_eq!(read("2026-03-01T02:00:00+02:00").unwrap().to_string(), "2026-03-01T00:00:00Z");
        for bad in ["2026-03-01T00:00:00", "2026-03-01", "1969-12-31T23:59:59Z", "tomorrow", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
