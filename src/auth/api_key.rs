//! API keys of the data plane (`sk-lgw-…`, see [`super::opaque`]) and what is stored of them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ip_ranges::IpRange;
use super::opaque::{Opaque, OpaqueKind};
use super::{AuthError, Principal};
use crate::secret::Secret;

pub use super::opaque::RANDOM_BYTES;

/// A key whose form and checksum are right.
#[derive(Debug, Clone)]
pub struct ApiKey(Opaque);

impl ApiKey {
    /// Checks a key's form and checksum; needs no look-up.
    pub fn parse(text: &str) -> Option<Self> {
        Opaque::parse(OpaqueKind::ApiKey, text).map(Self)
    }

    /// The part that may be shown.
    pub fn public_id(&self) -> &str {
        self.0.id()
    }

    /// Where the key's record lies in KV.
    pub fn record_name(&self) -> String {
        record_name(self.public_id())
    }

    /// The HMAC under which the key is known, in hexadecimal.
    pub fn hash(&self, hash_secret: &Secret<String>) -> String {
        self.0.hash(hash_secret)
    }
}

/// Where the record of the key with this public id lies in KV.
pub fn record_name(public_id: &str) -> String {
    format!("key:{public_id}")
}

/// Makes a key of random bytes.
pub fn compose(random: &[u8; RANDOM_BYTES]) -> Secret<String> {
    Opaque::compose(OpaqueKind::ApiKey, random).text().clone()
}

/// What is stored of a key. Fields may be added, so old records stay readable; one that cannot be read in full (an
/// unknown form of address range, say) is no record at all, so that no restriction is lost on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// HMAC-SHA-256 of the key, in hexadecimal.
    pub hash: String,
    /// The account that is charged.
    pub account: String,
    /// The key's stable id: it stays when the key is rotated and gets a new public id. Empty: the public id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The user that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What its owner calls it.
    #[serde(default)]
    pub name: String,
    /// Models it may use: exact names, or prefixes ending in `*`. Empty for all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Paths it may call, such as `/v1/chat/completions`: exact, or prefixes ending in `*`. Empty for all but those below
    /// `/v1/proxy/`, which must be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Addresses it may be used from. Empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_ranges: Vec<IpRange>,
    /// When it ends, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Whether it is switched off.
    #[serde(default)]
    pub disabled: bool,
    /// Counts the changes of the record: of two copies the higher one is right.
    #[serde(default)]
    pub revision: u64,
    /// Settings that differ for this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Value>,
    /// Whatever its owner notes about it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// Decides whether a key is good. `record` is what is stored under [`ApiKey::record_name`]; `now` is in Unix seconds.
///
/// # Errors
/// [`AuthError`], for the log; the caller learns only that the key is not valid.
pub fn check(
    key: &ApiKey,
    record: Option<&KeyRecord>,
    hash_secret: &Secret<String>,
    now: u64,
) -> Result<Principal, AuthError> {
    let record = record.ok_or(AuthError::Unknown)?;
    if !key.0.matches(&record.hash, hash_secret) {
        return Err(AuthError::WrongSecret);
    }
    if record.disabled {
        return Err(AuthError::Disabled);
    }
    if record.expires_at.is_some_and(|end| now >= end) {
        return Err(AuthError::Expired);
    }
    let public_id = key.public_id().to_owned();
    Ok(Principal {
        account: record.account.clone(),
        key_id: if record.key.is_empty() { public_id.clone() } else { record.key.clone() },
        public_id,
        user: record.user.clone(),
        models: record.models.clone(),
        endpoints: record.endpoints.clone(),
        ip_ranges: record.ip_ranges.clone(),
        revision: record.revision,
        overrides: record.overrides.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(key: &ApiKey, secret: &Secret<String>) -> KeyRecord {
        KeyRecord {
            hash: key.hash(secret),
            account: "team".into(),
            models: vec!["m".into()],
            expires_at: Some(1000),
            ..KeyRecord::default()
        }
    }

    #[test]
    fn a_key_is_judged_by_its_record() {
        let secret = Secret::new("pepper".to_owned());
        let key = ApiKey::parse(compose(&[7; RANDOM_BYTES]).expose()).unwrap();
        let good = record(&key, &secret);
        let principal = check(&key, Some(&good), &secret, 999).unwrap();
        assert_eq!((principal.account.as_str(), principal.key_id.as_str()), ("team", key.public_id()));
        assert_eq!(check(&key, None, &secret, 999), Err(AuthError::Unknown));
        assert_eq!(check(&key, Some(&good), &secret, 1000), Err(AuthError::Expired));
        assert_eq!(check(&key, Some(&good), &Secret::new("other".to_owned()), 0), Err(AuthError::WrongSecret));
        let disabled = KeyRecord { disabled: true, ..good.clone() };
        assert_eq!(check(&key, Some(&disabled), &secret, 0), Err(AuthError::Disabled));
        for hash in ["", "zz", &format!("{}0", good.hash)] {
            let broken = KeyRecord { hash: hash.into(), ..good.clone() };
            assert_eq!(check(&key, Some(&broken), &secret, 0), Err(AuthError::WrongSecret));
        }
    }

    #[test]
    fn a_rotated_key_keeps_its_stable_id() {
        let secret = Secret::new("pepper".to_owned());
        for seed in [1, 2] {
            let key = ApiKey::parse(compose(&[seed; RANDOM_BYTES]).expose()).unwrap();
            let rotated = KeyRecord { key: "key_1".into(), user: Some("usr_1".into()), ..record(&key, &secret) };
            let principal = check(&key, Some(&rotated), &secret, 0).unwrap();
            assert_eq!((principal.key_id.as_str(), principal.public_id.as_str()), ("key_1", key.public_id()));
            assert_eq!(principal.user.as_deref(), Some("usr_1"));
        }
    }

    #[test]
    fn a_record_from_before_stays_readable_and_an_unreadable_restriction_is_no_record() {
        let old = json!({"hash": "h", "account": "team", "name": "n", "models": ["m"], "disabled": false});
        let read: KeyRecord = serde_json::from_value(old).unwrap();
        assert!(read.endpoints.is_empty() && read.ip_ranges.is_empty() && read.key.is_empty());
        let restricted = json!({"hash": "h", "account": "team", "ip_ranges": ["10.0.0.0/8", "2001:db8::/32"]});
        let read: KeyRecord = serde_json::from_value(restricted.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap()["ip_ranges"], restricted["ip_ranges"]);
        let wrong = json!({"hash": "h", "account": "team", "ip_ranges": ["10.0.0.0/33"]});
        assert!(serde_json::from_value::<KeyRecord>(wrong).is_err());
    }

    #[test]
    fn keys_that_were_issued_before_stay_valid() {
        let key = compose(&[7; RANDOM_BYTES]);
        assert_eq!(key.expose(), "sk-lgw-111111111111-11111111111111111111111111111111C54NQg");
        let hash = ApiKey::parse(key.expose()).unwrap().hash(&Secret::new("pepper".to_owned()));
        assert_eq!(hash, "76e8e4a6175153952b1a6e328540589e336c87aeea45603127fbc7d39a9bda1a");
    }

    #[test]
    fn the_key_is_not_in_what_is_printed_or_stored() {
        let secret = Secret::new("pepper".to_owned());
        let text = compose(&[9; RANDOM_BYTES]);
        let key = ApiKey::parse(text.expose()).unwrap();
        let hidden = text.expose().split('-').next_back().unwrap();
        assert!(!format!("{key:?}").contains(hidden));
        assert!(!serde_json::to_string(&record(&key, &secret)).unwrap().contains(hidden));
    }
}
