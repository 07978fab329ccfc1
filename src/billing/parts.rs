//! The parts of a price, stated or worked out.

use super::{Nanodollars, Picodollars};

/// The parts of a price as somebody stated them: what is `None` was left out. The fields are named after the kinds of
/// [`Usage`](crate::protocol::usage::Usage).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `Rates`")]
pub struct Parts {
    pub input: Option<Picodollars>,
    pub cache_read: Option<Picodollars>,
    pub cache_write_5m: Option<Picodollars>,
    pub cache_write_1h: Option<Picodollars>,
    pub input_audio: Option<Picodollars>,
    pub input_image: Option<Picodollars>,
    pub output: Option<Picodollars>,
    pub output_reasoning: Option<Picodollars>,
    pub output_audio: Option<Picodollars>,
    pub output_image: Option<Picodollars>,
    pub per_request: Option<Nanodollars>,
    pub per_search: Option<Nanodollars>,
    pub per_image: Option<Nanodollars>,
    pub per_audio_minute: Option<Nanodollars>,
    pub characters: Option<Picodollars>,
}

/// A price with every part worked out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Text input that no cache was involved in, per token.
    pub input: Picodollars,
    /// Input read from the prompt cache, per token.
    pub cache_read: Picodollars,
    /// Input written to the prompt cache for five minutes, per token.
    pub cache_write_5m: Picodollars,
    /// Input written to the prompt cache for an hour, per token.
    pub cache_write_1h: Picodollars,
    /// Audio input, per token.
    pub input_audio: Picodollars,
    /// Image input, per token.
    pub input_image: Picodollars,
    /// Text output, per token.
    pub output: Picodollars,
    /// Reasoning, per token.
    pub output_reasoning: Picodollars,
    /// Audio output, per token.
    pub output_audio: Picodollars,
    /// Image output, per token.
    pub output_image: Picodollars,
    /// Per request.
    pub per_request: Nanodollars,
    /// Per web search that the provider ran.
    pub per_search: Nanodollars,
    /// Per image that was made.
    pub per_image: Nanodollars,
    /// Per minute of sound that was listened to.
    pub per_audio_minute: Nanodollars,
    /// Per character that was spoken.
    pub characters: Picodollars,
}

impl Parts {
    /// These parts, and for those that are left out the ones of `below`.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            input: self.input.or(below.input),
            cache_read: self.cache_read.or(below.cache_read),
            cache_write_5m: self.cache_write_5m.or(below.cache_write_5m),
            cache_write_1h: self.cache_write_1h.or(below.cache_write_1h),
            input_audio: self.input_audio.or(below.input_audio),
            input_image: self.input_image.or(below.input_image),
            output: self.output.or(below.output),
            output_reasoning: self.output_reasoning.or(below.output_reasoning),
            output_audio: self.output_audio.or(below.output_audio),
            output_image: self.output_image.or(below.output_image),
            per_request: self.per_request.or(below.per_request),
            per_search: self.per_search.or(below.per_search),
            per_image: self.per_image.or(below.per_image),
            per_audio_minute: self.per_audio_minute.or(below.per_audio_minute),
            characters: self.characters.or(below.characters),
        }
    }

    /// Whether nothing is stated, not even that something is free.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Parts> for Rates {
    /// A part that is left out costs what the part it belongs to costs.
    fn from(parts: Parts) -> Self {
        let input = parts.input.unwrap_or_default();
        let output = parts.output.unwrap_or_default();
        let cache_write_5m = parts.cache_write_5m.unwrap_or(input);
        Self {
            input,
            cache_read: parts.cache_read.unwrap_or(input),
            cache_write_5m,
            cache_write_1h: parts.cache_write_1h.unwrap_or(cache_write_5m),
            input_audio: parts.input_audio.unwrap_or(input),
            input_image: parts.input_image.unwrap_or(input),
            output,
            output_reasoning: parts.output_reasoning.unwrap_or(output),
            output_audio: parts.output_audio.unwrap_or(output),
            output_image: parts.output_image.unwrap_or(output),
            per_request: parts.per_request.unwrap_or_default(),
            per_search: parts.per_search.unwrap_or_default(),
            per_image: parts.per_image.unwrap_or_default(),
            per_audio_minute: parts.per_audio_minute.unwrap_or_default(),
            characters: parts.characters.unwrap_or_default(),
        }
    }
}
