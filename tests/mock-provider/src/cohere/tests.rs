use super::*;
use crate::recorded::taken;

fn chat_with(name: &str, value: Value) -> Value {
    let mut body = json!({"model": "command-a", "messages": [{"role": "user", "content": "Hi"}]});
    put(&mut body, name, value);
    body
}

fn refusal(body: &Value) -> ApiError {
    check(body).err().unwrap_or_else(|| panic!("{body} passes"))
}

#[test]
fn recorded_requests_pass() {
    for request in taken(&["chat", "embeddings"]).iter().filter(|request| request.provider == "cohere") {
        match request.body.get("messages") {
            Some(_) => assert!(check(&request.body).is_ok(), "{}: {:?}", request.id, check(&request.body).err()),
            None => assert!(check_embed(&request.body).is_ok(), "{}", request.id),
        }
    }
}

#[test]
fn unknown_members_are_refused_wherever_they_stand() {
    let function = json!({"name": "f", "strict": true});
    let call = json!({"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    for body in [
        chat_with("top_p", json!(0.5)),
        chat_with("max_completion_tokens", json!(5)),
        chat_with("messages", json!([{"role": "user", "content": "Hi", "name": "Ada"}])),
        chat_with("messages", json!([{"role": "assistant", "tool_calls": [call]}])),
        chat_with("tools", json!([{"type": "function", "function": function}])),
    ] {
        let error = refusal(&body);
        assert_eq!(error.status, 422, "{body}");
        assert!(error.message.starts_with("unknown field: parameter '"), "{}", error.message);
    }
    assert_eq!(check_embed(&json!({"input": "a"})).unwrap_err().status, 422);
    assert_eq!(check_rerank(&json!({"input": "a"})).unwrap_err().status, 422);
}

#[test]
fn values_have_the_bounds_of_the_api() {
    for (name, value) in [
        ("p", json!(1)),
        ("p", json!(0)),
        ("k", json!(501)),
        ("frequency_penalty", json!(-0.5)),
        ("presence_penalty", json!(1.5)),
        ("temperature", json!(-1)),
        ("max_tokens", json!(0)),
        ("stop_sequences", json!(["a", "b", "c", "d", "e", "f"])),
        ("stop_sequences", json!("a")),
        ("stream", json!("yes")),
        ("thinking", json!({"type": "adaptive"})),
        ("tool_choice", json!("required")),
        ("tool_choice", json!("REQUIRED")),
        ("response_format", json!({"type": "json_schema"})),
        ("model", Value::Null),
        ("messages", json!([])),
    ] {
        assert_eq!(refusal(&chat_with(name, value.clone())).status, 400, "{name}: {value}");
    }
}

#[test]
fn messages_say_something_and_results_have_calls() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let result = json!({"role": "tool", "tool_call_id": "a", "content": "1"});
    for messages in [
        json!([{"role": "assistant", "content": ""}]),
        json!([{"role": "assistant"}]),
        json!([{"role": "developer", "content": "x"}]),
        json!([{"role": "user", "content": [{"type": "file"}]}]),
        json!([result]),
        json!([{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "1"}]),
    ] {
        assert_eq!(refusal(&chat_with("messages", messages.clone())).status, 400, "{messages}");
    }
    let good = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}, result]);
    assert!(check(&chat_with("messages", good)).is_ok());
}

#[test]
fn json_and_tools_exclude_each_other() {
    let mut body = chat_with("response_format", json!({"type": "json_object"}));
    assert!(check(&body).is_ok());
    put(&mut body, "tools", json!([{"type": "function", "function": {"name": "f"}}]));
    assert!(refusal(&body).message.contains("cannot be used with tools"));
}

#[test]
fn embeddings_have_a_purpose() {
    let body = |name: &str, value: Value| {
        let mut body = json!({"model": "embed-v4.0", "texts": ["a"], "input_type": "search_query"});
        put(&mut body, name, value);
        body
    };
    for (name, value) in [
        ("input_type", Value::Null),
        ("input_type", json!("query")),
        ("texts", json!([])),
        ("texts", json!(vec!["a"; 97])),
        ("inputs", json!([{"content": []}])),
        ("embedding_types", json!(["double"])),
        ("output_dimension", json!(300)),
        ("truncate", json!("MIDDLE")),
    ] {
        assert!(check_embed(&body(name, value)).is_err(), "{name}");
    }
    assert_eq!(check_embed(&body("output_dimension", json!(256))).unwrap().2, 256);
}

#[test]
fn ids_are_uuids() {
    let id = id(42);
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
}
