//! What is asked of the account's ledger, and of the provider's gauge, before a request is sent.

use super::envelope::Envelope;
use super::estimate::Family;
use super::plan::{LoadedConfig, Plan};
use crate::auth::Principal;
use crate::config::{Limits, Provider};
use crate::limits::ask::{Ask, LeaseTerms};
use crate::limits::rule::{EVERYBODY, LimitTerms, Rule, Scope};
use crate::protocol::usage::{BillingFacts, Usage};

/// What matters of a request for what may be reserved for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Tokens that go in.
    pub input_tokens: u64,
    /// The most output tokens that the caller asks for, all choices together.
    pub max_output: Option<u64>,
    /// How many answers are asked for.
    pub choices: u64,
    /// The service tier that is asked for.
    pub service_tier: Option<&'a str>,
    /// What is charged by the piece.
    pub pieces: Usage,
}

impl<'a> Wanted<'a> {
    /// What a request says of so many input tokens.
    pub fn of(envelope: &'a Envelope<'_>, input_tokens: u64) -> Self {
        let Envelope { max_output, choices, ref service_tier, pieces, .. } = *envelope;
        Self { input_tokens, max_output, choices, service_tier: service_tier.as_deref(), pieces }
    }
}

/// What a request is about to use, as far as that is known before anybody has answered it.
pub trait Load {
    /// What of it matters for a model of this family.
    fn wanted(&self, family: Family) -> Wanted<'_>;

    /// What it has used of so much input if nobody tells; `None` where the output is measured.
    fn expected(&self, _input: u64) -> Option<Usage> {
        None
    }
}

impl Load for Envelope<'_> {
    fn wanted(&self, family: Family) -> Wanted<'_> {
        Wanted::of(self, self.input_tokens(family))
    }

    fn expected(&self, input: u64) -> Option<Usage> {
        Envelope::expected(self, input)
    }
}

/// The ask for a request. `id` is its settlement id, `holder` the isolate's name.
pub fn ask(
    loaded: &LoadedConfig,
    plan: &Plan<'_>,
    principal: &Principal,
    load: &dyn Load,
    id: &str,
    holder: &str,
) -> Ask {
    let wanted = load.wanted(plan.family());
    // An isolate with a lease admits requests that the ledger hears of only later: then it cannot count what is open.
    let limits = &loaded.config.limits;
    let holder = if limits.lease_ms > 0 && !limits.count_connections { holder.to_owned() } else { String::new() };
    Ask { id: id.to_owned(), holder, ..ask_for(loaded, plan, principal, wanted) }
}

/// As [`ask`], of nobody in particular.
pub fn ask_for(loaded: &LoadedConfig, plan: &Plan<'_>, principal: &Principal, wanted: Wanted<'_>) -> Ask {
    let limits = &loaded.config.limits;
    let model_bound = loaded.config.models.get(plan.model_name).and_then(|model| model.max_output_tokens);
    let model_bound = model_bound.map(|most| most.saturating_mul(wanted.choices));
    let bound = [wanted.max_output, model_bound].into_iter().flatten().min();
    Ask {
        id: String::new(),
        turn: 0,
        key_id: principal.key_id.clone(),
        user: principal.user.clone(),
        model: plan.model_name.to_owned(),
        input_tokens: wanted.input_tokens,
        max_output_tokens: bound.unwrap_or(u64::MAX),
        prices: plan.pricing.as_ref().map(|pricing| {
            pricing.ask(wanted.input_tokens, &wanted.pieces, &BillingFacts::expected(wanted.service_tier))
        }),
        lifetime_ms: plan.timeouts.total_ms.saturating_add(limits.reservation_slack_ms),
        defaults: loaded.default_rules().to_vec(),
        holder: String::new(),
        lease: LeaseTerms { ttl_ms: limits.lease_ms, share_percent: percent(limits.lease_share_percent) },
        first_output_tokens: limits.first_output_tokens.saturating_mul(wanted.choices),
        output_quantile_percent: percent(limits.output_quantile_percent),
        passing: false,
    }
}

/// The ask as the provider's gauge gets it: by the provider's own rules, and never for a lease.
pub fn of_provider(ask: &Ask, loaded: &LoadedConfig, provider: &str) -> Ask {
    Ask {
        defaults: loaded.provider_rules(provider).to_vec(),
        holder: String::new(),
        lease: LeaseTerms::default(),
        passing: is_passing(loaded, provider),
        ..ask.clone()
    }
}

/// Whether the provider's gauge counts requests: also where it picks among several, who must all be counted whole.
pub fn is_gauged(loaded: &LoadedConfig, provider: &str) -> bool {
    loaded.pools.is_shared(provider) || !is_passing(loaded, provider)
}

/// Whether nothing of a provider's requests is worth counting, but that they are open.
pub fn is_passing(loaded: &LoadedConfig, provider: &str) -> bool {
    let counts = |it: &Provider| it.count_connections || !it.limits.is_empty();
    !loaded.config.providers.get(provider).is_some_and(counts)
}

/// Whether the ledger is asked about a request; `limited` is what it said last of limits that the control plane has set.
pub fn is_announced(loaded: &LoadedConfig, limited: Option<bool>) -> bool {
    limited != Some(false) || loaded.config.limits.count_connections || !loaded.default_rules().is_empty()
}

/// The rules that hold by default.
pub fn default_rules(limits: &Limits) -> Vec<Rule> {
    let lists = [(Scope::Key, &limits.per_key), (Scope::User, &limits.per_user), (Scope::Account, &limits.per_account)];
    lists.iter().flat_map(|(scope, list)| list.iter().map(|terms| rule(*scope, "", terms))).collect()
}

/// The rules of a provider.
pub fn provider_rules(provider: &str, list: &[LimitTerms]) -> Vec<Rule> {
    list.iter().map(|terms| rule(Scope::Provider, provider, terms)).collect()
}

/// A rule of the configuration. What it limits names it.
fn rule(scope: Scope, provider: &str, terms: &LimitTerms) -> Rule {
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (scope_word, dimension, period) = (
        word(serde_json::json!(scope)),
        word(serde_json::json!(terms.dimension)),
        word(serde_json::json!(terms.period)),
    );
    let whose = if scope == Scope::Provider { provider } else { &scope_word };
    let origin = if scope == Scope::Provider { "provider" } else { "default" };
    let model = terms.model.as_ref().map(|model| format!(":{model}")).unwrap_or_default();
    let id = format!("{origin}:{whose}:{dimension}:{period}{model}");
    Rule { id, scope, subject: EVERYBODY.to_owned(), terms: terms.clone() }
}

fn percent(percent: u64) -> u8 {
    u8::try_from(percent.min(100)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::super::estimate::Input;
    use super::super::itinerary::plan;
    use super::super::loaded::loaded_for_tests;
    use super::super::plan::Asked;
    use super::*;
    use crate::providers::Api;
    use serde_json::json;

    fn loaded(limits: serde_json::Value) -> LoadedConfig {
        loaded_for_tests(json!({
            "limits": limits,
            "providers": {
                "p": {"dialect": "openai", "base_url": "https://p.example/v1", "timeouts": {"total_ms": 9_000},
                    "limits": [{"dimension": "requests", "period": "second", "amount": 5}]},
                "q": {"dialect": "openai", "base_url": "https://p.example/v1", "count_connections": true},
                "r": {"dialect": "openai", "base_url": "https://p.example/v1"},
            },
            "models": {"m": {"provider": "p", "max_output_tokens": 50}, "n": {"provider": "q"}},
            "prices": {"m": {"input": "1", "output": "2", "per_request": "0.01"}},
        }))
    }

    fn asked(loaded: &LoadedConfig, body: &str) -> Ask {
        let envelope = Envelope::read(body.as_bytes(), Api::ChatCompletions, 64).unwrap();
        let input = Input::Tokens(1);
        let asked = Asked {
            api: Api::ChatCompletions,
            model: &envelope.model,
            stream: false,
            include_usage: false,
            include_cost: false,
            input,
            at: 0,
        };
        let principal =
            Principal { account: "a".into(), key_id: "k".into(), user: Some("u".into()), ..Principal::default() };
        let plan = plan(loaded, &principal, asked).unwrap();
        ask(loaded, &plan, &principal, &envelope, "s", "isolate")
    }

    #[test]
    fn an_ask_says_what_the_request_may_use_and_cost() {
        let loaded = loaded(json!({"lease_ms": 0, "first_output_tokens": 70, "reservation_slack_ms": 1_000}));
        let asked_for = asked(&loaded, r#"{"model":"m","messages":[1],"max_tokens":40,"n":2}"#);
        assert_eq!((asked_for.max_output_tokens, asked_for.first_output_tokens), (80, 140));
        assert_eq!(
            asked_for.prices,
            Some(crate::billing::AskPrices { input: 1_000_000, output: 2_000_000, fixed: 10_000_000 })
        );
        assert_eq!((asked_for.lifetime_ms, asked_for.holder.as_str()), (10_000, ""));
        assert_eq!((asked_for.user.as_deref(), asked_for.model.as_str()), (Some("u"), "m"));
        let bounded = asked(&loaded, r#"{"model":"m","messages":[1],"max_tokens":400}"#);
        assert_eq!(bounded.max_output_tokens, 50, "the model gives no more");
        let open = asked(&loaded, r#"{"model":"n","messages":[1]}"#);
        assert_eq!((open.max_output_tokens, open.prices), (u64::MAX, None));
    }

    #[test]
    fn defaults_go_along_and_a_provider_gets_its_own() {
        let defaults = loaded(json!({
            "per_key": [{"dimension": "requests", "period": "minute", "amount": 9}],
            "per_account": [{"dimension": "cost", "period": "month", "amount": 9, "model": "m"}],
        }));
        let asked_for = asked(&defaults, r#"{"model":"m","messages":[1]}"#);
        let ids = |ask: &Ask| ask.defaults.iter().map(|rule| rule.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&asked_for), ["default:key:requests:minute", "default:account:cost:month:m"]);
        assert_eq!((asked_for.holder.as_str(), asked_for.lease.ttl_ms), ("isolate", 2_000));
        let counted = loaded(json!({"count_connections": true}));
        assert_eq!(
            asked(&counted, r#"{"model":"m","messages":[1]}"#).holder,
            "",
            "the ledger must hear of every request"
        );
        let provider = of_provider(&asked_for, &defaults, "p");
        assert_eq!((ids(&provider), provider.holder.as_str()), (vec!["provider:p:requests:second".to_owned()], ""));
        let passing = ["p", "q", "r"].map(|provider| of_provider(&asked_for, &defaults, provider).passing);
        assert_eq!(passing, [false, false, true], "what has limits or is to be counted leaves its mark");
    }

    #[test]
    fn objects_are_asked_only_where_something_may_apply() {
        let none = loaded(json!({}));
        assert!(is_announced(&none, None) && is_announced(&none, Some(true)) && !is_announced(&none, Some(false)));
        assert!(is_announced(&loaded(json!({"count_connections": true})), Some(false)));
        let some = json!({"per_user": [{"dimension": "requests", "period": "minute", "amount": 9}]});
        assert!(is_announced(&loaded(some), Some(false)));
        let gauged = ["p", "q", "r", "s"].map(|provider| is_gauged(&none, provider));
        assert_eq!(gauged, [true, true, false, false]);
    }
}
