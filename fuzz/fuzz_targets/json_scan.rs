//! The scan of a request's body takes what the parser takes, and sees the same in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llm_gateway::protocol::json_scan::{ScanError, ScanLimits, scan_object};
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let parsed = serde_json::from_slice::<IgnoredAny>(text).is_ok();
    let members = match scan_object(text, ScanLimits::default()) {
        Ok(members) => members,
        Err(ScanError::Syntax { .. }) => return assert!(!parsed, "the parser takes what the scan refuses"),
        // The scan has bounds, and wants text even in what a parser passes over.
        Err(_) => return,
    };
    assert!(parsed, "the scan takes what the parser refuses");
    // Lone surrogates and numbers beyond all bounds are in the grammar, but not in a value.
    let Ok(Value::Object(values)) = serde_json::from_slice(text) else { return };
    assert_eq!(members.is_empty(), values.is_empty());
    for (name, value) in &values {
        match members.unique(name) {
            Ok(Some(member)) => {
                let raw = members.raw(member);
                assert_eq!(serde_json::from_slice::<Value>(raw).ok().as_ref(), Some(value));
                assert_eq!(raw, raw.trim_ascii());
            }
            Ok(None) => panic!("the scan does not see a member"),
            Err(error) => assert!(matches!(error, ScanError::Duplicate { .. })),
        }
    }
});
