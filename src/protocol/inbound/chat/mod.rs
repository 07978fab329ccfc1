//! OpenAI Chat Completions as callers speak it (<https://platform.openai.com/docs/api-reference/chat>).

mod read;
mod wire;
mod write;

#[cfg(test)]
mod tests;

use super::{BodyWriter, Echo, Inbound, ReplyIdentity, StreamWriter};
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::ChatRequest;

/// The dialect.
#[derive(Debug)]
pub struct Chat;

impl Inbound for Chat {
    fn api(&self) -> Api {
        Api::ChatCompletions
    }

    fn read(&self, body: &[u8]) -> Result<ChatRequest, Problem> {
        read::read(body)
    }

    fn echo(&self, chat: &ChatRequest) -> Echo {
        Echo { include_usage: chat.include_usage, older_calls: chat.tools.older, ..Echo::default() }
    }

    fn stream(&self, identity: ReplyIdentity, echo: Echo) -> Box<dyn StreamWriter> {
        Box::new(write::ChunkWriter::new(identity, &echo))
    }

    fn whole(&self, identity: ReplyIdentity, echo: Echo) -> Box<dyn BodyWriter> {
        Box::new(write::CompletionWriter::new(identity, &echo))
    }
}
