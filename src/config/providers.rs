//! Section `providers`: the upstreams that serve models.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::fields;
use super::health::HealthProbe;
use super::provider_auth::ProviderAuth;
use super::timeouts::TimeoutOverrides;
use crate::limits::rule::LimitTerms;
use crate::providers::preset::{self, Row};

fields! {
    /// A provider: an upstream that serves models.
    pub struct Provider {
        /// Whether requests may go there.
        #[serde(default = "yes")]
        pub enabled: bool;
        /// Which of the providers that the gateway knows this is. It settles the dialect, mostly the address, the APIs
        /// served, how a stream tells its usage, and what is left out of requests, or put in other words, because the
        /// provider would refuse it. `dialect`, `base_url`, `wires` and `stream_usage` beside it count above it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub preset: Option<Preset>;
        /// The wire format it speaks. May be left out beside a `preset`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub dialect: Option<ProviderDialect>;
        /// Which of OpenAI's APIs an `openai` provider serves. Requests of these are passed on as they are, and requests of
        /// any other API are translated to the first of them that is `chat` or `responses`. Left out: those of
        /// the `preset`, or else `chat` alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub wires: Option<Vec<Wire>>, items 1 ..= 3;
        /// Where it is. The dialect's path is appended: `/chat/completions` for `openai` (so this ends in `/v1` for most),
        /// `/v1/messages` for `anthropic`, `/models/…` for `gemini` (so this ends in `/v1beta`), `/publishers/…` for `vertex`
        /// (so this ends in `/v1/projects/<project>/locations/<location>`), `/model/…` for `bedrock`, `/v2/chat` for `cohere`,
        /// `/rpc/…` for `wenxinworkshop`, the `generic` section's own path for `generic`. Must be `https:` and a public host,
        /// unless the deployment names the host in `PRIVATE_UPSTREAM_HOSTS`. May be left out beside a `preset` that has an
        /// address: all but `azure`, `bedrock`, `bedrock-mantle`, `workersai` and those that people run themselves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub base_url: Option<String>, chars 1 ..= 2048;
        /// For preset `azure`: the `api-version` of each request. With it, unless `base_url` ends in `/v1`, a model is
        /// called by its deployment's address, `/openai/deployments/{upstream_model}/…` below `base_url`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub api_version: Option<String>, chars 1 ..= 64;
        /// The provider's credential: the name of a Worker secret, or `stored:` and the id of a credential that the admin
        /// API keeps sealed. Left out: none is sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub credential: Option<String>, chars 1 ..= 200;
        /// What becomes of the credential before it is sent. Left out: it goes where the dialect has it, as it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub auth: Option<ProviderAuth>;
        /// Further headers to send. Not for credentials: they would stand in the snapshot.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        pub headers: BTreeMap<String, String>, entries 0 ..= 64;
        /// The `user-agent` to send. Left out: `llm-gateway/` and its version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub user_agent: Option<String>, chars 1 ..= 256;
        /// Headers of the caller's that are passed on to this provider, besides those of `http.forward_headers`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub forward_headers: Vec<String>, items 0 ..= 32;
        /// Time bounds of its own.
        #[serde(default, skip_serializing_if = "TimeoutOverrides::is_empty")]
        pub timeouts: TimeoutOverrides;
        /// What the gateway asks of this provider at most, all accounts together, such as what its credential is allowed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub limits: Vec<LimitTerms>, items 0 ..= 20;
        /// Whether requests that are open at this provider are counted although no limit needs the count. Costs a call to
        /// the provider's object each.
        #[serde(default)]
        pub count_connections: bool;
        /// How it is looked at without anybody's request.
        #[serde(default, skip_serializing_if = "HealthProbe::is_default")]
        pub health: HealthProbe;
        /// How a stream tells its usage. Left out: as the `preset` says, or else `on_request`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub stream_usage: Option<StreamUsage>;
        /// Decode and rewrite the replies of a provider that speaks the caller's dialect loosely, so that callers see it
        /// strictly. Costs CPU per chunk.
        #[serde(default)]
        pub normalize: bool;
        /// Whether callers may go back to responses that an `openai` provider keeps (`store`): each is marked as its
        /// account's in `metadata` when it is made, and only that account may go on from it (`previous_response_id`), look
        /// at it, delete it.
        #[serde(default)]
        pub stored_responses: bool;
        /// Whose prices count for its models that have none of their own: the name of a catalog that the gateway brings
        /// along, such as `openai`, or `none`. Left out: the catalog of the host in `base_url`, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub price_catalog: Option<String>, chars 1 ..= 64;
        /// The mapping of a `generic` provider.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub generic: Option<Generic>;
    }
}

/// What is enabled unless it says otherwise.
pub(super) fn yes() -> bool {
    true
}

/// A provider that the gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// OpenAI.
    OpenAi,
    /// Azure OpenAI. `base_url` is `https://{resource}.openai.azure.com/openai/v1`, or, with an `api_version`, ends
    /// before `/openai`.
    Azure,
    /// Anthropic.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// Amazon Bedrock's Converse. `base_url` is `https://bedrock-runtime.{region}.amazonaws.com`.
    Bedrock,
    /// OpenAI's dialect at Amazon Bedrock. `base_url` is `https://bedrock-mantle.{region}.api.aws/v1`.
    #[serde(rename = "bedrock-mantle")]
    BedrockMantle,
    /// Mistral.
    Mistral,
    /// DeepSeek.
    DeepSeek,
    /// Groq.
    Groq,
    /// xAI.
    Xai,
    /// OpenRouter.
    OpenRouter,
    /// Together AI.
    Together,
    /// Fireworks AI.
    Fireworks,
    /// Perplexity.
    Perplexity,
    /// Moonshot AI. In China `base_url` is `https://api.moonshot.cn/v1`.
    Moonshot,
    /// Zhipu AI in China.
    Zhipu,
    /// Zhipu AI elsewhere.
    Zai,
    /// Alibaba's Model Studio. In China `base_url` is `https://dashscope.aliyuncs.com/compatible-mode/v1`.
    DashScope,
    /// Baidu Qianfan, version 2.
    Qianfan,
    /// Cerebras.
    Cerebras,
    /// Hugging Face's Inference Providers.
    HuggingFace,
    /// Ollama, such as `http://localhost:11434/v1`.
    Ollama,
    /// vLLM, such as `http://localhost:8000/v1`.
    Vllm,
    /// LM Studio, such as `http://localhost:1234/v1`.
    LmStudio,
    /// Workers AI by its REST API. `base_url` is `https://api.cloudflare.com/client/v4/accounts/{account}/ai/v1`.
    WorkersAi,
}

/// An API of OpenAI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// Chat Completions.
    Chat,
    /// Responses.
    Responses,
    /// The older Completions. What the provider is asked otherwise goes by one of the others.
    Completions,
}

/// Secrets of the Worker that are its own: sent to a provider they would be given away.
const OWN_SECRETS: &[&str] = &["KEY_HASH_SECRET", "MASTER_SECRET", "MASTER_SECRET_PREVIOUS", "BOOTSTRAP_TOKEN"];

/// Whether a Worker secret is one of the gateway's own, which no provider may ever be sent.
pub fn is_own_secret(name: &str) -> bool {
    OWN_SECRETS.contains(&name)
}

/// Where a provider's credential is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialSource<'a> {
    /// In the Worker secret of this name.
    WorkerSecret(&'a str),
    /// Sealed, under this id.
    Stored(&'a str),
}

impl Provider {
    /// What is known of it.
    pub fn row(&self) -> &'static Row {
        self.preset.map_or(&preset::PLAIN, preset::row)
    }

    /// The wire format it speaks; one that says neither this nor a preset is not valid.
    pub fn dialect(&self) -> ProviderDialect {
        self.dialect.unwrap_or(self.row().dialect)
    }

    /// Where it is; empty if nobody says so, which is not valid either.
    pub fn base_url(&self) -> &str {
        self.base_url.as_deref().or(self.row().base_url).unwrap_or_default()
    }

    /// The `api-version` of requests to Azure's deployments, each of which has an address of its own.
    pub fn by_deployment(&self) -> Option<&str> {
        self.api_version.as_deref().filter(|_| !self.base_url().trim_end_matches('/').ends_with("/v1"))
    }

    /// Which of OpenAI's APIs it serves. Not every `api-version` has Responses.
    pub fn wires(&self) -> &[Wire] {
        let known = if self.by_deployment().is_some() { &[Wire::Chat] } else { self.row().wires };
        self.wires.as_deref().unwrap_or(known)
    }

    /// How a stream tells its usage.
    pub fn stream_usage(&self) -> StreamUsage {
        self.stream_usage.unwrap_or(self.row().stream_usage)
    }

    /// Where its credential is kept; `None` if it needs none.
    pub fn credential_source(&self) -> Option<CredentialSource<'_>> {
        let credential = self.credential.as_deref()?;
        Some(match credential.strip_prefix("stored:") {
            Some(id) => CredentialSource::Stored(id),
            None => CredentialSource::WorkerSecret(credential),
        })
    }
}

/// A wire format that providers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProviderDialect {
    /// OpenAI Chat Completions.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic Messages.
    #[serde(rename = "anthropic")]
    Anthropic,
    /// Amazon Bedrock's Converse.
    #[serde(rename = "bedrock")]
    Bedrock,
    /// Cohere's chat, version 2. `base_url` ends before `/v2`: `https://api.cohere.com`.
    #[serde(rename = "cohere")]
    Cohere,
    /// Google's Gemini API. `base_url` ends in the version: `https://generativelanguage.googleapis.com/v1beta`.
    #[serde(rename = "gemini")]
    Gemini,
    /// Google's Vertex AI: Gemini, and the models of Anthropic whose names begin with `claude`.
    #[serde(rename = "vertex")]
    Vertex,
    /// Baidu's wenxinworkshop, the older API of Qianfan. The model's name at the provider is the last part of its path
    /// (`ernie-4.0-8k-latest`), `base_url` ends before `/rpc`: `https://aip.baidubce.com`.
    #[serde(rename = "wenxinworkshop")]
    Wenxinworkshop,
    /// Workers AI by the binding `AI` of the gateway's own Worker; its REST API speaks OpenAI's dialect. It needs no
    /// credential, and `base_url` merely says whose prices count: `https://api.cloudflare.com`.
    #[serde(rename = "workers_ai")]
    WorkersAi,
    /// Anything that takes and gives JSON, mapped by configuration.
    #[serde(rename = "generic")]
    Generic,
}

/// How a provider's stream tells its usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamUsage {
    /// In a chunk of its own if `stream_options.include_usage` asks for it (OpenAI). The gateway asks; where the caller
    /// did not, it removes the chunk again.
    #[default]
    OnRequest,
    /// Always, inside ordinary chunks. Such streams are passed on natively.
    Always,
}

/// How a `generic` provider's requests and replies are mapped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Generic {
    /// The path below the base URL; may contain `{{model}}`.
    #[serde(default)]
    pub path: String,
    /// The header that carries the credential. Default `authorization`.
    #[serde(default)]
    pub credential_header: CredentialPlace,
    /// The request body. A string that is one placeholder, such as `"{{temperature}}"`, becomes the value itself and its
    /// member is left out where the caller gave none; placeholders within a longer string are filled in as text.
    /// Placeholders: `model`, `messages`, `prompt` (the conversation as text), `system`, `last_user_message`,
    /// `max_tokens`, `temperature`, `top_p`, `stop`, `stream`, `user`, `tools`.
    pub body: Value,
    /// Where an unstreamed reply has what.
    pub reply: GenericReply,
    /// How a streamed reply looks. Left out: the provider cannot stream, and a streamed call is answered from an
    /// unstreamed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<GenericStream>,
    /// Pointer to the message in an error body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Pointer to the code in an error body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

/// The header that carries a generic provider's credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialPlace {
    /// `Authorization: Bearer …`
    #[default]
    Authorization,
    /// `x-api-key: …`
    XApiKey,
    /// `api-key: …`
    ApiKey,
}

/// JSON pointers (RFC 6901) into a reply, or into each object of a stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GenericReply {
    /// The text, or the next piece of it.
    pub text: String,
    /// The reply's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Reasoning that is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// The provider's words for why it ended, with OpenAI's (`stop`, `length`, `tool_calls`, `content_filter`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub finish_reasons: BTreeMap<String, String>,
    /// Input tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<String>,
    /// Output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<String>,
    /// Those of the input tokens that were read from a prompt cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<String>,
    /// Those of the input tokens that were written to a prompt cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<String>,
    /// Those of the output tokens that were reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<String>,
}

/// How a generic provider streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GenericStream {
    /// How its objects are divided.
    pub framing: Framing,
    /// Where each object has what.
    pub reply: GenericReply,
    /// The event data that ends the stream, such as `[DONE]`. Left out: an object with a finish reason ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// Pointer to an error message within the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

/// How the objects of a stream are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Server-sent events, one object each.
    Sse,
    /// One object a line.
    Ndjson,
}
