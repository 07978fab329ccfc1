//! What a board says of a model to a request.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Board, Condition, Entry, ManualState, Terms};
use crate::routing::breaker::State;
use crate::routing::outcome::Fault;
use crate::routing::portion;
use crate::routing::trials::Contact;
use crate::routing::vitals::{LEAST_PERMILLE, Vitals};

/// What a request may make of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it may be sent there.
    pub availability: Availability,
    /// Which share of its configured weight it should have, in permille, latency aside ([`weights`]).
    pub weight_permille: u64,
    /// The peak time to first token that has not been forgotten, in milliseconds.
    pub first_token_ms: Option<u64>,
    /// The usual time to first token, in milliseconds: changes slower.
    pub usual_ms: Option<u64>,
    /// The share of faults lately, in permille.
    pub error_permille: u64,
    /// Whether its weight is still growing after a recovery.
    pub slow_start: bool,
    /// How long ago the provider's gauge was last heard of, in milliseconds; `None` if it never was: then this is what the
    /// isolate alone has seen.
    pub heard_ms_ago: Option<u64>,
}

impl Standing {
    /// The standing of what nothing is known of.
    pub const UNKNOWN: Self = Self {
        availability: Availability::Ready,
        weight_permille: 1_000,
        first_token_ms: None,
        usual_ms: None,
        error_permille: 0,
        slow_start: false,
        heard_ms_ago: None,
    };
}

/// Whether a request may be sent to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Yes.
    Ready,
    /// As a trial: a permit is at hand, and whoever sends the request takes it ([`Board::take_trial`]).
    Trial,
    /// No.
    Skipped(Skip),
}

/// Why a model is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Skip {
    /// Its or its provider's breaker is open.
    Open {
        /// For so many milliseconds.
        ms_left: u64,
    },
    /// The breaker is half-open, and others are trying.
    HalfOpen,
    /// It has asked for a pause, or its rate limit is reached.
    CoolingDown {
        /// For so many milliseconds.
        ms_left: u64,
    },
    /// There is no money left at the provider.
    QuotaExhausted {
        /// It is tried again in so many milliseconds.
        ms_left: u64,
    },
    /// The provider does not accept the credential.
    AuthFailed {
        /// It is tried again in so many milliseconds.
        ms_left: u64,
    },
    /// Nothing is left of the provider's own limits until the next request or token is refilled.
    NoHeadroom {
        /// For so many milliseconds.
        ms_left: u64,
    },
    /// Somebody has decided that the provider gets no new requests.
    Draining,
    /// Somebody has decided that the provider gets no requests at all.
    Maintenance,
}

impl Skip {
    /// After how many milliseconds it can be tried again, where that is known.
    pub fn ms_left(self) -> Option<u64> {
        match self {
            Self::Open { ms_left }
            | Self::CoolingDown { ms_left }
            | Self::QuotaExhausted { ms_left }
            | Self::AuthFailed { ms_left }
            | Self::NoHeadroom { ms_left } => Some(ms_left),
            Self::HalfOpen | Self::Draining | Self::Maintenance => None,
        }
    }

    /// The reason in a word, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::HalfOpen => "half_open",
            Self::CoolingDown { .. } => "cooling_down",
            Self::QuotaExhausted { .. } => "quota_exhausted",
            Self::AuthFailed { .. } => "auth_failed",
            Self::NoHeadroom { .. } => "no_headroom",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }

    /// Whether it may be tried all the same where nothing else is left and that is the policy: what the gateway has concluded
    /// may be wrong by now, what a provider has asked for or somebody has decided is not.
    pub fn may_be_tried(self) -> bool {
        !matches!(self, Self::CoolingDown { .. } | Self::Draining | Self::Maintenance)
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { ms_left } => write!(formatter, "it failed too often and is tried again in {ms_left} ms"),
            Self::HalfOpen => formatter.write_str("it failed too often and others are trying it"),
            Self::CoolingDown { ms_left } => {
                write!(formatter, "it has asked to be left alone for another {ms_left} ms")
            }
            Self::QuotaExhausted { ms_left } => {
                write!(formatter, "there is no money left at the provider; it is tried again in {ms_left} ms")
            }
            Self::AuthFailed { ms_left } => {
                write!(formatter, "the provider refuses the credential; it is tried again in {ms_left} ms")
            }
            Self::NoHeadroom { ms_left } => {
                write!(formatter, "nothing is left of the provider's rate limit for another {ms_left} ms")
            }
            Self::Draining => formatter.write_str("the provider is being drained"),
            Self::Maintenance => formatter.write_str("the provider is in maintenance"),
        }
    }
}

/// The least that latency can reduce a weight to, in permille.
const SLOWEST_PERMILLE: u64 = 250;

/// The effective weights of the candidates of one route, in permille of the configured ones. If they are to be dynamic, one
/// that is usually slower to begin than the median of all gets less: in proportion, down to a quarter.
pub fn weights(standings: &[Standing], dynamic: bool) -> Vec<u64> {
    let mut known: Vec<u64> = standings.iter().filter_map(|standing| standing.usual_ms).collect();
    known.sort_unstable();
    // Of an even number the lower one: of two, the slower is measured by the faster.
    let median = known.get(known.len().saturating_sub(1).div_euclid(2)).copied().filter(|_| dynamic);
    let factor = |standing: &Standing| match (median, standing.usual_ms) {
        (Some(median), Some(own)) if own > median => portion(1_000, median, own).max(SLOWEST_PERMILLE),
        _ => 1_000,
    };
    let weight = |it: &Standing| portion(it.weight_permille, factor(it), 1_000).max(LEAST_PERMILLE);
    standings.iter().map(weight).collect()
}

impl Board {
    /// What a request may make of a model.
    pub fn standing(&self, now: u64, terms: &Terms, provider: &str, deployment: &str) -> Standing {
        let Some(known) = self.providers.get(provider) else { return Standing::UNKNOWN };
        let own = known.deployments.get(deployment);
        let vitals = own.map(|entry| &entry.vitals);
        let manual = known.manual.unwrap_or_default().at(now);
        let slow_start = |vitals: &Vitals| vitals.breaker.slow_start_permille(now, terms.slow_start_ms);
        let of_provider = slow_start(&known.own.vitals);
        let of_model = vitals.map_or(1_000, slow_start);
        let weight = vitals.map_or(1_000, |vitals| vitals.weight_permille(now, terms.slow_start_ms));
        let availability = match manual {
            ManualState::Maintenance => Availability::Skipped(Skip::Maintenance),
            ManualState::Draining => Availability::Skipped(Skip::Draining),
            ManualState::Active => availability(now, known.contact, &known.own, own),
        };
        Standing {
            availability,
            // Both usually recover together: the weight grows once, not twice.
            weight_permille: portion(weight, of_provider, of_model.max(of_provider)).max(LEAST_PERMILLE),
            first_token_ms: vitals.and_then(|vitals| vitals.first_token.peak_ms(now)),
            usual_ms: vitals.and_then(|vitals| vitals.first_token.usual_ms()),
            error_permille: vitals.map_or(0, |vitals| vitals.rate.error_permille(now)),
            slow_start: of_provider.min(of_model) < 1_000,
            heard_ms_ago: self.age_ms(now, provider),
        }
    }

    /// Whether nothing speaks against any of these providers and their models, as far as is known.
    pub fn is_calm(&self, now: u64, terms: &Terms, providers: &[&str]) -> bool {
        let known = providers.iter().filter_map(|name| self.providers.get(*name));
        known.flat_map(|provider| std::iter::once(&provider.own).chain(provider.deployments.values())).all(|entry| {
            let weight = entry.vitals.weight_permille(now, terms.slow_start_ms);
            entry.condition(now) == Condition::Closed && weight == 1_000
        })
    }
}

fn availability(now: u64, contact: Contact, provider: &Entry, model: Option<&Entry>) -> Availability {
    let mut trial = false;
    for entry in [Some(provider), model].into_iter().flatten() {
        let open = entry.vitals.breaker.opening().filter(|(_, until, _)| *until > now);
        if let Some((_, until, fault)) = open {
            let ms_left = until.saturating_sub(now);
            let failed = fault == Fault::Auth;
            return Availability::Skipped(if failed { Skip::AuthFailed { ms_left } } else { Skip::Open { ms_left } });
        }
        if let Some((ms_left, fault)) = entry.vitals.pause(now) {
            let quota = fault == Fault::QuotaExhausted;
            let skip = if quota { Skip::QuotaExhausted { ms_left } } else { Skip::CoolingDown { ms_left } };
            return Availability::Skipped(skip);
        }
        if let Some(ms_left) = entry.vitals.left.exhausted_ms(now) {
            return Availability::Skipped(Skip::NoHeadroom { ms_left });
        }
        if entry.vitals.breaker.state(now) == State::HalfOpen {
            if !entry.permits.at_hand(now, contact) {
                return Availability::Skipped(Skip::HalfOpen);
            }
            trial = true;
        }
    }
    if trial { Availability::Trial } else { Availability::Ready }
}
