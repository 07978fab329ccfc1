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
    Tool, ToolCall, ToolChoice,
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
        if body.get("type").and_then(Value::as_str) == Some("error") {
            return Err(reported(body.get("error").unwrap_or(&Value::Null)));
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
    let mut dropped: Vec<String> =
        ["frequency_penalty", "presence_penalty", "seed", "logit_bias", "logprobs", "top_logprobs"]
            .into_iter()
            .filter(|name| {
                chat.extra.get(*name).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
            })
            .map(str::to_owned)
            .collect();

    let (mut system, messages) = translate_messages(&chat.messages)?;
    let mut tools = translate_tools(chat.tools.as_deref().unwrap_or_default());
    let mut choice = translate_choice(chat, !tools.is_empty());
    let mut output_format = None;
    match &chat.response_format {
        None | Some(ResponseFormat::Text) => {}
        Some(ResponseFormat::JsonObject) => system.push(json!({
            "type": "text",
            "text": "Answer with one valid JSON object and nothing else: no prose, no code fence.",
        })),
        Some(ResponseFormat::JsonSchema { json_schema }) => {
            let schema = json_schema.schema.clone().unwrap_or_else(|| json!({"type": "object"}));
            match target.structured_output {
                StructuredOutput::Native => output_format = Some(json!({"type": "json_schema", "schema": schema})),
                StructuredOutput::Tool => {
                    let about = json_schema
                        .description
                        .as_deref()
                        .unwrap_or("Gives the answer in the form that was asked for.");
                    tools.push(json!({"name": ANSWER_TOOL, "description": about, "input_schema": schema}));
                    // With tools of the caller's own the model may call those first, and must end with the answer.
                    choice = Some(if tools.len() > 1 {
                        json!({"type": "any"})
                    } else {
                        json!({"type": "tool", "name": ANSWER_TOOL})
                    });
                }
            }
        }
    }

    let limit = chat.output_limit().unwrap_or(target.max_output_tokens);
    let forced = choice.as_ref().is_some_and(|c| matches!(c.get("type").and_then(Value::as_str), Some("any" | "tool")));
    let thinking = thinking(chat, limit, forced, &mut dropped);
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
    for (name, value) in [("top_p", chat.top_p.map(|p| json!(p))), ("top_k", chat.top_k.map(|k| json!(k)))] {
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

/// `reasoning_effort` as a thinking budget, or the caller's own `thinking` as it is.
fn thinking(chat: &ChatRequest, limit: u64, forced_tool: bool, dropped: &mut Vec<String>) -> Option<Value> {
    if let Some(thinking) = &chat.thinking {
        return Some(thinking.clone());
    }
    let budget: u64 = match chat.reasoning_effort.as_deref()? {
        "none" | "minimal" => return None,
        "low" => 2048,
        "medium" => 8192,
        _ => 24_576,
    };
    // The budget must leave room for the answer; the API refuses thinking beside a forced tool, and in the middle of a
    // tool call whose own thinking is not given back.
    let budget = budget.min(limit.saturating_sub(limit.div_euclid(4).max(1)));
    let last_calls = chat.messages.iter().rev().find(|message| message.role == Role::Assistant);
    let unsigned_call = chat.messages.last().is_some_and(|message| message.role == Role::Tool)
        && last_calls.is_some_and(|message| message.thinking_blocks.as_ref().is_none_or(Vec::is_empty));
    if budget < MIN_THINKING_BUDGET || forced_tool || unsigned_call {
        dropped.push("reasoning_effort".to_owned());
        return None;
    }
    Some(json!({"type": "enabled", "budget_tokens": budget}))
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
    if chat.parallel_tool_calls == Some(false)
        && let Some(choice) = choice.as_object_mut()
    {
        choice.insert("disable_parallel_tool_use".to_owned(), true.into());
    } else if chat.tool_choice.is_none() {
        return None;
    }
    Some(choice)
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
    turns.retain(|(_, content)| !content.is_empty());
    if turns.first().is_none_or(|(role, _)| *role == "assistant") {
        turns.insert(0, ("user", vec![json!({"type": "text", "text": "."})]));
    }
    // A conversation may end with the beginning of the answer; the API refuses white space at its end.
    if let Some(("assistant", content)) = turns.last_mut()
        && let Some(text) = content.last_mut().and_then(|block| block.get_mut("text"))
        && let Some(trimmed) = text.as_str().map(|text| text.trim_end().to_owned())
    {
        *text = trimmed.into();
    }
    let messages = turns.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    Ok((system, messages))
}

/// A marker for a whole message goes to its last block, which is where the API takes it.
fn mark_last(blocks: &mut [Value], cache_control: Option<&Value>) {
    if let (Some(marker), Some(Value::Object(last))) = (cache_control, blocks.last_mut()) {
        last.entry("cache_control").or_insert_with(|| marker.clone());
    }
}

fn text_block(text: &str, cache_control: Option<&Value>) -> Option<Value> {
    if text.is_empty() {
        return None; // the API refuses empty text
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
        json!({"type": "base64", "media_type": media_type, "data": data})
    } else if url.starts_with("https://") || url.starts_with("http://") {
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
    let source = if media_type == "text/plain" {
        let text =
            base64::engine::general_purpose::STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(text) = text else {
            return Err(Problem::invalid(&path, format!("{path}: is not base64 of UTF-8 text.")));
        };
        json!({"type": "text", "media_type": media_type, "data": text})
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
        Ok(input @ Value::Object(_)) => {
            Ok(json!({"type": "tool_use", "id": call.id, "name": call.function.name, "input": input}))
        }
        _ => {
            let path = format!("{path}.function.arguments");
            Err(Problem::invalid(&path, format!("{path}: must be a JSON object as text.")))
        }
    }
}

fn tool_result(message: &Message, path: &str) -> Result<Value, Problem> {
    let Some(id) = &message.tool_call_id else {
        let path = format!("{path}.tool_call_id");
        return Err(Problem::invalid(&path, format!("{path}: a tool message must name the call that it answers.")));
    };
    let content = user_blocks(message, path)?;
    let mut block = Map::new();
    block.insert("type".to_owned(), "tool_result".into());
    block.insert("tool_use_id".to_owned(), id.clone().into());
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
            calls: 0,
            answer_tool: target.structured_output == StructuredOutput::Tool,
            answered: false,
            stopped: false,
        }
    }

    fn take_data(&mut self, data: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let event: Value = serde_json::from_slice(data).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        let index = || event.get("index").and_then(Value::as_u64).unwrap_or(0);
        let part = |name: &str| event.get(name).unwrap_or(&Value::Null);
        match event.get("type").and_then(Value::as_str).unwrap_or_default() {
            "message_start" => self.start(part("message"), out),
            "content_block_start" => self.block_start(index(), part("content_block"), out),
            "content_block_delta" => self.block_delta(index(), part("delta"), out),
            "content_block_stop" => self.block_stop(index(), out),
            "message_delta" => self.message_delta(part("delta"), &event, out),
            "message_stop" => self.stopped = true,
            "error" => return Err(reported(part("error"))),
            // The API says that new event types may come and must be passed over.
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, message: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        out.push(ChatEvent::Start { id: text("id"), model: text("model"), created: None });
        self.merge_usage(message, out);
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
