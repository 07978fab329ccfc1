//! Replies and errors.

use super::*;

fn body_events(content: Value, stop_reason: &str, structured_output: StructuredOutput) -> Vec<ChatEvent> {
    let body = json!({"id": "msg_1", "type": "message", "content": content, "stop_reason": stop_reason, "usage": {"input_tokens": 1}});
    let by_tool = StandIns { answer_tool: structured_output == StructuredOutput::Tool, ..StandIns::default() };
    decode_body(&Anthropic, target(&provider(), structured_output), &by_tool, body.to_string().as_bytes()).unwrap()
}

fn stream_events(events: &[Value], structured_output: StructuredOutput) -> (Vec<ChatEvent>, Result<(), ReplyFault>) {
    let provider = provider();
    let by_tool = StandIns { answer_tool: structured_output == StructuredOutput::Tool, ..StandIns::default() };
    let mut decoder = decoder(&Anthropic, target(&provider, structured_output), &by_tool);
    let mut out = Vec::new();
    let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let result = decoder.push(stream.as_bytes(), &mut out).and_then(|()| decoder.finish(&mut out));
    (out, result)
}

fn texts(events: &[ChatEvent]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        ChatEvent::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn finish(events: &[ChatEvent]) -> Option<FinishReason> {
    events.iter().find_map(|event| match event {
        ChatEvent::Finish { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

fn answer_stream() -> Vec<Value> {
    vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": ANSWER_TOOL, "input": {}}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{\"a\""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ":1}"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ]
}

#[test]
fn the_answer_tools_arguments_are_the_answers_text() {
    let content = json!([{"type": "tool_use", "id": "t", "name": ANSWER_TOOL, "input": {"a": 1}}]);
    let whole = body_events(content.clone(), "tool_use", StructuredOutput::Tool);
    assert_eq!((texts(&whole).as_str(), finish(&whole)), ("{\"a\":1}", Some(FinishReason::Stop)));
    let (streamed, result) = stream_events(&answer_stream(), StructuredOutput::Tool);
    assert_eq!((texts(&streamed).as_str(), finish(&streamed), result), ("{\"a\":1}", Some(FinishReason::Stop), Ok(())));
    // Where answers do not come by tool, a tool of that name is like any other.
    let called = body_events(content, "tool_use", StructuredOutput::Native);
    assert_eq!((texts(&called).as_str(), finish(&called)), ("", Some(FinishReason::ToolCalls)));
}

#[test]
fn a_call_of_the_callers_tool_beside_the_answer_is_a_call() {
    let content = json!([
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        {"type": "tool_use", "id": "u", "name": ANSWER_TOOL, "input": {}},
    ]);
    let events = body_events(content, "tool_use", StructuredOutput::Tool);
    assert_eq!(finish(&events), Some(FinishReason::ToolCalls));
    assert!(events.contains(&ChatEvent::CallStart {
        choice: 0,
        index: 0,
        id: "t".into(),
        name: "f".into(),
        custom: false
    }));
    assert!(events.contains(&ChatEvent::CallArguments { choice: 0, index: 0, fragment: "{}".into() }));
}

#[test]
fn thinking_is_shown_and_its_signed_blocks_come_whole() {
    let events = [
        json!({"type": "message_start", "message": {"id": "m"}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s1"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "x"}}),
        json!({"type": "message_stop"}),
    ];
    let (events, result) = stream_events(&events, StructuredOutput::Native);
    let blocks: Vec<&ReasoningPart> = events
        .iter()
        .filter_map(|event| match event {
            ChatEvent::ReasoningDone { part, .. } => Some(part),
            _ => None,
        })
        .collect();
    // The second one was never closed; the end closes it.
    let signature = Some(Signature { family: Lineage::Anthropic, value: "s1".into() });
    let thinking = ReasoningPart { text: "hm".into(), signature, ..ReasoningPart::default() };
    let redacted = ReasoningPart { redacted: Some("x".into()), ..ReasoningPart::default() };
    assert_eq!((blocks, result), (vec![&thinking, &redacted], Ok(())));
    assert_eq!(events.iter().filter(|event| matches!(event, ChatEvent::Reasoning { .. })).count(), 2);
}

#[test]
fn a_reply_begins_once_even_if_it_is_said_twice() {
    let again = json!({"type": "message_start", "message": {"id": "msg_2", "usage": {"input_tokens": 4}}});
    let (events, _) = stream_events(&[answer_stream().remove(0), again], StructuredOutput::Native);
    let begun: Vec<&ChatEvent> = events.iter().filter(|event| matches!(event, ChatEvent::Start { .. })).collect();
    assert_eq!(begun, [&ChatEvent::Start { id: "msg_1".into(), model: String::new(), created: None }]);
    assert_eq!(events.last(), Some(&ChatEvent::Usage(Usage { input: 4, ..Usage::default() })));
}

#[test]
fn every_stop_reason_has_its_counterpart() {
    let reason = |word: &str| finish(&body_events(json!([]), word, StructuredOutput::Native)).unwrap().as_openai();
    for word in ["end_turn", "stop_sequence", "pause_turn", "new_in_some_year"] {
        assert_eq!(reason(word), "stop");
    }
    assert_eq!(reason("max_tokens"), "length");
    assert_eq!(reason("model_context_window_exceeded"), "length");
    assert_eq!(reason("tool_use"), "tool_calls");
    assert_eq!(reason("refusal"), "content_filter");
}

#[test]
fn a_stream_counts_as_complete_at_message_stop_and_nothing_after_it_counts() {
    let mut events = answer_stream();
    events.push(json!({"type": "error", "error": {"message": "late"}}));
    assert_eq!(stream_events(&events, StructuredOutput::Native).1, Ok(()));
    let cut = stream_events(&answer_stream()[..6], StructuredOutput::Native);
    assert_eq!(cut.1, Err(ReplyFault::Truncated));

    let provider = provider();
    let mut decoder = decoder(&Anthropic, target(&provider, StructuredOutput::Native), &StandIns::default());
    let mut out = Vec::new();
    let tail = b"data: \n\ndata: {\"type\":\"message_stop\"}\n\ndata: [DONE]\n\n";
    assert_eq!(decoder.push(tail, &mut out).and_then(|()| decoder.finish(&mut out)), Ok(()));
}

#[test]
fn errors_are_reported_in_the_providers_words() {
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let fault = ReplyFault::Reported { message: "Overloaded".into(), code: Some("overloaded_error".into()) };
    assert_eq!(
        stream_events(&[answer_stream().remove(0), error.clone()], StructuredOutput::Native).1,
        Err(fault.clone())
    );
    let untyped = json!({"error": {"type": "overloaded_error", "message": "Overloaded"}});
    assert_eq!(stream_events(&[untyped], StructuredOutput::Native).1, Err(fault.clone()));
    let provider = provider();
    let decoded = decode_body(
        &Anthropic,
        target(&provider, StructuredOutput::Native),
        &StandIns::default(),
        error.to_string().as_bytes(),
    );
    assert_eq!(decoded, Err(fault));
    for body in ["{}", "null", "[]", "<html>", "{\"content\":5}"] {
        let decoded =
            decode_body(&Anthropic, target(&provider, StructuredOutput::Native), &StandIns::default(), body.as_bytes());
        assert!(matches!(decoded, Err(ReplyFault::Malformed(_))), "{body}");
    }
}

#[test]
fn sources_are_told_with_the_passage_that_rests_on_them() {
    let place = json!({"type": "char_location", "cited_text": "green", "document_index": 0, "document_title": "Grass",
        "start_char_index": 3, "end_char_index": 8});
    let found = json!({"type": "web_search_result_location", "cited_text": "blue", "url": "https://a.example",
        "title": "Sky", "encrypted_index": "e"});
    let content = json!([
        {"type": "text", "text": "Well: "},
        {"type": "text", "text": "grün", "citations": [place]},
        {"type": "text", "text": ", blau", "citations": [found]},
    ]);
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let whole = json!({"id": "m", "type": "message", "role": "assistant", "model": "c", "content": content,
        "stop_reason": "end_turn", "usage": usage});
    let provider = provider();
    let target = target(&provider, StructuredOutput::Native);
    let events = decode_body(&Anthropic, target, &StandIns::default(), whole.to_string().as_bytes()).unwrap();
    let told = |events: &[ChatEvent]| -> Vec<Citation> {
        let citation = |event: &ChatEvent| match event {
            ChatEvent::Citation { citation, .. } => Some(citation.clone()),
            _ => None,
        };
        events.iter().filter_map(citation).collect()
    };
    let citations = told(&events);
    let passages: Vec<_> = citations.iter().map(|citation| (citation.start, citation.end)).collect();
    assert_eq!(passages, [(Some(6), Some(10)), (Some(10), Some(16))]);
    assert_eq!((citations[0].url.as_deref(), citations[0].title.as_deref()), (None, Some("Grass")));
    assert_eq!(citations[0].in_document(), Some(&place));
    assert_eq!((citations[1].url.as_deref(), citations[1].in_document()), (Some("https://a.example"), None));

    let mut stream = vec![json!({"type": "message_start", "message": {"id": "m", "model": "c", "usage": usage}})];
    for (index, block) in content.as_array().unwrap().iter().enumerate() {
        let empty = json!({"type": "text", "text": ""});
        stream.push(json!({"type": "content_block_start", "index": index, "content_block": empty}));
        let delta = |delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        // In this order they come.
        for citation in block["citations"].as_array().into_iter().flatten() {
            stream.push(delta(json!({"type": "citations_delta", "citation": citation})));
        }
        stream.push(delta(json!({"type": "text_delta", "text": block["text"]})));
        stream.push(json!({"type": "content_block_stop", "index": index}));
    }
    stream.push(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}));
    stream.push(json!({"type": "message_stop"}));
    let bytes: String = stream.iter().map(|event| format!("data: {event}\n\n")).collect();
    let mut decoder = decoder(&Anthropic, target, &StandIns::default());
    let mut events = Vec::new();
    decoder.push(bytes.as_bytes(), &mut events).unwrap();
    decoder.finish(&mut events).unwrap();
    assert_eq!(told(&events), citations);
}
