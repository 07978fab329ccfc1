//! A published configuration.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Config, ConfigProblem};

/// A configuration as it is published: immutable, named by its place in the sequence and a hash of its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `<sequence>-<12 hexadecimal digits>`, or the digits alone where the sequence is 0.
    pub version: String,
    /// Its place among the versions that the control plane published, from 1; 0 if it was made without one.
    #[serde(default)]
    pub sequence: u64,
    /// The version before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// When it was sealed, in Unix seconds. Not part of the version.
    #[serde(default)]
    pub created_at: u64,
    /// The configuration as it was written: what it does not mention has its default.
    pub config: Value,
}

impl Snapshot {
    /// Seals a document; `now` is in Unix seconds.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn seal(document: Value, sequence: u64, parent: Option<String>, now: u64) -> Result<Self, Vec<ConfigProblem>> {
        Config::parse(&document)?;
        let hash = content_hash(&document);
        let version = if sequence == 0 { hash } else { format!("{sequence}-{hash}") };
        Ok(Self { version, sequence, parent, created_at: now, config: document })
    }
}

/// The first 12 hexadecimal digits of the SHA-256 of a document's canonical JSON.
pub fn content_hash(document: &Value) -> String {
    let digest = Sha256::digest(canonical_json(document).as_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// JSON without white space and with sorted members: the same for documents that say the same.
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| name.as_str());
            out.push('{');
            for (nth, (name, value)) in sorted.into_iter().enumerate() {
                if nth > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (nth, item) in items.iter().enumerate() {
                if nth > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_version_depends_on_the_content_alone() {
        let seal = |document: Value, sequence, now| Snapshot::seal(document, sequence, None, now).unwrap();
        let one = seal(json!({"timeouts": {"idle_ms": 500, "total_ms": 900}, "http": {}}), 0, 1);
        let same = seal(json!({"http": {}, "timeouts": {"total_ms": 900, "idle_ms": 500}}), 0, 2);
        let other = seal(json!({"http": {}, "timeouts": {"total_ms": 900, "idle_ms": 501}}), 0, 1);
        assert_eq!(one.version, same.version);
        assert_ne!(one.version, other.version);
        assert_eq!(one.version.len(), 12);
        let published = seal(one.config.clone(), 7, 1);
        assert_eq!(published.version, format!("7-{}", one.version));
        let back: Snapshot = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(back, one);
    }

    #[test]
    fn canonical_json_is_sorted_at_every_depth() {
        let value = json!({"b": [{"z": 1, "a": "é\""}, null], "a": 1.5});
        assert_eq!(canonical_json(&value), r#"{"a":1.5,"b":[{"a":"é\"","z":1},null]}"#);
    }

    #[test]
    fn a_snapshot_of_another_version_can_still_be_read() {
        let later = json!({"version": "v", "new": 1, "config": {"timeouts": {"new": 1}, "new": {}}});
        let snapshot: Snapshot = serde_json::from_value(later).unwrap();
        assert!(Config::read(&snapshot.config).is_ok());
    }

    #[test]
    fn what_is_wrong_is_not_sealed() {
        assert!(Snapshot::seal(json!({"http": {"max_json_depth": 1}}), 0, None, 0).is_err());
        assert!(Snapshot::seal(json!({"htpp": {}}), 0, None, 0).is_err());
    }
}
