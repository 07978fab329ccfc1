//! A configuration, callers and requests, for tests.

use serde_json::{Value, json};

use super::estimate::Input;
use super::loaded::{LoadedConfig, loaded_for_tests};
use super::plan::Asked;
use crate::auth::Principal;
use crate::providers::Api;

/// Providers, models and the route `best`, most of whose targets cannot answer; and sections, or entries of sections, on top.
pub(super) fn routed(more: Value) -> LoadedConfig {
    let mut config = json!({
        "providers": {
            "o": {"dialect": "openai", "base_url": "https://o.example/v1"},
            "off": {"dialect": "openai", "base_url": "https://o.example/v1", "enabled": false},
            "a": {"dialect": "anthropic", "base_url": "https://a.example"},
        },
        "models": {
            "short": {"provider": "o", "context_tokens": 50}, "off": {"provider": "o", "enabled": false},
            "theirs": {"provider": "off"}, "o": {"provider": "o"}, "claude": {"provider": "a"},
        },
        "routes": {
            "best": {"targets": [
                {"model": "claude", "enabled": false}, {"model": "short"}, {"model": "off"}, {"model": "theirs"},
                {"model": "o"},
            ], "fallbacks": {"content_policy": ["claude"]}},
        },
    });
    for (section, entries) in more.as_object().into_iter().flatten() {
        for (name, entry) in entries.as_object().into_iter().flatten() {
            config[section][name] = entry.clone();
        }
    }
    loaded_for_tests(config)
}

/// A caller who may use these models; all if there are none.
pub(super) fn principal(models: &[&str]) -> Principal {
    let models = models.iter().map(|model| (*model).to_owned()).collect();
    Principal { account: "a".into(), key_id: "k".into(), user: Some("u".into()), models, ..Principal::default() }
}

/// A chat of a hundred tokens.
pub(super) fn asked(model: &str) -> Asked<'_> {
    let (api, input) = (Api::ChatCompletions, Input::Tokens(100));
    Asked { api, model, stream: false, include_usage: false, include_cost: false, input, at: 0 }
}
