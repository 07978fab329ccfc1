//! What the other endpoints answer, and that directives act there as everywhere.
use crate::support::Server;
use serde_json::{Value, json};

/// The data of a stream that some text deltas are in: the deltas at this place, put together.
fn told(events: &[Value], place: &str) -> String {
    events.iter().filter_map(|event| event.pointer(place)?.as_str().map(str::to_owned)).collect()
}

#[test]
fn a_prompt_is_continued_whole_and_streamed() {
    let server = Server::start(&[]);
    let mut body = json!({"model": "mock-small", "prompt": ["One", "Two"], "max_tokens": 5, "echo": true});
    let whole = server.post("/v1/completions", "", &body).json();
    assert_eq!((&whole["object"], whole["choices"][1]["index"].as_u64()), (&json!("text_completion"), Some(1)));
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 10);
    body["prompt"] = json!("One");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let events = server.post("/v1/completions", "", &body).events();
    assert_eq!(told(&events, "/choices/0/text"), whole["choices"][0]["text"].as_str().unwrap());
    let [.., usage, done] = events.as_slice() else { panic!() };
    assert_eq!((&usage["usage"]["completion_tokens"], done), (&json!(5), &json!("[DONE]")));
    body["prompt"] = json!("One [[mock truncate_at=2 tag=cut]]");
    let cut = server.post("/v1/completions", "", &body);
    assert!(cut.complete && !cut.text().contains("[DONE]"));
    assert_eq!(server.entry("cut", |entry| entry["outcome"] == "fault")["chunks_sent"], 2);
}
