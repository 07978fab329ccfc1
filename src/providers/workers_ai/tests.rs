use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::config::StructuredOutput;
use crate::gateway::fault::fault_problem;
use crate::protocol::chat::{ChatEvent, FinishReason, ReplyDecoder as _, ReplyFault};
use crate::protocol::frames::{Decoding, Sse, read_whole};
use crate::protocol::inbound::{Inbound as _, chat::Chat};
use crate::providers::usage_of;

const MODEL: &str = "@cf/meta/llama-3.3-70b-instruct-fp8-fast";

fn provider() -> Provider {
    serde_json::from_value(json!({"dialect": "workers_ai", "base_url": "https://a.example"})).unwrap()
}

fn target(provider: &Provider) -> Target<'_> {
    let structured_output = StructuredOutput::Native;
    Target { provider, upstream_model: MODEL, max_output_tokens: 8192, structured_output, strict_params: false }
}

fn sent(members: &Value) -> Result<(Value, Vec<String>), Problem> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    let chat = Chat.read(body.to_string().as_bytes()).unwrap();
    let mut notes = Notes::new(chat.origin, false);
    let request = WorkersAi.translate(&chat, target(&provider()), &mut notes)?;
    Ok((serde_json::from_slice(&request.body).unwrap(), notes.into_dropped()))
}

fn decoded(pieces: &[&[u8]]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let provider = provider();
    let mut decoding = Decoding::new(Box::new(Sse::default()), WorkersAi.reader(target(&provider)));
    let mut events = Vec::new();
    for piece in pieces {
        decoding.push(piece, &mut events)?;
    }
    decoding.finish(&mut events)?;
    Ok(events)
}

fn whole(body: &Value) -> Result<Vec<ChatEvent>, ReplyFault> {
    let provider = provider();
    read_whole(WorkersAi.reader(target(&provider)), body.to_string().as_bytes())
}

fn text(events: &[ChatEvent]) -> String {
    let text = |event: &ChatEvent| match event {
        ChatEvent::Text { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

fn finish(events: &[ChatEvent]) -> Option<FinishReason> {
    events.iter().find_map(|event| match event {
        ChatEvent::Finish { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

#[test]
fn the_input_is_what_the_binding_takes() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let (body, mut dropped) = sent(&json!({
        "messages": [
            {"role": "developer", "content": "A"}, {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
        ],
        "temperature": 1.5, "top_k": 4, "seed": 3, "stop": "x", "stream": true, "reasoning_effort": "low", "foo": 1,
    }))
    .unwrap();
    assert_eq!(
        body,
        json!({
            "messages": [
                {"role": "system", "content": "A"}, {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "a", "content": "1"}, {"role": "user", "content": "x\n\ny"},
            ],
            "max_tokens": 8192, "temperature": 1.5, "top_k": 4, "seed": 3, "stream": true, "reasoning_effort": "low",
        })
    );
    dropped.sort();
    assert_eq!(dropped, ["foo", "stop"]);
    let image = |url: &str| {
        let part = json!({"type": "image_url", "image_url": {"url": url}});
        json!({"messages": [{"role": "user", "content": [part]}]})
    };
    assert!(sent(&image("data:image/png;base64,AAAA")).unwrap().0["messages"][0]["content"].is_array());
    let problem = sent(&image("https://a.example/x.png")).unwrap_err();
    assert_eq!((problem.status, problem.param.as_deref()), (400, Some("messages[0].content[0]")));
    assert_eq!(sent(&json!({"n": 2})).unwrap_err().status, 400);
}

#[test]
fn tools_and_forms_of_the_answer() {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let named = json!({"type": "function", "function": {"name": "b"}});
    let (body, _) = sent(&json!({"tools": [tool("a"), tool("b")], "tool_choice": named})).unwrap();
    assert_eq!((body["tools"].as_array().unwrap().len(), &body["tool_choice"]), (1, &json!("required")));
    let schema = json!({"type": "object", "properties": {}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let (body, _) = sent(&json!({"response_format": format, "stream": true})).unwrap();
    assert_eq!(body["response_format"], json!({"type": "json_schema", "json_schema": schema}));
    assert_eq!(body.get("stream"), None);
    let (body, _) = sent(&json!({"response_format": format, "tools": [tool("a")], "stream": true})).unwrap();
    assert_eq!((body["tools"].as_array().unwrap().len(), &body["stream"]), (2, &json!(true)));
}

#[test]
fn both_forms_of_replies_are_read() {
    let events = whole(&json!({"response": "Yes", "usage": {"prompt_tokens": 3, "completion_tokens": 2}})).unwrap();
    assert_eq!((text(&events).as_str(), finish(&events)), ("Yes", Some(FinishReason::Stop)));
    assert_eq!(usage_of(&events).unwrap().usage.output, 2);
    assert_eq!(text(&whole(&json!({"response": {"a": 1}})).unwrap()), "{\"a\":1}");
    let calls = json!({"response": null, "tool_calls": [{"name": "f", "arguments": {"x": 1}}, {"name": "g"}]});
    let events = whole(&calls).unwrap();
    let arguments = |index, text: &str| ChatEvent::CallArguments { choice: 0, index, fragment: text.into() };
    assert!(events.contains(&arguments(0, "{\"x\":1}")) && events.contains(&arguments(1, "{}")));
    assert_eq!(finish(&events), Some(FinishReason::ToolCalls));
    let chat = json!({"id": "c", "choices": [{"message": {"content": "Yes"}, "finish_reason": "length"}]});
    let events = whole(&chat).unwrap();
    assert_eq!((text(&events).as_str(), finish(&events)), ("Yes", Some(FinishReason::Length)));
    assert!(matches!(whole(&json!({"odd": 1})), Err(ReplyFault::Malformed(_))));

    let chunk = b"data: {\"choices\":[{\"delta\":{\"content\":\"Yes\"},\"finish_reason\":\"stop\"}]}\n\n";
    let events = decoded(&[chunk, b"data: [DONE]\n\n"]).unwrap();
    assert_eq!((text(&events).as_str(), finish(&events)), ("Yes", Some(FinishReason::Stop)));
    assert_eq!(decoded(&[b"data: {\"choices\":[{\"delta\":{\"content\":\"Yes\"}}]}\n\n"]), Err(ReplyFault::Truncated));
    assert_eq!(decoded(&[b"data: [DONE]\n\n"]), Err(ReplyFault::Truncated));
}

#[test]
fn the_documented_stream_is_read_however_it_is_cut() {
    let root = std::env::var_os("FIXTURES_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")), PathBuf::from);
    let Ok(bytes) = fs::read(root.join("_documented/workersai-text-stream.sse")) else {
        eprintln!("SKIPPED: there is no recorded traffic at {}; set FIXTURES_DIR", root.display());
        return;
    };
    let events = decoded(&[&bytes]).unwrap();
    assert_eq!((text(&events).as_str(), finish(&events)), ("Hello from Workers AI ☕", Some(FinishReason::Stop)));
    assert_eq!(usage_of(&events).unwrap().usage.output, 9);
    for at in 0..bytes.len() {
        assert_eq!(decoded(&[&bytes[..at], &bytes[at..]]).unwrap(), events, "cut at {at}");
        let is_whole = bytes[at..].iter().all(|byte| *byte == b'\n');
        assert_eq!(decoded(&[&bytes[..at]]).is_ok(), is_whole, "ends at {at}");
    }
}

#[test]
fn errors_mean_what_their_numbers_say_wherever_they_stand() {
    let read = |body: Value| {
        let error = WorkersAi.read_error(500, &HeaderMap::new(), &body, &provider());
        (error.code.unwrap_or_default(), error.status, error.message.is_some())
    };
    for (number, code, status) in [
        (5007, "model_not_found", 404),
        (5004, "invalid_request_error", 400),
        (5021, "context_length_exceeded", 400),
        (5016, "permission_error", 403),
        (3007, "timeout_error", 408),
        (3006, "request_too_large", 413),
        (3036, "insufficient_quota", 429),
        (3040, "overloaded_error", 503),
    ] {
        let meant = (code.to_owned(), Some(status), true);
        assert_eq!(read(json!({"errors": [{"code": number, "message": "no"}]})), meant);
        assert_eq!(read(json!({"internalCode": number, "description": "no"})), meant);
        assert_eq!(read(json!({"error": format!("AiError: {number}: no")})), meant);
        let fault = whole(&json!({"errors": [{"code": number, "message": "no"}]})).unwrap_err();
        assert_eq!(fault.code(), code);
    }
    assert_eq!(read(json!({"error": "lost"})), (String::new(), None, true));
    let late = b"data: {\"response\": \"a\"}\n\ndata: {\"errors\": [{\"code\": 3040, \"message\": \"no\"}]}\n\n";
    assert_eq!(fault_problem(&decoded(&[late]).unwrap_err()).status, 503);
    for odd in [json!(null), json!([]), json!({"errors": []})] {
        assert_eq!(read(odd), (String::new(), None, false));
    }
}
