//! A Converse reply, whole or streamed, as chat events.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error;
use crate::protocol::chat::ids::{CallIndex, CallPiece};
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, Lineage, ReasoningPart, ReplyFault, Signature};
use crate::protocol::frames::{EventReader, RawEvent, parse_json};
use crate::protocol::usage::{BillingFacts, Usage};

/// Reads one reply.
pub(super) struct Reader {
    model: String,
    started: bool,
    stopped: bool,
    calls: CallIndex,
    /// The content blocks that are not complete, by the provider's index.
    blocks: BTreeMap<u64, Block>,
}

/// What a content block is.
enum Block {
    Text,
    Reasoning {
        text: String,
        signature: String,
        redacted: Vec<u8>,
    },
    /// A call of the caller's tool, by its position.
    Call(u32),
    Image {
        format: String,
        data: Vec<u8>,
    },
    /// What the provider did on its own side: no part of the answer.
    Ignored,
}

impl Reader {
    /// A reader for a reply of this model.
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            started: false,
            stopped: false,
            calls: CallIndex::default(),
            blocks: BTreeMap::new(),
        }
    }

    /// The service gives replies no id, and some streams begin without a word.
    fn start(&mut self, out: &mut Vec<ChatEvent>) {
        if !std::mem::replace(&mut self.started, true) {
            out.push(ChatEvent::Start { id: String::new(), model: self.model.clone(), created: None });
        }
    }

    fn block_start(&mut self, at: u64, start: &Value, out: &mut Vec<ChatEvent>) {
        let block = if let Some(call) = start.get("toolUse") {
            self.call(call, String::new(), out)
        } else if let Some(image) = start.get("image") {
            Block::Image { format: text(image, "format").to_owned(), data: Vec::new() }
        } else if start.get("toolResult").is_some() {
            Block::Ignored
        } else {
            return; // what it is will be seen from what it contains
        };
        self.blocks.insert(at, block);
    }

    fn call(&mut self, call: &Value, arguments: String, out: &mut Vec<ChatEvent>) -> Block {
        if call.get("type").is_some_and(|kind| kind == "server_tool_use") {
            return Block::Ignored;
        }
        let word = |name: &str| Some(text(call, name).to_owned());
        let position = self.calls.last().map_or(0, |last| last.saturating_add(1));
        let piece =
            CallPiece { index: Some(position), id: word("toolUseId"), name: word("name"), arguments, custom: false };
        self.calls.take(0, piece, out);
        Block::Call(position)
    }

    fn block_delta(&mut self, at: u64, delta: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if let Some(words) = delta.get("text").and_then(Value::as_str) {
            self.blocks.entry(at).or_insert(Block::Text);
            push_text(words, out);
        } else if let Some(reasoning) = delta.get("reasoningContent") {
            self.reason(at, reasoning, out)?;
        } else if let Some(call) = delta.get("toolUse") {
            match self.blocks.get(&at) {
                Some(Block::Call(position)) => {
                    let arguments = text(call, "input").to_owned();
                    self.calls.take(0, CallPiece { index: Some(*position), arguments, ..CallPiece::default() }, out);
                }
                Some(Block::Ignored) => {}
                _ => return Err(malformed("the arguments of a call came before the call")),
            }
        } else if let Some(citation) = delta.get("citation") {
            out.push(cite(citation));
        } else if let Some(image) = delta.get("image") {
            fail_if_broken(image)?;
            if let Some(Block::Image { data, .. }) = self.blocks.get_mut(&at) {
                data.append(&mut decode(image.pointer("/source/bytes"))?);
            }
        }
        Ok(())
    }

    fn reason(&mut self, at: u64, delta: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let new = || Block::Reasoning { text: String::new(), signature: String::new(), redacted: Vec::new() };
        if let Block::Reasoning { text: all, signature, redacted } = self.blocks.entry(at).or_insert_with(new) {
            let words = text(delta, "text");
            all.push_str(words);
            signature.push_str(text(delta, "signature"));
            if let Some(data) = delta.get("redactedContent") {
                redacted.append(&mut decode(Some(data))?);
            }
            if !words.is_empty() {
                out.push(ChatEvent::Reasoning { choice: 0, text: words.to_owned() });
            }
        }
        Ok(())
    }

    fn block_stop(&mut self, at: u64, out: &mut Vec<ChatEvent>) {
        match self.blocks.remove(&at) {
            Some(Block::Reasoning { text, signature, redacted }) => {
                // Claude's own words, which the service passes on as bytes.
                let redacted = String::from_utf8(redacted).ok().filter(|redacted| !redacted.is_empty());
                let signature = Some(signature).filter(|signature| !signature.is_empty());
                if redacted.is_some() || signature.is_some() {
                    let signature = signature.map(|value| Signature { family: Lineage::Anthropic, value });
                    let part = ReasoningPart { text, signature, redacted, ..ReasoningPart::default() };
                    out.push(ChatEvent::ReasoningDone { choice: 0, part });
                }
            }
            Some(Block::Image { format, data }) if !data.is_empty() => {
                out.push(picture(&format, STANDARD.encode(data)));
            }
            _ => {}
        }
    }

    /// The end of the message, whole or streamed.
    fn stop(&mut self, message: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        while let Some(at) = self.blocks.keys().next().copied() {
            self.block_stop(at, out);
        }
        let told = ["stop_sequence", "delta/stop_sequence"].iter().find_map(|place| {
            message.pointer(&format!("/additionalModelResponseFields/{place}")).and_then(Value::as_str)
        });
        let reason = match text(message, "stopReason") {
            "" => return Err(malformed("it has no `stopReason`")),
            word if word.starts_with("malformed_") => return Err(ReplyFault::failed_finish(word)),
            "max_tokens" => FinishReason::Length,
            "model_context_window_exceeded" => FinishReason::ContextFull,
            "guardrail_intervened" => FinishReason::ContentFilter { category: Some("guardrail".to_owned()) },
            "content_filtered" => FinishReason::FILTERED,
            "refusal" => FinishReason::Refusal,
            "tool_use" => FinishReason::ToolCalls,
            "stop_sequence" => told.map_or(FinishReason::Stop, |told| FinishReason::StopSequence(told.to_owned())),
            // Some models call tools and say no more of it.
            _ if !self.calls.is_empty() => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        };
        // A call that was cut off keeps what it has.
        if reason == FinishReason::ToolCalls {
            self.calls.complete(0, out);
        }
        out.push(ChatEvent::Finish { choice: 0, reason });
        self.stopped = true;
        Ok(())
    }

    fn content(&mut self, at: u64, block: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if let Some(call) = block.get("toolUse") {
            let input =
                call.get("input").filter(|input| !input.is_null()).map_or_else(|| "{}".to_owned(), Value::to_string);
            self.call(call, input, out);
        } else if let Some(reasoning) = block.get("reasoningContent") {
            self.reason(at, reasoning.get("reasoningText").unwrap_or(reasoning), out)?;
            self.block_stop(at, out);
        } else if let Some(cited) = block.get("citationsContent") {
            let list = |name: &str| cited.get(name).and_then(Value::as_array).into_iter().flatten();
            list("content").for_each(|piece| push_text(text(piece, "text"), out));
            out.extend(list("citations").map(cite));
        } else if let Some(image) = block.get("image") {
            fail_if_broken(image)?;
            let data = image.pointer("/source/bytes").and_then(Value::as_str).unwrap_or_default();
            out.push(picture(text(image, "format"), data.to_owned()));
        } else {
            push_text(text(block, "text"), out);
        }
        Ok(())
    }
}

impl EventReader for Reader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if event.exception {
            return Err(error::exception(event));
        }
        let body = parse_json(&event.data)?;
        let at = body.get("contentBlockIndex").and_then(Value::as_u64).unwrap_or(0);
        let part = |name: &str| body.get(name).unwrap_or(&Value::Null);
        self.start(out);
        match event.name {
            b"contentBlockStart" => self.block_start(at, part("start"), out),
            b"contentBlockDelta" => self.block_delta(at, part("delta"), out)?,
            b"contentBlockStop" => self.block_stop(at, out),
            b"messageStop" if !self.stopped => self.stop(&body, out)?,
            b"metadata" => tell(&body, out),
            // `messageStart` says nothing more, and new kinds of events may come.
            _ => {}
        }
        Ok(())
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let Some(message) = body.pointer("/output/message") else {
            return Err(match body.get("message").and_then(Value::as_str) {
                Some(message) => error::reported(None, Some(message.to_owned())),
                None => malformed("it has no `output`"),
            });
        };
        self.start(out);
        let content = message.get("content").and_then(Value::as_array).into_iter().flatten();
        for (at, block) in content.enumerate() {
            self.content(at as u64, block, out)?;
        }
        self.stop(body, out)?;
        tell(body, out);
        Ok(())
    }

    fn ended(&mut self, _: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if self.stopped { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

/// What the reply used, and what its price depends on besides.
fn tell(body: &Value, out: &mut Vec<ChatEvent>) {
    let facts = BillingFacts::from_bedrock(body);
    if facts != BillingFacts::default() {
        out.push(ChatEvent::Billed(facts));
    }
    out.extend(body.get("usage").and_then(Usage::from_bedrock).map(ChatEvent::Usage));
}

fn push_text(text: &str, out: &mut Vec<ChatEvent>) {
    if !text.is_empty() {
        out.push(ChatEvent::Text { choice: 0, text: text.to_owned(), logprobs: None });
    }
}

fn cite(citation: &Value) -> ChatEvent {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let cited = citation.get("sourceContent").and_then(Value::as_array).into_iter().flatten();
    let cited: String = cited.map(|piece| text(piece, "text")).collect();
    let source = Some(text(citation, "source")).filter(|source| source.starts_with("http"));
    let url = citation.pointer("/location/web/url").and_then(Value::as_str).or(source);
    ChatEvent::Citation {
        choice: 0,
        citation: Citation {
            url: url.map(str::to_owned),
            title: some(text(citation, "title")),
            cited_text: some(&cited),
            native: url.is_none().then(|| place(citation, &cited)).flatten(),
            ..Citation::default()
        },
    }
}

/// The place in a document, in Anthropic's form.
fn place(citation: &Value, cited: &str) -> Option<(Lineage, Value)> {
    let (kind, at) = citation.get("location")?.as_object()?.iter().next()?;
    let number = |name: &str| at.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (kind, first, behind) = match kind.as_str() {
        "documentChar" => ("char_location", "start_char_index", "end_char_index"),
        "documentPage" => ("page_location", "start_page_number", "end_page_number"),
        "documentChunk" => ("content_block_location", "start_block_index", "end_block_index"),
        _ => return None,
    };
    let place = json!({
        "type": kind,
        "cited_text": cited,
        "document_index": number("documentIndex"),
        "document_title": citation.get("title"),
        first: number("start"),
        behind: number("end"),
    });
    Some((Lineage::Anthropic, place))
}

fn picture(format: &str, data: String) -> ChatEvent {
    ChatEvent::Picture { choice: 0, media_type: format!("image/{format}"), data }
}

/// A picture that could not be made has an error in its place.
fn fail_if_broken(image: &Value) -> Result<(), ReplyFault> {
    match image.get("error") {
        Some(error) => Err(error::reported(None, Some(text(error, "message").to_owned()))),
        None => Ok(()),
    }
}

fn decode(data: Option<&Value>) -> Result<Vec<u8>, ReplyFault> {
    let data = data.and_then(Value::as_str).unwrap_or_default();
    STANDARD.decode(data).map_err(|error| malformed(&error.to_string()))
}

fn malformed(what: &str) -> ReplyFault {
    ReplyFault::Malformed(what.to_owned())
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}
