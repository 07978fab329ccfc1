//! Whose turn it is: the state of round robins.

use std::collections::BTreeMap;

use crate::config::{RouteTarget, Strategy};

/// The most routes whose turns are kept. Of more, those that were used last stay.
const ROUTES: usize = 1_024;

/// The most turns that are passed over at the beginning.
const HEAD_START: u64 = 4_096;

/// Beyond this, in thousandths of a weight, nothing more is owed. Only weights that change all the time get near it.
const MOST_OWED: i64 = 1 << 40;

/// Whose turn it is, by route: an isolate's own. What it does not know of is begun at a turn drawn by chance, so that
/// isolates that live for but a few requests together keep to the shares too.
#[derive(Debug, Default)]
pub struct Turns {
    routes: BTreeMap<String, Round>,
    uses: u64,
}

#[derive(Debug, Default)]
struct Round {
    /// The targets' names, and what each of them is owed, in thousandths of a weight. All together are owed nothing.
    targets: Vec<(String, i64)>,
    used: u64,
}

/// A turn that may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Turn {
    /// The place of the target that takes it.
    pub(in super::super) taken: usize,
    /// The places of those that took part, each with what it is given.
    pub(in super::super) shares: Vec<(usize, i64)>,
}

impl Turns {
    /// How many routes are known.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Gets a route's turns ready to be looked at. A route whose targets have changed begins anew.
    pub(in super::super) fn prepare(
        &mut self,
        route: &str,
        strategy: Strategy,
        targets: &[RouteTarget],
        random: &mut dyn FnMut() -> u64,
    ) {
        self.uses = self.uses.saturating_add(1);
        if let Some(round) = self.routes.get_mut(route) {
            let names = round.targets.iter().map(|(name, _)| name.as_str());
            if names.eq(targets.iter().map(RouteTarget::name)) {
                round.used = self.uses;
                return;
            }
            self.routes.remove(route);
        }
        if self.routes.len() >= ROUTES {
            let oldest = self.routes.iter().min_by_key(|(_, round)| round.used).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| self.routes.remove(&oldest));
        }
        let mut round =
            Round { targets: targets.iter().map(|it| (it.name().to_owned(), 0)).collect(), used: self.uses };
        round.begin(strategy, targets, random());
        self.routes.insert(route.to_owned(), round);
    }

    /// What the target at a place of a route is owed, in thousandths of a weight.
    pub(in super::super) fn owed(&self, route: &str, place: usize) -> i64 {
        self.routes.get(route).and_then(|round| round.targets.get(place)).map_or(0, |(_, owed)| *owed)
    }

    /// Takes a turn.
    pub(in super::super) fn take(&mut self, route: &str, turn: &Turn) {
        if let Some(round) = self.routes.get_mut(route) {
            round.take(turn);
        }
    }
}

impl Round {
    fn take(&mut self, turn: &Turn) {
        let all = turn.shares.iter().fold(0_i64, |all, (_, share)| all.saturating_add(*share));
        for (place, share) in &turn.shares {
            let Some((_, owed)) = self.targets.get_mut(*place) else { continue };
            let paid = if *place == turn.taken { all } else { 0 };
            *owed = owed.saturating_add(*share).saturating_sub(paid).clamp(-MOST_OWED, MOST_OWED);
        }
    }

    /// Passes over some turns. All targets take part, each with those of its priority.
    fn begin(&mut self, strategy: Strategy, targets: &[RouteTarget], random: u64) {
        let mut priorities: Vec<u64> = targets.iter().map(|target| target.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        for priority in priorities {
            let enabled = targets.iter().enumerate().filter(|(_, it)| it.enabled && it.priority == priority);
            let shares: Vec<(usize, i64)> = enabled
                .map(|(place, it)| {
                    let weight = if strategy == Strategy::Weighted { it.weight } else { 1 };
                    (place, i64::try_from(weight.saturating_mul(1_000)).unwrap_or(i64::MAX))
                })
                .collect();
            let all = shares.iter().fold(0_i64, |all, (_, share)| all.saturating_add(*share));
            let cycle = u64::try_from(all).unwrap_or(0).checked_div(1_000).unwrap_or(0).clamp(1, HEAD_START);
            let passed = random.checked_rem(cycle).unwrap_or(0);
            let mut turn = Turn { taken: 0, shares };
            for _ in 0..passed {
                let due = |(place, share): &&(usize, i64)| {
                    let owed = self.targets.get(*place).map_or(0, |(_, owed)| *owed);
                    (std::cmp::Reverse(owed.saturating_add(*share)), *place)
                };
                let Some((place, _)) = turn.shares.iter().min_by_key(due) else { break };
                turn.taken = *place;
                self.take(&turn);
            }
        }
    }
}
