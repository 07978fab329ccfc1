//! Replies: in a form of their own (`response`, `tool_calls`, `usage`), and of newer models in OpenAI's.

use serde_json::Value;

use crate::protocol::chat::ids::{CallIndex, CallPiece};
use crate::protocol::chat::{ChatEvent, FinishReason, ReplyFault};
use crate::protocol::frames::{EventReader, RawEvent, parse_json};
use crate::protocol::usage::Usage;
use crate::providers::outbound::Outbound as _;
use crate::providers::{ReportedError, Target, openai};

/// What the numbers of errors mean, and the status that others have for it
/// (<https://developers.cloudflare.com/workers-ai/platform/errors/>).
const MEANINGS: &[(&str, u16, &[u64])] = &[
    ("model_not_found", 404, &[5007, 3042]),
    ("invalid_request_error", 400, &[3003, 3039, 5004, 5005, 5006, 5019]),
    ("context_length_exceeded", 400, &[5021]),
    ("permission_error", 403, &[3023, 3041, 5016, 5018]),
    ("timeout_error", 408, &[3007, 3008]),
    ("request_too_large", 413, &[3006]),
    ("insufficient_quota", 429, &[3036]),
    ("overloaded_error", 503, &[3040]),
];

/// Reads an error: the binding's (`internalCode`, `description`), the REST API's (`errors`), or an exception's text,
/// which has the number before a colon.
pub(super) fn error(body: &Value) -> ReportedError {
    let first = body.pointer("/errors/0").or_else(|| body.get("error")).unwrap_or(body);
    let text = ["description", "message"].iter().find_map(|name| first.get(*name)?.as_str());
    let message = text.or_else(|| first.as_str()).filter(|text| !text.is_empty());
    let said = message.and_then(|message| message.split([':', ' ']).find_map(|word| word.parse::<u64>().ok()));
    let number = ["internalCode", "code"].iter().find_map(|name| first.get(*name)?.as_u64()).or(said);
    let meaning = MEANINGS.iter().find(|(_, _, numbers)| number.is_some_and(|number| numbers.contains(&number)));
    ReportedError {
        message: message.map(str::to_owned),
        code: meaning.map(|(code, _, _)| (*code).to_owned()),
        status: meaning.map(|(_, status, _)| *status),
        ..ReportedError::default()
    }
}

/// The error that a reply is; `None` if it is none.
fn fault(body: &Value) -> Option<ReplyFault> {
    let says = |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
    let names = ["errors", "error", "internalCode"];
    names.iter().find(|name| body.get(**name).is_some_and(says))?;
    let ReportedError { message, code, .. } = error(body);
    let message = message.unwrap_or_else(|| "the provider reported an error without a message".to_owned());
    Some(ReplyFault::Reported { message, code })
}

/// Reads a reply.
pub(super) struct Reader {
    model: String,
    openai: Box<dyn EventReader>,
    is_openai: bool,
    has_begun: bool,
    calls: CallIndex,
    is_done: bool,
}

impl Reader {
    /// A reader of what this model says.
    pub(super) fn new(target: Target<'_>) -> Self {
        Self {
            model: target.upstream_model.to_owned(),
            openai: openai::OpenAi.reader(target),
            is_openai: false,
            has_begun: false,
            calls: CallIndex::default(),
            is_done: false,
        }
    }

    fn take(&mut self, reply: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if !["response", "tool_calls", "usage"].iter().any(|name| reply.get(*name).is_some()) {
            return Err(ReplyFault::Malformed("there is neither a response nor a call".to_owned()));
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            out.push(ChatEvent::Start { id: String::new(), model: self.model.clone(), created: None });
        }
        let text = match reply.get("response") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            // JSON that was asked for comes as what it is.
            Some(other) => other.to_string(),
        };
        if !text.is_empty() {
            out.push(ChatEvent::Text { choice: 0, text, logprobs: None });
        }
        for call in reply.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let function = call.get("function").unwrap_or(call);
            let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
            let arguments = match function.get("arguments") {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            let piece =
                CallPiece { id: text(call, "id"), name: text(function, "name"), arguments, ..CallPiece::default() };
            self.calls.take(0, piece, out);
        }
        out.extend(reply.get("usage").and_then(Usage::from_openai).map(ChatEvent::Usage));
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<ChatEvent>) {
        self.calls.complete(0, out);
        let reason = if self.calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
        out.push(ChatEvent::Finish { choice: 0, reason });
        self.is_done = true;
    }
}

impl EventReader for Reader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let is_mark = event.data.trim_ascii() == b"[DONE]";
        if self.is_openai {
            return self.openai.event(event, out);
        }
        if is_mark {
            if self.has_begun && !self.is_done {
                self.end(out);
            }
            return Ok(());
        }
        let chunk = parse_json(&event.data)?;
        if let Some(fault) = fault(&chunk) {
            return Err(fault);
        }
        if chunk.get("choices").is_some() {
            self.is_openai = true;
            return self.openai.event(event, out);
        }
        if self.is_done { Ok(()) } else { self.take(&chunk, out) }
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let reply = body.get("result").filter(|result| result.is_object()).unwrap_or(body);
        if reply.get("choices").is_some() {
            return self.openai.whole(reply, out);
        }
        if let Some(fault) = fault(body) {
            return Err(fault);
        }
        self.take(reply, out)?;
        self.end(out);
        Ok(())
    }

    fn ended(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        match (self.is_openai, self.is_done) {
            (true, _) => self.openai.ended(out),
            (false, true) => Ok(()),
            (false, false) => Err(ReplyFault::Truncated),
        }
    }
}
