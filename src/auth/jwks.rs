//! Sets of public keys (RFC 7517).

use serde_json::Value;

use super::signatures::{Algorithm, PublicKey};

/// Most keys in a set. Issuers have a handful.
const MAX_KEYS: usize = 64;

/// How many keys of one id are tried: issuers that reuse an id are odd, but do exist.
const MAX_TRIES: usize = 4;

/// The keys of an issuer that can be used to verify tokens.
#[derive(Debug, Clone, Default)]
pub struct Jwks {
    keys: Vec<(Option<String>, PublicKey)>,
}

/// Why a document is not a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It has another form.
    #[error("must be a JSON Web Key Set: an object with `keys`")]
    Malformed,
    /// It has too many keys.
    #[error("has more than {MAX_KEYS} keys")]
    TooLarge,
    /// None of its keys can be used.
    #[error("has no key for RS256 (2048 to 4096 bits), ES256 (P-256) or EdDSA (Ed25519) that is meant for signatures")]
    NoUsableKey,
}

impl Jwks {
    /// Reads a set. Keys that are for something else (encryption, other algorithms) are left out: issuers have those as
    /// well.
    ///
    /// # Errors
    /// [`JwksError`].
    pub fn parse(document: &Value) -> Result<Self, JwksError> {
        let keys = document.get("keys").and_then(Value::as_array).ok_or(JwksError::Malformed)?;
        if keys.len() > MAX_KEYS {
            return Err(JwksError::TooLarge);
        }
        let keys: Vec<_> = keys.iter().filter_map(usable).collect();
        if keys.is_empty() { Err(JwksError::NoUsableKey) } else { Ok(Self { keys }) }
    }

    #[cfg(test)]
    pub(super) fn of(keys: impl IntoIterator<Item = (String, PublicKey)>) -> Self {
        Self { keys: keys.into_iter().map(|(id, key)| (Some(id), key)).collect() }
    }

    /// Whether there is a key for a token of this algorithm and key id.
    pub fn knows(&self, algorithm: Algorithm, key_id: Option<&str>) -> bool {
        self.candidates(algorithm, key_id).next().is_some()
    }

    /// The keys that may have signed a token: of its algorithm and with its key id. A token without a key id may only
    /// mean the only key there is (OpenID Connect Core, section 10.1).
    pub(super) fn candidates(&self, algorithm: Algorithm, key_id: Option<&str>) -> impl Iterator<Item = &PublicKey> {
        let ambiguous = key_id.is_none() && self.keys.len() > 1;
        let named = move |id: &Option<String>| key_id.is_none_or(|wanted| id.as_deref() == Some(wanted));
        self.keys
            .iter()
            .filter(move |(id, key)| !ambiguous && named(id) && key.algorithm() == algorithm)
            .map(|(_, key)| key)
            .take(MAX_TRIES)
    }
}

/// The key and its id, unless the key says itself that it is not for verifying signatures of its algorithm.
fn usable(jwk: &Value) -> Option<(Option<String>, PublicKey)> {
    let jwk = jwk.as_object()?;
    let for_signatures = match (jwk.get("use"), jwk.get("key_ops")) {
        (Some(purpose), _) if purpose != "sig" => false,
        (_, Some(operations)) => operations.as_array().is_some_and(|list| list.iter().any(|one| one == "verify")),
        (_, None) => true,
    };
    let id = match jwk.get("kid") {
        None => None,
        Some(id) => Some(id.as_str()?.to_owned()),
    };
    let key = PublicKey::from_jwk(jwk).filter(|_| for_signatures)?;
    let named_otherwise = jwk.get("alg").is_some_and(|alg| alg != key.algorithm().name());
    (!named_otherwise).then_some((id, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // RFC 8032, section 7.1, test 1, and RFC 7515, appendix A.3.
    const ED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn ed(more: Value) -> Value {
        let mut key = json!({"kty": "OKP", "crv": "Ed25519", "x": ED});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    fn ec(more: Value) -> Value {
        let mut key = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    fn set(keys: Value) -> Result<Jwks, JwksError> {
        Jwks::parse(&json!({"keys": keys}))
    }

    #[test]
    fn keys_for_other_purposes_are_left_out() {
        for other in [
            ed(json!({"use": "enc"})),
            ed(json!({"use": ["sig"]})),
            ed(json!({"key_ops": ["sign"]})),
            ed(json!({"key_ops": "verify"})),
            ed(json!({"use": "enc", "key_ops": ["verify"]})),
            ed(json!({"alg": "ES256"})),
            ed(json!({"alg": "none"})),
            ed(json!({"alg": null})),
            ed(json!({"kid": ["k"]})),
            ed(json!({"crv": "X25519"})),
            ec(json!({"alg": "ES384"})),
            ec(json!({"crv": "P-384"})),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
            json!("key"),
        ] {
            assert_eq!(set(json!([other.clone()])).unwrap_err(), JwksError::NoUsableKey, "{other}");
            let beside = set(json!([other, ec(json!({"kid": "k"}))])).unwrap();
            assert!(beside.knows(Algorithm::Es256, Some("k")));
        }
        for good in [json!({}), json!({"use": "sig", "alg": "EdDSA"}), json!({"key_ops": ["verify"]})] {
            assert!(set(json!([ed(good)])).unwrap().knows(Algorithm::EdDsa, None));
        }
    }

    #[test]
    fn a_key_is_found_by_id_and_algorithm() {
        let keys = set(json!([ed(json!({"kid": "a"})), ec(json!({"kid": "a"})), ed(json!({"kid": "b"}))])).unwrap();
        assert!(keys.knows(Algorithm::EdDsa, Some("a")) && keys.knows(Algorithm::Es256, Some("a")));
        assert!(!keys.knows(Algorithm::Rs256, Some("a")) && !keys.knows(Algorithm::Es256, Some("b")));
        assert!(!keys.knows(Algorithm::Es256, None), "the only one for it, but not the only one");
        assert!(set(json!([ec(json!({"kid": "a"}))])).unwrap().knows(Algorithm::Es256, None));
    }

    #[test]
    fn malformed_keys_are_no_keys() {
        let weak_points = [[0; 32], {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }];
        for bytes in weak_points {
            assert!(PublicKey::ed25519(&bytes).is_none(), "small order");
        }
        for x in ["", "AAAA", "!!", &format!("{ED}="), &"A".repeat(200)] {
            assert_eq!(set(json!([ed(json!({"x": x}))])).unwrap_err(), JwksError::NoUsableKey, "{x}");
        }
        let off_curve = ec(json!({"y": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}));
        assert_eq!(set(json!([off_curve])).unwrap_err(), JwksError::NoUsableKey);
    }

    #[test]
    fn rsa_keys_have_a_sound_size() {
        let key = |bytes: usize, pad: usize, e: &str| {
            let mut modulus = vec![0; pad];
            modulus.extend(std::iter::repeat_n(0xff, bytes));
            set(json!([{"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": e}]))
        };
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        assert!(key(256, 0, "AQAB").is_ok() && key(512, 0, "AQAB").is_ok());
        assert!(key(128, 0, "AQAB").is_err(), "1024 bits");
        assert!(key(128, 128, "AQAB").is_err(), "1024 bits dressed up with zeros");
        assert!(key(513, 0, "AQAB").is_err(), "dear to check");
        for exponent in ["", "AQ", "Ag", "AAAA"] {
            assert!(key(256, 0, exponent).is_err(), "exponent {exponent}");
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for document in [json!(null), json!([]), json!({}), json!({"keys": {}}), json!({"keys": "x"})] {
            assert_eq!(Jwks::parse(&document).unwrap_err(), JwksError::Malformed);
        }
        assert_eq!(set(json!([])).unwrap_err(), JwksError::NoUsableKey);
        assert_eq!(set(json!(vec![ed(json!({})); 65])).unwrap_err(), JwksError::TooLarge);
    }
}
