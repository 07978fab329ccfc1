//! Writes requests of the Responses API.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::error::Problem;
use crate::protocol::chat::ids::fit;
use crate::protocol::chat::{
    ChatRequest, Format, Function, Lineage, Message, Part, PartBody, Role, Signature, Source, TextPart, Tool, ToolBody,
};
use crate::protocol::{Api, responses as wire};
use crate::providers::families::{takes_cache_breakpoints, traits};
use crate::providers::notes::{Notes, Param};
use crate::providers::openai::{breakpoints, request, scan_problem};
use crate::providers::quirks::ReasoningWire;
use crate::providers::{self, Target, UpstreamRequest};

/// The path below a base URL that ends in `/v1`.
pub const RESPONSES_PATH: &str = "/responses";

/// The fewest output tokens that OpenAI takes.
const LEAST_OUTPUT: f64 = 16.0;

/// The longest id of a call.
const MAX_CALL_ID: usize = 64;

/// The request.
///
/// # Errors
/// A 400 naming what this API cannot say.
pub fn request(chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
    notes.unsupported(chat, HAS, &["include"])?;
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        body.extend(value.map(|value| (name.to_owned(), value)));
    };
    set("model", Some(target.upstream_model.into()));
    let marks = takes_cache_breakpoints(target.upstream_model);
    let mut input = input(chat, marks, notes)?;
    if marks && chat.instructions.iter().any(|part| part.cache.is_some()) {
        // Markers stand on parts, which `instructions` has none of.
        let part = |part: &TextPart| marked(json!({"type": "input_text", "text": part.text}), part.cache.is_some());
        let content: Vec<Value> = chat.instructions.iter().map(part).collect();
        input.insert(0, json!({"type": "message", "role": "system", "content": content}));
    } else {
        let instructions: Vec<&str> = chat.instructions.iter().map(|part| part.text.as_str()).collect();
        set("instructions", (!instructions.is_empty()).then(|| instructions.join("\n\n").into()));
    }
    if breakpoints::bound(&mut input) == 0 {
        notes.lacking(chat, &[Param::CacheControl])?;
    }
    set("input", Some(input.into()));
    set("stream", chat.stream.then(|| true.into()));
    // What is kept there is kept under the operator's account, for nobody.
    set("store", Some(chat.caller.store.unwrap_or(false).into()));

    let sampling = &chat.sampling;
    let traits = traits(target.upstream_model);
    let effort = request::effort(chat, target.upstream_model, ReasoningWire::AsIs, notes)?;
    for (param, name, value) in
        [(Param::Temperature, "temperature", sampling.temperature), (Param::TopP, "top_p", sampling.top_p)]
    {
        match value {
            Some(_) if !request::samples(traits, effort) => notes.drop(param)?,
            value => set(name, value.map(Value::from)),
        }
    }
    set("top_logprobs", sampling.top_logprobs.map(Value::from));
    if let Some(most) = chat.output.max_tokens {
        let most = notes.clamp(Param::MaxTokens, most as f64, LEAST_OUTPUT, f64::MAX)?;
        set("max_output_tokens", Some((most as u64).into()));
    }
    let mut text = Map::new();
    if chat.output.format != Format::Text {
        text.insert("format".to_owned(), wire::format(&chat.output.format));
    }
    text.extend(chat.output.verbosity.as_deref().map(|word| ("verbosity".to_owned(), word.into())));
    set("text", (!text.is_empty()).then(|| text.into()));

    let reasoning = reasoning(chat, effort);
    set("include", include(chat, !reasoning.is_empty()));
    set("reasoning", (!reasoning.is_empty()).then(|| reasoning.into()));

    let tools = tools(chat)?;
    set("tools", (!tools.is_empty()).then(|| tools.into()));
    let choice = chat.tools.choice.as_ref();
    set("tool_choice", choice.map(|choice| wire::tool_choice(choice, &chat.tools.offered)));
    set("parallel_tool_calls", chat.tools.parallel.map(Value::from));

    let caller = &chat.caller;
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    set("user", text(&caller.user));
    set("safety_identifier", text(&caller.safety_identifier));
    set("metadata", caller.metadata.clone().map(Value::Object));
    set("service_tier", text(&caller.service_tier));
    set("prompt_cache_key", text(&caller.prompt_cache_key));
    set("prompt_cache_retention", text(&caller.prompt_cache_retention));
    Ok(UpstreamRequest::post(RESPONSES_PATH, Value::Object(body).to_string().into_bytes()))
}

/// Refuses, in a request that is passed on as it is, what needs a response that the provider keeps; `owned` where one is
/// proved to be the caller's before a request goes on from it.
///
/// # Errors
/// A 400 naming the place.
pub fn refuse_state(source: &providers::Source<'_>, owned: bool) -> Result<(), Problem> {
    let member = |name: &str| {
        let member = source.members.unique(name).map_err(scan_problem)?;
        Ok::<_, Problem>(member.map(|member| source.members.raw(member)))
    };
    let mut asked = Map::new();
    for name in ["previous_response_id", "conversation", "background"] {
        let value = member(name)?.and_then(|raw| serde_json::from_slice(raw).ok());
        asked.extend(value.map(|value| (name.to_owned(), value)));
    }
    wire::refuse_state(&asked, owned)?;
    let input = member("input")?.unwrap_or_default();
    // Most requests have items without ids, and need no second look.
    if !input.starts_with(b"[") || memchr::memmem::find(input, b"\"id\"").is_none() {
        return Ok(());
    }
    let items: Vec<Value> = serde_json::from_slice(input).unwrap_or_default();
    let reference = items.iter().position(|item| item.as_object().is_some_and(wire::is_reference));
    reference.map_or(Ok(()), |nth| Err(wire::no_items(nth)))
}

/// The parameters that this API has.
const HAS: &[Param] = &[
    Param::Logprobs,
    Param::Temperature,
    Param::TopP,
    Param::Verbosity,
    Param::User,
    Param::SafetyIdentifier,
    Param::Metadata,
    Param::ServiceTier,
    Param::Store,
    Param::PromptCacheKey,
    Param::CacheControl,
    Param::PromptCacheRetention,
    Param::ReasoningSummary,
    Param::Detail,
    Param::Strict,
];

fn reasoning(chat: &ChatRequest, effort: Option<&str>) -> Map<String, Value> {
    let mut reasoning = Map::new();
    reasoning.extend(effort.map(|effort| ("effort".to_owned(), effort.into())));
    reasoning.extend(chat.reasoning.summary.as_deref().map(|word| ("summary".to_owned(), word.into())));
    reasoning
}

/// Models that do not reason refuse to be asked for proofs of it.
fn include(chat: &ChatRequest, asks_to_reason: bool) -> Option<Value> {
    let is_ours =
        |part: &Part| matches!(&part.body, PartBody::Reasoning(block) if proof(block.signature.as_ref()).is_some());
    let has_reasoned = || chat.messages.iter().flat_map(|message| &message.parts).any(is_ours);
    let others = chat.extra.get("include").and_then(Value::as_array).into_iter().flatten();
    let mut wishes: Vec<&str> = others.filter_map(Value::as_str).collect();
    if chat.reasoning.include_encrypted || asks_to_reason || has_reasoned() {
        wishes.push("reasoning.encrypted_content");
    }
    if chat.sampling.logprobs == Some(true) {
        wishes.push("message.output_text.logprobs");
    }
    (!wishes.is_empty()).then(|| wishes.into())
}

fn proof(signature: Option<&Signature>) -> Option<&str> {
    signature.filter(|signature| signature.family == Lineage::OpenAi).map(|signature| signature.value.as_str())
}

fn tools(chat: &ChatRequest) -> Result<Vec<Value>, Problem> {
    let tool = |tool: &Tool| match &tool.body {
        // Here schemas are strict unless it is said that they are not.
        ToolBody::Function(function) => Ok(wire::tool(&ToolBody::Function(Function {
            parameters: Some(
                function.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}})),
            ),
            strict: Some(function.strict.unwrap_or(false)),
            ..function.clone()
        }))),
        ToolBody::Hosted { kind, .. } if chat.origin == Api::Messages => {
            let at = format!("{}.type", tool.at);
            Err(Problem::invalid(&at, format!("{at}: this model has no `{kind}` tools; leave it out.")))
        }
        body => Ok(wire::tool(body)),
    };
    chat.tools.offered.iter().map(tool).collect()
}

// === The conversation ===

fn input(chat: &ChatRequest, marks: bool, notes: &mut Notes) -> Result<Vec<Value>, Problem> {
    let parts = chat.messages.iter().flat_map(|message| &message.parts);
    let custom: BTreeSet<&str> = parts
        .filter_map(|part| match &part.body {
            PartBody::Call { id, custom: true, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    let mut items = Vec::new();
    for message in &chat.messages {
        if message.role == Role::Assistant {
            said(message, &mut items, notes)?;
        } else {
            asked(message, &custom, marks, &mut items, notes)?;
        }
    }
    Ok(items)
}

/// What the model said, item by item.
fn said(message: &Message, items: &mut Vec<Value>, notes: &mut Notes) -> Result<(), Problem> {
    let mut content = Vec::new();
    for part in &message.parts {
        let item = match &part.body {
            PartBody::Text { text, .. } => {
                content.push(json!({"type": "output_text", "text": text}));
                continue;
            }
            PartBody::Refusal(refusal) => {
                content.push(json!({"type": "refusal", "refusal": refusal}));
                continue;
            }
            PartBody::Reasoning(block) => {
                // Only their own proof makes reasoning worth anything to these models.
                let Some(proof) = proof(block.signature.as_ref()) else { continue };
                let mut item = json!({"type": "reasoning", "summary": [], "encrypted_content": proof});
                if !block.text.is_empty() {
                    let (name, kind) =
                        if block.summary { ("summary", "summary_text") } else { ("content", "reasoning_text") };
                    item.as_object_mut()
                        .and_then(|item| item.insert(name.to_owned(), json!([{"type": kind, "text": block.text}])));
                }
                if let (Some(id), Some(item)) = (&block.id, item.as_object_mut()) {
                    item.insert("id".to_owned(), id.as_str().into());
                }
                item
            }
            PartBody::Call { id, name, arguments, custom, .. } => {
                let (kind, member) =
                    if *custom { ("custom_tool_call", "input") } else { ("function_call", "arguments") };
                json!({"type": kind, "call_id": call_id(id), "name": name, member: arguments})
            }
            PartBody::Hosted { family: Lineage::OpenAi, value } => value.clone(),
            PartBody::Hosted { .. } => {
                notes.drop_named(&part.at.to_string())?;
                continue;
            }
            _ => return Err(misplaced(part, "is nothing that a model of this provider can have said")),
        };
        speak("assistant", &mut content, items);
        items.push(item);
    }
    speak("assistant", &mut content, items);
    Ok(())
}

/// What the model was told, and the results of its calls.
fn asked(
    message: &Message,
    custom: &BTreeSet<&str>,
    marks: bool,
    items: &mut Vec<Value>,
    notes: &mut Notes,
) -> Result<(), Problem> {
    let role = match message.role {
        Role::System => "system",
        Role::Developer => "developer",
        Role::User | Role::Assistant | Role::Tool => "user",
    };
    let mut content = Vec::new();
    for part in &message.parts {
        match &part.body {
            PartBody::Result { id, parts, is_error, .. } => {
                speak(role, &mut content, items);
                let is_custom = custom.contains(id.as_str());
                let kind = if is_custom { "custom_tool_call_output" } else { "function_call_output" };
                let mut output = output(parts, *is_error)?;
                let is_marked = part.cache.is_some() || parts.iter().any(|part| part.cache.is_some());
                if marks && is_marked {
                    if let Value::String(text) = output {
                        output = json!([{"type": "input_text", "text": text}]);
                    }
                    output.as_array_mut().and_then(|parts| parts.last_mut()).map(breakpoints::mark);
                }
                items.push(json!({"type": kind, "call_id": call_id(id), "output": output}));
            }
            PartBody::Hosted { family: Lineage::OpenAi, value } => {
                speak(role, &mut content, items);
                items.push(value.clone());
            }
            PartBody::Hosted { .. } => notes.drop_named(&part.at.to_string())?,
            _ => {
                content.extend(input_parts(part)?);
                if let Some(last) = content.last_mut().filter(|_| marks && part.cache.is_some()) {
                    breakpoints::mark(last);
                }
            }
        }
    }
    speak(role, &mut content, items);
    Ok(())
}

fn marked(mut part: Value, is_marked: bool) -> Value {
    if is_marked {
        breakpoints::mark(&mut part);
    }
    part
}

/// A message of what was gathered, if anything was.
fn speak(role: &str, content: &mut Vec<Value>, items: &mut Vec<Value>) {
    if !content.is_empty() {
        items.push(json!({"type": "message", "role": role, "content": std::mem::take(content)}));
    }
}

fn output(parts: &[Part], is_error: bool) -> Result<Value, Problem> {
    // The API has no member that would say so.
    let failed = if is_error { "The tool failed:\n" } else { "" };
    let texts: Option<String> = parts
        .iter()
        .map(|part| match &part.body {
            PartBody::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    if let Some(text) = texts {
        return Ok(format!("{failed}{text}").into());
    }
    let failed = is_error.then(|| json!({"type": "input_text", "text": failed}));
    let parts: Result<Vec<Vec<Value>>, Problem> = parts.iter().map(input_parts).collect();
    Ok(failed.into_iter().chain(parts?.into_iter().flatten()).collect())
}

fn input_parts(part: &Part) -> Result<Vec<Value>, Problem> {
    let text = |text: &str| json!({"type": "input_text", "text": text});
    let with = |mut value: Value, name: &str, member: Option<&str>| {
        if let (Some(member), Some(value)) = (member, value.as_object_mut()) {
            value.insert(name.to_owned(), member.into());
        }
        value
    };
    let elsewhere = || misplaced(part, "is a file that was uploaded elsewhere, which this model cannot read");
    Ok(match &part.body {
        PartBody::Text { text: words, .. } => vec![text(words)],
        PartBody::Image { source, detail } => {
            let image = match source {
                Source::File { family: Lineage::OpenAi, id } => json!({"type": "input_image", "file_id": id}),
                other => json!({"type": "input_image", "image_url": other.to_url().ok_or_else(elsewhere)?}),
            };
            vec![with(image, "detail", detail.as_deref())]
        }
        PartBody::Document { source, name, context, .. } => {
            let file = match source {
                Source::File { family: Lineage::OpenAi, id } => json!({"type": "input_file", "file_id": id}),
                Source::Url(url) => json!({"type": "input_file", "file_url": url}),
                Source::Base64 { media_type, data } => {
                    let media_type = if media_type.is_empty() { "application/pdf" } else { media_type };
                    let file = json!({"type": "input_file", "file_data": format!("data:{media_type};base64,{data}")});
                    with(file, "filename", Some(name.as_deref().unwrap_or("document.pdf")))
                }
                Source::Text { text: words, .. } => text(&match name {
                    Some(name) => format!("{name}\n{words}"),
                    None => words.clone(),
                }),
                Source::File { .. } => return Err(elsewhere()),
            };
            context.as_deref().map(text).into_iter().chain([file]).collect()
        }
        // The API has a form for it and no model that takes it.
        PartBody::Audio { .. } => return Err(misplaced(part, "is sound, which models take by Chat Completions alone")),
        PartBody::Video { .. } => return Err(misplaced(part, "is a video, which this model does not take")),
        _ => return Err(misplaced(part, "is nothing that this model can be told in this place")),
    })
}

fn call_id(id: &str) -> std::borrow::Cow<'_, str> {
    fit(id, |_| true, MAX_CALL_ID)
}

fn misplaced(part: &Part, what: &str) -> Problem {
    let at = part.at.to_string();
    Problem::invalid(&at, format!("{at}: this part {what}."))
}
