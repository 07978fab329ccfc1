//! Embeddings, moderations, rerank, pictures and sound, and forms that are read as they arrive.
use std::io::Write as _;

use crate::support::{Reply, Server};
use serde_json::{Value, json};

fn form(fields: &[(&str, &str)], file: Option<(&str, &str, &[u8])>) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some((name, filename, content)) = file {
        let head = format!("--b0\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    for (name, value) in fields {
        let part = format!("--b0\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(b"--b0--\r\n");
    body
}

fn head(path: &str, framing: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\ncontent-type: multipart/form-data; boundary=b0\r\n\
         {framing}\r\n\r\n"
    )
}

fn send(server: &Server, path: &str, body: &[u8]) -> Reply {
    let mut stream = server.connect();
    stream.write_all(head(path, &format!("content-length: {}", body.len())).as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    Reply::read(stream)
}

#[test]
fn embeddings_are_the_same_in_both_forms() {
    let server = Server::start(&[]);
    let mut body = json!({"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 4});
    let plain = server.post("/v1/embeddings", "", &body).json();
    assert_eq!((plain["data"].as_array().unwrap().len(), plain["data"][1]["index"].as_u64()), (2, Some(1)));
    assert_eq!(plain["data"][0]["embedding"].as_array().unwrap().len(), 4);
    body["encoding_format"] = json!("base64");
    let packed = server.post("/v1/embeddings", "", &body).json();
    assert_eq!(packed["data"][0]["embedding"].as_str().unwrap().len(), 24);
    assert_eq!(packed["usage"], plain["usage"]);
    let refused = server.post("/v1/embeddings", "", &json!({"model": "m", "input": []}));
    assert_eq!((refused.status, refused.json()["error"]["type"].clone()), (400, json!("invalid_request_error")));
    let limited = json!({"model": "m", "input": "Hi [[mock status=429 header.retry-after=3]]"});
    assert!(server.post("/v1/embeddings", "", &limited).head.contains("retry-after: 3"));
}

#[test]
fn moderation_and_rerank_answer_in_their_shapes() {
    let server = Server::start(&[]);
    let flagged = server.post("/v1/moderations", "", &json!({"input": ["a", "b [[mock block=1]]"]})).json();
    assert_eq!(
        (&flagged["model"], &flagged["results"][1]["flagged"]),
        (&json!("omni-moderation-latest"), &json!(true))
    );
    assert_eq!(flagged["results"][1]["categories"]["violence"], true);
    let body = json!({"model": "m", "query": "two", "documents": ["one", "two"], "top_n": 1});
    let ranked = server.post("/v1/rerank", "", &body).json();
    assert_eq!((&ranked["results"][0]["index"], ranked["results"].as_array().unwrap().len()), (&json!(1), 1));
    assert!(ranked["usage"]["total_tokens"].as_u64().unwrap() > 0);
}

#[test]
fn pictures_come_whole_and_bit_by_bit() {
    let server = Server::start(&[]);
    let mut body = json!({"model": "gpt-image-1", "prompt": "A hill", "n": 2});
    let whole = server.post("/v1/images/generations", "", &body).json();
    assert_eq!((whole["data"].as_array().unwrap().len(), &whole["usage"]["output_tokens"]), (2, &json!(2112)));
    assert!(whole["data"][0]["b64_json"].as_str().unwrap().starts_with("iVBORw0KGgo"));
    body["stream"] = json!(true);
    body["partial_images"] = json!(2);
    let events = server.post("/v1/images/generations", "", &body).events();
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let partial = "image_generation.partial_image";
    assert_eq!(types, [partial, partial, "image_generation.completed"]);
    body["prompt"] = json!("A hill [[mock truncate_at=1]]");
    assert_eq!(server.post("/v1/images/generations", "", &body).events().len(), 1);
    let old = json!({"model": "dall-e-3", "prompt": "A hill"});
    let old = server.post("/v1/images/generations", "", &old).json();
    assert!(old["data"][0]["url"].is_string() && old.get("usage").is_none());
    let fields = [("prompt", "A hill [[mock tag=edit]]"), ("model", "gpt-image-1"), ("n", "1")];
    let edited = send(&server, "/v1/images/edits", &form(&fields, Some(("image[]", "a.png", b"\x89PNG"))));
    assert_eq!(edited.json()["usage"]["input_tokens_details"]["image_tokens"], 323);
    let entry = server.entry("edit", |entry| entry["outcome"] == "completed");
    assert_eq!(
        (&entry["upload"]["parts"][0]["bytes"], &entry["upload"]["parts"][1]["name"]),
        (&json!(4), &json!("prompt"))
    );
    assert_eq!(send(&server, "/v1/images/edits", &form(&fields, None)).json()["error"]["param"], "image");
}

#[test]
fn speech_is_no_text_and_comes_in_pieces() {
    let server = Server::start(&[]);
    let mut body =
        json!({"model": "gpt-4o-mini-tts", "input": "Hello [[mock chunks=4 chunk_bytes=10]]", "voice": "alloy"});
    let sound = server.post("/v1/audio/speech", "", &body);
    assert!(sound.head.contains("content-type: audio/mpeg"));
    assert_eq!((sound.body.len(), sound.chunks.len()), (40, 4));
    assert!(std::str::from_utf8(&sound.body).is_err());
    body["stream_format"] = json!("sse");
    let events = server.post("/v1/audio/speech", "", &body).events();
    assert_eq!((&events[0]["type"], events.len()), (&json!("speech.audio.delta"), 5));
    assert_eq!(events[4]["usage"]["output_tokens"], 4);
    body["stream_format"] = Value::Null;
    body["input"] = json!("Hello [[mock chunks=4 chunk_bytes=10 close_at=2]]");
    let broken = server.post("/v1/audio/speech", "", &body);
    assert_eq!((broken.body.len(), broken.complete), (20, false));
}

#[test]
fn speech_is_written_down() {
    let server = Server::start(&[]);
    let ask = |fields: &[(&str, &str)]| {
        send(&server, "/v1/audio/transcriptions", &form(fields, Some(("file", "a.wav", b"RIFF"))))
    };
    let whisper = ask(&[("model", "whisper-1"), ("prompt", "[[mock text=spoken]]")]).json();
    assert_eq!(whisper, json!({"text": "spoken", "usage": {"type": "duration", "seconds": 1}}));
    let plain = ask(&[("model", "whisper-1"), ("prompt", "[[mock text=spoken]]"), ("response_format", "text")]);
    assert_eq!((plain.text().as_str(), plain.head.contains("text/plain")), ("spoken\n", true));
    let model = ("model", "gpt-4o-transcribe");
    let tokens = ask(&[model]).json();
    assert_eq!(
        (&tokens["usage"]["type"], &tokens["usage"]["input_token_details"]["audio_tokens"]),
        (&json!("tokens"), &json!(10))
    );
    let events = ask(&[model, ("stream", "true"), ("prompt", "[[mock text=spoken%20words]]")]).events();
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["transcript.text.delta", "transcript.text.delta", "transcript.text.done"]);
    assert_eq!(events[2]["text"], "spoken words");
    assert_eq!(ask(&[]).json()["error"]["param"], "model");
    let json_sent =
        server.post("/v1/audio/transcriptions", "content-type: application/json\r\n", &json!({"model": "m"}));
    assert!(json_sent.text().contains("expected multipart/form-data"));
    let cut = send(&server, "/v1/audio/transcriptions", b"--b0\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nx");
    assert_eq!((cut.status, cut.text().contains("ends before its last boundary")), (400, true));
    let translated =
        send(&server, "/v1/audio/translations", &form(&[("model", "whisper-1")], Some(("file", "a.mp3", b"x"))));
    assert!(translated.json().get("usage").is_none());
}

#[test]
fn a_form_is_seen_while_it_arrives() {
    let server = Server::start(&[]);
    let content = vec![7_u8; 300_000];
    let body = form(&[("model", "other"), ("prompt", "[[mock tag=late]]")], Some(("file", "a.wav", &content)));
    let (first, rest) = body.split_at(200_000);
    let mut stream = server.connect();
    stream.write_all(head("/v1/audio/transcriptions", "transfer-encoding: chunked").as_bytes()).unwrap();
    // One chunk that is not over yet.
    stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).unwrap();
    stream.write_all(first).unwrap();
    let start = std::time::Instant::now();
    loop {
        let entries = server.get("/_mock/journal").json();
        let upload = &entries[0]["upload"];
        if upload["bytes"] == 200_000 {
            assert_eq!((&upload["parts"], &entries[0]["outcome"]), (&Value::Null, &json!("open")));
            break;
        }
        assert!(start.elapsed() < crate::support::PATIENCE, "{entries}");
    }
    stream.write_all(rest).unwrap();
    stream.write_all(b"\r\n0\r\n\r\n").unwrap();
    assert_eq!(Reply::read(stream).status, 200);
    let entry = server.entry("late", |entry| entry["outcome"] == "completed");
    let file = &entry["upload"]["parts"][0];
    assert_eq!((&file["bytes"], &file["filename"], &file["value"]), (&json!(300_000), &json!("a.wav"), &Value::Null));
    assert_eq!(file["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(entry["upload"]["bytes"], body.len());
}

#[test]
fn a_form_that_breaks_off_is_a_lost_client() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.write_all(head("/v1/audio/transcriptions", "content-length: 1000").as_bytes()).unwrap();
    stream.write_all(b"--b0\r\n").unwrap();
    drop(stream);
    let start = std::time::Instant::now();
    while server.get("/_mock/journal").json()[0]["outcome"] != "client_disconnected" {
        assert!(start.elapsed() < crate::support::PATIENCE);
    }
}
