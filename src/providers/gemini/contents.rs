//! The conversation, as contents.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::family::Age;
use super::{Host, Wire};
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::{ChatRequest, Lineage, List, Part, PartBody, Place, Role, Signature, Source};
use crate::providers::notes::Notes;
use crate::providers::turns::{Speaker, call_names, turns};

/// What stands for the proof of a call where there is none: the call was made by another model, or the caller lost it.
/// <https://ai.google.dev/gemini-api/docs/thought-signatures>
const NO_PROOF: &str = "skip_thought_signature_validator";

/// What is said where nothing is, but something has to be.
const FILLER: &str = ".";

/// Where files lie that were uploaded to the Gemini API.
const FILES: &str = "https://generativelanguage.googleapis.com/";

/// What the results of tools may have as parts of their own.
const IN_RESULTS: &[&str] = &["image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain"];

/// Media types by the extension of a file's name.
const EXTENSIONS: &[(&str, &str)] = &[
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("pdf", "application/pdf"),
    ("txt", "text/plain"),
    ("md", "text/plain"),
    ("csv", "text/plain"),
    ("html", "text/plain"),
    ("json", "text/plain"),
    ("mp3", "audio/mp3"),
    ("wav", "audio/wav"),
    ("ogg", "audio/ogg"),
    ("flac", "audio/flac"),
    ("aac", "audio/aac"),
    ("aiff", "audio/aiff"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("mov", "video/mov"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
];

/// A conversation.
pub(super) struct Conversation {
    /// The parts of the instructions.
    pub(super) instructions: Vec<Value>,
    /// The rest.
    pub(super) contents: Vec<Value>,
}

/// Writes the conversation.
///
/// # Errors
/// A 400 naming what cannot be written.
pub(super) fn write(chat: &ChatRequest, wire: Wire, notes: &mut Notes) -> Result<Conversation, Problem> {
    let is_instruction = |role: Role| matches!(role, Role::System | Role::Developer);
    let leading = chat.messages.iter().take_while(|message| is_instruction(message.role)).count();
    let mut instructions: Vec<&str> = chat.instructions.iter().map(|part| part.text.as_str()).collect();
    for part in chat.messages.iter().take(leading).flat_map(|message| &message.parts) {
        match &part.body {
            PartBody::Text { text, .. } => instructions.push(text),
            _ => return Err(invalid(part.at, "only text is allowed in instructions.")),
        }
    }
    let mut instructions: Vec<Value> =
        instructions.iter().filter(|text| !text.is_empty()).map(|text| json!({"text": text})).collect();

    let rest: Vec<_> = chat.messages.iter().skip(leading).collect();
    let mut writer = Writer { wire, origin: chat.origin, names: call_names(chat), notes };
    let mut contents = Vec::new();
    for turn in turns(&rest) {
        match turn.speaker {
            Speaker::User => writer.user(&turn.parts, &mut contents)?,
            Speaker::Assistant => {
                let parts = writer.model(&turn.parts)?;
                if !parts.is_empty() {
                    if contents.is_empty() {
                        contents.push(content("user", vec![json!({"text": FILLER})]));
                    }
                    contents.push(content("model", parts));
                }
            }
        }
    }
    let is_models = |content: &Value| content.get("role").is_some_and(|role| role == "model");
    if !wire.family.traits.prefill && contents.last().is_some_and(is_models) {
        writer.notes.drop_named("prefill")?;
        contents.push(content("user", vec![json!({"text": "Go on from where you stopped."})]));
    }
    if !wire.family.traits.system && !instructions.is_empty() {
        match contents.first_mut().and_then(|first| first.get_mut("parts")?.as_array_mut()) {
            Some(first) => _ = first.splice(0..0, instructions.drain(..)),
            None => contents.push(content("user", std::mem::take(&mut instructions))),
        }
    }
    if contents.is_empty() {
        contents.push(content("user", vec![json!({"text": FILLER})]));
    }
    Ok(Conversation { instructions, contents })
}

fn content(role: &str, parts: Vec<Value>) -> Value {
    json!({"role": role, "parts": parts})
}

fn invalid(at: Place, what: &str) -> Problem {
    Problem::invalid(&at.to_string(), format!("{at}: {what}"))
}

/// A proof of Gemini's own; those of others say nothing to it.
fn proof(signature: Option<&Signature>) -> Option<&str> {
    let own = signature.filter(|signature| signature.family == Lineage::Gemini && !signature.value.is_empty())?;
    Some(&own.value)
}

fn with_proof(mut part: Value, proof: Option<&str>) -> Value {
    if let (Some(part), Some(proof)) = (part.as_object_mut(), proof) {
        part.insert("thoughtSignature".to_owned(), proof.into());
    }
    part
}

struct Writer<'w> {
    wire: Wire,
    origin: Api,
    names: BTreeMap<&'w str, &'w str>,
    notes: &'w mut Notes,
}

impl Writer<'_> {
    /// A turn of the user's. Results are a content of their own: with anything beside them they have been taken for
    /// the model's.
    fn user(&mut self, parts: &[&Part], contents: &mut Vec<Value>) -> Result<(), Problem> {
        let (mut results, mut others) = (Vec::new(), Vec::new());
        for part in parts {
            match &part.body {
                PartBody::Result { .. } => results.push(self.result(part, &mut others)?),
                _ => self.part(part, &mut others)?,
            }
        }
        if results.is_empty() && others.is_empty() {
            others.push(json!({"text": FILLER}));
        }
        for parts in [results, others] {
            if !parts.is_empty() {
                contents.push(content("user", parts));
            }
        }
        Ok(())
    }

    /// A turn of the model's. Proofs go back where they came: at the part that they came with.
    fn model(&mut self, parts: &[&Part]) -> Result<Vec<Value>, Problem> {
        let mut out = Vec::new();
        let mut is_first = true;
        let mut carried = None;
        for (nth, part) in parts.iter().enumerate() {
            match &part.body {
                PartBody::Reasoning(reasoning) => {
                    let Some(own) = proof(reasoning.signature.as_ref()) else { continue };
                    // Dialects that have no place for a proof at a call put it into a block of reasoning before it.
                    let next = parts.get(nth.saturating_add(1)).map(|part| &part.body);
                    if let Some(PartBody::Call { signature, .. }) = next
                        && proof(signature.as_ref()).is_none()
                    {
                        carried = Some(own);
                        continue;
                    }
                    let mut thought = json!({"text": reasoning.text});
                    if !reasoning.text.is_empty() {
                        thought = json!({"text": reasoning.text, "thought": true});
                    }
                    out.push(with_proof(thought, Some(own)));
                }
                PartBody::Call { id, name, arguments, signature, .. } => {
                    let args = arguments_object(arguments, part.at)?;
                    let mut call = json!({"name": name, "args": args});
                    self.identify(&mut call, id);
                    let needs_one = is_first && self.wire.family.age >= Age::Three;
                    let own = proof(signature.as_ref()).or(carried.take()).or(needs_one.then_some(NO_PROOF));
                    is_first = false;
                    out.push(with_proof(json!({"functionCall": call}), own));
                }
                _ => self.part(part, &mut out)?,
            }
        }
        Ok(out)
    }

    /// Vertex refuses ids.
    fn identify(&self, of: &mut Value, id: &str) {
        if let (Host::GeminiApi, Some(of)) = (self.wire.host, of.as_object_mut()) {
            of.insert("id".to_owned(), id.into());
        }
    }

    /// A part that either side may say.
    fn part(&mut self, part: &Part, out: &mut Vec<Value>) -> Result<(), Problem> {
        match &part.body {
            PartBody::Text { text, signature } => {
                let proof = proof(signature.as_ref());
                if !text.is_empty() || proof.is_some() {
                    out.push(with_proof(json!({"text": text}), proof));
                }
            }
            PartBody::Refusal(text) if !text.is_empty() => out.push(json!({"text": text})),
            PartBody::Document { context, cite, .. } => {
                if *cite {
                    self.notes.drop_named(&format!("{}.citations", part.at))?;
                }
                out.extend(context.iter().map(|context| json!({"text": context})));
                out.extend(self.medium(part)?);
            }
            PartBody::Hosted { family: Lineage::Gemini, value } => out.extend(self.own_words(value)),
            PartBody::Hosted { .. } => self.notes.drop_named(&part.at.to_string())?,
            _ => out.extend(self.medium(part)?),
        }
        Ok(())
    }

    /// What a tool of Google's did goes back as it was told, but for members that no message declares.
    fn own_words(&self, value: &Value) -> Option<Value> {
        let known: &[&str] = match self.wire.host {
            Host::GeminiApi => &["executableCode", "codeExecutionResult", "toolCall", "toolResponse"],
            Host::Vertex => &["executableCode", "codeExecutionResult"],
        };
        let (name, words) = known.iter().find_map(|name| Some((*name, value.get(name)?)))?;
        let mut part = Map::new();
        part.insert(name.to_owned(), words.clone());
        Some(with_proof(Value::Object(part), value.get("thoughtSignature").and_then(Value::as_str)))
    }

    /// A result. What cannot stand in it stands after it.
    fn result(&mut self, part: &Part, after: &mut Vec<Value>) -> Result<Value, Problem> {
        let PartBody::Result { id, name, parts, is_error } = &part.body else { return Ok(Value::Null) };
        let Some(name) = name.as_deref().or_else(|| self.names.get(id.as_str()).copied()) else {
            let member = match (part.at.list, self.origin) {
                (List::Input, _) => "call_id",
                (_, Api::Messages) => "tool_use_id",
                _ => "tool_call_id",
            };
            let at = format!("{}.{member}", part.at);
            let advice = "no call before it has this id; send the message with the call, too.";
            return Err(Problem::invalid(&at, format!("{at}: {advice}")));
        };
        let mut texts: Vec<&str> = Vec::new();
        let mut media = Vec::new();
        for part in parts {
            match &part.body {
                PartBody::Text { text, .. } | PartBody::Refusal(text) => texts.push(text),
                PartBody::Document { context, .. } => texts.extend(context.as_deref()),
                _ => {}
            }
            if let Some(medium) = self.medium(part)? {
                let kind = medium.pointer("/inlineData/mimeType").and_then(Value::as_str);
                let fits = self.wire.family.age >= Age::Three && kind.is_some_and(|kind| IN_RESULTS.contains(&kind));
                if fits { media.push(medium) } else { after.push(medium) }
            }
        }
        let text = texts.join("\n");
        let response = match serde_json::from_str(&text) {
            Ok(Value::Object(object)) if !is_error => Value::Object(object),
            _ => json!({if *is_error { "error" } else { "output" }: text}),
        };
        let mut result = json!({"name": name, "response": response});
        self.identify(&mut result, id);
        if let (false, Some(result)) = (media.is_empty(), result.as_object_mut()) {
            result.insert("parts".to_owned(), media.into());
        }
        Ok(json!({"functionResponse": result}))
    }

    /// A picture, document, sound or moving picture; `None` for what is none.
    fn medium(&self, part: &Part) -> Result<Option<Value>, Problem> {
        let (source, usual) = match &part.body {
            PartBody::Image { source, .. } => (source, "image/jpeg".to_owned()),
            PartBody::Document { source, name, .. } => {
                let named = name.as_deref().and_then(by_extension);
                (source, named.unwrap_or("application/pdf").to_owned())
            }
            PartBody::Audio { source, format } if format.is_empty() => (source, "audio/wav".to_owned()),
            PartBody::Audio { source, format } => (source, format!("audio/{format}")),
            PartBody::Video { source } => (source, "video/mp4".to_owned()),
            _ => return Ok(None),
        };
        Ok(Some(match source {
            Source::Base64 { media_type, data } => {
                let media_type = if media_type.is_empty() { &usual } else { media_type };
                json!({"inlineData": {"mimeType": as_taken(media_type), "data": data}})
            }
            Source::Text { media_type, text } => {
                let media_type = if media_type.is_empty() { "text/plain" } else { media_type };
                json!({"inlineData": {"mimeType": as_taken(media_type), "data": STANDARD.encode(text)}})
            }
            Source::Url(url) if url.starts_with(FILES) => json!({"fileData": {"fileUri": url}}),
            Source::Url(url) if url.starts_with("https://") || url.starts_with("gs://") => {
                let path = url.split(['?', '#']).next().unwrap_or_default();
                json!({"fileData": {"mimeType": by_extension(path).unwrap_or(&usual), "fileUri": url}})
            }
            Source::Url(_) => {
                return Err(invalid(part.at, "the address must begin with `https://`; or give the file inline."));
            }
            Source::File { id, .. } => match self.wire.host {
                Host::GeminiApi if id.starts_with(FILES) => json!({"fileData": {"fileUri": id}}),
                Host::GeminiApi if id.starts_with("files/") => {
                    json!({"fileData": {"fileUri": format!("{FILES}v1beta/{id}")}})
                }
                Host::GeminiApi => {
                    let advice = "ids of files at this provider begin with `files/`; or give the file inline.";
                    return Err(invalid(part.at, advice));
                }
                Host::Vertex => {
                    let advice = "this provider keeps no files; give it inline or by an address.";
                    return Err(invalid(part.at, advice));
                }
            },
        }))
    }
}

/// Text of whatever kind is taken as plain text.
fn as_taken(media_type: &str) -> &str {
    match media_type {
        "application/json" => "text/plain",
        text if text.starts_with("text/") => "text/plain",
        other => other,
    }
}

fn by_extension(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    let known = |(known, _): &&(&str, &str)| known.eq_ignore_ascii_case(extension);
    EXTENSIONS.iter().find(known).map(|(_, media_type)| *media_type)
}

/// The arguments of a call: a JSON object.
fn arguments_object(arguments: &str, at: Place) -> Result<Value, Problem> {
    if arguments.trim().is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_str(arguments) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        _ => Err(invalid(at, "the arguments must be a JSON object.")),
    }
}
