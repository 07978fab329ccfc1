//! What the API refuses in a conversation.

use serde_json::{Map, Value};

use super::check::{check_cache_control, expected, kind, known, required, text_of};
use super::is_proof_of;
use crate::openai::is_base64;
use crate::reply::ApiError;

/// `beta` lets instructions stand in the middle of a conversation, as newer models take them.
pub fn check_messages(messages: &[Value], thinking: bool, beta: bool) -> Result<(), ApiError> {
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
