//! What an isolate decides while an account's ledger cannot be reached.
//!
//! Rates are enforced by the isolate for itself, by the rules that it knows, with the ledger's own state machine. Money
//! fails closed: each key may spend a small grace, then nothing more until the ledger answers. Everything else, and
//! other choices, the deployment configures.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::admission::Admission;
use super::ask::{Answer, Ask, Denial, Settlement};
use super::row::Change;
use super::rule::{Dimension, LimitMode, Rule, Scope};

/// Accounts that are kept at most; the one that was asked for longest ago goes first.
const MOST_ACCOUNTS: usize = 500;

/// What happens to requests with a limit on anything but money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnreachableRates {
    /// Each isolate enforces the limits for itself.
    #[default]
    Local,
    /// They are served.
    Allow,
    /// They are refused.
    Deny,
}

/// What happens to requests with a limit on money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnreachableCost {
    /// They are served until the key's grace is spent in the isolate.
    #[default]
    Grace,
    /// They are served.
    Allow,
    /// They are refused.
    Deny,
}

/// How to decide without the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FallbackTerms {
    /// Rates, token quotas and concurrency.
    pub rates: UnreachableRates,
    /// Money.
    pub cost: UnreachableCost,
    /// How much a key may spend while the ledger cannot be reached, in nano-dollars.
    pub grace_nanos: u64,
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// No limit applies, or none that anybody wants enforced now.
    Allowed,
    /// The isolate's own count has room, or there is grace.
    Local {
        /// Whether grace was spent.
        grace: bool,
    },
    /// The isolate's own count has no room.
    Limited(Box<Denial>),
    /// Nothing is served while rates cannot be told.
    NoRates,
    /// No money is spent while budgets cannot be told.
    NoBudget,
}

/// How often what was decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FallbackCounts {
    /// Served without any limit looked at.
    pub allowed: u64,
    /// Served by the isolate's own count.
    pub local: u64,
    /// Served on a key's grace.
    pub grace: u64,
    /// Refused for a rate.
    pub limited: u64,
    /// Refused for money.
    pub no_budget: u64,
}

/// An isolate's own counts while ledgers cannot be reached.
#[derive(Debug, Default)]
pub struct Fallback {
    accounts: HashMap<String, Own>,
    counts: FallbackCounts,
}

#[derive(Debug)]
struct Own {
    admission: Admission,
    /// Nano-dollars by key.
    spent: HashMap<String, u64>,
    /// What open requests have reserved of their key's grace, in nano-dollars.
    reserved: HashMap<String, u64>,
    touched: u64,
}

impl Fallback {
    /// Decides for the ledger; `rules` are those that apply to the key as the ledger told them last.
    pub fn reserve(&mut self, now: u64, account: &str, ask: &Ask, rules: &[Rule], terms: &FallbackTerms) -> Decision {
        let decision = self.decide(now, account, ask, rules, terms);
        let counts = &mut self.counts;
        let count = match &decision {
            Decision::Allowed => &mut counts.allowed,
            Decision::Local { grace: false } => &mut counts.local,
            Decision::Local { grace: true } => &mut counts.grace,
            Decision::Limited(_) | Decision::NoRates => &mut counts.limited,
            Decision::NoBudget => &mut counts.no_budget,
        };
        *count = count.saturating_add(1);
        decision
    }

    /// What a request used that was admitted here.
    pub fn settle(&mut self, now: u64, account: &str, id: &str, settlement: &Settlement) {
        let Some(own) = self.accounts.get_mut(account) else { return };
        own.admission.settle(now, id, settlement);
        own.forget_closed();
        if let Some(reserved) = own.reserved.remove(id)
            && let Some(spent) = own.spent.get_mut(&settlement.key_id)
        {
            *spent = spent.saturating_sub(reserved).saturating_add(settlement.amounts.cost);
        }
    }

    /// The ledger has answered: its counts are the ones that count again, and the grace is whole.
    pub fn reached(&mut self, account: &str) {
        self.accounts.remove(account);
    }

    /// How often what was decided, since the isolate began.
    pub fn counts(&self) -> FallbackCounts {
        self.counts
    }

    fn decide(&mut self, now: u64, account: &str, ask: &Ask, rules: &[Rule], terms: &FallbackTerms) -> Decision {
        let enforced =
            rules.iter().filter(|rule| rule.terms.mode == LimitMode::Enforce && rule.is_for_model(&ask.model));
        let (money, rates): (Vec<&Rule>, Vec<&Rule>) =
            enforced.partition(|rule| rule.terms.dimension == Dimension::Cost);
        let by_grace = !money.is_empty() && terms.cost == UnreachableCost::Grace;
        if money.iter().any(|rule| rule.terms.amount == 0) || (!money.is_empty() && terms.cost == UnreachableCost::Deny)
        {
            return Decision::NoBudget;
        }
        if !rates.is_empty() && terms.rates == UnreachableRates::Deny {
            return Decision::NoRates;
        }
        let by_count = !rates.is_empty() && terms.rates == UnreachableRates::Local;
        if !by_grace && !by_count {
            return Decision::Allowed;
        }
        let own = self.own(now, account);
        let output = ask.first_output_tokens.min(ask.max_output_tokens);
        let cost = ask.prices.map_or(0, |prices| prices.cost(ask.input_tokens, output));
        // What it holds with an earlier turn is replaced.
        let held = own.reserved.get(&ask.id).copied();
        let spent = own.spent.get(&ask.key_id).copied().unwrap_or(0).saturating_sub(held.unwrap_or(0));
        if by_grace && spent.saturating_add(cost) > terms.grace_nanos {
            return Decision::NoBudget;
        }
        if by_count {
            own.admission.set_rules(rates.into_iter().cloned().collect());
            let ask = Ask { defaults: Vec::new(), holder: String::new(), ..ask.clone() };
            let answer = own.admission.reserve(now, &ask);
            own.forget_closed();
            if let Answer::Denied(denial) = answer {
                return Decision::Limited(Box::new(denial));
            }
        }
        if by_grace && (held.is_none() || ask.turn > 0) {
            own.spent.insert(ask.key_id.clone(), spent.saturating_add(cost));
            own.reserved.insert(ask.id.clone(), cost);
        }
        Decision::Local { grace: by_grace }
    }

    fn own(&mut self, now: u64, account: &str) -> &mut Own {
        if self.accounts.len() >= MOST_ACCOUNTS && !self.accounts.contains_key(account) {
            let oldest = self.accounts.iter().min_by_key(|(name, own)| (own.touched, name.as_str()));
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.accounts.remove(&oldest);
            }
        }
        let own = self.accounts.entry(account.to_owned()).or_insert_with(|| Own {
            admission: Admission::new(Scope::Account),
            spent: HashMap::new(),
            reserved: HashMap::new(),
            touched: now,
        });
        own.touched = now;
        own
    }
}

impl Own {
    /// Nothing of this is stored, and no id comes again.
    fn forget_closed(&mut self) {
        for change in self.admission.take_changes() {
            if let Change::Put(row) = change
                && !row.is_open()
            {
                self.admission.forget([row.id.as_str()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::amounts::{Amounts, AskPrices};
    use super::*;

    fn rule(dimension: &str, period: &str, amount: u64) -> Rule {
        let rule = serde_json::json!({"id": dimension, "scope": "key", "subject": "k", "dimension": dimension,
            "period": period, "amount": amount});
        serde_json::from_value(rule).unwrap()
    }

    fn ask(id: &str) -> Ask {
        let prices = Some(AskPrices { fixed: 40, ..AskPrices::default() });
        Ask { id: id.into(), key_id: "k".into(), model: "m".into(), prices, lifetime_ms: 1_000, ..Ask::default() }
    }

    const TERMS: FallbackTerms =
        FallbackTerms { rates: UnreachableRates::Local, cost: UnreachableCost::Grace, grace_nanos: 100 };

    #[test]
    fn rates_are_enforced_by_the_isolates_own_count() {
        let mut fallback = Fallback::default();
        let rules = [rule("requests", "minute", 2)];
        assert_eq!(fallback.reserve(0, "a", &ask("1"), &rules, &TERMS), Decision::Local { grace: false });
        assert_eq!(fallback.reserve(0, "a", &ask("2"), &rules, &TERMS), Decision::Local { grace: false });
        let Decision::Limited(denial) = fallback.reserve(9, "a", &ask("3"), &rules, &TERMS) else { panic!("full") };
        assert_eq!(denial.breach.retry_after_ms, Some(59_991));
        assert_eq!(fallback.reserve(9, "b", &ask("3"), &rules, &TERMS), Decision::Local { grace: false });
        fallback.reached("a");
        assert_eq!(fallback.reserve(9, "a", &ask("3"), &rules, &TERMS), Decision::Local { grace: false });
        assert_eq!(fallback.reserve(9, "a", &ask("4"), &[], &TERMS), Decision::Allowed);
        let deny = FallbackTerms { rates: UnreachableRates::Deny, ..TERMS };
        assert_eq!(fallback.reserve(9, "a", &ask("5"), &rules, &deny), Decision::NoRates);
        let counts = FallbackCounts { allowed: 1, local: 4, limited: 2, ..FallbackCounts::default() };
        assert_eq!(fallback.counts(), counts);
    }

    #[test]
    fn money_ends_with_the_grace() {
        let mut fallback = Fallback::default();
        let rules = [rule("cost", "month", 1_000_000)];
        let mut answers: Vec<_> = ["1", "2", "3"].map(|id| fallback.reserve(0, "a", &ask(id), &rules, &TERMS)).into();
        let spent = Settlement {
            key_id: "k".into(),
            amounts: Amounts { requests: 1, cost: 10, ..Amounts::default() },
            ..Settlement::default()
        };
        fallback.settle(5, "a", "1", &spent);
        answers.extend(["4", "5"].map(|id| fallback.reserve(0, "a", &ask(id), &rules, &TERMS)));
        let (grace, none) = (Decision::Local { grace: true }, Decision::NoBudget);
        assert_eq!(answers, [grace.clone(), grace.clone(), none.clone(), grace, none.clone()]);
        let deny = FallbackTerms { cost: UnreachableCost::Deny, ..TERMS };
        assert_eq!(fallback.reserve(0, "b", &ask("1"), &rules, &deny), none);
        let allow = FallbackTerms { cost: UnreachableCost::Allow, ..TERMS };
        assert_eq!(fallback.reserve(0, "b", &ask("1"), &rules, &allow), Decision::Allowed);
        assert_eq!(fallback.reserve(0, "b", &ask("1"), &[rule("cost", "total", 0)], &allow), none);
    }

    #[test]
    fn only_so_many_accounts_are_kept() {
        let mut fallback = Fallback::default();
        for n in 0..600 {
            fallback.reserve(n, &n.to_string(), &ask("1"), &[rule("requests", "minute", 2)], &TERMS);
        }
        assert_eq!(fallback.accounts.len(), MOST_ACCOUNTS);
        assert!(!fallback.accounts.contains_key("99") && fallback.accounts.contains_key("100"));
    }
}
