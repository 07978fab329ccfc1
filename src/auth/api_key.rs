//! API keys: `sk-lgw-<public id>-<secret><checksum>`.
//!
//! - The public id (12 characters) names the key in KV, logs and the console.
//! - The secret (32 characters, 190 bits) is never stored; its owner's copy is the only one.
//! - The checksum (6 characters) tells a mistyped or truncated key without any look-up, and lets secret scanners tell a
//!   real key from a look-alike.
//!
//! KV has an HMAC-SHA-256 of the whole key under a Worker secret: whoever reads KV can neither use nor guess a key.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{AuthError, Principal};
use crate::secret::Secret;

const PREFIX: &str = "sk-lgw-";
const ID_LENGTH: usize = 12;
const SECRET_LENGTH: usize = 32;
const CHECKSUM_LENGTH: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How many random bytes make a key.
pub const RANDOM_BYTES: usize = 2 * (ID_LENGTH + SECRET_LENGTH);

/// A key whose form and checksum are right.
#[derive(Debug, Clone)]
pub struct ApiKey {
    public_id: String,
    whole: Secret<String>,
}

impl ApiKey {
    /// Checks a key's form and checksum; needs no look-up.
    pub fn parse(text: &str) -> Option<Self> {
        let (public_id, rest) = text.strip_prefix(PREFIX)?.split_once('-')?;
        let (secret, checksum) = rest.split_at_checked(SECRET_LENGTH)?;
        let well_formed = public_id.len() == ID_LENGTH
            && checksum.len() == CHECKSUM_LENGTH
            && [public_id, secret, checksum].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        if !well_formed || checksum_of(public_id, secret) != checksum {
            return None;
        }
        Some(Self { public_id: public_id.to_owned(), whole: Secret::new(text.to_owned()) })
    }

    /// The part that may be shown.
    pub fn public_id(&self) -> &str {
        &self.public_id
    }

    /// Where the key's record lies in KV.
    pub fn record_name(&self) -> String {
        format!("key:{}", self.public_id)
    }

    /// The HMAC under which the key is known.
    pub fn hash(&self, hash_secret: &Secret<String>) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.mac(hash_secret).map(|mac| mac.finalize().into_bytes()).unwrap_or_default() {
            hex.push_str(&format!("{byte:02x}"));
        }
        hex
    }

    fn mac(&self, hash_secret: &Secret<String>) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(hash_secret.expose().as_bytes()).ok()?;
        mac.update(self.whole.expose().as_bytes());
        Some(mac)
    }

    /// Compares in constant time.
    fn matches(&self, hash: &str, hash_secret: &Secret<String>) -> bool {
        let Some(expected) = decode_hex(hash) else { return false };
        self.mac(hash_secret).is_some_and(|mac| mac.verify_slice(&expected).is_ok())
    }
}

/// Makes a key of random bytes.
pub fn compose(random: &[u8; RANDOM_BYTES]) -> Secret<String> {
    // Two bytes a character: the remainder's bias is below one in a thousand.
    let mut characters = random.chunks_exact(2).map(|pair| {
        let number = pair.iter().fold(0u32, |n, byte| (n << 8) | u32::from(*byte));
        letter(u64::from(number))
    });
    let public_id: String = characters.by_ref().take(ID_LENGTH).collect();
    let secret: String = characters.collect();
    let checksum = checksum_of(&public_id, &secret);
    Secret::new(format!("{PREFIX}{public_id}-{secret}{checksum}"))
}

fn letter(number: u64) -> char {
    let at = usize::try_from(number.checked_rem(62).unwrap_or(0)).unwrap_or(0);
    ALPHABET.get(at).map_or('0', |byte| char::from(*byte))
}

fn checksum_of(public_id: &str, secret: &str) -> String {
    let digest = Sha256::digest(format!("{public_id}-{secret}"));
    let mut number = digest.iter().take(8).fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
    let mut checksum = String::with_capacity(CHECKSUM_LENGTH);
    for _ in 0..CHECKSUM_LENGTH {
        checksum.push(letter(number));
        number = number.checked_div(62).unwrap_or(0);
    }
    checksum
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// What KV holds of a key. Fields may be added, so old records stay readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// HMAC-SHA-256 of the key, in hexadecimal.
    pub hash: String,
    /// The account that is charged.
    pub account: String,
    /// What its owner calls it.
    #[serde(default)]
    pub name: String,
    /// Models it may use: exact names, or prefixes ending in `*`. Empty for all.
    #[serde(default)]
    pub models: Vec<String>,
    /// When it ends, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Whether it is switched off.
    #[serde(default)]
    pub disabled: bool,
}

/// Decides whether a key is good. `record` is what KV has under [`ApiKey::record_name`]; `now` is in Unix seconds.
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
    if !key.matches(&record.hash, hash_secret) {
        return Err(AuthError::WrongSecret);
    }
    if record.disabled {
        return Err(AuthError::Disabled);
    }
    if record.expires_at.is_some_and(|end| now >= end) {
        return Err(AuthError::Expired);
    }
    Ok(Principal { account: record.account.clone(), key_id: key.public_id.clone(), models: record.models.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(key: &ApiKey, secret: &Secret<String>) -> KeyRecord {
        KeyRecord {
            hash: key.hash(secret),
            account: "team".into(),
            name: "n".into(),
            models: vec!["m".into()],
            expires_at: Some(1000),
            disabled: false,
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
    fn the_key_is_not_in_what_is_printed_or_stored() {
        let secret = Secret::new("pepper".to_owned());
        let text = compose(&[9; RANDOM_BYTES]);
        let key = ApiKey::parse(text.expose()).unwrap();
        let hidden = text.expose().split('-').next_back().unwrap();
        assert!(!format!("{key:?}").contains(hidden));
        assert!(!serde_json::to_string(&record(&key, &secret)).unwrap().contains(hidden));
    }

    proptest! {
        #[test]
        fn any_single_mistyped_character_is_noticed(random in proptest::collection::vec(any::<u8>(), RANDOM_BYTES), at in 0usize..57, with in "[0-9A-Za-z]") {
            let key = compose(&random.try_into().unwrap());
            prop_assert!(ApiKey::parse(key.expose()).is_some());
            prop_assert_eq!(key.expose().len(), 58);
            let mut typed: Vec<char> = key.expose().chars().collect();
            let typo = with.chars().next().unwrap();
            prop_assume!(typed[at] != typo);
            typed[at] = typo;
            prop_assert!(ApiKey::parse(&typed.into_iter().collect::<String>()).is_none());
        }

        #[test]
        fn no_text_makes_parsing_fail_hard(text in ".{0,80}") {
            let _ = ApiKey::parse(&text);
            let _ = ApiKey::parse(&format!("sk-lgw-{text}"));
        }
    }
}
