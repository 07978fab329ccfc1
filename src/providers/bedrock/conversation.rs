//! The conversation as Converse wants it: instructions apart, turns that alternate and begin with the user's, no text
//! of white space, results of tools by themselves where the model insists.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::media::{self, Names};
use super::model::Model;
use crate::error::Problem;
use crate::protocol::chat::{CacheMark, ChatRequest, Lineage, Part, PartBody, ReasoningPart, ids};
use crate::providers::notes::Notes;
use crate::providers::turns::{Speaker, hoist, turns};

/// What stands where the API insists on a text and the caller has none.
const FILLER: &str = ".";

/// Cache marks of a request at most.
const MAX_MARKS: usize = 4;

/// Instructions and turns.
pub(super) struct Conversation {
    pub(super) system: Vec<Value>,
    turns: Vec<(Speaker, Vec<Value>)>,
}

impl Conversation {
    /// Reads the caller's.
    ///
    /// # Errors
    /// A 400 naming what the API cannot take.
    pub(super) fn of(chat: &ChatRequest, model: Model<'_>, notes: &mut Notes) -> Result<Self, Problem> {
        let (instructions, rest) = hoist(chat)?;
        let mut system = Vec::new();
        for part in &instructions {
            if push_text(&mut system, &part.text) {
                push_mark(&mut system, part.cache.as_ref(), model);
            }
        }
        let mut conversation = Self { system, turns: Vec::new() };
        let mut names = Names::default();
        for turn in turns(&rest) {
            match turn.speaker {
                Speaker::User => conversation.hear(&turn.parts, model, &mut names)?,
                Speaker::Assistant => conversation.say(&turn.parts, model, notes)?,
            }
        }
        conversation.accompany_documents();
        conversation.repair_ends(model, notes)?;
        Ok(conversation)
    }

    /// A turn of the user's.
    fn hear(&mut self, parts: &[&Part], model: Model<'_>, names: &mut Names) -> Result<(), Problem> {
        let (mut results, mut others) = (Vec::new(), Vec::new());
        for part in parts {
            if let PartBody::Result { id, parts, is_error, .. } = &part.body {
                results.push(result(id, parts, *is_error, model, names, &mut others)?);
                push_mark(&mut results, part.cache.as_ref(), model);
            } else {
                push_content(&mut others, part, model, names)?;
            }
        }
        self.add(Speaker::User, results, model);
        self.add(Speaker::User, others, model);
        Ok(())
    }

    /// A turn of the model's.
    fn say(&mut self, parts: &[&Part], model: Model<'_>, notes: &mut Notes) -> Result<(), Problem> {
        let mut content = Vec::new();
        for part in parts {
            let at = part.at;
            match &part.body {
                PartBody::Text { text, .. } | PartBody::Refusal(text) => {
                    push_text(&mut content, text);
                }
                PartBody::Reasoning(reasoning) => content.extend(proven(reasoning, model)),
                PartBody::Call { id, name, arguments, .. } => {
                    let Some(input) = object(arguments) else {
                        let message = format!("{at}: the arguments must be a JSON object as text.");
                        return Err(Problem::invalid(&at.to_string(), message));
                    };
                    let name = ids::fit(name, ids::plain, 64);
                    content.push(json!({"toolUse": {"toolUseId": call_id(id, model), "name": name, "input": input}}));
                }
                PartBody::Hosted { .. } => notes.drop_named(&at.to_string())?,
                _ => {
                    let message = format!("{at}: this model's own messages can have text and tool calls only.");
                    return Err(Problem::invalid(&at.to_string(), message));
                }
            }
            push_mark(&mut content, part.cache.as_ref(), model);
        }
        self.add(Speaker::Assistant, content, model);
        Ok(())
    }

    /// Adds what one side says: to its last turn, if nobody has spoken since and the model takes both together.
    fn add(&mut self, speaker: Speaker, mut content: Vec<Value>, model: Model<'_>) {
        match self.turns.last_mut() {
            _ if content.is_empty() => {}
            Some((last, said)) if *last == speaker => {
                let mut all = said.iter().chain(&content);
                let has_results = all.clone().any(|block| kind(block) == "toolResult");
                if has_results && all.any(|block| !model.takes_beside_results(kind(block))) {
                    // Two turns of one side would be taken for one.
                    self.turns.push((Speaker::Assistant, vec![json!({"text": FILLER})]));
                    self.turns.push((speaker, content));
                } else {
                    said.append(&mut content);
                }
            }
            _ => self.turns.push((speaker, content)),
        }
    }

    /// A document needs a text beside it.
    fn accompany_documents(&mut self) {
        for (_, content) in &mut self.turns {
            if let Some(at) = content.iter().position(|block| kind(block) == "document")
                && !content.iter().any(|block| kind(block) == "text")
            {
                content.insert(at, json!({"text": FILLER}));
            }
        }
    }

    fn repair_ends(&mut self, model: Model<'_>, notes: &mut Notes) -> Result<(), Problem> {
        let begins = self.turns.first().map(|(speaker, _)| *speaker);
        if begins.is_none() || (begins == Some(Speaker::Assistant) && !model.may_begin()) {
            self.turns.insert(0, (Speaker::User, vec![json!({"text": FILLER})]));
        }
        if let Some((Speaker::Assistant, content)) = self.turns.last_mut()
            && !content.iter().any(|block| kind(block) == "toolUse")
        {
            if !model.continues() {
                notes.drop_named("prefill")?;
                self.turns.push((Speaker::User, vec![json!({"text": "Continue."})]));
            } else if let Some(text) = content.iter_mut().rev().find_map(|block| block.get_mut("text")) {
                // White space at the end of a begun answer is refused.
                *text = text.as_str().unwrap_or_default().trim_end().into();
            }
        }
        Ok(())
    }

    /// Whether the answer is begun already.
    pub(super) fn has_begun_answer(&self) -> bool {
        matches!(self.turns.last(), Some((Speaker::Assistant, _)))
    }

    /// Leaves only so many cache marks as the API takes: the last ones.
    pub(super) fn limit_marks(&mut self, tools: &mut Vec<Value>) {
        let mut left = MAX_MARKS;
        let turns = self.turns.iter_mut().rev().map(|(_, content)| content);
        for list in turns.chain([&mut self.system, tools]) {
            list.reverse();
            list.retain(|block| {
                let kept = kind(block) != "cachePoint" || left > 0;
                if kept && kind(block) == "cachePoint" {
                    left = left.saturating_sub(1);
                }
                kept
            });
            list.reverse();
        }
    }

    /// The turns as they go out.
    pub(super) fn into_messages(self) -> (Vec<Value>, Vec<Value>) {
        let role = |speaker| if speaker == Speaker::User { "user" } else { "assistant" };
        let message = |(speaker, content): (Speaker, Vec<Value>)| json!({"role": role(speaker), "content": content});
        (self.system, self.turns.into_iter().map(message).collect())
    }
}

/// What a block is: the name of its only member.
fn kind(block: &Value) -> &str {
    block.as_object().and_then(|block| block.keys().next()).map_or("", String::as_str)
}

/// Adds a text; the API refuses white space alone.
fn push_text(content: &mut Vec<Value>, text: &str) -> bool {
    let says_something = !text.trim().is_empty();
    if says_something {
        content.push(json!({"text": text}));
    }
    says_something
}

/// Adds a cache mark behind what is there. It may not stand first, nor behind another, nor right behind documents and
/// films, before which it goes.
pub(super) fn push_mark(content: &mut Vec<Value>, mark: Option<&CacheMark>, model: Model<'_>) {
    let Some(mark) = mark.filter(|_| model.caches()) else { return };
    let trailing = content.iter().rev().take_while(|block| matches!(kind(block), "document" | "video")).count();
    let at = content.len().saturating_sub(trailing);
    if let Some(before) = at.checked_sub(1).and_then(|before| content.get(before))
        && kind(before) != "cachePoint"
    {
        let mut point = json!({"type": "default"});
        if mark.ttl() == Some("1h") && model.caches_tools() {
            media::insert(&mut point, "ttl", "1h".into());
        }
        content.insert(at, json!({"cachePoint": point}));
    }
}

fn push_content(content: &mut Vec<Value>, part: &Part, model: Model<'_>, names: &mut Names) -> Result<(), Problem> {
    match &part.body {
        PartBody::Text { text, .. } | PartBody::Refusal(text) => {
            push_text(content, text);
        }
        _ => content.extend(media::block(part, names)?),
    }
    push_mark(content, part.cache.as_ref(), model);
    Ok(())
}

/// A result of a tool. What the model takes in no result goes beside it, with words that say what it belongs to.
fn result(
    id: &str,
    parts: &[Part],
    is_error: bool,
    model: Model<'_>,
    names: &mut Names,
    beside: &mut Vec<Value>,
) -> Result<Value, Problem> {
    let id = call_id(id, model);
    let mut content = Vec::new();
    if is_error && !model.takes_status() {
        push_text(&mut content, "The tool failed:");
    }
    for part in parts {
        match (&part.body, media::block(part, names)?) {
            (PartBody::Text { text, .. } | PartBody::Refusal(text), _) => {
                push_text(&mut content, text);
            }
            (_, None) => {}
            (_, Some(block)) => {
                let format = block.pointer(&format!("/{}/format", kind(&block))).and_then(Value::as_str);
                if model.takes_in_results(kind(&block), format.unwrap_or_default()) {
                    content.push(block);
                } else {
                    content.push(json!({"text": format!("See the attachment of {id} below.")}));
                    beside.extend([json!({"text": format!("Attachment of {id}:")}), block]);
                }
            }
        }
    }
    if content.is_empty() {
        content.push(json!({"text": FILLER}));
    }
    let mut result = json!({"toolUseId": id, "content": content});
    if is_error && model.takes_status() {
        media::insert(&mut result, "status", "error".into());
    }
    Ok(json!({"toolResult": result}))
}

/// Reasoning that the model can prove to be its own. Anything else is not given back: the API refuses it.
fn proven(reasoning: &ReasoningPart, model: Model<'_>) -> Option<Value> {
    if !model.reads_signatures() {
        return None;
    }
    if let Some(redacted) = &reasoning.redacted {
        return Some(json!({"reasoningContent": {"redactedContent": STANDARD.encode(redacted)}}));
    }
    let signature = reasoning.signature.as_ref().filter(|signature| signature.family == Lineage::Anthropic)?;
    let text = json!({"text": reasoning.text, "signature": signature.value});
    Some(json!({"reasoningContent": {"reasoningText": text}}))
}

fn object(arguments: &str) -> Option<Value> {
    match arguments.trim() {
        "" | "null" => Some(json!({})),
        text => serde_json::from_str(text).ok().filter(Value::is_object),
    }
}

/// A call's id in the characters that the model takes.
fn call_id(id: &str, model: Model<'_>) -> String {
    let allowed = |c| ids::plain(c) || matches!(c, '.' | ':');
    let fitted = if model.has_short_ids() { ids::fit_nine(id) } else { ids::fit(id, allowed, 64) };
    fitted.into_owned()
}
