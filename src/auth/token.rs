//! A bearer token, wherever it comes from: the gateway's own, or an external issuer's.

use super::AuthError;
use super::Principal;
use super::jwks::Jwks;
use super::jwks_cache::JwksCache;
use super::jws::Unverified;
use super::jwt::{self, Decision, ExternalIdentity};
use super::session_token::{self, AdminSession};
use crate::config::{Auth, Plane};

/// What verifying tokens needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// The settings, external issuers among them.
    pub settings: &'a Auth,
    /// The keys that the gateway itself signs with, as it publishes them.
    pub own_keys: &'a Jwks,
    /// The time, in Unix seconds.
    pub now: u64,
}

/// Who calls the admin API with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminCaller {
    /// A user's session; whether it still stands must be looked up.
    Session(AdminSession),
    /// Somebody whom an external issuer vouches for.
    External(ExternalIdentity),
}

/// Decides whom a token stands for that is used to call models.
///
/// # Errors
/// [`AuthError`], as from [`jwt::decide`].
pub fn decide_models(token: &str, trust: Trust<'_>, cache: &mut JwksCache) -> Result<Decision<Principal>, AuthError> {
    let token = Unverified::read(token, trust.settings.max_token_bytes)?;
    if session_token::is_ours(&token) {
        let grant = session_token::verify_models(token, trust.own_keys, trust.now)?;
        return Ok(Decision::Known(grant.into()));
    }
    match jwt::decide(token, Plane::Models, trust.settings, cache, trust.now)? {
        Decision::Known(identity) => identity.principal().map(Decision::Known),
        Decision::Need(need) => Ok(Decision::Need(need)),
    }
}

/// Decides whom a token stands for that is used to call the admin API.
///
/// # Errors
/// [`AuthError`], as from [`jwt::decide`].
pub fn decide_admin(token: &str, trust: Trust<'_>, cache: &mut JwksCache) -> Result<Decision<AdminCaller>, AuthError> {
    let token = Unverified::read(token, trust.settings.max_token_bytes)?;
    if session_token::is_ours(&token) {
        let session = session_token::verify_admin(token, trust.own_keys, trust.now)?;
        return Ok(Decision::Known(AdminCaller::Session(session)));
    }
    match jwt::decide(token, Plane::Admin, trust.settings, cache, trust.now)? {
        Decision::Known(identity) => Ok(Decision::Known(AdminCaller::External(identity))),
        Decision::Need(need) => Ok(Decision::Need(need)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::session_token::{ISSUER, Issue, ModelsGrant, SigningKey, jwks_document, sign_admin, sign_models};
    use serde_json::json;

    const ISSUE: Issue = Issue { now: 1000, lifetime_seconds: 900, token_id: [1; 16] };

    #[test]
    fn own_tokens_open_their_own_plane() {
        let key = SigningKey::generate([1; 32], 0);
        let own_keys = Jwks::parse(&jwks_document(&[key.public().clone()])).unwrap();
        let trust = Trust { settings: &Auth::default(), own_keys: &own_keys, now: 1000 };
        let grant = ModelsGrant {
            user: "usr_1".into(),
            session: "ses_1".into(),
            account: "acc_1".into(),
            key_id: "k".into(),
            models: vec![],
        };
        let (admin, models) = (sign_admin(&key, "usr_1", "ses_1", ISSUE), sign_models(&key, &grant, ISSUE));
        let cache = &mut JwksCache::default();
        assert!(matches!(
            decide_admin(admin.expose(), trust, cache),
            Ok(Decision::Known(AdminCaller::Session(session))) if session.user == "usr_1"
        ));
        assert!(matches!(
            decide_models(models.expose(), trust, cache),
            Ok(Decision::Known(principal)) if principal.account == "acc_1"
        ));
        assert!(decide_models(admin.expose(), trust, cache).is_err());
        assert!(decide_admin(models.expose(), trust, cache).is_err());
    }

    #[test]
    fn no_external_issuer_can_speak_in_the_gateways_name() {
        let key = SigningKey::generate([2; 32], 0);
        let issuer = json!({
            "issuer": ISSUER, "audiences": ["llm-gateway:admin"], "algorithms": ["EdDSA"], "planes": ["models", "admin"],
            "jwks": {"keys": [key.public().jwk()]},
        });
        let settings = Auth { issuers: vec![serde_json::from_value(issuer).unwrap()], ..Auth::default() };
        let trust = Trust { settings: &settings, own_keys: &Jwks::default(), now: 1000 };
        let token = sign_admin(&key, "usr_1", "ses_1", ISSUE);
        let verdict = decide_admin(token.expose(), trust, &mut JwksCache::default());
        assert_eq!(verdict, Err(AuthError::Token("unknown key id")));
    }
}
