//! Stage 3: which provider serves a model, and how its reply reaches the caller.

use url::Url;

use super::envelope::Envelope;
use super::estimate::{Family, Input};
use crate::auth::Principal;
use crate::billing::{Parts, Pricing};
use crate::config::{Config, Model, Overrides, Provider, StreamUsage, Timeouts, Unpriced};
use crate::error::{Kind, Problem};
use crate::protocol::Apis;
use crate::protocol::chat::ChatRequest;
use crate::protocol::inbound::inbound;
use crate::providers::outbound::{Outbound, Serves, translated};
use crate::providers::{Api, Target, UpstreamRequest, outbound, side};

pub use super::loaded::{Deployment, Listing, LoadedConfig};

/// How a reply reaches the caller (`platform-facts`: the dearer the further down).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// As the runtime hands it over; usage is read from a second branch.
    Native,
    /// The same bytes less the usage chunk that only the gateway asked for, or with the cost written into it.
    Relayed,
    /// Decoded and written anew in the caller's dialect.
    Translated,
    /// As the runtime hands it over, whatever it is: the path is the provider's own.
    Proxy,
    /// The gateway's own estimate: nobody is asked.
    Estimated,
}

impl Lane {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Relayed => "relayed",
            Self::Translated => "translated",
            Self::Proxy => "proxy",
            Self::Estimated => "estimated",
        }
    }
}

/// What a caller asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The API that it speaks.
    pub api: Api,
    /// The name of a model or a route.
    pub model: &'a str,
    /// Whether it wants a stream.
    pub stream: bool,
    /// Whether it wants the usage chunk at the end of a stream.
    pub include_usage: bool,
    /// Whether it wants to be told the cost in the reply's usage.
    pub include_cost: bool,
    /// What goes in.
    pub input: Input<'a>,
    /// When it came in, in Unix seconds.
    pub at: u64,
}

/// What is going to be done for a request.
#[derive(Clone)]
pub struct Plan<'a> {
    /// The route that was asked for, if it was one.
    pub route: Option<&'a str>,
    /// The model's name in the configuration.
    pub model_name: &'a str,
    /// The provider's name.
    pub provider_name: &'a str,
    /// Where its API is.
    pub endpoint: &'a Url,
    /// Provider and model.
    pub target: Target<'a>,
    /// The provider's dialect.
    pub dialect: &'static dyn Outbound,
    /// How it serves the API that was called.
    pub serves: Serves,
    /// The reply's lane.
    pub lane: Lane,
    /// Time bounds.
    pub timeouts: Timeouts,
    /// What the model costs; `None` if it has no price.
    pub pricing: Option<Pricing>,
}

impl Plan<'_> {
    /// How the model that answers counts tokens.
    pub fn family(&self) -> Family {
        family(self.dialect, self.target)
    }

    /// The request for how many tokens a chat request has.
    fn count(&self, chat: &ChatRequest) -> Result<UpstreamRequest, Problem> {
        let whole = ChatRequest { stream: false, ..chat.clone() };
        let request = translated(self.dialect, self.target, &whole)?;
        let internal = || Problem::new(Kind::Internal, "internal_error", "This provider does not count tokens.");
        self.dialect.count(request, self.target).ok_or_else(internal)
    }

    /// Writes what the provider is going to be sent; nothing where the gateway answers itself.
    ///
    /// # Errors
    /// A 400 naming the field that this provider cannot serve.
    pub fn request(&self, envelope: &Envelope<'_>) -> Result<UpstreamRequest, Problem> {
        match self.serves {
            Serves::Natively => self.dialect.faithful(envelope.api, &envelope.source(), self.target),
            Serves::Translated if envelope.api.is_count() => self.count(envelope.chat()?),
            Serves::Translated => match self.dialect.side(envelope.api, self.target) {
                Some(side) => side::translated(side, self.target, envelope.api, &envelope.json()?),
                None => translated(self.dialect, self.target, envelope.chat()?),
            },
            Serves::No if self.lane == Lane::Estimated => Ok(UpstreamRequest::post("", Vec::new())),
            Serves::No => Err(Unusable::WrongApi(served(self.dialect, self.target)).problem(&envelope.model)),
        }
    }
}

/// How a target serves an API, as far as the gateway can translate it.
fn serves(dialect: &dyn Outbound, api: Api, target: Target<'_>) -> Serves {
    match dialect.serves(api, target) {
        Serves::Translated if inbound(api.of_requests()).is_none() && dialect.side(api, target).is_none() => Serves::No,
        serves => serves,
    }
}

/// The APIs by which a target can be called.
fn served(dialect: &dyn Outbound, target: Target<'_>) -> Apis {
    Api::ALL.into_iter().filter(|api| api.is_count() || serves(dialect, *api, target) != Serves::No).collect()
}

/// The APIs by which a model can be called.
pub fn served_apis(config: &Config, provider: &Provider, name: &str, model: &Model) -> Apis {
    served(outbound(provider.dialect()), target(config, provider, name, model))
}

fn target<'a>(config: &Config, provider: &'a Provider, name: &'a str, model: &'a Model) -> Target<'a> {
    Target {
        provider,
        upstream_model: model.upstream_model.as_deref().unwrap_or(name),
        max_output_tokens: model.max_output_tokens.unwrap_or(Model::MAX_OUTPUT_TOKENS),
        structured_output: model.structured_output,
        strict_params: model.strict_params.unwrap_or(config.http.strict_params),
    }
}

/// How a model counts tokens.
fn family(dialect: &dyn Outbound, target: Target<'_>) -> Family {
    Family::of(target.upstream_model, dialect.serves(Api::Messages, target) == Serves::Natively)
}

/// Why a model cannot answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The route leaves it out.
    #[error("the route's target is disabled")]
    TargetDisabled,
    /// There is no such model.
    #[error("the model does not exist")]
    NoModel,
    /// It is disabled.
    #[error("the model is disabled")]
    ModelDisabled,
    /// There is no such provider.
    #[error("the model's provider is not configured")]
    NoProvider,
    /// Its provider is disabled.
    #[error("the model's provider is disabled")]
    ProviderDisabled,
    /// Its provider has an address that this deployment does not allow.
    #[error("the provider's address is not allowed by the deployment")]
    AddressRefused,
    /// Its provider does not serve the API that was called, but these.
    #[error("the model's provider does not serve this API")]
    WrongApi(Apis),
    /// The input does not fit into it.
    #[error("the input of about {estimated} tokens does not fit into the model's {limit}")]
    TooLong {
        /// Estimated tokens of the input.
        estimated: u64,
        /// The model's `context_tokens`.
        limit: u64,
    },
    /// It has no price, and models without one are refused.
    #[error("the model has no price")]
    Unpriced,
}

impl Unusable {
    /// The reason in a word, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::TargetDisabled => "target_disabled",
            Self::NoModel => "no_model",
            Self::ModelDisabled => "model_disabled",
            Self::NoProvider => "no_provider",
            Self::ProviderDisabled => "provider_disabled",
            Self::AddressRefused => "address_refused",
            Self::WrongApi(_) => "wrong_api",
            Self::TooLong { .. } => "too_long",
            Self::Unpriced => "unpriced",
        }
    }

    /// The error for a caller who asked for a model (or a route) of this name.
    pub fn problem(self, name: &str) -> Problem {
        let unavailable = |message: &str| Problem::new(Kind::Unavailable, "provider_unavailable", message);
        match self {
            Self::NoModel | Self::ModelDisabled | Self::TargetDisabled => no_such_model(name),
            Self::NoProvider => {
                unavailable("The provider of this model is not configured. Tell the operator of the gateway.")
            }
            Self::ProviderDisabled => unavailable(
                "The provider of this model is switched off at the moment. Tell the operator of the gateway.",
            )
            .final_answer(),
            Self::AddressRefused => unavailable(
                "The provider of this model has an address that this deployment does not allow. Tell the operator of \
                 the gateway: the log says which.",
            )
            .final_answer(),
            Self::WrongApi(apis) => {
                let paths: Vec<_> = apis.iter().map(Api::path).collect();
                let message = format!(
                    "The model `{name}` is served by a provider that does not serve this API. Call it by POST {}.",
                    paths.join(", ")
                );
                Problem { code: "unsupported_api_for_model".to_owned(), ..Problem::invalid("model", message) }
            }
            Self::TooLong { estimated, limit } => {
                let message = format!(
                    "The input is about {estimated} tokens long, but `{name}` takes {limit} at most. Shorten it, or use \
                     a model with a larger context."
                );
                Problem { code: "context_length_exceeded".to_owned(), ..Problem::invalid("messages", message) }
            }
            Self::Unpriced => Problem::new(
                Kind::Permission,
                "model_unpriced",
                format!(
                    "The model `{name}` has no price, and this gateway serves priced models only. Tell its operator."
                ),
            )
            .final_answer(),
        }
    }
}

/// The plan to have one model answer.
///
/// # Errors
/// Why it cannot.
pub fn candidate<'a>(
    loaded: &'a LoadedConfig,
    principal: &Principal,
    asked: Asked<'_>,
    name: &str,
) -> Result<Plan<'a>, Unusable> {
    let config = &loaded.config;
    let (model_name, model) = config.models.get_key_value(name).ok_or(Unusable::NoModel)?;
    if !model.enabled {
        return Err(Unusable::ModelDisabled);
    }
    let provider = config.providers.get_key_value(&model.provider).zip(loaded.endpoint(&model.provider));
    let ((provider_name, provider), endpoint) = provider.ok_or(Unusable::NoProvider)?;
    if !provider.enabled {
        return Err(Unusable::ProviderDisabled);
    }
    let endpoint = endpoint.map_err(|_| Unusable::AddressRefused)?;
    let dialect = outbound(provider.dialect());
    let target = target(config, provider, model_name, model);
    let serves = serves(dialect, asked.api, target);
    if serves == Serves::No && !asked.api.is_count() {
        return Err(Unusable::WrongApi(served(dialect, target)));
    }
    if let Some(limit) = model.context_tokens {
        let estimated = asked.input.tokens(family(dialect, target));
        if estimated > limit {
            return Err(Unusable::TooLong { estimated, limit });
        }
    }
    let pricing = if asked.api.is_count() {
        Some(Pricing::flat(Parts::default()))
    } else {
        loaded.prices.find(name, &principal.account, asked.at)
    };
    if pricing.is_none() && config.billing.unpriced_models == Unpriced::Refuse {
        return Err(Unusable::Unpriced);
    }
    let overrides = principal.overrides.as_ref().map(Overrides::read).unwrap_or_default();
    Ok(Plan {
        route: None,
        model_name,
        provider_name,
        endpoint,
        target,
        dialect,
        serves,
        lane: lane(serves, provider, asked),
        timeouts: overrides.timeouts(provider.timeouts.over(config.timeouts)),
        pricing,
    })
}

fn lane(serves: Serves, provider: &Provider, asked: Asked<'_>) -> Lane {
    let chat = asked.api == Api::ChatCompletions;
    let tells_when_asked = chat || asked.api == Api::Completions;
    let usage_is_ours_alone =
        asked.stream && tells_when_asked && provider.stream_usage() == StreamUsage::OnRequest && !asked.include_usage;
    match serves == Serves::Natively {
        // What a reply is rewritten into is Chat Completions; there is no stricter form of the others to give.
        true if provider.normalize && chat => Lane::Translated,
        true if asked.api == Api::Speech => Lane::Native,
        true if usage_is_ours_alone || (asked.stream && asked.include_cost) => Lane::Relayed,
        true => Lane::Native,
        false if serves == Serves::No => Lane::Estimated,
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

#[cfg(test)]
mod tests {
    use super::super::itinerary::plan;
    use super::super::loaded::loaded_for_tests;
    use super::super::testing::{self, principal};
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

    fn asked(api: Api, model: &str) -> Asked<'_> {
        Asked { api, ..testing::asked(model) }
    }

    fn chat(model: &str) -> Asked<'_> {
        testing::asked(model)
    }

    #[test]
    fn the_cheapest_lane_that_is_right_is_taken() {
        let loaded = loaded();
        let lane = |api, model, stream, include_usage| {
            plan(&loaded, &principal(&[]), Asked { stream, include_usage, ..asked(api, model) }).unwrap().lane
        };
        use Api::{ChatCompletions as Chat, Messages};
        assert_eq!(lane(Chat, "o", true, true), Lane::Native);
        assert_eq!(lane(Chat, "o", true, false), Lane::Relayed);
        assert_eq!(lane(Chat, "o", false, false), Lane::Native);
        assert_eq!(lane(Chat, "always", true, false), Lane::Native);
        assert_eq!(lane(Chat, "loose", true, true), Lane::Translated);
        assert_eq!(lane(Chat, "a", true, true), Lane::Translated);
        assert_eq!(lane(Messages, "a", true, false), Lane::Native);
        assert_eq!(lane(Messages, "o", true, false), Lane::Translated);
    }

    #[test]
    fn a_forbidden_model_looks_like_one_that_does_not_exist() {
        let loaded = loaded();
        let refused = |who: &Principal, model: &str| plan(&loaded, who, chat(model)).err().unwrap();
        let forbidden = refused(&principal(&["a"]), "o");
        assert_eq!((forbidden.status, forbidden.code.as_str()), (404, "model_not_found"));
        assert_eq!(refused(&principal(&[]), "zzz").message.replace("zzz", "o"), forbidden.message);
    }

    #[test]
    fn a_private_address_is_refused_without_naming_it() {
        let problem = plan(&loaded(), &principal(&[]), chat("local")).err().unwrap();
        assert_eq!(problem.status, 503);
        assert!(!problem.message.contains("127"));
        assert_eq!(loaded().refused_endpoints().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["local"]);
    }

    #[test]
    fn names_urls_and_times_are_worked_out() {
        let loaded = loaded();
        let plan = plan(&loaded, &principal(&[]), chat("o")).unwrap();
        assert_eq!(plan.target.upstream_model, "gpt");
        assert_eq!(join_url(plan.endpoint, "/chat/completions"), "https://o.example/v1/chat/completions");
        assert_eq!((plan.timeouts.idle_ms, plan.timeouts.total_ms), (5000, 9000));
    }

    fn routed(billing: &str) -> LoadedConfig {
        testing::routed(json!({
            "billing": {"unpriced_models": billing},
            "routes": {
                "small": {"targets": [{"model": "theirs"}, {"model": "short"}]},
                "dead": {"targets": [{"model": "theirs"}]},
                "closed": {"targets": [{"model": "o"}], "enabled": false},
                "either": {"targets": [{"model": "o"}, {"model": "claude"}]},
            },
            "prices": {"claude": {"input": "3", "output": "15"}},
        }))
    }

    #[test]
    fn what_no_model_can_answer_says_what_to_do() {
        let loaded = routed("allow");
        let told = |asked: Asked<'_>| {
            let problem = plan(&loaded, &principal(&[]), asked).err().unwrap();
            (problem.status, problem.code)
        };
        assert_eq!(told(chat("small")), (400, "context_length_exceeded".into()));
        assert_eq!(told(chat("short")), (400, "context_length_exceeded".into()));
        assert_eq!(told(chat("dead")), (503, "no_target_available".into()));
        assert_eq!(told(chat("theirs")), (503, "provider_unavailable".into()));
        assert_eq!(told(chat("off")), (404, "model_not_found".into()));
        assert_eq!(told(chat("closed")), (404, "model_not_found".into()));
    }

    #[test]
    fn models_without_a_price_can_be_refused() {
        let loaded = routed("refuse");
        let problem = plan(&loaded, &principal(&[]), chat("o")).err().unwrap();
        assert_eq!((problem.status, problem.code.as_str()), (403, "model_unpriced"));
        assert_eq!(plan(&loaded, &principal(&[]), chat("either")).ok().unwrap().model_name, "claude");
    }

    #[test]
    fn a_key_can_have_time_bounds_of_its_own() {
        let loaded = loaded();
        let hasty = Principal { overrides: Some(json!({"timeouts": {"total_ms": 500}})), ..principal(&[]) };
        let plan = plan(&loaded, &hasty, chat("o")).ok().unwrap();
        assert_eq!((plan.timeouts.idle_ms, plan.timeouts.total_ms), (5000, 500));
    }
}
