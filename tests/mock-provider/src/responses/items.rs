//! What the Responses API refuses of the items in `input`. Unknown members are refused in the items that models are
//! told of; what only hosted tools know is let through.

use serde_json::{Map, Value};

use super::check::{Input, Strictness, closed_members, too_long, unsupported_value};
use crate::openai::{check_image, invalid_value, missing, wrong_type};
use crate::reply::ApiError;

/// Items that only hosted tools and compaction make: their members are nobody's business here.
const OTHER_ITEMS: [&str; 26] = [
    "apply_patch_call",
    "apply_patch_call_output",
    "code_interpreter_call",
    "compaction",
    "compaction_trigger",
    "computer_call",
    "computer_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "file_search_call",
    "image_generation_call",
    "item_reference",
    "local_shell_call",
    "local_shell_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
    "program",
    "program_output",
    "shell_call",
    "shell_call_output",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
    "additional_tools",
];

/// Longest `call_id`, in characters.
const MAX_CALL_ID: usize = 64;

/// Checks what is said to the model.
pub(super) fn check_input(input: Option<&Value>, strictness: Strictness) -> Result<Option<Input<'_>>, ApiError> {
    let items = match input {
        None => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(Input::Text(text))),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_type("input", "one of a string or array of objects", other)),
    };
    for (at, item) in items.iter().enumerate() {
        check_item(&format!("input[{at}]"), item, strictness)?;
    }
    if strictness == Strictness::Closed {
        check_pairs(items)?;
    }
    Ok(Some(Input::Items(items)))
}

fn check_item(place: &str, item: &Value, strictness: Strictness) -> Result<(), ApiError> {
    let Some(fields) = item.as_object() else {
        return Err(wrong_type(place, "an object", item));
    };
    let closed = strictness == Strictness::Closed;
    let demand = |name: &str| match fields.get(name) {
        None => Err(missing(&format!("{place}.{name}"))),
        Some(Value::String(_)) => Ok(()),
        Some(other) => Err(wrong_type(&format!("{place}.{name}"), "a string", other)),
    };
    let id = |prefix: &str| match fields.get("id").and_then(Value::as_str) {
        Some(id) if closed && !id.starts_with(prefix) => Err(invalid_value(
            &format!("{place}.id"),
            format!("Invalid '{place}.id': '{id}'. Expected an ID that begins with '{prefix}'."),
        )),
        _ => Ok(()),
    };
    let members = |known: &[&str]| if closed { closed_members(place, item, known) } else { Ok(()) };
    let call_id = || {
        demand("call_id")?;
        let length = fields.get("call_id").and_then(Value::as_str).unwrap_or_default().chars().count();
        if length > MAX_CALL_ID {
            return Err(too_long(&format!("{place}.call_id"), "string too long", length, MAX_CALL_ID));
        }
        Ok(())
    };
    match fields.get("type").and_then(Value::as_str) {
        None | Some("message") => {
            members(&["type", "id", "role", "content", "status", "phase"])?;
            id("msg")?;
            check_message(place, fields, strictness)
        }
        Some("function_call") => {
            members(&["type", "id", "call_id", "name", "arguments", "status", "namespace", "caller"])?;
            id("fc")?;
            call_id()?;
            demand("name")?;
            demand("arguments")
        }
        Some("function_call_output") => {
            members(&["type", "id", "call_id", "output", "status", "caller"])?;
            call_id()?;
            match fields.get("output") {
                None => Err(missing(&format!("{place}.output"))),
                Some(Value::String(_)) => Ok(()),
                Some(Value::Array(parts)) => {
                    check_parts(&format!("{place}.output"), parts, &["input_text", "input_image", "input_file"], closed)
                }
                Some(other) => {
                    Err(wrong_type(&format!("{place}.output"), "one of a string or array of objects", other))
                }
            }
        }
        Some("reasoning") => {
            members(&["type", "id", "summary", "content", "encrypted_content", "status"])?;
            id("rs")?;
            if closed && !fields.get("summary").is_some_and(Value::is_array) {
                return Err(missing(&format!("{place}.summary")));
            }
            Ok(())
        }
        Some(other) if closed && !OTHER_ITEMS.contains(&other) => {
            let mut known = vec!["message", "function_call", "function_call_output", "reasoning"];
            known.extend(OTHER_ITEMS);
            Err(unsupported_value(place, other, &known))
        }
        Some(_) => Ok(()),
    }
}

fn check_message(place: &str, fields: &Map<String, Value>, strictness: Strictness) -> Result<(), ApiError> {
    const ROLES: [&str; 4] = ["assistant", "system", "developer", "user"];
    let role = match fields.get("role") {
        None => return Err(missing(&format!("{place}.role"))),
        Some(Value::String(role)) if ROLES.contains(&role.as_str()) => role.as_str(),
        Some(other) => {
            let given = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            return Err(unsupported_value(&format!("{place}.role"), &given, &ROLES));
        }
    };
    let closed = strictness == Strictness::Closed;
    match fields.get("content") {
        None | Some(Value::Null) => Err(missing(&format!("{place}.content"))),
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) if role == "assistant" => {
            check_parts(&format!("{place}.content"), parts, &["output_text", "refusal"], closed)
        }
        Some(Value::Array(parts)) => check_parts(
            &format!("{place}.content"),
            parts,
            &["input_text", "input_image", "input_file", "input_audio", "computer_screenshot"],
            closed,
        ),
        Some(other) => Err(wrong_type(&format!("{place}.content"), "one of a string or array of objects", other)),
    }
}

fn check_parts(place: &str, parts: &[Value], kinds: &[&str], closed: bool) -> Result<(), ApiError> {
    for (at, part) in parts.iter().enumerate() {
        let place = format!("{place}[{at}]");
        let kind = match part.get("type").and_then(Value::as_str) {
            None => return Err(missing(&format!("{place}.type"))),
            Some(kind) if closed && !kinds.contains(&kind) => {
                return Err(unsupported_value(&format!("{place}.type"), kind, kinds));
            }
            Some(kind) => kind,
        };
        let text = |name: &str| part.get(name).and_then(Value::as_str);
        match kind {
            "input_text" | "output_text" if text("text").is_none() => return Err(missing(&format!("{place}.text"))),
            "refusal" if text("refusal").is_none() => return Err(missing(&format!("{place}.refusal"))),
            "input_image" => match (text("image_url"), text("file_id")) {
                (None, None) => return Err(missing(&format!("{place}.image_url"))),
                (Some(url), _) if closed => {
                    let param = format!("{place}.image_url");
                    check_image(url).map_err(|problem| invalid_value(&param, problem))?;
                }
                _ => {}
            },
            "input_file" if ["file_id", "file_data", "file_url"].iter().all(|name| text(name).is_none()) => {
                return Err(missing(&format!("{place}.file_id")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Calls and their results must be there both. With a conversation or a previous response the other half may lie
/// with the provider, so only what stands in the input itself is compared: a call that nobody answers.
fn check_pairs(items: &[Value]) -> Result<(), ApiError> {
    let ids = |kind: &'static str| {
        items
            .iter()
            .filter(move |item| item.get("type").and_then(Value::as_str) == Some(kind))
            .filter_map(|item| item.get("call_id").and_then(Value::as_str))
    };
    match ids("function_call").find(|call| !ids("function_call_output").any(|answered| answered == *call)) {
        Some(call) => Err(ApiError::invalid(format!("No tool output found for function call {call}.")).param("input")),
        None => Ok(()),
    }
}

/// The results in the input that no call stands before, neither there nor among `known`.
pub(super) fn check_results(items: &[Value], known: &[Value]) -> Result<(), ApiError> {
    let kind = |item: &Value, wanted: &str| item.get("type").and_then(Value::as_str) == Some(wanted);
    for (at, item) in items.iter().enumerate().filter(|(_, item)| kind(item, "function_call_output")) {
        let earlier = items.iter().take(at).chain(known);
        if !earlier.filter(|call| kind(call, "function_call")).any(|call| call.get("call_id") == item.get("call_id")) {
            let id = item.get("call_id").and_then(Value::as_str).unwrap_or_default();
            return Err(ApiError::invalid(format!("No tool call found for function call output with call_id {id}."))
                .param("input"));
        }
    }
    Ok(())
}
