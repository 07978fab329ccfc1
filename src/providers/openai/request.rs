//! A canonical chat request as a Chat Completions request.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::super::families::{Taken, Traits, traits};
use super::super::notes::{Notes, Param};
use super::super::preset::{PLAIN, Row};
use super::super::quirks::ReasoningWire;
use super::breakpoints;
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::{
    CacheMark, ChatRequest, Effort, Format, Lineage, Message, Part, PartBody, Place, ReasoningPart, Role, Signature,
    Source, TextPart, ThinkMode, Tool, ToolBody, ToolChoice,
};

/// What OpenAI-like providers differ in.
#[derive(Debug, Clone, Copy)]
pub struct ChatForm {
    /// The name under which the provider takes the most output tokens.
    pub max_tokens: &'static str,
    /// Whose proofs of reasoning it takes back.
    pub lineage: Lineage,
    /// The member of an assistant's message in which it wants the reasoning's text back.
    pub reasoning_back: Option<&'static str>,
    /// Whether it takes sampling parameters that OpenAI does not have (`top_k`, `min_p`, `repetition_penalty`).
    pub open_sampling: bool,
    /// Whether a stream tells its usage only if asked.
    pub ask_for_usage: bool,
    /// Whether the model takes OpenAI's markers for its prompt cache.
    pub breakpoints: bool,
    /// What else is known of the provider.
    pub row: &'static Row,
}

/// OpenAI's own.
pub const OPENAI: ChatForm = ChatForm {
    max_tokens: "max_completion_tokens",
    lineage: Lineage::OpenAi,
    reasoning_back: None,
    open_sampling: false,
    ask_for_usage: true,
    breakpoints: false,
    row: &PLAIN,
};

impl ChatForm {
    /// Whether there is any form of markers for prompt caches.
    fn takes_marks(&self) -> bool {
        self.row.cache_marks || self.breakpoints
    }
}

/// The request's body.
///
/// # Errors
/// A 400 naming the place that the dialect cannot say.
pub fn body(chat: &ChatRequest, model: &str, form: &ChatForm, notes: &mut Notes) -> Result<Value, Problem> {
    let mut body = Map::new();
    let (sampling, output, caller) = (&chat.sampling, &chat.output, &chat.caller);
    let traits = traits(model);
    let effort = effort(chat, model, form.row.reasoning, notes)?;
    notes.lacking(chat, &[Param::Citations])?;
    let mut messages = messages(chat, form)?;
    if !form.row.cache_marks && breakpoints::bound(&mut messages) == 0 {
        notes.lacking(chat, &[Param::CacheControl])?;
    }
    if !traits.stops {
        notes.lacking(chat, &[Param::Stop])?;
    }
    if !samples(traits, effort) {
        notes.lacking(chat, &[Param::Logprobs, Param::LogitBias])?;
    }
    // OpenAI's own models show none of their reasoning here.
    if !form.open_sampling {
        notes.lacking(chat, &[Param::ReasoningSummary])?;
    }
    {
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        set("model", Some(model.into()));
        set("messages", Some(messages.into()));
        set("stream", chat.stream.then_some(true.into()));
        set("stream_options", (chat.stream && form.ask_for_usage).then(|| json!({"include_usage": true})));
        set(form.max_tokens, output.max_tokens.map(Value::from));
        set("seed", sampling.seed.map(Value::from));
        set("stop", Some(&sampling.stop).filter(|stops| traits.stops && !stops.is_empty()).map(|stops| json!(stops)));
        set("logit_bias", sampling.logit_bias.clone().map(Value::Object));
        set("logprobs", sampling.logprobs.map(Value::from));
        set("top_logprobs", sampling.top_logprobs.map(Value::from));
        set("n", sampling.n.map(Value::from));
        set("response_format", response_format(&output.format));
        set("verbosity", output.verbosity.clone().map(Value::from));
        set("modalities", (!output.modalities.is_empty()).then(|| json!(output.modalities)));
        set("audio", output.audio.clone());
        set("prediction", output.prediction.clone());
        set("user", caller.user.clone().map(Value::from));
        set("safety_identifier", caller.safety_identifier.clone().map(Value::from));
        set("metadata", caller.metadata.clone().map(Value::Object));
        set("store", caller.store.map(Value::from));
        set("prompt_cache_key", caller.prompt_cache_key.clone().map(Value::from));
        set("prompt_cache_retention", caller.prompt_cache_retention.clone().map(Value::from));
        // Anthropic's word for no priority.
        let tier = caller.service_tier.as_deref().map(|tier| if tier == "standard_only" { "default" } else { tier });
        set("service_tier", tier.map(Value::from));
        let tools = tools(chat, form)?;
        if !tools.is_empty() {
            set("tools", Some(tools.into()));
            set("tool_choice", chat.tools.choice.as_ref().map(|choice| tool_choice(chat, choice, form)));
            set("parallel_tool_calls", chat.tools.parallel.map(Value::from));
        }
        match (form.row.reasoning, chat.reasoning.budget_tokens.filter(|tokens| *tokens > 0)) {
            (ReasoningWire::Object, Some(tokens)) => set("reasoning", Some(json!({"max_tokens": tokens}))),
            (ReasoningWire::EnableThinking, Some(tokens)) if traits.budgets.is_some() => {
                set("enable_thinking", Some(true.into()));
                set("thinking_budget", Some(tokens.into()));
            }
            _ => set("reasoning_effort", effort.map(Value::from)),
        }
    }
    let samples = samples(traits, effort);
    for (param, name, value) in [
        (Param::Temperature, "temperature", sampling.temperature),
        (Param::TopP, "top_p", sampling.top_p),
        (Param::PresencePenalty, "presence_penalty", sampling.presence_penalty),
        (Param::FrequencyPenalty, "frequency_penalty", sampling.frequency_penalty),
    ] {
        match value {
            Some(value) if samples => drop(body.insert(name.to_owned(), value.into())),
            Some(_) => notes.drop(param)?,
            None => {}
        }
    }
    for (param, name, value) in [
        (Param::TopK, "top_k", sampling.top_k.map(Value::from)),
        (Param::MinP, "min_p", sampling.min_p.map(Value::from)),
        (Param::RepetitionPenalty, "repetition_penalty", sampling.repetition_penalty.map(Value::from)),
    ] {
        match value {
            Some(value) if form.open_sampling => drop(body.insert(name.to_owned(), value)),
            Some(_) => notes.drop(param)?,
            None => {}
        }
    }
    if matches!(chat.origin, Api::ChatCompletions | Api::Completions) {
        for (name, value) in &chat.extra {
            body.entry(name.clone()).or_insert_with(|| value.clone());
        }
    } else {
        notes.foreign(&chat.extra, &[])?;
    }
    Ok(Value::Object(body))
}

/// Whether a model is one of OpenAI's own, by its name.
pub fn is_openais(upstream_model: &str) -> bool {
    let name = upstream_model.rsplit('/').next().unwrap_or_default();
    let name = name.strip_prefix("ft:").unwrap_or(name);
    let families = ["gpt-", "chatgpt-", "codex-", "o1", "o3", "o4"];
    families.iter().any(|family| name.starts_with(family)) && !name.starts_with("gpt-oss")
}

/// Whether a model takes temperature and the like beside this effort.
pub fn samples(traits: &Traits, effort: Option<&str>) -> bool {
    match traits.sampling {
        Taken::Never => false,
        Taken::WithoutReasoning => matches!(effort, None | Some("none")),
        Taken::ReasoningOff => effort == Some("none"),
        Taken::Always | Taken::WithoutTools => true,
    }
}

/// The word for how much to think: an effort as it is where nothing is known of the model, and a budget or a mode, which
/// this dialect cannot say otherwise, for models that are known to reason.
///
/// # Errors
/// A 400 where parameters that it lacks are refused.
pub fn effort(
    chat: &ChatRequest,
    model: &str,
    wire: ReasoningWire,
    notes: &mut Notes,
) -> Result<Option<&'static str>, Problem> {
    let (reasoning, traits, is_openais) = (&chat.reasoning, traits(model), is_openais(model));
    if wire != ReasoningWire::AsIs {
        // The provider's own wording of it follows.
        let wish = match (reasoning.mode, reasoning.budget_tokens) {
            (Some(ThinkMode::Disabled), _) => Some(Effort::None),
            (_, budget) => budget.map(Effort::of_budget),
        };
        return Ok(reasoning.effort.or(wish).map(Effort::as_str));
    }
    if let Some(effort) = reasoning.effort {
        if is_openais && !traits.reasons {
            return if effort == Effort::None { Ok(None) } else { notes.drop(Param::ReasoningEffort).map(|()| None) };
        }
        return Ok(Some(traits.effort(effort).unwrap_or(effort.as_str())));
    }
    let wish = match (reasoning.mode, reasoning.budget_tokens) {
        (Some(ThinkMode::Disabled), _) | (_, Some(0)) => {
            return Ok(traits.effort(Effort::None).filter(|word| *word == "none"));
        }
        (_, Some(budget)) => Effort::of_budget(budget),
        // The model reasons as it sees fit if nothing is said.
        _ => return Ok(None),
    };
    match traits.effort(wish).filter(|_| traits.reasons) {
        Some(word) => Ok(Some(word)),
        None => notes.drop(Param::Thinking).map(|()| None),
    }
}

// === Messages ===

/// The conversation.
///
/// # Errors
/// A 400 naming the part that the dialect cannot say.
pub fn messages(chat: &ChatRequest, form: &ChatForm) -> Result<Vec<Value>, Problem> {
    let mut out = Vec::with_capacity(chat.messages.len().saturating_add(1));
    if !chat.instructions.is_empty() {
        let is_marked = form.takes_marks() && chat.instructions.iter().any(|part| part.cache.is_some());
        let content: Value = if is_marked {
            let part = |part: &TextPart| marked(json!({"type": "text", "text": part.text}), part.cache.as_ref(), form);
            chat.instructions.iter().map(part).collect()
        } else {
            let texts: Vec<&str> = chat.instructions.iter().map(|part| part.text.as_str()).collect();
            texts.join("\n\n").into()
        };
        out.push(json!({"role": "system", "content": content}));
    }
    // What results show besides text: results are text here, so it follows them in a turn of the user's.
    let mut shown: Vec<Value> = Vec::new();
    for message in &chat.messages {
        let (results, rest): (Vec<&Part>, Vec<&Part>) =
            message.parts.iter().partition(|part| matches!(part.body, PartBody::Result { .. }));
        for part in &results {
            out.push(result(part, &mut shown, form)?);
        }
        if rest.is_empty() && (!results.is_empty() || message.role == Role::Tool) {
            continue;
        }
        show(&mut shown, &mut out);
        out.push(one(message, &rest, form)?);
    }
    show(&mut shown, &mut out);
    Ok(out)
}

/// A content part or tool with the marker behind it, for providers that take markers there.
fn marked(mut what: Value, mark: Option<&CacheMark>, form: &ChatForm) -> Value {
    let Some(CacheMark(mark)) = mark else { return what };
    if form.row.cache_marks {
        what.as_object_mut().and_then(|what| what.insert("cache_control".to_owned(), mark.clone()));
    } else if form.breakpoints && what.get("type").is_some_and(|kind| kind != "function" && kind != "custom") {
        breakpoints::mark(&mut what);
    }
    what
}

fn show(shown: &mut Vec<Value>, out: &mut Vec<Value>) {
    if !shown.is_empty() {
        out.push(json!({"role": "user", "content": std::mem::take(shown)}));
    }
}

fn result(part: &Part, shown: &mut Vec<Value>, form: &ChatForm) -> Result<Value, Problem> {
    let PartBody::Result { id, parts, is_error, .. } = &part.body else { return Ok(Value::Null) };
    let mut texts = Vec::new();
    if *is_error {
        texts.push("The tool failed:");
    }
    for part in parts {
        match &part.body {
            PartBody::Text { text, .. } => texts.push(text.as_str()),
            _ => shown.extend(content_part(part, form)?),
        }
    }
    if texts.len() == usize::from(*is_error) && !parts.is_empty() {
        texts.push("The result follows.");
    }
    let text = texts.join("\n");
    let mark = part.cache.as_ref().or_else(|| parts.iter().rev().find_map(|part| part.cache.as_ref()));
    let content = match mark.filter(|_| form.takes_marks()) {
        Some(mark) => json!([marked(json!({"type": "text", "text": text}), Some(mark), form)]),
        None => text.into(),
    };
    Ok(json!({"role": "tool", "tool_call_id": id, "content": content}))
}

fn one(message: &Message, parts: &[&Part], form: &ChatForm) -> Result<Value, Problem> {
    let role = match message.role {
        Role::System | Role::Developer => "system",
        Role::User | Role::Tool => "user",
        Role::Assistant => "assistant",
    };
    let mut out = Map::new();
    out.insert("role".to_owned(), role.into());
    let mut content = Vec::new();
    let mut texts = Vec::new();
    let mut calls = Vec::new();
    let mut is_marked = false;
    // OpenAI's own markers do not stand in what the model has said.
    let takes_marks = form.takes_marks() && (form.row.cache_marks || role != "assistant");
    for part in parts {
        let mark = part.cache.as_ref().filter(|_| takes_marks);
        match &part.body {
            PartBody::Call { id, name, arguments, custom, signature } => {
                calls.push(call(id, name, arguments, *custom, signature.as_ref(), form));
            }
            PartBody::Reasoning(reasoning) => give_back(reasoning, form, &mut out),
            PartBody::Text { text, signature } => {
                texts.push(text.as_str());
                content.push(marked(json!({"type": "text", "text": text}), mark, form));
                is_marked |= mark.is_some();
                if let Some(proof) = signature.as_ref().filter(|signature| signature.family == form.lineage) {
                    out.insert("extra_content".to_owned(), google_proof(proof));
                }
            }
            _ => content.extend(content_part(part, form)?.map(|value| marked(value, mark, form))),
        }
    }
    // One text, or texts of the assistant's, as text: what nearly every provider takes.
    let only_text = !is_marked && texts.len() == content.len() && (texts.len() <= 1 || role != "user");
    let content = match (only_text, texts.is_empty()) {
        (true, true) if !calls.is_empty() => Value::Null,
        (true, _) => texts.concat().into(),
        (false, _) => content.into(),
    };
    out.insert("content".to_owned(), content);
    if let Some(name) = &message.name {
        out.insert("name".to_owned(), name.clone().into());
    }
    if !calls.is_empty() {
        out.insert("tool_calls".to_owned(), calls.into());
    }
    Ok(Value::Object(out))
}

/// Reasoning goes back where the provider wants its text, or can read its proof.
fn give_back(part: &ReasoningPart, form: &ChatForm, out: &mut Map<String, Value>) {
    if let Some(Signature { family, value }) = &part.signature
        && *family == form.lineage
        && *family == Lineage::OpenRouter
        && let Ok(details) = serde_json::from_str(value)
    {
        out.insert("reasoning_details".to_owned(), details);
    }
    if let Some(name) = form.reasoning_back.filter(|_| !part.text.is_empty()) {
        match out.get_mut(name) {
            Some(Value::String(text)) => text.push_str(&part.text),
            _ => drop(out.insert(name.to_owned(), part.text.clone().into())),
        }
    }
}

fn google_proof(signature: &Signature) -> Value {
    json!({"google": {"thought_signature": signature.value}})
}

fn call(id: &str, name: &str, arguments: &str, custom: bool, proof: Option<&Signature>, form: &ChatForm) -> Value {
    let mut call = if custom {
        json!({"id": id, "type": "custom", "custom": {"name": name, "input": arguments}})
    } else {
        let arguments = if arguments.is_empty() { "{}" } else { arguments };
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    };
    let proof = proof.filter(|proof| proof.family == form.lineage && proof.family == Lineage::Gemini);
    if let (Some(proof), Some(call)) = (proof, call.as_object_mut()) {
        call.insert("extra_content".to_owned(), google_proof(proof));
    }
    call
}

fn invalid(at: Place, what: &str) -> Problem {
    Problem::invalid(&at.to_string(), format!("{at}: {what}."))
}

/// A part as a content part; `None` for what the dialect has no form for and the answer does not need.
fn content_part(part: &Part, form: &ChatForm) -> Result<Option<Value>, Problem> {
    let url = |source: &Source| {
        source.to_url().ok_or_else(|| invalid(part.at, "files uploaded elsewhere cannot be read by this model"))
    };
    Ok(Some(match &part.body {
        PartBody::Text { text, .. } => json!({"type": "text", "text": text}),
        PartBody::Refusal(text) => json!({"type": "refusal", "refusal": text}),
        PartBody::Image { source: Source::Url(_), .. } if let Some(advice) = form.row.fetches_nothing() => {
            return Err(invalid(part.at, advice));
        }
        PartBody::Image { source, detail } => {
            let mut image = json!({"url": url(source)?});
            if let (Some(detail), Some(image)) = (detail, image.as_object_mut()) {
                image.insert("detail".to_owned(), detail.clone().into());
            }
            json!({"type": "image_url", "image_url": image})
        }
        // Plain text is as good as a document of it, and everybody takes it.
        PartBody::Document { source: Source::Text { text, .. }, name, context, .. } => {
            let about = [name, context].into_iter().flatten().map(|words| format!("{words}\n\n"));
            json!({"type": "text", "text": format!("{}{text}", about.collect::<String>())})
        }
        PartBody::Document { .. } if let Some(advice) = form.row.refuses_files() => {
            return Err(invalid(part.at, advice));
        }
        PartBody::Document { source: Source::Url(_), .. } if !form.open_sampling => {
            return Err(invalid(part.at, "give the document inline, as a data: URL; this model fetches none"));
        }
        PartBody::Document { source, name, .. } => {
            let mut file = match source {
                Source::File { family: Lineage::OpenAi, id } => json!({"file_id": id}),
                source => json!({"file_data": url(source)?}),
            };
            // A file that is sent along must have a name.
            let sent = file.get("file_data").and_then(Value::as_str);
            let unnamed = sent.map(|data| match data.starts_with("data:application/pdf") {
                true => "document.pdf",
                false => "document",
            });
            if let (Some(name), Some(file)) = (name.as_deref().or(unnamed), file.as_object_mut()) {
                file.insert("filename".to_owned(), name.into());
            }
            json!({"type": "file", "file": file})
        }
        PartBody::Audio { source: Source::Base64 { data, .. }, format } => {
            json!({"type": "input_audio", "input_audio": {"data": data, "format": format}})
        }
        PartBody::Audio { .. } => return Err(invalid(part.at, "give the sound inline, in base64")),
        PartBody::Video { source } => json!({"type": "video_url", "video_url": {"url": url(source)?}}),
        PartBody::Reasoning(_) | PartBody::Call { .. } | PartBody::Result { .. } | PartBody::Hosted { .. } => {
            return Ok(None);
        }
    }))
}

// === Tools ===

/// The tools on offer.
///
/// # Errors
/// A 400 naming the tool that the dialect cannot offer.
pub fn tools(chat: &ChatRequest, form: &ChatForm) -> Result<Vec<Value>, Problem> {
    let marked = |tool: &Tool| Ok(marked(translate_tool(chat, tool)?, tool.cache.as_ref(), form));
    match form.open_sampling {
        true => chat.tools.allowed().map(marked).collect(),
        false => chat.tools.offered.iter().map(marked).collect(),
    }
}

fn translate_tool(chat: &ChatRequest, tool: &Tool) -> Result<Value, Problem> {
    match &tool.body {
        ToolBody::Function(function) => {
            let mut out = json!({"name": function.name});
            if let Some(members) = out.as_object_mut() {
                let text = function.description.clone().map(Value::from);
                let strict = function.strict.map(Value::from);
                for (name, value) in
                    [("description", text), ("parameters", function.parameters.clone()), ("strict", strict)]
                {
                    if let Some(value) = value {
                        members.insert(name.to_owned(), value);
                    }
                }
            }
            Ok(json!({"type": "function", "function": out}))
        }
        ToolBody::Custom { name, description, format } => {
            let mut out = json!({"name": name});
            if let Some(members) = out.as_object_mut() {
                for (name, value) in [("description", description.clone().map(Value::from)), ("format", format.clone())]
                {
                    if let Some(value) = value {
                        members.insert(name.to_owned(), value);
                    }
                }
            }
            Ok(json!({"type": "custom", "custom": out}))
        }
        ToolBody::Hosted { value, .. } if chat.origin == Api::ChatCompletions => Ok(value.clone()),
        ToolBody::Hosted { .. } => {
            let at = format!("{}.type", tool.at);
            let advice = "this model's provider does not run this tool; offer a function of your own instead";
            Err(Problem::invalid(&at, format!("{at}: {advice}.")))
        }
    }
}

fn tool_choice(chat: &ChatRequest, choice: &ToolChoice, form: &ChatForm) -> Value {
    let named = |name: &str| {
        let is_custom = chat
            .tools
            .offered
            .iter()
            .any(|tool| tool.body.name() == Some(name) && matches!(tool.body, ToolBody::Custom { .. }));
        let kind = if is_custom { "custom" } else { "function" };
        json!({"type": kind, kind: {"name": name}})
    };
    match choice {
        ToolChoice::None => "none".into(),
        ToolChoice::Auto => "auto".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::One(name) => named(name),
        // The others are not offered there.
        ToolChoice::Among { required, .. } if form.open_sampling => if *required { "required" } else { "auto" }.into(),
        ToolChoice::Among { names, required } => {
            let tools: Vec<Value> = names.iter().map(|name| named(name)).collect();
            let mode = if *required { "required" } else { "auto" };
            json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}})
        }
    }
}

fn response_format(format: &Format) -> Option<Value> {
    match format {
        Format::Text => None,
        Format::JsonObject => Some(json!({"type": "json_object"})),
        Format::Schema { name, description, schema, strict } => {
            let mut out = json!({"name": name.as_deref().unwrap_or("answer"), "schema": schema});
            if let Some(members) = out.as_object_mut() {
                if let Some(description) = description {
                    members.insert("description".to_owned(), description.clone().into());
                }
                if let Some(strict) = strict {
                    members.insert("strict".to_owned(), (*strict).into());
                }
            }
            Some(json!({"type": "json_schema", "json_schema": out}))
        }
    }
}
