//! Stage 2: the credential, resolved to a principal that may do what it asks for.

use worker::Env;

use crate::auth::jwks::Jwks;
use crate::auth::token::{self, Trust};
use crate::auth::{self, AuthError, Credential, Principal, api_key, ip_ranges, issuer_keys};
use crate::config::Auth;
use crate::error::{Kind, Problem};
use crate::http::Exchange;
use crate::secret::Secret;
use crate::store::{self, keys};

/// The header in which the platform names the caller's address. It overwrites what a caller sends.
const CLIENT_ADDRESS: &str = "cf-connecting-ip";

/// Finds out whom a request acts for, and whether it may call this path from where it comes; `now` is in milliseconds.
///
/// A key that was revoked a moment ago still passes here: the account's ledger has the last word on it.
///
/// # Errors
/// 401 without a hint at which part was wrong; 403 where the credential is good, but not for this path or address; 503 if
/// it cannot be checked.
pub async fn authenticate(exchange: &mut Exchange, env: &Env, now: u64) -> Result<Principal, Problem> {
    let loaded = exchange.config.clone();
    let defaults = Auth::default();
    let settings = loaded.as_ref().map_or(&defaults, |loaded| &loaded.config.auth);
    let verdict = match auth::credential(&exchange.headers, settings.accept_x_api_key) {
        Err(error) => Err(error),
        Ok(Credential::Token(text)) => {
            let own_keys = Jwks::parse(&store::config::public_keys()).unwrap_or_default();
            let trust = Trust { settings, own_keys: &own_keys, now: now / 1000 };
            issuer_keys::decided(settings, env, |cache| token::decide_models(text.expose(), trust, cache)).await
        }
        Ok(Credential::ApiKey(key)) => {
            exchange.record.key_id = key.public_id().to_owned();
            let Ok(hash_secret) = env.secret("KEY_HASH_SECRET") else {
                return Err(Problem::new(
                    Kind::Unavailable,
                    "gateway_not_configured",
                    "This gateway cannot check API keys yet: its operator must set the Worker secret KEY_HASH_SECRET.",
                )
                .final_answer());
            };
            let hash_secret = Secret::new(hash_secret.to_string());
            let record = keys::record(env, &key, now, settings).await?;
            let verdict = api_key::check(&key, record.as_deref(), &hash_secret, now / 1000);
            match (&verdict, &record) {
                (Err(AuthError::Disabled | AuthError::Expired), Some(known))
                    if keys::confirm_refusal(env, &key, known, settings).await == Ok(keys::Confirmed::Changed) =>
                {
                    let record = keys::record(env, &key, now, settings).await?;
                    api_key::check(&key, record.as_deref(), &hash_secret, now / 1000)
                }
                _ => verdict,
            }
        }
    };
    let principal = verdict.map_err(|error: AuthError| refused(exchange, &error.to_string(), error))?;
    exchange.record.account.clone_from(&principal.account);
    exchange.record.key_id.clone_from(&principal.key_id);
    exchange.record.user = principal.user.clone().unwrap_or_default();
    let address = exchange.header(CLIENT_ADDRESS).and_then(ip_ranges::parse_address);
    let Err(refusal) = principal.check_use(&exchange.path, address) else { return Ok(principal) };
    // KV may be behind: what it forbids may be allowed by now. The ledger is asked once, so this ends.
    if keys::confirm(env, &principal, settings).await == Ok(keys::Confirmed::Changed) {
        return Box::pin(authenticate(exchange, env, now)).await;
    }
    Err(refused(exchange, &refusal.to_string(), refusal))
}

/// The log learns why; the caller learns what it can do about it.
fn refused(exchange: &mut Exchange, why: &str, error: impl Into<Problem>) -> Problem {
    exchange.record.error_detail = why.to_owned();
    error.into()
}
