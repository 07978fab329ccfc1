//! What is done about an attempt that failed: the next target, the same one after a pause, or nothing.
//!
//! Nothing here knows whether a byte has reached the caller: whoever has sent one does not ask.

use std::fmt;

use super::budget::{Allowance, Budget};
use super::outcome::Fault;
use crate::config::{Config, ContentPolicy, Routing};

/// What may be done about attempts that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Attempts that a request may take, the first one included.
    pub max_attempts: u64,
    /// What is tried again.
    pub retry_on: Vec<Fault>,
    /// Whether a request that was refused for its content is tried elsewhere.
    pub content_policy: ContentPolicy,
    /// The longest pause before the first further attempt on the same target, in milliseconds.
    pub backoff_ms: u64,
    /// The longest pause at all, in milliseconds.
    pub max_backoff_ms: u64,
    /// The longest that a provider can ask to wait, in milliseconds.
    pub max_wait_ms: u64,
    /// How many further attempts all requests together may take.
    pub allowance: Allowance,
}

impl Policy {
    /// What may be done for a request for a model or a route: what the route says, above what is said of all.
    pub fn of(config: &Config, name: &str) -> Self {
        let retry = config.routes.get(name).and_then(|route| route.retry.as_ref());
        let (most, faults) = retry.map_or((None, None), |retry| (retry.max_attempts, retry.retry_on.as_deref()));
        Self::new(&config.routing, most, faults)
    }

    /// As configured; `max_attempts` and `retry_on` are what the route says differently.
    pub fn new(routing: &Routing, max_attempts: Option<u64>, retry_on: Option<&[Fault]>) -> Self {
        Self {
            max_attempts: max_attempts.unwrap_or(routing.max_attempts),
            retry_on: retry_on.unwrap_or(&routing.retry_on).to_vec(),
            content_policy: routing.content_policy,
            backoff_ms: routing.backoff_ms,
            max_backoff_ms: routing.max_backoff_ms,
            max_wait_ms: routing.max_wait_ms,
            allowance: Allowance::of(routing),
        }
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// How.
    pub fault: Fault,
    /// How long the provider asks to wait, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Whether another candidate is left that is worth trying after this fault: after [`Fault::ContextLength`] one with
    /// a larger context, after [`Fault::ContentPolicy`] one at another provider.
    pub others: bool,
    /// Whether the route names those others for just this fault: then they are tried whatever else is said of it.
    pub named: bool,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The same candidate again.
    Same {
        /// After so many milliseconds.
        wait_ms: u64,
    },
    /// The next candidate that is worth trying, at once.
    Other,
    /// Nothing: the caller gets the fault.
    Stop(Why),
}

/// Why nothing more is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Another attempt cannot help, or is not wanted after this fault.
    Final,
    /// All attempts are used up.
    Attempts,
    /// No candidate is left, and the one that failed is not to be tried again.
    Candidates,
    /// The provider asks to wait longer than a request may.
    TooLong,
    /// The caller's time would be over.
    Deadline,
    /// The route has made too many further attempts lately.
    Budget,
}

impl Why {
    /// Its name, as records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Attempts => "attempts",
            Self::Candidates => "candidates",
            Self::TooLong => "too_long",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Final => "another attempt would not help",
            Self::Attempts => "all attempts are used up",
            Self::Candidates => "no target is left",
            Self::TooLong => "the provider asks to wait too long",
            Self::Deadline => "the caller's time would be over",
            Self::Budget => "the route's budget of further attempts is used up",
        })
    }
}

/// The attempts of one request.
#[derive(Debug, Clone)]
pub struct Attempts {
    policy: Policy,
    deadline_at: Option<u64>,
    /// How many have been made.
    made: u64,
    /// How many of them, at the end, on the same candidate.
    on_same: u32,
}

impl Attempts {
    /// The first attempt is about to be made. `deadline_at`: when the caller's time is over.
    pub fn new(policy: Policy, deadline_at: Option<u64>) -> Self {
        Self { policy, deadline_at, made: 1, on_same: 1 }
    }

    /// Whether the attempt that is being made is the last one that may be.
    pub fn is_last(&self) -> bool {
        self.made >= self.policy.max_attempts
    }

    /// An attempt has failed: what to do. `random` is any number, uniformly distributed.
    pub fn next(&mut self, now: u64, failed: Failed, budget: &mut Budget, random: u64) -> Next {
        let next = self.decide(now, failed, random);
        // An attempt that the gateway itself held back has put no load on anybody, and neither does passing it on.
        if matches!(next, Next::Stop(_)) || failed.fault == Fault::ProviderLimit {
            self.on_same = 1;
            return next;
        }
        if !budget.retry(now, self.policy.allowance) {
            return Next::Stop(Why::Budget);
        }
        self.made = self.made.saturating_add(1);
        self.on_same = if next == Next::Other { 1 } else { self.on_same.saturating_add(1) };
        next
    }

    fn decide(&self, now: u64, failed: Failed, random: u64) -> Next {
        let Failed { fault, retry_after_ms, others, named } = failed;
        let wanted = match fault {
            _ if named && others => true,
            Fault::ContentPolicy => self.policy.content_policy == ContentPolicy::OtherProvider,
            other => other.may_be_retried() && self.policy.retry_on.contains(&other),
        };
        if !wanted {
            return Next::Stop(Why::Final);
        }
        let late = |wait_ms: u64| self.deadline_at.is_some_and(|at| now.saturating_add(wait_ms) >= at);
        if late(0) {
            return Next::Stop(Why::Deadline);
        }
        if self.made >= self.policy.max_attempts && fault != Fault::ProviderLimit {
            return Next::Stop(Why::Attempts);
        }
        if others {
            return Next::Other;
        }
        if !fault.may_pass() {
            return Next::Stop(Why::Candidates);
        }
        let told = retry_after_ms.unwrap_or(0);
        if told > self.policy.max_wait_ms {
            return Next::Stop(Why::TooLong);
        }
        let wait_ms = told.max(self.pause(random));
        if late(wait_ms) { Next::Stop(Why::Deadline) } else { Next::Same { wait_ms } }
    }

    /// Full jitter: anything up to a bound that doubles.
    fn pause(&self, random: u64) -> u64 {
        let doublings = self.on_same.saturating_sub(1).min(32);
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        let most = self.policy.backoff_ms.saturating_mul(factor).min(self.policy.max_backoff_ms);
        random.checked_rem(most.saturating_add(1)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
