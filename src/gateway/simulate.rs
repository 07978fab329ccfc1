//! Says what would become of a request, without sending it: by the same decisions that a real one meets, on copies of what
//! they would change.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::asking::{Wanted, ask_for, is_gauged, of_provider};
use super::envelope::Envelope;
use super::estimate::{Family, Input};
use super::explain::Explanation;
use super::itinerary::{Chance, Health, Itinerary, Sight, itinerary};
use super::limit_refusal::provider_refusal;
use super::plan::{Asked, LoadedConfig, Plan, no_such_model};
use crate::auth::Principal;
use crate::billing::Nanodollars;
use crate::config::{Model, Timeouts};
use crate::error::Problem;
use crate::limits::ask::{Answer, Ask, RuleState};
use crate::objects::pool::Pools;
use crate::objects::wire::{Acquire, Acquired, CandidateAsk};
use crate::protocol::usage::{BillingFacts, Usage};
use crate::providers::Api;
use crate::providers::outbound::Serves;
use crate::routing::attempts::Policy;
use crate::routing::outcome::Fault;
use crate::routing::score::mix;
use crate::routing::strategy::Turns;
use crate::routing::tree::LeftOutReason;

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
    /// Providers whose gauge could not be asked: for them counts what this isolate knows, and that they have room.
    pub silent: BTreeSet<String>,
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
    /// What a gauge is to be asked before anything is certain: it is tried again then, with the gauge's word.
    pub question: Option<Question>,
    /// How the limits of the provider stand that the request would count against, as far as a gauge has said.
    pub provider_limits: Vec<RuleState>,
}

/// What a gauge is asked about candidates: what it would be asked of a real request, but that nothing is reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The gauge.
    pub gauge: String,
    /// What it is asked.
    pub acquire: Acquire,
}

/// What gauges have said, by the models that they were asked about; `None` of those that did not answer.
pub type Words = BTreeMap<Vec<String>, Option<Acquired>>;

impl Question {
    /// The models that it is about.
    pub fn models(&self) -> Vec<String> {
        self.acquire.candidates.iter().map(|it| it.ask.model.clone()).collect()
    }
}

/// What a request is tried by.
#[derive(Clone, Copy)]
pub struct Trying<'a> {
    /// The configuration.
    pub loaded: &'a LoadedConfig,
    /// The gauges of the configuration that is in force, which has them.
    pub pools: &'a Pools,
    /// Who asks.
    pub principal: &'a Principal,
    /// The API that is called.
    pub api: Api,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Limits; those of other accounts may be among them.
    pub limits: &'a [ScopedLimit],
    /// What is known of the health of those who could answer.
    pub health: &'a dyn Health,
    /// Whose turn it is.
    pub turns: &'a Turns,
    /// What gauges have said.
    pub words: &'a Words,
    /// What chance decides by.
    pub random: u64,
    /// The time, in Unix seconds.
    pub at: u64,
}

/// Tries a request.
pub fn simulate(trying: Trying<'_>, sample: Sample<'_>) -> Tried {
    let mut tried = Tried::default();
    if let Err(problem) = fill(&mut tried, trying, sample) {
        tried.told.error = Some(problem.into());
    }
    tried
}

fn fill(tried: &mut Tried, trying: Trying<'_>, sample: Sample<'_>) -> Result<(), Problem> {
    let Trying { loaded, principal, api, headers, limits, health, turns, random, at, .. } = trying;
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
        (None, Sample::Body(_)) => return Ok(()),
    };
    tried.told.model = asked.model.to_owned();
    tried.told.input_tokens = asked.input.tokens(Family::of(asked.model, api == Api::Messages));
    tried.told.max_output_tokens = max_tokens;
    let sight = Sight { asked, envelope: envelope.as_ref(), max_output: max_tokens, headers: Some(headers), principal };
    let mut drawn = random;
    let mut next = || {
        drawn = drawn.wrapping_add(1);
        mix(drawn)
    };
    // No turn is taken but that of a copy.
    let chance = Chance { turns: &mut turns.clone(), random: &mut next };
    let mut itinerary = match itinerary(loaded, sight, health, chance) {
        Ok(itinerary) => itinerary,
        Err(nobody) => {
            tried.told.decision = Explanation::from(&nobody.order);
            return Err(nobody.problem);
        }
    };
    tried.told.route = loaded.config.routes.contains_key(asked.model).then(|| asked.model.to_owned());
    let wanted = |input_tokens| match &envelope {
        Some(envelope) => Wanted::of(envelope, input_tokens),
        None => {
            Wanted { input_tokens, max_output: max_tokens, choices: 1, service_tier: None, pieces: Usage::default() }
        }
    };
    let chosen = choose(tried, trying, &mut itinerary, &sight, &wanted);
    tried.told.decision = Explanation::from(&itinerary.order);
    let plan = chosen?;
    let simulated = &mut tried.told;
    simulated.input_tokens = asked.input.tokens(plan.family());
    simulated.target = Some(SimulatedTarget {
        model: plan.model_name.to_owned(),
        provider: plan.provider_name.to_owned(),
        upstream_model: plan.target.upstream_model.to_owned(),
        lane: plan.lane.name().to_owned(),
        timeouts: plan.timeouts,
    });
    let concerned = limits.iter().filter(|limit| limit.concerns(principal, plan.model_name));
    simulated.limits = concerned.map(|limit| limit.id.clone()).collect();
    simulated.max_output_tokens = max_tokens.or_else(|| bound_by_gateway(loaded, &plan));
    let pieces = envelope.as_ref().map(|envelope| envelope.pieces).unwrap_or_default();
    simulated.cost = Some(estimate(&plan, pieces, simulated.input_tokens, simulated.max_output_tokens));
    Ok(())
}

/// The plan for the first candidate that can be asked this, and at whose provider there is room as far as gauges have said;
/// it comes first then. What the ledger is asked is about the first candidate of all, as with a real request: the gauges
/// are asked at the same time.
fn choose<'a>(
    tried: &mut Tried,
    trying: Trying<'a>,
    itinerary: &mut Itinerary<'a>,
    sight: &Sight<'_>,
    wanted: &dyn Fn(u64) -> Wanted<'a>,
) -> Result<Plan<'a>, Problem> {
    let Trying { loaded, principal, words, .. } = trying;
    let policy = Policy::of(&loaded.config, sight.asked.model);
    let mut refused = 0_u64;
    loop {
        let plan = match sight.envelope {
            Some(envelope) => itinerary.begin(envelope, |_| ())?.0,
            None => itinerary.plan_at(0).ok_or_else(|| no_such_model(sight.asked.model))?,
        };
        let ask_of =
            |plan: &Plan<'_>| ask_for(loaded, plan, principal, wanted(sight.asked.input.tokens(plan.family())));
        tried.ask.get_or_insert_with(|| ask_of(&plan));
        let contenders = itinerary.contenders();
        let sought = match contenders.iter().any(|(index, ..)| *index == 0) {
            true => contenders,
            false if is_gauged(loaded, plan.provider_name) => vec![(0, plan.clone(), 1)],
            false => return Ok(plan),
        };
        let Some(question) = question(trying, &sought, ask_of) else { return Ok(plan) };
        let Some(word) = words.get(&question.models()) else {
            tried.question = Some(question);
            return Ok(plan);
        };
        let Some(Acquired { index, answer, open }) = word else {
            // A request is sent where the isolate would send it, if the gauge does not answer.
            tried.told.silent.extend(sought.iter().map(|(_, plan, _)| plan.provider_name.to_owned()));
            return Ok(plan);
        };
        for ((place, ..), open) in sought.iter().zip(open) {
            itinerary.order.count(*place, *open);
        }
        itinerary.order.promote(sought.get(*index).map_or(0, |(place, ..)| *place));
        match answer {
            Answer::Granted(grant) => {
                tried.provider_limits.clone_from(&grant.states);
                return itinerary.plan_at(0).ok_or_else(|| no_such_model(sight.asked.model));
            }
            Answer::Denied(denial) => {
                tried.provider_limits.clone_from(&denial.states);
                itinerary.order.pass_first(LeftOutReason::Full { ms_left: denial.breach.retry_after_ms });
                refused = refused.saturating_add(1);
                let ends = refused >= policy.max_attempts || !policy.retry_on.contains(&Fault::ProviderLimit);
                if ends || itinerary.order.candidates.is_empty() {
                    return Err(provider_refusal(&denial.breach));
                }
            }
        }
    }
}

/// What a gauge is to be asked about these; nothing if there is none that counts for all of them.
fn question<'a>(
    trying: Trying<'_>,
    sought: &[(usize, Plan<'a>, u64)],
    ask_of: impl Fn(&Plan<'a>) -> Ask,
) -> Option<Question> {
    let (_, first, _) = sought.first()?;
    let gauge = trying.pools.gauge(first.provider_name);
    if sought.iter().any(|(_, plan, _)| trying.pools.gauge(plan.provider_name) != gauge) {
        return None;
    }
    let candidates = sought.iter().map(|(_, plan, weight)| CandidateAsk {
        provider: plan.provider_name.to_owned(),
        weight: *weight,
        ask: of_provider(&ask_of(plan), trying.loaded, plan.provider_name),
    });
    let acquire = Acquire { id: String::new(), candidates: candidates.collect(), pick: sought.len() > 1 };
    Some(Question { gauge: gauge.to_owned(), acquire })
}

/// The most output tokens that the gateway asks for where the caller says nothing and the provider insists on a number.
fn bound_by_gateway(loaded: &LoadedConfig, plan: &Plan<'_>) -> Option<u64> {
    let configured = loaded.config.models.get(plan.model_name).and_then(|model| model.max_output_tokens);
    let insists =
        plan.serves == Serves::Translated && plan.dialect.serves(Api::Messages, plan.target) == Serves::Natively;
    configured.or(insists.then_some(Model::MAX_OUTPUT_TOKENS))
}

fn estimate(plan: &Plan<'_>, pieces: Usage, input: u64, output: Option<u64>) -> SimulatedCost {
    let priced = |output| {
        let usage = Usage { input, output, ..pieces };
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
mod tests;
