//! Who calls the admin API: a person with an access token, a program with a service token, or somebody for whom a
//! configured issuer vouches. Sessions, users and roles are read from the database at every call, so what is withdrawn
//! is gone with the next one.

use serde::Deserialize;

use super::context::{Actor, Context};
use super::database::rows;
use super::{grants, signing_keys};
use crate::admin::operations::{Access, Op};
use crate::admin::statement::Statement;
use crate::auth::jwks::Jwks;
use crate::auth::jws::Unverified;
use crate::auth::jwt::ExternalIdentity;
use crate::auth::opaque::{Opaque, OpaqueKind, ServiceTokenRecord, check_service_token};
use crate::auth::rbac::{Grants, built_in_role};
use crate::auth::session_token::jwks_document;
use crate::auth::token::{AdminCaller, Trust, decide_admin};
use crate::auth::{AuthError, issuer_keys};
use crate::error::{Kind, Problem};

/// A service token's use is noted once in so many seconds.
const NOTE_USE_SECONDS: u64 = 60;

#[derive(Deserialize)]
struct UserRow {
    id: String,
    kind: String,
    name: String,
    status: String,
    must_change_password: u64,
}

#[derive(Deserialize)]
struct SessionRow {
    revoked_at: Option<u64>,
    expires_at: u64,
}

#[derive(Deserialize)]
struct TokenRow {
    user_id: String,
    hash: String,
    expires_at: Option<u64>,
    revoked_at: Option<u64>,
    last_used_at: Option<u64>,
}

impl Context<'_> {
    /// Finds out who calls.
    ///
    /// # Errors
    /// 401 without a hint at what was wrong; 503 if it cannot be found out.
    pub(super) async fn authenticate(&self, authorization: Option<&str>) -> Result<Actor, Problem> {
        let credential = authorization
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, credential)| credential.trim())
            .filter(|credential| !credential.is_empty());
        let Some(credential) = credential else {
            let message =
                "Sign in (POST /admin/v1/auth/sign-in) and send the access token as `Authorization: Bearer …`.";
            return Err(Problem::new(Kind::Authentication, "not_signed_in", message).final_answer());
        };
        if credential.starts_with(OpaqueKind::ApiKey.prefix()) {
            let message = "API keys call models; the admin API needs an access token or a service token.";
            return Err(Problem::new(Kind::Authentication, "wrong_credential", message).final_answer());
        }
        let actor = match Opaque::parse(OpaqueKind::Service, credential) {
            Some(token) => self.service(&token).await?,
            None => self.token(credential).await?,
        };
        actor.map_err(|error| {
            let reason = error.to_string();
            tracing::info!(target: "admin", message = "a caller was not recognised", reason, request_id = self.request_id);
            let message = "The access token is not valid. It may have ended: renew it, or sign in again.";
            Problem::new(Kind::Authentication, "invalid_token", message).final_answer()
        })
    }

    async fn service(&self, token: &Opaque) -> Result<Result<Actor, AuthError>, Problem> {
        let statement = Statement::new(
            "SELECT user_id, hash, expires_at, revoked_at, last_used_at FROM service_tokens WHERE id = ?1",
        );
        let row: Option<TokenRow> = self.db.first(statement.bind(token.id())).await?;
        let record = row.as_ref().map(|row| ServiceTokenRecord {
            hash: row.hash.clone(),
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        });
        if let Err(error) = check_service_token(token, record.as_ref(), &self.hash_secret()?, self.now()) {
            return Ok(Err(error));
        }
        let Some(row) = row else { return Ok(Err(AuthError::Unknown)) };
        if row.last_used_at.is_none_or(|at| at.saturating_add(NOTE_USE_SECONDS) <= self.now()) {
            let note = Statement::new("UPDATE service_tokens SET last_used_at = ?2 WHERE id = ?1");
            self.db.ask(&[note.bind(token.id()).bind(self.now())]).await?;
        }
        self.user_actor(&row.user_id, None).await
    }

    async fn token(&self, credential: &str) -> Result<Result<Actor, AuthError>, Problem> {
        let settings = self.configuration().auth;
        let key_id = match Unverified::read(credential, settings.max_token_bytes) {
            Ok(token) => token.key_id,
            Err(error) => return Ok(Err(error)),
        };
        let keys = signing_keys::public(&self.db, self.now_ms, key_id.as_deref()).await?;
        let own_keys = Jwks::parse(&jwks_document(&keys)).unwrap_or_default();
        let trust = Trust { settings: &settings, own_keys: &own_keys, now: self.now() };
        match issuer_keys::decided(&settings, self.env, |cache| decide_admin(credential, trust, cache)).await {
            Ok(AdminCaller::Session(session)) => self.user_actor(&session.user, Some(&session.session)).await,
            Ok(AdminCaller::External(identity)) => self.external(identity).await.map(Ok),
            Err(AuthError::KeysUnavailable) => Err(AuthError::KeysUnavailable.into()),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Somebody for whom an issuer vouches, with the roles that the configuration gives to the token's claims.
    async fn external(&self, identity: ExternalIdentity) -> Result<Actor, Problem> {
        let mut allowed = Grants::default();
        for grant in &identity.roles {
            let role = match built_in_role(&grant.role) {
                Some(role) => Some(role),
                None => grants::of_role(&self.db, &grant.role).await?,
            };
            match role {
                Some(role) => allowed.add(role, grant.account.as_deref()),
                None => {
                    let role = grant.role.as_str();
                    tracing::warn!(target: "admin", message = "the configuration grants a role that does not exist", role);
                }
            }
        }
        let id = format!("{}#{}", identity.issuer, identity.subject);
        Ok(Actor { kind: "external", name: identity.subject, id, grants: allowed, ..Actor::anonymous() })
    }

    async fn user_actor(&self, user: &str, session: Option<&str>) -> Result<Result<Actor, AuthError>, Problem> {
        let [bindings, custom] = grants::questions(user);
        let questions = [
            Statement::new("SELECT id, kind, name, status, must_change_password FROM users WHERE id = ?1").bind(user),
            bindings,
            custom,
            Statement::new("SELECT revoked_at, expires_at FROM sessions WHERE id = ?1 AND user_id = ?2")
                .bind(session.unwrap_or_default())
                .bind(user),
        ];
        let answers = self.db.ask(&questions).await?;
        let [users, bindings, custom, sessions] = answers.as_slice() else { return Ok(Err(AuthError::Unknown)) };
        let Some(row) = rows::<UserRow>(users)?.into_iter().next() else { return Ok(Err(AuthError::Unknown)) };
        if row.status != "active" {
            return Ok(Err(AuthError::Disabled));
        }
        if session.is_some() {
            let open = rows::<SessionRow>(sessions)?.into_iter().next();
            if open.is_none_or(|row| row.revoked_at.is_some() || row.expires_at <= self.now()) {
                return Ok(Err(AuthError::Disabled));
            }
        }
        Ok(Ok(Actor {
            kind: if row.kind == "service" { "service" } else { "user" },
            id: row.id,
            name: row.name,
            session: session.map(str::to_owned),
            grants: grants::of_results(bindings, custom)?,
            must_change_password: row.must_change_password != 0,
        }))
    }

    /// Whether the caller may do what the table says of the operation.
    ///
    /// # Errors
    /// 403, or 404 for an account in which the caller has nothing to do: whether it exists is none of his business.
    pub(super) fn authorise(&self) -> Result<(), Problem> {
        let operation = self.matched.operation;
        if self.actor.must_change_password
            && !matches!(operation.op, Op::GetMe | Op::ChangeMyPassword | Op::SignOut)
            && operation.access != Access::Public
        {
            let message = "Somebody else has set your password. Change it first: PUT /admin/v1/me/password.";
            return Err(Problem::new(Kind::Permission, "password_change_required", message).final_answer());
        }
        match operation.access {
            Access::Public | Access::SignedIn => Ok(()),
            Access::Global(permission) => self.require(permission, None),
            Access::Account(permission) => {
                let account = self.account();
                if self.actor.grants.allow(permission, Some(account)) {
                    return Ok(());
                }
                if self.actor.grants.within(Some(account)).is_empty() {
                    return Err(super::answer::not_found("account", account));
                }
                Err(super::context::denied(permission))
            }
        }
    }
}
