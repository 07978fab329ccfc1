//! The configuration: draft, validation, comparison, simulation, published versions.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::standing::{LimitState, UsedAmounts};
use crate::config::{Change, Origin};
use crate::error::FieldProblem;
use crate::gateway::simulate::Simulated;

/// A configuration as one document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Draft {
    /// The document; `config/schema.json` describes it.
    pub document: Value,
    /// Names the content; the draft's ETag.
    pub hash: String,
}

/// A configuration to work with in place of the draft.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct DraftReplacement {
    /// The document.
    pub document: Value,
}

/// A configuration to look at; the draft if none is given.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct DocumentChoice {
    /// The document.
    #[serde(default)]
    pub document: Option<Value>,
}

/// Whether a configuration can be published.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Validation {
    /// Whether nothing is wrong with it.
    pub valid: bool,
    /// Everything that is wrong with it.
    pub errors: Vec<FieldProblem>,
    /// What can be published, but will not work in this deployment as it is.
    pub warnings: Vec<FieldProblem>,
}

/// The differences between two configurations.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The version compared with; null if none has been published.
    pub from: Option<String>,
    /// The version that is compared; null for the draft or a given document.
    pub to: Option<String>,
    /// The differences.
    pub changes: Vec<Change>,
}

/// With what to compare.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct ComparisonQuery {
    /// The version to compare with. Default: the parent.
    #[schemars(length(max = 64))]
    pub with: Option<String>,
}

/// What makes the draft the current configuration.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Publish {
    /// Why, for those who read the history.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub comment: String,
    /// The version that the draft was made from; publishing fails if another one is current by now.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub parent: Option<String>,
}

/// What makes an old version current again. The draft becomes that version too.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Rollback {
    /// The version to go back to.
    #[schemars(length(min = 1, max = 64))]
    pub version: String,
    /// Why.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub comment: String,
}

/// A published configuration, without the document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct VersionInfo {
    /// `<sequence>-<content hash>`, as in `x-gateway-config-version`.
    pub version: String,
    /// Counts publications.
    pub sequence: u64,
    /// The version before.
    pub parent: Option<String>,
    /// The version whose content this one brought back.
    pub restored_from: Option<String>,
    /// Who published it.
    pub author: String,
    /// Why.
    pub comment: String,
    /// When, in Unix seconds.
    pub created_at: u64,
    /// Whether it is the current one.
    pub current: bool,
}

/// A published configuration.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// What is known of it.
    #[serde(flatten)]
    pub info: VersionInfo,
    /// The document.
    pub document: Value,
}

/// Where a setting comes from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SettingOrigin {
    /// The setting, such as `http.max_body_bytes`.
    pub path: String,
    /// The layer; what is not listed has its default.
    pub origin: Origin,
}

/// The configuration as it is in effect.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EffectiveConfig {
    /// The version it comes from.
    pub version: Option<String>,
    /// All of it, defaults included.
    pub document: Value,
    /// Where what is not a default comes from.
    pub origins: Vec<SettingOrigin>,
    /// Environment variables that were left out because of what they say.
    pub problems: Vec<FieldProblem>,
}

/// Sample requests to try on a configuration without sending them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Simulation {
    /// The configuration; the draft if none is given.
    #[serde(default)]
    pub document: Option<Value>,
    /// The requests.
    #[schemars(length(min = 1, max = 50))]
    pub requests: Vec<SampleRequest>,
}

/// An endpoint that requests can be tried on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Endpoint {
    /// Chat Completions.
    #[default]
    #[serde(rename = "/v1/chat/completions")]
    ChatCompletions,
    /// Messages.
    #[serde(rename = "/v1/messages")]
    Messages,
    /// Responses.
    #[serde(rename = "/v1/responses")]
    Responses,
    /// Embeddings.
    #[serde(rename = "/v1/embeddings")]
    Embeddings,
    /// Moderations.
    #[serde(rename = "/v1/moderations")]
    Moderations,
    /// Ranking documents.
    #[serde(rename = "/v1/rerank")]
    Rerank,
    /// Making images.
    #[serde(rename = "/v1/images/generations")]
    ImageGeneration,
    /// Speech.
    #[serde(rename = "/v1/audio/speech")]
    Speech,
}

/// A request to try.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SampleRequest {
    /// The model as a caller names it.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub model: Option<String>,
    /// Or the whole body, as a caller would send it; it says all that the fields below say, but for the key and the headers.
    /// What is kept with a target by the beginning of its prompt must be spaced as it is here, without blanks.
    #[serde(default)]
    pub body: Option<Map<String, Value>>,
    /// The endpoint.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// Headers that conditions and sessions go by, such as `x-session-id` and `x-gateway-metadata`.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    pub headers: BTreeMap<String, String>,
    /// Whether a stream is asked for.
    #[serde(default)]
    pub stream: bool,
    /// The key that asks, by id: its scopes and limits hold. Left out: a key that may use everything.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64))]
    pub key_id: Option<String>,
    /// Input tokens. Default 1,000.
    #[serde(default)]
    #[schemars(range(max = 10_000_000))]
    pub input_tokens: Option<u64>,
    /// Output tokens at most. Default: the model's.
    #[serde(default)]
    #[schemars(range(max = 10_000_000))]
    pub max_tokens: Option<u64>,
}

impl SampleRequest {
    /// The model that it names, here or in its body.
    pub fn name(&self) -> Option<&str> {
        let in_body = || self.body.as_ref().and_then(|body| body.get("model")).and_then(Value::as_str);
        self.model.as_deref().or_else(in_body)
    }
}

/// What would become of a request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SampleResult {
    /// By the configuration. What a limit says against it is its error.
    #[serde(flatten)]
    pub simulated: Simulated,
    /// By the limits, at this moment; null without a key, or if nobody would answer. Nothing is reserved.
    pub admission: Option<SampleAdmission>,
    /// How the provider's limits stand that it counts against (`providers.<name>.limits`).
    pub provider_limits: Vec<LimitState>,
}

/// What would become of a request now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SimulatedNow {
    /// The version of the configuration that decides, as in `x-gateway-config-version`.
    pub version: String,
    /// When this is so, in Unix milliseconds.
    pub at_ms: u64,
    /// What would become of it.
    #[serde(flatten)]
    pub result: SampleResult,
}

/// What the limits would say of a request at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SampleAdmission {
    /// Whether it would be admitted.
    pub admitted: bool,
    /// What would be reserved for it until it has ended: its input, and as much output as such requests have.
    pub reserved: UsedAmounts,
    /// How the limits stand that it counts against.
    pub limits: Vec<LimitState>,
    /// The limit that would refuse it, by id.
    pub refused_by: Option<String>,
    /// After how many milliseconds there is room, if nothing else happens; null if there is room, or never will be.
    pub retry_after_ms: Option<u64>,
    /// The limits in shadow mode that would refuse it, by id.
    pub shadowed: Vec<String>,
}

/// What would become of the requests.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SimulationResult {
    /// In the order of the requests.
    pub results: Vec<SampleResult>,
    /// What is wrong with the configuration; the results are empty then.
    pub errors: Vec<FieldProblem>,
}
