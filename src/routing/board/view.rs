//! A board for people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Board, Entry, Manual, ManualState, Subject, Terms};
use crate::routing::breaker::State;
use crate::routing::outcome::Fault;

/// Something's health, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateView {
    /// Of what.
    pub subject: Subject,
    /// Its breaker.
    pub breaker: State,
    /// Since when the breaker has not been closed, in Unix milliseconds.
    pub since: Option<u64>,
    /// Until when it lets nothing through, in Unix milliseconds.
    pub open_until: Option<u64>,
    /// Why it opened.
    pub fault: Option<Fault>,
    /// How often it has opened without having been closed for long in between.
    pub openings: u64,
    /// Faults in a row.
    pub consecutive_faults: u64,
    /// Trials that isolates have permits for.
    pub trials: u64,
    /// Until when it is left alone because it asked for that, in Unix milliseconds.
    pub cooling_until: Option<u64>,
    /// Why it is.
    pub cooling_fault: Option<Fault>,
    /// The share of faults lately, in permille.
    pub error_permille: u64,
    /// The peak time to first token that has not been forgotten, in milliseconds.
    pub first_token_ms: Option<u64>,
    /// The usual time to first token, in milliseconds.
    pub usual_ms: Option<u64>,
    /// Which share of its configured weight it has, in permille, latency aside.
    pub weight_permille: u64,
    /// What it says is left of its own limit on requests.
    pub requests_left: Option<u64>,
    /// What it says is left of its own limit on tokens.
    pub tokens_left: Option<u64>,
    /// What somebody has decided.
    pub manual: ManualState,
    /// When anything was last heard of it, in Unix milliseconds.
    pub seen: u64,
}

impl Board {
    /// The state of everything on it, each provider before its models.
    pub fn states(&self, now: u64, terms: &Terms) -> Vec<StateView> {
        let mut views = Vec::new();
        for (name, provider) in &self.providers {
            let models = provider.deployments.iter().map(|(model, entry)| (Some(model.as_str()), entry));
            for (model, entry) in std::iter::once((None, &provider.own)).chain(models) {
                views.push(entry.view(now, terms, Subject::new(name, model), provider.manual));
            }
        }
        views
    }
}

impl Entry {
    fn view(&self, now: u64, terms: &Terms, subject: Subject, manual: Option<Manual>) -> StateView {
        let vitals = &self.vitals;
        let opening = vitals.breaker.opening();
        let cooldown = vitals.cooldown.filter(|cooldown| cooldown.until > now);
        let headroom = vitals.left.now(now);
        StateView {
            subject,
            breaker: vitals.breaker.state(now),
            since: opening.map(|(at, ..)| at),
            open_until: opening.map(|(_, until, _)| until).filter(|until| *until > now),
            fault: opening.map(|(.., fault)| fault),
            openings: vitals.breaker.times(),
            consecutive_faults: vitals.breaker.consecutive(),
            trials: u64::try_from(self.leases.out(now)).unwrap_or(u64::MAX),
            cooling_until: cooldown.map(|cooldown| cooldown.until),
            cooling_fault: cooldown.map(|cooldown| cooldown.fault),
            error_permille: vitals.rate.error_permille(now),
            first_token_ms: vitals.first_token.peak_ms(now),
            usual_ms: vitals.first_token.usual_ms(),
            weight_permille: vitals.weight_permille(now, terms.slow_start_ms),
            requests_left: headroom.requests.map(|share| share.remaining),
            tokens_left: headroom.tokens.map(|share| share.remaining),
            manual: manual.unwrap_or_default().at(now),
            seen: vitals.seen,
        }
    }
}
