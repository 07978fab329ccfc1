//! Providers' credentials, and entries of the configuration's draft: providers, models, routes, prices.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::config::{Config, ENTRY_SECTIONS};
use crate::routing::board::Condition;

/// What can be set of a credential: its value, or the name of a Worker secret that has it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CredentialSettings {
    /// What people call it.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// The value. It is stored sealed, and never shown.
    #[serde(default)]
    #[schemars(length(min = 1, max = 16384))]
    pub value: Option<String>,
    /// Or the name of a Worker secret.
    #[serde(default)]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub worker_secret: Option<String>,
}

/// A provider's credential. Its value cannot be read back.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Credential {
    /// The id; a provider refers to it as `stored:<id>`.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The name of the Worker secret that has the value; null if the value is stored here, sealed.
    pub worker_secret: Option<String>,
    /// The value's last characters, to tell it by; empty if it is short.
    pub hint: String,
    /// Grows with each change.
    pub revision: u64,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
}

/// An entry of the configuration's draft.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Entry<T> {
    /// Its name.
    pub name: String,
    /// What it says; see `docs/configuration.md`.
    pub settings: T,
    /// Grows with each change.
    pub revision: u64,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
}

/// Models without a price.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct UnpricedModels {
    /// From when on use is counted, in Unix seconds.
    pub since: u64,
    /// The models, the most used ones first.
    pub data: Vec<UnpricedModel>,
}

/// A model that has no price, or was used without one lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnpricedModel {
    /// Its name.
    pub model: String,
    /// Its provider; null if it is not configured any more.
    pub provider: Option<String>,
    /// Its name there; null if it is not configured any more.
    pub upstream_model: Option<String>,
    /// Whether it still has no price in the configuration in effect.
    pub unpriced_now: bool,
    /// Requests that were charged nothing because it had none.
    pub requests: u64,
    /// When the last of them came in, in Unix seconds, rounded down to a minute; null for none.
    pub last_at: Option<u64>,
}

/// What can be configured besides providers, models, routes and prices. It stands for a part of [`Config`]'s schema.
#[derive(Debug, Clone, Copy)]
pub struct Settings;

impl JsonSchema for Settings {
    fn schema_name() -> Cow<'static, str> {
        "Settings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Config::json_schema(generator);
        schema.insert("description".to_owned(), "Everything but providers, models, routes and prices.".into());
        if let Some(properties) = schema.get_mut("properties").and_then(|properties| properties.as_object_mut()) {
            properties.retain(|name, _| !ENTRY_SECTIONS.contains(&name.as_str()));
        }
        schema
    }
}

/// How the test of a connection went.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionTest {
    /// The provider.
    pub provider: String,
    /// Whether it answered as it should.
    pub healthy: bool,
    /// How long it took, in milliseconds.
    pub latency_ms: u64,
    /// The status it answered with, if it did.
    pub status: Option<u16>,
    /// What was wrong, in a sentence.
    pub detail: String,
}

/// One look at a provider's health.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HealthEntry {
    /// The id.
    pub id: String,
    /// The provider.
    pub provider: String,
    /// What looked: `test` (somebody), `probe` (the gateway itself) or `passive` (what requests came to has changed
    /// something).
    pub source: HealthSource,
    /// Whether it answered as it should; of something that has changed, whether it gets requests as usual now.
    pub healthy: bool,
    /// How long it took, in milliseconds; 0 for something that has changed.
    pub latency_ms: u64,
    /// What was wrong, or what has changed.
    pub detail: String,
    /// When, in Unix seconds.
    pub at: u64,
    /// The model that something has changed for; null for the provider as a whole.
    pub model: Option<String>,
    /// What it has become; null for a test or a probe.
    pub state: Option<Condition>,
    /// What a probe has cost, in nano-dollars; null for what is no probe, or if that is not known.
    pub cost_nanodollars: Option<u64>,
}

/// What has looked at a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthSource {
    /// Somebody.
    Test,
    /// The gateway itself.
    Probe,
    /// Everybody who has sent requests.
    Passive,
}

/// Which looks at providers' health.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct HealthFilter {
    /// Only those at this provider.
    #[schemars(length(max = 256))]
    pub provider: Option<String>,
    /// Only those of this kind.
    pub source: Option<HealthSource>,
}

/// Which looks at a provider's health.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct HealthHistoryFilter {
    /// Only those of this kind.
    pub source: Option<HealthSource>,
}

/// The state of one part of the gateway.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PartHealth {
    /// The part: `d1`, `kv`, `hub`, `secrets`, `config`, `outbox`.
    pub name: String,
    /// Whether it works.
    pub healthy: bool,
    /// What there is to know about it.
    pub detail: String,
    /// How long the look took, in milliseconds.
    pub latency_ms: u64,
}

/// The state of the gateway.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SystemHealth {
    /// Whether every part works.
    pub healthy: bool,
    /// The parts.
    pub parts: Vec<PartHealth>,
    /// Writes that have not reached objects and KV yet.
    pub outbox_pending: u64,
    /// The gateway's version.
    pub version: String,
}

/// Which caches to empty.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct PurgeReason {
    /// Why, for the audit log.
    #[serde(default)]
    #[schemars(length(max = 500))]
    pub reason: String,
}

/// The caches that isolates keep in memory: key records, issuers' key sets, credentials.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CacheState {
    /// Counts purges; an isolate that has seen an older count drops what it has remembered.
    pub epoch: u64,
    /// How long a key record may be used without looking again, in milliseconds.
    pub key_cache_ms: u64,
    /// How long an issuer's key set may be used without looking again, in seconds.
    pub jwks_cache_seconds: u64,
}
