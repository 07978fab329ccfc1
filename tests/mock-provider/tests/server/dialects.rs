//! What the three dialects answer, and what they refuse.
use crate::support::{ANTHROPIC, Server, chat, message};
use serde_json::{Value, json};

#[test]
fn a_first_request_gets_a_friendly_answer() {
    let server = Server::start(&[]);
    let reply = server.chat("What is a gateway?");
    assert_eq!((reply.status, reply.complete), (200, true));
    assert!(reply.head.contains("x-request-id: req_") && reply.head.contains("openai-version: 2020-10-01"));
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "mock-small");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let text = body["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("What is a gateway?"), "{text}");
    assert_eq!(
        server.chat("What is a gateway?").json()["choices"],
        body["choices"],
        "the same question gets the same answer"
    );
}

#[test]
fn a_stream_says_what_the_plain_reply_says() {
    let server = Server::start(&[]);
    let plain = server.chat("Tell me more").json();
    let reply = server.chat_stream("Tell me more");
    assert!(reply.complete && reply.head.contains("content-type: text/event-stream"));
    let events = reply.events();
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": "", "refusal": null}));
    assert_eq!(events[0]["usage"], Value::Null);
    assert!(events[0].as_object().unwrap().contains_key("usage"));
    assert_eq!(reply.said(), plain["choices"][0]["message"]["content"].as_str().unwrap());
    let [.., finish, usage, done] = events.as_slice() else { panic!() };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &plain["usage"]));
    assert_eq!(done, "[DONE]");
}

#[test]
fn without_include_usage_no_chunk_speaks_of_usage() {
    let server = Server::start(&[]);
    let mut body = chat("Hi", true);
    body["stream_options"] = Value::Null;
    let reply = server.post("/v1/chat/completions", "", &body);
    assert!(!reply.text().contains("usage"));
}

#[test]
fn several_choices_take_turns() {
    let server = Server::start(&[]);
    let mut body = chat("Hi [[mock chunks=3]]", true);
    body["n"] = json!(2);
    let events = server.post("/v1/chat/completions", "", &body).events();
    let order: Vec<u64> = events.iter().filter_map(|event| event["choices"][0]["index"].as_u64()).collect();
    assert_eq!(order, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
    body["stream"] = json!(false);
    body["stream_options"] = Value::Null;
    let body = server.post("/v1/chat/completions", "", &body).json();
    assert_eq!(body["choices"].as_array().unwrap().len(), 2);
    assert_eq!(body["usage"]["completion_tokens"], 6);
}

fn weather_tool() -> Value {
    json!({"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
        "required": ["city", "unit"], "additionalProperties": false,
    }, "strict": true}})
}

#[test]
fn a_tool_is_called_and_its_result_told() {
    let server = Server::start(&[]);
    let mut body = chat("What's the weather in Lima?", false);
    body["tools"] = json!([weather_tool()]);
    let reply = server.post("/v1/chat/completions", "", &body).json();
    assert_eq!(reply["choices"][0]["finish_reason"], "tool_calls");
    let call = reply["choices"][0]["message"]["tool_calls"][0].clone();
    assert_eq!(call["function"]["name"], "get_weather");
    assert_eq!(call["function"]["arguments"], r#"{"city":"Lima","unit":"c"}"#);
    let id = call["id"].clone();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
    messages.push(json!({"role": "tool", "tool_call_id": id, "content": "21 degrees"}));
    let reply = server.post("/v1/chat/completions", "", &body).json();
    let text = reply["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("21 degrees"), "{text}");
}

#[test]
fn tool_calls_are_streamed_in_parts_with_a_stable_index() {
    let server = Server::start(&[]);
    let mut body = chat("Hi [[mock tools=2]]", true);
    body["tools"] = json!([weather_tool()]);
    let events = server.post("/v1/chat/completions", "", &body).events();
    let mut calls: Vec<(Value, String)> = Vec::new();
    for event in &events {
        for call in event.pointer("/choices/0/delta/tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if index == calls.len() {
                calls.push((call["id"].clone(), String::new()));
            } else {
                assert!(call["id"].is_null());
            }
            calls[index].1.push_str(call["function"]["arguments"].as_str().unwrap());
        }
    }
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0].0, calls[1].0);
    for (_, arguments) in calls {
        assert!(serde_json::from_str::<Value>(&arguments).unwrap()["city"].is_string());
    }
    body["parallel_tool_calls"] = json!(false);
    let text = server.post("/v1/chat/completions", "", &body).text();
    assert!(text.contains("\"index\":0,\"id\":\"call_") && !text.contains("\"index\":1,\"id\":\"call_"));
}

#[test]
fn structured_output_follows_its_schema() {
    let server = Server::start(&[]);
    let schema = json!({
        "type": "object", "properties": {"title": {"type": "string"}, "score": {"type": "integer", "minimum": 8}},
        "required": ["title", "score"], "additionalProperties": false,
    });
    let mut body = chat("Rate it", false);
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "r", "strict": true, "schema": schema}});
    let reply = server.post("/v1/chat/completions", "", &body).json();
    let text = reply["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["score"], 8);
    let mut body = message("Rate it", false);
    body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
    let reply = server.messages(&body).json();
    let text = reply["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["score"], 8);
}

#[test]
fn images_are_counted_and_their_addresses_checked() {
    let server = Server::start(&[]);
    let with = |url: &str| {
        let image = json!({"type": "image_url", "image_url": {"url": url}});
        let mut body = chat("", false);
        body["messages"][0]["content"] = json!([{"type": "text", "text": "What is this?"}, image, image]);
        server.post("/v1/chat/completions", "", &body)
    };
    for url in ["https://example.com/a.png", "data:image/png;base64,aGVsbG8="] {
        let reply = with(url).json();
        let text = reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        assert!(text.contains("I can see 2 images"), "{text}");
    }
    for url in ["ftp://x", "data:image/png;base64,???", "data:text/plain;base64,aGVsbG8=", "https://"] {
        let reply = with(url);
        assert_eq!(reply.status, 400, "{url}");
        assert_eq!(reply.json()["error"]["param"], "messages[0].content[1].image_url.url");
    }
}

#[test]
fn openai_refusals_name_the_parameter() {
    let server = Server::start(&[]);
    let user = json!({"role": "user", "content": "x"});
    let tool_message = json!({"role": "tool", "tool_call_id": "a", "content": "x"});
    let caller = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]});
    let mut long_id = caller.clone();
    long_id["tool_calls"][0]["id"] = json!("x".repeat(41));
    let cases = [
        (json!({"messages": [user]}), Value::Null, Value::Null),
        (json!({"model": "m"}), json!("messages"), json!("missing_required_parameter")),
        (json!({"model": "m", "messages": "x"}), json!("messages"), json!("invalid_type")),
        (json!({"model": "m", "messages": []}), json!("messages"), json!("empty_array")),
        (
            json!({"model": "m", "messages": [{"role": "robot", "content": "x"}]}),
            json!("messages[0].role"),
            json!("invalid_value"),
        ),
        (json!({"model": "m", "messages": [{"role": "user"}]}), json!("messages.[0].content"), Value::Null),
        (
            json!({"model": "m", "messages": [user], "temperature": 3}),
            json!("temperature"),
            json!("decimal_above_max_value"),
        ),
        (
            json!({"model": "m", "messages": [user], "max_tokens": 0}),
            json!("max_tokens"),
            json!("integer_below_min_value"),
        ),
        (json!({"model": "m", "messages": [user], "n": -1}), json!("n"), json!("integer_below_min_value")),
        (json!({"model": "m", "messages": [user], "stream": "yes"}), json!("stream"), json!("invalid_type")),
        (json!({"model": "m", "messages": [user], "stream_options": {}}), json!("stream_options"), Value::Null),
        (json!({"model": "m", "messages": [user], "tool_choice": "required"}), json!("tool_choice"), Value::Null),
        (json!({"model": "m", "messages": [user, tool_message]}), json!("messages.[1].role"), Value::Null),
        (json!({"model": "m", "messages": [user, caller, user]}), json!("messages.[1].role"), Value::Null),
        (json!({"model": "m", "messages": [user, caller]}), json!("messages.[1].role"), Value::Null),
        (
            json!({"model": "m", "messages": [user, long_id]}),
            json!("messages[1].tool_calls[0].id"),
            json!("string_above_max_length"),
        ),
        (
            json!({"model": "o3-mini", "messages": [user], "max_tokens": 9}),
            json!("max_tokens"),
            json!("unsupported_parameter"),
        ),
        (json!({"model": "gpt-5", "messages": [user], "temperature": 0.1}), json!("temperature"), Value::Null),
    ];
    for (body, param, code) in cases {
        let reply = server.post("/v1/chat/completions", "", &body);
        assert_eq!(reply.status, 400, "{body}");
        let error = reply.json()["error"].clone();
        assert_eq!((&error["param"], &error["code"]), (&param, &code), "{body}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let reply =
        server.post("/v1/chat/completions", "", &json!({"model": "m", "messages": [user], "future_field": {"a": 1}}));
    assert_eq!(reply.status, 200, "unknown fields pass");
}

#[test]
fn models_are_listed() {
    let server = Server::start(&[]);
    let list = server.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let id = list["data"][0]["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/models/{id}")).json()["object"], "model");
    let reply = server.get("/v1/models/none");
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(server.get("/v1/nothing").status, 404);
    assert_eq!(server.get("/v1/messages").status, 405);
}

#[test]
fn an_anthropic_stream_has_its_events_in_order() {
    let server = Server::start(&[]);
    let body = json!({
        "model": "mock-large", "max_tokens": 2000, "stream": true,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [{"role": "user", "content": "Think [[mock reasoning=2 text=a%20b]]"}],
    });
    let reply = server.messages(&body);
    assert!(reply.complete && reply.head.contains("request-id: req_"));
    assert!(reply.head.contains("anthropic-organization-id: "));
    let events = reply.events();
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let block = |deltas: usize| {
        let mut block = vec!["content_block_start"];
        block.resize(deltas + 1, "content_block_delta");
        block.push("content_block_stop");
        block
    };
    let mut expected = vec!["message_start"];
    expected.extend(block(3));
    expected.insert(2, "ping");
    expected.extend(block(2));
    expected.extend(["message_delta", "message_stop"]);
    assert_eq!(types, expected);
    for (event, kind) in reply.text().split("\n\n").zip(&types) {
        assert!(event.starts_with(&format!("event: {kind}\n")));
    }
    assert_eq!(events[5]["delta"]["type"], "signature_delta");
    let delta = &events[events.len() - 2];
    assert_eq!(delta["delta"], json!({"stop_reason": "end_turn", "stop_sequence": null}));
    assert_eq!(delta["usage"]["output_tokens"], 4);

    let mut plain = body.clone();
    plain["stream"] = json!(false);
    let plain = server.messages(&plain).json();
    assert_eq!(plain["content"][0]["type"], "thinking");
    assert_eq!(plain["content"][1], json!({"type": "text", "text": "a b"}));
    assert_eq!(plain["usage"]["output_tokens"], 4);
    assert_eq!(plain["usage"]["input_tokens"], events[0]["message"]["usage"]["input_tokens"]);
    assert_eq!(plain["usage"]["service_tier"], "standard");
}

#[test]
fn anthropic_tools_go_round() {
    let server = Server::start(&[]);
    let mut body = message("What's the weather in Oslo? [[mock tools=2]]", false);
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    body["tools"] = json!([{"name": "get_weather", "input_schema": schema}]);
    let reply = server.messages(&body).json();
    assert_eq!(reply["stop_reason"], "tool_use");
    let content = reply["content"].as_array().unwrap().clone();
    assert_eq!(content[0]["type"], "text");
    assert_eq!(content[1]["input"], json!({"city": "Oslo"}));
    assert_eq!(content.len(), 3);
    let results: Vec<Value> = content[1..]
        .iter()
        .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "3 degrees"}))
        .collect();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": content}));
    messages.push(json!({"role": "user", "content": results}));
    let reply = server.messages(&body).json();
    assert!(reply["content"][0]["text"].as_str().unwrap().contains("3 degrees"));
    body["tool_choice"] = json!({"type": "tool", "name": "get_weather", "disable_parallel_tool_use": true});
    let reply = server.messages(&body).json();
    assert_eq!(reply["content"].as_array().unwrap().len(), 1);
}

#[test]
fn anthropic_refusals_read_like_the_real_ones() {
    let server = Server::start(&[]);
    let mut body = message("x", false);
    body["max_tokens"] = Value::Null;
    let cases = [
        (json!({"model": "m", "messages": []}), "max_tokens: Field required"),
        (json!({"max_tokens": 1, "messages": []}), "model: Field required"),
        (json!({"model": "m", "max_tokens": 1, "messages": []}), "messages: at least one message is required"),
        (
            json!({"model": "m", "max_tokens": 0, "messages": []}),
            "max_tokens: Input should be greater than or equal to 1",
        ),
        (
            json!({"model": "m", "max_tokens": 1, "messages": [{"role": "assistant", "content": "x"}]}),
            "messages: first message must use the \"user\" role",
        ),
        (
            json!({"model": "m", "max_tokens": 1, "frequency_penalty": 0}),
            "frequency_penalty: Extra inputs are not permitted",
        ),
        (
            json!({"model": "m", "max_tokens": 1, "temperature": 1.5, "messages": []}),
            "temperature: Input should be less than or equal to 1",
        ),
    ];
    for (body, text) in cases {
        let reply = server.messages(&body);
        assert_eq!(reply.status, 400, "{body}");
        let error = reply.json();
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("invalid_request_error")));
        assert_eq!(error["error"]["message"], text, "{body}");
        assert!(error["request_id"].as_str().unwrap().starts_with("req_"));
    }
    let reply = server.post("/v1/messages", "x-api-key: k\r\n", &message("x", false));
    assert_eq!(reply.json()["error"]["message"], "anthropic-version: header is required");
    let reply = server.post("/v1/messages", "anthropic-version: 1\r\n", &message("x", false));
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (401, &json!("authentication_error")));
}

#[test]
fn a_prompt_prefix_is_written_to_the_cache_once_and_then_read() {
    let server = Server::start(&[]);
    let body = |question: &str| {
        json!({
            "model": "m", "max_tokens": 9,
            "system": [{"type": "text", "text": "rules ".repeat(100), "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            "messages": [{"role": "user", "content": question}],
        })
    };
    let first = server.messages(&body("one")).json()["usage"].clone();
    let second = server.messages(&body("two [[mock tag=t]]")).json()["usage"].clone();
    let tokens = first["cache_creation_input_tokens"].as_u64().unwrap();
    assert!(tokens > 100);
    assert_eq!(first["cache_creation"]["ephemeral_1h_input_tokens"], tokens);
    assert_eq!((&first["cache_read_input_tokens"], &second["cache_read_input_tokens"]), (&json!(0), &json!(tokens)));
    assert_eq!(second["cache_creation_input_tokens"], 0);
    assert_eq!(first["input_tokens"], second["input_tokens"]);
}

#[test]
fn tokens_are_counted_without_an_answer() {
    let server = Server::start(&[]);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "12345678"}]});
    let reply = server.post("/v1/messages/count_tokens", ANTHROPIC, &body);
    assert_eq!(reply.json(), json!({"input_tokens": 6}));
    let usage = server.messages(&message("12345678", false)).json()["usage"].clone();
    assert_eq!(usage["input_tokens"], 6);
    assert_eq!(server.chat("12345678").json()["usage"]["prompt_tokens"], 6);
}

#[test]
fn the_odd_provider_speaks_its_own_language() {
    let server = Server::start(&[]);
    let body =
        json!({"engine": "e", "prompt": "Hi [[mock text=a%20b%20c]]", "settings": {"max_length": 2}, "live": false});
    let reply = server.post("/generate", "", &body).json();
    assert_eq!(reply, json!({"result": {"text": "a b", "why_stopped": "length"}, "meter": {"in": 5, "out": 2}}));
    let mut live = body.clone();
    live["live"] = json!(true);
    live["settings"] = Value::Null;
    let reply = server.post("/generate", "", &live);
    assert!(reply.head.contains("application/x-ndjson"));
    let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({"piece": "a"}));
    assert_eq!(lines[3], json!({"end": "eos", "meter": {"in": 5, "out": 3}}));
    let events = server.post("/generate", "accept: text/event-stream\r\n", &live).events();
    assert_eq!((&events[2], &events[4]), (&json!({"piece": " c"}), &json!("[END]")));
    let reply = server.post("/generate", "", &json!({"engine": 3}));
    assert_eq!((reply.status, &reply.json()["fault"]["number"]), (400, &json!(4001)));
}

#[test]
fn a_key_can_be_demanded() {
    let server = Server::start(&["--api-key", "secret"]);
    let reply = server.chat("Hi");
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    let key = "authorization: Bearer secret\r\n";
    assert_eq!(server.post("/v1/chat/completions", key, &chat("Hi", false)).status, 200);
    assert_eq!(server.post("/generate", key, &json!({"engine": "e", "prompt": "p"})).status, 200);
    let reply = server.post("/generate", "", &json!({"engine": "e", "prompt": "p"}));
    assert_eq!((reply.status, &reply.json()["fault"]["number"]), (401, &json!(4010)));
    let version = "anthropic-version: 1\r\n";
    let body = message("Hi", false);
    let reply = server.messages(&body);
    assert_eq!((reply.status, &reply.json()["error"]["message"]), (401, &json!("invalid x-api-key")));
    assert_eq!(server.post("/v1/messages", &format!("{version}x-api-key: secret\r\n"), &body).status, 200);
    assert_eq!(server.post("/v1/messages", &format!("{version}{key}"), &body).status, 200);
}

#[test]
fn messages_are_cited_and_refused_on_request() {
    let server = Server::start(&[]);
    let whole = server.messages(&message("Hi [[mock citations=2]]", false)).json();
    let citations = whole["content"][0]["citations"].clone();
    assert_eq!(citations.as_array().unwrap().len(), 2);
    let events = server.messages(&message("Hi [[mock citations=2]]", true)).events();
    let streamed: Vec<&Value> = events.iter().filter_map(|event| event.pointer("/delta/citation")).collect();
    assert_eq!(json!(streamed), citations);
    let refused = server.messages(&message("Hi [[mock block=1]]", false)).json();
    assert_eq!((&refused["stop_reason"], &refused["content"]), (&json!("refusal"), &json!([])));
    assert_eq!(refused["stop_details"]["type"], "refusal");
    let signed = server.messages(&message("Hi [[mock signature=1]]", false)).json();
    assert_eq!(signed["content"][0]["type"], "thinking");
}
