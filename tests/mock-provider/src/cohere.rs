//! Cohere's API, version 2: chat, embeddings, rerank. Members it does not know are refused wherever they stand.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::answer::{Answer, Ending, Limits, Want, fnv};
use crate::directives::Directives;
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::Route;
use crate::openai::{self, Call, ChatRequest, Said, bearer, content_text, mid_stream_error};
use crate::reply::{ApiError, Reply, put};
use crate::server::App;
use crate::side::{RerankAsked, last_text, packed, tokens, vector};
use crate::wire::{Event, EventStream, Framing, Kind, Template};

/// Most texts of one embeddings request.
const MAX_TEXTS: usize = 96;
/// Tokens that the provider's own instructions add to a prompt and are not billed.
const UNBILLED: (u64, u64) = (495, 3);

const CHAT_MEMBERS: [&str; 22] = [
    "model",
    "messages",
    "stream",
    "tools",
    "strict_tools",
    "documents",
    "citation_options",
    "response_format",
    "safety_mode",
    "max_tokens",
    "stop_sequences",
    "temperature",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "k",
    "p",
    "logprobs",
    "tool_choice",
    "thinking",
    "priority",
    "raw_prompting",
];

/// The three endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cohere {
    Chat,
    Embed,
    Rerank,
}

/// The endpoint that a path names.
pub fn find(path: &str) -> Option<Cohere> {
    Some(match path {
        _ if path.ends_with("/v2/chat") => Cohere::Chat,
        _ if path.ends_with("/v2/embed") => Cohere::Embed,
        _ if path.ends_with("/v2/rerank") => Cohere::Rerank,
        _ => return None,
    })
}

impl Endpoint for Cohere {
    fn route(&self) -> Route {
        match self {
            Self::Chat => Route::CohereChat,
            Self::Embed => Route::Embeddings,
            Self::Rerank => Route::Rerank,
        }
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        match self {
            Self::Chat => openai::last_user_text(body),
            Self::Embed => last_text(body, "texts"),
            Self::Rerank => last_text(body, "query"),
        }
    }

    fn refuse_key(&self, request: &Request<'_>, key: &str) -> Option<ApiError> {
        match bearer(request) {
            None => Some(ApiError::new(401, "no api key supplied")),
            Some(given) if given == key => None,
            Some(_) => Some(ApiError::new(401, "invalid api token")),
        }
    }

    fn unreadable(&self, error: &str) -> ApiError {
        ApiError::invalid(format!("invalid json syntax: {error}"))
    }

    fn error_body(&self, error: &ApiError) -> String {
        json!({"id": id(fnv(0, error.message.as_bytes())), "message": error.message}).to_string()
    }

    fn headers(&self, _: &App, reply: Reply) -> Reply {
        reply.header("x-api-warning", "mock").header("x-debug-trace-id", "mock0mock0mock0mock")
    }

    fn respond(&self, app: &App, _: &Request<'_>, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        if directives.block {
            return Err(ApiError::new(498, "request blocked: the request may violate our usage guidelines"));
        }
        match self {
            Self::Chat => chat(app, body, directives),
            Self::Embed => embed(app, body, directives),
            Self::Rerank => rerank(app, body, directives),
        }
    }
}

/// An id in the form of a UUID.
fn id(seed: u64) -> String {
    let more = fnv(seed, b"id");
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        seed >> 32,
        (seed >> 16) & 0xffff,
        seed & 0xfff,
        more >> 52,
        more & 0xffff_ffff_ffff
    )
}

fn fresh_id(app: &App) -> String {
    id(fnv(0, app.id("", 20).as_bytes()))
}

fn invalid(message: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(format!("invalid request: {message}."))
}

fn wrong_type(name: &str, expected: &str) -> ApiError {
    ApiError::invalid(format!(
        "invalid type: parameter {name} should be of type {expected}. For proper usage, please refer to \
         https://docs.cohere.com/reference/chat"
    ))
}

/// Refuses members of an object that are not among these.
fn closed(object: &Value, known: &[&str]) -> Result<(), ApiError> {
    let names = object.as_object().into_iter().flat_map(Map::keys);
    match names.into_iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(ApiError::new(
            422,
            format!(
                "unknown field: parameter '{name}' is not a valid field. For proper usage, please refer to \
                 https://docs.cohere.com/reference/chat"
            ),
        )),
        None => Ok(()),
    }
}

fn number(body: &Value, name: &str, least: f64, most: f64) -> Result<(), ApiError> {
    match body.get(name).filter(|value| !value.is_null()).map(Value::as_f64) {
        None => Ok(()),
        Some(None) => Err(wrong_type(name, "number")),
        Some(Some(number)) if (least..=most).contains(&number) => Ok(()),
        Some(_) => Err(invalid(format!("{name} must be between {least} and {most} inclusive"))),
    }
}

fn demand<'a>(body: &'a Value, name: &str) -> Result<&'a str, ApiError> {
    match body.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        None | Some(Value::Null | Value::String(_)) => Err(invalid(format!("{name} is required"))),
        Some(_) => Err(wrong_type(name, "string")),
    }
}

// --- Chat ----------------------------------------------------------------------------------------------------

fn check(body: &Value) -> Result<ChatRequest<'_>, ApiError> {
    if !body.is_object() {
        return Err(wrong_type("body", "object"));
    }
    closed(body, &CHAT_MEMBERS)?;
    let field = |name: &str| body.get(name).filter(|value| !value.is_null());
    let model = demand(body, "model")?;
    let messages = match field("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages.as_slice(),
        None | Some(Value::Array(_)) => return Err(invalid("at least one message must be specified")),
        Some(_) => return Err(wrong_type("messages", "array")),
    };
    check_messages(messages)?;
    number(body, "temperature", 0.0, f64::MAX)?;
    number(body, "p", 0.01, 0.99)?;
    number(body, "k", 0.0, 500.0)?;
    number(body, "frequency_penalty", 0.0, 1.0)?;
    number(body, "presence_penalty", 0.0, 1.0)?;
    number(body, "max_tokens", 1.0, f64::MAX)?;
    let stop = match field("stop_sequences") {
        None => Vec::new(),
        Some(Value::Array(stops)) if stops.len() > 5 => return Err(invalid("at most 5 stop sequences are allowed")),
        Some(Value::Array(stops)) => stops
            .iter()
            .map(|stop| {
                stop.as_str().map(str::to_owned).ok_or_else(|| wrong_type("stop_sequences", "array of strings"))
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong_type("stop_sequences", "array of strings")),
    };
    for name in ["stream", "strict_tools", "logprobs"] {
        if field(name).is_some_and(|value| !value.is_boolean()) {
            return Err(wrong_type(name, "boolean"));
        }
    }
    if let Some(thinking) = field("thinking") {
        closed(thinking, &["type", "token_budget"])?;
        if !["enabled", "disabled"].iter().any(|kind| thinking.get("type").is_some_and(|given| given == kind)) {
            return Err(invalid("thinking.type must be 'enabled' or 'disabled'"));
        }
    }
    let tools = check_tools(field("tools"))?;
    let (forbidden, forced) = match field("tool_choice").map(Value::as_str) {
        None => (false, false),
        Some(Some("REQUIRED")) if !tools.is_empty() => (false, true),
        Some(Some("NONE")) if !tools.is_empty() => (true, false),
        Some(Some("REQUIRED" | "NONE")) => return Err(invalid("tool_choice requires tools to be specified")),
        Some(_) => return Err(invalid("tool_choice must be one of 'REQUIRED' or 'NONE'")),
    };
    Ok(ChatRequest {
        model,
        messages,
        stream: field("stream") == Some(&Value::Bool(true)),
        include_usage: true,
        choices: 1,
        limits: Limits { max_tokens: field("max_tokens").and_then(Value::as_u64), stop },
        want: check_format(body, !tools.is_empty())?,
        tools,
        forbidden,
        forced,
        parallel: true,
    })
}

fn check_messages(messages: &[Value]) -> Result<(), ApiError> {
    let mut called: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        closed(message, &["role", "content", "tool_calls", "tool_plan", "tool_call_id", "citations"])?;
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        let kinds: &[&str] = match role {
            "user" => &["text", "image_url"],
            "assistant" => &["text", "thinking"],
            "tool" => &["text", "document"],
            "system" => &["text"],
            _ => return Err(invalid(format!("messages[{at}].role must be one of user, assistant, system, tool"))),
        };
        match message.get("content") {
            Some(Value::Array(parts)) => {
                for (number, part) in parts.iter().enumerate() {
                    closed(part, &["type", "text", "image_url", "thinking", "document"])?;
                    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
                    if !kinds.contains(&kind) {
                        return Err(invalid(format!(
                            "messages[{at}].content[{number}].type '{kind}' is not valid for the role '{role}'"
                        )));
                    }
                }
            }
            Some(Value::String(_)) | None | Some(Value::Null) => {}
            Some(_) => return Err(wrong_type(&format!("messages[{at}].content"), "string or array")),
        }
        let empty = message.get("content").and_then(content_text).is_none_or(|text| text.is_empty())
            && message.get("content").and_then(Value::as_array).is_none_or(Vec::is_empty);
        let calls = message.get("tool_calls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if empty && calls.is_empty() {
            return Err(invalid(format!("messages[{at}] must have content or tool calls")));
        }
        for (number, call) in calls.iter().enumerate() {
            closed(call, &["id", "type", "function"])?;
            if let Some(function) = call.get("function") {
                closed(function, &["name", "arguments"])?;
            }
            let place = format!("messages[{at}].tool_calls[{number}]");
            called.push(demand(call, "id").map_err(|_| invalid(format!("{place}.id is required")))?);
            let function = call.get("function").unwrap_or(&Value::Null);
            demand(function, "name").map_err(|_| invalid(format!("{place}.function.name is required")))?;
        }
        if role == "tool" {
            let id = demand(message, "tool_call_id")
                .map_err(|_| invalid(format!("messages[{at}].tool_call_id is required")))?;
            if !called.contains(&id) {
                return Err(invalid(format!("tool call id {id} not found in previous tool calls")));
            }
        }
    }
    Ok(())
}

fn check_tools(tools: Option<&Value>) -> Result<Vec<(&str, &Value)>, ApiError> {
    let tools = match tools {
        None => return Ok(Vec::new()),
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(wrong_type("tools", "array")),
    };
    tools
        .iter()
        .enumerate()
        .map(|(at, tool)| {
            closed(tool, &["type", "function"])?;
            let function = tool.get("function").unwrap_or(&Value::Null);
            closed(function, &["name", "description", "parameters"])?;
            if tool.get("type").and_then(Value::as_str) != Some("function") {
                return Err(invalid(format!("tools[{at}].type must be 'function'")));
            }
            let name = demand(function, "name")?;
            Ok((name, function.get("parameters").unwrap_or(&Value::Null)))
        })
        .collect()
}

fn check_format(body: &Value, tools: bool) -> Result<Want<'_>, ApiError> {
    let Some(format) = body.get("response_format").filter(|format| !format.is_null()) else {
        return Ok(Want::Prose);
    };
    closed(format, &["type", "json_schema", "schema"])?;
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Want::Prose),
        Some("json_object") if tools || body.get("documents").is_some_and(|documents| !documents.is_null()) => {
            Err(invalid("response_format of type json_object cannot be used with tools or documents"))
        }
        Some("json_object") => {
            Ok(format.get("json_schema").filter(|schema| schema.is_object()).map_or(Want::JsonObject, Want::Json))
        }
        _ => Err(invalid("response_format.type must be one of 'text' or 'json_object'")),
    }
}

fn chat(app: &App, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
    let request = check(body)?;
    let conversation = openai::converse(&request);
    let thinks = directives.reasoning_content || directives.reasoning.is_some_and(|words| words > 0);
    let directives = &Directives { reasoning_content: thinks, ..directives.clone() };
    let mut said = openai::say(app, &request, &conversation, directives);
    for call in &mut said.calls {
        call.id = format!("{}_{}", call.name, app.id("", 12).to_lowercase());
        let tool = request.tools.iter().find(|(name, _)| *name == call.name).map_or(&Value::Null, |(_, schema)| schema);
        if tool.get("properties").and_then(Value::as_object).is_none_or(Map::is_empty) {
            // So the real one calls a function that takes nothing.
            call.arguments = "null".to_owned();
            call.pieces = vec![(0, 4)];
        }
    }
    let id = fresh_id(app);
    if request.stream {
        return Ok(Reply::stream("text/event-stream", stream(&said, &id, directives)));
    }
    let answer = said.answers.first();
    let text = answer.map_or("", |answer| &answer.text);
    let mut content = Vec::new();
    if let Some(reasoning) = &said.reasoning {
        content.push(json!({"type": "thinking", "thinking": reasoning.text}));
    }
    if !text.is_empty() && said.calls.is_empty() {
        content.push(json!({"type": "text", "text": text}));
    }
    let mut message = json!({"role": "assistant"});
    if !content.is_empty() {
        put(&mut message, "content", Value::Array(content));
    }
    if !said.calls.is_empty() {
        put(&mut message, "tool_plan", json!(plan(&said)));
        let calls = said.calls.iter().map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        });
        put(&mut message, "tool_calls", calls.collect());
    }
    let citations = directives.citations.unwrap_or(0);
    if citations > 0 {
        put(&mut message, "citations", (0..citations).map(|number| citation(number, text)).collect());
    }
    let mut reply = json!({"id": id, "message": message, "finish_reason": finish(&said, directives)});
    if !directives.no_usage {
        put(&mut reply, "usage", usage(&said));
    }
    Ok(Reply::json(200, reply.to_string()))
}

/// What is said before tools are called.
fn plan(said: &Said<'_>) -> String {
    match said.answers.first() {
        Some(answer) if !answer.text.is_empty() => answer.text.clone(),
        _ => "I will use one or more of the tools to answer.".to_owned(),
    }
}

fn finish<'a>(said: &Said<'_>, directives: &'a Directives) -> &'a str {
    match (&directives.finish, said.answers.first().map(|answer| &answer.ending)) {
        (Some(finish), _) => finish,
        _ if !said.calls.is_empty() => "TOOL_CALL",
        (None, Some(Ending::Length)) => "MAX_TOKENS",
        (None, Some(Ending::StopSequence(_))) => "STOP_SEQUENCE",
        (None, _) => "COMPLETE",
    }
}

fn usage(said: &Said<'_>) -> Value {
    let (input, output) = (said.usage.prompt, said.usage.completion);
    let (more_in, more_out) = UNBILLED;
    json!({
        "billed_units": {"input_tokens": input, "output_tokens": output},
        "tokens": {"input_tokens": input.saturating_add(more_in), "output_tokens": output.saturating_add(more_out)},
        "cached_tokens": said.usage.cached,
    })
}

fn citation(number: usize, text: &str) -> Value {
    json!({
        "start": 0, "end": text.chars().count(), "text": text, "type": "TEXT_CONTENT",
        "sources": [{"type": "document", "id": format!("doc:{number}"), "document": {
            "id": format!("doc:{number}"), "title": format!("Source {}", number + 1),
        }}],
    })
}

/// Writes the events of a stream: each has its type as its name.
struct Writer(EventStream);

impl Writer {
    fn push(&mut self, kind: Kind, name: &'static str, rest: Value) {
        let mut event = json!({"type": name});
        for (member, value) in rest.as_object().into_iter().flatten() {
            put(&mut event, member, value.clone());
        }
        self.0.push(kind, Some(name), event.to_string());
    }

    fn deltas(&mut self, name: &'static str, head: &str, answer: (&str, &[(u32, u32)]), tail: &str) {
        let (text, pieces) = answer;
        let template = self.0.template(Template {
            name: Some(name),
            head: format!(r#"{{"type":"{name}",{head}"#),
            source: text.to_owned(),
            tail: tail.to_owned(),
        });
        for piece in pieces {
            self.0.push_delta(template, *piece);
        }
    }

    fn content(&mut self, index: usize, kind: &str, answer: &Answer) {
        let start = json!({"type": kind, kind: ""});
        let start = json!({"index": index, "delta": {"message": {"content": start}}});
        self.push(Kind::Opening, "content-start", start);
        let head = format!(r#""index":{index},"delta":{{"message":{{"content":{{"{kind}":"#);
        self.deltas("content-delta", &head, (&answer.text, &answer.pieces), "}}}}");
        self.push(Kind::Opening, "content-end", json!({"index": index}));
    }

    fn call(&mut self, index: usize, call: &Call<'_>) {
        let function = json!({"name": call.name, "arguments": ""});
        let start = json!({"id": call.id, "type": "function", "function": function});
        let start = json!({"index": index, "delta": {"message": {"tool_calls": start}}});
        self.push(Kind::Opening, "tool-call-start", start);
        let head = format!(r#""index":{index},"delta":{{"message":{{"tool_calls":{{"function":{{"arguments":"#);
        self.deltas("tool-call-delta", &head, (&call.arguments, &call.pieces), "}}}}}");
        self.push(Kind::Opening, "tool-call-end", json!({"index": index}));
    }
}

fn stream(said: &Said<'_>, id: &str, directives: &Directives) -> EventStream {
    let error = mid_stream_error(directives).message;
    let error = json!({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": error}});
    let error = Event::fixed(Kind::Done, Some("message-end"), error.to_string());
    let mut writer = Writer(EventStream::new(Framing::Sse, error));
    let empty = json!({"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []});
    writer.push(Kind::Opening, "message-start", json!({"id": id, "delta": {"message": empty}}));
    let mut index = 0;
    if let Some(reasoning) = &said.reasoning {
        writer.content(index, "thinking", reasoning);
        index += 1;
    }
    if said.calls.is_empty() {
        if let Some(answer) = said.answers.first() {
            writer.content(index, "text", answer);
            for number in 0..directives.citations.unwrap_or(0) {
                let citations = citation(number, &answer.text);
                let start = json!({"index": number, "delta": {"message": {"citations": citations}}});
                writer.push(Kind::Opening, "citation-start", start);
                writer.push(Kind::Opening, "citation-end", json!({"index": number}));
            }
        }
    } else {
        let plan = plan(said);
        let pieces = crate::answer::word_spans(&plan);
        writer.deltas("tool-plan-delta", r#""delta":{"message":{"tool_plan":"#, (&plan, &pieces), "}}}");
        for (index, call) in said.calls.iter().enumerate() {
            writer.call(index, call);
        }
    }
    let mut delta = json!({"finish_reason": finish(said, directives)});
    if !directives.no_usage {
        put(&mut delta, "usage", usage(said));
    }
    let kind = if directives.no_done { Kind::Done } else { Kind::Finish };
    writer.push(kind, "message-end", json!({"delta": delta}));
    writer.0
}

// --- Embeddings and rerank -----------------------------------------------------------------------------------

type EmbedAsked<'a> = (Vec<Cow<'a, str>>, Vec<&'a str>, usize);

/// The texts, the forms of the vectors, and their length.
fn check_embed(body: &Value) -> Result<EmbedAsked<'_>, ApiError> {
    closed(
        body,
        &[
            "model",
            "input_type",
            "texts",
            "images",
            "inputs",
            "embedding_types",
            "output_dimension",
            "truncate",
            "max_tokens",
            "priority",
        ],
    )?;
    demand(body, "model")?;
    let list = |name: &str| match body.get(name).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list.as_slice())),
        Some(_) => Err(wrong_type(name, "array")),
    };
    let inputs = match (list("texts")?, list("inputs")?, list("images")?) {
        (Some(texts), None, None) => texts
            .iter()
            .map(|text| text.as_str().map(Cow::Borrowed).ok_or_else(|| wrong_type("texts", "array of strings")))
            .collect::<Result<Vec<_>, _>>()?,
        (None, Some(inputs), None) => {
            inputs.iter().map(|input| Cow::Owned(input.get("content").unwrap_or(input).to_string())).collect()
        }
        (None, None, Some(images)) => images.iter().map(|image| Cow::Owned(image.to_string())).collect(),
        _ => return Err(invalid("exactly one of texts, images or inputs must be specified")),
    };
    if inputs.is_empty() || inputs.len() > MAX_TEXTS {
        return Err(invalid(format!("texts must have between 1 and {MAX_TEXTS} elements")));
    }
    let kind = demand(body, "input_type")?;
    if !["search_document", "search_query", "classification", "clustering", "image"].contains(&kind) {
        return Err(invalid(format!("input_type '{kind}' is not valid")));
    }
    if let Some(truncate) = body.get("truncate").filter(|value| !value.is_null())
        && !["NONE", "START", "END"].iter().any(|word| truncate == word)
    {
        return Err(invalid("truncate must be one of NONE, START or END"));
    }
    let mut forms = Vec::new();
    for form in list("embedding_types")?.unwrap_or_default() {
        match form.as_str() {
            Some(form) if ["float", "int8", "uint8", "binary", "ubinary", "base64"].contains(&form) => forms.push(form),
            _ => return Err(invalid("embedding_types has an unknown type")),
        }
    }
    if forms.is_empty() {
        forms.push("float");
    }
    let length = match body.get("output_dimension").filter(|value| !value.is_null()).map(Value::as_u64) {
        None => 1536,
        Some(Some(length)) if [256, 512, 1024, 1536].contains(&length) => length,
        Some(_) => return Err(invalid("output_dimension must be one of 256, 512, 1024 or 1536")),
    };
    Ok((inputs, forms, usize::try_from(length).unwrap_or(1536)))
}

fn embed(app: &App, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
    let (inputs, forms, length) = check_embed(body)?;
    let vectors: Vec<Vec<f32>> = inputs.iter().map(|input| vector(input, length)).collect();
    let mut embeddings = Map::new();
    for form in forms {
        let packed_so = |vector: &Vec<f32>| match form {
            "base64" => json!(packed(vector)),
            "float" => json!(vector),
            "uint8" => vector.iter().map(|number| json!((number * 127.0 + 128.0) as u8)).collect(),
            "int8" => vector.iter().map(|number| json!((number * 127.0) as i8)).collect(),
            _ => vector.chunks(8).map(|eight| json!(eight.iter().filter(|number| **number > 0.0).count())).collect(),
        };
        embeddings.insert(form.to_owned(), vectors.iter().map(packed_so).collect());
    }
    let counted = inputs.iter().map(|input| tokens(input)).sum();
    let mut reply = json!({"id": fresh_id(app), "embeddings": embeddings, "response_type": "embeddings_by_type"});
    if let Some(texts) = body.get("texts") {
        put(&mut reply, "texts", texts.clone());
    }
    let billed = json!({"input_tokens": directives.usage_in.unwrap_or(counted), "image_tokens": 0});
    put(&mut reply, "meta", meta(billed, directives));
    Ok(Reply::json(200, reply.to_string()))
}

fn meta(billed: Value, directives: &Directives) -> Value {
    let mut meta = json!({"api_version": {"version": "2"}});
    if !directives.no_usage {
        put(&mut meta, "billed_units", billed);
    }
    meta
}

fn check_rerank(body: &Value) -> Result<RerankAsked<'_>, ApiError> {
    closed(body, &["model", "query", "documents", "top_n", "max_tokens_per_doc", "return_documents", "priority"])?;
    let documents = match body.get("documents") {
        Some(Value::Array(documents)) if !documents.is_empty() => documents,
        Some(Value::Array(_)) | None | Some(Value::Null) => return Err(invalid("documents must not be empty")),
        Some(_) => return Err(wrong_type("documents", "array")),
    };
    let texts =
        documents.iter().map(|document| document.as_str().ok_or_else(|| wrong_type("documents", "array of strings")));
    number(body, "top_n", 1.0, f64::MAX)?;
    let top_n = body.get("top_n").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
    Ok(RerankAsked {
        model: demand(body, "model")?,
        query: demand(body, "query")?,
        documents: texts.collect::<Result<_, _>>()?,
        top_n: top_n.unwrap_or(usize::MAX),
        return_documents: body.get("return_documents") == Some(&Value::Bool(true)),
    })
}

fn rerank(app: &App, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
    let asked = check_rerank(body)?;
    // A search unit is a query over up to a hundred documents.
    let units = (asked.documents.len() as u64).div_ceil(100);
    let billed = json!({"search_units": directives.usage_in.unwrap_or(units)});
    let reply = json!({"id": fresh_id(app), "results": asked.results(), "meta": meta(billed, directives)});
    Ok(Reply::json(200, reply.to_string()))
}
