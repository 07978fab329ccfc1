//! Closed, open, half-open: whether something that failed is left alone.
//!
//! An open breaker becomes half-open by the mere passing of time, so no state can be stuck. Only what was learned from a
//! request that began in the present state counts: a late report about the time before changes nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outcome::Fault;
use super::window::Window;
use super::{portion, shifted};
use crate::config::Breaker as Terms;

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Everything.
    #[default]
    Closed,
    /// Nothing.
    Open,
    /// A few trials.
    HalfOpen,
}

/// A breaker. Times are milliseconds on its keeper's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// Why and until when it is open; `None`: it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    opening: Option<Opening>,
    /// When it closed; `None`: it was never open.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_at: Option<u64>,
    /// How many times it has opened without having been closed for long.
    #[serde(skip_serializing_if = "is_zero")]
    times: u64,
    /// Faults in a row.
    #[serde(skip_serializing_if = "is_zero")]
    consecutive: u64,
    /// Successes and faults lately.
    #[serde(skip_serializing_if = "Window::is_empty")]
    window: Window,
}

/// Why and until when a breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Opening {
    at: u64,
    until: u64,
    fault: Fault,
    /// Successful trials in a row.
    successes: u64,
}

/// What has been learned from a request or a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// When the request began.
    pub began: u64,
    /// What went wrong.
    pub fault: Option<Fault>,
    /// Where it comes from.
    pub source: Source,
}

/// Where a piece of evidence comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A request.
    Request,
    /// A request that had a permit to try.
    Trial,
    /// The verdict of active probes, whose own thresholds are reached: a fault opens at once, and a success need not wait
    /// for the back-off to pass.
    Probe,
}

/// Something that a breaker, or what is around it, has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Breaker {
    /// What it lets through.
    pub fn state(&self, now: u64) -> State {
        match &self.opening {
            None => State::Closed,
            Some(opening) if now < opening.until => State::Open,
            Some(_) => State::HalfOpen,
        }
    }

    /// Since when it has not been closed, until when it lets nothing through, and why it opened.
    pub fn opening(&self) -> Option<(u64, u64, Fault)> {
        self.opening.map(|opening| (opening.at, opening.until, opening.fault))
    }

    /// When it closed after having been open.
    pub fn closed_at(&self) -> Option<u64> {
        self.closed_at.filter(|_| self.opening.is_none())
    }

    /// Faults in a row.
    pub fn consecutive(&self) -> u64 {
        self.consecutive
    }

    /// How many times it has opened without having been closed for long in between.
    pub fn times(&self) -> u64 {
        self.times
    }

    /// Which share of its load it should get, in permille: less for a while after it has closed.
    pub fn slow_start_permille(&self, now: u64, slow_start_ms: u64) -> u64 {
        let Some(passed) = self.closed_at().map(|at| now.saturating_sub(at)) else { return 1_000 };
        if passed >= slow_start_ms { 1_000 } else { portion(900, passed, slow_start_ms).saturating_add(100) }
    }

    /// Takes something in; tells if it has turned. `random` is any number, uniformly distributed.
    pub fn note(&mut self, now: u64, terms: &Terms, evidence: Evidence, random: u64) -> Option<Turned> {
        let from = self.state(now);
        let probe = evidence.source == Source::Probe;
        match (&mut self.opening, evidence.fault) {
            (None, fault) => {
                if evidence.began < self.closed_at.unwrap_or(0) {
                    return None;
                }
                self.window.add(now, terms.window_ms, u64::from(fault.is_none()), u64::from(fault.is_some()));
                let Some(fault) = fault else {
                    self.consecutive = 0;
                    return None;
                };
                self.consecutive = self.consecutive.saturating_add(1);
                if !(probe || fault == Fault::Auth || self.is_due(now, terms)) {
                    return None;
                }
                if self.closed_at.is_none_or(|at| now >= at.saturating_add(terms.max_open_ms)) {
                    self.times = 0;
                }
                self.open(now, terms, fault, random);
            }
            (Some(opening), None) => {
                let counts = match evidence.source {
                    Source::Request => evidence.began >= opening.until,
                    Source::Trial => evidence.began >= opening.at && now >= opening.until,
                    Source::Probe => evidence.began >= opening.at,
                };
                if !counts {
                    return None;
                }
                opening.until = opening.until.min(now);
                opening.successes = opening.successes.saturating_add(1);
                if opening.successes >= terms.trials {
                    self.close(now);
                }
            }
            (Some(opening), Some(fault)) => {
                let counts = match evidence.source {
                    Source::Request => evidence.began >= opening.until,
                    Source::Trial | Source::Probe => evidence.began >= opening.at && now >= opening.until,
                };
                if !counts {
                    return None;
                }
                self.open(now, terms, fault, random);
            }
        }
        let to = self.state(now);
        (from != to).then_some(Turned { from, to })
    }

    /// Closes it, whatever has been.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Without what need not survive.
    pub(super) fn lasting(&self) -> Self {
        Self { consecutive: 0, window: Window::default(), ..self.clone() }
    }

    /// The same on a clock that shows `to` where this one shows `from`.
    pub(super) fn shift(&mut self, from: u64, to: u64) {
        if let Some(opening) = &mut self.opening {
            opening.at = shifted(opening.at, from, to);
            opening.until = shifted(opening.until, from, to);
        }
        self.closed_at = self.closed_at.map(|at| shifted(at, from, to));
        self.window.shift(from, to);
    }

    fn is_due(&self, now: u64, terms: &Terms) -> bool {
        let (good, bad) = self.window.sums(now, terms.window_ms);
        let all = good.saturating_add(bad);
        self.consecutive >= terms.consecutive
            || (all >= terms.min_requests && bad.saturating_mul(100) >= all.saturating_mul(terms.failure_percent))
    }

    fn open(&mut self, now: u64, terms: &Terms, fault: Fault, random: u64) {
        let doublings = u32::try_from(self.times.min(32)).unwrap_or(32);
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        let wait = terms.open_ms.saturating_mul(factor).min(terms.max_open_ms);
        // A fifth more or less, so that not everybody tries again at the same time.
        let jitter = random.checked_rem(401).unwrap_or(0).saturating_add(800);
        let until = now.saturating_add(portion(wait, jitter, 1_000).max(1));
        self.opening = Some(Opening { at: now, until, fault, successes: 0 });
        self.times = self.times.saturating_add(1);
        self.consecutive = 0;
        self.window.clear();
    }

    fn close(&mut self, now: u64) {
        self.opening = None;
        self.closed_at = Some(now);
        self.consecutive = 0;
        self.window.clear();
    }
}

#[cfg(test)]
mod tests;
