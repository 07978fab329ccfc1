//! What is decided, and told of the decision.

use std::fmt;
use std::rc::Rc;

use super::super::board::{Skip, Standing};
use super::super::conditions::Unmet;
use super::super::score::Score;
use crate::config::{Shadow, Strategy};
use crate::gateway::plan::Unusable;

/// Who answers a request.
#[derive(Debug, Clone, Default)]
pub struct Order<'a> {
    /// Those who could, each once, the first to be tried first.
    pub candidates: Vec<Candidate<'a>>,
    /// Those who were considered and left out.
    pub left_out: Vec<LeftOut<'a>>,
    /// How the route that was asked for chose; `None` if it was a model.
    pub strategy: Option<Strategy>,
    /// Those among which the gauge must pick, two at least, because the first place is a matter of
    /// [`Strategy::LeastConnections`]. Until it has, they stand by what is open in this isolate. Empty otherwise.
    pub least_connections: Vec<Contender>,
    /// Whether the first is the first because the caller is kept with it.
    pub pinned: bool,
    /// Whether all are unhealthy, and these are tried all the same.
    pub in_spite: bool,
    /// The model that gets a copy of this request.
    pub shadow: Option<&'a Shadow>,
}

/// Somebody who could answer.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its name in `models`.
    pub deployment: &'a str,
    /// Its provider.
    pub provider: &'a str,
    /// The routes on the way to it, from the one that was asked for to the one that lists it; empty if it was asked for
    /// itself.
    pub path: Rc<[&'a str]>,
    /// The priority that it has in the last of them.
    pub priority: u64,
    /// The weight that it has there.
    pub weight: u64,
    /// What its health leaves of the weight, in thousandths.
    pub effective_weight_permille: u64,
    /// Whether it is half open and this request would be a trial.
    pub trial: bool,
    /// Its health.
    pub standing: Standing,
    /// Requests of this isolate's that are open there.
    pub open: u64,
    /// What the request is expected to cost there, in nano-dollars; `None` if nobody knows, or no route on the way to it has
    /// asked.
    pub cost: Option<u64>,
    /// How often it would be the first of all, in millionths, were the same request to come again and again.
    pub share_ppm: u64,
    /// What its place among the others of that route comes from.
    pub score: Score,
    /// Why it has this place, in a few words.
    pub why: &'static str,
}

impl<'a> Candidate<'a> {
    /// The route that was asked for, if it was one.
    pub fn route(&self) -> Option<&'a str> {
        self.path.first().copied()
    }
}

/// One of those among which the gauge picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contender {
    /// Its index in [`Order::candidates`].
    pub index: usize,
    /// Its weight, health included, in thousandths.
    pub weight: u64,
}

/// Somebody who was considered and left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut<'a> {
    /// The model, or the route with everything in it.
    pub deployment: &'a str,
    /// The route that lists it; `None` if it was asked for itself.
    pub route: Option<&'a str>,
    /// Why.
    pub reason: LeftOutReason<'a>,
    /// As [`Standing::heard_ms_ago`], where its health is the reason.
    pub heard_ms_ago: Option<u64>,
}

impl<'a> LeftOut<'a> {
    /// Somebody who could answer but for this.
    pub(super) fn of(candidate: &Candidate<'a>, reason: LeftOutReason<'a>) -> Self {
        let unhealthy = matches!(reason, LeftOutReason::Unhealthy(_));
        Self {
            deployment: candidate.deployment,
            route: candidate.path.last().copied(),
            reason,
            heard_ms_ago: candidate.standing.heard_ms_ago.filter(|_| unhealthy),
        }
    }
}

/// Why somebody was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOutReason<'a> {
    /// The route's target is disabled.
    TargetDisabled,
    /// There is no such route.
    NoRoute,
    /// It is a route that is disabled.
    RouteDisabled,
    /// Routes are nested too deep, or have too many targets.
    TooLarge,
    /// It is for other requests.
    Condition(Unmet<'a>),
    /// It cannot answer this request.
    Unusable(Unusable),
    /// It is unhealthy.
    Unhealthy(Skip),
    /// It stands further up already.
    Duplicate,
    /// The request has something that cannot be said to its provider.
    Unfit,
    /// The gateway asks as much of its provider as it may, or will not ask it this much at all.
    Full {
        /// There is room again in so many milliseconds; `None` if there never is.
        ms_left: Option<u64>,
    },
}

impl LeftOutReason<'_> {
    /// In how many milliseconds it may be back, where that is known.
    pub fn ms_left(&self) -> Option<u64> {
        match self {
            Self::Unhealthy(skip) => skip.ms_left(),
            Self::Full { ms_left } => *ms_left,
            _ => None,
        }
    }

    /// The reason in a word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TargetDisabled => "target_disabled",
            Self::NoRoute => "no_route",
            Self::RouteDisabled => "route_disabled",
            Self::TooLarge => "too_large",
            Self::Condition(_) => "condition",
            Self::Unusable(reason) => reason.code(),
            Self::Unhealthy(skip) => skip.code(),
            Self::Duplicate => "duplicate",
            Self::Unfit => "unfit",
            Self::Full { .. } => "full",
        }
    }
}

impl fmt::Display for LeftOutReason<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TargetDisabled => formatter.write_str("the route's target is disabled"),
            Self::NoRoute => formatter.write_str("the route does not exist"),
            Self::RouteDisabled => formatter.write_str("the route is disabled"),
            Self::TooLarge => formatter.write_str("routes are nested too deep, or have too many targets"),
            Self::Condition(unmet) => unmet.fmt(formatter),
            Self::Unusable(reason) => reason.fmt(formatter),
            Self::Unhealthy(skip) => skip.fmt(formatter),
            Self::Duplicate => formatter.write_str("it stands further up already"),
            Self::Unfit => formatter.write_str("the request has something that cannot be said to its provider"),
            Self::Full { ms_left: Some(millis) } => {
                write!(formatter, "the gateway asks as much of its provider as it may for another {millis} ms")
            }
            Self::Full { ms_left: None } => formatter.write_str("it is more than the gateway asks of its provider"),
        }
    }
}

impl<'a> Order<'a> {
    /// Puts a candidate first, for the reason that the first one had; the others keep their order. This is what becomes of
    /// the gauge's pick. The contenders' indexes follow.
    pub fn promote(&mut self, index: usize) {
        let Some((first, others)) = self.candidates.split_first_mut() else { return };
        if let Some(promoted) = index.checked_sub(1).and_then(|at| others.get_mut(at)) {
            std::mem::swap(&mut first.why, &mut promoted.why);
            std::mem::swap(&mut first.share_ppm, &mut promoted.share_ppm);
        }
        if index >= self.candidates.len() {
            return;
        }
        let first = self.candidates.remove(index);
        self.candidates.insert(0, first);
        for contender in &mut self.least_connections {
            if contender.index == index {
                contender.index = 0;
            } else if contender.index < index {
                contender.index = contender.index.saturating_add(1);
            }
        }
    }

    /// Notes how many requests are open at a candidate among which the gauge picks.
    pub fn count(&mut self, index: usize, open: u64) {
        let weight = self.least_connections.iter().find(|it| it.index == index).map(|it| it.weight);
        let Some((candidate, weight)) = self.candidates.get_mut(index).zip(weight) else { return };
        candidate.open = open;
        candidate.score = Score::Open { open, weight };
    }

    /// Takes the first candidate out, because it cannot be asked after all. Its share of such requests goes to the next.
    pub fn pass_first(&mut self, reason: LeftOutReason<'a>) {
        if self.candidates.is_empty() {
            return;
        }
        let passed = self.candidates.remove(0);
        if let Some(next) = self.candidates.first_mut() {
            next.share_ppm = next.share_ppm.saturating_add(passed.share_ppm);
        }
        self.left_out.push(LeftOut::of(&passed, reason));
        self.least_connections.retain_mut(|contender| match contender.index.checked_sub(1) {
            Some(index) => {
                contender.index = index;
                true
            }
            None => false,
        });
    }

    /// When the first of the unhealthy ones may be back, in milliseconds from now; `None` if nobody knows, or none is.
    pub fn retry_after_ms(&self) -> Option<u64> {
        let skips = self.left_out.iter().filter_map(|it| match it.reason {
            LeftOutReason::Unhealthy(skip) => skip.ms_left(),
            _ => None,
        });
        skips.min()
    }

    /// Whether somebody was left out only for being unhealthy.
    pub fn has_unhealthy(&self) -> bool {
        self.left_out.iter().any(|it| matches!(it.reason, LeftOutReason::Unhealthy(_)))
    }
}
