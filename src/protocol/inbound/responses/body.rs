//! Writes a reply as one body: the response as the last event of a stream has it.

use serde_json::Value;

use super::stream::Writer;
use crate::protocol::chat::ChatEvent;
use crate::protocol::inbound::BodyWriter;
use crate::protocol::usage::Told;

/// Collects one reply.
pub(super) struct Body(pub(super) Writer);

impl BodyWriter for Body {
    fn add(&mut self, event: ChatEvent) {
        self.0.take(&event, &mut Vec::new());
    }

    fn finish(mut self: Box<Self>, told: Option<&Told>) -> Value {
        Value::Object(self.0.complete(told, &mut Vec::new()))
    }
}
