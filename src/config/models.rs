//! Section `models`: what callers can name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::fields;
use super::providers::yes;

fields! {
    /// A model that callers can name: a deployment at a provider.
    pub struct Model {
        /// Whether it can be called.
        #[serde(default = "yes")]
        pub enabled: bool;
        /// The provider that serves it.
        pub provider: String, chars 1 ..= 256;
        /// Its name there. Left out: the name that callers use.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub upstream_model: Option<String>, chars 1 ..= 512;
        /// Output tokens to ask for where the caller sets no limit and the provider insists on one. Left out: 8,192.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub max_output_tokens: Option<u64>, in 1 ..= 1_000_000;
        /// How many tokens fit into it. A request whose input alone is estimated to exceed it is refused. Left out: the
        /// provider judges.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub context_tokens: Option<u64>, in 1 ..= 100_000_000;
        /// What it is, for people; shown in the list of models.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub description: Option<String>, chars 0 ..= 1024;
        /// Whose it is, as the list of models says. Left out: the provider's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub owned_by: Option<String>, chars 1 ..= 256;
        /// How it is made to answer with JSON that follows a schema, where the provider is not OpenAI-like.
        #[serde(default)]
        pub structured_output: StructuredOutput;
        /// Whether parameters that its provider does not have are refused. Left out: as `http.strict_params` says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub strict_params: Option<bool>;
    }
}

impl Model {
    /// Default of `max_output_tokens`.
    pub const MAX_OUTPUT_TOKENS: u64 = 8_192;
}

/// How a model is made to answer with JSON that follows a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StructuredOutput {
    /// By the provider's own parameter for it.
    #[default]
    Native,
    /// By a tool whose arguments are the answer, for models that lack the parameter.
    Tool,
}
