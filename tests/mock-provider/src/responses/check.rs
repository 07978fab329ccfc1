//! What the Responses API refuses of a request as a whole.

use serde_json::{Map, Value};

use super::items::check_input;
use crate::answer::{Limits, Want};
use crate::openai::{
    check_bool, check_decimal, check_integer, check_strict, invalid_value, missing, schema_error, wrong_type,
};
use crate::reply::ApiError;

/// Members of a request.
const MEMBERS: [&str; 31] = [
    "background",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "moderation",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

/// Members that Chat Completions has under another name.
const MOVED: [(&str, &str); 5] = [
    ("messages", "input"),
    ("max_tokens", "max_output_tokens"),
    ("max_completion_tokens", "max_output_tokens"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
];

const INCLUDABLE: [&str; 8] = [
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
];

/// Tools by the beginning of their type, since several carry a date.
const HOSTED_TOOLS: [&str; 13] = [
    "apply_patch",
    "code_interpreter",
    "computer",
    "custom",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "namespace",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
];

/// Fewest output tokens that can be asked for.
const LEAST_OUTPUT: u64 = 16;
/// Most pairs of `metadata`, and the longest key and value in characters.
const METADATA: (usize, usize, usize) = (16, 64, 512);

/// Whether OpenAI itself is asked, which refuses what it does not know, or somebody who has its API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    Closed,
    Open,
}

/// A request that passed the checks.
#[derive(Debug)]
pub struct Asked<'a> {
    pub model: &'a str,
    pub fields: &'a Map<String, Value>,
    pub input: Input<'a>,
    pub stream: bool,
    pub store: bool,
    pub background: bool,
    pub limits: Limits,
    pub tools: Vec<Tool<'a>>,
    pub forbidden: bool,
    pub forced: bool,
    pub parallel: bool,
    pub want: Want<'a>,
    /// Proofs of reasoning are to be handed out.
    pub encrypted: bool,
    /// A summary of the reasoning is to be told.
    pub summary: bool,
}

/// What is said to the model beside the instructions.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    Text(&'a str),
    Items(&'a [Value]),
}

/// A tool that the caller runs.
#[derive(Debug, Clone, Copy)]
pub struct Tool<'a> {
    pub name: &'a str,
    pub parameters: &'a Value,
    /// It takes free text.
    pub custom: bool,
}

/// Whether a model thinks before it answers, by its name.
pub fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let family = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let gpt = |prefix: &str| name.starts_with(prefix) && !name.contains("chat");
    family("o1") || family("o3") || family("o4") || gpt("gpt-5") || gpt("gpt-6")
}

/// Whether it is known that a model does not think before it answers.
fn never_reasons(model: &str) -> bool {
    ["gpt-4", "gpt-3.5", "chatgpt-4o"].iter().any(|prefix| model.starts_with(prefix))
}

/// Refuses sampling parameters that a reasoning model does not take.
pub fn check_sampling(model: &str, effort: Option<&str>, fields: &Map<String, Value>) -> Result<(), ApiError> {
    // From gpt-5.1 on a model can be told not to think, and then samples like any other.
    if !reasons(model) || effort == Some("none") {
        return Ok(());
    }
    let given = |name: &&str| fields.get(*name).is_some_and(|value| !value.is_null());
    // The values that are the default are let through.
    let default = |name: &&str| match *name {
        "temperature" | "top_p" => fields.get(*name).and_then(Value::as_f64) == Some(1.0),
        "presence_penalty" | "frequency_penalty" => fields.get(*name).and_then(Value::as_f64) == Some(0.0),
        "logprobs" => fields.get(*name) == Some(&Value::Bool(false)),
        _ => false,
    };
    let names =
        ["temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias"];
    match names.iter().find(|name| given(name) && !default(name)) {
        Some(name) => Err(unsupported(name, "is not supported with this model.")),
        None => Ok(()),
    }
}

fn unsupported(param: &str, why: &str) -> ApiError {
    ApiError::invalid(format!("Unsupported parameter: '{param}' {why}")).param(param)
}

fn unknown(param: &str) -> ApiError {
    ApiError::invalid(format!("Unknown parameter: '{param}'.")).param(param).code("unknown_parameter")
}

/// Checks a request to make a response.
pub fn check(body: &Value, strictness: Strictness) -> Result<Asked<'_>, ApiError> {
    let Some(fields) = body.as_object() else {
        return Err(ApiError::invalid("Invalid type for request body: expected an object."));
    };
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let text = |name: &str| match field(name) {
        Some(value) if !value.is_string() => Err(wrong_type(name, "a string", value)),
        value => Ok(value.and_then(Value::as_str)),
    };
    let closed = strictness == Strictness::Closed;
    if closed {
        check_members(fields)?;
    }
    let model = match text("model")? {
        // A stored prompt names the model.
        None if field("prompt").is_some() => "mock-large",
        None => return Err(missing("model")),
        Some(model) => model,
    };
    for name in ["instructions", "previous_response_id", "user", "safety_identifier", "prompt_cache_key"] {
        text(name)?;
    }
    check_decimal("temperature", field("temperature"), 0.0, 2.0)?;
    check_decimal("top_p", field("top_p"), 0.0, 1.0)?;
    check_integer("top_logprobs", field("top_logprobs"), 0, 20)?;
    let least = if closed { LEAST_OUTPUT } else { 1 };
    let max_tokens = check_integer("max_output_tokens", field("max_output_tokens"), least, u64::MAX)?;
    check_metadata(field("metadata"))?;
    check_words("truncation", field("truncation"), &["auto", "disabled"])?;
    check_words("service_tier", field("service_tier"), &["auto", "default", "flex", "scale", "priority", "fast"])?;
    let effort = body.pointer("/reasoning/effort").filter(|effort| !effort.is_null());
    if closed {
        check_words("reasoning.effort", effort, &["none", "minimal", "low", "medium", "high", "xhigh", "max"])?;
        if effort.is_some() && never_reasons(model) {
            return Err(
                unsupported("reasoning.effort", "is not supported with this model.").code("unsupported_parameter")
            );
        }
        check_sampling(model, effort.and_then(Value::as_str), fields)?;
    }
    let stream = check_bool("stream", field("stream"))?.unwrap_or(false);
    match field("stream_options") {
        Some(_) if !stream => {
            return Err(ApiError::invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
                .param("stream_options"));
        }
        Some(options) if closed => closed_members("stream_options", options, &["include_obfuscation"])?,
        _ => {}
    }
    let input = check_input(field("input"), strictness)?;
    if input.is_none() && ["previous_response_id", "prompt", "conversation"].iter().all(|name| field(name).is_none()) {
        return Err(ApiError::invalid(
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be provided.",
        )
        .param("input")
        .code("missing_required_parameter"));
    }
    let encrypted = check_include(field("include"), strictness)?;
    if closed && encrypted && never_reasons(model) {
        return Err(ApiError::invalid("Encrypted content is not supported with this model.").param("include"));
    }
    let tools = check_tools(field("tools"))?;
    let (forbidden, forced, named) = check_choice(field("tool_choice"), field("tools"))?;
    Ok(Asked {
        model,
        fields,
        stream,
        store: check_bool("store", field("store"))?.unwrap_or(true),
        background: check_bool("background", field("background"))?.unwrap_or(false),
        limits: Limits { max_tokens, stop: Vec::new() },
        tools: tools.into_iter().filter(|tool| named.is_none_or(|named| tool.name == named)).collect(),
        forbidden,
        forced,
        parallel: check_bool("parallel_tool_calls", field("parallel_tool_calls"))?.unwrap_or(true),
        want: check_format(body, input.as_ref())?,
        input: input.unwrap_or(Input::Items(&[])),
        encrypted,
        summary: body.pointer("/reasoning/summary").is_some_and(Value::is_string),
    })
}

fn check_members(fields: &Map<String, Value>) -> Result<(), ApiError> {
    for name in fields.keys() {
        if let Some((_, place)) = MOVED.iter().find(|(old, _)| old == name) {
            let why = format!(
                "In the Responses API, this parameter has moved to '{place}'. Try again with the new parameter. See the \
                 API documentation for more information: https://platform.openai.com/docs/api-reference/responses/create."
            );
            return Err(ApiError::invalid(format!("Unsupported parameter: '{name}'. {why}"))
                .param(name)
                .code("unsupported_parameter"));
        }
        if !MEMBERS.contains(&name.as_str()) {
            return Err(unknown(name));
        }
    }
    Ok(())
}

pub(super) fn closed_members(place: &str, object: &Value, known: &[&str]) -> Result<(), ApiError> {
    let names = object.as_object().into_iter().flat_map(Map::keys);
    match names.into_iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(unknown(&format!("{place}.{name}"))),
        None => Ok(()),
    }
}

fn check_words(param: &str, value: Option<&Value>, words: &[&str]) -> Result<(), ApiError> {
    match value {
        None => Ok(()),
        Some(Value::String(word)) if words.contains(&word.as_str()) => Ok(()),
        Some(Value::String(word)) => Err(unsupported_value(param, word, words)),
        Some(other) => Err(wrong_type(param, "a string", other)),
    }
}

pub(super) fn unsupported_value(param: &str, given: &str, supported: &[&str]) -> ApiError {
    let supported = match supported.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("'{}', and '{last}'", rest.join("', '")),
        _ => format!("'{}'", supported.join("', '")),
    };
    invalid_value(param, format!("Invalid value: '{given}'. Supported values are: {supported}."))
}

fn check_metadata(metadata: Option<&Value>) -> Result<(), ApiError> {
    let Some(metadata) = metadata else { return Ok(()) };
    let Some(pairs) = metadata.as_object() else {
        return Err(wrong_type("metadata", "an object", metadata));
    };
    let (most, longest_key, longest_value) = METADATA;
    if pairs.len() > most {
        return Err(ApiError::invalid(format!(
            "Invalid 'metadata': too many properties. Expected an object with at most {most} properties, but got an \
             object with {} properties instead.",
            pairs.len()
        ))
        .param("metadata")
        .code("object_above_max_properties"));
    }
    for (key, value) in pairs {
        let Some(text) = value.as_str() else {
            return Err(wrong_type(&format!("metadata.{key}"), "a string", value));
        };
        for (what, length, longest) in
            [("key", key.chars().count(), longest_key), ("value", text.chars().count(), longest_value)]
        {
            if length > longest {
                return Err(too_long(&format!("metadata.{key}"), &format!("{what} too long"), length, longest));
            }
        }
    }
    Ok(())
}

pub(super) fn too_long(param: &str, what: &str, length: usize, longest: usize) -> ApiError {
    ApiError::invalid(format!(
        "Invalid '{param}': {what}. Expected a string with maximum length {longest}, but got a string with length \
         {length} instead."
    ))
    .param(param)
    .code("string_above_max_length")
}

fn check_include(include: Option<&Value>, strictness: Strictness) -> Result<bool, ApiError> {
    let Some(include) = include else { return Ok(false) };
    let Some(wanted) = include.as_array() else {
        return Err(wrong_type("include", "an array of strings", include));
    };
    for (at, word) in wanted.iter().enumerate() {
        let param = format!("include[{at}]");
        match word.as_str() {
            None => return Err(wrong_type(&param, "a string", word)),
            Some(word) if strictness == Strictness::Closed && !INCLUDABLE.contains(&word) => {
                return Err(unsupported_value(&param, word, &INCLUDABLE));
            }
            Some(_) => {}
        }
    }
    Ok(wanted.iter().any(|word| word == "reasoning.encrypted_content"))
}

// --- Tools and format ----------------------------------------------------------------------------------------

fn check_tools(tools: Option<&Value>) -> Result<Vec<Tool<'_>>, ApiError> {
    let Some(tools) = tools else { return Ok(Vec::new()) };
    let Some(tools) = tools.as_array() else {
        return Err(wrong_type("tools", "an array of objects", tools));
    };
    let mut own = Vec::new();
    for (at, tool) in tools.iter().enumerate() {
        let kind = match tool.get("type").and_then(Value::as_str) {
            None => return Err(missing(&format!("tools[{at}].type"))),
            Some(kind) => kind,
        };
        if !["function", "custom"].contains(&kind) {
            if !HOSTED_TOOLS.iter().any(|known| kind.starts_with(known)) && !kind.contains(':') {
                let mut known = vec!["function"];
                known.extend(HOSTED_TOOLS);
                return Err(unsupported_value(&format!("tools[{at}].type"), kind, &known));
            }
            continue;
        }
        let Some(name) = tool.get("name").and_then(Value::as_str) else {
            return Err(missing(&format!("tools[{at}].name")));
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > 128 || !name.bytes().all(fits) {
            return Err(invalid_value(
                &format!("tools[{at}].name"),
                format!(
                    "Invalid 'tools[{at}].name': string does not match pattern. Expected a string that matches the \
                     pattern '^[a-zA-Z0-9_-]+$'."
                ),
            ));
        }
        let parameters = tool.get("parameters").unwrap_or(&Value::Null);
        let param = format!("tools[{at}].parameters");
        let of = format!("function '{name}'");
        if !parameters.is_null() && parameters.get("type").and_then(Value::as_str) != Some("object") {
            return Err(schema_error(&param, &of, "schema must have type 'object'"));
        }
        if tool.get("strict") == Some(&Value::Bool(true)) {
            check_strict(parameters, 0).map_err(|problem| schema_error(&param, &of, &problem))?;
        }
        own.push(Tool { name, parameters, custom: kind == "custom" });
    }
    Ok(own)
}

/// Whether calls are forbidden, whether one is demanded, and of which tool.
fn check_choice<'a>(
    choice: Option<&'a Value>,
    tools: Option<&Value>,
) -> Result<(bool, bool, Option<&'a str>), ApiError> {
    let Some(choice) = choice else { return Ok((false, false, None)) };
    let offered = tools.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mode = choice.as_str().or_else(|| choice.get("mode").and_then(Value::as_str));
    match (mode, choice.get("type").and_then(Value::as_str)) {
        (Some("none"), _) => Ok((true, false, None)),
        (Some("auto"), _) => Ok((false, false, None)),
        (Some("required"), _) if offered.is_empty() => {
            Err(ApiError::invalid("Tool choice 'required' must be specified with 'tools' parameter.")
                .param("tool_choice"))
        }
        (Some("required"), _) => Ok((false, true, None)),
        (None, Some("function" | "custom")) => {
            let Some(name) = choice.get("name").and_then(Value::as_str) else {
                return Err(missing("tool_choice.name"));
            };
            if offered.iter().all(|tool| tool.get("name").and_then(Value::as_str) != Some(name)) {
                return Err(ApiError::invalid(format!("Tool choice '{name}' not found in 'tools' parameter."))
                    .param("tool_choice"));
            }
            Ok((false, true, Some(name)))
        }
        // A hosted tool is demanded.
        (None, Some(_)) => Ok((false, false, None)),
        _ => Err(invalid_value(
            "tool_choice",
            format!("Invalid value: {choice}. Supported values are: 'none', 'auto', and 'required'."),
        )),
    }
}

fn check_format<'a>(body: &'a Value, input: Option<&Input<'_>>) -> Result<Want<'a>, ApiError> {
    let Some(format) = body.pointer("/text/format").filter(|format| !format.is_null()) else {
        return Ok(Want::Prose);
    };
    match format.get("type").and_then(Value::as_str) {
        None => Err(missing("text.format.type")),
        Some("text") => Ok(Want::Prose),
        Some("json_object") => {
            let said = match input {
                Some(Input::Text(text)) => text.to_ascii_lowercase().contains("json"),
                Some(Input::Items(items)) => items.iter().any(|item| {
                    item.get("content").is_some_and(|content| content.to_string().to_ascii_lowercase().contains("json"))
                }),
                None => true,
            };
            if said {
                return Ok(Want::JsonObject);
            }
            Err(ApiError::invalid(
                "Response input messages must contain the word 'json' in some form to use 'text.format' of type \
                 'json_object'.",
            )
            .param("input"))
        }
        Some("json_schema") => {
            let Some(name) = format.get("name").and_then(Value::as_str) else {
                return Err(missing("text.format.name"));
            };
            let Some(schema) = format.get("schema") else {
                return Err(missing("text.format.schema"));
            };
            if format.get("strict") == Some(&Value::Bool(true)) {
                check_strict(schema, 0).map_err(|problem| {
                    schema_error("text.format.schema", &format!("response_format '{name}'"), &problem)
                        .code("invalid_json_schema")
                })?;
            }
            Ok(Want::Json(schema))
        }
        Some(other) => Err(unsupported_value("text.format.type", other, &["json_object", "json_schema", "text"])),
    }
}
