//! What must hold, worked out from what really happened and independently of what is tested.
//!
//! 1. Whatever was admitted counts with what it used, but never with more than was reserved for it: what is used beyond a
//!    reservation can only be known afterwards. Counted so, every enforced rule holds, in true time: in every sliding
//!    window, in any stretch of time for buckets, in every calendar period; and so does concurrency.
//! 2. What the ledger has counted is the sum of what was settled or charged, to the nano-dollar, for every subject.
//! 3. Every id is counted once, and after everything has expired nothing is reserved (the world checks these).

use std::collections::BTreeMap;

use crate::limits::admission::Admission;
use crate::limits::amounts::Amounts;
use crate::limits::calendar::span;
use crate::limits::counters::Caller;
use crate::limits::row::Row;
use crate::limits::rule::{Dimension, LimitMode, Period, Rule, Scope};

/// For how long a lease may be used that was granted under an older amount, and its grant be on its way.
const LEASE_MS: u64 = 10_000;

/// A request that was admitted, by the ledger or from a lease.
pub(super) struct Decision {
    /// When, in true time.
    pub(super) at: u64,
    pub(super) key: String,
    pub(super) user: Option<String>,
    pub(super) model: String,
    pub(super) reserved: Amounts,
    /// What counts for it in the end.
    pub(super) counted: Amounts,
    /// When it was over.
    pub(super) end: u64,
}

#[derive(Default)]
pub(super) struct Oracle {
    decisions: BTreeMap<String, Decision>,
    /// What the ledger settled or charged: by key, user and model.
    entries: Vec<(String, Option<String>, String, Amounts)>,
    /// Amounts and bursts of rules, and since when.
    rules: Vec<(u64, Vec<Rule>)>,
    defaults: Vec<Rule>,
}

impl Oracle {
    pub(super) fn rules_since(&mut self, now: u64, rules: &[Rule], defaults: &[Rule]) {
        self.rules.push((now, rules.to_vec()));
        self.defaults = defaults.to_vec();
    }

    pub(super) fn decided(&mut self, id: &str, decision: Decision) {
        let before = self.decisions.insert(id.to_owned(), decision);
        assert!(before.is_none(), "{id} is admitted twice");
    }

    /// A request has gone on: what the ledger has reserved for it now, with which model and since when.
    pub(super) fn moved(&mut self, row: &Row) {
        if let Some(decision) = self.decisions.get_mut(&row.id) {
            let (at, model, amounts) = (row.at, row.model.clone(), row.amounts);
            (decision.at, decision.model, decision.reserved, decision.counted) = (at, model, amounts, amounts);
        }
    }

    pub(super) fn ended(&mut self, id: &str, at: u64) {
        if let Some(decision) = self.decisions.get_mut(id) {
            decision.end = decision.end.min(at);
        }
    }

    pub(super) fn settled(&mut self, id: &str, amounts: Amounts) {
        if let Some(decision) = self.decisions.get_mut(id) {
            decision.counted = amounts;
        }
    }

    pub(super) fn entry(&mut self, row: &Row) {
        self.entries.push((row.key_id.clone(), row.user.clone(), row.model.clone(), row.amounts));
    }

    pub(super) fn check(&self, ledger: &Admission, now: u64) {
        self.check_sums(ledger, now);
        let rules = self.rules.last().map_or(&[][..], |(_, rules)| rules);
        for rule in rules.iter().filter(|rule| rule.terms.mode == LimitMode::Enforce) {
            self.check_rule(rule, &rule.subject);
        }
        for default in self.defaults.iter().filter(|rule| rule.terms.mode == LimitMode::Enforce) {
            for subject in ["k0", "k1", "k2", "u0", "acc"] {
                let is_replaced = rules.iter().any(|rule| {
                    let same = (&rule.terms.model, rule.terms.dimension, rule.terms.period)
                        == (&default.terms.model, default.terms.dimension, default.terms.period);
                    same && rule.scope == default.scope && rule.subject == subject
                });
                if !is_replaced {
                    self.check_rule(default, subject);
                }
            }
        }
    }

    fn check_sums(&self, ledger: &Admission, now: u64) {
        for key in ["k0", "k1", "k2"] {
            for model in [None, Some("m0"), Some("m1")] {
                let user = (key != "k2").then_some("u0");
                let caller = Caller { key, user, model };
                for scope in [Scope::Key, Scope::User, Scope::Account] {
                    let counts = |(of_key, of_user, of_model, _): &&(String, Option<String>, String, Amounts)| {
                        let subject = match scope {
                            Scope::Key => of_key == key,
                            Scope::User => user.is_some() && of_user.as_deref() == user,
                            Scope::Account | Scope::Provider => true,
                        };
                        subject && model.is_none_or(|model| model == of_model)
                    };
                    let entries = self.entries.iter().filter(counts);
                    let sum = entries.fold(Amounts::default(), |sum, (.., amounts)| sum.plus(amounts));
                    let total = ledger.totals(now, scope, &caller).total;
                    assert_eq!((total.settled, total.reserved), (sum, Amounts::default()), "{scope:?} {caller:?}");
                }
            }
        }
    }

    /// The decisions that count for a rule on a subject, in their order: when, how much, and until when they ran.
    fn counted(&self, rule: &Rule, subject: &str) -> Vec<(u64, u64, u64)> {
        let is_for = |decision: &&Decision| {
            let is_subject = match rule.scope {
                Scope::Key => decision.key == subject,
                Scope::User => decision.user.as_deref() == Some(subject),
                Scope::Account | Scope::Provider => subject == "acc",
            };
            is_subject && rule.terms.model.as_ref().is_none_or(|model| *model == decision.model)
        };
        let counted = |decision: &Decision| {
            let amount = match rule.terms.dimension {
                Dimension::Concurrency => 1,
                // The parts of a reservation stand in for each other.
                dimension => decision.counted.of(dimension).min(decision.reserved.of(dimension)),
            };
            (decision.at, amount, decision.end)
        };
        let mut events: Vec<_> = self.decisions.values().filter(is_for).map(counted).collect();
        events.sort_unstable();
        events
    }

    /// The most that a rule has allowed at a time, or shortly before.
    fn limit(&self, rule: &Rule, at: u64) -> (u64, u64) {
        if rule.subject == "*" {
            return (rule.terms.amount, rule.capacity());
        }
        let (mut amount, mut capacity) = (0, 0);
        for (nth, (_, rules)) in self.rules.iter().enumerate() {
            let until = self.rules.get(nth + 1).map_or(u64::MAX, |(since, _)| *since);
            let current = rules.iter().find(|other| other.id == rule.id).unwrap();
            if self.rules[nth].0 <= at && at <= until.saturating_add(LEASE_MS) {
                amount = current.terms.amount.max(amount);
                capacity = current.capacity().max(capacity);
            }
        }
        (amount, capacity)
    }

    fn check_rule(&self, rule: &Rule, subject: &str) {
        let events = self.counted(rule, subject);
        let terms = &rule.terms;
        let holds = |sum: u64, limit: u64, at: u64| {
            assert!(sum <= limit, "{sum} instead of {limit} at {at} for {subject} by {rule:?}: {events:?}");
        };
        for (nth, (at, amount, _)) in events.iter().enumerate() {
            if *amount == 0 {
                continue;
            }
            let (limit, capacity) = self.limit(rule, *at);
            let so_far = &events[..=nth];
            match (terms.dimension, terms.period.window_ms()) {
                (Dimension::Concurrency, _) => {
                    let open = so_far.iter().filter(|(_, _, end)| end > at).count();
                    holds(open as u64, limit, *at);
                }
                (_, Some(period)) if terms.burst.is_some() => {
                    // Amounts change; the rate has never been higher than the highest.
                    let rate = self.rules.iter().flat_map(|(_, rules)| rules).filter(|other| other.id == rule.id);
                    let rate = rate.map(|other| other.terms.amount).max().unwrap_or(limit).max(limit);
                    let mut sum = 0;
                    for (from, amount, _) in so_far.iter().rev() {
                        sum += amount;
                        holds(sum * period, capacity * period + rate * (at - from), *at);
                    }
                }
                (_, Some(period)) => {
                    holds(sum(so_far, |(from, ..)| from + period > *at), limit, *at);
                }
                (_, None) => {
                    let period = if terms.period == Period::None { Period::Total } else { terms.period };
                    let start = span(period, *at).start;
                    holds(sum(so_far, |(from, ..)| *from >= start), limit, *at);
                }
            }
        }
    }
}

fn sum(events: &[(u64, u64, u64)], counts: impl Fn(&(u64, u64, u64)) -> bool) -> u64 {
    events.iter().filter(|event| counts(event)).map(|(_, amount, _)| amount).sum()
}
