//! The OpenAI Chat Completions dialect.
//!
//! Requests are checked as the real API checks them, with one exception: unknown fields are accepted, because
//! tests want to see in the journal that they survived the way.

mod check;
mod say;

use std::borrow::Cow;

use serde_json::Value;

pub use self::check::{
    check, check_bool, check_decimal, check_image, check_integer, check_stop, check_strict, invalid_value, is_base64,
    missing, schema_error, wrong_type,
};
pub use self::say::{ARGUMENT_BYTES, Call, Head, Said, arguments, mid_stream_error, say, stream, whole};
use crate::answer::{Conversation, Limits, Want};
use crate::directives::{self, Directives};
use crate::http::Request;
use crate::reply::{ApiError, Reply, json_string};
use crate::server::App;

/// Models that `/v1/models` lists. Requests may name any model.
pub const MODELS: [&str; 3] = ["mock-large", "mock-small", "mock-reasoner"];
/// When the listed models were made, in seconds since 1970.
const MODELS_CREATED: u64 = 1_735_689_600;

/// A request that passed the checks.
pub struct ChatRequest<'a> {
    pub model: &'a str,
    pub messages: &'a [Value],
    pub stream: bool,
    pub include_usage: bool,
    pub choices: usize,
    pub limits: Limits,
    pub tools: Vec<(&'a str, &'a Value)>,
    pub forbidden: bool,
    pub forced: bool,
    pub parallel: bool,
    pub want: Want<'a>,
}

/// Answers a request whose directives are known.
pub fn respond(app: &App, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
    let request = check(body)?;
    let conversation = converse(&request);
    let said = say(app, &request, &conversation, directives);
    let head = Head::new(app, &request);
    let reply = if request.stream {
        Reply::stream("text/event-stream; charset=utf-8", stream(&request, &said, &head, directives))
    } else {
        Reply::json(200, whole(&said, &head, directives))
    };
    Ok(reply)
}

/// Adds the headers the real API sends.
pub fn headers(app: &App, reply: Reply) -> Reply {
    reply
        .header("x-request-id", app.id("req_", 32))
        .header("openai-organization", "mock-organization")
        .header("openai-processing-ms", "1")
        .header("openai-version", "2020-10-01")
        .header("x-ratelimit-limit-requests", "10000")
        .header("x-ratelimit-limit-tokens", "2000000")
        .header("x-ratelimit-remaining-requests", "9999")
        .header("x-ratelimit-remaining-tokens", "1999000")
        .header("x-ratelimit-reset-requests", "6ms")
        .header("x-ratelimit-reset-tokens", "30ms")
}

/// Whether the request brings this key.
pub fn authorised(request: &Request<'_>, key: &str) -> bool {
    bearer(request) == Some(key)
}

/// The bearer token of a request.
pub fn bearer<'a>(request: &Request<'a>) -> Option<&'a str> {
    let (scheme, token) = request.header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub fn unauthorised(request: &Request<'_>) -> ApiError {
    let message = match bearer(request) {
        None => "You didn't provide an API key. You need to provide your API key in an Authorization header using \
                 Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            .to_owned(),
        Some(key) => {
            let start: String = key.chars().take(4).collect();
            format!("Incorrect API key provided: {start}****.")
        }
    };
    ApiError::new(401, message).code("invalid_api_key")
}

/// The refusal of a body that is no JSON.
pub fn unreadable(error: &str) -> ApiError {
    ApiError::invalid(format!(
        "We could not parse the JSON body of your request. The API expects a JSON payload, but what was sent was not \
         valid JSON: {error}"
    ))
}

/// Renders an error.
pub fn error_body(error: &ApiError) -> String {
    let optional = |text: &Option<String>| text.as_deref().map_or_else(|| "null".to_owned(), json_string);
    let quota = error.code.as_deref() == Some("insufficient_quota");
    let (kind, code) = match error.status {
        _ if quota => ("insufficient_quota", None),
        401 => ("invalid_request_error", Some("invalid_api_key")),
        402 => ("insufficient_quota", Some("insufficient_quota")),
        403 => ("invalid_request_error", Some("insufficient_permissions")),
        404 => ("invalid_request_error", Some("model_not_found")),
        408 => ("timeout", Some("request_timeout")),
        409 => ("invalid_request_error", Some("conflict")),
        413 => ("invalid_request_error", Some("request_too_large")),
        422 => ("invalid_request_error", Some("unprocessable_entity")),
        429 => ("requests", Some("rate_limit_exceeded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    format!(
        r#"{{"error":{{"message":{},"type":{},"param":{},"code":{}}}}}"#,
        json_string(&error.message),
        json_string(error.kind.as_deref().unwrap_or(kind)),
        optional(&error.param),
        error.code.as_deref().or(code).map_or_else(|| "null".to_owned(), json_string),
    )
}

/// The body of the reply to a path nobody serves.
pub fn unknown_url(method: &str, path: &str) -> String {
    format!(
        r#"{{"error":{{"message":{},"type":"invalid_request_error","param":null,"code":null}}}}"#,
        json_string(&format!("Invalid URL ({method} {path})"))
    )
}

/// `GET /v1/models`.
pub fn models() -> String {
    let models: Vec<String> = MODELS.iter().map(|id| model_json(id)).collect();
    format!(r#"{{"object":"list","data":[{}]}}"#, models.join(","))
}

/// `GET /v1/models/{id}`.
pub fn model(id: &str) -> Result<String, ApiError> {
    if MODELS.contains(&id) {
        return Ok(model_json(id));
    }
    Err(ApiError::new(404, format!("The model '{id}' does not exist")).param("model").code("model_not_found"))
}

fn model_json(id: &str) -> String {
    format!(r#"{{"id":{},"object":"model","created":{MODELS_CREATED},"owned_by":"mock-provider"}}"#, json_string(id))
}

/// Text of the last user message that has any.
pub fn last_user_text(body: &Value) -> Option<Cow<'_, str>> {
    let messages = body.get("messages")?.as_array()?;
    messages
        .iter()
        .rev()
        .filter(|message| role(message) == "user")
        .filter_map(|message| content_text(message.get("content")?))
        .find(|text| !text.is_empty())
}

/// The text of a message's content: a string, or parts with text.
pub fn content_text(content: &Value) -> Option<Cow<'_, str>> {
    match content {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Array(parts) => {
            let mut texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
            let first = texts.next()?;
            Some(texts.fold(Cow::Borrowed(first), |mut all, text| {
                let all_text = all.to_mut();
                all_text.push('\n');
                all_text.push_str(text);
                all
            }))
        }
        _ => None,
    }
}

pub fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

pub fn converse(request: &ChatRequest<'_>) -> Conversation {
    let mut conversation = Conversation::default();
    for message in request.messages {
        let role = role(message);
        let text = message.get("content").and_then(content_text).unwrap_or_default();
        let (clean, _) = directives::extract(&text);
        let mut bytes = clean.len();
        conversation.hash_text(&clean);
        for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let arguments = call.pointer("/function/arguments").and_then(Value::as_str).unwrap_or_default();
            conversation.hash_text(arguments);
            bytes += arguments.len();
        }
        conversation.count_message(role, bytes);
        if role != "tool" {
            conversation.tool_results.clear();
        }
        match role {
            "system" | "developer" => conversation.has_system = true,
            "tool" => conversation.tool_results.push(clean.into_owned()),
            "user" => {
                conversation.turns += 1;
                if !text.is_empty() {
                    conversation.question = clean.into_owned();
                }
                for part in message.get("content").and_then(Value::as_array).into_iter().flatten() {
                    match part.get("type").and_then(Value::as_str) {
                        Some("image_url") => conversation.images += 1,
                        Some("file") => conversation.documents += 1,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    conversation.count_extras(request.tools.len());
    conversation
}
