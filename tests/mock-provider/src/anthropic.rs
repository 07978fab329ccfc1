//! The Anthropic Messages dialect.
//!
//! Requests are checked as strictly as the real API checks them: unknown fields are refused, tool calls must be
//! answered at once, a thinking block must come back as it was sent. A translation that leaks a foreign field
//! fails here as it would fail there.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::answer::{self, Answer, Conversation, Ending, Limits, Span, ToolQuestion, Want};
use crate::claude;
use crate::directives::{self, Directives};
use crate::http::Request;
use crate::openai::is_base64;
use crate::reply::{ApiError, Reply, json_string};
use crate::schema;
use crate::server::App;
use crate::wire::{Event, EventStream, Framing, Kind, Template};

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

// --- What is asked -------------------------------------------------------------------------------------------

fn check_headers(http: &Request<'_>) -> Result<(), ApiError> {
    if http.header("x-api-key").is_none() && http.header("authorization").is_none() {
        return Err(unauthorised(http));
    }
    if http.header("anthropic-version").is_none() {
        return Err(ApiError::invalid("anthropic-version: header is required"));
    }
    Ok(())
}

fn required(path: &str) -> ApiError {
    ApiError::invalid(format!("{path}: Field required"))
}

fn extra(path: &str) -> ApiError {
    ApiError::invalid(format!("{path}: Extra inputs are not permitted"))
}

fn expected(path: &str, what: &str) -> ApiError {
    ApiError::invalid(format!("{path}: Input should be {what}"))
}

fn text_of<'a>(map: &'a Map<String, Value>, key: &str, path: &str) -> Result<&'a str, ApiError> {
    match map.get(key) {
        None => Err(required(&format!("{path}{key}"))),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(expected(&format!("{path}{key}"), "a valid string")),
    }
}

fn known(map: &Map<String, Value>, fields: &[&str], path: &str) -> Result<(), ApiError> {
    match map.keys().find(|key| !fields.contains(&key.as_str())) {
        Some(key) => Err(extra(&format!("{path}{key}"))),
        None => Ok(()),
    }
}

fn check<'a>(body: &'a Value, fields: &[&str], beta: bool, generates: bool) -> Result<MessagesRequest<'a>, ApiError> {
    let Some(body) = body.as_object() else {
        return Err(ApiError::invalid("Input should be a valid dictionary or object"));
    };
    for key in body.keys() {
        let beta_field = beta && BETA_FIELDS.contains(&key.as_str());
        if !fields.contains(&key.as_str()) && !beta_field {
            return Err(extra(key));
        }
    }
    let model = text_of(body, "model", "")?;
    let messages = match body.get("messages") {
        None => return Err(required("messages")),
        Some(Value::Array(messages)) => messages.as_slice(),
        Some(_) => return Err(expected("messages", "a valid list")),
    };
    let max_tokens = match body.get("max_tokens") {
        None if generates => return Err(required("max_tokens")),
        None => None,
        Some(value) => match value.as_u64() {
            Some(0) => return Err(expected("max_tokens", "greater than or equal to 1")),
            Some(tokens) => Some(tokens),
            None if value.is_i64() => {
                return Err(expected("max_tokens", "greater than or equal to 1"));
            }
            None => return Err(expected("max_tokens", "a valid integer")),
        },
    };
    check_range(body, "temperature")?;
    check_range(body, "top_p")?;
    let stream = match body.get("stream") {
        None => false,
        Some(Value::Bool(stream)) => *stream,
        Some(_) => return Err(expected("stream", "a valid boolean")),
    };
    let system = body.get("system");
    if let Some(system) = system {
        check_system(system)?;
    }
    let thinking = check_thinking(body, max_tokens)?;
    check_messages(messages, thinking == Thinking::Enabled, beta)?;
    let tools = check_tools(body.get("tools"))?;
    let any_tools = body.get("tools").and_then(Value::as_array).is_some_and(|tools| !tools.is_empty());
    let choice = check_tool_choice(body.get("tool_choice"), &tools, any_tools)?;
    let sampling = ["temperature", "top_p", "top_k"].map(|name| (name, body.get(name)));
    claude::check(&claude::Wishes {
        model,
        thinking: body.get("thinking"),
        effort: body.get("output_config").and_then(|config| config.get("effort")),
        max_tokens,
        sampling: &sampling,
        forced: choice.forced,
    })?;
    if thinking == Thinking::Enabled && choice.forced {
        return Err(ApiError::invalid("Thinking may not be enabled when tool_choice forces tool use."));
    }
    let last = messages.last().and_then(|message| message.get("role")).and_then(Value::as_str);
    claude::check_prefill(model, last.unwrap_or_default())?;
    check_cache_marks(body)?;
    let omitted =
        body.get("thinking").and_then(|thinking| thinking.get("display")).and_then(Value::as_str) == Some("omitted");
    Ok(MessagesRequest {
        model,
        messages,
        system,
        body,
        stream,
        limits: Limits { max_tokens, stop: check_stop(body.get("stop_sequences"))? },
        tools: match choice.named {
            Some(named) => tools.into_iter().filter(|(name, _)| *name == named).collect(),
            None => tools,
        },
        forbidden: choice.forbidden,
        forced: choice.forced,
        parallel: choice.parallel,
        thinking: match thinking {
            Thinking::Off => false,
            Thinking::Enabled => true,
            Thinking::Adaptive => !choice.forced,
        },
        thinking_omitted: omitted,
        want: check_output(body)?,
    })
}

fn check_range(body: &Map<String, Value>, name: &str) -> Result<(), ApiError> {
    match body.get(name).map(|value| value.as_f64()) {
        None => Ok(()),
        Some(None) => Err(expected(name, "a valid number")),
        Some(Some(number)) if number > 1.0 => Err(expected(name, "less than or equal to 1")),
        Some(Some(number)) if number < 0.0 => Err(expected(name, "greater than or equal to 0")),
        Some(Some(_)) => Ok(()),
    }
}

fn check_stop(value: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    let Some(stops) = value.as_array() else {
        return Err(expected("stop_sequences", "a valid list"));
    };
    let mut sequences = Vec::with_capacity(stops.len());
    for (at, stop) in stops.iter().enumerate() {
        match stop.as_str() {
            None => return Err(expected(&format!("stop_sequences.{at}"), "a valid string")),
            Some(stop) if stop.trim().is_empty() => {
                return Err(ApiError::invalid("stop_sequences: each stop sequence must contain non-whitespace"));
            }
            Some(stop) => sequences.push(stop.to_owned()),
        }
    }
    Ok(sequences)
}

fn check_system(system: &Value) -> Result<(), ApiError> {
    let blocks = match system {
        Value::String(_) => return Ok(()),
        Value::Array(blocks) => blocks,
        _ => return Err(expected("system", "a valid string or list of text blocks")),
    };
    for (at, block) in blocks.iter().enumerate() {
        let path = format!("system.{at}.");
        let Some(block) = block.as_object() else {
            return Err(expected(&format!("system.{at}"), "a valid dictionary or object"));
        };
        if text_of(block, "type", &path)? != "text" {
            return Err(expected(&format!("{path}type"), "'text'"));
        }
        known(block, &["type", "text", "cache_control", "citations"], &path)?;
        check_cache_control(block, &path)?;
        if text_of(block, "text", &path)?.is_empty() {
            return Err(ApiError::invalid("system: text content blocks must be non-empty"));
        }
    }
    Ok(())
}

/// Most places up to which a prompt can be cached.
const MAX_CACHE_MARKS: usize = 4;

/// Counts the cache marks of a request, wherever they stand.
fn check_cache_marks(body: &Map<String, Value>) -> Result<(), ApiError> {
    fn count(value: &Value) -> usize {
        match value {
            Value::Array(items) => items.iter().map(count).sum(),
            Value::Object(fields) => {
                let own = usize::from(fields.get("cache_control").is_some_and(Value::is_object));
                // What a tool is called with has no marks, whatever its members are called.
                let inner = fields
                    .iter()
                    .filter(|(key, _)| !["input", "input_schema", "cache_control"].contains(&key.as_str()));
                own + inner.map(|(_, value)| count(value)).sum::<usize>()
            }
            _ => 0,
        }
    }
    let parts = ["tools", "system", "messages"].iter().filter_map(|name| body.get(*name));
    let marks = parts.map(count).sum::<usize>() + usize::from(body.get("cache_control").is_some_and(Value::is_object));
    if marks > MAX_CACHE_MARKS {
        return Err(ApiError::invalid(format!(
            "A maximum of {MAX_CACHE_MARKS} blocks with cache_control may be provided. Found {marks}."
        )));
    }
    Ok(())
}

fn check_cache_control(block: &Map<String, Value>, path: &str) -> Result<(), ApiError> {
    let control = match block.get("cache_control") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(control)) => control,
        Some(_) => {
            return Err(expected(&format!("{path}cache_control"), "a valid dictionary or object"));
        }
    };
    if control.get("type").and_then(Value::as_str) != Some("ephemeral") {
        return Err(expected(&format!("{path}cache_control.ephemeral.type"), "'ephemeral'"));
    }
    match control.get("ttl").map(Value::as_str) {
        None | Some(Some("5m" | "1h")) => Ok(()),
        Some(_) => Err(expected(&format!("{path}cache_control.ephemeral.ttl"), "'5m' or '1h'")),
    }
}

/// How a request wants thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinking {
    Off,
    Enabled,
    Adaptive,
}

fn check_thinking(body: &Map<String, Value>, max_tokens: Option<u64>) -> Result<Thinking, ApiError> {
    let thinking = match body.get("thinking") {
        None => return Ok(Thinking::Off),
        Some(Value::Object(thinking)) => thinking,
        Some(_) => return Err(expected("thinking", "a valid dictionary or object")),
    };
    match text_of(thinking, "type", "thinking.")? {
        "disabled" => Ok(Thinking::Off),
        "adaptive" => {
            known(thinking, &["type", "display"], "thinking.adaptive.")?;
            Ok(Thinking::Adaptive)
        }
        "enabled" => {
            known(thinking, &["type", "budget_tokens", "display"], "thinking.enabled.")?;
            let budget = match thinking.get("budget_tokens") {
                None => return Err(required("thinking.enabled.budget_tokens")),
                Some(budget) => match budget.as_i64() {
                    None => {
                        return Err(expected("thinking.enabled.budget_tokens", "a valid integer"));
                    }
                    Some(budget) => budget,
                },
            };
            if budget < 1024 {
                return Err(expected("thinking.enabled.budget_tokens", "greater than or equal to 1024"));
            }
            if max_tokens.is_some_and(|most| u64::try_from(budget).is_ok_and(|budget| budget >= most)) {
                return Err(ApiError::invalid("`max_tokens` must be greater than `thinking.budget_tokens`."));
            }
            if body.get("temperature").and_then(Value::as_f64).is_some_and(|t| t != 1.0) {
                return Err(ApiError::invalid("`temperature` may only be set to 1 when thinking is enabled."));
            }
            if body.get("top_k").is_some() {
                return Err(ApiError::invalid("`top_k` must be unset when thinking is enabled."));
            }
            Ok(Thinking::Enabled)
        }
        other => Err(ApiError::invalid(format!(
            "thinking: Input tag '{other}' found using 'type' does not match any of the expected tags: 'adaptive', \
             'disabled', 'enabled'"
        ))),
    }
}

/// `beta` lets instructions stand in the middle of a conversation, as newer models take them.
fn check_messages(messages: &[Value], thinking: bool, beta: bool) -> Result<(), ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("messages: at least one message is required"));
    }
    let last = messages.len() - 1;
    // Tool calls of the assistant's turn before, and where they stand.
    let mut called: Vec<&str> = Vec::new();
    let mut caller = 0;
    let mut last_role = "";
    // Whether something other than results has been said in the user's turn.
    let mut after_other = false;
    for (at, message) in messages.iter().enumerate() {
        let Some(fields) = message.as_object() else {
            return Err(expected(&format!("messages.{at}"), "a valid dictionary or object"));
        };
        let path = format!("messages.{at}.");
        let role = match text_of(fields, "role", &path)? {
            role @ ("user" | "assistant") => role,
            "system" if beta && at > 0 => continue,
            "system" => {
                return Err(ApiError::invalid(
                    "messages: Unexpected role \"system\". The Messages API accepts a top-level `system` parameter, \
                     not \"system\" as an input message role.",
                ));
            }
            _ => return Err(expected(&format!("{path}role"), "'user' or 'assistant'")),
        };
        known(fields, &["role", "content"], &path)?;
        if at == 0 && role != "user" {
            return Err(ApiError::invalid("messages: first message must use the \"user\" role"));
        }
        let Some(content) = fields.get("content") else {
            return Err(required(&format!("{path}content")));
        };
        let empty = match content {
            Value::String(text) => text.is_empty(),
            Value::Array(blocks) => blocks.is_empty(),
            _ => {
                return Err(expected(&format!("{path}content"), "a valid string or list"));
            }
        };
        if empty && !(role == "assistant" && at == last) {
            return Err(ApiError::invalid(format!(
                "messages.{at}: all messages must have non-empty content except for the optional final assistant \
                 message"
            )));
        }
        let blocks = content.as_array().map(Vec::as_slice).unwrap_or_default();
        for (number, block) in blocks.iter().enumerate() {
            check_block(&format!("{path}content.{number}"), role, block)?;
        }
        if role != last_role {
            // Messages of one role in a row are one turn. The user's turn answers all calls of the turn before it.
            if role == "assistant" {
                unanswered(&called, caller)?;
                called.clear();
            }
            last_role = role;
            after_other = false;
        }
        if role == "assistant" {
            let ids = blocks.iter().filter(|block| kind(block) == "tool_use");
            called.extend(ids.filter_map(|block| block.get("id").and_then(Value::as_str)));
            caller = at;
        } else {
            after_other |= content.is_string();
            check_results(at, blocks, &mut called, caller, &mut after_other)?;
        }
    }
    unanswered(&called, caller)?;
    if thinking {
        check_thinking_history(messages)?;
    }
    match messages.last().map(|message| (message.get("role"), message.get("content"))) {
        Some((Some(Value::String(role)), Some(Value::String(text))))
            if role == "assistant" && text.ends_with(char::is_whitespace) =>
        {
            Err(ApiError::invalid("messages: final assistant content cannot end with trailing whitespace"))
        }
        _ => Ok(()),
    }
}

fn kind(block: &Value) -> &str {
    block.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn unanswered(called: &[&str], caller: usize) -> Result<(), ApiError> {
    if called.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "messages.{caller}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each \
         `tool_use` block must have a corresponding `tool_result` block in the next message.",
        called.join(", ")
    )))
}

/// Results come first in their turn, and each belongs to a call of the turn before.
fn check_results<'a>(
    at: usize,
    blocks: &'a [Value],
    called: &mut Vec<&'a str>,
    caller: usize,
    after_other: &mut bool,
) -> Result<(), ApiError> {
    for (number, block) in blocks.iter().enumerate() {
        if kind(block) != "tool_result" {
            *after_other = true;
            continue;
        }
        if *after_other && !called.is_empty() {
            unanswered(called, caller)?;
        }
        let id = block.get("tool_use_id").and_then(Value::as_str).unwrap_or_default();
        match called.iter().position(|call| *call == id) {
            Some(place) => {
                called.remove(place);
            }
            None => {
                return Err(ApiError::invalid(format!(
                    "messages.{at}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. \
                     Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                )));
            }
        }
    }
    Ok(())
}

/// With thinking on, an assistant turn that called tools must still begin with its thinking.
fn check_thinking_history(messages: &[Value]) -> Result<(), ApiError> {
    let Some((at, last)) = messages
        .iter()
        .enumerate()
        .rev()
        .find(|(_, message)| message.get("role").and_then(Value::as_str) == Some("assistant"))
    else {
        return Ok(());
    };
    let blocks = last.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let first = blocks.first().map(kind).unwrap_or_default();
    let called = blocks.iter().any(|block| kind(block) == "tool_use");
    if called && at + 2 >= messages.len() && first != "thinking" && first != "redacted_thinking" {
        return Err(ApiError::invalid(format!(
            "messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{first}`. When \
             `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the \
             lastmost set of `tool_use` and `tool_result` blocks)."
        )));
    }
    Ok(())
}

fn check_block(path: &str, role: &str, block: &Value) -> Result<(), ApiError> {
    let Some(fields) = block.as_object() else {
        return Err(expected(path, "a valid dictionary or object"));
    };
    let kind = text_of(fields, "type", &format!("{path}."))?;
    let inner = format!("{path}.{kind}.");
    let misplaced = || ApiError::invalid(format!("{path}: `{kind}` blocks are not allowed in {role} messages"));
    check_cache_control(fields, &inner)?;
    match kind {
        "text" => {
            known(fields, &["type", "text", "cache_control", "citations"], &inner)?;
            if text_of(fields, "text", &inner)?.is_empty() {
                return Err(ApiError::invalid("messages: text content blocks must be non-empty"));
            }
            Ok(())
        }
        "image" | "document" if role == "user" => check_source(fields, kind, &inner),
        "tool_use" if role == "assistant" => {
            known(fields, &["type", "id", "name", "input", "cache_control", "caller"], &inner)?;
            let id = text_of(fields, "id", &inner)?;
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if id.is_empty() || !id.bytes().all(fits) {
                return Err(ApiError::invalid(format!("{inner}id: String should match pattern '^[a-zA-Z0-9_-]+$'")));
            }
            text_of(fields, "name", &inner)?;
            match fields.get("input") {
                None => Err(required(&format!("{inner}input"))),
                Some(Value::Object(_)) => Ok(()),
                Some(_) => Err(expected(&format!("{inner}input"), "a valid dictionary")),
            }
        }
        "tool_result" if role == "user" => {
            known(fields, &["type", "tool_use_id", "content", "is_error", "cache_control"], &inner)?;
            text_of(fields, "tool_use_id", &inner)?;
            match fields.get("content") {
                None | Some(Value::String(_)) => Ok(()),
                Some(Value::Array(parts)) => {
                    for (number, part) in parts.iter().enumerate() {
                        check_block(&format!("{inner}content.{number}"), role, part)?;
                    }
                    Ok(())
                }
                Some(_) => Err(expected(&format!("{inner}content"), "a valid string or list")),
            }
        }
        "thinking" if role == "assistant" => {
            known(fields, &["type", "thinking", "signature"], &inner)?;
            let thinking = text_of(fields, "thinking", &inner)?;
            let given = text_of(fields, "signature", &inner)?;
            if !is_proof_of(given, thinking) {
                return Err(ApiError::invalid(format!("{path}: Invalid `signature` in `thinking` block")));
            }
            Ok(())
        }
        "tool_use" | "tool_result" | "thinking" | "image" | "document" => Err(misplaced()),
        "redacted_thinking"
        | "server_tool_use"
        | "web_search_tool_result"
        | "web_fetch_tool_result"
        | "search_result"
        | "container_upload"
        | "mcp_tool_use"
        | "mcp_tool_result"
        | "tool_reference"
        | "compaction"
        | "code_execution_tool_result"
        | "bash_code_execution_tool_result"
        | "text_editor_code_execution_tool_result"
        | "tool_search_tool_result" => Ok(()),
        _ => Err(ApiError::invalid(format!(
            "{path}: Input tag '{kind}' found using 'type' does not match any of the expected tags: 'document', \
             'image', 'redacted_thinking', 'text', 'thinking', 'tool_result', 'tool_use'"
        ))),
    }
}

/// The source of an image or a document.
fn check_source(fields: &Map<String, Value>, kind: &str, path: &str) -> Result<(), ApiError> {
    let source = match fields.get("source") {
        None => return Err(required(&format!("{path}source"))),
        Some(Value::Object(source)) => source,
        Some(_) => {
            return Err(expected(&format!("{path}source"), "a valid dictionary or object"));
        }
    };
    let path = format!("{path}source.");
    match text_of(source, "type", &path)? {
        "base64" => {
            let types: &[&str] = if kind == "image" {
                &["image/jpeg", "image/png", "image/gif", "image/webp"]
            } else {
                &["application/pdf"]
            };
            known(source, &["type", "media_type", "data"], &format!("{path}base64."))?;
            let media = text_of(source, "media_type", &format!("{path}base64."))?;
            if !types.contains(&media) {
                return Err(expected(&format!("{path}base64.media_type"), &format!("'{}'", types.join("', '"))));
            }
            if !is_base64(text_of(source, "data", &format!("{path}base64."))?) {
                return Err(ApiError::invalid(format!("{path}base64: invalid base64 data")));
            }
            Ok(())
        }
        "url" => {
            known(source, &["type", "url"], &format!("{path}url."))?;
            let url = text_of(source, "url", &format!("{path}url."))?;
            if url.starts_with("https://") || url.starts_with("http://") {
                return Ok(());
            }
            Err(ApiError::invalid(format!("{path}url.url: Only HTTPS URLs are supported.")))
        }
        "file" => text_of(source, "file_id", &format!("{path}file.")).map(|_| ()),
        "text" | "content" if kind == "document" => Ok(()),
        other => Err(ApiError::invalid(format!(
            "{path}type: Input tag '{other}' found using 'type' does not match any of the expected tags: 'base64', \
             'file', 'url'"
        ))),
    }
}

/// Names and input schemas of the tools that the client runs.
fn check_tools(tools: Option<&Value>) -> Result<Vec<(&str, &Value)>, ApiError> {
    let tools = match tools {
        None => return Ok(Vec::new()),
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(expected("tools", "a valid list")),
    };
    let mut custom: Vec<(&str, &Value)> = Vec::with_capacity(tools.len());
    for (at, tool) in tools.iter().enumerate() {
        let Some(fields) = tool.as_object() else {
            return Err(expected(&format!("tools.{at}"), "a valid dictionary or object"));
        };
        // Everything with another type is a tool that the provider runs itself.
        if fields.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "custom") {
            continue;
        }
        let path = format!("tools.{at}.custom.");
        let allowed = [
            "type",
            "name",
            "description",
            "input_schema",
            "cache_control",
            "strict",
            "defer_loading",
            "allowed_callers",
            "input_examples",
            "eager_input_streaming",
        ];
        known(fields, &allowed, &path)?;
        check_cache_control(fields, &path)?;
        let name = text_of(fields, "name", &path)?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > 128 || !name.bytes().all(fits) {
            return Err(ApiError::invalid(format!(
                "{path}name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
            )));
        }
        if custom.iter().any(|(other, _)| *other == name) {
            return Err(ApiError::invalid("tools: Tool names must be unique."));
        }
        let Some(schema) = fields.get("input_schema") else {
            return Err(required(&format!("{path}input_schema")));
        };
        match schema.get("type").map(Value::as_str) {
            None => return Err(required(&format!("{path}input_schema.type"))),
            Some(Some("object")) => {}
            Some(_) => return Err(expected(&format!("{path}input_schema.type"), "'object'")),
        }
        custom.push((name, schema));
    }
    Ok(custom)
}

/// What `tool_choice` says.
#[derive(Debug, Clone, Copy)]
struct ToolChoice<'a> {
    forbidden: bool,
    forced: bool,
    parallel: bool,
    named: Option<&'a str>,
}

fn check_tool_choice<'a>(
    choice: Option<&'a Value>,
    tools: &[(&'a str, &'a Value)],
    any_tools: bool,
) -> Result<ToolChoice<'a>, ApiError> {
    let mut wanted = ToolChoice { forbidden: false, forced: false, parallel: true, named: None };
    let choice = match choice {
        None => return Ok(wanted),
        Some(Value::Object(choice)) => choice,
        Some(_) => return Err(expected("tool_choice", "a valid dictionary or object")),
    };
    if !any_tools && choice.get("type").and_then(Value::as_str) != Some("none") {
        return Err(ApiError::invalid("tool_choice: may only be specified while providing tools"));
    }
    match text_of(choice, "type", "tool_choice.")? {
        "auto" => known(choice, &["type", "disable_parallel_tool_use"], "tool_choice.auto.")?,
        "any" => {
            known(choice, &["type", "disable_parallel_tool_use"], "tool_choice.any.")?;
            wanted.forced = true;
        }
        "none" => {
            known(choice, &["type"], "tool_choice.none.")?;
            wanted.forbidden = true;
        }
        "tool" => {
            known(choice, &["type", "name", "disable_parallel_tool_use"], "tool_choice.tool.")?;
            let name = text_of(choice, "name", "tool_choice.tool.")?;
            if tools.iter().all(|(tool, _)| *tool != name) {
                return Err(ApiError::invalid(format!("Tool '{name}' not found in provided tools")));
            }
            wanted.forced = true;
            wanted.named = Some(name);
        }
        other => {
            return Err(ApiError::invalid(format!(
                "tool_choice: Input tag '{other}' found using 'type' does not match any of the expected tags: 'any', \
                 'auto', 'none', 'tool'"
            )));
        }
    }
    wanted.parallel = choice.get("disable_parallel_tool_use") != Some(&Value::Bool(true));
    Ok(wanted)
}

fn check_output(body: &Map<String, Value>) -> Result<Want<'_>, ApiError> {
    if let Some(config) = body.get("output_config") {
        let Some(fields) = config.as_object() else {
            return Err(expected("output_config", "a valid dictionary or object"));
        };
        known(fields, &["effort", "format", "task_budget"], "output_config.")?;
        let effort = fields.get("effort").filter(|effort| !effort.is_null()).map(Value::as_str);
        if effort.is_some_and(|effort| !matches!(effort, Some("low" | "medium" | "high" | "xhigh" | "max"))) {
            return Err(expected("output_config.effort", "'low', 'medium', 'high', 'xhigh' or 'max'"));
        }
    }
    let format = body
        .get("output_config")
        .and_then(|config| config.get("format"))
        .or_else(|| body.get("output_format"))
        .filter(|format| !format.is_null());
    let Some(format) = format else {
        return Ok(Want::Prose);
    };
    if kind(format) != "json_schema" {
        return Err(expected("output_config.format.type", "'json_schema'"));
    }
    match format.get("schema") {
        None => Err(required("output_config.format.schema")),
        Some(schema) => {
            check_closed(schema, 0)?;
            Ok(Want::Json(schema))
        }
    }
}

/// Structured output wants every object closed.
fn check_closed(schema: &Value, depth: usize) -> Result<(), ApiError> {
    let Some(fields) = schema.as_object().filter(|_| depth < 64) else {
        return Ok(());
    };
    let object = fields.get("type").and_then(Value::as_str) == Some("object");
    if object && fields.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err(ApiError::invalid(
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
        ));
    }
    for key in ["properties", "$defs", "definitions"] {
        for nested in fields.get(key).and_then(Value::as_object).into_iter().flat_map(|map| map.values()) {
            check_closed(nested, depth + 1)?;
        }
    }
    for key in ["anyOf", "allOf"] {
        for nested in fields.get(key).and_then(Value::as_array).into_iter().flatten() {
            check_closed(nested, depth + 1)?;
        }
    }
    fields.get("items").map_or(Ok(()), |items| check_closed(items, depth + 1))
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

// --- Prompt caching ------------------------------------------------------------------------------------------

/// A place up to which a prompt is to be cached.
struct Marker {
    hash: u64,
    tokens: u64,
    one_hour: bool,
}

/// Walks a prompt in the order in which the real API caches it (tools, system, messages) and collects its cache
/// markers. A prefix is the same when everything but markers and directives is the same.
fn markers(request: &MessagesRequest<'_>, total: u64) -> Vec<Marker> {
    let mut markers = Vec::new();
    let mut hash = answer::fnv(0, request.model.as_bytes());
    let mut bytes = 0_u64;
    let mut visit = |block: &Value, markers: &mut Vec<Marker>| {
        hash_value(block, &mut hash, &mut bytes);
        if let Some(control) = block.get("cache_control").filter(|control| control.is_object()) {
            markers.push(Marker {
                hash,
                tokens: bytes.div_ceil(4).min(total),
                one_hour: control.get("ttl").and_then(Value::as_str) == Some("1h"),
            });
        }
    };
    let tools = request.body.get("tools").and_then(Value::as_array);
    for tool in tools.into_iter().flatten() {
        visit(tool, &mut markers);
    }
    let messages = request.messages.iter().filter_map(|message| message.get("content"));
    for content in request.system.into_iter().chain(messages) {
        match content {
            Value::Array(blocks) => {
                for block in blocks {
                    visit(block, &mut markers);
                }
            }
            other => visit(other, &mut markers),
        }
    }
    markers
}

fn hash_value(value: &Value, hash: &mut u64, bytes: &mut u64) {
    match value {
        Value::String(text) => {
            let (clean, _) = directives::extract(text);
            *hash = answer::fnv(*hash, clean.as_bytes());
            *bytes = bytes.saturating_add(u64::try_from(clean.len()).unwrap_or_default());
        }
        Value::Array(items) => {
            for item in items {
                hash_value(item, hash, bytes);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields.iter().filter(|(key, _)| *key != "cache_control") {
                *hash = answer::fnv(*hash, key.as_bytes());
                hash_value(field, hash, bytes);
            }
        }
        scalar => *hash = answer::fnv(*hash, scalar.to_string().as_bytes()),
    }
}

/// The input side of the usage: what is read from the cache, written to it, and neither.
fn input_usage(app: &App, request: &MessagesRequest<'_>, total: u64) -> Usage {
    let mut markers = markers(request, total);
    if let Some(control) = request.body.get("cache_control").filter(|control| control.is_object()) {
        // A marker at the top of the request stands at the end of the prompt.
        let mut hash = answer::fnv(0, request.model.as_bytes());
        let mut bytes = 0;
        for field in ["tools", "system", "messages"] {
            if let Some(value) = request.body.get(field) {
                hash_value(value, &mut hash, &mut bytes);
            }
        }
        markers.push(Marker {
            hash,
            tokens: total,
            one_hour: control.get("ttl").and_then(Value::as_str) == Some("1h"),
        });
    }
    let mut usage = Usage { input: total, ..Usage::default() };
    let Some(last) = markers.last().map(|marker| marker.tokens) else {
        return usage;
    };
    let known = app.remember_prefixes(markers.iter().map(|marker| marker.hash));
    let hit = known.iter().rposition(|known| *known);
    let mut written_to = hit.and_then(|at| markers.get(at)).map_or(0, |marker| marker.tokens);
    usage.read = written_to;
    for marker in markers.iter().skip(hit.map_or(0, |at| at + 1)) {
        let tokens = marker.tokens.saturating_sub(written_to);
        written_to = written_to.max(marker.tokens);
        if marker.one_hour {
            usage.write_1h = usage.write_1h.saturating_add(tokens);
        } else {
            usage.write_5m = usage.write_5m.saturating_add(tokens);
        }
    }
    usage.input = total.saturating_sub(last);
    usage
}

// --- What is said --------------------------------------------------------------------------------------------

fn say<'a>(app: &App, request: &MessagesRequest<'a>, conversation: &Conversation, directives: &Directives) -> Said<'a> {
    let mut blocks = Vec::new();
    let asked = request.thinking && directives.reasoning != Some(0);
    if asked || directives.reasoning.map_or(directives.signature, |words| words > 0) {
        blocks.push(Block::Thinking {
            answer: answer::thinking(conversation, directives.reasoning),
            omitted: request.thinking_omitted,
        });
    }
    let thinking = blocks.iter().map(Block::tokens).sum();
    let question = ToolQuestion {
        tools: request.tools.len(),
        forbidden: request.forbidden,
        forced: request.forced,
        parallel: request.parallel,
        conversation,
    };
    let calls = answer::tool_calls(question, directives);
    let (mut stop_reason, mut stop_sequence) = ("end_turn", None);
    if directives.block {
        stop_reason = "refusal";
        blocks.clear();
    } else if calls == 0 {
        let answer = answer::compose(conversation, directives, request.want, &request.limits, 0);
        match &answer.ending {
            Ending::Stop => {}
            Ending::Length => stop_reason = "max_tokens",
            Ending::StopSequence(sequence) => {
                stop_reason = "stop_sequence";
                stop_sequence = Some(sequence.clone());
            }
        }
        blocks.push(Block::Text(answer));
    } else {
        stop_reason = "tool_use";
        // A model that chose to call a tool says so; one that was forced to does not.
        if let Some((name, _)) = request.tools.first()
            && (!request.forced || directives.text.is_some())
        {
            blocks.push(Block::Text(answer::before_tools(directives, name)));
        }
        for (number, (name, schema)) in request.tools.iter().cycle().take(calls).enumerate() {
            let variant = number / request.tools.len().max(1);
            let input = schema::example(schema, &conversation.question, variant).to_string();
            let pieces = answer::sized_spans(&input, ARGUMENT_BYTES);
            blocks.push(Block::ToolUse { id: app.id("toolu_01", 22), name, input, pieces });
        }
    }
    let mut usage = input_usage(app, request, conversation.prompt_tokens);
    usage.thinking = thinking;
    usage.output = blocks.iter().map(Block::tokens).fold(0, u64::saturating_add);
    usage.input = directives.usage_in.unwrap_or(usage.input);
    usage.output = directives.usage_out.unwrap_or(usage.output);
    usage.read = directives.cached.unwrap_or(usage.read);
    usage.write_5m = directives.cache_write.unwrap_or(usage.write_5m);
    usage.write_1h = directives.cache_write_1h.unwrap_or(usage.write_1h);
    Said {
        blocks,
        stop_reason: directives.finish.clone().unwrap_or_else(|| stop_reason.to_owned()),
        stop_sequence,
        citations: (0..directives.citations.unwrap_or(0)).map(citation).collect(),
        usage,
    }
}

fn citation(number: usize) -> String {
    format!(
        r#"{{"type":"web_search_result_location","url":"https://example.com/{number}","title":"Source {number}","encrypted_index":"mock","cited_text":"mock"}}"#
    )
}

/// Whether a signature may be the one of this thinking. Those of others are taken; omitted thinking comes back empty,
/// under the signature of what was omitted.
pub fn is_proof_of(given: &str, thinking: &str) -> bool {
    !given.starts_with(SIGNATURE_PREFIX) || thinking.is_empty() || given == proof(thinking)
}

/// The signature of a thinking block: letters that depend on every letter of it.
pub fn proof(thinking: &str) -> String {
    let mut signature = SIGNATURE_PREFIX.to_owned();
    let mut hash = answer::fnv(7, thinking.as_bytes());
    for _ in 0..4 {
        hash = answer::fnv(hash, SIGNATURE_PREFIX.as_bytes());
        signature.push_str(&format!("{hash:016x}"));
    }
    signature.push_str("==");
    signature
}

fn usage_json(usage: &Usage, output: u64, full: bool) -> String {
    let writes = usage.write_5m.saturating_add(usage.write_1h);
    let common = format!(
        r#""input_tokens":{},"cache_creation_input_tokens":{writes},"cache_read_input_tokens":{},"#,
        usage.input, usage.read
    );
    let thinking = match usage.thinking {
        0 => String::new(),
        tokens if output > 1 => {
            format!(r#","output_tokens_details":{{"thinking_tokens":{tokens}}}"#)
        }
        _ => String::new(),
    };
    if full {
        format!(
            r#"{{{common}"cache_creation":{{"ephemeral_5m_input_tokens":{},"ephemeral_1h_input_tokens":{}}},"output_tokens":{output}{thinking},"service_tier":"standard"}}"#,
            usage.write_5m, usage.write_1h
        )
    } else {
        format!(r#"{{{common}"output_tokens":{output}{thinking}}}"#)
    }
}

fn stop_json(said: &Said<'_>) -> String {
    let details = match said.stop_reason.as_str() {
        "refusal" => r#","stop_details":{"type":"refusal","category":"cyber","explanation":null}"#,
        _ => "",
    };
    format!(
        r#""stop_reason":{},"stop_sequence":{}{details}"#,
        json_string(&said.stop_reason),
        said.stop_sequence.as_deref().map_or_else(|| "null".to_owned(), json_string)
    )
}

fn whole(request: &MessagesRequest<'_>, said: &Said<'_>, id: &str, directives: &Directives) -> String {
    let blocks: Vec<String> = said
        .blocks
        .iter()
        .map(|block| match block {
            Block::Thinking { answer, omitted } => format!(
                r#"{{"type":"thinking","thinking":{},"signature":"{}"}}"#,
                json_string(if *omitted { "" } else { &answer.text }),
                proof(&answer.text)
            ),
            Block::Text(answer) if !said.citations.is_empty() => format!(
                r#"{{"type":"text","text":{},"citations":[{}]}}"#,
                json_string(&answer.text),
                said.citations.join(",")
            ),
            Block::Text(answer) => {
                format!(r#"{{"type":"text","text":{}}}"#, json_string(&answer.text))
            }
            Block::ToolUse { id, name, input, .. } => {
                format!(r#"{{"type":"tool_use","id":"{id}","name":{},"input":{input}}}"#, json_string(name))
            }
        })
        .collect();
    let usage = if directives.no_usage {
        String::new()
    } else {
        format!(r#","usage":{}"#, usage_json(&said.usage, said.usage.output, true))
    };
    format!(
        r#"{{"model":{},"id":"{id}","type":"message","role":"assistant","content":[{}],{}{usage}}}"#,
        json_string(request.model),
        blocks.join(","),
        stop_json(said)
    )
}

fn stream(request: &MessagesRequest<'_>, said: &Said<'_>, id: &str, directives: &Directives) -> EventStream {
    let failure = ApiError {
        status: 529,
        message: directives.error_message.clone().unwrap_or_else(|| "Overloaded".to_owned()),
        kind: directives.error_type.clone(),
        code: directives.error_code.clone(),
        param: None,
    };
    let failure = Event::fixed(Kind::Done, Some("error"), error_body(&failure, &id.replace("msg_", "req_")));
    let mut events = EventStream::new(Framing::Sse, failure);
    let usage = if directives.no_usage {
        String::new()
    } else {
        // The first event counts the input; one output token has been made by then.
        let first = said.usage.output.min(1);
        format!(r#","usage":{}"#, usage_json(&said.usage, first, true))
    };
    events.push(
        Kind::Opening,
        Some("message_start"),
        format!(
            r#"{{"type":"message_start","message":{{"model":{},"id":"{id}","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null{usage}}}}}"#,
            json_string(request.model)
        ),
    );
    for (index, block) in said.blocks.iter().enumerate() {
        push_block(&mut events, index, block, &said.citations);
    }
    let usage = if directives.no_usage {
        String::new()
    } else {
        format!(r#","usage":{}"#, usage_json(&said.usage, said.usage.output, false))
    };
    events.push(
        Kind::Finish,
        Some("message_delta"),
        format!(r#"{{"type":"message_delta","delta":{{{}}}{usage}}}"#, stop_json(said)),
    );
    events.push(Kind::Done, Some("message_stop"), r#"{"type":"message_stop"}"#.to_owned());
    events
}

fn push_block(events: &mut EventStream, index: usize, block: &Block<'_>, citations: &[String]) {
    const DELTA: Option<&str> = Some("content_block_delta");
    let start = match block {
        Block::Thinking { .. } => r#"{"type":"thinking","thinking":"","signature":""}"#.to_owned(),
        Block::Text(_) => r#"{"type":"text","text":""}"#.to_owned(),
        Block::ToolUse { id, name, .. } => {
            format!(r#"{{"type":"tool_use","id":"{id}","name":{},"input":{{}}}}"#, json_string(name))
        }
    };
    events.push(
        Kind::Opening,
        Some("content_block_start"),
        format!(r#"{{"type":"content_block_start","index":{index},"content_block":{start}}}"#),
    );
    if index == 0 {
        events.push(Kind::Opening, Some("ping"), r#"{"type": "ping"}"#.to_owned());
    }
    let delta = |kind: &str, field: &str| {
        format!(r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"{kind}","{field}":"#)
    };
    let push_all = |events: &mut EventStream, head: String, source: &str, pieces: &[Span]| {
        let template =
            events.template(Template { name: DELTA, head, source: source.to_owned(), tail: "}}".to_owned() });
        for piece in pieces {
            events.push_delta(template, *piece);
        }
    };
    match block {
        Block::Text(answer) => {
            push_all(events, delta("text_delta", "text"), &answer.text, &answer.pieces);
            for citation in citations {
                events.push(Kind::Opening, DELTA, format!("{}{citation}}}}}", delta("citations_delta", "citation")));
            }
        }
        Block::ToolUse { input, pieces, .. } => {
            // The real API opens arguments with an empty delta.
            let head = delta("input_json_delta", "partial_json");
            events.push(Kind::Opening, DELTA, format!(r#"{head}""}}}}"#));
            push_all(events, head, input, pieces);
        }
        Block::Thinking { answer, omitted } => {
            let pieces: &[Span] = if *omitted { &[] } else { &answer.pieces };
            push_all(events, delta("thinking_delta", "thinking"), &answer.text, pieces);
            let head = delta("signature_delta", "signature");
            events.push(Kind::Opening, DELTA, format!(r#"{head}"{}"}}}}"#, proof(&answer.text)));
        }
    }
    events.push(
        Kind::Opening,
        Some("content_block_stop"),
        format!(r#"{{"type":"content_block_stop","index":{index}}}"#),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;
    use serde_json::json;

    /// Anthropic took these: the checks take them as well.
    #[test]
    fn every_recorded_request_passes() {
        let mut seen = 0;
        for (id, exchange, _) in recorded::exchanges("anthropic") {
            let body = &exchange["request"]["body"];
            if body.is_object() && exchange["response"]["status"] == 200 {
                let told = check(body, &FIELDS, true, true).err().map(|error| error.message);
                assert_eq!(told, None, "{id}");
                seen += 1;
            }
        }
        assert!(seen >= 20 || !recorded::present(), "{seen}");
    }

    #[test]
    fn a_fifth_cache_mark_is_one_too_many() {
        let told = |marks: usize| {
            let block = json!({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}});
            let body = json!({
                "model": "m", "max_tokens": 10,
                "messages": [{"role": "user", "content": vec![block; marks]}],
                "cache_control": {"type": "ephemeral"},
            });
            check(&body, &FIELDS, false, true).err().map(|error| error.message)
        };
        assert_eq!(told(3), None);
        assert!(told(4).unwrap().contains("maximum of 4 blocks with cache_control may be provided. Found 5"));
    }

    #[test]
    fn the_generations_of_claude_have_rules_of_their_own() {
        let told = |model: &str, more: Value| {
            let mut body = json!({"model": model, "max_tokens": 3000, "messages": [{"role": "user", "content": "a"}]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            check(&body, &FIELDS, false, true).map_or_else(|error| error.message, |_| String::new())
        };
        let budget = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
        assert_eq!(told("claude-sonnet-4-5", budget.clone()), "");
        assert!(told("claude-opus-4-7", budget).contains("thinking.type.adaptive"));
        assert!(told("claude-opus-4-7", json!({"temperature": 0.2})).contains("`temperature` is deprecated"));
        assert!(told("claude-opus-4-5", json!({"output_config": {"effort": "max"}})).contains("effort"));
        let prefill = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
        assert!(told("claude-opus-4-6", prefill.clone()).contains("does not support assistant message prefill"));
        assert_eq!(told("claude-sonnet-4-5", prefill), "");
    }

    fn refusal(messages: Value) -> String {
        let body = json!({"model": "m", "max_tokens": 10, "messages": messages});
        match check(&body, &FIELDS, false, true) {
            Ok(_) => String::new(),
            Err(error) => error.message,
        }
    }

    #[test]
    fn every_tool_use_is_answered_at_once() {
        let call = json!({"type": "tool_use", "id": "a", "name": "f", "input": {}});
        let result = json!({"type": "tool_result", "tool_use_id": "a", "content": "1"});
        let user = json!({"role": "user", "content": "hi"});
        let assistant = json!({"role": "assistant", "content": [call]});
        assert_eq!(refusal(json!([user, assistant, {"role": "user", "content": [result]}])), "");
        assert!(refusal(json!([user, assistant])).starts_with("messages.1: `tool_use` ids were found without"));
        assert!(refusal(json!([user, assistant, user])).contains("immediately after: a."));
        let late = json!([user, assistant, {"role": "user", "content": [{"type": "text", "text": "x"}, result]}]);
        assert!(refusal(late).contains("immediately after: a."));
        let stray = json!([{"role": "user", "content": [result]}]);
        assert!(refusal(stray).starts_with("messages.0.content.0: unexpected `tool_use_id`"));
    }

    #[test]
    fn foreign_fields_are_refused_wherever_they_stand() {
        assert_eq!(
            refusal(json!([{"role": "user", "content": "x", "name": "n"}])),
            "messages.0.name: Extra inputs are not permitted"
        );
        assert_eq!(
            refusal(json!([{"role": "user", "content": [{"type": "text", "text": "x", "foo": 1}]}])),
            "messages.0.content.0.text.foo: Extra inputs are not permitted"
        );
        let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "n": 1});
        let error = check(&body, &FIELDS, false, true).err().unwrap();
        assert_eq!(error.message, "n: Extra inputs are not permitted");
    }

    #[test]
    fn a_changed_thinking_block_is_noticed() {
        let with = |thinking: &str| {
            let block = json!({"type": "thinking", "thinking": thinking, "signature": proof("so it is")});
            refusal(json!([
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": [block, {"type": "text", "text": "y"}]},
                {"role": "user", "content": "z"},
            ]))
        };
        assert_eq!(with("so it is"), "");
        assert_eq!(with("so it was"), "messages.1.content.0: Invalid `signature` in `thinking` block");
    }

    #[test]
    fn the_numbers_of_a_thinking_request_must_fit() {
        let refused = |thinking: Value, max_tokens: u64, temperature: f64| {
            let body = json!({
                "model": "m", "max_tokens": max_tokens, "thinking": thinking, "temperature": temperature,
                "messages": [{"role": "user", "content": "x"}],
            });
            check(&body, &FIELDS, false, true).err().map(|error| error.message).unwrap_or_default()
        };
        assert_eq!(refused(json!({"type": "enabled", "budget_tokens": 1024}), 2000, 1.0), "");
        assert_eq!(
            refused(json!({"type": "enabled", "budget_tokens": 100}), 2000, 1.0),
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        );
        assert!(refused(json!({"type": "enabled", "budget_tokens": 2000}), 2000, 1.0).contains("`max_tokens` must"));
        assert!(refused(json!({"type": "enabled", "budget_tokens": 1024}), 2000, 0.5).contains("`temperature`"));
        assert_eq!(refused(json!({"type": "adaptive"}), 20, 0.5), "");
    }
}
