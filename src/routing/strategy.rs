//! How one of several targets is chosen, and in which order the others stand by.

mod shares;
mod turns;

pub(super) use shares::{WHOLE_PPM, part};
pub(super) use turns::Turn;
pub use turns::Turns;
use turns::{rank_of, thousandths};

use std::cmp::Ordering;

use shares::{all_to, of_pairs, proportional};

use super::board::{Availability, Standing};
use super::score::{Score, hash, lot, mix, told};
use crate::config::Strategy;

/// One in how many requests goes to any target at all under [`Strategy::LowestLatency`], so that what is known of those
/// that lose every comparison does not grow old.
const EXPLORED: u64 = 32;

/// A target that can be called, as strategies see it. A route counts as the candidate that it would put first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contestant<'a> {
    /// Its place in the route's list.
    pub(super) place: usize,
    /// Its name.
    pub(super) name: &'a str,
    /// Its weight as configured.
    pub(super) weight: u64,
    /// Its health.
    pub(super) standing: Standing,
    /// What its health leaves of the weight among these contestants, in thousandths.
    pub(super) permille: u64,
    /// Requests of this isolate's that are open there.
    pub(super) in_flight: u64,
    /// What the request is expected to cost there, in nano-dollars. Only told where the strategy asks for it.
    pub(super) cost: Option<u64>,
}

impl Contestant<'_> {
    /// Weight and health together, in thousandths of a weight; never nothing.
    pub(super) fn effective(&self) -> u64 {
        self.weight.saturating_mul(self.permille).max(1)
    }

    /// How much of it has come back, in thousandths: all, unless it has recovered only a moment ago.
    fn returned(&self) -> u64 {
        if self.standing.slow_start { self.standing.weight_permille.max(1) } else { 1_000 }
    }

    /// The peak of the time to the first token.
    fn first_token_ms(&self) -> Option<u64> {
        self.standing.first_token_ms
    }

    /// Whether it is half open, and a permit for a trial at hand.
    fn is_trial(&self) -> bool {
        self.standing.availability == Availability::Trial
    }
}

/// The contestants in the order in which they are to be tried.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// Each one's index among the contestants, and what its place comes from.
    pub(super) order: Vec<(usize, Score)>,
    /// The turn to be taken if the first is really tried.
    pub(super) turn: Option<Turn>,
    /// Why the first is the first.
    pub(super) why: &'static str,
    /// How often each contestant would be the first, in millionths.
    pub(super) shares: Vec<u64>,
}

/// Puts contestants in order by a strategy. `turns` are those of the route.
pub(super) fn rank(
    strategy: Strategy,
    contestants: &[Contestant<'_>],
    owed: &dyn Fn(usize) -> i64,
    random: &mut dyn FnMut() -> u64,
) -> Ranking {
    match strategy {
        Strategy::Ordered => {
            sorted(contestants, "the first in the list", |_, it| it.place, |place, _| Score::Place(*place))
        }
        Strategy::RoundRobin => in_turn(contestants, owed, |it| it.returned()),
        Strategy::Weighted => in_turn(contestants, owed, |it| it.effective()),
        Strategy::Split => drawn(contestants, "drawn by its share", |it| it.weight, random),
        Strategy::LeastConnections => sorted(
            contestants,
            "the fewest open requests",
            |_, it| Load { open: it.in_flight, weight: it.effective(), place: it.place },
            |load, _| Score::Open { open: load.open, weight: load.weight },
        ),
        Strategy::LowestLatency => fastest(contestants, random),
        Strategy::LowestCost => {
            // Those that cost the same come by lot.
            let lots = drawn(contestants, "the cheapest", |it| it.effective(), random);
            let mut order = lots.order;
            let cost = |at: &usize| contestants.get(*at).and_then(|it| it.cost);
            order.sort_by_key(|(at, _)| cost(at).map_or((true, 0), |cost| (false, cost)));
            let order: Vec<_> = order.into_iter().map(|(at, _)| (at, Score::Cost(cost(&at)))).collect();
            let least = order.first().and_then(|(at, _)| cost(at));
            let shares = proportional(contestants, |it| if it.cost == least { it.effective() } else { 0 });
            Ranking { order, shares, ..lots }
        }
    }
}

/// Puts contestants in the order of the lots that a key gives them: rendezvous hashing. Which of two comes first depends
/// on nothing but the key, the two and their weights, so whoever leaves is the only one whose keys move.
pub(super) fn pinned(contestants: &[Contestant<'_>], key: u64) -> Ranking {
    let order = |_: usize, it: &Contestant<'_>| {
        let lots = mix(hash(key, it.name.as_bytes()));
        // Of what has just recovered, as much has come back as its health allows; always the same part comes first.
        let is_back = mix(lots).checked_rem(1_000).is_none_or(|part| part < it.returned());
        Pin { away: !is_back, lot: lot(lots, it.weight) }
    };
    sorted(contestants, "pinned", order, |pin, _| Score::Pin(told(pin.lot)))
}

fn sorted<K: Ord>(
    contestants: &[Contestant<'_>],
    why: &'static str,
    key: impl Fn(usize, &Contestant<'_>) -> K,
    score: impl Fn(&K, &Contestant<'_>) -> Score,
) -> Ranking {
    let mut keyed: Vec<(K, usize, Score)> = contestants
        .iter()
        .enumerate()
        .map(|(at, contestant)| {
            let key = key(at, contestant);
            let score = score(&key, contestant);
            (key, at, score)
        })
        .collect();
    keyed.sort_by(|one, other| one.0.cmp(&other.0));
    let shares = all_to(keyed.first().map(|(_, at, _)| *at), contestants.len());
    Ranking { order: keyed.into_iter().map(|(_, at, score)| (at, score)).collect(), turn: None, why, shares }
}

/// Smooth weighted round robin: everybody is given its share of a turn, whoever then is owed most has it and pays for it.
fn in_turn(
    contestants: &[Contestant<'_>],
    owed: &dyn Fn(usize) -> i64,
    weight: impl Fn(&Contestant<'_>) -> u64,
) -> Ranking {
    let turn = Turn::of(contestants.iter().map(|it| (it.place, weight(it))), owed);
    let due = |at: usize| turn.shares.get(at).map_or(0, |(place, share)| owed(*place).saturating_add(*share));
    let ranking = sorted(
        contestants,
        "its turn",
        |at, it| (rank_of(due(at), it.place), due(at)),
        |(_, due), _| Score::Owed(thousandths(*due)),
    );
    let shares = proportional(contestants, weight);
    Ranking { turn: Some(turn).filter(|_| !contestants.is_empty()), shares, ..ranking }
}

/// Draws lots.
fn drawn(
    contestants: &[Contestant<'_>],
    why: &'static str,
    weight: impl Fn(&Contestant<'_>) -> u64,
    random: &mut dyn FnMut() -> u64,
) -> Ranking {
    let lots: Vec<f64> = contestants.iter().map(|it| lot(random(), weight(it))).collect();
    let ranking = sorted(
        contestants,
        why,
        |at, _| Pin { away: false, lot: lots.get(at).copied().unwrap_or(f64::MAX) },
        |pin, _| Score::Lot(told(pin.lot)),
    );
    // A weight of nothing counts as one when lots are drawn.
    Ranking { shares: proportional(contestants, |it| weight(it).max(1)), ..ranking }
}

/// The faster of two that are drawn by chance goes first, the others follow by their scores.
fn fastest(contestants: &[Contestant<'_>], random: &mut dyn FnMut() -> u64) -> Ranking {
    // One of which nothing is known counts as fast as the fastest: it is found out, but what is open there tells as well.
    let fastest_known = contestants.iter().filter_map(Contestant::first_token_ms).min().unwrap_or(1);
    let latency = |it: &Contestant<'_>| {
        let millis = it.first_token_ms().unwrap_or(fastest_known).max(1);
        let loaded = millis.saturating_mul(it.in_flight.saturating_add(1)).saturating_mul(1_000);
        loaded.checked_div(it.standing.weight_permille.max(1)).unwrap_or(loaded)
    };
    let mut ranking = sorted(
        contestants,
        "the faster of two",
        |_, it| (latency(it), it.place),
        |(millis, _), _| Score::Latency(*millis),
    );
    let below = |bound: usize, random: &mut dyn FnMut() -> u64| {
        let word = random().checked_rem(bound as u64).unwrap_or(0);
        usize::try_from(word).unwrap_or(0)
    };
    let count = ranking.order.len();
    if count < 2 {
        return Ranking { why: "the only one", ..ranking };
    }
    let ranks: Vec<usize> = ranking.order.iter().map(|(at, _)| *at).collect();
    ranking.shares = of_pairs(contestants, &ranks);
    let one = below(count, random);
    let first = if random().is_multiple_of(EXPLORED) {
        ranking.why = "to learn how fast it is";
        one
    } else {
        // Any but the first, each as likely.
        let other = below(count.saturating_sub(1), random);
        let other = if other >= one { other.saturating_add(1) } else { other };
        let is_trial = |at: usize| {
            ranking.order.get(at).and_then(|(at, _)| contestants.get(*at)).is_some_and(Contestant::is_trial)
        };
        // A trial's permit is of no use to anybody else, and what is known of it is from before it failed.
        match (is_trial(one), is_trial(other)) {
            (true, false) => one,
            (false, true) => other,
            _ => one.min(other),
        }
    };
    let first = ranking.order.remove(first);
    ranking.order.insert(0, first);
    ranking
}

/// What is open for a weight: fewer come first, and of two alike the one that stands first in the list.
#[derive(Debug, PartialEq, Eq)]
struct Load {
    open: u64,
    weight: u64,
    place: usize,
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        // (a + 1) / v against (b + 1) / w, without dividing.
        let times = |open: u64, weight: u64| u128::from(open).saturating_add(1).saturating_mul(u128::from(weight));
        times(self.open, other.weight).cmp(&times(other.open, self.weight)).then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A lot; those that are away come last.
#[derive(Debug)]
struct Pin {
    away: bool,
    lot: f64,
}

impl Ord for Pin {
    fn cmp(&self, other: &Self) -> Ordering {
        self.away.cmp(&other.away).then(self.lot.total_cmp(&other.lot))
    }
}

impl PartialOrd for Pin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pin {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pin {}

#[cfg(test)]
mod tests;
