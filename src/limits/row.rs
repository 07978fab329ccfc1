//! What is stored of a reservation, a settled request or a lease: one row each, from which all counters can be made again.

use serde::{Deserialize, Serialize};

use super::amounts::Amounts;
use super::bucket::Bucket;
use super::counters::Caller;
use super::rule::{Dimension, Period, Rule, Scope};

/// What the keeper of an [`Admission`](super::admission::Admission) must store, in the order in which it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Inserts this row, or replaces the one of the same id.
    Put(Box<Row>),
    /// Deletes the row of this id; it counts for nothing any more.
    Delete(String),
    /// Replaces the default rules that are restored.
    Defaults(Vec<Rule>),
}

/// One thing that counts, open or closed. The members' names are short because each request writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// The settlement id, or the lease's.
    #[serde(rename = "i")]
    pub id: String,
    /// Grows with each change of any row.
    #[serde(rename = "n")]
    pub sequence: u64,
    /// When it counts, in Unix milliseconds of the object's clock.
    #[serde(rename = "t")]
    pub at: u64,
    /// The key.
    #[serde(rename = "k")]
    pub key_id: String,
    /// The user.
    #[serde(rename = "u", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The model.
    #[serde(rename = "m")]
    pub model: String,
    /// What counts: what was reserved or, once it is settled, what was used.
    #[serde(rename = "a")]
    pub amounts: Amounts,
    /// Where it stands.
    #[serde(rename = "s")]
    pub stage: Stage,
    /// What it is of a lease, if it has to do with one.
    #[serde(rename = "l", skip_serializing_if = "Leased::is_not")]
    pub leased: Leased,
    /// Whether its output is worth learning from.
    #[serde(rename = "y", skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
    /// The rates that it was counted in.
    #[serde(rename = "w", skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// Which of the request's asks it was reserved by.
    #[serde(rename = "f", skip_serializing_if = "is_first")]
    pub turn: u32,
    /// The buckets that it was counted in with an earlier ask and is no more, each with that one's model.
    #[serde(rename = "b", skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<(String, Mark)>,
    /// Whether it counts only as long as it is open, and is gone afterwards.
    #[serde(rename = "p", skip_serializing_if = "std::ops::Not::not")]
    pub passing: bool,
}

/// Where a row stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reserved until this time, in Unix milliseconds.
    #[serde(rename = "o")]
    Open(u64),
    /// Settled.
    #[default]
    #[serde(rename = "s")]
    Settled,
    /// Never settled, and charged as reserved. Of a lease it is what was neither settled nor given back.
    #[serde(rename = "x")]
    Expired,
}

/// What a row has to do with leases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leased {
    /// Nothing.
    #[default]
    #[serde(rename = "n")]
    Not,
    /// It was admitted from one, and counts at that one's end.
    #[serde(rename = "f")]
    From,
    /// It is one; the row's amounts are what is left of it.
    #[serde(rename = "l")]
    Lease {
        /// Output tokens to reserve for a request.
        #[serde(rename = "o")]
        output_tokens: u64,
        /// For how long it was given, in milliseconds.
        #[serde(rename = "t")]
        ttl_ms: u64,
        /// Who has it.
        #[serde(rename = "h")]
        holder: String,
    },
}

/// A rate that a row was counted in, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The counter.
    #[serde(rename = "c")]
    pub counter: CounterId,
    /// The stamp in a window, or the place in a bucket.
    #[serde(rename = "t")]
    pub place: u64,
    /// The bucket as the row's last change left it.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<Bucket>,
}

/// Which of the counters that a request of a key, a user and a model counts in. Stored as four letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CounterId {
    /// Whose.
    pub scope: Scope,
    /// Whether it counts the model alone.
    pub of_model: bool,
    /// What it counts.
    pub dimension: Dimension,
    /// Over which time.
    pub period: Period,
}

impl Leased {
    /// Whether it is neither a lease nor of one.
    pub fn is_not(&self) -> bool {
        *self == Self::Not
    }

    /// Whether it is a lease.
    pub fn is_lease(&self) -> bool {
        matches!(self, Self::Lease { .. })
    }
}

impl Row {
    /// Whose limits it counts in.
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller { key: &self.key_id, user: self.user.as_deref(), model: Some(&self.model) }
    }

    /// Whether it is not settled and has not expired.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is the serializer's")]
fn is_first(turn: &u32) -> bool {
    *turn == 0
}

impl From<CounterId> for String {
    fn from(id: CounterId) -> Self {
        let scope = match id.scope {
            Scope::Key => 'k',
            Scope::User => 'u',
            Scope::Account => 'a',
            Scope::Provider => 'p',
        };
        [scope, if id.of_model { 'm' } else { '*' }, dimension_letter(id.dimension), period_letter(id.period)]
            .iter()
            .collect()
    }
}

impl TryFrom<String> for CounterId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let [scope, model, dimension, period] = text.as_bytes() else { return Err("a counter has four letters") };
        let scope = match scope {
            b'k' => Scope::Key,
            b'u' => Scope::User,
            b'a' => Scope::Account,
            b'p' => Scope::Provider,
            _ => return Err("no such scope"),
        };
        let dimension = DIMENSIONS.iter().find(|known| dimension_letter(**known) == char::from(*dimension));
        let period = PERIODS.iter().find(|known| period_letter(**known) == char::from(*period));
        Ok(Self {
            scope,
            of_model: *model == b'm',
            dimension: *dimension.ok_or("no such dimension")?,
            period: *period.ok_or("no such period")?,
        })
    }
}

const DIMENSIONS: [Dimension; 6] = [
    Dimension::Requests,
    Dimension::InputTokens,
    Dimension::OutputTokens,
    Dimension::TotalTokens,
    Dimension::Cost,
    Dimension::Concurrency,
];

const PERIODS: [Period; 8] = [
    Period::Second,
    Period::Minute,
    Period::Hour,
    Period::Day,
    Period::Week,
    Period::Month,
    Period::Total,
    Period::None,
];

fn dimension_letter(dimension: Dimension) -> char {
    match dimension {
        Dimension::Requests => 'r',
        Dimension::InputTokens => 'i',
        Dimension::OutputTokens => 'o',
        Dimension::TotalTokens => 't',
        Dimension::Cost => 'c',
        Dimension::Concurrency => 'n',
    }
}

fn period_letter(period: Period) -> char {
    match period {
        Period::Second => 's',
        Period::Minute => 'm',
        Period::Hour => 'h',
        Period::Day => 'd',
        Period::Week => 'w',
        Period::Month => 'M',
        Period::Total => 't',
        Period::None => 'n',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_short_and_survives_being_stored() {
        let counter = CounterId {
            scope: Scope::Account,
            of_model: false,
            dimension: Dimension::Requests,
            period: Period::Minute,
        };
        let row = Row {
            id: "id".into(),
            sequence: 7,
            at: 5,
            key_id: "k".into(),
            model: "m".into(),
            amounts: Amounts { requests: 1, input: 2, output: 3, cost: 4 },
            stage: Stage::Open(9),
            marks: vec![
                Mark { counter, place: 5, bucket: None },
                Mark { counter, place: 6, bucket: Some(Bucket::default()) },
            ],
            ..Row::default()
        };
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(
            text,
            r#"{"i":"id","n":7,"t":5,"k":"k","m":"m","a":[1,2,3,4],"s":{"o":9},"w":[{"c":"a*rm","t":5},{"c":"a*rm","t":6,"b":[0,0,0,0,0]}]}"#
        );
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
        let leased = Leased::Lease { output_tokens: 1, ttl_ms: 2, holder: "h".into() };
        for (leased, stage) in [(leased, Stage::Expired), (Leased::From, Stage::Settled)] {
            let row = Row { leased, stage, user: Some("u".into()), complete: true, ..Row::default() };
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
        }
        assert!(serde_json::from_str::<CounterId>("\"a*r\"").is_err());
    }

    #[test]
    fn every_counter_has_its_own_letters() {
        let mut seen = std::collections::BTreeSet::new();
        for scope in [Scope::Key, Scope::User, Scope::Account, Scope::Provider] {
            for (of_model, dimension) in DIMENSIONS.iter().flat_map(|known| [(true, *known), (false, *known)]) {
                for period in PERIODS {
                    let id = CounterId { scope, of_model, dimension, period };
                    assert_eq!(CounterId::try_from(String::from(id)), Ok(id));
                    assert!(seen.insert(String::from(id)));
                }
            }
        }
    }
}
