//! Providers that speak as OpenAI does, each in its own way: `/p/{preset}/…`.
//!
//! A row says what a provider refuses, how its errors look, and what its replies have of their own. What a row does
//! not say is taken as it comes: no provider here checks as much as OpenAI does.

mod errors;
mod rules;
mod shape;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::Value;

use self::errors::Errors;
use self::rules::Rule;
use self::shape::Shape;
use crate::answer::{Limits, Want};
use crate::completions::Completions;
use crate::directives::Directives;
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::Route;
use crate::openai::{self, ChatRequest};
use crate::reply::{ApiError, Reply};
use crate::responses::{self, Strictness};
use crate::server::App;
use crate::side;

/// A provider.
#[derive(Debug)]
pub struct Preset {
    name: &'static str,
    errors: Errors,
    refuses: &'static [Rule],
    replies: &'static [Shape],
}

impl Preset {
    const fn plain(name: &'static str) -> Self {
        Self { name, errors: Errors::OpenAi, refuses: &[], replies: &[] }
    }
}

/// What Mistral knows in a request; it refuses the rest.
const MISTRAL: &[&str] = &[
    "model",
    "messages",
    "temperature",
    "top_p",
    "max_tokens",
    "stream",
    "stop",
    "random_seed",
    "response_format",
    "tools",
    "tool_choice",
    "presence_penalty",
    "frequency_penalty",
    "n",
    "prediction",
    "parallel_tool_calls",
    "prompt_mode",
    "reasoning_effort",
    "safe_prompt",
    "metadata",
    "document_image_limit",
    "document_page_limit",
    "guardrails",
    "prompt_cache_key",
];

/// What Groq knows in a request, and in a message.
const GROQ: &[&str] = &[
    "citation_options",
    "compound_custom",
    "disable_tool_validation",
    "documents",
    "exclude_domains",
    "frequency_penalty",
    "function_call",
    "functions",
    "include_domains",
    "include_reasoning",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "reasoning_format",
    "response_format",
    "search_settings",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
    "user",
];
const GROQ_MESSAGE: &[&str] = &[
    "role",
    "content",
    "tool_calls",
    "tool_call_id",
    "reasoning",
    "function_call",
    "refusal",
    "annotations",
    "audio",
    "executed_tools",
];

const PRESETS: &[Preset] = &[
    Preset {
        name: "mistral",
        errors: Errors::Mistral,
        refuses: &[
            Rule::MistralMembers(MISTRAL),
            Rule::MistralChoice,
            Rule::MistralCallIds,
            Rule::MistralOrder,
            Rule::MistralParts,
        ],
        replies: &[
            Shape::UsageAlways,
            Shape::CallsWhole,
            Shape::CallIds9,
            Shape::ThinkingParts,
            Shape::Finish("max_tokens", "model_length"),
        ],
    },
    Preset {
        name: "deepseek",
        errors: Errors::OpenAi,
        refuses: &[
            Rule::DeveloperUnknown,
            Rule::ReasoningBack(
                thinks_deepseek,
                "The `reasoning_content` in the thinking mode must be passed back to the API.",
            ),
            Rule::NoForcedChoice(thinks_deepseek, "deepseek-reasoner does not support this tool_choice"),
            Rule::NoSchema("This response_format type is unavailable now"),
        ],
        replies: &[Shape::DeepSeekUsage],
    },
    Preset {
        name: "moonshot",
        errors: Errors::Moonshot,
        refuses: &[
            Rule::MoonshotSampling,
            Rule::ReasoningBack(
                thinks_kimi,
                "thinking is enabled but reasoning_content is missing in assistant tool call message at index {}",
            ),
            Rule::MoonshotSchema,
        ],
        replies: &[Shape::UsageInChoice, Shape::FinishWithText, Shape::MoonshotUsage],
    },
    Preset {
        name: "groq",
        errors: Errors::OpenAi,
        refuses: &[
            Rule::GroqMembers(GROQ),
            Rule::GroqMessages(GROQ_MESSAGE),
            Rule::OneChoice("'n' : number must be at most 1"),
        ],
        replies: &[Shape::Reasoning("reasoning"), Shape::Groq],
    },
    Preset {
        name: "xai",
        errors: Errors::Xai,
        refuses: &[Rule::XaiReasoning],
        replies: &[Shape::CallsWhole, Shape::XaiUsage],
    },
    Preset {
        name: "openrouter",
        errors: Errors::OpenRouter,
        refuses: &[],
        replies: &[Shape::Reasoning("reasoning"), Shape::OpenRouter],
    },
    Preset { replies: &[Shape::Finish("stop", "eos")], ..Preset::plain("together") },
    Preset { replies: &[Shape::UsageAlways, Shape::FinishWithText], ..Preset::plain("fireworks") },
    Preset {
        name: "perplexity",
        errors: Errors::Perplexity,
        refuses: &[
            Rule::Lacks(&["tools", "tool_choice"], "Tool calling is not supported for this model."),
            Rule::Alternate(
                "After the (optional) system message(s), user or tool message(s) should alternate with assistant \
                 message(s).",
            ),
        ],
        replies: &[Shape::Reasoning("think"), Shape::Perplexity],
    },
    Preset {
        name: "zhipu",
        errors: Errors::Zhipu,
        refuses: &[
            Rule::OnlyAutoChoice("1210", "API 调用参数有误，请检查文档。tool_choice 仅支持 auto"),
            Rule::NeedsUser("1214", "messages 参数非法。请检查文档。"),
        ],
        replies: &[],
    },
    Preset {
        name: "dashscope",
        errors: Errors::DashScope,
        refuses: &[
            Rule::NoParts(
                &["file"],
                "Invalid value: file. Supported values are: text, image_url, video_url, input_audio",
            ),
            Rule::JsonWord,
            Rule::DashScopeThinking,
        ],
        replies: &[],
    },
    Preset {
        name: "qianfan",
        errors: Errors::Qianfan,
        refuses: &[Rule::Temperature(0.0, 1.0)],
        replies: &[Shape::UsageAlways, Shape::FinishWithText, Shape::Qianfan],
    },
    Preset {
        name: "cerebras",
        errors: Errors::Cerebras,
        refuses: &[Rule::LacksEach(&[
            "frequency_penalty",
            "presence_penalty",
            "logit_bias",
            "parallel_tool_calls",
            "service_tier",
        ])],
        replies: &[Shape::Reasoning("reasoning"), Shape::TimeInfo],
    },
    Preset {
        refuses: &[Rule::NoWebImages("invalid image input")],
        replies: &[Shape::Reasoning("reasoning")],
        ..Preset::plain("ollama")
    },
    Preset { errors: Errors::Vllm, ..Preset::plain("vllm") },
    Preset {
        errors: Errors::LmStudio,
        refuses: &[Rule::ChoiceIsWord(
            "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
        )],
        ..Preset::plain("lmstudio")
    },
    Preset { errors: Errors::WorkersAi, refuses: &[Rule::ModelPath], ..Preset::plain("workersai") },
    Preset::plain("huggingface"),
    Preset { replies: &[Shape::CallIdsAgain, Shape::Reasoning("reasoning")], ..Preset::plain("bedrock-mantle") },
];

/// What nobody has written a row for.
const UNKNOWN: &Preset = &Preset { refuses: &[Rule::NoSuchPreset], ..Preset::plain("unknown") };

/// Whether DeepSeek thinks: its newer models do unless told otherwise.
fn thinks_deepseek(body: &Value) -> bool {
    let model = body.get("model").and_then(Value::as_str).unwrap_or_default();
    match body.pointer("/thinking/type").and_then(Value::as_str) {
        Some(kind) => kind != "disabled",
        None => model.contains("reasoner") || model.contains("v4"),
    }
}

/// Whether Kimi thinks.
fn thinks_kimi(body: &Value) -> bool {
    rules::newer_kimi(body) && body.pointer("/thinking/type").and_then(Value::as_str) != Some("disabled")
}

fn named(name: &str) -> Option<&'static Preset> {
    let name = if name == "zai" { "zhipu" } else { name };
    PRESETS.iter().find(|preset| preset.name == name)
}

/// One endpoint of one provider.
#[derive(Debug)]
pub struct Housed {
    preset: &'static Preset,
    inner: Inner,
}

/// What an endpoint is for, whoever it belongs to.
#[derive(Debug)]
pub enum Inner {
    Chat,
    /// The same as at OpenAI.
    Shared(Box<dyn Endpoint>),
}

impl Inner {
    /// What a path is for.
    pub fn find(path: &str, strictness: Strictness) -> Option<Self> {
        Some(match path {
            _ if path.ends_with("/chat/completions") => Self::Chat,
            _ if path.ends_with("/completions") => Self::Shared(Box::new(Completions)),
            _ => match responses::find(path, strictness) {
                Some(responses) => Self::Shared(Box::new(responses)),
                None => Self::Shared(side::find(path)?),
            },
        })
    }

    pub fn route(&self) -> Route {
        match self {
            Self::Chat => Route::ChatCompletions,
            Self::Shared(endpoint) => endpoint.route(),
        }
    }

    pub fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Chat => &["POST"],
            Self::Shared(endpoint) => endpoint.methods(),
        }
    }

    pub fn needs_body(&self) -> bool {
        match self {
            Self::Chat => true,
            Self::Shared(endpoint) => endpoint.needs_body(),
        }
    }

    pub fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        match self {
            Self::Chat => openai::last_user_text(body),
            Self::Shared(endpoint) => endpoint.user_text(body),
        }
    }

    pub fn unreadable(&self, error: &str) -> ApiError {
        match self {
            Self::Chat => openai::unreadable(error),
            Self::Shared(endpoint) => endpoint.unreadable(error),
        }
    }
}

/// The endpoint that a path below `/p/{preset}` or Cloudflare's account names.
pub fn find(path: &str) -> Option<Housed> {
    let preset = match path.strip_prefix("/p/") {
        Some(rest) => named(rest.split_once('/')?.0).unwrap_or(UNKNOWN),
        None if path.contains("/client/v4/accounts/") && path.contains("/ai/v1/") => named("workersai")?,
        None => return None,
    };
    Some(Housed { preset, inner: Inner::find(path, Strictness::Open)? })
}

impl Endpoint for Housed {
    fn route(&self) -> Route {
        self.inner.route()
    }

    fn methods(&self) -> &'static [&'static str] {
        self.inner.methods()
    }

    fn needs_body(&self) -> bool {
        self.inner.needs_body()
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        self.inner.user_text(body)
    }

    fn unreadable(&self, error: &str) -> ApiError {
        self.inner.unreadable(error)
    }

    fn error_body(&self, error: &ApiError) -> String {
        self.preset.errors.body(error).to_string()
    }

    fn headers(&self, app: &App, reply: Reply) -> Reply {
        reply.header("x-request-id", app.id("req_", 32))
    }

    fn respond(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        match &self.inner {
            Inner::Chat => self.preset.chat(app, body, directives),
            Inner::Shared(endpoint) => endpoint.respond(app, request, body, directives),
        }
    }
}

impl Preset {
    fn chat(&self, app: &App, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        self.check(body)?;
        let mut request = read(body)?;
        let has = |shape: &Shape| self.replies.contains(shape);
        let inline = has(&Shape::UsageAlways) || has(&Shape::UsageInChoice) && request.include_usage;
        let everywhere = has(&Shape::Groq) || has(&Shape::Perplexity);
        request.include_usage |= inline || everywhere || has(&Shape::OpenRouter);
        let shaped = Directives {
            usage_inline: directives.usage_inline || inline || everywhere,
            reasoning_content: directives.reasoning_content || directives.reasoning.is_some_and(|words| words > 0),
            ..directives.clone()
        };
        if directives.malformed_call && has(&Shape::Groq) && !request.stream {
            return Err(shape::groq_malformed());
        }
        let conversation = openai::converse(&request);
        let mut said = openai::say(app, &request, &conversation, &shaped);
        self.reword(app, &mut said);
        let head = openai::Head::new(app, &request);
        if request.stream {
            let stream = openai::stream(&request, &said, &head, &shaped);
            return Ok(Reply::stream("text/event-stream; charset=utf-8", self.events(stream, &said, &shaped)));
        }
        let mut whole = serde_json::from_str(&openai::whole(&said, &head, &shaped)).unwrap_or(Value::Null);
        self.reshape_whole(&mut whole, &said, &shaped);
        Ok(Reply::json(200, whole.to_string()))
    }

    /// Checks a request against the rules of the row.
    fn check(&self, body: &Value) -> Result<(), ApiError> {
        self.refuses.iter().try_for_each(|rule| rule.check(body))
    }
}

/// Reads a request without finding fault with it.
fn read(body: &Value) -> Result<ChatRequest<'_>, ApiError> {
    let field = |name: &str| body.get(name).filter(|value| !value.is_null());
    let Some(model) = field("model").and_then(Value::as_str) else {
        return Err(openai::missing("model"));
    };
    let messages = match field("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages.as_slice(),
        Some(Value::Array(_)) | None => return Err(openai::missing("messages")),
        Some(other) => return Err(openai::wrong_type("messages", "an array of objects", other)),
    };
    let offered = field("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let tools = offered.iter().filter_map(|tool| {
        let name = tool.pointer("/function/name").and_then(Value::as_str)?;
        Some((name, tool.pointer("/function/parameters").unwrap_or(&Value::Null)))
    });
    let choice = field("tool_choice");
    let named = choice.and_then(|choice| choice.pointer("/function/name")).and_then(Value::as_str);
    let word = choice.and_then(Value::as_str);
    let stream = openai::check_bool("stream", field("stream"))?.unwrap_or(false);
    let format = field("response_format");
    let want = match format.and_then(|format| format.get("type")).and_then(Value::as_str) {
        Some("json_object") => Want::JsonObject,
        Some("json_schema") => {
            format.and_then(|format| format.pointer("/json_schema/schema")).map_or(Want::JsonObject, Want::Json)
        }
        _ => Want::Prose,
    };
    let max_tokens = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| field(name)?.as_u64());
    Ok(ChatRequest {
        model,
        messages,
        stream,
        include_usage: body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
        choices: field("n").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(1).clamp(1, 128),
        limits: Limits { max_tokens, stop: openai::check_stop(field("stop"))? },
        tools: tools.filter(|(name, _)| named.is_none_or(|named| named == *name)).collect(),
        forbidden: word == Some("none"),
        forced: named.is_some() || matches!(word, Some("required" | "any")),
        parallel: field("parallel_tool_calls") != Some(&Value::Bool(false)),
        want,
    })
}
