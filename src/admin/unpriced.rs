//! Models whose use is not charged, because nobody has said what they cost.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::types::catalog::UnpricedModel;
use crate::gateway::plan::LoadedConfig;

/// For how long use is looked back at, in seconds.
pub const LOOK_BACK: u64 = 30 * 86_400;

/// A model's use without a price.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Used {
    /// Its name.
    pub model: String,
    /// Requests.
    pub requests: u64,
    /// The Unix minute of the last one.
    pub last_minute: u64,
}

/// The models that were used without a price, and those of the configuration that have none at a time in Unix seconds; the
/// most used ones first.
pub fn list(loaded: Option<&LoadedConfig>, used: Vec<Used>, now: u64) -> Vec<UnpricedModel> {
    let unpriced = |model: &str, provider: Option<&str>, upstream: Option<&str>| UnpricedModel {
        model: model.to_owned(),
        provider: provider.map(str::to_owned),
        upstream_model: upstream.map(str::to_owned),
        unpriced_now: loaded.is_some_and(|loaded| {
            loaded.config.models.contains_key(model) && loaded.prices.find(model, "", now).is_none()
        }),
        requests: 0,
        last_at: None,
    };
    let configured = loaded.into_iter().flat_map(|loaded| &loaded.config.models).map(|(name, model)| {
        unpriced(name, Some(&model.provider), Some(model.upstream_model.as_deref().unwrap_or(name)))
    });
    let mut models: BTreeMap<String, UnpricedModel> = configured.map(|it| (it.model.clone(), it)).collect();
    for Used { model, requests, last_minute } in used {
        let entry = models.entry(model).or_insert_with_key(|model| unpriced(model, None, None));
        entry.requests = requests;
        entry.last_at = Some(last_minute.saturating_mul(60));
    }
    let mut list: Vec<_> = models.into_values().filter(|it| it.unpriced_now || it.requests > 0).collect();
    list.sort_by_key(|it| std::cmp::Reverse(it.requests));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::loaded::loaded_for_tests;
    use serde_json::json;

    #[test]
    fn what_is_used_or_can_be_used_without_a_price_is_listed() {
        let loaded = loaded_for_tests(json!({
            "providers": {"p": {"dialect": "openai", "base_url": "https://p.example/v1"}},
            "models": {"new": {"provider": "p", "upstream_model": "n-1"}, "old": {"provider": "p"}, "priced": {"provider": "p"}},
            "prices": {"old": {"input": "1"}, "priced": {"input": "1"}},
        }));
        let used = |model: &str, requests| Used { model: model.into(), requests, last_minute: 2 };
        let listed = list(Some(&loaded), vec![used("gone", 1), used("old", 5)], 0);
        let told: Vec<_> = listed.iter().map(|it| (it.model.as_str(), it.requests, it.unpriced_now)).collect();
        assert_eq!(told, [("old", 5, false), ("gone", 1, false), ("new", 0, true)]);
        assert_eq!((listed[0].last_at, listed[1].provider.as_deref()), (Some(120), None));
        assert_eq!((listed[2].provider.as_deref(), listed[2].upstream_model.as_deref()), (Some("p"), Some("n-1")));
        assert!(list(None, Vec::new(), 0).is_empty());
    }
}
