//! Replies in OpenAI's Chat Completions, streamed and whole.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::{BodyWriter, Echo, ReplyIdentity, StreamWriter};
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, Lineage, ReasoningPart, Signature, SoundPiece};
use crate::protocol::cost_tag::CostTag;
use crate::protocol::sse;
use crate::protocol::usage::Told;

/// Takes what the upstream told of its reply; the caller's own model name stays.
fn adopt(identity: &mut ReplyIdentity, id: &str, created: Option<u64>) {
    if !id.is_empty() {
        identity.id = prefixed(id);
    }
    if let Some(created) = created.filter(|seconds| *seconds > 0) {
        identity.created = created;
    }
}

fn prefixed(id: &str) -> String {
    if id.starts_with("chatcmpl-") { id.to_owned() } else { format!("chatcmpl-{id}") }
}

/// A finished reasoning block as a member of the message: where its proof has its place in this dialect.
fn reasoning_member(part: &ReasoningPart) -> Option<(&'static str, Value)> {
    if let Some(data) = &part.redacted {
        return Some(("thinking_blocks", json!([{"type": "redacted_thinking", "data": data}])));
    }
    let signature = part.signature.as_ref()?;
    if signature.family == Lineage::OpenRouter {
        return Some(("reasoning_details", serde_json::from_str(&signature.value).ok()?));
    }
    let proof = signature.write(Lineage::Anthropic);
    let mut block = json!({"type": "thinking", "thinking": part.text, "signature": proof});
    if let (Some(id), Some(block)) = (&part.id, block.as_object_mut()) {
        block.insert("id".to_owned(), id.clone().into());
    }
    Some(("thinking_blocks", json!([block])))
}

fn extra_content(signature: &Signature) -> Value {
    json!({"google": {"thought_signature": signature.write(Lineage::Gemini)}})
}

fn annotation(citation: &Citation) -> Option<Value> {
    if let Some((Lineage::OpenAi, native)) = &citation.native {
        return Some(native.clone());
    }
    let mut told = json!({"url": citation.url.as_ref()?, "title": citation.title.as_deref().unwrap_or_default()});
    let members = told.as_object_mut()?;
    // Neither may be missing.
    let start = citation.start.unwrap_or(0);
    members.insert("start_index".to_owned(), start.into());
    members.insert("end_index".to_owned(), citation.end.unwrap_or(start).into());
    Some(json!({"type": "url_citation", "url_citation": told}))
}

/// Why a choice has ended, as callers of the newer or the older form of calls know it.
fn word(reason: &FinishReason, older_calls: bool) -> &'static str {
    match reason {
        FinishReason::ToolCalls if older_calls => "function_call",
        reason => reason.as_openai(),
    }
}

/// A source as a member of the message: OpenAI's annotations are addresses alone, so that what stands in a document
/// comes beside them, in Anthropic's form.
fn cited(citation: &Citation) -> Option<(&'static str, Value)> {
    let annotated = annotation(citation).map(|annotation| ("annotations", json!([annotation])));
    annotated.or_else(|| Some(("citations", json!([citation.in_document()?]))))
}

/// A picture as a member of the message, as OpenRouter gives it.
fn picture(media_type: &str, data: &str) -> (&'static str, Value) {
    let url = format!("data:{media_type};base64,{data}");
    ("images", json!([{"type": "image_url", "image_url": {"url": url}}]))
}

/// The name of sound; what its provider gave none has one that is of no further use.
fn sound_id(piece: &SoundPiece, identity: &ReplyIdentity) -> String {
    piece.id.clone().unwrap_or_else(|| format!("audio_{}", identity.id.trim_start_matches("chatcmpl-")))
}

/// Puts base64 behind base64.
fn append_base64(all: &mut String, more: &str) {
    let is_whole = all.len().is_multiple_of(4) && !all.ends_with('=');
    if !is_whole && let (Ok(mut bytes), Ok(rest)) = (STANDARD.decode(&*all), STANDARD.decode(more)) {
        bytes.extend(rest);
        *all = STANDARD.encode(bytes);
    } else {
        all.push_str(more);
    }
}

/// Writes a stream of chunks: one id throughout, the role first, exactly one finish reason for each choice, then the
/// usage if it was asked for and told, then `[DONE]`.
#[derive(Debug)]
pub(super) struct ChunkWriter {
    identity: ReplyIdentity,
    include_usage: bool,
    older_calls: bool,
    /// Choices that have begun, with the reason for which each has ended.
    choices: BTreeMap<u32, Option<FinishReason>>,
    /// Calls of tools that take free text.
    custom: Vec<(u32, u32)>,
}

impl ChunkWriter {
    pub(super) fn new(identity: ReplyIdentity, echo: &Echo) -> Self {
        let identity = ReplyIdentity { id: prefixed(&identity.id), ..identity };
        let Echo { include_usage, older_calls, .. } = *echo;
        Self { identity, include_usage, older_calls, choices: BTreeMap::new(), custom: Vec::new() }
    }

    fn begin(&mut self, choice: u32, out: &mut Vec<u8>) {
        if let Entry::Vacant(entry) = self.choices.entry(choice) {
            entry.insert(None);
            self.chunk(choice, json!({"role": "assistant", "content": ""}), None, None, out);
        }
    }

    fn delta(&mut self, choice: u32, delta: Value, out: &mut Vec<u8>) {
        self.begin(choice, out);
        self.chunk(choice, delta, None, None, out);
    }

    fn member(&mut self, choice: u32, member: (&str, Value), out: &mut Vec<u8>) {
        let (name, value) = member;
        self.delta(choice, Value::Object(Map::from_iter([(name.to_owned(), value)])), out);
    }

    fn call(&mut self, choice: u32, call: Value, out: &mut Vec<u8>) {
        self.delta(choice, json!({"tool_calls": [call]}), out);
    }

    fn chunk(
        &self,
        choice: u32,
        delta: Value,
        finish: Option<&FinishReason>,
        logprobs: Option<&Value>,
        out: &mut Vec<u8>,
    ) {
        let choices = json!([{
            "index": choice,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish.map(|reason| word(reason, self.older_calls)),
        }]);
        let chunk = self.envelope(choices, self.include_usage.then_some(Value::Null));
        sse::write_data(out, chunk.to_string().as_bytes());
    }

    fn envelope(&self, choices: Value, usage: Option<Value>) -> Value {
        let mut chunk = json!({
            "id": self.identity.id,
            "object": "chat.completion.chunk",
            "created": self.identity.created,
            "model": self.identity.model,
            "choices": choices,
        });
        if let (Some(usage), Some(object)) = (usage, chunk.as_object_mut()) {
            object.insert("usage".to_owned(), usage);
        }
        chunk
    }
}

impl StreamWriter for ChunkWriter {
    fn write(&mut self, event: &ChatEvent, out: &mut Vec<u8>) {
        match event {
            ChatEvent::Start { id, created, .. } => {
                if self.choices.is_empty() {
                    adopt(&mut self.identity, id, *created);
                }
                self.begin(0, out);
            }
            ChatEvent::Text { choice, text, logprobs } => {
                self.begin(*choice, out);
                self.chunk(*choice, json!({"content": text}), None, logprobs.as_ref(), out);
            }
            ChatEvent::Refusal { choice, text } => self.delta(*choice, json!({"refusal": text}), out),
            ChatEvent::Reasoning { choice, text } => self.delta(*choice, json!({"reasoning_content": text}), out),
            ChatEvent::ReasoningDone { choice, part } => {
                if let Some(member) = reasoning_member(part) {
                    self.member(*choice, member, out);
                }
            }
            // One call is all that the older form has.
            ChatEvent::CallStart { index, .. }
            | ChatEvent::CallArguments { index, .. }
            | ChatEvent::Proof { index: Some(index), .. }
                if self.older_calls && *index > 0 => {}
            ChatEvent::CallStart { choice, name, .. } if self.older_calls => {
                self.delta(*choice, json!({"function_call": {"name": name, "arguments": ""}}), out);
            }
            ChatEvent::CallArguments { choice, fragment, .. } if self.older_calls => {
                self.delta(*choice, json!({"function_call": {"arguments": fragment}}), out);
            }
            ChatEvent::CallStart { choice, index, id, name, custom } => {
                let call = if *custom {
                    self.custom.push((*choice, *index));
                    json!({"index": index, "id": id, "type": "custom", "custom": {"name": name, "input": ""}})
                } else {
                    json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}})
                };
                self.call(*choice, call, out);
            }
            ChatEvent::CallArguments { choice, index, fragment } => {
                let call = if self.custom.contains(&(*choice, *index)) {
                    json!({"index": index, "custom": {"input": fragment}})
                } else {
                    json!({"index": index, "function": {"arguments": fragment}})
                };
                self.call(*choice, call, out);
            }
            ChatEvent::Proof { choice, index: Some(index), signature } => {
                self.call(*choice, json!({"index": index, "extra_content": extra_content(signature)}), out);
            }
            ChatEvent::Proof { choice, index: None, signature } => {
                self.delta(*choice, json!({"extra_content": extra_content(signature)}), out);
            }
            ChatEvent::Citation { choice, citation } => {
                if let Some((name, value)) = cited(citation) {
                    self.delta(*choice, json!({name: value}), out);
                }
            }
            ChatEvent::Picture { choice, media_type, data } => {
                self.member(*choice, picture(media_type, data), out);
            }
            ChatEvent::Sound { choice, piece } => {
                let mut audio = Map::new();
                audio.insert("id".to_owned(), sound_id(piece, &self.identity).into());
                for (name, text) in [("data", &piece.data), ("transcript", &piece.transcript)] {
                    if !text.is_empty() {
                        audio.insert(name.to_owned(), text.as_str().into());
                    }
                }
                if let Some(expires_at) = piece.expires_at {
                    audio.insert("expires_at".to_owned(), expires_at.into());
                }
                self.delta(*choice, json!({"audio": audio}), out);
            }
            // Held back to the end: some providers repeat or revise the reason, the caller gets one.
            ChatEvent::Finish { choice, reason } => {
                self.begin(*choice, out);
                self.choices.insert(*choice, Some(reason.clone()));
            }
            ChatEvent::Hosted { .. } | ChatEvent::Usage(_) | ChatEvent::Billed(_) => {}
        }
    }

    fn end(&mut self, told: Option<&Told>, cost: Option<CostTag>, out: &mut Vec<u8>) {
        let choices = std::mem::take(&mut self.choices);
        for (choice, reason) in choices {
            self.chunk(choice, json!({}), Some(&reason.unwrap_or(FinishReason::Stop)), None, out);
        }
        if let Some(told) = told.filter(|_| self.include_usage) {
            let mut chunk = self.envelope(json!([]), Some(told.usage.to_openai()));
            if let (Some(tier), Some(chunk)) = (told.facts.service_tier, chunk.as_object_mut()) {
                chunk.insert("service_tier".to_owned(), tier.as_str().into());
            }
            let chunk = chunk.to_string().into_bytes();
            let tagged = cost.and_then(|cost| cost.write_into(&chunk, &["usage"]));
            sse::write_data(out, &tagged.unwrap_or(chunk));
        }
        sse::write_data(out, b"[DONE]");
    }
}

/// Collects a reply's events into one `chat.completion` body.
#[derive(Debug)]
pub(super) struct CompletionWriter {
    identity: ReplyIdentity,
    older_calls: bool,
    choices: BTreeMap<u32, Choice>,
}

#[derive(Debug, Default)]
struct Choice {
    text: Option<String>,
    refusal: Option<String>,
    reasoning: Option<String>,
    /// Lists and objects of the message, by their names.
    members: Map<String, Value>,
    calls: BTreeMap<u32, Call>,
    sound: Option<SoundPiece>,
    logprobs: Option<Value>,
    finish: Option<FinishReason>,
}

#[derive(Debug, Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
    custom: bool,
    extra_content: Option<Value>,
}

impl CompletionWriter {
    pub(super) fn new(identity: ReplyIdentity, echo: &Echo) -> Self {
        let identity = ReplyIdentity { id: prefixed(&identity.id), ..identity };
        Self { identity, older_calls: echo.older_calls, choices: BTreeMap::new() }
    }

    fn choice(&mut self, index: u32) -> &mut Choice {
        self.choices.entry(index).or_default()
    }
}

impl BodyWriter for CompletionWriter {
    fn add(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Start { id, created, .. } => {
                adopt(&mut self.identity, &id, created);
                self.choice(0);
            }
            ChatEvent::Text { choice, text, logprobs } => {
                let choice = self.choice(choice);
                choice.text.get_or_insert_default().push_str(&text);
                if let Some(more) = logprobs {
                    append_logprobs(&mut choice.logprobs, more);
                }
            }
            ChatEvent::Refusal { choice, text } => {
                self.choice(choice).refusal.get_or_insert_default().push_str(&text);
            }
            ChatEvent::Reasoning { choice, text } => {
                self.choice(choice).reasoning.get_or_insert_default().push_str(&text);
            }
            ChatEvent::ReasoningDone { choice, part } => self.choice(choice).insert(reasoning_member(&part)),
            ChatEvent::CallStart { choice, index, id, name, custom } => {
                self.choice(choice).calls.insert(index, Call { id, name, custom, ..Call::default() });
            }
            ChatEvent::CallArguments { choice, index, fragment } => {
                if let Some(call) = self.choice(choice).calls.get_mut(&index) {
                    call.arguments.push_str(&fragment);
                }
            }
            ChatEvent::Proof { choice, index: Some(index), signature } => {
                if let Some(call) = self.choice(choice).calls.get_mut(&index) {
                    call.extra_content = Some(extra_content(&signature));
                }
            }
            ChatEvent::Proof { choice, index: None, signature } => {
                self.choice(choice).insert(Some(("extra_content", extra_content(&signature))));
            }
            ChatEvent::Citation { choice, citation } => {
                self.choice(choice).insert(cited(&citation));
            }
            ChatEvent::Picture { choice, media_type, data } => {
                self.choice(choice).insert(Some(picture(&media_type, &data)));
            }
            ChatEvent::Sound { choice, piece } => {
                let sound = self.choice(choice).sound.get_or_insert_default();
                append_base64(&mut sound.data, &piece.data);
                sound.transcript.push_str(&piece.transcript);
                sound.id = sound.id.take().or(piece.id);
                sound.expires_at = piece.expires_at.or(sound.expires_at);
            }
            ChatEvent::Finish { choice, reason } => self.choice(choice).finish = Some(reason),
            ChatEvent::Hosted { .. } | ChatEvent::Usage(_) | ChatEvent::Billed(_) => {}
        }
    }

    fn finish(self: Box<Self>, told: Option<&Told>) -> Value {
        let (identity, older_calls) = (&self.identity, self.older_calls);
        let choices = self.choices.into_iter().map(|(index, choice)| choice.into_json(index, older_calls, identity));
        let choices: Vec<Value> = choices.collect();
        let mut body = json!({
            "id": self.identity.id,
            "object": "chat.completion",
            "created": self.identity.created,
            "model": self.identity.model,
            "choices": choices,
        });
        if let (Some(told), Some(body)) = (told, body.as_object_mut()) {
            body.insert("usage".to_owned(), told.usage.to_openai());
            if let Some(tier) = told.facts.service_tier {
                body.insert("service_tier".to_owned(), tier.as_str().into());
            }
        }
        body
    }
}

impl Choice {
    /// Takes a member of the message in; lists go on.
    fn insert(&mut self, member: Option<(&str, Value)>) {
        let Some((name, value)) = member else { return };
        match (self.members.get_mut(name), value) {
            (Some(Value::Array(so_far)), Value::Array(more)) => so_far.extend(more),
            (_, value) => {
                self.members.insert(name.to_owned(), value);
            }
        }
    }

    fn into_json(self, index: u32, older_calls: bool, identity: &ReplyIdentity) -> Value {
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        let content = if self.calls.is_empty() && self.refusal.is_none() {
            Some(self.text.unwrap_or_default())
        } else {
            self.text.filter(|text| !text.is_empty())
        };
        message.insert("content".to_owned(), content.into());
        message.insert("refusal".to_owned(), self.refusal.into());
        if let Some(reasoning) = self.reasoning {
            message.insert("reasoning_content".to_owned(), reasoning.into());
        }
        message.extend(self.members);
        if let Some(sound) = self.sound {
            let audio = json!({
                "id": sound_id(&sound, identity),
                "data": sound.data,
                "transcript": sound.transcript,
                "expires_at": sound.expires_at.unwrap_or(identity.created),
            });
            message.insert("audio".to_owned(), audio);
        }
        if !self.calls.is_empty() {
            let mut calls = self.calls.into_values();
            if older_calls {
                let call = calls.next().map(|call| json!({"name": call.name, "arguments": call.arguments}));
                message.insert("function_call".to_owned(), call.into());
            } else {
                message.insert("tool_calls".to_owned(), calls.map(Call::into_json).collect());
            }
        }
        json!({
            "index": index,
            "message": message,
            "logprobs": self.logprobs,
            "finish_reason": word(&self.finish.unwrap_or(FinishReason::Stop), older_calls),
        })
    }
}

impl Call {
    fn into_json(self) -> Value {
        let mut call = if self.custom {
            json!({"id": self.id, "type": "custom", "custom": {"name": self.name, "input": self.arguments}})
        } else {
            json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}})
        };
        if let (Some(extra), Some(call)) = (self.extra_content, call.as_object_mut()) {
            call.insert("extra_content".to_owned(), extra);
        }
        call
    }
}

/// Log probabilities of a stream come piecewise: `{"content": […], "refusal": […]}`, each list a continuation.
fn append_logprobs(all: &mut Option<Value>, more: Value) {
    let Some(Value::Object(all)) = all else {
        *all = Some(more);
        return;
    };
    let Value::Object(more) = more else { return };
    for (field, tokens) in more {
        match (all.get_mut(&field).and_then(Value::as_array_mut), tokens) {
            (Some(so_far), Value::Array(tokens)) => so_far.extend(tokens),
            (None, tokens) => {
                all.insert(field, tokens);
            }
            (Some(_), _) => {}
        }
    }
}
