//! A Messages request as the canonical one.

use serde_json::{Map, Value};

use super::Node;
use super::history;
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::{
    CacheMark, ChatRequest, Effort, Format, Function, List, PartBody, Place, Reasoning, ThinkMode, Tool, ToolBody,
    ToolChoice,
};

/// The members that are read; all others are kept by their names.
const READ: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "system",
    "stream",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "output_format",
    "metadata",
    "service_tier",
    "cache_control",
];

/// Reads a request; `bounded` is one that must say how long the answer may be.
pub(super) fn read(body: &[u8], bounded: bool) -> Result<ChatRequest, Problem> {
    let body: Value = serde_json::from_slice(body).map_err(|error| Problem {
        code: "invalid_json".to_owned(),
        ..Problem::invalid("", format!("The body is not valid JSON: {error}."))
    })?;
    let root = Node::root(&body);
    let members = root.object()?;
    let mut chat = ChatRequest::new(Api::Messages, root.member("model").owned()?);
    let most = root.member("max_tokens");
    chat.output.max_tokens = if bounded { Some(most.whole()?) } else { most.optional(Node::whole)? };
    chat.stream = root.member("stream").optional(Node::flag)?.unwrap_or(false);
    chat.include_usage = chat.stream;
    chat.sampling.temperature = root.member("temperature").optional(Node::number)?;
    chat.sampling.top_p = root.member("top_p").optional(Node::number)?;
    chat.sampling.top_k = root.member("top_k").optional(Node::whole)?;
    if let Some(stops) = root.member("stop_sequences").given() {
        chat.sampling.stop = stops.items()?.map(|stop| stop.owned()).collect::<Result<_, _>>()?;
    }
    chat.reasoning = reasoning(&root.member("thinking"))?;
    let config = root.member("output_config");
    if let Some(config) = config.given() {
        config.object()?;
        chat.reasoning.effort = config.member("effort").optional(effort)?;
        chat.output.format = config.member("format").optional(format)?.unwrap_or_default();
    }
    if chat.output.format == Format::Text {
        chat.output.format = root.member("output_format").optional(format)?.unwrap_or_default();
    }
    if let Some(tools) = root.member("tools").given() {
        chat.tools.offered =
            tools.items()?.enumerate().map(|(nth, node)| tool(nth, &node)).collect::<Result<_, _>>()?;
    }
    if let Some(choice) = root.member("tool_choice").given() {
        chat.tools.choice = Some(tool_choice(&choice)?);
        let disabled = choice.member("disable_parallel_tool_use").optional(Node::flag)?;
        chat.tools.parallel = disabled.map(|disabled| !disabled);
    }
    chat.extra = members.iter().filter(|(name, value)| !READ.contains(&name.as_str()) && !value.is_null()).fold(
        Map::new(),
        |mut extra, (name, value)| {
            extra.insert(name.clone(), value.clone());
            extra
        },
    );
    caller(&root, &mut chat)?;
    chat.instructions = history::instructions(&root.member("system"))?;
    chat.messages = history::messages(&root.member("messages"))?;
    if let Some(mark) = root.member("cache_control").optional(cache_mark)? {
        mark_last(&mut chat, mark);
    }
    Ok(chat)
}

/// A marker at the top stands for one behind the last block.
fn mark_last(chat: &mut ChatRequest, mark: CacheMark) {
    let last = chat.messages.last_mut().and_then(|message| message.parts.last_mut());
    if let Some(last) = last.filter(|part| !matches!(part.body, PartBody::Reasoning(_))) {
        last.cache.get_or_insert(mark);
    }
}

/// A prompt-cache marker.
pub(super) fn cache_mark(node: &Node<'_>) -> Result<CacheMark, Problem> {
    node.object()?;
    Ok(CacheMark(node.value().clone()))
}

fn caller(root: &Node<'_>, chat: &mut ChatRequest) -> Result<(), Problem> {
    if let Some(metadata) = root.member("metadata").given() {
        chat.caller.user = metadata.member("user_id").optional(Node::owned)?;
        let rest: Map<String, Value> = metadata
            .object()?
            .iter()
            .filter(|(name, _)| *name != "user_id")
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        if !rest.is_empty() {
            chat.extra.insert("metadata".to_owned(), rest.into());
        }
    }
    let tier = root.member("service_tier").optional(Node::owned)?;
    // What the others call `default`.
    chat.caller.service_tier = tier.map(|tier| if tier == "standard_only" { "default".to_owned() } else { tier });
    Ok(())
}

fn reasoning(thinking: &Node<'_>) -> Result<Reasoning, Problem> {
    let Some(thinking) = thinking.given() else { return Ok(Reasoning::default()) };
    thinking.object()?;
    let kind = thinking.member("type");
    let (mode, budget_tokens) = match kind.text()? {
        "enabled" => (ThinkMode::Enabled, Some(thinking.member("budget_tokens").whole()?)),
        "adaptive" | "between_tools" => (ThinkMode::Adaptive, None),
        "disabled" => (ThinkMode::Disabled, None),
        _ => return Err(kind.fault("must be `enabled`, `adaptive` or `disabled`")),
    };
    Ok(Reasoning { mode: Some(mode), budget_tokens, thinking: Some(thinking.value().clone()), ..Reasoning::default() })
}

fn effort(node: &Node<'_>) -> Result<Effort, Problem> {
    let words = "must be `low`, `medium`, `high`, `xhigh` or `max`";
    Effort::parse(node.text()?).ok_or_else(|| node.fault(words))
}

fn format(node: &Node<'_>) -> Result<Format, Problem> {
    let kind = node.member("type");
    if kind.text()? != "json_schema" {
        return Err(kind.fault("must be `json_schema`"));
    }
    let schema = node.member("schema");
    schema.object()?;
    Ok(Format::Schema { name: None, description: None, schema: schema.value().clone(), strict: None })
}

fn tool(nth: usize, node: &Node<'_>) -> Result<Tool, Problem> {
    node.object()?;
    let body = match node.member("type").optional(Node::text)? {
        None | Some("custom") => {
            let schema = node.member("input_schema");
            schema.object()?;
            ToolBody::Function(Function {
                name: node.member("name").owned()?,
                description: node.member("description").optional(Node::owned)?,
                parameters: Some(schema.value().clone()),
                strict: node.member("strict").optional(Node::flag)?,
            })
        }
        Some(kind) => ToolBody::Hosted { kind: kind.to_owned(), value: node.value().clone() },
    };
    let cache = node.member("cache_control").optional(cache_mark)?;
    Ok(Tool { body, cache, at: Place::item(List::Tools, nth) })
}

fn tool_choice(node: &Node<'_>) -> Result<ToolChoice, Problem> {
    node.object()?;
    let kind = node.member("type");
    Ok(match kind.text()? {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::One(node.member("name").owned()?),
        _ => return Err(kind.fault("must be `auto`, `any`, `tool` or `none`")),
    })
}
