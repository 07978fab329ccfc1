//! A reply as one body.

use serde_json::{Value, json};

use super::blocks::{Blocks, Piece, Sink};
use super::{empty_message, message_id, usage};
use crate::protocol::chat::ChatEvent;
use crate::protocol::inbound::{BodyWriter, ReplyIdentity};
use crate::protocol::usage::Told;

/// Under this name stands what a model gave as a call's input and is no JSON object: the one that Anthropic's
/// documentation advises for such input.
const INVALID_INPUT: &str = "INVALID_JSON";

/// Collects a reply into a message.
#[derive(Debug)]
pub(super) struct MessageWriter {
    identity: ReplyIdentity,
    blocks: Blocks,
    content: Content,
}

impl MessageWriter {
    /// `identity` serves where the upstream has none.
    pub(super) fn new(identity: ReplyIdentity) -> Self {
        Self { identity, blocks: Blocks::default(), content: Content::default() }
    }
}

impl BodyWriter for MessageWriter {
    fn add(&mut self, event: ChatEvent) {
        match &event {
            ChatEvent::Start { id, .. } if !id.is_empty() => self.identity.id.clone_from(id),
            _ => self.blocks.take(&event, &mut self.content),
        }
    }

    fn finish(mut self: Box<Self>, told: Option<&Told>) -> Value {
        self.blocks.end(&mut self.content);
        self.identity.id = message_id(&self.identity.id);
        let mut message = empty_message(&self.identity);
        let (stop_reason, stop_sequence) = self.blocks.stop_reason();
        let members = [
            ("content", Value::Array(self.content.blocks)),
            ("stop_reason", stop_reason.into()),
            ("stop_sequence", stop_sequence.into()),
            ("usage", usage(told)),
        ];
        if let Some(message) = message.as_object_mut() {
            message.extend(members.map(|(name, value)| (name.to_owned(), value)));
        }
        message
    }
}

/// The blocks of a message.
#[derive(Debug, Default)]
struct Content {
    blocks: Vec<Value>,
    /// The JSON text of the open call's input.
    input: String,
}

impl Content {
    /// A member of the open block.
    fn member(&mut self, name: &str) -> Option<&mut Value> {
        let block = self.blocks.last_mut()?.as_object_mut()?;
        Some(block.entry(name).or_insert(Value::Null))
    }

    fn append(&mut self, name: &str, more: &str) {
        if let Some(Value::String(text)) = self.member(name) {
            text.push_str(more);
        }
    }
}

impl Sink for Content {
    fn open(&mut self, block: Value) {
        self.blocks.push(block);
    }

    fn more(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Text(text) => self.append("text", text),
            Piece::Thinking(text) => self.append("thinking", text),
            Piece::Signature(signature) => self.append("signature", signature),
            Piece::Input(json) => self.input.push_str(json),
            Piece::Citation(citation) => {
                if let Some(citations) = self.member("citations") {
                    match citations {
                        Value::Array(citations) => citations.push(citation.clone()),
                        _ => *citations = json!([citation]),
                    }
                }
            }
        }
    }

    fn close(&mut self) {
        let text = std::mem::take(&mut self.input);
        if text.is_empty() {
            return;
        }
        let input = match serde_json::from_str(&text) {
            Ok(input @ Value::Object(_)) => input,
            Ok(Value::Null) => json!({}),
            _ => json!({INVALID_INPUT: text}),
        };
        if let Some(place) = self.member("input") {
            *place = input;
        }
    }
}
