//! The conversation of a Messages request.

use std::collections::BTreeMap;

use super::Node;
use super::proof::{self, Of};
use super::read::cache_mark;
use crate::error::Problem;
use crate::protocol::chat::{
    Lineage, List, Message, Part, PartBody, Place, ReasoningPart, Role, Signature, Source, TextPart, Within,
};

/// Reads `system`: a text, or blocks of text.
pub(super) fn instructions(system: &Node<'_>) -> Result<Vec<TextPart>, Problem> {
    let Some(system) = system.given() else { return Ok(Vec::new()) };
    if let Some(text) = system.value().as_str() {
        let part = TextPart { text: text.to_owned(), cache: None };
        return Ok(Some(part).filter(|part| !part.text.is_empty()).into_iter().collect());
    }
    let mut parts = Vec::new();
    for block in system.items()? {
        let kind = block.member("type");
        if kind.text()? != "text" {
            return Err(kind.fault("only `text` is allowed in instructions"));
        }
        let text = block.member("text").owned()?;
        let cache = block.member("cache_control").optional(cache_mark)?;
        parts.push(TextPart { text, cache });
    }
    parts.retain(|part| !part.text.is_empty());
    Ok(parts)
}

/// Reads `messages`. What one side says in several messages is one turn, as the API has it. Results of tools become
/// messages of their own, before the rest of the turn that they stand in.
pub(super) fn messages(list: &Node<'_>) -> Result<Vec<Message>, Problem> {
    let mut turns: Vec<Message> = Vec::new();
    let mut names = BTreeMap::new();
    for (nth, message) in list.items()?.enumerate() {
        message.object()?;
        let role = message.member("role");
        let role = match role.text()? {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            _ => return Err(role.fault("must be `user` or `assistant`")),
        };
        let at = Place::item(List::Messages, nth);
        let mut reading = Reading { role, parts: Vec::new(), proofs: Vec::new(), names: &mut names };
        let content = message.member("content");
        if let Some(text) = content.value().as_str() {
            reading.text(text, at.within(Within::Content));
        } else {
            for (nth, block) in content.items()?.enumerate() {
                reading.block(&block, at.part(nth))?;
            }
        }
        let parts = reading.finish();
        match turns.last_mut() {
            Some(turn) if turn.role == role && role != Role::System => turn.parts.extend(parts),
            _ => turns.push(Message { role, parts, name: None, at }),
        }
    }
    let mut messages = Vec::with_capacity(turns.len());
    for mut turn in turns {
        let (results, rest): (Vec<_>, Vec<_>) =
            turn.parts.into_iter().partition(|part| matches!(part.body, PartBody::Result { .. }));
        messages.extend(results.into_iter().map(|part| {
            let at = part.at;
            Message { role: Role::Tool, parts: vec![part], name: None, at }
        }));
        turn.parts = rest;
        if !turn.parts.is_empty() {
            messages.push(turn);
        }
    }
    if messages.is_empty() {
        return Err(list.fault("must have at least one message with content"));
    }
    Ok(messages)
}

/// The blocks of one message.
struct Reading<'n> {
    role: Role,
    parts: Vec<Part>,
    /// Proofs, and how many parts stood before each.
    proofs: Vec<(Signature, Of, usize)>,
    /// The tools of earlier calls, by the calls' ids.
    names: &'n mut BTreeMap<String, String>,
}

impl Reading<'_> {
    fn push(&mut self, body: PartBody, block: &Node<'_>, at: Place) -> Result<(), Problem> {
        let cache = block.member("cache_control").optional(cache_mark)?;
        self.parts.push(Part { body, cache, at });
        Ok(())
    }

    fn text(&mut self, text: &str, at: Place) {
        if !text.is_empty() {
            let body = PartBody::Text { text: text.to_owned(), signature: None };
            self.parts.push(Part { body, cache: None, at });
        }
    }

    fn block(&mut self, block: &Node<'_>, at: Place) -> Result<(), Problem> {
        block.object()?;
        let kind = block.member("type");
        let word = kind.text()?;
        match (word, self.role) {
            ("text", _) => {
                let text = block.member("text").owned()?;
                if !text.is_empty() {
                    self.push(PartBody::Text { text, signature: None }, block, at)?;
                }
            }
            ("tool_addition" | "tool_removal", Role::System) => {
                let body = PartBody::Hosted { family: Lineage::Anthropic, value: block.value().clone() };
                self.push(body, block, at)?;
            }
            (_, Role::System) => return Err(kind.fault("only `text` is allowed in instructions")),
            ("thinking", Role::Assistant) => self.thinking(block, at)?,
            ("redacted_thinking", Role::Assistant) => {
                let redacted = Some(block.member("data").owned()?);
                let part = ReasoningPart { redacted, ..ReasoningPart::default() };
                self.push(PartBody::Reasoning(part), block, at)?;
            }
            ("tool_use", Role::Assistant) => self.call(block, at)?,
            // What the provider's own tools did comes back as it was said, whatever it may be.
            (_, Role::Assistant) if !matches!(word, "image" | "document" | "search_result" | "tool_result") => {
                let body = PartBody::Hosted { family: Lineage::Anthropic, value: block.value().clone() };
                self.push(body, block, at)?;
            }
            ("tool_result", Role::User) => self.result(block, at)?,
            ("thinking" | "redacted_thinking" | "tool_use", _) => {
                return Err(kind.fault("belongs into a message of the assistant"));
            }
            ("tool_result", _) => return Err(kind.fault("belongs into a message of the user")),
            _ => shown(block, at, &mut self.parts)?,
        }
        Ok(())
    }

    fn thinking(&mut self, block: &Node<'_>, at: Place) -> Result<(), Problem> {
        let text = block.member("thinking").optional(Node::owned)?.unwrap_or_default();
        let signature = block.member("signature").optional(Node::text)?.filter(|signature| !signature.is_empty());
        if let Some((proof, of)) = signature.and_then(proof::read) {
            self.proofs.push((proof, of, self.parts.len()));
            return Ok(());
        }
        let signature = signature.map(|signature| Signature::read(signature, Lineage::Anthropic));
        if text.is_empty() && signature.is_none() {
            return Ok(());
        }
        self.push(PartBody::Reasoning(ReasoningPart { text, signature, ..ReasoningPart::default() }), block, at)
    }

    fn call(&mut self, block: &Node<'_>, at: Place) -> Result<(), Problem> {
        let (id, name) = (block.member("id").owned()?, block.member("name").owned()?);
        let input = block.member("input");
        input.object()?;
        self.names.insert(id.clone(), name.clone());
        let arguments = input.value().to_string();
        self.push(PartBody::Call { id, name, arguments, custom: false, signature: None }, block, at)
    }

    fn result(&mut self, block: &Node<'_>, at: Place) -> Result<(), Problem> {
        let id = block.member("tool_use_id").owned()?;
        let content = block.member("content");
        let mut parts = Vec::new();
        if let Some(text) = content.value().as_str() {
            if !text.is_empty() {
                let body = PartBody::Text { text: text.to_owned(), signature: None };
                parts.push(Part { body, cache: None, at });
            }
        } else if let Some(content) = content.given() {
            for inner in content.items()? {
                shown(&inner, at, &mut parts)?;
            }
        }
        let is_error = block.member("is_error").optional(Node::flag)?.unwrap_or(false);
        let name = self.names.get(&id).cloned();
        self.push(PartBody::Result { id, name, parts, is_error }, block, at)
    }

    /// The parts, with proofs where they belong.
    fn finish(self) -> Vec<Part> {
        let Self { mut parts, proofs, .. } = self;
        for (proof, of, before) in proofs {
            let mut places = parts.iter_mut().enumerate().filter_map(|(nth, part)| match (&mut part.body, of) {
                (PartBody::Call { signature, .. }, Of::Call(_)) => Some(signature),
                (PartBody::Text { signature, .. }, Of::Text) if nth < before => Some(signature),
                _ => None,
            });
            let place = match of {
                Of::Call(nth) => places.nth(nth.try_into().unwrap_or(usize::MAX)),
                Of::Text => places.last(),
            };
            if let Some(place) = place {
                *place = Some(proof);
            }
        }
        parts
    }
}

/// What a user shows, or a tool returns.
fn shown(block: &Node<'_>, at: Place, out: &mut Vec<Part>) -> Result<(), Problem> {
    block.object()?;
    let kind = block.member("type");
    let cache = block.member("cache_control").optional(cache_mark)?;
    let body = match kind.text()? {
        "text" => PartBody::Text { text: block.member("text").owned()?, signature: None },
        "image" => PartBody::Image { source: source(&block.member("source"))?, detail: None },
        "document" => document(block, at, out)?,
        "search_result" => {
            let mut text = format!("{}\n{}", block.member("title").text()?, block.member("source").text()?);
            for inner in block.member("content").items()? {
                text.push('\n');
                text.push_str(inner.member("text").text()?);
            }
            PartBody::Text { text, signature: None }
        }
        known if known.ends_with("_tool_result") || matches!(known, "tool_reference" | "container_upload") => {
            PartBody::Hosted { family: Lineage::Anthropic, value: block.value().clone() }
        }
        _ => return Err(kind.fault("must be `text`, `image`, `document`, `search_result` or `tool_result`")),
    };
    if !matches!(&body, PartBody::Text { text, .. } if text.is_empty()) {
        out.push(Part { body, cache, at });
    }
    Ok(())
}

/// A document. One that is made of blocks becomes its text; its pictures go before it.
fn document(block: &Node<'_>, at: Place, out: &mut Vec<Part>) -> Result<PartBody, Problem> {
    let from = block.member("source");
    let content = from.member("content");
    let source = if from.member("type").text()? != "content" {
        source(&from)?
    } else if let Some(text) = content.value().as_str() {
        Source::Text { media_type: "text/plain".to_owned(), text: text.to_owned() }
    } else {
        let mut inner = Vec::new();
        for block in content.items()? {
            shown(&block, at, &mut inner)?;
        }
        let mut texts = Vec::new();
        for part in inner {
            match part.body {
                PartBody::Text { text, .. } => texts.push(text),
                _ => out.push(part),
            }
        }
        Source::Text { media_type: "text/plain".to_owned(), text: texts.join("\n") }
    };
    Ok(PartBody::Document {
        source,
        name: block.member("title").optional(Node::owned)?,
        context: block.member("context").optional(Node::owned)?,
        cite: block.member("citations").member("enabled").optional(Node::flag)?.unwrap_or(false),
    })
}

fn source(node: &Node<'_>) -> Result<Source, Problem> {
    node.object()?;
    let kind = node.member("type");
    let text = |name: &str| node.member(name).owned();
    Ok(match kind.text()? {
        "base64" => Source::Base64 { media_type: text("media_type")?, data: text("data")? },
        "url" => Source::Url(text("url")?),
        "text" => Source::Text { media_type: text("media_type")?, text: text("data")? },
        "file" => Source::File { family: Lineage::Anthropic, id: text("file_id")? },
        _ => return Err(kind.fault("must be `base64`, `url`, `text` or `file`")),
    })
}
