//! Where a request goes, and its body.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::messages;
use crate::config::StructuredOutput;
use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, Effort, Format, Function, ThinkMode};
use crate::providers::Target;
use crate::providers::functions::{Demand, Offered, offered};
use crate::providers::notes::{Notes, Param};

/// What there is in some form.
const HAS: &[Param] =
    &[Param::Temperature, Param::TopP, Param::RepetitionPenalty, Param::Stop, Param::User, Param::SafetyIdentifier];

/// Members of Baidu's own.
const EXTRAS: &[&str] = &["penalty_score", "disable_search", "enable_citation"];

/// The path: the model is its last part.
pub(super) fn path(endpoint: &str) -> String {
    let mut path = String::from("/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/");
    for byte in endpoint.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => path.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => _ = write!(path, "%{byte:02X}"),
        }
    }
    path
}

/// The body.
///
/// # Errors
/// A 400 naming what cannot be carried over.
pub(super) fn write(chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<Value, Problem> {
    // Of several functions none can be demanded, so that the answer can only come by one that stands alone.
    let is_alone = chat.tools.offered.is_empty();
    let by_tool = is_alone || target.structured_output == StructuredOutput::Tool;
    let by_tool = if by_tool { notes.answer_by_tool(chat)? } else { None };
    let chat = by_tool.as_ref().unwrap_or(chat);

    notes.unsupported(chat, HAS, EXTRAS)?;
    let mut body = Map::new();
    let mut conversation = messages::write(chat, notes)?;
    match &chat.output.format {
        Format::Text => {}
        // Not an object, as elsewhere.
        Format::JsonObject => _ = body.insert("response_format".to_owned(), "json_object".into()),
        Format::Schema { schema, .. } => {
            notes.drop(Param::ResponseFormat)?;
            let wish = "Give your answer as JSON that follows this JSON Schema, and nothing else: ";
            conversation.system.push(format!("{wish}{schema}"));
        }
    }
    body.insert("messages".to_owned(), conversation.messages.into());
    if !conversation.system.is_empty() {
        body.insert("system".to_owned(), conversation.system.join("\n\n").into());
    }
    if chat.stream {
        body.insert("stream".to_owned(), true.into());
    }
    settings(chat, notes, &mut body)?;
    tools(offered(chat, notes)?, notes, &mut body)?;
    for name in EXTRAS {
        if let Some(value) = chat.extra.get(*name).filter(|value| !value.is_null()) {
            body.insert((*name).to_owned(), value.clone());
        }
    }
    Ok(Value::Object(body))
}

fn settings(chat: &ChatRequest, notes: &mut Notes, body: &mut Map<String, Value>) -> Result<(), Problem> {
    let sampling = &chat.sampling;
    if let Some(warmth) = sampling.temperature {
        body.insert("temperature".to_owned(), notes.clamp(Param::Temperature, warmth, 0.01, 1.0)?.into());
    }
    if let Some(share) = sampling.top_p {
        body.insert("top_p".to_owned(), share.into());
    }
    if let Some(penalty) = sampling.repetition_penalty {
        body.insert("penalty_score".to_owned(), notes.clamp(Param::RepetitionPenalty, penalty, 1.0, 2.0)?.into());
    }
    if let Some(tokens) = chat.output.max_tokens {
        body.insert("max_output_tokens".to_owned(), tokens.max(2).into());
    }
    if !sampling.stop.is_empty() {
        body.insert("stop".to_owned(), sampling.stop.clone().into());
    }
    if let Some(user) = chat.caller.safety_identifier.as_ref().or(chat.caller.user.as_ref()) {
        body.insert("user_id".to_owned(), user.as_str().into());
    }
    let asked = &chat.reasoning;
    let off = asked.mode == Some(ThinkMode::Disabled) || asked.effort == Some(Effort::None);
    if !off && asked.effort.is_some() {
        notes.drop(Param::ReasoningEffort)?;
    } else if !off && (asked.budget_tokens.is_some() || asked.mode.is_some()) {
        notes.drop(Param::Thinking)?;
    }
    Ok(())
}

fn tools(offered: Offered, notes: &mut Notes, body: &mut Map<String, Value>) -> Result<(), Problem> {
    let Offered { functions, demand } = offered;
    if functions.is_empty() || demand == Demand::Leave {
        return Ok(());
    }
    match functions.as_slice() {
        [only] if demand == Demand::Call => {
            body.insert("tool_choice".to_owned(), json!({"type": "function", "function": {"name": only.name}}));
        }
        _ if demand == Demand::Call => notes.drop(Param::ToolChoice)?,
        _ => {}
    }
    let function = |function: Function| {
        let Function { name, description, parameters, .. } = function;
        // Both are demanded.
        let description = description.unwrap_or_else(|| name.clone());
        let parameters = parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        json!({"name": name, "description": description, "parameters": parameters})
    };
    body.insert("functions".to_owned(), functions.into_iter().map(function).collect());
    Ok(())
}
