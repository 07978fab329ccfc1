//! The platform's HTTP and the core's, translated into each other, around the route handlers.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{Either, join, join3, select};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;
use worker::{Context, Env, Headers, Request, Response, ResponseBody, Result};

use super::routes::{Route, route};
use super::{Body, Exchange, Reply, middleware};
use crate::admin;
use crate::auth::Principal;
use crate::error::{Dialect, Kind, Problem};
use crate::gateway::confirm::confirmed;
use crate::gateway::pipeline::{self, Inbound};
use crate::gateway::plan::{Listing, LoadedConfig, no_such_model};
use crate::gateway::relay::Outgoing;
use crate::gateway::reservation::Slot;
use crate::gateway::settle::{charge, settle_whole};
use crate::gateway::{key_report, passthrough, shadow, stored};
use crate::objects::call::Object;
use crate::objects::client;
use crate::objects::wire::{LimitsNow, LimitsQuery, PATIENCE_MS};
use crate::routing::board::Observation;
use crate::routing::outcome::Fault;
use crate::store::routing::saw;
use crate::store::{self, KV, health, tokens};
use crate::telemetry::{Outcome, RequestRecord, log};

/// Milliseconds since 1970. In production the clock stands still while the CPU works and moves on after I/O.
pub fn now_ms() -> u64 {
    js_sys::Date::now() as u64
}

/// Waits.
pub async fn sleep(millis: u64) {
    // `setTimeout` takes 31 bits.
    worker::Delay::from(Duration::from_millis(millis.min(0x7fff_ffff))).await;
}

/// What a future gives, or `None` if it takes longer. Dropping it cancels nothing on the platform's side: the caller
/// must abort what it was waiting for.
pub async fn within<T>(millis: u64, future: impl Future<Output = T>) -> Option<T> {
    match select(std::pin::pin!(future), std::pin::pin!(sleep(millis))).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(_) => None,
    }
}

/// Serves a request. Nothing that happens in it, a panic included, ends another one.
///
/// The work is done in a task of its own: the runtime drops this function's future when the caller leaves, but what
/// the request has cost must be settled all the same.
///
/// # Errors
/// None that the platform should show: failures are replies.
pub async fn serve(request: Request, env: Env, context: Context) -> Result<Response> {
    let started = now_ms();
    log::init(&env);
    let context = Rc::new(context);
    let (reply, replied) = oneshot::channel();
    context.wait_until(work(request, env, Rc::clone(&context), started, reply));
    // The sender is dropped unused only if building the response itself panicked.
    replied.await.unwrap_or_else(|_| Response::error("internal error", 500))
}

/// Does a request's work: hands its response over as soon as it begins, feeds its stream, settles it.
async fn work(
    request: Request,
    env: Env,
    context: Rc<Context>,
    started: u64,
    reply_to: oneshot::Sender<Result<Response>>,
) {
    let raw = Clone::clone(request.inner());
    let client = raw.signal();
    let reservation = Slot::default();
    let serving = exchange_of(request, &env, &context, started, Rc::clone(&reservation));
    let served = AssertUnwindSafe(serving).catch_unwind().await;
    let (mut exchange, mut reply, outgoing) = served.unwrap_or_else(|panic| {
        // The request's own exchange is gone with the panic. What may be logged and kept of it still counts.
        let mut exchange = read_head(&Request::from(raw), store::config::remembered(), started);
        if let Some(reservation) = reservation.borrow().as_ref() {
            reservation.complete(&mut exchange.record);
        }
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        exchange.record.error_detail =
            words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned());
        let message = "The gateway failed on this request. It has been logged under the request id.";
        let problem = Problem::new(Kind::Internal, "internal_error", message);
        let reply = middleware::before(&mut exchange).unwrap_or_else(|| problem.into());
        (exchange, reply, None)
    });
    middleware::after(&mut exchange, &mut reply);
    let response = response(&exchange, reply, outgoing.as_ref());
    let nobody_there = reply_to.send(response).is_err();
    let record = std::mem::take(&mut exchange.record);
    let (open, copy) = (exchange.in_flight.take(), exchange.copy.take());
    let renewal = exchange.renewal.take();
    let answered = async {
        let record = match outgoing {
            Some(outgoing) => outgoing.run(record, started).await,
            None => settle_whole(record, nobody_there || client.aborted(), started, now_ms()),
        };
        drop(open);
        let reserved = reservation.take();
        join(charge(&env, &exchange, &record, started, reserved), observed(&env, &exchange, &record)).await;
    };
    let copied = async {
        if let Some(copy) = copy {
            shadow::send(&env, &exchange, copy).await;
        }
    };
    let renewed = async {
        if let Some(renewal) = renewal {
            tokens::renew(&renewal).await;
        }
    };
    join3(answered, copied, renewed).await;
}

/// Tells gauges what this isolate has seen: among it what the stream came to that has just ended.
async fn observed(env: &Env, exchange: &Exchange, record: &RequestRecord) {
    let Some(config) = &exchange.config else { return };
    if let Some(begun) = exchange.begun.clone() {
        let bounds = config.config.providers.get(&begun.provider).map(|it| it.timeouts.over(config.config.timeouts));
        let theirs = |fault: &Fault| {
            bounds.is_some_and(|it| fault.is_the_callers(record.total_ms, &it, exchange.caller_patience_ms))
        };
        let fault = match record.outcome {
            Outcome::ClientClosed => Some(Fault::ClientClosed),
            _ => record.broken_off.map(|fault| if theirs(&fault) { Fault::ClientClosed } else { fault }),
        };
        saw(config, Observation { fault, total_ms: record.total_ms, at: now_ms(), ..begun });
    }
    health::sync(env, config).await;
}

async fn exchange_of(
    request: Request,
    env: &Env,
    context: &Context,
    started: u64,
    reservation: Slot,
) -> (Exchange, Reply, Option<Outgoing>) {
    let config = store::config::current(env, context).await;
    log::set_level(config.as_ref().and_then(|config| config.config.logging.level));
    let mut exchange = read_head(&request, config, started);
    exchange.reservation = reservation;
    let served = match middleware::before(&mut exchange) {
        Some(reply) => Ok((reply, None)),
        None => handle(&mut exchange, request, env, started).await,
    };
    let (reply, outgoing) = served.unwrap_or_else(|problem| (problem.into(), None));
    (exchange, reply, outgoing)
}

async fn handle(
    exchange: &mut Exchange,
    request: Request,
    env: &Env,
    started: u64,
) -> std::result::Result<(Reply, Option<Outgoing>), Problem> {
    let raw = request.inner();
    let query = request.url().ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default();
    let inbound = || Inbound { body: raw.body(), query: query.clone(), client: raw.signal(), started };
    if exchange.dialect == Dialect::Admin {
        return admin::shell::serve(exchange, &query, inbound(), env).await.map(|reply| (reply, None));
    }
    let reply = match route(&exchange.method, &exchange.path)? {
        Route::Call(api) => {
            let inbound = inbound();
            return pipeline::call(exchange, api, inbound, env).await;
        }
        Route::Proxy(address) => {
            let inbound = inbound();
            return passthrough::pass(exchange, address, inbound, env).await;
        }
        Route::Stored(wanted) => {
            let query = request.url().ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default();
            stored::serve(exchange, env, wanted, &query, inbound()).await?
        }
        Route::ListModels => {
            let (principal, ()) = confirmed(exchange, env, started, async { Ok(()) }).await?;
            list_models(exchange, &principal)
        }
        Route::GetModel(name) => {
            let (principal, ()) = confirmed(exchange, env, started, async { Ok(()) }).await?;
            get_model(exchange, &principal, &name)?
        }
        Route::Key => {
            let (principal, ()) = confirmed(exchange, env, started, async { Ok(()) }).await?;
            describe_key(exchange, env, &principal).await?
        }
        Route::Health => Reply::json(200, &json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")})),
        Route::Ready => ready(exchange, env).await,
        #[cfg(feature = "test-faults")]
        Route::Panic => deliberate_panic(),
    };
    Ok((reply, None))
}

#[cfg(feature = "test-faults")]
#[expect(clippy::panic, reason = "what a panic does is what the test build is for")]
fn deliberate_panic() -> Reply {
    panic!("provoked by a test")
}

/// Whether everything that a request needs can be reached.
async fn ready(exchange: &Exchange, env: &Env) -> Reply {
    let database = match env.d1("DB") {
        Ok(database) => database.prepare("SELECT 1").run().await.is_ok(),
        Err(_) => false,
    };
    let key_store = match env.kv(KV) {
        Ok(kv) => kv.get(crate::config::CURRENT_SNAPSHOT).text().await.is_ok(),
        Err(_) => false,
    };
    let checks = [
        ("config", exchange.config.is_some()),
        ("kv", key_store),
        ("d1", database),
        ("hub", client::hub_status(env).await.values().all(Result::is_ok)),
        ("key_hash_secret", env.secret("KEY_HASH_SECRET").is_ok()),
        ("master_secret", env.secret("MASTER_SECRET").is_ok()),
    ];
    let ready = checks.iter().all(|(_, good)| *good);
    let checks: serde_json::Map<String, serde_json::Value> =
        checks.iter().map(|(name, good)| ((*name).to_owned(), json!(if *good { "ok" } else { "failed" }))).collect();
    Reply::json(
        if ready { 200 } else { 503 },
        &json!({"status": if ready { "ready" } else { "not_ready" }, "checks": checks}),
    )
}

fn list_models(exchange: &Exchange, principal: &Principal) -> Reply {
    let Some(config) = &exchange.config else { return Reply::json(200, &json!({"object": "list", "data": []})) };
    let listings = config.listings(principal);
    let models: Vec<serde_json::Value> =
        listings.iter().map(|listing| describe(exchange.dialect, config, *listing)).collect();
    let (first, last) = (listings.first().map(|it| it.name), listings.last().map(|it| it.name));
    Reply::json(
        200,
        &match exchange.dialect {
            Dialect::OpenAi | Dialect::Admin => json!({"object": "list", "data": models}),
            Dialect::Anthropic => {
                json!({"data": models, "has_more": false, "first_id": first, "last_id": last})
            }
        },
    )
}

fn get_model(exchange: &Exchange, principal: &Principal, name: &str) -> std::result::Result<Reply, Problem> {
    let config = exchange.config.as_ref().filter(|_| principal.may_use_model(name));
    let model = config.and_then(|config| Some(describe(exchange.dialect, config, config.listing(name)?)));
    model.map(|model| Reply::json(200, &model)).ok_or_else(|| no_such_model(name))
}

/// What a key is told of itself.
async fn describe_key(exchange: &Exchange, env: &Env, principal: &Principal) -> std::result::Result<Reply, Problem> {
    let query = LimitsQuery {
        key_id: principal.key_id.clone(),
        user: principal.user.clone(),
        model: None,
        defaults: exchange.config.as_ref().map(|config| config.default_rules().to_vec()).unwrap_or_default(),
        all: false,
    };
    let ledger = Object::ledger(&principal.account);
    let limits =
        ledger.call::<LimitsNow>(env, "POST", "/limits", Some(&query), PATIENCE_MS).await.map_err(|error| {
            let (account, error) = (principal.account.as_str(), error.to_string());
            tracing::error!(target: "limits", message = "an account's ledger cannot be asked", account, error);
            let message = "The limits and the usage of this API key cannot be told at the moment. Try again shortly.";
            Problem::new(Kind::Unavailable, "limits_unavailable", message)
        })?;
    let listings = exchange.config.as_ref().map(|config| config.listings(principal)).unwrap_or_default();
    let models: Vec<&str> = listings.iter().map(|listing| listing.name).collect();
    let record = store::keys::remembered(&principal.public_id);
    let disclose = exchange.settings().limits.disclose;
    Ok(Reply::json(200, &key_report::report(principal, record.as_deref(), &models, &limits, disclose)))
}

/// A name that can be called, in the form of the caller's dialect.
fn describe(dialect: Dialect, config: &LoadedConfig, listing: Listing<'_>) -> serde_json::Value {
    let name = listing.name;
    let mut model = match dialect {
        Dialect::OpenAi | Dialect::Admin => {
            json!({"id": name, "object": "model", "created": config.created_at, "owned_by": listing.owned_by})
        }
        Dialect::Anthropic => {
            let millis = config.created_at.saturating_mul(1000) as f64;
            let created = String::from(js_sys::Date::new(&millis.into()).to_iso_string());
            json!({"type": "model", "id": name, "display_name": name, "created_at": created})
        }
    };
    if let Some(members) = model.as_object_mut() {
        members.extend(listing.description.map(|text| ("description".to_owned(), text.into())));
        let endpoints: Vec<_> = listing.apis.iter().map(crate::providers::Api::path).collect();
        members.insert("supported_endpoints".to_owned(), endpoints.into());
        members.extend(listing.context_tokens.map(|tokens| ("context_window".to_owned(), tokens.into())));
    }
    model
}

fn read_head(request: &Request, config: Option<Rc<LoadedConfig>>, started: u64) -> Exchange {
    let method = Method::from_bytes(request.inner().method().as_bytes()).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers().entries() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    let mut random = [0; 10];
    // Without randomness the id is still unique enough to find a log line by.
    let _without = getrandom::getrandom(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(started, &random).into_uuid();
    Exchange::new(method, request.path(), headers, config, id.to_string())
}

fn response(exchange: &Exchange, reply: Reply, outgoing: Option<&Outgoing>) -> Result<Response> {
    let headers = Headers::new();
    for (name, value) in &reply.headers {
        if let Ok(value) = value.to_str() {
            headers.append(name.as_str(), value)?;
        }
    }
    let body = match (reply.body, outgoing) {
        _ if exchange.method == Method::HEAD => ResponseBody::Empty,
        (_, Some(outgoing)) => ResponseBody::Stream(outgoing.readable.clone()),
        (Body::Bytes(bytes), None) => ResponseBody::Body(bytes),
        (Body::Empty | Body::Stream, None) => ResponseBody::Empty,
    };
    Ok(Response::from_body(body)?.with_status(reply.status).with_headers(headers))
}
