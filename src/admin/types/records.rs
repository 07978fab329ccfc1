//! Usage and cost, request records, the audit log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::usage::Usage;
use crate::telemetry::Outcome;

/// By what usage is summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageGroup {
    /// One sum.
    #[default]
    None,
    /// The hour.
    Hour,
    /// The day, UTC.
    Day,
    /// The key.
    Key,
    /// The user.
    User,
    /// The account.
    Account,
    /// The model.
    Model,
    /// The provider.
    Provider,
}

/// Which usage.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct UsageQuery {
    /// From when on, in Unix seconds. Default: 24 hours before `to`.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub from: Option<u64>,
    /// Until when, in Unix seconds. Default: now.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub to: Option<u64>,
    /// By what it is summed up. Default `none`.
    pub group_by: Option<UsageGroup>,
    /// Only this account.
    #[schemars(length(max = 64))]
    pub account_id: Option<String>,
    /// Only this key.
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// Only this user.
    #[schemars(length(max = 64))]
    pub user_id: Option<String>,
    /// Only this model.
    #[schemars(length(max = 256))]
    pub model: Option<String>,
    /// Only this provider.
    #[schemars(length(max = 256))]
    pub provider: Option<String>,
}

/// Usage of one group. Tokens are disjoint counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageRow {
    /// The group: an id or name, or the beginning of an hour or a day in Unix seconds; empty for one sum.
    pub group: String,
    /// Requests.
    pub requests: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests to models without a price: their cost is not in `cost_nanos`.
    pub unpriced: u64,
    /// Requests whose usage the provider did not tell, so that it is estimated.
    pub estimated: u64,
    /// What they used, by kind.
    #[serde(flatten)]
    pub usage: Usage,
    /// Cost in nano-dollars.
    pub cost_nanos: u64,
}

/// Usage, summed up.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct UsageReport {
    /// From when on, in Unix seconds, rounded down to a minute.
    pub from: u64,
    /// Until when, in Unix seconds, rounded up to a minute.
    pub to: u64,
    /// By what it is summed up.
    pub group_by: UsageGroup,
    /// The groups: by time in its order, otherwise the dearest first; at most 10,000. Hours and days without usage are left
    /// out.
    pub data: Vec<UsageRow>,
    /// Whether there are more groups than these.
    pub truncated: bool,
    /// All of it, groups that are left out included.
    pub total: UsageRow,
}

/// Which request records.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct RecordFilter {
    /// From when on, in Unix milliseconds.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub from_ms: Option<u64>,
    /// Until when, in Unix milliseconds.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub to_ms: Option<u64>,
    /// Only those of this account.
    #[schemars(length(max = 64))]
    pub account_id: Option<String>,
    /// Only those of this key.
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// Only those of this user.
    #[schemars(length(max = 64))]
    pub user_id: Option<String>,
    /// Only those of this model.
    #[schemars(length(max = 256))]
    pub model: Option<String>,
    /// Only those of this provider.
    #[schemars(length(max = 256))]
    pub provider: Option<String>,
    /// Only those that ended like this.
    pub outcome: Option<Outcome>,
    /// Only those with this status.
    pub status: Option<u16>,
}

/// One request. Bodies and credentials are not among it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RequestEntry {
    /// Names the request.
    pub request_id: String,
    /// The account that was charged.
    pub account_id: String,
    /// When it came, in Unix milliseconds.
    pub at_ms: u64,
    /// The key.
    pub key_id: String,
    /// The user, or empty.
    pub user_id: String,
    /// The model as the caller named it.
    pub model: String,
    /// The provider.
    pub provider: String,
    /// The status that was sent.
    pub status: u16,
    /// How it ended.
    pub outcome: String,
    /// What it cost, in nano-dollars; null if the model has no price.
    pub cost_nanos: Option<u64>,
    /// Everything that was noted of it.
    pub record: Value,
}

/// Which entries of the audit log.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct AuditFilter {
    /// Only what this user or program did.
    #[schemars(length(max = 256))]
    pub actor_id: Option<String>,
    /// Only this action, such as `keys:update`.
    #[schemars(length(max = 64))]
    pub action: Option<String>,
    /// Only what was done to this thing.
    #[schemars(length(max = 256))]
    pub target_id: Option<String>,
    /// Only what concerns this account.
    #[schemars(length(max = 64))]
    pub account_id: Option<String>,
    /// From when on, in Unix milliseconds.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub from_ms: Option<u64>,
    /// Until when, in Unix milliseconds.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub to_ms: Option<u64>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Its place in the log.
    pub sequence: u64,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// `user`, `service`, `external`, `system` or `anonymous`.
    pub actor_kind: String,
    /// Who.
    pub actor_id: String,
    /// Who, by name.
    pub actor_name: String,
    /// What, as `resource:action`.
    pub action: String,
    /// `done` or `refused`.
    pub outcome: String,
    /// To what kind of thing.
    pub target_kind: String,
    /// To which one.
    pub target_id: String,
    /// The account concerned, or empty.
    pub account_id: String,
    /// What it was; secrets are left out.
    pub before: Value,
    /// What it became; secrets are left out.
    pub after: Value,
    /// From where.
    pub ip: String,
    /// With what.
    pub user_agent: String,
    /// By which request.
    pub request_id: String,
    /// Covers this entry and, through the hash of the one before, all before it.
    pub hash: String,
}

/// Which part of the audit log to check.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct VerifyQuery {
    /// The first entry. Default 1.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub from: Option<u64>,
    /// How many entries, 5,000 at most. Default 5,000.
    #[schemars(range(min = 1, max = 5000))]
    pub limit: Option<u32>,
}

/// Whether the audit log is as it was written.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// Whether every entry that was checked is.
    pub intact: bool,
    /// How many entries were checked and are as they were written.
    pub checked: u64,
    /// The first entry that is not what was written, or is missing.
    pub broken_at: Option<u64>,
    /// Where to go on checking; null at the end of the log, and where something is broken.
    pub next: Option<u64>,
    /// The last entry's place.
    pub head: u64,
    /// The last entry's hash. Keep it elsewhere from time to time: it proves that nothing was cut off.
    pub head_hash: String,
}
