//! Token usage as one disjoint vector, read from and written to each dialect's own usage object.
//!
//! The dialects nest their counts differently: OpenAI's `cached_tokens` lies inside `prompt_tokens`, Anthropic's
//! `input_tokens` excludes everything cached. Adding up the wrong parts is how costs go wrong, so the parts are stored
//! apart and every dialect's object is derived from them. Counts are unsigned and subtraction saturates: no part can
//! become negative, nor larger than its whole, whatever a provider reports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

mod anthropic;
mod bedrock;
mod cohere;
mod count;
mod facts;
mod gemini;
mod openai;
mod recognise;
mod side;
#[cfg(test)]
mod tests;

pub use facts::{BillingFacts, InferenceGeo, ServiceTier, Speed};

/// Declares the kinds of what is used, in the one place where they are listed.
macro_rules! kinds {
    ($( $(#[$meta:meta])* $kind:ident, )*) => {
        /// What a request used, by kind; the kinds do not overlap. All but the last four are tokens.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default)]
        pub struct Usage {
            $( $(#[$meta])* pub $kind: u64, )*
        }

        impl Usage {
            /// The kinds' names, which are those of the columns that they are stored in.
            pub const KINDS: &[&str] = &[$( stringify!($kind), )*];

            /// The kinds with their names.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$( (stringify!($kind), self.$kind), )*].into_iter()
            }

            /// Both together, each kind up to so much.
            #[must_use]
            pub fn plus(&self, other: &Self, most: u64) -> Self {
                Self { $( $kind: self.$kind.saturating_add(other.$kind).min(most), )* }
            }
        }
    };
}

kinds! {
    /// Text input that was neither read from nor written to a prompt cache.
    input,
    /// Input read from the provider's prompt cache.
    cache_read,
    /// Input written to the prompt cache for five minutes (or the provider's only lifetime).
    cache_write_5m,
    /// Input written to the prompt cache for an hour.
    cache_write_1h,
    /// Audio input.
    input_audio,
    /// Image input, where the provider tells it from text.
    input_image,
    /// Visible text output, tool-call arguments included.
    output,
    /// Hidden or visible reasoning.
    output_reasoning,
    /// Audio output.
    output_audio,
    /// Image output.
    output_image,
    /// Web searches that the provider ran: a number of searches, not of tokens.
    web_searches,
    /// Images that were made: a number of images, not of tokens.
    images,
    /// Sound that was listened to and is charged by its time: a number of milliseconds, not of tokens.
    audio_ms,
    /// Text that was spoken and is charged by its length: a number of characters, not of tokens.
    characters,
}

impl Usage {
    /// All input tokens.
    pub fn input_total(&self) -> u64 {
        [self.input, self.cache_read, self.cache_write_5m, self.cache_write_1h, self.input_audio, self.input_image]
            .iter()
            .fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// All output tokens.
    pub fn output_total(&self) -> u64 {
        [self.output, self.output_reasoning, self.output_audio, self.output_image]
            .iter()
            .fold(0, |sum, n| sum.saturating_add(*n))
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
        for (details, name, tokens) in [
            ("prompt_tokens_details", "cache_write_tokens", written),
            ("prompt_tokens_details", "image_tokens", self.input_image),
            ("completion_tokens_details", "image_tokens", self.output_image),
        ] {
            if tokens > 0
                && let Some(details) = usage.get_mut(details).and_then(Value::as_object_mut)
            {
                details.insert(name.to_owned(), tokens.into());
            }
        }
        usage
    }
}

/// What a provider told of a request: what it used, and what else its price depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// What it used.
    pub usage: Usage,
    /// What else matters.
    pub facts: BillingFacts,
}

impl Told {
    /// Reads the usage of a Chat Completions reply, or of a chunk of a streamed one.
    pub fn from_openai(reply: &Value) -> Option<Self> {
        let usage = reply.get("usage").and_then(Usage::from_openai)?;
        Some(Self { usage, facts: BillingFacts::from_openai(reply) })
    }

    /// As [`Usage::merge_anthropic`], for the facts, too.
    pub fn merge_anthropic(&mut self, usage: &Value) {
        self.usage.merge_anthropic(usage);
        self.facts.merge_anthropic(usage);
    }
}

impl From<Usage> for Told {
    fn from(usage: Usage) -> Self {
        Self { usage, facts: BillingFacts::default() }
    }
}
