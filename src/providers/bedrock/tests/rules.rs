//! What Converse refuses, written from AWS's service model (`bedrock-runtime` of 2023-09-30, as in botocore 1.44) and
//! from what the service answers, not from the translation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The members of every structure; `*` behind a required one. A union has exactly one of its members.
const SHAPES: &str = include_str!("shapes.txt");

/// Everything that the service would refuse in a request to this model.
pub(crate) fn violations(model: &str, body: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check("ConverseStreamRequest", body, "body", &mut found);
    conversation(model, body, &mut found);
    found
}

fn check(shape: &str, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(item) = shape.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        match value.as_array() {
            Some(items) => {
                items.iter().enumerate().for_each(|(nth, value)| check(item, value, &format!("{at}[{nth}]"), found));
            }
            None => found.push(format!("{at}: is no list")),
        }
        return;
    }
    let text = value.as_str();
    let only = |allowed: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || allowed.contains(c);
        text.is_some_and(|text| (1..=64).contains(&text.len()) && text.chars().all(plain))
    };
    let fits = match shape {
        "any" => true,
        "string" => text.is_some(),
        "text" => text.is_some_and(|text| !text.is_empty()),
        "id" => only("_.:-"),
        "name" => only("_-"),
        "bytes" => text.is_some_and(|text| !text.is_empty() && text.len() % 4 == 0),
        "boolean" => value.is_boolean(),
        "integer" => value.as_u64().is_some_and(|value| value > 0),
        "share" => value.as_f64().is_some_and(|value| (0.0..=1.0).contains(&value)),
        _ => match shape.strip_prefix('=') {
            Some(words) => text.is_some_and(|text| words.split('|').any(|word| word == text)),
            None => return structure(shape, value, at, found),
        },
    };
    if !fits {
        found.push(format!("{at}: is no {shape}: {value}"));
    }
}

fn structure(shape: &str, value: &Value, at: &str, found: &mut Vec<String>) {
    let line = SHAPES.lines().find(|line| line.split(' ').find(|word| *word != "union") == Some(shape));
    let line = line.unwrap_or_else(|| panic!("{shape} is no shape"));
    let members: BTreeMap<&str, &str> = line.split(' ').filter_map(|member| member.split_once(':')).collect();
    let Some(object) = value.as_object() else {
        found.push(format!("{at}: is no object"));
        return;
    };
    if line.starts_with("union ") && object.len() != 1 {
        found.push(format!("{at}: has {} members of a union", object.len()));
    }
    for required in members.keys().filter_map(|name| name.strip_suffix('*')) {
        if !object.contains_key(required) {
            found.push(format!("{at}: lacks {required}"));
        }
    }
    for (name, value) in object {
        match members.get(name.as_str()).or_else(|| members.get(format!("{name}*").as_str())) {
            Some(shape) => check(shape, value, &format!("{at}.{name}"), found),
            None => found.push(format!("{at}.{name}: is not known")),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn conversation(model: &str, body: &Value, found: &mut Vec<String>) {
    let is = |vendor: &str| model.contains(vendor);
    let messages = list(&body["messages"]);
    let roles: Vec<&str> = messages.iter().filter_map(|message| message["role"].as_str()).collect();
    if roles.windows(2).any(|pair| pair[0] == pair[1]) {
        found.push("messages: do not alternate".to_owned());
    }
    let may_begin = ["anthropic.", "qwen.", "moonshot", "zai."].into_iter().any(is);
    if roles.is_empty() || (roles[0] != "user" && !may_begin) {
        found.push("messages: do not begin with the user".to_owned());
    }
    let (mut names, mut tool_content) = (BTreeSet::new(), false);
    for (nth, message) in messages.iter().enumerate() {
        let content = list(&message["content"]);
        let has = |kind: &str| content.iter().any(|block| !block[kind].is_null());
        let mut complain = |what: &str| found.push(format!("messages[{nth}]: {what}"));
        if content.is_empty() {
            complain("is empty");
        }
        if has("document") && !has("text") {
            complain("has a document and no text");
        }
        let alone = ["meta.", "mistral.", "writer."].into_iter().any(is);
        let beside = |kinds: &[&str]| has("toolResult") && kinds.iter().any(|kind| has(kind));
        if (alone && beside(&["text", "image", "document", "video"]))
            || (is("anthropic.") && beside(&["document", "video"]))
        {
            complain("has something beside results that may not stand there");
        }
        let mut before = "";
        for block in content {
            let kind = block.as_object().and_then(|block| block.keys().next()).map_or("", String::as_str);
            // A result without its call is refused in any case.
            tool_content |= kind == "toolUse";
            if kind == "cachePoint" && matches!(before, "" | "cachePoint" | "document" | "video") {
                complain("has a cache point where none may stand");
            }
            if kind == "reasoningContent" && !is("anthropic.") && !is("application-inference-profile") {
                complain("has reasoning that the model cannot read");
            }
            before = kind;
            let inner = list(&block["toolResult"]["content"]);
            if kind == "toolResult" && inner.is_empty() {
                complain("has an empty result");
            }
            if is("writer.") && !block["toolResult"]["status"].is_null() {
                complain("has a status");
            }
            for block in std::iter::once(block).chain(inner) {
                if block["text"].as_str().is_some_and(|text| text.trim().is_empty()) {
                    complain("has text of white space");
                }
                if let Some(name) = block["document"]["name"].as_str() {
                    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || " -()[]".contains(c));
                    if !plain || name.contains("  ") || name.is_empty() || name.len() > 200 {
                        complain("has a document with a bad name");
                    }
                    if !names.insert(name) {
                        complain("has two documents of one name");
                    }
                }
            }
        }
        let is_last = nth.checked_add(1) == Some(messages.len());
        if message["role"] == "assistant" && !has("toolUse") && is_last && refuses_prefill(model) {
            complain("begins the answer");
        }
    }
    let tools = list(&body["toolConfig"]["tools"]);
    if tool_content && tools.is_empty() {
        found.push("toolConfig: is missing beside tool content".to_owned());
    }
    if !body["toolConfig"].is_null() && tools.is_empty() {
        found.push("toolConfig.tools: is empty".to_owned());
    }
    let all = messages.iter().flat_map(|message| list(&message["content"])).chain(tools).chain(list(&body["system"]));
    let points = all.filter(|block| !block["cachePoint"].is_null()).count();
    if points > 4 || (points > 0 && !is("anthropic.") && !is("amazon.")) {
        found.push(format!("{points} cache points"));
    }
    claude(model, body, found);
}

fn refuses_prefill(model: &str) -> bool {
    ["claude-sonnet-4-6", "claude-opus-4-6", "claude-opus-4-7", "claude-opus-5", "claude-sonnet-5", "claude-fable"]
        .iter()
        .any(|name| model.contains(name))
}

fn claude(model: &str, body: &Value, found: &mut Vec<String>) {
    if !model.contains("anthropic.") {
        return;
    }
    let newest = ["claude-opus-4-7", "claude-opus-5", "claude-sonnet-5", "claude-fable"];
    let newest = newest.iter().any(|name| model.contains(name));
    let (inference, fields) = (&body["inferenceConfig"], &body["additionalModelRequestFields"]);
    let sampled = !inference["temperature"].is_null() || !inference["topP"].is_null() || !fields["top_k"].is_null();
    let thinks = matches!(fields["thinking"]["type"].as_str(), Some("enabled" | "adaptive"));
    if sampled && (newest || thinks) {
        found.push("inferenceConfig: samples".to_owned());
    }
    let both = !inference["temperature"].is_null() && !inference["topP"].is_null();
    if both && ["-4-1", "-4-5", "-4-6"].iter().any(|version| model.contains(version)) {
        found.push("inferenceConfig: has both temperature and topP".to_owned());
    }
    let budget = fields["thinking"]["budget_tokens"].as_u64();
    if newest && budget.is_some() {
        found.push("thinking: has a budget".to_owned());
    }
    let choice = &body["toolConfig"]["toolChoice"];
    let forced = !choice["any"].is_null() || !choice["tool"].is_null();
    if forced && (budget.is_some() || model.contains("claude-fable")) {
        found.push("toolChoice: is forced".to_owned());
    }
    if budget.is_some_and(|budget| budget < 1024) {
        found.push("thinking: has too small a budget".to_owned());
    }
}
