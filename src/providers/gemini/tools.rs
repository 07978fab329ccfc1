//! Tools, and their use.

use serde_json::{Map, Value, json};

use super::family::Age;
use super::{Host, Wire};
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::{ChatRequest, Function, Place, Tool, ToolBody, ToolChoice};
use crate::providers::answer_tool::with_object_type;
use crate::providers::notes::{Notes, Param};
use crate::providers::schema::{Subset, fit};

/// Google's own tools, by the types that callers name them by.
const OWN: &[(&str, &str)] = &[
    ("google_search", "googleSearch"),
    ("google_search_retrieval", "googleSearchRetrieval"),
    ("google_maps", "googleMaps"),
    ("code_execution", "codeExecution"),
    ("url_context", "urlContext"),
    ("enterprise_web_search", "enterpriseWebSearch"),
];

/// Writes `tools` and `toolConfig` into the body.
///
/// # Errors
/// A 400 naming the tool or choice that cannot be written.
pub(super) fn write(
    chat: &ChatRequest,
    wire: Wire,
    notes: &mut Notes,
    body: &mut Map<String, Value>,
) -> Result<(), Problem> {
    let mut functions = Vec::new();
    let mut tools = Vec::new();
    let mut is_strict = false;
    for tool in chat.tools.offered.iter().filter(|tool| is_left(tool, chat.tools.choice.as_ref(), wire)) {
        match &tool.body {
            ToolBody::Function(function) => {
                is_strict |= function.strict == Some(true);
                functions.push(declaration(function, wire, tool.at)?);
            }
            ToolBody::Custom { .. } => {
                let at = format!("{}.type", tool.at);
                return Err(Problem::invalid(
                    &at,
                    format!("{at}: this model takes tools of the type `function` only."),
                ));
            }
            ToolBody::Hosted { kind, value } => match own(kind, value) {
                Some(tool) => tools.push(tool),
                // Callers of Messages offer these with every request; the answer may well do without.
                None if chat.origin == Api::Messages
                    && (kind.starts_with("web_search") || kind.starts_with("web_fetch")) =>
                {
                    notes.drop_named(&tool.at.to_string())?;
                }
                None => {
                    let at = format!("{}.type", tool.at);
                    let advice = "is a tool of another provider's, which this model does not have; leave it out";
                    return Err(Problem::invalid(&at, format!("{at}: `{kind}` {advice}.")));
                }
            },
        }
    }
    let has_functions = !functions.is_empty();
    if chat.tools.parallel == Some(false) && has_functions {
        notes.drop(Param::ParallelToolCalls)?;
    }
    let mut config = Map::new();
    if has_functions {
        if let Some(calling) = calling(chat.tools.choice.as_ref(), is_strict, wire) {
            config.insert("functionCallingConfig".to_owned(), calling);
        }
        if !tools.is_empty() && wire.family.age >= Age::Three && wire.host == Host::GeminiApi {
            config.insert("includeServerSideToolInvocations".to_owned(), true.into());
        }
        tools.push(json!({"functionDeclarations": functions}));
    } else if let Some(ToolChoice::Required | ToolChoice::One(_)) = &chat.tools.choice {
        return Err(notes.refuse(Param::ToolChoice, "there is no function to call; offer it in `tools`."));
    }
    if !tools.is_empty() {
        body.insert("tools".to_owned(), tools.into());
    }
    if !config.is_empty() {
        body.insert("toolConfig".to_owned(), config.into());
    }
    Ok(())
}

/// Whether a tool is offered. Older models cannot choose among some of them otherwise.
fn is_left(tool: &Tool, choice: Option<&ToolChoice>, wire: Wire) -> bool {
    match (&tool.body, choice) {
        (
            ToolBody::Function(Function { name, .. }) | ToolBody::Custom { name, .. },
            Some(ToolChoice::Among { names, required: false }),
        ) if wire.family.age < Age::Two5 => names.contains(name),
        _ => true,
    }
}

/// How functions are to be called; `None` for the usual way.
fn calling(choice: Option<&ToolChoice>, is_strict: bool, wire: Wire) -> Option<Value> {
    let validates = wire.family.age >= Age::Two5;
    match choice {
        Some(ToolChoice::None) => Some(json!({"mode": "NONE"})),
        Some(ToolChoice::One(name)) => Some(json!({"mode": "ANY", "allowedFunctionNames": [name]})),
        Some(ToolChoice::Required) => Some(json!({"mode": "ANY"})),
        Some(ToolChoice::Among { names, required: true }) => {
            Some(json!({"mode": "ANY", "allowedFunctionNames": names}))
        }
        Some(ToolChoice::Among { names, .. }) if validates => {
            Some(json!({"mode": "VALIDATED", "allowedFunctionNames": names}))
        }
        _ if is_strict && validates => Some(json!({"mode": "VALIDATED"})),
        Some(ToolChoice::Auto | ToolChoice::Among { .. }) => Some(json!({"mode": "AUTO"})),
        None => None,
    }
}

fn declaration(function: &Function, wire: Wire, at: Place) -> Result<Value, Problem> {
    let mut declaration = json!({"name": function.name});
    let Some(members) = declaration.as_object_mut() else { return Ok(declaration) };
    if let Some(description) = &function.description {
        members.insert("description".to_owned(), description.as_str().into());
    }
    // One without parameters must say nothing of them.
    let says = |keyword: &str, schema: &Value| match schema.get(keyword) {
        Some(Value::Object(value)) => !value.is_empty(),
        Some(Value::Array(_) | Value::String(_) | Value::Bool(true)) => true,
        _ => false,
    };
    let words = ["properties", "additionalProperties", "patternProperties", "$ref", "anyOf", "oneOf", "allOf"];
    let parameters = function.parameters.as_ref().filter(|schema| words.iter().any(|word| says(word, schema)));
    if let Some(parameters) = parameters {
        let parameters = with_object_type(parameters);
        let (member, subset) = match wire.family.age {
            Age::Old => ("parameters", Subset::OpenApi),
            _ => ("parametersJsonSchema", Subset::GeminiJson),
        };
        let fitted = fit(&parameters, subset)
            .map_err(|fault| Problem::invalid(&at.to_string(), format!("{at}: the schema at {fault}.")))?;
        members.insert(member.to_owned(), fitted);
    }
    Ok(declaration)
}

/// A tool of Google's with the caller's settings.
fn own(kind: &str, value: &Value) -> Option<Value> {
    let (snake, camel) = OWN.iter().find(|(snake, camel)| kind == *snake || kind == *camel)?;
    let settings = value.get(kind).or_else(|| value.get(snake)).filter(|settings| settings.is_object());
    Some(json!({*camel: settings.cloned().unwrap_or_else(|| json!({}))}))
}
