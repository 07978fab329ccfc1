//! What each directive does on the wire.
use std::io::Read as _;
use std::time::{Duration, Instant};

use crate::support::{ANTHROPIC, End, Reply, Server, chat, message};
use serde_json::{Value, json};

/// Content deltas of a chat stream.
fn deltas(reply: &Reply) -> usize {
    let said = |event: &Value| event.pointer("/choices/0/delta/content").is_some_and(|text| text != "");
    reply
        .text()
        .split("\n\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .filter(said)
        .count()
}

#[test]
fn streams_break_off_as_told() {
    let server = Server::start(&[]);
    let stream = |fault: &str| server.chat_stream(&format!("Hi [[mock chunks=5 tag=t {fault}]]"));

    let reply = stream("reset_at=2");
    assert_eq!((reply.end, reply.complete, deltas(&reply)), (End::Reset, false, 2));
    let reply = stream("close_at=2");
    assert_eq!((reply.end, reply.complete, deltas(&reply)), (End::Closed, false, 2));
    let reply = stream("truncate_at=2");
    assert_eq!((reply.end, reply.complete, deltas(&reply)), (End::Closed, true, 2));
    assert!(!reply.text().contains("[DONE]") && !reply.text().contains("\"stop\""));
    let reply = stream("cut_event_at=2");
    assert_eq!((reply.complete, deltas(&reply)), (true, 2));
    assert!(reply.text().ends_with(|last: char| last != '\n'));
    let reply = stream("error_at=2");
    assert_eq!((reply.complete, deltas(&reply)), (true, 2));
    assert_eq!(reply.events().last().unwrap()["error"]["type"], "server_error");
    let reply = stream("no_done=1");
    assert!(reply.text().contains("\"usage\":{") && !reply.text().contains("[DONE]"));
    server.entry("t", |entry| entry["outcome"] == "fault");
}

#[test]
fn the_other_dialects_break_off_too() {
    let server = Server::start(&[]);
    let anthropic = |fault: &str| server.messages(&message(&format!("Hi [[mock chunks=5 {fault}]]"), true));
    let reply = anthropic("error_at=1 error_message=busy");
    let last = reply.events().last().unwrap().clone();
    assert_eq!(last["error"], json!({"type": "overloaded_error", "message": "busy"}));
    assert!(reply.text().contains("event: error\n"));
    assert_eq!(anthropic("reset_at=1").end, End::Reset);
    assert!(!anthropic("no_done=1").text().contains("message_stop"));
    assert_eq!(anthropic("double_finish=1").text().matches("event: message_delta").count(), 2);
    assert!(!anthropic("no_usage=1").text().contains("usage"));

    let body = json!({"engine": "e", "live": true, "prompt": "Hi [[mock chunks=5 error_at=1 error_code=4711]]"});
    let text = server.post("/generate", "", &body).text();
    assert!(text.lines().last().unwrap().contains("\"number\":4711"), "{text}");
}

#[test]
fn a_reply_can_fail_before_its_first_byte() {
    let server = Server::start(&[]);
    let reply = server.chat("Hi [[mock reset_at=head]]");
    assert_eq!((reply.status, reply.end), (0, End::Reset));
    let reply = server.chat_stream("Hi [[mock close_at=head]]");
    assert_eq!((reply.status, reply.end), (0, End::Closed));
    let reply = server.chat_stream("Hi [[mock close_at=start]]");
    assert_eq!((reply.status, reply.body.len()), (200, 0));
}

#[test]
fn usage_can_be_missing_inline_or_made_up() {
    let server = Server::start(&[]);
    assert!(!server.chat_stream("Hi [[mock no_usage=1]]").text().contains("usage"));
    let events = server.chat_stream("Hi [[mock usage_inline=1 chunks=2 usage_in=7]]").events();
    let [.., finish, done] = events.as_slice() else { panic!() };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!(finish["usage"]["prompt_tokens"], 7);
    assert_eq!(done, "[DONE]");
    let usage =
        server.chat("Hi [[mock usage_in=9 usage_out=8 cached=4 reasoning=3 cache_write=2]]").json()["usage"].clone();
    assert_eq!(usage["total_tokens"], 17);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!(usage["prompt_tokens_details"]["cache_write_tokens"], 2);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 3);
    let body = message("Hi [[mock usage_in=9 usage_out=8 cached=4 cache_write=2 cache_write_1h=1]]", false);
    let usage = server.messages(&body).json()["usage"].clone();
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(9), &json!(8)));
    assert_eq!((&usage["cache_read_input_tokens"], &usage["cache_creation_input_tokens"]), (&json!(4), &json!(3)));
    let events = server.chat_stream("Hi [[mock double_finish=1 finish=content_filter]]").text();
    assert_eq!(events.matches("\"finish_reason\":\"content_filter\"").count(), 2);
}

#[test]
fn errors_come_in_the_shape_of_the_dialect() {
    let server = Server::start(&[]);
    let reply =
        server.chat("Hi [[mock status=429 header.retry-after=7 error_message=slow%20down header.x-request-id=mine]]");
    assert_eq!(reply.status, 429);
    assert!(reply.head.contains("retry-after: 7"));
    assert_eq!(reply.head.matches("x-request-id").count(), 1);
    let error = reply.json()["error"].clone();
    assert_eq!(
        error,
        json!({"message": "slow down", "type": "requests", "param": null, "code": "rate_limit_exceeded"})
    );
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ] {
        // A stream that fails at once is a plain error, too.
        let reply = server.messages(&message(&format!("Hi [[mock status={status}]]"), true));
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (status, &json!(kind)));
    }
    let body = json!({"engine": "e", "prompt": "[[mock status=503]]"});
    assert_eq!(server.post("/generate", "", &body).json()["fault"]["number"], 5030);
    assert_eq!(server.chat("[[mock status=201]]").status, 201);
    let reply = server.chat("[[mock statsu=429]]");
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("mock_directive")));
}

#[test]
fn a_tag_fails_so_many_times() {
    let server = Server::start(&[]);
    let ask = |tag: &str| server.chat(&format!("Hi [[mock status=500 fail_times=2 tag={tag}]]")).status;
    assert_eq!([ask("a"), ask("b"), ask("a"), ask("a"), ask("b"), ask("b")], [500, 500, 500, 200, 500, 200]);
    let stream = || server.chat_stream("Hi [[mock close_at=1 fail_times=1 tag=c]]").complete;
    assert_eq!([stream(), stream()], [false, true]);
}

#[test]
fn bodies_that_are_not_the_answer() {
    let server = Server::start(&[]);
    let reply = server.chat("[[mock html=1]]");
    assert_eq!(reply.status, 502);
    assert!(reply.head.contains("content-type: text/html") && reply.text().starts_with("<!DOCTYPE html>"));
    assert_eq!(server.chat("[[mock html=200]]").status, 200);
    assert_eq!(server.chat("[[mock html=1 status=503]]").status, 503);
    let reply = server.chat("[[mock empty=1]]");
    assert_eq!((reply.status, reply.body.len(), reply.complete), (200, 0, true));
    let reply = server.chat_stream("Hi [[mock badjson=1]]");
    assert_eq!((reply.status, reply.complete), (200, true));
    assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
    assert!(server.chat("[[mock contenttype=text/plain]]").head.contains("content-type: text/plain\r\n"));
    let reply = server.chat("Hi [[mock body_reset=1]]");
    assert_eq!((reply.status, reply.end, reply.complete), (200, End::Reset, false));
    assert!(!reply.body.is_empty());
    let reply = server.chat("Hi [[mock nolength=1]]");
    assert!(reply.head.contains("transfer-encoding: chunked") && reply.json()["id"].is_string());
    let reply = server.chat("Hi [[mock big_reply=3000000]]");
    assert_eq!(reply.json()["choices"][0]["message"]["content"].as_str().unwrap().len(), 3_000_000);
}

#[test]
fn pieces_of_the_stream_cut_through_letters_and_lines() {
    let server = Server::start(&[]);
    let whole = server.chat("Hi [[mock unicode=1]]").json();
    let reply = server.chat_stream("Hi [[mock unicode=1 split=1]]");
    assert!(reply.chunks.iter().all(|size| *size == 1));
    assert_eq!(reply.said(), whole["choices"][0]["message"]["content"].as_str().unwrap());
    let reply = server.chat_stream("Hi [[mock unicode=1 split=7 gap_ms=1 chunks=3]]");
    assert!(reply.chunks.iter().all(|size| *size <= 7) && reply.complete);
    let reply = server.chat_stream("Hi [[mock whole=1]]");
    assert_eq!(reply.chunks.len(), 1);
    let reply = server.chat_stream("Hi [[mock huge=300000]]");
    assert!(reply.chunks.iter().any(|size| *size > 300_000));
}

#[test]
fn events_can_be_written_in_other_ways() {
    let server = Server::start(&[]);
    let text = |shape: &str| server.chat_stream(&format!("Hi [[mock text=yes {shape}]]")).text();
    assert!(text("crlf=1").ends_with("data: [DONE]\r\n\r\n"));
    assert!(text("cr=1").ends_with("data: [DONE]\r\r"));
    assert!(text("comments=1").starts_with(": keep-alive\n\ndata: {"));
    assert!(text("nospace=1").starts_with("data:{"));
    assert!(text("bom=1").starts_with("\u{feff}data: {"));
    assert!(text("retry_id=1").starts_with("id: 0\nretry: 3000\ndata: {"));
    let multiline = server.chat_stream("Hi [[mock text=yes multiline=1]]");
    assert!(multiline.text().starts_with("data: {\ndata: \"id\":"));
    assert_eq!(multiline.said(), "yes");
    let header = server.post("/v1/chat/completions", "x-mock: text=no way;chunks=1\r\n", &chat("Hi", true));
    assert_eq!(header.said(), "no way");
}

#[test]
fn delays_come_where_they_are_asked_for() {
    let server = Server::start(&[]);
    let first_byte = |directives: &str, stream: bool| {
        let start = Instant::now();
        let body = chat(&format!("Hi [[mock {directives}]]"), stream).to_string();
        let mut stream = server.open("/v1/chat/completions", "", &body);
        stream.read_exact(&mut [0]).unwrap();
        let first = start.elapsed();
        stream.read_to_end(&mut Vec::new()).unwrap();
        (first, start.elapsed())
    };
    let long = Duration::from_millis(150);
    let (first, _) = first_byte("ttfb_ms=150", false);
    assert!(first >= long);
    for (directives, stream) in
        [("first_chunk_ms=150", true), ("slow_body_ms=150", false), ("chunks=3 gap_ms=30", true)]
    {
        let (first, all) = first_byte(directives, stream);
        assert!(first < long && all >= long, "{directives}: {first:?} {all:?}");
    }
}

#[test]
fn a_client_that_leaves_is_noticed_at_once() {
    let server = Server::start(&[]);
    let cases = [
        ("stall", "chunks=5 stall_at=3", 3, true),
        ("gap", "chunks=5 gap_ms=5000", 0, true),
        ("ttfb", "ttfb_ms=30000", 0, false),
        ("first", "first_chunk_ms=30000", 0, true),
        ("slow", "slow_body_ms=30000", 0, false),
        ("head", "stall_at=head", 0, false),
        ("plain", "stall_at=0", 0, false),
    ];
    for (tag, directives, chunks, stream) in cases {
        let body = chat(&format!("Hi [[mock tag={tag} {directives}]]"), stream).to_string();
        let client = server.open("/v1/chat/completions", "", &body);
        // The entry is there while the reply is under way.
        server.entry(tag, |entry| entry["outcome"] == "open" && entry["chunks_sent"] == chunks);
        drop(client);
        let left = Instant::now();
        let entry = server.entry(tag, |entry| entry["outcome"] != "open");
        assert!(left.elapsed() < Duration::from_millis(500), "{tag}");
        assert_eq!(
            (&entry["outcome"], &entry["chunks_sent"]),
            (&json!("client_disconnected"), &json!(chunks)),
            "{tag}"
        );
    }
    let stats = server.get("/_mock/stats").json();
    assert_eq!(stats["open_streams"], 0);
    assert_eq!(stats["paths"]["/v1/chat/completions"]["client_disconnected"], 7);
}

#[test]
fn a_client_that_resets_is_noticed_in_the_middle_of_a_fast_stream() {
    let server = Server::start(&[]);
    let body = message("Hi [[mock tag=fast chunks=1000000]]", true).to_string();
    let mut client = server.open("/v1/messages", ANTHROPIC, &body.replace("4096", "9999999"));
    client.read_exact(&mut [0; 1000]).unwrap();
    // Closing with unread data resets the connection.
    drop(client);
    let entry = server.entry("fast", |entry| entry["outcome"] != "open");
    assert_eq!(entry["outcome"], "client_disconnected");
    assert!(entry["chunks_sent"].as_u64().unwrap() < 1_000_000);
}
