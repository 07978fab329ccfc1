mod replies;
mod requests;

use serde_json::{Value, json};

use super::*;
use crate::config::StructuredOutput;
use crate::protocol::chat::{ChatEvent, ReplyDecoder as _, ReplyFault};
use crate::protocol::frames::{Decoding, Sse, read_whole};
use crate::protocol::inbound::{Inbound as _, chat::Chat};

const MODEL: &str = "ernie-4.0-8k-latest";

fn provider() -> Provider {
    serde_json::from_value(json!({"dialect": "wenxinworkshop", "base_url": "https://a.example"})).unwrap()
}

fn target(provider: &Provider, structured_output: StructuredOutput) -> Target<'_> {
    Target { provider, upstream_model: MODEL, max_output_tokens: 8192, structured_output, strict_params: false }
}

/// A Chat Completions request with these members.
fn asking(members: &Value) -> ChatRequest {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    Chat.read(body.to_string().as_bytes()).unwrap()
}

/// The body, and what was dropped.
fn sent(members: &Value) -> Result<(Value, Vec<String>), Problem> {
    let chat = asking(members);
    let mut notes = Notes::new(chat.origin, false);
    let request = Wenxinworkshop.translate(&chat, target(&provider(), StructuredOutput::Native), &mut notes)?;
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    check(body["messages"].as_array().unwrap());
    Ok((body, notes.into_dropped()))
}

/// What is refused: anything but the strictest form.
fn check(messages: &[Value]) {
    assert_eq!(messages.len() % 2, 1, "{messages:?}");
    for (nth, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap();
        let is_calling = message["function_call"].is_object();
        assert!(is_calling || !message["content"].as_str().unwrap().trim().is_empty(), "{message}");
        match (nth % 2, role) {
            (0, "user") | (1, "assistant") => {}
            (0, "function") => assert_eq!(messages[..nth].last().unwrap()["function_call"]["name"], message["name"]),
            other => panic!("{other:?} in {messages:?}"),
        }
    }
}

fn decoded(pieces: &[&[u8]]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let provider = provider();
    let reader = Wenxinworkshop.reader(target(&provider, StructuredOutput::Native));
    let mut decoding = Decoding::new(Box::new(Sse::default()), reader);
    let mut events = Vec::new();
    for piece in pieces {
        decoding.push(piece, &mut events)?;
    }
    decoding.finish(&mut events)?;
    Ok(events)
}

fn whole(body: &Value) -> Result<Vec<ChatEvent>, ReplyFault> {
    let provider = provider();
    let reader = Wenxinworkshop.reader(target(&provider, StructuredOutput::Native));
    read_whole(reader, body.to_string().as_bytes())
}
