//! What Vertex AI has of its own: tokens in place of keys, and Claude behind Google's paths.

use std::borrow::Cow;

use serde_json::Value;

use crate::directives::{Directives, percent_decode};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::Route;
use crate::reply::{ApiError, Reply};
use crate::server::App;
use crate::tokens::{Issuer, Standing};
use crate::{anthropic, gemini, openai};

/// What a body says that goes to Claude here.
const CLAUDE_VERSION: &str = "vertex-2023-10-16";

/// Refuses a request without a token that was minted here and is still good.
pub fn check_token(app: &App, request: &Request<'_>, directives: &Directives) -> Result<(), ApiError> {
    const EXPECTED: &str = "Expected OAuth 2 access token, login cookie or other valid authentication credential. See \
                            https://developers.google.com/identity/sign-in/web/devconsole-project.";
    let Some(token) = openai::bearer(request) else {
        let message = format!("Request is missing required authentication credential. {EXPECTED}");
        return Err(ApiError::new(401, message).code("CREDENTIALS_MISSING"));
    };
    let reason = match app.tokens.standing(token, Issuer::Google, directives) {
        Standing::Good => return Ok(()),
        Standing::Expired => "ACCESS_TOKEN_EXPIRED",
        Standing::Unknown => "ACCESS_TOKEN_TYPE_UNSUPPORTED",
    };
    let message = format!("Request had invalid authentication credentials. {EXPECTED}");
    Err(ApiError::new(401, message).code(reason))
}

/// What has become of a request's token, for the journal.
pub fn verdict(app: &App, request: &Request<'_>) -> String {
    let Some(token) = openai::bearer(request) else {
        return "none".to_owned();
    };
    match app.tokens.standing(token, Issuer::Google, &Directives::default()) {
        Standing::Good => "token good",
        Standing::Expired => "token expired",
        Standing::Unknown => "token unknown",
    }
    .to_owned()
}

/// Claude: `…/publishers/anthropic/models/{model}:{rawPredict|streamRawPredict}`.
#[derive(Debug)]
pub struct Claude {
    model: String,
    counts: bool,
}

impl Claude {
    pub fn find(request: &Request<'_>) -> Option<Self> {
        let (before, last) = request.path.rsplit_once("/publishers/anthropic/models/")?;
        if !before.contains("/projects/") || !before.contains("/locations/") {
            return None;
        }
        let (model, verb) = last.rsplit_once(':')?;
        let counts = model == "count-tokens" && verb == "rawPredict";
        (counts || matches!(verb, "rawPredict" | "streamRawPredict"))
            .then(|| Self { model: percent_decode(model), counts })
    }
}

impl Endpoint for Claude {
    fn route(&self) -> Route {
        Route::Vertex
    }

    fn model<'a>(&'a self, body: &'a Value) -> &'a str {
        if self.counts { body.get("model").and_then(Value::as_str).unwrap_or_default() } else { &self.model }
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        anthropic::last_user_text(body)
    }

    fn refuse_key(&self, _: &Request<'_>, _: &str) -> Option<ApiError> {
        None
    }

    fn unreadable(&self, error: &str) -> ApiError {
        ApiError::invalid(format!("Invalid JSON payload received. {error}"))
    }

    fn error_body(&self, error: &ApiError) -> String {
        // Google refuses credentials, Anthropic the rest.
        match error.status {
            401 | 403 => gemini::error_body(error),
            _ => anthropic::error_body(error, "req_vrtx_mock"),
        }
    }

    fn headers(&self, app: &App, reply: Reply) -> Reply {
        reply.header("request-id", app.id("req_vrtx_01", 22))
    }

    fn verdict(&self, app: &App, request: &Request<'_>) -> Option<String> {
        Some(verdict(app, request))
    }

    fn respond(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        check_token(app, request, directives)?;
        anthropic::respond_hosted(app, request, body, directives, CLAUDE_VERSION, (!self.counts).then_some(&self.model))
    }
}
