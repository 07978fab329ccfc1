//! What a request used, and the rows that many such entries become.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::amounts::Amounts;
use super::ask::{LeaseUse, Settlement};
use super::row::Row;
use crate::protocol::usage::Usage;
use crate::telemetry::Outcome;

/// One request as its account's ledger learns of it. Nothing in it is a credential or a part of a body.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsageEntry {
    /// Names the entry: the gateway's own id, never the caller's.
    pub id: String,
    /// The request's id as the caller knows it.
    pub request_id: String,
    /// When the request came in, in Unix milliseconds.
    pub at_ms: u64,
    /// The account that is charged.
    pub account: String,
    /// The key.
    pub key_id: String,
    /// The user that the key belongs to; empty for none.
    #[serde(default)]
    pub user: String,
    /// The model as the caller named it.
    pub model: String,
    /// The provider; empty if none was asked.
    pub provider: String,
    /// The status that was sent.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether a provider was asked, or limits admitted it. If not, the entry is a record alone and counts nowhere.
    pub counted: bool,
    /// How many requests it stands for; more than one where what was lent for many was never accounted for.
    #[serde(default = "one")]
    pub requests: u64,
    /// Tokens.
    #[serde(default)]
    pub usage: Usage,
    /// What it cost, in nano-dollars; absent where the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_nanos: Option<u64>,
    /// Whether the model has no price.
    #[serde(default)]
    pub unpriced: bool,
    /// Whether the tokens are the gateway's estimate.
    #[serde(default)]
    pub estimated: bool,
    /// The lease that it was admitted from, and what it took of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseUse>,
    /// The ledger was asked about it and gave no answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unanswered: bool,
    /// The request's whole record, if it is to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<RawValue>>,
}

fn one() -> u64 {
    1
}

impl UsageEntry {
    /// The entry of what was reserved and never settled: it is charged as it was reserved.
    pub fn never_settled(account: &str, row: &Row) -> Self {
        let record = serde_json::json!({
            "request_id": row.id,
            "account": account,
            "key_id": row.key_id,
            "model": row.model,
            "outcome": Outcome::Failed,
            "error_code": "reservation_expired",
            "error_detail": "nobody said how it ended, so it is charged what was reserved for it",
            "usage_estimated": true,
            "requests": row.amounts.requests,
            "cost_nanodollars": row.amounts.cost,
        });
        Self {
            id: row.id.clone(),
            request_id: row.id.clone(),
            at_ms: row.at,
            account: account.to_owned(),
            key_id: row.key_id.clone(),
            user: row.user.clone().unwrap_or_default(),
            model: row.model.clone(),
            provider: String::new(),
            status: 0,
            outcome: Outcome::Failed,
            counted: true,
            requests: row.amounts.requests,
            usage: Usage { input: row.amounts.input, output: row.amounts.output, ..Usage::default() },
            cost_nanos: Some(row.amounts.cost),
            unpriced: false,
            estimated: true,
            lease: None,
            unanswered: false,
            record: serde_json::value::to_raw_value(&record).ok(),
        }
    }

    /// What it means for limits. An entry that counts nowhere releases what was reserved.
    pub fn settlement(&self) -> Settlement {
        let amounts = Amounts {
            requests: self.requests,
            input: self.usage.input_total(),
            output: self.usage.output_total(),
            cost: self.cost_nanos.unwrap_or(0),
        };
        Settlement {
            key_id: self.key_id.clone(),
            user: Some(self.user.clone()).filter(|user| !user.is_empty()),
            model: self.model.clone(),
            amounts: if self.counted { amounts } else { Amounts::default() },
            complete: self.outcome == Outcome::Completed && self.status < 400 && !self.estimated,
            unanswered: self.unanswered,
            lease: self.lease.clone(),
            passing: false,
        }
    }
}

/// A row of the table `usage` to be added to what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UsageRow {
    /// Unix minutes.
    pub minute: u64,
    /// The account that is charged.
    pub account: String,
    /// The key.
    pub key_id: String,
    /// The user; empty for none.
    pub user: String,
    /// The model as callers named it.
    pub model: String,
    /// The provider.
    pub provider: String,
    /// Requests.
    pub requests: u64,
    /// Those that ended with an error.
    pub errors: u64,
    /// Those whose model has no price.
    pub unpriced: u64,
    /// Those whose tokens are estimated.
    pub estimated: u64,
    /// Tokens.
    #[serde(flatten)]
    pub usage: Usage,
    /// Cost in nano-dollars.
    pub cost_nanos: u64,
}

/// A row of the table `request_records`.
#[derive(Debug, Clone, Serialize)]
pub struct RecordRow<'a> {
    /// Names the row within its account.
    pub request_id: &'a str,
    /// Names it if there is a row of that name already.
    pub else_id: &'a str,
    /// The account.
    pub account: &'a str,
    /// When the request came in, in Unix milliseconds.
    pub at_ms: u64,
    /// The key.
    pub key_id: &'a str,
    /// The user; empty for none.
    pub user: &'a str,
    /// The model as the caller named it.
    pub model: &'a str,
    /// The provider.
    pub provider: &'a str,
    /// The status that was sent.
    pub status: u16,
    /// How it ended.
    pub outcome: &'static str,
    /// Cost in nano-dollars; absent where the model has no price.
    pub cost_nanos: Option<u64>,
    /// The request's whole record.
    pub record: &'a RawValue,
}

/// Numbers beyond this are not exact in JavaScript, and no database column here holds more.
const LARGEST: u64 = 1 << 53;

/// Sums entries up by minute, key, user, model and provider.
pub fn roll_up(entries: &[UsageEntry]) -> Vec<UsageRow> {
    let mut rows: BTreeMap<(u64, &str, &str, &str, &str, &str), UsageRow> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.counted) {
        let minute = entry.at_ms / 60_000;
        let by: (u64, &str, &str, &str, &str, &str) =
            (minute, &entry.account, &entry.key_id, &entry.user, &entry.model, &entry.provider);
        let row = rows.entry(by).or_insert_with(|| UsageRow {
            minute,
            account: entry.account.clone(),
            key_id: entry.key_id.clone(),
            user: entry.user.clone(),
            model: entry.model.clone(),
            provider: entry.provider.clone(),
            ..UsageRow::default()
        });
        let failed = entry.outcome == Outcome::Failed || (entry.status >= 400 && entry.outcome == Outcome::Completed);
        let of_all = |yes: bool| if yes { entry.requests } else { 0 };
        for (sum, more) in [
            (&mut row.requests, entry.requests),
            (&mut row.errors, of_all(failed)),
            (&mut row.unpriced, of_all(entry.unpriced)),
            (&mut row.estimated, of_all(entry.estimated)),
            (&mut row.cost_nanos, entry.cost_nanos.unwrap_or(0)),
        ] {
            *sum = sum.saturating_add(more).min(LARGEST);
        }
        row.usage = row.usage.plus(&entry.usage, LARGEST);
    }
    rows.into_values().collect()
}

/// The statement that adds rows, given as a JSON array, to the table.
pub fn add_rows() -> String {
    const NAMES: [(&str, &str); 6] = [
        ("minute", "minute"),
        ("account_id", "account"),
        ("key_id", "key_id"),
        ("user_id", "user"),
        ("model", "model"),
        ("provider", "provider"),
    ];
    let counts = ["requests", "errors", "unpriced", "estimated", "cost_nanos"];
    let sums: Vec<&str> = counts.iter().chain(Usage::KINDS).copied().collect();
    let columns: Vec<&str> = NAMES.iter().map(|(column, _)| *column).chain(sums.iter().copied()).collect();
    let members = NAMES.iter().map(|(_, member)| *member).chain(sums.iter().copied());
    let values: Vec<String> = members.map(|member| format!("value ->> '{member}'")).collect();
    let added: Vec<String> = sums.iter().map(|sum| format!("{sum} = usage.{sum} + excluded.{sum}")).collect();
    format!(
        "INSERT INTO usage ({}) SELECT {} FROM json_each(?1) WHERE true \
         ON CONFLICT (account_id, minute, key_id, user_id, model, provider) DO UPDATE SET {}",
        columns.join(", "),
        values.join(", "),
        added.join(", "),
    )
}

/// The records that are to be kept. A caller that uses a request id again cannot thereby make its record vanish: such a
/// row goes by the gateway's own id.
pub fn records(entries: &[UsageEntry]) -> Vec<RecordRow<'_>> {
    let mut taken = BTreeSet::new();
    let recorded = entries.iter().filter_map(|entry| Some((entry, entry.record.as_deref()?)));
    recorded
        .map(|(entry, record)| RecordRow {
            request_id: if taken.insert((&entry.account, &entry.request_id)) { &entry.request_id } else { &entry.id },
            else_id: &entry.id,
            account: &entry.account,
            at_ms: entry.at_ms,
            key_id: &entry.key_id,
            user: &entry.user,
            model: &entry.model,
            provider: &entry.provider,
            status: entry.status,
            outcome: entry.outcome.name(),
            cost_nanos: entry.cost_nanos.map(|nanos| nanos.min(LARGEST)),
            record,
        })
        .collect()
}

/// Writes rows as JSON arrays of at most so many bytes each, though never less than one row.
///
/// # Errors
/// That a row cannot be written.
pub fn chunks(rows: &[impl Serialize], bytes: usize) -> Result<Vec<String>, serde_json::Error> {
    let mut chunks: Vec<String> = Vec::new();
    for row in rows {
        let row = serde_json::to_string(row)?;
        match chunks.last_mut() {
            Some(chunk) if chunk.len().saturating_add(row.len()) < bytes => chunk.push(','),
            _ => chunks.push("[".to_owned()),
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.push_str(&row);
        }
    }
    for chunk in &mut chunks {
        chunk.push(']');
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(id: &str, at_ms: u64, model: &str) -> UsageEntry {
        UsageEntry {
            id: id.to_owned(),
            request_id: format!("r-{id}"),
            at_ms,
            account: "a".into(),
            key_id: "k".into(),
            user: String::new(),
            model: model.to_owned(),
            provider: "p".into(),
            status: 200,
            outcome: Outcome::Completed,
            counted: true,
            requests: 1,
            usage: Usage { input: 10, output: 3, ..Usage::default() },
            cost_nanos: Some(7),
            unpriced: false,
            estimated: false,
            lease: None,
            unanswered: false,
            record: None,
        }
    }

    #[test]
    fn entries_are_summed_up_by_minute_and_model() {
        let mut failed = entry("3", 60_000, "m");
        failed.outcome = Outcome::Failed;
        failed.cost_nanos = None;
        failed.unpriced = true;
        failed.estimated = true;
        let refused = UsageEntry { counted: false, ..entry("5", 60_000, "m") };
        let rows =
            roll_up(&[entry("1", 60_000, "m"), entry("2", 119_999, "m"), failed, entry("4", 120_000, "n"), refused]);
        let sums: Vec<_> =
            rows.iter().map(|row| (row.minute, row.model.as_str(), row.requests, row.cost_nanos)).collect();
        assert_eq!(sums, [(1, "m", 3, 14), (2, "n", 1, 7)]);
        assert_eq!((rows[0].errors, rows[0].unpriced, rows[0].estimated, rows[0].usage.input), (1, 1, 1, 30));
    }

    #[test]
    fn a_client_that_left_is_no_error_and_a_refusal_is() {
        let left = UsageEntry { outcome: Outcome::ClientClosed, status: 502, ..entry("1", 0, "m") };
        let refused = UsageEntry { status: 429, ..entry("2", 0, "m") };
        assert_eq!(roll_up(&[left, refused])[0].errors, 1);
    }

    #[test]
    fn a_request_id_that_comes_again_hides_no_record() {
        let recorded = |id: &str| UsageEntry {
            request_id: "same".into(),
            record: Some(RawValue::from_string(format!("{{\"nth\":{id}}}")).unwrap()),
            ..entry(id, 0, "m")
        };
        let entries = [recorded("1"), entry("2", 0, "m"), recorded("3")];
        let rows: Vec<_> = records(&entries).iter().map(|row| (row.request_id, row.record.get())).collect();
        assert_eq!(rows, [("same", "{\"nth\":1}"), ("3", "{\"nth\":3}")]);
    }

    #[test]
    fn an_entry_survives_being_stored() {
        let before =
            UsageEntry { record: Some(RawValue::from_string("{\"a\":1}".into()).unwrap()), ..entry("1", 5, "m") };
        let text = serde_json::to_string(&before).unwrap();
        let after: UsageEntry = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&after).unwrap(), text);
    }

    #[test]
    fn rows_are_divided_into_arrays_of_bounded_size() {
        let chunks = chunks(&["aa", "bb", "cc", "a long one"], 12).unwrap();
        assert_eq!(chunks, ["[\"aa\",\"bb\"]", "[\"cc\"]", "[\"a long one\"]"]);
        assert!(super::chunks(&[] as &[u8], 12).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled_in_summing_up(entries in proptest::collection::vec((0..5u64, 0..3u8, 0..1000u64), 0..40)) {
            let all: Vec<UsageEntry> = entries
                .iter()
                .enumerate()
                .map(|(nth, (minute, model, cost))| UsageEntry {
                    cost_nanos: Some(*cost),
                    ..entry(&nth.to_string(), minute.saturating_mul(60_000), &model.to_string())
                })
                .collect();
            let rows = roll_up(&all);
            prop_assert_eq!(rows.iter().map(|row| row.requests).sum::<u64>(), all.len() as u64);
            prop_assert_eq!(rows.iter().map(|row| row.cost_nanos).sum::<u64>(), entries.iter().map(|e| e.2).sum::<u64>());
        }
    }
}
