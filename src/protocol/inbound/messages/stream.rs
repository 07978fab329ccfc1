//! A reply as a stream of events.

use serde_json::{Value, json};

use super::blocks::{Blocks, Piece, Sink};
use super::{empty_message, message_id, usage};
use crate::error::{Dialect, Problem};
use crate::protocol::chat::ChatEvent;
use crate::protocol::cost_tag::CostTag;
use crate::protocol::inbound::{ReplyIdentity, StreamWriter};
use crate::protocol::sse::write_event;
use crate::protocol::usage::Told;

/// Writes a reply as the API's events: `message_start` first, blocks one after the other with indexes without gaps, the
/// stop reason and the usage, `message_stop` last.
#[derive(Debug)]
pub(super) struct EventWriter {
    identity: ReplyIdentity,
    started: bool,
    blocks: Blocks,
    index: u32,
}

impl EventWriter {
    /// `identity` serves until the upstream's own is known.
    pub(super) fn new(identity: ReplyIdentity) -> Self {
        Self { identity, started: false, blocks: Blocks::default(), index: 0 }
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            self.identity.id = message_id(&self.identity.id);
            let start = json!({"type": "message_start", "message": empty_message(&self.identity)});
            write_event(out, "message_start", start.to_string().as_bytes());
            write_event(out, "ping", br#"{"type":"ping"}"#);
        }
    }
}

impl StreamWriter for EventWriter {
    fn write(&mut self, event: &ChatEvent, out: &mut Vec<u8>) {
        match event {
            ChatEvent::Start { id, .. } if !self.started && !id.is_empty() => self.identity.id.clone_from(id),
            ChatEvent::Usage(_) | ChatEvent::Billed(_) => return,
            _ => {}
        }
        self.start(out);
        self.blocks.take(event, &mut Events { out, index: &mut self.index });
    }

    fn fail(&mut self, problem: &Problem, request_id: &str, out: &mut Vec<u8>) {
        out.extend(problem.stream_event(Dialect::Anthropic, request_id));
    }

    fn end(&mut self, told: Option<&Told>, cost: Option<CostTag>, out: &mut Vec<u8>) {
        self.start(out);
        self.blocks.end(&mut Events { out, index: &mut self.index });
        let (stop_reason, stop_sequence) = self.blocks.stop_reason();
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": stop_sequence},
            "usage": usage(told),
        });
        let delta = delta.to_string().into_bytes();
        let tagged = cost.and_then(|cost| cost.write_into(&delta, &["usage"]));
        write_event(out, "message_delta", &tagged.unwrap_or(delta));
        write_event(out, "message_stop", br#"{"type":"message_stop"}"#);
    }
}

/// Blocks as events.
struct Events<'a> {
    out: &'a mut Vec<u8>,
    index: &'a mut u32,
}

impl Sink for Events<'_> {
    fn open(&mut self, block: Value) {
        let event = json!({"type": "content_block_start", "index": *self.index, "content_block": block});
        write_event(self.out, "content_block_start", event.to_string().as_bytes());
    }

    fn more(&mut self, piece: Piece<'_>) {
        let (kind, name, value) = match piece {
            Piece::Text(text) => ("text_delta", "text", Value::from(text)),
            Piece::Citation(citation) => ("citations_delta", "citation", citation.clone()),
            Piece::Thinking(text) => ("thinking_delta", "thinking", Value::from(text)),
            Piece::Signature(signature) => ("signature_delta", "signature", Value::from(signature)),
            Piece::Input(json) => ("input_json_delta", "partial_json", Value::from(json)),
        };
        let index = *self.index;
        let event =
            format!(r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"{kind}","{name}":{value}}}}}"#);
        write_event(self.out, "content_block_delta", event.as_bytes());
    }

    fn close(&mut self) {
        let event = json!({"type": "content_block_stop", "index": *self.index});
        write_event(self.out, "content_block_stop", event.to_string().as_bytes());
        *self.index = self.index.saturating_add(1);
    }
}
