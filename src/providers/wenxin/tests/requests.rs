//! Requests.

use proptest::prelude::*;

use super::super::messages::{Said, in_turns};
use super::*;

fn call(id: &str, name: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}})
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[test]
fn the_model_stands_in_the_path() {
    assert_eq!(request::path(MODEL), "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie-4.0-8k-latest");
    assert!(request::path("a/../b?c").ends_with("/chat/a%2F..%2Fb%3Fc"));
}

#[test]
fn conversations_are_brought_into_the_strictest_form() {
    let (body, dropped) = sent(&json!({"messages": [
        {"role": "system", "content": "A"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "One"},
        {"role": "developer", "content": "B"},
        {"role": "user", "content": "Two"},
        {"role": "assistant", "content": "I look.", "tool_calls": [call("a", "f"), call("b", "g")]},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "So"},
    ]}))
    .unwrap();
    let called = |name: &str, words: &str| json!({"role": "assistant", "content": words, "function_call": {"name": name, "arguments": "{}"}});
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": "."},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "One\n\nTwo"},
            called("f", "I look."),
            {"role": "function", "name": "f", "content": "1"},
            called("g", ""),
            {"role": "function", "name": "g", "content": "2"},
            {"role": "assistant", "content": "."},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "So"},
            {"role": "user", "content": "Continue."},
        ])
    );
    assert_eq!((body["system"].as_str(), dropped), (Some("A\n\nB"), vec!["messages[9]".to_owned()]));
    let only_system = sent(&json!({"messages": [{"role": "system", "content": "A"}]})).unwrap().0;
    assert_eq!(only_system["messages"], json!([{"role": "user", "content": "."}]));
    // A call that was never answered, and one that is answered with nothing.
    let (body, _) = sent(&json!({"messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call("a", "f"), call("b", "f")]},
        {"role": "tool", "tool_call_id": "b", "content": ""},
    ]}))
    .unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 5);
}

#[test]
fn what_has_no_place_is_refused_where_it_stands() {
    let image = json!({"type": "image_url", "image_url": {"url": "https://a.example/x.png"}});
    for (members, at) in [
        (json!({"messages": [{"role": "tool", "tool_call_id": "x", "content": "1"}]}), "messages[0]"),
        (json!({"messages": [{"role": "user", "content": [image]}]}), "messages[0].content[0]"),
        (json!({"n": 2}), "n"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tool_choice": "required"}), "tool_choice"),
    ] {
        let problem = sent(&members).unwrap_err();
        assert_eq!((problem.status, problem.param.as_deref()), (400, Some(at)), "{members}");
    }
}

#[test]
fn settings_have_names_and_bounds_of_their_own() {
    let (body, mut dropped) = sent(&json!({
        "temperature": 0, "top_p": 0.5, "max_completion_tokens": 1, "stop": ["x"], "user": "u", "stream": true,
        "repetition_penalty": 3, "frequency_penalty": 1, "seed": 4, "reasoning_effort": "low", "foo": 1,
        "disable_search": true, "metadata": {"a": "b"}, "response_format": {"type": "json_object"},
    }))
    .unwrap();
    assert_eq!(
        body,
        json!({
            "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.01, "top_p": 0.5, "max_output_tokens": 2,
            "stop": ["x"], "user_id": "u", "stream": true, "penalty_score": 2.0, "disable_search": true,
            "response_format": "json_object",
        })
    );
    dropped.sort();
    let expected = [
        "foo",
        "frequency_penalty",
        "metadata",
        "reasoning_effort",
        "repetition_penalty=2",
        "seed",
        "temperature=0.01",
    ];
    assert_eq!(dropped, expected);
}

#[test]
fn one_function_can_be_demanded() {
    let tools = json!([function("a"), function("b")]);
    let with = |choice: Value| sent(&json!({"tools": tools, "tool_choice": choice})).unwrap();
    let (body, dropped) = with(json!({"type": "function", "function": {"name": "b"}}));
    let parameters = json!({"type": "object", "properties": {}});
    assert_eq!(body["functions"], json!([{"name": "b", "description": "b", "parameters": parameters}]));
    assert_eq!(body["tool_choice"], json!({"type": "function", "function": {"name": "b"}}));
    assert_eq!(dropped, Vec::<String>::new());
    let (body, dropped) = with(json!("required"));
    assert_eq!((body["functions"].as_array().unwrap().len(), body.get("tool_choice")), (2, None));
    assert_eq!(dropped, ["tool_choice"]);
    assert_eq!(with(json!("none")).0.get("functions"), None);
}

#[test]
fn an_answer_follows_a_schema_by_a_function_or_else_by_instruction() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let (body, dropped) = sent(&json!({"response_format": format})).unwrap();
    assert_eq!(body["tool_choice"]["function"]["name"], "json_answer");
    assert_eq!(dropped, Vec::<String>::new());
    let (body, dropped) = sent(&json!({"response_format": format, "tools": [function("a")]})).unwrap();
    assert!(body["system"].as_str().unwrap().contains(&schema.to_string()));
    assert_eq!(dropped, ["response_format"]);
}

#[test]
fn errors_are_numbers_whatever_the_status() {
    let read = |number: Value| {
        let body = json!({"error_code": number, "error_msg": "no", "id": "as-1"});
        let error = Wenxinworkshop.read_error(200, &HeaderMap::new(), &body, &provider());
        (error.code.unwrap_or_default(), error.status)
    };
    for (numbers, code, status) in [
        (&[336_003, 336_001, 336_104, 999_999][..], "invalid_request_error", 400),
        (&[110, 111], "unauthenticated", 401),
        (&[6, 14], "invalid_api_key", 401),
        (&[17, 19], "insufficient_quota", 402),
        (&[3], "model_not_found", 404),
        (&[18, 336_501, 336_502], "rate_limit_exceeded", 429),
        (&[336_007, 336_103], "context_length_exceeded", 400),
        (&[1, 336_000], "server_error", 500),
        (&[2, 4, 336_100], "overloaded_error", 503),
    ] {
        for number in numbers {
            assert_eq!(read(json!(number)), (code.to_owned(), Some(status)), "{number}");
            assert_eq!(read(json!(number.to_string())), (code.to_owned(), Some(status)), "{number}");
        }
    }
    for odd in [json!(null), json!(0), json!("x"), json!([])] {
        assert_eq!(read(odd), (String::new(), None));
    }
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![Just(0), Just(1), Just(2), Just(3)].prop_map(|kind| match kind {
        0 => Said::User(String::new()),
        1 => Said::Model(String::new()),
        2 => Said::Call { words: String::new(), name: "f".into(), arguments: "{}".into() },
        _ => Said::Result { name: "f".into(), content: String::new() },
    })
}

proptest! {
    /// Whatever is said by whom: it becomes turns, and nothing is lost or put elsewhere.
    #[test]
    fn any_conversation_becomes_turns(said in proptest::collection::vec(said(), 0..12)) {
        let mut texts = Vec::new();
        let mut numbered: Vec<Said> = Vec::new();
        for (nth, mut one) in said.into_iter().enumerate() {
            let text = format!("<{nth}>");
            match &mut one {
                Said::User(words) | Said::Model(words) => words.clone_from(&text),
                Said::Call { arguments, .. } => arguments.clone_from(&text),
                Said::Result { content, .. } => {
                    // Results come behind their calls only.
                    if !matches!(numbered.last(), Some(Said::Call { .. })) {
                        continue;
                    }
                    content.clone_from(&text);
                }
            }
            texts.push(text);
            numbered.push(one);
        }
        let out = in_turns(numbered);
        let mut all = String::new();
        for (nth, one) in out.iter().enumerate() {
            let is_users = matches!(one, Said::User(_) | Said::Result { .. });
            prop_assert_eq!(is_users, nth % 2 == 0);
            match one {
                Said::User(text) | Said::Model(text) => {
                    prop_assert!(!text.is_empty());
                    all.push_str(text);
                }
                Said::Call { words, arguments, .. } => all.extend([words.as_str(), arguments]),
                Said::Result { content, .. } => {
                    let is_behind_call = matches!(nth.checked_sub(1).map(|before| &out[before]), Some(Said::Call { .. }));
                    prop_assert!(is_behind_call);
                    all.push_str(content);
                }
            }
        }
        prop_assert_eq!(out.len() % 2, 1);
        let mut rest = all.as_str();
        for text in texts {
            let found = rest.split_once(text.as_str());
            prop_assert!(found.is_some(), "{} in {}", text, all);
            rest = found.unwrap().1;
        }
    }

    /// The same of requests, as callers send them.
    #[test]
    fn any_request_is_one_that_is_taken(roles in proptest::collection::vec((0..4_usize, 0..3_usize), 0..10)) {
        let mut messages = vec![json!({"role": "system", "content": "s"})];
        let mut open: Vec<String> = Vec::new();
        for (nth, (role, text)) in roles.into_iter().enumerate() {
            let text = ["", " ", "words"][text];
            match role {
                0 => messages.push(json!({"role": "user", "content": text})),
                1 => messages.push(json!({"role": "assistant", "content": text})),
                2 => {
                    open = vec![format!("{nth}a"), format!("{nth}b")];
                    let calls: Vec<_> = open.iter().map(|id| call(id, "f")).collect();
                    messages.push(json!({"role": "assistant", "content": text, "tool_calls": calls}));
                }
                _ => {
                    if let Some(id) = open.pop() {
                        messages.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
                    }
                }
            }
        }
        // `sent` checks the form.
        let is_taken = sent(&json!({"messages": messages})).is_ok();
        prop_assert!(is_taken);
    }
}
