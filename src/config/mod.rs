//! The gateway's configuration: one typed schema, one file a section.
//!
//! Each section declares its fields with their defaults, bounds and descriptions ([`bounds`]); the JSON Schema, the
//! reference page and the validation are made from that. People write TOML or JSON, which is read strictly
//! ([`Config::parse`]); what is published is a [`Snapshot`], which is read tolerantly, because a later version of the
//! gateway may have written it. [`Config::problems`] lists everything that is wrong at once, each with its path.

mod auth;
mod bounds;
mod control;
mod diff;
mod document;
mod endpoint;
mod health;
mod http;
mod layers;
mod limits;
mod models;
mod observe;
mod prices;
mod provider_auth;
mod providers;
mod reading;
pub mod reference;
mod route_checks;
mod routes;
mod routing;
mod snapshot;
mod timeouts;
mod validate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

pub use auth::{Auth, Issuer, JwtAlgorithm, Plane, RoleGrant, WhenUnreachable};
pub use control::{Admin, Sessions};
pub use diff::{Change, ChangeKind, diff};
pub use document::{Parts, compile, split};
pub use endpoint::{EndpointError, PrivateHosts, check_base_url, check_jwks_uri};
pub use health::{HealthProbe, ProbeMethod};
pub use http::{Cors, Http};
pub use layers::{ENVIRONMENT_PREFIX, Effective, Origin, Overrides, effective};
pub use limits::{
    Disclose, LimitOverrides, Limits, UnreachableCost, UnreachableRates, problems_of_list, problems_of_terms,
};
pub use models::{Model, StructuredOutput};
pub use observe::{ClientIp, LogLevel, Logging, Records, RecordsMode, Retention};
pub use prices::{Billing, Price, PriceVariant, Unpriced};
pub use provider_auth::{AuthMethod, ProviderAuth};
pub use providers::{
    CredentialPlace, CredentialSource, Framing, Generic, GenericReply, GenericStream, Preset, Provider,
    ProviderDialect, StreamUsage, Wire, is_own_secret,
};
pub use routes::{Route, RouteRetry, RouteTarget, Shadow, Sticky, StickyBy, Strategy, When};
pub use routing::{Breaker, ContentPolicy, Routing, WhenAllOpen};
pub use snapshot::{Snapshot, canonical_json, content_hash};
pub use timeouts::{TimeoutOverrides, Timeouts};
pub use validate::may_be_forwarded;

pub use crate::error::FieldProblem as ConfigProblem;

/// The key under which KV holds the current snapshot.
pub const CURRENT_SNAPSHOT: &str = "config:current";

/// The sections that have an entry for each name. The control plane keeps each entry apart, and the rest as one.
pub const ENTRY_SECTIONS: [&str; 4] = ["providers", "models", "routes", "prices"];

bounds::section! {
    /// Everything that can be configured.
    pub struct Config {
        /// Inbound HTTP.
        pub http: Http = Http::default();
        /// Cross-origin access from browsers.
        pub cors: Cors = Cors::default();
        /// How callers are recognised.
        pub auth: Auth = Auth::default();
        /// Sign-in to the admin API.
        pub sessions: Sessions = Sessions::default();
        /// The admin API.
        pub admin: Admin = Admin::default();
        /// Bounds on the time an upstream may take, for every provider that sets none of its own.
        pub timeouts: Timeouts = Timeouts::default();
        /// The log.
        pub logging: Logging = Logging::default();
        /// Request records.
        pub records: Records = Records::default();
        /// How long the database keeps what it collects.
        pub retention: Retention = Retention::default();
        /// What requests cost.
        pub billing: Billing = Billing::default();
        /// Limits and budgets: those that hold by default, and how all of them are enforced.
        pub limits: Limits = Limits::default();
        /// When a provider is left alone for a while, and what is done about an attempt that failed.
        pub routing: Routing = Routing::default();
        /// The providers, by name.
        pub providers: BTreeMap<String, Provider> = BTreeMap::new(), entries 0 ..= 1000;
        /// The models that callers can name, by that name.
        pub models: BTreeMap<String, Model> = BTreeMap::new(), entries 0 ..= 10000;
        /// Further names that callers can use, by that name.
        pub routes: BTreeMap<String, Route> = BTreeMap::new(), entries 0 ..= 10000;
        /// What models cost, by the model's name.
        pub prices: BTreeMap<String, Price> = BTreeMap::new(), entries 0 ..= 10000;
    }
}

/// Adds problems, but for those of fields of which one is known: what has the wrong type is not missing as well.
fn and_others(known: &mut Vec<ConfigProblem>, mut more: Vec<ConfigProblem>) {
    more.retain(|problem| !known.iter().any(|known| known.path == problem.path));
    known.extend(more);
}

impl Config {
    /// Reads what somebody wrote. Misspelt fields are problems here.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(written: &Value) -> Result<Self, Vec<ConfigProblem>> {
        let (config, mut problems) = reading::read_strictly(written);
        // Whatever refers to a part that could not be read would be reported as well, and wrongly.
        if problems.is_empty() {
            problems = config.problems();
        } else {
            and_others(&mut problems, config.problems_of_fields());
        }
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// What is wrong with the parts of what somebody wrote, each by itself: whatever they refer to may be missing.
    pub fn problems_of_parts(written: &Value) -> Vec<ConfigProblem> {
        let (config, mut problems) = reading::read_strictly(written);
        and_others(&mut problems, config.problems_of_fields());
        problems
    }

    /// Reads a snapshot's document. Fields that are unknown are passed over.
    ///
    /// # Errors
    /// Everything that has the wrong type.
    pub fn read(stored: &Value) -> Result<Self, Vec<ConfigProblem>> {
        let read = reading::read(stored);
        if read.mistyped.is_empty() { Ok(read.config) } else { Err(read.mistyped) }
    }
}
