//! The connection itself: HTTP as clients speak it, the journal, and bytes that are no HTTP at all.
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use crate::support::{End, Reply, Server, chat};
use serde_json::json;

/// Sends bytes and reads until the server closes.
fn raw(server: &Server, bytes: &[u8]) -> Reply {
    let mut stream = server.connect();
    let _ = stream.write_all(bytes);
    Reply::read(stream)
}

/// Reads one reply with a content length from a connection that stays open.
fn one(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    loop {
        let reply = Reply::parse(&bytes, End::Closed);
        if reply.complete {
            return reply;
        }
        let mut next = [0];
        stream.read_exact(&mut next).unwrap();
        bytes.push(next[0]);
    }
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    let body = chat("Hi", false).to_string();
    let request = format!("POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(one(&mut stream).status, 200);
    }
    // Two at once are answered in turn.
    stream.write_all(format!("{request}{request}").as_bytes()).unwrap();
    assert_eq!((one(&mut stream).status, one(&mut stream).status), (200, 200));
}

#[test]
fn a_chunked_request_is_read() {
    let server = Server::start(&[]);
    let body = chat("chunked [[mock tag=c]]", false).to_string();
    let mut request =
        "POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for piece in body.as_bytes().chunks(7) {
        request.push_str(&format!("{:X};ext=1\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap()));
    }
    request.push_str("0\r\ntrailer: x\r\n\r\n");
    assert_eq!(raw(&server, request.as_bytes()).status, 200);
    assert_eq!(server.entry("c", |_| true)["body"], body);
    let bad = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(raw(&server, bad.as_bytes()).status, 400);
}

#[test]
fn a_client_may_ask_before_it_sends_its_body() {
    let server = Server::start(&[]);
    let body = chat("Hi", false).to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(Reply::read(stream).status, 200);
}

#[test]
fn what_is_too_large_is_refused() {
    let server = Server::start(&[]);
    let reply = raw(&server, b"POST /generate HTTP/1.1\r\ncontent-length: 67108865\r\n\r\n");
    assert_eq!(reply.status, 413);
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    assert_eq!(raw(&server, head.as_bytes()).status, 431);
    let body = chat(&"long ".repeat(1_000_000), false);
    assert_eq!(server.post("/v1/chat/completions", "", &body).status, 200);
}

#[test]
fn old_clients_get_streams_that_end_with_the_connection() {
    let server = Server::start(&[]);
    let body = chat("Hi", true).to_string();
    let request = format!("POST /v1/chat/completions HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let reply = raw(&server, request.as_bytes());
    assert!(!reply.head.contains("chunked") && reply.text().ends_with("data: [DONE]\n\n"));
}

#[test]
fn no_bytes_bring_the_server_down() {
    let server = Server::start(&[]);
    let mut state = 1_u64;
    for round in 0..200 {
        let mut bytes: Vec<u8> = (0..round * 3)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
            .collect();
        if round % 2 == 0 {
            bytes.splice(
                0..0,
                b"POST /v1/messages HTTP/1.1\r\nx-mock: \xff\r\ncontent-length: 9\r\n\r\n".iter().copied(),
            );
        }
        let mut stream = server.connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    for body in ["", "null", "[]", "3", "\"x\"", "{", "{\"messages\":[null]}", "{\"model\":{},\"messages\":{}}"] {
        for path in ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/generate"] {
            let headers = "x-api-key: k\r\nanthropic-version: 1\r\n";
            assert_eq!(Reply::read(server.open(path, headers, body)).status, 400, "{path} {body}");
        }
    }
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(Reply::read(server.open("/generate", "", &deep)).status, 400);
    assert_eq!(server.chat("Still there?").status, 200);
}

#[test]
fn the_journal_tells_what_arrived() {
    let server = Server::start(&[]);
    let reply = server.post("/v1/chat/completions?a=1", "X-Custom: Yes\r\n", &chat("Hi [[mock tag=j%201]]", false));
    assert_eq!(reply.status, 200);
    let entry = server.entry("j+1", |entry| entry["outcome"] == "completed");
    assert_eq!((&entry["method"], &entry["path"]), (&json!("POST"), &json!("/v1/chat/completions?a=1")));
    assert_eq!((&entry["headers"]["x-custom"], &entry["status"]), (&json!("Yes"), &json!(200)));
    assert!(entry["at_ms"].as_u64().unwrap() > 1_600_000_000_000);
    server.chat("two");
    let seq = entry["seq"].as_u64().unwrap();
    let later = server.get(&format!("/_mock/journal?since={seq}&limit=5")).json();
    assert_eq!(later.as_array().unwrap().len(), 1);
    assert_eq!(server.get("/_mock/journal?since=x").status, 400);
    assert_eq!(server.get("/_mock/nothing").status, 404);
    assert_eq!(server.post("/_mock/reset", "", &json!({})).status, 200);
    assert_eq!(server.get("/_mock/journal").json(), json!([]));
    assert_eq!(server.get("/_mock/health").json(), json!({"status": "ok"}));
}

#[test]
fn the_journal_can_be_off() {
    let server = Server::start(&["--no-journal"]);
    server.chat_stream("Hi");
    assert_eq!(server.get("/_mock/journal").json(), json!([]));
    let stats = server.get("/_mock/stats").json();
    assert_eq!(stats["paths"]["/v1/chat/completions"]["completed"], 1);
}

#[test]
fn defaults_hold_for_every_request() {
    let server = Server::start(&["--defaults", "text=always;chunks=1"]);
    assert_eq!(server.chat_stream("Hi").said(), "always");
    assert_eq!(server.chat_stream("Hi [[mock text=once]]").said(), "once");
}

#[test]
fn a_signal_ends_the_server_cleanly() {
    for name in ["-TERM", "-INT"] {
        let mut server = Server::start(&[]);
        let _stalled = server.open("/v1/chat/completions", "", &chat("[[mock stall_at=0]]", true).to_string());
        let sent = Command::new("kill").args([name, &server.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
}
