//! Percentages: a JSON number with up to two decimals outside, whole basis points inside.
//!
//! A JSON number with a fraction arrives as the double nearest to it. Of two-decimal numbers each has a double of its own,
//! which is also what dividing its basis points by 100 gives, so reading and writing are exact; nothing is ever computed
//! with the double.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Basis points, not yet checked against a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub i64);

impl Percent {
    fn double(self) -> f64 {
        self.0 as f64 / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.double().fmt(f)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 100 == 0 { serializer.serialize_i64(self.0 / 100) } else { serializer.serialize_f64(self.double()) }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfNumber;

        impl Visitor<'_> for OfNumber {
            type Value = Percent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number with at most two decimals")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Percent, E> {
                Ok(Percent(value.saturating_mul(100)))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Percent, E> {
                self.visit_i64(i64::try_from(value).unwrap_or(i64::MAX))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Percent, E> {
                let nearest = Percent((value * 100.0).round() as i64);
                if nearest.double().to_bits() == value.to_bits() {
                    Ok(nearest)
                } else {
                    Err(E::invalid_type(serde::de::Unexpected::Float(value), &self))
                }
            }
        }

        deserializer.deserialize_any(OfNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_percentage_survives_reading_and_writing() {
        for basis_points in 0..=10_000 {
            let (whole, part) = (basis_points / 100, basis_points % 100);
            let text = format!("{whole}.{part:02}");
            let text = text.trim_end_matches('0').trim_end_matches('.');
            let read: Percent = serde_json::from_str(text).unwrap();
            assert_eq!(read, Percent(basis_points), "{text}");
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_has_more_decimals_or_is_no_number_is_refused() {
        for bad in ["0.001", "12.345", "1e-3", "\"10\"", "true", "[10]", "33.333333", "1e300"] {
            assert!(serde_json::from_str::<Percent>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<Percent>("1.50").unwrap(), Percent(150));
        assert_eq!(serde_json::from_str::<Percent>("1e1").unwrap(), Percent(1_000));
    }
}
