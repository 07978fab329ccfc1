//! Section `auth`: how callers of the data plane and the admin API are recognised.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::{fields, section};

section! {
    /// How callers are recognised.
    pub struct Auth {
        /// How long an isolate may use a key record before it looks again, in milliseconds.
        pub key_cache_ms: u64 = 5_000, in 0 ..= 60_000;
        /// How long an isolate remembers that there is no such key, in milliseconds.
        pub negative_cache_ms: u64 = 5_000, in 0 ..= 60_000;
        /// How old an isolate's knowledge may be that a key is not revoked, in milliseconds. 0 asks on every request.
        pub revocation_check_ms: u64 = 1_000, in 0 ..= 1_000;
        /// What happens to a request while the account's ledger cannot say whether the key is revoked.
        pub when_ledger_unreachable: WhenUnreachable = WhenUnreachable::Allow;
        /// Whether a key may be sent as `x-api-key` besides `Authorization: Bearer`.
        pub accept_x_api_key: bool = true;
        /// Longest JSON Web Token that is looked at, in bytes.
        pub max_token_bytes: usize = 8_192, in 256 ..= 65_536;
        /// By how much the clocks of issuers may differ, in seconds.
        pub leeway_seconds: u64 = 30, in 0 ..= 300;
        /// How long an issuer's fetched keys are used before they are fetched again, in seconds.
        pub jwks_cache_seconds: u64 = 3_600, in 60 ..= 86_400;
        /// The least time between two fetches of an issuer's keys, in seconds, however many tokens name unknown ones.
        pub jwks_refresh_min_seconds: u64 = 60, in 1 ..= 3_600;
        /// How long fetching an issuer's keys may take, in milliseconds.
        pub jwks_timeout_ms: u64 = 5_000, in 100 ..= 30_000;
        /// Largest key set that is read from an issuer, in bytes.
        pub jwks_max_bytes: usize = 262_144, in 1_024 ..= 1_048_576;
        /// Issuers whose JSON Web Tokens are accepted.
        pub issuers: Vec<Issuer> = Vec::new(), items 0 ..= 32;
    }
}

/// What happens while the authority cannot be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnreachable {
    /// What is known so far counts.
    #[default]
    Allow,
    /// The request is refused with a 503.
    Deny,
}

fields! {
    /// An issuer of JSON Web Tokens. Claims may be named by a dotted path, such as `realm_access.roles`.
    pub struct Issuer {
        /// The exact `iss` claim.
        pub issuer: String, chars 1 ..= 512;
        /// What the `aud` claim must contain one of.
        pub audiences: Vec<String>, items 1 ..= 16;
        /// The algorithms that the issuer signs with. A token with another one is refused whatever its key says.
        pub algorithms: Vec<JwtAlgorithm>, items 1 ..= 3;
        /// The issuer's public keys, as a JSON Web Key Set (RFC 7517). Exactly one of `jwks` and `jwks_uri` is set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub jwks: Option<Value>;
        /// Where the issuer publishes its keys. Must be `https:` and a public host, unless the deployment names the host
        /// in `PRIVATE_UPSTREAM_HOSTS`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub jwks_uri: Option<String>, chars 1 ..= 2048;
        /// What its tokens are good for: calling models, the admin API, or both.
        #[serde(default = "models_plane")]
        pub planes: Vec<Plane>, items 1 ..= 2;
        /// The claim that names the caller.
        #[serde(default = "sub")]
        pub subject_claim: String, chars 1 ..= 256;
        /// The claim that names the caller's account, unless `account` is set.
        #[serde(default = "sub")]
        pub account_claim: String, chars 1 ..= 256;
        /// The account of all its callers, in place of a claim.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub account: Option<String>, chars 1 ..= 256;
        /// The claim that names the gateway's user, where there is one. Left out: the subject alone identifies the caller.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub user_claim: Option<String>, chars 1 ..= 256;
        /// Models that its tokens may use: names, or prefixes ending in `*`; empty for all.
        #[serde(default)]
        pub models: Vec<String>, items 0 ..= 1000;
        /// The claim with a list of models that the token may use, within `models`. A token without it may use none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub models_claim: Option<String>, chars 1 ..= 256;
        /// The claim with the caller's groups or roles: a string or a list of strings, looked up in `roles`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub roles_claim: Option<String>, chars 1 ..= 256;
        /// What each value of `roles_claim` grants in the admin API.
        #[serde(default)]
        pub roles: BTreeMap<String, Vec<RoleGrant>>, entries 0 ..= 200;
        /// Claims that a token must have with exactly these values (strings, numbers or truth values).
        #[serde(default)]
        pub required_claims: BTreeMap<String, Value>, entries 0 ..= 16;
        /// The longest time since a token was issued (`iat`), in seconds. Left out: its expiry alone counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub max_age_seconds: Option<u64>, in 1 ..= 31_536_000;
    }
}

fn sub() -> String {
    "sub".to_owned()
}

fn models_plane() -> Vec<Plane> {
    vec![Plane::Models]
}

/// A role, granted everywhere or within one account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct RoleGrant {
    /// The role's name.
    pub role: String,
    /// The account within which it counts. Left out: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// A side of the gateway that a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// Calling models under `/v1`.
    Models,
    /// The admin API.
    Admin,
}

/// A signature algorithm for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}
