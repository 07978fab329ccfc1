//! How providers are, and what is set of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::routing::board::ManualState;

/// What can be set of a provider without another configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderStateSettings {
    /// What it may be used for.
    pub state: ManualState,
    /// Why, for people.
    #[serde(default)]
    #[schemars(length(max = 500))]
    pub reason: String,
    /// Until when, in Unix seconds; then it is active again. Null for as long as nothing else is set.
    #[serde(default)]
    #[schemars(range(max = 9_007_199_254_740_u64))]
    pub until: Option<u64>,
}

/// What is set of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderStateInfo {
    /// The provider.
    pub provider: String,
    /// What was set.
    #[serde(flatten)]
    pub settings: ProviderStateSettings,
    /// What holds now: as set, or `active` once its time is over.
    pub in_effect: ManualState,
    /// Grows with each change; 0 if nothing was ever set.
    pub revision: u64,
    /// When it was last changed, in Unix seconds; null if nothing was ever set.
    pub updated_at: Option<u64>,
}
