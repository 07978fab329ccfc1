//! How limits stand, what was used, and what is open at this moment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::admission::Totals;
use crate::limits::amounts::Amounts;
use crate::limits::ask::RuleState;
use crate::limits::counters::Total;
use crate::limits::rule::{Dimension, LimitMode, Period, Scope};

/// How a limit stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitState {
    /// The limit's id; of one that the configuration has, `default:` or `provider:` and what it limits.
    pub id: String,
    /// For whom it holds.
    pub scope: Scope,
    /// The key's, user's or account's id, or the provider's name.
    pub subject: String,
    /// Only for this model; null for all together.
    pub model: Option<String>,
    /// What is limited.
    pub dimension: Dimension,
    /// Over which time.
    pub period: Period,
    /// What happens at it.
    pub mode: LimitMode,
    /// How much may be used; of a limit with a burst, how much at once.
    pub limit: u64,
    /// How much is used, reservations included.
    pub used: u64,
    /// How much of that is reserved for requests that have not ended; 0 for rates, which do not tell the two apart.
    pub reserved: u64,
    /// How much is left.
    pub remaining: u64,
    /// When all of it is free again, or the calendar period ends, in Unix milliseconds; null for what never ends, and for
    /// concurrency.
    pub resets_at_ms: Option<u64>,
}

impl LimitState {
    /// A rule's state at `now`, in Unix milliseconds. `account` stands for the subject of a rule on the whole account that
    /// does not name it.
    pub fn of(state: &RuleState, account: &str, now: u64) -> Self {
        let subject = if state.subject.is_empty() { account } else { &state.subject };
        let ends = !matches!(state.period, Period::Total | Period::None);
        Self {
            id: state.rule_id.clone(),
            scope: state.scope,
            subject: subject.to_owned(),
            model: state.model.clone(),
            dimension: state.dimension,
            period: state.period,
            mode: state.mode,
            limit: state.limit,
            used: state.used,
            reserved: state.reserved,
            remaining: state.remaining,
            resets_at_ms: ends.then(|| now.saturating_add(state.reset_ms)),
        }
    }
}

/// What was used of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsedAmounts {
    /// Requests.
    pub requests: u64,
    /// Input tokens, cached ones included.
    pub input_tokens: u64,
    /// Output tokens, reasoning included.
    pub output_tokens: u64,
    /// Money, in nano-dollars.
    pub cost_nanodollars: u64,
}

impl From<Amounts> for UsedAmounts {
    fn from(amounts: Amounts) -> Self {
        let Amounts { requests, input, output, cost } = amounts;
        Self { requests, input_tokens: input, output_tokens: output, cost_nanodollars: cost }
    }
}

/// What was used in a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeriodUse {
    /// By requests that have ended.
    pub settled: UsedAmounts,
    /// Reserved for requests that have not.
    pub reserved: UsedAmounts,
}

impl From<Total> for PeriodUse {
    fn from(total: Total) -> Self {
        Self { settled: total.settled.into(), reserved: total.reserved.into() }
    }
}

/// What was used in the running calendar periods (UTC).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeriodUses {
    /// Today.
    pub day: PeriodUse,
    /// This week, from Monday on.
    pub week: PeriodUse,
    /// This month.
    pub month: PeriodUse,
    /// Ever.
    pub total: PeriodUse,
}

impl From<Totals> for PeriodUses {
    fn from(totals: Totals) -> Self {
        let Totals { day, week, month, total } = totals;
        Self { day: day.into(), week: week.into(), month: month.into(), total: total.into() }
    }
}

/// Whose limits.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct StandingFilter {
    /// Those that a request of this key counts against, with those of its user and of the account; its usage. The id of a
    /// token's caller, as in the log, will do as well.
    #[schemars(length(max = 512))]
    pub key_id: Option<String>,
    /// Those that hold for this user and for the account; the user's usage. Not beside `key_id`.
    #[schemars(length(max = 512))]
    pub user_id: Option<String>,
    /// Only those that speak of this model or of all together; usage of this model alone.
    #[schemars(length(min = 1, max = 256))]
    pub model: Option<String>,
}

/// How limits stand.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// The limits. Without a key or a user: the account's, and those that any of its users or keys has of its own.
    pub limits: Vec<LimitState>,
    /// What the key, the user or the account has used in the running periods.
    pub usage: PeriodUses,
    /// Requests that are open: of the key, or of the whole account. See `Connections` on which are counted.
    pub open: u64,
}

/// Open requests of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyConnections {
    /// The key, or the caller with a token.
    pub key_id: String,
    /// How many are open.
    pub open: u64,
    /// Since when the oldest of them is open, in Unix milliseconds.
    pub oldest_at_ms: Option<u64>,
}

/// Open requests.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Connections {
    /// How many are open.
    pub open: u64,
    /// Whether all requests are counted: `limits.count_connections`, or `count_connections` of the provider or a
    /// route with the strategy `least_connections` that picks it among others. Otherwise only
    /// those that a limit applies to are, and of an account's not those that a busy isolate has admitted by itself.
    pub complete: bool,
    /// The keys that have any.
    pub keys: Vec<KeyConnections>,
}

impl Connections {
    /// From what an object tells by key.
    pub fn of(
        open: &std::collections::BTreeMap<String, u64>,
        since: &std::collections::BTreeMap<String, u64>,
        complete: bool,
    ) -> Self {
        let keys = open.iter().map(|(key_id, open)| KeyConnections {
            key_id: key_id.clone(),
            open: *open,
            oldest_at_ms: since.get(key_id).copied(),
        });
        let all = open.values().fold(0_u64, |sum, open| sum.saturating_add(*open));
        Self { open: all, complete, keys: keys.collect() }
    }
}

/// How a provider stands.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ProviderConnections {
    /// What is open there, all accounts together.
    #[serde(flatten)]
    pub connections: Connections,
    /// Its limits.
    pub limits: Vec<LimitState>,
    /// What was used of it in the running periods, as far as it was counted.
    pub usage: PeriodUses,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_state_says_when_it_resets_if_it_ever_does() {
        let state = |period| RuleState {
            rule_id: "lim_1".into(),
            scope: Scope::Account,
            subject: String::new(),
            model: None,
            dimension: Dimension::Cost,
            period,
            mode: LimitMode::Shadow,
            limit: 10,
            used: 4,
            reserved: 1,
            remaining: 6,
            reset_ms: 500,
        };
        let told = LimitState::of(&state(Period::Day), "acc", 1_000);
        assert_eq!((told.subject.as_str(), told.resets_at_ms), ("acc", Some(1_500)));
        assert_eq!((told.limit, told.used, told.reserved, told.remaining), (10, 4, 1, 6));
        assert_eq!(LimitState::of(&state(Period::Total), "acc", 1_000).resets_at_ms, None);
    }

    #[test]
    fn connections_are_summed_up() {
        let open = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let told = Connections::of(&open, &BTreeMap::from([("a".to_owned(), 7)]), true);
        assert_eq!((told.open, told.complete), (3, true));
        assert_eq!(told.keys[0], KeyConnections { key_id: "a".into(), open: 2, oldest_at_ms: Some(7) });
        assert_eq!(told.keys[1].oldest_at_ms, None);
    }
}
