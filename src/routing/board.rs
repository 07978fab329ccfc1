//! What is known of the health of providers and deployments.

use std::fmt;

/// What is known of a deployment's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it may be called.
    pub availability: Availability,
    /// Its weight, in thousandths of the configured one.
    pub weight_permille: u64,
    /// Peak EWMA of the time to the first token, in milliseconds; `None` where nothing is known.
    pub first_token_ms: Option<u64>,
    /// The share of requests that fail, in thousandths.
    pub error_permille: u64,
    /// Whether it has recovered only a moment ago.
    pub slow_start: bool,
}

/// Whether a deployment may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It may.
    Ready,
    /// Half open, with a permit at hand.
    Trial,
    /// It may not.
    Skipped(Skip),
}

/// Why a deployment is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Skip {
    Open { ms_left: u64 },
    HalfOpen,
    CoolingDown { ms_left: u64 },
    AuthFailed { ms_left: u64 },
    Draining,
    Maintenance,
    NoHeadroom { ms_left: u64 },
}

impl Skip {
    /// When it may be called again, in milliseconds from now, if that is known.
    pub fn ms_left(self) -> Option<u64> {
        match self {
            Self::Open { ms_left }
            | Self::CoolingDown { ms_left }
            | Self::AuthFailed { ms_left }
            | Self::NoHeadroom { ms_left } => Some(ms_left),
            Self::HalfOpen | Self::Draining | Self::Maintenance => None,
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// What becomes of a request when everybody who could answer is unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAllOpen {
    /// The best of them is tried all the same.
    Try,
    /// It is refused.
    Refuse,
}
