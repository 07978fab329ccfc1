//! What is known of the health of providers and their models.
//!
//! Each isolate has a board, decides on it, and puts what it sees on it at once. It reports the same to the provider's
//! gauge, whose board is fed by all isolates, and takes over the gauge's as soon as it is told: what it has seen but not yet
//! reported goes on top. An isolate whose gauge is silent goes on alone: both boards are the same state machine.

mod exchange;
mod said;
mod standing;
#[cfg(test)]
mod tests;
mod view;
#[cfg(test)]
mod world;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use exchange::{ProviderSnapshot, Snapshot, Stored, SubjectSnapshot, Want};
pub use said::{Condition, Manual, ManualState, Observation, Subject, Transition};
pub use standing::{Availability, Skip, Standing, weights};
pub use view::StateView;

use super::breaker::{Evidence, Source, State};
use super::outcome::{Blame, Fault};
use super::trials::{Contact, Leases, Permits};
use super::vitals::Vitals;
use crate::config::{self, Routing};

/// How many providers and models a board keeps: as many as can be configured.
const ENTRIES: usize = 11_000;

/// After how many milliseconds an entry is forgotten of which nothing is heard and that says nothing special.
const IDLE_MS: u64 = 3_600_000;

/// What a board judges by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// When breakers open and close.
    pub breaker: config::Breaker,
    /// The first pause after a 429 that does not say how long, in milliseconds.
    pub cooldown_ms: u64,
    /// How long the weight grows after a recovery, in milliseconds.
    pub slow_start_ms: u64,
    /// Whether latency counts for the weight.
    pub dynamic_weights: bool,
}

impl Terms {
    /// As configured.
    pub fn of(routing: &Routing) -> Self {
        Self {
            breaker: routing.breaker,
            cooldown_ms: routing.cooldown_ms,
            slow_start_ms: routing.slow_start_ms,
            dynamic_weights: routing.dynamic_weights,
        }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::of(&Routing::default())
    }
}

/// A provider or a model on a board.
#[derive(Debug, Clone, Default)]
struct Entry {
    vitals: Vitals,
    leases: Leases,
    permits: Permits,
}

/// A provider on a board.
#[derive(Debug, Clone, Default)]
struct Provider {
    manual: Option<Manual>,
    own: Entry,
    deployments: BTreeMap<String, Entry>,
    contact: Contact,
}

/// What is known of the health of providers and their models.
#[derive(Debug, Clone, Default)]
pub struct Board {
    providers: BTreeMap<String, Provider>,
    /// Whether something has changed that must survive.
    changed: bool,
}

impl Board {
    /// Takes in what has been seen. `random` is any number, uniformly distributed.
    pub fn observe(&mut self, now: u64, terms: &Terms, observation: &Observation, random: u64) -> Vec<Transition> {
        if observation.trial
            && let Some(provider) = self.providers.get_mut(&observation.provider)
        {
            let model = provider.deployments.get_mut(&observation.deployment);
            for entry in [Some(&mut provider.own), model].into_iter().flatten() {
                entry.permits.ended();
                entry.leases.heard(now);
            }
        }
        self.take_in(now, terms, observation, random)
    }

    /// Takes a permit for a request that is about to be sent, if it goes where trials are made. Tells whether it does, which
    /// is [`Observation::trial`].
    pub fn take_trial(&mut self, now: u64, provider: &str, deployment: &str) -> bool {
        let Some(provider) = self.providers.get_mut(provider) else { return false };
        let contact = provider.contact;
        let model = provider.deployments.get_mut(deployment);
        let both = [Some(&mut provider.own), model].into_iter().flatten();
        let mut trying: Vec<&mut Entry> =
            both.filter(|entry| entry.vitals.breaker.state(now) == State::HalfOpen).collect();
        if trying.is_empty() || !trying.iter().all(|entry| entry.permits.at_hand(now, contact)) {
            return false;
        }
        trying.iter_mut().for_each(|entry| entry.permits.take(now));
        true
    }

    /// A request would have been sent to a model if there had been a permit ([`Skip::HalfOpen`]): one is asked for with the
    /// next report.
    pub fn want_trial(&mut self, now: u64, provider: &str, deployment: &str) {
        let Some(provider) = self.providers.get_mut(provider) else { return };
        let model = provider.deployments.get_mut(deployment);
        for entry in [Some(&mut provider.own), model].into_iter().flatten() {
            if entry.vitals.breaker.state(now) == State::HalfOpen {
                entry.permits.want(now);
            }
        }
    }

    /// Notes what somebody has decided about a provider.
    pub fn set_manual(&mut self, provider: &str, manual: Manual) {
        let decided = (manual.state != ManualState::Active).then_some(manual);
        let provider = self.provider(provider);
        let changed = provider.manual != decided;
        provider.manual = decided;
        self.changed |= changed;
    }

    /// Closes the breakers of a provider and its models, and ends their pauses.
    pub fn reset(&mut self, now: u64, provider: &str) -> Vec<Transition> {
        let Some(known) = self.providers.get_mut(provider) else { return Vec::new() };
        let mut transitions = Vec::new();
        let models = known.deployments.iter_mut().map(|(name, entry)| (Some(name.as_str()), entry));
        for (model, entry) in std::iter::once((None, &mut known.own)).chain(models) {
            let from = entry.condition(now);
            entry.vitals = Vitals { seen: entry.vitals.seen, ..Vitals::default() };
            if from != Condition::Closed {
                let subject = Subject::new(provider, model);
                transitions.push(Transition {
                    subject,
                    from,
                    to: Condition::Closed,
                    fault: None,
                    at: now,
                    until: None,
                });
            }
        }
        self.changed = true;
        transitions
    }

    /// Takes in what has been seen, permits aside.
    fn take_in(&mut self, now: u64, terms: &Terms, seen: &Observation, random: u64) -> Vec<Transition> {
        let mut transitions = Vec::new();
        let manual = self.providers.get(&seen.provider).and_then(|provider| provider.manual).unwrap_or_default();
        if manual.at(now) == ManualState::Maintenance {
            return transitions;
        }
        let seen = Seen { now, terms, seen, at: seen.at.min(now), random };
        if let Some(entry) = self.entry(now, &seen.seen.provider, None) {
            transitions.extend(seen.by_provider(entry));
        }
        if !seen.seen.deployment.is_empty()
            && let Some(entry) = self.entry(now, &seen.seen.provider, Some(&seen.seen.deployment))
        {
            transitions.extend(seen.by_model(entry));
        }
        self.changed |= !transitions.is_empty();
        transitions
    }

    fn provider(&mut self, name: &str) -> &mut Provider {
        if !self.providers.contains_key(name) {
            self.providers.insert(name.to_owned(), Provider::default());
        }
        self.providers.entry(name.to_owned()).or_default()
    }

    fn entry(&mut self, now: u64, provider: &str, deployment: Option<&str>) -> Option<&mut Entry> {
        let known = |it: &Provider| deployment.is_none_or(|name| it.deployments.contains_key(name));
        if !self.providers.get(provider).is_some_and(known) {
            self.make_room(now);
            let provider = self.providers.entry(provider.to_owned()).or_default();
            if let Some(name) = deployment {
                provider.deployments.insert(name.to_owned(), Entry::default());
            }
        }
        let provider = self.providers.get_mut(provider)?;
        let entry = match deployment {
            None => &mut provider.own,
            Some(name) => provider.deployments.get_mut(name)?,
        };
        entry.vitals.seen = entry.vitals.seen.max(now);
        Some(entry)
    }

    /// Forgets what is idle and says nothing special.
    fn forget(&mut self, now: u64) {
        let stays = |entry: &Entry| {
            let vitals = &entry.vitals;
            vitals.seen.saturating_add(IDLE_MS) > now
                || vitals.breaker.state(now) == State::Open
                || vitals.pause(now).is_some()
        };
        for provider in self.providers.values_mut() {
            provider.deployments.retain(|_, entry| stays(entry));
        }
        // That a gauge knows nothing of a provider is a word, too.
        let is_heard = |it: &Provider| it.contact.heard_at.is_some_and(|at| at.saturating_add(IDLE_MS) > now);
        self.providers
            .retain(|_, it| it.manual.is_some() || !it.deployments.is_empty() || stays(&it.own) || is_heard(it));
    }

    /// Makes room for another entry: that of which nothing has been heard for longest goes.
    fn make_room(&mut self, now: u64) {
        let count: usize = self.providers.values().map(|it| it.deployments.len().saturating_add(1)).sum();
        if count < ENTRIES {
            return;
        }
        self.forget(now);
        let oldest = self.providers.iter().filter(|(_, it)| it.manual.is_none());
        let oldest = oldest.min_by_key(|(_, it)| {
            it.deployments.values().map(|entry| entry.vitals.seen).max().unwrap_or(0).max(it.own.vitals.seen)
        });
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.providers.remove(&name);
        }
    }
}

/// An observation on its way onto a board.
struct Seen<'a> {
    now: u64,
    terms: &'a Terms,
    seen: &'a Observation,
    at: u64,
    random: u64,
}

impl Seen<'_> {
    fn began(&self) -> u64 {
        self.at.saturating_sub(self.seen.total_ms)
    }

    /// What it says of the provider: of its address and its credential.
    fn by_provider(&self, entry: &mut Entry) -> Option<Transition> {
        let Observation { fault, probe, .. } = self.seen;
        if *fault == Some(Fault::QuotaExhausted) {
            let until = self.at.saturating_add(self.seen.retry_after_ms.unwrap_or(self.terms.breaker.max_open_ms));
            let before = entry.condition(self.now);
            let begins = entry.vitals.pause_until(self.now, until, Fault::QuotaExhausted);
            return begins.then(|| self.transition(None, before, entry));
        }
        let fault = match fault {
            Some(fault) if *probe || fault.blame() == Blame::Provider => Some(*fault),
            other if self.proves_contact(*other) => None,
            _ => return None,
        };
        self.note(entry, None, fault)
    }

    /// What it says of the model.
    fn by_model(&self, entry: &mut Entry) -> Option<Transition> {
        let Observation { fault, first_token_ms, total_ms, retry_after_ms, headroom, deployment, .. } = self.seen;
        let vitals = &mut entry.vitals;
        if let Some(headroom) = headroom.filter(|headroom| !headroom.is_empty()) {
            vitals.told(self.at, headroom);
        }
        // One that did not begin in time took at least as long as it was waited for.
        let too_slow = (*fault == Some(Fault::TooSlow)).then_some(*total_ms);
        if let Some(millis) = first_token_ms.or(too_slow) {
            vitals.first_token.note(self.now, millis);
        }
        match fault {
            Some(Fault::RateLimited) => {
                let before = entry.condition(self.now);
                let told = retry_after_ms.or_else(|| entry.vitals.left.whole_ms(self.now));
                let vitals = &mut entry.vitals;
                let begins = match told {
                    Some(millis) => vitals.pause_until(self.now, self.at.saturating_add(millis), Fault::RateLimited),
                    None => vitals.pause_for_a_while(self.now, self.at, self.began(), self.terms.cooldown_ms),
                };
                begins.then(|| self.transition(Some(deployment), before, entry))
            }
            Some(fault) if fault.blame() == Blame::Deployment => {
                let before = entry.condition(self.now);
                entry.vitals.rate.note(self.now, true);
                let begins = retry_after_ms
                    .is_some_and(|millis| entry.vitals.pause_until(self.now, self.at.saturating_add(millis), *fault));
                let turned = self.note(entry, Some(deployment), Some(*fault));
                turned.or_else(|| begins.then(|| self.transition(Some(deployment), before, entry)))
            }
            Some(Fault::Unreachable) => {
                vitals.rate.note(self.now, true);
                None
            }
            other if self.proves_life(*other) => {
                vitals.rate.note(self.now, false);
                vitals.answered(self.began());
                self.note(entry, Some(deployment), None)
            }
            _ => None,
        }
    }

    /// Whether the provider has been reached and has accepted the credential.
    fn proves_contact(&self, fault: Option<Fault>) -> bool {
        let begun = matches!(fault, Some(Fault::Stalled | Fault::Cut | Fault::RateLimited | Fault::ModelNotFound));
        begun || self.proves_life(fault)
    }

    /// Whether the model has answered.
    fn proves_life(&self, fault: Option<Fault>) -> bool {
        match fault {
            None => true,
            Some(Fault::ClientClosed) => self.seen.first_token_ms.is_some(),
            Some(fault) => fault.is_proof_of_life(),
        }
    }

    fn note(&self, entry: &mut Entry, model: Option<&str>, fault: Option<Fault>) -> Option<Transition> {
        // News that are older than anything a breaker looks back at say nothing of now.
        if self.at.saturating_add(self.terms.breaker.window_ms) < self.now {
            return None;
        }
        let before = entry.condition(self.now);
        let source = match self.seen {
            Observation { probe: true, .. } => Source::Probe,
            Observation { trial: true, .. } => Source::Trial,
            _ => Source::Request,
        };
        let evidence = Evidence { began: self.began(), fault, source };
        let turned = entry.vitals.breaker.note(self.now, &self.terms.breaker, evidence, self.random);
        turned.map(|_| self.transition(model, before, entry))
    }

    /// What an entry has become.
    fn transition(&self, model: Option<&str>, from: Condition, entry: &Entry) -> Transition {
        let vitals = &entry.vitals;
        let to = entry.condition(self.now);
        let until = match to {
            Condition::CoolingDown => vitals.cooldown.map(|cooldown| cooldown.until),
            _ => vitals.breaker.opening().map(|(_, until, _)| until),
        };
        let subject = Subject::new(&self.seen.provider, model);
        Transition { subject, from, to, fault: self.seen.fault, at: self.now, until }
    }
}

impl Entry {
    fn condition(&self, now: u64) -> Condition {
        match self.vitals.breaker.state(now) {
            State::Closed if self.vitals.pause(now).is_some() => Condition::CoolingDown,
            state => state.into(),
        }
    }
}
