//! Opaque credentials: `<prefix>-<id>-<secret><checksum>`, for API keys (`sk-lgw-`), refresh tokens (`rt-lgw-`) and
//! service tokens of the admin API (`st-lgw-`).
//!
//! - The id (12 characters, 71 bits) names the credential in stores, logs and the console.
//! - The secret (32 characters, 190 bits) is never stored; its owner's copy is the only one.
//! - The checksum (6 characters) tells a mistyped or truncated credential without any look-up, and lets secret scanners
//!   tell a real one from a look-alike.
//!
//! What is stored is an HMAC-SHA-256 of the whole under a Worker secret: whoever reads the store can neither use nor
//! guess a credential. A stored hash of one kind never matches a credential of another.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::AuthError;
use crate::secret::Secret;

const ID_LENGTH: usize = 12;
const SECRET_LENGTH: usize = 32;
const CHECKSUM_LENGTH: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How many random bytes make a credential.
pub const RANDOM_BYTES: usize = 2 * (ID_LENGTH + SECRET_LENGTH);

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpaqueKind {
    /// Calls models.
    ApiKey,
    /// Renews a session, once.
    Refresh,
    /// Calls the admin API without a person.
    Service,
}

impl OpaqueKind {
    /// What its text begins with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "sk-lgw-",
            Self::Refresh => "rt-lgw-",
            Self::Service => "st-lgw-",
        }
    }

    /// Separates the hashes and checksums of the kinds. API keys, which came first, have none: what is hashed of them
    /// begins with their prefix, and no label does.
    fn label(self) -> &'static str {
        match self {
            Self::ApiKey => "",
            Self::Refresh => "refresh-token/v1\n",
            Self::Service => "service-token/v1\n",
        }
    }
}

/// A credential whose form and checksum are right. Its `Debug` shows the id alone.
#[derive(Debug, Clone)]
pub struct Opaque {
    kind: OpaqueKind,
    id: String,
    whole: Secret<String>,
}

impl Opaque {
    /// Checks form and checksum; needs no look-up.
    pub fn parse(kind: OpaqueKind, text: &str) -> Option<Self> {
        let (id, rest) = text.strip_prefix(kind.prefix())?.split_once('-')?;
        let (secret, checksum) = rest.split_at_checked(SECRET_LENGTH)?;
        let well_formed = id.len() == ID_LENGTH
            && checksum.len() == CHECKSUM_LENGTH
            && [id, secret, checksum].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        if !well_formed || checksum_of(kind, id, secret) != checksum {
            return None;
        }
        Some(Self { kind, id: id.to_owned(), whole: Secret::new(text.to_owned()) })
    }

    /// Makes a credential of random bytes.
    pub fn compose(kind: OpaqueKind, random: &[u8; RANDOM_BYTES]) -> Self {
        // Two bytes a character: the remainder's bias is below one in a thousand.
        let mut characters = random.chunks_exact(2).map(|pair| {
            let number = pair.iter().fold(0u32, |n, byte| (n << 8) | u32::from(*byte));
            letter(u64::from(number))
        });
        let id: String = characters.by_ref().take(ID_LENGTH).collect();
        let secret: String = characters.collect();
        let checksum = checksum_of(kind, &id, &secret);
        let whole = Secret::new(format!("{}{id}-{secret}{checksum}", kind.prefix()));
        Self { kind, id, whole }
    }

    /// The part that may be shown.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole text, for its owner.
    pub fn text(&self) -> &Secret<String> {
        &self.whole
    }

    /// The HMAC under which it is stored, in hexadecimal.
    pub fn hash(&self, hash_secret: &Secret<String>) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.mac(hash_secret).map(|mac| mac.finalize().into_bytes()).unwrap_or_default() {
            hex.push_str(&format!("{byte:02x}"));
        }
        hex
    }

    /// Compares with a stored hash, in constant time.
    pub fn matches(&self, hash: &str, hash_secret: &Secret<String>) -> bool {
        let Some(expected) = decode_hex(hash) else { return false };
        self.mac(hash_secret).is_some_and(|mac| mac.verify_slice(&expected).is_ok())
    }

    fn mac(&self, hash_secret: &Secret<String>) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(hash_secret.expose().as_bytes()).ok()?;
        mac.update(self.kind.label().as_bytes());
        mac.update(self.whole.expose().as_bytes());
        Some(mac)
    }
}

fn letter(number: u64) -> char {
    let at = usize::try_from(number.checked_rem(62).unwrap_or(0)).unwrap_or(0);
    ALPHABET.get(at).map_or('0', |byte| char::from(*byte))
}

fn checksum_of(kind: OpaqueKind, id: &str, secret: &str) -> String {
    let digest = Sha256::digest(format!("{}{id}-{secret}", kind.label()));
    let mut number = digest.iter().take(8).fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
    let mut checksum = String::with_capacity(CHECKSUM_LENGTH);
    for _ in 0..CHECKSUM_LENGTH {
        checksum.push(letter(number));
        number = number.checked_div(62).unwrap_or(0);
    }
    checksum
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    // `from_str_radix` would take a sign for a digit.
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// What is stored of a service token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTokenRecord {
    /// Its hash ([`Opaque::hash`]).
    pub hash: String,
    /// When it ends, in Unix seconds.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_at: Option<u64>,
}

/// Decides whether a service token is good; `now` is in Unix seconds.
///
/// # Errors
/// [`AuthError`], for the log; the caller learns only that the token is not valid.
pub fn check_service_token(
    token: &Opaque,
    record: Option<&ServiceTokenRecord>,
    hash_secret: &Secret<String>,
    now: u64,
) -> Result<(), AuthError> {
    let record = record.filter(|_| token.kind == OpaqueKind::Service).ok_or(AuthError::Unknown)?;
    if !token.matches(&record.hash, hash_secret) {
        return Err(AuthError::WrongSecret);
    }
    if record.revoked_at.is_some() {
        return Err(AuthError::Disabled);
    }
    if record.expires_at.is_some_and(|end| now >= end) {
        return Err(AuthError::Expired);
    }
    Ok(())
}

/// What is stored of a session's refresh tokens. All times are in Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshRecord {
    /// The hash of the token in use ([`Opaque::hash`]).
    pub hash: String,
    /// The hash of the one before.
    #[serde(default)]
    pub spent_hash: Option<String>,
    /// When the session began or was last renewed.
    pub last_used_at: u64,
    /// When the session ends however often it is renewed.
    pub expires_at: u64,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_at: Option<u64>,
}

impl RefreshRecord {
    /// A new session that lasts `session_seconds` at most.
    pub fn first(token: &Opaque, hash_secret: &Secret<String>, now: u64, session_seconds: u64) -> Self {
        Self {
            hash: token.hash(hash_secret),
            spent_hash: None,
            last_used_at: now,
            expires_at: now.saturating_add(session_seconds),
            revoked_at: None,
        }
    }
}

/// What follows from presenting a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It is good. Store this record in the old one's place, on condition that the stored hash is still the presented
    /// token's: where it is not, the token was used meanwhile, which is [`Rotation::Reused`].
    Rotated(RefreshRecord),
    /// It was exchanged before, so two parties hold it, and one of them stole it: revoke the whole session (RFC 9700,
    /// section 4.14.2).
    Reused,
    /// The session has ended, by its age or because it was not used for long.
    Expired,
    /// The session was revoked.
    Revoked,
    /// It is no token of this session: refuse it and leave the session alone.
    Unknown,
}

/// Decides on a presented refresh token. `successor` is a fresh one, `now` in Unix seconds; a session that was not
/// renewed for `idle_seconds` has ended.
pub fn rotate(
    record: Option<&RefreshRecord>,
    presented: &Opaque,
    successor: &Opaque,
    hash_secret: &Secret<String>,
    now: u64,
    idle_seconds: u64,
) -> Rotation {
    let Some(record) = record.filter(|_| presented.kind == OpaqueKind::Refresh) else { return Rotation::Unknown };
    let is_current = presented.matches(&record.hash, hash_secret);
    let is_spent = record.spent_hash.as_ref().is_some_and(|spent| presented.matches(spent, hash_secret));
    if !is_current && !is_spent {
        return Rotation::Unknown;
    }
    if record.revoked_at.is_some() {
        return Rotation::Revoked;
    }
    if !is_current {
        return Rotation::Reused;
    }
    if now >= record.expires_at || now >= record.last_used_at.saturating_add(idle_seconds) {
        return Rotation::Expired;
    }
    Rotation::Rotated(RefreshRecord {
        hash: successor.hash(hash_secret),
        spent_hash: Some(record.hash.clone()),
        last_used_at: now,
        expires_at: record.expires_at,
        revoked_at: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [OpaqueKind; 3] = [OpaqueKind::ApiKey, OpaqueKind::Refresh, OpaqueKind::Service];

    fn pepper() -> Secret<String> {
        Secret::new("pepper".to_owned())
    }

    fn token(kind: OpaqueKind, seed: u8) -> Opaque {
        Opaque::compose(kind, &[seed; RANDOM_BYTES])
    }

    #[test]
    fn a_credential_of_one_kind_is_none_of_another() {
        for kind in KINDS {
            let made = token(kind, 7);
            let text = made.text().expose();
            let parsed = Opaque::parse(kind, text).unwrap();
            assert_eq!(parsed.id(), made.id());
            assert!(parsed.matches(&made.hash(&pepper()), &pepper()));
            for other in KINDS.into_iter().filter(|other| *other != kind) {
                assert!(Opaque::parse(other, text).is_none());
                let renamed = text.replace(kind.prefix(), other.prefix());
                assert!(Opaque::parse(other, &renamed).is_none(), "the checksum covers the kind");
                assert!(!token(other, 7).matches(&made.hash(&pepper()), &pepper()));
            }
        }
    }

    #[test]
    fn a_broken_stored_hash_matches_nothing() {
        let token = token(OpaqueKind::Service, 1);
        let good = token.hash(&pepper());
        let signed = format!("+{}", good.get(1..).unwrap());
        for hash in ["", "zz", &format!("{good}0"), &signed, &"0".repeat(64)] {
            assert!(!token.matches(hash, &pepper()), "{hash}");
        }
    }

    #[test]
    fn a_service_token_is_judged_by_its_record() {
        let token = token(OpaqueKind::Service, 2);
        let good = ServiceTokenRecord { hash: token.hash(&pepper()), expires_at: Some(1000), revoked_at: None };
        let check = |record: &ServiceTokenRecord, now| check_service_token(&token, Some(record), &pepper(), now);
        assert_eq!(check(&good, 999), Ok(()));
        assert_eq!(check(&good, 1000), Err(AuthError::Expired));
        assert_eq!(check(&ServiceTokenRecord { revoked_at: Some(1), ..good.clone() }, 0), Err(AuthError::Disabled));
        assert_eq!(check(&ServiceTokenRecord { hash: "0".repeat(64), ..good }, 0), Err(AuthError::WrongSecret));
        assert_eq!(check_service_token(&token, None, &pepper(), 0), Err(AuthError::Unknown));
    }

    #[test]
    fn a_refresh_token_serves_once_and_its_second_use_tells_of_a_theft() {
        let [first, second, third] = [1, 2, 3].map(|seed| token(OpaqueKind::Refresh, seed));
        let turn = |record: &RefreshRecord, presented: &Opaque, successor: &Opaque, now| {
            rotate(Some(record), presented, successor, &pepper(), now, 100)
        };
        let begun = RefreshRecord::first(&first, &pepper(), 1000, 250);
        let Rotation::Rotated(renewed) = turn(&begun, &first, &second, 1099) else { panic!("the first use is good") };
        assert_eq!((renewed.last_used_at, renewed.expires_at), (1099, 1250));
        assert_eq!(turn(&renewed, &first, &third, 1100), Rotation::Reused);
        assert_eq!(turn(&renewed, &first, &third, 9999), Rotation::Reused, "even when it has ended");
        assert_eq!(turn(&renewed, &third, &third, 1100), Rotation::Unknown, "a forgery revokes nobody's session");
        let Rotation::Rotated(again) = turn(&renewed, &second, &third, 1198) else { panic!("good") };
        assert_eq!(again.expires_at, 1250);
        assert_eq!(turn(&again, &second, &first, 1199), Rotation::Reused);
        assert_eq!(turn(&again, &third, &first, 1250), Rotation::Expired, "no renewal outlives the session");
        assert_eq!(turn(&begun, &first, &second, 1100), Rotation::Expired, "idle for too long");
        let revoked = RefreshRecord { revoked_at: Some(1), ..renewed };
        for presented in [&first, &second] {
            assert_eq!(turn(&revoked, presented, &third, 1100), Rotation::Revoked);
        }
        assert_eq!(rotate(None, &first, &second, &pepper(), 1000, 100), Rotation::Unknown);
        let service = token(OpaqueKind::Service, 1);
        assert_eq!(turn(&begun, &service, &second, 1001), Rotation::Unknown);
    }

    #[test]
    fn the_secret_is_not_printed() {
        for kind in KINDS {
            let token = token(kind, 9);
            let hidden = token.text().expose().rsplit('-').next().unwrap();
            assert!(!format!("{token:?}").contains(hidden));
        }
    }

    proptest! {
        #[test]
        fn any_single_mistyped_character_is_noticed(kind in 0usize..3, random in proptest::collection::vec(any::<u8>(), RANDOM_BYTES), at in 0usize..58, with in "[0-9A-Za-z]") {
            let token = Opaque::compose(KINDS[kind], &random.try_into().unwrap());
            let text = token.text().expose();
            prop_assert!(Opaque::parse(KINDS[kind], text).is_some());
            prop_assert_eq!(text.len(), 58);
            let mut typed: Vec<char> = text.chars().collect();
            let typo = with.chars().next().unwrap();
            prop_assume!(typed[at] != typo);
            typed[at] = typo;
            prop_assert!(Opaque::parse(KINDS[kind], &typed.into_iter().collect::<String>()).is_none());
        }

        #[test]
        fn no_text_makes_parsing_fail_hard(text in ".{0,80}") {
            for kind in KINDS {
                let _ = Opaque::parse(kind, &text);
                let _ = Opaque::parse(kind, &format!("{}{text}", kind.prefix()));
            }
        }
    }
}
