//! A token bucket: so much at once, and so much again with time.
//!
//! What has arrived drains at the rate; what has not drained yet is the level, and the level may never exceed the burst.
//! So in any stretch of time at most the burst and what drains meanwhile is admitted. Drained is counted in parts of a
//! token, as many as the period has milliseconds, and nothing is ever rounded.
//!
//! A new rate counts from the last event on, and nobody can have used more of it than the burst meanwhile.
//!
//! What a request did not use after all is given back, but only as far as it has not drained: the level would otherwise
//! sink below what it had been without the request. Drained is taken to be who came first.

use serde::{Deserialize, Serialize};

use super::window::Until;

/// How full a bucket is. Burst and rate are its keeper's to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64, u64, u64)", into = "(u64, u64, u64, u64, u64)")]
pub struct Bucket {
    /// All that has ever arrived.
    arrived: u64,
    /// What of it has drained: whole tokens, and parts of one.
    drained: (u64, u64),
    /// When that was.
    at: u64,
    /// How much drained in a period until then.
    rate: u64,
}

impl From<(u64, u64, u64, u64, u64)> for Bucket {
    fn from((arrived, whole, parts, at, rate): (u64, u64, u64, u64, u64)) -> Self {
        Self { arrived, drained: (whole, parts), at, rate }
    }
}

impl From<Bucket> for (u64, u64, u64, u64, u64) {
    fn from(bucket: Bucket) -> Self {
        (bucket.arrived, bucket.drained.0, bucket.drained.1, bucket.at, bucket.rate)
    }
}

/// What a bucket is ruled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// How much drains in a period.
    pub rate: u64,
    /// The period in milliseconds.
    pub period_ms: u64,
}

impl Flow {
    fn parts(&self, tokens: u64) -> u128 {
        u128::from(tokens).saturating_mul(u128::from(self.period_ms))
    }
}

impl Bucket {
    /// How much is in it at a time, rounded up to whole tokens.
    pub fn used(&self, flow: Flow, now: u64) -> u64 {
        u64::try_from(self.level(flow, now).div_ceil(u128::from(flow.period_ms.max(1)))).unwrap_or(u64::MAX)
    }

    /// Whether so much more fits under the burst, or from when on it does.
    ///
    /// # Errors
    /// The first millisecond at which there is room, if nothing else is added until then.
    pub fn room(&self, flow: Flow, now: u64, burst: u64, asked: u64) -> Result<(), Until> {
        if flow.rate == 0 || asked > burst {
            return Err(None);
        }
        let over = self.level(flow, now).saturating_sub(flow.parts(burst.saturating_sub(asked)));
        if over == 0 { Ok(()) } else { Err(Some(self.drained_at(flow, now, over))) }
    }

    /// From when on it is empty.
    pub fn empty_at(&self, flow: Flow, now: u64) -> u64 {
        self.drained_at(flow, now, self.level(flow, now))
    }

    /// Puts something in: the place that it has in the order of what arrived.
    pub fn add(&mut self, flow: Flow, now: u64, amount: u64) -> u64 {
        self.flow_until(flow, now);
        self.arrived = self.arrived.saturating_add(amount);
        self.arrived
    }

    /// What was put in at a place turns out to be something else.
    pub fn adjust(&mut self, flow: Flow, now: u64, place: u64, from: u64, to: u64) {
        self.flow_until(flow, now);
        self.arrived = self.arrived.saturating_add(to.saturating_sub(from));
        let left = flow.parts(place).saturating_sub(self.drained(flow)).min(flow.parts(from));
        let back = left.min(flow.parts(from.saturating_sub(to)));
        self.drain(flow, back);
    }

    /// How much drained in a period when it was last changed.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    fn drained_at(&self, flow: Flow, now: u64, parts: u128) -> u64 {
        let wait = parts.checked_div(u128::from(flow.rate)).map_or(u128::from(u64::MAX), |whole| {
            whole.saturating_add(u128::from(!parts.is_multiple_of(u128::from(flow.rate))))
        });
        now.max(self.at).saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    fn drained(&self, flow: Flow) -> u128 {
        flow.parts(self.drained.0).saturating_add(u128::from(self.drained.1))
    }

    /// What has not drained, in parts.
    fn level(&self, flow: Flow, now: u64) -> u128 {
        let drains = u128::from(flow.rate).saturating_mul(u128::from(now.saturating_sub(self.at)));
        flow.parts(self.arrived).saturating_sub(self.drained(flow)).saturating_sub(drains)
    }

    fn flow_until(&mut self, flow: Flow, now: u64) {
        let drained = flow.parts(self.arrived).saturating_sub(self.level(flow, now));
        let drains = drained.saturating_sub(self.drained(flow));
        self.drain(flow, drains);
        self.at = self.at.max(now);
        self.rate = flow.rate;
    }

    fn drain(&mut self, flow: Flow, parts: u128) {
        let drained = self.drained(flow).saturating_add(parts);
        let period = u128::from(flow.period_ms.max(1));
        let whole = drained.checked_div(period).unwrap_or(0);
        let rest = drained.checked_rem(period).unwrap_or(0);
        self.drained = (u64::try_from(whole).unwrap_or(u64::MAX), u64::try_from(rest).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

    use super::*;
    use proptest::prelude::*;

    const FLOW: Flow = Flow { rate: 7, period_ms: 1_000 };

    #[test]
    fn a_full_bucket_drains_at_its_rate() {
        let mut bucket = Bucket::default();
        bucket.add(FLOW, 5_000, 10);
        assert_eq!((bucket.used(FLOW, 5_000), bucket.used(FLOW, 5_001), bucket.used(FLOW, 6_000)), (10, 10, 3));
        assert_eq!(bucket.room(FLOW, 5_000, 10, 1), Err(Some(5_143)));
        assert_eq!((bucket.room(FLOW, 5_142, 10, 1), bucket.room(FLOW, 5_143, 10, 1)), (Err(Some(5_143)), Ok(())));
        assert_eq!(bucket.empty_at(FLOW, 5_000), 6_429);
        assert_eq!(bucket.room(FLOW, 5_000, 10, 11), Err(None));
        assert_eq!(bucket.room(Flow { rate: 0, ..FLOW }, 5_000, 10, 1), Err(None));
        assert_eq!(bucket.used(FLOW, 0), 10, "time does not run backwards");
    }

    #[test]
    fn nothing_is_given_back_that_has_drained() {
        let mut bucket = Bucket::default();
        let first = bucket.add(FLOW, 0, 10);
        let second = bucket.add(FLOW, 2_000, 10);
        bucket.adjust(FLOW, 2_000, first, 10, 0);
        assert_eq!(bucket.used(FLOW, 2_000), 10);
        bucket.adjust(FLOW, 3_000, second, 10, 2);
        assert_eq!(bucket.used(FLOW, 3_000), 0);
        bucket.adjust(FLOW, 3_000, second, 2, 9);
        assert_eq!(bucket.used(FLOW, 3_000), 7, "what was used beyond the reservation is added");
    }

    proptest! {
        /// Whatever is given back: what was admitted and used in any stretch of time is at most the burst and what drains.
        #[test]
        fn no_stretch_of_time_holds_more_than_burst_and_rate_allow(
            burst in 1..30_u64,
            asks in proptest::collection::vec((0..900_u64, 1..20_u64, 0..20_u64, 0..5_usize), 1..60),
        ) {
            let (mut bucket, mut now) = (Bucket::default(), 0);
            let mut events: Vec<(u64, u64, u64, u64)> = Vec::new();
            for (wait, asked, actual, settled) in asks {
                now += wait;
                match bucket.room(FLOW, now, burst, asked) {
                    Ok(()) => events.push((now, asked, actual.min(asked), bucket.add(FLOW, now, asked))),
                    Err(until) => {
                        prop_assert_eq!(until.is_none(), asked > burst);
                        if let Some(until) = until {
                            prop_assert!(until > now && bucket.room(FLOW, until, burst, asked).is_ok());
                            prop_assert_eq!(bucket.room(FLOW, until - 1, burst, asked), Err(Some(until)));
                        }
                    }
                }
                if let Some((_, reserved, actual, place)) = events.iter_mut().rev().nth(settled) {
                    bucket.adjust(FLOW, now, *place, *reserved, *actual);
                    *reserved = *actual;
                }
                bucket = serde_json::from_str(&serde_json::to_string(&bucket).unwrap()).unwrap();
            }
            for (nth, (from, ..)) in events.iter().enumerate() {
                let mut sum = 0;
                for (at, used, ..) in &events[nth..] {
                    sum += used;
                    prop_assert!(sum * 1_000 <= burst * 1_000 + FLOW.rate * (at - from));
                }
            }
        }

        #[test]
        fn a_bucket_that_gives_nothing_back_allows_all_that_it_may(
            burst in 1..30_u64, asks in proptest::collection::vec((0..900_u64, 1..20_u64), 1..60),
        ) {
            let (mut bucket, mut now, mut level) = (Bucket::default(), 0, 0_u64);
            for (wait, asked) in asks {
                now += wait;
                level = level.saturating_sub(wait * FLOW.rate);
                let fits = level + asked * 1_000 <= burst * 1_000;
                prop_assert_eq!(bucket.room(FLOW, now, burst, asked).is_ok(), fits);
                if fits {
                    bucket.add(FLOW, now, asked);
                    level += asked * 1_000;
                }
            }
        }
    }
}
