//! The items of a response.

use serde_json::{Value, json};

use crate::protocol::chat::{Citation, Lineage, Part, PartBody, ReasoningPart, Signature};

/// An item.
#[derive(Debug)]
pub(super) struct Item {
    id: String,
    pub(super) body: Body,
    pub(super) status: &'static str,
}

/// What it is.
#[derive(Debug)]
pub(super) enum Body {
    /// A message.
    Message(Vec<Piece>),
    /// Reasoning: what is shown of it, and its proof.
    Reasoning {
        /// What is shown.
        text: String,
        /// `encrypted_content`.
        proof: Option<String>,
    },
    /// A call of a tool of the caller's.
    Call {
        /// The call's id.
        call_id: String,
        /// The tool's name.
        name: String,
        /// JSON text, or the free text of a custom tool.
        arguments: String,
        /// Whether the tool takes free text.
        custom: bool,
    },
    /// Anything else, complete.
    Whole(Value),
}

/// A part of a message.
#[derive(Debug)]
pub(super) enum Piece {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Its sources.
        annotations: Vec<Value>,
        /// The probabilities of its tokens.
        logprobs: Vec<Value>,
    },
    /// A refusal.
    Refusal(String),
}

impl Piece {
    /// Text, none yet.
    pub(super) fn text() -> Self {
        Self::Text { text: String::new(), annotations: Vec::new(), logprobs: Vec::new() }
    }

    /// As it stands in a message.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Text { text, annotations, logprobs } => {
                json!({"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs})
            }
            Self::Refusal(refusal) => json!({"type": "refusal", "refusal": refusal}),
        }
    }
}

impl Body {
    /// What its id begins with.
    pub(super) fn prefix(&self) -> &'static str {
        match self {
            Self::Message(_) => "msg",
            Self::Reasoning { .. } => "rs",
            Self::Call { custom: false, .. } => "fc",
            Self::Call { custom: true, .. } => "ctc",
            Self::Whole(_) => "item",
        }
    }
}

impl Item {
    /// An item that is open.
    pub(super) fn new(id: String, body: Body) -> Self {
        Self { id, body, status: "in_progress" }
    }

    /// Its id.
    pub(super) fn id(&self) -> &str {
        match &self.body {
            Body::Whole(item) => item.get("id").and_then(Value::as_str).unwrap_or(&self.id),
            _ => &self.id,
        }
    }

    /// As it stands in `output`.
    pub(super) fn to_json(&self) -> Value {
        let Self { id, body, status } = self;
        match body {
            Body::Message(pieces) => {
                let content: Vec<Value> = pieces.iter().map(Piece::to_json).collect();
                json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
            }
            Body::Reasoning { text, proof } => {
                let summary = if text.is_empty() { json!([]) } else { json!([{"type": "summary_text", "text": text}]) };
                let mut item = json!({"id": id, "type": "reasoning", "summary": summary});
                if let (Some(proof), Some(item)) = (proof, item.as_object_mut()) {
                    item.insert("encrypted_content".to_owned(), proof.as_str().into());
                }
                item
            }
            Body::Call { call_id, name, arguments, custom: false } => json!({
                "id": id, "type": "function_call", "status": status,
                "call_id": call_id, "name": name, "arguments": arguments,
            }),
            Body::Call { call_id, name, arguments, custom: true } => json!({
                "id": id, "type": "custom_tool_call", "status": status,
                "call_id": call_id, "name": name, "input": arguments,
            }),
            Body::Whole(item) => item.clone(),
        }
    }

    /// The events that end what is open within it, it being the item of this number.
    pub(super) fn ends(&self, at: usize) -> Vec<(&'static str, Value)> {
        let id = &self.id;
        match &self.body {
            Body::Message(pieces) => {
                let Some(piece) = pieces.last() else { return Vec::new() };
                let nth = pieces.len().saturating_sub(1);
                let place = |kind, mut members: Value| {
                    if let Some(members) = members.as_object_mut() {
                        members.insert("item_id".to_owned(), id.as_str().into());
                        members.insert("output_index".to_owned(), at.into());
                        members.insert("content_index".to_owned(), nth.into());
                    }
                    (kind, members)
                };
                let done = match piece {
                    Piece::Text { text, logprobs, .. } => {
                        place("response.output_text.done", json!({"text": text, "logprobs": logprobs}))
                    }
                    Piece::Refusal(refusal) => place("response.refusal.done", json!({"refusal": refusal})),
                };
                vec![done, place("response.content_part.done", json!({"part": piece.to_json()}))]
            }
            Body::Reasoning { text, .. } if !text.is_empty() => {
                let part = json!({"type": "summary_text", "text": text});
                let place = json!({"item_id": id, "output_index": at, "summary_index": 0});
                vec![
                    ("response.reasoning_summary_text.done", with(&place, "text", text.as_str().into())),
                    ("response.reasoning_summary_part.done", with(&place, "part", part)),
                ]
            }
            Body::Call { arguments, custom, name, .. } => {
                let place = json!({"item_id": id, "output_index": at});
                let arguments = Value::from(arguments.as_str());
                vec![if *custom {
                    ("response.custom_tool_call_input.done", with(&place, "input", arguments))
                } else {
                    let place = with(&place, "name", name.as_str().into());
                    ("response.function_call_arguments.done", with(&place, "arguments", arguments))
                }]
            }
            Body::Reasoning { .. } | Body::Whole(_) => Vec::new(),
        }
    }
}

fn with(members: &Value, name: &str, value: Value) -> Value {
    let mut members = members.clone();
    if let Some(members) = members.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
    members
}

/// A source as an annotation; Chat Completions nests what stands flat here. `None` if there is nothing to point at.
pub(super) fn annotation(citation: &Citation) -> Option<Value> {
    if let Some((Lineage::OpenAi | Lineage::Xai | Lineage::OpenRouter, Value::Object(native))) = &citation.native
        && let Some(kind) = native.get("type").and_then(Value::as_str)
    {
        let mut flat = native.clone();
        if let Some(Value::Object(nested)) = flat.remove(kind) {
            flat.extend(nested);
        }
        return Some(Value::Object(flat));
    }
    if let Some(place) = citation.in_document() {
        let number = place.get("document_index").or_else(|| place.get("search_result_index"));
        let id = format!("document_{}", number.and_then(Value::as_u64).unwrap_or(0));
        let at = citation.end.or(citation.start).unwrap_or(0);
        let name = citation.title.as_ref().unwrap_or(&id);
        return Some(json!({"type": "file_citation", "file_id": id, "filename": name, "index": at}));
    }
    let url = citation.url.as_ref()?;
    Some(json!({
        "type": "url_citation",
        "url": url,
        "title": citation.title.as_ref().unwrap_or(url),
        "start_index": citation.start.unwrap_or(0),
        "end_index": citation.end.or(citation.start).unwrap_or(0),
    }))
}

/// What a provider's own tool did, if it is an item of this API.
pub(super) fn hosted(family: Lineage, value: &Value) -> Option<Value> {
    let is_item = matches!(family, Lineage::OpenAi | Lineage::Xai) && value.get("type").is_some_and(Value::is_string);
    is_item.then(|| value.clone())
}

// === Proofs ===
// `encrypted_content` is this API's only place for the proofs of other families. Their envelopes hold the proof itself,
// or, as JSON, a block that is encrypted whole, or a proof that belongs to something beside the reasoning.

/// The proof of a block of reasoning.
pub(super) fn proof_of_reasoning(part: &ReasoningPart) -> Option<String> {
    let Some(redacted) = &part.redacted else { return Some(part.signature.as_ref()?.write(Lineage::OpenAi)) };
    let value = json!({"redacted": redacted}).to_string();
    Some(Signature { family: Lineage::Anthropic, value }.write(Lineage::OpenAi))
}

/// A proof that belongs to a call, or to text.
pub(super) fn proof_of_event(call: Option<&str>, signature: &Signature) -> Option<String> {
    let value = json!({"proof": signature.value, "call": call}).to_string();
    (signature.family != Lineage::OpenAi).then(|| Signature { value, ..signature.clone() }.write(Lineage::OpenAi))
}

/// Reads a reasoning item's `encrypted_content` into its block, or into the part of the turn so far that it belongs to.
/// Whether there is a block.
pub(super) fn read_proof(text: &str, block: &mut ReasoningPart, turn: &mut [Part]) -> bool {
    let proof = Signature::read(text, Lineage::OpenAi);
    let foreign = (proof.family != Lineage::OpenAi).then_some(proof.value.as_str());
    let told: Option<Value> = foreign.and_then(|value| serde_json::from_str(value).ok());
    let word = |name: &str| told.as_ref()?.get(name)?.as_str().map(str::to_owned);
    if let Some(redacted) = word("redacted") {
        block.redacted = Some(redacted);
        return true;
    }
    let Some(value) = word("proof") else {
        block.signature = Some(proof);
        return true;
    };
    let call = word("call");
    let place = turn.iter_mut().rev().find_map(|part| match (&mut part.body, &call) {
        (PartBody::Call { id, signature, .. }, Some(call)) if id == call => Some(signature),
        (PartBody::Text { signature, .. }, None) => Some(signature),
        _ => None,
    });
    if let Some(place) = place {
        *place = Some(Signature { family: proof.family, value });
    }
    false
}
