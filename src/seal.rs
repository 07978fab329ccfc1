//! Sealing of secrets at rest, and keys derived from the deployment's master secret.
//!
//! A sealed value is `v1.<key id>.<base64url of nonce, ciphertext and tag>`: AES-256-GCM under a key that HKDF-SHA-256
//! derives from the master secret for one [`Purpose`]. The *context* (`provider_credentials/cred_x`, say) is
//! authenticated along with it, so a sealed value that is moved to another row, or to a table of another purpose, does
//! not open. The key id names the master secret, so that one can be replaced: values are sealed by the current one and
//! opened by the current or the previous one.

use std::fmt;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use sha2::Sha256;

use crate::secret::Secret;

/// Bytes of a nonce. It must be random: 2³² values may be sealed before that is no longer enough (NIST SP 800-38D).
pub const NONCE_BYTES: usize = 12;

/// Least bytes of a master secret.
pub const MIN_MASTER_BYTES: usize = 32;

const VERSION: &str = "v1";
const SALT: &[u8] = b"llm-gateway/master/v1";
/// Longest sealed value that is looked at, in bytes.
const MAX_SEALED_BYTES: usize = 64 * 1024;

/// What a key is for. Keys of two purposes have nothing in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Sealing the credentials of providers.
    ProviderCredential,
    /// Sealing the private halves of the keys that sign sessions.
    SigningKey,
    /// Chaining the audit log.
    AuditChain,
    /// Keeping the answers that requests with an idempotency key got, which may hold a secret that is shown once.
    StoredAnswer,
    /// Naming an e-mail address in the lock-out table without storing it.
    IdentityHash,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::ProviderCredential => "provider-credential",
            Self::SigningKey => "signing-key",
            Self::AuditChain => "audit-chain",
            Self::StoredAnswer => "stored-answer",
            Self::IdentityHash => "identity-hash",
        }
    }
}

/// Why something cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The master secret is too short to derive keys from.
    #[error("the master secret must have at least {MIN_MASTER_BYTES} bytes")]
    WeakMaster,
    /// The value is not in the form of a sealed one.
    #[error("not a sealed value")]
    Malformed,
    /// Neither the current nor the previous master secret sealed it.
    #[error("sealed under a master secret that this deployment does not have")]
    UnknownKey,
    /// It was altered, or stands where it does not belong.
    #[error("the sealed value was altered or belongs elsewhere")]
    Tampered,
    /// The value is too large to seal.
    #[error("too large to be sealed")]
    TooLarge,
}

/// Seals and opens under the deployment's master secret.
#[derive(Debug)]
pub struct Sealer {
    current: Master,
    previous: Option<Master>,
}

impl Sealer {
    /// Seals under `master` and also opens what `previous` has sealed.
    ///
    /// # Errors
    /// [`SealError::WeakMaster`].
    pub fn new(master: &Secret<String>, previous: Option<&Secret<String>>) -> Result<Self, SealError> {
        Ok(Self { current: Master::new(master)?, previous: previous.map(Master::new).transpose()? })
    }

    /// Names the current master secret: 4 hexadecimal digits that tell nothing else of it.
    pub fn key_id(&self) -> &str {
        &self.current.id
    }

    /// Seals. `context` names the place where the value will stand; `nonce` must be random.
    ///
    /// # Errors
    /// [`SealError::TooLarge`] from 32 KiB on.
    pub fn seal(
        &self,
        purpose: Purpose,
        context: &str,
        plaintext: &[u8],
        nonce: [u8; NONCE_BYTES],
    ) -> Result<String, SealError> {
        if plaintext.len() > MAX_SEALED_BYTES / 2 {
            return Err(SealError::TooLarge);
        }
        let cipher = self.current.cipher(purpose)?;
        let aad = self.current.associated_data(context);
        let sealed = cipher.encrypt(&Nonce::from(nonce), Payload { msg: plaintext, aad: &aad });
        let sealed = sealed.map_err(|_| SealError::TooLarge)?;
        let mut bytes = Vec::with_capacity(nonce.len().saturating_add(sealed.len()));
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(format!("{VERSION}.{}.{}", self.current.id, URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Opens what [`Sealer::seal`] made for the same purpose and context.
    ///
    /// # Errors
    /// [`SealError::Malformed`], [`SealError::UnknownKey`], [`SealError::Tampered`].
    pub fn open(&self, purpose: Purpose, context: &str, sealed: &str) -> Result<Secret<Vec<u8>>, SealError> {
        let (key_id, bytes) = split(sealed)?;
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Malformed)?;
        let mut verdict = SealError::UnknownKey;
        // Two master secrets may share their 16-bit id, so a failure under one does not rule out the other.
        for master in [Some(&self.current), self.previous.as_ref()].into_iter().flatten() {
            if master.id == key_id {
                let aad = master.associated_data(context);
                let payload = Payload { msg: ciphertext, aad: &aad };
                match master.cipher(purpose)?.decrypt(&Nonce::from(*nonce), payload) {
                    Ok(plaintext) => return Ok(Secret::new(plaintext)),
                    Err(_) => verdict = SealError::Tampered,
                }
            }
        }
        Err(verdict)
    }

    /// Whether a value was sealed under another master secret than the current one, and should be sealed anew.
    pub fn is_outdated(&self, sealed: &str) -> bool {
        split(sealed).is_ok_and(|(key_id, _)| key_id != self.current.id)
    }

    /// A key of the current master secret, for something other than sealing.
    pub fn derive(&self, purpose: Purpose) -> Secret<[u8; 32]> {
        Secret::new(self.current.derive("derive", purpose))
    }

    /// The key that [`Sealer::derive`] gave under the master secret with this id; `None` if the deployment no longer
    /// has it. What was authenticated with a derived key must name the id beside it to outlive a change of the secret.
    pub fn derive_by(&self, key_id: &str, purpose: Purpose) -> Option<Secret<[u8; 32]>> {
        let masters = [Some(&self.current), self.previous.as_ref()];
        let master = masters.into_iter().flatten().find(|master| master.id == key_id)?;
        Some(Secret::new(master.derive("derive", purpose)))
    }
}

struct Master {
    id: String,
    keys: Hkdf<Sha256>,
}

impl Master {
    fn new(secret: &Secret<String>) -> Result<Self, SealError> {
        if secret.expose().len() < MIN_MASTER_BYTES {
            return Err(SealError::WeakMaster);
        }
        let keys = Hkdf::<Sha256>::new(Some(SALT), secret.expose().as_bytes());
        let mut id = [0; 2];
        expand(&keys, &[b"id"], &mut id);
        Ok(Self { id: id.iter().map(|byte| format!("{byte:02x}")).collect(), keys })
    }

    fn derive(&self, kind: &str, purpose: Purpose) -> [u8; 32] {
        let mut key = [0; 32];
        expand(&self.keys, &[kind.as_bytes(), b"/", purpose.label().as_bytes()], &mut key);
        key
    }

    fn cipher(&self, purpose: Purpose) -> Result<Aes256Gcm, SealError> {
        Aes256Gcm::new_from_slice(&self.derive("seal", purpose)).map_err(|_| SealError::WeakMaster)
    }

    /// Version and key id have fixed lengths, so no two contexts give the same bytes.
    fn associated_data(&self, context: &str) -> Vec<u8> {
        format!("{VERSION}.{}.{context}", self.id).into_bytes()
    }
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Master").field("id", &self.id).finish_non_exhaustive()
    }
}

/// HKDF can fail only for outputs of more than 8,160 bytes.
fn expand<const N: usize>(keys: &Hkdf<Sha256>, info: &[&[u8]], out: &mut [u8; N]) {
    const { assert!(N <= 255 * 32) };
    let _fits = keys.expand_multi_info(info, out);
}

fn split(sealed: &str) -> Result<(&str, Vec<u8>), SealError> {
    if sealed.len() > MAX_SEALED_BYTES {
        return Err(SealError::Malformed);
    }
    let mut parts = sealed.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(VERSION), Some(key_id), Some(bytes), None) => {
            Ok((key_id, URL_SAFE_NO_PAD.decode(bytes).map_err(|_| SealError::Malformed)?))
        }
        _ => Err(SealError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CREDENTIAL: Purpose = Purpose::ProviderCredential;

    fn master(text: &str) -> Secret<String> {
        Secret::new(text.repeat(MIN_MASTER_BYTES))
    }

    fn sealer(current: &str, previous: Option<&str>) -> Sealer {
        Sealer::new(&master(current), previous.map(master).as_ref()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_own_place_only() {
        let sealer = sealer("m", None);
        let sealed = sealer.seal(CREDENTIAL, "provider_credentials/cred_a", b"sk-upstream", [7; 12]).unwrap();
        assert!(sealed.starts_with(&format!("v1.{}.", sealer.key_id())));
        assert!(!sealed.contains("sk-upstream"));
        let opened = sealer.open(CREDENTIAL, "provider_credentials/cred_a", &sealed).unwrap();
        assert_eq!(opened.expose(), b"sk-upstream");
        for context in ["provider_credentials/cred_b", "provider_credentials/cred_", "", "x"] {
            assert_eq!(sealer.open(CREDENTIAL, context, &sealed).unwrap_err(), SealError::Tampered, "{context}");
        }
        let elsewhere = sealer.open(Purpose::SigningKey, "provider_credentials/cred_a", &sealed);
        assert_eq!(elsewhere.unwrap_err(), SealError::Tampered);
    }

    #[test]
    fn a_master_secret_can_be_replaced() {
        let old = sealer("old", None);
        let sealed = old.seal(CREDENTIAL, "c", b"x", [0; 12]).unwrap();
        let both = sealer("new", Some("old"));
        assert_eq!(both.open(CREDENTIAL, "c", &sealed).unwrap().expose(), b"x");
        assert!(both.is_outdated(&sealed) && !old.is_outdated(&sealed));
        let fresh = both.seal(CREDENTIAL, "c", b"x", [0; 12]).unwrap();
        assert!(!both.is_outdated(&fresh));
        assert_eq!(sealer("new", None).open(CREDENTIAL, "c", &sealed).unwrap_err(), SealError::UnknownKey);
        assert_eq!(old.open(CREDENTIAL, "c", &fresh).unwrap_err(), SealError::UnknownKey);
        let key = old.derive(Purpose::AuditChain);
        assert_eq!(both.derive_by(old.key_id(), Purpose::AuditChain).unwrap().expose(), key.expose());
        assert_ne!(both.derive(Purpose::AuditChain).expose(), key.expose());
        assert!(old.derive_by("0000", Purpose::AuditChain).is_none());
    }

    #[test]
    fn a_value_cannot_be_relabelled_with_another_key_id() {
        let both = sealer("new", Some("old"));
        let sealed = sealer("old", None).seal(CREDENTIAL, "c", b"x", [0; 12]).unwrap();
        let body = sealed.rsplit('.').next().unwrap();
        let relabelled = format!("v1.{}.{body}", both.key_id());
        assert_eq!(both.open(CREDENTIAL, "c", &relabelled).unwrap_err(), SealError::Tampered);
    }

    #[test]
    fn a_short_master_secret_is_refused() {
        let short = Secret::new("x".repeat(MIN_MASTER_BYTES - 1));
        assert_eq!(Sealer::new(&short, None).unwrap_err(), SealError::WeakMaster);
        assert_eq!(Sealer::new(&master("m"), Some(&short)).unwrap_err(), SealError::WeakMaster);
    }

    #[test]
    fn purposes_share_no_key_and_derived_keys_are_not_sealing_keys() {
        let sealer = sealer("m", None);
        let purposes = [Purpose::ProviderCredential, Purpose::SigningKey, Purpose::AuditChain, Purpose::IdentityHash];
        let mut keys: Vec<[u8; 32]> = purposes.map(|purpose| *sealer.derive(purpose).expose()).to_vec();
        keys.extend(purposes.map(|purpose| sealer.current.derive("seal", purpose)));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 2 * purposes.len());
    }

    #[test]
    fn derived_keys_stay_the_same_from_release_to_release() {
        // HKDF-SHA-256 (RFC 5869) computed by an independent implementation.
        let hex: String =
            sealer("m", None).derive(Purpose::AuditChain).expose().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "c30c4ec8f51805a7cba98f9488fe723d042972b913d36dc7668c326faac388c9");
    }

    #[test]
    fn nothing_of_the_secret_is_printed() {
        let shown = format!("{:?}", sealer("topsecret", Some("older")));
        assert!(!shown.contains("topsecret") && !shown.contains("older"), "{shown}");
    }

    #[test]
    fn too_much_is_refused_on_both_ways() {
        let sealer = sealer("m", None);
        let largest = vec![0; MAX_SEALED_BYTES / 2];
        let sealed = sealer.seal(CREDENTIAL, "c", &largest, [0; 12]).unwrap();
        assert_eq!(sealer.open(CREDENTIAL, "c", &sealed).unwrap().expose().len(), largest.len());
        let over = vec![0; MAX_SEALED_BYTES / 2 + 1];
        assert_eq!(sealer.seal(CREDENTIAL, "c", &over, [0; 12]), Err(SealError::TooLarge));
        let long = format!("v1.{}.{}", sealer.key_id(), "A".repeat(MAX_SEALED_BYTES));
        assert_eq!(sealer.open(CREDENTIAL, "c", &long).unwrap_err(), SealError::Malformed);
    }

    proptest! {
        #[test]
        fn any_altered_character_is_noticed(plaintext in proptest::collection::vec(any::<u8>(), 0..80), nonce in any::<[u8; 12]>(), at in any::<prop::sample::Index>(), with in "[0-9A-Za-z._-]") {
            let sealer = sealer("m", Some("p"));
            let sealed = sealer.seal(CREDENTIAL, "c", &plaintext, nonce).unwrap();
            let opened = sealer.open(CREDENTIAL, "c", &sealed).unwrap();
            prop_assert_eq!(opened.expose(), &plaintext);
            let mut altered: Vec<char> = sealed.chars().collect();
            let at = at.index(altered.len());
            let with = with.chars().next().unwrap();
            prop_assume!(altered[at] != with);
            altered[at] = with;
            prop_assert!(sealer.open(CREDENTIAL, "c", &altered.into_iter().collect::<String>()).is_err());
        }

        #[test]
        fn no_text_makes_opening_fail_hard(text in ".{0,80}") {
            let sealer = sealer("m", None);
            let _ = sealer.open(CREDENTIAL, "c", &text);
            let _ = sealer.open(CREDENTIAL, "c", &format!("v1.{}.{text}", sealer.key_id()));
        }
    }
}
