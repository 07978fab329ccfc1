//! What a request is charged: its record made into an entry for its account's ledger.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::billing::{Nanodollars, Rates, cost};
use crate::config::{Config, Records, RecordsMode};
use crate::limits::usage::UsageEntry;
use crate::telemetry::{Outcome, RequestRecord, is_sampled};

/// Longest `x-gateway-metadata` that is kept, in bytes.
const METADATA_BYTES: usize = 2 * 1024;

/// The entry of a request that has ended; `None` where there is nobody to charge, or nothing to charge or keep.
/// `at_ms` is when it came in, in Unix milliseconds; `metadata` is the caller's `x-gateway-metadata`.
pub fn entry(record: &RequestRecord, config: &Config, at_ms: u64, metadata: Option<&str>) -> Option<UsageEntry> {
    if record.account.is_empty() {
        return None;
    }
    let counted = record.attempts > 0;
    let kept = is_kept(record, &config.records);
    if !counted && !kept {
        return None;
    }
    let record = &bounded(record);
    let usage = record.usage.unwrap_or_default();
    let rates = config.prices.get(&record.model).map(Rates::from);
    let cost_nanos = counted.then(|| rates.map(|rates| cost(&rates, &usage))).flatten();
    // A request that failed before it used anything costs nothing.
    let cost_nanos = cost_nanos.map(|Nanodollars(nanos)| if record.usage.is_some() { nanos } else { 0 });
    let kept =
        if kept { whole(record, config.records.metadata.then_some(metadata).flatten(), cost_nanos) } else { None };
    Some(UsageEntry {
        id: record.settlement_id.clone(),
        request_id: record.request_id.clone(),
        at_ms,
        account: record.account.clone(),
        key_id: record.key_id.clone(),
        user: record.user.clone(),
        model: record.model.clone(),
        provider: record.provider.clone(),
        status: record.status,
        outcome: record.outcome,
        counted,
        usage,
        cost_nanos,
        unpriced: counted && record.usage.is_some() && cost_nanos.is_none(),
        estimated: record.usage_estimated,
        record: kept,
    })
}

/// The record with what callers and providers have written into it cut to a sensible length: it will be stored.
fn bounded(record: &RequestRecord) -> RequestRecord {
    let mut bounded = record.clone();
    for (text, bytes) in [
        (&mut bounded.path, 512),
        (&mut bounded.model, 256),
        (&mut bounded.error_code, 128),
        (&mut bounded.error_detail, 1_024),
        (&mut bounded.dropped_params, 1_024),
        (&mut bounded.upstream_request_id, 256),
    ] {
        text.truncate(text.floor_char_boundary(bytes));
    }
    bounded
}

fn is_kept(record: &RequestRecord, settings: &Records) -> bool {
    let failed = record.status >= 400 || record.outcome != Outcome::Completed;
    match record.policy.records.unwrap_or(settings.mode) {
        RecordsMode::Off => false,
        RecordsMode::Errors => failed,
        RecordsMode::Sampled => failed || is_sampled(&record.settlement_id, settings.sample_percent),
        RecordsMode::All => true,
    }
}

/// The record as it is kept: what the log has, and what the caller noted about the request.
fn whole(record: &RequestRecord, metadata: Option<&str>, cost_nanos: Option<u64>) -> Option<Box<RawValue>> {
    let mut value = serde_json::to_value(record).ok()?;
    let members = value.as_object_mut()?;
    if let Some(nanos) = cost_nanos {
        members.insert("cost_nanos".to_owned(), nanos.into());
    }
    let metadata = metadata.filter(|text| text.len() <= METADATA_BYTES);
    if let Some(metadata) = metadata.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok()) {
        members.insert("metadata".to_owned(), Value::Object(metadata));
    }
    serde_json::value::to_raw_value(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::usage::Usage;
    use serde_json::json;

    fn config(records: Value) -> Config {
        let document = json!({
            "records": records,
            "providers": {"p": {"dialect": "openai", "base_url": "https://p.example/v1"}},
            "models": {"m": {"provider": "p"}, "free": {"provider": "p"}},
            "prices": {"m": {"input": "1", "output": "2"}},
        });
        Config::parse(&document).unwrap()
    }

    fn record() -> RequestRecord {
        RequestRecord {
            request_id: "r".into(),
            settlement_id: "s".into(),
            account: "a".into(),
            key_id: "k".into(),
            model: "m".into(),
            provider: "p".into(),
            status: 200,
            attempts: 1,
            usage: Some(Usage { input: 1_000, output: 500, ..Usage::default() }),
            ..RequestRecord::default()
        }
    }

    #[test]
    fn a_request_is_charged_by_its_models_price() {
        let config = config(json!({"mode": "off"}));
        let charged = entry(&record(), &config, 7, None).unwrap();
        assert_eq!((charged.id.as_str(), charged.request_id.as_str(), charged.at_ms), ("s", "r", 7));
        // 1,000 tokens at 1 $ a million and 500 at 2 $.
        assert_eq!((charged.cost_nanos, charged.unpriced, charged.record.is_none()), (Some(2_000_000), false, true));
        let free = entry(&RequestRecord { model: "free".into(), ..record() }, &config, 7, None).unwrap();
        assert_eq!((free.cost_nanos, free.unpriced), (None, true));
        let failed = RequestRecord { usage: None, status: 502, outcome: Outcome::Failed, ..record() };
        let failed = entry(&failed, &config, 7, None).unwrap();
        assert_eq!((failed.cost_nanos, failed.unpriced, failed.counted), (Some(0), false, true));
    }

    #[test]
    fn what_no_provider_was_asked_for_is_only_kept_as_a_record() {
        let refused = RequestRecord { attempts: 0, usage: None, status: 404, ..record() };
        assert!(entry(&refused, &config(json!({"mode": "off"})), 0, None).is_none());
        let kept = entry(&refused, &config(json!({"mode": "errors"})), 0, None).unwrap();
        assert_eq!((kept.counted, kept.cost_nanos, kept.record.is_some()), (false, None, true));
        let anonymous = RequestRecord { account: String::new(), ..refused };
        assert!(entry(&anonymous, &config(json!({"mode": "all"})), 0, None).is_none());
    }

    #[test]
    fn the_mode_decides_which_requests_are_kept() {
        let kept = |records: Value, record: &RequestRecord| {
            entry(record, &config(records), 0, None).is_some_and(|entry| entry.record.is_some())
        };
        let failed = RequestRecord { outcome: Outcome::Failed, ..record() };
        assert!(!kept(json!({"mode": "errors"}), &record()) && kept(json!({"mode": "errors"}), &failed));
        let sampled = json!({"mode": "sampled", "sample_percent": 0});
        assert!(!kept(sampled.clone(), &record()) && kept(sampled, &failed));
        assert!(kept(json!({"mode": "sampled", "sample_percent": 100}), &record()));
        assert!(kept(json!({"mode": "all"}), &record()) && !kept(json!({"mode": "off"}), &failed));
    }

    #[test]
    fn what_a_caller_can_make_long_is_cut() {
        let long =
            RequestRecord { model: "é".repeat(100_000), error_detail: "x".repeat(1_000_000), attempts: 0, ..record() };
        let entry = entry(&long, &config(json!({"mode": "all"})), 0, None).unwrap();
        assert_eq!(entry.model, "é".repeat(128));
        assert!(serde_json::to_string(&entry).unwrap().len() < 3_000);
    }

    #[test]
    fn a_sample_is_as_large_as_asked_for() {
        let ids =
            (0..2_000_u128).map(|n| uuid::Uuid::from_u128(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_1234)).to_string());
        let sampled = ids.filter(|id| is_sampled(id, 10)).count();
        assert!((120..280).contains(&sampled), "{sampled} of 2,000");
    }

    #[test]
    fn what_the_caller_notes_is_kept_if_it_is_a_small_object() {
        let kept = |metadata: &str, records: Value| {
            let entry = entry(&record(), &config(records), 0, Some(metadata)).unwrap();
            serde_json::from_str::<Value>(entry.record.unwrap().get()).unwrap()
        };
        let all = json!({"mode": "all"});
        assert_eq!(kept("{\"team\":\"x\"}", all.clone())["metadata"], json!({"team": "x"}));
        assert_eq!(kept("{\"team\":\"x\"}", all.clone())["cost_nanos"], json!(2_000_000));
        for refused in ["[1]", "{", &format!("{{\"a\":\"{}\"}}", "x".repeat(3_000))] {
            assert!(kept(refused, all.clone()).get("metadata").is_none(), "{refused}");
        }
        let without = json!({"mode": "all", "metadata": false});
        assert!(kept("{\"team\":\"x\"}", without).get("metadata").is_none());
    }
}
