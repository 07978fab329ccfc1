//! What the Chat Completions API refuses.

use serde_json::Value;

use super::{ChatRequest, content_text};
use crate::answer::{Limits, Want};
use crate::reply::ApiError;
use crate::responses::{check_sampling, reasons};

/// Longest id of a tool call, in characters.
const MAX_CALL_ID: usize = 40;
/// Most choices of one reply.
const MAX_CHOICES: u64 = 128;

/// Checks a request.
pub fn check(body: &Value) -> Result<ChatRequest<'_>, ApiError> {
    let Some(fields) = body.as_object() else {
        return Err(ApiError::invalid("Invalid type for request body: expected an object."));
    };
    // A null field is as good as none.
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let model = match field("model") {
        None => return Err(ApiError::invalid("you must provide a model parameter")),
        Some(Value::String(model)) if !model.is_empty() => model.as_str(),
        Some(other) => return Err(wrong_type("model", "a string", other)),
    };
    let messages = match field("messages") {
        None => return Err(missing("messages")),
        Some(Value::Array(messages)) => messages.as_slice(),
        Some(other) => return Err(wrong_type("messages", "an array of objects", other)),
    };
    if messages.is_empty() {
        return Err(ApiError::invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array \
             instead.",
        )
        .param("messages")
        .code("empty_array"));
    }
    check_messages(messages)?;
    check_decimal("temperature", field("temperature"), 0.0, 2.0)?;
    check_decimal("top_p", field("top_p"), 0.0, 1.0)?;
    check_decimal("presence_penalty", field("presence_penalty"), -2.0, 2.0)?;
    check_decimal("frequency_penalty", field("frequency_penalty"), -2.0, 2.0)?;
    let max_tokens = check_integer("max_tokens", field("max_tokens"), 1, u64::MAX)?;
    let max_completion = check_integer("max_completion_tokens", field("max_completion_tokens"), 1, u64::MAX)?;
    if max_tokens.is_some() && max_completion.is_some() {
        return Err(ApiError::invalid(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        )
        .param("max_tokens"));
    }
    if max_tokens.is_some() && reasons(model) {
        return Err(ApiError::invalid(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        )
        .param("max_tokens")
        .code("unsupported_parameter"));
    }
    check_sampling(model, field("reasoning_effort").and_then(Value::as_str), fields)?;
    let choices = check_integer("n", field("n"), 1, MAX_CHOICES)?.unwrap_or(1);
    let stream = check_bool("stream", field("stream"))?.unwrap_or(false);
    let include_usage = match field("stream_options") {
        None => false,
        Some(_) if !stream => {
            return Err(ApiError::invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
                .param("stream_options"));
        }
        Some(options) => check_bool("stream_options.include_usage", options.get("include_usage"))?.unwrap_or(false),
    };
    let tools = check_tools(field("tools"))?;
    let (forbidden, forced, named) = check_tool_choice(field("tool_choice"), &tools)?;
    if field("parallel_tool_calls").is_some() && tools.is_empty() {
        return Err(ApiError::invalid(
            "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are \
             specified.",
        )
        .param("parallel_tool_calls"));
    }
    let parallel = check_bool("parallel_tool_calls", field("parallel_tool_calls"))?.unwrap_or(true);
    Ok(ChatRequest {
        model,
        messages,
        stream,
        include_usage,
        choices: usize::try_from(choices).unwrap_or(1),
        limits: Limits { max_tokens: max_tokens.or(max_completion), stop: check_stop(field("stop"))? },
        tools: match named {
            Some(named) => tools.into_iter().filter(|(name, _)| *name == named).collect(),
            None => tools,
        },
        forbidden,
        forced,
        parallel,
        want: check_format(field("response_format"), messages)?,
    })
}

pub fn missing(param: &str) -> ApiError {
    ApiError::invalid(format!("Missing required parameter: '{param}'.")).param(param).code("missing_required_parameter")
}

pub fn wrong_type(param: &str, expected: &str, got: &Value) -> ApiError {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ApiError::invalid(format!("Invalid type for '{param}': expected {expected}, but got {got} instead."))
        .param(param)
        .code("invalid_type")
}

pub fn invalid_value(param: &str, message: String) -> ApiError {
    ApiError::invalid(message).param(param).code("invalid_value")
}

pub fn check_bool(param: &str, value: Option<&Value>) -> Result<Option<bool>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(wrong_type(param, "a boolean", other)),
    }
}

pub fn check_decimal(param: &str, value: Option<&Value>, least: f64, most: f64) -> Result<(), ApiError> {
    let Some(value) = value else { return Ok(()) };
    let Some(number) = value.as_f64() else {
        return Err(wrong_type(param, "a decimal", value));
    };
    let (which, bound, code) = if number > most {
        ("above maximum value. Expected a value <=", most, "decimal_above_max_value")
    } else if number < least {
        ("below minimum value. Expected a value >=", least, "decimal_below_min_value")
    } else {
        return Ok(());
    };
    Err(ApiError::invalid(format!("Invalid '{param}': decimal {which} {bound}, but got {value} instead."))
        .param(param)
        .code(code))
}

pub fn check_integer(param: &str, value: Option<&Value>, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let (which, bound, code) = match value.as_u64() {
        Some(number) if number >= least && number <= most => return Ok(Some(number)),
        Some(number) if number > most => ("above maximum value. Expected a value <=", most, "integer_above_max_value"),
        None if value.as_i64().is_none() => return Err(wrong_type(param, "an integer", value)),
        _ => ("below minimum value. Expected a value >=", least, "integer_below_min_value"),
    };
    Err(ApiError::invalid(format!("Invalid '{param}': integer {which} {bound}, but got {value} instead."))
        .param(param)
        .code(code))
}

pub fn check_stop(value: Option<&Value>) -> Result<Vec<String>, ApiError> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(stop)) => Ok(vec![stop.clone()]),
        Some(Value::Array(stops)) if stops.len() > 4 => Err(ApiError::invalid(format!(
            "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length \
             {} instead.",
            stops.len()
        ))
        .param("stop")
        .code("array_above_max_length")),
        Some(Value::Array(stops)) => stops
            .iter()
            .map(|stop| stop.as_str().map(str::to_owned).ok_or_else(|| wrong_type("stop", "a string", stop)))
            .collect(),
        Some(other) => Err(wrong_type("stop", "one of a string or array of strings", other)),
    }
}

fn check_messages(messages: &[Value]) -> Result<(), ApiError> {
    const ROLES: [&str; 6] = ["system", "assistant", "user", "function", "tool", "developer"];
    // Tool calls that still wait for their result, and the message that made them.
    let mut pending: Vec<&str> = Vec::new();
    let mut caller = None;
    for (at, message) in messages.iter().enumerate() {
        if !message.is_object() {
            return Err(wrong_type(&format!("messages[{at}]"), "an object", message));
        }
        let param = format!("messages[{at}].role");
        let role = match message.get("role") {
            None | Some(Value::Null) => return Err(missing(&param)),
            Some(Value::String(role)) if ROLES.contains(&role.as_str()) => role.as_str(),
            Some(other) => {
                let given = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
                return Err(invalid_value(
                    &param,
                    format!(
                        "Invalid value: '{given}'. Supported values are: 'system', 'assistant', 'user', 'function', \
                         'tool', and 'developer'."
                    ),
                ));
            }
        };
        if role == "tool" {
            check_tool_message(at, message, &mut pending, caller.is_some())?;
        } else {
            answered(&pending, caller)?;
            caller = None;
        }
        check_content(at, role, message)?;
        if role == "assistant" {
            pending = check_calls(at, message)?;
            caller = (!pending.is_empty()).then_some(at);
        }
    }
    answered(&pending, caller)
}

fn check_tool_message<'a>(
    at: usize,
    message: &'a Value,
    pending: &mut Vec<&'a str>,
    called: bool,
) -> Result<(), ApiError> {
    let Some(id) = message.get("tool_call_id").and_then(Value::as_str) else {
        return Err(missing(&format!("messages[{at}].tool_call_id")));
    };
    if !called {
        return Err(ApiError::invalid(
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with \
             'tool_calls'.",
        )
        .param(format!("messages.[{at}].role")));
    }
    match pending.iter().position(|call| *call == id) {
        Some(place) => {
            pending.remove(place);
            Ok(())
        }
        None => Err(ApiError::invalid(format!(
            "Invalid parameter: 'tool_call_id' of '{id}' not found in 'tool_calls' of previous message."
        ))
        .param(format!("messages.[{at}].tool_call_id"))),
    }
}

fn answered(pending: &[&str], caller: Option<usize>) -> Result<(), ApiError> {
    match caller {
        Some(caller) if !pending.is_empty() => Err(ApiError::invalid(format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each \
             'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            pending.join(", ")
        ))
        .param(format!("messages.[{caller}].role"))),
        _ => Ok(()),
    }
}

/// The ids of the tool calls an assistant message makes.
fn check_calls(at: usize, message: &Value) -> Result<Vec<&str>, ApiError> {
    let Some(calls) = message.get("tool_calls").filter(|calls| !calls.is_null()) else {
        return Ok(Vec::new());
    };
    let param = format!("messages[{at}].tool_calls");
    let Some(calls) = calls.as_array() else {
        return Err(wrong_type(&param, "an array of objects", calls));
    };
    if calls.is_empty() {
        return Err(ApiError::invalid(format!(
            "Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
        ))
        .param(param)
        .code("empty_array"));
    }
    let mut ids = Vec::with_capacity(calls.len());
    for (number, call) in calls.iter().enumerate() {
        let Some(id) = call.get("id").and_then(Value::as_str) else {
            return Err(missing(&format!("{param}[{number}].id")));
        };
        if id.chars().count() > MAX_CALL_ID {
            return Err(ApiError::invalid(format!(
                "Invalid '{param}[{number}].id': string too long. Expected a string with maximum length \
                 {MAX_CALL_ID}, but got a string with length {} instead.",
                id.chars().count()
            ))
            .param(format!("{param}[{number}].id"))
            .code("string_above_max_length"));
        }
        if call.get("type").and_then(Value::as_str).is_none() {
            return Err(missing(&format!("{param}[{number}].type")));
        }
        for name in ["name", "arguments"] {
            let value = call.pointer(&format!("/function/{name}"));
            if call.get("custom").is_none() && value.and_then(Value::as_str).is_none() {
                return Err(missing(&format!("{param}[{number}].function.{name}")));
            }
        }
        ids.push(id);
    }
    Ok(ids)
}

fn check_content(at: usize, role: &str, message: &Value) -> Result<(), ApiError> {
    let param = format!("messages[{at}].content");
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => {
            for (number, part) in parts.iter().enumerate() {
                check_part(&format!("{param}[{number}]"), role, part)?;
            }
            Ok(())
        }
        None | Some(Value::Null) => {
            let excused = ["tool_calls", "function_call", "refusal", "audio"]
                .iter()
                .any(|name| message.get(name).is_some_and(|value| !value.is_null()));
            if role == "assistant" && excused {
                return Ok(());
            }
            Err(ApiError::invalid("Invalid value for 'content': expected a string, got null.")
                .param(format!("messages.[{at}].content")))
        }
        Some(other) => Err(wrong_type(&param, "one of a string or array of objects", other)),
    }
}

fn check_part(param: &str, role: &str, part: &Value) -> Result<(), ApiError> {
    let allowed: &[&str] = match role {
        "user" => &["text", "image_url", "input_audio", "file"],
        "assistant" => &["text", "refusal"],
        _ => &["text"],
    };
    let Some(kind) = part.get("type").and_then(Value::as_str) else {
        return Err(missing(&format!("{param}.type")));
    };
    if !allowed.contains(&kind) {
        return Err(invalid_value(
            &format!("{param}.type"),
            format!("Invalid value: '{kind}'. Supported values are: '{}'.", allowed.join("', '")),
        ));
    }
    match kind {
        "text" if part.get("text").and_then(Value::as_str).is_none() => Err(missing(&format!("{param}.text"))),
        "image_url" => {
            let param = format!("{param}.image_url.url");
            match part.pointer("/image_url/url").and_then(Value::as_str) {
                None => Err(missing(&param)),
                Some(url) => check_image(url).map_err(|problem| invalid_value(&param, problem)),
            }
        }
        _ => Ok(()),
    }
}

/// An image may be a web address or a base64 data URL of an image type.
pub fn check_image(url: &str) -> Result<(), String> {
    if let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) {
        return if rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace) {
            Err(format!("Failed to download image from {url}."))
        } else {
            Ok(())
        };
    }
    let Some((kind, data)) = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) else {
        return Err(
            "Invalid image URL: expected an http(s) URL or a base64-encoded data URL with an image MIME type (e.g. \
             'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU=')."
                .to_owned(),
        );
    };
    if !["image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"].contains(&kind) {
        return Err(format!("Invalid MIME type '{kind}'. Only image types are supported: png, jpeg, gif, webp."));
    }
    if !is_base64(data) {
        return Err("Invalid base64 image data.".to_owned());
    }
    Ok(())
}

/// Whether this is non-empty padded base64.
pub fn is_base64(data: &str) -> bool {
    let letters = data.trim_end_matches('=');
    !letters.is_empty()
        && data.len().is_multiple_of(4)
        && data.len() - letters.len() <= 2
        && letters.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

/// Names and parameter schemas of the function tools.
fn check_tools(tools: Option<&Value>) -> Result<Vec<(&str, &Value)>, ApiError> {
    let Some(tools) = tools else {
        return Ok(Vec::new());
    };
    let Some(tools) = tools.as_array() else {
        return Err(wrong_type("tools", "an array of objects", tools));
    };
    if tools.is_empty() {
        return Err(ApiError::invalid(
            "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        )
        .param("tools")
        .code("empty_array"));
    }
    let mut functions = Vec::with_capacity(tools.len());
    for (at, tool) in tools.iter().enumerate() {
        match tool.get("type").and_then(Value::as_str) {
            None => return Err(missing(&format!("tools[{at}].type"))),
            Some("function") => {}
            Some("custom") => continue,
            Some(other) => {
                return Err(invalid_value(
                    &format!("tools[{at}].type"),
                    format!("Invalid value: '{other}'. Supported values are: 'function' and 'custom'."),
                ));
            }
        }
        let param = format!("tools[{at}].function.name");
        let Some(name) = tool.pointer("/function/name").and_then(Value::as_str) else {
            return Err(missing(&param));
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(invalid_value(
                &param,
                format!(
                    "Invalid '{param}': string does not match pattern. Expected a string that matches the pattern \
                     '^[a-zA-Z0-9_-]+$'."
                ),
            ));
        }
        let parameters = tool.pointer("/function/parameters").unwrap_or(&Value::Null);
        if !parameters.is_null() && parameters.get("type").and_then(Value::as_str) != Some("object") {
            return Err(schema_error(
                &format!("tools[{at}].function.parameters"),
                &format!("function '{name}'"),
                "schema must have type 'object'",
            ));
        }
        if tool.pointer("/function/strict") == Some(&Value::Bool(true)) {
            check_strict(parameters, 0).map_err(|problem| {
                schema_error(&format!("tools[{at}].function.parameters"), &format!("function '{name}'"), &problem)
            })?;
        }
        functions.push((name, parameters));
    }
    Ok(functions)
}

pub fn schema_error(param: &str, of: &str, problem: &str) -> ApiError {
    ApiError::invalid(format!("Invalid schema for {of}: {problem}.")).param(param).code("invalid_function_parameters")
}

/// Strict schemas close every object and require every property.
pub fn check_strict(schema: &Value, depth: usize) -> Result<(), String> {
    let Some(fields) = schema.as_object().filter(|_| depth < 64) else {
        return Ok(());
    };
    if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
        if fields.get("additionalProperties") != Some(&Value::Bool(false)) {
            return Err("'additionalProperties' is required to be supplied and to be false".to_owned());
        }
        let required = fields.get("required").and_then(Value::as_array);
        for name in properties.keys() {
            if !required.is_some_and(|required| required.iter().any(|given| given == name)) {
                return Err(format!(
                    "'required' is required to be supplied and to be an array including every key in properties. \
                     Missing '{name}'"
                ));
            }
        }
    }
    for key in ["properties", "$defs", "definitions"] {
        for nested in fields.get(key).and_then(Value::as_object).into_iter().flat_map(|map| map.values()) {
            check_strict(nested, depth + 1)?;
        }
    }
    for nested in fields.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        check_strict(nested, depth + 1)?;
    }
    fields.get("items").map_or(Ok(()), |items| check_strict(items, depth + 1))
}

/// Whether calls are forbidden, whether one is demanded, and of which tool.
fn check_tool_choice<'a>(
    choice: Option<&'a Value>,
    tools: &[(&'a str, &'a Value)],
) -> Result<(bool, bool, Option<&'a str>), ApiError> {
    let Some(choice) = choice else {
        return Ok((false, false, None));
    };
    if tools.is_empty() && choice.as_str() != Some("none") {
        return Err(ApiError::invalid(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
        )
        .param("tool_choice"));
    }
    if let Some(name) = choice.pointer("/function/name").and_then(Value::as_str) {
        if tools.iter().all(|(tool, _)| *tool != name) {
            return Err(
                ApiError::invalid(format!("Tool choice '{name}' not found in 'tools' parameter.")).param("tool_choice")
            );
        }
        return Ok((false, true, Some(name)));
    }
    let mode = choice.as_str().or_else(|| choice.pointer("/allowed_tools/mode").and_then(Value::as_str));
    match mode {
        Some("none") => Ok((true, false, None)),
        Some("auto") => Ok((false, false, None)),
        Some("required") => Ok((false, true, None)),
        _ => Err(invalid_value(
            "tool_choice",
            format!("Invalid value: {choice}. Supported values are: 'none', 'auto', and 'required'."),
        )),
    }
}

fn check_format<'a>(format: Option<&'a Value>, messages: &[Value]) -> Result<Want<'a>, ApiError> {
    let Some(format) = format else {
        return Ok(Want::Prose);
    };
    match format.get("type").and_then(Value::as_str) {
        None => Err(missing("response_format.type")),
        Some("text") => Ok(Want::Prose),
        Some("json_object") => {
            let said = |message: &Value| {
                message
                    .get("content")
                    .and_then(content_text)
                    .is_some_and(|text| text.to_ascii_lowercase().contains("json"))
            };
            if messages.iter().any(said) {
                return Ok(Want::JsonObject);
            }
            Err(ApiError::invalid(
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type \
                 'json_object'.",
            )
            .param("messages"))
        }
        Some("json_schema") => {
            let Some(name) = format.pointer("/json_schema/name").and_then(Value::as_str) else {
                return Err(missing("response_format.json_schema.name"));
            };
            let Some(schema) = format.pointer("/json_schema/schema") else {
                return Err(missing("response_format.json_schema.schema"));
            };
            if format.pointer("/json_schema/strict") == Some(&Value::Bool(true)) {
                check_strict(schema, 0).map_err(|problem| {
                    schema_error("response_format", &format!("response_format '{name}'"), &problem)
                        .code("invalid_json_schema")
                })?;
            }
            Ok(Want::Json(schema))
        }
        Some(other) => Err(invalid_value(
            "response_format.type",
            format!("Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and 'text'."),
        )),
    }
}
