//! One model of LiteLLM's price map (`model_prices_and_context_window.json`) as a price of ours.
//!
//! Members are named `<part>[_above_<n>k_tokens][_<service tier>]`: what is behind the part are conditions. Above a
//! threshold the whole request costs more, as it does here.

use std::collections::BTreeMap;

use llm_gateway::billing::{Multiplier, Nanodollars, Picodollars, RequestPrice, TokenPrice};
use llm_gateway::config::{Price, PriceVariant};
use llm_gateway::protocol::usage::{InferenceGeo, ServiceTier, Speed};
use serde_json::Value;
use serde_json::value::RawValue;

use super::decimal;

/// A model's members, their values as they are written.
pub(super) type Entry = BTreeMap<String, Box<RawValue>>;

/// What became of a model.
#[derive(Debug)]
pub(super) struct Imported {
    /// Its price.
    pub(super) price: Price,
    /// What the price does not say.
    pub(super) notes: Vec<String>,
}

/// Kinds of models whose use is counted in tokens, searches, minutes of sound and characters.
const MODES: &[&str] = &[
    "chat",
    "completion",
    "embedding",
    "responses",
    "rerank",
    "moderation",
    "image_generation",
    "image_edit",
    "audio_transcription",
    "audio_speech",
];

/// Under which conditions a member counts: input tokens, and a tier.
type Conditions = (u64, Option<&'static str>);

/// Reads a model.
///
/// # Errors
/// Why it cannot be priced.
pub(super) fn import(entry: &Entry) -> Result<Imported, String> {
    let text = |name: &str| entry.get(name).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    let mode = text("mode").unwrap_or_default();
    if !MODES.contains(&mode.as_str()) {
        return Err(format!("its mode is {}", if mode.is_empty() { "not told" } else { &mode }));
    }
    // A price by the picture depends on its size and quality, which the map has in names of models.
    if mode.starts_with("image_") && !entry.contains_key("output_cost_per_image_token") {
        return Err("its pictures are not priced by their tokens".to_owned());
    }
    let by_tokens = entry.contains_key("input_cost_per_audio_token") || entry.contains_key("input_cost_per_token");
    let mut found = Found {
        rerank: mode == "rerank",
        speech: mode == "audio_speech",
        // What can be charged by tokens or by time must not be charged twice.
        by_time: mode == "audio_transcription" && !by_tokens,
        ..Found::default()
    };
    for (member, value) in entry {
        found.member(member, value.get());
    }
    if let Some(ranges) = entry.get("tiered_pricing") {
        found.ranges(ranges.get())?;
    }
    let parts = found.variants.values().map(|variant| variant.parts());
    let costs = parts.into_iter().any(|parts| {
        let by_token = [parts.input, parts.output, parts.characters];
        let by_piece = [parts.per_request, parts.per_search, parts.per_audio_minute];
        by_token.into_iter().flatten().any(|Picodollars(price)| price > 0)
            || by_piece.into_iter().flatten().any(|Nanodollars(price)| price > 0)
    });
    if !costs {
        return Err(match found.notes.is_empty() {
            true => "it has no price, or one of nothing".to_owned(),
            false => {
                format!("it is not priced by token, request, search, minute or character ({})", found.notes.join("; "))
            }
        });
    }
    if let Some(special) = entry.get("provider_specific_entry") {
        found.multipliers(special.get());
    }
    Ok(found.finish())
}

#[derive(Debug, Default)]
struct Found {
    rerank: bool,
    speech: bool,
    /// Whether sound is charged by how long it is.
    by_time: bool,
    /// What is stated, by the conditions, in the order in which it has to count.
    variants: BTreeMap<Conditions, PriceVariant>,
    multipliers: Vec<PriceVariant>,
    notes: Vec<String>,
}

impl Found {
    /// Takes a member in, if it speaks of money.
    fn member(&mut self, member: &str, value: &str) {
        let about_money = member.contains("cost") && !member.ends_with("_multiplier");
        if !about_money || value == "null" || decimal::read(value, 12).is_some_and(|it| it.steps == 0 && it.exact) {
            self.free(member, value);
            return;
        }
        if member == "search_context_cost_per_query" {
            let sizes: BTreeMap<String, Box<RawValue>> = serde_json::from_str(value).unwrap_or_default();
            if let Some(medium) = sizes.get("search_context_size_medium") {
                self.state((0, None), "per_search", medium.get(), member);
            }
            return;
        }
        let (rest, tier) = tier_of(member);
        let (part, above) = threshold_of(rest);
        self.state((above, tier), part, value, member);
    }

    /// A price of nothing is stated where it is less than what would count otherwise.
    fn free(&mut self, member: &str, value: &str) {
        if value != "null"
            && matches!(member, "input_cost_per_token" | "output_cost_per_token" | "cache_read_input_token_cost")
        {
            self.state((0, None), member, value, member);
        }
    }

    /// Notes a part's price under conditions.
    fn state(&mut self, conditions: Conditions, part: &str, value: &str, member: &str) {
        let token = decimal::read(value, 12);
        let piece = match part {
            "input_cost_per_second" => minute(value),
            _ => decimal::read(value, 9),
        };
        let variant = self.variants.entry(conditions).or_default();
        let (slot, piece_slot) = match part {
            "input_cost_per_token" => (Some(&mut variant.input), None),
            "output_cost_per_token" => (Some(&mut variant.output), None),
            "cache_read_input_token_cost" => (Some(&mut variant.cache_read), None),
            "cache_creation_input_token_cost" => (Some(&mut variant.cache_write_5m), None),
            "cache_creation_input_token_cost_above_1hr" => (Some(&mut variant.cache_write_1h), None),
            "output_cost_per_reasoning_token" => (Some(&mut variant.output_reasoning), None),
            "input_cost_per_audio_token" => (Some(&mut variant.input_audio), None),
            "output_cost_per_audio_token" => (Some(&mut variant.output_audio), None),
            "input_cost_per_image_token" => (Some(&mut variant.input_image), None),
            "output_cost_per_image_token" => (Some(&mut variant.output_image), None),
            "input_cost_per_request" => (None, Some(&mut variant.per_request)),
            "per_search" => (None, Some(&mut variant.per_search)),
            "input_cost_per_query" if self.rerank => (None, Some(&mut variant.per_search)),
            "input_cost_per_second" if self.by_time => (None, Some(&mut variant.per_audio_minute)),
            "input_cost_per_character" if self.speech => (Some(&mut variant.per_million_characters), None),
            // The same as cache_read, by an older name.
            "input_cost_per_token_cache_hit" => return,
            _ => (None, None),
        };
        let read = match (slot, piece_slot) {
            (Some(slot), _) => token.inspect(|it| *slot = Some(TokenPrice(Picodollars(it.steps)))),
            (None, Some(slot)) => piece.inspect(|it| *slot = Some(RequestPrice(Nanodollars(it.steps)))),
            (None, None) => {
                self.notes.push(format!("{member} is left out"));
                return;
            }
        };
        match read {
            Some(it) if it.exact => {}
            Some(_) => self.notes.push(format!("{member} is rounded: {value}")),
            None => self.notes.push(format!("{member} is no price: {value}")),
        }
    }

    /// Prices by ranges of the input's length.
    fn ranges(&mut self, ranges: &str) -> Result<(), String> {
        let ranges: Vec<Entry> = serde_json::from_str(ranges).map_err(|error| format!("tiered_pricing: {error}"))?;
        for range in ranges {
            let bounds: Vec<Box<RawValue>> =
                range.get("range").and_then(|it| serde_json::from_str(it.get()).ok()).unwrap_or_default();
            let above = bounds.first().and_then(|from| decimal::read(from.get(), 0)).filter(|from| from.exact);
            let above = above.ok_or("tiered_pricing has a range that begins nowhere")?.steps;
            for (part, value) in range.iter().filter(|(name, _)| *name != "range") {
                self.state((above, None), part, value.get(), &format!("tiered_pricing.{part}"));
            }
        }
        Ok(())
    }

    /// What prices are multiplied by where a request is served in the United States, or fast.
    fn multipliers(&mut self, special: &str) {
        let factors: BTreeMap<String, Value> = serde_json::from_str(special).unwrap_or_default();
        let texts: BTreeMap<String, Box<RawValue>> = serde_json::from_str(special).unwrap_or_default();
        for name in factors.keys() {
            let mut variant = PriceVariant::default();
            match name.as_str() {
                "us" => variant.inference_geo = Some(InferenceGeo::Us),
                "fast" => variant.speed = Some(Speed::Fast),
                _ => {
                    self.notes.push(format!("provider_specific_entry.{name} is left out"));
                    continue;
                }
            }
            let read = texts.get(name).and_then(|text| decimal::read(text.get(), 6)).filter(|it| it.exact);
            variant.multiplier =
                read.and_then(|it| TokenPrice(Picodollars(it.steps)).to_string().parse::<Multiplier>().ok());
            if variant.multiplier.is_some() {
                self.multipliers.push(variant);
            }
        }
    }

    fn finish(mut self) -> Imported {
        let base = self.variants.remove(&(0, None)).unwrap_or_default();
        let mut price = Price {
            input: base.input,
            output: base.output,
            cache_read: base.cache_read,
            cache_write_5m: base.cache_write_5m,
            cache_write_1h: base.cache_write_1h,
            output_reasoning: base.output_reasoning,
            input_audio: base.input_audio,
            output_audio: base.output_audio,
            input_image: base.input_image,
            output_image: base.output_image,
            per_request: base.per_request,
            per_search: base.per_search,
            per_image: base.per_image,
            per_audio_minute: base.per_audio_minute,
            per_million_characters: base.per_million_characters,
            ..Price::default()
        };
        for ((above, tier), variant) in self.variants {
            if variant.parts().is_empty() {
                continue;
            }
            let service_tier = match tier {
                Some("batches") => Some(ServiceTier::Batch),
                Some("flex") => Some(ServiceTier::Flex),
                Some("priority") => Some(ServiceTier::Priority),
                _ => None,
            };
            let above_input_tokens = (above > 0).then_some(above);
            price.variants.push(PriceVariant { above_input_tokens, service_tier, ..variant });
        }
        price.variants.extend(self.multipliers);
        Imported { price, notes: self.notes }
    }
}

/// A price of seconds as one of minutes, in nano-dollars. The map has some that were divided by 60 and cut off.
fn minute(value: &str) -> Option<decimal::Steps> {
    const FINER: u64 = 1_000_000;
    let second = decimal::read(value, 15)?;
    let fine = second.steps.checked_mul(60)?;
    let steps = fine.checked_add(FINER / 2)?.div_euclid(FINER);
    Some(decimal::Steps { steps, exact: second.exact && fine.is_multiple_of(FINER) })
}

/// Splits the tier off a member's name.
fn tier_of(member: &str) -> (&str, Option<&'static str>) {
    let tiers = ["batches", "flex", "priority"];
    let found = tiers.into_iter().find_map(|tier| Some((member.strip_suffix(tier)?.strip_suffix('_')?, Some(tier))));
    found.unwrap_or((member, None))
}

/// Splits the threshold off a member's name; zero for none.
fn threshold_of(member: &str) -> (&str, u64) {
    let found = member.strip_suffix("k_tokens").and_then(|rest| rest.rsplit_once("_above_"));
    let split = found.and_then(|(part, thousands)| Some((part, thousands.parse::<u64>().ok()?.checked_mul(1_000)?)));
    split.unwrap_or((member, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn imported(entry: Value) -> Result<Imported, String> {
        import(&serde_json::from_str(&entry.to_string()).unwrap())
    }

    #[test]
    fn names_of_members_are_taken_apart() {
        let apart = |member| {
            let (rest, tier) = tier_of(member);
            (threshold_of(rest), tier)
        };
        assert_eq!(apart("input_cost_per_token"), (("input_cost_per_token", 0), None));
        assert_eq!(
            apart("input_cost_per_token_above_272k_tokens_priority"),
            (("input_cost_per_token", 272_000), Some("priority"))
        );
        assert_eq!(
            apart("cache_creation_input_token_cost_above_1hr_above_200k_tokens"),
            (("cache_creation_input_token_cost_above_1hr", 200_000), None)
        );
    }

    #[test]
    fn a_model_becomes_a_price() {
        let entry = r#"{
            "litellm_provider": "x", "mode": "chat", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 0.00001,
            "cache_read_input_token_cost": 1.25e-07, "cache_creation_input_token_cost_above_1hr": 6e-06,
            "input_cost_per_token_above_200k_tokens": 2.5e-06, "input_cost_per_token_above_200k_tokens_priority": 4.5e-06,
            "input_cost_per_token_batches": 6.25e-07, "output_cost_per_second": 3.3e-05,
            "search_context_cost_per_query": {"search_context_size_low": 0.02, "search_context_size_medium": 0.035},
            "provider_specific_entry": {"us": 1.1}
        }"#;
        let imported = import(&serde_json::from_str(entry).unwrap()).unwrap();
        assert_eq!(
            serde_json::to_value(&imported.price).unwrap(),
            json!({
                "input": "1.25", "output": "10", "cache_read": "0.125", "cache_write_1h": "6", "per_search": "0.035",
                "variants": [
                    {"service_tier": "batch", "input": "0.625"},
                    {"above_input_tokens": 200_000, "input": "2.5"},
                    {"above_input_tokens": 200_000, "service_tier": "priority", "input": "4.5"},
                    {"inference_geo": "us", "multiplier": "1.1"},
                ],
            })
        );
        assert_eq!(imported.notes, ["output_cost_per_second is left out"]);
    }

    #[test]
    fn pictures_and_sound_are_priced_as_they_are_counted() {
        let price = |entry: Value| {
            let imported = imported(entry).unwrap();
            (serde_json::to_value(imported.price).unwrap(), imported.notes)
        };
        let pictures = json!({"mode": "image_generation", "input_cost_per_token": 5e-6, "input_cost_per_image_token": 8e-6,
            "output_cost_per_image_token": 3e-5, "output_cost_per_image": 0.04});
        let expected = json!({"input": "5", "input_image": "8", "output_image": "30"});
        assert_eq!(price(pictures), (expected, vec!["output_cost_per_image is left out".to_owned()]));
        let by_time =
            json!({"mode": "audio_transcription", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0});
        assert_eq!(price(by_time), (json!({"per_audio_minute": "0.006"}), vec![]));
        let cut_off = json!({"mode": "audio_transcription", "input_cost_per_second": 0.000283333333333});
        assert_eq!(price(cut_off).0, json!({"per_audio_minute": "0.017"}));
        let by_tokens = json!({"mode": "audio_transcription", "input_cost_per_second": 0.0001,
            "input_cost_per_audio_token": 2.5e-6, "input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5});
        let expected = json!({"input": "2.5", "output": "10", "input_audio": "2.5"});
        assert_eq!(price(by_tokens), (expected, vec!["input_cost_per_second is left out".to_owned()]));
        let speech = json!({"mode": "audio_speech", "input_cost_per_character": 1.5e-5});
        assert_eq!(price(speech), (json!({"per_million_characters": "15"}), vec![]));
    }

    #[test]
    fn ranges_become_variants() {
        let range = |from: u32, input: f64| json!({"range": [from, 99.0], "input_cost_per_token": input});
        let entry = json!({"mode": "chat", "tiered_pricing": [range(0, 1e-6), range(32_000, 2e-6)]});
        assert_eq!(
            serde_json::to_value(imported(entry).unwrap().price).unwrap(),
            json!({"input": "1", "variants": [{"above_input_tokens": 32_000, "input": "2"}]})
        );
    }

    #[test]
    fn what_is_free_or_counted_otherwise_has_no_price() {
        for entry in [
            json!({"mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0}),
            json!({"mode": "chat"}),
            json!({"mode": "chat", "input_cost_per_character": 1e-6}),
            json!({"mode": "chat", "input_cost_per_second": 1e-6}),
            json!({"mode": "image_generation", "output_cost_per_image": 0.04}),
            json!({"mode": "image_generation", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}),
            json!({"mode": "video_generation", "input_cost_per_token": 1e-6}),
            json!({"input_cost_per_token": 1e-6}),
        ] {
            assert!(imported(entry.clone()).is_err(), "{entry}");
        }
    }
}
