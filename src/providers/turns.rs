//! A conversation in the order that stricter providers want: instructions apart, and turns of the user's and the
//! model's that alternate.

use std::collections::BTreeMap;

use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, Message, Part, PartBody, Role, TextPart};

/// Who speaks in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The user, and the results of tools.
    User,
    /// The model.
    Assistant,
}

/// What one side says before the other does.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn<'a> {
    /// Which side.
    pub speaker: Speaker,
    /// What it says, in order.
    pub parts: Vec<&'a Part>,
}

/// All instructions, wherever they stand, and the rest of the conversation.
///
/// # Errors
/// A 400 if instructions are anything but text.
pub fn hoist(chat: &ChatRequest) -> Result<(Vec<TextPart>, Vec<&Message>), Problem> {
    let mut instructions = chat.instructions.clone();
    let mut rest = Vec::with_capacity(chat.messages.len());
    for message in &chat.messages {
        if !matches!(message.role, Role::System | Role::Developer) {
            rest.push(message);
            continue;
        }
        for part in &message.parts {
            match &part.body {
                PartBody::Text { text, .. } => {
                    instructions.push(TextPart { text: text.clone(), cache: part.cache.clone() });
                }
                _ => {
                    let at = part.at.to_string();
                    return Err(Problem::invalid(&at, format!("{at}: only text is allowed in instructions.")));
                }
            }
        }
    }
    Ok((instructions, rest))
}

/// Turns that alternate: what one side says in several messages is one turn of it, and in a turn of the user's the
/// results of tools come first. Empty messages are left out; instructions count as the user's.
pub fn turns<'a>(messages: &[&'a Message]) -> Vec<Turn<'a>> {
    let mut turns: Vec<Turn<'a>> = Vec::new();
    for message in messages.iter().filter(|message| !message.parts.is_empty()) {
        let speaker = if message.role == Role::Assistant { Speaker::Assistant } else { Speaker::User };
        match turns.last_mut() {
            Some(turn) if turn.speaker == speaker => turn.parts.extend(&message.parts),
            _ => turns.push(Turn { speaker, parts: message.parts.iter().collect() }),
        }
    }
    for turn in turns.iter_mut().filter(|turn| turn.speaker == Speaker::User) {
        turn.parts.sort_by_key(|part| !matches!(part.body, PartBody::Result { .. }));
    }
    turns
}

/// The names of the tools that have been called, by the calls' ids.
pub fn call_names(chat: &ChatRequest) -> BTreeMap<&str, &str> {
    let parts = chat.messages.iter().flat_map(|message| &message.parts);
    parts
        .filter_map(|part| match &part.body {
            PartBody::Call { id, name, .. } => Some((id.as_str(), name.as_str())),
            _ => None,
        })
        .collect()
}
