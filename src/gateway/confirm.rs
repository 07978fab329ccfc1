//! Stage 2, its second half: the ledger's word that a good credential is still good.

use std::cell::Cell;
use std::future::Future;

use futures::TryFutureExt as _;
use futures::future::try_join;
use worker::Env;

use super::asking::is_announced;
use super::authenticate::authenticate;
use super::plan::LoadedConfig;
use crate::auth::Principal;
use crate::config::Auth;
use crate::error::Problem;
use crate::http::Exchange;
use crate::http::shell::now_ms;
use crate::store::keys::{self, Confirmed, Known};
use crate::store::standing::Refused;

/// Finds out whom a request acts for, and has its ledger confirm it while something else is done that the request needs.
/// `now` is in milliseconds.
///
/// # Errors
/// As [`authenticate`]; 401 if the key has been revoked, 403 if the account is suspended, 503 if that cannot be told and
/// the configuration wants certainty; or whatever `meanwhile` fails with, if that fails first.
pub async fn confirmed<T>(
    exchange: &mut Exchange,
    env: &Env,
    now: u64,
    meanwhile: impl Future<Output = Result<T, Problem>>,
) -> Result<(Principal, T), Problem> {
    let principal = authenticate(exchange, env, now).await?;
    let settings = exchange.config.clone();
    let defaults = Auth::default();
    let settings = settings.as_ref().map_or(&defaults, |loaded| &loaded.config.auth);
    let asked = principal.clone();
    let standing = keys::confirm(env, &asked, settings);
    both(exchange, env, now, principal, standing, meanwhile).await
}

/// As [`confirmed`], for a request that its ledger is going to be asked about anyway: the caller's standing is then found
/// out along with that. The result says what is known of it by now.
///
/// # Errors
/// As [`confirmed`].
pub async fn identified<T>(
    exchange: &mut Exchange,
    env: &Env,
    now: u64,
    loaded: &LoadedConfig,
    meanwhile: impl Future<Output = Result<T, Problem>>,
) -> Result<(Principal, Known, T), Problem> {
    let principal = authenticate(exchange, env, now).await?;
    let settings = &loaded.config.auth;
    let known = keys::known(&principal, settings, now_ms());
    if let Some(Err(refused)) = known.standing {
        return Err(told(exchange, refused));
    }
    if known.standing.is_some() || is_announced(loaded, known.limited) {
        return Ok((principal, known, meanwhile.await?));
    }
    let asked = principal.clone();
    let standing = keys::ask(env, &asked, settings);
    let (principal, value) = both(exchange, env, now, principal, standing, meanwhile).await?;
    let known = keys::known(&principal, settings, now_ms());
    Ok((principal, known, value))
}

async fn both<T>(
    exchange: &mut Exchange,
    env: &Env,
    now: u64,
    principal: Principal,
    standing: impl Future<Output = Result<Confirmed, Refused>>,
    meanwhile: impl Future<Output = Result<T, Problem>>,
) -> Result<(Principal, T), Problem> {
    let refused = Cell::new(None);
    let standing = standing.map_err(|why| {
        refused.set(Some(why));
        Problem::from(why)
    });
    let both = try_join(standing, meanwhile).await;
    if let Some(why) = refused.get() {
        exchange.record.error_detail = why.to_string();
    }
    let (standing, value) = both?;
    let principal = match standing {
        Confirmed::AsItIs => principal,
        Confirmed::Changed => authenticate(exchange, env, now).await?,
    };
    Ok((principal, value))
}

/// The refusal of a caller; the log learns why.
pub fn told(exchange: &mut Exchange, refused: Refused) -> Problem {
    exchange.record.error_detail = refused.to_string();
    refused.into()
}
