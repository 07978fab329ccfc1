//! Stage 3: which provider serves a model, and how its reply reaches the caller.

use std::collections::BTreeMap;

use url::Url;

use crate::auth::Principal;
use crate::config::{
    Config, ConfigProblem, Effective, EndpointError, Model, PrivateHosts, Provider, Snapshot, StreamUsage, Timeouts,
    check_base_url, effective,
};
use crate::error::{Kind, Problem};
use crate::providers::{Adapter, Api, Target, adapter};

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
    endpoints: BTreeMap<String, Result<Url, EndpointError>>,
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
            .map(|(name, provider)| (name.clone(), check_base_url(&provider.base_url, &deployment.private_hosts)))
            .collect();
        Ok(Self { version: snapshot.version, created_at: snapshot.created_at, config, problems, endpoints })
    }

    /// Providers whose address is refused, with the reason, for the log.
    pub fn refused_endpoints(&self) -> impl Iterator<Item = (&str, &EndpointError)> {
        self.endpoints.iter().filter_map(|(name, endpoint)| Some((name.as_str(), endpoint.as_ref().err()?)))
    }

    /// The models that a principal may use, by name.
    pub fn models_for<'a>(&'a self, principal: &'a Principal) -> impl Iterator<Item = (&'a str, &'a Model)> {
        self.config
            .models
            .iter()
            .map(|(name, model)| (name.as_str(), model))
            .filter(|(name, _)| principal.may_use_model(name))
    }
}

/// How a reply reaches the caller (`platform-facts`: the dearer the further down).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// As the runtime hands it over; usage is read from a second branch.
    Native,
    /// The same bytes less the usage chunk that only the gateway asked for.
    Relayed,
    /// Decoded and written anew in the caller's dialect.
    Translated,
}

impl Lane {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Relayed => "relayed",
            Self::Translated => "translated",
        }
    }
}

/// What is going to be done for a request.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// The provider's name.
    pub provider_name: &'a str,
    /// Where its API is.
    pub endpoint: &'a Url,
    /// Provider and model.
    pub target: Target<'a>,
    /// The provider's dialect.
    pub adapter: &'static dyn Adapter,
    /// The reply's lane.
    pub lane: Lane,
    /// Time bounds.
    pub timeouts: Timeouts,
}

/// Decides. `include_usage` is whether the caller asked for the usage chunk, `stream` whether for a stream.
///
/// # Errors
/// 404 for a model that does not exist or that the principal may not use (the same answer for both), 400 where the
/// provider does not serve this API, 503 where the deployment does not allow its address.
pub fn plan<'a>(
    loaded: &'a LoadedConfig,
    principal: &Principal,
    api: Api,
    model_name: &str,
    stream: bool,
    include_usage: bool,
) -> Result<Plan<'a>, Problem> {
    let model = loaded.config.models.get(model_name).filter(|_| principal.may_use_model(model_name));
    let (Some(model), Some((model_key, _))) = (model, loaded.config.models.get_key_value(model_name)) else {
        return Err(no_such_model(model_name));
    };
    let unavailable = |message: &str| Problem::new(Kind::Unavailable, "provider_unavailable", message);
    let (Some((provider_name, provider)), Some(endpoint)) =
        (loaded.config.providers.get_key_value(&model.provider), loaded.endpoints.get(&model.provider))
    else {
        return Err(unavailable("The provider of this model is not configured. Tell the operator of the gateway."));
    };
    let endpoint = endpoint.as_ref().map_err(|_| {
        unavailable(
            "The provider of this model has an address that this deployment does not allow. Tell the operator of the \
             gateway: the log says which.",
        )
        .final_answer()
    })?;
    let adapter = adapter(provider.dialect);
    Ok(Plan {
        provider_name,
        endpoint,
        target: Target {
            provider,
            upstream_model: model.upstream_model.as_deref().unwrap_or(model_key),
            max_output_tokens: model.max_output_tokens.unwrap_or(Model::MAX_OUTPUT_TOKENS),
            structured_output: model.structured_output,
        },
        adapter,
        lane: lane(adapter, provider, api, stream, include_usage),
        timeouts: provider.timeouts.over(loaded.config.timeouts),
    })
}

fn lane(adapter: &dyn Adapter, provider: &Provider, api: Api, stream: bool, include_usage: bool) -> Lane {
    let usage_is_ours_alone =
        stream && api == Api::ChatCompletions && provider.stream_usage == StreamUsage::OnRequest && !include_usage;
    match adapter.speaks(api) {
        // What a reply is rewritten into is Chat Completions; there is no stricter form of the others to give.
        true if provider.normalize && api == Api::ChatCompletions => Lane::Translated,
        true if usage_is_ours_alone => Lane::Relayed,
        true => Lane::Native,
        false => Lane::Translated,
    }
}

/// The same words whether the model does not exist or is not for this caller.
pub fn no_such_model(name: &str) -> Problem {
    let mut problem = Problem::new(
        Kind::NotFound,
        "model_not_found",
        format!(
            "The model `{name}` does not exist or you do not have access to it. GET /v1/models lists the models you can use."
        ),
    );
    problem.param = Some("model".to_owned());
    problem
}

/// The whole URL of a request: base URL and path, each keeping its own slashes straight.
pub fn join_url(base: &Url, path: &str) -> String {
    format!("{}{path}", base.as_str().trim_end_matches('/'))
}

/// A configuration as an isolate has it, for tests.
#[cfg(test)]
pub(crate) fn loaded_for_tests(config: serde_json::Value) -> LoadedConfig {
    let snapshot = Snapshot { version: "v1".into(), sequence: 0, parent: None, created_at: 0, config };
    LoadedConfig::new(snapshot, &Deployment { private_hosts: PrivateHosts::parse(""), environment: Vec::new() })
        .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn loaded() -> LoadedConfig {
        let config = json!({
            "timeouts": {"idle_ms": 5000},
            "providers": {
                "o": {"dialect": "openai", "base_url": "https://o.example/v1/", "timeouts": {"total_ms": 9000}},
                "always": {"dialect": "openai", "base_url": "https://o.example/v1", "stream_usage": "always"},
                "loose": {"dialect": "openai", "base_url": "https://o.example/v1", "normalize": true},
                "a": {"dialect": "anthropic", "base_url": "https://a.example", "normalize": true},
                "local": {"dialect": "openai", "base_url": "http://127.0.0.1:1/v1"},
            },
            "models": {
                "o": {"provider": "o", "upstream_model": "gpt"}, "always": {"provider": "always"},
                "loose": {"provider": "loose"}, "a": {"provider": "a"}, "local": {"provider": "local"},
            },
        });
        loaded_for_tests(config)
    }

    fn principal(models: &[&str]) -> Principal {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        Principal { account: "a".into(), key_id: "k".into(), models, ..Principal::default() }
    }

    #[test]
    fn the_cheapest_lane_that_is_right_is_taken() {
        let loaded = loaded();
        let lane = |api, model, stream, usage| plan(&loaded, &principal(&[]), api, model, stream, usage).unwrap().lane;
        use Api::{ChatCompletions as Chat, Messages};
        assert_eq!(lane(Chat, "o", true, true), Lane::Native);
        assert_eq!(lane(Chat, "o", true, false), Lane::Relayed);
        assert_eq!(lane(Chat, "o", false, false), Lane::Native);
        assert_eq!(lane(Chat, "always", true, false), Lane::Native);
        assert_eq!(lane(Chat, "loose", true, true), Lane::Translated);
        assert_eq!(lane(Chat, "a", true, true), Lane::Translated);
        assert_eq!(lane(Messages, "a", true, false), Lane::Native);
    }

    #[test]
    fn a_forbidden_model_looks_like_one_that_does_not_exist() {
        let loaded = loaded();
        let asked =
            |who: &Principal, model: &str| plan(&loaded, who, Api::ChatCompletions, model, false, false).err().unwrap();
        let forbidden = asked(&principal(&["a"]), "o");
        assert_eq!((forbidden.status, forbidden.code.as_str()), (404, "model_not_found"));
        assert_eq!(asked(&principal(&[]), "zzz").message.replace("zzz", "o"), forbidden.message);
    }

    #[test]
    fn a_private_address_is_refused_without_naming_it() {
        let problem = plan(&loaded(), &principal(&[]), Api::ChatCompletions, "local", false, false).err().unwrap();
        assert_eq!(problem.status, 503);
        assert!(!problem.message.contains("127"));
        assert_eq!(loaded().refused_endpoints().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["local"]);
    }

    #[test]
    fn names_urls_and_times_are_worked_out() {
        let loaded = loaded();
        let plan = plan(&loaded, &principal(&[]), Api::ChatCompletions, "o", false, false).unwrap();
        assert_eq!(plan.target.upstream_model, "gpt");
        assert_eq!(join_url(plan.endpoint, "/chat/completions"), "https://o.example/v1/chat/completions");
        assert_eq!((plan.timeouts.idle_ms, plan.timeouts.total_ms), (5000, 9000));
    }
}
