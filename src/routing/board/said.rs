//! What goes on a board, and what is told when it changes something.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::routing::breaker::State;
use crate::routing::headroom::Headroom;
use crate::routing::outcome::Fault;

/// What has been seen of one attempt, or found by probes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// The provider.
    pub provider: String,
    /// The model, by its name in `models`; empty for a probe, which speaks of the provider alone.
    pub deployment: String,
    /// What went wrong; `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// The time to the first token of a streamed reply, in milliseconds; `None` for any other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// The time that the attempt took, in milliseconds.
    pub total_ms: u64,
    /// How long the provider asks to wait, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What the provider says of its own limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<Headroom>,
    /// Whether the attempt had a permit ([`Board::take_trial`]).
    pub trial: bool,
    /// Whether this is the verdict of active probes, whose thresholds are reached: a fault opens the provider's breaker at
    /// once; each success counts like a successful trial, and need not wait for the back-off to pass.
    pub probe: bool,
    /// When the attempt ended, in milliseconds on the clock of whose board it is put on. Whoever passes an observation on
    /// tells its age instead, and the receiver reckons.
    pub at: u64,
}

/// What a transition is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// The provider.
    pub provider: String,
    /// The model at it; `None`: the provider as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
}

impl Subject {
    /// A provider, or a model at it.
    pub fn new(provider: &str, deployment: Option<&str>) -> Self {
        Self { provider: provider.to_owned(), deployment: deployment.map(str::to_owned) }
    }
}

/// What something has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It gets requests.
    Closed,
    /// Its breaker is open.
    Open,
    /// Its breaker lets trials through.
    HalfOpen,
    /// It has asked to be left alone for a while.
    CoolingDown,
}

impl From<State> for Condition {
    fn from(state: State) -> Self {
        match state {
            State::Closed => Self::Closed,
            State::Open => Self::Open,
            State::HalfOpen => Self::HalfOpen,
        }
    }
}

/// That the health of something has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// Of what.
    pub subject: Subject,
    /// What it was.
    pub from: Condition,
    /// What it is.
    pub to: Condition,
    /// What led to it; `None`: successes, or somebody's hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// When, in Unix milliseconds.
    pub at: u64,
    /// Until when it is left alone, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// What somebody has decided about a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ManualState {
    /// It is used.
    #[default]
    Active,
    /// It gets no new requests; those under way end.
    Draining,
    /// The same, and nothing is concluded from what is seen of it meanwhile.
    Maintenance,
}

/// What somebody has decided about a provider, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manual {
    /// What.
    pub state: ManualState,
    /// Until when, in Unix milliseconds; `None`: until somebody decides otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl Manual {
    /// What counts at a time.
    pub fn at(self, now: u64) -> ManualState {
        if self.until.is_some_and(|until| until <= now) { ManualState::Active } else { self.state }
    }
}
