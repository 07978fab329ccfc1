//! The body of a request.

use serde_json::{Map, Value, json};

use super::messages;
use crate::config::StructuredOutput;
use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, Effort, Format, Function, Reasoning, ThinkMode};
use crate::providers::Target;
use crate::providers::families::{Traits, traits};
use crate::providers::functions::{Demand, offered};
use crate::providers::notes::{Notes, Param};

/// What there is in some form.
const HAS: &[Param] = &[
    Param::Logprobs,
    Param::Temperature,
    Param::TopP,
    Param::TopK,
    Param::PresencePenalty,
    Param::FrequencyPenalty,
    Param::Seed,
    Param::Stop,
    Param::ReasoningSummary,
    Param::Citations,
    Param::Strict,
];

/// Members of Cohere's own.
const EXTRAS: &[&str] = &["documents", "citation_options", "safety_mode", "priority"];

/// The body of a request.
///
/// # Errors
/// A 400 naming what cannot be carried over.
pub(super) fn write(chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<Value, Problem> {
    // No form of the answer goes with tools or documents.
    let has_documents = chat.extra.get("documents").is_some_and(|documents| !documents.is_null());
    let is_alone = chat.tools.offered.is_empty() && !has_documents;
    let by_tool = target.structured_output == StructuredOutput::Tool || !is_alone;
    let by_tool = if by_tool { notes.answer_by_tool(chat)? } else { None };
    let chat = by_tool.as_ref().unwrap_or(chat);
    let traits = traits(target.upstream_model);

    notes.unsupported(chat, HAS, EXTRAS)?;
    let mut body = Map::new();
    body.insert("model".to_owned(), target.upstream_model.into());
    // Documents of their own, which the answer then cites, are nothing that a form or tools go with.
    let cites = chat.output.format == Format::Text && chat.tools.offered.is_empty();
    let mut written = messages::write(chat, traits, cites, notes)?;
    body.insert("messages".to_owned(), written.messages.into());
    for name in EXTRAS {
        if let Some(value) = chat.extra.get(*name).filter(|value| !value.is_null()) {
            body.insert((*name).to_owned(), value.clone());
        }
    }
    match body.get_mut("documents") {
        Some(Value::Array(documents)) => documents.append(&mut written.documents),
        _ if written.documents.is_empty() => {}
        _ => _ = body.insert("documents".to_owned(), written.documents.into()),
    }
    if chat.stream {
        body.insert("stream".to_owned(), true.into());
    }
    sampling(chat, notes, &mut body)?;
    tools(chat, notes, &mut body)?;
    match &chat.output.format {
        Format::Text => {}
        Format::JsonObject if !is_alone => notes.drop(Param::ResponseFormat)?,
        Format::JsonObject => _ = body.insert("response_format".to_owned(), json!({"type": "json_object"})),
        Format::Schema { schema, .. } => {
            let format = json!({"type": "json_object", "json_schema": schema});
            body.insert("response_format".to_owned(), format);
        }
    }
    if let Some(thinking) = thinking(&chat.reasoning, traits, notes)? {
        body.insert("thinking".to_owned(), thinking);
    }
    Ok(Value::Object(body))
}

fn put(map: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), value.into());
    }
}

fn sampling(chat: &ChatRequest, notes: &mut Notes, body: &mut Map<String, Value>) -> Result<(), Problem> {
    let sampling = &chat.sampling;
    put(body, "max_tokens", chat.output.max_tokens);
    put(body, "temperature", sampling.temperature);
    if let Some(p) = sampling.top_p.filter(|p| *p != 1.0) {
        body.insert("p".to_owned(), notes.clamp(Param::TopP, p, 0.01, 0.99)?.into());
    }
    if let Some(k) = sampling.top_k {
        let within = k.min(500);
        if within != k {
            notes.clamp(Param::TopK, 501.0, 0.0, 500.0)?;
        }
        body.insert("k".to_owned(), within.into());
    }
    let asked = |penalty: Option<f64>| penalty.filter(|penalty| *penalty != 0.0);
    if let Some(penalty) = asked(sampling.frequency_penalty) {
        let penalty = notes.clamp(Param::FrequencyPenalty, penalty, 0.0, 1.0)?;
        body.insert("frequency_penalty".to_owned(), penalty.into());
    }
    if let Some(penalty) = asked(sampling.presence_penalty) {
        // Both at once are refused.
        if body.contains_key("frequency_penalty") {
            notes.drop(Param::PresencePenalty)?;
        } else {
            let penalty = notes.clamp(Param::PresencePenalty, penalty, 0.0, 1.0)?;
            body.insert("presence_penalty".to_owned(), penalty.into());
        }
    }
    // Seeds have no sign here; the same one stays the same.
    put(body, "seed", sampling.seed.map(|seed| seed & i64::MAX));
    put(body, "stop_sequences", (!sampling.stop.is_empty()).then(|| sampling.stop.clone()));
    if sampling.logprobs == Some(true) {
        body.insert("logprobs".to_owned(), true.into());
        if sampling.top_logprobs.is_some_and(|top| top > 0) {
            notes.drop(Param::TopLogprobs)?;
        }
    }
    Ok(())
}

fn tools(chat: &ChatRequest, notes: &mut Notes, body: &mut Map<String, Value>) -> Result<(), Problem> {
    let offered = offered(chat, notes)?;
    if offered.functions.is_empty() {
        return Ok(());
    }
    if offered.functions.iter().all(is_strict) {
        body.insert("strict_tools".to_owned(), true.into());
    } else if offered.functions.iter().any(|function| function.strict == Some(true)) {
        notes.drop(Param::Strict)?;
    }
    let tool = |function: Function| {
        let mut written = Map::new();
        put(&mut written, "name", Some(function.name));
        put(&mut written, "description", function.description);
        put(&mut written, "parameters", function.parameters);
        json!({"type": "function", "function": written})
    };
    body.insert("tools".to_owned(), offered.functions.into_iter().map(tool).collect());
    match offered.demand {
        Demand::Free => {}
        Demand::Call => _ = body.insert("tool_choice".to_owned(), "REQUIRED".into()),
        Demand::Leave => _ = body.insert("tool_choice".to_owned(), "NONE".into()),
    }
    Ok(())
}

/// Whether a function's arguments are to follow its schema exactly, as far as Cohere can have them do that: it needs
/// one that is required.
fn is_strict(function: &Function) -> bool {
    let required = function.parameters.as_ref().and_then(|schema| schema.get("required")?.as_array());
    function.strict == Some(true) && required.is_some_and(|names| !names.is_empty())
}

/// How much to think, of models that do.
fn thinking(asked: &Reasoning, traits: &Traits, notes: &mut Notes) -> Result<Option<Value>, Problem> {
    let off = asked.mode == Some(ThinkMode::Disabled) || asked.effort == Some(Effort::None);
    let tokens = asked.budget_tokens.or_else(|| traits.budget(asked.effort?));
    if !traits.reasons {
        let wants_some = asked.effort.is_some() || asked.budget_tokens.is_some() || asked.mode.is_some();
        if wants_some && !off {
            notes.drop(if asked.effort.is_some() { Param::ReasoningEffort } else { Param::Thinking })?;
        }
        return Ok(None);
    }
    Ok(match tokens {
        _ if off => Some(json!({"type": "disabled"})),
        Some(0) => Some(json!({"type": "disabled"})),
        Some(tokens) => Some(json!({"type": "enabled", "token_budget": tokens})),
        None if asked.mode == Some(ThinkMode::Enabled) => Some(json!({"type": "enabled"})),
        None => None,
    })
}
