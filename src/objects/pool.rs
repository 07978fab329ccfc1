//! Which gauge counts for which provider.
//!
//! To pick the provider with the fewest open requests and to reserve there is one step only if one object counts for all
//! that may be picked. So the providers among which some route picks share a gauge: a *pool*. Routes that overlap make one
//! pool together. A pool's gauge has the name of its alphabetically first provider; a provider in no pool has its own.

use std::collections::BTreeMap;

use crate::config::{Config, Route, RouteTarget, Strategy};
use crate::routing::tree::MAX_DEPTH;

/// The gauges of a configuration's providers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pools {
    /// Of those that share one.
    gauges: BTreeMap<String, String>,
}

impl Pools {
    /// The pools that these sets of providers make: two are in the same if a chain of sets leads from one to the other.
    pub fn of<'a>(sets: impl IntoIterator<Item = Vec<&'a str>>) -> Self {
        let mut pools: Vec<Vec<&str>> = Vec::new();
        for mut pool in sets {
            // Whatever overlaps becomes one.
            let (overlapping, apart): (Vec<_>, Vec<_>) =
                pools.into_iter().partition(|known| known.iter().any(|provider| pool.contains(provider)));
            pool.extend(overlapping.into_iter().flatten());
            pool.sort_unstable();
            pool.dedup();
            pools = apart;
            pools.push(pool);
        }
        let shared = pools.into_iter().filter(|pool| pool.len() > 1);
        let gauges = shared.flat_map(|pool| {
            let name = pool.first().copied().unwrap_or_default().to_owned();
            pool.into_iter().map(move |provider| (provider.to_owned(), name.clone()))
        });
        Self { gauges: gauges.collect() }
    }

    /// The pools of a configuration: the providers among which a route with the strategy `least_connections` picks,
    /// whether its targets name their models or routes that do.
    pub fn of_config(config: &Config) -> Self {
        let picks = config.routes.values().filter(|route| route.strategy == Strategy::LeastConnections);
        Self::of(picks.map(|route| of_route(config, route, 1)))
    }

    /// The providers that a gauge counts for.
    pub fn providers<'a>(&'a self, gauge: &'a str) -> Vec<&'a str> {
        let shared = self.gauges.iter().filter(|(_, name)| *name == gauge);
        let shared: Vec<&str> = shared.map(|(provider, _)| provider.as_str()).collect();
        if shared.is_empty() { vec![gauge] } else { shared }
    }

    /// The name of the gauge that counts for a provider.
    pub fn gauge<'a>(&'a self, provider: &'a str) -> &'a str {
        self.gauges.get(provider).map_or(provider, String::as_str)
    }

    /// Whether a provider shares its gauge with others.
    pub fn is_shared(&self, provider: &str) -> bool {
        self.gauges.contains_key(provider)
    }
}

/// The providers that a name may lead to: a model's own, or those of a route's targets.
pub fn providers<'a>(config: &'a Config, name: &str) -> Vec<&'a str> {
    match (config.models.get(name), config.routes.get(name)) {
        (Some(model), _) => vec![&model.provider],
        (None, Some(route)) => of_route(config, route, 1),
        (None, None) => Vec::new(),
    }
}

/// The providers that the targets of a route may lead to. The route is the `depth`th on the way.
fn of_route<'a>(config: &'a Config, route: &'a Route, depth: usize) -> Vec<&'a str> {
    let of_target = |target: &'a RouteTarget| {
        let model = target.model.as_ref().and_then(|model| config.models.get(model));
        let nested = target.route.as_ref().filter(|_| depth < MAX_DEPTH).and_then(|route| config.routes.get(route));
        let nested = nested.into_iter().flat_map(move |route| of_route(config, route, depth.saturating_add(1)));
        model.map(|model| model.provider.as_str()).into_iter().chain(nested)
    };
    route.targets.iter().flat_map(of_target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn routes_that_overlap_make_one_pool() {
        let pools = Pools::of([vec!["b", "c"], vec!["e", "d"], vec!["f"], vec!["c", "a", "c"], vec![]]);
        let gauges = ["a", "b", "c", "d", "e", "f", "g"].map(|provider| pools.gauge(provider));
        assert_eq!(gauges, ["a", "a", "a", "d", "d", "f", "g"]);
        let shared = ["a", "e", "f", "g"].map(|provider| pools.is_shared(provider));
        assert_eq!(shared, [true, true, false, false], "who is alone shares nothing");
    }

    #[test]
    fn a_route_s_pool_reaches_through_nested_routes() {
        let model = |provider: &str| serde_json::json!({"provider": provider});
        let config: Config = serde_json::from_value(serde_json::json!({
            "models": {"a": model("pa"), "b": model("pb"), "c": model("pc"), "d": model("pd")},
            "routes": {
                "least": {"strategy": "least_connections", "targets": [{"model": "c"}, {"route": "nested"}, {"model": "gone"}]},
                "nested": {"targets": [{"model": "b"}, {"route": "least"}]},
                "other": {"strategy": "round_robin", "targets": [{"model": "a"}, {"model": "d"}]},
            },
        }))
        .unwrap();
        let pools = Pools::of_config(&config);
        assert_eq!(["pa", "pb", "pc", "pd"].map(|provider| pools.gauge(provider)), ["pa", "pb", "pb", "pd"]);
        assert_eq!([providers(&config, "a"), providers(&config, "gone")], [vec!["pa"], vec![]]);
        assert_eq!(providers(&config, "other"), ["pa", "pd"]);
        assert_eq!((pools.providers("pb"), pools.providers("pa")), (vec!["pb", "pc"], vec!["pa"]));
    }

    proptest! {
        #[test]
        fn a_pool_is_what_a_chain_of_sets_connects(
            sets in proptest::collection::vec(proptest::collection::vec(0..12_usize, 0..4), 0..8),
        ) {
            let names: Vec<String> = (0..12).map(|nth| format!("p{nth:02}")).collect();
            let pools = Pools::of(sets.iter().map(|set| set.iter().map(|nth| names[*nth].as_str()).collect()));
            for (nth, name) in names.iter().enumerate() {
                let mut reached = BTreeSet::from([nth]);
                loop {
                    let more: BTreeSet<usize> = sets
                        .iter()
                        .filter(|set| set.iter().any(|one| reached.contains(one)))
                        .flatten()
                        .copied()
                        .collect();
                    if more.is_subset(&reached) { break }
                    reached.extend(more);
                }
                let least = reached.first().copied().unwrap();
                prop_assert_eq!(pools.gauge(name), names[least].as_str());
                prop_assert_eq!(pools.is_shared(name), reached.len() > 1);
            }
        }
    }
}
