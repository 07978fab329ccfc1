//! Signing in, sessions, service tokens, one's own user.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::people::User;

/// What makes the first administrator. Works once, while there is no user.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Bootstrap {
    /// The Worker secret `BOOTSTRAP_TOKEN`.
    #[schemars(length(min = 1, max = 512))]
    pub token: String,
    /// The administrator's e-mail address.
    #[schemars(length(min = 3, max = 254))]
    pub email: String,
    /// The administrator's name.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// The administrator's password.
    #[schemars(length(min = 1, max = 256))]
    pub password: String,
}

/// E-mail address and password.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SignIn {
    /// The e-mail address.
    #[schemars(length(min = 1, max = 254))]
    pub email: String,
    /// The password.
    #[schemars(length(min = 1, max = 256))]
    pub password: String,
}

/// A refresh token.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Refresh {
    /// The refresh token that came with the last access token. It works once.
    #[schemars(length(min = 1, max = 256))]
    pub refresh_token: String,
}

/// What one signs in to get.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tokens {
    /// For `Authorization: Bearer …`; a signed JSON Web Token.
    pub access_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// Seconds until the access token ends.
    pub expires_in: u64,
    /// Makes the next access token; works once.
    pub refresh_token: String,
    /// When the session ends if it is not used, in Unix seconds.
    pub session_expires_at: u64,
    /// Whether the password must be changed before anything else works.
    pub must_change_password: bool,
    /// The session.
    pub session_id: String,
}

/// A token for calling models, made from one's own sign-in.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ModelTokenRequest {
    /// Models it may use: names, or prefixes ending in `*`. Empty: all.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub models: Vec<String>,
}

/// A token for calling models.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelToken {
    /// Takes the place of an API key.
    pub token: String,
    /// Seconds until it ends.
    pub expires_in: u64,
    /// The account that is charged.
    pub account_id: String,
}

/// Who is signed in, and what he may do.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Me {
    /// `user`, `service` or `external`.
    pub kind: String,
    /// The user's id; for a token of an external issuer, issuer and subject.
    pub id: String,
    /// The name.
    pub name: String,
    /// The user, unless an external issuer vouches.
    pub user: Option<User>,
    /// The session, if there is one.
    pub session_id: Option<String>,
    /// Permissions that hold everywhere.
    pub permissions: Vec<String>,
    /// Permissions within accounts.
    pub accounts: std::collections::BTreeMap<String, Vec<String>>,
}

/// A change of one's own user.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MeChange {
    /// The name.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
}

/// A change of one's own password. All other sessions end.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PasswordChange {
    /// The password as it is.
    #[schemars(length(min = 1, max = 256))]
    pub current: String,
    /// The password as it shall be.
    #[schemars(length(min = 1, max = 256))]
    pub new: String,
}

/// A password that somebody else sets. The user must change it at the next sign-in; all sessions end.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PasswordReset {
    /// The password.
    #[schemars(length(min = 1, max = 256))]
    pub password: String,
}

/// A session.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// The id.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// From where it was opened.
    pub ip: String,
    /// With what it was opened.
    pub user_agent: String,
    /// When it was opened, in Unix seconds.
    pub created_at: u64,
    /// When its refresh token was last used, in Unix seconds.
    pub last_used_at: u64,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
    /// When it was ended before its time, in Unix seconds.
    pub revoked_at: Option<u64>,
}

/// A service token to make.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ServiceTokenCreate {
    /// What it is for.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// When it ends, in Unix seconds; null for never.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

/// A token with which a program uses the admin API as a user.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ServiceToken {
    /// The token's public part.
    pub id: String,
    /// As whom it acts.
    pub user_id: String,
    /// What it is for.
    pub name: String,
    /// When it ends, in Unix seconds.
    pub expires_at: Option<u64>,
    /// When it was revoked, in Unix seconds.
    pub revoked_at: Option<u64>,
    /// When it was last used, in Unix seconds, to about a minute.
    pub last_used_at: Option<u64>,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
}

/// A service token that has just been made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ServiceTokenCreated {
    /// The token itself, shown only now.
    pub token: String,
    /// What is known of it.
    #[serde(flatten)]
    pub service_token: ServiceToken,
}
