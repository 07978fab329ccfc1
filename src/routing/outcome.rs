//! How an attempt can fail, and whose fault that is.

mod reading;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Timeouts;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// No connection came about.
    Unreachable,
    /// The connection broke before the reply began.
    Reset,
    /// The reply or its first event did not come in time, or the provider itself says so (408, 504).
    TooSlow,
    /// The configured time for the whole request is over.
    TimedOut,
    /// A reply that had begun fell silent.
    Stalled,
    /// A reply ended before it was complete.
    Cut,
    /// A reply that cannot be used: HTML, broken JSON, nothing at all.
    BadReply,
    /// The provider reports a fault of its own (5xx).
    ServerError,
    /// The provider has more to do than it can (503, 529).
    Overloaded,
    /// The provider's rate limit is reached (429).
    RateLimited,
    /// There is no money left at the provider (402, `insufficient_quota`).
    QuotaExhausted,
    /// The provider does not accept the credential (401, 403).
    Auth,
    /// The provider has no such model, or not for this credential.
    ModelNotFound,
    /// The request is too long for the model.
    ContextLength,
    /// The provider refuses the content.
    ContentPolicy,
    /// The request is wrong (other 4xx).
    BadRequest,
    /// The limits that the gateway itself keeps for the provider are reached; nothing was sent.
    ProviderLimit,
    /// The caller has left, or the time is over that it had set itself.
    ClientClosed,
    /// A fault of the gateway.
    Gateway,
}

/// What a fault speaks against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Nothing: the request or the caller was at fault, or nothing was sent.
    Nobody,
    /// The model at this provider.
    Deployment,
    /// The provider as a whole: its address or its credential.
    Provider,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Unreachable,
        Self::Reset,
        Self::TooSlow,
        Self::TimedOut,
        Self::Stalled,
        Self::Cut,
        Self::BadReply,
        Self::ServerError,
        Self::Overloaded,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Auth,
        Self::ModelNotFound,
        Self::ContextLength,
        Self::ContentPolicy,
        Self::BadRequest,
        Self::ProviderLimit,
        Self::ClientClosed,
        Self::Gateway,
    ];

    /// Its name, as configuration and records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::TooSlow => "too_slow",
            Self::TimedOut => "timed_out",
            Self::Stalled => "stalled",
            Self::Cut => "cut",
            Self::BadReply => "bad_reply",
            Self::ServerError => "server_error",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Auth => "auth",
            Self::ModelNotFound => "model_not_found",
            Self::ContextLength => "context_length",
            Self::ContentPolicy => "content_policy",
            Self::BadRequest => "bad_request",
            Self::ProviderLimit => "provider_limit",
            Self::ClientClosed => "client_closed",
            Self::Gateway => "gateway",
        }
    }

    /// What it speaks against.
    pub fn blame(self) -> Blame {
        match self {
            Self::Unreachable | Self::QuotaExhausted | Self::Auth => Blame::Provider,
            Self::Reset
            | Self::TooSlow
            | Self::TimedOut
            | Self::Stalled
            | Self::Cut
            | Self::BadReply
            | Self::ServerError
            | Self::Overloaded
            | Self::RateLimited
            | Self::ModelNotFound => Blame::Deployment,
            Self::ContextLength
            | Self::ContentPolicy
            | Self::BadRequest
            | Self::ProviderLimit
            | Self::ClientClosed
            | Self::Gateway => Blame::Nobody,
        }
    }

    /// Whether it shows that the provider works: it has read the request and judged it.
    pub fn is_proof_of_life(self) -> bool {
        matches!(self, Self::ContextLength | Self::ContentPolicy | Self::BadRequest)
    }

    /// Whether the same target may answer the same request a moment later.
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::Unreachable
                | Self::Reset
                | Self::Stalled
                | Self::Cut
                | Self::BadReply
                | Self::ServerError
                | Self::Overloaded
                | Self::RateLimited
        )
    }

    /// Whether it was the caller's patience that ended a wait, not the configured `bounds`: such a fault is nobody's
    /// ([`Fault::ClientClosed`]), or a caller in a hurry could shut a model for all others. `took_ms` is how long the attempt
    /// took, `patience_ms` how long the caller waits for the next byte, if it says so.
    pub fn is_the_callers(self, took_ms: u64, bounds: &Timeouts, patience_ms: Option<u64>) -> bool {
        // Timers and clocks differ by a little.
        let at_most_ms = took_ms.saturating_add(20);
        match self {
            Self::TimedOut => at_most_ms < bounds.total_ms,
            Self::TooSlow => {
                at_most_ms < bounds.first_byte_ms.min(bounds.total_ms)
                    || patience_ms.is_some_and(|patience| patience < bounds.total_ms && took_ms >= patience)
            }
            Self::Stalled => patience_ms.is_some_and(|patience| patience < bounds.idle_ms),
            _ => false,
        }
    }

    /// Whether another attempt may help, so that a list of faults to be tried again may name it: whatever speaks against a
    /// provider or a model, as long as there is time, and what another one may have room for.
    pub fn may_be_retried(self) -> bool {
        match self {
            Self::TimedOut => false,
            Self::ContextLength | Self::ProviderLimit => true,
            _ => self.blame() != Blame::Nobody,
        }
    }

    /// Whether another model may do better, so that fallbacks may be named for it: also for a request that was refused.
    pub fn may_fall_back(self) -> bool {
        self.may_be_retried() || matches!(self, Self::ContentPolicy | Self::BadRequest)
    }

    /// Those that are tried again unless configured otherwise.
    pub fn retried() -> Vec<Self> {
        Self::ALL.into_iter().filter(|fault| fault.may_be_retried()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_in_a_hurry_blames_nobody() {
        let bounds = Timeouts { first_byte_ms: 60_000, idle_ms: 30_000, total_ms: 600_000 };
        for (fault, took_ms, patience_ms, the_callers) in [
            (Fault::TimedOut, 50, None, true),
            (Fault::TimedOut, 600_000, Some(50), false),
            (Fault::TooSlow, 50, Some(50), true),
            (Fault::TooSlow, 60_000, None, false),
            (Fault::TooSlow, 60_000, Some(90_000), false),
            (Fault::TooSlow, 90_000, Some(90_000), true),
            (Fault::Stalled, 100_000, Some(1_000), true),
            (Fault::Stalled, 100_000, Some(30_000), false),
            (Fault::Stalled, 100_000, None, false),
            (Fault::ServerError, 1, Some(1), false),
        ] {
            assert_eq!(
                fault.is_the_callers(took_ms, &bounds, patience_ms),
                the_callers,
                "{fault:?} after {took_ms} ms"
            );
        }
    }
}
