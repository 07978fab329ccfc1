//! Alert rules and what they raised.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::alerts::limits::LimitDetail;
use crate::alerts::providers::ProviderDetail;
pub use crate::alerts::rules::AlertMetric;

/// What can be set of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlertRuleSettings {
    /// What people call it.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// The account it watches; null for the whole deployment.
    #[serde(default)]
    pub account_id: Option<String>,
    /// What it watches.
    pub metric: AlertMetric,
    /// It fires when the metric reaches this; 0 is as good as 1.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub threshold: u64,
    /// Over how many minutes the metric is taken.
    #[schemars(range(min = 1, max = 43200))]
    pub window_minutes: u32,
    /// Only this model.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub model: Option<String>,
    /// Only this provider.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub provider: Option<String>,
    /// Whether it is watched.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

/// A rule, evaluated every minute.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AlertRule {
    /// The id.
    pub id: String,
    /// What can be changed.
    #[serde(flatten)]
    pub settings: AlertRuleSettings,
    /// Grows with each change.
    pub revision: u64,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
}

/// What an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// An alert rule fired.
    Rule,
    /// So much of a limit or budget is used.
    LimitThreshold,
    /// A limit or budget will be used up before its period ends.
    LimitForecast,
    /// A provider refuses its credential.
    ProviderAuth,
    /// A provider wants to be paid.
    ProviderQuota,
    /// A provider, or a model there, does not answer as it should.
    ProviderDown,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventMetric {
    /// Requests.
    Requests,
    /// Requests that failed.
    Errors,
    /// The share of requests that failed, in percent.
    ErrorPercent,
    /// Money, in nano-dollars.
    Cost,
    /// Tokens.
    TotalTokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
    /// Requests to models without a price.
    Unpriced,
}

/// That a rule fired, that a limit is nearly used up, or that a provider is not well.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AlertEvent {
    /// The id.
    pub id: String,
    /// What it tells of.
    pub kind: AlertKind,
    /// The rule or the limit, which may be gone by now; of a provider, the kind and its name.
    pub rule_id: String,
    /// The account that the rule watches, or that has the limit; null for a provider.
    pub account_id: Option<String>,
    /// The rule's name; of a limit or a provider, what has happened.
    pub name: String,
    /// What was measured.
    pub metric: EventMetric,
    /// The rule's threshold; of a limit, per cent of it; of a provider, 1.
    pub threshold: u64,
    /// The value that reached it; of a provider, 1.
    pub value: u64,
    /// Since when, in Unix seconds.
    pub started_at: u64,
    /// Until when, in Unix seconds; null while it lasts. What is told of a limit is over at once.
    pub resolved_at: Option<u64>,
    /// More about the limit; null for anything else.
    pub detail: Option<LimitDetail>,
    /// More about the provider; null for anything else.
    pub provider: Option<ProviderDetail>,
}

/// Which rules.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct AlertRuleFilter {
    /// Only rules that watch this account.
    #[schemars(length(max = 64))]
    pub account_id: Option<String>,
}

/// Which events.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct AlertEventFilter {
    /// Only those of rules that watch this account, and of its limits.
    #[schemars(length(max = 64))]
    pub account_id: Option<String>,
    /// Only those that last, or only those that are over.
    pub open: Option<bool>,
    /// Only those that tell of this.
    pub kind: Option<AlertKind>,
}
