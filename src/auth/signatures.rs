//! The signature algorithms that a token may carry: RS256, ES256 and EdDSA, and no others. What is not here cannot be
//! asked for by any token or configuration.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey};
use sha2::{Digest, Sha256};
use signature::Verifier;

/// Signs nothing and verifies the three algorithms.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::InvalidAlgorithm.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::InvalidAlgorithm.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
        compute_digest: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    },
};

/// Makes the library use these algorithms; the first call counts.
pub(super) fn install() {
    let _already_installed = PROVIDER.install_default();
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    match algorithm {
        Algorithm::RS256 => Ok(Box::new(Rs256(rsa_key(key)?))),
        Algorithm::ES256 => {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key.try_get_as_bytes()?);
            Ok(Box::new(Es256(key.map_err(|_| ErrorKind::InvalidEcdsaKey)?)))
        }
        Algorithm::EdDSA => {
            let bytes = <&[u8; 32]>::try_from(key.try_get_as_bytes()?).map_err(|_| ErrorKind::InvalidEddsaKey)?;
            let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| ErrorKind::InvalidEddsaKey)?;
            Ok(Box::new(EdDsa(key)))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

/// A modulus from 2,048 bits on, as the JWA standard (RFC 7518, section 3.3) demands.
fn rsa_key(key: &DecodingKey) -> Result<RsaPublicKey, Error> {
    const MIN_MODULUS_BYTES: usize = 256;
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } if n.len() >= MIN_MODULUS_BYTES => {
            let key = RsaPublicKey::new(BigUint::from_bytes_be(n), BigUint::from_bytes_be(e));
            key.map_err(|error| ErrorKind::InvalidRsaKey(error.to_string()).into())
        }
        _ => Err(ErrorKind::InvalidRsaKey("it is not an RSA key of at least 2048 bits".to_owned()).into()),
    }
}

struct Rs256(RsaPublicKey);

impl Verifier<Vec<u8>> for Rs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verdict = self.0.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message), signature);
        verdict.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

struct Es256(p256::ecdsa::VerifyingKey);

impl Verifier<Vec<u8>> for Es256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.0.verify(message, &p256::ecdsa::Signature::from_slice(signature)?)
    }
}

impl JwtVerifier for Es256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

struct EdDsa(ed25519_dalek::VerifyingKey);

impl Verifier<Vec<u8>> for EdDsa {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        // The strict form refuses keys and signatures of small order, which several messages would share.
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_slice(signature)?)
    }
}

impl JwtVerifier for EdDsa {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}
