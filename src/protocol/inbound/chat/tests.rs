use serde_json::{Value, json};

use crate::config::Provider;
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, Lineage, PartBody, ReplyFault};
use crate::protocol::inbound::{Echo, Inbound as _, ReplyIdentity, chat::Chat};
use crate::protocol::usage::{BillingFacts, ServiceTier, Told, Usage};
use crate::providers::outbound::{decode_body as body_of, decoder, translated};
use crate::providers::{StandIns, Target, outbound, usage_of};

fn provider() -> Provider {
    serde_json::from_value(json!({"dialect": "openai", "base_url": "https://o.example/v1"})).unwrap()
}

fn target(provider: &Provider) -> Target<'_> {
    let structured_output = crate::config::StructuredOutput::Native;
    Target { provider, upstream_model: "m", max_output_tokens: 1, structured_output, strict_params: false }
}

fn decode_body(body: &[u8]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let provider = provider();
    body_of(outbound(provider.dialect()), target(&provider), &StandIns::default(), body)
}

fn decode(events: &[Value]) -> (Vec<ChatEvent>, Result<(), ReplyFault>) {
    let mut stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    stream.push_str("data: [DONE]\n\n");
    decode_text(&stream)
}

fn decode_text(stream: &str) -> (Vec<ChatEvent>, Result<(), ReplyFault>) {
    let provider = provider();
    let mut decoder = decoder(outbound(provider.dialect()), target(&provider), &StandIns::default());
    let mut out = Vec::new();
    let result = decoder.push(stream.as_bytes(), &mut out).and_then(|()| decoder.finish(&mut out));
    (out, result)
}

fn chunk(choices: Value) -> Value {
    json!({"id": "x", "created": 5, "model": "up", "choices": choices})
}

fn delta(delta: Value) -> Value {
    chunk(json!([{"index": 0, "delta": delta}]))
}

fn finish(word: &str) -> Value {
    chunk(json!([{"index": 0, "delta": {}, "finish_reason": word}]))
}

fn identity() -> ReplyIdentity {
    ReplyIdentity { id: "own".into(), created: 1, model: "asked".into() }
}

fn body(events: &[ChatEvent]) -> Value {
    let mut writer = Chat.whole(identity(), Echo::default());
    events.iter().for_each(|event| writer.add(event.clone()));
    writer.finish(usage_of(events).as_ref())
}

fn chunks(events: &[ChatEvent], include_usage: bool) -> Vec<Value> {
    let mut writer = Chat.stream(identity(), Echo { include_usage, ..Echo::default() });
    let mut out = Vec::new();
    events.iter().for_each(|event| writer.write(event, &mut out));
    writer.end(usage_of(events).as_ref(), None, &mut out);
    let text = String::from_utf8(out).unwrap();
    let (chunks, end) = text.rsplit_once("data: ").unwrap();
    assert_eq!(end, "[DONE]\n\n");
    chunks.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
}

fn calls(events: &[ChatEvent]) -> Vec<(String, String, String)> {
    let calls = body(events)["choices"][0]["message"]["tool_calls"].take();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let calls = calls.as_array().into_iter().flatten();
    calls.map(|c| (text(&c["id"]), text(&c["function"]["name"]), text(&c["function"]["arguments"]))).collect()
}

fn call(id: &str, name: &str, arguments: &str) -> (String, String, String) {
    (id.into(), name.into(), arguments.into())
}

#[test]
fn each_of_several_choices_is_told_apart_and_finished_once() {
    let (events, result) = decode(&[
        chunk(json!([{"index": 0, "delta": {"role": "assistant", "content": "a"}}])),
        chunk(json!([{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "c"}}])),
        chunk(json!([{"index": 1, "delta": {}, "finish_reason": "length"}])),
        chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])),
        chunk(json!([{"index": 1, "delta": {}, "finish_reason": "length"}])),
    ]);
    assert_eq!(result, Ok(()));
    let body = body(&events);
    let choice =
        |n: usize| (body["choices"][n]["message"]["content"].clone(), body["choices"][n]["finish_reason"].clone());
    assert_eq!((choice(0), choice(1)), ((json!("ac"), json!("stop")), (json!("b"), json!("length"))));
    let finished: Vec<Value> = chunks(&events, false)
        .iter()
        .filter(|chunk| chunk["choices"][0]["finish_reason"].is_string())
        .map(|chunk| chunk["choices"][0]["index"].clone())
        .collect();
    assert_eq!(finished, [json!(0), json!(1)]);
}

#[test]
fn a_choice_that_never_finished_leaves_the_reply_truncated() {
    let one_of_two = [chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}, {"index": 1, "delta": {}}]))];
    let stream: String = one_of_two.iter().map(|event| format!("data: {event}\n\n")).collect();
    assert_eq!(decode_text(&stream).1, Err(ReplyFault::Truncated));
}

#[test]
fn log_probabilities_of_pieces_add_up() {
    let piece = |text: &str| {
        chunk(
            json!([{"index": 0, "delta": {"content": text}, "logprobs": {"content": [{"token": text}], "refusal": null}}]),
        )
    };
    let silent = chunk(json!([{"index": 0, "delta": {}, "logprobs": {"content": [{"token": "<end>"}]}}]));
    let (events, _) = decode(&[piece("a"), piece("b"), silent, finish("stop")]);
    let expected = json!({"content": [{"token": "a"}, {"token": "b"}, {"token": "<end>"}], "refusal": null});
    assert_eq!(body(&events)["choices"][0]["logprobs"], expected);
    assert_eq!(body(&events)["choices"][0]["message"]["content"], "ab");
    let streamed = chunks(&events, false);
    let count = |chunk: &Value| chunk["choices"][0]["logprobs"]["content"].as_array().map_or(0, Vec::len);
    assert_eq!(streamed.iter().map(count).sum::<usize>(), 3);
}

#[test]
fn pieces_of_calls_find_their_call_however_the_provider_numbers_them() {
    let calls_of = |pieces: &[Value]| {
        let mut events: Vec<Value> = pieces.iter().map(|piece| delta(json!({"tool_calls": [piece]}))).collect();
        events.push(finish("tool_calls"));
        let (events, result) = decode(&events);
        assert_eq!(result, Ok(()));
        calls(&events)
    };
    let two = [call("a", "f", "{\"x\":1}"), call("b", "g", "{}")];
    // As OpenAI does it.
    assert_eq!(
        calls_of(&[
            json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}),
            json!({"index": 0, "function": {"arguments": "{\"x\""}}),
            json!({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}),
            json!({"index": 0, "function": {"arguments": ":1}"}}),
        ]),
        two
    );
    // Numbers that begin at 1, and an id that is repeated with every piece.
    assert_eq!(
        calls_of(&[
            json!({"index": 1, "id": "a", "function": {"name": "f", "arguments": "{\"x\""}}),
            json!({"index": 1, "id": "a", "function": {"name": "f", "arguments": ":1}"}}),
            json!({"index": 2, "id": "b", "function": {"name": "g"}}),
        ]),
        two
    );
    // The same number for every call.
    assert_eq!(
        calls_of(&[
            json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\":1}"}}),
            json!({"index": 0, "id": "b", "function": {"name": "g", "arguments": "{}"}}),
        ]),
        two
    );
    // A new id with every piece, but no name.
    assert_eq!(
        calls_of(&[
            json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\""}}),
            json!({"index": 0, "id": "zz", "function": {"name": null, "arguments": ":1}"}}),
            json!({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}),
        ]),
        two
    );
    // No numbers: an id, or else a name, begins a call.
    assert_eq!(
        calls_of(&[
            json!({"id": "a", "function": {"name": "f", "arguments": "{\"x\""}}),
            json!({"id": "", "function": {"arguments": ":1}"}}),
            json!({"id": "b", "function": {"name": "g", "arguments": {}}}),
        ]),
        two
    );
    assert_eq!(
        calls_of(&[
            json!({"function": {"name": "f", "arguments": "{}"}}),
            json!({"function": {"name": "f", "arguments": "{}"}})
        ]),
        [call("call_0_0", "f", "{}"), call("call_0_1", "f", "{}")]
    );
}

#[test]
fn a_call_without_arguments_has_an_empty_object_unless_it_was_cut_off() {
    let begin = delta(json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}));
    let (events, _) = decode(&[begin.clone(), finish("tool_calls"), finish("tool_calls")]);
    assert_eq!(calls(&events), [call("a", "f", "{}")]);
    let (events, _) = decode(&[begin, finish("length")]);
    assert_eq!(calls(&events), [call("a", "f", "")]);
    let whole = json!({"choices": [{"message": {"tool_calls": [{"id": "a", "function": {"name": "f"}}]}, "finish_reason": "tool_calls"}]});
    assert_eq!(calls(&decode_body(whole.to_string().as_bytes()).unwrap()), [call("a", "f", "{}")]);
}

#[test]
fn reasoning_is_told_from_text_in_every_form_that_providers_use() {
    let read = |content: Value| {
        let message = body(&decode(&[delta(content), finish("stop")]).0)["choices"][0]["message"].take();
        (message["reasoning_content"].as_str().map(str::to_owned), message["content"].as_str().map(str::to_owned))
    };
    let both = (Some("hm".to_owned()), Some("so".to_owned()));
    assert_eq!(read(json!({"reasoning_content": "hm", "content": "so"})), both);
    assert_eq!(read(json!({"reasoning": "hm", "reasoning_content": "", "content": "so"})), both);
    // Mistral's parts; a reference to a source is neither.
    let thinking = json!([{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]);
    assert_eq!(
        read(
            json!({"content": [{"type": "thinking", "thinking": thinking}, {"type": "reference"}, {"type": "text", "text": "so"}]})
        ),
        both
    );
    assert_eq!(read(json!({"content": null})), (None, Some(String::new())));
}

#[test]
fn a_message_beside_deltas_is_not_said_twice() {
    let told = |n: usize| json!({"content": "abc".get(..n)});
    let both = |piece: &str, n| chunk(json!([{"index": 0, "delta": {"content": piece}, "message": told(n)}]));
    let last = chunk(json!([{"index": 0, "message": told(3), "finish_reason": "stop"}]));
    let (events, result) = decode(&[both("a", 1), both("b", 2), both("c", 3), last.clone()]);
    assert_eq!((result, body(&events)["choices"][0]["message"]["content"].as_str()), (Ok(()), Some("abc")));
    let (events, _) = decode(&[last]);
    assert_eq!(body(&events)["choices"][0]["message"]["content"], "abc");
}

#[test]
fn usage_is_found_wherever_it_is_told() {
    let counts = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    let mut at_the_top = finish("stop");
    at_the_top["usage"] = counts.clone();
    let mut groq = finish("stop");
    groq["x_groq"] = json!({"id": "r", "usage": counts});
    let mut moonshot = finish("stop");
    moonshot["choices"][0]["usage"] = counts;
    for chunk in [at_the_top, groq, moonshot] {
        let (events, _) = decode(&[chunk]);
        let usage = events.iter().find_map(|event| match event {
            ChatEvent::Usage(usage) => Some(*usage),
            _ => None,
        });
        assert_eq!(usage, Some(Usage { input: 3, output: 2, ..Usage::default() }));
        assert_eq!(chunks(&events, true).last().unwrap()["usage"]["total_tokens"], 5);
        assert!(chunks(&events, false).iter().all(|chunk| chunk.get("usage").is_none()));
    }
}

#[test]
fn an_error_in_any_form_is_no_end() {
    let fault = |message: &str, code: Option<&str>| {
        Err(ReplyFault::Reported { message: message.into(), code: code.map(str::to_owned) })
    };
    let begun = delta(json!({"content": "a"}));
    let after = |event: Value| decode(&[begun.clone(), event, finish("stop")]).1;
    assert_eq!(after(json!({"error": {"message": "m", "code": null, "type": "t"}})), fault("m", Some("t")));
    assert_eq!(after(json!({"error": {"message": "m", "code": 500}, "choices": []})), fault("m", Some("500")));
    assert_eq!(after(json!({"error": "m"})), fault("m", None));
    assert_eq!(after(json!({"object": "error", "message": "m", "type": "t", "code": 400})), fault("m", Some("400")));
    assert_eq!(after(chunk(json!([{"index": 0, "error": {"message": "m", "code": 502}}]))), fault("m", Some("502")));
    for word in ["error", "network_error", "abort", "insufficient_system_resource"] {
        assert!(matches!(after(finish(word)), Err(ReplyFault::Reported { .. })), "{word}");
    }
    let named = |data: &str| decode_text(&format!("data: {begun}\n\nevent: error\ndata: {data}\n\n")).1;
    assert_eq!(named("{\"message\":\"m\",\"code\":\"c\"}"), fault("m", Some("c")));
    assert_eq!(named("{\"error\":{\"message\":\"m\"}}"), fault("m", None));
    assert_eq!(named("sorry"), fault("sorry", None));
    assert!(matches!(decode_text("data: <html>\n\n").1, Err(ReplyFault::Malformed(_))));
    assert!(matches!(decode_text("data: 5\n\n").1, Err(ReplyFault::Malformed(_))));
}

#[test]
fn the_usage_told_with_an_error_is_not_lost() {
    let (events, result) = decode(&[
        delta(json!({"content": "a"})),
        json!({"error": {"message": "m"}, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
    ]);
    assert!(result.is_err());
    assert_eq!(events.last(), Some(&ChatEvent::Usage(Usage { input: 3, output: 2, ..Usage::default() })));
}

#[test]
fn a_stream_ends_by_finish_reason_or_by_its_mark_and_not_otherwise() {
    let (begun, end) = (delta(json!({"content": "a"})), finish("stop"));
    assert_eq!(decode_text(&format!("data: {begun}\n\ndata: {end}\n\n")).1, Ok(()));
    assert_eq!(decode_text(&format!("data: {begun}\n\ndata: {end}")).1, Ok(()));
    assert_eq!(decode_text(&format!("data: {begun}\n\ndata: [DONE]")).1, Ok(()));
    for cut in [
        String::new(),
        format!("data: {begun}\n\n"),
        format!("data: {begun}\n\ndata: {{\"id"),
        "data: [DONE]\n\n".into(),
    ] {
        assert_eq!(decode_text(&cut).1, Err(ReplyFault::Truncated), "{cut}");
    }
    let empty = delta(json!({"content": "a"})).to_string().replace("\"delta\"", "\"finish_reason\":\"\",\"delta\"");
    assert_eq!(decode_text(&format!("data: {empty}\n\n")).1, Err(ReplyFault::Truncated));
}

#[test]
fn a_body_without_choices_is_no_reply() {
    for body in ["{}", "{\"choices\":[]}", "{\"choices\":null}", "[]", "null", "x"] {
        assert!(matches!(decode_body(body.as_bytes()), Err(ReplyFault::Malformed(_))), "{body}");
    }
}

#[test]
fn the_callers_model_stays_and_the_first_id_and_time_hold() {
    let mut later = delta(json!({"content": "b"}));
    later["id"] = "y".into();
    later["created"] = 9.into();
    let (events, _) = decode(&[
        json!({"id": "", "created": 0, "choices": []}),
        delta(json!({"content": "a"})),
        later,
        finish("stop"),
    ]);
    let mut all = chunks(&events, false);
    all.push(body(&events));
    for one in &all {
        assert_eq!((&one["id"], &one["created"], &one["model"]), (&json!("chatcmpl-x"), &json!(5), &json!("asked")));
    }
    assert_eq!(all[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
}

#[test]
fn the_first_chunk_goes_out_as_soon_as_the_reply_begins() {
    let mut writer = Chat.stream(identity(), Echo::default());
    let mut out = Vec::new();
    writer.write(&ChatEvent::Start { id: "x".into(), model: "up".into(), created: None }, &mut out);
    assert!(String::from_utf8(out).unwrap().contains("\"role\":\"assistant\""));
}

#[test]
fn a_body_has_content_null_only_beside_calls_or_a_refusal() {
    let message = |events: &[Value]| body(&decode(events).0)["choices"][0]["message"].take();
    assert_eq!(message(&[finish("stop")])["content"], "");
    assert_eq!(
        message(&[delta(json!({"refusal": "no"})), finish("stop")]),
        json!({"role": "assistant", "content": null, "refusal": "no"})
    );
    let call = delta(
        json!({"content": "", "tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}),
    );
    assert_eq!(message(&[call, finish("tool_calls")])["content"], Value::Null);
}

#[test]
fn usage_that_nobody_told_is_not_made_up() {
    let events = [
        ChatEvent::Start { id: "1".into(), model: "m".into(), created: None },
        ChatEvent::Finish { choice: 0, reason: FinishReason::Stop },
    ];
    assert!(chunks(&events, true).iter().all(|chunk| chunk.get("usage").is_none_or(Value::is_null)));
    assert_eq!(body(&events).get("usage"), None);
    let told = Told { usage: Usage { input: 1, ..Usage::default() }, ..Told::default() };
    let writer = Chat.whole(identity(), Echo::default());
    assert_eq!(writer.finish(Some(&told))["usage"]["prompt_tokens"], 1);
}

#[test]
fn callers_of_functions_get_their_calls_in_the_older_form() {
    let function = json!({"name": "f", "parameters": {"type": "object", "properties": {}}});
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "functions": [function]});
    let chat = Chat.read(body.to_string().as_bytes()).unwrap();
    assert_eq!(chat.tools.parallel, Some(false));
    let start = |index| ChatEvent::CallStart { choice: 0, index, id: "c".into(), name: "f".into(), custom: false };
    let fragment = |index| ChatEvent::CallArguments { choice: 0, index, fragment: "{}".into() };
    let finish = ChatEvent::Finish { choice: 0, reason: FinishReason::ToolCalls };
    let events = [start(0), fragment(0), start(1), fragment(1), finish];
    let identity = || ReplyIdentity { id: "1".into(), created: 1, model: "m".into() };

    let mut whole = Chat.whole(identity(), Chat.echo(&chat));
    events.iter().for_each(|event| whole.add(event.clone()));
    let choice = whole.finish(None)["choices"][0].take();
    assert_eq!(choice["finish_reason"], "function_call");
    assert_eq!(choice["message"]["function_call"], json!({"name": "f", "arguments": "{}"}));
    assert_eq!(choice["message"].get("tool_calls"), None);

    let mut out = Vec::new();
    let mut stream = Chat.stream(identity(), Chat.echo(&chat));
    events.iter().for_each(|event| stream.write(event, &mut out));
    stream.end(None, None, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains("tool_calls"), "{text}");
    assert_eq!(text.matches(r#""function_call":{"#).count(), 2, "{text}");
    assert!(text.contains(r#""finish_reason":"function_call""#), "{text}");
}

#[test]
fn sources_without_an_address_are_told_beside_the_annotations() {
    let place = json!({"type": "page_location", "cited_text": "t", "document_index": 0, "document_title": "D",
        "start_page_number": 1, "end_page_number": 2});
    let native = Some((Lineage::Anthropic, place.clone()));
    let in_document = Citation { title: Some("D".into()), native, ..Citation::default() };
    let on_the_web = Citation { url: Some("https://a.example".into()), ..Citation::default() };
    let mut whole = Chat.whole(ReplyIdentity { id: "1".into(), created: 1, model: "m".into() }, Echo::default());
    for citation in [in_document, on_the_web] {
        whole.add(ChatEvent::Citation { choice: 0, citation });
    }
    let message = whole.finish(None)["choices"][0]["message"].take();
    assert_eq!(message["citations"], json!([place]));
    let expected = json!({"url": "https://a.example", "title": "", "start_index": 0, "end_index": 0});
    assert_eq!(message["annotations"], json!([{"type": "url_citation", "url_citation": expected}]));
}

#[test]
fn a_stream_that_is_marked_as_complete_ends_whether_it_says_why_or_not() {
    let chunk = |delta: Value| json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]});
    let call = json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]});
    for (delta, reason) in [(json!({"content": "x"}), FinishReason::Stop), (call, FinishReason::ToolCalls)] {
        let (events, end) = decode(&[chunk(delta.clone())]);
        assert_eq!(end, Ok(()));
        assert_eq!(events.last(), Some(&ChatEvent::Finish { choice: 0, reason }));
        let unmarked = format!("data: {}\n\n", chunk(delta));
        assert_eq!(decode_text(&unmarked).1, Err(ReplyFault::Truncated));
    }
}

#[test]
fn sound_and_calls_in_the_older_form_come_through() {
    let sound = |audio: Value| delta(json!({"audio": audio}));
    let call = |call: Value| delta(json!({"function_call": call}));
    let (events, result) = decode(&[
        sound(json!({"id": "audio_9"})),
        sound(json!({"data": "YQ==", "transcript": "He"})),
        sound(json!({"data": "Yg==", "transcript": "llo"})),
        sound(json!({"data": "Y2Rl", "expires_at": 99})),
        call(json!({"name": "f", "arguments": ""})),
        call(json!({"arguments": "{}"})),
        finish("function_call"),
    ]);
    assert_eq!(result, Ok(()));
    let message = &body(&events)["choices"][0]["message"];
    let whole = json!({"id": "audio_9", "data": "YWJjZGU=", "transcript": "Hello", "expires_at": 99});
    assert_eq!(message["audio"], whole);
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{}"}));
    let pieces: Vec<Value> = chunks(&events, false)
        .into_iter()
        .filter_map(|mut chunk| Some(chunk["choices"][0]["delta"].take()["audio"].take()).filter(Value::is_object))
        .collect();
    assert_eq!(pieces.len(), 4);
    assert_eq!(pieces[1]["data"], "YQ==");
    let in_one = json!({"role": "assistant", "content": null, "audio": whole});
    let whole_body = chunk(json!([{"index": 0, "message": in_one, "finish_reason": "stop"}]));
    let events = decode_body(whole_body.to_string().as_bytes()).unwrap();
    assert_eq!(body(&events)["choices"][0]["message"]["audio"], whole);
}

#[test]
fn the_tier_that_served_a_request_is_told() {
    let facts = BillingFacts { service_tier: Some(ServiceTier::Flex), ..BillingFacts::default() };
    let told = Told { usage: Usage { output: 1, ..Usage::default() }, facts };
    let whole = |told| Chat.whole(identity(), Echo::default()).finish(Some(told));
    assert_eq!(whole(&told)["service_tier"], "flex");
    assert_eq!(whole(&Told::from(told.usage)).get("service_tier"), None);
    let mut out = Vec::new();
    Chat.stream(identity(), Echo { include_usage: true, ..Echo::default() }).end(Some(&told), None, &mut out);
    assert!(String::from_utf8(out).unwrap().contains(r#""service_tier":"flex""#));
}

#[test]
fn pictures_and_sound_of_earlier_replies_go_back_or_are_told_of() {
    let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    let ask = |answer: Value| {
        let messages = json!([{"role": "user", "content": "draw"}, answer, {"role": "user", "content": "bluer"}]);
        Chat.read(json!({"model": "m", "messages": messages}).to_string().as_bytes())
    };
    let chat = ask(json!({"role": "assistant", "content": "here", "images": [picture]})).unwrap();
    let [text, image] = chat.messages[1].parts.as_slice() else { panic!("{:?}", chat.messages[1]) };
    assert!(matches!(&text.body, PartBody::Text { text, .. } if text == "here"));
    assert_eq!((image.at.to_string().as_str(), chat.messages.len()), ("messages[1].images[0]", 3));
    let sent = |provider: Value| {
        let provider: Provider = serde_json::from_value(provider).unwrap();
        let request = translated(outbound(provider.dialect()), target(&provider), &chat).unwrap();
        (String::from_utf8(request.body).unwrap(), request.dropped_params)
    };
    let (body, dropped) = sent(json!({"dialect": "gemini"}));
    assert!(body.contains(r#""inlineData":{"mimeType":"image/png","data":"AAAA"}"#), "{body}");
    assert_eq!(dropped, Vec::<String>::new());
    let (body, dropped) = sent(json!({"dialect": "anthropic"}));
    assert!(body.contains("here") && !body.contains("AAAA"), "{body}");
    assert_eq!(dropped, ["messages[1].images"]);

    let sound = json!({"id": "audio_1"});
    let refused = ask(json!({"role": "assistant", "audio": sound})).unwrap_err();
    assert_eq!((refused.status, refused.param.as_deref()), (400, Some("messages[1].audio")));
    assert!(ask(json!({"role": "assistant", "audio": sound, "content": "as I said"})).is_ok());
}

#[test]
fn markers_of_openais_own_are_markers() {
    let openais = json!({"mode": "explicit"});
    let part = json!({"type": "text", "text": "Long.", "prompt_cache_breakpoint": openais});
    let body = json!({"model": "m", "messages": [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]});
    let chat = Chat.read(body.to_string().as_bytes()).unwrap();
    let marks: Vec<bool> = chat.messages[0].parts.iter().map(|part| part.cache.is_some()).collect();
    assert_eq!(marks, [true, false]);
    let provider: Provider = serde_json::from_value(json!({"dialect": "anthropic"})).unwrap();
    let request = translated(outbound(provider.dialect()), target(&provider), &chat).unwrap();
    let sent: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(sent["messages"][0]["content"][0]["cache_control"], json!({"type": "ephemeral"}));
}
