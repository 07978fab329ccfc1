//! How providers are, and what is set of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::catalog::HealthEntry;
use crate::routing::board::{ManualState, StateView};

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

/// How a provider is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ProviderHealth {
    /// The provider.
    pub provider: String,
    /// What is set of it.
    pub set: ProviderStateInfo,
    /// When the rest was so, in Unix milliseconds.
    pub at_ms: u64,
    /// What is known of its address and its credential; null if nothing has been heard of it lately.
    pub own: Option<StateView>,
    /// What is known of its models, as far as anything has been heard of them lately.
    pub models: Vec<StateView>,
    /// Requests that are open there; only those are counted that a limit of the provider's or a route with the strategy
    /// `least_connections` needs counted, or all with `count_connections`.
    pub open: u64,
    /// The last probe; null for none.
    pub last_probe: Option<HealthEntry>,
    /// What its probes have cost in the last 30 days, in nano-dollars, as far as that is known.
    pub probe_cost_nanodollars: u64,
}
