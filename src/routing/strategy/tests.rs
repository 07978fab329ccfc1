#![expect(clippy::arithmetic_side_effects, reason = "tests may overflow and panic")]

use std::collections::BTreeMap;

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::seeded::Random;

fn contestant(place: usize, name: &'static str, weight: u64) -> Contestant<'static> {
    Contestant { place, name, weight, standing: Standing::UNKNOWN, permille: 1_000, in_flight: 0, cost: None }
}

fn contestants(weights: &[u64]) -> Vec<Contestant<'static>> {
    const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    weights.iter().zip(NAMES).enumerate().map(|(place, (weight, name))| contestant(place, name, *weight)).collect()
}

fn answers_in(it: &mut Contestant<'_>, millis: u64) {
    it.standing.first_token_ms = Some(millis);
}

/// Those who go first in so many requests.
fn firsts(strategy: Strategy, contestants: &[Contestant<'_>], requests: usize) -> Vec<usize> {
    let mut seeded = Random::new(7);
    let mut owed: BTreeMap<usize, i64> = BTreeMap::new();
    (0..requests)
        .map(|_| {
            let ranking =
                rank(strategy, contestants, &|place| owed.get(&place).copied().unwrap_or(0), &mut || seeded.next());
            assert_eq!(ranking.order.len(), contestants.len());
            if let Some(turn) = ranking.turn {
                let all: i64 = turn.shares.iter().map(|(_, share)| share).sum();
                for (place, share) in turn.shares {
                    *owed.entry(place).or_default() += share - if place == turn.taken { all } else { 0 };
                }
            }
            ranking.order[0].0
        })
        .collect()
}

fn counts(firsts: &[usize], of: usize) -> Vec<u64> {
    (0..of).map(|at| firsts.iter().filter(|first| **first == at).count() as u64).collect()
}

#[test]
fn the_list_is_an_order() {
    let ranking = rank(Strategy::Ordered, &contestants(&[1, 9, 5]), &|_| 0, &mut || panic!("nothing is drawn"));
    assert_eq!(ranking.order, [(0, Score::Place(0)), (1, Score::Place(1)), (2, Score::Place(2))]);
    assert_eq!((ranking.turn, ranking.why), (None, "the first in the list"));
}

#[test]
fn everybody_has_his_turn_whatever_his_weight() {
    assert_eq!(firsts(Strategy::RoundRobin, &contestants(&[1, 9, 5]), 7), [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn weights_are_kept_exactly_and_without_bursts() {
    // The sequence that nginx documents for these weights.
    assert_eq!(firsts(Strategy::Weighted, &contestants(&[5, 1, 1]), 7), [0, 0, 1, 0, 2, 0, 0]);
    let hundred = firsts(Strategy::Weighted, &contestants(&[90, 9, 1]), 300);
    for cycle in hundred.chunks(100) {
        assert_eq!(counts(cycle, 3), [90, 9, 1]);
    }
    for tenth in hundred.chunks(10) {
        assert!((8..=10).contains(&counts(tenth, 3)[0]), "{tenth:?}");
    }
}

#[test]
fn who_is_in_bad_health_has_fewer_turns() {
    let mut list = contestants(&[1, 1]);
    list[1].permille = 250;
    assert_eq!(counts(&firsts(Strategy::Weighted, &list, 500), 2), [400, 100]);
    assert_eq!(counts(&firsts(Strategy::RoundRobin, &list, 500), 2), [250, 250], "turns know no health");
    list[1].standing = Standing { slow_start: true, weight_permille: 250, ..Standing::UNKNOWN };
    assert_eq!(
        counts(&firsts(Strategy::RoundRobin, &list, 500), 2),
        [400, 100],
        "but who has just recovered is spared"
    );
}

/// The chi-squared statistic of counts against the shares of weights.
fn chi_squared(counts: &[u64], weights: &[u64]) -> f64 {
    let (all, whole) = (counts.iter().sum::<u64>() as f64, weights.iter().sum::<u64>() as f64);
    let of = |count: &u64, weight: &u64| {
        let expected = all * *weight as f64 / whole;
        (*count as f64 - expected).powi(2) / expected
    };
    counts.iter().zip(weights).map(|(count, weight)| of(count, weight)).sum()
}

/// What chi-squared exceeds once in a thousand times, by degrees of freedom.
const RARE: [f64; 5] = [0.0, 10.83, 13.82, 16.27, 18.47];

#[test]
fn shares_of_a_split_are_exact_whatever_the_health() {
    for weights in [&[95, 5][..], &[1, 1, 1], &[1000, 1, 10, 100, 500]] {
        let mut list = contestants(weights);
        list[0].permille = 10;
        let counts = counts(&firsts(Strategy::Split, &list, 100_000), weights.len());
        let statistic = chi_squared(&counts, weights);
        assert!(statistic < RARE[weights.len() - 1], "{weights:?}: {counts:?}, {statistic}");
    }
}

#[test]
fn without_one_the_others_keep_their_proportions_in_a_split() {
    let mut seeded = Random::new(3);
    let list = contestants(&[50, 40, 10]);
    let mut counts = [0_u64; 2];
    for _ in 0..100_000 {
        let ranking = rank(Strategy::Split, &list, &|_| 0, &mut || seeded.next());
        let next = ranking.order.iter().find(|(at, _)| *at != 0).unwrap();
        counts[next.0 - 1] += 1;
    }
    let statistic = chi_squared(&counts, &[40, 10]);
    assert!(statistic < RARE[1], "{counts:?}, {statistic}");
}

#[test]
fn fewest_open_requests_for_the_weight_come_first() {
    let order = |open: [u64; 3], weights: [u64; 3]| {
        let mut list = contestants(&weights);
        for (it, open) in list.iter_mut().zip(open) {
            it.in_flight = open;
        }
        let ranking = rank(Strategy::LeastConnections, &list, &|_| 0, &mut || 0);
        ranking.order.iter().map(|(at, _)| *at).collect::<Vec<_>>()
    };
    assert_eq!(order([2, 1, 3], [1, 1, 1]), [1, 0, 2]);
    assert_eq!(order([0, 0, 0], [1, 1, 1]), [0, 1, 2]);
    assert_eq!(order([3, 1, 9], [2, 1, 10]), [2, 0, 1]);
    assert_eq!(order([u64::MAX, 0, u64::MAX], [1, 1, 1000]), [1, 2, 0]);
}

#[test]
fn the_cheapest_comes_first_and_those_without_a_price_last() {
    let mut list = contestants(&[1, 1, 1, 1]);
    for (it, cost) in list.iter_mut().zip([None, Some(7), Some(5), Some(0)]) {
        it.cost = cost;
    }
    let ranking = rank(Strategy::LowestCost, &list, &|_| 0, &mut || 1);
    let told: Vec<Score> = ranking.order.iter().map(|(_, score)| *score).collect();
    assert_eq!(told, [Some(0), Some(5), Some(7), None].map(Score::Cost));
}

#[test]
fn those_that_cost_the_same_share_by_weight() {
    let mut list = contestants(&[3, 1, 9]);
    for (it, cost) in list.iter_mut().zip([Some(5), Some(5), Some(6)]) {
        it.cost = cost;
    }
    let counts = counts(&firsts(Strategy::LowestCost, &list, 100_000), 3);
    assert_eq!(counts[2], 0);
    let statistic = chi_squared(&counts[..2], &[3, 1]);
    assert!(statistic < RARE[1], "{counts:?}, {statistic}");
}

#[test]
fn the_fastest_has_most_and_nobody_has_nothing() {
    let mut list = contestants(&[1; 4]);
    for (it, millis) in list.iter_mut().zip([900, 100, 400, 10_000]) {
        answers_in(it, millis);
    }
    let counts = counts(&firsts(Strategy::LowestLatency, &list, 32_000), 4);
    // Half of all pairs have the fastest in them, a third the second where it wins, a sixth the third; of what is left for
    // learning each has a quarter.
    let expected = [5_417.0, 15_750.0, 10_583.0, 250.0];
    for (count, expected) in counts.iter().zip(expected) {
        assert!((*count as f64 - expected).abs() < 5.0 * f64::sqrt(expected), "{counts:?}");
    }
}

#[test]
fn of_two_the_faster_has_all_but_what_is_for_learning() {
    let mut list = contestants(&[1, 1]);
    answers_in(&mut list[0], 101);
    answers_in(&mut list[1], 100);
    let counts = counts(&firsts(Strategy::LowestLatency, &list, 64_000), 2);
    assert!((850..=1_150).contains(&counts[0]), "{counts:?}");
}

#[test]
fn what_is_open_and_what_fails_makes_slower() {
    let first = |list: &[Contestant<'_>]| {
        let draws = firsts(Strategy::LowestLatency, list, 1_000);
        let counts = counts(&draws, 2);
        usize::from(counts[1] > counts[0])
    };
    let mut list = contestants(&[1, 1]);
    answers_in(&mut list[0], 100);
    answers_in(&mut list[1], 300);
    assert_eq!(first(&list), 0);
    list[0].in_flight = 3;
    assert_eq!(first(&list), 1);
    list[0].in_flight = 1;
    assert_eq!(first(&list), 0);
    list[0].standing.weight_permille = 500;
    assert_eq!(first(&list), 1);
}

#[test]
fn one_that_nothing_is_known_of_is_found_out_but_not_overrun() {
    let mut list = contestants(&[1, 1]);
    answers_in(&mut list[0], 100);
    list[0].in_flight = 1;
    let half = counts(&firsts(Strategy::LowestLatency, &list, 1_000), 2);
    assert!(half[1] > 900, "{half:?}");
    list[1].in_flight = 2;
    let half = counts(&firsts(Strategy::LowestLatency, &list, 1_000), 2);
    assert!(half[0] > 900, "{half:?}");
}

#[test]
fn a_trial_wins_its_comparison() {
    let mut list = contestants(&[1, 1]);
    answers_in(&mut list[0], 100);
    answers_in(&mut list[1], 60_000);
    list[1].standing.availability = Availability::Trial;
    let counts = counts(&firsts(Strategy::LowestLatency, &list, 1_000), 2);
    assert!(counts[1] > 950, "{counts:?}");
}

#[test]
fn keys_are_spread_by_weight_and_only_those_of_who_leaves_move() {
    let list = contestants(&[4, 3, 2, 1]);
    let keys: Vec<u64> = (0..100_000_u64).map(|key| hash(0, &key.to_le_bytes())).collect();
    let with_all: Vec<usize> = keys.iter().map(|key| pinned(&list, *key).order[0].0).collect();
    let shares = counts(&with_all, 4);
    let statistic = chi_squared(&shares, &[4, 3, 2, 1]);
    assert!(statistic < RARE[3], "{shares:?}, {statistic}");
    // Without the second, its three tenths move, and nobody else.
    let without: Vec<Contestant<'_>> = list.iter().filter(|it| it.name != "b").copied().collect();
    let mut moved_to = [0_u64; 3];
    for (key, before) in keys.iter().zip(&with_all) {
        let ranking = pinned(&without, *key);
        let after = without[ranking.order[0].0].place;
        if *before == 1 {
            moved_to[[0, 9, 1, 2][after]] += 1;
            let second = pinned(&list, *key).order[1].0;
            assert_eq!(after, second, "the next of the key's own order takes over");
        } else {
            assert_eq!(after, *before);
        }
    }
    assert_eq!(moved_to.iter().sum::<u64>(), shares[1]);
    let statistic = chi_squared(&moved_to, &[4, 2, 1]);
    assert!(statistic < RARE[2], "{moved_to:?}, {statistic}");
}

#[test]
fn who_recovers_gets_its_keys_back_bit_by_bit() {
    let keys: Vec<u64> = (0..10_000_u64).map(|key| hash(1, &key.to_le_bytes())).collect();
    let back = |permille: u64| {
        let mut list = contestants(&[1, 1]);
        list[0].standing = Standing { slow_start: permille < 1_000, weight_permille: permille, ..Standing::UNKNOWN };
        keys.iter().filter(|key| pinned(&list, **key).order[0].0 == 0).copied().collect::<Vec<_>>()
    };
    let (few, half, all) = (back(100), back(500), back(1_000));
    assert!((400..=600).contains(&few.len()) && (2_300..=2_700).contains(&half.len()), "{} {}", few.len(), half.len());
    assert!((4_800..=5_200).contains(&all.len()), "{}", all.len());
    assert!(few.iter().all(|key| half.contains(key)), "whoever is back stays");
    assert!(half.iter().all(|key| all.contains(key)));
}

const ALL: [Strategy; 7] = [
    Strategy::Ordered,
    Strategy::RoundRobin,
    Strategy::Weighted,
    Strategy::Split,
    Strategy::LeastConnections,
    Strategy::LowestLatency,
    Strategy::LowestCost,
];

proptest! {
    #[test]
    fn everybody_has_exactly_one_place(
        strategy in prop::sample::select(&ALL[..]),
        state in prop::collection::vec((1..=1_000_u64, 0..=1_000_u64, any::<Option<u64>>(), any::<u64>(), any::<Option<u64>>(), any::<i64>()), 0..10),
        seed in any::<u64>(),
        key in any::<u64>(),
    ) {
        let mut list = contestants(&state.iter().map(|it| it.0).collect::<Vec<_>>());
        for (it, (_, permille, first_token_ms, in_flight, cost, _)) in list.iter_mut().zip(&state) {
            it.permille = *permille;
            it.standing = Standing { weight_permille: *permille, first_token_ms: *first_token_ms, ..Standing::UNKNOWN };
            (it.in_flight, it.cost) = (*in_flight, *cost);
        }
        let mut seeded = Random::new(seed);
        let ranked = rank(strategy, &list, &|place| state[place].5, &mut || seeded.next());
        for ranking in [ranked, pinned(&list, key)] {
            let mut places: Vec<usize> = ranking.order.iter().map(|(at, _)| *at).collect();
            places.sort_unstable();
            prop_assert_eq!(places, (0..list.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn turns_are_exact_in_every_cycle_and_never_more_than_one_off(
        weights in prop::collection::vec(1..=20_u64, 1..8),
    ) {
        let list = contestants(&weights);
        let whole: u64 = weights.iter().sum();
        let sequence = firsts(Strategy::Weighted, &list, 3 * usize::try_from(whole).unwrap());
        for start in 0..=sequence.len() - usize::try_from(whole).unwrap() {
            let cycle = &sequence[start..start + usize::try_from(whole).unwrap()];
            prop_assert_eq!(counts(cycle, weights.len()), weights.clone());
        }
        for (nth, _) in sequence.iter().enumerate() {
            for (count, weight) in counts(&sequence[..=nth], weights.len()).iter().zip(&weights) {
                // How far a prefix may be from its exact share grows with the number of targets, not with time.
                let ahead = (*count * whole).abs_diff((nth as u64 + 1) * weight);
                prop_assert!(ahead <= whole * weights.len() as u64, "{ahead} of {whole}");
            }
        }
    }

    #[test]
    fn whoever_takes_part_gets_its_share_of_just_those_requests(
        requests in prop::collection::vec(prop::collection::vec(1..=1_000_u64, 6), 1..300),
        absent in prop::collection::vec(0..64_u8, 300),
    ) {
        let mut owed = [0_i64; 6];
        let mut exact = [0.0_f64; 6];
        for (weights, absent) in requests.iter().zip(&absent) {
            let list: Vec<(usize, u64)> =
                weights.iter().copied().enumerate().filter(|(place, _)| absent & (1 << place) == 0).collect();
            let all: u64 = list.iter().map(|(_, weight)| weight).sum();
            let turn = Turn::of(list.iter().copied(), &|place| owed[place]);
            let whole: i64 = turn.shares.iter().map(|(_, share)| share).sum();
            for (place, share) in &turn.shares {
                owed[*place] += share - if *place == turn.taken { whole } else { 0 };
            }
            for (place, weight) in &list {
                exact[*place] += *weight as f64 / all as f64 - f64::from(*place == turn.taken);
            }
            if !list.is_empty() {
                prop_assert!(list.iter().any(|(place, _)| *place == turn.taken));
            }
        }
        for due in exact {
            prop_assert!(due.abs() < 3.0, "{exact:?}");
        }
    }
}

#[test]
fn the_shares_that_are_told_are_those_that_come_out() {
    const REQUESTS: usize = 50_000;
    let mut list = contestants(&[5, 3, 1, 1, 2]);
    for (it, (millis, cost)) in
        list.iter_mut().zip([(Some(50), 7), (Some(10), 5), (None, 5), (Some(30), 9), (Some(80), 5)])
    {
        it.standing.first_token_ms = millis;
        it.cost = Some(cost);
        it.in_flight = it.place as u64 % 3;
    }
    list[1].permille = 500;
    let mut trying = list.clone();
    trying[3].standing.availability = Availability::Trial;
    trying[4].standing.availability = Availability::Trial;
    for strategy in ALL {
        for (list, what) in [(&list[..], "all"), (&trying[..], "two trials"), (&list[..2], "two"), (&list[..1], "one")]
        {
            let told = rank(strategy, list, &|_| 0, &mut || 12_345).shares;
            let sum: u64 = told.iter().sum();
            assert!(sum <= WHOLE_PPM && sum + 100 > WHOLE_PPM, "{strategy:?}, {what}: {told:?}");
            for (told, came) in told.iter().zip(counts(&firsts(strategy, list, REQUESTS), list.len())) {
                let came = came * WHOLE_PPM / REQUESTS as u64;
                assert!(told.abs_diff(came) < 10_000, "{strategy:?}, {what}: {told} is told, {came} came");
            }
        }
    }
    assert_eq!(pinned(&list, 7).shares.iter().filter(|share| **share == WHOLE_PPM).count(), 1);
}
