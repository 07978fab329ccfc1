//! The dialects that callers speak: a request is read from their bytes, a reply is written for them from events.

pub mod chat;
pub mod completions;
pub mod messages;
mod node;
pub mod responses;

use serde_json::Value;

use super::Api;
use super::chat::{ChatEvent, ChatRequest};
use super::cost_tag::CostTag;
use super::usage::Told;
use crate::error::{Dialect, Problem};

/// What stands in every chunk and body of one reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyIdentity {
    /// The reply's id, where the upstream gives none. Letters and digits; each dialect puts its own prefix before it.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model, as the caller named it.
    pub model: String,
}

/// What a reply's writer has to know of the request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Echo {
    /// Whether the usage is to be written, where the API leaves that to the caller.
    pub include_usage: bool,
    /// Members of the request that the reply repeats (Responses), ready to be written.
    pub members: serde_json::Map<String, Value>,
    /// Whether proofs of reasoning are to come with the reply, where the API leaves that to the caller (Responses).
    pub reasoning_proofs: bool,
    /// Whether calls are to be written in the form that `functions` had before `tools` (Chat Completions).
    pub older_calls: bool,
}

/// A dialect that callers speak.
pub trait Inbound: Sync {
    /// Its API.
    fn api(&self) -> Api;

    /// Reads a request.
    ///
    /// # Errors
    /// A 400 that names the place by the caller's own names.
    fn read(&self, body: &[u8]) -> Result<ChatRequest, Problem>;

    /// Reads a request whose tokens are to be counted, which need not say all that one does that is to be answered.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_counted(&self, body: &[u8]) -> Result<ChatRequest, Problem> {
        self.read(body)
    }

    /// What the writers need to know of a request.
    fn echo(&self, chat: &ChatRequest) -> Echo {
        Echo { include_usage: chat.include_usage, ..Echo::default() }
    }

    /// Writes a reply as a stream.
    fn stream(&self, identity: ReplyIdentity, echo: Echo) -> Box<dyn StreamWriter>;

    /// Writes a reply as one body.
    fn whole(&self, identity: ReplyIdentity, echo: Echo) -> Box<dyn BodyWriter>;
}

/// The chat dialect of an API; `None` if it has none.
pub fn inbound(api: Api) -> Option<&'static dyn Inbound> {
    match api {
        Api::ChatCompletions => Some(&chat::Chat),
        Api::Messages => Some(&messages::Messages),
        Api::Responses => Some(&responses::Responses),
        Api::Completions => Some(&completions::Completions),
        _ => None,
    }
}

/// The event that ends a stream of a provider's own which breaks off.
pub fn error_event(api: Api, problem: &Problem, request_id: &str) -> Vec<u8> {
    let Some(inbound) = inbound(api) else { return problem.stream_event(Dialect::OpenAi, request_id) };
    let identity = ReplyIdentity { id: String::new(), created: 0, model: String::new() };
    let mut out = Vec::new();
    inbound.stream(identity, Echo::default()).fail(problem, request_id, &mut out);
    out
}

/// Writes a reply as a stream.
pub trait StreamWriter {
    /// Writes what an event adds.
    fn write(&mut self, event: &ChatEvent, out: &mut Vec<u8>);

    /// Writes the end of a complete reply. The usage is written where the caller wants it and the provider told it
    /// (zeros would be believed), with the cost if that is given.
    fn end(&mut self, told: Option<&Told>, cost: Option<CostTag>, out: &mut Vec<u8>);

    /// Writes that the reply breaks off: the dialect's own error event, behind which nothing comes. Chat Completions'
    /// unless the dialect has another.
    fn fail(&mut self, problem: &Problem, request_id: &str, out: &mut Vec<u8>) {
        out.extend(problem.stream_event(Dialect::OpenAi, request_id));
    }
}

/// Collects a reply's events into one body.
pub trait BodyWriter {
    /// Adds an event.
    fn add(&mut self, event: ChatEvent);

    /// The whole body, with the usage if the provider told it.
    fn finish(self: Box<Self>, told: Option<&Told>) -> Value;
}
