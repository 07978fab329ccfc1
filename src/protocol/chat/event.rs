//! A reply as a sequence of events.

use serde_json::Value;

use super::message::{Lineage, ReasoningPart, Signature};
use crate::protocol::usage::{BillingFacts, Usage};

/// One step of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatEvent {
    /// The reply's identity; comes first.
    Start {
        /// The upstream's id of the reply.
        id: String,
        /// The model that answers, as the upstream names it.
        model: String,
        /// Unix seconds, where the upstream tells.
        created: Option<u64>,
    },
    /// Text of the answer.
    Text {
        /// Which choice.
        choice: u32,
        /// The next piece.
        text: String,
        /// Log probabilities of its tokens, in OpenAI's form.
        logprobs: Option<Value>,
    },
    /// Text of a refusal.
    Refusal {
        /// Which choice.
        choice: u32,
        /// The next piece.
        text: String,
    },
    /// Reasoning that the provider shows.
    Reasoning {
        /// Which choice.
        choice: u32,
        /// The next piece.
        text: String,
    },
    /// A reasoning block is complete. Its text has come before, as [`Self::Reasoning`], and is repeated here whole.
    ReasoningDone {
        /// Which choice.
        choice: u32,
        /// The block.
        part: ReasoningPart,
    },
    /// A tool call begins.
    CallStart {
        /// Which choice.
        choice: u32,
        /// The call's position among the choice's calls, from 0 without gaps.
        index: u32,
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
        /// Whether the tool takes free text.
        custom: bool,
    },
    /// Arguments of a tool call. A call that was begun and not cut off has some: `{}` at least.
    CallArguments {
        /// Which choice.
        choice: u32,
        /// The call's position.
        index: u32,
        /// The next piece of the JSON text.
        fragment: String,
    },
    /// Proof of reasoning that belongs to a call, or to the text so far.
    Proof {
        /// Which choice.
        choice: u32,
        /// The call's position.
        index: Option<u32>,
        /// The proof.
        signature: Signature,
    },
    /// A source of the text so far.
    Citation {
        /// Which choice.
        choice: u32,
        /// The source.
        citation: Citation,
    },
    /// A picture that the model made.
    Picture {
        /// Which choice.
        choice: u32,
        /// Its media type.
        media_type: String,
        /// Base64.
        data: String,
    },
    /// Some of the sound that the model made.
    Sound {
        /// Which choice.
        choice: u32,
        /// What of it came.
        piece: SoundPiece,
    },
    /// What a provider's own tool did, in its own words.
    Hosted {
        /// Which choice.
        choice: u32,
        /// Whose it is.
        family: Lineage,
        /// The words.
        value: Value,
    },
    /// A choice is complete.
    Finish {
        /// Which choice.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// What the reply used, as far as is known; a later one replaces an earlier one.
    Usage(Usage),
    /// What its price depends on besides, where the provider tells it.
    Billed(BillingFacts),
}

/// Sound in pieces, each of which can be decoded by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SoundPiece {
    /// The provider's name for all of it.
    pub id: Option<String>,
    /// Base64, padded.
    pub data: String,
    /// What is said in it.
    pub transcript: String,
    /// Until when the provider knows it by its name, in Unix seconds.
    pub expires_at: Option<u64>,
}

/// A source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Citation {
    /// Its address.
    pub url: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// The words that are cited.
    pub cited_text: Option<String>,
    /// The first character of the answer that rests on it.
    pub start: Option<u64>,
    /// The character behind the last.
    pub end: Option<u64>,
    /// As the provider said it: passed on word for word where the caller's dialect is that family's.
    pub native: Option<(Lineage, Value)>,
}

impl Citation {
    /// The place in a document of the caller's that has no address, in Anthropic's form, which is the only one that has
    /// such places.
    pub fn in_document(&self) -> Option<&Value> {
        match &self.native {
            Some((Lineage::Anthropic, place)) if self.url.is_none() => Some(place),
            _ => None,
        }
    }
}

/// Why a choice ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// This stop text came.
    StopSequence(String),
    /// The token limit.
    Length,
    /// The model's context is full.
    ContextFull,
    /// It calls tools.
    ToolCalls,
    /// It was withheld.
    ContentFilter {
        /// The provider's word for why.
        category: Option<String>,
    },
    /// The model declined.
    Refusal,
    /// The provider's own tools need another turn.
    Pause,
}

impl FinishReason {
    /// Withheld, for no reason told.
    pub const FILTERED: Self = Self::ContentFilter { category: None };

    /// In OpenAI's words.
    pub fn as_openai(&self) -> &'static str {
        match self {
            Self::Stop | Self::StopSequence(_) | Self::Pause => "stop",
            Self::Length | Self::ContextFull => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter { .. } | Self::Refusal => "content_filter",
        }
    }

    /// Whether a word that stands for a finish reason says that the reply failed: its text breaks off, and it must not
    /// be passed on as complete. `error` is Mistral's and OpenRouter's, `network_error` Zhipu's, `abort` vLLM's,
    /// `insufficient_system_resource` DeepSeek's.
    pub fn is_failure(word: &str) -> bool {
        matches!(word, "error" | "network_error" | "abort" | "insufficient_system_resource")
    }

    /// Reads OpenAI's word; the words of OpenAI-like providers that differ are taken for the nearest one.
    pub fn from_openai(word: &str) -> Self {
        match word {
            "length" | "max_tokens" | "max_output_tokens" | "model_length" => Self::Length,
            "tool_calls" | "function_call" | "tool_use" => Self::ToolCalls,
            "content_filter" | "sensitive" | "safety" => Self::FILTERED,
            "refusal" => Self::Refusal,
            _ => Self::Stop,
        }
    }
}
