//! Fetches the key sets that external issuers publish, in the request that needs them.
//!
//! Isolates share only plain memory: the sets are remembered for all requests, but each request does its own fetching.
//! [`JwksCache`] bounds how often that happens.

use std::cell::RefCell;

use web_sys::AbortController;
use worker::{AbortSignal, Env, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, ResponseBody};

use super::AuthError;
use super::jwks::Jwks;
use super::jwks_cache::JwksCache;
use super::jwt::{Decision, Need};
use crate::config::{Auth, PrivateHosts, check_jwks_uri};
use crate::gateway::incoming;
use crate::http::shell::{now_ms, within};

thread_local! {
    static CACHE: RefCell<JwksCache> = RefCell::new(JwksCache::default());
}

/// Asks for a decision, fetches the keys that it needs, and asks again.
///
/// # Errors
/// The decision's; [`AuthError::KeysUnavailable`] if the keys cannot be had.
pub async fn decided<T>(
    settings: &Auth,
    env: &Env,
    mut decide: impl FnMut(&mut JwksCache) -> Result<Decision<T>, AuthError>,
) -> Result<T, AuthError> {
    // The second round knows how the fetch went, and needs no other.
    for _ in 0..2 {
        match CACHE.with_borrow_mut(&mut decide)? {
            Decision::Known(known) => return Ok(known),
            Decision::Need(Need::Jwks { uri, wanted }) => {
                let fetched = fetch(&uri, settings, env).await.inspect_err(|error| {
                    let (uri, error) = (uri.as_str(), error.as_str());
                    tracing::error!(target: "auth", message = "an issuer's keys could not be fetched", uri, error);
                });
                let now = now_ms() / 1000;
                CACHE.with_borrow_mut(|cache| cache.store(&uri, fetched.ok(), &wanted, now));
            }
        }
    }
    Err(AuthError::KeysUnavailable)
}

/// Forgets the key sets; they are fetched again when they are needed.
pub fn forget() {
    CACHE.with_borrow_mut(|cache| *cache = JwksCache::default());
}

async fn fetch(uri: &str, settings: &Auth, env: &Env) -> Result<Jwks, String> {
    let private = env.var("PRIVATE_UPSTREAM_HOSTS").map(|hosts| hosts.to_string()).unwrap_or_default();
    let url = check_jwks_uri(uri, &PrivateHosts::parse(&private)).map_err(|error| error.to_string())?;
    let controller = AbortController::new().map_err(|error| format!("{error:?}"))?;
    let read = within(settings.jwks_timeout_ms, read(url.as_str(), settings, &controller)).await;
    let document = read.unwrap_or_else(|| Err(format!("no answer within {} ms", settings.jwks_timeout_ms)));
    // Whatever is still under way has no reader any more.
    controller.abort();
    let document: serde_json::Value =
        serde_json::from_slice(&document?).map_err(|error| format!("not JSON: {error}"))?;
    Jwks::parse(&document).map_err(|error| error.to_string())
}

async fn read(url: &str, settings: &Auth, controller: &AbortController) -> Result<Vec<u8>, String> {
    let headers = Headers::new();
    headers.set("accept", "application/json").map_err(|error| error.to_string())?;
    let mut init = RequestInit::new();
    // A redirect could lead to an address that no operator allowed.
    init.with_method(Method::Get).with_headers(headers).with_redirect(RequestRedirect::Manual);
    let request = Request::new_with_init(url, &init).map_err(|error| error.to_string())?;
    let signal = AbortSignal::from(controller.signal());
    let reply = Fetch::Request(request).send_with_signal(&signal).await.map_err(|error| error.to_string())?;
    let status = reply.status_code();
    if status != 200 {
        return Err(format!("status {status}"));
    }
    match reply.into_parts().1 {
        ResponseBody::Stream(body) => {
            let read = incoming::request_body(Some(body), settings.jwks_max_bytes, settings.jwks_timeout_ms).await;
            read.map_err(|problem| problem.message)
        }
        ResponseBody::Empty | ResponseBody::Body(_) => Err("no body".to_owned()),
    }
}
