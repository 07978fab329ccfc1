//! Who is calling: API keys and JSON Web Tokens, both resolved to a [`Principal`].

pub mod api_key;
pub mod jwt;
pub mod rbac;
mod signatures;

use http::HeaderMap;

use crate::error::{Kind, Problem};
use api_key::ApiKey;

/// Whom a request acts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The account that is charged.
    pub account: String,
    /// The public id of the key, or `jwt:<subject>`.
    pub key_id: String,
    /// Models it may use: exact names, or prefixes ending in `*`. Empty for all.
    pub models: Vec<String>,
}

impl Principal {
    /// Whether it may use a model.
    pub fn may_use(&self, model: &str) -> bool {
        self.models.is_empty()
            || self.models.iter().any(|allowed| match allowed.strip_suffix('*') {
                Some(prefix) => model.starts_with(prefix),
                None => allowed == model,
            })
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
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let message = match error {
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

/// Finds the credential among a request's headers.
///
/// # Errors
/// [`AuthError::Missing`] or [`AuthError::Malformed`].
pub fn credential(headers: &HeaderMap) -> Result<Credential, AuthError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = text("authorization").and_then(|value| {
        let (scheme, credential) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
    });
    let presented = bearer.or_else(|| text("x-api-key")).filter(|text| !text.is_empty()).ok_or(AuthError::Missing)?;
    if let Some(key) = ApiKey::parse(presented) {
        return Ok(Credential::ApiKey(key));
    }
    if presented.bytes().filter(|byte| *byte == b'.').count() == 2 {
        return Ok(Credential::Token(crate::secret::Secret::new(presented.to_owned())));
    }
    Err(AuthError::Malformed)
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
            assert!(matches!(credential(&headers(&[(name, value)])), Ok(Credential::ApiKey(_))), "{name}");
        }
        assert_eq!(credential(&headers(&[])).unwrap_err(), AuthError::Missing);
        assert_eq!(credential(&headers(&[("authorization", "Basic eDp5")])).unwrap_err(), AuthError::Missing);
        assert_eq!(credential(&headers(&[("x-api-key", "sk-other")])).unwrap_err(), AuthError::Malformed);
        assert!(matches!(credential(&headers(&[("authorization", "Bearer a.b.c")])), Ok(Credential::Token(_))));
    }

    #[test]
    fn allowed_models_are_names_or_prefixes() {
        let principal = |models: &[&str]| Principal {
            account: String::new(),
            key_id: String::new(),
            models: models.iter().map(|model| (*model).to_owned()).collect(),
        };
        assert!(principal(&[]).may_use("gpt-4o"));
        assert!(principal(&["gpt-4o"]).may_use("gpt-4o"));
        assert!(!principal(&["gpt-4o"]).may_use("gpt-4o-mini"));
        assert!(principal(&["gpt-*"]).may_use("gpt-4o-mini"));
        assert!(!principal(&["gpt-*"]).may_use("claude"));
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
