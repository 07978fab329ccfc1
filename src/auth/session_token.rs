//! The gateway's own tokens: short-lived, signed with Ed25519 by keys that rotate (RFC 8037).
//!
//! A session has two kinds of token, told apart by their audience: one calls the admin API, the other models. Neither is
//! accepted in the other's place. Both are verified by the code that verifies external issuers' ([`super::jws`]).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::claims::{self, Clock};
use super::jwks::Jwks;
use super::jws::Unverified;
use super::signatures::Algorithm;
use super::{AuthError, Principal};
use crate::seal::{NONCE_BYTES, Purpose, SealError, Sealer};
use crate::secret::Secret;

/// The `iss` claim. No external issuer may have this name.
pub const ISSUER: &str = "llm-gateway";

/// The audience of tokens that call the admin API.
pub const ADMIN_AUDIENCE: &str = "llm-gateway:admin";

/// The audience of tokens that call models.
pub const MODELS_AUDIENCE: &str = "llm-gateway:models";

/// Random bytes of a token's id.
pub const TOKEN_ID_BYTES: usize = 16;

/// How long a new key is published before it signs, in seconds, so that everybody who verifies knows it by then.
pub const ACTIVATION_SECONDS: u64 = 60;

/// By how much the clocks of two isolates may differ, in seconds.
const LEEWAY_SECONDS: u64 = 5;

/// The media type of access tokens (RFC 9068, section 2.1).
const MEDIA_TYPE: &str = "at+jwt";

// === Keys ===

/// The public half of a signing key, as it is stored and sent to whoever verifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationKey {
    /// Its id: the thumbprint of the key (RFC 7638).
    pub kid: String,
    /// The key, in base64url.
    pub x: String,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
}

impl VerificationKey {
    /// The key as a JSON Web Key.
    pub fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": self.x, "kid": self.kid, "alg": "EdDSA", "use": "sig"})
    }
}

/// The key set to publish (RFC 7517). [`Jwks::parse`] reads it back for [`verify_admin`] and [`verify_models`].
pub fn jwks_document(keys: &[VerificationKey]) -> Value {
    json!({"keys": keys.iter().map(VerificationKey::jwk).collect::<Vec<_>>()})
}

/// A key pair that signs tokens.
#[derive(Debug, Clone)]
pub struct SigningKey {
    secret: Secret<[u8; 32]>,
    public: VerificationKey,
}

impl SigningKey {
    /// Makes a key pair of 32 random bytes; `now` is in Unix seconds.
    pub fn generate(random: [u8; 32], now: u64) -> Self {
        let bytes = ed25519_dalek::SigningKey::from_bytes(&random).verifying_key().to_bytes();
        let x = URL_SAFE_NO_PAD.encode(bytes);
        // RFC 7638: the members that make the key, in the order of their names.
        let thumbprint = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
        let public = VerificationKey { kid: URL_SAFE_NO_PAD.encode(thumbprint), x, created_at: now };
        Self { secret: Secret::new(random), public }
    }

    /// The public half.
    pub fn public(&self) -> &VerificationKey {
        &self.public
    }

    /// Seals the private half for storing beside the public one.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, sealer: &Sealer, nonce: [u8; NONCE_BYTES]) -> Result<String, SealError> {
        sealer.seal(Purpose::SigningKey, &context(&self.public.kid), self.secret.expose(), nonce)
    }

    /// Opens a stored key pair.
    ///
    /// # Errors
    /// [`SealError`]; [`SealError::Tampered`] also if the halves do not belong together.
    pub fn open(public: &VerificationKey, sealed: &str, sealer: &Sealer) -> Result<Self, SealError> {
        let secret = sealer.open(Purpose::SigningKey, &context(&public.kid), sealed)?;
        let secret = <[u8; 32]>::try_from(secret.expose().as_slice()).map_err(|_| SealError::Malformed)?;
        let key = Self::generate(secret, public.created_at);
        if key.public == *public { Ok(key) } else { Err(SealError::Tampered) }
    }

    fn sign(&self, claims: &impl Serialize) -> Secret<String> {
        let header = json!({"alg": Algorithm::EdDsa.name(), "typ": MEDIA_TYPE, "kid": self.public.kid}).to_string();
        // Text and numbers always serialise.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = ed25519_dalek::SigningKey::from_bytes(self.secret.expose()).sign(message.as_bytes());
        Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())))
    }
}

fn context(kid: &str) -> String {
    format!("signing_keys/{kid}")
}

/// The keys of a deployment, by age: which one signs, when there must be a new one, which ones can go.
#[derive(Debug, Clone, Default)]
pub struct KeyRing(Vec<VerificationKey>);

impl KeyRing {
    /// The keys in any order.
    pub fn new(mut keys: Vec<VerificationKey>) -> Self {
        keys.sort_by(|a, b| (b.created_at, &b.kid).cmp(&(a.created_at, &a.kid)));
        Self(keys)
    }

    /// All keys, the newest first.
    pub fn keys(&self) -> &[VerificationKey] {
        &self.0
    }

    /// The key that signs at `now` (Unix seconds): the newest that has been published for [`ACTIVATION_SECONDS`], or the
    /// oldest where none has. `None` if there are no keys.
    pub fn signing(&self, now: u64) -> Option<&VerificationKey> {
        let active = |key: &&VerificationKey| key.created_at.saturating_add(ACTIVATION_SECONDS) <= now;
        self.0.iter().find(active).or(self.0.last())
    }

    /// Whether it is time to make a new key.
    pub fn due(&self, now: u64, rotation_seconds: u64) -> bool {
        self.0.first().is_none_or(|newest| newest.created_at.saturating_add(rotation_seconds) <= now)
    }

    /// The ids of keys that nothing valid is signed with any more. `longest_token_seconds` is the longest that a token may
    /// have been issued for: what the configuration's bounds allow, since it may have said more than it says now.
    pub fn spent(&self, now: u64, longest_token_seconds: u64) -> Vec<&str> {
        let outlived = ACTIVATION_SECONDS.saturating_add(longest_token_seconds).saturating_add(LEEWAY_SECONDS);
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let spent = pairs.filter(|(successor, _)| successor.created_at.saturating_add(outlived) <= now);
        spent.map(|(_, key)| key.kid.as_str()).collect()
    }
}

// === Tokens ===

/// A session, as its token for the admin API tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSession {
    /// The user.
    pub user: String,
    /// The session, which may have been revoked meanwhile.
    pub session: String,
    /// The token's id.
    pub token_id: String,
    /// When the token was issued, in Unix seconds.
    pub issued_at: u64,
    /// When the token ends, in Unix seconds.
    pub expires_at: u64,
}

/// What a token for calling models grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelsGrant {
    /// The user.
    pub user: String,
    /// The session that it was got with.
    pub session: String,
    /// The account that is charged.
    pub account: String,
    /// What limits and logs know the caller by, in place of a key's id.
    pub key_id: String,
    /// Models that it may use, as in [`Principal::models`]. Empty for all.
    pub models: Vec<String>,
}

impl From<ModelsGrant> for Principal {
    fn from(grant: ModelsGrant) -> Self {
        Self {
            account: grant.account,
            key_id: grant.key_id,
            user: Some(grant.user),
            models: grant.models,
            ..Self::default()
        }
    }
}

/// When a token begins and ends, and what tells it from all others.
#[derive(Debug, Clone, Copy)]
pub struct Issue {
    /// The time, in Unix seconds.
    pub now: u64,
    /// How long the token is good for, in seconds.
    pub lifetime_seconds: u64,
    /// Random bytes.
    pub token_id: [u8; TOKEN_ID_BYTES],
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    sid: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
}

impl Claims {
    fn new(audience: &str, user: &str, session: &str, issue: Issue) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            aud: audience.to_owned(),
            sub: user.to_owned(),
            sid: session.to_owned(),
            iat: issue.now,
            nbf: issue.now,
            exp: issue.now.saturating_add(issue.lifetime_seconds),
            jti: URL_SAFE_NO_PAD.encode(issue.token_id),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ModelsClaims {
    #[serde(flatten)]
    common: Claims,
    account: String,
    key: String,
    models: Vec<String>,
}

/// Makes a token for the admin API.
pub fn sign_admin(key: &SigningKey, user: &str, session: &str, issue: Issue) -> Secret<String> {
    key.sign(&Claims::new(ADMIN_AUDIENCE, user, session, issue))
}

/// Makes a token for calling models.
pub fn sign_models(key: &SigningKey, grant: &ModelsGrant, issue: Issue) -> Secret<String> {
    key.sign(&ModelsClaims {
        common: Claims::new(MODELS_AUDIENCE, &grant.user, &grant.session, issue),
        account: grant.account.clone(),
        key: grant.key_id.clone(),
        models: grant.models.clone(),
    })
}

/// Whether a token says that it is one of the gateway's own.
pub fn is_ours(token: &Unverified<'_>) -> bool {
    token.claims.get("iss").is_some_and(|issuer| issuer == ISSUER)
}

/// Verifies a token for the admin API with the published keys; `now` is in Unix seconds. Whether its session still stands is for the caller to
/// find out.
///
/// # Errors
/// [`AuthError`], for the log.
pub fn verify_admin(token: Unverified<'_>, keys: &Jwks, now: u64) -> Result<AdminSession, AuthError> {
    let claims: Claims = verified(token, ADMIN_AUDIENCE, keys, now)?;
    Ok(AdminSession {
        user: claims.sub,
        session: claims.sid,
        token_id: claims.jti,
        issued_at: claims.iat,
        expires_at: claims.exp,
    })
}

/// Verifies a token for calling models with the published keys; `now` is in Unix seconds.
///
/// # Errors
/// [`AuthError`], for the log.
pub fn verify_models(token: Unverified<'_>, keys: &Jwks, now: u64) -> Result<ModelsGrant, AuthError> {
    let claims: ModelsClaims = verified(token, MODELS_AUDIENCE, keys, now)?;
    Ok(ModelsGrant {
        user: claims.common.sub,
        session: claims.common.sid,
        account: claims.account,
        key_id: claims.key,
        models: claims.models,
    })
}

fn verified<T: for<'de> Deserialize<'de>>(
    token: Unverified<'_>,
    audience: &str,
    keys: &Jwks,
    now: u64,
) -> Result<T, AuthError> {
    let algorithm = token.algorithm(&[Algorithm::EdDsa])?;
    if token.media_type().as_deref() != Some(MEDIA_TYPE) {
        return Err(AuthError::Token("wrong type"));
    }
    if token.key_id.is_none() {
        return Err(AuthError::Token("no key id"));
    }
    check(&token.claims, audience, now)?;
    let claims = token.verified(algorithm, keys)?;
    serde_json::from_value(Value::Object(claims)).map_err(|_| AuthError::Token("claims of the wrong form"))
}

fn check(claims: &Map<String, Value>, audience: &str, now: u64) -> Result<(), AuthError> {
    let is = |name: &str, value: &str| claims.get(name).and_then(Value::as_str) == Some(value);
    if !is("iss", ISSUER) || !is("aud", audience) {
        return Err(AuthError::Token("wrong issuer or audience"));
    }
    if ["sub", "sid", "jti"].iter().any(|name| claims.get(*name).and_then(claims::name).is_none()) {
        return Err(AuthError::Token("claims of the wrong form"));
    }
    Clock { now, leeway: LEEWAY_SECONDS }.check(claims, None).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn key(seed: u8, created_at: u64) -> SigningKey {
        SigningKey::generate([seed; 32], created_at)
    }

    fn issue(now: u64) -> Issue {
        Issue { now, lifetime_seconds: 900, token_id: [9; TOKEN_ID_BYTES] }
    }

    fn grant() -> ModelsGrant {
        ModelsGrant {
            user: "usr_1".into(),
            session: "ses_1".into(),
            account: "acc_1".into(),
            key_id: "usr_1@acc_1".into(),
            models: vec!["gpt-*".into()],
        }
    }

    fn published(keys: &[&SigningKey]) -> Jwks {
        let keys: Vec<_> = keys.iter().map(|key| key.public().clone()).collect();
        Jwks::parse(&jwks_document(&keys)).unwrap_or_default()
    }

    fn admin(token: &str, keys: &[&SigningKey], now: u64) -> Result<AdminSession, AuthError> {
        verify_admin(Unverified::read(token, 8192)?, &published(keys), now)
    }

    fn models(token: &str, keys: &[&SigningKey], now: u64) -> Result<ModelsGrant, AuthError> {
        verify_models(Unverified::read(token, 8192)?, &published(keys), now)
    }

    #[test]
    fn a_session_is_told_by_its_token_while_that_lasts() {
        let key = key(1, 0);
        let token = sign_admin(&key, "usr_1", "ses_1", issue(1000));
        let session = admin(token.expose(), &[&key], 1000).unwrap();
        assert_eq!((session.user.as_str(), session.session.as_str()), ("usr_1", "ses_1"));
        assert_eq!((session.issued_at, session.expires_at), (1000, 1900));
        assert!(admin(token.expose(), &[&key], 1904).is_ok());
        assert_eq!(admin(token.expose(), &[&key], 1905), Err(AuthError::Expired));
        assert!(admin(token.expose(), &[&key], 995).is_ok(), "another isolate's clock");
        assert_eq!(admin(token.expose(), &[&key], 994), Err(AuthError::Token("not valid yet")));
        assert!(is_ours(&Unverified::read(token.expose(), 8192).unwrap()));
    }

    #[test]
    fn a_token_for_models_makes_a_principal() {
        let key = key(1, 0);
        let token = sign_models(&key, &grant(), issue(1000));
        let read = models(token.expose(), &[&key], 1000).unwrap();
        assert_eq!(read, grant());
        let principal = Principal::from(read);
        assert_eq!((principal.account.as_str(), principal.user.as_deref()), ("acc_1", Some("usr_1")));
        assert!(principal.may_use_model("gpt-4o") && !principal.may_use_model("claude"));
    }

    #[test]
    fn neither_audience_opens_the_others_door() {
        let key = key(1, 0);
        let wrong = Err(AuthError::Token("wrong issuer or audience"));
        let for_admin = sign_admin(&key, "usr_1", "ses_1", issue(1000));
        assert_eq!(models(for_admin.expose(), &[&key], 1000).map(|_| ()), wrong);
        let for_models = sign_models(&key, &grant(), issue(1000));
        assert_eq!(admin(for_models.expose(), &[&key], 1000).map(|_| ()), wrong);
    }

    #[test]
    fn only_a_published_key_counts() {
        let (ours, other) = (key(1, 0), key(2, 0));
        let token = sign_admin(&ours, "usr_1", "ses_1", issue(1000));
        assert_eq!(admin(token.expose(), &[&other], 1000), Err(AuthError::Token("unknown key id")));
        assert_eq!(admin(token.expose(), &[], 1000), Err(AuthError::Token("unknown key id")));
        assert!(admin(token.expose(), &[&other, &ours], 1000).is_ok());
        let mut relabelled = other.public().clone();
        relabelled.kid.clone_from(&ours.public().kid);
        let relabelled = Jwks::parse(&jwks_document(&[relabelled])).unwrap();
        let verdict = verify_admin(Unverified::read(token.expose(), 8192).unwrap(), &relabelled, 1000);
        assert_eq!(verdict, Err(AuthError::Token("wrong signature")));
    }

    #[test]
    fn whatever_differs_from_what_we_issue_is_refused() {
        let key = key(1, 0);
        let good = json!({"iss": ISSUER, "aud": ADMIN_AUDIENCE, "sub": "u", "sid": "s", "iat": 1000, "nbf": 1000, "exp": 1900, "jti": "j"});
        assert!(admin(key.sign(&good).expose(), &[&key], 1000).is_ok());
        for (name, value) in [
            ("iss", json!("https://llm-gateway")),
            ("iss", json!([ISSUER])),
            ("aud", json!([ADMIN_AUDIENCE])),
            ("aud", json!("llm-gateway:admin2")),
            ("aud", json!("llm-gateway")),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sid", json!(null)),
            ("jti", json!({})),
            ("exp", json!("1900")),
            ("iat", json!(-1)),
            ("iat", json!(1000.5)),
            ("nbf", json!(9000)),
        ] {
            let mut claims = good.clone();
            claims[name] = value.clone();
            assert!(admin(key.sign(&claims).expose(), &[&key], 1000).is_err(), "{name}: {value}");
        }
        for missing in ["iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti"] {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(missing);
            assert!(admin(key.sign(&claims).expose(), &[&key], 1000).is_err(), "{missing}");
        }
        let claims = URL_SAFE_NO_PAD.encode(good.to_string());
        for header in [
            json!({"alg": "EdDSA", "typ": "JWT", "kid": key.public().kid}),
            json!({"alg": "EdDSA", "kid": key.public().kid}),
            json!({"alg": "EdDSA", "typ": "at+jwt"}),
            json!({"alg": "none", "typ": "at+jwt", "kid": key.public().kid}),
            json!({"alg": "HS256", "typ": "at+jwt", "kid": key.public().kid}),
        ] {
            let message = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header.to_string()));
            let signature = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).sign(message.as_bytes());
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()));
            assert!(admin(&token, &[&key], 1000).is_err(), "{header}");
        }
    }

    #[test]
    fn a_stored_key_opens_only_with_its_own_public_half() {
        let sealer = Sealer::new(&Secret::new("m".repeat(32)), None).unwrap();
        let (one, two) = (key(1, 5), key(2, 5));
        let sealed = one.seal(&sealer, [0; NONCE_BYTES]).unwrap();
        let opened = SigningKey::open(one.public(), &sealed, &sealer).unwrap();
        assert_eq!(opened.public(), one.public());
        assert_eq!(SigningKey::open(two.public(), &sealed, &sealer).unwrap_err(), SealError::Tampered);
        let mixed = VerificationKey { x: two.public().x.clone(), ..one.public().clone() };
        assert_eq!(SigningKey::open(&mixed, &sealed, &sealer).unwrap_err(), SealError::Tampered);
        assert!(!format!("{one:?}").contains("1, 1, 1"));
    }

    #[test]
    fn the_published_set_is_the_standards() {
        // RFC 8037, appendix A: key, thumbprint, set.
        let secret = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = SigningKey::generate(secret.try_into().unwrap(), 0);
        assert_eq!(key.public().x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.public().kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let document = jwks_document(&[key.public().clone()]);
        assert!(Jwks::parse(&document).unwrap().knows(Algorithm::EdDsa, Some(&key.public().kid)));
        assert!(document["keys"][0].get("d").is_none());
    }

    #[test]
    fn keys_rotate_without_a_token_that_nobody_can_verify() {
        let rotation = 30 * DAY;
        let mut keys: Vec<VerificationKey> = Vec::new();
        let mut tokens: Vec<(String, u64)> = Vec::new();
        let mut seed = 0;
        for now in (0..200 * DAY).step_by(450) {
            let ring = KeyRing::new(keys.clone());
            for spent in ring.spent(now, 900) {
                keys.retain(|key| key.kid != spent);
            }
            if ring.due(now, rotation) {
                seed += 1;
                keys.push(key(seed, now).public().clone());
            }
            let ring = KeyRing::new(keys.clone());
            assert!(ring.keys().len() <= 2);
            let signing = ring.signing(now).unwrap();
            assert!(now < ACTIVATION_SECONDS || signing.created_at + ACTIVATION_SECONDS <= now);
            tokens.retain(|(_, until)| now < until + LEEWAY_SECONDS);
            tokens.push((signing.kid.clone(), now + 900));
            assert!(tokens.iter().all(|(kid, _)| keys.iter().any(|key| key.kid == *kid)));
        }
        assert_eq!(seed, 7);
        assert!(KeyRing::default().due(0, rotation) && KeyRing::default().signing(0).is_none());
    }
}
