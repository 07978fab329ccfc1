//! Replies, streamed or whole.

use serde_json::{Value, json};

use crate::protocol::chat::ids::{CallIndex, CallPiece};
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, Lineage, ReplyFault};
use crate::protocol::frames::{EventReader, RawEvent, parse_json};
use crate::protocol::usage::Usage;

/// The arguments of a call of a function that takes none.
const NO_ARGUMENTS: &str = "null";

/// Reads a reply.
#[derive(Debug, Default)]
pub(super) struct Reader {
    calls: CallIndex,
    /// Arguments that may still turn out to be none.
    held: (Option<u32>, String),
    is_done: bool,
}

impl EventReader for Reader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if event.data.trim_ascii() == b"[DONE]" {
            return Ok(());
        }
        let event = parse_json(&event.data)?;
        let kind = event.get("type").and_then(Value::as_str);
        let message = event.pointer("/delta/message").unwrap_or(&Value::Null);
        let index = event.get("index").and_then(Value::as_u64).and_then(|index| u32::try_from(index).ok());
        match kind.unwrap_or_default() {
            "message-start" => start(&event, out),
            "content-start" | "content-delta" => self.content(message, &event, out),
            "tool-plan-delta" => plan(message, out),
            "tool-call-start" | "tool-call-delta" => {
                if kind == Some("tool-call-start") {
                    self.release(out);
                }
                let call = message.get("tool_calls").unwrap_or(&Value::Null);
                self.call(call.get(0).unwrap_or(call), index, out);
            }
            "tool-call-end" => self.release(out),
            "citation-start" => cite(message.get("citations").unwrap_or(&Value::Null), out),
            "message-end" if !self.is_done => {
                let delta = event.get("delta").unwrap_or(&Value::Null);
                self.end(delta, out)?;
            }
            "error" => return Err(ReplyFault::reported(event.get("error").unwrap_or(&event))),
            // An error is told without a type.
            "" if event.get("message").is_some_and(Value::is_string) => return Err(ReplyFault::reported(&event)),
            _ => {}
        }
        Ok(())
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let message = match body.get("message") {
            Some(message @ Value::Object(_)) => message,
            Some(Value::String(_)) => return Err(ReplyFault::reported(body)),
            _ => return Err(ReplyFault::Malformed("there is no message".to_owned())),
        };
        start(body, out);
        plan(message, out);
        let parts = message.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for part in parts {
            self.content(&json!({"content": part}), &Value::Null, out);
        }
        if let Some(logprobs) = body.get("logprobs").and_then(Value::as_array).filter(|list| !list.is_empty()) {
            let logprobs = Some(json!({"content": logprobs.iter().map(logprob).collect::<Vec<_>>()}));
            out.push(ChatEvent::Text { choice: 0, text: String::new(), logprobs });
        }
        cite(message.get("citations").unwrap_or(&Value::Null), out);
        for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            self.release(out);
            self.call(call, None, out);
        }
        self.end(body, out)
    }

    fn ended(&mut self, _: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if self.is_done { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

impl Reader {
    /// A piece of the answer or of the thoughts.
    fn content(&mut self, message: &Value, event: &Value, out: &mut Vec<ChatEvent>) {
        let said = |name: &str| {
            let text = message.get("content")?.get(name)?.as_str()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        out.extend(said("thinking").map(|text| ChatEvent::Reasoning { choice: 0, text }));
        let logprobs = event.get("logprobs").filter(|told| told.is_object());
        let logprobs = logprobs.map(|told| json!({"content": [logprob(told)]}));
        out.extend(said("text").map(|text| ChatEvent::Text { choice: 0, text, logprobs }));
    }

    /// A piece of a call. Arguments that may be none are kept until it is known.
    fn call(&mut self, call: &Value, index: Option<u32>, out: &mut Vec<ChatEvent>) {
        let text = |pointer: &str| call.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let id = text("/id");
        // In a whole reply it is the id that tells calls apart.
        let mut piece = CallPiece { index, id, name: text("/function/name"), ..CallPiece::default() };
        let mut arguments = std::mem::take(&mut self.held.1);
        arguments.push_str(&text("/function/arguments").unwrap_or_default());
        if NO_ARGUMENTS.starts_with(arguments.as_str()) {
            self.held = (index, arguments);
        } else {
            piece.arguments = arguments;
        }
        self.calls.take(0, piece, out);
    }

    /// The call is over: what was kept of it belongs to it, unless it was nothing.
    fn release(&mut self, out: &mut Vec<ChatEvent>) {
        let (index, arguments) = std::mem::take(&mut self.held);
        if !arguments.is_empty() && arguments != NO_ARGUMENTS {
            self.calls.take(0, CallPiece { index, arguments, ..CallPiece::default() }, out);
        }
    }

    fn end(&mut self, told: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        self.release(out);
        let usage = told.get("usage").and_then(Usage::from_cohere);
        out.extend(usage.map(ChatEvent::Usage));
        let word = told.get("finish_reason").and_then(Value::as_str).unwrap_or_default();
        let reason = match word {
            "COMPLETE" | "STOP_SEQUENCE" => FinishReason::Stop,
            "MAX_TOKENS" => FinishReason::Length,
            "TOOL_CALL" => FinishReason::ToolCalls,
            "TIMEOUT" => return Err(failed(told, word, "timeout_error")),
            "ERROR_TOXIC" => return Err(failed(told, word, "content_filter")),
            "ERROR_LIMIT" => FinishReason::ContextFull,
            _ if word.starts_with("ERROR") => return Err(failed(told, word, "error")),
            "" => return Err(ReplyFault::Truncated),
            _ => FinishReason::Stop,
        };
        self.calls.complete(0, out);
        let reason =
            if reason == FinishReason::Stop && !self.calls.is_empty() { FinishReason::ToolCalls } else { reason };
        out.push(ChatEvent::Finish { choice: 0, reason });
        self.is_done = true;
        Ok(())
    }
}

/// A reply that ended with a word for failure.
fn failed(told: &Value, word: &str, code: &str) -> ReplyFault {
    let said = told.get("error").and_then(Value::as_str).map(|said| format!(": {said}")).unwrap_or_default();
    let message = format!("the provider broke its reply off with the finish reason `{word}`{said}");
    ReplyFault::Reported { message, code: Some(code.to_owned()) }
}

fn start(told: &Value, out: &mut Vec<ChatEvent>) {
    let id = told.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    out.push(ChatEvent::Start { id, model: String::new(), created: None });
}

/// What it says before it calls tools.
fn plan(message: &Value, out: &mut Vec<ChatEvent>) {
    if let Some(plan) = message.get("tool_plan").and_then(Value::as_str).filter(|plan| !plan.is_empty()) {
        out.push(ChatEvent::Reasoning { choice: 0, text: plan.to_owned() });
    }
}

/// The probability of a piece of text, in OpenAI's form: that of several tokens is one number for all of them.
fn logprob(told: &Value) -> Value {
    let token = told.get("text").and_then(Value::as_str).unwrap_or_default();
    let each = told.get("logprobs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let logprob: f64 = each.iter().filter_map(Value::as_f64).sum();
    json!({"token": token, "logprob": logprob, "bytes": token.as_bytes(), "top_logprobs": []})
}

/// A document that is cited as a whole, in Anthropic's form. Its number stands at the end of the id that it was given.
fn whole_document(id: Option<String>, title: &Option<String>, cited_text: &Option<String>) -> Value {
    let id = id.unwrap_or_default();
    let number = id.rsplit([':', '_', '-']).next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    json!({
        "type": "search_result_location",
        "cited_text": cited_text.as_deref().unwrap_or_default(),
        "source": id,
        "title": title,
        "search_result_index": number,
        "start_block_index": 0,
        "end_block_index": 1,
    })
}

/// The sources of a passage of the answer, one event each.
fn cite(citations: &Value, out: &mut Vec<ChatEvent>) {
    let one = citations.is_object().then_some(citations);
    for citation in one.into_iter().chain(citations.as_array().into_iter().flatten()) {
        let (start, end) = (citation.get("start").and_then(Value::as_u64), citation.get("end").and_then(Value::as_u64));
        let sources = citation.get("sources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for source in sources {
            let about = source.get("document").or_else(|| source.get("tool_output")).unwrap_or(&Value::Null);
            let text = |names: &[&str]| {
                let mut found = names.iter().filter_map(|name| about.get(name)?.as_str());
                found.find(|text| !text.is_empty()).map(str::to_owned)
            };
            let id = source.get("id").and_then(Value::as_str).map(str::to_owned);
            let (url, title) = (text(&["url"]), text(&["title"]).or_else(|| id.clone()));
            let cited_text = text(&["snippet", "text"]);
            let native = url.is_none().then(|| (Lineage::Anthropic, whole_document(id, &title, &cited_text)));
            let citation = Citation { url, title, cited_text, start, end, native };
            out.push(ChatEvent::Citation { choice: 0, citation });
        }
    }
}
