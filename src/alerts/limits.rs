//! What accounts' ledgers raise: so much of a quota or budget is used, or it will be used up before its period ends. Such
//! an event tells of a moment: it is over as soon as it has begun.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::limits::rule::{Dimension, Period, Scope};
use crate::limits::watch::{Alert, News};

/// A row of the table `alert_events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitEvent {
    /// The same for the same event: told twice it is stored once.
    pub id: String,
    /// The limit.
    pub rule_id: String,
    /// The account.
    pub account_id: String,
    /// What has happened, for people.
    pub name: String,
    /// What is limited.
    pub metric: Dimension,
    /// Per cent of the limit.
    pub threshold: u64,
    /// How much is used.
    pub value: u64,
    /// When, in Unix seconds.
    pub at: u64,
    /// `limit_threshold` or `limit_forecast`.
    pub kind: String,
    /// More about the limit.
    pub detail: LimitDetail,
}

/// More about the limit that an event speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LimitDetail {
    /// For whom it holds.
    pub scope: Scope,
    /// Whose it is: the id of a key, a user or the account.
    pub subject: String,
    /// The only model that it concerns; null for all together.
    #[serde(default)]
    pub model: Option<String>,
    /// Over which time.
    pub period: Period,
    /// When the running period began, in Unix milliseconds.
    pub period_start: u64,
    /// How much may be used.
    pub limit: u64,
    /// Of a forecast: when it will be exceeded, in Unix milliseconds.
    #[serde(default)]
    pub exceeds_at: Option<u64>,
}

impl LimitEvent {
    /// The event of an alert in an account; `now` is in Unix milliseconds.
    pub fn new(alert: &Alert, account: &str, now: u64) -> Self {
        let (kind, threshold, exceeds_at) = match alert.news {
            News::Crossing { threshold } => ("limit_threshold", u64::from(threshold), None),
            News::Forecast { exceeds_at } => ("limit_forecast", 100, Some(exceeds_at)),
        };
        let Alert { rule_id, scope, subject, model, period, period_start, used, limit, .. } = alert;
        let identity = serde_json::json!([account, rule_id, subject, period_start, kind, threshold, limit]);
        let digest = Sha256::digest(identity.to_string());
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let of = match scope {
            Scope::Account | Scope::Provider => format!("account {account}"),
            Scope::User => format!("user {subject}"),
            Scope::Key => format!("key {subject}"),
        };
        let what = what(alert.dimension, *period);
        let name = match exceeds_at {
            None => format!("{threshold} % of the {what} of {of} are used"),
            Some(_) => format!("The {what} of {of} will be used up early"),
        };
        Self {
            id: format!("lim-{hex}"),
            rule_id: rule_id.clone(),
            account_id: account.to_owned(),
            name,
            metric: alert.dimension,
            threshold,
            value: *used,
            at: now / 1_000,
            kind: kind.to_owned(),
            detail: LimitDetail {
                scope: *scope,
                subject: subject.clone(),
                model: model.clone(),
                period: *period,
                period_start: *period_start,
                limit: *limit,
                exceeds_at,
            },
        }
    }
}

fn what(dimension: Dimension, period: Period) -> String {
    let period = match period {
        Period::Day => "daily ",
        Period::Week => "weekly ",
        Period::Month => "monthly ",
        _ => "",
    };
    let noun = match dimension {
        Dimension::Cost => "budget",
        Dimension::Requests | Dimension::Concurrency => "quota of requests",
        Dimension::InputTokens => "quota of input tokens",
        Dimension::OutputTokens => "quota of output tokens",
        Dimension::TotalTokens => "quota of tokens",
    };
    format!("{period}{noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(news: News) -> Alert {
        Alert {
            news,
            rule_id: "lim_1".into(),
            scope: Scope::Account,
            subject: "acc".into(),
            model: None,
            dimension: Dimension::Cost,
            period: Period::Month,
            period_start: 5,
            used: 80,
            limit: 100,
        }
    }

    #[test]
    fn the_same_event_has_the_same_id_whenever_it_is_told() {
        let crossing = alert(News::Crossing { threshold: 80 });
        let event = LimitEvent::new(&crossing, "acc", 9_000);
        assert_eq!((event.kind.as_str(), event.threshold, event.value, event.at), ("limit_threshold", 80, 80, 9));
        assert_eq!(event.name, "80 % of the monthly budget of account acc are used");
        assert_eq!(LimitEvent::new(&crossing, "acc", 99_000).id, event.id);
        let mut ids = std::collections::BTreeSet::from([event.id]);
        for other in [
            alert(News::Crossing { threshold: 95 }),
            alert(News::Forecast { exceeds_at: 7 }),
            Alert { period_start: 6, ..crossing.clone() },
            Alert { limit: 101, ..crossing.clone() },
        ] {
            assert!(ids.insert(LimitEvent::new(&other, "acc", 9_000).id), "{other:?}");
        }
        assert!(ids.insert(LimitEvent::new(&crossing, "other", 9_000).id));
        let forecast = LimitEvent::new(&alert(News::Forecast { exceeds_at: 7 }), "acc", 0);
        assert_eq!((forecast.detail.exceeds_at, forecast.kind.as_str()), (Some(7), "limit_forecast"));
        assert_eq!(forecast.name, "The monthly budget of account acc will be used up early");
    }
}
