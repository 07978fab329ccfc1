//! The conversation.

use serde_json::{Map, Value, json};

use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, Part, PartBody, Role, Source};
use crate::providers::families::Traits;
use crate::providers::notes::Notes;
use crate::providers::turns::hoist;
use crate::providers::words::{FILLER, arguments, document, invalid, result, words};

/// A conversation.
pub(super) struct Written {
    /// The messages.
    pub(super) messages: Vec<Value>,
    /// The documents among them that the answer is to cite.
    pub(super) documents: Vec<Value>,
}

/// Writes the conversation; with `cites` documents stand beside it.
///
/// # Errors
/// A 400 naming what cannot be written.
pub(super) fn write(chat: &ChatRequest, traits: &Traits, cites: bool, notes: &mut Notes) -> Result<Written, Problem> {
    // Instructions are taken first of all only.
    let (instructions, rest) = hoist(chat)?;
    let instructions: Vec<&str> = instructions.iter().map(|part| part.text.as_str()).collect();
    let mut writer = Writer { traits, cites, notes, messages: Vec::new(), documents: Vec::new(), shown: Vec::new() };
    let instructions = instructions.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n");
    if !instructions.is_empty() {
        writer.messages.push(json!({"role": "system", "content": instructions}));
    }
    let before = writer.messages.len();
    for message in rest {
        if message.role == Role::Assistant { writer.assistant(&message.parts) } else { writer.user(&message.parts) }?;
    }
    writer.show();
    if writer.messages.len() == before {
        writer.messages.push(json!({"role": "user", "content": FILLER}));
    }
    Ok(Written { messages: writer.messages, documents: writer.documents })
}

struct Writer<'w> {
    traits: &'w Traits,
    cites: bool,
    notes: &'w mut Notes,
    messages: Vec<Value>,
    documents: Vec<Value>,
    /// Pictures among the results of tools, which are words only here: they follow in a turn of the user's.
    shown: Vec<Value>,
}

impl Writer<'_> {
    fn show(&mut self) {
        if !self.shown.is_empty() {
            self.messages.push(json!({"role": "user", "content": std::mem::take(&mut self.shown)}));
        }
    }

    /// What the user says, behind the results of tools that come with it.
    fn user(&mut self, parts: &[Part]) -> Result<(), Problem> {
        let mut content = Vec::new();
        for part in parts {
            match &part.body {
                PartBody::Result { id, parts, is_error, .. } => {
                    for part in parts {
                        if let PartBody::Image { source, detail } = &part.body {
                            self.shown.push(picture(part, source, detail.as_deref())?);
                        }
                    }
                    let told = |part: &&Part| !matches!(part.body, PartBody::Image { .. });
                    let content = result(parts.iter().filter(told), *is_error)?;
                    let content = if content.is_empty() { FILLER } else { &content };
                    self.messages.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
                }
                PartBody::Image { source, detail } => content.push(picture(part, source, detail.as_deref())?),
                PartBody::Document { name, context, .. } if self.cites && document(part)?.is_some() => {
                    content.extend(context.iter().map(|context| json!({"type": "text", "text": context})));
                    let text = document(part)?.unwrap_or_default();
                    let nth = self.documents.len();
                    let title = name.clone().unwrap_or_else(|| format!("Document {}", nth.saturating_add(1)));
                    let data = json!({"title": title, "text": text});
                    self.documents.push(json!({"id": format!("doc_{nth}"), "data": data}));
                }
                PartBody::Hosted { .. } => self.notes.drop_named(&part.at.to_string())?,
                _ => content.extend(words(part)?.map(|text| json!({"type": "text", "text": text}))),
            }
        }
        let only_results = parts.iter().all(|part| matches!(part.body, PartBody::Result { .. }));
        if !only_results {
            self.show();
            self.messages.push(json!({"role": "user", "content": plain(content)}));
        }
        Ok(())
    }

    /// What the model has said. Beside calls its words are a plan, and so are the thoughts of models that do not tell
    /// them apart.
    fn assistant(&mut self, parts: &[Part]) -> Result<(), Problem> {
        self.show();
        let (mut content, mut plan, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        let has_calls = parts.iter().any(|part| matches!(part.body, PartBody::Call { .. }));
        for part in parts {
            match &part.body {
                PartBody::Reasoning(thought) if thought.text.is_empty() || thought.signature.is_some() => {}
                PartBody::Reasoning(thought) if self.traits.reasons => {
                    content.push(json!({"type": "thinking", "thinking": thought.text}));
                }
                PartBody::Reasoning(thought) if has_calls => plan.push(thought.text.clone()),
                PartBody::Call { id, name, arguments: given, .. } => {
                    let function = json!({"name": name, "arguments": arguments(part, given)?});
                    calls.push(json!({"id": id, "type": "function", "function": function}));
                }
                PartBody::Hosted { .. } => self.notes.drop_named(&part.at.to_string())?,
                _ => match words(part)? {
                    Some(text) if has_calls => plan.push(text.into_owned()),
                    Some(text) => content.push(json!({"type": "text", "text": text})),
                    None => {}
                },
            }
        }
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        if !content.is_empty() {
            message.insert("content".to_owned(), plain(content));
        }
        if !plan.is_empty() {
            message.insert("tool_plan".to_owned(), plan.join("\n\n").into());
        }
        if has_calls {
            message.insert("tool_calls".to_owned(), calls.into());
        }
        // One that says nothing is refused.
        if message.contains_key("content") || has_calls {
            self.messages.push(Value::Object(message));
        }
        Ok(())
    }
}

fn picture(part: &Part, source: &Source, detail: Option<&str>) -> Result<Value, Problem> {
    let Some(url) = source.to_url() else {
        return Err(invalid(part, "this provider keeps no files; give it inline or by an address."));
    };
    let mut image = json!({"url": url});
    if let (Some(detail), Some(image)) = (detail, image.as_object_mut()) {
        image.insert("detail".to_owned(), detail.into());
    }
    Ok(json!({"type": "image_url", "image_url": image}))
}

/// The content: one text alone as such.
fn plain(mut parts: Vec<Value>) -> Value {
    match parts.as_mut_slice() {
        [] => FILLER.into(),
        [part] if part.get("type").is_some_and(|kind| kind == "text") => {
            part.get_mut("text").map(Value::take).unwrap_or_default()
        }
        _ => parts.into(),
    }
}
