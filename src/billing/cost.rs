//! The cost of a usage vector.

use super::{Multiplier, Nanodollars, Picodollars, Rates};
use crate::protocol::usage::Usage;

/// Pico-dollars in a nano-dollar.
const PICO_PER_NANO: u128 = 1_000;

/// Milliseconds of a minute for each pico-dollar in a nano-dollar: what is charged by the minute is added up in this part
/// of a pico-dollar, so that nothing of it is lost.
const PARTS_PER_PICO: u128 = 60;

/// Millionths in a whole.
const MILLION: u128 = 1_000_000;

/// What a request costs: tokens at their rates times the multiplier, and what is charged by the piece. All of it is added
/// up exactly and rounded once, half up, to whole nano-dollars. A sum beyond what can be written is the largest that can.
pub fn cost(rates: &Rates, multiplier: Multiplier, usage: &Usage) -> Nanodollars {
    let Usage {
        input,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        input_audio,
        input_image,
        output,
        output_reasoning,
        output_audio,
        output_image,
        web_searches,
        images,
        audio_ms,
        characters,
    } = *usage;
    let tokens = [
        (input, rates.input),
        (cache_read, rates.cache_read),
        (cache_write_5m, rates.cache_write_5m),
        (cache_write_1h, rates.cache_write_1h),
        (input_audio, rates.input_audio),
        (input_image, rates.input_image),
        (output, rates.output),
        (output_reasoning, rates.output_reasoning),
        (output_audio, rates.output_audio),
        (output_image, rates.output_image),
    ];
    let pieces = [(1, rates.per_request), (web_searches, rates.per_search), (images, rates.per_image)];
    let pico = tokens.iter().fold(0u128, |sum, (tokens, Picodollars(price))| {
        sum.saturating_add(u128::from(*tokens).saturating_mul(u128::from(*price)))
    });
    // A multiplier beside which nothing is lost stays out of the way of the largest sums, and so does sound.
    let (pico, per_nano, whole) = match multiplier {
        Multiplier::ONE => (pico, PICO_PER_NANO, 1),
        other => (pico.saturating_mul(u128::from(other.millionths())), PICO_PER_NANO.saturating_mul(MILLION), MILLION),
    };
    let product = |count: u64, price: u64| u128::from(count).saturating_mul(u128::from(price)).saturating_mul(whole);
    let pico = pico.saturating_add(product(characters, rates.characters.0));
    let (pico, per_nano) = match audio_ms {
        0 => (pico, per_nano),
        ms => {
            let sound = product(ms, rates.per_audio_minute.0);
            (pico.saturating_mul(PARTS_PER_PICO).saturating_add(sound), per_nano.saturating_mul(PARTS_PER_PICO))
        }
    };
    let nano = pico.saturating_add(per_nano.div_euclid(2)).div_euclid(per_nano);
    let nano = pieces.iter().fold(nano, |sum, (pieces, Nanodollars(price))| {
        sum.saturating_add(u128::from(*pieces).saturating_mul(u128::from(*price)))
    });
    Nanodollars(u64::try_from(nano).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]
mod tests {
    use super::*;
    use crate::billing::Parts;
    use crate::config::Price;
    use proptest::prelude::*;

    fn price(json: serde_json::Value) -> Rates {
        serde_json::from_value::<Price>(json).unwrap().parts().into()
    }

    fn plain(rates: &Rates, usage: &Usage) -> Nanodollars {
        cost(rates, Multiplier::ONE, usage)
    }

    #[test]
    fn every_kind_has_its_price() {
        let rates = price(serde_json::json!({
            "input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": "6",
            "output_reasoning": "20", "input_audio": "40", "output_audio": "80", "input_image": "5", "output_image": "30",
            "per_request": "0.01", "per_search": "0.025", "per_image": "0.04", "per_audio_minute": "0.006",
            "per_million_characters": "15",
        }));
        let usage = Usage {
            input: 1,
            cache_read: 10,
            cache_write_5m: 100,
            cache_write_1h: 1000,
            input_audio: 2,
            input_image: 9,
            output: 3,
            output_reasoning: 5,
            output_audio: 7,
            output_image: 11,
            web_searches: 2,
            images: 1,
            audio_ms: 90_000,
            characters: 200,
        };
        let micro = 3 + 3 + 375 + 6000 + 80 + 45 + 45 + 100 + 560 + 330 + 10_000 + 50_000 + 40_000 + 9_000 + 3_000;
        assert_eq!(plain(&rates, &usage), Nanodollars(micro * 1000));
    }

    #[test]
    fn sound_is_charged_to_the_millisecond_and_rounded_with_all_else() {
        let rates = Rates { per_audio_minute: Nanodollars(1), input: Picodollars(499), ..Rates::default() };
        let cost_of = |audio_ms, input| plain(&rates, &Usage { audio_ms, input, ..Usage::default() });
        // A millisecond is a sixtieth of a pico-dollar here.
        assert_eq!(
            (cost_of(60, 1), cost_of(59, 1), cost_of(30_000, 0)),
            (Nanodollars(1), Nanodollars(0), Nanodollars(1))
        );
        let tenth = cost(&rates, "0.1".parse().unwrap(), &Usage { audio_ms: 60_000, ..Usage::default() });
        assert_eq!(tenth, Nanodollars(1), "a multiplier is for tokens alone");
    }

    #[test]
    fn a_missing_part_costs_what_the_whole_does() {
        let rates = price(serde_json::json!({"input": "1", "output": "2", "cache_write_5m": "4"}));
        let micro = |dollars: u64| Picodollars(dollars * 1_000_000);
        assert_eq!((rates.cache_read, rates.input_audio, rates.input_image), (micro(1), micro(1), micro(1)));
        assert_eq!((rates.cache_write_5m, rates.cache_write_1h), (micro(4), micro(4)));
        assert_eq!((rates.output_reasoning, rates.output_audio, rates.output_image), (micro(2), micro(2), micro(2)));
    }

    #[test]
    fn rounding_happens_once_and_half_up() {
        let rates = |steps| Rates { input: Picodollars(steps), output: Picodollars(steps), ..Rates::default() };
        let one = |steps| plain(&rates(steps), &Usage { input: 1, ..Usage::default() });
        assert_eq!((one(499), one(500), one(1_499)), (Nanodollars(0), Nanodollars(1), Nanodollars(1)));
        let both = plain(&rates(300), &Usage { input: 1, output: 1, ..Usage::default() });
        assert_eq!(both, Nanodollars(1));
    }

    #[test]
    fn a_multiplier_counts_for_tokens_alone_and_is_not_rounded_by_itself() {
        let rates = Rates { input: Picodollars(455), per_request: Nanodollars(7), ..Rates::default() };
        let usage = Usage { input: 1, ..Usage::default() };
        let times = |factor: &str| cost(&rates, factor.parse().unwrap(), &usage);
        // 455 pico-dollars are 0.455 nano-dollars; times 1.1 they are 0.5005, times 1.098901 just below a half.
        assert_eq!((times("1"), times("1.1"), times("1.098901")), (Nanodollars(7), Nanodollars(8), Nanodollars(7)));
        assert_eq!(times("0"), Nanodollars(7));
    }

    proptest! {
        #[test]
        fn no_count_overflows_and_more_never_costs_less(
            input: u64, output: u64, more: u64, price_in: u64, price_out: u64, per_request: u64, tenths in 0u64..100,
        ) {
            let rates = Rates {
                input: Picodollars(price_in),
                output: Picodollars(price_out),
                per_request: Nanodollars(per_request),
                ..Rates::default()
            };
            let multiplier: Multiplier = format!("{}.{}", tenths / 10, tenths % 10).parse().unwrap();
            let usage = Usage { input, output, ..Usage::default() };
            let larger = Usage { input: input.saturating_add(more), ..usage };
            prop_assert!(cost(&rates, multiplier, &larger) >= cost(&rates, multiplier, &usage));
            prop_assert!(cost(&rates, multiplier, &usage).0 >= per_request);
        }

        #[test]
        fn splitting_a_request_changes_its_cost_by_rounding_alone(
            a in 0u64..1_000_000_000, b in 0u64..1_000_000_000, price in 0u64..10_000_000_000_000,
        ) {
            let rates = Rates::from(Parts { output: Some(Picodollars(price)), ..Parts::default() });
            let of = |output| plain(&rates, &Usage { output, ..Usage::default() }).0;
            let (whole, parts) = (of(a + b), of(a).saturating_add(of(b)));
            prop_assert!(whole.abs_diff(parts) <= 1);
        }
    }
}
