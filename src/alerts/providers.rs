//! What gauges raise about providers: one refuses its credential, wants to be paid, or does not answer as it should. Such
//! an event is opened once and lasts until that is over.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::routing::board::{Condition, Observation, Subject, Transition};
use crate::routing::outcome::Fault;

/// What is wrong with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// It refuses its credential.
    ProviderAuth,
    /// It wants to be paid.
    ProviderQuota,
    /// It, or a model there, does not answer as it should.
    ProviderDown,
}

/// More about the provider that an event speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProviderDetail {
    /// The provider.
    pub provider: String,
    /// The model, if it is not about the provider as a whole.
    #[serde(default)]
    pub model: Option<String>,
    /// How the attempt failed that led to it.
    #[serde(default)]
    pub fault: Option<Fault>,
}

/// What is to become of a row of the table `alert_events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderEvent {
    /// The same for the same event: told twice it is stored once.
    pub id: String,
    /// The kind and whose: of these at most one event is open.
    pub rule_id: String,
    /// What has happened, for people.
    pub name: String,
    /// What kind of event it is.
    pub kind: Trouble,
    /// Since when, in Unix seconds.
    pub started_at: u64,
    /// Until when, in Unix seconds; `None`: it lasts.
    pub resolved_at: Option<u64>,
    /// More about the provider.
    pub detail: ProviderDetail,
}

/// The events that are open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderAlerts {
    open: BTreeMap<String, ProviderEvent>,
}

impl ProviderAlerts {
    /// Something has changed: what follows for the table.
    pub fn changed(&mut self, transition: &Transition) -> Vec<ProviderEvent> {
        let Transition { subject, to, fault, at, .. } = transition;
        match (to, fault) {
            (Condition::Open, Some(Fault::Auth)) => self.open(Trouble::ProviderAuth, subject, *fault, *at),
            (Condition::Open, _) => self.open(Trouble::ProviderDown, subject, *fault, *at),
            (Condition::CoolingDown, Some(Fault::QuotaExhausted)) => {
                self.open(Trouble::ProviderQuota, subject, *fault, *at)
            }
            (Condition::Closed, _) => self.resolve(*at, |event| event.is_about(subject)),
            _ => Vec::new(),
        }
    }

    /// A request has come to something: one that succeeded shows that the provider has been paid.
    pub fn seen(&mut self, now: u64, seen: &Observation) -> Vec<ProviderEvent> {
        if self.open.is_empty() || seen.fault.is_some() || seen.probe {
            return Vec::new();
        }
        let began = seen.at.saturating_sub(seen.total_ms) / 1_000;
        self.resolve(now, |event| {
            let paid = event.kind == Trouble::ProviderQuota && event.started_at < began;
            paid && event.detail.provider == seen.provider
        })
    }

    /// Only these breakers are not closed. A board may have forgotten one of which nothing was heard for long.
    pub fn only(&mut self, now: u64, not_closed: &BTreeSet<Subject>) -> Vec<ProviderEvent> {
        self.resolve(now, |event| {
            let subject = Subject::new(&event.detail.provider, event.detail.model.as_deref());
            event.kind != Trouble::ProviderQuota && !not_closed.contains(&subject)
        })
    }

    /// Whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn open(&mut self, kind: Trouble, subject: &Subject, fault: Option<Fault>, at: u64) -> Vec<ProviderEvent> {
        let event = ProviderEvent::new(kind, subject, fault, at);
        if self.open.contains_key(&event.rule_id) {
            return Vec::new();
        }
        self.open.insert(event.rule_id.clone(), event.clone());
        vec![event]
    }

    fn resolve(&mut self, now: u64, which: impl Fn(&ProviderEvent) -> bool) -> Vec<ProviderEvent> {
        let over: Vec<String> =
            self.open.iter().filter(|(_, event)| which(event)).map(|(rule_id, _)| rule_id.clone()).collect();
        let over = over.iter().filter_map(|rule_id| self.open.remove(rule_id));
        over.map(|event| ProviderEvent { resolved_at: Some((now / 1_000).max(event.started_at)), ..event }).collect()
    }
}

impl ProviderEvent {
    fn new(kind: Trouble, subject: &Subject, fault: Option<Fault>, at: u64) -> Self {
        let Subject { provider, deployment } = subject;
        let (word, name) = match (kind, deployment) {
            (Trouble::ProviderAuth, _) => ("provider_auth", format!("Provider {provider} refuses its credential")),
            (Trouble::ProviderQuota, _) => ("provider_quota", format!("Provider {provider} wants to be paid")),
            (Trouble::ProviderDown, None) => {
                ("provider_down", format!("Provider {provider} does not answer as it should"))
            }
            (Trouble::ProviderDown, Some(model)) => {
                ("provider_down", format!("Model {model} at provider {provider} does not answer as it should"))
            }
        };
        let rule_id = match deployment {
            None => format!("{word}:{provider}"),
            Some(model) => format!("{word}:{provider}:{model}"),
        };
        let digest = Sha256::digest(serde_json::json!([rule_id, at]).to_string());
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self {
            id: format!("prv-{hex}"),
            rule_id,
            name,
            kind,
            started_at: at / 1_000,
            resolved_at: None,
            detail: ProviderDetail { provider: provider.clone(), model: deployment.clone(), fault },
        }
    }

    fn is_about(&self, subject: &Subject) -> bool {
        let ProviderDetail { provider, model, .. } = &self.detail;
        *provider == subject.provider && *model == subject.deployment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(deployment: Option<&str>, to: Condition, fault: Option<Fault>, at: u64) -> Transition {
        let from = if to == Condition::Closed { Condition::HalfOpen } else { Condition::Closed };
        Transition { subject: Subject::new("p", deployment), from, to, fault, at, until: None }
    }

    #[test]
    fn an_opening_raises_one_event_that_its_closing_resolves() {
        let mut alerts = ProviderAlerts::default();
        let opened = alerts.changed(&change(Some("m"), Condition::Open, Some(Fault::ServerError), 5_000));
        let [event] = opened.as_slice() else { panic!("one event: {opened:?}") };
        assert_eq!((event.rule_id.as_str(), event.kind), ("provider_down:p:m", Trouble::ProviderDown));
        assert_eq!((event.started_at, event.resolved_at), (5, None));
        assert!(alerts.changed(&change(Some("m"), Condition::HalfOpen, None, 9_000)).is_empty());
        assert!(
            alerts.changed(&change(Some("m"), Condition::Open, Some(Fault::Reset), 9_500)).is_empty(),
            "still open"
        );
        assert!(alerts.changed(&change(None, Condition::Closed, None, 9_800)).is_empty(), "that is another");
        let over = alerts.changed(&change(Some("m"), Condition::Closed, None, 12_000));
        assert_eq!(over, [ProviderEvent { resolved_at: Some(12), ..event.clone() }]);
        let again = alerts.changed(&change(Some("m"), Condition::Open, Some(Fault::Reset), 20_000));
        assert_ne!(again[0].id, event.id);
    }

    #[test]
    fn each_kind_of_trouble_has_its_own_event() {
        let mut alerts = ProviderAlerts::default();
        let kinds = |events: Vec<ProviderEvent>| events.into_iter().map(|event| event.kind).collect::<Vec<_>>();
        let auth = alerts.changed(&change(None, Condition::Open, Some(Fault::Auth), 1_000));
        assert_eq!(kinds(auth), [Trouble::ProviderAuth]);
        let down = alerts.changed(&change(None, Condition::Open, Some(Fault::Unreachable), 2_000));
        assert_eq!(kinds(down), [Trouble::ProviderDown]);
        let limited = alerts.changed(&change(Some("m"), Condition::CoolingDown, Some(Fault::RateLimited), 2_000));
        assert!(limited.is_empty(), "a rate limit is no trouble");
        assert_eq!(alerts.changed(&change(None, Condition::Closed, None, 3_000)).len(), 2);
        assert!(alerts.is_empty());
    }

    #[test]
    fn a_success_shows_that_a_provider_has_been_paid() {
        let mut alerts = ProviderAlerts::default();
        alerts.changed(&change(None, Condition::CoolingDown, Some(Fault::QuotaExhausted), 5_000));
        let seen = |fault, at| Observation { provider: "p".into(), fault, total_ms: 500, at, ..Observation::default() };
        assert!(alerts.seen(5_900, &seen(None, 5_900)).is_empty(), "it began before");
        assert!(alerts.seen(8_000, &seen(Some(Fault::QuotaExhausted), 8_000)).is_empty());
        let over = alerts.seen(9_000, &seen(None, 9_000));
        assert_eq!((over[0].kind, over[0].resolved_at), (Trouble::ProviderQuota, Some(9)));
    }

    #[test]
    fn what_the_board_has_forgotten_is_over() {
        let mut alerts = ProviderAlerts::default();
        alerts.changed(&change(Some("m"), Condition::Open, Some(Fault::Reset), 1_000));
        alerts.changed(&change(None, Condition::CoolingDown, Some(Fault::QuotaExhausted), 1_000));
        assert!(alerts.only(2_000, &BTreeSet::from([Subject::new("p", Some("m"))])).is_empty());
        let over = alerts.only(3_000, &BTreeSet::new());
        assert_eq!((over.len(), over[0].kind, over[0].resolved_at), (1, Trouble::ProviderDown, Some(3)));
        assert!(!alerts.is_empty(), "nobody has paid");
    }

    #[test]
    fn open_events_survive_being_stored() {
        let mut alerts = ProviderAlerts::default();
        alerts.changed(&change(None, Condition::Open, Some(Fault::Auth), 1_000));
        let stored: ProviderAlerts = serde_json::from_str(&serde_json::to_string(&alerts).unwrap()).unwrap();
        assert_eq!(stored, alerts);
    }
}
