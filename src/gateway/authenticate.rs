//! Stage 2: the credential, resolved to a principal.

use worker::Env;

use crate::auth::{self, AuthError, Credential, Principal, api_key, jwt};
use crate::config::Auth;
use crate::error::{Kind, Problem};
use crate::http::Exchange;
use crate::secret::Secret;
use crate::store::keys;

/// Finds out whom a request acts for; `now` is in milliseconds.
///
/// # Errors
/// 401 without a hint at which part was wrong; 503 if keys cannot be checked.
pub async fn authenticate(exchange: &mut Exchange, env: &Env, now: u64) -> Result<Principal, Problem> {
    let loaded = exchange.config.clone();
    let defaults = Auth::default();
    let settings = loaded.as_ref().map_or(&defaults, |loaded| &loaded.config.auth);
    let verdict = match auth::credential(&exchange.headers) {
        Err(error) => Err(error),
        Ok(Credential::Token(token)) => jwt::verify(token.expose(), &settings.issuers, now / 1000),
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
    match verdict {
        Ok(principal) => {
            exchange.record.account.clone_from(&principal.account);
            exchange.record.key_id.clone_from(&principal.key_id);
            exchange.record.user = principal.user.clone().unwrap_or_default();
            Ok(principal)
        }
        Err(error) => {
            exchange.record.error_detail = error.to_string();
            Err(error.into())
        }
    }
}
