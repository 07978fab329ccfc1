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

/// The events of a stream of the Responses API, which are counted and named.
fn response_events(reply: &crate::support::Reply) -> Vec<Value> {
    let events = reply.events();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    let names: Vec<String> =
        reply.text().lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect();
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(names, types);
    events
}

fn types(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    types.dedup();
    types
}

#[test]
fn a_response_is_streamed_item_by_item() {
    let server = Server::start(&[]);
    let mut body = json!({
        "model": "gpt-5", "input": "Hello [[mock reasoning=3 citations=1]]", "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    });
    let whole = server.post("/v1/responses", "", &body).json();
    assert_eq!((&whole["status"], whole["output"].as_array().unwrap().len()), (&json!("completed"), 2));
    body["stream"] = json!(true);
    let events = response_events(&server.post("/v1/responses", "", &body));
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.annotation.added",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let end = &events.last().unwrap()["response"];
    assert_eq!(end["output"][1]["content"], whole["output"][1]["content"]);
    assert_eq!(end["usage"], whole["usage"]);
    assert!(end["output"][0]["encrypted_content"].is_string());
    let said: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(end["output"][1]["content"][0]["text"], said);
}

#[test]
fn a_response_ends_in_other_ways_too() {
    let server = Server::start(&[]);
    let ask = |text: &str, more: Value| {
        let mut body = json!({"model": "mock-small", "input": text, "stream": true});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/responses", "", &body)
    };
    let last = |reply: &crate::support::Reply| response_events(reply).pop().unwrap();
    let end = last(&ask("Hi", json!({"max_output_tokens": 16})));
    assert_eq!((&end["type"], &end["response"]["status"]), (&json!("response.incomplete"), &json!("incomplete")));
    assert_eq!(end["response"]["incomplete_details"]["reason"], "max_output_tokens");
    let end = last(&ask("Hi [[mock block=1]]", json!({})));
    assert_eq!(end["response"]["incomplete_details"]["reason"], "content_filter");
    let end = last(&ask("Hi [[mock finish=failed error_code=rate_limit_exceeded]]", json!({})));
    assert_eq!(
        (&end["type"], &end["response"]["error"]["code"]),
        (&json!("response.failed"), &json!("rate_limit_exceeded"))
    );
    let refusal = ask("Hi [[mock refusal=1]]", json!({}));
    assert!(types(&response_events(&refusal)).contains(&"response.refusal.done"));
    let error = last(&ask("Hi [[mock error_at=2]]", json!({})));
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("server_error")));
    let open = ask("Hi [[mock no_done=1 tag=open]]", json!({}));
    assert_eq!(last(&open)["type"], "response.output_item.done");
    assert_eq!(server.entry("open", |entry| entry["outcome"] == "fault")["status"], 200);
    let cut = ask("Hi [[mock cut_event_at=1 split=3]]", json!({}));
    assert!(cut.chunks.iter().all(|size| *size <= 3) && !cut.text().contains("response.completed"));
}

#[test]
fn calls_of_a_response_can_alternate() {
    let server = Server::start(&[]);
    let mut body = json!({
        "model": "gpt-5", "input": "Use tools [[mock tools=2 interleave=1]]", "stream": true,
        "tools": [{"type": "function", "name": "f", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
        }}],
    });
    let events = response_events(&server.post("/v1/responses", "", &body));
    let order: Vec<u64> = events
        .iter()
        .filter(|event| event["type"] == "response.function_call_arguments.delta")
        .map(|event| event["output_index"].as_u64().unwrap())
        .collect();
    assert!(order.starts_with(&[0, 1, 0, 1]), "{order:?}");
    body["stream"] = json!(false);
    let whole = server.post("/v1/responses", "", &body).json();
    assert_eq!(whole["output"][1]["type"], "function_call");
    body["input"] = json!([
        {"role": "user", "content": "Use tools"}, whole["output"][0], whole["output"][1],
        {"type": "function_call_output", "call_id": whole["output"][0]["call_id"], "output": "sun"},
        {"type": "function_call_output", "call_id": whole["output"][1]["call_id"], "output": [{"type": "input_text", "text": "rain"}]},
    ]);
    let next = server.post("/v1/responses", "", &body).json();
    let text = next["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("sun; rain"), "{text}");
}

#[test]
fn proofs_of_reasoning_are_demanded_back() {
    let server = Server::start(&[]);
    let mut body = json!({
        "model": "gpt-5", "input": "Use the tool [[mock signature=1]]", "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "f"}], "store": false,
    });
    let first = server.post("/v1/responses", "", &body).json();
    let call = first["output"][1].clone();
    let result = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "sun"});
    body["input"] = json!([{"role": "user", "content": "Go"}, first["output"][0], call, result]);
    assert_eq!(server.post("/v1/responses", "", &body).status, 200);
    body["input"] = json!([{"role": "user", "content": "Go"}, call, result]);
    let refused = server.post("/v1/responses", "", &body);
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("without its required 'reasoning' item"));
}

#[test]
fn responses_are_kept_listed_and_deleted() {
    let server = Server::start(&[]);
    let body = json!({"model": "mock-small", "input": "Hello", "metadata": {"gateway_account": "ab"}});
    let made = server.post("/v1/responses", "", &body).json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    assert_eq!(server.get(&path).json(), made);
    let items = server.get(&format!("{path}/input_items")).json();
    assert_eq!(items["data"][0]["content"][0]["text"], "Hello");
    let next = json!({"model": "mock-small", "input": "And?", "previous_response_id": made["id"]});
    let next = server.post("/v1/responses", "", &next).json();
    assert!(next["output"][0]["content"][0]["text"].as_str().unwrap().contains("turn 2"));
    assert!(server.post("/v1/responses/input_tokens", "", &body).json()["input_tokens"].as_u64().unwrap() > 0);
    assert_eq!(server.post(&format!("{path}/cancel"), "", &Value::Null).status, 400, "it was not in the background");
    assert_eq!(server.request("DELETE", &path).json()["deleted"], true);
    assert_eq!(server.get(&path).status, 404);
    let lost = json!({"model": "mock-small", "input": "And?", "previous_response_id": made["id"]});
    assert_eq!(server.post("/v1/responses", "", &lost).json()["error"]["code"], "previous_response_not_found");
    let later = json!({"model": "mock-small", "input": "Hello", "background": true});
    let later = server.post("/v1/responses", "", &later).json();
    assert_eq!(later["status"], "queued");
    let path = format!("/v1/responses/{}", later["id"].as_str().unwrap());
    assert_eq!(server.get(&path).json()["status"], "completed");
    assert_eq!(server.post(&format!("{path}/cancel"), "", &Value::Null).json()["status"], "cancelled");
    assert_eq!(server.post("/_mock/reset", "", &Value::Null).status, 200);
    assert_eq!(server.get(&path).status, 404);
}

#[test]
fn cohere_names_its_events() {
    let server = Server::start(&[]);
    let mut body = json!({
        "model": "command-a", "messages": [{"role": "user", "content": "Hello [[mock reasoning=2 citations=1]]"}],
    });
    let whole = server.post("/v2/chat", "", &body).json();
    assert_eq!(
        (&whole["finish_reason"], &whole["message"]["content"][0]["type"]),
        (&json!("COMPLETE"), &json!("thinking"))
    );
    body["stream"] = json!(true);
    let events = server.post("/v2/chat", "", &body).events();
    assert_eq!(
        types(&events),
        [
            "message-start",
            "content-start",
            "content-delta",
            "content-end",
            "content-start",
            "content-delta",
            "content-end",
            "citation-start",
            "citation-end",
            "message-end",
        ]
    );
    assert_eq!(told(&events, "/delta/message/content/text"), whole["message"]["content"][1]["text"].as_str().unwrap());
    assert_eq!(events.last().unwrap()["delta"]["usage"], whole["usage"]);
    body["messages"][0]["content"] = json!("Use a tool [[mock tools=2]]");
    body["tools"] = json!([
        {"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
        }}},
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
    ]);
    let events = server.post("/v2/chat", "", &body).events();
    assert_eq!(events.last().unwrap()["delta"]["finish_reason"], "TOOL_CALL");
    let names: Vec<&Value> =
        events.iter().filter_map(|event| event.pointer("/delta/message/tool_calls/function/name")).collect();
    assert_eq!(names, ["f", "now"]);
    assert!(told(&events, "/delta/message/tool_calls/function/arguments").ends_with("}null"));
    body["messages"][0]["content"] = json!("Hi [[mock error_at=1 text=a%20b]]");
    let events = server.post("/v2/chat", "", &body).events();
    assert_eq!(events.last().unwrap()["delta"]["finish_reason"], "ERROR");
    let refused = server.post("/v2/chat", "", &json!({"model": "m", "messages": [], "n": 2}));
    assert_eq!((refused.status, refused.json()["message"].is_string()), (422, true));
}

#[test]
fn cohere_embeds_and_ranks() {
    let server = Server::start(&["--api-key", "k"]);
    let body = json!({"model": "embed-v4.0", "texts": ["a", "b"], "input_type": "search_document", "embedding_types": ["float", "base64"]});
    assert_eq!(server.post("/v2/embed", "", &body).json()["message"], "no api key supplied");
    let key = "authorization: Bearer k\r\n";
    let embedded = server.post("/v2/embed", key, &body).json();
    assert_eq!(embedded["embeddings"]["float"][1].as_array().unwrap().len(), 1536);
    assert_eq!(embedded["meta"]["billed_units"]["input_tokens"], 2);
    let body = json!({"model": "rerank-v4", "query": "b", "documents": ["a", "b"]});
    let ranked = server.post("/v2/rerank", key, &body).json();
    assert_eq!(
        (&ranked["results"][0]["index"], &ranked["meta"]["billed_units"]["search_units"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn chat_refuses_cites_and_weaves_its_calls() {
    let server = Server::start(&[]);
    let refused = server.chat("Hi [[mock refusal=1 text=no]]").json()["choices"][0]["message"].clone();
    assert_eq!((&refused["content"], &refused["refusal"]), (&Value::Null, &json!("no")));
    let events = server.chat_stream("Hi [[mock refusal=1 text=no]]").events();
    assert_eq!(told(&events, "/choices/0/delta/refusal"), "no");
    let cited = server.chat("Hi [[mock citations=2]]").json();
    assert_eq!(cited["choices"][0]["message"]["annotations"].as_array().unwrap().len(), 2);
    let events = server.chat_stream("Hi [[mock citations=2 two_usage=1]]").events();
    assert!(events.iter().any(|event| event.pointer("/choices/0/delta/annotations/1").is_some()));
    assert_eq!(events.iter().filter(|event| event["usage"].is_object()).count(), 2);
    assert_eq!(server.chat("Hi [[mock block=1]]").json()["choices"][0]["finish_reason"], "content_filter");
    let mut body = crate::support::chat("Use tools [[mock tools=2 interleave=1]]", true);
    body["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    }}}]);
    let events = server.post("/v1/chat/completions", "", &body).events();
    let order: Vec<u64> =
        events.iter().filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0/index")?.as_u64()).collect();
    assert!(order.starts_with(&[0, 1, 0, 1, 0, 1]), "{order:?}");
}
