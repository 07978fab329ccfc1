//! Forms of OpenAI's Responses API that stand in requests and replies alike.

use serde_json::{Map, Value, json};

use crate::error::Problem;

use super::chat::{Format, Function, Tool, ToolBody, ToolChoice};

/// A tool.
pub fn tool(tool: &ToolBody) -> Value {
    match tool {
        ToolBody::Function(Function { name, description, parameters, strict }) => json!({
            "type": "function", "name": name, "description": description, "parameters": parameters, "strict": strict,
        }),
        ToolBody::Custom { name, description, format } => {
            let mut tool = Map::new();
            tool.insert("type".to_owned(), "custom".into());
            tool.insert("name".to_owned(), name.as_str().into());
            for (member, value) in [("description", description.clone().map(Value::from)), ("format", format.clone())] {
                tool.extend(value.map(|value| (member.to_owned(), value)));
            }
            Value::Object(tool)
        }
        ToolBody::Hosted { value, .. } => value.clone(),
    }
}

/// Which tools are to be called.
pub fn tool_choice(choice: &ToolChoice, offered: &[Tool]) -> Value {
    let named = |name: &String| {
        let is_it = |tool: &Tool| matches!(&tool.body, ToolBody::Custom { name: its, .. } if its == name);
        let kind = if offered.iter().any(is_it) { "custom" } else { "function" };
        json!({"type": kind, "name": name})
    };
    match choice {
        ToolChoice::None => "none".into(),
        ToolChoice::Auto => "auto".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::One(name) => named(name),
        ToolChoice::Among { names, required } => {
            let tools: Vec<Value> = names.iter().map(named).collect();
            json!({"type": "allowed_tools", "mode": if *required { "required" } else { "auto" }, "tools": tools})
        }
    }
}

/// The form of the answer.
pub fn format(format: &Format) -> Value {
    match format {
        Format::Text => json!({"type": "text"}),
        Format::JsonObject => json!({"type": "json_object"}),
        Format::Schema { name, description, schema, strict } => {
            let name = name.as_deref().unwrap_or("answer");
            let mut format = json!({"type": "json_schema", "name": name, "schema": schema});
            if let Some(members) = format.as_object_mut() {
                let description = description.as_deref().map(Value::from);
                members.extend(description.map(|text| ("description".to_owned(), text)));
                members.extend(strict.map(|strict| ("strict".to_owned(), strict.into())));
            }
            format
        }
    }
}

// === What is kept ===
// Providers keep responses under the operator's account, where those of all callers lie together: nobody may build on
// one by its id that is not proved to be his.

/// Refuses what needs a response that was kept, but for going on from one where that is `owned`: proved to be the
/// caller's.
///
/// # Errors
/// A 400 naming the member.
pub fn refuse_state(request: &Map<String, Value>, owned: bool) -> Result<(), Problem> {
    for name in ["previous_response_id", "conversation"] {
        let refused = name == "conversation" || !owned;
        if refused && request.get(name).is_some_and(|value| !value.is_null()) {
            let advice =
                "responses are not kept for later; send the whole conversation in `input`, with `store: false`";
            return Err(unsupported(name, advice));
        }
    }
    if request.get("background") == Some(&Value::Bool(true)) {
        let advice = "nobody could charge what is used after the reply; wait for the whole reply, or stream it";
        return Err(unsupported("background", advice));
    }
    Ok(())
}

/// Whether an item stands for one that was kept.
pub fn is_reference(item: &Map<String, Value>) -> bool {
    match item.get("type") {
        None | Some(Value::Null) => item.contains_key("id") && !item.contains_key("role"),
        Some(kind) => kind == "item_reference",
    }
}

/// The 400 for such an item.
pub fn no_items(nth: usize) -> Problem {
    let advice = "items are not kept for later; send the item itself, as SDKs do with `store: false`";
    unsupported(&format!("input[{nth}]"), advice)
}

/// A 400 for what this API has but cannot have here.
pub fn unsupported(path: &str, advice: &str) -> Problem {
    Problem { code: "unsupported_parameter".to_owned(), ..Problem::invalid(path, format!("{path}: {advice}.")) }
}
