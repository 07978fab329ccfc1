//! Requests that are counted instead of answered: what the providers' endpoints for it take of a chat request.

use serde_json::{Map, Value, json};

use super::UpstreamRequest;

/// The request for the tokens of a chat request, at the path that `path` makes of its own: the members that the
/// endpoint takes, put where `within` says. `None` if it is no request that can be counted.
pub fn of(
    request: UpstreamRequest,
    path: impl FnOnce(&str) -> Option<String>,
    takes: &[&str],
    within: impl FnOnce(Map<String, Value>) -> Value,
) -> Option<UpstreamRequest> {
    let path = path(&request.path)?;
    let body: Map<String, Value> = serde_json::from_slice(&request.body).ok()?;
    let body = body.into_iter().filter(|(name, _)| takes.contains(&name.as_str())).collect();
    Some(UpstreamRequest {
        headers: request.headers,
        ..UpstreamRequest::post(path, within(body).to_string().into_bytes())
    })
}

/// What Anthropic counts.
pub const MESSAGES: &[&str] = &["model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"];

/// What OpenAI counts.
pub const RESPONSES: &[&str] =
    &["model", "input", "instructions", "tools", "tool_choice", "text", "reasoning", "parallel_tool_calls"];

/// What Bedrock counts.
pub const CONVERSE: &[&str] = &["messages", "system", "toolConfig", "additionalModelRequestFields"];

/// What Vertex AI counts.
pub const VERTEX: &[&str] = &["contents", "systemInstruction", "tools", "generationConfig"];

/// What the Gemini API counts.
pub const GEMINI: &[&str] =
    &["contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "cachedContent"];

/// A model's own id, which Bedrock's endpoint for counting wants, from that of a profile over several regions.
pub fn without_region(model: &str) -> &str {
    let regions = ["us.", "eu.", "apac.", "jp.", "au.", "us-gov.", "global."];
    regions.iter().find_map(|region| model.strip_prefix(region)).unwrap_or(model)
}

/// A member of a count, as a number.
pub fn number(reply: &Value, name: &str) -> Option<u64> {
    reply.get(name).and_then(Value::as_u64)
}

/// All of a request under one name.
pub fn under(name: &'static str) -> impl FnOnce(Map<String, Value>) -> Value {
    move |body| json!({name: body})
}
