//! What Anthropic's Messages API refuses, as far as it can be told without asking it.

use std::collections::BTreeSet;

use serde_json::Value;

const FIELDS: &[&str] = &[
    "model",
    "max_tokens",
    "messages",
    "system",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "metadata",
    "service_tier",
];

/// Everything in a request that the API would refuse.
pub(crate) fn violations(request: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |holds: bool, what: String| {
        if !holds {
            found.push(what);
        }
    };
    for name in request.as_object().unwrap().keys() {
        check(FIELDS.contains(&name.as_str()), format!("unknown field {name}"));
    }
    check(request["model"].as_str().is_some_and(|model| !model.is_empty()), "no model".into());
    let max_tokens = request["max_tokens"].as_u64().unwrap_or(0);
    check(max_tokens >= 1, "max_tokens".into());
    for name in ["temperature", "top_p"] {
        if let Some(value) = request.get(name) {
            check((0.0..=1.0).contains(&value.as_f64().unwrap()), format!("{name} is {value}"));
        }
    }
    check(request.get("temperature").is_none() || request.get("top_p").is_none(), "temperature beside top_p".into());
    for text in request["stop_sequences"].as_array().into_iter().flatten() {
        check(!text.as_str().unwrap().trim().is_empty(), "a blank stop sequence".into());
    }
    for block in request["system"].as_array().into_iter().flatten() {
        check(is_text(block), format!("system has {block}"));
    }
    check(request.get("system") != Some(&Value::Array(Vec::new())), "system is empty".into());

    let tools: Vec<&Value> = request["tools"].as_array().into_iter().flatten().collect();
    let mut names = BTreeSet::new();
    for tool in &tools {
        let name = tool["name"].as_str().unwrap();
        check(is_name(name, 128), format!("a tool called {name}"));
        check(names.insert(name), format!("two tools called {name}"));
        check(tool["input_schema"]["type"] == "object", format!("the schema of {name} is not of an object"));
    }
    check(request.get("tools").is_none() || !tools.is_empty(), "tools is empty".into());
    let choice = request["tool_choice"]["type"].as_str();
    check(choice.is_none() || !tools.is_empty(), "tool_choice without tools".into());
    if let Some("tool") = choice {
        check(names.contains(request["tool_choice"]["name"].as_str().unwrap()), "tool_choice names no tool".into());
    }
    found.extend(thinking(request, max_tokens, choice));
    found.extend(messages(request));
    found
}

fn thinking(request: &Value, max_tokens: u64, choice: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    let thinking = &request["thinking"];
    match thinking["type"].as_str() {
        None if thinking.is_null() => return found,
        Some("disabled") => return found,
        Some("enabled") => match thinking["budget_tokens"].as_u64() {
            Some(budget) if budget >= 1024 && budget < max_tokens => {}
            other => found.push(format!("a thinking budget of {other:?} within max_tokens {max_tokens}")),
        },
        Some("adaptive") => {}
        other => found.push(format!("thinking of type {other:?}")),
    }
    for name in ["temperature", "top_p", "top_k"] {
        if request.get(name).is_some() {
            found.push(format!("thinking beside {name}"));
        }
    }
    if matches!(choice, Some("any" | "tool")) {
        found.push("thinking beside a forced tool".into());
    }
    let messages = request["messages"].as_array().unwrap();
    if messages.last().is_some_and(|message| message["role"] == "assistant") {
        found.push("thinking beside an answer that has begun".into());
    }
    if let Some(last) = messages.iter().rev().find(|message| message["role"] == "assistant") {
        let content = last["content"].as_array().unwrap();
        let signed = matches!(content[0]["type"].as_str(), Some("thinking" | "redacted_thinking"));
        if content.iter().any(|block| block["type"] == "tool_use") && !signed {
            found.push("thinking beside tool calls without their own".into());
        }
    }
    found
}

fn messages(request: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let messages = request["messages"].as_array().unwrap();
    if messages.is_empty() {
        found.push("no messages".into());
    }
    let mut open: Vec<&str> = Vec::new();
    for (nth, message) in messages.iter().enumerate() {
        let role = if nth % 2 == 0 { "user" } else { "assistant" };
        if message["role"] != role {
            found.push(format!("message {nth} is {}'s", message["role"]));
        }
        let content = message["content"].as_array().unwrap();
        if content.is_empty() {
            found.push(format!("message {nth} is empty"));
        }
        let results = content.iter().take_while(|block| block["type"] == "tool_result");
        let answered: Vec<&str> = results.map(|block| block["tool_use_id"].as_str().unwrap()).collect();
        if BTreeSet::from_iter(&open) != BTreeSet::from_iter(&answered) || open.len() != answered.len() {
            found.push(format!("message {nth} answers {answered:?}, not {open:?}"));
        }
        open.clear();
        for (at, block) in content.iter().enumerate() {
            let fine = match (role, block["type"].as_str().unwrap()) {
                (_, "text") => is_text(block),
                ("user", "image") => {
                    is_source(&block["source"], &["image/jpeg", "image/png", "image/gif", "image/webp"])
                }
                ("user", "document") => is_source(&block["source"], &["application/pdf", "text/plain"]),
                ("user", "tool_result") => at < answered.len() && result_is_fine(block),
                ("assistant", "tool_use") => {
                    open.push(block["id"].as_str().unwrap());
                    block["input"].is_object()
                        && is_name(block["id"].as_str().unwrap(), 256)
                        && is_name(block["name"].as_str().unwrap(), 128)
                }
                ("assistant", "thinking") => block["signature"].is_string() && block.get("cache_control").is_none(),
                ("assistant", "redacted_thinking") => block["data"].is_string() && block.get("cache_control").is_none(),
                _ => false,
            };
            if !fine {
                found.push(format!("message {nth} has {block}"));
            }
        }
        if nth + 1 == messages.len() {
            let text = content.last().and_then(|block| block["text"].as_str()).unwrap_or_default();
            if role == "assistant" && text.trim_end() != text {
                found.push("the begun answer ends in white space".into());
            }
        }
    }
    if !open.is_empty() {
        found.push(format!("{open:?} are not answered"));
    }
    found
}

fn result_is_fine(block: &Value) -> bool {
    let content = block["content"].as_array();
    block.get("content").is_none()
        || content.is_some_and(|content| {
            content.iter().all(|part| match part["type"].as_str().unwrap() {
                "text" => is_text(part),
                kind => matches!(kind, "image" | "document"),
            })
        })
}

fn is_text(block: &Value) -> bool {
    block["type"] == "text" && block["text"].as_str().is_some_and(|text| !text.trim().is_empty())
}

fn is_source(source: &Value, media_types: &[&str]) -> bool {
    let media_type = || media_types.contains(&source["media_type"].as_str().unwrap());
    match source["type"].as_str().unwrap() {
        "url" => source["url"].as_str().unwrap().starts_with("https://"),
        "base64" => media_type() && !source["data"].as_str().unwrap().is_empty(),
        "text" => source["media_type"] == "text/plain" && source["data"].is_string(),
        _ => false,
    }
}

fn is_name(name: &str, longest: usize) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= longest && name.chars().all(allowed)
}
