//! A sliding window: how much was used in the last second, minute or hour.
//!
//! The window is a short list of stamps and amounts, and a stamp counts until a whole period after it. What differs is
//! how exactly an event is stamped. While requests are limited to few, each has its own millisecond, and the window is
//! an exact log. Otherwise a period is cut into [`SLOTS`] and all events of a slot are stamped with its last millisecond:
//! they count up to one slot longer than they should, never shorter. So there is never more than the amount in *any*
//! window, and at most what one slot held is refused that could have been allowed.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Slots in a period.
pub const SLOTS: u64 = 64;

/// The largest limit on requests that is counted by an exact log.
pub const EXACT_UP_TO: u64 = 1_000;

/// Events in an exact log at most; beyond, events are stamped by slot. Only what is not refused can be so many.
const LOG_ENTRIES: usize = 1_024;

/// After how long there is room, in Unix milliseconds; `None` for never.
pub type Until = Option<u64>;

/// How much was used when. The length of the period is its keeper's to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Window {
    /// Stamps and amounts; later stamps come later.
    entries: VecDeque<(u64, u64)>,
    sum: u64,
}

impl From<Vec<(u64, u64)>> for Window {
    fn from(entries: Vec<(u64, u64)>) -> Self {
        let mut window = Self::default();
        for (stamp, amount) in entries {
            window.add(stamp, amount);
        }
        window
    }
}

impl From<Window> for Vec<(u64, u64)> {
    fn from(window: Window) -> Self {
        window.entries.into()
    }
}

impl Window {
    /// How an event is stamped. `exact`: if there is room for it in the log.
    pub fn stamp(&self, period_ms: u64, at: u64, exact: bool) -> u64 {
        if exact && self.entries.len() < LOG_ENTRIES {
            return at;
        }
        let slot = period_ms.div_ceil(SLOTS).max(1);
        let next = at.checked_div(slot).unwrap_or(at).saturating_add(1).saturating_mul(slot);
        next.saturating_sub(1)
    }

    /// How much counts at a time.
    pub fn used(&self, period_ms: u64, now: u64) -> u64 {
        let gone = self.entries.iter().take_while(|(stamp, _)| stamp.saturating_add(period_ms) <= now);
        gone.fold(self.sum, |sum, (_, amount)| sum.saturating_sub(*amount))
    }

    /// Whether so much more fits under a limit, or from when on it does.
    ///
    /// # Errors
    /// The first millisecond at which there is room, if nothing else is added until then.
    pub fn room(&self, period_ms: u64, now: u64, limit: u64, asked: u64) -> Result<(), Until> {
        if limit == 0 || asked > limit {
            return Err(None);
        }
        let most = limit.saturating_sub(asked);
        let mut used = self.sum;
        let mut until = now;
        let mut entries = self.entries.iter();
        loop {
            if used <= most && until <= now {
                return Ok(());
            } else if used <= most {
                return Err(Some(until));
            }
            let Some((stamp, amount)) = entries.next() else { return Ok(()) };
            used = used.saturating_sub(*amount);
            until = stamp.saturating_add(period_ms);
        }
    }

    /// From when on nothing counts any more.
    pub fn empty_at(&self, period_ms: u64) -> u64 {
        self.entries.back().map_or(0, |(stamp, _)| stamp.saturating_add(period_ms))
    }

    /// Counts something.
    pub fn add(&mut self, stamp: u64, amount: u64) {
        self.adjust(stamp, 0, amount);
    }

    /// What was counted with a stamp turns out to be something else.
    pub fn adjust(&mut self, stamp: u64, from: u64, to: u64) {
        if from == to {
            return;
        }
        let after = self.entries.iter().rev().take_while(|(other, _)| *other > stamp).count();
        let place = self.entries.len().saturating_sub(after);
        let same = place.checked_sub(1).and_then(|place| self.entries.get_mut(place));
        let Some((_, amount)) = same.filter(|(other, _)| *other == stamp) else {
            // What is not there any more counts no more.
            let amount = to.saturating_sub(from);
            if amount > 0 {
                self.entries.insert(place, (stamp, amount));
                self.sum = self.sum.saturating_add(amount);
            }
            return;
        };
        let before = *amount;
        *amount = amount.saturating_sub(from).saturating_add(to);
        self.sum = self.sum.saturating_sub(before).saturating_add(*amount);
        if *amount == 0 {
            self.entries.remove(place.saturating_sub(1));
        }
    }

    /// Forgets what does not count from now on.
    pub fn prune(&mut self, period_ms: u64, now: u64) {
        while let Some((stamp, amount)) = self.entries.front()
            && stamp.saturating_add(period_ms) <= now
        {
            self.sum = self.sum.saturating_sub(*amount);
            self.entries.pop_front();
        }
    }

    /// Whether it counts nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
