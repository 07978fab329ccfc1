//! Who is calling: API keys and JSON Web Tokens, both resolved to a [`Principal`].

pub mod api_key;
mod claims;
pub mod ip_ranges;
pub mod jwks;
pub mod jwks_cache;
pub mod jws;
pub mod jwt;
pub mod lockout;
pub mod opaque;
pub mod password;
pub mod rbac;
pub mod session_token;
pub mod signatures;
pub(crate) mod strict_json;
pub mod token;

#[cfg(target_arch = "wasm32")]
pub mod issuer_keys;

use std::net::IpAddr;

use http::HeaderMap;
use serde_json::Value;

use crate::error::{Kind, Problem};
use crate::gateway::proxy;
use api_key::ApiKey;
use ip_ranges::IpRange;

/// Whom a request acts for, and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Principal {
    /// The account that is charged.
    pub account: String,
    /// The stable id of the key, which a rotation keeps; `jwt:…` for a token of an external issuer.
    pub key_id: String,
    /// The public id that was presented: part of the key's text, and of its record's name. Empty for tokens.
    pub public_id: String,
    /// The user that the key or token belongs to.
    pub user: Option<String>,
    /// Models it may use: exact names, or prefixes ending in `*`. Empty for all.
    pub models: Vec<String>,
    /// Paths it may call, such as `/v1/chat/completions`: exact, or prefixes ending in `*`. Empty for all but those below
    /// `/v1/proxy/`, which must be named.
    pub endpoints: Vec<String>,
    /// Addresses it may call from. Empty for all.
    pub ip_ranges: Vec<IpRange>,
    /// The revision of the key's record that this was read from.
    pub revision: u64,
    /// Settings that differ for this key.
    pub overrides: Option<Value>,
}

impl Principal {
    /// Whether it may use a model. Where it may not, the model must look as if it did not exist.
    pub fn may_use_model(&self, model: &str) -> bool {
        allows(&self.models, model)
    }

    /// Whether it may call a path.
    pub fn may_call(&self, path: &str) -> bool {
        if path.starts_with(proxy::PREFIX) {
            // What a provider has there is not known here: no entry that says more than that lets anybody in.
            let named = self.endpoints.iter().filter(|pattern| pattern.starts_with(proxy::PREFIX));
            return named.into_iter().any(|pattern| allows(std::slice::from_ref(pattern), path));
        }
        allows(&self.endpoints, path)
    }

    /// Whether it may call from an address; an unknown one is in no range.
    pub fn may_come_from(&self, address: Option<IpAddr>) -> bool {
        ip_ranges::admits(&self.ip_ranges, address)
    }

    /// Checks path and address.
    ///
    /// # Errors
    /// [`Refusal`]: a 403, since the credential itself is good.
    pub fn check_use(&self, path: &str, address: Option<IpAddr>) -> Result<(), Refusal> {
        if !self.may_come_from(address) {
            return Err(Refusal::Address);
        }
        if !self.may_call(path) {
            return Err(Refusal::Endpoint(path.to_owned()));
        }
        Ok(())
    }
}

fn allows(patterns: &[String], name: &str) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => allowed == name,
        })
}

/// Why a good credential is not enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It may not be used from the caller's address.
    #[error("address not allowed")]
    Address,
    /// It may not call this path.
    #[error("endpoint not allowed: {0}")]
    Endpoint(String),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, message) = match refusal {
            Refusal::Address => (
                "ip_not_allowed",
                "This API key may not be used from your address. Call from an address that it allows, or ask its owner \
                 to allow yours."
                    .to_owned(),
            ),
            Refusal::Endpoint(path) => (
                "endpoint_not_allowed",
                format!("This API key may not call `{path}`. Use a key that may, or ask its owner to allow it."),
            ),
        };
        Self::new(Kind::Permission, code, message).final_answer()
    }
}

/// Why a caller is not recognised. The caller is told only [`AuthError::Missing`] from everything else: what exactly is
/// wrong with a credential is of use to nobody but a guesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credential was sent.
    #[error("no credential")]
    Missing,
    /// It is neither an API key nor a token.
    #[error("malformed credential")]
    Malformed,
    /// No such key.
    #[error("unknown key")]
    Unknown,
    /// The id is known, the secret is wrong.
    #[error("wrong secret")]
    WrongSecret,
    /// It has expired.
    #[error("expired")]
    Expired,
    /// It is disabled.
    #[error("disabled")]
    Disabled,
    /// A token that is not acceptable.
    #[error("token refused: {0}")]
    Token(&'static str),
    /// A token cannot be checked: its issuer does not give its keys.
    #[error("the issuer's keys cannot be had")]
    KeysUnavailable,
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let message = match error {
            AuthError::KeysUnavailable => {
                let message = "Tokens of this issuer cannot be checked at the moment. Try again shortly.";
                return Self::new(Kind::Unavailable, "token_keys_unavailable", message);
            }
            AuthError::Missing => {
                "No API key was sent. Send it as `Authorization: Bearer <key>` or as `x-api-key: <key>`."
            }
            _ => "The API key is not valid. Check that it is complete and still in use.",
        };
        Self::new(Kind::Authentication, "invalid_api_key", message).final_answer()
    }
}

/// What a caller presents.
#[derive(Debug)]
pub enum Credential {
    /// One of our API keys.
    ApiKey(ApiKey),
    /// A JSON Web Token.
    Token(crate::secret::Secret<String>),
}

/// Finds the credential among a request's headers; `accept_x_api_key` is whether it may stand in `x-api-key`.
///
/// # Errors
/// [`AuthError::Missing`] or [`AuthError::Malformed`].
pub fn credential(headers: &HeaderMap, accept_x_api_key: bool) -> Result<Credential, AuthError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = text("authorization").and_then(|value| {
        let (scheme, credential) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
    });
    let other = || text("x-api-key").filter(|_| accept_x_api_key);
    let presented = bearer.or_else(other).filter(|text| !text.is_empty()).ok_or(AuthError::Missing)?;
    if let Some(key) = ApiKey::parse(presented) {
        return Ok(Credential::ApiKey(key));
    }
    if presented.bytes().filter(|byte| *byte == b'.').count() == 2 {
        return Ok(Credential::Token(crate::secret::Secret::new(presented.to_owned())));
    }
    Err(AuthError::Malformed)
}

/// Every text in a request's headers that may be a credential of the caller's.
pub fn presented(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    ["authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key"]
        .into_iter()
        .flat_map(|name| headers.get_all(name))
        .filter_map(|value| value.to_str().ok())
        .map(|value| value.trim().rsplit(' ').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_is_taken_from_either_header() {
        let key = api_key::compose(&[1; api_key::RANDOM_BYTES]);
        let bearer = format!("bearer  {}", key.expose());
        for (name, value) in [("authorization", bearer.as_str()), ("x-api-key", key.expose())] {
            assert!(matches!(credential(&headers(&[(name, value)]), true), Ok(Credential::ApiKey(_))), "{name}");
        }
        assert_eq!(credential(&headers(&[]), true).unwrap_err(), AuthError::Missing);
        assert_eq!(credential(&headers(&[("authorization", "Basic eDp5")]), true).unwrap_err(), AuthError::Missing);
        assert_eq!(credential(&headers(&[("x-api-key", "sk-other")]), true).unwrap_err(), AuthError::Malformed);
        assert!(matches!(credential(&headers(&[("authorization", "Bearer a.b.c")]), true), Ok(Credential::Token(_))));
        let only_x_api_key = headers(&[("x-api-key", key.expose())]);
        assert_eq!(credential(&only_x_api_key, false).unwrap_err(), AuthError::Missing);
    }

    #[test]
    fn paths_of_providers_must_be_named() {
        let principal = |endpoints: &[&str]| Principal { endpoints: list(endpoints), ..Principal::default() };
        for endpoints in [&[][..], &["*"], &["/v1/*"], &["/v1/proxy*"], &["/v1/proxy/other/*"]] {
            assert!(!principal(endpoints).may_call("/v1/proxy/openai/files"), "{endpoints:?}");
        }
        for endpoints in [["/v1/proxy/*"], ["/v1/proxy/openai/*"], ["/v1/proxy/openai/files"]] {
            assert!(principal(&endpoints).may_call("/v1/proxy/openai/files"), "{endpoints:?}");
        }
        assert!(!principal(&["/v1/proxy/openai/files"]).may_call("/v1/proxy/openai/files/1"));
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn allowed_models_are_names_or_prefixes() {
        let principal = |models: &[&str]| Principal { models: list(models), ..Principal::default() };
        assert!(principal(&[]).may_use_model("gpt-4o"));
        assert!(principal(&["gpt-4o"]).may_use_model("gpt-4o"));
        assert!(!principal(&["gpt-4o"]).may_use_model("gpt-4o-mini"));
        assert!(principal(&["gpt-*"]).may_use_model("gpt-4o-mini"));
        assert!(!principal(&["gpt-*"]).may_use_model("claude"));
    }

    #[test]
    fn a_key_may_be_bound_to_paths_and_addresses() {
        let bound = Principal {
            endpoints: list(&["/v1/chat/completions", "/v1/models*"]),
            ip_ranges: vec!["192.0.2.0/24".parse().unwrap()],
            ..Principal::default()
        };
        let inside = Some("192.0.2.9".parse().unwrap());
        assert_eq!(bound.check_use("/v1/chat/completions", inside), Ok(()));
        assert_eq!(bound.check_use("/v1/models/gpt-4o", inside), Ok(()));
        assert_eq!(bound.check_use("/v1/messages", inside), Err(Refusal::Endpoint("/v1/messages".into())));
        assert_eq!(bound.check_use("/v1/models", Some("198.51.100.1".parse().unwrap())), Err(Refusal::Address));
        assert_eq!(bound.check_use("/v1/models", None), Err(Refusal::Address), "an unknown address");
        assert_eq!(Principal::default().check_use("/v1/messages", None), Ok(()));
        for refusal in [Refusal::Address, Refusal::Endpoint("/v1/messages".into())] {
            let problem = Problem::from(refusal);
            assert_eq!((problem.status, problem.retryable), (403, Some(false)));
        }
    }

    #[test]
    fn the_answer_does_not_tell_what_is_wrong_with_a_key() {
        let told = |error: AuthError| Problem::from(error);
        let all =
            [AuthError::Malformed, AuthError::Unknown, AuthError::WrongSecret, AuthError::Expired, AuthError::Disabled];
        for error in all {
            assert_eq!(told(error), told(AuthError::Unknown));
            assert_eq!(told(error).status, 401);
        }
    }
}
