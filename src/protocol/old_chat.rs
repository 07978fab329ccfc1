//! The canonical chat request and reply that every dialect is translated to and from.
//!
//! The request has the shape of OpenAI's Chat Completions, the richest that is widely spoken. A reply is a sequence of
//! [`ChatEvent`]s whether it was streamed or not: a whole reply is decoded into the events that a stream of it would
//! have had, so that one decoder and one encoder a dialect serve both.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

pub use super::chat::ReplyFault;
use super::usage::{BillingFacts, Usage};

/// A chat request. Fields that no translation needs are kept in `extra`.
#[derive(Debug, Clone, Deserialize)]
pub struct ChatRequest {
    /// The model as the caller named it.
    pub model: String,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// Whether the reply is to be streamed.
    #[serde(default, deserialize_with = "null_is_default")]
    pub stream: bool,
    /// What the stream is to contain.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Most output tokens, reasoning included (the current name).
    #[serde(default)]
    pub max_completion_tokens: Option<u64>,
    /// Most output tokens (the older name).
    #[serde(default)]
    pub max_tokens: Option<u64>,
    /// Sampling temperature, 0 to 2.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Not OpenAI's, but widely understood: sample from the k likeliest tokens.
    #[serde(default)]
    pub top_k: Option<u64>,
    /// How many choices to generate.
    #[serde(default)]
    pub n: Option<u64>,
    /// Texts that end the reply.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// Tools the model may call.
    #[serde(default)]
    pub tools: Option<Vec<Tool>>,
    /// Which tool it may or must call.
    #[serde(default)]
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls may come at once.
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    #[serde(default)]
    pub response_format: Option<ResponseFormat>,
    /// How much to reason: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`.
    #[serde(default)]
    pub reasoning_effort: Option<String>,
    /// Anthropic's own reasoning setting, handed on as it is.
    #[serde(default)]
    pub thinking: Option<Value>,
    /// The caller's end user.
    #[serde(default)]
    pub user: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// The most output tokens the caller wants, under either name.
    pub fn output_limit(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Whether the caller asked for a usage chunk at the end of the stream.
    pub fn wants_stream_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }
}

/// The parameters that a translation leaves out, as they may stand in a header: callers can send members of any name,
/// length and number, so only names that could be a parameter's are told, and no more than 32 of them.
pub fn tellable_names<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let is_plain = |name: &&String| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    names.filter(is_plain).take(32).cloned().collect()
}

/// Options of a streamed reply.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct StreamOptions {
    /// Whether to send a last chunk with the usage.
    #[serde(default, deserialize_with = "null_is_default")]
    pub include_usage: bool,
}

/// One text or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub enum Stop {
    /// One text.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// A message of the conversation.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; an assistant message that only calls tools has none.
    #[serde(default)]
    pub content: Option<Content>,
    /// The tools that an assistant message calls.
    #[serde(default)]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call that a tool message answers.
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// An assistant's refusal.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Reasoning blocks of an earlier reply with their signatures, to be given back as they came.
    #[serde(default)]
    pub thinking_blocks: Option<Vec<Value>>,
    /// A prompt-cache marker for the whole message.
    #[serde(default)]
    pub cache_control: Option<Value>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by their newer name.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// The result of a function call, an older form of `tool`.
    Function,
}

/// Text, or parts.
#[derive(Debug, Clone)]
pub enum Content {
    /// Text.
    Text(String),
    /// Parts, in order.
    Parts(Vec<Part>),
}

impl Content {
    /// The text of it, parts joined.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Part::Text { text, .. } => Some(text.as_str()),
                    _ => None,
                })
                .collect::<Vec<_>>()
                .join(""),
        }
    }
}

// By hand and not `untagged`, so that an error keeps the path to the part that is wrong.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Content;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an array of content parts")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, seq: A) -> Result<Content, A::Error> {
                Vec::<Part>::deserialize(serde::de::value::SeqAccessDeserializer::new(seq)).map(Content::Parts)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A part of a message's content.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// A prompt-cache marker.
        #[serde(default)]
        cache_control: Option<Value>,
    },
    /// A refusal in an assistant message.
    Refusal {
        /// The refusal's text.
        refusal: String,
    },
    /// A picture.
    ImageUrl {
        /// Where it is.
        image_url: ImageUrl,
        /// A prompt-cache marker.
        #[serde(default)]
        cache_control: Option<Value>,
    },
    /// A document.
    File {
        /// Its content or id.
        file: File,
        /// A prompt-cache marker.
        #[serde(default)]
        cache_control: Option<Value>,
    },
    /// Sound.
    InputAudio {
        /// Format and data.
        input_audio: Value,
    },
}

/// A picture's address: `https:` or `data:`.
#[derive(Debug, Clone, Deserialize)]
pub struct ImageUrl {
    /// The address.
    pub url: String,
}

/// A document given inline or by id.
#[derive(Debug, Clone, Deserialize)]
pub struct File {
    /// A `data:` URL.
    #[serde(default)]
    pub file_data: Option<String>,
    /// The name.
    #[serde(default)]
    pub filename: Option<String>,
    /// The id of an uploaded file.
    #[serde(default)]
    pub file_id: Option<String>,
}

/// A call of a tool by the model.
#[derive(Debug, Clone, Deserialize)]
pub struct ToolCall {
    /// The call's id.
    pub id: String,
    /// Name and arguments.
    pub function: FunctionCall,
}

/// A function's name and arguments.
#[derive(Debug, Clone, Deserialize)]
pub struct FunctionCall {
    /// The name.
    pub name: String,
    /// JSON text.
    #[serde(default)]
    pub arguments: String,
}

/// A tool the model may call.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Tool {
    /// A function of the caller's.
    Function {
        /// Its definition.
        function: Function,
        /// A prompt-cache marker.
        #[serde(default)]
        cache_control: Option<Value>,
    },
}

/// A function's definition.
#[derive(Debug, Clone, Deserialize)]
pub struct Function {
    /// The name.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    #[serde(default)]
    pub parameters: Option<Value>,
    /// Whether the arguments must follow the schema exactly.
    #[serde(default)]
    pub strict: Option<bool>,
}

/// Which tool the model may or must call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// None.
    None,
    /// The model decides.
    Auto,
    /// At least one.
    Required,
    /// This one.
    Function(String),
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let named = value.pointer("/function/name").or_else(|| value.pointer("/name")).and_then(Value::as_str);
        match (value.as_str(), named) {
            (Some("none"), _) => Ok(Self::None),
            (Some("auto"), _) => Ok(Self::Auto),
            (Some("required" | "any"), _) => Ok(Self::Required),
            (None, Some(name)) => Ok(Self::Function(name.to_owned())),
            _ => Err(serde::de::Error::custom(
                "expected \"none\", \"auto\", \"required\" or {\"type\":\"function\",\"function\":{\"name\":…}}",
            )),
        }
    }
}

/// The form of the answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Free text.
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// Name, schema and strictness.
        json_schema: JsonSchema,
    },
}

/// A schema that the answer must follow.
#[derive(Debug, Clone, Deserialize)]
pub struct JsonSchema {
    /// The schema's name.
    #[serde(default)]
    pub name: Option<String>,
    /// What it describes.
    #[serde(default)]
    pub description: Option<String>,
    /// The schema.
    #[serde(default)]
    pub schema: Option<Value>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

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
    /// A finished reasoning block in the provider's own form, with its signature.
    ThinkingBlock {
        /// Which choice.
        choice: u32,
        /// The block.
        block: Value,
    },
    /// A tool call begins.
    ToolCallStart {
        /// Which choice.
        choice: u32,
        /// The call's position among the choice's calls, from 0.
        index: u32,
        /// The call's id.
        id: String,
        /// The function's name.
        name: String,
    },
    /// Arguments of a tool call.
    ToolCallArguments {
        /// Which choice.
        choice: u32,
        /// The call's position.
        index: u32,
        /// The next piece of the JSON text.
        fragment: String,
    },
    /// Sources, in OpenAI's `annotations` form.
    Annotations {
        /// Which choice.
        choice: u32,
        /// The annotations.
        annotations: Vec<Value>,
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

/// Why a choice ended, in OpenAI's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done, or a stop text came.
    Stop,
    /// The token limit.
    Length,
    /// It calls tools.
    ToolCalls,
    /// It was withheld.
    ContentFilter,
}

impl FinishReason {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
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
            "content_filter" | "sensitive" | "safety" | "refusal" => Self::ContentFilter,
            _ => Self::Stop,
        }
    }
}

/// Turns an upstream's stream into events. Feed it every piece, then call `finish` once.
pub trait ReplyDecoder {
    /// Decodes the next bytes, which may break off anywhere.
    ///
    /// # Errors
    /// [`ReplyFault`] if the provider reported an error or sent what cannot be understood.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault>;

    /// The stream has ended.
    ///
    /// # Errors
    /// [`ReplyFault::Truncated`] unless the reply is complete.
    fn finish(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(body: &str) -> (String, String) {
        let error = serde_path_to_error::deserialize::<_, ChatRequest>(&mut serde_json::Deserializer::from_str(body))
            .unwrap_err();
        (error.path().to_string(), error.inner().to_string())
    }

    #[test]
    fn a_type_error_has_the_path_to_what_is_wrong() {
        let (path, _) = error_of(r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":5}]}]}"#);
        assert!(path.starts_with("messages[0].content[0]"), "{path}");
        let (path, _) = error_of(r#"{"model":"m","messages":[{"role":"wizard","content":""}]}"#);
        assert_eq!(path, "messages[0].role");
        let (path, _) = error_of(r#"{"model":"m","messages":[],"temperature":"hot"}"#);
        assert_eq!(path, "temperature");
    }

    #[test]
    fn nulls_stand_for_absence() {
        let request: ChatRequest = serde_json::from_str(
            r#"{"model":"m","messages":[{"role":"assistant","content":null}],"stream":null,"stream_options":{"include_usage":null},"stop":null,"x":1}"#,
        )
        .unwrap();
        assert!(!request.stream && !request.wants_stream_usage() && request.stop.is_none());
        assert_eq!(request.extra.get("x"), Some(&serde_json::json!(1)));
    }
}
