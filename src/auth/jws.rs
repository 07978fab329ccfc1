//! Signed tokens in compact form (RFC 7515): read strictly, verified with given keys. Tokens of external issuers and
//! the gateway's own pass through here alike.
//!
//! What a token says about its own verification is not believed: the algorithm must be one that the caller allows, the
//! key must be of that algorithm, and keys come from the caller alone; `jku`, `x5u`, `x5c` and `jwk` are never looked
//! at. Whatever different readers could read differently is refused: padding, white space, stray bits, repeated members.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::AuthError;
use super::jwks::Jwks;
use super::signatures::Algorithm;
use super::strict_json;

/// Longest key id that is looked at, in bytes.
const MAX_KEY_ID_BYTES: usize = 256;

/// Header members that change what a signature covers or what the payload is. None of them is understood here.
const REFUSED_HEADERS: &[(&str, &str)] = &[
    ("crit", "critical extension"),
    ("b64", "unencoded payload"),
    ("zip", "compressed payload"),
    ("enc", "encrypted payload"),
];

/// A token that has been read and *not* verified.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// The claims, to find out whose token it says it is.
    pub claims: Map<String, Value>,
    /// The key id, if it names one.
    pub key_id: Option<String>,
    algorithm: String,
    typ: Option<String>,
    message: &'a str,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`AuthError::Token`] with the reason, for the log.
    pub fn read(token: &'a str, max_bytes: usize) -> Result<Self, AuthError> {
        let refuse = |why: &'static str| AuthError::Token(why);
        if token.len() > max_bytes {
            return Err(refuse("too long"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(refuse("not in compact form"))?;
        let (header, claims) = message.split_once('.').ok_or(refuse("not in compact form"))?;
        // A further dot is no letter of the alphabet.
        let header = object(header).ok_or(refuse("unreadable header"))?;
        let claims = object(claims).ok_or(refuse("unreadable claims"))?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| refuse("unreadable signature"))?;
        if let Some((_, why)) = REFUSED_HEADERS.iter().find(|(name, _)| header.contains_key(*name)) {
            return Err(refuse(why));
        }
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(refuse("header member of the wrong type")),
        };
        let key_id = text("kid")?;
        if key_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_KEY_ID_BYTES) {
            return Err(refuse("unusable key id"));
        }
        let algorithm = text("alg")?.ok_or(refuse("no algorithm"))?;
        Ok(Self { claims, key_id, algorithm, typ: text("typ")?, message, signature })
    }

    /// The algorithm, if it is among those allowed. Names are compared exactly: there is no `none` in any spelling.
    ///
    /// # Errors
    /// [`AuthError::Token`].
    pub fn algorithm(&self, allowed: &[Algorithm]) -> Result<Algorithm, AuthError> {
        let found = allowed.iter().copied().find(|algorithm| algorithm.name() == self.algorithm);
        found.ok_or(AuthError::Token("algorithm not allowed"))
    }

    /// The media type, in lower case and without `application/`.
    pub fn media_type(&self) -> Option<String> {
        let typ = self.typ.as_ref()?.to_ascii_lowercase();
        Some(typ.strip_prefix("application/").unwrap_or(&typ).to_owned())
    }

    /// Verifies the signature and gives the claims, which may then be believed.
    ///
    /// # Errors
    /// [`AuthError::Token`] with the reason, for the log.
    pub fn verified(self, algorithm: Algorithm, keys: &Jwks) -> Result<Map<String, Value>, AuthError> {
        if self.algorithm != algorithm.name() {
            return Err(AuthError::Token("algorithm not allowed"));
        }
        let mut candidates = keys.candidates(algorithm, self.key_id.as_deref()).peekable();
        if candidates.peek().is_none() {
            return Err(AuthError::Token("unknown key id"));
        }
        if candidates.any(|key| key.verifies(self.message.as_bytes(), &self.signature)) {
            Ok(self.claims)
        } else {
            Err(AuthError::Token("wrong signature"))
        }
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    match strict_json::parse(&URL_SAFE_NO_PAD.decode(part).ok()?)? {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
