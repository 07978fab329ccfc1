//! Section `routing`: when a provider is left alone, and what is done about an attempt that failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{Bounded, Problems, section};
use crate::routing::outcome::Fault;

section! {
    /// When a provider is left alone for a while, and what is done about an attempt that failed.
    pub struct Routing {
        /// Attempts that a request may take, the first one included.
        pub max_attempts: u64 = 3, in 1 ..= 10;
        /// Which faults are tried again at all, on another target or the same one. A fault that another attempt cannot
        /// help with is never tried again, and a blocked content only as `content_policy` says.
        pub retry_on: Vec<Fault> = Fault::retried(), items 0 ..= 19;
        /// What is done when a provider refuses a request for its content.
        pub content_policy: ContentPolicy = ContentPolicy::Stop;
        /// The longest pause before the first further attempt on the same target, in milliseconds. It doubles with each,
        /// and a random part of it is waited.
        pub backoff_ms: u64 = 100, in 1 ..= 10_000;
        /// The longest pause that doubling leads to, in milliseconds.
        pub max_backoff_ms: u64 = 5_000, in 1 ..= 60_000;
        /// The longest time that a provider can ask a request to wait for before it is tried there again, in milliseconds.
        /// One that asks for more is not asked again for this request.
        pub max_wait_ms: u64 = 5_000, in 0 ..= 60_000;
        /// How many further attempts a route may make within ten seconds, in per cent of its requests in that time. Counted
        /// by each isolate for itself.
        pub retry_share_percent: u64 = 20, in 0 ..= 100;
        /// How many further attempts a route may make within ten seconds whatever its requests.
        pub retry_floor: u64 = 50, in 0 ..= 10_000;
        /// What is done with a request none of whose targets should be tried now.
        pub when_all_open: WhenAllOpen = WhenAllOpen::Try;
        /// How long a model that answers with 429 is left alone where the provider does not say, in milliseconds. Doubles
        /// up to a minute while it goes on.
        pub cooldown_ms: u64 = 1_000, in 100 ..= 60_000;
        /// When a model or provider is left alone because of its faults.
        pub breaker: Breaker = Breaker::default();
        /// How long the share of a model grows, from a tenth to the whole, after it has recovered, in milliseconds. 0: it gets
        /// the whole at once.
        pub slow_start_ms: u64 = 10_000, in 0 ..= 600_000;
        /// Whether a model that begins to answer later than the others of its route gets a smaller share: down to a
        /// quarter of its weight.
        pub dynamic_weights: bool = false;
        /// How often a busy isolate tells a provider's gauge what it has seen, and learns what others have, in milliseconds.
        /// A few successes wait ten times as long, or 10 s, where all is well and no latencies are compared.
        pub report_ms: u64 = 1_000, in 100 ..= 10_000;
    }
}

section! {
    /// When a model or provider is left alone because of its faults, and how it gets back.
    #[derive(Copy, Eq)]
    pub struct Breaker {
        /// Opens after so many faults in a row.
        pub consecutive: u64 = 5, in 1 ..= 1_000;
        /// Opens when so many of the requests in `window_ms` failed, in per cent.
        pub failure_percent: u64 = 50, in 1 ..= 100;
        /// How many requests there must be in `window_ms` for `failure_percent` to count.
        pub min_requests: u64 = 20, in 1 ..= 100_000;
        /// The time that `failure_percent` looks back, in milliseconds.
        pub window_ms: u64 = 10_000, in 1_000 ..= 300_000;
        /// How long it stays open the first time, in milliseconds; a fifth more or less, at random. Doubles each time that
        /// the trials fail.
        pub open_ms: u64 = 5_000, in 100 ..= 600_000;
        /// What that doubling leads to at most, in milliseconds. After having been closed for so long it begins anew.
        pub max_open_ms: u64 = 120_000, in 100 ..= 3_600_000;
        /// How many requests may try whether it works again, at a time and all isolates together; so many successes in a row
        /// close it.
        pub trials: u64 = 3, in 1 ..= 100;
    }
}

/// What is done when a provider refuses a request for its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContentPolicy {
    /// The caller gets the refusal.
    #[default]
    Stop,
    /// A target at another provider is tried.
    OtherProvider,
}

/// What is done with a request none of whose targets should be tried now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenAllOpen {
    /// The best of them is tried all the same; never one that has asked for a pause, or that somebody has taken out.
    #[default]
    Try,
    /// It is refused with 503 and the time after which the first of them can be tried.
    Refuse,
}

impl Problems {
    /// Checks section `routing`.
    pub(super) fn routing(&mut self, routing: &Routing) {
        routing.check_bounds("routing", self);
        routing.breaker.check_bounds("routing.breaker", self);
        if routing.backoff_ms > routing.max_backoff_ms {
            self.add("routing.backoff_ms", "must not be longer than `max_backoff_ms`");
        }
        if routing.breaker.open_ms > routing.breaker.max_open_ms {
            self.add("routing.breaker.open_ms", "must not be longer than `max_open_ms`");
        }
        self.retried("routing.retry_on", &routing.retry_on);
    }

    /// Checks a list of faults that are to be tried again.
    pub(super) fn retried(&mut self, path: &str, faults: &[Fault]) {
        for (nth, fault) in faults.iter().enumerate() {
            if !fault.may_be_retried() {
                let message = match fault {
                    Fault::ContentPolicy => "is decided by `routing.content_policy`".to_owned(),
                    other => format!("`{}` cannot be helped by another attempt", other.name()),
                };
                self.add(&format!("{path}[{nth}]"), message);
            }
        }
    }
}
