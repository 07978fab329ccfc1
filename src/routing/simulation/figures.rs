//! What `docs/routing-weights.md` tells of a run.

use super::world::{FLAPPING, Log, MODELS, OUTAGE};
use super::{share, spread};

/// The spans in which all is well and has been for a while, in seconds.
pub(super) const CALM: [(usize, usize); 3] = [(40, 95), (158, 178), (320, super::SECONDS)];

/// How far from its average a weight is at most that has settled, in permille.
const NEAR: u64 = 50;

/// By how much the weights, and the shares of requests over five seconds, of any model swing in a span, and by how much the
/// shares in its halves differ; in permille.
pub(super) fn swings(log: &Log, (from, to): (usize, usize)) -> [u64; 3] {
    let half = from.midpoint(to);
    let each = (0..MODELS.len()).map(|model| {
        [
            spread(log.weights[from..to].iter().map(|second| second[model])),
            spread((from..to - 4).step_by(5).map(|start| share(log, model, start, start + 5))),
            share(log, model, from, half).abs_diff(share(log, model, half, to)),
        ]
    });
    each.fold([0; 3], |most, swings| std::array::from_fn(|nth| most[nth].max(swings[nth])))
}

/// Writes down what came of a run.
pub(super) fn tell(seed: u64, log: &Log) {
    let at = |second: u64| usize::try_from(second).unwrap();
    let (down, up) = (at(OUTAGE.0), at(OUTAGE.1));
    let sum = |counts: &[[u64; 3]], model: usize| counts.iter().map(|second| second[model]).sum::<u64>();
    let swings = CALM.map(|span| swings(log, span));
    let most: [u64; 3] = std::array::from_fn(|nth| swings.iter().map(|each| each[nth]).max().unwrap());
    // From when on no weight is further than this from what it will be on average.
    let near = |model: usize| {
        let known: Vec<u64> = log.weights[CALM[0].0..CALM[0].1].iter().map(|second| second[model]).collect();
        let mean = known.iter().sum::<u64>() / known.len() as u64;
        log.weights[..CALM[0].1]
            .iter()
            .rposition(|second| second[model].abs_diff(mean) > NEAR)
            .map_or(0, |last| last + 1)
    };
    let settled = (0..MODELS.len()).map(near).max().unwrap();
    let closed = |model: usize, since: u64| {
        log.closed
            .iter()
            .rfind(|(which, at)| *which == model && *at >= since * 1_000 && *at < (since + 60) * 1_000)
            .unwrap()
            .1
            - since * 1_000
    };
    let asked = sum(&log.attempts[down..up], 0) - sum(&log.trials[down..up], 0);
    let flapping = at(FLAPPING.0)..at(FLAPPING.1);
    println!(
        "seed {seed}: settled after {settled} s; swings of weights, shares, halves {most:?} permille; outage: {asked} attempts in {} ms, \
         then {} trials, {} at a time; closed {} ms after its end; flapping: {} failed of {}, closed {} ms after its end; {} of {} unanswered",
        log.unaware_at - OUTAGE.0 * 1_000,
        sum(&log.trials[down..up], 0),
        log.most_trials,
        closed(0, OUTAGE.1),
        sum(&log.failed[flapping.clone()], 1),
        log.attempts[flapping].iter().flatten().sum::<u64>(),
        closed(1, FLAPPING.1),
        log.unanswered,
        log.requests,
    );
}
