//! What must hold of routes beyond the bounds of their fields.

use std::collections::{BTreeMap, VecDeque};

use super::bounds::{Bounded, Problems, is_scalar};
use super::{Config, Route, RouteTarget, Sticky, StickyBy, When};
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
        }
        for (fault, names) in &route.fallbacks {
            let word = serde_json::json!(fault);
            let path = format!("{path}.fallbacks.{}", word.as_str().unwrap_or_default());
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
            let word = serde_json::json!(fault);
            for (nth, fallback) in names.iter().enumerate() {
                let path = format!("routes.{name}.fallbacks.{}[{nth}]", word.as_str().unwrap_or_default());
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
