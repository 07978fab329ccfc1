//! JSON Web Tokens of external issuers (RFC 7519), for the data plane and the admin API.
//!
//! [`decide`] is synchronous: it gives the caller's identity, or says which key set it needs first ([`Need::Jwks`]). The
//! claims are checked before the signature, so a token that could not be accepted anyway makes nobody fetch keys.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::claims::{self, Clock};
use super::jwks::Jwks;
use super::jwks_cache::{JwksCache, JwksPolicy, Lookup, Wanted};
use super::jws::Unverified;
use super::signatures::Algorithm;
use super::{AuthError, Principal, allows};
use crate::config::{Auth, Issuer, JwtAlgorithm, Plane, RoleGrant};

/// Whom an external issuer vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalIdentity {
    /// The issuer.
    pub issuer: String,
    /// Who it is, to the issuer. Two issuers may use the same name for different people.
    pub subject: String,
    /// The account that is charged, where the issuer or the configuration names one.
    pub account: Option<String>,
    /// The gateway's user, where the issuer names one.
    pub user: Option<String>,
    /// Models it may use, as in [`Principal::models`]. Empty for all.
    pub models: Vec<String>,
    /// What it may do in the admin API.
    pub roles: Vec<RoleGrant>,
    /// When its token ends, in Unix seconds.
    pub expires_at: u64,
}

impl ExternalIdentity {
    /// The caller of a model.
    ///
    /// # Errors
    /// [`AuthError::Token`] if there is no account to be charged.
    pub fn principal(self) -> Result<Principal, AuthError> {
        let account = self.account.clone().ok_or(AuthError::Token("no account"))?;
        Ok(Principal { account, key_id: self.key_id(), user: self.user, models: self.models, ..Principal::default() })
    }

    /// Names the caller in limits and logs, apart from the same subject of another issuer.
    pub fn key_id(&self) -> String {
        let digest = Sha256::digest(&self.issuer);
        let issuer: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("jwt:{issuer}:{}", self.subject)
    }
}

/// What a decision gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<T> {
    /// The answer.
    Known(T),
    /// Something has to be fetched first; then decide again.
    Need(Need),
}

/// What has to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// An issuer's key set. Tell [`JwksCache::store`] how the fetch went, also when it failed.
    Jwks {
        /// Its address, as configured.
        uri: String,
        /// The key that it is needed for.
        wanted: Wanted,
    },
}

/// Decides whom a token stands for. `plane` is what it is used on, `now` in Unix seconds.
///
/// # Errors
/// [`AuthError`], for the log: the caller learns only that the token is not valid, or, with
/// [`AuthError::KeysUnavailable`], that it cannot be checked at the moment.
pub fn decide(
    token: Unverified<'_>,
    plane: Plane,
    settings: &Auth,
    cache: &mut JwksCache,
    now: u64,
) -> Result<Decision<ExternalIdentity>, AuthError> {
    let issuer = issuer_of(&token.claims, plane, &settings.issuers)?;
    let allowed: Vec<Algorithm> = issuer.algorithms.iter().copied().map(Algorithm::from).collect();
    let algorithm = token.algorithm(&allowed)?;
    let clock = Clock { now, leeway: settings.leeway_seconds };
    let identity = identity(&token.claims, issuer, plane, clock)?;
    match (&issuer.jwks, &issuer.jwks_uri) {
        (Some(inline), _) => {
            let keys = Jwks::parse(inline).map_err(|_| AuthError::Token("issuer without keys"))?;
            token.verified(algorithm, &keys)?;
        }
        (None, Some(uri)) => {
            let policy = JwksPolicy {
                max_age_seconds: settings.jwks_cache_seconds,
                refresh_min_seconds: settings.jwks_refresh_min_seconds,
            };
            let wanted = Wanted { algorithm, key_id: token.key_id.clone() };
            match cache.look_up(uri, &wanted, now, policy) {
                Lookup::Use(keys) => token.verified(algorithm, &keys)?,
                Lookup::Fetch => return Ok(Decision::Need(Need::Jwks { uri: uri.clone(), wanted })),
                Lookup::Unavailable => return Err(AuthError::KeysUnavailable),
            };
        }
        (None, None) => return Err(AuthError::Token("issuer without keys")),
    }
    Ok(Decision::Known(identity))
}

/// The configured issuer that a token names: the one of that name, for this plane, whose audience it has.
fn issuer_of<'a>(claims: &Map<String, Value>, plane: Plane, issuers: &'a [Issuer]) -> Result<&'a Issuer, AuthError> {
    let name = claims.get("iss").and_then(Value::as_str).ok_or(AuthError::Token("no issuer"))?;
    let mut verdict = AuthError::Token("unknown issuer");
    for issuer in issuers.iter().filter(|issuer| issuer.issuer == name) {
        if !issuer.planes.contains(&plane) {
            verdict = AuthError::Token("issuer is not for this API");
        } else if claims::is_for(claims, &issuer.audiences) {
            return Ok(issuer);
        } else {
            verdict = AuthError::Token("wrong audience");
        }
    }
    Err(verdict)
}

fn identity(
    claims: &Map<String, Value>,
    issuer: &Issuer,
    plane: Plane,
    clock: Clock,
) -> Result<ExternalIdentity, AuthError> {
    let expires_at = clock.check(claims, issuer.max_age_seconds)?;
    if issuer.required_claims.iter().any(|(path, value)| claims::at(claims, path) != Some(value)) {
        return Err(AuthError::Token("required claim missing or different"));
    }
    let name = |path: &str| claims::at(claims, path).and_then(claims::name).map(str::to_owned);
    let subject = name(&issuer.subject_claim).ok_or(AuthError::Token("no subject"))?;
    let account = issuer.account.clone().or_else(|| name(&issuer.account_claim));
    if plane == Plane::Models && account.is_none() {
        return Err(AuthError::Token("no account"));
    }
    Ok(ExternalIdentity {
        issuer: issuer.issuer.clone(),
        subject,
        account,
        user: issuer.user_claim.as_deref().and_then(name),
        models: if plane == Plane::Models { models(claims, issuer)? } else { Vec::new() },
        roles: roles(claims, issuer),
        expires_at,
    })
}

/// What both the configuration and the token allow. None at all is a refusal, because an empty list allows everything.
fn models(claims: &Map<String, Value>, issuer: &Issuer) -> Result<Vec<String>, AuthError> {
    let Some(path) = &issuer.models_claim else { return Ok(issuer.models.clone()) };
    let claimed = claims::at(claims, path).and_then(claims::names).unwrap_or_default();
    let claimed: Vec<String> = claimed.into_iter().map(str::to_owned).collect();
    let mut both: Vec<String> = claimed.iter().filter(|one| allows(&issuer.models, one)).cloned().collect();
    if !claimed.is_empty() {
        // `gpt-*` claimed and `gpt-4o` configured: the narrower counts, whichever side it is on.
        both.extend(issuer.models.iter().filter(|one| allows(&claimed, one)).cloned());
    }
    both.sort_unstable();
    both.dedup();
    if both.is_empty() { Err(AuthError::Token("no models")) } else { Ok(both) }
}

fn roles(claims: &Map<String, Value>, issuer: &Issuer) -> Vec<RoleGrant> {
    let claimed = issuer.roles_claim.as_deref().and_then(|path| claims::at(claims, path)).and_then(claims::names);
    let mut granted = Vec::new();
    for grant in claimed.unwrap_or_default().into_iter().filter_map(|value| issuer.roles.get(value)).flatten() {
        if !granted.contains(grant) {
            granted.push(grant.clone());
        }
    }
    granted
}

impl From<JwtAlgorithm> for Algorithm {
    fn from(allowed: JwtAlgorithm) -> Self {
        match allowed {
            JwtAlgorithm::RS256 => Self::Rs256,
            JwtAlgorithm::ES256 => Self::Es256,
            JwtAlgorithm::EdDSA => Self::EdDsa,
        }
    }
}

#[cfg(test)]
mod tests;
