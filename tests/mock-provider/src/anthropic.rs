//! The Anthropic Messages dialect.
//!
//! Requests are checked as strictly as the real API checks them: unknown fields are refused, tool calls must be
//! answered at once, a thinking block must come back as it was sent. A translation that leaks a foreign field
//! fails here as it would fail there.

mod cache;
mod check;
mod conversation;
mod say;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::answer::{Answer, Conversation, Limits, Span, Want};
use crate::directives::{self, Directives};
use crate::http::Request;
use crate::reply::{ApiError, Reply, json_string};
use crate::server::App;
use check::{check, check_headers, expected, extra, kind, required};
pub use say::{is_proof_of, proof};
use say::{say, stream, whole};

/// Fields of a Messages request.
const FIELDS: [&str; 18] = [
    "model",
    "messages",
    "max_tokens",
    "cache_control",
    "inference_geo",
    "metadata",
    "output_config",
    "output_format",
    "service_tier",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];
/// Fields that need an `anthropic-beta` header.
const BETA_FIELDS: [&str; 4] = ["container", "context_management", "mcp_servers", "speed"];
/// Fields of a token counting request.
const COUNT_FIELDS: [&str; 9] = [
    "model",
    "messages",
    "cache_control",
    "output_config",
    "output_format",
    "system",
    "thinking",
    "tool_choice",
    "tools",
];
/// Bytes of tool arguments in one delta.
const ARGUMENT_BYTES: usize = 8;
/// How signatures of this provider's own thinking blocks begin.
const SIGNATURE_PREFIX: &str = "EmockSig";

/// A request that passed the checks.
struct MessagesRequest<'a> {
    model: &'a str,
    messages: &'a [Value],
    system: Option<&'a Value>,
    body: &'a Map<String, Value>,
    stream: bool,
    limits: Limits,
    tools: Vec<(&'a str, &'a Value)>,
    forbidden: bool,
    forced: bool,
    parallel: bool,
    thinking: bool,
    /// Thinking is to be signed, not shown.
    thinking_omitted: bool,
    want: Want<'a>,
}

/// One block of an answer.
enum Block<'a> {
    Thinking { answer: Answer, omitted: bool },
    Text(Answer),
    ToolUse { id: String, name: &'a str, input: String, pieces: Vec<Span> },
}

impl Block<'_> {
    fn tokens(&self) -> u64 {
        match self {
            Self::Thinking { answer, .. } | Self::Text(answer) => answer.tokens(),
            Self::ToolUse { pieces, .. } => u64::try_from(pieces.len()).unwrap_or(u64::MAX),
        }
    }
}

/// Token counts of one reply. The input numbers do not overlap.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    input: u64,
    write_5m: u64,
    write_1h: u64,
    read: u64,
    output: u64,
    thinking: u64,
}

/// Everything that is said in one reply.
struct Said<'a> {
    blocks: Vec<Block<'a>>,
    stop_reason: String,
    stop_sequence: Option<String>,
    /// Pages that the text cites, written out.
    citations: Vec<String>,
    usage: Usage,
}

/// Answers `/v1/messages`.
pub fn respond(app: &App, http: &Request<'_>, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
    check_headers(http)?;
    let beta = http.header("anthropic-beta").is_some();
    let request = check(body, &FIELDS, beta, true)?;
    let conversation = converse(&request);
    let said = say(app, &request, &conversation, directives);
    let id = app.id("msg_01", 22);
    Ok(answered(&request, &said, &id, directives))
}

/// Answers for another host, which has the model in the path, another version in the body and no beta fields.
///
/// Without a model the request asks for a count of its tokens.
pub fn respond_hosted(
    app: &App,
    http: &Request<'_>,
    body: &Value,
    directives: &Directives,
    version: &str,
    model: Option<&str>,
) -> Result<Reply, ApiError> {
    let mut body = body.clone();
    let fields =
        body.as_object_mut().ok_or_else(|| ApiError::invalid("Input should be a valid dictionary or object"))?;
    let counts = model.is_none();
    if let Some(model) = model {
        match fields.remove("anthropic_version") {
            None => return Err(required("anthropic_version")),
            Some(Value::String(given)) if given == version => {}
            Some(_) => return Err(expected("anthropic_version", &format!("'{version}'"))),
        }
        for foreign in ["model", "cache_control"] {
            if fields.contains_key(foreign) {
                return Err(extra(foreign));
            }
        }
        fields.insert("model".to_owned(), Value::from(model));
    } else {
        fields.remove("anthropic_version");
    }
    // Bedrock took a system message in the middle of a conversation without any beta.
    let beta = fields.remove("anthropic_beta").is_some()
        || http.header("anthropic-beta").is_some()
        || version.starts_with("bedrock");
    if counts {
        let request = check(&body, &COUNT_FIELDS, beta, false)?;
        let tokens = directives.usage_in.unwrap_or(converse(&request).prompt_tokens);
        return Ok(Reply::json(200, format!(r#"{{"input_tokens":{tokens}}}"#)));
    }
    let request = check(&body, &FIELDS, beta, true)?;
    let conversation = converse(&request);
    let said = say(app, &request, &conversation, directives);
    let id = app.id("msg_vrtx_01", 22);
    Ok(answered(&request, &said, &id, directives))
}

fn answered(request: &MessagesRequest<'_>, said: &Said<'_>, id: &str, directives: &Directives) -> Reply {
    if request.stream {
        Reply::stream("text/event-stream; charset=utf-8", stream(request, said, id, directives))
    } else {
        Reply::json(200, whole(request, said, id, directives))
    }
}

/// Answers `/v1/messages/count_tokens`.
pub fn count_tokens(http: &Request<'_>, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
    check_headers(http)?;
    let beta = http.header("anthropic-beta").is_some();
    let request = check(body, &COUNT_FIELDS, beta, false)?;
    let tokens = directives.usage_in.unwrap_or(converse(&request).prompt_tokens);
    Ok(Reply::json(200, format!(r#"{{"input_tokens":{tokens}}}"#)))
}

/// `GET /v1/models` for clients of this dialect.
pub fn models() -> String {
    let models: Vec<String> = crate::openai::MODELS
        .iter()
        .map(|id| {
            format!(r#"{{"type":"model","id":"{id}","display_name":"{id}","created_at":"2025-01-01T00:00:00Z"}}"#)
        })
        .collect();
    let [first, .., last] = crate::openai::MODELS;
    format!(r#"{{"data":[{}],"has_more":false,"first_id":"{first}","last_id":"{last}"}}"#, models.join(","))
}

/// Adds the headers the real API sends.
pub fn headers(reply: Reply, request_id: String) -> Reply {
    reply
        .header("request-id", request_id)
        .header("anthropic-organization-id", "00000000-0000-4000-8000-00000000d000")
        .header("anthropic-ratelimit-requests-limit", "4000")
        .header("anthropic-ratelimit-requests-remaining", "3999")
        .header("anthropic-ratelimit-tokens-limit", "400000")
        .header("anthropic-ratelimit-tokens-remaining", "399000")
}

/// Whether the request brings this key; either header will do.
pub fn authorised(request: &Request<'_>, key: &str) -> bool {
    match request.header("x-api-key") {
        Some(given) => given == key,
        None => crate::openai::bearer(request) == Some(key),
    }
}

pub fn unauthorised(request: &Request<'_>) -> ApiError {
    let message = match (request.header("x-api-key"), request.header("authorization")) {
        (Some(_), _) => "invalid x-api-key",
        (None, Some(_)) => "Invalid bearer token",
        (None, None) => "x-api-key header is required",
    };
    ApiError::new(401, message)
}

/// Renders an error.
pub fn error_body(error: &ApiError, request_id: &str) -> String {
    let kind = error.kind.as_deref().unwrap_or(match error.status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    });
    let code = error.code.as_deref().map_or_else(String::new, |code| format!(r#","code":{}"#, json_string(code)));
    format!(
        r#"{{"type":"error","error":{{"type":{},"message":{}{code}}},"request_id":"{request_id}"}}"#,
        json_string(kind),
        json_string(&error.message),
    )
}

/// Text of the last user message that has any; tool results are not its text.
pub fn last_user_text(body: &Value) -> Option<Cow<'_, str>> {
    crate::openai::last_user_text(body)
}

fn converse(request: &MessagesRequest<'_>) -> Conversation {
    let mut conversation = Conversation::default();
    if let Some(text) = request.system.and_then(crate::openai::content_text) {
        conversation.has_system = true;
        conversation.hash_text(&text);
        conversation.count_message("system", text.len());
    }
    for message in request.messages {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        let content = message.get("content").unwrap_or(&Value::Null);
        let text = crate::openai::content_text(content).unwrap_or_default();
        let (clean, _) = directives::extract(&text);
        conversation.hash_text(&clean);
        let mut bytes = clean.len();
        conversation.tool_results.clear();
        for block in content.as_array().into_iter().flatten() {
            match kind(block) {
                "image" => conversation.images += 1,
                "document" => conversation.documents += 1,
                "tool_use" => {
                    let input = block.get("input").map(Value::to_string).unwrap_or_default();
                    conversation.hash_text(&input);
                    bytes += input.len();
                }
                "tool_result" => {
                    let result = block.get("content").and_then(crate::openai::content_text).unwrap_or_default();
                    conversation.hash_text(&result);
                    bytes += result.len();
                    conversation.tool_results.push(result.into_owned());
                }
                _ => {}
            }
        }
        conversation.count_message(role, bytes);
        if role == "user" {
            if conversation.tool_results.is_empty() {
                conversation.turns += 1;
            }
            if !text.is_empty() {
                conversation.question = clean.into_owned();
            }
        }
    }
    conversation.count_extras(request.tools.len());
    conversation
}

#[cfg(test)]
mod tests;
