//! A Chat Completions request as a Messages request.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::ANSWER_TOOL;
use crate::config::StructuredOutput;
use crate::error::Problem;
use crate::protocol::old_chat::{
    ChatRequest, Content, Message, Part, ResponseFormat, Role, Stop, Tool, ToolCall, ToolChoice, tellable_names,
};
use crate::providers::Target;

/// The least thinking budget that the API accepts, in tokens.
const MIN_THINKING_BUDGET: u64 = 1024;

/// The request's body, and the names of the caller's parameters that it cannot carry.
pub(super) fn translate_request(chat: &ChatRequest, target: Target<'_>) -> Result<(Value, Vec<String>), Problem> {
    if chat.n.is_some_and(|n| n != 1) {
        return Err(Problem::invalid("n", "n: this model gives one choice for each request; leave `n` out or send 1."));
    }
    for (name, value, most) in [("temperature", chat.temperature, 2.0), ("top_p", chat.top_p, 1.0)] {
        if value.is_some_and(|value| !(0.0..=most).contains(&value)) {
            return Err(Problem::invalid(name, format!("{name}: must be 0 to {most}.")));
        }
    }
    for name in ["functions", "function_call"] {
        if chat.extra.get(name).is_some_and(|value| !value.is_null()) {
            return Err(Problem::invalid(
                name,
                format!("{name}: this model does not take the older form; send `tools`."),
            ));
        }
    }
    let asked_for = chat.extra.iter().filter(|(name, value)| *name != "service_tier" && says_something(value));
    let mut dropped = tellable_names(asked_for.map(|(name, _)| name));

    let (mut system, messages) = translate_messages(&chat.messages)?;
    let mut tools = translate_tools(chat.tools.as_deref().unwrap_or_default());
    if target.structured_output == StructuredOutput::Tool {
        refuse_answer_tool_of_the_callers(chat)?;
    }
    let mut choice = translate_choice(chat, !tools.is_empty());
    let mut output_format = None;
    match &chat.response_format {
        None | Some(ResponseFormat::Text) => {}
        Some(ResponseFormat::JsonObject) => system.push(json!({
            "type": "text",
            "text": "Answer with one valid JSON object and nothing else: no prose, no code fence.",
        })),
        Some(ResponseFormat::JsonSchema { json_schema }) => match target.structured_output {
            StructuredOutput::Native => {
                let schema = json_schema.schema.clone().unwrap_or_else(|| json!({"type": "object"}));
                output_format = Some(json!({"type": "json_schema", "schema": schema}));
            }
            StructuredOutput::Tool => {
                choice = Some(choice_with_answer_tool(chat, choice, !tools.is_empty()));
                let about =
                    json_schema.description.as_deref().unwrap_or("Gives the answer in the form that was asked for.");
                let schema = with_object_type(json_schema.schema.clone());
                tools.push(json!({"name": ANSWER_TOOL, "description": about, "input_schema": schema}));
            }
        },
    }

    // The caller's own thinking budget comes on top of the limit that it left to us.
    let own_budget = chat.thinking.as_ref().and_then(|thinking| thinking.get("budget_tokens")?.as_u64()).unwrap_or(0);
    let limit = chat.output_limit().unwrap_or_else(|| target.max_output_tokens.saturating_add(own_budget));
    let forced = choice.as_ref().is_some_and(|c| matches!(c.get("type").and_then(Value::as_str), Some("any" | "tool")));
    let thinking = thinking(chat, limit, forced, &mut dropped)?;
    let thinks = thinking.as_ref().is_some_and(|t| t.get("type").and_then(Value::as_str) != Some("disabled"));

    let mut body = Map::new();
    body.insert("model".to_owned(), target.upstream_model.into());
    body.insert("max_tokens".to_owned(), limit.into());
    if !system.is_empty() {
        body.insert("system".to_owned(), system.into());
    }
    body.insert("messages".to_owned(), messages.into());
    if chat.stream {
        body.insert("stream".to_owned(), true.into());
    }
    match chat.temperature {
        // The API wants 1 while thinking, and ranges to 1 where OpenAI's ranges to 2.
        Some(_) if thinks => dropped.push("temperature".to_owned()),
        Some(temperature) => {
            body.insert("temperature".to_owned(), json!(temperature.clamp(0.0, 1.0)));
        }
        None => {}
    }
    // A `top_p` of 1 does nothing, and newer models refuse it beside a temperature.
    let top_p = chat.top_p.filter(|p| *p != 1.0);
    for (name, value) in [("top_p", top_p.map(|p| json!(p))), ("top_k", chat.top_k.map(|k| json!(k)))] {
        match value {
            Some(_) if thinks => dropped.push(name.to_owned()),
            Some(value) => {
                body.insert(name.to_owned(), value);
            }
            None => {}
        }
    }
    let stops: Vec<&str> = match &chat.stop {
        None => Vec::new(),
        Some(Stop::One(text)) => vec![text],
        Some(Stop::Many(texts)) => texts.iter().map(String::as_str).collect(),
    };
    // The API refuses stop texts of white space alone.
    let usable: Vec<&str> = stops.iter().copied().filter(|text| !text.trim().is_empty()).collect();
    if usable.len() < stops.len() {
        dropped.push("stop".to_owned());
    }
    if !usable.is_empty() {
        body.insert("stop_sequences".to_owned(), json!(usable));
    }
    if !tools.is_empty() {
        body.insert("tools".to_owned(), tools.into());
        if let Some(choice) = choice {
            body.insert("tool_choice".to_owned(), choice);
        }
    }
    if let Some(thinking) = thinking {
        body.insert("thinking".to_owned(), thinking);
    }
    if let Some(format) = output_format {
        body.insert("output_config".to_owned(), json!({"format": format}));
    }
    if let Some(user) = &chat.user {
        body.insert("metadata".to_owned(), json!({"user_id": user}));
    }
    match chat.extra.get("service_tier").and_then(Value::as_str) {
        Some("auto") => {
            body.insert("service_tier".to_owned(), "auto".into());
        }
        Some("default") => {
            body.insert("service_tier".to_owned(), "standard_only".into());
        }
        Some(_) => dropped.push("service_tier".to_owned()),
        None => {}
    }
    Ok((Value::Object(body), dropped))
}

/// Whether a parameter asks for anything: null, false and empty lists and objects do not.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    }
}

/// The reply side takes every call of [`ANSWER_TOOL`] for the answer, so no tool of the caller's may have its name.
fn refuse_answer_tool_of_the_callers(chat: &ChatRequest) -> Result<(), Problem> {
    for (nth, Tool::Function { function, .. }) in chat.tools.iter().flatten().enumerate() {
        if function.name == ANSWER_TOOL {
            let path = format!("tools[{nth}].function.name");
            return Err(Problem::invalid(&path, format!("{path}: `{ANSWER_TOOL}` is reserved; choose another name.")));
        }
    }
    Ok(())
}

/// The tool choice that makes the model end with the answer. With tools of the caller's own it may call those first.
fn choice_with_answer_tool(chat: &ChatRequest, choice: Option<Value>, has_tools: bool) -> Value {
    match (&chat.tool_choice, choice) {
        (Some(ToolChoice::Function(_)), Some(choice)) => choice,
        (tool_choice, _) if has_tools && *tool_choice != Some(ToolChoice::None) => {
            let mut choice = json!({"type": "any"});
            disable_parallel_calls(chat, &mut choice);
            choice
        }
        _ => json!({"type": "tool", "name": ANSWER_TOOL, "disable_parallel_tool_use": true}),
    }
}

/// `reasoning_effort` as a thinking budget, or the caller's own `thinking` as it is.
fn thinking(
    chat: &ChatRequest,
    limit: u64,
    forced_tool: bool,
    dropped: &mut Vec<String>,
) -> Result<Option<Value>, Problem> {
    let name = if chat.thinking.is_some() { "thinking" } else { "reasoning_effort" };
    if chat.thinking.is_some() && chat.reasoning_effort.is_some() {
        dropped.push("reasoning_effort".to_owned());
    }
    let thinking = match &chat.thinking {
        Some(thinking) => own_thinking(thinking)?,
        None => budget_for_effort(chat, limit)?.map(|budget| json!({"type": "enabled", "budget_tokens": budget})),
    };
    let Some(thinking) = thinking else { return Ok(None) };
    if thinking.get("type").and_then(Value::as_str) == Some("disabled") {
        return Ok(Some(thinking));
    }
    // The API refuses thinking beside a forced tool, before an answer whose beginning is given, and in the middle of
    // tool calls whose own thinking is not given back.
    let last = chat.messages.iter().rev().find(|message| message.role == Role::Assistant);
    let unsigned_call = last.is_some_and(|message| {
        message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())
            && message.thinking_blocks.as_ref().is_none_or(Vec::is_empty)
    });
    let begun_answer = chat.messages.last().is_some_and(|message| message.role == Role::Assistant);
    // And the budget must leave room for the answer.
    let budget = thinking.get("budget_tokens").and_then(Value::as_u64);
    let too_small = chat.thinking.is_none() && budget.is_some_and(|budget| budget < MIN_THINKING_BUDGET);
    if forced_tool || unsigned_call || begun_answer || too_small {
        dropped.push(name.to_owned());
        return Ok(None);
    }
    Ok(Some(thinking))
}

/// Anthropic's setting, judged only as far as other providers' settings of the same name differ from it.
fn own_thinking(thinking: &Value) -> Result<Option<Value>, Problem> {
    match thinking.get("type").and_then(Value::as_str) {
        Some("enabled") if thinking.get("budget_tokens").and_then(Value::as_u64).is_none() => Err(Problem::invalid(
            "thinking.budget_tokens",
            "thinking.budget_tokens: this model needs a number of tokens here; or set `reasoning_effort` instead.",
        )),
        Some(_) => Ok(Some(thinking.clone())),
        None => Err(Problem::invalid("thinking.type", "thinking.type: must be `enabled`, `disabled` or `adaptive`.")),
    }
}

fn budget_for_effort(chat: &ChatRequest, limit: u64) -> Result<Option<u64>, Problem> {
    let budget: u64 = match chat.reasoning_effort.as_deref() {
        None | Some("none" | "minimal") => return Ok(None),
        Some("low") => 2048,
        Some("medium") => 8192,
        Some("high" | "xhigh" | "max") => 24_576,
        Some(_) => {
            let message = "reasoning_effort: must be `none`, `minimal`, `low`, `medium`, `high` or `xhigh`.";
            return Err(Problem::invalid("reasoning_effort", message));
        }
    };
    Ok(Some(budget.min(limit.saturating_sub(limit.div_euclid(4).max(1)))))
}

fn translate_tools(tools: &[Tool]) -> Vec<Value> {
    tools
        .iter()
        .map(|Tool::Function { function, cache_control }| {
            let mut tool = Map::new();
            tool.insert("name".to_owned(), function.name.clone().into());
            if let Some(description) = &function.description {
                tool.insert("description".to_owned(), description.clone().into());
            }
            let schema = function.parameters.clone().filter(|schema| !schema.is_null());
            tool.insert("input_schema".to_owned(), with_object_type(schema));
            insert_some(&mut tool, "cache_control", cache_control);
            Value::Object(tool)
        })
        .collect()
}

/// The API insists on `"type": "object"`, which OpenAI lets callers leave out.
fn with_object_type(schema: Option<Value>) -> Value {
    match schema {
        Some(Value::Object(mut schema)) => {
            schema.entry("type").or_insert_with(|| "object".into());
            Value::Object(schema)
        }
        _ => json!({"type": "object", "properties": {}}),
    }
}

fn translate_choice(chat: &ChatRequest, has_tools: bool) -> Option<Value> {
    if !has_tools {
        return None;
    }
    let mut choice = match &chat.tool_choice {
        None | Some(ToolChoice::Auto) => json!({"type": "auto"}),
        Some(ToolChoice::None) => return Some(json!({"type": "none"})),
        Some(ToolChoice::Required) => json!({"type": "any"}),
        Some(ToolChoice::Function(name)) => json!({"type": "tool", "name": name}),
    };
    if chat.tool_choice.is_none() && chat.parallel_tool_calls != Some(false) {
        return None;
    }
    disable_parallel_calls(chat, &mut choice);
    Some(choice)
}

fn disable_parallel_calls(chat: &ChatRequest, choice: &mut Value) {
    if chat.parallel_tool_calls == Some(false)
        && let Some(choice) = choice.as_object_mut()
    {
        choice.insert("disable_parallel_tool_use".to_owned(), true.into());
    }
}

/// Splits the conversation into the system text and turns that alternate and begin with the user's, as the API wants
/// them. Results of tools become part of the user's turn, before anything else in it.
fn translate_messages(messages: &[Message]) -> Result<(Vec<Value>, Vec<Value>), Problem> {
    if messages.is_empty() {
        return Err(Problem::invalid("messages", "messages: must have at least one message."));
    }
    let mut system = Vec::new();
    let mut turns: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for (nth, message) in messages.iter().enumerate() {
        let path = format!("messages[{nth}]");
        let mut blocks = match message.role {
            Role::System | Role::Developer => {
                system.extend(text_blocks(message, &path)?);
                continue;
            }
            Role::User => user_blocks(message, &path)?,
            Role::Assistant => assistant_blocks(message, &path)?,
            Role::Tool | Role::Function => vec![tool_result(message, &path)?],
        };
        if blocks.is_empty() {
            continue;
        }
        mark_last(&mut blocks, message.cache_control.as_ref());
        let role = if message.role == Role::Assistant { "assistant" } else { "user" };
        match turns.last_mut() {
            Some((last, content)) if *last == role => content.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    for (role, content) in &mut turns {
        if *role == "user" {
            content.sort_by_key(|block| block.get("type").and_then(Value::as_str) != Some("tool_result"));
        }
    }
    // A conversation may end with the beginning of the answer; the API refuses white space at its end.
    if let Some(("assistant", content)) = turns.last_mut()
        && let Some(text) = content.last_mut().and_then(|block| block.get_mut("text"))
        && let Some(trimmed) = text.as_str().map(|text| text.trim_end().to_owned())
    {
        *text = trimmed.into();
    }
    if turns.first().is_none_or(|(role, _)| *role == "assistant") {
        turns.insert(0, ("user", vec![json!({"type": "text", "text": "."})]));
    }
    let messages = turns.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    Ok((system, messages))
}

/// A marker for a whole message goes to its last block, which is where the API takes it.
fn mark_last(blocks: &mut [Value], cache_control: Option<&Value>) {
    if let (Some(marker), Some(Value::Object(last))) = (cache_control, blocks.last_mut())
        && !last.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("thinking"))
    {
        last.entry("cache_control").or_insert_with(|| marker.clone());
    }
}

fn text_block(text: &str, cache_control: Option<&Value>) -> Option<Value> {
    if text.trim().is_empty() {
        return None; // the API refuses text of white space alone
    }
    let mut block = Map::new();
    block.insert("type".to_owned(), "text".into());
    block.insert("text".to_owned(), text.into());
    insert_some(&mut block, "cache_control", &cache_control.cloned());
    Some(Value::Object(block))
}

fn insert_some(object: &mut Map<String, Value>, name: &str, value: &Option<Value>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.clone());
    }
}

/// The content of a message that may have text only.
fn text_blocks(message: &Message, path: &str) -> Result<Vec<Value>, Problem> {
    let blocks = user_blocks(message, path)?;
    match blocks.iter().find(|block| block.get("type").and_then(Value::as_str) != Some("text")) {
        None => Ok(blocks),
        Some(_) => {
            Err(Problem::invalid(&format!("{path}.content"), format!("{path}.content: only text is allowed here.")))
        }
    }
}

fn user_blocks(message: &Message, path: &str) -> Result<Vec<Value>, Problem> {
    let mut blocks = Vec::new();
    match &message.content {
        None => {}
        Some(Content::Text(text)) => blocks.extend(text_block(text, None)),
        Some(Content::Parts(parts)) => {
            for (nth, part) in parts.iter().enumerate() {
                let path = format!("{path}.content[{nth}]");
                match part {
                    Part::Text { text, cache_control } => blocks.extend(text_block(text, cache_control.as_ref())),
                    Part::Refusal { refusal } => blocks.extend(text_block(refusal, None)),
                    Part::ImageUrl { image_url, cache_control } => {
                        blocks.push(image_block(&image_url.url, cache_control, &path)?);
                    }
                    Part::File { file, cache_control } => blocks.push(document_block(file, cache_control, &path)?),
                    Part::InputAudio { .. } => {
                        return Err(Problem::invalid(&path, format!("{path}: this model takes no audio.")));
                    }
                }
            }
        }
    }
    Ok(blocks)
}

fn image_block(url: &str, cache_control: &Option<Value>, path: &str) -> Result<Value, Problem> {
    let path = format!("{path}.image_url.url");
    let source = if let Some((media_type, data)) = data_url(url, &path)? {
        let media_type = if media_type == "image/jpg" { "image/jpeg" } else { media_type };
        json!({"type": "base64", "media_type": media_type, "data": data})
    } else if url.starts_with("https://") {
        json!({"type": "url", "url": url})
    } else {
        return Err(Problem::invalid(&path, format!("{path}: must be an https: or data: URL.")));
    };
    let mut block = Map::new();
    block.insert("type".to_owned(), "image".into());
    block.insert("source".to_owned(), source);
    insert_some(&mut block, "cache_control", cache_control);
    Ok(Value::Object(block))
}

fn document_block(
    file: &crate::protocol::old_chat::File,
    cache_control: &Option<Value>,
    path: &str,
) -> Result<Value, Problem> {
    let path = format!("{path}.file.file_data");
    let Some(url) = &file.file_data else {
        let advice = "give the document inline; files uploaded elsewhere cannot be read by this model's provider";
        return Err(Problem::invalid(&path, format!("{path}: {advice}.")));
    };
    let Some((media_type, data)) = data_url(url, &path)? else {
        return Err(Problem::invalid(&path, format!("{path}: must be a data: URL.")));
    };
    // Text of any kind goes as plain text: the API has no other.
    let source = if media_type.starts_with("text/") {
        let text =
            base64::engine::general_purpose::STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(text) = text else {
            return Err(Problem::invalid(&path, format!("{path}: is not base64 of UTF-8 text.")));
        };
        json!({"type": "text", "media_type": "text/plain", "data": text})
    } else {
        json!({"type": "base64", "media_type": media_type, "data": data})
    };
    let mut block = Map::new();
    block.insert("type".to_owned(), "document".into());
    block.insert("source".to_owned(), source);
    insert_some(&mut block, "title", &file.filename.clone().map(Value::String));
    insert_some(&mut block, "cache_control", cache_control);
    Ok(Value::Object(block))
}

/// Splits `data:<media type>;base64,<data>`; `None` if it is no data URL.
fn data_url<'a>(url: &'a str, path: &str) -> Result<Option<(&'a str, &'a str)>, Problem> {
    let Some(rest) = url.strip_prefix("data:") else { return Ok(None) };
    let Some((media_type, data)) = rest.split_once(";base64,") else {
        return Err(Problem::invalid(path, format!("{path}: a data: URL must be data:<media type>;base64,<data>.")));
    };
    let media_type = media_type.split(';').next().unwrap_or_default();
    Ok(Some((media_type, data)))
}

fn assistant_blocks(message: &Message, path: &str) -> Result<Vec<Value>, Problem> {
    // Signed reasoning goes first and unchanged, or the provider refuses the signature.
    let mut blocks = message.thinking_blocks.clone().unwrap_or_default();
    blocks.extend(text_blocks(message, path)?);
    if let Some(refusal) = &message.refusal {
        blocks.extend(text_block(refusal, None));
    }
    for (nth, call) in message.tool_calls.iter().flatten().enumerate() {
        blocks.push(tool_use(call, &format!("{path}.tool_calls[{nth}]"))?);
    }
    Ok(blocks)
}

fn tool_use(call: &ToolCall, path: &str) -> Result<Value, Problem> {
    let arguments = call.function.arguments.trim();
    let input = if arguments.is_empty() { Ok(json!({})) } else { serde_json::from_str::<Value>(arguments) };
    match input {
        Ok(input @ (Value::Object(_) | Value::Null)) => {
            let input = if input.is_null() { json!({}) } else { input };
            Ok(json!({"type": "tool_use", "id": call_id(&call.id), "name": call.function.name, "input": input}))
        }
        _ => {
            let path = format!("{path}.function.arguments");
            Err(Problem::invalid(&path, format!("{path}: must be a JSON object as text.")))
        }
    }
}

/// A call's id in the characters that the API allows. Conversations move between providers, and others are freer.
fn call_id(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect()
}

fn tool_result(message: &Message, path: &str) -> Result<Value, Problem> {
    let Some(id) = &message.tool_call_id else {
        let path = format!("{path}.tool_call_id");
        return Err(Problem::invalid(&path, format!("{path}: a tool message must name the call that it answers.")));
    };
    let content = user_blocks(message, path)?;
    let mut block = Map::new();
    block.insert("type".to_owned(), "tool_result".into());
    block.insert("tool_use_id".to_owned(), call_id(id).into());
    if !content.is_empty() {
        block.insert("content".to_owned(), content.into());
    }
    Ok(Value::Object(block))
}
