//! The cost of a usage vector.

use super::{Nanodollars, Picodollars, RequestPrice, TokenPrice};
use crate::config::Price;
use crate::protocol::usage::Usage;

/// A price with every part worked out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Text input that no cache was involved in, per token. The other fields are named after those of [`Usage`].
    pub input: Picodollars,
    /// Per token.
    pub cache_read: Picodollars,
    /// Per token.
    pub cache_write_5m: Picodollars,
    /// Per token.
    pub cache_write_1h: Picodollars,
    /// Per token.
    pub input_audio: Picodollars,
    /// Per token.
    pub output: Picodollars,
    /// Per token.
    pub output_reasoning: Picodollars,
    /// Per token.
    pub output_audio: Picodollars,
    /// Per request.
    pub per_request: Nanodollars,
}

impl From<&Price> for Rates {
    fn from(price: &Price) -> Self {
        let or = |part: Option<TokenPrice>, whole: Picodollars| part.map_or(whole, |TokenPrice(price)| price);
        let input = or(price.input, Picodollars(0));
        let output = or(price.output, Picodollars(0));
        let cache_write_5m = or(price.cache_write_5m, input);
        Self {
            input,
            cache_read: or(price.cache_read, input),
            cache_write_5m,
            cache_write_1h: or(price.cache_write_1h, cache_write_5m),
            input_audio: or(price.input_audio, input),
            output,
            output_reasoning: or(price.output_reasoning, output),
            output_audio: or(price.output_audio, output),
            per_request: price.per_request.map_or(Nanodollars(0), |RequestPrice(price)| price),
        }
    }
}

/// Pico-dollars in a nano-dollar.
const PICO_PER_NANO: u128 = 1_000;

/// What a request costs. The parts are added up exactly and rounded once, half up, to whole nano-dollars. A sum beyond
/// what can be written is the largest that can.
pub fn cost(rates: &Rates, usage: &Usage) -> Nanodollars {
    let parts = [
        (usage.input, rates.input),
        (usage.cache_read, rates.cache_read),
        (usage.cache_write_5m, rates.cache_write_5m),
        (usage.cache_write_1h, rates.cache_write_1h),
        (usage.input_audio, rates.input_audio),
        (usage.output, rates.output),
        (usage.output_reasoning, rates.output_reasoning),
        (usage.output_audio, rates.output_audio),
    ];
    let pico = parts.iter().fold(0u128, |sum, (tokens, Picodollars(price))| {
        sum.saturating_add(u128::from(*tokens).saturating_mul(u128::from(*price)))
    });
    let nano = pico.saturating_add(PICO_PER_NANO.div_euclid(2)).div_euclid(PICO_PER_NANO);
    let nano = nano.saturating_add(u128::from(rates.per_request.0));
    Nanodollars(u64::try_from(nano).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn price(json: serde_json::Value) -> Rates {
        Rates::from(&serde_json::from_value::<Price>(json).unwrap())
    }

    #[test]
    fn every_kind_of_token_has_its_price() {
        let rates = price(serde_json::json!({
            "input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": "6",
            "output_reasoning": "20", "input_audio": "40", "output_audio": "80", "per_request": "0.01",
        }));
        let usage = Usage {
            input: 1,
            cache_read: 10,
            cache_write_5m: 100,
            cache_write_1h: 1000,
            input_audio: 2,
            output: 3,
            output_reasoning: 5,
            output_audio: 7,
        };
        let micro = 3.0 + 3.0 + 375.0 + 6000.0 + 80.0 + 45.0 + 100.0 + 560.0 + 10_000.0;
        assert_eq!(cost(&rates, &usage), Nanodollars((micro * 1000.0) as u64));
    }

    #[test]
    fn a_missing_part_costs_what_the_whole_does() {
        let rates = price(serde_json::json!({"input": "1", "output": "2", "cache_write_5m": "4"}));
        let micro = |dollars: u64| Picodollars(dollars * 1_000_000);
        assert_eq!((rates.cache_read, rates.input_audio), (micro(1), micro(1)));
        assert_eq!((rates.cache_write_5m, rates.cache_write_1h), (micro(4), micro(4)));
        assert_eq!((rates.output_reasoning, rates.output_audio), (micro(2), micro(2)));
    }

    #[test]
    fn rounding_happens_once_and_half_up() {
        let rates = |steps| Rates { input: Picodollars(steps), output: Picodollars(steps), ..Rates::default() };
        let one = |steps| cost(&rates(steps), &Usage { input: 1, ..Usage::default() });
        assert_eq!((one(499), one(500), one(1_499)), (Nanodollars(0), Nanodollars(1), Nanodollars(1)));
        let both = cost(&rates(300), &Usage { input: 1, output: 1, ..Usage::default() });
        assert_eq!(both, Nanodollars(1));
    }

    proptest! {
        #[test]
        fn no_count_overflows_and_more_never_costs_less(
            input: u64, output: u64, more: u64, price_in: u64, price_out: u64, per_request: u64,
        ) {
            let rates = Rates {
                input: Picodollars(price_in),
                output: Picodollars(price_out),
                per_request: Nanodollars(per_request),
                ..Rates::default()
            };
            let usage = Usage { input, output, ..Usage::default() };
            let larger = Usage { input: input.saturating_add(more), ..usage };
            prop_assert!(cost(&rates, &larger) >= cost(&rates, &usage));
            prop_assert!(cost(&rates, &usage).0 >= per_request);
        }

        #[test]
        fn splitting_a_request_changes_its_cost_by_rounding_alone(
            a in 0u64..1_000_000_000, b in 0u64..1_000_000_000, price in 0u64..10_000_000_000_000,
        ) {
            let rates = Rates { output: Picodollars(price), ..Rates::default() };
            let of = |output| cost(&rates, &Usage { output, ..Usage::default() }).0;
            let (whole, parts) = (of(a.saturating_add(b)), of(a).saturating_add(of(b)));
            prop_assert!(whole.abs_diff(parts) <= 1);
        }
    }
}
