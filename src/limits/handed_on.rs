//! When batches that were handed on may be forgotten.
//!
//! An object is often put away and read in again, and then still has to know how long ago a batch was handed on: what began
//! to count anew each time would never be over. So the times are stored, as marks that many batches share: a mark is good
//! for all batches up to its own that no earlier mark is good for.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How long batches that were handed on are remembered at least, in milliseconds. A sender gives up long before.
const REMEMBER_MS: u64 = 120_000;

/// Batches that are handed on within the same so many milliseconds are forgotten together.
const TOGETHER_MS: u64 = 10_000;

/// Batches that were handed on and are still remembered: the last of those that share a mark, and until when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOn(VecDeque<(u64, u64)>);

impl HandedOn {
    /// As it was stored; `applied` is the last batch that was handed on. It belongs to the last mark, which is stored when
    /// it is made and not with each batch that joins it.
    pub fn restore(mut self, applied: u64) -> Self {
        if let Some((batch, _)) = self.0.back_mut() {
            *batch = (*batch).max(applied);
        }
        self
    }

    /// Whether no batch is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A batch has been handed on. Whether that has made a mark, which is to be stored.
    #[must_use]
    pub fn add(&mut self, batch: u64, now: u64) -> bool {
        let until = (now / TOGETHER_MS).saturating_add(1).saturating_mul(TOGETHER_MS).saturating_add(REMEMBER_MS);
        match self.0.back_mut() {
            Some((last, mark)) if *mark >= until => {
                *last = batch;
                false
            }
            _ => {
                self.0.push_back((batch, until));
                true
            }
        }
    }

    /// When something may be forgotten.
    pub fn next(&self) -> Option<u64> {
        self.0.front().map(|(_, until)| *until)
    }

    /// Up to which batch everything may be forgotten; it is asked once.
    pub fn due(&mut self, now: u64) -> Option<u64> {
        let mut up_to = None;
        while self.0.front().is_some_and(|(_, until)| *until <= now) {
            up_to = self.0.pop_front().map(|(batch, _)| batch);
        }
        up_to
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn batches_of_the_same_ten_seconds_share_a_mark() {
        let mut handed_on = HandedOn::default();
        assert!(
            handed_on.is_empty() && handed_on.add(1, 1_000) && !handed_on.add(2, 9_999) && handed_on.add(3, 10_000)
        );
        assert!(!handed_on.add(4, 5_000), "time does not go back");
        assert_eq!((handed_on.next(), handed_on.due(129_999)), (Some(130_000), None));
        assert_eq!((handed_on.due(130_000), handed_on.next()), (Some(2), Some(140_000)));
        assert_eq!((handed_on.due(500_000), handed_on.next()), (Some(4), None));
    }

    proptest! {
        #[test]
        fn every_batch_is_forgotten_in_time_however_often_it_is_read_in_again(
            steps in proptest::collection::vec((0..40_000u64, any::<bool>()), 1..60),
        ) {
            let (mut handed_on, mut stored) = (HandedOn::default(), HandedOn::default());
            let (mut now, mut forgotten) = (0, 0);
            let mut times: Vec<u64> = Vec::new();
            for (pause, read_again) in steps {
                now += pause;
                if read_again {
                    handed_on = stored.clone().restore(times.len() as u64);
                }
                if let Some(up_to) = handed_on.due(now) {
                    prop_assert!(times.iter().take(usize::try_from(up_to)?).all(|at| at + REMEMBER_MS <= now));
                    forgotten = up_to;
                    stored = handed_on.clone();
                }
                let kept = times.iter().skip(usize::try_from(forgotten)?);
                prop_assert!(kept.into_iter().all(|at| at + REMEMBER_MS + TOGETHER_MS > now));
                times.push(now);
                if handed_on.add(times.len() as u64, now) {
                    stored = handed_on.clone();
                }
            }
        }
    }
}
