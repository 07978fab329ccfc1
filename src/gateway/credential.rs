//! What an upstream request carries of its provider's credential: found, minted or signed at the moment it is sent.

use http::Method;
use url::Url;
use web_sys::AbortSignal;
use worker::Headers;

use super::attempt::Failed;
use crate::config::Provider;
use crate::error::{Kind, Problem};
use crate::http::shell::now_ms;
use crate::providers::auth::minted::AuthFault;
use crate::providers::auth::scrub::Scrubber;
use crate::providers::auth::sigv4::SigV4;
use crate::providers::auth::{Credentials, Renewal, Scheme, scheme};
use crate::providers::credential_refused;
use crate::providers::outbound::Outbound;
use crate::routing::outcome::Fault;
use crate::secret::Secret;
use crate::store::tokens::{self, NoToken, TokenFault, Used};

/// Amazon's name for Bedrock in signatures.
const BEDROCK: &str = "bedrock";

/// A request that needs its credential.
pub struct Asking<'a> {
    /// Whom it goes to.
    pub provider: &'a Provider,
    /// In which dialect.
    pub dialect: &'a dyn Outbound,
    /// The method.
    pub method: &'a Method,
    /// The address.
    pub url: String,
    /// All other headers.
    pub headers: &'a Headers,
    /// The body, to the last byte.
    pub body: &'a [u8],
}

/// What it carries.
pub struct Granted {
    /// The credential, in its place.
    pub credentials: Credentials,
    /// The minted token that this is, if it is one.
    pub token: Option<Used>,
}

impl Granted {
    /// The token's renewal, if this request is to see to it.
    pub fn renewal(&self, provider: &Provider, credential: Option<&Secret<String>>) -> Option<Renewal> {
        self.token.as_ref().filter(|token| token.renews)?;
        Some(Renewal { provider: provider.clone(), credential: credential?.clone() })
    }
}

/// Gives a request its credential, within `wait_ms` and as long as `client` is there.
///
/// # Errors
/// [`NoToken`] if it cannot have it.
pub async fn grant(
    asking: Asking<'_>,
    credential: Option<&Secret<String>>,
    wait_ms: u64,
    client: &AbortSignal,
) -> Result<Granted, NoToken> {
    let Asking { provider, dialect, method, url, headers, body } = asking;
    let as_it_is = |credentials| Granted { credentials, token: None };
    let Some(credential) = credential else { return Ok(as_it_is(Credentials::none(url))) };
    let unfit = |fault| NoToken { fault: TokenFault::Told(fault), retry_after_ms: None };
    match scheme(provider, dialect.auth(provider), credential).map_err(unfit)? {
        Scheme::AsItIs(kind) => Ok(as_it_is(kind.carry(credential, url))),
        Scheme::Minted { from, to } => {
            let token = tokens::token(&from, wait_ms.min(tokens::PATIENCE_MS), client).await?;
            Ok(Granted { credentials: to.carry(&token.secret, url), token: Some(token) })
        }
        Scheme::Signed { key, region } => {
            let address = Url::parse(&url).map_err(|_| unfit(AuthFault::Setting { name: "base_url" }))?;
            let session_token = key.session_token.as_ref();
            let signer = SigV4 { access_key_id: &key.id, secret: &key.secret, session_token, region, service: BEDROCK };
            let sent: Vec<(String, String)> = headers.entries().collect();
            let signed = signer.headers(method.as_str(), &address, &sent, body, now_ms());
            // The address goes out as it was signed.
            let scrubber = Scrubber::new(std::iter::once(&key.secret).chain(session_token));
            Ok(as_it_is(Credentials::in_headers(address.into(), signed, scrubber)))
        }
    }
}

/// A request that has not got its credential, as a failed attempt.
pub fn failed(provider: &str, missing: NoToken) -> Failed {
    let NoToken { fault, retry_after_ms } = missing;
    let error = fault.words();
    tracing::error!(target: "tokens", message = "a provider's credential is of no use", provider, error);
    let (class, problem) = if fault.is_about_the_credential() {
        (Fault::Auth, credential_refused())
    } else {
        (Fault::Unreachable, unreachable())
    };
    Failed { retry_after_ms, ..Failed::without_reply(class, problem) }
}

/// What the caller is told of a provider that cannot be reached.
pub fn unreachable() -> Problem {
    let message = "The provider of this model could not be reached. Send the request again shortly.";
    Problem::new(Kind::Upstream, "upstream_unreachable", message)
}
