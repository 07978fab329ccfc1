//! How an isolate's board and a gauge's agree, and what a gauge's keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Board, Entry, Manual, Observation, Provider, Subject, Terms};
use crate::routing::breaker::State;
use crate::routing::trials::{Leases, Permit};
use crate::routing::vitals::Vitals;

/// What an isolate would like of a gauge, and has of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Want {
    /// What it is about.
    pub subject: Subject,
    /// Whether a permit is wanted.
    pub asks: bool,
    /// The permits whose trials are under way.
    pub running: Vec<u64>,
}

/// What a gauge tells an isolate. Times are on the gauge's clock, which shows `now`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// What the gauge's clock shows.
    pub now: u64,
    /// All that it knows, by provider.
    pub providers: BTreeMap<String, ProviderSnapshot>,
}

/// What a gauge tells of a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderSnapshot {
    /// What somebody has decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manual: Option<Manual>,
    /// The provider as a whole.
    pub own: SubjectSnapshot,
    /// Its models.
    pub deployments: BTreeMap<String, SubjectSnapshot>,
}

/// What a gauge tells of a provider or a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectSnapshot {
    /// Its health.
    pub vitals: Vitals,
    /// The permits that the isolate has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permits: Vec<Permit>,
}

/// What a gauge keeps for the time after an eviction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stored {
    providers: BTreeMap<String, StoredProvider>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct StoredProvider {
    manual: Option<Manual>,
    own: StoredSubject,
    deployments: BTreeMap<String, StoredSubject>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct StoredSubject {
    vitals: Vitals,
    #[serde(skip_serializing_if = "Leases::is_empty")]
    leases: Leases,
}

impl Board {
    /// What an isolate wants of the gauge that keeps these providers, and has of it.
    pub fn wants(&self, now: u64, providers: &[&str]) -> Vec<Want> {
        let mut wants = Vec::new();
        for (name, provider) in providers.iter().filter_map(|name| self.providers.get_key_value(*name)) {
            let models = provider.deployments.iter().map(|(model, entry)| (Some(model.as_str()), entry));
            for (model, entry) in std::iter::once((None, &provider.own)).chain(models) {
                let running = entry.permits.running(now);
                let half_open = entry.vitals.breaker.state(now) == State::HalfOpen;
                let asks = half_open && entry.permits.wants(now);
                if asks || !running.is_empty() {
                    wants.push(Want { subject: Subject::new(name, model), asks, running });
                }
            }
        }
        wants
    }

    /// What a gauge tells an isolate: all that it knows, and the permits that it gives it.
    pub fn snapshot(&mut self, now: u64, terms: &Terms, holder: &str, wants: &[Want]) -> Snapshot {
        for want in wants {
            let Some(entry) = self.entry(now, &want.subject.provider, want.subject.deployment.as_deref()) else {
                continue;
            };
            entry.leases.keep(now, holder, &want.running);
            if want.asks && entry.vitals.breaker.state(now) == State::HalfOpen {
                let lasts = entry.leases.give(now, terms.breaker.trials, holder);
                self.changed |= lasts;
            }
        }
        self.forget(now);
        let providers = self.providers.iter().map(|(name, provider)| (name.clone(), provider.told(now, holder)));
        Snapshot { now, providers: providers.collect() }
    }

    /// Takes over what a gauge has told in answer to a question at `asked`. `unreported` is what this board has been given
    /// that was not in the question.
    pub fn adopt<'a>(
        &mut self,
        now: u64,
        terms: &Terms,
        asked: u64,
        snapshot: &Snapshot,
        unreported: impl IntoIterator<Item = &'a Observation>,
        random: u64,
    ) {
        for (name, told) in &snapshot.providers {
            let provider = self.provider(name);
            provider.contact.heard_at = Some(now);
            provider.contact.silent_since = None;
            provider.manual = told.manual;
            let adopt = |entry: &mut Entry, told: &SubjectSnapshot| {
                entry.vitals = told.vitals.clone();
                entry.vitals.shift(snapshot.now, now);
                entry.permits.adopt(now, &told.permits, snapshot.now, asked);
            };
            adopt(&mut provider.own, &told.own);
            for (model, entry) in &mut provider.deployments {
                if !told.deployments.contains_key(model) {
                    adopt(entry, &SubjectSnapshot::default());
                }
            }
            for (model, told) in &told.deployments {
                adopt(provider.deployments.entry(model.clone()).or_default(), told);
            }
        }
        for observation in unreported {
            self.take_in(now, terms, observation, random);
        }
        self.forget(now);
    }

    /// The gauge of some providers has not answered.
    pub fn unanswered(&mut self, now: u64, providers: &[&str]) {
        for name in providers {
            self.provider(name).contact.silent_since.get_or_insert(now);
        }
    }

    /// How long ago the gauge of a provider was last heard of, in milliseconds.
    pub fn age_ms(&self, now: u64, provider: &str) -> Option<u64> {
        let heard_at = self.providers.get(provider)?.contact.heard_at?;
        Some(now.saturating_sub(heard_at))
    }

    /// Whether something has changed, since this was last asked, that must survive an eviction.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What must survive an eviction.
    pub fn stored(&self, now: u64, terms: &Terms) -> Stored {
        let subject = |entry: &Entry| {
            let vitals = entry.vitals.lasting(now, terms.slow_start_ms);
            let stored = StoredSubject { vitals: vitals.clone().unwrap_or_default(), leases: entry.leases.clone() };
            (vitals.is_some() || !entry.leases.is_empty()).then_some(stored)
        };
        let provider = |(name, provider): (&String, &Provider)| {
            let models = provider.deployments.iter();
            let stored = StoredProvider {
                manual: provider.manual,
                own: subject(&provider.own).unwrap_or_default(),
                deployments: models.filter_map(|(name, entry)| Some((name.clone(), subject(entry)?))).collect(),
            };
            (stored != StoredProvider::default()).then(|| (name.clone(), stored))
        };
        Stored { providers: self.providers.iter().filter_map(provider).collect() }
    }

    /// A gauge's board after an eviction.
    pub fn restore(now: u64, stored: Stored) -> Self {
        let entry = |stored: StoredSubject| {
            let mut leases = stored.leases;
            leases.restored(now);
            Entry { vitals: stored.vitals, leases, ..Entry::default() }
        };
        let provider = |stored: StoredProvider| Provider {
            manual: stored.manual,
            own: entry(stored.own),
            deployments: stored.deployments.into_iter().map(|(name, stored)| (name, entry(stored))).collect(),
            ..Provider::default()
        };
        let providers = stored.providers.into_iter().map(|(name, stored)| (name, provider(stored)));
        Self { providers: providers.collect(), changed: false }
    }
}

impl Provider {
    fn told(&self, now: u64, holder: &str) -> ProviderSnapshot {
        let tell =
            |entry: &Entry| SubjectSnapshot { vitals: entry.vitals.clone(), permits: entry.leases.of(now, holder) };
        let models = self.deployments.iter().filter(|(_, entry)| !entry.vitals.is_pristine());
        ProviderSnapshot {
            manual: self.manual,
            own: tell(&self.own),
            deployments: models.map(|(name, entry)| (name.clone(), tell(entry))).collect(),
        }
    }
}
