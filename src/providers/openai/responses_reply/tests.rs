use serde_json::json;

use super::*;
use crate::protocol::chat::ReplyDecoder;
use crate::protocol::frames::{Decoding, Sse, read_whole};

fn stream(events: &[Value]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let mut decoding = Decoding::new(Box::new(Sse::default()), Box::new(Reader::default()));
    let mut out = Vec::new();
    for event in events {
        decoding.push(format!("data: {event}\n\n").as_bytes(), &mut out)?;
    }
    decoding.finish(&mut out)?;
    Ok(out)
}

fn whole(body: &Value) -> Result<Vec<ChatEvent>, ReplyFault> {
    read_whole(Box::new(Reader::default()), body.to_string().as_bytes())
}

fn completed(output: &Value) -> Value {
    json!({"type": "response.completed", "response": {"id": "r", "model": "m", "status": "completed", "output": output}})
}

fn reported(message: &str, code: &str) -> ReplyFault {
    ReplyFault::Reported { message: message.to_owned(), code: Some(code.to_owned()) }
}

#[test]
fn what_comes_only_at_the_end_is_read_then_and_what_came_is_not_read_twice() {
    let output = json!([
        {"type": "reasoning", "id": "rs", "summary": [{"text": "a"}, {"text": "b"}], "encrypted_content": "proof"},
        {"type": "message", "content": [
            {"type": "output_text", "text": "hello", "annotations": [{"type": "url_citation", "url": "u"}]},
            {"type": "refusal", "refusal": "no"},
        ]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "free"},
        {"type": "mcp_list_tools", "id": "m"},
    ]);
    let all = stream(&[completed(&output)]).unwrap();
    assert_eq!(whole(&completed(&output)["response"]).unwrap(), all);
    let joined = |at: u32| -> String {
        all.iter()
            .filter_map(|event| match event {
                ChatEvent::CallArguments { index, fragment, .. } if *index == at => Some(fragment.as_str()),
                _ => None,
            })
            .collect()
    };
    assert_eq!((joined(0).as_str(), joined(1).as_str()), ("{\"a\":1}", "free"));
    let block = all.iter().find_map(|event| match event {
        ChatEvent::ReasoningDone { part, .. } => Some(part.clone()),
        _ => None,
    });
    assert_eq!(block.unwrap().text, "a\n\nb");

    let mut pieces = vec![json!({"type": "response.created", "response": {"id": "r", "model": "m"}})];
    pieces.extend([
        json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "a"}),
        json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "b"}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": output[0]}),
        json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "hello"}),
        json!({"type": "response.output_text.done", "output_index": 1, "content_index": 0, "text": "hello"}),
        json!({"type": "response.refusal.delta", "output_index": 1, "content_index": 1, "delta": "no"}),
        json!({"type": "response.output_text.annotation.added", "output_index": 1, "content_index": 0,
               "annotation": {"type": "url_citation", "url": "u"}}),
        json!({"type": "response.output_item.added", "output_index": 2,
               "item": {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}}),
        json!({"type": "response.output_item.added", "output_index": 3,
               "item": {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": ""}}),
        json!({"type": "response.custom_tool_call_input.delta", "output_index": 3, "delta": "free"}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{\"a\":1}"}),
        completed(&output),
    ]);
    let by_pieces = stream(&pieces).unwrap();
    let kinds = |events: &[ChatEvent]| {
        let mut kinds: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
        kinds.retain(|kind| !kind.starts_with("Reasoning {"));
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&by_pieces), kinds(&all));
}

#[test]
fn the_end_says_how_it_ended() {
    let ended = |status: &str, why: Value| {
        whole(&json!({"id": "r", "model": "m", "status": status, "output": [], "incomplete_details": why}))
    };
    let reason = |events: Result<Vec<ChatEvent>, ReplyFault>| {
        events.unwrap().into_iter().find_map(|event| match event {
            ChatEvent::Finish { reason, .. } => Some(reason),
            _ => None,
        })
    };
    assert_eq!(reason(ended("completed", Value::Null)), Some(FinishReason::Stop));
    assert_eq!(reason(ended("incomplete", json!({"reason": "max_output_tokens"}))), Some(FinishReason::Length));
    assert_eq!(reason(ended("incomplete", json!({"reason": "content_filter"}))), Some(FinishReason::FILTERED));
    assert!(matches!(ended("in_progress", Value::Null), Err(ReplyFault::Malformed(_))));
    assert!(matches!(ended("cancelled", Value::Null), Err(ReplyFault::Reported { .. })));
    assert!(matches!(whole(&json!({})), Err(ReplyFault::Malformed(_))));
}

#[test]
fn an_error_is_no_reply() {
    let error = json!({"code": "server_error", "message": "sorry"});
    let failed = json!({"status": "failed", "error": error, "output": []});
    assert_eq!(whole(&failed), Err(reported("sorry", "server_error")));
    for event in [
        json!({"type": "response.failed", "response": failed}),
        json!({"type": "error", "code": "server_error", "message": "sorry", "param": null}),
        json!({"type": "error", "error": error}),
        json!({"error": error}),
    ] {
        assert_eq!(stream(&[event]), Err(reported("sorry", "server_error")));
    }
    assert_eq!(stream(&[]), Err(ReplyFault::Truncated));
    assert_eq!(stream(&[json!({"type": "response.output_text.delta", "delta": "x"})]), Err(ReplyFault::Truncated));
}

#[test]
fn pictures_are_media_and_calls_without_arguments_have_an_empty_object() {
    let output = json!([
        {"type": "image_generation_call", "id": "i", "result": "AAAA", "output_format": "webp"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
    ]);
    let events = stream(&[completed(&output), json!({"type": "response.output_text.delta", "delta": "late"})]).unwrap();
    assert!(
        events.iter().any(|event| matches!(event, ChatEvent::Picture { media_type, .. } if media_type == "image/webp"))
    );
    assert!(events.contains(&ChatEvent::CallArguments { choice: 0, index: 0, fragment: "{}".to_owned() }));
    assert!(!events.iter().any(|event| matches!(event, ChatEvent::Text { .. })));
}
