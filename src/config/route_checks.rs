//! What must hold of routes beyond the bounds of their fields.

use std::collections::{BTreeMap, VecDeque};

use super::bounds::{Bounded, Problems, is_scalar};
use super::{Config, Route, RouteTarget, Sticky, StickyBy, When};
use crate::routing::outcome::Fault;
use crate::routing::tree::{MAX_DEPTH, MAX_TARGETS};

impl Problems {
    /// Checks a route, whatever it refers to.
    pub(super) fn route(&mut self, path: &str, route: &Route) {
        route.check_bounds(path, self);
        for (nth, target) in route.targets.iter().enumerate() {
            let path = format!("{path}.targets[{nth}]");
            target.check_bounds(&path, self);
            self.target(&path, target);
        }
        if let Some(sticky) = &route.sticky {
            self.sticky(&format!("{path}.sticky"), sticky);
        }
        if let Some(retry) = &route.retry {
            retry.check_bounds(&format!("{path}.retry"), self);
            self.retried(&format!("{path}.retry.retry_on"), retry.retry_on.as_deref().unwrap_or_default());
        }
        for (fault, names) in &route.fallbacks {
            let path = format!("{path}.fallbacks.{fault}");
            if !is_failed_over(fault) {
                self.add(&path, "is no fault that another model could help with: see docs/routing.md for their names");
            }
            if !(1..=MOST_FALLBACKS).contains(&names.len()) {
                self.add(
                    &path,
                    format!("names {} models and routes, but must name 1 to {MOST_FALLBACKS}", names.len()),
                );
            }
        }
        if let Some(shadow) = &route.shadow {
            let path = format!("{path}.shadow");
            shadow.check_bounds(&path, self);
            if !crate::admin::ids::is_sane(&shadow.account) {
                self.add(&format!("{path}.account"), "is not the id of an account: letters, digits, `-`, `_` and `.`");
            }
        }
    }

    fn target(&mut self, path: &str, target: &RouteTarget) {
        match (&target.model, &target.route) {
            (Some(_), Some(_)) => self.add(path, "names both a model and a route: leave one of them out"),
            (None, None) => self.add(path, "names neither a model nor a route: set `model` or `route`"),
            _ => {}
        }
        if let Some(when) = &target.when {
            self.when(&format!("{path}.when"), when);
        }
    }

    fn when(&mut self, path: &str, when: &When) {
        when.check_bounds(path, self);
        for (name, values) in &when.headers {
            let path = format!("{path}.headers.{name}");
            if http::HeaderName::try_from(name.as_str()).is_err() {
                self.add(&path, "is not the name of a header");
            }
            self.values(&path, values.len());
        }
        for (key, values) in &when.metadata {
            self.values(&format!("{path}.metadata.{key}"), values.len());
        }
        for (name, values) in &when.params {
            let path = format!("{path}.params.{name}");
            self.values(&path, values.len());
            if !values.iter().all(is_scalar) {
                self.add(&path, "every value must be a text, a number, true or false");
            }
        }
        if when.min_input_tokens.zip(when.max_input_tokens).is_some_and(|(least, most)| least > most) {
            self.add(&format!("{path}.max_input_tokens"), "must not be less than `min_input_tokens`");
        }
    }

    /// A condition that lists no value holds for nobody, which nobody means.
    fn values(&mut self, path: &str, count: usize) {
        if !(1..=MOST_VALUES).contains(&count) {
            self.add(path, format!("lists {count} values, but must list 1 to {MOST_VALUES}: `*` stands for any"));
        }
    }

    fn sticky(&mut self, path: &str, sticky: &Sticky) {
        sticky.check_bounds(path, self);
        let header = format!("{path}.header");
        match (sticky.by, &sticky.header) {
            (StickyBy::Header, None) => self.add(&header, "is required where `by` is `header`"),
            (StickyBy::Header, Some(name)) if http::HeaderName::try_from(name.as_str()).is_err() => {
                self.add(&header, "is not the name of a header");
            }
            (StickyBy::Header, Some(_)) | (_, None) => {}
            (_, Some(_)) => self.add(&header, "only where `by` is `header`"),
        }
    }

    /// Checks what a route names: models and routes that exist, and no circles.
    pub(super) fn route_references(&mut self, config: &Config, name: &str, route: &Route) {
        for (nth, target) in route.targets.iter().enumerate() {
            let path = format!("routes.{name}.targets[{nth}]");
            if let Some(model) = target.model.as_ref().filter(|model| !config.models.contains_key(*model)) {
                let hint = is_other(config.routes.contains_key(model), "route");
                self.add(&format!("{path}.model"), format!("there is no model `{model}`{hint}"));
            }
            if let Some(below) = target.route.as_ref().filter(|below| !config.routes.contains_key(*below)) {
                let hint = is_other(config.models.contains_key(below), "model");
                self.add(&format!("{path}.route"), format!("there is no route `{below}`{hint}"));
            }
        }
        for (fault, names) in &route.fallbacks {
            for (nth, fallback) in names.iter().enumerate() {
                let path = format!("routes.{name}.fallbacks.{fault}[{nth}]");
                if fallback == name {
                    self.add(&path, "is the route itself: its targets are what has failed");
                } else if !config.models.contains_key(fallback) && !config.routes.contains_key(fallback) {
                    self.add(&path, format!("there is no model and no route `{fallback}`"));
                }
            }
        }
        if let Some(shadow) = route.shadow.as_ref().filter(|shadow| !config.models.contains_key(&shadow.model)) {
            let hint = if config.routes.contains_key(&shadow.model) { ": name one of the route's models" } else { "" };
            self.add(&format!("routes.{name}.shadow.model"), format!("there is no model `{}`{hint}", shadow.model));
        }
    }

    /// Checks that routes do not lead back to themselves, and that what each of them stands for can be looked through
    /// for every request.
    pub(super) fn route_trees(&mut self, config: &Config) {
        let trees = trees(config);
        let too_deep =
            config.routes.keys().filter(|name| trees.get(name.as_str()).is_some_and(|it| it.depth > MAX_DEPTH));
        for name in too_deep.take(MOST_TOLD) {
            let message = match circle(config, name) {
                Some(circle) => format!("lead back to the route itself: {circle}"),
                None => format!("lead through more than {MAX_DEPTH} routes, this one included"),
            };
            self.add(&format!("routes.{name}.targets"), message);
        }
        for (name, tree) in trees.iter().filter(|(_, tree)| tree.depth <= MAX_DEPTH && tree.targets > MAX_TARGETS) {
            let count = tree.targets;
            self.add(
                &format!("routes.{name}.targets"),
                format!("are {count} with those of all routes below, but must be {MAX_TARGETS} at most"),
            );
        }
    }
}

/// The most models and routes that a route falls back on for one kind of failure.
const MOST_FALLBACKS: usize = 16;

/// The most values that one condition lists.
const MOST_VALUES: usize = 100;

/// The most routes that are told to be too deep: one long chain makes many of them.
const MOST_TOLD: usize = 20;

/// Whether another model may do better after a fault of this name.
fn is_failed_over(name: &str) -> bool {
    Fault::ALL.into_iter().any(|fault| fault.name() == name && fault.may_fall_back())
}

fn is_other(is: bool, what: &str) -> String {
    if is { format!(": it is a {what}, so write `{what}` in place of this field") } else { String::new() }
}

/// What is below a route.
#[derive(Clone, Copy, Default)]
struct Tree {
    /// How many routes lead to its deepest target, itself included.
    depth: usize,
    /// How many targets there are.
    targets: usize,
}

/// What is below each route. Of one that is deeper than [`MAX_DEPTH`], such as all that lead into a circle, nothing more
/// is worked out than just that.
fn trees(config: &Config) -> BTreeMap<&str, Tree> {
    let mut trees: BTreeMap<&str, Tree> = BTreeMap::new();
    // Each round looks one route deeper.
    for _ in 0..=MAX_DEPTH {
        let deeper = config.routes.iter().map(|(name, route)| {
            let below = route.targets.iter().filter_map(|target| trees.get(target.route.as_deref()?));
            let tree = below.fold(Tree { depth: 0, targets: route.targets.len() }, |tree, below| Tree {
                depth: tree.depth.max(below.depth),
                targets: tree.targets.saturating_add(below.targets),
            });
            (name.as_str(), Tree { depth: tree.depth.saturating_add(1), ..tree })
        });
        trees = deeper.collect();
    }
    trees
}

/// The shortest way from a route back to itself, if there is one.
fn circle(config: &Config, name: &str) -> Option<String> {
    let below = |name: &str| {
        let targets = config.routes.get(name).map(|route| route.targets.as_slice()).unwrap_or_default();
        targets.iter().filter_map(|target| target.route.as_deref())
    };
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next: VecDeque<&str> = VecDeque::from([name]);
    while let Some(at) = next.pop_front() {
        for to in below(at) {
            if to == name {
                let mut way = vec![name];
                let mut at = at;
                while at != name {
                    way.push(at);
                    at = came_from.get(at)?;
                }
                way.push(name);
                way.reverse();
                return Some(way.join(" → "));
            }
            if !came_from.contains_key(to) {
                came_from.insert(to, at);
                next.push_back(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(routes: Value) -> Vec<(String, String)> {
        let document = json!({
            "providers": {"p": {"dialect": "openai", "base_url": "https://p.example/v1"}},
            "models": {"m": {"provider": "p"}, "n": {"provider": "p"}},
            "routes": routes,
        });
        let problems = Config::parse(&document).err().unwrap_or_default();
        problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
    }

    fn paths(route: Value) -> Vec<String> {
        told(json!({"r": route, "other": {"targets": [{"model": "n"}]}})).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn a_route_with_everything_is_fine() {
        let route = json!({
            "strategy": "weighted",
            "targets": [
                {"model": "m", "weight": 9, "when": {"headers": {"X-Tier": ["gold"]}, "params": {"n": [1, "*", true]}}},
                {"route": "other", "priority": 1, "when": {"min_input_tokens": 5, "max_input_tokens": 5, "users": ["u"]}},
            ],
            "sticky": {"by": "header", "header": "x-tenant"},
            "retry": {"max_attempts": 1, "retry_on": ["rate_limited"]},
            "fallbacks": {"context_length": ["n", "other"]},
            "shadow": {"model": "n", "account": "team-a"},
        });
        assert_eq!(paths(route), [""; 0]);
    }

    #[test]
    fn a_target_is_a_model_or_a_route_that_exists() {
        assert_eq!(
            paths(json!({"targets": [{}, {"model": "m", "route": "other"}]})),
            ["routes.r.targets[0]", "routes.r.targets[1]"]
        );
        let crossed =
            told(json!({"r": {"targets": [{"model": "s"}, {"route": "m"}]}, "s": {"targets": [{"model": "m"}]}}));
        assert_eq!(
            crossed,
            [
                (
                    "routes.r.targets[0].model".to_owned(),
                    "there is no model `s`: it is a route, so write `route` in place of this field".to_owned()
                ),
                (
                    "routes.r.targets[1].route".to_owned(),
                    "there is no route `m`: it is a model, so write `model` in place of this field".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn conditions_and_stickiness_must_make_sense() {
        let when = |when: Value| paths(json!({"targets": [{"model": "m", "when": when}]}));
        assert_eq!(when(json!({"headers": {"x y": ["a"]}})), ["routes.r.targets[0].when.headers.x y"]);
        assert_eq!(when(json!({"headers": {"x": []}})), ["routes.r.targets[0].when.headers.x"]);
        assert_eq!(when(json!({"metadata": {"x": []}})), ["routes.r.targets[0].when.metadata.x"]);
        assert_eq!(when(json!({"params": {"x": [[1]]}})), ["routes.r.targets[0].when.params.x"]);
        assert_eq!(
            when(json!({"min_input_tokens": 5, "max_input_tokens": 4})),
            ["routes.r.targets[0].when.max_input_tokens"]
        );
        let retry = |fault: &str| paths(json!({"targets": [{"model": "m"}], "retry": {"retry_on": [fault]}}));
        assert_eq!(retry("client_closed"), ["routes.r.retry.retry_on[0]"]);
        let sticky = |sticky: Value| paths(json!({"targets": [{"model": "m"}], "sticky": sticky}));
        assert_eq!(sticky(json!({"by": "header"})), ["routes.r.sticky.header"]);
        assert_eq!(sticky(json!({"by": "header", "header": "a b"})), ["routes.r.sticky.header"]);
        assert_eq!(sticky(json!({"by": "user", "header": "x-user"})), ["routes.r.sticky.header"]);
        assert_eq!(sticky(json!({"by": "prompt_prefix", "prefix_bytes": 1})), ["routes.r.sticky.prefix_bytes"]);
    }

    #[test]
    fn fallbacks_and_shadows_name_what_exists() {
        let with = |name: &str, value: Value| paths(json!({"targets": [{"model": "m"}], name: value}));
        let fallbacks = |value: Value| with("fallbacks", value);
        assert_eq!(fallbacks(json!({"nonsense": ["m"]})), ["routes.r.fallbacks.nonsense"]);
        assert_eq!(fallbacks(json!({"client_closed": ["m"]})), ["routes.r.fallbacks.client_closed"]);
        assert_eq!(fallbacks(json!({"auth": []})), ["routes.r.fallbacks.auth"]);
        assert_eq!(
            fallbacks(json!({"auth": ["m", "r", "z"]})),
            ["routes.r.fallbacks.auth[1]", "routes.r.fallbacks.auth[2]"]
        );
        let shadow = |model: &str, account: &str| with("shadow", json!({"model": model, "account": account}));
        assert_eq!(shadow("other", "a"), ["routes.r.shadow.model"]);
        assert_eq!(shadow("z", "a"), ["routes.r.shadow.model"]);
        assert_eq!(shadow("n", "a/b"), ["routes.r.shadow.account"]);
    }

    #[test]
    fn routes_may_be_nested_but_not_in_circles_nor_too_deep() {
        let chain = |links: &[(&str, &str)]| {
            let mut routes = json!({"end": {"targets": [{"model": "m"}]}});
            for (from, to) in links {
                routes[from] = json!({"targets": [{"route": to}]});
            }
            told(routes)
        };
        assert_eq!(chain(&[("a", "b"), ("b", "c"), ("c", "end")]), []);
        let deep = chain(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "end")]);
        assert_eq!(
            deep,
            [("routes.a.targets".to_owned(), "lead through more than 4 routes, this one included".to_owned())]
        );
        let circle = chain(&[("a", "b"), ("b", "c"), ("c", "a"), ("into", "a"), ("self", "self")]);
        let circle: Vec<&str> = circle.iter().map(|(_, message)| message.as_str()).collect();
        assert_eq!(
            circle,
            [
                "lead back to the route itself: a → b → c → a",
                "lead back to the route itself: b → c → a → b",
                "lead back to the route itself: c → a → b → c",
                "lead through more than 4 routes, this one included",
                "lead back to the route itself: self → self",
            ]
        );
        let mut long = json!({"r9999": {"targets": [{"model": "m"}]}});
        for nth in 0..2_000 {
            long[format!("r{nth}")] =
                json!({"targets": [{"route": format!("r{}", if nth == 1_999 { 9_999 } else { nth + 1 })}]});
        }
        assert_eq!(told(long).len(), MOST_TOLD);
    }

    #[test]
    fn a_tree_has_an_end_in_width_too() {
        let wide = |count: usize, target: Value| json!({"targets": vec![target; count]});
        let leaves = |count: usize| wide(count, json!({"model": "m"}));
        assert_eq!(told(json!({"a": wide(4, json!({"route": "b"})), "b": leaves(31)})), []);
        let told = told(json!({"a": wide(5, json!({"route": "b"})), "b": leaves(31)}));
        assert_eq!(
            told,
            [(
                "routes.a.targets".to_owned(),
                "are 160 with those of all routes below, but must be 128 at most".to_owned()
            )]
        );
    }
}
