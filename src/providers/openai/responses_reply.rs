//! Reads replies of the Responses API, streamed or whole.
//!
//! A stream tells most things twice: piece by piece, and whole when a part, an item or the response is done. The pieces
//! are passed on as they come; of what comes whole, only that of which no piece came, as some providers leave pieces out.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::protocol::chat::ids::{CallIndex, CallPiece};
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, Lineage, ReasoningPart, ReplyFault, Signature};
use crate::protocol::frames::{EventReader, RawEvent, parse_json};
use crate::protocol::usage::{BillingFacts, Usage};

/// Reads one reply.
#[derive(Default)]
pub struct Reader {
    started: bool,
    /// Whether the response's end was seen.
    ended: bool,
    calls: CallIndex,
    /// The parts of which something came, by item, kind and number.
    told: BTreeSet<(u32, Kind, u64)>,
    /// How many sources of a part came.
    annotations: BTreeMap<(u32, u64), usize>,
    /// The reasoning that came, by item.
    reasoning: BTreeMap<u32, String>,
    /// The items that are done.
    done: BTreeSet<u32>,
}

/// A kind of part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Text,
    Refusal,
    Summary,
    Reasoning,
    Arguments,
}

impl Reader {
    fn start(&mut self, response: &Value, out: &mut Vec<ChatEvent>) {
        if !std::mem::replace(&mut self.started, true) {
            let text = |name: &str| word(response, name).unwrap_or_default().to_owned();
            let created = response.get("created_at").and_then(Value::as_f64).map(|seconds| seconds as u64);
            out.push(ChatEvent::Start { id: text("id"), model: text("model"), created });
        }
    }

    /// A piece of a part.
    fn piece(&mut self, at: u32, kind: Kind, nth: u64, text: &str, logprobs: Option<&Value>, out: &mut Vec<ChatEvent>) {
        if text.is_empty() {
            return;
        }
        let is_new = self.told.insert((at, kind, nth));
        let text = text.to_owned();
        match kind {
            Kind::Text => {
                let logprobs = logprobs.filter(|list| list.as_array().is_some_and(|list| !list.is_empty()));
                let logprobs = logprobs.map(|list| json!({"content": list}));
                out.push(ChatEvent::Text { choice: 0, text, logprobs });
            }
            Kind::Refusal => out.push(ChatEvent::Refusal { choice: 0, text }),
            Kind::Summary | Kind::Reasoning => {
                let all = self.reasoning.entry(at).or_default();
                let text = if is_new && !all.is_empty() { format!("\n\n{text}") } else { text };
                all.push_str(&text);
                out.push(ChatEvent::Reasoning { choice: 0, text });
            }
            Kind::Arguments => {
                let piece = CallPiece { index: Some(at), arguments: text, ..CallPiece::default() };
                self.calls.take(0, piece, out);
            }
        }
    }

    /// A part as a whole.
    fn part(
        &mut self,
        at: u32,
        kind: Kind,
        nth: u64,
        text: Option<&str>,
        logprobs: Option<&Value>,
        out: &mut Vec<ChatEvent>,
    ) {
        if let Some(text) = text
            && !self.told.contains(&(at, kind, nth))
        {
            self.piece(at, kind, nth, text, logprobs, out);
        }
    }

    /// A call begins, if it has not.
    fn call(&mut self, at: u32, item: &Value, out: &mut Vec<ChatEvent>) {
        let piece = CallPiece {
            index: Some(at),
            id: word(item, "call_id").or_else(|| word(item, "id")).map(str::to_owned),
            name: word(item, "name").map(str::to_owned),
            custom: word(item, "type") == Some("custom_tool_call"),
            ..CallPiece::default()
        };
        self.calls.take(0, piece, out);
    }

    /// An item is done.
    fn item(&mut self, at: u32, item: &Value, out: &mut Vec<ChatEvent>) {
        if !self.done.insert(at) {
            return;
        }
        match word(item, "type") {
            Some("message") => {
                for (nth, part) in parts(item, "content") {
                    self.part(at, Kind::Text, nth, word(part, "text"), part.get("logprobs"), out);
                    self.part(at, Kind::Refusal, nth, word(part, "refusal"), None, out);
                    let so_far = self.annotations.get(&(at, nth)).copied().unwrap_or(0);
                    for (_, annotation) in parts(part, "annotations").skip(so_far) {
                        self.annotation(at, nth, annotation, out);
                    }
                }
            }
            Some("reasoning") => {
                for (name, kind) in [("summary", Kind::Summary), ("content", Kind::Reasoning)] {
                    for (nth, part) in parts(item, name) {
                        self.part(at, kind, nth, word(part, "text"), None, out);
                    }
                }
                let text = self.reasoning.remove(&at).unwrap_or_default();
                let proof = word(item, "encrypted_content").filter(|proof| !proof.is_empty());
                if !text.is_empty() || proof.is_some() {
                    let part = ReasoningPart {
                        text,
                        signature: proof.map(|proof| Signature { family: Lineage::OpenAi, value: proof.to_owned() }),
                        redacted: None,
                        summary: parts(item, "content").next().is_none(),
                        id: word(item, "id").map(str::to_owned),
                    };
                    out.push(ChatEvent::ReasoningDone { choice: 0, part });
                }
            }
            Some("function_call" | "custom_tool_call") => {
                self.call(at, item, out);
                let arguments = word(item, "arguments").or_else(|| word(item, "input"));
                self.part(at, Kind::Arguments, 0, arguments, None, out);
            }
            Some("image_generation_call") if word(item, "result").is_some_and(|image| !image.is_empty()) => {
                let format = word(item, "output_format").unwrap_or("png");
                out.push(ChatEvent::Picture {
                    choice: 0,
                    media_type: format!("image/{format}"),
                    data: word(item, "result").unwrap_or_default().to_owned(),
                });
            }
            Some(_) => out.push(ChatEvent::Hosted { choice: 0, family: Lineage::OpenAi, value: item.clone() }),
            None => {}
        }
    }

    fn annotation(&mut self, at: u32, nth: u64, annotation: &Value, out: &mut Vec<ChatEvent>) {
        let count = self.annotations.entry((at, nth)).or_default();
        *count = count.saturating_add(1);
        let text = |name: &str| word(annotation, name).map(str::to_owned);
        let number = |name: &str| annotation.get(name).and_then(Value::as_u64);
        let citation = Citation {
            url: text("url"),
            title: text("title").or_else(|| text("filename")),
            cited_text: None,
            start: number("start_index"),
            end: number("end_index"),
            native: Some((Lineage::OpenAi, annotation.clone())),
        };
        out.push(ChatEvent::Citation { choice: 0, citation });
    }

    /// The response has come to its end, good or bad.
    fn response(&mut self, response: &Value, status: &str, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let reason = match status {
            "completed" | "complete" => None,
            "incomplete" => match response.pointer("/incomplete_details/reason").and_then(Value::as_str) {
                Some("content_filter") => Some(FinishReason::FILTERED),
                _ => Some(FinishReason::Length),
            },
            "failed" | "cancelled" => return Err(reported(response, status)),
            other => return Err(ReplyFault::Malformed(format!("the response is `{other}`"))),
        };
        self.start(response, out);
        for (at, item) in parts(response, "output") {
            self.item(u32::try_from(at).unwrap_or(u32::MAX), item, out);
        }
        self.calls.complete(0, out);
        let done = if self.calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
        out.push(ChatEvent::Finish { choice: 0, reason: reason.unwrap_or(done) });
        out.extend(Usage::from_responses_reply(response).map(ChatEvent::Usage));
        out.push(ChatEvent::Billed(BillingFacts::from_openai(response)));
        self.ended = true;
        Ok(())
    }
}

impl EventReader for Reader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if event.data.as_ref() == b"[DONE]" || self.ended {
            return Ok(());
        }
        let value = parse_json(&event.data)?;
        let Some(kind) = word(&value, "type").or_else(|| std::str::from_utf8(event.name).ok()) else { return Ok(()) };
        let kind = match kind.strip_prefix("response.") {
            Some(kind) => kind,
            None if kind == "error" || value.get("error").is_some_and(|error| !error.is_null()) => {
                return Err(reported(&value, "error"));
            }
            None => return Ok(()),
        };
        let number = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        let at = u32::try_from(number("output_index")).unwrap_or(u32::MAX);
        let (content, summary) = (number("content_index"), number("summary_index"));
        let (delta, logprobs) = (word(&value, "delta").unwrap_or_default(), value.get("logprobs"));
        let (item, response) =
            (value.get("item").unwrap_or(&Value::Null), value.get("response").unwrap_or(&Value::Null));
        match kind {
            "created" | "in_progress" | "queued" => self.start(response, out),
            "output_text.delta" => self.piece(at, Kind::Text, content, delta, logprobs, out),
            "output_text.done" => self.part(at, Kind::Text, content, word(&value, "text"), logprobs, out),
            "refusal.delta" => self.piece(at, Kind::Refusal, content, delta, None, out),
            "refusal.done" => self.part(at, Kind::Refusal, content, word(&value, "refusal"), None, out),
            "reasoning_summary_text.delta" => self.piece(at, Kind::Summary, summary, delta, None, out),
            "reasoning_summary_text.done" => self.part(at, Kind::Summary, summary, word(&value, "text"), None, out),
            "reasoning_text.delta" => self.piece(at, Kind::Reasoning, content, delta, None, out),
            "reasoning_text.done" => self.part(at, Kind::Reasoning, content, word(&value, "text"), None, out),
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => {
                self.piece(at, Kind::Arguments, 0, delta, None, out);
            }
            "output_text.annotation.added" => {
                if let Some(annotation) = value.get("annotation") {
                    self.annotation(at, content, annotation, out);
                }
            }
            "output_item.added" if matches!(word(item, "type"), Some("function_call" | "custom_tool_call")) => {
                self.call(at, item, out);
            }
            "output_item.done" => self.item(at, item, out),
            "completed" | "incomplete" | "failed" | "cancelled" => return self.response(response, kind, out),
            _ => {}
        }
        Ok(())
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if body.get("error").is_some_and(|error| !error.is_null()) {
            return Err(reported(body, "error"));
        }
        if !body.get("output").is_some_and(Value::is_array) {
            return Err(ReplyFault::Malformed("it has no `output`".to_owned()));
        }
        self.response(body, word(body, "status").unwrap_or("completed"), out)
    }

    fn ended(&mut self, _: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if self.ended { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

/// The error that a response, or an event, tells; it may stand in `error` or by itself.
fn reported(value: &Value, otherwise: &str) -> ReplyFault {
    let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
    let code = word(error, "code").or_else(|| word(error, "type").filter(|kind| *kind != "error"));
    let message = word(error, "message").or_else(|| error.as_str());
    ReplyFault::Reported {
        message: message.map_or_else(|| format!("the provider's response is `{otherwise}`"), str::to_owned),
        code: code.map(str::to_owned),
    }
}

fn word<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str()
}

fn parts<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = (u64, &'v Value)> {
    (0..).zip(value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default())
}
