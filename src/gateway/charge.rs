//! What a request is charged: its record made into an entry for its account's ledger.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::reservation::Reservation;
use crate::billing::Nanodollars;
use crate::config::{Records, RecordsMode};
use crate::limits::usage::UsageEntry;
use crate::telemetry::{Outcome, RequestRecord, is_sampled};

/// Longest `x-gateway-metadata` that is kept, in bytes.
const METADATA_BYTES: usize = 2 * 1024;

/// The entry of a request that has ended; `None` where there is nobody to charge, or nothing to charge or keep.
/// `at_ms` is when it came in, in Unix milliseconds; `metadata` is the caller's `x-gateway-metadata`. What is reserved is
/// settled by the entry, so there always is one then.
pub fn entry(
    record: &RequestRecord,
    settings: &Records,
    at_ms: u64,
    metadata: Option<&str>,
    reservation: Option<&Reservation>,
) -> Option<UsageEntry> {
    if record.account.is_empty() {
        return None;
    }
    let counted = record.attempts > 0 || reservation.is_some_and(Reservation::counts);
    let kept = is_kept(record, settings);
    if !counted && !kept && !reservation.is_some_and(Reservation::must_be_told) {
        return None;
    }
    let record = &bounded(record);
    let usage = record.usage.unwrap_or_default();
    // A request that failed before it used anything costs nothing.
    let nothing = record.pricing.as_ref().filter(|_| counted && record.usage.is_none()).map(|_| Nanodollars(0));
    let cost_nanos = record.cost_nanodollars.or(nothing).map(|Nanodollars(nanos)| nanos);
    let metadata = metadata.filter(|_| settings.metadata);
    let kept = if kept { whole(record, metadata) } else { None };
    Some(UsageEntry {
        id: record.settlement_id.clone(),
        request_id: record.request_id.clone(),
        at_ms,
        account: record.account.clone(),
        key_id: record.key_id.clone(),
        user: record.user.clone(),
        model: if record.deployment.is_empty() { record.model.clone() } else { record.deployment.clone() },
        provider: record.provider.clone(),
        status: record.status,
        outcome: record.outcome,
        counted,
        requests: 1,
        usage,
        cost_nanos,
        unpriced: counted && record.usage.is_some() && cost_nanos.is_none(),
        estimated: record.usage_estimated,
        lease: None,
        unanswered: reservation.is_some_and(|reservation| reservation.unanswered),
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

/// A list of models is not worth a row; a request that was refused is.
fn is_kept(record: &RequestRecord, settings: &Records) -> bool {
    let failed = record.status >= 400 || record.outcome != Outcome::Completed;
    if record.attempts == 0 && !failed {
        return false;
    }
    match record.policy.records.unwrap_or(settings.mode) {
        RecordsMode::Off => false,
        RecordsMode::Errors => failed,
        RecordsMode::Sampled => failed || is_sampled(&record.settlement_id, settings.sample_percent),
        RecordsMode::All => true,
    }
}

/// The record as it is kept: what the log has, and what the caller noted about the request.
fn whole(record: &RequestRecord, metadata: Option<&str>) -> Option<Box<RawValue>> {
    let mut value = serde_json::to_value(record).ok()?;
    let members = value.as_object_mut()?;
    let metadata = metadata.filter(|text| text.len() <= METADATA_BYTES);
    if let Some(metadata) = metadata.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok()) {
        members.insert("metadata".to_owned(), Value::Object(metadata));
    }
    serde_json::value::to_raw_value(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::{Parts, Picodollars, Pricing};
    use crate::protocol::usage::Usage;
    use serde_json::json;

    fn settings(records: Value) -> Records {
        serde_json::from_value(records).unwrap()
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
            pricing: Some(Pricing::flat(Parts { input: Some(Picodollars(1)), ..Parts::default() })),
            cost_nanodollars: Some(Nanodollars(2_000)),
            ..RequestRecord::default()
        }
    }

    #[test]
    fn a_request_is_charged_what_it_cost() {
        let off = settings(json!({"mode": "off"}));
        let charged = entry(&record(), &off, 7, None, None).unwrap();
        assert_eq!((charged.id.as_str(), charged.request_id.as_str(), charged.at_ms), ("s", "r", 7));
        assert_eq!((charged.cost_nanos, charged.unpriced, charged.record.is_none()), (Some(2_000), false, true));
        let unpriced = RequestRecord { pricing: None, cost_nanodollars: None, ..record() };
        let unpriced = entry(&unpriced, &off, 7, None, None).unwrap();
        assert_eq!((unpriced.cost_nanos, unpriced.unpriced), (None, true));
        let failed = RequestRecord { usage: None, cost_nanodollars: None, outcome: Outcome::Failed, ..record() };
        let failed = entry(&failed, &off, 7, None, None).unwrap();
        assert_eq!((failed.cost_nanos, failed.unpriced, failed.counted), (Some(0), false, true));
        let routed = RequestRecord { model: "best".into(), deployment: "m".into(), ..record() };
        assert_eq!(entry(&routed, &off, 7, None, None).unwrap().model, "m", "a route is charged as what it led to");
    }

    #[test]
    fn what_no_provider_was_asked_for_is_only_kept_as_a_record() {
        let refused = RequestRecord { attempts: 0, usage: None, cost_nanodollars: None, status: 404, ..record() };
        assert!(entry(&refused, &settings(json!({"mode": "off"})), 0, None, None).is_none());
        let kept = entry(&refused, &settings(json!({"mode": "errors"})), 0, None, None).unwrap();
        assert_eq!((kept.counted, kept.cost_nanos, kept.record.is_some()), (false, None, true));
        let list = RequestRecord { status: 200, ..refused.clone() };
        assert!(entry(&list, &settings(json!({"mode": "all"})), 0, None, None).is_none());
        let anonymous = RequestRecord { account: String::new(), ..refused };
        assert!(entry(&anonymous, &settings(json!({"mode": "all"})), 0, None, None).is_none());
    }

    #[test]
    fn the_mode_decides_which_requests_are_kept() {
        let kept = |records: Value, record: &RequestRecord| {
            entry(record, &settings(records), 0, None, None).is_some_and(|entry| entry.record.is_some())
        };
        let failed = RequestRecord { outcome: Outcome::Failed, ..record() };
        assert!(!kept(json!({"mode": "errors"}), &record()) && kept(json!({"mode": "errors"}), &failed));
        let sampled = json!({"mode": "sampled", "sample_percent": 0});
        assert!(!kept(sampled.clone(), &record()) && kept(sampled, &failed));
        assert!(kept(json!({"mode": "sampled", "sample_percent": 100}), &record()));
        assert!(kept(json!({"mode": "all"}), &record()) && !kept(json!({"mode": "off"}), &failed));
        let mut own = record();
        own.policy.records = Some(RecordsMode::Off);
        assert!(!kept(json!({"mode": "all"}), &own), "the key says otherwise");
    }

    #[test]
    fn what_a_caller_can_make_long_is_cut() {
        let long = RequestRecord {
            model: "é".repeat(100_000),
            error_detail: "x".repeat(1_000_000),
            status: 404,
            attempts: 0,
            ..record()
        };
        let entry = entry(&long, &settings(json!({"mode": "all"})), 0, None, None).unwrap();
        assert_eq!(entry.model, "é".repeat(128));
        assert!(serde_json::to_string(&entry).unwrap().len() < 3_000);
    }

    #[test]
    fn what_the_caller_notes_is_kept_if_it_is_a_small_object() {
        let kept = |metadata: &str, records: Value| {
            let entry = entry(&record(), &settings(records), 0, Some(metadata), None).unwrap();
            serde_json::from_str::<Value>(entry.record.unwrap().get()).unwrap()
        };
        let all = json!({"mode": "all"});
        assert_eq!(kept("{\"team\":\"x\"}", all.clone())["metadata"], json!({"team": "x"}));
        for refused in ["[1]", "{", &format!("{{\"a\":\"{}\"}}", "x".repeat(3_000))] {
            assert!(kept(refused, all.clone()).get("metadata").is_none(), "{refused}");
        }
        let without = json!({"mode": "all", "metadata": false});
        assert!(kept("{\"team\":\"x\"}", without).get("metadata").is_none());
    }
}
