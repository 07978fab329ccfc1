//! What an endpoint beyond those of the first three dialects brings, and which path is whose.

use std::borrow::Cow;
use std::fmt::Debug;

use serde_json::Value;

use crate::completions::Completions;
use crate::directives::Directives;
use crate::http::Request;
use crate::journal::Route;
use crate::openai;
use crate::reply::{ApiError, Reply};
use crate::responses::{self, Strictness};
use crate::server::App;

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
pub fn find(path: &str) -> Option<Box<dyn Endpoint>> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let strictness = if path.starts_with("/p/") { Strictness::Open } else { Strictness::Closed };
    if let Some(endpoint) = responses::find(path, strictness) {
        return Some(Box::new(endpoint));
    }
    // `/chat/completions` is what it ends with, too.
    if path.ends_with("/completions") && !path.ends_with("/chat/completions") {
        return Some(Box::new(Completions));
    }
    None
}
