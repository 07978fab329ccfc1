//! The route table.

use http::{HeaderMap, Method};

use crate::error::{Dialect, Kind, Problem};
use crate::gateway::proxy::{self, Address};
use crate::providers::Api;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A request for a model.
    Call(Api),
    /// A path of a provider's own: `/v1/proxy/{provider}/{path…}`
    Proxy(Address),
    /// A response that a provider keeps.
    Stored(Stored),
    /// `GET /v1/models`
    ListModels,
    /// `GET /v1/models/{id}`
    GetModel(String),
    /// `GET /v1/key`
    Key,
    /// `GET /health`
    Health,
    /// `GET /ready`
    Ready,
    /// A deliberate panic, in test builds alone.
    #[cfg(feature = "test-faults")]
    Panic,
}

/// A response that a provider keeps, and what is to be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// What is to be done.
    pub action: StoredAction,
}

/// What can be done with a response that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAction {
    /// `GET /v1/responses/{id}`
    Get,
    /// `DELETE /v1/responses/{id}`
    Delete,
    /// `POST /v1/responses/{id}/cancel`
    Cancel,
    /// `GET /v1/responses/{id}/input_items`
    InputItems,
}

/// Reads what follows `/v1/responses/`, and the method by which it is called.
fn stored(method: &Method, rest: &str) -> Option<(Method, Stored)> {
    let (id, action) = match rest.split_once('/') {
        Some((id, "cancel")) => (id, StoredAction::Cancel),
        Some((id, "input_items")) => (id, StoredAction::InputItems),
        Some(_) => return None,
        None if *method == Method::DELETE => (rest, StoredAction::Delete),
        None => (rest, StoredAction::Get),
    };
    let allowed = match action {
        StoredAction::Get | StoredAction::InputItems => Method::GET,
        StoredAction::Delete => Method::DELETE,
        StoredAction::Cancel => Method::POST,
    };
    Some((allowed, Stored { id: decode(id)?, action }))
}

/// Finds the route of a request.
///
/// # Errors
/// 404 for an unknown path, 405 (with the methods that would do) for a known one.
pub fn route(method: &Method, path: &str) -> Result<Route, Problem> {
    if let Some(rest) = path.strip_prefix(proxy::PREFIX) {
        if !proxy::METHODS.contains(method) {
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            return Err(not_allowed(method, path, "one of its methods", allowed.to_owned()));
        }
        return Address::read(rest).map(Route::Proxy);
    }
    let trimmed = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
    let (allowed, route) = match trimmed {
        "/v1/chat/completions" => (Method::POST, Route::Call(Api::ChatCompletions)),
        "/v1/messages" => (Method::POST, Route::Call(Api::Messages)),
        "/v1/responses" => (Method::POST, Route::Call(Api::Responses)),
        "/v1/completions" => (Method::POST, Route::Call(Api::Completions)),
        "/v1/messages/count_tokens" => (Method::POST, Route::Call(Api::CountTokens)),
        "/v1/responses/input_tokens" => (Method::POST, Route::Call(Api::InputTokens)),
        "/v1/embeddings" => (Method::POST, Route::Call(Api::Embeddings)),
        "/v1/moderations" => (Method::POST, Route::Call(Api::Moderations)),
        "/v1/rerank" => (Method::POST, Route::Call(Api::Rerank)),
        "/v1/images/generations" => (Method::POST, Route::Call(Api::ImageGeneration)),
        "/v1/audio/speech" => (Method::POST, Route::Call(Api::Speech)),
        "/v1/images/edits" => (Method::POST, Route::Call(Api::ImageEdit)),
        "/v1/audio/transcriptions" => (Method::POST, Route::Call(Api::Transcription)),
        "/v1/audio/translations" => (Method::POST, Route::Call(Api::Translation)),
        "/v1/models" => (Method::GET, Route::ListModels),
        "/v1/key" => (Method::GET, Route::Key),
        "/health" => (Method::GET, Route::Health),
        "/ready" => (Method::GET, Route::Ready),
        #[cfg(feature = "test-faults")]
        "/test/panic" => (Method::GET, Route::Panic),
        other => {
            let model = || Some((Method::GET, Route::GetModel(other.strip_prefix("/v1/models/").and_then(decode)?)));
            let found = other.strip_prefix("/v1/responses/").and_then(|rest| stored(method, rest));
            let found = found.map(|(allowed, stored)| (allowed, Route::Stored(stored)));
            found.or_else(model).ok_or_else(|| unknown(path))?
        }
    };
    let matches = *method == allowed || (allowed == Method::GET && *method == Method::HEAD);
    if matches {
        return Ok(route);
    }
    let list = if allowed == Method::GET { "GET, HEAD, OPTIONS".into() } else { format!("{allowed}, OPTIONS") };
    Err(not_allowed(method, path, allowed.as_str(), list))
}

fn not_allowed(method: &Method, path: &str, instead: &str, allowed: String) -> Problem {
    let message = format!("{path} does not take {method}; use {instead}.");
    let mut problem = Problem::new(Kind::MethodNotAllowed, "method_not_allowed", message);
    problem.allow = Some(allowed);
    problem
}

fn unknown(path: &str) -> Problem {
    let hint = if path.starts_with("/v1/") { "" } else { " Is the base URL complete? For OpenAI SDKs it ends in /v1." };
    Problem::new(Kind::NotFound, "unknown_url", format!("There is nothing at {path}.{hint}"))
}

/// Whether a path is one whose requests may be forms, which are passed on as they come.
pub(crate) fn takes_forms(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    Api::ALL.into_iter().any(|api| api.takes_forms() && api.path() == path)
}

/// The dialect that a caller of a path speaks. Anthropic's SDK tells itself by a header on shared paths. The admin API has
/// a route table of its own ([`crate::admin::operations`]).
pub fn dialect(path: &str, headers: &HeaderMap) -> Dialect {
    if path == "/admin" || path.starts_with("/admin/") {
        Dialect::Admin
    } else if path.starts_with("/v1/messages") || headers.contains_key("anthropic-version") {
        Dialect::Anthropic
    } else {
        Dialect::OpenAi
    }
}

/// Resolves percent-encoding; model names contain slashes and colons.
pub(crate) fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(rest.next())?.checked_mul(16)?.checked_add(digit(rest.next())?)?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_find_their_route() {
        assert_eq!(route(&Method::POST, "/v1/chat/completions").unwrap(), Route::Call(Api::ChatCompletions));
        assert_eq!(route(&Method::POST, "/v1/messages/").unwrap(), Route::Call(Api::Messages));
        for api in [
            Api::Responses,
            Api::Embeddings,
            Api::Moderations,
            Api::Rerank,
            Api::ImageGeneration,
            Api::ImageEdit,
            Api::Speech,
            Api::Transcription,
            Api::Translation,
        ] {
            assert_eq!(route(&Method::POST, api.path()).unwrap(), Route::Call(api));
        }
        for (method, path, action) in [
            (Method::GET, "/v1/responses/resp_1", StoredAction::Get),
            (Method::DELETE, "/v1/responses/resp_1", StoredAction::Delete),
            (Method::POST, "/v1/responses/resp_1/cancel", StoredAction::Cancel),
            (Method::GET, "/v1/responses/resp_1/input_items", StoredAction::InputItems),
        ] {
            assert_eq!(route(&method, path).unwrap(), Route::Stored(Stored { id: "resp_1".into(), action }));
        }
        assert_eq!(route(&Method::POST, "/v1/responses/resp_1").unwrap_err().status, 405);
        assert_eq!(route(&Method::GET, "/v1/responses/resp_1/else").unwrap_err().status, 404);
        assert_eq!(route(&Method::POST, "/v1/responses/input_tokens").unwrap(), Route::Call(Api::InputTokens));
        assert_eq!(route(&Method::HEAD, "/health").unwrap(), Route::Health);
        assert_eq!(route(&Method::GET, "/v1/key").unwrap(), Route::Key);
        assert_eq!(route(&Method::GET, "/v1/models/openai%2Fgpt-4o").unwrap(), Route::GetModel("openai/gpt-4o".into()));
        assert_eq!(route(&Method::GET, "/v1/models/openai/gpt-4o").unwrap(), Route::GetModel("openai/gpt-4o".into()));
        let files = Address { provider: "o/i".into(), path: "/files/".into() };
        assert_eq!(route(&Method::DELETE, "/v1/proxy/o%2Fi/files/").unwrap(), Route::Proxy(files));
        assert_eq!(route(&Method::TRACE, "/v1/proxy/o/files").unwrap_err().status, 405);
        assert_eq!(route(&Method::GET, "/v1/proxy/o//files").unwrap_err().status, 400);
        assert_eq!(route(&Method::GET, "/v1/models/%zz").unwrap_err().status, 404);
        assert_eq!(route(&Method::GET, "/").unwrap_err().status, 404);
        let refused = route(&Method::DELETE, "/v1/chat/completions").unwrap_err();
        assert_eq!((refused.status, refused.allow.as_deref()), (405, Some("POST, OPTIONS")));
    }
}
