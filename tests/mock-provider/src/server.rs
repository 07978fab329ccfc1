//! From a request that has been read to the reply it gets.
//!
//! 1. Control requests are answered by [`crate::control`].
//! 2. The path chooses the dialect.
//! 3. Directives are collected: defaults, then the path, then the `x-mock` header, then the last user message.
//! 4. The request enters the journal.
//! 5. Credentials, then replies that are not an answer (`status`, `html`, `empty`).
//! 6. The dialect checks the request and answers.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::directives::{self, Directives};
use crate::endpoint::{self, Endpoint};
use crate::http::Request;
use crate::journal::{Arrival, Journal, Route, Ticket, Upload, unix_ms};
use crate::multipart::Form;
use crate::reply::{ApiError, Body, Reply, status_message};
use crate::tokens::Tokens;
use crate::{anthropic, control, gemini, generic, openai, responses};

/// Most tags whose failures are counted, and most prompt prefixes that are remembered. Beyond it the oldest
/// knowledge goes, all at once.
const MAX_REMEMBERED: usize = 100_000;

/// What all requests share.
#[derive(Debug)]
pub struct App {
    pub journal: Journal,
    pub tokens: Tokens,
    defaults: Directives,
    api_key: Option<String>,
    /// Requests seen for each tag with `fail_times`.
    failures: Mutex<HashMap<String, u64>>,
    /// Hashes of prompt prefixes that are in the cache.
    prefixes: Mutex<HashSet<u64>>,
    ids: AtomicU64,
    pub responses: responses::Store,
}

impl App {
    pub fn new(journal: Journal, defaults: Directives, api_key: Option<String>) -> Self {
        Self {
            journal,
            tokens: Tokens::default(),
            defaults,
            api_key,
            failures: Mutex::default(),
            prefixes: Mutex::default(),
            ids: AtomicU64::new(unix_ms() << 20),
            responses: responses::Store::default(),
        }
    }

    /// An id that no other reply has: the prefix and so many letters and digits.
    pub fn id(&self, prefix: &str, length: usize) -> String {
        const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut id = String::with_capacity(prefix.len() + length);
        id.push_str(prefix);
        // SplitMix64 over a counter: all 64 bits of the counter are in the first two words.
        let mut state = self.ids.fetch_add(1, Relaxed);
        let mut word = 0;
        for at in 0..length {
            if at % 10 == 0 {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                word ^= word >> 31;
            }
            let letter = usize::try_from(word % 62).ok().and_then(|at| LETTERS.get(at));
            id.push(letter.map_or('0', |letter| char::from(*letter)));
            word /= 62;
        }
        id
    }

    /// Notes prompt prefixes and says which of them were known.
    pub fn remember_prefixes(&self, hashes: impl Iterator<Item = u64>) -> Vec<bool> {
        let mut prefixes = lock(&self.prefixes);
        if prefixes.len() > MAX_REMEMBERED {
            prefixes.clear();
        }
        hashes.map(|hash| !prefixes.insert(hash)).collect()
    }

    /// Forgets everything that requests left behind.
    pub fn reset(&self) {
        self.journal.reset();
        self.tokens.reset();
        lock(&self.failures).clear();
        lock(&self.prefixes).clear();
        self.responses.clear();
    }

    /// Whether a request with `fail_times` is still among those that fail.
    fn still_fails(&self, tag: &str, times: u64) -> bool {
        let mut failures = lock(&self.failures);
        if failures.len() > MAX_REMEMBERED {
            failures.clear();
        }
        let seen = failures.entry(tag.to_owned()).or_insert(0);
        *seen += 1;
        *seen <= times
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose language a path speaks.
#[derive(Debug)]
enum Dialect {
    OpenAi,
    Anthropic,
    Generic,
    Other(Box<dyn Endpoint>),
}

/// A reply and what shapes it.
#[derive(Debug)]
pub struct Handled<'a> {
    pub reply: Reply,
    pub directives: Directives,
    /// None for control requests.
    pub ticket: Option<Ticket<'a>>,
}

/// Notes a form whose head has come.
pub fn open_form<'a>(app: &'a App, request: &Request<'_>, upload: &Arc<Upload>) -> Ticket<'a> {
    app.journal.open(Arrival {
        route: route(request).0,
        method: request.method,
        path: request.target,
        head: request.head,
        body: &[],
        tag: None,
        credential: None,
        upload: Some(upload),
        received: request.received,
    })
}

/// Answers a request. `opened` is its entry, if it has one already.
pub fn handle<'a>(app: &'a App, request: &Request<'_>, opened: Option<Ticket<'a>>) -> Handled<'a> {
    if request.path.starts_with("/_mock/") {
        return Handled { reply: control::handle(app, request), directives: Directives::default(), ticket: None };
    }
    let (route, dialect) = route(request);
    let body = match request.method {
        _ if let Some(form) = request.form => form.as_ref().map(Form::fields).map_err(Clone::clone),
        "POST" if request.body.is_empty() && !needs_body(&dialect) => Ok(Value::Null),
        "POST" if takes_json(&dialect) => {
            serde_json::from_slice::<Value>(request.body).map_err(|error| error.to_string())
        }
        _ => Ok(Value::Null),
    };
    let (directives, problem) = collect(app, request, &dialect, body.as_ref().unwrap_or(&Value::Null));
    let tag = directives.tag.as_deref();
    let ticket = opened.unwrap_or_else(|| {
        app.journal.open(Arrival {
            route,
            method: request.method,
            path: request.target,
            head: request.head,
            body: request.body,
            tag,
            credential: verdict(app, &dialect, request),
            upload: None,
            received: request.received,
        })
    });
    if let Some(tag) = tag {
        ticket.tag(tag);
    }
    let (directives, gated) = match (&directives.tag, directives.fail_times) {
        (Some(tag), Some(times)) if !app.still_fails(tag, times) => (directives.without_faults(), None),
        (None, Some(_)) => (directives, Some("mock directive 'fail_times' needs a tag".to_owned())),
        _ => (directives, None),
    };
    let result = match problem.or(gated) {
        Some(problem) => Err(ApiError::invalid(problem).code("mock_directive")),
        None => respond(app, request, route, &dialect, body, &directives),
    };
    let request_id = app.id("req_01", 22);
    let mut reply = match result {
        Ok(reply) => reply,
        Err(error) => {
            let json = |body| Reply::json(error.status, body);
            let reply = match &dialect {
                Dialect::OpenAi => json(openai::error_body(&error)),
                Dialect::Anthropic => json(anthropic::error_body(&error, &request_id)),
                Dialect::Generic => json(generic::error_body(&error)),
                Dialect::Other(endpoint) => endpoint.error(&error),
            };
            Reply { status: if directives.error_at_200 { 200 } else { reply.status }, ..reply }
        }
    };
    if let Some(status) = directives.status.filter(|status| *status < 400 && reply.status == 200) {
        reply.status = status;
    }
    let reply = match &dialect {
        Dialect::OpenAi => openai::headers(app, reply),
        Dialect::Anthropic => anthropic::headers(reply, request_id),
        Dialect::Generic => reply,
        Dialect::Other(endpoint) => endpoint.headers(app, reply),
    };
    Handled { reply, directives, ticket: Some(ticket) }
}

/// What the dialect says of the credential that came with a request.
fn verdict(app: &App, dialect: &Dialect, request: &Request<'_>) -> Option<String> {
    match dialect {
        Dialect::Other(endpoint) => endpoint.verdict(app, request),
        _ => None,
    }
}

fn needs_body(dialect: &Dialect) -> bool {
    match dialect {
        Dialect::Other(endpoint) => endpoint.needs_body(),
        _ => true,
    }
}

fn takes_json(dialect: &Dialect) -> bool {
    !matches!(dialect, Dialect::Other(endpoint) if !endpoint.takes_json())
}

/// Paths count by their end, so that the mock can stand for providers with another prefix.
fn route(request: &Request<'_>) -> (Route, Dialect) {
    let path = request.path.strip_suffix('/').unwrap_or(request.path);
    if let Some(endpoint) = endpoint::find(request) {
        (endpoint.route(), Dialect::Other(endpoint))
    } else if path.ends_with("/chat/completions") {
        (Route::ChatCompletions, Dialect::OpenAi)
    } else if path.ends_with("/v1/messages/count_tokens") {
        (Route::CountTokens, Dialect::Anthropic)
    } else if path.ends_with("/v1/messages") {
        (Route::Messages, Dialect::Anthropic)
    } else if path == "/generate" {
        (Route::Generate, Dialect::Generic)
    } else if path.ends_with("/models") || path.contains("/models/") {
        let anthropic = request.header("anthropic-version").is_some();
        let dialect = if anthropic { Dialect::Anthropic } else { Dialect::OpenAi };
        (Route::Models, dialect)
    } else {
        (Route::Other, Dialect::OpenAi)
    }
}

/// The directives of a request, and what is wrong with them.
fn collect(app: &App, request: &Request<'_>, dialect: &Dialect, body: &Value) -> (Directives, Option<String>) {
    let mut directives = app.defaults.clone();
    let model = match dialect {
        Dialect::Generic => body.get("engine").and_then(Value::as_str).unwrap_or_default(),
        Dialect::Other(endpoint) => endpoint.model(body),
        _ => body.get("model").and_then(Value::as_str).unwrap_or_default(),
    };
    for list in request.path.split('/').filter_map(|segment| segment.strip_prefix("mock;")) {
        if let Err(problem) = directives.apply_list(list, model) {
            return (directives, Some(problem));
        }
    }
    if let Some(list) = request.header("x-mock")
        && let Err(problem) = directives.apply_list(list, model)
    {
        return (directives, Some(problem));
    }
    let text = match dialect {
        Dialect::OpenAi => openai::last_user_text(body),
        Dialect::Anthropic => anthropic::last_user_text(body),
        Dialect::Generic => body.get("prompt").and_then(Value::as_str).map(Cow::Borrowed),
        Dialect::Other(endpoint) => endpoint.user_text(body),
    };
    let text = text.unwrap_or_default();
    for block in directives::extract(&text).1 {
        if let Err(problem) = directives.apply_block(block, model) {
            return (directives, Some(problem));
        }
    }
    (directives, None)
}

fn respond(
    app: &App,
    request: &Request<'_>,
    route: Route,
    dialect: &Dialect,
    body: Result<Value, String>,
    directives: &Directives,
) -> Result<Reply, ApiError> {
    if let Some(key) = &app.api_key {
        let refusal = match dialect {
            Dialect::OpenAi => (!openai::authorised(request, key)).then(|| openai::unauthorised(request)),
            Dialect::Anthropic => (!anthropic::authorised(request, key)).then(|| anthropic::unauthorised(request)),
            Dialect::Generic => (!openai::authorised(request, key)).then(generic::unauthorised),
            Dialect::Other(endpoint) => endpoint.refuse_key(request, key),
        };
        if let Some(refusal) = refusal.filter(|_| route != Route::Other) {
            return Err(refusal);
        }
    }
    if let Some(reply) = instead(directives) {
        return reply;
    }
    let methods = match dialect {
        Dialect::Other(endpoint) => endpoint.methods(),
        _ if route == Route::Models => &["GET", "HEAD"],
        _ => &["POST"],
    };
    if route != Route::Other && !methods.contains(&request.method) {
        return Err(ApiError::new(
            405,
            format!(
                "Not allowed to {} on {}. (HINT: Perhaps you meant to use a different HTTP method?)",
                request.method, request.path
            ),
        ));
    }
    let mut body = body.map_err(|error| match dialect {
        Dialect::OpenAi => openai::unreadable(&error),
        Dialect::Anthropic => ApiError::invalid(format!("The request body is not valid JSON: {error}")),
        Dialect::Generic => generic::unreadable(),
        Dialect::Other(endpoint) => endpoint.unreadable(&error),
    })?;
    if directives.badjson
        && let Some(fields) = body.as_object_mut()
    {
        // What is cut short is a JSON reply, whatever was asked for.
        for field in ["stream", "stream_options", "live"] {
            fields.remove(field);
        }
    }
    let reply = match (dialect, route) {
        (Dialect::Other(endpoint), _) => endpoint.respond(app, request, &body, directives),
        (_, Route::ChatCompletions) => openai::respond(app, &body, directives),
        (_, Route::Messages) => anthropic::respond(app, request, &body, directives),
        (_, Route::CountTokens) => anthropic::count_tokens(request, &body, directives),
        (_, Route::Generate) => generic::respond(request, &body, directives),
        (_, Route::Models) => models(request, dialect),
        _ => Ok(Reply::json(404, openai::unknown_url(request.method, request.path))),
    }?;
    Ok(if directives.badjson { reply.truncated() } else { reply })
}

fn models(request: &Request<'_>, dialect: &Dialect) -> Result<Reply, ApiError> {
    let id = request.path.rsplit_once("/models/").map(|(_, id)| id).filter(|id| !id.is_empty());
    let body = match (id, dialect) {
        (Some(id), _) => openai::model(&directives::percent_decode(id))?,
        (None, Dialect::Anthropic) => anthropic::models(),
        (None, _) => openai::models(),
    };
    Ok(Reply::json(200, body))
}

/// Replies that are asked for instead of an answer.
fn instead(directives: &Directives) -> Option<Result<Reply, ApiError>> {
    if let Some(status) = directives.html {
        let status = if status == 0 { directives.status.unwrap_or(502) } else { status };
        let title = format!("{status} {}", crate::reply::reason(status));
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n<body><center><h1>{title}</h1></center>\
             <hr><center>mock-provider</center></body></html>\n"
        );
        return Some(Ok(Reply { content_type: Cow::Borrowed("text/html"), ..Reply::json(status, page) }));
    }
    if let Some(status) = directives.error_status() {
        let message = directives.error_message.as_deref().unwrap_or(status_message(status));
        return Some(Err(ApiError {
            kind: directives.error_type.clone(),
            code: directives.error_code.clone(),
            param: directives.retry_delay.map(gemini::retry_info),
            ..ApiError::new(status, message)
        }));
    }
    directives.empty.then(|| Ok(Reply { body: Body::Whole(Vec::new()), ..Reply::json(200, "") }))
}
