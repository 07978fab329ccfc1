//! Stage 5: the upstream request.

mod ai;

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use futures::future::{Either, select};
use http::HeaderMap;
use js_sys::{Array, Uint8Array};
use web_sys::{AbortController, AbortSignal, ReadableStream};
use worker::{Env, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, Response, ResponseBody};

use super::attempt::Failed;
use super::credential::{self, Asking, Granted, grant};
use super::fault::fault_problem;
use super::patience::Patience;
use super::plan::{Lane, Plan, join_url};
use super::proxy::REPLY_HEADERS;
use super::upload::{Sending, Stopped, Upload};
use crate::config::{AuthMethod, ProviderDialect, may_be_forwarded};
use crate::error::{Kind, Problem};
use crate::http::Exchange;
use crate::http::shell::{now_ms, within};
use crate::protocol::chat::ReplyFault;
use crate::providers::UpstreamRequest;
use crate::providers::auth::scrub::Scrubber;
use crate::providers::outbound::Serves;
use crate::routing::headroom;
use crate::routing::outcome::Fault;
use crate::store::credentials;
use crate::store::tokens::Used;

/// Headers of the caller's that reach a provider which speaks the caller's dialect. Everything else stays here:
/// credentials above all, and whatever tells about the caller.
const FORWARDED: &[&str] = &["anthropic-beta", "anthropic-version", "openai-beta", "idempotency-key"];

/// Where Bedrock tells how much went in, for models whose replies do not.
pub const BEDROCK_INPUT_TOKENS: &str = "x-amzn-bedrock-input-token-count";

/// Headers of the provider's reply that are of use to the gateway or the caller, besides those that tell of limits.
const READ: &[&str] = &[
    "content-type",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-request-id",
    "request-id",
    "content-length",
    "content-encoding",
    BEDROCK_INPUT_TOKENS,
];

/// A reply that has begun.
pub struct Upstream {
    /// Its status.
    pub status: u16,
    /// Those of its headers that matter.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Option<ReadableStream>,
    /// Ends it.
    pub abort: UpstreamAbort,
    /// The minted token that it was asked with.
    pub token: Option<Used>,
    /// Takes the credential that it was asked with out of what it says.
    pub scrubber: Scrubber,
}

impl Upstream {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// How many bytes its body has, if it says so. What the runtime has unpacked has another length than announced.
    pub fn length(&self) -> Option<u64> {
        let is_packed = self.header("content-encoding").is_some_and(|coding| coding != "identity");
        self.header("content-length").filter(|_| !is_packed)?.trim().parse().ok()
    }
}

/// Ends an upstream request: by itself when the caller leaves, or when told to.
#[derive(Clone)]
pub struct UpstreamAbort {
    controller: AbortController,
    client: AbortSignal,
}

impl UpstreamAbort {
    /// Ends the request; the provider stops generating, and billing.
    pub fn abort(&self) {
        self.controller.abort();
    }

    /// Whether the caller has left.
    pub fn client_closed(&self) -> bool {
        self.client.aborted()
    }
}

/// Who sends a request, and how.
pub struct Sender<'a> {
    /// The way to credentials.
    pub env: &'a Env,
    /// Fires when the caller leaves.
    pub client: AbortSignal,
    /// The time bounds.
    pub patience: Patience,
    /// What of the body is still coming.
    pub upload: Option<Upload>,
}

/// Sends the request and waits for the reply to begin.
///
/// # Errors
/// [`Failed`] if the provider cannot be reached (502) or takes too long (504), if the caller's body does not come as it
/// should, or if nothing could be sent.
pub async fn dispatch(
    plan: &Plan<'_>,
    request: &UpstreamRequest,
    exchange: &mut Exchange,
    sender: Sender<'_>,
) -> Result<Upstream, Failed> {
    let Sender { env, client, patience, upload } = sender;
    let is_bound = plan.target.provider.dialect() == ProviderDialect::WorkersAi && plan.lane != Lane::Proxy;
    let ai = is_bound.then(|| ai::binding(env)).transpose()?;
    if upload.is_some() && plan.target.provider.auth.as_ref().is_some_and(|auth| auth.method == AuthMethod::SigV4) {
        return Err(Failed::without_reply(Fault::BadRequest, not_signable()));
    }
    let headers = upstream_headers(plan, request, exchange)?;
    let Granted { credentials, token } = granted(plan, request, &headers, exchange, env, &client, patience).await?;
    for (name, value) in &credentials.headers {
        set(&headers, name, value.expose())?;
    }
    let internal = |error: String| {
        tracing::error!(target: "dispatch", message = "an upstream request could not be built", error);
        not_built()
    };
    let (body, sending) = match upload {
        Some(upload) => {
            let begun = upload.begin(request.body.clone());
            let (readable, sending) = begun.map_err(|error| internal(format!("{error:?}")))?;
            (Some(readable.into()), Some(sending))
        }
        None => (request.content_type.is_some().then(|| Uint8Array::from(request.body.as_slice()).into()), None),
    };
    let mut init = RequestInit::new();
    init.with_method(Method::from(request.method.as_str().to_owned()))
        .with_headers(headers)
        .with_body(body)
        // A redirect could lead to an address that no operator allowed.
        .with_redirect(RequestRedirect::Manual);
    let outgoing = Request::new_with_init(credentials.url.expose(), &init);
    let outgoing = outgoing.map_err(|error| internal(credentials.tellable(error.to_string())))?;

    let controller = AbortController::new().map_err(|error| internal(format!("{error:?}")))?;
    let signals = Array::of2(&client, &controller.signal());
    let abort = UpstreamAbort { controller, client };
    let signal = worker::AbortSignal::from(AbortSignal::any(&signals));
    let sent = async {
        match ai {
            Some(ai) => ai::run(ai, plan.target.upstream_model, &request.body, &signal).await,
            None => Fetch::Request(outgoing).send_with_signal(&signal).await,
        }
    };
    let reply = match reply_to(sent, sending, patience, &abort).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => {
            exchange.record.error_detail = credentials.tellable(error.to_string());
            // The runtime has the same words for a connection that was refused and for one that was lost.
            let fault = if abort.client_closed() { Fault::ClientClosed } else { Fault::Unreachable };
            return Err(Failed::without_reply(fault, credential::unreachable()));
        }
        Err(Missed::Body(problem)) => {
            abort.abort();
            let fault = if abort.client_closed() { Fault::ClientClosed } else { Fault::BadRequest };
            return Err(Failed::without_reply(fault, problem));
        }
        Err(Missed::Late(fault)) => {
            abort.abort();
            return Err(too_late(fault));
        }
    };
    let mut headers = HeaderMap::new();
    let of_paths: &[&[&str]] = if plan.lane == Lane::Proxy { &[REPLY_HEADERS] } else { &[] };
    for name in READ.iter().chain(headroom::READ).chain(of_paths.iter().copied().flatten()) {
        if let Ok(Some(value)) = reply.headers().get(name)
            && let Ok(value) = credentials.scrubber.text(value).parse()
        {
            headers.insert(*name, value);
        }
    }
    let status = reply.status_code();
    let body = match reply.into_parts().1 {
        ResponseBody::Stream(stream) => Some(stream),
        ResponseBody::Empty | ResponseBody::Body(_) => None,
    };
    Ok(Upstream { status, headers, body, abort, token, scrubber: credentials.scrubber })
}

/// A reply that has not begun in time.
fn too_late(fault: ReplyFault) -> Failed {
    let (class, fault) = match fault {
        ReplyFault::Stalled { millis } => (Fault::TooSlow, ReplyFault::TooSlow { millis }),
        other => (Fault::TimedOut, other),
    };
    Failed::without_reply(class, fault_problem(&fault))
}

/// Why no reply has begun.
enum Missed {
    /// It took too long.
    Late(ReplyFault),
    /// The caller's body did not come as it should.
    Body(Problem),
}

/// Waits for the reply to begin, while what is still to be sent of the request is sent.
async fn reply_to(
    reply: impl Future<Output = worker::Result<Response>>,
    sending: Option<Sending>,
    patience: Patience,
    abort: &UpstreamAbort,
) -> Result<worker::Result<Response>, Missed> {
    let mut reply = std::pin::pin!(reply);
    let mut patience = patience;
    if let Some(sending) = sending {
        let left = patience.left(now_ms());
        match within(left, select(&mut reply, sending)).await {
            None => return Err(Missed::Late(patience.next(now_ms(), None).1)),
            Some(Either::Left((reply, sending))) => {
                go_on_sending(sending, abort.clone());
                return Ok(reply);
            }
            Some(Either::Right((Err(Stopped::Caller(problem)), _))) => return Err(Missed::Body(problem)),
            // Why a provider takes no more its reply will say.
            Some(Either::Right((Ok(()) | Err(Stopped::Provider), _))) => patience = patience.from_now(now_ms()),
        }
    }
    let (wait, fault) = patience.next(now_ms(), None);
    within(wait, reply).await.ok_or(Missed::Late(fault))
}

/// A reply has begun before the body has come to its end: what is left of it is sent meanwhile.
fn go_on_sending(sending: Sending, abort: UpstreamAbort) {
    wasm_bindgen_futures::spawn_local(async move {
        if let Ok(Ok(())) | Ok(Err(Stopped::Provider)) = AssertUnwindSafe(sending).catch_unwind().await {
            return;
        }
        abort.abort();
    });
}

/// A request that the gateway itself cannot write.
fn not_built() -> Failed {
    let message = "The request to the provider could not be built.";
    Failed::without_reply(Fault::Gateway, Problem::new(Kind::Internal, "internal_error", message))
}

/// A body that is still coming cannot be signed.
fn not_signable() -> Problem {
    let message = "Requests to this provider are signed over their whole body. Send one that is announced as shorter, \
                   by a content-length.";
    Problem { status: 413, code: "request_too_large".to_owned(), ..Problem::invalid("body", message) }
}

/// The request's address, and what it carries of its provider's credential.
async fn granted(
    plan: &Plan<'_>,
    request: &UpstreamRequest,
    headers: &Headers,
    exchange: &mut Exchange,
    env: &Env,
    client: &AbortSignal,
    patience: Patience,
) -> Result<Granted, Failed> {
    let provider = plan.target.provider;
    let secret = provider.credential.as_deref().map(|name| credentials::resolve(env, name));
    let secret = secret.transpose().map_err(|error| {
        tracing::error!(target: "dispatch", message = "a provider's credential is not to be had", error);
        let message =
            "The provider of this model has no credential in this deployment. Tell the operator of the gateway.";
        let problem = Problem::new(Kind::Unavailable, "provider_unavailable", message).final_answer();
        Failed::without_reply(Fault::Auth, problem)
    })?;
    let asking = Asking {
        provider,
        dialect: plan.dialect,
        method: &request.method,
        url: join_url(plan.endpoint, &request.path),
        headers,
        body: &request.body,
    };
    let (wait, fault) = patience.next(now_ms(), None);
    let granted = grant(asking, secret.as_ref(), wait, client).await.map_err(|missing| {
        exchange.record.error_detail = missing.fault.words();
        match missing.retry_after_ms {
            _ if client.aborted() => {
                Failed { fault: Fault::ClientClosed, ..credential::failed(plan.provider_name, missing) }
            }
            None if patience.next(now_ms(), None).0 == 0 => too_late(fault),
            _ => credential::failed(plan.provider_name, missing),
        }
    })?;
    if let Some(renewal) = granted.renewal(provider, secret.as_ref()) {
        exchange.renewal = Some(renewal);
    }
    Ok(granted)
}

fn set(headers: &Headers, name: &str, value: &str) -> Result<(), Failed> {
    headers.set(name, value).map_err(|error| {
        let error = error.to_string();
        tracing::error!(target: "dispatch", message = "a header cannot be sent", name, error);
        not_built()
    })
}

fn upstream_headers(plan: &Plan<'_>, request: &UpstreamRequest, exchange: &Exchange) -> Result<Headers, Failed> {
    let provider = plan.target.provider;
    let headers = Headers::new();
    let set = |name: &str, value: &str| set(&headers, name, value);
    if let Some(content_type) = &request.content_type {
        set("content-type", content_type)?;
    }
    set("user-agent", provider.user_agent.as_deref().unwrap_or(concat!("llm-gateway/", env!("CARGO_PKG_VERSION"))))?;
    for (name, value) in plan.dialect.fixed_headers() {
        set(name, value)?;
    }
    if plan.serves == Serves::Natively {
        for name in FORWARDED {
            if let Some(value) = exchange.header(name) {
                set(name, value)?;
            }
        }
    }
    for name in exchange.settings().http.forward_headers.iter().chain(&provider.forward_headers) {
        if let Some(value) = exchange.header(name).filter(|_| may_be_forwarded(name)) {
            set(name, value)?;
        }
    }
    for (name, value) in &provider.headers {
        set(name, value)?;
    }
    for (name, value) in &request.headers {
        set(name, value)?;
    }
    Ok(headers)
}
