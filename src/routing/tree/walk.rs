//! The way through a route's tree.

use std::rc::Rc;

use super::super::board::{Availability, Skip, Standing, weights};
use super::super::conditions::Reading;
use super::super::score::Score;
use super::super::sticky;
use super::super::strategy::{Contestant, Ranking, Turn, Turns, WHOLE_PPM, part, pinned, rank};
use super::super::traits::{RequestView, View};
use super::order::{Candidate, Contender, LeftOut, LeftOutReason, Order};
use super::{MAX_DEPTH, MAX_TARGETS};
use crate::config::{Config, Model, Route, RouteTarget, Shadow, Strategy, WhenAllOpen};
use crate::gateway::plan::Unusable;

/// The weight of a target whose weight is nobody's concern.
const PLAIN: u64 = 1;

/// A walk through a tree.
pub(super) struct Walk<'a, 'w> {
    config: &'a Config,
    reading: Reading<'w>,
    view: &'w dyn View,
    turns: &'w mut Turns,
    random: &'w mut dyn FnMut() -> u64,
    left_out: Vec<LeftOut<'a>>,
    /// Those that would be candidates if they were healthy.
    unhealthy: Vec<(Candidate<'a>, Skip)>,
    /// How many models and routes have been met.
    met: usize,
}

/// What a target has come to: its candidates in order, at least one, and what follows if the first of them is tried.
struct Block<'a> {
    candidates: Vec<Candidate<'a>>,
    contestant: Contestant<'a>,
    /// The deployments among which the gauge picks, with their weights.
    contenders: Vec<(&'a str, u64)>,
    /// The turns that are taken then, by route.
    turns: Vec<(&'a str, Turn)>,
    pinned: bool,
}

/// Where in the tree something stands.
struct Place<'a> {
    path: Rc<[&'a str]>,
    /// What the caller is kept with a target by.
    key: Option<u64>,
    /// Whether what the request would cost matters.
    by_cost: bool,
    /// How many routes of this walk are above.
    depth: usize,
}

impl<'a> Place<'a> {
    /// Below some routes, where a walk begins.
    fn below(path: &[&'a str]) -> Self {
        Self { path: Rc::from(path), key: None, by_cost: false, depth: 0 }
    }
}

/// A target's terms in its route.
#[derive(Clone, Copy)]
struct Terms {
    index: usize,
    weight: u64,
    priority: u64,
}

impl<'a, 'w> Walk<'a, 'w> {
    pub(super) fn new(
        config: &'a Config,
        request: &'w dyn RequestView,
        view: &'w dyn View,
        turns: &'w mut Turns,
        random: &'w mut dyn FnMut() -> u64,
    ) -> Self {
        let reading = Reading::new(request);
        Self { config, reading, view, turns, random, left_out: Vec::new(), unhealthy: Vec::new(), met: 0 }
    }

    /// Who answers a request for a model or a route.
    pub(super) fn of_name(mut self, name: &str, policy: WhenAllOpen) -> Order<'a> {
        let terms = Terms { index: 0, weight: PLAIN, priority: 0 };
        if let Some((name, model)) = self.config.models.get_key_value(name) {
            let place = Place::below(&[]);
            let block = self.model(name, model, terms, &place);
            return self.order(block, None, policy);
        }
        let Some((name, route)) = self.config.routes.get_key_value(name).filter(|(_, route)| route.enabled) else {
            return Order::default();
        };
        let block = self.route(name, route, &Place::below(&[]));
        self.order(block, Some(route.strategy), policy)
    }

    /// The candidates that names stand for, one name after the other, below the routes of `path`.
    pub(super) fn of_names(mut self, path: &[&'a str], names: &'a [String]) -> Order<'a> {
        let place = Place::below(path);
        let mut blocks = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let terms = Terms { index, weight: PLAIN, priority: 0 };
            let block = match self.config.models.get_key_value(name) {
                Some((name, model)) => self.model(name, model, terms, &place),
                None => self.named_route(name, terms, &place),
            };
            blocks.extend(block);
        }
        let block = self.joined(Strategy::Ordered, blocks, &place);
        // The request has been copied already, if it was to be.
        Order { shadow: None, ..self.order(block, None, WhenAllOpen::Refuse) }
    }

    /// A route's candidates; `None` if there are none.
    fn route(&mut self, name: &'a str, route: &'a Route, above: &Place<'a>) -> Option<Block<'a>> {
        let key = match &route.sticky {
            Some(sticky) => sticky::key(sticky, self.reading.request),
            None => above.key,
        };
        let place = Place {
            path: above.path.iter().copied().chain([name]).collect(),
            key,
            by_cost: above.by_cost || route.strategy == Strategy::LowestCost,
            depth: above.depth.saturating_add(1),
        };
        if matches!(route.strategy, Strategy::RoundRobin | Strategy::Weighted) && key.is_none() {
            self.turns.prepare(name, route.strategy, &route.targets, self.random);
        }
        let mut tiers: Option<Block<'a>> = None;
        let mut next = route.targets.iter().map(|target| target.priority).min();
        while let Some(priority) = next {
            let mut blocks = Vec::new();
            for (index, target) in route.targets.iter().enumerate().filter(|(_, it)| it.priority == priority) {
                blocks.extend(self.target(index, target, &place));
            }
            let tier = self.joined(route.strategy, blocks, &place);
            match (&mut tiers, tier) {
                (Some(tiers), Some(tier)) => {
                    let stand_by = |candidate| Candidate { share_ppm: 0, ..candidate };
                    tiers.candidates.extend(tier.candidates.into_iter().map(stand_by));
                }
                (None, tier) => tiers = tier,
                (Some(_), None) => {}
            }
            next = route.targets.iter().map(|target| target.priority).filter(|it| *it > priority).min();
        }
        tiers
    }

    fn target(&mut self, index: usize, target: &'a RouteTarget, place: &Place<'a>) -> Option<Block<'a>> {
        let name = target.name();
        if !target.enabled {
            return self.leave_out(name, place, LeftOutReason::TargetDisabled);
        }
        if let Some(unmet) = target.when.as_ref().and_then(|when| self.reading.unmet(when)) {
            return self.leave_out(name, place, LeftOutReason::Condition(unmet));
        }
        let terms = Terms { index, weight: target.weight, priority: target.priority };
        match &target.model {
            Some(name) => match self.config.models.get_key_value(name) {
                Some((name, model)) => self.model(name, model, terms, place),
                None => self.leave_out(name, place, LeftOutReason::Unusable(Unusable::NoModel)),
            },
            None => self.named_route(name, terms, place),
        }
    }

    /// A route among the targets.
    fn named_route(&mut self, name: &'a str, terms: Terms, place: &Place<'a>) -> Option<Block<'a>> {
        self.met = self.met.saturating_add(1);
        let Some((name, route)) = self.config.routes.get_key_value(name) else {
            return self.leave_out(name, place, LeftOutReason::NoRoute);
        };
        if !route.enabled {
            return self.leave_out(name, place, LeftOutReason::RouteDisabled);
        }
        if place.depth >= MAX_DEPTH || self.met > MAX_TARGETS {
            return self.leave_out(name, place, LeftOutReason::TooLarge);
        }
        let mut block = self.route(name, route, place)?;
        // To those above it is one target, under its own name and with the weight that they give it.
        block.contestant = Contestant { place: terms.index, name, weight: terms.weight, ..block.contestant };
        Some(block)
    }

    fn model(&mut self, name: &'a str, model: &'a Model, terms: Terms, place: &Place<'a>) -> Option<Block<'a>> {
        self.met = self.met.saturating_add(1);
        if self.met > MAX_TARGETS {
            return self.leave_out(name, place, LeftOutReason::TooLarge);
        }
        if let Err(reason) = self.view.usable(name) {
            return self.leave_out(name, place, LeftOutReason::Unusable(reason));
        }
        let standing = self.view.standing(&model.provider, name);
        let open = self.view.in_flight(name);
        let cost = if place.by_cost { self.view.cost(name) } else { None };
        let candidate = Candidate {
            deployment: name,
            provider: &model.provider,
            path: Rc::clone(&place.path),
            priority: terms.priority,
            weight: terms.weight,
            effective_weight_permille: standing.weight_permille,
            trial: standing.availability == Availability::Trial,
            standing,
            open,
            cost,
            share_ppm: WHOLE_PPM,
            score: Score::Place(terms.index),
            why: "it was asked for",
        };
        if let Availability::Skipped(skip) = standing.availability {
            self.unhealthy.push((candidate, skip));
            return None;
        }
        let contestant = Contestant {
            place: terms.index,
            name,
            weight: terms.weight,
            standing,
            permille: standing.weight_permille,
            in_flight: open,
            cost,
        };
        Some(Block {
            candidates: vec![candidate],
            contestant,
            contenders: Vec::new(),
            turns: Vec::new(),
            pinned: false,
        })
    }

    /// Puts the targets of one priority in order; `None` if there are none.
    fn joined(&mut self, strategy: Strategy, mut blocks: Vec<Block<'a>>, place: &Place<'a>) -> Option<Block<'a>> {
        let standings: Vec<Standing> = blocks.iter().map(|block| block.contestant.standing).collect();
        let permille = weights(&standings, self.config.routing.dynamic_weights);
        for (block, permille) in blocks.iter_mut().zip(permille) {
            block.contestant.permille = permille;
        }
        let contestants: Vec<Contestant<'a>> = blocks.iter().map(|block| block.contestant).collect();
        let route = place.path.last().copied().unwrap_or_default();
        let Ranking { order, turn, why, shares } = match place.key {
            Some(key) => pinned(&contestants, key),
            None => {
                let turns = &*self.turns;
                rank(strategy, &contestants, &|place| turns.owed(route, place), self.random)
            }
        };
        let contenders = match (strategy, place.key) {
            (Strategy::LeastConnections, None) => contenders(&blocks),
            _ => Vec::new(),
        };
        let mut blocks: Vec<Option<Block<'a>>> = blocks.into_iter().map(Some).collect();
        let mut joined: Option<Block<'a>> = None;
        for (nth, (at, score)) in order.into_iter().enumerate() {
            let Some(mut block) = blocks.get_mut(at).and_then(Option::take) else { continue };
            let share_ppm = shares.get(at).copied().unwrap_or(0);
            for candidate in &mut block.candidates {
                candidate.share_ppm = part(candidate.share_ppm, share_ppm);
            }
            // What a route's own candidates say of their places is theirs to say.
            if let [only] = block.candidates.as_mut_slice()
                && only.path.len() == place.path.len()
            {
                only.effective_weight_permille = block.contestant.permille;
                only.score = score;
                only.why = if nth == 0 { why } else { "stands by" };
            }
            match &mut joined {
                Some(joined) => joined.candidates.append(&mut block.candidates),
                None => joined = Some(block),
            }
        }
        let mut joined = joined?;
        joined.pinned |= place.key.is_some();
        joined.turns.extend(turn.map(|turn| (route, turn)));
        if !contenders.is_empty() {
            joined.contenders = contenders;
        }
        Some(joined)
    }

    fn leave_out<T>(&mut self, name: &'a str, place: &Place<'a>, reason: LeftOutReason<'a>) -> Option<T> {
        let route = place.path.last().copied();
        self.left_out.push(LeftOut { deployment: name, route, reason, heard_ms_ago: None });
        None
    }

    /// What the whole tree has come to.
    fn order(mut self, block: Option<Block<'a>>, strategy: Option<Strategy>, policy: WhenAllOpen) -> Order<'a> {
        let mut order = Order { strategy, ..Order::default() };
        let mut contenders = Vec::new();
        let found = match block {
            Some(block) => {
                for (route, turn) in &block.turns {
                    self.turns.take(route, turn);
                }
                order.pinned = block.pinned;
                contenders = block.contenders;
                block.candidates
            }
            None if policy == WhenAllOpen::Try => {
                let found = self.in_spite();
                order.in_spite = !found.is_empty();
                found
            }
            None => Vec::new(),
        };
        for candidate in found {
            match order.candidates.iter_mut().find(|known| known.deployment == candidate.deployment) {
                Some(known) => {
                    known.share_ppm = known.share_ppm.saturating_add(candidate.share_ppm);
                    self.left_out.push(LeftOut::of(&candidate, LeftOutReason::Duplicate));
                }
                None => order.candidates.push(candidate),
            }
        }
        for (candidate, skip) in std::mem::take(&mut self.unhealthy) {
            self.left_out.push(LeftOut::of(&candidate, LeftOutReason::Unhealthy(skip)));
        }
        order.least_connections = indexed(&order.candidates, contenders);
        order.shadow = self.shadow(&order);
        order.left_out = self.left_out;
        order
    }

    /// Those that are tried although they are unhealthy, the likeliest to answer first.
    fn in_spite(&mut self) -> Vec<Candidate<'a>> {
        let rank = |skip: &Skip| match skip {
            // It works, and has some room again long before all of it is free.
            Skip::NoHeadroom { .. } => 0,
            Skip::HalfOpen => 1,
            Skip::Open { .. } => 2,
            Skip::AuthFailed { .. } | Skip::QuotaExhausted { .. } => 3,
            Skip::CoolingDown { .. } | Skip::Draining | Skip::Maintenance => 4,
        };
        let unhealthy = std::mem::take(&mut self.unhealthy);
        let (mut tried, left): (Vec<_>, Vec<_>) = unhealthy.into_iter().partition(|(_, skip)| skip.may_be_tried());
        self.unhealthy = left;
        tried.sort_by_key(|(_, skip)| (rank(skip), skip.ms_left()));
        let told = |(nth, (candidate, skip)): (usize, (Candidate<'a>, Skip))| Candidate {
            share_ppm: if nth == 0 { WHOLE_PPM } else { 0 },
            score: Score::Back(skip.ms_left()),
            why: "all are unhealthy, and this is the likeliest to answer",
            ..candidate
        };
        tried.into_iter().enumerate().map(told).collect()
    }

    /// The shadow of the outermost route that leads to the first candidate and has one, if this request is among those
    /// that are copied.
    fn shadow(&mut self, order: &Order<'a>) -> Option<&'a Shadow> {
        let first = order.candidates.first()?;
        let shadow = first.path.iter().find_map(|route| self.config.routes.get(*route)?.shadow.as_ref())?;
        let drawn = (self.random)().checked_rem(100).is_some_and(|drawn| drawn < shadow.percent);
        drawn.then_some(shadow)
    }
}

/// The deployments among which the gauge picks, of targets of one priority. A route's own contenders share its weight.
fn contenders<'a>(blocks: &[Block<'a>]) -> Vec<(&'a str, u64)> {
    let mut found = Vec::new();
    for block in blocks {
        if block.contenders.is_empty() {
            found.extend(block.candidates.first().map(|it| (it.deployment, block.contestant.effective())));
            continue;
        }
        let all = block.contenders.iter().fold(0_u64, |all, (_, weight)| all.saturating_add(*weight));
        let whole = block.contestant.weight.saturating_mul(1_000);
        found.extend(block.contenders.iter().map(|(deployment, weight)| {
            let share = whole.saturating_mul(*weight).checked_div(all).unwrap_or(0);
            (*deployment, share.max(1))
        }));
    }
    found
}

/// The contenders by their index; none unless there are two.
fn indexed(candidates: &[Candidate<'_>], contenders: Vec<(&str, u64)>) -> Vec<Contender> {
    let mut found: Vec<Contender> = Vec::new();
    for (deployment, weight) in contenders {
        let Some(index) = candidates.iter().position(|it| it.deployment == deployment) else { continue };
        match found.iter_mut().find(|known| known.index == index) {
            Some(known) => known.weight = known.weight.saturating_add(weight),
            None => found.push(Contender { index, weight }),
        }
    }
    if found.len() < 2 { Vec::new() } else { found }
}
