//! Amounts of money and the decimals that people write them as.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Billionths of a US dollar: a sum. 2^64 of them are 18 billion dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Nanodollars(pub u64);

impl Nanodollars {
    /// The sum; it stops at the largest amount rather than begin anew.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, not below nothing.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Nanodollars {
    /// In US dollars, such as `0.00125`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&written(self.0, 9))
    }
}

/// Trillionths of a US dollar: what a token costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Picodollars(pub u64);

/// The price of a token. Written as US dollars per million tokens: one of the smallest step is one pico-dollar a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenPrice(pub Picodollars);

/// The price of a request, in US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestPrice(pub Nanodollars);

/// What a price is multiplied by, such as 1.1: millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiplier(u64);

/// Millionths in a whole.
const MILLION: u64 = 1_000_000;

impl Multiplier {
    /// Changes nothing.
    pub const ONE: Self = Self(MILLION);

    /// Both, one after the other; exact to the millionth, rounded half up.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        Self(self.scaled(other.0))
    }

    /// A price so many times over, rounded half up.
    #[must_use]
    pub fn of(self, price: Picodollars) -> Picodollars {
        Picodollars(self.scaled(price.0))
    }

    /// Millionths.
    pub(super) fn millionths(self) -> u64 {
        self.0
    }

    fn scaled(self, steps: u64) -> u64 {
        let million = u128::from(MILLION);
        let product = u128::from(self.0).saturating_mul(u128::from(steps));
        let rounded = product.saturating_add(million.div_euclid(2)).div_euclid(million);
        u64::try_from(rounded).unwrap_or(u64::MAX)
    }
}

/// Why a text is no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a decimal in a string such as \"0.25\", with up to {WHOLE} digits before the point and {places} after it"
)]
pub struct PriceError {
    places: usize,
}

/// Digits before the point: up to 9,999,999 dollars.
const WHOLE: usize = 7;
/// Digits after the point of a price per million tokens.
const TOKEN_PLACES: usize = 6;
/// Digits after the point of a price per request.
const REQUEST_PLACES: usize = 9;

/// Reads a decimal as a whole number of its smallest steps.
fn read(text: &str, places: usize) -> Result<u64, PriceError> {
    let error = PriceError { places };
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, WHOLE) || fraction.is_some_and(|fraction| !digits(fraction, places)) {
        return Err(error);
    }
    let fraction = fraction.unwrap_or_default();
    format!("{whole}{fraction:0<places$}").parse().map_err(|_| error)
}

/// Writes a number of smallest steps as a decimal, without zeros that say nothing.
fn written(steps: u64, places: usize) -> String {
    let width = places.saturating_add(1);
    let digits = format!("{steps:0width$}");
    let (whole, fraction) = digits.split_at_checked(digits.len().saturating_sub(places)).unwrap_or_default();
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

macro_rules! decimal {
    ($name:ident, $made:expr, $steps:expr, $places:ident, $description:literal) => {
        impl FromStr for $name {
            type Err = PriceError;

            fn from_str(text: &str) -> Result<Self, PriceError> {
                read(text, $places).map($made)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let steps: fn(&Self) -> u64 = $steps;
                formatter.write_str(&written(steps(self), $places))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let pattern = format!("^[0-9]{{1,{WHOLE}}}([.][0-9]{{1,{}}})?$", $places);
                json_schema!({"type": "string", "pattern": pattern, "description": $description})
            }
        }
    };
}

decimal!(
    TokenPrice,
    |steps| Self(Picodollars(steps)),
    |price| price.0.0,
    TOKEN_PLACES,
    "US dollars per million tokens"
);
decimal!(RequestPrice, |steps| Self(Nanodollars(steps)), |price| price.0.0, REQUEST_PLACES, "US dollars");
decimal!(Multiplier, Self, |multiplier| multiplier.0, TOKEN_PLACES, "A factor");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prices_are_exact_decimals() {
        let price = |text: &str| text.parse::<TokenPrice>().map(|price| price.0.0).ok();
        assert_eq!(price("0.075"), Some(75_000));
        assert_eq!(price("15"), Some(15_000_000));
        assert_eq!(price("0.000001"), Some(1));
        assert_eq!(price("9999999.999999"), Some(9_999_999_999_999));
        for wrong in ["", ".5", "5.", "-1", "+1", "1e3", " 1", "1,5", "0.0000001", "12345678", "0x1", "٣"] {
            assert_eq!(price(wrong), None, "{wrong}");
        }
        assert_eq!("0.01".parse::<RequestPrice>().map(|price| price.0), Ok(Nanodollars(10_000_000)));
        assert_eq!(Nanodollars(1_250_000).to_string(), "0.00125");
        assert_eq!(Nanodollars(u64::MAX).saturating_add(Nanodollars(1)), Nanodollars(u64::MAX));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(steps in 0u64..10_000_000_000_000) {
            let price = TokenPrice(Picodollars(steps));
            prop_assert_eq!(price.to_string().parse(), Ok(price));
        }
    }
}
