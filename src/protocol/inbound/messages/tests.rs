#![expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::billing::Nanodollars;
use crate::protocol::chat::{
    ChatEvent, Citation, Effort, FinishReason, Format, Lineage, MediaKind, Part, PartBody, ReasoningPart, Role,
    Signature, Source, ThinkMode, ToolBody, ToolChoice,
};
use crate::protocol::cost_tag::CostTag;
use crate::protocol::usage::{Told, Usage};

// === Requests ===

fn read(body: Value) -> Result<ChatRequest, Problem> {
    Messages.read(body.to_string().as_bytes())
}

fn with(members: Value) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

fn said(role: &str, content: Value) -> Value {
    with(json!({"messages": [{"role": role, "content": content}]}))
}

/// The roles and parts of a conversation.
fn parts(body: Value) -> Vec<(Role, Vec<PartBody>)> {
    let bodies = |parts: Vec<Part>| parts.into_iter().map(|part| part.body).collect();
    read(body).unwrap().messages.into_iter().map(|message| (message.role, bodies(message.parts))).collect()
}

fn text(text: &str) -> PartBody {
    PartBody::Text { text: text.to_owned(), signature: None }
}

#[test]
fn every_parameter_is_read() {
    let chat = read(with(json!({
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "stream": true, "stop_sequences": ["END"], "temperature": 0.5, "top_p": 0.9, "top_k": 40,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "output_config": {"effort": "xhigh", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "metadata": {"user_id": "u1"}, "service_tier": "standard_only", "context_management": {"edits": []},
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true}, "container": null,
    })))
    .unwrap();
    assert_eq!((chat.origin, chat.model.as_str(), chat.output.max_tokens), (Api::Messages, "m", Some(9)));
    assert_eq!(chat.instructions[0].text, "Be brief.");
    assert_eq!(chat.instructions[0].cache.as_ref().unwrap().ttl(), Some("1h"));
    assert!(chat.stream && chat.include_usage);
    let sampling = (chat.sampling.temperature, chat.sampling.top_p, chat.sampling.top_k);
    assert_eq!(sampling, (Some(0.5), Some(0.9), Some(40)));
    assert_eq!(chat.sampling.stop, ["END"]);
    let thinking = (chat.reasoning.mode, chat.reasoning.budget_tokens, chat.reasoning.effort);
    assert_eq!(thinking, (Some(ThinkMode::Enabled), Some(2048), Some(Effort::XHigh)));
    assert!(matches!(&chat.output.format, Format::Schema { schema, .. } if *schema == json!({"type": "object"})));
    assert_eq!((chat.caller.user.as_deref(), chat.caller.service_tier.as_deref()), (Some("u1"), Some("default")));
    assert_eq!(Value::Object(chat.extra), json!({"context_management": {"edits": []}}));
    assert!(matches!(&chat.tools.offered[0].body, ToolBody::Function(f) if f.name == "f" && f.strict == Some(true)));
    assert!(matches!(&chat.tools.offered[1].body, ToolBody::Hosted { kind, .. } if kind == "web_search_20250305"));
    assert_eq!((chat.tools.choice, chat.tools.parallel), (Some(ToolChoice::Required), Some(false)));
}

#[test]
fn results_become_messages_of_their_own_before_the_rest_of_their_turn() {
    let body = with(json!({"messages": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "Looking."},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"b": 1, "a": 2}},
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "text", "text": "and?"},
            {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [
                {"type": "text", "text": "no"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
            ]},
        ]},
    ]}));
    let told = parts(body.clone());
    let proof = Signature { family: Lineage::Anthropic, value: "sig".into() };
    let thought = ReasoningPart { text: "hm".into(), signature: Some(proof), ..ReasoningPart::default() };
    let hidden = ReasoningPart { redacted: Some("xyz".into()), ..ReasoningPart::default() };
    let (id, name) = ("t1".to_owned(), "look".to_owned());
    let arguments = r#"{"b":1,"a":2}"#.to_owned();
    assert_eq!(told[1].1[..3], [PartBody::Reasoning(thought), PartBody::Reasoning(hidden), text("Looking.")]);
    let call = PartBody::Call { id: id.clone(), name: name.clone(), arguments, custom: false, signature: None };
    assert_eq!(told[1].1[3], call);
    assert!(matches!(&told[1].1[4], PartBody::Hosted { family: Lineage::Anthropic, value } if value["id"] == "s1"));
    let PartBody::Result { id: of, name: called, parts, is_error: true } = &told[2].1[0] else { panic!("{told:?}") };
    assert_eq!((told[2].0, of, called.as_ref(), parts.len()), (Role::Tool, &id, Some(&name), 2));
    assert_eq!(told[3], (Role::User, vec![text("and?")]));
    let chat = read(body).unwrap();
    assert_eq!(chat.messages[2].parts[0].at.to_string(), "messages[2].content[1]");
    assert_eq!(chat.messages[0].parts[0].at.to_string(), "messages[0].content");
}

#[test]
fn what_one_side_says_in_several_messages_is_one_turn() {
    let call = |id: &str| json!([{"type": "tool_use", "id": id, "name": "f", "input": {}}]);
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id});
    let told = parts(with(json!({"messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": call("1")},
        {"role": "assistant", "content": call("2")},
        {"role": "user", "content": [result("1"), {"type": "text", "text": "b"}]},
        {"role": "user", "content": [result("2")]},
    ]})));
    let roles: Vec<(Role, usize)> = told.iter().map(|(role, parts)| (*role, parts.len())).collect();
    let expected = [(Role::User, 1), (Role::Assistant, 2), (Role::Tool, 1), (Role::Tool, 1), (Role::User, 1)];
    assert_eq!(roles, expected);
}

#[test]
fn pictures_and_documents_are_read_from_wherever_they_are() {
    let source = |content: Value| match parts(said("user", json!([content]))).remove(0).1.remove(0) {
        PartBody::Image { source, .. } | PartBody::Document { source, .. } => source,
        other => panic!("{other:?}"),
    };
    let picture = |from: Value| source(json!({"type": "image", "source": from}));
    let paper = |from: Value| source(json!({"type": "document", "source": from, "title": "T"}));
    assert_eq!(
        picture(json!({"type": "url", "url": "https://a.example/x"})),
        Source::Url("https://a.example/x".into())
    );
    assert_eq!(
        picture(json!({"type": "file", "file_id": "file_1"})),
        Source::File { family: Lineage::Anthropic, id: "file_1".into() }
    );
    let pdf = Source::Base64 { media_type: "application/pdf".into(), data: "JVBE".into() };
    assert_eq!(paper(json!({"type": "base64", "media_type": "application/pdf", "data": "JVBE"})), pdf);
    let plain = Source::Text { media_type: "text/plain".into(), text: "a\nb".into() };
    assert_eq!(paper(json!({"type": "text", "media_type": "text/plain", "data": "a\nb"})), plain);
    let blocks = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    assert_eq!(paper(json!({"type": "content", "content": blocks})), plain);
    let found =
        json!({"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "x"}]});
    assert_eq!(parts(said("user", json!([found])))[0].1, [text("T\nS\nx")]);
}

#[test]
fn a_marker_at_the_top_stands_behind_the_last_block() {
    let chat = read(with(json!({"cache_control": {"type": "ephemeral"}}))).unwrap();
    assert_eq!(chat.messages[0].parts[0].cache.as_ref().unwrap().0, json!({"type": "ephemeral"}));
}

#[test]
fn what_is_wrong_is_named_by_its_place() {
    let image = |source: Value| said("user", json!([{"type": "image", "source": source}]));
    let without = |name: &str| {
        let mut body = with(json!({}));
        body.as_object_mut().unwrap().remove(name);
        body
    };
    for (body, place) in [
        (json!([]), ""),
        (without("max_tokens"), "max_tokens"),
        (without("model"), "model"),
        (without("messages"), "messages"),
        (with(json!({"messages": []})), "messages"),
        (with(json!({"max_tokens": "9"})), "max_tokens"),
        (with(json!({"max_tokens": -1})), "max_tokens"),
        (with(json!({"temperature": "hot"})), "temperature"),
        (with(json!({"stream": 1})), "stream"),
        (with(json!({"stop_sequences": ["a", 2]})), "stop_sequences[1]"),
        (with(json!({"system": [{"type": "image"}]})), "system[0].type"),
        (with(json!({"metadata": {"user_id": 5}})), "metadata.user_id"),
        (with(json!({"thinking": {"type": "enabled"}})), "thinking.budget_tokens"),
        (with(json!({"thinking": {"type": "hard"}})), "thinking.type"),
        (with(json!({"output_config": {"effort": "huge"}})), "output_config.effort"),
        (with(json!({"output_config": {"format": {"type": "json_schema"}}})), "output_config.format.schema"),
        (with(json!({"tools": [{"name": "f"}]})), "tools[0].input_schema"),
        (with(json!({"tools": [{"input_schema": {}}]})), "tools[0].name"),
        (with(json!({"tool_choice": {"type": "tool"}})), "tool_choice.name"),
        (with(json!({"tool_choice": "auto"})), "tool_choice"),
        (said("robot", json!("x")), "messages[0].role"),
        (said("user", json!(5)), "messages[0].content"),
        (said("user", json!(["x"])), "messages[0].content[0]"),
        (said("user", json!([{"text": "x"}])), "messages[0].content[0].type"),
        (said("user", json!([{"type": "image_url"}])), "messages[0].content[0].type"),
        (said("user", json!([{"type": "text"}])), "messages[0].content[0].text"),
        (said("user", json!([{"type": "tool_use"}])), "messages[0].content[0].type"),
        (said("assistant", json!([{"type": "tool_result"}])), "messages[0].content[0].type"),
        (said("assistant", json!([{"type": "tool_use", "id": "a", "name": "f"}])), "messages[0].content[0].input"),
        (said("user", json!([{"type": "tool_result"}])), "messages[0].content[0].tool_use_id"),
        (
            said("user", json!([{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "x"}]}])),
            "messages[0].content[0].content[0].type",
        ),
        (image(json!({"type": "base64", "data": "x"})), "messages[0].content[0].source.media_type"),
        (image(json!({"type": "ftp"})), "messages[0].content[0].source.type"),
    ] {
        let problem = read(body.clone()).expect_err(&body.to_string());
        assert_eq!((problem.status, problem.param.as_deref().unwrap_or_default()), (400, place), "{body}");
        assert!(problem.message.starts_with(place), "{}", problem.message);
    }
    assert_eq!(Messages.read(b"{\"model\":").unwrap_err().code, "invalid_json");
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(
        kind in "text|image|thinking|tool_use|tool_result|document|x_tool_result|[a-z]{1,6}",
        role in "user|assistant|system|x",
        members in proptest::collection::vec(("text|source|input|id|name|content|type|data|signature", any::<u8>()), 0..6),
    ) {
        let value = |seed: u8| match seed % 7 {
            0 => Value::Null,
            1 => json!("text"),
            2 => json!({"type": "base64", "media_type": "a/b", "data": "AA"}),
            3 => json!([{"type": "text", "text": "x"}]),
            4 => json!(seed),
            5 => json!({"type": "content", "content": [{"type": "image"}]}),
            _ => json!(true),
        };
        let mut block = json!({"type": kind});
        for (name, seed) in members {
            block[name] = value(seed);
        }
        match read(said(&role, json!([block]))) {
            Ok(chat) => prop_assert!(!chat.messages.is_empty()),
            Err(problem) => prop_assert!(problem.status == 400 && problem.param.is_some()),
        }
    }
}

// === Replies ===

fn identity() -> ReplyIdentity {
    ReplyIdentity { id: "r1".into(), created: 1, model: "mine".into() }
}

fn streamed(events: &[ChatEvent], told: Option<&Told>, cost: Option<CostTag>) -> Vec<Value> {
    let mut out = Vec::new();
    let mut writer = Messages.stream(identity(), Echo::default());
    for event in events {
        writer.write(event, &mut out);
    }
    writer.end(told, cost, &mut out);
    let text = String::from_utf8(out).unwrap();
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    text.split_terminator("\n\n").map(event).collect()
}

fn whole(events: &[ChatEvent], told: Option<&Told>) -> Value {
    let mut writer = Messages.whole(identity(), Echo::default());
    for event in events {
        writer.add(event.clone());
    }
    writer.finish(told)
}

/// Puts a stream together as Anthropic's SDKs do, and holds it to the API's order.
fn accumulated(events: &[Value]) -> Value {
    let mut message = Value::Null;
    let mut open: Option<(u64, String)> = None;
    let mut stopped = false;
    for event in events {
        assert!(!stopped, "{event} comes after the end");
        let kind = event["type"].as_str().unwrap();
        assert_eq!(kind == "message_start", message.is_null(), "the message starts once, and first: {event}");
        match kind {
            "message_start" => message = event["message"].clone(),
            "ping" => {}
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert!(open.is_none() && event["index"] == content.len(), "{event}");
                content.push(event["content_block"].clone());
                open = Some((event["index"].as_u64().unwrap(), String::new()));
            }
            "content_block_delta" => {
                let (index, input) = open.as_mut().unwrap();
                assert_eq!(event["index"], *index);
                let delta = &event["delta"];
                let block = &mut message["content"].as_array_mut().unwrap()[usize::try_from(*index).unwrap()];
                let append = |block: &mut Value, name: &str, more: &Value| {
                    block[name] = json!(format!("{}{}", block[name].as_str().unwrap(), more.as_str().unwrap()));
                };
                match delta["type"].as_str().unwrap() {
                    "text_delta" => append(block, "text", &delta["text"]),
                    "thinking_delta" => append(block, "thinking", &delta["thinking"]),
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "input_json_delta" => input.push_str(delta["partial_json"].as_str().unwrap()),
                    "citations_delta" => match block.get_mut("citations") {
                        Some(citations) => citations.as_array_mut().unwrap().push(delta["citation"].clone()),
                        None => block["citations"] = json!([delta["citation"]]),
                    },
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                let (index, input) = open.take().unwrap();
                assert_eq!(event["index"], index);
                if !input.is_empty() {
                    message["content"][usize::try_from(index).unwrap()]["input"] =
                        serde_json::from_str(&input).unwrap();
                }
            }
            "message_delta" => {
                assert!(open.is_none());
                for (name, value) in event["delta"].as_object().unwrap() {
                    message[name] = value.clone();
                }
                for (name, value) in event["usage"].as_object().unwrap() {
                    message["usage"][name] = value.clone();
                }
            }
            "message_stop" => stopped = true,
            other => panic!("{other}"),
        }
    }
    assert!(stopped);
    message
}

fn start() -> ChatEvent {
    ChatEvent::Start { id: "msg_up".into(), model: "theirs".into(), created: Some(7) }
}

fn piece(text: &str) -> ChatEvent {
    ChatEvent::Text { choice: 0, text: text.into(), logprobs: None }
}

fn call(index: u32, name: &str) -> ChatEvent {
    ChatEvent::CallStart { choice: 0, index, id: format!("call_{index}"), name: name.into(), custom: false }
}

fn arguments(index: u32, fragment: &str) -> ChatEvent {
    ChatEvent::CallArguments { choice: 0, index, fragment: fragment.into() }
}

fn finish(reason: FinishReason) -> ChatEvent {
    ChatEvent::Finish { choice: 0, reason }
}

fn gemini(value: &str) -> Signature {
    Signature { family: Lineage::Gemini, value: value.into() }
}

#[test]
fn a_text_is_written_as_the_api_writes_it() {
    let usage = Usage { input: 3, output: 2, ..Usage::default() };
    let told = Told::from(usage);
    let events = [start(), piece("He\"l"), piece("lo\n"), finish(FinishReason::Length), ChatEvent::Usage(usage)];
    let usage = json!({
        "input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}, "output_tokens": 2,
    });
    let block = |kind: &str, name: &str, value: Value| json!({"type": kind, "index": 0, name: value});
    let expected = [
        json!({"type": "message_start", "message": {
            "id": "msg_up", "type": "message", "role": "assistant", "model": "mine", "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 0, "output_tokens": 0},
        }}),
        json!({"type": "ping"}),
        block("content_block_start", "content_block", json!({"type": "text", "text": ""})),
        block("content_block_delta", "delta", json!({"type": "text_delta", "text": "He\"l"})),
        block("content_block_delta", "delta", json!({"type": "text_delta", "text": "lo\n"})),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": null}, "usage": usage}),
        json!({"type": "message_stop"}),
    ];
    assert_eq!(streamed(&events, Some(&told), None), expected);
    let body = json!({
        "id": "msg_up", "type": "message", "role": "assistant", "model": "mine",
        "content": [{"type": "text", "text": "He\"llo\n"}], "stop_reason": "max_tokens", "stop_sequence": null,
        "usage": usage,
    });
    assert_eq!(whole(&events, Some(&told)), body);
}

#[test]
fn usage_that_nobody_told_is_two_zeros_and_no_more() {
    let body = whole(&[piece("x")], None);
    assert_eq!(body["usage"], json!({"input_tokens": 0, "output_tokens": 0}));
    assert_eq!((&body["id"], &body["stop_reason"]), (&json!("msg_r1"), &json!("end_turn")));
}

#[test]
fn the_cost_stands_in_the_usage() {
    let told = Told::from(Usage { input: 3, ..Usage::default() });
    let events = streamed(&[piece("x")], Some(&told), Some(CostTag(Some(Nanodollars(5)))));
    assert_eq!(events[events.len() - 2]["usage"]["cost"], json!(0.000000005));
}

#[test]
fn a_call_streams_at_once_and_the_next_as_soon_as_it_is_whole() {
    let mut writer = Messages.stream(identity(), Echo::default());
    let mut written = |event: ChatEvent| {
        let mut out = Vec::new();
        writer.write(&event, &mut out);
        String::from_utf8(out).unwrap().matches("event: content_block").count()
    };
    let steps = [
        (call(0, "a"), 0),
        (arguments(0, "{\"x\":"), 2),
        (call(1, "b"), 0),
        (arguments(1, "{\"y\""), 0),
        // The end of the first, its close, the second's start and what was held of it.
        (arguments(0, "\"}\"}"), 4),
        (arguments(1, ":{}}"), 1),
    ];
    for (nth, (event, expected)) in steps.into_iter().enumerate() {
        assert_eq!(written(event), expected, "step {nth}");
    }
}

#[test]
fn the_stop_reason_agrees_with_the_blocks() {
    let reason = |events: &[ChatEvent]| {
        let body = whole(events, None);
        (body["stop_reason"].as_str().unwrap().to_owned(), body["stop_sequence"].clone())
    };
    let refusal = ChatEvent::Refusal { choice: 0, text: "no".into() };
    let stop = FinishReason::StopSequence("END".into());
    for (events, expected) in [
        (vec![piece("x"), finish(FinishReason::Stop)], "end_turn"),
        (vec![finish(FinishReason::ToolCalls)], "end_turn"),
        (vec![call(0, "f"), finish(FinishReason::Stop)], "tool_use"),
        (vec![call(0, "f"), finish(FinishReason::Length)], "max_tokens"),
        (vec![refusal, finish(FinishReason::Stop)], "refusal"),
        (vec![finish(FinishReason::FILTERED)], "refusal"),
        (vec![finish(FinishReason::Pause)], "pause_turn"),
        (vec![finish(FinishReason::ContextFull)], "model_context_window_exceeded"),
    ] {
        assert_eq!(reason(&events), (expected.to_owned(), Value::Null));
    }
    assert_eq!(reason(&[finish(stop)]), ("stop_sequence".to_owned(), json!("END")));
}

#[test]
fn an_input_that_is_no_object_is_not_lost() {
    let input = |text: &str| whole(&[call(0, "f"), arguments(0, text)], None)["content"][0]["input"].clone();
    assert_eq!(input("{\"a\": [1"), json!({"INVALID_JSON": "{\"a\": [1"}));
    assert_eq!(input("[1]"), json!({"INVALID_JSON": "[1]"}));
    assert_eq!(input("null"), json!({}));
    assert_eq!(whole(&[call(0, "f")], None)["content"][0]["input"], json!({}));
}

#[test]
fn sources_stand_in_the_text_that_rests_on_them() {
    let native = json!({"type": "char_location", "cited_text": "x", "document_index": 0});
    let cite = |citation| ChatEvent::Citation { choice: 0, citation };
    let own = Citation { native: Some((Lineage::Anthropic, native.clone())), ..Citation::default() };
    let page = Citation { url: Some("https://a.example".into()), ..Citation::default() };
    let body = whole(&[cite(page), piece("x"), cite(own), cite(Citation::default()), piece("y")], None);
    let found = json!({
        "type": "web_search_result_location", "url": "https://a.example", "title": null, "cited_text": "",
        "encrypted_index": "",
    });
    assert_eq!(body["content"], json!([{"type": "text", "text": "xy", "citations": [found, native]}]));
}

#[test]
fn what_the_api_has_no_block_for_is_left_out() {
    let value = json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}});
    let hosted = |family| ChatEvent::Hosted { choice: 0, family, value: value.clone() };
    let data = || "AA".to_owned();
    let media = ChatEvent::Media { choice: 0, kind: MediaKind::Image, media_type: "image/png".into(), data: data() };
    let second = ChatEvent::Text { choice: 1, text: "z".into(), logprobs: None };
    let events = [media, hosted(Lineage::OpenAi), hosted(Lineage::Anthropic), second, finish(FinishReason::Stop)];
    assert_eq!(whole(&events, None)["content"], json!([value]));
    assert_eq!(accumulated(&streamed(&events, None, None)), whole(&events, None));
}

/// Events of a reply in an order in which they may come: calls begin in their order, and all else is mixed.
fn replies() -> impl Strategy<Value = Vec<ChatEvent>> {
    let json = prop_oneof![
        Just(json!({})),
        "\\PC{0,12}".prop_map(|text| json!({"a": text, "b": ["{", "}\\\"", {"c": [1, null]}]})),
        any::<i32>().prop_map(|n| json!({"n": n})),
    ];
    let cuts = proptest::collection::vec(any::<prop::sample::Index>(), 0..4);
    let calls = proptest::collection::vec((json, cuts, any::<bool>()), 0..4);
    let other = prop_oneof![
        4 => "\\PC{0,6}".prop_map(|text| vec![piece(&text)]),
        1 => "\\PC{1,6}".prop_map(|text| vec![ChatEvent::Refusal { choice: 0, text }]),
        3 => ("\\PC{1,6}", 0..3_u8).prop_map(|(text, proof)| {
            let mut events = vec![ChatEvent::Reasoning { choice: 0, text: text.clone() }];
            let family = if proof == 1 { Lineage::Anthropic } else { Lineage::OpenAi };
            let signature = (proof > 0).then(|| Signature { family, value: "proof".into() });
            let part = ReasoningPart { text, signature, ..ReasoningPart::default() };
            events.push(ChatEvent::ReasoningDone { choice: 0, part });
            events
        }),
        1 => Just(vec![ChatEvent::ReasoningDone {
            choice: 0,
            part: ReasoningPart { redacted: Some("data".into()), ..ReasoningPart::default() },
        }]),
        1 => "[a-z]{1,4}".prop_map(|host| {
            let citation = Citation { url: Some(format!("https://{host}.example")), ..Citation::default() };
            vec![ChatEvent::Citation { choice: 0, citation }]
        }),
        1 => Just(vec![ChatEvent::Proof { choice: 0, index: None, signature: gemini("text") }]),
        1 => Just(vec![ChatEvent::Hosted {
            choice: 0,
            family: Lineage::Anthropic,
            value: json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}),
        }]),
        1 => Just(vec![ChatEvent::Usage(Usage::default())]),
    ];
    let others = proptest::collection::vec(other, 0..8);
    (calls, others, proptest::collection::vec(any::<prop::sample::Index>(), 60), any::<bool>()).prop_map(
        |(calls, others, picks, starts)| {
            let mut tracks: Vec<Vec<ChatEvent>> = calls
                .iter()
                .enumerate()
                .map(|(index, (json, cuts, proven))| {
                    let index = u32::try_from(index).unwrap();
                    let text: Vec<char> = json.to_string().chars().collect();
                    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
                    cuts.extend([0, text.len()]);
                    cuts.sort_unstable();
                    let pieces = cuts.windows(2).filter(|cut| cut[0] < cut[1]);
                    let mut track = vec![call(index, "tool")];
                    track.extend(pieces.map(|cut| arguments(index, &text[cut[0]..cut[1]].iter().collect::<String>())));
                    if *proven {
                        let at = picks[index as usize].index(track.len()) + 1;
                        let signature = gemini(&format!("proof {index}"));
                        track.insert(at, ChatEvent::Proof { choice: 0, index: Some(index), signature });
                    }
                    track.reverse();
                    track
                })
                .collect();
            let mut rest: Vec<ChatEvent> = others.into_iter().flatten().collect();
            rest.reverse();
            tracks.push(rest);
            let mut begun = 0;
            let mut events: Vec<ChatEvent> = starts.then(start).into_iter().collect();
            let calls = tracks.len() - 1;
            for pick in &picks {
                let mut nth = pick.index(tracks.len());
                // The next call to begin, in place of one that is not its turn.
                nth = if nth < calls && nth > begun { begun } else { nth };
                if nth == begun && nth < calls {
                    begun += 1;
                }
                events.extend(tracks[nth].pop());
            }
            for track in &mut tracks {
                while let Some(event) = track.pop() {
                    events.push(event);
                }
            }
            events.push(finish(if calls > 0 { FinishReason::ToolCalls } else { FinishReason::Stop }));
            events
        },
    )
}

/// What the blocks of a kind hold, put together.
fn joined(body: &Value, kind: &str, member: &str) -> String {
    let blocks = body["content"].as_array().unwrap().iter().filter(|block| block["type"] == kind);
    blocks.map(|block| block[member].as_str().unwrap()).collect()
}

proptest! {
    #[test]
    fn a_stream_put_together_is_the_body_and_holds_all_that_came(events in replies(), counts in any::<Option<u16>>()) {
        let told = counts.map(|n| Told::from(Usage { input: n.into(), output: 4, web_searches: 1, ..Usage::default() }));
        let body = whole(&events, told.as_ref());
        prop_assert_eq!(&accumulated(&streamed(&events, told.as_ref(), None)), &body);

        let mut texts = String::new();
        let mut thoughts = String::new();
        let mut inputs: Vec<String> = Vec::new();
        for event in &events {
            match event {
                ChatEvent::Text { text, .. } | ChatEvent::Refusal { text, .. } => texts.push_str(text),
                ChatEvent::Reasoning { text, .. } => thoughts.push_str(text),
                ChatEvent::CallStart { .. } => inputs.push(String::new()),
                ChatEvent::CallArguments { index, fragment, .. } => inputs[*index as usize].push_str(fragment),
                _ => {}
            }
        }
        prop_assert_eq!(joined(&body, "text", "text"), texts);
        prop_assert_eq!(joined(&body, "thinking", "thinking"), thoughts);
        let calls = body["content"].as_array().unwrap().iter().filter(|block| block["type"] == "tool_use");
        let inputs: Vec<Value> = inputs.iter().map(|input| serde_json::from_str(input).unwrap()).collect();
        prop_assert_eq!(calls.map(|call| call["input"].clone()).collect::<Vec<_>>(), inputs);
    }

    #[test]
    fn a_reply_given_back_has_its_proofs_where_they_belong(events in replies()) {
        let content = whole(&events, None)["content"].clone();
        prop_assume!(content.as_array().is_some_and(|blocks| !blocks.is_empty()));
        let Ok(chat) = read(said("assistant", content)) else { return Ok(()) };
        let mut calls = Vec::new();
        let mut families = Vec::new();
        for part in chat.messages.iter().flat_map(|message| &message.parts) {
            match &part.body {
                PartBody::Call { signature, .. } => calls.push(signature.clone()),
                PartBody::Reasoning(ReasoningPart { signature: Some(signature), .. }) => families.push(signature.family),
                _ => {}
            }
        }
        let (mut expected, mut proven) = (vec![None; calls.len()], Vec::new());
        for event in &events {
            match event {
                ChatEvent::Proof { index: Some(index), signature, .. } => {
                    expected[*index as usize] = Some(signature.clone());
                }
                ChatEvent::ReasoningDone { part: ReasoningPart { signature: Some(signature), .. }, .. } => {
                    proven.push(signature.family);
                }
                _ => {}
            }
        }
        prop_assert_eq!(calls, expected);
        families.sort_by_key(|family| format!("{family:?}"));
        proven.sort_by_key(|family| format!("{family:?}"));
        prop_assert_eq!(families, proven);
    }
}
