//! Says what would become of a request, without sending it: by the same decisions that a real one meets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::asking::{Wanted, ask_for};
use super::envelope::Envelope;
use super::estimate::{Family, Input};
use super::explain::Explanation;
use super::itinerary::{Chance, Health, Sight, itinerary};
use super::plan::{Asked, LoadedConfig, Plan, no_such_model};
use crate::auth::Principal;
use crate::billing::Nanodollars;
use crate::config::{Model, Timeouts};
use crate::error::Problem;
use crate::limits::ask::Ask;
use crate::protocol::usage::{BillingFacts, Usage};
use crate::providers::Api;
use crate::routing::score::mix;
use crate::routing::strategy::Turns;

/// A request to try.
#[derive(Debug, Clone, Copy)]
pub enum Sample<'a> {
    /// Its body, as a caller would send it.
    Body(&'a [u8]),
    /// What matters of it.
    Described {
        /// The name of a model or a route.
        model: &'a str,
        /// Whether a stream is asked for.
        stream: bool,
        /// Tokens that go in.
        input_tokens: u64,
        /// The most output tokens that it asks for.
        max_tokens: Option<u64>,
    },
}

/// A limit, as far as it must be known to say whom it concerns. What is not set does not restrict it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopedLimit {
    /// Its id.
    pub id: String,
    /// The account it belongs to.
    pub account: String,
    /// The only user it concerns.
    pub user: Option<String>,
    /// The only key it concerns.
    pub key: Option<String>,
    /// The only model it concerns, by its name in the configuration.
    pub model: Option<String>,
}

impl ScopedLimit {
    fn concerns(&self, principal: &Principal, model: &str) -> bool {
        self.account == principal.account
            && self.user.as_ref().is_none_or(|user| Some(user) == principal.user.as_ref())
            && self.key.as_ref().is_none_or(|key| *key == principal.key_id)
            && self.model.as_deref().is_none_or(|only| only == model)
    }
}

/// What would become of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Simulated {
    /// The model as the caller named it.
    pub model: String,
    /// The route that this is, if it is one.
    pub route: Option<String>,
    /// Who would answer; null if nobody would.
    pub target: Option<SimulatedTarget>,
    /// How it was decided who that is.
    #[serde(flatten)]
    pub decision: Explanation,
    /// The ids of the limits that the request would count against.
    pub limits: Vec<String>,
    /// Tokens that go in, estimated where they were not given.
    pub input_tokens: u64,
    /// The most output tokens that it could use; null where only the provider knows.
    pub max_output_tokens: Option<u64>,
    /// What it would cost; null if it would not be answered.
    pub cost: Option<SimulatedCost>,
    /// What the caller would be told instead of an answer.
    pub error: Option<SimulatedError>,
}

/// Who would answer a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SimulatedTarget {
    /// The model in the configuration.
    pub model: String,
    /// Its provider.
    pub provider: String,
    /// Its name there.
    pub upstream_model: String,
    /// How the reply would reach the caller: `native`, `relayed` or `translated`.
    pub lane: String,
    /// The time bounds.
    pub timeouts: Timeouts,
}

/// What a request would cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SimulatedCost {
    /// Whether the model has no price; nothing else is known then.
    pub unpriced: bool,
    /// Where the price comes from: `configured`, or `bundled` and the day on which it was true.
    pub price_source: Option<String>,
    /// Its input and the request itself, in nano-dollars.
    pub input_nanodollars: Option<Nanodollars>,
    /// The most that it could cost, in nano-dollars; null where the output has no bound.
    pub max_nanodollars: Option<Nanodollars>,
}

/// What a caller would be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SimulatedError {
    /// The status.
    pub status: u16,
    /// The word for programs.
    pub code: String,
    /// The sentence for people.
    pub message: String,
    /// The field at fault, if there is one.
    pub param: Option<String>,
}

impl From<Problem> for SimulatedError {
    fn from(problem: Problem) -> Self {
        Self { status: problem.status, code: problem.code, message: problem.message, param: problem.param }
    }
}

/// What becomes of a request for `model` that is refused before anything is looked at.
pub fn refused(model: &str, problem: Problem) -> Simulated {
    Simulated { model: model.to_owned(), error: Some(problem.into()), ..Simulated::default() }
}

/// A request that was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// What would become of it, as far as its account's ledger is not asked.
    pub told: Simulated,
    /// What the ledger would be asked; `None` if nobody would answer.
    pub ask: Option<Ask>,
}

/// What a request is tried by.
#[derive(Clone, Copy)]
pub struct Trying<'a> {
    /// The configuration.
    pub loaded: &'a LoadedConfig,
    /// Who asks.
    pub principal: &'a Principal,
    /// The API that is called.
    pub api: Api,
    /// Limits; those of other accounts may be among them.
    pub limits: &'a [ScopedLimit],
    /// What is known of the health of those who could answer.
    pub health: &'a dyn Health,
    /// What chance decides by.
    pub random: u64,
    /// The time, in Unix seconds.
    pub at: u64,
}

/// Tries a request.
pub fn simulate(trying: Trying<'_>, sample: Sample<'_>) -> Tried {
    let mut told = Simulated::default();
    let ask = match fill(&mut told, trying, sample) {
        Ok(ask) => ask,
        Err(problem) => {
            told.error = Some(problem.into());
            None
        }
    };
    Tried { told, ask }
}

fn fill(simulated: &mut Simulated, trying: Trying<'_>, sample: Sample<'_>) -> Result<Option<Ask>, Problem> {
    let Trying { loaded, principal, api, limits, health, random, at } = trying;
    let envelope = match sample {
        Sample::Body(body) => Some(Envelope::read(body, api, loaded.config.http.max_json_depth)?),
        Sample::Described { .. } => None,
    };
    let (asked, max_tokens) = match (&envelope, sample) {
        (Some(envelope), _) => {
            let Envelope { ref model, stream, include_usage, max_output, .. } = *envelope;
            let input = Input::Body(&envelope.input);
            (Asked { api, model, stream, include_usage, include_cost: false, input, at }, max_output)
        }
        (None, Sample::Described { model, stream, input_tokens, max_tokens }) => {
            let input = Input::Tokens(input_tokens);
            (Asked { api, model, stream, include_usage: false, include_cost: false, input, at }, max_tokens)
        }
        (None, Sample::Body(_)) => return Ok(None),
    };
    simulated.model = asked.model.to_owned();
    simulated.input_tokens = asked.input.tokens(Family::of(asked.model, api == Api::Messages));
    simulated.max_output_tokens = max_tokens;
    let sight = Sight { asked, envelope: envelope.as_ref(), headers: None, principal };
    let mut drawn = random;
    let mut next = || {
        drawn = drawn.wrapping_add(1);
        mix(drawn)
    };
    let chance = Chance { turns: &mut Turns::default(), random: &mut next };
    let decided = itinerary(loaded, sight, health, chance);
    let order = decided.as_ref().map_or_else(|nobody| &nobody.order, |itinerary| &itinerary.order);
    simulated.decision = Explanation::from(order);
    let itinerary = decided.map_err(|nobody| nobody.problem)?;
    let plan = itinerary.plan_at(0).ok_or_else(|| no_such_model(asked.model))?;
    simulated.input_tokens = asked.input.tokens(plan.family());
    simulated.route = plan.route.map(str::to_owned);
    simulated.target = Some(SimulatedTarget {
        model: plan.model_name.to_owned(),
        provider: plan.provider_name.to_owned(),
        upstream_model: plan.target.upstream_model.to_owned(),
        lane: plan.lane.name().to_owned(),
        timeouts: plan.timeouts,
    });
    let concerned = limits.iter().filter(|limit| limit.concerns(principal, plan.model_name));
    simulated.limits = concerned.map(|limit| limit.id.clone()).collect();
    simulated.max_output_tokens = max_tokens.or_else(|| bound_by_gateway(loaded, &plan, api));
    simulated.cost = Some(estimate(&plan, simulated.input_tokens, simulated.max_output_tokens));
    // What a provider cannot be asked is found out in translating the request for it.
    match &envelope {
        Some(envelope) if api == Api::ChatCompletions => {
            plan.adapter.chat_request(&envelope.source(), plan.target)?;
        }
        Some(envelope) => {
            plan.adapter.messages_request(&envelope.source(), plan.target).transpose()?;
        }
        None => {}
    }
    let input_tokens = simulated.input_tokens;
    let wanted = match &envelope {
        Some(envelope) => Wanted::of(envelope, input_tokens),
        None => Wanted { input_tokens, max_output: max_tokens, choices: 1, service_tier: None },
    };
    Ok(Some(ask_for(loaded, &plan, principal, wanted)))
}

/// The most output tokens that the gateway asks for where the caller says nothing and the provider insists on a number.
fn bound_by_gateway(loaded: &LoadedConfig, plan: &Plan<'_>, api: Api) -> Option<u64> {
    let configured = loaded.config.models.get(plan.model_name).and_then(|model| model.max_output_tokens);
    let insists = api == Api::ChatCompletions && plan.adapter.speaks(Api::Messages);
    configured.or(insists.then_some(Model::MAX_OUTPUT_TOKENS))
}

fn estimate(plan: &Plan<'_>, input: u64, output: Option<u64>) -> SimulatedCost {
    let priced = |output| {
        let usage = Usage { input, output, ..Usage::default() };
        plan.pricing.as_ref().map(|pricing| pricing.cost(&usage, &BillingFacts::default()))
    };
    SimulatedCost {
        unpriced: plan.pricing.is_none(),
        price_source: plan.pricing.as_ref().map(|pricing| pricing.source().to_string()),
        input_nanodollars: priced(0),
        max_nanodollars: output.and_then(priced),
    }
}

#[cfg(test)]
mod tests {
    use super::super::itinerary::Unknown;
    use super::super::loaded::loaded_for_tests;
    use super::*;
    use serde_json::json;

    fn loaded() -> LoadedConfig {
        loaded_for_tests(json!({
            "providers": {
                "o": {"dialect": "openai", "base_url": "https://o.example/v1"},
                "a": {"dialect": "anthropic", "base_url": "https://a.example", "timeouts": {"total_ms": 9000}},
            },
            "models": {
                "gpt": {"provider": "o", "enabled": false}, "free": {"provider": "o"},
                "claude": {"provider": "a", "upstream_model": "claude-1", "max_output_tokens": 1000},
            },
            "routes": {"best": {"targets": [{"model": "gpt"}, {"model": "claude"}]}},
            "prices": {"claude": {"input": "3", "output": "15", "per_request": "0.001"}},
        }))
    }

    fn principal() -> Principal {
        Principal { account: "acme".into(), key_id: "key1".into(), user: Some("u1".into()), ..Principal::default() }
    }

    fn described(model: &str, max_tokens: Option<u64>) -> Sample<'_> {
        Sample::Described { model, stream: true, input_tokens: 100, max_tokens }
    }

    fn trying<'a>(
        loaded: &'a LoadedConfig,
        principal: &'a Principal,
        api: Api,
        limits: &'a [ScopedLimit],
    ) -> Trying<'a> {
        Trying { loaded, principal, api, limits, health: &Unknown, random: 0, at: 0 }
    }

    fn try_out(api: Api, sample: Sample<'_>) -> Simulated {
        let limit = |id: &str, account: &str, user: Option<&str>, key: Option<&str>, model: Option<&str>| ScopedLimit {
            id: id.into(),
            account: account.into(),
            user: user.map(str::to_owned),
            key: key.map(str::to_owned),
            model: model.map(str::to_owned),
        };
        let limits = [
            limit("account", "acme", None, None, None),
            limit("user", "acme", Some("u1"), None, None),
            limit("other user", "acme", Some("u2"), None, None),
            limit("key and model", "acme", None, Some("key1"), Some("claude")),
            limit("other model", "acme", None, None, Some("gpt")),
            limit("other account", "else", None, None, None),
        ];
        simulate(trying(&loaded(), &principal(), api, &limits), sample).told
    }

    #[test]
    fn who_answers_at_what_price_and_under_which_limits_is_told() {
        let told = try_out(Api::ChatCompletions, described("best", Some(10)));
        assert_eq!(told.error, None);
        assert_eq!(told.route.as_deref(), Some("best"));
        let target = told.target.unwrap();
        assert_eq!(
            (target.model.as_str(), target.provider.as_str(), target.upstream_model.as_str()),
            ("claude", "a", "claude-1")
        );
        assert_eq!((target.lane.as_str(), target.timeouts.total_ms), ("translated", 9000));
        let skipped: Vec<_> = told.decision.skipped.iter().map(|it| (it.model.as_str(), it.reason.as_str())).collect();
        assert_eq!(skipped, [("gpt", "the model is disabled")]);
        let [candidate] = &told.decision.candidates[..] else { panic!("{:?}", told.decision) };
        assert_eq!((candidate.model.as_str(), candidate.provider.as_str()), ("claude", "a"));
        assert_eq!(told.decision.strategy.as_deref(), Some("ordered"));
        assert_eq!(told.limits, ["account", "user", "key and model"]);
        let cost = told.cost.unwrap();
        assert_eq!((cost.unpriced, cost.price_source.as_deref()), (false, Some("configured")));
        assert_eq!(cost.input_nanodollars, Some(Nanodollars(300_000 + 1_000_000)));
        assert_eq!(cost.max_nanodollars, Some(Nanodollars(300_000 + 150_000 + 1_000_000)));
    }

    #[test]
    fn what_the_ledger_would_be_asked_is_what_the_request_may_use() {
        let (loaded, principal) = (loaded(), principal());
        let tried = |sample| simulate(trying(&loaded, &principal, Api::ChatCompletions, &[]), sample);
        let ask = tried(described("best", Some(10))).ask.unwrap();
        assert_eq!((ask.model.as_str(), ask.key_id.as_str(), ask.user.as_deref()), ("claude", "key1", Some("u1")));
        assert_eq!((ask.input_tokens, ask.max_output_tokens), (100, 10));
        let two = br#"{"model": "claude", "n": 1, "messages": [{"role": "user", "content": "hello"}]}"#;
        assert_eq!(tried(Sample::Body(two)).ask.unwrap().max_output_tokens, 1_000);
        assert_eq!(tried(described("nope", None)).ask, None);
    }

    #[test]
    fn an_unbounded_output_has_no_most_and_a_missing_price_is_told() {
        let told = try_out(Api::ChatCompletions, described("claude", None));
        assert_eq!(told.max_output_tokens, Some(1000));
        let told = try_out(Api::ChatCompletions, described("free", None));
        let unknown =
            SimulatedCost { unpriced: true, price_source: None, input_nanodollars: None, max_nanodollars: None };
        assert_eq!((told.max_output_tokens, told.cost), (None, Some(unknown)));
    }

    #[test]
    fn the_error_is_the_one_that_the_caller_would_get() {
        let code = |told: Simulated| told.error.map(|error| (error.status, error.code));
        assert_eq!(code(try_out(Api::ChatCompletions, described("nope", None))), Some((404, "model_not_found".into())));
        let told = try_out(Api::Messages, described("free", None));
        assert_eq!(told.decision.skipped.len(), 1);
        assert_eq!(code(told), Some((400, "unsupported_api_for_model".into())));
        assert_eq!(code(try_out(Api::ChatCompletions, Sample::Body(b"{"))), Some((400, "invalid_json".into())));
        let body = br#"{"model": "claude", "messages": [{"role": "user", "content": 5}]}"#;
        let told = try_out(Api::ChatCompletions, Sample::Body(body));
        assert!(told.target.is_some());
        assert_eq!(told.error.unwrap().status, 400);
    }

    #[test]
    fn a_body_is_taken_as_it_is() {
        let body = br#"{"model": "best", "max_tokens": 7, "messages": [{"role": "user", "content": "hello there"}]}"#;
        let told = try_out(Api::ChatCompletions, Sample::Body(body));
        assert_eq!((told.error, told.max_output_tokens), (None, Some(7)));
        assert!((5..15).contains(&told.input_tokens), "{}", told.input_tokens);
    }
}
