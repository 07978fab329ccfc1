//! A reply's events as content blocks, one after the other: the order in which both forms of a reply are written.
//!
//! Events may alternate between calls, and text may come among their arguments. The API has one open block at a time,
//! so that what belongs to a later one is held until those before it are complete.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::proof::{self, Of};
use crate::protocol::chat::ids::{fit, plain};
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, Lineage, ReasoningPart, Signature};

/// The longest id of a call.
const MAX_CALL_ID: usize = 64;

/// Where blocks are written.
pub(super) trait Sink {
    /// A block begins.
    fn open(&mut self, block: Value);
    /// More of it comes.
    fn more(&mut self, piece: Piece<'_>);
    /// It is complete.
    fn close(&mut self);
}

/// A piece of a block.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'a> {
    /// Of a text.
    Text(&'a str),
    /// A source of a text.
    Citation(&'a Value),
    /// Of thinking.
    Thinking(&'a str),
    /// Its proof.
    Signature(&'a str),
    /// Of the JSON text of a call's input.
    Input(&'a str),
}

/// A block of which some has not been written yet.
#[derive(Debug)]
enum Block {
    Text { text: String, citations: Vec<Value> },
    Thinking { text: String, signature: Option<String>, done: bool },
    Call { index: u32, id: String, name: String, input: String, extent: Extent },
    Whole(Value),
}

impl Block {
    fn beginning(&self) -> Value {
        match self {
            Self::Text { .. } => json!({"type": "text", "text": ""}),
            Self::Thinking { .. } => json!({"type": "thinking", "thinking": "", "signature": ""}),
            Self::Call { id, name, .. } => json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
            Self::Whole(block) => block.clone(),
        }
    }

    /// Whether it has anything to be opened for: a call waits for its arguments, as its proof goes before it.
    fn has_begun(&self) -> bool {
        !matches!(self, Self::Call { input, .. } if input.is_empty())
    }

    /// Whether nothing more of it is to come once another block has begun.
    fn is_complete(&self) -> bool {
        match self {
            Self::Call { extent, .. } => extent.is_whole(),
            Self::Text { .. } | Self::Thinking { .. } | Self::Whole(_) => true,
        }
    }

    /// Writes what is held.
    fn flush(&mut self, sink: &mut dyn Sink) {
        match self {
            Self::Text { text, citations } => {
                write_text(text, sink, |text| Piece::Text(text));
                for citation in citations.drain(..) {
                    sink.more(Piece::Citation(&citation));
                }
            }
            Self::Thinking { text, signature, .. } => {
                write_text(text, sink, |text| Piece::Thinking(text));
                if let Some(signature) = signature.take() {
                    sink.more(Piece::Signature(&signature));
                }
            }
            Self::Call { input, .. } => write_text(input, sink, |input| Piece::Input(input)),
            Self::Whole(_) => {}
        }
    }
}

fn write_text(held: &mut String, sink: &mut dyn Sink, piece: for<'a> fn(&'a str) -> Piece<'a>) {
    if !held.is_empty() {
        sink.more(piece(held));
        held.clear();
    }
}

/// How far a JSON object has come.
#[derive(Debug, Default)]
struct Extent {
    depth: u32,
    in_string: bool,
    escaped: bool,
    whole: bool,
}

impl Extent {
    fn feed(&mut self, json: &str) {
        for byte in json.bytes() {
            match byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.whole = self.depth == 0;
                }
                _ => {}
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.whole
    }
}

/// Puts blocks in order.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Those that are not complete; the first is the open one.
    queue: VecDeque<Block>,
    /// Whether the first has been opened.
    is_open: bool,
    /// Sources that came before any text.
    early: Vec<Value>,
    /// Proof of the reasoning behind the text.
    text_proof: Option<Signature>,
    has_calls: bool,
    has_refusal: bool,
    finish: Option<FinishReason>,
}

impl Blocks {
    /// Takes an event of the only choice there is.
    pub(super) fn take(&mut self, event: &ChatEvent, sink: &mut dyn Sink) {
        match event {
            ChatEvent::Text { choice: 0, text, .. } => self.text(text),
            ChatEvent::Refusal { choice: 0, text } => {
                self.has_refusal = true;
                self.text(text);
            }
            ChatEvent::Reasoning { choice: 0, text } => self.thinking(text),
            ChatEvent::ReasoningDone { choice: 0, part } => self.thinking_done(part),
            ChatEvent::CallStart { choice: 0, index, id, name, .. } => {
                self.has_calls = true;
                let (index, id) = (*index, fit(id, plain, MAX_CALL_ID).into_owned());
                let (name, input, extent) = (name.clone(), String::new(), Extent::default());
                self.queue.push_back(Block::Call { index, id, name, input, extent });
            }
            ChatEvent::CallArguments { choice: 0, index, fragment } => self.input(*index, fragment),
            ChatEvent::Proof { choice: 0, index: Some(index), signature } => self.call_proof(*index, signature),
            ChatEvent::Proof { choice: 0, index: None, signature } => self.text_proof = Some(signature.clone()),
            ChatEvent::Citation { choice: 0, citation } => self.citation(citation),
            ChatEvent::Hosted { choice: 0, family: Lineage::Anthropic, value } => {
                self.queue.push_back(Block::Whole(value.clone()));
            }
            ChatEvent::Finish { choice: 0, reason } => self.finish = Some(reason.clone()),
            _ => {}
        }
        self.advance(false, sink);
    }

    /// Writes all that is left: the reply is complete.
    pub(super) fn end(&mut self, sink: &mut dyn Sink) {
        if let Some(signature) = self.text_proof.take().and_then(|proof| proof::write(&proof, Of::Text)) {
            self.queue.push_back(Block::Thinking { text: String::new(), signature: Some(signature), done: true });
        }
        self.advance(true, sink);
    }

    /// Writes what can be written: all of the first block that is there, and of the next once it is complete.
    fn advance(&mut self, ended: bool, sink: &mut dyn Sink) {
        // No arguments come after the finish.
        let complete = ended || self.finish.is_some();
        loop {
            let is_last = self.queue.len() < 2;
            let Some(block) = self.queue.front_mut() else { return };
            let closes = ended || (!is_last && (complete || block.is_complete()));
            if !self.is_open {
                if !closes && !block.has_begun() {
                    return;
                }
                sink.open(block.beginning());
                self.is_open = true;
            }
            block.flush(sink);
            if !closes {
                return;
            }
            sink.close();
            self.is_open = false;
            self.queue.pop_front();
        }
    }

    fn text(&mut self, more: &str) {
        match self.queue.back_mut() {
            _ if more.is_empty() => {}
            Some(Block::Text { text, .. }) => text.push_str(more),
            _ => {
                let citations = std::mem::take(&mut self.early);
                self.queue.push_back(Block::Text { text: more.to_owned(), citations });
            }
        }
    }

    fn thinking(&mut self, more: &str) {
        match self.queue.back_mut() {
            _ if more.is_empty() => {}
            Some(Block::Thinking { text, done: false, .. }) => text.push_str(more),
            _ => self.queue.push_back(Block::Thinking { text: more.to_owned(), signature: None, done: false }),
        }
    }

    fn thinking_done(&mut self, part: &ReasoningPart) {
        if let Some(data) = &part.redacted {
            self.queue.push_back(Block::Whole(json!({"type": "redacted_thinking", "data": data})));
            return;
        }
        let proof = part.signature.as_ref().map(|signature| signature.write(Lineage::Anthropic));
        let begun = self.queue.iter_mut().rev().find_map(|block| match block {
            Block::Thinking { signature, done, .. } if !*done => Some((signature, done)),
            _ => None,
        });
        match (begun, proof) {
            (Some((signature, done)), proof) => {
                *signature = proof;
                *done = true;
            }
            (None, Some(proof)) => {
                self.queue.push_back(Block::Thinking { text: String::new(), signature: Some(proof), done: true });
            }
            (None, None) => {}
        }
    }

    fn input(&mut self, of: u32, fragment: &str) {
        for block in &mut self.queue {
            if let Block::Call { index, input, extent, .. } = block
                && *index == of
            {
                input.push_str(fragment);
                extent.feed(fragment);
            }
        }
    }

    /// A proof goes before its call, unless that is open already.
    fn call_proof(&mut self, of: u32, proof: &Signature) {
        let Some(signature) = proof::write(proof, Of::Call(of)) else { return };
        let block = Block::Thinking { text: String::new(), signature: Some(signature), done: true };
        let place = self.queue.iter().position(|block| matches!(block, Block::Call { index, .. } if *index == of));
        match place.filter(|place| *place > 0 || !self.is_open) {
            Some(place) => self.queue.insert(place, block),
            None => self.queue.push_back(block),
        }
    }

    fn citation(&mut self, citation: &Citation) {
        let Some(value) = cited(citation) else { return };
        let text = self.queue.iter_mut().rev().find_map(|block| match block {
            Block::Text { citations, .. } => Some(citations),
            _ => None,
        });
        text.unwrap_or(&mut self.early).push(value);
    }

    /// Why the reply ended. Clients act on these words, so that they agree with the blocks whatever the provider said.
    pub(super) fn stop_reason(&self) -> (&'static str, Option<&str>) {
        let reason = match self.finish.as_ref().unwrap_or(&FinishReason::Stop) {
            FinishReason::StopSequence(text) => return ("stop_sequence", Some(text)),
            FinishReason::Stop | FinishReason::ToolCalls if self.has_calls => "tool_use",
            FinishReason::Stop | FinishReason::ToolCalls if self.has_refusal => "refusal",
            FinishReason::Stop | FinishReason::ToolCalls => "end_turn",
            FinishReason::Length => "max_tokens",
            FinishReason::ContextFull => "model_context_window_exceeded",
            FinishReason::ContentFilter { .. } | FinishReason::Refusal => "refusal",
            FinishReason::Pause => "pause_turn",
        };
        (reason, None)
    }
}

/// A source in the API's form; `None` for one without an address, which has none.
fn cited(citation: &Citation) -> Option<Value> {
    if let Some((Lineage::Anthropic, native)) = &citation.native {
        return Some(native.clone());
    }
    let url = citation.url.as_ref()?;
    let cited = citation.cited_text.as_deref().unwrap_or_default();
    let kind = "web_search_result_location";
    Some(json!({"type": kind, "url": url, "title": citation.title, "cited_text": cited, "encrypted_index": ""}))
}
