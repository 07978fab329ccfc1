//! API keys, limits and budgets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metadata;
use crate::config::Overrides;
pub use crate::limits::rule::{Dimension, LimitMode, LimitTerms, Period};

/// What can be set of a key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct KeySettings {
    /// What people call it.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// Whose it is, within the account; null for the account's as a whole.
    #[serde(default)]
    pub user_id: Option<String>,
    /// Models it may use: names, or prefixes ending in `*`. Empty: all.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub models: Vec<String>,
    /// Endpoints it may call, such as `/v1/chat/completions`. Empty: all but those below `/v1/proxy/`, which must be named.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub endpoints: Vec<String>,
    /// Addresses it may be used from, in CIDR notation. Empty: all.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub ip_ranges: Vec<String>,
    /// Configuration that holds for this key in place of the published one.
    #[serde(default)]
    pub overrides: Overrides,
    /// Labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// Whether it is switched off. Takes effect within a second.
    #[serde(default)]
    pub disabled: bool,
    /// When it ends, in Unix seconds; null for never.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

/// A key to make.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct KeyCreate {
    /// What can be changed later.
    #[serde(flatten)]
    pub settings: KeySettings,
    /// Limits and budgets of the key, made together with it.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub limits: Vec<LimitTerms>,
}

/// An API key of the data plane.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Key {
    /// The id, which stays the same when the secret is rotated.
    pub id: String,
    /// The account that is charged.
    pub account_id: String,
    /// What can be changed.
    #[serde(flatten)]
    pub settings: KeySettings,
    /// The secrets that it answers to: one, or two while a rotation overlaps.
    pub secrets: Vec<KeySecret>,
    /// Grows with each change.
    pub revision: u64,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
}

/// What may be known of a key's secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeySecret {
    /// The public part of the key: what stands between `sk-lgw-` and the next `-`.
    pub public_id: String,
    /// When it stops working because it was rotated, in Unix seconds.
    pub expires_at: Option<u64>,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
}

/// A key that has just been made or rotated.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyIssued {
    /// The key itself, shown only now.
    pub api_key: String,
    /// What is known of it.
    #[serde(flatten)]
    pub key: Key,
}

/// How to rotate a key.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct KeyRotation {
    /// How long the old secret goes on working, in seconds. Default 0: it stops within a second.
    #[serde(default)]
    #[schemars(range(max = 2_592_000))]
    pub overlap_seconds: u64,
}

/// Which keys.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct KeyFilter {
    /// Only the key that this public id belongs to.
    #[schemars(length(max = 64))]
    pub public_id: Option<String>,
    /// Only keys of this user.
    #[schemars(length(max = 64))]
    pub user_id: Option<String>,
    /// Only those that are switched off, or only those that are not.
    pub disabled: Option<bool>,
}

/// What can be set of a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitSettings {
    /// The user it holds for.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The key it holds for. Neither user nor key: it holds for the whole account.
    #[serde(default)]
    pub key_id: Option<String>,
    /// How much of what.
    #[serde(flatten)]
    pub terms: LimitTerms,
}

/// A limit, or a budget. The account's ledger enforces it from the moment it is told, within a second of the change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    /// The id.
    pub id: String,
    /// The account.
    pub account_id: String,
    /// What can be changed.
    #[serde(flatten)]
    pub settings: LimitSettings,
    /// Grows with each change.
    pub revision: u64,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
}
