//! How often each of several targets would come first, were the same request to come again and again while nothing else
//! changes. What is told of a choice that chance or turns have a part in.

use super::{Contestant, EXPLORED};

/// All requests, in the unit in which shares are told: millionths.
pub(in super::super) const WHOLE_PPM: u64 = 1_000_000;

/// A part of what is in millionths.
pub(in super::super) fn part(ppm: u64, of: u64) -> u64 {
    let product = u128::from(ppm).saturating_mul(u128::from(of)).div_euclid(u128::from(WHOLE_PPM));
    u64::try_from(product).unwrap_or(WHOLE_PPM)
}

/// One has all.
pub(super) fn all_to(first: Option<usize>, count: usize) -> Vec<u64> {
    (0..count).map(|at| if Some(at) == first { WHOLE_PPM } else { 0 }).collect()
}

/// To each as its weight says.
pub(super) fn proportional(contestants: &[Contestant<'_>], weight: impl Fn(&Contestant<'_>) -> u64) -> Vec<u64> {
    let all = contestants.iter().fold(0_u128, |all, it| all.saturating_add(u128::from(weight(it))));
    let share = |it: &Contestant<'_>| {
        let share = u128::from(weight(it)).saturating_mul(u128::from(WHOLE_PPM)).checked_div(all).unwrap_or(0);
        u64::try_from(share).unwrap_or(WHOLE_PPM)
    };
    contestants.iter().map(share).collect()
}

/// Of the better of two that are drawn by chance, where one in [`EXPLORED`] requests goes to any. `ranks` says which of the
/// contestants is the best, the second best and so on; a trial goes before all others.
pub(super) fn of_pairs(contestants: &[Contestant<'_>], ranks: &[usize]) -> Vec<u64> {
    let count = ranks.len() as u64;
    let pairs = count.saturating_mul(count.saturating_sub(1)).div_euclid(2);
    let any = WHOLE_PPM.checked_div(EXPLORED.saturating_mul(count)).unwrap_or(0);
    let rest = WHOLE_PPM.saturating_sub(any.saturating_mul(count));
    let is_trial = |at: &usize| contestants.get(*at).is_some_and(Contestant::is_trial);
    let trials = ranks.iter().filter(|at| is_trial(at)).count() as u64;
    let mut shares = vec![0; contestants.len()];
    let (mut better, mut better_trials) = (0_u64, 0_u64);
    for at in ranks {
        let below = count.saturating_sub(better).saturating_sub(1);
        let trials_below = trials.saturating_sub(better_trials);
        // Whom it beats when the two are drawn.
        let beats = if is_trial(at) {
            better_trials = better_trials.saturating_add(1);
            let ordinary = count.saturating_sub(trials);
            ordinary.saturating_add(trials_below.saturating_sub(1))
        } else {
            below.saturating_sub(trials_below)
        };
        better = better.saturating_add(1);
        let won = u128::from(rest).saturating_mul(u128::from(beats)).checked_div(u128::from(pairs)).unwrap_or(0);
        if let Some(share) = shares.get_mut(*at) {
            *share = any.saturating_add(u64::try_from(won).unwrap_or(0));
        }
    }
    shares
}
