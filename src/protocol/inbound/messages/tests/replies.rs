//! Replies, whole and streamed, and given back.

#![expect(clippy::arithmetic_side_effects, reason = "a test whose arithmetic overflows fails, as it should")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::billing::Nanodollars;
use crate::protocol::chat::{ChatEvent, Citation, FinishReason};
use crate::protocol::cost_tag::CostTag;
use crate::protocol::usage::{Told, Usage};

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
    let media = ChatEvent::Picture { choice: 0, media_type: "image/png".into(), data: data() };
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
