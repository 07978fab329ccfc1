//! What the API refuses in a request, its conversation apart.

use serde_json::{Map, Value};

use super::conversation::check_messages;
use super::{BETA_FIELDS, MessagesRequest, unauthorised};
use crate::answer::{Limits, Want};
use crate::claude;
use crate::http::Request;
use crate::reply::ApiError;

pub fn check_headers(http: &Request<'_>) -> Result<(), ApiError> {
    if http.header("x-api-key").is_none() && http.header("authorization").is_none() {
        return Err(unauthorised(http));
    }
    if http.header("anthropic-version").is_none() {
        return Err(ApiError::invalid("anthropic-version: header is required"));
    }
    Ok(())
}

pub fn required(path: &str) -> ApiError {
    ApiError::invalid(format!("{path}: Field required"))
}

pub fn extra(path: &str) -> ApiError {
    ApiError::invalid(format!("{path}: Extra inputs are not permitted"))
}

pub fn expected(path: &str, what: &str) -> ApiError {
    ApiError::invalid(format!("{path}: Input should be {what}"))
}

pub fn text_of<'a>(map: &'a Map<String, Value>, key: &str, path: &str) -> Result<&'a str, ApiError> {
    match map.get(key) {
        None => Err(required(&format!("{path}{key}"))),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(expected(&format!("{path}{key}"), "a valid string")),
    }
}

pub fn known(map: &Map<String, Value>, fields: &[&str], path: &str) -> Result<(), ApiError> {
    match map.keys().find(|key| !fields.contains(&key.as_str())) {
        Some(key) => Err(extra(&format!("{path}{key}"))),
        None => Ok(()),
    }
}

pub fn check<'a>(
    body: &'a Value,
    fields: &[&str],
    beta: bool,
    generates: bool,
) -> Result<MessagesRequest<'a>, ApiError> {
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

pub fn check_cache_control(block: &Map<String, Value>, path: &str) -> Result<(), ApiError> {
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

pub fn kind(block: &Value) -> &str {
    block.get("type").and_then(Value::as_str).unwrap_or_default()
}
