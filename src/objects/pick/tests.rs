#![expect(clippy::arithmetic_side_effects, reason = "small numbers in tests")]

use super::super::wire::CandidateAsk;
use super::*;
use crate::limits::ask::{Settled, Settlement};
use crate::limits::rule::{Dimension, EVERYBODY, LimitMode, LimitTerms, Period, Rule, Scope};
use proptest::prelude::*;

const NOW: u64 = 1_700_000_000_000;
const LIFETIME_MS: u64 = 60_000;

type Pool = BTreeMap<String, Admission>;

fn pool(providers: &[&str]) -> Pool {
    providers.iter().map(|name| ((*name).to_owned(), Admission::new(Scope::Provider))).collect()
}

/// At most so many open requests.
fn cap(amount: u64) -> Vec<Rule> {
    limit(Dimension::Concurrency, Period::None, amount)
}

fn limit(dimension: Dimension, period: Period, amount: u64) -> Vec<Rule> {
    let terms = LimitTerms { model: None, dimension, period, amount, burst: None, mode: LimitMode::Enforce };
    vec![Rule { id: "r".into(), scope: Scope::Provider, subject: EVERYBODY.into(), terms }]
}

fn candidate(provider: &str, deployment: &str, weight: u64, rules: Vec<Rule>) -> CandidateAsk {
    let ask = Ask {
        key_id: "k".into(),
        model: deployment.into(),
        lifetime_ms: LIFETIME_MS,
        defaults: rules,
        ..Ask::default()
    };
    CandidateAsk { provider: provider.into(), weight, ask }
}

fn ask(id: &str, candidates: &[CandidateAsk]) -> Acquire {
    Acquire { id: id.into(), candidates: candidates.to_vec(), pick: true }
}

/// Reserves, and tells where.
fn take(pool: &mut Pool, id: &str, candidates: &[CandidateAsk]) -> Option<usize> {
    let Acquired { index, answer, .. } = acquire(NOW, pool, &ask(id, candidates)).unwrap();
    matches!(answer, Answer::Granted(_)).then_some(index)
}

fn release(pool: &mut Pool, provider: &str, id: &str) {
    let settled = pool.get_mut(provider).unwrap().settle(NOW, id, &Settlement::default());
    assert_eq!(settled, Settled::Counted);
}

fn open(pool: &Pool) -> Vec<u64> {
    pool.values().map(|desk| desk.open(None)).collect()
}

#[test]
fn the_least_loaded_is_picked_and_equals_in_order() {
    let mut pool = pool(&["a", "b", "c"]);
    let all = ["c", "a", "b"].map(|name| candidate(name, name, 1, Vec::new()));
    let picked: Vec<_> = (0..4).map(|nth| take(&mut pool, &nth.to_string(), &all).unwrap()).collect();
    assert_eq!(picked, [0, 1, 2, 0]);
    release(&mut pool, "b", "2");
    let Acquired { index, open, .. } = acquire(NOW, &mut pool, &ask("x", &all)).unwrap();
    assert_eq!((index, open), (2, vec![2, 1, 1]), "what is open is told in the candidates' order");
}

#[test]
fn weights_share_what_is_open() {
    let mut pool = pool(&["a", "b"]);
    let all = [candidate("a", "a", 3, Vec::new()), candidate("b", "b", 1, Vec::new())];
    for nth in 0..40 {
        take(&mut pool, &nth.to_string(), &all).unwrap();
    }
    assert_eq!(open(&pool), [30, 10]);
}

#[test]
fn deployments_of_one_provider_share_what_is_open_there() {
    let mut pool = pool(&["a", "b"]);
    let all = [("a", "a1"), ("a", "a2"), ("b", "b1")].map(|(name, model)| candidate(name, model, 1, Vec::new()));
    for nth in 0..30 {
        take(&mut pool, &nth.to_string(), &all).unwrap();
    }
    let of = |provider: &str, model| pool[provider].open(Some(model));
    assert_eq!([of("a", "a1"), of("a", "a2"), of("b", "b1")], [10, 10, 10]);
}

#[test]
fn without_a_pick_the_first_is_meant() {
    let mut pool = pool(&["a", "b"]);
    let all = [candidate("a", "a", 1, cap(1)), candidate("b", "b", 1, Vec::new())];
    let first = Acquire { pick: false, ..ask("1", &all) };
    assert_eq!(acquire(NOW, &mut pool, &first).unwrap().open, [1]);
    let second = acquire(NOW, &mut pool, &Acquire { pick: false, ..ask("2", &all) }).unwrap();
    assert!(matches!(second, Acquired { index: 0, answer: Answer::Denied(_), .. }));
    assert_eq!(open(&pool), [1, 0]);
}

#[test]
fn who_has_no_room_is_passed_over_and_the_earliest_refusal_told() {
    let mut pool = pool(&["a", "b", "c"]);
    let all = [
        candidate("a", "a", 1, limit(Dimension::Requests, Period::Hour, 1)),
        candidate("b", "b", 1, cap(2)),
        candidate("c", "c", 1, limit(Dimension::Requests, Period::Total, 1)),
    ];
    let picked: Vec<_> = (0..4).map(|nth| take(&mut pool, &nth.to_string(), &all)).collect();
    assert_eq!(picked, [Some(0), Some(1), Some(2), Some(1)]);
    let refused = acquire(NOW, &mut pool, &ask("x", &all)).unwrap();
    let Answer::Denied(denial) = refused.answer else { panic!("all are full") };
    assert_eq!((refused.index, denial.breach.retry_after_ms), (1, Some(1_000)), "a slot is free again first");
    assert!(acquire(NOW, &mut pool, &ask("y", &[candidate("z", "z", 1, Vec::new())])).is_none(), "nobody counts for z");
}

#[test]
fn who_has_heard_no_answer_can_release_what_was_picked() {
    let mut pool = pool(&["a", "b"]);
    let all = ["a", "b"].map(|name| candidate(name, name, 1, Vec::new()));
    let told = |provider: &str, id: &str| Release { provider: provider.into(), id: id.into(), ..Release::default() };
    for (id, at) in [("1", 0), ("2", 1)] {
        assert_eq!(take(&mut pool, id, &all), Some(at));
    }
    assert_eq!(super::release(NOW, &mut pool, &told("a", "2")), Settled::Counted);
    assert_eq!(open(&pool), [1, 0]);
    assert_eq!(super::release(NOW, &mut pool, &told("a", "3")), Settled::Counted, "it overtakes what reserves");
    assert_eq!(take(&mut pool, "3", &all), Some(0));
    assert_eq!(open(&pool), [1, 0], "which opens nothing then");
    assert_eq!(super::release(NOW, &mut pool, &told("gone", "1")), Settled::Counted);
    assert_eq!(super::release(NOW, &mut pool, &told("gone", "4")), Settled::Late);
    assert_eq!(open(&pool), [0, 0]);
}

#[test]
fn asking_again_leads_to_the_same() {
    let mut pool = pool(&["a", "b"]);
    let all = ["a", "b"].map(|name| candidate(name, name, 1, cap(1)));
    assert_eq!((take(&mut pool, "1", &all), take(&mut pool, "2", &all)), (Some(0), Some(1)));
    assert_eq!((take(&mut pool, "2", &all), take(&mut pool, "1", &all)), (Some(1), Some(0)));
    assert_eq!(open(&pool), [1, 1]);
    release(&mut pool, "a", "1");
    assert_eq!(take(&mut pool, "1", &all), Some(0));
    assert_eq!(open(&pool), [0, 1], "what has ended reserves nothing any more");
}

#[test]
fn what_nobody_releases_counts_until_its_time_is_up() {
    let mut pool = pool(&["a", "b"]);
    let all = ["a", "b"].map(|name| candidate(name, name, 1, cap(1)));
    take(&mut pool, "1", &all).unwrap();
    take(&mut pool, "2", &all).unwrap();
    assert_eq!(take(&mut pool, "3", &all), None);
    let later = acquire(NOW + LIFETIME_MS, &mut pool, &ask("4", &all)).unwrap();
    assert_eq!((later.index, later.open), (0, vec![1, 0]));
}

proptest! {
    /// Clients that each send their next request when one has ended, however long theirs take.
    #[test]
    fn under_steady_load_open_counts_stay_within_one(
        providers in 2..6_usize, clients in 1..40_usize,
        rounds in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..12), 0..12),
    ) {
        let names: Vec<String> = (0..providers).map(|nth| format!("p{nth}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut pool = pool(&names);
        let all: Vec<_> = names.iter().map(|name| candidate(name, name, 1, Vec::new())).collect();
        let mut under_way: Vec<(String, usize)> = Vec::new();
        let mut next = 0_u64..;
        for ended in std::iter::once(Vec::new()).chain(rounds) {
            for nth in ended {
                if !under_way.is_empty() {
                    let (id, index) = under_way.swap_remove(nth.index(under_way.len()));
                    release(&mut pool, names[index], &id);
                }
            }
            while under_way.len() < clients {
                let id = next.next().unwrap().to_string();
                let least = open(&pool).into_iter().min().unwrap();
                let index = take(&mut pool, &id, &all).unwrap();
                prop_assert_eq!(open(&pool)[index], least + 1, "nobody had fewer");
                under_way.push((id, index));
            }
            let open = open(&pool);
            prop_assert!(open.iter().max().unwrap() - open.iter().min().unwrap() <= 1, "{:?}", open);
        }
    }

    /// Whatever is asked for and ends in whatever order: caps hold, room is used, and what is told is so.
    #[test]
    fn caps_are_never_exceeded_and_room_is_never_refused(
        caps in prop::collection::vec(1..5_u64, 1..5), weights in prop::collection::vec(0..4_u64, 5),
        steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..80),
    ) {
        let names: Vec<String> = (0..caps.len()).map(|nth| format!("p{nth}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut pool = pool(&names);
        let all: Vec<_> =
            names.iter().zip(&caps).zip(&weights).map(|((name, most), weight)| candidate(name, name, *weight, cap(*most))).collect();
        let mut under_way: Vec<(String, usize)> = Vec::new();
        for (nth, (ends, which)) in steps.into_iter().enumerate() {
            if ends && !under_way.is_empty() {
                let (id, index) = under_way.swap_remove(which.index(under_way.len()));
                release(&mut pool, names[index], &id);
                continue;
            }
            let before = open(&pool);
            let full = before == caps;
            let looked = preview(NOW, &mut pool, &ask("", &all)).unwrap();
            prop_assert_eq!((&looked.open, &open(&pool)), (&before, &before), "a look changes nothing");
            let answer = acquire(NOW, &mut pool, &ask(&nth.to_string(), &all)).unwrap();
            prop_assert_eq!(&answer.open, &open(&pool));
            let granted = matches!(answer.answer, Answer::Granted(_));
            prop_assert_eq!(granted, !full);
            prop_assert_eq!((looked.index, matches!(looked.answer, Answer::Granted(_))), (answer.index, granted));
            if granted {
                under_way.push((nth.to_string(), answer.index));
            }
            prop_assert!(open(&pool).iter().zip(&caps).all(|(open, cap)| open <= cap));
        }
    }
}
