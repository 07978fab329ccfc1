//! Days, for prices that count from one on.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A day, UTC. Written as `2026-01-31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day {
    year: u16,
    month: u8,
    day: u8,
}

/// That a text is no day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a day such as \"2026-01-31\"")]
pub struct DayError;

const SECONDS: u64 = 86_400;

impl Day {
    /// The day of a Unix time in seconds, up to the year 9999.
    pub fn at(unix: u64) -> Self {
        // Howard Hinnant's `civil_from_days`: years that begin in March put the leap day last.
        let days = unix.div_euclid(SECONDS).saturating_add(719_468);
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let leaps = of_era.div_euclid(1_460);
        let (centuries, eras) = (of_era.div_euclid(36_524), of_era.div_euclid(146_096));
        let year_of_era = of_era.saturating_sub(leaps).saturating_add(centuries).saturating_sub(eras).div_euclid(365);
        let before = year_of_era
            .saturating_mul(365)
            .saturating_add(year_of_era.div_euclid(4))
            .saturating_sub(year_of_era.div_euclid(100));
        let of_year = of_era.saturating_sub(before);
        let from_march = of_year.saturating_mul(5).saturating_add(2).div_euclid(153);
        let first = from_march.saturating_mul(153).saturating_add(2).div_euclid(5);
        let day = of_year.saturating_sub(first).saturating_add(1);
        let (month, year) = match from_march {
            0..=9 => (from_march.saturating_add(3), 0),
            _ => (from_march.saturating_sub(9), 1),
        };
        let year = era.saturating_mul(400).saturating_add(year_of_era).saturating_add(year);
        Self {
            year: u16::try_from(year).unwrap_or(u16::MAX),
            month: u8::try_from(month).unwrap_or(1),
            day: u8::try_from(day).unwrap_or(1),
        }
    }

    fn is_real(self) -> bool {
        let leap = self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let days = match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        };
        (1..=days).contains(&self.day)
    }
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        fn number<T: FromStr>(text: Option<&str>, digits: usize) -> Result<T, DayError> {
            let text = text.filter(|text| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit()));
            text.ok_or(DayError)?.parse().map_err(|_| DayError)
        }
        let mut parts = text.splitn(3, '-');
        let day =
            Self { year: number(parts.next(), 4)?, month: number(parts.next(), 2)?, day: number(parts.next(), 2)? };
        if day.is_real() { Ok(day) } else { Err(DayError) }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Day {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Day".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date", "description": "A day (UTC) such as `2026-01-31`"})
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_are_read_written_and_found() {
        let read = |text: &str| text.parse::<Day>().map(|day| day.to_string()).ok();
        for real in ["1970-01-01", "2024-02-29", "2000-02-29", "2026-12-31", "9999-12-31"] {
            assert_eq!(read(real).as_deref(), Some(real));
        }
        for wrong in ["", "2026-1-01", "2026-13-01", "2026-02-29", "1900-02-29", "2026-04-31", "26-01-01", "2026-01-00"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        for (unix, day) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (86_400, "1970-01-02"),
            (951_782_400, "2000-02-29"),
            (1_709_164_799, "2024-02-28"),
            (1_709_164_800, "2024-02-29"),
            (1_798_761_599, "2026-12-31"),
            (1_798_761_600, "2027-01-01"),
        ] {
            assert_eq!(Day::at(unix).to_string(), day, "{unix}");
        }
    }

    proptest! {
        #[test]
        fn days_follow_each_other(unix in 0u64..253_402_300_800 - 86_400) {
            let (day, next) = (Day::at(unix), Day::at(unix + 86_400));
            prop_assert!(day < next && day.is_real());
            prop_assert_eq!(day.to_string().parse(), Ok(day));
        }
    }
}
