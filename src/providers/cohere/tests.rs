mod replies;
mod requests;

use serde_json::{Value, json};

use super::*;
use crate::config::StructuredOutput;
use crate::protocol::chat::{ChatEvent, ReplyDecoder as _, ReplyFault};
use crate::protocol::frames::{Decoding, Sse, read_whole};
use crate::protocol::inbound::{Inbound as _, chat::Chat};

const MODEL: &str = "command-a-03-2025";

fn provider() -> Provider {
    serde_json::from_value(json!({"dialect": "cohere", "base_url": "https://a.example"})).unwrap()
}

fn target<'a>(provider: &'a Provider, model: &'a str) -> Target<'a> {
    let structured_output = StructuredOutput::Native;
    Target { provider, upstream_model: model, max_output_tokens: 8192, structured_output, strict_params: false }
}

/// A Chat Completions request with these members.
fn asking(members: Value) -> ChatRequest {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    Chat.read(body.to_string().as_bytes()).unwrap()
}

/// The body for a model, and what was dropped.
#[expect(clippy::panic_in_result_fn, reason = "a test fails by panicking")]
fn sent_to(model: &str, members: Value) -> Result<(Value, Vec<String>), Problem> {
    let chat = asking(members);
    let mut notes = Notes::new(chat.origin, false);
    let request = Cohere.translate(&chat, target(&provider(), model), &mut notes)?;
    assert_eq!(request.path, "/v2/chat");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    check(&body);
    Ok((body, notes.into_dropped()))
}

fn sent(members: Value) -> (Value, Vec<String>) {
    sent_to(MODEL, members).unwrap()
}

/// What the API refuses: members that it does not know, wherever they stand.
fn check(body: &Value) {
    let known = |object: &Value, names: &str| {
        for name in object.as_object().unwrap().keys() {
            assert!(names.split(' ').any(|known| known == name), "{name} in {body}");
        }
    };
    let list = |of: &Value, name: &str| of[name].as_array().cloned().unwrap_or_default();
    known(
        body,
        "model messages stream tools strict_tools documents citation_options response_format safety_mode max_tokens \
         stop_sequences temperature seed frequency_penalty presence_penalty k p logprobs tool_choice thinking priority",
    );
    for message in list(body, "messages") {
        known(&message, "role content tool_calls tool_plan tool_call_id");
        assert!(message["content"] != "" && message["content"] != json!([]), "{message}");
        assert!(!message["content"].is_null() || !message["tool_calls"].is_null(), "{message}");
        for part in list(&message, "content") {
            known(&part, "type text image_url thinking");
        }
        for call in list(&message, "tool_calls") {
            known(&call, "id type function");
            known(&call["function"], "name arguments");
        }
    }
    for tool in list(body, "tools") {
        known(&tool, "type function");
        known(&tool["function"], "name description parameters");
    }
    let has_format = body["response_format"]["type"] == "json_object";
    assert!(!has_format || (body["tools"].is_null() && body["documents"].is_null()), "{body}");
    assert!(body["frequency_penalty"].is_null() || body["presence_penalty"].is_null());
}

fn decoded(pieces: &[&[u8]]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let mut decoding = Decoding::new(Box::new(Sse::default()), Cohere.reader(target(&provider(), MODEL)));
    let mut events = Vec::new();
    for piece in pieces {
        decoding.push(piece, &mut events)?;
    }
    decoding.finish(&mut events)?;
    Ok(events)
}

fn whole(body: &Value) -> Result<Vec<ChatEvent>, ReplyFault> {
    read_whole(Cohere.reader(target(&provider(), MODEL)), body.to_string().as_bytes())
}
