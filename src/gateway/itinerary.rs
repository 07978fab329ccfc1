//! Stage 3: who answers, one after the other.
//!
//! `routing` puts the candidates in order; here each of them becomes a [`Plan`], and what the caller is told where there is
//! none.

use std::cell::RefCell;
use std::collections::BTreeMap;

use http::HeaderMap;

use super::envelope::Envelope;
use super::estimate::Family;
use super::plan::{Asked, LoadedConfig, Plan, Unusable, candidate, no_such_model};
use crate::auth::Principal;
use crate::error::{Kind, Problem};
use crate::limits::amounts::of_request;
use crate::protocol::usage::BillingFacts;
use crate::providers::{Api, UpstreamRequest};
use crate::routing::board::{Board, Skip, Standing, Terms};
use crate::routing::in_flight::InFlight;
use crate::routing::outcome::Fault;
use crate::routing::strategy::Turns;
use crate::routing::traits::{RequestView, View};
use crate::routing::tree::{self, Candidate, Contender, LeftOutReason, Order};
use crate::telemetry::LogPolicy;

/// When a request is worth sending again that nobody healthy can answer, in milliseconds, if nobody knows better.
const RETRY_MS: u64 = 5_000;

/// What is known of the health of those who could answer.
pub trait Health {
    /// The health of a deployment at a provider.
    fn standing(&self, provider: &str, deployment: &str) -> Standing;
    /// How many requests of this isolate's are open at a deployment.
    fn in_flight(&self, deployment: &str) -> u64;
}

/// What an isolate knows of it.
pub struct Seen<'b> {
    /// Its board.
    pub board: &'b Board,
    /// What that judges by.
    pub terms: Terms,
    /// What is open.
    pub in_flight: InFlight,
    /// The time, in milliseconds.
    pub now: u64,
}

impl Health for Seen<'_> {
    fn standing(&self, provider: &str, deployment: &str) -> Standing {
        self.board.standing(self.now, &self.terms, provider, deployment)
    }

    fn in_flight(&self, deployment: &str) -> u64 {
        self.in_flight.count(deployment)
    }
}

/// Where nothing is known of anybody's health.
#[derive(Debug, Clone, Copy)]
pub struct Unknown;

impl Health for Unknown {
    fn standing(&self, _: &str, _: &str) -> Standing {
        Standing::UNKNOWN
    }

    fn in_flight(&self, _: &str) -> u64 {
        0
    }
}

/// What chance and turns decide by.
pub struct Chance<'c> {
    /// Whose turn it is.
    pub turns: &'c mut Turns,
    /// Numbers, uniformly distributed.
    pub random: &'c mut dyn FnMut() -> u64,
}

/// A request as routing sees it.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// What is asked for.
    pub asked: Asked<'a>,
    /// The body, if there is one.
    pub envelope: Option<&'a Envelope<'a>>,
    /// The most output tokens that it asks for, all choices together.
    pub max_output: Option<u64>,
    /// The headers, if there are any.
    pub headers: Option<&'a HeaderMap>,
    /// Who asks.
    pub principal: &'a Principal,
}

impl RequestView for Sight<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers?.get(name)?.to_str().ok()
    }

    fn param(&self, name: &str) -> Option<&[u8]> {
        self.envelope?.param(name)
    }

    fn stream(&self) -> bool {
        self.asked.stream
    }

    fn input_tokens(&self) -> u64 {
        self.asked.input.tokens(Family::of(self.asked.model, self.asked.api == Api::Messages))
    }

    fn account(&self) -> &str {
        &self.principal.account
    }

    fn user(&self) -> Option<&str> {
        self.principal.user.as_deref()
    }

    fn key_id(&self) -> &str {
        &self.principal.key_id
    }
}

/// Those who could answer a request, each with its plan as soon as somebody has looked at it.
struct Prospects<'a, 's> {
    loaded: &'a LoadedConfig,
    sight: Sight<'s>,
    health: &'s dyn Health,
    plans: RefCell<BTreeMap<&'a str, Result<Plan<'a>, Unusable>>>,
}

impl<'a> Prospects<'a, '_> {
    /// What a deployment's plan says; `None` where it has none.
    fn look<T>(&self, deployment: &str, at: impl FnOnce(&Plan<'a>) -> T) -> Result<T, Unusable> {
        let mut plans = self.plans.borrow_mut();
        if let Some(known) = plans.get(deployment) {
            return known.as_ref().map(at).map_err(|reason| *reason);
        }
        let Some((name, _)) = self.loaded.config.models.get_key_value(deployment) else {
            return Err(Unusable::NoModel);
        };
        let plan = candidate(self.loaded, self.sight.principal, self.sight.asked, name);
        let seen = plan.as_ref().map(at).map_err(|reason| *reason);
        plans.insert(name, plan);
        seen
    }
}

impl View for Prospects<'_, '_> {
    fn usable(&self, deployment: &str) -> Result<(), Unusable> {
        self.look(deployment, |_| ())
    }

    fn standing(&self, provider: &str, deployment: &str) -> Standing {
        self.health.standing(provider, deployment)
    }

    fn in_flight(&self, deployment: &str) -> u64 {
        self.health.in_flight(deployment)
    }

    fn cost(&self, deployment: &str) -> Option<u64> {
        let Sight { asked, envelope, max_output, .. } = self.sight;
        let output = self.loaded.config.limits.first_output_tokens.min(max_output.unwrap_or(u64::MAX));
        let tier = envelope.and_then(|envelope| envelope.service_tier.as_deref());
        let pieces = envelope.map(|envelope| envelope.pieces).unwrap_or_default();
        self.look(deployment, |plan| {
            let input = asked.input.tokens(plan.family());
            let prices = plan.pricing.as_ref()?.ask(input, &pieces, &BillingFacts::expected(tier));
            Some(of_request(input, output, Some(&prices)).cost)
        })
        .ok()?
    }
}

/// Who answers a request, in which order.
pub struct Itinerary<'a> {
    /// The decision.
    pub order: Order<'a>,
    plans: BTreeMap<&'a str, Plan<'a>>,
}

impl<'a> Itinerary<'a> {
    /// The plan for a candidate.
    pub fn plan(&self, candidate: &Candidate<'a>) -> Option<Plan<'a>> {
        let plan = self.plans.get(candidate.deployment)?;
        Some(Plan { route: candidate.route(), ..plan.clone() })
    }

    /// The plan for the candidate at a place in the order.
    pub fn plan_at(&self, index: usize) -> Option<Plan<'a>> {
        self.plan(self.order.candidates.get(index)?)
    }

    /// The first candidate that can be asked this, with what it is going to be sent: what nobody can be asked is told before
    /// anything is reserved for it. Those before it are candidates no more. `look` sees the plan of each.
    ///
    /// # Errors
    /// A 400 naming the field that the first candidate of all cannot serve.
    pub fn begin(
        &mut self,
        envelope: &Envelope<'_>,
        mut look: impl FnMut(&Plan<'a>),
    ) -> Result<(Plan<'a>, UpstreamRequest), Problem> {
        let mut refused = None;
        while let Some(plan) = self.plan_at(0) {
            look(&plan);
            match plan.request(envelope) {
                Ok(request) => return Ok((plan, request)),
                Err(problem) => {
                    refused.get_or_insert(problem);
                    self.order.pass_first(LeftOutReason::Unfit);
                }
            }
        }
        Err(refused.unwrap_or_else(|| no_such_model(&envelope.model)))
    }

    /// Those among whom the gauge is to pick: each one's index in the order, its plan and its weight.
    pub fn contenders(&self) -> Vec<(usize, Plan<'a>, u64)> {
        let of = |it: &Contender| Some((it.index, self.plan_at(it.index)?, it.weight));
        self.order.least_connections.iter().filter_map(of).collect()
    }

    /// The weights of those among whom the gauge is to pick, by deployment.
    pub fn contender_weights(&self) -> BTreeMap<&'a str, u64> {
        let of = |it: &Contender| Some((self.order.candidates.get(it.index)?.deployment, it.weight));
        self.order.least_connections.iter().filter_map(of).collect()
    }

    /// Adds those who are tried instead of the next ones after a candidate failed in a certain way. `None` if nobody in
    /// particular is.
    pub fn detour(
        &mut self,
        loaded: &'a LoadedConfig,
        sight: Sight<'_>,
        health: &dyn Health,
        chance: Chance<'_>,
        failed: &Candidate<'a>,
        fault: Fault,
    ) -> Option<Vec<Candidate<'a>>> {
        let prospects = Prospects { loaded, sight, health, plans: RefCell::default() };
        let order = tree::fallbacks(&loaded.config, failed, fault, &sight, &prospects, chance.turns, chance.random)?;
        for (name, plan) in prospects.plans.into_inner() {
            if let Ok(plan) = plan {
                self.plans.entry(name).or_insert(plan);
            }
        }
        Some(order.candidates)
    }
}

/// A copy of a request that is to be sent as well, to a model that is tried out.
#[derive(Debug)]
pub struct ShadowCopy {
    /// Its settlement id.
    pub id: String,
    /// The API that was called.
    pub api: Api,
    /// The body.
    pub body: Vec<u8>,
    /// The model that gets it.
    pub model: String,
    /// The account that pays.
    pub account: String,
    /// Whether and how it is logged.
    pub policy: LogPolicy,
}

/// That nobody answers.
pub struct Nobody<'a> {
    /// What the caller is told.
    pub problem: Problem,
    /// The decision.
    pub order: Order<'a>,
}

/// Decides who answers.
///
/// # Errors
/// What the caller is told where nobody can, with the decision: 404 for a name that does not exist or that the principal may
/// not use (the same answer for both), 400 where the request does not fit a model, 403 where models lack a price that they
/// must have, 503 where nobody can be called.
pub fn itinerary<'a>(
    loaded: &'a LoadedConfig,
    sight: Sight<'_>,
    health: &dyn Health,
    chance: Chance<'_>,
) -> Result<Itinerary<'a>, Box<Nobody<'a>>> {
    let name = sight.asked.model;
    let config = &loaded.config;
    let exists = config.models.contains_key(name) || config.routes.get(name).is_some_and(|route| route.enabled);
    if !exists || !sight.principal.may_use_model(name) {
        return Err(Box::new(Nobody { problem: no_such_model(name), order: Order::default() }));
    }
    let prospects = Prospects { loaded, sight, health, plans: RefCell::default() };
    let policy = config.routing.when_all_open;
    let order = tree::order(config, name, &sight, &prospects, chance.turns, chance.random, policy);
    if order.candidates.is_empty() {
        return Err(Box::new(Nobody { problem: nobody(loaded, name, &order), order }));
    }
    let plans = prospects.plans.into_inner().into_iter().filter_map(|(name, plan)| Some((name, plan.ok()?)));
    Ok(Itinerary { order, plans: plans.collect() })
}

/// What a caller is told for whom there is nobody. What it can do something about is told; what only the operator can is
/// not.
fn nobody(loaded: &LoadedConfig, name: &str, order: &Order<'_>) -> Problem {
    let reasons = || {
        order.left_out.iter().filter_map(|it| match it.reason {
            LeftOutReason::Unusable(reason) => Some(reason),
            _ => None,
        })
    };
    let mut skips = order.left_out.iter().filter_map(|it| match it.reason {
        LeftOutReason::Unhealthy(skip) => Some(skip),
        _ => None,
    });
    if order.has_unhealthy() {
        let busy = skips.all(|skip| matches!(skip, Skip::CoolingDown { .. } | Skip::NoHeadroom { .. }));
        let (kind, code, what) = match busy {
            true => (Kind::RateLimited, "provider_rate_limited", "has been asked as much as its provider allows"),
            false => (Kind::Unavailable, "no_healthy_target", "is out of service at the moment"),
        };
        let message = format!("Everybody who could answer for `{name}` {what}. Send the request again shortly.");
        return Problem::new(kind, code, message).retry_after_ms(order.retry_after_ms().unwrap_or(RETRY_MS));
    }
    let is_model = loaded.config.models.contains_key(name);
    let told = |reason: &Unusable| {
        is_model || matches!(reason, Unusable::TooLong { .. } | Unusable::WrongApi(_) | Unusable::Unpriced)
    };
    reasons().find(told).map_or_else(
        || {
            let message = format!(
                "No model that `{name}` stands for can be called at the moment. Tell the operator of the gateway."
            );
            Problem::new(Kind::Unavailable, "no_target_available", message)
        },
        |reason| reason.problem(name),
    )
}

/// The plan for the first who answers, where nothing is known of anybody's health.
#[cfg(test)]
pub(crate) fn plan<'a>(loaded: &'a LoadedConfig, principal: &Principal, asked: Asked<'_>) -> Result<Plan<'a>, Problem> {
    let sight = Sight { asked, envelope: None, max_output: None, headers: None, principal };
    let chance = Chance { turns: &mut Turns::default(), random: &mut || 0 };
    itinerary(loaded, sight, &Unknown, chance)
        .map(|itinerary| itinerary.plan_at(0).unwrap())
        .map_err(|nobody| nobody.problem)
}

#[cfg(test)]
mod tests {
    use super::super::estimate::Input;
    use super::super::testing::{self, principal};
    use super::*;
    use crate::routing::board::{Availability, Observation};
    use serde_json::json;

    fn routed(routing: serde_json::Value) -> LoadedConfig {
        testing::routed(json!({
            "routing": routing,
            "routes": {
                "two": {"targets": [{"model": "o"}, {"model": "claude"}]},
                "cheapest": {"strategy": "lowest_cost", "targets": [{"model": "o"}, {"model": "claude"}]},
            },
            "prices": {"claude": {"input": "3", "output": "15"}, "o": {"input": "2", "output": "40"}},
        }))
    }

    fn asked(model: &str, tokens: u64) -> Asked<'_> {
        Asked { input: Input::Tokens(tokens), ..testing::asked(model) }
    }

    fn decided<'a>(
        loaded: &'a LoadedConfig,
        principal: &Principal,
        asked: Asked<'_>,
        health: &dyn Health,
    ) -> Result<Itinerary<'a>, Problem> {
        let sight = Sight { asked, envelope: None, max_output: None, headers: None, principal };
        let chance = Chance { turns: &mut Turns::default(), random: &mut || 0 };
        itinerary(loaded, sight, health, chance).map_err(|nobody| nobody.problem)
    }

    fn names<'a>(candidates: &[Candidate<'a>]) -> Vec<&'a str> {
        candidates.iter().map(|candidate| candidate.deployment).collect()
    }

    #[test]
    fn everybody_who_can_answer_has_a_plan_and_everybody_else_a_reason() {
        let loaded = routed(json!({}));
        let who = principal(&["best"]);
        let itinerary = decided(&loaded, &who, asked("best", 100), &Unknown).ok().unwrap();
        assert_eq!(names(&itinerary.order.candidates), ["o"]);
        let plan = itinerary.plan_at(0).unwrap();
        assert_eq!((plan.route, plan.model_name), (Some("best"), "o"));
        let left_out: Vec<_> = itinerary.order.left_out.iter().map(|it| (it.deployment, it.reason)).collect();
        assert_eq!(
            left_out,
            [
                ("claude", LeftOutReason::TargetDisabled),
                ("short", LeftOutReason::Unusable(Unusable::TooLong { estimated: 100, limit: 50 })),
                ("off", LeftOutReason::Unusable(Unusable::ModelDisabled)),
                ("theirs", LeftOutReason::Unusable(Unusable::ProviderDisabled)),
            ]
        );
        let messages = Asked { api: Api::Messages, ..asked("two", 100) };
        let itinerary = decided(&loaded, &principal(&[]), messages, &Unknown).ok().unwrap();
        let mut served = names(&itinerary.order.candidates);
        served.sort_unstable();
        assert_eq!(served, ["claude", "o"], "translated or not");
    }

    #[test]
    fn a_detour_has_plans_of_its_own() {
        let loaded = routed(json!({}));
        let who = principal(&[]);
        let mut itinerary = decided(&loaded, &who, asked("best", 100), &Unknown).ok().unwrap();
        let failed = itinerary.order.candidates[0].clone();
        let mut detour = |fault| {
            let sight =
                Sight { asked: asked("best", 100), envelope: None, max_output: None, headers: None, principal: &who };
            let chance = Chance { turns: &mut Turns::default(), random: &mut || 0 };
            itinerary.detour(&loaded, sight, &Unknown, chance, &failed, fault)
        };
        assert!(detour(Fault::ServerError).is_none());
        let instead = detour(Fault::ContentPolicy).unwrap();
        assert_eq!(names(&instead), ["claude"]);
        let plan = itinerary.plan(&instead[0]).unwrap();
        assert_eq!((plan.route, plan.provider_name), (Some("best"), "a"));
    }

    #[test]
    fn the_cheapest_depends_on_the_size() {
        let loaded = routed(json!({}));
        let first = |tokens| {
            let itinerary = decided(&loaded, &principal(&[]), asked("cheapest", tokens), &Unknown);
            itinerary.ok().unwrap().plan_at(0).unwrap().model_name
        };
        assert_eq!((first(10), first(100_000)), ("claude", "o"));
    }

    struct Down(Skip);

    impl Health for Down {
        fn standing(&self, _: &str, _: &str) -> Standing {
            Standing { availability: Availability::Skipped(self.0), ..Standing::UNKNOWN }
        }

        fn in_flight(&self, _: &str) -> u64 {
            0
        }
    }

    #[test]
    fn where_nobody_is_well_the_caller_is_told_when_to_come_again() {
        let refusing = routed(json!({"when_all_open": "refuse"}));
        let told = |loaded: &LoadedConfig, model, skip| {
            let problem = decided(loaded, &principal(&[]), asked(model, 1), &Down(skip)).err()?;
            Some((problem.status, problem.code, problem.retry_after_ms))
        };
        let open = Skip::Open { ms_left: 700 };
        for model in ["two", "o"] {
            let expected = Some((503, "no_healthy_target".to_owned(), Some(700)));
            assert_eq!(told(&refusing, model, open), expected);
            let busy = Skip::CoolingDown { ms_left: 900 };
            let expected = Some((429, "provider_rate_limited".to_owned(), Some(900)));
            assert_eq!(told(&refusing, model, busy), expected);
            let expected = Some((503, "no_healthy_target".to_owned(), Some(RETRY_MS)));
            assert_eq!(told(&refusing, model, Skip::Maintenance), expected);
        }
        assert_eq!(told(&routed(json!({})), "two", open), None, "they are tried all the same");
    }

    #[test]
    fn what_an_isolate_has_seen_counts() {
        let loaded = routed(json!({"breaker": {"consecutive": 2}}));
        let terms = Terms::of(&loaded.config.routing);
        let mut board = Board::default();
        for at in [1, 2] {
            let fault = Some(Fault::ServerError);
            let seen =
                Observation { provider: "o".into(), deployment: "o".into(), fault, at, ..Observation::default() };
            board.observe(at, &terms, &seen, 0);
        }
        let in_flight = InFlight::default();
        let _open = in_flight.enter("claude");
        let seen = Seen { board: &board, terms, in_flight, now: 3 };
        assert_eq!(seen.in_flight("claude"), 1);
        let itinerary = decided(&loaded, &principal(&[]), asked("two", 1), &seen).ok().unwrap();
        assert_eq!(names(&itinerary.order.candidates), ["claude"]);
    }
}
