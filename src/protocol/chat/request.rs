//! The canonical chat request.

use serde_json::{Map, Value};

use super::message::{CacheMark, Message, TextPart};
use super::place::Place;
use crate::protocol::Api;

/// A chat request in no dialect. What a dialect cannot say is `None`; nothing here has a provider's default.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The API that it came by, whose names errors use.
    pub origin: Api,
    /// The model as the caller named it.
    pub model: String,
    /// Instructions that stand outside the conversation.
    pub instructions: Vec<TextPart>,
    /// The conversation, oldest first; instructions may stand anywhere in it.
    pub messages: Vec<Message>,
    /// Whether the reply is to be streamed.
    pub stream: bool,
    /// Whether a stream is to end with the usage, where the API leaves that to the caller.
    pub include_usage: bool,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What comes out.
    pub output: Output,
    /// Tools the model may call.
    pub tools: Tools,
    /// How much to think.
    pub reasoning: Reasoning,
    /// What is said of the caller and for its records.
    pub caller: CallerFacts,
    /// Members that dialects do not share, by the caller's own name.
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// A request without content.
    pub fn new(origin: Api, model: String) -> Self {
        Self {
            origin,
            model,
            instructions: Vec::new(),
            messages: Vec::new(),
            stream: false,
            include_usage: false,
            sampling: Sampling::default(),
            output: Output::default(),
            tools: Tools::default(),
            reasoning: Reasoning::default(),
            caller: CallerFacts::default(),
            extra: Map::new(),
        }
    }
}

/// How tokens are chosen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1.
    pub top_p: Option<f64>,
    /// From the k likeliest tokens.
    pub top_k: Option<u64>,
    /// Least probability, as a share of the likeliest token's.
    pub min_p: Option<f64>,
    /// −2 to 2.
    pub presence_penalty: Option<f64>,
    /// −2 to 2.
    pub frequency_penalty: Option<f64>,
    /// 1 is none.
    pub repetition_penalty: Option<f64>,
    /// For repeatable answers.
    pub seed: Option<i64>,
    /// Texts that end the reply.
    pub stop: Vec<String>,
    /// Bias by token id.
    pub logit_bias: Option<Map<String, Value>>,
    /// Whether to tell the probabilities of the tokens chosen.
    pub logprobs: Option<bool>,
    /// Of how many alternatives to tell them.
    pub top_logprobs: Option<u64>,
    /// How many choices to generate.
    pub n: Option<u64>,
}

/// What comes out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Most output tokens, reasoning included.
    pub max_tokens: Option<u64>,
    /// The form of the answer.
    pub format: Format,
    /// `low`, `medium`, `high`.
    pub verbosity: Option<String>,
    /// `text`, `audio`, `image`; empty where the caller says nothing.
    pub modalities: Vec<String>,
    /// Voice and format of spoken output, in OpenAI's form.
    pub audio: Option<Value>,
    /// Text that is likely to come, in OpenAI's form.
    pub prediction: Option<Value>,
    /// Whether the reply is to begin with the prompt (Completions).
    pub echo: bool,
}

/// The form of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Format {
    /// Free text.
    #[default]
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that follows a schema.
    Schema {
        /// The schema's name.
        name: Option<String>,
        /// What it describes.
        description: Option<String>,
        /// The schema.
        schema: Value,
        /// Whether to follow it exactly.
        strict: Option<bool>,
    },
}

/// Tools, and their use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tools {
    /// Those on offer.
    pub offered: Vec<Tool>,
    /// Which are to be called.
    pub choice: Option<ToolChoice>,
    /// Whether several calls may come at once.
    pub parallel: Option<bool>,
    /// Whether they were offered in the form that `functions` had before `tools`, which knows one call at a time.
    pub older: bool,
}

impl Tools {
    /// Those that may be called, for dialects that cannot offer others.
    pub fn allowed(&self) -> impl Iterator<Item = &Tool> {
        self.offered.iter().filter(|tool| match (&self.choice, tool.body.name()) {
            (Some(ToolChoice::Among { names, .. }), Some(name)) => names.iter().any(|allowed| allowed == name),
            _ => true,
        })
    }
}

/// A tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// What it is.
    pub body: ToolBody,
    /// A prompt-cache marker behind it.
    pub cache: Option<CacheMark>,
    /// Where the caller wrote it.
    pub at: Place,
}

/// What a tool is.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolBody {
    /// A function of the caller's.
    Function(Function),
    /// A tool of the caller's that takes free text.
    Custom {
        /// Its name.
        name: String,
        /// What it does.
        description: Option<String>,
        /// A grammar of its input, in OpenAI's form.
        format: Option<Value>,
    },
    /// A tool that the provider runs itself, in the caller's own words.
    Hosted {
        /// Its type.
        kind: String,
        /// The words.
        value: Value,
    },
}

impl ToolBody {
    /// Its name, if it is the caller's own.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Function(Function { name, .. }) | Self::Custom { name, .. } => Some(name),
            Self::Hosted { .. } => None,
        }
    }
}

/// A function.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    pub parameters: Option<Value>,
    /// Whether the arguments must follow the schema exactly.
    pub strict: Option<bool>,
}

/// Which tools are to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// None.
    None,
    /// The model decides.
    Auto,
    /// At least one.
    Required,
    /// This one.
    One(String),
    /// Of these only (OpenAI's `allowed_tools`).
    Among {
        /// Their names.
        names: Vec<String>,
        /// Whether at least one must be.
        required: bool,
    },
}

/// How much to think.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reasoning {
    /// In words.
    pub effort: Option<Effort>,
    /// In tokens.
    pub budget_tokens: Option<u64>,
    /// Whether at all.
    pub mode: Option<ThinkMode>,
    /// Anthropic's own setting as the caller wrote it, from which budget and mode were read.
    pub thinking: Option<Value>,
    /// Which summary of it to show (`auto`, `concise`, `detailed`).
    pub summary: Option<String>,
    /// Whether its proof is to come with the reply (Responses' `include`).
    pub include_encrypted: bool,
}

/// How much to think, in words, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Not at all.
    None,
    /// As little as can be.
    Minimal,
    /// Little.
    Low,
    /// The usual.
    Medium,
    /// Much.
    High,
    /// More.
    XHigh,
    /// As much as can be.
    Max,
}

impl Effort {
    /// All of them, least first.
    pub const ALL: [Self; 7] = [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::XHigh, Self::Max];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effort| effort.as_str() == word)
    }

    /// The effort that a budget of so many tokens stands for.
    pub fn of_budget(tokens: u64) -> Self {
        match tokens {
            0 => Self::None,
            1..4096 => Self::Low,
            4096..16_384 => Self::Medium,
            _ => Self::High,
        }
    }
}

/// Whether to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThinkMode {
    /// Yes.
    Enabled,
    /// No.
    Disabled,
    /// As the model sees fit.
    Adaptive,
}

/// What is said of the caller and for its records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallerFacts {
    /// The caller's end user.
    pub user: Option<String>,
    /// A hashed end user, for abuse reports.
    pub safety_identifier: Option<String>,
    /// Free pairs for the provider's records.
    pub metadata: Option<Map<String, Value>>,
    /// `auto`, `default`, `flex`, `priority`, …
    pub service_tier: Option<String>,
    /// Whether the provider is to keep the reply.
    pub store: Option<bool>,
    /// Groups requests whose prompts begin alike.
    pub prompt_cache_key: Option<String>,
    /// How long the provider is to keep the prompt's cache.
    pub prompt_cache_retention: Option<String>,
}
