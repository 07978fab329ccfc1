//! What a translation could not carry over.

use crate::error::Problem;
use crate::protocol::Api;

/// A parameter that not every provider has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Param {
    /// Sampling temperature.
    Temperature,
    /// Nucleus sampling.
    TopP,
    /// The k likeliest tokens.
    TopK,
    /// Least probability.
    MinP,
    /// Presence penalty.
    PresencePenalty,
    /// Frequency penalty.
    FrequencyPenalty,
    /// Repetition penalty.
    RepetitionPenalty,
    /// Seed.
    Seed,
    /// Stop texts.
    Stop,
    /// Bias by token.
    LogitBias,
    /// Log probabilities.
    Logprobs,
    /// Their alternatives.
    TopLogprobs,
    /// Choices.
    N,
    /// Most output tokens.
    MaxTokens,
    /// The form of the answer.
    ResponseFormat,
    /// Verbosity.
    Verbosity,
    /// Kinds of output.
    Modalities,
    /// Spoken output.
    Audio,
    /// Predicted output.
    Prediction,
    /// Tools.
    Tools,
    /// Which to call.
    ToolChoice,
    /// Several at once.
    ParallelToolCalls,
    /// How much to think.
    ReasoningEffort,
    /// How much to think, in tokens.
    Thinking,
    /// The end user.
    User,
    /// The end user, hashed.
    SafetyIdentifier,
    /// Pairs for records.
    Metadata,
    /// Service tier.
    ServiceTier,
    /// Keep the reply.
    Store,
}

impl Param {
    /// The caller's own name for it.
    pub fn name(self, api: Api) -> &'static str {
        match (self, api) {
            (Self::Stop, Api::Messages) => "stop_sequences",
            (Self::ResponseFormat | Self::ReasoningEffort, Api::Messages) => "output_config",
            (Self::User, Api::Messages) => "metadata.user_id",
            (Self::Temperature, _) => "temperature",
            (Self::TopP, _) => "top_p",
            (Self::TopK, _) => "top_k",
            (Self::MinP, _) => "min_p",
            (Self::PresencePenalty, _) => "presence_penalty",
            (Self::FrequencyPenalty, _) => "frequency_penalty",
            (Self::RepetitionPenalty, _) => "repetition_penalty",
            (Self::Seed, _) => "seed",
            (Self::Stop, _) => "stop",
            (Self::LogitBias, _) => "logit_bias",
            (Self::Logprobs, _) => "logprobs",
            (Self::TopLogprobs, _) => "top_logprobs",
            (Self::N, _) => "n",
            (Self::MaxTokens, _) => "max_tokens",
            (Self::ResponseFormat, _) => "response_format",
            (Self::Verbosity, _) => "verbosity",
            (Self::Modalities, _) => "modalities",
            (Self::Audio, _) => "audio",
            (Self::Prediction, _) => "prediction",
            (Self::Tools, _) => "tools",
            (Self::ToolChoice, _) => "tool_choice",
            (Self::ParallelToolCalls, _) => "parallel_tool_calls",
            (Self::ReasoningEffort, _) => "reasoning_effort",
            (Self::Thinking, _) => "thinking",
            (Self::User, _) => "user",
            (Self::SafetyIdentifier, _) => "safety_identifier",
            (Self::Metadata, _) => "metadata",
            (Self::ServiceTier, _) => "service_tier",
            (Self::Store, _) => "store",
        }
    }
}

/// Collects what a translation leaves out or changes, for the caller to be told; or refuses it.
#[derive(Debug)]
pub struct Notes {
    api: Api,
    strict: bool,
    dropped: Vec<String>,
}

/// The most that a header tells.
const MAX_NOTES: usize = 32;

impl Notes {
    /// Notes for a caller of this API. `strict` refuses what would be noted.
    pub fn new(api: Api, strict: bool) -> Self {
        Self { api, strict, dropped: Vec::new() }
    }

    /// Leaves out a parameter that merely tunes the answer.
    ///
    /// # Errors
    /// A 400 naming it, if this caller wants to hear of it that way.
    pub fn drop(&mut self, param: Param) -> Result<(), Problem> {
        self.drop_named(param.name(self.api))
    }

    /// As [`Self::drop`], of a parameter (or place) by its name. Callers can send members of any name, length and
    /// number: only names that could be a parameter's are told, and no more than 32.
    ///
    /// # Errors
    /// As [`Self::drop`].
    pub fn drop_named(&mut self, name: &str) -> Result<(), Problem> {
        if self.strict {
            let advice = "the provider of this model does not have it; leave it out, or switch `strict_params` off";
            return Err(Problem {
                code: "unsupported_parameter".to_owned(),
                ..Problem::invalid(name, format!("{name}: {advice}."))
            });
        }
        self.note(name);
        Ok(())
    }

    /// Brings a number into the range that the provider takes.
    ///
    /// # Errors
    /// As [`Self::drop`], if it is outside.
    pub fn clamp(&mut self, param: Param, value: f64, least: f64, most: f64) -> Result<f64, Problem> {
        let within = value.clamp(least, most);
        if within == value {
            return Ok(value);
        }
        let name = param.name(self.api);
        if self.strict {
            let message = format!("{name}: the provider of this model takes {least} to {most}.");
            return Err(Problem { code: "unsupported_value".to_owned(), ..Problem::invalid(name, message) });
        }
        self.note(&format!("{name}={within}"));
        Ok(within)
    }

    /// A parameter without which the answer would be another: it cannot be left out.
    pub fn refuse(&self, param: Param, advice: &str) -> Problem {
        let name = param.name(self.api);
        Problem { code: "unsupported_parameter".to_owned(), ..Problem::invalid(name, format!("{name}: {advice}")) }
    }

    fn note(&mut self, note: &str) {
        let is_plain = (1..=64).contains(&note.len())
            && note.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.=[]".contains(&byte));
        if is_plain && self.dropped.len() < MAX_NOTES && !self.dropped.iter().any(|known| known == note) {
            self.dropped.push(note.to_owned());
        }
    }

    /// What was left out or changed: names, and `name=value` for what was changed.
    pub fn into_dropped(self) -> Vec<String> {
        self.dropped
    }
}
