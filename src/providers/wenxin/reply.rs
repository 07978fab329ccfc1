//! Replies: the same members streamed and whole.

use serde_json::Value;

use super::error;
use crate::protocol::chat::ids::{CallIndex, CallPiece};
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, ReplyFault};
use crate::protocol::frames::{EventReader, RawEvent, parse_json};
use crate::protocol::usage::Usage;

/// Reads a reply.
#[derive(Debug)]
pub(super) struct Reader {
    model: String,
    id: Option<String>,
    calls: CallIndex,
    cited: Vec<Citation>,
    is_done: bool,
}

impl Reader {
    /// A reader of what this model says.
    pub(super) fn new(model: &str) -> Self {
        Self { model: model.to_owned(), id: None, calls: CallIndex::default(), cited: Vec::new(), is_done: false }
    }
}

impl EventReader for Reader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let chunk = parse_json(&event.data)?;
        if let Some(fault) = error::fault(&chunk) {
            return Err(fault);
        }
        if self.is_done {
            return Ok(());
        }
        self.chunk(&chunk, out)?;
        if chunk.get("is_end").and_then(Value::as_bool) == Some(true) {
            self.end(&chunk, out)?;
        }
        Ok(())
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if let Some(fault) = error::fault(body) {
            return Err(fault);
        }
        self.chunk(body, out)?;
        self.end(body, out)
    }

    fn ended(&mut self, _: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if self.is_done { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

impl Reader {
    fn chunk(&mut self, chunk: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let call = chunk.get("function_call").filter(|call| call.is_object());
        if chunk.get("result").is_none() && call.is_none() {
            return Err(ReplyFault::Malformed("there is neither a result nor a call".to_owned()));
        }
        if self.id.is_none() {
            let (id, created) = (text(chunk, "id"), chunk.get("created").and_then(Value::as_u64));
            out.push(ChatEvent::Start { id: id.clone(), model: self.model.clone(), created });
            self.id = Some(id);
        }
        let said = text(chunk, "result");
        if !said.is_empty() {
            out.push(ChatEvent::Text { choice: 0, text: said, logprobs: None });
        }
        if let Some(call) = call {
            let thoughts = text(call, "thoughts");
            if !thoughts.is_empty() {
                out.push(ChatEvent::Reasoning { choice: 0, text: thoughts });
            }
            // Calls have no ids.
            let id = format!("call_{}", self.id.as_deref().unwrap_or_default());
            let id = self.calls.is_empty().then_some(id);
            let (name, arguments) = (Some(text(call, "name")), text(call, "arguments"));
            self.calls.take(0, CallPiece { id, name, arguments, ..CallPiece::default() }, out);
        }
        let found = chunk.pointer("/search_info/search_results").and_then(Value::as_array);
        for source in found.into_iter().flatten() {
            let some = |name: &str| Some(text(source, name)).filter(|text| !text.is_empty());
            let citation = Citation { url: some("url"), title: some("title"), ..Citation::default() };
            if !self.cited.contains(&citation) {
                self.cited.push(citation.clone());
                out.push(ChatEvent::Citation { choice: 0, citation });
            }
        }
        out.extend(chunk.get("usage").and_then(Usage::from_openai).map(ChatEvent::Usage));
        Ok(())
    }

    fn end(&mut self, last: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let is = |name: &str| last.get(name).and_then(Value::as_bool) == Some(true);
        let word = last.get("finish_reason").and_then(Value::as_str).unwrap_or_default();
        if FinishReason::is_failure(word) {
            return Err(ReplyFault::failed_finish(word));
        }
        let reason = match word {
            // What was said shall be forgotten: it is not to be shown, nor is anything that follows from it.
            _ if is("need_clear_history") => FinishReason::FILTERED,
            _ if is("is_truncated") => FinishReason::Length,
            _ => match FinishReason::from_openai(word) {
                FinishReason::Stop if !self.calls.is_empty() => FinishReason::ToolCalls,
                reason => reason,
            },
        };
        self.calls.complete(0, out);
        out.push(ChatEvent::Finish { choice: 0, reason });
        self.is_done = true;
        Ok(())
    }
}
