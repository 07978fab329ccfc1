//! Recorded requests with what their providers counted, as Chat Completions or Messages would have asked.

use std::fs;

use llm_gateway::gateway::estimate::Family;
use serde_json::{Map, Value, json};

/// One recorded request.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) family: Family,
    /// The request's body, in one of the two dialects that are served.
    pub(crate) body: Value,
    /// The input tokens that the provider counted.
    pub(crate) input: u64,
    /// The output tokens that the provider counted.
    pub(crate) output: u64,
}

/// What a provider fetches by itself, or keeps from before, nobody else can count.
const UNKNOWABLE: &[&str] = &[
    "\"web_search",
    "\"web_fetch",
    "\"code_execution",
    "\"advisor",
    "\"mcp",
    "\"tool_search",
    "\"file_id\"",
    "\"plugins\"",
    "\"file_search",
    "\"code_interpreter",
    "\"fileUri\"",
    "\"fileData\"",
    "\"file_data_uri\"",
    "\"google_search",
    "\"googleSearch",
    "\"urlContext",
    "\"codeExecution",
    "\"fileSearch",
    "\"video_url\"",
    "\"text_editor",
    "\"compaction\"",
    "\"encrypted_content\"",
    "\"server_tool_use\"",
    "\"namespace\"",
    "\"thoughtSignature\"",
    "\"defer_loading\"",
    "\"image_generation",
    "\"computer_use",
    "compound",
    "\"reasoning_details\"",
    "s3Location",
    "s3://",
    "gs://",
    "\"file_uri\"",
    "generativelanguage.googleapis.com/v1beta/files",
    "openrouter:web_search",
    "outputConfig",
];

/// The recordings of which both the request and the counts are there; `None`, with a note, without the folder.
pub(crate) fn recordings() -> Option<Vec<Recording>> {
    let (root, index) = crate::recorded::index()?;
    let mut found = Vec::new();
    for entry in &index {
        let file = root.join(entry["file"].as_str().unwrap());
        let exchange: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let request = &exchange["request"]["body"];
        let text = request.to_string();
        if !request.is_object() || UNKNOWABLE.iter().any(|part| text.contains(part)) {
            continue;
        }
        let (model, body) = match entry["api"].as_str().unwrap() {
            "chat" | "messages" => (request["model"].as_str().unwrap_or_default().to_owned(), request.clone()),
            "generateContent" | "streamGenerateContent" => (model_of_path(&exchange), of_gemini(request)),
            "converse" => (model_of_path(&exchange), of_converse(request)),
            _ => continue,
        };
        let stream = fs::read_to_string(file.with_extension("sse")).unwrap_or_default();
        let events = stream.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?).ok());
        let replies: Vec<Value> = events.chain([exchange["response"]["body"].clone()]).collect();
        let largest = |count: fn(&Value) -> Option<u64>| replies.iter().filter_map(usage).filter_map(count).max();
        let (Some(input), Some(output)) = (largest(input), largest(output)) else { continue };
        if input == 0 || model.contains("cohere") || model.contains("command-") {
            continue;
        }
        found.push(Recording { family: Family::of(&model, false), body, input, output });
    }
    Some(found)
}

fn usage(reply: &Value) -> Option<&Value> {
    ["/usage", "/message/usage", "/usageMetadata"].iter().find_map(|at| reply.pointer(at))
}

fn input(usage: &Value) -> Option<u64> {
    let count = |name: &str| usage[name].as_u64();
    let cached = count("cache_read_input_tokens").unwrap_or(0) + count("cache_creation_input_tokens").unwrap_or(0);
    let of_bedrock = count("cacheReadInputTokens").unwrap_or(0) + count("cacheWriteInputTokens").unwrap_or(0);
    count("prompt_tokens")
        .or(count("promptTokenCount"))
        .or(count("inputTokens").map(|n| n + of_bedrock))
        .or(count("input_tokens").map(|n| n + cached))
}

fn output(usage: &Value) -> Option<u64> {
    let count = |name: &str| usage[name].as_u64();
    let of_gemini = count("candidatesTokenCount").map(|n| n + count("thoughtsTokenCount").unwrap_or(0));
    count("completion_tokens").or(of_gemini).or(count("outputTokens")).or(count("output_tokens"))
}

fn model_of_path(exchange: &Value) -> String {
    let path = exchange["request"]["path"].as_str().unwrap_or_default().replace("%3A", ":");
    let after = path.split('/').skip_while(|part| !matches!(*part, "models" | "model")).nth(1).unwrap_or_default();
    after.split(":generate").next().unwrap().split(":stream").next().unwrap().to_owned()
}

fn texts(parts: &Value, name: &str) -> Value {
    match parts {
        Value::Array(parts) => parts.iter().filter_map(|p| p[name].as_str()).collect::<Vec<_>>().join("\n").into(),
        other => other.clone(),
    }
}

fn function(name: &Value, description: &Value, parameters: &Value) -> Value {
    json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})
}

fn call(name: &Value, arguments: String) -> Value {
    json!({"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn of_gemini(request: &Value) -> Value {
    let mut messages = Vec::new();
    if request["systemInstruction"].is_object() {
        messages.push(json!({"role": "system", "content": texts(&request["systemInstruction"]["parts"], "text")}));
    }
    for content in request["contents"].as_array().into_iter().flatten() {
        let mut message = Map::new();
        let mut parts = Vec::new();
        for part in content["parts"].as_array().into_iter().flatten() {
            if part["functionCall"].is_object() {
                let name = &part["functionCall"]["name"];
                message.insert("tool_calls".to_owned(), json!([call(name, part["functionCall"]["args"].to_string())]));
            } else if part["functionResponse"].is_object() {
                message.insert("tool_call_id".to_owned(), "c".into());
                parts.push(
                    json!({"name": part["functionResponse"]["name"], "input": part["functionResponse"]["response"]}),
                );
            } else if part["inlineData"].is_object() {
                let mime = part["inlineData"]["mimeType"].as_str().unwrap_or_default();
                let data = part["inlineData"]["data"].as_str().unwrap_or_default();
                parts.push(json!({"image_url": {"url": format!("data:{mime};base64,{data}")}}));
            } else {
                parts.push(json!({"text": part["text"]}));
            }
        }
        message.insert("content".to_owned(), parts.into());
        messages.push(message.into());
    }
    let declared = request["tools"].as_array().into_iter().flatten();
    let declared = declared.flat_map(|tool| tool["functionDeclarations"].as_array().into_iter().flatten());
    let parameters = |f: &Value| {
        if f["parameters"].is_object() { f["parameters"].clone() } else { f["parametersJsonSchema"].clone() }
    };
    let tools: Vec<Value> = declared.map(|f| function(&f["name"], &f["description"], &parameters(f))).collect();
    let schema = &request["generationConfig"]["responseJsonSchema"];
    let format = if schema.is_object() { json!({"schema": schema}) } else { Value::Null };
    json!({"messages": messages, "tools": tools, "response_format": format})
}

fn of_converse(request: &Value) -> Value {
    let mut messages = Vec::new();
    for content in request["messages"].as_array().into_iter().flatten() {
        let parts = content["content"].as_array().into_iter().flatten().map(|part| match part {
            part if part["toolUse"].is_object() => {
                json!({"type": "tool_use", "name": part["toolUse"]["name"], "input": part["toolUse"]["input"]})
            }
            part if part["toolResult"].is_object() => {
                let inner = part["toolResult"]["content"].as_array().into_iter().flatten().map(converse_part);
                json!({"type": "tool_result", "tool_use_id": "c", "content": inner.collect::<Value>()})
            }
            part => converse_part(part),
        });
        messages.push(json!({"role": content["role"], "content": parts.collect::<Value>()}));
    }
    let specs = request["toolConfig"]["tools"].as_array().into_iter().flatten().map(|tool| &tool["toolSpec"]);
    let tools: Vec<Value> = specs
        .filter(|spec| spec.is_object())
        .map(|s| json!({"name": s["name"], "description": s["description"], "input_schema": s["inputSchema"]["json"]}))
        .collect();
    let mut body = json!({"messages": messages, "tools": tools});
    if request["system"].is_array() {
        body["system"] = texts(&request["system"], "text");
    }
    body
}

fn converse_part(part: &Value) -> Value {
    for kind in ["image", "document"] {
        if part[kind].is_object() {
            return json!({"type": kind, "source": {"data": part[kind]["source"]["bytes"]}});
        }
    }
    match &part["json"] {
        Value::Null => json!({"type": "text", "text": part["text"]}),
        json => json!({"type": "text", "text": json.to_string()}),
    }
}
