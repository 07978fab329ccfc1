//! What the model says, whole and streamed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::proto::{Host, elements, member};
use super::rules::{Family, PROVEN_ID, proof};
use super::{error_body, retry_info, text_of};
use crate::answer::{self, Answer, Conversation, Ending, Limits, ToolQuestion, Want};
use crate::directives::{self, Directives};
use crate::reply::{ApiError, Reply, json_string};
use crate::schema;
use crate::server::App;
use crate::wire::{Event, EventStream, Framing, Kind, Template};

/// A picture of one dot.
pub const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
/// A hundredth of a second of silence.
const SILENCE: [u8; 480] = [0; 480];

/// A request that passed the checks.
pub struct Asked<'a> {
    pub model: &'a str,
    pub host: Host,
    pub body: &'a Value,
}

/// What one candidate says.
struct Said {
    thoughts: Option<Answer>,
    text: Option<Answer>,
    /// Calls, written out as parts.
    calls: Vec<String>,
    /// Pictures and sounds, written out as parts.
    media: Option<String>,
    /// The proof that comes with the text.
    signature: Option<String>,
    finish: String,
    message: Option<&'static str>,
    tokens: u64,
}

/// The words in which every chunk is told.
struct Frame {
    /// What stands after the candidates.
    tail: String,
    full_tail: String,
}

/// What a request says that matters to the answer.
pub fn converse(body: &Value) -> Conversation {
    let mut conversation = Conversation::default();
    if let Some(text) = member(body, "system_instruction").and_then(text_of) {
        conversation.has_system = true;
        conversation.hash_text(&text);
        conversation.count_message("system", text.len());
    }
    for content in elements(body, "contents") {
        let role = member(content, "role").and_then(Value::as_str).unwrap_or("user");
        let text = text_of(content).unwrap_or_default();
        let (clean, _) = directives::extract(&text);
        conversation.hash_text(&clean);
        let mut bytes = clean.len();
        conversation.tool_results.clear();
        for part in elements(content, "parts") {
            let mime = ["inline_data", "file_data"]
                .iter()
                .find_map(|kind| member(part, kind))
                .map(|data| member(data, "mime_type").and_then(Value::as_str).unwrap_or("image/"));
            match mime {
                Some(mime) if mime.starts_with("image/") => conversation.images += 1,
                Some(_) => conversation.documents += 1,
                None => {}
            }
            if let Some(call) = member(part, "function_call") {
                let text = call.to_string();
                conversation.hash_text(&text);
                bytes += text.len();
            }
            if let Some(response) = member(part, "function_response").and_then(|answer| member(answer, "response")) {
                let text = match response.as_object().map(|fields| fields.values().collect::<Vec<_>>()).as_deref() {
                    Some([Value::String(only)]) => only.clone(),
                    _ => response.to_string(),
                };
                conversation.hash_text(&text);
                bytes += text.len();
                conversation.tool_results.push(text);
            }
        }
        conversation.count_message(role, bytes);
        if role == "user" && conversation.tool_results.is_empty() {
            conversation.turns += 1;
        }
        if role == "user" && !text.is_empty() {
            conversation.question = clean.into_owned();
        }
    }
    conversation.count_extras(declarations(body).len());
    conversation
}

/// The functions that may be called: name and schema.
fn declarations(body: &Value) -> Vec<(&str, &Value)> {
    let declared = elements(body, "tools").iter().flat_map(|tool| elements(tool, "function_declarations"));
    let schema = |function| member(function, "parameters_json_schema").or_else(|| member(function, "parameters"));
    declared
        .filter_map(|function| Some((member(function, "name")?.as_str()?, schema(function).unwrap_or(&Value::Null))))
        .collect()
}

/// A schema of OpenAPI's kind in the words of JSON Schema.
fn plain_schema(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| match (key.as_str(), value) {
                ("type", Value::String(name)) => (key.clone(), Value::String(name.to_ascii_lowercase())),
                ("any_of", _) => ("anyOf".to_owned(), plain_schema(value)),
                _ => (key.clone(), plain_schema(value)),
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(plain_schema).collect()),
        other => other.clone(),
    }
}

/// Answers a request. `framed` is None for a whole reply, and for a stream whether it is one of events.
pub fn answer(app: &App, asked: &Asked<'_>, framed: Option<bool>, directives: &Directives) -> Reply {
    let conversation = converse(asked.body);
    let config = member(asked.body, "generation_config").unwrap_or(&Value::Null);
    let choices = member(config, "candidate_count").and_then(Value::as_u64).unwrap_or(1);
    let said: Vec<Said> = if directives.block {
        Vec::new()
    } else {
        (0..usize::try_from(choices).unwrap_or(1))
            .map(|variant| say(app, asked, config, &conversation, directives, variant))
            .collect()
    };
    let frame = frame(app, asked, &conversation, &said, directives);
    match framed {
        None => Reply::json(200, whole(&said, &frame, directives)),
        Some(true) => Reply::stream("text/event-stream", stream(Framing::Sse, &said, &frame, directives)),
        Some(false) => Reply::stream("application/json", stream(Framing::JsonArray, &said, &frame, directives)),
    }
}

fn say(
    app: &App,
    asked: &Asked<'_>,
    config: &Value,
    conversation: &Conversation,
    directives: &Directives,
    variant: usize,
) -> Said {
    let family = Family::of(asked.model);
    let signed = directives.signature || family.demands_proofs();
    let thinking = member(config, "thinking_config");
    let shown = thinking.and_then(|thinking| member(thinking, "include_thoughts")) == Some(&Value::Bool(true));
    let thoughts = (directives.reasoning != Some(0) && (shown || directives.reasoning_content))
        .then(|| answer::thinking(conversation, directives.reasoning));
    let hidden = if thoughts.is_some() { None } else { directives.reasoning };
    let offered = declarations(asked.body);
    let calling = member(asked.body, "tool_config").and_then(|config| member(config, "function_calling_config"));
    let mode = calling.and_then(|calling| member(calling, "mode")).and_then(Value::as_str).unwrap_or("AUTO");
    let allowed: Vec<&str> = calling
        .map(|calling| elements(calling, "allowed_function_names"))
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let usable: Vec<(&str, &Value)> =
        offered.into_iter().filter(|(name, _)| allowed.is_empty() || allowed.contains(name)).collect();
    let question = ToolQuestion {
        tools: usable.len(),
        forbidden: mode.eq_ignore_ascii_case("none"),
        forced: mode.eq_ignore_ascii_case("any"),
        parallel: true,
        conversation,
    };
    let count = if directives.malformed_call { 0 } else { answer::tool_calls(question, directives) };
    let mut said = Said {
        tokens: thoughts.as_ref().map_or(0, Answer::tokens).max(hidden.unwrap_or(0)),
        thoughts,
        text: None,
        calls: Vec::new(),
        media: directives.media.as_deref().map(media),
        signature: None,
        finish: "STOP".to_owned(),
        message: None,
    };
    if directives.malformed_call {
        said.finish = "MALFORMED_FUNCTION_CALL".to_owned();
        said.message = Some("Malformed function call: print(default_api.lookup(city='Paris')");
    } else if count > 0 {
        for (number, (name, schema)) in usable.iter().cycle().take(count).enumerate() {
            let arguments =
                schema::example(&plain_schema(schema), &conversation.question, number / usable.len().max(1) + variant);
            said.calls.push(call(app, asked.host, name, &arguments, signed && number == 0, directives.signature));
        }
    } else {
        let text = compose(config, conversation, directives, variant);
        if text.ending == Ending::Length {
            said.finish = "MAX_TOKENS".to_owned();
        }
        said.signature = signed.then(|| STANDARD.encode(proof("", &json!({"text": text.text}))));
        said.text = Some(text);
    }
    if let Some(finish) = &directives.finish {
        said.finish.clone_from(finish);
    }
    said
}

fn compose(config: &Value, conversation: &Conversation, directives: &Directives, variant: usize) -> Answer {
    let schema = ["response_json_schema", "response_schema"].iter().find_map(|name| member(config, name));
    let schema = schema.map(plain_schema);
    let json = member(config, "response_mime_type").and_then(Value::as_str) == Some("application/json");
    let want = match &schema {
        Some(schema) => Want::Json(schema),
        None if json => Want::JsonObject,
        None => Want::Prose,
    };
    let limits = Limits {
        max_tokens: member(config, "max_output_tokens").and_then(Value::as_u64),
        stop: elements(config, "stop_sequences").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    answer::compose(conversation, directives, want, &limits, variant)
}

fn call(app: &App, host: Host, name: &str, arguments: &Value, signed: bool, demanded: bool) -> String {
    // Vertex AI gives its calls no ids.
    let id = match host {
        Host::Gemini if demanded => format!(r#","id":"{}""#, app.id(PROVEN_ID, 8)),
        Host::Gemini => format!(r#","id":"{}""#, app.id("", 8)),
        Host::Vertex | Host::VertexStable => String::new(),
    };
    let signature = if signed {
        format!(r#","thoughtSignature":"{}""#, STANDARD.encode(proof(name, arguments)))
    } else {
        String::new()
    };
    format!(r#"{{"functionCall":{{"name":{},"args":{arguments}{id}}}{signature}}}"#, json_string(name))
}

fn media(kind: &str) -> String {
    let (mime, data) = match kind {
        "image" => ("image/png", PNG.to_owned()),
        _ => ("audio/L16;codec=pcm;rate=24000", STANDARD.encode(SILENCE)),
    };
    format!(r#"{{"inlineData":{{"mimeType":"{mime}","data":"{data}"}}}}"#)
}

fn frame(app: &App, asked: &Asked<'_>, conversation: &Conversation, said: &[Said], directives: &Directives) -> Frame {
    let spoken: u64 = said
        .iter()
        .map(|said| {
            let calls: usize = said.calls.iter().map(|call| call.len().div_ceil(8)).sum();
            said.text.as_ref().map_or(0, Answer::tokens) + u64::try_from(calls).unwrap_or_default()
        })
        .sum();
    let thoughts: u64 = said.iter().map(|said| said.tokens).sum();
    let cached = directives.cached.unwrap_or(0);
    let prompt = directives.usage_in.unwrap_or(conversation.prompt_tokens).max(cached);
    let output = directives.usage_out.unwrap_or(spoken);
    let usage = |full: bool| {
        if directives.no_usage {
            return String::new();
        }
        let total = if full { prompt.saturating_add(output).saturating_add(thoughts) } else { prompt };
        let mut usage = format!(
            r#"{{"promptTokenCount":{prompt},"totalTokenCount":{total},"promptTokensDetails":[{{"modality":"TEXT","tokenCount":{prompt}}}]"#
        );
        if cached > 0 {
            usage.push_str(&format!(
                r#","cachedContentTokenCount":{cached},"cacheTokensDetails":[{{"modality":"TEXT","tokenCount":{cached}}}]"#
            ));
        }
        if full && !said.is_empty() {
            usage.push_str(&format!(r#","candidatesTokenCount":{output}"#));
            if thoughts > 0 {
                usage.push_str(&format!(r#","thoughtsTokenCount":{thoughts}"#));
            }
        }
        usage.push_str(if asked.host.is_vertex() { r#","trafficType":"ON_DEMAND"}"# } else { "}" });
        format!(r#""usageMetadata":{usage},"#)
    };
    let identity = format!(r#""modelVersion":{},"responseId":"{}"}}"#, json_string(asked.model), app.id("", 22));
    Frame { tail: format!("{}{identity}", usage(false)), full_tail: format!("{}{identity}", usage(true)) }
}

/// Where the answer comes from.
fn grounding(said: &Said, directives: &Directives) -> String {
    let Some(count) = directives.citations.filter(|count| *count > 0) else {
        return String::new();
    };
    let text = said.text.as_ref().map(|answer| answer.text.as_str()).unwrap_or_default();
    let chunks: Vec<Value> = (0..count)
        .map(|n| json!({"web": {"uri": format!("https://example.com/{n}"), "title": format!("Source {n}")}}))
        .collect();
    // Places are bytes of UTF-8.
    let supports: Vec<Value> = (0..count)
        .map(|n| {
            json!({
                "segment": {"startIndex": 0, "endIndex": text.len(), "text": text},
                "groundingChunkIndices": [n],
            })
        })
        .collect();
    let metadata = json!({
        "groundingChunks": chunks, "groundingSupports": supports, "webSearchQueries": ["mock"],
        "searchEntryPoint": {"renderedContent": "<div></div>"},
    });
    format!(r#","groundingMetadata":{metadata}"#)
}

fn ending(said: &Said, directives: &Directives) -> String {
    let message = said.message.map_or_else(String::new, |text| format!(r#","finishMessage":{}"#, json_string(text)));
    format!(r#","finishReason":{}{message}{}"#, json_string(&said.finish), grounding(said, directives))
}

fn blocked() -> &'static str {
    r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"#
}

fn whole(said: &[Said], frame: &Frame, directives: &Directives) -> String {
    if said.is_empty() {
        return format!("{}{}", blocked(), frame.full_tail);
    }
    let candidates: Vec<String> = said
        .iter()
        .enumerate()
        .map(|(index, said)| {
            let mut parts = Vec::new();
            parts.extend(
                said.thoughts
                    .iter()
                    .map(|answer| format!(r#"{{"text":{},"thought":true}}"#, json_string(&answer.text))),
            );
            parts.extend(said.media.clone());
            parts.extend(said.text.iter().map(|answer| {
                let signature = signature(said);
                format!(r#"{{"text":{}{signature}}}"#, json_string(&answer.text))
            }));
            parts.extend(said.calls.iter().cloned());
            let content = if parts.is_empty() {
                r#""content":{}"#.to_owned()
            } else {
                format!(r#""content":{{"parts":[{}],"role":"model"}}"#, parts.join(","))
            };
            format!("{{{content}{},\"index\":{index}}}", ending(said, directives))
        })
        .collect();
    format!(r#"{{"candidates":[{}],{}"#, candidates.join(","), frame.full_tail)
}

fn signature(said: &Said) -> String {
    said.signature.as_ref().map_or_else(String::new, |proof| format!(r#","thoughtSignature":"{proof}""#))
}

fn stream(framing: Framing, said: &[Said], frame: &Frame, directives: &Directives) -> EventStream {
    let failure = ApiError {
        status: 503,
        message: directives
            .error_message
            .clone()
            .unwrap_or_else(|| "The model is overloaded. Please try again later.".to_owned()),
        kind: directives.error_type.clone(),
        code: directives.error_code.clone(),
        param: directives.retry_delay.map(retry_info),
    };
    let mut events = EventStream::new(framing, Event::fixed(Kind::Done, None, error_body(&failure)));
    if said.is_empty() {
        events.push(Kind::Finish, None, format!("{}{}", blocked(), frame.full_tail));
    }
    let head = |parts: &str| format!(r#"{{"candidates":[{{"content":{{"parts":[{parts}"#);
    for (index, said) in said.iter().enumerate() {
        let close = format!(r#"],"role":"model"}},"index":{index}}}],{}"#, frame.tail);
        for (answer, thought) in [(&said.thoughts, r#","thought":true"#), (&said.text, "")] {
            let Some(answer) = answer else { continue };
            let template = events.template(Template {
                name: None,
                head: head(r#"{"text":"#),
                source: answer.text.clone(),
                tail: format!("{thought}}}{close}"),
            });
            for piece in &answer.pieces {
                events.push_delta(template, *piece);
            }
        }
        for part in said.media.iter().chain(&said.calls) {
            events.push(Kind::Content, None, format!("{}{close}", head(part)));
        }
    }
    for (index, said) in said.iter().enumerate() {
        let part = format!(r#"{{"text":""{}}}"#, signature(said));
        let finish = format!(
            r#"{}],"role":"model"}}{},"index":{index}}}],{}"#,
            head(&part),
            ending(said, directives),
            frame.full_tail
        );
        events.push(Kind::Finish, None, finish);
    }
    if directives.two_usage {
        events.push(Kind::Usage, None, format!("{{{}", frame.full_tail));
    }
    if framing == Framing::JsonArray {
        events.push(Kind::Done, None, "]".to_owned());
    }
    events
}
