//! A Messages reply, whole or streamed, as chat events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::protocol::chat::{ChatEvent, Citation, FinishReason, Lineage, ReasoningPart, ReplyFault, Signature};
use crate::protocol::frames::{EventReader, RawEvent, parse_json};
use crate::protocol::usage::{BillingFacts, Told};

/// What a content block becomes.
enum Block {
    /// Its sources are told before the text that they belong to, and wait for its end.
    Text {
        /// The answer's character with which it begins.
        start: u64,
        citations: Vec<Value>,
    },
    Thinking {
        text: String,
        signature: String,
    },
    /// Thinking that is handed back unread.
    Redacted(String),
    Tool {
        index: u32,
        initial: Value,
        has_arguments: bool,
    },
    /// What the provider did on its own side (searches, code it ran): no part of the answer's text.
    Ignored,
}

/// Reads a reply into events.
#[derive(Default)]
pub(super) struct Reader {
    told: Told,
    blocks: BTreeMap<u64, Block>,
    started: bool,
    calls: u32,
    /// Characters of the answer so far.
    said: u64,
    stopped: bool,
    /// Whether it has said why.
    explained: bool,
}

impl EventReader for Reader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        // Some providers of this dialect send OpenAI's `[DONE]` after the end.
        if self.stopped || event.data.is_empty() {
            return Ok(());
        }
        let event = parse_json(&event.data)?;
        let index = || event.get("index").and_then(Value::as_u64).unwrap_or(0);
        let part = |name: &str| event.get(name).unwrap_or(&Value::Null);
        match event.get("type").and_then(Value::as_str).unwrap_or_default() {
            "message_start" => self.start(part("message"), out),
            "content_block_start" => self.block_start(index(), part("content_block"), out),
            "content_block_delta" => self.block_delta(index(), part("delta"), out),
            "content_block_stop" => self.block_stop(index(), out),
            "message_delta" => self.message_delta(part("delta"), &event, out),
            "message_stop" => self.stop(out),
            "error" => return Err(ReplyFault::reported(part("error"))),
            "" if event.get("error").is_some() => return Err(ReplyFault::reported(part("error"))),
            // The API says that new event types may come and must be passed over.
            _ => {}
        }
        Ok(())
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
            return Err(ReplyFault::reported(error));
        }
        let Some(content) = body.get("content").and_then(Value::as_array) else {
            return Err(ReplyFault::Malformed("it has no `content`".to_owned()));
        };
        self.start(body, out);
        for (index, block) in content.iter().enumerate() {
            let index = index as u64;
            self.block_start(index, block, out);
            self.block_stop(index, out);
        }
        self.message_delta(body, body, out);
        self.stop(out);
        Ok(())
    }

    fn ended(&mut self, _: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if self.stopped { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

impl Reader {
    fn start(&mut self, message: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        // Some proxies say it twice.
        if !std::mem::replace(&mut self.started, true) {
            out.push(ChatEvent::Start { id: text("id"), model: text("model"), created: None });
        }
        self.merge_usage(message, out);
    }

    fn stop(&mut self, out: &mut Vec<ChatEvent>) {
        self.stopped = true;
        // Blocks that were never closed.
        while let Some(index) = self.blocks.keys().next().copied() {
            self.block_stop(index, out);
        }
        // It is complete; why it has ended it need not have said.
        if !self.explained {
            let reason = if self.calls > 0 { FinishReason::ToolCalls } else { FinishReason::Stop };
            out.push(ChatEvent::Finish { choice: 0, reason });
        }
    }

    fn block_start(&mut self, index: u64, block: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let state = match block.get("type").and_then(Value::as_str).unwrap_or_default() {
            "text" => {
                let start = self.said;
                self.say(text("text"), out);
                let citations = block.get("citations").and_then(Value::as_array).cloned().unwrap_or_default();
                Block::Text { start, citations }
            }
            "thinking" => {
                push_reasoning(&text("thinking"), out);
                Block::Thinking { text: text("thinking"), signature: text("signature") }
            }
            "redacted_thinking" => Block::Redacted(text("data")),
            "tool_use" => {
                let initial = block.get("input").cloned().unwrap_or_else(|| json!({}));
                let index = self.calls;
                self.calls = self.calls.saturating_add(1);
                out.push(ChatEvent::CallStart { choice: 0, index, id: text("id"), name: text("name"), custom: false });
                Block::Tool { index, initial, has_arguments: false }
            }
            _ => Block::Ignored,
        };
        self.blocks.insert(index, state);
    }

    fn block_delta(&mut self, index: u64, delta: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        match (self.blocks.get_mut(&index), delta.get("type").and_then(Value::as_str).unwrap_or_default()) {
            (Some(Block::Text { .. }), "text_delta") => self.say(text("text"), out),
            (Some(Block::Text { citations, .. }), "citations_delta") => {
                citations.extend(delta.get("citation").cloned());
            }
            (Some(Block::Thinking { text: all, .. }), "thinking_delta") => {
                all.push_str(&text("thinking"));
                push_reasoning(&text("thinking"), out);
            }
            (Some(Block::Thinking { signature, .. }), "signature_delta") => signature.push_str(&text("signature")),
            (Some(Block::Tool { index, has_arguments, .. }), "input_json_delta") => {
                let fragment = text("partial_json");
                if !fragment.is_empty() {
                    *has_arguments = true;
                    out.push(ChatEvent::CallArguments { choice: 0, index: *index, fragment });
                }
            }
            _ => {}
        }
    }

    fn block_stop(&mut self, index: u64, out: &mut Vec<ChatEvent>) {
        match self.blocks.remove(&index) {
            Some(Block::Text { start, citations }) => {
                for citation in &citations {
                    self.cite(start, citation, out);
                }
            }
            // A call without arguments still has arguments in OpenAI's terms: an empty object.
            Some(Block::Tool { index, initial, has_arguments: false }) => {
                out.push(ChatEvent::CallArguments { choice: 0, index, fragment: initial.to_string() });
            }
            Some(Block::Thinking { text, signature }) => {
                let signature =
                    (!signature.is_empty()).then_some(Signature { family: Lineage::Anthropic, value: signature });
                let part = ReasoningPart { text, signature, ..ReasoningPart::default() };
                out.push(ChatEvent::ReasoningDone { choice: 0, part });
            }
            Some(Block::Redacted(data)) => {
                let part = ReasoningPart { redacted: Some(data), ..ReasoningPart::default() };
                out.push(ChatEvent::ReasoningDone { choice: 0, part });
            }
            _ => {}
        }
    }

    /// `delta` has the stop reason, `event` the usage.
    fn message_delta(&mut self, delta: &Value, event: &Value, out: &mut Vec<ChatEvent>) {
        self.merge_usage(event, out);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let reason = match delta.get("stop_reason").and_then(Value::as_str) {
            None => return,
            Some("tool_use") => FinishReason::ToolCalls,
            Some("stop_sequence") => match text(delta.get("stop_sequence")) {
                Some(sequence) => FinishReason::StopSequence(sequence),
                None => FinishReason::Stop,
            },
            Some("max_tokens") => FinishReason::Length,
            Some("model_context_window_exceeded") => FinishReason::ContextFull,
            Some("refusal") => FinishReason::Refusal,
            Some("pause_turn") => FinishReason::Pause,
            Some(_) => FinishReason::Stop,
        };
        self.explained = true;
        out.push(ChatEvent::Finish { choice: 0, reason });
    }

    fn say(&mut self, text: String, out: &mut Vec<ChatEvent>) {
        if !text.is_empty() {
            self.said = self.said.saturating_add(text.chars().count() as u64);
            out.push(ChatEvent::Text { choice: 0, text, logprobs: None });
        }
    }

    /// A source of the text that began with this character.
    fn cite(&self, start: u64, told: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| told.get(name).and_then(Value::as_str).map(str::to_owned);
        if !told.is_object() {
            return;
        }
        let citation = Citation {
            url: text("url"),
            title: text("title").or_else(|| text("document_title")),
            cited_text: text("cited_text"),
            start: Some(start),
            end: Some(self.said),
            native: Some((Lineage::Anthropic, told.clone())),
        };
        out.push(ChatEvent::Citation { choice: 0, citation });
    }

    fn merge_usage(&mut self, holder: &Value, out: &mut Vec<ChatEvent>) {
        if let Some(usage) = holder.get("usage") {
            self.told.merge_anthropic(usage);
            if self.told.facts != BillingFacts::default() {
                out.push(ChatEvent::Billed(self.told.facts));
            }
            out.push(ChatEvent::Usage(self.told.usage));
        }
    }
}

fn push_reasoning(text: &str, out: &mut Vec<ChatEvent>) {
    if !text.is_empty() {
        out.push(ChatEvent::Reasoning { choice: 0, text: text.to_owned() });
    }
}
