//! How things stand: of rules, of subjects, of connections.

use super::super::ask::RuleState;
use super::super::bucket::Flow;
use super::super::calendar::span;
use super::super::rule::{Dimension, Period};
use super::super::rules::Applied;
use super::*;

/// What a subject has used in the calendar periods of the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Today.
    pub day: Total,
    /// This week.
    pub week: Total,
    /// This month.
    pub month: Total,
    /// Ever.
    pub total: Total,
}

/// How many requests are open, by key.
pub type Connections = BTreeMap<String, u64>;

/// How a rule stands, without its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) used: u64,
    pub(super) reserved: u64,
    pub(super) remaining: u64,
    pub(super) reset_ms: u64,
}

impl Admission {
    /// How all rules stand that apply to a caller; to none of its models in particular if it names none.
    pub fn states(&self, now: u64, caller: &Caller<'_>, defaults: &[Rule]) -> Vec<RuleState> {
        let now = self.clock(now);
        self.states_of(now, caller, &self.rules.applied(self.subjects.root_scope(), caller, defaults))
    }

    /// How the rules of all users and keys stand, those by default left out; for one model, or for all.
    pub fn inner_states(&self, now: u64, model: Option<&str>) -> Vec<RuleState> {
        let now = self.clock(now);
        let rules = self.rules.inner().into_iter().filter(|rule| model.is_none_or(|model| rule.is_for_model(model)));
        let states = rules.flat_map(|rule| {
            let subject = rule.subject.as_str();
            let caller = match rule.scope {
                Scope::Key => Caller { key: subject, user: None, model },
                _ => Caller { key: "", user: Some(subject), model },
            };
            self.states_of(now, &caller, &[Applied { rule, subject }])
        });
        states.collect()
    }

    /// Whether any rule applies to a caller.
    pub fn applies(&self, caller: &Caller<'_>, defaults: &[Rule]) -> bool {
        !self.rules.applied(self.subjects.root_scope(), caller, defaults).is_empty()
    }

    /// The rules that apply to a caller, with their subjects' names.
    pub fn rules_of(&self, caller: &Caller<'_>, defaults: &[Rule]) -> Vec<Rule> {
        let applied = self.rules.applied(self.subjects.root_scope(), caller, defaults);
        applied.iter().map(|applied| Rule { subject: applied.subject.to_owned(), ..applied.rule.clone() }).collect()
    }

    /// The default rules that were in use last.
    pub fn defaults(&self) -> &[Rule] {
        &self.defaults
    }

    /// What a caller's key, user or account has used, with all models or with the one that the caller names.
    pub fn totals(&self, now: u64, scope: Scope, caller: &Caller<'_>) -> Totals {
        let now = self.clock(now);
        let Some(counters) = self.subjects.counters(scope, caller, caller.model) else { return Totals::default() };
        let of = |period| counters.total(period, now);
        Totals { day: of(Period::Day), week: of(Period::Week), month: of(Period::Month), total: of(Period::Total) }
    }

    /// How many requests are open, of all models or one. Those that should be settled by now count until they are expired.
    pub fn open(&self, model: Option<&str>) -> u64 {
        let anybody = Caller { key: "", user: None, model };
        let counters = self.subjects.counters(self.subjects.root_scope(), &anybody, model);
        counters.map_or(0, |counters| counters.connections())
    }

    /// How many requests of each key are open. Those that were admitted from a lease are not known here.
    pub fn connections(&self, now: u64) -> Connections {
        let mut connections = Connections::new();
        for row in self.open_requests(now) {
            let count = connections.entry(row.key_id.clone()).or_default();
            *count = count.saturating_add(1);
        }
        connections
    }

    /// Since when the oldest open request of each key is open, in Unix milliseconds.
    pub fn open_since(&self, now: u64) -> BTreeMap<String, u64> {
        let mut oldest = BTreeMap::new();
        for row in self.open_requests(now) {
            let at = oldest.entry(row.key_id.clone()).or_insert(row.at);
            *at = row.at.min(*at);
        }
        oldest
    }

    fn open_requests(&self, now: u64) -> impl Iterator<Item = &Row> {
        self.slots.values().filter_map(move |slot| match slot {
            Slot::Open(row) => {
                let is_open = !row.leased.is_lease() && matches!(row.stage, Stage::Open(until) if until > now);
                is_open.then_some(row.as_ref())
            }
            Slot::Settled | Slot::Expired => None,
        })
    }

    pub(super) fn states_of(&self, now: u64, caller: &Caller<'_>, applied: &[Applied<'_>]) -> Vec<RuleState> {
        let state = |applied: &Applied<'_>| {
            let (rule, terms) = (applied.rule, &applied.rule.terms);
            let Reading { used, reserved, remaining, reset_ms } = self.reading(now, caller, applied);
            RuleState {
                rule_id: rule.id.clone(),
                scope: rule.scope,
                subject: applied.subject.to_owned(),
                model: terms.model.clone(),
                dimension: terms.dimension,
                period: terms.period,
                mode: terms.mode,
                limit: rule.capacity(),
                used,
                reserved,
                remaining,
                reset_ms,
            }
        };
        applied.iter().map(state).collect()
    }

    pub(super) fn reading(&self, now: u64, caller: &Caller<'_>, applied: &Applied<'_>) -> Reading {
        let (rule, terms) = (applied.rule, &applied.rule.terms);
        let limit = rule.capacity();
        let nothing = Reading { used: 0, reserved: 0, remaining: limit, reset_ms: 0 };
        let counters = self.subjects.counters(rule.scope, caller, terms.model.as_deref());
        let reading = |used: u64, reserved: u64, until: u64| Reading {
            used,
            reserved,
            remaining: limit.saturating_sub(used),
            reset_ms: until.saturating_sub(now),
        };
        if terms.dimension == Dimension::Concurrency {
            return counters.map_or(nothing, |counters| reading(counters.connections(), 0, 0));
        }
        if let Some(period_ms) = terms.period.window_ms() {
            let flow = Flow { rate: terms.amount, period_ms };
            if terms.burst.is_some() {
                let bucket = counters.and_then(|counters| counters.bucket(terms.dimension, terms.period));
                return bucket.map_or(nothing, |bucket| {
                    let used = bucket.used(flow, now);
                    reading(used, 0, if used == 0 { now } else { bucket.empty_at(flow, now) })
                });
            }
            let window = counters.and_then(|counters| counters.window(terms.dimension, terms.period));
            return window.map_or(nothing, |window| {
                let used = window.used(period_ms, now);
                reading(used, 0, if used == 0 { now } else { window.empty_at(period_ms) })
            });
        }
        let period = terms.period.calendar();
        let end = Some(span(period, now).end).filter(|end| *end < u64::MAX).unwrap_or(now);
        let total = counters.map_or_else(Total::default, |counters| counters.total(period, now));
        reading(total.used().of(terms.dimension), total.reserved.of(terms.dimension), end)
    }
}
