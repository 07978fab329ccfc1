//! Sends a probe.

use js_sys::Uint8Array;
use web_sys::AbortController;
use worker::{AbortSignal, Fetch, Headers, Method, Request, RequestInit, RequestRedirect};

use super::question::Question;
use crate::config::{PrivateHosts, Provider};
use crate::gateway::credential::{Asking, grant};
use crate::gateway::loaded::check_addresses;
use crate::gateway::plan::join_url;
use crate::http::shell::within;
use crate::providers::auth::Credentials;
use crate::providers::outbound;
use crate::secret::Secret;
use crate::store::tokens::{NoToken, PATIENCE_MS};

/// A request that can be sent.
pub struct Prepared {
    request: Request,
    credentials: Credentials,
}

/// An answer.
pub struct Sent {
    /// Its status.
    pub status: u16,
    /// Its body, if that was to be read.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The question could not be built; why, in words.
    NotSent(String),
    /// Nobody is there.
    Unreachable,
    /// It took longer than so many milliseconds.
    TooSlow(u64),
}

impl Failure {
    /// In words.
    pub fn detail(&self) -> String {
        match self {
            Self::NotSent(why) => why.clone(),
            Self::Unreachable => "It could not be reached: there is no such host, or nobody listens there.".to_owned(),
            Self::TooSlow(millis) => format!("It did not answer within {millis} ms."),
        }
    }
}

/// Builds the request.
///
/// # Errors
/// [`Failure::NotSent`].
pub async fn request(
    provider: &Provider,
    hosts: &PrivateHosts,
    question: &Question,
    credential: Option<&Secret<String>>,
) -> Result<Prepared, Failure> {
    let base = check_addresses(provider, hosts);
    let base = base.map_err(|error| Failure::NotSent(format!("Its address {error}.")))?;
    let dialect = outbound(provider.dialect());
    let headers = Headers::new();
    let set = |name: &str, value: &str| {
        let set = headers.set(name, value);
        set.map_err(|_| Failure::NotSent(format!("The header `{name}` cannot be sent.")))
    };
    set("accept", "application/json")?;
    set("user-agent", provider.user_agent.as_deref().unwrap_or(concat!("llm-gateway/", env!("CARGO_PKG_VERSION"))))?;
    for (name, value) in dialect.fixed_headers() {
        set(name, value)?;
    }
    for (name, value) in provider.headers.iter().chain(question.headers.iter().map(|(name, value)| (name, value))) {
        set(name, value)?;
    }
    let mut init = RequestInit::new();
    if let Some(body) = &question.body {
        set("content-type", "application/json")?;
        init.with_method(Method::Post).with_body(Some(Uint8Array::from(body.as_slice()).into()));
    }
    let asking = Asking {
        provider,
        dialect,
        method: if question.body.is_some() { &http::Method::POST } else { &http::Method::GET },
        url: join_url(&base, &question.path),
        headers: &headers,
        body: question.body.as_deref().unwrap_or_default(),
    };
    let nobody = AbortController::new().map_err(|_| Failure::NotSent("The request could not be built.".to_owned()))?;
    let granted = grant(asking, credential, PATIENCE_MS, &nobody.signal()).await;
    let credentials = granted.map_err(no_token)?.credentials;
    for (name, value) in &credentials.headers {
        set(name, value.expose())?;
    }
    // A redirect could lead to an address that no operator allowed.
    init.with_headers(headers).with_redirect(RequestRedirect::Manual);
    let request = Request::new_with_init(credentials.url.expose(), &init);
    let request = request.map_err(|_| Failure::NotSent("The request could not be built.".to_owned()))?;
    Ok(Prepared { request, credentials })
}

fn no_token(missing: NoToken) -> Failure {
    match missing.fault {
        fault if fault.is_about_the_credential() => {
            Failure::NotSent(format!("It has no usable credential: {}.", fault.words()))
        }
        _ => Failure::Unreachable,
    }
}

/// Sends a request, for a bounded time. Its reply's body is read only if `whole` says so.
///
/// # Errors
/// [`Failure`].
pub async fn send(prepared: Prepared, patience_ms: u64, whole: bool) -> Result<Sent, Failure> {
    let Prepared { request, credentials } = prepared;
    let controller = AbortController::new();
    let controller = controller.map_err(|_| Failure::NotSent("The request could not be built.".to_owned()))?;
    let signal = AbortSignal::from(controller.signal());
    let asked = async {
        let mut reply = Fetch::Request(request).send_with_signal(&signal).await?;
        let body = if whole { reply.bytes().await? } else { Vec::new() };
        Ok::<_, worker::Error>(Sent { status: reply.status_code(), body })
    };
    let reply = within(patience_ms, asked).await;
    // Whatever is still under way has no reader.
    controller.abort();
    match reply {
        None => Err(Failure::TooSlow(patience_ms)),
        Some(Err(error)) => {
            let error = credentials.tellable(error.to_string());
            tracing::warn!(target: "probe", message = "a provider could not be reached", error);
            Err(Failure::Unreachable)
        }
        Some(Ok(sent)) => Ok(Sent { body: credentials.scrubber.body(sent.body), ..sent }),
    }
}
