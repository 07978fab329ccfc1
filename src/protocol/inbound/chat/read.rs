//! A Chat Completions request as the canonical one.

use serde_json::{Map, Value};

use super::wire;
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::{
    CacheMark, CallerFacts, ChatRequest, Effort, Format, Function, Lineage, List, Message, Output, Part, PartBody,
    Place, Reasoning, ReasoningPart, Role, Sampling, Signature, Source, ThinkMode, Tool, ToolBody, ToolChoice, Tools,
    Within,
};

/// Reads a request.
pub(super) fn read(body: &[u8]) -> Result<ChatRequest, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let request: wire::Request = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        // Where in the bytes it is helps nobody in a one-line body.
        let detail = error.inner().to_string();
        let detail = detail.split(" at line ").next().unwrap_or_default();
        invalid(&path, detail)
    })?;
    if request.messages.is_empty() {
        return Err(invalid("messages", "must have at least one message"));
    }
    for (name, value, most) in [("temperature", request.temperature, 2.0), ("top_p", request.top_p, 1.0)] {
        if value.is_some_and(|value| !(0.0..=most).contains(&value)) {
            return Err(invalid(name, &format!("must be 0 to {most}")));
        }
    }
    let mut chat = ChatRequest::new(Api::ChatCompletions, request.model);
    chat.stream = request.stream;
    chat.include_usage = request.stream_options.is_some_and(|options| options.include_usage);
    chat.messages = messages(request.messages)?;
    chat.sampling = Sampling {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        repetition_penalty: request.repetition_penalty,
        seed: request.seed,
        stop: match request.stop {
            None => Vec::new(),
            Some(wire::Stop::One(text)) => vec![text],
            Some(wire::Stop::Many(texts)) => texts,
        },
        logit_bias: request.logit_bias.filter(|bias| !bias.is_empty()),
        logprobs: request.logprobs,
        top_logprobs: request.top_logprobs,
        n: request.n,
    };
    chat.output = Output {
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        format: request.response_format.map(format).unwrap_or_default(),
        verbosity: request.verbosity,
        modalities: request.modalities.unwrap_or_default(),
        audio: request.audio,
        prediction: request.prediction,
        echo: false,
    };
    let choice = request.tool_choice.filter(|choice| !choice.is_null());
    let (choice, place) = match (choice, request.function_call.filter(|choice| !choice.is_null())) {
        (Some(choice), _) => (Some(choice), "tool_choice"),
        (None, older) => (older, "function_call"),
    };
    let older = request.tools.is_none() && request.functions.is_some();
    chat.tools = Tools {
        offered: tools(request.tools.unwrap_or_default(), request.functions.unwrap_or_default())?,
        choice: choice.map(|choice| tool_choice(&choice, place)).transpose()?,
        parallel: request.parallel_tool_calls.or(older.then_some(false)),
        older,
    };
    let mut extra = request.extra;
    extra.retain(|_, value| !value.is_null());
    chat.reasoning = reasoning(request.reasoning_effort.as_deref(), request.thinking, &mut extra)?;
    chat.caller = CallerFacts {
        user: request.user,
        safety_identifier: request.safety_identifier,
        metadata: request.metadata.filter(|pairs| !pairs.is_empty()),
        service_tier: request.service_tier,
        store: request.store,
        prompt_cache_key: request.prompt_cache_key,
        prompt_cache_retention: request.prompt_cache_retention,
    };
    chat.extra = extra;
    Ok(chat)
}

fn invalid(at: &str, what: &str) -> Problem {
    let place = if at.is_empty() { String::new() } else { format!("{at}: ") };
    Problem::invalid(at, format!("{place}{what}."))
}

// === Messages ===

fn messages(messages: Vec<wire::Message>) -> Result<Vec<Message>, Problem> {
    let mut out = Vec::with_capacity(messages.len());
    // The older form's calls have no ids: the latest call of a name is what a result of that name answers.
    let mut older_calls: Vec<(String, String)> = Vec::new();
    for (nth, message) in messages.into_iter().enumerate() {
        let at = Place::item(List::Messages, nth);
        let mut parts = Vec::new();
        let older_result = message.role == wire::Role::Function;
        if message.role == wire::Role::Tool || older_result {
            let id = if older_result {
                let name = message.name.as_deref();
                let call = older_calls.iter().rev().find(|(called, _)| name.is_none_or(|name| name == called));
                call.map(|(_, id)| id.clone())
            } else {
                message.tool_call_id
            };
            let Some(id) = id else {
                let missing = if older_result { "name" } else { "tool_call_id" };
                return Err(invalid(&format!("{at}.{missing}"), "the message must name the call that it answers"));
            };
            let parts_of_it = content(message.content, at)?;
            let cache = message.cache_control.map(CacheMark);
            let body = PartBody::Result { id, name: message.name, parts: parts_of_it, is_error: false };
            parts.push(Part { body, cache, at });
            out.push(Message { role: Role::Tool, parts, name: None, at });
            continue;
        }
        reasoning_parts(&message, at, &mut parts)?;
        parts.extend(content(message.content, at)?);
        if let Some(refusal) = message.refusal.filter(|text| !text.is_empty()) {
            parts.push(part(PartBody::Refusal(refusal), at));
        }
        if let Some(signature) = google_signature(message.extra_content.as_ref())
            && let Some(PartBody::Text { signature: place, .. }) = parts.last_mut().map(|part| &mut part.body)
        {
            *place = Some(signature);
        }
        for (nth, image) in message.images.into_iter().flatten().enumerate() {
            let at = at.image(nth);
            let (url, detail) = address(image.image_url);
            let source = source(&url, &format!("{at}.image_url.url"))?;
            parts.push(part(PartBody::Image { source, detail }, at));
        }
        for (nth, call) in message.tool_calls.into_iter().flatten().enumerate() {
            parts.push(tool_call(call, at.call(nth))?);
        }
        if message.audio.is_some_and(|audio| !audio.is_null()) && parts.is_empty() && message.function_call.is_none() {
            let advice = "names sound that this model does not know; give what was said as `content`";
            return Err(invalid(&format!("{at}.audio"), advice));
        }
        if let Some(call) = message.function_call {
            let id = format!("call_{nth}");
            older_calls.push((call.name.clone(), id.clone()));
            let body =
                PartBody::Call { id, name: call.name, arguments: call.arguments, custom: false, signature: None };
            parts.push(part(body, at));
        }
        if let (Some(mark), Some(last)) = (message.cache_control, parts.last_mut())
            && !matches!(last.body, PartBody::Reasoning(_))
        {
            last.cache.get_or_insert(CacheMark(mark));
        }
        let role = match message.role {
            wire::Role::System => Role::System,
            wire::Role::Developer => Role::Developer,
            wire::Role::Assistant => Role::Assistant,
            wire::Role::User | wire::Role::Tool | wire::Role::Function => Role::User,
        };
        out.push(Message { role, parts, name: message.name, at });
    }
    Ok(out)
}

fn part(body: PartBody, at: Place) -> Part {
    Part { body, cache: None, at }
}

/// Reasoning of an earlier turn, in whichever form the caller gives it back.
fn reasoning_parts(message: &wire::Message, at: Place, parts: &mut Vec<Part>) -> Result<(), Problem> {
    for (nth, block) in message.thinking_blocks.iter().flatten().enumerate() {
        let at = at.within(Within::Thinking(u32::try_from(nth).unwrap_or(u32::MAX)));
        let text = |name: &str| block.get(name).and_then(Value::as_str).map(str::to_owned);
        let reasoning = match text("type").as_deref() {
            Some("redacted_thinking") => ReasoningPart { redacted: text("data"), ..ReasoningPart::default() },
            Some("thinking") => ReasoningPart {
                text: text("thinking").unwrap_or_default(),
                signature: text("signature").map(|proof| Signature::read(&proof, Lineage::Anthropic)),
                id: text("id"),
                ..ReasoningPart::default()
            },
            _ => return Err(invalid(&format!("{at}.type"), "must be `thinking` or `redacted_thinking`")),
        };
        parts.push(part(PartBody::Reasoning(reasoning), at));
    }
    if !parts.is_empty() {
        return Ok(());
    }
    let shown = [&message.reasoning_content, &message.reasoning].into_iter().flatten();
    let text = shown.filter_map(Value::as_str).find(|text| !text.is_empty()).unwrap_or_default().to_owned();
    let details =
        message.reasoning_details.as_ref().filter(|details| details.as_array().is_some_and(|d| !d.is_empty()));
    let signature = details.map(|d| Signature { family: Lineage::OpenRouter, value: d.to_string() });
    if !text.is_empty() || signature.is_some() {
        parts.push(part(PartBody::Reasoning(ReasoningPart { text, signature, ..ReasoningPart::default() }), at));
    }
    Ok(())
}

/// Google's own place for proofs in this dialect.
fn google_signature(extra: Option<&Value>) -> Option<Signature> {
    let proof = extra?.pointer("/google/thought_signature")?.as_str()?;
    Some(Signature::read(proof, Lineage::Gemini))
}

fn content(content: Option<wire::Content>, at: Place) -> Result<Vec<Part>, Problem> {
    let parts = match content {
        None => return Ok(Vec::new()),
        Some(wire::Content::Text(text)) => {
            let body = PartBody::Text { text, signature: None };
            return Ok(vec![part(body, at.within(Within::Content))].into_iter().filter(says_something).collect());
        }
        Some(wire::Content::Parts(parts)) => parts,
    };
    let mut out = Vec::with_capacity(parts.len());
    for (nth, one) in parts.into_iter().enumerate() {
        let at = at.part(nth);
        let (body, cache) = match one {
            wire::Part::Text { text, cache_control, prompt_cache_breakpoint: openais } => {
                (PartBody::Text { text, signature: None }, mark(cache_control, openais))
            }
            wire::Part::Refusal { refusal } => (PartBody::Refusal(refusal), None),
            wire::Part::Thinking { thinking } => {
                let text = match &thinking {
                    Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
                    other => other.as_str().unwrap_or_default().to_owned(),
                };
                (PartBody::Reasoning(ReasoningPart { text, ..ReasoningPart::default() }), None)
            }
            wire::Part::ImageUrl { image_url, cache_control, prompt_cache_breakpoint: openais } => {
                let (url, detail) = address(image_url);
                let source = source(&url, &format!("{at}.image_url.url"))?;
                (PartBody::Image { source, detail }, mark(cache_control, openais))
            }
            wire::Part::VideoUrl { video_url } => {
                let (url, _) = address(video_url);
                (PartBody::Video { source: source(&url, &format!("{at}.video_url.url"))? }, None)
            }
            wire::Part::File { file, cache_control, prompt_cache_breakpoint: openais } => {
                (document(file, at)?, mark(cache_control, openais))
            }
            wire::Part::InputAudio { input_audio: wire::InputAudio { data, format } } => {
                let source = Source::Base64 { media_type: format!("audio/{format}"), data };
                (PartBody::Audio { source, format }, None)
            }
        };
        out.push(Part { body, cache, at });
    }
    out.retain(says_something);
    Ok(out)
}

/// A marker in Anthropic's form, or else in OpenAI's.
fn mark(anthropics: Option<Value>, openais: Option<Value>) -> Option<CacheMark> {
    let given = |mark: Option<Value>| mark.filter(|mark| !mark.is_null());
    given(anthropics).map(CacheMark).or_else(|| given(openais).map(|_| CacheMark::plain()))
}

fn says_something(part: &Part) -> bool {
    !matches!(&part.body, PartBody::Text { text, .. } if text.is_empty())
}

fn address(url: wire::ImageUrl) -> (String, Option<String>) {
    match url {
        wire::ImageUrl::Object { url, detail } => (url, detail),
        wire::ImageUrl::Text(url) => (url, None),
    }
}

fn source(url: &str, at: &str) -> Result<Source, Problem> {
    match Source::from_url(url) {
        Some(Source::Url(url)) if !["https://", "http://", "gs://"].iter().any(|scheme| url.starts_with(scheme)) => {
            Err(invalid(at, "must be an https: or data: URL"))
        }
        Some(source) => Ok(source),
        None => Err(invalid(at, "a data: URL must be data:<media type>;base64,<data>")),
    }
}

fn document(file: wire::File, at: Place) -> Result<PartBody, Problem> {
    let source = match (file.file_data, file.file_id) {
        (Some(data), _) => source(&data, &format!("{at}.file.file_data"))?,
        (None, Some(id)) => Source::File { family: Lineage::OpenAi, id },
        (None, None) => {
            return Err(invalid(&format!("{at}.file"), "needs `file_data` (a data: URL) or `file_id`"));
        }
    };
    Ok(PartBody::Document { source, name: file.filename, context: None, cite: false })
}

fn tool_call(call: wire::ToolCall, at: Place) -> Result<Part, Problem> {
    let signature = google_signature(call.extra_content.as_ref());
    let (name, arguments, custom) = match (call.function, call.custom) {
        (Some(function), _) => (function.name, function.arguments, false),
        (None, Some(custom)) => (custom.name, custom.input, true),
        (None, None) => return Err(invalid(&format!("{at}.function"), "is required")),
    };
    Ok(part(PartBody::Call { id: call.id, name, arguments, custom, signature }, at))
}

// === Tools ===

fn tools(tools: Vec<Value>, older: Vec<wire::Function>) -> Result<Vec<Tool>, Problem> {
    let mut out = Vec::with_capacity(tools.len());
    for (nth, mut tool) in tools.into_iter().enumerate() {
        let at = Place::item(List::Tools, nth);
        let Some(members) = tool.as_object_mut() else { return Err(invalid(&at.to_string(), "must be an object")) };
        let cache = members.get("cache_control").filter(|mark| !mark.is_null()).cloned().map(CacheMark);
        // Mistral takes tools without a type, so that clients send them.
        let kind = members.get("type").and_then(Value::as_str).unwrap_or("function").to_owned();
        let body = match kind.as_str() {
            "function" => ToolBody::Function(function(members.remove("function").unwrap_or_default(), at)?),
            "custom" => {
                let custom = members.remove("custom").unwrap_or_default();
                let text = |name: &str| custom.get(name).and_then(Value::as_str).map(str::to_owned);
                let Some(name) = text("name") else {
                    return Err(invalid(&format!("{at}.custom.name"), "is required"));
                };
                ToolBody::Custom { name, description: text("description"), format: custom.get("format").cloned() }
            }
            _ => ToolBody::Hosted { kind, value: tool },
        };
        out.push(Tool { body, cache, at });
    }
    for (nth, older) in older.into_iter().enumerate() {
        let at = Place::item(List::Tools, nth);
        out.push(Tool { body: ToolBody::Function(from_wire(older)), cache: None, at });
    }
    Ok(out)
}

fn function(definition: Value, at: Place) -> Result<Function, Problem> {
    serde_path_to_error::deserialize(definition).map(from_wire).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { format!(".{path}") };
        invalid(&format!("{at}.function{path}"), &error.inner().to_string())
    })
}

fn from_wire(function: wire::Function) -> Function {
    let wire::Function { name, description, parameters, strict } = function;
    Function { name, description, parameters: parameters.filter(|schema| !schema.is_null()), strict }
}

fn tool_choice(choice: &Value, place: &str) -> Result<ToolChoice, Problem> {
    let name_of = |value: &Value| {
        let name = ["/function/name", "/custom/name", "/name"].iter().find_map(|at| value.pointer(at));
        name.and_then(Value::as_str).map(str::to_owned)
    };
    if let Some(allowed) = choice.get("allowed_tools") {
        let tools = allowed.get("tools").and_then(Value::as_array);
        let names = tools.into_iter().flatten().filter_map(name_of).collect();
        let required = allowed.get("mode").is_some_and(|mode| mode == "required");
        return Ok(ToolChoice::Among { names, required });
    }
    match (choice.as_str(), name_of(choice)) {
        (Some("none"), _) => Ok(ToolChoice::None),
        (Some("auto"), _) => Ok(ToolChoice::Auto),
        (Some("required" | "any"), _) => Ok(ToolChoice::Required),
        (None, Some(name)) => Ok(ToolChoice::One(name)),
        _ => Err(invalid(
            place,
            "expected \"none\", \"auto\", \"required\" or {\"type\":\"function\",\"function\":{\"name\":…}}",
        )),
    }
}

// === The rest ===

fn format(format: wire::ResponseFormat) -> Format {
    match format {
        wire::ResponseFormat::Text => Format::Text,
        wire::ResponseFormat::JsonObject => Format::JsonObject,
        wire::ResponseFormat::JsonSchema { json_schema: wire::JsonSchema { name, description, schema, strict } } => {
            let schema = schema.unwrap_or_else(|| serde_json::json!({"type": "object"}));
            Format::Schema { name, description, schema, strict }
        }
    }
}

fn reasoning(
    effort: Option<&str>,
    thinking: Option<Value>,
    extra: &mut Map<String, Value>,
) -> Result<Reasoning, Problem> {
    let read = |word: &str, at: &str| {
        let words = "must be `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`";
        Effort::parse(word).ok_or_else(|| invalid(at, words))
    };
    let mut out =
        Reasoning { effort: effort.map(|word| read(word, "reasoning_effort")).transpose()?, ..Reasoning::default() };
    // OpenRouter's form, which says both.
    if let Some(own) = extra.remove("reasoning") {
        out.budget_tokens = own.get("max_tokens").and_then(Value::as_u64);
        if let (None, Some(word)) = (out.effort, own.get("effort").and_then(Value::as_str)) {
            out.effort = Some(read(word, "reasoning.effort")?);
        }
        if own.get("enabled").is_some_and(|enabled| enabled == false) {
            out.mode = Some(ThinkMode::Disabled);
        }
    }
    if let Some(thinking) = thinking.filter(|thinking| !thinking.is_null()) {
        out.mode = match thinking.get("type").and_then(Value::as_str) {
            Some("enabled") => Some(ThinkMode::Enabled),
            Some("disabled") => Some(ThinkMode::Disabled),
            Some("adaptive" | "auto") => Some(ThinkMode::Adaptive),
            // Zhipu's may say other things alone.
            None if thinking.is_object() => None,
            _ => return Err(invalid("thinking.type", "must be `enabled`, `disabled` or `adaptive`")),
        };
        out.budget_tokens = thinking.get("budget_tokens").and_then(Value::as_u64).or(out.budget_tokens);
        out.thinking = Some(thinking);
    }
    Ok(out)
}
