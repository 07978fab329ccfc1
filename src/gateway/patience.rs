//! How long a reply may take. Pure: the shell asks how long to wait next, and waits.

use crate::config::Timeouts;
use crate::protocol::chat::ReplyFault;

/// The time bounds of one upstream request. All times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    started: u64,
    first_byte: u64,
    idle: u64,
    total: u64,
}

impl Patience {
    /// Bounds for a request that starts now. The caller's own patience shortens the waits for the next byte: beyond it
    /// nobody is there to read the answer. `given` is the most time that the caller gives the whole reply.
    pub fn new(timeouts: Timeouts, stream: bool, caller: Option<u64>, given: Option<u64>, now: u64) -> Self {
        let caller = caller.unwrap_or(u64::MAX);
        let total = timeouts.total_ms.min(given.unwrap_or(u64::MAX));
        Self {
            started: now,
            // An unstreamed reply comes all at once, when it is complete.
            first_byte: if stream { timeouts.first_byte_ms } else { total }.min(caller),
            idle: timeouts.idle_ms.min(caller),
            total,
        }
    }

    /// The same, with no more than so long a wait for the first byte.
    #[must_use]
    pub fn with_first_byte(self, millis: u64) -> Self {
        Self { first_byte: self.first_byte.min(millis), ..self }
    }

    /// The same for a request whose body has been sent only now: the wait for the first byte begins.
    #[must_use]
    pub fn from_now(self, now: u64) -> Self {
        Self { first_byte: self.first_byte.saturating_add(now.saturating_sub(self.started)).min(self.total), ..self }
    }

    /// How long the whole reply may still take.
    pub fn left(&self, now: u64) -> u64 {
        self.total.saturating_sub(now.saturating_sub(self.started))
    }

    /// How long to wait for the next byte, and what is wrong if none comes. `last_byte` is when the last one came.
    pub fn next(&self, now: u64, last_byte: Option<u64>) -> (u64, ReplyFault) {
        let silence = match last_byte {
            None => self.first_byte.saturating_sub(now.saturating_sub(self.started)),
            Some(at) => self.idle.saturating_sub(now.saturating_sub(at)),
        };
        let left = self.left(now);
        if left < silence || (last_byte.is_none() && self.first_byte >= self.total) {
            return (left, ReplyFault::TooSlow { millis: self.total });
        }
        let bound = if last_byte.is_none() { self.first_byte } else { self.idle };
        (silence, ReplyFault::Stalled { millis: bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts { first_byte_ms: 100, idle_ms: 50, total_ms: 1000 };

    #[test]
    fn the_nearest_bound_counts() {
        let patience = Patience::new(TIMEOUTS, true, None, None, 10);
        assert_eq!(patience.next(10, None), (100, ReplyFault::Stalled { millis: 100 }));
        assert_eq!(patience.next(60, None), (50, ReplyFault::Stalled { millis: 100 }));
        assert_eq!(patience.next(500, Some(480)), (30, ReplyFault::Stalled { millis: 50 }));
        assert_eq!(patience.next(1000, Some(1000)), (10, ReplyFault::TooSlow { millis: 1000 }));
        assert_eq!(patience.next(5000, Some(1000)), (0, ReplyFault::Stalled { millis: 50 }));
    }

    #[test]
    fn the_wait_for_the_first_byte_begins_when_the_body_is_sent() {
        let patience = Patience::new(TIMEOUTS, true, None, None, 10).from_now(310);
        assert_eq!(patience.next(310, None), (100, ReplyFault::Stalled { millis: 400 }));
        assert_eq!(patience.from_now(990).next(990, None), (20, ReplyFault::TooSlow { millis: 1000 }));
    }

    #[test]
    fn an_unstreamed_reply_has_the_whole_time_unless_the_caller_waits_less() {
        let patience = Patience::new(TIMEOUTS, false, None, None, 0);
        assert_eq!(patience.next(0, None), (1000, ReplyFault::TooSlow { millis: 1000 }));
        let patience = Patience::new(TIMEOUTS, false, Some(300), None, 0);
        assert_eq!(patience.next(100, None), (200, ReplyFault::Stalled { millis: 300 }));
        assert_eq!(patience.with_first_byte(70).next(0, None), (70, ReplyFault::Stalled { millis: 70 }));
        let patience = Patience::new(TIMEOUTS, true, None, Some(80), 0);
        assert_eq!(patience.next(0, None), (80, ReplyFault::TooSlow { millis: 80 }));
        assert_eq!(Patience::new(TIMEOUTS, true, None, Some(99_999), 0), Patience::new(TIMEOUTS, true, None, None, 0));
    }
}
