//! What a translation could not carry over.

use serde_json::{Map, Value};

use super::answer_tool;
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::{ChatRequest, Part, PartBody, ToolBody};

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
    /// Groups prompts that begin alike.
    PromptCacheKey,
    /// How long a prompt's cache is kept.
    PromptCacheRetention,
    /// Markers behind what is to be cached of a prompt.
    CacheControl,
    /// Which summary of its reasoning to show.
    ReasoningSummary,
    /// Who of several speaks in a message.
    Name,
    /// How closely to look at a picture.
    Detail,
    /// Quote a document with the place of what is quoted.
    Citations,
    /// A call's arguments must follow their schema exactly.
    Strict,
}

impl Param {
    const ALL: [Self; 37] = [
        Self::Temperature,
        Self::TopP,
        Self::TopK,
        Self::MinP,
        Self::PresencePenalty,
        Self::FrequencyPenalty,
        Self::RepetitionPenalty,
        Self::Seed,
        Self::Stop,
        Self::LogitBias,
        Self::Logprobs,
        Self::TopLogprobs,
        Self::N,
        Self::MaxTokens,
        Self::ResponseFormat,
        Self::Verbosity,
        Self::Modalities,
        Self::Audio,
        Self::Prediction,
        Self::Tools,
        Self::ToolChoice,
        Self::ParallelToolCalls,
        Self::ReasoningEffort,
        Self::Thinking,
        Self::User,
        Self::SafetyIdentifier,
        Self::Metadata,
        Self::ServiceTier,
        Self::Store,
        Self::PromptCacheKey,
        Self::PromptCacheRetention,
        Self::CacheControl,
        Self::ReasoningSummary,
        Self::Name,
        Self::Detail,
        Self::Citations,
        Self::Strict,
    ];

    /// Whether it is a wish for records or caches alone: no answer is another for it.
    fn is_hint(self) -> bool {
        matches!(
            self,
            Self::User
                | Self::SafetyIdentifier
                | Self::Metadata
                | Self::Store
                | Self::PromptCacheKey
                | Self::PromptCacheRetention
                | Self::CacheControl
        )
    }

    /// The parameter of this name in Chat Completions.
    pub fn of_member(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|param| param.name(Api::ChatCompletions) == name)
    }

    /// The caller's own name for it.
    pub fn name(self, api: Api) -> &'static str {
        match (self, api) {
            (Self::Stop, Api::Messages) => "stop_sequences",
            (Self::ResponseFormat | Self::ReasoningEffort, Api::Messages) => "output_config",
            (Self::User, Api::Messages) => "metadata.user_id",
            (Self::ResponseFormat, Api::Responses) => "text.format",
            (Self::Verbosity, Api::Responses) => "text.verbosity",
            (Self::ReasoningEffort | Self::Thinking, Api::Responses) => "reasoning.effort",
            (Self::MaxTokens, Api::Responses) => "max_output_tokens",
            (Self::Logprobs, Api::Responses) => "include",
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
            (Self::PromptCacheKey, _) => "prompt_cache_key",
            (Self::PromptCacheRetention, _) => "prompt_cache_retention",
            (Self::CacheControl, _) => "cache_control",
            (Self::ReasoningSummary, _) => "reasoning.summary",
            (Self::Name, _) => "messages[].name",
            (Self::Detail, _) => "detail",
            (Self::Citations, _) => "citations",
            (Self::Strict, _) => "strict",
        }
    }
}

/// Collects what a translation leaves out or changes, for the caller to be told; or refuses it.
#[derive(Debug)]
pub struct Notes {
    api: Api,
    strict: bool,
    dropped: Vec<String>,
    answer_tool: bool,
}

/// The most that a header tells.
const MAX_NOTES: usize = 32;

impl Notes {
    /// Notes for a caller of this API. `strict` refuses what would be noted.
    pub fn new(api: Api, strict: bool) -> Self {
        Self { api, strict, dropped: Vec::new(), answer_tool: false }
    }

    /// Leaves out a parameter that merely tunes the answer, or is for records and caches alone.
    ///
    /// # Errors
    /// A 400 naming it, if it tunes the answer and this caller wants to hear of it that way.
    pub fn drop(&mut self, param: Param) -> Result<(), Problem> {
        let name = param.name(self.api);
        if param.is_hint() {
            self.note(name);
            return Ok(());
        }
        self.drop_named(name)
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

    /// Judges every parameter that the caller has set and that the dialect does not have (`has` are those it has, in
    /// whatever form): what merely tunes the answer is left out, what the answer would lack is refused. Members that no
    /// dialect shares are left out, but for `extras`, which this one knows.
    ///
    /// # Errors
    /// A 400 naming the parameter.
    pub fn unsupported(&mut self, chat: &ChatRequest, has: &[Param], extras: &[&str]) -> Result<(), Problem> {
        let lacking: Vec<Param> = SETTABLE.into_iter().filter(|param| !has.contains(param)).collect();
        self.lacking(chat, &lacking)?;
        self.foreign(&chat.extra, extras)
    }

    /// Judges those of these parameters that the caller has set, as [`Self::unsupported`] does.
    ///
    /// # Errors
    /// A 400 naming the parameter.
    pub fn lacking(&mut self, chat: &ChatRequest, lacking: &[Param]) -> Result<(), Problem> {
        for param in lacking.iter().filter(|param| is_set(chat, **param)) {
            match param {
                Param::N => {
                    return Err(self.refuse(*param, "this model gives one choice for each request; send 1 or nothing."));
                }
                Param::Logprobs => return Err(self.refuse(*param, "this model's provider tells no probabilities.")),
                Param::LogitBias => return Err(self.refuse(*param, "this model's provider takes no bias.")),
                Param::Modalities => return Err(self.refuse(*param, "this model answers with text only.")),
                _ => self.drop(*param)?,
            }
        }
        Ok(())
    }

    /// Judges members that no dialect shares, but for those of a `known` name: what asks for something that only
    /// another provider does is refused, all else that asks for anything is left out.
    ///
    /// # Errors
    /// A 400 naming the member.
    pub fn foreign(&mut self, members: &Map<String, Value>, known: &[&str]) -> Result<(), Problem> {
        for (name, _) in members.iter().filter(|(_, value)| says_something(value)) {
            match name.as_str() {
                known_name if known.contains(&known_name) => {}
                "mcp_servers" | "container" => {
                    let advice = "only Anthropic does this for a model; leave it out, or call one of its models";
                    let code = "unsupported_parameter".to_owned();
                    return Err(Problem { code, ..Problem::invalid(name, format!("{name}: {advice}.")) });
                }
                _ => self.drop_named(name)?,
            }
        }
        Ok(())
    }

    /// The request with a tool in place of the schema that its answer must follow, for models that have no such mode;
    /// `None` if it asks for no schema.
    ///
    /// # Errors
    /// A 400 if a tool of the caller's has the tool's name.
    pub fn answer_by_tool(&mut self, chat: &ChatRequest) -> Result<Option<ChatRequest>, Problem> {
        let by_tool = answer_tool::in_place_of_schema(chat)?;
        self.answer_tool |= by_tool.is_some();
        Ok(by_tool)
    }

    /// Whether the answer is going to come by that tool.
    pub fn answers_by_tool(&self) -> bool {
        self.answer_tool
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

/// The parameters that [`Notes::unsupported`] judges; the others each dialect judges by itself.
const SETTABLE: [Param; 28] = [
    Param::N,
    Param::Logprobs,
    Param::LogitBias,
    Param::Modalities,
    Param::Temperature,
    Param::TopP,
    Param::TopK,
    Param::MinP,
    Param::PresencePenalty,
    Param::FrequencyPenalty,
    Param::RepetitionPenalty,
    Param::Seed,
    Param::Stop,
    Param::Verbosity,
    Param::Prediction,
    Param::User,
    Param::SafetyIdentifier,
    Param::Metadata,
    Param::ServiceTier,
    Param::Store,
    Param::PromptCacheKey,
    Param::PromptCacheRetention,
    Param::CacheControl,
    Param::ReasoningSummary,
    Param::Name,
    Param::Detail,
    Param::Citations,
    Param::Strict,
];

/// Whether the caller asks for anything by a parameter.
fn is_set(chat: &ChatRequest, param: Param) -> bool {
    let (sampling, output, caller) = (&chat.sampling, &chat.output, &chat.caller);
    match param {
        Param::N => sampling.n.is_some_and(|n| n != 1),
        Param::Logprobs => sampling.logprobs == Some(true),
        Param::LogitBias => sampling.logit_bias.is_some(),
        Param::Modalities => output.modalities.iter().any(|kind| kind != "text"),
        Param::Temperature => sampling.temperature.is_some(),
        Param::TopP => sampling.top_p.is_some_and(|p| p != 1.0),
        Param::TopK => sampling.top_k.is_some(),
        Param::MinP => sampling.min_p.is_some_and(|p| p != 0.0),
        Param::PresencePenalty => sampling.presence_penalty.is_some_and(|p| p != 0.0),
        Param::FrequencyPenalty => sampling.frequency_penalty.is_some_and(|p| p != 0.0),
        Param::RepetitionPenalty => sampling.repetition_penalty.is_some_and(|p| p != 1.0),
        Param::Seed => sampling.seed.is_some(),
        Param::Stop => !sampling.stop.is_empty(),
        Param::Verbosity => output.verbosity.is_some(),
        Param::Prediction => output.prediction.is_some(),
        Param::User => caller.user.is_some(),
        Param::SafetyIdentifier => caller.safety_identifier.is_some(),
        Param::Metadata => caller.metadata.is_some(),
        Param::ServiceTier => caller.service_tier.as_deref().is_some_and(|tier| tier != "auto"),
        Param::Store => caller.store == Some(true),
        Param::PromptCacheKey => caller.prompt_cache_key.is_some(),
        Param::PromptCacheRetention => caller.prompt_cache_retention.is_some(),
        Param::CacheControl => {
            chat.instructions.iter().any(|part| part.cache.is_some())
                || chat.tools.offered.iter().any(|tool| tool.cache.is_some())
                || any_part(chat, |part| part.cache.is_some())
        }
        Param::ReasoningSummary => chat.reasoning.summary.is_some(),
        Param::Name => chat.messages.iter().any(|message| message.name.is_some()),
        Param::Detail => any_part(
            chat,
            |part| matches!(&part.body, PartBody::Image { detail: Some(detail), .. } if detail != "auto"),
        ),
        Param::Citations => any_part(chat, |part| matches!(part.body, PartBody::Document { cite: true, .. })),
        Param::Strict => chat
            .tools
            .offered
            .iter()
            .any(|tool| matches!(&tool.body, ToolBody::Function(function) if function.strict == Some(true))),
        _ => false,
    }
}

/// Whether any part of the conversation is such, those within results included.
fn any_part(chat: &ChatRequest, is_such: impl Fn(&Part) -> bool) -> bool {
    let mut parts = chat.messages.iter().flat_map(|message| &message.parts);
    parts.any(|part| match &part.body {
        PartBody::Result { parts, .. } => is_such(part) || parts.iter().any(&is_such),
        _ => is_such(part),
    })
}

/// Whether a member asks for anything: null, false and empty lists and objects do not.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    }
}
