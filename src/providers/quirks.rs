//! What OpenAI-like providers want otherwise than OpenAI does, as edits of a request's bytes: of the caller's own, or of
//! one that was written anew.

mod messages;
#[cfg(test)]
mod tests;

use super::families::{SwitchedOff, Taken, Traits, traits};
use super::json_edit::{self, Editor, List, each, quoted, unquoted, within};
use super::notes::{Notes, Param};
use super::preset::Row;
use crate::error::Problem;
use crate::protocol::chat::Effort;

pub use messages::MessageQuirk;

/// What becomes of a member.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quirk {
    /// It has another name.
    Rename(&'static str),
    /// As [`Self::Rename`], for texts of so many characters; others are left out.
    RenameText(&'static str, usize, usize),
    /// It is left out, with a note.
    Drop,
    /// It is left out where the model reasons.
    DropWhereReasoning,
    /// It is left out where the model sets its sampling itself.
    DropWhereFixed,
    /// It is left out, and nobody misses it.
    Forget,
    /// It is left out if it is an empty list.
    DropIfEmpty,
    /// It is refused if it asks for anything, with this advice.
    Refuse(&'static str),
    /// It is a number from the least to the most, of models whose names begin so.
    ClampFor(&'static str, f64, f64),
    /// These values are written otherwise.
    Map(&'static [(&'static str, &'static str)]),
}

/// What a provider takes for `tool_choice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// What OpenAI does.
    AsIs,
    /// `any` for `required`; beside `none`, tools confuse it.
    Any,
    /// Nothing but `auto`.
    AutoAlone,
    /// No demand where the model's family takes none while it reasons.
    ByFamily,
    /// Words alone: a function's name becomes a demand for the only tool that is left.
    WordAlone,
    /// It does not heed it.
    Unknown,
}

/// What a provider takes for a schema of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaWire {
    /// What OpenAI does.
    AsIs,
    /// As the model's family does; others are instructed.
    ByFamily,
    /// None: the model is told the schema in words, beside `json_object`.
    Instructed,
}

/// How a provider is told how much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningWire {
    /// `reasoning_effort`, as it comes.
    AsIs,
    /// `reasoning_effort`, in the words of the model's family and only where it has some.
    Words,
    /// The same; Qwen's models know `none` and `default`.
    Groq,
    /// `thinking: {type}`, and `reasoning_effort` where the model's family has words.
    Thinking,
    /// `enable_thinking` and `thinking_budget`.
    EnableThinking,
    /// `reasoning: {effort}`
    Object,
}

/// A request to a provider that has quirks.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What is known of the provider.
    pub row: &'a Row,
    /// The model's name there.
    pub model: &'a str,
    /// Whether the reply is to be streamed.
    pub stream: bool,
    /// Whether the request is the gateway's own wording of the caller's.
    pub is_translated: bool,
}

/// Edits a request as the provider wants it.
///
/// # Errors
/// A 400 naming what it cannot serve.
pub fn apply(asked: Asked<'_>, editor: &mut Editor<'_>, notes: &mut Notes) -> Result<(), Problem> {
    let row = asked.row;
    let traits = traits(asked.model);
    reasoning(asked, traits, editor, notes)?;
    let thinks = thinks(traits, editor)?;
    for (name, quirk) in row.rules {
        if let Some(at) = editor.find(name)? {
            member(asked, traits, (at, name, *quirk), editor, notes)?;
        }
    }
    tool_choice(row.choice, thinks && traits.forced_tools == Taken::Never, editor, notes)?;
    if let Some(known) = row.members {
        for (at, name) in editor.names() {
            if !known.contains(&name.as_str()) {
                note(&name, editor.value(at), notes)?;
                editor.remove(at);
            }
        }
    }
    if row.object_parameters
        && let Some(at) = editor.find("tools")?
        && let Some(tools) = each(editor.value(at), &mut |_, tool| {
            within(tool, "function", &mut |function| within(function, "parameters", &mut object_parameters))
        })?
    {
        editor.set(at, tools);
    }
    let instruction = schema(row.schema, traits, editor, notes)?;
    if let Some(at) = editor.find("messages")? {
        let told =
            messages::Asked { quirks: row.messages, instruction, reasoning_back: thinks && traits.reasoning_back };
        if let Some(edited) = messages::edited(editor.value(at), &told, asked.is_translated, notes)? {
            editor.set(at, edited);
        }
    }
    Ok(())
}

/// Notes that a member is left out, if it asked for anything.
fn note(name: &str, value: &[u8], notes: &mut Notes) -> Result<(), Problem> {
    match Param::of_member(name) {
        _ if !asks_for_anything(name, value) => Ok(()),
        Some(param) => notes.drop(param),
        None => notes.drop_named(name),
    }
}

/// Whether a member asks for anything that would not be done without it.
fn asks_for_anything(name: &str, value: &[u8]) -> bool {
    let value: Vec<u8> = value.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    match value.as_slice() {
        b"false" => name == "parallel_tool_calls",
        b"null" | b"[]" | b"{}" => false,
        b"true" if name == "parallel_tool_calls" => false,
        b"1" if name == "n" => false,
        b"0" | b"0.0" if name.ends_with("_penalty") => false,
        br#""auto""# if name == "service_tier" => false,
        _ => true,
    }
}

fn member(
    asked: Asked<'_>,
    traits: &Traits,
    (at, name, quirk): (usize, &str, Quirk),
    editor: &mut Editor<'_>,
    notes: &mut Notes,
) -> Result<(), Problem> {
    let leave_out = match quirk {
        Quirk::Drop => true,
        Quirk::DropWhereReasoning => traits.reasons,
        Quirk::DropWhereFixed => traits.sampling == Taken::Never,
        Quirk::RenameText(_, least, most) => {
            !unquoted(editor.value(at)).is_some_and(|text| (least..=most).contains(&text.chars().count()))
        }
        _ => false,
    };
    if leave_out {
        note(name, editor.value(at), notes)?;
        editor.remove(at);
        return Ok(());
    }
    match quirk {
        // Whoever says both means the newer name.
        Quirk::Rename(to) | Quirk::RenameText(to, ..) => {
            editor.remove_named(to)?;
            editor.rename(at, to);
        }
        Quirk::Forget => editor.remove(at),
        Quirk::DropIfEmpty if !asks_for_anything(name, editor.value(at)) => editor.remove(at),
        Quirk::Refuse(advice) => {
            if asks_for_anything(name, editor.value(at)) {
                let code = "unsupported_parameter".to_owned();
                return Err(Problem { code, ..Problem::invalid(name, format!("{name}: {advice}")) });
            }
            editor.remove(at);
        }
        Quirk::ClampFor(models, least, most) if asked.model.to_ascii_lowercase().starts_with(models) => {
            let number = serde_json::from_slice::<f64>(editor.value(at)).ok();
            if let (Some(number), Some(param)) = (number, Param::of_member(name)) {
                let taken = notes.clamp(param, number, least, most)?;
                if taken != number {
                    editor.set(at, taken.to_string().into_bytes());
                }
            }
        }
        Quirk::Map(values) => {
            if let Some((_, to)) = values.iter().find(|(from, _)| from.as_bytes() == editor.value(at)) {
                editor.set(at, to.as_bytes().to_vec());
            }
        }
        _ => {}
    }
    Ok(())
}

// === Reasoning ===

/// Whether the model is going to think: as it does unless it is told otherwise.
fn thinks(traits: &Traits, editor: &Editor<'_>) -> Result<bool, Problem> {
    let thinking = editor.get("thinking")?;
    let disabled = thinking.is_some_and(|thinking| json_edit::contains(thinking, r#""disabled""#));
    Ok(traits.reasons && !disabled && editor.get("enable_thinking")? != Some(b"false"))
}

fn reasoning(asked: Asked<'_>, traits: &Traits, editor: &mut Editor<'_>, notes: &mut Notes) -> Result<(), Problem> {
    // Without a stream DashScope's open models do not think, and must be told so.
    let is_open = asked.model.starts_with("qwen3-") && asked.model.ends_with('b');
    let must_not = asked.row.reasoning == ReasoningWire::EnableThinking && is_open && !asked.stream;
    let wish = editor.text("reasoning_effort")?.and_then(|word| Effort::parse(&word));
    // Or else Groq's models think aloud.
    let aloud = traits.reasons && wish != Some(Effort::None) && !asked.model.contains("gpt-oss");
    if asked.row.reasoning == ReasoningWire::Groq && asked.is_translated && aloud {
        editor.put("reasoning_format", r#""parsed""#)?;
    }
    let Some((at, wish)) = editor.find("reasoning_effort")?.zip(wish) else {
        let budget = editor.find("thinking_budget")?.filter(|_| asked.is_translated);
        match budget {
            _ if !must_not => {}
            Some(budget) => {
                notes.drop(Param::Thinking)?;
                editor.remove(budget);
                editor.put("enable_thinking", "false")?;
            }
            None if editor.get("enable_thinking")?.is_none() => editor.put("enable_thinking", "false")?,
            None => {}
        }
        return Ok(());
    };
    let word = traits.effort(wish);
    let is_off = wish == Effort::None;
    let mut in_words = |word: Option<&str>, editor: &mut Editor<'_>| match word {
        Some(word) if word == wish.as_str() => Ok(()),
        Some(word) => {
            editor.set(at, quoted(word));
            Ok(())
        }
        None => {
            editor.remove(at);
            notes.drop(Param::ReasoningEffort)
        }
    };
    match asked.row.reasoning {
        ReasoningWire::AsIs => Ok(()),
        ReasoningWire::Words => in_words(word, editor),
        ReasoningWire::Groq => {
            let of_qwen = if is_off { "none" } else { "default" };
            in_words(if asked.model.contains("qwen") { Some(of_qwen) } else { word }, editor)
        }
        ReasoningWire::Thinking if !traits.reasons => in_words(None, editor),
        ReasoningWire::Thinking => {
            let can_be_off = traits.switched_off == SwitchedOff::Always;
            if word.is_some() && !(is_off && can_be_off && word != Some("none")) {
                return in_words(word, editor);
            }
            editor.remove(at);
            let kind = if is_off && can_be_off { "disabled" } else { "enabled" };
            if editor.find("thinking")?.is_none() {
                editor.put("thinking", format!(r#"{{"type":"{kind}"}}"#))?;
            }
            Ok(())
        }
        ReasoningWire::EnableThinking if traits.budgets.is_none() => in_words(None, editor),
        ReasoningWire::EnableThinking => {
            editor.remove(at);
            if must_not && !is_off {
                notes.drop(Param::ReasoningEffort)?;
            }
            let on = !is_off && !must_not;
            if editor.find("enable_thinking")?.is_none() {
                editor.put("enable_thinking", if on { "true" } else { "false" })?;
                if on && let Some(tokens) = traits.budget(wish) {
                    editor.put("thinking_budget", tokens.to_string())?;
                }
            }
            Ok(())
        }
        ReasoningWire::Object => {
            editor.remove(at);
            if editor.find("reasoning")?.is_none() {
                editor.put("reasoning", format!(r#"{{"effort":"{}"}}"#, wish.as_str()))?;
            }
            Ok(())
        }
    }
}

// === Tools and the answer's form ===

/// What a `tool_choice` comes down to.
enum Demand {
    None,
    Auto,
    Some,
    Named(String),
}

fn demand(choice: &[u8]) -> Option<Demand> {
    let choice: serde_json::Value = serde_json::from_slice(choice).ok()?;
    let name = || choice.pointer("/function/name").or_else(|| choice.pointer("/custom/name"))?.as_str();
    Some(match (choice.as_str(), name()) {
        (Some("none"), _) => Demand::None,
        (Some("required" | "any"), _) => Demand::Some,
        (_, Some(name)) => Demand::Named(name.to_owned()),
        _ => Demand::Auto,
    })
}

fn tool_choice(
    takes: Choice,
    takes_no_demand: bool,
    editor: &mut Editor<'_>,
    notes: &mut Notes,
) -> Result<(), Problem> {
    let Some(at) = editor.find("tool_choice")?.filter(|_| takes != Choice::AsIs) else { return Ok(()) };
    allowed_alone(at, editor)?;
    let Some(demand) = demand(editor.value(at)) else { return Ok(()) };
    let without_tools = |editor: &mut Editor<'_>| {
        editor.remove_named("tools")?;
        editor.remove_named("parallel_tool_calls")?;
        editor.remove(at);
        Ok(())
    };
    match (takes, demand) {
        (Choice::Any | Choice::AutoAlone | Choice::Unknown, Demand::None) => without_tools(editor),
        (Choice::Any, Demand::Some) => {
            editor.set(at, br#""any""#.to_vec());
            Ok(())
        }
        (Choice::ByFamily, Demand::Some | Demand::Named(_)) if !takes_no_demand => Ok(()),
        (Choice::AutoAlone | Choice::ByFamily, Demand::Some | Demand::Named(_)) => {
            editor.remove(at);
            notes.drop(Param::ToolChoice)
        }
        (Choice::WordAlone, Demand::Named(name)) => {
            editor.set(at, br#""required""#.to_vec());
            only_tools(&[name.as_str()], editor)
        }
        (Choice::Unknown, Demand::Some | Demand::Named(_)) => {
            Err(notes.refuse(Param::ToolChoice, "this model's provider cannot be made to call a tool; send `auto`."))
        }
        _ => Ok(()),
    }
}

/// Leaves only the tools that a choice of OpenAI's `allowed_tools` names, and of the choice how it is meant.
fn allowed_alone(at: usize, editor: &mut Editor<'_>) -> Result<(), Problem> {
    let choice: serde_json::Value = serde_json::from_slice(editor.value(at)).unwrap_or_default();
    let Some(allowed) = choice.get("allowed_tools") else { return Ok(()) };
    let is_required = allowed.get("mode").is_some_and(|mode| mode == "required");
    editor.set(at, if is_required { br#""required""#.to_vec() } else { br#""auto""#.to_vec() });
    let names: Vec<&str> = allowed
        .get("tools")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|tool| tool.pointer("/function/name")?.as_str())
        .collect();
    only_tools(&names, editor)
}

/// Offers these tools alone, if there are any of them.
fn only_tools(names: &[&str], editor: &mut Editor<'_>) -> Result<(), Problem> {
    let Some(tools) = editor.find("tools")? else { return Ok(()) };
    let mut list = List::read(editor.value(tools))?;
    list.retain(|tool| {
        let tool: serde_json::Value = serde_json::from_slice(tool).unwrap_or_default();
        tool.pointer("/function/name").and_then(serde_json::Value::as_str).is_some_and(|own| names.contains(&own))
    });
    if list.is_changed() && !list.is_empty() {
        let list = list.finish();
        editor.set(tools, list);
    }
    Ok(())
}

/// A tool's parameters as an object's, without `$schema`.
fn object_parameters(parameters: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    if parameters.first() != Some(&b'{') {
        return Ok(None);
    }
    let members = json_edit::object(parameters)?;
    let mut editor = Editor::new(&members);
    editor.remove_named("$schema")?;
    if editor.text("type")?.as_deref() != Some("object") {
        editor.put("type", r#""object""#)?;
    }
    Ok(editor.is_changed().then(|| editor.finish()))
}

/// Puts a schema that the provider does not take in words; the instruction that the model is to be given.
fn schema(
    wire: SchemaWire,
    traits: &Traits,
    editor: &mut Editor<'_>,
    notes: &mut Notes,
) -> Result<Option<String>, Problem> {
    let Some(at) = editor.find("response_format")?.filter(|_| wire != SchemaWire::AsIs) else { return Ok(None) };
    let format: serde_json::Value = serde_json::from_slice(editor.value(at)).unwrap_or_default();
    let kind = format.get("type").and_then(serde_json::Value::as_str);
    if kind == Some("json_schema") && (wire == SchemaWire::Instructed || traits.json_schema != Taken::Always) {
        notes.drop(Param::ResponseFormat)?;
        editor.set(at, br#"{"type":"json_object"}"#.to_vec());
        let schema = format.pointer("/json_schema/schema").map(ToString::to_string).unwrap_or_default();
        return Ok(Some(format!(
            "Answer with a JSON object, and nothing else, that follows this JSON schema: {schema}"
        )));
    }
    // The word must be there, or the request is refused.
    let messages = editor.get("messages")?.map(<[u8]>::to_ascii_lowercase).unwrap_or_default();
    let is_missing = kind == Some("json_object") && !json_edit::contains(&messages, "json");
    Ok(is_missing.then(|| "Answer with a JSON object.".to_owned()))
}
