//! The conversation. It is taken in the strictest form only: an odd number of messages, the user and the model in
//! turns, the user first and last, none of them empty, one call a message, and the result of a call right behind it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::{ChatRequest, List, Part, PartBody};
use crate::providers::notes::Notes;
use crate::providers::turns::{Speaker, call_names, hoist, turns};
use crate::providers::words::{FILLER, arguments, invalid, result, words};

/// What the user says where the model has spoken last.
const GO_ON: &str = "Continue.";

/// A conversation.
pub(super) struct Conversation {
    /// The instructions.
    pub(super) system: Vec<String>,
    /// The rest.
    pub(super) messages: Vec<Value>,
}

/// What is said at a time.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// Something of the user's.
    User(String),
    /// Something of the model's.
    Model(String),
    /// A call, and what is said with it.
    Call { words: String, name: String, arguments: String },
    /// What came of the call before it.
    Result { name: String, content: String },
}

/// Writes the conversation.
///
/// # Errors
/// A 400 naming what cannot be written.
pub(super) fn write(chat: &ChatRequest, notes: &mut Notes) -> Result<Conversation, Problem> {
    let (instructions, rest) = hoist(chat)?;
    let system = instructions.into_iter().map(|part| part.text).filter(|text| !text.trim().is_empty()).collect();
    let turns = turns(&rest);
    let names = call_names(chat);
    let mut said = Vec::new();
    for (nth, turn) in turns.iter().enumerate() {
        match turn.speaker {
            Speaker::User => {
                for part in &turn.parts {
                    match &part.body {
                        PartBody::Result { id, .. } if names.contains_key(id.as_str()) => {}
                        PartBody::Result { .. } => return Err(without_call(part, chat.origin)),
                        _ => said.extend(text(part, notes)?.map(Said::User)),
                    }
                }
            }
            Speaker::Assistant => {
                let next = turns.get(nth.saturating_add(1)).map(|turn| turn.parts.as_slice()).unwrap_or_default();
                let mut results = results(next)?;
                for part in &turn.parts {
                    let PartBody::Call { id, name, arguments: given, .. } = &part.body else {
                        said.extend(text(part, notes)?.map(Said::Model));
                        continue;
                    };
                    let (name, arguments) = (name.clone(), arguments(part, given)?);
                    said.push(Said::Call { words: String::new(), name: name.clone(), arguments });
                    said.extend(results.remove(id.as_str()).map(|content| Said::Result { name, content }));
                }
            }
        }
    }
    if let Some(Said::Model(_)) = said.last() {
        // It begins anew instead of going on with its own words.
        let last = rest.last().map(|message| message.at.to_string()).unwrap_or_default();
        notes.drop_named(&last)?;
    }
    let messages = in_turns(said).iter().map(message).collect();
    Ok(Conversation { system, messages })
}

fn text(part: &Part, notes: &mut Notes) -> Result<Option<String>, Problem> {
    if matches!(part.body, PartBody::Hosted { .. }) {
        notes.drop_named(&part.at.to_string())?;
    }
    Ok(words(part)?.filter(|text| !text.trim().is_empty()).map(|text| text.into_owned()))
}

/// The results in a turn, by the ids of their calls.
fn results<'a>(parts: &[&'a Part]) -> Result<BTreeMap<&'a str, String>, Problem> {
    let mut results = BTreeMap::new();
    for part in parts {
        if let PartBody::Result { id, parts, is_error, .. } = &part.body {
            results.insert(id.as_str(), result(parts, *is_error)?);
        }
    }
    Ok(results)
}

fn without_call(part: &Part, origin: Api) -> Problem {
    let member = match (part.at.list, origin) {
        (List::Input, _) => "call_id",
        (_, Api::Messages) => "tool_use_id",
        _ => "tool_call_id",
    };
    invalid(part, &format!("no call before it has its `{member}`; send the message with the call, too."))
}

/// Puts what is said into turns: what one side says twice is said at once, and where one side has to speak it says as
/// little as can be.
pub(super) fn in_turns(said: Vec<Said>) -> Vec<Said> {
    let filler = || FILLER.to_owned();
    let mut out: Vec<Said> = Vec::with_capacity(said.len().saturating_add(2));
    for next in said {
        match (out.last_mut(), next) {
            (None, next @ (Said::Model(_) | Said::Call { .. })) => out.extend([Said::User(filler()), next]),
            (Some(Said::User(before)), Said::User(more)) | (Some(Said::Model(before)), Said::Model(more)) => {
                before.push_str("\n\n");
                before.push_str(&more);
            }
            (Some(Said::Model(before)), Said::Call { name, arguments, .. }) => {
                let words = std::mem::take(before);
                out.pop();
                out.push(Said::Call { words, name, arguments });
            }
            (Some(Said::Call { name, .. }), next @ (Said::Model(_) | Said::Call { .. })) => {
                let answer = Said::Result { name: name.clone(), content: filler() };
                out.extend([answer, next]);
            }
            (Some(Said::Result { .. } | Said::User(_)), next @ (Said::User(_) | Said::Result { .. })) => {
                out.extend([Said::Model(filler()), next]);
            }
            (_, next) => out.push(next),
        }
    }
    match out.last() {
        None => out.push(Said::User(filler())),
        Some(Said::Model(_)) => out.push(Said::User(GO_ON.to_owned())),
        Some(Said::Call { name, .. }) => {
            let answer = Said::Result { name: name.clone(), content: filler() };
            out.push(answer);
        }
        Some(_) => {}
    }
    out
}

fn message(said: &Said) -> Value {
    match said {
        Said::User(text) => json!({"role": "user", "content": text}),
        Said::Model(text) => json!({"role": "assistant", "content": text}),
        Said::Call { words, name, arguments } => {
            json!({"role": "assistant", "content": words, "function_call": {"name": name, "arguments": arguments}})
        }
        Said::Result { name, content } => {
            let content = if content.trim().is_empty() { FILLER } else { content };
            json!({"role": "function", "name": name, "content": content})
        }
    }
}
