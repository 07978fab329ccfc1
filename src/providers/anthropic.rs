//! Anthropic Messages (<https://docs.anthropic.com/en/api/messages>).

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::openai::faithful_body;
use super::{Adapter, Api, CredentialHeader, ReportedError, Source, Target, UpstreamRequest};
use crate::config::{Provider, StructuredOutput};
use crate::error::Problem;
use crate::protocol::chat::{
    ChatEvent, ChatRequest, Content, FinishReason, Message, Part, ReplyDecoder, ReplyFault, ResponseFormat, Role, Stop,
    Tool, ToolCall, ToolChoice, tellable_names,
};
use crate::protocol::openai_chat::{MAX_EVENT_BYTES, reported};
use crate::protocol::sse::SseDecoder;
use crate::protocol::usage::Usage;
use crate::secret::Secret;

/// The path of Messages below the base URL.
pub const MESSAGES_PATH: &str = "/v1/messages";

/// The API version that translated requests are written for.
pub const VERSION: &str = "2023-06-01";

/// The tool that carries the answer where a model takes no schema for its answer (`structured_output = "tool"`).
const ANSWER_TOOL: &str = "json_answer";

/// The least thinking budget that the API accepts, in tokens.
const MIN_THINKING_BUDGET: u64 = 1024;

/// The dialect.
#[derive(Debug)]
pub struct Anthropic;

impl Adapter for Anthropic {
    fn chat_request(&self, source: &Source<'_>, target: Target<'_>) -> Result<UpstreamRequest, Problem> {
        let chat = source.parse_chat()?;
        let (body, dropped_params) = translate_request(&chat, target)?;
        Ok(UpstreamRequest {
            path: MESSAGES_PATH.to_owned(),
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
            dropped_params,
        })
    }

    fn messages_request(&self, source: &Source<'_>, target: Target<'_>) -> Option<Result<UpstreamRequest, Problem>> {
        Some(faithful_body(source.body, source.members, target.upstream_model, false).map(|body| UpstreamRequest {
            path: MESSAGES_PATH.to_owned(),
            headers: Vec::new(),
            body,
            dropped_params: Vec::new(),
        }))
    }

    fn speaks(&self, api: Api) -> bool {
        api == Api::Messages
    }

    fn decode_body(&self, body: &[u8], target: Target<'_>) -> Result<Vec<ChatEvent>, ReplyFault> {
        let body: Value = serde_json::from_slice(body).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
            return Err(reported(error));
        }
        let Some(content) = body.get("content").and_then(Value::as_array) else {
            return Err(ReplyFault::Malformed("it has no `content`".to_owned()));
        };
        let mut state = ReplyState::new(target);
        let mut events = Vec::new();
        state.start(&body, &mut events);
        for (index, block) in content.iter().enumerate() {
            let index = index as u64;
            state.block_start(index, block, &mut events);
            state.block_stop(index, &mut events);
        }
        state.message_delta(&body, &body, &mut events);
        Ok(events)
    }

    fn stream_decoder(&self, target: Target<'_>) -> Box<dyn ReplyDecoder> {
        Box::new(Decoder { sse: SseDecoder::new(MAX_EVENT_BYTES), state: ReplyState::new(target) })
    }

    fn decode_error(&self, body: &Value, _: &Provider) -> ReportedError {
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        ReportedError { message: text("/error/message"), code: text("/error/type"), param: None }
    }

    fn fixed_headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", VERSION)]
    }

    fn credential_header(&self, credential: &Secret<String>, _: &Provider) -> CredentialHeader {
        CredentialHeader { name: "x-api-key", value: credential.clone() }
    }
}

// === The request ===

fn translate_request(chat: &ChatRequest, target: Target<'_>) -> Result<(Value, Vec<String>), Problem> {
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
    file: &crate::protocol::chat::File,
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

// === The reply ===

/// Decodes a stream.
struct Decoder {
    sse: SseDecoder,
    state: ReplyState,
}

impl ReplyDecoder for Decoder {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        self.sse.push(bytes).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        while let Some(frame) = self.sse.next_frame() {
            if let Some(data) = frame.data {
                self.state.take_data(&data, out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let sse = std::mem::replace(&mut self.sse, SseDecoder::new(0));
        if let Some((_, Some(data))) = sse.unfinished()
            && serde_json::from_slice::<Value>(&data).is_ok()
        {
            self.state.take_data(&data, out)?;
        }
        if self.state.stopped { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

/// What a content block becomes.
enum Block {
    Text,
    Thinking {
        text: String,
        signature: String,
    },
    /// A block that is handed back unread, such as redacted thinking.
    Opaque(Value),
    Tool {
        index: u32,
        initial: Value,
        has_arguments: bool,
    },
    /// The answer carried by [`ANSWER_TOOL`].
    Answer {
        initial: Value,
        has_arguments: bool,
    },
    /// What the provider did on its own side (searches, code it ran): no part of the answer's text.
    Ignored,
}

struct ReplyState {
    usage: Usage,
    blocks: BTreeMap<u64, Block>,
    started: bool,
    calls: u32,
    answer_tool: bool,
    answered: bool,
    stopped: bool,
}

impl ReplyState {
    fn new(target: Target<'_>) -> Self {
        Self {
            usage: Usage::default(),
            blocks: BTreeMap::new(),
            started: false,
            calls: 0,
            answer_tool: target.structured_output == StructuredOutput::Tool,
            answered: false,
            stopped: false,
        }
    }

    fn take_data(&mut self, data: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        // Some providers of this dialect send OpenAI's `[DONE]` after the end.
        if self.stopped || data.is_empty() {
            return Ok(());
        }
        let event: Value = serde_json::from_slice(data).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        let index = || event.get("index").and_then(Value::as_u64).unwrap_or(0);
        let part = |name: &str| event.get(name).unwrap_or(&Value::Null);
        match event.get("type").and_then(Value::as_str).unwrap_or_default() {
            "message_start" => self.start(part("message"), out),
            "content_block_start" => self.block_start(index(), part("content_block"), out),
            "content_block_delta" => self.block_delta(index(), part("delta"), out),
            "content_block_stop" => self.block_stop(index(), out),
            "message_delta" => self.message_delta(part("delta"), &event, out),
            "message_stop" => self.stop(out),
            "error" => return Err(reported(part("error"))),
            "" if event.get("error").is_some() => return Err(reported(part("error"))),
            // The API says that new event types may come and must be passed over.
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, message: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        // Some proxies say it twice.
        if !std::mem::replace(&mut self.started, true) {
            out.push(ChatEvent::Start { id: text("id"), model: text("model"), created: None });
        }
        self.merge_usage(message, out);
    }

    fn stop(&mut self, out: &mut Vec<ChatEvent>) {
        self.stopped = true;
        // Blocks that were never closed.
        while let Some(index) = self.blocks.keys().next().copied() {
            self.block_stop(index, out);
        }
    }

    fn block_start(&mut self, index: u64, block: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let state = match block.get("type").and_then(Value::as_str).unwrap_or_default() {
            "text" => {
                push_text(text("text"), out);
                Block::Text
            }
            "thinking" => {
                push_reasoning(&text("thinking"), out);
                Block::Thinking { text: text("thinking"), signature: text("signature") }
            }
            "redacted_thinking" => Block::Opaque(block.clone()),
            "tool_use" => {
                let initial = block.get("input").cloned().unwrap_or_else(|| json!({}));
                if self.answer_tool && text("name") == ANSWER_TOOL {
                    self.answered = true;
                    Block::Answer { initial, has_arguments: false }
                } else {
                    let index = self.calls;
                    self.calls = self.calls.saturating_add(1);
                    out.push(ChatEvent::ToolCallStart { choice: 0, index, id: text("id"), name: text("name") });
                    Block::Tool { index, initial, has_arguments: false }
                }
            }
            _ => Block::Ignored,
        };
        self.blocks.insert(index, state);
    }

    fn block_delta(&mut self, index: u64, delta: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        match (self.blocks.get_mut(&index), delta.get("type").and_then(Value::as_str).unwrap_or_default()) {
            (Some(Block::Text), "text_delta") => push_text(text("text"), out),
            (Some(Block::Thinking { text: all, .. }), "thinking_delta") => {
                all.push_str(&text("thinking"));
                push_reasoning(&text("thinking"), out);
            }
            (Some(Block::Thinking { signature, .. }), "signature_delta") => signature.push_str(&text("signature")),
            (Some(Block::Tool { index, has_arguments, .. }), "input_json_delta") => {
                let fragment = text("partial_json");
                if !fragment.is_empty() {
                    *has_arguments = true;
                    out.push(ChatEvent::ToolCallArguments { choice: 0, index: *index, fragment });
                }
            }
            (Some(Block::Answer { has_arguments, .. }), "input_json_delta") => {
                let fragment = text("partial_json");
                *has_arguments |= !fragment.is_empty();
                push_text(fragment, out);
            }
            _ => {}
        }
    }

    fn block_stop(&mut self, index: u64, out: &mut Vec<ChatEvent>) {
        match self.blocks.remove(&index) {
            // A call without arguments still has arguments in OpenAI's terms: an empty object.
            Some(Block::Tool { index, initial, has_arguments: false }) => {
                out.push(ChatEvent::ToolCallArguments { choice: 0, index, fragment: initial.to_string() });
            }
            Some(Block::Answer { initial, has_arguments: false }) => push_text(initial.to_string(), out),
            Some(Block::Thinking { text, signature }) if !signature.is_empty() => {
                let block = json!({"type": "thinking", "thinking": text, "signature": signature});
                out.push(ChatEvent::ThinkingBlock { choice: 0, block });
            }
            Some(Block::Opaque(block)) => out.push(ChatEvent::ThinkingBlock { choice: 0, block }),
            _ => {}
        }
    }

    /// `delta` has the stop reason, `event` the usage.
    fn message_delta(&mut self, delta: &Value, event: &Value, out: &mut Vec<ChatEvent>) {
        self.merge_usage(event, out);
        let reason = match delta.get("stop_reason").and_then(Value::as_str) {
            None => return,
            Some("tool_use") if self.answered && self.calls == 0 => FinishReason::Stop,
            Some("tool_use") => FinishReason::ToolCalls,
            Some("max_tokens" | "model_context_window_exceeded") => FinishReason::Length,
            Some("refusal") => FinishReason::ContentFilter,
            Some(_) => FinishReason::Stop,
        };
        out.push(ChatEvent::Finish { choice: 0, reason });
    }

    fn merge_usage(&mut self, holder: &Value, out: &mut Vec<ChatEvent>) {
        if let Some(usage) = holder.get("usage") {
            self.usage.merge_anthropic(usage);
            out.push(ChatEvent::Usage(self.usage));
        }
    }
}

fn push_text(text: String, out: &mut Vec<ChatEvent>) {
    if !text.is_empty() {
        out.push(ChatEvent::Text { choice: 0, text, logprobs: None });
    }
}

fn push_reasoning(text: &str, out: &mut Vec<ChatEvent>) {
    if !text.is_empty() {
        out.push(ChatEvent::Reasoning { choice: 0, text: text.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json_scan::{ScanLimits, scan_object};

    fn provider() -> Provider {
        serde_json::from_value(json!({"dialect": "anthropic", "base_url": "https://a.example"})).unwrap()
    }

    fn target(provider: &Provider, structured_output: StructuredOutput) -> Target<'_> {
        Target { provider, upstream_model: "claude", max_output_tokens: 8192, structured_output }
    }

    fn translated(body: &Value, structured_output: StructuredOutput) -> Result<(Value, Vec<String>), Problem> {
        let body = body.to_string();
        let members = scan_object(body.as_bytes(), ScanLimits::default()).unwrap();
        let source = Source { body: body.as_bytes(), members: &members, stream: false };
        let request = Anthropic.chat_request(&source, target(&provider(), structured_output))?;
        Ok((serde_json::from_slice(&request.body).unwrap(), request.dropped_params))
    }

    /// A request with these messages and further members.
    fn chat(messages: Value, more: Value) -> Value {
        let mut body = json!({"model": "m", "messages": messages});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    /// The translation of a request that asks one question, with further members.
    fn asked(more: Value) -> Value {
        translated(&chat(json!([{"role": "user", "content": "hi"}]), more), StructuredOutput::Native).unwrap().0
    }

    fn asked_and_dropped(more: Value) -> (Value, Vec<String>) {
        translated(&chat(json!([{"role": "user", "content": "hi"}]), more), StructuredOutput::Native).unwrap()
    }

    fn asked_with_answer_tool(more: Value) -> Value {
        translated(&chat(json!([{"role": "user", "content": "hi"}]), more), StructuredOutput::Tool).unwrap().0
    }

    fn messages_of(messages: Value) -> Value {
        translated(&chat(messages, json!({})), StructuredOutput::Native).unwrap().0["messages"].take()
    }

    fn refused(messages: Value, more: Value) -> String {
        let problem = translated(&chat(messages, more), StructuredOutput::Native).unwrap_err();
        let param = problem.param.unwrap();
        assert_eq!((problem.status, problem.message.starts_with(&param)), (400, true), "{}", problem.message);
        param
    }

    fn text(text: &str) -> Value {
        json!({"type": "text", "text": text})
    }

    fn tools() -> Value {
        let tool =
            |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
        json!([tool("f"), tool("g")])
    }

    fn schema_format() -> Value {
        json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": {"properties": {}}}})
    }

    // === Requests ===

    #[test]
    fn instructions_move_to_the_system_from_wherever_they_stand() {
        let body = chat(
            json!([
                {"role": "system", "content": "one"},
                {"role": "user", "content": "hi"},
                {"role": "developer", "content": [{"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}]},
                {"role": "user", "content": "there"},
            ]),
            json!({}),
        );
        let (request, _) = translated(&body, StructuredOutput::Native).unwrap();
        let two = json!({"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}});
        assert_eq!(request["system"], json!([text("one"), two]));
        assert_eq!(request["messages"], json!([{"role": "user", "content": [text("hi"), text("there")]}]));
    }

    #[test]
    fn turns_alternate_and_begin_with_the_users() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": [text(content)]});
        let said = |role: &str, content: &str| json!({"role": role, "content": content});
        assert_eq!(
            messages_of(json!([said("user", "a"), said("assistant", "b"), said("user", "c")])),
            json!([turn("user", "a"), turn("assistant", "b"), turn("user", "c")])
        );
        assert_eq!(
            messages_of(json!([said("assistant", "b"), said("user", "c")])),
            json!([turn("user", "."), turn("assistant", "b"), turn("user", "c")])
        );
        assert_eq!(
            messages_of(json!([said("user", "a"), said("assistant", " "), said("user", "c")])),
            json!([{"role": "user", "content": [text("a"), text("c")]}])
        );
        assert_eq!(messages_of(json!([said("system", "s")])), json!([turn("user", ".")]));
        // The beginning of the answer may be given, without white space at its end.
        assert_eq!(
            messages_of(json!([said("user", "a"), said("assistant", "b \n")])),
            json!([turn("user", "a"), turn("assistant", "b")])
        );
    }

    #[test]
    fn text_of_white_space_alone_is_left_out_everywhere() {
        let messages = messages_of(json!([
            {"role": "user", "content": [{"type": "text", "text": "\n"}, {"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "\n\n", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "1", "content": ""},
        ]));
        assert_eq!(messages[0]["content"], json!([text("a")]));
        assert_eq!(messages[1]["content"], json!([{"type": "tool_use", "id": "1", "name": "f", "input": {}}]));
        assert_eq!(messages[2]["content"], json!([{"type": "tool_result", "tool_use_id": "1"}]));
    }

    #[test]
    fn images_come_inline_or_by_address() {
        let image = |url: &str| json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]}]);
        let source = |url: &str| messages_of(image(url))[0]["content"][0]["source"].take();
        assert_eq!(
            source("data:image/png;base64,AAAA"),
            json!({"type": "base64", "media_type": "image/png", "data": "AAAA"})
        );
        assert_eq!(source("data:image/jpg;base64,AAAA")["media_type"], "image/jpeg");
        assert_eq!(source("https://x.example/a.png"), json!({"type": "url", "url": "https://x.example/a.png"}));
        for url in ["http://x.example/a.png", "ftp://x", "a.png", "data:image/png,AAAA"] {
            assert_eq!(refused(image(url), json!({})), "messages[0].content[0].image_url.url", "{url}");
        }
    }

    #[test]
    fn documents_come_inline() {
        let file = |file: Value| json!([{"role": "user", "content": [{"type": "file", "file": file}]}]);
        let block = |file_| messages_of(file(file_))[0]["content"][0].take();
        assert_eq!(
            block(json!({"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"})),
            json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}, "title": "a.pdf"})
        );
        assert_eq!(
            block(json!({"file_data": "data:text/markdown;charset=utf-8;base64,aMOp"})),
            json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hé"}})
        );
        for wrong in [
            json!({"file_id": "file-1"}),
            json!({"file_data": "x"}),
            json!({"file_data": "data:text/plain;base64,/w=="}),
        ] {
            assert_eq!(refused(file(wrong), json!({})), "messages[0].content[0].file.file_data");
        }
    }

    #[test]
    fn parallel_calls_and_their_results_keep_their_order_and_results_come_first() {
        let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let messages = messages_of(json!([
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "let me see", "tool_calls": [call("call_1", "f", "{\"a\": 1}"), call("functions.g:1", "g", "null")]},
            {"role": "tool", "tool_call_id": "call_1", "content": "one"},
            {"role": "user", "content": "and hurry"},
            {"role": "tool", "tool_call_id": "functions.g:1", "content": [{"type": "text", "text": "two"}, {"type": "image_url", "image_url": {"url": "https://x.example/i"}}]},
        ]));
        assert_eq!(
            messages[1]["content"],
            json!([
                text("let me see"),
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "functions_g_1", "name": "g", "input": {}},
            ])
        );
        assert_eq!(
            messages[2]["content"],
            json!([
                {"type": "tool_result", "tool_use_id": "call_1", "content": [text("one")]},
                {"type": "tool_result", "tool_use_id": "functions_g_1", "content": [
                    text("two"), {"type": "image", "source": {"type": "url", "url": "https://x.example/i"}},
                ]},
                text("and hurry"),
            ])
        );
        assert_eq!(messages.as_array().unwrap().len(), 3);
    }

    #[test]
    fn tools_get_the_schema_that_the_api_insists_on() {
        let function = |function: Value| json!({"type": "function", "function": function});
        let marked = json!({"type": "function", "function": {"name": "c"}, "cache_control": {"type": "ephemeral"}});
        let request = asked(json!({"tools": [
            function(json!({"name": "a", "description": "d", "strict": true, "parameters": {"properties": {"x": {"type": "string"}}}})),
            function(json!({"name": "b", "parameters": null})),
            marked,
        ]}));
        let empty = json!({"type": "object", "properties": {}});
        assert_eq!(
            request["tools"],
            json!([
                {"name": "a", "description": "d", "input_schema": {"properties": {"x": {"type": "string"}}, "type": "object"}},
                {"name": "b", "input_schema": empty},
                {"name": "c", "input_schema": empty, "cache_control": {"type": "ephemeral"}},
            ])
        );
    }

    #[test]
    fn each_form_of_tool_choice_has_its_counterpart() {
        let choice = |more: Value| {
            let mut all = json!({"tools": tools()});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            asked(all).get("tool_choice").cloned()
        };
        assert_eq!(choice(json!({})), None);
        assert_eq!(choice(json!({"tool_choice": null, "parallel_tool_calls": true})), None);
        assert_eq!(choice(json!({"tool_choice": "auto"})), Some(json!({"type": "auto"})));
        assert_eq!(choice(json!({"tool_choice": "none"})), Some(json!({"type": "none"})));
        assert_eq!(choice(json!({"tool_choice": "required"})), Some(json!({"type": "any"})));
        assert_eq!(
            choice(
                json!({"tool_choice": {"type": "function", "function": {"name": "g"}}, "parallel_tool_calls": false})
            ),
            Some(json!({"type": "tool", "name": "g", "disable_parallel_tool_use": true}))
        );
        assert_eq!(
            choice(json!({"parallel_tool_calls": false})),
            Some(json!({"type": "auto", "disable_parallel_tool_use": true}))
        );
        assert_eq!(asked(json!({"tool_choice": "auto", "tools": []})).get("tool_choice"), None);
    }

    #[test]
    fn sampling_and_limits_are_carried_over() {
        let request = asked(json!({
            "temperature": 1.7, "top_p": 0.5, "top_k": 4, "stop": ["END", " "], "max_tokens": 9, "max_completion_tokens": 7,
            "user": "u", "service_tier": "default", "stream": true,
        }));
        let expected = json!({
            "model": "claude", "max_tokens": 7, "messages": [{"role": "user", "content": [text("hi")]}], "stream": true,
            "temperature": 1.0, "top_p": 0.5, "top_k": 4, "stop_sequences": ["END"],
            "metadata": {"user_id": "u"}, "service_tier": "standard_only",
        });
        assert_eq!(request, expected);
        assert_eq!(asked(json!({"max_tokens": 9}))["max_tokens"], 9);
        assert_eq!(asked(json!({}))["max_tokens"], 8192);
        assert_eq!(asked(json!({"stop": "x"}))["stop_sequences"], json!(["x"]));
        assert_eq!(asked(json!({"temperature": 0.2, "top_p": 1.0})).get("top_p"), None);
    }

    #[test]
    fn parameters_that_cannot_be_honoured_are_listed() {
        let (request, dropped) = asked_and_dropped(json!({
            "seed": 1, "logprobs": true, "frequency_penalty": 0.5, "stop": [" "], "service_tier": "flex", "logit_bias": {},
            "presence_penalty": null, "store": false, "metadata": {"a": "b"}, "made_up": 1, "no\r\nheader": 1, "é": 1, "": 1,
        }));
        assert_eq!(dropped, ["seed", "logprobs", "frequency_penalty", "metadata", "made_up", "stop", "service_tier"]);
        assert_eq!(request.as_object().unwrap().keys().collect::<Vec<_>>(), ["model", "max_tokens", "messages"]);
    }

    #[test]
    fn answers_in_json_are_asked_for_natively_or_by_a_tool() {
        let native = asked(json!({"response_format": schema_format()}));
        assert_eq!(native["output_config"], json!({"format": {"type": "json_schema", "schema": {"properties": {}}}}));
        assert_eq!(native.get("tools"), None);

        let by_tool = asked_with_answer_tool(json!({"response_format": schema_format()}));
        assert_eq!(by_tool["tools"][0]["name"], ANSWER_TOOL);
        assert_eq!(by_tool["tools"][0]["input_schema"], json!({"properties": {}, "type": "object"}));
        let forced = json!({"type": "tool", "name": ANSWER_TOOL, "disable_parallel_tool_use": true});
        assert_eq!(by_tool["tool_choice"], forced);
        assert_eq!(by_tool.get("output_config"), None);

        let object = asked(json!({"response_format": {"type": "json_object"}}));
        assert!(object["system"][0]["text"].as_str().unwrap().contains("JSON"));
        assert_eq!(asked(json!({"response_format": {"type": "text"}})).get("system"), None);
    }

    #[test]
    fn the_answer_tool_respects_the_callers_tools() {
        let choice = |choice: Value, parallel: bool| {
            let more = json!({"response_format": schema_format(), "tools": tools(), "tool_choice": choice, "parallel_tool_calls": parallel});
            asked_with_answer_tool(more)["tool_choice"].take()
        };
        assert_eq!(choice(json!("auto"), true), json!({"type": "any"}));
        assert_eq!(choice(json!("auto"), false), json!({"type": "any", "disable_parallel_tool_use": true}));
        assert_eq!(choice(json!("none"), true)["name"], ANSWER_TOOL);
        let named = json!({"type": "function", "function": {"name": "g"}});
        assert_eq!(choice(named, true), json!({"type": "tool", "name": "g"}));

        let own = json!({"tools": [{"type": "function", "function": {"name": ANSWER_TOOL}}]});
        let body = chat(json!([{"role": "user", "content": "hi"}]), own);
        assert!(translated(&body, StructuredOutput::Native).is_ok());
        let problem = translated(&body, StructuredOutput::Tool).unwrap_err();
        assert_eq!(problem.param.as_deref(), Some("tools[0].function.name"));
    }

    #[test]
    fn effort_becomes_a_budget_that_leaves_room_for_the_answer() {
        let budget = |effort: &str, limit: u64| {
            let (request, dropped) = asked_and_dropped(json!({"reasoning_effort": effort, "max_tokens": limit}));
            (request["thinking"]["budget_tokens"].as_u64(), dropped.len())
        };
        assert_eq!(budget("low", 64_000), (Some(2048), 0));
        assert_eq!(budget("medium", 64_000), (Some(8192), 0));
        assert_eq!(budget("high", 64_000), (Some(24_576), 0));
        assert_eq!(budget("high", 8000), (Some(6000), 0));
        assert_eq!(budget("low", 1200), (None, 1));
        assert_eq!(budget("none", 64_000), (None, 0));
        assert_eq!(budget("minimal", 64_000), (None, 0));
        let question = json!([{"role": "user", "content": "hi"}]);
        assert_eq!(refused(question, json!({"reasoning_effort": "very"})), "reasoning_effort");
    }

    #[test]
    fn thinking_rules_out_sampling_parameters() {
        let (request, dropped) =
            asked_and_dropped(json!({"reasoning_effort": "low", "temperature": 0.3, "top_p": 0.5, "top_k": 3}));
        assert_eq!(dropped, ["temperature", "top_p", "top_k"]);
        assert!(request.get("thinking").is_some() && request.get("temperature").is_none());
        let (request, dropped) = asked_and_dropped(json!({"thinking": {"type": "disabled"}, "temperature": 0.3}));
        assert_eq!((request["temperature"].as_f64(), dropped.len()), (Some(0.3), 0));
    }

    #[test]
    fn the_callers_own_thinking_is_handed_on_with_room_for_the_answer() {
        let own = json!({"type": "enabled", "budget_tokens": 10_000, "display": "omitted"});
        let (request, dropped) = asked_and_dropped(json!({"thinking": own, "reasoning_effort": "low"}));
        assert_eq!((&request["thinking"], dropped), (&own, vec!["reasoning_effort".to_owned()]));
        assert_eq!(request["max_tokens"], 18_192);
        assert_eq!(asked(json!({"thinking": {"type": "adaptive"}}))["thinking"], json!({"type": "adaptive"}));
        let question = || json!([{"role": "user", "content": "hi"}]);
        assert_eq!(refused(question(), json!({"thinking": {"type": "enabled"}})), "thinking.budget_tokens");
        assert_eq!(refused(question(), json!({"thinking": true})), "thinking.type");
    }

    #[test]
    fn thinking_is_dropped_where_the_api_would_refuse_it() {
        let dropped = |messages: Value, more: Value| {
            let (request, dropped) = translated(&chat(messages, more), StructuredOutput::Native).unwrap();
            assert_eq!(request.get("thinking").is_none(), !dropped.is_empty());
            dropped
        };
        let question = || json!([{"role": "user", "content": "q"}]);
        let effort = || json!({"reasoning_effort": "low"});
        assert_eq!(
            dropped(question(), json!({"reasoning_effort": "low", "tools": tools(), "tool_choice": "required"})),
            ["reasoning_effort"]
        );
        let own = json!({"type": "enabled", "budget_tokens": 2000});
        assert_eq!(
            dropped(question(), json!({"thinking": own, "tools": tools(), "tool_choice": "required"})),
            ["thinking"]
        );
        assert_eq!(
            dropped(json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "So"}]), effort()),
            ["reasoning_effort"]
        );

        let tool_turn = |thinking_blocks: Value| {
            json!([
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": null, "thinking_blocks": thinking_blocks,
                 "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "r"},
                {"role": "user", "content": "and?"},
            ])
        };
        let signed = json!([{"type": "thinking", "thinking": "hm", "signature": "s"}]);
        assert_eq!(dropped(tool_turn(json!(null)), effort()), ["reasoning_effort"]);
        assert_eq!(dropped(tool_turn(signed), effort()), Vec::<String>::new());
    }

    #[test]
    fn signed_thinking_goes_back_first_and_unchanged() {
        let blocks = json!([
            {"type": "thinking", "thinking": "hm", "signature": "c2ln", "more": 1},
            {"type": "redacted_thinking", "data": "b3BhcXVl"},
        ]);
        let messages = messages_of(json!([
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "reasoning_content": "hm", "thinking_blocks": blocks},
            {"role": "user", "content": "q"},
        ]));
        assert_eq!(messages[1]["content"], json!([blocks[0], blocks[1], text("a")]));
    }

    #[test]
    fn cache_markers_are_kept_on_parts_and_put_on_the_last_part_of_a_message() {
        let marker = json!({"type": "ephemeral", "ttl": "1h"});
        let messages = messages_of(json!([
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": marker}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "cache_control": marker, "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}]},
            {"role": "user", "cache_control": marker, "content": [{"type": "text", "text": "c"}, {"type": "image_url", "image_url": {"url": "https://x.example/i"}}]},
        ]));
        assert_eq!(messages[0]["content"][0]["cache_control"], marker);
        assert_eq!(messages[0]["content"][1].get("cache_control"), None);
        assert_eq!(messages[1]["content"][0].get("cache_control"), None);
        assert_eq!(messages[2]["content"][0].get("cache_control"), None);
        assert_eq!(messages[2]["content"][1]["cache_control"], marker);
    }

    #[test]
    fn what_has_no_counterpart_is_refused_by_name() {
        let question = || json!([{"role": "user", "content": "hi"}]);
        let part = |role: &str, part: Value| json!([{"role": role, "content": [part], "tool_call_id": "1"}]);
        assert_eq!(refused(question(), json!({"n": 2})), "n");
        assert_eq!(refused(question(), json!({"functions": [{"name": "f"}]})), "functions");
        assert_eq!(refused(question(), json!({"function_call": "auto"})), "function_call");
        assert_eq!(refused(question(), json!({"temperature": "hot"})), "temperature");
        assert_eq!(refused(question(), json!({"tool_choice": {"type": "allowed_tools"}})), "tool_choice");
        assert_eq!(
            refused(question(), json!({"tools": [{"type": "custom", "custom": {"name": "x"}}]})),
            "tools[0].type"
        );
        assert_eq!(refused(question(), json!({"response_format": {"type": "grammar"}})), "response_format.type");
        assert_eq!(refused(json!([]), json!({})), "messages");
        assert_eq!(refused(json!([{"role": "wizard", "content": "x"}]), json!({})), "messages[0].role");
        assert_eq!(
            refused(part("user", json!({"type": "input_audio", "input_audio": {}})), json!({})),
            "messages[0].content[0]"
        );
        let image = json!({"type": "image_url", "image_url": {"url": "https://x.example/i"}});
        for role in ["system", "assistant"] {
            assert_eq!(refused(part(role, image.clone()), json!({})), "messages[0].content");
        }
        assert_eq!(refused(json!([{"role": "tool", "content": "x"}]), json!({})), "messages[0].tool_call_id");
        let call = |arguments: &str| json!([{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]}]);
        for arguments in ["[1]", "{", "5"] {
            assert_eq!(refused(call(arguments), json!({})), "messages[0].tool_calls[0].function.arguments");
        }
    }

    // === Replies ===

    fn body_events(content: Value, stop_reason: &str, structured_output: StructuredOutput) -> Vec<ChatEvent> {
        let body = json!({"id": "msg_1", "type": "message", "content": content, "stop_reason": stop_reason, "usage": {"input_tokens": 1}});
        Anthropic.decode_body(body.to_string().as_bytes(), target(&provider(), structured_output)).unwrap()
    }

    fn stream_events(
        events: &[Value],
        structured_output: StructuredOutput,
    ) -> (Vec<ChatEvent>, Result<(), ReplyFault>) {
        let provider = provider();
        let mut decoder = Anthropic.stream_decoder(target(&provider, structured_output));
        let mut out = Vec::new();
        let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        let result = decoder.push(stream.as_bytes(), &mut out).and_then(|()| decoder.finish(&mut out));
        (out, result)
    }

    fn texts(events: &[ChatEvent]) -> String {
        let texts = events.iter().filter_map(|event| match event {
            ChatEvent::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    fn finish(events: &[ChatEvent]) -> Option<FinishReason> {
        events.iter().find_map(|event| match event {
            ChatEvent::Finish { reason, .. } => Some(*reason),
            _ => None,
        })
    }

    fn answer_stream() -> Vec<Value> {
        vec![
            json!({"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 1}}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": ANSWER_TOOL, "input": {}}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{\"a\""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ":1}"}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}}),
            json!({"type": "message_stop"}),
        ]
    }

    #[test]
    fn the_answer_tools_arguments_are_the_answers_text() {
        let content = json!([{"type": "tool_use", "id": "t", "name": ANSWER_TOOL, "input": {"a": 1}}]);
        let whole = body_events(content.clone(), "tool_use", StructuredOutput::Tool);
        assert_eq!((texts(&whole).as_str(), finish(&whole)), ("{\"a\":1}", Some(FinishReason::Stop)));
        let (streamed, result) = stream_events(&answer_stream(), StructuredOutput::Tool);
        assert_eq!(
            (texts(&streamed).as_str(), finish(&streamed), result),
            ("{\"a\":1}", Some(FinishReason::Stop), Ok(()))
        );
        // Where answers do not come by tool, a tool of that name is like any other.
        let called = body_events(content, "tool_use", StructuredOutput::Native);
        assert_eq!((texts(&called).as_str(), finish(&called)), ("", Some(FinishReason::ToolCalls)));
    }

    #[test]
    fn a_call_of_the_callers_tool_beside_the_answer_is_a_call() {
        let content = json!([
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
            {"type": "tool_use", "id": "u", "name": ANSWER_TOOL, "input": {}},
        ]);
        let events = body_events(content, "tool_use", StructuredOutput::Tool);
        assert_eq!(finish(&events), Some(FinishReason::ToolCalls));
        assert!(events.contains(&ChatEvent::ToolCallStart { choice: 0, index: 0, id: "t".into(), name: "f".into() }));
        assert!(events.contains(&ChatEvent::ToolCallArguments { choice: 0, index: 0, fragment: "{}".into() }));
    }

    #[test]
    fn thinking_is_shown_and_its_signed_blocks_come_whole() {
        let events = [
            json!({"type": "message_start", "message": {"id": "m"}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s1"}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "x"}}),
            json!({"type": "message_stop"}),
        ];
        let (events, result) = stream_events(&events, StructuredOutput::Native);
        let blocks: Vec<&Value> = events
            .iter()
            .filter_map(|event| match event {
                ChatEvent::ThinkingBlock { block, .. } => Some(block),
                _ => None,
            })
            .collect();
        // The second one was never closed; the end closes it.
        let (thinking, redacted) = (
            json!({"type": "thinking", "thinking": "hm", "signature": "s1"}),
            json!({"type": "redacted_thinking", "data": "x"}),
        );
        assert_eq!((blocks, result), (vec![&thinking, &redacted], Ok(())));
        assert_eq!(events.iter().filter(|event| matches!(event, ChatEvent::Reasoning { .. })).count(), 2);
    }

    #[test]
    fn a_reply_begins_once_even_if_it_is_said_twice() {
        let again = json!({"type": "message_start", "message": {"id": "msg_2", "usage": {"input_tokens": 4}}});
        let (events, _) = stream_events(&[answer_stream().remove(0), again], StructuredOutput::Native);
        let begun: Vec<&ChatEvent> = events.iter().filter(|event| matches!(event, ChatEvent::Start { .. })).collect();
        assert_eq!(begun, [&ChatEvent::Start { id: "msg_1".into(), model: String::new(), created: None }]);
        assert_eq!(events.last(), Some(&ChatEvent::Usage(Usage { input: 4, ..Usage::default() })));
    }

    #[test]
    fn every_stop_reason_has_its_counterpart() {
        let reason = |word: &str| finish(&body_events(json!([]), word, StructuredOutput::Native)).unwrap().as_str();
        for word in ["end_turn", "stop_sequence", "pause_turn", "new_in_some_year"] {
            assert_eq!(reason(word), "stop");
        }
        assert_eq!(reason("max_tokens"), "length");
        assert_eq!(reason("model_context_window_exceeded"), "length");
        assert_eq!(reason("tool_use"), "tool_calls");
        assert_eq!(reason("refusal"), "content_filter");
    }

    #[test]
    fn a_stream_counts_as_complete_at_message_stop_and_nothing_after_it_counts() {
        let mut events = answer_stream();
        events.push(json!({"type": "error", "error": {"message": "late"}}));
        assert_eq!(stream_events(&events, StructuredOutput::Native).1, Ok(()));
        let cut = stream_events(&answer_stream()[..6], StructuredOutput::Native);
        assert_eq!(cut.1, Err(ReplyFault::Truncated));

        let provider = provider();
        let mut decoder = Anthropic.stream_decoder(target(&provider, StructuredOutput::Native));
        let mut out = Vec::new();
        let tail = b"data: \n\ndata: {\"type\":\"message_stop\"}\n\ndata: [DONE]\n\n";
        assert_eq!(decoder.push(tail, &mut out).and_then(|()| decoder.finish(&mut out)), Ok(()));
    }

    #[test]
    fn errors_are_reported_in_the_providers_words() {
        let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
        let fault = ReplyFault::Reported { message: "Overloaded".into(), code: Some("overloaded_error".into()) };
        assert_eq!(
            stream_events(&[answer_stream().remove(0), error.clone()], StructuredOutput::Native).1,
            Err(fault.clone())
        );
        let untyped = json!({"error": {"type": "overloaded_error", "message": "Overloaded"}});
        assert_eq!(stream_events(&[untyped], StructuredOutput::Native).1, Err(fault.clone()));
        let provider = provider();
        let decoded = Anthropic.decode_body(error.to_string().as_bytes(), target(&provider, StructuredOutput::Native));
        assert_eq!(decoded, Err(fault));
        for body in ["{}", "null", "[]", "<html>", "{\"content\":5}"] {
            let decoded = Anthropic.decode_body(body.as_bytes(), target(&provider, StructuredOutput::Native));
            assert!(matches!(decoded, Err(ReplyFault::Malformed(_))), "{body}");
        }
    }
}
