//! Providers that speak as OpenAI does, each in its own way: a row for each, and no code.
//!
//! A row says what the provider is known to refuse or to ignore, and how the same is said there. What is not known to be
//! refused is sent. Facts are from the providers' documentation and from recorded traffic, on the day of writing.

use super::auth::AuthKind;
use super::quirks::{Choice, MessageQuirk, Quirk, ReasoningWire, SchemaWire};
use crate::config::{Preset, ProviderDialect, StreamUsage, Wire};
use crate::protocol::chat::Lineage;

/// What is known of a provider.
#[derive(Debug)]
pub struct Row {
    /// The dialect.
    pub dialect: ProviderDialect,
    /// Where it is; `None` where only the operator knows.
    pub base_url: Option<&'static str>,
    /// Where a request carries its key.
    pub auth: AuthKind,
    /// Which of OpenAI's APIs it serves.
    pub wires: &'static [Wire],
    /// What it serves beside them: paths below the base URL.
    pub endpoints: &'static [&'static str],
    /// How a stream tells its usage.
    pub stream_usage: StreamUsage,
    /// The only members of a request that it takes; `None` if it bears with all.
    pub members: Option<&'static [&'static str]>,
    /// What becomes of single members.
    pub rules: &'static [(&'static str, Quirk)],
    /// What becomes of messages.
    pub messages: &'static [MessageQuirk],
    /// What it takes for `tool_choice`.
    pub choice: Choice,
    /// Whether parameters of tools must be of type `object`, without `$schema`.
    pub object_parameters: bool,
    /// What it takes for a schema of the answer.
    pub schema: SchemaWire,
    /// How it is told how much to think.
    pub reasoning: ReasoningWire,
    /// The name of the most output tokens in requests that are written anew; `None`: as the model's family has it.
    pub max_tokens: Option<&'static str>,
    /// Whose proofs of reasoning it takes back.
    pub lineage: Lineage,
    /// The member of an assistant's message in which it takes the reasoning's text back.
    pub reasoning_back: Option<&'static str>,
    /// Whether it takes prompt-cache markers, as Anthropic has them.
    pub cache_marks: bool,
    /// Whether reasoning stands in the text of its replies, between `<think>` and `</think>`.
    pub thinks_in_text: bool,
    /// Its codes of errors, with OpenAI's words for them.
    pub codes: &'static [(&'static str, &'static str)],
}

impl Row {
    /// Whether requests are changed for it at all.
    pub fn has_quirks(&self) -> bool {
        self.members.is_some()
            || !self.rules.is_empty()
            || !self.messages.is_empty()
            || self.choice != Choice::AsIs
            || self.object_parameters
            || self.schema != SchemaWire::AsIs
            || self.reasoning != ReasoningWire::AsIs
    }

    /// Whether it serves what stands at this path below the base URL.
    pub fn has(&self, path: &str) -> bool {
        self.endpoints.contains(&path)
    }

    /// Why it takes no pictures by address, and what to do; `None` if it takes them.
    pub fn fetches_nothing(&self) -> Option<&'static str> {
        self.messages.iter().find_map(|quirk| match quirk {
            MessageQuirk::RefuseWebImages(advice) => Some(*advice),
            _ => None,
        })
    }

    /// Why it takes no files, and what to do; `None` if it takes them.
    pub fn refuses_files(&self) -> Option<&'static str> {
        self.messages.iter().find_map(|quirk| match quirk {
            MessageQuirk::RefusePart("file", advice) => Some(*advice),
            _ => None,
        })
    }

    /// A code of its errors in OpenAI's words, where there is one.
    pub fn code(&self, own: String) -> String {
        let known = self.codes.iter().find(|(code, _)| *code == own);
        known.map_or(own, |(_, word)| (*word).to_owned())
    }
}

const EMBEDDINGS: &str = "/embeddings";
const MODERATIONS: &str = "/moderations";
const RERANK: &str = "/rerank";
const IMAGES: &str = "/images/generations";
const EDITS: &str = "/images/edits";
const SPEECH: &str = "/audio/speech";
const TRANSCRIPTIONS: &str = "/audio/transcriptions";
const TRANSLATIONS: &str = "/audio/translations";
const COMPLETIONS: &str = "/completions";

/// All that OpenAI has.
const ALL: &[&str] =
    &[COMPLETIONS, EMBEDDINGS, MODERATIONS, IMAGES, EDITS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS, RERANK];

/// A provider of which only the dialect is known.
pub const PLAIN: Row = Row {
    dialect: ProviderDialect::OpenAi,
    base_url: None,
    auth: AuthKind::Bearer,
    wires: &[Wire::Chat],
    endpoints: ALL,
    stream_usage: StreamUsage::OnRequest,
    members: None,
    rules: &[],
    messages: &[],
    choice: Choice::AsIs,
    object_parameters: false,
    schema: SchemaWire::AsIs,
    reasoning: ReasoningWire::AsIs,
    max_tokens: None,
    lineage: Lineage::OpenAi,
    reasoning_back: None,
    cache_marks: false,
    thinks_in_text: false,
    codes: &[],
};

/// One that has no more than chat beside what it says, and does not know OpenAI's newer role.
const LIKE: Row = Row { endpoints: &[], messages: &[MessageQuirk::DeveloperIsSystem], max_tokens: MAX_TOKENS, ..PLAIN };

const MAX_TOKENS: Option<&str> = Some("max_tokens");
const NEWER_MAX_TOKENS: Option<&str> = Some("max_completion_tokens");

/// The newer name of the most output tokens is not known there.
const ONLY_MAX_TOKENS: (&str, Quirk) = ("max_completion_tokens", Quirk::Rename("max_tokens"));

const OPENAI: Row = Row {
    base_url: Some("https://api.openai.com/v1"),
    wires: &[Wire::Chat, Wire::Responses],
    endpoints: &[COMPLETIONS, EMBEDDINGS, MODERATIONS, IMAGES, EDITS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS],
    ..PLAIN
};

// learn.microsoft.com, Azure OpenAI REST API reference.
const AZURE: Row = Row {
    base_url: None,
    auth: AuthKind::Header { name: "api-key" },
    max_tokens: NEWER_MAX_TOKENS,
    endpoints: &[COMPLETIONS, EMBEDDINGS, IMAGES, EDITS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS],
    messages: &[MessageQuirk::RefusePart("file", "Azure takes no files here; call the model by the Responses API.")],
    codes: &[("DeploymentNotFound", "model_not_found"), ("ResponsibleAIPolicyViolation", "content_filter")],
    ..OPENAI
};

const ANTHROPIC: Row =
    Row { dialect: ProviderDialect::Anthropic, base_url: Some("https://api.anthropic.com"), endpoints: &[], ..PLAIN };

const GEMINI: Row = Row {
    dialect: ProviderDialect::Gemini,
    base_url: Some("https://generativelanguage.googleapis.com/v1beta"),
    endpoints: &[EMBEDDINGS],
    ..PLAIN
};

const BEDROCK: Row = Row { dialect: ProviderDialect::Bedrock, endpoints: &[], ..PLAIN };

const BEDROCK_MANTLE: Row = Row { endpoints: &[], ..PLAIN };

// docs.mistral.ai/api: the body is closed, and so are messages (422 `extra_forbidden`).
const MISTRAL: Row = Row {
    base_url: Some("https://api.mistral.ai/v1"),
    endpoints: &[EMBEDDINGS, MODERATIONS, TRANSCRIPTIONS],
    stream_usage: StreamUsage::Always,
    members: Some(&[
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
    ]),
    rules: &[
        ONLY_MAX_TOKENS,
        ("seed", Quirk::Rename("random_seed")),
        ("stream_options", Quirk::Forget),
        ("store", Quirk::Drop),
        ("tools", Quirk::DropIfEmpty),
        ("logprobs", Quirk::Refuse("this model's provider tells no probabilities.")),
        ("logit_bias", Quirk::Refuse("this model's provider takes no bias.")),
    ],
    messages: &[
        MessageQuirk::DeveloperIsSystem,
        MessageQuirk::Known(&[
            ("system", &["role", "content"]),
            ("user", &["role", "content"]),
            ("assistant", &["role", "content", "tool_calls", "prefix"]),
            ("tool", &["role", "content", "tool_call_id", "name"]),
        ]),
        MessageQuirk::PartsOfMistral,
        MessageQuirk::CallIds9,
        MessageQuirk::BridgeAfterTool,
        MessageQuirk::PrefixLast,
    ],
    choice: Choice::Any,
    reasoning: ReasoningWire::Words,
    max_tokens: MAX_TOKENS,
    ..LIKE
};

// api-docs.deepseek.com, "Thinking mode" and "JSON output".
const DEEPSEEK: Row = Row {
    base_url: Some("https://api.deepseek.com"),
    rules: &[ONLY_MAX_TOKENS],
    messages: &[MessageQuirk::DeveloperIsSystem, MessageQuirk::ReasoningBack],
    choice: Choice::ByFamily,
    schema: SchemaWire::Instructed,
    reasoning: ReasoningWire::Thinking,
    reasoning_back: Some("reasoning_content"),
    ..LIKE
};

// console.groq.com/docs/openai and the API reference.
const GROQ: Row = Row {
    base_url: Some("https://api.groq.com/openai/v1"),
    endpoints: &[SPEECH, TRANSCRIPTIONS, TRANSLATIONS],
    members: Some(&[
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
    ]),
    rules: &[
        ("logprobs", Quirk::Refuse("this model's provider tells no probabilities.")),
        ("logit_bias", Quirk::Refuse("this model's provider takes no bias.")),
        ("n", Quirk::Refuse("this model gives one choice for each request; send 1 or nothing.")),
    ],
    messages: &[MessageQuirk::DeveloperIsSystem, MessageQuirk::Lacks(&["name", "reasoning_content"])],
    reasoning: ReasoningWire::Groq,
    max_tokens: NEWER_MAX_TOKENS,
    reasoning_back: Some("reasoning"),
    ..LIKE
};

// docs.x.ai, "Reasoning".
const XAI: Row = Row {
    base_url: Some("https://api.x.ai/v1"),
    wires: &[Wire::Chat, Wire::Responses],
    endpoints: &[COMPLETIONS, EMBEDDINGS, IMAGES],
    rules: &[
        ("presence_penalty", Quirk::DropWhereReasoning),
        ("frequency_penalty", Quirk::DropWhereReasoning),
        ("stop", Quirk::DropWhereReasoning),
    ],
    messages: &[],
    reasoning: ReasoningWire::Words,
    max_tokens: NEWER_MAX_TOKENS,
    ..LIKE
};

const OPENROUTER: Row = Row {
    base_url: Some("https://openrouter.ai/api/v1"),
    endpoints: &[COMPLETIONS, EMBEDDINGS],
    messages: &[],
    reasoning: ReasoningWire::Object,
    lineage: Lineage::OpenRouter,
    cache_marks: true,
    codes: &[("402", "insufficient_quota"), ("408", "timeout_error"), ("429", "rate_limit_exceeded")],
    ..LIKE
};

// docs.together.ai: `logprobs` is a number there.
const TOGETHER: Row = Row {
    base_url: Some("https://api.together.xyz/v1"),
    endpoints: &[COMPLETIONS, EMBEDDINGS, RERANK, IMAGES, SPEECH, TRANSCRIPTIONS, TRANSLATIONS],
    rules: &[ONLY_MAX_TOKENS, ("logprobs", Quirk::Map(&[("true", "1"), ("false", "0")]))],
    ..LIKE
};

const FIREWORKS: Row = Row {
    base_url: Some("https://api.fireworks.ai/inference/v1"),
    endpoints: &[COMPLETIONS, EMBEDDINGS, RERANK],
    rules: &[ONLY_MAX_TOKENS],
    reasoning_back: Some("reasoning_content"),
    ..LIKE
};

// docs.perplexity.ai: no tools; roles take turns, and the last to speak is the user.
const PERPLEXITY: Row = Row {
    base_url: Some("https://api.perplexity.ai"),
    stream_usage: StreamUsage::Always,
    rules: &[
        ONLY_MAX_TOKENS,
        ("tools", Quirk::Refuse("this model's provider knows no tools; call another model.")),
        ("tool_choice", Quirk::Forget),
        ("parallel_tool_calls", Quirk::Forget),
        ("stream_options", Quirk::Forget),
        ("n", Quirk::Refuse("this model gives one choice for each request; send 1 or nothing.")),
        ("logprobs", Quirk::Refuse("this model's provider tells no probabilities.")),
        ("seed", Quirk::Drop),
        ("stop", Quirk::Drop),
    ],
    messages: &[MessageQuirk::DeveloperIsSystem, MessageQuirk::Alternate],
    thinks_in_text: true,
    ..LIKE
};

// platform.moonshot.ai/docs: Kimi K2.5 and later set their sampling themselves.
const MOONSHOT: Row = Row {
    base_url: Some("https://api.moonshot.ai/v1"),
    rules: &[
        ONLY_MAX_TOKENS,
        ("temperature", Quirk::DropWhereFixed),
        ("top_p", Quirk::DropWhereFixed),
        ("presence_penalty", Quirk::DropWhereFixed),
        ("frequency_penalty", Quirk::DropWhereFixed),
    ],
    messages: &[MessageQuirk::DeveloperIsSystem, MessageQuirk::ReasoningBack],
    object_parameters: true,
    reasoning: ReasoningWire::Thinking,
    reasoning_back: Some("reasoning_content"),
    ..LIKE
};

// docs.bigmodel.cn and docs.z.ai, "Chat completion" and "Errors".
const ZHIPU: Row = Row {
    base_url: Some("https://open.bigmodel.cn/api/paas/v4"),
    endpoints: &[EMBEDDINGS, RERANK, IMAGES],
    rules: &[ONLY_MAX_TOKENS, ("user", Quirk::RenameText("user_id", 6, 128))],
    messages: &[MessageQuirk::DeveloperIsSystem, MessageQuirk::NeedsUser],
    choice: Choice::AutoAlone,
    schema: SchemaWire::Instructed,
    reasoning: ReasoningWire::Thinking,
    reasoning_back: Some("reasoning_content"),
    codes: &[
        ("1000", "invalid_api_key"),
        ("1001", "invalid_api_key"),
        ("1002", "invalid_api_key"),
        ("1003", "invalid_api_key"),
        ("1004", "invalid_api_key"),
        ("1113", "insufficient_quota"),
        ("1211", "model_not_found"),
        ("1261", "context_length_exceeded"),
        ("1301", "content_filter"),
        ("1302", "rate_limit_exceeded"),
        ("1303", "rate_limit_exceeded"),
        ("1305", "overloaded"),
    ],
    ..LIKE
};

const ZAI: Row = Row { base_url: Some("https://api.z.ai/api/paas/v4"), ..ZHIPU };

// help.aliyun.com/zh/model-studio, "OpenAI compatible" and "Deep thinking".
const DASHSCOPE: Row = Row {
    base_url: Some("https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
    endpoints: &[COMPLETIONS, EMBEDDINGS],
    rules: &[ONLY_MAX_TOKENS, ("frequency_penalty", Quirk::Drop)],
    messages: &[
        MessageQuirk::DeveloperIsSystem,
        MessageQuirk::RefusePart(
            "file",
            "this model's provider takes no files here; send the text, or pictures of it.",
        ),
    ],
    choice: Choice::ByFamily,
    schema: SchemaWire::ByFamily,
    reasoning: ReasoningWire::EnableThinking,
    reasoning_back: Some("reasoning_content"),
    codes: &[("Arrearage", "insufficient_quota"), ("limit_requests", "rate_limit_exceeded")],
    ..LIKE
};

// cloud.baidu.com/doc/qianfan-api: ERNIE's temperature is above 0, and 1 at most.
const QIANFAN: Row = Row {
    base_url: Some("https://qianfan.baidubce.com/v2"),
    endpoints: &[EMBEDDINGS, RERANK, IMAGES],
    rules: &[("temperature", Quirk::ClampFor("ernie", 0.01, 1.0))],
    reasoning: ReasoningWire::EnableThinking,
    max_tokens: NEWER_MAX_TOKENS,
    codes: &[("invalid_iam_token", "invalid_api_key")],
    ..LIKE
};

// inference-docs.cerebras.ai, "OpenAI compatibility".
const CEREBRAS: Row = Row {
    base_url: Some("https://api.cerebras.ai/v1"),
    endpoints: &[COMPLETIONS],
    rules: &[
        ("frequency_penalty", Quirk::Drop),
        ("presence_penalty", Quirk::Drop),
        ("parallel_tool_calls", Quirk::Drop),
        ("service_tier", Quirk::Drop),
        ("logit_bias", Quirk::Refuse("this model's provider takes no bias.")),
    ],
    max_tokens: NEWER_MAX_TOKENS,
    ..LIKE
};

const HUGGINGFACE: Row = Row { base_url: Some("https://router.huggingface.co/v1"), ..LIKE };

// docs.ollama.com/openai: what is listed as unsupported is ignored, and pictures are not fetched.
const OLLAMA: Row = Row {
    endpoints: &[COMPLETIONS, EMBEDDINGS],
    rules: &[
        ONLY_MAX_TOKENS,
        ("logit_bias", Quirk::Refuse("this model's provider takes no bias.")),
        ("n", Quirk::Refuse("this model gives one choice for each request; send 1 or nothing.")),
        ("user", Quirk::Drop),
    ],
    messages: &[
        MessageQuirk::DeveloperIsSystem,
        MessageQuirk::RefuseWebImages("this model's provider fetches nothing; send the picture itself, as a data URL."),
    ],
    choice: Choice::Unknown,
    ..LIKE
};

const VLLM: Row = Row {
    endpoints: &[COMPLETIONS, EMBEDDINGS, RERANK, TRANSCRIPTIONS, TRANSLATIONS],
    reasoning_back: Some("reasoning_content"),
    ..LIKE
};

// lmstudio.ai/docs: `tool_choice` is a word.
const LMSTUDIO: Row = Row {
    wires: &[Wire::Chat, Wire::Responses],
    endpoints: &[COMPLETIONS, EMBEDDINGS],
    rules: &[ONLY_MAX_TOKENS],
    choice: Choice::WordAlone,
    ..LIKE
};

// developers.cloudflare.com/workers-ai: OpenAI compatible endpoints, Errors.
const WORKERSAI: Row = Row {
    endpoints: &[EMBEDDINGS],
    rules: &[ONLY_MAX_TOKENS],
    codes: &[
        ("5007", "model_not_found"),
        ("3042", "model_not_found"),
        ("3006", "context_length_exceeded"),
        ("3036", "insufficient_quota"),
        ("3040", "overloaded"),
        ("10000", "invalid_api_key"),
    ],
    ..LIKE
};

/// All of them, in the order in which people look for them: the setting, the provider's own name, and what is known.
pub const ROWS: &[(Preset, &str, Row)] = &[
    (Preset::OpenAi, "OpenAI", OPENAI),
    (Preset::Azure, "Azure OpenAI", AZURE),
    (Preset::Anthropic, "Anthropic", ANTHROPIC),
    (Preset::Gemini, "Google Gemini", GEMINI),
    (Preset::Bedrock, "Amazon Bedrock, Converse", BEDROCK),
    (Preset::BedrockMantle, "Amazon Bedrock, OpenAI's dialect", BEDROCK_MANTLE),
    (Preset::Mistral, "Mistral", MISTRAL),
    (Preset::DeepSeek, "DeepSeek", DEEPSEEK),
    (Preset::Groq, "Groq", GROQ),
    (Preset::Xai, "xAI", XAI),
    (Preset::OpenRouter, "OpenRouter", OPENROUTER),
    (Preset::Together, "Together AI", TOGETHER),
    (Preset::Fireworks, "Fireworks AI", FIREWORKS),
    (Preset::Perplexity, "Perplexity", PERPLEXITY),
    (Preset::Moonshot, "Moonshot AI", MOONSHOT),
    (Preset::Zhipu, "Zhipu AI, China", ZHIPU),
    (Preset::Zai, "Zhipu AI, elsewhere", ZAI),
    (Preset::DashScope, "Alibaba Model Studio", DASHSCOPE),
    (Preset::Qianfan, "Baidu Qianfan v2", QIANFAN),
    (Preset::Cerebras, "Cerebras", CEREBRAS),
    (Preset::HuggingFace, "Hugging Face", HUGGINGFACE),
    (Preset::Ollama, "Ollama", OLLAMA),
    (Preset::Vllm, "vLLM", VLLM),
    (Preset::LmStudio, "LM Studio", LMSTUDIO),
    (Preset::WorkersAi, "Workers AI", WORKERSAI),
];

/// What is known of a provider.
pub fn row(preset: Preset) -> &'static Row {
    ROWS.iter().find(|(known, ..)| *known == preset).map_or(&PLAIN, |(_, _, row)| row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_a_row_whose_address_may_be_called() {
        let schema = schemars::schema_for!(Preset).to_value().to_string();
        for (preset, _, row) in ROWS {
            let name = serde_json::to_value(preset).unwrap();
            assert!(schema.contains(&name.to_string()), "{name}");
            let public = crate::config::PrivateHosts::parse("");
            assert!(row.base_url.is_none_or(|url| crate::config::check_base_url(url, &public).is_ok()), "{name}");
        }
        assert_eq!(schema.matches("\"const\"").count(), ROWS.len());
    }
}
