//! What may be limited, and the rules that do it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Requests.
    Requests,
    /// Input tokens, cached ones included.
    InputTokens,
    /// Output tokens, reasoning included.
    OutputTokens,
    /// Both.
    TotalTokens,
    /// Money, in nano-dollars: a limit on it is a budget.
    Cost,
    /// Requests at the same time.
    Concurrency,
}

/// Over which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day, UTC.
    Day,
    /// A week from Monday on, UTC.
    Week,
    /// A calendar month, UTC.
    Month,
    /// For ever.
    Total,
    /// At any moment: for concurrency alone.
    None,
}

/// What happens at a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitMode {
    /// Requests beyond it are refused.
    #[default]
    Enforce,
    /// Requests beyond it are counted and reported.
    Shadow,
}

/// How much of what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitTerms {
    /// Only for this model; null for all together.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub model: Option<String>,
    /// What is limited.
    pub dimension: Dimension,
    /// Over which time; `none` for `concurrency` and for it alone.
    pub period: Period,
    /// How much. Money is in nano-dollars: 500,000,000,000 are 500 dollars.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub amount: u64,
    /// How much at once, for a limit a second, a minute or an hour; null for as much as `amount`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub burst: Option<u64>,
    /// What happens at it.
    #[serde(default)]
    pub mode: LimitMode,
}

/// For whom a rule holds. The order is that of nesting: a key belongs to a user, a user to an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One API key.
    Key,
    /// One user within the account, with all keys that are his.
    User,
    /// The whole account.
    #[default]
    Account,
    /// One provider credential, whoever uses it.
    Provider,
}

/// Stands for every subject of a scope, in a rule that holds by default.
pub const EVERYBODY: &str = "*";

/// A limit on a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Names it in refusals and reports.
    pub id: String,
    /// What kind of subject it holds for.
    pub scope: Scope,
    /// The key's, user's or account's id, or the provider's name; [`EVERYBODY`] for a default.
    #[serde(default)]
    pub subject: String,
    /// How much of what.
    #[serde(flatten)]
    pub terms: LimitTerms,
}

impl Rule {
    /// Reads an account's limits as the control plane writes them: a list of limits that name a key, a user, or neither.
    /// What cannot be read, such as a kind that a newer version knows, is left out. The order of the result does not
    /// depend on that of the list.
    pub fn read_all(limits: &Value) -> Vec<Self> {
        #[derive(Deserialize)]
        struct Stored {
            id: String,
            #[serde(default)]
            account_id: String,
            #[serde(default)]
            user_id: Option<String>,
            #[serde(default)]
            key_id: Option<String>,
            #[serde(flatten)]
            terms: LimitTerms,
        }
        let stored = limits.as_array().into_iter().flatten().filter_map(|limit| Stored::deserialize(limit).ok());
        let mut rules: Vec<Self> = stored
            .map(|limit| {
                let (scope, subject) = match (limit.key_id, limit.user_id) {
                    (Some(key), _) => (Scope::Key, key),
                    (None, Some(user)) => (Scope::User, user),
                    (None, None) => (Scope::Account, limit.account_id),
                };
                Self { id: limit.id, scope, subject, terms: limit.terms }
            })
            .collect();
        rules.sort_by(|one, other| one.id.cmp(&other.id));
        rules
    }

    /// Whether it speaks of this model, or of all together.
    pub fn is_for_model(&self, model: &str) -> bool {
        self.terms.model.as_deref().is_none_or(|only| only == model)
    }

    /// Whether both limit the same thing, so that the one on a subject stands in for the default.
    pub fn is_of_the_kind_of(&self, other: &Self) -> bool {
        self.scope == other.scope
            && self.terms.dimension == other.terms.dimension
            && self.terms.period == other.terms.period
            && self.terms.model == other.terms.model
    }

    /// The most that may be used at once: the burst of a token bucket, the amount of everything else.
    pub fn capacity(&self) -> u64 {
        self.bucket_burst().unwrap_or(self.terms.amount)
    }

    /// The burst, if the rule is a token bucket.
    pub fn bucket_burst(&self) -> Option<u64> {
        self.terms.burst.filter(|_| self.terms.period.window_ms().is_some())
    }
}

impl Period {
    /// The length of a rate's window in milliseconds; `None` for calendar periods and for concurrency.
    pub fn window_ms(self) -> Option<u64> {
        match self {
            Self::Second => Some(1_000),
            Self::Minute => Some(60_000),
            Self::Hour => Some(3_600_000),
            Self::Day | Self::Week | Self::Month | Self::Total | Self::None => None,
        }
    }

    /// The calendar period that is counted for it; what has none is counted for ever.
    pub fn calendar(self) -> Self {
        match self {
            Self::Day | Self::Week | Self::Month => self,
            Self::Second | Self::Minute | Self::Hour | Self::Total | Self::None => Self::Total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_read_whatever_else_is_in_the_list() {
        let limit = |id: &str, key: Value, user: Value, dimension: &str| {
            json!({"id": id, "account_id": "acc", "key_id": key, "user_id": user, "model": null, "dimension": dimension,
                "period": "day", "amount": 5, "burst": null, "mode": "enforce", "revision": 1, "created_at": 1, "updated_at": 1})
        };
        let list = [
            limit("3", Value::Null, Value::Null, "cost"),
            limit("1", json!("k"), Value::Null, "requests"),
            limit("2", Value::Null, json!("u"), "total_tokens"),
            limit("4", Value::Null, Value::Null, "unheard_of"),
            json!(7),
        ];
        let rules = Rule::read_all(&Value::from(list.to_vec()));
        let read: Vec<_> = rules.iter().map(|rule| (rule.id.as_str(), rule.scope, rule.subject.as_str())).collect();
        assert_eq!(read, [("1", Scope::Key, "k"), ("2", Scope::User, "u"), ("3", Scope::Account, "acc")]);
        let backwards: Vec<Value> = list.iter().rev().cloned().collect();
        assert_eq!(Rule::read_all(&Value::from(backwards)), rules);
        assert!(Rule::read_all(&Value::Null).is_empty());
    }

    #[test]
    fn a_rule_survives_being_stored_and_knows_its_kind() {
        let read = |text: &str| serde_json::from_str::<Rule>(text).unwrap();
        let minute = read(
            r#"{"id":"1","scope":"key","subject":"k","dimension":"requests","period":"minute","amount":9,"burst":3}"#,
        );
        assert_eq!(read(&serde_json::to_string(&minute).unwrap()), minute);
        let other =
            read(r#"{"id":"2","scope":"key","subject":"*","dimension":"requests","period":"minute","amount":5}"#);
        assert!(minute.is_of_the_kind_of(&other) && minute.is_for_model("m"));
        assert_eq!((minute.capacity(), other.capacity()), (3, 5));
        let only =
            read(r#"{"id":"3","scope":"key","model":"m","dimension":"requests","period":"day","amount":5,"burst":2}"#);
        assert!(!only.is_of_the_kind_of(&other) && only.is_for_model("m") && !only.is_for_model("n"));
        assert_eq!(only.capacity(), 5, "a burst means nothing over a day");
    }
}
