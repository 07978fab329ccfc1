//! A Chat Completions reply, whole or streamed, as chat events: as lenient as OpenAI-like providers need it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::think::{Said, ThinkTags};
use crate::protocol::chat::ids::{CallIndex, CallPiece};
use crate::protocol::chat::{
    ChatEvent, Citation, FinishReason, Lineage, ReasoningPart, ReplyFault, Signature, SoundPiece, Source,
};
use crate::protocol::frames::{EventReader, RawEvent};
use crate::protocol::usage::{BillingFacts, Usage};
use crate::providers::preset::Row;

/// A chunk of a stream or a whole body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reply {
    id: Option<String>,
    object: Option<Value>,
    created: Option<f64>,
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<Value>,
    service_tier: Option<Value>,
    /// Groq's own member: some of its models tell their usage only here.
    x_groq: Option<Value>,
    /// Perplexity's and xAI's: the addresses of what was read.
    citations: Option<Vec<Value>>,
    /// Perplexity's: the same with titles.
    search_results: Option<Vec<Value>>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    index: Option<u32>,
    delta: Option<Delta>,
    /// A whole reply's message. Perplexity's streams have it beside `delta`, with all the text so far.
    message: Option<Delta>,
    finish_reason: Option<String>,
    logprobs: Option<Value>,
    usage: Option<Value>,
    error: Option<Value>,
    /// Qianfan's: other than 0 where the answer was withheld for what it says.
    flag: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<Value>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    /// OpenRouter's: reasoning with its proofs.
    reasoning_details: Option<Vec<Value>>,
    annotations: Option<Vec<Value>>,
    tool_calls: Option<Vec<CallDelta>>,
    /// The older form, which has one call.
    function_call: Option<FunctionDelta>,
    /// OpenRouter's pictures.
    images: Option<Vec<Value>>,
    audio: Option<AudioDelta>,
    /// Google's proofs.
    extra_content: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CallDelta {
    index: Option<u32>,
    id: Option<String>,
    function: Option<FunctionDelta>,
    custom: Option<CustomDelta>,
    extra_content: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AudioDelta {
    id: Option<String>,
    data: Option<String>,
    transcript: Option<String>,
    expires_at: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CustomDelta {
    name: Option<String>,
    input: Option<String>,
}

/// Reads chunks and bodies into events.
#[derive(Debug)]
pub(super) struct Reader {
    row: &'static Row,
    started: bool,
    done: bool,
    /// What the answer goes by, as it was told last.
    sources: Vec<Value>,
    choices: BTreeMap<u32, ChoiceState>,
}

#[derive(Debug, Default)]
struct ChoiceState {
    begun: bool,
    finished: bool,
    calls: CallIndex,
    tags: Option<ThinkTags>,
    /// OpenRouter's details so far.
    details: Vec<Value>,
}

impl EventReader for Reader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let data: &[u8] = &event.data;
        if event.name == b"error" {
            return Err(reported(self.row, ReplyFault::reported_event(data)));
        }
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        let reply: Reply = serde_json::from_slice(data).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        // vLLM's older form of an error, with the error's members at the top.
        if is_error_object(&reply) {
            return Err(reported(self.row, ReplyFault::reported_event(data)));
        }
        self.take(reply, out)
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let mut reply = Reply::deserialize(body).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        if is_error_object(&reply) {
            return Err(reported(self.row, ReplyFault::reported(body)));
        }
        // A whole body has ended, whether it says why or not.
        for choice in reply.choices.iter_mut().flatten() {
            if choice.finish_reason.as_ref().is_none_or(String::is_empty) {
                let calls = |message: &Delta| {
                    message.function_call.is_some()
                        || message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())
                };
                choice.finish_reason = Some(why(choice.message.as_ref().is_some_and(calls)).to_owned());
            }
        }
        if reply.choices.as_ref().is_none_or(Vec::is_empty) && reply.error.is_none() {
            return Err(ReplyFault::Malformed("it has no `choices`".to_owned()));
        }
        self.take(reply, out)
    }

    fn ended(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let open = self.choices.iter().filter(|(_, choice)| !choice.finished);
        let open: Vec<(u32, &str)> = open.map(|(choice, state)| (*choice, why(!state.calls.is_empty()))).collect();
        if self.choices.is_empty() || (!open.is_empty() && !self.done) {
            return Err(ReplyFault::Truncated);
        }
        // The mark says that the reply is complete; why it has ended nobody said.
        for (choice, word) in open {
            let finish_reason = Some(word.to_owned());
            self.take_choice(Choice { index: Some(choice), finish_reason, ..Choice::default() }, out)?;
        }
        Ok(())
    }
}

/// Why a choice has ended that does not say it.
fn why(has_calls: bool) -> &'static str {
    if has_calls { "tool_calls" } else { "stop" }
}

/// An error within a reply, its code in OpenAI's words.
fn reported(row: &Row, fault: ReplyFault) -> ReplyFault {
    match fault {
        ReplyFault::Reported { message, code } => {
            ReplyFault::Reported { message, code: code.map(|code| row.code(code)) }
        }
        fault => fault,
    }
}

fn is_error_object(reply: &Reply) -> bool {
    reply.object.as_ref().is_some_and(|object| object == "error")
}

impl Reader {
    /// Of a provider of which this is known.
    pub(super) fn new(row: &'static Row) -> Self {
        Self { row, started: false, done: false, sources: Vec::new(), choices: BTreeMap::new() }
    }

    fn take(&mut self, reply: Reply, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let choices = reply.choices.unwrap_or_default();
        if let Some(sources) = reply.search_results.or(reply.citations).filter(|sources| !sources.is_empty()) {
            self.sources = sources;
        }
        // Azure opens a stream with a chunk about the prompt that has neither choices nor an id of its own.
        if !self.started && !choices.is_empty() {
            self.started = true;
            out.push(ChatEvent::Start {
                id: reply.id.unwrap_or_default(),
                model: reply.model.unwrap_or_default(),
                created: reply.created.filter(|seconds| *seconds >= 1.0).map(|seconds| seconds as u64),
            });
        }
        // Before anything that may turn out to be an error: what was used is owed either way. Moonshot tells the usage
        // in the choice.
        let usage = reply.usage.as_ref().and_then(Usage::from_openai);
        let usage = usage.or_else(|| Usage::from_openai(reply.x_groq.as_ref()?.get("usage")?));
        let usage = usage.or_else(|| choices.iter().find_map(|choice| Usage::from_openai(choice.usage.as_ref()?)));
        if let Some(usage) = usage {
            let members = [("usage", reply.usage), ("service_tier", reply.service_tier)];
            let told = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            let facts = BillingFacts::from_openai(&Value::Object(told.collect()));
            if facts != BillingFacts::default() {
                out.push(ChatEvent::Billed(facts));
            }
            out.push(ChatEvent::Usage(usage));
        }
        if let Some(error) = reply.error.filter(|error| !error.is_null()) {
            return Err(reported(self.row, ReplyFault::reported(&error)));
        }
        for choice in choices {
            self.take_choice(choice, out)?;
        }
        Ok(())
    }

    fn take_choice(&mut self, taken: Choice, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let choice = taken.index.unwrap_or(0);
        let tags = self.row.thinks_in_text.then(ThinkTags::default);
        let state = self.choices.entry(choice).or_insert_with(|| ChoiceState { tags, ..ChoiceState::default() });
        let mut logprobs = taken.logprobs.filter(|value| !value.is_null());
        // A message beside or after deltas repeats them.
        let message = taken.message.filter(|_| !state.begun);
        state.begun = true;
        if let Some(delta) = taken.delta.or(message) {
            state.take_delta(choice, delta, &mut logprobs, out);
        }
        if logprobs.is_some() {
            out.push(ChatEvent::Text { choice, text: String::new(), logprobs });
        }
        if let Some(error) = taken.error.filter(|error| !error.is_null()) {
            return Err(reported(self.row, ReplyFault::reported(&error)));
        }
        if let Some(word) = taken.finish_reason.filter(|word| !word.is_empty()) {
            if FinishReason::is_failure(&word) {
                return Err(ReplyFault::failed_finish(&word));
            }
            let reason = match taken.flag {
                None | Some(0) => FinishReason::from_openai(&word),
                Some(_) => FinishReason::FILTERED,
            };
            state.finished = true;
            if let Some(rest) = state.tags.as_mut().and_then(ThinkTags::finish) {
                out.push(divided(choice, rest, &mut None));
            }
            out.extend(
                self.sources.drain(..).map(|source| ChatEvent::Citation { choice, citation: source_of(source) }),
            );
            if reason != FinishReason::Length {
                state.calls.complete(choice, out);
            }
            let details = std::mem::take(&mut state.details);
            if !details.is_empty() {
                let value = json!(details).to_string();
                let signature = Some(Signature { family: Lineage::OpenRouter, value });
                let part = ReasoningPart { signature, ..ReasoningPart::default() };
                out.push(ChatEvent::ReasoningDone { choice, part });
            }
            out.push(ChatEvent::Finish { choice, reason });
        }
        Ok(())
    }
}

impl ChoiceState {
    fn take_delta(&mut self, choice: u32, delta: Delta, logprobs: &mut Option<Value>, out: &mut Vec<ChatEvent>) {
        let has_text = |text: &String| !text.is_empty();
        if let Some(text) = delta.reasoning_content.filter(has_text).or(delta.reasoning.filter(has_text)) {
            out.push(ChatEvent::Reasoning { choice, text });
        }
        self.details.extend(delta.reasoning_details.unwrap_or_default());
        if let Some(content) = delta.content {
            match (&mut self.tags, &content) {
                (Some(tags), Value::String(text)) => {
                    out.extend(tags.push(text).into_iter().map(|said| divided(choice, said, logprobs)));
                }
                _ => take_content(choice, content, logprobs, out),
            }
        }
        if let Some(text) = delta.refusal.filter(has_text) {
            out.push(ChatEvent::Refusal { choice, text });
        }
        for annotation in delta.annotations.unwrap_or_default() {
            out.push(ChatEvent::Citation { choice, citation: citation(annotation) });
        }
        for image in delta.images.unwrap_or_default() {
            let source = image.pointer("/image_url/url").and_then(Value::as_str).and_then(Source::from_url);
            if let Some(Source::Base64 { media_type, data }) = source {
                out.push(ChatEvent::Picture { choice, media_type, data });
            }
        }
        if let Some(AudioDelta { id, data, transcript, expires_at }) = delta.audio {
            let (data, transcript) = (data.unwrap_or_default(), transcript.unwrap_or_default());
            out.push(ChatEvent::Sound { choice, piece: SoundPiece { id, data, transcript, expires_at } });
        }
        if let Some(signature) = google_signature(delta.extra_content.as_ref()) {
            out.push(ChatEvent::Proof { choice, index: None, signature });
        }
        if let Some(function) = delta.function_call {
            let call = CallDelta { index: Some(0), function: Some(function), ..CallDelta::default() };
            self.calls.take(choice, piece(call), out);
        }
        for call in delta.tool_calls.unwrap_or_default() {
            let signature = google_signature(call.extra_content.as_ref());
            self.calls.take(choice, piece(call), out);
            if let (Some(signature), Some(index)) = (signature, self.calls.last()) {
                out.push(ChatEvent::Proof { choice, index: Some(index), signature });
            }
        }
    }
}

fn piece(call: CallDelta) -> CallPiece {
    let CallDelta { index, id, function, custom, .. } = call;
    if let Some(custom) = custom {
        let arguments = custom.input.unwrap_or_default();
        return CallPiece { index, id, name: custom.name, arguments, custom: true };
    }
    let function = function.unwrap_or_default();
    let arguments = match function.arguments {
        Some(Value::String(text)) => text,
        Some(Value::Null) | None => String::new(),
        // Seen in the wild: arguments as an object instead of as JSON text.
        Some(object) => object.to_string(),
    };
    CallPiece { index, id, name: function.name, arguments, custom: false }
}

fn google_signature(extra: Option<&Value>) -> Option<Signature> {
    let value = extra?.pointer("/google/thought_signature")?.as_str()?.to_owned();
    Some(Signature { family: Lineage::Gemini, value })
}

fn citation(annotation: Value) -> Citation {
    let source = annotation.get("url_citation").unwrap_or(&annotation);
    let text = |name: &str| source.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| source.get(name).and_then(Value::as_u64);
    Citation {
        url: text("url"),
        title: text("title"),
        cited_text: text("content"),
        start: number("start_index"),
        end: number("end_index"),
        native: Some((Lineage::OpenAi, annotation)),
    }
}

/// A source that stands beside the answer, as an address or with a title.
fn source_of(source: Value) -> Citation {
    match source {
        Value::String(url) => Citation { url: Some(url), ..Citation::default() },
        source => Citation { native: None, ..citation(source) },
    }
}

fn divided(choice: u32, said: Said, logprobs: &mut Option<Value>) -> ChatEvent {
    match said {
        Said::Thought(text) => ChatEvent::Reasoning { choice, text },
        Said::Text(text) => ChatEvent::Text { choice, text, logprobs: logprobs.take() },
    }
}

/// Content is text, or (Mistral's reasoning models) a list of parts of which `thinking` parts are reasoning.
fn take_content(choice: u32, content: Value, logprobs: &mut Option<Value>, out: &mut Vec<ChatEvent>) {
    match content {
        Value::String(text) if !text.is_empty() => {
            out.push(ChatEvent::Text { choice, text, logprobs: logprobs.take() });
        }
        Value::Array(parts) => {
            for part in parts {
                if let Some(thinking) = part.get("thinking") {
                    let text = match thinking {
                        Value::String(text) => text.clone(),
                        Value::Array(inner) => inner.iter().filter_map(|p| p.get("text")?.as_str()).collect(),
                        _ => String::new(),
                    };
                    if !text.is_empty() {
                        out.push(ChatEvent::Reasoning { choice, text });
                    }
                } else if let Some(text) = part.get("text").and_then(Value::as_str).filter(|text| !text.is_empty()) {
                    out.push(ChatEvent::Text { choice, text: text.to_owned(), logprobs: None });
                }
            }
        }
        _ => {}
    }
}
