//! A canonical chat request as a Messages request.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::super::Target;
use super::super::answer_tool::with_object_type;
use super::super::families::{Taken, Traits, takes_one_of_temperature_and_top_p, traits};
use super::super::notes::{Notes, Param};
use super::super::schema::{self, Subset};
use super::super::turns::{Speaker, Turn, hoist, turns};
use super::thinking::{self, Thinking};
use crate::config::{ProviderDialect, StructuredOutput};
use crate::error::Problem;
use crate::protocol::chat::{
    CacheMark, ChatRequest, Format, Lineage, Message, Part, PartBody, Place, ReasoningPart, Source, TextPart, Tool,
    ToolBody, ToolChoice, ids,
};

/// What the dialect has, in its own form.
const HAS: &[Param] = &[
    Param::Temperature,
    Param::TopP,
    Param::TopK,
    Param::Stop,
    Param::User,
    Param::ServiceTier,
    Param::CacheControl,
    Param::ReasoningSummary,
    Param::Citations,
    Param::Strict,
];

/// The request's body.
pub(super) fn translate_request(chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<Value, Problem> {
    let traits = traits(target.upstream_model);
    let holds_to_schemas = target.structured_output == StructuredOutput::Native && follows_schemas(target, traits);
    let can_follow = |format: &Format| match format {
        Format::Schema { schema, .. } => holds_to_schemas && schema::claude_can_follow(schema),
        _ => true,
    };
    let by_tool = if can_follow(&chat.output.format) { None } else { notes.answer_by_tool(chat)? };
    let chat = by_tool.as_ref().unwrap_or(chat);
    notes.unsupported(chat, HAS, &[])?;

    let (instructions, messages) = hoist(chat)?;
    let mut system: Vec<Value> = instructions.iter().filter_map(system_block).collect();
    let (tools, choice) = tools(chat, traits, follows_schemas(target, traits), notes)?;
    let mut output_config = Map::new();
    match &chat.output.format {
        Format::Text => {}
        Format::JsonObject => system.push(json!({
            "type": "text",
            "text": "Answer with one valid JSON object and nothing else: no prose, no code fence.",
        })),
        Format::Schema { schema, .. } => {
            let schema = schema::fit(schema, Subset::AnthropicOutput).map_err(|fault| {
                let name = Param::ResponseFormat.name(chat.origin);
                Problem::invalid(name, format!("{name}: {fault}."))
            })?;
            output_config.insert("format".to_owned(), json!({"type": "json_schema", "schema": schema}));
        }
    }

    // The caller's own thinking budget comes on top of the limit that it left to us.
    let own_budget = chat.reasoning.thinking.as_ref().and(chat.reasoning.budget_tokens).unwrap_or(0);
    let limit = chat.output.max_tokens.unwrap_or_else(|| target.max_output_tokens.saturating_add(own_budget));
    let forced = choice.as_ref().is_some_and(|c| matches!(c.get("type").and_then(Value::as_str), Some("any" | "tool")));
    let Thinking { setting, effort, active } = thinking::decide(chat, traits, limit, forced, notes)?;
    if let Some(effort) = effort {
        output_config.insert("effort".to_owned(), effort.into());
    }
    let samples = match traits.sampling {
        Taken::Never => false,
        Taken::WithoutReasoning | Taken::ReasoningOff => !active,
        Taken::Always | Taken::WithoutTools => true,
    };

    let mut body = Map::new();
    let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
    set("model", target.upstream_model.into());
    set("max_tokens", limit.into());
    if !system.is_empty() {
        set("system", system.into());
    }
    set("messages", translate_messages(&messages, traits.prefill, notes)?.into());
    if chat.stream {
        set("stream", true.into());
    }
    let sampling = &chat.sampling;
    match sampling.temperature {
        // The API wants 1 while thinking, and ranges to 1 where OpenAI's ranges to 2.
        Some(_) if !samples => notes.drop(Param::Temperature)?,
        Some(temperature) => {
            set("temperature", json!(notes.clamp(Param::Temperature, temperature, 0.0, 1.0)?));
        }
        None => {}
    }
    // A `top_p` of 1 does nothing.
    let one_of_both = sampling.temperature.is_some() && takes_one_of_temperature_and_top_p(target.upstream_model);
    let top_p = sampling.top_p.filter(|p| *p != 1.0).map(|p| json!(p));
    for (param, name, value) in [(Param::TopP, "top_p", top_p), (Param::TopK, "top_k", sampling.top_k.map(Value::from))]
    {
        match value {
            Some(_) if !samples || (param == Param::TopP && one_of_both) => notes.drop(param)?,
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
    if let Some(setting) = setting {
        set("thinking", setting);
    }
    if !output_config.is_empty() {
        set("output_config", output_config.into());
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
    keep_last_marks(&mut body);
    Ok(Value::Object(body))
}

/// Whether a model can be held to schemas where it runs. On Vertex only newer ones can.
/// <https://docs.cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/structured_outputs>
fn follows_schemas(target: Target<'_>, traits: &Traits) -> bool {
    let is_older = || {
        let model = target.upstream_model;
        ["-4-1", "-4-5", "-4@", "-4-2"].iter().any(|version| model.contains(version)) || model.contains("claude-3")
    };
    traits.json_schema != Taken::Never && !(target.provider.dialect() == ProviderDialect::Vertex && is_older())
}

/// The most prompt-cache markers that the API takes.
const MAX_MARKS: usize = 4;

/// Leaves the last markers in place: each stands for all that comes before it.
fn keep_last_marks(body: &mut Map<String, Value>) {
    let mut kept = 0;
    for name in ["messages", "system", "tools"] {
        if let Some(value) = body.get_mut(name) {
            unmark(value, &mut kept);
        }
    }
}

/// Goes through blocks from the last to the first. Schemas and arguments, which may have members of any name, are not
/// looked into.
fn unmark(value: &mut Value, kept: &mut usize) {
    match value {
        Value::Array(items) => items.iter_mut().rev().for_each(|item| unmark(item, kept)),
        Value::Object(block) => {
            if block.contains_key("cache_control") {
                if *kept < MAX_MARKS {
                    *kept = kept.saturating_add(1);
                } else {
                    block.shift_remove("cache_control");
                }
            }
            if let Some(content) = block.get_mut("content") {
                unmark(content, kept);
            }
        }
        _ => {}
    }
}

/// The most tools whose calls can be held to their schemas at once.
const MAX_STRICT: usize = 20;

/// The tools on offer, and which are to be called. `exact` tells whether the model can be held to schemas.
fn tools(
    chat: &ChatRequest,
    traits: &Traits,
    exact: bool,
    notes: &mut Notes,
) -> Result<(Vec<Value>, Option<Value>), Problem> {
    use ToolChoice::{Among, One, Required};
    let forced = matches!(&chat.tools.choice, Some(One(_) | Required | Among { required: true, .. }));
    let can_be_forced = !(forced && traits.forced_tools == Taken::Never);
    if !can_be_forced {
        // The model cannot be made to call a tool: it is left none but the one to call.
        notes.drop(Param::ToolChoice)?;
    }
    let only = match &chat.tools.choice {
        Some(One(name)) if !can_be_forced => Some(name.as_str()),
        _ => None,
    };
    let is_strict = |tool: &&Value| tool.get("strict").is_some();
    let mut tools = Vec::new();
    for tool in chat.tools.allowed().filter(|tool| only.is_none() || tool.body.name() == only) {
        let may_be_strict = exact && tools.iter().filter(is_strict).count() < MAX_STRICT;
        tools.push(translate_tool(tool, may_be_strict, notes)?);
    }
    let choice = if can_be_forced { translate_choice(chat, !tools.is_empty()) } else { None };
    Ok((tools, choice))
}

fn translate_tool(tool: &Tool, exact: bool, notes: &mut Notes) -> Result<Value, Problem> {
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
    let mut schema = with_object_type(function.parameters.as_ref().unwrap_or(&Value::Null));
    if function.strict == Some(true) {
        let fitted = schema::fit(&schema, Subset::AnthropicOutput).ok();
        match fitted.filter(|_| exact && (schema::claude_can_follow(&schema) || has_no_members(&schema))) {
            Some(fitted) => {
                schema = fitted;
                out.insert("strict".to_owned(), true.into());
            }
            None => notes.drop(Param::Strict)?,
        }
    }
    out.insert("input_schema".to_owned(), schema);
    Ok(marked(out, tool.cache.as_ref()))
}

/// Whether a function takes nothing.
fn has_no_members(schema: &Value) -> bool {
    let named = schema.get("properties").and_then(Value::as_object);
    schema.get("additionalProperties").is_none() && named.is_some_and(Map::is_empty)
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

fn translate_messages(messages: &[&Message], prefill: bool, notes: &mut Notes) -> Result<Vec<Value>, Problem> {
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
    if !prefill && out.last().is_some_and(|(role, _)| *role == "assistant") {
        notes.drop_named("prefill")?;
        out.push(("user", vec![json!({"type": "text", "text": "Go on from where you stopped."})]));
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
pub(super) fn own_reasoning(part: &ReasoningPart) -> Option<Value> {
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
