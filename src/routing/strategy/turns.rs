//! Whose turn it is: the state of round robins.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::config::{RouteTarget, Strategy};

/// The most routes whose turns are kept. Of more, those that were used last stay.
const ROUTES: usize = 1_024;

/// The most turns that are passed over at the beginning.
const HEAD_START: u64 = 4_096;

/// One turn, in the unit in which is reckoned what is owed: fine enough for any weights, and with room for millions.
const TURN: i64 = 1 << 40;

/// What differs by less counts as the same, or what is lost in dividing would decide who of two alike comes first.
const SAME_BITS: u32 = 20;

/// Whose turn it is, by route: an isolate's own. What it does not know of is begun at a turn drawn by chance, so that
/// isolates that live for but a few requests together keep to the shares too.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    routes: BTreeMap<String, Round>,
    uses: u64,
}

#[derive(Debug, Clone, Default)]
struct Round {
    /// The targets' names, and what each of them is owed. All together are owed nothing.
    targets: Vec<(String, i64)>,
    used: u64,
}

/// A turn that may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Turn {
    /// The place of the target that takes it.
    pub(in super::super) taken: usize,
    /// The places of those that took part, each with its share.
    pub(in super::super) shares: Vec<(usize, i64)>,
}

impl Turn {
    /// The turn of whoever is owed most; of several, who stands first in the list. Everybody is given its share of one
    /// turn, and who takes it pays for the whole: so it does not matter how many take part in which.
    pub(super) fn of(weights: impl Iterator<Item = (usize, u64)> + Clone, owed: &dyn Fn(usize) -> i64) -> Self {
        let all = weights.clone().fold(0_u128, |all, (_, weight)| all.saturating_add(u128::from(weight)));
        let share = |weight: u64| {
            let share = u128::from(weight).saturating_mul(u128::from(TURN.unsigned_abs())).checked_div(all);
            share.and_then(|share| i64::try_from(share).ok()).unwrap_or(0)
        };
        let shares: Vec<(usize, i64)> = weights.map(|(place, weight)| (place, share(weight))).collect();
        let first = shares.iter().min_by_key(|(place, share)| rank_of(owed(*place).saturating_add(*share), *place));
        Self { taken: first.map_or(0, |(place, _)| *place), shares }
    }
}

/// By what those that are owed something are compared: the least comes first.
pub(super) fn rank_of(due: i64, place: usize) -> (Reverse<i64>, usize) {
    let half = 1_i64 << SAME_BITS.saturating_sub(1);
    (Reverse(due.saturating_add(half) >> SAME_BITS), place)
}

/// What is owed, in thousandths of a turn.
pub(super) fn thousandths(owed: i64) -> i64 {
    let told = i128::from(owed).saturating_mul(1_000) >> TURN.trailing_zeros();
    i64::try_from(told).unwrap_or(i64::MAX)
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

    /// What the target at a place of a route is owed.
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
            *owed = owed.saturating_add(*share).saturating_sub(paid);
        }
    }

    /// Passes over some turns. All targets take part, each with those of its priority.
    fn begin(&mut self, strategy: Strategy, targets: &[RouteTarget], random: u64) {
        let mut priorities: Vec<u64> = targets.iter().map(|target| target.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        for priority in priorities {
            let enabled = targets.iter().enumerate().filter(|(_, it)| it.enabled && it.priority == priority);
            let weight = |it: &RouteTarget| if strategy == Strategy::Weighted { it.weight } else { 1 };
            let weights: Vec<(usize, u64)> = enabled.map(|(place, it)| (place, weight(it))).collect();
            let cycle = weights.iter().fold(0_u64, |all, (_, weight)| all.saturating_add(*weight)).min(HEAD_START);
            for _ in 0..random.checked_rem(cycle).unwrap_or(0) {
                let owed = |place: usize| self.targets.get(place).map_or(0, |(_, owed)| *owed);
                let turn = Turn::of(weights.iter().copied(), &owed);
                self.take(&turn);
            }
        }
    }
}
