//! What an upstream dialect is to the gateway.

use http::HeaderMap;
use serde_json::Value;

use super::answer_tool::AnswerReader;
use super::custom_tools::{self, CustomReader};
use super::notes::Notes;
use super::side::Side;
use super::{Api, AuthKind, ReportedError, Source, StandIns, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::{Kind, Problem};
use crate::protocol::chat::{ChatEvent, ChatRequest, Part, ReplyDecoder, ReplyFault, Within};
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

    /// Whether it has tools that take free text. Where it has not, they come to [`Self::translate`] as functions.
    fn takes_custom_tools(&self, _target: Target<'_>) -> bool {
        false
    }

    /// Whether its models can be shown the pictures that a model of theirs has made. Where they can not, such pictures are
    /// left out before [`Self::translate`].
    fn takes_own_pictures(&self, _target: Target<'_>) -> bool {
        false
    }

    /// The request where it is not.
    ///
    /// # Errors
    /// A 400 naming the place that this provider cannot serve, by the caller's own names.
    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem>;

    /// The request for the number of tokens of a chat request that [`Self::translate`] has written; `None` if the
    /// provider does not count them. One that does serves the APIs that count.
    fn count(&self, _request: UpstreamRequest, _target: Target<'_>) -> Option<UpstreamRequest> {
        None
    }

    /// The number of tokens that it tells.
    fn counted(&self, _reply: &Value) -> Option<u64> {
        None
    }

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

    /// Whether a reply with this status or, of a success, with this error code says that an access token is not accepted.
    fn refuses_token(&self, status: u16, _code: Option<&str>) -> bool {
        status == 401
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
    let by_functions = match dialect.takes_custom_tools(target) {
        true => None,
        false => custom_tools::as_functions(chat, &mut notes)?,
    };
    let (chat, custom_tools) = match &by_functions {
        Some((chat, names)) => (chat, names.clone()),
        None => (chat, Vec::new()),
    };
    let shown = match dialect.takes_own_pictures(target) {
        true => None,
        false => without_own_pictures(chat, &mut notes)?,
    };
    let mut request = dialect.translate(shown.as_ref().unwrap_or(chat), target, &mut notes)?;
    request.stand_ins = StandIns { answer_tool: notes.answers_by_tool(), custom_tools };
    request.dropped_params = notes.into_dropped();
    Ok(request)
}

/// The conversation without the pictures of earlier replies, if it has any.
fn without_own_pictures(chat: &ChatRequest, notes: &mut Notes) -> Result<Option<ChatRequest>, Problem> {
    let is_own = |part: &Part| matches!(part.at.within, Within::Image(_));
    if !chat.messages.iter().any(|message| message.parts.iter().any(is_own)) {
        return Ok(None);
    }
    let mut chat = chat.clone();
    for message in &mut chat.messages {
        if message.parts.iter().any(is_own) {
            notes.drop_named(&format!("{}.images", message.at))?;
            message.parts.retain(|part| !is_own(part));
        }
    }
    chat.messages.retain(|message| !message.parts.is_empty());
    Ok(Some(chat))
}

/// Reads a reply to a request in which this stood in for something else.
fn reader(dialect: &dyn Outbound, target: Target<'_>, stand_ins: &StandIns) -> Box<dyn EventReader> {
    let mut reader = dialect.reader(target);
    if !stand_ins.custom_tools.is_empty() {
        reader = Box::new(CustomReader::new(reader, stand_ins.custom_tools.clone()));
    }
    if stand_ins.answer_tool {
        reader = Box::new(AnswerReader::new(reader));
    }
    reader
}

/// Decodes a streamed reply.
pub fn decoder(dialect: &dyn Outbound, target: Target<'_>, stand_ins: &StandIns) -> Box<dyn ReplyDecoder> {
    Box::new(Decoding::new(dialect.framing(target), reader(dialect, target, stand_ins)))
}

/// Decodes a whole reply.
///
/// # Errors
/// [`ReplyFault`] if it is no successful reply.
pub fn decode_body(
    dialect: &dyn Outbound,
    target: Target<'_>,
    stand_ins: &StandIns,
    body: &[u8],
) -> Result<Vec<ChatEvent>, ReplyFault> {
    read_whole(reader(dialect, target, stand_ins), body)
}
