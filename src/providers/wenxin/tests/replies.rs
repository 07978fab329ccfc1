//! Replies, documented ones among them: they are read from where they lie (`FIXTURES_DIR`, or `../shared/fixtures`).

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::gateway::fault::fault_problem;
use crate::protocol::chat::FinishReason;
use crate::providers::usage_of;

fn text(events: &[ChatEvent]) -> String {
    let text = |event: &ChatEvent| match event {
        ChatEvent::Text { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

fn finish(events: &[ChatEvent]) -> FinishReason {
    match events.last() {
        Some(ChatEvent::Finish { reason, .. }) => reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_documented_is_read() {
    let root = std::env::var_os("FIXTURES_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")), PathBuf::from);
    let Ok(index) = fs::read(root.join("index.json")) else {
        eprintln!("SKIPPED: there is no recorded traffic at {}; set FIXTURES_DIR", root.display());
        return;
    };
    let index: Vec<Value> = serde_json::from_slice(&index).unwrap();
    let mut recordings = 0;
    for entry in index.iter().filter(|entry| entry["provider"] == "baidu-v1") {
        recordings += 1;
        let file = fs::read(root.join(entry["file"].as_str().unwrap())).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        let body = &file["response"]["body"];
        if let Some(name) = file["response"]["body_file"].as_str() {
            let bytes = fs::read(root.join(name)).unwrap();
            let events = decoded(&[&bytes]).unwrap();
            let lines = std::str::from_utf8(&bytes).unwrap().lines().filter_map(|line| line.strip_prefix("data:"));
            let chunks: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
            let told: String = chunks.iter().map(|chunk| chunk["result"].as_str().unwrap()).collect();
            assert_eq!((text(&events), finish(&events)), (told, FinishReason::Stop));
            let used = usage_of(&events).unwrap().usage;
            assert_eq!(used.output, chunks.last().unwrap()["usage"]["completion_tokens"].as_u64().unwrap());
            for at in 0..bytes.len() {
                assert_eq!(decoded(&[&bytes[..at], &bytes[at..]]).unwrap(), events, "cut at {at}");
                let is_whole = bytes[at..].iter().all(|byte| *byte == b'\n');
                assert_eq!(decoded(&[&bytes[..at]]).is_ok(), is_whole, "ends at {at}");
            }
        } else if body["error_code"].is_null() {
            let events = whole(body).unwrap();
            assert_eq!(
                (text(&events).as_str(), finish(&events)),
                (body["result"].as_str().unwrap(), FinishReason::Stop)
            );
            assert_eq!(usage_of(&events).unwrap().usage.input_total(), 7);
        } else {
            let fault = whole(body).unwrap_err();
            assert_eq!((fault_problem(&fault).status, fault.code()), (400, "invalid_request_error"));
            assert!(fault.to_string().starts_with(body["error_msg"].as_str().unwrap()));
            assert_eq!(decoded(&[body.to_string().as_bytes()]), Err(fault));
        }
    }
    assert_eq!(recordings, 3);
}

#[test]
fn errors_with_status_200_have_the_class_of_their_number() {
    for (number, status) in
        [(336_003, 400), (110, 502), (17, 502), (3, 404), (18, 429), (336_103, 400), (1, 502), (2, 503)]
    {
        let fault = whole(&json!({"error_code": number, "error_msg": "no"})).unwrap_err();
        assert_eq!(fault_problem(&fault).status, status, "{number}");
    }
    let late = b"data: {\"result\": \"a\", \"is_end\": false}\n\ndata: {\"error_code\": 18, \"error_msg\": \"no\"}\n\n";
    assert_eq!(decoded(&[late]).unwrap_err().code(), "rate_limit_exceeded");
}

#[test]
fn a_call_has_an_id_and_arguments() {
    let reply = |arguments: &str| {
        json!({"id": "as-1", "result": "", "finish_reason": "function_call",
            "function_call": {"name": "f", "arguments": arguments, "thoughts": "Hm."}})
    };
    let events = whole(&reply("{\"x\":1}")).unwrap();
    let id = "call_as-1".to_owned();
    let started = ChatEvent::CallStart { choice: 0, index: 0, id, name: "f".into(), custom: false };
    assert!(events.contains(&started));
    assert!(events.contains(&ChatEvent::Reasoning { choice: 0, text: "Hm.".into() }));
    let arguments = |text: &str| ChatEvent::CallArguments { choice: 0, index: 0, fragment: text.into() };
    assert!(events.contains(&arguments("{\"x\":1}")));
    assert_eq!(finish(&events), FinishReason::ToolCalls);
    assert!(whole(&reply("")).unwrap().contains(&arguments("{}")));
}

#[test]
fn ends_are_told_apart_and_a_reply_without_one_is_none() {
    let reply = |members: Value| {
        let mut body = json!({"id": "as-1", "result": "a", "finish_reason": "normal"});
        for (name, value) in members.as_object().unwrap() {
            body[name] = value.clone();
        }
        whole(&body)
    };
    assert_eq!(finish(&reply(json!({})).unwrap()), FinishReason::Stop);
    assert_eq!(finish(&reply(json!({"is_truncated": true})).unwrap()), FinishReason::Length);
    assert_eq!(finish(&reply(json!({"finish_reason": "content_filter"})).unwrap()), FinishReason::FILTERED);
    assert_eq!(finish(&reply(json!({"need_clear_history": true})).unwrap()), FinishReason::FILTERED);
    assert!(matches!(reply(json!({"finish_reason": "error"})), Err(ReplyFault::Reported { .. })));
    assert!(matches!(whole(&json!({"id": "x"})), Err(ReplyFault::Malformed(_))));
    assert_eq!(decoded(&[b"data: {\"result\": \"a\", \"is_end\": false}\n\n"]), Err(ReplyFault::Truncated));
    assert_eq!(decoded(&[]), Err(ReplyFault::Truncated));
    let source = json!({"search_info": {"search_results": [{"index": 1, "url": "https://a.example", "title": "T"}]}});
    let cited = reply(source).unwrap().iter().any(|event| matches!(event, ChatEvent::Citation { .. }));
    assert!(cited);
}

#[test]
fn a_token_that_is_refused_is_told_from_other_errors() {
    for (number, refused) in [(110, true), (111, true), (336_003, false), (18, false)] {
        let fault = whole(&json!({"error_code": number, "error_msg": "no"})).unwrap_err();
        let ReplyFault::Reported { code, .. } = fault else { panic!("{fault:?}") };
        assert_eq!(Wenxinworkshop.refuses_token(200, code.as_deref()), refused, "{number}");
    }
}
