//! A Chat Completions request as it stands on the wire.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
pub(super) struct Request {
    pub(super) model: String,
    pub(super) messages: Vec<Message>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) stream: bool,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) max_completion_tokens: Option<u64>,
    pub(super) max_tokens: Option<u64>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<u64>,
    pub(super) min_p: Option<f64>,
    pub(super) presence_penalty: Option<f64>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) repetition_penalty: Option<f64>,
    pub(super) seed: Option<i64>,
    pub(super) n: Option<u64>,
    pub(super) stop: Option<Stop>,
    pub(super) logit_bias: Option<Map<String, Value>>,
    pub(super) logprobs: Option<bool>,
    pub(super) top_logprobs: Option<u64>,
    pub(super) tools: Option<Vec<Value>>,
    pub(super) tool_choice: Option<Value>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) functions: Option<Vec<Function>>,
    pub(super) function_call: Option<Value>,
    pub(super) response_format: Option<ResponseFormat>,
    pub(super) verbosity: Option<String>,
    pub(super) modalities: Option<Vec<String>>,
    pub(super) audio: Option<Value>,
    pub(super) prediction: Option<Value>,
    pub(super) reasoning_effort: Option<String>,
    pub(super) thinking: Option<Value>,
    pub(super) user: Option<String>,
    pub(super) safety_identifier: Option<String>,
    pub(super) metadata: Option<Map<String, Value>>,
    pub(super) service_tier: Option<String>,
    pub(super) store: Option<bool>,
    pub(super) prompt_cache_key: Option<String>,
    pub(super) prompt_cache_retention: Option<String>,
    #[serde(flatten)]
    pub(super) extra: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) include_usage: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub(super) enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
pub(super) struct Message {
    pub(super) role: Role,
    #[serde(default)]
    pub(super) content: Option<Content>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) tool_calls: Option<Vec<ToolCall>>,
    #[serde(default)]
    pub(super) function_call: Option<FunctionCall>,
    #[serde(default)]
    pub(super) tool_call_id: Option<String>,
    #[serde(default)]
    pub(super) refusal: Option<String>,
    /// Reasoning blocks of an earlier reply with their signatures, to be given back as they came.
    #[serde(default)]
    pub(super) thinking_blocks: Option<Vec<Value>>,
    #[serde(default)]
    pub(super) reasoning_content: Option<Value>,
    #[serde(default)]
    pub(super) reasoning: Option<Value>,
    #[serde(default)]
    pub(super) reasoning_details: Option<Value>,
    #[serde(default)]
    pub(super) extra_content: Option<Value>,
    /// Pictures of an earlier reply.
    #[serde(default)]
    pub(super) images: Option<Vec<EarlierImage>>,
    /// Sound of an earlier reply, by the provider's name for it.
    #[serde(default)]
    pub(super) audio: Option<Value>,
    /// A prompt-cache marker for the whole message.
    #[serde(default)]
    pub(super) cache_control: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct EarlierImage {
    pub(super) image_url: ImageUrl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    /// The result of a function call, an older form of `tool`.
    Function,
}

#[derive(Debug)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
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

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part {
    Text {
        text: String,
        #[serde(default)]
        cache_control: Option<Value>,
        #[serde(default)]
        prompt_cache_breakpoint: Option<Value>,
    },
    Refusal {
        refusal: String,
    },
    /// Reasoning among the content, as Mistral has it.
    Thinking {
        #[serde(default)]
        thinking: Value,
    },
    ImageUrl {
        image_url: ImageUrl,
        #[serde(default)]
        cache_control: Option<Value>,
        #[serde(default)]
        prompt_cache_breakpoint: Option<Value>,
    },
    File {
        file: File,
        #[serde(default)]
        cache_control: Option<Value>,
        #[serde(default)]
        prompt_cache_breakpoint: Option<Value>,
    },
    InputAudio {
        input_audio: InputAudio,
    },
    VideoUrl {
        video_url: ImageUrl,
    },
}

/// An address, or an object with one: some providers take both.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected an object with `url`")]
pub(super) enum ImageUrl {
    Object {
        url: String,
        #[serde(default)]
        detail: Option<String>,
    },
    Text(String),
}

#[derive(Debug, Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub(super) file_data: Option<String>,
    #[serde(default)]
    pub(super) filename: Option<String>,
    #[serde(default)]
    pub(super) file_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct InputAudio {
    pub(super) data: String,
    pub(super) format: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToolCall {
    pub(super) id: String,
    #[serde(default)]
    pub(super) function: Option<FunctionCall>,
    #[serde(default)]
    pub(super) custom: Option<CustomCall>,
    #[serde(default)]
    pub(super) extra_content: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FunctionCall {
    pub(super) name: String,
    #[serde(default)]
    pub(super) arguments: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct CustomCall {
    pub(super) name: String,
    #[serde(default)]
    pub(super) input: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Function {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) parameters: Option<Value>,
    #[serde(default)]
    pub(super) strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: JsonSchema },
}

#[derive(Debug, Deserialize)]
pub(super) struct JsonSchema {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) schema: Option<Value>,
    #[serde(default)]
    pub(super) strict: Option<bool>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
