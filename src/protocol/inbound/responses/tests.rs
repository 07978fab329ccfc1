#![expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Echo, Inbound, ReplyIdentity};
use super::Responses;
use crate::error::Problem;
use crate::protocol::chat::{
    ChatEvent, ChatRequest, Citation, Effort, FinishReason, Format, Lineage, PartBody, ReasoningPart, Role, Signature,
    Source, ToolBody, ToolChoice,
};
use crate::protocol::usage::{BillingFacts, ServiceTier, Told, Usage};

fn read(body: Value) -> Result<ChatRequest, Problem> {
    Responses.read(body.to_string().as_bytes())
}

fn chat(input: Value) -> ChatRequest {
    read(json!({"model": "m", "input": input})).unwrap()
}

// === Requests ===

#[test]
fn one_text_is_the_users() {
    let chat = chat(json!("hello"));
    assert_eq!((chat.messages[0].role, chat.messages[0].text()), (Role::User, "hello".to_owned()));
    assert_eq!(chat.messages[0].parts[0].at.to_string(), "input");
    assert!(!chat.stream && chat.extra.is_empty());
}

#[test]
fn parameters_are_read_by_their_own_names() {
    let chat = read(json!({
        "model": "m", "input": [], "instructions": "be brief", "stream": true, "max_output_tokens": 9,
        "temperature": 0.5, "top_p": 0.25, "top_logprobs": 2, "truncation": "auto", "max_tool_calls": null,
        "include": ["reasoning.encrypted_content", "file_search_call.results"],
        "text": {"verbosity": "low", "format":
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true, "description": null}},
        "reasoning": {"effort": "xhigh", "generate_summary": "auto"},
        "tools": [
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": null},
            {"type": "custom", "name": "c", "format": {"type": "text"}},
            {"type": "web_search", "search_context_size": "low"},
        ],
        "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
        "parallel_tool_calls": false, "user": "u", "metadata": {"a": "b"}, "store": false, "service_tier": "flex",
        "prompt_cache_key": "k", "background": false, "previous_response_id": null,
    }))
    .unwrap();
    assert_eq!((chat.instructions[0].text.as_str(), chat.stream), ("be brief", true));
    assert_eq!((chat.output.max_tokens, chat.output.verbosity.as_deref()), (Some(9), Some("low")));
    assert_eq!((chat.sampling.temperature, chat.sampling.top_p), (Some(0.5), Some(0.25)));
    assert_eq!((chat.sampling.logprobs, chat.sampling.top_logprobs), (Some(true), Some(2)));
    assert!(matches!(&chat.output.format, Format::Schema { strict: Some(true), name: Some(name), .. } if name == "n"));
    assert_eq!((chat.reasoning.effort, chat.reasoning.include_encrypted), (Some(Effort::XHigh), true));
    assert_eq!(chat.reasoning.summary.as_deref(), Some("auto"));
    assert!(matches!(&chat.tools.offered[0].body, ToolBody::Function(function) if function.strict.is_none()));
    assert!(matches!(&chat.tools.offered[1].body, ToolBody::Custom { format: Some(_), .. }));
    assert!(matches!(&chat.tools.offered[2].body, ToolBody::Hosted { kind, .. } if kind == "web_search"));
    assert_eq!(chat.tools.choice, Some(ToolChoice::Among { names: vec!["f".into()], required: true }));
    assert_eq!((chat.tools.parallel, chat.caller.store), (Some(false), Some(false)));
    assert_eq!(chat.extra.keys().collect::<Vec<_>>(), ["include", "truncation"]);
}

#[test]
fn items_become_turns() {
    let envelope = Signature { family: Lineage::Anthropic, value: "sig".into() }.write(Lineage::OpenAi);
    let chat = chat(json!([
        {"role": "developer", "content": "rules"},
        {"role": "user", "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
            {"type": "input_file", "file_data": "data:application/pdf;base64,BBBB", "filename": "a.pdf"},
            {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "mp3"}},
        ]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a"}, {"text": "b"}],
         "encrypted_content": envelope},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "fc_1"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "free"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "two"},
        {"type": "message", "role": "assistant", "phase": "final_answer",
         "content": [{"type": "output_text", "text": "done", "annotations": []}, {"type": "refusal", "refusal": "no"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    ]));
    let roles: Vec<Role> = chat.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::Developer, Role::User, Role::Assistant, Role::Tool, Role::Tool, Role::Assistant]);
    let user = &chat.messages[1].parts;
    assert!(matches!(&user[1].body, PartBody::Image { source: Source::Base64 { data, .. }, .. } if data == "AAAA"));
    assert!(
        matches!(&user[2].body, PartBody::Document { source: Source::Base64 { media_type, .. }, name: Some(_), .. }
        if media_type == "application/pdf")
    );
    assert_eq!(user[2].at.to_string(), "input[1].content[2]");
    let model = &chat.messages[2].parts;
    assert_eq!(model.len(), 3);
    let PartBody::Reasoning(block) = &model[0].body else { panic!("{model:?}") };
    assert_eq!((block.text.as_str(), block.summary, block.id.as_deref()), ("a\n\nb", true, Some("rs_1")));
    assert_eq!(block.signature, Some(Signature { family: Lineage::Anthropic, value: "sig".into() }));
    assert!(matches!(&model[2].body, PartBody::Call { custom: true, arguments, .. } if arguments == "free"));
    let PartBody::Result { name, parts, .. } = &chat.messages[3].parts[0].body else { panic!() };
    assert_eq!((name.as_deref(), parts.len()), (Some("f"), 1));
    assert_eq!(chat.messages[5].parts.len(), 3);
    assert!(matches!(&chat.messages[5].parts[2].body, PartBody::Hosted { family: Lineage::OpenAi, .. }));
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    let with = |name: &str, value: Value| {
        let mut body = json!({"model": "m", "input": "x"});
        body[name] = value;
        body
    };
    let items = |item: Value| with("input", json!([{"role": "user", "content": "x"}, item]));
    let part = |part: Value| items(json!({"role": "user", "content": [{"type": "input_text", "text": ""}, part]}));
    for (body, path) in [
        (with("previous_response_id", json!("resp_1")), "previous_response_id"),
        (with("conversation", json!({"id": "c"})), "conversation"),
        (with("background", json!(true)), "background"),
        (with("prompt", json!({"id": "p"})), "prompt"),
        (with("model", json!(1)), "model"),
        (with("model", Value::Null), "model"),
        (with("input", Value::Null), "input"),
        (with("input", json!(7)), "input"),
        (with("temperature", json!("hot")), "temperature"),
        (with("max_output_tokens", json!(-1)), "max_output_tokens"),
        (with("stream", json!("yes")), "stream"),
        (with("include", json!([1])), "include"),
        (with("text", json!({"format": {"type": "xml"}})), "text.format.type"),
        (with("text", json!({"format": {"type": "json_schema"}})), "text.format.schema"),
        (with("reasoning", json!({"effort": "ultra"})), "reasoning.effort"),
        (with("tools", json!([{"type": "function"}])), "tools[0].name"),
        (with("tools", json!([{"type": "tool_search"}])), "tools[0].type"),
        (with("tools", json!([3])), "tools[0]"),
        (with("tool_choice", json!("always")), "tool_choice"),
        (with("tool_choice", json!({"type": "file_search"})), "tool_choice.type"),
        (with("tool_choice", json!({"type": "allowed_tools", "tools": [{}]})), "tool_choice.tools[0].name"),
        (items(json!("x")), "input[1]"),
        (items(json!({"type": "item_reference", "id": "i"})), "input[1]"),
        (items(json!({"id": "i"})), "input[1]"),
        (items(json!({"type": "tool_search_call"})), "input[1].type"),
        (items(json!({"role": "robot", "content": ""})), "input[1].role"),
        (items(json!({"role": "user"})), "input[1].content"),
        (items(json!({"type": "function_call", "call_id": "c", "name": "f"})), "input[1].arguments"),
        (items(json!({"type": "function_call_output", "call_id": "c"})), "input[1].output"),
        (part(json!({"type": "video"})), "input[1].content[1].type"),
        (part(json!({"type": "input_text"})), "input[1].content[1].text"),
        (part(json!({"type": "input_image", "image_url": {"url": "u"}})), "input[1].content[1].image_url"),
        (part(json!({"type": "input_image", "image_url": "data:x"})), "input[1].content[1].image_url"),
        (part(json!({"type": "input_audio", "input_audio": {}})), "input[1].content[1].input_audio.data"),
    ] {
        let problem = read(body.clone()).unwrap_err();
        assert_eq!((problem.status, problem.param.as_deref()), (400, Some(path)), "{body}");
        assert!(problem.message.starts_with(&format!("{path}: ")), "{}", problem.message);
    }
    assert_eq!(Responses.read(b"{").unwrap_err().code, "invalid_json");
    assert_eq!(Responses.read(b"[]").unwrap_err().status, 400);
}

proptest! {
    #[test]
    fn no_request_is_too_strange_to_be_read_or_refused(bytes in any::<Vec<u8>>(), item in any_json(), member in any_json()) {
        let _ = Responses.read(&bytes);
        for name in ["input", "tools", "tool_choice", "text", "reasoning", "include"] {
            let mut body = json!({"model": "m", "input": [item, {"role": "user", "content": [item]}]});
            body[name] = member.clone();
            let _ = read(body);
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("function_call"),
        Just("reasoning"),
        Just("message"),
        Just("user"),
        Just("input_text"),
        Just("x")
    ];
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), word.prop_map(Value::from)];
    let name = prop_oneof![
        Just("type"),
        Just("role"),
        Just("content"),
        Just("output"),
        Just("summary"),
        Just("text"),
        Just("name"),
        Just("call_id"),
        Just("encrypted_content"),
        Just("format"),
    ];
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

// === Replies ===

fn identity() -> ReplyIdentity {
    ReplyIdentity { id: "r1".to_owned(), created: 7, model: "m".to_owned() }
}

fn echo() -> Echo {
    let body = json!({
        "model": "m", "input": "x", "instructions": "i", "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "f", "parameters": {}}], "tool_choice": {"type": "function", "name": "f"},
    });
    Responses.echo(&read(body).unwrap())
}

fn told() -> Told {
    Told::from(Usage { input: 3, output: 2, ..Usage::default() })
}

fn streamed(events: &[ChatEvent]) -> Vec<Value> {
    let (mut writer, mut out) = (Responses.stream(identity(), echo()), Vec::new());
    for event in events {
        writer.write(event, &mut out);
    }
    writer.end(Some(&told()), None, &mut out);
    parsed(&out)
}

fn parsed(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    let parse = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    text.split_terminator("\n\n").map(parse).collect()
}

fn whole(events: &[ChatEvent]) -> Value {
    let mut writer = Responses.whole(identity(), echo());
    for event in events {
        writer.add(event.clone());
    }
    writer.finish(Some(&told()))
}

/// Puts a stream together as OpenAI's SDKs do, as strictly: `(the items that were put together, the last event)`.
fn accumulated(events: &[Value]) -> (Vec<Value>, Value) {
    let mut items: Vec<Value> = Vec::new();
    let mut open: Vec<bool> = Vec::new();
    for (nth, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], json!(nth));
        let kind = event["type"].as_str().unwrap();
        let at = event["output_index"].as_u64().map(|at| usize::try_from(at).unwrap());
        if let (Some(at), Some(id)) = (at, event["item_id"].as_str()) {
            assert_eq!(items[at]["id"], id);
            assert!(open[at], "{kind} in a closed item");
        }
        let push =
            |text: &mut Value| *text = json!(format!("{}{}", text.as_str().unwrap(), event["delta"].as_str().unwrap()));
        match kind {
            "response.created" | "response.in_progress" => assert!(nth < 2 && event["response"]["output"] == json!([])),
            "response.completed" | "response.incomplete" => {
                assert_eq!(nth + 1, events.len());
                assert!(open.iter().all(|open| !open), "an item is still open at the end");
            }
            "response.output_item.added" => {
                assert_eq!(at, Some(items.len()));
                items.push(event["item"].clone());
                open.push(true);
            }
            "response.output_item.done" => {
                let at = at.unwrap();
                assert!(std::mem::replace(&mut open[at], false));
                // What was put together is what is told at the end, but for what only the end tells.
                let (mut so_far, done) = (items[at].clone(), &event["item"]);
                for late in ["status", "encrypted_content"] {
                    so_far.as_object_mut().unwrap().remove(late);
                    so_far.as_object_mut().unwrap().extend(done.get(late).map(|it| (late.to_owned(), it.clone())));
                }
                assert_eq!(&so_far, done);
                items[at] = done.clone();
            }
            _ => {
                let item = &mut items[at.unwrap()];
                let nth = |name: &str| usize::try_from(event[name].as_u64().unwrap()).unwrap();
                match kind {
                    "response.content_part.added" => {
                        let content = item["content"].as_array_mut().unwrap();
                        assert_eq!(content.len(), nth("content_index"));
                        content.push(event["part"].clone());
                    }
                    "response.content_part.done" => assert_eq!(item["content"][nth("content_index")], event["part"]),
                    "response.output_text.delta" => {
                        let part = &mut item["content"][nth("content_index")];
                        push(&mut part["text"]);
                        part["logprobs"].as_array_mut().unwrap().extend(event["logprobs"].as_array().unwrap().clone());
                    }
                    "response.output_text.done" => {
                        let part = &item["content"][nth("content_index")];
                        assert_eq!((&part["text"], &part["logprobs"]), (&event["text"], &event["logprobs"]));
                    }
                    "response.output_text.annotation.added" => {
                        let all = item["content"][nth("content_index")]["annotations"].as_array_mut().unwrap();
                        assert_eq!(all.len(), nth("annotation_index"));
                        all.push(event["annotation"].clone());
                    }
                    "response.refusal.delta" => push(&mut item["content"][nth("content_index")]["refusal"]),
                    "response.refusal.done" => {
                        assert_eq!(item["content"][nth("content_index")]["refusal"], event["refusal"]);
                    }
                    "response.reasoning_summary_part.added" => {
                        let parts = item["summary"].as_array_mut().unwrap();
                        assert_eq!(parts.len(), nth("summary_index"));
                        parts.push(event["part"].clone());
                    }
                    "response.reasoning_summary_text.delta" => push(&mut item["summary"][nth("summary_index")]["text"]),
                    "response.reasoning_summary_text.done" => {
                        assert_eq!(item["summary"][nth("summary_index")]["text"], event["text"]);
                    }
                    "response.reasoning_summary_part.done" => {
                        assert_eq!(item["summary"][nth("summary_index")], event["part"]);
                    }
                    "response.function_call_arguments.delta" => push(&mut item["arguments"]),
                    "response.function_call_arguments.done" => assert_eq!(item["arguments"], event["arguments"]),
                    "response.custom_tool_call_input.delta" => push(&mut item["input"]),
                    "response.custom_tool_call_input.done" => assert_eq!(item["input"], event["input"]),
                    other => panic!("{other} is no event that SDKs know"),
                }
            }
        }
    }
    (items, events.last().unwrap().clone())
}

fn text(text: &str) -> ChatEvent {
    ChatEvent::Text { choice: 0, text: text.to_owned(), logprobs: None }
}

fn call(index: u32, custom: bool) -> ChatEvent {
    ChatEvent::CallStart { choice: 0, index, id: format!("call_{index}"), name: format!("f{index}"), custom }
}

fn arguments(index: u32, fragment: &str) -> ChatEvent {
    ChatEvent::CallArguments { choice: 0, index, fragment: fragment.to_owned() }
}

fn reasoning(text: &str) -> ChatEvent {
    ChatEvent::Reasoning { choice: 0, text: text.to_owned() }
}

fn reasoning_done(text: &str, proof: Option<&str>) -> ChatEvent {
    let signature = proof.map(|value| Signature { family: Lineage::Anthropic, value: value.to_owned() });
    ChatEvent::ReasoningDone {
        choice: 0,
        part: ReasoningPart { text: text.to_owned(), signature, ..Default::default() },
    }
}

fn finish(reason: FinishReason) -> ChatEvent {
    ChatEvent::Finish { choice: 0, reason }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().strip_prefix("response.").unwrap()).collect()
}

#[test]
fn a_reply_comes_in_the_order_that_sdks_expect() {
    let events = streamed(&[
        ChatEvent::Start { id: "up".into(), model: "up".into(), created: Some(9) },
        reasoning("hm"),
        reasoning_done("hm", Some("sig")),
        text("a"),
        text("b"),
        call(0, false),
        call(1, true),
        arguments(0, "{"),
        arguments(1, "free"),
        arguments(0, "}"),
        finish(FinishReason::ToolCalls),
    ]);
    assert_eq!(
        kinds(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "output_item.added",
            "function_call_arguments.delta",
            "custom_tool_call_input.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "custom_tool_call_input.done",
            "output_item.done",
            "completed",
        ]
    );
    let (items, last) = accumulated(&events);
    let response = &last["response"];
    assert_eq!(response["output"], Value::from(items));
    assert_eq!(
        response["output"][0]["encrypted_content"],
        Signature { family: Lineage::Anthropic, value: "sig".into() }.write(Lineage::OpenAi)
    );
    assert_eq!(
        (&response["id"], &response["created_at"], &response["model"]),
        (&json!("resp_r1"), &json!(9), &json!("m"))
    );
    assert_eq!((&response["status"], &response["usage"]["total_tokens"]), (&json!("completed"), &json!(5)));
    assert_eq!((&response["store"], &response["instructions"]), (&json!(false), &json!("i")));
    assert_eq!(response["tool_choice"], json!({"type": "function", "name": "f"}));
    assert_eq!(events[0]["response"]["status"], "in_progress");
}

#[test]
fn a_reply_that_is_cut_short_says_why() {
    for (reason, why) in [
        (FinishReason::Length, "max_output_tokens"),
        (FinishReason::ContextFull, "max_output_tokens"),
        (FinishReason::FILTERED, "content_filter"),
    ] {
        let events = streamed(&[text("a"), finish(reason)]);
        let (items, last) = accumulated(&events);
        assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.incomplete"), &json!("incomplete")));
        assert_eq!(last["response"]["incomplete_details"], json!({"reason": why}));
        assert_eq!(items[0]["status"], "incomplete");
    }
    let (items, last) = accumulated(&streamed(&[finish(FinishReason::Refusal)]));
    assert_eq!(
        (&last["response"]["status"], &items[0]["content"][0]["type"]),
        (&json!("completed"), &json!("refusal"))
    );
}

#[test]
fn proofs_come_only_when_asked_for_and_come_back() {
    let gemini = Signature { family: Lineage::Gemini, value: "proof".into() };
    let redacted = ReasoningPart { redacted: Some("data".into()), ..Default::default() };
    let events = [
        ChatEvent::ReasoningDone { choice: 0, part: redacted.clone() },
        text("a"),
        ChatEvent::Proof { choice: 0, index: None, signature: gemini.clone() },
        call(0, false),
        arguments(0, "{}"),
        ChatEvent::Proof { choice: 0, index: Some(0), signature: gemini.clone() },
        finish(FinishReason::ToolCalls),
    ];
    let output = whole(&events)["output"].clone();
    let chat = chat(output.clone());
    let parts: Vec<&PartBody> = chat.messages[0].parts.iter().map(|part| &part.body).collect();
    assert_eq!(parts.len(), 3, "{output}");
    assert!(matches!(parts[0], PartBody::Reasoning(block) if block.redacted == redacted.redacted));
    assert!(matches!(parts[1], PartBody::Text { signature: Some(signature), .. } if *signature == gemini));
    assert!(matches!(parts[2], PartBody::Call { signature: Some(signature), .. } if *signature == gemini));

    let mut writer = Responses.whole(identity(), Echo::default());
    events.iter().for_each(|event| writer.add(event.clone()));
    let body = writer.finish(None);
    assert!(!body.to_string().contains("encrypted_content"), "{body}");
    assert_eq!((body["output"].as_array().unwrap().len(), &body["usage"]), (2, &Value::Null));
}

#[test]
fn sources_are_annotations_of_the_text_that_they_belong_to() {
    let citation = |citation| ChatEvent::Citation { choice: 0, citation };
    let nested =
        json!({"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}});
    let body = whole(&[
        citation(Citation { url: Some("https://early".into()), ..Default::default() }),
        text("a"),
        citation(Citation { native: Some((Lineage::OpenAi, nested)), ..Default::default() }),
        citation(Citation { cited_text: Some("no address".into()), ..Default::default() }),
    ]);
    let annotations = &body["output"][0]["content"][0]["annotations"];
    let early = json!({"type": "url_citation", "url": "https://early", "title": "https://early", "start_index": 0, "end_index": 0});
    let flat = json!({"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1});
    assert_eq!(*annotations, json!([early, flat]));
}

#[test]
fn a_stream_that_breaks_off_has_failed() {
    let problem = Problem::new(crate::error::Kind::Upstream, "upstream_truncated", "it broke");
    let (mut writer, mut out) = (Responses.stream(identity(), echo()), Vec::new());
    writer.write(&text("a"), &mut out);
    writer.fail(&problem, "r", &mut out);
    let events = parsed(&out);
    let (last, before) = events.split_last().unwrap();
    assert_eq!((&last["type"], &last["sequence_number"]), (&json!("response.failed"), &json!(before.len())));
    assert_eq!(last["response"]["error"], json!({"code": "upstream_truncated", "message": "it broke"}));
    assert_eq!(
        (&last["response"]["status"], &last["response"]["output"][0]["status"]),
        (&json!("failed"), &json!("in_progress"))
    );

    let mut out = Vec::new();
    Responses.stream(identity(), Echo::default()).fail(&problem, "r", &mut out);
    let expected = json!({"type": "error", "sequence_number": 0, "code": "upstream_truncated", "message": "it broke", "param": null});
    assert_eq!(parsed(&out), [expected]);
}

/// Any order of events that a decoder may give.
fn any_events() -> impl Strategy<Value = Vec<ChatEvent>> {
    let word = "[a-zé\\\\\"\n]{0,4}";
    let step = prop_oneof![
        4 => (word, any::<bool>()).prop_map(|(word, told)| ChatEvent::Text {
            choice: 0,
            logprobs: told.then(|| json!({"content": [{"token": word, "logprob": -1, "bytes": null, "top_logprobs": []}]})),
            text: word,
        }),
        2 => word.prop_map(|word| ChatEvent::Refusal { choice: 0, text: word }),
        3 => word.prop_map(|word| reasoning(&word)),
        2 => (word, proptest::option::of(word)).prop_map(|(text, proof)| reasoning_done(&text, proof.as_deref())),
        3 => any::<bool>().prop_map(|custom| call(u32::MAX, custom)),
        4 => (0..4_u32, word).prop_map(|(index, word)| arguments(index, &word)),
        1 => proptest::option::of(0..4_u32).prop_map(|index| ChatEvent::Proof {
            choice: 0, index, signature: Signature { family: Lineage::Gemini, value: "p".into() }
        }),
        1 => word.prop_map(|url| ChatEvent::Citation {
            choice: 0, citation: Citation { url: Some(url), ..Default::default() }
        }),
        1 => Just(ChatEvent::Picture { choice: 0, media_type: "image/png".into(), data: "AA".into() }),
        1 => Just(ChatEvent::Hosted { choice: 0, family: Lineage::OpenAi, value: json!({"type": "mcp_call", "id": "m"}) }),
        1 => Just(finish(FinishReason::Length)),
        1 => Just(finish(FinishReason::Refusal)),
    ];
    proptest::collection::vec(step, 0..24).prop_map(|mut events| {
        let calls = events.iter_mut().filter(|event| matches!(event, ChatEvent::CallStart { .. }));
        for (nth, event) in calls.enumerate() {
            let ChatEvent::CallStart { index, id, .. } = event else { continue };
            *index = u32::try_from(nth).unwrap();
            *id = format!("call_{nth}");
        }
        events
    })
}

proptest! {
    #[test]
    fn a_stream_put_together_is_the_whole_body(events in any_events()) {
        let (items, last) = accumulated(&streamed(&events));
        let body = whole(&events);
        prop_assert_eq!(&Value::from(items), &body["output"]);
        prop_assert_eq!(&last["response"], &body);
        let said = |event: &ChatEvent| match event {
            ChatEvent::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        let pieces = body["output"].as_array().unwrap().iter().filter_map(|item| item["content"].as_array()).flatten();
        let text: String = pieces.filter_map(|piece| piece["text"].as_str()).collect();
        prop_assert_eq!(text, events.iter().filter_map(said).collect::<String>());
    }
}

#[test]
fn a_document_in_base64_alone_has_the_type_that_it_shows() {
    for (name, data, expected) in [
        (json!("a.bin"), "JVBERi0xLjQ=", "application/pdf"),
        (json!("a.PDF"), "AAAA", "application/pdf"),
        (json!("notes.md"), "AAAA", "text/plain"),
        (json!(null), "AAAA", ""),
    ] {
        let file = json!({"type": "input_file", "filename": name, "file_data": data});
        let chat = chat(json!([{"role": "user", "content": [file]}]));
        let PartBody::Document { source: Source::Base64 { media_type, .. }, .. } = &chat.messages[0].parts[0].body
        else {
            panic!("{:?}", chat.messages[0]);
        };
        assert_eq!(media_type, expected);
    }
}

#[test]
fn the_tier_is_the_one_that_was_had() {
    let chat = read(json!({"model": "m", "input": "x", "service_tier": "flex"})).unwrap();
    let tier = |told: Told| {
        let body = Responses.whole(identity(), Responses.echo(&chat)).finish(Some(&told));
        body["service_tier"].as_str().map(str::to_owned)
    };
    let facts = BillingFacts { service_tier: Some(ServiceTier::Priority), ..BillingFacts::default() };
    assert_eq!(tier(Told { facts, ..told() }).as_deref(), Some("priority"));
    assert_eq!(tier(told()).as_deref(), Some("default"));
}
