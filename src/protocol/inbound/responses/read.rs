//! Reads a request of the Responses API.

use std::fmt::Display;

use serde_json::{Map, Value};

use super::item::read_proof;
use crate::error::Problem;
use crate::protocol::chat::{
    CacheMark, ChatRequest, Effort, Format, Function, Lineage, List, Message, Part, PartBody, Place, ReasoningPart,
    Role, Source, TextPart, Tool, ToolBody, ToolChoice, Within,
};
use crate::protocol::{Api, responses as wire};

/// Members that this reader knows; all others are passed on by their names.
const KNOWN: &[&str] = &[
    "model",
    "input",
    "instructions",
    "stream",
    "stream_options",
    "include",
    "max_output_tokens",
    "temperature",
    "top_p",
    "top_logprobs",
    "text",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "user",
    "safety_identifier",
    "metadata",
    "service_tier",
    "store",
    "prompt_cache_key",
    "prompt_cache_retention",
    "background",
    "previous_response_id",
    "conversation",
    "prompt",
];

/// What providers' own tools did, and what the caller's side of them answered. They go back to the family alone that
/// has those tools.
const HOSTED: &[&str] = &[
    "web_search_call",
    "file_search_call",
    "computer_call",
    "computer_call_output",
    "image_generation_call",
    "code_interpreter_call",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "compaction",
    "x_search_call",
];

/// Tools that change how other tools are offered: nothing but OpenAI's own models has them.
const NATIVE_TOOLS: &[&str] = &["namespace", "tool_search", "programmatic_tool_calling"];

/// Reads a request.
pub(super) fn read(body: &[u8]) -> Result<ChatRequest, Problem> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        let message = format!("The request body is not valid JSON: {error}.");
        Problem { code: "invalid_json".to_owned(), ..Problem::invalid("", message) }
    })?;
    let Value::Object(top) = &value else {
        return Err(Problem::invalid("", "The request body must be a JSON object."));
    };
    wire::refuse_state(top, false)?;
    if member(top, "prompt").is_some() {
        let advice = "templates are kept by OpenAI alone; send their text in `instructions` and `input`";
        return Err(wire::unsupported("prompt", advice));
    }
    let model = text(top, "model", &"")?.ok_or_else(|| missing(&"", "model"))?;
    let mut chat = ChatRequest::new(Api::Responses, model);
    chat.stream = boolean(top, "stream", &"")?.unwrap_or(false);
    chat.include_usage = true;
    if let Some(text) = text(top, "instructions", &"")? {
        chat.instructions.push(TextPart { text, cache: None });
    }
    chat.messages = match member(top, "input") {
        None => return Err(missing(&"", "input")),
        Some(Value::String(text)) => {
            let at = Place { list: List::InputText, nth: 0, within: Within::Whole };
            vec![Message { role: Role::User, parts: vec![text_part(text.clone(), at)], name: None, at }]
        }
        Some(Value::Array(items)) => conversation(items)?,
        Some(_) => return Err(wrong(&"", "input", "must be a string or an array")),
    };

    chat.sampling.temperature = number(top, "temperature", &"")?;
    chat.sampling.top_p = number(top, "top_p", &"")?;
    chat.sampling.top_logprobs = whole(top, "top_logprobs", &"")?.filter(|alternatives| *alternatives > 0);
    chat.output.max_tokens = whole(top, "max_output_tokens", &"")?;
    let mut others = Vec::new();
    for wish in list(top, "include", &"")? {
        match wish.as_str() {
            Some("reasoning.encrypted_content") => chat.reasoning.include_encrypted = true,
            Some("message.output_text.logprobs") => chat.sampling.logprobs = Some(true),
            Some(_) => others.push(wish.clone()),
            None => return Err(wrong(&"", "include", "must be an array of strings")),
        }
    }
    if !others.is_empty() {
        chat.extra.insert("include".to_owned(), others.into());
    }
    if chat.sampling.top_logprobs.is_some() {
        chat.sampling.logprobs = Some(true);
    }
    if let Some(settings) = object(top, "text", &"")? {
        chat.output.verbosity = text(settings, "verbosity", &"text")?;
        if let Some(format) = object(settings, "format", &"text")? {
            chat.output.format = answer_format(format)?;
        }
    }
    if let Some(reasoning) = object(top, "reasoning", &"")? {
        if let Some(word) = text(reasoning, "effort", &"reasoning")? {
            let known = Effort::parse(&word);
            let advice = "must be one of none, minimal, low, medium, high, xhigh, max";
            chat.reasoning.effort = Some(known.ok_or_else(|| wrong(&"reasoning", "effort", advice))?);
        }
        let summary = text(reasoning, "summary", &"reasoning")?;
        chat.reasoning.summary = summary.or(text(reasoning, "generate_summary", &"reasoning")?);
    }

    for (nth, tool) in list(top, "tools", &"")?.iter().enumerate() {
        chat.tools.offered.push(read_tool(tool, Place::item(List::Tools, nth))?);
    }
    chat.tools.choice = member(top, "tool_choice").map(tool_choice).transpose()?;
    chat.tools.parallel = boolean(top, "parallel_tool_calls", &"")?;

    let caller = &mut chat.caller;
    caller.user = text(top, "user", &"")?;
    caller.safety_identifier = text(top, "safety_identifier", &"")?;
    caller.metadata = object(top, "metadata", &"")?.cloned();
    caller.service_tier = text(top, "service_tier", &"")?;
    caller.store = boolean(top, "store", &"")?;
    caller.prompt_cache_key = text(top, "prompt_cache_key", &"")?;
    caller.prompt_cache_retention = text(top, "prompt_cache_retention", &"")?;

    let is_default = |name: &str, value: &Value| value.is_null() || (name == "truncation" && value == "disabled");
    let others = top.iter().filter(|(name, value)| !KNOWN.contains(&name.as_str()) && !is_default(name, value));
    chat.extra.extend(others.map(|(name, value)| (name.clone(), value.clone())));
    Ok(chat)
}

// === The conversation ===

fn conversation(items: &[Value]) -> Result<Vec<Message>, Problem> {
    let mut messages: Vec<Message> = Vec::new();
    for (nth, item) in items.iter().enumerate() {
        let at = Place::item(List::Input, nth);
        let Value::Object(item) = item else { return Err(must_be_object(&at)) };
        let kind = match text(item, "type", &at)? {
            Some(kind) => kind,
            None if wire::is_reference(item) => "item_reference".to_owned(),
            None => "message".to_owned(),
        };
        match kind.as_str() {
            "message" => {
                let (role, parts) = message(item, at)?;
                add(&mut messages, role, parts, at);
            }
            "function_call" | "custom_tool_call" => {
                let custom = kind == "custom_tool_call";
                let arguments = required(item, if custom { "input" } else { "arguments" }, &at)?;
                let (id, name) = (required(item, "call_id", &at)?, required(item, "name", &at)?);
                let call = PartBody::Call { id, name, arguments, custom, signature: None };
                add(&mut messages, Role::Assistant, vec![plain(call, at)], at);
            }
            "function_call_output" | "custom_tool_call_output" => {
                let id = required(item, "call_id", &at)?;
                let parts = match member(item, "output") {
                    Some(Value::String(text)) => vec![text_part(text.clone(), at)],
                    Some(Value::Array(parts)) => read_parts(parts, "output", at)?,
                    _ => return Err(wrong(&at, "output", "must be a string or an array")),
                };
                let result = PartBody::Result { name: call_name(&messages, &id), id, parts, is_error: false };
                add(&mut messages, Role::Tool, vec![plain(result, at)], at);
            }
            "reasoning" => reasoning(item, at, &mut messages)?,
            "item_reference" => {
                return Err(wire::no_items(nth));
            }
            kind if HOSTED.contains(&kind) => {
                let is_answer = kind.ends_with("_output") || kind == "mcp_approval_response";
                let role = if is_answer { Role::User } else { Role::Assistant };
                let value = Value::Object(item.clone());
                add(&mut messages, role, vec![plain(PartBody::Hosted { family: Lineage::OpenAi, value }, at)], at);
            }
            kind => {
                let advice = format!("`{}` is no item that this model takes; leave it out", shortened(kind));
                return Err(wire::unsupported(&format!("{at}.type"), &advice));
            }
        }
    }
    Ok(messages)
}

/// What the model says in several items that follow each other is one message of it.
fn add(messages: &mut Vec<Message>, role: Role, parts: Vec<Part>, at: Place) {
    match messages.last_mut() {
        Some(last) if role == Role::Assistant && last.role == role => last.parts.extend(parts),
        _ => messages.push(Message { role, parts, name: None, at }),
    }
}

fn call_name(messages: &[Message], call: &str) -> Option<String> {
    let mut parts = messages.iter().rev().flat_map(|message| &message.parts);
    parts.find_map(|part| match &part.body {
        PartBody::Call { id, name, .. } if id == call => Some(name.clone()),
        _ => None,
    })
}

fn message(item: &Map<String, Value>, at: Place) -> Result<(Role, Vec<Part>), Problem> {
    let role = match text(item, "role", &at)?.as_deref() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        None => return Err(missing(&at, "role")),
        Some(_) => return Err(wrong(&at, "role", "must be one of user, assistant, system, developer")),
    };
    let parts = match member(item, "content") {
        Some(Value::String(text)) => vec![text_part(text.clone(), at.within(Within::Content))],
        Some(Value::Array(parts)) => read_parts(parts, "content", at)?,
        Some(_) => return Err(wrong(&at, "content", "must be a string or an array")),
        None => return Err(missing(&at, "content")),
    };
    Ok((role, parts))
}

fn reasoning(item: &Map<String, Value>, at: Place, messages: &mut Vec<Message>) -> Result<(), Problem> {
    let joined = |name: &str| -> Result<String, Problem> {
        let texts = list(item, name, &at)?.iter().filter_map(|part| part.get("text")?.as_str());
        Ok(texts.collect::<Vec<_>>().join("\n\n"))
    };
    let mut block = ReasoningPart { text: joined("content")?, id: text(item, "id", &at)?, ..ReasoningPart::default() };
    if block.text.is_empty() {
        block.text = joined("summary")?;
        block.summary = true;
    }
    if let Some(proof) = text(item, "encrypted_content", &at)? {
        let turn = messages.last_mut().filter(|last| last.role == Role::Assistant);
        if !read_proof(&proof, &mut block, turn.map(|turn| turn.parts.as_mut_slice()).unwrap_or_default()) {
            return Ok(());
        }
    }
    add(messages, Role::Assistant, vec![plain(PartBody::Reasoning(block), at)], at);
    Ok(())
}

fn read_parts(parts: &[Value], list: &str, item: Place) -> Result<Vec<Part>, Problem> {
    let read = |(nth, part): (usize, &Value)| {
        // The results of tools have no places of their own.
        let at = if list == "content" { item.part(nth) } else { item };
        let path = format!("{item}.{list}[{nth}]");
        let Value::Object(part) = part else { return Err(must_be_object(&path)) };
        let mark = |name: &str| part.get(name).filter(|mark| mark.is_object()).cloned();
        let cache = mark("cache_control").map(CacheMark);
        let cache = cache.or_else(|| mark("prompt_cache_breakpoint").map(|_| CacheMark::plain()));
        Ok(Part { body: part_body(part, &path)?, cache, at })
    };
    parts.iter().enumerate().map(read).collect()
}

fn part_body(part: &Map<String, Value>, at: &dyn Display) -> Result<PartBody, Problem> {
    Ok(match required(part, "type", at)?.as_str() {
        "input_text" | "output_text" | "text" => PartBody::Text { text: required(part, "text", at)?, signature: None },
        "refusal" => PartBody::Refusal(required(part, "refusal", at)?),
        "input_image" => {
            let source = match text(part, "image_url", at)? {
                Some(url) => source(&url, at, "image_url")?,
                None => Source::File {
                    family: Lineage::OpenAi,
                    id: text(part, "file_id", at)?.ok_or_else(|| missing(at, "image_url"))?,
                },
            };
            PartBody::Image { source, detail: text(part, "detail", at)? }
        }
        "input_file" => {
            let source = match (text(part, "file_data", at)?, text(part, "file_url", at)?) {
                (Some(data), _) if data.starts_with("data:") => source(&data, at, "file_data")?,
                (Some(data), _) => {
                    let name = text(part, "filename", at)?;
                    let media_type = document_type(name.as_deref().unwrap_or_default(), &data).to_owned();
                    Source::Base64 { media_type, data }
                }
                (None, Some(url)) => source(&url, at, "file_url")?,
                (None, None) => Source::File {
                    family: Lineage::OpenAi,
                    id: text(part, "file_id", at)?.ok_or_else(|| missing(at, "file_data"))?,
                },
            };
            PartBody::Document { source, name: text(part, "filename", at)?, context: None, cite: false }
        }
        "input_audio" => {
            let audio = object(part, "input_audio", at)?.ok_or_else(|| missing(at, "input_audio"))?;
            let at = format!("{at}.input_audio");
            let (data, format) = (required(audio, "data", &at)?, required(audio, "format", &at)?);
            let media_type = format!("audio/{}", if format == "mp3" { "mpeg" } else { &format });
            PartBody::Audio { source: Source::Base64 { media_type, data }, format }
        }
        kind => {
            let advice = "must be one of input_text, input_image, input_file, input_audio, output_text, refusal";
            let message = format!("{at}.type: `{}` is unknown; it {advice}.", shortened(kind));
            return Err(Problem::invalid(&format!("{at}.type"), message));
        }
    })
}

/// The media type of a document that comes as base64 alone: by how it begins, or by its name.
fn document_type(name: &str, data: &str) -> &'static str {
    // `%PDF-` in base64.
    if data.starts_with("JVBERi") {
        return "application/pdf";
    }
    match name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).as_deref() {
        Some("pdf") => "application/pdf",
        Some("txt" | "md" | "csv" | "html" | "json") => "text/plain",
        _ => "",
    }
}

fn source(url: &str, at: &dyn Display, name: &str) -> Result<Source, Problem> {
    Source::from_url(url).ok_or_else(|| wrong(at, name, "must be an address or `data:<media type>;base64,<data>`"))
}

fn plain(body: PartBody, at: Place) -> Part {
    Part { body, cache: None, at }
}

fn text_part(text: String, at: Place) -> Part {
    plain(PartBody::Text { text, signature: None }, at)
}

// === Tools and the form of the answer ===

fn read_tool(tool: &Value, at: Place) -> Result<Tool, Problem> {
    let Value::Object(map) = tool else { return Err(must_be_object(&at)) };
    let kind = required(map, "type", &at)?;
    let description = text(map, "description", &at)?;
    let body = match kind.as_str() {
        "function" => ToolBody::Function(Function {
            name: required(map, "name", &at)?,
            description,
            parameters: object(map, "parameters", &at)?.map(|schema| Value::Object(schema.clone())),
            strict: boolean(map, "strict", &at)?,
        }),
        "custom" => {
            ToolBody::Custom { name: required(map, "name", &at)?, description, format: member(map, "format").cloned() }
        }
        kind if NATIVE_TOOLS.contains(&kind) => {
            let advice = format!("this model has no `{kind}` tools; offer the functions themselves");
            return Err(wire::unsupported(&format!("{at}.type"), &advice));
        }
        _ => ToolBody::Hosted { kind, value: tool.clone() },
    };
    let cache = map.get("cache_control").filter(|mark| mark.is_object()).cloned().map(CacheMark);
    Ok(Tool { body, cache, at })
}

fn tool_choice(choice: &Value) -> Result<ToolChoice, Problem> {
    let at = &"tool_choice";
    match choice {
        Value::String(word) => match word.as_str() {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            "required" => Ok(ToolChoice::Required),
            _ => Err(wrong(&"", at, "must be `none`, `auto`, `required`, or an object")),
        },
        Value::Object(choice) => match required(choice, "type", at)?.as_str() {
            "function" | "custom" => Ok(ToolChoice::One(required(choice, "name", at)?)),
            "allowed_tools" => {
                let mut names = Vec::new();
                for (nth, tool) in list(choice, "tools", at)?.iter().enumerate() {
                    let at = format!("{at}.tools[{nth}]");
                    let Value::Object(tool) = tool else { return Err(must_be_object(&at)) };
                    names.push(required(tool, "name", &at)?);
                }
                let required = text(choice, "mode", at)?.as_deref() == Some("required");
                Ok(ToolChoice::Among { names, required })
            }
            _ => {
                let advice = "this model can be made to call functions and custom tools only";
                Err(wire::unsupported("tool_choice.type", advice))
            }
        },
        _ => Err(wrong(&"", at, "must be a string or an object")),
    }
}

fn answer_format(format: &Map<String, Value>) -> Result<Format, Problem> {
    let at = &"text.format";
    Ok(match required(format, "type", at)?.as_str() {
        "text" => Format::Text,
        "json_object" => Format::JsonObject,
        "json_schema" => Format::Schema {
            name: text(format, "name", at)?,
            description: text(format, "description", at)?,
            schema: Value::Object(object(format, "schema", at)?.ok_or_else(|| missing(at, "schema"))?.clone()),
            strict: boolean(format, "strict", at)?,
        },
        _ => return Err(wrong(at, "type", "must be `text`, `json_object` or `json_schema`")),
    })
}

// === Members ===

fn member<'v>(map: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    map.get(name).filter(|value| !value.is_null())
}

fn text(map: &Map<String, Value>, name: &str, at: &dyn Display) -> Result<Option<String>, Problem> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| wrong(at, name, "must be a string"));
    member(map, name).map(text).transpose()
}

fn required(map: &Map<String, Value>, name: &str, at: &dyn Display) -> Result<String, Problem> {
    text(map, name, at)?.ok_or_else(|| missing(at, name))
}

fn boolean(map: &Map<String, Value>, name: &str, at: &dyn Display) -> Result<Option<bool>, Problem> {
    let boolean = |value: &Value| value.as_bool().ok_or_else(|| wrong(at, name, "must be true or false"));
    member(map, name).map(boolean).transpose()
}

fn number(map: &Map<String, Value>, name: &str, at: &dyn Display) -> Result<Option<f64>, Problem> {
    let number = |value: &Value| value.as_f64().ok_or_else(|| wrong(at, name, "must be a number"));
    member(map, name).map(number).transpose()
}

fn whole(map: &Map<String, Value>, name: &str, at: &dyn Display) -> Result<Option<u64>, Problem> {
    let whole = |value: &Value| value.as_u64().ok_or_else(|| wrong(at, name, "must be a whole number, not negative"));
    member(map, name).map(whole).transpose()
}

fn object<'v>(
    map: &'v Map<String, Value>,
    name: &str,
    at: &dyn Display,
) -> Result<Option<&'v Map<String, Value>>, Problem> {
    let object = |value: &'v Value| value.as_object().ok_or_else(|| wrong(at, name, "must be an object"));
    member(map, name).map(object).transpose()
}

/// A list; empty where there is none.
fn list<'v>(map: &'v Map<String, Value>, name: &str, at: &dyn Display) -> Result<&'v [Value], Problem> {
    match member(map, name) {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(wrong(at, name, "must be an array")),
    }
}

fn path(at: &dyn Display, name: &str) -> String {
    match at.to_string() {
        at if at.is_empty() => name.to_owned(),
        at => format!("{at}.{name}"),
    }
}

fn wrong(at: &dyn Display, name: &str, what: &str) -> Problem {
    let path = path(at, name);
    Problem::invalid(&path, format!("{path}: {what}."))
}

fn missing(at: &dyn Display, name: &str) -> Problem {
    let problem = wrong(at, name, "is required");
    Problem { code: "missing_required_parameter".to_owned(), ..problem }
}

fn must_be_object(at: &dyn Display) -> Problem {
    Problem::invalid(&at.to_string(), format!("{at}: must be an object."))
}

/// A caller's word as far as an error repeats it.
fn shortened(word: &str) -> String {
    word.chars().take(64).collect()
}
