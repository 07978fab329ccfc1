//! Which providers may keep a response.

use std::collections::BTreeMap;

use super::estimate::Input;
use super::plan::{Asked, LoadedConfig, Plan, candidate};
use crate::auth::Principal;
use crate::providers::Api;
use crate::providers::outbound::Serves;

/// The most that are asked for a response of which nobody says where it is.
const MOST: usize = 4;

/// The providers that keep responses, each by one of its models, in the order of their names: `model`'s alone if it is
/// one's, the one that is `known` to have it first.
pub fn keepers<'a>(
    loaded: &'a LoadedConfig,
    principal: &Principal,
    at: u64,
    model: Option<&str>,
    known: Option<&str>,
) -> Vec<Plan<'a>> {
    let models = &loaded.config.models;
    let only = model.and_then(|name| models.get(name)).map(|model| model.provider.as_str());
    let mut found: BTreeMap<(bool, &str), Plan<'a>> = BTreeMap::new();
    for (name, model) in models {
        let provider = model.provider.as_str();
        let place = (known != Some(provider), provider);
        if only.is_some_and(|only| only != provider) || found.contains_key(&place) {
            continue;
        }
        let asked = Asked {
            api: Api::Responses,
            model: name,
            stream: false,
            include_usage: false,
            include_cost: false,
            input: Input::Tokens(0),
            at,
        };
        if let Ok(plan) = candidate(loaded, principal, asked, name)
            && plan.serves == Serves::Natively
            && plan.target.provider.stored_responses
        {
            found.insert(place, plan);
        }
    }
    found.into_values().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::super::loaded::loaded_for_tests;
    use super::*;
    use serde_json::{Map, Value, json};

    #[test]
    fn only_those_who_keep_responses_are_asked_and_not_too_many() {
        let provider = |wires: Value, stored: bool, enabled: bool| {
            json!({"dialect": "openai", "base_url": "https://p.example/v1", "wires": wires,
                "stored_responses": stored, "enabled": enabled})
        };
        let keeps = || provider(json!(["chat", "responses"]), true, true);
        let mut providers: Map<String, Value> = ('b'..='g').map(|name| (name.to_string(), keeps())).collect();
        providers.insert("a".into(), provider(json!(["responses"]), false, true));
        providers.insert("c".into(), provider(json!(["responses"]), true, false));
        let models: Map<String, Value> = ('a'..='g')
            .flat_map(|name| [1, 2].map(|nth| (format!("{name}{nth}"), json!({"provider": name.to_string()}))))
            .collect();
        let loaded = loaded_for_tests(json!({"providers": providers, "models": models}));
        let names = |model, known| -> Vec<&str> {
            let plans = keepers(&loaded, &Principal::default(), 0, model, known);
            plans.iter().map(|plan| plan.provider_name).collect()
        };
        assert_eq!(names(None, None), ["b", "d", "e", "f"]);
        assert_eq!(names(None, Some("g")), ["g", "b", "d", "e"]);
        assert_eq!(names(Some("g2"), None), ["g"]);
        assert_eq!(names(Some("a1"), None), [""; 0]);
        assert_eq!(names(Some("a route"), None), ["b", "d", "e", "f"]);
    }
}
