//! Entries of the audit log and the chain that holds them together.
//!
//! An entry's hash is an HMAC-SHA-256 of its content and the hash of the entry before it, under a key that follows from
//! the deployment's master secret. Whoever can write to the database, but does not have the secret, can neither change an
//! entry nor put one in or take one out without breaking the chain. Cutting off its end shows only against a hash that
//! was kept elsewhere; each hash goes to the log for that.

use hmac::{Hmac, Mac};
use serde::Deserialize;
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

/// An entry as it stands in the database. After tampering it may be none.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredEntry {
    sequence: i64,
    at_ms: i64,
    actor_kind: String,
    actor_id: String,
    actor_name: String,
    action: String,
    outcome: String,
    target_kind: String,
    target_id: String,
    account_id: String,
    before: String,
    after: String,
    ip: String,
    user_agent: String,
    request_id: String,
    hash: String,
}

impl StoredEntry {
    fn read(self) -> Option<AuditEntry> {
        Some(AuditEntry {
            sequence: u64::try_from(self.sequence).ok()?,
            at_ms: u64::try_from(self.at_ms).ok()?,
            actor_kind: self.actor_kind,
            actor_id: self.actor_id,
            actor_name: self.actor_name,
            action: self.action,
            outcome: self.outcome,
            target_kind: self.target_kind,
            target_id: self.target_id,
            account_id: self.account_id,
            before: serde_json::from_str(&self.before).ok()?,
            after: serde_json::from_str(&self.after).ok()?,
            ip: self.ip,
            user_agent: self.user_agent,
            request_id: self.request_id,
            hash: self.hash,
        })
    }
}

/// An entry's place in the log, and its hash, as they stand in the database.
#[derive(Debug, Clone, Deserialize)]
pub struct Place {
    /// The place; forged ones may be below 1.
    pub sequence: i64,
    /// The hash.
    pub hash: String,
}

impl Place {
    /// The place; 0 for one that is none.
    pub fn number(&self) -> u64 {
        u64::try_from(self.sequence).unwrap_or(0)
    }
}

/// The hash that the entry at `from` follows on. `before` is the last entry before it, `head` the last one of all.
///
/// # Errors
/// The place at which the log is broken before `from`: an entry is missing there, or stands where none can.
pub fn hash_before(from: u64, before: Option<&Place>, head: Option<&Place>) -> Result<String, u64> {
    let last = from.saturating_sub(1);
    match before {
        None if last == 0 => Ok(BEGINNING.to_owned()),
        Some(_) if last == 0 => Err(0),
        Some(place) if place.number() == last => Ok(place.hash.clone()),
        // Behind the end there is nothing that could be missing.
        _ if head.map_or(0, Place::number) < from => Ok(BEGINNING.to_owned()),
        _ => Err(before.map_or(0, Place::number).saturating_add(1)),
    }
}

/// What came of checking a run of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How many entries, from the first on, are what was written.
    pub intact: u64,
    /// The first that is not, or is missing.
    pub broken_at: Option<u64>,
    /// The hash of the last entry that was checked; that before the run if there is none.
    pub last_hash: String,
}

/// Checks a run of entries as they stand in the database; the rest is as with [`first_broken`].
pub fn check_run(key: &dyn Fn(&str) -> Option<[u8; 32]>, previous: &str, first: u64, run: Vec<StoredEntry>) -> Checked {
    let length = run.len();
    let entries: Vec<AuditEntry> = run.into_iter().map_while(StoredEntry::read).collect();
    let behind = first.saturating_add(entries.len() as u64);
    let illegible = (entries.len() < length).then_some(behind);
    let broken_at = first_broken(key, previous, first, &entries).or(illegible);
    Checked {
        intact: broken_at.unwrap_or(behind).saturating_sub(first),
        broken_at,
        last_hash: entries.last().map_or_else(|| previous.to_owned(), |last| last.hash.clone()),
    }
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
#[expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]
mod tests;
