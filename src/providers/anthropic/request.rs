//! A canonical chat request as a Messages request.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::super::Target;
use super::super::answer_tool::with_object_type;
use super::super::notes::{Notes, Param};
use super::super::turns::{Speaker, Turn, hoist, turns};
use crate::config::StructuredOutput;
use crate::error::Problem;
use crate::protocol::chat::{
    CacheMark, ChatRequest, Effort, Format, Lineage, Part, PartBody, Place, ReasoningPart, Role, Source, TextPart,
    Tool, ToolBody, ToolChoice, ids,
};

/// The least thinking budget that the API accepts, in tokens.
const MIN_THINKING_BUDGET: u64 = 1024;

/// What the dialect has, in its own form.
const HAS: &[Param] = &[Param::Temperature, Param::TopP, Param::TopK, Param::Stop, Param::User, Param::ServiceTier];

/// The request's body.
pub(super) fn translate_request(chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<Value, Problem> {
    let by_tool = match target.structured_output {
        StructuredOutput::Tool => notes.answer_by_tool(chat)?,
        StructuredOutput::Native => None,
    };
    let chat = by_tool.as_ref().unwrap_or(chat);
    notes.unsupported(chat, HAS, &[])?;

    let (instructions, messages) = hoist(chat)?;
    let mut system: Vec<Value> = instructions.iter().filter_map(system_block).collect();
    let tools = chat.tools.allowed().map(translate_tool).collect::<Result<Vec<_>, _>>()?;
    let choice = translate_choice(chat, !tools.is_empty());
    let mut output_format = None;
    match &chat.output.format {
        Format::Text => {}
        Format::JsonObject => system.push(json!({
            "type": "text",
            "text": "Answer with one valid JSON object and nothing else: no prose, no code fence.",
        })),
        Format::Schema { schema, .. } => output_format = Some(json!({"type": "json_schema", "schema": schema})),
    }

    // The caller's own thinking budget comes on top of the limit that it left to us.
    let own_budget = chat.reasoning.thinking.as_ref().and(chat.reasoning.budget_tokens).unwrap_or(0);
    let limit = chat.output.max_tokens.unwrap_or_else(|| target.max_output_tokens.saturating_add(own_budget));
    let forced = choice.as_ref().is_some_and(|c| matches!(c.get("type").and_then(Value::as_str), Some("any" | "tool")));
    let thinking = thinking(chat, limit, forced, notes)?;
    let thinks = thinking.as_ref().is_some_and(|t| t.get("type").and_then(Value::as_str) != Some("disabled"));

    let mut body = Map::new();
    let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
    set("model", target.upstream_model.into());
    set("max_tokens", limit.into());
    if !system.is_empty() {
        set("system", system.into());
    }
    set("messages", translate_messages(&messages)?.into());
    if chat.stream {
        set("stream", true.into());
    }
    let sampling = &chat.sampling;
    match sampling.temperature {
        // The API wants 1 while thinking, and ranges to 1 where OpenAI's ranges to 2.
        Some(_) if thinks => notes.drop(Param::Temperature)?,
        Some(temperature) => {
            set("temperature", json!(notes.clamp(Param::Temperature, temperature, 0.0, 1.0)?));
        }
        None => {}
    }
    // A `top_p` of 1 does nothing, and newer models refuse it beside a temperature.
    let top_p = sampling.top_p.filter(|p| *p != 1.0).map(|p| json!(p));
    for (param, name, value) in [(Param::TopP, "top_p", top_p), (Param::TopK, "top_k", sampling.top_k.map(Value::from))]
    {
        match value {
            Some(_) if thinks => notes.drop(param)?,
            Some(value) => {
                set(name, value);
            }
            None => {}
        }
    }
    // The API refuses stop texts of white space alone.
    let usable: Vec<&String> = sampling.stop.iter().filter(|text| !text.trim().is_empty()).collect();
    if usable.len() < sampling.stop.len() {
        notes.drop(Param::Stop)?;
    }
    if !usable.is_empty() {
        set("stop_sequences", json!(usable));
    }
    if !tools.is_empty() {
        set("tools", tools.into());
        if let Some(choice) = choice {
            set("tool_choice", choice);
        }
    }
    if let Some(thinking) = thinking {
        set("thinking", thinking);
    }
    if let Some(format) = output_format {
        set("output_config", json!({"format": format}));
    }
    if let Some(user) = &chat.caller.user {
        set("metadata", json!({"user_id": user}));
    }
    match chat.caller.service_tier.as_deref() {
        Some(tier @ ("auto" | "standard_only")) => {
            set("service_tier", tier.into());
        }
        Some("default") => {
            set("service_tier", "standard_only".into());
        }
        Some(_) => notes.drop(Param::ServiceTier)?,
        None => {}
    }
    Ok(Value::Object(body))
}

/// `reasoning_effort` as a thinking budget, or the caller's own `thinking` as it is.
fn thinking(chat: &ChatRequest, limit: u64, forced_tool: bool, notes: &mut Notes) -> Result<Option<Value>, Problem> {
    let reasoning = &chat.reasoning;
    let param = if reasoning.thinking.is_some() { Param::Thinking } else { Param::ReasoningEffort };
    if reasoning.thinking.is_some() && reasoning.effort.is_some() {
        notes.drop(Param::ReasoningEffort)?;
    }
    let thinking = match &reasoning.thinking {
        Some(thinking) => Some(own_thinking(thinking)?),
        None => budget_for_effort(chat, limit).map(|budget| json!({"type": "enabled", "budget_tokens": budget})),
    };
    let Some(thinking) = thinking else { return Ok(None) };
    if thinking.get("type").and_then(Value::as_str) == Some("disabled") {
        return Ok(Some(thinking));
    }
    // The API refuses thinking beside a forced tool, before an answer whose beginning is given, and in the middle of
    // tool calls whose own thinking is not given back.
    let last = chat.messages.iter().rev().find(|message| message.role == Role::Assistant);
    let is_proof = |part: &Part| matches!(&part.body, PartBody::Reasoning(part) if own_reasoning(part).is_some());
    let unsigned_call = last.is_some_and(|message| message.has_calls() && !message.parts.iter().any(is_proof));
    let begun_answer = chat.messages.last().is_some_and(|message| message.role == Role::Assistant);
    // And the budget must leave room for the answer.
    let budget = thinking.get("budget_tokens").and_then(Value::as_u64);
    let too_small = reasoning.thinking.is_none() && budget.is_some_and(|budget| budget < MIN_THINKING_BUDGET);
    if forced_tool || unsigned_call || begun_answer || too_small {
        notes.drop(param)?;
        return Ok(None);
    }
    Ok(Some(thinking))
}

/// Anthropic's setting, judged only as far as other providers' settings of the same name differ from it.
fn own_thinking(thinking: &Value) -> Result<Value, Problem> {
    match thinking.get("type").and_then(Value::as_str) {
        Some("enabled") if thinking.get("budget_tokens").and_then(Value::as_u64).is_none() => Err(Problem::invalid(
            "thinking.budget_tokens",
            "thinking.budget_tokens: this model needs a number of tokens here; or set `reasoning_effort` instead.",
        )),
        _ => Ok(thinking.clone()),
    }
}

fn budget_for_effort(chat: &ChatRequest, limit: u64) -> Option<u64> {
    let budget: u64 = match (chat.reasoning.budget_tokens, chat.reasoning.effort) {
        (Some(budget), _) => budget,
        (None, None | Some(Effort::None | Effort::Minimal)) => return None,
        (None, Some(Effort::Low)) => 2048,
        (None, Some(Effort::Medium)) => 8192,
        (None, Some(Effort::High | Effort::XHigh | Effort::Max)) => 24_576,
    };
    Some(budget.min(limit.saturating_sub(limit.div_euclid(4).max(1))))
}

fn translate_tool(tool: &Tool) -> Result<Value, Problem> {
    let function = match &tool.body {
        ToolBody::Function(function) => function,
        ToolBody::Custom { .. } | ToolBody::Hosted { .. } => {
            let at = format!("{}.type", tool.at);
            return Err(Problem::invalid(&at, format!("{at}: this model takes tools of the type `function` only.")));
        }
    };
    let mut out = Map::new();
    out.insert("name".to_owned(), function.name.clone().into());
    if let Some(description) = &function.description {
        out.insert("description".to_owned(), description.clone().into());
    }
    out.insert("input_schema".to_owned(), with_object_type(function.parameters.as_ref().unwrap_or(&Value::Null)));
    Ok(marked(out, tool.cache.as_ref()))
}

fn translate_choice(chat: &ChatRequest, has_tools: bool) -> Option<Value> {
    let one_at_a_time = chat.tools.parallel == Some(false);
    let mut choice = match &chat.tools.choice {
        _ if !has_tools => return None,
        None if !one_at_a_time => return None,
        None | Some(ToolChoice::Auto | ToolChoice::Among { required: false, .. }) => json!({"type": "auto"}),
        Some(ToolChoice::None) => return Some(json!({"type": "none"})),
        Some(ToolChoice::Required | ToolChoice::Among { required: true, .. }) => json!({"type": "any"}),
        Some(ToolChoice::One(name)) => json!({"type": "tool", "name": name}),
    };
    if let Some(choice) = choice.as_object_mut().filter(|_| one_at_a_time) {
        choice.insert("disable_parallel_tool_use".to_owned(), true.into());
    }
    Some(choice)
}

fn translate_messages(messages: &[&crate::protocol::chat::Message]) -> Result<Vec<Value>, Problem> {
    let mut out: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for Turn { speaker, parts } in turns(messages) {
        let mut blocks = Vec::with_capacity(parts.len());
        for part in &parts {
            blocks.extend(block(part, speaker)?);
        }
        let role = if speaker == Speaker::User { "user" } else { "assistant" };
        match out.last_mut() {
            _ if blocks.is_empty() => {}
            // A turn between them came to nothing.
            Some((last, before)) if *last == role => before.extend(blocks),
            _ => out.push((role, blocks)),
        }
    }
    // A conversation may end with the beginning of the answer; the API refuses white space at its end.
    if let Some(("assistant", content)) = out.last_mut()
        && let Some(text) = content.last_mut().and_then(|block| block.get_mut("text"))
        && let Some(trimmed) = text.as_str().map(|text| text.trim_end().to_owned())
    {
        *text = trimmed.into();
    }
    if out.first().is_none_or(|(role, _)| *role == "assistant") {
        out.insert(0, ("user", vec![json!({"type": "text", "text": "."})]));
    }
    Ok(out.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect())
}

fn marked(mut block: Map<String, Value>, cache: Option<&CacheMark>) -> Value {
    if let Some(CacheMark(mark)) = cache {
        block.insert("cache_control".to_owned(), mark.clone());
    }
    Value::Object(block)
}

fn typed<const N: usize>(kind: &str, members: [(&str, Value); N], cache: Option<&CacheMark>) -> Value {
    let kind = ("type".to_owned(), Value::from(kind));
    let members = members.into_iter().map(|(name, value)| (name.to_owned(), value));
    marked(std::iter::once(kind).chain(members).collect(), cache)
}

fn system_block(part: &TextPart) -> Option<Value> {
    text_block(&part.text, part.cache.as_ref())
}

fn text_block(text: &str, cache: Option<&CacheMark>) -> Option<Value> {
    // The API refuses text of white space alone.
    (!text.trim().is_empty()).then(|| typed("text", [("text", text.into())], cache))
}

/// A part as a block; `None` for what says nothing to this API.
fn block(part: &Part, speaker: Speaker) -> Result<Option<Value>, Problem> {
    let cache = part.cache.as_ref();
    let at = part.at;
    Ok(match &part.body {
        PartBody::Text { text, .. } | PartBody::Refusal(text) => text_block(text, cache),
        PartBody::Reasoning(reasoning) => own_reasoning(reasoning),
        PartBody::Call { id, name, arguments, .. } => Some(typed(
            "tool_use",
            [
                ("id", ids::fit(id, ids::plain, MAX_ID).into()),
                ("name", name.clone().into()),
                ("input", input(arguments, at)?),
            ],
            cache,
        )),
        PartBody::Result { id, parts, is_error, .. } => {
            let mut content = Vec::with_capacity(parts.len());
            for part in parts {
                content.extend(block(part, Speaker::User)?);
            }
            let mut result = Map::new();
            result.insert("type".to_owned(), "tool_result".into());
            result.insert("tool_use_id".to_owned(), ids::fit(id, ids::plain, MAX_ID).into());
            if !content.is_empty() {
                result.insert("content".to_owned(), content.into());
            }
            if *is_error {
                result.insert("is_error".to_owned(), true.into());
            }
            Some(marked(result, cache))
        }
        PartBody::Image { source, .. } if speaker == Speaker::User => {
            Some(typed("image", [("source", image_source(source, at)?)], cache))
        }
        PartBody::Document { source, name, context, cite } if speaker == Speaker::User => {
            let mut document = Map::new();
            document.insert("type".to_owned(), "document".into());
            document.insert("source".to_owned(), document_source(source, at)?);
            for (name, text) in [("title", name), ("context", context)] {
                if let Some(text) = text {
                    document.insert(name.to_owned(), text.clone().into());
                }
            }
            if *cite {
                document.insert("citations".to_owned(), json!({"enabled": true}));
            }
            Some(marked(document, cache))
        }
        PartBody::Image { .. } | PartBody::Document { .. } => {
            return Err(invalid(at, "this model takes only text from the assistant"));
        }
        PartBody::Audio { .. } => return Err(invalid(at, "this model takes no audio")),
        PartBody::Video { .. } => return Err(invalid(at, "this model takes no video")),
        PartBody::Hosted { family: Lineage::Anthropic, value } => Some(value.clone()),
        PartBody::Hosted { .. } => None,
    })
}

/// The longest id of a call that the API takes, in bytes.
const MAX_ID: usize = 64;

fn invalid(at: Place, what: &str) -> Problem {
    Problem::invalid(&at.to_string(), format!("{at}: {what}."))
}

/// Reasoning that the API itself has signed; other reasoning it would refuse.
fn own_reasoning(part: &ReasoningPart) -> Option<Value> {
    if let Some(data) = &part.redacted {
        return Some(json!({"type": "redacted_thinking", "data": data}));
    }
    let signature = part.signature.as_ref().filter(|signature| signature.family == Lineage::Anthropic)?;
    Some(json!({"type": "thinking", "thinking": part.text, "signature": signature.value}))
}

fn input(arguments: &str, at: Place) -> Result<Value, Problem> {
    let arguments = arguments.trim();
    match serde_json::from_str(if arguments.is_empty() { "{}" } else { arguments }) {
        Ok(Value::Null) => Ok(json!({})),
        Ok(input @ Value::Object(_)) => Ok(input),
        _ => Err(invalid(at, "the call's arguments must be a JSON object as text")),
    }
}

fn image_source(source: &Source, at: Place) -> Result<Value, Problem> {
    match source {
        Source::Base64 { media_type, data } => Ok(json!({"type": "base64", "media_type": media_type, "data": data})),
        Source::Url(url) if url.starts_with("https://") => Ok(json!({"type": "url", "url": url})),
        Source::File { family: Lineage::Anthropic, id } => Ok(json!({"type": "file", "file_id": id})),
        _ => Err(invalid(at, "the picture must be inline (a data: URL) or at an https: URL")),
    }
}

fn document_source(source: &Source, at: Place) -> Result<Value, Problem> {
    // Text of any kind goes as plain text: the API has no other.
    let plain = |text: &str| json!({"type": "text", "media_type": "text/plain", "data": text});
    match source {
        Source::Text { text, .. } => Ok(plain(text)),
        Source::Base64 { media_type, data } if media_type.starts_with("text/") => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            text.map(|text| plain(&text)).ok_or_else(|| invalid(at, "the document is not base64 of UTF-8 text"))
        }
        Source::Base64 { media_type, data } => Ok(json!({"type": "base64", "media_type": media_type, "data": data})),
        Source::Url(url) if url.starts_with("https://") => Ok(json!({"type": "url", "url": url})),
        Source::File { family: Lineage::Anthropic, id } => Ok(json!({"type": "file", "file_id": id})),
        _ => {
            Err(invalid(at, "the document must be inline (a data: URL): files uploaded elsewhere cannot be read here"))
        }
    }
}
