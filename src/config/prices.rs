//! Sections `prices` and `billing`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{fields, section};
use crate::billing::{RequestPrice, TokenPrice};

fields! {
    /// What a model costs. Prices per token are in US dollars per million tokens, written as decimals in a string, such as
    /// `"0.075"`: exact to six places. A part that is left out costs what the part it belongs to costs.
    #[derive(Default, Eq)]
    #[serde(default)]
    pub struct Price {
        /// Text input. Left out: nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub input: Option<TokenPrice>;
        /// Text output. Left out: nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub output: Option<TokenPrice>;
        /// Input read from the provider's prompt cache. Left out: as `input`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cache_read: Option<TokenPrice>;
        /// Input written to the prompt cache for five minutes. Left out: as `input`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cache_write_5m: Option<TokenPrice>;
        /// Input written to the prompt cache for an hour. Left out: as `cache_write_5m`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cache_write_1h: Option<TokenPrice>;
        /// Reasoning. Left out: as `output`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub output_reasoning: Option<TokenPrice>;
        /// Audio input. Left out: as `input`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub input_audio: Option<TokenPrice>;
        /// Audio output. Left out: as `output`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub output_audio: Option<TokenPrice>;
        /// Each request, whatever it used: US dollars as a decimal in a string, exact to nine places. Left out: nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub per_request: Option<RequestPrice>;
        /// Where the price comes from, for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub source: Option<String>, chars 0 ..= 1024;
    }
}

section! {
    /// What requests cost.
    pub struct Billing {
        /// What happens to requests for a model that has no price.
        pub unpriced_models: Unpriced = Unpriced::Allow;
    }
}

/// What happens to requests for a model that has no price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unpriced {
    /// They are served, and their cost is recorded as unknown.
    #[default]
    Allow,
    /// They are refused.
    Refuse,
}
