//! A request and a world to route it in, for tests.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::board::{Availability, Skip, Standing};
use super::traits::{RequestView, View};
use crate::config::Config;
use crate::gateway::plan::Unusable;
use crate::protocol::Apis;

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) headers: BTreeMap<String, String>,
    pub(super) params: BTreeMap<String, Vec<u8>>,
    pub(super) stream: bool,
    pub(super) input_tokens: u64,
    pub(super) account: String,
    pub(super) user: Option<String>,
    pub(super) key_id: String,
}

impl Request {
    /// A plain one.
    pub(super) fn new() -> Self {
        Self {
            headers: BTreeMap::new(),
            params: BTreeMap::new(),
            stream: false,
            input_tokens: 100,
            account: "a".into(),
            user: None,
            key_id: "k".into(),
        }
    }

    /// With a header.
    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a field of the body.
    pub(super) fn param(mut self, name: &str, value: &Value) -> Self {
        self.params.insert(name.to_owned(), value.to_string().into_bytes());
        self
    }
}

impl RequestView for Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    fn param(&self, name: &str) -> Option<&[u8]> {
        self.params.get(name).map(Vec::as_slice)
    }

    fn stream(&self) -> bool {
        self.stream
    }

    fn input_tokens(&self) -> u64 {
        self.input_tokens
    }

    fn account(&self) -> &str {
        &self.account
    }

    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn key_id(&self) -> &str {
        &self.key_id
    }
}

/// Deployments as tests need them; those that nothing is said of are in good health.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub(super) standings: BTreeMap<String, Standing>,
    pub(super) in_flight: BTreeMap<String, u64>,
    pub(super) costs: BTreeMap<String, u64>,
    pub(super) unusable: BTreeSet<String>,
}

impl World {
    /// Of a deployment with this standing.
    pub(super) fn with(mut self, deployment: &str, standing: Standing) -> Self {
        self.standings.insert(deployment.to_owned(), standing);
        self
    }

    /// Of a deployment that is passed over.
    pub(super) fn without(self, deployment: &str, skip: Skip) -> Self {
        self.with(deployment, Standing { availability: Availability::Skipped(skip), ..Standing::UNKNOWN })
    }
}

impl View for World {
    fn usable(&self, deployment: &str) -> Result<(), Unusable> {
        if self.unusable.contains(deployment) { Err(Unusable::WrongApi(Apis::default())) } else { Ok(()) }
    }

    fn standing(&self, provider: &str, deployment: &str) -> Standing {
        assert_eq!(provider, "p");
        self.standings.get(deployment).copied().unwrap_or(Standing::UNKNOWN)
    }

    fn in_flight(&self, deployment: &str) -> u64 {
        self.in_flight.get(deployment).copied().unwrap_or(0)
    }

    fn cost(&self, deployment: &str) -> Option<u64> {
        self.costs.get(deployment).copied()
    }
}

/// A configuration with these routes, and a model for each name that a target or a fallback mentions.
pub(super) fn config(routes: Value) -> Config {
    let mut models = BTreeMap::new();
    let text = routes.to_string();
    for name in text.split('"').filter(|word| word.len() <= 3 && word.starts_with('m')) {
        models.insert(name.to_owned(), json!({"provider": "p"}));
    }
    let document = json!({
        "providers": {"p": {"dialect": "openai", "base_url": "https://p.example/v1"}},
        "models": models,
        "routes": routes,
    });
    serde_json::from_value(document).unwrap()
}
