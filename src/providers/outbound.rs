//! What an upstream dialect is to the gateway.

use http::HeaderMap;
use serde_json::Value;

use super::answer_tool::AnswerReader;
use super::notes::Notes;
use super::side::Side;
use super::{Api, AuthKind, ReportedError, Source, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::{Kind, Problem};
use crate::protocol::chat::{ChatEvent, ChatRequest, ReplyDecoder, ReplyFault};
use crate::protocol::frames::{Decoding, EventReader, Framing, Sse, read_whole};

/// How a provider serves an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// It speaks it: requests and replies pass byte for byte, but for what must change.
    Natively,
    /// By translation.
    Translated,
    /// Not at all.
    No,
}

impl Serves {
    /// What is true of a provider that serves chat in a dialect of its own, and nothing else.
    pub fn chat_translated(api: Api) -> Self {
        if api.is_chat() { Self::Translated } else { Self::No }
    }
}

/// An upstream dialect.
pub trait Outbound: Sync {
    /// How this API is served by this target.
    fn serves(&self, api: Api, target: Target<'_>) -> Serves;

    /// The request where the API is served natively: the caller's bytes with what must change changed.
    ///
    /// # Errors
    /// A 400 naming the field at fault.
    fn faithful(&self, _api: Api, _source: &Source<'_>, _target: Target<'_>) -> Result<UpstreamRequest, Problem> {
        Err(Problem::new(Kind::Internal, "internal_error", "This provider has no native form of this request."))
    }

    /// The request where it is not.
    ///
    /// # Errors
    /// A 400 naming the place that this provider cannot serve, by the caller's own names.
    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem>;

    /// How an API that is no chat is translated; `None` if it is not.
    fn side(&self, _api: Api, _target: Target<'_>) -> Option<&'static dyn Side> {
        None
    }

    /// How the events of a streamed reply are divided.
    fn framing(&self, _target: Target<'_>) -> Box<dyn Framing> {
        Box::new(Sse::default())
    }

    /// Reads a reply, streamed or whole, in the form in which [`Self::translate`] asks for it.
    fn reader(&self, target: Target<'_>) -> Box<dyn EventReader>;

    /// Reads an error reply. Must not fail: providers send anything.
    fn read_error(&self, status: u16, headers: &HeaderMap, body: &Value, provider: &Provider) -> ReportedError;

    /// Headers that every request needs besides the credential, where the caller does not send its own.
    fn fixed_headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Where the provider's credential goes.
    fn auth(&self, _provider: &Provider) -> AuthKind {
        AuthKind::Bearer
    }
}

/// The request to a target from the canonical one.
///
/// # Errors
/// A 400 naming the place at fault.
pub fn translated(dialect: &dyn Outbound, target: Target<'_>, chat: &ChatRequest) -> Result<UpstreamRequest, Problem> {
    let mut notes = Notes::new(chat.origin, target.strict_params);
    let mut request = dialect.translate(chat, target, &mut notes)?;
    request.answer_tool = notes.answers_by_tool();
    request.dropped_params = notes.into_dropped();
    Ok(request)
}

/// Reads a reply; with `answer_tool` the calls of that tool are its text.
fn reader(dialect: &dyn Outbound, target: Target<'_>, answer_tool: bool) -> Box<dyn EventReader> {
    let reader = dialect.reader(target);
    if answer_tool { Box::new(AnswerReader::new(reader)) } else { reader }
}

/// Decodes a streamed reply.
pub fn decoder(dialect: &dyn Outbound, target: Target<'_>, answer_tool: bool) -> Box<dyn ReplyDecoder> {
    Box::new(Decoding::new(dialect.framing(target), reader(dialect, target, answer_tool)))
}

/// Decodes a whole reply.
///
/// # Errors
/// [`ReplyFault`] if it is no successful reply.
pub fn decode_body(
    dialect: &dyn Outbound,
    target: Target<'_>,
    answer_tool: bool,
    body: &[u8],
) -> Result<Vec<ChatEvent>, ReplyFault> {
    read_whole(reader(dialect, target, answer_tool), body)
}
