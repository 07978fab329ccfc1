//! The key pairs that sign access tokens: made when one is due, kept sealed, published.

use std::cell::RefCell;

use serde::Deserialize;
use serde_json::Value;
use worker::D1Result;

use super::answer::{Answer, internal};
use super::context::{Actor, Context, nonce, random};
use super::database::{Database, rows};
use super::effects::Effect;
use super::outbox;
use super::write::{Origin, Write, commit};
use crate::admin::statement::Statement;
use crate::auth::session_token::{KeyRing, SigningKey, VerificationKey, jwks_document};
use crate::error::Problem;

/// How long an isolate uses the public keys that it knows, in milliseconds. One that it does not know makes it look at once.
const REMEMBER_MS: u64 = 60_000;

thread_local! {
    static KNOWN: RefCell<(u64, Vec<VerificationKey>)> = const { RefCell::new((0, Vec::new())) };
}

#[derive(Deserialize)]
struct Row {
    kid: String,
    public: String,
    created_at: u64,
}

#[derive(Deserialize)]
struct Sealed {
    sealed: String,
}

/// The public halves of all keys.
pub(super) const ALL: &str = "SELECT kid, public, created_at FROM signing_keys";

async fn read(db: &Database) -> Result<Vec<VerificationKey>, Problem> {
    Ok(keys_of(db.rows(Statement::new(ALL)).await?))
}

fn keys_of(rows: Vec<Row>) -> Vec<VerificationKey> {
    rows.into_iter().map(|row| VerificationKey { kid: row.kid, x: row.public, created_at: row.created_at }).collect()
}

/// The public keys; `wanted` is the one that a token names.
///
/// # Errors
/// 503 if the database does not answer.
pub(super) async fn public(db: &Database, now_ms: u64, wanted: Option<&str>) -> Result<Vec<VerificationKey>, Problem> {
    let known = KNOWN.with_borrow(|(at, keys)| (now_ms.saturating_sub(*at) < REMEMBER_MS).then(|| keys.clone()));
    if let Some(keys) = known.filter(|keys| keys.iter().any(|key| Some(key.kid.as_str()) == wanted)) {
        return Ok(keys);
    }
    let keys = read(db).await?;
    KNOWN.with_borrow_mut(|known| *known = (now_ms, keys.clone()));
    Ok(keys)
}

/// The key set that the answer to [`ALL`] makes, as it is published.
///
/// # Errors
/// 500 if it is not what the program expects.
pub(super) fn published(answer: &D1Result) -> Result<Value, Problem> {
    Ok(jwks_document(&keys_of(rows(answer)?)))
}

impl Context<'_> {
    /// The key that signs now. A new one is made when it is due, and old ones go when no token can need them any more.
    ///
    /// # Errors
    /// 503 if the database does not answer, or a key cannot be unsealed.
    pub(super) async fn signing_key(&self) -> Result<SigningKey, Problem> {
        let sessions = self.sessions();
        let longest = sessions.access_token_seconds.max(sessions.model_token_seconds);
        let mut ring = KeyRing::new(read(&self.db).await?);
        if ring.due(self.now(), sessions.signing_key_rotation_seconds) {
            self.rotate(&ring, longest).await?;
            ring = KeyRing::new(read(&self.db).await?);
        }
        let sealer = self.sealer()?;
        let Some(public) = ring.signing(self.now()) else { return Err(internal("there is no signing key")) };
        let sealed = Statement::new("SELECT sealed FROM signing_keys WHERE kid = ?1").bind(&public.kid);
        let Some(Sealed { sealed }) = self.db.first(sealed).await? else {
            return Err(internal("the signing key is gone"));
        };
        SigningKey::open(public, &sealed, &sealer).map_err(|error| internal(&format!("the signing key: {error}")))
    }

    async fn rotate(&self, ring: &KeyRing, longest_token_seconds: u64) -> Result<(), Problem> {
        let key = SigningKey::generate(random()?, self.now());
        let sealer = self.sealer()?;
        let sealed = key.seal(&sealer, nonce()?).map_err(|error| internal(&error.to_string()))?;
        let public = key.public();
        let newest = ring.keys().first().map(|newest| newest.kid.clone()).unwrap_or_default();
        let mut write = Write::new("signing_keys:create", "signing_key", &public.kid)
            .creates(&public.jwk())
            // Only one of those who find a key due at the same time makes one.
            .with(
                Statement::new(
                    "INSERT INTO guards SELECT 'rotated' WHERE ?1 <> coalesce( \
                     (SELECT kid FROM signing_keys ORDER BY created_at DESC, kid DESC LIMIT 1), '')",
                )
                .bind(newest),
            )
            .with(
                Statement::new("INSERT INTO signing_keys (kid, public, sealed, created_at) VALUES (?1, ?2, ?3, ?4)")
                    .bind(&public.kid)
                    .bind(&public.x)
                    .bind(sealed)
                    .bind(public.created_at),
            )
            .then(Effect::SigningKeys);
        for spent in ring.spent(self.now(), longest_token_seconds) {
            write = write.with(Statement::new("DELETE FROM signing_keys WHERE kid = ?1").bind(spent));
        }
        let origin =
            Origin { ip: &self.ip, user_agent: &self.user_agent, request_id: &self.request_id, now_ms: self.now_ms };
        match commit(&self.db, &sealer, &Actor::system(), &origin, &write, Vec::new()).await {
            Ok(pending) => {
                if let Err(error) = outbox::deliver(self.env, &self.db, &pending).await {
                    tracing::error!(target: "admin", message = "a signing key has not been published yet", error);
                }
                Ok(())
            }
            // Somebody else has made one.
            Err(problem) if problem.status == 412 => Ok(()),
            Err(problem) => Err(problem),
        }
    }
}

/// The public keys that access tokens are signed with.
pub(super) async fn jwks(context: &Context<'_>) -> Result<Answer, Problem> {
    Answer::ok(&jwks_document(&read(&context.db).await?))
}
