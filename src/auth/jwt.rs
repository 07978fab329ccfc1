//! JSON Web Tokens of configured issuers (RFC 7519), as an alternative to API keys.
//!
//! What a token may claim about its own verification is not believed: the algorithm must be one that the configuration
//! allows for the issuer, and the key must be of that algorithm's kind. Keys come from the configuration alone; `jku`,
//! `x5u` and `jwk` headers are never looked at.

use base64::Engine as _;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::{AuthError, Principal};
use crate::config::{Issuer, JwtAlgorithm};

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// By how much clocks may differ, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// Verifies a token; `now` is in Unix seconds.
///
/// # Errors
/// [`AuthError::Token`] with the reason, for the log.
pub fn verify(token: &str, issuers: &[Issuer], now: u64) -> Result<Principal, AuthError> {
    let refuse = |why: &'static str| AuthError::Token(why);
    if token.len() > MAX_TOKEN_BYTES {
        return Err(refuse("too long"));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| refuse("unreadable header"))?;
    // RFC 7515, section 4.1.11: an extension that must be understood, and none is.
    if unverified_part(token, 0).is_none_or(|header| header.get("crit").is_some()) {
        return Err(refuse("critical extension"));
    }
    let unverified = unverified_part(token, 1).ok_or(refuse("unreadable claims"))?;
    let issuer = issuers
        .iter()
        .find(|issuer| unverified.get("iss").and_then(Value::as_str) == Some(&issuer.issuer))
        .ok_or(refuse("unknown issuer"))?;
    let algorithm = issuer
        .algorithms
        .iter()
        .map(|allowed| algorithm(*allowed))
        .find(|allowed| *allowed == header.alg)
        .ok_or(refuse("algorithm not allowed"))?;
    let keys: JwkSet =
        serde_json::from_value(issuer.jwks.clone().unwrap_or_default()).map_err(|_| refuse("issuer without keys"))?;
    let key = choose(&keys, header.kid.as_deref()).ok_or(refuse("unknown key id"))?;
    let key = DecodingKey::from_jwk(key).map_err(|_| refuse("unusable key"))?;

    // Times are checked here, with the caller's clock; the library would ask the system's.
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    super::signatures::install();
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation).map_err(|_| refuse("wrong signature"))?.claims;

    let audience_matches = match claims.get("aud") {
        Some(Value::String(audience)) => issuer.audiences.contains(audience),
        Some(Value::Array(audiences)) => {
            audiences.iter().any(|audience| issuer.audiences.iter().any(|accepted| audience == accepted))
        }
        _ => false,
    };
    if claims.get("iss").and_then(Value::as_str) != Some(&issuer.issuer) || !audience_matches {
        return Err(refuse("wrong issuer or audience"));
    }
    let time = |name: &str| claims.get(name).and_then(Value::as_f64).filter(|seconds| *seconds >= 0.0);
    let expires = time("exp").ok_or(refuse("no expiry"))?;
    if now as f64 >= expires + LEEWAY_SECONDS as f64 {
        return Err(AuthError::Expired);
    }
    match claims.get("nbf") {
        None => {}
        Some(_) if time("nbf").is_some_and(|start| start <= now.saturating_add(LEEWAY_SECONDS) as f64) => {}
        Some(_) => return Err(refuse("not valid yet")),
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let account = text(&issuer.account_claim).ok_or(refuse("no account claim"))?;
    Ok(Principal {
        account: account.to_owned(),
        key_id: format!("jwt:{}", text("sub").unwrap_or(account)),
        models: issuer.models.clone(),
        ..Principal::default()
    })
}

fn algorithm(allowed: JwtAlgorithm) -> Algorithm {
    match allowed {
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

/// The key with the token's key id; a token without one may only mean the only key there is.
fn choose<'a>(keys: &'a JwkSet, id: Option<&str>) -> Option<&'a Jwk> {
    match (id, keys.keys.as_slice()) {
        (Some(id), _) => keys.find(id),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// The header (0) or the claims (1), as somebody wrote them.
fn unverified_part(token: &str, nth: usize) -> Option<Value> {
    let part = token.split('.').nth(nth)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
    use ed25519_dalek::Signer as _;
    use hmac::Mac as _;
    use serde_json::json;

    // The Ed25519 key pair of RFC 8032, section 7.1, test 1.
    const PRIVATE: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
        0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];
    const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn issuer() -> Issuer {
        serde_json::from_value(json!({
            "issuer": "https://id.example", "audiences": ["gateway"], "algorithms": ["EdDSA"], "account_claim": "team",
            "jwks": {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "kid": "k1", "alg": "EdDSA", "use": "sig"}]},
        }))
        .unwrap()
    }

    fn claims() -> Value {
        json!({"iss": "https://id.example", "aud": ["other", "gateway"], "sub": "u1", "team": "t1", "exp": 2000, "nbf": 1000})
    }

    fn signed(header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let signature = ed25519_dalek::SigningKey::from_bytes(&PRIVATE).sign(message.as_bytes());
        format!("{message}.{}", B64.encode(signature.to_bytes()))
    }

    fn header(kid: Option<&str>) -> Value {
        json!({"alg": "EdDSA", "typ": "JWT", "kid": kid})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    #[test]
    fn a_good_token_names_account_and_subject() {
        let principal = verify(&signed(&header(Some("k1")), &claims()), &[issuer()], 1500).unwrap();
        assert_eq!((principal.account.as_str(), principal.key_id.as_str()), ("t1", "jwt:u1"));
        assert!(verify(&signed(&header(None), &claims()), &[issuer()], 1500).is_ok());
    }

    #[test]
    fn every_flaw_is_refused() {
        let token = |claims: &Value| signed(&header(Some("k1")), claims);
        let at = |claims: &Value, now| verify(&token(claims), &[issuer()], now).is_ok();
        assert!(at(&claims(), 1500));
        assert!(!at(&claims(), 2030), "expired");
        assert!(at(&claims(), 2029), "within the leeway");
        assert!(!at(&claims(), 969), "not valid yet");
        assert!(!at(&with("exp", Value::Null), 1500), "without expiry");
        assert!(!at(&with("exp", json!("2000")), 1500), "expiry of the wrong type");
        assert!(!at(&with("nbf", json!("x")), 1500));
        assert!(!at(&with("aud", json!("other")), 1500));
        assert!(!at(&with("iss", json!("https://evil.example")), 1500));
        assert!(!at(&with("team", json!("")), 1500));
        assert!(verify(&signed(&header(Some("k2")), &claims()), &[issuer()], 1500).is_err(), "unknown key id");
        let long = with("x", json!("y".repeat(9000)));
        assert!(!at(&long, 1500), "oversized");
    }

    #[test]
    fn a_token_cannot_choose_how_it_is_verified() {
        let payload = B64.encode(claims().to_string());
        let none = format!("{}.{payload}.", B64.encode(r#"{"alg":"none","typ":"JWT"}"#));
        assert!(verify(&none, &[issuer()], 1500).is_err());
        // The public key as an HMAC secret: the classic confusion.
        let message = format!("{}.{payload}", B64.encode(r#"{"alg":"HS256","typ":"JWT","kid":"k1"}"#));
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&B64.decode(PUBLIC).unwrap()).unwrap();
        mac.update(message.as_bytes());
        let confused = format!("{message}.{}", B64.encode(mac.finalize().into_bytes()));
        assert!(verify(&confused, &[issuer()], 1500).is_err());
        let critical = json!({"alg": "EdDSA", "kid": "k1", "crit": ["urn:x"], "urn:x": 1});
        assert_eq!(
            verify(&signed(&critical, &claims()), &[issuer()], 1500),
            Err(AuthError::Token("critical extension"))
        );
        let only_rsa = Issuer { algorithms: vec![JwtAlgorithm::RS256], ..issuer() };
        assert!(verify(&signed(&header(Some("k1")), &claims()), &[only_rsa], 1500).is_err());
        let mut tampered = signed(&header(Some("k1")), &claims());
        tampered.pop();
        assert!(verify(&tampered, &[issuer()], 1500).is_err());
    }

    // RFC 7515, appendices A.2 and A.3: the standard's own examples.
    const RS256_EXAMPLE: &str = concat!(
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1d",
        "nZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwu",
        "sC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    );
    const RS256_MODULUS: &str = concat!(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgN",
        "MsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xs",
        "mtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    );
    const ES256_EXAMPLE: &str = concat!(
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    );

    /// How far the standard's example gets: it has no audience, so that is where a good signature ends.
    fn example(algorithm: JwtAlgorithm, key: Value, token: &str) -> AuthError {
        let issuer = Issuer {
            issuer: "joe".into(),
            algorithms: vec![algorithm],
            jwks: Some(json!({"keys": [key]})),
            account_claim: "iss".into(),
            ..issuer()
        };
        verify(token, &[issuer], 1_300_819_000).unwrap_err()
    }

    #[test]
    fn the_standards_own_signatures_verify_and_altered_ones_do_not() {
        let rsa = json!({"kty": "RSA", "n": RS256_MODULUS, "e": "AQAB"});
        let ec = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        for (algorithm, key, token) in
            [(JwtAlgorithm::RS256, &rsa, RS256_EXAMPLE), (JwtAlgorithm::ES256, &ec, ES256_EXAMPLE)]
        {
            assert_eq!(example(algorithm, key.clone(), token), AuthError::Token("wrong issuer or audience"));
            let altered = token.replace("eyJpc3MiOiJqb2UiLA0KICJleHAi", "eyJpc3MiOiJqb2UiLA0KICJlWHAi");
            assert_eq!(example(algorithm, key.clone(), &altered), AuthError::Token("wrong signature"));
        }
        // The other's key: neither algorithm takes it.
        assert_eq!(example(JwtAlgorithm::RS256, ec, RS256_EXAMPLE), AuthError::Token("wrong signature"));
        assert_eq!(example(JwtAlgorithm::ES256, rsa, ES256_EXAMPLE), AuthError::Token("wrong signature"));
    }

    #[test]
    fn a_malformed_key_refuses_and_never_panics() {
        let token = signed(&header(None), &claims());
        for x in ["", "AAAA", "!!", &"A".repeat(200)] {
            let key = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
            let issuer = Issuer { jwks: Some(json!({"keys": [key]})), ..issuer() };
            assert!(verify(&token, &[issuer], 1500).is_err(), "{x}");
        }
        let weak = json!({"kty": "RSA", "n": B64.encode([0xff; 128]), "e": "AQAB"});
        assert_eq!(example(JwtAlgorithm::RS256, weak, RS256_EXAMPLE), AuthError::Token("wrong signature"));
    }
}
