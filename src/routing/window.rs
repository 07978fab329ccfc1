//! Two counts over a span of time that slides.

use serde::{Deserialize, Serialize};

/// Into how many parts the span is cut: what is counted is out of date by at most one of them.
const PARTS: u64 = 10;

/// Two counts over the last so many milliseconds. What the two are is its keeper's to know, and so is the span.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Window {
    /// When a part began, and what was counted in it; the oldest first.
    parts: Vec<(u64, u64, u64)>,
}

impl Window {
    /// Adds to the counts. Time that runs backwards is taken to stand still.
    pub fn add(&mut self, now: u64, span_ms: u64, first: u64, second: u64) {
        self.prune(now, span_ms);
        let width = span_ms.div_ceil(PARTS).max(1);
        match self.parts.last_mut().filter(|(start, ..)| now < start.saturating_add(width)) {
            Some((_, one, other)) => {
                *one = one.saturating_add(first);
                *other = other.saturating_add(second);
            }
            None => self.parts.push((now, first, second)),
        }
    }

    /// Both counts.
    pub fn sums(&self, now: u64, span_ms: u64) -> (u64, u64) {
        let counted = self.parts.iter().filter(|(start, ..)| start.saturating_add(span_ms) > now);
        counted.fold((0, 0), |sums, part| (sums.0.saturating_add(part.1), sums.1.saturating_add(part.2)))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.parts.clear();
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The same on a clock that shows `to` where this one shows `from`.
    pub(super) fn shift(&mut self, from: u64, to: u64) {
        for (start, ..) in &mut self.parts {
            *start = super::shifted(*start, from, to);
        }
    }

    fn prune(&mut self, now: u64, span_ms: u64) {
        self.parts.retain(|(start, ..)| start.saturating_add(span_ms) > now);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_are_those_of_the_span_give_or_take_a_tenth(
            events in proptest::collection::vec((0_u64..3_000, 0_u64..5, 0_u64..5), 1..100), later in 0_u64..15_000,
        ) {
            let (mut window, mut now, mut seen) = (Window::default(), 50_000, Vec::new());
            for (wait, first, second) in events {
                now += wait;
                window.add(now, 10_000, first, second);
                seen.push((now, first, second));
            }
            prop_assert!(window.parts.len() <= 10);
            now += later;
            let within = |span: u64| {
                let counted = seen.iter().filter(|(at, ..)| at + span > now);
                counted.fold((0, 0), |sums, one| (sums.0 + one.1, sums.1 + one.2))
            };
            let (found, least, most) = (window.sums(now, 10_000), within(9_000), within(10_000));
            prop_assert!(least.0 <= found.0 && found.0 <= most.0 && least.1 <= found.1 && found.1 <= most.1);
        }
    }
}
