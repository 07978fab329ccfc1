//! Tools, and which of them are to be called.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::conversation::push_mark;
use super::media::insert;
use super::model::Model;
use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, PartBody, Tool, ToolBody, ToolChoice, ids};
use crate::providers::answer_tool::with_object_type;
use crate::providers::notes::{Notes, Param};
use crate::providers::schema::{Subset, claude_can_follow, fit};

/// A tool's name is that long at most.
const MAX_NAME: usize = 64;

/// The tools as they go out.
pub(super) struct Tools {
    /// With cache marks among them.
    pub(super) offered: Vec<Value>,
    choice: Option<Value>,
}

impl Tools {
    /// Reads the caller's. `answers` says that one of them carries an answer which follows a schema.
    ///
    /// # Errors
    /// A 400 naming a tool or choice that the API cannot take.
    pub(super) fn of(chat: &ChatRequest, model: Model<'_>, answers: bool, notes: &mut Notes) -> Result<Self, Problem> {
        let mut offered = Vec::new();
        let (choice, only) = choice(chat, model, answers, notes)?;
        for tool in &chat.tools.offered {
            let spec = spec(tool, model, notes)?;
            let name = spec.pointer("/toolSpec/name").and_then(Value::as_str).unwrap_or_default();
            if only.is_none_or(|only| only.iter().any(|allowed| allowed == name)) {
                offered.push(spec);
                push_mark(&mut offered, tool.cache.as_ref().filter(|_| model.caches_tools()), model);
            }
        }
        let called = called(chat);
        if chat.tools.choice == Some(ToolChoice::None) && !offered.is_empty() {
            if called.is_empty() {
                offered.clear();
            } else {
                // A conversation with calls must have tools.
                notes.drop(Param::ToolChoice)?;
            }
        }
        if offered.is_empty() {
            let minimal = |name| json!({"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}});
            offered = called.into_iter().map(minimal).collect();
        }
        Ok(Self { offered, choice })
    }

    /// Whether the model must call one.
    pub(super) fn is_forced(&self) -> bool {
        self.choice.is_some()
    }

    pub(super) fn into_config(self) -> Option<Value> {
        if self.offered.is_empty() {
            return None;
        }
        let mut config = json!({"tools": self.offered});
        if let Some(choice) = self.choice {
            insert(&mut config, "toolChoice", choice);
        }
        Some(config)
    }
}

/// The names that the conversation's calls have as they go out.
fn called(chat: &ChatRequest) -> BTreeSet<String> {
    let parts = chat.messages.iter().flat_map(|message| &message.parts);
    let name = |body: &PartBody| match body {
        PartBody::Call { name, .. } | PartBody::Result { name: Some(name), .. } => {
            Some(ids::fit(name, ids::plain, MAX_NAME).into_owned())
        }
        _ => None,
    };
    parts.filter_map(|part| name(&part.body)).collect()
}

/// The choice, if it is not left to the model, and to which tools it is limited. Not every model takes the word for
/// what it does anyway, so that it is not said.
fn choice<'a>(
    chat: &'a ChatRequest,
    model: Model<'_>,
    answers: bool,
    notes: &mut Notes,
) -> Result<(Option<Value>, Option<&'a [String]>), Problem> {
    let Some(choice) = &chat.tools.choice else { return Ok((None, None)) };
    let (force, only) = match choice {
        ToolChoice::None | ToolChoice::Auto => return Ok((None, None)),
        ToolChoice::Among { names, required: false } => (None, Some(names.as_slice())),
        ToolChoice::Required => (Some(json!({"any": {}})), None),
        ToolChoice::Among { names, required: true } => (Some(json!({"any": {}})), Some(names.as_slice())),
        ToolChoice::One(name) if model.takes_named_choice() => (Some(json!({"tool": {"name": name}})), None),
        ToolChoice::One(name) => (Some(json!({"any": {}})), Some(std::slice::from_ref(name))),
    };
    let is_offered = |name: &String| chat.tools.offered.iter().any(|tool| tool_name(tool) == Some(name));
    let named = match choice {
        ToolChoice::One(name) => std::slice::from_ref(name),
        ToolChoice::Among { names, .. } => names.as_slice(),
        _ => &[],
    };
    if chat.tools.offered.is_empty() || !named.iter().all(is_offered) {
        return Err(notes.refuse(Param::ToolChoice, "asks for a tool that is not among `tools`."));
    }
    if force.is_some() && model.refuses_force() {
        if !answers {
            return Err(notes.refuse(Param::ToolChoice, "this model cannot be forced to call a tool; send `auto`."));
        }
        notes.drop(Param::ResponseFormat)?;
        return Ok((None, only));
    }
    Ok((force, only))
}

fn tool_name(tool: &Tool) -> Option<&String> {
    match &tool.body {
        ToolBody::Function(function) => Some(&function.name),
        ToolBody::Custom { name, .. } => Some(name),
        ToolBody::Hosted { .. } => None,
    }
}

fn spec(tool: &Tool, model: Model<'_>, notes: &mut Notes) -> Result<Value, Problem> {
    let at = tool.at;
    let ToolBody::Function(function) = &tool.body else {
        let at = format!("{at}.type");
        return Err(Problem::invalid(&at, format!("{at}: this model takes tools of the type `function` only.")));
    };
    let name = &function.name;
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(ids::plain) {
        let advice = "this model takes names of 1 to 64 letters, digits, `_` and `-`";
        return Err(Problem::invalid(&at.to_string(), format!("{at}: {advice}.")));
    }
    let schema = with_object_type(function.parameters.as_ref().unwrap_or(&Value::Null));
    let strict = function.strict == Some(true) && model.follows_schemas() && claude_can_follow(&schema);
    if function.strict == Some(true) && !strict {
        notes.drop(Param::Strict)?;
    }
    let schema = if strict { exact(&schema, &at.to_string())? } else { schema };
    let mut spec = json!({"name": name, "inputSchema": {"json": schema}});
    if let Some(description) = function.description.as_deref().filter(|text| !text.is_empty()) {
        insert(&mut spec, "description", description.into());
    }
    if strict {
        insert(&mut spec, "strict", true.into());
    }
    Ok(json!({"toolSpec": spec}))
}

/// A schema that must be followed exactly, as the API takes it.
///
/// # Errors
/// A 400 that begins with the place where the caller wrote it.
pub(super) fn exact(schema: &Value, at: &str) -> Result<Value, Problem> {
    fit(schema, Subset::AnthropicOutput).map_err(|fault| Problem::invalid(at, format!("{at}: {fault}.")))
}
