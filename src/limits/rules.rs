//! Which rules apply to a caller.

use std::collections::HashMap;

use super::counters::Caller;
use super::rule::{EVERYBODY, Rule, Scope};

/// An object's own rules, by subject.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    root: Vec<Rule>,
    users: HashMap<String, Vec<Rule>>,
    keys: HashMap<String, Vec<Rule>>,
}

/// A rule that applies to somebody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied<'a> {
    pub(super) rule: &'a Rule,
    /// Whom it applies to.
    pub(super) subject: &'a str,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        let mut sorted = Self::default();
        for rule in rules {
            match rule.scope {
                Scope::Key => sorted.keys.entry(rule.subject.clone()).or_default().push(rule),
                Scope::User => sorted.users.entry(rule.subject.clone()).or_default().push(rule),
                Scope::Account | Scope::Provider => sorted.root.push(rule),
            }
        }
        sorted
    }

    /// The rules of users and keys, in the order of their ids.
    pub(super) fn inner(&self) -> Vec<&Rule> {
        let mut rules: Vec<&Rule> = self.users.values().chain(self.keys.values()).flatten().collect();
        rules.sort_by(|one, other| one.id.cmp(&other.id));
        rules
    }

    /// The rules that apply to a caller: its own, and the defaults that no rule of its own of the same kind replaces. The
    /// innermost scope comes first. A gauge knows one provider only, so whatever it is told of providers is meant for it.
    pub(super) fn applied<'a>(
        &'a self,
        root_scope: Scope,
        caller: &Caller<'a>,
        defaults: &'a [Rule],
    ) -> Vec<Applied<'a>> {
        let mut applied = Vec::new();
        let is_for = |rule: &Rule| caller.model.is_none_or(|model| rule.is_for_model(model));
        let mut collect = |scope: Scope, subject: &'a str, own: &'a [Rule]| {
            let own_ones = own.iter().filter(|rule| rule.scope == scope && is_for(rule));
            applied.extend(own_ones.map(|rule| Applied { rule, subject: &rule.subject }));
            let by_default = defaults.iter().filter(|rule| {
                rule.scope == scope
                    && (rule.subject == EVERYBODY || scope == Scope::Provider)
                    && is_for(rule)
                    && !own.iter().any(|own| own.is_of_the_kind_of(rule))
            });
            applied.extend(by_default.map(|rule| Applied { rule, subject }));
        };
        if root_scope == Scope::Account {
            collect(Scope::Key, caller.key, self.keys.get(caller.key).map_or(&[], Vec::as_slice));
            if let Some(user) = caller.user {
                collect(Scope::User, user, self.users.get(user).map_or(&[], Vec::as_slice));
            }
        }
        collect(root_scope, "", &self.root);
        applied
    }
}
