//! Section `routes`: names that stand for several models, and how one of them is chosen.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::fields;
use super::providers::yes;
use crate::routing::outcome::Fault;

fields! {
    /// A further name that callers can use, answered by one of its targets.
    pub struct Route {
        /// Whether it can be called. As a target of another route, it is passed over while it is not.
        #[serde(default = "yes")]
        pub enabled: bool;
        /// What it is for; shown in the list of models.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub description: Option<String>, chars 0 ..= 1024;
        /// How one of the targets of equal priority is chosen. Those that cannot be called or are unhealthy are passed
        /// over; the others stand by for a failure.
        #[serde(default)]
        pub strategy: Strategy;
        /// Who may answer. Routes may be nested four deep, and have 128 targets together.
        pub targets: Vec<RouteTarget>, items 1 ..= 32;
        /// Keeps callers with the target that they had, so that its prompt cache stays warm. Routes among the targets
        /// that have none of their own take this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub sticky: Option<Sticky>;
        /// What counts for this route in place of section `routing`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub retry: Option<RouteRetry>;
        /// Models and routes that are tried instead of the next targets where a target failed in this way, by the fault's
        /// name as in `routing.retry_on`: `{"context_length": ["large"]}`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        pub fallbacks: BTreeMap<String, Vec<String>>, entries 0 ..= 16;
        /// A model that gets a copy of some of the requests; its replies are thrown away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub shadow: Option<Shadow>;
    }
}

/// How one target of several is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The first in the list.
    #[default]
    Ordered,
    /// Each in its turn.
    RoundRobin,
    /// Each as often as its weight says, spread evenly; less often while it fails, or has just recovered.
    Weighted,
    /// By chance, each exactly as likely as its weight says, whatever its health.
    Split,
    /// The one with the fewest open requests for its weight, counted over all of the world.
    LeastConnections,
    /// The faster of two that are drawn by chance, by the time to the first token and what is open.
    LowestLatency,
    /// The cheapest for the request's size; those without a price last.
    LowestCost,
}

impl Strategy {
    /// As it is written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::RoundRobin => "round_robin",
            Self::Weighted => "weighted",
            Self::Split => "split",
            Self::LeastConnections => "least_connections",
            Self::LowestLatency => "lowest_latency",
            Self::LowestCost => "lowest_cost",
        }
    }
}

fields! {
    /// One of a route's targets: a model, or another route.
    pub struct RouteTarget {
        /// The model, by its name in `models`. Exactly one of `model` and `route` is set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub model: Option<String>, chars 1 ..= 256;
        /// The route, by its name in `routes`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub route: Option<String>, chars 1 ..= 256;
        /// Whether it is considered.
        #[serde(default = "yes")]
        pub enabled: bool;
        /// Its share, in proportion to those of the other targets of its priority. `ordered`, `round_robin` and
        /// `lowest_latency` pay no heed to it.
        #[serde(default = "one")]
        pub weight: u64, in 1 ..= 1_000;
        /// Targets of a higher number are tried only when none of a lower one can answer.
        #[serde(default)]
        pub priority: u64, in 0 ..= 9;
        /// Which requests it is considered for; everything that is set must hold. Left out: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub when: Option<When>;
    }
}

impl RouteTarget {
    /// The name of the model or the route that it is; empty if it names neither.
    pub fn name(&self) -> &str {
        self.model.as_deref().or(self.route.as_deref()).unwrap_or_default()
    }
}

fields! {
    /// Which requests a target is considered for.
    #[derive(Default)]
    #[serde(default)]
    pub struct When {
        /// Headers of the request, by name, with the values that will do. `*` stands for any.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub headers: BTreeMap<String, Vec<String>>, entries 0 ..= 16;
        /// Members of the header `x-gateway-metadata`, a JSON object, with the values that will do. `*` stands for any.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub metadata: BTreeMap<String, Vec<String>>, entries 0 ..= 16;
        /// Fields of the body, those at its top, with the texts, numbers and truth values that will do. `*` stands for
        /// any, even null.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub params: BTreeMap<String, Vec<Value>>, entries 0 ..= 16;
        /// Only requests for a stream, or only others.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stream: Option<bool>;
        /// Only requests that give the model tools, or only others.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tools: Option<bool>;
        /// Only requests of so many estimated tokens of input, or more.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub min_input_tokens: Option<u64>, in 0 ..= 100_000_000;
        /// Only requests of so many estimated tokens of input, or fewer.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_input_tokens: Option<u64>, in 0 ..= 100_000_000;
        /// Only requests of these accounts, by id.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub accounts: Vec<String>, items 0 ..= 100;
        /// Only requests of these users, by id.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub users: Vec<String>, items 0 ..= 100;
        /// Only requests with these API keys, by id.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub keys: Vec<String>, items 0 ..= 100;
    }
}

fields! {
    /// What callers are kept with a target by.
    pub struct Sticky {
        /// What those have in common that are sent to the same target. A request without it goes where the strategy sends
        /// it.
        pub by: StickyBy;
        /// The header, for `by = "header"`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub header: Option<String>, chars 1 ..= 256;
        /// For `by = "prompt_prefix"`: how many bytes of the prompt's beginning must be the same.
        #[serde(default = "prefix_bytes")]
        pub prefix_bytes: u64, in 64 ..= 65_536;
    }
}

/// What callers are kept with a target by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StickyBy {
    /// The session: the first there is of the headers `x-session-id` and `x-gateway-session` and the body's
    /// `prompt_cache_key`, `metadata.user_id` and `user`. Of one account each.
    Session,
    /// The beginning of the prompt, tools and system prompt first.
    PromptPrefix,
    /// The user that the key belongs to.
    User,
    /// The API key.
    Key,
    /// A header.
    Header,
}

fields! {
    /// What counts for a route in place of section `routing`.
    #[derive(Default)]
    #[serde(default)]
    pub struct RouteRetry {
        /// In place of `routing.max_attempts`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_attempts: Option<u64>, in 1 ..= 10;
        /// After how many milliseconds without the first byte of an answer an attempt is given up for another target, as
        /// long as one is left. Left out: the providers' own time bounds are waited for, and an unstreamed answer, which
        /// comes all at once, is waited for as long as a request may take.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub attempt_ms: Option<u64>, in 50 ..= 600_000;
        /// In place of `routing.retry_on`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub retry_on: Option<Vec<Fault>>, items 0 ..= 16;
    }
}

fields! {
    /// A model that gets a copy of some of a route's requests.
    pub struct Shadow {
        /// The model, by its name in `models`.
        pub model: String, chars 1 ..= 256;
        /// How many of a hundred requests.
        #[serde(default = "one")]
        pub percent: u64, in 1 ..= 100;
        /// The account that pays for the copies, by id.
        pub account: String, chars 1 ..= 64;
    }
}

fn one() -> u64 {
    1
}

fn prefix_bytes() -> u64 {
    2_048
}
