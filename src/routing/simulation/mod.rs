//! The proof that weights settle and that a recovery is no stampede: twenty isolates, their gauge and three models, of which
//! one is slower, one fails more often, one is down for a while and one flaps. Latency grows with load, so that weights act
//! back on themselves. `docs/weights.svg` shows a run; `UPDATE_GENERATED=1` writes it anew.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers, and an overflow is a failure")]

mod plot;
mod world;

use world::{FLAPPING, Log, MODELS, OUTAGE, SECONDS, World};

/// The least and the most of some numbers, and the difference.
fn spread(numbers: impl Iterator<Item = u64> + Clone) -> (u64, u64, u64) {
    let (least, most) = (numbers.clone().min().unwrap(), numbers.max().unwrap());
    (least, most, most - least)
}

/// The share of a model in the requests of some seconds, in permille.
fn share(log: &Log, model: usize, from: usize, to: usize) -> u64 {
    let of = |model: usize| log.first[from..to].iter().map(|second| second[model]).sum::<u64>();
    of(model) * 1_000 / (0..MODELS.len()).map(of).sum::<u64>()
}

/// Effective weights and shares swing by less than this around what they settle at.
fn assert_settled(log: &Log, from: usize, to: usize) {
    for (model, known) in MODELS.iter().enumerate() {
        let weights = spread(log.weights[from..to].iter().map(|second| second[model]));
        assert!(weights.2 <= 120, "{} from {from} s: weights {weights:?}", known.name);
        let shares = spread((from..to - 4).step_by(5).map(|start| share(log, model, start, start + 5)));
        assert!(shares.2 <= 110, "{} from {from} s: shares {shares:?}", known.name);
        // A swing that lasts would show as a difference of the first half and the second.
        let half = from.midpoint(to);
        let drift = share(log, model, from, half).abs_diff(share(log, model, half, to));
        assert!(drift <= 30, "{} from {from} s: drifts by {drift}", known.name);
    }
}

#[test]
fn weights_settle_and_a_recovery_is_no_stampede() {
    for seed in 1..=2 {
        let log = World::new(seed).run();
        if seed == 1 {
            plot::check(&log);
        }
        let [fast, slow, shaky] = [0, 1, 2].map(|model| share(&log, model, 40, 95));
        assert!(fast > slow && fast > shaky && slow.min(shaky) > 150, "{fast} {slow} {shaky}");
        assert_settled(&log, 40, 95);
        assert_settled(&log, 158, 178);
        assert_settled(&log, 320, SECONDS);

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
