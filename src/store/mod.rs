//! Where data comes from: objects, KV and D1, and the isolate's own memory in front of them.
//!
//! - [`freshness`], [`standing`]: how old what is known may be
//! - `config`: the configuration, the sealed credentials and the public keys, from the Hub
//! - `keys`: key records from KV, and their ledger's word on them
//! - `health`: what an isolate knows of the health of providers; [`reports`]: what it tells their gauges of it
//! - `limits`: leases, rules, and what an isolate counts by itself while ledgers cannot be reached
//! - `routing`: turns, open requests and budgets of attempts
//! - `credentials`: what a provider is sent
//! - `tokens`: access tokens that are minted from credentials
//! - `usage`: what requests used, to their account's ledger
//! - `d1`: the database, for everything that is not on the data plane

pub mod bounded_cache;
pub mod freshness;
pub mod reports;
pub mod standing;

#[cfg(target_arch = "wasm32")]
pub mod config;
#[cfg(target_arch = "wasm32")]
pub mod credentials;
#[cfg(target_arch = "wasm32")]
pub mod d1;
#[cfg(target_arch = "wasm32")]
pub mod health;
#[cfg(target_arch = "wasm32")]
pub mod keys;
#[cfg(target_arch = "wasm32")]
pub mod limits;
#[cfg(target_arch = "wasm32")]
pub mod responses;
#[cfg(target_arch = "wasm32")]
pub mod routing;
#[cfg(target_arch = "wasm32")]
pub mod tokens;
#[cfg(target_arch = "wasm32")]
pub mod usage;

/// The binding of the KV namespace.
pub const KV: &str = "KV";

/// How long KV may serve an entry from its own cache, in seconds: the least that it allows.
pub const KV_CACHE_SECONDS: u64 = 30;

/// The KV entry with the sealed provider credentials.
pub const CREDENTIALS: &str = "credentials";

/// The KV entry with the public keys of the gateway's own tokens.
pub const PUBLIC_KEYS: &str = "public_keys";

/// The KV entry with what is set of providers.
pub const PROVIDER_STATES: &str = "provider_states";
