//! Requests.

use super::*;

fn function(name: &str, strict: bool) -> Value {
    let parameters = json!({"properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!({"type": "function", "function": {"name": name, "parameters": parameters, "strict": strict}})
}

/// The messages that these become.
fn messages(messages: Value) -> Value {
    let (body, dropped) = sent(json!({"messages": messages}));
    assert_eq!(dropped, Vec::<String>::new());
    body["messages"].clone()
}

#[test]
fn instructions_come_first_and_as_one() {
    assert_eq!(
        messages(json!([
            {"role": "system", "content": "A"},
            {"role": "user", "content": "Hi"},
            {"role": "developer", "content": "B"},
        ])),
        json!([{"role": "system", "content": "A\n\nB"}, {"role": "user", "content": "Hi"}])
    );
    let filler = json!([{"role": "system", "content": "A"}, {"role": "user", "content": "."}]);
    assert_eq!(messages(json!([{"role": "system", "content": "A"}])), filler);
}

#[test]
fn calls_and_results_keep_their_ids() {
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}});
    let turns = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.",
         "tool_calls": [call("a", ""), call("b", "{\"x\":1}")]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": "Done"},
    ]);
    assert_eq!(
        messages(turns.clone()),
        json!([
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_plan": "Hm.\n\nI look.",
             "tool_calls": [call("a", "{}"), call("b", "{\"x\":1}")]},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "."},
            {"role": "assistant", "content": "Done"},
        ])
    );
    let (body, _) = sent_to("command-a-reasoning-08-2025", json!({"messages": turns})).unwrap();
    assert_eq!(body["messages"][1]["content"], json!([{"type": "thinking", "thinking": "Hm."}]));
    assert_eq!(body["messages"][1]["tool_plan"], "I look.");
}

#[test]
fn pictures_pass_and_documents_are_cited() {
    let file = |kind: &str, data: &str| {
        let url = format!("data:{kind};base64,{data}");
        json!({"type": "file", "file": {"filename": "a.txt", "file_data": url}})
    };
    let image = json!({"type": "image_url", "image_url": {"url": "https://a.example/x.png", "detail": "low"}});
    let said = |parts: Value| json!([{"role": "user", "content": parts}]);
    let text = json!({"type": "text", "text": "What?"});
    let (body, _) = sent(json!({"messages": said(json!([text, image, file("text/plain", "SGk=")]))}));
    assert_eq!(body["messages"], said(json!([text, image])));
    assert_eq!(body["documents"], json!([{"id": "doc_0", "data": {"title": "a.txt", "text": "Hi"}}]));
    // Where they cannot stand apart, they stand in the message.
    let format =
        json!({"messages": said(json!([file("text/plain", "SGk=")])), "response_format": {"type": "json_object"}});
    let (body, _) = sent(format);
    assert_eq!(body["messages"], said(json!("a.txt\nHi")));
    for (part, words) in [
        (file("application/pdf", "AAAA"), "as text only"),
        (json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}), "text only"),
        (file("text/plain", "/w=="), "not UTF-8"),
    ] {
        let problem = sent_to(MODEL, json!({"messages": said(json!([text, part]))})).unwrap_err();
        assert_eq!((problem.status, problem.param.as_deref()), (400, Some("messages[0].content[1]")));
        assert!(problem.message.contains(words), "{}", problem.message);
    }
}

#[test]
fn pictures_among_results_follow_them() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let image = json!({"type": "image_url", "image_url": {"url": "https://a.example/x.png"}});
    let result = |content: Value| json!({"role": "tool", "tool_call_id": "a", "content": content});
    let asked = json!({"role": "user", "content": "Hi"});
    let called = json!({"role": "assistant", "tool_calls": [call]});
    let shown = json!({"role": "user", "content": [image]});
    assert_eq!(
        messages(
            json!([asked, called, result(json!([image])), result(json!("1")), {"role": "user", "content": "And?"}])
        ),
        json!([asked, called, result(json!(".")), result(json!("1")), shown, {"role": "user", "content": "And?"}])
    );
}

#[test]
fn sampling_has_names_and_bounds_of_its_own() {
    let (body, dropped) = sent(json!({
        "max_completion_tokens": 9, "temperature": 1.5, "top_p": 1, "top_k": 900, "seed": -1, "stop": "x",
        "frequency_penalty": -1.5, "presence_penalty": 0, "logprobs": true, "top_logprobs": 3, "stream": true,
        "metadata": {"a": "b"}, "user": "u", "service_tier": "flex", "min_p": 0.1, "safety_mode": "NONE", "foo": 1,
    }));
    let mut expected = json!({
        "model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "temperature": 1.5, "k": 500,
        "seed": i64::MAX, "stop_sequences": ["x"], "frequency_penalty": 0.0, "logprobs": true, "stream": true,
        "safety_mode": "NONE",
    });
    assert_eq!(body, expected);
    let mut dropped_sorted = dropped;
    dropped_sorted.sort();
    let notes =
        ["foo", "frequency_penalty=0", "metadata", "min_p", "service_tier", "top_k=500", "top_logprobs", "user"];
    assert_eq!(dropped_sorted, notes);

    let (body, dropped) = sent(json!({"top_p": 0.001, "frequency_penalty": 0.5, "presence_penalty": 0.5}));
    expected = json!([0.01, 0.5, null]);
    assert_eq!(json!([body["p"], body["frequency_penalty"], body["presence_penalty"]]), expected);
    assert_eq!(dropped, ["top_p=0.01", "presence_penalty"]);
    for refused in [json!({"n": 2}), json!({"logit_bias": {"1": 2}}), json!({"modalities": ["audio"], "audio": {}})] {
        assert_eq!(sent_to(MODEL, refused).unwrap_err().code, "unsupported_parameter");
    }
}

#[test]
fn a_function_that_is_named_is_the_only_one() {
    let tools = json!([function("a", true), function("b", true)]);
    let chosen = |choice: Value| {
        let (body, _) = sent(json!({"tools": tools, "tool_choice": choice}));
        let names = body["tools"].as_array().unwrap().iter();
        let names: Vec<Value> = names.map(|tool| tool["function"]["name"].clone()).collect();
        json!([names, body["tool_choice"], body["strict_tools"]])
    };
    let both = json!(["a", "b"]);
    assert_eq!(chosen(json!("auto")), json!([both, null, true]));
    assert_eq!(chosen(json!("required")), json!([both, "REQUIRED", true]));
    assert_eq!(chosen(json!("none")), json!([both, "NONE", true]));
    let one = json!({"type": "function", "function": {"name": "b"}});
    assert_eq!(chosen(one.clone()), json!([["b"], "REQUIRED", true]));
    for refused in [
        json!({"tools": [function("a", true)], "tool_choice": one}),
        json!({"tool_choice": "required"}),
        json!({"tools": [{"type": "google_search"}]}),
    ] {
        assert_eq!(sent_to(MODEL, refused).unwrap_err().status, 400);
    }
    let (body, dropped) = sent(json!({"tools": [function("a", false)], "parallel_tool_calls": false}));
    assert_eq!((&body["strict_tools"], dropped), (&Value::Null, vec!["parallel_tool_calls".to_owned()]));
    assert_eq!(body["tools"][0]["function"]["parameters"]["type"], "object");
    // None is left out of an empty offer.
    assert_eq!(sent(json!({"tool_choice": "none"})).0.get("tool_choice"), None);
}

#[test]
fn no_form_of_the_answer_goes_with_tools_or_documents() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}});
    let (body, _) = sent(json!({"response_format": format}));
    assert_eq!(body["response_format"], json!({"type": "json_object", "json_schema": schema}));
    let (body, dropped) = sent(json!({"response_format": format, "tools": [function("a", false)]}));
    assert_eq!((body["tools"].as_array().unwrap().len(), &body["tool_choice"]), (2, &json!("REQUIRED")));
    assert_eq!(dropped, Vec::<String>::new());
    let (body, dropped) = sent(json!({"response_format": format, "documents": ["x"]}));
    assert_eq!((body["tools"][0]["function"]["name"].as_str(), dropped.len()), (Some("json_answer"), 0));
    let (body, dropped) = sent(json!({"response_format": {"type": "json_object"}, "tools": [function("a", false)]}));
    assert_eq!((body.get("response_format"), dropped), (None, vec!["response_format".to_owned()]));
}

#[test]
fn only_models_that_reason_are_told_how_much() {
    let thinking = |members: Value| sent_to("command-a-reasoning-08-2025", members).unwrap().0["thinking"].clone();
    assert_eq!(thinking(json!({})), Value::Null);
    assert_eq!(thinking(json!({"reasoning_effort": "low"})), json!({"type": "enabled", "token_budget": 2048}));
    assert_eq!(thinking(json!({"reasoning_effort": "none"})), json!({"type": "disabled"}));
    let budget = json!({"thinking": {"type": "enabled", "budget_tokens": 3000}});
    assert_eq!(thinking(budget), json!({"type": "enabled", "token_budget": 3000}));
    assert_eq!(sent(json!({"reasoning_effort": "high"})).1, ["reasoning_effort"]);
    assert_eq!(sent(json!({"reasoning_effort": "none"})).1, Vec::<String>::new());
}

#[test]
fn errors_say_what_they_mean() {
    let read = |status: u16, message: &str| {
        let error = Cohere.read_error(status, &HeaderMap::new(), &json!({"id": "x", "message": message}), &provider());
        assert_eq!(error.message.as_deref(), Some(message));
        (error.code.unwrap_or_default(), error.status)
    };
    for (status, message, code, meant) in [
        (
            400,
            "too many tokens: total number of tokens in the prompt cannot exceed 4081",
            "context_length_exceeded",
            None,
        ),
        (400, "invalid request: message must be at least 1 token long", "", None),
        (404, "model 'x' not found, make sure the correct model ID was used", "model_not_found", None),
        (404, "no such route", "", None),
        (422, "unknown field: parameter 'x' is not a valid field", "invalid_request_error", None),
        (429, "You are using a Trial key, which is limited to 10 API calls / minute.", "rate_limit_exceeded", None),
        (429, "You are using a Trial key, which is limited to 1000 API calls / month.", "insufficient_quota", None),
        (498, "request blocked", "content_filter", Some(400)),
        (499, "request cancelled", "", Some(503)),
        (500, "internal server error", "", None),
    ] {
        assert_eq!(read(status, message), (code.to_owned(), meant), "{status} {message}");
    }
    for odd in [json!(null), json!({"message": 1}), json!([])] {
        assert_eq!(Cohere.read_error(500, &HeaderMap::new(), &odd, &provider()).message, None);
    }
}
