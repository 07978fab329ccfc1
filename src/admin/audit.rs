//! Entries of the audit log and the chain that holds them together.
//!
//! An entry's hash is an HMAC-SHA-256 of its content and the hash of the entry before it, under a key that follows from
//! the deployment's master secret. Whoever can write to the database, but does not have the secret, can neither change an
//! entry nor put one in or take one out without breaking the chain. Cutting off its end shows only against a hash that
//! was kept elsewhere; each hash goes to the log for that.

use hmac::{Hmac, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

use super::types::records::AuditEntry;

/// The hash before the first entry.
pub const BEGINNING: &str = "";

/// The hash of an entry (whose own `hash` is not looked at) after one with the hash `previous`. `key_id` names the key in
/// front of it, so that entries outlive a change of the secret.
pub fn chain(key_id: &str, key: &[u8; 32], previous: &str, entry: &AuditEntry) -> String {
    // The order of the fields is part of the format: it must never change.
    let content = serde_json::json!([
        previous,
        entry.sequence,
        entry.at_ms,
        entry.actor_kind,
        entry.actor_id,
        entry.actor_name,
        entry.action,
        entry.outcome,
        entry.target_kind,
        entry.target_id,
        entry.account_id,
        canonical(&entry.before),
        canonical(&entry.after),
        entry.ip,
        entry.user_agent,
        entry.request_id,
    ]);
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(content.to_string().as_bytes());
    mac.finalize().into_bytes().iter().fold(format!("{key_id}:"), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The first entry in a run that is not what was written, or is missing; `previous` is the hash before the run, `first`
/// the place of its first entry, `key` gives the key of an id.
pub fn first_broken(
    key: &dyn Fn(&str) -> Option<[u8; 32]>,
    previous: &str,
    first: u64,
    entries: &[AuditEntry],
) -> Option<u64> {
    let mut previous = previous;
    let mut expected = first;
    for entry in entries {
        let key_id = entry.hash.split(':').next().unwrap_or_default();
        let intact = key(key_id).is_some_and(|key| chain(key_id, &key, previous, entry) == entry.hash);
        if !intact || entry.sequence != expected {
            return Some(expected);
        }
        previous = &entry.hash;
        expected = expected.saturating_add(1);
    }
    None
}

/// Members in the order of their names, so that equal values have equal texts.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            let sorted: Map<String, Value> =
                names.into_iter().filter_map(|name| Some((name.clone(), canonical(members.get(name)?)))).collect();
            Value::Object(sorted)
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

/// Only what differs between two states of a thing: the rest of an entry would say nothing.
pub fn difference(before: &Value, after: &Value) -> (Value, Value) {
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return (before.clone(), after.clone()) };
    let differs = |name: &&String| old.get(*name) != new.get(*name);
    let pick = |from: &Map<String, Value>| {
        Value::Object(
            from.iter().filter(|(name, _)| differs(name)).map(|(name, value)| (name.clone(), value.clone())).collect(),
        )
    };
    (pick(old), pick(new))
}

/// Takes out what an audit log must not keep: members that are named as secrets are.
#[must_use]
pub fn redact(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, value)| {
                    let value = if is_secret(&name) && !value.is_null() { "[redacted]".into() } else { redact(value) };
                    (name, value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(redact).collect()),
        other => other,
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(
        name.as_str(),
        "password" | "password_hash" | "current" | "new" | "value" | "hash" | "sealed" | "api_key" | "token"
    ) || name.ends_with("_token")
        || name.ends_with("_secret") && name != "worker_secret"
        || matches!(name.as_str(), "authorization" | "cookie" | "x-api-key")
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const KEY: [u8; 32] = [7; 32];

    fn entry(sequence: u64, after: Value) -> AuditEntry {
        AuditEntry {
            sequence,
            at_ms: 1000 + sequence,
            actor_kind: "user".into(),
            actor_id: "usr_1".into(),
            actor_name: "Ada".into(),
            action: "keys:update".into(),
            outcome: "done".into(),
            target_kind: "key".into(),
            target_id: "key_1".into(),
            account_id: "a".into(),
            before: json!({}),
            after,
            ip: "192.0.2.1".into(),
            user_agent: "test".into(),
            request_id: "r".into(),
            hash: String::new(),
        }
    }

    fn log(length: u64) -> Vec<AuditEntry> {
        let mut previous = BEGINNING.to_owned();
        (1..=length)
            .map(|sequence| {
                let mut entry = entry(sequence, json!({"n": sequence}));
                entry.hash = chain("id", &KEY, &previous, &entry);
                previous.clone_from(&entry.hash);
                entry
            })
            .collect()
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let one = chain("id", &KEY, "", &entry(1, json!({"a": 1, "b": {"c": 2, "d": 3}})));
        assert_eq!(one, chain("id", &KEY, "", &entry(1, json!({"b": {"d": 3, "c": 2}, "a": 1}))));
        assert_eq!(one.len(), 3 + 64);
        assert_ne!(one, chain("id", &[8; 32], "", &entry(1, json!({"a": 1, "b": {"c": 2, "d": 3}}))));
    }

    #[test]
    fn only_differences_are_kept_and_no_secrets() {
        let (before, after) = difference(&json!({"a": 1, "b": 2}), &json!({"a": 1, "b": 3, "c": 4}));
        assert_eq!((before, after), (json!({"b": 2}), json!({"b": 3, "c": 4})));
        let redacted = redact(
            json!({"value": "sk", "nested": [{"refresh_token": "x"}], "worker_secret": "NAME", "name": "n", "hash": null}),
        );
        assert_eq!(
            redacted,
            json!({"value": "[redacted]", "nested": [{"refresh_token": "[redacted]"}], "worker_secret": "NAME", "name": "n", "hash": null})
        );
    }

    proptest! {
        #[test]
        fn every_tampering_is_found_where_it_happened(length in 1u64..12, at in 0usize..12, how in 0usize..4) {
            let mut entries = log(length);
            prop_assert_eq!(first_broken(&|_| Some(KEY), BEGINNING, 1, &entries), None);
            prop_assume!(at < entries.len());
            match how {
                0 => entries[at].after = json!({"n": 0}),
                1 => entries[at].actor_id.push('x'),
                2 if at + 1 < entries.len() => { entries.remove(at); }
                _ => {
                    // Forged without the key, the rest of the chain put right.
                    let previous = if at == 0 { String::new() } else { entries[at - 1].hash.clone() };
                    entries[at].outcome = "refused".into();
                    entries[at].hash = chain("id", &[0; 32], &previous, &entries[at]);
                }
            }
            prop_assert_eq!(first_broken(&|_| Some(KEY), BEGINNING, 1, &entries), Some(at as u64 + 1));
        }
    }
}
