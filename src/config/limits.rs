//! Section `limits`: limits and budgets that hold by default, and how all of them are enforced.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{Bounded, Problems, at, fields, section};
use crate::billing::{Nanodollars, RequestPrice};
use crate::error::FieldProblem;
pub use crate::limits::fallback::{UnreachableCost, UnreachableRates};
use crate::limits::rule::{Dimension, LimitTerms, Period};

section! {
    /// Limits and budgets: those that hold by default, and how all of them are enforced.
    pub struct Limits {
        /// What every key is limited to. A limit that the admin API has set for the key itself, of the same model,
        /// dimension and period, takes the place of one here.
        pub per_key: Vec<LimitTerms> = Vec::new(), items 0 ..= 20;
        /// What every user is limited to, with all keys together. A limit of the user's own takes the place of one here.
        pub per_user: Vec<LimitTerms> = Vec::new(), items 0 ..= 20;
        /// What every account is limited to. A limit of the account's own takes the place of one here.
        pub per_account: Vec<LimitTerms> = Vec::new(), items 0 ..= 20;
        /// What happens to limits on requests, tokens and concurrency while the account's ledger cannot be reached.
        pub when_unreachable_rates: UnreachableRates = UnreachableRates::Local;
        /// What happens to budgets while the account's ledger cannot be reached.
        pub when_unreachable_cost: UnreachableCost = UnreachableCost::Grace;
        /// What a key with a budget may spend in one isolate while the ledger cannot be reached, in US dollars as a decimal
        /// in a string.
        pub grace_cost: RequestPrice = RequestPrice(Nanodollars(500_000_000));
        /// How long an isolate may admit requests of a busy key from what the ledger has lent it, in milliseconds. 0: the
        /// ledger is asked about every request that a limit applies to.
        pub lease_ms: u64 = 2_000, in 0 ..= 10_000;
        /// How much of the room under a limit the ledger lends one isolate at most, in per cent.
        pub lease_share_percent: u64 = 5, in 1 ..= 25;
        /// Which share of a key's earlier answers, in per cent, was not longer than the output that is reserved for the
        /// next one.
        pub output_quantile_percent: u64 = 95, in 50 ..= 100;
        /// Output tokens that are reserved where nothing is known yet of how long answers are.
        pub first_output_tokens: u64 = 1_000, in 1 ..= 1_000_000;
        /// How much longer than the request itself may take a reservation lasts that nobody settles, in milliseconds. It is
        /// then charged as reserved.
        pub reservation_slack_ms: u64 = 30_000, in 1_000 ..= 600_000;
        /// Which limits callers are told of, in headers, refusals and `GET /v1/key`.
        pub disclose: Disclose = Disclose::All;
        /// At which parts of a quota or budget of a day or more an alert event is raised, in per cent.
        pub alert_thresholds: Vec<u64> = vec![50, 80, 95, 100], items 0 ..= 16;
        /// Whether requests that no limit applies to are announced to the ledger as well, so that the counts of open
        /// requests are complete. Costs a call to the account's object each.
        pub count_connections: bool = false;
    }
}

/// Which limits callers are told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disclose {
    /// All that apply to them.
    #[default]
    All,
    /// Those of their key and its user; not the account's.
    Own,
    /// None: a refusal says only when to come again.
    None,
}

fields! {
    /// What a key says differently of how limits are enforced.
    #[derive(Default, Eq)]
    #[serde(default, deny_unknown_fields)]
    pub struct LimitOverrides {
        /// In place of `limits.when_unreachable_rates`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub when_unreachable_rates: Option<UnreachableRates>;
        /// In place of `limits.when_unreachable_cost`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub when_unreachable_cost: Option<UnreachableCost>;
        /// In place of `limits.grace_cost`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub grace_cost: Option<RequestPrice>;
    }
}

impl LimitOverrides {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The section as it counts for the key.
    pub fn apply(&self, limits: &mut Limits) {
        limits.when_unreachable_rates = self.when_unreachable_rates.unwrap_or(limits.when_unreachable_rates);
        limits.when_unreachable_cost = self.when_unreachable_cost.unwrap_or(limits.when_unreachable_cost);
        limits.grace_cost = self.grace_cost.unwrap_or(limits.grace_cost);
    }
}

/// Numbers beyond this are not exact in JavaScript.
const LARGEST: u64 = (1 << 53) - 1;

/// Longest name of a model, in characters.
const MODEL_CHARS: u64 = 256;

/// What is wrong with a limit's terms, which stand at `place`.
pub fn problems_of_terms(terms: &LimitTerms, place: &str) -> Vec<FieldProblem> {
    let mut found = Problems::default();
    let model = terms.model.as_ref().map(|model| model.chars().count() as u64);
    found.check(
        place,
        &[
            ("amount", Some(terms.amount), 0, LARGEST, ""),
            ("burst", terms.burst, 1, LARGEST, ""),
            ("model", model, 1, MODEL_CHARS, "characters"),
        ],
    );
    if (terms.dimension == Dimension::Concurrency) != (terms.period == Period::None) {
        found.add(&at(place, "period"), "must be `none` for `concurrency`, and for nothing else");
    }
    if terms.burst.is_some() && !matches!(terms.period, Period::Second | Period::Minute | Period::Hour) {
        found.add(&at(place, "burst"), "must be left out: only a limit a second, minute or hour has one");
    }
    found.0
}

/// What is wrong with a list of limits' terms for the same subject, which stands at `path`.
pub fn problems_of_list(list: &[LimitTerms], path: &str) -> Vec<FieldProblem> {
    let mut found = Problems::default();
    for (nth, terms) in list.iter().enumerate() {
        let place = format!("{path}[{nth}]");
        found.0.extend(problems_of_terms(terms, &place));
        let same = |other: &&LimitTerms| {
            (&other.model, other.dimension, other.period) == (&terms.model, terms.dimension, terms.period)
        };
        if list.iter().take(nth).any(|other| same(&other)) {
            found.add(&place, "there is another limit of the same model, dimension and period in this list");
        }
    }
    found.0
}

impl Problems {
    /// Checks a section of limits.
    pub(super) fn limits(&mut self, limits: &Limits) {
        limits.check_bounds("limits", self);
        for (name, terms) in
            [("per_key", &limits.per_key), ("per_user", &limits.per_user), ("per_account", &limits.per_account)]
        {
            self.list_of_terms(&format!("limits.{name}"), terms);
        }
        for (nth, percent) in limits.alert_thresholds.iter().enumerate() {
            if !(1..=200).contains(percent) {
                self.add(&format!("limits.alert_thresholds[{nth}]"), format!("is {percent}, but must be 1 to 200"));
            }
        }
    }

    /// Checks a list of limits' terms.
    pub(super) fn list_of_terms(&mut self, path: &str, list: &[LimitTerms]) {
        self.0.extend(problems_of_list(list, path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use serde_json::json;

    fn wrong(limits: serde_json::Value) -> Vec<String> {
        let parsed = Config::parse(&json!({"limits": limits}));
        parsed.err().unwrap_or_default().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn limits_must_make_sense() {
        let fine = json!({
            "per_key": [{"dimension": "requests", "period": "minute", "amount": 60, "burst": 10},
                {"dimension": "requests", "period": "hour", "amount": 0}, {"dimension": "concurrency", "period": "none", "amount": 3}],
            "per_account": [{"dimension": "cost", "period": "month", "amount": 5_000_000_000_u64, "model": "m"}],
        });
        assert_eq!(wrong(fine), [""; 0]);
        let odd = json!({
            "per_user": [{"dimension": "requests", "period": "none", "amount": 1},
                {"dimension": "concurrency", "period": "minute", "amount": 1},
                {"dimension": "cost", "period": "day", "amount": 1, "burst": 0},
                {"dimension": "cost", "period": "day", "amount": 9_007_199_254_740_992_u64},
                {"dimension": "cost", "period": "week", "amount": 1, "model": ""}],
            "alert_thresholds": [0, 100, 201],
        });
        assert_eq!(
            wrong(odd),
            [
                "limits.per_user[0].period",
                "limits.per_user[1].period",
                "limits.per_user[2].burst",
                "limits.per_user[2].burst",
                "limits.per_user[3].amount",
                "limits.per_user[3]",
                "limits.per_user[4].model",
                "limits.alert_thresholds[0]",
                "limits.alert_thresholds[2]",
            ]
        );
    }

    #[test]
    fn a_key_says_what_counts_for_it() {
        let overrides: LimitOverrides =
            serde_json::from_value(json!({"when_unreachable_cost": "deny", "grace_cost": "0.1"})).unwrap();
        let mut limits = Limits::default();
        overrides.apply(&mut limits);
        assert_eq!(
            (limits.when_unreachable_rates, limits.when_unreachable_cost),
            (UnreachableRates::Local, UnreachableCost::Deny)
        );
        assert_eq!(limits.grace_cost, RequestPrice(Nanodollars(100_000_000)));
        assert!(LimitOverrides::default().is_empty() && !overrides.is_empty());
    }
}
