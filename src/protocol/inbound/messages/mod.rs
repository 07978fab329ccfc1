//! Anthropic's Messages as callers speak it (<https://platform.claude.com/docs/en/api/messages>).

mod blocks;
mod body;
mod history;
mod proof;
mod read;
mod stream;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use super::node::Node;
use super::{BodyWriter, Echo, Inbound, ReplyIdentity, StreamWriter};
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::ChatRequest;
use crate::protocol::usage::Told;

/// The dialect.
#[derive(Debug)]
pub struct Messages;

impl Inbound for Messages {
    fn api(&self) -> Api {
        Api::Messages
    }

    fn read(&self, body: &[u8]) -> Result<ChatRequest, Problem> {
        read::read(body, true)
    }

    fn read_counted(&self, body: &[u8]) -> Result<ChatRequest, Problem> {
        read::read(body, false)
    }

    fn stream(&self, identity: ReplyIdentity, _: Echo) -> Box<dyn StreamWriter> {
        Box::new(stream::EventWriter::new(identity))
    }

    fn whole(&self, identity: ReplyIdentity, _: Echo) -> Box<dyn BodyWriter> {
        Box::new(body::MessageWriter::new(identity))
    }
}

/// The message before anything of it has come.
fn empty_message(identity: &ReplyIdentity) -> Value {
    json!({
        "id": identity.id,
        "type": "message",
        "role": "assistant",
        "model": identity.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(None),
    })
}

/// A reply's id, with the prefix that the API's ids have.
fn message_id(id: &str) -> String {
    if id.starts_with("msg_") { id.to_owned() } else { format!("msg_{id}") }
}

/// The usage. The schema has numbers here, and clients read them unasked: where the provider told nothing, the two that
/// cannot be left out are 0, and nothing else is there.
fn usage(told: Option<&Told>) -> Value {
    told.map_or_else(|| json!({"input_tokens": 0, "output_tokens": 0}), |told| told.usage.to_anthropic())
}
