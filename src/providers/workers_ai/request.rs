//! The binding's input.

use serde_json::{Map, Value, json};

use crate::config::StructuredOutput;
use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, Effort, Format, Function, Part, PartBody, Role, Source, ThinkMode};
use crate::providers::Target;
use crate::providers::functions::{Demand, offered};
use crate::providers::notes::{Notes, Param};
use crate::providers::words::{FILLER, arguments, invalid, result, words};

/// What there is in some form.
const HAS: &[Param] = &[
    Param::Temperature,
    Param::TopP,
    Param::TopK,
    Param::PresencePenalty,
    Param::FrequencyPenalty,
    Param::RepetitionPenalty,
    Param::Seed,
    Param::ReasoningSummary,
];

/// The input.
///
/// # Errors
/// A 400 naming what cannot be carried over.
pub(super) fn write(chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<Value, Problem> {
    let by_tool = target.structured_output == StructuredOutput::Tool || !chat.tools.offered.is_empty();
    let by_tool = if by_tool { notes.answer_by_tool(chat)? } else { None };
    let chat = by_tool.as_ref().unwrap_or(chat);

    notes.unsupported(chat, HAS, &["lora"])?;
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    let sampling = &chat.sampling;
    put("messages", Some(messages(chat, notes)?.into()));
    // Without a number the answer is cut off after very few tokens, and nothing says so.
    put("max_tokens", Some(chat.output.max_tokens.unwrap_or(target.max_output_tokens).into()));
    put("temperature", sampling.temperature.map(Value::from));
    put("top_p", sampling.top_p.map(Value::from));
    put("top_k", sampling.top_k.map(Value::from));
    put("seed", sampling.seed.map(Value::from));
    put("presence_penalty", sampling.presence_penalty.map(Value::from));
    put("frequency_penalty", sampling.frequency_penalty.map(Value::from));
    put("repetition_penalty", sampling.repetition_penalty.map(Value::from));
    put("lora", chat.extra.get("lora").cloned());
    let format = match &chat.output.format {
        Format::Text => None,
        Format::JsonObject => Some(json!({"type": "json_object"})),
        // The schema itself, without a name.
        Format::Schema { schema, .. } => Some(json!({"type": "json_schema", "json_schema": schema})),
    };
    // JSON does not come in pieces.
    put("stream", (chat.stream && format.is_none()).then(|| true.into()));
    put("response_format", format);
    let offered = offered(chat, notes)?;
    if !offered.functions.is_empty() {
        let tool = |function: Function| {
            let parameters = function.parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
            let description = function.description.unwrap_or_default();
            let function = json!({"name": function.name, "description": description, "parameters": parameters});
            json!({"type": "function", "function": function})
        };
        put("tools", Some(offered.functions.into_iter().map(tool).collect()));
        match offered.demand {
            Demand::Free => {}
            Demand::Call => put("tool_choice", Some("required".into())),
            Demand::Leave => put("tool_choice", Some("none".into())),
        }
    }
    let asked = &chat.reasoning;
    if let Some(effort) = asked.effort {
        put("reasoning_effort", Some(effort.as_str().into()));
    } else if asked.mode != Some(ThinkMode::Disabled) && asked.mode.is_some() || asked.budget_tokens.is_some() {
        let effort = asked.budget_tokens.map(Effort::of_budget);
        match effort {
            Some(effort) => put("reasoning_effort", Some(effort.as_str().into())),
            None => notes.drop(Param::Thinking)?,
        }
    }
    Ok(Value::Object(body))
}

fn messages(chat: &ChatRequest, notes: &mut Notes) -> Result<Vec<Value>, Problem> {
    let mut out = Vec::new();
    let instructions: Vec<&str> = chat.instructions.iter().map(|part| part.text.as_str()).collect();
    if !instructions.is_empty() {
        out.push(json!({"role": "system", "content": instructions.join("\n\n")}));
    }
    for message in &chat.messages {
        let (mut content, mut calls) = (Vec::new(), Vec::new());
        let only_results = message.parts.iter().all(|part| matches!(part.body, PartBody::Result { .. }));
        for part in &message.parts {
            match &part.body {
                PartBody::Result { id, parts, is_error, .. } => {
                    out.push(json!({"role": "tool", "tool_call_id": id, "content": result(parts, *is_error)?}));
                }
                PartBody::Call { id, name, arguments: given, .. } => {
                    let function = json!({"name": name, "arguments": arguments(part, given)?});
                    calls.push(json!({"id": id, "type": "function", "function": function}));
                }
                PartBody::Image { source, .. } => content.push(picture(part, source)?),
                PartBody::Hosted { .. } => notes.drop_named(&part.at.to_string())?,
                _ => content.extend(words(part)?.map(|text| json!({"type": "text", "text": text}))),
            }
        }
        let role = match message.role {
            Role::System | Role::Developer => "system",
            Role::User | Role::Tool => "user",
            Role::Assistant => "assistant",
        };
        if role == "assistant" && content.is_empty() && calls.is_empty() || only_results && !message.parts.is_empty() {
            continue;
        }
        let mut written = json!({"role": role, "content": plain(content, calls.is_empty())});
        if let (false, Some(written)) = (calls.is_empty(), written.as_object_mut()) {
            written.insert("tool_calls".to_owned(), calls.into());
        }
        out.push(written);
    }
    if out.is_empty() {
        out.push(json!({"role": "user", "content": FILLER}));
    }
    Ok(out)
}

/// Pictures are taken here only, not by an address.
fn picture(part: &Part, source: &Source) -> Result<Value, Problem> {
    match source {
        Source::Base64 { .. } => Ok(json!({"type": "image_url", "image_url": {"url": source.to_url()}})),
        _ => Err(invalid(part, "this provider takes pictures inline only, as a `data:` URL in base64.")),
    }
}

/// Texts as one text, which all models take; with pictures a list.
fn plain(parts: Vec<Value>, says_something: bool) -> Value {
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text").and_then(Value::as_str)).collect();
    match texts {
        Some(texts) if texts.is_empty() && says_something => FILLER.into(),
        Some(texts) => texts.join("\n\n").into(),
        None => parts.into(),
    }
}
