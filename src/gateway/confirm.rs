//! Stage 2, its second half: the ledger's word that a good credential is still good.

use std::cell::Cell;
use std::future::Future;

use futures::TryFutureExt as _;
use futures::future::try_join;
use worker::Env;

use super::authenticate::authenticate;
use crate::auth::Principal;
use crate::config::Auth;
use crate::error::Problem;
use crate::http::Exchange;
use crate::store::keys::{self, Confirmed};

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
    let refused = Cell::new(None);
    let standing = keys::confirm(env, &principal, settings).map_err(|why| {
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
