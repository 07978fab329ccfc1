//! An answer that follows a schema, from a model that has no such mode: it is made to call a tool whose arguments are
//! the answer, and the caller gets them as text.

use serde_json::{Value, json};

use crate::error::Problem;
use crate::protocol::chat::{
    ChatEvent, ChatRequest, FinishReason, Format, Function, List, Place, ReplyFault, Tool, ToolBody, ToolChoice,
};
use crate::protocol::frames::{EventReader, RawEvent};

/// The tool's name. Every call of it is the answer, so that no tool of the caller's may have it.
pub const ANSWER_TOOL: &str = "json_answer";

/// The request with the tool in place of the schema; `None` if it asks for no schema. With tools of the caller's own
/// the model may call those first.
///
/// # Errors
/// A 400 if a tool of the caller's has the reserved name.
pub fn in_place_of_schema(chat: &ChatRequest) -> Result<Option<ChatRequest>, Problem> {
    let Format::Schema { description, schema, .. } = &chat.output.format else { return Ok(None) };
    refuse_reserved_name(chat)?;
    let about = description.as_deref().unwrap_or("Gives the answer in the form that was asked for.");
    let function = Function {
        name: ANSWER_TOOL.to_owned(),
        description: Some(about.to_owned()),
        parameters: Some(with_object_type(schema)),
        strict: None,
    };
    let mut chat = chat.clone();
    let tools = &mut chat.tools;
    let forced = match &tools.choice {
        Some(ToolChoice::One(name)) => ToolChoice::One(name.clone()),
        Some(ToolChoice::None) => ToolChoice::One(ANSWER_TOOL.to_owned()),
        _ if tools.offered.is_empty() => ToolChoice::One(ANSWER_TOOL.to_owned()),
        _ => ToolChoice::Required,
    };
    if forced == ToolChoice::One(ANSWER_TOOL.to_owned()) {
        tools.parallel = Some(false);
    }
    tools.choice = Some(forced);
    let at = Place::item(List::Tools, tools.offered.len());
    tools.offered.push(Tool { body: ToolBody::Function(function), cache: None, at });
    chat.output.format = Format::Text;
    Ok(Some(chat))
}

/// Refuses tools of the caller's with the reserved name.
///
/// # Errors
/// A 400 naming the tool.
fn refuse_reserved_name(chat: &ChatRequest) -> Result<(), Problem> {
    for tool in &chat.tools.offered {
        if tool.body.name() == Some(ANSWER_TOOL) {
            let at = tool.at;
            return Err(Problem::invalid(
                &at.to_string(),
                format!("{at}: the name `{ANSWER_TOOL}` is reserved; choose another."),
            ));
        }
    }
    Ok(())
}

/// Most APIs insist on `"type": "object"`, which OpenAI lets callers leave out.
pub fn with_object_type(schema: &Value) -> Value {
    match schema {
        Value::Object(schema) => {
            let mut schema = schema.clone();
            schema.entry("type").or_insert_with(|| "object".into());
            Value::Object(schema)
        }
        _ => json!({"type": "object", "properties": {}}),
    }
}

/// Reads a reply in which calls of the tool are the answer.
pub struct AnswerReader {
    reader: Box<dyn EventReader>,
    events: Vec<ChatEvent>,
    /// The answers' choice and position.
    answers: Vec<(u32, u32)>,
    /// The choices in which other tools are called.
    others: Vec<u32>,
}

impl AnswerReader {
    /// A reader over the dialect's own.
    pub fn new(reader: Box<dyn EventReader>) -> Self {
        Self { reader, events: Vec::new(), answers: Vec::new(), others: Vec::new() }
    }

    fn pass_on(&mut self, out: &mut Vec<ChatEvent>) {
        let Self { events, answers, others, .. } = self;
        for mut event in events.drain(..) {
            match &mut event {
                ChatEvent::CallStart { choice, index, name, .. } if name == ANSWER_TOOL => {
                    answers.push((*choice, *index));
                    continue;
                }
                ChatEvent::CallArguments { choice, index, fragment } if answers.contains(&(*choice, *index)) => {
                    event = ChatEvent::Text { choice: *choice, text: std::mem::take(fragment), logprobs: None };
                }
                ChatEvent::Proof { choice, index: Some(index), .. } if answers.contains(&(*choice, *index)) => continue,
                ChatEvent::CallStart { choice, index, .. }
                | ChatEvent::CallArguments { choice, index, .. }
                | ChatEvent::Proof { choice, index: Some(index), .. } => {
                    if !others.contains(choice) {
                        others.push(*choice);
                    }
                    // Positions have no gaps.
                    let before = answers.iter().filter(|(of, at)| of == choice && at < index).count();
                    *index = index.saturating_sub(u32::try_from(before).unwrap_or(0));
                }
                ChatEvent::Finish { choice, reason }
                    if *reason == FinishReason::ToolCalls
                        && !others.contains(choice)
                        && answers.iter().any(|(answered, _)| answered == choice) =>
                {
                    *reason = FinishReason::Stop;
                }
                _ => {}
            }
            out.push(event);
        }
    }
}

impl EventReader for AnswerReader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let result = self.reader.event(event, &mut self.events);
        self.pass_on(out);
        result
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let result = self.reader.whole(body, &mut self.events);
        self.pass_on(out);
        result
    }

    fn ended(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let result = self.reader.ended(&mut self.events);
        self.pass_on(out);
        result
    }
}
