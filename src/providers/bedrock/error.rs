//! What the service says when it refuses, before a reply or in the middle of one.

use http::HeaderMap;
use serde_json::Value;

use crate::protocol::chat::ReplyFault;
use crate::protocol::frames::RawEvent;
use crate::providers::ReportedError;

/// Words in the message of a refused request: it is too long.
const TOO_LONG: &[&str] =
    &["input is too long", "prompt is too long", "too many input tokens", "maximum context length", "context window"];

/// Reads an error reply. The exception's name stands in a header, as a rule.
pub(super) fn read(headers: &HeaderMap, body: &Value) -> ReportedError {
    let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let member = || ["__type", "code"].iter().find_map(|name| body.get(name)?.as_str());
    let name = header.or_else(member).map(plain_name);
    let message = message(body);
    let code = code(name, message.as_deref().unwrap_or_default());
    // What is no fault of the request's must not look like one.
    let status = match name {
        Some("ModelNotReadyException") => Some(503),
        Some("ModelErrorException") => Some(502),
        _ => None,
    };
    ReportedError { message, code: code.map(str::to_owned), status, ..ReportedError::default() }
}

/// An exception in the middle of a stream.
pub(super) fn exception(event: &RawEvent<'_>) -> ReplyFault {
    let body: Value = serde_json::from_slice(&event.data).unwrap_or_default();
    let name = std::str::from_utf8(event.name).ok().map(plain_name);
    reported(name, message(&body))
}

/// A fault that the provider reports by this name.
pub(super) fn reported(name: Option<&str>, message: Option<String>) -> ReplyFault {
    let code = code(name, message.as_deref().unwrap_or_default()).map(str::to_owned);
    let message = message.unwrap_or_else(|| "The provider broke its reply off.".to_owned());
    ReplyFault::Reported { message, code }
}

fn message(body: &Value) -> Option<String> {
    let text = ["message", "Message", "originalMessage"].iter().find_map(|name| body.get(name)?.as_str());
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The name in `ThrottlingException:http://internal.amazon.com/coral/…` or `com.amazon.coral#ThrottlingException`.
fn plain_name(name: &str) -> &str {
    let name = name.split(':').next().unwrap_or(name);
    name.rsplit('#').next().unwrap_or(name).trim()
}

/// A code that callers know, where there is one for it; else the exception's name.
fn code<'a>(name: Option<&'a str>, message: &str) -> Option<&'a str> {
    let message = message.to_ascii_lowercase();
    let name = name.filter(|name| !name.is_empty());
    let is_refusal = name.is_none_or(|name| name.eq_ignore_ascii_case("ValidationException"));
    if is_refusal && TOO_LONG.iter().any(|words| message.contains(words)) {
        return Some("context_length_exceeded");
    }
    if is_refusal && message.starts_with("the provided model identifier is invalid") {
        return Some("model_not_found");
    }
    match name?.to_ascii_lowercase().as_str() {
        "throttlingexception" | "toomanyrequestsexception" => Some("rate_limit_exceeded"),
        "serviceunavailableexception" | "modelnotreadyexception" => Some("overloaded_error"),
        "resourcenotfoundexception" => Some("model_not_found"),
        "validationexception" => Some("invalid_request_error"),
        _ => name,
    }
}
