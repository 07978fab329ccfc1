//! What a rule says, and whether it holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a rule watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertMetric {
    /// Requests.
    Requests,
    /// Requests that failed.
    Errors,
    /// The share of requests that failed, in percent.
    ErrorPercent,
    /// Money, in nano-dollars.
    Cost,
    /// Tokens.
    TotalTokens,
    /// Requests to models without a price.
    Unpriced,
}

/// A rule as the table `alert_rules` has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// The account that it watches; the whole deployment if there is none.
    pub account_id: Option<String>,
    /// What its author calls it.
    pub name: String,
    /// What it looks at.
    pub metric: AlertMetric,
    /// The value from which on it holds.
    pub threshold: u64,
    /// How many minutes back it looks, the running one included.
    pub window_minutes: u64,
    /// The model that it watches; all if there is none.
    pub model: Option<String>,
    /// The provider that it watches; all if there is none.
    pub provider: Option<String>,
    /// Its revision: what is found out about a rule holds for this one alone.
    pub revision: u64,
    /// When it was last changed, in Unix seconds.
    pub updated_at: u64,
    /// Whether it has an open event.
    #[serde(deserialize_with = "from_number")]
    pub open: bool,
}

/// SQL has no truth values.
fn from_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    u64::deserialize(deserializer).map(|number| number != 0)
}

/// The sums over a rule's window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Sums {
    /// Requests.
    pub requests: u64,
    /// Those that ended with an error.
    pub errors: u64,
    /// Cost in nano-dollars.
    pub cost: u64,
    /// Tokens of all kinds.
    pub total_tokens: u64,
    /// Requests whose model has no price.
    pub unpriced: u64,
}

/// What follows for a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It holds from now on, with this value.
    Opens(u64),
    /// It no longer holds; its value now.
    Resolves(u64),
    /// Everything stays as it was.
    None,
}

impl Rule {
    /// The first minute of its window; `minute` is the running one (Unix minutes).
    pub fn since(&self, minute: u64) -> u64 {
        minute.saturating_sub(self.window_minutes.saturating_sub(1))
    }

    /// Whether it is looked at in this minute. A window of days does not change much in a minute: rules with a window
    /// above an hour are looked at once in a sixtieth of it, and at once after a change.
    pub fn is_due(&self, minute: u64) -> bool {
        if minute.saturating_sub(self.updated_at / 60) <= 1 {
            return true;
        }
        let interval = (self.window_minutes / 60).max(1);
        // Not all in the same minute.
        let offset = self.id.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        minute.wrapping_add(offset).checked_rem(interval) == Some(0)
    }

    /// Its value. Per cent are whole, rounded down, so that 100 means all; none of none is 0.
    pub fn value(&self, sums: &Sums) -> u64 {
        match self.metric {
            AlertMetric::Requests => sums.requests,
            AlertMetric::Errors => sums.errors,
            AlertMetric::ErrorPercent => sums.errors.saturating_mul(100).checked_div(sums.requests).unwrap_or(0),
            AlertMetric::Cost => sums.cost,
            AlertMetric::TotalTokens => sums.total_tokens,
            AlertMetric::Unpriced => sums.unpriced,
        }
    }

    /// What follows from the sums over its window. A threshold of 0 holds from the first of whatever it counts.
    pub fn change(&self, sums: &Sums) -> Change {
        let value = self.value(sums);
        let holds = value >= self.threshold.max(1);
        match (holds, self.open) {
            (true, false) => Change::Opens(value),
            (false, true) => Change::Resolves(value),
            _ => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn rule(metric: &str, threshold: u64, open: u8) -> Rule {
        serde_json::from_value(json!({
            "id": "r", "account_id": null, "name": "n", "metric": metric, "threshold": threshold, "window_minutes": 5,
            "model": null, "provider": null, "revision": 1, "updated_at": 0, "open": open,
        }))
        .unwrap()
    }

    const SUMS: Sums = Sums { requests: 200, errors: 21, cost: 5_000, total_tokens: 900, unpriced: 3 };

    #[test]
    fn every_metric_has_its_value() {
        for (metric, value) in [
            ("requests", 200),
            ("errors", 21),
            ("error_percent", 10),
            ("cost", 5_000),
            ("total_tokens", 900),
            ("unpriced", 3),
        ] {
            assert_eq!(rule(metric, 1, 0).value(&SUMS), value, "{metric}");
        }
        assert_eq!(rule("error_percent", 1, 0).value(&Sums::default()), 0);
    }

    #[test]
    fn an_event_opens_once_and_is_resolved_once() {
        assert_eq!(rule("errors", 21, 0).change(&SUMS), Change::Opens(21));
        assert_eq!(rule("errors", 21, 1).change(&SUMS), Change::None);
        assert_eq!(rule("errors", 22, 1).change(&SUMS), Change::Resolves(21));
        assert_eq!(rule("errors", 22, 0).change(&SUMS), Change::None);
        assert_eq!(rule("errors", 0, 0).change(&Sums::default()), Change::None, "nothing is no alert");
    }

    #[test]
    fn a_window_ends_with_the_running_minute() {
        assert_eq!(rule("errors", 1, 0).since(100), 96);
        assert_eq!(rule("errors", 1, 0).since(2), 0);
    }

    #[test]
    fn a_rule_that_was_changed_is_due_at_once() {
        let rule = Rule { window_minutes: 43_200, updated_at: 1_000 * 60 + 59, ..rule("errors", 1, 0) };
        assert!(rule.is_due(1_000) && rule.is_due(1_001));
        assert_eq!((1_002..1_002 + 720).filter(|minute| rule.is_due(*minute)).count(), 1);
    }

    proptest! {
        #[test]
        fn every_rule_is_due_often_enough(id in "[a-z0-9]{1,20}", window in 1..43_200_u64, start in 2..u64::from(u32::MAX)) {
            let rule = Rule { id, window_minutes: window, ..rule("errors", 1, 0) };
            let interval = (window / 60).max(1);
            prop_assert_eq!((start..).take(usize::try_from(interval).unwrap()).filter(|minute| rule.is_due(*minute)).count(), 1);
        }
    }
}
