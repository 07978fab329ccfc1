//! A request for a path of a provider's own, from its first stage to its last: as a chat request's, but that its caller has
//! named who answers it, and that nothing of it is understood that need not be.

use http::Method;
use web_sys::ReadableStream;
use worker::Env;

use super::admit::{Admitted, Applicant, Place, admit};
use super::attempt::{Failed, note_attempt};
use super::confirm::identified;
use super::dispatch::{Sender, Upstream, dispatch};
use super::fault::{fault_of_reply, fault_problem, recognisable};
use super::held::Held;
use super::incoming::Incoming;
use super::limit_refusal::provider_refusal;
use super::patience::Patience;
use super::pipeline::{Caller, Inbound, configured, enter};
use super::plan::Plan;
use super::proxy::{self, Address, Named, REPLY_HEADERS, Seen};
use super::recognise::Recogniser;
use super::relay::{self, Opaque, Outgoing, Surroundings};
use super::streams;
use super::upload::Upload;
use crate::config::{Disclose, ProviderDialect};
use crate::error::Problem;
use crate::http::middleware::is_form;
use crate::http::shell::now_ms;
use crate::http::{Body, Exchange, Reply};
use crate::protocol::multipart::{self, Form};
use crate::protocol::sound;
use crate::providers::{Api, UpstreamRequest, upstream_problem};
use crate::routing::board::Observation;
use crate::routing::headroom;
use crate::routing::outcome::Fault;
use crate::store::keys::Confirmed;
use crate::store::routing::{in_flight, saw};

/// The one field of forms that is looked at.
const FIELDS: &[&str] = &["model"];

/// Passes a request on, and its reply back.
///
/// # Errors
/// A [`Problem`] to be rendered in the caller's dialect.
pub async fn pass(
    exchange: &mut Exchange,
    address: Address,
    inbound: Inbound,
    env: &Env,
) -> Result<(Reply, Option<Outgoing>), Problem> {
    let loaded = configured(exchange)?;
    let Inbound { body, query, client, started } = inbound;
    let may_have_body = !matches!(exchange.method, Method::GET | Method::HEAD);
    let taking = take(exchange, body.filter(|_| may_have_body), address.takes_sound());
    let (principal, known, taken) = identified(exchange, env, started, &loaded, taking).await?;
    let Taken { mut seen, first, upload, held } = taken;
    seen.models.extend(address.model());
    exchange.record.bytes_in = (first.len() as u64).max(upload.as_ref().and_then(|it| it.length).unwrap_or(0));
    exchange.record.model = seen.models.first().map(|named| named.name().to_owned()).unwrap_or_default();
    exchange.record.stream = seen.stream;
    let mut caller = Caller::new(principal, known);
    let method = exchange.method.clone();
    let (plan, place) = loop {
        let principal = caller.principal.clone();
        let judged = match proxy::plan(&loaded, &principal, &address, &seen, &method, started / 1000) {
            Ok(plan) => {
                enter(exchange, &plan, &principal, &seen);
                exchange.record.unpriced &= proxy::may_use_tokens(&method);
                let known = caller.known;
                let applicant = Applicant {
                    loaded: &loaded,
                    principal: &principal,
                    known,
                    plan: &plan,
                    load: &seen,
                    contenders: &[],
                };
                match admit(exchange, env, applicant).await? {
                    Admitted { confirmed: Confirmed::AsItIs, place } => break (plan, place),
                    Admitted { confirmed: Confirmed::Changed, .. } => Ok(()),
                }
            }
            Err(problem) => match caller.standing(exchange, env, &loaded).await? {
                Confirmed::AsItIs => Err(problem),
                Confirmed::Changed => Ok(()),
            },
        };
        judged?;
        caller.judge_anew(exchange, env, &loaded, started).await?;
    };
    if let Place::Full(_, breach) = place {
        exchange.record.refused_by = Some((&*breach).into());
        exchange.record.attempt_spared(plan.model_name, plan.provider_name, Fault::ProviderLimit.name());
        exchange.never_mind();
        return Err(provider_refusal(&breach));
    }
    let request = request(exchange, &plan, &address, &query, first, upload.is_some());
    let request = request.inspect_err(|_| exchange.never_mind())?;
    let sent = now_ms();
    exchange.in_flight = Some(in_flight().enter(plan.model_name));
    note_attempt(exchange, &plan, started, sent);
    let patience =
        Patience::new(plan.timeouts, seen.stream, exchange.caller_patience_ms, exchange.caller_timeout_ms, sent);
    let sender = Sender { env, client, patience, upload };
    let dispatched = dispatch(&plan, &request, exchange, sender).await;
    drop(held);
    let estimated = (seen.input_tokens > 0 || seen.may_cost_pieces()) && proxy::may_use_tokens(&method);
    let served = match dispatched {
        Ok(upstream) => serve(exchange, &plan, upstream, patience, estimated, started).await,
        Err(failed) => Err(failed),
    };
    let ended = now_ms();
    let millis = ended.saturating_sub(sent);
    let observed = Observation {
        provider: plan.provider_name.to_owned(),
        deployment: plan.model_name.to_owned(),
        total_ms: millis,
        at: ended,
        ..Observation::default()
    };
    match served {
        Ok((reply, outgoing)) => {
            exchange.record.attempt_succeeded(millis, 0);
            match &outgoing {
                Some(_) => exchange.begun = Some(observed),
                None => saw(&loaded, observed),
            }
            Ok((reply, outgoing))
        }
        Err(Failed { fault, answer, retry_after_ms, .. }) => {
            exchange.in_flight = None;
            // What else a provider has against a request says nothing of its models: the path is the caller's choice.
            if fault == Fault::Unreachable {
                saw(&loaded, Observation { fault: Some(fault), retry_after_ms, ..observed });
            }
            exchange.record.attempt_failed(fault.name(), millis, 0, None);
            (*answer).map(|reply| (reply, None))
        }
    }
}

/// A body as far as it has been taken in.
#[derive(Default)]
struct Taken {
    seen: Seen,
    /// What has come of it, as it is to be sent.
    first: Vec<u8>,
    /// What is still coming.
    upload: Option<Upload>,
    held: Held,
}

/// Takes in of a body what is needed to know its model: JSON and forms up to a bound, of anything else nothing.
fn take(
    exchange: &Exchange,
    body: Option<ReadableStream>,
    hears: bool,
) -> impl Future<Output = Result<Taken, Problem>> + use<> {
    let http = &exchange.settings().http;
    let (max_depth, hold_bytes) = (http.max_json_depth, http.multipart_hold_bytes);
    let (max_bytes, wait_ms) = (exchange.max_body_bytes, http.request_body_wait_ms);
    let content_type = exchange.header("content-type").unwrap_or_default().to_owned();
    let length = exchange.header("content-length").and_then(|length| length.trim().parse().ok());
    async move {
        let Some(body) = body else { return Ok(Taken::default()) };
        let mut incoming = Incoming::new(&body, max_bytes, wait_ms);
        let mut taken = Taken::default();
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // Some take what is called plain text for JSON.
        let may_be_json =
            matches!(essence.as_str(), "" | "application/json" | "text/plain") || essence.ends_with("+json");
        if may_be_json {
            while taken.first.len() < hold_bytes {
                let Some(piece) = incoming.next().await? else {
                    taken.seen.read(&taken.first, max_depth)?;
                    return Ok(taken);
                };
                taken.held.grow(piece.length() as usize)?;
                streams::append(&mut taken.first, &piece);
            }
            taken.seen.announce(length.unwrap_or(taken.first.len() as u64));
            taken.upload = Some(Upload { incoming, form: None, length, held: std::mem::take(&mut taken.held) });
            return Ok(taken);
        }
        let Some(boundary) = Some(&content_type).filter(|it| is_form(it)).and_then(|it| multipart::boundary(it).ok())
        else {
            if essence.starts_with("text/") {
                taken.seen.announce(length.unwrap_or(0));
            }
            taken.upload = Some(Upload { incoming, form: None, length, held: std::mem::take(&mut taken.held) });
            return Ok(taken);
        };
        let mut form = Form::new(&boundary, FIELDS);
        let is_whole = loop {
            let is_seen = !hears || form.file().len() >= sound::HEAD_BYTES;
            if (form.field("model")?.is_some() && is_seen) || form.held() >= hold_bytes {
                break false;
            }
            let Some(piece) = incoming.next().await? else { break true };
            taken.held.grow(piece.length() as usize)?;
            form.hold(&piece.to_vec())?;
        };
        let model = form.field("model")?.map(str::to_owned);
        taken.seen.models.extend(model.as_deref().map(Named::new));
        if hears {
            let bytes = if is_whole { form.held() as u64 } else { length.unwrap_or(max_bytes as u64) };
            taken.seen.announce_sound(form.file(), bytes);
        }
        let (first, pipe) = form.pipe(model);
        if is_whole {
            pipe.finish()?;
        } else {
            taken.upload = Some(Upload { incoming, form: Some(pipe), length, held: std::mem::take(&mut taken.held) });
        }
        taken.first = first;
        Ok(taken)
    }
}

/// What the provider is sent.
fn request(
    exchange: &Exchange,
    plan: &Plan<'_>,
    address: &Address,
    query: &str,
    body: Vec<u8>,
    is_upload: bool,
) -> Result<UpstreamRequest, Problem> {
    let secrets = proxy::secrets(&exchange.headers);
    let path = address.below(plan.endpoint, query, &secrets)?;
    let has_body = is_upload || !body.is_empty();
    let content_type = || exchange.header("content-type").unwrap_or("application/octet-stream").to_owned();
    Ok(UpstreamRequest {
        method: exchange.method.clone(),
        headers: proxy::passed_headers(&exchange.headers, plan.target.provider, &secrets),
        content_type: has_body.then(content_type),
        body,
        ..UpstreamRequest::get(path)
    })
}

/// What the caller gets of the provider's reply.
async fn serve(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
    upstream: Upstream,
    patience: Patience,
    estimated: bool,
    started: u64,
) -> Result<(Reply, Option<Outgoing>), Failed> {
    exchange.record.upstream_status = Some(upstream.status);
    exchange.record.upstream_ms = Some(now_ms().saturating_sub(started));
    let id = upstream.header("x-request-id").or_else(|| upstream.header("request-id"));
    exchange.record.upstream_request_id = id.unwrap_or_default().to_owned();
    let mut reply = Reply::empty(upstream.status);
    let disclosed = exchange.settings().limits.disclose != Disclose::None;
    let limits = headroom::READ.iter().filter(|_| disclosed);
    // The gateway's own limits go over these, where they have the same names.
    for name in REPLY_HEADERS.iter().chain(limits) {
        if let Some(value) = upstream.header(name) {
            reply.set(name, value);
        }
    }
    if !matches!(upstream.status, 200..=299 | 304) {
        return Err(refused(exchange, plan, &upstream, reply, patience).await);
    }
    let has_no_body = exchange.method == Method::HEAD || matches!(upstream.status, 204 | 205 | 304);
    let Some(body) = upstream.body.as_ref().filter(|_| !has_no_body) else {
        if estimated {
            exchange.record.told_or_estimated(None, 0);
        }
        return Ok((reply, None));
    };
    let is_anthropic = plan.target.provider.dialect() == ProviderDialect::Anthropic;
    let around = Surroundings {
        api: if is_anthropic { Api::Messages } else { Api::ChatCompletions },
        choices: 1,
        request_id: exchange.request_id.clone(),
        patience,
        abort: upstream.abort.clone(),
        scrubber: upstream.scrubber.clone(),
        started,
    };
    let content_type = upstream.header("content-type").unwrap_or_default();
    let passing = Opaque {
        recogniser: Recogniser::new(Some(content_type), proxy::may_use_tokens(&exchange.method)),
        estimated,
        events: content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream"),
        length: upstream.length(),
    };
    let outgoing = relay::passed(body, passing, around);
    let outgoing = outgoing.map_err(|fault| Failed::without_reply(Fault::Gateway, fault_problem(&fault)))?;
    reply.body = Body::Stream;
    Ok((reply, Some(outgoing)))
}

/// An error of the provider's: as it is, but for what is about the gateway's own credential.
async fn refused(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
    upstream: &Upstream,
    mut reply: Reply,
    patience: Patience,
) -> Failed {
    let max_bytes = exchange.settings().http.max_error_bytes;
    let body = streams::whole(upstream.body.as_ref(), patience, &upstream.abort, max_bytes).await.unwrap_or_default();
    let body = upstream.scrubber.body(body);
    let json = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let said = json.as_ref().unwrap_or(&serde_json::Value::Null);
    let provider = plan.target.provider;
    let reported = plan.dialect.read_error(upstream.status, &upstream.headers, said, provider);
    let fault = fault_of_reply(upstream.status, &reported, json.as_ref());
    exchange.record.error_code = reported.code.unwrap_or_default();
    exchange.record.error_detail = reported.message.unwrap_or_default();
    let mut problem = upstream_problem(provider, upstream.status, &upstream.headers, &body);
    if matches!(fault, Fault::Auth | Fault::QuotaExhausted) {
        problem = recognisable(problem, fault, None);
    }
    if problem.status != upstream.status {
        return Failed::without_reply(fault, problem);
    }
    reply.body = Body::Bytes(body);
    Failed { answer: Box::new(Ok(reply)), ..Failed::without_reply(fault, problem) }
}
