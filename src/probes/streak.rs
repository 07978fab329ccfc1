//! When a probe is due, and what follows from several of them.

use crate::config::HealthProbe;

/// What follows from the last probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Enough have succeeded: the provider may get requests.
    Healthy,
    /// Enough have failed: it should not get any.
    Unhealthy,
    /// Not enough agree.
    Unclear,
}

/// Whether a provider is probed in this minute (Unix minutes). Not all are in the same one.
pub fn is_due(provider: &str, probe: &HealthProbe, minute: u64) -> bool {
    let interval = probe.interval_seconds.div_ceil(60).max(1);
    let offset = provider.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    minute.wrapping_add(offset).checked_rem(interval) == Some(0)
}

/// How many results must be known, the newest included.
pub fn needed(probe: &HealthProbe) -> u64 {
    probe.unhealthy_after.max(probe.healthy_after)
}

/// What follows from results, the newest first.
pub fn verdict(probe: &HealthProbe, results: &[bool]) -> Verdict {
    let all = |wanted: bool, number: u64| {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        results.get(..number).is_some_and(|last| last.iter().all(|healthy| *healthy == wanted))
    };
    if all(true, probe.healthy_after) {
        Verdict::Healthy
    } else if all(false, probe.unhealthy_after) {
        Verdict::Unhealthy
    } else {
        Verdict::Unclear
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_enough_results_in_a_row() {
        let probe = HealthProbe { unhealthy_after: 3, healthy_after: 2, ..HealthProbe::default() };
        assert_eq!(needed(&probe), 3);
        for (results, expected) in [
            (&[][..], Verdict::Unclear),
            (&[true], Verdict::Unclear),
            (&[true, true], Verdict::Healthy),
            (&[true, true, false], Verdict::Healthy),
            (&[true, false, true], Verdict::Unclear),
            (&[false, false], Verdict::Unclear),
            (&[false, false, false], Verdict::Unhealthy),
            (&[false, false, true, false], Verdict::Unclear),
        ] {
            assert_eq!(verdict(&probe, results), expected, "{results:?}");
        }
    }

    #[test]
    fn a_probe_is_due_once_in_its_interval_of_whole_minutes() {
        for (seconds, times) in [(60, 120), (61, 60), (120, 60), (600, 12), (3_600, 2)] {
            let probe = HealthProbe { interval_seconds: seconds, ..HealthProbe::default() };
            for provider in ["a", "openai", "some other one"] {
                let due = (1_000..1_120).filter(|minute| is_due(provider, &probe, *minute)).count();
                assert_eq!(due, times, "{provider} every {seconds} s");
            }
        }
    }
}
