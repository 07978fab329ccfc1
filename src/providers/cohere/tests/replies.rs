//! Replies, recorded ones among them: they are read from where they lie (`FIXTURES_DIR`, or `../shared/fixtures`).

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::protocol::chat::FinishReason;
use crate::protocol::usage::Usage;

fn text(events: &[ChatEvent]) -> String {
    let text = |event: &ChatEvent| match event {
        ChatEvent::Text { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

fn reasoning(events: &[ChatEvent]) -> String {
    let text = |event: &ChatEvent| match event {
        ChatEvent::Reasoning { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

/// Names and arguments of the calls.
fn calls(events: &[ChatEvent]) -> Vec<(String, String)> {
    let mut calls: Vec<(String, String)> = Vec::new();
    for event in events {
        match event {
            ChatEvent::CallStart { index, name, id, .. } => {
                assert_eq!(*index as usize, calls.len());
                assert!(!id.is_empty());
                calls.push((name.clone(), String::new()));
            }
            ChatEvent::CallArguments { index, fragment, .. } => calls[*index as usize].1.push_str(fragment),
            _ => {}
        }
    }
    calls
}

fn finish(events: &[ChatEvent]) -> Option<FinishReason> {
    let mut finishes = events.iter().filter_map(|event| match event {
        ChatEvent::Finish { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    let reason = finishes.next();
    assert_eq!(finishes.next(), None);
    reason
}

fn usage(events: &[ChatEvent]) -> Option<Usage> {
    crate::providers::usage_of(events).map(|told| told.usage)
}

fn stream(events: &[Value]) -> Vec<u8> {
    let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("message"));
    events.iter().map(event).collect::<String>().into_bytes()
}

#[test]
fn every_recording_says_what_it_says() {
    let root = std::env::var_os("FIXTURES_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")), PathBuf::from);
    let Ok(index) = fs::read(root.join("index.json")) else {
        eprintln!("SKIPPED: there is no recorded traffic at {}; set FIXTURES_DIR", root.display());
        return;
    };
    let index: Vec<Value> = serde_json::from_slice(&index).unwrap();
    let mut recordings = 0;
    for entry in index.iter().filter(|entry| entry["provider"] == "cohere" && entry["api"] == "chat") {
        recordings += 1;
        let file = fs::read(root.join(entry["file"].as_str().unwrap())).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        let Some(name) = file["response"]["body_file"].as_str() else {
            let body = &file["response"]["body"];
            let events = whole(body).unwrap();
            let told = body["message"]["tool_calls"].as_array().unwrap().iter().map(|call| {
                let arguments = call["function"]["arguments"].as_str().unwrap();
                let arguments = if arguments == "null" { "{}" } else { arguments };
                (call["function"]["name"].as_str().unwrap().to_owned(), arguments.to_owned())
            });
            assert_eq!(calls(&events), told.collect::<Vec<_>>());
            assert_eq!(reasoning(&events), body["message"]["tool_plan"].as_str().unwrap());
            assert_eq!(finish(&events), Some(FinishReason::ToolCalls));
            let billed = &body["usage"]["billed_units"];
            assert_eq!(usage(&events).unwrap().input_total(), billed["input_tokens"].as_u64().unwrap());
            assert_eq!(usage(&events).unwrap().output, billed["output_tokens"].as_u64().unwrap());
            continue;
        };
        let bytes = fs::read(root.join(name)).unwrap();
        let events = decoded(&[&bytes]).unwrap();
        let lines = std::str::from_utf8(&bytes).unwrap().lines().filter_map(|line| line.strip_prefix("data:"));
        let told: String = lines
            .filter_map(|line| {
                let event: Value = serde_json::from_str(line).unwrap();
                event["delta"]["message"]["content"]["text"].as_str().map(str::to_owned)
            })
            .collect();
        assert_eq!(text(&events), told);
        assert_eq!(finish(&events), Some(FinishReason::Stop));
        assert_eq!(usage(&events).unwrap().output, 7);
        for at in 0..bytes.len() {
            assert_eq!(decoded(&[&bytes[..at], &bytes[at..]]).unwrap(), events, "cut at {at}");
            // What breaks off is no success, but for the line ends behind the last event.
            let is_whole = bytes[at..].iter().all(|byte| *byte == b'\n');
            assert_eq!(decoded(&[&bytes[..at]]).is_ok(), is_whole, "ends at {at}");
        }
    }
    assert_eq!(recordings, 4);
}

fn call_start(index: u64, id: &str, name: &str) -> Value {
    let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": ""}});
    json!({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": call}}})
}

fn call_delta(index: u64, arguments: &str) -> Value {
    let call = json!({"function": {"arguments": arguments}});
    json!({"type": "tool-call-delta", "index": index, "delta": {"message": {"tool_calls": call}}})
}

fn end(reason: &str) -> Value {
    let usage = json!({"billed_units": {"input_tokens": 3, "output_tokens": 4}});
    json!({"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}})
}

#[test]
fn thoughts_plans_calls_and_citations_are_told_apart() {
    let content = |index: u64, kind: &str, text: &str| {
        let delta = json!({"message": {"content": {kind: text}}});
        json!({"type": "content-delta", "index": index, "delta": delta})
    };
    let citation = json!({"start": 0, "end": 2, "text": "It", "sources": [
        {"type": "document", "id": "d:0", "document": {"title": "T", "url": "https://a.example", "snippet": "s"}},
        {"type": "tool", "id": "t:0", "tool_output": {"x": 1}}]});
    let events = decoded(&[&stream(&[
        json!({"type": "message-start", "id": "i", "delta": {"message": {"role": "assistant"}}}),
        content(0, "thinking", "Hm."),
        content(1, "text", "It is"),
        json!({"type": "citation-start", "index": 0, "delta": {"message": {"citations": citation}}}),
        json!({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": " I look."}}}),
        call_start(0, "a", "f"),
        call_delta(0, "nu"),
        call_delta(0, "ll"),
        json!({"type": "tool-call-end", "index": 0}),
        call_start(1, "b", "g"),
        call_delta(1, "{\"x\""),
        call_delta(1, ":1}"),
        json!({"type": "tool-call-end", "index": 1}),
        json!({"type": "something-new"}),
        end("TOOL_CALL"),
        end("TOOL_CALL"),
    ])])
    .unwrap();
    assert_eq!(events[0], ChatEvent::Start { id: "i".into(), model: String::new(), created: None });
    assert_eq!((reasoning(&events).as_str(), text(&events).as_str()), ("Hm. I look.", "It is"));
    let expected = [("f", "{}"), ("g", "{\"x\":1}")].map(|(name, arguments)| (name.to_owned(), arguments.to_owned()));
    assert_eq!(calls(&events), expected);
    assert_eq!(finish(&events), Some(FinishReason::ToolCalls));
    let cited: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            ChatEvent::Citation { citation, .. } => Some((citation.title.clone(), citation.url.clone(), citation.end)),
            _ => None,
        })
        .collect();
    let url = Some("https://a.example".to_owned());
    assert_eq!(cited, [(Some("T".to_owned()), url, Some(2)), (Some("t:0".to_owned()), None, Some(2))]);
}

#[test]
fn the_same_whole_and_streamed() {
    let body = json!({
        "id": "i", "finish_reason": "COMPLETE",
        "message": {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes"}],
        },
        "logprobs": [{"text": "Yes", "token_ids": [1, 2], "logprobs": [-0.5, -0.25]}],
        "usage": {"billed_units": {"input_tokens": 3, "output_tokens": 4}},
    });
    let events = whole(&body).unwrap();
    assert_eq!((reasoning(&events).as_str(), text(&events).as_str()), ("Hm.", "Yes"));
    assert_eq!((finish(&events), usage(&events).unwrap().output), (Some(FinishReason::Stop), 4));
    let logprobs = events.iter().find_map(|event| match event {
        ChatEvent::Text { logprobs: Some(logprobs), .. } => Some(logprobs.clone()),
        _ => None,
    });
    assert_eq!(logprobs.unwrap()["content"][0]["logprob"], -0.75);
    let silent = whole(&json!({"message": {"role": "assistant"}, "finish_reason": "MAX_TOKENS"})).unwrap();
    assert_eq!((text(&silent).as_str(), finish(&silent)), ("", Some(FinishReason::Length)));
}

#[test]
fn failures_are_no_success() {
    let reported = |result: Result<Vec<ChatEvent>, ReplyFault>| match result {
        Err(ReplyFault::Reported { code, message }) => (code.unwrap_or_default(), message),
        other => panic!("{other:?}"),
    };
    for (word, code) in [("ERROR", "error"), ("ERROR_TOXIC", "content_filter"), ("TIMEOUT", "timeout_error")] {
        assert_eq!(reported(decoded(&[&stream(&[end(word)])])).0, code);
        assert_eq!(reported(whole(&json!({"message": {}, "finish_reason": word}))).0, code);
    }
    let mut told = end("ERROR");
    told["delta"]["error"] = "broke".into();
    assert!(reported(decoded(&[&stream(&[told])])).1.contains("broke"));
    assert_eq!(reported(decoded(&[br#"{"message": "no", "id": "x"}"#])).1, "no");
    assert_eq!(reported(whole(&json!({"message": "no"}))).1, "no");
    assert_eq!(whole(&json!({"message": {"role": "assistant"}})), Err(ReplyFault::Truncated));
    assert!(matches!(whole(&json!({})), Err(ReplyFault::Malformed(_))));
    assert_eq!(decoded(&[&stream(&[call_start(0, "a", "f")])]), Err(ReplyFault::Truncated));
    assert_eq!(decoded(&[]), Err(ReplyFault::Truncated));
    let done = [stream(&[end("COMPLETE")]), b"data: [DONE]\n\n".to_vec()].concat();
    assert!(decoded(&[&done]).is_ok());
}
