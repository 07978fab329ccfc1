//! The configuration as an isolate uses it.

use std::collections::BTreeMap;

use url::Url;

use super::asking;
use super::plan::served_apis;
use crate::auth::Principal;
use crate::billing::Prices;
use crate::config::{
    Config, ConfigProblem, Effective, EndpointError, PrivateHosts, Provider, RouteTarget, Snapshot, Strategy,
    check_base_url, effective,
};
use crate::limits::rule::Rule;
use crate::objects::pool::Pools;
use crate::protocol::Apis;
use crate::routing::tree::MAX_DEPTH;

/// What a deployment, and not the configuration, says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Private hosts that providers may be at.
    pub private_hosts: PrivateHosts,
    /// Its variables, of which those that begin with `GATEWAY__` are a layer of the configuration.
    pub environment: Vec<(String, String)>,
}

/// A snapshot as an isolate uses it: with what depends on the deployment worked out.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The snapshot's version.
    pub version: String,
    /// When it was sealed, in Unix seconds.
    pub created_at: u64,
    /// The configuration.
    pub config: Config,
    /// What is wrong with it and with the variables of the deployment, for the log. Variables by their name.
    pub problems: Vec<ConfigProblem>,
    /// What its models cost.
    pub prices: Prices,
    /// Which gauge counts for which provider.
    pub pools: Pools,
    /// Whether anything is decided by how quickly providers begin to answer.
    pub compares_latency: bool,
    endpoints: BTreeMap<String, Result<Url, EndpointError>>,
    default_rules: Vec<Rule>,
    provider_rules: BTreeMap<String, Vec<Rule>>,
}

impl LoadedConfig {
    /// Loads a snapshot. A provider whose address this deployment does not allow stays, but cannot be called.
    ///
    /// # Errors
    /// What in the snapshot has the wrong type.
    pub fn new(snapshot: Snapshot, deployment: &Deployment) -> Result<Self, Vec<ConfigProblem>> {
        Config::read(&snapshot.config)?;
        let Effective { config, problems, .. } = effective(&deployment.environment, &snapshot.config);
        let endpoints = config
            .providers
            .iter()
            .map(|(name, provider)| (name.clone(), check_addresses(provider, &deployment.private_hosts)))
            .collect();
        let prices = Prices::of(&config);
        let pools = Pools::of_config(&config);
        let compares_latency = config.routing.dynamic_weights
            || config.routes.values().any(|route| route.strategy == Strategy::LowestLatency);
        let default_rules = asking::default_rules(&config.limits);
        let limited = config.providers.iter().filter(|(_, provider)| !provider.limits.is_empty());
        let provider_rules =
            limited.map(|(name, provider)| (name.clone(), asking::provider_rules(name, &provider.limits))).collect();
        Ok(Self {
            version: snapshot.version,
            created_at: snapshot.created_at,
            config,
            problems,
            prices,
            pools,
            compares_latency,
            endpoints,
            default_rules,
            provider_rules,
        })
    }

    /// The limits that hold by default.
    pub fn default_rules(&self) -> &[Rule] {
        &self.default_rules
    }

    /// The limits of a provider.
    pub fn provider_rules(&self, provider: &str) -> &[Rule] {
        self.provider_rules.get(provider).map(Vec::as_slice).unwrap_or_default()
    }

    /// Providers whose address is refused, with the reason, for the log.
    pub fn refused_endpoints(&self) -> impl Iterator<Item = (&str, &EndpointError)> {
        self.endpoints.iter().filter_map(|(name, endpoint)| Some((name.as_str(), endpoint.as_ref().err()?)))
    }

    /// Where a provider's API is, or why it must not be called; `None` for a provider that does not exist.
    pub fn endpoint(&self, provider: &str) -> Option<Result<&Url, &EndpointError>> {
        self.endpoints.get(provider).map(Result::as_ref)
    }

    /// The names that a principal may use, of models and routes that are enabled, in the order of the alphabet.
    pub fn listings(&self, principal: &Principal) -> Vec<Listing<'_>> {
        let names = self.config.models.keys().chain(self.config.routes.keys());
        let mut names: Vec<&str> = names.map(String::as_str).filter(|name| principal.may_use_model(name)).collect();
        names.sort_unstable();
        names.into_iter().filter_map(|name| self.listing(name)).collect()
    }

    /// What is told of a name that callers can use; `None` if it cannot be called.
    pub fn listing(&self, name: &str) -> Option<Listing<'_>> {
        if let Some((name, model)) = self.config.models.get_key_value(name) {
            let enabled = model.enabled && self.config.providers.get(&model.provider).is_none_or(|it| it.enabled);
            return enabled.then(|| Listing {
                name,
                owned_by: model.owned_by.as_deref().unwrap_or(&model.provider),
                description: model.description.as_deref(),
                context_tokens: model.context_tokens,
                apis: self
                    .config
                    .providers
                    .get(&model.provider)
                    .map_or_else(Apis::default, |provider| served_apis(&self.config, provider, name, model)),
            });
        }
        self.listing_of_route(name, 1)
    }

    /// What is told of a route that is the `depth`th on the way to it.
    fn listing_of_route(&self, name: &str, depth: usize) -> Option<Listing<'_>> {
        let (name, route) = self.config.routes.get_key_value(name).filter(|(_, route)| route.enabled)?;
        let answers = |target: &RouteTarget| match (&target.model, &target.route) {
            (Some(model), _) if self.config.models.contains_key(model) => self.listing(model),
            (None, Some(route)) if depth < MAX_DEPTH => self.listing_of_route(route, depth.saturating_add(1)),
            _ => None,
        };
        let mut answering = route.targets.iter().filter(|target| target.enabled).filter_map(answers);
        let first = answering.next()?;
        let apis = answering.fold(first.apis, |apis, other| apis.and(other.apis));
        Some(Listing { name, description: route.description.as_deref(), apis, ..first })
    }
}

/// Where a provider's API is, or why it must not be called, be it for the endpoint that mints its tokens.
///
/// # Errors
/// [`EndpointError`] says what is wrong with one of the addresses.
pub fn check_addresses(provider: &Provider, hosts: &PrivateHosts) -> Result<Url, EndpointError> {
    if let Some(tokens) = provider.auth.as_ref().and_then(|auth| auth.token_url.as_deref()) {
        check_base_url(tokens, hosts)?;
    }
    check_base_url(provider.base_url(), hosts)
}

/// What the list of models tells of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing<'a> {
    /// The name.
    pub name: &'a str,
    /// Whose model it is; of a route, its first target's.
    pub owned_by: &'a str,
    /// What it is, for people.
    pub description: Option<&'a str>,
    /// How many tokens fit into it, if that is configured.
    pub context_tokens: Option<u64>,
    /// By which APIs it can be called.
    pub apis: Apis,
}

/// A configuration as an isolate has it, for tests.
#[cfg(test)]
pub(crate) fn loaded_for_tests(config: serde_json::Value) -> LoadedConfig {
    let snapshot = Snapshot { version: "v1".into(), sequence: 0, parent: None, created_at: 0, config };
    let deployment = Deployment { private_hosts: PrivateHosts::parse(""), environment: Vec::new() };
    LoadedConfig::new(snapshot, &deployment).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_can_be_called_is_listed() {
        let loaded = loaded_for_tests(json!({
            "providers": {
                "p": {"dialect": "openai", "base_url": "https://p.example/v1"},
                "off": {"dialect": "openai", "base_url": "https://p.example/v1", "enabled": false},
            },
            "models": {
                "m": {"provider": "p", "owned_by": "acme", "description": "good"}, "n": {"provider": "p"},
                "off": {"provider": "p", "enabled": false}, "theirs": {"provider": "off"},
            },
            "routes": {
                "a": {"description": "best", "targets": [{"model": "off"}, {"model": "m"}]},
                "b": {"targets": [{"model": "m", "enabled": false}, {"model": "theirs"}]},
                "c": {"targets": [{"model": "n"}], "enabled": false},
            },
        }));
        let told: Vec<_> =
            loaded.listings(&Principal::default()).into_iter().map(|it| (it.name, it.owned_by)).collect();
        assert_eq!(told, [("a", "acme"), ("m", "acme"), ("n", "p")]);
        assert_eq!(loaded.listing("a").unwrap().description, Some("best"));
        let (route, model) = (loaded.listing("a").unwrap(), loaded.listing("m").unwrap());
        assert!(route.apis == model.apis && route.apis.iter().any(|api| api == crate::protocol::Api::Embeddings));
        let one = Principal { models: vec!["n".into()], ..Principal::default() };
        assert_eq!(loaded.listings(&one).len(), 1);
    }

    #[test]
    fn the_deployments_variables_are_a_layer() {
        let snapshot = Snapshot { version: "v".into(), sequence: 0, parent: None, created_at: 0, config: json!({}) };
        let environment = vec![("GATEWAY__HTTP__HSTS_SECONDS".to_owned(), "5".to_owned())];
        let deployment = Deployment { private_hosts: PrivateHosts::Any, environment };
        assert_eq!(LoadedConfig::new(snapshot, &deployment).unwrap().config.http.hsts_seconds, 5);
    }
}
