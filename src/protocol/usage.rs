//! Token usage as one disjoint vector, read from and written to each dialect's own usage object.
//!
//! The dialects nest their counts differently: OpenAI's `cached_tokens` lies inside `prompt_tokens`, Anthropic's
//! `input_tokens` excludes everything cached. Adding up the wrong parts is how costs go wrong, so the parts are stored
//! apart and every dialect's object is derived from them. Counts are unsigned and subtraction saturates: no part can
//! become negative, whatever a provider reports.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Tokens by kind; the kinds do not overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Text input that was neither read from nor written to a prompt cache.
    pub input: u64,
    /// Input read from the provider's prompt cache.
    pub cache_read: u64,
    /// Input written to the prompt cache for five minutes (or the provider's only lifetime).
    pub cache_write_5m: u64,
    /// Input written to the prompt cache for an hour.
    pub cache_write_1h: u64,
    /// Audio input.
    pub input_audio: u64,
    /// Visible text output, tool-call arguments included.
    pub output: u64,
    /// Hidden or visible reasoning.
    pub output_reasoning: u64,
    /// Audio output.
    pub output_audio: u64,
}

impl Usage {
    /// All input tokens.
    pub fn input_total(&self) -> u64 {
        [self.input, self.cache_read, self.cache_write_5m, self.cache_write_1h, self.input_audio]
            .iter()
            .fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// All output tokens.
    pub fn output_total(&self) -> u64 {
        self.output.saturating_add(self.output_reasoning).saturating_add(self.output_audio)
    }

    /// Reads a Chat Completions usage object. Variants of OpenAI-like providers are understood: cache hits under
    /// `prompt_cache_hit_tokens` (DeepSeek), `cached_tokens` or `num_cached_tokens` at the top level (Moonshot,
    /// Mistral), and reasoning reported beside `completion_tokens` instead of inside it (xAI).
    ///
    /// `None` if `value` is not an object that counts anything.
    pub fn from_openai(value: &Value) -> Option<Self> {
        let prompt = count(value, "/prompt_tokens");
        let completion = count(value, "/completion_tokens");
        if prompt.is_none() && completion.is_none() {
            return None;
        }
        let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
        let cache_read = count(value, "/prompt_tokens_details/cached_tokens")
            .or_else(|| count(value, "/prompt_cache_hit_tokens"))
            .or_else(|| count(value, "/cached_tokens"))
            .or_else(|| count(value, "/num_cached_tokens"))
            .unwrap_or(0)
            .min(prompt);
        let uncached = prompt.saturating_sub(cache_read);
        let cache_write = count(value, "/prompt_tokens_details/cache_write_tokens").unwrap_or(0).min(uncached);
        let uncached = uncached.saturating_sub(cache_write);
        let input_audio = count(value, "/prompt_tokens_details/audio_tokens").unwrap_or(0).min(uncached);
        let reasoning = count(value, "/completion_tokens_details/reasoning_tokens").unwrap_or(0);
        let reasoning_is_beside = reasoning > 0
            && count(value, "/total_tokens") == Some(prompt.saturating_add(completion).saturating_add(reasoning));
        let completion = if reasoning_is_beside { completion.saturating_add(reasoning) } else { completion };
        let reasoning = reasoning.min(completion);
        let visible = completion.saturating_sub(reasoning);
        let output_audio = count(value, "/completion_tokens_details/audio_tokens").unwrap_or(0).min(visible);
        Some(Self {
            input: uncached.saturating_sub(input_audio),
            cache_read,
            cache_write_5m: cache_write,
            cache_write_1h: 0,
            input_audio,
            output: visible.saturating_sub(output_audio),
            output_reasoning: reasoning,
            output_audio,
        })
    }

    /// Reads an Anthropic usage object into `self`, leaving the counts that it does not mention as they are: in a
    /// stream `message_start` has the input side and `message_delta` the output so far, and either may repeat a count.
    ///
    /// The counts at the top leave out what compaction and advisors used, though it is billed; `iterations` has it.
    pub fn merge_anthropic(&mut self, value: &Value) {
        let beside = Self::beside_the_top(value);
        if let Some(input) = count(value, "/input_tokens") {
            self.input = input.saturating_add(beside.input);
        }
        if let Some(read) = count(value, "/cache_read_input_tokens") {
            self.cache_read = read.saturating_add(beside.cache_read);
        }
        let hour = count(value, "/cache_creation/ephemeral_1h_input_tokens");
        if let Some(hour) = hour {
            self.cache_write_1h = hour.saturating_add(beside.cache_write_1h);
        }
        // The total counts even where the provider splits it and the parts do not add up to it.
        if let Some(total) = count(value, "/cache_creation_input_tokens") {
            let total = total.saturating_add(beside.cache_write_5m).saturating_add(beside.cache_write_1h);
            self.cache_write_1h = self.cache_write_1h.min(total);
            self.cache_write_5m = total.saturating_sub(self.cache_write_1h);
        } else if let Some(minutes) = count(value, "/cache_creation/ephemeral_5m_input_tokens") {
            self.cache_write_5m = minutes.saturating_add(beside.cache_write_5m);
        }
        if let Some(output) = count(value, "/output_tokens") {
            let reasoning =
                count(value, "/output_tokens_details/thinking_tokens").unwrap_or(self.output_reasoning).min(output);
            self.output_reasoning = reasoning;
            self.output = output.saturating_sub(reasoning).saturating_add(beside.output);
        }
    }

    /// What the iterations used that Anthropic's counts at the top leave out.
    fn beside_the_top(value: &Value) -> Self {
        let mut sum = Self::default();
        let iterations = value.get("iterations").and_then(Value::as_array).into_iter().flatten();
        for iteration in iterations {
            let kind = iteration.get("type").and_then(Value::as_str);
            if let Some("compaction" | "advisor_message") = kind {
                let tokens = |pointer: &str| count(iteration, pointer).unwrap_or(0);
                let hour = tokens("/cache_creation/ephemeral_1h_input_tokens");
                let written = tokens("/cache_creation_input_tokens");
                sum.input = sum.input.saturating_add(tokens("/input_tokens"));
                sum.cache_read = sum.cache_read.saturating_add(tokens("/cache_read_input_tokens"));
                sum.cache_write_1h = sum.cache_write_1h.saturating_add(hour);
                sum.cache_write_5m = sum.cache_write_5m.saturating_add(written.saturating_sub(hour));
                sum.output = sum.output.saturating_add(tokens("/output_tokens"));
            }
        }
        sum
    }

    /// The Chat Completions usage object.
    pub fn to_openai(&self) -> Value {
        let (prompt, completion) = (self.input_total(), self.output_total());
        let mut usage = json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt.saturating_add(completion),
            "prompt_tokens_details": {"cached_tokens": self.cache_read, "audio_tokens": self.input_audio},
            "completion_tokens_details": {
                "reasoning_tokens": self.output_reasoning,
                "audio_tokens": self.output_audio,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        });
        let written = self.cache_write_5m.saturating_add(self.cache_write_1h);
        if written > 0
            && let Some(details) = usage.pointer_mut("/prompt_tokens_details").and_then(Value::as_object_mut)
        {
            details.insert("cache_write_tokens".to_owned(), written.into());
        }
        usage
    }
}

/// A count at a JSON pointer. A whole number written as `12.0` counts; a negative or fractional one does not.
fn count(value: &Value, pointer: &str) -> Option<u64> {
    let number = value.pointer(pointer)?;
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        (float >= 0.0 && float.fract() == 0.0 && float <= 9_007_199_254_740_992.0).then_some(float as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn openai_counts_nest_and_are_pulled_apart() {
        let usage = Usage::from_openai(&json!({
            "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10, "cache_write_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 4},
        }));
        let expected = Usage {
            input: 25,
            cache_read: 60,
            cache_write_5m: 5,
            input_audio: 10,
            output: 16,
            output_reasoning: 30,
            output_audio: 4,
            ..Usage::default()
        };
        assert_eq!(usage, Some(expected));
    }

    #[test]
    fn reasoning_beside_completion_is_added_once() {
        let usage = Usage::from_openai(&json!({
            "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35,
            "completion_tokens_details": {"reasoning_tokens": 20},
        }))
        .unwrap();
        assert_eq!((usage.output, usage.output_reasoning, usage.output_total()), (5, 20, 25));
    }

    #[test]
    fn anthropic_counts_are_disjoint_and_cumulative() {
        let mut usage = Usage::default();
        usage.merge_anthropic(&json!({
            "input_tokens": 7, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}, "output_tokens": 1,
        }));
        usage.merge_anthropic(&json!({"output_tokens": 42, "output_tokens_details": {"thinking_tokens": 12}}));
        let expected = Usage {
            input: 7,
            cache_read: 100,
            cache_write_5m: 10,
            cache_write_1h: 20,
            output: 30,
            output_reasoning: 12,
            ..Usage::default()
        };
        assert_eq!(usage, expected);
        assert_eq!(usage.to_openai().pointer("/prompt_tokens"), Some(&json!(137)));
    }

    #[test]
    fn what_compaction_and_advisors_used_is_counted_once_however_often_it_is_told() {
        let told = json!({
            "input_tokens": 600, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 4, "output_tokens": 20,
            "iterations": [
                {"type": "compaction", "input_tokens": 60_000, "cache_read_input_tokens": 7, "output_tokens": 500},
                {"type": "message", "input_tokens": 600, "output_tokens": 20},
                {"type": "advisor_message", "input_tokens": 1000, "output_tokens": 30,
                 "cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": 5}},
            ],
        });
        let mut usage = Usage::default();
        usage.merge_anthropic(&json!({"input_tokens": 60_000, "output_tokens": 1}));
        usage.merge_anthropic(&told);
        usage.merge_anthropic(&told);
        assert_eq!((usage.input, usage.cache_read, usage.output), (61_600, 7, 550));
        assert_eq!(usage.cache_write_5m + usage.cache_write_1h, 13);
    }

    #[test]
    fn what_is_not_a_usage_object_is_none() {
        assert_eq!(Usage::from_openai(&Value::Null), None);
        assert_eq!(Usage::from_openai(&json!({"prompt_tokens": -5})), None);
        assert_eq!(Usage::from_openai(&json!("x")), None);
    }

    proptest! {
        #[test]
        fn no_report_makes_a_part_exceed_its_whole(
            prompt: u64, completion: u64, cached: u64, written: u64, audio: u64, reasoning: u64, out_audio: u64, total: u64
        ) {
            let usage = Usage::from_openai(&json!({
                "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
                "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": audio},
                "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": out_audio},
            })).unwrap();
            prop_assert_eq!(usage.input_total(), prompt);
            prop_assert!(usage.output_total() >= completion);
        }
    }
}
