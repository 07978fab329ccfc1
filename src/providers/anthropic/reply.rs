//! A Messages reply, whole or streamed, as chat events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::ANSWER_TOOL;
use crate::config::StructuredOutput;
use crate::protocol::old_chat::{ChatEvent, FinishReason, ReplyDecoder, ReplyFault};
use crate::protocol::openai_chat::{MAX_EVENT_BYTES, reported};
use crate::protocol::sse::SseDecoder;
use crate::protocol::usage::{BillingFacts, Told};
use crate::providers::Target;

/// Decodes a whole reply: the events that a stream of it would have had.
pub(super) fn decode_body(body: &[u8], target: Target<'_>) -> Result<Vec<ChatEvent>, ReplyFault> {
    let body: Value = serde_json::from_slice(body).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
    if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
        return Err(reported(error));
    }
    let Some(content) = body.get("content").and_then(Value::as_array) else {
        return Err(ReplyFault::Malformed("it has no `content`".to_owned()));
    };
    let mut state = ReplyState::new(target);
    let mut events = Vec::new();
    state.start(&body, &mut events);
    for (index, block) in content.iter().enumerate() {
        let index = index as u64;
        state.block_start(index, block, &mut events);
        state.block_stop(index, &mut events);
    }
    state.message_delta(&body, &body, &mut events);
    Ok(events)
}

/// Decodes a stream.
pub(super) struct Decoder {
    sse: SseDecoder,
    state: ReplyState,
}

impl Decoder {
    pub(super) fn new(target: Target<'_>) -> Self {
        Self { sse: SseDecoder::new(MAX_EVENT_BYTES), state: ReplyState::new(target) }
    }
}

impl ReplyDecoder for Decoder {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        self.sse.push(bytes).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        while let Some(frame) = self.sse.next_frame() {
            if let Some(data) = frame.data {
                self.state.take_data(&data, out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if let Some((_, Some(data))) = self.sse.unfinished()
            && serde_json::from_slice::<Value>(&data).is_ok()
        {
            self.state.take_data(&data, out)?;
        }
        if self.state.stopped { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

/// What a content block becomes.
enum Block {
    Text,
    Thinking {
        text: String,
        signature: String,
    },
    /// A block that is handed back unread, such as redacted thinking.
    Opaque(Value),
    Tool {
        index: u32,
        initial: Value,
        has_arguments: bool,
    },
    /// The answer carried by [`ANSWER_TOOL`].
    Answer {
        initial: Value,
        has_arguments: bool,
    },
    /// What the provider did on its own side (searches, code it ran): no part of the answer's text.
    Ignored,
}

struct ReplyState {
    told: Told,
    blocks: BTreeMap<u64, Block>,
    started: bool,
    calls: u32,
    answer_tool: bool,
    answered: bool,
    stopped: bool,
}

impl ReplyState {
    fn new(target: Target<'_>) -> Self {
        Self {
            told: Told::default(),
            blocks: BTreeMap::new(),
            started: false,
            calls: 0,
            answer_tool: target.structured_output == StructuredOutput::Tool,
            answered: false,
            stopped: false,
        }
    }

    fn take_data(&mut self, data: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        // Some providers of this dialect send OpenAI's `[DONE]` after the end.
        if self.stopped || data.is_empty() {
            return Ok(());
        }
        let event: Value = serde_json::from_slice(data).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        let index = || event.get("index").and_then(Value::as_u64).unwrap_or(0);
        let part = |name: &str| event.get(name).unwrap_or(&Value::Null);
        match event.get("type").and_then(Value::as_str).unwrap_or_default() {
            "message_start" => self.start(part("message"), out),
            "content_block_start" => self.block_start(index(), part("content_block"), out),
            "content_block_delta" => self.block_delta(index(), part("delta"), out),
            "content_block_stop" => self.block_stop(index(), out),
            "message_delta" => self.message_delta(part("delta"), &event, out),
            "message_stop" => self.stop(out),
            "error" => return Err(reported(part("error"))),
            "" if event.get("error").is_some() => return Err(reported(part("error"))),
            // The API says that new event types may come and must be passed over.
            _ => {}
        }
        Ok(())
    }

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
    }

    fn block_start(&mut self, index: u64, block: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let state = match block.get("type").and_then(Value::as_str).unwrap_or_default() {
            "text" => {
                push_text(text("text"), out);
                Block::Text
            }
            "thinking" => {
                push_reasoning(&text("thinking"), out);
                Block::Thinking { text: text("thinking"), signature: text("signature") }
            }
            "redacted_thinking" => Block::Opaque(block.clone()),
            "tool_use" => {
                let initial = block.get("input").cloned().unwrap_or_else(|| json!({}));
                if self.answer_tool && text("name") == ANSWER_TOOL {
                    self.answered = true;
                    Block::Answer { initial, has_arguments: false }
                } else {
                    let index = self.calls;
                    self.calls = self.calls.saturating_add(1);
                    out.push(ChatEvent::ToolCallStart { choice: 0, index, id: text("id"), name: text("name") });
                    Block::Tool { index, initial, has_arguments: false }
                }
            }
            _ => Block::Ignored,
        };
        self.blocks.insert(index, state);
    }

    fn block_delta(&mut self, index: u64, delta: &Value, out: &mut Vec<ChatEvent>) {
        let text = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        match (self.blocks.get_mut(&index), delta.get("type").and_then(Value::as_str).unwrap_or_default()) {
            (Some(Block::Text), "text_delta") => push_text(text("text"), out),
            (Some(Block::Thinking { text: all, .. }), "thinking_delta") => {
                all.push_str(&text("thinking"));
                push_reasoning(&text("thinking"), out);
            }
            (Some(Block::Thinking { signature, .. }), "signature_delta") => signature.push_str(&text("signature")),
            (Some(Block::Tool { index, has_arguments, .. }), "input_json_delta") => {
                let fragment = text("partial_json");
                if !fragment.is_empty() {
                    *has_arguments = true;
                    out.push(ChatEvent::ToolCallArguments { choice: 0, index: *index, fragment });
                }
            }
            (Some(Block::Answer { has_arguments, .. }), "input_json_delta") => {
                let fragment = text("partial_json");
                *has_arguments |= !fragment.is_empty();
                push_text(fragment, out);
            }
            _ => {}
        }
    }

    fn block_stop(&mut self, index: u64, out: &mut Vec<ChatEvent>) {
        match self.blocks.remove(&index) {
            // A call without arguments still has arguments in OpenAI's terms: an empty object.
            Some(Block::Tool { index, initial, has_arguments: false }) => {
                out.push(ChatEvent::ToolCallArguments { choice: 0, index, fragment: initial.to_string() });
            }
            Some(Block::Answer { initial, has_arguments: false }) => push_text(initial.to_string(), out),
            Some(Block::Thinking { text, signature }) if !signature.is_empty() => {
                let block = json!({"type": "thinking", "thinking": text, "signature": signature});
                out.push(ChatEvent::ThinkingBlock { choice: 0, block });
            }
            Some(Block::Opaque(block)) => out.push(ChatEvent::ThinkingBlock { choice: 0, block }),
            _ => {}
        }
    }

    /// `delta` has the stop reason, `event` the usage.
    fn message_delta(&mut self, delta: &Value, event: &Value, out: &mut Vec<ChatEvent>) {
        self.merge_usage(event, out);
        let reason = match delta.get("stop_reason").and_then(Value::as_str) {
            None => return,
            Some("tool_use") if self.answered && self.calls == 0 => FinishReason::Stop,
            Some("tool_use") => FinishReason::ToolCalls,
            Some("max_tokens" | "model_context_window_exceeded") => FinishReason::Length,
            Some("refusal") => FinishReason::ContentFilter,
            Some(_) => FinishReason::Stop,
        };
        out.push(ChatEvent::Finish { choice: 0, reason });
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

fn push_text(text: String, out: &mut Vec<ChatEvent>) {
    if !text.is_empty() {
        out.push(ChatEvent::Text { choice: 0, text, logprobs: None });
    }
}

fn push_reasoning(text: &str, out: &mut Vec<ChatEvent>) {
    if !text.is_empty() {
        out.push(ChatEvent::Reasoning { choice: 0, text: text.to_owned() });
    }
}
