//! Attacks on tokens, in the spirit of the Wycheproof project's JSON Web Signature vectors.

use ed25519_dalek::Signer as _;
use hmac::Mac as _;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::auth::signatures::PublicKey;

// The Ed25519 key pair of RFC 8032, section 7.1, test 1.
const SECRET: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5,
    0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];
const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const ALL: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ed(kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "kid": kid})
}

fn ec_secret() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap()
}

fn ec(kid: &str) -> Value {
    let point = ec_secret().verifying_key().to_encoded_point(false);
    json!({"kty": "EC", "crv": "P-256", "x": encode(point.x().unwrap()), "y": encode(point.y().unwrap()), "kid": kid})
}

fn set(keys: &[Value]) -> Jwks {
    Jwks::parse(&json!({"keys": keys})).unwrap()
}

/// A token with exactly this header and these claims, signed by the Ed25519 key.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = ed25519_dalek::SigningKey::from_bytes(&SECRET).sign(message.as_bytes());
    format!("{message}.{}", encode(signature.to_bytes()))
}

fn ec_signed(header: &str, claims: &str) -> (String, p256::ecdsa::Signature) {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature: p256::ecdsa::Signature = ec_secret().sign(message.as_bytes());
    (message, signature)
}

fn verify(token: &str, keys: &Jwks) -> Result<Map<String, Value>, AuthError> {
    let token = Unverified::read(token, 8192)?;
    let algorithm = token.algorithm(&ALL)?;
    token.verified(algorithm, keys)
}

fn refused(token: &str, keys: &Jwks) -> &'static str {
    match verify(token, keys) {
        Err(AuthError::Token(why)) => why,
        other => panic!("{token}: {other:?}"),
    }
}

const HEADER: &str = r#"{"alg":"EdDSA","kid":"k"}"#;
const CLAIMS: &str = r#"{"iss":"a"}"#;

#[test]
fn a_good_token_gives_its_claims() {
    let claims = verify(&signed(HEADER, CLAIMS), &set(&[ed("k")])).unwrap();
    assert_eq!(claims["iss"], "a");
    let anonymous = signed(r#"{"alg":"EdDSA"}"#, CLAIMS);
    assert!(verify(&anonymous, &set(&[ed("k")])).is_ok(), "the only key there is");
    assert_eq!(refused(&anonymous, &set(&[ed("k"), ec("e")])), "unknown key id");
    let (message, signature) = ec_signed(r#"{"alg":"ES256","kid":"e"}"#, CLAIMS);
    assert!(verify(&format!("{message}.{}", encode(signature.to_bytes())), &set(&[ed("k"), ec("e")])).is_ok());
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

fn rsa_example_key() -> Value {
    json!({"kty": "RSA", "n": RS256_MODULUS, "e": "AQAB"})
}

#[test]
fn the_standards_own_signatures_verify_and_altered_ones_do_not() {
    let p256 = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    for (key, token) in [(&rsa_example_key(), RS256_EXAMPLE), (&p256, ES256_EXAMPLE)] {
        assert_eq!(verify(token, &set(std::slice::from_ref(key))).unwrap()["iss"], "joe");
        let altered = token.replace("eyJpc3MiOiJqb2UiLA0KICJleHAi", "eyJpc3MiOiJqb2UiLA0KICJlWHAi");
        assert_eq!(refused(&altered, &set(std::slice::from_ref(key))), "wrong signature");
    }
    // The other's key: neither algorithm has it.
    assert_eq!(refused(RS256_EXAMPLE, &set(&[p256])), "unknown key id");
    assert_eq!(refused(ES256_EXAMPLE, &set(&[rsa_example_key()])), "unknown key id");
}

#[test]
fn rsa_signatures_have_one_form() {
    let keys = set(&[rsa_example_key()]);
    let (message, signature) = RS256_EXAMPLE.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let with = |signature: &[u8]| format!("{message}.{}", encode(signature));
    assert!(verify(&with(&bytes), &keys).is_ok());
    let padded = [&[0], bytes.as_slice()].concat();
    for bad in [&bytes[1..], &bytes[..255], &padded, &[], &[0; 256], &[0xff; 256], &[&[0; 255][..], &[1]].concat()] {
        assert_eq!(refused(&with(bad), &keys), "wrong signature");
    }
}

#[test]
fn there_is_no_none_in_any_spelling() {
    for alg in
        ["none", "None", "NONE", "nOnE", "none ", "", "null", "EDDSA", "eddsa", "EdDSA ", "RS512", "PS256", "ES256K"]
    {
        let header = json!({"alg": alg, "kid": "k"}).to_string();
        assert_eq!(refused(&signed(&header, CLAIMS), &set(&[ed("k")])), "algorithm not allowed", "{alg:?}");
        let unsigned = format!("{}.{}.", encode(&header), encode(CLAIMS));
        assert_eq!(refused(&unsigned, &set(&[ed("k")])), "algorithm not allowed", "{alg:?}");
    }
    for header in
        [r#"{"kid":"k"}"#, r#"{"alg":null}"#, r#"{"alg":["EdDSA"]}"#, r#"{"alg":{"EdDSA":1}}"#, r#"{"alg":7}"#]
    {
        refused(&signed(header, CLAIMS), &set(&[ed("k")]));
    }
    let empty = format!("{}.{}.", encode(HEADER), encode(CLAIMS));
    assert_eq!(refused(&empty, &set(&[ed("k")])), "wrong signature");
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let jwk = ed("k").to_string();
    for secret in [URL_SAFE_NO_PAD.decode(PUBLIC).unwrap(), PUBLIC.as_bytes().to_vec(), jwk.into_bytes()] {
        for alg in ["HS256", "EdDSA"] {
            let message = format!("{}.{}", encode(json!({"alg": alg, "kid": "k"}).to_string()), encode(CLAIMS));
            let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
            mac.update(message.as_bytes());
            refused(&format!("{message}.{}", encode(mac.finalize().into_bytes())), &set(&[ed("k")]));
        }
    }
}

#[test]
fn an_algorithm_must_be_allowed_and_fit_the_key() {
    let token = signed(HEADER, CLAIMS);
    let read = Unverified::read(&token, 8192).unwrap();
    assert_eq!(read.algorithm(&[Algorithm::Rs256, Algorithm::Es256]), Err(AuthError::Token("algorithm not allowed")));
    assert_eq!(read.verified(Algorithm::Es256, &set(&[ec("k")])), Err(AuthError::Token("algorithm not allowed")));
    assert_eq!(refused(&token, &set(&[ec("k")])), "unknown key id", "a key of the id, but for another algorithm");
    let both = set(&[ec("k"), ed("k")]);
    assert!(verify(&token, &both).is_ok(), "two keys of one id: the algorithm tells them apart");
}

#[test]
fn a_key_id_is_a_name_and_nothing_else() {
    let keys = set(&[ed("k")]);
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "k' OR '1'='1",
        "k\u{0}",
        "K",
        " k",
        "k ",
        "https://evil.example/key",
        "|cat /etc/passwd",
        &"k".repeat(256),
    ] {
        let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
        assert_eq!(refused(&signed(&header, CLAIMS), &keys), "unknown key id", "{kid:?}");
    }
    for kid in ["", &"k".repeat(257)] {
        let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
        assert_eq!(refused(&signed(&header, CLAIMS), &keys), "unusable key id");
    }
    for kid in [json!(["k"]), json!(null), json!(7), json!({"k": "k"}), json!(true)] {
        let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
        assert_eq!(refused(&signed(&header, CLAIMS), &keys), "header member of the wrong type");
    }
}

#[test]
fn keys_that_a_token_brings_along_are_not_looked_at() {
    let attacker = ed25519_dalek::SigningKey::from_bytes(&[66; 32]);
    let own = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(attacker.verifying_key().to_bytes()), "kid": "k"});
    for header in [
        json!({"alg": "EdDSA", "kid": "k", "jwk": own}),
        json!({"alg": "EdDSA", "kid": "k", "jku": "https://evil.example/jwks"}),
        json!({"alg": "EdDSA", "kid": "k", "x5u": "https://evil.example/cert", "x5c": ["AAAA"], "x5t": "AAAA"}),
    ] {
        let message = format!("{}.{}", encode(header.to_string()), encode(CLAIMS));
        let token = format!("{message}.{}", encode(attacker.sign(message.as_bytes()).to_bytes()));
        assert_eq!(refused(&token, &set(&[ed("k")])), "wrong signature");
        assert!(verify(&signed(&header.to_string(), CLAIMS), &set(&[ed("k")])).is_ok(), "ignored where ours signed");
    }
}

#[test]
fn headers_that_change_the_meaning_are_refused() {
    for (more, why) in [
        (json!({"crit": ["exp"]}), "critical extension"),
        (json!({"crit": []}), "critical extension"),
        (json!({"crit": null}), "critical extension"),
        (json!({"b64": false}), "unencoded payload"),
        (json!({"b64": true}), "unencoded payload"),
        (json!({"b64": false, "crit": ["b64"]}), "critical extension"),
        (json!({"zip": "DEF"}), "compressed payload"),
        (json!({"enc": "A256GCM"}), "encrypted payload"),
    ] {
        let mut header = json!({"alg": "EdDSA", "kid": "k"});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(refused(&signed(&header.to_string(), CLAIMS), &set(&[ed("k")])), why);
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let keys = set(&[ed("k")]);
    for header in [
        r#"{"alg":"none","alg":"EdDSA","kid":"k"}"#,
        r#"{"alg":"EdDSA","kid":"x","kid":"k"}"#,
        r#"{"alg":"EdDSA","kid":"k","\u0061lg":"EdDSA"}"#,
        r#"["EdDSA"]"#,
        r#""EdDSA""#,
        "{\"alg\":\"EdDSA\"} x",
        "",
    ] {
        assert_eq!(refused(&signed(header, CLAIMS), &keys), "unreadable header", "{header}");
    }
    for claims in [r#"{"iss":"a","iss":"b"}"#, r#"{"iss":"a","x":{"y":1,"y":2}}"#, "[]", "null", "{", "{}{}", ""] {
        assert_eq!(refused(&signed(HEADER, claims), &keys), "unreadable claims", "{claims}");
    }
}

#[test]
fn the_compact_form_has_one_spelling() {
    let keys = set(&[ed("k")]);
    let good = signed(HEADER, CLAIMS);
    let parts: Vec<&str> = good.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    assert_eq!(signature.len(), 86);
    let cut = |length: usize| signature.chars().take(length).collect::<String>();
    // 64 bytes leave four unused bits in the last letter; only zeros are right there.
    let last = signature.chars().last().unwrap();
    let stray = format!("{}{}", cut(85), char::from_u32(u32::from(last).saturating_add(1)).unwrap());
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        header.to_owned(),
        format!("{header}.{claims}"),
        format!(".{good}"),
        format!("{good}."),
        format!("{header}..{signature}"),
        format!("{header}.{claims}.{signature}.{signature}"),
        format!("{header}.{claims}..{signature}"),
        format!("{good}=="),
        format!("{header}==.{claims}.{signature}"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{header}.{claims} .{signature}"),
        format!("{header}.{claims}.{stray}"),
        format!("{header}.{claims}.{}", signature.replace(['-', '_'], "+")),
        format!("{header}.{claims}.{}", cut(85)),
        format!("{header}.{claims}.{}", cut(43)),
        format!("{header}.{claims}.{signature}AAAA"),
        format!("{header}.{claims}.%41{signature}"),
        format!("{header}.{claims}é.{signature}"),
        json!({"payload": claims, "protected": header, "signature": signature}).to_string(),
    ] {
        refused(&token, &keys);
    }
    assert!(verify(&good, &keys).is_ok());
}

#[test]
fn a_token_is_bounded() {
    let long = signed(HEADER, &json!({"iss": "y".repeat(7000)}).to_string());
    assert_eq!(refused(&long, &set(&[ed("k")])), "too long");
    assert!(Unverified::read(&long, long.len()).is_ok());
    assert_eq!(Unverified::read(&long, long.len().saturating_sub(1)).unwrap_err(), AuthError::Token("too long"));
}

#[test]
fn ecdsa_signatures_out_of_range_are_refused_and_a_high_s_is_not() {
    let keys = set(&[ec("e")]);
    let (message, signature) = ec_signed(r#"{"alg":"ES256","kid":"e"}"#, CLAIMS);
    let (r, s) = signature.split_bytes();
    let with = |r: &[u8], s: &[u8]| format!("{message}.{}", encode([r, s].concat()));
    // The order of P-256 (SEC 2, section 2.4.2).
    let order: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let zero = [0; 32];
    assert!(verify(&with(&r, &s), &keys).is_ok());
    for (r, s) in
        [(&zero[..], &zero[..]), (&zero, &s), (&r, &zero), (&order, &s), (&r, &order), (&[0xff; 32], &[0xff; 32])]
    {
        assert_eq!(refused(&with(r, s), &keys), "wrong signature");
    }
    let other =
        p256::ecdsa::Signature::from_scalars(signature.r().to_bytes(), std::ops::Neg::neg(*signature.s()).to_bytes())
            .unwrap();
    assert_ne!(other, signature);
    assert!(verify(&format!("{message}.{}", encode(other.to_bytes())), &keys).is_ok());
    let der = signature.to_der();
    assert_eq!(refused(&format!("{message}.{}", encode(der.as_bytes())), &keys), "wrong signature", "DER");
    let altered = message.replace(&encode(CLAIMS), &encode(r#"{"iss":"b"}"#));
    assert_eq!(refused(&format!("{altered}.{}", encode(signature.to_bytes())), &keys), "wrong signature");
}

#[test]
fn eddsa_signatures_have_one_form() {
    let keys = set(&[ed("k")]);
    let good = signed(HEADER, CLAIMS);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    // The group's order (RFC 8032, section 5.1), little-endian: S + L is the same signature in another spelling.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = false;
    for (byte, add) in bytes[32..].iter_mut().zip(order) {
        (*byte, carry) = byte.carrying_add(add, carry);
    }
    assert_eq!(refused(&format!("{message}.{}", encode(&bytes)), &keys), "wrong signature");
    assert_eq!(refused(&format!("{message}.{}", encode([0; 64])), &keys), "wrong signature");
    // R and the key of small order, S zero: verifies for every message where points are not looked at.
    let mut neutral = [0; 64];
    neutral[0] = 1;
    assert_eq!(refused(&format!("{message}.{}", encode(neutral)), &keys), "wrong signature");
    assert!(PublicKey::ed25519(&neutral[..32].try_into().unwrap()).is_none());
}

#[test]
fn the_media_type_is_read_without_its_tree() {
    let typ = |typ: Value| {
        let token = signed(&json!({"alg": "EdDSA", "typ": typ}).to_string(), CLAIMS);
        Unverified::read(&token, 8192).map(|token| token.media_type())
    };
    assert_eq!(typ(json!("application/AT+jwt")), Ok(Some("at+jwt".to_owned())));
    assert_eq!(typ(json!("JWT")), Ok(Some("jwt".to_owned())));
    assert_eq!(typ(json!(7)), Err(AuthError::Token("header member of the wrong type")));
}

proptest! {
    #[test]
    fn no_altered_token_verifies(at in any::<prop::sample::Index>(), with in "[0-9A-Za-z._=-]") {
        let good = signed(HEADER, CLAIMS);
        let mut altered: Vec<char> = good.chars().collect();
        let at = at.index(altered.len());
        let with = with.chars().next().unwrap();
        prop_assume!(altered[at] != with);
        altered[at] = with;
        prop_assert!(verify(&altered.into_iter().collect::<String>(), &set(&[ed("k")])).is_err());
    }

    #[test]
    fn no_text_makes_reading_fail_hard(text in ".{0,200}", parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5)) {
        let _ = verify(&text, &set(&[ed("k")]));
        let _ = verify(&parts.join("."), &set(&[ed("k")]));
    }
}
