mod recorded;
mod replies;
mod requests;
mod shape;
mod tools;

use serde_json::{Value, json};

use super::*;
use crate::config::StructuredOutput;
use crate::protocol::chat::{
    Function, Lineage, List, Message, Part, PartBody, Place, ReasoningPart, Role, Signature, Source, Tool, ToolBody,
};

const API: Gemini = Gemini { host: Host::GeminiApi };
const VERTEX: Gemini = Gemini { host: Host::Vertex };

fn provider() -> Provider {
    serde_json::from_value(json!({"dialect": "openai", "base_url": "https://a.example"})).unwrap()
}

fn target<'a>(provider: &'a Provider, model: &'a str) -> Target<'a> {
    let structured_output = StructuredOutput::Native;
    Target { provider, upstream_model: model, max_output_tokens: 8192, structured_output, strict_params: false }
}

/// The body, what was dropped, and the rest.
fn sent(dialect: Gemini, model: &str, chat: &ChatRequest) -> Result<(Value, Vec<String>, UpstreamRequest), Problem> {
    let mut notes = Notes::new(chat.origin, false);
    let request = dialect.translate(chat, target(&provider(), model), &mut notes)?;
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    shape::check(&body, dialect.host == Host::Vertex);
    Ok((body, notes.into_dropped(), request))
}

/// The body for a Gemini 3 on the Gemini API, from which nothing was dropped.
fn body(chat: &ChatRequest) -> Value {
    let (body, dropped, _) = sent(API, "gemini-3-flash-preview", chat).unwrap();
    assert_eq!(dropped, Vec::<String>::new());
    body
}

/// Where and why a request is refused.
fn refusal(dialect: Gemini, chat: &ChatRequest) -> (String, String) {
    let problem = sent(dialect, "gemini-3-flash-preview", chat).unwrap_err();
    assert_eq!(problem.status, 400);
    (problem.param.unwrap(), problem.message)
}

fn chat(turns: Vec<(Role, Vec<PartBody>)>) -> ChatRequest {
    let mut chat = ChatRequest::new(Api::ChatCompletions, "m".to_owned());
    chat.messages = turns
        .into_iter()
        .enumerate()
        .map(|(nth, (role, parts))| {
            let at = Place::item(List::Messages, nth);
            let part = |(nth, body)| Part { body, cache: None, at: at.part(nth) };
            Message { role, parts: parts.into_iter().enumerate().map(part).collect(), name: None, at }
        })
        .collect();
    chat
}

fn asking() -> ChatRequest {
    chat(vec![(Role::User, vec![text("Hi")])])
}

fn text(text: &str) -> PartBody {
    PartBody::Text { text: text.to_owned(), signature: None }
}

fn own(value: &str) -> Option<Signature> {
    Some(Signature { family: Lineage::Gemini, value: value.to_owned() })
}

fn call(id: &str, name: &str, arguments: &str, signature: Option<Signature>) -> PartBody {
    PartBody::Call { id: id.into(), name: name.into(), arguments: arguments.into(), custom: false, signature }
}

fn result(id: &str, parts: Vec<PartBody>, is_error: bool) -> PartBody {
    let at = Place::item(List::Messages, 9);
    let parts = parts.into_iter().map(|body| Part { body, cache: None, at }).collect();
    PartBody::Result { id: id.into(), name: None, parts, is_error }
}

fn base64(media_type: &str) -> Source {
    Source::Base64 { media_type: media_type.to_owned(), data: "AAAA".to_owned() }
}

fn function(name: &str, parameters: Value, strict: Option<bool>) -> Tool {
    let body =
        ToolBody::Function(Function { name: name.into(), description: None, parameters: Some(parameters), strict });
    Tool { body, cache: None, at: Place::item(List::Tools, 0) }
}

#[test]
fn paths_name_the_model_and_the_method() {
    let path = |dialect: Gemini, model: &str, stream: bool| {
        let mut chat = asking();
        chat.stream = stream;
        sent(dialect, model, &chat).unwrap().2.path
    };
    assert_eq!(path(API, "gemini-2.5-pro", false), "/models/gemini-2.5-pro:generateContent");
    assert_eq!(path(API, "gemini-2.5-pro", true), "/models/gemini-2.5-pro:streamGenerateContent?alt=sse");
    assert_eq!(path(API, "tunedModels/a", false), "/tunedModels/a:generateContent");
    assert_eq!(path(VERTEX, "gemini-3", true), "/publishers/google/models/gemini-3:streamGenerateContent?alt=sse");
    assert_eq!(path(VERTEX, "endpoints/12", false), "/endpoints/12:generateContent");
}

#[test]
fn credentials_go_in_headers() {
    assert_eq!(API.auth(&provider()), AuthKind::Header { name: "x-goog-api-key" });
    assert_eq!(VERTEX.auth(&provider()), AuthKind::Bearer);
}
