//! How many further attempts there may be, so that an outage does not multiply the load.

use super::window::Window;
use crate::config::Routing;

/// The time that is looked back at, in milliseconds.
pub const SPAN_MS: u64 = 10_000;

/// How many further attempts there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// In per cent of the requests in [`SPAN_MS`].
    pub share_percent: u64,
    /// In [`SPAN_MS`], whatever the requests.
    pub floor: u64,
}

impl Allowance {
    /// As configured.
    pub fn of(routing: &Routing) -> Self {
        Self { share_percent: routing.retry_share_percent, floor: routing.retry_floor }
    }
}

/// What a route has sent lately, in one isolate: requests, and further attempts on their behalf.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    sent: Window,
}

impl Budget {
    /// Counts a request.
    pub fn request(&mut self, now: u64) {
        self.sent.add(now, SPAN_MS, 1, 0);
    }

    /// Counts a further attempt, if there may be one.
    pub fn retry(&mut self, now: u64, allowance: Allowance) -> bool {
        let (requests, retries) = self.sent.sums(now, SPAN_MS);
        let share = requests.saturating_mul(allowance.share_percent).div_euclid(100);
        let allowed = retries < share.max(allowance.floor);
        if allowed {
            self.sent.add(now, SPAN_MS, 0, 1);
        }
        allowed
    }
}
