//! Writes a reply as the events of a stream, in the order in which OpenAI's SDKs expect them.
//!
//! Items are opened when their first word comes. Text and reasoning come one after the other, so that another kind
//! closes them; calls, whose arguments may come interleaved, stay open until the reply's finish.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::item::{Body, Item, Piece, annotation, hosted, proof_of_event, proof_of_reasoning};
use crate::error::{Dialect, Problem};
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, ReasoningPart, Signature};
use crate::protocol::cost_tag::CostTag;
use crate::protocol::inbound::{Echo, ReplyIdentity, StreamWriter};
use crate::protocol::sse;
use crate::protocol::usage::{ServiceTier, Told};

/// Writes one reply.
pub(super) struct Writer {
    identity: ReplyIdentity,
    echo: Echo,
    /// Whether nothing is written: only the response as it is at the end is wanted.
    quiet: bool,
    begun: bool,
    sequence: u64,
    items: Vec<Item>,
    /// The message or reasoning that is open.
    open: Option<usize>,
    /// The calls that are open, by their positions.
    calls: BTreeMap<u32, usize>,
    /// Sources that wait for the text that they belong to.
    citations: Vec<Value>,
    finish: Option<FinishReason>,
}

impl Writer {
    /// A writer of a stream.
    pub(super) fn new(identity: ReplyIdentity, echo: Echo) -> Self {
        Self {
            identity,
            echo,
            quiet: false,
            begun: false,
            sequence: 0,
            items: Vec::new(),
            open: None,
            calls: BTreeMap::new(),
            citations: Vec::new(),
            finish: None,
        }
    }

    /// A writer that only collects.
    pub(super) fn collecting(identity: ReplyIdentity, echo: Echo) -> Self {
        Self { quiet: true, ..Self::new(identity, echo) }
    }

    /// Takes an event in.
    pub(super) fn take(&mut self, event: &ChatEvent, out: &mut Vec<u8>) {
        if let ChatEvent::Start { created, .. } = event
            && !self.begun
            && let Some(created) = created.filter(|seconds| *seconds > 0)
        {
            self.identity.created = created;
        }
        self.begin(out);
        match event {
            // A response has one choice.
            ChatEvent::Text { choice: 0, text, logprobs } => self.text(text, logprobs.as_ref(), out),
            ChatEvent::Refusal { choice: 0, text } => self.refusal(text, out),
            ChatEvent::Reasoning { choice: 0, text } => self.reasoning(text, out),
            ChatEvent::ReasoningDone { choice: 0, part } => self.reasoning_done(part, out),
            ChatEvent::CallStart { choice: 0, index, id, name, custom } => {
                self.close_open(out);
                let body =
                    Body::Call { call_id: id.clone(), name: name.clone(), arguments: String::new(), custom: *custom };
                let at = self.add(body, out);
                self.calls.insert(*index, at);
            }
            ChatEvent::CallArguments { choice: 0, index, fragment } => self.arguments(*index, fragment, out),
            ChatEvent::Proof { choice: 0, index, signature } => self.proof(*index, signature, out),
            ChatEvent::Citation { choice: 0, citation } => self.citation(citation, out),
            ChatEvent::Picture { choice: 0, media_type, data } => {
                let format = media_type.strip_prefix("image/").unwrap_or(media_type);
                self.whole(json!({"type": "image_generation_call", "result": data, "output_format": format}), out);
            }
            ChatEvent::Hosted { choice: 0, family, value } => {
                if let Some(item) = hosted(*family, value) {
                    self.whole(item, out);
                }
            }
            ChatEvent::Finish { choice: 0, reason } => {
                if *reason == FinishReason::Refusal && !self.has_refusal() {
                    self.refusal("The model declined to answer.", out);
                }
                self.finish = Some(reason.clone());
                self.close_all(out);
            }
            _ => {}
        }
    }

    /// The response as it is, all of it being there.
    pub(super) fn complete(&mut self, told: Option<&Told>, out: &mut Vec<u8>) -> Map<String, Value> {
        self.begin(out);
        self.close_all(out);
        let status = if self.cut_short().is_some() { "incomplete" } else { "completed" };
        let mut response = self.response(status);
        if let Some(reason) = self.cut_short() {
            response.insert("incomplete_details".to_owned(), json!({"reason": reason}));
        }
        if let Some(told) = told {
            response.insert("usage".to_owned(), told.usage.to_responses());
            // What was asked for need not be what was had.
            let tier = told.facts.service_tier.map_or("default", ServiceTier::as_str);
            response.insert("service_tier".to_owned(), tier.into());
        }
        response
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) || self.quiet {
            return;
        }
        for kind in ["response.created", "response.in_progress"] {
            let response = self.response("in_progress");
            self.emit(kind, json!({"response": response}), out);
        }
    }

    fn response(&self, status: &str) -> Map<String, Value> {
        let mut response = Map::new();
        for (name, value) in [
            ("id", format!("resp_{}", self.identity.id).into()),
            ("object", "response".into()),
            ("created_at", self.identity.created.into()),
            ("status", status.into()),
            ("error", Value::Null),
            ("incomplete_details", Value::Null),
            ("model", self.identity.model.as_str().into()),
            ("output", self.items.iter().map(Item::to_json).collect()),
            ("usage", Value::Null),
        ] {
            response.insert(name.to_owned(), value);
        }
        response.extend(self.echo.members.clone());
        response
    }

    /// Why the reply is not complete, if it is not.
    fn cut_short(&self) -> Option<&'static str> {
        match self.finish.as_ref()? {
            FinishReason::Length | FinishReason::ContextFull => Some("max_output_tokens"),
            FinishReason::ContentFilter { .. } => Some("content_filter"),
            _ => None,
        }
    }

    fn emit(&mut self, kind: &str, members: Value, out: &mut Vec<u8>) {
        if self.quiet {
            return;
        }
        let mut event = Map::new();
        event.insert("type".to_owned(), kind.into());
        event.insert("sequence_number".to_owned(), self.sequence.into());
        if let Value::Object(members) = members {
            event.extend(members);
        }
        self.sequence = self.sequence.saturating_add(1);
        sse::write_event(out, kind, Value::Object(event).to_string().as_bytes());
    }

    // === Items ===

    /// Opens an item.
    fn add(&mut self, body: Body, out: &mut Vec<u8>) -> usize {
        let at = self.items.len();
        let item = Item::new(format!("{}_{}_{at}", body.prefix(), self.identity.id), body);
        if !self.quiet {
            self.emit("response.output_item.added", json!({"output_index": at, "item": item.to_json()}), out);
        }
        self.items.push(item);
        at
    }

    /// Adds an item that is complete already.
    fn whole(&mut self, mut item: Value, out: &mut Vec<u8>) {
        self.close_open(out);
        let id = format!("item_{}_{}", self.identity.id, self.items.len());
        if let Some(item) = item.as_object_mut() {
            item.entry("id").or_insert_with(|| id.into());
            item.entry("status").or_insert_with(|| "completed".into());
        }
        let at = self.add(Body::Whole(item), out);
        self.close(at, out);
    }

    fn close_open(&mut self, out: &mut Vec<u8>) {
        if let Some(at) = self.open.take() {
            self.close(at, out);
        }
    }

    fn close_all(&mut self, out: &mut Vec<u8>) {
        if !self.citations.is_empty() {
            self.piece(false, out);
        }
        self.close_open(out);
        for at in std::mem::take(&mut self.calls).into_values() {
            self.close(at, out);
        }
    }

    fn close(&mut self, at: usize, out: &mut Vec<u8>) {
        let is_cut = self.cut_short().is_some() && at.saturating_add(1) == self.items.len();
        self.close_piece(at, out);
        let Some(item) = self.items.get_mut(at) else { return };
        item.status = if is_cut { "incomplete" } else { "completed" };
        if self.quiet {
            return;
        }
        let item = item.to_json();
        self.emit("response.output_item.done", json!({"output_index": at, "item": item}), out);
    }

    /// Writes the end of what is open within an item.
    fn close_piece(&mut self, at: usize, out: &mut Vec<u8>) {
        if self.quiet {
            return;
        }
        for (kind, members) in self.items.get(at).map(|item| item.ends(at)).unwrap_or_default() {
            self.emit(kind, members, out);
        }
    }

    // === Messages ===

    /// The open message and the number of its last part, which is text, or a refusal; opened if there is none.
    fn piece(&mut self, refusal: bool, out: &mut Vec<u8>) -> Option<(usize, usize)> {
        let is_message = |at: &usize| matches!(self.items.get(*at).map(|it| &it.body), Some(Body::Message(_)));
        let at = match self.open.filter(is_message) {
            Some(at) => at,
            None => {
                self.close_open(out);
                let at = self.add(Body::Message(Vec::new()), out);
                self.open = Some(at);
                at
            }
        };
        let fits = self.message(at)?.last().map(|piece| matches!(piece, Piece::Refusal(_)) == refusal);
        if fits == Some(false) {
            self.close_piece(at, out);
        }
        if fits != Some(true) {
            let piece = if refusal { Piece::Refusal(String::new()) } else { Piece::text() };
            let part = piece.to_json();
            let pieces = self.message(at)?;
            pieces.push(piece);
            let nth = pieces.len().saturating_sub(1);
            self.in_part("response.content_part.added", at, nth, json!({"part": part}), out);
        }
        let nth = self.message(at)?.len().saturating_sub(1);
        if !refusal {
            for citation in std::mem::take(&mut self.citations) {
                self.annotate(at, nth, citation, out);
            }
        }
        Some((at, nth))
    }

    fn message(&mut self, at: usize) -> Option<&mut Vec<Piece>> {
        match &mut self.items.get_mut(at)?.body {
            Body::Message(pieces) => Some(pieces),
            _ => None,
        }
    }

    fn text(&mut self, more: &str, probabilities: Option<&Value>, out: &mut Vec<u8>) {
        let more_logprobs = probabilities.and_then(|it| it.get("content")).and_then(Value::as_array);
        let more_logprobs = more_logprobs.map(Vec::as_slice).unwrap_or_default();
        if more.is_empty() && more_logprobs.is_empty() {
            return;
        }
        let Some((at, nth)) = self.piece(false, out) else { return };
        if let Some(Piece::Text { text, logprobs, .. }) = self.message(at).and_then(|pieces| pieces.last_mut()) {
            text.push_str(more);
            logprobs.extend_from_slice(more_logprobs);
        }
        if !self.quiet {
            let members = json!({"delta": more, "logprobs": more_logprobs});
            self.in_part("response.output_text.delta", at, nth, members, out);
        }
    }

    fn refusal(&mut self, more: &str, out: &mut Vec<u8>) {
        if more.is_empty() {
            return;
        }
        let Some((at, nth)) = self.piece(true, out) else { return };
        if let Some(Piece::Refusal(text)) = self.message(at).and_then(|pieces| pieces.last_mut()) {
            text.push_str(more);
        }
        self.in_part("response.refusal.delta", at, nth, json!({"delta": more}), out);
    }

    fn has_refusal(&self) -> bool {
        let refuses = |piece: &Piece| matches!(piece, Piece::Refusal(_));
        self.items.iter().any(|item| matches!(&item.body, Body::Message(pieces) if pieces.iter().any(refuses)))
    }

    fn citation(&mut self, citation: &Citation, out: &mut Vec<u8>) {
        let Some(annotation) = annotation(citation) else { return };
        let open = self.open.and_then(|at| Some((at, self.message(at)?)));
        match open.map(|(at, pieces)| (at, pieces.len(), pieces.last())) {
            Some((at, all, Some(Piece::Text { .. }))) => self.annotate(at, all.saturating_sub(1), annotation, out),
            _ => self.citations.push(annotation),
        }
    }

    fn annotate(&mut self, at: usize, nth: usize, annotation: Value, out: &mut Vec<u8>) {
        let Some(Piece::Text { annotations, .. }) = self.message(at).and_then(|pieces| pieces.last_mut()) else {
            return;
        };
        let members = json!({"annotation_index": annotations.len(), "annotation": annotation});
        annotations.push(annotation);
        self.in_part("response.output_text.annotation.added", at, nth, members, out);
    }

    fn in_part(&mut self, kind: &str, at: usize, nth: usize, mut members: Value, out: &mut Vec<u8>) {
        if let Some(members) = members.as_object_mut() {
            members.insert("content_index".to_owned(), nth.into());
        }
        self.in_item(kind, at, members, out);
    }

    fn in_item(&mut self, kind: &str, at: usize, mut members: Value, out: &mut Vec<u8>) {
        if let (Some(members), Some(item)) = (members.as_object_mut(), self.items.get(at)) {
            members.insert("item_id".to_owned(), item.id().into());
            members.insert("output_index".to_owned(), at.into());
        }
        self.emit(kind, members, out);
    }

    // === Reasoning ===

    fn reasoning(&mut self, more: &str, out: &mut Vec<u8>) {
        if more.is_empty() {
            return;
        }
        let is_reasoning = |at: &usize| matches!(self.items.get(*at).map(|it| &it.body), Some(Body::Reasoning { .. }));
        let at = match self.open.filter(is_reasoning) {
            Some(at) => at,
            None => {
                self.close_open(out);
                let at = self.add(Body::Reasoning { text: String::new(), proof: None }, out);
                self.open = Some(at);
                let members = json!({"summary_index": 0, "part": {"type": "summary_text", "text": ""}});
                self.in_item("response.reasoning_summary_part.added", at, members, out);
                at
            }
        };
        if let Some(Body::Reasoning { text, .. }) = self.items.get_mut(at).map(|item| &mut item.body) {
            text.push_str(more);
        }
        let members = json!({"summary_index": 0, "delta": more});
        self.in_item("response.reasoning_summary_text.delta", at, members, out);
    }

    fn reasoning_done(&mut self, part: &ReasoningPart, out: &mut Vec<u8>) {
        let given = proof_of_reasoning(part).filter(|_| self.echo.reasoning_proofs);
        if let Some(at) = self.open
            && let Some(Body::Reasoning { proof, .. }) = self.items.get_mut(at).map(|item| &mut item.body)
        {
            *proof = given;
            return self.close_open(out);
        }
        let is_told = |item: &Item| matches!(&item.body, Body::Reasoning { text, .. } if *text == part.text);
        if !part.text.is_empty() && !self.items.iter().any(is_told) {
            self.reasoning(&part.text, out);
            return self.reasoning_done(part, out);
        }
        if given.is_some() {
            self.close_open(out);
            let at = self.add(Body::Reasoning { text: String::new(), proof: given }, out);
            self.close(at, out);
        }
    }

    /// A proof that belongs to a call, or to the text so far, has an item of its own beside it.
    fn proof(&mut self, index: Option<u32>, signature: &Signature, out: &mut Vec<u8>) {
        let call = index.and_then(|index| self.items.get(*self.calls.get(&index)?)).and_then(|item| match &item.body {
            Body::Call { call_id, .. } => Some(call_id.as_str()),
            _ => None,
        });
        let proof = proof_of_event(call, signature).filter(|_| self.echo.reasoning_proofs);
        if proof.is_some() {
            let at = self.add(Body::Reasoning { text: String::new(), proof }, out);
            self.close(at, out);
        }
    }

    // === Calls ===

    fn arguments(&mut self, index: u32, fragment: &str, out: &mut Vec<u8>) {
        let Some(at) = self.calls.get(&index).copied() else { return };
        let Some(Body::Call { arguments, custom, .. }) = self.items.get_mut(at).map(|item| &mut item.body) else {
            return;
        };
        arguments.push_str(fragment);
        let kind =
            if *custom { "response.custom_tool_call_input.delta" } else { "response.function_call_arguments.delta" };
        if !self.quiet {
            self.in_item(kind, at, json!({"delta": fragment}), out);
        }
    }
}

impl StreamWriter for Writer {
    fn write(&mut self, event: &ChatEvent, out: &mut Vec<u8>) {
        self.take(event, out);
    }

    fn end(&mut self, told: Option<&Told>, cost: Option<CostTag>, out: &mut Vec<u8>) {
        let response = self.complete(told, out);
        let kind = if self.cut_short().is_some() { "response.incomplete" } else { "response.completed" };
        let event = json!({"type": kind, "sequence_number": self.sequence, "response": response}).to_string();
        let tagged = cost.and_then(|cost| cost.write_into(event.as_bytes(), &["response", "usage"]));
        sse::write_event(out, kind, &tagged.unwrap_or_else(|| event.into_bytes()));
    }

    /// What was written so far stays, and the response has failed. Before a stream that somebody else has begun there
    /// is no response to tell of, only the error.
    fn fail(&mut self, problem: &Problem, request_id: &str, out: &mut Vec<u8>) {
        let error = problem.body(Dialect::OpenAi, request_id);
        let told = |name: &str| error.pointer(&format!("/error/{name}")).cloned().unwrap_or_default();
        if !self.begun {
            let members = json!({"code": told("code"), "message": told("message"), "param": told("param")});
            return self.emit("error", members, out);
        }
        let mut response = self.response("failed");
        response.insert("error".to_owned(), json!({"code": told("code"), "message": told("message")}));
        self.emit("response.failed", json!({"response": response}), out);
    }
}
