//! The proof that weights settle and that a recovery is no stampede: twenty isolates, their gauge and three models, of which
//! one is slower, one fails more often, one is down for a while and one flaps. Latency grows with load, so that weights act
//! back on themselves. `docs/weights.svg` shows a run; `UPDATE_GENERATED=1` writes it anew.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers, and an overflow is a failure")]

mod figures;
mod plot;
mod world;

use figures::{CALM, swings};
use world::{FLAPPING, Log, MODELS, OUTAGE, SECONDS, World};

/// The difference between the least and the most of some numbers.
fn spread(numbers: impl Iterator<Item = u64> + Clone) -> u64 {
    numbers.clone().max().unwrap() - numbers.min().unwrap()
}

/// The share of a model in the requests of some seconds, in permille.
fn share(log: &Log, model: usize, from: usize, to: usize) -> u64 {
    let of = |model: usize| log.first[from..to].iter().map(|second| second[model]).sum::<u64>();
    of(model) * 1_000 / (0..MODELS.len()).map(of).sum::<u64>()
}

/// How many runs there are, each by other chances; fewer where they take long. `docs/routing-weights.md` tells of eight.
const SEEDS: u64 = if cfg!(debug_assertions) { 2 } else { 8 };

#[test]
fn weights_settle_and_a_recovery_is_no_stampede() {
    for seed in 1..=SEEDS {
        let log = World::new(seed).run();
        figures::tell(seed, &log);
        if seed == 1 {
            plot::check(&log);
        }
        let [fast, slow, shaky] = [0, 1, 2].map(|model| share(&log, model, 40, 95));
        assert!(fast > slow && fast > shaky && slow.min(shaky) > 150, "{fast} {slow} {shaky}");
        for span in CALM {
            // A swing that lasts would show as a difference of the first half and the second.
            let [weights, shares, halves] = swings(&log, span);
            assert!(
                weights <= 120 && shares <= 110 && halves <= 30,
                "from {} s: {weights}, {shares}, {halves}",
                span.0
            );
        }

        // The model that fails is out within the time of a report, and then gets trials alone.
        let (down, up) = (usize::try_from(OUTAGE.0).unwrap(), usize::try_from(OUTAGE.1).unwrap());
        let ordinary = |from: usize, to: usize| {
            log.attempts[from..to]
                .iter()
                .zip(&log.trials[from..to])
                .map(|(all, trials)| all[0] - trials[0])
                .sum::<u64>()
        };
        assert!(ordinary(down, down + 2) < 120, "{}", ordinary(down, down + 2));
        assert_eq!(ordinary(down + 2, up), 0);
        assert!(log.trials[down..up].iter().map(|second| second[0]).sum::<u64>() <= 9);
        assert!(log.most_trials <= 3, "{} trials at once", log.most_trials);

        // It comes back in steps: a tenth at first, and everything only after ten seconds.
        let closed = log.closed.iter().find(|(model, at)| *model == 0 && *at >= OUTAGE.1 * 1_000).unwrap().1;
        assert!(closed < (OUTAGE.1 + 45) * 1_000, "{closed}");
        let second = usize::try_from(closed / 1_000).unwrap();
        let usual = share(&log, 0, 60, 95);
        for passed in [1, 3, 5, 7] {
            let share = share(&log, 0, second + passed, second + passed + 2);
            let most = usual * (20 + 10 * passed as u64 + 15) / 100;
            assert!(share <= most, "{share} of {usual} after {passed} s");
        }
        assert!(share(&log, 0, second + 25, second + 35) * 10 >= usual * 9);

        // One that flaps is left alone for longer each time, and callers hardly notice.
        let (from, to) = (usize::try_from(FLAPPING.0).unwrap(), usize::try_from(FLAPPING.1).unwrap());
        let failed = log.failed[from..to].iter().map(|second| second[1]).sum::<u64>();
        assert!(failed <= 200, "{failed} of {}", log.first[from..to].iter().flatten().sum::<u64>());
        assert!(log.unanswered * 1_000 <= log.requests, "{} of {}", log.unanswered, log.requests);
    }
}
