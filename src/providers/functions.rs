//! Tools for providers that know functions only, and can be told to call some or none of them, but not which.

use super::answer_tool::{ANSWER_TOOL, with_object_type};
use super::notes::{Notes, Param};
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::{ChatRequest, Function, Tool, ToolBody, ToolChoice};

/// The functions on offer.
#[derive(Debug, Clone, PartialEq)]
pub struct Offered {
    /// Those that may be called.
    pub functions: Vec<Function>,
    /// What is to be done with them.
    pub demand: Demand,
}

/// What is to be done with functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// What the model sees fit.
    Free,
    /// At least one is to be called.
    Call,
    /// None is to be called.
    Leave,
}

/// Reads the tools and the choice among them. Who names a function gets to choose from that one alone.
///
/// # Errors
/// A 400 naming the tool that is another provider's, or a choice of what is not on offer.
pub fn offered(chat: &ChatRequest, notes: &mut Notes) -> Result<Offered, Problem> {
    let tools = &chat.tools;
    let (demand, names): (_, Option<&[String]>) = match &tools.choice {
        None | Some(ToolChoice::Auto) => (Demand::Free, None),
        Some(ToolChoice::None) => (Demand::Leave, None),
        Some(ToolChoice::Required) => (Demand::Call, None),
        Some(ToolChoice::One(name)) => (Demand::Call, Some(std::slice::from_ref(name))),
        Some(ToolChoice::Among { names, required: true }) => (Demand::Call, Some(names)),
        Some(ToolChoice::Among { names, .. }) => (Demand::Free, Some(names)),
    };
    let mut functions = Vec::new();
    for tool in &tools.offered {
        if let Some(function) = function(tool, chat.origin, notes)? {
            functions.push(function);
        }
    }
    if let Some(names) = names {
        if !names.iter().all(|name| functions.iter().any(|function| function.name == *name)) {
            return Err(notes.refuse(Param::ToolChoice, "asks for a tool that is not among `tools`."));
        }
        functions.retain(|function| names.contains(&function.name));
    }
    if demand == Demand::Call && functions.is_empty() {
        return Err(notes.refuse(Param::ToolChoice, "there is no function to call; offer it in `tools`."));
    }
    // For an answer that follows a schema one call is asked for in the gateway's own name.
    let is_ours = notes.answers_by_tool() && functions.iter().all(|function| function.name == ANSWER_TOOL);
    if tools.parallel == Some(false) && !functions.is_empty() && !is_ours {
        notes.drop(Param::ParallelToolCalls)?;
    }
    Ok(Offered { functions, demand })
}

fn function(tool: &Tool, origin: Api, notes: &mut Notes) -> Result<Option<Function>, Problem> {
    Ok(match &tool.body {
        ToolBody::Function(function) => {
            let parameters = function.parameters.as_ref().map(with_object_type);
            Some(Function { parameters, ..function.clone() })
        }
        ToolBody::Custom { .. } => {
            let at = format!("{}.type", tool.at);
            let message = format!("{at}: this model takes tools of the type `function` only.");
            return Err(Problem::invalid(&at, message));
        }
        // Callers of Messages offer these with every request; the answer may well do without.
        ToolBody::Hosted { kind, .. }
            if origin == Api::Messages && (kind.starts_with("web_search") || kind.starts_with("web_fetch")) =>
        {
            notes.drop_named(&tool.at.to_string())?;
            None
        }
        ToolBody::Hosted { kind, .. } => {
            let at = format!("{}.type", tool.at);
            let advice = "is a tool of another provider's, which this model does not have; leave it out";
            return Err(Problem::invalid(&at, format!("{at}: `{kind}` {advice}.")));
        }
    })
}
