//! The signature algorithms that a token may carry: RS256, ES256 and EdDSA, and no others. What is not here cannot be
//! asked for by any token or configuration.
//!
//! A key belongs to exactly one algorithm, so no token can have its signature checked by another algorithm than its key
//! was made for. `none` and the HMAC algorithms do not exist.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use signature::Verifier as _;

/// A signature algorithm (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A public key, bound to its algorithm.
#[derive(Debug, Clone)]
pub enum PublicKey {
    /// For [`Algorithm::Rs256`].
    Rsa(RsaPublicKey),
    /// For [`Algorithm::Es256`].
    P256(p256::ecdsa::VerifyingKey),
    /// For [`Algorithm::EdDsa`].
    Ed25519(ed25519_dalek::VerifyingKey),
}

/// A modulus from 2,048 bits on, as RFC 7518, section 3.3, demands; up to 4,096, so that no key makes checking dear.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

impl PublicKey {
    /// Reads the key of a JSON Web Key (RFC 7517); `None` if it is not one that can be used here.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let modulus = BigUint::from_bytes_be(&bytes("n")?);
                let key = RsaPublicKey::new(modulus, BigUint::from_bytes_be(&bytes("e")?)).ok()?;
                MODULUS_BITS.contains(&key.n().bits()).then_some(Self::Rsa(key))
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (<[u8; 32]>::try_from(bytes("x")?).ok()?, <[u8; 32]>::try_from(bytes("y")?).ok()?);
                let point = p256::EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
                p256::ecdsa::VerifyingKey::from_encoded_point(&point).ok().map(Self::P256)
            }
            ("OKP", Some("Ed25519")) => Self::ed25519(&<[u8; 32]>::try_from(bytes("x")?).ok()?),
            _ => None,
        }
    }

    /// An Ed25519 key; `None` for bytes that are no point, or one of small order, under which signatures verify that
    /// nobody made.
    pub fn ed25519(bytes: &[u8; 32]) -> Option<Self> {
        ed25519_dalek::VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(Self::Ed25519)
    }

    /// The one algorithm that it is for.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa(_) => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Whether a signature over a message is this key's.
    ///
    /// ES256 signatures with a high `s` are accepted, as RFC 7518 has no rule against them and issuers make them; so a
    /// signature's bytes must not serve as a token's identity. Ed25519 is checked strictly: `S` below the group's order,
    /// no points of small order.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa(key) => key.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message), signature).is_ok(),
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}
