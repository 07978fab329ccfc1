//! What external issuers may and may not vouch for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ed25519_dalek::Signer as _;
use serde_json::json;

use super::*;

const NOW: u64 = 1500;

fn key(seed: u8) -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[seed; 32])
}

fn keys(seed: u8, kid: &str) -> Value {
    let x = B64.encode(key(seed).verifying_key().to_bytes());
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"}]})
}

fn issuer(more: Value) -> Issuer {
    let mut issuer = json!({
        "issuer": "https://id.example", "audiences": ["gateway", "gateway-next"], "algorithms": ["EdDSA"],
        "account_claim": "team", "jwks": keys(1, "k1"),
    });
    issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(issuer).unwrap()
}

fn settings(issuers: Vec<Issuer>) -> Auth {
    Auth { issuers, ..Auth::default() }
}

fn claims(more: Value) -> Value {
    let mut claims = json!({
        "iss": "https://id.example", "aud": ["other", "gateway"], "sub": "u1", "team": "t1", "exp": 2000, "nbf": 1000,
    });
    for (name, value) in more.as_object().unwrap() {
        if value == "absent" {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn signed_by(seed: u8, kid: &str, claims: &Value) -> String {
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid}).to_string();
    let message = format!("{}.{}", B64.encode(header), B64.encode(claims.to_string()));
    format!("{message}.{}", B64.encode(key(seed).sign(message.as_bytes()).to_bytes()))
}

fn on(
    plane: Plane,
    token: &str,
    settings: &Auth,
    cache: &mut JwksCache,
    now: u64,
) -> Result<Decision<ExternalIdentity>, AuthError> {
    decide(Unverified::read(token, settings.max_token_bytes)?, plane, settings, cache, now)
}

/// Decides on claims that the issuer has signed.
fn judge(issuer: Issuer, plane: Plane, claims: &Value) -> Result<ExternalIdentity, AuthError> {
    let token = signed_by(1, "k1", claims);
    match on(plane, &token, &settings(vec![issuer]), &mut JwksCache::default(), NOW)? {
        Decision::Known(identity) => Ok(identity),
        Decision::Need(_) => Err(AuthError::KeysUnavailable),
    }
}

fn models_call(more_issuer: Value, more_claims: Value) -> Result<ExternalIdentity, AuthError> {
    judge(issuer(more_issuer), Plane::Models, &claims(more_claims))
}

#[test]
fn a_good_token_names_account_and_subject() {
    let identity = models_call(json!({}), json!({})).unwrap();
    assert_eq!((identity.subject.as_str(), identity.account.as_deref(), identity.expires_at), ("u1", Some("t1"), 2000));
    let principal = identity.principal().unwrap();
    assert_eq!(principal.account, "t1");
    assert!(principal.key_id.starts_with("jwt:") && principal.key_id.ends_with(":u1"), "{}", principal.key_id);
    assert!(principal.may_use_model("anything"));
}

#[test]
fn the_same_subject_of_two_issuers_is_two_callers() {
    let one = models_call(json!({}), json!({})).unwrap();
    let two = models_call(json!({"issuer": "https://b.example"}), json!({"iss": "https://b.example"})).unwrap();
    assert_ne!(one.key_id(), two.key_id());
}

#[test]
fn issuer_and_audience_are_matched_whole() {
    for iss in [
        json!("https://id.example/"),
        json!("https://id.exampl"),
        json!("https://id.example.evil.example"),
        json!("HTTPS://ID.EXAMPLE"),
        json!(["https://id.example"]),
        json!({"https://id.example": 1}),
        json!(null),
        json!(""),
        json!("absent"),
    ] {
        assert!(models_call(json!({}), json!({"iss": iss.clone()})).is_err(), "{iss}");
    }
    for aud in [
        json!("gateway2"),
        json!("gate"),
        json!(["other"]),
        json!([]),
        json!(null),
        json!([["gateway"]]),
        json!("absent"),
    ] {
        let verdict = models_call(json!({}), json!({"aud": aud.clone()}));
        assert_eq!(verdict, Err(AuthError::Token("wrong audience")), "{aud}");
    }
    assert!(models_call(json!({}), json!({"aud": "gateway-next"})).is_ok(), "any of several");
}

#[test]
fn times_are_checked_with_the_configured_leeway() {
    for (more, good) in [
        (json!({"exp": 1471}), true),
        (json!({"exp": 1470}), false),
        (json!({"exp": "absent"}), false),
        (json!({"exp": "2000"}), false),
        (json!({"exp": 2000.5}), true),
        (json!({"exp": -1}), false),
        (json!({"exp": 1e300}), false),
        (json!({"nbf": 1530}), true),
        (json!({"nbf": 1531}), false),
        (json!({"nbf": "1000"}), false),
        (json!({"iat": 9999}), false),
        (json!({"iat": null}), false),
    ] {
        assert_eq!(models_call(json!({}), more.clone()).is_ok(), good, "{more}");
    }
    assert!(models_call(json!({"max_age_seconds": 100}), json!({"iat": 1450})).is_ok());
    assert!(models_call(json!({"max_age_seconds": 100}), json!({"iat": 1370})).is_err());
    assert!(models_call(json!({"max_age_seconds": 100}), json!({})).is_err(), "no time of issue");
}

#[test]
fn a_token_is_good_on_the_planes_of_its_issuer_only() {
    let not_here = Err(AuthError::Token("issuer is not for this API"));
    assert_eq!(judge(issuer(json!({})), Plane::Admin, &claims(json!({}))), not_here);
    let admin = json!({"planes": ["admin"]});
    assert_eq!(judge(issuer(admin.clone()), Plane::Models, &claims(json!({}))), not_here);
    let identity = judge(issuer(admin), Plane::Admin, &claims(json!({"team": "absent"}))).unwrap();
    assert_eq!(identity.account, None, "an account is needed for models only");
    assert!(identity.principal().is_err());
}

#[test]
fn a_signature_of_another_issuers_key_is_refused() {
    let other = json!({"issuer": "https://b.example", "jwks": keys(2, "k1")});
    let both = settings(vec![issuer(json!({})), issuer(other)]);
    let judge = |seed, more| {
        let token = signed_by(seed, "k1", &claims(more));
        on(Plane::Models, &token, &both, &mut JwksCache::default(), NOW).map(|_| ())
    };
    assert_eq!(judge(1, json!({})), Ok(()));
    assert_eq!(judge(2, json!({"iss": "https://b.example"})), Ok(()));
    assert_eq!(judge(2, json!({})), Err(AuthError::Token("wrong signature")), "the same key id, another's key");
    assert_eq!(judge(1, json!({"iss": "https://b.example"})), Err(AuthError::Token("wrong signature")));
}

#[test]
fn an_algorithm_that_the_issuer_does_not_use_is_refused() {
    let rsa_only = models_call(json!({"algorithms": ["RS256", "ES256"]}), json!({}));
    assert_eq!(rsa_only, Err(AuthError::Token("algorithm not allowed")));
}

#[test]
fn accounts_and_users_come_from_where_the_configuration_says() {
    for (more_issuer, more_claims, account) in [
        (json!({}), json!({"team": "t2"}), Some("t2")),
        (json!({"account": "fixed"}), json!({"team": "t2"}), Some("fixed")),
        (json!({"account_claim": "org.team"}), json!({"org": {"team": "t3"}}), Some("t3")),
        (json!({"account_claim": "https://x.example/team"}), json!({"https://x.example/team": "t4"}), Some("t4")),
        (json!({"account_claim": "sub"}), json!({}), Some("u1")),
        (json!({}), json!({"team": ""}), None),
        (json!({}), json!({"team": ["t1"]}), None),
        (json!({}), json!({"team": 7}), None),
        (json!({}), json!({"team": "t\n1"}), None),
        (json!({}), json!({"team": "t".repeat(257)}), None),
        (json!({}), json!({"team": "absent"}), None),
        (json!({"subject_claim": "email"}), json!({}), None),
        (json!({}), json!({"sub": null}), None),
    ] {
        let identity = models_call(more_issuer.clone(), more_claims.clone());
        assert_eq!(identity.ok().and_then(|it| it.account).as_deref(), account, "{more_issuer} {more_claims}");
    }
    let identity = models_call(
        json!({"user_claim": "gw.user", "subject_claim": "email"}),
        json!({"gw": {"user": "usr_1"}, "email": "a@b.example"}),
    );
    let identity = identity.unwrap();
    assert_eq!((identity.user.as_deref(), identity.subject.as_str()), (Some("usr_1"), "a@b.example"));
}

#[test]
fn required_claims_have_exactly_the_required_values() {
    let required = json!({"required_claims": {"email_verified": true, "org.id": "o1", "level": 3}});
    let good = json!({"email_verified": true, "org": {"id": "o1"}, "level": 3});
    assert!(models_call(required.clone(), good.clone()).is_ok());
    for (name, value) in [
        ("email_verified", json!("true")),
        ("email_verified", json!(1)),
        ("email_verified", json!("absent")),
        ("org", json!({"id": ["o1"]})),
        ("org", json!("o1")),
        ("level", json!("3")),
    ] {
        let mut more = good.clone();
        more[name] = value.clone();
        assert!(models_call(required.clone(), more).is_err(), "{name} {value}");
    }
}

#[test]
fn models_are_what_both_sides_allow() {
    let allowed = |configured: Value, claimed: Value| {
        models_call(json!({"models": configured, "models_claim": "models"}), json!({"models": claimed}))
            .map(|it| it.models)
    };
    let list = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(allowed(json!([]), json!(["a", "b*"])), list(&["a", "b*"]));
    assert_eq!(allowed(json!(["gpt-*"]), json!(["gpt-4o", "claude"])), list(&["gpt-4o"]));
    assert_eq!(allowed(json!(["gpt-4o", "claude"]), json!("gpt-*")), list(&["gpt-4o"]));
    assert_eq!(allowed(json!(["gpt-*"]), json!(["*"])), list(&["gpt-*"]));
    let none = Err(AuthError::Token("no models"));
    for claimed in [json!([]), json!("absent"), json!(null), json!([1]), json!(["", "gpt-4o"]), json!(["claude"])] {
        assert_eq!(allowed(json!(["gpt-*"]), claimed.clone()), none, "{claimed}: an empty list would allow everything");
    }
    assert_eq!(models_call(json!({"models": ["m"]}), json!({"models": ["x"]})).unwrap().models, ["m"]);
}

#[test]
fn roles_come_from_the_mapping_alone() {
    let more = json!({
        "planes": ["admin"], "roles_claim": "realm.roles",
        "roles": {"gw-admins": [{"role": "admin"}], "gw-team": [{"role": "viewer"}, {"role": "developer", "account": "t1"}]},
    });
    let roles = |claimed: Value| {
        let identity =
            judge(issuer(more.clone()), Plane::Admin, &claims(json!({"realm": {"roles": claimed}}))).unwrap();
        identity.roles.into_iter().map(|grant| (grant.role, grant.account)).collect::<Vec<_>>()
    };
    assert_eq!(roles(json!("gw-admins")), [("admin".to_owned(), None)]);
    assert_eq!(
        roles(json!(["gw-team", "gw-team", "owner", "admin"])),
        [("viewer".to_owned(), None), ("developer".to_owned(), Some("t1".to_owned()))]
    );
    for none in [json!("owner"), json!([]), json!(null), json!({"gw-admins": true}), json!(["gw-admins", 7])] {
        assert_eq!(roles(none.clone()), [], "{none}");
    }
}

#[test]
fn keys_are_asked_for_once_and_only_for_tokens_that_could_be_good() {
    let more = json!({"jwks": null, "jwks_uri": "https://id.example/jwks"});
    let settings = settings(vec![issuer(more)]);
    let mut cache = JwksCache::default();
    let judge = |kid: &str, more: Value, cache: &mut JwksCache| {
        on(Plane::Models, &signed_by(1, kid, &claims(more)), &settings, cache, NOW)
    };
    for hopeless in [json!({"exp": 1}), json!({"aud": "x"}), json!({"team": "absent"}), json!({"iss": "x"})] {
        assert!(judge("k1", hopeless, &mut cache).is_err(), "no fetch for what cannot be accepted");
    }
    let Ok(Decision::Need(Need::Jwks { uri, wanted })) = judge("k1", json!({}), &mut cache) else { panic!("a need") };
    assert_eq!((uri.as_str(), wanted.key_id.as_deref()), ("https://id.example/jwks", Some("k1")));
    cache.store(&uri, Jwks::parse(&keys(1, "k1")).ok(), &wanted, NOW);
    assert!(matches!(judge("k1", json!({}), &mut cache), Ok(Decision::Known(_))));
    assert_eq!(judge("forged", json!({}), &mut cache), Err(AuthError::Token("unknown key id")));

    let mut down = JwksCache::default();
    let Ok(Decision::Need(Need::Jwks { uri, wanted })) = judge("k1", json!({}), &mut down) else { panic!("a need") };
    down.store(&uri, None, &wanted, NOW);
    assert_eq!(judge("k1", json!({}), &mut down), Err(AuthError::KeysUnavailable));
}

#[test]
fn an_issuer_without_usable_keys_accepts_nothing() {
    for jwks in [json!({}), json!({"keys": []}), json!({"keys": [{"kty": "oct", "k": "AAAA"}]})] {
        assert_eq!(models_call(json!({"jwks": jwks}), json!({})), Err(AuthError::Token("issuer without keys")));
    }
}
