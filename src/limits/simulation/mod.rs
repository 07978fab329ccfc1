//! The proof that limits hold: a simulated world of isolates, a network and a ledger, under an oracle that sees all.
//!
//! A schedule is drawn from a seed: rules of every kind, isolates with clocks that differ, callers, and a network that
//! delays, loses, repeats and reorders. Isolates and the ledger crash at any point, also between storing a change and
//! answering. What must hold whatever happens is written down in [`oracle`].
//!
//! `SIMULATION_SCHEDULES` says how many schedules to run, `SIMULATION_SEED` from which seed on; a failure names the seed
//! that reproduces it. `scripts/simulate` runs many in an optimised build.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers, and an overflow is a failure")]

mod ledger;
mod oracle;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What happens by chance.
pub(super) struct Random(crate::seeded::Random);

impl Random {
    fn new(seed: u64) -> Self {
        Self(crate::seeded::Random::new(seed))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A number from `from` to `to`.
    fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// How often something happened: evidence that schedules go everywhere.
#[derive(Debug, Default)]
struct Seen(BTreeMap<&'static str, u64>);

/// What must have happened.
const EVERYTHING: [&str; 16] = [
    "compared",
    "denied",
    "expired",
    "folded",
    "granted",
    "isolate_crashes",
    "kept",
    "late",
    "leased",
    "leases",
    "ledger_crashes",
    "moved",
    "repeated",
    "returned",
    "shadowed",
    "unanswered",
];

impl Seen {
    fn count(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, times)| self.count(what, *times));
    }

    fn is_everything(&self) -> bool {
        EVERYTHING.iter().all(|what| self.0.get(what).is_some_and(|times| *times > 0))
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[test]
fn limits_hold_whatever_happens() {
    let first = from_environment("SIMULATION_SEED").unwrap_or(1);
    let schedules = from_environment("SIMULATION_SCHEDULES").unwrap_or(1_000);
    let began = Instant::now();
    let mut seen = Seen::default();
    for seed in first..first + schedules {
        let run = catch_unwind(AssertUnwindSafe(|| world::run(seed)));
        seen.add(&run.unwrap_or_else(|_| panic!("seed {seed} fails: SIMULATION_SEED={seed} SIMULATION_SCHEDULES=1")));
        let done = seed - first + 1;
        if done.is_multiple_of(50_000) {
            println!("{done} schedules in {} s: {seen:?}", began.elapsed().as_secs());
        }
    }
    println!("{schedules} schedules from seed {first} in {} ms: {seen:?}", began.elapsed().as_millis());
    // A world in which nothing happens proves nothing.
    if schedules >= 1_000 {
        assert!(seen.is_everything(), "{seen:?}");
    }
}
