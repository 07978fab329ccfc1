//! What an endpoint beyond those of the first three dialects brings, and which path is whose.

use std::borrow::Cow;
use std::fmt::Debug;

use serde_json::Value;

use crate::azure;
use crate::baidu;
use crate::bedrock::Bedrock;
use crate::cohere;
use crate::completions::Completions;
use crate::directives::Directives;
use crate::gemini::Gemini;
use crate::http::Request;
use crate::journal::Route;
use crate::openai;
use crate::presets;
use crate::reply::{ApiError, Reply};
use crate::responses::{self, Strictness};
use crate::server::App;
use crate::side;
use crate::tokens::{self, TokenEndpoint};
use crate::vertex;

/// One endpoint in the words of one provider. What is not said otherwise is as at OpenAI.
pub trait Endpoint: Debug {
    /// Under which name its requests are counted.
    fn route(&self) -> Route;

    fn methods(&self) -> &'static [&'static str] {
        &["POST"]
    }

    /// Whether a POST without a body is a mistake.
    fn needs_body(&self) -> bool {
        true
    }

    /// Whether the body of a request is JSON.
    fn takes_json(&self) -> bool {
        true
    }

    /// The model that is asked for.
    fn model<'a>(&'a self, body: &'a Value) -> &'a str {
        body.get("model").and_then(Value::as_str).unwrap_or_default()
    }

    /// The text in which directives stand.
    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        openai::last_user_text(body)
    }

    /// The refusal of a request that does not bring this key.
    fn refuse_key(&self, request: &Request<'_>, key: &str) -> Option<ApiError> {
        (!openai::authorised(request, key)).then(|| openai::unauthorised(request))
    }

    /// The refusal of a body that is no JSON.
    fn unreadable(&self, error: &str) -> ApiError {
        openai::unreadable(error)
    }

    fn error_body(&self, error: &ApiError) -> String {
        openai::error_body(error)
    }

    /// An error as a reply.
    fn error(&self, error: &ApiError) -> Reply {
        Reply::json(error.status, self.error_body(error))
    }

    /// What is to be said of the request's credential in the journal.
    fn verdict(&self, _: &App, _: &Request<'_>) -> Option<String> {
        None
    }

    /// Adds the headers that every reply has.
    fn headers(&self, app: &App, reply: Reply) -> Reply {
        openai::headers(app, reply)
    }

    /// Answers a request whose directives are known.
    fn respond(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError>;
}

/// The endpoint a path names, if it is none of the first three dialects'. Paths count by their end, so that the
/// mock can stand for providers with another prefix.
pub fn find(request: &Request<'_>) -> Option<Box<dyn Endpoint>> {
    if let Some(issuer) = tokens::issuer(request.path) {
        return Some(Box::new(TokenEndpoint(issuer)));
    }
    if let Some(gemini) = Gemini::find(request) {
        return Some(Box::new(gemini));
    }
    if let Some(claude) = vertex::Claude::find(request) {
        return Some(Box::new(claude));
    }
    if let Some(bedrock) = Bedrock::find(request) {
        return Some(Box::new(bedrock));
    }
    let path = request.path.strip_suffix('/').unwrap_or(request.path);
    if let Some(endpoint) = baidu::find(path) {
        return Some(Box::new(endpoint));
    }
    if let Some(endpoint) = azure::find(path) {
        return Some(Box::new(endpoint));
    }
    if let Some(endpoint) = presets::find(path) {
        return Some(Box::new(endpoint));
    }
    if let Some(endpoint) = responses::find(path, Strictness::Closed) {
        return Some(Box::new(endpoint));
    }
    if let Some(endpoint) = cohere::find(path) {
        return Some(Box::new(endpoint));
    }
    if let Some(endpoint) = side::find(path) {
        return Some(endpoint);
    }
    // `/chat/completions` is what it ends with, too.
    if path.ends_with("/completions") && !path.ends_with("/chat/completions") {
        return Some(Box::new(Completions));
    }
    None
}
