//! How old what an isolate knows may be before it asks again.
//!
//! Requests share an isolate's memory but cannot wait for each other's questions, so each decides by itself; while what is
//! known may still be used, only one of them asks.

/// Bounds on the age of something known, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Younger than this it is used …
    pub fresh_ms: u64,
    /// … younger than this it is used while one request asks; at this age every request asks before it goes on.
    pub stale_ms: u64,
    /// How long the request that asks may take before another one does.
    pub patience_ms: u64,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Use what is known.
    Use,
    /// Use what is known, and ask: nobody else does.
    UseAndAsk,
    /// Ask before going on.
    Ask,
}

/// When something was learnt. Time is milliseconds on any one clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Freshness {
    known_at: Option<u64>,
    asking_since: Option<u64>,
}

impl Freshness {
    /// Decides what a request does.
    pub fn step(&mut self, now: u64, bounds: Bounds) -> Step {
        // Other requests' clocks may be ahead: what was learnt in the future is new.
        let age = self.known_at.map(|at| now.saturating_sub(at));
        match age {
            Some(age) if age < bounds.fresh_ms => Step::Use,
            Some(age) if age < bounds.stale_ms => {
                if self.asking_since.is_some_and(|since| now.saturating_sub(since) < bounds.patience_ms) {
                    return Step::Use;
                }
                self.asking_since = Some(now);
                Step::UseAndAsk
            }
            _ => Step::Ask,
        }
    }

    /// Whether an answer to a question asked at this time is news: questions may overtake each other.
    pub fn is_news(&self, asked_at: u64) -> bool {
        self.known_at.is_none_or(|at| asked_at >= at)
    }

    /// Notes an answer, or that there was none and what is known must do. It is as old as its question.
    pub fn learnt(&mut self, asked_at: u64) {
        self.known_at = Some(self.known_at.map_or(asked_at, |at| at.max(asked_at)));
        self.asking_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { fresh_ms: 1_000, stale_ms: 2_000, patience_ms: 1_500 };

    #[test]
    fn what_is_old_is_asked_for_once_and_what_is_too_old_by_everybody() {
        let mut known = Freshness::default();
        assert_eq!((known.step(0, BOUNDS), known.step(0, BOUNDS)), (Step::Ask, Step::Ask));
        known.learnt(0);
        assert_eq!(known.step(999, BOUNDS), Step::Use);
        assert_eq!((known.step(1_000, BOUNDS), known.step(1_500, BOUNDS)), (Step::UseAndAsk, Step::Use));
        assert_eq!((known.step(2_000, BOUNDS), known.step(2_000, BOUNDS)), (Step::Ask, Step::Ask));
        known.learnt(1_000);
        assert_eq!(known.step(1_999, BOUNDS), Step::Use);
    }

    #[test]
    fn a_question_that_was_never_answered_is_asked_again() {
        let bounds = Bounds { stale_ms: 10_000, ..BOUNDS };
        let mut known = Freshness::default();
        known.learnt(0);
        assert_eq!(known.step(1_000, bounds), Step::UseAndAsk);
        assert_eq!((known.step(2_499, bounds), known.step(2_500, bounds)), (Step::Use, Step::UseAndAsk));
    }

    #[test]
    fn an_answer_that_was_overtaken_is_no_news() {
        let mut known = Freshness::default();
        assert!(known.is_news(5));
        known.learnt(10);
        assert_eq!((known.is_news(9), known.is_news(10)), (false, true));
        known.learnt(9);
        assert_eq!(known.step(1_009, BOUNDS), Step::Use, "it did not become older");
    }

    proptest! {
        #[test]
        fn nothing_is_ever_used_that_is_too_old(
            times in proptest::collection::vec((0..5_000u64, any::<bool>()), 1..40), fresh in 0..1_000u64, stale in 0..1_000u64
        ) {
            let bounds = Bounds { fresh_ms: fresh, stale_ms: stale, patience_ms: 100 };
            let mut known = Freshness::default();
            let mut newest = None;
            let mut times = times;
            times.sort_unstable();
            for (now, answered) in times {
                let step = known.step(now, bounds);
                if step != Step::Ask {
                    let newest: u64 = newest.expect("something was learnt");
                    prop_assert!(now < newest.saturating_add(fresh.max(stale)), "{newest} at {now}");
                }
                if step != Step::Use && answered {
                    known.learnt(now);
                    newest = Some(now);
                }
            }
        }
    }
}
